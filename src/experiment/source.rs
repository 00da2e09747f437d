//! Reading experiment files: `extends`, overrides, and every error at once.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::diagnostic::{Diagnostic, Diagnostics, OVERRIDE, Place};
use super::keys::KEYS;
use super::resolve::resolve;
use super::schema::{Field, Key, Kind};
use super::settings::{Experiment, Thresholds};
use super::value::{Found, Placed, Value, Values};

/// `key.path=value` settings that go over the file.
pub type Overrides = Vec<String>;

/// A valid experiment with the files that it was read from.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// The experiment.
    pub experiment: Arc<Experiment>,
    /// The file and everything it extends: what a watcher watches.
    pub files: Vec<PathBuf>,
    found: Found,
    origin: Place,
}

impl Loaded {
    /// Whether the files say every key that has a default, as the resolved experiment of a run does.
    pub(crate) fn is_resolved(&self) -> bool {
        let mut keys = KEYS.iter().filter(|key| key.default.value().is_some());
        keys.all(|key| self.found.contains_key(key.path))
    }

    /// Where the value of a key stands; the start of the file for a default.
    pub fn place(&self, path: &str) -> Place {
        self.found
            .get(path)
            .map_or(&self.origin, |p| &p.place)
            .clone()
    }
}

/// The key of an override, `key=value`.
pub(crate) fn key_of(setting: &str) -> &str {
    setting.split('=').next().unwrap_or_default().trim()
}

/// Overrides and later ones, which take the place of those of the same key.
pub(crate) fn merged(before: &Overrides, after: &Overrides) -> Overrides {
    let stays = |b: &&String| !after.iter().any(|a| key_of(a) == key_of(b));
    before.iter().filter(stays).chain(after).cloned().collect()
}

/// The same overrides for another working folder: paths absolute.
pub(crate) fn absolute(overrides: &Overrides) -> Overrides {
    let one = |setting: &String| {
        let is_path = Key::find(key_of(setting)).is_some_and(|key| key.kind == Kind::Path);
        let (key, value) = setting.split_once('=')?;
        let path = std::path::absolute(value.trim().trim_matches('"')).ok()?;
        is_path.then(|| format!("{key}={}", path.display()))
    };
    overrides
        .iter()
        .map(|setting| one(setting).unwrap_or_else(|| setting.clone()))
        .collect()
}

/// Reads, merges and checks an experiment.
///
/// # Errors
/// Everything that is wrong with the files and overrides, each with its place.
pub fn load(path: &Path, overrides: &Overrides) -> Result<Loaded, Diagnostics> {
    load_and_list(path, overrides).1
}

/// The same with the files that were read, whatever is wrong with them.
pub(super) fn load_and_list(
    path: &Path,
    overrides: &Overrides,
) -> (Vec<PathBuf>, Result<Loaded, Diagnostics>) {
    let mut reader = Reader::default();
    reader.file(path, None);
    (reader.files.clone(), reader.finish(path, overrides))
}

/// The same for a file whose text would be this one: what a change of it leads to, before it is made.
///
/// # Errors
/// As [`load`].
pub fn load_as(path: &Path, text: &str, overrides: &Overrides) -> Result<Loaded, Diagnostics> {
    let mut reader = Reader::default();
    let identity = std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    reader.files.push(path.to_owned());
    reader.open.push(identity);
    reader.text(&Arc::new(path.to_owned()), text.into());
    reader.open.pop();
    reader.finish(path, overrides)
}

/// The same for a text that is not a file, such as the embedded default.
///
/// # Errors
/// As [`load`].
pub fn load_embedded(name: &str, text: &str, overrides: &Overrides) -> Result<Loaded, Diagnostics> {
    let mut reader = Reader::default();
    let path = PathBuf::from(name);
    reader.text(&Arc::new(path.clone()), text.into());
    reader.finish(&path, overrides)
}

/// The experiment that a run folder's resolved TOML holds.
///
/// # Errors
/// Where the text is not a valid experiment (of this version).
pub fn resolve_text(name: &str, text: &str) -> Result<Experiment, Diagnostics> {
    let loaded = load_embedded(name, text, &Vec::new())?;
    Ok(loaded.experiment.as_ref().clone())
}

