//! 2-d convolution of slices and both gradients.
//!
//! Every shape goes through here (odd sizes, strides, groups, depthwise, 1x1): by the kernels of
//! `winograd`, `direct`, `outer` and `depthwise` where those fit, else unfolded to `columns`. The plain
//! reference is in the tests.
//!
//! Doors: [`forward`], [`input_gradient`], [`weight_gradient`].

mod columns;
mod depthwise;
mod direct;
mod outer;
mod turned;
mod winograd;

use std::mem::MaybeUninit;

use burn::tensor::ops::ConvOptions;

use super::parallel::{Cpu, with_scratch};
use super::simd::multiversion;

/// Stride, padding, dilation (height, width) and groups of a convolution.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Geometry {
    /// Step between outputs, at least 1.
    pub stride: [usize; 2],
    /// Zeros added on both sides of an axis.
    pub padding: [usize; 2],
    /// Step between taps, at least 1.
    pub dilation: [usize; 2],
    /// Groups of channels that do not mix.
    pub groups: usize,
    /// Adds up the taps of an output one after the other (channel, row, column), as the published
    /// code does: slower, but roundings agree with its own, and with them which side of a
    /// nonlinearity an activation falls on. The gradients' sums are in no such order.
    pub in_order: bool,
}

impl Geometry {
    /// One group, both axes alike, sums in any order.
    pub fn square(stride: usize, padding: usize) -> Self {
        Self {
            stride: [stride; 2],
            padding: [padding; 2],
            dilation: [1; 2],
            groups: 1,
            in_order: false,
        }
    }

    /// Whether both axes are alike and taps lie side by side.
    fn is_square(&self) -> bool {
        let [[a, b], [c, d]] = [self.stride, self.padding];
        a == b && c == d && self.dilation == [1; 2]
    }

    /// Output extent along an axis of `input` pixels under `kernel` taps.
    pub fn output(&self, axis: usize, input: usize, kernel: usize) -> usize {
        let reach = (kernel - 1) * self.dilation[axis] + 1;
        (input + 2 * self.padding[axis] - reach) / self.stride[axis] + 1
    }

    /// As burn's own options.
    pub fn options(&self) -> ConvOptions<2> {
        ConvOptions::new(self.stride, self.padding, self.dilation, self.groups)
    }
}

/// Extents of a convolution.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extents {
    /// Images.
    pub images: usize,
    /// Input channels.
    pub input: usize,
    /// Input height and width.
    pub size: [usize; 2],
    /// Output channels.
    pub output: usize,
    /// Kernel height and width.
    pub kernel: [usize; 2],
    /// Stride, padding, groups, order of sums.
    pub geometry: Geometry,
}

impl Extents {
    /// Output height and width.
    pub fn output_size(&self) -> [usize; 2] {
        [0, 1].map(|i| self.geometry.output(i, self.size[i], self.kernel[i]))
    }

    /// Output pixels of one channel.
    pub(super) fn pixels(&self) -> usize {
        self.output_size().iter().product()
    }

    /// Input elements of one image.
    pub(super) fn image(&self) -> usize {
        self.input * self.size[0] * self.size[1]
    }

    /// Output elements of one image.
    pub(super) fn output_image(&self) -> usize {
        self.output * self.pixels()
    }

    /// Panics where the extents are no convolution, or the slices not of theirs.
    pub(super) fn check(&self, x: usize, weight: Option<usize>, y: usize) {
        let groups = self.geometry.groups;
        assert!(
            self.input > 0
                && self.output > 0
                && self.input.is_multiple_of(groups)
                && self.output.is_multiple_of(groups),
            "channels fall into groups: {self:?}"
        );
        assert!(
            x == self.images * self.image()
                && y == self.images * self.output_image()
                && weight.is_none_or(|weight| weight == self.output * self.taps()),
            "slices have the lengths of {self:?}"
        );
    }

    /// Weights that one output channel of one group reads: `c / groups * kh * kw`.
    pub(super) fn taps(&self) -> usize {
        self.input / self.geometry.groups * self.kernel[0] * self.kernel[1]
    }

    /// A 1x1 convolution of stride 1 without padding: the image is its own column matrix.
    fn is_pointwise(&self) -> bool {
        self.kernel == [1, 1] && self.geometry.stride == [1, 1] && self.geometry.padding == [0, 0]
    }

