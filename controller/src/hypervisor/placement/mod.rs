//! Where on the host a guest runs: which CPUs its virtual ones have, and where its memory lies.
//!
//! Under load a network function polls, and each of its virtual CPUs keeps one of the host's busy. It shall have that for itself, near
//! the NIC that it was given, with its memory there too. [`Placement::choose`] reads how the host is made and what others
//! have; nothing is changed by it.

mod cpus;
mod taken;

pub use cpus::{CpuList, InvalidCpus};

use super::{Launch, Nic};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;
use std::fs;
use std::path::Path;
use std::str::FromStr;

/// A huge page, in MiB: what x86 has besides pages of 1 GiB, which are larger than our guests.
const HUGE_PAGE_MB: u32 = 2;

/// Which of the host's CPUs a guest's virtual ones may have.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum CpuChoice {
    /// With passed-through functions, isolated CPUs of their NUMA node, one for each virtual one; or, where there are not
    /// enough, all of that node. Any CPU otherwise.
    #[default]
    Auto,
    /// Any: that is left to the host's kernel.
    Off,
    /// Some of these, one for each virtual one, that no other program is pinned to.
    From(CpuList),
}

impl FromStr for CpuChoice {
    type Err = InvalidCpus;

    fn from_str(text: &str) -> Result<Self, InvalidCpus> {
        match text {
            "auto" => Ok(Self::Auto),
            "off" => Ok(Self::Off),
            list => list.parse().map(Self::From),
        }
    }
}

impl fmt::Display for CpuChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Off => f.write_str("off"),
            Self::From(list) => list.fmt(f),
        }
    }
}

crate::net::serde_as_text!(CpuChoice);

/// Whether a guest's memory lies in huge pages that the host has reserved.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum HugePages {
    /// If enough of them are free.
    #[default]
    Auto,
    /// Yes, or it does not start.
    On,
    /// No. The kernel may use transparent ones all the same.
    Off,
}

/// The text is neither `auto`, `on` nor `off`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is neither auto, on nor off")]
pub struct InvalidHugePages(String);

impl FromStr for HugePages {
    type Err = InvalidHugePages;

    fn from_str(text: &str) -> Result<Self, InvalidHugePages> {
        match text {
            "auto" => Ok(Self::Auto),
            "on" => Ok(Self::On),
            "off" => Ok(Self::Off),
            _ => Err(InvalidHugePages(text.to_owned())),
        }
    }
}

/// Why a guest cannot be placed as was asked for, and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlacementError {
    /// CPUs that are not there.
    #[error("this host has no CPU {missing}; those that are online are {online}")]
    NoCpu {
        /// Those asked for that it does not have.
        missing: CpuList,
        /// Those it has.
        online: CpuList,
    },
    /// Too few CPUs.
    #[error("{vcpus} virtual CPUs need as many of the host's, and of {asked} there are {free}{others}")]
    TooFewCpus {
        /// How many are needed.
        vcpus: u8,
        /// Those asked for.
        asked: CpuList,
        /// How many of them can be had.
        free: usize,
        /// Who has the others, in words.
        others: String,
    },
    /// Too few huge pages.
    #[error(
        "{need} huge pages of 2 MiB are needed{place}, and {free} are free: `echo {more} | sudo tee {file}` reserves them"
    )]
    TooFewHugePages {
        /// How many are needed.
        need: u64,
        /// Where, in words.
        place: String,
        /// How many are free there.
        free: u64,
        /// How many there would have to be, used ones included.
        more: u64,
        /// The file that says so.
        file: String,
    },
    /// The guest's memory does not consist of huge pages.
    #[error("{0} MiB of memory cannot be in huge pages of 2 MiB: choose an even number")]
    UnevenMemory(u32),
}

/// Where a guest runs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Placement {
    /// For each virtual CPU those of the host that it may run on; none if that is left to the host.
    pub vcpus: Vec<CpuList>,
    /// The NUMA node its memory comes from; `None` if that is left to the host.
    pub node: Option<u32>,
    /// Whether its memory lies in reserved huge pages.
    pub huge_pages: bool,
}

