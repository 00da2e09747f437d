//! Codes packed at their own bitwidth, and back.

use super::program::Stored;

/// Packs integers: `bits` of each, the first in the lowest bits of the first byte. A level of a uniform
/// quantizer is its two's complement; a power of two is its octave, with the sign in the highest bit.
/// `None` where one does not fit.
pub(super) fn pack(stored: &Stored, integers: &[i64]) -> Option<Vec<u8>> {
    let mut bytes = vec![0u8; (integers.len() * stored.bits as usize).div_ceil(8)];
    for (i, integer) in integers.iter().enumerate() {
        let code = code(stored, *integer)?;
        for bit in 0..stored.bits as usize {
            let at = i * stored.bits as usize + bit;
            bytes[at / 8] |= (((code >> bit) & 1) as u8) << (at % 8);
        }
    }
    Some(bytes)
}

/// The integers of packed codes; `None` where there are too few bytes.
pub(super) fn unpack(stored: &Stored, count: usize, bytes: &[u8]) -> Option<Vec<i64>> {
    let bits = stored.bits as usize;
    if bits == 0 || bits > 32 || bytes.len() != count.checked_mul(bits)?.div_ceil(8) {
        return None;
    }
    let codes = (0..count).map(|i| {
        let mut code = 0u64;
        for bit in 0..bits {
            let at = i * bits + bit;
            code |= u64::from((bytes[at / 8] >> (at % 8)) & 1) << bit;
        }
        integer(stored, code)
    });
    Some(codes.collect())
}

fn code(stored: &Stored, integer: i64) -> Option<u64> {
    let bits = stored.bits;
    let half = 1i64.checked_shl(bits.checked_sub(1)?)?;
    if !stored.octaves {
        let fits = (-half..half).contains(&integer);
        return fits.then_some((integer & (2 * half - 1)) as u64);
    }
    let magnitude = integer.unsigned_abs();
    let octave = i64::from(magnitude.trailing_zeros());
    let fits = magnitude.is_power_of_two() && octave < half;
    let sign = if integer < 0 { half } else { 0 };
    fits.then_some((octave | sign) as u64)
}

fn integer(stored: &Stored, code: u64) -> i64 {
    let half = 1u64 << (stored.bits - 1);
    let (below, is_upper) = (code & (half - 1), code & half != 0);
    if stored.octaves {
        let magnitude = 1i64 << below.min(62);
        return if is_upper { -magnitude } else { magnitude };
    }
    let offset = if is_upper { half as i64 } else { 0 };
    below as i64 - offset
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stored(bits: u32, octaves: bool) -> Stored {
        Stored {
            name: "w".into(),
            shape: vec![1],
            bits,
            octaves,
            exponent: 0,
            shift: 0,
        }
    }

    #[test]
    fn codes_come_back_at_every_bitwidth() {
        for bits in 2..=16 {
            let half = 1i64 << (bits - 1);
            let integers: Vec<i64> = (1 - half..half).step_by(bits as usize).collect();
            let packed = pack(&stored(bits, false), &integers).expect("fits");
            assert_eq!(packed.len(), (integers.len() * bits as usize).div_ceil(8));
            let back = unpack(&stored(bits, false), integers.len(), &packed);
            assert_eq!(back, Some(integers));
        }
        let powers = [1, -1, 4, -64, 128, -2];
        let packed = pack(&stored(4, true), &powers).expect("fits");
        assert_eq!(packed.len(), 3);
        assert_eq!(unpack(&stored(4, true), 6, &packed), Some(powers.to_vec()));
    }

    #[test]
    fn what_does_not_fit_is_no_code() {
        assert_eq!(pack(&stored(3, false), &[4]), None);
        assert_eq!(pack(&stored(3, true), &[3]), None);
        assert_eq!(pack(&stored(3, true), &[16]), None);
        assert_eq!(unpack(&stored(3, false), 3, &[0]), None);
    }
}
