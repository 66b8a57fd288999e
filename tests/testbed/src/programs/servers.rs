//! The world outside: real servers, and a router to a network with a smaller MTU.

use crate::process::Process;
use crate::sandbox::ip;
use crate::topology::{INSIDE, NAT_EXTERIOR, OUTSIDE, OUTSIDE_SERVERS, command_in};
use anyhow::{Context, Result, bail};
use std::ffi::OsString;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The NAT's gateway, which routes to [`FAR_HOST`].
pub(super) const ROUTER: &str = OUTSIDE_SERVERS[0];

/// An address beside the router's that no other program sends long packets to: a host that knows a path's MTU by another
/// program's packets is not told again.
pub(super) const QUIET_SERVER: &str = OUTSIDE_SERVERS[1];

/// The namespace behind the router.
pub(super) const FAR: &str = "slim-far";

/// The host in it.
pub(super) const FAR_HOST: &str = "198.51.100.2";

/// The MTU of the network behind the router, in bytes.
pub(super) const FAR_MTU: u16 = 1400;

/// The NAT's own MTU towards the outside, in bytes.
pub(super) const EXTERIOR_MTU: u16 = 1480;

/// The name that the DNS server knows, and its address.
pub(super) const NAME: (&str, &str) = ("www.slim.test", "192.0.2.77");

/// A forward: from where, to where.
pub(super) const FORWARDED: (SocketAddrV4, SocketAddrV4) = forward(8080);

/// One that is used from inside.
pub(super) const HAIRPINNED: (SocketAddrV4, SocketAddrV4) = forward(8081);

/// Ports of the iperf3 servers, of which each takes one client at a time.
pub(super) const IPERF_PORTS: [u16; 3] = [5201, 5202, 5203];

const START_LIMIT: Duration = Duration::from_secs(10);

const fn forward(port: u16) -> (SocketAddrV4, SocketAddrV4) {
    (SocketAddrV4::new(Ipv4Addr::new(10, 2, 0, 1), port), SocketAddrV4::new(Ipv4Addr::new(10, 1, 0, 10), port))
}

/// The running servers, and the identity of the user who may log in. Ended when dropped.
pub(super) struct Servers {
    #[expect(dead_code, reason = "held for their end")]
    processes: Vec<Process>,
    pub(super) user_key: PathBuf,
    /// The server's key, as the user knows it.
    pub(super) known_hosts: PathBuf,
}

impl Servers {
    /// Makes the far network and starts every server; logs and keys go to `folder`.
    pub(super) fn up(folder: &Path) -> Result<Self> {
        make_far_network()?;
        let folder = &folder.join("servers");
        // Keys of an earlier run would be in the way of new ones.
        if folder.exists() {
            std::fs::remove_dir_all(folder).with_context(|| format!("cannot empty {}", folder.display()))?;
        }
        std::fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
        let mut processes = vec![
            start(
                folder,
                "dnsmasq",
                &[
                    "--keep-in-foreground",
                    "--no-resolv",
                    "--no-hosts",
                    "--conf-file=/dev/null",
                    "--user=root",
                    "--pid-file=",
                    "--bind-interfaces",
                    &format!("--listen-address={ROUTER}"),
                    &format!("--address=/{}/{}", NAME.0, NAME.1),
                ],
            )?,
            start(
                folder,
                "turnserver",
                &[
                    "-n",
                    "--stun-only",
                    &format!("--listening-ip={}", OUTSIDE_SERVERS[0]),
                    &format!("--listening-ip={}", OUTSIDE_SERVERS[1]),
                    "--no-tls",
                    "--no-dtls",
                    "--no-cli",
                    "--log-file=stdout",
                    &format!("--pidfile={}", folder.join("turnserver.pid").display()),
                    &format!("--userdb={}", folder.join("turndb").display()),
                ],
            )?,
        ];
        for port in IPERF_PORTS {
            processes.push(start(folder, "iperf3", &["--server", "--bind", ROUTER, "--port", &port.to_string()])?);
        }
        let (user_key, known_hosts, config) = ssh_keys(folder)?;
        let sshd = find("sshd", &["/usr/sbin/sshd"])?;
        let config = config.display().to_string();
        processes.push(start(folder, &sshd, &["-D", "-e", "-f", &config])?);
        for (port, process) in [53, 3478].into_iter().chain(IPERF_PORTS).chain([22]).zip(&mut processes) {
            process.wait_until("listening", START_LIMIT, || listens(port))?;
        }
        Ok(Self { processes, user_key, known_hosts })
    }
}

