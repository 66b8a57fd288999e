//! Builds everything a run of the testbed uses: the programs of the host, the image if one is to be booted, and the list
//! of where they are.

use crate::setup::packages::Need;
use crate::setup::{self, Policy};
use crate::{cargo, image, paths, vnf};
use anyhow::Result;
use slim_testbed::artifacts::{Artifacts, FunctionArtifacts};
use slim_testbed::topology::Function;
use std::collections::BTreeMap;
use std::path::PathBuf;

/// How the network functions of a run are started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Instances {
    /// As ordinary processes: neither an image nor a kernel is built.
    Processes,
    /// As booted images.
    Images,
}

impl Instances {
    /// What `--process` says.
    pub fn as_asked(process: bool) -> Self {
        if process { Self::Processes } else { Self::Images }
    }

    /// What must be installed for a run.
    pub fn needs(self) -> &'static [Need] {
        match self {
            Self::Processes => &[Need::Dpdk, Need::Testbed],
            Self::Images => &[Need::Dpdk, Need::Testbed, Need::Kernel, Need::Qemu],
        }
    }
}

/// The packages with the host's programs, and the features those need.
const PACKAGES: [&str; 3] = ["slim-switch", "slim-testbed", "slim-controller"];
const FEATURES: [&str; 2] = ["slim-switch/agent", "slim-testbed/load"];

/// Installs and builds what is missing, of these network functions. Returns the list and the file that holds it, for
/// [`ARTIFACTS_ENV`](slim_testbed::artifacts::ARTIFACTS_ENV).
pub fn ensure(instances: Instances, functions: &[Function], policy: Policy) -> Result<(Artifacts, PathBuf)> {
    setup::ensure(instances.needs(), policy)?;
    let vnfs = functions.iter().map(|function| vnf::find(function.kind())).collect::<Result<Vec<_>>>()?;
    let release = paths::target().join("release");
    let mut built = BTreeMap::new();
    for vnf in &vnfs {
        let image = match instances {
            Instances::Processes => None,
            Instances::Images => Some(image::ensure(vnf)?.0),
        };
        built.insert(vnf.name.to_owned(), FunctionArtifacts { program: release.join(vnf.program), image });
    }
    let mut build = cargo::cargo();
    build.args(["build", "--release", "--bins"]);
    for package in PACKAGES.into_iter().chain(vnfs.iter().map(|vnf| vnf.package)) {
        build.args(["--package", package]);
    }
    let features = FEATURES.into_iter().map(str::to_owned);
    for feature in features.chain(vnfs.iter().map(|vnf| format!("{}/image", vnf.package))) {
        build.args(["--features", &feature]);
    }
    cargo::step("building the switch agent, the controller and the testbed", &mut build)?;
    let artifacts = Artifacts {
        switch: release.join("slim-switch"),
        slimctl: release.join("slimctl"),
        load: release.join("slim-load"),
        impair: release.join("slim-impair"),
        testbed: release.join("slim-testbed"),
        functions: built,
    };
    let file = paths::target().join("slim-artifacts.json");
    artifacts.write(&file)?;
    Ok((Artifacts::read(&file)?, file))
}