    /// The pixels of one group of an image, `[c / groups, h, w]`.
    fn group<'a>(&self, image: &'a [f32], group: usize) -> &'a [f32] {
        let length = self.image() / self.geometry.groups;
        &image[group * length..(group + 1) * length]
    }
}

/// Images whose weight gradients are summed before they join the others: fixed, so that sums do
/// not depend on the number of threads.
const SUM_GROUP: usize = 8;

/// Pixels that a weight gradient should be summed over before its sums leave the registers.
const LONG: usize = 1024;

/// Whether there is a kernel that needs no columns for the forward pass of this shape.
pub fn is_direct(e: &Extents) -> bool {
    direct::fits(e) || depthwise::fits(e)
}

/// Writes the output, `[n, o, oh, ow]`, all of it.
///
/// # Panics
/// If a length is another than the extents say.
pub fn forward(cpu: Cpu, e: &Extents, x: &[f32], weight: &[f32], y: &mut [MaybeUninit<f32>]) {
    let weights = Weights {
        values: weight,
        are_turned: false,
    };
    forward_onto(cpu, e, x, weights, None, y);
}

/// Weights as they lie in memory.
#[derive(Debug, Clone, Copy)]
struct Weights<'a> {
    values: &'a [f32],
    /// Whether their input and output channels are to be swapped (inside each group), and their kernels
    /// turned half around.
    are_turned: bool,
}

/// What takes a shape, with the weights as it reads them.
enum Kernel {
    Winograd(Vec<f32>),
    Direct(Vec<f32>),
    Depthwise,
    Columns,
}

/// [`forward`], with `base` of the output's shape added while the output is still in cache.
fn forward_onto(
    cpu: Cpu,
    e: &Extents,
    x: &[f32],
    weights: Weights<'_>,
    base: Option<&[f32]>,
    y: &mut [MaybeUninit<f32>],
) {
    e.check(x.len(), Some(weights.values.len()), y.len());
    let by_tiles = winograd::fits(e);
    let turned = (weights.are_turned && !by_tiles).then(|| turned_around(e, weights.values));
    let weight = turned.as_deref().unwrap_or(weights.values);
    let (kernel, together) = if by_tiles {
        let packed = winograd::pack_weights(cpu, e, weights);
        (Kernel::Winograd(packed), winograd::images_together(cpu, e))
    } else if direct::fits(e) {
        (Kernel::Direct(direct::pack_weights(e, weight)), 1)
    } else if depthwise::fits(e) {
        (Kernel::Depthwise, 1)
    } else {
        (Kernel::Columns, 1)
    };
    let (input, output) = (together * e.image(), together * e.output_image());
    let images = y.chunks_mut(output).zip(x.chunks(input)).collect();
    cpu.map(images, |i, (y, x)| {
        with_scratch(|scratch| match &kernel {
            Kernel::Winograd(packed) => winograd::forward(cpu.simd, e, x, packed, scratch, y),
            Kernel::Direct(packed) => {
                direct::forward_image(cpu.simd, e, x, packed, &mut scratch[0], y);
            }
            Kernel::Depthwise => {
                depthwise::forward_image(cpu.simd, e, x, weight, &mut scratch[0], y);
            }
            Kernel::Columns => {
                columns::forward_image(cpu.simd, e, x, weight, &mut scratch[0], y);
            }
        });
        if let Some(base) = base {
            // SAFETY: each of the three writes every element of its output.
            let y = unsafe { y.assume_init_mut() };
            add(cpu.simd, y, &base[i * output..]);
        }
    });
}

multiversion! {
    /// `sum += values`, as many as there are in `sum`.
    fn add(sum: &mut [f32], values: &[f32]) = add_body
}

#[inline(always)]
fn add_body(sum: &mut [f32], values: &[f32]) {
    let values = &values[..sum.len()];
    for (sum, value) in sum.iter_mut().zip(values) {
        *sum += value;
    }
}

