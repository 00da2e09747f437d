//! Inferred bitwidths: bars per layer; layers x steps, of bitwidths and of magnitudes.

use super::super::Window;
use super::super::scene::{Axis, Bar, Bars, Heat, HeatRow, Ink, Item, Scale, Scene, Shade};
use super::Builder;
use super::rows::Row;
use crate::quantizer::memory::{Role, Side};
use crate::run::{LayerQuantity, Series};

impl Builder<'_> {
    /// Bitwidth per row at the cursor (or now) as bars.
    pub(super) fn bars(&self, side: Side) -> Scene {
        let at = self.view.cursor.unwrap_or(self.history.step() as f64) as u64;
        let mut rows = self.rows_of(side);
        let bits = |row: &Row| {
            row.mean(self.history, |l| {
                l[LayerQuantity::Bitwidth].at(at).map(f64::from)
            })
        };
        rows.retain(|row| bits(row).is_some());
        let (focus, selected) = self.focus(&rows);
        let bars: Vec<Bar> = rows
            .iter()
            .filter_map(|row| {
                let first = &self.history.layers[row.members[0]].info;
                let suffix = match (first.role, &row.members[..]) {
                    (Role::Bias, [_]) => ".bias",
                    _ => "",
                };
                Some(Bar {
                    label: format!("{}{suffix}", row.label),
                    value: bits(row)?,
                    kind: first.kind,
                    marks: Vec::new(),
                })
            })
            .collect();
        let highest = bars.iter().map(|b| b.value.ceil()).fold(4.0, f64::max);
        Scene {
            title: format!("bits of {}, step {at}", side.word()),
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
            items: vec![Item::Bars(Bars {
                bars,
                focus,
                selected,
                others: Vec::new(),
            })],
            marks: Vec::new(),
            guides: Vec::new(),
            cursor: None,
            second: None,
            empty: self.no_quantizers(),
        }
    }

    /// Bitwidths, rows x steps.
    pub(super) fn heat(&self) -> Scene {
        let title = "bitwidth, layers x steps".into();
        self.heat_of(title, &Side::BOTH, LayerQuantity::Bitwidth, Shade::Bits)
    }

    /// A quantity of layers as a heat map, rows x steps.
    pub(super) fn heat_of(
        &self,
        title: String,
        sides: &[Side],
        quantity: LayerQuantity,
        shade: Shade,
    ) -> Scene {
        let mut rows = super::rows::rows(self.history, self.view);
        rows.retain(|r| sides.contains(&r.side) && self.recorded(r, quantity));
        let (from, to) = self.x_range();
        let columns = self.cell_columns().min(4000);
        let edges: Vec<f64> = (0..=columns)
            .map(|c| self.x(from + (to - from) * c as f64 / columns as f64))
            .collect();
        let (focus, selected) = self.focus(&rows);
        // What is not on the screen is not looked up.
        let seen = self.view.rows.unwrap_or(rows.len());
        let seen = Window::around(focus, rows.len(), seen).range();
        let mut values = vec![None; rows.len() * columns];
        for (i, out) in values.chunks_mut(columns).enumerate() {
            if seen.contains(&i) {
                self.heat_cells(&rows[i], quantity, shade, out);
            }
        }
        let label = |row: &Row| match (sides, &row.members[..]) {
            ([_], _) => row.label.clone(),
            (_, [only]) => {
                let role = self.history.layers[*only].info.role;
                format!("{} {}", role.letter(), row.label)
            }
            _ => match row.side {
                Side::Weights => format!("W {}", row.label),
                Side::Activations => format!("A {}", row.label),
            },
        };
        let cursor = self.view.cursor.map(|at| at as u64);
        let reading = |row: &Row| {
            let at = cursor?;
            let value = row.mean(self.history, |l| l[quantity].at(at).map(f64::from))?;
            Some(match shade {
                Shade::Bits => shade.text(value as f32),
                Shade::Exponent { .. } => format!("{value:.1e}"),
            })
        };
        let named = rows.iter().enumerate().map(|(i, row)| HeatRow {
            label: label(row),
            reading: seen.contains(&i).then(|| reading(row)).flatten(),
            ink: Ink::Text,
        });
        let heat = Heat {
            shade: fitted(shade, &values),
            rows: named.collect(),
            edges,
            values,
            focus,
            selected,
        };
        let frame = self.scene(title, "layer", Scale::Linear, Vec::new(), Vec::new());
        Scene {
            y: Axis {
                label: "layer".into(),
                scale: Scale::Linear,
                range: (0.0, rows.len().max(1) as f64),
                ticks: Some(Vec::new()),
            },
            items: vec![Item::Heat(heat)],
            empty: self.no_quantizers(),
            ..frame
        }
    }

    /// The cells of one row: of a layer, or the mean of several by their elements.
    fn heat_cells(
        &self,
        row: &Row,
        quantity: LayerQuantity,
        shade: Shade,
        out: &mut [Option<f32>],
    ) {
        let exponent = |v: f32| match shade {
            Shade::Bits => Some(v),
            // (The logarithm of zero is the exponent that stands for it.)
            Shade::Exponent { base: 2, .. } => Some(v.log2()).filter(|v| !v.is_nan()),
            Shade::Exponent { .. } => Some(v.log10()).filter(|v| !v.is_nan()),
        };
        if let [only] = row.members[..] {
            let series = &self.history.layers[only][quantity];
            self.heat_row(series, shade == Shade::Bits, out);
            for cell in out {
                *cell = cell.and_then(exponent);
            }
            return;
        }
        let mut sums = vec![(0f32, 0f32); out.len()];
        let mut cells = vec![None; out.len()];
        for member in &row.members {
            let layer = &self.history.layers[*member];
            cells.fill(None);
            self.heat_row(&layer[quantity], shade == Shade::Bits, &mut cells);
            let elements = layer.info.elements.max(1) as f32;
            for (sum, cell) in sums.iter_mut().zip(&cells) {
                if let Some(value) = cell.and_then(exponent).filter(|v| v.is_finite()) {
                    *sum = (sum.0 + elements * value, sum.1 + elements);
                }
            }
        }
        for (cell, (sum, weight)) in out.iter_mut().zip(sums) {
            *cell = (weight > 0.0).then(|| sum / weight);
        }
    }

    /// The newest value of each column, or their mean, `whole` or not; columns between two records hold
    /// the earlier one.
    pub(super) fn heat_row(&self, series: &Series, whole: bool, out: &mut [Option<f32>]) {
        let (from, to) = self.x_range();
        let columns = out.len() as f64;
        let Some((first, last)) = series.extent() else {
            return;
        };
        // One to four buckets for a column.
        let most = 4 * out.len();
        for bucket in series.range(from.max(0.0) as u64, to.max(0.0) as u64, most) {
            let column = |step: u32| (f64::from(step) - from) / (to - from).max(1e-9) * columns;
            if f64::from(bucket.first) > to {
                continue;
            }
            // The last step that is visible belongs to the last column.
            let start = column(bucket.first).floor().clamp(0.0, columns - 1.0) as usize;
            let end = (column(bucket.last).floor() + 1.0).clamp(0.0, columns) as usize;
            let value = if bucket.min == bucket.max {
                bucket.end
            } else if whole {
                bucket.mean.round()
            } else {
                bucket.mean
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

/// A shade that reaches from the lowest to the highest exponent of the cells, in whole ones; a few
/// outliers do not take the colours from all others.
fn fitted(shade: Shade, values: &[Option<f32>]) -> Shade {
    let Shade::Exponent { base, .. } = shade else {
        return shade;
    };
    let known = values.iter().copied().flatten();
    let mut known: Vec<f32> = known.filter(|v| v.is_finite()).collect();
    let last = known.len().saturating_sub(1);
    let mut at = |share: f64| -> f32 {
        if known.is_empty() {
            return 0.0;
        }
        let (_, value, _) =
            known.select_nth_unstable_by((share * last as f64) as usize, f32::total_cmp);
        *value
    };
    let range = (at(0.02).floor(), at(0.98).ceil());
    Shade::Exponent { base, range }
}
