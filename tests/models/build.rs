//! Copies the sources under test, with loom's atomics, locks and threads in place of the standard library's.
//!
//! What is checked is thereby the code that runs, `rtrb` included, and nothing in it has to know of the checker. Each
//! copy may also be broken on purpose, to show that the models notice. A replacement that finds nothing to replace
//! fails the build: a model of something else would be worse than none.

use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};

type Outcome<T> = Result<T, Box<dyn Error>>;

/// Replacements in one file: what, and by what.
type Edits<'a> = &'a [(&'a str, &'a str)];

/// The files of one model and the module they become part of.
struct Copy<'a> {
    root: &'a Path,
    out: PathBuf,
    /// The module, as in `crate::sound`.
    module: String,
}

impl Copy<'_> {
    fn file(&self, from: &Path, to: &str, edits: Edits<'_>, mutant: Option<(&str, &str)>) -> Outcome<()> {
        let from = self.root.join(from);
        println!("cargo::rerun-if-changed={}", from.display());
        let mut text = fs::read_to_string(&from).map_err(|error| format!("{}: {error}", from.display()))?;
        for (what, by) in edits.iter().copied().chain(mutant) {
            if !text.contains(what) {
                return Err(format!("{}: there is no {what:?} to be replaced", from.display()).into());
            }
            text = text.replace(what, &by.replace("MODULE", &self.module));
        }
        // Tests are run where they belong.
        let text = without_crate_attributes(&text).replace("#[cfg(test)]", "#[cfg(false)]");
        let to = self.out.join(to);
        fs::create_dir_all(to.parent().ok_or("a file without a folder")?)?;
        Ok(fs::write(to, text)?)
    }

    fn module(&self, name: &str, content: &str) -> Outcome<()> {
        Ok(fs::write(self.out.join(format!("{name}.rs")), content)?)
    }
}

/// Attributes of a crate mean nothing in a module.
fn without_crate_attributes(text: &str) -> String {
    let mut kept = String::new();
    let mut rest = text;
    while let Some((before, attribute)) = rest.split_once("#![") {
        kept.push_str(before);
        let mut open = 1;
        let end = attribute.find(|character| {
            open += i32::from(character == '[') - i32::from(character == ']');
            open == 0
        });
        rest = end.map_or("", |end| &attribute[end + 1..]);
    }
    kept + rest
}

/// Where cargo has unpacked the version of `package` that is locked.
fn source_of(root: &Path, package: &str) -> Outcome<PathBuf> {
    let lock = fs::read_to_string(root.join("Cargo.lock"))?;
    let entry = format!("name = \"{package}\"\nversion = \"");
    let version = lock.split_once(&entry).and_then(|(_, rest)| rest.split_once('"')).map(|(version, _)| version);
    let folder = format!("{package}-{}", version.ok_or_else(|| format!("no {package} in Cargo.lock"))?);
    let cargo = match (std::env::var_os("CARGO_HOME"), std::env::home_dir()) {
        (Some(cargo), _) => PathBuf::from(cargo),
        (None, Some(home)) => home.join(".cargo"),
        (None, None) => return Err("neither CARGO_HOME nor HOME is set".into()),
    };
    let registries = fs::read_dir(cargo.join("registry/src"))?;
    let mut sources = registries.filter_map(|registry| Some(registry.ok()?.path().join(&folder)));
    Ok(sources.find(|source| source.is_dir()).ok_or_else(|| format!("cargo has not unpacked {folder}"))?)
}

const ATOMICS: (&str, &str) = ("core::sync::atomic", "loom::sync::atomic");

/// `st_q_out`: the ring of `rtrb`, the lcore's end and the statelet thread's.
fn st_q_out(root: &Path, out: &Path, name: &str, mutant: Option<(&str, &str)>) -> Outcome<()> {
    let copy = Copy { root, out: out.join(name), module: format!("crate::{name}") };
    let ring = source_of(root, "rtrb")?.join("src");
    let std = ("#[cfg(feature = \"std\")]", "");
    let own = ("use crate::", "use MODULE::rtrb::");
    copy.file(&ring.join("lib.rs"), "rtrb/mod.rs", &[ATOMICS, std], mutant)?;
    copy.file(&ring.join("chunks.rs"), "rtrb/chunks.rs", &[ATOMICS, std, own], mutant)?;
    copy.file(&ring.join("cache_padded.rs"), "rtrb/cache_padded.rs", &[], None)?;
    let announce = Path::new("slim-core/src/vei/lcore/announce.rs");
    let uses = ("use crate::", "use slim_core::");
    copy.file(announce, "announce.rs", &[uses, ("rtrb::", "MODULE::rtrb::"), ("pub(super)", "pub")], None)?;
    let pump = Path::new("slim-core/src/statelet/pump.rs");
    copy.file(pump, "pump.rs", &[uses, ("rtrb::", "MODULE::rtrb::")], None)?;
    copy.module("mod", "pub mod rtrb;\npub mod announce;\npub mod pump;\n")
}

