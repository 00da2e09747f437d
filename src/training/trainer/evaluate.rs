//! What a run computes without learning from it.

use burn::tensor::{Tensor, TensorData};

use super::intake::first_batch;
use super::ranks::Order;
use super::{EVALUATION_BATCH, Trainer};
use std::sync::Arc;

use crate::dataset::{
    LoaderSettings, Normalisation, Prepared, Samples, shared_batches, training_batches,
};
use crate::integers::{ExportError, Program, Replay};
use crate::kernels::ranks::Group;
use crate::network::weights::Tensors;
use crate::network::{Mode, read_tensor};
use crate::run::Split;

/// Pictures whose activations a checkpoint samples, and values of each quantizer at most.
const SAMPLED_PICTURES: usize = 8;
const SAMPLED_ACTIVATIONS: usize = 4096;

/// Outcome of an evaluation.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Evaluated {
    /// Share of wrong answers.
    pub error: f64,
    /// Mean cross entropy, nats.
    pub loss: f64,
    /// Share of answers whose class is not among the five largest, where there are more than 20.
    pub top_five: Option<f64>,
}

/// What an evaluation adds up.
#[derive(Debug, Clone, Copy, Default)]
struct Totals {
    loss: f64,
    wrong: f64,
    beyond_five: f64,
    count: f64,
    /// Ranks that were told to stop.
    stopped: f64,
}

impl Totals {
    fn add(&mut self, other: Self) {
        self.loss += other.loss;
        self.wrong += other.wrong;
        self.beyond_five += other.beyond_five;
        self.count += other.count;
        self.stopped += other.stopped;
    }

    /// The sums over all ranks.
    fn of_all(self, group: &Group) -> Self {
        let mut values = [
            self.loss,
            self.wrong,
            self.beyond_five,
            self.count,
            self.stopped,
        ];
        group.sum(&mut values);
        let [loss, wrong, beyond_five, count, stopped] = values;
        Self {
            loss,
            wrong,
            beyond_five,
            count,
            stopped,
        }
    }
}

/// Classes from which on an answer among the first five counts for something.
const MANY_CLASSES: usize = 20;
/// Values of the pictures that are evaluated together, at most.
const EVALUATION_VALUES: usize = 1 << 24;

/// Rows whose own class has five or more above it; one that is equal counts as above where it comes first.
fn beyond_largest_five(logits: &[f32], labels: &[u16], classes: usize) -> usize {
    let rows = logits.chunks_exact(classes).zip(labels);
    rows.filter(|(row, label)| {
        let own = usize::from(**label);
        let above = |(class, value): (usize, &f32)| {
            *value > row[own] || (*value == row[own] && class < own)
        };
        // (What is not a number is no answer.)
        !row[own].is_finite() || row.iter().enumerate().filter(|at| above(*at)).count() >= 5
    })
    .count()
}

impl Trainer {
    /// Evaluates on validation (or `None` without one). `go_on` is asked between batches.
    pub fn validate(&mut self, go_on: impl FnMut() -> bool) -> Option<Evaluated> {
        let data = self.splits.validation.clone()?;
        let group = self.group.clone();
        let evaluated = group.together(|| {
            self.tell(|quantizers| Order::Evaluate(Split::Validation, quantizers));
            self.evaluate(data, go_on)
        })?;
        self.evaluated = self.epoch;
        Some(evaluated)
    }

    /// Evaluates on the test part: once, at the end.
    pub fn test(&mut self, go_on: impl FnMut() -> bool) -> Option<Evaluated> {
        let data = self.splits.test.clone()?;
        let group = self.group.clone();
        group.together(|| {
            self.tell(|quantizers| Order::Evaluate(Split::Test, quantizers));
            self.evaluate(data, go_on)
        })
    }

