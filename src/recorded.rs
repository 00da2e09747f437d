//! Recorded runs on the command line: listed, followed, compared, taken apart.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::{Map, Value, json};

use crate::cli::{CliError, Output, print};
use crate::experiment::{difference, resolve_text};
use crate::headless::{interrupt_flag, printer};
use crate::run::{
    Event, Feed, LayerInfo, LogError, LogReader, Manifest, RunFolder, RunLock, StepRecord,
    TensorBoard, family,
};

/// Time between two looks at a log that grows.
const PAUSE: Duration = Duration::from_millis(100);

impl From<LogError> for CliError {
    fn from(error: LogError) -> Self {
        Self::Failed(error.to_string())
    }
}

/// Control characters as their symbols: names from files must not steer the terminal.
pub(crate) fn printable(text: &str) -> String {
    let plain = |c: char| match c {
        '\n' | '\t' => c,
        '\0'..='\x1f' => char::from_u32(0x2400 + c as u32).unwrap_or('\u{fffd}'),
        '\x7f'..='\u{9f}' => '\u{fffd}',
        other => other,
    };
    text.chars().map(plain).collect()
}

/// Recorded runs, a line each; a run is indented below the one that it was forked from.
pub(crate) fn table(runs: &[(RunFolder, Manifest)]) -> String {
    if runs.is_empty() {
        return "no runs yet\n".into();
    }
    let mut out = format!(
        "{:<40} {:<11} {:>8} {:>7} {:>7} {:>7} {:>9} {:>9}\n",
        "run", "status", "step", "epoch", "val %", "test %", "weight kB", "act kB"
    );
    let percent = |v: Option<f64>| v.map_or("-".to_owned(), |e| format!("{:.2}", e * 100.0));
    for (depth, at) in family(runs) {
        let (folder, m) = &runs[at];
        let indent = "  ".repeat(depth.saturating_sub(1));
        let branch = if depth > 0 { "└ " } else { "" };
        let name = printable(&format!("{indent}{branch}{}", folder.label()));
        out += &format!(
            "{name:<40} {:<11} {:>8} {:>7.2} {:>7} {:>7} {:>9.2} {:>9.2}",
            m.status.name(),
            m.step,
            m.epoch,
            percent(m.best_error),
            percent(m.test_error),
            m.weight_kb,
            m.activation_kb
        );
        if let Some(note) = &m.note {
            out += &format!("  {}", printable(note));
        }
        out.push('\n');
    }
    out
}

/// Runs as a JSON list.
pub(crate) fn list_json(runs: &[(RunFolder, Manifest)]) -> Result<String, CliError> {
    let all: Result<Vec<Value>, _> = runs
        .iter()
        .map(|(folder, manifest)| {
            let mut value = serde_json::to_value(manifest)?;
            value["run"] = folder.label().into();
            value["path"] = folder.path().display().to_string().into();
            value["status"] = manifest.status.name().into();
            Ok::<_, serde_json::Error>(value)
        })
        .collect();
    let all = all.map_err(|e| CliError::Failed(e.to_string()))?;
    Ok(format!("{}\n", Value::from(all)))
}

/// Changes what a person says of a run: its name or a note. A run that trains is its process's own.
pub(crate) fn change(
    folder: &RunFolder,
    change: impl FnOnce(&mut Manifest),
) -> Result<(), CliError> {
    let _lock = RunLock::take(folder.path()).map_err(|e| CliError::Usage(e.to_string()))?;
    let mut manifest = folder.manifest_or_rebuilt()?;
    change(&mut manifest);
    folder
        .write_manifest(&manifest)
        .map_err(|e| CliError::Failed(format!("{}: {e}", folder.path().display())))
}

/// Gives a run's folder another name.
pub(crate) fn rename(folder: &RunFolder, name: &str) -> Result<u8, CliError> {
    let bad = name.is_empty() || name.starts_with('.') || name.contains(['/', '\\', '\0']);
    if bad {
        return Err(CliError::Usage(format!(
            "`{}` is no name of a run; expected a plain file name",
            printable(name)
        )));
    }
    let target = folder.path().with_file_name(name);
    if target.exists() {
        return Err(CliError::Usage(format!("{} exists", target.display())));
    }
    let lock = RunLock::take(folder.path()).map_err(|e| CliError::Usage(e.to_string()))?;
    std::fs::rename(folder.path(), &target)
        .map_err(|e| CliError::Failed(format!("{}: {e}", target.display())))?;
    drop(lock);
    print(&format!("{}\n", target.display()))?;
    Ok(0)
}

