//! Debian's package manager: what is installed, and installing more.

use super::packages::{KERNEL_SOURCE, QEMU, QEMU_LEAST};
use crate::command;
use crate::paths;
use crate::progress::Step;
use anyhow::{Context, Result, bail, ensure};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime};

/// Package lists older than this are fetched again before an installation.
const LISTS_FRESH: Duration = Duration::from_secs(24 * 60 * 60);

const LISTS: &str = "/var/lib/apt/lists";
const BACKPORTS: &str = "bookworm-backports";
const BACKPORTS_FILE: &str = "/etc/apt/sources.list.d/slim-backports.list";

/// The versions of those of `names` that are installed.
pub fn installed(names: &[&str]) -> Result<BTreeMap<String, String>> {
    ensure!(
        command::exists("dpkg-query"),
        "this is not a Debian system: `cargo xtask setup` knows only Debian's packages. SliM needs these, or their \
         like: {}",
        names.join(" ")
    );
    // Its exit status is no help: it fails as soon as one of the names was never heard of.
    let output = Command::new("dpkg-query")
        .args(["-W", "-f", "${Package}\t${db:Status-Status}\t${Version}\n"])
        .args(names)
        .output()
        .context("cannot start dpkg-query")?;
    let mut versions = BTreeMap::new();
    for line in String::from_utf8_lossy(&output.stdout).lines() {
        if let [name, "installed", version] = line.split('\t').collect::<Vec<_>>()[..] {
            versions.insert(name.to_owned(), version.to_owned());
        }
    }
    Ok(versions)
}

/// The version of an installed package.
pub fn version(name: &str) -> Result<String> {
    installed(&[name])?.remove(name).with_context(|| format!("{name} is not installed: run `cargo xtask setup`"))
}

/// Installs `names`, after refreshing the package lists where they are missing or old.
pub fn install(names: &[&str]) -> Result<()> {
    ensure!(
        nix::unistd::geteuid().is_root() || command::exists("sudo"),
        "packages are missing and can only be installed by root: run this as root, install sudo, or have an \
         administrator run `apt-get install {}`",
        names.join(" ")
    );
    let log = log_file()?;
    if !lists_fresh() || !all_known(names)? {
        update(&log)?;
    }
    let backports = names.contains(&QEMU) && qemu_from_backports()?;
    if backports && add_backports(&log)? {
        update(&log)?;
    }
    if let Err(error) = install_once(names, backports, &log) {
        // A mirror may have replaced a version since the lists were fetched.
        eprintln!("    the installation failed; trying once more with new package lists\n    {error:#}");
        update(&log)?;
        install_once(names, backports, &log).with_context(|| advice(names))?;
    }
    Ok(())
}

/// The name of the dependency of `name` that `select` accepts, such as the newest kernel behind a package without a version.
pub fn dependency(name: &str, select: impl Fn(&str) -> bool) -> Result<String> {
    if !all_known(&[name])? {
        update(&log_file()?)?;
    }
    let text = command::output(Command::new("apt-cache").env("LC_ALL", "C").args(["depends", name]))?;
    let found = text.lines().filter_map(|line| line.trim().strip_prefix("Depends: ")).find(|name| select(name));
    Ok(found.with_context(|| format!("{name} does not depend on what was expected:\n{text}"))?.to_owned())
}

/// Downloads the newest version of the package `name` into the folder `into`, without installing it.
pub fn download(name: &str, into: &Path) -> Result<PathBuf> {
    let log = log_file()?;
    if !all_known(&[name])? {
        update(&log)?;
    }
    fs::create_dir_all(into)?;
    let mut step = Step::start(format!("downloading Debian's {name}"));
    let mut download = Command::new("apt-get");
    download.current_dir(into).args(["download", "-q", name]);
    command::run_logged(&mut step, &mut download, &log, |step, line| step.progress(0, line))?;
    let package = fs::read_dir(into)?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .find(|path| path.extension().is_some_and(|extension| extension == "deb"))
        .with_context(|| format!("apt-get left no package in {}", into.display()))?;
    step.finish("");
    Ok(package)
}

fn log_file() -> Result<PathBuf> {
    let folder = paths::cache()?;
    fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
    Ok(folder.join("setup.log"))
}

/// `program` as root.
fn as_root(program: &str) -> Command {
    if nix::unistd::geteuid().is_root() {
        return Command::new(program);
    }
    let mut command = Command::new("sudo");
    command.arg(program);
    command
}

/// Runs its arguments while Debian's packages do not start the services they bring, unless the administrator has
/// decided that already (`policy-rc.d`, invoke-rc.d(8)).
const WITHOUT_SERVICES: &str = r#"
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
    trap 'rm -f "$policy"' EXIT
    printf '#!/bin/sh\nexit 101\n' > "$policy" && chmod 755 "$policy"
fi
"$@""#;

