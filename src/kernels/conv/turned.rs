//! Pictures turned so that some channels of a pixel lie side by side, in the lanes of a vector.

use super::super::simd::{multiversion, vector};

/// Channels that lie side by side, those behind the last one included: a multiple of every vector.
pub(super) const LANES: usize = 16;

/// Shape of a turned image, `[blocks of lanes, padded height, padded width, lanes of a block]`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Turned {
    pub channels: usize,
    /// Height and width before.
    pub size: [usize; 2],
    /// Pixels of zeros above and to the left.
    pub padding: usize,
    /// Height and width with what is padded on all sides.
    pub padded: [usize; 2],
}

impl Turned {
    /// Lanes that the channels lie in.
    pub fn lanes(&self) -> usize {
        self.channels.next_multiple_of(LANES)
    }

    /// Floats of one block's row of pixels.
    pub fn row(&self) -> usize {
        self.padded[1] * LANES
    }

    /// Floats of one block of lanes.
    pub fn block(&self) -> usize {
        self.padded[0] * self.row()
    }

    /// Floats of one image.
    pub fn image(&self) -> usize {
        self.lanes() / LANES * self.block()
    }
}

/// Pixels that are turned at a time.
const TILE: usize = 8;

multiversion! {
    /// Turns an image `[c, h, w]`; padding and the lanes behind the last channel are left as they
    /// are.
    pub(super) fn turn(shape: &Turned, x: &[f32], turned: &mut [f32]) = turn_body
}

#[inline(always)]
fn turn_body(shape: &Turned, x: &[f32], turned: &mut [f32]) {
    let Turned {
        channels,
        size: [height, width],
        padding,
        ..
    } = *shape;
    let pixels = height * width;
    for (block, turned) in turned.chunks_exact_mut(shape.block()).enumerate() {
        let first = block * LANES;
        let count = (channels - first).min(LANES);
        let whole = if count == LANES { width / TILE } else { 0 };
        let inside = turned.chunks_exact_mut(shape.row()).skip(padding);
        for (y, row) in inside.take(height).enumerate() {
            let (row, _) = row[padding * LANES..][..width * LANES].as_chunks_mut::<LANES>();
            let from = |channel: usize| &x[(first + channel) * pixels + y * width..][..width];
            let (tiles, rest) = row.split_at_mut(whole * TILE);
            for (tile, out) in tiles.chunks_exact_mut(TILE).enumerate() {
                let mut columns = [[0f32; TILE]; LANES];
                for (channel, column) in columns.iter_mut().enumerate() {
                    *column = vector(from(channel), tile * TILE);
                }
                for (j, out) in out.iter_mut().enumerate() {
                    for channel in 0..LANES {
                        out[channel] = columns[channel][j];
                    }
                }
            }
            for (x, out) in rest.iter_mut().enumerate() {
                for (channel, out) in out[..count].iter_mut().enumerate() {
                    *out = from(channel)[whole * TILE + x];
                }
            }
        }
    }
}
