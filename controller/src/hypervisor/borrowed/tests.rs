//! Borrowing from made-up hosts: a folder with the files of sysfs, and a kernel that reacts to what is written to them.

use super::*;
use crate::hypervisor::borrowed::record::Records;
use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::Mutex;

const PF: &str = "0000:03:00.0";
const VFS: [&str; 3] = ["0000:03:10.0", "0000:03:10.2", "0000:03:10.4"];
const DISK: &str = "0000:04:00.0";

/// Settings of virtual functions, by interface and number: `ip`'s side of the kernel.
type Settings = std::collections::BTreeMap<u32, (String, bool, u16)>;

/// Reacts as Linux does.
#[derive(Debug)]
struct Fake {
    root: PathBuf,
    settings: Mutex<Settings>,
    /// What was written or set, in order.
    log: Mutex<Vec<String>>,
    /// A part of a line of the log at which to fail.
    fails_at: Mutex<Option<&'static str>>,
    /// The group that virtual functions share, instead of having one each.
    shared_group: Option<u32>,
}

impl Fake {
    fn device(&self, address: &str) -> PathBuf {
        self.root.join("sys/bus/pci/devices").join(address)
    }

    fn add(&self, address: &str, class: &str, group: u32) {
        let device = self.device(address);
        fs::create_dir_all(&device).unwrap();
        for (file, text) in [("class", class), ("reset", ""), ("driver_override", "(null)\n")] {
            fs::write(device.join(file), text).unwrap();
        }
        symlink(format!("../../../kernel/iommu_groups/{group}"), device.join("iommu_group")).unwrap();
        let members = self.root.join(format!("sys/kernel/iommu_groups/{group}/devices"));
        fs::create_dir_all(&members).unwrap();
        fs::write(members.join(address), "").unwrap();
        fs::write(self.root.join(format!("dev/vfio/{group}")), "").unwrap();
    }

    fn bind(&self, address: &str, driver: &str) {
        let folder = self.root.join("sys/bus/pci/drivers").join(driver);
        fs::create_dir_all(&folder).unwrap();
        symlink(&folder, self.device(address).join("driver")).unwrap();
    }

    fn interface(&self, address: &str, name: &str, flags: &str) {
        let net = self.device(address).join("net").join(name);
        fs::create_dir_all(&net).unwrap();
        fs::write(net.join("flags"), flags).unwrap();
        fs::write(net.join("address"), "02:00:00:00:00:77\n").unwrap();
        let class = self.root.join("sys/class/net").join(name);
        fs::create_dir_all(&class).unwrap();
        let _ = symlink(self.device(address), class.join("device"));
    }

    fn set_count(&self, count: usize) -> io::Result<()> {
        let present = self.text(PF, "sriov_numvfs");
        if present != "0" && count != 0 {
            return Err(io::ErrorKind::ResourceBusy.into());
        }
        for (index, vf) in VFS.iter().enumerate() {
            let link = self.device(PF).join(format!("virtfn{index}"));
            if index < count {
                self.add(vf, "0x020000", self.shared_group.unwrap_or(20 + index as u32));
                symlink(self.device(vf), link).unwrap();
                symlink(self.device(PF), self.device(vf).join("physfn")).unwrap();
                self.settings.lock().unwrap().insert(index as u32, ("00:00:00:00:00:00".into(), true, 0));
                if self.text(PF, "sriov_drivers_autoprobe") == "1" {
                    self.bind(vf, "igbvf");
                }
            } else if link.is_symlink() {
                fs::remove_file(link).unwrap();
                fs::remove_dir_all(self.device(vf)).unwrap();
                self.settings.lock().unwrap().remove(&(index as u32));
            }
        }
        fs::write(self.device(PF).join("sriov_numvfs"), count.to_string())
    }

    fn text(&self, address: &str, file: &str) -> String {
        fs::read_to_string(self.device(address).join(file)).unwrap_or_default().trim().to_owned()
    }

    fn note(&self, line: String) -> io::Result<()> {
        let fails = self.fails_at.lock().unwrap().is_some_and(|part| line.contains(part));
        self.log.lock().unwrap().push(line);
        if fails { Err(io::ErrorKind::PermissionDenied.into()) } else { Ok(()) }
    }

