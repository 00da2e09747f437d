//! Batch norm, residual addition and activation (ReLU or quantizer) of slices, as one operation.
//!
//! Layout `[n, c, h * w]`. Channels are independent, so one channel is one unit of work; its rows
//! stay in cache between the two passes. Sums are taken per row in lanes and added up in f64 in
//! row order, so they do not depend on the number of threads.

mod channel;
mod rows;

use std::mem::MaybeUninit;

use super::parallel::Cpu;
use crate::kernels::ranks::Group;
use crate::quantizer::Sums;
pub use channel::{Activation, Channel, Moments};
use rows::{
    Means, forward_row, forward_row_in_order, input_gradient_in_place, input_gradient_row,
    pre_activation_row, pre_activation_row_in_order, row_moments,
};

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

/// Ranks whose batches count as one: mean and variance are those of all their images.
#[derive(Debug, Clone, PartialEq)]
pub struct Across {
    /// The ranks. All of them normalise the same channels in the same order.
    pub group: Group,
    /// Images of all of them together.
    pub images: usize,
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
    /// Ranks to take the statistics over; this batch's alone where `None`. Sums in the published
    /// program's order are one process's.
    pub across: Option<&'a Across>,
    /// Shape of `x`.
    pub extent: Extent,
}

impl Inputs<'_> {
    /// Elements of a channel that the statistics are of.
    fn count(&self) -> f64 {
        let images = self.across.map_or(self.extent.images, |a| a.images);
        (images * self.extent.pixels) as f64
    }

    fn channel(&self, statistics: &[f32], c: usize) -> Channel {
        Channel::new(
            [self.gamma[c], self.beta[c]],
            [statistics[c], statistics[self.extent.channels + c]],
            self.epsilon,
        )
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

/// Mean and biased variance per channel: `[mean; c] ++ [var; c]`.
pub fn statistics(cpu: Cpu, inputs: &Inputs) -> Vec<f32> {
    let Inputs {
        x,
        extent: e,
        moments,
        ..
    } = *inputs;
    if let Some(across) = inputs.across {
        return common_statistics(cpu, inputs, across);
    }
    let count = inputs.count();
    let exact = |c: usize| {
        let (shift, [sum, squares]) = deviations(cpu, x, e, c);
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

/// Sums of a channel's deviations from its first element, and of their squares: no cancellation for
/// channels far from zero.
fn deviations(cpu: Cpu, x: &[f32], e: Extent, c: usize) -> (f32, [f64; 2]) {
    let shift = row(x, e, 0, c)[0];
    let (mut sum, mut squares) = (0.0, 0.0);
    for image in 0..e.images {
        let (s, q) = row_moments(cpu.simd, row(x, e, image, c), shift);
        sum += s;
        squares += q;
    }
    (shift, [sum, squares])
}

/// The statistics of all ranks' images.
///
/// Ranks deviate from elements of their own, so what they add up are sums of the elements and of their
/// squares. In f64 that costs nothing: f32 elements a million deviations from zero have lost more.
fn common_statistics(cpu: Cpu, inputs: &Inputs, across: &Across) -> Vec<f32> {
    let Inputs { x, extent: e, .. } = *inputs;
    let own = (e.images * e.pixels) as f64;
    let sums: Vec<[f64; 2]> = cpu.map((0..e.channels).collect(), |_, c| {
        let (shift, [sum, squares]) = deviations(cpu, x, e, c);
        let shift = f64::from(shift);
        [
            sum + own * shift,
            squares + 2.0 * shift * sum + own * shift * shift,
        ]
    });
    let mut sums = sums.into_flattened();
    across.group.sum(&mut sums);
    let count = inputs.count();
    let moments = sums.chunks_exact(2).map(|of| {
        let mean = of[0] / count;
        [mean, (of[1] / count - mean * mean).max(0.0)]
    });
    let moments: Vec<[f64; 2]> = moments.collect();
    let means = moments.iter().map(|m| m[0] as f32);
    means.chain(moments.iter().map(|m| m[1] as f32)).collect()
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
    let first = |c: usize, (gx, gr)| first_pass(cpu, inputs, statistics, g, c, gx, gr);
    let second = |c: usize, rows: Rows<'_>, totals: [f64; 2]| {
        second_pass(cpu, inputs, &inputs.channel(statistics, c), c, rows, totals);
    };
    let parts = match inputs.across {
        // A channel's rows are still in cache.
        None => cpu.map(channels, |c, rows| {
            let (sums, rows) = first(c, rows);
            second(c, rows, sums.of_channel);
            sums
        }),
        Some(across) => {
            let (parts, rows): (Vec<Part>, Vec<Rows>) =
                cpu.map(channels, first).into_iter().unzip();
            let own = parts.iter().map(|p| p.of_channel);
            let mut totals = own.collect::<Vec<_>>().into_flattened();
            across.group.sum(&mut totals);
            let rows = rows.into_iter().zip(totals.chunks_exact(2));
            cpu.map(rows.collect(), |c, (rows, totals)| {
                second(c, rows, [totals[0], totals[1]]);
            });
            parts
        }
    };
    let mut sums = Sums::default();
    for part in &parts {
        sums.add(part.of_quantizer);
    }
    Gradients {
        gamma: parts.iter().map(|p| p.of_channel[1] as f32).collect(),
        beta: parts.iter().map(|p| p.of_channel[0] as f32).collect(),
        sums,
    }
}

/// What the first pass over a channel sums up.
struct Part {
    /// Of the gradient before the activation, and of its products with the normalised input: the
    /// gradients of beta and gamma.
    of_channel: [f64; 2],
    of_quantizer: Sums,
}

/// A channel's rows between the passes.
struct Rows<'a> {
    /// The gradient before the activation: the residual's own, or where the input's will be.
    between: Vec<&'a mut [f32]>,
    /// Where the input's gradient will be, if that is elsewhere.
    fresh: Vec<&'a mut [MaybeUninit<f32>]>,
}

/// The gradient before the activation (the residual's own) of one channel, and its sums.
fn first_pass<'a>(
    cpu: Cpu,
    inputs: &Inputs,
    statistics: &[f32],
    g: &[f32],
    c: usize,
    gx: Vec<&'a mut [MaybeUninit<f32>]>,
    gr: Vec<&'a mut [MaybeUninit<f32>]>,
) -> (Part, Rows<'a>) {
    let e = inputs.extent;
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
    let part = Part {
        of_channel: [sum, product],
        of_quantizer: sums,
    };
    let rows = Rows {
        between: between_rows,
        fresh,
    };
    (part, rows)
}

/// The input's gradient of one channel, from the sums over the whole batch.
fn second_pass(
    cpu: Cpu,
    inputs: &Inputs,
    channel: &Channel,
    c: usize,
    rows: Rows<'_>,
    [sum, product]: [f64; 2],
) {
    let count = inputs.count();
    let means = Means {
        scale: channel.scale,
        gradient: (sum / count) as f32,
        product: (product / count) as f32,
    };
    let mut fresh = rows.fresh.into_iter();
    for (image, between) in rows.between.into_iter().enumerate() {
        let x = row(inputs.x, inputs.extent, image, c);
        match fresh.next() {
            Some(gx) => input_gradient_row(cpu.simd, channel, means, x, between, gx),
            None => input_gradient_in_place(cpu.simd, channel, means, x, between),
        }
    }
}

#[cfg(test)]
mod tests;
