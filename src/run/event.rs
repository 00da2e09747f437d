//! What training says and what it can be told. Plain data.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::experiment::Experiment;
use crate::graph::LayerKind;
use crate::quantizer::memory::{Resource, Role, Usage};
use crate::quantizer::{Parametrization, Quantizer};

/// What training can be told. Taken up between steps; each is acknowledged by an event.
#[derive(Debug, Clone)]
pub enum Command {
    /// Stop after the current step until told otherwise.
    Pause,
    /// Go on.
    Resume,
    /// Take this many steps, then pause.
    Step(u64),
    /// Write a checkpoint now.
    CheckpointNow,
    /// End the run: a checkpoint is written, the run can be resumed.
    Stop,
    /// Take over live (and, at the next epoch, epoch) settings.
    Apply(Arc<Experiment>),
    /// Initialise the quantizers of the layer of that name anew, at the bitwidths they have.
    Reinitialise(String),
}

/// Phase of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// Quantizers are not in use yet.
    Float,
    /// Quantizers are in use.
    Quantized,
}

/// Follows a run's phase through its events. A run that goes on says its phase again, which is no change.
#[derive(Debug, Clone, Copy, Default)]
pub struct Phases(Option<Phase>);

impl Phases {
    /// Takes in the phase of an event; whether the quantizers come into use with it, behind a float phase.
    pub fn begins_quantized(&mut self, now: Phase) -> bool {
        self.0.replace(now) == Some(Phase::Float) && now == Phase::Quantized
    }
}

/// Part of the data.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Split {
    /// Held out of the training part.
    Validation,
    /// Read once, at the end.
    Test,
}

impl Split {
    /// One word.
    pub fn name(self) -> &'static str {
        match self {
            Self::Validation => "validation",
            Self::Test => "test",
        }
    }
}

/// One quantizer of the run, in network order.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LayerInfo {
    /// Name of the layer.
    pub name: String,
    /// What it quantizes.
    pub role: Role,
    /// Kind of its layer.
    pub kind: LayerKind,
    /// Elements, those of a bias that shares the quantizer among them (of one sample for activations).
    pub elements: usize,
    /// Parametrization.
    pub parametrization: Parametrization,
    /// Clamps of (d or q_min) and of q_max, for the plots.
    pub clamps: [[f64; 2]; 2],
    /// All that it is besides its two parameters, once [`Event::Quantizers`] has said so.
    #[serde(skip)]
    pub quantizer: Option<Quantizer>,
}

impl LayerInfo {
    /// Its name among all quantizers: a bias with one of its own is told from its layer's weights.
    pub fn label(&self) -> String {
        match self.role {
            Role::Bias => format!("{}.bias", self.name),
            _ => self.name.clone(),
        }
    }

    /// Step size (or `q_min`) and range of a record as they are used: hardware has powers of two, and
    /// the bitwidth follows from these.
    pub fn used(&self, record: &LayerRecord) -> Option<[f64; 2]> {
        let quantizer = self.quantizer.as_ref()?;
        if !record.d.is_finite() {
            return None;
        }
        let raw = (record.d.into(), record.q_max.into());
        Some(quantizer.used_step_and_range(raw).into())
    }
}

/// One constraint.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Budget {
    /// What it bounds.
    pub resource: Resource,
    /// kB, or 10^9 bit operations.
    pub limit: f64,
}

impl Budget {
    /// Whether a network that takes so much is within it.
    pub fn is_met(&self, usage: &Usage) -> bool {
        // kB are sums of exact multiples of 1/8192; the margin covers their summation.
        usage.amount(self.resource) <= self.limit + 1e-9
    }
}

/// A budget on its way, geometrically, from what the network took to what was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Tightening {
    /// What it bounds.
    pub resource: Resource,
    /// Limit at its beginning, kB or 10^9 bit operations.
    pub from: f64,
    /// Limit from its end on.
    pub to: f64,
    /// Epoch of its beginning.
    pub since: f64,
    /// Epoch of its end.
    pub until: f64,
}

impl Tightening {
    /// The limit in force at an epoch.
    pub fn at(&self, epoch: f64) -> f64 {
        let (length, done) = (self.until - self.since, epoch - self.since);
        if length <= 0.0 || done >= length || self.from <= self.to || self.to <= 0.0 {
            return self.to;
        }
        self.to * (self.from / self.to).powf(1.0 - done / length)
    }
}

