//! The paper in plain numbers: the uniform and the power-of-two quantizer, their six
//! parametrizations, the inferred bitwidth, gradients, clamps and memory.
//!
//! Doors:
//! - [`Quantizer`]: what one quantizer is (parametrization, sign, rule set, bounds); turns its two
//!   parameters into a [`Grid`] and the kernel's [`Sums`] back into parameter gradients.
//! - [`Grid`]: the ONE owner of "levels and bits". Forward pass, memory accounting, screen and
//!   export all ask it.
//! - [`memory`]: kB of weights and activations, constraints (8a), (8b), (8c), and BOPs.
//!
//! Nothing here knows tensors, files or screens.

mod adjust;
mod family;
mod grid;
mod initial;
pub mod memory;
mod parametrization;
mod project;
#[cfg(test)]
mod properties;

pub use adjust::Coordinates;
pub use family::{Family, Rules};
pub use grid::{
    Grid, Sums, code_count, dynamic, largest_level, round_half_away, round_to_power_of_two,
};
pub use initial::{InitialBits, initial_parameters};
pub use parametrization::{Bounds, Learn, Parametrization, Quantizer};
pub use project::CLAMP_MARGIN;
