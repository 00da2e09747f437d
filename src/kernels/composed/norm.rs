//! Batch norm, residual addition and activation.

use burn::backend::Backend;
use burn::backend::tensor::FloatTensor;
use burn_backend::{FloatDType, Slice, TensorData, TensorMetadata};

use super::quantizer::{quantized, quantizer_gradient};
use super::values::Values;
use crate::kernels::norm::{Across, Activation};
use crate::kernels::ops::{NormGradients, NormTensors};
use crate::quantizer::Sums;

/// Output and the statistics used, `[2, c]`. Sums are the engine's own, whatever `moments` says.
pub(in crate::kernels) fn norm_activation_forward<B: Backend>(
    inputs: &NormTensors<B>,
    statistics: Option<FloatTensor<B>>,
) -> (FloatTensor<B>, FloatTensor<B>) {
    let shape = inputs.x.shape();
    let [images, channels, height, width] = shape.dims();
    let statistics = statistics.unwrap_or_else(|| {
        if let Some(across) = &inputs.across {
            return common_statistics(inputs, across);
        }
        let count = (images * height * width) as f32;
        let x = Values::<B>(inputs.x.clone()).reshaped([images, channels, height * width]);
        let mean = x.clone().channel_sums().scaled(1.0 / count);
        let deviation = x.minus(&mean);
        let variance = deviation.clone().times(&deviation).channel_sums();
        let rows = [mean, variance.scaled(1.0 / count)].map(|v| v.reshaped([1, channels]).0);
        B::float_cat(rows.to_vec(), 0)
    });
    let parts = Normed::new(inputs, statistics.clone());
    let z = parts.before_activation(inputs);
    let y = match &inputs.activation {
        Activation::Identity => z,
        Activation::Relu => z.clone().cut_where_negative(&z),
        Activation::Clip { low, high } => z.between(*low, *high),
        Activation::Quantize(grid) => quantized(z, grid),
    };
    (B::float_reshape(y.0, shape), statistics)
}

/// Mean and biased variance over the images of all ranks, `[2, c]`: the channels' numbers pass through
/// the host.
fn common_statistics<B: Backend>(inputs: &NormTensors<B>, across: &Across) -> FloatTensor<B> {
    let [images, channels, height, width] = inputs.x.shape().dims();
    let x = Values::<B>(inputs.x.clone()).reshaped([images, channels, height * width]);
    let own = (images * height * width) as f64;
    let mean = x.clone().channel_sums().scaled(1.0 / own as f32);
    let deviation = x.minus(&mean);
    // The mean is rounded: what is left of it is in the deviations.
    let sums = [
        mean,
        deviation.clone().channel_sums(),
        deviation.clone().times(&deviation).channel_sums(),
    ];
    let device = inputs.x.device();
    let values = sums.map(|v| v.reshaped([channels]).on_host());
    let each = (0..channels).flat_map(|c| {
        let [mean, sum, squares] = [0, 1, 2].map(|i| f64::from(values[i][c]));
        [
            sum + own * mean,
            squares + 2.0 * mean * sum + own * mean * mean,
        ]
    });
    let mut sums: Vec<f64> = each.collect();
    across.group.sum(&mut sums);
    let count = (across.images * height * width) as f64;
    let mean = |c: usize| sums[2 * c] / count;
    let variance = |c: usize| (sums[2 * c + 1] / count - mean(c) * mean(c)).max(0.0);
    let means = (0..channels).map(|c| mean(c) as f32);
    let all = means.chain((0..channels).map(|c| variance(c) as f32));
    B::float_from_data(
        TensorData::new(all.collect::<Vec<f32>>(), [2, channels]),
        &device,
    )
}

/// The sums of the backward pass over all ranks, `[1, c, 1]` each.
fn common_sums<B: Backend>(own: [&Values<B>; 2], across: &Across) -> [Values<B>; 2] {
    let device = own[0].0.device();
    let values = own.map(|v| v.clone().on_host());
    let channels = values[0].len();
    let mut sums: Vec<f64> = values.concat().into_iter().map(f64::from).collect();
    across.group.sum(&mut sums);
    [0, channels].map(|start| {
        let own = sums[start..start + channels].iter().map(|v| *v as f32);
        let data = TensorData::new(own.collect::<Vec<f32>>(), [1, channels, 1]);
        Values(B::float_from_data(data, &device))
    })
}

