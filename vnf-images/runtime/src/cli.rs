//! The command line, for everything but PID 1, which has none.

use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};
use std::path::PathBuf;

/// What the command line asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Task {
    /// Run as an ordinary process.
    Process {
        /// The configuration file.
        config: PathBuf,
        /// Arguments for DPDK's EAL beyond those always given.
        eal: Vec<String>,
    },
    /// Read the configuration, say whether it is good, and exit.
    CheckConfig {
        /// The configuration file.
        config: PathBuf,
    },
}

const ABOUT: &str = "\
Runs a network function whose live state can be moved to another instance while packets flow.

The same binary is PID 1 of a guest image, where it takes no arguments and reads its configuration from QEMU's fw_cfg \
device or a config drive, and an ordinary process, with --process.";

const EXAMPLES: &str = "\
Examples:
  Check a configuration:
      KIND --check-config --config KIND-a.toml

  Run outside a VM, with two TAP ports and no privileges beyond a network namespace:
      unshare -Urn KIND --process --config KIND-a.toml

The configuration is one TOML file:
      name = \"KIND-a\"
      [management]
      address = \"127.0.0.1/8\"         # control connection on port 7001, state streams on 7002
      identity = \"KIND-a.pem\"         # who it is; an image is handed it
      [[port]]                        # in this order: PORTS
      name = \"PORT\"
      device = \"net_tap0\"             # an EAL device: net_tap0, net_virtio_user0,path=SOCKET, net_null0 …
      …
      [log]                           # optional: where events of the network function are recorded
      collector = \"10.3.0.1:5140\"     # lines of JSON, by TCP unless transport = \"udp\"
      [KIND]                          # the network function's own section

In an image, ports and management have a `mac` instead of a `device`.

Signals: SIGTERM and SIGINT end it gracefully. Log level: SLIM_LOG=error|warn|info|debug|trace.
Who may command an instance and exchange state with it is decided by identities: `slimctl identity KIND-a` makes one.
With plaintext = true in [management] anybody may.";

/// The command line of the network function `kind` with the dataplane ports `ports`.
pub fn command(kind: &'static str, ports: &[&str]) -> Command {
    let examples = EXAMPLES
        .replace("KIND", kind)
        .replace("PORTS", &ports.join(", "))
        .replace("PORT", ports.first().copied().unwrap_or_default());
    Command::new(kind)
        .version(env!("CARGO_PKG_VERSION"))
        .about(format!("Runs a {kind} whose live state can be moved while packets flow."))
        .long_about(ABOUT)
        .after_long_help(examples)
        .arg_required_else_help(true)
        .arg(
            Arg::new("process")
                .long("process")
                .action(ArgAction::SetTrue)
                .help("Run as an ordinary process: dataplane ports are the EAL devices that the configuration names"),
        )
        .arg(
            Arg::new("check-config")
                .long("check-config")
                .action(ArgAction::SetTrue)
                .conflicts_with("process")
                .help("Say whether the configuration is good, and exit"),
        )
        .arg(
            Arg::new("config")
                .long("config")
                .value_name("FILE")
                .required(true)
                .value_parser(value_parser!(PathBuf))
                .help("The instance's configuration, a TOML file"),
        )
        .arg(
            Arg::new("eal")
                .long("eal")
                .value_name("ARGUMENT")
                .action(ArgAction::Append)
                .allow_hyphen_values(true)
                .requires("process")
                .help("A further argument for DPDK's EAL, as in --eal=--log-level=8; may be repeated"),
        )
}

/// What `matches`, of the command above, ask for.
///
/// # Errors
/// Words for the operator, if neither of the two tasks was chosen.
pub fn task(matches: &ArgMatches) -> Result<Task, String> {
    let config = matches.get_one::<PathBuf>("config").cloned().unwrap_or_default();
    if matches.get_flag("check-config") {
        return Ok(Task::CheckConfig { config });
    }
    if !matches.get_flag("process") {
        return Err("say --process to run it here, or --check-config; without arguments it is PID 1 of an image".into());
    }
    let eal = matches.get_many::<String>("eal").unwrap_or_default().cloned().collect();
    Ok(Task::Process { config, eal })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(arguments: &[&str]) -> Result<Task, String> {
        let command = command("nat", &["in", "out"]);
        let matches =
            command.try_get_matches_from([&["nat"], arguments].concat()).map_err(|error| error.to_string())?;
        task(&matches)
    }

    #[test]
    fn reads_each_task() {
        let config = PathBuf::from("a.toml");
        assert_eq!(parse(&["--check-config", "--config", "a.toml"]), Ok(Task::CheckConfig { config: config.clone() }));
        let eal = vec!["--log-level=8".to_string(), "-v".into()];
        let arguments = ["--process", "--config", "a.toml", "--eal=--log-level=8", "--eal", "-v"];
        assert_eq!(parse(&arguments), Ok(Task::Process { config, eal }));
    }

    #[test]
    fn teaches_what_is_missing() {
        assert!(parse(&["--config", "a.toml"]).unwrap_err().contains("--process"));
        assert!(parse(&["--process"]).unwrap_err().contains("--config"));
        assert!(parse(&["--process", "--check-config", "--config", "a"]).unwrap_err().contains("cannot be used"));
        let help = command("nat", &["in", "out"]).render_long_help().to_string();
        assert!(help.contains("name = \"in\"") && help.contains("[nat]") && help.contains("unshare -Urn nat"));
    }
}
