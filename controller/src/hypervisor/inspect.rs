//! What of a host hinders guests with KVM and passed-through functions, and the commands that mend it.

use super::PciAddress;
use super::accel::{self, Hindrance};
use super::borrowed::Lender;
use super::passthrough::{self, Host};
use crate::process::find_program;
use serde::Serialize;
use std::fmt;
use std::fs;

/// The memory of a guest by default; what has to be lockable at least.
const GUEST_MEMORY_MB: u32 = 256;

/// How grave a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// As it should be.
    Good,
    /// Works; could be better, or needs to be known.
    Note,
    /// Hinders passed-through functions, or KVM.
    Bad,
}

/// Something that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What was looked at, in a word or two.
    pub topic: String,
    /// How it is.
    pub verdict: Verdict,
    /// The same in words.
    pub text: String,
    /// The command that mends it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mend: Option<String>,
}

impl Finding {
    fn new(topic: impl Into<String>, verdict: Verdict, text: impl Into<String>) -> Self {
        Self { topic: topic.into(), verdict, text: text.into(), mend: None }
    }

    fn good(topic: &str, text: impl Into<String>) -> Self {
        Self::new(topic, Verdict::Good, text)
    }

    fn note(topic: &str, text: impl Into<String>) -> Self {
        Self::new(topic, Verdict::Note, text)
    }

    fn bad(topic: &str, text: impl Into<String>, mend: impl Into<String>) -> Self {
        Self { mend: Some(mend.into()), ..Self::new(topic, Verdict::Bad, text) }
    }

    fn mend(self, command: impl Into<String>) -> Self {
        Self { mend: Some(command.into()), ..self }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = match self.verdict {
            Verdict::Good => "ok  ",
            Verdict::Note => "note",
            Verdict::Bad => "BAD ",
        };
        write!(f, "{word}  {}: {}", self.topic, self.text)?;
        match &self.mend {
            Some(command) => write!(f, "\n          $ {command}"),
            None => Ok(()),
        }
    }
}

/// Looks at everything. Changes nothing.
pub fn inspect(host: &Host, lender: &Lender) -> Vec<Finding> {
    let mut findings = vec![kvm(host), iommu(host), vfio(host), memory_limit(host)];
    findings.extend(programs());
    findings.push(left_behind(lender));
    findings.extend(network(host));
    findings.push(huge_pages(host));
    findings.push(isolated_cpus(host));
    findings
}

fn kvm(host: &Host) -> Finding {
    match accel::hardware(&host.root) {
        Ok(text) => Finding::good("KVM", text),
        Err(Hindrance { reason, mend: Some(mend) }) => Finding::bad("KVM", reason, mend),
        Err(Hindrance { reason, mend: None }) => Finding::new("KVM", Verdict::Bad, reason),
    }
}

fn iommu(host: &Host) -> Finding {
    const TOPIC: &str = "IOMMU";
    if passthrough::check_iommu(host).is_ok() {
        let groups = fs::read_dir(host.root.join("sys/kernel/iommu_groups")).map_or(0, Iterator::count);
        return Finding::good(TOPIC, format!("active, with {groups} groups"));
    }
    let cpuinfo = fs::read_to_string(host.root.join("proc/cpuinfo")).unwrap_or_default();
    match cpuinfo.contains("AuthenticAMD") {
        true => Finding::bad(
            TOPIC,
            "none is active: switch AMD-Vi (\"IOMMU\") on in the firmware; Linux then uses it by itself",
            "sudo systemctl reboot --firmware-setup",
        ),
        false => Finding::bad(
            TOPIC,
            "none is active: switch VT-d on in the firmware, and on the kernel's command line with",
            r#"sudo sed -i 's/^GRUB_CMDLINE_LINUX="/&intel_iommu=on iommu=pt /' /etc/default/grub && sudo update-grub && sudo reboot"#,
        ),
    }
}

fn vfio(host: &Host) -> Finding {
    match passthrough::check_vfio(host) {
        Ok(()) => Finding::good("vfio-pci", "loaded"),
        Err(_) => Finding::bad(
            "vfio-pci",
            "the driver that gives functions to guests is not loaded",
            "sudo modprobe vfio-pci && echo vfio-pci | sudo tee /etc/modules-load.d/vfio-pci.conf",
        ),
    }
}

fn memory_limit(host: &Host) -> Finding {
    const TOPIC: &str = "locked memory";
    match (passthrough::check_memory(host, GUEST_MEMORY_MB), host.lockable_bytes) {
        (Ok(()), None) => Finding::good(TOPIC, "without limit"),
        (Ok(()), Some(bytes)) => Finding::good(TOPIC, format!("{} MiB", bytes >> 20)),
        (Err(error), _) => Finding::bad(TOPIC, error.to_string(), "sudo prlimit --pid $$ --memlock=unlimited"),
    }
}

