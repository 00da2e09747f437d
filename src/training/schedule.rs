//! Learning rate over the run.

use std::f64::consts::PI;

use crate::experiment::{Experiment, ScheduleKind};

/// Whether an epoch has come: epochs are sums of a step's shares, and may be a rounding short of where
/// something begins.
pub fn has_come(start: f64, now: f64) -> bool {
    now + 1e-9 >= start
}

/// Learning rate of the weights at `epoch` (counted from the start, float phase included).
pub fn learning_rate(experiment: &Experiment, epoch: f64) -> f64 {
    let schedule = &experiment.schedule;
    let float = experiment.float_epochs;
    if !has_come(float, epoch) {
        let base = schedule.float_lr.unwrap_or(experiment.optimizer.lr);
        // Full rate for two thirds, then down to a tenth along a cosine.
        let t = ((epoch / float - 2.0 / 3.0) * 3.0).clamp(0.0, 1.0);
        return base * (0.55 + 0.45 * (PI * t).cos());
    }
    let milestones = schedule.milestones.iter();
    let passed = milestones.filter(|m| has_come(float + **m, epoch)).count();
    let epoch = (epoch - float).max(0.0);
    let warm = if schedule.warmup > 0.0 {
        (epoch / schedule.warmup).min(1.0)
    } else {
        1.0
    };
    let shape = match schedule.kind {
        ScheduleKind::Constant => 1.0,
        ScheduleKind::Step => schedule.factor.powi(passed as i32),
        ScheduleKind::Cosine => {
            let t = (epoch / experiment.epochs.max(f64::MIN_POSITIVE)).clamp(0.0, 1.0);
            0.5 * (1.0 + (PI * t).cos())
        }
    };
    experiment.optimizer.lr * warm * shape
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::experiment::load_embedded;

    /// Ninths, summed, are a rounding short of whole numbers.
    #[test]
    fn a_phase_begins_with_the_step_that_it_begins_with() {
        let text = "[train]\nfloat_epochs = 6\nepochs = 9\n[optimizer]\nlr = 0.05\n[schedule]\n\
                    kind = \"step\"\nmilestones = [3]\nfactor = 0.5\nfloat_lr = 0.1\n";
        let experiment = load_embedded("e.toml", text, &Vec::new()).expect("valid");
        let after = |steps: usize| (0..steps).fold(0.0, |epoch, _| epoch + 1.0 / 9.0);
        assert!(after(54) < 6.0 && after(81) < 9.0);
        let rate = |steps| learning_rate(&experiment.experiment, after(steps));
        assert!((rate(53) - 0.01).abs() < 1e-3, "{}", rate(53));
        assert_eq!([rate(54), rate(80), rate(81)], [0.05, 0.05, 0.025]);
    }
}
