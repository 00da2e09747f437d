//! 3x3 convolution at stride 1 with padding 1, without unfolding: the shape that residual networks
//! spend their time in.
//!
//! Every channel is laid out as three planes, shifted by one pixel to the right, not at all and to
//! the left, with a row of zeros above and below. Then a tap of the kernel is one contiguous vector
//! of a plane for any run of pixels, across the ends of rows: output pixel `p` under tap
//! `(ky, kx)` reads plane `kx` at `p + ky * width`. Blocks of outputs stay in registers while all
//! taps pass by.
//!
//! The input gradient is the same convolution with turned weights. The weight gradient takes dot
//! products of upstream rows with the same planes.

use std::hint::black_box;
use std::mem::MaybeUninit;

use super::conv::Extents;
use super::simd::{multiversion, product, vector};

/// Pixels that the widest block covers: planes are padded to a multiple.
const WIDEST: usize = 32;

/// Shape of the planes of one image or of several side by side.
#[derive(Debug, Clone, Copy)]
struct Planes {
    channels: usize,
    height: usize,
    width: usize,
    /// Images that lie behind one another in each plane.
    images: usize,
}

impl Planes {
    fn pixels(&self) -> usize {
        self.height * self.width
    }

    /// Floats of one image in one plane: whole blocks, the rows that lower taps reach into, and up
    /// to a whole vector.
    fn stride(&self) -> usize {
        (self.pixels().next_multiple_of(WIDEST) + 2 * self.width).next_multiple_of(WIDEST / 2)
    }

    /// Floats of one plane.
    fn plane(&self) -> usize {
        self.images * self.stride()
    }

