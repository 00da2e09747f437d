//! The forward pass: the plan of the graph, step by step.

use burn::tensor::activation;
use burn::tensor::module::{avg_pool2d, conv2d};
use burn::tensor::ops::{AvgPoolOptions, ConvOptions, PadMode};
use burn::tensor::{Device, FloatDType, Tensor, TensorData, s};

use super::Network;
use super::parameter::read;
use crate::graph::{Function, Fused, Graph, NodeId, Operation, Step, Window};
use crate::kernels::{self, Activation, Geometry, Input, MaxPool, NormInputs};
use crate::quantizer::{Grid, Rules};

/// What a forward pass is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// The batch's statistics, recorded for the backward pass; running statistics follow.
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

/// A forward pass in progress: it watches what passes by where someone asked.
pub struct Forward<'a> {
    network: &'a mut Network,
    mode: Mode,
    watch: Watch<'a>,
    /// What each node yielded, as long as somebody reads it.
    values: Vec<Option<Tensor<4>>>,
}

/// What someone wants to see of a forward pass.
enum Watch<'a> {
    Nothing,
    /// Node and output of every step.
    Outputs(&'a mut dyn FnMut(NodeId, &Tensor<4>)),
    /// Node and output of every batch norm, before what the plan joins to it.
    Norms(&'a mut dyn FnMut(NodeId, &Tensor<4>)),
    /// Index and input of every activation quantizer, in use or not.
    QuantizerInputs(&'a mut dyn FnMut(usize, &Tensor<4>)),
}

impl Network {
    /// Logits `[n, classes]` of images `[n, c, h, w]`.
    ///
    /// In all modes but [`Mode::Train`] the images must live on the device without autodiff.
    pub fn forward(&mut self, images: Tensor<4>, mode: Mode) -> Tensor<2> {
        self.run(images, mode, Watch::Nothing)
    }

    /// Forward pass for evaluation that shows what each step yields to `watch`, by its node.
    pub fn watched(
        &mut self,
        images: Tensor<4>,
        mut watch: impl FnMut(NodeId, &Tensor<4>),
    ) -> Tensor<2> {
        self.run(images, Mode::Evaluate, Watch::Outputs(&mut watch))
    }

    /// Forward pass that shows what goes into each activation quantizer, whether or not it is in use,
    /// to `watch`, by its slot.
    pub fn quantizer_inputs(
        &mut self,
        images: Tensor<4>,
        mode: Mode,
        mut watch: impl FnMut(usize, &Tensor<4>),
    ) -> Tensor<2> {
        self.run(images, mode, Watch::QuantizerInputs(&mut watch))
    }

    /// Forward pass for evaluation in float that shows what each batch norm yields to `watch`, by its
    /// node.
    pub(crate) fn norm_outputs(
        &mut self,
        images: Tensor<4>,
        mut watch: impl FnMut(NodeId, &Tensor<4>),
    ) {
        let quantized = std::mem::replace(&mut self.quantized, false);
        self.run(images, Mode::Evaluate, Watch::Norms(&mut watch));
        self.quantized = quantized;
    }

    fn run<'a>(&'a mut self, images: Tensor<4>, mode: Mode, watch: Watch<'a>) -> Tensor<2> {
        let nodes = self.graph.nodes.len();
        let forward = Forward {
            network: self,
            mode,
            watch,
            values: vec![None; nodes],
        };
        forward.run(images)
    }

    /// The parameter or node that first holds a non-finite value for these images.
    pub fn first_non_finite(&mut self, images: Tensor<4>) -> Option<String> {
        let broken = |values: &[f32]| values.iter().any(|v| !v.is_finite());
        if let Some(p) = self.parameters.iter().find(|p| broken(&p.to_vec())) {
            return Some(p.name.clone());
        }
        let mut found = None;
        self.watched(images, |node, output| {
            if found.is_none() && broken(&read(output.clone())) {
                found = Some(node);
            }
        });
        found.map(|node| self.graph.nodes[node].name.clone())
    }
}

impl Forward<'_> {
    fn run(mut self, images: Tensor<4>) -> Tensor<2> {
        let (graph, plan) = (self.network.graph.clone(), self.network.plan.clone());
        let [samples, ..] = images.dims();
        self.values[0] = Some(images);
        for step in &plan.steps {
            let y = match step.fused {
                Some(fused) => self.fused(&graph, step, fused),
                None => self.single(&graph, step),
            };
            if let Watch::Outputs(watch) = &mut self.watch {
                watch(step.output, &y);
            }
            for value in &step.frees {
                self.values[*value] = None;
            }
            self.values[step.output] = Some(y);
        }
        let logits = self.value(graph.output());
        logits.reshape([samples, graph.classes()])
    }

    fn value(&self, node: NodeId) -> Tensor<4> {
        let value = self.values[node].clone();
        value.expect("a plan frees no value before its last reader")
    }

    /// A node by itself, and its quantizer.
    fn single(&mut self, graph: &Graph, step: &Step) -> Tensor<4> {
        let node = &graph.nodes[step.output];
        let input = || self.value(*node.inputs.first().unwrap_or(&0));
        let mut clip = None;
        let y = match &node.operation {
            Operation::Input => input(),
            Operation::Clip { low, high } => {
                clip = Some((*low, *high));
                input()
            }
            Operation::BatchNorm { .. } => unreachable!("a batch norm is a fused step"),
            Operation::Convolution {
                weight,
                bias,
                window,
                groups,
            } if self.is_exact(step.output) => {
                self.exact_sums(input(), *weight, *bias, window, *groups)
            }
            Operation::Convolution {
                weight,
                bias,
                window,
                groups,
            } => {
                let residual = if step.onto_residual {
                    Input::Residual
                } else {
                    Input::Plain
                };
                self.convolution(input(), *weight, *bias, window, *groups, residual)
            }
            Operation::Affine { weight, bias } if self.is_exact(step.output) => {
                let window = Window::square(1, 1, 0);
                self.exact_sums(input(), *weight, *bias, &window, 1)
            }
            Operation::Affine { weight, bias } => self.affine(input(), *weight, *bias),
            Operation::Function(function) => apply(*function, input()),
            Operation::Scale { scale, shift } => {
                let x = input();
                let numbers = |values: &[f32]| numbers(values, &x.device());
                let (scale, shift) = (numbers(scale), numbers(shift));
                x * scale + shift
            }
            Operation::Add => input() + self.value(node.inputs[1]),
            Operation::Multiply => input() * self.value(node.inputs[1]),
            Operation::Concatenate => {
                Tensor::cat(node.inputs.iter().map(|i| self.value(*i)).collect(), 1)
            }
            Operation::MaxPool(window) => max_pooled(input(), window),
            Operation::AveragePool {
                window,
                count_padding,
            } => avg_pool2d(
                input(),
                AvgPoolOptions::new(window.kernel)
                    .with_stride(window.stride)
                    .with_padding_pairs(window.padding.map(|[a, b]| (a, b)))
                    .with_count_include_pad(*count_padding)
                    .with_ceil_mode(window.ceil),
            ),
            Operation::GlobalAverage if self.is_exact(step.output) => {
                let x = input().cast(FloatDType::F64);
                let [n, c, h, w] = x.dims();
                let sums = x.reshape([n, c, h * w]).sum_dim(2);
                sums.reshape([n, c, 1, 1]).cast(FloatDType::F32) / (h * w) as f32
            }
            Operation::GlobalAverage => {
                let x = input();
                let [n, c, h, w] = x.dims();
                x.reshape([n, c, h * w]).mean_dim(2).reshape([n, c, 1, 1])
            }
            Operation::Reshape([c, h, w]) => {
                let x = input();
                let [n, ..] = x.dims();
                x.reshape([n, *c, *h, *w])
            }
            Operation::Subsample { stride, extra } => kernels::subsample(input(), *stride, *extra),
            Operation::Shuffle { groups } => {
                let x = input();
                let [n, c, h, w] = x.dims();
                x.reshape([n, *groups, c / groups, h, w])
                    .swap_dims(1, 2)
                    .reshape([n, c, h, w])
            }
            Operation::Slice { start, end } => input().slice(s![.., *start..*end]),
            Operation::Pad { padding } => padded(input(), *padding),
        };
        let slot = self.network.placement.of_node[step.output];
        self.finish(y, clip, slot)
    }

    /// Clip and quantizer of a value, where it has them.
    fn finish(
        &mut self,
        mut z: Tensor<4>,
        clip: Option<(f32, f32)>,
        slot: Option<usize>,
    ) -> Tensor<4> {
        let grid = self.grid(slot);
        if let Some((low, high)) = clip
            && !grid.is_some_and(|grid| absorbs(&grid, low, high))
        {
            z = clipped(z, low, high);
        }
        if let (Watch::QuantizerInputs(watch), Some(slot)) = (&mut self.watch, slot) {
            watch(slot, &z);
        }
        match (grid, slot) {
            (Some(grid), Some(slot)) => kernels::fake_quantize(z, self.sums(slot), grid),
            _ => z,
        }
    }

    /// The levels of a quantizer in use.
    fn grid(&self, slot: Option<usize>) -> Option<Grid> {
        let slot = slot.filter(|_| self.network.quantized)?;
        Some(self.network.slots[slot].grid())
    }

    /// A batch norm with what the plan joined to it.
    fn fused(&mut self, graph: &Graph, step: &Step, fused: Fused) -> Tensor<4> {
        let Operation::BatchNorm {
            gamma,
            beta,
            norm,
            epsilon,
            momentum,
        } = graph.nodes[fused.norm].operation
        else {
            unreachable!("a fused step begins with a batch norm")
        };
        let x = self.value(graph.nodes[fused.norm].inputs[0]);
        let slot = self.network.placement.of_node[step.output];
        let grid = self.grid(slot);
        let clip = fused.clip.map(|clip| match graph.nodes[clip].operation {
            Operation::Clip { low, high } => (low, high),
            _ => unreachable!("the plan joins clips alone"),
        });
        // Where someone looks between norm and quantizer, they are two operations.
        let looks = match &self.watch {
            Watch::QuantizerInputs(_) => slot.is_some(),
            Watch::Norms(_) => true,
            Watch::Nothing | Watch::Outputs(_) => false,
        };
        let (activation, rest) = match (clip, grid) {
            _ if looks => (Activation::Identity, true),
            (None, None) => (Activation::Identity, false),
            (None, Some(grid)) => (Activation::Quantize(grid), false),
            (Some((low, high)), Some(grid)) if absorbs(&grid, low, high) => {
                (Activation::Quantize(grid), false)
            }
            (Some((low, high)), grid) => (joined(low, high), grid.is_some()),
        };
        let gamma = self.parameter(gamma);
        let sums = match (&activation, slot) {
            (Activation::Quantize(_), Some(slot)) => self.sums(slot),
            _ => gamma.clone().detach(),
        };
        let across = match self.mode {
            Mode::Train | Mode::Measure => self.network.across.clone(),
            Mode::Evaluate | Mode::Estimate { .. } => None,
        };
        let count = {
            let [n, _, h, w] = x.dims();
            (across.as_ref().map_or(n, |a| a.images) * h * w) as f32
        };
        let residual = fused.residual.map(|node| self.value(node));
        let (residual, late) = match self.watch {
            Watch::Norms(_) => (None, residual),
            _ => (residual, None),
        };
        let inputs = NormInputs {
            residual,
            gamma,
            beta: self.parameter(beta),
            sums,
            statistics: match self.mode {
                Mode::Train | Mode::Measure | Mode::Estimate { .. } => None,
                Mode::Evaluate => Some(self.network.running[norm].statistics.clone()),
            },
            epsilon,
            moments: self.network.moments,
            across,
        };
        let (mut y, statistics) = kernels::norm_activation(x, inputs, activation);
        if let Watch::Norms(watch) = &mut self.watch {
            watch(fused.norm, &y);
        }
        if let Some(late) = late {
            y = y + late;
        }
        match self.mode {
            Mode::Train => self.follow(norm, statistics.inner(), count, momentum),
            // The mean over the batches so far.
            Mode::Estimate { batch } => {
                let keep = batch as f32 / (batch + 1) as f32;
                self.follow(norm, statistics, count, keep);
            }
            Mode::Evaluate | Mode::Measure => {}
        }
        if !rest {
            return y;
        }
        self.finish(y, clip.filter(|_| looks), slot)
    }

    fn convolution(
        &self,
        x: Tensor<4>,
        weight: usize,
        bias: Option<usize>,
        window: &Window,
        groups: usize,
        input: Input,
    ) -> Tensor<4> {
        let (x, padding, input) = match window.symmetric_padding() {
            Some(padding) => (x, padding, input),
            // (The padded value is another one: it has one reader.)
            None => (padded(x, window.padding), [0; 2], Input::Plain),
        };
        let geometry = Geometry {
            stride: window.stride,
            padding,
            dilation: window.dilation,
            groups,
            in_order: self.network.rules == Rules::PublishedCode,
        };
        let y = kernels::convolution(x, self.weight(weight), geometry, input);
        match bias {
            Some(bias) => {
                let bias: Tensor<1> = self.quantized_parameter(bias);
                let [channels] = bias.dims();
                y + bias.reshape([1, channels, 1, 1])
            }
            None => y,
        }
    }

    /// Whether a node's sums are taken in f64.
    fn is_exact(&self, node: NodeId) -> bool {
        self.network.exact.get(node).copied().unwrap_or(false)
    }

    /// A convolution or affine layer in f64, rounded once.
    fn exact_sums(
        &self,
        x: Tensor<4>,
        weight: usize,
        bias: Option<usize>,
        window: &Window,
        groups: usize,
    ) -> Tensor<4> {
        let shape = &self.network.parameters[weight].shape;
        let extent = |axis: usize| shape.get(axis).copied().unwrap_or(1);
        let shape = [extent(0), extent(1), extent(2), extent(3)];
        let weight = self.quantized_parameter(weight).reshape(shape);
        let bias = bias.map(|bias| self.quantized_parameter(bias).cast(FloatDType::F64));
        let options = ConvOptions::new(window.stride, [0; 2], window.dilation, groups);
        let x = padded(x, window.padding).cast(FloatDType::F64);
        conv2d(x, weight.cast(FloatDType::F64), bias, options).cast(FloatDType::F32)
    }

    fn affine(&self, x: Tensor<4>, weight: usize, bias: Option<usize>) -> Tensor<4> {
        let [samples, features, ..] = x.dims();
        let flat = self.quantized_parameter(weight);
        let [elements] = flat.dims();
        let outputs = elements / features;
        let weight = flat.reshape([outputs, features]);
        let y = x.reshape([samples, features]).matmul(weight.transpose());
        let y = match bias {
            Some(bias) => y + self.quantized_parameter(bias).reshape([1, outputs]),
            None => y,
        };
        y.reshape([samples, outputs, 1, 1])
    }

    /// A convolution's weights in their shape, quantized where that is in use.
    fn weight(&self, index: usize) -> Tensor<4> {
        let shape = &self.network.parameters[index].shape;
        let shape: [usize; 4] = [shape[0], shape[1], shape[2], shape[3]];
        self.quantized_parameter(index).reshape(shape)
    }

    /// A parameter, quantized where it has a slot in use.
    fn quantized_parameter(&self, index: usize) -> Tensor<1> {
        let value = self.parameter(index);
        let slot = self.network.placement.of_parameter[index];
        match (self.grid(slot), slot) {
            (Some(grid), Some(slot)) => kernels::fake_quantize(value, self.sums(slot), grid),
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

/// Whether a quantizer clips all that the bounds clip: they then change neither values nor gradients.
fn absorbs(grid: &Grid, low: f32, high: f32) -> bool {
    low == 0.0 && !grid.signed && grid.q_max <= high
}

/// The activation that a norm takes along for these bounds.
fn joined(low: f32, high: f32) -> Activation {
    if low == 0.0 && high == f32::INFINITY {
        Activation::Relu
    } else {
        Activation::Clip { low, high }
    }
}

fn clipped(x: Tensor<4>, low: f32, high: f32) -> Tensor<4> {
    match (low, high) {
        (0.0, f32::INFINITY) => activation::relu(x),
        (low, f32::INFINITY) => x.clamp_min(low),
        (f32::NEG_INFINITY, high) => x.clamp_max(high),
        (low, high) => x.clamp(low, high),
    }
}

fn apply(function: Function, x: Tensor<4>) -> Tensor<4> {
    match function {
        Function::Sigmoid => activation::sigmoid(x),
        Function::HardSigmoid { alpha, beta } => (x * alpha + beta).clamp(0.0, 1.0),
        Function::HardSwish => x.clone() * (x / 6.0 + 0.5).clamp(0.0, 1.0),
        Function::LeakyRelu { slope } => activation::leaky_relu(x, slope.into()),
        Function::Tanh => x.tanh(),
    }
}

/// One number, or one per channel, to go over a value.
fn numbers(values: &[f32], device: &Device) -> Tensor<4> {
    Tensor::from_data(
        TensorData::new(values.to_vec(), [1, values.len(), 1, 1]),
        device,
    )
}

fn max_pooled(x: Tensor<4>, window: &Window) -> Tensor<4> {
    let [_, _, height, width] = x.dims();
    let wanted = window.output([height, width]);
    let [rows, columns] = wanted.expect("shapes were inferred with this window");
    let (x, window) = match window.symmetric_padding() {
        Some(_) => (x, *window),
        None => {
            let [top, left] = window.padding.map(|[a, b]| (a, b));
            let smallest = PadMode::Constant(f32::NEG_INFINITY);
            let padding = [[0; 2]; 2];
            (x.pad([top, left], smallest), Window { padding, ..*window })
        }
    };
    let [_, _, height, width] = x.dims();
    let output = window
        .output([height, width])
        .expect("it fits what was padded");
    let pool = MaxPool {
        kernel: window.kernel,
        stride: window.stride,
        padding: window.padding.map(|[before, _]| before),
        dilation: window.dilation,
        ceil: window.ceil,
        output,
    };
    let pooled = kernels::max_pool(x, pool);
    // (What was padded by hand counts as input, and a last window may lie in it alone.)
    match output == [rows, columns] {
        true => pooled,
        false => pooled.narrow(2, 0, rows).narrow(3, 0, columns),
    }
}

fn padded(x: Tensor<4>, [rows, columns]: [[usize; 2]; 2]) -> Tensor<4> {
    let pair = |[a, b]: [usize; 2]| (a, b);
    x.pad([pair(rows), pair(columns)], PadMode::Constant(0.0))
}
