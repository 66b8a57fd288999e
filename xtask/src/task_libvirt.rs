//! `cargo xtask libvirt-xml`: an image as a domain of libvirt.

use crate::config_drive::{self, Layout};
use crate::image::Format;
use crate::passthrough;
use crate::setup::packages::Need;
use crate::setup::{self, Policy};
use crate::{image, paths, standalone, vnf};
use anyhow::{Context, Result, bail};
use slim_controller::hypervisor::borrowed::{Borrowed, NamedVirtual, NamedWhole, Place, Request};
use slim_controller::hypervisor::{Firmware, libvirt};
use slim_trust::files::replace_secret;
use std::fs;
use std::path::{Path, PathBuf};

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

impl Arguments {
    /// What boots the image in `folder` emulated, in the form `format`, with its files in `files`.
    pub fn emulated(vnf: &str, folder: &Path, format: Format, config_drive: Option<Layout>, files: &Path) -> Self {
        Self {
            vnf: vnf.to_owned(),
            emulated: true,
            vcpus: 1,
            memory: 256,
            vf: Vec::new(),
            pci: Vec::new(),
            format,
            config_drive,
            image: Some(folder.to_owned()),
            files: Some(files.to_owned()),
        }
    }
}

/// Writes the instance's files and prints the domain.
pub fn run(arguments: &Arguments, policy: Policy) -> Result<()> {
    print!("{}", domain(arguments, policy)?);
    Ok(())
}

/// Writes the instance's files and returns the domain.
pub fn domain(arguments: &Arguments, policy: Policy) -> Result<String> {
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
    Ok(libvirt::domain(&launch, !arguments.emulated, &config, identity, &macs))
}
