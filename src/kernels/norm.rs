//! Batch norm, residual addition and activation (ReLU or quantizer) of slices, as one operation.
//!
//! Layout `[n, c, h * w]`. Channels are independent, so one channel is one unit of work; its rows
//! stay in cache between the two passes. Sums are taken per row in lanes and added up in f64 in
//! row order, so they do not depend on the number of threads.

use std::mem::MaybeUninit;

use rayon::prelude::*;

use super::quantize::{LaneSums, UniformLane};
use super::simd::{Simd, multiversion};
use crate::quantizer::{Family, Grid, Sums};

/// What follows the normalisation.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Activation {
    /// Nothing.
    Identity,
    /// max(x, 0).
    Relu,
    /// Q(x); unsigned grids clip below zero, which makes them quantized ReLUs.
    Quantize(Grid),
}

/// Extent of a tensor `[n, c, h, w]`.
#[derive(Debug, Clone, Copy)]
pub struct Extent {
    /// Images.
    pub images: usize,
    /// Channels.
    pub channels: usize,
    /// Pixels of one channel, `h * w`.
    pub pixels: usize,
}

/// Scale, shift and statistics of one channel.
#[derive(Debug, Clone, Copy)]
struct Channel {
    mean: f32,
    /// 1 / sqrt(var + eps)
    inverse: f32,
    /// sqrt(var + eps)
    deviation: f32,
    gamma: f32,
    beta: f32,
}

impl Channel {
    #[inline(always)]
    fn apply(&self, x: f32) -> f32 {
        (x - self.mean) * self.gamma / self.deviation + self.beta
    }
}

/// Inputs of the forward and backward passes.
#[derive(Debug, Clone, Copy)]
pub struct Inputs<'a> {
    /// `[n, c, h, w]`.
    pub x: &'a [f32],
    /// Same shape, or nothing.
    pub residual: Option<&'a [f32]>,
    /// `[c]`.
    pub gamma: &'a [f32],
    /// `[c]`.
    pub beta: &'a [f32],
    /// Added to the variance.
    pub epsilon: f32,
    /// What follows.
    pub activation: Activation,
    /// Shape of `x`.
    pub extent: Extent,
}

impl Inputs<'_> {
    fn channel(&self, statistics: &[f32], c: usize) -> Channel {
        let deviation = (statistics[self.extent.channels + c] + self.epsilon).sqrt();
        Channel {
            mean: statistics[c],
            inverse: 1.0 / deviation,
            deviation,
            gamma: self.gamma[c],
            beta: self.beta[c],
        }
    }

    /// The residual's row, or an empty one.
    fn residual_row(&self, image: usize, c: usize) -> &[f32] {
        self.residual.map_or(&[], |r| row(r, self.extent, image, c))
    }
}

fn row(tensor: &[f32], e: Extent, image: usize, channel: usize) -> &[f32] {
    let start = (image * e.channels + channel) * e.pixels;
    &tensor[start..start + e.pixels]
}

/// The rows of a tensor by channel, so that channels can be written in parallel.
fn rows_by_channel<T>(tensor: &mut [T], e: Extent) -> Vec<Vec<&mut [T]>> {
    let mut rows: Vec<Vec<&mut [T]>> = (0..e.channels)
        .map(|_| Vec::with_capacity(e.images))
        .collect();
    for (i, row) in tensor.chunks_mut(e.pixels.max(1)).enumerate() {
        rows[i % e.channels].push(row);
    }
    rows
}

/// How a batch's mean and variance are summed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moments {
    /// In f64, as deviations from a first element.
    Exact,
    /// One element after the other in f32, variance as E(x^2) - E(x)^2: as the published code does.
    ///
    /// Its sums are off by about 1e-5, and a quantized network amplifies that: activations that
    /// round the other way change ten in the next layer. Only the same sums give its numbers.
    Sequential,
}

/// Mean and biased variance per channel: `[mean; c] ++ [var; c]`.
pub fn statistics(simd: Simd, x: &[f32], e: Extent, moments: Moments) -> Vec<f32> {
    let count = (e.images * e.pixels) as f64;
    if moments == Moments::Sequential {
        return sequential_statistics(x, e);
    }
    let moments: Vec<(f32, f32)> = (0..e.channels)
        .into_par_iter()
        .map(|c| {
            // Deviations from the first element: no cancellation for channels far from zero.
            let shift = row(x, e, 0, c)[0];
            let (mut sum, mut squares) = (0.0, 0.0);
            for image in 0..e.images {
                let (s, q) = row_moments(simd, row(x, e, image, c), shift);
                sum += s;
                squares += q;
            }
            let mean = sum / count;
            let variance = (squares / count - mean * mean).max(0.0);
            ((f64::from(shift) + mean) as f32, variance as f32)
        })
        .collect();
    let means = moments.iter().map(|m| m.0);
    means.chain(moments.iter().map(|m| m.1)).collect()
}

