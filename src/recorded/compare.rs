//! Runs side by side.

use serde_json::{Map, Value, json};
use unicode_width::UnicodeWidthStr;

use crate::experiment::{difference, padded, printable, resolve_text};
use crate::face::{CliError, print};
use crate::run::{Budget, Event, LayerRecord, LogReader, Manifest, Phases, RunFolder, StepRecord};

/// Some runs side by side: what differs in their settings, and what they came to.
pub(crate) fn compare(folders: &[RunFolder], as_json: bool) -> Result<u8, CliError> {
    let all: Result<Vec<Outcome>, CliError> = folders.iter().map(Outcome::of).collect();
    let all = all?;
    let settings = settings(&all);
    let text = if as_json {
        let runs: Vec<Value> = all.iter().map(Outcome::json).collect();
        format!("{}\n", json!({"settings": settings, "runs": runs}))
    } else {
        written(&all, &settings)
    };
    print(&text)?;
    Ok(0)
}

/// What a run came to.
struct Outcome {
    label: String,
    manifest: Manifest,
    experiment: Option<crate::experiment::Experiment>,
    /// Best validation error among evaluations within budget, and the step record beside it.
    best: Option<(f64, StepRecord)>,
    test: Option<f64>,
    last: Option<StepRecord>,
    /// Bitwidth by layer at the best step, else at the last.
    bits: Vec<(String, f32)>,
    samples_per_s: Option<f64>,
}

impl Outcome {
    fn of(folder: &RunFolder) -> Result<Self, CliError> {
        let text = crate::files::read_text(&folder.experiment());
        let text = text.ok().or_else(|| folder.experiment_in_log());
        let mut out = Self {
            label: printable(&folder.label()),
            manifest: folder.manifest_or_rebuilt()?,
            experiment: text.and_then(|t| resolve_text("experiment.toml", &t).ok()),
            best: None,
            test: None,
            last: None,
            bits: Vec::new(),
            samples_per_s: None,
        };
        let (mut layers, mut probed, mut paces) = (Vec::new(), None, Vec::new());
        // Every evaluation that the run itself took for its best, with the records of its step.
        let mut bests: Vec<(f64, StepRecord, Option<Vec<LayerRecord>>)> = Vec::new();
        let (mut phases, mut quantized_at) = (Phases::default(), None);
        // (The record before the quantizers' first evaluation is of the float network.)
        let is_within = |budgets: &[Budget], record: &StepRecord, start: Option<u64>| {
            start == Some(record.step) || budgets.iter().all(|b| b.is_met(&record.usage))
        };
        for event in LogReader::open(&folder.log())? {
            match event {
                Event::Started {
                    layers: of,
                    step,
                    budgets,
                    ..
                } => {
                    layers = of;
                    // What came behind the checkpoint that a run goes on from is not part of it.
                    bests.retain(|(_, record, _)| {
                        record.step <= step && is_within(&budgets, record, quantized_at)
                    });
                }
                Event::Applied { budgets, .. } => {
                    bests.retain(|(_, record, _)| is_within(&budgets, record, quantized_at));
                }
                Event::Step(record) => {
                    out.test = None;
                    paces.push(record.samples_per_s);
                    if record.layers.is_some() {
                        probed.clone_from(&record.layers);
                    }
                    out.last = Some(*record);
                }
                Event::Phase { step, phase } if phases.begins_quantized(phase) => {
                    // The float network's best is none of the quantized one's.
                    bests.clear();
                    quantized_at = Some(step);
                }
                Event::Evaluation {
                    split: crate::run::Split::Test,
                    error,
                    ..
                } => out.test = Some(error),
                Event::Evaluation {
                    error, best: true, ..
                } => {
                    if let Some(last) = &out.last {
                        bests.push((error, last.clone(), probed.clone()));
                    }
                }
                _ => {}
            }
        }
        let best = bests.pop().map(|(error, record, layers)| {
            out.best = Some((error, record));
            layers
        });
        let records = best.flatten().or(probed).unwrap_or_default();
        out.bits = layers
            .iter()
            .zip(records)
            .map(|(info, record)| (info.label(), record.bitwidth))
            .collect();
        paces.sort_by(f64::total_cmp);
        out.samples_per_s = paces.get(paces.len() / 2).copied();
        Ok(out)
    }

