//! What libvirt makes of our domains: its schema judges them, and it starts some.
//!
//! It is libvirt itself, with its driver for QEMU in a process of its own (`virt-qemu-run`, `qemu:///embed`) instead of
//! in a daemon that would serve the whole machine.

use crate::config_drive::Layout;
use crate::image::{self, Format};
use crate::setup::Policy;
use crate::task_libvirt::{Arguments, domain};
use crate::{command, paths, vnf};
use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, Uid, User, chown};
use slim_controller::hypervisor::{Boots, ConfigDrive, Firmware, Image, Launch, Link, Nic, PciAddress, libvirt};
use slim_controller::net::MacAddress;
use slim_controller::process::{Running, find_program, spawn};
use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Firmware takes its time in emulation, and the machine may be busy.
const PATIENCE: Duration = Duration::from_secs(120);

/// How long libvirt may take to end its guest.
const END: Duration = Duration::from_secs(20);

/// Who libvirt runs as where we are root: as root it wants users of its own, which only its daemon's package makes.
const NOBODY: &str = "nobody";

/// libvirt's settings: neither AppArmor nor a daemon for logs.
const SETTINGS: &str = "security_driver = \"none\"\nstdio_handler = \"file\"\n";

/// The guest's console, among its files.
const CONSOLE: &str = "nat-alone.console.log";

/// The forms it boots, and where the configuration is.
const BOOTS: [(&str, Format, Option<Layout>); 3] = [
    ("libvirt-kernel-fw-cfg", Format::KernelInitrd, None),
    ("libvirt-uki-cidata", Format::Uki, Some(Layout::Cidata)),
    ("libvirt-qcow2-config-2", Format::Qcow2, Some(Layout::Config2)),
];

/// Checks all of it and tells each by `say`.
pub fn check(policy: Policy, mut say: impl FnMut(&str)) -> Result<()> {
    schema().context("libvirt's schema")?;
    say("libvirt's schema: all domains are valid");
    let (folder, _) = image::ensure_format(vnf::find("nat")?, Format::Qcow2)?;
    let logs = paths::target().join("formats-logs");
    fs::create_dir_all(&logs)?;
    for (name, format, drive) in BOOTS {
        let started = Instant::now();
        let log = logs.join(format!("{name}.log"));
        boot(&folder, format, drive, policy, &log).with_context(|| format!("{name}, see {}", log.display()))?;
        say(&format!("{name}: ready and ended, after {:.1} s", started.elapsed().as_secs_f64()));
    }
    Ok(())
}

/// Has libvirt boot the image in `folder` until it is ready, and end it.
fn boot(folder: &Path, format: Format, drive: Option<Layout>, policy: Policy, log: &Path) -> Result<()> {
    let place = tempfile::Builder::new().prefix("slim-libvirt-").tempdir()?;
    let place = place.path();
    // A copy: wherever the checkout is, others need not be allowed to read it.
    let (image, files, root) = (place.join("image"), place.join("files"), place.join("root"));
    for folder in [&image, &files, &root.join("etc")] {
        fs::create_dir_all(folder)?;
    }
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        fs::copy(entry.path(), image.join(entry.file_name()))?;
    }
    fs::write(root.join("etc/qemu.conf"), SETTINGS)?;
    let description = place.join("domain.xml");
    fs::write(&description, domain(&Arguments::emulated("nat", &image, format, drive, &files), policy)?)?;

    let program = find_program("virt-qemu-run", "libvirt-daemon-driver-qemu")?;
    // Interrupted when we end, however that is, it ends its guest. Ctrl-C reaches only us.
    let mut command = Command::new(find_program("setpriv", "util-linux")?);
    command.args(["--pdeathsig", "INT"]).process_group(0);
    if Uid::effective().is_root() {
        let user = User::from_name(NOBODY)?.with_context(|| format!("there is no user {NOBODY}"))?;
        give(place, &user)?;
        command.args(["--reuid", NOBODY, "--regid", &user.gid.to_string(), "--clear-groups"]);
    }
    command.arg("--").arg(program);
    for (variable, folder) in [("HOME", "home"), ("XDG_CACHE_HOME", "cache"), ("XDG_RUNTIME_DIR", "run")] {
        command.env(variable, root.join(folder));
    }
    command.arg("--root").arg(&root).arg(&description).current_dir(place);
    let output = File::create(log)?;
    command.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output);
    let mut libvirt = Running::Child(spawn(command).context("cannot start virt-qemu-run")?);
    let ready = wait_until_ready(&files, &mut libvirt);
    // It ends its guest, and then itself.
    libvirt.terminate();
    let ended = libvirt.wait(END);
    if !ended {
        libvirt.kill();
        // What it has left behind is not its child.
        if let Ok(Ok(guest)) = fs::read_to_string(root.join("run/qemu/nat-alone.pid")).map(|pid| pid.trim().parse()) {
            let _ = kill(Pid::from_raw(guest), Signal::SIGKILL);
        }
    }
    // For who wants to know why.
    let parts = [read(log), read(&files.join(CONSOLE)), read(&root.join("log/qemu/nat-alone.log"))];
    fs::write(log, parts.join("\n---\n"))?;
    ready?;
    ensure!(ended, "libvirt did not end its guest");
    Ok(())
}

