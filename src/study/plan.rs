//! A study: which experiments, with which settings and seeds, in which order.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Deserialize;

use crate::experiment::{Diagnostics, Place, Values, difference};

/// A study: cells, each with every seed.
#[derive(Debug, Clone, PartialEq)]
pub struct Study {
    /// The file.
    pub file: PathBuf,
    /// Its text.
    pub(super) text: Arc<str>,
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
    pub(super) places: Spans,
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
    /// It asks for something that cannot be.
    #[error(transparent)]
    Wrong(#[from] Diagnostics),
}

/// Where a key and its value stand in the text, by key.
pub(super) type Spans = BTreeMap<String, [Range<usize>; 2]>;

impl Study {
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

/// What of an experiment a task sets beside its cell's settings.
pub fn seeded(cell: &Cell, seed: i64, start: Option<&Path>) -> Vec<String> {
    let mut set = cell.set.clone();
    set.push(format!("seed={seed}"));
    set.extend(start.map(|run| format!("init.run={}", run.display())));
    set
}

/// Keys that belong to the machine: a run may go on elsewhere.
const MOVABLE: [&str; 4] = ["device", "data.path", "init.run", "data.loader_threads"];

/// Keys that change no number of a run.
const ASIDE: [&str; 3] = ["name", "auto_apply", "log.tensorboard"];

/// What a recorded run has other settings in than a task asks for; what belongs to the machine aside.
pub fn differences(recorded: &Values, wanted: &Values) -> Vec<String> {
    let changes = difference(recorded, wanted).into_iter();
    let matters = changes.filter(|c| {
        let path = c.path.as_str();
        !MOVABLE.contains(&path) && !ASIDE.contains(&path) && !path.starts_with("verdicts.")
    });
    matters.map(|c| c.to_string()).collect()
}

/// What of a task's settings belongs to the machine and is other than was recorded, as it is set.
pub fn moved(recorded: &Values, wanted: &Values) -> Vec<String> {
    let changes = difference(recorded, wanted).into_iter();
    let moved = changes.filter(|c| MOVABLE.contains(&c.path.as_str()));
    let set = moved.map(|c| {
        let value = c.new.as_ref().map_or(String::new(), ToString::to_string);
        format!("{}={value}", c.path)
    });
    set.collect()
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
            ("[[row]]\nname = \"\"", "a name with letters or digits"),
            ("[[row]]\nname = \"--\"", "a name with letters or digits"),
            ("[[row]]\nname = \"a\\nb\"", "a name on one line"),
            (
                "[[axis]]\nkeys = [\"seed_\"]\nvalues = [1]\n[[row]]\nname = \"a\"\nset = { seed_ = 2 }",
                "one of the two",
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
        for (text, place) in [
            ("reference = \"x\"", "1:13"),
            ("[set]\nseed = 1", "2:1"),
            ("seeds = [1]\n[[row]]\nname = \"a\"\nfrom = \"b\"", "4:8"),
            (
                "[[axis]]\nkeys = [\"a\", \"b\"]\nvalues = [1,\n [1]]",
                "4:2",
            ),
            (
                "[[axis]]\nkeys = [\"a\"]\nvalues = [1]\nnames = [\"x\", \"y\"]",
                "4:9",
            ),
            ("[[row]]\nname = \"a\"\n[[row]]\nname = \"A\"", "4:8"),
            ("sedes = [1]", "1:1"),
            ("[published]\n\"a, b\" = 1", "2:1"),
            ("[set.train]\nlr = 1979-05-27", "2:6"),
        ] {
            let error = parse(text).expect_err(text).to_string();
            assert!(
                error.starts_with(&format!("folder/study.toml:{place}: ")),
                "{text}: {error}"
            );
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
