//! Starts the emulated host and is the NAT's peer on the cable of its NIC.

mod machine;
mod peer;
mod tag;

use crate::words::{GO_ON, Plan, Scenario, Word};
use anyhow::{Context, Result, bail};
use machine::Machine;
use peer::{Flow, Peer};
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// How long one boot of the emulated host may take with all its steps, a minute where nothing else runs, and each run of a
/// command that it repeats.
const LIMIT: Duration = Duration::from_secs(300);

/// What the emulated host is made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parts {
    /// QEMU.
    pub qemu: PathBuf,
    /// Debian's kernel, as an ELF file.
    pub kernel: PathBuf,
    /// The initramfs: `slim-host-init` as PID 1, and the kernel's [`MODULES`](crate::words::MODULES).
    pub initramfs: PathBuf,
    /// The launcher, xtask.
    pub launcher: PathBuf,
    /// The folder of the NAT's image.
    pub image: PathBuf,
    /// `slimctl`.
    pub slimctl: PathBuf,
    /// The switch agent.
    pub switch: PathBuf,
    /// Where consoles are kept.
    pub logs: PathBuf,
}

/// Runs `scenarios`, each a second time if the emulated host itself stalls; `tell` hears of every step.
///
/// # Errors
/// A step failed, or the emulated host made no progress twice.
pub fn run(parts: &Parts, scenarios: &[Scenario], mut tell: impl FnMut(&str)) -> Result<()> {
    std::fs::create_dir_all(&parts.logs)?;
    let mut steps = |told: Told<'_>| {
        if let Told::Step(step) = told {
            tell(step);
        }
    };
    for scenario in scenarios {
        let name = match scenario {
            Scenario::NoIommu => "hardware-no-iommu",
            Scenario::Complete => "hardware",
            Scenario::Migration => "hardware-migration",
            Scenario::Command { .. } => "hardware-command",
        };
        match once(parts, scenario, name, &mut steps) {
            Err(Trouble::Stalled(error)) => {
                // Emulated hosts were seen to stall or reset now and then, once in some tens of boots.
                steps(Told::Step(&format!("RETRY after: {error:#}")));
                // Under another name, so that the first console is kept.
                once(parts, scenario, &format!("{name}-retry"), &mut steps).map_err(Trouble::into_error)?;
            }
            result => result.map_err(Trouble::into_error)?,
        }
    }
    Ok(())
}

/// Has the launcher in the emulated host do what `arguments` say, several `times`; `report` is given what it prints each time.
/// If the host itself stalls, that is said, and it is booted once more for what is left.
///
/// # Errors
/// The launcher failed, or the emulated host made no progress twice.
pub fn repeat(parts: &Parts, arguments: &[String], times: u32, mut report: impl FnMut(&str)) -> Result<()> {
    std::fs::create_dir_all(&parts.logs)?;
    let mut left = times;
    // Under another name the second time, so that the first console is kept.
    for name in ["hardware-command", "hardware-command-retry"] {
        let scenario = Scenario::Command { arguments: arguments.to_vec(), times: left };
        let result = once(parts, &scenario, name, &mut |told| {
            if let Told::Report(text) = told {
                left = left.saturating_sub(1);
                report(text);
            }
        });
        match result {
            // All was reported; how the host ends is of no interest.
            Err(Trouble::Stalled(_)) if left == 0 => return Ok(()),
            Err(Trouble::Stalled(error)) if name == "hardware-command" => eprintln!("RETRY after: {error:#}"),
            result => return result.map_err(Trouble::into_error),
        }
    }
    Ok(())
}

/// What is heard from an emulated host.
enum Told<'a> {
    /// A step was as it should be, in words.
    Step(&'a str),
    /// What a command has printed.
    Report(&'a str),
}

/// What went wrong.
enum Trouble {
    /// A step was not as it should be.
    Failed(anyhow::Error),
    /// The emulated host, or a guest in it, went silent or ended by itself.
    Stalled(anyhow::Error),
}

impl Trouble {
    fn into_error(self) -> anyhow::Error {
        match self {
            Self::Failed(error) | Self::Stalled(error) => error,
        }
    }
}

impl From<anyhow::Error> for Trouble {
    fn from(error: anyhow::Error) -> Self {
        Self::Failed(error)
    }
}

fn once(parts: &Parts, scenario: &Scenario, name: &str, tell: &mut dyn FnMut(Told<'_>)) -> Result<(), Trouble> {
    if let Scenario::Command { arguments, .. } = scenario
        && let Some(argument) = arguments.iter().find(|argument| argument.contains('\n'))
    {
        return Err(anyhow::anyhow!("{argument:?} is not an argument that the emulated host can be told").into());
    }
    let plan = Plan {
        scenario: scenario.clone(),
        launcher: text(&parts.launcher)?,
        image: text(&parts.image)?,
        slimctl: text(&parts.slimctl)?,
        switch: text(&parts.switch)?,
    };
    let folder = tempfile::Builder::new().prefix("slim-hw-").tempdir().context("cannot make a temporary folder")?;
    let console = parts.logs.join(format!("{name}.console.log"));
    let mut machine = Machine::start(parts, scenario, folder.path(), &console)?;
    let peer = Peer::new(folder.path())?;
    let mut flow: Option<Flow> = None;
    let mut deadline = Instant::now() + LIMIT;
    let mut begun = Instant::now();
    loop {
        let word = match machine.word(deadline) {
            Ok(word) => word,
            Err(error) => return Err(Trouble::Stalled(error.context(format!("its console is {}", console.display())))),
        };
        match word {
            Word::Plan => machine.say(&plan.to_text())?,
            Word::Begin(_) => begun = Instant::now(),
            Word::Passed(step) => tell(Told::Step(&format!("ok  {step} ({:.1} s)", begun.elapsed().as_secs_f64()))),
            Word::Report(text) => {
                tell(Told::Report(&text));
                deadline = Instant::now() + LIMIT;
            }
            Word::Ready => {
                begun = Instant::now();
                let exchanged = peer.exchange().with_context(|| format!("the console is {}", console.display()))?;
                tell(Told::Step(&format!("ok  {exchanged} ({:.1} s)", begun.elapsed().as_secs_f64())));
                machine.say(GO_ON)?;
            }
            Word::Flow => {
                flow = Some(peer.flow().with_context(|| format!("the console is {}", console.display()))?);
                machine.say(GO_ON)?;
            }
            Word::Settle => {
                let settled = flow.take().context("frames were to settle that do not flow")?.settle();
                let settled = settled.with_context(|| format!("the console is {}", console.display()))?;
                tell(Told::Step(&format!("ok  {settled}")));
                machine.say(GO_ON)?;
            }
            Word::Failed(why) => {
                return Err(Trouble::Failed(anyhow::anyhow!("{why}; the console is {}", console.display())));
            }
            Word::Stalled(why) => {
                return Err(Trouble::Stalled(anyhow::anyhow!("{why}; the console is {}", console.display())));
            }
            Word::Done => return Ok(()),
        }
    }
}

fn text(path: &std::path::Path) -> Result<String> {
    match path.to_str() {
        Some(text) if !text.contains('\n') => Ok(text.to_owned()),
        _ => bail!("{} is not a name that the emulated host can be told", path.display()),
    }
}
