//! 2-d convolution of slices and both gradients: per image, unfolded to columns and multiplied, or
//! by the kernels of [`super::direct`] and [`super::outer`] where those fit.
//!
//! Every shape goes through here (odd sizes, strides, groups, depthwise, 1x1); the plain reference
//! is in the tests.

use std::mem::MaybeUninit;

use burn::tensor::ops::ConvOptions;

use super::direct;
use super::outer;
use super::parallel::{Cpu, Scratch, with_scratch};
use super::simd::{Simd, multiversion, product, vector};
use super::winograd;

/// Stride, padding and groups of a convolution (both axes alike).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Geometry {
    /// Step between outputs, at least 1.
    pub stride: usize,
    /// Zeros added on every side.
    pub padding: usize,
    /// Groups of channels that do not mix.
    pub groups: usize,
    /// Adds up the taps of an output one after the other (channel, row, column), as the published
    /// code does: slower, but roundings agree with its own, and with them which side of a
    /// nonlinearity an activation falls on.
    pub in_order: bool,
}

impl Geometry {
    /// Output extent along an axis of `input` pixels under a kernel of `kernel`.
    pub fn output(&self, input: usize, kernel: usize) -> usize {
        (input + 2 * self.padding - kernel) / self.stride + 1
    }

    /// As burn's own options.
    pub fn options(&self) -> ConvOptions<2> {
        ConvOptions::new([self.stride; 2], [self.padding; 2], [1; 2], self.groups)
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
    /// Stride, padding, groups.
    pub geometry: Geometry,
}

impl Extents {
    /// Output height and width.
    pub fn output_size(&self) -> [usize; 2] {
        [0, 1].map(|i| self.geometry.output(self.size[i], self.kernel[i]))
    }

    fn pixels(&self) -> usize {
        self.output_size().iter().product()
    }

    /// Input elements of one image.
    fn image(&self) -> usize {
        self.input * self.size[0] * self.size[1]
    }

    /// Weights that one output channel of one group reads: `c / groups * kh * kw`.
    fn taps(&self) -> usize {
        self.input / self.geometry.groups * self.kernel[0] * self.kernel[1]
    }