impl fmt::Display for Placement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut parts = Vec::new();
        match &self.vcpus[..] {
            [] => {}
            [first, rest @ ..] if rest.iter().all(|other| other == first) && (first.len() > 1 || rest.is_empty()) => {
                parts.push(format!("virtual CPUs on {first}"));
            }
            each => {
                let each: Vec<String> = each.iter().map(CpuList::to_string).collect();
                parts.push(format!("virtual CPUs on {}", each.join(", ")));
            }
        }
        parts.extend(self.node.map(|node| format!("memory on NUMA node {node}")));
        parts.extend(self.huge_pages.then(|| "memory in huge pages".to_owned()));
        f.write_str(&parts.join("; "))
    }
}

impl Placement {
    /// Whether nothing was chosen.
    pub fn is_anywhere(&self) -> bool {
        *self == Self::default()
    }

    /// Chooses for `launch`, on the host whose files are below `root`. `allowed` says whether we may use a CPU: it may be
    /// outside the control group we are in.
    ///
    /// # Errors
    /// What was asked for explicitly cannot be had.
    pub fn choose(root: &Path, launch: &Launch, allowed: impl Fn(usize) -> bool) -> Result<Self, PlacementError> {
        let topology = Topology::read(root);
        let nic = nic_node(root, launch);
        let passed = launch.nics.iter().any(|nic| matches!(nic, Nic::Passthrough { .. }));
        let (vcpus, node) = match &launch.cpus {
            CpuChoice::Off => (Vec::new(), None),
            CpuChoice::Auto if !passed => (Vec::new(), None),
            CpuChoice::Auto => (topology.near(nic, launch.vcpus, &free(root, &allowed)), nic),
            CpuChoice::From(list) => {
                let missing = list.filter(|cpu| !topology.online.contains(cpu));
                if !missing.is_empty() {
                    return Err(PlacementError::NoCpu { missing, online: topology.online });
                }
                let mut free: Vec<usize> = list.filter(free(root, &allowed)).iter().collect();
                if free.len() < usize::from(launch.vcpus) {
                    return Err(too_few(root, launch.vcpus, list, free.len()));
                }
                // Those near the NIC first; a stable sort.
                free.sort_by_key(|&cpu| nic.is_some() && topology.node_of(cpu) != nic);
                free.truncate(launch.vcpus.into());
                let chosen: CpuList = free.iter().copied().collect();
                (free.into_iter().map(|cpu| CpuList::from_iter([cpu])).collect(), topology.node_around(&chosen))
            }
        };
        // Where there is one node only, there is nothing to choose.
        let node = node.filter(|_| topology.nodes.len() > 1);
        let huge_pages = huge_pages(root, launch, node)?;
        Ok(Self { vcpus, node, huge_pages })
    }
}

/// Whether a thread of this process may run on `cpu`. Tried in a thread of its own: a control group's CPUs can be seen
/// nowhere else reliably.
pub(super) fn may_run_on(cpu: usize) -> bool {
    let tried = std::thread::spawn(move || {
        let set = CpuList::from_iter([cpu]).set()?;
        nix::sched::sched_setaffinity(nix::unistd::Pid::from_raw(0), &set).ok()
    });
    tried.join().is_ok_and(|done| done.is_some())
}

/// Says of a CPU whether it can be had alone.
fn free(root: &Path, allowed: &impl Fn(usize) -> bool) -> impl Fn(usize) -> bool {
    let taken = taken::taken(root);
    move |cpu| !taken.contains_key(&cpu) && allowed(cpu)
}

fn too_few(root: &Path, vcpus: u8, asked: &CpuList, free: usize) -> PlacementError {
    let taken = taken::taken(root);
    let others: Vec<String> =
        asked.iter().filter_map(|cpu| Some(format!("CPU {cpu} is that of {}", taken.get(&cpu)?))).collect();
    let others = match (others.is_empty(), free < asked.len()) {
        (false, _) => format!(" free ones: {}", others.join(", ")),
        (true, true) => " that this process may use: its control group leaves out the others".to_owned(),
        (true, false) => String::new(),
    };
    PlacementError::TooFewCpus { vcpus, asked: asked.clone(), free, others }
}

/// The NUMA node of the first passed-through function that has one.
fn nic_node(root: &Path, launch: &Launch) -> Option<u32> {
    launch.nics.iter().find_map(|nic| match nic {
        Nic::Passthrough { address } => {
            let file = root.join(format!("sys/bus/pci/devices/{address}/numa_node"));
            // -1 where the firmware does not tell.
            fs::read_to_string(file).ok()?.trim().parse().ok()
        }
        _ => None,
    })
}

