//! Instances, paths and the whole status, as tables.

use super::layout;
use slim_controller::api::{DaemonStatus, InstanceInfo, Life, MigrationSummary, PoolInfo, Runs, Subscribers};
use slim_controller::units::{duration, grouped, word};
use slim_core::protocol::Name;
use slim_core::protocol::control::{Counters, InstancePaths, LinkSettings};
use std::time::Duration;

fn life(life: &Life) -> String {
    match life {
        Life::Booting {} => "booting".into(),
        Life::Up {} => "up".into(),
        Life::Unreachable {} => "unreachable".into(),
        Life::Ended { reason } => format!("ended: {}", reason.lines().next().unwrap_or_default()),
        Life::Retiring {} => "retiring".into(),
    }
}

fn runs(runs: Option<&Runs>) -> String {
    match runs {
        Some(Runs::Image { accel, .. }) => format!("image, {accel}"),
        Some(Runs::Process {}) => "process".into(),
        Some(Runs::Attached {}) => "attached".into(),
        None => String::new(),
    }
}

/// Every instance in a line.
pub fn instances(instances: &[InstanceInfo]) -> String {
    if instances.is_empty() {
        return "There are no instances yet: `slimctl instance boot NAME`.\n".into();
    }
    let mut table =
        layout::table(&["instance", "kind", "role", "life", "runs as", "ready after", "control", "migration"]);
    for instance in instances {
        table.add_row([
            instance.name.to_string(),
            instance.kind.as_ref().map(ToString::to_string).unwrap_or_default(),
            instance.role.map(|role| role.to_string()).unwrap_or_default(),
            life(&instance.life) + if instance.pooled { ", in the pool" } else { "" },
            runs(instance.runs.as_ref()),
            instance.ready_after_ms.map(|ms| format!("{} ms", grouped(ms))).unwrap_or_default(),
            instance.control.to_string(),
            instance.migration.map(|migration| migration.to_string()).unwrap_or_default(),
        ]);
    }
    format!("{table}\n")
}

/// An instance that has just been booted or attached.
pub fn booted(instance: &InstanceInfo) -> String {
    let mut text =
        format!("{} is {}", instance.name, instance.role.map_or_else(|| life(&instance.life), |role| role.to_string()));
    if let Some(ready_after_ms) = instance.ready_after_ms {
        text += &format!(", ready {} ms after its start", grouped(ready_after_ms));
    }
    if let Some(Runs::Image { accel, reason }) = &instance.runs {
        text += &format!(", on {accel} ({reason})");
    }
    text + "\n"
}

/// One instance with everything it says about itself.
pub fn instance(instance: &InstanceInfo) -> String {
    let mut facts = layout::table(&[instance.name.as_str(), ""]);
    let mut fact = |name: &str, value: Option<String>| {
        if let Some(value) = value {
            facts.add_row([name.to_owned(), value]);
        }
    };
    fact("kind", instance.kind.as_ref().map(ToString::to_string));
    fact("role", instance.role.map(|role| role.to_string()));
    fact("life", Some(life(&instance.life)));
    if let Life::Ended { reason } = &instance.life {
        fact("reason", Some(reason.clone()));
    }
    fact("runs as", Some(runs(instance.runs.as_ref())));
    if let Some(Runs::Image { reason, .. }) = &instance.runs {
        fact("because", Some(reason.clone()));
    }
    fact("placed", instance.placement.clone());
    fact("process", instance.process_id.map(|id| id.to_string()));
    fact("control", Some(instance.control.to_string()));
    fact("streams", instance.state_address.map(|address| address.to_string()));
    fact("ready after", instance.ready_after_ms.map(|ms| format!("{} ms", grouped(ms))));
    fact("ready after, as the guest saw it", instance.boot_ms.map(|ms| format!("{} ms", grouped(ms))));
    fact("console", instance.console_log.as_ref().map(|path| path.display().to_string()));
    fact("migration", instance.migration.map(|migration| migration.to_string()));
    if let Some(status) = &instance.status {
        fact("up for", Some(duration(Duration::from_millis(status.uptime_ms))));
    }
    let mut text = format!("{facts}\n");
    text += &numbers("capacity", &instance.capacity);
    if let Some(status) = &instance.status {
        text += &numbers("gauge", &status.gauges);
        text += &numbers("counter", &status.counters);
        let mut queues =
            layout::table(&["queue", "bytes", "records", "longest, bytes", "longest, records", "capacity, bytes"]);
        for (name, queue) in &status.queues {
            let numbers =
                [queue.bytes, queue.records, queue.longest_bytes, queue.longest_records, queue.capacity_bytes];
            queues.add_row(std::iter::once(name.clone()).chain(numbers.map(grouped)));
        }
        for column in 1..6 {
            layout::right(&mut queues, column);
        }
        text += &format!("{queues}\n");
    }
    text
}

