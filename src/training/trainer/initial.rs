//! The quantizers' first parameters, from weights and from what a first batch yields.

use super::intake::first_batch;
use super::{EVALUATION_BATCH, Trainer};
use crate::graph::Initial;
use crate::network::{Mode, Slot};
use crate::quantizer::memory::Role;
use crate::quantizer::{InitialBits, Rules, initial_parameters};

impl Trainer {
    /// Initialises quantizers from the weights, and from one batch's activations.
    pub(super) fn initialise_quantizers(&mut self) {
        let from_data = |s: &Slot| s.initial == Initial::Data;
        let activations = |s: &&Slot| s.role == Role::Activation && from_data(s);
        let largest = if self.network.slots.iter().any(|s| activations(&s)) {
            self.largest_activations()
        } else {
            Vec::new()
        };
        let mut planned = Vec::with_capacity(self.network.slots.len());
        for (index, slot) in self.network.slots.iter().enumerate() {
            let largest = match slot.role {
                Role::Weight | Role::Bias => self.network.largest_weight(index),
                Role::Activation => largest.get(index).copied(),
            };
            planned.push(match largest.filter(|_| from_data(slot)) {
                Some(largest) => {
                    initial_parameters(&slot.quantizer, largest, InitialBits(slot.bits))
                }
                None => slot.parameters,
            });
        }
        let hysteresis = self.experiment.quantizers.hysteresis > 0.0;
        for (slot, parameters) in self.network.slots.iter_mut().zip(planned) {
            slot.parameters = if hysteresis {
                slot.quantizer.recentred(parameters)
            } else {
                parameters
            };
        }
    }

    /// Largest magnitude of what goes into every activation quantizer, by slot, in float on the
    /// first training pictures. Batch norms take the batch's own statistics, as the training that
    /// follows does: those of a file may belong to other data. (The published code's rules: running
    /// ones.)
    pub(super) fn largest_activations(&mut self) -> Vec<f64> {
        let mut largest = vec![0.0; self.network.slots.len()];
        let Some(batch) = first_batch(&self.splits.train, EVALUATION_BATCH) else {
            return largest;
        };
        let images = self.intake.images(batch);
        let quantized = std::mem::replace(&mut self.network.quantized, false);
        let signed: Vec<bool> = self
            .network
            .slots
            .iter()
            .map(|s| s.quantizer.signed)
            .collect();
        let mode = match self.experiment.rules {
            Rules::Paper => Mode::Measure,
            Rules::PublishedCode => Mode::Evaluate,
        };
        self.network.quantizer_inputs(images, mode, |slot, input| {
            let values = if signed[slot] {
                input.clone().abs()
            } else {
                input.clone()
            };
            // (Nothing positive goes in: no range would help.)
            largest[slot] = f64::from(values.max().into_scalar::<f32>()).max(0.0);
        });
        self.network.quantized = quantized;
        largest
    }
}
