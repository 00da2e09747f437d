//! Properties that hold for every quantizer at every parameter inside its clamps.

use proptest::prelude::*;

use super::*;

fn quantizer(p: Parametrization, signed: bool, rules: Rules) -> Quantizer {
    Quantizer::learned(p, signed, rules)
}

fn any_rules() -> impl Strategy<Value = Rules> {
    prop_oneof![Just(Rules::Paper), Just(Rules::PublishedCode)]
}

prop_compose! {
    /// A quantizer with two parameters anywhere inside their clamps (log-uniform).
    fn any_quantizer()(
        p in prop::sample::select(&Parametrization::ALL[..]),
        signed in any::<bool>(),
        rules in any_rules(),
        u in 0.0..=1.0f64,
        v in 0.0..=1.0f64,
    ) -> (Quantizer, [f64; 2]) {
        let q = quantizer(p, signed, rules);
        let names = p.parameter_names();
        let at = |name: &str, t: f64| {
            let bound = q.bounds.of(name);
            let (low, high) = (*bound.start(), *bound.end());
            if name == "b" { low + t * (high - low) } else { low * (high / low).powf(t) }
        };
        let mut parameters = [at(names[0], u), at(names[1], v)];
        if matches!(p, Parametrization::U3 | Parametrization::P3) {
            parameters = q.project(parameters);
        }
        (q, parameters)
    }
}