/// Removes a run with everything in it.
pub(crate) fn delete(folder: &RunFolder, sure: bool) -> Result<u8, CliError> {
    let path = folder.path().display();
    if !sure {
        let manifest = folder.manifest_or_rebuilt()?;
        return Err(CliError::Usage(format!(
            "{path}: {} steps of a run would be gone for good; hint: `--yes` does it",
            manifest.step
        )));
    }
    let lock = RunLock::take(folder.path()).map_err(|e| CliError::Usage(e.to_string()))?;
    std::fs::remove_dir_all(folder.path()).map_err(|e| CliError::Failed(format!("{path}: {e}")))?;
    drop(lock);
    print(&format!("{path} is gone\n"))?;
    Ok(0)
}

/// Follows a run's log, in lines or JSON, until the run ends or nobody trains it any more.
pub(crate) fn watch(folder: &RunFolder, output: Output) -> Result<u8, CliError> {
    let interrupted = interrupt_flag()?;
    let mut printer = printer(folder.clone(), output);
    let mut stdout = std::io::stdout().lock();
    follow(folder, &interrupted, |event| {
        printer.print(&event, &mut stdout)?;
        stdout.flush()
    })?;
    Ok(0)
}

/// Hands every event of a log to `take`, old ones first, and new ones as they come.
fn follow(
    folder: &RunFolder,
    stop: &AtomicBool,
    mut take: impl FnMut(Event) -> std::io::Result<()>,
) -> Result<(), CliError> {
    let mut reader = LogReader::open(&folder.log())?;
    let mut over = false;
    loop {
        // Asked before reading: what was written before its owner went is read.
        let owned = RunLock::holder(folder.path()).is_some();
        for event in reader.by_ref() {
            over = event.is_last();
            take(event)?;
        }
        if (over && !owned) || stop.load(Ordering::Relaxed) {
            return Ok(());
        }
        if !owned {
            let step = 0;
            let message = "the run was interrupted: no process trains it; \
                           `bitscope resume` goes on with it"
                .into();
            take(Event::Warning { step, message })?;
            return Ok(());
        }
        std::thread::sleep(PAUSE);
    }
}

/// The same into the feed of a workbench, on a thread of its own that ends with the run or with
/// `stop`. It waits for the screen rather than drop an event: a log has time.
pub(crate) fn follow_into(folder: &RunFolder, feed: Feed, stop: Arc<AtomicBool>) {
    let folder = folder.clone();
    let work = move || {
        let taken = follow(&folder, &stop.clone(), |event| {
            while feed.is_half_full() && !stop.load(Ordering::Relaxed) {
                std::thread::sleep(Duration::from_millis(5));
            }
            feed.push(Arc::new(event));
            Ok(())
        });
        if let Err(error) = taken {
            let (step, message) = (0, error.to_string());
            feed.push(Arc::new(Event::Warning { step, message }));
        }
    };
    let thread = std::thread::Builder::new().name("follow".into());
    if let Err(error) = thread.spawn(work) {
        tracing::warn!("the log is not followed: {error}");
    }
}

/// What `bitscope log` is asked for.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Extract {
    /// Comma-separated values instead of one JSON object a line
    #[arg(long)]
    pub csv: bool,
    /// Only these columns, such as loss, weight_kb, conv1.bitwidth; repeatable
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    pub series: Vec<String>,
    /// Write TensorBoard event files to this folder instead
    #[arg(long, value_name = "DIR", conflicts_with_all = ["csv", "series"])]
    pub tensorboard: Option<PathBuf>,
    /// First step
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub from: u64,
    /// Last step
    #[arg(long, value_name = "N", default_value_t = u64::MAX)]
    pub to: u64,
}

/// Every recorded step, not buckets of them. Of steps that were taken twice, before a resume and after
/// it, both stand there: the log is what happened.
pub(crate) fn log(folder: &RunFolder, wanted: &Extract) -> Result<u8, CliError> {
    let mut reader = LogReader::open(&folder.log())?;
    if let Some(target) = &wanted.tensorboard {
        return tensorboard(folder, reader, target, wanted);
    }
    let mut stdout = std::io::BufWriter::new(std::io::stdout().lock());
    let mut layers = Vec::new();
    let mut header: Option<Vec<String>> = None;
    for event in reader.by_ref() {
        match &event {
            Event::Started { layers: of, .. } => layers.clone_from(of),
            Event::Step(record) if (wanted.from..=wanted.to).contains(&record.step) => {
                let row = record.flat(&layers);
                let columns = match &header {
                    Some(columns) => columns,
                    None => {
                        let columns = columns(&row, &layers, &wanted.series)?;
                        if wanted.csv {
                            writeln!(stdout, "{}", columns.join(","))?;
                        }
                        header.insert(columns)
                    }
                };
                write_row(&mut stdout, &row, columns, wanted.csv)?;
            }
            _ => {}
        }
    }
    stdout.flush()?;
    for damage in reader.damages() {
        let text = format!("warning: {}: {damage}\n", folder.log().display());
        // The rows that are there were asked for; that some are missing is worth saying.
        let _ = std::io::stderr().write_all(text.as_bytes());
    }
    Ok(0)
}

