use super::*;
use crate::hypervisor::Image;
use std::path::PathBuf;

/// A server with two nodes: CPUs 0-3 and 4-7, of which 2, 3, 6 and 7 are isolated, and a NIC at the second.
struct Server(tempfile::TempDir);

impl Server {
    fn new() -> Self {
        let server = Self(tempfile::tempdir().unwrap());
        server.write("sys/devices/system/cpu/online", "0-7\n");
        server.write("sys/devices/system/cpu/isolated", "2-3,6-7\n");
        server.write("sys/devices/system/node/node0/cpulist", "0-3\n");
        server.write("sys/devices/system/node/node1/cpulist", "4-7\n");
        server.write("sys/bus/pci/devices/0000:03:10.0/numa_node", "1\n");
        server.write("proc/self/status", "Cpus_allowed_list:\t0-1,4-5\n");
        server
    }

    fn write(&self, file: &str, text: &str) {
        let file = self.root().join(file);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, text).unwrap();
    }

    fn root(&self) -> PathBuf {
        self.0.path().to_owned()
    }

    /// A thread of a program, or of the kernel, that may run on `cpus`.
    fn thread(&self, process: u32, thread: u32, arguments: &str, cpus: &str) {
        self.write(&format!("proc/{process}/cmdline"), arguments);
        self.write(&format!("proc/{process}/comm"), "qemu-system-x86\n");
        let status = format!("Name:\tx\nCpus_allowed:\tff\nCpus_allowed_list:\t{cpus}\n");
        self.write(&format!("proc/{process}/task/{thread}/status"), &status);
    }

    fn choose(&self, launch: &Launch) -> Result<Placement, PlacementError> {
        Placement::choose(&self.root(), launch, |_| true)
    }
}

fn launch(vcpus: u8, passed: bool) -> Launch {
    let image = Image { kernel: "kernel".into(), initramfs: "initramfs".into() };
    let mut launch = Launch::new("nat-a", image, Path::new("/run/slim"));
    launch.vcpus = vcpus;
    launch.nics.extend(passed.then(|| Nic::Passthrough { address: "0000:03:10.0".parse().unwrap() }));
    launch
}

fn from(cpus: &str, vcpus: u8) -> Launch {
    Launch { cpus: cpus.parse().unwrap(), ..launch(vcpus, false) }
}

fn each(placement: &Placement) -> Vec<String> {
    placement.vcpus.iter().map(CpuList::to_string).collect()
}

#[test]
fn a_guest_with_a_nic_gets_isolated_cpus_and_memory_of_the_nic_s_node() {
    let server = Server::new();
    let placement = server.choose(&launch(2, true)).unwrap();
    assert_eq!((each(&placement), placement.node), (vec!["6".into(), "7".into()], Some(1)));
    assert_eq!(placement.to_string(), "virtual CPUs on 6, 7; memory on NUMA node 1");
    let without = server.choose(&launch(2, false)).unwrap();
    assert_eq!(without, Placement::default(), "nothing says where it would be better off");
    let off = Launch { cpus: CpuChoice::Off, ..launch(2, true) };
    assert_eq!(server.choose(&off).unwrap(), Placement::default());
}

#[test]
fn where_isolated_cpus_do_not_suffice_the_rest_of_the_node_is_shared() {
    let server = Server::new();
    let placement = server.choose(&launch(3, true)).unwrap();
    assert_eq!((each(&placement), placement.node), (vec!["4-5".to_owned(); 3], Some(1)));
    assert_eq!(placement.to_string(), "virtual CPUs on 4-5; memory on NUMA node 1");
    // What another guest has is no longer free.
    server.thread(90, 91, "qemu", "6");
    assert_eq!(each(&server.choose(&launch(1, true)).unwrap()), ["7"]);
    assert_eq!(each(&server.choose(&launch(2, true)).unwrap()), ["4-5", "4-5"]);
}

#[test]
fn a_host_with_one_node_has_no_near_and_far() {
    let server = Server::new();
    fs::remove_dir_all(server.root().join("sys/devices/system/node")).unwrap();
    server.write("sys/bus/pci/devices/0000:03:10.0/numa_node", "-1\n");
    let placement = server.choose(&launch(2, true)).unwrap();
    assert_eq!((each(&placement), placement.node), (vec!["2".into(), "3".into()], None));
    server.write("sys/devices/system/cpu/isolated", "\n");
    assert_eq!(server.choose(&launch(2, true)).unwrap(), Placement::default());
}

