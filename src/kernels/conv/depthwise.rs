//! Depthwise convolution, every channel by itself: kernels of 3, 5 and 7 pixels at stride 1 and 2.
//!
//! A plane is laid out once with its padding, its columns taken apart by the stride, so that every
//! tap of neighbouring outputs is one contiguous vector; four rows of outputs are summed at a time.

use std::mem::MaybeUninit;

use super::super::parallel::{Cpu, with_scratch};
use super::super::simd::{Simd, multiversion, product};
use super::Extents;
use super::columns::unfold_row;

/// Floats behind a row that a last vector may read.
const SLACK: usize = 16;
/// Rows of outputs that are summed at a time.
const ROWS: usize = 4;

/// Whether this room has kernels for the shape.
pub(super) fn fits(e: &Extents) -> bool {
    let g = e.geometry;
    let each_by_itself = g.groups == e.input && e.input == e.output && e.input > 1;
    let square = e.kernel[0] == e.kernel[1] && g.is_square();
    let size = matches!(e.kernel[0], 3 | 5 | 7) && matches!(g.stride[0], 1 | 2);
    each_by_itself && square && size && !g.in_order
}

/// Whether [`add_input_gradient`] is for a convolution of these extents: at stride 1 another convolution
/// gives it, and beside so much padding there is nothing to lay out.
pub(super) fn fits_back(e: &Extents) -> bool {
    let g = e.geometry;
    fits(e) && g.stride == [2, 2] && g.padding.iter().all(|p| *p < 2 * e.kernel[0])
}

/// How a plane is laid out.
#[derive(Debug, Clone, Copy)]
struct Planes {
    size: [usize; 2],
    output: [usize; 2],
    kernel: usize,
    stride: usize,
    padding: usize,
    /// Floats of one part of a row.
    part: usize,
}

impl Planes {
    fn of(e: &Extents) -> Self {
        let (kernel, output) = (e.kernel[0], e.output_size());
        Self {
            size: e.size,
            output,
            kernel,
            stride: e.geometry.stride[0],
            padding: e.geometry.padding[0],
            part: output[1] + kernel + SLACK,
        }
    }

    fn rows(&self) -> usize {
        (self.output[0] - 1) * self.stride + self.kernel
    }

    /// Floats of a row: a part for each column of the stride.
    fn row(&self) -> usize {
        self.stride * self.part
    }

    /// Lays out `x`, `[h, w]`, as `[rows, stride, part]`, zeros around.
    fn fill(&self, x: &[f32], plane: &mut Vec<f32>) {
        let [height, width] = self.size;
        // Every float is written below.
        plane.resize(self.rows() * self.row(), 0.0);
        for (row, parts) in plane.chunks_exact_mut(self.row()).enumerate() {
            let y = row.checked_sub(self.padding).filter(|y| *y < height);
            let Some(y) = y else {
                parts.fill(0.0);
                continue;
            };
            let from = &x[y * width..(y + 1) * width];
            for (column, to) in parts.chunks_exact_mut(self.part).enumerate() {
                unfold_row(from, to, column, self.stride, self.padding);
            }
        }
    }

    /// Where a column of taps begins in a row.
    fn column(&self, kx: usize) -> usize {
        kx % self.stride * self.part + kx / self.stride
    }
}

/// A vector from `at` on.
///
/// # Safety
/// `at + L` is at most the slice's length.
#[inline(always)]
unsafe fn load<const L: usize>(values: &[f32], at: usize) -> [f32; L] {
    debug_assert!(at + L <= values.len());
    // SAFETY: the caller's, and an array of floats is as aligned as a float.
    unsafe { values.as_ptr().add(at).cast::<[f32; L]>().read() }
}

/// Convolves the channels of one image, `[c, h, w]`; writes `[c, oh, ow]`.
pub(super) fn forward_image(
    simd: Simd,
    e: &Extents,
    x: &[f32],
    weight: &[f32],
    scratch: &mut Vec<f32>,
    y: &mut [MaybeUninit<f32>],
) {
    let planes = Planes::of(e);
    let taps = e.kernel[0] * e.kernel[1];
    let channels = x
        .chunks_exact(e.size[0] * e.size[1])
        .zip(weight.chunks_exact(taps))
        .zip(y.chunks_exact_mut(e.pixels()));
    for ((x, weight), y) in channels {
        planes.fill(x, scratch);
        match e.kernel[0] {
            3 => forward_3(simd, &planes, scratch, weight, y),
            5 => forward_5(simd, &planes, scratch, weight, y),
            _ => forward_7(simd, &planes, scratch, weight, y),
        }
    }
}

macro_rules! forward_of {
    ($name:ident, $kernel:literal) => {
        multiversion! {
            fn $name(planes: &Planes, plane: &[f32], weight: &[f32], y: &mut [MaybeUninit<f32>])
                = forward_body::<$kernel, 16, true>, forward_body::<$kernel, 8, true>,
                forward_body::<$kernel, 4, false>
        }
    };
}
forward_of!(forward_3, 3);
forward_of!(forward_5, 5);
forward_of!(forward_7, 7);

