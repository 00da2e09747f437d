#![cfg_attr(
    feature = "libtorch",
    allow(
        deprecated,
        reason = "burn points users of burn-tch elsewhere; here it is asked for by name"
    )
)]

use burn::backend::Flex;
use burn::backend::tensor::FloatTensor;
use burn::tensor::TensorData;
use proptest::prelude::*;
use proptest::test_runner::TestCaseResult;

use super::*;
use crate::kernels::norm::{Activation, Moments};
use crate::kernels::ops::{Engine, NormTensors};
use crate::kernels::pictures::{BYTES, Pictures};
use crate::kernels::pool::MaxPool;
use crate::kernels::quantize::Grids;
use crate::kernels::subsample::Subsampling;
use crate::quantizer::{Grid, Parametrization, Quantizer, Rules};

/// The same on every engine whose kernels are of the CPU: not every engine knows every operation.
macro_rules! on_each {
    ($function:ident($($argument:expr),* $(,)?)) => {{
        $function::<Flex>($($argument.clone()),*)?;
        #[cfg(feature = "libtorch")]
        $function::<burn_tch::LibTorch>($($argument.clone()),*)?;
    }};
}

fn tensor<E: Engine>(values: Vec<f32>, shape: &[usize]) -> FloatTensor<E> {
    E::float_from_data(
        TensorData::new(values, shape.to_vec()),
        &E::Device::default(),
    )
}

fn values<E: Engine>(tensor: FloatTensor<E>) -> Vec<f32> {
    values::Values::<E>(tensor).on_host()
}