impl Default for Thresholds {
    /// The schema's defaults.
    fn default() -> Self {
        resolve_text("defaults", "").map_or_else(
            |error| unreachable!("an empty experiment is valid: {error}"),
            |experiment| experiment.verdicts,
        )
    }
}

/// Bytes of an experiment file at most: what is larger is something else.
const LARGEST: u64 = 1 << 20;

/// Reads an experiment file.
pub(super) fn read(path: &Path) -> std::io::Result<Vec<u8>> {
    let metadata = crate::files::open(path)?.metadata()?;
    if std::path::absolute(path)?.to_str().is_none() {
        return Err(std::io::Error::other(
            "its path is not UTF-8; a run records its paths as text",
        ));
    }
    if metadata.len() > LARGEST {
        return Err(std::io::Error::other(format!(
            "it has {} bytes; an experiment file has at most {LARGEST}",
            metadata.len()
        )));
    }
    crate::files::read(path)
}

#[derive(Default)]
struct Reader {
    found: Found,
    errors: Vec<Diagnostic>,
    files: Vec<PathBuf>,
    /// Files being read, outermost first: a cycle shows here.
    open: Vec<PathBuf>,
}

impl Reader {
    fn finish(mut self, path: &Path, overrides: &Overrides) -> Result<Loaded, Diagnostics> {
        for setting in overrides {
            self.setting(setting);
        }
        let stem = path
            .file_stem()
            .map_or("run".into(), |s| s.to_string_lossy().into_owned());
        let origin = Place {
            file: Arc::new(path.to_owned()),
            text: read(path)
                .ok()
                .and_then(|bytes| String::from_utf8(bytes).ok())
                .unwrap_or_default()
                .into(),
            span: 0..0,
        };
        let mut values = Values::default();
        for key in KEYS {
            let found = self.found.get(key.path).map(|p| p.value.clone());
            if let Some(value) = found.or_else(|| key.default.value()) {
                values.0.insert(key.path.into(), value);
            }
        }
        values.0.entry("name".into()).or_insert(Value::Text(stem));
        let resolved = resolve(values, &self.found, &origin);
        match resolved {
            Ok(experiment) if self.errors.is_empty() => Ok(Loaded {
                experiment: Arc::new(experiment),
                files: self.files,
                found: self.found,
                origin,
            }),
            Ok(_) => Err(Diagnostics(self.errors)),
            Err(more) => {
                self.errors.extend(more.0);
                Err(Diagnostics(self.errors))
            }
        }
    }

    /// Reads one file; `from` is the `extends` that named it.
    fn file(&mut self, path: &Path, from: Option<Place>) {
        let name = Arc::new(path.to_owned());
        let identity = std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
        if self.open.contains(&identity) {
            let place = from.unwrap_or_else(|| empty_place(&name));
            let expected = "a chain of files that ends".to_owned();
            let message = format!("{} extends itself", path.display());
            self.errors.push(Diagnostic {
                place,
                message,
                expected,
            });
            return;
        }
        if !self.files.contains(&path.to_owned()) {
            self.files.push(path.to_owned());
        }
        let bytes = match read(path) {
            Ok(bytes) => bytes,
            Err(error) => {
                let place = from.unwrap_or_else(|| empty_place(&name));
                let message = format!("cannot read {}: {error}", path.display());
                self.errors.push(Diagnostic {
                    place,
                    message,
                    expected: "a TOML file".into(),
                });
                return;
            }
        };
        match String::from_utf8(bytes) {
            Ok(text) => {
                self.open.push(identity);
                self.text(&name, text.into());
                self.open.pop();
            }
            Err(error) => {
                let at = error.utf8_error().valid_up_to();
                let message = format!("{} is not UTF-8 at byte {at}", path.display());
                let place = from.unwrap_or_else(|| empty_place(&name));
                self.errors.push(Diagnostic {
                    place,
                    message,
                    expected: "UTF-8 text".into(),
                });
            }
        }
    }

