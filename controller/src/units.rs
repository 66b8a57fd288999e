//! Numbers with units, and the protocol's words, as people write and read them.

use std::time::Duration;

/// Reads a number of bytes with an optional suffix: `20971520`, `512k`, `20MB`, `20 MiB`.
///
/// # Errors
/// Says in words what is wrong with `text`.
pub fn parse_bytes(text: &str) -> Result<u64, String> {
    let digits = text.trim_end_matches(|c: char| !c.is_ascii_digit());
    let factor = match text[digits.len()..].trim().to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "k" | "kb" => 1_000,
        "kib" => 1 << 10,
        "m" | "mb" => 1_000_000,
        "mib" => 1 << 20,
        "g" | "gb" => 1_000_000_000,
        "gib" => 1 << 30,
        other => return Err(format!("unknown suffix {other:?}: use B, KB, KiB, MB, MiB, GB or GiB")),
    };
    let count: u64 = digits.parse().map_err(|_| format!("{text:?} is not a number of bytes"))?;
    count.checked_mul(factor).ok_or_else(|| "that many bytes do not exist".into())
}

/// A number with its thousands apart: `21,234,567`.
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Bytes with their thousands apart and, from a million on, in MB: `21,234,567 B (21.2 MB)`.
pub fn bytes(count: u64) -> String {
    if count < 1_000_000 {
        return format!("{} B", grouped(count));
    }
    format!("{} B ({:.1} MB)", grouped(count), count as f64 / 1e6)
}

/// A duration with three significant digits or so: `740 µs`, `12.3 ms`, `1.234 s`.
pub fn duration(duration: Duration) -> String {
    let micros = duration.as_micros();
    match micros {
        0..1_000 => format!("{micros} µs"),
        1_000..100_000 => format!("{:.1} ms", micros as f64 / 1e3),
        100_000..1_000_000 => format!("{} ms", micros / 1_000),
        _ => format!("{:.3} s", micros as f64 / 1e6),
    }
}

/// The name an enum's value has in JSON, with spaces: `taking over`.
pub fn word(value: &impl serde::Serialize) -> String {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(text)) => text.replace('_', " "),
        Ok(other) => other.to_string(),
        Err(_) => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_take_decimal_and_binary_suffixes() {
        assert_eq!(parse_bytes("0"), Ok(0));
        assert_eq!(parse_bytes("20MB"), Ok(20_000_000));
        assert_eq!(parse_bytes("20 MiB"), Ok(20 << 20));
        for wrong in ["", "MB", "-1", "1.5MB", "20 parsecs", "99999999999999999GB", "99999999999999999999"] {
            assert!(parse_bytes(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn numbers_are_readable() {
        assert_eq!([0, 999, 1_000, 1_234_567].map(grouped), ["0", "999", "1,000", "1,234,567"]);
        assert_eq!(bytes(999_999), "999,999 B");
        assert_eq!(bytes(21_234_567), "21,234,567 B (21.2 MB)");
        let text = [740, 12_340, 123_456, 1_234_567].map(|micros| duration(Duration::from_micros(micros)));
        assert_eq!(text, ["740 µs", "12.3 ms", "123 ms", "1.235 s"]);
    }
}
