//! The gradient of the weights: `G^T (sum over tiles of (A g A^T) * V) G`.
//!
//! As in `outer`, input channels lie in the lanes of a vector, so that nothing has to be folded: the
//! input is turned, transformed tile by tile, and multiplied by single values of the transformed
//! upstream gradient, whose tiles lie side by side.

use super::super::super::parallel::{Cpu, Scratch};
use super::super::super::simd::{Simd, add, multiversion, product, vector, with_registers};
use super::super::Extents;
use super::super::turned::{LANES, Turned, turn};
use super::{APART, POSITIONS, Tiling, lanes};

/// Tiles that are taken together: sums stay in registers that long.
const STRIP: usize = 64;
/// Output channels of the widest block: transformed gradients are padded to a multiple.
const MOST_OUTPUTS: usize = 16;
/// Floats of one output's transformed gradients, `[16, tiles]`.
const OUTPUT_FLOATS: usize = POSITIONS * STRIP + APART;
/// Floats of one transformed tile of [`LANES`] channels, `[16, lanes]`.
const TILE_FLOATS: usize = POSITIONS * LANES + APART;

/// `A g A^T` of the 2x2 gradients in two rows, `$N` tiles at a time.
macro_rules! transformed_gradient {
    ($N:ident, $top:expr, $below:expr) => {{
        let (top, below) = ($top, $below);
        let mut u = [[0f32; $N]; POSITIONS];
        for l in 0..$N {
            for y in 0..4 {
                let (g, h) = (top[2 * l], below[2 * l]);
                let left = [g, g + h, g - h, -h][y];
                let (g, h) = (top[2 * l + 1], below[2 * l + 1]);
                let right = [g, g + h, g - h, -h][y];
                u[4 * y][l] = left;
                u[4 * y + 1][l] = left + right;
                u[4 * y + 2][l] = left - right;
                u[4 * y + 3][l] = -right;
            }
        }
        u
    }};
}

impl Tiling {
    /// The input turned, padded to whole tiles.
    fn turned(&self) -> Turned {
        Turned {
            channels: self.channels,
            size: self.size,
            padding: self.padding,
            padded: [2 * self.rows() + 2, 2 * self.columns() + 2],
        }
    }

    fn padded_outputs(&self) -> usize {
        self.outputs.next_multiple_of(MOST_OUTPUTS)
    }
}

/// Whether this room has a kernel for the shape: lanes without a channel would be lost.
pub(in crate::kernels::conv) fn fits_weight_gradient(e: &Extents) -> bool {
    super::fits(e) && e.input >= LANES
}

/// The sums over some images, `[16, padded outputs, lanes]`: they may be added up before
/// [`weight_gradient`] makes the gradient of them.
pub(in crate::kernels::conv) fn weight_sums(
    simd: Simd,
    e: &Extents,
    x: &[f32],
    g: &[f32],
    [turned, inputs, gradients, _]: &mut Scratch,
) -> Vec<f32> {
    let t = Tiling::of(e);
    let shape = t.turned();
    let (input, output) = (e.image(), e.output_image());
    let together = t.images_together(STRIP).min(x.len() / input);
    // What is not written below is padding, and zero.
    turned.clear();
    turned.resize(together * shape.image(), 0.0);
    gradients.resize(t.padded_outputs() * OUTPUT_FLOATS, 0.0);
    gradients[t.outputs * OUTPUT_FLOATS..].fill(0.0);
    let mut sums = vec![0.0; POSITIONS * t.padded_outputs() * shape.lanes()];
    inputs.resize(shape.lanes() / LANES * STRIP * TILE_FLOATS, 0.0);
    let groups = x.chunks(together * input).zip(g.chunks(together * output));
    for (x, g) in groups {
        for (x, turned) in x
            .chunks_exact(input)
            .zip(turned.chunks_exact_mut(shape.image()))
        {
            turn(simd, &shape, x, turned);
        }
        let tiles = x.len() / input * t.tiles();
        for first in (0..tiles).step_by(STRIP) {
            let count = (tiles - first).min(STRIP);
            transform_input(simd, &t, turned, first, count, inputs);
            transform_gradient(simd, &t, g, first, count, gradients);
            accumulate(simd, &t, inputs, gradients, count, &mut sums);
        }
    }
    sums
}

