//! The fragments of `kernel-cfg/`: reading them strictly, and checking that what they ask for took effect.
//!
//! A fragment holds comments, empty lines and options. An option without a comment above it is an error: the
//! reason is part of the configuration.

use anyhow::{Context, Result, bail, ensure};
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

/// One fragment.
#[derive(Debug, PartialEq, Eq)]
pub struct Fragment {
    /// Its file name.
    pub name: String,
    /// The options it asks for, in order.
    pub options: Vec<Wanted>,
}

/// One option that a fragment asks for.
#[derive(Debug, PartialEq, Eq)]
pub struct Wanted {
    /// Its name, with the prefix `CONFIG_`.
    pub name: String,
    /// Its value, `None` for an option that must be off.
    pub value: Option<String>,
}

/// Reads all fragments in `folder`, in the order of their names.
pub fn read_all(folder: &Path) -> Result<Vec<Fragment>> {
    let mut paths: Vec<_> = fs::read_dir(folder)
        .with_context(|| format!("cannot read {}", folder.display()))?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.extension().is_some_and(|extension| extension == "config"))
        .collect();
    paths.sort();
    ensure!(!paths.is_empty(), "there are no fragments in {}", folder.display());
    let mut fragments = Vec::new();
    let mut seen: BTreeMap<String, String> = BTreeMap::new();
    for path in paths {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let fragment = parse(name, &text)?;
        for option in &fragment.options {
            if let Some(other) = seen.insert(option.name.clone(), fragment.name.clone()) {
                bail!("{} is set in {other} and again in {}", option.name, fragment.name);
            }
        }
        fragments.push(fragment);
    }
    Ok(fragments)
}

/// Reads the fragment `path` and puts it behind `fragments`. What it asks for holds, whatever they ask for.
pub fn add(fragments: &mut Vec<Fragment>, path: &Path) -> Result<()> {
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let text = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    let added = parse(name, &text)?;
    for fragment in fragments.iter_mut() {
        fragment.options.retain(|option| added.options.iter().all(|other| other.name != option.name));
    }
    fragments.push(added);
    Ok(())
}

/// Reads one fragment.
pub fn parse(name: String, text: &str) -> Result<Fragment> {
    let mut options = Vec::new();
    let mut reason = false;
    for (number, line) in text.lines().enumerate() {
        let place = || format!("{name}:{}", number + 1);
        let line = line.trim_end();
        let wanted = if let Some(option) = line.strip_prefix("# ").and_then(|line| line.strip_suffix(" is not set")) {
            Wanted { name: option.to_owned(), value: None }
        } else if line.is_empty() {
            reason = false;
            continue;
        } else if line.starts_with('#') {
            reason = true;
            continue;
        } else if let Some((option, value)) = line.split_once('=') {
            Wanted { name: option.to_owned(), value: Some(value.to_owned()) }
        } else {
            bail!("{}: neither a comment nor an option: {line}", place());
        };
        let plain = |c: char| c.is_ascii_alphanumeric() || c == '_';
        ensure!(
            wanted.name.strip_prefix("CONFIG_").is_some_and(|rest| !rest.is_empty() && rest.chars().all(plain)),
            "{}: {} is not the name of an option",
            place(),
            wanted.name
        );
        ensure!(
            wanted.value.as_deref() != Some("n"),
            "{}: an option is switched off by `# {} is not set`",
            place(),
            wanted.name
        );
        ensure!(reason, "{}: {} has no comment above it that gives its reason", place(), wanted.name);
        options.push(wanted);
    }
    Ok(Fragment { name, options })
}

/// The input of `make KCONFIG_ALLCONFIG=… allnoconfig`.
pub fn merged(fragments: &[Fragment]) -> String {
    let line = |option: &Wanted| match &option.value {
        Some(value) => format!("{}={value}\n", option.name),
        None => format!("# {} is not set\n", option.name),
    };
    fragments.iter().flat_map(|fragment| &fragment.options).map(line).collect()
}

