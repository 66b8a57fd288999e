//! The coordinator against parties that answer by hand: every way forward, every way back.

mod back;
mod forward;
mod gone;
mod recover;

use super::*;
use crate::protocol::control::{
    ControlError, Counters, Description, ErrorCode, Holder, InstanceEvent, InstancePaths, InstanceReply,
    InstanceRequest, InstanceRole, InstanceStatus, LinkSettings, MigrationReport, MigrationRole, MigrationStatus,
    PathStatus, PrepareOptions, RedirectState, ResolveOutcome, StartOptions, SwitchEvent, SwitchReply, SwitchRequest,
};
use crate::protocol::{
    DestinationPhase, Digest, Failure, FailureCode, MigrationId, MigrationPhase, Name, Nonce, PathIndex, PathSet,
    Schema, SourcePhase, Text,
};
use crate::time::{Duration, Instant};
use alloc::boxed::Box;
use alloc::vec;
use alloc::vec::Vec;

const MIGRATION: MigrationId = MigrationId(7);
const NONCE: Nonce = Nonce(5);
const BACK: Nonce = Nonce(6);

fn name(text: &str) -> Name {
    text.try_into().unwrap()
}

fn parameters() -> CoordinatorParameters {
    CoordinatorParameters {
        migration: MIGRATION,
        nonce: NONCE,
        source: name("nat-a"),
        destination: name("nat-b"),
        prepare: PrepareOptions::default(),
        start: StartOptions::default(),
        timeouts: CoordinatorTimeouts::default(),
    }
}

fn description(instance: &str, role: InstanceRole) -> Description {
    Description {
        name: name(instance),
        kind: name("nat"),
        schema: Schema(1),
        software: Text::from("test"),
        shards: 1,
        ports: vec![name("in"), name("out")],
        role,
        state_address: "10.3.0.12:7002".parse().unwrap(),
        capacity: Counters::new(),
        boot_ms: 900,
    }
}

fn paths_of(instance: &str, live: bool) -> InstancePaths {
    let port = |port: &str| name(&alloc::format!("{instance}.{port}"));
    let path = |index: Option<u8>, from: Name, to: Name| PathStatus {
        from,
        to,
        index: index.and_then(PathIndex::new),
        counters: Counters::new(),
    };
    let paths = vec![
        path(Some(0), name("inside"), port("in")),
        path(None, port("in"), name("inside")),
        path(Some(1), name("outside"), port("out")),
        path(None, port("out"), name("outside")),
    ];
    InstancePaths {
        instance: name(instance),
        ports: vec![port("in"), port("out")],
        mgmt: None,
        link: LinkSettings::default(),
        paths: if live { paths } else { Vec::new() },
    }
}

fn report(digest: u128) -> Box<MigrationReport> {
    Box::new(MigrationReport { digest: Some(Digest(digest)), ..MigrationReport::new(MIGRATION) })
}

fn status(instance: &str, role: InstanceRole, phase: Option<MigrationPhase>) -> InstanceStatus {
    InstanceStatus {
        name: name(instance),
        role,
        uptime_ms: 1,
        migration: phase.map(|phase| MigrationStatus {
            id: MIGRATION,
            phase,
            destination: None,
            nonce: matches!(phase, MigrationPhase::Source(_)).then_some(NONCE),
            paths: PathSet::first(2),
            drained: PathSet::EMPTY,
            failure: None,
            report: *report(1),
            finished: matches!(
                phase,
                MigrationPhase::Source(SourcePhase::Released | SourcePhase::RolledBack)
                    | MigrationPhase::Destination(DestinationPhase::Live | DestinationPhase::Discarded)
            ),
        }),
        counters: Counters::new(),
        gauges: Counters::new(),
        queues: Default::default(),
    }
}

fn redirect_state(rollback: bool, finished: bool) -> RedirectState {
    let (from, to) = if rollback { ("nat-b", "nat-a") } else { ("nat-a", "nat-b") };
    RedirectState {
        migration: MIGRATION,
        from: name(from),
        to: name(to),
        nonce: if rollback { BACK } else { NONCE },
        rollback,
        paths: Vec::new(),
        drained: finished,
        finished,
        handed_back_packets: 0,
        held_packets: 0,
    }
}

/// A coordinator, its clock, and the requests it has sent and that are still to be answered.
struct Bench {
    coordinator: Coordinator,
    now: Instant,
    instance_calls: Vec<(MigrationRole, Call, InstanceRequest)>,
    switch_calls: Vec<(Call, SwitchRequest)>,
    phases: Vec<CoordinatorPhase>,
    /// Everything comes twice, and everything that came before comes once more after it.
    echo: Option<Vec<CoordinatorEvent>>,
}

