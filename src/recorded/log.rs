//! Every recorded step of a run: JSON, CSV, TensorBoard.

use std::io::Write;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use crate::experiment::printable;
use crate::face::{CliError, print};
use crate::run::{Event, LayerInfo, LogReader, RunFolder, StepRecord, TensorBoard};

/// What `bitscope log` is asked for.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Extract {
    /// One JSON object per step (the default)
    #[arg(long, conflicts_with = "csv")]
    json: bool,
    /// Comma-separated values instead of one JSON object per line
    #[arg(long)]
    pub csv: bool,
    /// Only these columns, such as loss, weight_kb, conv1.bitwidth; repeatable
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    pub series: Vec<String>,
    /// Write TensorBoard event files to this folder instead
    #[arg(long, value_name = "DIR", conflicts_with_all = ["json", "csv", "series"])]
    pub tensorboard: Option<PathBuf>,
    /// First step
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub from: u64,
    /// Last step (default: the last there is)
    #[arg(long, value_name = "N", default_value_t = u64::MAX, hide_default_value = true)]
    pub to: u64,
}

/// Every recorded step, not buckets of them. Of steps that were taken twice, before a resume and after
/// it, both stand there: the log is what happened.
pub(crate) fn log(folder: &RunFolder, wanted: &Extract) -> Result<u8, CliError> {
    if wanted.from > wanted.to {
        let (from, to) = (wanted.from, wanted.to);
        return Err(CliError::Usage(format!(
            "--from {from} --to {to}: an empty range; expected --from at most --to"
        )));
    }
    let mut reader = LogReader::open(&folder.log())?;
    if let Some(target) = &wanted.tensorboard {
        return tensorboard(folder, reader, target, wanted);
    }
    let mut stdout = std::io::BufWriter::new(std::io::stdout().lock());
    let mut layers = Vec::new();
    let mut header: Option<Vec<String>> = None;
    let mut newest = 0;
    for event in reader.by_ref() {
        event.describe(&mut layers);
        match &event {
            Event::Step(record) if record.step < wanted.from => newest = record.step,
            Event::Step(record) if (wanted.from..=wanted.to).contains(&record.step) => {
                let row = record.flat(&layers);
                let columns = match &header {
                    Some(columns) => columns,
                    None => {
                        let columns = columns(&row, &layers, &wanted.series)?;
                        if wanted.csv {
                            let names: Vec<String> = columns.iter().map(|c| field(c)).collect();
                            writeln!(stdout, "{}", names.join(","))?;
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
    if header.is_none() && wanted.from > 0 {
        let from = wanted.from;
        // No row is an answer too; why there is none is worth saying.
        let _ = writeln!(
            std::io::stderr(),
            "warning: no step from {from} on: the newest that is recorded is {newest}"
        );
    }
    for damage in reader.damages() {
        let text = format!("warning: {}: {damage}\n", folder.log().display());
        // The rows that are there were asked for; that some are missing is worth saying.
        let _ = std::io::stderr().write_all(text.as_bytes());
    }
    Ok(0)
}

/// A name as a field of comma-separated values.
fn field(name: &str) -> String {
    match name.contains([',', '"', '\n', '\r']) {
        true => format!("\"{}\"", name.replace('"', "\"\"")),
        false => name.to_owned(),
    }
}

fn tensorboard(
    folder: &RunFolder,
    reader: LogReader,
    target: &Path,
    wanted: &Extract,
) -> Result<u8, CliError> {
    let failed = |e: std::io::Error| CliError::Failed(format!("{}: {e}", target.display()));
    let began = folder.manifest_or_rebuilt()?.started_unix as f64;
    let taken = std::fs::read_dir(target).into_iter().flatten().flatten();
    let is_board = |e: std::fs::DirEntry| e.file_name().to_string_lossy().contains("tfevents");
    if taken.into_iter().any(is_board) {
        let target = target.display();
        return Err(CliError::Usage(format!(
            "{target} already holds event files, and steps would appear twice; expected another folder"
        )));
    }
    let mut board = TensorBoard::create(target, began).map_err(failed)?;
    for event in reader {
        let inside = (wanted.from..=wanted.to).contains(&event.step());
        if inside || matches!(event, Event::Started { .. } | Event::Quantizers { .. }) {
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
