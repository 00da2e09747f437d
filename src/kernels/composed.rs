//! The operations composed of an engine's own tensor operations: for devices whose memory our
//! kernels cannot reach. Several passes over memory where the kernels take one.
//!
//! The tests hold them against the kernels.

use burn::backend::Backend;
use burn::backend::tensor::FloatTensor;
use burn_backend::{FloatDType, Scalar, Slice, TensorMetadata, get_or_init_device_settings};

use super::norm::Activation;
use super::ops::{NormGradients, NormTensors};
use super::subsample::Subsampling;
use crate::quantizer::{Family, Grid, Rules};

/// A tensor with arithmetic that reads like arithmetic.
struct Values<B: Backend>(FloatTensor<B>);

impl<B: Backend> Clone for Values<B> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<B: Backend> Values<B> {
    fn plus(self, other: &Self) -> Self {
        Self(B::float_add(self.0, other.0.clone()))
    }

    fn minus(self, other: &Self) -> Self {
        Self(B::float_sub(self.0, other.0.clone()))
    }

    fn times(self, other: &Self) -> Self {
        Self(B::float_mul(self.0, other.0.clone()))
    }

    fn over(self, other: &Self) -> Self {
        Self(B::float_div(self.0, other.0.clone()))
    }

    fn scaled(self, factor: f32) -> Self {
        Self(B::float_mul_scalar(self.0, Scalar::from(factor)))
    }

    fn shifted(self, by: f32) -> Self {
        Self(B::float_add_scalar(self.0, Scalar::from(by)))
    }

    fn clamped(self, low: f32, high: f32) -> Self {
        Self(B::float_clamp(
            self.0,
            Scalar::from(low),
            Scalar::from(high),
        ))
    }

    fn magnitude(&self) -> Self {
        Self(B::float_abs(self.0.clone()))
    }

    fn signs(&self) -> Self {
        Self(B::float_sign(self.0.clone()))
    }

    fn root(self) -> Self {
        Self(B::float_sqrt(self.0))
    }

    /// 1 where the value is greater than `bound`, else 0.
    fn above(&self, bound: f32) -> Self {
        let dtype = get_or_init_device_settings::<B>(&self.0.device()).bool_dtype;
        let mask = B::float_greater_elem(self.0.clone(), Scalar::from(bound), dtype);
        Self(B::bool_into_float(mask, FloatDType::F32))
    }

    /// 1 where the value is at least `bound`, else 0.
    fn at_least(&self, bound: f32) -> Self {
        let dtype = get_or_init_device_settings::<B>(&self.0.device()).bool_dtype;
        let mask = B::float_greater_equal_elem(self.0.clone(), Scalar::from(bound), dtype);
        Self(B::bool_into_float(mask, FloatDType::F32))
    }

    /// 1 where this mask is 0, and the other way round.
    fn negated(self) -> Self {
        self.scaled(-1.0).shifted(1.0)
    }

    /// Half away from zero, exact also below one half.
    fn rounded(self) -> Self {
        let magnitude = self.magnitude();
        let whole = Self(B::float_trunc(magnitude.0.clone()));
        let up = magnitude.minus(&whole).at_least(0.5);
        whole.plus(&up).times(&self.signs())
    }

    /// `[1]`
    fn total(self) -> Self {
        let count = self.0.shape().num_elements();
        Self(B::float_sum(B::float_reshape(self.0, [count].into())))
    }

    fn reshaped<const D: usize>(self, shape: [usize; D]) -> Self {
        Self(B::float_reshape(self.0, shape.into()))
    }

    /// Sums `[n, c, p]` to `[1, c, 1]`.
    fn channel_sums(self) -> Self {
        Self(B::float_sum_dim(B::float_sum_dim(self.0, 2), 0))
    }
}

/// Q(x), any shape.
pub(super) fn fake_quantize_forward<B: Backend>(x: FloatTensor<B>, grid: &Grid) -> FloatTensor<B> {
    quantized(Values::<B>(x), grid).0
}

fn quantized<B: Backend>(x: Values<B>, grid: &Grid) -> Values<B> {
    match grid.family {
        Family::Uniform => {
            let low = if grid.signed { -grid.q_max } else { 0.0 };
            let levels = x.clamped(low, grid.q_max).scaled(1.0 / grid.step);
            levels.rounded().scaled(grid.step)
        }
        Family::PowerOfTwo => {
            let level = octaves(x.magnitude().clamped(grid.step, grid.q_max), grid);
            if grid.signed {
                // A weight of exactly 0 counts as positive.
                let sign = x.at_least(0.0).scaled(2.0).shifted(-1.0);
                level.times(&sign)
            } else {
                level.times(&x.at_least(grid.zero_threshold()))
            }
        }
    }
}

