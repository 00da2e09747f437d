//! One quantizer by hand: quantizes samples of N(0, 1) under U3 and learns its step size and range.
//!
//! ```sh
//! cargo run --release --example quantizer
//! ```

use bitscope::quantizer::{Parametrization, Quantizer, Rules, Sums};
use rand::SeedableRng;
use rand_distr::{Distribution, StandardNormal};

fn main() {
    let mut random = rand_pcg::Pcg64Mcg::seed_from_u64(1);
    let samples: Vec<f32> = (0..10_000)
        .map(|_| -> f64 { StandardNormal.sample(&mut random) })
        .map(|v| v as f32)
        .collect();
    // Signed, as weights are; d and q_max are its two parameters.
    let quantizer = Quantizer::learned(Parametrization::U3, true, Rules::Paper);
    let mut parameters = quantizer.project([0.25, 0.75]);
    for step in 0..=2000 {
        // The grid is what the parameters mean: levels, and the bitwidth that follows.
        let grid = quantizer.grid(parameters);
        let mut sums = Sums::default();
        let mut error = 0.0;
        for x in &samples {
            let difference = grid.forward(*x) - x;
            error += f64::from(difference).powi(2) / 2.0;
            // The gradients of every parametrization are linear in these sums.
            grid.backward(*x, difference, &mut sums);
        }
        let count = samples.len() as f64;
        if step % 400 == 0 {
            println!(
                "step {step:>4}  d {:.4} (used {:.4})  q_max {:.4}  {} bits  error {:.2e}",
                parameters[0],
                grid.step,
                parameters[1],
                grid.bits,
                error / count
            );
        }
        let gradients = quantizer.parameter_gradients(parameters, sums);
        for (parameter, gradient) in parameters.iter_mut().zip(gradients) {
            *parameter -= 0.05 * gradient / count;
        }
        parameters = quantizer.project(parameters);
    }
}
