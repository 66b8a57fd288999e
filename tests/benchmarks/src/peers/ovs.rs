//! Open vSwitch's userspace connection tracking with NAT, on one poll-mode thread. Its packets come from a file that DPDK
//! replays from memory and leave into nothing, so that neither costs more than our own ports of memory do.

use super::Rate;
use super::namespace::Namespace;
use crate::nat::workload;
use crate::nat::{LCORE_CPU, OTHER_CPU};
use anyhow::{Context, Result, ensure};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How long it runs before it is measured, and how long it is measured.
const WARM_UP: Duration = Duration::from_secs(2);
const MEASURED: Duration = Duration::from_millis(1500);

/// How long it may take to end.
const PATIENCE: Duration = Duration::from_secs(5);

/// Where Debian's packages put what is not in everybody's path.
const DAEMON: &str = "/usr/lib/openvswitch-switch-dpdk/ovs-vswitchd-dpdk";
const SCHEMA: &str = "/usr/share/openvswitch/vswitch.ovsschema";

const FLOWS: [&str; 4] = [
    "table=0,priority=1,actions=drop",
    "table=0,priority=10,in_port=1,ip,actions=ct(table=1,zone=1,nat)",
    "table=1,in_port=1,ip,ct_state=+trk+new,actions=ct(commit,zone=1,nat(src=10.2.0.1-10.2.0.20)),output:2",
    "table=1,in_port=1,ip,ct_state=+trk+est,actions=output:2",
];

/// A switch that ends with its owner.
struct Switch {
    namespace: Namespace,
    folder: PathBuf,
}

/// Measures with so many sessions.
pub fn measure(sessions: usize) -> Result<Rate> {
    ensure!(Path::new(DAEMON).exists(), "{DAEMON} is not there: Debian's openvswitch-switch-dpdk has it");
    let switch = Switch::start()?;
    let packets = switch.folder.join("packets.pcap");
    write_packets(&packets, sessions)?;
    switch.vsctl("add-br br0 -- set bridge br0 datapath_type=netdev fail-mode=secure")?;
    for flow in FLOWS {
        switch.ofctl("add-flow", Some(flow))?;
    }
    let source = format!("net_pcap0,rx_pcap={},infinite_rx=1", packets.display());
    for (port, device) in [("in", source.as_str()), ("out", "net_null0")] {
        switch
            .vsctl(&format!("add-port br0 {port} -- set Interface {port} type=dpdk options:dpdk-devargs={device}"))?;
        let error = switch.vsctl(&format!("get Interface {port} error"))?;
        ensure!(error.trim() == "[]", "port {port}: {}", error.trim());
    }
    std::thread::sleep(WARM_UP);
    let (begin, before) = (Instant::now(), switch.transmitted()?);
    std::thread::sleep(MEASURED);
    let packets_per_s = (switch.transmitted()? - before) / begin.elapsed().as_secs_f64();
    let tracked = switch.appctl("dpctl/ct-stats-show")?;
    let count = tracked.split_whitespace().skip_while(|word| *word != "Total:").nth(1).unwrap_or("0");
    ensure!(count == sessions.to_string(), "it tracks {count} connections instead of {sessions}");
    Ok(Rate { sessions, packets_per_s, net_packets_per_s: packets_per_s })
}