const SOURCE: MigrationRole = MigrationRole::Source;
const DESTINATION: MigrationRole = MigrationRole::Destination;

fn unreachable() -> CallError {
    CallError::Unreachable(Text::from("no route"))
}

fn refusal(code: ErrorCode) -> CallError {
    CallError::Refused(ControlError::new(code, "no"))
}

impl Bench {
    fn with(coordinator: Coordinator) -> Self {
        let mut bench = Self {
            coordinator,
            now: Instant::ZERO,
            instance_calls: Vec::new(),
            switch_calls: Vec::new(),
            phases: Vec::new(),
            echo: None,
        };
        bench.collect();
        bench
    }

    fn new() -> Self {
        Self::with(Coordinator::new(Instant::ZERO, parameters()))
    }

    fn collect(&mut self) {
        while let Some(action) = self.coordinator.poll_action() {
            match action {
                CoordinatorAction::Instance { role, call, request } => self.instance_calls.push((role, call, request)),
                CoordinatorAction::Switch { call, request } => self.switch_calls.push((call, request)),
                CoordinatorAction::PhaseEntered(phase) => self.phases.push(phase),
            }
        }
    }

    fn handle(&mut self, event: CoordinatorEvent) {
        if let Some(past) = &mut self.echo {
            past.extend([event.clone(), event]);
            for event in past.clone() {
                self.coordinator.handle(self.now, event);
            }
        } else {
            self.coordinator.handle(self.now, event);
        }
        self.collect();
    }

    /// Takes the request to an instance that `select` likes.
    #[track_caller]
    fn taken(&mut self, role: MigrationRole, select: impl Fn(&InstanceRequest) -> bool) -> (Call, InstanceRequest) {
        let index = self.instance_calls.iter().position(|(to, _, request)| *to == role && select(request));
        let Some(index) = index else { panic!("not asked for: {:?}", self.instance_calls) };
        let (_, call, request) = self.instance_calls.remove(index);
        (call, request)
    }

    /// Answers the request to an instance that `select` likes.
    #[track_caller]
    fn answer(
        &mut self,
        role: MigrationRole,
        select: impl Fn(&InstanceRequest) -> bool,
        result: Result<InstanceReply, CallError>,
    ) -> InstanceRequest {
        let (call, request) = self.taken(role, select);
        self.handle(CoordinatorEvent::InstanceReply { call, result });
        request
    }

    #[track_caller]
    fn answer_switch(
        &mut self,
        select: impl Fn(&SwitchRequest) -> bool,
        result: Result<SwitchReply, CallError>,
    ) -> SwitchRequest {
        let index = self.switch_calls.iter().position(|(_, request)| select(request));
        let Some(index) = index else { panic!("not asked for: {:?}", self.switch_calls) };
        let (call, request) = self.switch_calls.remove(index);
        self.handle(CoordinatorEvent::SwitchReply { call, result });
        request
    }

    fn tell(&mut self, role: MigrationRole, event: InstanceEvent) {
        self.handle(CoordinatorEvent::Instance { role, event });
    }

    fn source_phase(&mut self, phase: SourcePhase) {
        self.phase(SOURCE, MigrationPhase::Source(phase));
    }

    fn destination_phase(&mut self, phase: DestinationPhase) {
        self.phase(DESTINATION, MigrationPhase::Destination(phase));
    }

    fn phase(&mut self, role: MigrationRole, phase: MigrationPhase) {
        // The coordinator does not go by the role.
        let instance_role = InstanceRole::Idle;
        self.tell(role, InstanceEvent::PhaseChanged { migration: MIGRATION, phase, instance_role });
    }

    fn failed(&mut self, side: MigrationRole, code: FailureCode) {
        let failure = Failure::new(code, "it broke");
        let holder = Holder::Source;
        self.tell(
            side,
            InstanceEvent::MigrationFailed { migration: MIGRATION, side, failure, holder, holds_packets: true },
        );
    }

    fn finished(&mut self, side: MigrationRole, digest: u128) {
        self.tell(side, InstanceEvent::MigrationFinished { migration: MIGRATION, side, report: report(digest) });
    }

