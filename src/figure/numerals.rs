//! Numbers as plots write them.

/// `2ⁿ`.
pub(crate) fn power_of_two(exponent: f64) -> String {
    power(2, exponent)
}

/// A base with a whole exponent in superscript.
pub(crate) fn power(base: u32, exponent: f64) -> String {
    let superscript = |c: char| match c {
        '-' => '⁻',
        '0' => '⁰',
        '1' => '¹',
        '2' => '²',
        '3' => '³',
        c => char::from_u32(0x2070 + c as u32 - '0' as u32).unwrap_or(c),
    };
    let digits: String = format!("{exponent:.0}").chars().map(superscript).collect();
    format!("{base}{digits}")
}

/// A number as short as it can be read: thousands as k, millions as M.
pub fn number(v: f64, decimals: usize) -> String {
    let magnitude = v.abs();
    if magnitude >= 1e10 {
        format!("{v:.1e}")
    } else if magnitude >= 1e6 {
        trimmed(v / 1e6, 2) + "M"
    } else if magnitude >= 1e4 {
        trimmed(v / 1e3, 1) + "k"
    } else if magnitude > 0.0 && magnitude < 1e-3 {
        format!("{v:.0e}")
    } else {
        format!("{v:.*}", decimals.min(6))
    }
}

fn trimmed(v: f64, decimals: usize) -> String {
    let text = format!("{v:.decimals$}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}
