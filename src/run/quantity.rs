//! What is recorded over the steps of a run: a list of quantities, and the one table from a record to
//! their series.

use std::ops::{Index, IndexMut};

use serde::{Deserialize, Serialize};

use super::event::{LayerRecord, StepRecord};
use super::series::Series;

/// What a run records over its steps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Quantity {
    /// Loss.
    Loss,
    /// Cross entropy.
    CrossEntropy,
    /// Share of wrong answers on the batch.
    TrainError,
    /// Learning rate.
    Lr,
    /// kB of weights.
    WeightKb,
    /// kB of activations, summed.
    ActivationSumKb,
    /// kB of the largest activation.
    ActivationMaxKb,
    /// 10^9 bit operations.
    Gbops,
    /// (8a)'s excess squared.
    WeightPenalty,
    /// (8b)'s and (8c)'s.
    ActivationPenalty,
    /// What the penalties add to the loss.
    Penalty,
    /// The penalties' share of the gradient of all quantizer parameters, 0 to 1.
    Pull,
    /// Seconds of training, pauses left out.
    Seconds,
    /// Epochs.
    Epochs,
    /// Samples per second.
    SamplesPerSecond,
    /// Seconds that a step waited for its batch.
    DataTime,
    /// Seconds of the forward pass.
    ForwardTime,
    /// Seconds of the backward pass.
    BackwardTime,
    /// Seconds of telemetry.
    TelemetryTime,
    /// Seconds of the update.
    UpdateTime,
    /// 1 where every budget is met, else 0.
    BudgetMet,
    /// Error on the validation part.
    ValidationError,
    /// Loss on the validation part.
    ValidationLoss,
    /// Share of answers on the validation part whose class is not among the five largest.
    ValidationTopFive,
    /// Limit of the weights where it tightened, kB.
    WeightLimit,
    /// Limit of all activations where it tightened, kB.
    ActivationSumLimit,
    /// Limit of the largest activation where it tightened, kB.
    ActivationMaxLimit,
    /// Limit of 10^9 bit operations where it tightened.
    GbopsLimit,
}

/// What a run records over its steps for every quantizer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LayerQuantity {
    /// Step size (or `q_min`).
    StepSize,
    /// Range.
    Range,
    /// Bitwidth.
    Bitwidth,
    /// Magnitude of the gradient of the first parameter.
    FirstGradient,
    /// Magnitude of the gradient of the second parameter.
    SecondGradient,
    /// Norm of the weights' gradient.
    GradientNorm,
    /// Share outside the range.
    Clipped,
    /// Share on the zero level.
    Zeros,
}

/// How a quantity is read off a record.
type Of<Q, R> = (Q, fn(&R) -> f64);

/// From a step's record. Those of an evaluation are not in it.
pub(super) const OF_STEP: [Of<Quantity, StepRecord>; 21] = [
    (Quantity::Loss, |r| r.loss),
    (Quantity::CrossEntropy, |r| r.cross_entropy),
    (Quantity::TrainError, |r| r.train_error),
    (Quantity::Lr, |r| r.lr),
    (Quantity::WeightKb, |r| r.usage.weights),
    (Quantity::ActivationSumKb, |r| r.usage.activation_sum),
    (Quantity::ActivationMaxKb, |r| r.usage.activation_max),
    (Quantity::Gbops, |r| r.usage.gbops),
    (Quantity::WeightPenalty, |r| r.weight_penalty),
    (Quantity::ActivationPenalty, |r| r.activation_penalty),
    (Quantity::Penalty, |r| r.loss - r.cross_entropy),
    (Quantity::Pull, |r| share(r.pulls)),
    (Quantity::Seconds, |r| r.seconds),
    (Quantity::Epochs, |r| r.epoch),
    (Quantity::SamplesPerSecond, |r| r.samples_per_s),
    (Quantity::DataTime, |r| r.times.data.into()),
    (Quantity::ForwardTime, |r| r.times.forward.into()),
    (Quantity::BackwardTime, |r| r.times.backward.into()),
    (Quantity::TelemetryTime, |r| r.times.telemetry.into()),
    (Quantity::UpdateTime, |r| r.times.update.into()),
    (Quantity::BudgetMet, |r| f64::from(u8::from(r.budget_met))),
];

/// From a quantizer's record.
pub(super) const OF_LAYER: [Of<LayerQuantity, LayerRecord>; 8] = [
    (LayerQuantity::StepSize, |r| r.d.into()),
    (LayerQuantity::Range, |r| r.q_max.into()),
    (LayerQuantity::Bitwidth, |r| r.bitwidth.into()),
    (LayerQuantity::FirstGradient, |r| {
        r.gradients[0].abs().into()
    }),
    (LayerQuantity::SecondGradient, |r| {
        r.gradients[1].abs().into()
    }),
    (LayerQuantity::GradientNorm, |r| r.grad_norm.into()),
    (LayerQuantity::Clipped, |r| r.clipped.into()),
    (LayerQuantity::Zeros, |r| r.zeros.into()),
];

/// The second of two norms in their sum of squares; NaN where both are zero.
fn share([data, penalty]: [f64; 2]) -> f64 {
    let (data, penalty) = (data * data, penalty * penalty);
    penalty / (data + penalty)
}

/// Phases of a step, in the order they happen.
pub const PHASES: [(&str, Quantity); 5] = [
    ("data", Quantity::DataTime),
    ("forward", Quantity::ForwardTime),
    ("backward", Quantity::BackwardTime),
    ("telemetry", Quantity::TelemetryTime),
    ("update", Quantity::UpdateTime),
];

/// One series for every quantity of a run.
pub(super) type RunSeries = [Series; Quantity::GbopsLimit as usize + 1];
/// One series for every quantity of a quantizer.
pub(super) type LayerSeries = [Series; LayerQuantity::Zeros as usize + 1];

/// Series by quantity.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct Table<A>(pub A);

impl Index<Quantity> for Table<RunSeries> {
    type Output = Series;

    fn index(&self, quantity: Quantity) -> &Series {
        &self.0[quantity as usize]
    }
}

impl IndexMut<Quantity> for Table<RunSeries> {
    fn index_mut(&mut self, quantity: Quantity) -> &mut Series {
        &mut self.0[quantity as usize]
    }
}

impl Index<LayerQuantity> for Table<LayerSeries> {
    type Output = Series;

    fn index(&self, quantity: LayerQuantity) -> &Series {
        &self.0[quantity as usize]
    }
}

impl IndexMut<LayerQuantity> for Table<LayerSeries> {
    fn index_mut(&mut self, quantity: LayerQuantity) -> &mut Series {
        &mut self.0[quantity as usize]
    }
}