    /// Lets time pass up to the phase's time-out; polls on the way stay unanswered.
    fn time_out(&mut self) {
        let phase = self.coordinator.phase();
        while self.coordinator.phase() == phase && self.coordinator.outcome().is_none() {
            let Some(due) = self.coordinator.poll_timeout() else { panic!("{phase:?} has no time-out") };
            self.now = due;
            self.coordinator.handle_timeout(due);
            self.collect();
            self.lose_everything();
        }
    }

    /// Every request under way fails for want of a connection.
    fn lose_everything(&mut self) {
        for (_, call, _) in core::mem::take(&mut self.instance_calls) {
            self.handle(CoordinatorEvent::InstanceReply { call, result: Err(unreachable()) });
        }
        for (call, _) in core::mem::take(&mut self.switch_calls) {
            self.handle(CoordinatorEvent::SwitchReply { call, result: Err(unreachable()) });
        }
    }

    /// As it should go, up to `phase`.
    fn reach(phase: CoordinatorPhase) -> Self {
        let mut bench = Self::new();
        while bench.coordinator.phase() != phase {
            bench.step();
        }
        bench
    }

    fn step(&mut self) {
        match self.coordinator.phase() {
            CoordinatorPhase::Checking => self.check(|_, _, _| {}),
            CoordinatorPhase::Preparing => {
                self.answer(DESTINATION, is_prepare, Ok(InstanceReply::Done));
                self.destination_phase(DestinationPhase::Armed);
            }
            CoordinatorPhase::Transferring => {
                self.answer(SOURCE, is_start, Ok(InstanceReply::Done));
                self.tell(DESTINATION, InstanceEvent::RedirectWanted { migration: MIGRATION });
            }
            CoordinatorPhase::Redirecting => {
                self.answer_switch(is_redirect, Ok(SwitchReply::Done {}));
            }
            CoordinatorPhase::Draining => {
                self.destination_phase(DestinationPhase::TakingOver);
                self.source_phase(SourcePhase::Released);
            }
            CoordinatorPhase::Finishing => {
                self.finished(SOURCE, 1);
                self.finished(DESTINATION, 1);
            }
            other => panic!("no step from {other:?}"),
        }
    }

    /// Answers the first questions, with changes.
    fn check(&mut self, change: impl Fn(&mut Description, &mut Description, &mut Vec<InstancePaths>)) {
        let mut source = description("nat-a", InstanceRole::Live);
        let mut destination = description("nat-b", InstanceRole::Idle);
        let mut instances = vec![paths_of("nat-a", true), paths_of("nat-b", false)];
        change(&mut source, &mut destination, &mut instances);
        self.answer(SOURCE, is_describe, Ok(InstanceReply::Description(source)));
        self.answer(DESTINATION, is_describe, Ok(InstanceReply::Description(destination)));
        self.answer_switch(|request| *request == SwitchRequest::PathList {}, Ok(SwitchReply::Paths { instances }));
    }

    #[track_caller]
    fn outcome(&self) -> &Outcome {
        self.coordinator.outcome().expect("an outcome")
    }

    /// The code it failed with, if it was undone without a remark.
    #[track_caller]
    fn rolled_back(&self) -> FailureCode {
        match self.outcome() {
            Outcome::RolledBack { failure, remark: None, .. } => failure.code,
            other => panic!("{other:?}"),
        }
    }
}

fn is_describe(request: &InstanceRequest) -> bool {
    matches!(request, InstanceRequest::Describe {})
}

fn is_prepare(request: &InstanceRequest) -> bool {
    matches!(request, InstanceRequest::Prepare { .. })
}

fn is_start(request: &InstanceRequest) -> bool {
    matches!(request, InstanceRequest::Start { .. })
}

fn is_abort(request: &InstanceRequest) -> bool {
    matches!(request, InstanceRequest::Abort { .. })
}

fn is_status(request: &InstanceRequest) -> bool {
    matches!(request, InstanceRequest::Status {})
}

fn is_resume(request: &InstanceRequest) -> bool {
    matches!(request, InstanceRequest::Resolve { outcome: ResolveOutcome::Resume, .. })
}

fn is_release(request: &InstanceRequest) -> bool {
    matches!(request, InstanceRequest::Resolve { outcome: ResolveOutcome::Release, .. })
}

fn is_redirect(request: &SwitchRequest) -> bool {
    matches!(request, SwitchRequest::Redirect { rollback: false, .. })
}

fn is_redirect_back(request: &SwitchRequest) -> bool {
    matches!(request, SwitchRequest::Redirect { rollback: true, .. })
}

fn is_redirect_status(request: &SwitchRequest) -> bool {
    matches!(request, SwitchRequest::RedirectStatus { .. })
}
