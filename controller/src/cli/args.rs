//! The command line.

use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Args, Parser, Subcommand, ValueEnum};
use slim_controller::hypervisor::borrowed::{NamedVirtual, NamedWhole};
use slim_controller::peer::Endpoint;
use slim_controller::timeouts::parse_change;
use slim_controller::transfer::TransferArgs;
use slim_core::protocol::{Mode, Name};
use std::fmt;
use std::path::PathBuf;

const EXAMPLES: &str = "\
Examples:
  Make the identities of a new deployment, in the folder `trust` beside its file:
      slimctl init

  Start the daemon, then, from another terminal, two NATs, and move the live one:
      slimctl daemon --config deployment.toml
      slimctl instance boot nat-a --active
      slimctl instance boot nat-b
      slimctl migrate nat-a nat-b --retire

  Hold two idle NATs ready, and move the live one to one of them at once:
      slimctl pool --size 2
      slimctl migrate nat-a --retire

  For programs: one JSON document on standard output, whatever the command:
      slimctl --json migrate nat-a nat-b | jq .outcome.digests_equal

Exit status:
  0  done; of a migration: the destination has taken over with an equal state
  1  any other failure
  2  the command line is wrong
  3  no daemon can be reached
  4  there is no such instance, network function or migration
  5  refused: busy, the wrong role, or the name is taken
  6  the migration failed and was undone: the source goes on
  7  the migration is unresolved: look at `slimctl status`
  8  the migration completed, but the digests of the state differ or are not known
  9  the migration was not begun, or is only planned: it would not end

SLIM_SOCKET names the daemon's socket, SLIM_LOG=error|warn|info|debug the daemon's log level.
Control connections and state streams are mutually authenticated TLS 1.3, unless the daemon is run with --plaintext.";

/// Boots network functions, and moves their live state from one instance to another while packets flow.
#[derive(Debug, Parser)]
#[command(name = "slimctl", version, after_long_help = EXAMPLES, arg_required_else_help = true)]
pub struct Cli {
    /// The daemon's socket [default: $XDG_RUNTIME_DIR/slim/slimctl.sock or /run/slim/slimctl.sock]
    #[arg(long, global = true, env = "SLIM_SOCKET", value_name = "PATH")]
    pub socket: Option<PathBuf>,

    /// Print one JSON document instead of text
    #[arg(long, global = true)]
    pub json: bool,

    /// What to do
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the daemon in the foreground, until a signal or `slimctl shutdown`
    ///
    /// Its instances end with it, however it ends, unless the deployment has `keep = true`: then they go on, and the
    /// next daemon takes charge of them and of any migration it finds open.
    Daemon {
        /// The deployment: switch, management network, ports and network functions
        #[arg(long, value_name = "FILE")]
        config: PathBuf,

        /// Read and check the deployment, then exit
        #[arg(long)]
        check: bool,

        /// Neither encrypt nor authenticate: for reproducing the paper, in a network that nobody else can reach
        #[arg(long)]
        plaintext: bool,
    },
    /// Make a deployment's authority and the controller's identity, once
    ///
    /// Whoever can read the folder can command every instance of the deployment: it is readable by its owner only.
    Init {
        /// The folder to make; a deployment looks for `trust` beside its file
        #[arg(long, default_value = "trust", value_name = "FOLDER")]
        dir: PathBuf,

        /// The deployment's name, which stands in every certificate
        #[arg(long, default_value = "slim")]
        name: Name,
    },
    /// Make an identity for an instance that is started by hand, such as `nat --process`, to be attached
    ///
    /// Instances that the daemon boots get theirs by themselves. Once attached, it is renewed like any other.
    Identity {
        /// The instance's name, as its configuration has it
        name: Name,

        /// The folder that `slimctl init` has made
        #[arg(long, default_value = "trust", value_name = "FOLDER")]
        dir: PathBuf,

        /// For how long it is valid
        #[arg(long, default_value_t = 24, value_name = "HOURS", value_parser = clap::value_parser!(u32).range(1..=87_600))]
        hours: u32,

        /// The file to write, for management.identity of the instance's configuration [default: NAME.identity.pem]
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
    },
    /// End the daemon, and with it every instance it has booted
    Shutdown {
        /// Also where the deployment has `keep = true`
        #[arg(long)]
        retire: bool,
    },
    /// Show everything at a glance: switch, instances, migrations
    Status,
    /// Boot, list and retire instances
    #[command(subcommand)]
    Instance(InstanceCommand),
    /// Look at the switch's paths
    #[command(subcommand)]
    Path(PathCommand),
    /// Look after this machine's devices, KVM and IOMMU; needs no daemon
    #[command(subcommand)]
    Host(HostCommand),
    /// Show the pools of idle instances, or set the size of one
    ///
    /// A pool's instances are booted, connected and idle: `slimctl migrate` without DST takes one at once, and another is
    /// booted in its place. One that ends, or does not answer, is replaced.
    Pool {
        /// The network function, a [vnf.NAME] of the deployment; not needed if there is only one
        #[arg(long)]
        vnf: Option<Name>,

        /// How many instances to hold ready from now on, instead of what the deployment says; 0: none
        #[arg(long, value_name = "N")]
        size: Option<usize>,
    },
    /// Move a live network function from one instance to another
    ///
    /// Shows each phase as it goes and ends with a report. Interrupting slimctl does not interrupt the migration: use
    /// `slimctl abort`.
    Migrate(MigrateArgs),
    /// Give up a migration: the source goes on, the destination is discarded
    Abort {
        /// Either instance of it; not needed if only one migration is under way
        instance: Option<Name>,
    },
}

