//! One instance: the example as a child process, and its control connection.

use crate::control::Control;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

pub struct Instance {
    pub name: String,
    child: Child,
    pub control: Control,
    pub control_address: SocketAddr,
    pub state_address: SocketAddr,
}

/// The example, which `cargo test` has built beside this test.
pub fn program() -> PathBuf {
    let test = std::env::current_exe().expect("this program");
    let target = test.parent().and_then(Path::parent).expect("target/debug/deps");
    let program = target.join("examples/numberer");
    assert!(program.exists(), "no {}: cargo builds it with the tests", program.display());
    program
}

pub fn config(name: &str, sockets: [&Path; 2], identity: &Path, limits: &str) -> String {
    let [left, right] = sockets.map(Path::display);
    let identity = identity.display();
    format!(
        r#"
        name = "{name}"
        [management]
        address = "127.0.0.1/8"
        control_port = 0
        state_port = 0
        identity = "{identity}"
        [[port]]
        name = "left"
        device = "net_virtio_user0,path={left},queue_size=1024,mac=02:00:00:00:00:01"
        [[port]]
        name = "right"
        device = "net_virtio_user1,path={right},queue_size=1024,mac=02:00:00:00:00:02"
        [limits]
        {limits}
        [numberer]
        senders = 20000
        "#
    )
}

impl Instance {
    pub fn start(name: &str, sockets: [&Path; 2], pem: &str, limits: &str) -> Self {
        let file = sockets[0].with_extension("toml");
        let identity = sockets[0].with_extension("pem");
        slim_trust::files::create_secret(&identity, pem).expect("a writable directory");
        std::fs::write(&file, config(name, sockets, &identity, limits)).expect("a writable directory");
        let mut child = Command::new(program())
            .args(["--process", "--config"])
            .arg(&file)
            .env("SLIM_LOG", std::env::var("SLIM_LOG").unwrap_or_else(|_| "error".into()))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the example starts");
        let mut output = BufReader::new(child.stdout.take().expect("its output"));
        let mut line = String::new();
        output.read_line(&mut line).expect("a line");
        assert!(line.starts_with(&format!("slim: ready name={name} kind=numberer boot_ms=")), "{line:?}");
        let address = |key: &str| {
            let (_, rest) = line.split_once(key).unwrap_or_else(|| panic!("{key} in {line:?}"));
            rest.split_whitespace().next().and_then(|text| text.parse().ok()).expect("an address")
        };
        let control_address = address(" control=");
        Self {
            name: name.into(),
            child,
            control: Control::connect(control_address, &crate::trust::controller()).expect("it is ours"),
            control_address,
            state_address: address(" state="),
        }
    }

    pub fn process_id(&self) -> u32 {
        self.child.id()
    }

    pub fn kill(&mut self) {
        self.child.kill().expect("it can be killed");
        self.child.wait().expect("and reaped");
    }

    /// The exit code, if it has ended.
    pub fn ended(&mut self) -> Option<i32> {
        self.child.try_wait().expect("a child").and_then(|status| status.code())
    }

    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().expect("a child").is_none()
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
