//! DPDK's log lines as records of the `log` crate, target `dpdk`.
//!
//! The latest error line is also kept, because DPDK explains itself in its log rather than in its return codes.

use core::ffi::c_char;
use log::Level;
use std::sync::{Mutex, PoisonError};

static LAST_ERROR: Mutex<Option<String>> = Mutex::new(None);

/// The latest line logged as an error since the last call.
pub(crate) fn take_last_error() -> Option<String> {
    LAST_ERROR.lock().unwrap_or_else(PoisonError::into_inner).take()
}

/// Sends DPDK's log here from now on, instead of to stderr and syslog.
pub(crate) fn capture() {
    // SAFETY: `line` is a valid callback for the life of the process, and the stream is never closed.
    unsafe {
        let stream = dpdk_sys::slim_log_stream(Some(line));
        if !stream.is_null() {
            dpdk_sys::rte_openlog_stream(stream);
        }
    }
}

/// What the shim's stream calls with each piece of text DPDK writes.
unsafe extern "C" fn line(text: *const c_char, len: usize, level: core::ffi::c_int) {
    if text.is_null() {
        return;
    }
    // SAFETY: the shim passes `len` readable bytes that stay unchanged during the call.
    let bytes = unsafe { core::slice::from_raw_parts(text.cast::<u8>(), len) };
    for line in String::from_utf8_lossy(bytes).lines().map(str::trim).filter(|line| !line.is_empty()) {
        // DPDK's levels are those of syslog, plus 1.
        let level = match level {
            ..=4 => Level::Error,
            5 => Level::Warn,
            6 => Level::Info,
            7 => Level::Debug,
            _ => Level::Trace,
        };
        if level == Level::Error {
            *LAST_ERROR.lock().unwrap_or_else(PoisonError::into_inner) = Some(line.into());
        }
        log::log!(target: "dpdk", level, "{line}");
    }
}
