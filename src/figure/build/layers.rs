//! Quantities of every layer over steps.

use super::super::scene::{Ink, Line, Scale, Scene, Shade};
use super::Builder;
use super::over_steps::Drawn;
use super::rows::{FEW, stages};
use crate::quantizer::memory::Side;
use crate::run::{LayerHistory, LayerQuantity};

impl Builder<'_> {
    /// The layers that the filter lets through, with their places.
    pub(super) fn visible_layers(&self) -> Vec<(usize, &LayerHistory)> {
        let layers = self.history.layers.iter().enumerate();
        layers.filter(|(_, l)| self.view.shows(l)).collect()
    }

    /// A quantity of one side's layers.
    pub(super) fn layers(
        &self,
        title: &str,
        side: Side,
        scale: Scale,
        quantity: LayerQuantity,
    ) -> Scene {
        let full = format!("{title}, {}", side.word());
        let layers = self.visible_layers().into_iter();
        let count = layers.filter(|(_, l)| l.info.role.side() == side).count();
        self.by_layer(full, title, scale, &[side], quantity, self.as_heat(count))
    }

    /// Gradients by layer: panel 0 of the weights themselves, then of the first and of the second
    /// parameter of every quantizer.
    pub(super) fn gradients(&self, index: usize) -> Scene {
        let name = |i: usize| {
            let names = |l: &LayerHistory| l.info.parametrization.parameter_names()[i];
            let mut names: Vec<&str> = self.history.layers.iter().map(names).collect();
            names.sort_unstable();
            names.dedup();
            names.join(" or ")
        };
        let word = |i: usize| {
            let word = |name: &str| match name {
                "b" => "bitwidth",
                "d" => "step size",
                "q_min" => "smallest level",
                _ => "range",
            };
            name(i)
                .split(" or ")
                .map(word)
                .collect::<Vec<_>>()
                .join(" or ")
        };
        let (title, sides, quantity) = match index {
            0 => (
                "gradient norm of W".to_owned(),
                &[Side::Weights][..],
                LayerQuantity::GradientNorm,
            ),
            1 => (
                format!("|∂{}|, {}", name(0), word(0)),
                &Side::BOTH[..],
                LayerQuantity::FirstGradient,
            ),
            _ => (
                format!("|∂{}|, {}", name(1), word(1)),
                &Side::BOTH[..],
                LayerQuantity::SecondGradient,
            ),
        };
        // One way for all three panels.
        let heat = self.as_heat(self.visible_layers().len());
        self.by_layer(title, "magnitude", Scale::Log10, sides, quantity, heat)
    }

    /// Lines of few layers, a heat map of many.
    fn by_layer(
        &self,
        title: String,
        unit: &str,
        scale: Scale,
        sides: &[Side],
        quantity: LayerQuantity,
        heat: bool,
    ) -> Scene {
        let layers = self.visible_layers();
        let shown = layers
            .iter()
            .filter(|(_, l)| sides.contains(&l.info.role.side()) && !l[quantity].is_empty());
        let shown: Vec<(usize, &LayerHistory)> = shown.copied().collect();
        if heat {
            let base = if scale == Scale::Log2 { 2 } else { 10 };
            let shade = Shade::Exponent {
                base,
                range: (0.0, 0.0),
            };
            return self.heat_of(title, sides, quantity, shade);
        }
        let lines = self.lines_of(shown, quantity);
        self.scene(title, unit, scale, lines, Vec::new())
    }

    /// A line per layer. Where there are more than can be told apart, colours and legend are those of
    /// their stages.
    fn lines_of(
        &self,
        mut layers: Vec<(usize, &LayerHistory)>,
        quantity: LayerQuantity,
    ) -> Vec<Line> {
        let inks = self.layer_inks();
        let many = layers.len() > FEW;
        let stages = if many {
            stages(self.history)
        } else {
            Vec::new()
        };
        let mut named: Vec<(&str, Ink)> = Vec::new();
        // The chosen layer is painted last, over the others.
        layers.sort_by_key(|(i, _)| Some(*i) == self.view.selected);
        let count = layers.len();
        let noise = matches!(
            quantity,
            LayerQuantity::GradientNorm
                | LayerQuantity::FirstGradient
                | LayerQuantity::SecondGradient
        );
        let lines = layers.into_iter().map(|(i, layer)| {
            let label = if !many {
                layer.info.name.as_str()
            } else if named.contains(&(stages[i].as_str(), inks[i])) {
                ""
            } else {
                named.push((stages[i].as_str(), inks[i]));
                stages[i].as_str()
            };
            let mut line = self.line(&Drawn {
                label,
                series: &layer[quantity],
                ink: inks[i],
                dash: i % 4,
                smooth: true,
                // Magnitudes of gradients jump from step to step: what moves is seen behind that.
                least: if noise && count > 1 { 0.9 } else { 0.0 },
                factor: 1.0,
            });
            // Bands of many lines would be one grey wall: only the chosen one keeps its own.
            if count > 1 && self.view.selected != Some(i) {
                line.band.clear();
            }
            if many {
                // A stage has no single value at the cursor.
                line.label = label.to_owned();
            }
            line
        });
        lines.filter(|line| !line.segments.is_empty()).collect()
    }
}
