//! Boot time: our image until it is ready, Debian's cloud kernel until it merely reaches PID 1.
//!
//! Both boot the same initramfs on the same machine with the same accelerator; runs alternate, so that other load on
//! the host meets both alike. The clock starts when QEMU does.

use super::cloud_kernel::CloudKernel;
use anyhow::{Context, Result, bail};
use serde::Serialize;
use slim_controller::hypervisor::qemu::Qemu;
use slim_controller::hypervisor::{AccelChoice, Launch, Machine};
use std::time::{Duration, Instant};

/// What PID 1 of every image writes before anything else.
pub const INIT_LINE: &str = "slim: init";

/// The longest time a boot may take.
const LIMIT: Duration = Duration::from_secs(60);

/// How often the console is looked at.
const POLL: Duration = Duration::from_millis(1);

/// Measured boots.
#[derive(Debug, Serialize)]
pub struct Measurement {
    /// How the guests ran, `kvm` or `tcg`.
    pub accel: String,
    /// Our image, from the start of QEMU to its `ready` line.
    pub image_ready_ms: Vec<u64>,
    /// Our image, to the first line of PID 1.
    pub image_init_ms: Vec<u64>,
    /// Debian's cloud kernel with the same initramfs, to the first line of PID 1.
    pub cloud_init_ms: Vec<u64>,
}

impl Measurement {
    /// The median until ready, divided by Debian's until PID 1.
    pub fn ratio(&self) -> f64 {
        median(&self.image_ready_ms) as f64 / (median(&self.cloud_init_ms) as f64).max(1.0)
    }
}

/// The middle one of `values`, the lower of the two if their number is even; 0 if there is none.
pub fn median(values: &[u64]) -> u64 {
    let mut sorted = values.to_vec();
    sorted.sort_unstable();
    sorted.get(sorted.len().saturating_sub(1) / 2).copied().unwrap_or(0)
}

/// Boots `image` and the same with Debian's kernel, `repetitions` times in turn. Calls `progress` before each boot.
pub fn measure(
    qemu: &Qemu,
    image: &Launch,
    cloud: &CloudKernel,
    repetitions: u32,
    mut progress: impl FnMut(u32, &str),
) -> Result<Measurement> {
    let mut with_cloud = image.clone();
    with_cloud.image.kernel.clone_from(&cloud.path);
    let mut measured = Measurement {
        accel: String::new(),
        image_ready_ms: Vec::new(),
        image_init_ms: Vec::new(),
        cloud_init_ms: Vec::new(),
    };
    for round in 0..repetitions {
        progress(2 * round, "SliM's image");
        let (init, ready) = boot(qemu, image, true, &mut measured.accel)?;
        measured.image_init_ms.push(init);
        measured.image_ready_ms.push(ready);
        progress(2 * round + 1, "Debian's cloud kernel");
        let (init, _) = boot(qemu, &with_cloud, false, &mut measured.accel)?;
        measured.cloud_init_ms.push(init);
    }
    Ok(measured)
}

/// Boots once. Milliseconds from the start of QEMU to PID 1's first line, and to `ready` if that is waited for.
fn boot(qemu: &Qemu, launch: &Launch, until_ready: bool, accel: &mut String) -> Result<(u64, u64)> {
    let started = Instant::now();
    let mut machine = qemu.start(launch)?;
    machine.accel().map_or("", AccelChoice::name).clone_into(accel);
    let mut init = None;
    let outcome = loop {
        let elapsed = started.elapsed();
        let now_ms = u64::try_from(elapsed.as_millis())?;
        // The process first, then what it wrote: an end in between is then not mistaken for silence.
        let alive = machine.is_alive();
        let console = std::fs::read(machine.console_log()).context("cannot read the console")?;
        if init.is_none() && contains(&console, INIT_LINE) {
            init = Some(now_ms);
        }
        if let Some(init) = init {
            if !until_ready {
                break Ok((init, now_ms));
            }
            if contains(&console, "slim: ready") {
                break Ok((init, now_ms));
            }
        }
        let what = if until_ready { "ready" } else { "in PID 1" };
        if !alive {
            break Err(format!("ended before it was {what}"));
        }
        if elapsed > LIMIT {
            break Err(format!("was not {what} after {} s", LIMIT.as_secs()));
        }
        std::thread::sleep(POLL);
    };
    match outcome {
        // Its memory is of no interest any more: no need for an orderly end.
        Ok(times) => Ok(times),
        Err(why) => {
            bail!("{} {why}; the end of its console:\n{}", launch.image.kernel.display(), machine.console_tail())
        }
    }
}

fn contains(console: &[u8], line: &str) -> bool {
    console.windows(line.len()).any(|window| window == line.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_a_measured_value() {
        assert_eq!(median(&[]), 0);
        assert_eq!(median(&[7]), 7);
        assert_eq!(median(&[9, 1]), 1);
        assert_eq!(median(&[9, 1, 5]), 5);
    }

    #[test]
    fn a_line_is_found_behind_other_output() {
        assert!(contains(b"[    0.9] x\r\nslim: init\r\n", INIT_LINE));
        assert!(!contains(b"slim: ini", INIT_LINE));
        assert!(!contains(b"", INIT_LINE));
    }
}