    /// Everything that borrowing may change.
    fn state(&self) -> String {
        let mut lines = Vec::new();
        for address in [PF, VFS[0], VFS[1], VFS[2], DISK] {
            if !self.device(address).exists() {
                continue;
            }
            let driver = fs::read_link(self.device(address).join("driver")).ok();
            let driver = driver.and_then(|link| Some(link.file_name()?.to_string_lossy().into_owned()));
            lines.push(format!("{address} {driver:?} {}", self.text(address, "driver_override")));
        }
        for file in ["sriov_numvfs", "sriov_drivers_autoprobe", "net/enp3s0/flags"] {
            lines.push(format!("{file} {}", self.text(PF, file)));
        }
        lines.push(format!("{:?}", self.settings.lock().unwrap()));
        lines.join("\n")
    }
}

impl Kernel for Fake {
    fn write(&self, file: &Path, text: &str) -> io::Result<()> {
        self.note(format!("{} {}", file.strip_prefix(&self.root).unwrap().display(), text.trim()))?;
        let name = file.file_name().unwrap().to_str().unwrap();
        let folder = file.parent().unwrap();
        match name {
            "sriov_numvfs" => return self.set_count(text.parse().unwrap()),
            "drivers_probe" => {
                let prescribed = self.text(text, "driver_override");
                assert_ne!(prescribed, "(null)", "the host's own driver would take it");
                if !self.device(text).join("driver").exists() {
                    self.bind(text, &prescribed);
                }
            }
            "unbind" => fs::remove_file(self.device(text).join("driver"))?,
            "bind" => self.bind(text, folder.file_name().unwrap().to_str().unwrap()),
            "driver_override" => fs::write(file, if text == "\n" { "(null)" } else { text })?,
            "sriov_drivers_autoprobe" => fs::write(file, text)?,
            _ => panic!("nobody writes {}", file.display()),
        }
        Ok(())
    }

    fn ip(&self, arguments: &[&str]) -> io::Result<String> {
        self.note(format!("ip {}", arguments.join(" ")))?;
        let mut settings = self.settings.lock().unwrap();
        match arguments {
            ["-json", "link", "show", "dev", "enp3s0"] => {
                let list: Vec<_> = settings
                    .iter()
                    .map(|(vf, (mac, spoof, vlan))| {
                        let vlans: Vec<_> =
                            (*vlan > 0).then(|| serde_json::json!({ "vlan": vlan })).into_iter().collect();
                        serde_json::json!({"vf": vf, "address": mac, "spoofchk": spoof, "vlan_list": vlans})
                    })
                    .collect();
                return Ok(serde_json::json!([{ "vfinfo_list": list }]).to_string());
            }
            ["link", "set", "dev", "enp3s0", state @ ("up" | "down")] => {
                let flags = if *state == "up" { "0x1003" } else { "0x1002" };
                fs::write(self.device(PF).join("net/enp3s0/flags"), flags)?;
            }
            ["link", "set", "dev", "enp3s0", "vf", index, name, value] => {
                let entry = settings.get_mut(&index.parse().unwrap()).ok_or(io::ErrorKind::InvalidInput)?;
                match *name {
                    "mac" => entry.0 = (*value).to_owned(),
                    "spoofchk" => entry.1 = *value == "on",
                    "vlan" => entry.2 = value.parse().unwrap(),
                    "trust" => return Err(io::ErrorKind::Unsupported.into()),
                    other => panic!("{other}"),
                }
            }
            other => panic!("{other:?}"),
        }
        Ok(String::new())
    }
}

struct World {
    fake: Arc<Fake>,
    lender: Lender,
    folder: tempfile::TempDir,
}

impl World {
    /// A host with an SR-IOV NIC without virtual functions, its interface down, and a disk.
    fn new() -> Self {
        Self::with_shared_group(None)
    }

