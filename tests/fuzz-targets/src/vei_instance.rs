//! An instance's machine with any requests, handshakes, reports and time-outs in any order. Whatever its driver says,
//! it never panics, a refusal changes nothing, and what it orders never makes two holders of one state.

use crate::input::Input;
use crate::operations;
use slim_core::protocol::control::{InstanceRequest, InstanceRole, ResolveOutcome};
use slim_core::time::{Duration, Instant};
use slim_core::vei::{Action, Event, Identity, Instance, LcoreCommand, LcoreEvent, StreamCommand};

/// What has been ordered in the present migration.
#[derive(Debug, Default)]
struct Ordered {
    /// `SendEnd`, and nobody has said `resume` since.
    committed: bool,
    taken_over: bool,
}

impl Ordered {
    fn note(&mut self, action: &Action) {
        match action {
            Action::Stream { command: StreamCommand::SendEnd(_), .. } => self.committed = true,
            Action::Lcore { command, .. } => match command {
                LcoreCommand::TakeOver(_) => self.taken_over = true,
                LcoreCommand::Resume(_) => assert!(!self.committed, "the source resumes behind its commit point"),
                LcoreCommand::HandBack(..) | LcoreCommand::Discard => {
                    assert!(!self.taken_over, "a destination that has taken over gives the state away");
                }
                LcoreCommand::Activate | LcoreCommand::ArmPktQ | LcoreCommand::Reset | LcoreCommand::Freeze(..) => {
                    *self = Self::default();
                }
                _ => {}
            },
            Action::Stream { .. } | Action::Notify(_) => {}
        }
    }
}

/// Runs the target.
pub fn run(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let shards = 1 + input.below(2) as u16;
    let identity = Identity { kind: operations::name("nat"), schema: slim_core::protocol::Schema(1), shards };
    let mut instance = Instance::new(identity);
    let mut now = Instant::from_millis(1);
    let mut ordered = Ordered::default();
    while !input.is_empty() {
        // Costly, so not each time.
        let before = input.one_in(4).then(|| format!("{instance:?}"));
        let refused = match input.below(8) {
            0 | 1 => {
                let request = operations::instance_request(&mut input, shards);
                if matches!(request, InstanceRequest::Resolve { outcome: ResolveOutcome::Resume, .. })
                    && instance.role() == InstanceRole::Source
                {
                    ordered.committed = false;
                }
                instance.request(now, &request).is_err()
            }
            2 => {
                // A refused stream may still make the migration fail, so it may change things.
                let _ = instance.accept(now, &operations::handshake(&mut input, shards));
                false
            }
            3 => {
                now += Duration::from_millis(input.one_of(&[1, 100, 10_000, 200_000]));
                let due = instance.poll_timeout().is_some_and(|at| at <= now);
                instance.handle_timeout(now);
                !due
            }
            _ => {
                let event = operations::vei_event(&mut input);
                let is_drain = matches!(event, Event::Lcore { event: LcoreEvent::Drain(_), .. });
                let refused = instance.handle(now, event).is_err();
                refused && !is_drain
            }
        };
        if refused && let Some(before) = before {
            assert_eq!(format!("{instance:?}"), before, "refused, but changed");
        }
        let mut actions = 0;
        while let Some(action) = instance.poll_action() {
            ordered.note(&action);
            actions += 1;
            assert!(actions <= 64, "one event makes it order things without end");
        }
        if let Some(status) = instance.migration_status(now) {
            assert!(status.report.phases.len() <= 16, "phases repeat");
        }
        assert!(
            instance.poll_timeout().is_none_or(|at| at > now)
                || instance.source().is_some()
                || instance.destination().is_some()
        );
    }
}
