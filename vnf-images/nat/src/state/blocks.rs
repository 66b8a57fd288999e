//! Transitions of port blocks.

use super::{Refusal, State};
use crate::blocks::{BLOCKS_PER_HOST_MAX, Block, BlockKey};
use crate::tables::Host;
use crate::types::Endpoint;
use core::net::Ipv4Addr;

impl Host {
    /// The numbers of its blocks.
    pub(crate) fn blocks(&self) -> impl Iterator<Item = u16> {
        self.blocks.into_iter().filter_map(|block| block.checked_sub(1))
    }

    /// Whether it has an exterior address at present.
    pub(super) fn is_paired(&self) -> bool {
        self.ports > 0 || self.blocks().next().is_some()
    }
}

impl State {
    /// The block that an exterior endpoint is in. `None` without blocks.
    pub(crate) fn block_key(&self, exterior: Endpoint) -> Option<BlockKey> {
        let number = self.block_index.as_ref()?.of_port(exterior.port)?;
        Some(BlockKey::new(exterior.address, number))
    }

    /// Whether a host's next mapping may have this exterior endpoint, as far as blocks are concerned.
    pub(super) fn block_admits(&self, host: Ipv4Addr, exterior: Endpoint) -> bool {
        let Some(index) = &self.block_index else { return true };
        let Some(key) = self.block_key(exterior) else { return false };
        match self.blocks.get(&key) {
            Some(block) => block.host == host.to_bits(),
            None => {
                let has = self.hosts.get(&host.to_bits()).map_or(0, |host| host.blocks().count());
                has < index.per_host_max().min(BLOCKS_PER_HOST_MAX) && self.blocks.len() < self.blocks.capacity()
            }
        }
    }

    /// Notes that a mapping of a host uses a port, and lends it the block if it has not got it. Whether it had not.
    pub(super) fn hold_block(&mut self, host: Ipv4Addr, exterior: Endpoint) -> Result<bool, Refusal> {
        let Some(key) = self.block_key(exterior) else { return Ok(false) };
        if let Some(block) = self.blocks.get_mut(&key) {
            block.ports = block.ports.saturating_add(1);
            return Ok(false);
        }
        let entry = self.hosts.get_mut(&host.to_bits()).ok_or(Refusal::Inconsistent)?;
        let slot = entry.blocks.iter_mut().find(|block| **block == 0).ok_or(Refusal::Inconsistent)?;
        let block = Block { host: host.to_bits(), ports: 1, idle_since: self.clock.get() };
        self.blocks.insert(key, block).map_err(|_| Refusal::Inconsistent)?;
        *slot = key.number + 1;
        if let (Some(index), Some(address)) = (&mut self.block_index, self.pool.index_of(exterior.address)) {
            index.take(address, key.number);
        }
        Ok(true)
    }

    /// Notes that a mapping does not use its port any more.
    pub(super) fn release_port_of_block(&mut self, exterior: Endpoint) {
        let now = self.clock.get();
        let Some(key) = self.block_key(exterior) else { return };
        if let Some(block) = self.blocks.get_mut(&key) {
            block.ports = block.ports.saturating_sub(1);
            block.idle_since = now;
        }
    }

    /// Takes a block without ports in use back.
    pub(crate) fn forget_block(&mut self, key: &BlockKey) -> Result<Block, Refusal> {
        let block = self.blocks.get(key).copied().filter(|block| block.ports == 0).ok_or(Refusal::Inconsistent)?;
        self.blocks.remove(key);
        if let Some(host) = self.hosts.get_mut(&block.host) {
            let lent = host.blocks.iter_mut().filter(|number| **number == key.number + 1);
            lent.for_each(|number| *number = 0);
        }
        let address = self.pool.index_of(Ipv4Addr::from_bits(key.address));
        if let (Some(index), Some(address)) = (&mut self.block_index, address) {
            index.release(address, key.number);
        }
        Ok(block)
    }

    /// Brings the index of free blocks up to date after blocks have been adopted from a snapshot.
    pub(super) fn index_blocks(&mut self) {
        let Some(index) = &mut self.block_index else { return };
        if index.used() + self.foreign_blocks == self.blocks.len() {
            return;
        }
        index.clear();
        self.foreign_blocks = 0;
        for (key, _) in self.blocks.iter() {
            let address = self.pool.index_of(Ipv4Addr::from_bits(key.address));
            let taken = address.is_some_and(|address| index.take(address, key.number));
            self.foreign_blocks += usize::from(!taken);
        }
    }
}