const APT_GET: [&str; 7] =
    ["env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "-q", "-y", "-o", "DPkg::Lock::Timeout=300"];

fn apt_get() -> Command {
    let [program, arguments @ ..] = APT_GET;
    let mut command = as_root(program);
    command.args(arguments);
    command
}

fn update(log: &Path) -> Result<()> {
    let mut step = Step::start("fetching Debian's package lists (apt-get update)");
    command::run_logged(&mut step, apt_get().arg("update"), log, |step, line| step.progress(0, line))
        .context("the package lists could not be fetched: is there a network, and a mirror in /etc/apt?")?;
    step.finish("");
    Ok(())
}

/// Installs `names`, QEMU last: its dependencies from the backports must not replace libraries whose development
/// files, from the release, the others still need.
fn install_once(names: &[&str], backports: bool, log: &Path) -> Result<()> {
    let mut rest: Vec<String> = names.iter().filter(|name| **name != QEMU).map(|name| (*name).to_owned()).collect();
    if !rest.is_empty() {
        rest.extend(companions()?);
        install_step(&rest, None, log)?;
    }
    if names.contains(&QEMU) {
        // From the whole suite: QEMU's other packages must be of the same version.
        install_step(&[QEMU.to_owned()], backports.then_some(BACKPORTS), log)?;
    }
    Ok(())
}

/// Development files that must come from the backports because their libraries did, here or earlier.
fn companions() -> Result<Vec<String>> {
    const PAIRS: [(&str, &str); 2] = [("libelf1", "libelf-dev"), ("libbpf1", "libbpf-dev")];
    let versions = installed(&PAIRS.map(|(library, _)| library))?;
    let newer = |library| versions.get(library).is_some_and(|version| version.contains("~bpo12"));
    Ok(PAIRS.iter().filter(|(library, _)| newer(*library)).map(|(_, files)| format!("{files}/{BACKPORTS}")).collect())
}

fn install_step(names: &[String], suite: Option<&str>, log: &Path) -> Result<()> {
    let origin = suite.map_or_else(String::new, |suite| format!(" from {suite}"));
    let mut step = Step::start(format!("installing {}{origin}", names.join(" ")));
    let mut install = as_root("sh");
    install.args(["-c", WITHOUT_SERVICES, "sh"]).args(APT_GET).args(["install", "--no-install-recommends"]);
    if let Some(suite) = suite {
        install.args(["-t", suite]);
    }
    command::run_logged(&mut step, install.args(names), log, |step, line| step.progress(0, line))?;
    step.finish("");
    Ok(())
}

/// Whether the package lists exist and are young.
fn lists_fresh() -> bool {
    let Ok(entries) = fs::read_dir(LISTS) else { return false };
    let some = entries.filter_map(Result::ok).any(|entry| entry.file_name().to_string_lossy().ends_with("Release"));
    // apt keeps a list's date as its mirror gave it: the folder tells when it was fetched.
    let fetched = fs::metadata(LISTS).and_then(|metadata| metadata.modified());
    some && fetched.is_ok_and(|at| SystemTime::now().duration_since(at).is_ok_and(|age| age < LISTS_FRESH))
}

/// Whether the package lists offer all of `names`.
fn all_known(names: &[&str]) -> Result<bool> {
    for name in names {
        if candidate(name)?.is_none() {
            return Ok(false);
        }
    }
    Ok(true)
}

/// The version of `name` that a plain installation would install, or has installed.
fn candidate(name: &str) -> Result<Option<String>> {
    let policy = command::output(Command::new("apt-cache").env("LC_ALL", "C").args(["policy", name]))?;
    let version = policy.lines().find_map(|line| line.trim().strip_prefix("Candidate: "));
    Ok(version.filter(|version| *version != "(none)").map(str::to_owned))
}

/// Whether `version` is `least` or newer, as Debian orders versions.
pub fn at_least(version: &str, least: &str) -> Result<bool> {
    let status = Command::new("dpkg").args(["--compare-versions", version, "ge", least]).status();
    Ok(status.context("cannot start dpkg")?.success())
}

/// Whether the release's own QEMU is too old, as in Debian 12.
///
/// On a machine whose other QEMU packages are from the backports already, a plain installation would also break them.
fn qemu_from_backports() -> Result<bool> {
    match candidate(QEMU)? {
        Some(version) => Ok(!at_least(&version, QEMU_LEAST)? && is_bookworm()),
        None => Ok(is_bookworm()),
    }
}

/// Makes the backports known to apt; `false` if they were.
fn add_backports(log: &Path) -> Result<bool> {
    let targets = command::output(Command::new("apt-get").args([
        "indextargets",
        "--format",
        "$(REPO_URI) $(CODENAME) $(COMPONENT)",
    ]))?;
    if targets.lines().any(|line| line.ends_with(&format!("{BACKPORTS} main"))) {
        return Ok(false);
    }
    let mirror =
        targets.lines().find_map(|line| line.strip_suffix(" bookworm main")).unwrap_or("http://deb.debian.org/debian");
    let mut step = Step::start(format!("adding {BACKPORTS} to apt's sources, in {BACKPORTS_FILE}"));
    let line = format!("deb {} {BACKPORTS} main", mirror.trim_end_matches('/'));
    let mut write = as_root("sh");
    write.args(["-c", &format!("echo '{line}' > {BACKPORTS_FILE}")]);
    command::run_logged(&mut step, &mut write, log, |_, _| {})?;
    step.finish(&line);
    Ok(true)
}

fn advice(names: &[&str]) -> String {
    let mut text = format!("could not install {}", names.join(" "));
    if names.contains(&KERNEL_SOURCE) && !is_bookworm() {
        text += ". These names are those of Debian 12 (bookworm), which this is not";
    }
    text
}

fn is_bookworm() -> bool {
    fs::read_to_string("/etc/os-release").is_ok_and(|text| text.contains("bookworm"))
}

/// Fails unless apt is there to be used.
pub fn check_apt() -> Result<()> {
    if !command::exists("apt-get") || !command::exists("apt-cache") {
        bail!("apt-get is missing: packages can only be installed by hand here");
    }
    Ok(())
}
