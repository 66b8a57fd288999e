//! The system calls for which there is no safe wrapper at hand.

#![allow(unsafe_code)]

/// Sets the calling thread's nice value: below 0 it gets more of a contended CPU, above 0 less.
///
/// Without the privilege for it, it stays as it is.
pub fn set_nice(nice: i32) {
    // SAFETY: no pointers. `who` 0 means the calling thread, on Linux.
    if unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, nice) } != 0 {
        log::debug!("nice value {nice} refused: {}", std::io::Error::last_os_error());
    }
}

/// Has the calling thread run only where no ordinary one wants to, which then interrupts it at once.
pub fn only_when_idle() {
    let parameters = libc::sched_param { sched_priority: 0 };
    // SAFETY: the parameters live as long as the call; 0 means the calling thread.
    if unsafe { libc::sched_setscheduler(0, libc::SCHED_IDLE, &raw const parameters) } != 0 {
        log::debug!("SCHED_IDLE refused: {}", std::io::Error::last_os_error());
    }
}

/// Has short sleeps end on time: without it the kernel adds up to 50 µs.
pub fn exact_sleeps() {
    if let Err(errno) = nix::sys::prctl::set_timerslack(1) {
        log::debug!("timer slack refused: {errno}");
    }
}
