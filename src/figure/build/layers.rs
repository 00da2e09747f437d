//! Quantities of every layer over steps.

use super::super::scene::{Ink, Line, Scale, Scene};
use super::Builder;
use super::over_steps::Drawn;
use crate::quantizer::memory::Role;
use crate::run::{LayerHistory, LayerQuantity};

impl Builder<'_> {
    pub(super) fn visible_layers(&self) -> Vec<(usize, &LayerHistory)> {
        let layers = self.history.layers.iter().enumerate();
        layers.filter(|(_, l)| self.view.shows(l)).collect()
    }

    pub(super) fn depth(&self, index: usize) -> Ink {
        let last = self.history.layers.len().saturating_sub(1).max(1);
        Ink::Depth(index as f32 / last as f32)
    }

    /// One line per layer; panel 0 shows weights and biases, panel 1 activations.
    pub(super) fn layers(
        &self,
        title: &str,
        index: usize,
        scale: Scale,
        quantity: LayerQuantity,
    ) -> Scene {
        let side = if index == 0 { "weights" } else { "activations" };
        let lines = self.layer_lines(
            |l| (l.info.role == Role::Activation) == (index == 1),
            quantity,
        );
        self.scene(format!("{title}, {side}"), title, scale, lines, Vec::new())
    }

    pub(super) fn layer_lines(
        &self,
        keep: impl Fn(&LayerHistory) -> bool,
        quantity: LayerQuantity,
    ) -> Vec<Line> {
        let mut layers = self.visible_layers();
        layers.retain(|(_, l)| keep(l));
        // The selected layer is painted last, over the others.
        layers.sort_by_key(|(i, _)| Some(*i) == self.view.selected);
        layers
            .into_iter()
            .map(|(i, layer)| {
                let ink = self.depth(i);
                let label = layer.info.name.as_str();
                self.line(&Drawn {
                    label,
                    series: &layer[quantity],
                    ink,
                    dash: i % 4,
                    smooth: true,
                    factor: 1.0,
                })
            })
            .filter(|line| !line.segments.is_empty())
            .collect()
    }

    pub(super) fn gradients(&self, index: usize) -> Scene {
        let first = |l: &LayerHistory| l.info.parametrization.parameter_names();
        let name = |i: usize| {
            let mut names: Vec<&str> = self.history.layers.iter().map(|l| first(l)[i]).collect();
            names.sort_unstable();
            names.dedup();
            names.join("/")
        };
        let (title, lines) = match index {
            0 => (
                "gradient norm of W".to_owned(),
                self.layer_lines(
                    |l| l.info.role != Role::Activation,
                    LayerQuantity::GradientNorm,
                ),
            ),
            1 => (
                format!("|gradient| of {}", name(0)),
                self.layer_lines(|_| true, LayerQuantity::FirstGradient),
            ),
            _ => (
                format!("|gradient| of {}", name(1)),
                self.layer_lines(|_| true, LayerQuantity::SecondGradient),
            ),
        };
        self.scene(title, "magnitude", Scale::Log10, lines, Vec::new())
    }
}
