//! The impaired line between the switch and the outside servers.

use crate::artifacts::Artifacts;
use crate::impair::Impairment;
use crate::process::Process;
use crate::sandbox::ip;
use crate::topology::{OUTSIDE, OUTSIDE_TAP, load_device, load_socket};
use anyhow::{Context, Result};
use std::ffi::OsString;
use std::path::Path;
use std::time::Duration;

const START_LIMIT: Duration = Duration::from_secs(20);

/// Starts `slim-impair` in the outside namespace, and waits for its TAP.
pub(super) fn start(artifacts: &Artifacts, impairment: &Impairment, folder: &Path) -> Result<Process> {
    let socket = load_socket(folder, "outside");
    if socket.exists() {
        std::fs::remove_file(&socket).with_context(|| format!("cannot remove {}", socket.display()))?;
    }
    let mut arguments: Vec<OsString> = ["netns", "exec", OUTSIDE].map(OsString::from).into();
    arguments.push(artifacts.impair.clone().into());
    let options = [
        ("--near", load_device(folder, "outside")),
        ("--far", format!("net_tap0,iface={OUTSIDE_TAP}")),
        ("--loss", impairment.loss.to_string()),
        ("--reorder", impairment.reorder.to_string()),
        ("--hold", impairment.hold.to_string()),
    ];
    arguments.extend(options.into_iter().flat_map(|(name, value)| [name.into(), value.into()]));
    let mut process = Process::start("slim-impair", Path::new("ip"), &arguments, &folder.join("impair.log"))?;
    let is_there = || ip(&["-n", OUTSIDE, "link", "show", "dev", OUTSIDE_TAP]).is_ok();
    process.wait_until("making the outside TAP", START_LIMIT, is_there)?;
    Ok(process)
}
