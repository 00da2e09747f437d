//! From a study's file to its cells and tasks.

use std::collections::BTreeSet;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use toml::{Spanned, Value};

use super::plan::{Cell, Published, Spans, Study, StudyError, Task};
use super::written::{Axis, Row, Settings, Written};
use crate::experiment::{Diagnostic, Diagnostics, KEYS, Kind, Place};

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
        Ok(study(path, text)?)
    }
}

/// The study of a text; `path` is where the text says that it stands.
fn study(path: &Path, text: &str) -> Result<Study, Diagnostics> {
    let text: Arc<str> = text.into();
    let written = toml::from_str(&text).map_err(|error| {
        let message = error.message();
        let (message, expected) = message.split_once(", expected ").unwrap_or((message, ""));
        let expected = match expected {
            "" => "a study's file (README, \"Studies\")",
            expected => expected,
        };
        wrong(path, &text, error.span().unwrap_or(0..0), message, expected)
    })?;
    let builder = Builder {
        path,
        text: &text,
        written,
    };
    builder.study()
}

/// What is wrong at a place of a study's text.
fn wrong(
    path: &Path,
    text: &Arc<str>,
    span: Range<usize>,
    message: impl Into<String>,
    expected: impl Into<String>,
) -> Diagnostics {
    Diagnostics(vec![Diagnostic {
        place: Place {
            file: Arc::new(path.to_owned()),
            text: text.clone(),
            span,
        },
        message: message.into(),
        expected: expected.into(),
    }])
}

/// A point on the axes: its words, what it sets, and where.
type Point = (Vec<String>, Vec<String>, Spans);

/// A value of an axis: its word, and what it sets.
type AxisValue = (String, Vec<String>, Spans);

struct Builder<'a> {
    path: &'a Path,
    text: &'a Arc<str>,
    written: Written,
}