/// The nearest power of two (in the logarithm) of magnitudes inside the range, exactly: the least
/// level plus what each threshold below adds.
fn octaves<B: Backend>(magnitude: Values<B>, grid: &Grid) -> Values<B> {
    let mut level = grid.step;
    let mut sum = magnitude.clone().scaled(0.0).shifted(level);
    while level < grid.q_max {
        let threshold = level * std::f32::consts::SQRT_2;
        sum = sum.plus(&magnitude.above(threshold).scaled(level));
        level *= 2.0;
    }
    sum
}

/// Gradient of `x` and the sums `[4]`.
pub(super) fn fake_quantize_backward<B: Backend>(
    x: FloatTensor<B>,
    g: FloatTensor<B>,
    grid: &Grid,
) -> (FloatTensor<B>, FloatTensor<B>) {
    let (gx, sums) = quantizer_gradient(&Values::<B>(x), &Values(g), grid);
    (gx.0, sums.0)
}

fn quantizer_gradient<B: Backend>(
    x: &Values<B>,
    g: &Values<B>,
    grid: &Grid,
) -> (Values<B>, Values<B>) {
    let published = grid.rules == Rules::PublishedCode;
    let (gx, parts) = match grid.family {
        Family::Uniform => {
            let low = if grid.signed { -grid.q_max } else { 0.0 };
            let negative = x.clone().scaled(-1.0);
            let (above, below) = if published {
                (x.at_least(grid.q_max), negative.at_least(-low))
            } else {
                (x.above(grid.q_max), negative.above(-low))
            };
            let inside = above.clone().plus(&below).negated();
            let scaled = x.clone().clamped(low, grid.q_max).scaled(1.0 / grid.step);
            let rounded = scaled.clone().rounded();
            let gx = g.clone().times(&inside);
            let error = rounded.clone().minus(&scaled);
            let inner = if published { g } else { &gx };
            let inner = error.times(inner);
            let outer = g.clone().times(&above);
            let (outer, clipped) = if grid.signed {
                (
                    outer.minus(&g.clone().times(&below)),
                    x.magnitude().above(grid.q_max),
                )
            } else {
                (outer, x.above(grid.q_max))
            };
            let zeros = rounded.magnitude().above(0.0).negated();
            (gx, [inner, outer, clipped, zeros])
        }
        Family::PowerOfTwo => {
            let magnitude = x.magnitude();
            let kept = if grid.signed {
                magnitude.at_least(0.0)
            } else {
                x.at_least(grid.zero_threshold())
            };
            let (above, below) = if published {
                (
                    magnitude.at_least(grid.q_max),
                    magnitude.at_least(grid.step).negated(),
                )
            } else {
                (
                    magnitude.above(grid.q_max),
                    magnitude.above(grid.step).negated(),
                )
            };
            let (above, below) = (above.times(&kept), below.times(&kept));
            let sign = x.at_least(0.0).scaled(2.0).shifted(-1.0);
            let signed_g = g.clone().times(&sign);
            let inside = kept.clone().minus(&above).minus(&below);
            let safe = magnitude.clone().clamped(grid.step, grid.q_max);
            let ratio = octaves(safe.clone(), grid).over(&safe);
            let gx = g.clone().times(&inside).times(&ratio);
            let inner = signed_g.clone().times(&below);
            let outer = signed_g.times(&above);
            let clipped = magnitude.above(grid.q_max).times(&kept);
            (gx, [inner, outer, clipped, kept.negated()])
        }
    };
    let sums = parts.map(|p| p.total().0).to_vec();
    (gx, Values(B::float_cat(sums, 0)))
}

/// Every `stride`-th pixel and zeros behind the channels. The first of every block of pixels is
/// taken, in plain slices; rows and columns that fill no block are padded first.
pub(super) fn subsample_forward<B: Backend>(x: FloatTensor<B>, s: &Subsampling) -> FloatTensor<B> {
    let [height, width] = s.output_size();
    let device = x.device();
    let zeros = |shape: [usize; 4]| B::float_zeros(shape.into(), &device, FloatDType::F32);
    let (images, channels, stride) = (s.images, s.channels, s.stride);
    let mut x = x;
    if height * stride > s.size[0] {
        let missing = [images, channels, height * stride - s.size[0], s.size[1]];
        x = B::float_cat(vec![x, zeros(missing)], 2);
    }
    if width * stride > s.size[1] {
        let missing = [
            images,
            channels,
            height * stride,
            width * stride - s.size[1],
        ];
        x = B::float_cat(vec![x, zeros(missing)], 3);
    }
    let x = B::float_reshape(
        x,
        [images * channels * height, stride, width, stride].into(),
    );
    let slices = [
        Slice::from(0..images * channels * height),
        Slice::from(0..1),
        Slice::from(0..width),
        Slice::from(0..1),
    ];
    let x = B::float_slice(x, &slices);
    let x = B::float_reshape(x, [images, channels, height, width].into());
    if s.extra == 0 {
        return x;
    }
    B::float_cat(vec![x, zeros([images, s.extra, height, width])], 1)
}

