//! The paper's own claims.

use super::{Begins, Claim, Verdict, begins, duration_s, fails, line, loses, mean, seconds};
use crate::figures::measured::sigma_wire;
use crate::grid::{Mode, PACKET_SIZES_BYTES, RATES_MBIT, Scheduling, Vnf};
use crate::record::Run;
use crate::results::Results;
use crate::table_2::Row;
use slim_core::model::Scenario;

use Mode::{Duplicate, Statelet};
use Scheduling::{BestEffort, DataplaneFirst};

/// The paper's "high data rate" and low one.
const HIGH_MBIT: u32 = 800;
const LOW_MBIT: u32 = 100;

pub(super) fn claims(results: &Results, table_2: &[Row]) -> Vec<Claim> {
    let mut claims = vec![
        duplication_loses(results),
        statelets_lose(results),
        load_tripled(results, BestEffort),
        load_tripled(results, DataplaneFirst),
        a_third_of_the_time(results, BestEffort),
        a_third_of_the_time(results, DataplaneFirst),
        under_a_second(results),
        both_fast_at_low_load(results),
        pkt_q_bounded(results),
        rtt(results),
        gateway_is_independent(results),
        gateway_volume(results),
    ];
    claims.extend(table_2.first().map(sigma));
    claims
}

fn of_nat(results: &Results, mode: Mode, exceeds: fn(&[Run]) -> bool) -> Begins {
    begins(results, Vnf::Nat, mode, BestEffort, exceeds)
}

/// How a claim names the scheduling.
fn named(scheduling: Scheduling) -> &'static str {
    match scheduling {
        BestEffort => "best-effort",
        DataplaneFirst => "dataplane first",
    }
}

/// Lost packets, or a migration that gives up before it loses any.
fn breaks(runs: &[Run]) -> bool {
    loses(runs) || fails(runs)
}

/// Compares where something begins with where the paper sees it.
fn compare(begins: Begins, first: u32, last: u32) -> Verdict {
    match begins {
        Begins::Unknown => Verdict::NotMeasured,
        Begins::At(rate) if rate < first => Verdict::NotReproduced,
        Begins::At(rate) if rate <= last => Verdict::Reproduced,
        Begins::NotUpTo(rate) if rate < last => Verdict::NotMeasured,
        Begins::At(_) | Begins::NotUpTo(_) => Verdict::Better,
    }
}

fn both_ways(results: &Results, mode: Mode) -> String {
    format!("loss from: {}; migrations fail from: {}", of_nat(results, mode, loses), of_nat(results, mode, fails))
}

fn duplication_loses(results: &Results) -> Claim {
    Claim {
        claim: "NAT, best-effort: duplication works up to 200 and loses from 300 Mbit/s".into(),
        source: "§VII-A".into(),
        figure: Some("figure-11"),
        paper: "300 Mbit/s".into(),
        model: "500 Mbit/s".into(),
        measured: both_ways(results, Duplicate),
        // One step of the grid either way is the same within the grid.
        verdict: compare(of_nat(results, Duplicate, breaks), 300, 400),
    }
}

fn statelets_lose(results: &Results) -> Claim {
    let sigma = sigma_wire(results, Vnf::Nat, 512);
    Claim {
        claim: "NAT, best-effort: statelets avoid loss up to 800 and fail around 900 Mbit/s".into(),
        source: "§VII-A".into(),
        figure: Some("figure-11"),
        paper: "800 to 900 Mbit/s".into(),
        model: sigma.map_or_else(
            || "1000/(1+σ)".into(),
            |sigma| format!("1000/(1+σ) = {:.0} Mbit/s at σ = {sigma:.4}", 1000.0 / (1.0 + sigma)),
        ),
        measured: both_ways(results, Statelet),
        verdict: compare(of_nat(results, Statelet, breaks), 800, 900),
    }
}

/// The greatest load at which all is well.
fn bears(begins: Begins) -> Option<u32> {
    match begins {
        Begins::Unknown => None,
        Begins::NotUpTo(rate) => Some(rate),
        Begins::At(rate) => Some(RATES_MBIT.into_iter().take_while(|&lower| lower < rate).last().unwrap_or(0)),
    }
}