/// Writes the gradient of the input, all of it, plus `base` (its gradient from elsewhere).
///
/// At stride 1 it is itself a convolution, of the upstream gradient with turned weights: unfolding
/// copies, where folding would read, add and write.
///
/// # Panics
/// If a length is another than the extents say.
pub fn input_gradient(
    cpu: Cpu,
    e: &Extents,
    weight: &[f32],
    g: &[f32],
    base: Option<&[f32]>,
    gx: &mut [MaybeUninit<f32>],
) {
    e.check(gx.len(), Some(weight.len()), g.len());
    assert!(
        base.is_none_or(|base| base.len() == gx.len()),
        "the base has the input's length"
    );
    let [height, width] = e.kernel;
    let [padding, _] = e.geometry.padding;
    let is_square = e.geometry.is_square() && height == width;
    if is_square && e.geometry.stride == [1, 1] && padding < height {
        let transposed = Extents {
            input: e.output,
            size: e.output_size(),
            output: e.input,
            geometry: Geometry {
                padding: [height - 1 - padding; 2],
                in_order: false,
                ..e.geometry
            },
            ..*e
        };
        let weights = Weights {
            values: weight,
            are_turned: true,
        };
        return forward_onto(cpu, &transposed, g, weights, base, gx);
    }
    let images = gx
        .chunks_mut(e.image())
        .zip(g.chunks(e.output_image()))
        .collect();
    cpu.map(images, |i, (gx, g)| {
        match base {
            Some(base) => _ = gx.write_copy_of_slice(&base[i * e.image()..][..gx.len()]),
            None => gx.iter_mut().for_each(|v| _ = v.write(0.0)),
        }
        // SAFETY: either arm wrote every element.
        let gx = unsafe { gx.assume_init_mut() };
        with_scratch(|[scratch, ..]| {
            if depthwise::fits_back(e) {
                depthwise::add_input_gradient(cpu.simd, e, weight, g, scratch, gx);
            } else {
                columns::add_input_gradient(e, weight, g, scratch, gx);
            }
        });
    });
}

/// The weights of a convolution of these extents out of those that lie turned.
fn turned_around(e: &Extents, weight: &[f32]) -> Vec<f32> {
    let groups = e.geometry.groups;
    let (outputs, inputs) = (e.input / groups, e.output / groups);
    let area = e.kernel[0] * e.kernel[1];
    let mut turned = Vec::with_capacity(weight.len());
    for group in 0..groups {
        for input in 0..inputs {
            for output in 0..outputs {
                let start = ((group * outputs + output) * inputs + input) * area;
                turned.extend(weight[start..start + area].iter().rev());
            }
        }
    }
    turned
}

/// The gradient of the weights, `[o, c / groups, kh, kw]`.
///
/// # Panics
/// If a length is another than the extents say.
pub fn weight_gradient(cpu: Cpu, e: &Extents, x: &[f32], g: &[f32]) -> Vec<f32> {
    e.check(x.len(), None, g.len());
    if depthwise::fits(e) {
        return depthwise::weight_gradient(cpu, e, x, g);
    }
    let taps = e.taps();
    // Small images are taken together, so that sums stay in registers for long.
    let together = (LONG / e.pixels()).clamp(1, SUM_GROUP);
    let groups = x
        .chunks(SUM_GROUP * e.image())
        .zip(g.chunks(SUM_GROUP * e.output_image()))
        .collect();
    let by_tiles = winograd::fits_weight_gradient(e);
    let parts = cpu.map(groups, |_, (x, g)| {
        with_scratch(|scratch| {
            if by_tiles {
                return winograd::weight_sums(cpu.simd, e, x, g, scratch);
            }
            let mut sum = vec![0.0; e.output * taps];
            if outer::fits(e) {
                outer::add_weight_gradient(cpu.simd, e, x, g, together, scratch, &mut sum);
            } else {
                columns::add_weight_gradient(cpu.simd, e, x, g, together, scratch, &mut sum);
            }
            sum
        })
    });
    if by_tiles {
        return winograd::weight_gradient(cpu, e, &parts);
    }
    let mut parts = parts.into_iter();
    let mut total = parts.next().unwrap_or_else(|| vec![0.0; e.output * taps]);
    let pieces = total.chunks_mut(PIECE).collect();
    let parts: Vec<_> = parts.collect();
    cpu.map(pieces, |i, piece: &mut [f32]| {
        for part in &parts {
            add(cpu.simd, piece, &part[i * PIECE..]);
        }
    });
    total
}

/// Sums of a weight gradient that one thread adds up.
const PIECE: usize = 1 << 14;

#[cfg(test)]
mod tests;
