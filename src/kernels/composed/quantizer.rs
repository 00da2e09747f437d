//! The quantizer.

use burn::backend::Backend;
use burn::backend::tensor::FloatTensor;
use burn_backend::{Slice, TensorMetadata};

use super::values::Values;
use crate::kernels::quantize::Grids;
use crate::quantizer::{Family, Grid, Rules};

/// Q(x), any shape.
pub(in crate::kernels) fn fake_quantize_forward<B: Backend>(
    x: FloatTensor<B>,
    grids: &Grids,
) -> FloatTensor<B> {
    match grids {
        Grids::One(grid) => quantized(Values::<B>(x), grid).0,
        Grids::Along { axis, grids } => {
            let parts = grids.iter().enumerate();
            let of = |(i, grid)| quantized(Values::<B>(part::<B>(&x, *axis, i)), grid).0;
            let parts = parts.map(of);
            B::float_cat(parts.collect(), *axis)
        }
    }
}

/// What lies at an index of an axis, which stays.
fn part<B: Backend>(x: &FloatTensor<B>, axis: usize, index: usize) -> FloatTensor<B> {
    let lengths = x.shape().to_vec().into_iter().enumerate();
    let slices: Vec<Slice> = lengths
        .map(|(i, length)| match i == axis {
            true => Slice::from(index..index + 1),
            false => Slice::from(0..length),
        })
        .collect();
    B::float_slice(x.clone(), &slices)
}

pub(super) fn quantized<B: Backend>(x: Values<B>, grid: &Grid) -> Values<B> {
    match grid.family {
        Family::Uniform => {
            let low = grid.low();
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

/// Gradient of `x` and the sums, `[4]` for every grid.
pub(in crate::kernels) fn fake_quantize_backward<B: Backend>(
    x: FloatTensor<B>,
    g: FloatTensor<B>,
    grids: &Grids,
) -> (FloatTensor<B>, FloatTensor<B>) {
    let of = |x: FloatTensor<B>, g: FloatTensor<B>, grid: &Grid| {
        let (gx, sums) = quantizer_gradient(&Values::<B>(x), &Values(g), grid);
        (gx.0, sums.0)
    };
    match grids {
        Grids::One(grid) => of(x, g, grid),
        Grids::Along { axis, grids } => {
            let parts = grids.iter().enumerate().map(|(i, grid)| {
                let [x, g] = [&x, &g].map(|tensor| part::<B>(tensor, *axis, i));
                of(x, g, grid)
            });
            let (gx, sums) = parts.unzip();
            (B::float_cat(gx, *axis), B::float_cat(sums, 0))
        }
    }
}

pub(super) fn quantizer_gradient<B: Backend>(
    x: &Values<B>,
    g: &Values<B>,
    grid: &Grid,
) -> (Values<B>, Values<B>) {
    let published = grid.rules == Rules::PublishedCode;
    let (gx, parts) = match grid.family {
        Family::Uniform => {
            let low = grid.low();
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