    fn evaluate(
        &mut self,
        data: Arc<dyn Samples>,
        mut go_on: impl FnMut() -> bool,
    ) -> Option<Evaluated> {
        if self.group.leads() {
            self.estimate_norms();
        }
        self.share_running();
        let mut totals = Totals::default();
        let (classes, threads) = (data.classes(), self.experiment.loader_threads);
        let values: usize = data.shape().iter().product();
        let batch = (EVALUATION_VALUES / values.max(1)).clamp(1, EVALUATION_BATCH);
        let normalisation = data.normalisation().clone();
        let program = self.program(&normalisation);
        let program = program.as_ref().map(|program| (program, &normalisation));
        let rounds = data.len().div_ceil(batch).div_ceil(self.group.size());
        let mut batches = shared_batches(data, batch, threads, self.share());
        for _ in 0..rounds {
            let mut round = Totals::default();
            let batch = batches.next();
            if !go_on() {
                if self.group.is_alone() {
                    return None;
                }
                round.stopped = 1.0;
            }
            if let Some(batch) = batch.filter(|_| round.stopped == 0.0) {
                round = self.evaluate_batch(batch, classes, program);
            }
            totals.add(round.of_all(&self.group));
            if totals.stopped > 0.0 {
                return None;
            }
        }
        let Totals {
            loss,
            wrong,
            beyond_five,
            count,
            ..
        } = totals;
        self.left_out_of_all = self.left_out_of(|own| self.group.union(own).len());
        // Nothing could be decoded: no figure.
        (count > 0.0).then(|| Evaluated {
            error: wrong / count,
            loss: loss / count,
            top_five: (classes > MANY_CLASSES).then_some(beyond_five / count),
        })
    }

    fn evaluate_batch(
        &mut self,
        batch: Prepared,
        classes: usize,
        program: Option<(&Program, &Normalisation)>,
    ) -> Totals {
        let labels = batch.labels.clone();
        let logits = match program {
            Some((program, normalisation)) => {
                let codes = program.input_codes(&batch.normalised(normalisation).images);
                Replay::logits_of(program, labels.len(), codes)
            }
            None => {
                let images = self.intake.images(batch);
                read_tensor(self.network.forward(images, Mode::Evaluate))
            }
        };
        let n = labels.len() as f64;
        let (loss, error) = score(&logits, &labels, classes);
        let beyond_five = if classes > MANY_CLASSES {
            beyond_largest_five(&logits, &labels, classes) as f64
        } else {
            0.0
        };
        Totals {
            loss: loss * n,
            wrong: error * n,
            beyond_five,
            count: n,
            stopped: 0.0,
        }
    }

    /// The network in integers, where it is to be evaluated so and can be.
    fn program(&mut self, normalisation: &Normalisation) -> Option<Program> {
        self.not_in_integers = None;
        if !self.experiment.evaluate_integers || !self.network.quantized {
            return None;
        }
        let program = Program::of(&self.network.snapshot(), normalisation);
        match program.require_exact("an evaluation in integers") {
            Ok(()) => Some(program),
            Err(error) => {
                self.not_in_integers = Some(error);
                None
            }
        }
    }

    /// Why the last evaluation was in float although integers were asked for.
    pub fn not_in_integers(&self) -> Option<&ExportError> {
        self.not_in_integers.as_ref()
    }

    /// Computes the running statistics of batch norm anew, from the run's first
    /// `evaluate.norm_batches` training batches: where bitwidths have just moved, or weights swing
    /// between levels, what training left behind belongs to another network.
    ///
    /// The pictures are augmented as in training. Others have other means (a crop that reaches beyond
    /// the picture has black edges), and a network whose weights have two bits does not bear it.
    fn estimate_norms(&mut self) {
        if !self.estimates_norms() {
            return;
        }
        let batches = self.experiment.norm_batches;
        let settings = LoaderSettings::of(&self.experiment, &self.splits);
        let batches = training_batches(self.splits.train.clone(), settings, batches as u64);
        for (number, batch) in batches.enumerate() {
            let images = self.intake.images(batch);
            self.network
                .forward(images, Mode::Estimate { batch: number });
        }
    }

    /// Whether an evaluation computes running statistics anew.
    pub fn estimates_norms(&self) -> bool {
        self.network.quantized && self.experiment.norm_batches > 0
    }

    /// Whether a validation error is the best among steps that met the budget.
    pub fn is_best(&self, error: f64) -> bool {
        self.best_error.is_none_or(|best| error < best) && self.budget_met()
    }

    /// Records the best validation error so far.
    pub fn set_best_error(&mut self, error: Option<f64>) {
        self.best_error = error;
    }

    /// Pictures of the data that were left out so far because they cannot be decoded: by any of the
    /// ranks, as of the last evaluation, where there are several.
    pub fn left_out(&self) -> usize {
        match self.group.is_alone() {
            true => self.left_out_of(|own| own.len()),
            false => self.left_out_of_all,
        }
    }

    /// Counts them, part by part.
    fn left_out_of(&self, count: impl Fn(Vec<usize>) -> usize) -> usize {
        // (Validation is a part of what training is split off from.)
        let parts = self.splits.test.iter().chain([&self.splits.train]);
        parts.map(|part| count(part.which_left_out())).sum()
    }

