//! Which accelerator runs a guest: KVM where it will really work, emulation otherwise, and the reason.
//!
//! That `/dev/kvm` opens says little: in some virtual machines it leads to a backend on which a stock guest hangs in
//! early boot. So three things are asked, in order of cost: does it open, is there a hardware backend, and does a
//! guest kernel make progress. The last answer is kept until the host boots again.

use super::Image;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// What was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Accel {
    /// KVM where it works, otherwise emulation.
    #[default]
    Auto,
    /// KVM, or an error that says why not.
    Kvm,
    /// Emulation (TCG): works everywhere, is slower.
    Tcg,
}

impl Accel {
    /// Every choice, as written on a command line.
    pub const NAMES: [&'static str; 3] = ["auto", "kvm", "tcg"];
}

impl FromStr for Accel {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "auto" => Ok(Self::Auto),
            "kvm" => Ok(Self::Kvm),
            "tcg" => Ok(Self::Tcg),
            other => Err(format!("unknown accelerator {other:?}: use auto, kvm or tcg")),
        }
    }
}

impl fmt::Display for Accel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Auto => "auto",
            Self::Kvm => "kvm",
            Self::Tcg => "tcg",
        })
    }
}

crate::net::serde_as_text!(Accel);

/// What a guest runs with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AccelChoice {
    /// Whether it is KVM; otherwise emulation.
    pub kvm: bool,
    /// Why, in words.
    pub reason: String,
}

impl AccelChoice {
    /// QEMU's name for it.
    pub fn name(&self) -> &'static str {
        if self.kvm { "kvm" } else { "tcg" }
    }
}

impl fmt::Display for AccelChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.name(), self.reason)
    }
}

/// KVM was asked for and cannot be had.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("KVM cannot run guests here: {reason}; use --accel tcg, or auto")]
pub struct AccelError {
    /// Why not.
    pub reason: String,
}

/// Decides how to run a guest.
///
/// `root` is the root of the file system that is looked at (`/` but in tests); `probe` boots a guest kernel with KVM and
/// says what hindered it, and is only called when everything else speaks for KVM.
///
/// # Errors
/// `wanted` is [`Accel::Kvm`] and KVM will not work.
pub fn choose(
    wanted: Accel,
    root: &Path,
    probe: impl FnOnce() -> Result<String, String>,
) -> Result<AccelChoice, AccelError> {
    if wanted == Accel::Tcg {
        return Ok(AccelChoice { kvm: false, reason: "asked for".into() });
    }
    let verdict = hardware(root)
        .map_err(|hindrance| hindrance.to_string())
        .and_then(|backend| Ok(format!("{backend}, and {}", probe()?)));
    match (verdict, wanted) {
        (Ok(reason), _) => Ok(AccelChoice { kvm: true, reason }),
        (Err(reason), Accel::Kvm) => Err(AccelError { reason }),
        (Err(reason), _) => Ok(AccelChoice { kvm: false, reason: format!("no usable KVM: {reason}") }),
    }
}

/// What hinders KVM, and the command that mends it if there is one.
#[derive(Debug)]
pub(super) struct Hindrance {
    pub(super) reason: String,
    pub(super) mend: Option<String>,
}

impl fmt::Display for Hindrance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.mend {
            Some(mend) => write!(f, "{} ({mend})", self.reason),
            None => f.write_str(&self.reason),
        }
    }
}

/// Names the hardware backend of KVM, or says what is missing.
pub(super) fn hardware(root: &Path) -> Result<String, Hindrance> {
    let cpuinfo = fs::read_to_string(root.join("proc/cpuinfo")).unwrap_or_default();
    let has = |flag: &str| {
        cpuinfo
            .lines()
            .filter(|line| line.starts_with("flags"))
            .any(|line| line.split_whitespace().any(|word| word == flag))
    };
    let backend = match (has("vmx"), has("svm")) {
        (true, _) => Some(("VT-x", "kvm_intel")),
        (_, true) => Some(("AMD-V", "kvm_amd")),
        _ => None,
    };
    let load = backend.map(|(_, module)| format!("sudo modprobe {module}"));
    let device = root.join("dev/kvm");
    if let Err(error) = fs::File::options().read(true).write(true).open(&device) {
        return Err(match error.kind() {
            std::io::ErrorKind::NotFound => Hindrance {
                reason: match backend {
                    Some(_) => "/dev/kvm does not exist".into(),
                    None => "/dev/kvm does not exist, and the CPU shows no virtualisation extension (neither vmx nor \
                             svm in /proc/cpuinfo): is it switched off in the firmware?"
                        .into(),
                },
                mend: load,
            },
            std::io::ErrorKind::PermissionDenied => Hindrance {
                reason: "/dev/kvm may not be opened: add yourself to its group and log in again".into(),
                mend: Some("sudo adduser $USER kvm".into()),
            },
            _ => Hindrance { reason: format!("/dev/kvm does not open: {error}"), mend: None },
        });
    }
    let Some((extension, module)) = backend else {
        let reason = "/dev/kvm opens, but the CPU shows no virtualisation extension (neither vmx nor svm in \
                      /proc/cpuinfo): the backend behind it cannot run a stock kernel";
        return Err(Hindrance { reason: reason.into(), mend: None });
    };
    if !root.join("sys/module").join(module).is_dir() {
        let reason = format!("the CPU has {extension}, but its backend is not loaded");
        return Err(Hindrance { reason, mend: load });
    }
    Ok(format!("/dev/kvm opens with {module} on {extension}"))
}

