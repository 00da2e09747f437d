//! A quantized network in integers: what an integer machine computes, proven against the fake-quantized
//! network bit for bit, and written for other programs.
//!
//! Step sizes are powers of two, so a quantized value is an integer times `2^e`, sums of products are
//! integers, and batch norm, activation and quantizer behind them become thresholds. *Bit for bit* is
//! meant literally: thresholds are found by bisecting the very f32 function that the kernels compute
//! ([`Channel`](crate::kernels::norm::Channel), [`Grid::forward`](crate::quantizer::Grid::forward)),
//! which is monotone, so every sum that can occur lands on the level that training saw.
//!
//! Doors:
//! - [`Program`]: the network as steps on integers; [`Program::of`] makes one of a
//!   [`Snapshot`](crate::network::Snapshot), and says of each step that cannot be exact why.
//! - [`Replay`]: the program executed on codes.
//! - [`Comparison`]: a replay beside the fake-quantized network, step by step.
//! - [`file`](mod@file): the program as a safetensors file, weights packed at their own bitwidths.
//! - [`onnx`], [`c`](mod@c), [`weights`]: the network for other programs.

mod build;
pub mod c;
mod compare;
pub mod file;
mod levels;
pub mod onnx;
mod pack;
mod program;
mod replay;
pub mod weights;

pub use compare::{Comparison, FirstDifference, StepOutcome};
pub use levels::{Residuals, Thresholds};
pub use program::{After, Operation, Program, Step, Stored, signed_bits};
pub use replay::{Numbers, Replay};

/// Why something cannot be written for another program, and what would work.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// The network is not in integers throughout.
    #[error("{format} holds only integers, but these steps are in float: {steps}; hint: {hint}")]
    Float {
        /// What was asked for.
        format: &'static str,
        /// Which, and why.
        steps: String,
        /// What would work.
        hint: String,
    },
    /// A quantizer or a number that the format has no word for.
    #[error("{0}")]
    Unsupported(String),
}