    fn text(&mut self, file: &Arc<PathBuf>, text: Arc<str>) {
        let place = |span: Range<usize>| Place {
            file: file.clone(),
            text: text.clone(),
            span,
        };
        let (table, errors) = DeTable::parse_recoverable(&text);
        let is_sound = errors.is_empty();
        for error in errors {
            self.errors.push(Diagnostic {
                place: place(error.span().unwrap_or(0..0)),
                message: error.message().to_owned(),
                expected: "valid TOML".into(),
            });
        }
        let table = table.into_inner();
        if let Some(base) = table.get("extends") {
            let at = place(base.span());
            match base.get_ref() {
                DeValue::String(base) => {
                    let folder = file.parent().unwrap_or(Path::new(""));
                    self.file(&folder.join(base.as_ref()), Some(at));
                }
                other => self.errors.push(wrong_type(at, "extends", other, "a path")),
            }
        }
        let before = self.errors.len();
        for (name, value) in &table {
            match value.get_ref() {
                _ if name.get_ref() == "extends" => {}
                DeValue::Table(section) if !is_section(name.get_ref()) => {
                    let first = section.keys().next().map(|key| key.get_ref());
                    let path = match first {
                        Some(key) => format!("{}.{key}", name.get_ref()),
                        None if is_sound => name.get_ref().to_string(),
                        // What a parser makes of a broken header need not be a section.
                        None => continue,
                    };
                    self.errors.push(unknown_key(&path, place(name.span())));
                }
                DeValue::Table(section) => {
                    for (key, value) in section {
                        let path = format!("{}.{}", name.get_ref(), key.get_ref());
                        self.key(&path, place(key.span()), place(value.span()), value);
                    }
                }
                _ => self.key(
                    name.get_ref(),
                    place(name.span()),
                    place(value.span()),
                    value,
                ),
            }
        }
        // A table is sorted by name; the file is read from its top.
        self.errors[before..].sort_by_key(|error| error.place.span.start);
    }

    fn key(&mut self, path: &str, key_at: Place, value_at: Place, value: &Spanned<DeValue<'_>>) {
        let Some(key) = Key::find(path) else {
            self.errors.push(unknown_key(path, key_at));
            return;
        };
        if let Kind::Tables(fields) = key.kind {
            if let Some(value) = self.tables(path, fields, value, &value_at) {
                let place = value_at;
                self.found.insert(key.path, Placed { value, place });
            }
            return;
        }
        match convert(key.kind, value.get_ref(), &value_at) {
            Ok(value) => {
                self.found.insert(
                    key.path,
                    Placed {
                        value,
                        place: value_at,
                    },
                );
            }
            Err(found) => {
                let message = format!("`{path}` is {found}");
                let expected = key.kind.expected();
                self.errors.push(Diagnostic {
                    place: value_at,
                    message,
                    expected,
                });
            }
        }
    }

    /// A list of tables, field by field; what is wrong with one stands at its place.
    fn tables(
        &mut self,
        path: &str,
        fields: &'static [Field],
        value: &Spanned<DeValue<'_>>,
        at: &Place,
    ) -> Option<Value> {
        let before = self.errors.len();
        let wrong = |span: Range<usize>, message: String, expected: String| Diagnostic {
            place: Place { span, ..at.clone() },
            message,
            expected,
        };
        let DeValue::Array(list) = value.get_ref() else {
            let found = format!("`{path}` is {}", describe(value.get_ref()));
            self.errors.push(wrong(
                value.span(),
                found,
                format!("a list of tables, `[[{path}]]`"),
            ));
            return None;
        };
        let mut tables = Vec::with_capacity(list.len());
        for item in list {
            let DeValue::Table(table) = item.get_ref() else {
                let found = format!("`{path}` holds {}", describe(item.get_ref()));
                self.errors.push(wrong(item.span(), found, "tables".into()));
                continue;
            };
            let mut found = BTreeMap::new();
            for (name, value) in table {
                let Some(field) = fields.iter().find(|f| f.name == name.get_ref().as_ref()) else {
                    let names: Vec<&str> = fields.iter().map(|f| f.name).collect();
                    let message = format!("unknown field `{}` of `[[{path}]]`", name.get_ref());
                    self.errors.push(wrong(
                        name.span(),
                        message,
                        format!("one of {}", names.join(", ")),
                    ));
                    continue;
                };
                match convert(field.kind, value.get_ref(), at) {
                    Ok(value) => _ = found.insert(field.name.to_owned(), value),
                    Err(is) => self.errors.push(wrong(
                        value.span(),
                        format!("`{}` of `[[{path}]]` is {is}", field.name),
                        field.kind.expected(),
                    )),
                }
            }
            for field in fields
                .iter()
                .filter(|f| f.required && !table.contains_key(f.name))
            {
                let message = format!("a `[[{path}]]` without `{}`", field.name);
                self.errors
                    .push(wrong(item.span(), message, field.kind.expected()));
            }
            tables.push(found);
        }
        (self.errors.len() == before).then_some(Value::Tables(tables))
    }

