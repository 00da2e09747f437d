//! Changing one value in the user's file: nothing else of it changes.

use std::io::Write;
use std::path::{Path, PathBuf};

use toml_edit::{DocumentMut, Item};

use super::diagnostic::Diagnostics;
use super::schema::Key;
use super::source::{Loaded, Overrides, load_as, read};

/// Why a value was not changed. The file is as it was.
#[derive(Debug, thiserror::Error)]
pub enum EditError {
    /// The file cannot be read or written.
    #[error("{path}: {source}")]
    Io {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file is not TOML.
    #[error("{path}: {source}")]
    Toml {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: toml_edit::TomlError,
    },
    /// The value is not TOML.
    #[error("`{value}` is not a value of `{key}`; expected {expected}")]
    Value {
        /// Which key.
        key: String,
        /// What was given.
        value: String,
        /// What the key takes.
        expected: String,
    },
    /// With the change it would not be a valid experiment.
    #[error(transparent)]
    Invalid(#[from] Diagnostics),
}

/// Sets `section.key` in the text of an experiment file to a TOML value, or removes it; returns the
/// new text. Comments, layout and line ends stay; a section written as an inline table is changed
/// where it stands.
///
/// # Errors
/// Where the text or the value is not TOML.
pub fn set_in_text(
    text: &str,
    path: &str,
    value: Option<&str>,
) -> Result<String, toml_edit::TomlError> {
    const MARK: char = '\u{feff}';
    let mut document: DocumentMut = text.trim_start_matches(MARK).parse()?;
    let new = value.map(str::parse::<toml_edit::Value>).transpose()?;
    let key = path.rsplit('.').next().unwrap_or(path);
    let table: Option<&mut dyn toml_edit::TableLike> = match (path.split_once('.'), &new) {
        (Some((section, _)), Some(_)) => document
            .entry(section)
            .or_insert(toml_edit::table())
            .as_table_like_mut(),
        (Some((section, _)), None) => {
            let there = document.get_mut(section);
            there.and_then(Item::as_table_like_mut)
        }
        (None, _) => Some(document.as_table_mut()),
    };
    if let Some(table) = table {
        match new {
            Some(mut new) => match table.get_mut(key) {
                // In its place: the comment above it belongs to its key.
                Some(Item::Value(old)) => {
                    *new.decor_mut() = old.decor().clone();
                    *old = new;
                }
                _ => drop(table.insert(key, Item::Value(new))),
            },
            None => drop(table.remove(key)),
        }
    }
    let mut new = document.to_string();
    if text.starts_with(MARK) {
        new.insert(0, MARK);
    }
    // The parser gives all line ends one form.
    let windows = text.contains("\r\n");
    Ok(if windows && !new.contains("\r\n") {
        new.replace('\n', "\r\n")
    } else {
        new
    })
}

/// Sets or removes values of an experiment file, where the result is a valid experiment that passes a
/// further `check`. A symbolic link stays one, as do hard links and the file's mode.
///
/// # Errors
/// Where the file cannot be read or written, or would not be valid.
pub fn change_file(
    file: &Path,
    changes: &[(&str, Option<&str>)],
    overrides: &Overrides,
    check: impl FnOnce(&Loaded) -> Result<(), Diagnostics>,
) -> Result<Loaded, EditError> {
    let io = |source| EditError::Io {
        path: file.to_owned(),
        source,
    };
    let bytes = read(file).map_err(io)?;
    let mut text = String::from_utf8(bytes).map_err(|e| io(std::io::Error::other(e)))?;
    for (path, value) in changes {
        if let Some(value) = value
            && value.parse::<toml_edit::Value>().is_err()
        {
            let kind = Key::find(path).map(|key| key.kind.expected());
            return Err(EditError::Value {
                key: (*path).to_owned(),
                value: (*value).to_owned(),
                expected: kind.unwrap_or("a TOML value".into()),
            });
        }
        text = set_in_text(&text, path, *value).map_err(|source| EditError::Toml {
            path: file.to_owned(),
            source,
        })?;
    }
    replace_file(file, &text, overrides, check)
}

/// Writes a text to an experiment file, where it is a valid experiment that passes a further `check`.
///
/// # Errors
/// As [`change_file`].
pub fn replace_file(
    file: &Path,
    text: &str,
    overrides: &Overrides,
    check: impl FnOnce(&Loaded) -> Result<(), Diagnostics>,
) -> Result<Loaded, EditError> {
    let io = |source| EditError::Io {
        path: file.to_owned(),
        source,
    };
    let loaded = load_as(file, text, overrides)?;
    check(&loaded)?;
    let target = std::fs::canonicalize(file).map_err(io)?;
    replace(&target, text.as_bytes()).map_err(io)?;
    Ok(loaded)
}

/// New content for the user's file. By renaming, which leaves the old or the new file whole; where
/// other names lead to the same file, or it could not be given its owner, in its place, with the old
/// content put back should that fail.
fn replace(file: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let metadata = std::fs::metadata(file)?;
    // A name can be taken over where the file itself may not be written: that was meant by whoever
    // forbade it.
    drop(std::fs::File::options().write(true).open(file)?);
    let name = file.file_name().unwrap_or_default().to_string_lossy();
    let beside = file.with_file_name(format!(".{name}.{}.tmp", std::process::id()));
    // First beside it in any case: a disk without room shows here, and nothing has happened.
    let written = std::fs::File::create(&beside).and_then(|mut new| {
        new.set_permissions(metadata.permissions())?;
        let owned = give(&new, &metadata);
        new.write_all(bytes)?;
        new.sync_all()?;
        Ok(owned)
    });
    let done = written.and_then(|owned| {
        if owned && links(&metadata) < 2 {
            return std::fs::rename(&beside, file);
        }
        let old = std::fs::read(file)?;
        write_in_place(file, bytes).inspect_err(|_| {
            // What can be done to have the old content back is done.
            let _ = write_in_place(file, &old);
        })?;
        std::fs::remove_file(&beside)
    });
    if done.is_err() {
        // Of no use to anyone; the error is what matters.
        let _ = std::fs::remove_file(&beside);
    }
    done
}

fn write_in_place(file: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let mut open = std::fs::File::options().write(true).open(file)?;
    open.write_all(bytes)?;
    open.set_len(bytes.len() as u64)?;
    open.sync_all()
}

/// Gives a new file to owner and group of an old one; whether they have it.
#[cfg(unix)]
fn give(new: &std::fs::File, old: &std::fs::Metadata) -> bool {
    use std::os::unix::fs::{MetadataExt, fchown};
    let same = |m: std::fs::Metadata| (m.uid(), m.gid()) == (old.uid(), old.gid());
    new.metadata().is_ok_and(same) || fchown(new, Some(old.uid()), Some(old.gid())).is_ok()
}

#[cfg(not(unix))]
fn give(_: &std::fs::File, _: &std::fs::Metadata) -> bool {
    true
}

#[cfg(unix)]
fn links(metadata: &std::fs::Metadata) -> u64 {
    std::os::unix::fs::MetadataExt::nlink(metadata)
}

#[cfg(not(unix))]
fn links(_: &std::fs::Metadata) -> u64 {
    1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_and_layout_stay() {
        let text = "# why\n[budget]\nweights_kb = 70 # tight\n\n[optimizer]\nlr = 0.1\n";
        let new = set_in_text(text, "budget.weights_kb", Some("60.5")).expect("valid");
        assert_eq!(new, text.replace("70", "60.5"));
        let new = set_in_text(text, "schedule.kind", Some("\"cosine\"")).expect("valid");
        assert!(
            new.starts_with(text) && new.contains("[schedule]\nkind = \"cosine\""),
            "{new}"
        );
        let above = "[optimizer]\n# my note\nlr = 0.1 # small\n";
        let new = set_in_text(above, "optimizer.lr", Some("0.03")).expect("valid");
        assert_eq!(new, above.replace("0.1", "0.03"));
        let marked = format!("\u{feff}{above}");
        let new = set_in_text(&marked, "optimizer.lr", Some("0.03")).expect("valid");
        assert_eq!(new, marked.replace("0.1", "0.03"));
        let new = set_in_text(text, "optimizer.lr", None).expect("valid");
        assert_eq!(new, text.replace("lr = 0.1\n", ""));
        // What is not there takes nothing with it when it goes, and leaves nothing.
        assert_eq!(set_in_text("", "budget.gbops", None).expect("valid"), "");
        assert_eq!(set_in_text(text, "log.every", None).expect("valid"), text);
    }

    #[test]
    fn inline_tables_and_windows_line_ends_stay_what_they_are() {
        let inline = "budget = { weights_kb = 70 } # tight\n";
        let new = set_in_text(inline, "budget.weights_kb", Some("60")).expect("valid");
        assert_eq!(new, inline.replace("70", "60"));
        let windows = "[train]\r\nbatch = 64\r\n";
        let new = set_in_text(windows, "train.batch", Some("32")).expect("valid");
        assert_eq!(new, windows.replace("64", "32"));
    }

    const VALID: &str = "[optimizer]\nlr = 0.1\n";

    fn set(file: &Path, value: &str) -> Result<Loaded, EditError> {
        let changes = [("optimizer.lr", Some(value))];
        change_file(file, &changes, &Vec::new(), |_| Ok(()))
    }

    #[test]
    fn what_would_not_be_valid_is_not_written() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("e.toml");
        std::fs::write(&file, VALID).expect("written");
        for value in ["nan", "-1", "\"fast\"", "1 2"] {
            assert!(set(&file, value).is_err(), "{value}");
            assert_eq!(std::fs::read_to_string(&file).expect("read"), VALID);
        }
        let loaded = set(&file, "0.5").expect("valid");
        assert_eq!(loaded.experiment.optimizer.lr, 0.5);
        assert_eq!(std::fs::read_dir(folder.path()).expect("read").count(), 1);
    }

    #[cfg(unix)]
    #[test]
    fn links_and_modes_stay() {
        use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
        let folder = tempfile::tempdir().expect("a folder");
        let at = |name: &str| folder.path().join(name);
        std::fs::write(at("real.toml"), VALID).expect("written");
        std::fs::set_permissions(at("real.toml"), PermissionsExt::from_mode(0o640)).expect("set");
        symlink("real.toml", at("link.toml")).expect("linked");
        set(&at("link.toml"), "0.5").expect("valid");
        assert!(at("link.toml").is_symlink());
        let mode = std::fs::metadata(at("real.toml")).expect("there").mode();
        assert_eq!(mode & 0o777, 0o640);
        std::fs::hard_link(at("real.toml"), at("other.toml")).expect("linked");
        set(&at("other.toml"), "0.25").expect("valid");
        let text = std::fs::read_to_string(at("real.toml")).expect("read");
        assert!(text.contains("0.25"), "{text}");
        assert_eq!(
            std::fs::metadata(at("real.toml")).expect("there").nlink(),
            2
        );
    }
}
