//! A study's file: which experiments, with which settings and seeds, in which order.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Deserialize;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::experiment::{Diagnostics, KEYS, Kind, Place, Values, difference};

/// A study: cells, each with every seed.
#[derive(Debug, Clone, PartialEq)]
pub struct Study {
    /// The file.
    pub file: PathBuf,
    /// Its text.
    text: Arc<str>,
    /// Its name: that of the folder.
    pub name: String,
    /// What it is about, in a sentence or two.
    pub about: String,
    /// What is compared, in the order of the file.
    pub cells: Vec<Cell>,
    /// Seeds of every cell.
    pub seeds: Vec<i64>,
    /// The cell that the others are compared with.
    pub reference: Option<usize>,
    /// One run each, those first that others start from.
    pub tasks: Vec<Task>,
}

/// One setting of the comparison.
#[derive(Debug, Clone, PartialEq)]
pub struct Cell {
    /// As tables name it.
    pub label: String,
    /// As folders are named.
    pub slug: String,
    /// The experiment; the embedded default where absent.
    pub experiment: Option<PathBuf>,
    /// What is set over it, `key=value` each.
    pub set: Vec<String>,
    /// Where the study's file says so, by key.
    places: Spans,
    /// The cell whose best checkpoint, of the same seed, it starts from.
    pub from: Option<usize>,
    /// What was published for it.
    pub paper: Option<Published>,
}

/// A published result.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Published {
    /// Error in percent.
    pub error: f64,
    /// kB of weights.
    pub weights_kb: Option<f64>,
    /// kB of the largest activation.
    pub activations_max_kb: Option<f64>,
    /// kB of all activations.
    pub activations_sum_kb: Option<f64>,
}

/// One run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Task {
    /// Its cell.
    pub cell: usize,
    /// Its seed.
    pub seed: i64,
}

/// Why a study cannot be understood.
#[derive(Debug, thiserror::Error)]
pub enum StudyError {
    /// The file cannot be read.
    #[error("{path}: {source}")]
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It is no such file.
    #[error("{path}:{line}:{column}: {message}")]
    Syntax {
        /// Which.
        path: PathBuf,
        /// Line, from 1.
        line: usize,
        /// Column, from 1.
        column: usize,
        /// What is wrong.
        message: String,
    },
    /// It asks for something that cannot be.
    #[error("{path}: {message}; expected {expected}")]
    Meaning {
        /// Which.
        path: PathBuf,
        /// What is wrong.
        message: String,
        /// What would do.
        expected: String,
    },
}

/// The file as it is written.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    name: Option<String>,
    #[serde(default)]
    about: String,
    base: Option<PathBuf>,
    #[serde(default = "first_seed")]
    seeds: Vec<i64>,
    reference: Option<String>,
    #[serde(default)]
    set: toml::Table,
    #[serde(default)]
    axis: Vec<Axis>,
    #[serde(default)]
    row: Vec<Row>,
    /// By the label of a cell.
    #[serde(default)]
    published: BTreeMap<String, Paper>,
}

fn first_seed() -> Vec<i64> {
    vec![1]
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Axis {
    keys: Vec<String>,
    values: Vec<toml::Value>,
    #[serde(default)]
    names: Vec<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Row {
    name: String,
    base: Option<PathBuf>,
    from: Option<String>,
    #[serde(default = "yes")]
    axes: bool,
    #[serde(default)]
    set: toml::Table,
    /// Keys that the base's value is taken away from.
    #[serde(default)]
    unset: Vec<String>,
    paper: Option<Paper>,
}

fn yes() -> bool {
    true
}

/// A published error alone, or with its memory.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(
    untagged,
    expecting = "expected an error in percent, or `{ error = 8.58, weights_kb = 70 }`"
)]
enum Paper {
    Error(f64),
    Full(Published),
}

impl From<Paper> for Published {
    fn from(paper: Paper) -> Self {
        match paper {
            Paper::Full(published) => published,
            Paper::Error(error) => Self {
                error,
                weights_kb: None,
                activations_max_kb: None,
                activations_sum_kb: None,
            },
        }
    }
}

