//! What both ends of a migration must be configured with alike, checked when a snapshot arrives.
//!
//! The tables hold exterior ports and addresses that mean nothing under another address or in another shard's range.
//! So these settings travel as an item of state of their own, the first, and adoption fails where they differ.
//! (Capacities are compared by the tables themselves. Time-outs may differ.)

use crate::config::Config;
use crate::pool::ADDRESSES_MAX;
use crate::ports::PortRange;
use crate::rules::Forwards;
use slim_core::nf::{ConfigError, Shard};
use slim_core::table::{AdoptError, FrozenItem, ItemHeader, Register, StateItem};

slim_core::pod! {
    /// The settings that the state depends on.
    pub struct Identity {
        /// The NAT's interior address.
        pub interior_address: u32,
        /// The NAT's exterior address.
        pub exterior_address: u32,
        /// All exterior addresses in ascending order, then zeros.
        pub pool: [u32; ADDRESSES_MAX],
        /// Prefix lengths, interior first.
        pub prefix_len: [u8; 2],
        /// MAC addresses, interior first.
        pub mac: [[u8; 6]; 2],
        /// The lowest and highest exterior port of this shard.
        pub ports: [u16; 2],
        /// The code of the [`Filtering`](crate::config::Filtering), of which some keep more state.
        pub filtering: u8,
        /// The code of the [`Pooling`](crate::config::Pooling).
        pub pooling: u8,
        /// Ports per block, 0 without blocks; the most blocks of a host.
        pub blocks: [u32; 2],
        /// The [digest](crate::rules::Forwards::digest) of the forwards.
        pub forwards: u64,
    }
}

/// The settings, as a state item that adopts nothing but its own value.
#[derive(Debug, Clone)]
pub struct Settings {
    own: Identity,
    register: Register<Identity>,
}

impl Settings {
    /// The settings of one shard.
    ///
    /// # Errors
    /// See [`Config::port_range`].
    pub fn new(config: &Config, shard: Shard) -> Result<Self, ConfigError> {
        let PortRange { first, last } = config.port_range(shard)?;
        let (interior, exterior) = (config.interior_address, config.exterior_address);
        let mut pool = [0; ADDRESSES_MAX];
        for (slot, address) in pool.iter_mut().zip(config.pool()?.iter()) {
            *slot = address.to_bits();
        }
        let own = Identity {
            interior_address: interior.address.to_bits(),
            exterior_address: exterior.address.to_bits(),
            pool,
            prefix_len: [interior.prefix_len, exterior.prefix_len],
            mac: [config.interior_mac.0, config.exterior_mac.0],
            ports: [first, last],
            filtering: config.filtering as u8,
            pooling: config.address_pooling as u8,
            blocks: [config.port_block_size.map_or(0, u32::from), config.port_blocks_per_host_max],
            forwards: Forwards::new(&config.forward).digest(),
        };
        Ok(Self { own, register: Register::new("settings", own) })
    }
}

impl StateItem for Settings {
    fn name(&self) -> &'static str {
        self.register.name()
    }

    fn freeze(&mut self) -> Box<dyn FrozenItem> {
        self.register.freeze()
    }

    fn begin_adopt(&mut self, header: &ItemHeader) -> Result<(), AdoptError> {
        self.register.begin_adopt(header)
    }

    fn adopt_segment(&mut self, index: u32, archive: &[u8]) -> Result<(), AdoptError> {
        self.register.adopt_segment(index, archive)?;
        if self.register.get() != self.own {
            self.register.set(self.own);
            return Err(AdoptError::Header(
                "the two NATs' addresses, networks, port ranges, blocks, forwards or filtering differ",
            ));
        }
        Ok(())
    }

    fn finish_adopt(&mut self) -> Result<(), AdoptError> {
        self.register.finish_adopt()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Filtering, Pooling};
    use crate::rules::Forward;
    use crate::types::Protocol;
    use slim_core::packet::MacAddr;

    fn config() -> Config {
        let [interior, exterior] = ["10.1.0.1/24", "10.2.0.1/24"].map(|text| text.parse().unwrap());
        Config::new(interior, MacAddr([2, 0, 0, 0, 0, 1]), exterior, MacAddr([2, 0, 0, 0, 0, 2]))
    }

    fn adopt(source: &Config, destination: &Config, shard: Shard) -> Result<(), AdoptError> {
        let frozen = Settings::new(source, Shard::ONLY).unwrap().freeze();
        let mut settings = Settings::new(destination, shard).unwrap();
        settings.begin_adopt(&frozen.header())?;
        settings.adopt_segment(0, &frozen.archive_segment(0).unwrap().unwrap())?;
        settings.finish_adopt()
    }

    #[test]
    fn only_a_nat_of_the_same_settings_adopts() {
        assert_eq!(adopt(&config(), &config(), Shard::ONLY), Ok(()));
        let other_timeout = Config { udp_timeout_s: 600, ..config() };
        assert_eq!(adopt(&config(), &other_timeout, Shard::ONLY), Ok(()));
        let forward = Forward {
            protocol: Protocol::Tcp,
            exterior: "10.2.0.1:80".parse().unwrap(),
            interior: "10.1.0.9:8080".parse().unwrap(),
        };
        for other in [
            Config { exterior_address: "10.2.0.2/24".parse().unwrap(), ..config() },
            Config { interior_address: "10.1.0.1/16".parse().unwrap(), ..config() },
            Config { interior_mac: MacAddr([2, 0, 0, 0, 0, 3]), ..config() },
            Config { port_last: 40_000, ..config() },
            Config { exterior_pool: vec!["10.2.0.7".parse().unwrap()], ..config() },
            Config { port_block_size: Some(64), ..config() },
            Config { forward: vec![forward], ..config() },
            Config { address_pooling: Pooling::Arbitrary, ..config() },
            Config { filtering: Filtering::AddressDependent, ..config() },
        ] {
            assert!(matches!(adopt(&config(), &other, Shard::ONLY), Err(AdoptError::Header(_))));
        }
        let second = Shard { id: slim_core::nf::ShardId(1), count: 2 };
        assert!(matches!(adopt(&config(), &config(), second), Err(AdoptError::Header(_))));
    }
}
