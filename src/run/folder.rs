//! A run on disk: `runs/<name>-<timestamp>/`.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::disk::{sweep, write_whole};
use super::event::{Budget, Event, Parent, Phases, Split};
use super::lock::RunLock;
use super::log::{LogError, LogReader, Summary};
use crate::experiment::{Experiment, resolve_text};
use crate::graph::Architecture;
use crate::quantizer::memory::Usage;

/// How a run stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// In progress.
    Running,
    /// Its program ended without a word: it was killed, or the machine went down. Never written:
    /// it follows from a running run that nobody owns.
    Interrupted,
    /// Came to its end.
    Finished,
    /// Stopped; can be resumed.
    Stopped,
    /// Ended in an error; the last checkpoint stands.
    Failed,
}

impl Status {
    /// One word.
    pub fn name(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Interrupted => "interrupted",
            Self::Finished => "finished",
            Self::Stopped => "stopped",
            Self::Failed => "failed",
        }
    }
}

/// Summary of a run, rewritten as it proceeds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// Version of the program that wrote it.
    pub version: String,
    /// Revision of the program's sources, where it was built from a repository.
    #[serde(default)]
    pub revision: Option<String>,
    /// Threads that the CPU kernels run on.
    #[serde(default)]
    pub threads: usize,
    /// Name of the run.
    pub name: String,
    /// When it began, local time with its offset.
    pub started: String,
    /// The same in seconds since 1970: what runs are sorted by.
    #[serde(default)]
    pub started_unix: i64,
    /// Engine and device, in words.
    pub device: String,
    /// How it stands.
    pub status: Status,
    /// Steps taken.
    pub step: u64,
    /// Epochs.
    pub epoch: f64,
    /// Best validation error among steps that met the budget.
    pub best_error: Option<f64>,
    /// Step and memory of that best.
    #[serde(default)]
    pub best: Option<Best>,
    /// Error on the test part.
    pub test_error: Option<f64>,
    /// kB of weights now.
    pub weight_kb: f64,
    /// kB of the largest activation now.
    pub activation_kb: f64,
    /// What it trains on, and which network: only such runs can be compared.
    #[serde(default)]
    pub task: Option<String>,
    /// Why it failed.
    pub reason: Option<String>,
    /// Fingerprint of the weights that it took from another run (`init.run`).
    #[serde(default)]
    pub start: Option<String>,
    /// Whether training cannot go on from here: a value is not finite, or no checkpoint is intact.
    #[serde(default)]
    pub dead_end: bool,
    /// The run that it was forked from.
    pub parent: Option<Parent>,
    /// The experiment file that it came from; `None` for the embedded default.
    #[serde(default)]
    pub source: Option<PathBuf>,
    /// What the command line set over that file, `key=value` each, paths absolute.
    #[serde(default)]
    pub set: Vec<String>,
    /// What a person wrote about it.
    #[serde(default)]
    pub note: Option<String>,
}

/// Where a run was best: an error and the memory of the same step.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Best {
    /// Steps taken.
    pub step: u64,
    /// kB of weights.
    pub weight_kb: f64,
    /// kB of the largest activation.
    pub activation_kb: f64,
    /// All that was used there.
    #[serde(default)]
    pub usage: Option<Usage>,
}

impl Best {
    /// Of a step that used so much.
    pub fn at(step: u64, usage: Usage) -> Self {
        Self {
            step,
            weight_kb: usage.weights,
            activation_kb: usage.activation_max,
            usage: Some(usage),
        }
    }

    /// Whether it is within these budgets, as far as is known.
    pub fn is_within(&self, budgets: &[Budget]) -> bool {
        let within = |usage: Usage| budgets.iter().all(|budget| budget.is_met(&usage));
        self.usage.is_none_or(within)
    }
}

impl Manifest {
    /// What a run trains on, and which network: the settings that make two runs comparable.
    pub fn task_of(experiment: &Experiment) -> String {
        const OF_THE_TASK: [&str; 7] = [
            "data.source",
            "data.path",
            "data.samples",
            "data.difficulty",
            "data.size",
            "model.name",
            "model.file",
        ];
        let value = |key: &&str| experiment.values.get(key).map(ToString::to_string);
        let values: Vec<String> = OF_THE_TASK.iter().filter_map(value).collect();
        values.join(" ")
    }

    /// Forgets the best step where it is beyond budgets that are tighter now. Returns whether it was.
    pub(crate) fn drop_best_beyond(&mut self, budgets: &[Budget]) -> bool {
        let is_beyond = self.best.is_some_and(|best| !best.is_within(budgets));
        if is_beyond {
            (self.best_error, self.best) = (None, None);
        }
        is_beyond
    }

