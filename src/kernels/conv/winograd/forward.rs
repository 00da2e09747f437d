//! Outputs, and with turned weights the gradient of the input.
//!
//! Tiles lie side by side in the lanes of a vector, whatever row or image they are of: a strip of
//! [`STRIP`] tiles is transformed, multiplied and transformed back while it is in cache.

use std::mem::MaybeUninit;

use super::super::super::parallel::{Cpu, Scratch};
use super::super::super::simd::{Simd, multiversion, product, vector, with_registers};
use super::super::{Extents, Weights};
use super::{APART, POSITIONS, Tiling, lanes, take_apart};

/// Tiles that are taken together.
const STRIP: usize = 32;
/// Output channels of the widest block.
const MOST_OUTPUTS: usize = 8;
/// Output channels that are multiplied together, where that pays.
const GROUP: usize = 64;
/// Floats of one output's products, `[16, tiles]`.
const OUTPUT_FLOATS: usize = POSITIONS * STRIP + APART;

multiversion! {
    /// Lays images `[n, c, h, w]` out as padded planes.
    fn lay_out(t: &Tiling, x: &[f32], planes: &mut [f32]) = lay_out_body
}

#[inline(always)]
fn lay_out_body(t: &Tiling, x: &[f32], planes: &mut [f32]) {
    let [height, width] = t.size;
    let half = t.half();
    let images = planes.chunks_exact_mut(t.plane());
    for (plane, x) in images.zip(x.chunks_exact(height * width)) {
        plane.fill(0.0);
        let rows = plane.chunks_exact_mut(2 * half).skip(t.padding);
        for (row, x) in rows.zip(x.chunks_exact(width)) {
            let (even, odd) = row.split_at_mut(half);
            // Where the left end of the picture falls on an odd column, its pairs are the other way.
            let (left, right) = match t.padding % 2 {
                0 => (&mut even[t.padding / 2..], &mut odd[t.padding / 2..]),
                _ => (&mut odd[t.padding / 2..], &mut even[t.padding / 2 + 1..]),
            };
            let (pairs, rest) = x.as_chunks::<2>();
            in_pieces!(pairs.len(), |at| take_apart(
                &pairs[at..],
                &mut left[at..],
                &mut right[at..],
            ));
            if let Some(last) = rest.first() {
                left[pairs.len()] = *last;
            }
        }
    }
}

/// Images that are convolved together: those that fill a strip, and more where tiles of one would leave
/// lanes empty and every thread still has its share.
pub(in crate::kernels::conv) fn images_together(cpu: Cpu, e: &Extents) -> usize {
    const MOST: usize = 8;
    // Two vectors; short ones are taken as often as those of AVX2 are long.
    let tiles = match cpu.simd.bodies() {
        Simd::Avx512 => 32,
        _ => 16,
    };
    let share = e.images / cpu.threads();
    Tiling::of(e).images_in_vectors(tiles, STRIP, share.min(MOST))
}

/// Output channels whose sums are in registers at a time.
#[derive(Debug, Clone, Copy)]
struct Block {
    first: usize,
    width: usize,
    /// Where its weights lie among those of all.
    at: usize,
}

impl Block {
    /// Floats of one position's weights, `[channels, width]`.
    fn position(self, channels: usize) -> usize {
        channels * self.width + APART
    }
}

/// All outputs in blocks: of as many as the registers hold (on AVX2 six in two vectors each: twelve sums,
/// and no value has to leave its register), and where those would not be filled of fewer.
fn blocks(simd: Simd, t: &Tiling) -> Vec<Block> {
    let [wide, narrow] = match simd.bodies() {
        Simd::Avx512 => [8, 8],
        Simd::Avx2 => [6, 4],
        _ => [4, 4],
    };
    let (mut all, mut first, mut at) = (Vec::new(), 0, 0);
    while first < t.outputs {
        let rest = t.outputs - first;
        let width = if rest >= wide && rest != 2 * narrow {
            wide
        } else {
            narrow
        };
        let block = Block { first, width, at };
        all.push(block);
        at += POSITIONS * block.position(t.channels);
        first += width;
    }
    all
}

