//! The levels of a quantizer's grid as integers.

use super::value::{MOST_BITS, MOST_LEVELS, NARROWER, Reason, root};
use crate::quantizer::Grid;

/// A grid's levels as integers of a power of two.
pub(super) struct Levels {
    pub(super) unit: f32,
    pub(super) exponent: i32,
    pub(super) codes: Vec<i32>,
    pub(super) values: Vec<f32>,
}

impl Levels {
    pub(super) fn range(&self) -> [i64; 2] {
        let ends = [self.codes.first(), self.codes.last()];
        ends.map(|code| code.map_or(0, |c| i64::from(*c)))
    }
}

pub(super) fn levels(grid: &Grid) -> Result<Levels, Reason> {
    let unit = grid.step;
    let exponent = exponent(unit).ok_or_else(|| {
        root(
            format!("its step size {unit:e} is not a power of two"),
            NARROWER,
        )
    })?;
    let values = grid
        .levels(MOST_LEVELS)
        .ok_or_else(|| root(format!("{} levels", grid.level_count()), NARROWER))?;
    let largest = values.iter().fold(0f32, |m, v| m.max(v.abs())) / unit;
    if f64::from(largest) >= f64::from(MOST_BITS - 1).exp2() {
        let text = format!("its levels span more than {} octaves", MOST_BITS - 1);
        return Err(root(text, NARROWER));
    }
    let codes = values.iter().map(|v| (v / unit) as i32).collect();
    Ok(Levels {
        unit,
        exponent,
        codes,
        values,
    })
}

/// The exponent of a power of two.
pub(super) fn exponent(v: f32) -> Option<i32> {
    let bits = v.to_bits();
    let is_power = v > 0.0 && v.is_normal() && bits & 0x007f_ffff == 0;
    is_power.then(|| (bits >> 23) as i32 - 127)
}
