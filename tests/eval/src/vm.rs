//! The back-end in real time: booted images, the switch agent, the controller's daemon, and the kernel's TCP.

use crate::backend::Backend;
use crate::grid::{Cell, Congestion, Extent, Mode, Setup, TESTBED, Variation, Vnf};
use crate::record::{Ended, Planned, Precopy, Run};
use crate::sim::{FILLER_BYTES, PKT_Q_PACKETS, sockets};
use anyhow::{Context, Result, ensure};
use sha2::{Digest, Sha256};
use slim_controller::api::{InstanceInfo, Runs};
use slim_controller::transfer::TransferArgs;
use slim_testbed::artifacts::Artifacts;
use slim_testbed::demo::{DemoSpec, InstanceArguments, MoveArguments, Outcome};
use slim_testbed::load::LoadSpec;
use slim_testbed::precopy::{PrecopyRun, PrecopySpec};
use slim_testbed::sandbox;
use std::fs;
use std::path::PathBuf;
use std::time::Instant;

/// The testbed's link in each direction, before it is scaled.
const LINK_MBIT: u32 = 1000;

/// Measured traffic before and after a migration, in seconds. Before it there is also the second that the plan takes. It
/// shows what the machine loses by itself.
const BEFORE_S: f64 = 2.0;
const AFTER_S: f64 = 1.0;

/// When a migration is given up, in seconds. In the simulation it is half of that; at 950 Mbit/s equation 3 says 9.2 s, and
/// here there is T_B as well.
const PATIENCE_S: f64 = 20.0;

/// The same for precopy, which has a guest's memory to move: that does not scale.
const PRECOPY_PATIENCE_S: f64 = 180.0;

/// After how many rounds of precopy the guest is stopped, as in figure 7.
const ROUNDS: u32 = 10;

/// What the plan, undoing a migration, and a busy machine may take besides, in seconds. Traffic ends sooner, see
/// `AFTER_S`.
const SPARE_S: f64 = 20.0;

/// The testbed of booted images.
#[derive(Debug)]
pub struct Vm {
    artifacts: Artifacts,
    scale: u32,
    folder: PathBuf,
    fingerprint: String,
}

impl Vm {
    /// A testbed with rates and sizes divided by `scale`, that leaves the logs of its latest run in `folder`.
    ///
    /// # Errors
    /// If an image or a program cannot be read.
    pub fn new(artifacts: Artifacts, scale: u32, folder: PathBuf) -> Result<Self> {
        let mut files =
            [&artifacts.switch, &artifacts.slimctl, &artifacts.load, &artifacts.testbed].map(PathBuf::clone).to_vec();
        for built in artifacts.functions.values() {
            let image = built.image()?;
            files.extend(["kernel", "initramfs"].map(|name| image.join(name)));
        }
        let mut hash = Sha256::new();
        for file in files {
            let bytes = fs::read(&file).with_context(|| format!("cannot read {}", file.display()))?;
            hash.update(Sha256::digest(&bytes));
        }
        hash.update(scale.to_be_bytes());
        let fingerprint = hash.finalize().iter().take(8).map(|byte| format!("{byte:02x}")).collect();
        // The sandbox's processes have another working directory's view of things, and sockets need short names.
        let folder = std::path::absolute(&folder).with_context(|| format!("cannot use {}", folder.display()))?;
        Ok(Self { artifacts, scale, folder, fingerprint })
    }
}

impl Backend for Vm {
    fn name(&self) -> &'static str {
        "vm"
    }

    fn fingerprint(&self) -> String {
        self.fingerprint.clone()
    }

    /// Two guests and a load generator keep a machine busy: what runs beside them would be measured.
    fn jobs(&self) -> usize {
        1
    }

    fn plan(&self, extent: Extent) -> Vec<Cell> {
        crate::grid::vm_plan(extent)
    }

    fn run(&self, cell: &Cell) -> Result<Run> {
        let began = Instant::now();
        let demo = spec(cell, self.scale)?;
        let run = if cell.setup.mode == Mode::Precopy {
            let spec = PrecopySpec { demo, rounds: ROUNDS };
            let run: PrecopyRun = sandbox::run_quietly("precopy", &spec, &self.artifacts, &self.folder)?;
            record_precopy(*cell, self.scale, &run)
        } else {
            let outcome: Outcome = sandbox::run_quietly("demo", &demo, &self.artifacts, &self.folder)?;
            record(*cell, self.scale, &outcome)
        };
        Ok(Run { took_s: began.elapsed().as_secs_f64(), ..run })
    }
}

