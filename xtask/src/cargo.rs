//! Building packages of the workspace with the cargo that runs us.

use crate::command;
use crate::image::NicDriver;
use crate::paths;
use anyhow::{Context, Result};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

/// The target of images. Naming it, though it is the host's, keeps their flags away from build scripts and
/// procedural macros.
pub const IMAGE_TARGET: &str = "x86_64-unknown-linux-gnu";

/// The package whose features are drivers of NICs.
const RUNTIME: &str = "slim-runtime";

/// The least that DPDK asks for.
const IMAGE_CPU: &str = "x86-64-v2";

/// Fully static at a fixed address, so that PID 1 needs no loader.
const IMAGE_RUSTFLAGS: &str = "-C target-feature=+crt-static -C relocation-model=static";

/// `cargo`, in the workspace's root.
pub fn cargo() -> Command {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(paths::root());
    // What cargo set for us is not meant for the packages that this one builds.
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if text.starts_with("CARGO_PKG_") || text.starts_with("CARGO_MANIFEST_") || text == "CARGO_BIN_NAME" {
            cargo.env_remove(name);
        }
    }
    cargo
}

/// Runs `cargo` as one step called `title`, its output on our terminal.
pub fn step(title: &str, cargo: &mut Command) -> Result<()> {
    eprintln!("==> {title}");
    let started = Instant::now();
    command::run(cargo)?;
    eprintln!("    done in {:.1} s", started.elapsed().as_secs_f64());
    Ok(())
}

/// Builds the static program `program` of `package` for an image, with the drivers `nics` besides the usual ones, and
/// returns where it is.
pub fn build_image_program(package: &str, program: &str, nics: &[NicDriver]) -> Result<PathBuf> {
    let with = nics.iter().map(|nic| format!(" with {nic}")).collect::<String>();
    let title = format!("building {program}{with} for its image: static, optimised as a whole");
    let mut features = format!("{package}/image");
    nics.iter().for_each(|nic| features.push_str(&format!(",{RUNTIME}/{nic}")));
    // In a folder of its own, or the usual image would have to be built anew each time.
    let target = if nics.is_empty() { paths::target() } else { paths::target().join("nics") };
    build_optimised(
        &title,
        IMAGE_RUSTFLAGS,
        &target,
        package,
        program,
        // Without the ports that only processes on a host have.
        &["--package", RUNTIME, "--no-default-features", "--features", &features],
    )
}

/// Builds the static program `program` of `package`, as images' are but without their feature, and returns where it is.
pub fn build_static(title: &str, package: &str, program: &str) -> Result<PathBuf> {
    build_optimised(title, IMAGE_RUSTFLAGS, &paths::target(), package, program, &[])
}

/// Builds the benchmark `program` of `package` with the images' optimisation and returns where it is.
pub fn build_benchmark(package: &str, program: &str) -> Result<PathBuf> {
    build_optimised(
        &format!("building {program}, optimised as images are"),
        "",
        &paths::target(),
        package,
        program,
        &[],
    )
}

fn build_optimised(
    title: &str,
    rustflags: &str,
    target: &Path,
    package: &str,
    program: &str,
    more: &[&str],
) -> Result<PathBuf> {
    let mut build = cargo();
    build
        .env("CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUSTFLAGS", format!("{rustflags} -C target-cpu={IMAGE_CPU}"))
        .env_remove("RUSTFLAGS")
        .env_remove("CARGO_ENCODED_RUSTFLAGS")
        .args(["build", "--profile", "image", "--target", IMAGE_TARGET])
        .arg("--target-dir")
        .arg(target)
        .args(["--package", package, "--bin", program])
        .args(more);
    step(title, &mut build)?;
    let path = target.join(IMAGE_TARGET).join("image").join(program);
    path.metadata().with_context(|| format!("cargo left no {}", path.display()))?;
    Ok(path)
}

/// The version of the compiler.
pub fn rustc_version() -> Result<String> {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    Ok(command::output(Command::new(rustc).arg("--version"))?.trim().to_owned())
}
