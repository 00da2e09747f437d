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
            (path, room, outside_tests(&text))
        })
        .collect()
}

/// A source without the items, fields and arms that are for tests alone: each ends in the column where
/// it begins, as rustfmt has it.
fn outside_tests(text: &str) -> String {
    let mut kept = String::new();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        if line.trim() != "#[cfg(test)]" {
            kept += line;
            kept.push('\n');
            continue;
        }
        let indent = line.len() - line.trim_start().len();
        let ends = |line: &&str| {
            let own = line.get(indent..).is_some_and(|l| !l.starts_with(' '));
            own && (line.ends_with([';', ',']) || line.trim() == "}")
        };
        lines.by_ref().find(ends);
    }
    kept
}

#[test]
fn only_what_is_for_tests_is_left_out() {
    let text = "a\n#[cfg(test)]\nmod p;\nb\n    #[cfg(test)]\n    X => y,\nc\n\
                #[cfg(test)]\nmod tests {\n    d;\n}\ne\n";
    assert_eq!(outside_tests(text), "a\nb\nc\ne\n");
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

/// A source file as a module: its path below the crate, and the paths that it imports or names.
struct Module {
    file: PathBuf,
    path: Vec<String>,
    text: String,
}

/// The module path of a file: `a/b.rs` and `a/b/mod.rs` are `a::b`.
fn module_path(inside: &Path) -> Vec<String> {
    let mut path: Vec<String> = inside
        .with_extension("")
        .iter()
        .map(|part| part.to_string_lossy().into_owned())
        .collect();
    path.pop_if(|last| matches!(last.as_str(), "mod" | "lib" | "main"));
    path
}

fn modules() -> Vec<Module> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let module = |(file, _, text): (PathBuf, String, String)| {
        let inside = file.strip_prefix(&root).expect("below src").to_owned();
        let code = text
            .lines()
            .filter(|line| !line.trim_start().starts_with("//"));
        let text = code.collect::<Vec<_>>().join("\n");
        let path = module_path(&inside);
        Module {
            file: inside,
            path,
            text,
        }
    };
    let all = files().into_iter().filter(|f| !f.0.ends_with("main.rs"));
    all.map(module).collect()
}

/// The paths of a `use` declaration, braces taken apart, each with the name that it brings in.
fn branches(tree: &str, before: &[String], found: &mut Vec<(Vec<String>, String)>) {
    let tree = tree.trim();
    if let Some((head, rest)) = tree.split_once('{') {
        let mut before = before.to_vec();
        let head = head.trim().trim_end_matches("::");
        before.extend(
            head.split("::")
                .filter(|s| !s.is_empty())
                .map(str::to_owned),
        );
        let inner = &rest[..rest.rfind('}').unwrap_or(rest.len())];
        let (mut depth, mut from) = (0, 0);
        for (at, letter) in inner.char_indices().chain([(inner.len(), ',')]) {
            match letter {
                '{' => depth += 1,
                '}' => depth -= 1,
                ',' if depth == 0 => {
                    branches(&inner[from..at], &before, found);
                    from = (at + 1).min(inner.len());
                }
                _ => {}
            }
        }
        return;
    }
    if tree.is_empty() {
        return;
    }
    let (path, name) = tree.split_once(" as ").unwrap_or((tree, ""));
    let mut path: Vec<String> = before
        .iter()
        .cloned()
        .chain(path.split("::").map(|s| s.trim().to_owned()))
        .collect();
    path.pop_if(|last| last == "self" && !before.is_empty());
    let name = match name.trim() {
        "" => path.last().cloned().unwrap_or_default(),
        name => name.to_owned(),
    };
    found.push((path, name));
}

/// What a module imports, and what it hands on.
struct Names {
    imported: Vec<Vec<String>>,
    handed_on: Vec<(Vec<String>, String)>,
}