/// One file of the runtime.
fn runtime(
    root: &Path,
    out: &Path,
    name: &str,
    file: &str,
    edits: Edits<'_>,
    mutant: Option<(&str, &str)>,
) -> Outcome<()> {
    let copy = Copy { root, out: out.into(), module: "crate".into() };
    let from = Path::new("vnf-images/runtime/src").join(file);
    copy.file(&from, &format!("{name}.rs"), edits, mutant)
}

/// Both designs of tables. Chunks are short, for each word of them is a variable to the checker.
fn tables(root: &Path, out: &Path, name: &str, broken: Option<(&str, (&str, &str))>) -> Outcome<()> {
    let copy = Copy { root, out: out.join(name), module: format!("crate::{name}") };
    let folder = Path::new("slim-core/src/table");
    let files = [
        "mod.rs",
        "archive.rs",
        "hash.rs",
        "layers.rs",
        "pod.rs",
        "register.rs",
        "segment.rs",
        "segmented.rs",
        "small.rs",
        "state.rs",
        "generation/mod.rs",
        "generation/chunk.rs",
        "generation/rule.rs",
    ];
    for file in files {
        let mut edits = Vec::new();
        if file.starts_with("generation/") && file != "generation/rule.rs" {
            edits.push(ATOMICS);
        }
        if file == "generation/chunk.rs" {
            edits.push(("crate::table::", "MODULE::"));
            edits.push(("CHUNK_ENTRIES: usize = 512", "CHUNK_ENTRIES: usize = 2"));
        }
        if file == "pod.rs" {
            // There can be only one of its name.
            edits.push(("#[macro_export]", ""));
        }
        let mutant = broken.filter(|(of, _)| *of == file).map(|(_, mutant)| mutant);
        copy.file(&folder.join(file), file, &edits, mutant)?;
    }
    Ok(())
}

fn main() -> Outcome<()> {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=../../Cargo.lock");
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let out = PathBuf::from(std::env::var_os("OUT_DIR").ok_or("not run by cargo")?);

    st_q_out(&root, &out, "sound", None)?;
    st_q_out(&root, &out, "relaxed", Some(("Ordering::Release", "Ordering::Relaxed")))?;

    // loom's locks are never poisoned, but say so in the same words.
    let locks = [(
        "std::sync::{Condvar, Mutex, MutexGuard, PoisonError}",
        "loom::sync::{Condvar, Mutex, MutexGuard}; use std::sync::PoisonError",
    )];
    let file = "manage/st_q_in.rs";
    runtime(&root, &out, "st_q_in", file, &locks, None)?;
    let told = "self.lock().end = Some(ended);\n        self.changed.notify_all();";
    runtime(&root, &out, "st_q_in_silent", file, &locks, Some((told, "self.lock().end = Some(ended);")))?;

    let waker = [("dpdk::Waker", "crate::epoll::Waker"), ("rtrb::", "crate::sound::rtrb::")];
    let file = "dataplane/command.rs";
    runtime(&root, &out, "command", file, &waker, None)?;
    let push = "self.commands.push(command).map_err(|_| Unresponsive(self.shard))?;";
    let early = format!("if let Some(waker) = &self.waker {{ waker.wake(); }} {push} return Ok(());");
    runtime(&root, &out, "command_early", file, &waker, Some((push, &early)))?;

    tables(&root, &out, "tables", None)?;
    let in_place = ("self.generation + u64::from(self.snapshot_dropped.is_some())", "self.generation");
    tables(&root, &out, "tables_in_place", Some(("generation/mod.rs", in_place)))?;
    let shared = ("match Arc::get_mut(layer) {", "match Some(unsafe { &mut *Arc::as_ptr(layer).cast_mut() }) {");
    tables(&root, &out, "tables_shared", Some(("layers.rs", shared)))?;

    let modules = [
        "sound",
        "relaxed",
        "st_q_in",
        "st_q_in_silent",
        "command",
        "command_early",
        "tables",
        "tables_in_place",
        "tables_shared",
    ];
    let root: String = modules
        .iter()
        .map(|name| format!("#[allow(warnings, clippy::all, rustdoc::all)]\npub mod {name};\n"))
        .collect();
    Ok(fs::write(out.join("root.rs"), root)?)
}