    fn with_shared_group(shared_group: Option<u32>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().to_owned();
        for name in ["dev/vfio", "sys/kernel/iommu_groups", "sys/class/net", "sys/bus/pci/drivers/vfio-pci"] {
            fs::create_dir_all(root.join(name)).unwrap();
        }
        fs::write(root.join("dev/vfio/vfio"), "").unwrap();
        let fake = Arc::new(Fake {
            root: root.clone(),
            settings: Mutex::default(),
            log: Mutex::default(),
            fails_at: Mutex::default(),
            shared_group,
        });
        fake.add(PF, "0x020000", 7);
        fake.bind(PF, "igb");
        fake.interface(PF, "enp3s0", "0x1002");
        for (file, text) in [("sriov_totalvfs", "3"), ("sriov_numvfs", "0"), ("sriov_drivers_autoprobe", "1")] {
            fs::write(fake.device(PF).join(file), text).unwrap();
        }
        fake.add(DISK, "0x010000", 9);
        fake.bind(DISK, "nvme");
        let host = Host { root, lockable_bytes: None };
        let lender = Lender::new(host, fake.clone(), folder.path().join("records"));
        Self { fake, lender, folder }
    }

    fn borrow(&self, functions: &[&str]) -> Result<Loan, BorrowError> {
        let requests: Vec<Request> = functions.iter().map(|text| request(text)).collect();
        self.lender.borrow(&requests, 256)
    }

    /// What is said about a request that is refused, and that the host is then as before.
    fn refused(&self, functions: &[&str]) -> String {
        let before = self.fake.state();
        let error = self.borrow(functions).unwrap_err().to_string();
        assert_eq!(self.fake.state(), before, "{error}");
        error
    }

    /// Makes the present records look as if their processes had ended.
    fn crash(&self, loan: Loan) {
        std::mem::forget(loan);
        let records = Records::new(self.folder.path().join("records"));
        for (file, mut record) in records.read_all().unwrap() {
            record.owner.start_ticks += 1;
            records.write_to(&file, &record).unwrap();
        }
    }

    fn driver(&self, address: &str) -> Option<String> {
        self.lender.host.driver(address.parse().unwrap())
    }
}

const MAC: &str = "02:51:1a:00:00:01";

fn request(text: &str) -> Request {
    match text.strip_prefix("whole ") {
        Some(address) => Request::Whole { address: address.parse().unwrap(), mac: None },
        None => Request::Virtual {
            function: text.parse().unwrap(),
            mac: MAC.parse().unwrap(),
            any_source: false,
            vlan: None,
        },
    }
}

fn addresses(loan: &Loan) -> Vec<String> {
    loan.functions().iter().map(|function| function.address.to_string()).collect()
}

#[test]
fn functions_are_made_and_everything_is_given_back() {
    let world = World::new();
    let before = world.fake.state();
    let loan = world.borrow(&["enp3s0", "enp3s0"]).unwrap();
    assert_eq!(addresses(&loan), VFS[..2]);
    assert_eq!(world.driver(VFS[0]).as_deref(), Some(VFIO));
    assert_eq!(world.driver(VFS[1]).as_deref(), Some(VFIO));
    assert_eq!(world.fake.text(PF, "sriov_drivers_autoprobe"), "1", "only off while they are made");
    assert_eq!(
        world.fake.settings.lock().unwrap()[&1],
        (MAC.to_owned(), true, 0),
        "its own address needs no exception"
    );
    assert_eq!(world.fake.text(PF, "net/enp3s0/flags"), "0x1003", "its link is up");
    loan.give_back().unwrap();
    assert_eq!(world.fake.state(), before);
    assert!(world.lender.records.read_all().unwrap().is_empty());
}

#[test]
fn a_dropped_loan_is_given_back_too() {
    let world = World::new();
    let before = world.fake.state();
    drop(world.borrow(&["enp3s0:2"]).unwrap());
    assert_eq!(world.fake.state(), before);
}

#[test]
fn numbers_are_kept_and_the_order_is_that_of_the_requests() {
    let world = World::new();
    let loan = world.borrow(&["enp3s0", "0000:03:00.0:0", "enp3s0:2"]).unwrap();
    assert_eq!(addresses(&loan), [VFS[1], VFS[0], VFS[2]]);
}