fn tensorboard(
    folder: &RunFolder,
    reader: LogReader,
    target: &Path,
    wanted: &Extract,
) -> Result<u8, CliError> {
    let failed = |e: std::io::Error| CliError::Failed(format!("{}: {e}", target.display()));
    let began = folder.manifest_or_rebuilt()?.started_unix as f64;
    let mut board = TensorBoard::create(target, began).map_err(failed)?;
    for event in reader {
        let inside = (wanted.from..=wanted.to).contains(&event.step());
        if inside || matches!(event, Event::Started { .. }) {
            board.take(&event).map_err(failed)?;
        }
    }
    board.flush().map_err(failed)?;
    print(&format!("written to {}\n", target.display()))?;
    Ok(0)
}

fn write_row(
    out: &mut impl Write,
    row: &Map<String, Value>,
    columns: &[String],
    csv: bool,
) -> std::io::Result<()> {
    if csv {
        let cells = columns.iter().map(|c| match row.get(c) {
            None | Some(Value::Null) => String::new(),
            Some(value) => value.to_string(),
        });
        return writeln!(out, "{}", cells.collect::<Vec<_>>().join(","));
    }
    let kept: Map<String, Value> = columns
        .iter()
        .filter_map(|c| Some((c.clone(), row.get(c)?.clone())))
        .collect();
    writeln!(out, "{}", Value::Object(kept))
}

/// The columns that were asked for, `step` first; all where none was.
fn columns(
    row: &Map<String, Value>,
    layers: &[LayerInfo],
    wanted: &[String],
) -> Result<Vec<String>, CliError> {
    let mut all: Vec<String> = row.keys().cloned().collect();
    // A first record without layers (their cadence) still has their columns.
    let known = StepRecord {
        layers: Some(vec![Default::default(); layers.len()]),
        ..StepRecord::default()
    };
    for name in known.flat(layers).keys() {
        if !all.contains(name) {
            all.push(name.clone());
        }
    }
    all.retain(|c| c != "step");
    all.insert(0, "step".into());
    if wanted.is_empty() {
        return Ok(all);
    }
    if let Some(unknown) = wanted.iter().find(|w| !all.contains(w)) {
        let near = all
            .iter()
            .min_by_key(|c| strsim::damerau_levenshtein(c, unknown));
        let near = near.map_or(String::new(), |n| format!("; did you mean `{n}`?"));
        return Err(CliError::Usage(format!(
            "no series `{}` in this run{near}",
            printable(unknown)
        )));
    }
    let mut columns = vec!["step".to_owned()];
    columns.extend(wanted.iter().filter(|w| *w != "step").cloned());
    Ok(columns)
}

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
        let text = std::fs::read_to_string(folder.experiment());
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
        let mut at_best = None;
        for event in LogReader::open(&folder.log())? {
            match event {
                Event::Started { layers: of, .. } => layers = of,
                Event::Step(record) => {
                    paces.push(record.samples_per_s);
                    if record.layers.is_some() {
                        probed.clone_from(&record.layers);
                    }
                    out.last = Some(*record);
                }
                Event::Evaluation {
                    split: crate::run::Split::Test,
                    error,
                    ..
                } => out.test = Some(error),
                Event::Evaluation {
                    error,
                    budget_met: true,
                    ..
                } => {
                    let better = out.best.as_ref().is_none_or(|(best, _)| error < *best);
                    if let (true, Some(last)) = (better, &out.last) {
                        out.best = Some((error, last.clone()));
                        at_best.clone_from(&probed);
                    }
                }
                _ => {}
            }
        }
        let records = at_best.or(probed).unwrap_or_default();
        out.bits = layers
            .iter()
            .zip(records)
            .map(|(info, record)| (info.name.clone(), record.bitwidth))
            .collect();
        paces.sort_by(f64::total_cmp);
        out.samples_per_s = paces.get(paces.len() / 2).copied();
        Ok(out)
    }

    fn kilobytes(&self) -> Option<(f64, f64)> {
        let at = self.best.as_ref().map(|(_, r)| r).or(self.last.as_ref())?;
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
            rows.iter()
                .map(|(_, c)| c[i].chars().count())
                .max()
                .unwrap_or(0)
        })
        .collect();
    let first = rows
        .iter()
        .map(|(n, _)| n.chars().count())
        .max()
        .unwrap_or(0);
    let mut out = String::new();
    for (name, cells) in rows {
        out += &format!("{name:<first$}");
        for (cell, width) in cells.iter().zip(&widths) {
            out += &format!("  {cell:>width$}");
        }
        out.push('\n');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_cannot_steer_the_terminal() {
        assert_eq!(printable("a\x1b[2Jb\u{9b}c\n"), "a␛[2Jb\u{fffd}c\n");
    }
}
