//! A run in memory, built from its events alone: no number on the screen that the log does not
//! hold.

use std::collections::VecDeque;
use std::ops::Index;

use serde::{Deserialize, Serialize};

pub use self::layer::LayerHistory;
use super::event::{Budget, Event, Parent, Phase, Split, StepRecord, Tightening};
use super::quantity::{Quantity, RunSeries, Table};
use super::series::Series;
use super::verdict::Verdicts;
use crate::quantizer::memory::{Resource, Usage};

mod layer;
mod take;

/// An evaluation.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Evaluation {
    /// Steps taken.
    pub step: u64,
    /// Part of the data.
    pub split: Split,
    /// Share of wrong answers.
    pub error: f64,
    /// Nats.
    pub loss: f64,
    /// Whether every budget was met, those included that were set later.
    pub budget_met: bool,
    /// What the step before it used.
    usage: Option<Usage>,
}

/// Kind of a mark on the time axis.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum MarkKind {
    /// Settings changed.
    Applied,
    /// Checkpoint written.
    Checkpoint,
    /// The quantizers came into use.
    Quantized,
    /// A non-finite value.
    NonFinite,
}

/// A vertical mark on plots over steps.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Mark {
    /// Steps taken.
    pub step: u64,
    /// Kind.
    pub kind: MarkKind,
    /// What it says.
    pub label: String,
}

/// How serious a message is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Severity {
    /// For the record.
    Info,
    /// Worth a look.
    Warning,
    /// Something failed.
    Error,
}

/// A line of the log page.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Message {
    /// Steps taken.
    pub step: u64,
    /// How serious.
    pub severity: Severity,
    /// Text.
    pub text: String,
}

/// A run in memory.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct History {
    /// Events taken in.
    pub events: u64,
    /// Name of the run.
    pub name: String,
    /// Engine and device.
    pub device: String,
    /// Resolved experiment, TOML.
    pub experiment: String,
    /// Constraints now.
    pub budgets: Vec<Budget>,
    /// Steps of one epoch.
    pub steps_per_epoch: u64,
    /// Steps of the whole run.
    pub total_steps: u64,
    /// What is damaged in the log that it was read from, a sentence each.
    pub damages: Vec<String>,
    /// The run that it was forked from.
    pub parent: Option<Parent>,
    /// Phase now.
    pub phase: Option<Phase>,
    /// Newest step.
    pub newest: Option<StepRecord>,
    series: Table<RunSeries>,
    /// Samples of the newest step.
    pub batch: u64,
    /// Every quantizer.
    pub layers: Vec<LayerHistory>,
    /// Budgets that tighten: from which step on, and which.
    tightening: Vec<(u64, Vec<Tightening>)>,
    /// All evaluations but those of steps that were taken back.
    pub evaluations: Vec<Evaluation>,
    /// How many of them are of the network before its quantizers came into use.
    in_float: usize,
    /// Marks on the time axis.
    pub marks: Vec<Mark>,
    /// Messages, newest last.
    pub messages: VecDeque<Message>,
    /// What the detectors found.
    pub verdicts: Verdicts,
    /// Whether training waits.
    pub paused: bool,
    /// The last event, once it came.
    pub end: Option<Event>,
}

