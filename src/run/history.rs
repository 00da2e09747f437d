//! A run in memory, built from its events alone: no number on the screen that the log does not
//! hold.

use std::collections::VecDeque;
use std::ops::Index;

use serde::{Deserialize, Serialize};

use super::event::{
    Budget, Event, LayerInfo, LayerRecord, Parent, Phase, Split, StepRecord, Tightening,
};
use super::quantity::{LayerQuantity, LayerSeries, OF_LAYER, OF_STEP, Quantity, RunSeries, Table};
use super::series::Series;
use super::verdict::Verdicts;
use crate::quantizer::Quantizer;
use crate::quantizer::memory::{Resource, Role};

/// Everything recorded of one quantizer.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct LayerHistory {
    /// Name, role, size, parametrization.
    pub info: LayerInfo,
    /// That of the info, which is not written with it.
    quantizer: Option<Quantizer>,
    series: Table<LayerSeries>,
    /// Newest record.
    pub newest: Option<LayerRecord>,
}

impl LayerHistory {
    pub(crate) fn new(info: LayerInfo) -> Self {
        Self {
            quantizer: info.quantizer.clone(),
            info,
            series: Table::default(),
            newest: None,
        }
    }

    fn push(&mut self, step: u64, r: &LayerRecord) {
        for (quantity, of) in OF_LAYER {
            // The norm of an activation's gradient is not measured.
            if quantity != LayerQuantity::GradientNorm || self.info.role != Role::Activation {
                self.series[quantity].push(step, of(r) as f32);
            }
        }
        self.newest = Some(*r);
    }

    /// What was recorded at the newest record up to `step`. Gradients are magnitudes there.
    pub fn at(&self, step: u64) -> Option<LayerRecord> {
        let at = |quantity| self.series[quantity].at(step);
        let value = |quantity| at(quantity).unwrap_or(f32::NAN);
        Some(LayerRecord {
            d: at(LayerQuantity::StepSize)?,
            q_max: value(LayerQuantity::Range),
            bitwidth: value(LayerQuantity::Bitwidth),
            gradients: [
                value(LayerQuantity::FirstGradient),
                value(LayerQuantity::SecondGradient),
            ],
            clipped: value(LayerQuantity::Clipped),
            zeros: value(LayerQuantity::Zeros),
            grad_norm: value(LayerQuantity::GradientNorm),
            weight_norm: f32::NAN,
        })
    }

    /// All series.
    pub fn series(&self) -> &[Series] {
        &self.series.0
    }
}

impl Index<LayerQuantity> for LayerHistory {
    type Output = Series;

    fn index(&self, quantity: LayerQuantity) -> &Series {
        &self.series[quantity]
    }
}

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
    /// Whether every budget was met.
    pub budget_met: bool,
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

