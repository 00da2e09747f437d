//! Batch norm as a function of one number, and what follows it.

use crate::quantizer::Grid;

/// What follows the normalisation.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Activation {
    /// Nothing.
    Identity,
    /// max(x, 0).
    Relu,
    /// min(max(x, low), high).
    Clip {
        /// Lower bound.
        low: f32,
        /// Upper bound.
        high: f32,
    },
    /// Q(x); unsigned grids clip below zero, which makes them quantized ReLUs.
    Quantize(Grid),
}

/// Scale, shift and statistics of one channel: batch norm as a function of one number, which every
/// kernel computes with these very operations.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Channel {
    pub(super) mean: f32,
    /// 1 / sqrt(var + eps)
    pub(super) inverse: f32,
    /// sqrt(var + eps)
    pub(super) deviation: f32,
    pub(super) gamma: f32,
    /// gamma / sqrt(var + eps)
    pub(super) scale: f32,
    pub(super) beta: f32,
}

impl Channel {
    /// Of a scale and shift, a mean and a variance.
    pub fn new([gamma, beta]: [f32; 2], [mean, variance]: [f32; 2], epsilon: f32) -> Self {
        let deviation = (variance + epsilon).sqrt();
        let inverse = 1.0 / deviation;
        Self {
            mean,
            inverse,
            deviation,
            gamma,
            scale: gamma * inverse,
            beta,
        }
    }

    /// Batch norm of one number, as the kernel of these moments computes it. Monotone: rounding is.
    pub fn output(&self, x: f32, moments: Moments) -> f32 {
        match moments {
            Moments::Exact => self.apply::<false>(x),
            Moments::Sequential => self.apply::<true>(x),
        }
    }

    /// `sqrt(variance + epsilon)`.
    pub fn deviation(&self) -> f32 {
        self.deviation
    }

    /// Mean, factor and shift: `(x - mean) scale + shift` is [`Self::output`] under exact moments.
    pub fn numbers(&self) -> [f32; 3] {
        [self.mean, self.scale, self.beta]
    }

    /// `IN_ORDER` rounds as the published code does, after the product and after the division; a
    /// division of every element costs more than all else here.
    #[inline(always)]
    pub(super) fn apply<const IN_ORDER: bool>(&self, x: f32) -> f32 {
        if IN_ORDER {
            (x - self.mean) * self.gamma / self.deviation + self.beta
        } else {
            (x - self.mean) * self.scale + self.beta
        }
    }
}

/// How a batch's mean and variance are summed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moments {
    /// In f64, as deviations from a first element.
    Exact,
    /// One element after the other in f32, variance as E(x^2) - E(x)^2: as the published code does.
    ///
    /// Its sums are off by about 1e-5, and a quantized network amplifies that: activations that
    /// round the other way change ten in the next layer. Only the same sums give its numbers.
    Sequential,
}
