//! Where a quantizer starts: from the trained float weights, as in the paper.

use serde::{Deserialize, Serialize};

use super::family::Rules;
use super::grid::{dynamic, largest_level, round_to_power_of_two};
use super::parametrization::{Parametrization, Quantizer};

/// The bitwidth that an initialisation aims at.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct InitialBits(pub f64);

/// Parameters whose range covers values up to `max_abs` with `bits`.
///
/// Uniform: `d = 2^floor(log2(max|W| / N))`, `q_max = N d` with the largest level
/// `N = 2^(b-1) - 1` (unsigned `2^b - 1`); the published code rounds the exponent up for b > 4.
/// Power of two: `q_max = 2^round(log2(N d))` with the uniform d, `q_min = q_max / 2^(2^(b-1) - 1)`.
/// The result is brought inside the bounds of `quantizer`.
pub fn initial_parameters(quantizer: &Quantizer, max_abs: f64, bits: InitialBits) -> [f64; 2] {
    let b = bits.0;
    let largest_level = largest_level(quantizer.signed, b).max(1.0);
    // An all-zero tensor still needs a positive step.
    let max_abs = max_abs.max(f64::from(f32::MIN_POSITIVE));
    let log_d = (max_abs / largest_level).log2();
    let d = match quantizer.rules {
        Rules::PublishedCode if b > 4.0 => log_d.ceil(),
        _ => log_d.floor(),
    }
    .exp2();
    let d = d.clamp(*quantizer.bounds.d.start(), *quantizer.bounds.d.end());
    let q_max = round_to_power_of_two(largest_level * d);
    let q_min = q_max / dynamic(b);
    let parameters = match quantizer.parametrization {
        Parametrization::U1 => [b, d],
        Parametrization::U2 => [b, largest_level * d],
        Parametrization::U3 => [d, largest_level * d],
        Parametrization::P1 => [b, q_min],
        Parametrization::P2 => [b, q_max],
        Parametrization::P3 => [q_min, q_max],
    };
    quantizer.clamped(parameters)
}
