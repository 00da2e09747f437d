//! Recorded runs: listed, grouped, compared, drawn behind the current one, renamed, removed.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, Receiver, TryRecvError};
use std::time::{Duration, Instant};

use super::{App, Effect, Order, Overlay, Page, Role};
use crate::experiment::{Experiment, Value, difference, resolve_text};
use crate::figure::Overlaid;
use crate::run::{History, Manifest, RunFolder, Status, family, list_runs};
use crate::study::statistics::{Sample, paired};
use crate::study::{Cell, StudyFolder};

/// What the page of runs lists, and how.
#[derive(Debug, Default)]
pub(in crate::tui) struct Runs {
    /// The runs that the filter lets through, in their order.
    pub all: Vec<(RunFolder, Manifest)>,
    /// How deep each of them stands below what it was forked from; 0 where they are not sorted by time.
    pub depths: Vec<usize>,
    /// How the selected run differs from the current one, line by line.
    pub compared: Vec<String>,
    pub order: Order,
    /// Only runs whose label contains this.
    pub filter: String,
    /// Runs that differ in their seeds alone, as one row each; empty where runs are listed one by one.
    pub groups: Vec<Group>,
    /// Whether they are asked for.
    pub grouped: bool,
    /// The study whose runs are listed, where it is one.
    pub study: Option<String>,
    /// The study's cells, in the order of its file.
    cells: Vec<Cell>,
    /// Runs that the study's file asks for.
    pub planned: Option<usize>,
    /// Place of the cell that the others are compared with.
    reference: Option<usize>,
    /// What the experiments of runs ask for besides seeds, and the seed, by label: read once.
    settings: BTreeMap<String, Option<(String, String)>>,
    /// When they were listed.
    listed: Option<Instant>,
    /// What a thread is reading: on a slow disk no frame waits for it.
    reading: Option<Receiver<Listed>>,
}

/// Runs of a folder.
type Listed = Vec<(RunFolder, Manifest)>;

/// How often the page of runs looks what came of others' runs.
const LOOK: Duration = Duration::from_secs(2);

/// Runs of one experiment with several seeds.
#[derive(Debug, Clone)]
pub(in crate::tui) struct Group {
    /// Name of the newest.
    pub label: String,
    /// Places of its runs.
    pub members: Vec<usize>,
    /// Seeds among them.
    pub seeds: usize,
    /// Best validation errors.
    pub best: Option<Sample>,
    /// Test errors.
    pub test: Option<Sample>,
    /// kB of weights and of the largest activation at the best steps; of a study, as in its report, at
    /// the last.
    pub kilobytes: [Option<Sample>; 2],
    /// By how much test errors differ from those of the study's reference, over seeds that both have.
    pub difference: Option<Sample>,
    /// Published error in percent, of a study's cell that names one.
    pub published: Option<f64>,
}

impl Group {
    fn named(label: String, published: Option<f64>) -> Self {
        Self {
            label,
            difference: None,
            published,
            members: Vec::new(),
            seeds: 0,
            best: None,
            test: None,
            kilobytes: [None; 2],
        }
    }
}

impl Runs {
    /// Rows of the page.
    pub fn rows(&self) -> usize {
        if self.grouped {
            self.groups.len()
        } else {
            self.all.len()
        }
    }

    /// The run of a row: of a group its newest.
    pub fn at(&self, row: usize) -> Option<&(RunFolder, Manifest)> {
        let place = match self.grouped {
            true => *self.groups.get(row)?.members.first()?,
            false => row,
        };
        self.all.get(place)
    }

