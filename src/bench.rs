//! `bitscope bench`: seconds per training step, and milliseconds per frame of the screen.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use clap::Args;
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};

use crate::dataset::{Dataset, Loader, LoaderSettings, Normalisation, Splits};
use crate::device::Engine;
use crate::experiment::{Experiment, load_embedded};
use crate::face::{CliError, print};
use crate::run::{Event, LogWriter, RunFolder, StepRecord, Times};
use crate::training::Trainer;

/// What is measured.
#[derive(Debug, Args, Clone)]
pub(crate) struct Bench {
    /// Engine and device, as `bitscope devices` lists them
    #[arg(long, default_value = "auto")]
    engine: String,
    /// Quantizer of weights and activations: none, u1, u2, u3, p1, p2 or p3
    #[arg(long, default_value = "u3")]
    quantizer: String,
    /// Network
    #[arg(long, default_value = "resnet20")]
    model: String,
    /// Height and width of a picture; larger than 32 for the ImageNet networks
    #[arg(long, default_value_t = 32, value_parser = clap::value_parser!(u32).range(1..=4096))]
    size: u32,
    /// Number of classes
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(2..=65535))]
    classes: u32,
    /// Samples per step
    #[arg(long, default_value_t = 128)]
    batch: usize,
    /// Steps that are timed
    #[arg(long, default_value_t = 12, value_parser = clap::value_parser!(u32).range(1..))]
    steps: u32,
    /// Warm-up steps
    #[arg(long, default_value_t = 3)]
    warmup: u32,
    /// Time the frames of every page instead: 40 layers, a million steps, 200x60 cells
    #[arg(long)]
    frames: bool,
    /// Time opening a run of a million steps instead
    #[arg(long, conflicts_with = "frames")]
    open: bool,
    /// Compare steps that are recorded in full with steps that are not, alternating, instead
    #[arg(long, conflicts_with_all = ["frames", "open"])]
    recording: bool,
    /// Time how fast the loader prepares the batches of an experiment instead
    #[arg(long, value_name = "EXPERIMENT", conflicts_with_all = ["frames", "open", "recording"])]
    loader: Option<PathBuf>,
    /// One JSON object instead of lines
    #[arg(long)]
    json: bool,
}

/// Runs the benchmark.
pub(crate) fn command(bench: &Bench) -> Result<u8, CliError> {
    let result = if bench.frames {
        crate::tui::bench_frames()
    } else if bench.open {
        crate::tui::bench_open().map_err(|e| CliError::Failed(e.to_string()))?
    } else if let Some(experiment) = &bench.loader {
        loader(bench, experiment)?
    } else if bench.recording {
        recording(bench)?
    } else {
        steps(bench)?
    };
    if bench.json {
        print(&format!("{result}\n"))?;
    } else {
        let text: String = flat("", &result)
            .into_iter()
            .map(|(name, value)| format!("{name:<28} {value}\n"))
            .collect();
        print(&text)?;
    }
    Ok(0)
}

/// Nested objects as dotted names.
fn flat(prefix: &str, value: &Value) -> Vec<(String, String)> {
    match value {
        Value::Object(fields) => fields
            .iter()
            .flat_map(|(name, value)| {
                let dot = if prefix.is_empty() { "" } else { "." };
                flat(&format!("{prefix}{dot}{name}"), value)
            })
            .collect(),
        other => vec![(prefix.to_owned(), other.to_string())],
    }
}

/// Whole training steps as a run takes them: loader with crop and flip, forward, backward,
/// telemetry of every layer, update. On a GPU the phases' shares come from further steps, in which
/// each phase is waited for.
fn steps(bench: &Bench) -> Result<Value, CliError> {
    let (mut trainer, engine) = warm(bench)?;
    let mut records = take_steps(&mut trainer, bench.steps);
    let loss = records.last().map(|r| r.loss);
    let mut seconds: Vec<f64> = records.iter().map(|r| r.times.total().into()).collect();
    let median = median(&mut seconds);
    if engine.is_card() {
        trainer.wait_for_phases();
        records = take_steps(&mut trainer, bench.steps);
    }
    let total: f64 = records.iter().map(|r| f64::from(r.times.total())).sum();
    let share = |of: fn(&Times) -> f32| {
        let sum: f64 = records.iter().map(|r| f64::from(of(&r.times))).sum();
        sum / total
    };
    Ok(json!({
        "engine": engine.to_string(),
        "kernels": format!("{:?}", crate::kernels::Simd::current()).to_lowercase(),
        "operations": crate::device::operations(engine),
        "quantizer": bench.quantizer,
        "model": bench.model,
        "size": bench.size,
        "classes": bench.classes,
        "batch": bench.batch,
        "loss": loss,
        "median_s": median,
        "min_s": seconds[0],
        "max_s": seconds[seconds.len() - 1],
        "samples_per_s": bench.batch as f64 / median,
        "shares": {
            "data": share(|t| t.data),
            "forward": share(|t| t.forward),
            "backward": share(|t| t.backward),
            "update": share(|t| t.update),
            "telemetry": share(|t| t.telemetry),
        },
        "peak_resident_mb": crate::process::resident().map(|(_, peak)| peak),
    }))
}