/// What to do with this machine.
#[derive(Debug, Clone, Copy, Subcommand)]
pub enum HostCommand {
    /// Say what hinders guests with KVM and passed-through functions, each with the command that mends it
    ///
    /// Changes nothing. Exits with 1 if something is in the way.
    Check,
    /// Give back the PCI functions that launches which have ended did not give back
    ///
    /// Their drivers, settings and the number of virtual functions become what they were. What launches that still run have is
    /// listed and left to them.
    Clean,
}

/// What to do with instances.
#[derive(Debug, Subcommand)]
pub enum InstanceCommand {
    /// List every instance
    List,
    /// Boot an instance and wait until it is ready
    ///
    /// It stays idle, ready to become a migration's destination, unless --active is given.
    Boot {
        /// The new instance's name, such as nat-a
        name: Name,

        /// The network function, a [vnf.NAME] of the deployment; not needed if there is only one
        #[arg(long)]
        vnf: Option<Name>,

        /// Let it process packets at once, with empty state
        #[arg(long)]
        active: bool,

        /// Give it a virtual function of an SR-IOV NIC as its next port; may be repeated
        ///
        /// NIC is the physical function's interface or PCI address, N which of its virtual functions, else one that is
        /// free. The NIC confines it to VLAN, by which the switch leads packets to it: over the interface that the deployment
        /// names as trunk. MAC is the network function's own, unless the deployment has it for the port. Needs a daemon
        /// that is root.
        #[arg(long, value_name = "NIC[:N]@VLAN[=MAC]")]
        vf: Vec<NamedVirtual>,

        /// Give it this whole PCI function, after those of --vf; may be repeated
        ///
        /// VLAN is that of its port at the physical switch behind it, as the trunk has it.
        #[arg(long, value_name = "ADDRESS@VLAN[=MAC]")]
        pci: Vec<NamedWhole>,
    },
    /// End an instance, or let go of one that was attached
    Retire {
        /// The instance
        name: Name,

        /// Also if it processes packets: its state is lost
        #[arg(long)]
        force: bool,
    },
    /// Show one instance with its counters
    ///
    /// Counters of drops, gauges and what is counted for each subscriber go on where they were after a migration; all
    /// other counters are the instance's own.
    Show {
        /// The instance
        name: Name,

        /// List so many subscribers, the busiest first; 0: none
        #[arg(long, value_name = "N", default_value_t = 10)]
        subscribers: usize,
    },
    /// Show the configuration that is in force at an instance, defaults included, as the file that says it
    Config {
        /// The instance
        name: Name,
    },
    /// Empty an instance that a migration has left released or discarded
    ///
    /// `migrate` does that by itself with its destination.
    Reset {
        /// The instance
        name: Name,
    },
    /// Tell a source that waits for word of its destination how the migration ended
    ///
    /// For the rare case that `slimctl status` shows a migration as unresolved. Find out first whether the destination
    /// is live: never let both instances process packets.
    Resolve {
        /// The source
        name: Name,

        /// How it ended
        outcome: Resolution,
    },
    /// Take charge of an instance that runs already, such as `nat --process`
    ///
    /// With --vnf its ports are made in the switch first, so it can be started after this command: it waits for the
    /// instance for a minute.
    Attach {
        /// The instance's name, as its configuration has it
        name: Name,

        /// Its control connection: ADDRESS:PORT
        #[arg(long, value_name = "ADDRESS:PORT")]
        control: Endpoint,

        /// The network function whose ports to make; not needed if the switch knows the instance
        #[arg(long)]
        vnf: Option<Name>,

        /// Let it process packets at once, with empty state
        #[arg(long, requires = "vnf")]
        active: bool,
    },
}

/// How a migration ended whose source did not hear of it.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum Resolution {
    /// The destination has taken over: the source forwards nothing more
    Release,
    /// The destination never took over and is gone: the source processes packets again
    Resume,
}

/// What to do with paths.
#[derive(Debug, Subcommand)]
pub enum PathCommand {
    /// List every path with its counters
    List,
    /// Lead the traffic of its network function to an instance, away from any other
    ///
    /// Moves no state: for the rare case that a migration is unresolved. Use `slimctl migrate` otherwise.
    Set {
        /// The instance
        instance: Name,
    },
}

/// How to migrate.
#[derive(Debug, Args)]
pub struct MigrateArgs {
    /// The instance that has the live state
    #[arg(value_name = "SRC")]
    pub source: Name,

