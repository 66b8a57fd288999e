//! The `[nat]` section: defaults, and what an operator is told about a wrong one.

use slim_core::nf::{NetworkFunction, Shard, ShardId};
use slim_nat::config::Pooling;
use slim_nat::{Config, Nat};

const MINIMAL: &str = r#"
interior_address = "10.1.0.1/24"
interior_mac = "02:51:1a:00:00:01"
exterior_address = "10.2.0.1/24"
exterior_mac = "02:51:1a:00:00:02"
"#;

/// The error of [`MINIMAL`] with `line` added or, where it sets a field that is there already, changed.
fn error(line: &str) -> String {
    let field = line.split_once(" =").unwrap().0;
    let mut text: String =
        MINIMAL.lines().filter(|other| !other.starts_with(&format!("{field} ="))).collect::<Vec<_>>().join("\n");
    text.push_str(&format!("\n{line}\n"));
    match toml::from_str::<Config>(&text) {
        Err(error) => error.to_string(),
        Ok(config) => {
            Nat::new(&config, Shard::ONLY, 1).err().map_or_else(|| format!("`{line}` is accepted"), |error| error.0)
        }
    }
}

#[test]
fn defaults_are_the_documented_ones() {
    let config: Config = toml::from_str(MINIMAL).unwrap();
    let [interior, exterior] = ["10.1.0.1/24", "10.2.0.1/24"].map(|text| text.parse().unwrap());
    let [interior_mac, exterior_mac] = ["02:51:1a:00:00:01", "02:51:1a:00:00:02"].map(|text| text.parse().unwrap());
    assert_eq!(config, Config::new(interior, interior_mac, exterior, exterior_mac));
    assert_eq!((config.port_first, config.port_last), (1024, 65_535));
    assert_eq!((config.sessions_max, config.hosts_max, config.arp_entries_max), (65_536, 4096, 4096));
    assert_eq!((config.exterior_gateway, config.sessions_per_host_max), (None, None));
    assert_eq!((config.udp_timeout_s, config.tcp_established_timeout_s), (300, 7440));
    assert_eq!((config.tcp_opening_timeout_s, config.tcp_closing_timeout_s), (240, 240));
    assert_eq!((config.arp_timeout_s, config.host_timeout_s), (300, 86_400));
    assert_eq!((config.interior_mtu, config.exterior_mtu, config.sessions_per_mapping_max), (1500, 1500, None));
    assert!(Nat::new(&config, Shard::ONLY, 1).is_ok());
}