/// Messages kept for rereading.
const MESSAGES: usize = 2000;

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
    /// All evaluations.
    pub evaluations: Vec<Evaluation>,
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
        let quantized = |m: &&Mark| m.kind == MarkKind::Quantized;
        let start = self.marks.iter().rev().find(quantized).map(|m| m.step);
        let all = &self.evaluations;
        let at_start = |e: &Evaluation| e.split == split && Some(e.step) == start;
        let first = all.iter().rposition(at_start);
        let counts = move |place: usize, e: &Evaluation| match start {
            Some(start) => e.step > start || first == Some(place),
            None => true,
        };
        let of_split = all
            .iter()
            .enumerate()
            .filter(move |(_, e)| e.split == split);
        of_split
            .filter(move |(place, e)| counts(*place, e))
            .map(|(_, e)| e)
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

    /// Takes an event in.
    pub fn push(&mut self, event: &Event) {
        self.events += 1;
        match event {
            Event::Started {
                name,
                device,
                experiment,
                layers,
                budgets,
                steps_per_epoch,
                total_steps,
                step,
                parent,
            } => {
                self.parent.clone_from(parent);
                self.name.clone_from(name);
                self.device.clone_from(device);
                self.experiment.clone_from(experiment);
                self.budgets.clone_from(budgets);
                self.steps_per_epoch = *steps_per_epoch;
                self.total_steps = *total_steps;
                self.end = None;
                self.paused = false;
                self.begin(layers);
                let verb = if *step > 0 { "resumed" } else { "started" };
                self.say(*step, Severity::Info, format!("{verb} {name} on {device}"));
            }
            Event::Phase { step, phase } => {
                // A resumed run says its phase again; only a change is one.
                let changed = self.phase.replace(*phase) != Some(*phase);
                let text = match phase {
                    Phase::Float => "float phase",
                    Phase::Quantized => "quantizers in use",
                };
                if changed && *phase == Phase::Quantized && *step > 0 {
                    self.mark(*step, MarkKind::Quantized, text.into());
                    // What the network took in float is another quantity than what it takes now.
                    for memory in [
                        Quantity::WeightKb,
                        Quantity::ActivationSumKb,
                        Quantity::ActivationMaxKb,
                        Quantity::Gbops,
                    ] {
                        self.series[memory].break_line();
                    }
                }
                self.say(*step, Severity::Info, text.into());
            }
            Event::Step(record) => self.push_step(record),
            Event::Evaluation {
                step,
                split,
                error,
                loss,
                budget_met,
                best,
            } => {
                let evaluation = Evaluation {
                    step: *step,
                    split: *split,
                    error: *error,
                    loss: *loss,
                    budget_met: *budget_met,
                };
                self.push_evaluation(evaluation, *best);
            }
            Event::TopFive { step, split, error } => {
                if *split == Split::Validation {
                    self.series[Quantity::ValidationTopFive].push(*step, *error as f32);
                }
                let text = format!("{} top-5 error {:.2} %", split.name(), error * 100.0);
                self.say(*step, Severity::Info, text);
            }
            Event::Checkpoint { step, file, best } => {
                let star = if *best { ", best" } else { "" };
                self.mark(*step, MarkKind::Checkpoint, format!("checkpoint{star}"));
                self.say(*step, Severity::Info, format!("checkpoint {file}{star}"));
            }
            Event::Applied {
                step,
                changes,
                experiment,
                budgets,
                total_steps,
            } => {
                self.experiment.clone_from(experiment);
                self.budgets.clone_from(budgets);
                self.total_steps = *total_steps;
                let text = changes.join(", ");
                self.mark(*step, MarkKind::Applied, text.clone());
                self.say(*step, Severity::Info, format!("applied: {text}"));
            }
            Event::Paused { step } => {
                self.paused = true;
                self.say(*step, Severity::Info, "paused".into());
            }
            Event::Resumed { step } => {
                self.paused = false;
                self.say(*step, Severity::Info, "resumed".into());
            }
            Event::NonFinite { step, layer } => {
                self.paused = true;
                let layer = layer.as_deref().unwrap_or("an unidentified layer");
                let text = format!("non-finite value, first in {layer}; paused");
                self.mark(*step, MarkKind::NonFinite, text.clone());
                self.say(*step, Severity::Error, text);
            }
            Event::Reinitialised {
                step,
                layer,
                reason,
                before,
                after,
                ..
            } => {
                let pair = |[d, q_max]: &[f64; 2]| format!("({d:.5}, {q_max:.4})");
                let text = format!(
                    "{layer} initialised anew, {reason}: {} to {}",
                    pair(before),
                    pair(after)
                );
                self.mark(*step, MarkKind::Applied, text.clone());
                self.say(*step, Severity::Warning, text);
            }
            Event::Quantizers { quantizers, .. } => {
                for (layer, quantizer) in self.layers.iter_mut().zip(quantizers) {
                    layer.quantizer = Some(quantizer.clone());
                }
                self.describe_layers();
            }
            Event::Note { step, message } => {
                self.say(*step, Severity::Info, message.clone());
            }
            Event::Ranks {
                step,
                ranks,
                fingerprint,
                bytes_per_step,
                seconds_per_step,
            } => {
                let message = format!(
                    "{ranks} ranks have the same parameters ({fingerprint:08x}); each step sends {:.2} MB \
                     from rank 0 and takes {:.1} ms to exchange",
                    bytes_per_step / 1e6,
                    seconds_per_step * 1e3
                );
                self.say(*step, Severity::Info, message);
            }
            Event::Tightens { step, budgets } => {
                let now = *step as f64 / self.steps_per_epoch.max(1) as f64;
                for t in budgets.iter().filter(|t| t.until > now) {
                    let (from, to, unit) = (t.from, t.to, t.resource.unit());
                    let what = t.resource.label();
                    let text = format!(
                        "{what}: the limit falls from {from:.2} to {to:.2} {unit} until epoch {:.2}",
                        t.until
                    );
                    self.say(*step, Severity::Info, text);
                }
                self.tightening.push((*step, budgets.clone()));
            }
            Event::Warning { step, message } => {
                self.say(*step, Severity::Warning, message.clone());
            }
            Event::Finished { step, test_error } => {
                let test = test_error.map_or(String::new(), |e| {
                    format!(", test error {:.2} %", e * 100.0)
                });
                self.say(*step, Severity::Info, format!("finished{test}"));
            }
            Event::Stopped { step } => self.say(*step, Severity::Info, "stopped".into()),
            Event::Failed { step, message } => {
                self.say(*step, Severity::Error, format!("failed: {message}"));
            }
        }
        for verdict in self.verdicts.push(event) {
            let place = verdict.layer.and_then(|l| self.layers.get(l));
            let of = place.map_or(String::new(), |l| format!("{} ", l.info.name));
            let text = format!("{of}{}: {}", verdict.kind.name(), verdict.text);
            self.say(event.step(), Severity::Warning, text);
        }
        if event.is_last() {
            self.end = Some(event.clone());
        }
    }

    /// The layers of a run that starts, or goes on.
    fn begin(&mut self, layers: &[LayerInfo]) {
        if self.layers.len() == layers.len() {
            // Resumed: lines break here, what was recorded after the checkpoint is gone.
            self.break_lines();
        } else {
            self.layers = layers.iter().cloned().map(LayerHistory::new).collect();
        }
    }

    fn push_evaluation(&mut self, evaluation: Evaluation, best: bool) {
        let Evaluation {
            step, error, loss, ..
        } = evaluation;
        match evaluation.split {
            Split::Validation => {
                self.series[Quantity::ValidationError].push(step, error as f32);
                self.series[Quantity::ValidationLoss].push(step, loss as f32);
            }
            Split::Test => {}
        }
        let split = evaluation.split.name();
        self.evaluations.push(evaluation);
        let star = if best { " (best)" } else { "" };
        let text = format!("{split} error {:.2} %, loss {loss:.4}{star}", error * 100.0);
        self.say(step, Severity::Info, text);
    }

    /// Adds a message of the program itself.
    pub fn say(&mut self, step: u64, severity: Severity, text: String) {
        if self.messages.len() == MESSAGES {
            self.messages.pop_front();
        }
        self.messages.push_back(Message {
            step,
            severity,
            text,
        });
    }

    fn mark(&mut self, step: u64, kind: MarkKind, label: String) {
        self.marks.push(Mark { step, kind, label });
    }

    fn push_step(&mut self, r: &StepRecord) {
        let step = r.step;
        for (quantity, of) in OF_STEP {
            self.series[quantity].push(step, of(r) as f32);
        }
        // A step is held to the limit of its beginning.
        let before = match &self.newest {
            Some(newest) if newest.step + 1 == step => newest.epoch,
            _ => r.epoch - 1.0 / self.steps_per_epoch.max(1) as f64,
        };
        for resource in Resource::ALL {
            let all = self.tightening_at(step).unwrap_or_default();
            let limit = all.iter().find(|t| t.resource == resource);
            let limit = limit.map(|tightening| tightening.at(before) as f32);
            let series = &mut self.series[limit_of(resource)];
            match limit {
                Some(limit) => series.push(step, limit),
                None => series.break_line(),
            }
        }
        self.batch = (r.samples_per_s * f64::from(r.times.total())).round() as u64;
        if let Some(records) = &r.layers {
            for (layer, record) in self.layers.iter_mut().zip(records) {
                layer.push(step, record);
            }
        }
        self.newest = Some(r.clone());
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
    fn no_line_is_drawn_over_the_gap_of_a_resumed_run() {
        use crate::graph::LayerKind;
        use crate::quantizer::Parametrization;
        let layers = vec![LayerInfo {
            name: "conv".into(),
            role: Role::Weight,
            kind: LayerKind::Convolution,
            elements: 9,
            parametrization: Parametrization::U3,
            clamps: [[0.1, 1.0]; 2],
            quantizer: None,
        }];
        let started = |step| Event::Started {
            name: "r".into(),
            device: "flex".into(),
            experiment: String::new(),
            layers: layers.clone(),
            budgets: Vec::new(),
            steps_per_epoch: 10,
            total_steps: 100,
            step,
            parent: None,
        };
        let step = |step: u64| {
            Event::Step(Box::new(StepRecord {
                step,
                epoch: step as f64 / 10.0,
                pulls: [1.0, 1.0],
                layers: Some(vec![LayerRecord::default()]),
                ..StepRecord::default()
            }))
        };
        let checked = |step| Event::Evaluation {
            step,
            split: Split::Validation,
            error: 0.5,
            loss: 1.0,
            budget_met: true,
            best: false,
        };
        let top_five = |step| Event::TopFive {
            step,
            split: Split::Validation,
            error: 0.25,
        };
        let tightens = Event::Tightens {
            step: 0,
            budgets: Resource::ALL
                .map(|resource| Tightening {
                    resource,
                    from: 2.0,
                    to: 1.0,
                    since: 0.0,
                    until: 9.0,
                })
                .to_vec(),
        };
        let mut history = History::default();
        let all = [
            started(0),
            tightens,
            step(1),
            checked(1),
            top_five(1),
            started(1),
            step(2),
            checked(2),
            top_five(2),
        ];
        all.iter().for_each(|e| history.push(e));
        for series in history.all_mut() {
            let breaks: Vec<bool> = series.range(0, 9, 99).map(|b| b.breaks()).collect();
            assert_eq!(breaks, [false, true]);
        }
    }

    #[test]
    fn a_resumed_run_marks_the_start_of_its_quantizers_once() {
        let mut history = History::default();
        let phase = |step, phase| Event::Phase { step, phase };
        for event in [
            phase(0, Phase::Float),
            phase(100, Phase::Quantized),
            phase(150, Phase::Quantized),
        ] {
            history.push(&event);
        }
        let marks: Vec<_> = history.marks.iter().map(|m| (m.step, m.kind)).collect();
        assert_eq!(marks, [(100, MarkKind::Quantized)]);
    }

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