/// Inputs that reach every branch: far outside, on bounds, tiny, zero.
fn any_input() -> impl Strategy<Value = f32> {
    prop_oneof![
        4 => -4.0..4.0f32,
        1 => -300.0..300.0f32,
        1 => prop::sample::select(&[0.0f32, -0.0, 0.5, 1.0, -1.0, 2.0, 1e-30, -1e-30, 1e30, f32::MAX, f32::MIN][..]),
        1 => any::<f32>().prop_filter("finite", |x| x.is_finite()),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    /// Shown bits follow from shown numbers: what is used is the grid's, and for learned ranges the
    /// paper's formula over them gives the grid's bitwidth.
    #[test]
    fn what_is_used_follows_from_what_is_recorded((q, parameters) in any_quantizer()) {
        let grid = q.grid(parameters);
        let (d, q_max) = q.used_step_and_range(q.raw_step_and_range(parameters));
        let close = |a: f64, b: f32| (a / f64::from(b) - 1.0).abs() < 1e-6;
        prop_assert!(close(d, grid.step), "{d} {}", grid.step);
        prop_assert!(close(q_max, grid.q_max), "{q_max} {}", grid.q_max);
        if q.parametrization == Parametrization::U3 && q.rules == Rules::Paper {
            let bits = (q_max / d + 1.0).log2().ceil().max(1.0) + f64::from(u8::from(q.signed));
            prop_assert_eq!(bits, grid.bits);
        }
    }

    #[test]
    fn quantizing_twice_changes_nothing((q, p) in any_quantizer(), x in any_input()) {
        let grid = q.grid(p);
        let once = grid.forward(x);
        prop_assert!(once.is_finite());
        prop_assert_eq!(grid.forward(once), once, "grid {:?}", grid);
    }

    #[test]
    fn signed_is_odd((q, p) in any_quantizer(), x in any_input()) {
        let grid = q.grid(p);
        if q.signed && x != 0.0 {
            prop_assert_eq!(grid.forward(-x), -grid.forward(x));
        }
        if q.signed && grid.family == Family::PowerOfTwo {
            prop_assert_eq!(grid.forward(0.0), grid.step);
        }
        if !q.signed {
            prop_assert!(grid.forward(x) >= 0.0);
        }
    }

    #[test]
    fn monotone((q, p) in any_quantizer(), x in any_input(), y in any_input()) {
        let grid = q.grid(p);
        let (low, high) = if x <= y { (x, y) } else { (y, x) };
        prop_assert!(grid.forward(low) <= grid.forward(high));
    }

    #[test]
    fn rounding_error_is_at_most_half_a_step((q, p) in any_quantizer(), x in any_input()) {
        let grid = q.grid(p);
        let inside = x.abs() <= grid.q_max && (q.signed || x >= 0.0);
        if grid.family == Family::Uniform && inside {
            let error = (f64::from(grid.forward(x)) - f64::from(x)).abs();
            prop_assert!(error <= f64::from(grid.step) / 2.0, "error {} step {}", error, grid.step);
        }
    }

    #[test]
    fn distinct_values_fit_the_bitwidth((q, p) in any_quantizer()) {
        let grid = q.grid(p);
        let allowed = grid.bits.exp2() as u64;
        let leaks = q.rules == Rules::PublishedCode && q.parametrization == Parametrization::U2;
        if !leaks {
            prop_assert!(grid.level_count() <= allowed, "{} levels, {} bits", grid.level_count(), grid.bits);
        }
        if let Some(levels) = grid.levels(70_000) {
            prop_assert_eq!(levels.len() as u64, grid.level_count());
            for level in levels {
                prop_assert_eq!(grid.forward(level), level);
            }
        }
    }

    #[test]
    fn every_gradient_is_finite((q, p) in any_quantizer(), x in any_input(), g in -100.0..100.0f32) {
        let grid = q.grid(p);
        let mut sums = Sums::default();
        let gx = grid.backward(x, g, &mut sums);
        prop_assert!(gx.is_finite());
        for gradient in q.parameter_gradients(p, sums) {
            prop_assert!(gradient.is_finite());
        }
        for gradient in q.bitwidth_gradients(p) {
            prop_assert!(gradient.is_finite());
        }
    }

    #[test]
    fn u3_gradients_are_bounded(x in any_input(), u in 0.01..1.0f64, r in 1.5..200.0f64) {
        // The paper's point: |dQ/dd| <= 1/2 and |dQ/dq_max| <= 1 whatever the bitwidth.
        let q = quantizer(Parametrization::U3, true, Rules::Paper);
        let p = q.project([u, (u * r).min(127.0)]);
        let mut sums = Sums::default();
        q.grid(p).backward(x, 1.0, &mut sums);
        let [gd, gq] = q.parameter_gradients(p, sums);
        prop_assert!(gd.abs() <= 0.5 && gq.abs() <= 1.0);
    }

    #[test]
    fn projection_is_idempotent_and_bounds_the_bitwidth((q, p) in any_quantizer()) {
        let once = q.project(p);
        prop_assert_eq!(q.project(once), once);
        let bits = q.grid(once).bits;
        if q.rules == Rules::Paper {
            prop_assert!((*q.bounds.b.start()..=*q.bounds.b.end()).contains(&bits), "{bits} bits at {once:?}");
        }
    }

    /// Where Q is smooth in a parameter the gradient is the finite difference: outside the range
    /// Q follows U3's q_max and P's q_max (up to rounding to the grid, so whole steps are taken).
    #[test]
    fn range_gradient_matches_a_whole_step(k in 1..60i32, e in -6..0i32) {
        let d = f64::from(e).exp2();
        let q = quantizer(Parametrization::U3, true, Rules::Paper);
        let range = f64::from(k) * d;
        let (x, h) = (1e3f32, d);
        let difference = (f64::from(q.grid([d, range + h]).forward(x)) - f64::from(q.grid([d, range]).forward(x))) / h;
        let mut sums = Sums::default();
        q.grid([d, range]).backward(x, 1.0, &mut sums);
        prop_assert_eq!(q.parameter_gradients([d, range], sums)[1], difference);
    }
}

/// What a clipped element becomes without hardware rounding: smooth in both parameters. Above the
/// range for every parametrization, below the least magnitude for powers of two.
fn clipped_value(p: Parametrization, signed: bool, [first, second]: [f64; 2], above: bool) -> f64 {
    let codes = |b: f64| (if signed { b - 1.0 } else { b }).exp2();
    let octaves = |b: f64| ((b - 1.0).exp2() - 1.0).exp2();
    match (p, above) {
        (Parametrization::U1, _) => (codes(first) - 1.0) * second,
        (Parametrization::P1, true) => second * octaves(first),
        (Parametrization::P1, false) => second,
        (Parametrization::P2, false) => second / octaves(first),
        (Parametrization::P3, false) => first,
        (
            Parametrization::U2 | Parametrization::U3 | Parametrization::P2 | Parametrization::P3,
            _,
        ) => second,
    }
}

/// Bitwidth before the ceiling.
fn smooth_bitwidth(p: Parametrization, signed: bool, [first, second]: [f64; 2]) -> f64 {
    match p {
        Parametrization::U3 => (second / first + 1.0).log2() + f64::from(u8::from(signed)),
        Parametrization::P3 => ((second / first).log2() + 1.0).log2() + 1.0,
        _ => first,
    }
}

/// Central difference along parameter `i`.
fn difference(f: impl Fn([f64; 2]) -> f64, at: [f64; 2], i: usize) -> f64 {
    let h = 1e-5 * at[i];
    let moved = |by: f64| {
        let mut to = at;
        to[i] += by;
        f(to)
    };
    (moved(h) - moved(-h)) / (2.0 * h)
}

/// Where hardware rounding changes nothing (whole b, powers of two) straight-through gradients of
/// clipped elements and of the bitwidth are the derivatives of smooth functions.
#[test]
fn gradients_are_finite_differences_where_the_function_is_smooth() {
    for p in Parametrization::ALL {
        for (signed, rules) in [true, false]
            .into_iter()
            .flat_map(|s| [Rules::Paper, Rules::PublishedCode].map(|r| (s, r)))
        {
            let q = quantizer(p, signed, rules);
            let at = match p {
                Parametrization::U1 => [4.0, 0.125],
                // q_max = n d with d = 1/8.
                Parametrization::U2 => [4.0, if signed { 0.875 } else { 1.875 }],
                Parametrization::U3 => [0.125, 2.0],
                Parametrization::P1 => [3.0, 0.125],
                Parametrization::P2 => [3.0, 2.0],
                Parametrization::P3 => [0.125, 2.0],
            };
            for (x, above) in [(1e3f32, true), (0.1, false)] {
                let rounded = !above && p.family() == Family::Uniform;
                let pruned = !above && !signed && 0.1 < q.grid(at).zero_threshold();
                if rounded || pruned {
                    continue;
                }
                let mut sums = Sums::default();
                q.grid(at).backward(x, 1.0, &mut sums);
                let ours = q.parameter_gradients(at, sums);
                for (i, ours) in ours.into_iter().enumerate() {
                    let expected = difference(|v| clipped_value(p, signed, v, above), at, i);
                    assert!(
                        (ours - expected).abs() < 1e-6 * (1.0 + expected.abs()),
                        "{p} signed {signed} {rules:?} x {x}: {} and {expected}",
                        ours
                    );
                }
            }
            let ours = q.bitwidth_gradients(at);
            for (i, ours) in ours.into_iter().enumerate() {
                let expected = difference(|v| smooth_bitwidth(p, signed, v), at, i);
                assert!(
                    (ours - expected).abs() < 1e-6 * (1.0 + expected.abs()),
                    "bitwidth of {p}: {} and {expected}",
                    ours
                );
            }
        }
    }
}

/// Inside the range rounding is passed straight through, as the paper's equations (5) say:
/// dQ/dd = (Q(x) - x) / d, and what follows from it by the chain rule for U1 and U2.
#[test]
fn gradients_inside_the_range_follow_the_equations() {
    let (x, d) = (0.2f32, 0.125);
    let error = (0.25 - 0.2f64) / d;
    for (p, at, expected) in [
        (Parametrization::U1, [4.0, d], [0.0, error]),
        (
            Parametrization::U2,
            [4.0, 7.0 * d],
            // d = q_max / n, n = 2^(b-1) - 1.
            [-error * d / 7.0 * 8.0 * std::f64::consts::LN_2, error / 7.0],
        ),
        (Parametrization::U3, [d, 7.0 * d], [error, 0.0]),
    ] {
        let q = quantizer(p, true, Rules::Paper);
        let mut sums = Sums::default();
        assert_eq!(q.grid(at).backward(x, 1.0, &mut sums), 1.0);
        let ours = q.parameter_gradients(at, sums);
        for i in 0..2 {
            assert!(
                (ours[i] - expected[i]).abs() < 1e-6,
                "{p}: {ours:?} and {expected:?}"
            );
        }
    }
}

#[test]
fn published_u2_leaks_levels_and_the_paper_does_not() {
    // b = 4 allows 7 positive levels; a d rounded down under a raw q_max leaves 10.
    let parameters = [4.0, 1.2];
    let leaky = quantizer(Parametrization::U2, true, Rules::PublishedCode).grid(parameters);
    assert_eq!(leaky.bits, 4.0);
    assert_eq!(leaky.level_count(), 2 * 10 + 1);
    let tight = quantizer(Parametrization::U2, true, Rules::Paper).grid(parameters);
    assert_eq!(tight.level_count(), 15);
}

#[test]
fn inferred_bitwidth_at_and_just_above_a_power_of_two() {
    for k in 1..7 {
        let d = 0.25;
        let ratio = f64::from(k).exp2() - 1.0;
        let bits = |rules, signed, q_max| {
            quantizer(Parametrization::U3, signed, rules)
                .grid([d, q_max])
                .bits
        };
        for rules in [Rules::Paper, Rules::PublishedCode] {
            assert_eq!(bits(rules, true, ratio * d), f64::from(k) + 1.0);
            assert_eq!(bits(rules, false, ratio * d), f64::from(k));
        }
        // The paper's ceiling steps at once; the published code infers b from the level the range
        // rounds to, so it steps half a step later.
        let above = ratio * d * (1.0 + 1e-6);
        assert_eq!(bits(Rules::Paper, true, above), f64::from(k) + 2.0);
        assert_eq!(bits(Rules::PublishedCode, true, above), f64::from(k) + 1.0);
        assert_eq!(
            bits(Rules::PublishedCode, true, (ratio + 0.5) * d),
            f64::from(k) + 2.0
        );
    }
}

#[test]
fn memory_pulls_on_no_bitwidth_at_its_least() {
    for p in Parametrization::ALL {
        for signed in [true, false] {
            for rules in [Rules::Paper, Rules::PublishedCode] {
                let q = quantizer(p, signed, rules);
                let at = |bits: f64| initial_parameters(&q, 0.7, InitialBits(bits));
                let least = q.least_bits();
                assert_eq!(q.grid(at(least)).bits, least, "{q:?}");
                assert_eq!(q.bitwidth_gradients(at(least)), [0.0; 2], "{q:?}");
                assert_ne!(q.bitwidth_gradients(at(least + 2.0)), [0.0; 2], "{q:?}");
            }
        }
    }
}

#[test]
fn the_published_code_counts_at_least_the_smallest_bitwidth() {
    // One level of either sign would do with one bit; the memory counts two.
    let at = [0.25, 0.25];
    let q = quantizer(Parametrization::P3, true, Rules::PublishedCode);
    assert_eq!(q.grid(at).bits, 2.0);
    assert_eq!(q.bitwidth_gradients(at), [0.0; 2]);
}

#[test]
fn rounding_is_half_away_from_zero() {
    let grid = quantizer(Parametrization::U3, true, Rules::Paper).grid([1.0, 100.0]);
    for (x, y) in [(2.5, 3.0), (-2.5, -3.0), (0.499_999_97, 0.0), (-0.5, -1.0)] {
        assert_eq!(grid.forward(x), y);
    }
}

#[test]
fn power_of_two_gradient_at_zero_is_zero() {
    for p in [
        Parametrization::P1,
        Parametrization::P2,
        Parametrization::P3,
    ] {
        for signed in [true, false] {
            for rules in [Rules::Paper, Rules::PublishedCode] {
                let q = quantizer(p, signed, rules);
                let parameters = if p == Parametrization::P3 {
                    [0.125, 1.0]
                } else {
                    [3.0, 1.0]
                };
                let gx = q.grid(parameters).backward(0.0, 1.0, &mut Sums::default());
                assert_eq!(gx, 0.0);
            }
        }
    }
}

#[test]
fn a_bitwidth_is_one_that_the_hardware_has() {
    for p in Parametrization::ALL {
        for signed in [true, false] {
            let quantizer = Quantizer {
                allowed_bits: vec![2.0, 4.0, 8.0],
                ..Quantizer::learned(p, signed, Rules::Paper)
            };
            let plain = Quantizer::learned(p, signed, Rules::Paper);
            let most = if p.family() == Family::PowerOfTwo {
                4
            } else {
                8
            };
            for bits in 2..=most {
                let parameters = initial_parameters(&plain, 0.9, InitialBits(f64::from(bits)));
                let (used, free) = (quantizer.grid(parameters), plain.grid(parameters));
                let next = [2.0, 4.0, 8.0].into_iter().find(|b| *b >= free.bits);
                assert_eq!(Some(used.bits), next, "{p} {bits}");
                // More levels where the bitwidth is a parameter, the same where it is inferred.
                if p.has_bitwidth_parameter() {
                    assert!(used.level_count() >= free.level_count(), "{p} {bits}");
                } else {
                    assert_eq!(used.levels(999), free.levels(999), "{p} {bits}");
                }
                let ways = quantizer.one_bit_less(parameters);
                // Several bits at once: the first way still spans the range.
                if p.family() == Family::Uniform
                    && let Some(first) = ways.first()
                {
                    let span = quantizer.grid(*first).q_max;
                    assert!(span > 0.5 * used.q_max, "{p} {bits}: {span} of {used:?}");
                }
                for less in ways {
                    let less = quantizer.grid(less).bits;
                    assert!(
                        [2.0, 4.0].contains(&less) && less < used.bits,
                        "{p} {bits}: {less}"
                    );
                }
            }
        }
    }
}

/// A range that grows, or falls, under a step that is at its clamp, and more levels than the hardware has
/// bits for: the bitwidth stays within its bounds.
#[test]
fn bounds_of_the_bitwidth_hold_at_the_clamps_of_the_step() {
    let of = |p, d: [f64; 2], b: [f64; 2], allowed: &[f64]| {
        let mut q = Quantizer::learned(p, false, Rules::Paper);
        (q.bounds.d, q.bounds.b) = (d[0]..=d[1], b[0]..=b[1]);
        q.bounds.q_min = q.bounds.d.clone();
        q.allowed_bits = allowed.to_vec();
        q
    };
    let narrow = of(Parametrization::U3, [0.0039, 0.125], [1.0, 4.0], &[]);
    let wide = narrow.project([0.1, 9.0]);
    assert_eq!((wide[0], narrow.grid(wide).bits), (0.125, 4.0));
    let coarse = of(Parametrization::U3, [0.25, 1.0], [3.0, 8.0], &[]);
    let short = coarse.project([0.3, 0.5]);
    assert_eq!((short[0], coarse.grid(short).bits), (0.25, 3.0));
    let ratios = of(Parametrization::P3, [0.01, 0.125], [1.0, 3.0], &[]);
    let far = ratios.project([0.1, 200.0]);
    assert_eq!((far[0], ratios.grid(far).bits), (0.125, 3.0));
    let hardware = of(Parametrization::U3, [0.0039, 1.0], [2.0, 3.0], &[2.0, 3.0]);
    let grid = hardware.grid(hardware.project([0.004, 0.5]));
    assert_eq!((grid.bits, grid.level_count() <= 8), (3.0, true));
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever an update did, the bitwidth is within its bounds after a projection, and a second one
    /// changes nothing.
    #[test]
    fn an_inferred_bitwidth_is_brought_within_its_bounds(
        p in prop::sample::select(&[Parametrization::U3, Parametrization::P3][..]),
        signed in any::<bool>(),
        low in 2..=6u32,
        more in 0..=3u32,
        u in -0.2..=1.2f64,
        v in -0.2..=1.2f64,
    ) {
        let mut q = quantizer(p, signed, Rules::Paper);
        q.bounds.b = f64::from(low)..=f64::from(low + more);
        let [least, most] = q.clamped_bits().expect("inferred");
        prop_assume!(least <= *q.bounds.b.end() && *q.bounds.b.start() <= most);
        let names = p.parameter_names();
        let at = [(names[0], u), (names[1], v)].map(|(name, t)| {
            let bound = q.bounds.of(name);
            bound.start() * (bound.end() / bound.start()).powf(t)
        });
        let once = q.project(at);
        let grid = q.grid(once);
        prop_assert!(q.bounds.b.contains(&grid.bits), "{q:?} {at:?} {once:?} {grid:?}");
        prop_assert_eq!(q.grid(q.project(once)), grid);
    }
}

#[test]
fn clamps_of_step_and_range_bound_the_bits_that_are_inferred() {
    let mut q = Quantizer::learned(Parametrization::U3, true, Rules::Paper);
    assert_eq!(q.clamped_bits().map(|b| b[0]), Some(2.0));
    (q.bounds.d, q.bounds.q_max) = (0.0001..=0.001, 4.0..=8.0);
    assert_eq!(q.clamped_bits(), Some([14.0, 18.0]));
    // Steps as coarse as the range leave one level, wherever the shortest range lies.
    (q.bounds.d, q.bounds.q_max) = (0.0001..=1.0, 0.01..=127.0);
    assert_eq!(q.clamped_bits().map(|b| b[0]), Some(2.0));
    q.bounds.b = 4.0..=8.0;
    assert_eq!(q.least_reachable_bits(), 4.0);
    let u1 = Quantizer::learned(Parametrization::U1, true, Rules::Paper);
    assert_eq!(u1.clamped_bits(), None);
}