/// A trainer that has taken the steps before those that count.
fn warm(bench: &Bench) -> Result<(Trainer, Engine), CliError> {
    let experiment = experiment(bench)?;
    let failed = |e: &dyn std::fmt::Display| CliError::Failed(e.to_string());
    let engine =
        crate::device::parse(&experiment.device).map_err(|e| CliError::Usage(e.to_string()))?;
    let device = crate::device::burn_device(engine);
    let splits = if (bench.size, bench.classes) == (32, 10) {
        crate::dataset::open(&experiment).map_err(|e| failed(&e))?
    } else {
        noise(bench)
    };
    let mut trainer = Trainer::new(experiment, splits, device).map_err(|e| failed(&e))?;
    if engine.is_card() {
        trainer.take_ahead();
    }
    take_steps(&mut trainer, bench.warmup);
    Ok((trainer, engine))
}

/// Sorts them.
fn median(seconds: &mut [f64]) -> f64 {
    seconds.sort_by(f64::total_cmp);
    seconds[seconds.len() / 2]
}

/// What recording costs: of each pair of steps one measures every layer and goes to a log, the
/// other one does neither.
fn recording(bench: &Bench) -> Result<Value, CliError> {
    let (mut trainer, engine) = warm(bench)?;
    let failed = |e: &dyn std::fmt::Display| CliError::Failed(e.to_string());
    let root = std::env::temp_dir().join(format!("bitscope-bench-{}", std::process::id()));
    let folder = RunFolder::create(&root, "recording").map_err(|e| failed(&e))?;
    let writer = LogWriter::open(&folder.log()).map_err(|e| failed(&e))?;
    let mut seconds = [Vec::new(), Vec::new()];
    for turn in 0..2 * bench.steps {
        // In pairs whose order changes: neither kind always comes first.
        let recorded = matches!(turn % 4, 0 | 3);
        let start = Instant::now();
        let record = trainer.step(recorded);
        if recorded {
            writer.push(Arc::new(Event::Step(Box::new(record))));
        }
        seconds[usize::from(recorded)].push(start.elapsed().as_secs_f64());
    }
    drop(writer);
    std::fs::remove_dir_all(&root).map_err(|e| failed(&e))?;
    let [bare, recorded] = seconds.map(|mut s| median(&mut s));
    Ok(json!({
        "engine": engine.to_string(),
        "model": bench.model,
        "batch": bench.batch,
        "pairs": bench.steps,
        "bare_s": bare,
        "recorded_s": recorded,
        "speed_kept": bare / recorded,
    }))
}

/// Pictures per second from storage to batch, without anything that trains on them. Of the batches
/// timed none was prepared before.
fn loader(bench: &Bench, experiment: &Path) -> Result<Value, CliError> {
    let loaded = crate::experiment::load(experiment, &Vec::new())?;
    let experiment = loaded.experiment;
    let listing = Instant::now();
    let splits = crate::dataset::open(&experiment).map_err(|e| CliError::Failed(e.to_string()))?;
    let listed_s = listing.elapsed().as_secs_f64();
    let listed_mb = crate::process::resident().map(|(now, _)| now);
    let pictures = splits.train.len();
    let settings = LoaderSettings::of(&experiment, &splits);
    let start = Instant::now();
    let mut loader = Loader::start(splits.train, settings, 0);
    let mut taken = 0;
    for _ in 0..bench.steps {
        taken += loader.next_batch().labels.len();
    }
    let seconds = start.elapsed().as_secs_f64();
    Ok(json!({
        "pictures": pictures,
        "threads": settings.threads,
        "open_s": listed_s,
        "open_resident_mb": listed_mb,
        "taken": taken,
        "pictures_per_s": taken as f64 / seconds,
        "peak_resident_mb": crate::process::resident().map(|(_, peak)| peak),
    }))
}

/// Two batches of noise in the extent that is asked for.
fn noise(bench: &Bench) -> Splits {
    let mut rng = rand_pcg::Pcg64Mcg::seed_from_u64(1);
    let (count, size) = (2 * bench.batch, bench.size as usize);
    let mut images = vec![0; count * 3 * size * size];
    rng.fill(&mut images[..]);
    let classes = bench.classes as usize;
    let train = Dataset {
        images,
        labels: (0..count)
            .map(|_| rng.random_range(0..classes) as u16)
            .collect(),
        shape: [3, size, size],
        classes,
        normalisation: Normalisation::symmetric(),
    };
    Splits {
        train: Arc::new(train),
        validation: None,
        test: None,
        prescribed_batch: None,
        notes: Vec::new(),
        holding: Vec::new(),
    }
}

fn take_steps(trainer: &mut Trainer, count: u32) -> Vec<StepRecord> {
    (0..count).map(|_| trainer.step(true)).collect()
}

fn experiment(bench: &Bench) -> Result<std::sync::Arc<Experiment>, CliError> {
    let settings = [
        ("device", format!("\"{}\"", bench.engine)),
        ("model.name", format!("\"{}\"", bench.model)),
        ("data.samples", (4 * bench.batch).max(1024).to_string()),
        ("data.augment", "\"crop-flip\"".into()),
        ("train.batch", bench.batch.to_string()),
        ("weights.quantizer", format!("\"{}\"", bench.quantizer)),
        ("activations.quantizer", format!("\"{}\"", bench.quantizer)),
        ("optimizer.lr", "0.01".into()),
    ];
    let set: Vec<String> = settings
        .iter()
        .map(|(key, value)| format!("{key}={value}"))
        .collect();
    Ok(load_embedded("bench", "", &set)?.experiment)
}
