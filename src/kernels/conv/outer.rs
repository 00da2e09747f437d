//! The weight gradient of convolutions whose kernel is three wide: a sum of outer products, with
//! input channels in the lanes of a vector.
//!
//! A dot product over pixels has to be folded lane by lane at its end, which for small pictures
//! costs more than its products. Here the input is turned so that the channels of a pixel lie side
//! by side: then `gradient[output, ky, kx, channels] += g[output, pixel] * x[pixel + (ky, kx),
//! channels]` keeps one weight per lane, and nothing is folded.

use super::super::parallel::Scratch;
use super::super::simd::{Simd, add, multiversion, product, vector, with_registers};
use super::Extents;
use super::turned::{LANES, Turned, turn};

/// Columns of the kernel: three accumulators for each output of a block.
const KX: usize = 3;

/// Whether this room has a kernel for the shape.
pub(super) fn fits(e: &Extents) -> bool {
    let g = e.geometry;
    e.kernel[1] == KX && g.is_square() && g.groups == 1 && !g.in_order
}

/// What the loops need of the shape.
#[derive(Debug, Clone, Copy)]
struct Walk {
    turned: Turned,
    /// [`Turned::lanes`].
    lanes: usize,
    stride: usize,
    kernel_height: usize,
    outputs: usize,
    /// Output height and width.
    output_size: [usize; 2],
}

impl Walk {
    fn new(e: &Extents) -> Self {
        let turned = Turned {
            channels: e.input,
            size: e.size,
            padding: e.geometry.padding[0],
            padded: [0, 1].map(|i| e.size[i] + 2 * e.geometry.padding[i]),
        };
        Self {
            turned,
            lanes: turned.lanes(),
            stride: e.geometry.stride[0],
            kernel_height: e.kernel[0],
            outputs: e.output,
            output_size: e.output_size(),
        }
    }

    fn output_pixels(&self) -> usize {
        self.output_size[0] * self.output_size[1]
    }
}

/// Adds the weight gradient of some images to `sum`, `[o, c, kh, 3]`.
///
/// `together` images share the accumulators.
pub(super) fn add_weight_gradient(
    simd: Simd,
    e: &Extents,
    x: &[f32],
    g: &[f32],
    together: usize,
    [turned, sums, ..]: &mut Scratch,
    sum: &mut [f32],
) {
    let walk = Walk::new(e);
    let (input, output) = (e.image(), e.output_image());
    // Its padding is written here once and stays zero.
    turned.clear();
    turned.resize(together * walk.turned.image(), 0.0);
    sums.clear();
    sums.resize(walk.outputs * walk.kernel_height * KX * walk.lanes, 0.0);
    for (x, g) in x.chunks(together * input).zip(g.chunks(together * output)) {
        let images = x.len() / input;
        for (x, turned) in x
            .chunks_exact(input)
            .zip(turned.chunks_exact_mut(walk.turned.image()))
        {
            turn(simd, &walk.turned, x, turned);
        }
        accumulate(
            simd,
            &walk,
            &turned[..images * walk.turned.image()],
            g,
            sums,
        );
    }
    // `[o, kh, 3, lanes]` back to `[o, c, kh, 3]`.
    let taps = walk.kernel_height * KX;
    for (sum, sums) in sum
        .chunks_exact_mut(e.input * taps)
        .zip(sums.chunks_exact(taps * walk.lanes))
    {
        for (tap, sums) in sums.chunks_exact(walk.lanes).enumerate() {
            for (channel, value) in sums[..e.input].iter().enumerate() {
                sum[channel * taps + tap] += value;
            }
        }
    }
}

multiversion! {
    /// Adds the outer products of turned images and their upstream gradients `[n, o, oh, ow]` to
    /// `sums`, `[o, kh, 3, lanes]`.
    fn accumulate(walk: &Walk, turned: &[f32], g: &[f32], sums: &mut [f32])
        = accumulate_avx512, accumulate_avx2, accumulate_portable
}

/// One body per instruction set: lanes of a vector, and outputs in a block of registers.
macro_rules! accumulate_body {
    ($name:ident, $lanes:literal, $outputs:literal, $fused:literal,
     [$(($o:literal, $row:ident, $a:ident, $b:ident, $c:ident)),*]) => {
        #[inline(always)]
        fn $name(walk: &Walk, turned: &[f32], g: &[f32], sums: &mut [f32]) {
            const L: usize = $lanes;
            let Walk { lanes, stride, kernel_height, outputs, output_size: [height, width], .. } = *walk;
            let output_pixels = walk.output_pixels();
            // A block of lanes, as it lies in memory, is walked through for all outputs.
            for first in (0..lanes).step_by(L) {
                let start = first / LANES * walk.turned.block() + first % LANES;
                for ky in 0..kernel_height {
                    for block in (0..outputs).step_by($outputs) {
                        // Outputs beyond the last repeat it; their sums are dropped.
                        $(let $row = (block + $o).min(outputs - 1) * output_pixels;)*
                        $(let mut $a = [0f32; L]; let mut $b = [0f32; L]; let mut $c = [0f32; L];)*
                        let images = turned.chunks_exact(walk.turned.image());
                        for (turned, g) in images.zip(g.chunks_exact(outputs * output_pixels)) {
                            for y in 0..height {
                                let row = &turned[start + (y * stride + ky) * walk.turned.row()..];
                                let pixels = row.windows(2 * LANES + L).step_by(stride * LANES);
                                $(let $row = &g[$row + y * width..][..width];)*
                                for (x, pixels) in pixels.enumerate().take(width) {
                                    let near: [f32; L] = vector(pixels, 0);
                                    let middle: [f32; L] = vector(pixels, LANES);
                                    let far: [f32; L] = vector(pixels, 2 * LANES);
                                    $(
                                        let g = [$row[x]; L];
                                        $a = product::<L, $fused>(g, near, $a);
                                        $b = product::<L, $fused>(g, middle, $b);
                                        $c = product::<L, $fused>(g, far, $c);
                                    )*
                                }
                            }
                        }
                        $(
                            if block + $o < outputs {
                                let at = ((block + $o) * kernel_height + ky) * KX * lanes + first;
                                add(&mut sums[at..at + L], $a);
                                add(&mut sums[at + lanes..at + lanes + L], $b);
                                add(&mut sums[at + 2 * lanes..at + 2 * lanes + L], $c);
                            }
                        )*
                    }
                }
            }
        }
    };
}

with_registers!(accumulate_body, accumulate_avx512, 16, true, 8);
with_registers!(accumulate_body, accumulate_avx2, 8, true, 3);
with_registers!(accumulate_body, accumulate_portable, 4, false, 3);