/// Weights `[o, c, 3, 3]` transformed, as `[16, channels, width]` for every block of outputs, zeros behind
/// the last output; positions are set apart.
pub(in crate::kernels::conv) fn pack_weights(
    cpu: Cpu,
    e: &Extents,
    weights: Weights<'_>,
) -> Vec<f32> {
    let blocks = blocks(cpu.simd, &Tiling::of(e));
    let floats = |block: &Block| POSITIONS * block.position(e.input);
    let mut packed = vec![0.0; blocks.iter().map(floats).sum()];
    let mut rest = &mut packed[..];
    let mut items = Vec::with_capacity(blocks.len());
    for block in blocks {
        let (own, behind) = rest.split_at_mut(floats(&block));
        items.push((block, own));
        rest = behind;
    }
    cpu.map(items, |_, (block, packed)| {
        pack_block(cpu.simd, e, weights, block, packed);
    });
    packed
}

multiversion! {
    /// Transforms the weights of one block.
    fn pack_block(e: &Extents, weights: Weights<'_>, block: Block, packed: &mut [f32])
        = pack_block_body
}

#[inline(always)]
fn pack_block_body(e: &Extents, weights: Weights<'_>, block: Block, packed: &mut [f32]) {
    match block.width {
        4 => pack_lanes::<4>(e, weights, block, packed),
        6 => pack_lanes::<6>(e, weights, block, packed),
        _ => pack_lanes::<8>(e, weights, block, packed),
    }
}

#[inline(always)]
fn pack_lanes<const N: usize>(e: &Extents, weights: Weights<'_>, block: Block, packed: &mut [f32]) {
    let (values, _) = weights.values.as_chunks::<9>();
    let lanes = N.min(e.output - block.first);
    let apart = block.position(e.input);
    for channel in 0..e.input {
        // The kernels of the block's outputs, tap by tap.
        let mut taps = [[0f32; MOST_OUTPUTS]; 9];
        for (lane, output) in (block.first..block.first + lanes).enumerate() {
            let at = if weights.are_turned {
                channel * e.output + output
            } else {
                output * e.input + channel
            };
            for (tap, value) in values[at].iter().enumerate() {
                let tap = if weights.are_turned { 8 - tap } else { tap };
                taps[tap][lane] = *value;
            }
        }
        let u = transformed_weights(&taps);
        let u = u
            .each_ref()
            .map(|lanes| lanes.first_chunk::<N>().expect("no more than there are"));
        let to = &mut packed[channel * N..][..(POSITIONS - 1) * apart + N];
        store_positions!(u, to, apart);
    }
}

/// `G w G^T`, lane by lane.
#[inline(always)]
fn transformed_weights<const N: usize>(w: &[[f32; N]; 9]) -> [[f32; N]; POSITIONS] {
    let mut u = [[0f32; N]; POSITIONS];
    for l in 0..N {
        let spread = |a: f32, b: f32, c: f32| [a, 0.5 * (a + b + c), 0.5 * (a - b + c), c];
        let [c0, c1, c2] = [0, 1, 2].map(|x| spread(w[x][l], w[3 + x][l], w[6 + x][l]));
        for y in 0..4 {
            let row = spread(c0[y], c1[y], c2[y]);
            for x in 0..4 {
                u[4 * y + x][l] = row[x];
            }
        }
    }
    u
}

/// Convolves some images `[n, c, h, w]`; writes `[n, o, oh, ow]`.
pub(in crate::kernels::conv) fn forward(
    simd: Simd,
    e: &Extents,
    x: &[f32],
    packed: &[f32],
    [planes, strip, products, _]: &mut Scratch,
    y: &mut [MaybeUninit<f32>],
) {
    let tiling = Tiling::of(e);
    let images = x.len() / e.image();
    // Every float is written.
    planes.resize(images * e.input * tiling.plane(), 0.0);
    lay_out(simd, &tiling, x, planes);
    // What lies behind the last tile of a last strip is multiplied, but never read.
    strip.resize(POSITIONS * tiling.apart(), 0.0);
    let blocks = blocks(simd, &tiling);
    let group = tiling.group(&blocks);
    products.resize(group * MOST_OUTPUTS * OUTPUT_FLOATS, 0.0);
    let tiles = images * tiling.tiles();
    for first in (0..tiles).step_by(STRIP) {
        let count = (tiles - first).min(STRIP);
        transform_input(simd, &tiling, planes, first, count, strip);
        for blocks in blocks.chunks(group) {
            multiply(simd, &tiling, blocks, count, packed, strip, products);
            let products = products.chunks_exact(MOST_OUTPUTS * OUTPUT_FLOATS);
            for (block, products) in blocks.iter().zip(products) {
                transform_output(simd, &tiling, products, first, count, *block, y);
            }
        }
    }
}

impl Tiling {
    /// Floats from one position's transformed tiles, `[channels, tiles]`, to the next one's.
    fn apart(&self) -> usize {
        self.channels * STRIP + APART
    }

    /// Blocks that are multiplied together. The transformed tiles of many channels are more than lies
    /// close to a core: each position's are then read once for many outputs.
    fn group(&self, blocks: &[Block]) -> usize {
        let group = if self.channels <= 64 {
            1
        } else {
            GROUP / blocks[0].width
        };
        group.min(blocks.len())
    }
}

multiversion! {
    /// `B^T x B` of a strip's tiles, `[16, channels, tiles]`.
    fn transform_input(t: &Tiling, planes: &[f32], first: usize, count: usize, strip: &mut [f32])
        = transform_input_body
}

#[inline(always)]
fn transform_input_body(t: &Tiling, planes: &[f32], first: usize, count: usize, strip: &mut [f32]) {
    let image = t.channels * t.plane();
    for s in t.segments(first, count) {
        let image = &planes[s.image * image..][..image];
        in_pieces!(s.length, |at| input_piece(
            t,
            image,
            s.row,
            s.column + at,
            s.lane + at,
            strip,
        ));
    }
}

/// All channels of some tiles: what there is to check about them is the same for each.
#[inline(always)]
fn input_piece<const N: usize>(
    t: &Tiling,
    image: &[f32],
    row: usize,
    column: usize,
    lane: usize,
    strip: &mut [f32],
) {
    let half = t.half();
    let start = 4 * row * half + column;
    let apart = t.apart();
    for (channel, plane) in image.chunks_exact(t.plane()).enumerate() {
        // A tile's columns: even and odd ones of the row in turn.
        macro_rules! row {
            ($y:literal) => {{
                let even = &plane[start + 2 * $y * half..][..N + 1];
                let odd = &plane[start + (2 * $y + 1) * half..][..N + 1];
                [lanes(even), lanes(odd), lanes(&even[1..]), lanes(&odd[1..])]
            }};
        }
        let rows: [[&[f32; N]; 4]; 4] = [row!(0), row!(1), row!(2), row!(3)];
        let v = transformed_input!(N, rows);
        let to = &mut strip[channel * STRIP + lane..][..(POSITIONS - 1) * apart + N];
        store_positions!(v, to, apart);
    }
}

multiversion! {
    /// Products of a strip with some blocks of outputs, `[8 outputs of each, 16, tiles]`.
    fn multiply(t: &Tiling, blocks: &[Block], count: usize, packed: &[f32], strip: &[f32],
        products: &mut [f32]) = multiply_avx512, multiply_avx2, multiply_portable
}

/// One body per instruction set and block of outputs that are in registers: at one position.
macro_rules! block_body {
    ($name:ident, $lanes:literal, $outputs:literal, $fused:literal, [$(($o:literal, $g:ident, $a:ident, $b:ident, $c:ident)),*]) => {
        #[inline(always)]
        fn $name(rows: &[[f32; STRIP]], weights: &[f32], position: usize, count: usize, products: &mut [[f32; OUTPUT_FLOATS]]) {
            const L: usize = $lanes;
            let (weights, _) = weights.as_chunks::<$outputs>();
            for start in (0..count).step_by(2 * L) {
                $(let mut $a = [0f32; L]; let mut $b = [0f32; L];)*
                for (row, weights) in rows.iter().zip(weights) {
                    let low: [f32; L] = vector(row, start);
                    let high: [f32; L] = vector(row, start + L);
                    $(
                        let weight = [weights[$o]; L];
                        $a = product::<L, $fused>(weight, low, $a);
                        $b = product::<L, $fused>(weight, high, $b);
                    )*
                }
                $(
                    let to = &mut products[$o][position * STRIP..][..STRIP];
                    store(to, start, $a);
                    store(to, start + L, $b);
                )*
            }
        }
    };
}

with_registers!(block_body, eight_avx512, 16, true, 8);
with_registers!(block_body, six_avx2, 8, true, 6);
with_registers!(block_body, four_avx2, 8, true, 4);
with_registers!(block_body, four_portable, 4, false, 4);

macro_rules! multiply_body {
    ($name:ident, $wide:ident, $most:literal, $narrow:ident) => {
        #[inline(always)]
        fn $name(
            t: &Tiling,
            blocks: &[Block],
            count: usize,
            packed: &[f32],
            strip: &[f32],
            products: &mut [f32],
        ) {
            let (products, _) = products.as_chunks_mut::<OUTPUT_FLOATS>();
            for position in 0..POSITIONS {
                let (rows, _) = strip[position * t.apart()..].as_chunks::<STRIP>();
                let rows = &rows[..t.channels];
                for (block, products) in blocks.iter().zip(products.chunks_exact_mut(MOST_OUTPUTS))
                {
                    let weights = &packed[block.at + position * block.position(t.channels)..];
                    let weights = &weights[..t.channels * block.width];
                    if block.width == $most {
                        $wide(rows, weights, position, count, products);
                    } else {
                        $narrow(rows, weights, position, count, products);
                    }
                }
            }
        }
    };
}

multiply_body!(multiply_avx512, eight_avx512, 8, eight_avx512);
multiply_body!(multiply_avx2, six_avx2, 6, four_avx2);
multiply_body!(multiply_portable, four_portable, 4, four_portable);

multiversion! {
    /// `A^T m A` of a strip's tiles for one block of outputs, into `[n, o, oh, ow]`.
    fn transform_output(t: &Tiling, products: &[f32], first: usize, count: usize, block: Block,
        y: &mut [MaybeUninit<f32>]) = transform_output_body
}

#[inline(always)]
fn transform_output_body(
    t: &Tiling,
    products: &[f32],
    first: usize,
    count: usize,
    block: Block,
    y: &mut [MaybeUninit<f32>],
) {
    let image = t.outputs * t.output[0] * t.output[1];
    let (products, _) = products.as_chunks::<OUTPUT_FLOATS>();
    let products = &products[..block.width];
    for s in t.segments(first, count) {
        let image = &mut y[s.image * image..][..image];
        let planes = &mut image[block.first * t.output[0] * t.output[1]..];
        // The last tile of an odd width goes alone.
        let whole = s.length.min(t.output[1] / 2 - s.column);
        in_pieces!(whole, |at| output_piece(
            t,
            products,
            planes,
            s.row,
            s.column + at,
            s.lane + at,
        ));
        if whole < s.length {
            output_piece::<1>(t, products, planes, s.row, s.column + whole, s.lane + whole);
        }
    }
}

#[inline(always)]
fn output_piece<const N: usize>(
    t: &Tiling,
    products: &[[f32; OUTPUT_FLOATS]],
    planes: &mut [MaybeUninit<f32>],
    row: usize,
    column: usize,
    lane: usize,
) {
    let [height, width] = t.output;
    let start = 2 * row * width;
    for (products, plane) in products.iter().zip(planes.chunks_exact_mut(height * width)) {
        let products = &products[lane..][..(POSITIONS - 1) * STRIP + N];
        let [mut a, mut b, mut c, mut d] = [[0f32; N]; 4];
        for l in 0..N {
            macro_rules! column {
                ($x:literal) => {{
                    let [m0, m1, m2, m3] = [
                        products[$x * STRIP + l],
                        products[(4 + $x) * STRIP + l],
                        products[(8 + $x) * STRIP + l],
                        products[(12 + $x) * STRIP + l],
                    ];
                    (m0 + m1 + m2, m1 - m2 - m3)
                }};
            }
            let [c0, c1, c2, c3] = [column!(0), column!(1), column!(2), column!(3)];
            a[l] = c0.0 + c1.0 + c2.0;
            b[l] = c1.0 - c2.0 - c3.0;
            c[l] = c0.1 + c1.1 + c2.1;
            d[l] = c1.1 - c2.1 - c3.1;
        }
        store_pairs(&mut plane[start..][..width], 2 * column, a, b);
        // The last row of tiles may reach below the image.
        if 2 * row + 1 < height {
            store_pairs(&mut plane[start + width..][..width], 2 * column, c, d);
        }
    }
}

#[inline(always)]
fn store<const N: usize>(to: &mut [f32], start: usize, values: [f32; N]) {
    to[start..start + N].copy_from_slice(&values);
}

/// Writes `even` and `odd` in turn from `x` on. A single tile may have no right half.
#[inline(always)]
fn store_pairs<const N: usize>(
    row: &mut [MaybeUninit<f32>],
    x: usize,
    even: [f32; N],
    odd: [f32; N],
) {
    let row = &mut row[x..];
    if N == 1 && row.len() == 1 {
        row[0].write(even[0]);
        return;
    }
    let (row, _) = row.as_chunks_mut::<2>();
    let row = &mut row[..N];
    for l in 0..N {
        row[l] = [MaybeUninit::new(even[l]), MaybeUninit::new(odd[l])];
    }
}