#[test]
fn functions_that_are_there_get_their_driver_and_settings_back() {
    let world = World::new();
    world.fake.set_count(3).unwrap();
    world.fake.settings.lock().unwrap().insert(1, ("02:00:00:00:00:09".into(), true, 7));
    let before = world.fake.state();
    let function = VFS[1].parse().unwrap();
    let request =
        Request::Virtual { function, mac: MAC.parse().unwrap(), any_source: true, vlan: Some("101".parse().unwrap()) };
    let loan = world.lender.borrow(&[request], 256).unwrap();
    assert_eq!(addresses(&loan), [VFS[1]]);
    assert_eq!(world.driver(VFS[1]).as_deref(), Some(VFIO));
    assert_eq!(world.driver(VFS[0]).as_deref(), Some("igbvf"), "no business of ours");
    assert_eq!(world.fake.settings.lock().unwrap()[&1], (MAC.to_owned(), false, 101), "other sources are let through");
    loan.give_back().unwrap();
    assert_eq!(world.fake.state(), before);
}

#[test]
fn a_whole_function_returns_to_its_driver() {
    let world = World::new();
    let before = world.fake.state();
    let loan = world.borrow(&["whole 0000:03:00.0"]).unwrap();
    assert_eq!(loan.functions()[0].mac.to_string(), "02:00:00:00:00:77", "as the host's driver read it");
    assert_eq!(world.driver(PF).as_deref(), Some(VFIO));
    loan.give_back().unwrap();
    assert_eq!(world.fake.state(), before);
}

#[test]
fn what_a_crash_leaves_is_given_back_later() {
    let world = World::new();
    let before = world.fake.state();
    world.crash(world.borrow(&["enp3s0", "enp3s0"]).unwrap());
    assert_ne!(world.fake.state(), before);
    assert_eq!(world.lender.left_behind().unwrap().len(), 3, "two functions and their physical one");
    let told = world.lender.clean().unwrap();
    assert!(told.given_back[0].contains("0000:03:10.0, 0000:03:10.2"), "{told:?}");
    assert_eq!(world.fake.state(), before);
    assert_eq!(world.lender.clean().unwrap(), Cleaned::default());

    world.crash(world.borrow(&["enp3s0"]).unwrap());
    let loan = world.borrow(&["enp3s0"]).unwrap();
    assert_eq!(addresses(&loan), [VFS[0]], "the next launch cleans up first");
    loan.give_back().unwrap();
    assert_eq!(world.fake.state(), before);
}

#[test]
fn what_a_guest_has_that_goes_on_is_given_back_after_it() {
    let world = World::new();
    world.fake.set_count(3).unwrap();
    let before = world.fake.state();
    // One process may have several guests.
    let first = world.borrow(&["enp3s0:0"]).unwrap();
    let second = world.borrow(&["enp3s0"]).unwrap();
    assert_eq!(addresses(&second), [VFS[1]]);
    let mut guest = std::process::Command::new("sleep").arg("600").spawn().unwrap();
    let process = ProcessId::of(guest.id()).unwrap();
    first.hand_over(process).unwrap();
    first.leave();
    second.give_back().unwrap();
    let cleaned = world.lender.clean().unwrap();
    assert!(cleaned.given_back.is_empty(), "its guest lives");
    let taken_up = world.lender.take_up(process).unwrap().unwrap();
    taken_up.leave();

    guest.kill().unwrap();
    guest.wait().unwrap();
    assert_eq!(world.lender.left_behind().unwrap().len(), 2);
    world.lender.take_up(process).unwrap().unwrap().give_back().unwrap();
    assert_eq!(world.fake.state(), before);
    assert!(world.lender.take_up(process).unwrap().is_none());
}

#[test]
fn cleaning_leaves_alone_what_a_live_process_has() {
    let world = World::new();
    let loan = world.borrow(&["enp3s0"]).unwrap();
    let before = world.fake.state();
    let cleaned = world.lender.clean().unwrap();
    assert!(cleaned.given_back.is_empty());
    let said = cleaned.to_string();
    let (us, function) = (std::process::id(), loan.functions()[0].address);
    assert_eq!(said, format!("nothing was left behind\nprocess {us} runs and has {function}\n"));
    assert_eq!(world.fake.state(), before);
    drop(loan);
}