    /// A 1x1 convolution of stride 1 without padding: the image is its own column matrix.
    fn is_pointwise(&self) -> bool {
        self.kernel == [1, 1] && self.geometry.stride == 1 && self.geometry.padding == 0
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

/// Whether there is a kernel that needs no columns for this shape.
pub fn is_direct(e: &Extents) -> bool {
    direct::fits(e)
}

/// Writes the output, `[n, o, oh, ow]`, all of it.
///
/// # Panics
/// If the length of `y` is another.
pub fn forward(cpu: Cpu, e: &Extents, x: &[f32], weight: &[f32], y: &mut [MaybeUninit<f32>]) {
    forward_onto(cpu, e, x, weight, None, y);
}

/// [`forward`], with `base` of the output's shape added while the output is still in cache.
fn forward_onto(
    cpu: Cpu,
    e: &Extents,
    x: &[f32],
    weight: &[f32],
    base: Option<&[f32]>,
    y: &mut [MaybeUninit<f32>],
) {
    let output = e.output * e.pixels();
    assert!(
        x.len() == e.images * e.image() && y.len() == e.images * output,
        "input and output have the extents' lengths"
    );
    let by_tiles = winograd::fits(e);
    let (packed, together) = if by_tiles {
        let packed = winograd::pack_weights(e, weight);
        (Some(packed), winograd::images_together(e))
    } else {
        let packed = direct::fits(e).then(|| direct::pack_weights(e, weight));
        (packed, 1)
    };
    let (input, output) = (together * e.image(), together * output);
    let images = y
        .chunks_mut(output.max(1))
        .zip(x.chunks(input.max(1)))
        .collect();
    cpu.map(images, |i, (y, x)| {
        with_scratch(|scratch| match &packed {
            Some(packed) if by_tiles => winograd::forward(cpu.simd, e, x, packed, scratch, y),
            Some(packed) => direct::forward_image(cpu.simd, e, x, packed, &mut scratch[0], y),
            None => forward_unfolded(cpu.simd, e, x, weight, &mut scratch[0], y),
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

/// One image by columns.
fn forward_unfolded(
    simd: Simd,
    e: &Extents,
    x: &[f32],
    weight: &[f32],
    columns: &mut Vec<f32>,
    y: &mut [MaybeUninit<f32>],
) {
    let (pixels, taps) = (e.pixels(), e.taps());
    let outputs = e.output / e.geometry.groups;
    for group in 0..e.geometry.groups {
        let columns = unfold(e, e.group(x, group), columns);
        let y = &mut y[group * outputs * pixels..(group + 1) * outputs * pixels];
        let weight = &weight[group * outputs * taps..(group + 1) * outputs * taps];
        if e.geometry.in_order {
            multiply_in_order(simd, y, weight, columns, pixels);
        } else {
            let weight = Matrix::new(weight, outputs, taps);
            multiply(y, weight, Matrix::new(columns, taps, pixels));
        }
    }
}

/// Writes the gradient of the input, all of it, plus `base` (its gradient from elsewhere).
///
/// At stride 1 it is itself a convolution, of the upstream gradient with turned weights: unfolding
/// copies, where folding would read, add and write.
pub fn input_gradient(
    cpu: Cpu,
    e: &Extents,
    weight: &[f32],
    g: &[f32],
    base: Option<&[f32]>,
    gx: &mut [MaybeUninit<f32>],
) {
    assert!(
        gx.len() == e.images * e.image() && base.is_none_or(|base| base.len() == gx.len()),
        "the input's length"
    );
    let [height, width] = e.kernel;
    let padding = e.geometry.padding;
    if e.geometry.stride == 1 && height == width && padding < height {
        let turned = Extents {
            input: e.output,
            size: e.output_size(),
            output: e.input,
            geometry: Geometry {
                padding: height - 1 - padding,
                in_order: false,
                ..e.geometry
            },
            ..*e
        };
        return forward_onto(cpu, &turned, g, &turn(e, weight), base, gx);
    }
    let (pixels, taps) = (e.pixels(), e.taps());
    let outputs = e.output / e.geometry.groups;
    let work = |columns: &mut Vec<f32>, gx: &mut [f32], g: &[f32]| {
        let length = gx.len() / e.geometry.groups;
        for (group, gx) in gx.chunks_mut(length).enumerate() {
            let g = &g[group * outputs * pixels..(group + 1) * outputs * pixels];
            let weight = &weight[group * outputs * taps..(group + 1) * outputs * taps];
            let weight = Matrix::new(weight, outputs, taps).transposed();
            let columns = columns_of(taps * pixels, columns, |columns| {
                multiply(columns, weight, Matrix::new(g, outputs, pixels));
            });
            fold(e, columns, gx);
        }
    };
    let images = gx
        .chunks_mut(e.image().max(1))
        .zip(g.chunks((e.output * pixels).max(1)))
        .collect();
    cpu.map(images, |i, (gx, g)| {
        match base {
            Some(base) => _ = gx.write_copy_of_slice(&base[i * e.image()..][..gx.len()]),
            None => gx.iter_mut().for_each(|v| _ = v.write(0.0)),
        }
        // SAFETY: either arm wrote every element.
        let gx = unsafe { gx.assume_init_mut() };
        with_scratch(|[columns, ..]| work(columns, gx, g));
    });
}

/// A scratch of so many floats, written by `write`.
fn columns_of(
    length: usize,
    scratch: &mut Vec<f32>,
    write: impl FnOnce(&mut [MaybeUninit<f32>]),
) -> &[f32] {
    scratch.clear();
    scratch.reserve(length);
    write(&mut scratch.spare_capacity_mut()[..length]);
    // SAFETY: capacity is at least `length`, and [`multiply`] writes every element of its output.
    unsafe { scratch.set_len(length) };
    scratch
}

/// Weights with input and output channels swapped inside each group and kernels turned half around.
fn turn(e: &Extents, weight: &[f32]) -> Vec<f32> {
    let groups = e.geometry.groups;
    let (inputs, outputs) = (e.input / groups, e.output / groups);
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
pub fn weight_gradient(cpu: Cpu, e: &Extents, x: &[f32], g: &[f32]) -> Vec<f32> {
    let (pixels, taps) = (e.pixels(), e.taps());
    // Small images are taken together, so that the dot products are long.
    let together = (LONG / pixels.max(1)).clamp(1, SUM_GROUP);
    let groups = x
        .chunks((SUM_GROUP * e.image()).max(1))
        .zip(g.chunks((SUM_GROUP * e.output * pixels).max(1)))
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
                add_weight_gradient(cpu.simd, e, x, g, together, scratch, &mut sum);
            }
            sum
        })
    });
    let total = parts.into_iter().reduce(|mut total, part| {
        total.iter_mut().zip(part).for_each(|(t, p)| *t += p);
        total
    });
    match total {
        Some(sums) if by_tiles => winograd::weight_gradient(cpu.simd, e, &sums),
        total => total.unwrap_or_else(|| vec![0.0; e.output * taps]),
    }
}

/// Adds the weight gradient of some images to `sum`.
fn add_weight_gradient(
    simd: Simd,
    e: &Extents,
    x: &[f32],
    g: &[f32],
    together: usize,
    scratch: &mut Scratch,
    sum: &mut [f32],
) {
    let (pixels, taps) = (e.pixels(), e.taps());
    let outputs = e.output / e.geometry.groups;
    let images = x
        .chunks(together * e.image())
        .zip(g.chunks(together * e.output * pixels));
    for (x, g) in images {
        for group in 0..e.geometry.groups {
            let count = gather(e, group, x, g, scratch);
            let sum = &mut sum[group * outputs * taps..(group + 1) * outputs * taps];
            let [_, columns, gradients, _] = &*scratch;
            multiply_transposed(simd, sum, gradients, columns, count * pixels);
        }
    }
}

/// Pixels that a dot product of the weight gradient should run over at least.
const LONG: usize = 1024;

/// Puts the images' columns `[taps, images * pixels]` and gradients `[outputs, images * pixels]`
/// side by side, into the second and third scratch; returns the number of images.
fn gather(
    e: &Extents,
    group: usize,
    x: &[f32],
    g: &[f32],
    [one, all, gradients, _]: &mut Scratch,
) -> usize {
    let (pixels, taps) = (e.pixels(), e.taps());
    let outputs = e.output / e.geometry.groups;
    let count = x.len() / e.image();
    // Every element is written below.
    all.resize(taps * count * pixels, 0.0);
    gradients.resize(outputs * count * pixels, 0.0);
    for (image, (x, g)) in x
        .chunks_exact(e.image())
        .zip(g.chunks_exact(e.output * pixels))
        .enumerate()
    {
        let columns = unfold(e, e.group(x, group), one);
        beside(columns, all, pixels, image, count);
        let g = &g[group * outputs * pixels..(group + 1) * outputs * pixels];
        beside(g, gradients, pixels, image, count);
    }
    count
}

/// Copies rows of `pixels` into place `image` of rows of `count * pixels`.
fn beside(from: &[f32], to: &mut [f32], pixels: usize, image: usize, count: usize) {
    let rows = to.chunks_exact_mut(count * pixels);
    for (from, to) in from.chunks_exact(pixels).zip(rows) {
        to[image * pixels..(image + 1) * pixels].copy_from_slice(from);
    }
}

multiversion! {
    /// `out = a b` for row-major `a` `[rows, taps]` and `b` `[taps, pixels]`, tap after tap.
    fn multiply_in_order(out: &mut [MaybeUninit<f32>], a: &[f32], b: &[f32], pixels: usize)
        = multiply_in_order_body
}

#[inline(always)]
fn multiply_in_order_body(out: &mut [MaybeUninit<f32>], a: &[f32], b: &[f32], pixels: usize) {
    let taps = b.len() / pixels.max(1);
    for (row, a) in out.chunks_exact_mut(pixels).zip(a.chunks_exact(taps)) {
        row.iter_mut().for_each(|sum| _ = sum.write(0.0));
        // SAFETY: the line above wrote every element.
        let row = unsafe { row.assume_init_mut() };
        for (weight, b) in a.iter().zip(b.chunks_exact(pixels)) {
            for (sum, value) in row.iter_mut().zip(b) {
                // Rounded after the product and after the sum, as there: not fused.
                *sum += weight * value;
            }
        }
    }
}

multiversion! {
    /// `sum += a b^T` for row-major `a` `[rows, length]` and `b` `[columns, length]`: dot products
    /// of rows, which no packing helps.
    fn multiply_transposed(sum: &mut [f32], a: &[f32], b: &[f32], length: usize)
        = multiply_transposed_body::<true>, multiply_transposed_body::<false>
}

/// Rows and columns of the block that is kept in registers.
const BLOCK: usize = 4;
const LANES: usize = 16;

#[inline(always)]
fn multiply_transposed_body<const FUSED: bool>(
    sum: &mut [f32],
    a: &[f32],
    b: &[f32],
    length: usize,
) {
    let columns = b.len() / length.max(1);
    for (i, a) in a.chunks(BLOCK * length).enumerate() {
        for (j, b) in b.chunks(BLOCK * length).enumerate() {
            let block = dot_products::<FUSED>(a, b, length);
            for (row, dots) in block.iter().enumerate().take(a.len() / length) {
                let start = (i * BLOCK + row) * columns + j * BLOCK;
                let sum = &mut sum[start..start + b.len() / length];
                sum.iter_mut().zip(dots).for_each(|(s, d)| *s += d);
            }
        }
    }
}

/// Dot products of up to four rows with up to four others. Rows beyond the last repeat it; the
/// caller passes over them.
#[inline(always)]
fn dot_products<const FUSED: bool>(a: &[f32], b: &[f32], length: usize) -> [[f32; BLOCK]; BLOCK] {
    let pick = |m: &[f32], i: usize| i.min(m.len() / length - 1) * length;
    let a: [&[f32]; BLOCK] = std::array::from_fn(|i| &a[pick(a, i)..][..length]);
    let b: [&[f32]; BLOCK] = std::array::from_fn(|j| &b[pick(b, j)..][..length]);
    // Sixteen named accumulators: as one array they would not stay in registers.
    let zero = [0f32; LANES];
    let [mut c00, mut c01, mut c02, mut c03] = [zero; BLOCK];
    let [mut c10, mut c11, mut c12, mut c13] = [zero; BLOCK];
    let [mut c20, mut c21, mut c22, mut c23] = [zero; BLOCK];
    let [mut c30, mut c31, mut c32, mut c33] = [zero; BLOCK];
    let whole = length / LANES * LANES;
    for start in (0..whole).step_by(LANES) {
        let [b0, b1, b2, b3] = [
            vector(b[0], start),
            vector(b[1], start),
            vector(b[2], start),
            vector(b[3], start),
        ];
        macro_rules! row {
            ($a:expr, $c0:ident, $c1:ident, $c2:ident, $c3:ident) => {{
                let a: [f32; LANES] = vector($a, start);
                $c0 = product::<LANES, FUSED>(a, b0, $c0);
                $c1 = product::<LANES, FUSED>(a, b1, $c1);
                $c2 = product::<LANES, FUSED>(a, b2, $c2);
                $c3 = product::<LANES, FUSED>(a, b3, $c3);
            }};
        }
        row!(a[0], c00, c01, c02, c03);
        row!(a[1], c10, c11, c12, c13);
        row!(a[2], c20, c21, c22, c23);
        row!(a[3], c30, c31, c32, c33);
    }
    let lanes = [
        [c00, c01, c02, c03],
        [c10, c11, c12, c13],
        [c20, c21, c22, c23],
        [c30, c31, c32, c33],
    ];
    let mut dots = [[0f32; BLOCK]; BLOCK];
    for i in 0..BLOCK {
        for j in 0..BLOCK {
            let mut rest = 0.0;
            for l in whole..length {
                rest += a[i][l] * b[j][l];
            }
            dots[i][j] = fold_lanes(lanes[i][j]) + rest;
        }
    }
    dots
}

/// Sum of the lanes, pairwise: halves are added as vectors.
#[inline(always)]
fn fold_lanes(mut lanes: [f32; LANES]) -> f32 {
    let mut width = LANES / 2;
    while width > 0 {
        for l in 0..width {
            lanes[l] += lanes[l + width];
        }
        width /= 2;
    }
    lanes[0]
}

/// The column matrix of one group of an image, `[c / groups * kh * kw, oh * ow]`.
fn unfold<'a>(e: &Extents, x: &'a [f32], columns: &'a mut Vec<f32>) -> &'a [f32] {
    if e.is_pointwise() {
        return x;
    }
    let [height, width] = e.size;
    let [out_height, out_width] = e.output_size();
    let [kernel_height, kernel_width] = e.kernel;
    let (stride, padding) = (e.geometry.stride, e.geometry.padding);
    columns.resize(e.taps() * out_height * out_width, 0.0);
    let mut rows = columns.chunks_exact_mut(out_width);
    for plane in x.chunks_exact(height * width) {
        for ky in 0..kernel_height {
            for kx in 0..kernel_width {
                for oy in 0..out_height {
                    let row = rows.next().expect("one row per tap and output row");
                    let Some(y) = (oy * stride + ky)
                        .checked_sub(padding)
                        .filter(|y| *y < height)
                    else {
                        row.fill(0.0);
                        continue;
                    };
                    let source = &plane[y * width..(y + 1) * width];
                    unfold_row(source, row, kx, stride, padding);
                }
            }
        }
    }
    columns
}

/// `row[ox] = source[ox * stride + kx - padding]`, zero outside.
pub(super) fn unfold_row(
    source: &[f32],
    row: &mut [f32],
    kx: usize,
    stride: usize,
    padding: usize,
) {
    let inside = inside(source.len(), row.len(), kx, stride, padding);
    row[..inside.start].fill(0.0);
    row[inside.end..].fill(0.0);
    let first = inside.start * stride + kx - padding.min(inside.start * stride + kx);
    let row = &mut row[inside];
    if stride == 1 {
        row.copy_from_slice(&source[first..first + row.len()]);
    } else if stride == 2 {
        // Pairs, which the compiler takes apart by vectors; the last may be half outside.
        let source = &source[first.min(source.len())..];
        let (pairs, rest) = source.as_chunks::<2>();
        let (whole, last) = row.split_at_mut(row.len().min(pairs.len()));
        whole
            .iter_mut()
            .zip(pairs)
            .for_each(|(to, pair)| *to = pair[0]);
        last.iter_mut().zip(rest).for_each(|(to, from)| *to = *from);
    } else {
        row.iter_mut()
            .zip(source[first.min(source.len())..].iter().step_by(stride))
            .for_each(|(to, from)| *to = *from);
    }
}

/// Output positions whose tap lies inside the source.
fn inside(
    source: usize,
    row: usize,
    kx: usize,
    stride: usize,
    padding: usize,
) -> std::ops::Range<usize> {
    let start = padding.saturating_sub(kx).div_ceil(stride).min(row);
    let end = (source + padding)
        .saturating_sub(kx)
        .div_ceil(stride)
        .min(row);
    start..end.max(start)
}

/// Adds a column matrix back into the image it was unfolded from.
fn fold(e: &Extents, columns: &[f32], gx: &mut [f32]) {
    let [height, width] = e.size;
    let [out_height, out_width] = e.output_size();
    let [kernel_height, kernel_width] = e.kernel;
    let (stride, padding) = (e.geometry.stride, e.geometry.padding);
    let mut rows = columns.chunks_exact(out_width);
    for plane in gx.chunks_exact_mut(height * width) {
        for ky in 0..kernel_height {
            for kx in 0..kernel_width {
                let inside = inside(width, out_width, kx, stride, padding);
                for oy in 0..out_height {
                    let row = rows.next().expect("one row per tap and output row");
                    let Some(y) = (oy * stride + ky)
                        .checked_sub(padding)
                        .filter(|y| *y < height)
                    else {
                        continue;
                    };
                    if inside.is_empty() {
                        continue;
                    }
                    let first = inside.start * stride + kx - padding;
                    let target = &mut plane[y * width + first..(y + 1) * width];
                    let from = &row[inside.clone()];
                    if stride == 1 {
                        target.iter_mut().zip(from).for_each(|(t, v)| *t += v);
                    } else {
                        target
                            .iter_mut()
                            .step_by(stride)
                            .zip(from)
                            .for_each(|(t, v)| *t += v);
                    }
                }
            }
        }
    }
}

/// A matrix over a slice, by rows or (transposed) by columns.
#[derive(Clone, Copy)]
struct Matrix<'a> {
    values: &'a [f32],
    rows: usize,
    columns: usize,
    /// Distance between neighbours in a column and in a row.
    strides: [isize; 2],
}

impl<'a> Matrix<'a> {
    fn new(values: &'a [f32], rows: usize, columns: usize) -> Self {
        assert_eq!(
            values.len(),
            rows * columns,
            "a matrix has rows times columns values"
        );
        Self {
            values,
            rows,
            columns,
            strides: [columns as isize, 1],
        }
    }

    fn transposed(self) -> Self {
        let [row, column] = self.strides;
        Self {
            rows: self.columns,
            columns: self.rows,
            strides: [column, row],
            ..self
        }
    }
}

/// `out = a b`; `out` is row-major and written in full.
fn multiply(out: &mut [MaybeUninit<f32>], a: Matrix<'_>, b: Matrix<'_>) {
    assert!(
        a.columns == b.rows && out.len() == a.rows * b.columns,
        "the shapes fit"
    );
    // SAFETY: each pointer comes from a slice whose length the assertions above and `Matrix::new`
    // tie to rows, columns and strides; `out` is borrowed mutably, so it overlaps neither input,
    // and its old values are not read.
    unsafe {
        gemm::gemm(
            a.rows,
            b.columns,
            a.columns,
            out.as_mut_ptr().cast::<f32>(),
            1,
            b.columns as isize,
            false,
            a.values.as_ptr(),
            a.strides[1],
            a.strides[0],
            b.values.as_ptr(),
            b.strides[1],
            b.strides[0],
            1.0,
            1.0,
            false,
            false,
            false,
            gemm::Parallelism::None,
        );
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::parallel::Pool;
    use super::super::written;
    use super::*;

    /// The plain reference, in f64.
    fn reference(
        e: &Extents,
        x: &[f32],
        w: &[f32],
        mut visit: impl FnMut(usize, usize, usize, f64),
    ) {
        let [oh, ow] = e.output_size();
        let (gi, go) = (e.input / e.geometry.groups, e.output / e.geometry.groups);
        for n in 0..e.images {
            for o in 0..e.output {
                for (oy, ox) in (0..oh).flat_map(|y| (0..ow).map(move |x| (y, x))) {
                    for c in 0..gi {
                        for (ky, kx) in
                            (0..e.kernel[0]).flat_map(|y| (0..e.kernel[1]).map(move |x| (y, x)))
                        {
                            let iy = (oy * e.geometry.stride + ky) as isize
                                - e.geometry.padding as isize;
                            let ix = (ox * e.geometry.stride + kx) as isize
                                - e.geometry.padding as isize;
                            let inside = iy >= 0
                                && ix >= 0
                                && (iy as usize) < e.size[0]
                                && (ix as usize) < e.size[1];
                            if inside {
                                let channel = o / go * gi + c;
                                let xi = ((n * e.input + channel) * e.size[0] + iy as usize)
                                    * e.size[1]
                                    + ix as usize;
                                let wi = ((o * gi + c) * e.kernel[0] + ky) * e.kernel[1] + kx;
                                let yi = ((n * e.output + o) * oh + oy) * ow + ox;
                                visit(yi, xi, wi, f64::from(x[xi]) * f64::from(w[wi]));
                            }
                        }
                    }
                }
            }
        }
    }

    /// A sum of products, and of their magnitudes: what rounding errors are relative to.
    #[derive(Clone, Copy, Default)]
    struct Sum {
        value: f64,
        magnitude: f64,
    }

    impl Sum {
        fn add(&mut self, product: f64) {
            self.value += product;
            self.magnitude += product.abs();
        }
    }

    fn close(ours: &[f32], expected: &[Sum]) -> bool {
        let near =
            |(a, b): (&f32, &Sum)| (f64::from(*a) - b.value).abs() <= 1e-6 + 4e-6 * b.magnitude;
        ours.len() == expected.len() && ours.iter().zip(expected).all(near)
    }

    fn values(n: usize, seed: f32) -> Vec<f32> {
        (0..n).map(|i| (i as f32 * 0.7 + seed).sin()).collect()
    }

    /// All three passes on every path against the reference.
    fn compare(e: Extents) -> Result<(), TestCaseError> {
        let x = values(e.images * e.image(), 0.0);
        let w = values(e.output * e.taps(), 1.0);
        let outputs = e.images * e.output * e.pixels();
        let g = values(outputs, 2.0);
        let [mut ry, mut rx, mut rw] = [outputs, x.len(), w.len()].map(|n| vec![Sum::default(); n]);
        reference(&e, &x, &w, |yi, xi, wi, product| {
            ry[yi].add(product);
            rx[xi].add(f64::from(g[yi]) * f64::from(w[wi]));
            rw[wi].add(f64::from(g[yi]) * f64::from(x[xi]));
        });
        for simd in Simd::available() {
            let cpu = Cpu {
                simd,
                pool: Pool::Rayon,
            };
            let (y, ()) = written(outputs, |y| forward(cpu, &e, &x, &w, y));
            prop_assert!(close(&y, &ry));
            let (gx, ()) = written(x.len(), |gx| input_gradient(cpu, &e, &w, &g, None, gx));
            prop_assert!(close(&gx, &rx));
            let (sum, ()) = written(x.len(), |gx| input_gradient(cpu, &e, &w, &g, Some(&x), gx));
            let expected: Vec<f32> = gx.iter().zip(&x).map(|(g, x)| g + x).collect();
            let near = |(a, b): (&f32, &f32)| (a - b).abs() <= 1e-5 * (1.0 + b.abs());
            prop_assert!(sum.iter().zip(&expected).all(near));
            prop_assert!(close(&weight_gradient(cpu, &e, &x, &g), &rw));
        }
        Ok(())
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 150, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn three_by_three_equals_the_reference(
            images in 1usize..11, input in 1usize..20, output in 1usize..20,
            size in (1usize..20, 1usize..20), stride in 1usize..4, padding in 0usize..3,
        ) {
            let geometry = Geometry { stride, padding, groups: 1, in_order: false };
            let size = [size.0.max(3), size.1.max(3)];
            compare(Extents { images, input, size, output, kernel: [3, 3], geometry })?;
        }

        #[test]
        fn every_shape_equals_the_reference(
            images in 1usize..11, groups in 1usize..4, input in 1usize..4, output in 1usize..4,
            size in (1usize..9, 1usize..9), kernel in (1usize..4, 1usize..4),
            stride in 1usize..4, padding in 0usize..3, in_order in any::<bool>(),
        ) {
            let size = [size.0.max(kernel.0), size.1.max(kernel.1)];
            let e = Extents {
                images, input: input * groups, size, output: output * groups,
                kernel: [kernel.0, kernel.1], geometry: Geometry { stride, padding, groups, in_order },
            };
            compare(e)?;
        }
    }

    #[test]
    fn gradients_do_not_depend_on_the_number_of_threads() {
        let geometry = Geometry {
            stride: 1,
            padding: 1,
            groups: 1,
            in_order: false,
        };
        let e = Extents {
            images: 37,
            input: 3,
            size: [9, 9],
            output: 5,
            kernel: [3, 3],
            geometry,
        };
        let (x, g) = (
            values(e.images * e.image(), 0.0),
            values(e.images * e.output * e.pixels(), 1.0),
        );
        let with = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build();
            let cpu = Cpu::current(Pool::Rayon);
            pool.expect("a pool")
                .install(|| weight_gradient(cpu, &e, &x, &g))
        };
        let one = with(1);
        for threads in [2, 4] {
            assert_eq!(with(threads), one);
        }
    }
}
