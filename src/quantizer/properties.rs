//! Properties that hold for every quantizer at every parameter inside its clamps.

use proptest::prelude::*;

use super::*;

fn quantizer(p: Parametrization, signed: bool, rules: Rules) -> Quantizer {
    Quantizer {
        parametrization: p,
        signed,
        rules,
        learn: Learn::Both,
        bounds: if signed {
            Bounds::weights()
        } else {
            Bounds::activations()
        },
    }
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
