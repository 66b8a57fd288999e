//! The end of a run: nothing more goes wrong, everything comes to rest, and the checker looks at what there is.

use super::{Outcome, World};
use crate::Workload;
use crate::fabric::Behind;
use slim_core::nf::{NetworkFunction, ShardId};
use slim_core::protocol::Mode;
use slim_core::protocol::control::InstanceRole;
use slim_core::snapshot;
use slim_core::time::Duration;
use slim_core::vei::lcore::Io;

/// The longest everything may need to come to rest.
const PATIENCE: Duration = Duration::from_secs(400);

/// How often it is looked at whether everything has come to rest.
const LOOK: Duration = Duration::from_millis(20);

impl<N: NetworkFunction, W: Workload<N>> World<N, W> {
    /// Lets everything come to rest and judges.
    pub(super) fn finish(&mut self) -> Outcome {
        self.heal();
        let end = self.now + PATIENCE;
        // Instances and the switch that are to come back do within some seconds.
        self.run_for(Duration::from_secs(5))?;
        self.with_controller(|controller, _| controller.give_up_recycling());
        while !self.is_at_rest() {
            if self.now > end {
                return Err(format!("there is no rest: {}", self.unrest().unwrap_or_default()));
            }
            self.run_for(LOOK)?;
            self.judge_ended()?;
        }
        self.generating = false;
        let end = self.now + PATIENCE;
        // Long enough for the last packet.
        self.run_for(Duration::from_millis(200))?;
        while let Some(left) = self.unrest().or_else(|| self.left_behind()) {
            if self.now > end {
                return Err(format!("something is left behind: {left}"));
            }
            self.run_for(LOOK)?;
        }
        self.check_holder()?;
        self.account_drops()?;
        self.oracle.settle()
    }

    fn is_at_rest(&self) -> bool {
        self.unrest().is_none()
    }

    /// Who is not at rest, in words.
    fn unrest(&self) -> Option<String> {
        let Some(controller) = &self.controller else { return Some("there is no controller".into()) };
        if self.fabric.is_none() {
            return Some("there is no switch".into());
        }
        if !controller.is_at_rest() {
            return Some("the controller has something to do".into());
        }
        for (node, instance) in self.nodes.iter().enumerate() {
            let Some(instance) = instance else { continue };
            let role = instance.role();
            if matches!(role, InstanceRole::Source | InstanceRole::Destination) {
                return Some(format!("instance {node} is {role}"));
            }
            if instance.vei.poll_timeout().is_some() {
                return Some(format!("instance {node} waits for something"));
            }
        }
        None
    }

    /// What is left of migrations, in words.
    fn left_behind(&mut self) -> Option<String> {
        let now = self.now;
        for instance in self.nodes.iter_mut().flatten() {
            if let Some(left) = instance.left_behind(now) {
                return Some(left);
            }
            let (open, control) = (instance.host.connections(), instance.control_connections().len());
            if open > control.min(1) {
                return Some(format!("{} has {open} connections", instance.label()));
            }
        }
        self.fabric.as_ref().and_then(|fabric| fabric.left_behind())
    }

    /// Exactly one instance holds state and gets the packets, if the holder lives.
    fn check_holder(&mut self) -> Outcome {
        if self.holder_is_lost() {
            let live = self.nodes.iter().flatten().any(|instance| instance.role() == InstanceRole::Live);
            return if live { Err("an instance is live that does not hold the state".into()) } else { Ok(()) };
        }
        let Some(holder) = self.holding() else { return Err("nobody holds the state".into()) };
        for node in 0..2 {
            let Some(instance) = &self.nodes[node] else { continue };
            let live = instance.role() == InstanceRole::Live;
            if live != (node == holder) {
                let role = instance.role();
                return Err(format!("instance {node} is {role}, and the state is at instance {holder}"));
            }
        }
        let leads_to = self.fabric.as_ref().and_then(|fabric| fabric.leads_to());
        if leads_to != Some(holder) {
            return Err(format!("the paths lead to {leads_to:?}, and the state is at instance {holder}"));
        }
        let Some(instance) = &mut self.nodes[holder] else { return Ok(()) };
        for (shard, lcore) in instance.lcores.iter_mut().enumerate() {
            let Some(nf) = lcore.network_function() else {
                return Err(format!("lcore {shard} of the holder has no network function"));
            };
            let shard = ShardId(shard as u16);
            self.oracle.compare(shard, snapshot::digest(&snapshot::freeze(nf)), "at the end")?;
            let counted = |reason| lcore.io().refused_total(reason);
            self.oracle.compare_drops(shard, N::DROP_REASONS, counted)?;
        }
        Ok(())
    }

    /// Adds what counters say to what the judge knows, and objects to what must not have been dropped.
    fn account_drops(&mut self) -> Outcome {
        let excuses = self.excuses;
        let crashed = excuses.instance_crash || excuses.switch_crash;
        // A host was cut off for so long that it gave up, and the switch could not be told either.
        let given_up = self.nodes.iter().flatten().any(|instance| instance.hand_back_given_up);
        for lcore in self.nodes.iter().flatten().flat_map(|instance| &instance.lcores) {
            for (&cause, &packets) in &lcore.io().dropped {
                *self.dropped.entry(cause).or_default() += packets;
            }
        }
        for (&cause, &packets) in &self.dropped {
            let expected = match cause {
                "pkt_q_full" => true,
                "halted" => self.scenario.start.mode == Mode::StopAndCopy,
                "idle" => crashed || given_up,
                "stale" => crashed,
                _ => false,
            };
            if !expected {
                return Err(format!("lcores dropped {packets} packets: {cause}"));
            }
            self.stats.dropped(cause, packets);
            self.oracle.count_in(packets);
        }
        if self.discarded > 0 && !crashed {
            return Err(format!("{} packets were thrown away with pkt_q", self.discarded));
        }
        let Some(fabric) = &self.fabric else { return Ok(()) };
        for (behind, cause, packets) in fabric.drops() {
            let data = matches!(behind, Behind::Data(..) | Behind::Outside(_));
            let expected = match cause.as_str() {
                "egress_full" | "hold_full" | "delay_full" => true,
                "hand_back_looped" => crashed || given_up,
                "link_down" | "no_path" | "removed" => crashed,
                // A switch just restarted knows the port, but not yet that it is an instance's.
                "inband_forbidden" => excuses.switch_crash && matches!(behind, Behind::Data(..)),
                "lower_effort_full" => !data,
                cause => cause.starts_with("meter"),
            };
            if !expected {
                return Err(format!("the switch dropped {packets} packets at {behind:?}: {cause}"));
            }
            if !data {
                continue;
            }
            self.stats.dropped(&cause, packets);
            match (behind, cause.as_str()) {
                // Counted together with packets of the other direction, or with drain packets and what acknowledges them.
                (_, "delay_full" | "inband_forbidden") | (Behind::Data(..), "link_down") => {
                    self.oracle.lose_unknown(packets);
                }
                (Behind::Data(..), "meter_from_instance" | "no_path") => self.oracle.count_out(packets),
                (Behind::Outside(_), "egress_full" | "link_down") => self.oracle.count_out(packets),
                _ => self.oracle.count_in(packets),
            }
        }
        for (cause, packets) in fabric.other_drops() {
            if !crashed {
                return Err(format!("the switch dropped {packets} packets of no port: {cause}"));
            }
            self.oracle.lose_unknown(packets);
        }
        self.stats.handed_back += fabric.counter("handed_back_packets");
        Ok(())
    }
}
