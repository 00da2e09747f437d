//! Everything that comes before a run's first step.

use std::time::{Duration, Instant};

use super::{Run, Told};
use crate::device::Engine;
use crate::experiment::{Change, Experiment, Start, merged};
use crate::kernels::ranks::Group;
use crate::quantizer::Rules;
use crate::run::{Event, Manifest, RunFolder, Status, TensorBoard, write_whole};
use crate::training::TrainError;
use crate::training::checkpoint::Checkpoint;
use crate::training::session::recorder::Recorder;
use crate::training::session::resume::{restore, resumable};
use crate::training::session::setup::{Origin, Setup};
use crate::training::trainer::Trainer;

impl<'a> Run<'a> {
    /// A run that can take its first step. `found` is what there is to say of its files.
    pub(in crate::training::session) fn prepare(
        setup: &'a Setup,
        group: Group,
        mut found: Vec<String>,
        recorder: &mut Recorder,
    ) -> Result<Self, TrainError> {
        let folder = &setup.folder;
        let experiment = &with_own_model(setup);
        let engine = crate::device::parse(&experiment.device)?;
        let (mut manifest, changes) = match setup.origin {
            Origin::Resume => taken_up(setup, experiment, &mut found)?,
            _ => (begun(setup, experiment, engine)?, Vec::new()),
        };
        folder.write_manifest(&manifest)?;
        let splits = crate::dataset::open(experiment)?;
        let described = splits.described();
        if setup.origin == Origin::New {
            found.extend(splits.notes.iter().cloned());
        }
        let device = crate::device::burn_device(engine);
        let mut trainer = match &setup.origin {
            Origin::New => Trainer::new(experiment.clone(), splits, device)?,
            Origin::Resume => {
                let mut trainer = Trainer::blank(experiment.clone(), splits, device)?;
                found.extend(restore(&mut trainer, folder)?);
                trainer
            }
            Origin::Fork { checkpoint, .. } => {
                let mut trainer = Trainer::blank(experiment.clone(), splits, device)?;
                let lost = trainer.fork_from(checkpoint)?;
                found.extend(lost.into_iter().map(|note| format!("not kept: {note}")));
                trainer
            }
        };
        if setup.origin == Origin::New {
            found.extend(trainer.notes().iter().cloned());
            if let Start::Run(start) = &experiment.start {
                manifest.start = Checkpoint::fingerprint_of(&RunFolder::at(start));
                folder.write_manifest(&manifest)?;
            }
        }
        trainer.lead(group)?;
        if engine.is_card() {
            trainer.take_ahead();
        }
        if experiment.log.tensorboard {
            let began = manifest.started_unix as f64;
            match TensorBoard::create(&folder.tensorboard(), began) {
                Ok(board) => recorder.with_board(board),
                Err(error) => found.push(format!("no TensorBoard events: {error}")),
            }
        }
        manifest.task = Some(Manifest::task_of(experiment));
        let step = trainer.steps();
        let mut run = Self {
            setup,
            manifest,
            paused: setup.paused,
            allowed: None,
            stopping: false,
            is_finite: true,
            last_checkpoint: trainer.epochs(),
            left_out: 0,
            tightening: Vec::new(),
            unsaved: None,
            unwritten: None,
            told_at: Instant::now(),
            not_in_integers: None,
            saved_at: None,
            compared: Told {
                step,
                epoch: trainer.epochs(),
                bytes: 0,
                waited: Duration::ZERO,
            },
            trainer,
        };
        run.drop_best_beyond();
        run.drop_forgotten_best();
        run.announce(engine, described, found, recorder);
        if !changes.is_empty() {
            let toml = experiment.values.to_toml();
            write_whole(&folder.experiment(), toml.as_bytes())?;
            let changes = changes.iter().map(Change::told).collect();
            run.tell_applied(changes, toml, recorder);
        }
        if experiment.rules == Rules::PublishedCode && engine.is_card() {
            recorder.emit(Event::Warning {
                step,
                message: format!(
                    "{engine} sums in its own order; the published code's numbers are reproduced on a \
                     CPU only"
                ),
            });
        }
        Ok(run)
    }

    /// What the log says first: the run, its quantizers and its data, and what was found.
    fn announce(
        &self,
        engine: Engine,
        described: String,
        found: Vec<String>,
        recorder: &mut Recorder,
    ) {
        let trainer = &self.trainer;
        let step = trainer.steps();
        recorder.emit(Event::Started {
            name: self.setup.folder.label(),
            device: engine.to_string(),
            experiment: trainer.experiment().values.to_toml(),
            layers: trainer.layers(),
            budgets: trainer.budgets(),
            steps_per_epoch: trainer.steps_per_epoch(),
            total_steps: trainer.total_steps(),
            step,
            parent: self.manifest.parent.clone(),
        });
        recorder.emit(Event::Quantizers {
            step,
            quantizers: trainer.quantizers(),
        });
        recorder.emit(Event::Phase {
            step,
            phase: trainer.phase(),
        });
        recorder.emit(Event::Note {
            step,
            message: described,
        });
        for message in found {
            recorder.emit(Event::Warning { step, message });
        }
    }
}

/// The experiment with the network's file that the run, or the one it is forked from, has kept.
fn with_own_model(setup: &Setup) -> std::sync::Arc<Experiment> {
    let keeps = match &setup.origin {
        Origin::New => None,
        Origin::Resume => Some(setup.folder.clone()),
        Origin::Fork { checkpoint, .. } => RunFolder::of_checkpoint(checkpoint),
    };
    match keeps {
        Some(folder) => folder.with_own_model(&setup.experiment),
        None => setup.experiment.clone(),
    }
}

/// The files of a run that begins, and its manifest.
fn begun(setup: &Setup, experiment: &Experiment, engine: Engine) -> Result<Manifest, TrainError> {
    let folder = &setup.folder;
    let (parent, inherited) = match &setup.origin {
        Origin::Fork { checkpoint, parent } => {
            let of = RunFolder::of_checkpoint(checkpoint);
            let manifest = of.and_then(|of| of.manifest().ok());
            let set = manifest.map_or(Vec::new(), |m| m.set);
            (Some(parent.clone()), set)
        }
        Origin::New | Origin::Resume => (None, Vec::new()),
    };
    write_whole(&folder.experiment(), experiment.values.to_toml().as_bytes())?;
    folder.keep_model(experiment)?;
    if let Some(source) = &setup.source {
        // As it was written, comments and all: it may be gone since it was read.
        let written = crate::files::read(source);
        written.map_or(Ok(()), |text| write_whole(&folder.source(), &text))?;
    }
    Ok(Manifest {
        parent,
        source: setup.source.clone(),
        set: merged(&inherited, &setup.set),
        ..Manifest::begin(experiment.name.clone(), engine.to_string())
    })
}

/// The manifest of a run that goes on, and what of its experiment is different now.
fn taken_up(
    setup: &Setup,
    experiment: &Experiment,
    found: &mut Vec<String>,
) -> Result<(Manifest, Vec<Change>), TrainError> {
    let folder = &setup.folder;
    let changes = resumable(folder, experiment)?;
    let manifest = folder.manifest_or_rebuilt()?;
    // What is said of a rebuilt manifest is no note of the user's.
    let rebuilt = folder.manifest().is_err();
    let (said, note) = match rebuilt {
        true => (manifest.note.clone(), None),
        false => (None, manifest.note.clone()),
    };
    found.extend(said);
    let manifest = Manifest {
        status: Status::Running,
        reason: None,
        dead_end: false,
        set: merged(&manifest.set, &setup.set),
        note,
        ..manifest
    };
    Ok((manifest, changes))
}
