//! Replays every file of every corpus through its target, on any toolchain.

use slim_fuzz_targets::TARGETS;
use std::collections::BTreeSet;
use std::fs;
use std::panic::catch_unwind;
use std::path::{Path, PathBuf};

fn fuzz() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz")
}

/// The names of what is in a folder, without extensions.
fn listed(folder: &str) -> BTreeSet<String> {
    let entries = fs::read_dir(fuzz().join(folder)).unwrap();
    entries.map(|entry| entry.unwrap().path().file_stem().unwrap().to_string_lossy().into_owned()).collect()
}

#[test]
fn every_target_has_a_corpus_and_a_binary() {
    let targets: BTreeSet<String> = TARGETS.iter().map(|target| target.name.to_owned()).collect();
    assert_eq!(listed("fuzz_targets"), targets);
    assert_eq!(listed("corpus"), targets);
}

#[test]
fn no_file_of_a_corpus_is_a_finding() {
    let mut findings = Vec::new();
    for target in TARGETS {
        let mut files: Vec<PathBuf> =
            fs::read_dir(fuzz().join("corpus").join(target.name)).unwrap().map(|entry| entry.unwrap().path()).collect();
        files.sort();
        assert!(!files.is_empty(), "the corpus of {} is empty", target.name);
        for file in &files {
            let bytes = fs::read(file).unwrap();
            if catch_unwind(|| (target.run)(&bytes)).is_err() {
                findings.push(file.clone());
            }
        }
        println!("{}: {} inputs", target.name, files.len());
    }
    assert!(findings.is_empty(), "{findings:#?}");
}
