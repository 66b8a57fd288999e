//! The operator: one migration after the other, and whether each came to what its outcome says.

use super::{Outcome, World};
use crate::controller::Ended;
use crate::{PlannedMigration, Workload};
use slim_core::migration::{self, CoordinatorParameters};
use slim_core::nf::NetworkFunction;
use slim_core::protocol::control::InstanceRole;
use slim_core::protocol::{FailureCode, MigrationId, Nonce};
use slim_core::time::{Duration, Instant};

/// The longest a migration may take, and the longest everybody may need to come to rest.
const PATIENCE: Duration = Duration::from_secs(900);

/// Longer than lcores ever stand still.
const LONGEST_STALL: Duration = Duration::from_secs(1);

/// How long an lcore that has stood still may take until it has looked at everything.
const LCORE_SLACK: Duration = Duration::from_millis(50);

impl<N: NetworkFunction, W: Workload<N>> World<N, W> {
    /// Everything that is planned, to the verdict.
    pub(crate) fn run(&mut self) -> Outcome {
        self.run_for(Duration::from_millis(20))?;
        let plan = self.scenario.migrations.clone();
        for planned in &plan {
            self.run_for(planned.pause)?;
            if self.holder_is_lost() {
                break;
            }
            self.migrate(planned)?;
        }
        self.finish()
    }

    /// The instance that holds the state.
    pub(super) fn holding(&self) -> Option<usize> {
        self.holder.first().copied().flatten().map(|(node, _)| node)
    }

    /// Whether state has been lost with the instance that held it.
    pub(super) fn holder_is_lost(&self) -> bool {
        self.holder.iter().any(|holder| match *holder {
            Some((node, life)) => match &self.nodes[node] {
                Some(instance) if self.lives[node] == life => {
                    self.died_taking_over && instance.role() == InstanceRole::Released
                }
                Some(_) | None => true,
            },
            None => true,
        })
    }

    fn migrate(&mut self, planned: &PlannedMigration) -> Outcome {
        let Some(source) = self.holding() else { return Ok(()) };
        if planned.recycle {
            self.recycle(1 - source)?;
        }
        // What the controller has picked up meanwhile is no outcome of the migration to come.
        self.judge_ended()?;
        // A destination that has acknowledged has the state as soon as its lcores get to run.
        let end = self.now + LONGEST_STALL;
        self.run_until(end, |world| !world.is_about_to_hold())?;
        // One that was open may have been completed meanwhile.
        let Some(source) = self.holding().filter(|_| !self.holder_is_lost()) else { return Ok(()) };
        if self.scenario.expiry && self.round == 0 {
            // Just before the second in which entries of the first one expire.
            let round_trips = Duration::from_micros(self.scenario.link.delay_us.into()) * 16;
            let early = self.random.time(Duration::from_millis(3), Duration::from_millis(8) + round_trips);
            self.run_for(Instant::from_millis(10_000) - (self.now + early))?;
        }
        let open = |role| matches!(role, InstanceRole::Source | InstanceRole::Destination);
        self.excuses.contested |= self.nodes.iter().flatten().any(|instance| open(instance.role()));
        self.must_complete = planned.recycle && planned.faults.is_empty() && self.nothing_is_in_the_way(source);
        self.held_by = Some(source);
        self.arm(&planned.faults);
        self.begin_migration(source);
        let end = self.now + PATIENCE;
        self.until_over(end)?;
        self.disarm();
        Ok(())
    }

    /// Whether a migration has to be completed if nothing goes wrong from now on.
    fn nothing_is_in_the_way(&self, source: usize) -> bool {
        let role = |node: usize| self.nodes[node].as_ref().map(|instance| instance.role());
        let stalled = |instance: &crate::instance::Node<N>| self.now < instance.stalled_until;
        self.scenario.roomy
            && !self.excuses.contested
            && (role(source), role(1 - source)) == (Some(InstanceRole::Live), Some(InstanceRole::Idle))
            && self.fabric.as_ref().is_some_and(|fabric| fabric.leads_to() == Some(source) && !fabric.is_redirecting())
            && self.controller.as_ref().is_some_and(|controller| controller.is_connected())
            && self.partitioned_until.iter().flatten().all(|&until| until <= self.now)
            && self.lcores_stalled_until.iter().flatten().all(|&until| until <= self.now)
            && !self.nodes.iter().flatten().any(stalled)
    }

    /// Has the other instance made ready for a migration, if that is possible.
    fn recycle(&mut self, node: usize) -> Outcome {
        let end = self.now + PATIENCE;
        self.until_over(end)?;
        self.with_controller(|controller, _| controller.recycle(node));
        let done = |world: &mut Self| {
            world.nodes[node].is_none() || world.controller.as_ref().is_some_and(|one| one.is_at_rest())
        };
        let end = self.now + Duration::from_secs(30);
        if !self.run_until(end, done)? && !self.excuses.unreachable {
            return Err(format!("instance {node} cannot be reset"));
        }
        Ok(())
    }

