//! Ticks at numbers that people would choose.

use super::numerals::{number, power};
use super::scene::{Axis, Scale};

/// Positions and texts of about `wanted` ticks inside the axis's range.
pub fn ticks(axis: &Axis, wanted: usize) -> Vec<(f64, String)> {
    if let Some(given) = &axis.ticks {
        return given.clone();
    }
    let (low, high) = axis.range;
    let usable = low.is_finite() && high.is_finite() && low <= high && wanted > 0;
    if !usable {
        return Vec::new();
    }
    match axis.scale {
        Scale::Linear => linear(low, high, wanted),
        Scale::Log2 => {
            let powers = powers(low.log2(), high.log2(), wanted, |e| (e.exp2(), power(2, e)));
            or_between(powers, low, high, wanted)
        }
        Scale::Log10 => {
            let powers = powers(low.log10(), high.log10(), wanted, |e| {
                let v = 10f64.powf(e);
                let text = if (-3.0..4.0).contains(&e) {
                    number(v, (-e).max(0.0) as usize)
                } else {
                    power(10, e)
                };
                (v, text)
            });
            or_between(powers, low, high, wanted)
        }
    }
}

/// Powers where there are enough of them to read a scale off, else even numbers between them.
fn or_between(
    powers: Vec<(f64, String)>,
    low: f64,
    high: f64,
    wanted: usize,
) -> Vec<(f64, String)> {
    if powers.len() >= 2 || low >= high {
        return powers;
    }
    let even = linear(low, high, wanted.clamp(2, 4));
    if even.len() > powers.len() {
        even
    } else {
        powers
    }
}

/// The nearest of 1, 2, 5 times a power of ten at or above `v`.
fn nice(v: f64) -> f64 {
    let power = 10f64.powf(v.log10().floor());
    let factor = [1.0, 2.0, 5.0, 10.0]
        .into_iter()
        .find(|f| f * power >= v * (1.0 - 1e-9));
    factor.unwrap_or(10.0) * power
}

fn linear(low: f64, high: f64, wanted: usize) -> Vec<(f64, String)> {
    let span = high - low;
    if span <= 0.0 || !(span / wanted as f64).is_normal() {
        return vec![(low, number(low, 3))];
    }
    let coarse = nice(span / wanted as f64);
    // From one tick alone no scale can be read.
    let inside = |step: f64| (high / step).floor() - (low / step).ceil() >= 1.0;
    let steps = [coarse, nice(coarse * 0.4), nice(coarse * 0.2)];
    let step = steps.into_iter().find(|s| inside(*s)).unwrap_or(coarse);
    let first = (low / step).ceil();
    let count = ((high / step).floor() - first) as i64;
    let decimals = (-step.log10().floor()).max(0.0) as usize;
    // Multiples, not sums: no drift. Adding zero turns -0 into 0.
    let values = (0..=count.clamp(-1, 1000)).map(|i| (first + i as f64) * step + 0.0);
    let mut ticks: Vec<(f64, String)> = values.map(|v| (v, number(v, decimals))).collect();
    // Where a short text would be of another place, all are written out.
    if ticks
        .iter()
        .any(|(v, text)| (value(text) - v).abs() > step * 1e-3)
    {
        for (v, text) in &mut ticks {
            *text = format!("{v:.decimals$}");
        }
    }
    ticks
}

fn powers(
    low: f64,
    high: f64,
    wanted: usize,
    tick: impl Fn(f64) -> (f64, String),
) -> Vec<(f64, String)> {
    if !(low.is_finite() && high.is_finite()) {
        return Vec::new();
    }
    let stride = ((high - low) / wanted as f64).ceil().max(1.0);
    let first = (low / stride - 1e-9).ceil() * stride;
    let count = ((high - first + 1e-9) / stride).floor() as i64;
    (0..=count.clamp(-1, 1000))
        .map(|i| tick(first + i as f64 * stride))
        .collect()
}

/// What [`number`] wrote.
fn value(text: &str) -> f64 {
    let (digits, unit) = if let Some(digits) = text.strip_suffix('k') {
        (digits, 1e3)
    } else if let Some(digits) = text.strip_suffix('M') {
        (digits, 1e6)
    } else {
        (text, 1.0)
    };
    digits.parse().unwrap_or(f64::NAN) * unit
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn axis(scale: Scale, range: (f64, f64)) -> Axis {
        Axis {
            label: String::new(),
            scale,
            range,
            ticks: None,
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn ticks_lie_inside_ascend_and_are_about_as_many_as_wanted(
            low in -1e6..1e6f64, span in 1e-6..1e6f64, wanted in 2usize..12,
        ) {
            let high = low + span;
            let all = ticks(&axis(Scale::Linear, (low, high)), wanted);
            let slack = span * 1e-6;
            prop_assert!(all.iter().all(|(v, _)| *v >= low - slack && *v <= high + slack));
            prop_assert!(all.windows(2).all(|w| w[0].0 < w[1].0));
            prop_assert!(all.windows(2).all(|w| w[0].1 != w[1].1), "{all:?}");
            prop_assert!(all.len() >= 2 && all.len() <= 5.max(wanted + 1), "{all:?}");
        }

        #[test]
        fn no_range_panics(low in any::<f64>(), high in any::<f64>(), wanted in 0usize..20) {
            for scale in [Scale::Linear, Scale::Log10, Scale::Log2] {
                let all = ticks(&axis(scale, (low, high)), wanted);
                prop_assert!(all.len() <= 1001);
            }
        }
    }

    #[test]
    fn people_would_choose_these() {
        let texts = |scale, range, wanted| -> Vec<String> {
            ticks(&axis(scale, range), wanted)
                .into_iter()
                .map(|t| t.1)
                .collect()
        };
        assert_eq!(
            texts(Scale::Linear, (0.0, 1.0), 5),
            ["0.0", "0.2", "0.4", "0.6", "0.8", "1.0"]
        );
        assert_eq!(texts(Scale::Linear, (-3.0, 14.0), 4), ["0", "5", "10"]);
        assert_eq!(
            texts(Scale::Linear, (30e3, 353e3), 2),
            ["100k", "200k", "300k"]
        );
        assert_eq!(
            texts(Scale::Log2, (0.0625, 1.0), 5),
            ["2⁻⁴", "2⁻³", "2⁻²", "2⁻¹", "2⁰"]
        );
        assert_eq!(
            texts(Scale::Linear, (0.0, 60_000.0), 3),
            ["0", "20k", "40k", "60k"]
        );
        assert_eq!(
            texts(Scale::Linear, (375_734.0, 375_750.0), 3),
            ["375740", "375750"]
        );
        assert_eq!(
            texts(Scale::Linear, (1e-4, 2e-4), 3),
            ["0.00010", "0.00015", "0.00020"]
        );
    }
}