    /// One `key.path=value`; without a value, what the files say is taken away.
    fn setting(&mut self, setting: &str) {
        let file = Arc::new(PathBuf::from(OVERRIDE));
        let Some((key, value)) = setting.split_once('=') else {
            let text: Arc<str> = setting.into();
            let span = 0..text.len();
            self.errors.push(Diagnostic {
                place: Place { file, text, span },
                message: format!("`{setting}` has no `=`"),
                expected: "key.path=value".into(),
            });
            return;
        };
        let (key, value) = (key.trim(), value.trim());
        if key.is_empty() {
            let (text, span) = (setting.into(), 0..0);
            self.errors.push(Diagnostic {
                place: Place { file, text, span },
                message: format!("`{setting}` names no key"),
                expected: "key.path=value".into(),
            });
            return;
        }
        let known = Key::find(key);
        if value.is_empty() {
            match known {
                Some(known) => _ = self.found.remove(known.path),
                None => {
                    let (text, span) = (setting.into(), 0..key.len());
                    let place = Place { file, text, span };
                    self.errors.push(unknown_key(key, place));
                }
            }
            return;
        }
        let kind = known.map(|k| k.kind);
        let is_text = kind.is_some_and(Kind::is_text);
        let quoted = value.starts_with('"') || value.starts_with('\'');
        let text = if is_text && !quoted {
            format!("{key} = {}", toml::Value::String(value.to_owned()))
        } else {
            format!("{key} = {value}")
        };
        self.text(&file, text.into());
    }
}

fn empty_place(file: &Arc<PathBuf>) -> Place {
    Place {
        file: file.clone(),
        text: "".into(),
        span: 0..0,
    }
}

fn wrong_type(place: Place, path: &str, value: &DeValue<'_>, expected: &str) -> Diagnostic {
    let message = format!("`{path}` is {}", describe(value));
    Diagnostic {
        place,
        message,
        expected: expected.into(),
    }
}

/// Whether keys stand below that name.
fn is_section(name: &str) -> bool {
    let of_name = |path: &str| path.split_once('.').is_some_and(|(s, _)| s == name);
    KEYS.iter().any(|key| of_name(key.path))
}

fn unknown_key(path: &str, place: Place) -> Diagnostic {
    let nearest = KEYS
        .iter()
        .map(|key| (strsim::damerau_levenshtein(key.path, path), key.path))
        .min();
    let below = |of: &str| -> Vec<&str> {
        let inside = |k: &&str| k.strip_prefix(of).is_some_and(|rest| rest.starts_with('.'));
        KEYS.iter().map(|k| k.path).filter(inside).collect()
    };
    let of_section = below(path);
    let expected = match nearest {
        _ if !of_section.is_empty() => format!("one of its keys: {}", of_section.join(", ")),
        // (Of a short word half the letters would make any other.)
        Some((distance, nearest)) if distance <= 4.min(path.len() / 2) => {
            format!("a known key; did you mean `{nearest}`?")
        }
        _ => {
            let known = path.split_once('.').map_or(Vec::new(), |(s, _)| below(s));
            if known.is_empty() {
                "a known section: model, data, init, train, weights, activations, input, budget, \
                 optimizer, quantizers, evaluate, schedule, log, verdicts"
                    .into()
            } else {
                format!("one of {}", known.join(", "))
            }
        }
    };
    Diagnostic {
        place,
        message: format!("unknown key `{path}`"),
        expected,
    }
}