#[test]
fn every_field_can_be_set() {
    let text = format!(
        "{MINIMAL}
exterior_gateway = \"10.2.0.254\"
exterior_pool = [\"10.2.0.5\", \"10.2.0.8-10.2.0.15\", \"198.51.100.0/29\"]
address_pooling = \"paired\"
port_first = 2000
port_last = 3000
port_parity = true
port_preservation = true
port_block_size = 128
port_blocks_per_host_max = 2
port_block_timeout_s = 600
sessions_max = 10
hosts_max = 11
arp_entries_max = 12
sessions_per_host_max = 13
ports_per_host_max = 14
udp_timeout_s = 120
tcp_established_timeout_s = 8000
tcp_opening_timeout_s = 250
tcp_closing_timeout_s = 260
arp_timeout_s = 60
host_timeout_s = 70
[[forward]]
protocol = \"tcp\"
exterior = \"10.2.0.5:443\"
interior = \"10.1.0.10:8443\"
[[exclude]]
action = \"exempt\"
destination = \"192.0.2.0/24\"
[[exclude]]
action = \"deny\"
host = \"10.1.0.64-10.1.0.79\"
protocol = \"udp\"
port = \"6881-6889\"
"
    );
    let config: Config = toml::from_str(&text).unwrap();
    assert!(Nat::new(&config, Shard::ONLY, 1).is_ok());
    assert_eq!(config.exterior_gateway, Some([10, 2, 0, 254].into()));
    assert_eq!(
        (config.sessions_per_host_max, config.ports_per_host_max, config.host_timeout_s),
        (Some(13), Some(14), 70)
    );
    assert_eq!((config.forward.len(), config.exclude.len(), config.exclude[1].port.unwrap().last), (1, 2, 6889));
    assert!(config.port_parity && config.port_preservation);
    assert_eq!((config.address_pooling, config.pool().unwrap().len()), (Pooling::Paired, 18));
}

#[test]
fn a_configuration_that_is_written_out_is_read_as_the_same() {
    let example: toml::Table = include_str!("../../../docs/examples/nat.toml").parse().unwrap();
    let config: Config = example["nat"].clone().try_into().unwrap();
    assert!(Nat::new(&config, Shard::ONLY, 1).is_ok());
    let text = toml::to_string(&config).unwrap();
    assert!(text.contains("tcp_established_timeout_s = 7440"), "defaults are written, too:\n{text}");
    assert_eq!(toml::from_str::<Config>(&text).unwrap(), config);
}

#[test]
fn errors_name_the_field_and_the_remedy() {
    for (line, expected) in [
        (r#"interior_adress = "10.1.0.1/24""#, "unknown field `interior_adress`"),
        (
            r#"interior_address = "10.1.0.1""#,
            "`10.1.0.1` is not an IPv4 address with a prefix length, such as 10.1.0.1/24",
        ),
        (r#"interior_address = "10.1.0/24""#, "is not an IPv4 address with a prefix length"),
        (r#"interior_address = "10.1.0.1/31""#, "prefix length of `10.1.0.1/31` is not between 1 and 30"),
        (r#"interior_address = "10.1.0.0/24""#, "is not a host's address in its network"),
        (r#"interior_address = "10.1.0.255/24""#, "is not a host's address in its network"),
        (r#"exterior_address = "224.0.0.1/24""#, "exterior_address = \"224.0.0.1/24\" is not a host's address"),
        (r#"exterior_address = "10.1.0.2/24""#, "overlap"),
        (r#"exterior_address = "10.9.0.1/8""#, "overlap"),
        (r#"interior_mac = "02:51:1a:00:00""#, "six pairs of hexadecimal digits"),
        (r#"exterior_mac = "01:00:5e:00:00:01""#, "exterior_mac must be a unicast address"),
        (r#"exterior_mac = "00:00:00:00:00:00""#, "exterior_mac must be a unicast address"),
        (r#"exterior_gateway = "10.3.0.1""#, "not another host's address in the network of exterior_address"),
        (r#"exterior_gateway = "10.2.0.1""#, "not another host's address in the network of exterior_address"),
        (r#"exterior_pool = ["10.2.0"]"#, "`10.2.0` is neither an IPv4 address (10.2.0.5), nor a range"),
        (r#"exterior_pool = ["10.2.0.9/29"]"#, "`10.2.0.9/29` is not a prefix: some of its last 3 bits"),
        (r#"exterior_pool = ["10.2.0.254-10.2.0.255"]"#, "exterior_pool: 10.2.0.255 is not an exterior host's address"),
        (r#"exterior_pool = ["10.1.0.9"]"#, "exterior_pool: 10.1.0.9 is not an exterior host's address"),
        (r#"exterior_pool = ["127.0.0.1"]"#, "exterior_pool: 127.0.0.1 is not"),
        (r#"exterior_pool = ["198.51.101.0/23"]"#, "some of its last 9 bits are not zero"),
        (r#"exterior_pool = ["198.51.100.0/22"]"#, "exterior_pool holds more than 256 addresses"),
        (r#"address_pooling = "random""#, "expected `paired` or `arbitrary`"),
        ("ports_per_host_max = 0", "ports_per_host_max = 0 is not between 1 and"),
        (
            r#"forward = [{ protocol = "icmp", exterior = "10.2.0.1:80", interior = "10.1.0.9:80" }]"#,
            "[[nat.forward]] exterior = \"10.2.0.1:80\": protocol is neither",
        ),
        (
            r#"forward = [{ protocol = "tcp", exterior = "10.2.0.2:80", interior = "10.1.0.9:80" }]"#,
            "exterior = \"10.2.0.2:80\" is not a port of an exterior address of this NAT",
        ),
        (
            r#"forward = [{ protocol = "tcp", exterior = "10.2.0.1:80", interior = "10.1.1.9:80" }]"#,
            "interior = \"10.1.1.9:80\" is not a port of an interior host",
        ),
        (r#"forward = [{ protocol = "tcp", exterior = "10.2.0.1", interior = "10.1.0.9:80" }]"#, "socket address"),
        (
            r#"forward = [{ protocol = "tcp", exterior = "10.2.0.1:80", interior = "10.1.0.9:80" },
                { protocol = "tcp", exterior = "10.2.0.1:81", interior = "10.1.0.9:80" }]"#,
            "exterior = \"10.2.0.1:81\": there is a forward from 10.2.0.1:80 to 10.1.0.9:80",
        ),
        (r#"exclude = [{ action = "exempt", protocol = "udp" }]"#, "entry 1 has neither host nor destination"),
        (r#"exclude = [{ action = "skip", host = "10.1.0.9" }]"#, "expected `exempt` or `deny`"),
        (r#"exclude = [{ action = "deny", host = "10.1.0.9", port = "0" }]"#, "`0` is neither a port (53) nor a range"),
        (r#"exclude = [{ action = "deny", host = "10.1.0.9", port = "9", protocol = "icmp" }]"#, "ICMP has no port"),
        ("port_block_size = 0", "port_block_size = 0 is not between 1 and 4096"),
        ("port_block_size = 5000", "port_block_size = 5000 is not between 1 and 4096"),
        ("port_block_size = 64\naddress_pooling = \"arbitrary\"", "address_pooling must be \"paired\""),
        ("port_block_size = 64\nport_last = 1030", "port_block_size = 64 is not between 1 and the 7 ports of a shard"),
        ("log = \"blocks\"", "ports are lent one by one"),
        ("log = \"all\"", "expected one of `off`, `blocks`, `mappings`, `sessions`"),
        ("port_blocks_per_host_max = 9", "port_blocks_per_host_max = 9 is not between 1 and 8"),
        ("port_block_timeout_s = 119", "port_block_timeout_s = 119 is not between 120 and"),
        ("interior_mtu = 67", "interior_mtu = 67 is not between 68 and 1500"),
        ("exterior_mtu = 1501", "exterior_mtu = 1501 is not between 68 and 1500"),
        ("sessions_per_mapping_max = 0", "sessions_per_mapping_max = 0 is not between 1 and"),
        ("port_first = 0", "port_first = 0 and port_last = 65535 are not a range"),
        ("port_last = 1000", "port_first = 1024 and port_last = 1000 are not a range"),
        ("sessions_max = 0", "sessions_max = 0 is not between 1 and"),
        ("hosts_max = 20000000", "hosts_max = 20000000 is not between 1 and 16777216"),
        ("arp_entries_max = 0", "arp_entries_max = 0"),
        ("sessions_per_host_max = 0", "sessions_per_host_max = 0"),
        ("udp_timeout_s = 119", "udp_timeout_s = 119 is not between 120 and"),
        ("tcp_established_timeout_s = 7439", "not between 7440 and"),
        ("tcp_opening_timeout_s = 239", "not between 240 and"),
        ("tcp_closing_timeout_s = 239", "not between 240 and"),
        ("arp_timeout_s = 9", "not between 10 and"),
        ("host_timeout_s = 4000000000", "host_timeout_s = 4000000000 is not between 1 and"),
    ] {
        let error = error(line);
        assert!(error.contains(expected), "{line}\n  said: {error}\n  not:  {expected}");
    }
}

#[test]
fn more_shards_than_ports_are_refused() {
    let config = Config { port_first: 2000, port_last: 2001, ..toml::from_str(MINIMAL).unwrap() };
    let shard = Shard { id: ShardId(0), count: 3 };
    assert_eq!(Nat::new(&config, shard, 1).err().unwrap().0, "2 exterior ports are too few for 3 shards");
}
