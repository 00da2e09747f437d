//! How a history takes events in.

use super::{Evaluation, History, LayerHistory, Mark, MarkKind, Message, Severity, limit_of};
use crate::quantizer::memory::{Resource, Usage};
use crate::run::event::{Event, LayerInfo, Phase, Split, StepRecord};
use crate::run::quantity::{OF_STEP, Quantity};

/// Messages kept for rereading.
const MESSAGES: usize = 2000;

impl History {
    /// Takes an event in.
    pub fn push(&mut self, event: &Event) {
        self.events += 1;
        for (severity, text) in words(event, self.steps_per_epoch) {
            self.say(event.step(), severity, text);
        }
        match event {
            Event::Started {
                name,
                device,
                experiment,
                layers,
                budgets,
                steps_per_epoch,
                total_steps,
                parent,
                step,
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
                // What came behind the checkpoint that a run goes on from is not part of it.
                self.evaluations.retain(|e| e.step <= *step);
                self.in_float = self.in_float.min(self.evaluations.len());
                self.judge_again();
            }
            Event::Phase { step, phase } => {
                // A resumed run says its phase again; only a change is one.
                let changed = self.phase.replace(*phase) != Some(*phase);
                if changed && *phase == Phase::Quantized && *step > 0 {
                    self.begin_quantized(event);
                }
            }
            Event::Step(record) => self.push_step(record),
            Event::Evaluation {
                step,
                split,
                error,
                loss,
                budget_met,
                best: _,
            } => self.push_evaluation(Evaluation {
                step: *step,
                split: *split,
                error: *error,
                loss: *loss,
                budget_met: *budget_met,
                usage: self.usage_at(*step),
            }),
            Event::TopFive { step, split, error } => {
                if *split == Split::Validation {
                    self.series[Quantity::ValidationTopFive].push(*step, *error as f32);
                }
            }
            Event::Checkpoint { step, best, .. } => {
                let label = format!("checkpoint{}", if *best { ", best" } else { "" });
                self.mark(*step, MarkKind::Checkpoint, label);
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
                self.judge_again();
                self.mark(*step, MarkKind::Applied, changes.join(", "));
            }
            Event::Paused { .. } => self.paused = true,
            Event::Resumed { .. } => self.paused = false,
            Event::NonFinite { .. } => {
                self.paused = true;
                self.mark_as_said(MarkKind::NonFinite, event);
            }
            Event::Reinitialised { .. } => self.mark_as_said(MarkKind::Applied, event),
            Event::Quantizers { quantizers, .. } => {
                for (layer, quantizer) in self.layers.iter_mut().zip(quantizers) {
                    layer.quantizer = Some(quantizer.clone());
                }
                self.describe_layers();
            }
            Event::Tightens { step, budgets } => self.tightening.push((*step, budgets.clone())),
            Event::Note { .. }
            | Event::Ranks { .. }
            | Event::Warning { .. }
            | Event::Finished { .. }
            | Event::Stopped { .. }
            | Event::Failed { .. } => {}
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

    /// What the network took at an evaluation. Where its quantizers come into use, the newest record is
    /// still of the network in float.
    fn usage_at(&self, step: u64) -> Option<Usage> {
        let quantized = |m: &&Mark| m.kind == MarkKind::Quantized;
        let start = self.marks.iter().rev().find(quantized);
        let newest = self.newest.as_ref()?;
        (start.is_none_or(|m| m.step != step)).then_some(newest.usage)
    }

    /// Evaluations that met their budgets may be beyond those that are in force now.
    fn judge_again(&mut self) {
        let budgets = &self.budgets;
        for evaluation in &mut self.evaluations[self.in_float..] {
            let within = |usage: &Usage| budgets.iter().all(|b| b.is_met(usage));
            evaluation.budget_met &= evaluation.usage.as_ref().is_none_or(within);
        }
    }

    /// The quantizers have come into use. What the network took in float is another quantity than what it
    /// takes now.
    fn begin_quantized(&mut self, event: &Event) {
        self.mark_as_said(MarkKind::Quantized, event);
        self.in_float = self.evaluations.len();
        for memory in [
            Quantity::WeightKb,
            Quantity::ActivationSumKb,
            Quantity::ActivationMaxKb,
            Quantity::Gbops,
        ] {
            self.series[memory].break_line();
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

    fn push_evaluation(&mut self, evaluation: Evaluation) {
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
        self.evaluations.push(evaluation);
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

    /// A mark with the words of the log page.
    fn mark_as_said(&mut self, kind: MarkKind, event: &Event) {
        for (_, text) in words(event, self.steps_per_epoch) {
            self.mark(event.step(), kind, text);
        }
    }

    fn mark(&mut self, step: u64, kind: MarkKind, label: String) {
        self.marks.push(Mark { step, kind, label });
    }

    pub(super) fn push_step(&mut self, r: &StepRecord) {
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
}

/// What the log page says of an event.
fn words(event: &Event, steps_per_epoch: u64) -> Vec<(Severity, String)> {
    let percent = |error: f64| format!("{:.2} %", error * 100.0);
    let text = match event {
        Event::Started {
            step, name, device, ..
        } => {
            let verb = if *step > 0 { "resumed" } else { "started" };
            format!("{verb} {name} on {device}")
        }
        Event::Phase { phase, .. } => match phase {
            Phase::Float => "float phase".into(),
            Phase::Quantized => "quantizers in use".into(),
        },
        Event::Evaluation {
            split,
            error,
            loss,
            best,
            ..
        } => {
            let star = if *best { " (best)" } else { "" };
            let error = percent(*error);
            format!("{} error {error}, loss {loss:.4}{star}", split.name())
        }
        Event::TopFive { split, error, .. } => {
            format!("{} top-5 error {}", split.name(), percent(*error))
        }
        Event::Checkpoint { file, best, .. } => {
            let star = if *best { ", best" } else { "" };
            format!("checkpoint {file}{star}")
        }
        Event::Applied { changes, .. } => format!("applied: {}", changes.join(", ")),
        Event::Paused { .. } => "paused".into(),
        Event::Resumed { .. } => "resumed".into(),
        Event::NonFinite { layer, .. } => {
            let layer = layer.as_deref().unwrap_or("an unidentified layer");
            let text = format!("non-finite value, first in {layer}; paused");
            return vec![(Severity::Error, text)];
        }
        Event::Reinitialised {
            layer,
            reason,
            before,
            after,
            ..
        } => {
            let pair = |[d, q_max]: &[f64; 2]| format!("({d:.5}, {q_max:.4})");
            let (before, after) = (pair(before), pair(after));
            let text = format!("{layer} initialised anew, {reason}: {before} to {after}");
            return vec![(Severity::Warning, text)];
        }
        Event::Note { message, .. } => message.clone(),
        Event::Ranks {
            ranks,
            fingerprint,
            bytes_per_step,
            seconds_per_step,
            ..
        } => format!(
            "{ranks} ranks have the same parameters ({fingerprint:08x}); each step sends {:.2} MB from rank \
             0 and takes {:.1} ms to exchange",
            bytes_per_step / 1e6,
            seconds_per_step * 1e3
        ),
        Event::Tightens { step, budgets } => {
            let now = *step as f64 / steps_per_epoch.max(1) as f64;
            let falling = budgets.iter().filter(|t| t.until > now).map(|t| {
                let (what, from, to) = (t.resource.label(), t.from, t.to);
                let (unit, until) = (t.resource.unit(), t.until);
                format!("{what}: the limit falls from {from:.2} to {to:.2} {unit} until epoch {until:.2}")
            });
            return falling.map(|text| (Severity::Info, text)).collect();
        }
        Event::Warning { message, .. } => return vec![(Severity::Warning, message.clone())],
        Event::Finished { test_error, .. } => {
            let test = test_error.map(|e| format!(", test error {}", percent(e)));
            format!("finished{}", test.unwrap_or_default())
        }
        Event::Stopped { .. } => "stopped".into(),
        Event::Failed { message, .. } => {
            return vec![(Severity::Error, format!("failed: {message}"))];
        }
        Event::Step(_) | Event::Quantizers { .. } => return Vec::new(),
    };
    vec![(Severity::Info, text)]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::quantizer::memory::Role;
    use crate::run::event::{LayerRecord, Tightening};

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

    /// Stopped in the evaluation that follows the quantizers' start: it is made up for, and the float one of
    /// the same step never stands for it. What is evaluated twice counts once.
    #[test]
    fn evaluations_count_from_the_quantizers_start_and_once() {
        let started = |step| Event::Started {
            name: "r".into(),
            device: "flex".into(),
            experiment: String::new(),
            layers: Vec::new(),
            budgets: Vec::new(),
            steps_per_epoch: 10,
            total_steps: 100,
            step,
            parent: None,
        };
        let phase = |step, phase| Event::Phase { step, phase };
        let checked = |step, error| Event::Evaluation {
            step,
            split: Split::Validation,
            error,
            loss: 1.0,
            budget_met: true,
            best: false,
        };
        let mut history = History::default();
        let mut take = |events: &[Event]| {
            events.iter().for_each(|e| history.push(e));
            let counted = history.counted(Split::Validation);
            (history.best(), counted.map(|e| e.step).collect::<Vec<_>>())
        };
        let cut_short = [
            started(0),
            phase(0, Phase::Float),
            checked(10, 0.9),
            checked(20, 0.1),
            phase(20, Phase::Quantized),
        ];
        assert_eq!(take(&cut_short), (None, Vec::new()));
        let goes_on = [
            started(20),
            phase(20, Phase::Quantized),
            checked(20, 0.6),
            checked(30, 0.5),
        ];
        assert_eq!(take(&goes_on), (Some((30, 0.5)), vec![20, 30]));
        let taken_back = [started(25), checked(30, 0.55)];
        assert_eq!(take(&taken_back), (Some((30, 0.55)), vec![20, 30]));
        // A tighter budget: what was evaluated beyond it is no longer best. What the quantizers took at
        // their start is not known.
        let record = |step, weights| {
            let usage = crate::quantizer::memory::Usage {
                weights,
                ..Default::default()
            };
            Event::Step(Box::new(StepRecord {
                step,
                usage,
                ..StepRecord::default()
            }))
        };
        let tighter = Event::Applied {
            step: 50,
            changes: Vec::new(),
            experiment: String::new(),
            budgets: vec![crate::run::event::Budget {
                resource: Resource::Weights,
                limit: 10.0,
            }],
            total_steps: 100,
        };
        let more = [record(40, 12.0), checked(40, 0.2), record(50, 9.0), tighter];
        assert_eq!(take(&more), (Some((30, 0.55)), vec![20, 30, 40]));
    }
}
