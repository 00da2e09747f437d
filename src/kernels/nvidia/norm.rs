//! Batch norm, residual addition and activation on a GPU.

#![allow(
    deprecated,
    reason = "burn points users of burn-tch elsewhere; here it is asked for by name"
)]

use burn_tch::{LibTorch, TchTensor};
use tch::{Kind, Tensor};

use super::Card;
use super::launch::{Argument, Kernel};
use super::layout::{CardGrid, NormLayer};
use super::quantizer::BLOCKS;
use super::refusal::Refusal;
use crate::kernels::libtorch_calls::Layout;
use crate::kernels::norm::Activation;
use crate::kernels::ops::{NormGradients, NormTensors};
use crate::quantizer::Sums;

/// Values that a thread sums before blocks share a channel.
const VALUES_PER_THREAD: u32 = 4;
/// Channels of a block where the channels of a pixel lie side by side: as many values as a card reads
/// from memory at once.
const LANES: u32 = 8;
/// Blocks that share these channels at most. Every block adds up what all of them left.
const BLOCKS_OF_LANES: u32 = 128;
/// Columns of the sums that blocks leave.
const MOMENTS: i64 = 2;
const BACKWARD_SUMS: i64 = 6;

/// What both passes read, as the kernels want it.
struct NormArguments {
    x: Tensor,
    residual: Option<Tensor>,
    gamma: Tensor,
    beta: Tensor,
    layout: Layout,
    layer: NormLayer,
    /// Blocks that share a channel, or a few; and how often that is.
    blocks: [u32; 2],
}

impl NormArguments {
    /// Uninitialised rows for the sums of each block.
    fn parts(&self, columns: i64) -> Tensor {
        let shape = [self.layer.channels.into(), self.blocks[0].into(), columns];
        Tensor::empty(shape, (Kind::Double, self.x.device()))
    }
}

impl Card {
    /// Output and the statistics used, `[2, c]`: those given, or the batch's own.
    pub(in crate::kernels) fn norm_activation(
        &self,
        inputs: &NormTensors<LibTorch>,
        given: Option<&TchTensor>,
    ) -> Result<[TchTensor; 2], Refusal> {
        let norm = self.arguments(inputs)?;
        let y = Tensor::empty_like(&norm.x);
        let (statistics, parts) = match given {
            Some(given) => (self.statistics(given, &norm)?, None),
            None => {
                let shape = [2, i64::from(norm.layer.channels)];
                let own = Tensor::empty(shape, (Kind::Float, self.device));
                (own, Some(norm.parts(MOMENTS)))
            }
        };
        let layer = Argument::Layer(norm.layer);
        if let Some(parts) = &parts {
            let arguments = [(&norm.x).into(), parts.into(), layer];
            // SAFETY: `x` has the extent of the layer, and each block its own row of sums; the rest
            // is what `contiguous` checks.
            unsafe { (self.place).launch(Kernel::NormMoments, norm.blocks, &arguments) }?;
        }
        let arguments = [
            (&norm.x).into(),
            norm.residual.as_ref().into(),
            (&norm.gamma).into(),
            (&norm.beta).into(),
            parts.as_ref().into(),
            (&statistics).into(),
            (&y).into(),
            layer,
        ];
        // SAFETY: as above, with a residual and an output like `x`, two numbers of a channel in
        // `statistics` (fresh where the kernel writes them) and one in `gamma` and `beta`.
        unsafe { (self.place).launch(Kernel::NormForward, norm.blocks, &arguments) }?;
        // Those given keep their owner: a new one would be taken to be the only one.
        let statistics = given.cloned().unwrap_or_else(|| TchTensor::new(statistics));
        Ok([TchTensor::new(y), statistics])
    }

