//! A boot that says whether KVM runs a guest kernel or only starts one.

use super::instance::Instance;
use crate::hypervisor::{AccelChoice, Image, Launch, Machine};
use std::path::Path;
use std::time::{Duration, Instant};

/// A kernel under KVM reaches user space in well under a second, also on a busy host.
const LIMIT: Duration = Duration::from_secs(10);

/// What a kernel writes when early boot, where unusable backends hang, is behind it.
const PROGRESS: [&str; 4] = ["Run /", "Freeing unused kernel", "Kernel panic", "slim: "];

/// Boots `image` with KVM, without configuration or interfaces, until the kernel hands over to user space.
pub(super) fn boot(program: &Path, image: &Image) -> Result<String, String> {
    let run_dir = tempfile::tempdir().map_err(|error| format!("cannot make a temporary folder: {error}"))?;
    let mut launch = Launch::new("kvm-probe", image.clone(), run_dir.path());
    launch.extra_cmdline = "loglevel=7".into();
    let choice = AccelChoice { kvm: true, reason: "probe".into() };
    let mut instance = Instance::start(program, &launch, choice).map_err(|error| error.to_string())?;
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
        if started.elapsed() > LIMIT {
            return Err(format!("a guest kernel made no progress in {} s", LIMIT.as_secs()));
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}
