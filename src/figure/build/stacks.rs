//! Bands on top of one another over steps: kB per layer, time per phase.

use super::super::numerals::number;
use super::super::scene::{Area, Axis, Guide, Ink, Item, Scale, Scene};
use super::rows::{FEW, Fold, Row};
use super::{Builder, View};
use crate::quantizer::memory::{Resource, Side, kilobytes};
use crate::run::{LayerQuantity, PHASES};

impl Builder<'_> {
    /// Columns that a stack is drawn in.
    fn stack_columns(&self) -> usize {
        let (from, to) = self.x_range();
        let steps = (to - from).max(0.0) as usize + 1;
        self.cell_columns().min(1000).min(steps)
    }

    /// The step that each column begins with.
    fn column_steps(&self) -> Vec<f64> {
        let (from, to) = self.x_range();
        let columns = self.stack_columns();
        let at = |c: usize| (from + (to - from) * c as f64 / columns as f64).ceil();
        (0..columns).map(at).collect()
    }

    /// A scene of bands on top of one another: label, colour and a height for every column, `None` where
    /// there is none yet; `steps` are where the columns stand.
    fn stack(
        &self,
        title: String,
        unit: &str,
        steps: &[f64],
        bands: Vec<(String, Ink, Vec<Option<f64>>)>,
        guides: Vec<Guide>,
    ) -> Scene {
        let columns = steps.len();
        let edges: Vec<f64> = steps.iter().map(|step| self.x(*step)).collect();
        let mut heights = vec![0.0; columns];
        let mut areas = Vec::with_capacity(bands.len());
        for (label, ink, values) in bands {
            let mut points = Vec::with_capacity(columns);
            for ((height, x), amount) in heights.iter_mut().zip(&edges).zip(values) {
                if let Some(amount) = amount.filter(|v| v.is_finite() && *v > 0.0) {
                    points.push((*x, *height, *height + amount));
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
            empty: self.no_quantizers(),
            ..base
        }
    }

    /// kB, stacked: a band for every layer, or for every stage where there are more layers than bands
    /// that can be seen.
    pub(super) fn ledger(&self, side: Side) -> Scene {
        let fold = match self.view.fold {
            Fold::Layers if self.rows_of(side).len() > FEW => Fold::Stages,
            fold => fold,
        };
        let view = View {
            fold,
            ..self.view.clone()
        };
        let folded = Builder {
            history: self.history,
            view: &view,
        };
        let rows = folded.rows_of(side);
        let (what, resource) = match side {
            Side::Weights => ("weights", Resource::Weights),
            Side::Activations => ("activations, one sample", Resource::ActivationSum),
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
        let inks = self.layer_inks();
        let ink = |row: &Row| match fold {
            Fold::Kinds => Ink::Kind(self.history.layers[row.members[0]].info.kind),
            _ => inks[row.members[0]],
        };
        let columns = self.stack_columns();
        let mut cells = vec![None; columns];
        let bands = rows.iter().map(|row| {
            let mut sizes: Vec<Option<f64>> = vec![None; columns];
            for member in &row.members {
                let layer = &self.history.layers[*member];
                cells.fill(None);
                self.heat_row(&layer[LayerQuantity::Bitwidth], true, &mut cells);
                for (size, bits) in sizes.iter_mut().zip(&cells) {
                    if let Some(bits) = bits {
                        let own = kilobytes(layer.info.elements, (*bits).into());
                        *size = Some(size.unwrap_or(0.0) + own);
                    }
                }
            }
            (row.label.clone(), ink(row), sizes)
        });
        let bands: Vec<_> = bands.collect();
        let per = match fold {
            Fold::Layers => "layer",
            Fold::Stages => "stage",
            Fold::Kinds => "kind of layer",
        };
        let title = format!("kB per {per}, {what}");
        self.stack(title, "kB", &self.column_steps(), bands, guides.collect())
    }

    /// Milliseconds of a step by phase, stacked: of each column the slowest step, so that no spike is
    /// lost.
    pub(super) fn phases(&self) -> Scene {
        let (from, to) = self.x_range();
        let columns = self.stack_columns();
        // All are recorded at the same steps, so their buckets match.
        let series = PHASES.map(|(_, quantity)| {
            let series = &self.history[quantity];
            series
                .range(
                    from.max(0.0) as u64,
                    to.max(0.0) as u64,
                    (4 * columns).max(2048),
                )
                .filter(|b| f64::from(b.first) >= from && f64::from(b.last) <= to)
                .collect::<Vec<_>>()
        });
        let mut slowest: Vec<Option<(f64, [f64; PHASES.len()])>> = vec![None; columns];
        let count = series.iter().map(Vec::len).min().unwrap_or(0);
        for place in 0..count {
            let step = f64::from(series[0][place].last);
            let times = series.each_ref().map(|s| 1e3 * f64::from(s[place].max));
            let share = (step - from) / (to - from).max(1e-9);
            let column = ((share * columns as f64) as usize).min(columns - 1);
            let total = |times: &[f64]| times.iter().sum::<f64>();
            let kept = &mut slowest[column];
            if kept.as_ref().is_none_or(|k| total(&k.1) < total(&times)) {
                *kept = Some((step, times));
            }
        }
        let slowest: Vec<_> = slowest.into_iter().flatten().collect();
        let steps: Vec<f64> = slowest.iter().map(|s| s.0).collect();
        let bands = PHASES.iter().enumerate().map(|(i, (name, _))| {
            let times = slowest.iter().map(|s| Some(s.1[i])).collect();
            ((*name).to_owned(), Ink::Layer(i), times)
        });
        let title = "time of a step, slowest per column";
        let scene = self.stack(title.into(), "ms", &steps, bands.collect(), Vec::new());
        Scene {
            empty: "no data yet".into(),
            ..scene
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Name, View, panel};
    use super::*;
    use crate::run::{Event, History, StepRecord, Times};

    /// One slow step among a thousand is seen in full, at its step, however few columns there are.
    #[test]
    fn no_slow_step_is_lost_between_columns() {
        let mut history = History::default();
        for step in 1..=1000 {
            let data = if step == 511 { 1.0 } else { 0.01 };
            history.push(&Event::Step(Box::new(StepRecord {
                step,
                times: Times {
                    data,
                    forward: 0.02,
                    ..Times::default()
                },
                ..StepRecord::default()
            })));
        }
        for resolution in [7, 40, 333, 2000] {
            let view = View {
                resolution,
                ..View::default()
            };
            let scene = panel(Name::Phases, 0, &history, &view);
            let highest = |item: &Item| match item {
                Item::Area(area) if area.label == "forward" => area
                    .points
                    .iter()
                    .copied()
                    .max_by(|a, b| a.2.total_cmp(&b.2)),
                _ => None,
            };
            let (x, low, high) = scene.items.iter().find_map(highest).expect("a band");
            assert_eq!(x, 511.0, "{resolution} columns");
            assert!((low - 1000.0).abs() < 0.01 && (high - 1020.0).abs() < 0.01);
            assert!(scene.y.range.1 > 1020.0);
        }
    }
}
