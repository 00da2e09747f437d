//! The forward pass.

use burn::tensor::{Tensor, s};

use super::parameter::read;
use super::{Around, Block, Module, NORM_EPSILON, Network, Unit, UnitActivation};
use crate::kernels::{self, Activation, Input, NormInputs};

/// What a forward pass is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// The batch's statistics, recorded for the backward pass; running statistics follow with
    /// this momentum.
    Train,
    /// Running statistics, nothing recorded.
    Evaluate,
    /// The batch's statistics, nothing recorded, running statistics untouched: what the loss would
    /// be on this batch in training.
    Measure,
    /// The batch's statistics, nothing recorded; running statistics become the mean over these
    /// batches, of which this is number `batch` from 0.
    Estimate {
        /// Batches seen before.
        batch: usize,
    },
}

/// Weight of the old value in the running statistics.
const RUNNING_MOMENTUM: f32 = 0.9;

/// A forward pass in progress: it watches what passes by where someone asked.
pub struct Forward<'a> {
    network: &'a mut Network,
    mode: Mode,
    watch: Watch<'a>,
}

/// What someone wants to see of a forward pass.
enum Watch<'a> {
    Nothing,
    /// Name and output of every unit.
    Outputs(Look<'a>),
    /// Name and input of every activation quantizer in use.
    QuantizerInputs(Look<'a>),
}

type Look<'a> = &'a mut dyn FnMut(&str, &Tensor<4>);

impl Network {
    /// Logits `[n, classes]` of images `[n, 3, h, w]`.
    ///
    /// In all modes but [`Mode::Train`] the images must live on the device without autodiff.
    pub fn forward(&mut self, images: Tensor<4>, mode: Mode) -> Tensor<2> {
        Forward {
            network: self,
            mode,
            watch: Watch::Nothing,
        }
        .run(images)
    }

    /// Forward pass for evaluation that shows each unit's output to `watch`.
    pub fn watched(
        &mut self,
        images: Tensor<4>,
        mut watch: impl FnMut(&str, &Tensor<4>),
    ) -> Tensor<2> {
        self.shown(images, Watch::Outputs(&mut watch))
    }

    /// Forward pass for evaluation that shows what goes into each activation quantizer to `watch`,
    /// by the quantizer's name.
    pub fn quantizer_inputs(
        &mut self,
        images: Tensor<4>,
        mut watch: impl FnMut(&str, &Tensor<4>),
    ) -> Tensor<2> {
        self.shown(images, Watch::QuantizerInputs(&mut watch))
    }

    fn shown<'a>(&'a mut self, images: Tensor<4>, watch: Watch<'a>) -> Tensor<2> {
        Forward {
            network: self,
            mode: Mode::Evaluate,
            watch,
        }
        .run(images)
    }

    /// The layer whose parameters or output first hold a non-finite value for these images.
    pub fn first_non_finite(&mut self, images: Tensor<4>) -> Option<String> {
        let broken = |values: &[f32]| values.iter().any(|v| !v.is_finite());
        if let Some(p) = self.parameters.iter().find(|p| broken(&p.to_vec())) {
            return Some(p.name.clone());
        }
        let mut found = None;
        let logits = self.watched(images, |name, output| {
            if found.is_none() && broken(&read(output.clone())) {
                found = Some(name.to_owned());
            }
        });
        found.or_else(|| broken(&read(logits)).then(|| "classifier".to_owned()))
    }
}

