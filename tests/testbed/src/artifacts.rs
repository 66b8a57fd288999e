//! The built programs and images that a run uses.

use crate::topology::Function;
use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// The environment variable that names an [`Artifacts`] file, for tests and evaluations that `cargo xtask` starts.
pub const ARTIFACTS_ENV: &str = "SLIM_ARTIFACTS";

/// Where the built programs and images are. Written by `cargo xtask`, read by the testbed.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Artifacts {
    /// The switch agent, `slim-switch`.
    pub switch: PathBuf,
    /// The controller, `slimctl`.
    pub slimctl: PathBuf,
    /// The load generator, `slim-load`.
    pub load: PathBuf,
    /// The line that loses packets, `slim-impair`.
    pub impair: PathBuf,
    /// The testbed's own program, `slim-testbed`.
    pub testbed: PathBuf,
    /// The network functions, by kind.
    pub functions: BTreeMap<String, FunctionArtifacts>,
}

/// What was built of a network function.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FunctionArtifacts {
    /// The ordinary program, for `--process`.
    pub program: PathBuf,
    /// The image: a folder with a kernel, an initramfs and a manifest. Runs with `--process` need none.
    pub image: Option<PathBuf>,
}

impl FunctionArtifacts {
    /// The image.
    ///
    /// # Errors
    /// If none was built.
    pub fn image(&self) -> Result<&Path> {
        self.image.as_deref().context("there is no image to boot: only programs were built")
    }
}

impl Artifacts {
    /// Reads the file at `path` and checks that everything it names exists.
    pub fn read(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        let artifacts: Self =
            serde_json::from_str(&text).with_context(|| format!("{} is not a list of artifacts", path.display()))?;
        artifacts.check()?;
        Ok(artifacts)
    }

    /// Reads the file that [`ARTIFACTS_ENV`] names.
    pub fn from_env() -> Result<Self> {
        let path = std::env::var_os(ARTIFACTS_ENV)
            .with_context(|| format!("{ARTIFACTS_ENV} is not set: run this through `cargo xtask test` or `cargo xtask eval`, which build and set it"))?;
        Self::read(Path::new(&path))
    }

    /// Writes the list to `path`.
    pub fn write(&self, path: &Path) -> Result<()> {
        let text = serde_json::to_string_pretty(self)?;
        std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
    }

    /// What was built of `function`.
    ///
    /// # Errors
    /// If nothing was.
    pub fn of(&self, function: Function) -> Result<&FunctionArtifacts> {
        let kind = function.kind();
        self.functions.get(kind).with_context(|| format!("the {kind} was not built"))
    }

    fn check(&self) -> Result<()> {
        let programs = [&self.switch, &self.slimctl, &self.load, &self.impair, &self.testbed];
        let functions = self.functions.values().flat_map(|built| [Some(&built.program), built.image.as_ref()]);
        for path in programs.into_iter().chain(functions.flatten()) {
            ensure!(path.exists(), "{} is missing: run `cargo xtask demo`, which builds it", path.display());
        }
        Ok(())
    }
}