    /// Gradients of everything that went in.
    pub(in crate::kernels) fn norm_activation_backward(
        &self,
        inputs: &NormTensors<LibTorch>,
        statistics: &TchTensor,
        g: &TchTensor,
    ) -> Result<NormGradients<LibTorch>, Refusal> {
        let norm = self.arguments(inputs)?;
        let statistics = self.statistics(statistics, &norm)?;
        let g = self.laid_out(&g.tensor, norm.layout)?;
        if g.size() != norm.x.size() {
            return Err(Refusal::Unfit(format!("no gradient {g:?} of {:?}", norm.x)));
        }
        let gz = norm.residual.as_ref().map(Tensor::empty_like);
        let gx = Tensor::empty_like(&norm.x);
        let parts = norm.parts(BACKWARD_SUMS);
        let [gamma, beta] = [&norm.gamma, &norm.beta].map(Tensor::empty_like);
        let sums = Tensor::empty([Sums::LEN as i64], (Kind::Float, self.device));
        let layer = Argument::Layer(norm.layer);
        let arguments = [
            (&norm.x).into(),
            norm.residual.as_ref().into(),
            (&norm.gamma).into(),
            (&norm.beta).into(),
            (&statistics).into(),
            (&g).into(),
            gz.as_ref().into(),
            (&parts).into(),
            layer,
        ];
        // SAFETY: as in the forward pass; the gradients are fresh and of the shape of what they are
        // of.
        unsafe { (self.place).launch(Kernel::NormBackwardSums, norm.blocks, &arguments) }?;
        let arguments = [
            (&norm.x).into(),
            (&norm.gamma).into(),
            (&norm.beta).into(),
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
        unsafe { (self.place).launch(Kernel::NormBackward, norm.blocks, &arguments) }?;
        Ok(NormGradients {
            x: TchTensor::new(gx),
            residual: gz.map(TchTensor::new),
            gamma: TchTensor::new(gamma),
            beta: TchTensor::new(beta),
            sums: TchTensor::new(sums),
        })
    }

    fn arguments(&self, inputs: &NormTensors<LibTorch>) -> Result<NormArguments, Refusal> {
        let layout = Layout::current(&inputs.x.tensor);
        let x = self.laid_out(&inputs.x.tensor, layout)?;
        let size: Vec<u64> = x.size().iter().map(|n| *n as u64).collect();
        let [images, channels, height, width] = size[..] else {
            return Err(Refusal::Unfit(format!("{x:?} is no batch of images")));
        };
        let pixels = height * width;
        // Blocks walk a channel's values by 32 bits, and channels by the grid's second side.
        let values = images * pixels;
        if x.numel() == 0 || values > 1 << 31 || channels > u16::MAX.into() {
            return Err(Refusal::Unfit(format!("the extent of {x:?}")));
        }
        let [gamma, beta] = [&inputs.gamma, &inputs.beta].map(|t| self.contiguous(&t.tensor));
        let residual = inputs.residual.as_ref();
        let residual = residual.map(|t| self.laid_out(&t.tensor, layout));
        let residual = residual.transpose()?;
        let (gamma, beta) = (gamma?, beta?);
        let is_of_channels = |t: &Tensor| t.numel() as u64 == channels;
        let is_like_x = |t: &Tensor| t.size() == x.size();
        if ![&gamma, &beta].into_iter().all(is_of_channels)
            || !residual.as_ref().is_none_or(is_like_x)
        {
            let what = format!("{gamma:?}, {beta:?}, {residual:?} with {x:?}");
            return Err(Refusal::Unfit(what));
        }
        let (activation, grid) = match &inputs.activation {
            Activation::Identity => (0, CardGrid::default()),
            Activation::Relu => (1, CardGrid::default()),
            Activation::Quantize(grid) => (2, grid.into()),
            Activation::Clip { low, high } => (3, CardGrid::between(*low, *high)),
        };
        let threads = self.place.threads();
        let (lanes, most) = match layout {
            Layout::ChannelsFirst => (1, (BLOCKS / channels).clamp(1, threads.into()) as u32),
            Layout::ChannelsLast => (LANES, BLOCKS_OF_LANES),
        };
        let shared = (values as u32).div_ceil(threads / lanes * VALUES_PER_THREAD);
        let channels = channels as u32;
        Ok(NormArguments {
            layout,
            layer: NormLayer {
                images: images as u32,
                channels,
                pixels: pixels as u32,
                lanes,
                epsilon: inputs.epsilon,
                activation,
                grid,
            },
            blocks: [shared.clamp(1, most), channels.div_ceil(lanes)],
            x,
            residual,
            gamma,
            beta,
        })
    }

    fn statistics(&self, statistics: &TchTensor, of: &NormArguments) -> Result<Tensor, Refusal> {
        let statistics = self.contiguous(&statistics.tensor)?;
        if statistics.numel() != 2 * of.layer.channels as usize {
            return Err(Refusal::Unfit(format!("{statistics:?} for {:?}", of.x)));
        }
        Ok(statistics)
    }
}
