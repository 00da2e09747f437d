//! LibTorch against Flex: the same operations, the same training.

#![cfg(feature = "libtorch")]

mod common;

use bitscope::device::{burn_device, parse};
use bitscope::experiment::load_embedded;
use bitscope::kernels::{Geometry, Input, convolution};
use bitscope::training::Trainer;
use burn::tensor::{Device, Tensor, TensorData};
use common::SMALL;

fn device(name: &str) -> Device {
    burn_device(parse(name).expect("compiled in and there"))
}

fn wave(count: usize, seed: f32) -> Vec<f32> {
    (0..count).map(|i| (i as f32 * 0.7 + seed).sin()).collect()
}

/// Output of a convolution and the gradients of input and weight for a fixed upstream gradient.
fn convolved(device: &Device, x: [usize; 4], w: [usize; 4], geometry: Geometry) -> [Vec<f32>; 3] {
    let autodiff = device.clone().autodiff();
    let leaf = |shape: [usize; 4], seed| {
        let values = wave(shape.iter().product(), seed);
        Tensor::<4>::from_data(TensorData::new(values, shape), &autodiff).require_grad()
    };
    let (x, w) = (leaf(x, 0.0), leaf(w, 1.0));
    let y = convolution(x.clone(), w.clone(), geometry, Input::Plain);
    let shape = y.dims();
    let upstream = wave(shape.iter().product(), 2.0);
    let upstream = Tensor::<4>::from_data(TensorData::new(upstream, shape), &autodiff);
    let gradients = (y.clone() * upstream).sum().backward();
    let values = |t: Tensor<4>| t.into_data().try_to_vec::<f32>().expect("f32");
    [
        values(y.inner()),
        values(x.grad(&gradients).expect("tracked")),
        values(w.grad(&gradients).expect("tracked")),
    ]
}

#[test]
fn convolutions_of_both_engines_agree_on_every_kind_of_shape() {
    let (flex, libtorch) = (device("flex"), device("libtorch:cpu"));
    for (x, w, stride, padding, groups) in [
        ([2, 3, 8, 8], [5, 3, 3, 3], 1, 1, 1),
        ([3, 4, 9, 7], [6, 4, 3, 3], 2, 1, 1),
        ([2, 4, 8, 8], [4, 1, 3, 3], 1, 1, 4),
        ([2, 6, 5, 5], [4, 3, 1, 1], 1, 0, 2),
        ([1, 2, 11, 11], [3, 2, 5, 5], 3, 2, 1),
    ] {
        for in_order in [false, true] {
            let geometry = Geometry {
                stride: [stride; 2],
                padding: [padding; 2],
                dilation: [1; 2],
                groups,
                in_order,
            };
            let ours = convolved(&libtorch, x, w, geometry);
            let expected = convolved(&flex, x, w, geometry);
            for (a, b) in ours.iter().flatten().zip(expected.iter().flatten()) {
                assert!(
                    (a - b).abs() < 1e-4 * (1.0 + b.abs()),
                    "{geometry:?}: {a} and {b}"
                );
            }
        }
    }
}

#[test]
fn training_goes_the_same_way_on_both_engines() {
    for quantizer in ["none", "u1", "u3", "p3"] {
        let losses = |engine: &str| -> Vec<f64> {
            let mut set = vec![
                format!("device={engine}"),
                format!("weights.quantizer={quantizer}"),
                format!("activations.quantizer={quantizer}"),
            ];
            if quantizer != "none" {
                set.push("budget.weights_kb=9".into());
            }
            let loaded = load_embedded("small.toml", SMALL, &set).expect("valid");
            let splits = bitscope::dataset::open(&loaded.experiment).expect("data");
            let mut trainer =
                Trainer::new(loaded.experiment, splits, device(engine)).expect("built");
            (0..5).map(|_| trainer.step(true).loss).collect()
        };
        for (i, (a, b)) in losses("libtorch:cpu")
            .into_iter()
            .zip(losses("flex"))
            .enumerate()
        {
            // An activation that rounds the other way is a whole level off: the first step has
            // none such, later ones may.
            let allowed = if i == 0 { 1e-5 } else { 2e-2 };
            assert!(
                (a - b).abs() < allowed * (1.0 + b),
                "{quantizer} step {i}: {a} and {b}"
            );
        }
    }
}

#[test]
fn a_device_that_is_not_there_is_told_with_what_is() {
    let error = parse("libtorch:cuda:99").expect_err("no machine has a hundred cards");
    let text = error.to_string();
    assert!(
        text.contains("libtorch:cpu") && text.contains("usable"),
        "{text}"
    );
}

#[test]
#[cfg(target_os = "linux")]
fn libtorchs_threads_are_told_not_to_spin_for_long() {
    use std::io::{BufRead, BufReader};
    use std::process::{Command, Stdio};

    let runs = tempfile::tempdir().expect("a folder");
    for (set, expected) in [(None, true), (Some(("OMP_WAIT_POLICY", "passive")), false)] {
        let mut program = Command::new(env!("CARGO_BIN_EXE_bitscope"));
        program
            .args(["train", "--plain", "--set", "device=libtorch:cpu", "--runs"])
            .arg(runs.path())
            .env_remove("GOMP_SPINCOUNT")
            .env_remove("OMP_WAIT_POLICY")
            .envs(set)
            .stdout(Stdio::piped())
            .stderr(Stdio::null());
        let mut program = program.spawn().expect("started");
        let output = program.stdout.take().expect("piped");
        let first = BufReader::new(output).lines().next();
        let environment = std::fs::read(format!("/proc/{}/environ", program.id()));
        drop(program.kill());
        drop(program.wait());
        assert!(first.expect("a line").is_ok());
        let environment = environment.expect("it was running");
        let text = String::from_utf8_lossy(&environment);
        assert_eq!(text.contains("GOMP_SPINCOUNT=1000"), expected, "{text}");
    }
}