    /// How the run stands, in one word: one that waits beside a value that is not finite has diverged,
    /// whoever stopped it then.
    pub fn standing(&self) -> &'static str {
        match self.status {
            Status::Stopped | Status::Interrupted if self.dead_end => "diverged",
            status => status.name(),
        }
    }

    /// A value is not finite, in that layer first.
    pub(crate) fn not_finite(&mut self, step: u64, layer: Option<&str>) {
        let first = layer.unwrap_or("an unidentified layer");
        self.reason = Some(format!("not finite at step {step}, first in {first}"));
        self.dead_end = true;
    }

    /// There is something behind it that training can go on from.
    pub(crate) fn can_go_on(&mut self) {
        if std::mem::take(&mut self.dead_end) {
            self.reason = None;
        }
    }

    /// Memory beside the error that is listed, kB of weights and of the largest activation: that of the
    /// best step, or, of a run that has no best yet, now. `None` before its first step.
    pub fn kilobytes(&self) -> Option<[f64; 2]> {
        match (self.best, self.best_error) {
            (Some(best), _) => Some([best.weight_kb, best.activation_kb]),
            // A manifest of before: whose memory it was nobody wrote down.
            (None, Some(_)) => None,
            (None, None) => (self.step > 0).then_some([self.weight_kb, self.activation_kb]),
        }
    }

    /// Of a run that begins now.
    pub fn begin(name: String, device: String) -> Self {
        let now = jiff::Zoned::now();
        Self {
            version: env!("CARGO_PKG_VERSION").into(),
            revision: option_env!("BITSCOPE_REVISION").map(str::to_owned),
            threads: rayon::current_num_threads(),
            name,
            started: now.strftime("%Y-%m-%d %H:%M:%S %:z").to_string(),
            started_unix: now.timestamp().as_second(),
            device,
            status: Status::Running,
            step: 0,
            epoch: 0.0,
            best_error: None,
            best: None,
            test_error: None,
            weight_kb: 0.0,
            activation_kb: 0.0,
            task: None,
            reason: None,
            start: None,
            dead_end: false,
            parent: None,
            source: None,
            set: Vec::new(),
            note: None,
        }
    }
}

/// Bytes of a run's name at most in the name of its folder, which file systems limit to 255.
const NAME: usize = 120;

/// A name as part of a file's name that no shell takes apart: letters and digits of any script; what
/// lies between them as one dash.
fn plain_name(name: &str) -> String {
    let mut plain = String::new();
    for c in name.chars() {
        let c = if c.is_alphanumeric() || "_.".contains(c) {
            c
        } else {
            '-'
        };
        if plain.len() + c.len_utf8() > NAME {
            break;
        }
        if c != '-' || !(plain.is_empty() || plain.ends_with('-')) {
            plain.push(c);
        }
    }
    let plain = plain.trim_end_matches('-').trim_start_matches('.');
    if plain.is_empty() { "run" } else { plain }.to_owned()
}

/// Paths inside a run folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunFolder(PathBuf);

