//! What a physical function enforces on its virtual ones: read and set with `ip`.

use super::{BorrowError, Kernel};
use crate::net::MacAddress;
use serde::{Deserialize, Serialize};
use std::io;

/// The settings of a virtual function that its physical one knows. `None` is left as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VirtualSettings {
    /// The MAC address; zero lets the function's driver choose.
    pub mac: Option<MacAddress>,
    /// Whether frames from other addresses are dropped.
    pub spoof_check: Option<bool>,
    /// Whether it may change its filters as it likes.
    pub trust: Option<bool>,
    /// The VLAN that all its frames belong to, and of which it sees nothing; 0 is none.
    #[serde(default)]
    pub vlan: Option<u16>,
}

/// Reads the settings of virtual function `index` of `interface`.
pub(super) fn read(kernel: &dyn Kernel, interface: &str, index: u32) -> Result<VirtualSettings, BorrowError> {
    let action = || format!("read the settings of virtual function {index} of {interface}");
    let shown = kernel.ip(&["-json", "link", "show", "dev", interface]).map_err(BorrowError::change(action()))?;
    parse(&shown, index).map_err(|error| BorrowError::change(action())(error.into()))
}

fn parse(shown: &str, index: u32) -> serde_json::Result<VirtualSettings> {
    let links: serde_json::Value = serde_json::from_str(shown)?;
    let functions = links.pointer("/0/vfinfo_list").and_then(|list| list.as_array()).map_or(&[][..], Vec::as_slice);
    let ours = functions.iter().find(|function| function["vf"].as_u64() == Some(u64::from(index)));
    let flag = |name: &str| ours.and_then(|function| function[name].as_bool());
    // Newer versions of iproute2 say "address" where older ones said "mac".
    let mac = ours.and_then(|function| function["address"].as_str().or_else(|| function["mac"].as_str()));
    // Older ones have no list. Where there is none, none is shown.
    let vlan = ours.map(|function| function.pointer("/vlan_list/0/vlan").unwrap_or(&function["vlan"]));
    Ok(VirtualSettings {
        mac: mac.and_then(|text| text.parse().ok()),
        spoof_check: flag("spoofchk"),
        trust: flag("trust"),
        vlan: vlan.map(|vlan| vlan.as_u64().and_then(|vlan| vlan.try_into().ok()).unwrap_or(0)),
    })
}

/// Sets what `settings` has for virtual function `index` of `interface`.
pub(super) fn write(
    kernel: &dyn Kernel,
    interface: &str,
    index: u32,
    settings: &VirtualSettings,
) -> Result<(), BorrowError> {
    let on_off = |on: bool| if on { "on" } else { "off" }.to_owned();
    let words = [
        ("mac", settings.mac.map(|mac| mac.to_string())),
        ("spoofchk", settings.spoof_check.map(on_off)),
        ("trust", settings.trust.map(on_off)),
        ("vlan", settings.vlan.map(|vlan| vlan.to_string())),
    ];
    // One at a time: a driver that does not know one of them must not hinder the others.
    for (name, value) in words {
        let Some(value) = value else { continue };
        let number = index.to_string();
        match kernel.ip(&["link", "set", "dev", interface, "vf", &number, name, &value]) {
            Ok(_) => {}
            Err(error) if name == "trust" => log::debug!("{interface} does not know trust: {error}"),
            Err(error) if name == "mac" && settings.mac == Some(MacAddress([0; 6])) => {
                log::warn!("virtual function {index} of {interface} keeps its MAC address: {error}");
            }
            Err(error) => {
                let action = format!("set {name} {value} for virtual function {index} of {interface}");
                return Err(BorrowError::change(action)(io::Error::new(error.kind(), error)));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_read_from_what_ip_shows() {
        let shown = r#"[{"ifname":"enp3s0","vfinfo_list":[
            {"vf":0,"mac":"00:00:00:00:00:00","spoofchk":true},
            {"vf":1,"mac":"52:54:00:12:34:56","vlan":5},
            {"vf":2,"address":"52:54:00:12:34:57","vlan_list":[{"vlan":101}],"spoofchk":false,"trust":true}]}]"#;
        let of = |index| parse(shown, index).unwrap();
        assert_eq!(
            of(0),
            VirtualSettings { mac: Some(MacAddress([0; 6])), spoof_check: Some(true), trust: None, vlan: Some(0) }
        );
        assert_eq!(of(1).vlan, Some(5));
        assert_eq!(of(1).mac.unwrap().to_string(), "52:54:00:12:34:56");
        let third = VirtualSettings {
            mac: Some("52:54:00:12:34:57".parse().unwrap()),
            spoof_check: Some(false),
            trust: Some(true),
            vlan: Some(101),
        };
        assert_eq!(of(2), third);
        assert_eq!(of(3), VirtualSettings { mac: None, spoof_check: None, trust: None, vlan: None });
        assert!(parse("Device not found", 0).is_err());
    }
}
