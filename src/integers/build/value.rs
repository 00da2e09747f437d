//! Values and sums as integers, and why a value cannot be one.

use crate::integers::levels::Piece;
use crate::integers::program::Operation;

/// Levels of a quantizer at most: 16 bits and a sign.
pub(super) const MOST_LEVELS: usize = (1 << 17) + 1;
/// Values of a residual at most, and thresholds of a step.
pub(super) const MOST_RESIDUALS: i64 = 1 << 12;
pub(super) const MOST_THRESHOLDS: usize = 1 << 25;
/// Integers have to fit into so many bits, sign included.
pub(super) const MOST_BITS: u32 = 31;

/// A value in integers.
#[derive(Debug, Clone)]
pub(super) struct Value {
    pub(super) exponent: i32,
    pub(super) range: [i64; 2],
    /// The integers that can occur, where a quantizer says so.
    pub(super) codes: Option<Vec<i32>>,
}

/// What a node yields: integers, or the reason why not.
pub(super) type Yields = Result<Value, Reason>;

/// Why a value is in float.
#[derive(Debug, Clone)]
pub(super) struct Reason {
    pub(super) text: String,
    /// What would make integers of it; nothing where the reason lies in what the step reads.
    pub(super) hint: Option<&'static str>,
}

/// What would help.
pub(super) const EVERYWHERE: &str =
    "`activations.at = \"everywhere\"`, which quantizes every value that a layer reads";
pub(super) const INPUT: &str = "`input.bits = 8`";
pub(super) const NARROWER: &str =
    "fewer bits, or bounds of the quantizers' ranges that lie closer together";
pub(super) const PADDING: &str = "an average pool without padding, or one that counts it";
pub(super) const WEIGHTS: &str = "a quantizer for the weights of every layer";
pub(super) const NONLINEARITY: &str = "ReLU or another clip in the place of that function";

pub(super) fn root(text: impl Into<String>, hint: &'static str) -> Reason {
    Reason {
        text: text.into(),
        hint: Some(hint),
    }
}

/// The sums of a step, before anything happens to them.
pub(super) struct Sums {
    pub(super) operation: Operation,
    pub(super) exponent: i32,
    /// Per channel.
    pub(super) ranges: Vec<[i64; 2]>,
    pub(super) partial: u64,
    /// The integers that can occur, where levels are kept.
    pub(super) codes: Option<Vec<i32>>,
    pub(super) pieces: Vec<Piece>,
}

impl Sums {
    pub(super) fn range(&self) -> [i64; 2] {
        let low = self.ranges.iter().map(|r| r[0]).min();
        let high = self.ranges.iter().map(|r| r[1]).max();
        [low.unwrap_or(0), high.unwrap_or(0)]
    }
}

pub(super) fn magnitude([low, high]: [i64; 2]) -> u64 {
    low.unsigned_abs().max(high.unsigned_abs())
}

pub(super) fn shifted(range: [i64; 2], shift: u32) -> Result<[i64; 2], Reason> {
    let too_far = || root("its inputs' grids are too far apart", NARROWER);
    if shift > 40 || magnitude(range) >= 1 << (62 - shift) {
        return Err(too_far());
    }
    Ok(range.map(|v| v << shift))
}

pub(super) fn shift_all(codes: &mut [i32], shift: u32) -> Result<(), Reason> {
    let largest = codes.iter().map(|c| c.unsigned_abs()).max().unwrap_or(0);
    if shift > 30 || u64::from(largest) << shift >= 1 << (MOST_BITS - 1) {
        return Err(root(
            "its bias and its products are too far apart",
            NARROWER,
        ));
    }
    for code in codes {
        *code <<= shift;
    }
    Ok(())
}