impl RunFolder {
    /// Creates a folder for a new run under `root`.
    ///
    /// # Errors
    /// Where it cannot be created.
    pub fn create(root: &Path, name: &str) -> io::Result<Self> {
        if std::path::absolute(root)?.to_str().is_none() {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "the path is not UTF-8; a run records its paths as text",
            ));
        }
        let plain = plain_name(name);
        let stamp = jiff::Zoned::now().strftime("%Y%m%d-%H%M%S").to_string();
        for attempt in 0..1000 {
            let suffix = if attempt == 0 {
                String::new()
            } else {
                format!("-{attempt}")
            };
            let path = root.join(format!("{plain}-{stamp}{suffix}"));
            std::fs::create_dir_all(root)?;
            match std::fs::create_dir(&path) {
                Ok(()) => {
                    let folder = Self(path);
                    std::fs::create_dir(folder.checkpoints())?;
                    return Ok(folder);
                }
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
                Err(e) => return Err(e),
            }
        }
        Err(io::Error::new(
            io::ErrorKind::AlreadyExists,
            "a thousand runs in one second",
        ))
    }

    /// A folder that is never written to, for benchmarks and tests of the screen.
    pub(crate) fn unrecorded() -> Self {
        Self::at(Path::new("unrecorded"))
    }

    /// The folder of that path, whether it is there or not.
    pub(crate) fn at(path: &Path) -> Self {
        Self(path.to_owned())
    }

    /// An existing run folder.
    ///
    /// # Errors
    /// Where the folder holds no run.
    pub fn open(path: &Path) -> io::Result<Self> {
        let folder = Self(path.to_owned());
        if folder.log().is_file() {
            return Ok(folder);
        }
        let path = path.display();
        let message = if folder.0.join("manifest.json").is_file() {
            format!("{path}: the run's events.log is gone, and with it what the run recorded")
        } else {
            format!("{path} is not a run folder (no events.log)")
        };
        Err(io::Error::new(io::ErrorKind::NotFound, message))
    }

    /// The folder itself.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Its last component: how the run is called in lists.
    pub fn label(&self) -> String {
        self.0
            .file_name()
            .map_or("run".into(), |n| n.to_string_lossy().into_owned())
    }

    /// The resolved experiment.
    pub fn experiment(&self) -> PathBuf {
        self.0.join("experiment.toml")
    }

    /// The run whose checkpoint a file is.
    pub fn of_checkpoint(checkpoint: &Path) -> Option<Self> {
        Self::open(checkpoint.parent()?.parent()?).ok()
    }

    /// The run's own copy of the file that its network came from.
    pub fn model(&self) -> PathBuf {
        self.0.join("model.onnx")
    }

    /// The experiment with the run's own copy of its network's file, where it has one: the file that
    /// it was made from may be gone, or another one by now.
    pub fn with_own_model(&self, experiment: &Arc<Experiment>) -> Arc<Experiment> {
        let own = self.model();
        let mut experiment = experiment.clone();
        if own.is_file()
            && let Architecture::File { path, .. } = &mut Arc::make_mut(&mut experiment).model
        {
            *path = own;
        }
        experiment
    }

    /// Copies the file that an experiment's network comes from.
    ///
    /// # Errors
    /// Where it cannot be read or written.
    pub fn keep_model(&self, experiment: &Experiment) -> io::Result<()> {
        match &experiment.model {
            Architecture::File { path, .. } if *path != self.model() => {
                write_whole(&self.model(), &crate::files::read(path)?)
            }
            _ => Ok(()),
        }
    }

    /// The experiment file as its user wrote it.
    pub fn source(&self) -> PathBuf {
        self.0.join("source.toml")
    }

    /// The event log.
    pub fn log(&self) -> PathBuf {
        self.0.join("events.log")
    }

    /// Checkpoints.
    pub fn checkpoints(&self) -> PathBuf {
        self.0.join("checkpoints")
    }

    /// Exported figures.
    pub fn figures(&self) -> PathBuf {
        self.0.join("figures")
    }

    /// TensorBoard event files, where the experiment asks for them.
    pub fn tensorboard(&self) -> PathBuf {
        self.0.join("tensorboard")
    }

    /// Text log of the program.
    pub fn trace(&self) -> PathBuf {
        self.0.join("trace.txt")
    }

    /// Removes what writers that were killed left behind. For the run's owner alone.
    pub(crate) fn sweep(&self) {
        sweep(&self.0);
        sweep(&self.checkpoints());
    }

    /// Writes the manifest, atomically.
    ///
    /// # Errors
    /// Where it cannot be written.
    pub fn write_manifest(&self, manifest: &Manifest) -> io::Result<()> {
        let text = serde_json::to_string_pretty(manifest).map_err(io::Error::other)?;
        write_whole(&self.0.join("manifest.json"), text.as_bytes())
    }

    /// Reads the manifest.
    ///
    /// # Errors
    /// Where there is none or it is damaged.
    pub fn manifest(&self) -> io::Result<Manifest> {
        let text = crate::files::read(&self.0.join("manifest.json"))?;
        serde_json::from_slice(&text).map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e))
    }

    /// The manifest; where it cannot be read, what the log says, with a note that it does.
    ///
    /// # Errors
    /// Where the log cannot be read either.
    pub fn manifest_or_rebuilt(&self) -> Result<Manifest, LogError> {
        match self.manifest() {
            Ok(manifest) => Ok(manifest),
            Err(error) => {
                let what = match error.kind() {
                    io::ErrorKind::NotFound => "missing",
                    _ => "damaged",
                };
                let note = format!("manifest.json was {what}: this is what the log says");
                let rebuilt = self.rebuild_manifest()?;
                Ok(Manifest {
                    note: Some(note),
                    ..rebuilt
                })
            }
        }
    }

    fn rebuild_manifest(&self) -> Result<Manifest, LogError> {
        let mut m = Manifest::begin(self.label(), String::new());
        let created = std::fs::metadata(&self.0).and_then(|d| d.modified());
        let created = created
            .ok()
            .and_then(|t| jiff::Timestamp::try_from(t).ok())
            .map(|t| t.to_zoned(jiff::tz::TimeZone::system()));
        if let Some(created) = created {
            m.started = created.strftime("%Y-%m-%d %H:%M:%S %:z").to_string();
            m.started_unix = created.timestamp().as_second();
        }
        let (mut usage, mut phases) = (None, Phases::default());
        for event in LogReader::open(&self.log())? {
            match event {
                Event::Started {
                    device,
                    parent,
                    experiment,
                    budgets,
                    ..
                } => {
                    m.drop_best_beyond(&budgets);
                    m.device = device;
                    m.parent = parent;
                    let experiment = resolve_text("experiment.toml", &experiment).ok();
                    m.task = experiment.as_ref().map(Manifest::task_of);
                    m.status = Status::Running;
                    (m.reason, m.dead_end) = (None, false);
                }
                Event::Applied { budgets, .. } => _ = m.drop_best_beyond(&budgets),
                Event::Step(r) => {
                    m.test_error = None;
                    usage = Some(r.usage);
                    (m.step, m.epoch) = (r.step, r.epoch);
                    m.weight_kb = r.usage.weights;
                    m.activation_kb = r.usage.activation_max;
                }
                Event::Evaluation {
                    split: Split::Validation,
                    error,
                    best: true,
                    ..
                } => {
                    m.best_error = Some(error);
                    m.best = usage.map(|usage| Best::at(m.step, usage));
                }
                Event::Phase { phase, .. } if phases.begins_quantized(phase) => {
                    (m.best_error, m.best) = (None, None);
                    // (What was used last, was used in float.)
                    usage = None;
                }
                Event::Finished { test_error, .. } => {
                    m.status = Status::Finished;
                    m.test_error = test_error;
                }
                Event::NonFinite { step, layer } => m.not_finite(step, layer.as_deref()),
                Event::Checkpoint { best: false, .. } => m.can_go_on(),
                Event::Stopped { .. } => m.status = Status::Stopped,
                Event::Failed { message, .. } => {
                    m.status = Status::Failed;
                    m.reason = Some(message);
                }
                _ => {}
            }
        }
        Ok(m)
    }

    /// Whether the evaluation that was best with this error took no more than these budgets, as far as the
    /// log says.
    pub fn was_best_within(&self, error: f64, budgets: &[Budget]) -> bool {
        let Ok(events) = LogReader::open(&self.log()) else {
            return true;
        };
        let (mut usage, mut best, mut phases) = (None, None, Phases::default());
        for event in events {
            match event {
                // (What was used last, was used in float.)
                Event::Phase { phase, .. } if phases.begins_quantized(phase) => usage = None,
                Event::Step(r) => usage = Some((r.step, r.usage)),
                Event::Evaluation {
                    split: Split::Validation,
                    error: found,
                    best: true,
                    ..
                } if found == error => best = usage.map(|(step, usage)| Best::at(step, usage)),
                _ => {}
            }
        }
        best.is_none_or(|best| best.is_within(budgets))
    }

    /// Bytes of the log that opening the run reads: those behind its summary.
    pub fn unread(&self) -> u64 {
        let length = self.log().metadata().map_or(0, |m| m.len());
        length.saturating_sub(Summary::covered(&self.log()))
    }

    /// The newest resolved experiment that the log holds.
    pub fn experiment_in_log(&self) -> Option<String> {
        let events = LogReader::open(&self.log()).ok()?;
        events
            .filter_map(|event| match event {
                Event::Started { experiment, .. } | Event::Applied { experiment, .. } => {
                    Some(experiment)
                }
                _ => None,
            })
            .last()
    }

    /// The newest checkpoint.
    pub fn newest_checkpoint(&self) -> Option<PathBuf> {
        self.all_checkpoints().pop()
    }

    /// Checkpoints by step, the oldest first; the best one's copy is not among them.
    pub fn all_checkpoints(&self) -> Vec<PathBuf> {
        self.checkpoints_by_step()
            .into_iter()
            .map(|(_, path)| path)
            .collect()
    }

    /// The same with their steps.
    pub fn checkpoints_by_step(&self) -> Vec<(u64, PathBuf)> {
        let entries = std::fs::read_dir(self.checkpoints());
        let paths = entries.into_iter().flatten().flatten().map(|e| e.path());
        let mut found: Vec<(u64, PathBuf)> = paths
            .filter_map(|p| Some((step_of_checkpoint(&p)?, p)))
            .collect();
        found.sort();
        found
    }

    /// Where the checkpoint of a step is written.
    pub fn checkpoint(&self, step: u64) -> PathBuf {
        self.checkpoints().join(format!("step-{step}.safetensors"))
    }

    /// Where the best checkpoint is written.
    pub fn best(&self) -> PathBuf {
        self.checkpoints().join("best.safetensors")
    }

    /// The best checkpoint, if one is best: not where budgets that are tighter now have made it none.
    pub fn best_checkpoint(&self) -> Option<PathBuf> {
        // (A manifest that is gone is no reason not to use what it spoke of.)
        let has_best = self.manifest().map_or(true, |m| m.best_error.is_some());
        Some(self.best()).filter(|p| has_best && p.is_file())
    }

    /// The checkpoint that another run takes its weights from: the best one, or else the newest.
    pub fn start(&self) -> Option<PathBuf> {
        self.best_checkpoint().or_else(|| self.newest_checkpoint())
    }
}

