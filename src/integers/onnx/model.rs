//! An ONNX model under construction, and its bytes.
//!
//! The messages are `rten-onnx`'s, except for the graph, which there has no name: the checker wants one.

use std::cell::RefCell;

use rten_onnx::onnx::{
    AttributeProto, AttributeType, DataType, Dimension, NodeProto, OperatorSetIdProto,
    StringStringEntryProto, TensorProto, TensorShapeProto, TypeProto, TypeProtoTensor,
    ValueInfoProto,
};
use rten_onnx::protobuf::{EncodeMessage, MessageWriter, ProtobufError, ValueWriter, WriteValue};

/// Domain of QONNX's quantizers.
pub(super) const QONNX: &str = "qonnx.custom_op.general";

/// A model under construction.
#[derive(Default)]
pub(super) struct Model {
    nodes: Vec<NodeProto>,
    tensors: Vec<TensorProto>,
    inputs: Vec<ValueInfoProto>,
    outputs: Vec<ValueInfoProto>,
    metadata: Vec<StringStringEntryProto>,
    /// Least opset of the operations and types in use.
    opset: i64,
    uses_qonnx: bool,
}

/// A value of an attribute.
pub(super) enum Attribute {
    Int(i64),
    Ints(Vec<i64>),
    Float(f32),
    Text(&'static str),
}

impl Model {
    pub fn new() -> Self {
        Self {
            // Clip takes its bounds as inputs, DequantizeLinear exists, ReduceSum's axes are an input.
            opset: 13,
            ..Self::default()
        }
    }

    /// Asks for an opset of at least this.
    pub fn needs(&mut self, opset: i64) {
        self.opset = self.opset.max(opset);
    }

    /// A node; its one output is named as it is.
    pub fn node(&mut self, op: &str, inputs: &[&str], output: &str) -> String {
        self.node_with(op, inputs, output, Vec::new())
    }

    pub fn node_with(
        &mut self,
        op: &str,
        inputs: &[&str],
        output: &str,
        attributes: Vec<(&str, Attribute)>,
    ) -> String {
        let is_quant = op == "Quant";
        self.uses_qonnx |= is_quant;
        let attribute = attributes.into_iter().map(|(name, value)| {
            let mut proto = AttributeProto {
                name: Some(name.to_owned()),
                ..Default::default()
            };
            proto.r#type = Some(match value {
                Attribute::Int(i) => {
                    proto.i = Some(i);
                    AttributeType::INT
                }
                Attribute::Ints(ints) => {
                    proto.ints = ints;
                    AttributeType::INTS
                }
                Attribute::Float(f) => {
                    proto.f = Some(f);
                    AttributeType::FLOAT
                }
                Attribute::Text(s) => {
                    proto.s = Some(s.to_owned());
                    AttributeType::STRING
                }
            });
            proto
        });
        self.nodes.push(NodeProto {
            domain: is_quant.then(|| QONNX.to_owned()),
            name: Some(format!("{output}/{op}")),
            input: inputs.iter().map(|i| (*i).to_owned()).collect(),
            output: vec![output.to_owned()],
            op_type: Some(op.to_owned()),
            attribute: attribute.collect(),
        });
        output.to_owned()
    }

    /// Numbers under a name; a name that is there is the same numbers.
    pub fn floats(&mut self, name: &str, dims: &[usize], values: &[f32]) -> String {
        let bytes = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        self.tensor(name, DataType::FLOAT, dims, bytes)
    }

    /// One number.
    pub fn scalar(&mut self, value: f32) -> String {
        self.floats(&format!("const/{value:e}"), &[], &[value])
    }

    pub fn longs(&mut self, name: &str, values: &[i64]) -> String {
        let bytes = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        self.tensor(name, DataType::INT64, &[values.len()], bytes)
    }

    /// Integers in the least type that holds them: two to a byte up to four bits.
    pub fn integers(&mut self, name: &str, dims: &[usize], bits: u32, values: &[i32]) -> String {
        match bits {
            ..=4 => {
                self.needs(21);
                let pair = |pair: &[i32]| {
                    let nibble = |i: usize| pair.get(i).map_or(0, |v| *v as u8 & 15);
                    nibble(0) | nibble(1) << 4
                };
                let bytes = values.chunks(2).map(pair).collect();
                self.tensor(name, DataType::INT4, dims, bytes)
            }
            5..=8 => {
                let bytes = values.iter().map(|v| *v as u8).collect();
                self.tensor(name, DataType::INT8, dims, bytes)
            }
            9..=16 => {
                self.needs(21);
                let bytes = values.iter().flat_map(|v| (*v as i16).to_le_bytes());
                self.tensor(name, DataType::INT16, dims, bytes.collect())
            }
            _ => {
                let bytes = values.iter().flat_map(|v| v.to_le_bytes()).collect();
                self.tensor(name, DataType::INT32, dims, bytes)
            }
        }
    }

    /// Places in a table of at most 65,536.
    pub fn places(
        &mut self,
        name: &str,
        dims: &[usize],
        largest: usize,
        values: &[usize],
    ) -> String {
        if largest < 256 {
            let bytes = values.iter().map(|v| *v as u8).collect();
            return self.tensor(name, DataType::UINT8, dims, bytes);
        }
        let bytes = values.iter().flat_map(|v| (*v as u16).to_le_bytes());
        self.tensor(name, DataType::UINT16, dims, bytes.collect())
    }

    fn tensor(
        &mut self,
        name: &str,
        data_type: DataType,
        dims: &[usize],
        bytes: Vec<u8>,
    ) -> String {
        if !self.tensors.iter().any(|t| t.name.as_deref() == Some(name)) {
            self.tensors.push(TensorProto {
                dims: dims.iter().map(|d| *d as i64).collect(),
                data_type: Some(data_type),
                raw_data: Some(RefCell::new(bytes)),
                name: Some(name.to_owned()),
                ..Default::default()
            });
        }
        name.to_owned()
    }

    /// Gives a node's output another name.
    pub fn rename(&mut self, from: &str, to: &str) {
        let names = self.nodes.iter_mut();
        for name in names.flat_map(|n| n.input.iter_mut().chain(&mut n.output)) {
            if name == from {
                to.clone_into(name);
            }
        }
    }

    pub fn input(&mut self, name: &str, is_bytes: bool, shape: &[usize]) {
        let kind = if is_bytes {
            DataType::UINT8
        } else {
            DataType::FLOAT
        };
        self.inputs.push(value(name, kind, shape));
    }

    pub fn output(&mut self, name: &str, shape: &[usize]) {
        self.outputs.push(value(name, DataType::FLOAT, shape));
    }

    pub fn note(&mut self, key: &str, text: String) {
        self.metadata.push(StringStringEntryProto {
            key: Some(key.to_owned()),
            value: Some(text),
        });
    }

    /// The file's bytes.
    pub fn to_bytes(&self) -> Result<Vec<u8>, ProtobufError> {
        let mut bytes = Vec::new();
        Encoded(self).encode(ValueWriter::new(&mut bytes))?;
        Ok(bytes)
    }
}

