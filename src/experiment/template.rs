//! A self-contained experiment file with every key explained.

use super::keys::KEYS;
use super::schema::{Key, Kind};
use super::value::{Value, Values};

/// Columns that a comment fills.
const WIDTH: usize = 98;

/// The values as a file: keys that differ from their default are set, all others stand as comments with
/// what they are otherwise. `name` is the experiment's.
pub fn template(name: &str, values: &Values) -> String {
    let mut out = String::from(
        "# Every key is explained; one behind `#` has its default. Values and rules: `bitscope keys`.\n",
    );
    let mut section = "";
    for key in KEYS {
        let (table, entry) = key.path.split_once('.').unwrap_or(("", key.path));
        if table != section {
            section = table;
            out.push_str(&format!("\n[{table}]\n"));
        }
        let own = Value::Text(name.to_owned());
        let value = if key.path == "name" {
            Some(&own)
        } else {
            values.get(key.path)
        };
        out.push('\n');
        out.push_str(&comment(&format!(
            "{} ({}; {})",
            key.doc,
            key.kind.expected(),
            key.class.name()
        )));
        out.push_str(&line(key, entry, value));
    }
    out
}

fn line(key: &Key, entry: &str, value: Option<&Value>) -> String {
    let default = key.default.value();
    match value {
        Some(value) if Some(value) != default.as_ref() => format!("{entry} = {value}\n"),
        Some(value) => format!("# {entry} = {value}\n"),
        None => format!("# {entry} = {}\n", example(key.kind)),
    }
}

/// What a key that has no default may look like.
fn example(kind: Kind) -> String {
    match kind {
        Kind::Flag => "true".into(),
        Kind::Whole(low, _) => format!("{}", low.max(1)),
        Kind::Number(low, high) => format!("{}", Value::Number(low.max(1.0).min(high))),
        Kind::Choice(words) => format!("\"{}\"", words.first().unwrap_or(&"")),
        Kind::Text | Kind::Path | Kind::Words => "\"...\"".into(),
        Kind::Range(low, high) => {
            let high = Value::Number(if high == f64::MAX { low + 1.0 } else { high });
            format!("[{}, {high}]", Value::Number(low))
        }
        Kind::Numbers(..) | Kind::Channels(..) | Kind::Tables(_) => "[]".into(),
    }
}

/// Text as comment lines.
fn comment(text: &str) -> String {
    let mut out = String::new();
    let mut line = String::from("#");
    for word in text.split_whitespace() {
        if line.chars().count() + 1 + word.chars().count() > WIDTH {
            out.push_str(&line);
            out.push('\n');
            line = String::from("#");
        }
        line.push(' ');
        line.push_str(word);
    }
    out + &line + "\n"
}

#[cfg(test)]
mod tests {
    use super::super::source::load_embedded;
    use super::*;

    #[test]
    fn a_new_file_is_the_experiment_that_it_came_from() {
        let text = "[model]\nname = \"resnet20\"\n[weights]\nquantizer = \"p3\"\n[budget]\nweights_kb = 70\n\
                    [[layers]]\nmatch = \"first\"\nbits = 8\n";
        let loaded = load_embedded("e.toml", text, &Vec::new()).expect("valid");
        let written = template("mine", &loaded.experiment.values);
        let again = load_embedded("mine.toml", &written, &Vec::new());
        let again = again.unwrap_or_else(|e| panic!("{e}\n{written}"));
        assert_eq!(again.experiment.name, "mine");
        for (path, value) in &loaded.experiment.values.0 {
            if path != "name" {
                assert_eq!(again.experiment.values.get(path), Some(value), "{path}");
            }
        }
        // Every key stands in it, explained.
        for key in KEYS {
            let entry = key.path.split('.').next_back().expect("a name");
            assert!(written.contains(&format!("{entry} = ")), "{entry}");
        }
        assert!(
            written
                .lines()
                .all(|l| !l.starts_with('#') || l.chars().count() <= WIDTH + 40)
        );
    }

    /// What is set from a comment is as valid as what was set before.
    #[test]
    fn every_default_can_be_set_as_it_stands() {
        let loaded = load_embedded("e.toml", "", &Vec::new()).expect("valid");
        let written = template("all", &loaded.experiment.values);
        let mut section = String::new();
        let mut uncommented = String::new();
        for line in written.lines() {
            if let Some(table) = line.strip_prefix('[').and_then(|l| l.strip_suffix(']')) {
                section = format!("{table}.");
            }
            let bare = line.strip_prefix("# ");
            let has_default = bare
                .and_then(|l| l.split_once(" = "))
                .and_then(|(name, _)| {
                    let key = KEYS.iter().find(|k| k.path == format!("{section}{name}"))?;
                    key.default.value()
                });
            let kept = bare.filter(|_| has_default.is_some()).unwrap_or(line);
            uncommented.push_str(kept);
            uncommented.push('\n');
        }
        assert!(uncommented.contains("\nmomentum = 0.9\n"));
        let again = load_embedded("all.toml", &uncommented, &Vec::new());
        assert!(
            again.is_ok(),
            "{}",
            again.err().map_or(String::new(), |e| e.to_string())
        );
    }
}