/// Step of a checkpoint, as its name says.
fn step_of_checkpoint(path: &Path) -> Option<u64> {
    let name = path.file_name()?.to_str()?;
    let step = name.strip_prefix("step-")?.strip_suffix(".safetensors")?;
    step.parse().ok()
}

/// All runs under `root` with their manifests, newest first. A manifest that cannot be read is
/// rebuilt from the log; folders without a log are left out.
pub fn list_runs(root: &Path) -> Vec<(RunFolder, Manifest)> {
    let Ok(entries) = std::fs::read_dir(root) else {
        return Vec::new();
    };
    let mut runs: Vec<(RunFolder, Manifest)> = entries
        .filter_map(|e| {
            let folder = RunFolder::open(&e.ok()?.path()).ok()?;
            let mut manifest = folder.manifest_or_rebuilt().ok()?;
            if manifest.status == Status::Running && RunLock::holder(folder.path()).is_none() {
                manifest.status = Status::Interrupted;
            }
            Some((folder, manifest))
        })
        .collect();
    let when = |m: &Manifest| (m.started_unix, m.started.clone());
    runs.sort_by(|a, b| when(&b.1).cmp(&when(&a.1)).then(b.0.0.cmp(&a.0.0)));
    runs
}

/// Folders under `root` whose manifest says that they were runs, and whose log is gone.
pub fn without_log(root: &Path) -> Vec<RunFolder> {
    let entries = std::fs::read_dir(root).into_iter().flatten().flatten();
    let folders = entries.map(|e| RunFolder(e.path()));
    let lost = |f: &RunFolder| f.0.join("manifest.json").is_file() && !f.log().is_file();
    let mut found: Vec<RunFolder> = folders.filter(lost).collect();
    found.sort_by_key(RunFolder::label);
    found
}

