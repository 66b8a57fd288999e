//! The report as Markdown, for people who read the repository.

use super::{Report, sigma, statement};
use crate::experiments::Experiment;
use std::fmt::Write as _;

/// The page.
pub(super) fn page(report: &Report) -> String {
    let mut page = String::from("# What the evaluation found\n\n");
    // Writing to a string cannot fail.
    for line in report.summaries() {
        let _ = writeln!(page, "{line}\n");
    }
    page += "`cargo xtask eval --keep docs/evaluation` makes this page; [how](../evaluation.md).\n\n## Claims\n\n";
    page += "| claim | paper | model | measured | |\n| --- | --- | --- | --- | --- |\n";
    for claim in &report.claims {
        let _ = writeln!(
            page,
            "| {} ({}) | {} | {} | {} | **{}** |",
            claim.claim, claim.source, claim.paper, claim.model, claim.measured, claim.verdict
        );
    }
    page.push('\n');
    experiments(&mut page, "Booted images", &report.booted);
    experiments(&mut page, "Why it differs from the paper", &report.experiments);
    page += "## Table II: statelet factor σ\n\n";
    page += "| workload | paper | computed | measured | on the wire | merged and compressed, on the wire | |\n";
    page += "| --- | --- | --- | --- | --- | --- | --- |\n";
    for row in &report.table_2 {
        let [measured, wire, economic] = [row.measured, row.measured_wire, row.measured_wire_economic].map(sigma);
        let _ = writeln!(
            page,
            "| {} | {} | {:.4} | {measured} | {wire} | {economic} | {} |",
            row.workload, row.paper, row.computed, row.remark
        );
    }
    page += "\n## Figures\n\nError bars are 95 % confidence intervals of the mean (Student's t). Dashed lines are the model's.\n";
    for figure in &report.figures {
        let _ = writeln!(page, "\n### {}\n\n{}", figure.title, statement(&figure.id));
        for claim in report.claims_of(figure) {
            let _ = writeln!(page, "\n**{}**: {}", claim.verdict, claim.measured);
        }
        let _ = writeln!(page, "\n![{}]({}.svg) ([data]({}.csv))", figure.title, figure.id, figure.id);
    }
    page
}

fn experiments(page: &mut String, title: &str, experiments: &[Experiment]) {
    if experiments.is_empty() {
        return;
    }
    let _ = writeln!(page, "## {title}\n");
    for experiment in experiments {
        let _ = writeln!(page, "### {}\n\n{}\n", experiment.question, experiment.answer);
        let _ = writeln!(page, "| {} |", experiment.header.join(" | "));
        let _ = writeln!(page, "|{}", " --- |".repeat(experiment.header.len()));
        for row in &experiment.rows {
            let _ = writeln!(page, "| {} |", row.join(" | "));
        }
        page.push('\n');
    }
}