/// The host's CPUs.
struct Topology {
    online: CpuList,
    isolated: CpuList,
    /// The nodes and their CPUs.
    nodes: Vec<(u32, CpuList)>,
}

impl Topology {
    fn read(root: &Path) -> Self {
        let list = |file: &str| -> CpuList {
            let text = fs::read_to_string(root.join(file)).unwrap_or_default();
            text.parse().unwrap_or_default()
        };
        let online = list("sys/devices/system/cpu/online");
        let entries = fs::read_dir(root.join("sys/devices/system/node")).into_iter().flatten().flatten();
        let mut nodes: Vec<(u32, CpuList)> = entries
            .filter_map(|entry| {
                let node = entry.file_name().to_str()?.strip_prefix("node")?.parse().ok()?;
                Some((node, list(&format!("sys/devices/system/node/node{node}/cpulist"))))
            })
            .collect();
        nodes.sort_by_key(|(node, _)| *node);
        Self { online, isolated: list("sys/devices/system/cpu/isolated"), nodes }
    }

    fn node_of(&self, cpu: usize) -> Option<u32> {
        self.nodes.iter().find(|(_, cpus)| cpus.contains(cpu)).map(|(node, _)| *node)
    }

    /// The node that has all of `cpus`.
    fn node_around(&self, cpus: &CpuList) -> Option<u32> {
        self.nodes.iter().find(|(_, of_node)| cpus.is_in(of_node)).map(|(node, _)| *node)
    }

    /// CPUs near `node`, for each virtual one: an isolated one alone, else what of the node is not isolated. None where
    /// there is no such thing as near.
    fn near(&self, node: Option<u32>, vcpus: u8, free: &impl Fn(usize) -> bool) -> Vec<CpuList> {
        let of_node = self.nodes.iter().find(|(known, _)| Some(*known) == node).map(|(_, cpus)| cpus);
        let close = |cpu: usize| self.online.contains(cpu) && of_node.is_none_or(|cpus| cpus.contains(cpu));
        let alone: Vec<CpuList> = self
            .isolated
            .iter()
            .filter(|&cpu| close(cpu) && free(cpu))
            .take(vcpus.into())
            .map(|cpu| CpuList::from_iter([cpu]))
            .collect();
        if alone.len() == usize::from(vcpus) {
            return alone;
        }
        let shared = self.online.filter(|cpu| close(cpu) && !self.isolated.contains(cpu));
        match shared.is_empty() || self.nodes.len() < 2 || of_node.is_none() {
            true => Vec::new(),
            false => vec![shared; vcpus.into()],
        }
    }
}

/// Whether the guest's memory comes from reserved huge pages.
fn huge_pages(root: &Path, launch: &Launch, node: Option<u32>) -> Result<bool, PlacementError> {
    if launch.huge_pages == HugePages::Off {
        return Ok(false);
    }
    let insists = launch.huge_pages == HugePages::On;
    if !launch.memory_mb.is_multiple_of(HUGE_PAGE_MB) {
        return if insists { Err(PlacementError::UnevenMemory(launch.memory_mb)) } else { Ok(false) };
    }
    let (folder, place) = match node {
        Some(node) => (format!("sys/devices/system/node/node{node}"), format!(" on NUMA node {node}")),
        None => ("sys/kernel/mm".to_owned(), String::new()),
    };
    let folder = format!("{folder}/hugepages/hugepages-2048kB");
    let number = |name: &str| -> u64 {
        fs::read_to_string(root.join(&folder).join(name)).ok().and_then(|text| text.trim().parse().ok()).unwrap_or(0)
    };
    // Reserved by somebody who has not touched them yet; counted for the whole host only.
    let free = number("free_hugepages").saturating_sub(number("resv_hugepages"));
    let need = u64::from(launch.memory_mb / HUGE_PAGE_MB);
    match free >= need {
        true => Ok(true),
        false if insists => {
            let more = number("nr_hugepages").saturating_sub(free) + need;
            Err(PlacementError::TooFewHugePages { need, place, free, more, file: format!("/{folder}/nr_hugepages") })
        }
        false => Ok(false),
    }
}

#[cfg(test)]
mod tests;