/// The gradient of [`subsample_forward`]'s input.
pub(super) fn subsample_backward<B: Backend>(g: FloatTensor<B>, s: &Subsampling) -> FloatTensor<B> {
    let [height, width] = s.output_size();
    let device = g.device();
    let zeros = |shape: [usize; 4]| B::float_zeros(shape.into(), &device, FloatDType::F32);
    let (images, channels, stride) = (s.images, s.channels, s.stride);
    let own = [
        Slice::from(0..images),
        Slice::from(0..channels),
        Slice::from(0..height),
        Slice::from(0..width),
    ];
    let g = B::float_slice(g, &own);
    let rows = images * channels * height;
    let g = B::float_reshape(g, [rows, 1, width, 1].into());
    let g = if stride > 1 {
        let across = B::float_cat(vec![g, zeros([rows, 1, width, stride - 1])], 3);
        B::float_cat(vec![across, zeros([rows, stride - 1, width, stride])], 1)
    } else {
        g
    };
    let g = B::float_reshape(
        g,
        [images, channels, height * stride, width * stride].into(),
    );
    let inside = [
        Slice::from(0..images),
        Slice::from(0..channels),
        Slice::from(0..s.size[0]),
        Slice::from(0..s.size[1]),
    ];
    B::float_slice(g, &inside)
}

