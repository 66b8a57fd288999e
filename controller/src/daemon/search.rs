//! Finding instances that run without being written down, because `instances.json` was lost or damaged.
//!
//! What an instance is told at its start stays: its configuration in `run_dir`, and the arguments of its process, which
//! name that file. Both together say everything that was written down.

use super::Daemon;
use super::keep::KeptInstance;
use crate::deployment::{Deployment, Source};
use crate::hypervisor::borrowed::Functions;
use crate::hypervisor::{AccelChoice, Adoption};
use crate::net::Ipv4Interface;
use crate::process::ProcessId;
use slim_core::protocol::Name;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// What a configuration says of whom it is for.
#[derive(Debug, PartialEq)]
struct Found {
    name: Name,
    address: Ipv4Interface,
    config_file: PathBuf,
}

impl Daemon {
    /// The instances of this deployment that run and that `is_known` does not know.
    pub(super) fn search(&self, is_known: impl Fn(&Name) -> bool) -> Vec<KeptInstance> {
        let run_dir = &self.deployment.run_dir;
        let configured = configurations(run_dir).into_iter().filter(|found| !is_known(&found.name));
        configured.filter_map(|found| self.of_process(found)).collect()
    }

    /// The instance with the configuration `found`, if its process runs.
    fn of_process(&self, found: Found) -> Option<KeptInstance> {
        let (process, arguments) = process_with(&found.config_file)?;
        let run_dir = &self.deployment.run_dir;
        let name = found.name.as_str();
        let deployment = &self.deployment;
        let vnf = deployment.vnfs.iter().find(|(_, vnf)| match &vnf.source {
            Source::Image(folder) => arguments.iter().any(|argument| Path::new(argument).starts_with(folder)),
            Source::Program(program) => arguments.first().is_some_and(|argument| Path::new(argument) == program),
        });
        let Some((vnf, source)) = vnf.map(|(vnf_name, vnf)| (vnf_name, &vnf.source)) else {
            log::error!(
                "{name} runs as process {} and is written down nowhere, nor is it any [vnf.…] of the deployment: end it, \
                 or attach it with `slimctl instance attach {name} --control {}`",
                process.pid,
                Deployment::control_endpoint(found.address.address)
            );
            return None;
        };
        if arguments.iter().any(|argument| argument.starts_with("vfio-pci,")) {
            log::error!(
                "{name} runs as process {} on PCI functions of this host, and it is written down nowhere how the switch \
                 reaches it: end it, and give them back with `slimctl host clean`",
                process.pid
            );
            return None;
        }
        let guest = matches!(source, Source::Image(_));
        let kvm = arguments.windows(2).any(|pair| pair[0] == "-accel" && pair[1].starts_with("kvm"));
        let accel = AccelChoice { kvm, reason: "found running".into() };
        Some(KeptInstance {
            vnf: Some(vnf.clone()),
            index: (0..=u8::MAX).find(|&index| deployment.management.instance(index) == Some(found.address)),
            control: Deployment::control_endpoint(found.address.address),
            machine: Some(Adoption {
                name: name.to_owned(),
                process,
                accel: guest.then_some(accel),
                console_log: run_dir.join(format!("{name}.console.log")),
                qmp_socket: guest.then(|| run_dir.join(format!("{name}.qmp"))),
                config_file: found.config_file,
            }),
            name: found.name,
            pooled: false,
            functions: Functions::default(),
        })
    }
}

/// The configurations of instances in `run_dir`.
fn configurations(run_dir: &Path) -> Vec<Found> {
    let entries = std::fs::read_dir(run_dir).into_iter().flatten().flatten();
    let files = entries.map(|entry| entry.path()).filter(|path| path.extension().is_some_and(|end| end == "toml"));
    files.filter_map(configuration).collect()
}

fn configuration(config_file: PathBuf) -> Option<Found> {
    let table: toml::Table = std::fs::read_to_string(&config_file).ok()?.parse().ok()?;
    let name = Name::try_from(table.get("name")?.as_str()?).ok()?;
    let address = table.get("management")?.get("address")?.as_str()?.parse().ok()?;
    Some(Found { name, address, config_file })
}

/// The process that was started with `config_file`, and its arguments.
fn process_with(config_file: &Path) -> Option<(ProcessId, Vec<String>)> {
    let names_it = |argument: &[u8]| {
        let named = config_file.as_os_str().as_bytes();
        // QEMU has it as `name=…,file=PATH`.
        argument == named || argument.strip_suffix(named).is_some_and(|rest| rest.ends_with(b"file="))
    };
    let processes = std::fs::read_dir("/proc").ok()?.flatten();
    processes.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).find_map(|pid: u32| {
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).ok()?;
        let arguments: Vec<&[u8]> = line.split(|byte| *byte == 0).collect();
        if !arguments.iter().any(|argument| names_it(argument)) {
            return None;
        }
        let arguments = arguments.iter().map(|argument| String::from_utf8_lossy(argument).into_owned()).collect();
        // Read after the arguments: a number that has passed on meanwhile has another time of start.
        Some((ProcessId::of(pid)?, arguments))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;
    use std::time::{Duration, Instant};

    #[test]
    fn a_configuration_says_whom_it_is_for() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("nat-a.toml");
        std::fs::write(&file, "name = \"nat-a\"\n[management]\naddress = \"10.3.0.12/24\"\n").unwrap();
        std::fs::write(folder.path().join("other.toml"), "name = 3\n").unwrap();
        std::fs::write(folder.path().join("instances.json"), "{}").unwrap();
        let found = configurations(folder.path());
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].name.as_str(), "nat-a");
        assert_eq!(found[0].address.to_string(), "10.3.0.12/24");
    }

    #[test]
    fn a_process_is_found_by_the_configuration_it_was_given() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("nat-a.toml");
        assert!(process_with(&file).is_none());
        for argument in [file.display().to_string(), format!("name=opt/slim/config,file={}", file.display())] {
            // A shell that waits keeps its arguments.
            let mut child = Command::new("/bin/sh").args(["-c", "sleep 60; true", "sh", &argument]).spawn().unwrap();
            // The kernel lets the parent go on a moment before the child's arguments can be read.
            let started = Instant::now();
            let (process, arguments) = loop {
                match process_with(&file) {
                    Some(found) => break found,
                    None => assert!(started.elapsed() < Duration::from_secs(10), "never found"),
                }
            };
            assert_eq!(process.pid, child.id());
            assert_eq!(arguments[0], "/bin/sh");
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }
}