    /// Puts runs together that differ in seed alone.
    fn group(&mut self) {
        self.groups.clear();
        if !self.grouped {
            return;
        }
        let mut places: BTreeMap<String, usize> = BTreeMap::new();
        // The cells of a study are its file's, begun or not.
        for cell in &self.cells {
            places.insert(cell.slug.clone(), self.groups.len());
            let published = cell.paper.map(|p| p.error);
            self.groups
                .push(Group::named(cell.label.clone(), published));
        }
        let mut seeds: BTreeMap<usize, String> = BTreeMap::new();
        for (place, (folder, _)) in self.all.iter().enumerate() {
            // (A run whose experiment cannot be read stands alone.)
            let label = folder.label();
            let read = || settings_and_seed(folder);
            let settings = self.settings.entry(label.clone()).or_insert_with(read);
            let seed = settings.as_ref().map_or(label.clone(), |s| s.1.clone());
            seeds.insert(place, seed);
            let cell = cell_of(&label).filter(|_| self.study.is_some());
            let key = match (cell, settings) {
                (Some(cell), _) => cell.to_owned(),
                (None, Some(settings)) => settings.0.clone(),
                (None, None) => label.clone(),
            };
            match places.get(&key) {
                Some(at) => self.groups[*at].members.push(place),
                None => {
                    places.insert(key, self.groups.len());
                    let name = cell.unwrap_or(&self.all[place].1.name);
                    let mut group = Group::named(name.to_owned(), None);
                    group.members.push(place);
                    self.groups.push(group);
                }
            }
        }
        self.tell_groups_apart();
        let mut tests: Vec<BTreeMap<&str, f64>> = Vec::new();
        let is_study = self.study.is_some();
        for group in &mut self.groups {
            // A seed that was run twice is one sample, its newest.
            let mut seen = BTreeSet::new();
            let mut distinct = group.members.clone();
            // (Of a study, runs that are over count, as in its report.)
            let counts = |m: &usize| !is_study || self.all[*m].1.status == Status::Finished;
            distinct.retain(counts);
            distinct.sort_by_key(|m| std::cmp::Reverse(self.all[*m].1.started_unix));
            distinct.retain(|m| seen.insert(seeds[m].clone()));
            group.seeds = distinct.len();
            let of = |value: fn(&Manifest) -> Option<f64>| {
                Sample::of(distinct.iter().filter_map(|m| value(&self.all[*m].1)))
            };
            (group.best, group.test) = (of(|m| m.best_error), of(|m| m.test_error));
            group.kilobytes = match is_study {
                true => [of(|m| Some(m.weight_kb)), of(|m| Some(m.activation_kb))],
                false => [
                    of(|m| m.best_error.and(m.kilobytes()).map(|kb| kb[0])),
                    of(|m| m.best_error.and(m.kilobytes()).map(|kb| kb[1])),
                ],
            };
            let test = |m: &usize| Some((seeds[m].as_str(), self.all[*m].1.test_error?));
            tests.push(distinct.iter().filter_map(test).collect());
        }
        if let Some(reference) = self.reference.filter(|r| *r < self.cells.len()) {
            for (place, group) in self.groups.iter_mut().enumerate() {
                let common = tests[place].iter().filter(|_| place != reference);
                let both = |(seed, e): (&&str, &f64)| Some((*e, *tests[reference].get(seed)?));
                let (own, theirs): (Vec<f64>, Vec<f64>) = common.filter_map(both).unzip();
                group.difference = paired(&own, &theirs);
            }
        }
        if is_study {
            // Runs are sorted before they are put together; cells stand as in the file until asked.
            let mean = |sample: &Option<Sample>| sample.map_or(f64::INFINITY, |s| s.mean);
            match self.order {
                Order::Time => {}
                Order::Error => {
                    (self.groups).sort_by(|a, b| mean(&a.best).total_cmp(&mean(&b.best)));
                }
                Order::Kilobytes => {
                    let weights = |g: &Group| mean(&g.kilobytes[0]);
                    (self.groups).sort_by(|a, b| weights(a).total_cmp(&weights(b)));
                }
            }
        }
    }
}

impl Runs {
    /// Groups of one name are called by what their experiments differ in, too.
    fn tell_groups_apart(&mut self) {
        let mut alike: BTreeMap<String, Vec<usize>> = BTreeMap::new();
        for (place, group) in self.groups.iter().enumerate() {
            alike.entry(group.label.clone()).or_default().push(place);
        }
        for places in alike.values().filter(|places| places.len() > 1) {
            let settings = |place: &usize| -> BTreeSet<&str> {
                let newest = self.groups[*place].members.first();
                let label = newest.map(|m| self.all[*m].0.label());
                let read = label.and_then(|label| self.settings.get(&label)?.as_ref());
                read.map_or(BTreeSet::new(), |read| read.0.lines().collect())
            };
            let all: Vec<BTreeSet<&str>> = places.iter().map(settings).collect();
            let own = |lines: &BTreeSet<&str>| -> String {
                let differs = |line: &&&str| !all.iter().all(|other| other.contains(**line));
                lines
                    .iter()
                    .filter(differs)
                    .copied()
                    .collect::<Vec<_>>()
                    .join(" ")
            };
            let differences: Vec<String> = all.iter().map(own).collect();
            for (place, own) in places.iter().zip(differences) {
                if !own.is_empty() {
                    self.groups[*place].label += &format!(" {own}");
                }
            }
        }
    }
}

/// The cell of a study that a run's label names: what stands before its seed.
fn cell_of(label: &str) -> Option<&str> {
    let (cell, seed) = label.rsplit_once("-s")?;
    (!seed.is_empty() && seed.chars().all(|c| c.is_ascii_digit())).then_some(cell)
}

