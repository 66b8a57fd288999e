//! The instance's file in `docs/examples`, as the NAT's own program reads it.

use std::process::Command;

const EXAMPLE: &str = include_str!("../../../docs/examples/nat.toml");

/// Whether `nat --check-config` finds `text` good, and what it says.
fn check(text: &str) -> (bool, String) {
    let file = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{}.toml", text.len()));
    std::fs::write(&file, text).unwrap();
    let output =
        Command::new(env!("CARGO_BIN_EXE_nat")).args(["--check-config", "--config"]).arg(file).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    (output.status.success(), said.into_owned())
}

#[test]
fn the_example_is_good() {
    let (good, said) = check(EXAMPLE);
    assert!(good, "{said}");
}

#[test]
fn errors_point_at_the_line() {
    let line_of = |wanted: &str| EXAMPLE.lines().position(|line| line.starts_with(wanted)).unwrap() + 1;
    for (line, wrong, expected) in [
        ("udp_timeout_s", "udp_timeout_s = 5", "udp_timeout_s = 5 is not between 120 and"),
        ("udp_timeout_s", "udp_timeout = 500", "unknown field `udp_timeout`"),
        ("filtering", "filtering = \"open\"", "unknown variant `open`"),
        ("interior_address", "interior_address = \"10.1.0.1/33\"", "prefix length"),
        ("exterior_mtu", "exterior_mtu = 9000", "exterior_mtu = 9000 is not between 68 and 1500"),
        ("rx_descriptors", "rx_descriptors = 7", "limits.rx_descriptors is 7"),
        ("collector", "collector = \"10.3.0.1\"", "invalid IPv4 socket address"),
        ("[log]", "[syslog]", "unknown entry `syslog`"),
    ] {
        let number = line_of(line);
        let text: Vec<_> =
            EXAMPLE.lines().enumerate().map(|(at, old)| if at + 1 == number { wrong } else { old }).collect();
        let (good, said) = check(&text.join("\n"));
        assert!(!good && said.contains(expected), "{wrong}: {said}");
        assert!(said.contains(&format!("line {number}")), "{wrong} is in line {number}, but it says: {said}");
    }
}
