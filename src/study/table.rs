//! A report as a table: Markdown, CSV, JSON, LaTeX.

use serde_json::{Value, json};

use super::outcome::{Line, Measure, Missing, Report};
use super::statistics::Sample;

/// What a report is written as.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum Form {
    /// Markdown
    #[default]
    Md,
    /// Comma-separated values: a line for each cell and measure
    Csv,
    /// JSON, with every run
    Json,
    /// LaTeX, a tabular with booktabs' rules
    Tex,
}

/// Mean and half of the 95 % interval, to the digits that the interval leaves.
pub fn interval(sample: &Sample) -> String {
    match sample.half_width() {
        Some(half) => {
            let digits = digits(half);
            format!("{:.digits$} ± {half:.digits$}", sample.mean)
        }
        None => format!("{:.2}", sample.mean),
    }
}

/// Decimals that show two figures of an uncertainty, two at least and four at most where it is small.
fn digits(half: f64) -> usize {
    match half {
        h if h >= 1.0 || h <= 0.0 => 2,
        h => ((1.0 - h.log10().floor()) as usize).clamp(2, 4),
    }
}

fn signed(sample: &Sample) -> String {
    match interval(sample) {
        text if sample.mean >= 0.0 => format!("+{text}"),
        text => text,
    }
}

/// Columns that some cell has a value for.
fn columns(report: &Report) -> Vec<Measure> {
    let outcomes = || report.lines.iter().flat_map(|l| l.runs.values().flatten());
    let any = |m: &Measure| match m {
        // Where every evaluation met every budget, or there is none, it is the best.
        Measure::Within => outcomes().any(|o| o.within != o.best),
        m => outcomes().any(|o| m.of(o).is_some()),
    };
    Measure::ALL.into_iter().filter(any).collect()
}

/// The measure that cells are compared by: the test error, or where there is no test part the last
/// validation error.
pub fn compared_by(report: &Report) -> Measure {
    let tested = report
        .lines
        .iter()
        .any(|l| l.sample(Measure::Test).is_some());
    if tested { Measure::Test } else { Measure::Last }
}

impl Report {
    /// As text in a form.
    pub fn text(&self, form: Form) -> String {
        match form {
            Form::Md => self.markdown(),
            Form::Csv => self.csv(),
            Form::Json => format!("{}\n", self.json()),
            Form::Tex => self.latex(),
        }
    }

    /// Titles and cells of the table.
    pub fn table(&self) -> (Vec<String>, Vec<Vec<String>>) {
        let columns = columns(self);
        let by = compared_by(self);
        let published = self.study.cells.iter().any(|c| c.paper.is_some());
        let mut titles = vec!["cell".to_owned(), "runs".to_owned()];
        titles.extend(columns.iter().map(|m| m.name().to_owned()));
        let reference = self.study.reference;
        if let Some(reference) = reference {
            let label = &self.study.cells[reference].label;
            let by = by.name().trim_end_matches(" %");
            titles.push(format!("{by}, points against {label}"));
        }
        if published {
            titles.push("published %".into());
        }
        let rows = self.lines.iter().zip(&self.study.cells).enumerate();
        let rows = rows.map(|(at, (line, cell))| {
            let finished = line.runs.values().filter(|r| r.is_ok()).count();
            let mut row = vec![
                cell.label.clone(),
                format!("{finished} of {}", line.runs.len()),
            ];
            // Of fewer runs than are finished: how many.
            let value = |sample: Option<Sample>| match sample {
                None => "-".into(),
                Some(s) if s.count < finished => format!("{} ({})", interval(&s), s.count),
                Some(s) => interval(&s),
            };
            row.extend(columns.iter().map(|m| value(line.sample(*m))));
            if let Some(reference) = reference {
                let difference = line.against(&self.lines[reference], by);
                row.push(match difference {
                    _ if at == reference => "-".into(),
                    None => "-".into(),
                    Some(s) if s.count < finished => format!("{} ({})", signed(&s), s.count),
                    Some(sample) => signed(&sample),
                });
            }
            if published {
                row.push(cell.paper.map_or("-".into(), |p| format!("{:.2}", p.error)));
            }
            row
        });
        (titles, rows.collect())
    }

