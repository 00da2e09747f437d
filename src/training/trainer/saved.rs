//! What a trainer leaves in a checkpoint, and how it goes on from one.

use std::path::Path;

use super::Trainer;
use crate::network::Slot;
use crate::network::weights::Tensors;
use crate::training::checkpoint::{
    self, Checkpoint, CheckpointError, SaveError, SavedQuantizer, State,
};

impl Trainer {
    /// Writes a checkpoint.
    ///
    /// # Errors
    /// Where the disk does not take it, or a value is not finite.
    pub fn save(&mut self, path: &Path) -> Result<(), SaveError> {
        let activations = self.activations();
        self.write(path, activations)
    }

    /// The same in a hurry: without a sample of activations, which only the microscope would show.
    ///
    /// # Errors
    /// As [`Self::save`].
    pub fn save_at_once(&mut self, path: &Path) -> Result<(), SaveError> {
        self.write(path, Tensors::new())
    }

    fn write(&mut self, path: &Path, activations: Tensors) -> Result<(), SaveError> {
        let state = self.state();
        let bytes = checkpoint::bytes(&self.network, &self.optimizer, &state, activations)?;
        Ok(crate::run::write_whole(path, &bytes)?)
    }

    /// Everything besides tensors that a checkpoint holds.
    pub(super) fn state(&self) -> State {
        State {
            step: self.step,
            epoch: self.epoch,
            seconds: self.seconds,
            next_batch: self.next_batch,
            quantized: self.network.quantized,
            slots: self.network.slots.iter().map(saved).collect(),
            quantizers: self.optimizer.quantizers.clone(),
            updates: self.optimizer.updates,
            constraints: self.constraints.clone(),
            best_error: self.best_error,
            loader: self.loader_settings,
            evaluated: self.evaluated,
        }
    }

    /// Continues from a checkpoint, bit for bit on the same device.
    ///
    /// # Errors
    /// Where the file is damaged or of another network.
    pub fn restore(&mut self, path: &Path) -> Result<(), CheckpointError> {
        self.restore_from(path, Checkpoint::open(path)?)
    }

    pub(super) fn restore_from(
        &mut self,
        path: &Path,
        checkpoint: Checkpoint,
    ) -> Result<(), CheckpointError> {
        let state = checkpoint.restore(path, &mut self.network, &mut self.optimizer)?;
        self.step = state.step;
        self.epoch = state.epoch;
        self.seconds = state.seconds;
        self.next_batch = state.next_batch;
        self.constraints = state.constraints;
        self.best_error = state.best_error;
        self.evaluated = state.evaluated;
        // As they were: a change of the batch in mid-epoch waits for the next one here too.
        self.loader_settings = state.loader;
        self.restart_loader();
        Ok(())
    }
}

pub(super) fn saved(slot: &Slot) -> SavedQuantizer {
    SavedQuantizer {
        name: slot.name.clone(),
        role: slot.role,
        quantizer: slot.quantizer.clone(),
        parameters: slot.parameters,
    }
}
