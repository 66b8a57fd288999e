//! One cell: a migration under load, one fault, and everything that can be seen of what came of it.

use super::account::{Counts, Losses};
use super::blow::Target;
use super::spec::{Blow, Cell, ChaosSpec, Party, Phase};
use super::verdict;
use super::world::World;
use crate::generator::Generator;
use crate::load::Report;
use crate::load::report::{BEFORE, PhaseReport};
use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};
use slim_controller::api::{ApiEvent, MigrateOptions, MigrationOutcome, MigrationResult, Step};
use slim_controller::client::Client;
use slim_controller::units::word;
use slim_core::migration::CoordinatorPhase;
use slim_core::protocol::{MigrationId, MigrationPhase, Name, SourcePhase};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

/// How long until the phase to strike at comes.
const TRIGGER_LIMIT: Duration = Duration::from_secs(30);
/// How long the caller may have to wait for the outcome: the longest sum of time-outs.
const OUTCOME_LIMIT: Duration = Duration::from_secs(120);
/// Stretches the transfer: so much filler, so slowly.
const FILLER_BYTES: u64 = 3_000_000;
const SNAPSHOT_RATE_MBIT: u64 = 16;
/// From the snapshot's begin to the moment called late: most of what it takes at that rate.
const LATE: Duration = Duration::from_millis(1_100);
/// Traffic before the migration, after the fault, and after the second migration.
const CALM: Duration = Duration::from_millis(400);
const AFTERWARDS: Duration = Duration::from_millis(800);

/// How long after the migration's end packets may take to flow again: DPDK connects again once a second.
const FLOW_LIMIT: Duration = Duration::from_secs(10);

/// The recorder's phases.
const DURING: &str = "during";
const AFTER: &str = "after";
const AGAIN: &str = "again";

/// What a migration came to, as its caller heard it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ending {
    /// The destination has taken over.
    Completed,
    /// The source goes on.
    RolledBack,
    /// An operator has to act.
    Unresolved,
    /// Nothing began: the request was refused.
    Refused,
    /// The controller that was asked died, and the next one knows nothing of the migration.
    Forgotten,
}

/// What a cell came to.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct CellReport {
    /// The cell.
    pub cell: Cell,
    /// The phase in which the fault really struck.
    pub hit: Option<CoordinatorPhase>,
    /// How the migration ended.
    pub ending: Option<Ending>,
    /// Why it failed, or what was remarked.
    pub detail: String,
    /// From the fault to the migration's end, in milliseconds.
    pub ended_after_ms: u64,
    /// Packets lost, by cause.
    pub losses: Losses,
    /// Packets that arrived twice.
    pub duplicated: u64,
    /// Packets that arrived late.
    pub reordered: u64,
    /// Packets that were translated wrongly or damaged.
    pub wrong: u64,
    /// The longest time without a packet, in microseconds.
    pub gap_max_us: u64,
    /// The instances that say they are live once everything has come to rest.
    pub live: Vec<Name>,
    /// The instances out of which packets come then.
    pub forwarding: Vec<Name>,
    /// Source and destination.
    pub pair: Option<(Name, Name)>,
    /// How the migration after this one ended, and packets lost in it.
    pub again: Option<(MigrationResult, u64)>,
    /// What is not as promised; empty if all is.
    pub complaints: Vec<String>,
    /// How long the cell took.
    pub seconds: f64,
}

impl CellReport {
    /// A cell that could not be carried through.
    pub(super) fn broken(cell: Cell, complaint: String, took: Duration) -> Self {
        Self {
            cell,
            hit: None,
            ending: None,
            detail: String::new(),
            ended_after_ms: 0,
            losses: Losses::default(),
            duplicated: 0,
            reordered: 0,
            wrong: 0,
            gap_max_us: 0,
            live: Vec::new(),
            forwarding: Vec::new(),
            pair: None,
            again: None,
            complaints: vec![complaint],
            seconds: took.as_secs_f64(),
        }
    }

