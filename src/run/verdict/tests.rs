use super::*;

/// A quantizer that works as it should: bits move now and then, some elements are clipped.
fn healthy(step: u64) -> LayerRecord {
    let wave = (step as f32 * 0.01).sin();
    LayerRecord {
        d: 0.1 + 0.01 * wave,
        q_max: 0.9 + 0.1 * wave,
        bitwidth: if (step / 400).is_multiple_of(2) {
            4.0
        } else {
            5.0
        },
        gradients: [1e-3, -2e-3],
        clipped: 0.01,
        zeros: 0.2,
        grad_norm: 0.1,
        weight_norm: 3.0,
    }
}

fn started(p: Parametrization) -> Event {
    Event::Started {
        name: "r".into(),
        device: "flex".into(),
        experiment: "[weights]\nquantizer = \"u3\"\n".into(),
        layers: vec![LayerInfo {
            name: "conv".into(),
            role: Role::Weight,
            kind: crate::graph::LayerKind::Convolution,
            elements: 100,
            parametrization: p,
            clamps: [[2f64.powi(-8), 1.0], [2f64.powi(-8), 127.0]],
            quantizer: None,
        }],
        budgets: Vec::new(),
        steps_per_epoch: 100,
        total_steps: 10_000,
        step: 0,
        parent: None,
    }
}

fn step(number: u64, record: LayerRecord, penalty: f64) -> Event {
    Event::Step(Box::new(StepRecord {
        step: number,
        epoch: 0.0,
        seconds: 0.0,
        loss: 1.0 + penalty,
        cross_entropy: 1.0,
        weight_penalty: 0.0,
        activation_penalty: 0.0,
        pulls: [0.5, 0.1],
        train_error: 0.5,
        lr: 0.1,
        usage: Default::default(),
        budget_met: false,
        samples_per_s: 1.0,
        times: Default::default(),
        layers: Some(vec![record]),
    }))
}

/// Kinds found in a run of 3000 such records.
fn found(record: impl Fn(u64) -> LayerRecord) -> Vec<Kind> {
    let mut verdicts = Verdicts::default();
    verdicts.push(&started(Parametrization::U3));
    for number in 1..=3000 {
        verdicts.push(&step(number, record(number), 0.0));
    }
    let mut kinds: Vec<Kind> = verdicts.all().iter().map(|v| v.kind).collect();
    kinds.dedup();
    kinds
}

#[test]
fn a_resumed_run_keeps_its_verdicts() {
    let experiment = resolve_text("e.toml", "[weights]\nquantizer = \"u3\"\n").expect("valid");
    let quantizer = experiment.weights.expect("planned").quantizer;
    let mut verdicts = Verdicts::default();
    verdicts.push(&started(Parametrization::U3));
    verdicts.push(&Event::Quantizers {
        step: 0,
        quantizers: vec![quantizer],
    });
    for number in 1..=200 {
        let much = LayerRecord {
            clipped: 0.5,
            ..healthy(number)
        };
        verdicts.push(&step(number, much, 0.0));
    }
    let before = verdicts.all().to_vec();
    assert_eq!(before.len(), 1, "{before:?}");
    verdicts.push(&started(Parametrization::U3));
    assert_eq!(verdicts.all(), before);
}

#[test]
fn a_healthy_run_has_no_verdict() {
    assert_eq!(found(healthy), []);
}

#[test]
fn a_bitwidth_that_never_moves_is_frozen_and_one_that_moves_is_not() {
    let still = |s| LayerRecord {
        bitwidth: 4.0,
        ..healthy(s)
    };
    assert_eq!(found(still), [Kind::Frozen]);
    let once = |s| LayerRecord {
        bitwidth: if s < 1500 { 4.0 } else { 5.0 },
        ..healthy(s)
    };
    assert_eq!(found(once), []);
}

#[test]
fn a_pinned_parameter_is_at_its_clamp_and_a_passing_one_is_not() {
    let pinned = |s| LayerRecord {
        d: 2f32.powi(-8),
        ..healthy(s)
    };
    assert_eq!(found(pinned), [Kind::AtClamp]);
    let passing = |s: u64| LayerRecord {
        d: if s.is_multiple_of(50) { 1.0 } else { 0.1 },
        ..healthy(s)
    };
    assert_eq!(found(passing), []);
}

#[test]
fn a_dead_layer_is_one_verdict_with_its_own_advice() {
    // As 18 of 20 layers of a run ended: both parameters at their lower clamps.
    let clipped = |s| LayerRecord {
        d: 2f32.powi(-8),
        q_max: 2f32.powi(-8),
        bitwidth: 2.0,
        clipped: 1.0,
        gradients: [0.0, 0.0],
        ..healthy(s)
    };
    assert_eq!(found(clipped), [Kind::Dead, Kind::Frozen]);
    let zero = |s| LayerRecord {
        zeros: 1.0,
        ..healthy(s)
    };
    assert_eq!(found(zero), [Kind::Dead]);
    assert!(Kind::Dead.advice().contains("reinitialise"));
}

#[test]
fn much_clipping_is_saturation_and_a_burst_is_not() {
    let much = |s| LayerRecord {
        clipped: 0.5,
        ..healthy(s)
    };
    assert_eq!(found(much), [Kind::Saturated]);
    let burst = |s| LayerRecord {
        clipped: if s % 100 < 10 { 0.5 } else { 0.01 },
        ..healthy(s)
    };
    assert_eq!(found(burst), []);
}

#[test]
fn a_range_that_nothing_reaches_is_told_and_one_reached_at_times_is_not() {
    let never = |s| LayerRecord {
        clipped: 0.0,
        ..healthy(s)
    };
    assert_eq!(found(never), [Kind::RangeUnreached]);
    let times = |s: u64| LayerRecord {
        clipped: if s.is_multiple_of(300) { 0.001 } else { 0.0 },
        ..healthy(s)
    };
    assert_eq!(found(times), []);
}

