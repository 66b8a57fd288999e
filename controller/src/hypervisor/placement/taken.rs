//! Which CPUs other programs have for themselves.

use super::CpuList;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

/// Every CPU that a thread of some program is pinned to alone, with that program, such as `qemu-system-x86 (812)`.
///
/// Threads of the kernel do not count: it has some for each CPU. Nor do those that are where everybody is, as in a
/// container with a single CPU.
pub(super) fn taken(root: &Path) -> BTreeMap<usize, String> {
    let proc = root.join("proc");
    let everybody = allowed(&proc.join("self"));
    let mut taken = BTreeMap::new();
    for process in numbered(&proc) {
        let folder = proc.join(process.to_string());
        // What has no arguments is the kernel's, or has just ended.
        if fs::read(folder.join("cmdline")).is_ok_and(|line| !line.is_empty()) {
            for thread in numbered(&folder.join("task")) {
                let cpus = allowed(&folder.join("task").join(thread.to_string()));
                if let Some(cpus) = cpus.filter(|cpus| cpus.len() == 1 && Some(cpus) != everybody.as_ref()) {
                    let name = fs::read_to_string(folder.join("comm")).unwrap_or_default();
                    taken.extend(cpus.iter().map(|cpu| (cpu, format!("{} ({process})", name.trim()))));
                }
            }
        }
    }
    taken
}

/// The numbers that are names of folders in `folder`.
fn numbered(folder: &Path) -> Vec<u32> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}

/// The CPUs that the thread with this folder may run on.
fn allowed(folder: &Path) -> Option<CpuList> {
    let status = fs::read_to_string(folder.join("status")).ok()?;
    status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"))?.trim().parse().ok()
}