/// Output and the statistics used, `[2, c]`. Sums are the engine's own, whatever `moments` says.
pub(super) fn norm_activation_forward<B: Backend>(
    inputs: &NormTensors<B>,
    statistics: Option<FloatTensor<B>>,
) -> (FloatTensor<B>, FloatTensor<B>) {
    let shape = inputs.x.shape();
    let [images, channels, height, width] = shape.dims();
    let count = (images * height * width) as f32;
    let statistics = statistics.unwrap_or_else(|| {
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
        Activation::Relu => z.clone().times(&z.above(0.0)),
        Activation::Quantize(grid) => quantized(z, grid),
    };
    (B::float_reshape(y.0, shape), statistics)
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
pub(super) fn norm_activation_backward<B: Backend>(
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
            (g.clone().times(&z.above(0.0)), None)
        }
        Activation::Quantize(grid) => {
            let z = parts.before_activation(inputs);
            let (gz, sums) = quantizer_gradient(&z, &g, grid);
            (gz, Some(sums))
        }
    };
    let sums = sums.unwrap_or_else(|| {
        let zero = g.total().scaled(0.0).0;
        Values(B::float_cat(vec![zero; crate::quantizer::Sums::LEN], 0))
    });
    let sum = gz.clone().channel_sums();
    let product = gz.clone().times(&parts.normalised).channel_sums();
    let mean = 1.0 / (images * pixels) as f32;
    let away = parts.normalised.times(&product.clone().scaled(mean));
    let gx = gz.clone().minus(&sum.clone().scaled(mean)).minus(&away);
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

#[cfg(all(test, feature = "flex"))]
mod tests {
    use burn::backend::Flex;
    use burn::tensor::TensorData;
    use burn_flex::FlexTensor;
    use proptest::prelude::*;

    use super::super::norm::Moments;
    use super::super::ops::Engine;
    use super::*;
    use crate::quantizer::{Parametrization, Quantizer};

    fn tensor(values: Vec<f32>, shape: &[usize]) -> FlexTensor {
        FlexTensor::from_data(TensorData::new(values, shape.to_vec()))
    }

    fn values(tensor: FlexTensor) -> Vec<f32> {
        let tensor = tensor.to_contiguous();
        let start = tensor.layout().start_offset();
        tensor.storage::<f32>()[start..start + tensor.layout().num_elements()].to_vec()
    }

    fn close(ours: &[f32], expected: &[f32]) -> bool {
        let pairs = ours.iter().zip(expected);
        ours.len() == expected.len()
            && pairs
                .into_iter()
                .all(|(a, b)| (a - b).abs() < 1e-4 * (1.0 + b.abs()))
    }

    fn grid(p: Parametrization, signed: bool, rules: Rules) -> Grid {
        let quantizer = Quantizer::learned(p, signed, rules);
        quantizer.grid(match p {
            Parametrization::U3 | Parametrization::P3 => [0.125, 1.0],
            _ => [3.0, 0.25],
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn the_quantizer_equals_the_kernel(
            p in prop::sample::select(&Parametrization::ALL[..]),
            signed in any::<bool>(),
            published in any::<bool>(),
            pairs in prop::collection::vec((-3.0..3.0f32, -2.0..2.0f32), 2..200),
        ) {
            let rules = if published { Rules::PublishedCode } else { Rules::Paper };
            let grid = grid(p, signed, rules);
            let mut x: Vec<f32> = pairs.iter().map(|v| v.0).collect();
            (x[0], x[1]) = (grid.q_max, 0.0);
            let g: Vec<f32> = pairs.iter().map(|v| v.1).collect();
            let shape = [x.len()];
            let (x, g) = (tensor(x, &shape), tensor(g, &shape));
            let y = values(fake_quantize_forward::<Flex>(x.clone(), &grid));
            prop_assert_eq!(y, values(Flex::fake_quantize_forward(x.clone(), &grid)));
            let (gx, sums) = fake_quantize_backward::<Flex>(x.clone(), g.clone(), &grid);
            let (kernel_gx, kernel_sums) = Flex::fake_quantize_backward(x, g, &grid);
            prop_assert!(close(&values(gx), &values(kernel_gx)));
            prop_assert!(close(&values(sums), &values(kernel_sums)));
        }

        #[test]
        fn subsampling_equals_the_kernel(
            images in 1usize..4, channels in 1usize..4, size in (1usize..9, 1usize..9),
            stride in 1usize..4, extra in 0usize..3,
        ) {
            let s = Subsampling { images, channels, size: [size.0, size.1], stride, extra };
            let [height, width] = s.output_size();
            let wave = |shape: &[usize]| {
                let count = shape.iter().product::<usize>();
                tensor((0..count).map(|i| (i as f32 * 0.7).sin()).collect(), shape)
            };
            let x = wave(&[images, channels, size.0, size.1]);
            let g = wave(&[images, channels + extra, height, width]);
            let y = values(subsample_forward::<Flex>(x.clone(), &s));
            prop_assert_eq!(y, values(Flex::subsample_forward(x, &s)));
            let gx = values(subsample_backward::<Flex>(g.clone(), &s));
            prop_assert_eq!(gx, values(Flex::subsample_backward(g, &s)));
        }

        #[test]
        fn the_norm_equals_the_kernel(
            images in 1usize..4, channels in 1usize..4, size in 2usize..6, kind in 0usize..4,
            with_residual in any::<bool>(), seed in 0.0f32..6.0,
        ) {
            let shape = [images, channels, size, size];
            let count = shape.iter().product::<usize>();
            let wave = |n: usize, s: f32| (0..n).map(|i| (i as f32 * 0.713 + s).sin()).collect::<Vec<_>>();
            let quantize = |p| Activation::Quantize(grid(p, false, Rules::Paper));
            let inputs = NormTensors::<Flex> {
                x: tensor(wave(count, seed), &shape),
                residual: with_residual.then(|| tensor(wave(count, seed + 1.0), &shape)),
                gamma: tensor(vec![0.9; channels], &[channels]),
                beta: tensor(vec![0.2; channels], &[channels]),
                epsilon: 1e-5,
                activation: [
                    Activation::Identity,
                    Activation::Relu,
                    quantize(Parametrization::U3),
                    quantize(Parametrization::P3),
                ][kind],
                moments: Moments::Exact,
            };
            let (y, statistics) = norm_activation_forward::<Flex>(&inputs, None);
            let (kernel_y, kernel_statistics) = Flex::norm_activation_forward(&inputs, None);
            prop_assert!(close(&values(statistics.clone()), &values(kernel_statistics)));
            // A value that rounds the other way is a whole level off, here and behind.
            prop_assume!(close(&values(y), &values(kernel_y)));
            let g = tensor(wave(count, seed + 2.0), &shape);
            let ours = norm_activation_backward::<Flex>(&inputs, statistics.clone(), g.clone());
            let kernel = Flex::norm_activation_backward(&inputs, statistics, g);
            prop_assert!(close(&values(ours.x), &values(kernel.x)));
            prop_assert!(close(&values(ours.gamma), &values(kernel.gamma)));
            prop_assert!(close(&values(ours.beta), &values(kernel.beta)));
            prop_assert!(close(&values(ours.sums), &values(kernel.sums)));
            prop_assert_eq!(ours.residual.is_some(), kernel.residual.is_some());
            if let (Some(a), Some(b)) = (ours.residual, kernel.residual) {
                prop_assert!(close(&values(a), &values(b)));
            }
        }
    }
}
