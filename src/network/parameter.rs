//! Learned tensors, running statistics and quantizer slots.

use burn::tensor::{Device, Tensor, TensorData};

use crate::graph::{Initial, Kind, LayerKind, Placed};
use crate::quantizer::memory::Role;
use crate::quantizer::{Grid, Quantizer, Sums};

/// One learned tensor. It is kept flat, so that the optimizer, checkpoints and the probe treat all
/// of them alike; the forward pass gives it its shape.
pub struct Parameter {
    /// Name of the layer and what it is, such as `s1.b1.conv1.weight`.
    pub name: String,
    /// What it is.
    pub kind: Kind,
    /// Its shape in the forward pass.
    pub shape: Vec<usize>,
    /// The leaf, `[elements]`, which requires a gradient.
    pub value: Tensor<1>,
}

impl Parameter {
    /// Number of elements.
    pub fn elements(&self) -> usize {
        self.shape.iter().product()
    }

    /// Replaces the value by one computed without a graph.
    pub fn set(&mut self, value: Tensor<1>) {
        self.value = Tensor::from_inner(value).require_grad();
    }

    /// The elements on the host.
    pub fn to_vec(&self) -> Vec<f32> {
        read(self.value.clone().inner())
    }
}

/// The elements of a tensor on the host, as f32.
pub(crate) fn read<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    tensor
        .into_data()
        .try_to_vec::<f32>()
        .expect("every float tensor of the network is f32")
}

/// A leaf made of host values.
pub(super) fn leaf(values: Vec<f32>, device: &Device) -> Tensor<1> {
    let length = values.len();
    Tensor::from_data(TensorData::new(values, [length]), device).require_grad()
}

/// Running mean and variance of a batch norm, `[2, c]`, on the device without a graph.
pub struct Running {
    /// Names of the two rows in files of weights.
    pub entries: [String; 2],
    /// Row 0 the means, row 1 the unbiased variances.
    pub statistics: Tensor<2>,
}

/// One quantizer of the network.
pub struct Slot {
    /// Name of its layer.
    pub name: String,
    /// What it quantizes.
    pub role: Role,
    /// Kind of its layer.
    pub kind: LayerKind,
    /// Elements it quantizes (of one sample for activations).
    pub elements: usize,
    /// The learned tensor that it quantizes first; `None` for activations.
    pub parameter: Option<usize>,
    /// The learned tensor that it is initialised from.
    pub source: Option<usize>,
    /// Parametrization, sign, rules, clamps.
    pub quantizer: Quantizer,
    /// The two parameters (the float masters).
    pub parameters: [f64; 2],
    /// Where they start.
    pub initial: Initial,
    /// Bitwidth that initialisation aims at.
    pub bits: f64,
    /// Leaf `[4]` whose gradient carries [`Sums`] out of the backward pass.
    pub sums: Tensor<1>,
}

impl Slot {
    pub(super) fn new(placed: &Placed, device: &Device) -> Self {
        Self {
            name: placed.name.clone(),
            role: placed.role,
            kind: placed.kind,
            elements: placed.elements,
            parameter: placed.parameter,
            source: placed.source,
            quantizer: placed.plan.quantizer.clone(),
            parameters: placed.plan.parameters(),
            initial: placed.plan.initial,
            bits: placed.plan.bits,
            sums: leaf(vec![0.0; Sums::LEN], device),
        }
    }

    /// The levels in use now.
    pub fn grid(&self) -> Grid {
        self.quantizer.grid(self.parameters)
    }
}
