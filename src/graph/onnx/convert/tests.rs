//! Small files, node by node: what exporters seldom write and the standard allows.

use std::path::Path;

use rten_onnx::onnx::{
    AttributeProto, DataType, GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto,
};

use super::convert;
use crate::graph::error::GraphError;
use crate::graph::model::{Architecture, Built, NormChoice};
use crate::graph::node::Operation;

fn node(op: &str, inputs: &[&str], output: &str) -> NodeProto {
    NodeProto {
        op_type: Some(op.into()),
        name: Some(format!("node_{output}")),
        input: inputs.iter().map(|s| (*s).to_owned()).collect(),
        output: vec![output.to_owned()],
        ..NodeProto::default()
    }
}

fn with(node: NodeProto, name: &str, ints: &[i64]) -> NodeProto {
    let mut node = node;
    node.attribute.push(AttributeProto {
        name: Some(name.into()),
        i: (ints.len() == 1).then(|| ints[0]),
        ints: ints.to_vec(),
        ..AttributeProto::default()
    });
    node
}

fn tensor(name: &str, dims: &[i64], first: f32) -> TensorProto {
    let count: i64 = dims.iter().product();
    TensorProto {
        name: Some(name.into()),
        dims: dims.to_vec(),
        data_type: Some(DataType::FLOAT),
        float_data: (0..count).map(|i| first + i as f32 * 0.01).collect(),
        ..TensorProto::default()
    }
}

fn whole(name: &str, values: &[i64]) -> TensorProto {
    TensorProto {
        name: Some(name.into()),
        dims: vec![values.len() as i64],
        data_type: Some(DataType::INT64),
        int64_data: values.to_vec(),
        ..TensorProto::default()
    }
}

/// Nodes from `x`, [3, 4, 4], to `y`, which is averaged to logits.
fn built(nodes: Vec<NodeProto>, tensors: Vec<TensorProto>) -> Result<Built, GraphError> {
    let value = |name: &str| ValueInfoProto {
        name: Some(name.into()),
        ..ValueInfoProto::default()
    };
    let end = [
        node("GlobalAveragePool", &["y"], "averaged"),
        node("Flatten", &["averaged"], "logits"),
    ];
    let graph = GraphProto {
        node: [&nodes[..], &end].concat(),
        initializer: tensors,
        input: vec![value("x")],
        output: vec![value("logits")],
        ..GraphProto::default()
    };
    let model = ModelProto {
        graph: Some(graph),
        ..ModelProto::default()
    };
    let path = Path::new("small.onnx");
    let architecture = Architecture::File {
        path: path.to_owned(),
        input: None,
        output: None,
        norm: NormChoice::Keep,
        replace_head: false,
    };
    convert(path, &model, &architecture, Some([3, 4, 4]))
}

fn weight(name: &str, first: f32) -> TensorProto {
    tensor(name, &[4, 3, 1, 1], first)
}

#[test]
fn a_bias_behind_a_layer_is_its_own_only_where_nothing_else_reads_the_layer() {
    let tensors = || vec![weight("w", 0.1), tensor("b", &[1, 4, 1, 1], 1.0)];
    let convolution = node("Conv", &["x", "w"], "c");
    let alone = built(
        vec![convolution.clone(), node("Add", &["c", "b"], "y")],
        tensors(),
    );
    let is_biased = |b: &Built| {
        let mut nodes = b.graph.nodes.iter();
        nodes.any(|n| matches!(n.operation, Operation::Convolution { bias: Some(_), .. }))
    };
    assert!(is_biased(&alone.expect("converted")));
    let read_twice = [
        vec![
            convolution.clone(),
            node("Add", &["c", "b"], "z"),
            node("Add", &["z", "c"], "y"),
        ],
        vec![
            convolution,
            node("Identity", &["c"], "i"),
            node("Add", &["i", "b"], "z"),
            node("Add", &["z", "c"], "y"),
        ],
    ];
    for nodes in read_twice {
        assert!(!is_biased(&built(nodes, tensors()).expect("converted")));
    }
}

#[test]
fn different_tensors_stay_different_whatever_their_layers_are_called() {
    // The prefix that exporters put before names is taken away.
    let mut second = node("Conv", &["x", "w2"], "c2");
    second.name = Some("c1".into());
    let nodes = vec![
        node("Conv", &["x", "w1"], "c1"),
        second,
        node("Add", &["c1", "c2"], "y"),
    ];
    let tensors = vec![weight("w1", 0.1), weight("w2", 0.7)];
    let two = built(nodes, tensors).expect("converted");
    let first = |at: usize| two.values[&two.graph.parameters[at].name][0];
    assert_eq!(two.graph.parameters.len(), 2);
    assert_eq!([first(0), first(1)], [0.1, 0.7]);
    // One weight under two biases: that is shared, they are not.
    let nodes = vec![
        node("Conv", &["x", "a.weight", "b1"], "c1"),
        node("Conv", &["x", "a.weight", "b2"], "c2"),
        node("Add", &["c1", "c2"], "y"),
    ];
    let biases = [tensor("b1", &[4], 1.0), tensor("b2", &[4], 2.0)];
    let tensors = [vec![weight("a.weight", 0.1)], biases.to_vec()].concat();
    let shared = built(nodes, tensors).expect("converted");
    assert_eq!(
        shared.graph.parameters.len(),
        3,
        "{:?}",
        shared.graph.parameters
    );
}

#[test]
fn what_is_computed_or_means_something_else_is_refused_and_not_dropped() {
    let flat = |name: &str| {
        vec![
            node("GlobalAveragePool", &["x"], "pooled"),
            node("Flatten", &["pooled"], name),
        ]
    };
    let matrix = tensor("g", &[3, 4], 0.1);
    let computed = [
        flat("v"),
        vec![
            node("Gemm", &["v", "g"], "c"),
            node("Gemm", &["v", "g", "c"], "y"),
        ],
    ];
    let truncated = vec![
        node("Conv", &["x", "w"], "c"),
        with(node("Cast", &["c"], "i"), "to", &[6]),
        with(node("Cast", &["i"], "y"), "to", &[1]),
    ];
    let by_columns = [
        flat("v"),
        vec![
            node("Gemm", &["v", "g"], "s"),
            node("Conv", &["x", "w"], "c"),
            node("Mul", &["c", "s"], "y"),
        ],
    ];
    let mut far = node("Conv", &["x", "w3"], "y");
    far = with(far, "dilations", &[1 << 62, 1 << 62]);
    let tensors = vec![matrix, weight("w", 0.1), tensor("w3", &[4, 3, 3, 3], 0.1)];
    for (nodes, operation) in [
        (computed.concat(), "Gemm"),
        (truncated, "Cast"),
        (by_columns.concat(), "Mul"),
        (vec![far], "Conv"),
    ] {
        let Err(error) = built(nodes, tensors.clone()) else {
            panic!("{operation} was taken");
        };
        let error = error.to_string();
        assert!(
            error.contains(&format!("unsupported operations: {operation}")),
            "{error}"
        );
    }
}

#[test]
fn padding_is_of_the_axes_that_it_names() {
    let nodes = vec![node("Pad", &["x", "pads", "", "axes"], "y")];
    let tensors = vec![
        whole("pads", &[0, 0, 1, 0, 0, 0, 0, 2]),
        whole("axes", &[0, 1, 3, 2]),
    ];
    let graph = built(nodes, tensors).expect("converted").graph;
    let padding = graph.nodes.iter().find_map(|n| match n.operation {
        Operation::Pad { padding } => Some(padding),
        _ => None,
    });
    assert_eq!(padding, Some([[0, 2], [1, 0]]));
}