fn value(name: &str, kind: DataType, shape: &[usize]) -> ValueInfoProto {
    let batch = Dimension {
        dim_value: None,
        dim_param: Some("N".to_owned()),
    };
    let rest = shape.iter().map(|d| Dimension {
        dim_value: Some(*d as i64),
        dim_param: None,
    });
    let tensor_type = TypeProtoTensor {
        elem_type: Some(kind),
        shape: Some(TensorShapeProto {
            dim: [batch].into_iter().chain(rest).collect(),
        }),
    };
    ValueInfoProto {
        name: Some(name.to_owned()),
        r#type: Some(TypeProto {
            tensor_type: Some(tensor_type),
            sequence: None,
        }),
    }
}

/// ModelProto.
struct Encoded<'a>(&'a Model);

impl EncodeMessage for Encoded<'_> {
    fn encode_fields<W: WriteValue>(
        &self,
        fields: &mut MessageWriter<W>,
    ) -> Result<(), ProtobufError> {
        let model = self.0;
        // The version of the format that came with the opset.
        let version = match model.opset {
            ..19 => 8,
            19 | 20 => 9,
            _ => 10,
        };
        fields.write_int64(1, version)?;
        fields.write_string(2, "bitscope")?;
        fields.write_string(3, env!("CARGO_PKG_VERSION"))?;
        fields.write_message(7, &Graph(model))?;
        let set = |domain: &str, version: i64| OperatorSetIdProto {
            domain: Some(domain.to_owned()),
            version: Some(version),
        };
        fields.write_message(8, &set("", model.opset))?;
        if model.uses_qonnx {
            fields.write_message(8, &set(QONNX, 1))?;
        }
        fields.write_repeated_message(14, &model.metadata)
    }
}

/// GraphProto.
struct Graph<'a>(&'a Model);

impl EncodeMessage for Graph<'_> {
    fn encode_fields<W: WriteValue>(
        &self,
        fields: &mut MessageWriter<W>,
    ) -> Result<(), ProtobufError> {
        let model = self.0;
        fields.write_repeated_message(1, &model.nodes)?;
        fields.write_string(2, "network")?;
        fields.write_repeated_message(5, &model.tensors)?;
        fields.write_repeated_message(11, &model.inputs)?;
        fields.write_repeated_message(12, &model.outputs)
    }
}