/// All that an experiment asks for besides its seed, and the run of that seed that it starts from.
fn settings_and_seed(folder: &RunFolder) -> Option<(String, String)> {
    let text = crate::files::read_text(&folder.experiment()).ok()?;
    let experiment = resolve_text("experiment.toml", &text).ok()?;
    let values = experiment.values.0.iter();
    let kept = values.filter(|(key, _)| !matches!(key.as_str(), "seed" | "name" | "init.run"));
    let line = |(key, value): (&String, &Value)| format!("{key}={value}\n");
    let seed = experiment
        .values
        .get("seed")
        .map_or(String::new(), ToString::to_string);
    Some((kept.map(line).collect(), seed))
}

impl App {
    /// Reads the runs folder: filtered and sorted as asked.
    pub(super) fn list_runs(&mut self) {
        let found = list_runs(&self.listed_folder());
        self.runs.reading = None;
        self.arrange_runs(found);
    }

    /// Where the listed runs lie.
    fn listed_folder(&self) -> PathBuf {
        match &self.runs.study {
            Some(study) => studies(&self.runs_root).join(study).join("runs"),
            None => self.runs_root.clone(),
        }
    }

    /// Shows these runs, filtered and sorted as asked.
    fn arrange_runs(&mut self, found: Listed) {
        let runs = &mut self.runs;
        runs.listed = Some(Instant::now());
        runs.all = found;
        runs.all
            .retain(|(folder, _)| folder.label().contains(&runs.filter));
        let least = |v: Option<f64>| v.unwrap_or(f64::INFINITY);
        // Runs that came to nothing are last, whatever they are sorted by.
        let kilobytes = |m: &Manifest| least(m.kilobytes().map(|kb| kb[0]));
        match runs.order {
            Order::Time => runs
                .all
                .sort_by_key(|run| std::cmp::Reverse(run.1.started_unix)),
            Order::Error => runs
                .all
                .sort_by(|a, b| least(a.1.best_error).total_cmp(&least(b.1.best_error))),
            Order::Kilobytes => runs.all.sort_by(|a, b| {
                let none = |m: &Manifest| m.best_error.is_none();
                let sizes = || kilobytes(&a.1).total_cmp(&kilobytes(&b.1));
                none(&a.1).cmp(&none(&b.1)).then_with(sizes)
            }),
        }
        runs.depths = vec![0; runs.all.len()];
        if runs.order == Order::Time {
            let family = family(&runs.all);
            runs.depths = family.iter().map(|(depth, _)| *depth).collect();
            runs.all = family.iter().map(|(_, at)| runs.all[*at].clone()).collect();
        }
        runs.group();
        self.compare();
    }

    /// Lists again what others may have changed, read by a thread; `true` where something did.
    pub(in crate::tui) fn look_at_runs(&mut self) -> bool {
        if self.page != Page::Runs {
            self.runs.reading = None;
            return false;
        }
        let Some(reading) = &self.runs.reading else {
            let old = |when: &Instant| when.elapsed() >= LOOK;
            if self.runs.listed.as_ref().is_some_and(old) {
                self.begin_to_read_runs();
            }
            return false;
        };
        let found = match reading.try_recv() {
            Ok(found) => found,
            Err(TryRecvError::Empty) => return false,
            Err(TryRecvError::Disconnected) => {
                self.runs.reading = None;
                return false;
            }
        };
        self.runs.reading = None;
        let before = self.runs.all.clone();
        self.keep_selected_run(|app| app.arrange_runs(found));
        self.runs.all != before
    }

    /// Lists runs in another way, with the same one selected.
    pub(super) fn keep_selected_run(&mut self, list: impl FnOnce(&mut Self)) {
        let chosen = self.selected_run().map(|r| r.0.clone());
        list(self);
        if let Some(chosen) = chosen {
            let rows = 0..self.runs.rows();
            let mut same = rows.filter(|row| self.runs.at(*row).is_some_and(|r| r.0 == chosen));
            self.selected = same.next().unwrap_or(self.selected);
            self.compare();
        }
    }

    fn begin_to_read_runs(&mut self) {
        let (done, reading) = mpsc::channel();
        let folder = self.listed_folder();
        let thread = std::thread::Builder::new().name("runs".into());
        // (A receiver that is gone listed something else meanwhile.)
        let started = thread.spawn(move || done.send(list_runs(&folder)).is_ok());
        // Without a thread the list stays as it is, until there is one.
        self.runs.listed = Some(Instant::now());
        self.runs.reading = started.is_ok().then_some(reading);
    }