fn load_tripled(results: &Results, scheduling: Scheduling) -> Claim {
    let [statelets, duplication] =
        [Statelet, Duplicate].map(|mode| bears(begins(results, Vnf::Nat, mode, scheduling, breaks)));
    let ratio = statelets.zip(duplication).map(|(most, least)| f64::from(most) / f64::from(least.max(1)));
    Claim {
        claim: format!(
            "NAT, {}: with statelets a link bears three times the load that it bears with duplication",
            named(scheduling)
        ),
        source: "§VII-A".into(),
        figure: Some("figure-11"),
        paper: "almost 3 times (800 against 200 to 300)".into(),
        model: "2 times on the testbed's links, 3 times in figure 6".into(),
        measured: match (statelets, duplication, ratio) {
            (Some(statelets), Some(duplication), Some(ratio)) if duplication > 0 => {
                format!("{statelets} against {duplication} Mbit/s: {ratio:.1} times")
            }
            (Some(statelets), Some(_), _) => format!("{statelets} Mbit/s against none"),
            _ => "not measured".into(),
        },
        verdict: match ratio {
            None => Verdict::NotMeasured,
            // "Almost": nearer to three than to two.
            Some(ratio) if ratio < 2.5 => Verdict::NotReproduced,
            Some(ratio) if ratio <= 3.5 => Verdict::Reproduced,
            Some(_) => Verdict::Better,
        },
    }
}

fn a_third_of_the_time(results: &Results, scheduling: Scheduling) -> Claim {
    let of = |mode, rate| duration_s(results, Vnf::Nat, mode, scheduling, rate);
    let model = |sigma, rate: u32| Scenario::testbed(f64::from(rate) * 1e6, sigma).duration_s();
    // Where duplication does not end at all there is no ratio.
    let highest = RATES_MBIT.into_iter().rev().find_map(|rate| {
        let ratio = of(Duplicate, rate)? / of(Statelet, rate)?;
        Some((rate, ratio))
    });
    let sigma = sigma_wire(results, Vnf::Nat, 512).unwrap_or(0.0234);
    Claim {
        claim: format!(
            "NAT, {}: at the highest load that both complete, statelets take a third of duplication's time or less",
            named(scheduling)
        ),
        source: "§VII-A".into(),
        figure: Some("figure-15"),
        paper: "5 s against less than 1 s at 800 Mbit/s".into(),
        model: highest.map_or_else(String::new, |(rate, _)| {
            format!("{} against {} at {rate} Mbit/s", seconds(model(1.0, rate)), seconds(model(sigma, rate)))
        }),
        measured: match highest {
            Some((rate, ratio)) => format!(
                "{} against {} at {rate} Mbit/s, the most that duplication completes: {ratio:.1} times",
                seconds(of(Duplicate, rate)),
                seconds(of(Statelet, rate))
            ),
            None => "not measured".into(),
        },
        verdict: highest.map_or(Verdict::NotMeasured, |(_, ratio)| Verdict::of(ratio >= 3.0)),
    }
}

fn under_a_second(results: &Results) -> Claim {
    let measured = duration_s(results, Vnf::Nat, Statelet, BestEffort, HIGH_MBIT);
    let known = results_at(results, Statelet, HIGH_MBIT);
    let sigma = sigma_wire(results, Vnf::Nat, 512).unwrap_or(0.0234);
    Claim {
        claim: "NAT, best-effort: statelets finish in under 1 s at 800 Mbit/s".into(),
        source: "§VII-A".into(),
        figure: Some("figure-15"),
        paper: "less than 1 s".into(),
        model: seconds(Scenario::testbed(f64::from(HIGH_MBIT) * 1e6, sigma).duration_s()) + " with T_B = 0.3 s",
        measured: if known { seconds(measured) } else { "not measured".into() },
        verdict: if known { Verdict::of(measured.is_some_and(|s| s < 1.0)) } else { Verdict::NotMeasured },
    }
}

