//! The quantizers against values computed by the published code.

use bitscope::quantizer::{Bounds, Learn, Parametrization, Quantizer, Rules, Sums};
use serde_json::Value;

fn number(v: &Value) -> f64 {
    v.as_f64().expect("a number")
}

fn close(ours: f64, theirs: f64) -> bool {
    let difference = (ours - theirs).abs();
    difference <= 1e-6 || difference <= 1e-5 * theirs.abs()
}

#[test]
fn all_71_cases_agree() {
    let text = include_str!("data/reference/quantizer-golden.json");
    let golden: Value = serde_json::from_str(text).expect("valid JSON");
    let cases = golden["cases"].as_array().expect("an array");
    assert_eq!(cases.len(), 71);
    for (index, case) in cases.iter().enumerate() {
        check(index, case);
    }
}

fn check(index: usize, case: &Value) {
    let parametrization = match case["quantizer"].as_str().expect("a name") {
        "uniform_d_b" => Parametrization::U1,
        "uniform_b_xmax" => Parametrization::U2,
        "uniform_d_xmax" => Parametrization::U3,
        "pow2_b_xmin" => Parametrization::P1,
        "pow2_b_xmax" => Parametrization::P2,
        "pow2_xmin_xmax" => Parametrization::P3,
        other => panic!("unknown quantizer {other}"),
    };
    let signed = case["signed"].as_bool().expect("a flag");
    let mut bounds = if signed {
        Bounds::weights()
    } else {
        Bounds::activations()
    };
    for (name, range) in case["bounds"].as_object().expect("bounds") {
        let range = number(&range[0])..=number(&range[1]);
        match name.as_str() {
            "d" => bounds.d = range,
            "n" => bounds.b = range,
            "xmin" => bounds.q_min = range,
            _ => bounds.q_max = range,
        }
    }
    let theirs = |ours: &'static str| match ours {
        "b" => "n",
        "q_min" => "xmin",
        "q_max" => "xmax",
        other => other,
    };
    let names = parametrization
        .parameter_names()
        .map(|n| theirs(n).to_owned());
    let parameters = [0, 1].map(|i| number(&case["params"][&names[i]]));
    let quantizer = Quantizer {
        parametrization,
        signed,
        rules: Rules::PublishedCode,
        learn: Learn::Both,
        bounds,
        allowed_bits: Vec::new(),
    };
    let grid = quantizer.grid(parameters);
    let mut sums = Sums::default();
    let x = case["x"].as_array().expect("x");
    for (i, x) in x.iter().enumerate() {
        let (x, g) = (number(x) as f32, number(&case["grad_y"][i]) as f32);
        let (y, gx) = (grid.forward(x), grid.backward(x, g, &mut sums));
        let expected = number(&case["y"][i]);
        assert!(
            close(y.into(), expected),
            "case {index} {parametrization}: Q({x}) = {y}, expected {expected}"
        );
        // The published power-of-two gradient is NaN (null) at 0; here it is 0.
        let expected = case["grad_x"][i].as_f64().unwrap_or(0.0);
        assert!(
            close(gx.into(), expected),
            "case {index} {parametrization}: dQ({x}) = {gx}, expected {expected}"
        );
    }
    let gradients = quantizer.parameter_gradients(parameters, sums);
    for (name, gradient) in names.iter().zip(gradients) {
        let expected = number(&case["grad_params"][name]);
        assert!(
            close(gradient, expected),
            "case {index} {parametrization} {name}: {gradient}, expected {expected}"
        );
    }
}