    fn kilobytes(&self) -> Option<(f64, f64)> {
        let best = self.best.as_ref();
        // (The record before the quantizers' first evaluation is of the float network.)
        if let (Some((_, record)), Some(best)) = (best, &self.manifest.best)
            && record.step == best.step
        {
            return Some((best.weight_kb, best.activation_kb));
        }
        let at = best.map(|(_, r)| r).or(self.last.as_ref())?;
        Some((at.usage.weights, at.usage.activation_max))
    }

    fn json(&self) -> Value {
        let kb = self.kilobytes();
        let bits: Map<String, Value> = self
            .bits
            .iter()
            .map(|(name, bits)| (name.clone(), (*bits).into()))
            .collect();
        json!({
            "run": self.label, "status": self.manifest.status.name(), "step": self.manifest.step,
            "best_error": self.best.as_ref().map(|b| b.0),
            "best_step": self.best.as_ref().map(|b| b.1.step),
            "test_error": self.test,
            "weight_kb": kb.map(|k| k.0), "activation_max_kb": kb.map(|k| k.1),
            "samples_per_s": self.samples_per_s, "bits": bits,
        })
    }
}

/// Keys whose values are not the same in all runs: a value for each run.
fn settings(all: &[Outcome]) -> Map<String, Value> {
    let mut keys = Vec::new();
    let experiments: Vec<_> = all.iter().filter_map(|o| o.experiment.as_ref()).collect();
    for other in experiments.iter().skip(1) {
        for change in difference(&experiments[0].values, &other.values) {
            if !keys.contains(&change.path) {
                keys.push(change.path);
            }
        }
    }
    let value = |outcome: &Outcome, key: &str| {
        let experiment = outcome.experiment.as_ref()?;
        experiment.values.get(key).map(ToString::to_string)
    };
    keys.into_iter()
        .map(|key| {
            let values: Vec<Value> = all.iter().map(|o| value(o, &key).into()).collect();
            (key, values.into())
        })
        .collect()
}

fn written(all: &[Outcome], settings: &Map<String, Value>) -> String {
    let percent = |v: Option<f64>| v.map_or("-".to_owned(), |e| format!("{:.2}", e * 100.0));
    let number = |v: Option<f64>| v.map_or("-".to_owned(), |v| format!("{v:.2}"));
    let mut rows: Vec<(String, Vec<String>)> = Vec::new();
    let mut row = |name: &str, cell: &dyn Fn(&Outcome) -> String| {
        rows.push((name.to_owned(), all.iter().map(cell).collect()));
    };
    row("run", &|o| o.label.clone());
    row("best val % in budget", &|o| {
        percent(o.best.as_ref().map(|b| b.0))
    });
    row("  at step", &|o| {
        o.best.as_ref().map_or("-".into(), |b| b.1.step.to_string())
    });
    row("  weight kB", &|o| number(o.kilobytes().map(|k| k.0)));
    row("  largest act kB", &|o| number(o.kilobytes().map(|k| k.1)));
    row("test %", &|o| percent(o.test));
    row("samples/s", &|o| number(o.samples_per_s));
    for (key, values) in settings {
        let cells = values.as_array().into_iter().flatten();
        let cells = cells.map(|v| v.as_str().unwrap_or("-").to_owned());
        rows.push((key.clone(), cells.collect()));
    }
    let layers = all.iter().flat_map(|o| &o.bits).map(|(name, _)| name);
    let mut seen: Vec<&String> = Vec::new();
    for name in layers {
        if !seen.contains(&name) {
            seen.push(name);
        }
    }
    for name in seen {
        let bits = |o: &Outcome| {
            let of = o.bits.iter().filter(|(n, b)| n == name && b.is_finite());
            let all: Vec<String> = of.map(|(_, b)| b.to_string()).collect();
            if all.is_empty() {
                "-".into()
            } else {
                all.join("/")
            }
        };
        rows.push((format!("bits {name}"), all.iter().map(bits).collect()));
    }
    let widths: Vec<usize> = (0..all.len())
        .map(|i| {
            let cells = rows.iter().map(|(_, c)| c[i].width());
            cells.max().unwrap_or(0)
        })
        .collect();
    let first = rows.iter().map(|(n, _)| n.width()).max().unwrap_or(0);
    let mut out = String::new();
    for (name, cells) in rows {
        out += &padded(&name, first);
        for (cell, width) in cells.iter().zip(&widths) {
            out += &format!("  {}{cell}", " ".repeat(width - cell.width()));
        }
        out.push('\n');
    }
    out
}
