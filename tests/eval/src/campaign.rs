//! Runs the cells that have not been run, on all processors, and keeps each run as soon as it ends.

use crate::backend::Backend;
use crate::grid::Cell;
use crate::record::Run;
use crate::store::Store;
use anyhow::Result;
use indicatif::{ProgressBar, ProgressStyle};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::time::Duration;

/// Cells that gave no result, each with the reason.
pub type Failures = Vec<(Cell, String)>;

/// Runs those of `cells` that `store` does not have.
///
/// A cell that gives no result does not keep others from being run.
///
/// # Errors
/// If a run cannot be kept.
pub fn run(backend: &dyn Backend, cells: &[Cell], store: &mut Store) -> Result<Failures> {
    let open: Vec<Cell> = cells.iter().filter(|cell| !store.has(cell)).copied().collect();
    let bar = progress(backend.name(), cells.len(), cells.len() - open.len());
    let next = AtomicUsize::new(0);
    let (sender, receiver) = mpsc::channel::<(Cell, Result<Run>)>();
    let mut failures = Failures::new();
    std::thread::scope(|scope| {
        for _ in 0..backend.jobs().min(open.len()) {
            let (sender, next, open, bar) = (sender.clone(), &next, &open, &bar);
            scope.spawn(move || {
                while let Some(cell) = open.get(next.fetch_add(1, Ordering::Relaxed)) {
                    bar.set_message(cell.setup.to_string());
                    // Nobody listens any more if a run could not be kept.
                    if sender.send((*cell, backend.run(cell))).is_err() {
                        return;
                    }
                }
            });
        }
        drop(sender);
        for (cell, result) in receiver {
            match result {
                Ok(run) => store.add(run)?,
                Err(error) => {
                    bar.suspend(|| eprintln!("    {}, repetition {}: {error:#}", cell.setup, cell.repetition));
                    failures.push((cell, format!("{error:#}")));
                }
            }
            bar.inc(1);
        }
        anyhow::Ok(())
    })?;
    bar.finish_and_clear();
    Ok(failures)
}

fn progress(name: &str, cells: usize, done: usize) -> ProgressBar {
    let bar = ProgressBar::new(cells as u64).with_position(done as u64);
    let template = "    {prefix} {bar:30} {pos}/{len} runs, {elapsed} gone, {eta} to go: {wide_msg}";
    // The template is a constant that fits.
    bar.set_style(ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()));
    bar.set_prefix(name.to_owned());
    // What was done before says nothing about how long the rest takes.
    bar.reset_eta();
    bar.enable_steady_tick(Duration::from_millis(500));
    bar
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::grid::Extent;
    use crate::record::tests::run as a_run;
    use std::sync::Mutex;

    /// Fails at 300 Mbit/s and notes what it was asked for.
    struct Noting(Mutex<Vec<u32>>);

    impl Backend for Noting {
        fn name(&self) -> &'static str {
            "noting"
        }

        fn fingerprint(&self) -> String {
            "noting".into()
        }

        fn jobs(&self) -> usize {
            2
        }

        fn plan(&self, _: Extent) -> Vec<Cell> {
            [100, 200, 300].map(|rate| a_run(rate, 0).cell).into()
        }

        fn run(&self, cell: &Cell) -> Result<Run> {
            let rate = cell.setup.rate_mbit;
            self.0.lock().unwrap().push(rate);
            anyhow::ensure!(rate != 300, "nothing came of it");
            Ok(a_run(rate, cell.repetition))
        }
    }

    #[test]
    fn what_is_done_is_not_run_again_and_what_failed_is() {
        let folder = tempfile::tempdir().unwrap();
        let backend = Noting(Mutex::default());
        for expected in [vec![100, 200, 300], vec![300]] {
            let mut store = Store::open(folder.path(), Some(&backend.fingerprint())).unwrap();
            let failures = run(&backend, &backend.plan(Extent::Quick), &mut store).unwrap();
            assert_eq!(failures.len(), 1);
            assert_eq!(failures[0].1, "nothing came of it");
            let mut asked = std::mem::take(&mut *backend.0.lock().unwrap());
            asked.sort_unstable();
            assert_eq!(asked, expected);
        }
    }
}
