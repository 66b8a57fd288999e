//! The checks against made-up hosts: a folder with the files of sysfs and devfs that they read.

use super::*;
use std::os::unix::fs::{PermissionsExt, symlink};

struct Fake {
    folder: tempfile::TempDir,
    host: Host,
}

const VF: &str = "0000:03:10.0";
const PF: &str = "0000:03:00.0";

impl Fake {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        for name in ["sys/bus/pci/devices", "sys/kernel/iommu_groups", "dev/vfio"] {
            fs::create_dir_all(folder.path().join(name)).unwrap();
        }
        let host = Host { root: folder.path().into(), lockable_bytes: None };
        Self { folder, host }
    }

    /// A host on which `VF` can be used as it is.
    fn good() -> Self {
        let fake = Self::new();
        fake.device(PF, "0x020000", Some("igb"), Some(7));
        fake.device(VF, "0x020000", Some("vfio-pci"), Some(15));
        symlink("../0000:03:00.0", fake.path(VF, "physfn")).unwrap();
        for file in ["dev/vfio/vfio", "dev/vfio/15"] {
            fs::write(fake.folder.path().join(file), "").unwrap();
        }
        fake
    }

    fn path(&self, address: &str, file: &str) -> PathBuf {
        self.folder.path().join("sys/bus/pci/devices").join(address).join(file)
    }

    fn device(&self, address: &str, class: &str, driver: Option<&str>, group: Option<u32>) {
        fs::create_dir_all(self.path(address, "")).unwrap();
        fs::write(self.path(address, "class"), class).unwrap();
        fs::write(self.path(address, "reset"), "").unwrap();
        if let Some(driver) = driver {
            self.bind(address, driver);
        }
        if let Some(group) = group {
            symlink(format!("../../../kernel/iommu_groups/{group}"), self.path(address, "iommu_group")).unwrap();
            let members = self.folder.path().join(format!("sys/kernel/iommu_groups/{group}/devices"));
            fs::create_dir_all(&members).unwrap();
            fs::write(members.join(address), "").unwrap();
        }
    }

    fn bind(&self, address: &str, driver: &str) {
        let link = self.path(address, "driver");
        let _ = fs::remove_file(&link);
        symlink(format!("../../../bus/pci/drivers/{driver}"), link).unwrap();
    }

    fn check(&self, address: &str, kind: FunctionKind) -> Result<Usable, PassthroughError> {
        check(&self.host, address.parse().unwrap(), kind, 256)
    }

    fn complaint(&self, address: &str, kind: FunctionKind) -> String {
        self.check(address, kind).unwrap_err().to_string()
    }
}

#[test]
fn a_prepared_function_is_accepted() {
    assert_eq!(Fake::good().check(VF, FunctionKind::Virtual).unwrap().group, 15);
    assert_eq!(Fake::good().check(VF, FunctionKind::Any).unwrap().group, 15);
}

#[test]
fn an_unknown_address_lists_what_there_is() {
    let text = Fake::good().complaint("0000:ff:00.0", FunctionKind::Any);
    assert!(text.contains("no PCI device 0000:ff:00.0"), "{text}");
    assert!(text.contains("0000:03:00.0 (igb), 0000:03:10.0 (vfio-pci)"), "{text}");
    assert!(Fake::new().complaint(VF, FunctionKind::Any).contains("no network device"));
}

#[test]
fn a_physical_function_is_no_virtual_one() {
    let fake = Fake::good();
    let text = fake.complaint(PF, FunctionKind::Virtual);
    assert!(text.contains("--pci 0000:03:00.0") && text.contains("does not offer"), "{text}");
    fs::write(fake.path(PF, "sriov_numvfs"), "0").unwrap();
    let text = fake.complaint(PF, FunctionKind::Virtual);
    assert!(text.contains("0000:03:00.0/sriov_numvfs") && !text.contains("does not offer"), "{text}");
}