    fn markdown(&self) -> String {
        let (done, all) = self.progress();
        let mut out = format!("# {}\n\n", self.study.name);
        if !self.study.about.is_empty() {
            out += &format!("{}\n\n", self.study.about.trim());
        }
        out += &format!("{done} of {all} runs finished.\n\n");
        let (titles, rows) = self.table();
        let line = |cells: &[String]| {
            let cells: Vec<String> = cells.iter().map(|c| c.replace('|', "\\|")).collect();
            format!("| {} |\n", cells.join(" | "))
        };
        out += &line(&titles);
        out += &format!("|{}\n", "---|".repeat(titles.len()));
        for row in rows {
            out += &line(&row);
        }
        out += "\n";
        for note in self.notes() {
            out += &format!("- {note}\n");
        }
        out
    }

    /// What has to be known to read the table.
    pub fn notes(&self) -> Vec<String> {
        let mut notes: Vec<String> = self.warnings.iter().map(|w| format!("**{w}**")).collect();
        notes.extend([
            "Mean ± half of the 95 % confidence interval over seeds (Student's t); without an interval if there is only one run.".to_owned(),
            format!(
                "test: the test part, read once per run, with the weights of the last step. last, best: validation errors; the best of many evaluations is lower than what to expect of one.{} kB and bits: at the last step, bits as a mean over elements.",
                match columns(self).contains(&Measure::Within) {
                    true => " best in budget: of evaluations that met every budget.",
                    false => "",
                }
            ),
        ]);
        if columns(self).contains(&Measure::Turns) {
            notes.push("steps met: quantized steps that met every budget as it was asked for, those while it tightened included. turns: changes of direction of all bitwidths together.".into());
        }
        if let Some(reference) = self.study.reference {
            notes.push(format!(
                "Differences from {} are between runs with the same seed.",
                self.study.cells[reference].label
            ));
        }
        if self.study.cells.iter().any(|c| c.paper.is_some()) {
            notes.push("published: the paper's number: one run, the best of its evaluations on the test set.".into());
        }
        let partial = |line: &Line| {
            let finished = line.runs.values().flatten().count();
            let counts = columns(self).into_iter().filter_map(|m| line.sample(m));
            let by = compared_by(self);
            let against = self
                .study
                .reference
                .map(|r| line.against(&self.lines[r], by));
            counts.chain(against.flatten()).any(|s| s.count < finished)
        };
        if self.lines.iter().any(partial) {
            notes.push(
                "A number in parentheses is the number of finished runs that have this value."
                    .into(),
            );
        }
        let again = self.lines.iter().flat_map(|l| l.runs.values().flatten());
        let again = again.filter(|o| o.test_reads > 1).count();
        if again > 0 {
            notes.push(format!(
                "{again} runs evaluated the test part more than once."
            ));
        }
        for (task, missing) in self.missing() {
            let why = missing.reason().map(|why| format!(": {why}"));
            let note = format!("{task}: {}{}", missing.name(), why.unwrap_or_default());
            notes.push(match missing {
                Missing::Refused(_) => format!("**{note}**"),
                Missing::State(_) => note,
            });
        }
        notes
    }

    fn csv(&self) -> String {
        let mut out =
            String::from("cell,measure,runs,mean,half_width_95,deviation,low,high,published\n");
        let number = |v: Option<f64>| v.map_or(String::new(), |v| v.to_string());
        for (line, cell) in self.lines.iter().zip(&self.study.cells) {
            let label = format!("\"{}\"", cell.label.replace('"', "\"\""));
            for measure in columns(self) {
                let Some(s) = line.sample(measure) else {
                    continue;
                };
                let published = cell.paper.and_then(|p| match measure {
                    Measure::Test => Some(p.error),
                    Measure::Weights => p.weights_kb,
                    Measure::ActivationMax => p.activations_max_kb,
                    Measure::ActivationSum => p.activations_sum_kb,
                    _ => None,
                });
                let against = self
                    .study
                    .reference
                    .filter(|_| measure == compared_by(self));
                let against = against.and_then(|r| line.against(&self.lines[r], measure));
                if let Some(d) = against {
                    out += &format!(
                        "{label},{} against reference,{},{},{},{},{},{},\n",
                        measure.name(),
                        d.count,
                        d.mean,
                        number(d.half_width()),
                        number(d.deviation),
                        d.range.0,
                        d.range.1
                    );
                }
                out += &format!(
                    "{label},{},{},{},{},{},{},{},{}\n",
                    measure.name(),
                    s.count,
                    s.mean,
                    number(s.half_width()),
                    number(s.deviation),
                    s.range.0,
                    s.range.1,
                    number(published)
                );
            }
        }
        out
    }

