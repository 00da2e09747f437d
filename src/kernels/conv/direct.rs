//! 3x3 convolution without unfolding, at stride 2, and at stride 1 where there are too few outputs
//! for [`super::winograd`].
//!
//! Every channel is laid out as three planes, one for each column of the kernel, with zeros around.
//! At stride 1 they are the picture shifted by a pixel to the right, not at all and to the left;
//! then a tap of the kernel is one contiguous vector of a plane for any run of pixels, across the
//! ends of rows: output pixel `p` under tap `(ky, kx)` reads plane `kx` at `p + ky * width`. Blocks
//! of outputs stay in registers while all taps pass by.
//!
//! At stride 2 a plane keeps every second column, and its rows fall into two parts by parity, so
//! that the same holds: the taps of a plane only start at other places.
//!
//! The input gradient at stride 1 is the same convolution with turned weights.

use std::mem::MaybeUninit;

use super::super::simd::{Simd, multiversion, product, with_registers};
use super::Extents;
use super::columns::unfold_row;

/// Pixels that the widest block covers: planes are padded to a multiple.
const WIDEST: usize = 32;

/// Shape of the planes of one image.
#[derive(Debug, Clone, Copy)]
struct Planes {
    channels: usize,
    /// Input height and width.
    size: [usize; 2],
    /// Output height and width.
    output: [usize; 2],
    stride: usize,
    padding: usize,
}

impl Planes {
    fn of(e: &Extents) -> Self {
        Self {
            channels: e.input,
            size: e.size,
            output: e.output_size(),
            stride: e.geometry.stride[0],
            padding: e.geometry.padding[0],
        }
    }

    fn pixels(&self) -> usize {
        self.output[0] * self.output[1]
    }

    /// Rows of each part of a plane: of one parity at stride 2, all at stride 1.
    fn rows(&self) -> usize {
        self.output[0] + 2 / self.stride
    }

    /// Where the taps of a kernel's column start in a plane: part by parity, then rows.
    fn taps(&self) -> [usize; 3] {
        let part = self.rows() * self.output[1];
        [0, 1, 2].map(|ky| ky % self.stride * part + ky / self.stride * self.output[1])
    }

    /// Floats of one plane that hold rows.
    fn filled(&self) -> usize {
        self.stride * self.rows() * self.output[1]
    }

    /// Floats of one plane: its rows, and what the last whole block reaches from any tap.
    fn length(&self) -> usize {
        let last = self.taps().into_iter().max().unwrap_or(0);
        let reached = last + self.pixels().next_multiple_of(WIDEST);
        reached.max(self.filled()).next_multiple_of(WIDEST / 2)
    }

    /// Lays out `x`, `[channels, height, width]`, as `[channels, 3, length]`.
    fn fill(&self, x: &[f32], planes: &mut Vec<f32>) {
        let length = self.length();
        // Every float is written below.
        planes.resize(self.channels * 3 * length, 0.0);
        let threes = planes.chunks_exact_mut(3 * length);
        for (three, x) in threes.zip(x.chunks_exact(self.size[0] * self.size[1])) {
            for (kx, plane) in three.chunks_exact_mut(length).enumerate() {
                self.fill_plane(kx, x, plane);
            }
        }
    }

    fn fill_plane(&self, kx: usize, x: &[f32], plane: &mut [f32]) {
        let [height, width] = self.size;
        let mut rows = plane.chunks_exact_mut(self.output[1]);
        for parity in 0..self.stride {
            for (row, to) in rows.by_ref().take(self.rows()).enumerate() {
                let y = (row * self.stride + parity).checked_sub(self.padding);
                match y.filter(|y| *y < height) {
                    Some(y) => {
                        let from = &x[y * width..(y + 1) * width];
                        unfold_row(from, to, kx, self.stride, self.padding);
                    }
                    None => to.fill(0.0),
                }
            }
        }
        plane[self.filled()..].fill(0.0);
    }
}

/// Whether this room has a kernel for the shape.
pub(super) fn fits(e: &Extents) -> bool {
    let g = e.geometry;
    let fits = e.kernel == [3, 3] && (1..=2).contains(&g.stride[0]);
    fits && g.is_square() && g.groups == 1 && !g.in_order
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
    simd: Simd,
    e: &Extents,
    x: &[f32],
    packed: &[f32],
    scratch: &mut Vec<f32>,
    y: &mut [MaybeUninit<f32>],
) {
    let planes = Planes::of(e);
    planes.fill(x, scratch);
    let shape = Walk {
        length: planes.length(),
        taps: planes.taps(),
        pixels: planes.pixels(),
        outputs: e.output,
    };
    convolve(simd, &shape, scratch, packed, y);
}

/// What the inner loops need of the shape.
#[derive(Debug, Clone, Copy)]
struct Walk {
    /// Floats of one plane.
    length: usize,
    /// Where the taps of a kernel's column start in it.
    taps: [usize; 3],
    pixels: usize,
    outputs: usize,
}

multiversion! {
    fn convolve(shape: &Walk, planes: &[f32], packed: &[f32], y: &mut [MaybeUninit<f32>])
        = convolve_avx512, convolve_avx2, convolve_portable
}

/// One body per instruction set: lanes of a vector, and outputs in a block of registers.
macro_rules! convolve_body {
    ($name:ident, $lanes:literal, $outputs:literal, $fused:literal, [$(($o:literal, $g:ident, $a:ident, $b:ident, $c:ident)),*]) => {
        #[inline(always)]
        fn $name(shape: &Walk, planes: &[f32], packed: &[f32], y: &mut [MaybeUninit<f32>]) {
            const L: usize = $lanes;
            let Walk { length, taps: starts, pixels, outputs } = *shape;
            let taps = planes.len() / length * 3;
            for start in (0..pixels).step_by(2 * L) {
                for first in (0..outputs).step_by($outputs) {
                    let (block, lane) = (first / MOST_OUTPUTS, first % MOST_OUTPUTS);
                    let weights = &packed[block * taps * MOST_OUTPUTS..(block + 1) * taps * MOST_OUTPUTS];
                    $(let mut $a = [0f32; L]; let mut $b = [0f32; L];)*
                    let weights = weights.chunks_exact(3 * MOST_OUTPUTS);
                    for (plane, weights) in planes.chunks_exact(length).zip(weights) {
                        for ky in 0..3 {
                            let row = &plane[starts[ky] + start..][..2 * L];
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

with_registers!(convolve_body, convolve_avx512, 16, true, 8);
with_registers!(convolve_body, convolve_avx2, 8, true, 4);
with_registers!(convolve_body, convolve_portable, 4, false, 4);

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