#[test]
fn a_missing_iommu_is_told_from_a_missing_group() {
    let fake = Fake::new();
    fake.device(VF, "0x020000", Some("vfio-pci"), None);
    assert_eq!(fake.check(VF, FunctionKind::Any), Err(PassthroughError::NoIommu));
    assert!(fake.complaint(VF, FunctionKind::Any).contains("intel_iommu=on"));
    fake.device(PF, "0x020000", Some("igb"), Some(7));
    assert_eq!(fake.check(VF, FunctionKind::Any), Err(PassthroughError::NoGroup(VF.parse().unwrap())));
}

#[test]
fn another_driver_comes_with_the_commands_that_change_it() {
    let fake = Fake::good();
    fake.bind(VF, "igbvf");
    fs::create_dir_all(fake.path(VF, "net/enp3s16")).unwrap();
    let text = fake.complaint(VF, FunctionKind::Virtual);
    for part in [
        "bound to igbvf",
        "echo vfio-pci | sudo tee /sys/bus/pci/devices/0000:03:10.0/driver_override",
        "echo 0000:03:10.0 | sudo tee /sys/bus/pci/devices/0000:03:10.0/driver/unbind",
        "echo 0000:03:10.0 | sudo tee /sys/bus/pci/drivers_probe",
        "loses its network interface enp3s16",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    fs::remove_file(fake.path(VF, "driver")).unwrap();
    let text = fake.complaint(VF, FunctionKind::Virtual);
    assert!(text.contains("bound to no driver") && !text.contains("unbind"), "{text}");
}

#[test]
fn the_whole_group_must_be_free() {
    let fake = Fake::good();
    fake.device("0000:03:1e.0", "0x060400", Some("pcieport"), Some(15));
    fake.device("0000:03:1f.0", "0x028000", None, Some(15));
    assert!(fake.check(VF, FunctionKind::Any).is_ok(), "a bridge and a device without driver are not in the way");
    fake.device("0000:03:10.2", "0x010000", Some("nvme"), Some(15));
    let text = fake.complaint(VF, FunctionKind::Any);
    assert!(text.contains("group 15 with 0000:03:10.2 (nvme), in use"), "{text}");
    assert!(text.contains("/sys/bus/pci/devices/0000:03:10.2/driver_override"), "{text}");
}

#[test]
fn a_function_without_reset_is_refused() {
    let fake = Fake::good();
    fs::remove_file(fake.path(VF, "reset")).unwrap();
    assert_eq!(fake.check(VF, FunctionKind::Any), Err(PassthroughError::NoReset(VF.parse().unwrap())));
}

#[test]
fn device_files_must_exist_and_open() {
    let fake = Fake::good();
    let file = fake.folder.path().join("dev/vfio/15");
    if !nix::unistd::geteuid().is_root() {
        fs::set_permissions(&file, fs::Permissions::from_mode(0o000)).unwrap();
        assert_eq!(fake.check(VF, FunctionKind::Any), Err(PassthroughError::Permission(file.clone())));
    }
    fs::remove_file(&file).unwrap();
    fs::create_dir(&file).unwrap();
    assert!(matches!(fake.check(VF, FunctionKind::Any), Err(PassthroughError::Busy { .. })));
    fs::remove_dir(&file).unwrap();
    assert_eq!(fake.check(VF, FunctionKind::Any), Err(PassthroughError::NoVfio(file)));
    let text = fake.complaint(VF, FunctionKind::Any);
    assert!(text.contains("sudo modprobe vfio-pci"), "{text}");
}

#[test]
fn guest_memory_must_be_lockable() {
    let mut fake = Fake::good();
    fake.host.lockable_bytes = Some(64 << 20);
    assert_eq!(fake.check(VF, FunctionKind::Any), Err(PassthroughError::LockedMemory { need_mb: 272, have_mb: 64 }));
    fake.host.lockable_bytes = Some(272 << 20);
    assert!(fake.check(VF, FunctionKind::Any).is_ok());
}
