//! 3x3 convolution at stride 1 with fewer products: Winograd's minimal filtering F(2x2, 3x3), as
//! Lavin and Gray brought it to networks ("Fast Algorithms for Convolutional Neural Networks", CVPR
//! 2016, section 4.1).
//!
//! A tile of 2x2 outputs reads 4x4 inputs. With `U = G w G^T` and `V = B^T x B`, the tile is
//! `A^T (sum over channels of U * V) A`: 16 products for a tile and a pair of channels, where the
//! plain sum has 36. The transforms of inputs and outputs only add, and that of the weights halves
//! besides: on the grids of a quantizer every value stays exact as long as it fits 24 bits.
//!
//! ```text
//!       1  0 -1  0          1   0   0
//! B^T = 0  1  1  0     G =  ½   ½   ½     A^T = 1  1  1  0
//!       0 -1  1  0          ½  -½   ½           0  1 -1 -1
//!       0  1  0 -1          0   0   1
//! ```
//!
//! [`forward()`] gives outputs, and with turned weights the gradient of the input;
//! [`weight_gradient`] that of the weights, by the transposes of the same matrices.

use super::Extents;

/// Elements of a transformed tile, 4x4.
const POSITIONS: usize = 16;
/// Floats that set apart what would otherwise lie a power of two apart and share cache sets.
const APART: usize = 16;

/// Calls `$piece::<N>` for pieces of 16, 8, 4 and 1 lanes that make up `$length`.
macro_rules! in_pieces {
    ($length:expr, |$at:ident| $piece:ident($($arg:expr),* $(,)?)) => {{
        let length = $length;
        let mut $at = 0;
        while length - $at >= 16 {
            $piece::<16>($($arg),*);
            $at += 16;
        }
        if length - $at >= 8 {
            $piece::<8>($($arg),*);
            $at += 8;
        }
        if length - $at >= 4 {
            $piece::<4>($($arg),*);
            $at += 4;
        }
        while $at < length {
            $piece::<1>($($arg),*);
            $at += 1;
        }
    }};
}

/// `B^T x B` of the 4x4 pixels of `$rows`, `$N` tiles at a time: each row is its four columns as
/// arrays.
///
/// By way of arrays of their own, which cannot overlap what is read: then all lanes go at once.
macro_rules! transformed_input {
    ($N:ident, $rows:expr) => {{
        let rows = $rows;
        let mut v = [[0f32; $N]; POSITIONS];
        for l in 0..$N {
            let mut spread = [[0f32; 4]; 4];
            for y in 0..4 {
                let [a, b, c, d] = rows[y];
                spread[y] = [a[l] - c[l], b[l] + c[l], c[l] - b[l], b[l] - d[l]];
            }
            let [r0, r1, r2, r3] = spread;
            for x in 0..4 {
                v[x][l] = r0[x] - r2[x];
                v[4 + x][l] = r1[x] + r2[x];
                v[8 + x][l] = r2[x] - r1[x];
                v[12 + x][l] = r1[x] - r3[x];
            }
        }
        v
    }};
}

/// Writes the arrays of `$values` to `$to`, `$apart` floats from each other. Without a loop: an
/// index that varies would keep the arrays in memory.
macro_rules! store_positions {
    ($values:expr, $to:expr, $apart:expr) => {
        store_positions!(@ $values, $to, $apart, 0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15)
    };
    (@ $values:expr, $to:expr, $apart:expr, $($i:literal)*) => {
        $($to[$i * $apart..][..$values[$i].len()].copy_from_slice(&$values[$i][..]);)*
    };
}

mod forward;
mod weight;

pub(super) use forward::{forward, images_together, pack_weights};
pub(super) use weight::{fits_weight_gradient, weight_gradient, weight_sums};

/// Whether this room has kernels for the shape, and they pay: what a tile of inputs costs to
/// transform is shared by the outputs.
pub(super) fn fits(e: &Extents) -> bool {
    let g = e.geometry;
    let unit_stride = g.is_square() && g.stride == [1, 1];
    e.kernel == [3, 3] && unit_stride && g.groups == 1 && !g.in_order && e.output >= 8
}

/// How images fall into tiles.
#[derive(Debug, Clone, Copy)]
struct Tiling {
    channels: usize,
    outputs: usize,
    /// Input height and width.
    size: [usize; 2],
    padding: usize,
    /// Output height and width.
    output: [usize; 2],
}

/// Neighbouring tiles of one row of tiles.
struct Segment {
    image: usize,
    row: usize,
    column: usize,
    length: usize,
    /// Where they lie in the strip.
    lane: usize,
}

impl Tiling {
    fn of(e: &Extents) -> Self {
        Self {
            channels: e.input,
            outputs: e.output,
            size: e.size,
            padding: e.geometry.padding[0],
            output: e.output_size(),
        }
    }

    fn rows(&self) -> usize {
        self.output[0].div_ceil(2)
    }

    fn columns(&self) -> usize {
        self.output[1].div_ceil(2)
    }

    /// Tiles of one image.
    fn tiles(&self) -> usize {
        self.rows() * self.columns()
    }

    /// Images that fill a strip of tiles, where one does not.
    fn images_together(&self, strip: usize) -> usize {
        (strip / self.tiles()).max(1)
    }

    /// The least number of images that fill a strip and whose tiles nearly fill whole vectors; of more than
    /// that at most so many.
    fn images_in_vectors(&self, vector: usize, strip: usize, most: usize) -> usize {
        let filled = |images: usize| {
            let tiles = images * self.tiles();
            tiles as f64 / tiles.next_multiple_of(vector) as f64
        };
        let least = self.images_together(strip);
        let images = least..=most.max(least);
        let best = images.clone().map(filled).fold(0.0, f64::max);
        images
            .clone()
            .find(|n| filled(*n) >= best.min(0.93))
            .unwrap_or(least)
    }

    /// Floats of one padded row's columns of one parity.
    fn half(&self) -> usize {
        self.columns() + 1
    }

    /// Floats of one padded channel: its rows, the even columns of a row before the odd ones.
    fn plane(&self) -> usize {
        (2 * self.rows() + 2) * 2 * self.half()
    }

    /// The tiles of a strip, row by row.
    fn segments(self, first: usize, count: usize) -> impl Iterator<Item = Segment> {
        let mut lane = 0;
        std::iter::from_fn(move || {
            let tile = first + lane;
            let (image, tile) = (tile / self.tiles(), tile % self.tiles());
            let (row, column) = (tile / self.columns(), tile % self.columns());
            let length = (self.columns() - column).min(count - lane);
            let segment = Segment {
                image,
                row,
                column,
                length,
                lane,
            };
            lane += length;
            (length > 0).then_some(segment)
        })
    }
}

#[inline(always)]
fn take_apart<const N: usize>(pairs: &[[f32; 2]], left: &mut [f32], right: &mut [f32]) {
    let (pairs, left, right) = (&pairs[..N], &mut left[..N], &mut right[..N]);
    for l in 0..N {
        left[l] = pairs[l][0];
        right[l] = pairs[l][1];
    }
}

/// A run of lanes.
#[inline(always)]
fn lanes<const N: usize>(row: &[f32]) -> &[f32; N] {
    row.first_chunk().expect("a slice of that length")
}
