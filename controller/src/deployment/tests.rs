//! Deployments as an operator would write them, right and wrong.

use super::*;

const GOOD: &str = r#"
[daemon]
socket = "run/slimctl.sock"
run_dir = "run"

[switch]
control = "switch.sock"

[management]
address = "10.3.0.1/24"

[[external]]
name = "inside"
tap = "slim-inside"

[[external]]
name = "outside"
af_packet = "eth1"

[[external]]
name = "mgmt"

[vnf.nat]
image = "../target/images/nat"
accel = "tcg"
[[vnf.nat.port]]
name = "in"
external = "inside"
[[vnf.nat.port]]
name = "out"
external = "outside"
[vnf.nat.limits]
pkt_q_bytes = 1000
[vnf.nat.log]
collector = "10.3.0.1:5140"
[vnf.nat.config]
interior_address = "10.1.0.1/24"
"#;

fn parse(text: &str) -> Result<Deployment, DeploymentError> {
    Deployment::parse(text, Path::new("/etc/slim/deployment.toml"))
}

/// The complaint about `GOOD` after a replacement.
fn complaint(from: &str, to: &str) -> String {
    assert!(GOOD.contains(from), "{from}");
    parse(&GOOD.replacen(from, to, 1)).unwrap_err().to_string()
}

#[test]
fn a_good_file_is_resolved() {
    let deployment = parse(GOOD).unwrap();
    assert_eq!(deployment.switch, Endpoint::Unix("/etc/slim/switch.sock".into()));
    assert_eq!(deployment.run_dir, Path::new("/etc/slim/run"));
    assert_eq!(deployment.link, LinkSettings::default(), "the paper's link");
    assert_eq!(deployment.externals[0].kind, Some(PortKind::Tap { interface: "slim-inside".into() }));
    assert_eq!(deployment.externals[2].kind, None);
    let nat = &deployment.vnfs[&"nat".try_into().unwrap()];
    assert_eq!(nat.kind.as_str(), "nat");
    assert_eq!(nat.source, Source::Image("/etc/slim/../target/images/nat".into()));
    assert_eq!(nat.ports[1].external.as_str(), "outside");
    assert_eq!((nat.memory_mb, nat.vcpus, nat.accel), (256, 1, Accel::Tcg));
    assert_eq!(nat.config["interior_address"].as_str(), Some("10.1.0.1/24"));
    assert_eq!(nat.limits["pkt_q_bytes"].as_integer(), Some(1000));
    assert_eq!(nat.log["collector"].as_str(), Some("10.3.0.1:5140"));
}

#[test]
fn connections_are_secure_unless_it_is_said_otherwise() {
    let trust = parse(GOOD).unwrap().trust;
    assert!(!trust.plaintext);
    assert_eq!(trust.folder, Path::new("/etc/slim/trust"), "beside the file");
    assert_eq!((trust.identity_life, trust.late), (Duration::from_secs(24 * 3600), Duration::ZERO));
    let open = GOOD.replace("[switch]", "[trust]\nplaintext = true\n[switch]");
    assert!(parse(&open).unwrap().trust.plaintext);
}

#[test]
fn instances_get_addresses_of_the_management_network() {
    let management = parse(GOOD).unwrap().management;
    assert_eq!(management.instance(0).unwrap().to_string(), "10.3.0.11/24");
    assert_eq!(management.instance(243).unwrap().to_string(), "10.3.0.254/24");
    assert_eq!(management.instance(244), None, "the broadcast address");
    assert_eq!(instance_mac(3, 0).to_string(), "52:54:00:03:00:0b");
}

