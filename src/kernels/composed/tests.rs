use burn::backend::Flex;
use burn::tensor::TensorData;
use burn_flex::FlexTensor;
use proptest::prelude::*;

use super::*;
use crate::kernels::norm::{Activation, Moments};
use crate::kernels::ops::{Engine, NormTensors};
use crate::kernels::pictures::{BYTES, Pictures};
use crate::kernels::quantize::Grids;
use crate::kernels::subsample::Subsampling;
use crate::quantizer::{Grid, Parametrization, Quantizer, Rules};

fn tensor(values: Vec<f32>, shape: &[usize]) -> FlexTensor {
    FlexTensor::from_data(TensorData::new(values, shape.to_vec()))
}

fn values(tensor: FlexTensor) -> Vec<f32> {
    let tensor = tensor.to_contiguous();
    let start = tensor.layout().start_offset();
    tensor.storage::<f32>()[start..start + tensor.layout().num_elements()].to_vec()
}

fn close(ours: &[f32], expected: &[f32]) -> bool {
    let pairs = ours.iter().zip(expected);
    ours.len() == expected.len()
        && pairs
            .into_iter()
            .all(|(a, b)| (a - b).abs() < 1e-4 * (1.0 + b.abs()))
}

fn grid(p: Parametrization, signed: bool, rules: Rules) -> Grid {
    let quantizer = Quantizer::learned(p, signed, rules);
    quantizer.grid(match p {
        Parametrization::U3 | Parametrization::P3 => [0.125, 1.0],
        _ => [3.0, 0.25],
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_quantizer_equals_the_kernel(
        p in prop::sample::select(&Parametrization::ALL[..]),
        signed in any::<bool>(),
        published in any::<bool>(),
        pairs in prop::collection::vec((-3.0..3.0f32, -2.0..2.0f32), 2..200),
    ) {
        let rules = if published { Rules::PublishedCode } else { Rules::Paper };
        let grid = grid(p, signed, rules);
        let mut x: Vec<f32> = pairs.iter().map(|v| v.0).collect();
        (x[0], x[1]) = (grid.q_max, 0.0);
        let g: Vec<f32> = pairs.iter().map(|v| v.1).collect();
        let shape = [x.len()];
        let (x, g) = (tensor(x, &shape), tensor(g, &shape));
        let grid = Grids::from(grid);
        let y = values(fake_quantize_forward::<Flex>(x.clone(), &grid));
        prop_assert_eq!(y, values(Flex::fake_quantize_forward(x.clone(), &grid)));
        let (gx, sums) = fake_quantize_backward::<Flex>(x.clone(), g.clone(), &grid);
        let (kernel_gx, kernel_sums) = Flex::fake_quantize_backward(x, g, &grid);
        prop_assert!(close(&values(gx), &values(kernel_gx)));
        prop_assert!(close(&values(sums), &values(kernel_sums)));
    }

    /// Several grids along an axis are as many tensors on one grid each.
    #[test]
    fn grids_along_an_axis_are_those_of_its_parts(
        p in prop::sample::select(&Parametrization::ALL[..]),
        shape in prop::collection::vec(1usize..5, 4), axis in 0usize..4, seed in 0.0f32..6.0,
    ) {
        let quantizer = Quantizer::learned(p, true, Rules::Paper);
        let of = |i: usize| match p {
            Parametrization::U3 | Parametrization::P3 => [0.125 * (1 << i) as f64, 1.0 + i as f64],
            _ => [3.0, 0.25 * (i + 1) as f64],
        };
        let all: Vec<Grid> = (0..shape[axis]).map(|i| quantizer.grid(of(i))).collect();
        let grids = Grids::Along { axis, grids: all.clone().into() };
        let count: usize = shape.iter().product();
        let wave = |s: f32| (0..count).map(|i| 3.0 * (i as f32 * 0.713 + s).sin()).collect::<Vec<_>>();
        let (x, g) = (wave(seed), wave(seed + 1.0));
        let inner: usize = shape[axis + 1..].iter().product();
        let mut sums = vec![crate::quantizer::Sums::default(); all.len()];
        let (mut expected_y, mut expected_gx) = (Vec::new(), Vec::new());
        for (i, (x, g)) in x.iter().zip(&g).enumerate() {
            let own = i / inner % all.len();
            expected_y.push(all[own].forward(*x));
            expected_gx.push(all[own].backward(*x, *g, &mut sums[own]));
        }
        let sums: Vec<f32> = sums.iter().flat_map(|s| s.to_array()).map(|v| v as f32).collect();
        let (x, g) = (tensor(x, &shape), tensor(g, &shape));
        let pairs = [
            (
                Flex::fake_quantize_forward(x.clone(), &grids),
                Flex::fake_quantize_backward(x.clone(), g.clone(), &grids),
            ),
            (
                fake_quantize_forward::<Flex>(x.clone(), &grids),
                fake_quantize_backward::<Flex>(x, g, &grids),
            ),
        ];
        for (y, (gx, found)) in pairs {
            prop_assert_eq!(&values(y), &expected_y);
            prop_assert!(close(&values(gx), &expected_gx));
            prop_assert!(close(&values(found), &sums));
        }
    }

    #[test]
    fn subsampling_equals_the_kernel(
        images in 1usize..4, channels in 1usize..4, size in (1usize..9, 1usize..9),
        stride in 1usize..4, extra in 0usize..3,
    ) {
        let s = Subsampling { images, channels, size: [size.0, size.1], stride, extra };
        let [height, width] = s.output_size();
        let wave = |shape: &[usize]| {
            let count = shape.iter().product::<usize>();
            tensor((0..count).map(|i| (i as f32 * 0.7).sin()).collect(), shape)
        };
        let x = wave(&[images, channels, size.0, size.1]);
        let g = wave(&[images, channels + extra, height, width]);
        let y = values(subsample_forward::<Flex>(x.clone(), &s));
        prop_assert_eq!(y, values(Flex::subsample_forward(x, &s)));
        let gx = values(subsample_backward::<Flex>(g.clone(), &s));
        prop_assert_eq!(gx, values(Flex::subsample_backward(g, &s)));
    }

    #[test]
    fn pictures_equal_the_kernel(
        images in 1usize..4, channels in 1usize..4, size in (1usize..9, 1usize..9), seed in any::<u8>(),
    ) {
        let shape = [images, channels, size.0, size.1];
        let count = shape.iter().product::<usize>();
        let bytes: Vec<u8> = (0..count).map(|i| (i * 37) as u8 ^ seed).collect();
        let table: Vec<f32> = (0..channels * BYTES).map(|i| (i as f32 * 0.7).sin()).collect();
        let planes = bytes.chunks(size.0 * size.1).enumerate();
        let expected: Vec<f32> = planes
            .flat_map(|(i, plane)| plane.iter().map(move |b| (i % channels * BYTES) + usize::from(*b)))
            .map(|at| table[at])
            .collect();
        let table = tensor(table, &[channels * BYTES]);
        let given = Pictures { bytes, shape };
        prop_assert_eq!(&values(Flex::pictures(table.clone(), given.clone())), &expected);
        prop_assert_eq!(values(pictures::<Flex>(table, given)), expected);
    }

    #[test]
    fn the_norm_equals_the_kernel(
        images in 1usize..4, channels in 1usize..4, size in 2usize..6, kind in 0usize..5,
        with_residual in any::<bool>(), seed in 0.0f32..6.0,
    ) {
        let shape = [images, channels, size, size];
        let count = shape.iter().product::<usize>();
        let wave = |n: usize, s: f32| (0..n).map(|i| (i as f32 * 0.713 + s).sin()).collect::<Vec<_>>();
        let quantize = |p| Activation::Quantize(grid(p, false, Rules::Paper));
        let inputs = NormTensors::<Flex> {
            x: tensor(wave(count, seed), &shape),
            residual: with_residual.then(|| tensor(wave(count, seed + 1.0), &shape)),
            gamma: tensor(vec![0.9; channels], &[channels]),
            beta: tensor(vec![0.2; channels], &[channels]),
            epsilon: 1e-5,
            activation: [
                Activation::Identity,
                Activation::Relu,
                Activation::Clip { low: -0.1, high: 0.6 },
                quantize(Parametrization::U3),
                quantize(Parametrization::P3),
            ][kind],
            moments: Moments::Exact,
            across: None,
        };
        let (y, statistics) = norm_activation_forward::<Flex>(&inputs, None);
        let (kernel_y, kernel_statistics) = Flex::norm_activation_forward(&inputs, None);
        prop_assert!(close(&values(statistics.clone()), &values(kernel_statistics)));
        // A value that rounds the other way is a whole level off, here and behind.
        prop_assume!(close(&values(y), &values(kernel_y)));
        let g = tensor(wave(count, seed + 2.0), &shape);
        let ours = norm_activation_backward::<Flex>(&inputs, statistics.clone(), g.clone());
        let kernel = Flex::norm_activation_backward(&inputs, statistics, g);
        prop_assert!(close(&values(ours.x), &values(kernel.x)));
        prop_assert!(close(&values(ours.gamma), &values(kernel.gamma)));
        prop_assert!(close(&values(ours.beta), &values(kernel.beta)));
        prop_assert!(close(&values(ours.sums), &values(kernel.sums)));
        prop_assert_eq!(ours.residual.is_some(), kernel.residual.is_some());
        if let (Some(a), Some(b)) = (ours.residual, kernel.residual) {
            prop_assert!(close(&values(a), &values(b)));
        }
    }
}