impl History {
    /// A run from its recorded events.
    pub fn from_events<'a>(events: impl IntoIterator<Item = &'a Event>) -> Self {
        let mut history = Self::default();
        for event in events {
            history.push(event);
        }
        history
    }

    /// Whether steps `from` to `to` are held in fewer than `columns` buckets although more were
    /// recorded. Of a whole run memory holds all that a second look at the log would give.
    pub fn is_coarse(&self, from: u64, to: u64, columns: usize) -> bool {
        let whole = |(first, last): (u64, u64)| from <= first && last <= to;
        if self[Quantity::Loss].extent().is_none_or(whole) {
            return false;
        }
        let mut buckets = 0;
        let mut points = 0;
        for bucket in self[Quantity::Loss].range(from, to, columns.max(2) * 2) {
            buckets += 1;
            points += bucket.count();
        }
        buckets < columns && points > buckets as u32
    }

    /// What was used of a resource over steps: kB, or 10^9 bit operations.
    pub fn used(&self, resource: Resource) -> &Series {
        match resource {
            Resource::Weights => &self[Quantity::WeightKb],
            Resource::ActivationSum => &self[Quantity::ActivationSumKb],
            Resource::ActivationMax => &self[Quantity::ActivationMaxKb],
            Resource::Bops => &self[Quantity::Gbops],
        }
    }

    /// Limits in force where a budget tightened, over steps.
    pub fn limits(&self, resource: Resource) -> &Series {
        &self[limit_of(resource)]
    }

    /// Whether a step was held to a limit of that resource.
    pub fn is_limited(&self, resource: Resource, step: u64) -> bool {
        let limited = |t: &Tightening| t.resource == resource;
        self.tightening_at(step)
            .is_some_and(|all| all.iter().any(limited))
    }

    /// The budgets that held a step, as they tightened.
    fn tightening_at(&self, step: u64) -> Option<&[Tightening]> {
        let newest = self.tightening.iter().rev().find(|(from, _)| *from < step);
        newest.map(|(_, all)| all.as_slice())
    }

    /// This run without what is recorded step by step.
    pub fn outline(&self) -> Self {
        let layers = self.layers.iter();
        let mut series = Table::<RunSeries>::default();
        // (An evaluation is no step.)
        for quantity in [
            Quantity::ValidationError,
            Quantity::ValidationLoss,
            Quantity::ValidationTopFive,
        ] {
            series[quantity] = self[quantity].clone();
        }
        Self {
            series,
            events: self.events,
            parent: self.parent.clone(),
            name: self.name.clone(),
            device: self.device.clone(),
            experiment: self.experiment.clone(),
            budgets: self.budgets.clone(),
            steps_per_epoch: self.steps_per_epoch,
            total_steps: self.total_steps,
            phase: self.phase,
            newest: self.newest.clone(),
            batch: self.batch,
            tightening: self.tightening.clone(),
            evaluations: self.evaluations.clone(),
            in_float: self.in_float,
            marks: self.marks.clone(),
            layers: layers
                .map(|l| LayerHistory {
                    newest: l.newest,
                    ..LayerHistory::new(l.info.clone())
                })
                .collect(),
            ..Self::default()
        }
    }

    /// Adds an older step to the series of an [outline](Self::outline), and to nothing else.
    pub(super) fn fill(&mut self, record: &StepRecord) {
        let newest = self.newest.take();
        let layers: Vec<_> = self.layers.iter().map(|l| l.newest).collect();
        let batch = self.batch;
        self.push_step(record);
        (self.newest, self.batch) = (newest, batch);
        for (layer, newest) in self.layers.iter_mut().zip(layers) {
            layer.newest = newest;
        }
    }

    /// Steps taken.
    pub fn step(&self) -> u64 {
        self.newest.as_ref().map_or(0, |r| r.step)
    }

    /// Best validation error among steps that met the budget, with its step.
    pub fn best(&self) -> Option<(u64, f64)> {
        let best = self.counted(Split::Validation).filter(|e| e.budget_met);
        best.min_by(|a, b| a.error.total_cmp(&b.error))
            .map(|e| (e.step, e.error))
    }

    /// Evaluations on a part of the data that count: where quantizers came into use, those since then,
    /// beginning with the one that says what quantizing alone costs.
    pub fn counted(&self, split: Split) -> impl DoubleEndedIterator<Item = &Evaluation> {
        let counted = self.evaluations[self.in_float..].iter();
        counted.filter(move |e| e.split == split)
    }

    /// Gives every layer's info its quantizer, which is not written with it.
    pub(super) fn describe_layers(&mut self) {
        for layer in &mut self.layers {
            layer.info.quantizer.clone_from(&layer.quantizer);
        }
    }

    /// Holds what the log says of some steps exactly, where memory holds means: for what stands on one
    /// step of them. `detail` has these steps alone.
    pub(crate) fn pin(&mut self, steps: (u64, u64), detail: &Self) {
        let run = self.series.0.iter_mut().zip(&detail.series.0);
        let layers = self.layers.iter_mut().zip(&detail.layers);
        let layers = layers.flat_map(|(own, of)| own.series.0.iter_mut().zip(&of.series.0));
        for (own, of) in run.chain(layers) {
            own.pin(steps, of);
        }
    }

    /// Whether what was recorded at a step is known exactly.
    pub(crate) fn knows(&self, step: u64) -> bool {
        self[Quantity::Loss].at(step).is_some()
    }

    pub(super) fn break_lines(&mut self) {
        self.all_mut().for_each(Series::break_line);
    }

    /// Every series there is.
    fn all_mut(&mut self) -> impl Iterator<Item = &mut Series> {
        let layers = self.layers.iter_mut().flat_map(|l| &mut l.series.0);
        self.series.0.iter_mut().chain(layers)
    }
}

fn limit_of(resource: Resource) -> Quantity {
    match resource {
        Resource::Weights => Quantity::WeightLimit,
        Resource::ActivationSum => Quantity::ActivationSumLimit,
        Resource::ActivationMax => Quantity::ActivationMaxLimit,
        Resource::Bops => Quantity::GbopsLimit,
    }
}

impl Index<Quantity> for History {
    type Output = Series;

    fn index(&self, quantity: Quantity) -> &Series {
        &self.series[quantity]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outline_has_everything_but_the_steps() {
        let mut history = History::default();
        history.push(&Event::Step(Box::new(StepRecord {
            step: 7,
            loss: 1.5,
            ..StepRecord::default()
        })));
        let mut outline = history.outline();
        assert!(outline[Quantity::Loss].is_empty());
        assert_eq!(outline.step(), 7);
        outline.fill(&StepRecord {
            step: 3,
            loss: 2.5,
            ..StepRecord::default()
        });
        assert_eq!(outline[Quantity::Loss].newest(), Some(2.5));
        assert_eq!(outline.step(), 7);
    }
}