/// Whether anything was run there.
fn results_at(results: &Results, mode: Mode, rate: u32) -> bool {
    PACKET_SIZES_BYTES.iter().any(|&size| !results.of(&line(Vnf::Nat, size, mode, BestEffort)(rate)).is_empty())
}

fn both_fast_at_low_load(results: &Results) -> Claim {
    let of = |mode| duration_s(results, Vnf::Nat, mode, BestEffort, LOW_MBIT);
    let (statelets, duplication) = (of(Statelet), of(Duplicate));
    let known = results_at(results, Statelet, LOW_MBIT) && results_at(results, Duplicate, LOW_MBIT);
    let fast = |duration: Option<f64>| duration.is_some_and(|s| s < 1.0);
    Claim {
        claim: "NAT: both take less than 1 s up to 100 Mbit/s".into(),
        source: "§VII-A".into(),
        figure: Some("figure-15"),
        paper: "less than 1 s".into(),
        model: {
            let model = |sigma| seconds(Scenario::testbed(f64::from(LOW_MBIT) * 1e6, sigma).duration_s());
            format!("{} with statelets, {} with duplication", model(0.0234), model(1.0))
        },
        measured: format!("{} with statelets, {} with duplication", seconds(statelets), seconds(duplication)),
        verdict: if known { Verdict::of(fast(statelets) && fast(duplication)) } else { Verdict::NotMeasured },
    }
}

fn pkt_q_bounded(results: &Results) -> Claim {
    let overflows = |runs: &[Run]| runs.iter().any(|run| run.pkt_q_dropped > 0) || fails(runs);
    let of = |mode| of_nat(results, mode, overflows);
    let (duplication, statelets) = (of(Duplicate), of(Statelet));
    let longest = |mode| {
        let lines = PACKET_SIZES_BYTES.map(|size| line(Vnf::Nat, size, mode, BestEffort));
        let runs = lines.iter().flat_map(|line| RATES_MBIT.map(line)).flat_map(|setup| results.of(&setup).to_vec());
        runs.map(|run| run.pkt_q_packets).max().unwrap_or(0)
    };
    Claim {
        claim: "NAT: duplication overflows a pkt_q of 64 K packets beyond 300 Mbit/s, statelets do not".into(),
        source: "§VII-A".into(),
        figure: Some("figure-17"),
        paper: "beyond 300 Mbit/s".into(),
        model: "from 500 Mbit/s, where duplication never catches up".into(),
        measured: format!(
            "duplication overflows or gives up: {duplication}; longest pkt_q {} with statelets, {} with duplication",
            longest(Statelet),
            longest(Duplicate)
        ),
        verdict: match (duplication, statelets) {
            (Begins::Unknown, _) | (_, Begins::Unknown) => Verdict::NotMeasured,
            (Begins::At(d), Begins::At(s)) => Verdict::of(d > 200 && d <= 500 && s > d),
            (Begins::At(d), Begins::NotUpTo(_)) => Verdict::of(d > 200 && d <= 500),
            (Begins::NotUpTo(_), _) => Verdict::NotReproduced,
        },
    }
}

fn rtt(results: &Results) -> Claim {
    let worst = |mode, up_to: u32| {
        let rates = RATES_MBIT.into_iter().filter(move |&rate| rate <= up_to);
        let setups = rates.flat_map(|rate| PACKET_SIZES_BYTES.map(|size| line(Vnf::Nat, size, mode, BestEffort)(rate)));
        let means = setups.map(|setup| results.of(&setup)).filter(|runs| !runs.is_empty());
        means.map(|runs| mean(runs, |run| run.rtt.worst_interval_mean_ms)).reduce(f64::max)
    };
    let show = |value: Option<f64>| value.map_or_else(|| "not measured".into(), |ms| format!("{ms:.0} ms"));
    let (statelets, duplication) = (worst(Statelet, 950), worst(Duplicate, 950));
    Claim {
        claim:
            "NAT: with statelets the worst half second has a mean RTT of at most 100 ms, and with duplication far more"
                .into(),
        source: "§VII-A".into(),
        figure: Some("figure-14"),
        paper: "100 ms, beyond 850 Mbit/s only".into(),
        model: "none: queues are not modelled".into(),
        measured: format!("{} with statelets, {} with duplication", show(statelets), show(duplication)),
        verdict: match (statelets, duplication) {
            (Some(statelets), Some(duplication)) => Verdict::of(statelets <= 100.0 && duplication > statelets),
            _ => Verdict::NotMeasured,
        },
    }
}