    /// Everything, run by run too.
    pub fn json(&self) -> Value {
        let by = compared_by(self);
        let sample = |s: Sample| {
            json!({
                "runs": s.count, "mean": s.mean, "half_width_95": s.half_width(),
                "deviation": s.deviation, "low": s.range.0, "high": s.range.1,
            })
        };
        let cells = self
            .lines
            .iter()
            .zip(&self.study.cells)
            .map(|(line, cell)| {
                let measures = Measure::ALL
                    .into_iter()
                    .filter_map(|m| Some((m.name().to_owned(), sample(line.sample(m)?))));
                let runs = line.runs.iter().map(|(seed, run)| match run {
                Ok(o) => {
                    let values = Measure::ALL.into_iter().filter_map(|m| {
                        Some((m.name().to_owned(), json!(m.of(o)?)))
                    });
                    json!({
                        "seed": seed, "state": "finished", "steps": o.steps, "seconds": o.seconds,
                        "test_reads": o.test_reads,
                        "values": Value::Object(values.collect()),
                    })
                }
                Err(missing) => {
                    let mut value = json!({ "seed": seed, "state": missing.name() });
                    if let Some(reason) = missing.reason() {
                        value["reason"] = reason.into();
                    }
                    value
                }
            });
                let against = self
                    .study
                    .reference
                    .and_then(|r| line.against(&self.lines[r], by).map(sample));
                json!({
                    "cell": cell.label, "set": cell.set,
                    "published": cell.paper.map(|p| json!({
                        "error": p.error, "weights_kb": p.weights_kb,
                        "activations_max_kb": p.activations_max_kb,
                        "activations_sum_kb": p.activations_sum_kb,
                    })),
                    "measures": Value::Object(measures.collect()),
                    "against_reference": against,
                    "runs": runs.collect::<Vec<_>>(),
                })
            });
        json!({
            "study": self.study.name, "about": self.study.about, "warnings": self.warnings,
            "reference": self.study.reference.map(|r| &self.study.cells[r].label),
            "compared_by": by.name(),
            "cells": cells.collect::<Vec<_>>(),
        })
    }

