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

    /// Outputs with those that fill up the last block of any width.
    fn padded_outputs(&self) -> usize {
        let padded = [4, 6, MOST_OUTPUTS].map(|block| self.outputs.next_multiple_of(block));
        padded.into_iter().max().unwrap_or(0)
    }

    /// Floats from one position's sums, `[padded outputs, lanes]`, to the next one's.
    fn sums_apart(&self) -> usize {
        self.padded_outputs() * self.turned().lanes() + APART
    }

    /// Floats from one position's transformed tiles, `[blocks of lanes, tiles, lanes]`, to the next one's.
    fn inputs_apart(&self) -> usize {
        self.turned().lanes() * STRIP + APART
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
    let mut sums = vec![0.0; POSITIONS * t.sums_apart()];
    inputs.resize(POSITIONS * t.inputs_apart(), 0.0);
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
    let row = shape.row();
    let apart = t.inputs_apart();
    for s in t.segments(first, count) {
        let start = s.image * shape.image() + 2 * s.row * row + 2 * s.column * N;
        for block in 0..shape.lanes() / N {
            let rows = &turned[start + block * shape.block()..][..3 * row + (2 * s.length + 2) * N];
            for tile in 0..s.length {
                let corner = &rows[2 * tile * N..];
                macro_rules! row {
                    ($y:literal) => {{
                        let pixels = &corner[$y * row..][..4 * N];
                        [
                            lanes(pixels),
                            lanes(&pixels[N..]),
                            lanes(&pixels[2 * N..]),
                            lanes(&pixels[3 * N..]),
                        ]
                    }};
                }
                let rows: [[&[f32; N]; 4]; 4] = [row!(0), row!(1), row!(2), row!(3)];
                let v = transformed_input!(N, rows);
                let at = (block * STRIP + s.lane + tile) * N;
                let to = &mut inputs[at..][..(POSITIONS - 1) * apart + N];
                store_positions!(v, to, apart);
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

/// One body per instruction set and block of outputs that are in registers: at one position, all lanes.
macro_rules! block_body {
    ($name:ident, $lanes:literal, $outputs:literal, $fused:literal,
     [$(($o:literal, $row:ident, $a:ident, $b:ident, $c:ident)),*]) => {
        #[inline(always)]
        fn $name(inputs: &[[f32; LANES]], rows: &[[f32; OUTPUT_FLOATS]], position: usize, count: usize, sums: &mut [f32]) {
            const L: usize = $lanes;
            // A second vector goes along where the lanes make two.
            const PAIR: usize = if LANES > L { L } else { 0 };
            let pixel = sums.len() / $outputs;
            $(let $row: &[f32; STRIP] = lanes(&rows[$o][position * STRIP..]);)*
            for (lane, tiles) in inputs.chunks_exact(STRIP).enumerate() {
                for part in (0..LANES).step_by(L + PAIR) {
                    $(let mut $a = [0f32; L]; let mut $b = [0f32; L];)*
                    for (tile, input) in tiles.iter().enumerate().take(count) {
                        let x: [f32; L] = vector(input, part);
                        let y: [f32; L] = vector(input, part + PAIR);
                        $(
                            let gradient = [$row[tile]; L];
                            $a = product::<L, $fused>(gradient, x, $a);
                            if PAIR > 0 {
                                $b = product::<L, $fused>(gradient, y, $b);
                            }
                        )*
                    }
                    let lane = lane * LANES + part;
                    $(
                        add(&mut sums[$o * pixel + lane..], $a);
                        if PAIR > 0 {
                            add(&mut sums[$o * pixel + lane + PAIR..], $b);
                        }
                    )*
                }
            }
        }
    };
}

with_registers!(block_body, sixteen_avx512, 16, true, 16);
with_registers!(block_body, six_avx2, 8, true, 6);
with_registers!(block_body, four_avx2, 8, true, 4);
with_registers!(block_body, four_portable, 4, false, 4);

/// Blocks of the first width as long as they are full, then of the second.
macro_rules! accumulate_body {
    ($name:ident, $wide:ident, $most:literal, $narrow:ident, $least:literal) => {
        #[inline(always)]
        fn $name(t: &Tiling, inputs: &[f32], gradients: &[f32], count: usize, sums: &mut [f32]) {
            let pixel = t.turned().lanes();
            assert!(count <= STRIP, "no more tiles than a strip has");
            let (gradients, _) = gradients.as_chunks::<OUTPUT_FLOATS>();
            for position in 0..POSITIONS {
                let inputs = &inputs[position * t.inputs_apart()..][..pixel * STRIP];
                let (inputs, _) = inputs.as_chunks::<LANES>();
                let sums = &mut sums[position * t.sums_apart()..];
                let mut block = 0;
                while block < t.outputs {
                    let (width, sums) = (t.outputs - block, &mut sums[block * pixel..]);
                    if width >= $most && width != 2 * $least || $most == $least {
                        let rows = &gradients[block..][..$most];
                        $wide(inputs, rows, position, count, &mut sums[..$most * pixel]);
                        block += $most;
                    } else {
                        let rows = &gradients[block..][..$least];
                        $narrow(inputs, rows, position, count, &mut sums[..$least * pixel]);
                        block += $least;
                    }
                }
            }
        }
    };
}

accumulate_body!(accumulate_avx512, sixteen_avx512, 16, sixteen_avx512, 16);
accumulate_body!(accumulate_avx2, six_avx2, 6, four_avx2, 4);
accumulate_body!(accumulate_portable, four_portable, 4, four_portable, 4);

multiversion! {
    /// `G^T s G` of one output's sums, all parts of them, as `[c, 3, 3]`.
    fn transform_sums(t: &Tiling, parts: &[Vec<f32>], output: usize, gradient: &mut [f32])
        = transform_sums_body
}

#[inline(always)]
fn transform_sums_body(t: &Tiling, parts: &[Vec<f32>], output: usize, gradient: &mut [f32]) {
    const N: usize = LANES;
    let pixel = t.turned().lanes();
    let apart = t.sums_apart();
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
