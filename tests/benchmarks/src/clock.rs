//! The time stamp counter: the clock of the images' lcores, without an EAL.

#![allow(unsafe_code)]

use slim_core::time::Instant;
use std::time::Duration;

/// How long the counter is compared with the system's clock.
const CALIBRATION: Duration = Duration::from_millis(50);

/// Cycles of the time stamp counter since the machine's start.
#[inline(always)]
pub fn cycles() -> u64 {
    #[cfg(target_arch = "x86_64")]
    {
        // SAFETY: every x86-64 processor has the instruction, and it has no preconditions.
        unsafe { core::arch::x86_64::_rdtsc() }
    }
    #[cfg(not(target_arch = "x86_64"))]
    {
        // Nanoseconds are as good as cycles where there is no such counter.
        static ORIGIN: std::sync::OnceLock<std::time::Instant> = std::sync::OnceLock::new();
        ORIGIN.get_or_init(std::time::Instant::now).elapsed().as_nanos() as u64
    }
}

/// A clock over the counter.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    hz: f64,
}

impl Clock {
    /// Finds out how fast the counter is; takes 50 ms.
    pub fn calibrate() -> Self {
        let (begin, begin_cycles) = (std::time::Instant::now(), cycles());
        std::thread::sleep(CALIBRATION);
        let (elapsed, elapsed_cycles) = (begin.elapsed(), cycles() - begin_cycles);
        Self { hz: elapsed_cycles as f64 / elapsed.as_secs_f64() }
    }

    /// Cycles per second.
    pub const fn hz(&self) -> f64 {
        self.hz
    }

    /// `cycles` in nanoseconds.
    #[inline(always)]
    pub fn nanos(&self, cycles: u64) -> f64 {
        cycles as f64 * 1e9 / self.hz
    }

    /// The present time as the network function sees it.
    #[inline(always)]
    pub fn now(&self) -> Instant {
        Instant::from_nanos(self.nanos(cycles()) as u64)
    }
}

/// Keeps the calling thread on one CPU, if there is that one, so that what it measures is not spread over several.
pub fn pin(cpu: usize) {
    let mut set = nix::sched::CpuSet::new();
    if set.set(cpu).is_ok() {
        // A machine with fewer CPUs measures all the same.
        let _ = nix::sched::sched_setaffinity(nix::unistd::Pid::from_raw(0), &set);
    }
}

/// How often the calling thread has lost its CPU to others.
pub fn preemptions() -> i64 {
    nix::sys::resource::getrusage(nix::sys::resource::UsageWho::RUSAGE_THREAD)
        .map_or(0, |usage| usage.involuntary_context_switches())
}
