//! Memory of weights and activations, the paper's three constraints and BOPs.
//!
//! kB = bits / 8 / 1024 throughout.

use serde::{Deserialize, Serialize};

use super::family::Rules;

/// Bits per element of a tensor that is not quantized.
pub const FLOAT_BITS: f64 = 32.0;

/// kB that `elements` numbers of `bits` occupy.
pub fn kilobytes(elements: usize, bits: f64) -> f64 {
    elements as f64 * bits / 8.0 / 1024.0
}

/// The resource that a budget bounds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Resource {
    /// (8a): all weights and biases, in kB.
    Weights,
    /// (8b): the sum over quantized nonlinearities of one sample's activations, in kB.
    ActivationSum,
    /// (8c): the largest of them, in kB.
    ActivationMax,
    /// Multiply-accumulates times weight bits times activation bits, in 10^9.
    Bops,
}

impl Resource {
    /// All four, in the order of the paper's equations.
    pub const ALL: [Self; 4] = [
        Self::Weights,
        Self::ActivationSum,
        Self::ActivationMax,
        Self::Bops,
    ];

    /// What a plot or table calls it.
    pub fn label(self) -> &'static str {
        match self {
            Self::Weights => "weights (8a)",
            Self::ActivationSum => "activations, sum (8b)",
            Self::ActivationMax => "activations, max (8c)",
            Self::Bops => "BOPs",
        }
    }

    /// The unit of its amounts.
    pub fn unit(self) -> &'static str {
        match self {
            Self::Bops => "GBOP",
            _ => "kB",
        }
    }
}

/// What a stored tensor is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Weights of a convolution or of the classifier.
    Weight,
    /// Biases of a convolution or of the classifier.
    Bias,
    /// Output of a nonlinearity, per sample.
    Activation,
}

impl Role {
    /// The side of the account that it counts on.
    pub fn side(self) -> Side {
        match self {
            Self::Weight | Self::Bias => Side::Weights,
            Self::Activation => Side::Activations,
        }
    }

    /// The word for it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Weight => "weight",
            Self::Bias => "bias",
            Self::Activation => "activation",
        }
    }

    /// One letter for it, in lists.
    pub fn letter(self) -> &'static str {
        match self {
            Self::Weight => "W",
            Self::Bias => "b",
            Self::Activation => "A",
        }
    }
}

/// The two sides of a network's memory: what is kept, and what flows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Side {
    /// Weights and biases, which (8a) bounds.
    Weights,
    /// Activations of one sample, which (8b) and (8c) bound.
    Activations,
}

impl Side {
    /// Both, in the order of figures' panels.
    pub const BOTH: [Self; 2] = [Self::Weights, Self::Activations];

    /// The word for it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Weights => "weights",
            Self::Activations => "activations",
        }
    }
}

/// One stored tensor and the bitwidth it is stored with.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Stored {
    /// Weight, bias or activation.
    pub role: Role,
    /// Elements (of one sample for activations).
    pub elements: usize,
    /// Bits per element.
    pub bits: f64,
}

impl Stored {
    /// kB of this tensor.
    pub fn kilobytes(&self) -> f64 {
        kilobytes(self.elements, self.bits)
    }
}

/// One layer's multiply-accumulates with the tensors they multiply: indices into the stored list,
/// `None` for an operand that is not quantized (32 bit) such as the network's input.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Multiplication {
    /// Multiply-accumulates of one sample.
    pub macs: u64,
    /// The weights.
    pub weight: Option<usize>,
    /// The activations.
    pub activation: Option<usize>,
}

/// What a network takes at its current bitwidths.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Usage {
    /// kB of weights and biases.
    pub weights: f64,
    /// kB of one sample's activations, summed.
    pub activation_sum: f64,
    /// kB of the largest activation of one sample.
    pub activation_max: f64,
    /// 10^9 bit operations of one sample.
    pub gbops: f64,
}

impl Usage {
    /// Adds everything up.
    pub fn of(stored: &[Stored], multiplications: &[Multiplication]) -> Self {
        let mut usage = Self::default();
        for tensor in stored {
            let kb = tensor.kilobytes();
            match tensor.role {
                Role::Weight | Role::Bias => usage.weights += kb,
                Role::Activation => {
                    usage.activation_sum += kb;
                    usage.activation_max = usage.activation_max.max(kb);
                }
            }
        }
        let bits = |index: Option<usize>| index.map_or(FLOAT_BITS, |i| stored[i].bits);
        usage.gbops = multiplications
            .iter()
            .map(|m| m.macs as f64 * bits(m.weight) * bits(m.activation))
            .sum::<f64>()
            / 1e9;
        usage
    }

    /// The amount of one resource.
    pub fn amount(&self, resource: Resource) -> f64 {
        match resource {
            Resource::Weights => self.weights,
            Resource::ActivationSum => self.activation_sum,
            Resource::ActivationMax => self.activation_max,
            Resource::Bops => self.gbops,
        }
    }
}

/// Derivative of a resource with respect to the bitwidth of every stored tensor.
///
/// For the maximum (8c) only the largest activation counts. Of equal ones all share equally in the
/// paper's rules, so that none is favoured by its position; in the published code the first counts.
pub fn bitwidth_slopes(
    resource: Resource,
    rules: Rules,
    stored: &[Stored],
    multiplications: &[Multiplication],
) -> Vec<f64> {
    let per_bit = |t: &Stored| kilobytes(t.elements, 1.0);
    match resource {
        Resource::Weights => stored
            .iter()
            .map(|t| {
                if t.role == Role::Activation {
                    0.0
                } else {
                    per_bit(t)
                }
            })
            .collect(),
        Resource::ActivationSum => stored
            .iter()
            .map(|t| {
                if t.role == Role::Activation {
                    per_bit(t)
                } else {
                    0.0
                }
            })
            .collect(),
        Resource::ActivationMax => {
            let activations = || stored.iter().filter(|t| t.role == Role::Activation);
            let max = activations().map(Stored::kilobytes).fold(0.0, f64::max);
            let is_max = |t: &Stored| t.role == Role::Activation && t.kilobytes() == max;
            if rules == Rules::PublishedCode {
                let first = stored.iter().position(is_max);
                let slope = |(i, t)| if Some(i) == first { per_bit(t) } else { 0.0 };
                return stored.iter().enumerate().map(slope).collect();
            }
            let ties = stored.iter().filter(|t| is_max(t)).count().max(1) as f64;
            stored
                .iter()
                .map(|t| if is_max(t) { per_bit(t) / ties } else { 0.0 })
                .collect()
        }
        Resource::Bops => {
            let mut slopes = vec![0.0; stored.len()];
            let bits = |i: Option<usize>| i.map_or(FLOAT_BITS, |i| stored[i].bits);
            for m in multiplications {
                if let Some(w) = m.weight {
                    slopes[w] += m.macs as f64 * bits(m.activation) / 1e9;
                }
                if let Some(a) = m.activation {
                    slopes[a] += m.macs as f64 * bits(m.weight) / 1e9;
                }
            }
            slopes
        }
    }
}
