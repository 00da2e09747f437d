//! The house as ARCHITECTURE.md draws it: a room uses only rooms above it in the list, and the first
//! ones know nothing of burn.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// Rooms, ground floor first. What is not in the list is a face: it may use all, and no room uses it.
const ROOMS: [&str; 16] = [
    "files",
    "quantizer",
    "graph",
    "experiment",
    "run",
    "figure",
    "dataset",
    "kernels",
    "device",
    "network",
    "integers",
    "training",
    "study",
    "process",
    "trace",
    "face",
];

/// Rooms that compute with plain numbers.
const WITHOUT_TENSORS: [&str; 7] = [
    "files",
    "quantizer",
    "graph",
    "experiment",
    "run",
    "figure",
    "dataset",
];

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|e| e == "rs") {
            found.push(path);
        }
    }
}

/// Every source file with its room and its text outside tests.
fn files() -> Vec<(PathBuf, String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut all = Vec::new();
    sources(&root, &mut all);
    let is_test = |p: &PathBuf| {
        ["tests.rs", "properties.rs"]
            .iter()
            .any(|name| p.ends_with(name))
    };
    all.retain(|p| !is_test(p));
    all.into_iter()
        .map(|path| {
            let inside = path.strip_prefix(&root).expect("below src");
            let first = inside.components().next().expect("a name");
            let room = first
                .as_os_str()
                .to_string_lossy()
                .trim_end_matches(".rs")
                .to_owned();
            let text = std::fs::read_to_string(&path).expect("readable");
            let text = text.split("#[cfg(test)]").next().unwrap_or("").to_owned();
            (path, room, text)
        })
        .collect()
}

/// Names behind `crate::`, also in braces.
fn used(text: &str) -> BTreeSet<String> {
    let word = |s: &str| -> String {
        s.trim()
            .chars()
            .take_while(|c| c.is_alphanumeric() || *c == '_')
            .collect()
    };
    let mut found = BTreeSet::new();
    for rest in text.split("crate::").skip(1) {
        match rest.strip_prefix('{') {
            Some(list) => found.extend(list.split('}').next().unwrap_or("").split(',').map(word)),
            None => _ = found.insert(word(rest)),
        }
    }
    found
}

#[test]
fn a_room_uses_only_rooms_above_it() {
    let floor = |room: &str| ROOMS.iter().position(|r| *r == room);
    let mut wrong = Vec::new();
    let mut arrows = 0;
    for (path, room, text) in files() {
        let Some(own) = floor(&room) else {
            continue;
        };
        let is_room =
            |name: &String| name.chars().next().is_some_and(char::is_lowercase) && *name != room;
        for other in used(&text).into_iter().filter(is_room) {
            arrows += 1;
            if floor(&other).is_none_or(|other| other > own) {
                wrong.push(format!("{}: {room} uses {other}", path.display()));
            }
        }
    }
    assert!(arrows > 50, "the test reads imports: {arrows}");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn plain_rooms_know_nothing_of_burn() {
    let plain = files()
        .into_iter()
        .filter(|f| WITHOUT_TENSORS.contains(&f.1.as_str()));
    let knows = plain.filter(|(_, _, text)| {
        let code = text
            .lines()
            .filter(|line| !line.trim_start().starts_with("//"));
        code.clone()
            .any(|line| line.contains("burn::") || line.contains("burn_"))
    });
    let names: Vec<String> = knows.map(|f| f.0.display().to_string()).collect();
    assert!(names.is_empty(), "{names:?}");
}

#[test]
fn the_architecture_lists_every_room_in_this_order() {
    let text = include_str!("../ARCHITECTURE.md");
    let places: Vec<usize> = ROOMS
        .iter()
        .map(|room| {
            let row = [format!("| `{room}/`"), format!("| `{room}.rs`")];
            let place = row.iter().find_map(|row| text.find(row.as_str()));
            place.unwrap_or_else(|| panic!("{room} is not in ARCHITECTURE.md"))
        })
        .collect();
    assert!(places.is_sorted(), "{places:?}");
}
