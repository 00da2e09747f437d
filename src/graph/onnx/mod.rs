//! Networks as ONNX files, any opset, with the names that they have there.
//!
//! What exporters leave lying about (constants, shapes that are computed from the batch, casts,
//! dropout) is computed while reading; what remains are the nodes of a [`Graph`](super::Graph).
//!
//! Doors: [`read`], [`graph`], [`declared`].

mod attributes;
mod constant;
mod convert;
mod evaluate;
mod fold;

use std::io::{BufReader, Read};
use std::path::Path;

use rten_onnx::onnx::ModelProto;
use rten_onnx::protobuf::{
    DecodeMessage, OwnedValues, ProtobufError, ReadPos, ReadValue, ValueReader,
};

use super::error::GraphError;
use super::model::{Architecture, Built};
use super::node::Shape;

/// What is expected of a file.
const EXPECTED: &str = "an ONNX model";

/// Reads a model; its weights come along, in memory once.
///
/// # Errors
/// Where the file cannot be read, is cut, or is something else.
pub fn read(path: &Path) -> Result<ModelProto, GraphError> {
    let wrong = |found: String| GraphError::file(path, found, EXPECTED);
    let unreadable = |e: std::io::Error| wrong(e.to_string());
    let metadata = std::fs::metadata(path).map_err(unreadable)?;
    if !metadata.is_file() {
        return Err(wrong("it is no regular file".into()));
    }
    if metadata.len() == 0 {
        return Err(wrong("the file is empty".into()));
    }
    let mut file = crate::files::open(path).map_err(unreadable)?;
    let mut first = [0u8; 1];
    file.read_exact(&mut first).map_err(unreadable)?;
    // A message begins with the key of a field, whose number is at least one.
    if first[0] >> 3 == 0 {
        return Err(wrong("its first byte begins no protobuf message".into()));
    }
    let file = crate::files::open(path).map_err(unreadable)?;
    let reader = Bounded {
        inner: ValueReader::new(ReadPos::new(BufReader::new(file))),
        length: metadata.len(),
    };
    let model = ModelProto::decode(reader)
        .map_err(|e| wrong(format!("the file is cut or damaged: {e}")))?;
    let has_nodes = model.graph.as_ref().is_some_and(|g| !g.node.is_empty());
    if !has_nodes {
        return Err(wrong("a file without a graph".into()));
    }
    Ok(model)
}

/// The graph of a model for pictures of this shape; of the shape that it declares where `None`.
///
/// # Errors
/// Operations that are not known, all of them; inputs or outputs among which one has to be named;
/// shapes that do not fit.
pub fn graph(
    path: &Path,
    model: &ModelProto,
    architecture: &Architecture,
    input: Option<Shape>,
) -> Result<Built, GraphError> {
    convert::convert(path, model, architecture, input)
}

/// The shape of a picture that a model declares, as far as it does.
pub fn declared(model: &ModelProto, input: Option<&str>) -> Option<Shape> {
    convert::declared_shape(model.graph.as_ref()?, input)
}

/// A reader that believes no length that goes beyond the file: nothing is allocated for it.
struct Bounded<R> {
    inner: R,
    length: u64,
}

impl<R: ReadValue<Types = OwnedValues>> Bounded<R> {
    fn has(&self, bytes: usize) -> Result<(), ProtobufError> {
        let end = self.inner.position().checked_add(bytes as u64);
        if end.is_some_and(|end| end <= self.length) {
            Ok(())
        } else {
            let eof = rten_onnx::protobuf::ErrorKind::Eof;
            Err(ProtobufError::new(eof))
        }
    }
}

impl<R: ReadValue<Types = OwnedValues>> ReadValue for Bounded<R> {
    type Types = OwnedValues;

    fn read_i32(&mut self) -> Result<i32, ProtobufError> {
        self.inner.read_i32()
    }

    fn read_i64(&mut self) -> Result<i64, ProtobufError> {
        self.inner.read_i64()
    }

    fn read_varint(&mut self) -> Result<u64, ProtobufError> {
        self.inner.read_varint()
    }

    fn read_bytes(&mut self, len: usize) -> Result<Vec<u8>, ProtobufError> {
        self.has(len)?;
        self.inner.read_bytes(len)
    }

    fn read_string(&mut self, len: usize) -> Result<String, ProtobufError> {
        self.has(len)?;
        self.inner.read_string(len)
    }

    fn skip(&mut self, len: usize) -> Result<(), ProtobufError> {
        self.has(len)?;
        self.inner.skip(len)
    }

    fn position(&self) -> u64 {
        self.inner.position()
    }
}