/// What the demo is asked for.
fn spec(cell: &Cell, scale: u32) -> Result<DemoSpec> {
    let Setup { vnf, packet_size_bytes, rate_mbit, mode, scheduling, variation } = cell.setup;
    let Variation { coalesce, compress, burst_ms, congestion, window_kib } = variation;
    ensure!(
        congestion == Congestion::Cubic && window_kib == TESTBED.window_kib,
        "{}: the guests' kernel has a TCP of its own",
        cell.setup
    );
    let patience_s = if mode == Mode::Precopy { PRECOPY_PATIENCE_S } else { PATIENCE_S };
    // The testbed's program for precopy takes no notice of the mode.
    let mode = mode.of_instances().unwrap_or_default();
    let pkt_q_bytes = PKT_Q_PACKETS as u64 * u64::from(packet_size_bytes) / u64::from(scale);
    let spec = DemoSpec {
        load: LoadSpec {
            rate_mbit: f64::from(rate_mbit) / f64::from(scale),
            packet_size_bytes,
            duration_s: BEFORE_S + patience_s + AFTER_S + SPARE_S,
            sockets: sockets(vnf),
            gateway: vnf == Vnf::Gateway,
            cell_seed: u64::from(cell.repetition) + 1,
            ..LoadSpec::default()
        },
        migrate_at: BEFORE_S,
        moving: MoveArguments {
            mode,
            transfer: TransferArgs {
                scheduling: scheduling.into(),
                snapshot_filler: FILLER_BYTES / u64::from(scale),
                // As in the paper: as fast as TCP goes.
                snapshot_rate: Some(0),
                no_coalesce: !coalesce,
                compress,
            },
            plan: true,
            rehearse: true,
            patience: Some(patience_s),
            stop_after: Some(AFTER_S),
        },
        instances: InstanceArguments {
            link_rate: (LINK_MBIT / scale).into(),
            link_burst: burst_ms.into(),
            pkt_q_bytes: Some(pkt_q_bytes),
            // As in the paper, and as in the simulation.
            plaintext: true,
            ..InstanceArguments::default()
        },
    };
    spec.check().map_err(anyhow::Error::msg)?;
    Ok(spec)
}

fn record_precopy(cell: Cell, scale: u32, run: &PrecopyRun) -> Run {
    let PrecopyRun { instance, load, outcome, switch_drops } = run;
    let seconds = |us: u64| us as f64 / 1e6;
    let ended = match &outcome.failure {
        None => Ended::Completed,
        Some(failure) => Ended::RolledBack(failure.clone()),
    };
    let asked_s = seconds(outcome.total_us);
    let precopy = Precopy {
        downtime_s: outcome.downtime_us.map(seconds),
        rounds: outcome.progress.round,
        memory_bytes: outcome.memory_bytes,
        stream_bytes: outcome.stream_bytes,
    };
    Run {
        duration_s: (ended == Ended::Completed).then_some(asked_s),
        drops: switch_drops.clone(),
        precopy: Some(precopy),
        accel: accel(std::slice::from_ref(instance)),
        ..Run::seen(cell, scale.into(), ended, asked_s, load)
    }
}

/// What the guests ran with.
fn accel(instances: &[InstanceInfo]) -> Option<String> {
    instances.iter().find_map(|instance| match &instance.runs {
        Some(Runs::Image { accel, .. }) => Some(accel.clone()),
        _ => None,
    })
}

fn record(cell: Cell, scale: u32, outcome: &Outcome) -> Run {
    let Outcome { spec, instances, load, migration, plan, switch_drops, complaints: _ } = outcome;
    let planned = plan.as_ref().and_then(|plan| plan.forecast(spec.moving.mode)).map(|forecast| Planned {
        converges: forecast.converges,
        duration_s: forecast.duration_ms.map(|ms| ms as f64 / 1e3),
    });
    let asked_s = migration.total_us as f64 / 1e6;
    Run {
        drops: switch_drops.clone(),
        planned,
        accel: accel(instances),
        ..Run::new(cell, scale.into(), &migration.outcome, asked_s, load)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ratios_stay_whatever_the_scale() {
        let cells = crate::grid::vm_plan(Extent::Full);
        for cell in &cells {
            let ratios = |scale| {
                let spec = spec(cell, scale).unwrap();
                let link_mbit = spec.instances.link_rate as f64;
                let pkt_q = spec.instances.pkt_q_bytes.unwrap() as f64;
                let sizes = [spec.load.rate_mbit, spec.moving.transfer.snapshot_filler as f64, pkt_q];
                (sizes.map(|size| size / link_mbit), spec.instances.link_burst)
            };
            let (full, tenth) = (ratios(1), ratios(10));
            assert_eq!(full.1, tenth.1);
            for (full, tenth) in full.0.into_iter().zip(tenth.0) {
                assert!((full / tenth - 1.0).abs() < 1e-5, "{}: {full} {tenth}", cell.setup);
            }
        }
    }

    #[test]
    fn what_only_the_simulation_has_is_refused() {
        let cell = crate::grid::vm_plan(Extent::Quick)[0];
        assert!(spec(&cell, 10).is_ok());
        let mut other_tcp = cell;
        other_tcp.setup.variation.window_kib = 512;
        assert!(spec(&other_tcp, 10).is_err());
    }
}
