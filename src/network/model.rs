//! Which networks can be built.

use serde::{Deserialize, Serialize};

/// Shortcut around a residual block whose shape changes (He et al.).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Shortcut {
    /// Subsampled, zero-padded identity: no parameters. The paper's choice.
    A,
    /// Projection where the shape changes.
    B,
    /// Projection around every block.
    C,
}

/// A network architecture.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Model {
    /// The demo's: four convolutions and a classifier, 33,000 weights.
    Glyphnet,
    /// Residual network for 32x32 pictures with `6 n + 2` layers.
    ResNet {
        /// Layers: 20, 32, 44, 56 or 110.
        depth: usize,
        /// Type of shortcut.
        shortcut: Shortcut,
    },
}

impl Model {
    /// Names in experiment files.
    pub const NAMES: [&'static str; 6] = [
        "glyphnet",
        "resnet20",
        "resnet32",
        "resnet44",
        "resnet56",
        "resnet110",
    ];

    /// The model of that name.
    pub fn from_name(name: &str, shortcut: Shortcut) -> Option<Self> {
        if name == "glyphnet" {
            return Some(Self::Glyphnet);
        }
        let depth = name.strip_prefix("resnet")?.parse().ok()?;
        Self::NAMES
            .contains(&name)
            .then_some(Self::ResNet { depth, shortcut })
    }
}
