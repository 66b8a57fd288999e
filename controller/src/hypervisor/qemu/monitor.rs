//! Watching a guest from outside, for whoever times its boot.

use super::qmp::Qmp;
use serde_json::json;
use std::io;
use std::path::Path;

/// Where Linux runs: the high half of memory's addresses, and before it has switched there, where it was loaded.
const KERNEL: [std::ops::Range<u64>; 2] = [0x10_0000..0x400_0000, 0xffff_ffff_8000_0000..u64::MAX];

/// A connection to a running QEMU.
pub struct Monitor(Qmp);

impl Monitor {
    /// Connects. QEMU answers when it has set its machine up.
    ///
    /// # Errors
    /// It does not, yet.
    pub fn connect(socket: &Path) -> io::Result<Self> {
        Qmp::connect(socket).map(Self)
    }

    /// Whether the guest's first processor is in a kernel, and no longer in firmware.
    ///
    /// # Errors
    /// QEMU does not answer.
    pub fn is_in_kernel(&mut self) -> io::Result<bool> {
        let answer = self.0.call("human-monitor-command", &json!({ "command-line": "info registers" }))?;
        let address = answer.as_str().and_then(program_counter);
        let address = address.ok_or_else(|| io::Error::other(format!("QEMU tells no program counter: {answer}")))?;
        Ok(KERNEL.iter().any(|range| range.contains(&address)))
    }
}

/// The program counter in what QEMU prints of registers.
fn program_counter(registers: &str) -> Option<u64> {
    let value =
        registers.split_whitespace().find_map(|word| word.strip_prefix("RIP=").or(word.strip_prefix("EIP=")))?;
    u64::from_str_radix(value, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_program_counter_is_found_in_either_mode() {
        let long =
            "CPU#0\r\nRAX=0000000000000000 RBX=0000000000000001\r\nRIP=ffffffff81ae3b36 RFL=00000046 [---Z-P-] CPL=0";
        assert_eq!(program_counter(long), Some(0xffff_ffff_81ae_3b36));
        assert_eq!(program_counter("EAX=0 EIP=000f1234 EFL=00000002"), Some(0xf1234));
        assert_eq!(program_counter("RIP=x"), None);
        assert_eq!(program_counter(""), None);
    }

    #[test]
    fn firmware_is_not_a_kernel() {
        let inside = |address| KERNEL.iter().any(|range| range.contains(&address));
        assert!(inside(0x100_0000) && inside(0x10_0200) && inside(0xffff_ffff_81ae_3b36));
        // SeaBIOS in its place and where it moves to at the end of memory, qboot, an option ROM, the reset vector.
        for address in [0xf_1234, 0xffe_0000, 0xc_a000, 0xffff_fff0] {
            assert!(!inside(address), "{address:#x}");
        }
    }
}