#[inline(always)]
fn forward_body<const K: usize, const L: usize, const FUSED: bool>(
    planes: &Planes,
    plane: &[f32],
    weight: &[f32],
    y: &mut [MaybeUninit<f32>],
) {
    let [height, width] = planes.output;
    let (row, stride) = (planes.row(), planes.stride);
    assert!(
        weight.len() == K * K
            && planes.kernel == K
            && y.len() == height * width
            && plane.len() == planes.rows() * row
            && planes.part >= width + K + L,
        "a plane as it was laid out"
    );
    let columns: [usize; K] = std::array::from_fn(|kx| planes.column(kx));
    for oy in (0..height).step_by(ROWS) {
        // Rows beyond the last repeat it.
        let starts: [usize; ROWS] =
            std::array::from_fn(|i| (oy + i).min(height - 1) * stride * row);
        for ox in (0..width).step_by(L) {
            let mut sums = [[0f32; L]; ROWS];
            for ky in 0..K {
                for kx in 0..K {
                    let at = ky * row + columns[kx] + ox;
                    let w = weight[ky * K + kx];
                    for i in 0..ROWS {
                        // SAFETY: the row is one of the plane's; within it, a column begins at most
                        // at the last part's `K - 1`, and a part holds `width + K + L` floats, as
                        // asserted above.
                        let v = unsafe { load::<L>(plane, starts[i] + at) };
                        sums[i] = product::<L, FUSED>([w; L], v, sums[i]);
                    }
                }
            }
            let count = (width - ox).min(L);
            for (i, sums) in sums.iter().enumerate().take((height - oy).min(ROWS)) {
                let at = (oy + i) * width + ox;
                if count == L {
                    let y = &mut y[at..at + L];
                    for l in 0..L {
                        y[l].write(sums[l]);
                    }
                } else {
                    let to = &mut y[at..at + count];
                    to.iter_mut().zip(sums).for_each(|(y, v)| _ = y.write(*v));
                }
            }
        }
    }
}

/// Adds the gradient of one image's input at stride 2 to `gx`. (At stride 1 it is a convolution.)
pub(super) fn add_input_gradient(
    simd: Simd,
    e: &Extents,
    weight: &[f32],
    g: &[f32],
    scratch: &mut Vec<f32>,
    gx: &mut [f32],
) {
    let planes = Planes::of(e);
    let taps = e.kernel[0] * e.kernel[1];
    let channels = g
        .chunks_exact(e.pixels())
        .zip(weight.chunks_exact(taps))
        .zip(gx.chunks_exact_mut(e.size[0] * e.size[1]));
    for ((g, weight), gx) in channels {
        fill_border(&planes, g, scratch);
        match e.kernel[0] {
            3 => gradient_3(simd, &planes, scratch, weight, gx),
            5 => gradient_5(simd, &planes, scratch, weight, gx),
            _ => gradient_7(simd, &planes, scratch, weight, gx),
        }
    }
}

/// Extent of a plane of gradients with a border of the kernel's extent, and slack behind.
fn bordered(planes: &Planes) -> [usize; 2] {
    let [_, width] = planes.size;
    let reach = width.div_ceil(2) + planes.kernel;
    let [rows, columns] = planes.output;
    [
        rows.max(planes.size[0].div_ceil(2) + planes.padding) + 2 * planes.kernel,
        columns.max(reach) + 2 * planes.kernel + SLACK,
    ]
}

fn fill_border(planes: &Planes, g: &[f32], to: &mut Vec<f32>) {
    let [rows, columns] = bordered(planes);
    to.clear();
    to.resize(rows * columns, 0.0);
    let width = planes.output[1];
    let inner = to.chunks_exact_mut(columns).skip(planes.kernel);
    for (row, g) in inner.zip(g.chunks_exact(width)) {
        row[planes.kernel..planes.kernel + width].copy_from_slice(g);
    }
}

macro_rules! gradient_of {
    ($name:ident, $kernel:literal) => {
        multiversion! {
            fn $name(planes: &Planes, g: &[f32], weight: &[f32], gx: &mut [f32])
                = gradient_body::<$kernel, 16, true>, gradient_body::<$kernel, 8, true>,
                gradient_body::<$kernel, 4, false>
        }
    };
}
gradient_of!(gradient_3, 3);
gradient_of!(gradient_5, 5);
gradient_of!(gradient_7, 7);