    /// Lists the runs of the next study, and behind the last one those of the runs folder again.
    pub(super) fn next_study(&mut self) {
        let entries = std::fs::read_dir(studies(&self.runs_root));
        let folders = entries.into_iter().flatten().flatten().map(|e| e.path());
        let mut names: Vec<String> = folders
            .filter(|path| StudyFolder::at(path).is_kept())
            .filter_map(|path| Some(path.file_name()?.to_string_lossy().into_owned()))
            .collect();
        names.sort();
        let at = match &self.runs.study {
            None => 0,
            Some(study) => names.partition_point(|name| name <= study),
        };
        self.runs.study = names.get(at).cloned();
        self.runs.grouped = self.runs.study.is_some();
        (self.runs.cells, self.runs.reference) = (Vec::new(), None);
        self.runs.planned = None;
        if let Some(name) = &self.runs.study {
            // (A study whose file cannot be read has cells by the names of its folders.)
            let folder = StudyFolder::at(&studies(&self.runs_root).join(name));
            if let Ok(study) = folder.study() {
                self.runs.planned = Some(study.tasks.len());
                (self.runs.cells, self.runs.reference) = (study.cells, study.reference);
            }
        }
        self.selected = 0;
        self.list_runs();
        self.tell(match &self.runs.study {
            Some(study) => format!("study {study}: a row for every cell; z lists its runs"),
            None if names.is_empty() => {
                format!("no study in {}", studies(&self.runs_root).display())
            }
            None => "recorded runs".into(),
        });
    }

    /// One row for each experiment with its seeds, or one for each run again.
    pub(super) fn group_runs(&mut self) {
        self.keep_selected_run(|app| {
            app.runs.grouped = !app.runs.grouped;
            app.runs.group();
            app.selected = 0;
        });
        self.tell(if self.runs.grouped {
            "runs of one experiment with several seeds, one row each".into()
        } else {
            "a row for every run".into()
        });
    }

    /// The run that the selected row is, or stands for.
    pub(in crate::tui) fn selected_run(&self) -> Option<&(RunFolder, Manifest)> {
        self.runs.at(self.selection())
    }

    /// Shows the selected run instead of the current one; of a group, its runs.
    pub(super) fn open_run(&mut self) -> Vec<Effect> {
        if self.runs.grouped {
            let first = self.runs.groups.get(self.selection());
            let Some(first) = first.and_then(|g| g.members.first().copied()) else {
                self.tell("no run of this cell yet".into());
                return Vec::new();
            };
            self.runs.grouped = false;
            self.selected = first;
            self.compare();
            return Vec::new();
        }
        let Some((folder, _)) = self.selected_run() else {
            return Vec::new();
        };
        if *folder == self.shown.folder {
            self.tell("this is the run on the screen".into());
        } else if self.shown.role == Role::Training && self.shown.history.end.is_none() {
            let text = format!(
                "this process trains; `D` leaves the run to one of its own, or open {} with `bitscope watch`",
                folder.label()
            );
            self.warn(text);
        } else {
            return vec![Effect::Open(folder.clone())];
        }
        Vec::new()
    }

    /// Asks whether the selected run is to be removed.
    pub(super) fn ask_to_delete(&mut self) {
        if self.runs.grouped {
            self.warn("a group cannot be removed as a whole: `z` lists its runs".into());
            return;
        }
        let Some((folder, manifest)) = self.selected_run().cloned() else {
            return;
        };
        if folder == self.shown.folder {
            self.warn("the run on the screen cannot be removed".into());
            return;
        }
        self.ask(Overlay::ConfirmDelete {
            folder,
            steps: manifest.step,
        });
    }

    /// Removes a run with everything in it.
    pub(super) fn delete_run(&mut self, folder: &RunFolder) {
        match crate::recorded::remove(folder) {
            Ok(()) => self.tell(format!("{} is gone", folder.label())),
            Err(error) => self.warn(error.to_string()),
        }
        self.shown.overlays.retain(|o| o.label != folder.label());
        self.list_runs();
    }

    /// Gives the selected run's folder another name.
    pub(in crate::tui) fn rename_run(&mut self, name: &str) {
        if self.runs.grouped {
            self.warn("a group cannot be renamed: `z` lists its runs".into());
            return;
        }
        let Some((folder, _)) = self.selected_run().cloned() else {
            return;
        };
        if folder == self.shown.folder {
            self.warn("the run on the screen keeps its name".into());
            return;
        }
        match crate::recorded::move_to(&folder, name) {
            Ok(_) => self.tell(format!("{} is now {name}", folder.label())),
            Err(error) => self.warn(error.to_string()),
        }
        self.shown.overlays.retain(|o| o.label != folder.label());
        self.list_runs();
    }