/// Seconds of one step, by phase. A GPU goes on computing while the next phases are launched: there the
/// first that reads a result, telemetry, waits for what the others left, and only the sum is exact.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Times {
    /// Waiting for the loader and copying to the device.
    pub data: f32,
    /// Forward pass.
    pub forward: f32,
    /// Backward pass.
    pub backward: f32,
    /// Optimizer and clamps.
    pub update: f32,
    /// Reading telemetry.
    pub telemetry: f32,
}

impl Times {
    /// Seconds of the whole step.
    pub fn total(&self) -> f32 {
        self.data + self.forward + self.backward + self.update + self.telemetry
    }
}

/// One quantizer at one step.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct LayerRecord {
    /// Step size `d` (power-of-two quantizers: `q_min`), unrounded.
    pub d: f32,
    /// Range, unrounded.
    pub q_max: f32,
    /// Bitwidth in use.
    pub bitwidth: f32,
    /// Gradients of the two parameters as the optimizer saw them.
    pub gradients: [f32; 2],
    /// Share of elements outside the range.
    pub clipped: f32,
    /// Share of elements on the zero level.
    pub zeros: f32,
    /// Euclidean norm of the gradient of the weights; NaN for activations.
    pub grad_norm: f32,
    /// Euclidean norm of the weights; NaN for activations.
    pub weight_norm: f32,
}

/// One training step. The step stays the first field: the log is searched by it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct StepRecord {
    /// Steps taken, this one included.
    pub step: u64,
    /// Epochs, with fraction.
    pub epoch: f64,
    /// Seconds of training since the run began, pauses left out.
    pub seconds: f64,
    /// Cross entropy plus penalties times their lambda.
    pub loss: f64,
    /// Mean over the batch, nats.
    pub cross_entropy: f64,
    /// `max(0, g)^2` of (8a), before lambda.
    pub weight_penalty: f64,
    /// The same of (8b) and (8c), summed.
    pub activation_penalty: f64,
    /// Euclidean norm of the gradient of all quantizer parameters: the cross entropy's, and the
    /// penalties', before clipping.
    pub pulls: [f64; 2],
    /// Share of wrong answers on the batch.
    pub train_error: f64,
    /// Learning rate of the weights.
    pub lr: f64,
    /// Memory and bit operations after the step.
    pub usage: Usage,
    /// Whether every budget is met.
    pub budget_met: bool,
    /// Samples per second of this step.
    pub samples_per_s: f64,
    /// Where the time went.
    pub times: Times,
    /// Every quantizer, at the probe's cadence.
    pub layers: Option<Vec<LayerRecord>>,
}

/// Where a forked run comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Parent {
    /// Label of the run.
    pub run: String,
    /// Step of the checkpoint that it was forked at.
    pub step: u64,
}

