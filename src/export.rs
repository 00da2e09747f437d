//! `bitscope export`: a run's network for other programs.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::{Args, ValueEnum};

use crate::dataset::{Normalisation, Pixels};
use crate::experiment::{DataSource, Experiment};
use crate::face::checkpoint::{Checkpoint, Which};
use crate::face::{CliError, print};
use crate::integers::onnx::{self, Dialect, Input, NormForm, Rounding};
use crate::integers::{self, ExportError, Program, weights};
use crate::network::{Mode, Snapshot, read_tensor};
use crate::quantizer::{Family, Grid};
use crate::run::{RunFolder, write_whole};
use crate::verify::{Deployed, test_part};

/// What a network can be written as.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// Packed codes, exponents and thresholds in a safetensors file; `predict` takes it
    Integers,
    /// ONNX in standard operations, equal to training by construction
    Onnx,
    /// ONNX with QONNX's `Quant` nodes
    Qonnx,
    /// One C99 file and its header, integers only
    C,
    /// Float and fake-quantized weights with step sizes, ranges and bits, by name
    Safetensors,
}

impl Format {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::Integers,
        Self::Onnx,
        Self::Qonnx,
        Self::C,
        Self::Safetensors,
    ];

    /// As the command line calls it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Integers => "integers",
            Self::Onnx => "onnx",
            Self::Qonnx => "qonnx",
            Self::C => "c",
            Self::Safetensors => "safetensors",
        }
    }

    /// What it is, in a few words.
    pub fn help(self) -> &'static str {
        match self {
            Self::Integers => "packed codes and thresholds, which `predict` takes",
            Self::Onnx => "ONNX in standard operations",
            Self::Qonnx => "ONNX with `Quant` nodes",
            Self::C => "one C99 file and its header, integers only",
            Self::Safetensors => "weights, float and quantized, with d, q_max and bits",
        }
    }

    /// How a file of it ends.
    pub fn ending(self) -> &'static str {
        match self {
            Self::Integers => "integers.safetensors",
            Self::Onnx => "onnx",
            Self::Qonnx => "qonnx.onnx",
            Self::C => "c",
            Self::Safetensors => "safetensors",
        }
    }
}

/// Options of `bitscope export`.
#[derive(Debug, Args, Clone)]
pub(crate) struct Export {
    /// Run folder, or its name under the runs folder
    pub run: PathBuf,
    #[command(flatten)]
    pub checkpoint: Checkpoint,
    /// What to write
    #[arg(long, value_enum)]
    pub format: Format,
    /// File to write; `c` writes a header beside it
    #[arg(short, long, value_name = "FILE")]
    pub output: PathBuf,
    #[command(flatten)]
    pub form: Form,
    /// Override a key of the experiment, such as data.path where the data moved; repeatable
    #[arg(long = "set", value_name = "KEY.PATH=VALUE")]
    pub set: Vec<String>,
    /// Where runs are recorded
    #[arg(long, value_name = "DIR", default_value = "runs")]
    pub runs: PathBuf,
}

/// How ONNX files are written.
#[derive(Debug, Args, Clone, Copy, Default)]
pub(crate) struct Form {
    /// Batch norm in ONNX: `exact` by default, `kept` in QONNX
    #[arg(long, value_enum)]
    pub norm: Option<NormForm>,
    /// Ties in QONNX: `half-away` by default, as in training
    #[arg(long, value_enum)]
    pub rounding: Option<Rounding>,
    /// What ONNX and QONNX files take where the network's input is quantized: `bytes` by default
    #[arg(long, value_enum)]
    pub input: Option<Input>,
}

fn unwritable(error: ExportError) -> CliError {
    CliError::Usage(error.to_string())
}

/// Runs it.
pub(crate) fn command(
    folder: &RunFolder,
    experiment: &Arc<Experiment>,
    export: &Export,
) -> Result<u8, CliError> {
    let done = write(
        folder,
        experiment,
        export.checkpoint.which.unwrap_or(Which::Best),
        export.format,
        export.form,
        &export.output,
    )?;
    print(&format!("{done}\n"))?;
    Ok(0)
}

/// Writes the best checkpoint's network into the run's folder, under `exports`.
pub(crate) fn beside_run(folder: &RunFolder, format: Format) -> Result<String, CliError> {
    let experiment = crate::face::load_recorded(folder, &Vec::new())?.experiment;
    let exports = folder.path().join("exports");
    std::fs::create_dir_all(&exports)
        .map_err(|e| CliError::Failed(format!("{}: {e}", exports.display())))?;
    let name = integers::c::identifier(&experiment.name);
    let output = exports.join(format!("{name}.{}", format.ending()));
    write(
        folder,
        &experiment,
        Which::Best,
        format,
        Form::default(),
        &output,
    )
}

