//! Weights for whoever wants to look at them: float and fake-quantized, with their quantizers.
//!
//! A safetensors file, f32 throughout. `PARAMETER`: the float master; `PARAMETER.quantized`: what the
//! forward pass sees; `NAME.d`, `NAME.q_max`, `NAME.bits` (of a power-of-two quantizer `NAME.q_min`
//! besides, where `d` is absent) of every quantizer, whose name is its parameter's, or its node's with
//! `.activation`; running statistics under the names that frameworks give them. Metadata `quantizers`: a
//! JSON list with name, role, parametrization, sign and bits of each.

use std::collections::HashMap;

use super::ExportError;
use crate::network::Snapshot;
use crate::network::weights::{Tensors, to_bytes as safetensors};
use crate::quantizer::Family;

/// The file's bytes.
///
/// # Errors
/// Where the file cannot be laid out.
pub fn to_bytes(network: &Snapshot) -> Result<Vec<u8>, ExportError> {
    let mut tensors = Tensors::new();
    let graph = &network.graph;
    for (index, parameter) in graph.parameters.iter().enumerate() {
        let values = network.parameters[index].clone();
        tensors.insert(parameter.name.clone(), (parameter.shape.clone(), values));
        if network
            .grid(network.placement.of_parameter[index])
            .is_some()
        {
            let name = format!("{}.quantized", parameter.name);
            let used = network.used(index);
            tensors.insert(name, (parameter.shape.clone(), used));
        }
    }
    for (norm, rows) in graph.norms.iter().zip(&network.norms) {
        for (entry, row) in norm.entries.iter().zip(rows) {
            tensors.insert(entry.clone(), (vec![row.len()], row.clone()));
        }
    }
    let placement = &network.placement;
    let of_parameters = graph.parameters.iter().zip(&placement.of_parameter);
    let named = of_parameters.map(|(parameter, slot)| (parameter.name.clone(), *slot));
    let activations = placement.quantizers.iter().enumerate();
    let activations = activations.filter(|(_, placed)| placed.parameter.is_none());
    let activations =
        activations.map(|(slot, placed)| (format!("{}.activation", placed.name), Some(slot)));
    for (name, slot) in named.chain(activations) {
        let Some(grid) = network.grid(slot) else {
            continue;
        };
        let mut number = |entry: &str, value: f32| {
            tensors.insert(format!("{name}.{entry}"), (vec![1], vec![value]));
        };
        let step = match grid.family {
            Family::Uniform => "d",
            Family::PowerOfTwo => "q_min",
        };
        number(step, grid.step);
        number("q_max", grid.q_max);
        number("bits", grid.bits as f32);
    }
    let quantizers = network.placement.quantizers.iter().zip(&network.grids);
    let quantizers: Vec<serde_json::Value> = quantizers
        .map(|(placed, grid)| {
            serde_json::json!({
                "name": placed.name,
                "role": placed.role,
                "parametrization": placed.plan.quantizer.parametrization.name(),
                "signed": grid.signed,
                "bits": grid.bits,
            })
        })
        .collect();
    let metadata = HashMap::from([
        ("format".to_owned(), "bitscope weights 1".to_owned()),
        (
            "quantizers".to_owned(),
            serde_json::Value::from(quantizers).to_string(),
        ),
    ]);
    safetensors(&tensors, metadata).map_err(|e| ExportError::Unsupported(e.to_string()))
}