/// What training says. The same stream feeds the screen, the log and `--json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Event {
    /// First event of a run.
    Started {
        /// Name of the run.
        name: String,
        /// The engine and device, in words.
        device: String,
        /// Resolved experiment, TOML.
        experiment: String,
        /// Every quantizer in network order.
        layers: Vec<LayerInfo>,
        /// Constraints.
        budgets: Vec<Budget>,
        /// Steps of one epoch.
        steps_per_epoch: u64,
        /// Steps of the whole run.
        total_steps: u64,
        /// Steps taken before (a resumed run).
        step: u64,
        /// The run that it was forked from.
        parent: Option<Parent>,
    },
    /// The phase changed before the step after `step`.
    Phase {
        /// Steps taken.
        step: u64,
        /// Phase from here on.
        phase: Phase,
    },
    /// A step was taken.
    Step(Box<StepRecord>),
    /// A part of the data was evaluated.
    Evaluation {
        /// Steps taken.
        step: u64,
        /// Part of the data.
        split: Split,
        /// Share of wrong answers.
        error: f64,
        /// Mean cross entropy, nats.
        loss: f64,
        /// Whether every budget was met.
        budget_met: bool,
        /// Whether this is the best so far among steps that meet the budget.
        best: bool,
    },
    /// A checkpoint was written.
    Checkpoint {
        /// Steps taken.
        step: u64,
        /// File, relative to the run folder.
        file: String,
        /// Whether it is the best so far.
        best: bool,
    },
    /// Settings changed between steps.
    Applied {
        /// Steps taken.
        step: u64,
        /// What changed, one line each.
        changes: Vec<String>,
        /// The resolved experiment from here on, TOML.
        experiment: String,
        /// Constraints from here on.
        budgets: Vec<Budget>,
        /// Steps of the whole run from here on.
        total_steps: u64,
    },
    /// Training waits.
    Paused {
        /// Steps taken.
        step: u64,
    },
    /// Training goes on.
    Resumed {
        /// Steps taken.
        step: u64,
    },
    /// A non-finite value appeared; the run pauses.
    NonFinite {
        /// Steps taken.
        step: u64,
        /// Layer where it first stands, if it could be found.
        layer: Option<String>,
    },
    /// Something is wrong but training goes on.
    Warning {
        /// Steps taken.
        step: u64,
        /// What.
        message: String,
    },
    /// The run came to its end.
    Finished {
        /// Steps taken.
        step: u64,
        /// Error on the test part, if there is one.
        test_error: Option<f64>,
    },
    /// The run was stopped; it can be resumed.
    Stopped {
        /// Steps taken.
        step: u64,
    },
    /// The run ended in an error.
    Failed {
        /// Steps taken.
        step: u64,
        /// What happened.
        message: String,
    },
    /// A quantizer was initialised anew from its values, at the bitwidth it has.
    Reinitialised {
        /// Steps taken.
        step: u64,
        /// Name of its layer.
        layer: String,
        /// What it quantizes.
        role: Role,
        /// What was found, or that someone asked.
        reason: String,
        /// Step size (or `q_min`) and range before, unrounded.
        before: [f64; 2],
        /// The same afterwards.
        after: [f64; 2],
    },
    /// Of the evaluation before it, where there are more than 20 classes.
    TopFive {
        /// Steps taken.
        step: u64,
        /// Part of the data.
        split: Split,
        /// Share of answers whose class is not among the five largest.
        error: f64,
    },
    /// What every quantizer is, in the order of the layers of the [`Event::Started`] before it.
    Quantizers {
        /// Steps taken.
        step: u64,
        /// All of them.
        quantizers: Vec<Quantizer>,
    },
    /// Something worth knowing that asks for nothing.
    Note {
        /// Steps taken.
        step: u64,
        /// What.
        message: String,
    },
    /// Of a run on several ranks, once an epoch: all of them have the same parameters.
    Ranks {
        /// Steps taken.
        step: u64,
        /// How many there are.
        ranks: usize,
        /// CRC-32 of parameters, running statistics and quantizers.
        fingerprint: u32,
        /// Bytes that rank 0 sent per step since the last such event.
        bytes_per_step: f64,
        /// Seconds per step in which rank 0 sent, added up and waited for others.
        seconds_per_step: f64,
    },
    /// Budgets tighten from here on, in place of what was said of them before.
    Tightens {
        /// Steps taken.
        step: u64,
        /// Those that began above what was asked for.
        budgets: Vec<Tightening>,
    },
}

impl Event {
    /// Steps taken when it was said.
    pub fn step(&self) -> u64 {
        match self {
            Self::Step(record) => record.step,
            Self::Started { step, .. }
            | Self::Phase { step, .. }
            | Self::Evaluation { step, .. }
            | Self::Checkpoint { step, .. }
            | Self::Applied { step, .. }
            | Self::Paused { step }
            | Self::Resumed { step }
            | Self::NonFinite { step, .. }
            | Self::Warning { step, .. }
            | Self::Reinitialised { step, .. }
            | Self::TopFive { step, .. }
            | Self::Note { step, .. }
            | Self::Ranks { step, .. }
            | Self::Tightens { step, .. }
            | Self::Quantizers { step, .. }
            | Self::Finished { step, .. }
            | Self::Stopped { step }
            | Self::Failed { step, .. } => *step,
        }
    }

    /// Brings a list of the run's quantizers up to date with what this event says of them.
    pub fn describe(&self, layers: &mut Vec<LayerInfo>) {
        match self {
            Self::Started { layers: all, .. } => layers.clone_from(all),
            Self::Quantizers { quantizers, .. } => {
                for (layer, quantizer) in layers.iter_mut().zip(quantizers) {
                    layer.quantizer = Some(quantizer.clone());
                }
            }
            _ => {}
        }
    }

    /// Whether no event follows.
    pub fn is_last(&self) -> bool {
        matches!(
            self,
            Self::Finished { .. } | Self::Stopped { .. } | Self::Failed { .. }
        )
    }

    /// Bytes of an encoded event that [`Event::peek_step`] needs at most.
    pub(super) const STEP_PREFIX: usize = 12;

    /// The step of an encoded [`Event::Step`], from its first bytes alone; `None` for others.
    pub(super) fn peek_step(bytes: &[u8]) -> Option<u64> {
        /// Place of the variant in the enum, which is how it is encoded.
        const STEP: u32 = 2;
        let (variant, rest) = postcard::take_from_bytes::<u32>(bytes).ok()?;
        let step = postcard::take_from_bytes::<u64>(rest).ok()?.0;
        (variant == STEP).then_some(step)
    }

