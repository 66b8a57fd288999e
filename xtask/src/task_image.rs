//! `cargo xtask image`.

use crate::image::{self, BUDGET_BYTES, Manifest};
use crate::setup::packages::Need;
use crate::setup::{self, Policy};
use crate::vnf;
use anyhow::Result;

/// Which image.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// The network function, such as `nat`.
    vnf: String,
}

/// Builds the image and prints what it consists of.
pub fn run(arguments: &Arguments, policy: Policy) -> Result<()> {
    let vnf = vnf::find(&arguments.vnf)?;
    setup::ensure(&[Need::Dpdk, Need::Kernel], policy)?;
    let (folder, manifest) = image::ensure(vnf)?;
    println!("{}", describe(&manifest));
    println!("{}", folder.display());
    Ok(())
}

/// The sizes of an image, as a table.
fn describe(manifest: &Manifest) -> String {
    let mib = |bytes: u64| format!("{:.2} MiB", bytes as f64 / f64::from(1 << 20));
    let total = manifest.kernel.size_bytes + manifest.initramfs.size_bytes;
    let mut table = comfy_table::Table::new();
    table.load_preset(comfy_table::presets::NOTHING);
    let linux = &manifest.linux;
    table.add_row([
        "kernel".to_owned(),
        mib(manifest.kernel.size_bytes),
        format!("Linux {}, entered directly (PVH)", linux.release),
    ]);
    table.add_row(["initramfs".to_owned(), mib(manifest.initramfs.size_bytes), "LZ4".to_owned()]);
    table.add_row([
        "  program".to_owned(),
        mib(manifest.program.size_bytes),
        format!("static, DPDK {}", manifest.dpdk),
    ]);
    table.add_row(["image".to_owned(), mib(total), format!("of at most {}", mib(BUDGET_BYTES))]);
    table.to_string()
}
