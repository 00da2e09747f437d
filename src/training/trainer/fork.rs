//! A new run from a checkpoint of another: it keeps all that the changed settings do not touch.

use std::path::Path;

use super::Trainer;
use crate::quantizer::{Family, Grid, Learn, Quantizer};
use crate::training::checkpoint::{Checkpoint, CheckpointError, SavedQuantizer};

impl Trainer {
    /// Takes over weights and running statistics, what the quantizers learned, and the optimizer's
    /// moments where its kind is the same; counts from the end of the float phase again. Returns what
    /// could not be kept, a sentence each.
    ///
    /// A quantizer whose parametrization changed gets the parameters of the same levels; where there
    /// are none (the other family, other bounds), the nearest with the same range and bitwidth.
    ///
    /// # Errors
    /// Where the file is damaged or of another network.
    pub fn fork_from(&mut self, path: &Path) -> Result<Vec<String>, CheckpointError> {
        let checkpoint = Checkpoint::open(path)?;
        let was_quantized = checkpoint.state.quantized;
        let saved = checkpoint.state.slots.clone();
        let mut notes = Vec::new();
        match checkpoint.optimizer() {
            Some(kind) if kind == self.experiment.optimizer.kind => {
                checkpoint.take_moments(&self.network, &mut self.optimizer);
            }
            Some(_) => notes.push("the optimizer's moments: its kind changed".into()),
            None => {}
        }
        self.network.load_weights(path, checkpoint.weights, false)?;
        self.epoch = self.experiment.float_epochs;
        self.evaluated = self.epoch;
        if !self.has_quantizers() {
            return Ok(notes);
        }
        // Weights were trained: a float phase has happened already.
        self.initialise_quantizers();
        self.network.quantized = true;
        if !was_quantized {
            return Ok(notes);
        }
        for slot in &mut self.network.slots {
            let own = |s: &&SavedQuantizer| s.name == slot.name && s.role == slot.role;
            let Some(before) = saved.iter().find(own) else {
                notes.push(format!(
                    "{} had no quantizer before: initialised from its values",
                    slot.name
                ));
                continue;
            };
            let (parameters, note) = carried(before, &slot.quantizer);
            slot.parameters = parameters;
            notes.extend(note.map(|note| format!("{}: {note}", slot.name)));
        }
        Ok(notes)
    }
}

/// What a quantizer learned, as parameters of another one.
fn carried(before: &SavedQuantizer, now: &Quantizer) -> ([f64; 2], Option<String>) {
    let (old, parameters) = (&before.quantizer, before.parameters);
    if old == now {
        return (parameters, None);
    }
    let grid = old.grid(parameters);
    let (step, q_max) = (f64::from(grid.step), f64::from(grid.q_max));
    let carried = if old.parametrization == now.parametrization {
        parameters
    } else if old.parametrization.family() == now.parametrization.family() {
        now.parameters_of(step, q_max, grid.bits)
    } else {
        now.spanning(q_max, grid.bits)
    };
    // Its bounds hold for what stands still from here on, too.
    let bounded = Quantizer {
        learn: Learn::Both,
        ..now.clone()
    };
    let carried = bounded.project(carried);
    let after = now.grid(carried);
    let same = (after.step, after.top, after.bits) == (grid.step, grid.top, grid.bits);
    let note = format!("{} became {}", levels(&grid), levels(&after));
    (carried, Some(note).filter(|_| !same))
}

/// A quantizer's levels in words.
fn levels(grid: &Grid) -> String {
    let smallest = match grid.family {
        Family::Uniform => "step",
        Family::PowerOfTwo => "smallest level",
    };
    let (bits, step, top) = (grid.bits, grid.step, grid.top);
    format!("{bits} bits, {smallest} {step}, largest level {top:.4}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::quantizer::memory::Role;
    use crate::quantizer::{InitialBits, Parametrization, Rules, initial_parameters};

    /// Every pair of parametrizations, signed and not: within a family the levels stay.
    #[test]
    fn levels_stay_where_the_parametrization_changes() {
        for from in Parametrization::ALL {
            for to in Parametrization::ALL {
                for signed in [true, false] {
                    // Five bits of a power of two span more octaves than the clamps of q_min.
                    let pow2 = [from, to]
                        .map(Parametrization::family)
                        .contains(&Family::PowerOfTwo);
                    let all = [2.0, 4.0, 5.0, 7.0].into_iter();
                    for bits in all.filter(|b| !pow2 || *b < 5.0) {
                        let old = Quantizer::learned(from, signed, Rules::Paper);
                        let parameters = initial_parameters(&old, 0.7, InitialBits(bits));
                        let before = SavedQuantizer {
                            name: "conv".into(),
                            role: Role::Weight,
                            quantizer: old.clone(),
                            parameters: old.project(parameters),
                        };
                        let now = Quantizer::learned(to, signed, Rules::Paper);
                        let (after, note) = carried(&before, &now);
                        let [a, b] = [old.grid(before.parameters), now.grid(after)];
                        let same_family = from.family() == to.family();
                        assert_eq!(a.bits, b.bits, "{from} to {to}, {bits} bits");
                        assert_eq!(
                            note.is_none(),
                            (a.step, a.top) == (b.step, b.top),
                            "{note:?}"
                        );
                        if same_family {
                            assert_eq!(a.step, b.step, "{from} to {to}");
                            assert_eq!(a.top, b.top, "{from} to {to}, {bits} bits, {signed}");
                        } else {
                            let ratio = b.top / a.top;
                            assert!((0.7..=1.42).contains(&ratio), "{from} to {to}: {ratio}");
                        }
                    }
                }
            }
        }
    }
}
