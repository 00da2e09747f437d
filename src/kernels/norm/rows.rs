//! The loops over one row: one channel of one image.

use std::hint::black_box;
use std::mem::MaybeUninit;

use super::channel::{Activation, Channel};
use crate::kernels::quantize::{LaneSums, UniformLane};
use crate::kernels::simd::multiversion;
use crate::quantizer::{Family, Sums};

/// Means over a channel that the input's gradient takes away, and its scale.
#[derive(Debug, Clone, Copy)]
pub(super) struct Means {
    /// gamma / sqrt(var + eps)
    pub scale: f32,
    /// mean(gz)
    pub gradient: f32,
    /// mean(gz * xhat)
    pub product: f32,
}

multiversion! {
    pub(super) fn row_moments(x: &[f32], shift: f32) -> (f64, f64) = row_moments_body
}

multiversion! {
    pub(super) fn forward_row(channel: &Channel, activation: &Activation, x: &[f32], residual: &[f32],
        y: &mut [MaybeUninit<f32>]) = forward_row_body::<false>
}

multiversion! {
    pub(super) fn forward_row_in_order(channel: &Channel, activation: &Activation, x: &[f32],
        residual: &[f32], y: &mut [MaybeUninit<f32>]) = forward_row_body::<true>
}

multiversion! {
    pub(super) fn pre_activation_row(channel: &Channel, activation: &Activation, x: &[f32], residual: &[f32],
        g: &[f32], out: &mut [MaybeUninit<f32>]) -> (f64, f64, Sums)
        = pre_activation_row_body::<false>
}

multiversion! {
    pub(super) fn pre_activation_row_in_order(channel: &Channel, activation: &Activation, x: &[f32],
        residual: &[f32], g: &[f32], out: &mut [MaybeUninit<f32>]) -> (f64, f64, Sums)
        = pre_activation_row_body::<true>
}

multiversion! {
    pub(super) fn input_gradient_row(channel: &Channel, means: Means, x: &[f32], gz: &[f32],
        gx: &mut [MaybeUninit<f32>]) = input_gradient_row_body
}

multiversion! {
    /// [`input_gradient_row`] where the gradient lies where its source lay.
    pub(super) fn input_gradient_in_place(channel: &Channel, means: Means, x: &[f32], gz: &mut [f32])
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
        // (Not the greater of the two, which would make a zero of what is not a number.)
        Activation::Relu => map!(|z| if z <= 0.0 { 0.0 } else { z }),
        Activation::Clip { low, high } => {
            let (low, high) = (*low, *high);
            map!(|z| {
                let raised = if z <= low { low } else { z };
                if raised >= high { high } else { raised }
            });
        }
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
        Activation::Relu => reduce!(|z, g, lane| if z <= 0.0 { 0.0 } else { g }),
        Activation::Clip { low, high } => {
            let (low, high) = (*low, *high);
            reduce!(|z, g, lane| if z <= low || z >= high { 0.0 } else { g });
        }
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