#[test]
fn of_the_cpus_asked_for_those_are_taken_that_nobody_is_pinned_to() {
    let server = Server::new();
    server.thread(90, 91, "qemu", "1");
    // These take nothing: the kernel's own, one that may run elsewhere too.
    server.thread(2, 2, "", "2");
    server.thread(95, 95, "nginx", "2-3");
    let placement = server.choose(&from("1-3", 2)).unwrap();
    assert_eq!((each(&placement), placement.node), (vec!["2".into(), "3".into()], Some(0)));
    let error = server.choose(&from("1-3", 3)).unwrap_err().to_string();
    assert!(error.contains("of 1-3 there are 2 free ones: CPU 1 is that of qemu-system-x86 (90)"), "{error}");
    let error = server.choose(&from("6-9", 1)).unwrap_err().to_string();
    assert!(error.contains("no CPU 8-9; those that are online are 0-7"), "{error}");
    let error = server.choose(&from("6", 2)).unwrap_err().to_string();
    assert!(error.ends_with("of 6 there are 1"), "{error}");
    let error = Placement::choose(&server.root(), &from("2-3", 2), |cpu| cpu != 3).unwrap_err().to_string();
    assert!(error.contains("control group"), "{error}");
}

#[test]
fn cpus_near_the_nic_come_first_and_memory_is_bound_only_if_all_are_in_one_node() {
    let server = Server::new();
    let near = Launch { cpus: "3-6".parse().unwrap(), ..launch(2, true) };
    let placement = server.choose(&near).unwrap();
    assert_eq!((each(&placement), placement.node), (vec!["4".into(), "5".into()], Some(1)));
    let both = server.choose(&from("3-4", 2)).unwrap();
    assert_eq!((each(&both), both.node), (vec!["3".into(), "4".into()], None));
}

#[test]
fn in_a_container_with_one_cpu_nobody_is_pinned() {
    let server = Server::new();
    server.write("proc/self/status", "Cpus_allowed_list:\t1\n");
    server.thread(90, 91, "sh", "1");
    assert_eq!(each(&server.choose(&from("1", 1)).unwrap()), ["1"]);
}

#[test]
fn huge_pages_are_used_where_enough_are_free() {
    let server = Server::new();
    let with = |huge_pages, memory_mb| Launch { huge_pages, memory_mb, ..launch(1, false) };
    assert!(!server.choose(&with(HugePages::Auto, 256)).unwrap().huge_pages);
    let pages = "sys/kernel/mm/hugepages/hugepages-2048kB";
    for (file, number) in [("nr_hugepages", "200"), ("free_hugepages", "150"), ("resv_hugepages", "20")] {
        server.write(&format!("{pages}/{file}"), number);
    }
    assert!(server.choose(&with(HugePages::Auto, 256)).unwrap().huge_pages);
    assert!(!server.choose(&with(HugePages::Off, 256)).unwrap().huge_pages);
    assert!(!server.choose(&with(HugePages::Auto, 262)).unwrap().huge_pages);
    let error = server.choose(&with(HugePages::On, 262)).unwrap_err().to_string();
    assert!(error.contains("131 huge pages") && error.contains("130 are free: `echo 201 | sudo tee /sys/k"), "{error}");
    assert!(!server.choose(&with(HugePages::Auto, 255)).unwrap().huge_pages);
    assert_eq!(server.choose(&with(HugePages::On, 255)), Err(PlacementError::UnevenMemory(255)));
    // Bound to a node, they have to be there.
    let bound = Launch { cpus: "4".parse().unwrap(), ..with(HugePages::On, 128) };
    let error = server.choose(&bound).unwrap_err().to_string();
    assert!(error.contains("needed on NUMA node 1, and 0 are free"), "{error}");
    server.write("sys/devices/system/node/node1/hugepages/hugepages-2048kB/free_hugepages", "64");
    assert!(server.choose(&bound).unwrap().huge_pages);
}
