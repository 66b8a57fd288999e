//! `cargo xtask image`.

use crate::image::{self, BUDGET_BYTES, Format, Manifest, NicDriver};
use crate::setup::{self, Policy};
use crate::vnf;
use anyhow::Result;
use std::collections::BTreeSet;

/// Which image.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// The network function, such as `nat`.
    vnf: String,

    /// What it is to be started from, besides kernel and initramfs; docs/formats.md says how each is deployed
    #[arg(long, value_enum, default_value_t)]
    format: Format,

    /// A driver for a NIC that few need, besides the usual ones; may be repeated. The image is called after it: nat+ena
    #[arg(long = "nic", value_enum, value_name = "DRIVER")]
    nics: Vec<NicDriver>,
}

/// Builds the image and prints what it consists of.
pub fn run(arguments: &Arguments, policy: Policy) -> Result<()> {
    let vnf = vnf::find(&arguments.vnf)?;
    setup::ensure(arguments.format.needs(), policy)?;
    let nics: Vec<NicDriver> = arguments.nics.iter().copied().collect::<BTreeSet<_>>().into_iter().collect();
    let (folder, manifest) = image::ensure_with(vnf, arguments.format, &nics)?;
    println!("{}", describe(&manifest));
    match arguments.format {
        Format::KernelInitrd => println!("{}", folder.display()),
        format => println!("{}", folder.join(format.file()).display()),
    }
    Ok(())
}

/// The sizes of an image, as a table.
fn describe(manifest: &Manifest) -> String {
    let mib = |bytes: u64| format!("{:.2} MiB", bytes as f64 / f64::from(1 << 20));
    let mut table = comfy_table::Table::new();
    table.load_preset(comfy_table::presets::NOTHING);
    let linux = &manifest.linux;
    table.add_row([
        "kernel".to_owned(),
        mib(manifest.kernel.size_bytes),
        format!("Linux {}, entered directly (PVH)", linux.release),
    ]);
    table.add_row(["initramfs".to_owned(), mib(manifest.initramfs.size_bytes), "not compressed".to_owned()]);
    table.add_row([
        "  program".to_owned(),
        mib(manifest.program.size_bytes),
        format!("static, DPDK {}", manifest.dpdk),
    ]);
    let limit = match &manifest.more_drivers {
        None => format!("of at most {}", mib(BUDGET_BYTES)),
        Some(more) => {
            let names = more.names.join(", ");
            table.add_row([format!("  of it {names}"), mib(more.size_bytes), "drivers".to_owned()]);
            if more.kernel_size_bytes > 0 {
                table.add_row(["  and of the kernel".to_owned(), mib(more.kernel_size_bytes), "for them".to_owned()]);
            }
            String::new()
        }
    };
    table.add_row(["image".to_owned(), mib(manifest.size_bytes()), limit]);
    for (name, file) in [(Format::Uki.file(), &manifest.uki), (Format::Qcow2.file(), &manifest.qcow2)] {
        if let Some(file) = file {
            table.add_row([name.to_owned(), mib(file.size_bytes), "for UEFI firmware".to_owned()]);
        }
    }
    table.to_string()
}