impl Switch {
    fn start() -> Result<Self> {
        let namespace = Namespace::new("ovs")?;
        let folder = std::env::temp_dir().join(namespace.name());
        std::fs::create_dir(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        let switch = Self { namespace, folder };
        let at = |name: &str| switch.folder.join(name).display().to_string();
        let (database, socket) = (at("conf.db"), at("db.sock"));
        switch.run(&format!("ovsdb-tool create {database} {SCHEMA}"))?;
        let log = "-vconsole:off -vfile:warn";
        switch.run(&format!(
            "ovsdb-server {database} --remote=punix:{socket} --pidfile={} --unixctl={} --detach --no-chdir {log} \
             --log-file={}",
            at("ovsdb.pid"),
            at("ovsdb.ctl"),
            at("ovsdb.log")
        ))?;
        switch.vsctl_early("init")?;
        switch.vsctl_early(&format!(
            "set Open_vSwitch . other_config:dpdk-init=true other_config:pmd-cpu-mask={:#x} \
             other_config:dpdk-lcore-mask={:#x}",
            1 << LCORE_CPU,
            1 << OTHER_CPU
        ))?;
        // No device of this machine, but those that are named later.
        let mut set = switch.command("ovs-vsctl");
        set.args([&format!("--db=unix:{socket}"), "--timeout=10", "--no-wait", "set", "Open_vSwitch", "."]);
        set.arg("other_config:dpdk-extra=\"--no-pci --no-huge --legacy-mem --no-shconf -m 1536 --no-telemetry\"");
        super::namespace::run(&mut set)?;
        switch.run(&format!(
            "{DAEMON} unix:{socket} --pidfile={} --unixctl={} --detach --no-chdir {log} --log-file={}",
            at("vswitchd.pid"),
            at("vswitchd.ctl"),
            at("vswitchd.log")
        ))?;
        Ok(switch)
    }

    /// A program that finds its files in our folder.
    fn command(&self, program: &str) -> std::process::Command {
        let mut command = self.namespace.command(program);
        for name in ["OVS_RUNDIR", "OVS_DBDIR", "OVS_LOGDIR", "OVS_SYSCONFDIR"] {
            command.env(name, &self.folder);
        }
        command
    }

    fn run(&self, line: &str) -> Result<String> {
        let mut words = line.split_whitespace();
        super::namespace::run(self.command(words.next().unwrap_or_default()).args(words))
    }

    fn vsctl(&self, line: &str) -> Result<String> {
        self.run(&format!("ovs-vsctl --db=unix:{}/db.sock --timeout=30 {line}", self.folder.display()))
    }

    /// Before there is a daemon to wait for.
    fn vsctl_early(&self, line: &str) -> Result<String> {
        self.run(&format!("ovs-vsctl --db=unix:{}/db.sock --timeout=10 --no-wait {line}", self.folder.display()))
    }

    fn ofctl(&self, verb: &str, argument: Option<&str>) -> Result<String> {
        let mut command = self.command("ovs-ofctl");
        command.arg(verb).arg(format!("unix:{}/br0.mgmt", self.folder.display())).args(argument);
        super::namespace::run(&mut command)
    }

    fn appctl(&self, line: &str) -> Result<String> {
        self.run(&format!("ovs-appctl --target={}/vswitchd.ctl {line}", self.folder.display()))
    }

    /// Packets that have left.
    fn transmitted(&self) -> Result<f64> {
        let shown = self.ofctl("dump-ports", Some("2"))?;
        let (_, counted) = shown.split_once("tx pkts=").context("there is no port 2")?;
        let digits = counted.split(',').next().unwrap_or_default();
        Ok(digits.trim().parse()?)
    }
}

impl Drop for Switch {
    fn drop(&mut self) {
        for control in ["vswitchd.ctl", "ovsdb.ctl"] {
            // One that did not start cannot be ended.
            let _ = self.run(&format!("ovs-appctl --target={}/{control} exit", self.folder.display()));
        }
        let ended = || ["vswitchd.pid", "ovsdb.pid"].iter().all(|file| !self.folder.join(file).exists());
        let begin = Instant::now();
        while !ended() && begin.elapsed() < PATIENCE {
            std::thread::sleep(Duration::from_millis(20));
        }
        if let Err(error) = std::fs::remove_dir_all(&self.folder) {
            eprintln!("{} is left: {error}", self.folder.display());
        }
    }
}

/// One packet of each session, in the format of libpcap.
fn write_packets(path: &Path, sessions: usize) -> Result<()> {
    let mut file = BufWriter::new(std::fs::File::create(path)?);
    let words = |words: &[u32]| words.iter().flat_map(|word| word.to_le_bytes()).collect::<Vec<u8>>();
    // Magic, version 2.4, zone, accuracy, longest packet, Ethernet.
    file.write_all(&words(&[0xa1b2_c3d4, 4 << 16 | 2, 0, 0, 0xffff, 1]))?;
    for number in 0..sessions {
        let frame = workload::opening(number)?;
        let frame = &frame[..60];
        file.write_all(&words(&[0, 0, frame.len() as u32, frame.len() as u32]))?;
        file.write_all(frame)?;
    }
    Ok(file.flush()?)
}
