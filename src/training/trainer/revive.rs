//! A way back for layers that have died.
//!
//! A layer is dead where its weights are all clipped, or all on level zero: none of them has a
//! gradient that could bring it back, and batch norm makes the loss blind to their scale. After
//! `quantizers.revive_steps` steps its quantizer is fitted to its weights anew, at the bitwidth it has, or
//! more where the clamps allow no fit at that.

use super::Trainer;
use crate::quantizer::memory::Role;
use crate::quantizer::{InitialBits, Sums, initial_parameters};

/// The reason where someone asked.
pub const ASKED: &str = "asked for";

/// A quantizer that was initialised anew, and why.
#[derive(Debug, Clone, PartialEq)]
pub struct Reinitialised {
    /// Name of its layer.
    pub layer: String,
    /// What it quantizes.
    pub role: Role,
    /// What was found.
    pub reason: String,
    /// Step (or `q_min`) and range before, unrounded.
    pub before: [f64; 2],
    /// The same afterwards.
    pub after: [f64; 2],
}

impl Trainer {
    /// Quantizers that were initialised anew since this was last asked.
    pub fn take_reinitialised(&mut self) -> Vec<Reinitialised> {
        std::mem::take(&mut self.reinitialised)
    }

    /// Initialises the quantizers of a layer anew at the bitwidths they have; `false` where no layer
    /// has that name or no quantizer is in use.
    pub fn reinitialise(&mut self, layer: &str) -> bool {
        let slots = 0..self.network.slots.len();
        let slots: Vec<usize> = slots
            .filter(|i| self.network.quantized && self.network.slots[*i].name == layer)
            .collect();
        for slot in &slots {
            self.reinitialise_slot(*slot, ASKED.into());
        }
        !slots.is_empty()
    }

    /// Counts for how long layers have been dead, and brings back those that were for too long.
    pub(super) fn revive(&mut self, sums: &[Option<Sums>], count: usize) {
        let Some(limit) = self.experiment.quantizers.revive_steps else {
            return;
        };
        let share = self.experiment.verdicts.dead;
        for (slot, sums) in sums.iter().enumerate() {
            let [clipped, zeros] = self.shares(slot, *sums, count);
            let dead = clipped >= share || zeros >= share;
            if self.optimizer.quantizers[slot].count_dead(dead) >= limit {
                let what = if clipped >= share {
                    "clipped"
                } else {
                    "on level zero"
                };
                let percent = clipped.max(zeros) * 100.0;
                let reason = format!("{percent:.1} % of the elements {what} for {limit} steps");
                if !self.reinitialise_slot(slot, reason) {
                    // Not before it has been dead for as long again.
                    self.optimizer.quantizers[slot].count_dead(false);
                }
            }
        }
    }

    /// Initialises a quantizer anew; `false` where nothing comes in, so that no range would help.
    fn reinitialise_slot(&mut self, slot: usize, reason: String) -> bool {
        let of = &self.network.slots[slot];
        let (quantizer, bits) = (of.quantizer.clone(), of.grid().bits);
        let before: [f64; 2] = quantizer.raw_step_and_range(of.parameters).into();
        let parameters = match self.network.slots[slot].parameter {
            Some(parameter) => {
                let values = self.network.parameters[parameter].to_vec();
                quantizer.fitted(&values, bits)
            }
            None => {
                let largest = self.largest_activations().get(slot).copied();
                match largest {
                    Some(largest) if largest > 0.0 => quantizer.recentred(initial_parameters(
                        &quantizer,
                        largest,
                        InitialBits(bits),
                    )),
                    _ => return false,
                }
            }
        };
        let of = &mut self.network.slots[slot];
        of.parameters = quantizer.project(parameters);
        self.optimizer.quantizers[slot].stop();
        self.reinitialised.push(Reinitialised {
            layer: of.name.clone(),
            role: of.role,
            reason,
            before,
            after: quantizer.raw_step_and_range(of.parameters).into(),
        });
        true
    }
}
