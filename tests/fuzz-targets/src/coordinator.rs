//! The controller's machine with answers and events of all kinds: plausible ones, late ones, wrong ones, none. It never
//! panics, it decides only once, and left alone it comes to an end.

use crate::input::Input;
use crate::operations::{self, name};
use slim_core::migration::{
    Call, CallError, Coordinator, CoordinatorAction, CoordinatorEvent, CoordinatorParameters, CoordinatorTimeouts,
    Outcome, Party, ReadBack,
};
use slim_core::protocol::control::{
    ControlError, Counters, Description, ErrorCode, InstancePaths, InstanceReply, InstanceStatus, LinkSettings,
    MigrationRole, MigrationStatus, PathStatus, PrepareOptions, RedirectState, StartOptions, SwitchEvent, SwitchReply,
};
use slim_core::protocol::{MigrationId, Name, Nonce, PathIndex, PathSet, Text};
use slim_core::time::{Duration, Instant};

const MIGRATION: MigrationId = MigrationId(1);
const NONCE: Nonce = Nonce(5);

/// The longest that all time-outs together may take, with room.
const ENOUGH: Duration = Duration::from_secs(24 * 3600);

fn instance_name(role: MigrationRole) -> Name {
    name(match role {
        MigrationRole::Source => "nat-a",
        MigrationRole::Destination => "nat-b",
    })
}

fn role(input: &mut Input<'_>) -> MigrationRole {
    input.one_of(&[MigrationRole::Source, MigrationRole::Destination])
}

fn description(input: &mut Input<'_>, role: MigrationRole) -> Description {
    use slim_core::protocol::control::InstanceRole::{Idle, Live};
    let expected = if role == MigrationRole::Source { Live } else { Idle };
    Description {
        name: instance_name(role),
        kind: operations::kind(input),
        schema: operations::schema(input),
        software: Text::from("fuzz"),
        shards: operations::shards(input, 1),
        ports: ["in", "out"].map(name).to_vec(),
        role: if input.one_in(8) { operations::instance_role(input) } else { expected },
        state_address: ([10, 3, 0, 12], 7002).into(),
        capacity: Counters::new(),
        boot_ms: 900,
    }
}

fn instance_status(input: &mut Input<'_>, role: MigrationRole) -> InstanceStatus {
    let migration = (!input.one_in(4)).then(|| {
        let id = operations::migration(input);
        MigrationStatus {
            id,
            phase: operations::phase(input, role),
            destination: None,
            nonce: input.flag().then(|| operations::nonce(input)),
            paths: if input.one_in(8) { PathSet(input.u64()) } else { PathSet::first(2) },
            drained: PathSet::EMPTY,
            failure: input.flag().then(|| operations::failure(input)),
            report: operations::report(input, id),
            finished: input.flag(),
        }
    });
    InstanceStatus {
        name: instance_name(role),
        role: operations::instance_role(input),
        uptime_ms: input.u64(),
        migration,
        counters: Counters::new(),
        gauges: Counters::new(),
        queues: Default::default(),
    }
}

fn paths(input: &mut Input<'_>) -> Vec<InstancePaths> {
    let of = |input: &mut Input<'_>, role: MigrationRole, live: bool| {
        let owner = instance_name(role);
        let ports: Vec<Name> = ["in", "out"].iter().map(|port| name(&format!("{owner}.{port}"))).collect();
        let path = |(number, port): (usize, &Name)| PathStatus {
            from: name("inside"),
            to: port.clone(),
            index: if input.one_in(16) { PathIndex::new(input.byte() % 64) } else { PathIndex::new(number as u8) },
            counters: Counters::new(),
        };
        let paths = if live { ports.iter().enumerate().map(path).collect() } else { Vec::new() };
        InstancePaths { instance: owner, ports, mgmt: None, link: LinkSettings::default(), paths }
    };
    let (source_live, destination_live) = (!input.one_in(16), input.one_in(16));
    let mut all = vec![of(input, MigrationRole::Source, source_live)];
    if !input.one_in(16) {
        all.push(of(input, MigrationRole::Destination, destination_live));
    }
    all
}

fn redirect_state(input: &mut Input<'_>) -> RedirectState {
    let rollback = input.flag();
    let (from, to) = (instance_name(MigrationRole::Source), instance_name(MigrationRole::Destination));
    let finished = input.flag();
    RedirectState {
        migration: operations::migration(input),
        nonce: if input.one_in(8) { operations::nonce(input) } else { Nonce(NONCE.0 + u32::from(rollback)) },
        from: if rollback { to.clone() } else { from.clone() },
        to: if rollback { from } else { to },
        rollback,
        paths: Vec::new(),
        drained: finished,
        finished,
        handed_back_packets: input.u64(),
        held_packets: input.u64(),
    }
}

fn refusal(input: &mut Input<'_>) -> CallError {
    if input.flag() {
        return CallError::Unreachable(Text::from("no connection"));
    }
    let code = input.one_of(&[
        ErrorCode::WrongRole,
        ErrorCode::Busy,
        ErrorCode::UnknownMigration,
        ErrorCode::Committed,
        ErrorCode::Incompatible,
        ErrorCode::NotFound,
        ErrorCode::Internal,
        ErrorCode::Other,
    ]);
    CallError::Refused(ControlError::new(code, "no"))
}

/// A call that is still to be answered, and whose it is.
#[derive(Debug, Clone, Copy)]
enum Waiting {
    Instance(MigrationRole, Call),
    Switch(Call),
}

