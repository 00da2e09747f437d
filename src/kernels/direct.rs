//! 3x3 convolution at stride 1 with padding 1, without unfolding: the shape that residual networks
//! spend their time in.
//!
//! Every channel is laid out as three planes, shifted by one pixel to the right, not at all and to
//! the left, with a row of zeros above and below. Then a tap of the kernel is one contiguous vector
//! of a plane for any run of pixels, across the ends of rows: output pixel `p` under tap
//! `(ky, kx)` reads plane `kx` at `p + ky * width`. Blocks of outputs stay in registers while all
//! taps pass by.
//!
//! The input gradient is the same convolution with turned weights.

use std::mem::MaybeUninit;

use super::conv::Extents;
use super::simd::{multiversion, product};

/// Pixels that the widest block covers: planes are padded to a multiple.
const WIDEST: usize = 32;

/// Shape of the planes of one image.
#[derive(Debug, Clone, Copy)]
struct Planes {
    channels: usize,
    height: usize,
    width: usize,
}

impl Planes {
    fn of(e: &Extents) -> Self {
        Self {
            channels: e.input,
            height: e.size[0],
            width: e.size[1],
        }
    }

    fn pixels(&self) -> usize {
        self.height * self.width
    }

    /// Floats of one plane: whole blocks, and the rows that lower taps reach into.
    fn stride(&self) -> usize {
        (self.pixels().next_multiple_of(WIDEST) + 2 * self.width).next_multiple_of(WIDEST / 2)
    }

    /// Lays out `x`, `[channels, height, width]`, as `[channels, 3, stride]`.
    fn fill(&self, x: &[f32], planes: &mut Vec<f32>) {
        let (stride, width) = (self.stride(), self.width);
        // Every float is written below.
        planes.resize(self.channels * 3 * stride, 0.0);
        let threes = planes.chunks_exact_mut(3 * stride);
        for (three, x) in threes.zip(x.chunks_exact(self.pixels())) {
            let inside = width..width + self.pixels();
            let (left, rest) = three.split_at_mut(stride);
            let (middle, right) = rest.split_at_mut(stride);
            for plane in [&mut *left, &mut *middle, &mut *right] {
                plane[..inside.start].fill(0.0);
                plane[inside.end..].fill(0.0);
            }
            middle[inside.clone()].copy_from_slice(x);
            let rows = x.chunks_exact(width);
            let lefts = left[inside.clone()].chunks_exact_mut(width);
            let rights = right[inside].chunks_exact_mut(width);
            for ((x, left), right) in rows.zip(lefts).zip(rights) {
                left[0] = 0.0;
                left[1..].copy_from_slice(&x[..width - 1]);
                right[width - 1] = 0.0;
                right[..width - 1].copy_from_slice(&x[1..]);
            }
        }
    }
}

/// Whether this room has a kernel for the shape.
pub(super) fn fits(e: &Extents) -> bool {
    let g = e.geometry;
    e.kernel == [3, 3] && g.stride == 1 && g.padding == 1 && g.groups == 1 && !g.in_order
}

/// Output channels of the widest block: packed weights are padded to a multiple.
const MOST_OUTPUTS: usize = 8;

/// Weights as `[blocks of 8 outputs, channels, kx, ky, 8]`, zeros behind the last output.
pub(super) fn pack_weights(e: &Extents, weight: &[f32]) -> Vec<f32> {
    let taps = e.input * 9;
    let blocks = e.output.div_ceil(MOST_OUTPUTS);
    let mut packed = vec![0.0; blocks * taps * MOST_OUTPUTS];
    for output in 0..e.output {
        let (block, lane) = (output / MOST_OUTPUTS, output % MOST_OUTPUTS);
        for channel in 0..e.input {
            for ky in 0..3 {
                for kx in 0..3 {
                    let tap = (channel * 3 + kx) * 3 + ky;
                    packed[(block * taps + tap) * MOST_OUTPUTS + lane] =
                        weight[(output * e.input + channel) * 9 + ky * 3 + kx];
                }
            }
        }
    }
    packed
}

