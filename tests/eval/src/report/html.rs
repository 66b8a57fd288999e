//! The report as one HTML page that needs nothing else.

use super::{Report, sigma, statement};
use crate::claims::{Claim, Verdict};
use crate::experiments::Experiment;
use std::fmt::Write as _;

const STYLE: &str = "
body { font: 16px/1.5 sans-serif; max-width: 1080px; margin: 2em auto; padding: 0 1em; color: #222; }
table { border-collapse: collapse; margin: 1em 0; font-size: 14px; }
th, td { border-bottom: 1px solid #ddd; padding: .45em .7em; text-align: left; vertical-align: top; }
th { border-bottom: 2px solid #888; }
.verdict { font-weight: bold; white-space: nowrap; }
.reproduced { color: #0072b2; } .better { color: #007a56; } .not-reproduced { color: #b34700; } .not-measured { color: #777; }
figure { margin: 2.5em 0; } figure svg { max-width: 100%; height: auto; border: 1px solid #eee; }
details { font-size: 13px; } pre { overflow-x: auto; }
";

/// The page, with the figures as `drawn`.
pub(super) fn page(report: &Report, drawn: &[String]) -> String {
    let mut page = format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\
         <title>SliM: the evaluation</title><style>{STYLE}</style></head><body>\n<h1>The paper's evaluation, run again</h1>\n\
         {}<h2>Claims</h2>\n",
        report.summaries().map(|line| format!("<p>{}</p>\n", escaped(&line))).collect::<String>()
    );
    table(&mut page, &["claim", "paper", "model", "measured", ""], report.claims.iter().map(claim_row));
    page += "<h2>Figures</h2>\n<p>Error bars are 95 % confidence intervals of the mean (Student's t). Dashed lines are the \
             model's.</p>\n";
    for (figure, svg) in report.figures.iter().zip(drawn) {
        // Writing to a string cannot fail.
        let _ = writeln!(page, "<figure id=\"{}\">{svg}<figcaption>", figure.id);
        let _ = writeln!(page, "<p><em>The paper:</em> {}</p>", escaped(statement(&figure.id)));
        for claim in report.claims_of(figure) {
            let _ = writeln!(page, "<p>{}: {}</p>", verdict(claim.verdict), escaped(&claim.measured));
        }
        let _ = writeln!(page, "<details><summary>Data</summary><pre>{}</pre></details>", escaped(&figure.csv()));
        page += "</figcaption></figure>\n";
    }
    experiments(&mut page, "Booted images", &report.booted);
    experiments(&mut page, "Why it differs from the paper", &report.experiments);
    page += "<h2>Table II: statelet factor σ</h2>\n";
    let header =
        ["workload", "paper", "computed", "measured", "on the wire", "merged and compressed, on the wire", "remark"];
    table(
        &mut page,
        &header,
        report.table_2.iter().map(|row| {
            let [measured, wire, economic] = [row.measured, row.measured_wire, row.measured_wire_economic].map(sigma);
            let computed = format!("{:.4}", row.computed);
            vec![
                escaped(&row.workload),
                row.paper.to_string(),
                computed,
                measured,
                wire,
                economic,
                escaped(&row.remark),
            ]
        }),
    );
    page += "</body></html>\n";
    page
}

fn experiments(page: &mut String, title: &str, experiments: &[Experiment]) {
    if experiments.is_empty() {
        return;
    }
    let _ = writeln!(page, "<h2>{title}</h2>");
    for experiment in experiments {
        let _ = writeln!(page, "<h3>{}</h3><p>{}</p>", escaped(&experiment.question), escaped(&experiment.answer));
        let header: Vec<&str> = experiment.header.iter().map(String::as_str).collect();
        table(page, &header, experiment.rows.iter().map(|row| row.iter().map(|cell| escaped(cell)).collect()));
    }
}

fn claim_row(claim: &Claim) -> Vec<String> {
    let figure =
        claim.figure.map_or_else(String::new, |id| format!(", <a href=\"#{id}\">{}</a>", id.replace('-', " ")));
    vec![
        format!("{} <small>({}{figure})</small>", escaped(&claim.claim), escaped(&claim.source)),
        escaped(&claim.paper),
        escaped(&claim.model),
        escaped(&claim.measured),
        verdict(claim.verdict),
    ]
}

fn verdict(verdict: Verdict) -> String {
    let name = verdict.name();
    format!("<span class=\"verdict {}\">{name}</span>", name.replace(' ', "-"))
}

/// Cells are HTML already, the header is not.
fn table(page: &mut String, header: &[&str], rows: impl Iterator<Item = Vec<String>>) {
    let cells = |name: &str, cells: &mut dyn Iterator<Item = String>| {
        cells.map(|cell| format!("<{name}>{cell}</{name}>")).collect::<String>()
    };
    let _ = writeln!(page, "<table><tr>{}</tr>", cells("th", &mut header.iter().map(|cell| escaped(cell))));
    for row in rows {
        let _ = writeln!(page, "<tr>{}</tr>", cells("td", &mut row.into_iter()));
    }
    page.push_str("</table>\n");
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