    /// Draws the selected run, or all of a group, behind the current one, or no longer.
    pub(super) fn toggle_overlay(&mut self) {
        let chosen: Vec<RunFolder> = match self.runs.groups.get(self.selection()) {
            Some(group) if self.runs.grouped => {
                let members = group.members.iter();
                members.map(|m| self.runs.all[*m].0.clone()).collect()
            }
            _ => self
                .selected_run()
                .map(|r| r.0.clone())
                .into_iter()
                .collect(),
        };
        let drawn =
            |app: &Self, f: &RunFolder| app.shown.overlays.iter().any(|o| o.label == f.label());
        if !chosen.is_empty() && chosen.iter().all(|f| drawn(self, f)) {
            for folder in &chosen {
                self.shown.overlays.retain(|o| o.label != folder.label());
                self.tell(format!("{} is no longer drawn", folder.label()));
            }
            return;
        }
        for folder in &chosen {
            // (One may be named by another path.)
            let real = |f: &RunFolder| std::fs::canonicalize(f.path()).ok();
            let shown = &self.shown.folder;
            if folder == shown || real(folder).is_some_and(|f| real(shown) == Some(f)) {
                self.tell("this is the run on the screen".into());
            } else if !drawn(self, folder) {
                self.draw_behind(folder);
            }
        }
        let labels = chosen
            .iter()
            .filter(|f| drawn(self, f))
            .map(RunFolder::label);
        let labels: Vec<String> = labels.collect();
        if !labels.is_empty() {
            let plural = if labels.len() == 1 { "is" } else { "are" };
            // (As many names as fit a line of 80 columns.)
            let which = match labels.join(", ") {
                names if names.chars().count() > 48 => {
                    format!("{} and {} more", labels[0], labels.len() - 1)
                }
                names => names,
            };
            self.tell(format!("{which} {plural} drawn behind this run's plots"));
        }
    }

    fn draw_behind(&mut self, folder: &RunFolder) {
        let label = folder.label();
        match History::from_log(&folder.log(), None) {
            Ok(history) => {
                // The first colour that none of the others has: theirs stay as they are.
                let taken = |c: &usize| self.shown.overlays.iter().any(|o| o.colour == *c);
                let colour = (0..).find(|c| !taken(c)).unwrap_or(0);
                self.shown.overlays.push(Overlaid {
                    label,
                    colour,
                    folder: folder.path().to_owned(),
                    history,
                });
            }
            Err(error) => self.warn(error.to_string()),
        }
    }

    /// Reads how the selected run's experiment differs: once per selection, not per frame.
    pub(super) fn compare(&mut self) {
        let compared = self.selected_run().map(|(folder, manifest)| {
            let mut lines = Vec::new();
            if self.runs.grouped
                && let Some(group) = self.runs.groups.get(self.selection())
            {
                let labels = group.members.iter().map(|m| self.runs.all[*m].0.label());
                lines.push(format!("runs: {}", labels.collect::<Vec<_>>().join(", ")));
            }
            lines.extend(comparison(&self.editing.experiment, folder, manifest));
            lines
        });
        self.runs.compared = compared.unwrap_or_default();
    }
}

/// Where studies are: beside the runs folder.
fn studies(runs_root: &Path) -> PathBuf {
    runs_root.with_file_name("studies")
}

/// The selected run's experiment against the current one, key by key.
fn comparison(current: &Experiment, folder: &RunFolder, manifest: &Manifest) -> Vec<String> {
    let mut lines = Vec::new();
    if let Some(note) = &manifest.note {
        lines.push(note.clone());
    }
    if let Some(reason) = &manifest.reason {
        lines.push(format!("failed: {reason}"));
    }
    if let Some(parent) = &manifest.parent {
        lines.push(format!(
            "forked from {} at step {}",
            parent.run, parent.step
        ));
    }
    let text = match crate::files::read_text(&folder.experiment()) {
        Ok(text) => text,
        Err(error) => {
            lines.push(format!("its experiment cannot be read: {error}"));
            return lines;
        }
    };
    match resolve_text("experiment.toml", &text) {
        Ok(other) => {
            let changes = difference(&current.values, &other.values);
            if changes.is_empty() {
                lines.push("the same experiment as the current one".into());
            }
            lines.extend(changes.iter().map(|c| format!("{c}  ({})", c.class.name())));
        }
        Err(error) => lines.push(format!("its experiment cannot be read: {error}")),
    }
    lines
}
