//! Outputs, and with turned weights the gradient of the input.
//!
//! Tiles lie side by side in the lanes of a vector, whatever row or image they are of: a strip of
//! [`STRIP`] tiles is transformed, multiplied and transformed back while it is in cache.

use std::mem::MaybeUninit;
use std::ops::Range;

use super::super::super::parallel::{Cpu, Scratch};
use super::super::super::simd::{Simd, multiversion, product, vector, with_registers};
use super::super::{Extents, Weights};
use super::{APART, POSITIONS, Tiling, lanes, take_apart};

/// Tiles that are taken together.
const STRIP: usize = 32;
/// Output channels of the widest block: packed weights are padded to a multiple.
const MOST_OUTPUTS: usize = 8;
/// Floats of one channel's transformed tiles, `[16, tiles]`.
const CHANNEL_FLOATS: usize = POSITIONS * STRIP + APART;

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

/// Images that fill a strip, where one does not.
pub(in crate::kernels::conv) fn images_together(e: &Extents) -> usize {
    Tiling::of(e).images_together(STRIP)
}

/// Weights `[o, c, 3, 3]` transformed, as `[blocks of 8 outputs, 16, channels, 8]`, zeros behind the
/// last output.
pub(in crate::kernels::conv) fn pack_weights(
    cpu: Cpu,
    e: &Extents,
    weights: Weights<'_>,
) -> Vec<f32> {
    let block = POSITIONS * e.input * MOST_OUTPUTS;
    let mut packed = vec![0.0; e.output.div_ceil(MOST_OUTPUTS) * block];
    let blocks = packed.chunks_exact_mut(block).collect();
    let (values, _) = weights.values.as_chunks::<9>();
    cpu.map(blocks, |i, packed: &mut [f32]| {
        let outputs = i * MOST_OUTPUTS..e.output.min((i + 1) * MOST_OUTPUTS);
        let (packed, _) = packed.as_chunks_mut::<MOST_OUTPUTS>();
        for channel in 0..e.input {
            for (lane, output) in outputs.clone().enumerate() {
                let w = if weights.are_turned {
                    let mut w = values[channel * e.output + output];
                    w.reverse();
                    w
                } else {
                    values[output * e.input + channel]
                };
                for (position, value) in transform_weight(&w).into_iter().enumerate() {
                    packed[position * e.input + channel][lane] = value;
                }
            }
        }
    });
    packed
}