/// Subscribers with their counters.
pub fn subscribers(subscribers: &Subscribers) -> String {
    let Subscribers { counters, total, busiest } = subscribers;
    let header: Vec<&str> = std::iter::once("subscriber").chain(counters.iter().map(|name| name.as_str())).collect();
    let mut table = layout::table(&header);
    for subscriber in busiest {
        let numbers = subscriber.counters.iter().map(|&number| grouped(number));
        table.add_row(std::iter::once(subscriber.address.to_string()).chain(numbers));
    }
    for column in 1..header.len() {
        layout::right(&mut table, column);
    }
    let listed = match (busiest.len() as u64, counters.first()) {
        (listed, Some(first)) if listed < *total => {
            format!("{} of {} subscribers: those with the most {first}", grouped(listed), grouped(*total))
        }
        _ => format!("{} subscribers", grouped(*total)),
    };
    format!("{listed}\n{table}\n")
}

fn numbers(title: &str, counters: &Counters) -> String {
    if counters.is_empty() {
        return String::new();
    }
    let mut table = layout::table(&[title, ""]);
    for (name, value) in counters {
        table.add_row([name.clone(), grouped(*value)]);
    }
    layout::right(&mut table, 1);
    format!("{table}\n")
}

/// Every path with its counters.
pub fn paths(instances: &[InstancePaths]) -> String {
    if instances.is_empty() {
        return "No instance is plugged into the switch.\n".into();
    }
    let mut table = layout::table(&["from", "to", "instance", "link", "counters"]);
    for instance in instances {
        if instance.paths.is_empty() {
            table.add_row(["—", "—", instance.instance.as_str(), &link(&instance.link), "no traffic leads to it"]);
        }
        for path in &instance.paths {
            let counters: Vec<String> =
                path.counters.iter().map(|(name, value)| format!("{name} {}", grouped(*value))).collect();
            table.add_row([
                path.from.as_str(),
                path.to.as_str(),
                instance.instance.as_str(),
                &link(&instance.link),
                &counters.join("\n"),
            ]);
        }
    }
    format!("{table}\n")
}

fn link(link: &LinkSettings) -> String {
    let rate = match link.rate_bps {
        0 => "unmetered".to_owned(),
        rate => format!("{} Mbit/s, burst {} B", grouped(rate / 1_000_000), grouped(link.burst_bytes)),
    };
    format!("{rate}, {}", duration(Duration::from_micros(link.delay_us.into())))
}

/// Every pool in a line.
pub fn pools(pools: &[PoolInfo]) -> String {
    let mut table = layout::table(&["pool", "size", "ready", "booting", "taken", "replaced"]);
    let mut errors = String::new();
    let names = |names: &[Name]| names.iter().map(Name::as_str).collect::<Vec<_>>().join(", ");
    for pool in pools {
        table.add_row([
            pool.vnf.to_string(),
            pool.size.to_string(),
            names(&pool.ready),
            names(&pool.booting),
            grouped(pool.taken),
            grouped(pool.replaced),
        ]);
        if let Some(error) = &pool.last_error {
            errors += &format!(" {}: {error}\n", pool.vnf);
        }
    }
    format!("{table}\n{errors}")
}

/// Everything at a glance.
pub fn status(status: &DaemonStatus) -> String {
    let up = duration(Duration::from_millis(status.uptime_ms));
    let mut text = format!("slimctl daemon {}, process {}, up for {up}\n", status.software, status.process_id);
    text += &match &status.switch_status {
        Some(switch) => format!(
            "switch {} at {}, up for {}, {} ports\n",
            switch.software,
            status.switch,
            duration(Duration::from_millis(switch.uptime_ms)),
            switch.ports.len()
        ),
        None => format!("THE SWITCH AT {} CANNOT BE REACHED\n", status.switch),
    };
    if let Some(switch) = &status.switch_status {
        let drops: Counters = switch
            .counters
            .iter()
            .filter(|(name, value)| name.contains("drop") && **value > 0)
            .map(|(n, v)| (n.clone(), *v))
            .collect();
        text += &numbers("switch drops", &drops);
    }
    text += &instances(&status.instances);
    text += &migrations("migrations under way", &status.migrations);
    text += &migrations("past migrations", &status.past_migrations);
    text
}

fn migrations(title: &str, migrations: &[MigrationSummary]) -> String {
    if migrations.is_empty() {
        return String::new();
    }
    let mut table = layout::table(&[title, "from", "to", "result", "duration"]);
    let mut details = String::new();
    for migration in migrations {
        table.add_row([
            migration.migration.to_string(),
            migration.source.to_string(),
            migration.destination.to_string(),
            word(&migration.result),
            duration(Duration::from_micros(migration.duration_us)),
        ]);
        if !migration.detail.is_empty() {
            details += &format!(" {}: {}\n", migration.migration, migration.detail);
        }
    }
    format!("{table}\n{details}")
}