/// Writes a run's network; returns what there is to say of the file.
pub(crate) fn write(
    folder: &RunFolder,
    experiment: &Arc<Experiment>,
    which: Which,
    format: Format,
    form: Form,
    output: &Path,
) -> Result<String, CliError> {
    if form.rounding.is_some() && format != Format::Qonnx {
        return Err(CliError::Usage(format!(
            "--rounding: `{}` rounds as training does; hint: `--format qonnx` has another way",
            format.name()
        )));
    }
    let is_onnx = matches!(format, Format::Onnx | Format::Qonnx);
    if form.input.is_some() && !is_onnx {
        return Err(CliError::Usage(format!(
            "--input has no effect on `{}`; hint: it is for `onnx` and `qonnx`",
            format.name()
        )));
    }
    if form.norm.is_some() && !is_onnx {
        return Err(CliError::Usage(format!(
            "--norm has no effect on `{}`; hint: it is for `onnx` and `qonnx`",
            format.name()
        )));
    }
    writable(output)?;
    let mut deployed = Deployed::open(folder, experiment, which)?;
    let snapshot = deployed.network.snapshot();
    let normalisation = Normalisation::new(&deployed.experiment.normalise);
    let mut notes = vec![format!("from {}", deployed.checkpoint.display())];
    notes.extend(deployed.notes.clone());
    let program = Program::of(&snapshot, &normalisation);
    let has_bytes = program.steps[0].is_float() || pictures_are_bytes(&deployed)?;
    let wants_bytes = match format {
        Format::Integers | Format::C => true,
        Format::Onnx | Format::Qonnx => form.input == Some(Input::Bytes),
        Format::Safetensors => false,
    };
    if wants_bytes && !has_bytes {
        return Err(CliError::Usage(format!(
            "the data's pictures are floats, but `{}` would take bytes; hint: `--format onnx` takes numbers \
             (`--input numbers`)",
            format.name()
        )));
    }
    let rounding = program.steps.iter().filter(|s| s.rounds_in_f32()).count();
    if is_onnx && rounding > 0 {
        notes.push(format!(
            "sums of {rounding} layers can reach 2^24, where f32 rounds them, each program in its own order: \
             `integers` and `c` add exactly"
        ));
    }
    let mut files: Vec<(PathBuf, Vec<u8>)> = Vec::new();
    let takes = form.input.unwrap_or(if has_bytes {
        Input::Bytes
    } else {
        Input::Numbers
    });
    match format {
        Format::Integers => {
            let bytes = integers::file::to_bytes(&program).map_err(unwritable)?;
            notes.push(payload(&snapshot, program.payload()));
            files.push((output.to_owned(), bytes));
        }
        Format::C => {
            let stem = output.file_stem().map(|s| s.to_string_lossy().into_owned());
            let stem = stem.unwrap_or_else(|| "network".into());
            let header = output.with_extension("h");
            if header == output {
                return Err(CliError::Usage(format!(
                    "{}: that is the header's name; expected a file that ends in .c",
                    output.display()
                )));
            }
            let named = header.file_name().map(|n| n.to_string_lossy().into_owned());
            let is_plain =
                |name: &String| !name.contains(['"', '\\', '\n', '\r']) && name != "stdint.h";
            if !named.as_ref().is_some_and(is_plain) {
                return Err(CliError::Usage(format!(
                    "{}: C cannot include a header of that name; expected another name",
                    output.display()
                )));
            }
            writable(&header)?;
            let source = integers::c::source(&program, &stem, &named.unwrap_or_default())
                .map_err(unwritable)?;
            notes.push(format!(
                "flash: {} bytes of packed weights, {} of biases, thresholds and tables, and code; RAM: {} bytes",
                source.weights, source.tables, source.memory
            ));
            files.push((output.to_owned(), source.code.into_bytes()));
            files.push((header, source.header.into_bytes()));
        }
        Format::Onnx => {
            let norm = form.norm.unwrap_or(NormForm::Exact);
            let bytes = onnx::to_bytes(&snapshot, &normalisation, Dialect::Standard, norm, takes);
            files.push((output.to_owned(), bytes.map_err(unwritable)?));
        }
        Format::Qonnx => {
            let norm = form.norm.unwrap_or(NormForm::Kept);
            let rounding = form.rounding.unwrap_or(Rounding::HalfAway);
            let bytes = onnx::to_bytes(
                &snapshot,
                &normalisation,
                Dialect::Qonnx(rounding),
                norm,
                takes,
            );
            files.push((output.to_owned(), bytes.map_err(unwritable)?));
            if rounding == Rounding::HalfEven {
                notes.push(ties(&mut deployed)?);
            }
        }
        Format::Safetensors => {
            let bytes = weights::to_bytes(&snapshot).map_err(unwritable)?;
            files.push((output.to_owned(), bytes));
        }
    }
    for (path, bytes) in &files {
        write_whole(path, bytes)
            .map_err(|e| CliError::Failed(format!("{}: {e}", path.display())))?;
    }
    let sizes: Vec<String> = files
        .iter()
        .map(|(path, bytes)| format!("{}: {} bytes", path.display(), bytes.len()))
        .collect();
    Ok([sizes, notes].concat().join("\n"))
}