impl Builder<'_> {
    fn wrong(
        &self,
        span: Range<usize>,
        message: impl Into<String>,
        expected: impl Into<String>,
    ) -> Diagnostics {
        wrong(self.path, self.text, span, message, expected)
    }

    /// A path as the file means it: from its own folder.
    fn beside(&self, path: &Path) -> PathBuf {
        let folder = self.path.parent().unwrap_or(Path::new("."));
        let joined = folder.join(path);
        std::path::absolute(&joined).unwrap_or(joined)
    }

    fn study(&self) -> Result<Study, Diagnostics> {
        let stem = self.path.file_stem().unwrap_or_default().to_string_lossy();
        let (name, span) = match &self.written.name {
            Some(name) => (name.get_ref().as_str(), name.span()),
            None => (stem.as_ref(), 0..0),
        };
        let slugged = slug(name);
        if slugged.is_empty() {
            let message = format!("`name` is \"{name}\"");
            return Err(self.wrong(span, message, "a name with letters or digits"));
        }
        let seeds = self.seeds()?;
        let mut cells = self.cells()?;
        for (label, paper) in &self.written.published {
            match cells.iter_mut().find(|c| c.label == *label.get_ref()) {
                Some(cell) => cell.paper = Some((*paper).into()),
                None => return Err(self.no_cell("published", label, &cells)),
            }
        }
        let reference = self.written.reference.as_ref().map(|name| {
            let found = cells.iter().position(|c| c.label == *name.get_ref());
            found.ok_or_else(|| self.no_cell("reference", name, &cells))
        });
        let tasks = in_order(&cells, &seeds);
        Ok(Study {
            file: self.path.to_owned(),
            text: self.text.clone(),
            name: slugged,
            about: self.written.about.clone(),
            reference: reference.transpose()?,
            cells,
            seeds,
            tasks,
        })
    }

    fn seeds(&self) -> Result<Vec<i64>, Diagnostics> {
        let Some(written) = &self.written.seeds else {
            return Ok(vec![1]);
        };
        let seeds: Vec<i64> = written.get_ref().iter().map(|s| *s.get_ref()).collect();
        let different: BTreeSet<&i64> = seeds.iter().collect();
        if seeds.is_empty() || different.len() != seeds.len() {
            let message = format!("`seeds` is {seeds:?}");
            return Err(self.wrong(written.span(), message, "one or more, each once"));
        }
        if let Some(negative) = written.get_ref().iter().find(|s| *s.get_ref() < 0) {
            let message = format!("`seeds` has {}", negative.get_ref());
            return Err(self.wrong(negative.span(), message, "whole numbers from 0 on"));
        }
        Ok(seeds)
    }

    fn no_cell(&self, key: &str, name: &Spanned<String>, cells: &[Cell]) -> Diagnostics {
        let labels: Vec<String> = cells.iter().map(|c| format!("\"{}\"", c.label)).collect();
        self.wrong(
            name.span(),
            format!("`{key}` is \"{name}\""),
            format!("one of {}", labels.join(", ")),
        )
    }

    fn cells(&self) -> Result<Vec<Cell>, Diagnostics> {
        let points = self.points()?;
        let (common, everywhere) = self.settings(&self.written.set)?;
        let single = [Row {
            name: Spanned::new(0..0, String::new()),
            base: None,
            from: None,
            axes: true,
            set: Settings::default(),
            unset: Vec::new(),
            paper: None,
        }];
        let rows = match &self.written.row[..] {
            [] => &single[..],
            rows => rows,
        };
        let none: [Point; 1] = [(Vec::new(), Vec::new(), Spans::new())];
        let mut cells: Vec<Cell> = Vec::new();
        // Whose cells they are, and at which point of the axes.
        let mut places: Vec<(usize, usize)> = Vec::new();
        for (place, row) in rows.iter().enumerate() {
            let mut own: Vec<String> = row.unset.iter().map(|key| format!("{key}=")).collect();
            let taken = row
                .unset
                .iter()
                .map(|key| (key.get_ref().clone(), key.span()));
            let mut at_row: Spans = taken.map(|(key, at)| (key, [at.clone(), at])).collect();
            let (set, spans) = self.settings(&row.set)?;
            own.extend(set);
            at_row.extend(spans);
            let crossed: &[Point] = if row.axes { &points } else { &none };
            for (point, (words, set, at_point)) in crossed.iter().enumerate() {
                if let Some((key, [span, _])) =
                    at_row.iter().find(|(k, _)| at_point.contains_key(*k))
                {
                    return Err(self.wrong(
                        span.clone(),
                        format!("row \"{}\" sets `{key}`, which an axis sets too", row.name),
                        "one of the two, or `axes = false` in the row",
                    ));
                }
                let name = Some(row.name.get_ref()).filter(|n| !n.is_empty());
                let words: Vec<&str> = name.into_iter().chain(words).map(String::as_str).collect();
                let label = match words[..] {
                    [] => "base".to_owned(),
                    _ => words.join(", "),
                };
                let slug = slug(&label);
                if label.contains(char::is_control) {
                    return Err(self.wrong(
                        self.named_at(row),
                        format!("a cell is called {label:?}"),
                        "a name on one line, without control characters",
                    ));
                }
                if slug.is_empty() || words.is_empty() && !self.written.row.is_empty() {
                    return Err(self.wrong(
                        self.named_at(row),
                        format!("a cell is called \"{}\"", words.join(", ")),
                        "a name with letters or digits",
                    ));
                }
                if cells.iter().any(|c| c.slug == slug) {
                    return Err(self.wrong(
                        self.named_at(row),
                        format!("two cells are called \"{label}\", or nearly so"),
                        "names that differ in letters or digits",
                    ));
                }
                let experiment = row.base.as_ref().or(self.written.base.as_ref());
                cells.push(Cell {
                    slug,
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
        self.link(&mut cells, rows, &places, points.len() == 1)?;
        Ok(cells)
    }

    /// Finds the cell that each one starts from.
    fn link(
        &self,
        cells: &mut [Cell],
        rows: &[Row],
        places: &[(usize, usize)],
        one_point: bool,
    ) -> Result<(), Diagnostics> {
        for cell in 0..cells.len() {
            let (row, point) = places[cell];
            let Some(name) = &rows[row].from else {
                continue;
            };
            // A row, at the same point of the axes where both are crossed; or one cell by its label.
            let found = rows.iter().position(|r| r.name == *name);
            let from = match found.filter(|f| *f != row) {
                Some(f) if !rows[f].axes => places.iter().position(|p| *p == (f, 0)),
                Some(f) if rows[row].axes || one_point => {
                    places.iter().position(|p| *p == (f, point))
                }
                _ => cells
                    .iter()
                    .position(|c| c.label == *name.get_ref() && c.label != cells[cell].label),
            };
            cells[cell].from = Some(from.ok_or_else(|| {
                let others = cells.iter().zip(places).filter(|(_, p)| p.0 != row);
                let names: Vec<String> = others.map(|(c, _)| format!("\"{}\"", c.label)).collect();
                self.wrong(
                    name.span(),
                    format!("row \"{}\" is from \"{name}\"", rows[row].name),
                    match names.is_empty() {
                        true => "another row to start from, of which there is none".to_owned(),
                        false => format!(
                            "another row that is crossed with the axes as it is, or one cell: {}",
                            names.join(", ")
                        ),
                    },
                )
            })?);
        }
        for cell in 0..cells.len() {
            let mut seen = BTreeSet::from([cell]);
            let mut at = cell;
            while let Some(from) = cells[at].from {
                if !seen.insert(from) {
                    let label = &cells[cell].label;
                    let span = rows[places[cell].0].from.as_ref().map(Spanned::span);
                    return Err(self.wrong(
                        span.unwrap_or_default(),
                        format!("\"{label}\" starts from itself, by way of others"),
                        "a chain that ends at a row without `from`",
                    ));
                }
                at = from;
            }
        }
        Ok(())
    }

    /// Where the cells of a row get their names: from it, or else from the last axis.
    fn named_at(&self, row: &Row) -> Range<usize> {
        let axis = self.written.axis.last();
        let of_axis = axis.map(|a| a.names.as_ref().map_or(a.values.span(), Spanned::span));
        match of_axis {
            Some(span) if row.name.get_ref().is_empty() => span,
            _ => row.name.span(),
        }
    }

    /// Every combination of a value of each axis; the last axis varies fastest.
    fn points(&self) -> Result<Vec<Point>, Diagnostics> {
        let mut points: Vec<Point> = vec![(Vec::new(), Vec::new(), Spans::new())];
        for axis in &self.written.axis {
            let own = self.axis(axis)?;
            let cross = |point: &Point, (word, set, at): &AxisValue| -> Point {
                let mut places = point.2.clone();
                places.extend(at.clone());
                (
                    [&point.0[..], std::slice::from_ref(word)].concat(),
                    [&point.1[..], set].concat(),
                    places,
                )
            };
            let crossed = points
                .iter()
                .flat_map(|p| own.iter().map(move |v| cross(p, v)));
            points = crossed.collect();
        }
        Ok(points)
    }

    fn axis(&self, axis: &Axis) -> Result<Vec<AxisValue>, Diagnostics> {
        let (keys, values) = (axis.keys.get_ref(), axis.values.get_ref());
        let named: Vec<&str> = keys.iter().map(|k| k.get_ref().as_str()).collect();
        let named = named.join(", ");
        if keys.is_empty() || values.is_empty() {
            let span = match keys.is_empty() {
                true => axis.keys.span(),
                false => axis.values.span(),
            };
            return Err(self.wrong(
                span,
                format!("an axis of keys [{named}] has {} values", values.len()),
                "at least one key and one value",
            ));
        }
        if let Some(names) = axis.names.as_ref()
            && names.get_ref().len() != values.len()
        {
            return Err(self.wrong(
                names.span(),
                format!(
                    "the axis of {named} has {} values and {} names",
                    values.len(),
                    names.get_ref().len()
                ),
                "a name for every value, or none",
            ));
        }
        let mut out = Vec::new();
        for (i, value) in values.iter().enumerate() {
            let each: Vec<&Value> = match value.get_ref() {
                Value::Array(list) if keys.len() > 1 => {
                    if list.len() != keys.len() {
                        return Err(self.wrong(
                            value.span(),
                            format!("{value} on the axis of {named}"),
                            "one value for all keys, or a list with one for each",
                        ));
                    }
                    list.iter().collect()
                }
                value => vec![value; keys.len()],
            };
            let set = keys
                .iter()
                .zip(&each)
                .map(|(key, value)| self.set(key, value));
            let set = set.collect::<Result<Vec<_>, _>>()?;
            let places = keys
                .iter()
                .map(|key| (key.get_ref().clone(), [key.span(), value.span()]));
            let given = axis.names.as_ref().map(|names| names.get_ref()[i].clone());
            let word = given.unwrap_or_else(|| {
                let last = keys[0].get_ref().rsplit('.').next().unwrap_or_default();
                let plain = |v: &Value| match v {
                    Value::String(s) => s.clone(),
                    v => format!("{last} {v}"),
                };
                let mut words: Vec<String> = each.iter().map(|v| plain(v)).collect();
                words.dedup();
                words.join("/")
            });
            out.push((word, set, places.collect()));
        }
        Ok(out)
    }

    /// What a table sets, `key=value` each, and where.
    fn settings(&self, table: &Settings) -> Result<(Vec<String>, Spans), Diagnostics> {
        let flat = table.flat();
        let set = flat
            .iter()
            .map(|(key, value)| self.set(key, value.get_ref()));
        let places = flat
            .iter()
            .map(|(key, value)| (key.get_ref().clone(), [key.span(), value.span()]));
        Ok((set.collect::<Result<_, _>>()?, places.collect()))
    }

    fn set(&self, key: &Spanned<String>, value: &Value) -> Result<String, Diagnostics> {
        let (key, span) = (key.get_ref().as_str(), key.span());
        if matches!(key, "seed" | "init.run" | "init.weights") {
            let instead = match key {
                "seed" => "`seeds`, once for the study",
                _ => "`from`, which names the row to start from",
            };
            return Err(self.wrong(span, format!("`{key}` is set"), instead));
        }
        let known = KEYS.iter().find(|k| k.path == key);
        let is_path = known.is_some_and(|k| matches!(k.kind, Kind::Path));
        Ok(match value {
            Value::String(path) if is_path => {
                format!("{key}={}", self.beside(Path::new(path)).display())
            }
            Value::String(text) if known.is_some_and(|k| k.kind.is_text()) => {
                format!("{key}={text}")
            }
            value => format!("{key}={value}"),
        })
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

/// Bytes of a name of files; what is longer is cut, and told apart by a checksum.
const NAME: usize = 120;

/// A label as a name of files: lower case, words apart by dashes.
fn slug(label: &str) -> String {
    let mut out = String::new();
    for c in label.chars() {
        match c {
            c if c.is_alphanumeric() => out.extend(c.to_lowercase()),
            '+' => out.push('+'),
            _ if !out.is_empty() && !out.ends_with('-') => out.push('-'),
            _ => {}
        }
    }
    out.truncate(out.trim_end_matches('-').len());
    if out.len() > NAME {
        let check = crc32fast::hash(out.as_bytes());
        let end = out.floor_char_boundary(NAME - 9);
        out.truncate(end);
        out += &format!("-{check:08x}");
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_files_are_short_and_of_any_script() {
        assert_eq!(slug("From float, U3 + P3!"), "from-float-u3-+-p3");
        assert_eq!(slug("Étude 日本"), "étude-日本");
        let long = |end: &str| slug(&format!("{}{end}", "ä".repeat(99)));
        assert!(long("a").len() <= NAME && long("a") != long("b"));
    }
}
