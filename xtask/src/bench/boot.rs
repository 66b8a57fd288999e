//! Boot time, by stages: our image until it is ready, Debian's cloud kernel until it merely reaches PID 1.
//!
//! Both boot the same initramfs on the same machine with the same accelerator; runs alternate, so that other load on
//! the host meets both alike. The clock starts when QEMU does.

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};
use slim_controller::hypervisor::qemu::{Monitor, Qemu};
use slim_controller::hypervisor::{AccelChoice, Chipset, Hypervisor, Image, Launch, Machine};
use std::path::Path;
use std::time::{Duration, Instant};

/// What PID 1 of every image writes before anything else.
pub const INIT_LINE: &str = "slim: init";

/// What it writes when DPDK is up.
const EAL_LINE: &str = "EAL started";

/// What it writes when it is ready.
const READY_LINE: &str = "slim: ready";

/// The longest time a boot may take: a minute, or more where KVM itself is emulated.
const LIMIT: Duration = Duration::from_secs(150);

/// How often the console and the processor are looked at, at most and at least. In between it is after a five-hundredth of
/// what has passed, so that looking does not slow down what is slow.
const POLL: [Duration; 2] = [Duration::from_millis(1), Duration::from_millis(20)];

/// How long processors are kept busy before each boot.
const AWAKE: Duration = Duration::from_millis(500);

/// The moments of one boot, in milliseconds since QEMU was started.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Boot {
    /// QEMU has set its machine up, firmware runs.
    pub machine_ms: u64,
    /// The processor is in the kernel.
    pub kernel_ms: u64,
    /// PID 1 runs.
    pub init_ms: u64,
    /// DPDK is up; of our image only.
    pub eal_ms: Option<u64>,
    /// It is ready to forward packets; of our image only.
    pub ready_ms: Option<u64>,
}

impl Boot {
    /// The stages in order, each with how long it took.
    pub fn stages(&self) -> [(&'static str, Option<u64>); 5] {
        let since = |later: Option<u64>, before: Option<u64>| Some(later?.saturating_sub(before?));
        [
            ("QEMU", Some(self.machine_ms)),
            ("firmware", since(Some(self.kernel_ms), Some(self.machine_ms))),
            ("kernel", since(Some(self.init_ms), Some(self.kernel_ms))),
            ("PID 1 until EAL is up", since(self.eal_ms, Some(self.init_ms))),
            ("until ready", since(self.ready_ms, self.eal_ms)),
        ]
    }
}

/// Measured boots on one machine.
#[derive(Debug, Serialize, Deserialize)]
pub struct Measurement {
    /// The machine.
    pub machine: String,
    /// How the guests ran, `kvm` or `tcg`.
    pub accel: String,
    /// Our image.
    pub image: Vec<Boot>,
    /// Debian's cloud kernel with the same initramfs.
    pub cloud: Vec<Boot>,
}

impl Measurement {
    /// The median until ready.
    pub fn ready_ms(&self) -> u64 {
        median(self.image.iter().filter_map(|boot| boot.ready_ms))
    }

    /// Debian's median until PID 1.
    pub fn cloud_init_ms(&self) -> u64 {
        median(self.cloud.iter().map(|boot| boot.init_ms))
    }

