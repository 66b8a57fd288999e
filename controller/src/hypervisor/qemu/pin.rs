//! Giving each virtual CPU of a running QEMU its CPUs of the host.

use super::qmp::Qmp;
use crate::hypervisor::LaunchError;
use crate::hypervisor::placement::CpuList;
use nix::sched::sched_setaffinity;
use nix::unistd::Pid;
use serde_json::{Value, json};
use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

/// How long QEMU may take until it can be asked. It answers about when its guest begins to run.
const LIMIT: Duration = Duration::from_secs(20);

/// Lets the virtual CPUs of the QEMU behind `qmp_socket` run where `vcpus` says, each in turn. All other threads of QEMU
/// stay where the host puts them. Returns at once if there is nothing to do, or the process is no longer `alive`.
pub(super) fn pin(
    name: &str,
    qmp_socket: &Path,
    vcpus: &[CpuList],
    mut alive: impl FnMut() -> bool,
) -> Result<(), LaunchError> {
    if vcpus.is_empty() {
        return Ok(());
    }
    let threads = LaunchError::io(format!("ask QEMU for the threads of {name}'s virtual CPUs"));
    let deadline = Instant::now() + LIMIT;
    let threads = loop {
        match Qmp::connect(qmp_socket).and_then(|mut qmp| qmp.call("query-cpus-fast", &json!({}))) {
            Ok(answer) => break threads_of(&answer, vcpus.len()).map_err(threads)?,
            Err(_) if !alive() => return Ok(()),
            Err(error) if Instant::now() >= deadline => return Err(threads(error)),
            Err(_) => std::thread::sleep(Duration::from_millis(2)),
        }
    };
    for (index, (thread, cpus)) in threads.into_iter().zip(vcpus).enumerate() {
        let action = || format!("put virtual CPU {index} of {name} on CPU {cpus} of the host");
        let set = cpus.set().ok_or_else(|| LaunchError::io(action())(io::ErrorKind::InvalidInput.into()))?;
        sched_setaffinity(Pid::from_raw(thread), &set).map_err(|error| LaunchError::io(action())(error.into()))?;
    }
    Ok(())
}

/// The threads of `count` virtual CPUs, in their order.
fn threads_of(answer: &Value, count: usize) -> io::Result<Vec<i32>> {
    let of = |cpu: &Value| {
        let number = |key: &str| cpu.get(key)?.as_i64();
        Some((number("cpu-index")?, i32::try_from(number("thread-id")?).ok()?))
    };
    let mut threads: Vec<(i64, i32)> = answer.as_array().into_iter().flatten().filter_map(of).collect();
    threads.sort_unstable();
    match threads.len() == count {
        true => Ok(threads.into_iter().map(|(_, thread)| thread).collect()),
        false => Err(io::Error::new(io::ErrorKind::InvalidData, format!("it names {} of {count}", threads.len()))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hypervisor::placement::Placement;
    use crate::hypervisor::qemu::{Instance, Qemu};
    use crate::hypervisor::{AccelChoice, Image, Launch, Machine};

    #[test]
    fn threads_come_in_the_order_of_their_cpus() {
        let answer = json!([
            { "cpu-index": 1, "thread-id": 812, "qom-path": "/machine/unattached/device[1]" },
            { "cpu-index": 0, "thread-id": 811, "target": "x86_64" },
        ]);
        assert_eq!(threads_of(&answer, 2).unwrap(), [811, 812]);
        assert!(threads_of(&answer, 1).unwrap_err().to_string().contains("names 2 of 1"));
        assert!(threads_of(&json!({}), 1).is_err());
    }

    /// Where the kernel lets the threads of a process run whose names begin so.
    fn affinities(process: u32, name: &str) -> Vec<String> {
        let tasks = std::fs::read_dir(format!("/proc/{process}/task")).unwrap().flatten().map(|task| task.path());
        let read = |task: &Path, file: &str| std::fs::read_to_string(task.join(file)).unwrap_or_default();
        let mut found: Vec<(String, String)> = tasks
            .filter(|task| read(task, "comm").starts_with(name))
            .filter_map(|task| {
                let status = read(&task, "status");
                let list = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"))?;
                Some((read(&task, "comm"), list.trim().to_owned()))
            })
            .collect();
        found.sort();
        found.into_iter().map(|(_, list)| list).collect()
    }

    /// A real QEMU with a kernel that is none: what counts are its threads. Without QEMU there is nothing to test.
    #[test]
    fn virtual_cpus_run_where_they_were_put() {
        let Ok(qemu) = Qemu::find() else { return };
        let folder = tempfile::tempdir().unwrap();
        let image = Image { kernel: folder.path().join("kernel"), initramfs: folder.path().join("initramfs") };
        // Nothing but halts, with what QEMU wants to see at the head of a kernel: its number of setup sectors, its
        // signature and version, and where the initramfs may end.
        let mut kernel = vec![0xf4; 4096];
        kernel[0x1f1] = 1;
        kernel[0x202..0x208].copy_from_slice(b"HdrS\x04\x02");
        kernel[0x22c..0x230].copy_from_slice(&0x37ff_ffff_u32.to_le_bytes());
        std::fs::write(&image.kernel, kernel).unwrap();
        std::fs::write(&image.initramfs, "initramfs").unwrap();
        let mut launch = Launch::new("pinned", image, folder.path());
        launch.vcpus = 2;
        let own: CpuList = affinities(std::process::id(), "")[0].parse().unwrap();
        let (first, last) = (own.iter().next().unwrap(), own.iter().last().unwrap());
        let vcpus = [last, first].map(|cpu| CpuList::from_iter([cpu])).to_vec();
        // Where there are nodes, there is a first one.
        let node = Path::new("/sys/devices/system/node/node0").is_dir().then_some(0);
        let placement = Placement { vcpus, node, ..Placement::default() };
        let accel = AccelChoice { kvm: false, reason: "test".into() };
        let mut instance = Instance::start(qemu.program(), &launch, accel, placement).unwrap();
        assert!(instance.is_alive(), "{}", instance.console_tail());

        let threads = affinities(instance.process_id(), "CPU ");
        assert_eq!(threads, [last.to_string(), first.to_string()]);
        assert_eq!(affinities(instance.process_id(), "qemu-system")[0], own.to_string(), "QEMU's own thread is free");
        let memory = |file: &str| {
            let maps = std::fs::read_to_string(format!("/proc/{}/{file}", instance.process_id())).unwrap();
            maps.lines().find(|line| line.contains("memfd:slim-memory")).unwrap().to_owned()
        };
        let mapped = memory("maps");
        let address = usize::from_str_radix(mapped.split_once('-').unwrap().0, 16).unwrap();
        assert_eq!(address % (2 << 20), 0, "huge pages can be the guest's, too: {mapped}");
        if node.is_some() {
            let memory = memory("numa_maps");
            assert!(memory.contains("bind:0"), "{memory}");
        }
    }

    #[test]
    fn what_has_ended_is_not_waited_for() {
        let nowhere = Path::new("/nonexistent/qmp");
        let cpus = [CpuList::from_iter([0])];
        pin("nat-a", nowhere, &cpus, || false).unwrap();
        pin("nat-a", nowhere, &[], || true).unwrap();
    }
}
