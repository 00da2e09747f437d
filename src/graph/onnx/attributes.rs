//! Attributes of a node by name.

use rten_onnx::onnx::{AttributeProto, NodeProto, TensorProto};

/// The attributes of one node.
#[derive(Clone, Copy)]
pub(super) struct Attributes<'a>(&'a [AttributeProto]);

impl<'a> Attributes<'a> {
    pub(super) fn of(node: &'a NodeProto) -> Self {
        Self(&node.attribute)
    }

    fn find(&self, name: &str) -> Option<&'a AttributeProto> {
        self.0.iter().find(|a| a.name.as_deref() == Some(name))
    }

    pub(super) fn int(&self, name: &str) -> Option<i64> {
        self.find(name)?.i
    }

    pub(super) fn float(&self, name: &str) -> Option<f32> {
        self.find(name)?.f
    }

    pub(super) fn text(&self, name: &str) -> Option<&'a str> {
        self.find(name)?.s.as_deref()
    }

    /// A list; empty lists count as absent.
    pub(super) fn ints(&self, name: &str) -> Option<&'a [i64]> {
        self.find(name)
            .map(|a| a.ints.as_slice())
            .filter(|ints| !ints.is_empty())
    }

    pub(super) fn floats(&self, name: &str) -> Option<&'a [f32]> {
        self.find(name)
            .map(|a| a.floats.as_slice())
            .filter(|floats| !floats.is_empty())
    }

    pub(super) fn tensor(&self, name: &str) -> Option<&'a TensorProto> {
        self.find(name)?.t.as_ref()
    }

    /// Two numbers, by axis.
    pub(super) fn pair(&self, name: &str, default: usize) -> Option<[usize; 2]> {
        match self.ints(name) {
            None => Some([default; 2]),
            Some([a, b]) => Some([usize::try_from(*a).ok()?, usize::try_from(*b).ok()?]),
            Some(_) => None,
        }
    }
}