fn names(text: &str) -> Names {
    let mut names = Names {
        imported: Vec::new(),
        handed_on: Vec::new(),
    };
    let mut rest = text;
    let mut code = String::new();
    while let Some(at) = rest.find("use ") {
        let begins = rest[..at].rfind('\n').map_or(0, |line| line + 1);
        let visibility = rest[begins..at].trim().to_owned();
        let is_declaration = visibility.is_empty() || visibility.starts_with("pub");
        let end = rest[at..].find(';').map(|end| at + end);
        let (true, Some(end)) = (is_declaration, end) else {
            code += &rest[..at + 4];
            rest = &rest[at + 4..];
            continue;
        };
        code += &rest[..begins];
        let mut found = Vec::new();
        branches(&rest[at + 4..end], &[], &mut found);
        if visibility.is_empty() {
            names.imported.extend(found.into_iter().map(|f| f.0));
        } else {
            names.handed_on.extend(found);
        }
        rest = &rest[end..];
    }
    code += rest;
    // Paths in the midst of code.
    for start in ["crate::", "super::"] {
        for (at, _) in code.match_indices(start) {
            let is_word = |c: char| c.is_alphanumeric() || c == '_' || c == ':';
            // (A visibility is no import.)
            if code[..at].ends_with(is_word) || code[..at].ends_with("(in ") {
                continue;
            }
            let end = code[at..].find(|c| !is_word(c)).unwrap_or(code.len() - at);
            let path = code[at..at + end].split("::").filter(|s| !s.is_empty());
            names.imported.push(path.map(str::to_owned).collect());
        }
    }
    names
}

/// The house: modules by path, with their names.
struct House {
    modules: Vec<Module>,
    names: Vec<Names>,
}

impl House {
    fn at(&self, path: &[String]) -> Option<usize> {
        self.modules.iter().position(|m| m.path == path)
    }

    /// The file that defines what a path names, seen from a module; `None` where that is another crate's.
    fn file_of(&self, from: &[String], path: &[String], depth: usize) -> Option<usize> {
        let mut at: Vec<String> = from.to_vec();
        let mut rest = path;
        while let Some(first) = rest.first() {
            match first.as_str() {
                "crate" => at.clear(),
                "self" => {}
                "super" => _ = at.pop(),
                _ => break,
            }
            rest = &rest[1..];
        }
        let was_relative = rest.len() < path.len();
        for (i, segment) in rest.iter().enumerate() {
            let mut inner = at.clone();
            inner.push(segment.clone());
            if self.at(&inner).is_some() {
                at = inner;
                continue;
            }
            let here = self.at(&at)?;
            if i == 0 && !was_relative {
                return None;
            }
            let handed = self.names[here].handed_on.iter();
            let handed = handed.filter(|h| h.1 == *segment && depth < 8);
            let followed = handed
                .filter_map(|(path, _)| self.file_of(&at, path, depth + 1))
                .next();
            return followed.or(Some(here));
        }
        self.at(&at)
    }

    /// Files that a file takes names from.
    fn arrows(&self, of: usize) -> BTreeSet<usize> {
        let from = &self.modules[of].path;
        let targets = self.names[of].imported.iter();
        let targets = targets.filter_map(|path| self.file_of(from, path, 0));
        targets.filter(|to| *to != of).collect()
    }
}

#[test]
fn files_do_not_import_each_other_in_circles() {
    let modules = modules();
    let names = modules.iter().map(|m| names(&m.text)).collect();
    let house = House { modules, names };
    let count = house.modules.len();
    let arrows: Vec<BTreeSet<usize>> = (0..count).map(|of| house.arrows(of)).collect();
    assert!(arrows.iter().map(BTreeSet::len).sum::<usize>() > 500);
    let mut reach = arrows.clone();
    loop {
        let before: usize = reach.iter().map(BTreeSet::len).sum();
        for of in 0..count {
            let further: Vec<usize> = reach[of].iter().flat_map(|to| reach[*to].clone()).collect();
            reach[of].extend(further);
        }
        if reach.iter().map(BTreeSet::len).sum::<usize>() == before {
            break;
        }
    }
    let mut circles: BTreeSet<Vec<String>> = BTreeSet::new();
    for of in (0..count).filter(|of| reach[*of].contains(of)) {
        let members = reach[of].iter().filter(|to| reach[**to].contains(&of));
        let members: BTreeSet<usize> = members.copied().collect();
        let tie = |member: usize| {
            let to = arrows[member].iter().filter(|to| members.contains(to));
            let to = to.map(|to| house.modules[*to].file.display().to_string());
            let to: Vec<String> = to.collect();
            format!(
                "{} -> {}",
                house.modules[member].file.display(),
                to.join(", ")
            )
        };
        circles.insert(members.iter().map(|m| tie(*m)).collect());
    }
    let text: Vec<String> = circles.iter().map(|c| c.join("\n")).collect();
    assert!(
        circles.is_empty(),
        "{} circles\n{}",
        circles.len(),
        text.join("\n\n")
    );
}