    /// One line.
    pub(super) fn summary(&self) -> String {
        let hit = self.hit.map_or_else(String::new, |hit| format!("hit while {}, ", word(&hit)));
        let ending = self.ending.as_ref().map_or_else(|| "no ending".to_owned(), word);
        let verdict = if self.complaints.is_empty() { "✓" } else { "✗" };
        let mut text = format!("{verdict} {hit}{ending}, {} lost, {:.1} s", self.losses.lost, self.seconds);
        for complaint in &self.complaints {
            text += &format!("\n           - {complaint}");
        }
        text
    }

    /// The instance that dies in this cell.
    pub(super) fn dead(&self) -> Option<&Name> {
        let (source, destination) = self.pair.as_ref()?;
        match (self.cell.party, self.cell.blow) {
            (Party::Source, Blow::Kill) => Some(source),
            (Party::Destination, Blow::Kill) => Some(destination),
            _ => None,
        }
    }
}

/// What the migration's caller is told.
enum Told {
    Begun(MigrationId),
    Step(Step),
    Ended(Result<Box<MigrationOutcome>, slim_controller::client::ClientError>),
}

/// Runs one cell in a world that is in order, and leaves it in order.
pub(super) fn run(world: &mut World, cell: &Cell, spec: &ChaosSpec) -> Result<CellReport> {
    let began = Instant::now();
    world.heal()?;
    let target = Target::aim(world, cell.party, cell.blow)?;
    let mut load = Generator::start(&world.artifacts, &spec.load(), &world.folder)?;
    load.wait_until_measuring()?;
    std::thread::sleep(CALM);
    let before = counts(world)?;
    load.mark(DURING)?;

    let mut report = CellReport::broken(*cell, String::new(), Duration::ZERO);
    report.complaints.clear();
    report.pair = Some(target.pair.clone());
    let told = ask(world.client()?, &target.pair);
    let mut caller = Caller { told, migration: None, phase: None, ended: None };
    caller.wait_for(cell.phase)?;
    report.hit = caller.phase;
    let struck = Instant::now();
    target.strike(world)?;
    caller.wait_for_the_end(struck, world, &mut report)?;
    report.ended_after_ms = struck.elapsed().as_millis().try_into().unwrap_or(u64::MAX);
    world.rest()?;

    report.live = world.live()?;
    if report.live.len() == 1 && !load.flows_within(FLOW_LIMIT)? {
        report.complaints.push(format!("no packets flow within {} s", FLOW_LIMIT.as_secs()));
    }
    load.mark(AFTER)?;
    report.forwarding = forwarding(world, &target.pair)?;
    let mut after = counts(world)?;
    if report.live.len() == 1 {
        report.again = Some(once_more(world, &mut load)?);
    }
    load.stop()?;
    let recorded = load.finish()?;
    if report.live.is_empty() {
        // Packets for the dead are lost until the last.
        after = counts(world)?;
    }
    if report.live.is_empty() {
        // Its state is lost: what can be shown is that the function can be started anew, and moved.
        report.again = Some(start_anew(world, spec)?);
    }
    record(&mut report, &recorded, &before, &after);
    verdict::judge(&mut report, &recorded);
    report.seconds = began.elapsed().as_secs_f64();
    Ok(report)
}

/// Asks for the migration on a thread of its own.
fn ask(mut client: Client, pair: &(Name, Name)) -> Receiver<Told> {
    let (tell, told) = channel();
    let (source, destination) = pair.clone();
    let options = MigrateOptions {
        filler_bytes: FILLER_BYTES,
        snapshot_rate_mbit: Some(SNAPSHOT_RATE_MBIT),
        ..MigrateOptions::default()
    };
    std::thread::spawn(move || {
        let pass_on = |tell: &Sender<Told>, event| {
            let news = match event {
                ApiEvent::MigrationBegun { migration } => Told::Begun(migration),
                ApiEvent::MigrationStep { entry } => Told::Step(entry.step),
                ApiEvent::Precopy { .. } => return,
            };
            // Whoever asked may have given up.
            let _ = tell.send(news);
        };
        let result = client.migrate(&source, &destination, options, |event| pass_on(&tell, event));
        let _ = tell.send(Told::Ended(result.map(Box::new)));
    });
    told
}

