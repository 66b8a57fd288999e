//! What the emulated host and its starter say to each other, a line each, over a serial line of its own.

use anyhow::{Context, Result};
use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

/// The name under which the emulated host mounts our files.
pub const SHARE: &str = "host";

/// The folder of the emulated host's initramfs that holds its modules, named in the order in which they are loaded.
pub const MODULES: &str = "/modules";

/// The VLANs in which the hosts inside and the server outside of the network function are, where it is behind a switch.
pub const INSIDE_VLAN: u16 = 11;
/// The one of the server.
pub const OUTSIDE_VLAN: u16 = 12;

/// What the emulated host waits for when it has said [`Word::Ready`].
pub const GO_ON: &str = "go on";

/// What the emulated host says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Word {
    /// It is up: answer with its [`Plan`] and an empty line.
    Plan,
    /// A step begins.
    Begin(String),
    /// The step was as it should be.
    Passed(String),
    /// The network function is ready: exchange frames with it, then answer [`GO_ON`].
    Ready,
    /// The network function is ready, and so is the switch before it: exchange frames with them, tagged, until told to
    /// [settle](Self::Settle); answer [`GO_ON`] once they flow.
    Flow,
    /// Exchange some more, then answer [`GO_ON`].
    Settle,
    /// What a command has printed.
    Report(String),
    /// A step was not as it should be, or could not be done. The last word.
    Failed(String),
    /// A guest made no progress, or reset itself: emulated hosts do that now and then. The last word.
    Stalled(String),
    /// All steps are done. The last word.
    Done,
}

impl fmt::Display for Word {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Plan => write!(f, "plan "),
            Self::Begin(text) => write!(f, "begin {text}"),
            Self::Passed(text) => write!(f, "passed {text}"),
            Self::Ready => write!(f, "ready "),
            Self::Flow => write!(f, "flow "),
            Self::Settle => write!(f, "settle "),
            // One line, whatever is in it.
            Self::Report(text) => write!(f, "report {}", text.replace('\n', " ")),
            Self::Failed(text) => write!(f, "failed {}", text.replace('\n', " | ")),
            Self::Stalled(text) => write!(f, "stalled {}", text.replace('\n', " | ")),
            Self::Done => write!(f, "done "),
        }
    }
}

/// The line is not a [`Word`].
#[derive(Debug, PartialEq, Eq)]
pub struct NoWord;

impl FromStr for Word {
    type Err = NoWord;

    fn from_str(line: &str) -> Result<Self, NoWord> {
        let (word, text) = line.trim_end_matches(['\r', '\n']).split_once(' ').ok_or(NoWord)?;
        match word {
            "plan" => Ok(Self::Plan),
            "begin" => Ok(Self::Begin(text.to_owned())),
            "passed" => Ok(Self::Passed(text.to_owned())),
            "ready" => Ok(Self::Ready),
            "flow" => Ok(Self::Flow),
            "settle" => Ok(Self::Settle),
            "report" => Ok(Self::Report(text.to_owned())),
            "failed" => Ok(Self::Failed(text.to_owned())),
            "stalled" => Ok(Self::Stalled(text.to_owned())),
            "done" => Ok(Self::Done),
            _ => Err(NoWord),
        }
    }
}

/// What the emulated host is to do, and with which of our files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// The steps.
    pub scenario: Scenario,
    /// The launcher, xtask.
    pub launcher: String,
    /// The folder of the NAT's image.
    pub image: String,
    /// `slimctl`.
    pub slimctl: String,
    /// The switch agent.
    pub switch: String,
}

/// A series of steps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Scenario {
    /// The host has all it needs.
    Complete,
    /// The same, with a switch and a daemon on it.
    Migration,
    /// Its IOMMU is switched off.
    NoIommu,
    /// It does one thing several times and tells what came of each.
    Command {
        /// The launcher's arguments.
        arguments: Vec<String>,
        /// How often.
        times: u32,
    },
}

impl Plan {
    /// As text.
    pub fn to_text(&self) -> String {
        let scenario = match &self.scenario {
            Scenario::Complete => "complete".to_owned(),
            Scenario::Migration => "migration".to_owned(),
            Scenario::NoIommu => "no-iommu".to_owned(),
            Scenario::Command { arguments, times } => {
                let arguments: String = arguments.iter().map(|argument| format!("\nargument={argument}")).collect();
                format!("command\ntimes={times}{arguments}")
            }
        };
        let Self { launcher, image, slimctl, switch, .. } = self;
        format!("scenario={scenario}\nlauncher={launcher}\nimage={image}\nslimctl={slimctl}\nswitch={switch}\n")
    }

    /// Reads the text.
    pub fn parse(text: &str) -> Result<Self> {
        let values: BTreeMap<&str, &str> = text.lines().filter_map(|line| line.split_once('=')).collect();
        let value = |key: &str| values.get(key).copied().with_context(|| format!("the plan has no {key}"));
        Ok(Self {
            scenario: match value("scenario")? {
                "complete" => Scenario::Complete,
                "migration" => Scenario::Migration,
                "no-iommu" => Scenario::NoIommu,
                "command" => Scenario::Command {
                    arguments: text
                        .lines()
                        .filter_map(|line| line.strip_prefix("argument="))
                        .map(str::to_owned)
                        .collect(),
                    times: value("times")?.parse().context("the plan does not say how often")?,
                },
                other => anyhow::bail!("the plan's scenario {other} is unknown"),
            },
            launcher: value("launcher")?.to_owned(),
            image: value("image")?.to_owned(),
            slimctl: value("slimctl")?.to_owned(),
            switch: value("switch")?.to_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_and_plans_arrive_as_they_were_sent() {
        let said = [Word::Begin("a b".into()), Word::Passed("a".into())];
        assert_eq!(Word::Report("{\n}\n".into()).to_string().parse(), Ok(Word::Report("{ } ".into())));
        for word in said.into_iter().chain([Word::Plan, Word::Ready, Word::Flow, Word::Settle, Word::Done]) {
            assert_eq!(format!("{word}\r\n").parse(), Ok(word));
        }
        assert_eq!(Word::Failed("a\nb".into()).to_string().parse(), Ok(Word::Failed("a | b".into())));
        assert_eq!(Word::Stalled("a\nb".into()).to_string().parse(), Ok(Word::Stalled("a | b".into())));
        assert_eq!("[    0.1] Linux".parse::<Word>(), Err(NoWord));
        let plan = Plan {
            scenario: Scenario::NoIommu,
            launcher: "/a b/xtask".into(),
            image: "/c=d".into(),
            slimctl: "/s".into(),
            switch: "/t".into(),
        };
        assert_eq!(Plan::parse(&plan.to_text()).unwrap(), plan);
        let command = Scenario::Command { arguments: vec!["bench".into(), "--a=b c".into()], times: 3 };
        let plan = Plan { scenario: command, ..plan };
        assert_eq!(Plan::parse(&plan.to_text()).unwrap(), plan);
        assert!(Plan::parse("scenario=complete\n").is_err());
    }
}