fn sequential_statistics(x: &[f32], e: Extent) -> Vec<f32> {
    let count = (e.images * e.pixels) as f32;
    let moments: Vec<(f32, f32)> = (0..e.channels)
        .into_par_iter()
        .map(|c| {
            let all = (0..e.images).flat_map(|image| row(x, e, image, c));
            let (sum, squares) = all.fold((0.0, 0.0), |(s, q), x| (s + x, q + x * x));
            let mean = sum / count;
            (mean, squares / count - mean * mean)
        })
        .collect();
    let means = moments.iter().map(|m| m.0);
    means.chain(moments.iter().map(|m| m.1)).collect()
}

/// Writes the output for the given statistics.
pub fn forward(simd: Simd, inputs: &Inputs, statistics: &[f32], y: &mut [MaybeUninit<f32>]) {
    assert_eq!(
        inputs.x.len(),
        y.len(),
        "input and output have the same length"
    );
    rows_by_channel(y, inputs.extent)
        .into_par_iter()
        .enumerate()
        .for_each(|(c, rows)| {
            let channel = inputs.channel(statistics, c);
            for (image, y) in rows.into_iter().enumerate() {
                let x = row(inputs.x, inputs.extent, image, c);
                let residual = inputs.residual_row(image, c);
                forward_row(simd, &channel, &inputs.activation, x, residual, y);
            }
        });
}

/// What the backward pass yields besides the tensors it writes.
#[derive(Debug, Clone, PartialEq)]
pub struct Gradients {
    /// `[c]`.
    pub gamma: Vec<f32>,
    /// `[c]`.
    pub beta: Vec<f32>,
    /// Of the quantizer.
    pub sums: Sums,
}

/// Writes the gradient of `x` to `gx` and, where there is a residual, its gradient to `gr`.
///
/// `gr` is empty without a residual; then `gx` also serves as the scratch between the two passes.
pub fn backward(
    simd: Simd,
    inputs: &Inputs,
    statistics: &[f32],
    g: &[f32],
    gx: &mut [f32],
    gr: &mut [f32],
) -> Gradients {
    let e = inputs.extent;
    let count = (e.images * e.pixels) as f64;
    let gr_rows = if gr.is_empty() {
        (0..e.channels).map(|_| Vec::new()).collect()
    } else {
        rows_by_channel(gr, e)
    };
    let parts: Vec<(f64, f64, Sums)> = rows_by_channel(gx, e)
        .into_par_iter()
        .zip(gr_rows)
        .enumerate()
        .map(|(c, (mut gx_rows, mut gr_rows))| {
            let channel = inputs.channel(statistics, c);
            let mut sums = Sums::default();
            let (mut sum, mut product) = (0.0, 0.0);
            for (image, gx_row) in gx_rows.iter_mut().enumerate() {
                let x = row(inputs.x, e, image, c);
                let upstream = row(g, e, image, c);
                let residual = inputs.residual_row(image, c);
                // The gradient before the activation is the residual's own gradient.
                let out: &mut [f32] = match gr_rows.get_mut(image) {
                    Some(gr) => gr,
                    None => gx_row,
                };
                let (s, p, q) = pre_activation_row(
                    simd,
                    &channel,
                    &inputs.activation,
                    x,
                    residual,
                    upstream,
                    out,
                );
                sum += s;
                product += p;
                sums.add(q);
            }
            let scale = channel.gamma * channel.inverse;
            let mean_g = (sum / count) as f32;
            let mean_product = (product / count) as f32;
            for (image, gx) in gx_rows.into_iter().enumerate() {
                let x = row(inputs.x, e, image, c);
                if let Some(gr) = gr_rows.get(image) {
                    gx.copy_from_slice(gr);
                }
                input_gradient_row(simd, &channel, scale, mean_g, mean_product, x, gx);
            }
            (sum, product, sums)
        })
        .collect();
    let mut sums = Sums::default();
    for part in &parts {
        sums.add(part.2);
    }
    Gradients {
        gamma: parts.iter().map(|p| p.1 as f32).collect(),
        beta: parts.iter().map(|p| p.0 as f32).collect(),
        sums,
    }
}

multiversion! {
    fn row_moments(x: &[f32], shift: f32) -> (f64, f64) = row_moments_body
}

multiversion! {
    fn forward_row(channel: &Channel, activation: &Activation, x: &[f32], residual: &[f32],
        y: &mut [MaybeUninit<f32>]) = forward_row_body
}

multiversion! {
    fn pre_activation_row(channel: &Channel, activation: &Activation, x: &[f32], residual: &[f32],
        g: &[f32], out: &mut [f32]) -> (f64, f64, Sums) = pre_activation_row_body
}

multiversion! {
    fn input_gradient_row(channel: &Channel, scale: f32, mean_g: f32, mean_product: f32,
        x: &[f32], gx: &mut [f32]) = input_gradient_row_body
}

