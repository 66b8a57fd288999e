//! A migration's plan, as tables.

use super::layout;
use slim_controller::plan::{MigrationPlan, rate};
use slim_controller::units::{bytes, duration, grouped};
use std::time::Duration;

/// What was measured, and every mode in a line.
pub fn plan(plan: &MigrationPlan) -> String {
    let measured = &plan.measured;
    let mut facts = layout::table(&[]);
    let mut fact = |name: &str, value: String| _ = facts.add_row([name.to_owned(), value]);
    let link = |bps: Option<u64>, none: &str| bps.map_or_else(|| none.to_owned(), |bps| rate(bps as f64));
    fact("link shared with the state", link(measured.link_bps, "none"));
    fact("scheduling", plan.scheduling.to_string());
    fact("pace of the snapshot", link(measured.pace_bps, "what is left over"));
    fact("load, both directions", rate(measured.load_bps as f64));
    fact("  packets per second", grouped(measured.packets_per_s));
    fact("statelet factor σ, payload", format!("{:.4}", measured.sigma_payload));
    fact("  on the wire, as announced", format!("{:.4}", measured.sigma_wire));
    fact("snapshot", bytes(measured.snapshot_bytes));
    fact("room in pkt_q", bytes(measured.pkt_q_bytes));
    layout::right(&mut facts, 1);

    let mut modes = layout::table(&["mode", "converges", "duration", ""]);
    for forecast in &plan.modes {
        let takes = forecast.duration_ms.map(|ms| duration(Duration::from_millis(ms))).unwrap_or_default();
        let converges = if forecast.converges { "yes" } else { "no" };
        modes.add_row([forecast.mode.name(), converges, &takes, &forecast.remark]);
    }
    layout::right(&mut modes, 2);
    let destination = plan.destination.as_ref().map_or("an instance of the pool", |name| name.as_str());
    format!(
        "{} to {destination}, measured for {} ms; nothing has been moved.\n{facts}\n{modes}\n",
        plan.source, measured.sample_ms
    )
}
