//! A study's file as it is written, everything with its place.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use serde::Deserialize;
use serde::de::value::{MapAccessDeserializer, SeqAccessDeserializer};
use serde::de::{Deserializer, MapAccess, SeqAccess, Visitor};
use toml::{Spanned, Value};

use super::plan::Published;

/// The file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Written {
    pub name: Option<Spanned<String>>,
    #[serde(default)]
    pub about: String,
    pub base: Option<PathBuf>,
    pub seeds: Option<Spanned<Vec<Spanned<i64>>>>,
    pub reference: Option<Spanned<String>>,
    #[serde(default)]
    pub set: Settings,
    #[serde(default)]
    pub axis: Vec<Axis>,
    #[serde(default)]
    pub row: Vec<Row>,
    /// By the label of a cell.
    #[serde(default)]
    pub published: BTreeMap<Spanned<String>, Paper>,
}

/// Keys and what they are set to, one after the other.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Axis {
    pub keys: Spanned<Vec<Spanned<String>>>,
    pub values: Spanned<Vec<Spanned<Value>>>,
    pub names: Option<Spanned<Vec<String>>>,
}

/// A named setting of the comparison.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Row {
    pub name: Spanned<String>,
    pub base: Option<PathBuf>,
    pub from: Option<Spanned<String>>,
    #[serde(default = "yes")]
    pub axes: bool,
    #[serde(default)]
    pub set: Settings,
    /// Keys that the base's value is taken away from.
    #[serde(default)]
    pub unset: Vec<Spanned<String>>,
    pub paper: Option<Paper>,
}

fn yes() -> bool {
    true
}

/// A published error alone, or with its memory.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(
    untagged,
    expecting = "expected an error in percent, or `{ error = 8.58, weights_kb = 70 }`"
)]
pub(super) enum Paper {
    Error(f64),
    Full(Published),
}

impl From<Paper> for Published {
    fn from(paper: Paper) -> Self {
        match paper {
            Paper::Full(published) => published,
            Paper::Error(error) => Self {
                error,
                weights_kb: None,
                activations_max_kb: None,
                activations_sum_kb: None,
            },
        }
    }
}

/// What a table sets; tables in it are the first parts of keys.
#[derive(Debug, Default, Deserialize)]
#[serde(transparent)]
pub(super) struct Settings(BTreeMap<Spanned<String>, Spanned<Node>>);

impl Settings {
    /// Keys with their values, in alphabetical order.
    pub fn flat(&self) -> Vec<(Spanned<String>, Spanned<Value>)> {
        let mut out = Vec::new();
        self.walk("", &mut out);
        out.sort_by(|a, b| a.0.cmp(&b.0));
        out
    }

    fn walk(&self, before: &str, out: &mut Vec<(Spanned<String>, Spanned<Value>)>) {
        for (key, node) in &self.0 {
            let path = match before {
                "" => key.get_ref().clone(),
                before => format!("{before}.{key}"),
            };
            match node.get_ref() {
                Node::Table(table) => table.walk(&path, out),
                Node::Value(value) => out.push((
                    Spanned::new(key.span(), path),
                    Spanned::new(node.span(), value.clone()),
                )),
            }
        }
    }
}

#[derive(Debug)]
enum Node {
    Table(Settings),
    Value(Value),
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(NodeVisitor)
    }
}

struct NodeVisitor;

impl<'de> Visitor<'de> for NodeVisitor {
    type Value = Node;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a table, or a value: text, a number, true or false, or a list")
    }

    fn visit_bool<E>(self, v: bool) -> Result<Node, E> {
        Ok(Node::Value(v.into()))
    }

    fn visit_i64<E>(self, v: i64) -> Result<Node, E> {
        Ok(Node::Value(v.into()))
    }

    fn visit_f64<E>(self, v: f64) -> Result<Node, E> {
        Ok(Node::Value(v.into()))
    }

    fn visit_str<E>(self, v: &str) -> Result<Node, E> {
        Ok(Node::Value(v.into()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<Node, A::Error> {
        Value::deserialize(SeqAccessDeserializer::new(list)).map(Node::Value)
    }

    fn visit_map<A: MapAccess<'de>>(self, table: A) -> Result<Node, A::Error> {
        Settings::deserialize(MapAccessDeserializer::new(table)).map(Node::Table)
    }
}
