//! One build of the kernel, from unpacking to the finished folder.

use super::{Inputs, Record, fragments};
use crate::command::{run_logged, shown};
use crate::hash;
use crate::progress::Step;
use crate::setup::packages::KERNEL_SOURCE;
use anyhow::{Context, Result};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

/// About how many lines `make` prints for this configuration; only the progress bar depends on it.
const MAKE_LINES: u64 = 1500;

/// Builds the kernel in a folder of its own inside `cache` and moves the result to `folder` in one step.
pub fn build(inputs: &Inputs, hash: &str, cache: &Path, folder: &Path) -> Result<()> {
    let started = Instant::now();
    remove_leftovers(cache)?;
    let work = tempfile::Builder::new().prefix("build-").tempdir_in(cache).context("no room for the kernel's build")?;
    let log = cache.join("build.log");
    fs::write(&log, "").with_context(|| format!("cannot write {}", log.display()))?;

    let source = unpack(work.path(), &log)?;
    apply_patches(inputs, &source, &log)?;
    let objects = work.path().join("objects");
    fs::create_dir(&objects)?;
    configure(inputs, &source, &objects, &log)?;
    compile(&source, &objects, &log)?;

    let finished = work.path().join("finished");
    fs::create_dir(&finished)?;
    fs::copy(objects.join("arch/x86/boot/bzImage"), finished.join("bzImage")).context("the build left no bzImage")?;
    fs::copy(objects.join(".config"), finished.join("config"))?;
    fs::copy(&log, finished.join("build.log"))?;
    let mut strip = Command::new("strip");
    strip.arg("-o").arg(finished.join("vmlinux")).arg(objects.join("vmlinux"));
    run_logged(&mut Step::silent(), &mut strip, &log, |_, _| {})?;
    let release = fs::read_to_string(objects.join("include/config/kernel.release"))?.trim().to_owned();
    let record = Record {
        inputs_sha256: hash.to_owned(),
        release,
        source_version: inputs.source_version.clone(),
        config_sha256: hash::file(&finished.join("config"))?,
        build_seconds: started.elapsed().as_secs(),
    };
    fs::write(finished.join("kernel.json"), serde_json::to_vec_pretty(&record)?)?;
    if folder.exists() {
        // Without its record it was not a kernel: see `Kernel::read`.
        fs::remove_dir_all(folder)?;
    }
    fs::rename(&finished, folder).with_context(|| format!("cannot create {}", folder.display()))
}

/// Removes what an interrupted build left; the caller holds the lock.
fn remove_leftovers(cache: &Path) -> Result<()> {
    for entry in fs::read_dir(cache)? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with("build-") {
            fs::remove_dir_all(entry.path()).with_context(|| format!("cannot remove {}", entry.path().display()))?;
        }
    }
    Ok(())
}

fn unpack(into: &Path, log: &Path) -> Result<PathBuf> {
    let mut step = Step::start(format!("unpacking {KERNEL_SOURCE}"));
    let archive = PathBuf::from(format!("/usr/src/{KERNEL_SOURCE}.tar.xz"));
    let mut tar = Command::new("tar");
    tar.arg("-xf").arg(&archive).arg("-C").arg(into);
    run_logged(&mut step, &mut tar, log, |_, _| {}).with_context(|| format!("cannot unpack {}", archive.display()))?;
    step.finish("");
    Ok(into.join(KERNEL_SOURCE))
}

fn apply_patches(inputs: &Inputs, source: &Path, log: &Path) -> Result<()> {
    for patch in &inputs.patches {
        let mut command = Command::new("patch");
        command.current_dir(source).args(["--batch", "--forward", "-p1", "-i"]).arg(&patch.path);
        run_logged(&mut Step::silent(), &mut command, log, |_, _| {}).with_context(|| {
            format!("{} does not apply to {} {}", patch.path.display(), KERNEL_SOURCE, inputs.source_version)
        })?;
    }
    Ok(())
}

/// Resolves the fragments into a configuration in which everything else is off.
fn configure(inputs: &Inputs, source: &Path, objects: &Path, log: &Path) -> Result<()> {
    let mut step = Step::start(format!("configuring the kernel from {} fragments", inputs.fragments.len()));
    let wanted = objects.join("wanted.config");
    fs::write(&wanted, fragments::merged(&inputs.fragments))?;
    let mut make = make(source, objects);
    make.env("KCONFIG_ALLCONFIG", &wanted).arg("allnoconfig");
    run_logged(&mut step, &mut make, log, |_, _| {})?;
    let config = fs::read_to_string(objects.join(".config"))?;
    fragments::verify(&inputs.fragments, &config)?;
    step.finish("");
    Ok(())
}

fn compile(source: &Path, objects: &Path, log: &Path) -> Result<()> {
    let jobs = std::thread::available_parallelism().map_or(1, |count| count.get());
    let mut make = make(source, objects);
    make.arg(format!("-j{jobs}")).args(["bzImage", "vmlinux"]);
    let mut step = Step::start_counted(
        format!("compiling the kernel on {jobs} cores, about {} minutes; this is done once", 10 / jobs.min(10)),
        MAKE_LINES,
    );
    let line = shown(&make);
    let mut lines = 0;
    run_logged(&mut step, &mut make, log, |step, text| {
        lines += 1;
        step.progress(lines, text);
    })
    .with_context(|| format!("the kernel could not be built; everything `{line}` printed is in {}", log.display()))?;
    step.finish("");
    Ok(())
}

/// `make` for the kernel, with everything fixed that would make two builds of the same inputs differ.
fn make(source: &Path, objects: &Path) -> Command {
    let mut make = Command::new("make");
    make.current_dir(source)
        .env("ARCH", "x86_64")
        .env("KBUILD_BUILD_USER", "slim")
        .env("KBUILD_BUILD_HOST", "slim")
        .env("KBUILD_BUILD_TIMESTAMP", "Thu Jan  1 00:00:00 UTC 1970")
        .env("LC_ALL", "C")
        .env_remove("MAKEFLAGS")
        .env_remove("KCONFIG_ALLCONFIG")
        .arg(format!("O={}", objects.display()));
    make
}
