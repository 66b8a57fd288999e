//! An SSH session: a line is typed, and comes back, many times a second.

use super::servers::{ROUTER, Servers};
use crate::topology::{INSIDE, command_in};
use anyhow::{Context, Result, ensure};
use std::io::{BufRead, BufReader, Write};
use std::process::Stdio;
use std::time::{Duration, Instant};

/// How often a line is typed.
const PAUSE: Duration = Duration::from_millis(100);

/// Logs in and lets the other side repeat what it is told, for `duration`. Returns what came of it.
pub(super) fn run(servers: &Servers, duration: Duration) -> Result<String> {
    let option = |name: &str, value: &str| format!("-o{name}={value}");
    let mut ssh = command_in(INSIDE, "ssh")
        .args(["-F", "none", "-T", "-i"])
        .arg(&servers.user_key)
        .args([option("UserKnownHostsFile", &servers.known_hosts.display().to_string())])
        .args([option("BatchMode", "yes"), option("ServerAliveInterval", "5"), option("LogLevel", "ERROR")])
        .args([&format!("root@{ROUTER}"), "cat"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context("cannot run ssh")?;
    let mut keyboard = ssh.stdin.take().context("ssh has no input")?;
    let mut screen = BufReader::new(ssh.stdout.take().context("ssh has no output")?).lines();
    let (begun, mut lines, mut slowest) = (Instant::now(), 0_u64, Duration::ZERO);
    let mut typed = || -> Result<()> {
        while begun.elapsed() < duration {
            let line = format!("line {lines}");
            let asked = Instant::now();
            writeln!(keyboard, "{line}")?;
            let answer = screen.next().context("the session has ended")??;
            ensure!(answer == line, "typed {line:?}, got {answer:?}");
            // The first is the log-in.
            if lines > 0 {
                slowest = slowest.max(asked.elapsed());
            }
            lines += 1;
            std::thread::sleep(PAUSE);
        }
        Ok(())
    };
    let result = typed();
    drop(keyboard);
    let output = ssh.wait_with_output()?;
    let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    result.with_context(|| format!("after {lines} lines ({}) {said}", output.status))?;
    ensure!(output.status.success(), "{}: {said}", output.status);
    Ok(format!("{lines} lines came back, the slowest after {} ms", slowest.as_millis()))
}