    /// Lays out `x`, `[images, channels, height, width]`, as `[channels, 3, images, stride]`.
    fn fill(&self, x: &[f32], planes: &mut Vec<f32>) {
        let (plane, stride, width) = (self.plane(), self.stride(), self.width);
        // Every float is written below.
        planes.resize(self.channels * 3 * plane, 0.0);
        for (image, x) in x.chunks_exact(self.channels * self.pixels()).enumerate() {
            for (channel, x) in x.chunks_exact(self.pixels()).enumerate() {
                let three = &mut planes[channel * 3 * plane..(channel + 1) * 3 * plane];
                let (left, rest) = three.split_at_mut(plane);
                let (middle, right) = rest.split_at_mut(plane);
                let own = image * stride..(image + 1) * stride;
                let (left, middle, right) = (
                    &mut left[own.clone()],
                    &mut middle[own.clone()],
                    &mut right[own],
                );
                let inside = width..width + self.pixels();
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
}

/// Whether this room has a kernel for the shape.
pub(super) fn fits(e: &Extents) -> bool {
    let g = e.geometry;
    e.kernel == [3, 3] && g.stride == 1 && g.padding == 1 && g.groups == 1 && !g.in_order
}

fn planes(e: &Extents, images: usize) -> Planes {
    Planes {
        channels: e.input,
        height: e.size[0],
        width: e.size[1],
        images,
    }
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
    let shape = planes(e, 1);
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

/// Adds the weight gradient of some images to `sum`, `[o, c, 3, 3]`.
///
/// `together` images share the accumulators, so that small pictures pay for few reductions.
pub(super) fn add_weight_gradient(
    simd: super::Simd,
    e: &Extents,
    x: &[f32],
    g: &[f32],
    together: usize,
    [planes_of, upstream, parts]: &mut [Vec<f32>; 3],
    sum: &mut [f32],
) {
    let pixels = e.size[0] * e.size[1];
    let (image, output) = (e.input * pixels, e.output * pixels);
    parts.clear();
    parts.resize(sum.len() * PARTS, 0.0);
    for (x, g) in x.chunks(together * image).zip(g.chunks(together * output)) {
        let images = x.len() / image;
        let shape = planes(e, images);
        shape.fill(x, planes_of);
        let stride = shape.stride();
        // The upstream gradient in the same layout, `[outputs, images, stride]`: zeros where a
        // plane holds no pixel let one loop run over all images. Rows behind the last output fill
        // the last block.
        let rows = e.output.next_multiple_of(MOST_OUTPUTS);
        upstream.resize(rows * images * stride, 0.0);
        upstream[e.output * images * stride..].fill(0.0);
        for (i, g) in g.chunks_exact(pixels).enumerate() {
            let (n, o) = (i / e.output, i % e.output);
            let row = &mut upstream[(o * images + n) * stride..][..stride];
            row[..pixels].copy_from_slice(g);
            row[pixels..].fill(0.0);
        }
        let shape = Correlation {
            row: images * stride,
            width: shape.width,
            length: (images - 1) * stride + pixels.next_multiple_of(WIDEST / 2),
            outputs: e.output,
            channels: e.input,
        };
        correlate(simd, &shape, planes_of, upstream, parts);
    }
    for (sum, [a, b, c, d]) in sum.iter_mut().zip(parts.as_chunks::<PARTS>().0) {
        *sum += (a + c) + (b + d);
    }
}

/// What the inner loops of the weight gradient need of the shape.
#[derive(Debug, Clone, Copy)]
struct Correlation {
    /// Floats of one plane and of one row of the upstream gradient.
    row: usize,
    width: usize,
    /// Floats of a row that hold pixels, a multiple of every vector.
    length: usize,
    outputs: usize,
    channels: usize,
}

multiversion! {
    fn correlate(shape: &Correlation, planes: &[f32], g: &[f32], parts: &mut [f32])
        = correlate_avx512, correlate_avx2, correlate_portable
}

macro_rules! correlate_body {
    ($name:ident, $lanes:literal, $outputs:literal, $fused:literal,
     [$(($o:literal, $row:ident, $a:ident, $b:ident, $c:ident)),*]) => {
        #[inline(always)]
        fn $name(shape: &Correlation, planes: &[f32], g: &[f32], parts: &mut [f32]) {
            const L: usize = $lanes;
            let Correlation { row, width, length, outputs, channels } = *shape;
            for first in (0..outputs).step_by($outputs) {
                $(let $row = &g[(first + $o) * row..][..length];)*
                for (i, plane) in planes.chunks_exact(row).enumerate() {
                    let (channel, kx) = (i / 3, i % 3);
                    let above = &plane[..length];
                    let beside = &plane[width..][..length];
                    let below = &plane[2 * width..][..length];
                    $(let mut $a = [0f32; L]; let mut $b = [0f32; L]; let mut $c = [0f32; L];)*
                    for p in (0..length).step_by(L) {
                        let above: [f32; L] = vector(above, p);
                        let beside: [f32; L] = vector(beside, p);
                        let below: [f32; L] = vector(below, p);
                        $(
                            let g: [f32; L] = vector($row, p);
                            $a = product::<L, $fused>(g, above, $a);
                            $b = product::<L, $fused>(g, beside, $b);
                            $c = product::<L, $fused>(g, below, $c);
                        )*
                    }
                    $(
                        // Laid down in memory, each accumulator is one vector until here; summed in
                        // place, the compiler would take it apart for the whole loop.
                        let lanes = [$a, $b, $c];
                        let [$a, $b, $c] = black_box(&lanes);
                        if first + $o < outputs {
                            let at = ((first + $o) * channels + channel) * 9 + kx;
                            let parts = &mut parts[at * PARTS..(at + 7) * PARTS];
                            fold_into(&mut parts[..PARTS], $a);
                            fold_into(&mut parts[3 * PARTS..4 * PARTS], $b);
                            fold_into(&mut parts[6 * PARTS..], $c);
                        }
                    )*
                }
            }
        }
    };
}

correlate_body!(
    correlate_avx512,
    16,
    8,
    true,
    [
        (0, g0, a0, b0, c0),
        (1, g1, a1, b1, c1),
        (2, g2, a2, b2, c2),
        (3, g3, a3, b3, c3),
        (4, g4, a4, b4, c4),
        (5, g5, a5, b5, c5),
        (6, g6, a6, b6, c6),
        (7, g7, a7, b7, c7)
    ]
);
correlate_body!(
    correlate_avx2,
    8,
    4,
    true,
    [
        (0, g0, a0, b0, c0),
        (1, g1, a1, b1, c1),
        (2, g2, a2, b2, c2),
        (3, g3, a3, b3, c3)
    ]
);
correlate_body!(
    correlate_portable,
    4,
    4,
    false,
    [
        (0, g0, a0, b0, c0),
        (1, g1, a1, b1, c1),
        (2, g2, a2, b2, c2),
        (3, g3, a3, b3, c3)
    ]
);

/// Partial sums that a dot product is kept as until all images of a group have passed: folding a
/// vector all the way costs more than the products of a small image.
const PARTS: usize = 4;

/// Adds a vector, folded to [`PARTS`] lanes, to partial sums.
#[inline(always)]
fn fold_into<const L: usize>(parts: &mut [f32], lanes: &[f32; L]) {
    let mut lanes = *lanes;
    let mut width = L / 2;
    while width >= PARTS {
        for l in 0..width {
            lanes[l] += lanes[l + width];
        }
        width /= 2;
    }
    for (part, lane) in parts.iter_mut().zip(lanes) {
        *part += lane;
    }
}
