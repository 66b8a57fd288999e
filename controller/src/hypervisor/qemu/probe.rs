//! A boot that says whether KVM runs a guest kernel or only starts one.

use super::instance::Instance;
use crate::hypervisor::placement::Placement;
use crate::hypervisor::{AccelChoice, Image, Launch, Machine};
use std::path::Path;
use std::time::{Duration, Instant};

/// A kernel under KVM reaches user space in well under a second; this is for a busy host.
pub(super) const PROMPT: Duration = Duration::from_secs(10);

/// For KVM that is known to be slow.
pub(super) const PATIENT: Duration = Duration::from_secs(60);

/// What is written when early boot, where unusable backends hang, is behind a kernel: by PID 1, or by a kernel that
/// misses something. Nothing else is: on slow KVM each character costs.
const PROGRESS: [&str; 2] = ["slim: ", "Kernel panic"];

/// Boots `image` with KVM, without configuration or interfaces, until the kernel hands over to user space, for `limit`
/// at most.
pub(super) fn boot(program: &Path, image: &Image, limit: Duration) -> Result<String, String> {
    let run_dir = tempfile::tempdir().map_err(|error| format!("cannot make a temporary folder: {error}"))?;
    let launch = Launch::new("kvm-probe", image.clone(), run_dir.path());
    let choice = AccelChoice { kvm: true, reason: "probe".into() };
    let mut instance =
        Instance::start(program, &launch, choice, Placement::default()).map_err(|error| error.to_string())?;
    let started = Instant::now();
    loop {
        // The process first: what it wrote before its end is then read completely.
        let ended = !instance.is_alive();
        let console = std::fs::read(&launch.console_log).unwrap_or_default();
        let console = String::from_utf8_lossy(&console);
        if PROGRESS.iter().any(|mark| console.contains(mark)) {
            return Ok(format!("a guest kernel booted in {} ms", started.elapsed().as_millis()));
        }
        if ended {
            return Err(format!("QEMU ended at once with KVM:{}", instance.console_tail()));
        }
        if started.elapsed() > limit {
            return Err(format!("a guest kernel made no progress in {} s", limit.as_secs()));
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}