const LANES: usize = LaneSums::LANES;

fn total(lanes: &[f32; LANES]) -> f64 {
    lanes.iter().map(|v| f64::from(*v)).sum()
}

#[inline(always)]
fn row_moments_body(x: &[f32], shift: f32) -> (f64, f64) {
    let (mut sum, mut squares) = ([0f32; LANES], [0f32; LANES]);
    let mut lanes = x.chunks_exact(LANES);
    for x in &mut lanes {
        for j in 0..LANES {
            let deviation = x[j] - shift;
            sum[j] += deviation;
            squares[j] += deviation * deviation;
        }
    }
    for (j, x) in lanes.remainder().iter().enumerate() {
        let deviation = x - shift;
        sum[j] += deviation;
        squares[j] += deviation * deviation;
    }
    (total(&sum), total(&squares))
}

/// A row loop with the body written out in place: closures would not be compiled for the
/// instruction set of the function around them.
macro_rules! for_row {
    ($x:ident, $residual:ident, |$i:ident, $lane:ident, $r:ident| $body:expr) => {{
        let whole = $x.len() / LANES * LANES;
        if $residual.is_empty() {
            let $r = 0.0f32;
            for start in (0..whole).step_by(LANES) {
                for $lane in 0..LANES {
                    let $i = start + $lane;
                    $body
                }
            }
            for $i in whole..$x.len() {
                let $lane = $i - whole;
                $body
            }
        } else {
            let residual = &$residual[..$x.len()];
            for start in (0..whole).step_by(LANES) {
                for $lane in 0..LANES {
                    let $i = start + $lane;
                    let $r = residual[$i];
                    $body
                }
            }
            for $i in whole..$x.len() {
                let $lane = $i - whole;
                let $r = residual[$i];
                $body
            }
        }
    }};
}

#[inline(always)]
fn forward_row_body(
    channel: &Channel,
    activation: &Activation,
    x: &[f32],
    residual: &[f32],
    y: &mut [MaybeUninit<f32>],
) {
    let y = &mut y[..x.len()];
    let channel = *channel;
    macro_rules! map {
        (|$z:ident| $f:expr) => {
            for_row!(x, residual, |i, _lane, r| {
                let $z = channel.apply(x[i]) + r;
                y[i].write($f);
            })
        };
    }
    match activation {
        Activation::Identity => map!(|z| z),
        Activation::Relu => map!(|z| z.max(0.0)),
        Activation::Quantize(grid) if grid.family == Family::Uniform => {
            let lane = UniformLane::new(grid);
            map!(|z| lane.quantize(z));
        }
        Activation::Quantize(grid) => map!(|z| grid.forward(z)),
    }
}

/// Writes the gradient before the activation; returns its sum, its product sum with the
/// normalised input, and the quantizer's sums.
#[inline(always)]
fn pre_activation_row_body(
    channel: &Channel,
    activation: &Activation,
    x: &[f32],
    residual: &[f32],
    g: &[f32],
    out: &mut [f32],
) -> (f64, f64, Sums) {
    let (g, out) = (&g[..x.len()], &mut out[..x.len()]);
    let channel = *channel;
    let mut lanes = LaneSums::default();
    let mut exact = Sums::default();
    let (mut sum, mut product) = ([0f32; LANES], [0f32; LANES]);
    macro_rules! reduce {
        (|$z:ident, $g:ident, $lane:ident| $f:expr) => {
            for_row!(x, residual, |i, $lane, r| {
                let normalised = (x[i] - channel.mean) * channel.inverse;
                let $z = channel.apply(x[i]) + r;
                let $g = g[i];
                let gz = $f;
                sum[$lane] += gz;
                product[$lane] += gz * normalised;
                out[i] = gz;
            })
        };
    }
    match activation {
        Activation::Identity => reduce!(|_z, g, lane| g),
        Activation::Relu => reduce!(|z, g, lane| if z > 0.0 { g } else { 0.0 }),
        Activation::Quantize(grid) if grid.family == Family::Uniform => {
            let uniform = UniformLane::new(grid);
            reduce!(|z, g, lane| uniform.backward(z, g, &mut lanes, lane));
        }
        Activation::Quantize(grid) => reduce!(|z, g, lane| grid.backward(z, g, &mut exact)),
    }
    let mut all = lanes.total();
    all.add(exact);
    (total(&sum), total(&product), all)
}

/// `gx = gamma / sqrt(var + eps) * (gz - mean(gz) - xhat * mean(gz * xhat))`, in place of `gz`.
#[inline(always)]
fn input_gradient_row_body(
    channel: &Channel,
    scale: f32,
    mean_g: f32,
    mean_product: f32,
    x: &[f32],
    gx: &mut [f32],
) {
    for (gx, x) in gx.iter_mut().zip(x) {
        let normalised = (x - channel.mean) * channel.inverse;
        *gx = scale * (*gx - mean_g - normalised * mean_product);
    }
}