    /// One JSON object with an `event` field; `layers` names the quantizers of the run.
    ///
    /// Non-finite numbers become `null`.
    pub fn to_json(&self, layers: &[LayerInfo]) -> Value {
        if let Self::Step(record) = self {
            return step_json(record, layers);
        }
        let Ok(Value::Object(outer)) = serde_json::to_value(self) else {
            unreachable!("every event is a variant with fields")
        };
        let (name, fields) = outer.into_iter().next().expect("one variant");
        let mut object = Map::new();
        object.insert("event".into(), snake_case(&name).into());
        if let Value::Object(fields) = fields {
            object.extend(fields);
        }
        Value::Object(object)
    }
}

fn snake_case(name: &str) -> String {
    let mut out = String::new();
    for (i, c) in name.char_indices() {
        if c.is_uppercase() && i > 0 {
            out.push('_');
        }
        out.extend(c.to_lowercase());
    }
    out
}

fn step_json(r: &StepRecord, layers: &[LayerInfo]) -> Value {
    let t = r.times;
    let mut object = json!({
        "event": "step", "step": r.step, "epoch": r.epoch, "seconds": r.seconds, "loss": r.loss,
        "cross_entropy": r.cross_entropy, "weight_penalty": r.weight_penalty,
        "activation_penalty": r.activation_penalty, "gradient_data": r.pulls[0],
        "gradient_penalty": r.pulls[1], "train_error": r.train_error, "lr": r.lr,
        "weight_kb": r.usage.weights, "activation_kb": r.usage.activation_max,
        "activation_sum_kb": r.usage.activation_sum, "activation_max_kb": r.usage.activation_max,
        "gbops": r.usage.gbops, "budget_met": r.budget_met, "samples_per_s": r.samples_per_s,
        "times": {
            "data": t.data, "forward": t.forward, "backward": t.backward, "update": t.update,
            "telemetry": t.telemetry,
        },
    });
    if let Some(records) = &r.layers {
        let all: Vec<Value> = layers
            .iter()
            .zip(records)
            .map(|(i, l)| layer_json(i, l))
            .collect();
        object["layers"] = all.into();
    }
    object
}

fn layer_json(info: &LayerInfo, l: &LayerRecord) -> Value {
    let mut object = json!({
        "name": info.name, "role": info.role, "parametrization": info.parametrization,
        "d": l.d, "q_max": l.q_max, "bitwidth": l.bitwidth, "clipped": l.clipped, "zeros": l.zeros,
    });
    if let Some([d, q_max]) = info.used(l) {
        object["d_used"] = d.into();
        object["q_max_used"] = q_max.into();
    }
    for (name, gradient) in info
        .parametrization
        .parameter_names()
        .into_iter()
        .zip(l.gradients)
    {
        object[format!("grad_{name}")] = gradient.into();
    }
    if info.role != Role::Activation {
        object["grad_norm"] = l.grad_norm.into();
        object["weight_norm"] = l.weight_norm.into();
    }
    object
}

impl StepRecord {
    /// The step as one flat object: what `--json` says, with the layers' values under
    /// `NAME.QUANTITY`. A bias with a quantizer of its own is `NAME.bias.QUANTITY`.
    pub fn flat(&self, layers: &[LayerInfo]) -> Map<String, Value> {
        let Value::Object(mut object) = step_json(self, layers) else {
            unreachable!("a step is an object");
        };
        object.remove("event");
        if let Some(Value::Object(times)) = object.remove("times") {
            object.extend(times.into_iter().map(|(k, v)| (format!("times.{k}"), v)));
        }
        let of_layers = object.remove("layers");
        let of_layers = of_layers.as_ref().and_then(Value::as_array);
        for (info, values) in layers.iter().zip(of_layers.into_iter().flatten()) {
            let bias = if info.role == Role::Bias { ".bias" } else { "" };
            for (key, value) in values.as_object().into_iter().flatten() {
                if !value.is_string() {
                    object.insert(format!("{}{bias}.{key}", info.name), value.clone());
                }
            }
        }
        object
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_read_from_the_first_bytes() {
        for step in [0, 1, 127, 128, 1_000_000, u64::MAX] {
            let record = StepRecord {
                step,
                ..StepRecord::default()
            };
            let bytes = postcard::to_stdvec(&Event::Step(Box::new(record))).expect("encoded");
            let prefix = &bytes[..Event::STEP_PREFIX];
            assert_eq!(Event::peek_step(prefix), Some(step));
        }
        let other = postcard::to_stdvec(&Event::Paused { step: 7 }).expect("encoded");
        assert_eq!(Event::peek_step(&other), None);
    }
}