impl Forward<'_> {
    fn run(&mut self, images: Tensor<4>) -> Tensor<2> {
        let mut x = images;
        let modules = std::mem::take(&mut self.network.modules);
        for module in &modules {
            x = match module {
                Module::Unit(unit) => self.unit(unit, x, None, Input::Plain),
                Module::Block(block) => self.block(block, x),
            };
        }
        self.network.modules = modules;
        self.classify(x)
    }

    fn block(&mut self, block: &Block, x: Tensor<4>) -> Tensor<4> {
        let (around, input) = match &block.around {
            Around::Identity => (x.clone(), Input::Residual),
            Around::Subsample { stride, extra } => {
                let around = kernels::subsample(x.clone(), *stride, *extra);
                (around, Input::Plain)
            }
            Around::Projection(unit) => {
                let around = self.unit(unit, x.clone(), None, Input::Plain);
                (around, Input::Plain)
            }
        };
        let x = self.unit(&block.first, x, None, input);
        self.unit(&block.second, x, Some(around), Input::Plain)
    }

    fn unit(
        &mut self,
        unit: &Unit,
        x: Tensor<4>,
        residual: Option<Tensor<4>>,
        input: Input,
    ) -> Tensor<4> {
        let weight = self
            .weight(unit.weight, unit.weight_slot)
            .reshape(unit.weight_shape);
        let x = kernels::convolution(x, weight, unit.geometry, input);
        let activation = match unit.activation {
            UnitActivation::Identity => Activation::Identity,
            UnitActivation::Relu(Some(slot)) if self.network.quantized => {
                Activation::Quantize(self.network.slots[slot].grid())
            }
            UnitActivation::Relu(_) => Activation::Relu,
        };
        let gamma = self.parameter(unit.gamma);
        let sums = match unit.activation {
            UnitActivation::Relu(Some(slot)) => self.sums(slot),
            _ => gamma.clone().detach(),
        };
        let statistics = match self.mode {
            Mode::Train | Mode::Measure | Mode::Estimate { .. } => None,
            Mode::Evaluate => Some(self.network.running[unit.running].statistics.clone()),
        };
        let count = {
            let [n, _, h, w] = x.dims();
            (n * h * w) as f32
        };
        let inputs = NormInputs {
            residual,
            gamma,
            beta: self.parameter(unit.beta),
            sums,
            statistics,
            epsilon: NORM_EPSILON,
            moments: self.network.moments,
        };
        let (y, statistics) = self.norm(unit, x, inputs, activation);
        match self.mode {
            Mode::Train => self.follow(unit.running, statistics.inner(), count, RUNNING_MOMENTUM),
            // The mean over the batches so far.
            Mode::Estimate { batch } => {
                let keep = batch as f32 / (batch + 1) as f32;
                self.follow(unit.running, statistics, count, keep);
            }
            Mode::Evaluate | Mode::Measure => {}
        }
        if let Watch::Outputs(watch) = &mut self.watch {
            watch(&self.network.running[unit.running].name, &y);
        }
        y
    }

    /// Batch norm and activation in one; in two where someone looks between them.
    fn norm(
        &mut self,
        unit: &Unit,
        x: Tensor<4>,
        inputs: NormInputs,
        activation: Activation,
    ) -> (Tensor<4>, Tensor<2>) {
        match (&mut self.watch, activation, unit.activation) {
            (
                Watch::QuantizerInputs(watch),
                Activation::Quantize(grid),
                UnitActivation::Relu(Some(slot)),
            ) => {
                let sums = inputs.sums.clone();
                let (z, statistics) = kernels::norm_activation(x, inputs, Activation::Identity);
                watch(&self.network.slots[slot].name, &z);
                (kernels::fake_quantize(z, sums, grid), statistics)
            }
            _ => kernels::norm_activation(x, inputs, activation),
        }
    }

    fn classify(&self, x: Tensor<4>) -> Tensor<2> {
        let c = &self.network.classifier;
        let [n, channels, h, w] = x.dims();
        let pooled = x
            .reshape([n, channels, h * w])
            .mean_dim(2)
            .reshape([n, channels]);
        let weight = self.weight(c.weight, c.weight_slot).reshape(c.shape);
        let bias = self.weight(c.bias, c.bias_slot).reshape([1, c.shape[0]]);
        pooled.matmul(weight.transpose()) + bias
    }

    /// A parameter, quantized where it has a slot in use.
    fn weight(&self, index: usize, slot: Option<usize>) -> Tensor<1> {
        let value = self.parameter(index);
        match slot {
            Some(slot) if self.network.quantized => {
                kernels::fake_quantize(value, self.sums(slot), self.network.slots[slot].grid())
            }
            _ => value,
        }
    }

    fn parameter(&self, index: usize) -> Tensor<1> {
        self.in_mode(&self.network.parameters[index].value)
    }

    fn sums(&self, slot: usize) -> Tensor<1> {
        self.in_mode(&self.network.slots[slot].sums)
    }

    fn in_mode(&self, leaf: &Tensor<1>) -> Tensor<1> {
        match self.mode {
            Mode::Train => leaf.clone(),
            Mode::Evaluate | Mode::Measure | Mode::Estimate { .. } => leaf.clone().inner(),
        }
    }

    /// Moves the running statistics towards the batch's by `1 - keep`; the variance is unbiased there.
    fn follow(&mut self, index: usize, batch: Tensor<2>, count: f32, keep: f32) {
        let bessel = count / (count - 1.0).max(1.0);
        let mean = batch.clone().slice(s![0..1, ..]);
        let variance = batch.slice(s![1..2, ..]) * bessel;
        let new = Tensor::cat(vec![mean, variance], 0) * (1.0 - keep);
        let running = &mut self.network.running[index].statistics;
        *running = running.clone() * keep + new;
    }
}
