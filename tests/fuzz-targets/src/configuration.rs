//! What operators write: the switch's file, the NAT's section, the controller's deployment.

use slim_controller::deployment::Deployment;
use slim_core::nf::{NetworkFunction, Shard, ShardId};
use slim_nat::Nat;
use slim_switch::config::Config;
use std::path::Path;

/// Tables larger than this are not built here: they cost time and are no different.
const CAPACITY_MAX: u32 = 1 << 12;

/// Runs the target.
pub fn run(bytes: &[u8]) {
    let Ok(text) = core::str::from_utf8(bytes) else { return };
    match Config::parse(text) {
        // What passes the check builds, for it has been built once.
        Ok(config) => config.instances.iter().for_each(|one| assert!(one.bindings().is_ok())),
        Err(error) => assert!(!error.to_string().is_empty()),
    }
    if let Err(error) = Deployment::parse(text, Path::new("/deployment/slim.toml")) {
        assert!(!error.to_string().is_empty());
    }
    let Ok(config) = toml::from_str::<slim_nat::Config>(text) else { return };
    let valid = config.validate().is_ok();
    if config.sessions_max.max(config.hosts_max).max(config.arp_entries_max) > CAPACITY_MAX {
        return;
    }
    for shard in [Shard::ONLY, Shard { id: ShardId(2), count: 3 }] {
        match Nat::new(&config, shard, 1) {
            Ok(_) => assert!(valid, "it was made with a configuration that is not valid"),
            Err(error) => assert!(!error.to_string().is_empty()),
        }
    }
}
