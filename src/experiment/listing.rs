//! What goes over the table of keys: finding one, the resolved experiment as text, the reference.

use std::fmt::Write;

use super::keys::KEYS;
use super::schema::{Key, Kind};
use super::value::Values;

impl Key {
    /// The key of that path.
    pub fn find(path: &str) -> Option<&'static Key> {
        KEYS.iter().find(|key| key.path == path)
    }
}

impl Values {
    /// The resolved experiment as TOML, sections in the order of the schema.
    pub fn to_toml(&self) -> String {
        let mut out = String::new();
        let mut section = "";
        for key in KEYS {
            let (table, name) = key.path.split_once('.').unwrap_or(("", key.path));
            let Some(value) = self.get(key.path) else {
                continue;
            };
            if table != section {
                section = table;
                out.push_str(&format!("\n[{table}]\n"));
            }
            out.push_str(&format!("{name} = {value}\n"));
        }
        out
    }
}

/// The reference of all keys as Markdown tables, one per section. The README holds its output; a
/// test compares them.
pub fn reference_markdown() -> String {
    let mut out = String::new();
    let mut section = None;
    for key in KEYS {
        let (table, name) = key.path.split_once('.').unwrap_or(("", key.path));
        if section != Some(table) {
            section = Some(table);
            let title = if table.is_empty() {
                "Top level".into()
            } else {
                format!("`[{table}]`")
            };
            let _ = writeln!(
                out,
                "\n**{title}**\n\n| key | value | default | class | meaning |"
            );
            let _ = writeln!(out, "|---|---|---|---|---|");
        }
        let default = key.default.value().map_or("-".into(), |v| format!("`{v}`"));
        let expected = key.kind.expected().replace('|', "\\|");
        let class = key.class.name();
        let _ = writeln!(
            out,
            "| `{name}` | {expected} | {default} | {class} | {} |",
            key.doc
        );
    }
    for key in KEYS {
        if let Kind::Tables(fields) = key.kind {
            let _ = writeln!(
                out,
                "\n**`[[{}]]`**\n\n| field | value | meaning |",
                key.path
            );
            let _ = writeln!(out, "|---|---|---|");
            for field in fields {
                let expected = field.kind.expected().replace('|', "\\|");
                let needed = if field.required { "; required" } else { "" };
                let _ = writeln!(
                    out,
                    "| `{}` | {expected}{needed} | {} |",
                    field.name, field.doc
                );
            }
        }
    }
    out.trim_start().to_owned()
}
