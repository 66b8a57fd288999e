//! Config drives, as a cloud would attach them: to try images with, and to test them.

use crate::command;
use anyhow::{Context, Result};
use fatfs::{FileSystem, FormatVolumeOptions, FsOptions};
use slim_controller::hypervisor::{ConfigDrive, Launch};
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::process::Command;

/// A layout of config drives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Layout {
    /// NoCloud: a CD labelled cidata.
    Cidata,
    /// OpenStack: a disk in VFAT, labelled config-2.
    #[value(name = "config-2")]
    Config2,
}

/// What `launch` hands over, as the one file that a config drive has for it.
pub fn user_data(launch: &Launch) -> String {
    let identity = launch.identity.as_ref().map_or("", |secret| secret.reveal());
    format!("{}\n{identity}", launch.config_toml.trim_end())
}

/// Writes a drive with `user_data` into `folder`. As it holds an identity, only its owner can read it.
pub fn write(layout: Layout, user_data: &str, folder: &Path) -> Result<ConfigDrive> {
    let output = folder.join(match layout {
        Layout::Cidata => "cidata.iso",
        Layout::Config2 => "config-2.img",
    });
    // Never one that was readable before.
    match fs::remove_file(&output) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error.into()),
        _ => {}
    }
    let disk = File::options().read(true).write(true).create_new(true).mode(0o600).open(&output);
    let disk = disk.with_context(|| format!("cannot write {}", output.display()))?;
    match layout {
        Layout::Cidata => cidata(user_data, folder, &output).map(|()| ConfigDrive::Cd(output)),
        Layout::Config2 => config_2(user_data, &disk).map(|()| ConfigDrive::Disk(output)),
    }
}

/// By the program, and with the options, that OpenStack makes its own with.
fn cidata(user_data: &str, folder: &Path, output: &Path) -> Result<()> {
    let tree = tempfile::tempdir_in(folder)?;
    // NoCloud wants both; only the second says something to us.
    fs::write(tree.path().join("meta-data"), "instance-id: slim\n")?;
    fs::write(tree.path().join("user-data"), user_data)?;
    let mut make = Command::new("genisoimage");
    make.args(["-quiet", "-ldots", "-allow-lowercase", "-allow-multidot", "-l", "-J", "-r", "-V", "cidata", "-o"]);
    command::output(make.arg(output).arg(tree.path()))?;
    Ok(())
}

fn config_2(user_data: &str, disk: &File) -> Result<()> {
    // As large as OpenStack makes it.
    disk.set_len(64 << 20)?;
    fatfs::format_volume(disk, FormatVolumeOptions::new().volume_label(*b"config-2   "))?;
    let volume = FileSystem::new(disk, FsOptions::new())?;
    for folder in ["openstack", "openstack/latest"] {
        volume.root_dir().create_dir(folder)?;
    }
    volume.root_dir().create_file("openstack/latest/user_data")?.write_all(user_data.as_bytes())?;
    volume.unmount()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn drives_hold_the_file_and_are_private() {
        let folder = tempfile::tempdir().expect("temporary folder");
        for layout in [Layout::Cidata, Layout::Config2] {
            // The second time over the first one, which somebody has opened up.
            for _ in 0..2 {
                let drive = write(layout, "name = 'a'\n", folder.path()).expect("written");
                let mode = drive.file().metadata().expect("there").permissions().mode() & 0o777;
                assert_eq!(mode, 0o600);
                let bytes = fs::read(drive.file()).expect("readable");
                assert!(bytes.windows(10).any(|window| window == b"name = 'a'"));
                fs::set_permissions(drive.file(), fs::Permissions::from_mode(0o644)).expect("changed");
            }
        }
    }
}
