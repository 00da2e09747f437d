//! Layers as rows: one by one, or folded to stages or kinds where there are many.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::super::scene::Ink;
use super::{Builder, View};
use crate::quantizer::memory::Side;
use crate::run::{History, LayerHistory, LayerQuantity};

/// Layers that lines and colours tell apart; above that, heat maps and stages are clearer.
pub const FEW: usize = 8;
/// Groups that make a stage worth its name: one prefix for nearly all layers says nothing.
const STAGES: usize = 4;

/// How layers are folded to rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Fold {
    /// A row for every quantizer.
    #[default]
    Layers,
    /// A row for every stage: the layers whose names begin alike.
    Stages,
    /// A row for every kind of layer.
    Kinds,
}

impl Fold {
    /// The next one, for a key that goes through them.
    pub fn next(self) -> Self {
        match self {
            Self::Layers => Self::Stages,
            Self::Stages => Self::Kinds,
            Self::Kinds => Self::Layers,
        }
    }

    /// In a few words.
    pub fn words(self) -> &'static str {
        match self {
            Self::Layers => "a row for every quantizer",
            Self::Stages => "a row for every stage",
            Self::Kinds => "a row for every kind of layer",
        }
    }
}

/// How the quantities of layers are drawn over steps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum ByLayer {
    /// Lines where there are few layers, else heat maps.
    #[default]
    Auto,
    /// A line for every layer.
    Lines,
    /// Layers x steps, in shades of the magnitude.
    Heat,
}

impl ByLayer {
    /// The next one, for a key that goes through them.
    pub fn next(self) -> Self {
        match self {
            Self::Auto => Self::Lines,
            Self::Lines => Self::Heat,
            Self::Heat => Self::Auto,
        }
    }

    /// In a few words.
    pub fn words(self) -> &'static str {
        match self {
            Self::Auto => "lines for few layers, heat maps for many",
            Self::Lines => "a line for every layer",
            Self::Heat => "layers x steps",
        }
    }
}

/// One row: a layer, or several that are folded together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// Name of the layer, the stage or the kind.
    pub label: String,
    /// Side of all its members.
    pub side: Side,
    /// Places of its layers in the history, ascending.
    pub members: Vec<usize>,
}

impl Row {
    /// Mean over its members, by their elements; `None` where none has a value.
    pub fn mean(
        &self,
        history: &History,
        value: impl Fn(&LayerHistory) -> Option<f64>,
    ) -> Option<f64> {
        mean_by_elements(self.members.iter().filter_map(|member| {
            let layer = &history.layers[*member];
            Some((layer.info.elements, value(layer)?))
        }))
    }
}

/// Mean of finite values, each with the number of elements that it is of; `None` of none.
pub fn mean_by_elements(values: impl Iterator<Item = (usize, f64)>) -> Option<f64> {
    let finite = values.filter(|(_, value)| value.is_finite());
    let (sum, weight) = finite.fold((0.0, 0.0), |(sum, weight), (elements, value)| {
        let elements = elements.max(1) as f64;
        (sum + elements * value, weight + elements)
    });
    (weight > 0.0).then(|| sum / weight)
}

/// The layers that a view shows, as rows in the order of the network.
pub fn rows(history: &History, view: &View) -> Vec<Row> {
    let shown = history.layers.iter().enumerate();
    let shown: Vec<(usize, &LayerHistory)> = shown.filter(|(_, l)| view.shows(l)).collect();
    let stages = match view.fold {
        Fold::Stages => stages(history),
        _ => Vec::new(),
    };
    let mut rows: Vec<Row> = Vec::new();
    let mut places: BTreeMap<(Side, String), usize> = BTreeMap::new();
    for (i, layer) in shown {
        let (side, info) = (layer.info.role.side(), &layer.info);
        let label = match view.fold {
            Fold::Layers => info.name.clone(),
            Fold::Stages => stages[i].clone(),
            Fold::Kinds => info.kind.word().to_owned(),
        };
        if view.fold == Fold::Layers {
            let members = vec![i];
            rows.push(Row {
                label,
                side,
                members,
            });
            continue;
        }
        match places.get(&(side, label.clone())) {
            Some(at) => rows[*at].members.push(i),
            None => {
                places.insert((side, label.clone()), rows.len());
                let members = vec![i];
                rows.push(Row {
                    label,
                    side,
                    members,
                });
            }
        }
    }
    rows
}

/// The stage of every layer: the shortest beginning of its name, in whole words between dots, that
/// takes the network apart at all.
pub fn stages(history: &History) -> Vec<String> {
    let words: Vec<Vec<&str>> = (history.layers.iter())
        .map(|l| l.info.name.split('.').collect())
        .collect();
    let deepest = words.iter().map(Vec::len).max().unwrap_or(1);
    let at = |depth: usize| -> Vec<String> {
        let cut = words.iter().map(|w| w[..depth.min(w.len())].join("."));
        cut.collect()
    };
    for depth in 1..deepest {
        let names = at(depth);
        let distinct: std::collections::BTreeSet<&String> = names.iter().collect();
        if distinct.len() >= STAGES {
            return names;
        }
    }
    at(deepest)
}

