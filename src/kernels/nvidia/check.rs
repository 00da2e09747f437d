//! Holds the kernels against the composed operations, before they are used.

#![allow(
    deprecated,
    reason = "burn points users of burn-tch elsewhere; here it is asked for by name"
)]

use burn_tch::{LibTorch, TchTensor};
use tch::{Device, Kind, Tensor};

use super::Card;
use super::refusal::Refusal;
use crate::kernels::composed;
use crate::kernels::libtorch_calls::Layout;
use crate::kernels::norm::{Activation, Moments};
use crate::kernels::ops::NormTensors;
use crate::kernels::quantize::Grids;
use crate::quantizer::{Grid, Parametrization, Quantizer, Rules};

/// Odd numbers everywhere, and several blocks to a channel.
const TRIAL_SHAPE: [i64; 4] = [6, 5, 31, 33];

/// How much values may differ.
#[derive(Debug, Clone, Copy)]
struct Tolerance {
    /// Relative and absolute difference that is let pass.
    near: [f64; 2],
    /// Share of values that may differ by more.
    outliers: f64,
}

/// The same to the bit.
const EQUAL: Tolerance = Tolerance {
    near: [0.0, 0.0],
    outliers: 0.0,
};
/// Rounded at other places; where that was in front of a quantizer, a few values in a thousand may
/// have got another level.
const ROUNDED: Tolerance = Tolerance {
    near: [1e-5, 1e-5],
    outliers: 0.002,
};
/// Sums of so many values, in another order and of a few others.
fn summed(values: &Tensor) -> Tolerance {
    Tolerance {
        near: [1e-3, 1e-4 * values.numel() as f64],
        outliers: 0.0,
    }
}

impl Card {
    /// Whether the kernels compute what the composed operations do, on every kind of grid.
    pub(super) fn agrees(&self) -> Result<(), Refusal> {
        for parametrization in [Parametrization::U3, Parametrization::P3] {
            for signed in [true, false] {
                for rules in [Rules::Paper, Rules::PublishedCode] {
                    let quantizer = Quantizer::learned(parametrization, signed, rules);
                    let grid = quantizer.grid([0.125, 1.0]);
                    self.quantizer_agrees(&grid).map_err(|e| on(e, &grid))?;
                    let activation = Activation::Quantize(grid);
                    self.norms_agree(activation, TRIAL_SHAPE)
                        .map_err(|e| on(e, &grid))?;
                }
            }
        }
        let clip = Activation::Clip {
            low: 0.0,
            high: 0.5,
        };
        for activation in [Activation::Identity, Activation::Relu, clip] {
            self.norms_agree(activation, TRIAL_SHAPE)
                .map_err(|e| on(e, &activation))?;
        }
        Ok(())
    }

    fn quantizer_agrees(&self, grid: &Grid) -> Result<(), Refusal> {
        let x = trial(grid, self.device);
        let g = x.sin();
        let tolerance = summed(&x);
        let y = self.quantize(&x, grid)?;
        let [gx, sums] = self.quantize_backward(&x, &g, grid)?;
        let [x, g] = [x, g].map(TchTensor::new);
        let grids = Grids::from(*grid);
        let expected_y = composed::fake_quantize_forward::<LibTorch>(x.clone(), &grids);
        let (expected_gx, expected_sums) =
            composed::fake_quantize_backward::<LibTorch>(x, g, &grids);
        same("Q(x)", &y, &expected_y, EQUAL)?;
        same("the quantizer's gradient", &gx, &expected_gx, ROUNDED)?;
        same("the quantizer's sums", &sums, &expected_sums, tolerance)?;
        // How many are clipped, and how many are zero, is a whole number.
        let counts = |sums: &Tensor| sums.narrow(0, 2, 2);
        let expected = TchTensor::new(counts(&expected_sums.tensor));
        same("a number of values", &counts(&sums), &expected, EQUAL)
    }

    /// In both layouts.
    fn norms_agree(&self, activation: Activation, shape: [i64; 4]) -> Result<(), Refusal> {
        for layout in [Layout::ChannelsFirst, Layout::ChannelsLast] {
            self.norm_agrees(activation, shape, layout)
                .map_err(|e| on(e, &layout))?;
        }
        Ok(())
    }

    fn norm_agrees(
        &self,
        activation: Activation,
        shape: [i64; 4],
        layout: Layout,
    ) -> Result<(), Refusal> {
        let wave = |count: i64, scale: f64| {
            let phases = Tensor::arange(count, (Kind::Float, self.device)) * scale;
            phases.sin() + 0.25
        };
        let values = |scale: f64| {
            let values = wave(shape.iter().product(), scale);
            TchTensor::new(layout.of(&values.reshape(shape)))
        };
        let numbers = |scale: f64| TchTensor::new(wave(shape[1], scale));
        for residual in [None, Some(values(0.37))] {
            let inputs = NormTensors::<LibTorch> {
                x: values(0.71),
                residual,
                gamma: numbers(1.3),
                beta: numbers(2.9),
                epsilon: 1e-5,
                activation,
                moments: Moments::Exact,
                across: None,
            };
            let [own, statistics] = self.norm_activation(&inputs, None)?;
            let (_, expected) = composed::norm_activation_forward(&inputs, None);
            same(
                "the batch's mean or variance",
                &statistics.tensor,
                &expected,
                ROUNDED,
            )?;
            // From the same statistics on, every value is the same.
            let [y, _] = self.norm_activation(&inputs, Some(&statistics))?;
            let (expected, _) =
                composed::norm_activation_forward(&inputs, Some(statistics.clone()));
            same("the norm", &y.tensor, &expected, ROUNDED)?;
            same(
                "the norm with statistics of its own",
                &own.tensor,
                &y,
                EQUAL,
            )?;
            let g = values(0.53);
            let tolerance = summed(&g.tensor);
            let ours = self.norm_activation_backward(&inputs, &statistics, &g)?;
            let theirs = composed::norm_activation_backward(&inputs, statistics, g);
            same("the norm's gradient", &ours.x.tensor, &theirs.x, ROUNDED)?;
            same(
                "the gradient of gamma",
                &ours.gamma.tensor,
                &theirs.gamma,
                tolerance,
            )?;
            same(
                "the gradient of beta",
                &ours.beta.tensor,
                &theirs.beta,
                tolerance,
            )?;
            same(
                "the sums behind the norm",
                &ours.sums.tensor,
                &theirs.sums,
                tolerance,
            )?;
            match (ours.residual, theirs.residual) {
                (Some(ours), Some(theirs)) => {
                    same("the residual's gradient", &ours.tensor, &theirs, ROUNDED)?;
                }
                (None, None) => {}
                _ => {
                    let what = "only one has a gradient of the residual";
                    return Err(Refusal::Failed(what.into()));
                }
            }
        }
        Ok(())
    }
}

