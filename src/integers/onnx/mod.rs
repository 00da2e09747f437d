//! A network as ONNX, in standard operations, or as QONNX, with `Quant` nodes.
//!
//! Input `images`: u8 `[N, C, H, W]` where the network's input is quantized (f32 for readers that take no
//! bytes, see [`Input`]), else f32 as the experiment normalises pictures. Output `logits`: f32 `[N, classes]`.
//!
//! In standard operations a quantizer is arithmetic that rounds half away from zero on every tie:
//! `floor((floor(2 x / d) + 1) / 2) d`, with the sign taken out and put back where there is one. (ONNX's
//! QuantizeLinear rounds half to even, and on grids of powers of two ties are common.) Batch norm is by
//! default the very subtraction, product and sum that the kernels compute, so that a runtime that rounds
//! as IEEE 754 says gives the same levels; see [`NormForm`] for the others.

mod model;
mod nodes;
mod pools;
mod quantizers;

use std::collections::HashMap;

use self::model::{Attribute, Model};
use super::ExportError;
use crate::dataset::Normalisation;
use crate::graph::{Graph, NodeId};
use crate::network::Snapshot;

/// How batch norm is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum NormForm {
    /// The kernels' own operations, in their order: the same levels by construction.
    Exact,
    /// `x scale + shift`: one operation less. A value next to a threshold may fall on the other side.
    Folded,
    /// `BatchNormalization`, which other tools know; the same holds.
    Kept,
}

/// How ties are rounded in `Quant` nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Rounding {
    /// As in training (`HALF_UP`, which QONNX takes away from zero).
    HalfAway,
    /// `ROUND`, for readers that know no other: values on ties differ.
    HalfEven,
}

/// What a file takes where the network's input is quantized.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Input {
    /// Pictures as bytes; the file normalises them.
    Bytes,
    /// f32 as the experiment normalises pictures: for readers that take no bytes.
    Numbers,
}

/// Which operations a file may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    /// ONNX's own.
    Standard,
    /// `Quant` besides.
    Qonnx(Rounding),
}

/// The file's bytes.
///
/// # Errors
/// Quantizers that the dialect has no node for.
pub fn to_bytes(
    network: &Snapshot,
    normalisation: &Normalisation,
    dialect: Dialect,
    norm: NormForm,
    input: Input,
) -> Result<Vec<u8>, ExportError> {
    let writer = Writer {
        network,
        normalisation,
        dialect,
        norm,
        input,
        model: Model::new(),
        values: HashMap::new(),
    };
    let model = writer.write()?;
    model
        .to_bytes()
        .map_err(|e| ExportError::Unsupported(format!("the model's encoding: {e}")))
}

/// A node's value in the model.
#[derive(Debug, Clone)]
struct Value {
    name: String,
    /// `[N, F]` and not `[N, C, H, W]`.
    is_flat: bool,
}

struct Writer<'a> {
    network: &'a Snapshot,
    normalisation: &'a Normalisation,
    dialect: Dialect,
    norm: NormForm,
    input: Input,
    model: Model,
    values: HashMap<NodeId, Value>,
}

impl Writer<'_> {
    fn write(mut self) -> Result<Model, ExportError> {
        let mut graph = Graph::clone(&self.network.graph);
        // (A layer may be called as the file's input or output is.)
        let nodes = graph.nodes.iter_mut();
        nodes
            .filter(|n| ["images", "logits"].contains(&n.name.as_str()))
            .for_each(|n| n.name += ".layer");
        for id in 0..graph.nodes.len() {
            let mut value = self.operation(&graph, id)?;
            if let Some(grid) = self.network.grid(self.network.placement.of_node[id]) {
                value.name = self.quantizer(&graph.nodes[id].name, &value.name, &grid)?;
            }
            self.values.insert(id, value);
        }
        let output = self.values[&graph.output()].clone();
        if output.is_flat {
            self.model.rename(&output.name, "logits");
        } else {
            let axis = vec![("axis", Attribute::Int(1))];
            self.model
                .node_with("Flatten", &[&output.name], "logits", axis);
        }
        self.model.output("logits", &[graph.classes()]);
        for (key, text) in self.notes() {
            self.model.note(&key, text);
        }
        Ok(self.model)
    }

    /// Bits of every quantizer, for whoever opens the file.
    fn notes(&self) -> Vec<(String, String)> {
        let quantizers = self.network.placement.quantizers.iter();
        let bits: Vec<String> = quantizers
            .zip(&self.network.grids)
            .map(|(placed, grid)| format!("{} {:?} {}", placed.name, placed.role, grid.bits))
            .collect();
        let mut notes = vec![(
            "bitscope.rounding".to_owned(),
            "half away from zero".to_owned(),
        )];
        if self.dialect == Dialect::Qonnx(Rounding::HalfEven) {
            notes[0].1 = "half to even: values on ties differ from training".to_owned();
        }
        if self.network.quantized {
            notes.push(("bitscope.bits".to_owned(), bits.join("\n")));
        }
        notes
    }
}