impl Builder<'_> {
    /// The rows of one side.
    pub(super) fn rows_of(&self, side: Side) -> Vec<Row> {
        let mut rows = rows(self.history, self.view);
        rows.retain(|r| r.side == side);
        rows
    }

    /// A colour for every layer, the same in all figures of a run: its number among its side's, or its
    /// stage's where there are more layers than colours. More stages than colours are shades of one ramp,
    /// in the order of the network.
    pub(super) fn layer_inks(&self) -> Vec<Ink> {
        let layers = &self.history.layers;
        let mut counts = [0, 0];
        let numbers: Vec<usize> = layers
            .iter()
            .map(|l| {
                let count = &mut counts[l.info.role.side() as usize];
                *count += 1;
                *count - 1
            })
            .collect();
        if counts.iter().all(|c| *c <= FEW) {
            return numbers.into_iter().map(Ink::Layer).collect();
        }
        let mut seen: Vec<String> = Vec::new();
        let stages = stages(self.history).into_iter().map(|stage| {
            let known = seen.iter().position(|s| *s == stage);
            known.unwrap_or_else(|| {
                seen.push(stage);
                seen.len() - 1
            })
        });
        let stages: Vec<usize> = stages.collect();
        let last = stages.iter().max().copied().unwrap_or(0);
        let ink = |stage: usize| match last < FEW {
            true => Ink::Layer(stage),
            false => Ink::Level(stage as f32 / last as f32),
        };
        stages.into_iter().map(ink).collect()
    }

    /// Whether a quantity of so many layers is drawn as a heat map.
    pub(super) fn as_heat(&self, layers: usize) -> bool {
        match self.view.by_layer {
            // Folded layers are rows, which lines are not.
            ByLayer::Auto => layers > FEW || self.view.fold != Fold::Layers,
            ByLayer::Lines => false,
            ByLayer::Heat => true,
        }
    }

    /// Where the chosen layer stands among rows, or the first row behind it.
    pub(super) fn focus(&self, rows: &[Row]) -> (usize, Option<usize>) {
        let Some(chosen) = self.view.selected else {
            return (0, None);
        };
        let selected = rows.iter().position(|r| r.members.contains(&chosen));
        let behind = rows.iter().position(|r| r.members[0] >= chosen);
        let focus = selected.or(behind).unwrap_or(rows.len().saturating_sub(1));
        (focus, selected)
    }

    /// A series of a layer, where it was recorded at all.
    pub(super) fn recorded(&self, row: &Row, quantity: LayerQuantity) -> bool {
        let mut members = row.members.iter();
        members.any(|m| !self.history.layers[*m][quantity].is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::LayerKind;
    use crate::quantizer::Parametrization;
    use crate::quantizer::memory::Role;
    use crate::run::LayerInfo;

    fn history(names: &[&str]) -> History {
        let layer = |name: &&str, role| {
            LayerHistory::new(LayerInfo {
                name: (*name).into(),
                role,
                kind: LayerKind::Convolution,
                elements: 10,
                parametrization: Parametrization::U3,
                clamps: [[0.0, 1.0]; 2],
                quantizer: None,
            })
        };
        let pair = |name| [layer(name, Role::Weight), layer(name, Role::Activation)];
        let mut history = History::default();
        history.layers.extend(names.iter().flat_map(pair));
        history
    }

    #[test]
    fn stages_are_the_shortest_prefix_that_takes_a_network_apart() {
        let of = |names: &[&str]| {
            let mut stages = stages(&history(names));
            stages.dedup();
            stages
        };
        let resnet = [
            "conv1",
            "layer1.0.conv1",
            "layer1.1.conv1",
            "layer2.0.conv1",
            "fc",
        ];
        assert_eq!(of(&resnet), ["conv1", "layer1", "layer2", "fc"]);
        let mobilenet = [
            "features.0.0",
            "features.1.conv",
            "features.2.conv",
            "classifier.1",
        ];
        let stages = ["features.0", "features.1", "features.2", "classifier.1"];
        assert_eq!(of(&mobilenet), stages);
    }

    #[test]
    fn folding_keeps_every_layer_and_its_side() {
        let history = history(&["conv1", "layer1.0.a", "layer1.0.b", "layer2.0.a", "fc"]);
        for fold in [Fold::Layers, Fold::Stages, Fold::Kinds] {
            let view = View {
                fold,
                ..View::default()
            };
            let rows = rows(&history, &view);
            let mut members: Vec<usize> = rows.iter().flat_map(|r| r.members.clone()).collect();
            members.sort_unstable();
            assert_eq!(members, (0..10).collect::<Vec<_>>(), "{fold:?}");
            for row in &rows {
                let side = |m: &usize| history.layers[*m].info.role.side();
                assert!(row.members.iter().all(|m| side(m) == row.side), "{fold:?}");
            }
        }
    }
}
