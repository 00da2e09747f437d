//! Batch norm, residual addition and activation (ReLU or quantizer) of slices, as one operation.
//!
//! Layout `[n, c, h * w]`. Channels are independent, so one channel is one unit of work; its rows
//! stay in cache between the two passes. Sums are taken per row in lanes and added up in f64 in
//! row order, so they do not depend on the number of threads.

use std::hint::black_box;
use std::mem::MaybeUninit;

use super::parallel::Cpu;
use super::quantize::{LaneSums, UniformLane};
use super::simd::multiversion;
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
    /// gamma / sqrt(var + eps)
    scale: f32,
    beta: f32,
}

impl Channel {
    /// `IN_ORDER` rounds as the published code does, after the product and after the division; a
    /// division of every element costs more than all else here.
    #[inline(always)]
    fn apply<const IN_ORDER: bool>(&self, x: f32) -> f32 {
        if IN_ORDER {
            (x - self.mean) * self.gamma / self.deviation + self.beta
        } else {
            (x - self.mean) * self.scale + self.beta
        }
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
    /// How the batch's own statistics are summed; the arithmetic behind them follows suit.
    pub moments: Moments,
    /// Shape of `x`.
    pub extent: Extent,
}

impl Inputs<'_> {
    fn channel(&self, statistics: &[f32], c: usize) -> Channel {
        let deviation = (statistics[self.extent.channels + c] + self.epsilon).sqrt();
        let (inverse, gamma) = (1.0 / deviation, self.gamma[c]);
        Channel {
            mean: statistics[c],
            inverse,
            deviation,
            gamma,
            scale: gamma * inverse,
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
pub fn statistics(cpu: Cpu, inputs: &Inputs) -> Vec<f32> {
    let Inputs {
        x,
        extent: e,
        moments,
        ..
    } = *inputs;
    let count = (e.images * e.pixels) as f64;
    let exact = |c: usize| {
        // Deviations from the first element: no cancellation for channels far from zero.
        let shift = row(x, e, 0, c)[0];
        let (mut sum, mut squares) = (0.0, 0.0);
        for image in 0..e.images {
            let (s, q) = row_moments(cpu.simd, row(x, e, image, c), shift);
            sum += s;
            squares += q;
        }
        let mean = sum / count;
        let variance = (squares / count - mean * mean).max(0.0);
        ((f64::from(shift) + mean) as f32, variance as f32)
    };
    let moments: Vec<(f32, f32)> = cpu.map((0..e.channels).collect(), |_, c| match moments {
        Moments::Exact => exact(c),
        Moments::Sequential => sequential_statistics(x, e, c),
    });
    let means = moments.iter().map(|m| m.0);
    means.chain(moments.iter().map(|m| m.1)).collect()
}

/// Mean and biased variance of one channel, in the order of the published code.
fn sequential_statistics(x: &[f32], e: Extent, c: usize) -> (f32, f32) {
    let count = (e.images * e.pixels) as f32;
    let all = (0..e.images).flat_map(|image| row(x, e, image, c));
    let (sum, squares) = all.fold((0.0, 0.0), |(s, q), x| (s + x, q + x * x));
    let mean = sum / count;
    (mean, squares / count - mean * mean)
}

/// Writes the output for the given statistics.
pub fn forward(cpu: Cpu, inputs: &Inputs, statistics: &[f32], y: &mut [MaybeUninit<f32>]) {
    assert_eq!(
        inputs.x.len(),
        y.len(),
        "input and output have the same length"
    );
    cpu.map(rows_by_channel(y, inputs.extent), |c, rows| {
        let channel = inputs.channel(statistics, c);
        for (image, y) in rows.into_iter().enumerate() {
            let x = row(inputs.x, inputs.extent, image, c);
            let residual = inputs.residual_row(image, c);
            let forward = match inputs.moments {
                Moments::Exact => forward_row,
                Moments::Sequential => forward_row_in_order,
            };
            forward(cpu.simd, &channel, &inputs.activation, x, residual, y);
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

/// Writes the gradient of `x` to `gx` and, where there is a residual, its gradient to `gr`, which is
/// empty otherwise.
pub fn backward(
    cpu: Cpu,
    inputs: &Inputs,
    statistics: &[f32],
    g: &[f32],
    gx: &mut [MaybeUninit<f32>],
    gr: &mut [MaybeUninit<f32>],
) -> Gradients {
    let e = inputs.extent;
    assert!(
        inputs.x.len() == gx.len() && g.len() == gx.len(),
        "one length for input and gradients"
    );
    let gr_rows = if gr.is_empty() {
        (0..e.channels).map(|_| Vec::new()).collect()
    } else {
        rows_by_channel(gr, e)
    };
    let channels: Vec<_> = rows_by_channel(gx, e).into_iter().zip(gr_rows).collect();
    let parts = cpu.map(channels, |c, (gx, gr)| {
        backward_channel(cpu, inputs, statistics, g, c, gx, gr)
    });
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

/// One channel: the gradient before the activation (the residual's own) in a first pass over its
/// rows, the input's in a second. Returns the sums behind beta, gamma and the quantizer.
fn backward_channel(
    cpu: Cpu,
    inputs: &Inputs,
    statistics: &[f32],
    g: &[f32],
    c: usize,
    gx: Vec<&mut [MaybeUninit<f32>]>,
    gr: Vec<&mut [MaybeUninit<f32>]>,
) -> (f64, f64, Sums) {
    let e = inputs.extent;
    let count = (e.images * e.pixels) as f64;
    let channel = inputs.channel(statistics, c);
    let mut sums = Sums::default();
    let (mut sum, mut product) = (0.0, 0.0);
    // Without a residual the input's rows hold what lies between the two passes.
    let (between, fresh) = if gr.is_empty() { (gx, gr) } else { (gr, gx) };
    let mut between_rows = Vec::with_capacity(between.len());
    for (image, out) in between.into_iter().enumerate() {
        let x = row(inputs.x, e, image, c);
        let upstream = row(g, e, image, c);
        let residual = inputs.residual_row(image, c);
        let pre_activation = match inputs.moments {
            Moments::Exact => pre_activation_row,
            Moments::Sequential => pre_activation_row_in_order,
        };
        let (s, p, q) = pre_activation(
            cpu.simd,
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
        // SAFETY: the call above wrote every element of the row.
        between_rows.push(unsafe { out.assume_init_mut() });
    }
    let means = Means {
        scale: channel.scale,
        gradient: (sum / count) as f32,
        product: (product / count) as f32,
    };
    let mut fresh = fresh.into_iter();
    for (image, between) in between_rows.into_iter().enumerate() {
        let x = row(inputs.x, e, image, c);
        match fresh.next() {
            Some(gx) => input_gradient_row(cpu.simd, &channel, means, x, between, gx),
            None => input_gradient_in_place(cpu.simd, &channel, means, x, between),
        }
    }
    (sum, product, sums)
}

/// Means over a channel that the input's gradient takes away, and its scale.
#[derive(Debug, Clone, Copy)]
struct Means {
    /// gamma / sqrt(var + eps)
    scale: f32,
    /// mean(gz)
    gradient: f32,
    /// mean(gz * xhat)
    product: f32,
}

multiversion! {
    fn row_moments(x: &[f32], shift: f32) -> (f64, f64) = row_moments_body
}

multiversion! {
    fn forward_row(channel: &Channel, activation: &Activation, x: &[f32], residual: &[f32],
        y: &mut [MaybeUninit<f32>]) = forward_row_body::<false>
}

multiversion! {
    fn forward_row_in_order(channel: &Channel, activation: &Activation, x: &[f32],
        residual: &[f32], y: &mut [MaybeUninit<f32>]) = forward_row_body::<true>
}

multiversion! {
    fn pre_activation_row(channel: &Channel, activation: &Activation, x: &[f32], residual: &[f32],
        g: &[f32], out: &mut [MaybeUninit<f32>]) -> (f64, f64, Sums)
        = pre_activation_row_body::<false>
}

multiversion! {
    fn pre_activation_row_in_order(channel: &Channel, activation: &Activation, x: &[f32],
        residual: &[f32], g: &[f32], out: &mut [MaybeUninit<f32>]) -> (f64, f64, Sums)
        = pre_activation_row_body::<true>
}

multiversion! {
    fn input_gradient_row(channel: &Channel, means: Means, x: &[f32], gz: &[f32],
        gx: &mut [MaybeUninit<f32>]) = input_gradient_row_body
}

multiversion! {
    /// [`input_gradient_row`] where the gradient lies where its source lay.
    fn input_gradient_in_place(channel: &Channel, means: Means, x: &[f32], gz: &mut [f32])
        = input_gradient_in_place_body
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
    (total(black_box(&sum)), total(black_box(&squares)))
}

/// No residual.
const ZEROS: [f32; LANES] = [0.0; LANES];

#[inline(always)]
fn forward_row_body<const IN_ORDER: bool>(
    channel: &Channel,
    activation: &Activation,
    x: &[f32],
    residual: &[f32],
    y: &mut [MaybeUninit<f32>],
) {
    // What the loops below do not reach would stay unwritten.
    assert!(
        x.len() == y.len() && (residual.is_empty() || residual.len() == x.len()),
        "rows of one length"
    );
    let channel = *channel;
    // The bodies are written out in place: closures would not be compiled for the instruction set
    // of the function around them. With and without a residual are two loops, and flat ones: any
    // more structure makes the compiler gather its vectors.
    macro_rules! map {
        (|$z:ident| $f:expr) => {
            if residual.is_empty() {
                for (y, x) in y.iter_mut().zip(x) {
                    let $z = channel.apply::<IN_ORDER>(*x);
                    y.write($f);
                }
            } else {
                for ((y, x), r) in y.iter_mut().zip(x).zip(residual) {
                    let $z = channel.apply::<IN_ORDER>(*x) + r;
                    y.write($f);
                }
            }
        };
    }
    match activation {
        Activation::Identity => map!(|z| z),
        Activation::Relu => map!(|z| if z > 0.0 { z } else { 0.0 }),
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
fn pre_activation_row_body<const IN_ORDER: bool>(
    channel: &Channel,
    activation: &Activation,
    x: &[f32],
    residual: &[f32],
    g: &[f32],
    out: &mut [MaybeUninit<f32>],
) -> (f64, f64, Sums) {
    let (g, out) = (&g[..x.len()], &mut out[..x.len()]);
    let channel = *channel;
    let mut lanes = LaneSums::default();
    let mut exact = Sums::default();
    let (mut sum, mut product) = ([0f32; LANES], [0f32; LANES]);
    let (xs, _) = x.as_chunks::<LANES>();
    let (rs, _) = residual.as_chunks::<LANES>();
    let (gs, _) = g.as_chunks::<LANES>();
    let whole = xs.len() * LANES;
    macro_rules! reduce {
        (|$z:ident, $g:ident, $lane:ident| $f:expr) => {{
            let (outs, rest) = out.as_chunks_mut::<LANES>();
            for (k, ((x, g), out)) in xs.iter().zip(gs).zip(outs).enumerate() {
                let r = rs.get(k).unwrap_or(&ZEROS);
                for $lane in 0..LANES {
                    let normalised = (x[$lane] - channel.mean) * channel.inverse;
                    let $z = channel.apply::<IN_ORDER>(x[$lane]) + r[$lane];
                    let $g = g[$lane];
                    let gz = $f;
                    sum[$lane] += gz;
                    product[$lane] += gz * normalised;
                    out[$lane].write(gz);
                }
            }
            for ($lane, out) in rest.iter_mut().enumerate() {
                let i = whole + $lane;
                let normalised = (x[i] - channel.mean) * channel.inverse;
                let $z = channel.apply::<IN_ORDER>(x[i]) + residual.get(i).unwrap_or(&0.0);
                let $g = g[i];
                let gz = $f;
                sum[$lane] += gz;
                product[$lane] += gz * normalised;
                out.write(gz);
            }
        }};
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
    // Laid down in memory before they are summed: the compiler keeps what it can see being taken
    // apart as single numbers.
    let mut all = black_box(&lanes).total();
    all.add(exact);
    (total(black_box(&sum)), total(black_box(&product)), all)
}

/// `gamma / sqrt(var + eps) * (gz - mean(gz) - xhat * mean(gz * xhat))`
#[inline(always)]
fn input_gradient(channel: &Channel, means: Means, x: f32, gz: f32) -> f32 {
    let normalised = (x - channel.mean) * channel.inverse;
    means.scale * (gz - means.gradient - normalised * means.product)
}

#[inline(always)]
fn input_gradient_row_body(
    channel: &Channel,
    means: Means,
    x: &[f32],
    gz: &[f32],
    gx: &mut [MaybeUninit<f32>],
) {
    for ((gx, x), gz) in gx.iter_mut().zip(x).zip(gz) {
        gx.write(input_gradient(channel, means, *x, *gz));
    }
}

#[inline(always)]
fn input_gradient_in_place_body(channel: &Channel, means: Means, x: &[f32], gz: &mut [f32]) {
    for (gz, x) in gz.iter_mut().zip(x) {
        *gz = input_gradient(channel, means, *x, *gz);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::parallel::Pool;
    use super::super::{Simd, written};
    use super::*;
    use crate::quantizer::{Parametrization, Quantizer, Rules};

    fn grid(p: Parametrization) -> Grid {
        let quantizer = Quantizer::learned(p, false, Rules::Paper);
        quantizer.grid(match p.family() {
            Family::Uniform => [0.25, 1.75],
            Family::PowerOfTwo => [0.125, 2.0],
        })
    }

    /// What goes in, and the plain reference in f64 of what comes out.
    struct Case {
        extent: Extent,
        activation: Activation,
        moments: Moments,
        x: Vec<f32>,
        residual: Option<Vec<f32>>,
        gamma: Vec<f32>,
        beta: Vec<f32>,
        g: Vec<f32>,
    }

    impl Case {
        fn inputs(&self) -> Inputs<'_> {
            Inputs {
                x: &self.x,
                residual: self.residual.as_deref(),
                gamma: &self.gamma,
                beta: &self.beta,
                epsilon: 1e-5,
                activation: self.activation,
                moments: self.moments,
                extent: self.extent,
            }
        }

        /// Runs forward and backward: output, gradients of input and residual, the rest.
        fn run(&self, cpu: Cpu) -> (Vec<f32>, Vec<f32>, Vec<f32>, Gradients) {
            let inputs = self.inputs();
            // Sums in the published code's order are its own matter; here the arithmetic behind them.
            let exact = Inputs {
                moments: Moments::Exact,
                ..inputs
            };
            let s = statistics(cpu, &exact);
            let (y, ()) = written(self.x.len(), |y| forward(cpu, &inputs, &s, y));
            let length = self.residual.as_ref().map_or(0, Vec::len);
            let (gx, (gr, gradients)) = written(self.x.len(), |gx| {
                written(length, |gr| backward(cpu, &inputs, &s, &self.g, gx, gr))
            });
            (y, gx, gr, gradients)
        }

        /// Output, gradients of input and residual, of gamma and beta, and the sums.
        fn reference(&self) -> ([Vec<f64>; 5], Sums) {
            let e = self.extent;
            let n = self.x.len();
            let (mut y, mut gx, mut gz) = (vec![0.0; n], vec![0.0; n], vec![0.0; n]);
            let (mut gamma, mut beta) = (Vec::new(), Vec::new());
            let mut sums = Sums::default();
            for c in 0..e.channels {
                let own: Vec<usize> = (0..n).filter(|i| i / e.pixels % e.channels == c).collect();
                let count = own.len() as f64;
                let x = |i: usize| f64::from(self.x[i]);
                let mean = own.iter().map(|i| x(*i)).sum::<f64>() / count;
                let variance = own.iter().map(|i| (x(*i) - mean).powi(2)).sum::<f64>() / count;
                let deviation = (variance + 1e-5).sqrt();
                let normal = |i: usize| (x(i) - mean) / deviation;
                let (scale, shift) = (f64::from(self.gamma[c]), f64::from(self.beta[c]));
                for i in &own {
                    let added = self.residual.as_ref().map_or(0.0, |r| f64::from(r[*i]));
                    let z = normal(*i) * scale + shift + added;
                    let g = self.g[*i];
                    (y[*i], gz[*i]) = match &self.activation {
                        Activation::Identity => (z, f64::from(g)),
                        Activation::Relu => (z.max(0.0), if z > 0.0 { g.into() } else { 0.0 }),
                        Activation::Quantize(grid) => (
                            f64::from(grid.forward(z as f32)),
                            f64::from(grid.backward(z as f32, g, &mut sums)),
                        ),
                    };
                }
                let sum: f64 = own.iter().map(|i| gz[*i]).sum();
                let product: f64 = own.iter().map(|i| gz[*i] * normal(*i)).sum();
                for i in &own {
                    gx[*i] =
                        scale / deviation * (gz[*i] - sum / count - normal(*i) * product / count);
                }
                gamma.push(product);
                beta.push(sum);
            }
            ([y, gx, gz, gamma, beta], sums)
        }

        /// Whether some activation lies so close to a threshold that f32 may round it the other way.
        fn ambiguous(&self) -> bool {
            let e = self.extent;
            let plain = Case {
                activation: Activation::Identity,
                moments: self.moments,
                x: self.x.clone(),
                residual: self.residual.clone(),
                gamma: self.gamma.clone(),
                beta: self.beta.clone(),
                g: self.g.clone(),
                extent: e,
            };
            let near = |z: f64, t: f64| (z - t).abs() < 1e-4 * (1.0 + z.abs());
            plain.reference().0[0]
                .iter()
                .any(|z| match &self.activation {
                    Activation::Identity => false,
                    Activation::Relu => near(*z, 0.0),
                    Activation::Quantize(grid) => match grid.family {
                        Family::Uniform => {
                            near(*z, 0.0)
                                || near(*z, grid.q_max.into())
                                || (z / f64::from(grid.step))
                                    .rem_euclid(1.0)
                                    .clamp(0.499, 0.501)
                                    == (z / f64::from(grid.step)).rem_euclid(1.0)
                        }
                        Family::PowerOfTwo => {
                            let half = (z.abs().log2() - 0.5).rem_euclid(1.0);
                            let whole = z.abs().log2().rem_euclid(1.0);
                            near(*z, 0.0)
                                || !(1e-3..0.999).contains(&half)
                                || !(1e-3..0.999).contains(&whole)
                        }
                    },
                })
        }
    }

    fn wave(n: usize, seed: f32) -> Vec<f32> {
        (0..n)
            .map(|i| (i as f32 * 0.713 + seed).sin() * 1.5)
            .collect()
    }

    fn close(ours: &[f32], expected: &[f64]) -> bool {
        ours.len() == expected.len()
            && ours
                .iter()
                .zip(expected)
                .all(|(a, b)| (f64::from(*a) - b).abs() < 1e-4 * (1.0 + b.abs()))
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn both_passes_equal_the_reference(
            images in 1usize..5, channels in 1usize..5, pixels in 2usize..40, kind in 0usize..4,
            with_residual in any::<bool>(), in_order in any::<bool>(), seed in 0.0f32..6.0,
        ) {
            let n = images * channels * pixels;
            let case = Case {
                moments: if in_order { Moments::Sequential } else { Moments::Exact },
                extent: Extent { images, channels, pixels },
                activation: [
                    Activation::Identity,
                    Activation::Relu,
                    Activation::Quantize(grid(Parametrization::U3)),
                    Activation::Quantize(grid(Parametrization::P3)),
                ][kind],
                x: wave(n, seed),
                residual: with_residual.then(|| wave(n, seed + 1.0)),
                gamma: (0..channels).map(|c| 0.7 + 0.2 * c as f32).collect(),
                beta: (0..channels).map(|c| 0.3 - 0.1 * c as f32).collect(),
                g: wave(n, seed + 2.0),
            };
            prop_assume!(!case.ambiguous());
            let ([y, gx, gz, gamma, beta], sums) = case.reference();
            for simd in Simd::available() {
                let (our_y, our_gx, our_gr, ours) = case.run(Cpu { simd, pool: Pool::Rayon });
                prop_assert!(close(&our_y, &y));
                prop_assert!(close(&our_gx, &gx));
                prop_assert!(case.residual.is_none() || close(&our_gr, &gz));
                prop_assert!(close(&ours.gamma, &gamma) && close(&ours.beta, &beta));
                for (a, b) in ours.sums.to_array().into_iter().zip(sums.to_array()) {
                    prop_assert!((a - b).abs() < 1e-3 * (1.0 + b.abs()), "{} and {}", a, b);
                }
            }
        }
    }

    #[test]
    fn results_do_not_depend_on_the_number_of_threads() {
        let extent = Extent {
            images: 9,
            channels: 7,
            pixels: 45,
        };
        let n = extent.images * extent.channels * extent.pixels;
        let case = Case {
            extent,
            activation: Activation::Quantize(grid(Parametrization::U3)),
            moments: Moments::Exact,
            x: wave(n, 0.0),
            residual: Some(wave(n, 1.0)),
            gamma: vec![0.9; 7],
            beta: vec![0.1; 7],
            g: wave(n, 2.0),
        };
        let with = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build();
            pool.expect("a pool")
                .install(|| case.run(Cpu::current(Pool::Rayon)))
        };
        let one = with(1);
        for threads in [2, 4] {
            assert_eq!(with(threads), one);
        }
    }
}
