//! The configuration: section `[gateway]` of the instance's TOML file.

use serde::{Deserialize, Serialize};
use slim_core::nf::{ConfigError, InterfaceAddress};
use slim_core::packet::MacAddr;

/// What the operator sets. Every field but the first six has a default.
///
/// Both ends of a migration must be configured alike.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The gateway's address towards the cells; the subscribers' addresses are those of its network.
    pub interior_address: InterfaceAddress,
    /// The gateway's MAC address on port `in`.
    pub interior_mac: MacAddr,
    /// The MAC address of the radio network, which takes packets to the cells.
    pub cells_mac: MacAddr,
    /// The gateway's address towards the outside.
    pub exterior_address: InterfaceAddress,
    /// The gateway's MAC address on port `out`.
    pub exterior_mac: MacAddr,
    /// The MAC address of the next router outside.
    pub router_mac: MacAddr,

    /// The most subscribers, each an address and port. Default 65536.
    #[serde(default = "default::subscribers_max")]
    pub subscribers_max: u32,
    /// A subscriber that has been silent for this long is detached. Default 3600, at least 60.
    #[serde(default = "default::subscriber_timeout_s")]
    pub subscriber_timeout_s: u32,
}

mod default {
    pub(super) fn subscribers_max() -> u32 {
        65_536
    }
    pub(super) fn subscriber_timeout_s() -> u32 {
        3600
    }
}

/// The most subscribers that can be configured, so that a wrong digit does not exhaust an image's memory.
const SUBSCRIBERS_MAX: u32 = 1 << 24;

/// The longest time-out: ten years, far from where the clock's ticks wrap.
const TIMEOUT_S_MAX: u32 = 10 * 365 * 86_400;

impl Config {
    /// Checks that the settings make sense together.
    ///
    /// # Errors
    /// What is wrong, and what to do.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let check = |holds: bool, text: &str| if holds { Ok(()) } else { Err(ConfigError(text.into())) };
        let macs = [self.interior_mac, self.cells_mac, self.exterior_mac, self.router_mac];
        check(
            macs.into_iter().all(MacAddr::is_unicast),
            "interior_mac, cells_mac, exterior_mac and router_mac must be unicast MAC addresses",
        )?;
        check(
            !self.interior_address.contains(self.exterior_address.address)
                && !self.exterior_address.contains(self.interior_address.address),
            "the networks of interior_address and exterior_address overlap: choose distinct ones",
        )?;
        check((1..=SUBSCRIBERS_MAX).contains(&self.subscribers_max), "subscribers_max must be between 1 and 16777216")?;
        check(
            (60..=TIMEOUT_S_MAX).contains(&self.subscriber_timeout_s),
            "subscriber_timeout_s must be between 60 and 315360000",
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = r#"
        interior_address = "10.1.0.1/24"
        interior_mac = "02:51:1a:00:00:01"
        cells_mac = "02:51:1a:00:01:01"
        exterior_address = "10.2.0.1/24"
        exterior_mac = "02:51:1a:00:00:02"
        router_mac = "02:51:1a:00:01:02"
    "#;

    #[test]
    fn six_settings_are_enough() {
        let config: Config = toml::from_str(TEXT).unwrap();
        config.validate().unwrap();
        assert_eq!((config.subscribers_max, config.subscriber_timeout_s), (65_536, 3600));
    }

    #[test]
    fn errors_name_the_setting() {
        let error = |line: &str, name: &str| {
            let text =
                TEXT.lines().filter(|known| !known.trim_start().starts_with(name)).collect::<Vec<_>>().join("\n");
            let config: Config = toml::from_str(&format!("{text}\n{name} = {line}")).unwrap();
            config.validate().expect_err(line).0
        };
        assert!(error(r#""ff:ff:ff:ff:ff:ff""#, "router_mac").contains("router_mac"));
        assert!(error(r#""10.1.0.9/16""#, "exterior_address").contains("exterior_address"));
        assert!(error("0", "subscribers_max").contains("subscribers_max"));
        assert!(error("59", "subscriber_timeout_s").contains("subscriber_timeout_s"));
        assert!(toml::from_str::<Config>(&format!("{TEXT}\nfoo = 1")).unwrap_err().to_string().contains("foo"));
    }
}