#[test]
fn weights_all_on_zero_are_told_and_sparse_ones_are_not() {
    let all = |s| LayerRecord {
        zeros: 1.0,
        ..healthy(s)
    };
    assert_eq!(found(all), [Kind::Dead]);
    let sparse = |s| LayerRecord {
        zeros: 0.9,
        ..healthy(s)
    };
    assert_eq!(found(sparse), []);
}

#[test]
fn a_bitwidth_that_goes_up_and_down_oscillates_and_one_that_climbs_does_not() {
    let swing = |s: u64| LayerRecord {
        bitwidth: if (s / 10).is_multiple_of(2) { 4.0 } else { 5.0 },
        ..healthy(s)
    };
    assert_eq!(found(swing), [Kind::Oscillating]);
    let climb = |s| LayerRecord {
        bitwidth: 2.0 + (s / 600) as f32,
        ..healthy(s)
    };
    assert_eq!(found(climb), []);
}

#[test]
fn gradients_of_nothing_vanish_and_one_of_two_is_enough() {
    let none = |s| LayerRecord {
        gradients: [0.0, 1e-13],
        ..healthy(s)
    };
    assert_eq!(found(none), [Kind::Vanishing]);
    let one = |s| LayerRecord {
        gradients: [0.0, 1e-3],
        ..healthy(s)
    };
    assert_eq!(found(one), []);
}

#[test]
fn gradients_beyond_their_parameter_explode_and_large_ones_do_not() {
    let huge = |s| LayerRecord {
        gradients: [50.0, 0.1],
        ..healthy(s)
    };
    assert_eq!(found(huge), [Kind::Exploding]);
    let large = |s| LayerRecord {
        gradients: [0.5, 1.0],
        ..healthy(s)
    };
    assert_eq!(found(large), []);
}

#[test]
fn a_penalty_many_times_the_cross_entropy_drowns_it_and_a_strong_one_does_not() {
    let kinds = |penalty: f64| {
        let mut verdicts = Verdicts::default();
        verdicts.push(&started(Parametrization::U3));
        (1..200).for_each(|n| _ = verdicts.push(&step(n, healthy(n), penalty)));
        verdicts.all().iter().map(|v| v.kind).collect::<Vec<_>>()
    };
    assert_eq!(kinds(50.0), [Kind::PenaltyDrowns]);
    assert_eq!(kinds(5.0), []);
}

#[test]
fn a_non_finite_value_names_its_layer_and_ends_with_the_pause() {
    let mut verdicts = Verdicts::default();
    verdicts.push(&started(Parametrization::U3));
    let found = verdicts.push(&Event::NonFinite {
        step: 7,
        layer: Some("conv".into()),
    });
    assert_eq!(
        (found[0].kind, found[0].layer, found[0].since),
        (Kind::NonFinite, Some(0), 7)
    );
    assert!(verdicts.push(&Event::Paused { step: 7 }).is_empty());
    assert_eq!(verdicts.standing().len(), 1);
    verdicts.push(&Event::Resumed { step: 7 });
    assert!(verdicts.standing().is_empty());
}

#[test]
fn a_verdict_ends_when_its_condition_does() {
    let mut verdicts = Verdicts::default();
    verdicts.push(&started(Parametrization::U3));
    for number in 1..=200 {
        let clipped = if number <= 100 { 0.5 } else { 0.01 };
        verdicts.push(&step(
            number,
            LayerRecord {
                clipped,
                ..healthy(number)
            },
            0.0,
        ));
    }
    let all = verdicts.all();
    assert_eq!((all.len(), all[0].since), (1, 1));
    assert!(all[0].until.is_some_and(|u| (101..150).contains(&u)));
    assert!(verdicts.standing().is_empty());
}

#[test]
fn what_is_not_learned_is_not_blamed() {
    let mut verdicts = Verdicts::default();
    let Event::Started { layers, .. } = started(Parametrization::U3) else {
        unreachable!()
    };
    let mut event = started(Parametrization::U3);
    if let Event::Started { experiment, .. } = &mut event {
        *experiment = "[weights]\nquantizer = \"u3\"\nlearn = \"none\"\n".into();
    }
    verdicts.push(&event);
    for number in 1..=3000 {
        let fixed = LayerRecord {
            d: 1.0,
            bitwidth: 4.0,
            gradients: [0.0, 0.0],
            ..healthy(number)
        };
        verdicts.push(&step(number, fixed, 0.0));
    }
    assert_eq!(layers.len(), 1);
    assert!(verdicts.all().is_empty(), "{:?}", verdicts.all());
}

#[test]
fn what_comes_again_is_one_entry_with_a_count() {
    let mut verdicts = Verdicts::default();
    verdicts.push(&started(Parametrization::U3));
    for number in 1..=400 {
        let clipped = if number / 100 % 2 == 0 { 0.5 } else { 0.01 };
        let record = LayerRecord {
            clipped,
            ..healthy(number)
        };
        verdicts.push(&step(number, record, 0.0));
    }
    assert_eq!(verdicts.all().len(), 2);
    let grouped = verdicts.grouped();
    assert_eq!(grouped.len(), 1);
    assert_eq!((grouped[0].0.kind, grouped[0].1), (Kind::Saturated, 2));
    // What the table of layers shows at a step is what held there.
    assert_eq!(verdicts.of_layer(0, 60), [Kind::Saturated]);
    assert!(verdicts.of_layer(0, 190).is_empty() && verdicts.of_layer(1, 60).is_empty());
}