fn programs() -> Vec<Finding> {
    [("qemu-system-x86_64", "qemu-system-x86"), ("ip", "iproute2"), ("setpriv", "util-linux")]
        .into_iter()
        .filter_map(|(program, package)| find_program(program, package).err())
        .map(|missing| {
            let install = format!("sudo apt-get install {}", missing.package);
            Finding::bad("programs", format!("{} is not installed", missing.program), install)
        })
        .collect()
}

fn left_behind(lender: &Lender) -> Finding {
    const TOPIC: &str = "borrowed";
    match lender.left_behind() {
        Ok(addresses) if addresses.is_empty() => Finding::good(TOPIC, "no ended launch has left anything behind"),
        Ok(addresses) => {
            let names: Vec<String> = addresses.iter().map(PciAddress::to_string).collect();
            let text = format!("a launch that has ended did not give back {}", names.join(", "));
            Finding::bad(TOPIC, text, "sudo slimctl host clean")
        }
        Err(error) => Finding::new(TOPIC, Verdict::Bad, error.to_string()),
    }
}

/// One finding for each physical network function, and what shares its group.
fn network(host: &Host) -> Vec<Finding> {
    let physical: Vec<PciAddress> =
        host.network_addresses().into_iter().filter(|&address| host.parent(address).is_none()).collect();
    if physical.is_empty() {
        return vec![Finding::note("NICs", "there is no network device on PCI")];
    }
    physical.into_iter().map(|address| nic(host, address)).collect()
}

fn nic(host: &Host, address: PciAddress) -> Finding {
    let driver = host.driver(address).unwrap_or_else(|| "no driver".into());
    let names = [vec![driver], host.interfaces(address)].concat().join(", ");
    let topic = format!("NIC {address} ({names})");
    if let Some(group) = host.group(address)
        && let Err(error) = passthrough::check_group(host, address, group, &[address])
    {
        return Finding::new(topic, Verdict::Note, error.to_string());
    }
    let number = |file: &str| host.text(address, file)?.parse::<u32>().ok();
    let Some(total) = number("sriov_totalvfs").filter(|&total| total > 0) else {
        return Finding::new(topic, Verdict::Note, format!("no SR-IOV; whole with --pci {address}"));
    };
    let present = number("sriov_numvfs").unwrap_or(0);
    let uses: Vec<String> = (0..present)
        .filter_map(|index| host.virtual_function(address, index))
        .map(|function| {
            let driver = host.driver(function).unwrap_or_else(|| "no driver".into());
            let open = if host.is_open(function) { ", in use by a guest" } else { "" };
            format!("\n          {function} ({driver}{open})")
        })
        .collect();
    let text = match present {
        0 => format!("can have {total} virtual functions; --vf makes them"),
        _ => format!("{present} of {total} virtual functions{}", uses.concat()),
    };
    Finding::new(topic, Verdict::Good, text)
}

fn huge_pages(host: &Host) -> Finding {
    const TOPIC: &str = "huge pages";
    const FILE: &str = "sys/kernel/mm/transparent_hugepage/shmem_enabled";
    const RESERVED: &str = "sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages";
    let reserved = fs::read_to_string(host.root.join(RESERVED)).ok().and_then(|text| text.trim().parse().ok());
    if let Some(reserved @ 1..) = reserved {
        let reserved: u64 = reserved;
        return Finding::good(TOPIC, format!("{reserved} of 2 MiB are reserved and free: guests that fit take them"));
    }
    // A guest's memory is a memfd: shared memory, for which QEMU asks for huge pages by madvise.
    match fs::read_to_string(host.root.join(FILE)) {
        Ok(text) if text.contains("[never]") || text.contains("[deny]") => {
            Finding::note(TOPIC, "none for guests' memory: more misses of the TLB")
                .mend(format!("echo advise | sudo tee /{FILE}"))
        }
        Ok(_) => Finding::good(TOPIC, "guests' memory gets them where there are any; none need be reserved"),
        Err(_) => Finding::note(TOPIC, "this kernel has none for shared memory, which guests' memory is"),
    }
}

