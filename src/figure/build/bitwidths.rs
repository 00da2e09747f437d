//! Inferred bitwidths: bars per layer, and layers x steps.

use super::super::scene::{Axis, Bar, Heat, HeatRow, Ink, Item, Scale, Scene};
use super::Builder;
use crate::quantizer::memory::Role;
use crate::run::{LayerHistory, LayerQuantity, Series};

impl Builder<'_> {
    /// Bitwidth per layer at the cursor (or now) as bars: panel 0 weights, panel 1 activations.
    pub(super) fn bars(&self, index: usize) -> Scene {
        let at = self.view.cursor.unwrap_or(self.history.step() as f64) as u64;
        let layers = self.visible_layers();
        let bars: Vec<Bar> = layers
            .iter()
            .filter(|(_, l)| (l.info.role == Role::Activation) == (index == 1))
            .filter_map(|(_, l)| {
                let value = f64::from(l[LayerQuantity::Bitwidth].at(at)?);
                let suffix = if l.info.role == Role::Bias {
                    ".bias"
                } else {
                    ""
                };
                Some(Bar {
                    label: format!("{}{suffix}", l.info.name),
                    value,
                    kind: l.info.kind,
                    marks: Vec::new(),
                })
            })
            .collect();
        let highest = bars.iter().map(|b| b.value).fold(4.0, f64::max);
        let side = if index == 0 { "weights" } else { "activations" };
        Scene {
            title: format!("bitwidth per layer, {side}, step {at}"),
            x: Axis {
                label: "layer, input to output".into(),
                scale: Scale::Linear,
                range: (0.0, bars.len().max(1) as f64),
                ticks: Some(Vec::new()),
            },
            y: Axis {
                label: "bits".into(),
                scale: Scale::Linear,
                range: (0.0, highest + 0.5),
                ticks: Some(
                    (0..=highest as u32)
                        .map(|b| (b.into(), b.to_string()))
                        .collect(),
                ),
            },
            items: vec![Item::Bars(bars)],
            marks: Vec::new(),
            guides: Vec::new(),
            cursor: None,
            second: None,
            empty: "no quantizers in use yet".into(),
        }
    }

    pub(super) fn heat(&self) -> Scene {
        let layers = self.visible_layers();
        let x = self.x_axis();
        let (from, to) = self.x_range();
        let columns = self.view.resolution.clamp(1, 4000);
        let edges: Vec<f64> = (0..=columns)
            .map(|c| self.x(from + (to - from) * c as f64 / columns as f64))
            .collect();
        let mut values = vec![None; layers.len() * columns];
        for (row, (_, layer)) in layers.iter().enumerate() {
            self.heat_row(
                &layer[LayerQuantity::Bitwidth],
                &mut values[row * columns..(row + 1) * columns],
            );
        }
        let mark = |l: &LayerHistory| match l.info.role {
            Role::Weight => "W",
            Role::Bias => "b",
            Role::Activation => "A",
        };
        let rows = layers
            .iter()
            .map(|(_, l)| HeatRow {
                label: format!("{} {}", mark(l), l.info.name),
                ink: Ink::Text,
            })
            .collect();
        let selected = layers
            .iter()
            .position(|(i, _)| Some(*i) == self.view.selected);
        let lines_scene = self.scene(
            "bitwidth, layers x steps".into(),
            "layer",
            Scale::Linear,
            vec![],
            vec![],
        );
        Scene {
            y: Axis {
                label: "layer".into(),
                scale: Scale::Linear,
                range: (0.0, layers.len().max(1) as f64),
                ticks: Some(Vec::new()),
            },
            x,
            items: vec![Item::Heat(Heat {
                rows,
                edges,
                values,
                selected,
            })],
            empty: "no quantizers in use yet".into(),
            ..lines_scene
        }
    }

    /// The newest bitwidth of each column; columns between two records hold the earlier one.
    pub(super) fn heat_row(&self, series: &Series, out: &mut [Option<f32>]) {
        let (from, to) = self.x_range();
        let columns = out.len() as f64;
        let Some((first, last)) = series.extent() else {
            return;
        };
        for bucket in series.range(from.max(0.0) as u64, to.max(0.0) as u64, out.len() * 4) {
            let column = |step: u32| (f64::from(step) - from) / (to - from).max(1e-9) * columns;
            let start = column(bucket.first).floor().clamp(0.0, columns) as usize;
            let end = (column(bucket.last).floor() + 1.0).clamp(0.0, columns) as usize;
            let value = if bucket.min == bucket.max {
                bucket.end
            } else {
                bucket.mean.round()
            };
            for cell in &mut out[start.min(end)..end] {
                *cell = Some(value);
            }
        }
        let step_of = |column: usize| from + (to - from) * (column as f64 + 0.5) / columns;
        let mut previous = None;
        for (column, cell) in out.iter_mut().enumerate() {
            let inside = step_of(column) >= first as f64 && step_of(column) <= last as f64;
            match cell {
                Some(v) => previous = Some(*v),
                None if inside => *cell = previous,
                None => {}
            }
        }
    }
}