fn answer(input: &mut Input<'_>, waiting: Waiting) -> CoordinatorEvent {
    match waiting {
        Waiting::Instance(role, call) => {
            let result = match input.below(8) {
                0 => Err(refusal(input)),
                1 | 2 => Ok(InstanceReply::Description(description(input, role))),
                3 | 4 => Ok(InstanceReply::Status(Box::new(instance_status(input, role)))),
                _ => Ok(InstanceReply::Done),
            };
            CoordinatorEvent::InstanceReply { call, result }
        }
        Waiting::Switch(call) => {
            let result = match input.below(8) {
                0 => Err(refusal(input)),
                1 | 2 => Ok(SwitchReply::Paths { instances: paths(input) }),
                3 => Ok(SwitchReply::Redirect { state: input.flag().then(|| redirect_state(input)) }),
                _ => Ok(SwitchReply::Done {}),
            };
            CoordinatorEvent::SwitchReply { call, result }
        }
    }
}

fn switch_event(input: &mut Input<'_>) -> SwitchEvent {
    let (migration, nonce) = (operations::migration(input), operations::nonce(input));
    if input.flag() {
        return SwitchEvent::Drained { migration, nonce };
    }
    SwitchEvent::RollbackFinished {
        migration,
        nonce,
        handed_back_packets: input.u64(),
        held_packets: 0,
        dropped_packets: 0,
        timed_out: input.flag(),
    }
}

fn begin(input: &mut Input<'_>) -> Coordinator {
    let now = Instant::from_millis(1);
    let [source, destination] = [MigrationRole::Source, MigrationRole::Destination].map(instance_name);
    let timeouts = CoordinatorTimeouts::default();
    if input.one_in(4) {
        let redirect = (!input.one_in(4)).then(|| input.flag().then(|| redirect_state(input)));
        let status = |input: &mut Input<'_>, role| (!input.one_in(4)).then(|| instance_status(input, role));
        let source_status = status(input, MigrationRole::Source);
        let destination_status = status(input, MigrationRole::Destination);
        let read = ReadBack {
            migration: MIGRATION,
            source,
            destination,
            source_status,
            destination_status,
            redirect,
            timeouts,
        };
        return Coordinator::recover(now, read);
    }
    let (prepare, start) = (PrepareOptions::default(), StartOptions::default());
    let parameters =
        CoordinatorParameters { migration: MIGRATION, nonce: NONCE, source, destination, prepare, start, timeouts };
    Coordinator::new(now, parameters)
}

/// Carries out what the coordinator wants: remembers whom it has asked.
fn collect(coordinator: &mut Coordinator, waiting: &mut Vec<Waiting>) {
    let mut actions = 0;
    while let Some(action) = coordinator.poll_action() {
        match action {
            CoordinatorAction::Instance { role, call, .. } => waiting.push(Waiting::Instance(role, call)),
            CoordinatorAction::Switch { call, .. } => waiting.push(Waiting::Switch(call)),
            CoordinatorAction::PhaseEntered(_) => {}
        }
        actions += 1;
        assert!(actions <= 64, "one event makes it ask without end");
    }
    // A driver that forgets the oldest: their answers never come.
    let forgotten = waiting.len().saturating_sub(32);
    waiting.drain(..forgotten);
}

fn expect_settled(coordinator: &Coordinator, decided: &mut Option<Outcome>) {
    match (coordinator.outcome(), &decided) {
        (Some(outcome), Some(before)) => assert_eq!(outcome, before, "it changed its mind"),
        (Some(outcome), None) => *decided = Some(outcome.clone()),
        (None, Some(_)) => panic!("it took its decision back"),
        (None, None) => {}
    }
}

/// Runs the target.
pub fn run(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let mut coordinator = begin(&mut input);
    let mut now = Instant::from_millis(1);
    let (mut waiting, mut decided) = (Vec::new(), None);
    collect(&mut coordinator, &mut waiting);
    while !input.is_empty() {
        match input.below(8) {
            0 => {
                now = now.max(coordinator.poll_timeout().unwrap_or(now));
                coordinator.handle_timeout(now);
            }
            1 => {
                let side = role(&mut input);
                let event = operations::instance_event(&mut input, side);
                coordinator.handle(now, CoordinatorEvent::Instance { role: side, event });
            }
            2 => coordinator.handle(now, CoordinatorEvent::Switch(switch_event(&mut input))),
            3 => {
                let party = input.one_of(&[Party::Source, Party::Destination, Party::Switch]);
                coordinator.handle(now, CoordinatorEvent::Connected(party));
            }
            4 if input.one_in(8) => drop(coordinator.abort(now, "enough")),
            _ if waiting.is_empty() => now += Duration::from_millis(input.byte().into()),
            _ => {
                let index = input.below(waiting.len());
                let asked = waiting.swap_remove(index);
                let event = answer(&mut input, asked);
                coordinator.handle(now, event);
            }
        }
        collect(&mut coordinator, &mut waiting);
        expect_settled(&coordinator, &mut decided);
        let _ = coordinator.progress(now);
    }
    // From here on nobody answers. It has to come to a conclusion by time alone.
    let latest = now + ENOUGH;
    while coordinator.outcome().is_none() {
        let next = coordinator.poll_timeout().expect("it waits for nothing and has no outcome");
        now = now.max(next);
        assert!(now < latest, "no outcome after a day: {:?}", coordinator.phase());
        coordinator.handle_timeout(now);
        collect(&mut coordinator, &mut waiting);
        for asked in waiting.drain(..) {
            let unreachable = CallError::Unreachable(Text::from("nobody there"));
            coordinator.handle(
                now,
                match asked {
                    Waiting::Instance(_, call) => CoordinatorEvent::InstanceReply { call, result: Err(unreachable) },
                    Waiting::Switch(call) => CoordinatorEvent::SwitchReply { call, result: Err(unreachable) },
                },
            );
        }
    }
    expect_settled(&coordinator, &mut decided);
}
