//! Builds everything a run of the testbed uses: the image, the programs of the host, and the list of where they are.

use crate::setup::packages::Need;
use crate::setup::{self, Policy};
use crate::{cargo, image, paths, vnf};
use anyhow::Result;
use slim_testbed::artifacts::Artifacts;
use std::path::PathBuf;

/// What must be installed for all of it.
pub const NEEDS: [Need; 4] = [Need::Dpdk, Need::Kernel, Need::Qemu, Need::Testbed];

/// The packages with the host's programs, and the features those need.
const PACKAGES: [&str; 4] = ["slim-switch", "slim-testbed", "slim-controller", "slim-nat"];
const FEATURES: &str = "slim-switch/agent,slim-testbed/load,slim-nat/image";

/// Installs and builds what is missing. Returns the list and the file that holds it, for
/// [`ARTIFACTS_ENV`](slim_testbed::artifacts::ARTIFACTS_ENV).
pub fn ensure(policy: Policy) -> Result<(Artifacts, PathBuf)> {
    setup::ensure(&NEEDS, policy)?;
    let (nat_image, _) = image::ensure(vnf::find("nat")?)?;
    let mut build = cargo::cargo();
    build.args(["build", "--release", "--bins", "--features", FEATURES]);
    for package in PACKAGES {
        build.args(["--package", package]);
    }
    cargo::step("building the switch agent, the controller and the testbed", &mut build)?;
    let release = paths::target().join("release");
    let artifacts = Artifacts {
        switch: release.join("slim-switch"),
        slimctl: release.join("slimctl"),
        load: release.join("slim-load"),
        testbed: release.join("slim-testbed"),
        nat: release.join("nat"),
        nat_image,
    };
    let file = paths::target().join("slim-artifacts.json");
    artifacts.write(&file)?;
    Ok((Artifacts::read(&file)?, file))
}
