//! Where inputs are read and outputs go.

use anyhow::{Context, Result};
use std::path::{Path, PathBuf};

/// The workspace's root folder.
pub fn root() -> PathBuf {
    let manifest =
        std::env::var_os("CARGO_MANIFEST_DIR").map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
    manifest.parent().map_or_else(|| PathBuf::from("."), Path::to_path_buf)
}

/// Cargo's output folder; images go below it.
pub fn target() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), |dir| root().join(dir))
}

/// The folder of one network function's image.
pub fn image(vnf: &str) -> PathBuf {
    target().join("images").join(vnf)
}

/// The folder for what is expensive and outlives a clone: `$SLIM_CACHE`, else `slim` in the user's cache folder.
pub fn cache() -> Result<PathBuf> {
    if let Some(dir) = std::env::var_os("SLIM_CACHE") {
        return std::path::absolute(dir).context("SLIM_CACHE is not a usable path");
    }
    if let Some(dir) = std::env::var_os("XDG_CACHE_HOME").filter(|dir| !dir.is_empty()) {
        return Ok(PathBuf::from(dir).join("slim"));
    }
    let home = std::env::home_dir().context("there is no home folder: set SLIM_CACHE to a folder for the kernel")?;
    Ok(home.join(".cache/slim"))
}
