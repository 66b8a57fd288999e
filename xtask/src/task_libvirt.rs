//! `cargo xtask libvirt-xml`: an image as a domain of libvirt.

use crate::passthrough::{self, Virtual, Whole};
use crate::setup::packages::Need;
use crate::setup::{self, Policy};
use crate::{image, paths, standalone, vnf};
use anyhow::{Context, Result, bail};
use slim_controller::hypervisor::borrowed::{Borrowed, Place, Request};
use slim_controller::hypervisor::libvirt;
use slim_trust::files::replace_secret;
use std::fs;
use std::path::PathBuf;

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
    vf: Vec<Virtual>,

    /// Give the guest this whole PCI function, after those of --vf; may be repeated
    #[arg(long, value_name = "ADDRESS=MAC")]
    pci: Vec<Whole>,

    /// Boot the image in this folder, as `cargo xtask image` has left it, instead of building one
    #[arg(long, value_name = "FOLDER")]
    image: Option<PathBuf>,

    /// Where the instance's configuration, identity and console go
    /// [default: target/libvirt/<vnf>]
    #[arg(long, value_name = "FOLDER")]
    files: Option<PathBuf>,
}

/// Writes the instance's files and prints the domain.
pub fn run(arguments: &Arguments, policy: Policy) -> Result<()> {
    let vnf = vnf::find(&arguments.vnf)?;
    let passed = passthrough::requests(vnf, &arguments.vf, &arguments.pci)?
        .into_iter()
        .map(|request| match request {
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
            setup::ensure(&[Need::Dpdk, Need::Kernel], policy)?;
            image::ensure(vnf)?.0
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
