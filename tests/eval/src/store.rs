//! Runs that are done: one JSON line each, appended as soon as the run ends.
//!
//! Whatever interrupts an evaluation loses no more than the runs under way. A line cut short by that is left out, and so
//! are runs whose fingerprint is not the back-end's any more.

use crate::grid::Cell;
use crate::record::Run;
use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::{File, OpenOptions, create_dir_all};
use std::io::{BufRead, BufReader, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

/// A line of the file.
#[derive(Debug, Serialize, Deserialize)]
struct Line {
    fingerprint: String,
    run: Run,
}

/// The runs of one back-end.
#[derive(Debug)]
pub struct Store {
    path: PathBuf,
    file: File,
    runs: BTreeMap<Cell, Run>,
    fingerprint: String,
    left_out: usize,
}

impl Store {
    /// Opens the runs in `folder`, which is made if need be. Only those with `fingerprint` are known, all if it is `None`.
    ///
    /// # Errors
    /// If the file cannot be read or written.
    pub fn open(folder: &Path, fingerprint: Option<&str>) -> Result<Self> {
        create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
        let path = folder.join("runs.jsonl");
        let open = OpenOptions::new().read(true).append(true).create(true).open(&path);
        let mut file = open.with_context(|| format!("cannot open {}", path.display()))?;
        let mut runs = BTreeMap::new();
        let mut left_out = 0;
        let mut whole = true;
        for line in BufReader::new(&file).split(b'\n') {
            let line = line.with_context(|| format!("cannot read {}", path.display()))?;
            whole = false;
            match serde_json::from_slice::<Line>(&line) {
                Ok(line) if fingerprint.is_none_or(|wanted| line.fingerprint == wanted) => {
                    runs.insert(line.run.cell, line.run);
                }
                Ok(_) | Err(_) => left_out += 1,
            }
        }
        if !whole {
            // A line that was cut short must not swallow the next one.
            let end = file.seek(SeekFrom::End(0))?;
            let mut last = [0];
            file.seek(SeekFrom::Start(end.saturating_sub(1)))?;
            std::io::Read::read_exact(&mut file, &mut last)?;
            if last != *b"\n" {
                file.write_all(b"\n")?;
            }
        }
        Ok(Self { path, file, runs, fingerprint: fingerprint.unwrap_or_default().to_owned(), left_out })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Lines of other builds, and lines that were cut short.
    pub fn left_out(&self) -> usize {
        self.left_out
    }

    /// Whether this cell has been run.
    pub fn has(&self, cell: &Cell) -> bool {
        self.runs.contains_key(cell)
    }

    /// Everything that has been run.
    pub fn runs(&self) -> impl Iterator<Item = &Run> {
        self.runs.values()
    }

    /// Keeps a run.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn add(&mut self, run: Run) -> Result<()> {
        let line = Line { fingerprint: self.fingerprint.clone(), run };
        let mut bytes = serde_json::to_vec(&line).context("a run cannot be written as JSON")?;
        bytes.push(b'\n');
        self.file.write_all(&bytes).with_context(|| format!("cannot write {}", self.path.display()))?;
        self.runs.insert(line.run.cell, line.run);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::tests::run;

    #[test]
    fn what_was_done_is_known_after_reopening() {
        let folder = tempfile::tempdir().unwrap();
        let mut store = Store::open(folder.path(), Some("a")).unwrap();
        assert_eq!(store.runs().count(), 0);
        store.add(run(100, 0)).unwrap();
        store.add(run(200, 1)).unwrap();
        let store = Store::open(folder.path(), Some("a")).unwrap();
        assert!(store.has(&run(100, 0).cell) && store.has(&run(200, 1).cell) && !store.has(&run(100, 1).cell));
        assert_eq!(store.runs().cloned().collect::<Vec<_>>(), [run(100, 0), run(200, 1)]);
    }

    #[test]
    fn runs_of_another_build_are_done_again() {
        let folder = tempfile::tempdir().unwrap();
        Store::open(folder.path(), Some("a")).unwrap().add(run(100, 0)).unwrap();
        let store = Store::open(folder.path(), Some("b")).unwrap();
        assert_eq!((store.runs().count(), store.left_out()), (0, 1));
        assert_eq!(Store::open(folder.path(), None).unwrap().runs().count(), 1);
    }

    #[test]
    fn a_line_cut_short_costs_that_run_only() {
        let folder = tempfile::tempdir().unwrap();
        let mut store = Store::open(folder.path(), Some("a")).unwrap();
        store.add(run(100, 0)).unwrap();
        store.add(run(200, 0)).unwrap();
        let path = store.path().to_owned();
        let bytes = std::fs::read(&path).unwrap();
        std::fs::write(&path, &bytes[..bytes.len() - 20]).unwrap();
        let mut store = Store::open(folder.path(), Some("a")).unwrap();
        assert!(store.has(&run(100, 0).cell) && !store.has(&run(200, 0).cell));
        store.add(run(200, 0)).unwrap();
        assert_eq!(Store::open(folder.path(), Some("a")).unwrap().runs().count(), 2);
    }
}