/// Convolves one image `[c, h, w]`; writes `[o, h, w]`.
pub(super) fn forward_image(
    simd: super::Simd,
    e: &Extents,
    x: &[f32],
    packed: &[f32],
    scratch: &mut Vec<f32>,
    y: &mut [MaybeUninit<f32>],
) {
    let shape = Planes::of(e);
    shape.fill(x, scratch);
    let shape = Walk {
        stride: shape.stride(),
        width: shape.width,
        pixels: shape.pixels(),
        outputs: e.output,
    };
    convolve(simd, &shape, scratch, packed, y);
}

/// What the inner loops need of the shape.
#[derive(Debug, Clone, Copy)]
struct Walk {
    stride: usize,
    width: usize,
    pixels: usize,
    outputs: usize,
}

multiversion! {
    fn convolve(shape: &Walk, planes: &[f32], packed: &[f32], y: &mut [MaybeUninit<f32>])
        = convolve_avx512, convolve_avx2, convolve_portable
}

/// One body per instruction set: lanes of a vector, outputs in a block of registers, and the
/// names of the block's accumulators. (As one array they would not stay in registers.)
macro_rules! convolve_body {
    ($name:ident, $lanes:literal, $outputs:literal, $fused:literal, [$(($o:literal, $a:ident, $b:ident)),*]) => {
        #[inline(always)]
        fn $name(shape: &Walk, planes: &[f32], packed: &[f32], y: &mut [MaybeUninit<f32>]) {
            const L: usize = $lanes;
            let Walk { stride, width, pixels, outputs } = *shape;
            let taps = planes.len() / stride * 3;
            for start in (0..pixels).step_by(2 * L) {
                for first in (0..outputs).step_by($outputs) {
                    let (block, lane) = (first / MOST_OUTPUTS, first % MOST_OUTPUTS);
                    let weights = &packed[block * taps * MOST_OUTPUTS..(block + 1) * taps * MOST_OUTPUTS];
                    $(let mut $a = [0f32; L]; let mut $b = [0f32; L];)*
                    let weights = weights.chunks_exact(3 * MOST_OUTPUTS);
                    for (plane, weights) in planes.chunks_exact(stride).zip(weights) {
                        let run = &plane[start..start + 2 * width + 2 * L];
                        for ky in 0..3 {
                            let row = &run[ky * width..ky * width + 2 * L];
                            let low: [f32; L] = row[..L].try_into().expect("a slice of that length");
                            let high: [f32; L] = row[L..].try_into().expect("a slice of that length");
                            let weights = &weights[ky * MOST_OUTPUTS + lane..ky * MOST_OUTPUTS + lane + $outputs];
                            $(
                                $a = scaled::<L, $fused>(weights[$o], low, $a);
                                $b = scaled::<L, $fused>(weights[$o], high, $b);
                            )*
                        }
                    }
                    let valid = (pixels - start).min(2 * L);
                    $(
                        if first + $o < outputs {
                            let at = (first + $o) * pixels + start;
                            store(&mut y[at..at + valid], $a, $b);
                        }
                    )*
                }
            }
        }
    };
}

convolve_body!(
    convolve_avx512,
    16,
    8,
    true,
    [
        (0, a0, b0),
        (1, a1, b1),
        (2, a2, b2),
        (3, a3, b3),
        (4, a4, b4),
        (5, a5, b5),
        (6, a6, b6),
        (7, a7, b7)
    ]
);
convolve_body!(
    convolve_avx2,
    8,
    4,
    true,
    [(0, a0, b0), (1, a1, b1), (2, a2, b2), (3, a3, b3)]
);
convolve_body!(
    convolve_portable,
    4,
    4,
    false,
    [(0, a0, b0), (1, a1, b1), (2, a2, b2), (3, a3, b3)]
);

/// `w v + sum`, lane by lane.
#[inline(always)]
fn scaled<const L: usize, const FUSED: bool>(w: f32, v: [f32; L], sum: [f32; L]) -> [f32; L] {
    product::<L, FUSED>([w; L], v, sum)
}

/// Writes the first values of two vectors.
#[inline(always)]
fn store<const L: usize>(y: &mut [MaybeUninit<f32>], low: [f32; L], high: [f32; L]) {
    if y.len() == 2 * L {
        for l in 0..L {
            y[l].write(low[l]);
        }
        for l in 0..L {
            y[L + l].write(high[l]);
        }
    } else {
        for (y, v) in y.iter_mut().zip(low.iter().chain(&high)) {
            y.write(*v);
        }
    }
}
