//! Structures as the kernels find them among their arguments.

use cudarc::driver::DeviceRepr;

use crate::quantizer::{Family, Grid, Rules};

/// `QuantizerGrid` of `element.cuh`.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct CardGrid {
    low: f32,
    high: f32,
    step: f32,
    inverse: f32,
    zero_threshold: f32,
    is_signed: i32,
    published: i32,
    power_of_two: i32,
}

// SAFETY: plain numbers in the order and with the alignment of the structure on the card.
unsafe impl DeviceRepr for CardGrid {}

impl CardGrid {
    /// Two bounds and nothing else.
    pub(super) fn between(low: f32, high: f32) -> Self {
        Self {
            low,
            high,
            ..Self::default()
        }
    }
}

impl From<&Grid> for CardGrid {
    fn from(grid: &Grid) -> Self {
        Self {
            low: grid.low(),
            high: grid.q_max,
            step: grid.step,
            inverse: 1.0 / grid.step,
            zero_threshold: grid.zero_threshold(),
            is_signed: grid.signed.into(),
            published: (grid.rules == Rules::PublishedCode).into(),
            power_of_two: (grid.family == Family::PowerOfTwo).into(),
        }
    }
}

/// `NormLayer` of `norm.cu`.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub(super) struct NormLayer {
    pub images: u32,
    pub channels: u32,
    pub pixels: u32,
    pub lanes: u32,
    pub epsilon: f32,
    pub activation: i32,
    pub grid: CardGrid,
}

// SAFETY: plain numbers in the order and with the alignment of the structure on the card.
unsafe impl DeviceRepr for NormLayer {}
