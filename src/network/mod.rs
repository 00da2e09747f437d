//! Quantized layers and the models built from them.
//!
//! Doors:
//! - [`Network`]: parameters, quantizers and the forward pass; built from a [`Model`].
//! - [`Slot`]: one quantizer in network order, with its name, role and current parameters.
//! - [`Parameter`]: one learned tensor, flat, with its name, kind and shape.
//! - [`weights`]: names and layouts of other programs' weights, as safetensors.
//!
//! A network knows nothing of optimizers, budgets or screens.

mod build;
mod forward;
mod kind;
mod model;
mod parameter;
pub mod weights;

pub use build::{Quantization, QuantizerPlan};
pub use forward::{Forward, Mode};
pub use kind::LayerKind;
pub use model::{Model, Shortcut};
pub(crate) use parameter::read as read_tensor;
pub use parameter::{Kind, Parameter, Running, Slot};

use burn::tensor::Device;

use crate::kernels::{Geometry, Moments};
use crate::quantizer::Rules;
use crate::quantizer::memory::{FLOAT_BITS, Multiplication, Role, Stored, Usage};

/// Added to the variance in every batch norm.
pub const NORM_EPSILON: f32 = 1e-5;

/// A network with its parameters and quantizers.
pub struct Network {
    /// Every learned tensor, in network order.
    pub parameters: Vec<Parameter>,
    /// Running statistics of every batch norm, in network order.
    pub running: Vec<Running>,
    /// Every quantizer, in network order.
    pub slots: Vec<Slot>,
    /// Whether the quantizers are in use; a float phase leaves them out.
    pub quantized: bool,
    modules: Vec<Module>,
    classifier: Classifier,
    stored: Vec<StoredTensor>,
    multiplications: Vec<Multiplication>,
    /// How batch norms sum their statistics.
    moments: Moments,
    device: Device,
    rules: Rules,
}

/// A stored tensor and the slot that decides its bitwidth.
#[derive(Debug, Clone, Copy)]
struct StoredTensor {
    role: Role,
    elements: usize,
    slot: Option<usize>,
}

enum Module {
    Unit(Unit),
    Block(Box<Block>),
}

/// Convolution, batch norm, activation. Indices point into the network's lists.
struct Unit {
    weight: usize,
    weight_shape: [usize; 4],
    weight_slot: Option<usize>,
    geometry: Geometry,
    gamma: usize,
    beta: usize,
    running: usize,
    activation: UnitActivation,
}

#[derive(Clone, Copy)]
enum UnitActivation {
    Identity,
    /// ReLU, quantized where a slot is given.
    Relu(Option<usize>),
}

/// Two units and a shortcut around them.
struct Block {
    first: Unit,
    second: Unit,
    around: Around,
}

enum Around {
    Identity,
    /// Type A: every `stride`-th pixel, zeros for the `extra` channels.
    Subsample {
        stride: usize,
        extra: usize,
    },
    /// Types B and C: 1x1 convolution and batch norm.
    Projection(Box<Unit>),
}

struct Classifier {
    weight: usize,
    shape: [usize; 2],
    weight_slot: Option<usize>,
    bias: usize,
    bias_slot: Option<usize>,
}

impl Network {
    /// The device that it computes on (with autodiff).
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// The rule set that it was built for.
    pub fn rules(&self) -> Rules {
        self.rules
    }

    /// Bits of every stored tensor now.
    pub fn stored(&self) -> Vec<Stored> {
        self.stored
            .iter()
            .map(|s| self.resolve(s, |slot| slot.grid().bits))
            .collect()
    }

    /// The smallest usage that the bitwidth clamps allow.
    pub fn least_usage(&self) -> Usage {
        let least = |s: &StoredTensor| self.resolve(s, Slot::least_bits);
        let stored: Vec<Stored> = self.stored.iter().map(least).collect();
        Usage::of(&stored, &self.multiplications)
    }

    fn resolve(&self, s: &StoredTensor, bits: impl Fn(&Slot) -> f64) -> Stored {
        let bits = match s.slot {
            Some(slot) if self.quantized => bits(&self.slots[slot]),
            _ => FLOAT_BITS,
        };
        Stored {
            role: s.role,
            elements: s.elements,
            bits,
        }
    }

    /// The slot behind every stored tensor, in the order of [`Self::stored`].
    pub fn stored_slots(&self) -> Vec<Option<usize>> {
        self.stored.iter().map(|s| s.slot).collect()
    }

    /// Layers' multiply-accumulates, as indices into [`Self::stored`].
    pub fn multiplications(&self) -> &[Multiplication] {
        &self.multiplications
    }

    /// Memory and bit operations now.
    pub fn usage(&self) -> Usage {
        Usage::of(&self.stored(), &self.multiplications)
    }

    /// Number of learned weights and biases that count as stored (without batch norm).
    pub fn stored_weights(&self) -> usize {
        let weights = self.stored.iter().filter(|s| s.role != Role::Activation);
        weights.map(|s| s.elements).sum()
    }
}