/// Waits for the line that says that the network function is ready.
fn wait_until_ready(files: &Path, libvirt: &mut Running) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    while !read(&files.join(CONSOLE)).contains("slim: ready ") {
        if let Some(status) = libvirt.ended() {
            bail!("libvirt ended ({status}) before its guest was ready");
        }
        ensure!(Instant::now() < deadline, "libvirt's guest was not ready after {} s", PATIENCE.as_secs());
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}

/// What stands in `file`, as far as it is there and text.
fn read(file: &Path) -> String {
    String::from_utf8_lossy(&fs::read(file).unwrap_or_default()).into_owned()
}

/// Makes all below `place` somebody else's, and nobody else's.
fn give(place: &Path, to: &User) -> Result<()> {
    chown(place, Some(to.uid), Some(to.gid))?;
    if place.is_dir() {
        fs::set_permissions(place, fs::Permissions::from_mode(0o700))?;
        for entry in fs::read_dir(place)? {
            give(&entry?.path(), to)?;
        }
    }
    Ok(())
}

/// Lets libvirt's own schema judge domains with every kind of interface.
fn schema() -> Result<()> {
    let folder = tempfile::tempdir()?;
    for file in ["kernel", "initramfs"] {
        fs::write(folder.path().join(file), "")?;
    }
    let address = |text: &str| text.parse::<PciAddress>();
    let mac = |last| MacAddress([0x52, 0x54, 0, 0, 0, last]);
    let mut launch = Launch::new("nat-a", Image::in_folder(folder.path())?, folder.path());
    let (function, whole) = (address("0000:03:10.2")?, address("0000:04:00.0")?);
    launch.nics = vec![
        Nic::Passthrough { address: function },
        Nic::Passthrough { address: whole },
        Nic::Dataplane { link: Link::VhostUser { socket: "/run/slim/nat-a.in.sock".into() }, mac: mac(1) },
        Nic::Dataplane { link: Link::Tap { interface: "tap0".into() }, mac: mac(2) },
        Nic::Dataplane { link: Link::Unconnected, mac: mac(3) },
        Nic::Management { link: Link::User { forward: Vec::new() }, mac: mac(4) },
    ];
    let (config, identity) = (folder.path().join("it's <it>.toml"), folder.path().join("identity.pem"));
    let judge = |launch: &Launch, kvm, identity| {
        let file = folder.path().join("domain.xml");
        fs::write(&file, libvirt::domain(launch, kvm, &config, identity, &[(function, mac(5))]))?;
        command::output(Command::new("virt-xml-validate").arg(&file).arg("domain")).map(drop)
    };
    judge(&launch, true, Some(identity.as_path()))?;
    judge(&launch, false, None)?;
    launch.firmware = Some(Firmware::unknown(Boots::Uki("/images/nat/uki.efi".into())));
    launch.config_drive = Some(ConfigDrive::Disk("/run/slim/config-2.img".into()));
    judge(&launch, true, None)?;
    launch.firmware = Some(Firmware::unknown(Boots::Qcow2("/images/nat/disk.qcow2".into())));
    launch.config_drive = Some(ConfigDrive::Cd("/run/slim/cidata.iso".into()));
    judge(&launch, true, None)
}
