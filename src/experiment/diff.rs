//! What changed between two versions of an experiment.

use serde::{Deserialize, Serialize};

use super::keys::KEYS;
use super::schema::Class;
use super::value::{Value, Values};

/// One key that changed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Change {
    /// `section.name`.
    pub path: String,
    /// Value before; `None` where it was not set.
    pub old: Option<Value>,
    /// Value after.
    pub new: Option<Value>,
    /// When it can take effect.
    pub class: Class,
}

impl std::fmt::Display for Change {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let show = |v: &Option<Value>| v.as_ref().map_or("-".to_owned(), Value::to_string);
        write!(f, "{} {} → {}", self.path, show(&self.old), show(&self.new))
    }
}

impl Change {
    /// The change, and when it takes effect where that is not at once.
    pub fn told(&self) -> String {
        match self.class {
            Class::Epoch => format!("{self} from the next epoch on"),
            _ => self.to_string(),
        }
    }
}

/// Keys whose resolved values differ, in the order of the schema. Comments, order and defaults
/// written out make no difference.
pub fn difference(old: &Values, new: &Values) -> Vec<Change> {
    KEYS.iter()
        .filter(|key| old.get(key.path) != new.get(key.path))
        .map(|key| Change {
            path: key.path.into(),
            old: old.get(key.path).cloned(),
            new: new.get(key.path).cloned(),
            class: key.class,
        })
        .collect()
}

/// The strongest class among the changes: what applying all of them asks for.
pub fn strongest(changes: &[Change]) -> Option<Class> {
    changes.iter().map(|c| c.class).max()
}
