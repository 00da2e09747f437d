//! The graph of what an experiment asks for, wherever that comes from.

use super::error::GraphError;
use super::model::{Architecture, Built};
use super::node::Shape;
use super::node::{Kind, Operation};
use super::{built_in, onnx, written};

impl Architecture {
    /// The graph for pictures of this shape with as many outputs as it has.
    ///
    /// # Errors
    /// As [`Self::graph`], but for the number of outputs.
    pub fn as_it_is(&self, input: Shape) -> Result<Built, GraphError> {
        match self {
            Self::File { path, .. } => onnx::graph(path, &onnx::read(path)?, self, Some(input)),
            Self::BuiltIn(_) | Self::Written(_) => self.graph(input, 10),
        }
    }

    /// The graph for pictures of this shape, `[c, h, w]`, and this many classes.
    ///
    /// # Errors
    /// Where a file cannot be read or holds what is not known, where shapes do not fit, or where the
    /// network has another number of outputs.
    pub fn graph(&self, input: Shape, classes: usize) -> Result<Built, GraphError> {
        let mut built = match self {
            Self::BuiltIn(model) => Built::of(built_in::graph(*model, input, classes)?),
            Self::File { .. } => self.as_it_is(input)?,
            Self::Written(layers) => Built::of(written::graph(layers, input, classes)?),
        };
        let outputs = built.graph.classes();
        if outputs != classes {
            let replaces = matches!(
                self,
                Self::File {
                    replace_head: true,
                    ..
                }
            );
            if !replaces || !replace_head(&mut built, classes) || built.graph.classes() != classes {
                return Err(GraphError::Classes { outputs, classes });
            }
            built.notes.push(format!(
                "the last layer is new, with {classes} outputs instead of {outputs}"
            ));
        }
        Ok(built)
    }
}

/// Gives the last layer with weights `classes` outputs and forgets its values; `false` where what
/// follows it does not allow that.
fn replace_head(built: &mut Built, classes: usize) -> bool {
    let graph = &mut built.graph;
    let has_weights = |op: &Operation| {
        matches!(
            op,
            Operation::Affine { .. } | Operation::Convolution { groups: 1, .. }
        )
    };
    let Some(head) = graph.nodes.iter().rposition(|n| has_weights(&n.operation)) else {
        return false;
    };
    // Behind it, only what keeps the number of channels.
    let keeps = |op: &Operation| {
        op.is_nonlinearity() || matches!(op, Operation::GlobalAverage | Operation::Reshape(_))
    };
    if !graph.nodes[head + 1..].iter().all(|n| keeps(&n.operation)) {
        return false;
    }
    let (weight, bias) = match graph.nodes[head].operation {
        Operation::Affine { weight, bias } | Operation::Convolution { weight, bias, .. } => {
            (weight, bias)
        }
        _ => return false,
    };
    let before = graph.nodes[head].shape[0];
    for parameter in [Some(weight), bias].into_iter().flatten() {
        graph.parameters[parameter].shape[0] = classes;
        built.values.remove(&graph.parameters[parameter].name);
        debug_assert!(matches!(
            graph.parameters[parameter].kind,
            Kind::Weight | Kind::Bias
        ));
    }
    for node in &mut graph.nodes[head..] {
        let scaled = |n: usize| n / before * classes;
        node.shape[0] = scaled(node.shape[0]);
        if let Operation::Reshape(shape) = &mut node.operation {
            shape[0] = scaled(shape[0]);
        }
    }
    true
}