/// The value as the key's kind, or what it is instead.
fn convert(kind: Kind, value: &DeValue<'_>, place: &Place) -> Result<Value, String> {
    let within = |v: f64, low: f64, high: f64| {
        if v.is_finite() && v >= low && v <= high {
            Ok(v)
        } else {
            Err(format!("{v}"))
        }
    };
    match kind {
        Kind::Flag => value
            .as_bool()
            .map(Value::Flag)
            .ok_or_else(|| describe(value)),
        Kind::Whole(low, high) => match whole(value) {
            Some(v) if (low..=high).contains(&v) => Ok(Value::Whole(v)),
            Some(v) => Err(format!("{v}")),
            None => Err(describe(value)),
        },
        Kind::Number(low, high) => {
            let v = number(value).ok_or_else(|| describe(value))?;
            within(v, low, high).map(Value::Number)
        }
        Kind::Choice(words) => match value.as_str() {
            Some(word) if words.contains(&word) => Ok(Value::Text(word.into())),
            Some(word) => Err(format!("\"{word}\"")),
            None => Err(describe(value)),
        },
        Kind::Text => value
            .as_str()
            .map(|t| Value::Text(t.into()))
            .ok_or_else(|| describe(value)),
        Kind::Path => {
            let path = value.as_str().ok_or_else(|| describe(value))?;
            // Relative to the file that says it; what the command line says, to the working folder.
            let folder = place.file.parent().unwrap_or(Path::new(""));
            let path = folder.join(path);
            // Absolute: a run that is resumed from elsewhere finds the same file.
            let path = std::path::absolute(&path).unwrap_or(path);
            Ok(Value::Text(path.to_string_lossy().into_owned()))
        }
        Kind::Numbers(low, high) | Kind::Range(low, high) | Kind::Channels(low, high) => {
            let list = value.as_array().ok_or_else(|| describe(value))?;
            let numbers: Option<Vec<f64>> = list.iter().map(|v| number(v.get_ref())).collect();
            let numbers = numbers.ok_or("a list of something else")?;
            for v in &numbers {
                within(*v, low, high).map_err(|v| format!("a list with {v}"))?;
            }
            let any_order = matches!(kind, Kind::Channels(..));
            if !any_order && numbers.windows(2).any(|w| w[0] > w[1]) {
                return Err("a list that is not ascending".into());
            }
            if any_order && numbers.is_empty() {
                return Err("an empty list".into());
            }
            if matches!(kind, Kind::Range(..)) && numbers.len() != 2 {
                return Err(format!("a list of {} numbers", numbers.len()));
            }
            Ok(Value::Numbers(numbers))
        }
        Kind::Words => match value {
            DeValue::String(word) => Ok(Value::Words(vec![word.as_ref().into()])),
            DeValue::Array(list) => {
                let words = list.iter().map(|v| v.get_ref().as_str().map(str::to_owned));
                let words: Option<Vec<String>> = words.collect();
                words
                    .map(Value::Words)
                    .ok_or("a list of something else".into())
            }
            other => Err(describe(other)),
        },
        Kind::Tables(_) => Err(describe(value)),
    }
}

fn whole(value: &DeValue<'_>) -> Option<i64> {
    let integer = value.as_integer()?;
    i64::from_str_radix(integer.as_str(), integer.radix()).ok()
}

fn number(value: &DeValue<'_>) -> Option<f64> {
    match value {
        DeValue::Float(v) => v.as_str().parse().ok(),
        _ => whole(value).map(|v| v as f64),
    }
}

fn describe(value: &DeValue<'_>) -> String {
    match value {
        DeValue::String(s) => format!("the text \"{s}\""),
        DeValue::Integer(i) => format!("the whole number {i}"),
        DeValue::Float(v) => format!("the number {v}"),
        DeValue::Boolean(b) => format!("{b}"),
        DeValue::Datetime(_) => "a date".into(),
        DeValue::Array(_) => "a list".into(),
        DeValue::Table(_) => "a table".into(),
    }
}
