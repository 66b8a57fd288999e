//! The console of a guest or process, as a file that it appends to and we read behind it.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

/// What an image prints when it is ready, followed by `key=value` words.
const READY: &str = "slim: ready";

/// More than one line of any kernel; what has no line end by then is cut.
const LINE_MAX: usize = 4096;

/// Looks for the ready line while the file grows.
#[derive(Debug, Default)]
pub(super) struct ReadyScanner {
    file: Option<File>,
    line: Vec<u8>,
}

impl ReadyScanner {
    /// Reads what has been written since the last call; returns the ready line once.
    pub(super) fn poll(&mut self, path: &Path) -> Option<String> {
        if self.file.is_none() {
            self.file = File::open(path).ok();
        }
        let file = self.file.as_mut()?;
        let mut bytes = [0; 4096];
        while let Ok(count @ 1..) = file.read(&mut bytes) {
            for &byte in &bytes[..count] {
                if byte == b'\n' || self.line.len() >= LINE_MAX {
                    let line = std::mem::take(&mut self.line);
                    if let Some(found) = ready_part(&line) {
                        return Some(found);
                    }
                } else {
                    self.line.push(byte);
                }
            }
        }
        None
    }
}

/// The line from `slim: ready` on. What precedes it may be a fragment of a kernel message.
fn ready_part(line: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(line);
    let start = text.find(READY)?;
    Some(text[start..].trim_end().to_owned())
}

/// The last lines of the text file at `path`, indented, with a line break before; empty if there is nothing.
pub(super) fn tail(path: &Path) -> String {
    // An error message that travels over a control connection has room for little more.
    const BYTES: u64 = 640;
    const LINES: usize = 12;
    let read = || {
        let mut file = File::open(path).ok()?;
        let length = file.metadata().ok()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(BYTES))).ok()?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).ok()?;
        Some((length, bytes))
    };
    let (length, bytes) = read().unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<&str> = text.lines().map(str::trim_end).filter(|line| !line.is_empty()).collect();
    // Cut off in front, the first line is most likely a fragment.
    let first = if length > BYTES { 1 } else { 0 };
    lines[lines.len().saturating_sub(LINES).max(first.min(lines.len()))..]
        .iter()
        .map(|line| format!("\n    {line}"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn the_ready_line_is_found_whole_and_once() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("console");
        let mut scanner = ReadyScanner::default();
        assert_eq!(scanner.poll(&path), None, "the file does not exist yet");
        let mut file = File::create(&path).unwrap();
        file.write_all(b"Linux version\r\n[  0.1] foo slim: rea").unwrap();
        assert_eq!(scanner.poll(&path), None);
        file.write_all(b"dy name=nat-a kind=nat boot_ms=900").unwrap();
        assert_eq!(scanner.poll(&path), None, "the line is not complete");
        file.write_all(b"\r\nmore\n").unwrap();
        assert_eq!(scanner.poll(&path).as_deref(), Some("slim: ready name=nat-a kind=nat boot_ms=900"));
        assert_eq!(scanner.poll(&path), None);
    }

    #[test]
    fn endless_lines_are_cut() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("console");
        std::fs::write(&path, vec![b'x'; 100_000]).unwrap();
        let mut scanner = ReadyScanner::default();
        assert_eq!(scanner.poll(&path), None);
        assert!(scanner.line.len() <= LINE_MAX);
    }

    #[test]
    fn the_tail_is_bounded() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("console");
        assert_eq!(tail(&path), "");
        let text: String = (0..1000).map(|n| format!("line {n}\r\n")).collect();
        std::fs::write(&path, text).unwrap();
        let tail = tail(&path);
        assert_eq!(tail.lines().filter(|line| line.contains("line")).count(), 12);
        assert!(tail.ends_with("    line 999"), "{tail:?}");
    }
}