/// A point on the axes: its words, what it sets, and where.
type Point = (Vec<String>, Vec<String>, Spans);

/// Where a key and its value stand in the text, by key.
type Spans = BTreeMap<String, [Range<usize>; 2]>;

impl Study {
    /// Reads a study's file.
    ///
    /// # Errors
    /// Where it cannot be read, or asks for what cannot be.
    pub fn read(path: &Path) -> Result<Self, StudyError> {
        let text = crate::files::read_text(path).map_err(|source| StudyError::Io {
            path: path.to_owned(),
            source,
        })?;
        Self::parse(path, &text)
    }

    /// The same of a text; `path` is where it says that it stands.
    ///
    /// # Errors
    /// As [`Study::read`].
    pub fn parse(path: &Path, text: &str) -> Result<Self, StudyError> {
        let written: Written = toml::from_str(text).map_err(|error| {
            let at = error.span().map_or(0, |s| s.start);
            let before = &text[..at.min(text.len())];
            StudyError::Syntax {
                path: path.to_owned(),
                line: before.matches('\n').count() + 1,
                column: before.chars().rev().take_while(|c| *c != '\n').count() + 1,
                message: error.message().to_owned(),
            }
        })?;
        let table = DeTable::parse(text).map_err(|error| StudyError::Meaning {
            path: path.to_owned(),
            message: error.message().to_owned(),
            expected: "valid TOML".into(),
        })?;
        let builder = Builder {
            path,
            text,
            written,
            table: table.get_ref(),
        };
        builder.study()
    }

    /// What is wrong with a cell's experiment; where the study sets it, with the place in its file.
    pub fn placed(&self, cell: usize, diagnostics: Diagnostics) -> Diagnostics {
        let file = Arc::new(self.file.clone());
        let mut all = diagnostics.0;
        for diagnostic in all.iter_mut().filter(|d| d.place.is_override()) {
            let set = diagnostic.place.text.clone();
            let (key, _) = set.split_once('=').unwrap_or((&set, ""));
            if let Some([key_at, value_at]) = self.cells[cell].places.get(key.trim()) {
                let is_key = diagnostic.place.span.end <= key.len();
                diagnostic.place = Place {
                    file: file.clone(),
                    text: self.text.clone(),
                    span: if is_key { key_at } else { value_at }.clone(),
                };
            }
        }
        Diagnostics(all)
    }

    /// The task of a cell and a seed.
    pub fn task(&self, cell: usize, seed: i64) -> Option<usize> {
        let wanted = Task { cell, seed };
        self.tasks.iter().position(|t| *t == wanted)
    }

    /// The task that another one starts from.
    pub fn needs(&self, task: usize) -> Option<usize> {
        let Task { cell, seed } = self.tasks[task];
        self.task(self.cells[cell].from?, seed)
    }

    /// How many tasks stand before this one on its way: 0 for those that start from nothing.
    pub fn stage(&self, task: usize) -> usize {
        let mut stage = 0;
        let mut at = task;
        while let Some(before) = self.needs(at) {
            (stage, at) = (stage + 1, before);
        }
        stage
    }

    /// Name of a task's folder.
    pub fn label(&self, task: usize) -> String {
        let Task { cell, seed } = self.tasks[task];
        format!("{}-s{seed}", self.cells[cell].slug)
    }

    /// A task in words.
    pub fn describe(&self, task: usize) -> String {
        let Task { cell, seed } = self.tasks[task];
        format!("{}, seed {seed}", self.cells[cell].label)
    }
}

struct Builder<'a> {
    path: &'a Path,
    text: &'a str,
    written: Written,
    /// The same with the places of everything.
    table: &'a DeTable<'a>,
}

