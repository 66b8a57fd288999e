//! A config drive: a small disk or CD whose label says that it configures this instance, as clouds attach it.
//!
//! ```text
//! label     file                          known as
//! cidata    user-data                     NoCloud
//! config-2  openstack/latest/user_data    OpenStack's config drive
//! ```
//! The file is the instance's configuration in TOML; its identity in PEM may follow, from the first line that begins
//! with `-----BEGIN `. The file system is ISO 9660 or VFAT, on the whole disk; upper and lower case in the label do not
//! matter. It is mounted read-only, for as long as the file is read.

use super::fw_cfg::read_bounded;
use super::volume::{self, FileSystem};
use super::{Error as GuestError, mount};
use crate::config::CONFIG_SIZE_MAX_BYTES;
use slim_trust::Zeroizing;
use slim_trust::identity::IDENTITY_SIZE_MAX_BYTES;
use std::fmt;
use std::fs::File;
use std::path::Path;

/// The labels of config drives, and the file that counts on each.
const LAYOUTS: [(&str, &str); 2] = [("cidata", "user-data"), ("config-2", "openstack/latest/user_data")];

/// Where a drive is mounted.
const MOUNT_POINT: &str = "/run/config-drive";

/// The most drives that are looked at.
const DRIVES_MAX: usize = 64;

/// The line with which an identity begins.
const PEM: &str = "-----BEGIN ";

/// A config drive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Drive {
    device: String,
    label: String,
    file_system: FileSystem,
    file: &'static str,
}

impl fmt::Display for Drive {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "config drive {} ({}), {}", self.device, self.label, self.file)
    }
}

/// What is wrong with config drives.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nobody could say which one counts.
    #[error("{devices} are config drives: attach only one")]
    Several {
        /// All of them.
        devices: String,
    },
    /// The file is not there.
    #[error("{drive}: there is no such file")]
    NoFile {
        /// The drive.
        drive: Drive,
    },
    /// The drive or the file cannot be read.
    #[error("{drive}: {problem}")]
    Unreadable {
        /// The drive.
        drive: Drive,
        /// Why.
        problem: String,
    },
    /// The file is for another program.
    #[error(
        "{drive}: this is {what}, but must be the instance's configuration in TOML, which its identity in PEM may follow"
    )]
    Foreign {
        /// The drive.
        drive: Drive,
        /// What it is.
        what: &'static str,
    },
    /// One part of the file is too long.
    #[error("{drive}: the {part} has {bytes} bytes, at most {limit} are read")]
    TooLong {
        /// The drive.
        drive: Drive,
        /// Which part.
        part: &'static str,
        /// How long it is.
        bytes: usize,
        /// How long it may be.
        limit: usize,
    },
}

/// What looking at all drives came to.
#[derive(Debug, PartialEq, Eq)]
pub enum Found {
    /// A config drive.
    Drive(Drive),
    /// None, but these drives, in words.
    None {
        /// The words.
        seen: String,
    },
}

/// Looks at the labels of all drives.
///
/// # Errors
/// There is more than one config drive.
pub fn find() -> Result<Found, Error> {
    let mut devices: Vec<String> = std::fs::read_dir("/sys/class/block")
        .into_iter()
        .flatten()
        .filter_map(|entry| Some(entry.ok()?.file_name().to_string_lossy().into_owned()))
        .collect();
    devices.sort();
    devices.truncate(DRIVES_MAX);
    let seen = devices.into_iter().map(|device| {
        // A drive without a disk in it has no label, as one that is broken.
        let volume = File::open(Path::new("/dev").join(&device)).and_then(|file| volume::identify(&file));
        if let Err(error) = &volume {
            log::debug!("{device}: {error}");
        }
        (device, volume.ok().flatten())
    });
    choose(seen.collect())
}

fn choose(seen: Vec<(String, Option<volume::Volume>)>) -> Result<Found, Error> {
    let drives: Vec<Drive> = seen
        .iter()
        .filter_map(|(device, volume)| {
            let volume = volume.as_ref()?;
            let (_, file) = LAYOUTS.iter().find(|(label, _)| volume.label.eq_ignore_ascii_case(label))?;
            let (device, label) = (device.clone(), volume.label.clone());
            Some(Drive { device, label, file_system: volume.file_system, file })
        })
        .collect();
    match drives.as_slice() {
        [] => {
            let words = seen.iter().map(|(device, volume)| match volume {
                Some(volume) => format!("{device}, labelled {:?}", volume.label),
                None => format!("{device}, without a label"),
            });
            let words: Vec<_> = words.collect();
            Ok(Found::None { seen: if words.is_empty() { "no drive".into() } else { words.join("; ") } })
        }
        [drive] => Ok(Found::Drive(drive.clone())),
        several => {
            let devices: Vec<_> = several.iter().map(|drive| format!("{} ({})", drive.device, drive.label)).collect();
            Err(Error::Several { devices: devices.join(" and ") })
        }
    }
}

