//! The protocol's words, as they are printed.

use slim_controller::api::Step;
use slim_controller::units::word;
use slim_core::protocol::MigrationPhase;

/// The phase alone, without the side it belongs to.
pub fn phase(phase: &MigrationPhase) -> String {
    match phase {
        MigrationPhase::Source(phase) => word(phase),
        MigrationPhase::Destination(phase) => word(phase),
    }
}

/// Who has entered what.
pub fn step(step: &Step) -> (String, String) {
    match step {
        Step::Controller { phase } => ("controller".into(), word(phase)),
        Step::Instance { name, phase: of_instance } => (name.as_str().into(), phase(of_instance)),
    }
}
