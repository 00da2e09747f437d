//! Pictures in tar files, as WebDataset names them: `KEY.jpg` (or another picture) beside `KEY.cls`, a
//! class number. Without those the folder that a picture lies in is its class.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::DataError;
use super::folder::{Labelled, Part, Reading, Report, Wishes, wishes_of_check};
use super::stored::{Stored, is_picture_ending};

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
/// pattern as a shell takes it (`*`, `?`, `[0-9]`, `{000..031}`): the training part alone.
fn files(path: &Path) -> Result<[Vec<PathBuf>; 2], DataError> {
    let found = if path.is_dir() {
        let folder = glob::Pattern::escape(&path.to_string_lossy());
        let of = |names: &[&str]| {
            let patterns = names.iter().map(|name| format!("{folder}/{name}"));
            matching(path, patterns.collect())
        };
        [of(&["train*.tar"])?, of(&["test*.tar", "val*.tar"])?]
    } else if path.is_file() {
        [vec![path.to_owned()], Vec::new()]
    } else {
        let pattern = path.to_string_lossy().into_owned();
        let patterns = match bracoxide::bracoxidize(&pattern) {
            Ok(patterns) if pattern.contains('{') => patterns,
            _ => vec![pattern],
        };
        [matching(path, patterns)?, Vec::new()]
    };
    if found[0].is_empty() {
        let (what, hint) = if path.join("train").is_dir() {
            (
                "no tar file in it, but a folder train",
                "; hint: `data.source = \"folder\"`",
            )
        } else {
            ("no tar file of that name", "")
        };
        let expected = format!(
            "a folder with train*.tar (and test*.tar or val*.tar), a tar file, or a pattern of \
             their names{hint}"
        );
        return Err(DataError::folder(path, what, expected));
    }
    Ok(found)
}

/// The files that fit one of some patterns, pattern by pattern, each once.
fn matching(path: &Path, patterns: Vec<String>) -> Result<Vec<PathBuf>, DataError> {
    let mut found: Vec<PathBuf> = Vec::new();
    for pattern in patterns {
        let paths = glob::glob(&pattern).map_err(|e| {
            DataError::folder(
                path,
                format!("the pattern {pattern}: {}", e.msg),
                "a pattern",
            )
        })?;
        for entry in paths {
            let file =
                entry.map_err(|e| DataError::io(e.path())(io::Error::other(e.to_string())))?;
            if file.is_file() && !found.contains(&file) {
                found.push(file);
            }
        }
    }
    Ok(found)
}

/// The end of an archive: blocks of zeros behind the last member. A file that is cut between two
/// members lacks them.
fn has_its_end(file: &mut File, end: u64) -> io::Result<bool> {
    file.seek(SeekFrom::Start(end.next_multiple_of(BLOCK as u64)))?;
    let mut block = [1; BLOCK];
    match file.read_exact(&mut block) {
        Ok(()) => Ok(block.iter().all(|b| *b == 0)),
        Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        Err(e) => Err(e),
    }
}

/// Bytes of a block of a tar file.
const BLOCK: usize = 512;

/// What lies in some tar files.
#[derive(Default)]
struct Members {
    pictures: Vec<(Stored, Class)>,
    /// Members that are neither picture nor class.
    skipped: usize,
    notes: Vec<String>,
}

/// The pictures of some tar files with their classes, in the order they lie there.
fn members(shards: &[PathBuf]) -> Result<Members, DataError> {
    let mut found = Members::default();
    for path in shards {
        members_of(path, &mut found)?;
    }
    Ok(found)
}

