//! The power button, and the end of an image.

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::reboot::{RebootMode, reboot, set_cad_enabled};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::path::Path;

/// An event of an input device: time stamp (16 bytes), type, code, value.
const EVENT_SIZE: usize = 24;
const EV_KEY: u16 = 1;
const KEY_POWER: u16 = 116;

/// Has ctrl-alt-del delivered as SIGINT instead of resetting the machine.
pub fn catch_ctrl_alt_del() {
    if let Err(errno) = set_cad_enabled(false) {
        log::warn!("ctrl-alt-del will reset the machine: {errno}");
    }
}

/// Calls `pressed` each time the ACPI power button is pressed, from a thread of its own.
///
/// Without such a button, nothing happens: the control connection's `shutdown` is then the only gentle end.
pub fn watch_button(pressed: impl Fn() + Send + 'static) {
    let devices = button_devices(Path::new("/dev/input"));
    if devices.is_empty() {
        log::info!("no power button: the guest ends by the control connection or by its hypervisor");
        return;
    }
    let watch = move || {
        let mut devices = devices;
        loop {
            let mut fds: Vec<PollFd<'_>> =
                devices.iter().map(|device| PollFd::new(device.as_fd(), PollFlags::POLLIN)).collect();
            match poll(&mut fds, PollTimeout::NONE) {
                Ok(_) | Err(nix::Error::EINTR) => {}
                Err(_) => return,
            }
            let ready: Vec<bool> = fds.iter().map(|fd| fd.any().unwrap_or(false)).collect();
            for (device, _) in devices.iter_mut().zip(ready).filter(|(_, ready)| *ready) {
                let mut events = [0; 16 * EVENT_SIZE];
                match device.read(&mut events) {
                    Ok(len) if power_pressed(&events[..len]) => pressed(),
                    Ok(_) => {}
                    Err(_) => return,
                }
            }
        }
    };
    if let Err(error) = std::thread::Builder::new().name("power".into()).stack_size(64 << 10).spawn(watch) {
        log::warn!("cannot watch the power button: {error}");
    }
}

/// All input devices: an image has no keyboard, whatever reports KEY_POWER is a power button.
fn button_devices(directory: &Path) -> Vec<File> {
    let entries = std::fs::read_dir(directory).into_iter().flatten().filter_map(Result::ok);
    let events = entries.filter(|entry| entry.file_name().to_string_lossy().starts_with("event"));
    events.filter_map(|entry| File::open(entry.path()).ok()).collect()
}

fn power_pressed(events: &[u8]) -> bool {
    events.chunks_exact(EVENT_SIZE).any(|event| {
        let half = |at: usize| u16::from_ne_bytes([event[at], event[at + 1]]);
        half(16) == EV_KEY && half(18) == KEY_POWER && event[20..24] != [0; 4]
    })
}

/// Collects children that ended, among them those that PID 1 inherits. Returns their number.
pub fn reap() -> usize {
    let mut reaped = 0;
    while let Ok(status) = waitpid(None, Some(WaitPidFlag::WNOHANG)) {
        if status == WaitStatus::StillAlive {
            break;
        }
        reaped += 1;
    }
    reaped
}

/// Switches the machine off. Returns only if the kernel refuses.
pub fn off() {
    let _ = std::io::stdout().flush();
    let _ = std::io::stderr().flush();
    let Err(errno) = reboot(RebootMode::RB_POWER_OFF);
    eprintln!("slim: power-off refused: {errno}");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(kind: u16, code: u16, value: i32) -> [u8; EVENT_SIZE] {
        let mut event = [0xaa; EVENT_SIZE];
        event[16..18].copy_from_slice(&kind.to_ne_bytes());
        event[18..20].copy_from_slice(&code.to_ne_bytes());
        event[20..].copy_from_slice(&value.to_ne_bytes());
        event
    }

    #[test]
    fn only_a_press_of_the_power_key_counts() {
        assert!(power_pressed(&[event(0, 0, 0), event(EV_KEY, KEY_POWER, 1)].concat()));
        assert!(!power_pressed(&event(EV_KEY, KEY_POWER, 0)), "release");
        assert!(!power_pressed(&event(EV_KEY, 30, 1)), "another key");
        assert!(!power_pressed(&event(0, KEY_POWER, 1)), "another type");
        assert!(!power_pressed(&event(EV_KEY, KEY_POWER, 1)[..EVENT_SIZE - 1]), "cut short");
    }
}
