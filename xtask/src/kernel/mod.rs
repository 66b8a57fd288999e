//! The guest's kernel: built once from Debian's source with the fragments of `kernel-cfg/`, kept outside `target/`
//! under a hash of everything that went into it.

mod build;
pub mod fragments;

use crate::image::NicDriver;
use crate::paths;
use crate::setup::debian;
use crate::setup::packages::KERNEL_SOURCE;
use anyhow::{Context, Result};
use fragments::Fragment;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::fs::{self, File};
use std::path::{Path, PathBuf};

/// Changes whenever the way of building does, so that kernels of before are not taken for those of now.
const RECIPE: u32 = 1;

/// A kernel in the cache.
#[derive(Debug)]
pub struct Kernel {
    /// Its folder.
    pub folder: PathBuf,
    /// What went into it.
    pub record: Record,
}

/// What is known of a kernel, stored beside it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Record {
    /// The hash of everything that went into it, which names its folder.
    pub inputs_sha256: String,
    /// The version it reports.
    pub release: String,
    /// The version of Debian's source package.
    pub source_version: String,
    /// The hash of the resolved configuration.
    pub config_sha256: String,
    /// How long the build took.
    pub build_seconds: u64,
}

impl Kernel {
    /// The compressed kernel that firmware can start.
    pub fn bzimage(&self) -> PathBuf {
        self.folder.join("bzImage")
    }

    /// The bare kernel, which QEMU can enter directly (PVH).
    pub fn vmlinux(&self) -> PathBuf {
        self.folder.join("vmlinux")
    }

    /// The resolved configuration.
    pub fn config(&self) -> PathBuf {
        self.folder.join("config")
    }

    fn read(folder: PathBuf) -> Option<Self> {
        let record = serde_json::from_slice(&fs::read(folder.join("kernel.json")).ok()?).ok()?;
        Some(Self { folder, record })
    }
}

/// Everything a kernel is made of.
#[derive(Debug)]
struct Inputs {
    source_version: String,
    fragments: Vec<Fragment>,
    patches: Vec<Patch>,
}

/// A change to Debian's source.
#[derive(Debug)]
struct Patch {
    path: PathBuf,
    text: Vec<u8>,
}

impl Inputs {
    /// With the fragments that some of `nics` need.
    fn read(nics: &[NicDriver]) -> Result<Self> {
        let folder = paths::root().join("kernel-cfg");
        let mut fragments = fragments::read_all(&folder)?;
        for nic in nics.iter().filter(|nic| nic.needs_kernel()) {
            fragments::add(&mut fragments, &folder.join("nics").join(format!("{nic}.config")))?;
        }
        Ok(Self {
            source_version: debian::version(KERNEL_SOURCE)?,
            fragments,
            patches: read_patches(&folder.join("patches"))?,
        })
    }

    /// One hash over all of it; lengths keep neighbouring inputs apart.
    fn sha256(&self) -> String {
        let mut hasher = Sha256::new();
        let mut add = |bytes: &[u8]| {
            hasher.update((bytes.len() as u64).to_be_bytes());
            hasher.update(bytes);
        };
        add(&RECIPE.to_be_bytes());
        add(self.source_version.as_bytes());
        // Only what the fragments ask for: a better comment is no reason to build a kernel.
        for option in self.fragments.iter().flat_map(|fragment| &fragment.options) {
            add(option.name.as_bytes());
            add(option.value.as_deref().unwrap_or("n").as_bytes());
        }
        for patch in &self.patches {
            add(patch.path.file_name().unwrap_or_default().as_encoded_bytes());
            add(&patch.text);
        }
        crate::hash::hex(&hasher.finalize())
    }
}

fn read_patches(folder: &Path) -> Result<Vec<Patch>> {
    if !folder.exists() {
        return Ok(Vec::new());
    }
    let mut paths: Vec<_> = fs::read_dir(folder)?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.extension().is_some_and(|extension| extension == "patch"))
        .collect();
    paths.sort();
    paths
        .into_iter()
        .map(|path| {
            let text = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
            Ok(Patch { path, text })
        })
        .collect()
}

/// The kernel for the present inputs and an image with `nics`: from the cache, or built. Its packages must be installed.
pub fn ensure(nics: &[NicDriver]) -> Result<Kernel> {
    let inputs = Inputs::read(nics)?;
    let hash = inputs.sha256();
    let cache = paths::cache()?.join("kernel");
    let folder = cache.join(hash.get(..16).unwrap_or(&hash));
    if let Some(kernel) = Kernel::read(folder.clone()) {
        return Ok(kernel);
    }
    fs::create_dir_all(&cache).with_context(|| format!("cannot create {}", cache.display()))?;
    let _lock = lock(&cache.join("lock"))?;
    // Another build may have finished while we waited.
    if let Some(kernel) = Kernel::read(folder.clone()) {
        return Ok(kernel);
    }
    build::build(&inputs, &hash, &cache, &folder)?;
    Kernel::read(folder.clone()).with_context(|| format!("the kernel just built is not in {}", folder.display()))
}

/// Excludes other builds in the same cache for as long as the file is open.
fn lock(path: &Path) -> Result<File> {
    let file = File::create(path).with_context(|| format!("cannot create {}", path.display()))?;
    if file.try_lock().is_err() {
        eprintln!("==> another build of the kernel is running; waiting for it ({})", path.display());
        file.lock().with_context(|| format!("cannot lock {}", path.display()))?;
    }
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn inputs(version: &str, text: &str) -> Inputs {
        let fragment = fragments::parse("a.config".to_owned(), text).expect("valid");
        Inputs { source_version: version.to_owned(), fragments: vec![fragment], patches: Vec::new() }
    }

    #[test]
    fn every_input_changes_the_hash_and_a_comment_does_not() {
        let base = inputs("1", "# Why.\nCONFIG_A=y\n").sha256();
        assert_eq!(base, inputs("1", "# Because.\nCONFIG_A=y\n").sha256());
        assert_ne!(base, inputs("2", "# Why.\nCONFIG_A=y\n").sha256());
        assert_ne!(base, inputs("1", "# Why.\nCONFIG_A=2\n").sha256());
        assert_ne!(base, inputs("1", "# Why.\n# CONFIG_A is not set\n").sha256());
        assert_ne!(base, inputs("1", "# Why.\nCONFIG_A=y\nCONFIG_B=y\n").sha256());
        let patch = Patch { path: PathBuf::from("1.patch"), text: b"z".to_vec() };
        let patched = Inputs { patches: vec![patch], ..inputs("1", "# Why.\nCONFIG_A=y\n") };
        assert_ne!(base, patched.sha256());
    }

    #[test]
    fn a_folder_without_its_record_is_not_a_kernel() {
        let folder = tempfile::tempdir().expect("temporary folder");
        fs::write(folder.path().join("bzImage"), b"half").expect("write");
        assert!(Kernel::read(folder.path().to_owned()).is_none());
    }
}
