//! The report of measured boots, for machines to read.

use super::boot::Measurement;
use crate::git::Revision;
use crate::image::Manifest;
use serde::{Deserialize, Serialize};

/// What `--json` prints.
#[derive(Debug, Serialize, Deserialize)]
pub struct Report {
    benchmark: String,
    machine: String,
    commit: String,
    vnf: String,
    kernel: String,
    kernel_config_sha256: String,
    cloud_kernel: String,
    machines: Vec<Measured>,
}

/// What was measured on one machine.
#[derive(Debug, Serialize, Deserialize)]
pub struct Measured {
    measured: Measurement,
    median_image_ready_ms: u64,
    median_cloud_init_ms: u64,
    ratio: f64,
}

impl Report {
    /// With what was `measured` of an image, beside the package `cloud`.
    pub fn new(measured: Vec<Measurement>, manifest: &Manifest, cloud: &str) -> Self {
        Self {
            benchmark: "boot".to_owned(),
            machine: machine(),
            commit: commit(),
            vnf: manifest.vnf.clone(),
            kernel: manifest.linux.release.clone(),
            kernel_config_sha256: manifest.linux.config_sha256.clone(),
            cloud_kernel: cloud.to_owned(),
            machines: measured.into_iter().map(Measured::of).collect(),
        }
    }
}

impl Measured {
    fn of(measured: Measurement) -> Self {
        Self {
            median_image_ready_ms: measured.ready_ms(),
            median_cloud_init_ms: measured.cloud_init_ms(),
            ratio: measured.ratio(),
            measured,
        }
    }
}

/// What all of `reports` have measured, by machine.
///
/// # Errors
/// One of them is none.
pub fn join(reports: &[String]) -> serde_json::Result<Vec<Measurement>> {
    let mut joined: Vec<Measurement> = Vec::new();
    for report in reports {
        let report: Report = serde_json::from_str(report)?;
        for Measured { measured: on, .. } in report.machines {
            match joined.iter_mut().find(|known| known.machine == on.machine) {
                None => joined.push(on),
                Some(known) => {
                    known.image.extend(on.image);
                    known.cloud.extend(on.cloud);
                }
            }
        }
    }
    Ok(joined)
}

/// The host's processor and the number of its cores.
pub fn machine() -> String {
    let cpuinfo = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpuinfo.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let cores = std::thread::available_parallelism().map_or(0, |count| count.get());
    format!("{} × {cores}", model.map_or("unknown processor", |(_, name)| name))
}

/// The commit of the sources.
pub fn commit() -> String {
    let Revision { commit, dirty } = Revision::read();
    let short = commit.get(..12).unwrap_or("unknown").to_owned();
    if dirty { short + ", with changes" } else { short }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::boot::Boot;

    #[test]
    fn boots_of_several_reports_are_joined_by_machine() {
        let report = |ready_ms| {
            let measured = |machine: &str| Measurement {
                machine: machine.to_owned(),
                accel: "kvm".to_owned(),
                image: vec![Boot { ready_ms: Some(ready_ms), ..Boot::default() }],
                cloud: vec![Boot { init_ms: 3 * ready_ms, ..Boot::default() }],
            };
            let machines = ["q35", "microvm"].map(measured).into_iter().map(Measured::of).collect();
            let text = String::new;
            let report = Report {
                benchmark: text(),
                machine: text(),
                commit: text(),
                vnf: text(),
                kernel: text(),
                kernel_config_sha256: text(),
                cloud_kernel: text(),
                machines,
            };
            serde_json::to_string(&report).expect("it can be written")
        };
        let joined = join(&[report(100), report(300), report(200)]).expect("they are reports");
        assert_eq!(joined.iter().map(|on| on.machine.as_str()).collect::<Vec<_>>(), ["q35", "microvm"]);
        assert_eq!(joined.iter().map(|on| (on.ready_ms(), on.cloud_init_ms())).collect::<Vec<_>>(), [(200, 600); 2]);
        assert!(join(&["{}".to_owned()]).is_err());
    }
}