    pub(super) fn begin_migration(&mut self, source: usize) {
        let migration = MigrationId(self.random.number());
        self.known_migrations.insert(migration);
        self.stats.migrations += 1;
        self.trace.event(
            self.now,
            "operator",
            format_args!("migration {migration} from instance {source} to instance {}", 1 - source),
        );
        let parameters = CoordinatorParameters {
            migration,
            nonce: Nonce(self.random.number() as u32),
            source: self.names.instances[source].clone(),
            destination: self.names.instances[1 - source].clone(),
            prepare: self.scenario.prepare.clone(),
            start: self.scenario.start.clone(),
            timeouts: self.scenario.timeouts,
        };
        let now = self.now;
        let begun = self.with_controller(|controller, _| controller.migrate(now, parameters, source));
        if begun.is_none() {
            self.trace.event(self.now, "operator", format_args!("there is no controller to be asked"));
        }
    }

    /// Lets time pass until no migration is driven any more, judging the outcome of each.
    fn until_over(&mut self, end: Instant) -> Outcome {
        loop {
            let ended = |world: &mut Self| {
                world.controller.as_ref().is_some_and(|one| !one.ended.is_empty() || !one.is_driving())
            };
            if !self.run_until(end, ended)? {
                return Err("a migration does not end".into());
            }
            self.judge_ended()?;
            if self.controller.as_ref().is_some_and(|one| !one.is_driving()) {
                return Ok(());
            }
        }
    }

    /// Judges the outcomes that there are.
    pub(super) fn judge_ended(&mut self) -> Outcome {
        let ended = self.controller.as_mut().map(|one| std::mem::take(&mut one.ended)).unwrap_or_default();
        for ended in ended {
            self.trace.event(self.now, "operator", format_args!("migration {}: {}", ended.migration, words(&ended)));
            self.stats.outcome(&ended.outcome);
            self.judge(&ended)?;
        }
        Ok(())
    }

    /// What the caller is told must be so.
    fn judge(&mut self, ended: &Ended) -> Outcome {
        let (source, destination) = (ended.source, 1 - ended.source);
        let role = |world: &Self, node: usize| world.nodes[node].as_ref().map(|instance| instance.role());
        let (source_role, destination_role) = (role(self, source), role(self, destination));
        let shown = || format!("source {source_role:?}, destination {destination_role:?}: {}", words(ended));
        match &ended.outcome {
            migration::Outcome::Completed { digests_equal, remark, .. } => {
                // Everything may have moved on since, but only after a fault or another migration.
                let moved_on = self.excuses.instance_crash || self.excuses.contested;
                let held = (0..self.holder.len()).all(|shard| self.takes_over(destination, shard));
                if !moved_on && (!held || destination_role != Some(InstanceRole::Live)) {
                    return Err(format!("reported as completed, but it is not so: {}", shown()));
                }
                if *digests_equal == Some(false) {
                    return Err(format!("the digests differ: {}", shown()));
                }
                if self.scenario.calm && (*digests_equal != Some(true) || remark.is_some()) {
                    return Err(format!("completed with a remark though nothing went wrong: {}", shown()));
                }
            }
            migration::Outcome::RolledBack { failure, .. } => {
                if self.must_complete {
                    return Err(format!("nothing went wrong, but it was rolled back: {failure}"));
                }
                let moved_on = self.excuses.instance_crash || self.excuses.contested;
                // One that was refused has not begun; another one may be open.
                let refused = failure.code == FailureCode::Refused;
                let live = refused || matches!(source_role, Some(InstanceRole::Live));
                if !moved_on && (self.holding() != self.held_by || !live) {
                    return Err(format!("reported as rolled back, but it is not so: {}", shown()));
                }
            }
            migration::Outcome::Unresolved { .. } => {
                if !self.excuses.unreachable && !self.is_noisy() {
                    return Err(format!("unresolved though everybody could be reached: {}", shown()));
                }
                self.excuses.contested = true;
            }
        }
        Ok(())
    }

    /// Whether the state is with an instance whose lcores have not run since it acknowledged.
    fn is_about_to_hold(&self) -> bool {
        let role = |node: usize| self.nodes[node].as_ref().map(|instance| instance.role());
        self.holding().is_some_and(|holder| {
            (role(holder), role(1 - holder)) == (Some(InstanceRole::Released), Some(InstanceRole::Live))
        })
    }

    /// Whether an instance that has acknowledged holds a shard, or will as soon as its lcore gets to run.
    fn takes_over(&self, node: usize, shard: usize) -> bool {
        let held = self.holder[shard].is_some_and(|(holder, _)| holder == node);
        held || self.lcores_stalled_until[node][shard] + LCORE_SLACK > self.now
    }

    fn is_noisy(&self) -> bool {
        self.scenario.noise.mgmt_loss > 0 || self.scenario.link.rate_bps > 0
    }
}

fn words(ended: &Ended) -> String {
    match &ended.outcome {
        migration::Outcome::Completed { digests_equal, remark, .. } => {
            format!("completed, digests equal {digests_equal:?}, remark {remark:?}")
        }
        migration::Outcome::RolledBack { failure, remark, .. } => format!("rolled back, {failure}, remark {remark:?}"),
        migration::Outcome::Unresolved { failure, what_to_do } => format!("unresolved, {failure}; {what_to_do}"),
    }
}