    /// The idle instance that is to take over; left out: one out of the pool, or booted now if none is at hand
    #[arg(value_name = "DST")]
    pub destination: Option<Name>,

    /// How the destination's state is kept up to date while the snapshot is on its way
    ///
    /// statelet: what changes state is announced. The others are for comparison: duplicate sends every packet whole and
    /// processes it twice; buffer redirects first and lets packets wait; stop-and-copy drops them meanwhile. precopy moves
    /// the whole guest with the hypervisor's own live migration, to a DST that does not exist yet.
    #[arg(long, default_value_t, value_name = "MODE", value_parser = modes())]
    pub mode: Way,

    /// With precopy: stop the guest after so many rounds, whatever that takes
    #[arg(long, default_value_t = 10, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub rounds: u32,

    /// How state is transferred.
    #[command(flatten)]
    pub transfer: TransferArgs,

    /// Retire the source afterwards
    #[arg(long)]
    pub retire: bool,

    /// Only say whether and how fast it would converge in each mode: load, σ and state of SRC are measured for a second
    #[arg(long)]
    pub plan: bool,

    /// Neither measure beforehand nor refuse a migration that will not end
    #[arg(long, conflicts_with = "plan")]
    pub force: bool,

    /// The longest a phase may take, such as source.drain=5000; 0 is without bound; may be repeated
    ///
    /// Otherwise the deployment's section `timeouts` holds. A wrong name is answered with all names there are.
    #[arg(long = "timeout", value_name = "PHASE=MS", value_parser = parse_change)]
    pub timeouts: Vec<(String, u32)>,
}

/// How a network function is moved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// Its state alone, in one of the modes of the instances' own protocol.
    State(Mode),
    /// Its whole guest.
    Precopy,
}

const PRECOPY: &str = "precopy";

impl Default for Way {
    fn default() -> Self {
        Self::State(Mode::default())
    }
}

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::State(mode) => mode.fmt(f),
            Self::Precopy => f.pad(PRECOPY),
        }
    }
}

/// The modes by their names.
fn modes() -> impl TypedValueParser<Value = Way> {
    let names = Mode::ALL.map(Mode::name).into_iter().chain([PRECOPY]);
    PossibleValuesParser::new(names).try_map(|name| match name.as_str() {
        PRECOPY => Ok(Way::Precopy),
        name => name.parse().map(Way::State),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;
    use slim_core::protocol::Scheduling;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn global_options_go_anywhere() {
        let cli = Cli::parse_from(["slimctl", "migrate", "nat-a", "nat-b", "--json", "--snapshot-filler", "20MB"]);
        assert!(cli.json);
        let Command::Migrate(migrate) = cli.command else { panic!("{cli:?}") };
        assert_eq!(
            (migrate.source.as_str(), migrate.transfer.snapshot_filler, migrate.retire),
            ("nat-a", 20_000_000, false)
        );
    }

    #[test]
    fn every_mode_is_taken_by_its_name() {
        for mode in Mode::ALL {
            let cli = Cli::parse_from(["slimctl", "migrate", "nat-a", "nat-b", "--mode", mode.name()]);
            assert!(matches!(cli.command, Command::Migrate(migrate) if migrate.mode == Way::State(mode)));
        }
        let cli = Cli::parse_from(["slimctl", "migrate", "nat-a", "nat-b", "--mode", "precopy", "--rounds", "3"]);
        assert!(
            matches!(cli.command, Command::Migrate(migrate) if migrate.mode == Way::Precopy && migrate.rounds == 3)
        );
        let error = Cli::try_parse_from(["slimctl", "migrate", "nat-a", "nat-b", "--mode", "statelets"]).unwrap_err();
        assert!(error.to_string().contains("stop-and-copy"), "{error}");
    }

    #[test]
    fn every_scheduling_is_taken_by_its_name() {
        for scheduling in Scheduling::ALL {
            let cli = Cli::parse_from(["slimctl", "migrate", "nat-a", "nat-b", "--scheduling", scheduling.name()]);
            assert!(matches!(cli.command, Command::Migrate(migrate) if migrate.transfer.scheduling == scheduling));
        }
    }

    #[test]
    fn names_and_addresses_are_checked_before_the_daemon_is_asked() {
        for wrong in [
            &["instance", "boot", "nat a"][..],
            &["instance", "boot", "nat-a", "--vf", "enp3s0@5000"],
            &["instance", "attach", "nat-a", "--control", "localhost"],
            &["instance", "attach", "nat-a", "--control", "127.0.0.1:7001", "--active"],
            &["migrate"],
            &["pool", "--size", "-1"],
            &["migrate", "nat-a", "nat-b", "--snapshot-filler", "much"],
            &["migrate", "nat-a", "nat-b", "--timeout", "source.sleep=5"],
        ] {
            let arguments = [&["slimctl"], wrong].concat();
            assert!(Cli::try_parse_from(arguments).is_err(), "{wrong:?}");
        }
    }
}
