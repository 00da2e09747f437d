//! Convolution by columns: an image is unfolded to a matrix that holds every tap of every output,
//! and multiplied.

use std::mem::MaybeUninit;

use super::super::parallel::Scratch;
use super::super::simd::{Simd, multiversion, product, vector};
use super::Extents;

/// Writes the output of one image.
pub(super) fn forward_image(
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

/// Adds the gradient of one image's input to `gx`, [`forward_image`]'s transpose: multiplied, then
/// folded back.
pub(super) fn add_input_gradient(
    e: &Extents,
    weight: &[f32],
    g: &[f32],
    columns: &mut Vec<f32>,
    gx: &mut [f32],
) {
    let (pixels, taps) = (e.pixels(), e.taps());
    let outputs = e.output / e.geometry.groups;
    let length = gx.len() / e.geometry.groups;
    for (group, gx) in gx.chunks_mut(length).enumerate() {
        let g = &g[group * outputs * pixels..(group + 1) * outputs * pixels];
        let weight = &weight[group * outputs * taps..(group + 1) * outputs * taps];
        let weight = Matrix::new(weight, outputs, taps).transposed();
        let columns = product_of(weight, Matrix::new(g, outputs, pixels), columns);
        fold(e, columns, gx);
    }
}

/// `a b`, in a scratch.
fn product_of<'a>(a: Matrix<'_>, b: Matrix<'_>, scratch: &'a mut Vec<f32>) -> &'a [f32] {
    let length = a.rows * b.columns;
    scratch.clear();
    scratch.reserve(length);
    multiply(&mut scratch.spare_capacity_mut()[..length], a, b);
    // SAFETY: capacity is at least `length`, and `multiply` wrote every element of its output.
    unsafe { scratch.set_len(length) };
    scratch
}

/// Adds the weight gradient of some images to `sum`.
pub(super) fn add_weight_gradient(
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
    if e.is_pointwise() && pixels >= PACKED {
        return add_pointwise_weight_gradient(e, x, g, sum);
    }
    let images = x
        .chunks(together * e.image())
        .zip(g.chunks(together * e.output * pixels));
    for (x, g) in images {
        for group in 0..e.geometry.groups {
            let count = gather(e, group, x, g, scratch);
            let sum = &mut sum[group * outputs * taps..(group + 1) * outputs * taps];
            let [_, columns, gradients, _] = &*scratch;
            let length = count * pixels;
            if outputs.min(taps) >= 16 {
                let g = Matrix::new(&gradients[..outputs * length], outputs, length);
                let columns = Matrix::new(&columns[..taps * length], taps, length);
                add_product(sum, g, columns.transposed());
            } else {
                multiply_transposed(simd, sum, gradients, columns, length);
            }
        }
    }
}

/// Pixels from which on packing pays for the product of an image and its gradient.
const PACKED: usize = 128;

/// [`add_weight_gradient`] where an image is its own column matrix: a product of matrices as they
/// lie, image after image.
fn add_pointwise_weight_gradient(e: &Extents, x: &[f32], g: &[f32], sum: &mut [f32]) {
    let (pixels, taps, groups) = (e.pixels(), e.taps(), e.geometry.groups);
    let outputs = e.output / groups;
    for (x, g) in x
        .chunks_exact(e.image())
        .zip(g.chunks_exact(e.output * pixels))
    {
        for group in 0..groups {
            let g = &g[group * outputs * pixels..(group + 1) * outputs * pixels];
            let g = Matrix::new(g, outputs, pixels);
            let x = Matrix::new(e.group(x, group), taps, pixels).transposed();
            let sum = &mut sum[group * outputs * taps..(group + 1) * outputs * taps];
            add_product(sum, g, x);
        }
    }
}

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
    let ([_, stride], [_, padding]) = (e.geometry.stride, e.geometry.padding);
    let [_, dilation] = e.geometry.dilation;
    columns.resize(e.taps() * out_height * out_width, 0.0);
    let mut rows = columns.chunks_exact_mut(out_width);
    for plane in x.chunks_exact(height * width) {
        for ky in 0..kernel_height {
            for kx in 0..kernel_width {
                for oy in 0..out_height {
                    let row = rows.next().expect("one row per tap and output row");
                    let Some(y) = source_row(e, oy, ky) else {
                        row.fill(0.0);
                        continue;
                    };
                    let source = &plane[y * width..(y + 1) * width];
                    unfold_row(source, row, kx * dilation, stride, padding);
                }
            }
        }
    }
    columns
}