#[test]
fn complaints_name_the_key() {
    for (from, to, parts) in [
        ("control = ", "controll = ", &["unknown field `controll`", "line 7"][..]),
        ("[switch]", "[trust]\nidentity_hours = 0\n[switch]", &["trust.identity_hours", "between 1 and"]),
        ("\"10.3.0.1/24\"", "\"10.3.0.1\"", &["prefix length", "line 10"]),
        (
            "address = \"10.3.0.1/24\"",
            "address = \"10.3.0.1/24\"\nfirst_instance = \"10.4.0.1\"",
            &["management.first_instance"],
        ),
        ("address = \"10.3.0.1/24\"", "address = \"10.3.0.11/24\"", &["management.first_instance", "own address"]),
        ("name = \"mgmt\"", "name = \"management\"", &["management.port", "[[external]] port mgmt"]),
        ("name = \"mgmt\"", "name = \"inside\"", &["external inside", "twice"]),
        ("af_packet = \"eth1\"", "af_packet = \"eth1\"\ntap = \"x\"", &["external outside", "only one of"]),
        ("tap = \"slim-inside\"", "tap = \"a-name-that-is-too-long\"", &["external inside", "not the name"]),
        ("external = \"outside\"", "external = \"outsid\"", &["vnf.nat.port", "there are inside, outside, mgmt"]),
        ("external = \"outside\"", "external = \"inside\"", &["vnf.nat.port", "twice"]),
        ("accel = \"tcg\"", "accel = \"xen\"", &["use auto, kvm or tcg"]),
        ("accel = \"tcg\"", "memory_mb = 5", &["vnf.nat.memory_mb"]),
        ("accel = \"tcg\"", "vcpus = 0", &["vnf.nat.vcpus"]),
        ("accel = \"tcg\"", "cpus = \"all\"", &["\"all\" does not name CPUs", "2-5,8"]),
        ("accel = \"tcg\"", "hugepages = \"yes\"", &["auto", "off"]),
        ("image = \"../target/images/nat\"", "", &["vnf.nat.image", "program"]),
        ("image = ", "program = ", &["vnf.nat.program", "images only"]),
        ("accel = \"tcg\"", "config_file = \"x\"", &["vnf.nat.config_file", "not both"]),
        ("[vnf.nat]", "[link]\nburst_ms = 0\n[vnf.nat]", &["link.burst_ms"]),
        ("[vnf.nat]", "[link]\nrate_mbit = 18446744073709551615\n[vnf.nat]", &["link", "rate_mbit"]),
        ("[vnf.nat]", "[link]\ndelay_us = 2000000\n[vnf.nat]", &["link.delay_us"]),
    ] {
        let text = complaint(from, to);
        for part in parts.iter().chain(&["/etc/slim/deployment.toml"]) {
            assert!(text.contains(part), "{from:?} -> {to:?}: {part:?} is not in: {text}");
        }
    }
}

#[test]
fn a_config_file_holds_the_kinds_section_alone() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("deployment.toml");
    let text = GOOD
        .replace("[vnf.nat.config]\ninterior_address = \"10.1.0.1/24\"", "")
        .replace("accel = \"tcg\"", "config_file = \"nat.toml\"");
    let read = |config: &str| {
        std::fs::write(folder.path().join("nat.toml"), config).unwrap();
        Deployment::parse(&text, &file)
    };
    assert!(matches!(Deployment::parse(&text, &file), Err(DeploymentError::Unreadable { .. })));
    let deployment = read("[nat]\ninterior_address = \"10.1.0.1/24\"\n").unwrap();
    assert!(deployment.vnfs[&"nat".try_into().unwrap()].config.contains_key("interior_address"));
    for (config, part) in [("[nat]\n[gateway]\n", "gateway"), ("", "no [nat] section"), ("[nat", "nat.toml")] {
        let error = read(config).unwrap_err().to_string();
        assert!(error.contains(part) && error.contains("nat.toml"), "{config:?}: {error}");
    }
}

#[test]
fn the_unmetered_link_is_a_rate_of_zero() {
    let text = GOOD.replace("[vnf.nat]", "[link]\nrate_mbit = 0\nburst_ms = 0\ndelay_us = 0\n[vnf.nat]");
    let link = parse(&text).unwrap().link;
    assert_eq!(link, LinkSettings { rate_bps: 0, burst_bytes: 0, delay_us: 0 });
}

#[test]
fn the_guides_example_is_good_and_complete() {
    let guide = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/controller.md")).unwrap();
    let (_, rest) = guide.split_once("```toml\n").unwrap();
    let (example, _) = rest.split_once("```").unwrap();
    let deployment = parse(example).unwrap();
    assert_eq!(deployment.link, LinkSettings::default(), "it shows the defaults");
    assert_eq!(deployment.management.instance(0).unwrap().to_string(), "10.3.0.11/24");
    assert_eq!(deployment.vnfs.len(), 1);
}
