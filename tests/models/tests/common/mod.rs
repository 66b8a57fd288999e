//! How the models are run.
#![allow(dead_code, reason = "each test binary uses a part of it")]

use std::process::Command;

/// Set for the process that runs a model which is to fail.
const CHILD: &str = "SLIM_MODEL_CHILD";

/// Takes the model through every interleaving with at most this many preemptions: where one goes wrong, two or three
/// suffice to show it.
const PREEMPTIONS: usize = 3;

fn check(model: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(PREEMPTIONS);
    builder.max_branches = 20_000;
    builder.check(model);
}

/// No interleaving goes wrong.
pub fn holds(model: impl Fn() + Sync + Send + 'static) {
    check(model);
}

/// Some interleaving goes wrong, and `complaint` is part of what is said about it: the model can fail.
///
/// In a process of its own, for loom ends it where threads are left in the middle of something.
pub fn finds_a_fault(complaint: &str, model: impl Fn() + Sync + Send + 'static) {
    if std::env::var_os(CHILD).is_some() {
        return check(model);
    }
    let thread = std::thread::current();
    let test = thread.name().unwrap();
    let mut child = Command::new(std::env::current_exe().unwrap());
    let output = child.args(["--exact", test, "--nocapture"]).env(CHILD, "1").output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success(), "the model does not notice what is broken");
    assert!(said.contains(complaint), "{complaint:?} was expected:\n{said}");
}