/// Fails unless everything the fragments ask for stands in `config`, the resolved configuration.
pub fn verify(fragments: &[Fragment], config: &str) -> Result<()> {
    let resolved: BTreeMap<&str, &str> =
        config.lines().filter(|line| !line.starts_with('#')).filter_map(|line| line.split_once('=')).collect();
    let mut problems = Vec::new();
    for fragment in fragments {
        for option in &fragment.options {
            let found = resolved.get(option.name.as_str()).copied();
            if found != option.value.as_deref() {
                problems.push(format!(
                    "    {} of {}: wanted {}, got {}",
                    option.name,
                    fragment.name,
                    option.value.as_deref().unwrap_or("off"),
                    found.unwrap_or("off")
                ));
            }
        }
    }
    ensure!(
        problems.is_empty(),
        "these options did not take effect; they do not exist in this kernel, or something they depend on is off:\n{}",
        problems.join("\n")
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_added_fragment_asks_for_holds() {
        let base = parse("a.config".to_owned(), "# Why.\n# CONFIG_A is not set\nCONFIG_B=y\n").expect("valid");
        let mut fragments = vec![base];
        let folder = tempfile::tempdir().expect("temporary folder");
        let path = folder.path().join("more.config");
        fs::write(&path, "# Because.\nCONFIG_A=y\n").expect("write");
        add(&mut fragments, &path).expect("valid");
        assert_eq!(merged(&fragments), "CONFIG_B=y\nCONFIG_A=y\n");
        verify(&fragments, "CONFIG_A=y\nCONFIG_B=y\n").expect("as asked for");
        assert!(verify(&fragments, "CONFIG_B=y\n").is_err());
    }

    fn parsed(text: &str) -> Result<Fragment> {
        parse("test.config".to_owned(), text)
    }

    fn error(text: &str) -> String {
        format!("{:#}", parsed(text).expect_err("must be refused"))
    }

    #[test]
    fn options_follow_their_reasons() {
        let fragment = parsed("# Title.\n\n# Why.\nCONFIG_A=y\nCONFIG_B=\"x\"\n# Why not.\n# CONFIG_C is not set\n")
            .expect("valid");
        let wanted: Vec<_> = fragment.options.iter().map(|o| (o.name.as_str(), o.value.as_deref())).collect();
        assert_eq!(wanted, [("CONFIG_A", Some("y")), ("CONFIG_B", Some("\"x\"")), ("CONFIG_C", None)]);
    }

    #[test]
    fn what_is_not_an_option_is_refused_with_its_line() {
        assert!(error("# Why.\nCONFIG_A\n").starts_with("test.config:2: neither"));
        assert!(error("# Why.\nA=y\n").contains("A is not the name"));
        assert!(error("# Why.\nCONFIG_A=n\n").contains("# CONFIG_A is not set"));
    }

    #[test]
    fn an_option_without_a_reason_is_refused() {
        assert!(error("CONFIG_A=y\n").contains("CONFIG_A has no comment"));
        assert!(error("# Title.\n\nCONFIG_A=y\n").contains("CONFIG_A has no comment"));
    }

    #[test]
    fn an_option_without_effect_is_named_with_its_fragment() {
        let fragments = [parsed("# Why.\nCONFIG_A=y\n# CONFIG_B is not set\nCONFIG_C=3\n").expect("valid")];
        assert!(verify(&fragments, "CONFIG_A=y\n# CONFIG_B is not set\nCONFIG_C=3\n").is_ok());
        assert!(verify(&fragments, "CONFIG_A=y\nCONFIG_C=3\n").is_ok(), "an absent option is off");
        let text = format!("{:#}", verify(&fragments, "CONFIG_B=y\nCONFIG_C=4\n").expect_err("nothing took effect"));
        assert!(text.contains("CONFIG_A of test.config: wanted y, got off"));
        assert!(text.contains("CONFIG_B of test.config: wanted off, got y"));
        assert!(text.contains("CONFIG_C of test.config: wanted 3, got 4"));
    }

    #[test]
    fn the_repository_s_fragments_are_well_formed() {
        let fragments = read_all(&crate::paths::root().join("kernel-cfg")).expect("kernel-cfg/ is well formed");
        assert!(fragments.iter().any(|fragment| fragment.options.iter().any(|o| o.name == "CONFIG_VFIO_NOIOMMU")));
    }
}
