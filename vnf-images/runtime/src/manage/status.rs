//! What an instance tells about itself: counters, gauges, queues.

use super::manager::Instance;
use crate::dataplane::Counters as LcoreCounters;
use dpdk::Port;
use slim_core::nf::{Gauge, NetworkFunction};
use slim_core::protocol::control::{Counters, QueueStatus, SAMPLE};
use slim_core::vei::lcore::Cause;
use slim_trust::Door;
use std::collections::BTreeMap;
use std::sync::Arc;

/// The dataplane's counters, seen from the management thread.
pub struct Sources {
    /// Of each lcore.
    pub lcores: Vec<Arc<LcoreCounters>>,
    /// Of each port's driver.
    pub ports: Vec<Port>,
    /// Of each listening port.
    pub doors: Vec<Arc<Door>>,
}

impl Sources {
    /// Every counter by name: `port.in.rx_packets`, `drop.pkt_q_full`, `nat.drop.no_binding`, `lcore.sleeps`,
    /// `state.refused.expired`.
    pub fn counters<F: NetworkFunction>(&self) -> Counters {
        let mut counters = Counters::new();
        for lcore in &self.lcores {
            let mut add = |name: String, value: u64| *counters.entry(name).or_default() += value;
            for (port, name) in lcore.ports.iter().zip(F::PORTS) {
                add(format!("port.{name}.rx_packets"), port.rx_packets.get());
                add(format!("port.{name}.rx_bytes"), port.rx_bytes.get());
                add(format!("port.{name}.rx_unusable"), port.rx_unusable.get());
                add(format!("port.{name}.tx_packets"), port.tx_packets.get());
                add(format!("port.{name}.tx_bytes"), port.tx_bytes.get());
            }
            for &cause in Cause::ALL {
                add(format!("drop.{}", cause.name()), lcore.causes[cause as usize].get());
            }
            for (counter, reason) in lcore.reasons.iter().zip(F::DROP_REASONS) {
                add(format!("{}.drop.{reason}", F::KIND), counter.get());
            }
            add(format!("{}.consumed", F::KIND), lcore.consumed.get());
            add("pkt_q.packets".into(), lcore.pkt_q_packets.get());
            add("inband.drains".into(), lcore.drains.get());
            add("inband.handed_back".into(), lcore.handed_back.get());
            add("statelets.announced".into(), lcore.statelets.get());
            add("statelets.announced_bytes".into(), lcore.statelet_bytes.get());
            add(format!("{SAMPLE}packets"), lcore.sample_packets.get());
            add(format!("{SAMPLE}packet_bytes"), lcore.sample_packet_bytes.get());
            add(format!("{SAMPLE}statelets"), lcore.sample_statelets.get());
            add(format!("{SAMPLE}value_bytes"), lcore.sample_value_bytes.get());
            add("log.events".into(), lcore.events_logged.get());
            add("log.events_lost".into(), lcore.events_lost.get());
            add("lcore.busy_polls".into(), lcore.busy_polls.get());
            add("lcore.empty_polls".into(), lcore.empty_polls.get());
            add("lcore.sleeps".into(), lcore.sleeps.get());
        }
        // All lcores take a sample at the same time.
        let elapsed_us = self.lcores.iter().map(|lcore| lcore.sample_us.get()).max();
        counters.insert(format!("{SAMPLE}elapsed_us"), elapsed_us.unwrap_or(0));
        for (port, name) in self.ports.iter().zip(F::PORTS) {
            let Ok(stats) = port.stats() else { continue };
            counters.insert(format!("port.{name}.rx_missed"), stats.rx_missed);
            counters.insert(format!("port.{name}.rx_no_mbuf"), stats.rx_no_mbuf);
            counters.insert(format!("port.{name}.rx_errors"), stats.rx_errors);
            counters.insert(format!("port.{name}.tx_errors"), stats.tx_errors);
        }
        counters.extend(self.doors.iter().flat_map(|door| door.counters()));
        counters
    }

    /// `pkt_q` and `st_q_out` of all lcores together, and `st_q_in`.
    pub fn queues(&self, instance: &Instance, st_q_in: QueueStatus) -> BTreeMap<String, QueueStatus> {
        let mut pkt_q = QueueStatus::default();
        let mut st_q_out = QueueStatus::default();
        for lcore in &self.lcores {
            pkt_q.bytes += lcore.pkt_q_bytes.get();
            pkt_q.records += lcore.pkt_q_depth.get();
            pkt_q.longest_bytes += lcore.pkt_q_bytes_max.get();
            pkt_q.longest_records += lcore.pkt_q_depth_max.get();
            pkt_q.capacity_bytes += instance.limits.pkt_q_bytes as u64;
            st_q_out.bytes += lcore.st_q_out_bytes.get();
            st_q_out.longest_bytes += lcore.st_q_out_bytes_max.get();
            st_q_out.capacity_bytes += instance.limits.st_q_out_bytes as u64;
        }
        [("pkt_q", pkt_q), ("st_q_out", st_q_out), ("st_q_in", st_q_in)]
            .map(|(name, status)| (name.to_string(), status))
            .into()
    }
}

/// Gauges of the network function under its kind's name, those of several shards added.
pub fn gauges<F: NetworkFunction>(shards: &[Vec<Gauge>]) -> Counters {
    let mut gauges = Counters::new();
    for gauge in shards.iter().flatten() {
        *gauges.entry(format!("{}.{}", F::KIND, gauge.name)).or_default() += gauge.value;
    }
    gauges
}