impl Builder<'_> {
    fn wrong(&self, message: impl Into<String>, expected: impl Into<String>) -> StudyError {
        StudyError::Meaning {
            path: self.path.to_owned(),
            message: message.into(),
            expected: expected.into(),
        }
    }

    /// A path as the file means it: from its own folder.
    fn beside(&self, path: &Path) -> PathBuf {
        let folder = self.path.parent().unwrap_or(Path::new("."));
        let joined = folder.join(path);
        std::path::absolute(&joined).unwrap_or(joined)
    }

    fn study(&self) -> Result<Study, StudyError> {
        let stem = self.path.file_stem().unwrap_or_default().to_string_lossy();
        let name = self.written.name.clone().unwrap_or(stem.into_owned());
        if slug(&name).is_empty() {
            return Err(self.wrong(
                format!("`name` is \"{name}\""),
                "a name with letters or digits",
            ));
        }
        let seeds: BTreeSet<i64> = self.written.seeds.iter().copied().collect();
        if seeds.is_empty() || seeds.len() != self.written.seeds.len() {
            return Err(self.wrong(
                format!("`seeds` is {:?}", self.written.seeds),
                "one or more, each once",
            ));
        }
        let mut cells = self.cells()?;
        for (label, paper) in &self.written.published {
            match cells.iter_mut().find(|c| c.label == *label) {
                Some(cell) => cell.paper = Some((*paper).into()),
                None => return Err(self.no_cell("published", label, &cells)),
            }
        }
        let reference = match &self.written.reference {
            None => None,
            Some(name) => Some(
                (cells.iter())
                    .position(|c| c.label == *name)
                    .ok_or_else(|| self.no_cell("reference", name, &cells))?,
            ),
        };
        let tasks = in_order(&cells, &self.written.seeds);
        Ok(Study {
            file: self.path.to_owned(),
            text: self.text.into(),
            name: slug(&name),
            about: self.written.about.clone(),
            cells,
            seeds: self.written.seeds.clone(),
            reference,
            tasks,
        })
    }

    fn no_cell(&self, key: &str, name: &str, cells: &[Cell]) -> StudyError {
        let labels: Vec<String> = cells.iter().map(|c| format!("\"{}\"", c.label)).collect();
        self.wrong(
            format!("`{key}` is \"{name}\""),
            format!("one of {}", labels.join(", ")),
        )
    }

    fn cells(&self) -> Result<Vec<Cell>, StudyError> {
        let points = self.points()?;
        let common = self.overrides(&self.written.set)?;
        let single = [Row {
            name: String::new(),
            base: None,
            from: None,
            axes: true,
            set: toml::Table::new(),
            unset: Vec::new(),
            paper: None,
        }];
        let rows = match &self.written.row[..] {
            [] => &single[..],
            rows => rows,
        };
        let none: [Point; 1] = [(Vec::new(), Vec::new(), Spans::new())];
        let mut everywhere = Spans::new();
        spans("", self.table.get("set"), &mut everywhere);
        let mut cells: Vec<Cell> = Vec::new();
        // Whose cells they are, and at which point of the axes.
        let mut places: Vec<(usize, usize)> = Vec::new();
        for (place, row) in rows.iter().enumerate() {
            let mut own: Vec<String> = row.unset.iter().map(|key| format!("{key}=")).collect();
            own.extend(self.overrides(&row.set)?);
            let mut at_row = Spans::new();
            let table = item(self.table, "row", place);
            spans("", table.and_then(|t| t.get("set")), &mut at_row);
            if let Some(DeValue::Array(keys)) =
                table.and_then(|t| t.get("unset")).map(Spanned::get_ref)
            {
                let spans = row.unset.iter().zip(keys.iter().map(Spanned::span));
                at_row.extend(spans.map(|(key, at)| (key.clone(), [at.clone(), at])));
            }
            let crossed: &[Point] = if row.axes { &points } else { &none };
            for (point, (words, set, at_point)) in crossed.iter().enumerate() {
                let name = Some(&row.name).filter(|n| !n.is_empty());
                let words: Vec<&str> = name.into_iter().chain(words).map(String::as_str).collect();
                let label = match words[..] {
                    [] => "base".to_owned(),
                    _ => words.join(", "),
                };
                let experiment = row.base.as_ref().or(self.written.base.as_ref());
                cells.push(Cell {
                    slug: slug(&label),
                    label,
                    experiment: experiment.map(|p| self.beside(p)),
                    set: [&common[..], &own, set].concat(),
                    // (The last of a key is the one that holds.)
                    places: [&everywhere, &at_row, at_point]
                        .into_iter()
                        .flat_map(Clone::clone)
                        .collect(),
                    from: None,
                    paper: row.paper.map(Published::from),
                });
                places.push((place, point));
            }
        }
        for slugs in 0..cells.len() {
            let same = |c: &&Cell| c.slug == cells[slugs].slug;
            if cells[slugs].slug.is_empty() || cells.iter().filter(same).count() > 1 {
                let label = &cells[slugs].label;
                return Err(self.wrong(
                    format!("two cells are called \"{label}\", or nearly so"),
                    "names that differ in letters or digits",
                ));
            }
        }
        for cell in 0..cells.len() {
            let (row, point) = places[cell];
            let Some(name) = &rows[row].from else {
                continue;
            };
            // A row, at the same point of the axes where both are crossed; or one cell by its label.
            let found = rows.iter().position(|r| r.name == *name);
            let from = match found.filter(|f| *f != row) {
                Some(f) if !rows[f].axes => places.iter().position(|p| *p == (f, 0)),
                Some(f) if rows[row].axes || points.len() == 1 => {
                    places.iter().position(|p| *p == (f, point))
                }
                _ => cells
                    .iter()
                    .position(|c| c.label == *name && c.label != cells[cell].label),
            };
            cells[cell].from = Some(from.ok_or_else(|| {
                let others = cells.iter().zip(&places).filter(|(_, p)| p.0 != row);
                let names: Vec<String> = others.map(|(c, _)| format!("\"{}\"", c.label)).collect();
                self.wrong(
                    format!("row \"{}\" is from \"{name}\"", rows[row].name),
                    format!(
                        "another row that is crossed with the axes as it is, or one cell: {}",
                        names.join(", ")
                    ),
                )
            })?);
        }
        for cell in 0..cells.len() {
            let mut seen = BTreeSet::from([cell]);
            let mut at = cell;
            while let Some(from) = cells[at].from {
                if !seen.insert(from) {
                    let label = &cells[cell].label;
                    return Err(self.wrong(
                        format!("\"{label}\" starts from itself, by way of others"),
                        "a chain that ends at a row without `from`",
                    ));
                }
                at = from;
            }
        }
        Ok(cells)
    }

    /// Every combination of a value of each axis; the last axis varies fastest.
    fn points(&self) -> Result<Vec<Point>, StudyError> {
        let mut points: Vec<Point> = vec![(Vec::new(), Vec::new(), Spans::new())];
        for (place, axis) in self.written.axis.iter().enumerate() {
            let own = self.axis(axis)?;
            let mut crossed = Vec::with_capacity(points.len() * own.len());
            for (words, set, places) in &points {
                for (value, (word, more)) in own.iter().enumerate() {
                    let mut places = places.clone();
                    places.extend(self.axis_places(place, axis, value));
                    crossed.push((
                        [&words[..], std::slice::from_ref(word)].concat(),
                        [&set[..], more].concat(),
                        places,
                    ));
                }
            }
            points = crossed;
        }
        Ok(points)
    }

    /// Where an axis names its keys and one of its values.
    fn axis_places(&self, place: usize, axis: &Axis, value: usize) -> Spans {
        let list = |name: &str| match item(self.table, "axis", place)?.get(name)?.get_ref() {
            DeValue::Array(items) => Some(items.iter().map(Spanned::span).collect::<Vec<_>>()),
            _ => None,
        };
        let (Some(keys), Some(values)) = (list("keys"), list("values")) else {
            return Spans::new();
        };
        let keys = axis.keys.iter().zip(keys);
        keys.map(|(key, at)| (key.clone(), [at, values[value].clone()]))
            .collect()
    }

    /// The values of an axis: a word for each, and what it sets.
    fn axis(&self, axis: &Axis) -> Result<Vec<(String, Vec<String>)>, StudyError> {
        let keys = axis.keys.join(", ");
        if axis.keys.is_empty() || axis.values.is_empty() {
            return Err(self.wrong(
                format!("an axis of keys [{keys}] has {} values", axis.values.len()),
                "at least one key and one value",
            ));
        }
        if !axis.names.is_empty() && axis.names.len() != axis.values.len() {
            return Err(self.wrong(
                format!(
                    "the axis of {keys} has {} values and {} names",
                    axis.values.len(),
                    axis.names.len()
                ),
                "a name for every value, or none",
            ));
        }
        let mut out = Vec::new();
        for (i, value) in axis.values.iter().enumerate() {
            let each: Vec<&toml::Value> = match value {
                toml::Value::Array(values) if axis.keys.len() > 1 => {
                    if values.len() != axis.keys.len() {
                        return Err(self.wrong(
                            format!("{value} on the axis of {keys}"),
                            "one value for all keys, or a list with one for each",
                        ));
                    }
                    values.iter().collect()
                }
                value => vec![value; axis.keys.len()],
            };
            let set = axis
                .keys
                .iter()
                .zip(&each)
                .map(|(key, value)| self.set(key, value));
            let set = set.collect::<Result<Vec<_>, _>>()?;
            let word = axis.names.get(i).cloned().unwrap_or_else(|| {
                let last = axis.keys[0].rsplit('.').next().unwrap_or_default();
                let plain = |v: &toml::Value| match v {
                    toml::Value::String(s) => s.clone(),
                    v => format!("{last} {v}"),
                };
                let mut words: Vec<String> = each.iter().map(|v| plain(v)).collect();
                words.dedup();
                words.join("/")
            });
            out.push((word, set));
        }
        Ok(out)
    }

    /// What a table sets, `key=value` each; tables in it are the keys' first parts.
    fn overrides(&self, table: &toml::Table) -> Result<Vec<String>, StudyError> {
        let mut flat = BTreeMap::new();
        flatten("", table, &mut flat);
        flat.iter()
            .map(|(key, value)| self.set(key, value))
            .collect()
    }

    fn set(&self, key: &str, value: &toml::Value) -> Result<String, StudyError> {
        if matches!(key, "seed" | "init.run" | "init.weights") {
            let instead = match key {
                "seed" => "`seeds`, once for the study",
                _ => "`from`, which names the row to start from",
            };
            return Err(self.wrong(format!("`{key}` is set"), instead));
        }
        let known = KEYS.iter().find(|k| k.path == key);
        let is_path = known.is_some_and(|k| matches!(k.kind, Kind::Path));
        Ok(match value {
            toml::Value::String(path) if is_path => {
                format!("{key}={}", self.beside(Path::new(path)).display())
            }
            toml::Value::String(text) if known.is_some_and(|k| k.kind.is_text()) => {
                format!("{key}={text}")
            }
            value => format!("{key}={value}"),
        })
    }
}

