//! The operations composed of an engine's own tensor operations: for devices whose memory our
//! kernels cannot reach. Several passes over memory where the kernels take one.
//!
//! The tests hold them against the kernels.

mod norm;
mod pictures;
mod pool;
mod quantizer;
mod subsample;
#[cfg(test)]
mod tests;
mod values;

pub(super) use norm::{norm_activation_backward, norm_activation_forward};
pub(super) use pictures::pictures;
pub(super) use pool::{max_pool_backward, max_pool_forward};
pub(super) use quantizer::{fake_quantize_backward, fake_quantize_forward};
pub(super) use subsample::{subsample_backward, subsample_forward};
