//! What a key of the experiment file is.

use super::value::Value;

/// When a changed key takes effect.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum Class {
    /// At the next step.
    Live,
    /// At the next epoch.
    Epoch,
    /// In a new run that starts from the newest checkpoint.
    Fork,
    /// In a new run from scratch.
    Fresh,
}

impl Class {
    /// The word in documentation and on the screen.
    pub fn name(self) -> &'static str {
        match self {
            Self::Live => "live",
            Self::Epoch => "epoch",
            Self::Fork => "fork",
            Self::Fresh => "fresh",
        }
    }
}

/// Type and range of a key.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Kind {
    /// true or false.
    Flag,
    /// A whole number within bounds.
    Whole(i64, i64),
    /// A number within bounds.
    Number(f64, f64),
    /// One of these words.
    Choice(&'static [&'static str]),
    /// Any text.
    Text,
    /// A path, relative to the file that says it.
    Path,
    /// A list of ascending numbers within bounds.
    Numbers(f64, f64),
    /// A range `[low, high]` within bounds.
    Range(f64, f64),
    /// A list of numbers within bounds, one for all channels of a picture or one for each.
    Channels(f64, f64),
    /// A text or a list of them.
    Words,
    /// A list of tables with these fields.
    Tables(&'static [Field]),
}

/// A field of a table in a list.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Field {
    /// Its name.
    pub name: &'static str,
    /// Type and range.
    pub kind: Kind,
    /// Whether every table has it.
    pub required: bool,
    /// What it means.
    pub doc: &'static str,
}

impl Kind {
    /// Whether its values are texts, which need no quotes where one stands alone.
    pub fn is_text(self) -> bool {
        matches!(self, Self::Choice(_) | Self::Text | Self::Path)
    }

    /// What is allowed, in words.
    pub fn expected(&self) -> String {
        match self {
            Self::Flag => "true or false".into(),
            Self::Whole(low, high) if *high == i64::MAX => format!("a whole number from {low}"),
            Self::Whole(low, high) => format!("a whole number from {low} to {high}"),
            Self::Number(low, high) => format!("a number {}", interval(*low, *high)),
            Self::Choice(words) => format!("one of {}", quoted(words)),
            Self::Text => "a string".into(),
            Self::Path => "a path".into(),
            Self::Numbers(low, high) => {
                format!("a list of ascending numbers {}", interval(*low, *high))
            }
            Self::Range(low, high) => format!("[low, high] with both {}", interval(*low, *high)),
            Self::Channels(low, high) => format!(
                "a list of numbers {}, one for all channels or one for each",
                interval(*low, *high)
            ),
            Self::Words => "a string or a list of strings".into(),
            Self::Tables(_) => "a list of tables".into(),
        }
    }
}

fn interval(low: f64, high: f64) -> String {
    if high == f64::MAX {
        format!("from {low}")
    } else {
        format!("from {low} to {high}")
    }
}

pub(super) fn quoted(words: &[&str]) -> String {
    let words: Vec<String> = words.iter().map(|w| format!("\"{w}\"")).collect();
    words.join(", ")
}

/// A key's value where the file does not say.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Default {
    /// Nothing: the feature is off.
    Absent,
    /// A flag.
    Flag(bool),
    /// A whole number.
    Whole(i64),
    /// A number.
    Number(f64),
    /// A word or text.
    Text(&'static str),
    /// Numbers.
    Numbers(&'static [f64]),
}

impl Default {
    /// As a value.
    pub fn value(&self) -> Option<Value> {
        Some(match self {
            Self::Absent => return None,
            Self::Flag(v) => Value::Flag(*v),
            Self::Whole(v) => Value::Whole(*v),
            Self::Number(v) => Value::Number(*v),
            Self::Text(v) => Value::Text((*v).into()),
            Self::Numbers(v) => Value::Numbers(v.to_vec()),
        })
    }
}

/// One key of the experiment file.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Key {
    /// `section.name`, or the name alone at the top level.
    pub path: &'static str,
    /// Type and range.
    pub kind: Kind,
    /// Value where the file does not say.
    pub default: Default,
    /// When a change takes effect.
    pub class: Class,
    /// What it means, with its unit.
    pub doc: &'static str,
}