#[test]
fn the_last_launch_on_a_nic_undoes_what_the_first_one_did() {
    let world = World::new();
    let before = world.fake.state();
    let mut first = world.borrow(&["enp3s0", "enp3s0"]).unwrap();
    // As if another process had borrowed one of the two.
    let records = &world.lender.records;
    let file = first.file.clone().unwrap();
    let mut record = records.read(&file).unwrap().unwrap();
    let other = Record { functions: vec![record.functions.pop().unwrap()], parents: Vec::new(), owner: record.owner };
    let other_file = world.folder.path().join("records/0-other.json");
    records.write_to(&file, &record).unwrap();
    records.write_to(&other_file, &other).unwrap();

    first.undo().unwrap();
    assert_eq!(world.fake.text(PF, "sriov_numvfs"), "2", "still in use");
    let mut second = Loan { lender: world.lender.clone(), file: Some(other_file), functions: Vec::new() };
    second.undo().unwrap();
    assert_eq!(world.fake.state(), before);
}

#[test]
fn whatever_fails_on_the_way_leaves_the_host_as_it_was() {
    for part in [
        "sriov_numvfs 2",
        "vf 1 mac",
        "03:10.2/driver_override vfio",
        "drivers_probe 0000:03:10.2",
        "link set dev enp3s0 up",
    ] {
        let world = World::new();
        *world.fake.fails_at.lock().unwrap() = Some(part);
        let text = world.refused(&["enp3s0", "enp3s0"]);
        assert!(world.fake.log.lock().unwrap().iter().any(|line| line.contains(part)), "{part} was never reached");
        assert!(text.contains("use sudo"), "{part}: {text}");
        assert!(world.lender.records.read_all().unwrap().is_empty(), "{part}");
    }
}

#[test]
fn a_record_stays_until_all_is_given_back() {
    let world = World::new();
    let before = world.fake.state();
    let loan = world.borrow(&["enp3s0"]).unwrap();
    *world.fake.fails_at.lock().unwrap() = Some("sriov_numvfs 0");
    assert!(loan.give_back().is_err());
    *world.fake.fails_at.lock().unwrap() = None;
    let (file, record) = world.lender.records.read_all().unwrap().remove(0);
    world.lender.undo(&file, &record).unwrap();
    assert_eq!(world.fake.state(), before);
}

#[test]
fn what_does_not_exist_is_answered_with_what_does() {
    let world = World::new();
    let text = world.refused(&["enp9s0"]);
    assert!(text.contains("no network interface enp9s0") && text.contains("0000:03:00.0 (igb)"), "{text}");
    let text = world.refused(&["0000:ff:00.0"]);
    assert!(text.contains("no PCI device 0000:ff:00.0") && text.contains("0000:03:00.0 (igb)"), "{text}");
    let text = world.refused(&["enp3s0:3"]);
    assert!(text.contains("can have 3 virtual functions, and number 3"), "{text}");
    world.fake.set_count(1).unwrap();
    let text = world.refused(&["enp3s0:2"]);
    assert!(text.contains("has 1 virtual functions") && text.contains("echo 3 | sudo tee"), "{text}");
    fs::create_dir_all(world.folder.path().join("sys/class/net/lo")).unwrap();
    assert!(world.refused(&["lo"]).contains("lo is not an interface of a PCI device"));
}

#[test]
fn a_device_without_virtual_functions_is_named_so() {
    let world = World::new();
    fs::remove_file(world.fake.device(PF).join("sriov_totalvfs")).unwrap();
    let text = world.refused(&["enp3s0"]);
    assert!(text.contains("does not offer SR-IOV") && text.contains("--pci 0000:03:00.0"), "{text}");
}

#[test]
fn without_an_iommu_nothing_is_made() {
    let world = World::new();
    fs::remove_dir_all(world.folder.path().join("sys/kernel/iommu_groups")).unwrap();
    fs::remove_file(world.fake.device(PF).join("iommu_group")).unwrap();
    let text = world.refused(&["enp3s0"]);
    assert!(text.contains("intel_iommu=on"), "{text}");
    assert!(world.fake.log.lock().unwrap().is_empty(), "nothing was even tried");
}

