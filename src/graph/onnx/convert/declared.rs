//! Inputs and outputs that a file declares.

use std::path::Path;

use rten_onnx::onnx::{GraphProto, ValueInfoProto};

use crate::graph::error::GraphError;
use crate::graph::node::Shape;

/// Names of the inputs that are no weights.
pub(super) fn inputs(proto: &GraphProto) -> Vec<&str> {
    let weights = |name: &str| {
        proto
            .initializer
            .iter()
            .any(|t| t.name.as_deref() == Some(name))
    };
    proto
        .input
        .iter()
        .filter_map(|i| i.name.as_deref())
        .filter(|name| !weights(name))
        .collect()
}

/// Sizes that an input declares; `None` where they are dynamic.
pub(super) fn sizes(info: &ValueInfoProto) -> Vec<Option<usize>> {
    let tensor = info.r#type.as_ref().and_then(|t| t.tensor_type.as_ref());
    let shape = tensor.and_then(|t| t.shape.as_ref());
    let dims = shape.map_or(&[][..], |s| &s.dim[..]);
    dims.iter()
        .map(|d| {
            d.dim_value
                .and_then(|v| usize::try_from(v).ok())
                .filter(|v| *v > 0)
        })
        .collect()
}

/// See [`declared`](super::super::declared).
pub(in crate::graph::onnx) fn declared_shape(
    proto: &GraphProto,
    input: Option<&str>,
) -> Option<Shape> {
    let names = inputs(proto);
    let name = input.or_else(|| names.first().copied())?;
    let info = proto
        .input
        .iter()
        .find(|i| i.name.as_deref() == Some(name))?;
    match sizes(info)[..] {
        [_, c, h, w] => Some([c?, h?, w?]),
        _ => None,
    }
}

/// The one of that name, or the only one there is.
pub(super) fn the_one<'a>(
    path: &Path,
    all: &[&'a str],
    wanted: Option<&str>,
    what: &str,
) -> Result<&'a str, GraphError> {
    let list = || {
        let names: Vec<String> = all.iter().map(|n| format!("`{n}`")).collect();
        names.join(", ")
    };
    match (wanted, all) {
        (Some(wanted), _) => all.iter().copied().find(|n| *n == wanted).ok_or_else(|| {
            GraphError::file(
                path,
                format!("no {what} `{wanted}`"),
                format!("`model.{what}` one of {}", list()),
            )
        }),
        (None, [one]) => Ok(one),
        (None, []) => Err(GraphError::file(
            path,
            format!("no {what}"),
            format!("one {what}"),
        )),
        (None, _) => Err(GraphError::file(
            path,
            format!("{} {what}s: {}", all.len(), list()),
            format!("`model.{what}` to name one of them"),
        )),
    }
}