    fn latex(&self) -> String {
        let (titles, rows) = self.table();
        let escaped = |text: &String| {
            let mut out = String::new();
            for c in text.chars() {
                match c {
                    '±' => out += "$\\pm$",
                    '%' | '&' | '_' | '#' | '$' | '{' | '}' => out.extend(['\\', c]),
                    '|' => out += "\\textbar{}",
                    '"' => out += "\\textquotedbl{}",
                    '<' => out += "\\textless{}",
                    '>' => out += "\\textgreater{}",
                    '\\' => out += "\\textbackslash{}",
                    '~' => out += "\\textasciitilde{}",
                    '^' => out += "\\textasciicircum{}",
                    // (Behind a line break it would be an option of that.)
                    '[' => out += "{[}",
                    c => out.push(c),
                }
            }
            out
        };
        let line = |cells: &[String]| {
            let cells: Vec<String> = cells.iter().map(escaped).collect();
            format!("{} \\\\\n", cells.join(" & "))
        };
        // A comment is in no print, but whoever opens the file reads it.
        let warnings = self.warnings.iter();
        let mut out: String = warnings
            .map(|w| format!("% warning: {}\n", w.replace('\n', " ")))
            .collect();
        out += &format!(
            "\\begin{{tabular}}{{l{}}}\n\\toprule\n",
            "r".repeat(titles.len() - 1)
        );
        out += &line(&titles);
        out += "\\midrule\n";
        for row in &rows {
            out += &line(row);
        }
        out + "\\bottomrule\n\\end{tabular}\n"
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::path::Path;

    use super::super::folder::State;
    use super::super::outcome::Outcome;
    use super::super::plan::Study;
    use super::*;
    use crate::quantizer::memory::Side;

    fn outcome(test: f64, kilobytes: f64) -> Outcome {
        Outcome {
            test: Some(test),
            test_reads: 1,
            last: Some(test + 0.01),
            best: Some(test - 0.01),
            within: Some(test - 0.01),
            kilobytes: [Some(kilobytes), None, None],
            bits: vec![
                ("a".into(), Side::Weights, 3, 2.0),
                ("b".into(), Side::Weights, 1, 6.0),
            ],
            calm: None,
            curve: vec![(1, test)],
            seconds: 2.0,
            steps: 4,
            damages: Vec::new(),
        }
    }

    fn report() -> Report {
        let text = "name = \"t\"\nseeds = [1, 2, 3]\nreference = \"a_1\"\n\
                    [[row]]\nname = \"a_1\"\npaper = 7.29\n[[row]]\nname = \"b\"";
        let study = Study::parse(Path::new("s.toml"), text).expect("a study");
        let line = |runs: Vec<Result<Outcome, Missing>>| Line {
            runs: (1..).zip(runs).collect::<BTreeMap<i64, _>>(),
        };
        let lines = vec![
            line(vec![
                Ok(outcome(0.10, 5.0)),
                Ok(outcome(0.12, 5.0)),
                Ok(outcome(0.11, 5.0)),
            ]),
            line(vec![
                Ok(outcome(0.13, 4.0)),
                Err(Missing::State(State::Failed {
                    reason: "full".into(),
                    dead_end: false,
                })),
                Ok(outcome(0.13, 4.0)),
            ]),
        ];
        Report {
            study,
            warnings: Vec::new(),
            lines,
        }
    }

    /// By hand: 10, 12, 11 have mean 11, deviation 1, and 4.303 / √3 = 2.484 as half an interval. The
    /// pairs of seeds 1 and 3 differ by 3 and 2: mean 2.5, half 12.706 · 0.7071 / √2 = 6.353.
    #[test]
    fn means_intervals_and_paired_differences_are_right() {
        let report = report();
        let (titles, rows) = report.table();
        let column = |name: &str| titles.iter().position(|t| t == name).expect(name);
        assert_eq!(rows[0][column("test %")], "11.00 ± 2.48");
        assert_eq!(rows[1][column("test %")], "13.00 ± 0.00");
        assert_eq!(rows[1][column("runs")], "2 of 3");
        assert_eq!(rows[1][column("test, points against a_1")], "+2.50 ± 6.35");
        assert_eq!(rows[0][column("W bits")], "3.00 ± 0.00");
        assert_eq!(rows[0][column("published %")], "7.29");
        assert!(
            !titles.iter().any(|t| t.contains("in budget")),
            "{titles:?}"
        );
    }

    #[test]
    fn a_number_of_fewer_runs_than_are_finished_says_so() {
        let mut report = report();
        if let Some(Ok(outcome)) = report.lines[0].runs.get_mut(&2) {
            outcome.test = None;
        }
        report.study.cells[1].label = "b|c".into();
        let (titles, rows) = report.table();
        let test = titles.iter().position(|t| t == "test %").expect("a column");
        assert_eq!(rows[0][test], "10.50 ± 6.35 (2)");
        assert_eq!(rows[0][1], "3 of 3");
        let markdown = report.text(Form::Md);
        assert!(
            markdown.contains("in parentheses") && markdown.contains("b\\|c"),
            "{markdown}"
        );
    }

    #[test]
    fn every_form_says_the_same() {
        let mut report = report();
        report.warnings = vec!["other settings:\nlr".into()];
        let markdown = report.text(Form::Md);
        assert!(markdown.contains("5 of 6 runs finished"), "{markdown}");
        assert!(markdown.contains("b, seed 2: failed: full"), "{markdown}");
        let json: Value = serde_json::from_str(&report.text(Form::Json)).expect("JSON");
        let mean = json["cells"][0]["measures"]["test %"]["mean"].as_f64();
        assert!(mean.is_some_and(|m| (m - 11.0).abs() < 1e-9));
        let csv = report.text(Form::Csv);
        assert!(csv.contains("\"a_1\",test %,3,11"), "{csv}");
        let tex = report.text(Form::Tex);
        assert!(
            tex.starts_with("% warning: other settings: lr\n\\begin"),
            "{tex}"
        );
        assert!(tex.contains("a\\_1 &") && tex.contains("$\\pm$"), "{tex}");
    }
}