/// Places of the runs with their depth, children behind their parents, else in the order given.
pub fn family(runs: &[(RunFolder, Manifest)]) -> Vec<(usize, usize)> {
    let parent = |at: usize| {
        let parent = runs[at].1.parent.as_ref()?;
        runs.iter().position(|(f, _)| f.label() == parent.run)
    };
    let mut out = Vec::with_capacity(runs.len());
    let mut stack: Vec<(usize, usize)> = (0..runs.len())
        .rev()
        .filter(|at| parent(*at).is_none())
        .map(|at| (0, at))
        .collect();
    let mut placed = vec![false; runs.len()];
    while let Some((depth, at)) = stack.pop() {
        if std::mem::replace(&mut placed[at], true) {
            continue;
        }
        out.push((depth, at));
        let children = (0..runs.len()).rev().filter(|c| parent(*c) == Some(at));
        stack.extend(children.map(|c| (depth + 1, c)));
    }
    // Runs that name each other as parents, by hand, are listed all the same.
    out.extend((0..runs.len()).filter(|at| !placed[*at]).map(|at| (0, at)));
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forks_stand_below_their_parents() {
        let run = |label: &str, parent: Option<&str>| {
            let folder = RunFolder::at(Path::new(label));
            let mut manifest = Manifest::begin(label.into(), "flex".into());
            manifest.parent = parent.map(|run| Parent {
                run: run.into(),
                step: 3,
            });
            (folder, manifest)
        };
        let runs = [
            run("grandchild", Some("child")),
            run("other", None),
            run("child", Some("root")),
            run("root", Some("gone")),
            run("a", Some("b")),
            run("b", Some("a")),
        ];
        let order: Vec<(usize, String)> = family(&runs)
            .into_iter()
            .map(|(depth, at)| (depth, runs[at].0.label()))
            .collect();
        let expected = [
            (0, "other"),
            (0, "root"),
            (1, "child"),
            (2, "grandchild"),
            (0, "a"),
            (0, "b"),
        ];
        assert_eq!(order, expected.map(|(d, l)| (d, l.to_owned())));
    }
}