/// Where the keys and values of a table stand, by their paths.
fn spans(before: &str, table: Option<&Spanned<DeValue<'_>>>, out: &mut Spans) {
    let Some(DeValue::Table(table)) = table.map(Spanned::get_ref) else {
        return;
    };
    for (key, value) in table {
        let path = match before {
            "" => key.get_ref().to_string(),
            before => format!("{before}.{}", key.get_ref()),
        };
        match value.get_ref() {
            DeValue::Table(_) => spans(&path, Some(value), out),
            _ => _ = out.insert(path, [key.span(), value.span()]),
        }
    }
}

/// A table of a list of tables.
fn item<'t, 'a>(table: &'t DeTable<'a>, list: &str, place: usize) -> Option<&'t DeTable<'a>> {
    let DeValue::Array(items) = table.get(list)?.get_ref() else {
        return None;
    };
    match items.get(place)?.get_ref() {
        DeValue::Table(table) => Some(table),
        _ => None,
    }
}

fn flatten(before: &str, table: &toml::Table, out: &mut BTreeMap<String, toml::Value>) {
    for (key, value) in table {
        let path = match before {
            "" => key.clone(),
            before => format!("{before}.{key}"),
        };
        match value {
            toml::Value::Table(inner) => flatten(&path, inner, out),
            value => drop(out.insert(path, value.clone())),
        }
    }
}