/// `G w G^T`
fn transform_weight(w: &[f32; 9]) -> [f32; POSITIONS] {
    let spread = |a: f32, b: f32, c: f32| [a, 0.5 * (a + b + c), 0.5 * (a - b + c), c];
    let columns = [0, 1, 2].map(|x| spread(w[x], w[3 + x], w[6 + x]));
    let mut u = [0.0; POSITIONS];
    for (y, row) in u.chunks_exact_mut(4).enumerate() {
        row.copy_from_slice(&spread(columns[0][y], columns[1][y], columns[2][y]));
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
    strip.resize(e.input * CHANNEL_FLOATS, 0.0);
    let (blocks, group) = (tiling.blocks(), tiling.group());
    products.resize(group * MOST_OUTPUTS * CHANNEL_FLOATS, 0.0);
    let tiles = images * tiling.tiles();
    for first in (0..tiles).step_by(STRIP) {
        let count = (tiles - first).min(STRIP);
        transform_input(simd, &tiling, planes, first, count, strip);
        for start in (0..blocks).step_by(group) {
            let group = start..blocks.min(start + group);
            multiply(simd, &tiling, group.clone(), packed, strip, products);
            let products = products.chunks_exact(MOST_OUTPUTS * CHANNEL_FLOATS);
            for (block, products) in group.zip(products) {
                transform_output(simd, &tiling, products, first, count, block, y);
            }
        }
    }
}

impl Tiling {
    /// Blocks of outputs.
    fn blocks(&self) -> usize {
        self.outputs.div_ceil(MOST_OUTPUTS)
    }

    /// Blocks that are multiplied together. The transformed tiles of many channels are more than lies
    /// close to a core: each position's are then read once for many outputs.
    fn group(&self) -> usize {
        let group = if self.channels <= 64 { 1 } else { 8 };
        group.min(self.blocks())
    }
}

multiversion! {
    /// `B^T x B` of a strip's tiles, `[channels, 16, tiles]`.
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
    let (strip, _) = strip.as_chunks_mut::<CHANNEL_FLOATS>();
    for (plane, channel) in image.chunks_exact(t.plane()).zip(strip) {
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
        let to = &mut channel[lane..][..(POSITIONS - 1) * STRIP + N];
        store_positions!(v, to, STRIP);
    }
}

multiversion! {
    /// Products of a strip with some blocks of outputs, `[8 outputs of each, 16, tiles]`.
    fn multiply(t: &Tiling, blocks: Range<usize>, packed: &[f32], strip: &[f32], products: &mut [f32])
        = multiply_avx512, multiply_avx2, multiply_portable
}

/// One body per instruction set: lanes of a vector, and outputs in a block of registers.
macro_rules! multiply_body {
    ($name:ident, $lanes:literal, $outputs:literal, $fused:literal, [$(($o:literal, $g:ident, $a:ident, $b:ident, $c:ident)),*]) => {
        #[inline(always)]
        fn $name(t: &Tiling, blocks: Range<usize>, packed: &[f32], strip: &[f32], products: &mut [f32]) {
            const L: usize = $lanes;
            let (packed, _) = packed.as_chunks::<MOST_OUTPUTS>();
            let (strip, _) = strip.as_chunks::<CHANNEL_FLOATS>();
            let (products, _) = products.as_chunks_mut::<CHANNEL_FLOATS>();
            for start in (0..POSITIONS * STRIP).step_by(2 * L) {
                let position = start / STRIP;
                for (block, products) in blocks.clone().zip(products.chunks_exact_mut(MOST_OUTPUTS)) {
                    let weights = &packed[(block * POSITIONS + position) * t.channels..][..t.channels];
                    for output in (0..MOST_OUTPUTS).step_by($outputs) {
                        $(let mut $a = [0f32; L]; let mut $b = [0f32; L];)*
                        for (channel, weights) in strip.iter().zip(weights) {
                            let low: [f32; L] = vector(channel, start);
                            let high: [f32; L] = vector(channel, start + L);
                            $(
                                let weight = [weights[output + $o]; L];
                                $a = product::<L, $fused>(weight, low, $a);
                                $b = product::<L, $fused>(weight, high, $b);
                            )*
                        }
                        $(
                            store(&mut products[output + $o], start, $a);
                            store(&mut products[output + $o], start + L, $b);
                        )*
                    }
                }
            }
        }
    };
}

with_registers!(multiply_body, multiply_avx512, 16, true, 8);
with_registers!(multiply_body, multiply_avx2, 8, true, 4);
with_registers!(multiply_body, multiply_portable, 4, false, 4);

multiversion! {
    /// `A^T m A` of a strip's tiles for one block of outputs, into `[n, o, oh, ow]`.
    fn transform_output(t: &Tiling, products: &[f32], first: usize, count: usize, block: usize,
        y: &mut [MaybeUninit<f32>]) = transform_output_body
}

#[inline(always)]
fn transform_output_body(
    t: &Tiling,
    products: &[f32],
    first: usize,
    count: usize,
    block: usize,
    y: &mut [MaybeUninit<f32>],
) {
    let image = t.outputs * t.output[0] * t.output[1];
    let (products, _) = products.as_chunks::<CHANNEL_FLOATS>();
    for s in t.segments(first, count) {
        let image = &mut y[s.image * image..][..image];
        let planes = &mut image[block * MOST_OUTPUTS * t.output[0] * t.output[1]..];
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
    products: &[[f32; CHANNEL_FLOATS]],
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
