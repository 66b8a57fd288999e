//! The protocol's words, as they are printed.

use slim_controller::api::Step;
use slim_core::protocol::MigrationPhase;

/// The name an enum's value has in JSON, with spaces.
pub fn word(value: &impl serde::Serialize) -> String {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(text)) => text.replace('_', " "),
        Ok(other) => other.to_string(),
        Err(_) => String::new(),
    }
}

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