/// Whether a file can be put there: over another file, or in a folder that is there.
fn writable(path: &Path) -> Result<(), CliError> {
    let wrong = |what: &str| CliError::Usage(format!("{}: {what}", path.display()));
    match std::fs::symlink_metadata(path) {
        Ok(at) if at.is_file() => return Ok(()),
        Ok(at) if at.is_dir() => return Err(wrong("that is a folder; expected a file")),
        Ok(at) if at.is_symlink() => {
            return Err(wrong(
                "that is a symbolic link, which the file would replace; expected a regular file",
            ));
        }
        Ok(_) => return Err(wrong("that is not a regular file; expected a file")),
        Err(_) => {}
    }
    if path.file_name().is_none() || path.as_os_str().to_string_lossy().ends_with('/') {
        return Err(wrong("that is a folder; expected a file"));
    }
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty());
    match folder {
        Some(folder) if !folder.is_dir() => Err(wrong(&format!(
            "there is no folder {}; hint: make it first",
            folder.display()
        ))),
        _ => Ok(()),
    }
}

/// Whether the pictures of a run's data are bytes, which exported networks take where the input is
/// quantized. (Tensors may hold numbers.)
fn pictures_are_bytes(deployed: &Deployed) -> Result<bool, CliError> {
    if !matches!(deployed.experiment.data, DataSource::Tensors(_)) {
        return Ok(true);
    }
    let splits = crate::dataset::open(&deployed.experiment);
    let splits = splits.map_err(|e| CliError::Failed(e.to_string()))?;
    let first = splits.train.sample(0, None);
    let first = first.map_err(|e| CliError::Failed(e.to_string()))?;
    Ok(!matches!(first, Some((Pixels::Values(_), _))))
}

/// Bytes of packed weights, beside what the screen says of them.
fn payload(snapshot: &Snapshot, bytes: usize) -> String {
    let kilobytes = crate::quantizer::memory::Usage::of(&snapshot.stored, &[]).weights;
    let exact = kilobytes * 1024.0;
    let padding = bytes as f64 - exact;
    format!(
        "weights: {bytes} bytes packed, {kilobytes:.2} kB on the screen and {padding} bytes that round \
         tensors up to whole bytes"
    )
}

/// How many values of the test part half-to-even rounding takes to another level.
fn ties(deployed: &mut Deployed) -> Result<String, CliError> {
    let (data, part) = test_part(&deployed.experiment)?;
    let grids: Vec<Grid> = deployed.network.slots.iter().map(|s| s.grid()).collect();
    let (mut values, mut differ, mut pictures) = (0u64, 0u64, 0);
    deployed.over(data, usize::MAX, |network, images, batch| {
        pictures += batch.labels.len();
        network.quantizer_inputs(images, Mode::Evaluate, |slot, input| {
            let all = read_tensor(input.clone());
            values += all.len() as u64;
            differ += all.iter().filter(|x| is_tie(&grids[slot], **x)).count() as u64;
        });
        Ok(())
    })?;
    Ok(format!(
        "half to even: {differ} of {values} values that are quantized lie on ties and differ, over {pictures} \
         pictures of the {part} part"
    ))
}

/// Whether half-to-even gives another level.
fn is_tie(grid: &Grid, x: f32) -> bool {
    let steps = x.clamp(grid.low(), grid.q_max) / grid.step;
    grid.family == Family::Uniform && steps.round() != steps.round_ties_even()
}