fn members_of(path: &Path, found: &mut Members) -> Result<(), DataError> {
    let shard: Arc<Path> = path.into();
    let mut file = crate::files::open(path).map_err(DataError::io(path))?;
    let mut archive = tar::Archive::new(&file);
    let no_tar = |error: io::Error| {
        let found = error.to_string();
        let found: String = found
            .chars()
            .filter(|c| !c.is_control())
            .take(100)
            .collect();
        DataError::content(path, 0, found, "an intact, uncompressed tar file")
    };
    let entries = archive.entries_with_seek().map_err(no_tar)?;
    let mut classes = BTreeMap::new();
    let mut pictures = Vec::new();
    let (mut end, mut others) = (0, 0);
    for entry in entries {
        let mut entry = entry.map_err(no_tar)?;
        let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        let (at, length) = (entry.raw_file_position(), entry.size());
        end = at + length;
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
            if classes.insert(key.to_owned(), number).is_some() {
                let found = format!("a second {name}");
                return Err(DataError::content(
                    path,
                    at,
                    found,
                    "one class for each key",
                ));
            }
        } else if stored.is_named_like_a_picture() {
            pictures.push((stored, name, at));
        } else {
            others += 1;
        }
    }
    // (Nothing but the end of an archive is an archive too.)
    if !has_its_end(&mut file, end).map_err(DataError::io(path))? {
        found.notes.push(format!(
            "{}: the end-of-archive blocks are missing: it may have been cut",
            path.display()
        ));
    }
    let numbered = !classes.is_empty();
    let mut keys = BTreeSet::new();
    for (stored, name, at) in pictures {
        let (key, ending) = key(&name);
        let class = if numbered {
            if !is_picture_ending(ending) {
                // `KEY.seg.png` and the like belong to a sample; they are not its picture.
                others += 1;
                continue;
            }
            let number = classes.get(key).ok_or_else(|| {
                let expected = format!("`{key}.cls`");
                DataError::folder(path, format!("{name} without a class"), expected)
            })?;
            if !keys.insert(key.to_owned()) {
                let found = format!("{name}, a second picture of the key {key}");
                return Err(DataError::content(
                    path,
                    at,
                    found,
                    "one picture for each key",
                ));
            }
            Class::Number(*number)
        } else {
            let folder = Path::new(&name).parent().and_then(Path::file_name);
            let folder = folder.ok_or_else(|| {
                let expected = format!("`{key}.cls`, or a folder for each class");
                DataError::folder(path, format!("{name} without a class"), expected)
            })?;
            Class::Name(folder.to_string_lossy().into_owned())
        };
        found.pictures.push((stored, class));
    }
    found.skipped += others;
    Ok(())
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
    Ok(names(&members(&train)?.pictures))
}

/// The training part and the test part as they are listed, and who reads them.
type Listed<'a> = (Reading<'a>, Vec<Labelled>, Option<Vec<Labelled>>);

fn list<'a>(path: &Path, wishes: &'a Wishes) -> Result<Listed<'a>, DataError> {
    let [train, test] = files(path)?;
    let train = members(&train)?;
    let names = names(&train.pictures);
    if names.len() < 2 {
        let found = match train.pictures.len() {
            0 => "no picture in it".into(),
            _ => "pictures of one class".to_owned(),
        };
        return Err(DataError::folder(
            path,
            found,
            "pictures of 2 to 65536 classes",
        ));
    }
    let mut reading = Reading::new(names.clone(), wishes);
    let mut numbered = |found: Members| -> Result<Vec<Labelled>, DataError> {
        reading.skip(found.skipped);
        reading.note(found.notes);
        let number = |(stored, class): (Stored, Class)| {
            let text = match class {
                Class::Number(number) => number.to_string(),
                Class::Name(name) => name,
            };
            let label = names.iter().position(|n| *n == text);
            let label = label.ok_or_else(|| {
                let found =
                    format!("{stored}: the class {text}, which the training part does not have");
                DataError::folder(path, found, "the training part's classes")
            })?;
            Ok((stored, label as u16))
        };
        found.pictures.into_iter().map(number).collect()
    };
    let train = numbered(train)?;
    let test = match test.is_empty() {
        true => None,
        false => Some(numbered(members(&test)?)?),
    };
    Ok((reading, train, test))
}

/// Training and test part, with what was found.
pub(super) fn read(
    path: &Path,
    wishes: &Wishes,
) -> Result<(Part, Option<Part>, Report), DataError> {
    let (mut reading, train, test) = list(path, wishes)?;
    let place = beside(path);
    let train = reading.part(&place, train, true)?;
    let test = test
        .map(|test| reading.part(&place, test, false))
        .transpose()?;
    let sizes = [train.len(), test.as_ref().map_or(0, |t| t.len())];
    Ok((train, test, reading.finish(sizes)))
}

/// Every picture decoded: unreadable ones are listed, not an error.
pub(super) fn check(path: &Path, wishes: Wishes) -> Result<Report, DataError> {
    let wishes = wishes_of_check(wishes);
    let (reading, train, test) = list(path, &wishes)?;
    let parts = [Some(train), test].into_iter().flatten();
    let place = |files| (path.to_owned(), files);
    reading.check(parts.map(place).collect())
}

/// A path in the folder that the tar files lie in.
fn beside(path: &Path) -> PathBuf {
    if path.is_dir() {
        path.join("shards")
    } else {
        path.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_end_at_the_first_dot() {
        assert_eq!(key("a.b/c.d.jpg"), ("a.b/c", "d.jpg"));
        assert_eq!(key("plain"), ("plain", ""));
    }
}
