//! Batch norm, residual addition and activation on a card.

#![allow(
    deprecated,
    reason = "burn points users of burn-tch elsewhere; here it is asked for by name"
)]

use burn_tch::{LibTorch, TchTensor};
use cudarc::driver::DeviceRepr;
use tch::{Kind, Tensor};

use super::Card;
use super::launch::{Argument, Kernel};
use super::quantizer::{BLOCKS, CardGrid};
use crate::kernels::norm::Activation;
use crate::kernels::ops::{NormGradients, NormTensors};
use crate::quantizer::Sums;

/// Values that a thread sums before blocks share a channel.
const VALUES_PER_THREAD: u32 = 4;
/// Columns of the sums that blocks leave.
const MOMENTS: i64 = 2;
const BACKWARD_SUMS: i64 = 6;

/// `NormLayer` of `norm.cu`.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub(super) struct NormLayer {
    images: u32,
    channels: u32,
    pixels: u32,
    epsilon: f32,
    activation: i32,
    grid: CardGrid,
}

// SAFETY: plain numbers in the order and with the alignment of the structure on the card.
unsafe impl DeviceRepr for NormLayer {}

/// What both passes read, as the kernels want it.
struct Held {
    x: Tensor,
    residual: Option<Tensor>,
    gamma: Tensor,
    beta: Tensor,
    layer: NormLayer,
    /// Blocks that share a channel, and channels.
    blocks: [u32; 2],
}

impl Held {
    /// Uninitialised rows for the sums of each block.
    fn parts(&self, columns: i64) -> Tensor {
        let rows = self.blocks.map(i64::from);
        Tensor::empty([rows[1], rows[0], columns], (Kind::Double, self.x.device()))
    }
}

impl Card {
    /// Output and the statistics used, `[2, c]`: those given, or the batch's own.
    pub(in crate::kernels) fn norm_activation(
        &self,
        inputs: &NormTensors<LibTorch>,
        statistics: Option<&TchTensor>,
    ) -> Result<[TchTensor; 2], String> {
        let held = self.held_norm(inputs)?;
        let y = Tensor::empty_like(&held.x);
        let (statistics, parts) = match statistics {
            Some(given) => (self.held_statistics(given, &held)?, None),
            None => {
                let shape = [2, i64::from(held.layer.channels)];
                let own = Tensor::empty(shape, (Kind::Float, self.device));
                (own, Some(held.parts(MOMENTS)))
            }
        };
        let layer = Argument::Layer(held.layer);
        if let Some(parts) = &parts {
            let arguments = [(&held.x).into(), parts.into(), layer];
            // SAFETY: `x` has the extent of the layer, and each block its own row of sums; the rest
            // is what `held` checks.
            unsafe { (self.place).launch(Kernel::NormMoments, held.blocks, &arguments) }?;
        }
        let arguments = [
            (&held.x).into(),
            held.residual.as_ref().into(),
            (&held.gamma).into(),
            (&held.beta).into(),
            parts.as_ref().into(),
            (&statistics).into(),
            (&y).into(),
            layer,
        ];
        // SAFETY: as above, with a residual and an output like `x`, two numbers of a channel in
        // `statistics` (fresh where the kernel writes them) and one in `gamma` and `beta`.
        unsafe { (self.place).launch(Kernel::NormForward, held.blocks, &arguments) }?;
        Ok([y, statistics].map(TchTensor::new))
    }

