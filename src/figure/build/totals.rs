//! Quantities of the whole run: loss, error, memory, the pull of the penalties.

use super::super::numerals::number;
use super::super::scene::{Guide, Ink, Line, Scale, Scene};
use super::Builder;
use super::over_steps::Drawn;
use crate::quantizer::memory::{Resource, Side};
use crate::run::Quantity;

impl Builder<'_> {
    pub(super) fn loss(&self) -> Scene {
        let h = self.history;
        let mut lines = Vec::new();
        let penalised = h[Quantity::WeightPenalty].newest().unwrap_or(0.0) > 0.0
            || h[Quantity::ActivationPenalty].newest().unwrap_or(0.0) > 0.0
            || !h.budgets.is_empty();
        let series = [
            ("loss", &h[Quantity::Loss], 1, penalised),
            ("cross entropy", &h[Quantity::CrossEntropy], 0, true),
            ("validation", &h[Quantity::ValidationLoss], 2, true),
        ];
        for (i, (label, series, dash, shown)) in series.into_iter().enumerate() {
            if shown && !series.is_empty() {
                let smooth = label != "validation";
                let ink = Ink::Series(i);
                lines.push(self.line(&Drawn {
                    label,
                    series,
                    ink,
                    dash,
                    smooth,
                    least: 0.0,
                    factor: 1.0,
                }));
            }
        }
        self.scene(
            "loss".into(),
            "nats",
            self.linear_or_log(),
            lines,
            Vec::new(),
        )
    }

    pub(super) fn error(&self) -> Scene {
        let h = self.history;
        let series = [
            ("training batch", &h[Quantity::TrainError], 0),
            ("validation", &h[Quantity::ValidationError], 2),
            ("validation, top 5", &h[Quantity::ValidationTopFive], 1),
        ];
        let mut lines = Vec::new();
        for (i, (label, series, dash)) in series.into_iter().enumerate() {
            if !series.is_empty() {
                let (ink, smooth) = (Ink::Series([0, 2, 3][i]), i == 0);
                lines.push(self.line(&Drawn {
                    label,
                    series,
                    ink,
                    dash,
                    smooth,
                    least: 0.0,
                    factor: 100.0,
                }));
            }
        }
        self.scene("error".into(), "%", self.linear_or_log(), lines, Vec::new())
    }

    pub(super) fn memory(&self, side: Side) -> Scene {
        let h = self.history;
        let (title, ink, resources): (&str, Ink, &[(&str, Resource)]) = match side {
            Side::Weights => (
                "memory of weights",
                Ink::Weights,
                &[("weights", Resource::Weights)],
            ),
            Side::Activations => (
                "memory of activations, one sample",
                Ink::Activations,
                &[
                    ("sum", Resource::ActivationSum),
                    ("max", Resource::ActivationMax),
                ],
            ),
        };
        // With a budget on one of them, the other would only squeeze the scale.
        let limits: Vec<Resource> = h.budgets.iter().map(|b| b.resource).collect();
        let any = resources.iter().any(|r| limits.contains(&r.1));
        let several = resources.iter().filter(|r| limits.contains(&r.1)).count() > 1;
        let mut lines = Vec::new();
        let mut guides = Vec::new();
        for (i, (label, resource)) in resources.iter().enumerate() {
            if any && !limits.contains(resource) {
                continue;
            }
            lines.push(stairs(self.line(&Drawn {
                label,
                series: h.used(*resource),
                ink,
                dash: i,
                smooth: false,
                least: 0.0,
                factor: 1.0,
            })));
            let limits = h.limits(*resource);
            if limits.extent().is_some() {
                let label = match several {
                    true => format!("limit in force, {label}"),
                    false => "limit in force".to_owned(),
                };
                let mut line = self.line(&Drawn {
                    label: &label,
                    series: limits,
                    ink: Ink::Budget,
                    dash: 2 + i,
                    smooth: false,
                    least: 0.0,
                    factor: 1.0,
                });
                // A budget that was removed has none, and the series only its last one.
                let cursors = [self.view.cursor, self.view.second];
                let free = |cursor: f64| !h.is_limited(*resource, cursor.max(0.0) as u64);
                if cursors.into_iter().flatten().any(free) {
                    line.label = label;
                }
                lines.push(line);
            }
            for budget in h.budgets.iter().filter(|b| b.resource == *resource) {
                guides.push(Guide {
                    y: budget.limit,
                    label: format!("budget {}", number(budget.limit, 1)),
                    ink: Ink::Budget,
                });
            }
        }
        self.scene(title.into(), "kB", self.linear_or_log(), lines, guides)
    }

    /// Panel 0: cross entropy and what the penalties add; panel 1: their share of the gradient.
    pub(super) fn pull(&self, index: usize) -> Scene {
        let h = self.history;
        let line = |label, series, ink, dash, factor| {
            self.line(&Drawn {
                label,
                series,
                ink,
                dash,
                smooth: true,
                least: 0.0,
                factor,
            })
        };
        let (title, unit, lines) = if index == 0 {
            let lines = vec![
                line(
                    "cross entropy",
                    &h[Quantity::CrossEntropy],
                    Ink::Series(0),
                    0,
                    1.0,
                ),
                line("penalties", &h[Quantity::Penalty], Ink::Budget, 1, 1.0),
            ];
            ("what the loss is made of", "nats", lines)
        } else {
            let lines = vec![line("penalties", &h[Quantity::Pull], Ink::Budget, 0, 100.0)];
            ("penalties' share of the quantizers' gradient", "%", lines)
        };
        let lines = lines.into_iter().filter(|l| !l.segments.is_empty());
        let scale = if index == 0 {
            self.linear_or_log()
        } else {
            Scale::Linear
        };
        self.scene(title.into(), unit, scale, lines.collect(), Vec::new())
    }
}

/// A line of what holds from one step to the next: level, then up or down.
fn stairs(mut line: Line) -> Line {
    for segment in &mut line.segments {
        let mut steps = Vec::with_capacity(2 * segment.len());
        for point in segment.iter() {
            if let Some((_, level)) = steps.last().copied()
                && level != point.1
            {
                steps.push((point.0, level));
            }
            steps.push(*point);
        }
        *segment = steps;
    }
    line
}