/// The answer of a probe boot, kept until the host boots again or QEMU or the kernel changes.
pub(crate) struct ProbeCache {
    file: PathBuf,
    key: String,
}

impl ProbeCache {
    /// The cache for probes of `image` with the QEMU at `program`; `None` where there is no place to keep it.
    pub(crate) fn new(program: &Path, image: &Image) -> Option<Self> {
        let folder = std::env::var_os("XDG_CACHE_HOME")
            .map(PathBuf::from)
            .or_else(|| std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache")))?
            .join("slim");
        let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
        let stamp = |path: &Path| {
            let meta = path.metadata().ok()?;
            let modified = meta.modified().ok()?.duration_since(std::time::UNIX_EPOCH).ok()?;
            Some(format!("{} {} {}", path.display(), meta.len(), modified.as_nanos()))
        };
        let key = format!("{}\n{}\n{}", boot.trim(), stamp(program)?, stamp(&image.kernel)?);
        Some(Self { file: folder.join("kvm-probe"), key })
    }

    /// The kept answer, if it is for this host, this boot, this QEMU and this kernel.
    pub(crate) fn get(&self) -> Option<Result<String, String>> {
        let text = fs::read_to_string(&self.file).ok()?;
        let answer = text.strip_prefix(&self.key)?.strip_prefix('\n')?;
        let (verdict, reason) = answer.split_once(' ')?;
        match verdict {
            "works" => Some(Ok(reason.to_owned())),
            "fails" => Some(Err(reason.to_owned())),
            _ => None,
        }
    }

    /// Keeps `answer`. A cache that cannot be written only costs time.
    pub(crate) fn put(&self, answer: &Result<String, String>) {
        let (verdict, reason) = match answer {
            Ok(reason) => ("works", reason),
            Err(reason) => ("fails", reason),
        };
        let write = || {
            let folder = self.file.parent().unwrap_or(Path::new("."));
            fs::create_dir_all(folder)?;
            fs::write(&self.file, format!("{}\n{verdict} {reason}", self.key))
        };
        if let Err(error) = write() {
            log::debug!("cannot keep the answer of the KVM probe in {}: {error}", self.file.display());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(cpu_flags: &str, device: bool, modules: &[&str]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for folder in ["dev", "proc", "sys/module"] {
            fs::create_dir_all(root.path().join(folder)).unwrap();
        }
        fs::write(root.path().join("proc/cpuinfo"), format!("processor\t: 0\nflags\t\t: fpu {cpu_flags} sse\n"))
            .unwrap();
        if device {
            fs::write(root.path().join("dev/kvm"), "").unwrap();
        }
        for module in modules {
            fs::create_dir(root.path().join("sys/module").join(module)).unwrap();
        }
        root
    }

    fn works() -> Result<String, String> {
        Ok("a guest booted".into())
    }

    #[test]
    fn kvm_needs_device_extension_backend_and_progress() {
        let good = host("svm", true, &["kvm_amd"]);
        let choice = choose(Accel::Auto, good.path(), works).unwrap();
        assert!(
            choice.kvm && choice.reason.contains("kvm_amd") && choice.reason.contains("a guest booted"),
            "{choice}"
        );

        for (cpu_flags, device, modules, word) in [
            ("vmx", false, &["kvm_intel"][..], "does not exist"),
            ("", true, &["kvm", "kvm_pvm"], "neither vmx nor svm"),
            ("vmx", true, &["kvm", "kvm_amd"], "modprobe kvm_intel"),
        ] {
            let root = host(cpu_flags, device, modules);
            let probe = || panic!("the probe costs seconds and must not run");
            let choice = choose(Accel::Auto, root.path(), probe).unwrap();
            assert!(!choice.kvm && choice.reason.contains(word), "{choice}");
            let error = choose(Accel::Kvm, root.path(), works).unwrap_err();
            assert!(error.to_string().contains(word) && error.to_string().contains("--accel tcg"), "{error}");
        }
    }

    #[test]
    fn a_guest_that_hangs_rules_kvm_out() {
        let root = host("vmx", true, &["kvm_intel"]);
        let hangs = || Err("a guest made no progress".to_owned());
        assert!(!choose(Accel::Auto, root.path(), hangs).unwrap().kvm);
        assert!(choose(Accel::Kvm, root.path(), hangs).unwrap_err().reason.contains("no progress"));
    }

    #[test]
    fn emulation_is_never_questioned() {
        let nothing = tempfile::tempdir().unwrap();
        let choice = choose(Accel::Tcg, nothing.path(), || panic!("not asked")).unwrap();
        assert_eq!(choice.name(), "tcg");
    }

    #[test]
    fn an_answer_is_kept_for_its_key_only() {
        let folder = tempfile::tempdir().unwrap();
        let cache = |key: &str| ProbeCache { file: folder.path().join("slim/kvm-probe"), key: key.into() };
        assert_eq!(cache("boot 1").get(), None);
        cache("boot 1").put(&Err("hangs in early boot".into()));
        assert_eq!(cache("boot 1").get(), Some(Err("hangs in early boot".into())));
        assert_eq!(cache("boot 2").get(), None);
        cache("boot 2").put(&works());
        assert_eq!(cache("boot 2").get(), Some(works()));
    }
}