/// The gradient, `[o, c, 3, 3]`, of the sums over all images, which lie in parts.
pub(in crate::kernels::conv) fn weight_gradient(
    cpu: Cpu,
    e: &Extents,
    parts: &[Vec<f32>],
) -> Vec<f32> {
    let mut gradient = vec![0.0; e.output * e.input * 9];
    let tiling = Tiling::of(e);
    let outputs = gradient.chunks_exact_mut(e.input * 9).collect();
    cpu.map(outputs, |output, gradient| {
        transform_sums(cpu.simd, &tiling, parts, output, gradient);
    });
    gradient
}

multiversion! {
    /// `B^T x B` of a strip's tiles, `[blocks of lanes, tiles, 16, lanes]`.
    fn transform_input(t: &Tiling, turned: &[f32], first: usize, count: usize, inputs: &mut [f32])
        = transform_input_body
}

#[inline(always)]
fn transform_input_body(
    t: &Tiling,
    turned: &[f32],
    first: usize,
    count: usize,
    inputs: &mut [f32],
) {
    const N: usize = LANES;
    let shape = t.turned();
    let (pixel, row) = (shape.lanes(), shape.row());
    let (tiles, _) = inputs.as_chunks_mut::<TILE_FLOATS>();
    for s in t.segments(first, count) {
        let start = s.image * shape.image() + 2 * s.row * row + 2 * s.column * pixel;
        let rows = &turned[start..][..3 * row + (2 * s.length + 2) * pixel];
        for (block, tiles) in tiles.chunks_exact_mut(STRIP).enumerate() {
            let rows = &rows[block * N..];
            for (tile, to) in tiles[s.lane..][..s.length].iter_mut().enumerate() {
                let corner = &rows[2 * tile * pixel..];
                macro_rules! row {
                    ($y:literal) => {{
                        let pixels = &corner[$y * row..][..3 * pixel + N];
                        [
                            lanes(pixels),
                            lanes(&pixels[pixel..]),
                            lanes(&pixels[2 * pixel..]),
                            lanes(&pixels[3 * pixel..]),
                        ]
                    }};
                }
                let rows: [[&[f32; N]; 4]; 4] = [row!(0), row!(1), row!(2), row!(3)];
                let v = transformed_input!(N, rows);
                store_positions!(v, to, LANES);
            }
        }
    }
}

multiversion! {
    /// `A g A^T` of a strip's tiles, `[outputs, 16, tiles]`.
    fn transform_gradient(t: &Tiling, g: &[f32], first: usize, count: usize, gradients: &mut [f32])
        = transform_gradient_body
}

#[inline(always)]
fn transform_gradient_body(
    t: &Tiling,
    g: &[f32],
    first: usize,
    count: usize,
    gradients: &mut [f32],
) {
    let [height, width] = t.output;
    let image = t.outputs * height * width;
    let (gradients, _) = gradients.as_chunks_mut::<OUTPUT_FLOATS>();
    for s in t.segments(first, count) {
        let image = &g[s.image * image..][..image];
        // Tiles that reach over the edge go alone.
        let inside = s.length.min(width / 2 - s.column);
        let whole = if 2 * s.row + 1 < height { inside } else { 0 };
        in_pieces!(whole, |at| gradient_piece(
            t,
            image,
            s.row,
            s.column + at,
            s.lane + at,
            gradients,
        ));
        for at in whole..s.length {
            gradient_at_edge(t, image, s.row, s.column + at, s.lane + at, gradients);
        }
    }
}

#[inline(always)]
fn gradient_piece<const N: usize>(
    t: &Tiling,
    image: &[f32],
    row: usize,
    column: usize,
    lane: usize,
    gradients: &mut [[f32; OUTPUT_FLOATS]],
) {
    let [height, width] = t.output;
    let start = 2 * row * width + 2 * column;
    for (plane, to) in image.chunks_exact(height * width).zip(gradients) {
        let top = &plane[start..][..2 * N];
        let below = &plane[start + width..][..2 * N];
        let u = transformed_gradient!(N, top, below);
        let to = &mut to[lane..][..(POSITIONS - 1) * STRIP + N];
        store_positions!(u, to, STRIP);
    }
}

/// A tile that reaches over the edge, where gradients are zero.
fn gradient_at_edge(
    t: &Tiling,
    image: &[f32],
    row: usize,
    column: usize,
    lane: usize,
    gradients: &mut [[f32; OUTPUT_FLOATS]],
) {
    const N: usize = 1;
    let [height, width] = t.output;
    for (plane, to) in image.chunks_exact(height * width).zip(gradients) {
        let pixel = |y: usize, x: usize| {
            let inside = y < height && x < width;
            if inside { plane[y * width + x] } else { 0.0 }
        };
        let pair = |y: usize| [pixel(y, 2 * column), pixel(y, 2 * column + 1)];
        let (top, below) = (pair(2 * row), pair(2 * row + 1));
        let u = transformed_gradient!(N, top, below);
        for (position, [u]) in u.into_iter().enumerate() {
            to[position * STRIP + lane] = u;
        }
    }
}