/// The caller's side of a migration.
struct Caller {
    told: Receiver<Told>,
    migration: Option<MigrationId>,
    /// The controller's phase, as last heard.
    phase: Option<CoordinatorPhase>,
    ended: Option<Result<Box<MigrationOutcome>, slim_controller::client::ClientError>>,
}

impl Caller {
    /// Waits until the migration has reached `phase`.
    fn wait_for(&mut self, phase: Phase) -> Result<()> {
        let deadline = Instant::now() + TRIGGER_LIMIT;
        loop {
            match self.told.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(Told::Begun(migration)) => self.migration = Some(migration),
                Ok(Told::Step(step)) => {
                    let reached = is_begin_of(phase, &step);
                    self.note(step);
                    if reached {
                        break;
                    }
                }
                Ok(Told::Ended(Ok(outcome))) => {
                    let reached = phase == Phase::Completed && outcome.result() == MigrationResult::Completed;
                    let failure = outcome.failure().map(ToString::to_string).unwrap_or_default();
                    self.ended = Some(Ok(outcome));
                    if reached {
                        break;
                    }
                    bail!("the migration ended before the fault: {failure}");
                }
                Ok(Told::Ended(Err(error))) => return Err(error).context("the migration was refused before the fault"),
                Err(_) => bail!("the migration did not come to the phase to strike at"),
            }
        }
        if phase == Phase::TransferringLate {
            std::thread::sleep(LATE);
            while let Ok(news) = self.told.try_recv() {
                self.take(news);
            }
        }
        Ok(())
    }

    fn note(&mut self, step: Step) {
        if let Step::Controller { phase } = step {
            self.phase = Some(phase);
        }
    }

    fn take(&mut self, news: Told) {
        match news {
            Told::Begun(migration) => self.migration = Some(migration),
            Told::Step(step) => self.note(step),
            Told::Ended(result) => self.ended = Some(result),
        }
    }

    /// Waits for the outcome; asks the next daemon for it if the first has died.
    fn wait_for_the_end(&mut self, struck: Instant, world: &World, report: &mut CellReport) -> Result<()> {
        let deadline = struck + OUTCOME_LIMIT;
        while self.ended.is_none() {
            match self.told.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(news) => self.take(news),
                Err(RecvTimeoutError::Timeout) => {
                    bail!("the caller hears nothing for {} s after the fault", OUTCOME_LIMIT.as_secs())
                }
                Err(RecvTimeoutError::Disconnected) => bail!("the caller ended"),
            }
        }
        let (ending, detail) = match self.ended.take() {
            Some(Ok(outcome)) => {
                let detail = outcome.failure().map(ToString::to_string).unwrap_or_default();
                (ending_of(outcome.result()), detail)
            }
            Some(Err(slim_controller::client::ClientError::Refused(refusal))) => (Ending::Refused, refusal.to_string()),
            // Its daemon died: what the next one says counts.
            Some(Err(_)) | None => self.ask_next_daemon(deadline, world)?,
        };
        report.ending = Some(ending);
        report.detail = detail;
        Ok(())
    }

    fn ask_next_daemon(&self, deadline: Instant, world: &World) -> Result<(Ending, String)> {
        loop {
            if let Ok(status) = world.status() {
                let past = status.past_migrations.iter().find(|past| Some(past.migration) == self.migration);
                if let Some(past) = past {
                    return Ok((ending_of(past.result), past.detail.clone()));
                }
                let busy = status.instances.iter().any(|instance| instance.migration.is_some());
                if status.migrations.is_empty() && !busy && status.uptime_ms > 3_000 {
                    return Ok((Ending::Forgotten, String::new()));
                }
            }
            if Instant::now() > deadline {
                bail!("the restarted daemon does not end the migration");
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }
}

fn ending_of(result: MigrationResult) -> Ending {
    match result {
        MigrationResult::Completed => Ending::Completed,
        MigrationResult::RolledBack => Ending::RolledBack,
        MigrationResult::Unresolved | MigrationResult::Running => Ending::Unresolved,
    }
}

/// Whether `step` is what a fault at `phase` waits for.
fn is_begin_of(phase: Phase, step: &Step) -> bool {
    let controller = |wanted| matches!(step, Step::Controller { phase } if *phase == wanted);
    match phase {
        Phase::Preparing => controller(CoordinatorPhase::Preparing),
        // Not before there is something under way.
        Phase::TransferringEarly | Phase::TransferringLate => {
            matches!(step, Step::Instance { phase: MigrationPhase::Source(SourcePhase::Transferring), .. })
        }
        Phase::Redirecting => controller(CoordinatorPhase::Redirecting),
        Phase::Draining => controller(CoordinatorPhase::Draining),
        Phase::Finishing => controller(CoordinatorPhase::Finishing),
        Phase::Completed => controller(CoordinatorPhase::Completed),
    }
}

fn counts(world: &World) -> Result<Counts> {
    let status = world.status()?;
    Ok(Counts::of(status.switch_status.as_deref().context("the daemon does not reach the switch")?))
}

/// The instances that transmit packets while we look.
fn forwarding(world: &World, pair: &(Name, Name)) -> Result<Vec<Name>> {
    let sent = |name: &Name| {
        let status = world.show(name).ok().and_then(|instance| instance.status);
        let counters = status.map(|status| status.counters).unwrap_or_default();
        counters.iter().filter(|(key, _)| key.ends_with(".tx_packets")).map(|(_, value)| value).sum::<u64>()
    };
    let names = [&pair.0, &pair.1];
    let before = names.map(sent);
    std::thread::sleep(AFTERWARDS);
    let after = names.map(sent);
    // A few may be ARP.
    let grown = |at: usize| after[at].saturating_sub(before[at]) > 20;
    Ok((0..names.len()).filter(|at| grown(*at)).map(|at| names[at].clone()).collect())
}

/// Puts the other instance in order and moves there, under the same load.
fn once_more(world: &mut World, load: &mut Generator) -> Result<(MigrationResult, u64)> {
    world.heal().context("no second migration")?;
    load.mark(AGAIN)?;
    let again = world.client()?.migrate(&world.holder, &world.spare, MigrateOptions::default(), |_| ())?;
    std::thread::sleep(CALM);
    Ok((again.result(), 0))
}

/// Boots the function with empty state and moves it once, under a load of its own.
fn start_anew(world: &mut World, spec: &ChaosSpec) -> Result<(MigrationResult, u64)> {
    world.heal().context("no new beginning")?;
    let mut load = Generator::start(&world.artifacts, &spec.load(), &world.folder)?;
    load.wait_until_measuring()?;
    let again = world.client()?.migrate(&world.holder, &world.spare, MigrateOptions::default(), |_| ())?;
    std::thread::sleep(CALM);
    load.stop()?;
    Ok((again.result(), load.finish()?.total.lost()))
}

/// Takes over what the recorder saw.
fn record(report: &mut CellReport, recorded: &Report, before: &Counts, after: &Counts) {
    let lost = |name: &str| recorded.phase(name).map_or(0, PhaseReport::lost);
    let total = &recorded.total;
    let both = [&total.outbound, &total.inbound];
    report.duplicated = both.iter().map(|direction| direction.duplicated).sum();
    report.reordered = both.iter().map(|direction| direction.reordered).sum();
    report.wrong = both.iter().map(|direction| direction.mistranslated + direction.corrupt).sum();
    report.gap_max_us = both.iter().map(|direction| direction.gap_max_us).max().unwrap_or_default();
    let switch_died = report.cell.party == Party::Switch && report.cell.blow == Blow::Kill;
    let dead = report.dead().cloned();
    // What was sent just before was still on its way. After the fault only an instance whose state is lost may go on
    // losing packets.
    let explained = lost(BEFORE) + lost(DURING) + if report.live.is_empty() { lost(AFTER) } else { 0 };
    report.losses = Losses::explain(explained, before, after, dead.as_ref(), report.live.is_empty(), switch_died);
    if let Some((_, packets)) = &mut report.again
        && !report.live.is_empty()
    {
        *packets = lost(AFTER) + lost(AGAIN);
    }
}