/// Values all over the place.
fn wave(shape: &[usize], from: f32) -> Vec<f32> {
    let count: usize = shape.iter().product();
    (0..count)
        .map(|i| (i as f32 * 0.713 + from).sin())
        .collect()
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

fn quantizer_equals_the_kernel<E: Engine>(grid: Grid, x: Vec<f32>, g: Vec<f32>) -> TestCaseResult {
    let shape = [x.len()];
    let (x, g) = (tensor::<E>(x, &shape), tensor::<E>(g, &shape));
    let grid = Grids::from(grid);
    let y = values::<E>(fake_quantize_forward::<E>(x.clone(), &grid));
    prop_assert_eq!(y, values::<E>(E::fake_quantize_forward(x.clone(), &grid)));
    let (gx, sums) = fake_quantize_backward::<E>(x.clone(), g.clone(), &grid);
    let (kernel_gx, kernel_sums) = E::fake_quantize_backward(x, g, &grid);
    prop_assert!(close(&values::<E>(gx), &values::<E>(kernel_gx)));
    prop_assert!(close(&values::<E>(sums), &values::<E>(kernel_sums)));
    Ok(())
}

/// Several grids along an axis are as many tensors on one grid each.
fn grids_are_those_of_its_parts<E: Engine>(
    all: Vec<Grid>,
    shape: Vec<usize>,
    axis: usize,
    from: f32,
) -> TestCaseResult {
    let grids = Grids::Along {
        axis,
        grids: all.clone().into(),
    };
    let wave = |from| wave(&shape, from).into_iter().map(|v| 3.0 * v);
    let (x, g): (Vec<f32>, Vec<f32>) = (wave(from).collect(), wave(from + 1.0).collect());
    let inner: usize = shape[axis + 1..].iter().product();
    let mut sums = vec![crate::quantizer::Sums::default(); all.len()];
    let (mut expected_y, mut expected_gx) = (Vec::new(), Vec::new());
    for (i, (x, g)) in x.iter().zip(&g).enumerate() {
        let own = i / inner % all.len();
        expected_y.push(all[own].forward(*x));
        expected_gx.push(all[own].backward(*x, *g, &mut sums[own]));
    }
    let sums = sums.iter().flat_map(|s| s.to_array());
    let sums: Vec<f32> = sums.map(|v| v as f32).collect();
    let (x, g) = (tensor::<E>(x, &shape), tensor::<E>(g, &shape));
    let pairs = [
        (
            E::fake_quantize_forward(x.clone(), &grids),
            E::fake_quantize_backward(x.clone(), g.clone(), &grids),
        ),
        (
            fake_quantize_forward::<E>(x.clone(), &grids),
            fake_quantize_backward::<E>(x, g, &grids),
        ),
    ];
    for (y, (gx, found)) in pairs {
        prop_assert_eq!(&values::<E>(y), &expected_y);
        prop_assert!(close(&values::<E>(gx), &expected_gx));
        prop_assert!(close(&values::<E>(found), &sums));
    }
    Ok(())
}

fn subsampling_equals_the_kernel<E: Engine>(s: Subsampling) -> TestCaseResult {
    let [height, width] = s.output_size();
    let wave = |shape: &[usize]| tensor::<E>(wave(shape, 0.0), shape);
    let x = wave(&[s.images, s.channels, s.size[0], s.size[1]]);
    let g = wave(&[s.images, s.channels + s.extra, height, width]);
    let y = values::<E>(subsample_forward::<E>(x.clone(), &s));
    prop_assert_eq!(y, values::<E>(E::subsample_forward(x, &s)));
    let gx = values::<E>(subsample_backward::<E>(g.clone(), &s));
    prop_assert_eq!(gx, values::<E>(E::subsample_backward(g, &s)));
    Ok(())
}

fn pooling_equals_the_kernel<E: Engine>(shape: [usize; 4], pool: MaxPool) -> TestCaseResult {
    let x = tensor::<E>(wave(&shape, 0.3), &shape);
    let pooled = [shape[0], shape[1], pool.output[0], pool.output[1]];
    let g = tensor::<E>(wave(&pooled, 1.7), &pooled);
    let (y, kept) = max_pool_forward::<E>(x.clone(), &pool);
    let (kernel_y, kernel_kept) = E::max_pool_forward(x.clone(), &pool);
    prop_assert_eq!(values::<E>(y), values::<E>(kernel_y));
    let gx = max_pool_backward::<E>(x.clone(), kept, g.clone(), &pool);
    let kernel_gx = E::max_pool_backward(x, kernel_kept, g, &pool);
    prop_assert!(close(&values::<E>(gx), &values::<E>(kernel_gx)));
    Ok(())
}

fn norm_equals_the_kernel<E: Engine>(
    shape: [usize; 4],
    activation: Activation,
    with_residual: bool,
    from: f32,
) -> TestCaseResult {
    let channels = shape[1];
    let wave = |from| tensor::<E>(wave(&shape, from), &shape);
    let inputs = NormTensors::<E> {
        x: wave(from),
        residual: with_residual.then(|| wave(from + 1.0)),
        gamma: tensor::<E>(vec![0.9; channels], &[channels]),
        beta: tensor::<E>(vec![0.2; channels], &[channels]),
        epsilon: 1e-5,
        activation,
        moments: Moments::Exact,
        across: None,
    };
    let (y, statistics) = norm_activation_forward::<E>(&inputs, None);
    let (kernel_y, kernel_statistics) = E::norm_activation_forward(&inputs, None);
    let kernel_statistics = values::<E>(kernel_statistics);
    prop_assert!(close(&values::<E>(statistics.clone()), &kernel_statistics));
    // A value that rounds the other way is a whole level off, here and behind.
    prop_assume!(close(&values::<E>(y), &values::<E>(kernel_y)));
    let g = wave(from + 2.0);
    let ours = norm_activation_backward::<E>(&inputs, statistics.clone(), g.clone());
    let kernel = E::norm_activation_backward(&inputs, statistics, g);
    prop_assert!(close(&values::<E>(ours.x), &values::<E>(kernel.x)));
    prop_assert!(close(&values::<E>(ours.gamma), &values::<E>(kernel.gamma)));
    prop_assert!(close(&values::<E>(ours.beta), &values::<E>(kernel.beta)));
    prop_assert!(close(&values::<E>(ours.sums), &values::<E>(kernel.sums)));
    prop_assert_eq!(ours.residual.is_some(), kernel.residual.is_some());
    if let (Some(a), Some(b)) = (ours.residual, kernel.residual) {
        prop_assert!(close(&values::<E>(a), &values::<E>(b)));
    }
    Ok(())
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
        on_each!(quantizer_equals_the_kernel(grid, x, g));
    }

    #[test]
    fn grids_along_an_axis_are_those_of_its_parts(
        p in prop::sample::select(&Parametrization::ALL[..]),
        shape in prop::collection::vec(1usize..5, 4), axis in 0usize..4, from in 0.0f32..6.0,
    ) {
        let quantizer = Quantizer::learned(p, true, Rules::Paper);
        let of = |i: usize| match p {
            Parametrization::U3 | Parametrization::P3 => [0.125 * (1 << i) as f64, 1.0 + i as f64],
            _ => [3.0, 0.25 * (i + 1) as f64],
        };
        let all: Vec<Grid> = (0..shape[axis]).map(|i| quantizer.grid(of(i))).collect();
        on_each!(grids_are_those_of_its_parts(all, shape, axis, from));
    }

    #[test]
    fn subsampling_equals_the_kernels(
        images in 1usize..4, channels in 1usize..4, size in (1usize..9, 1usize..9),
        stride in 1usize..4, extra in 0usize..3,
    ) {
        let s = Subsampling { images, channels, size: [size.0, size.1], stride, extra };
        on_each!(subsampling_equals_the_kernel(s));
    }

    #[test]
    fn max_pooling_equals_the_kernel(
        images in 1usize..4, channels in 1usize..4, size in (3usize..9, 3usize..9),
        kernel in 2usize..4, stride in 1usize..4, padded in any::<bool>(), ceil in any::<bool>(),
    ) {
        let padding = usize::from(padded);
        let output = [size.0, size.1].map(|n| {
            let room = n + 2 * padding - kernel;
            let last = if ceil { room.div_ceil(stride) } else { room / stride };
            // A last window that would begin behind the input and its padding is left out.
            if last * stride >= n + padding { last } else { last + 1 }
        });
        let pool = MaxPool {
            kernel: [kernel; 2],
            stride: [stride; 2],
            padding: [padding; 2],
            dilation: [1; 2],
            ceil,
            output,
        };
        on_each!(pooling_equals_the_kernel([images, channels, size.0, size.1], pool));
    }

    #[test]
    fn pictures_equal_the_kernel(
        images in 1usize..4, channels in 1usize..4, size in (1usize..9, 1usize..9), seed in any::<u8>(),
    ) {
        let shape = [images, channels, size.0, size.1];
        let count = shape.iter().product::<usize>();
        let bytes: Vec<u8> = (0..count).map(|i| (i * 37) as u8 ^ seed).collect();
        let table = wave(&[channels * BYTES], 0.0);
        let planes = bytes.chunks(size.0 * size.1).enumerate();
        let expected: Vec<f32> = planes
            .flat_map(|(i, plane)| plane.iter().map(move |b| (i % channels * BYTES) + usize::from(*b)))
            .map(|at| table[at])
            .collect();
        let table = tensor::<Flex>(table, &[channels * BYTES]);
        let given = Pictures { bytes, shape };
        prop_assert_eq!(&values::<Flex>(Flex::pictures(table.clone(), given.clone())), &expected);
        prop_assert_eq!(values::<Flex>(pictures::<Flex>(table, given)), expected);
    }

    #[test]
    fn the_norm_equals_the_kernel(
        images in 1usize..4, channels in 1usize..4, size in 2usize..6, kind in 0usize..5,
        with_residual in any::<bool>(), from in 0.0f32..6.0,
    ) {
        let quantize = |p| Activation::Quantize(grid(p, false, Rules::Paper));
        let activation = [
            Activation::Identity,
            Activation::Relu,
            Activation::Clip { low: -0.1, high: 0.6 },
            quantize(Parametrization::U3),
            quantize(Parametrization::P3),
        ][kind];
        on_each!(norm_equals_the_kernel([images, channels, size, size], activation, with_residual, from));
    }
}
