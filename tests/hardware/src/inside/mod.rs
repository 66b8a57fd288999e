//! PID 1 of the emulated host: brings it up, runs the steps of its plan, says what came of them, and powers off.

mod boot;
mod host;
mod launcher;
mod migration;
mod steps;

use crate::words::{GO_ON, Plan, Word};
use anyhow::{Context, Result, ensure};
use nix::sys::reboot::{RebootMode, reboot};
use std::fs::File;
use std::io::{BufRead, BufReader, Write};

/// The serial line on which the words go; the first one is the console.
const LINE: &str = "/dev/ttyS1";

/// Why a step is worth another try: the guest made no progress, or reset itself.
#[derive(Debug)]
struct Stalled(String);

impl std::fmt::Display for Stalled {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Stalled {}

/// Does everything and powers off. Never returns in the emulated host.
pub fn main() {
    if std::process::id() != 1 {
        eprintln!("this is PID 1 of the emulated host that `cargo xtask test --only hardware` boots");
        return;
    }
    let result = boot::mount_kernel_files(std::path::Path::new("/")).and_then(|()| boot::serial_line(LINE));
    match result {
        Ok(line) => {
            let mut starter = Starter { line: BufReader::new(line) };
            let word = match run(&mut starter) {
                Ok(()) => Word::Done,
                Err(error) if error.is::<Stalled>() => Word::Stalled(format!("{error:#}")),
                Err(error) => Word::Failed(format!("{error:#}")),
            };
            if let Err(error) = starter.say(&word) {
                eprintln!("hardware: {error:#}");
            }
        }
        Err(error) => eprintln!("hardware: {error:#}"),
    }
    // What was written to the serial line must be on its way before the machine is gone.
    std::thread::sleep(std::time::Duration::from_millis(200));
    let Err(error) = reboot(RebootMode::RB_POWER_OFF);
    eprintln!("hardware: cannot power off: {error}");
}

fn run(starter: &mut Starter) -> Result<()> {
    starter.say(&Word::Plan)?;
    let plan = starter.plan()?;
    starter.step("boot", boot::finish)?;
    steps::run(&plan, starter)
}

/// Who has started this host.
struct Starter {
    line: BufReader<File>,
}

impl Starter {
    fn say(&mut self, word: &Word) -> Result<()> {
        writeln!(self.line.get_mut(), "{word}").context("cannot write to the serial line")
    }

    fn hear(&mut self) -> Result<String> {
        let mut answer = String::new();
        self.line.read_line(&mut answer).context("cannot read from the serial line")?;
        Ok(answer)
    }

    /// Reads the plan, up to the empty line behind it.
    fn plan(&mut self) -> Result<Plan> {
        let mut text = String::new();
        loop {
            let line = self.hear()?;
            if line.trim().is_empty() {
                return Plan::parse(&text);
            }
            text += &line;
        }
    }

    /// Does a step and tells of it.
    fn step(&mut self, name: &str, step: impl FnOnce() -> Result<()>) -> Result<()> {
        self.say(&Word::Begin(name.to_owned()))?;
        step().with_context(|| name.to_owned())?;
        self.say(&Word::Passed(name.to_owned()))
    }

    /// Says that the network function is ready and waits until frames were exchanged with it.
    fn exchange(&mut self) -> Result<()> {
        self.say(&Word::Ready)?;
        self.gone_on()
    }

    /// Waits for the word to go on.
    fn gone_on(&mut self) -> Result<()> {
        let answer = self.hear()?;
        ensure!(answer.trim() == GO_ON, "the starter answered {answer:?}");
        Ok(())
    }
}