/// The row that a kernel's row reads for a row of outputs, where it lies inside.
fn source_row(e: &Extents, oy: usize, ky: usize) -> Option<usize> {
    let g = e.geometry;
    let y = (oy * g.stride[0] + ky * g.dilation[0]).checked_sub(g.padding[0])?;
    (y < e.size[0]).then_some(y)
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
    if inside.is_empty() {
        return;
    }
    let first = inside.start * stride + kx - padding;
    let row = &mut row[inside];
    if stride == 1 {
        row.copy_from_slice(&source[first..first + row.len()]);
    } else if stride == 2 {
        // Pairs, which the compiler takes apart by vectors; the last may be half outside.
        let source = &source[first..];
        let (pairs, rest) = source.as_chunks::<2>();
        let (whole, last) = row.split_at_mut(row.len().min(pairs.len()));
        whole
            .iter_mut()
            .zip(pairs)
            .for_each(|(to, pair)| *to = pair[0]);
        last.iter_mut().zip(rest).for_each(|(to, from)| *to = *from);
    } else {
        row.iter_mut()
            .zip(source[first..].iter().step_by(stride))
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
    let ([_, stride], [_, padding]) = (e.geometry.stride, e.geometry.padding);
    let [_, dilation] = e.geometry.dilation;
    let mut rows = columns.chunks_exact(out_width);
    for plane in gx.chunks_exact_mut(height * width) {
        for ky in 0..kernel_height {
            for kx in 0..kernel_width {
                let tap = kx * dilation;
                let inside = inside(width, out_width, tap, stride, padding);
                for oy in 0..out_height {
                    let row = rows.next().expect("one row per tap and output row");
                    let Some(y) = source_row(e, oy, ky) else {
                        continue;
                    };
                    if inside.is_empty() {
                        continue;
                    }
                    let first = inside.start * stride + tap - padding;
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

/// `out += a b`; `out` is row-major.
fn add_product(out: &mut [f32], a: Matrix<'_>, b: Matrix<'_>) {
    // SAFETY: floats that are there may be seen as floats that may be; nothing but floats is written.
    let out = unsafe { &mut *(std::ptr::from_mut(out) as *mut [MaybeUninit<f32>]) };
    product_into::<true>(out, a, b);
}

/// `out = a b`; `out` is row-major and written in full.
fn multiply(out: &mut [MaybeUninit<f32>], a: Matrix<'_>, b: Matrix<'_>) {
    product_into::<false>(out, a, b);
}

/// The product, onto what is there where `ADD` says so: then all of `out` has been written before.
fn product_into<const ADD: bool>(out: &mut [MaybeUninit<f32>], a: Matrix<'_>, b: Matrix<'_>) {
    assert!(
        a.columns == b.rows && out.len() == a.rows * b.columns,
        "the shapes fit"
    );
    // SAFETY: each pointer comes from a slice whose length the assertions above and `Matrix::new`
    // tie to rows, columns and strides; `out` is borrowed mutably, so it overlaps neither input,
    // and its old values are read only where the caller has written them.
    unsafe {
        gemm::gemm(
            a.rows,
            b.columns,
            a.columns,
            out.as_mut_ptr().cast::<f32>(),
            1,
            b.columns as isize,
            ADD,
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