    /// Gradients of everything that went in.
    pub(in crate::kernels) fn norm_activation_backward(
        &self,
        inputs: &NormTensors<LibTorch>,
        statistics: &TchTensor,
        g: &TchTensor,
    ) -> Result<NormGradients<LibTorch>, String> {
        let held = self.held_norm(inputs)?;
        let statistics = self.held_statistics(statistics, &held)?;
        let g = self.held(&g.tensor)?;
        if g.size() != held.x.size() {
            return Err(format!("no gradient {g:?} of {:?}", held.x));
        }
        let gz = held.residual.as_ref().map(Tensor::empty_like);
        let gx = Tensor::empty_like(&held.x);
        let parts = held.parts(BACKWARD_SUMS);
        let [gamma, beta] = [&held.gamma, &held.beta].map(Tensor::empty_like);
        let sums = Tensor::empty([Sums::LEN as i64], (Kind::Float, self.device));
        let layer = Argument::Layer(held.layer);
        let arguments = [
            (&held.x).into(),
            held.residual.as_ref().into(),
            (&held.gamma).into(),
            (&held.beta).into(),
            (&statistics).into(),
            (&g).into(),
            gz.as_ref().into(),
            (&parts).into(),
            layer,
        ];
        // SAFETY: as in the forward pass; the gradients are fresh and of the shape of what they are
        // of.
        unsafe { (self.place).launch(Kernel::NormBackwardSums, held.blocks, &arguments) }?;
        let arguments = [
            (&held.x).into(),
            (&held.gamma).into(),
            (&held.beta).into(),
            (&statistics).into(),
            (&g).into(),
            gz.as_ref().into(),
            (&parts).into(),
            (&gx).into(),
            (&gamma).into(),
            (&beta).into(),
            (&sums).into(),
            layer,
        ];
        // SAFETY: as above, on as many blocks as left their sums.
        unsafe { (self.place).launch(Kernel::NormBackward, held.blocks, &arguments) }?;
        Ok(NormGradients {
            x: TchTensor::new(gx),
            residual: gz.map(TchTensor::new),
            gamma: TchTensor::new(gamma),
            beta: TchTensor::new(beta),
            sums: TchTensor::new(sums),
        })
    }

    fn held_norm(&self, inputs: &NormTensors<LibTorch>) -> Result<Held, String> {
        let x = self.held(&inputs.x.tensor)?;
        let size: Vec<u64> = x.size().iter().map(|n| *n as u64).collect();
        let [images, channels, height, width] = size[..] else {
            return Err(format!("{x:?} is no batch of images"));
        };
        let pixels = height * width;
        // Blocks walk a channel's values by 32 bits, and channels by the grid's second side.
        let values = images * pixels;
        if x.numel() == 0 || values > 1 << 31 || channels > u16::MAX.into() {
            return Err(format!("{x:?} does not fit the kernels"));
        }
        let [gamma, beta] = [&inputs.gamma, &inputs.beta].map(|t| self.held(&t.tensor));
        let residual = inputs.residual.as_ref();
        let residual = residual.map(|t| self.held(&t.tensor)).transpose()?;
        let (gamma, beta) = (gamma?, beta?);
        let is_of_channels = |t: &Tensor| t.numel() as u64 == channels;
        let is_like_x = |t: &Tensor| t.size() == x.size();
        if ![&gamma, &beta].into_iter().all(is_of_channels)
            || !residual.as_ref().is_none_or(is_like_x)
        {
            return Err(format!("{gamma:?}, {beta:?}, {residual:?} with {x:?}"));
        }
        let (activation, grid) = match &inputs.activation {
            Activation::Identity => (0, CardGrid::default()),
            Activation::Relu => (1, CardGrid::default()),
            Activation::Quantize(grid) => (2, grid.into()),
        };
        let threads = self.place.threads();
        let per_channel = (values as u32).div_ceil(threads * VALUES_PER_THREAD);
        let most = (BLOCKS / channels).clamp(1, threads.into()) as u32;
        Ok(Held {
            layer: NormLayer {
                images: images as u32,
                channels: channels as u32,
                pixels: pixels as u32,
                epsilon: inputs.epsilon,
                activation,
                grid,
            },
            blocks: [per_channel.clamp(1, most), channels as u32],
            x,
            residual,
            gamma,
            beta,
        })
    }

    fn held_statistics(&self, statistics: &TchTensor, held: &Held) -> Result<Tensor, String> {
        let statistics = self.held(&statistics.tensor)?;
        if statistics.numel() != 2 * held.layer.channels as usize {
            return Err(format!("{statistics:?} for {:?}", held.x));
        }
        Ok(statistics)
    }
}
