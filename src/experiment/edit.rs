//! Changing one value in the user's file, comments and layout kept.

use std::path::Path;

use toml_edit::{DocumentMut, Item};

/// Sets `section.key` in the text of an experiment file to a TOML value; returns the new text.
///
/// # Errors
/// Where the text or the value is not TOML.
pub fn set_in_text(text: &str, path: &str, value: &str) -> Result<String, toml_edit::TomlError> {
    let mut document: DocumentMut = text.parse()?;
    let mut new: toml_edit::Value = value.parse()?;
    let table = match path.split_once('.') {
        Some((section, _)) => {
            let entry = document.entry(section).or_insert(toml_edit::table());
            entry
                .as_table_mut()
                .map(|t| t as &mut dyn toml_edit::TableLike)
        }
        None => Some(document.as_table_mut() as &mut dyn toml_edit::TableLike),
    };
    let key = path.rsplit('.').next().unwrap_or(path);
    if let Some(table) = table {
        if let Some(Item::Value(old)) = table.get(key) {
            *new.decor_mut() = old.decor().clone();
        }
        table.insert(key, Item::Value(new));
    }
    Ok(document.to_string())
}

/// The same in a file, written to a temporary name and renamed over it.
///
/// # Errors
/// Where the file cannot be read, parsed or written.
pub fn set_in_file(file: &Path, path: &str, value: &str) -> std::io::Result<()> {
    let text = std::fs::read_to_string(file)?;
    let invalid = |e| std::io::Error::new(std::io::ErrorKind::InvalidData, e);
    let new = set_in_text(&text, path, value).map_err(invalid)?;
    let temporary = file.with_extension("toml.tmp");
    std::fs::write(&temporary, new)?;
    std::fs::rename(&temporary, file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_and_layout_stay() {
        let text = "# why\n[budget]\nweights_kb = 70 # tight\n\n[optimizer]\nlr = 0.1\n";
        let new = set_in_text(text, "budget.weights_kb", "60.5").expect("valid");
        assert_eq!(new, text.replace("70", "60.5"));
        let new = set_in_text(text, "schedule.kind", "\"cosine\"").expect("valid");
        assert!(
            new.starts_with(text) && new.contains("[schedule]\nkind = \"cosine\""),
            "{new}"
        );
    }
}
