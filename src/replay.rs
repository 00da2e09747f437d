//! `bitscope replay`: a recorded run once more, with every change at the step where it was made, held
//! against what was recorded.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use crate::experiment::{Experiment, resolve_text};
use crate::face::{CliError, print};
use crate::run::{Event, LogReader, Parent, Phase, RunFolder, Split};
use crate::training::{Checkpoint, Origin, TrainError, Trainer};

/// What a log says of how a run went.
#[derive(Default)]
struct Script {
    /// The experiment it began with.
    experiment: String,
    parent: Option<Parent>,
    /// Changes of the experiment by the step they came after.
    applied: BTreeMap<u64, Vec<String>>,
    /// Layers whose quantizers were initialised anew because someone asked.
    reinitialised: BTreeMap<u64, Vec<String>>,
    /// Losses by step; of steps taken twice the later.
    losses: BTreeMap<u64, f64>,
    /// Validation errors by step and phase, in their order: where the quantizers come into use, a step
    /// is evaluated before and after that.
    errors: BTreeMap<(u64, bool), Vec<f64>>,
    /// Whether the quantizers are in use, as far as it was read.
    quantized: bool,
}

impl Script {
    fn read(folder: &RunFolder) -> Result<Self, CliError> {
        let mut script = Self::default();
        let mut reader = LogReader::open(&folder.log())?;
        for event in reader.by_ref() {
            script.take(event);
        }
        if let Some(damage) = reader.damages().first() {
            let path = folder.log();
            return Err(CliError::Failed(format!(
                "{}: {damage}; a replay needs the whole log",
                path.display()
            )));
        }
        Ok(script)
    }

    /// The newest experiment so far.
    fn in_force(&self) -> &String {
        let applied = self.applied.values().flatten().next_back();
        applied.unwrap_or(&self.experiment)
    }

    fn take(&mut self, event: Event) {
        match event {
            Event::Started {
                step,
                experiment,
                parent,
                ..
            } => {
                // Resumed at a checkpoint: what came after it is taken again.
                self.losses.split_off(&(step + 1));
                self.errors.split_off(&(step + 1, false));
                self.applied.split_off(&(step + 1));
                self.reinitialised.split_off(&(step + 1));
                if self.experiment.is_empty() {
                    (self.experiment, self.parent) = (experiment, parent);
                } else if *self.in_force() != experiment {
                    // A change of behind the checkpoint holds from here on.
                    self.applied.entry(step).or_default().push(experiment);
                }
            }
            Event::Applied {
                step, experiment, ..
            } => self.applied.entry(step).or_default().push(experiment),
            Event::Reinitialised {
                step,
                layer,
                reason,
                ..
            } if reason == crate::training::ASKED => {
                let layers = self.reinitialised.entry(step).or_default();
                if !layers.contains(&layer) {
                    layers.push(layer);
                }
            }
            Event::Step(record) => drop(self.losses.insert(record.step, record.loss)),
            Event::Evaluation {
                step,
                split: Split::Validation,
                error,
                ..
            } => {
                let errors = self.errors.entry((step, self.quantized));
                errors.or_default().push(error);
            }
            Event::Phase { phase, .. } => self.quantized = phase == Phase::Quantized,
            _ => {}
        }
    }
}

/// What was held against the record.
#[derive(Default)]
struct Compared {
    numbers: u64,
    /// The first difference.
    first: Option<String>,
}

impl Compared {
    fn numbers(&mut self, what: String, now: f64, recorded: f64) {
        self.numbers += 1;
        if now.to_bits() != recorded.to_bits() && !(now.is_nan() && recorded.is_nan()) {
            self.first
                .get_or_insert_with(|| format!("{what} {now} instead of {recorded}"));
        }
    }