/// All seeds of every cell, one seed after the other: a study that is stopped half-way has whole
/// comparisons. Within a seed, what others start from comes first.
fn in_order(cells: &[Cell], seeds: &[i64]) -> Vec<Task> {
    let depth = |cell: usize| {
        let mut depth = 0;
        let mut at = cell;
        while let Some(from) = cells[at].from {
            (depth, at) = (depth + 1, from);
        }
        depth
    };
    let mut order: Vec<usize> = (0..cells.len()).collect();
    order.sort_by_key(|cell| depth(*cell));
    let of_seed = |seed: &i64| {
        let seed = *seed;
        let tasks = order.iter().map(move |cell| Task { cell: *cell, seed });
        tasks.collect::<Vec<_>>()
    };
    seeds.iter().flat_map(of_seed).collect()
}

/// A label as a name of files: lower case, words apart by dashes.
fn slug(label: &str) -> String {
    let mut out = String::new();
    for c in label.chars() {
        match c {
            c if c.is_ascii_alphanumeric() => out.push(c.to_ascii_lowercase()),
            '+' => out.push('+'),
            _ if !out.is_empty() && !out.ends_with('-') => out.push('-'),
            _ => {}
        }
    }
    out.trim_end_matches('-').to_owned()
}

/// What of an experiment a task sets beside its cell's settings.
pub fn seeded(cell: &Cell, seed: i64, start: Option<&Path>) -> Vec<String> {
    let mut set = cell.set.clone();
    set.push(format!("seed={seed}"));
    set.extend(start.map(|run| format!("init.run={}", run.display())));
    set
}