    /// The one divided by the other.
    pub fn ratio(&self) -> f64 {
        self.ready_ms() as f64 / (self.cloud_init_ms() as f64).max(1.0)
    }
}

/// The middle one of `values`, the lower of the two if their number is even; 0 if there is none.
pub fn median(values: impl IntoIterator<Item = u64>) -> u64 {
    let mut sorted: Vec<u64> = values.into_iter().collect();
    sorted.sort_unstable();
    sorted.get(sorted.len().saturating_sub(1) / 2).copied().unwrap_or(0)
}

/// Boots `image` and the same with Debian's kernel on each of `machines`, `repetitions` times in turn. Calls `progress`
/// before each boot.
pub fn measure(
    qemu: &Qemu,
    image: &Launch,
    cloud: &Path,
    machines: &[Chipset],
    repetitions: u32,
    mut progress: impl FnMut(u64, &str),
) -> Result<Vec<Measurement>> {
    // Whether KVM works with a kernel is found out by a boot, before the clock runs.
    let our_accel = qemu.choose_accel(image.accel, &image.image)?;
    let their_accel = qemu.choose_accel(image.accel, &Image { kernel: cloud.to_owned(), ..image.image.clone() })?;
    if our_accel.kvm != their_accel.kvm {
        bail!(
            "the two kernels would not run alike: SliM's with {our_accel}, Debian's with {their_accel}; \
             `--accel tcg` emulates both"
        );
    }
    let mut measured: Vec<Measurement> = machines
        .iter()
        .map(|machine| Measurement {
            machine: machine.name().to_owned(),
            accel: our_accel.name().to_owned(),
            image: Vec::new(),
            cloud: Vec::new(),
        })
        .collect();
    let mut number = 0;
    for _ in 0..repetitions {
        for (measured, chipset) in measured.iter_mut().zip(machines) {
            let ours = Launch { chipset: *chipset, ..image.clone() };
            let mut theirs = ours.clone();
            theirs.image.kernel = cloud.to_owned();
            progress(number, &format!("SliM's image on {chipset}"));
            measured.image.push(boot(qemu, &ours, true, &our_accel)?);
            progress(number + 1, &format!("Debian's cloud kernel on {chipset}"));
            measured.cloud.push(boot(qemu, &theirs, false, &their_accel)?);
            number += 2;
        }
    }
    Ok(measured)
}

/// Boots once, until it is ready if that is waited for, else until PID 1 runs.
fn boot(qemu: &Qemu, launch: &Launch, until_ready: bool, accel: &AccelChoice) -> Result<Boot> {
    wake_processors();
    let started = Instant::now();
    let mut machine = qemu.start_with(launch, accel.clone())?;
    match watch(&mut machine, &launch.qmp_socket, started, until_ready)? {
        // Its memory is of no interest any more: no need for an orderly end.
        Ok(boot) => Ok(boot),
        Err(why) => {
            bail!("{} {why}; the end of its console:\n{}", launch.image.kernel.display(), machine.console_tail())
        }
    }
}

/// Keeps all processors busy for a moment: those that have slept are slow at first, and not for a fixed time.
fn wake_processors() {
    let until = Instant::now() + AWAKE;
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, std::num::NonZero::get) {
            scope.spawn(|| while Instant::now() < until {});
        }
    });
}

/// Follows a boot to its end, or says why it came to none.
fn watch(
    machine: &mut impl Machine,
    socket: &Path,
    started: Instant,
    until_ready: bool,
) -> Result<Result<Boot, String>> {
    let mut boot = Boot::default();
    let mut monitor = None;
    let mut in_kernel = false;
    loop {
        let elapsed = started.elapsed();
        let now_ms = u64::try_from(elapsed.as_millis())?;
        // The process first, then what it wrote: an end in between is then not mistaken for silence.
        let alive = machine.is_alive();
        if !in_kernel {
            if monitor.is_none() {
                monitor = Monitor::connect(socket).ok();
                boot.machine_ms = now_ms;
            }
            // Only for as long as firmware runs: looking disturbs the guest a little.
            if let Some(monitor) = &mut monitor {
                in_kernel = monitor.is_in_kernel().unwrap_or(false);
                boot.kernel_ms = now_ms;
            }
        }
        let console = std::fs::read(machine.console_log()).context("cannot read the console")?;
        if boot.init_ms == 0 && contains(&console, INIT_LINE) {
            boot.init_ms = now_ms;
        }
        if until_ready && boot.eal_ms.is_none() && contains(&console, EAL_LINE) {
            boot.eal_ms = Some(now_ms);
        }
        if until_ready && contains(&console, READY_LINE) {
            boot.ready_ms = Some(now_ms);
        }
        let is_done = if until_ready { boot.ready_ms.is_some() } else { boot.init_ms > 0 };
        if is_done {
            return Ok(Ok(boot));
        }
        let what = if until_ready { "ready" } else { "in PID 1" };
        if !alive {
            return Ok(Err(format!("ended before it was {what}")));
        }
        if elapsed > LIMIT {
            return Ok(Err(format!("was not {what} after {} s", LIMIT.as_secs())));
        }
        std::thread::sleep((elapsed / 500).clamp(POLL[0], POLL[1]));
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
        assert_eq!(median([]), 0);
        assert_eq!(median([7]), 7);
        assert_eq!(median([9, 1]), 1);
        assert_eq!(median([9, 1, 5]), 5);
    }

    #[test]
    fn stages_add_up_to_the_whole() {
        let boot = Boot { machine_ms: 70, kernel_ms: 120, init_ms: 600, eal_ms: Some(850), ready_ms: Some(900) };
        let stages: Vec<_> = boot.stages().iter().map(|(_, ms)| ms.expect("all are there")).collect();
        assert_eq!(stages, [70, 50, 480, 250, 50]);
        let cloud = Boot { eal_ms: None, ready_ms: None, ..boot };
        assert_eq!(cloud.stages()[3..].iter().filter_map(|(_, ms)| *ms).count(), 0);
    }

    #[test]
    fn a_line_is_found_behind_other_output() {
        assert!(contains(b"[    0.9] x\r\nslim: init\r\n", INIT_LINE));
        assert!(!contains(b"slim: ini", INIT_LINE));
        assert!(!contains(b"", INIT_LINE));
    }
}
