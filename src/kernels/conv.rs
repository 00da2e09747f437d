//! 2-d convolution: geometry and the plain reference.

use burn::tensor::ops::ConvOptions;

/// Stride, padding and groups of a convolution (both axes alike).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Geometry {
    /// Step between outputs, at least 1.
    pub stride: usize,
    /// Zeros added on every side.
    pub padding: usize,
    /// Groups of channels that do not mix.
    pub groups: usize,
}

impl Geometry {
    /// Output extent along an axis of `input` pixels under a kernel of `kernel`.
    pub fn output(&self, input: usize, kernel: usize) -> usize {
        (input + 2 * self.padding - kernel) / self.stride + 1
    }

    /// As burn's own options.
    pub fn options(&self) -> ConvOptions<2> {
        ConvOptions::new([self.stride; 2], [self.padding; 2], [1; 2], self.groups)
    }
}
