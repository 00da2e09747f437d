//! Kinds of layers, as the paper's figures tell them apart.

use serde::{Deserialize, Serialize};

/// What a quantizer belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LayerKind {
    /// A convolution that mixes pixels and channels.
    Convolution,
    /// A convolution of every channel by itself.
    Depthwise,
    /// A 1x1 convolution.
    Pointwise,
    /// A fully connected layer.
    Affine,
    /// A nonlinearity, whose output is quantized.
    Nonlinearity,
    /// The network's input.
    Input,
    /// A sum or product of two values.
    Addition,
    /// A pooling.
    Pooling,
    /// Values behind one another.
    Concatenation,
    /// What a layer without a nonlinearity yields.
    Linear,
}

impl LayerKind {
    /// Of a convolution with weights `[o, c / groups, kh, kw]`.
    pub fn of_convolution(shape: [usize; 4], groups: usize) -> Self {
        match shape {
            [_, 1, ..] if groups > 1 => Self::Depthwise,
            [_, _, 1, 1] => Self::Pointwise,
            _ => Self::Convolution,
        }
    }

    /// Whether it is of an activation, not of weights.
    pub fn is_activation(self) -> bool {
        match self {
            Self::Convolution | Self::Depthwise | Self::Pointwise | Self::Affine => false,
            Self::Nonlinearity
            | Self::Input
            | Self::Addition
            | Self::Pooling
            | Self::Concatenation
            | Self::Linear => true,
        }
    }

    /// In one word.
    pub fn word(self) -> &'static str {
        match self {
            Self::Convolution => "convolution",
            Self::Depthwise => "depthwise",
            Self::Pointwise => "pointwise",
            Self::Affine => "affine",
            Self::Nonlinearity => "nonlinearity",
            Self::Input => "input",
            Self::Addition => "addition",
            Self::Pooling => "pooling",
            Self::Concatenation => "concatenation",
            Self::Linear => "linear",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn convolutions_are_told_apart_by_shape_and_groups() {
        let of = LayerKind::of_convolution;
        assert_eq!(of([16, 3, 3, 3], 1), LayerKind::Convolution);
        assert_eq!(of([32, 1, 3, 3], 32), LayerKind::Depthwise);
        assert_eq!(of([32, 16, 1, 1], 1), LayerKind::Pointwise);
        assert_eq!(of([8, 1, 3, 3], 1), LayerKind::Convolution);
    }
}
