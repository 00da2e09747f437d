//! Learning rate over the run.

use std::f64::consts::PI;

use crate::experiment::{Experiment, ScheduleKind};

/// Learning rate of the weights at `epoch` (counted from the start, float phase included).
pub fn learning_rate(experiment: &Experiment, epoch: f64) -> f64 {
    let schedule = &experiment.schedule;
    let float = experiment.float_epochs;
    if epoch < float {
        let base = schedule.float_lr.unwrap_or(experiment.optimizer.lr);
        // Full rate for two thirds, then down to a tenth along a cosine.
        let t = ((epoch / float - 2.0 / 3.0) * 3.0).clamp(0.0, 1.0);
        return base * (0.55 + 0.45 * (PI * t).cos());
    }
    let epoch = epoch - float;
    let warm = if schedule.warmup > 0.0 {
        (epoch / schedule.warmup).min(1.0)
    } else {
        1.0
    };
    let shape = match schedule.kind {
        ScheduleKind::Constant => 1.0,
        ScheduleKind::Step => {
            let passed = schedule.milestones.iter().filter(|m| epoch >= **m).count();
            schedule.factor.powi(passed as i32)
        }
        ScheduleKind::Cosine => {
            let t = (epoch / experiment.epochs.max(f64::MIN_POSITIVE)).clamp(0.0, 1.0);
            0.5 * (1.0 + (PI * t).cos())
        }
    };
    experiment.optimizer.lr * warm * shape
}
