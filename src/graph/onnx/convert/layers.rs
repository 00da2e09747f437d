//! Layers with weights: convolutions, batch norms, affine layers.

use std::rc::Rc;

use rten_onnx::onnx::NodeProto;

use super::super::attributes::Attributes;
use super::super::constant::Constant;
use super::pools::window;
use super::{Converted, Converter, Trouble, Value, plain_name, source_of};
use crate::graph::error::GraphError;
use crate::graph::model::NormChoice;
use crate::graph::node::{EPSILON, Kind, MOMENTUM, NodeId, Operation};

impl Converter<'_> {
    /// The name of a layer, by its weights where they have one.
    fn layer_name(&self, node: &NodeProto, weight: &Constant) -> String {
        let named = weight
            .name
            .as_deref()
            .and_then(|n| n.strip_suffix(".weight"));
        named.map_or_else(|| plain_name(node), str::to_owned)
    }

    /// Keeps the values of a parameter, of that tensor of the file. The name under which: another one where
    /// it is taken by another tensor, or by other values of the same.
    pub(super) fn store(&mut self, name: String, source: &str, values: &Rc<[f32]>) -> String {
        let numbered = (2..).map(|i| format!("{name}_{i}"));
        let fits = |name: &String| match (self.sources.get(name), self.values.get(name)) {
            (Some(of), Some(kept)) => of == source && kept[..] == values[..],
            _ => true,
        };
        let mut names = std::iter::once(name.clone()).chain(numbered);
        let name = names.find(fits).unwrap_or(name.clone());
        self.sources.insert(name.clone(), source.to_owned());
        self.values.insert(name.clone(), values.to_vec());
        name
    }

    /// An input that may be left out; what is there has to be known.
    pub(super) fn optional(
        &self,
        node: &NodeProto,
        index: usize,
    ) -> Result<Option<Constant>, Trouble> {
        match self.input(node, index) {
            None => Ok(None),
            Some(Value::Known(constant)) => Ok(Some(constant.clone())),
            Some(_) => Err(Trouble::Unknown),
        }
    }

    /// Whether the file reads what a node yields in one place alone, names that stand for the same aside.
    pub(super) fn is_read_once(&self, id: NodeId) -> bool {
        let is_it = |value: &&Value| matches!(value, Value::Tensor { node, .. } if *node == id);
        let names = self.names.iter().filter(|(_, value)| is_it(value));
        let (mut count, mut reads) = (0, 0);
        for (name, _) in names {
            count += 1;
            reads += self.readers.get(name).copied().unwrap_or(0);
        }
        // (Each further name came about by reading another one.)
        reads == count
    }

    pub(super) fn convolution(&mut self, node: &NodeProto) -> Converted {
        let (input, dims) = self.tensor(node, 0)?;
        let weight = self.known(node, 1).cloned().ok_or(Trouble::Unknown)?;
        let name = self.layer_name(node, &weight);
        let (&[_, h, w], &[output, _, kh, kw]) = (&dims[..], &weight.dims[..]) else {
            return Err(Trouble::Graph(GraphError::node(
                &name,
                format!("an input of {dims:?} under weights {:?}", weight.dims),
                "a two-dimensional convolution",
            )));
        };
        let attributes = Attributes::of(node);
        let groups = attributes.int("group").unwrap_or(1);
        let groups = usize::try_from(groups).map_err(|_| Trouble::Unknown)?;
        let window = window(attributes, [kh, kw], [h, w]).ok_or(Trouble::Unknown)?;
        let bias = self.optional(node, 2)?;
        // Exporters write the bias that a convolution does not have as zeros that they compute.
        let bias = bias.filter(|b| b.name.is_some() || b.to_floats().iter().any(|v| *v != 0.0));
        let shape = [output, weight.dims[1], kh, kw];
        let source = source_of(node, &weight);
        let stored = self.store(format!("{name}.weight"), &source, &weight.to_floats());
        let weight = self.graph.parameter(stored, Kind::Weight, &shape);
        if bias.is_some() {
            self.folded += 1;
        }
        let fresh = self.norm == NormChoice::Fresh;
        let kept = bias.as_ref().filter(|_| !fresh).map(|bias| {
            let source = source_of(node, bias);
            let stored = self.store(format!("{name}.bias"), &source, &bias.to_floats());
            self.graph.parameter(stored, Kind::Bias, &[output])
        });
        let operation = Operation::Convolution {
            weight,
            bias: kept,
            window,
            groups,
        };
        let mut id = self.graph.push(name.clone(), operation, &[input])?;
        if let Some(bias) = bias.filter(|_| fresh) {
            let source = node.output.first().map_or("", String::as_str);
            id = self.fresh_norm(&name, source, id, &bias.to_floats())?;
        }
        let dims = self.graph.nodes[id].shape.to_vec();
        Ok(vec![Value::Tensor { node: id, dims }])
    }

    /// A batch norm that is the identity plus `bias`, to be calibrated.
    fn fresh_norm(
        &mut self,
        name: &str,
        source: &str,
        input: NodeId,
        bias: &Rc<[f32]>,
    ) -> Result<NodeId, GraphError> {
        let name = format!("{name}.norm");
        let channels = bias.len();
        let of = |v: f32| Rc::<[f32]>::from(vec![v; channels]);
        let names = [
            self.store(format!("{name}.weight"), source, &of(1.0)),
            self.store(format!("{name}.bias"), source, bias),
            self.store(format!("{name}.running_mean"), source, &of(0.0)),
            self.store(format!("{name}.running_var"), source, &of(1.0 - EPSILON)),
        ];
        let id = self
            .graph
            .batch_norm(&name, input, names, EPSILON, MOMENTUM)?;
        self.fresh_norms.push(id);
        Ok(id)
    }

    pub(super) fn batch_norm(&mut self, node: &NodeProto) -> Converted {
        let (input, dims) = self.tensor(node, 0)?;
        let attributes = Attributes::of(node);
        let all: Option<Vec<Constant>> = (1..5).map(|i| self.known(node, i).cloned()).collect();
        let all = all.ok_or(Trouble::Unknown)?;
        // Equal scales may be one tensor of the file; the statistics are the norm's own.
        let own = all[2]
            .name
            .as_deref()
            .and_then(|n| n.strip_suffix(".running_mean"));
        let name = own.map_or_else(|| self.layer_name(node, &all[0]), str::to_owned);
        let entries = ["weight", "bias", "running_mean", "running_var"];
        let channels = self.graph.nodes[input].shape[0];
        if dims.first() != Some(&channels) {
            return Err(Trouble::Unknown);
        }
        let mut names = Vec::with_capacity(4);
        for (constant, entry) in all.iter().zip(entries) {
            if constant.len() != channels {
                return Err(Trouble::Graph(GraphError::node(
                    &name,
                    format!("{} numbers for {channels} channels", constant.len()),
                    "one per channel",
                )));
            }
            let source = source_of(node, constant);
            names.push(self.store(format!("{name}.{entry}"), &source, &constant.to_floats()));
        }
        let names: [String; 4] = names.try_into().map_err(|_| Trouble::Unknown)?;
        let epsilon = attributes.float("epsilon").unwrap_or(1e-5);
        let momentum = attributes.float("momentum").unwrap_or(0.9);
        let id = self
            .graph
            .batch_norm(&name, input, names, epsilon, momentum)?;
        // Outputs of training mode follow; nothing in a classifier reads them.
        let mut values = vec![Value::Tensor { node: id, dims }];
        values.resize(node.output.len().max(1), Value::Unknown);
        Ok(values)
    }

    pub(super) fn affine(&mut self, node: &NodeProto) -> Converted {
        let (input, dims) = self.tensor(node, 0)?;
        let attributes = Attributes::of(node);
        let weight = self.known(node, 1).cloned().ok_or(Trouble::Unknown)?;
        let name = self.layer_name(node, &weight);
        let &[rows, columns] = &weight.dims[..] else {
            return Err(Trouble::Unknown);
        };
        let flag = |name: &str| attributes.int(name).unwrap_or(0) != 0;
        if flag("transA") || dims.len() != 1 {
            return Err(Trouble::Graph(GraphError::node(
                &name,
                format!("an input of {dims:?} per picture"),
                "a vector",
            )));
        }
        let scale = |name: &str| attributes.float(name).unwrap_or(1.0);
        let scaled = |values: Rc<[f32]>, factor: f32| -> Rc<[f32]> {
            if factor == 1.0 {
                values
            } else {
                values.iter().map(|v| v * factor).collect()
            }
        };
        let values = scaled(weight.to_floats(), scale("alpha"));
        let (values, [output, features]) = if flag("transB") {
            (values, [rows, columns])
        } else {
            let turned = (0..columns)
                .flat_map(|c| (0..rows).map(move |r| (r, c)))
                .map(|(r, c)| values[r * columns + c]);
            (turned.collect::<Rc<[f32]>>(), [columns, rows])
        };
        let source = source_of(node, &weight);
        let stored = self.store(format!("{name}.weight"), &source, &values);
        let weight = self
            .graph
            .parameter(stored, Kind::Weight, &[output, features]);
        let bias = match self.optional(node, 2)? {
            Some(bias) if bias.len() == output => {
                let values = scaled(bias.to_floats(), scale("beta"));
                let source = source_of(node, &bias);
                let stored = self.store(format!("{name}.bias"), &source, &values);
                Some(self.graph.parameter(stored, Kind::Bias, &[output]))
            }
            Some(_) => return Err(Trouble::Unknown),
            None => None,
        };
        let id = self
            .graph
            .push(name, Operation::Affine { weight, bias }, &[input])?;
        Ok(vec![Value::Tensor {
            node: id,
            dims: vec![output],
        }])
    }
}