    /// Evaluates as often as was recorded here: running statistics may be computed anew for that.
    fn evaluations(&mut self, trainer: &mut Trainer, script: &Script) {
        let step = trainer.steps();
        let here = (step, trainer.phase() == Phase::Quantized);
        for recorded in script.errors.get(&here).into_iter().flatten() {
            if let Some(evaluated) = trainer.validate(|| true) {
                let what = format!("step {step}: validation error");
                self.numbers(what, evaluated.error, *recorded);
            }
        }
    }
}

/// Runs it again; exit code 1 where something differs.
pub(crate) fn command(folder: &RunFolder) -> Result<u8, CliError> {
    let script = Script::read(folder)?;
    let Some(last) = script.losses.keys().next_back().copied() else {
        return Err(CliError::Usage(format!(
            "{}: no step was recorded",
            folder.path().display()
        )));
    };
    let mut trainer = beginning(folder, &script)?;
    let mut compared = Compared::default();
    loop {
        let step = trainer.steps();
        for text in script.applied.get(&step).into_iter().flatten() {
            trainer.apply(experiment(folder, text)?);
        }
        for layer in script.reinitialised.get(&step).into_iter().flatten() {
            trainer.reinitialise(layer);
        }
        if step >= last {
            break;
        }
        if trainer.enter_phase() {
            compared.evaluations(&mut trainer, &script);
        }
        let record = trainer.step(false);
        if let Some(recorded) = script.losses.get(&record.step) {
            let what = format!("step {}: loss", record.step);
            compared.numbers(what, record.loss, *recorded);
        }
        compared.evaluations(&mut trainer, &script);
    }
    Ok(match compared.first {
        None => {
            print(&format!(
                "{last} steps again: all {} losses and validation errors are equal, bit for bit\n",
                compared.numbers
            ))?;
            0
        }
        Some(difference) => {
            print(&format!("it went differently: {difference}\n"))?;
            1
        }
    })
}

/// The run as it was before its first step.
fn beginning(folder: &RunFolder, script: &Script) -> Result<Trainer, CliError> {
    let failed = |e: TrainError| CliError::Failed(e.to_string());
    let experiment = experiment(folder, &script.experiment)?;
    let engine = crate::device::parse(&experiment.device);
    let engine = engine.map_err(|e| CliError::Failed(e.to_string()))?;
    let device = crate::device::burn_device(engine);
    let splits = crate::dataset::open(&experiment).map_err(|e| failed(e.into()))?;
    let origin = match &script.parent {
        None => Origin::New,
        Some(parent) => Origin::Fork {
            checkpoint: of_parent(folder, parent)?,
            parent: parent.clone(),
        },
    };
    match origin {
        Origin::Fork { checkpoint, .. } => {
            let mut trainer = Trainer::blank(experiment, splits, device).map_err(failed)?;
            trainer
                .fork_from(&checkpoint)
                .map_err(|e| failed(e.into()))?;
            Ok(trainer)
        }
        _ => Trainer::new(experiment, splits, device).map_err(failed),
    }
}

/// The checkpoint that a run was forked from: that of its step, or the best, where that is of it.
fn of_parent(folder: &RunFolder, parent: &Parent) -> Result<PathBuf, CliError> {
    let run = RunFolder::at(&folder.path().with_file_name(&parent.run));
    let of_step = run.checkpoint(parent.step);
    if of_step.is_file() {
        return Ok(of_step);
    }
    let is_of_it =
        |path: &PathBuf| Checkpoint::open(path).is_ok_and(|c| c.state.step == parent.step);
    run.best_checkpoint().filter(is_of_it).ok_or_else(|| {
        CliError::Failed(format!(
            "{}: the checkpoint of step {} that the run was forked from is gone",
            run.path().display(),
            parent.step
        ))
    })
}

/// An experiment of the log, with the run's own copy of its network's file.
fn experiment(folder: &RunFolder, text: &str) -> Result<Arc<Experiment>, CliError> {
    let name = folder.log().display().to_string();
    let experiment = Arc::new(resolve_text(&name, text)?);
    Ok(folder.with_own_model(&experiment))
}
