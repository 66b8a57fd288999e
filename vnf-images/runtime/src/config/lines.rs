//! Which line of a configuration a message is about.

use toml::de::{DeTable, DeValue};

/// `line 7: `, or nothing.
pub fn at(line: Option<usize>) -> String {
    line.map_or_else(String::new, |line| format!("line {line}: "))
}

/// The line of the entry that `message` names first, within the sections `within`.
///
/// Messages name entries as they are written, with or without the sections before them: `limits.mbufs`, `udp_timeout_s`.
pub fn line_of(text: &str, within: &[&str], message: &str) -> Option<usize> {
    let document = DeTable::parse(text).ok()?;
    let mut table = document.get_ref();
    for name in within {
        let DeValue::Table(section) = table.get(*name)?.get_ref() else { return None };
        table = section;
    }
    let mut found = None;
    for word in message.split(|c: char| !c.is_ascii_alphanumeric() && c != '_') {
        let Some((key, value)) = table.iter().find(|(key, _)| key.get_ref() == word) else { continue };
        found = Some(key.span().start);
        match value.get_ref() {
            DeValue::Table(section) => table = section,
            _ => break,
        }
    }
    let before = text.get(..found?)?;
    Some(before.matches('\n').count() + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str =
        "name = \"a\"\n[limits]\nmbufs = 3\n\n[nat]\nudp_timeout_s = 5\nport_first = 9\n[[nat.forward]]\n";

    #[test]
    fn entries_are_found_by_their_names() {
        assert_eq!(line_of(TEXT, &[], "limits.mbufs is 3"), Some(3));
        assert_eq!(line_of(TEXT, &["nat"], "udp_timeout_s = 5 is not enough"), Some(6));
        assert_eq!(line_of(TEXT, &["nat"], "the range of port_first = 9 and port_last"), Some(7));
        assert_eq!(line_of(TEXT, &["nat"], "[[nat.forward]] exterior is wrong"), Some(8));
        assert_eq!(line_of(TEXT, &[], "something else"), None);
        assert_eq!(line_of("not = toml = at all", &[], "not"), None);
        assert_eq!((at(Some(3)), at(None)), ("line 3: ".into(), String::new()));
    }
}
