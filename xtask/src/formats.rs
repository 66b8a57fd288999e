//! Boots an image in every form in which it can be deployed, configured in every way, and wrongly, too.

use crate::config_drive::{self, Layout};
use crate::image::{self, Format};
use crate::{paths, standalone, vnf};
use anyhow::{Context, Result, bail, ensure};
use slim_controller::hypervisor::qemu::Qemu;
use slim_controller::hypervisor::{Accel, ConfigDrive, Firmware, Launch, Machine};
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

/// Firmware takes its time in emulation, and the machine may be busy.
const PATIENCE: Duration = Duration::from_secs(120);

/// Has `launch` start the image in `folder` in the form `format`.
pub fn apply(format: Format, folder: &Path, launch: &mut Launch) -> Result<()> {
    let Some(boots) = format.boots(folder) else { return Ok(()) };
    launch.firmware = Some(Firmware::find(boots).context("there is no UEFI firmware for QEMU: install ovmf")?);
    Ok(())
}

/// One boot, and what must come of it.
struct Case {
    name: &'static str,
    format: Format,
    drive: Option<Layout>,
    /// What stands on the drive in place of the right thing, and the words of the console.
    wrong: Option<(&'static str, &'static str)>,
}

const CASES: [Case; 7] = [
    Case { name: "uki-fw-cfg", format: Format::Uki, drive: None, wrong: None },
    Case { name: "qcow2-cidata", format: Format::Qcow2, drive: Some(Layout::Cidata), wrong: None },
    Case { name: "qcow2-config-2", format: Format::Qcow2, drive: Some(Layout::Config2), wrong: None },
    Case { name: "kernel-cidata", format: Format::KernelInitrd, drive: Some(Layout::Cidata), wrong: None },
    Case {
        name: "cloud-config",
        format: Format::KernelInitrd,
        drive: Some(Layout::Config2),
        wrong: Some((
            "#cloud-config\nusers: []\n",
            "config drive vda (config-2), openstack/latest/user_data: this is cloud-init's",
        )),
    },
    Case {
        name: "broken-toml",
        format: Format::KernelInitrd,
        drive: Some(Layout::Cidata),
        wrong: Some(("name = \"nat-a\"\nnonsense\n", "config drive sr0 (cidata), user-data: ")),
    },
    Case {
        name: "no-identity",
        format: Format::KernelInitrd,
        drive: Some(Layout::Cidata),
        wrong: Some(("CONFIGURATION", "no identity: ")),
    },
];

/// Boots all cases and tells each by `say`.
pub fn check(mut say: impl FnMut(&str)) -> Result<()> {
    let vnf = vnf::find("nat")?;
    let (folder, _) = image::ensure_format(vnf, Format::Qcow2)?;
    let logs = paths::target().join("formats-logs");
    fs::create_dir_all(&logs)?;
    let qemu = Qemu::find()?;
    for case in &CASES {
        let run_dir = tempfile::Builder::new().prefix("slim-formats-").tempdir()?;
        let mut launch = standalone::launch(vnf, &folder, run_dir.path(), &[], None)?;
        launch.accel = Accel::Tcg;
        launch.console_log = logs.join(format!("{}.log", case.name));
        apply(case.format, &folder, &mut launch)?;
        let text = match case.wrong {
            None => config_drive::user_data(&launch),
            Some(("CONFIGURATION", _)) => launch.config_toml.clone(),
            Some((text, _)) => text.to_owned(),
        };
        launch.config_drive =
            case.drive.map(|layout| config_drive::write(layout, &text, run_dir.path())).transpose()?;
        let started = Instant::now();
        boot(&qemu, &launch, case.wrong.map(|(_, words)| words))
            .with_context(|| format!("{}, console in {}", case.name, launch.console_log.display()))?;
        say(&format!("{}: as it should be, after {:.1} s", case.name, started.elapsed().as_secs_f64()));
    }
    no_configuration(&qemu, &folder, &logs)?;
    say("without a configuration: says so");
    Ok(())
}

/// A drive with another label is no config drive; the console must say what there is.
fn no_configuration(qemu: &Qemu, folder: &Path, logs: &Path) -> Result<()> {
    let run_dir = tempfile::Builder::new().prefix("slim-formats-").tempdir()?;
    let mut launch = standalone::launch(vnf::find("nat")?, folder, run_dir.path(), &[], None)?;
    launch.accel = Accel::Tcg;
    launch.console_log = logs.join("no-configuration.log");
    let drive = run_dir.path().join("blank.img");
    fs::File::create(&drive)?.set_len(1 << 20)?;
    launch.config_drive = Some(ConfigDrive::Disk(drive));
    boot(qemu, &launch, Some("no configuration: start QEMU with -fw_cfg"))?;
    let console = fs::read_to_string(&launch.console_log)?;
    ensure!(console.contains("there is vda, without a label"), "the console does not name the drive:\n{console}");
    Ok(())
}

/// Boots `launch` until it is ready, or until it has ended and its console says `words`.
fn boot(qemu: &Qemu, launch: &Launch, words: Option<&str>) -> Result<()> {
    let mut machine = qemu.start(launch)?;
    let deadline = Instant::now() + PATIENCE;
    loop {
        // The process first: what it wrote before its end is then read completely.
        let alive = machine.is_alive();
        match words {
            None => {
                if machine.poll_ready()?.is_some() {
                    return Ok(());
                }
            }
            Some(words) => {
                let console = String::from_utf8_lossy(&fs::read(&launch.console_log)?).into_owned();
                if console.contains("slim: failed: ") && console.contains(words) {
                    return Ok(());
                }
                ensure!(!console.contains("slim: ready"), "it is ready although its configuration is wrong");
                ensure!(alive, "it has ended without saying \"{words}\":{}", machine.console_tail());
            }
        }
        if Instant::now() > deadline {
            bail!("nothing came of it in {} s:{}", PATIENCE.as_secs(), machine.console_tail());
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}