/// What a recorded run has other settings in than a task asks for; what belongs to the machine aside.
pub fn differences(recorded: &Values, wanted: &Values) -> Vec<String> {
    const MOVABLE: [&str; 4] = ["device", "data.path", "init.run", "data.loader_threads"];
    let changes = difference(recorded, wanted).into_iter();
    let matters = changes.filter(|c| !MOVABLE.contains(&c.path.as_str()));
    matters.map(|c| c.to_string()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Study, StudyError> {
        Study::parse(Path::new("folder/study.toml"), text)
    }

    const STUDY: &str = r#"
        name = "Two starts"
        base = "../base.toml"
        seeds = [3, 5]
        reference = "float"
        [set]
        train.epochs = 2
        "train.batch" = 64
        [[axis]]
        keys = ["weights.quantizer", "activations.quantizer"]
        values = ["u1", ["u3", "p3"]]
        [[row]]
        name = "float"
        axes = false
        paper = 7.29
        [[row]]
        name = "from float"
        from = "float"
        set = { data.path = "pictures" }
    "#;

    #[test]
    fn rows_are_crossed_with_axes_and_start_from_one_another() {
        let study = parse(STUDY).expect("a study");
        assert_eq!(study.name, "two-starts");
        let labels: Vec<&str> = study.cells.iter().map(|c| c.label.as_str()).collect();
        assert_eq!(labels, ["float", "from float, u1", "from float, u3/p3"]);
        assert_eq!(study.cells[0].paper.map(|p| p.error), Some(7.29));
        assert_eq!(study.cells[2].from, Some(0));
        assert_eq!(study.reference, Some(0));
        let set = study.cells[2].set.join(" ");
        for part in ["train.epochs=2", "train.batch=64", "weights.quantizer=u3"] {
            assert!(set.contains(part), "{set}");
        }
        assert!(set.contains("activations.quantizer=p3"), "{set}");
        assert!(
            set.contains("folder/pictures"),
            "paths are the file's own: {set}"
        );
        let order: Vec<String> = (0..study.tasks.len()).map(|t| study.label(t)).collect();
        let seed = |s: i64| {
            let names = ["float", "from-float-u1", "from-float-u3-p3"];
            names.map(|n| format!("{n}-s{s}"))
        };
        assert_eq!(order, [seed(3), seed(5)].concat());
        assert_eq!((study.needs(5), study.stage(5)), (Some(3), 1));
    }

    #[test]
    fn what_cannot_be_is_said_with_what_would_do() {
        for (text, part) in [
            ("seeds = []", "one or more"),
            ("seeds = [1, 1]", "each once"),
            ("sedes = [1]", "unknown field `sedes`"),
            ("reference = \"x\"", "one of \"base\""),
            ("[set]\nseed = 1", "`seeds`"),
            ("[published]\nx = 1", "one of \"base\""),
            ("[set]\ninit.run = \"x\"", "`from`"),
            ("[[row]]\nname = \"a\"\nfrom = \"b\"", "another row"),
            (
                "[[row]]\nname = \"a\"\n[[row]]\nname = \"A\"",
                "differ in letters",
            ),
            ("[[axis]]\nkeys = []\nvalues = [1]", "at least one key"),
            (
                "[[axis]]\nkeys = [\"a\", \"b\"]\nvalues = [[1]]",
                "one for each",
            ),
            (
                "[[axis]]\nkeys = [\"a\"]\nvalues = [1]\nnames = [\"x\", \"y\"]",
                "a name for every",
            ),
            (
                "[[row]]\nname = \"a\"\nfrom = \"b\"\n[[row]]\nname = \"b\"\nfrom = \"a\"",
                "starts from itself",
            ),
        ] {
            let error = parse(text).expect_err(text).to_string();
            assert!(error.contains(part), "{text}: {error}");
            assert!(error.contains("folder/study.toml"), "{error}");
        }
        let error = parse("name = \"a\"\nseeds = [1,")
            .expect_err("cut")
            .to_string();
        assert!(error.contains("study.toml:2:"), "{error}");
    }

    /// What an experiment has against a setting points to where the study's file makes it.
    #[test]
    fn a_wrong_setting_stands_in_the_studys_file() {
        let text = r#"
            [set]
            train.epochs = "many"
            budget.weights = 3
            [[axis]]
            keys = ["weights.quantizer"]
            values = ["u3",
                "u9"]
            [[row]]
            name = "a"
            unset = ["budget.weights_kb", "no.key"]
            [row.set]
            train.batch = 0
        "#;
        let study = parse(text).expect("a study");
        let of = |cell: usize| {
            let set = seeded(&study.cells[cell], 1, None);
            let wrong = crate::experiment::load_embedded("base.toml", "", &set);
            let wrong = study.placed(cell, wrong.expect_err("wrong"));
            let lines = wrong.0.iter().map(ToString::to_string);
            let mut places: Vec<String> = lines
                .map(|line| line.split(": ").next().unwrap_or_default().to_owned())
                .collect();
            places.sort();
            places
        };
        let at = |place| format!("folder/study.toml:{place}");
        assert_eq!(of(0), ["11:43", "13:27", "3:28", "4:20"].map(at));
        assert_eq!(of(1), ["11:43", "13:27", "3:28", "4:20", "8:17"].map(at));
    }

    #[test]
    fn a_row_takes_settings_of_the_base_away() {
        let study = parse("[[row]]\nname = \"a\"\nunset = [\"budget.weights_kb\"]").expect("one");
        let set = seeded(&study.cells[0], 1, None);
        let base = "[weights]\nquantizer = \"u3\"\n[budget]\nweights_kb = 3";
        let limits = |set: Vec<String>| {
            let loaded = crate::experiment::load_embedded("base.toml", base, &set).expect("valid");
            loaded.experiment.budgets.limits.len()
        };
        assert_eq!([limits(Vec::new()), limits(set)], [1, 0]);
    }

    #[test]
    fn a_study_without_rows_is_its_axes() {
        let study = parse("[[axis]]\nkeys = [\"train.batch\"]\nvalues = [16, 32]").expect("one");
        let labels: Vec<&str> = study.cells.iter().map(|c| c.label.as_str()).collect();
        assert_eq!(labels, ["batch 16", "batch 32"]);
        assert_eq!(study.tasks.len(), 2);
    }
}
