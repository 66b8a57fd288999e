//! Log lines: on the console of an image, on standard error of a process.

use log::{Level, LevelFilter, Log, Metadata, Record};
use std::io::Write;

struct Console;

static CONSOLE: Console = Console;

impl Log for Console {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        // DPDK reports each missing optional feature as information; only its complaints belong on a console.
        metadata.level() <= Level::Warn || metadata.target() != "dpdk" || log::max_level() >= LevelFilter::Debug
    }

    fn log(&self, record: &Record<'_>) {
        if !self.enabled(record.metadata()) {
            return;
        }
        let uptime_ms = crate::guest::uptime_ms();
        let (seconds, millis) = (uptime_ms / 1000, uptime_ms % 1000);
        let level = record.level().as_str().to_ascii_lowercase();
        let dpdk = if record.target() == "dpdk" { "dpdk: " } else { "" };
        // One write per line, so that lines of several threads do not mix. A closed console is no reason to stop.
        let line = format!("[{seconds:5}.{millis:03}] {level}: {dpdk}{}\n", record.args());
        let _ = std::io::stderr().write_all(line.as_bytes());
    }

    fn flush(&self) {}
}

/// Starts logging at the level that the environment variable `SLIM_LOG` names, `info` by default.
pub fn start() {
    let level = std::env::var("SLIM_LOG").ok().and_then(|level| level.parse().ok());
    if log::set_logger(&CONSOLE).is_ok() {
        log::set_max_level(level.unwrap_or(LevelFilter::Info));
    }
}