/// Starts `program` in the outside namespace.
fn start(folder: &Path, program: &str, arguments: &[&str]) -> Result<Process> {
    let name = Path::new(program).file_name().map_or_else(|| program.into(), |name| name.to_string_lossy());
    let words = ["netns", "exec", OUTSIDE, program].into_iter().chain(arguments.iter().copied());
    let words: Vec<OsString> = words.map(OsString::from).collect();
    let number = arguments.last().filter(|word| word.bytes().all(|byte| byte.is_ascii_digit()));
    let log = folder.join(format!("{name}{}.log", number.map_or_else(String::new, |number| format!("-{number}"))));
    Process::start(&name, Path::new("ip"), &words, &log)
}

/// Whether something outside listens on a port: a TCP connection can be made to it.
fn listens(port: u16) -> bool {
    let address = format!("/dev/tcp/{ROUTER}/{port}");
    let connect = command_in(OUTSIDE, "bash").args(["-c", &format!("exec 3<>{address}")]).output();
    connect.is_ok_and(|output| output.status.success())
}

fn find(name: &str, places: &[&str]) -> Result<String> {
    let Some(place) = places.iter().find(|place| Path::new(place).exists()) else {
        bail!("there is no {name}: run `cargo xtask setup`");
    };
    Ok((*place).to_owned())
}

/// A network behind the outside namespace, which routes to it.
fn make_far_network() -> Result<()> {
    let mtu = FAR_MTU.to_string();
    ip(&["netns", "add", FAR])?;
    ip(&[
        "-n",
        OUTSIDE,
        "link",
        "add",
        "slim-near",
        "mtu",
        &mtu,
        "type",
        "veth",
        "peer",
        "name",
        "slim-far",
        "netns",
        FAR,
    ])?;
    ip(&["-n", OUTSIDE, "address", "add", "198.51.100.1/24", "dev", "slim-near"])?;
    ip(&["-n", OUTSIDE, "link", "set", "slim-near", "up"])?;
    ip(&["-n", FAR, "address", "add", &format!("{FAR_HOST}/24"), "dev", "slim-far"])?;
    ip(&["-n", FAR, "link", "set", "slim-far", "mtu", &mtu, "up"])?;
    ip(&["-n", FAR, "link", "set", "lo", "up"])?;
    ip(&["-n", FAR, "route", "add", NAT_EXTERIOR, "via", "198.51.100.1"])?;
    // Hosts tell of every packet, or a traceroute would have to wait.
    for namespace in [OUTSIDE, FAR, INSIDE] {
        set(namespace, "net/ipv4/icmp_ratelimit", "0")?;
    }
    set(OUTSIDE, "net/ipv4/ip_forward", "1")
}

fn set(namespace: &str, name: &str, value: &str) -> Result<()> {
    let output = command_in(namespace, "sh").args(["-c", &format!("echo {value} > /proc/sys/{name}")]).output()?;
    if !output.status.success() {
        bail!("cannot set {name} in {namespace}: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}

/// Makes the keys of server and user, and the server's configuration.
fn ssh_keys(folder: &Path) -> Result<(PathBuf, PathBuf, PathBuf)> {
    let key = |name: &str| -> Result<PathBuf> {
        let path = folder.join(name);
        let made = std::process::Command::new("ssh-keygen")
            .args(["-q", "-t", "ed25519", "-N", "", "-C", name, "-f"])
            .arg(&path)
            .output()
            .context("cannot run ssh-keygen: run `cargo xtask setup`")?;
        if !made.status.success() {
            bail!("ssh-keygen failed: {}", String::from_utf8_lossy(&made.stderr).trim());
        }
        Ok(path)
    };
    let public = |path: &Path| {
        let path = path.with_extension("pub");
        std::fs::read_to_string(&path).with_context(|| path.display().to_string())
    };
    let (host_key, user_key) = (key("host_key")?, key("user_key")?);
    let (authorized, known_hosts, config) =
        (folder.join("authorized_keys"), folder.join("known_hosts"), folder.join("sshd_config"));
    std::fs::write(&authorized, public(&user_key)?)?;
    std::fs::write(&known_hosts, format!("{ROUTER} {}", public(&host_key)?))?;
    let text = format!(
        "ListenAddress {ROUTER}:22\nHostKey {}\nAuthorizedKeysFile {}\nStrictModes no\nPidFile none\n\
         PermitRootLogin prohibit-password\nPasswordAuthentication no\nKbdInteractiveAuthentication no\nUsePAM no\n",
        host_key.display(),
        authorized.display()
    );
    std::fs::write(&config, text)?;
    // Where sshd separates its privileges; /run is this sandbox's own.
    std::fs::create_dir_all("/run/sshd")?;
    Ok((user_key, known_hosts, config))
}
