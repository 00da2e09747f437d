//! From checked values to the network.

use std::collections::BTreeMap;

use super::resolve::Resolver;
use super::value::Value;
use crate::graph::{Architecture, LayerSpec, Model, NormChoice, Shortcut};

/// Fields of one table.
pub(super) type Table = BTreeMap<String, Value>;

pub(super) fn text<'a>(table: &'a Table, name: &str) -> Option<&'a str> {
    match table.get(name) {
        Some(Value::Text(text)) => Some(text),
        _ => None,
    }
}

pub(super) fn words(table: &Table, name: &str) -> Vec<String> {
    match table.get(name) {
        Some(Value::Words(words)) => words.clone(),
        _ => Vec::new(),
    }
}

fn whole(table: &Table, name: &str) -> Option<usize> {
    match table.get(name) {
        Some(Value::Whole(v)) => usize::try_from(*v).ok(),
        _ => None,
    }
}

fn layer(table: &Table) -> LayerSpec {
    let size = |name: &str| whole(table, name);
    LayerSpec {
        kind: text(table, "kind").unwrap_or_default().to_owned(),
        name: text(table, "name").map(str::to_owned),
        from: words(table, "from"),
        channels: size("channels"),
        kernel: size("kernel"),
        stride: size("stride"),
        padding: size("padding"),
        dilation: size("dilation"),
        groups: size("groups"),
        bias: match table.get("bias") {
            Some(Value::Flag(v)) => Some(*v),
            _ => None,
        },
        repeat: size("repeat"),
    }
}

impl Resolver<'_> {
    pub(super) fn model(&mut self) -> Architecture {
        let shortcut = match self.word("model.shortcut") {
            "a" => Shortcut::A,
            "b" => Shortcut::B,
            _ => Shortcut::C,
        };
        let layers = self.tables("model.layers");
        let file = self.path("model.file");
        if !layers.is_empty() && file.is_some() {
            self.error(
                "model.layers",
                "both `model.file` and `model.layers`".into(),
                "one of the two",
            );
        }
        if !layers.is_empty() {
            return Architecture::Written(layers.iter().map(layer).collect());
        }
        if let Some(path) = file {
            let named = |path: &str| match self.values.get(path) {
                Some(Value::Text(name)) => Some(name.clone()),
                _ => None,
            };
            return Architecture::File {
                path,
                input: named("model.input"),
                output: named("model.output"),
                norm: match self.word("model.norm") {
                    "fresh" => NormChoice::Fresh,
                    _ => NormChoice::Keep,
                },
                replace_head: self.word("init.head") == "replace",
            };
        }
        let model = Model::from_name(
            self.word("model.name"),
            shortcut,
            self.number("model.width"),
        );
        Architecture::BuiltIn(model.expect("the schema lists only names that exist"))
    }

    pub(super) fn tables(&self, path: &str) -> Vec<Table> {
        match self.values.get(path) {
            Some(Value::Tables(tables)) => tables.clone(),
            _ => Vec::new(),
        }
    }
}