/// What both passes compute first.
struct Normed<B: Backend> {
    /// `[n, c, p]`
    normalised: Values<B>,
    /// sqrt(var + eps), `[1, c, 1]`
    deviation: Values<B>,
    /// `[1, c, 1]`
    gamma: Values<B>,
    /// `[n, c, p]`
    shape: [usize; 3],
}

impl<B: Backend> Normed<B> {
    fn new(inputs: &NormTensors<B>, statistics: FloatTensor<B>) -> Self {
        let [images, channels, height, width] = inputs.x.shape().dims();
        let shape = [images, channels, height * width];
        let row = |i: usize| {
            let slices = [Slice::from(i..i + 1), Slice::from(0..channels)];
            Values::<B>(B::float_slice(statistics.clone(), &slices)).reshaped([1, channels, 1])
        };
        let deviation = row(1).shifted(inputs.epsilon).root();
        let x = Values::<B>(inputs.x.clone()).reshaped(shape);
        Self {
            normalised: x.minus(&row(0)).over(&deviation),
            deviation,
            gamma: Values(inputs.gamma.clone()).reshaped([1, channels, 1]),
            shape,
        }
    }

    fn before_activation(&self, inputs: &NormTensors<B>) -> Values<B> {
        let beta = Values(inputs.beta.clone()).reshaped([1, self.shape[1], 1]);
        let z = self.normalised.clone().times(&self.gamma).plus(&beta);
        match &inputs.residual {
            Some(residual) => z.plus(&Values(residual.clone()).reshaped(self.shape)),
            None => z,
        }
    }
}

/// Gradients of everything that went in.
pub(in crate::kernels) fn norm_activation_backward<B: Backend>(
    inputs: &NormTensors<B>,
    statistics: FloatTensor<B>,
    g: FloatTensor<B>,
) -> NormGradients<B> {
    let shape = inputs.x.shape();
    let parts = Normed::new(inputs, statistics);
    let [images, channels, pixels] = parts.shape;
    let g = Values::<B>(g).reshaped(parts.shape);
    let (gz, sums) = match &inputs.activation {
        Activation::Identity => (g.clone(), None),
        Activation::Relu => {
            let z = parts.before_activation(inputs);
            (g.clone().cut_where_negative(&z), None)
        }
        Activation::Clip { low, high } => {
            let z = parts.before_activation(inputs);
            (g.clone().cut_outside(&z, *low, *high), None)
        }
        Activation::Quantize(grid) => {
            let z = parts.before_activation(inputs);
            let (gz, sums) = quantizer_gradient(&z, &g, grid);
            (gz, Some(sums))
        }
    };
    let sums = sums.unwrap_or_else(|| {
        Values(B::float_zeros(
            [Sums::LEN].into(),
            &g.0.device(),
            FloatDType::F32,
        ))
    });
    let sum = gz.clone().channel_sums();
    let product = gz.clone().times(&parts.normalised).channel_sums();
    let ([all_sum, all_product], all_images) = match &inputs.across {
        Some(across) => (common_sums([&sum, &product], across), across.images),
        None => ([sum.clone(), product.clone()], images),
    };
    let mean = 1.0 / (all_images * pixels) as f32;
    let away = parts.normalised.times(&all_product.scaled(mean));
    let gx = gz.clone().minus(&all_sum.scaled(mean)).minus(&away);
    let gx = gx.times(&parts.gamma).over(&parts.deviation);
    NormGradients {
        x: B::float_reshape(gx.0, shape.clone()),
        residual: inputs
            .residual
            .is_some()
            .then(|| B::float_reshape(gz.0, shape)),
        gamma: product.reshaped([channels]).0,
        beta: sum.reshaped([channels]).0,
        sums: sums.0,
    }
}