fn gateway_is_independent(results: &Results) -> Claim {
    let of = |rate| duration_s(results, Vnf::Gateway, Statelet, BestEffort, rate);
    let (low, high) = (of(LOW_MBIT), of(HIGH_MBIT));
    Claim {
        claim: "Packet gateway: with statelets the duration hardly depends on the load".into(),
        source: "§VII-A".into(),
        figure: Some("figure-16"),
        paper: "a very small tendency of longer duration after 600 Mbit/s".into(),
        model: {
            let model = |rate: u32| seconds(Scenario::testbed(f64::from(rate) * 1e6, 0.0).duration_s());
            format!("{} at 100, {} at 800 Mbit/s: what is left of the link decides", model(100), model(800))
        },
        measured: format!("{} at 100, {} at 800 Mbit/s", seconds(low), seconds(high)),
        verdict: match (low, high) {
            (Some(low), Some(high)) => Verdict::of(high < 1.5 * low),
            _ => Verdict::NotMeasured,
        },
    }
}

fn gateway_volume(results: &Results) -> Claim {
    let setups = RATES_MBIT
        .into_iter()
        .flat_map(|rate| PACKET_SIZES_BYTES.map(|size| line(Vnf::Gateway, size, Statelet, BestEffort)(rate)));
    let runs: Vec<&Run> = setups.flat_map(|setup| results.of(&setup)).collect();
    let volumes =
        || runs.iter().filter(|run| run.duration_s.is_some()).map(|run| run.transfer.total_bytes() as f64 / 1e6);
    let (least, most) = (volumes().reduce(f64::min), volumes().reduce(f64::max));
    Claim {
        claim: "Packet gateway: the state transfer's volume does not depend on the load".into(),
        source: "§VII-A".into(),
        figure: None,
        paper: "about 23 MB".into(),
        model: "21 MB of filler and 50 B for each of 128 hand-overs a second".into(),
        measured: match (least, most) {
            (Some(least), Some(most)) => format!("{least:.2} to {most:.2} MB"),
            _ => "not measured".into(),
        },
        verdict: match (least, most) {
            (Some(least), Some(most)) if most > 1.1 * least => Verdict::NotReproduced,
            (Some(_), Some(most)) => {
                if most <= 23.0 {
                    Verdict::Better
                } else {
                    Verdict::of(most <= 25.0)
                }
            }
            _ => Verdict::NotMeasured,
        },
    }
}

fn sigma(row: &Row) -> Claim {
    Claim {
        claim: "NAT: the statelet factor of Table II's workload".into(),
        source: "Table II".into(),
        figure: None,
        paper: format!("{}", row.paper),
        model: format!("{:.4}", row.computed),
        measured: row.measured.map_or_else(String::new, |sigma| format!("{sigma:.4}, values over packets")),
        verdict: row.measured.map_or(Verdict::NotMeasured, |sigma| Verdict::of((sigma - row.paper).abs() < 0.001)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_loss_begins_is_compared_with_the_paper_s_range() {
        let verdicts = [
            (Begins::At(200), Verdict::NotReproduced),
            (Begins::At(300), Verdict::Reproduced),
            (Begins::At(400), Verdict::Reproduced),
            (Begins::At(500), Verdict::Better),
            (Begins::NotUpTo(950), Verdict::Better),
            (Begins::NotUpTo(300), Verdict::NotMeasured),
            (Begins::Unknown, Verdict::NotMeasured),
        ];
        for (begins, verdict) in verdicts {
            assert_eq!(compare(begins, 300, 400), verdict, "{begins}");
        }
        assert_eq!([Begins::At(900), Begins::At(100)].map(bears), [Some(800), Some(0)]);
    }
}
