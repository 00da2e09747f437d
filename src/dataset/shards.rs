//! Pictures in tar files, as WebDataset names them: `KEY.jpg` (or another picture) beside `KEY.cls`, a
//! class number. Without those the folder that a picture lies in is its class.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::DataError;
use super::folder::{Labelled, Part, Reading, Report, Wishes};
use super::stored::Stored;

/// Bytes of a `.cls` member at most.
const LONGEST_CLASS: u64 = 32;

/// A picture's class, as its tar file says it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Class {
    Number(u16),
    Name(String),
}

/// Tar files of the training part and of the test part.
///
/// `path` is a folder with `train*.tar` and perhaps `test*.tar` or `val*.tar`, or one tar file, or a
/// pattern of their names with `*`: the training part alone.
fn files(path: &Path) -> Result<[Vec<PathBuf>; 2], DataError> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let (folder, patterns) = if path.is_dir() {
        let test = ["test*.tar", "val*.tar"].map(str::to_owned).to_vec();
        (path, [vec!["train*.tar".to_owned()], test])
    } else {
        let parent = path.parent().filter(|p| !p.as_os_str().is_empty());
        let folder = parent.unwrap_or(Path::new("."));
        (folder, [vec![name.into_owned()], Vec::new()])
    };
    let mut names = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(DataError::io(folder))? {
        let path = entry.map_err(DataError::io(folder))?.path();
        if path.is_file() {
            names.push(path);
        }
    }
    names.sort();
    let found = patterns.map(|patterns| {
        let fits = |path: &&PathBuf| {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            patterns.iter().any(|pattern| matches(pattern, &name))
        };
        names.iter().filter(fits).cloned().collect::<Vec<_>>()
    });
    if found[0].is_empty() {
        return Err(DataError::folder(
            path,
            "no tar file of that name",
            "a folder with train*.tar (and test*.tar or val*.tar), a tar file, or a pattern with `*`",
        ));
    }
    Ok(found)
}

/// Whether a name fits a pattern, in which `*` stands for any characters.
fn matches(pattern: &str, name: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == name,
        Some((start, rest)) => name.strip_prefix(start).is_some_and(|name| {
            let ends = name.char_indices().map(|(i, _)| i).chain([name.len()]);
            ends.into_iter().any(|end| matches(rest, &name[end..]))
        }),
    }
}

/// The pictures of some tar files with their classes, in the order they lie there, and how many members
/// are neither picture nor class.
fn members(shards: &[PathBuf]) -> Result<(Vec<(Stored, Class)>, usize), DataError> {
    let (mut found, mut skipped) = (Vec::new(), 0);
    for path in shards {
        let shard: Arc<Path> = path.as_path().into();
        let file = File::open(path).map_err(DataError::io(path))?;
        let mut archive = tar::Archive::new(file);
        let no_tar = |error: std::io::Error| {
            let found = error.to_string();
            let found: String = found
                .chars()
                .filter(|c| !c.is_control())
                .take(100)
                .collect();
            DataError::content(path, 0, found, "a whole tar file, not compressed")
        };
        let entries = archive.entries_with_seek().map_err(no_tar)?;
        let mut classes = BTreeMap::new();
        let mut pictures = Vec::new();
        for entry in entries {
            let mut entry = entry.map_err(no_tar)?;
            let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
            let (at, length) = (entry.raw_file_position(), entry.size());
            if !entry.header().entry_type().is_file() {
                continue;
            }
            let (key, ending) = key(&name);
            let stored = Stored::Member {
                shard: shard.clone(),
                name: name.clone(),
                at,
                length,
            };
            if ending.eq_ignore_ascii_case("cls") {
                let mut text = String::new();
                let read = entry.by_ref().take(LONGEST_CLASS).read_to_string(&mut text);
                let number = read.ok().and_then(|_| text.trim().parse::<u16>().ok());
                let number = number.ok_or_else(|| {
                    let found = format!("{name}: {:?}", text.trim());
                    DataError::content(path, at, found, "a class number from 0 to 65535")
                })?;
                classes.insert(key.to_owned(), number);
            } else if stored.is_named_like_a_picture() {
                pictures.push((stored, key.to_owned(), name));
            } else {
                skipped += 1;
            }
        }
        for (stored, key, name) in pictures {
            let folder = Path::new(&name).parent().and_then(Path::file_name);
            let class = match (classes.get(&key), folder) {
                (Some(number), _) => Class::Number(*number),
                (None, Some(folder)) if classes.is_empty() => {
                    Class::Name(folder.to_string_lossy().into_owned())
                }
                _ => {
                    let expected = format!("`{key}.cls`, or a folder for each class");
                    return Err(DataError::folder(
                        path,
                        format!("{name} without a class"),
                        expected,
                    ));
                }
            };
            found.push((stored, class));
        }
    }
    Ok((found, skipped))
}

