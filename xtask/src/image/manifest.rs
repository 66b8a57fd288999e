//! What is known of an image, in `manifest.json` beside it.

use super::{Format, NicDriver};
use crate::cargo;
use crate::git::Revision;
use crate::hash;
use crate::kernel::{self, Kernel};
use crate::setup::debian;
use crate::vnf::Vnf;
use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use std::fs;
use std::path::Path;

/// The layout of this file; changes with it.
const FORMAT: u32 = 2;

/// The file's name in the image's folder.
pub const FILE_NAME: &str = "manifest.json";

/// Everything about an image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// The layout of this file.
    pub format: u32,
    /// The network function.
    pub vnf: String,
    /// The schema of its state.
    pub schema: u64,
    /// SliM's version.
    pub version: String,
    /// The commit it was built from, empty if unknown.
    pub commit: String,
    /// Whether sources differed from that commit.
    pub dirty: bool,
    /// The compiler.
    pub rustc: String,
    /// The version of the statically linked DPDK.
    pub dpdk: String,
    /// The kernel's own record: version, source, configuration.
    pub linux: kernel::Record,
    /// The kernel.
    pub kernel: File,
    /// The initramfs.
    pub initramfs: File,
    /// The program inside the initramfs.
    pub program: File,
    /// Drivers of NICs that the usual image has not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub more_drivers: Option<MoreDrivers>,
    /// The unified kernel image, if it was asked for.
    pub uki: Option<File>,
    /// The disk, if it was asked for.
    pub qcow2: Option<File>,
}

/// Drivers of NICs that the usual image has not, and what they cost.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MoreDrivers {
    /// Their names.
    pub names: Vec<String>,
    /// By how much the program is longer, all of them together.
    pub size_bytes: u64,
    /// By how much the kernel is longer, for drivers that work through one of its own.
    #[serde(default)]
    pub kernel_size_bytes: u64,
}

impl MoreDrivers {
    /// What `nics` cost: of programs and bare kernels, each first the one with them, then the usual one.
    pub fn new(nics: &[NicDriver], programs: [&Path; 2], kernels: [&Path; 2]) -> Result<Self> {
        let [with, usual] = [File::describe(programs[0])?, File::describe(programs[1])?];
        let kernel_size_bytes = match kernels[0] == kernels[1] {
            true => 0,
            false => compact_size(kernels[0])?.saturating_sub(compact_size(kernels[1])?),
        };
        Ok(Self {
            names: nics.iter().map(NicDriver::to_string).collect(),
            size_bytes: with.size_bytes.saturating_sub(usual.size_bytes),
            kernel_size_bytes,
        })
    }
}

/// The size of a bare kernel as it is in an image.
fn compact_size(vmlinux: &Path) -> Result<u64> {
    let compact = tempfile::NamedTempFile::new()?;
    super::vmlinux::compact(vmlinux, compact.path())?;
    Ok(compact.path().metadata()?.len())
}

/// One file of an image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct File {
    /// Its size.
    pub size_bytes: u64,
    /// Its hash.
    pub sha256: String,
}

impl File {
    /// Describes the file at `path`.
    pub fn describe(path: &Path) -> Result<Self> {
        let size_bytes = path.metadata().with_context(|| format!("cannot read {}", path.display()))?.len();
        Ok(Self { size_bytes, sha256: hash::file(path)? })
    }

    /// Describes the file at `path`, if there is one.
    fn describe_any(path: &Path) -> Result<Option<Self>> {
        path.exists().then(|| Self::describe(path)).transpose()
    }
}

impl Manifest {
    /// Kernel and initramfs together.
    pub fn size_bytes(&self) -> u64 {
        self.kernel.size_bytes + self.initramfs.size_bytes
    }

    /// The manifest for what is now in `folder`.
    pub fn new(
        vnf: &Vnf,
        folder: &Path,
        linux: &Kernel,
        program: File,
        more_drivers: Option<MoreDrivers>,
    ) -> Result<Self> {
        let revision = Revision::read();
        Ok(Self {
            format: FORMAT,
            vnf: vnf.name.to_owned(),
            schema: vnf.schema,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            commit: revision.commit,
            dirty: revision.dirty,
            rustc: cargo::rustc_version()?,
            dpdk: debian::version("libdpdk-dev")?,
            linux: linux.record.clone(),
            kernel: File::describe(&folder.join("kernel"))?,
            initramfs: File::describe(&folder.join("initramfs"))?,
            program,
            more_drivers,
            uki: File::describe_any(&folder.join(Format::Uki.file()))?,
            qcow2: File::describe_any(&folder.join(Format::Qcow2.file()))?,
        })
    }

    /// The manifest in `folder`; `None` if there is none of the present layout.
    pub fn read(folder: &Path) -> Option<Self> {
        let manifest: Self = serde_json::from_slice(&fs::read(folder.join(FILE_NAME)).ok()?).ok()?;
        (manifest.format == FORMAT).then_some(manifest)
    }
}