/// `Err` with what it is called where it is another than expected.
fn same(
    what: &str,
    ours: &Tensor,
    expected: &TchTensor,
    tolerance: Tolerance,
) -> Result<(), Refusal> {
    let [relative, absolute] = tolerance.near;
    let far = ours
        .isclose(&expected.tensor, relative, absolute, false)
        .logical_not();
    // Counted in whole numbers: a card's mean of ones is not 1.
    let count = far.sum(Kind::Int64).int64_value(&[]);
    let all = ours.numel();
    if count as f64 <= tolerance.outliers * all as f64 {
        return Ok(());
    }
    let first = far.flatten(0, -1).to_kind(Kind::Int64).argmax(0, false);
    let at = first.int64_value(&[]);
    let value = |tensor: &Tensor| tensor.flatten(0, -1).double_value(&[at]);
    Err(Refusal::Failed(format!(
        "{what} differs in {count} of {all} values, first at {at}: {:e} for {:e}",
        value(ours),
        value(&expected.tensor)
    )))
}

/// A refusal with where it happened.
fn on(refusal: Refusal, place: &impl std::fmt::Debug) -> Refusal {
    Refusal::Failed(format!("{refusal}, on {place:?}"))
}

/// Values all over a grid and beyond, and its bounds.
fn trial(grid: &Grid, device: Device) -> Tensor {
    let bounds = [grid.q_max, grid.step, grid.zero_threshold(), 0.0];
    let bounds = [bounds, bounds.map(|v| -v)].concat();
    let over = Tensor::linspace(-1.7, 1.7, 10_007, (Kind::Float, device));
    Tensor::cat(&[over, Tensor::from_slice(&bounds).to_device(device)], 0)
}

#[cfg(all(test, emulated_card))]
mod tests {
    use super::*;
    use crate::kernels::ops::Engine;

    #[test]
    fn the_norm_agrees_on_other_shapes() {
        let quantize = |p| {
            let quantizer = Quantizer::learned(p, false, Rules::Paper);
            Activation::Quantize(quantizer.grid([0.125, 1.0]))
        };
        let activations = [
            Activation::Identity,
            Activation::Relu,
            Activation::Clip {
                low: 0.0,
                high: 0.5,
            },
            quantize(Parametrization::U3),
            quantize(Parametrization::P3),
        ];
        let shapes = [
            [1, 1, 1, 1],
            [2, 1, 1, 1],
            [1, 3, 1, 7],
            [3, 2, 5, 1],
            [2, 5, 4, 4],
            [3, 1, 9, 16],
            [2, 130, 3, 3],
        ];
        for shape in shapes {
            for activation in activations {
                let agrees = Card::on_cpu().norms_agree(activation, shape);
                assert_eq!(agrees, Ok(()), "{shape:?} {activation:?}");
            }
        }
    }

    #[test]
    fn the_kernels_agree_with_the_composed_operations() {
        assert_eq!(Card::on_cpu().agrees(), Ok(()));
    }

    #[test]
    fn what_a_card_is_held_against_equals_the_cpu_kernels() {
        for p in [Parametrization::U3, Parametrization::P3] {
            for (signed, rules) in [(true, Rules::Paper), (false, Rules::PublishedCode)] {
                let grid = Quantizer::learned(p, signed, rules).grid([0.125, 1.0]);
                let x = trial(&grid, Device::Cpu);
                let [x, g] = [x.shallow_clone(), x.sin()].map(TchTensor::new);
                let grid = Grids::from(grid);
                let y = composed::fake_quantize_forward::<LibTorch>(x.clone(), &grid);
                let (gx, sums) =
                    composed::fake_quantize_backward::<LibTorch>(x.clone(), g.clone(), &grid);
                let expected_y = LibTorch::fake_quantize_forward(x.clone(), &grid);
                let (expected_gx, expected_sums) = LibTorch::fake_quantize_backward(x, g, &grid);
                for (ours, expected) in [(y, expected_y), (gx, expected_gx), (sums, expected_sums)]
                {
                    let tolerance = Tolerance {
                        near: [1e-5, 1e-3],
                        outliers: 0.0,
                    };
                    assert_eq!(
                        same("what is expected", &ours.tensor, &expected, tolerance),
                        Ok(())
                    );
                }
            }
        }
    }
}