/// A member's name up to the first dot of its last part, and what follows.
fn key(name: &str) -> (&str, &str) {
    let start = name.rfind('/').map_or(0, |slash| slash + 1);
    match name[start..].find('.') {
        Some(dot) => (&name[..start + dot], &name[start + dot + 1..]),
        None => (name, ""),
    }
}

/// Names of the classes, in the order of their numbers.
fn names(train: &[(Stored, Class)]) -> Vec<String> {
    let largest = train.iter().filter_map(|(_, class)| match class {
        Class::Number(number) => Some(*number),
        Class::Name(_) => None,
    });
    if let Some(largest) = largest.max() {
        return (0..=largest.max(1)).map(|n| n.to_string()).collect();
    }
    let names = train.iter().map(|(_, class)| match class {
        Class::Name(name) => name.clone(),
        Class::Number(number) => number.to_string(),
    });
    let names: std::collections::BTreeSet<_> = names.collect();
    names.into_iter().collect()
}

/// Names of the classes, from the names of the members alone.
pub(super) fn classes(path: &Path) -> Result<Vec<String>, DataError> {
    let [train, _] = files(path)?;
    let (train, _) = members(&train)?;
    Ok(names(&train))
}

/// Training and test part, with what was found.
pub(super) fn read(
    path: &Path,
    wishes: &Wishes,
) -> Result<(Part, Option<Part>, Report), DataError> {
    let [train, test] = files(path)?;
    let (train, skipped) = members(&train)?;
    let names = names(&train);
    if names.len() < 2 {
        return Err(DataError::folder(
            path,
            format!("{} classes", names.len()),
            "pictures of 2 to 65536 classes",
        ));
    }
    let mut reading = Reading::new(names.clone(), wishes);
    reading.skip(skipped);
    let numbered = |found: Vec<(Stored, Class)>| -> Result<Vec<Labelled>, DataError> {
        let number = |(stored, class): (Stored, Class)| {
            let text = match class {
                Class::Number(number) => number.to_string(),
                Class::Name(name) => name,
            };
            let label = names.iter().position(|n| *n == text);
            let label = label.ok_or_else(|| {
                let found = format!("{stored}: the class {text}, which the training part has not");
                DataError::folder(path, found, "the training part's classes")
            })?;
            Ok((stored, label as u16))
        };
        found.into_iter().map(number).collect()
    };
    let train = reading.part(path, numbered(train)?, true)?;
    let test = match test.is_empty() {
        true => None,
        false => {
            let (found, skipped) = members(&test)?;
            reading.skip(skipped);
            Some(reading.part(path, numbered(found)?, false)?)
        }
    };
    let sizes = [train.len(), test.as_ref().map_or(0, |t| t.len())];
    Ok((train, test, reading.finish(sizes)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_and_keys() {
        assert!(
            matches("train*.tar", "train-000.tar") && matches("*", "") && matches("a.tar", "a.tar")
        );
        assert!(matches("*-*.tar", "a-b.tar") && !matches("train*.tar", "train.tar.gz"));
        assert_eq!(key("a.b/c.d.jpg"), ("a.b/c", "d.jpg"));
        assert_eq!(key("plain"), ("plain", ""));
    }
}
