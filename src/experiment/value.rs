//! Values of keys and the set of all of them.

use std::collections::BTreeMap;
use std::fmt;

use super::diagnostic::Place;

/// A value, checked against its key's kind.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
pub enum Value {
    /// true or false.
    Flag(bool),
    /// A whole number.
    Whole(i64),
    /// A number.
    Number(f64),
    /// A word, text or path.
    Text(String),
    /// Numbers.
    Numbers(Vec<f64>),
    /// Texts.
    Words(Vec<String>),
    /// Tables of fields by name.
    Tables(Vec<BTreeMap<String, Value>>),
}

impl fmt::Display for Value {
    /// As TOML.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flag(v) => write!(f, "{v}"),
            Self::Whole(v) => write!(f, "{v}"),
            Self::Number(v) => f.write_str(&number(*v)),
            Self::Text(v) => write!(f, "{}", toml::Value::String(v.clone())),
            Self::Numbers(v) => {
                let numbers: Vec<String> = v.iter().map(|v| number(*v)).collect();
                write!(f, "[{}]", numbers.join(", "))
            }
            Self::Words(v) => {
                let quoted = |w: &String| toml::Value::String(w.clone()).to_string();
                let words: Vec<String> = v.iter().map(quoted).collect();
                write!(f, "[{}]", words.join(", "))
            }
            Self::Tables(v) => {
                let table = |fields: &BTreeMap<String, Value>| {
                    let fields = fields
                        .iter()
                        .map(|(name, value)| format!("{name} = {value}"));
                    format!("{{ {} }}", fields.collect::<Vec<_>>().join(", "))
                };
                let tables: Vec<String> = v.iter().map(table).collect();
                write!(f, "[{}]", tables.join(", "))
            }
        }
    }
}

/// Whole numbers up to here are written without a decimal point: a TOML integer has 64 bits.
const WHOLE: f64 = 1e15;

/// Shortest form that TOML reads back as the same number.
fn number(v: f64) -> String {
    if v == v.trunc() && v.abs() < WHOLE {
        format!("{v:.0}")
    } else if v.abs() < 1e-4 || v.abs() >= WHOLE {
        format!("{v:e}")
    } else {
        format!("{v}")
    }
}

/// Every key that has a value, defaults included, by path.
#[derive(Debug, Clone, PartialEq, Default, serde::Serialize, serde::Deserialize)]
pub struct Values(pub BTreeMap<String, Value>);

impl Values {
    /// The value of a key.
    pub fn get(&self, path: &str) -> Option<&Value> {
        self.0.get(path)
    }
}

/// A value with the place that set it.
#[derive(Debug, Clone)]
pub(super) struct Placed {
    pub value: Value,
    pub place: Place,
}

/// Values by path as they were found, later files over earlier ones.
pub(super) type Found = BTreeMap<&'static str, Placed>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_back_as_they_were() {
        for v in [
            0.0,
            -3.0,
            0.1,
            1e-5,
            123_456.0,
            1e15,
            9.007e15,
            1e19,
            -2.5e300,
            f64::MAX,
        ] {
            let text = format!("v = {}", number(v));
            let table: toml::Table = text.parse().unwrap_or_else(|e| panic!("{text}: {e}"));
            let read = table["v"]
                .as_float()
                .or(table["v"].as_integer().map(|v| v as f64));
            assert_eq!(read, Some(v), "{text}");
        }
    }
}