multiversion! {
    /// Adds the outer products of a strip's gradients and inputs to `sums`, `[16, padded
    /// outputs, lanes]`.
    fn accumulate(t: &Tiling, inputs: &[f32], gradients: &[f32], count: usize, sums: &mut [f32])
        = accumulate_avx512, accumulate_avx2, accumulate_portable
}

/// One body per instruction set: lanes of a vector, and outputs in a block of registers.
macro_rules! accumulate_body {
    ($name:ident, $lanes:literal, $outputs:literal, $fused:literal,
     [$(($o:literal, $row:ident, $sum:ident, $b:ident, $c:ident)),*]) => {
        #[inline(always)]
        fn $name(t: &Tiling, inputs: &[f32], gradients: &[f32], count: usize, sums: &mut [f32]) {
            const L: usize = $lanes;
            let (pixel, outputs) = (t.turned().lanes(), t.padded_outputs());
            assert!(count <= STRIP, "no more tiles than a strip has");
            let (gradients, _) = gradients.as_chunks::<OUTPUT_FLOATS>();
            let (inputs, _) = inputs.as_chunks::<TILE_FLOATS>();
            for (position, sums) in sums.chunks_exact_mut(outputs * pixel).enumerate().take(POSITIONS) {
                for block in (0..outputs).step_by($outputs) {
                    let rows = &gradients[block..block + $outputs];
                    $(let $row: &[f32; STRIP] = lanes(&rows[$o][position * STRIP..]);)*
                    for (lane, tiles) in inputs.chunks_exact(STRIP).enumerate() {
                        for part in (0..LANES).step_by(L) {
                            $(let mut $sum = [0f32; L];)*
                            for (tile, input) in tiles.iter().enumerate().take(count) {
                                let input: [f32; L] = vector(input, position * LANES + part);
                                $($sum = product::<L, $fused>([$row[tile]; L], input, $sum);)*
                            }
                            let lane = lane * LANES + part;
                            $(add(&mut sums[(block + $o) * pixel + lane..], $sum);)*
                        }
                    }
                }
            }
        }
    };
}

with_registers!(accumulate_body, accumulate_avx512, 16, true, 16);
with_registers!(accumulate_body, accumulate_avx2, 8, true, 8);
with_registers!(accumulate_body, accumulate_portable, 4, false, 8);

multiversion! {
    /// `G^T s G` of one output's sums, all parts of them, as `[c, 3, 3]`.
    fn transform_sums(t: &Tiling, parts: &[Vec<f32>], output: usize, gradient: &mut [f32])
        = transform_sums_body
}

#[inline(always)]
fn transform_sums_body(t: &Tiling, parts: &[Vec<f32>], output: usize, gradient: &mut [f32]) {
    const N: usize = LANES;
    let pixel = t.turned().lanes();
    let apart = t.padded_outputs() * pixel;
    for (block, gradient) in gradient.chunks_mut(N * 9).enumerate() {
        let mut sums = [[0f32; N]; POSITIONS];
        for part in parts {
            let rows = part[output * pixel + block * N..].chunks(apart);
            for (sums, row) in sums.iter_mut().zip(rows) {
                for (sum, value) in sums.iter_mut().zip(&row[..N]) {
                    *sum += value;
                }
            }
        }
        let mut w = [[0f32; N]; 9];
        for l in 0..N {
            let mut columns = [[0f32; 3]; 4];
            for x in 0..4 {
                let [a, b, c, d] = [0, 4, 8, 12].map(|row| sums[row + x][l]);
                columns[x] = narrow(a, b, c, d);
            }
            let [a, b, c, d] = columns;
            for y in 0..3 {
                [w[3 * y][l], w[3 * y + 1][l], w[3 * y + 2][l]] = narrow(a[y], b[y], c[y], d[y]);
            }
        }
        for (channel, gradient) in gradient.as_chunks_mut::<9>().0.iter_mut().enumerate() {
            for tap in 0..9 {
                gradient[tap] = w[tap][channel];
            }
        }
    }
}

/// A row of `G^T s`.
#[inline(always)]
fn narrow(a: f32, b: f32, c: f32, d: f32) -> [f32; 3] {
    let (sum, difference) = (0.5 * (b + c), 0.5 * (b - c));
    [a + sum, difference, sum + d]
}
