//! The order in which a kernel's modules have to be loaded, from what each says it depends on.

use anyhow::{Context, Result};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// What precedes the list of dependencies in a module.
const DEPENDS: &[u8] = b"\0depends=";

/// Those of `modules` that `wanted` names, each after what it depends on.
pub fn in_order(modules: &[PathBuf], wanted: &[&str]) -> Result<Vec<PathBuf>> {
    let by_name: BTreeMap<String, &PathBuf> = modules.iter().map(|path| (name(path), path)).collect();
    let mut order = Vec::new();
    for wanted in wanted {
        add(wanted, &by_name, &mut order)?;
    }
    Ok(order)
}

/// A module's name; its file's may have the other dash.
fn name(path: &Path) -> String {
    path.file_stem().unwrap_or_default().to_string_lossy().replace('-', "_")
}

fn add(name: &str, by_name: &BTreeMap<String, &PathBuf>, order: &mut Vec<PathBuf>) -> Result<()> {
    let path = *by_name.get(name).with_context(|| format!("the kernel has no module {name}"))?;
    if order.contains(path) {
        return Ok(());
    }
    let module = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    for dependency in depends(&module).with_context(|| format!("{} does not say what it needs", path.display()))? {
        add(&dependency.replace('-', "_"), by_name, order)?;
    }
    order.push(path.clone());
    Ok(())
}

/// The names after `depends=` in a module's information; `None` if there is no such word.
fn depends(module: &[u8]) -> Option<Vec<String>> {
    let at = module.windows(DEPENDS.len()).position(|window| window == DEPENDS)? + DEPENDS.len();
    let list = module.get(at..)?.split(|&byte| byte == 0).next()?;
    let list = String::from_utf8_lossy(list);
    Some(list.split(',').filter(|name| !name.is_empty()).map(str::to_owned).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_module_needs_comes_first_and_once() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let module = |file: &str, depends: &str| {
            let path = folder.path().join(file);
            fs::write(&path, format!("ELF\0license=GPL\0depends={depends}\0name=x\0")).expect("write");
            path
        };
        let modules = [
            module("vfio-pci.ko", "vfio-pci-core,irqbypass"),
            module("vfio-pci-core.ko", "irqbypass"),
            module("irqbypass.ko", ""),
            module("other.ko", ""),
        ];
        let order = in_order(&modules, &["vfio_pci", "irqbypass"]).expect("complete");
        assert_eq!(order, [modules[2].clone(), modules[1].clone(), modules[0].clone()]);
        assert!(in_order(&modules, &["igb"]).expect_err("absent").to_string().contains("no module igb"));
        fs::write(folder.path().join("other.ko"), "ELF").expect("write");
        assert!(in_order(&modules, &["other"]).is_err(), "not a module");
    }
}
