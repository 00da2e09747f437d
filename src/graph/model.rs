//! What an experiment asks for: a network that is built in, one from a file, or one that it writes
//! down itself.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::node::Graph;
use super::written::LayerSpec;

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

/// A network that is built in.
#[derive(Debug, Clone, Copy, PartialEq)]
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
    /// Residual network for 224x224 pictures, with torchvision's structure and names.
    ImageNetResNet {
        /// Layers: 18, 34 or 50.
        depth: usize,
    },
    /// MobileNetV2, with torchvision's structure and names.
    MobileNetV2 {
        /// Factor on the number of channels.
        width: f64,
    },
}

impl Model {
    /// Names in experiment files.
    pub const NAMES: [&'static str; 10] = [
        "glyphnet",
        "resnet20",
        "resnet32",
        "resnet44",
        "resnet56",
        "resnet110",
        "resnet18",
        "resnet34",
        "resnet50",
        "mobilenet_v2",
    ];

    /// The model of that name.
    pub fn from_name(name: &str, shortcut: Shortcut, width: f64) -> Option<Self> {
        if !Self::NAMES.contains(&name) {
            return None;
        }
        Some(match name {
            "glyphnet" => Self::Glyphnet,
            "mobilenet_v2" => Self::MobileNetV2 { width },
            _ => match name.strip_prefix("resnet")?.parse().ok()? {
                depth @ (18 | 34 | 50) => Self::ImageNetResNet { depth },
                depth => Self::ResNet { depth, shortcut },
            },
        })
    }
}

/// What becomes of batch norms that an exporter folded into the convolutions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NormChoice {
    /// The network stays as it is: biases are trained.
    Keep,
    /// Every convolution with a bias gets a batch norm that starts as the identity of what
    /// calibration batches show.
    Fresh,
}

/// What an experiment asks for.
#[derive(Debug, Clone, PartialEq)]
pub enum Architecture {
    /// A network that is built in.
    BuiltIn(Model),
    /// An ONNX file.
    File {
        /// Where it is.
        path: PathBuf,
        /// The input that pictures go to, where there are several.
        input: Option<String>,
        /// The output that yields the logits, where there are several.
        output: Option<String>,
        /// What becomes of folded batch norms.
        norm: NormChoice,
        /// Whether a last layer of another size is replaced.
        replace_head: bool,
    },
    /// The experiment's own `[[model.layers]]`.
    Written(Vec<LayerSpec>),
}

/// Values of parameters and running statistics by name.
pub type Values = BTreeMap<String, Vec<f32>>;

/// A graph with what came along.
#[derive(Debug, Clone, PartialEq)]
pub struct Built {
    /// The network.
    pub graph: Graph,
    /// Values that its file holds; empty for networks that begin at random.
    pub values: Values,
    /// Batch norms that start as the identity and wait for calibration, by node.
    pub fresh_norms: Vec<usize>,
    /// What a reader should know, a sentence each.
    pub notes: Vec<String>,
}

impl Built {
    pub(super) fn of(graph: Graph) -> Self {
        Self {
            graph,
            values: Values::new(),
            fresh_norms: Vec::new(),
            notes: Vec::new(),
        }
    }
}
