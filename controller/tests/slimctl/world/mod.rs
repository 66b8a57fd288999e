//! Everything around a real `slimctl` and its daemon: a switch, instances, a deployment, and a way to type commands.

pub mod instance;
pub mod switch;

use instance::{Faults, Streams, TestInstance, name_of};
use serde_json::Value;
use slim_core::protocol::MigrationId;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Sender, channel};
use std::time::{Duration, Instant};
use switch::TestSwitch;

/// The deployment's file; network functions are processes.
const DEPLOYMENT: &str = r#"
[daemon]
socket = "slimctl.sock"
run_dir = "run"

[trust]
plaintext = true

[switch]
control = "switch.sock"

[management]
address = "127.0.0.1/8"

[[external]]
name = "inside"
[[external]]
name = "outside"

[vnf.nat]
program = "nat"
port = [{ name = "in", external = "inside" }, { name = "out", external = "outside" }]
"#;

/// A machine with a switch and a daemon. Everything ends when it is dropped.
pub struct World {
    pub folder: tempfile::TempDir,
    pub switch: TestSwitch,
    daemon: Option<Child>,
    streams: Streams,
    hand_back: Sender<MigrationId>,
}

/// What a command came to.
#[derive(Debug)]
pub struct Typed {
    pub status: ExitStatus,
    pub out: String,
    pub err: String,
}

impl Typed {
    /// The exit status.
    pub fn code(&self) -> i32 {
        self.status.code().unwrap()
    }

    /// Standard output as JSON.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

impl World {
    /// A world with a running daemon.
    pub fn new() -> Self {
        let mut world = Self::without_daemon();
        world.start_daemon();
        world
    }

    /// A world whose daemon has not been started yet.
    pub fn without_daemon() -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("deployment.toml"), DEPLOYMENT).unwrap();
        let (hand_back, handed_back) = channel();
        let switch = TestSwitch::start(&folder.path().join("switch.sock"), handed_back);
        Self { folder, switch, daemon: None, streams: Streams::default(), hand_back }
    }

    /// Changes the deployment for the next daemon.
    pub fn change_deployment(&self, from: &str, to: &str) {
        let text = std::fs::read_to_string(self.path("deployment.toml")).unwrap();
        assert!(text.contains(from));
        std::fs::write(self.path("deployment.toml"), text.replacen(from, to, 1)).unwrap();
    }

    /// Kills the daemon, as the kernel would.
    pub fn kill_daemon(&mut self) {
        self.daemon().kill().unwrap();
        self.daemon().wait().unwrap();
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Starts the daemon and waits until it listens.
    pub fn start_daemon(&mut self) {
        let mut child = Command::new(slimctl())
            .args(["daemon", "--config"])
            .arg(self.path("deployment.toml"))
            .env("SLIM_LOG", "info")
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map_while(Result::ok);
        let listening =
            lines.by_ref().inspect(|line| eprintln!("daemon: {line}")).any(|line| line.contains("listening"));
        std::thread::spawn(move || lines.for_each(|line| eprintln!("daemon: {line}")));
        self.daemon = Some(child);
        assert!(listening, "the daemon ended");
    }

    /// The daemon's process.
    pub fn daemon(&mut self) -> &mut Child {
        self.daemon.as_mut().unwrap()
    }

    /// Types a command.
    pub fn slimctl(&self, arguments: &[&str]) -> Typed {
        typed(self.command(arguments).output().unwrap())
    }

    /// A command to be typed.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(slimctl());
        command.args(arguments).env("SLIM_SOCKET", self.path("slimctl.sock"));
        command
    }

    /// Types a command that must succeed, and returns its JSON.
    pub fn done(&self, arguments: &[&str]) -> Value {
        let typed = self.slimctl(&[&["--json"], arguments].concat());
        assert_eq!(typed.code(), 0, "{arguments:?}: {typed:?}");
        typed.json()
    }

    /// Starts an instance and has the daemon take charge of it.
    pub fn instance(&self, name: &str, active: bool, faults: Faults) -> TestInstance {
        let instance = self.unattached(name, ([127, 0, 0, 1], 0).into(), faults);
        let control = instance.control.to_string();
        let mut arguments = vec!["instance", "attach", name, "--control", &control, "--vnf", "nat"];
        if active {
            arguments.push("--active");
        }
        self.done(&arguments);
        instance
    }

    /// Starts an instance of which the daemon does not know.
    pub fn unattached(&self, name: &str, address: SocketAddr, faults: Faults) -> TestInstance {
        let instance = TestInstance::start(name, address, faults, &self.streams, self.hand_back.clone());
        self.switch.state.lock().unwrap().lcores.insert(name_of(name), instance.inputs.clone());
        instance
    }

    /// The role of an instance.
    pub fn role(&self, name: &str) -> String {
        self.done(&["instance", "show", name])["role"].as_str().unwrap_or("unknown").to_owned()
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if let Some(mut daemon) = self.daemon.take() {
            let _ = daemon.kill();
            let _ = daemon.wait();
        }
    }
}

pub fn typed(output: std::process::Output) -> Typed {
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Typed { status: output.status, out: text(output.stdout), err: text(output.stderr) }
}

fn slimctl() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_slimctl"))
}

/// Waits until `holds`.
pub fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !holds() {
        assert!(Instant::now() < deadline, "{what} does not happen");
        std::thread::sleep(Duration::from_millis(10));
    }
}