/// Reads configuration and identity from `drive`.
///
/// # Errors
/// It cannot be mounted, or the file on it is not what it should be.
pub fn read(drive: &Drive) -> Result<(String, Option<Zeroizing<String>>), GuestError> {
    let device = Path::new("/dev").join(&drive.device);
    let mounted = mount::read_only(&device, MOUNT_POINT, drive.file_system.name())?;
    let text = read_bounded(&Path::new(MOUNT_POINT).join(drive.file), CONFIG_SIZE_MAX_BYTES + IDENTITY_SIZE_MAX_BYTES);
    drop(mounted);
    let text = match text {
        Ok(Some(text)) => text,
        Ok(None) => return Err(Error::NoFile { drive: drive.clone() }.into()),
        Err(error) => {
            let problem = match error {
                GuestError::File { source, .. } => source.to_string(),
                other => other.to_string(),
            };
            return Err(Error::Unreadable { drive: drive.clone(), problem }.into());
        }
    };
    Ok(split(drive, &text)?)
}

/// Takes the file apart.
fn split(drive: &Drive, text: &str) -> Result<(String, Option<Zeroizing<String>>), Error> {
    let first = text.lines().next().unwrap_or_default();
    let foreign = match first.trim_end() {
        "#cloud-config" => Some("cloud-init's own configuration"),
        line if line.starts_with("#!") => Some("a script"),
        line if line.starts_with("Content-Type:") || line.starts_with("MIME-Version:") => Some("a MIME message"),
        line if line.starts_with(PEM) => Some("an identity without a configuration before it"),
        _ if text.trim().is_empty() => Some("empty"),
        _ => None,
    };
    if let Some(what) = foreign {
        return Err(Error::Foreign { drive: drive.clone(), what });
    }
    let lines = text.split_inclusive('\n');
    let configuration_bytes = lines.take_while(|line| !line.starts_with(PEM)).map(str::len).sum();
    let (configuration, identity) = text.split_at(configuration_bytes);
    let parts =
        [("configuration", configuration, CONFIG_SIZE_MAX_BYTES), ("identity", identity, IDENTITY_SIZE_MAX_BYTES)];
    for (part, text, limit) in parts {
        if text.len() > limit {
            return Err(Error::TooLong { drive: drive.clone(), part, bytes: text.len(), limit });
        }
    }
    let identity = (!identity.is_empty()).then(|| Zeroizing::new(identity.to_owned()));
    Ok((configuration.to_owned(), identity))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::guest::volume::Volume;

    fn volume(label: &str) -> Option<Volume> {
        Some(Volume { label: label.into(), file_system: FileSystem::Iso9660 })
    }

    fn drive() -> Drive {
        let Ok(Found::Drive(drive)) = choose(vec![("sr0".into(), volume("CIDATA"))]) else { panic!("it is one") };
        drive
    }

    #[test]
    fn the_label_decides_which_drive_and_which_file() {
        let seen = vec![("sr0".into(), volume("config-2")), ("vda".into(), None), ("vdb".into(), volume("EFI"))];
        let Ok(Found::Drive(drive)) = choose(seen) else { panic!("sr0 is one") };
        assert_eq!(drive.to_string(), "config drive sr0 (config-2), openstack/latest/user_data");
        let seen = vec![("vda".into(), None), ("vdb".into(), volume("EFI"))];
        let words = "vda, without a label; vdb, labelled \"EFI\"";
        assert_eq!(choose(seen).unwrap(), Found::None { seen: words.into() });
        assert_eq!(choose(Vec::new()).unwrap(), Found::None { seen: "no drive".into() });
        let both = vec![("sr0".into(), volume("cidata")), ("vda".into(), volume("config-2"))];
        assert_eq!(
            choose(both).unwrap_err().to_string(),
            "sr0 (cidata) and vda (config-2) are config drives: attach only one"
        );
    }

    #[test]
    fn an_identity_may_follow_the_configuration() {
        let toml = "name = 'a'\nmotd = '-----BEGIN '\n";
        let pem = "-----BEGIN CERTIFICATE-----\nAA==\n-----END CERTIFICATE-----\n";
        let (configuration, identity) = split(&drive(), toml).unwrap();
        assert_eq!((configuration.as_str(), identity), (toml, None));
        let (configuration, identity) = split(&drive(), &format!("{toml}{pem}{pem}")).unwrap();
        assert_eq!((configuration.as_str(), identity.unwrap().as_str()), (toml, [pem, pem].concat().as_str()));
    }

    #[test]
    fn what_is_for_somebody_else_is_called_by_its_name() {
        for (text, word) in [
            ("#cloud-config\nusers: []\n", "cloud-init's"),
            ("#!/bin/sh\n", "a script"),
            ("Content-Type: multipart/mixed\n\n", "MIME"),
            ("-----BEGIN CERTIFICATE-----\n", "without a configuration"),
            ("\n \n", "empty"),
        ] {
            let message = split(&drive(), text).unwrap_err().to_string();
            assert!(message.contains(word) && message.contains("sr0 (CIDATA), user-data"), "{message}");
        }
    }

    #[test]
    fn each_part_is_bounded() {
        let long = "#".repeat(CONFIG_SIZE_MAX_BYTES + 1);
        assert!(split(&drive(), &long).unwrap_err().to_string().contains("the configuration has 65537 bytes"));
        let long = format!("a = 1\n-----BEGIN {}", "A".repeat(IDENTITY_SIZE_MAX_BYTES));
        assert!(split(&drive(), &long).unwrap_err().to_string().contains("the identity has"));
    }
}