    /// Epoch of the last evaluation on validation that was completed.
    pub fn evaluated(&self) -> f64 {
        self.evaluated
    }

    /// Best validation error among steps that met the budget.
    pub fn best_error(&self) -> Option<f64> {
        self.best_error
    }

    /// The layer where a non-finite value first stands, after a step whose loss was one.
    pub fn find_non_finite(&mut self) -> Option<String> {
        let (values, shape) = self.last_images.take()?;
        let images = Tensor::from_data(TensorData::new(values, shape), &self.device);
        self.network.first_non_finite(images)
    }

    /// A sample of what goes into each activation quantizer, from the first training pictures:
    /// evenly over pictures, channels and pixels. Empty where none is in use.
    pub(super) fn activations(&mut self) -> Tensors {
        let mut samples = Tensors::new();
        if !self.network.quantized {
            return samples;
        }
        if let Some(batch) = first_batch(&self.splits.train, SAMPLED_PICTURES) {
            let images = self.intake.images(batch);
            let slots = self.network.slots.iter();
            let names: Vec<String> = slots.map(|s| s.name.clone()).collect();
            self.network
                .quantizer_inputs(images, Mode::Evaluate, |slot, input| {
                    let values = read_tensor(input.clone());
                    let step = values.len().div_ceil(SAMPLED_ACTIVATIONS).max(1);
                    let sample: Vec<f32> = values.into_iter().step_by(step).collect();
                    samples.insert(names[slot].clone(), (vec![sample.len()], sample));
                });
        }
        samples
    }
}

/// Mean cross entropy (nats) and share of wrong answers, from logits on the host in f64.
pub(super) fn score(logits: &[f32], labels: &[u16], classes: usize) -> (f64, f64) {
    let (mut loss, mut wrong) = (0.0, 0.0);
    for (row, label) in logits.chunks_exact(classes).zip(labels) {
        let largest = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let sum: f64 = row.iter().map(|v| f64::from(v - largest).exp()).sum();
        let own = f64::from(row[usize::from(*label)] - largest);
        loss += sum.ln() - own;
        let best = row.iter().position(|v| *v == largest);
        wrong += f64::from(best != Some(usize::from(*label)));
    }
    let n = labels.len() as f64;
    (loss / n, wrong / n)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_among_the_first_five_is_right() {
        let row: Vec<f32> = (0..30).map(|i| -(i as f32)).collect();
        let rows = [
            row.clone(),
            row.clone(),
            row,
            vec![1.0; 30],
            vec![f32::NAN; 30],
        ]
        .concat();
        assert_eq!(beyond_largest_five(&rows, &[0, 4, 5, 4, 0], 30), 2);
        assert_eq!(beyond_largest_five(&rows[90..], &[5, 0], 30), 2);
    }

    /// Augmented far enough that other pictures have other statistics: black edges of 16 pixels.
    const CROPPED: &str = r#"
device = "flex"

[data]
samples = 200
augment = "crop-flip"
crop_padding = 16

[train]
batch = 64

[weights]
quantizer = "u3"

[evaluate]
norm_batches = 1
"#;

    #[test]
    fn running_statistics_are_those_of_the_batches_that_a_run_trains_on() {
        let loaded = crate::experiment::load_embedded("e.toml", CROPPED, &Vec::new());
        let experiment = loaded.expect("valid").experiment;
        let splits = crate::dataset::open(&experiment).expect("generated");
        let settings = LoaderSettings::of(&experiment, &splits);
        let flex = crate::device::parse("flex").expect("compiled in");
        let device = crate::device::burn_device(flex);
        let mut trainer = Trainer::new(experiment, splits, device).expect("built");
        trainer.enter_phase();
        trainer.validate(|| true).expect("not stopped");
        let batch = training_batches(trainer.splits.train.clone(), settings, 1).next();
        let images = trainer.intake.images(batch.expect("one"));
        let [own, running] = [Mode::Measure, Mode::Evaluate]
            .map(|mode| read_tensor(trainer.network.forward(images.clone(), mode)));
        let largest = own.iter().fold(0f32, |m, v| m.max(v.abs()));
        for (a, b) in own.iter().zip(&running) {
            // A running variance is the unbiased one.
            assert!((a - b).abs() < 0.01 * largest, "{a} {b}");
        }
    }
}