/// `gx[iy, ix] += sum of w[ky, kx] g[(iy + p - ky) / 2, (ix + p - kx) / 2]` where both are whole.
#[inline(always)]
fn gradient_body<const K: usize, const L: usize, const FUSED: bool>(
    planes: &Planes,
    g: &[f32],
    weight: &[f32],
    gx: &mut [f32],
) {
    let [height, width] = planes.size;
    let [rows, columns] = bordered(planes);
    let p = planes.padding;
    assert!(
        weight.len() == K * K
            && planes.kernel == K
            && gx.len() == height * width
            && g.len() == rows * columns
            && columns >= width.div_ceil(2) + p + K + L
            && rows > height / 2 + p / 2 + K
            && p < 2 * K,
        "gradients as they were laid out"
    );
    // (The border of `K` keeps every place positive.)
    let place = |i: usize, k: usize| (i + p + 2 * K - k) / 2;
    for (iy, gx) in gx.chunks_exact_mut(width).enumerate() {
        for start in (0..width.div_ceil(2)).step_by(L) {
            let mut sums = [[0f32; L]; 2];
            for ky in 0..K {
                if (iy + p + 2 * K - ky) % 2 == 1 {
                    continue;
                }
                let row = place(iy, ky) * columns;
                for kx in 0..K {
                    let parity = (p + 2 * K - kx) % 2;
                    let at = row + place(parity, kx) + start;
                    // SAFETY: `place` is at most `height / 2 + p / 2 + K` for rows and `p + K` for
                    // columns, below the extents asserted above with `width / 2 + L` behind.
                    let v = unsafe { load::<L>(g, at) };
                    let w = [weight[ky * K + kx]; L];
                    sums[parity] = product::<L, FUSED>(w, v, sums[parity]);
                }
            }
            let to = &mut gx[2 * start..width.min(2 * (start + L))];
            let [even, odd] = &sums;
            for ((pair, a), b) in to.chunks_mut(2).zip(even).zip(odd) {
                pair[0] += a;
                if let Some(second) = pair.get_mut(1) {
                    *second += b;
                }
            }
        }
    }
}

/// The gradient of the weights, `[c, 1, k, k]`: channels are independent, so sums do not depend on
/// the number of threads.
pub(super) fn weight_gradient(cpu: Cpu, e: &Extents, x: &[f32], g: &[f32]) -> Vec<f32> {
    let planes = Planes::of(e);
    let (area, pixels) = (e.size[0] * e.size[1], e.pixels());
    let sums = cpu.map((0..e.input).collect(), |_, channel: usize| {
        with_scratch(|[plane, gradients, ..]| {
            let mut sums = vec![0f32; planes.kernel * planes.kernel];
            for image in 0..e.images {
                let at = image * e.input + channel;
                planes.fill(&x[at * area..(at + 1) * area], plane);
                fill_rows(&planes, &g[at * pixels..(at + 1) * pixels], gradients);
                match planes.kernel {
                    3 => weights_3(cpu.simd, &planes, plane, gradients, &mut sums),
                    5 => weights_5(cpu.simd, &planes, plane, gradients, &mut sums),
                    _ => weights_7(cpu.simd, &planes, plane, gradients, &mut sums),
                }
            }
            sums
        })
    });
    sums.concat()
}

/// Floats of a row of gradients: a multiple of the widest vector, zeros behind.
fn padded_width(planes: &Planes) -> usize {
    planes.output[1].next_multiple_of(SLACK)
}

fn fill_rows(planes: &Planes, g: &[f32], to: &mut Vec<f32>) {
    let (width, padded) = (planes.output[1], padded_width(planes));
    // Every float is written below.
    to.resize(planes.output[0] * padded, 0.0);
    for (row, g) in to.chunks_exact_mut(padded).zip(g.chunks_exact(width)) {
        row[..width].copy_from_slice(g);
        row[width..].fill(0.0);
    }
}

macro_rules! weights_of {
    ($name:ident, $kernel:literal) => {
        multiversion! {
            fn $name(planes: &Planes, plane: &[f32], g: &[f32], sums: &mut [f32])
                = weights_body::<$kernel, 16, true>, weights_body::<$kernel, 8, true>,
                weights_body::<$kernel, 4, false>
        }
    };
}
weights_of!(weights_3, 3);
weights_of!(weights_5, 5);
weights_of!(weights_7, 7);

#[inline(always)]
fn weights_body<const K: usize, const L: usize, const FUSED: bool>(
    planes: &Planes,
    plane: &[f32],
    g: &[f32],
    sums: &mut [f32],
) {
    let [height, width] = planes.output;
    let (row, padded) = (planes.row(), padded_width(planes));
    assert!(
        sums.len() == K * K
            && planes.kernel == K
            && g.len() == height * padded
            && plane.len() == planes.rows() * row
            && planes.part >= width + K + L,
        "planes as they were laid out"
    );
    let columns: [usize; K] = std::array::from_fn(|kx| planes.column(kx));
    for ky in 0..K {
        let mut lanes = [[0f32; L]; K];
        for oy in 0..height {
            let start = (oy * planes.stride + ky) * row;
            for ox in (0..width).step_by(L) {
                // SAFETY: `padded` is a multiple of `L`, so a vector that begins inside a row ends
                // inside it.
                let upstream = unsafe { load::<L>(g, oy * padded + ox) };
                for kx in 0..K {
                    // SAFETY: as in `forward_body`.
                    let v = unsafe { load::<L>(plane, start + columns[kx] + ox) };
                    lanes[kx] = product::<L, FUSED>(upstream, v, lanes[kx]);
                }
            }
        }
        for kx in 0..K {
            sums[ky * K + kx] += lanes[kx].iter().sum::<f32>();
        }
    }
}