fn isolated_cpus(host: &Host) -> Finding {
    const TOPIC: &str = "isolated CPUs";
    let list = fs::read_to_string(host.root.join("sys/devices/system/cpu/isolated")).unwrap_or_default();
    match list.trim() {
        "" => Finding::note(
            TOPIC,
            "none: other programs can delay packets; `isolcpus=` on the kernel's command line keeps CPUs free, \
             and `--cpus` gives them to a guest's virtual ones",
        ),
        list => Finding::good(TOPIC, list),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hypervisor::borrowed::ThisKernel;
    use std::os::unix::fs::symlink;
    use std::path::Path;
    use std::sync::Arc;

    fn write(root: &Path, file: &str, text: &str) {
        let file = root.join(file);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, text).unwrap();
    }

    /// A server on which everything is as it should be, with one NIC.
    fn server() -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        write(root, "proc/cpuinfo", "vendor_id\t: GenuineIntel\nflags\t\t: fpu vmx sse\n");
        for file in ["dev/kvm", "dev/vfio/vfio", "sys/module/kvm_intel/refcnt", "sys/bus/pci/drivers/vfio-pci/bind"] {
            write(root, file, "");
        }
        write(root, "sys/kernel/iommu_groups/7/devices/0000:03:00.0", "");
        write(root, "sys/kernel/mm/transparent_hugepage/shmem_enabled", "always [advise] never\n");
        write(root, "sys/devices/system/cpu/isolated", "2-3\n");
        let nic = "sys/bus/pci/devices/0000:03:00.0";
        for (file, text) in [("class", "0x020000"), ("sriov_totalvfs", "7"), ("sriov_numvfs", "0")] {
            write(root, &format!("{nic}/{file}"), text);
        }
        write(root, &format!("{nic}/net/enp3s0/flags"), "0x1003");
        symlink("../../../kernel/iommu_groups/7", root.join(nic).join("iommu_group")).unwrap();
        folder
    }

    fn findings(root: &Path, lockable_bytes: Option<u64>) -> Vec<Finding> {
        let host = Host { root: root.to_owned(), lockable_bytes };
        let lender = Lender::new(host.clone(), Arc::new(ThisKernel), root.join("records"));
        // What is installed on this machine is not the server's affair.
        inspect(&host, &lender).into_iter().filter(|finding| finding.topic != "programs").collect()
    }

    #[test]
    fn a_server_that_is_ready_is_called_so() {
        let folder = server();
        let all = findings(folder.path(), None);
        assert!(all.iter().all(|finding| finding.verdict == Verdict::Good && finding.mend.is_none()), "{all:#?}");
        let nic = all.iter().find(|finding| finding.topic.contains("0000:03:00.0")).unwrap().to_string();
        assert!(nic.contains("enp3s0") && nic.contains("can have 7 virtual functions"), "{nic}");
    }

    #[test]
    fn each_fault_is_found_with_the_command_that_mends_it() {
        let cases: [(&str, &str, &str, &str); 5] = [
            ("dev/kvm", "", "KVM", "modprobe kvm_intel"),
            ("sys/module/kvm_intel", "", "KVM", "modprobe kvm_intel"),
            ("sys/kernel/iommu_groups", "", "IOMMU", "intel_iommu=on"),
            ("sys/bus/pci/drivers/vfio-pci", "", "vfio-pci", "modprobe vfio-pci"),
            (
                "records/1-1.json",
                r#"{"owner":{"pid":4194305,"start_ticks":1},"parents":[],"functions":[{"address":"0000:03:10.0",
                   "driver":null,"driver_override":null,"settings":null}]}"#,
                "borrowed",
                "slimctl host clean",
            ),
        ];
        for (file, text, topic, mend) in cases {
            let folder = server();
            let path = folder.path().join(file);
            match text {
                "" if path.is_dir() => fs::remove_dir_all(path).unwrap(),
                "" => fs::remove_file(path).unwrap(),
                text => write(folder.path(), file, text),
            }
            let all = findings(folder.path(), None);
            let bad: Vec<_> = all.iter().filter(|finding| finding.verdict == Verdict::Bad).collect();
            let [finding] = bad[..] else { panic!("{file}: {bad:#?}") };
            assert_eq!(finding.topic, topic);
            assert!(finding.mend.as_ref().unwrap().contains(mend), "{finding}");
        }
    }

    #[test]
    fn limits_and_neighbours_are_found() {
        let folder = server();
        let all = findings(folder.path(), Some(1 << 20));
        assert!(all.iter().any(|finding| finding.verdict == Verdict::Bad && finding.topic == "locked memory"));

        write(folder.path(), "sys/kernel/iommu_groups/7/devices/0000:04:00.0", "");
        write(folder.path(), "sys/bus/pci/devices/0000:04:00.0/class", "0x010000");
        symlink("../drivers/nvme", folder.path().join("sys/bus/pci/devices/0000:04:00.0/driver")).unwrap();
        write(folder.path(), "sys/kernel/mm/transparent_hugepage/shmem_enabled", "always advise [never]\n");
        let notes: Vec<String> = findings(folder.path(), None)
            .iter()
            .filter(|f| f.verdict == Verdict::Note)
            .map(Finding::to_string)
            .collect();
        assert!(notes[0].contains("with 0000:04:00.0 (nvme)"), "{notes:?}");
        assert!(notes[1].contains("echo advise | sudo tee"), "{notes:?}");
        write(folder.path(), "sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages", "512\n");
        let all = findings(folder.path(), None);
        let found = all.iter().find(|finding| finding.topic == "huge pages").unwrap();
        assert!(found.verdict == Verdict::Good && found.text.starts_with("512 of 2 MiB are reserved"), "{found}");
    }
}