#[test]
fn a_physical_function_without_interface_is_of_no_use() {
    let world = World::new();
    fs::remove_dir_all(world.fake.device(PF).join("net")).unwrap();
    let text = world.refused(&[PF]);
    assert!(text.contains("MAC address of 0000:03:10.0 cannot be set"), "{text}");
}

#[test]
fn functions_in_use_are_not_taken() {
    let world = World::new();
    world.fake.set_count(2).unwrap();
    world.fake.interface(VFS[0], "enp3s0v0", "0x1003");
    let text = world.refused(&["enp3s0:0"]);
    assert!(text.contains("0000:03:10.0 is in use") && text.contains("ip link set enp3s0v0 down"), "{text}");
    let loan = world.borrow(&["enp3s0"]).unwrap();
    assert_eq!(addresses(&loan), [VFS[1]], "the other one is free");
    let text = world.refused(&["enp3s0"]);
    assert!(text.contains("all 2 virtual functions") && text.contains("has borrowed it"), "{text}");
    let text = world.refused(&[VFS[1]]);
    assert!(text.contains(&format!("process {} has borrowed it", std::process::id())), "{text}");
    loan.give_back().unwrap();
    assert!(world.refused(&["enp3s0:1", "enp3s0:1"]).contains("asked for twice"));
    assert!(world.refused(&["whole 0000:03:00.0"]).contains("it has 2 virtual functions"));
}

#[test]
fn an_interface_that_is_up_is_not_taken_away() {
    let world = World::new();
    world.fake.interface(PF, "enp3s0", "0x1003");
    let text = world.refused(&["whole 0000:03:00.0"]);
    assert!(text.contains("ip link set enp3s0 down"), "{text}");

    // A virtio function has its interface one level deeper.
    fs::create_dir(world.fake.device(PF).join("virtio0")).unwrap();
    fs::rename(world.fake.device(PF).join("net"), world.fake.device(PF).join("virtio0/net")).unwrap();
    let text = world.refused(&["whole 0000:03:00.0"]);
    assert!(text.contains("ip link set enp3s0 down"), "{text}");
}

#[test]
fn a_group_with_a_device_in_use_is_refused() {
    let world = World::with_shared_group(Some(9));
    let text = world.refused(&["enp3s0"]);
    assert!(text.contains("shares IOMMU group 9 with 0000:04:00.0 (nvme)"), "{text}");
    world.fake.set_count(2).unwrap();
    world.fake.log.lock().unwrap().clear();
    let text = world.refused(&["enp3s0:1"]);
    assert!(text.contains("shares IOMMU group 9"), "{text}");
    assert!(world.fake.log.lock().unwrap().is_empty(), "known before anything is changed");
}

#[test]
fn functions_of_one_group_can_be_borrowed_together() {
    let world = World::with_shared_group(Some(30));
    world.fake.set_count(2).unwrap();
    let before = world.fake.state();
    let text = world.refused(&["enp3s0:0"]);
    assert!(text.contains("0000:03:10.2 (igbvf)"), "{text}");
    let loan = world.borrow(&["enp3s0:0", "enp3s0:1"]).unwrap();
    loan.give_back().unwrap();
    assert_eq!(world.fake.state(), before);
}

#[test]
fn the_driver_and_the_memory_limit_are_checked_beforehand() {
    let mut world = World::new();
    fs::remove_dir(world.folder.path().join("sys/bus/pci/drivers/vfio-pci")).unwrap();
    assert!(world.refused(&["enp3s0"]).contains("sudo modprobe vfio-pci"));
    fs::create_dir(world.folder.path().join("sys/bus/pci/drivers/vfio-pci")).unwrap();
    world.lender.host.lockable_bytes = Some(64 << 20);
    assert!(world.refused(&["enp3s0"]).contains("272 MiB of guest memory must be locked"));
    assert!(world.fake.log.lock().unwrap().is_empty());
}

#[test]
fn nothing_asked_for_is_nothing_touched() {
    let world = World::new();
    assert!(world.borrow(&[]).unwrap().functions().is_empty());
    assert!(!world.folder.path().join("records").exists(), "not even a folder for records");
}
