//! `cargo xtask libvirt-xml`: an image as a domain of libvirt.

use crate::config_drive::{self, Layout};
use crate::image::Format;
use crate::passthrough;
use crate::setup::packages::Need;
use crate::setup::{self, Policy};
use crate::{command, image, paths, standalone, vnf};
use anyhow::{Context, Result, bail};
use slim_controller::hypervisor::borrowed::{Borrowed, NamedVirtual, NamedWhole, Place, Request};
use slim_controller::hypervisor::{Boots, ConfigDrive, Firmware, Image, Launch, Link, Nic, PciAddress, libvirt};
use slim_controller::net::MacAddress;
use slim_trust::files::replace_secret;
use std::fs;
use std::path::PathBuf;
use std::process::Command;

/// Which image, and with what.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// The network function, such as `nat`.
    vnf: String,

    /// Emulate instead of using KVM
    #[arg(long)]
    emulated: bool,

    /// Virtual CPUs
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=8))]
    vcpus: u8,

    /// Guest memory in MiB
    #[arg(long, default_value_t = 256, value_name = "MIB")]
    memory: u32,

    /// Give the guest this virtual function, by its own PCI address, as its next interface; may be repeated
    #[arg(long, value_name = "ADDRESS[=MAC]")]
    vf: Vec<NamedVirtual>,

    /// Give the guest this whole PCI function, after those of --vf; may be repeated
    #[arg(long, value_name = "ADDRESS=MAC")]
    pci: Vec<NamedWhole>,

    /// Have UEFI firmware boot it in this form, instead of entering its kernel directly
    #[arg(long, value_enum, default_value_t)]
    format: Format,

    /// Hand over configuration and identity on a config drive, instead of through fw_cfg
    #[arg(long, value_enum, value_name = "LAYOUT")]
    config_drive: Option<Layout>,

    /// Boot the image in this folder, as `cargo xtask image` has left it, instead of building one
    #[arg(long, value_name = "FOLDER")]
    image: Option<PathBuf>,

    /// Where the instance's configuration, identity and console go
    /// [default: target/libvirt/VNF]
    #[arg(long, value_name = "FOLDER")]
    files: Option<PathBuf>,
}

/// Writes the instance's files and prints the domain.
pub fn run(arguments: &Arguments, policy: Policy) -> Result<()> {
    let vnf = vnf::find(&arguments.vnf)?;
    let passed = passthrough::requests(vnf, &arguments.vf, &arguments.pci)?
        .into_iter()
        .map(|request| match request {
            Request::Virtual { vlan: Some(vlan), .. } => {
                bail!("libvirt sets VLANs itself: leave @{vlan} out and write it into the domain")
            }
            Request::Virtual { function, mac, .. } => match (&function.place, function.index) {
                (Place::Address(address), None) => Ok((Borrowed { address: *address, mac }, true)),
                _ => bail!("libvirt takes a virtual function by its own PCI address, not as {function}"),
            },
            Request::Whole { address, mac: Some(mac) } => Ok((Borrowed { address, mac }, false)),
            Request::Whole { address, mac: None } => bail!("append the MAC address: --pci {address}=MAC"),
        })
        .collect::<Result<Vec<_>>>()?;
    let image = match &arguments.image {
        Some(folder) => std::path::absolute(folder)?,
        None => {
            setup::ensure(arguments.format.needs(), policy)?;
            image::ensure_format(vnf, arguments.format)?.0
        }
    };
    let files = match &arguments.files {
        Some(folder) => std::path::absolute(folder)?,
        None => paths::target().join("libvirt").join(vnf.name),
    };
    fs::create_dir_all(&files).with_context(|| format!("cannot create {}", files.display()))?;

    let functions: Vec<Borrowed> = passed.iter().map(|(function, _)| *function).collect();
    let mut launch = standalone::launch(vnf, &image, &files, &functions, None)?;
    launch.vcpus = arguments.vcpus;
    launch.memory_mb = arguments.memory;
    launch.firmware = arguments.format.boots(&image).map(Firmware::unknown);
    if let Some(layout) = arguments.config_drive {
        setup::ensure(&[Need::Firmware], policy)?;
        launch.config_drive = Some(config_drive::write(layout, &config_drive::user_data(&launch), &files)?);
    }
    let config = files.join("config.toml");
    fs::write(&config, &launch.config_toml).with_context(|| format!("cannot write {}", config.display()))?;
    let identity = files.join("identity.pem");
    if let Some(secret) = &launch.identity {
        replace_secret(&identity, secret.reveal())?;
    }
    // libvirt sets the addresses of virtual functions only.
    let macs: Vec<_> = passed
        .iter()
        .filter(|(_, is_virtual)| *is_virtual)
        .map(|(function, _)| (function.address, function.mac))
        .collect();
    let identity = launch.identity.is_some().then_some(identity.as_path());
    print!("{}", libvirt::domain(&launch, !arguments.emulated, &config, identity, &macs));
    Ok(())
}

/// Lets libvirt's own schema judge domains with every kind of interface.
pub fn check() -> Result<()> {
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
