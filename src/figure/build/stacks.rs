//! Bands on top of one another over steps: kB per layer, time per phase.

use super::super::scene::{Area, Axis, Guide, Ink, Item, Scale, Scene};
use super::super::ticks::number;
use super::Builder;
use crate::quantizer::memory::{Resource, Role, kilobytes};
use crate::run::{LayerQuantity, PHASES};

impl Builder<'_> {
    /// Steps of the columns that a stack is drawn in.
    pub(super) fn stack_steps(&self) -> Vec<u64> {
        let (from, to) = self.x_range();
        let columns = self.view.resolution.clamp(1, 1000);
        let last = self.history.step() as f64;
        let at = |c: usize| from + (to - from) * c as f64 / columns as f64;
        let mut steps: Vec<u64> = (0..=columns)
            .map(at)
            .filter(|s| *s <= last)
            .map(|s| s as u64)
            .collect();
        steps.dedup();
        steps
    }

    /// A scene of bands on top of one another; `value` is NaN where a series has none yet.
    pub(super) fn stack(
        &self,
        title: String,
        unit: &str,
        bands: Vec<(String, Ink)>,
        value: impl Fn(usize, u64) -> f64,
        guides: Vec<Guide>,
    ) -> Scene {
        let steps = self.stack_steps();
        let mut heights = vec![0.0; steps.len()];
        let mut areas = Vec::with_capacity(bands.len());
        for (band, (label, ink)) in bands.into_iter().enumerate() {
            let mut points = Vec::with_capacity(steps.len());
            for (height, step) in heights.iter_mut().zip(&steps) {
                let amount = value(band, *step);
                if amount.is_finite() && amount > 0.0 {
                    points.push((self.x(*step as f64), *height, *height + amount));
                    *height += amount;
                }
            }
            areas.push(Area { label, ink, points });
        }
        let highest = guides
            .iter()
            .map(|g| g.y)
            .chain(heights)
            .fold(0.0, f64::max);
        let base = self.scene(title, unit, Scale::Linear, Vec::new(), guides);
        Scene {
            y: Axis {
                range: (0.0, if highest > 0.0 { highest * 1.05 } else { 1.0 }),
                ..base.y.clone()
            },
            items: areas.into_iter().map(Item::Area).collect(),
            empty: "no quantizers in use yet".into(),
            ..base
        }
    }

    /// kB per layer, stacked: panel 0 weights and biases, panel 1 activations.
    pub(super) fn ledger(&self, index: usize) -> Scene {
        let mut layers = self.visible_layers();
        layers.retain(|(_, l)| (l.info.role == Role::Activation) == (index == 1));
        let (side, resource) = if index == 0 {
            ("weights", Resource::Weights)
        } else {
            ("activations, one sample", Resource::ActivationSum)
        };
        // With a filter the stack is a part, which the whole's budget says nothing about.
        let budgets = self.history.budgets.iter();
        let guides = budgets
            .filter(|b| b.resource == resource && self.view.filter.is_empty())
            .map(|b| Guide {
                y: b.limit,
                label: format!("budget {}", number(b.limit, 1)),
                ink: Ink::Budget,
            });
        let bands = layers
            .iter()
            .map(|(i, l)| (l.info.name.clone(), self.depth(*i)))
            .collect();
        let value = |band: usize, step: u64| {
            let layer = layers[band].1;
            layer[LayerQuantity::Bitwidth]
                .near(step)
                .map_or(f64::NAN, |bits| kilobytes(layer.info.elements, bits.into()))
        };
        self.stack(
            format!("kB per layer, {side}"),
            "kB",
            bands,
            value,
            guides.collect(),
        )
    }

    /// Milliseconds of a step by phase, stacked.
    pub(super) fn phases(&self) -> Scene {
        let bands = PHASES
            .iter()
            .enumerate()
            .map(|(i, (name, _))| ((*name).to_owned(), Ink::Series(i)))
            .collect();
        let value = |band: usize, step: u64| {
            let seconds = self.history[PHASES[band].1].near(step);
            seconds.map_or(f64::NAN, |s| f64::from(s) * 1e3)
        };
        let scene = self.stack("time of a step".into(), "ms", bands, value, Vec::new());
        Scene {
            empty: "no data yet".into(),
            ..scene
        }
    }
}
