//! `bitscope study` and `bitscope report`: many runs on this machine, or one of them at a time where a
//! scheduler starts it.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use clap::Args;

use crate::experiment::printable;
use crate::experiment::{Diagnostics, Loaded};
use crate::face::{self, Begin, CliError, Output, Run, Screen, duration, exit, print};
use crate::figure::{self, Format, Theme};
use crate::headless;
use crate::kernels::ranks::{Group, LAUNCHERS};
use crate::run::{History, Quantity, RunFolder};
use crate::study::{
    Form, Report, Scheduler, State, Study, StudyError, StudyFolder, differences, figures, script,
    seeded,
};
use crate::training::Checkpoint;

/// Variables in which schedulers say which task of an array they start.
const TASK_VARIABLES: [&str; 2] = ["SLURM_ARRAY_TASK_ID", "HQ_TASK_ID"];
/// How often the study looks what has changed.
const LOOK: Duration = Duration::from_millis(200);
/// How often it says how far it is where nobody watches a terminal.
const SAY: Duration = Duration::from_secs(60);

/// What `bitscope study` is asked for.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// The study's file, or its folder
    study: PathBuf,
    /// Where its runs are recorded (default: studies/NAME)
    #[arg(long, value_name = "DIR")]
    into: Option<PathBuf>,
    /// Runs at a time; the cores are shared out among them
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=1024))]
    workers: u16,
    /// Run only the K-th task, counted from 0 (default: SLURM_ARRAY_TASK_ID or HQ_TASK_ID, where one is set)
    #[arg(long, value_name = "K", conflicts_with_all = ["workers", "plan", "dry_run"])]
    task: Option<usize>,
    /// Write a job script instead, to standard output
    #[arg(long, value_enum, value_name = "SCHEDULER", conflicts_with = "dry_run")]
    plan: Option<Scheduler>,
    /// Cores of each task in a job script
    #[arg(long, value_name = "N", default_value_t = 4, requires = "plan")]
    cores: usize,
    /// Say what would run, how long it may take and how much disk it needs; run nothing
    #[arg(long)]
    dry_run: bool,
    /// Go on with failed tasks from their newest checkpoint, or run them again where there is none or they
    /// diverged
    #[arg(long)]
    retry: bool,
}

/// What `bitscope report` is asked for.
#[derive(Debug, Args)]
pub(crate) struct ReportArguments {
    /// The study's file, or its folder
    study: PathBuf,
    /// Where its runs are recorded (default: studies/NAME)
    #[arg(long, value_name = "DIR")]
    into: Option<PathBuf>,
    /// What to write it as
    #[arg(long, value_enum, default_value = "md")]
    format: Form,
    /// Also write its figures into this folder, as PNG, PDF and CSV
    #[arg(long, value_name = "DIR")]
    figures: Option<PathBuf>,
    /// Colours of the figures
    #[arg(long, default_value = "light")]
    theme: Theme,
}

/// A study with its folder.
struct Place {
    study: Study,
    folder: StudyFolder,
}

impl Place {
    fn find(path: &Path, into: Option<&Path>) -> Result<Self, CliError> {
        let wrong = |error| match error {
            StudyError::Wrong(diagnostics) => CliError::Experiment(diagnostics),
            error @ StudyError::Io { .. } => CliError::Usage(error.to_string()),
        };
        let shown = path.display();
        if !path.exists() {
            let text =
                format!("{shown} does not exist; expected the file of a study, or its folder");
            return Err(CliError::Usage(text));
        }
        let (study, own) = if path.is_dir() {
            let folder = StudyFolder::at(path);
            if !folder.is_kept() {
                let text = format!("{shown} is no folder of a study: it has no study.json");
                return Err(CliError::Usage(text));
            }
            (folder.study().map_err(wrong)?, Some(folder))
        } else {
            (Study::read(path).map_err(wrong)?, None)
        };
        let folder = match (into, own) {
            (Some(into), _) => StudyFolder::at(into),
            (None, Some(own)) => own,
            (None, None) => StudyFolder::at(&Path::new("studies").join(&study.name)),
        };
        Ok(Self { study, folder })
    }

    fn states(&self) -> Vec<State> {
        let tasks = 0..self.study.tasks.len();
        tasks.map(|t| self.folder.state(&self.study, t)).collect()
    }

    /// How far the tasks are now; what is finished stays so, and is not read again.
    fn look_again(&self, states: &mut [State]) {
        for (task, state) in states.iter_mut().enumerate() {
            if *state != State::Finished {
                *state = self.folder.state(&self.study, task);
            }
        }
    }

    /// The experiment of a task, checked; `start` is the run that it starts from.
    fn load(&self, task: usize, start: Option<&Path>) -> Result<Loaded, CliError> {
        let loaded = self.parse(task, start)?;
        face::reachable(&loaded).map_err(|e| self.of_cell(task, e))?;
        Ok(loaded)
    }

    /// The same without its network.
    fn parse(&self, task: usize, start: Option<&Path>) -> Result<Loaded, CliError> {
        let of = self.study.tasks[task];
        let cell = &self.study.cells[of.cell];
        let set = seeded(cell, of.seed, start);
        let loaded = face::parse(cell.experiment.as_deref(), &set);
        loaded.map_err(|e| self.of_cell(task, e))
    }

    fn of_cell(&self, task: usize, diagnostics: Diagnostics) -> CliError {
        let described = self.study.describe(task);
        let cell = self.study.tasks[task].cell;
        let diagnostics = self.study.placed(cell, diagnostics);
        CliError::Usage(format!("{described}:\n{diagnostics}"))
    }

    /// What a task's run, where one was begun, was recorded with and is asked for otherwise now.
    fn other_settings(&self, task: usize) -> Result<Vec<String>, CliError> {
        let run = self.folder.run(&self.study, task);
        if !run.log().is_file() {
            return Ok(Vec::new());
        }
        let recorded = face::load_recorded(&run, &Vec::new())?;
        let start = self.start(task);
        let wanted = self.load(task, start.as_ref().map(RunFolder::path))?;
        let mut other = differences(&recorded.experiment.values, &wanted.experiment.values);
        if let (Some(start), Some(before)) = (&start, self.study.needs(task)) {
            let was = run.manifest().ok().and_then(|m| m.start);
            let is = Checkpoint::fingerprint_of(start);
            if let (Some(was), Some(is)) = (was, is)
                && was != is
            {
                let before = self.study.describe(before);
                other.push(format!(
                    "the weights of {before} as it was before it was run anew"
                ));
            }
        }
        Ok(other)
    }

    /// Refuses to go on where runs were recorded with other settings: a report would mix the two.
    fn refuse_other_settings(&self, task: usize) -> Result<(), CliError> {
        let other = self.other_settings(task)?;
        if other.is_empty() {
            return Ok(());
        }
        let path = self.folder.run(&self.study, task);
        Err(CliError::Usage(format!(
            "{}: {} was recorded with other settings: {}; hint: `--into` takes another folder, or remove that one",
            self.study.describe(task),
            path.path().display(),
            other.join(", ")
        )))
    }

    /// The run that a task starts from.
    fn start(&self, task: usize) -> Option<RunFolder> {
        let before = self.study.needs(task)?;
        Some(self.folder.run(&self.study, before))
    }

    /// Every cell's experiment, and the network of those that have runs to do, before anything runs: a
    /// study that fails at its last cell after a night would be worth little.
    fn check(&self) -> Result<(), CliError> {
        let to_do = |task: &usize| self.folder.state(&self.study, *task) != State::Finished;
        for cell in 0..self.study.cells.len() {
            let tasks = 0..self.study.tasks.len();
            let own: Vec<usize> = tasks
                .filter(|t| self.study.tasks[*t].cell == cell)
                .collect();
            let loaded = self.parse(own[0], None)?;
            // (What is finished needs no network any more, whose file may be gone.)
            let sound = match own.iter().any(to_do) {
                true => face::outline(&loaded).map(drop),
                false => face::reachable(&loaded),
            };
            sound.map_err(|e| self.of_cell(own[0], e))?;
        }
        Ok(())
    }
}

/// `bitscope study`.
pub(crate) fn command(arguments: &Arguments) -> Result<u8, CliError> {
    let place = Place::find(&arguments.study, arguments.into.as_deref())?;
    if let Some(scheduler) = arguments.plan {
        place.check()?;
        let program = program()?;
        let cores = arguments.cores.max(1);
        let text = script(&place.study, &place.folder, &program, cores, scheduler);
        return print(&text).map(|()| 0);
    }
    if arguments.dry_run {
        place.check()?;
        return print(&dry_run(&place, arguments.workers.into())).map(|()| 0);
    }
    if let Some(task) = arguments
        .task
        .map_or_else(task_of_scheduler, |t| Ok(Some(t)))?
    {
        return one(&place, task, arguments.retry);
    }
    place.check()?;
    for task in 0..place.study.tasks.len() {
        if place.folder.state(&place.study, task) == State::Finished {
            place.refuse_other_settings(task)?;
        }
    }
    all(&place, arguments)
}

fn program() -> Result<PathBuf, CliError> {
    std::env::current_exe().map_err(|e| CliError::Failed(format!("this program's own file: {e}")))
}

/// The task that a scheduler started this process for.
fn task_of_scheduler() -> Result<Option<usize>, CliError> {
    for name in TASK_VARIABLES {
        let Ok(text) = std::env::var(name) else {
            continue;
        };
        let number = text.trim().parse().map_err(|_| {
            CliError::Usage(format!(
                "{name} is \"{text}\"; expected the number of a task"
            ))
        })?;
        return Ok(Some(number));
    }
    Ok(None)
}

fn write_down(place: &Place) -> Result<(), CliError> {
    let failed = |e| CliError::Failed(format!("{}: {e}", place.folder.path().display()));
    place.folder.keep(&place.study).map_err(failed)
}

/// Runs one task in this process, where there is something to do.
fn one(place: &Place, task: usize, retry: bool) -> Result<u8, CliError> {
    let study = &place.study;
    if task >= study.tasks.len() {
        let last = study.tasks.len() - 1;
        let text = format!("task {task}: {} has tasks 0 to {last}", study.name);
        return Err(CliError::Usage(text));
    }
    write_down(place)?;
    let described = study.describe(task);
    let folder = place.folder.run(study, task);
    let state = place.folder.state(study, task);
    let has_checkpoint = folder
        .newest_checkpoint()
        .or(folder.best_checkpoint())
        .is_some();
    let goes_on = has_checkpoint && state.may_go_on();
    if state == State::Finished || goes_on {
        place.refuse_other_settings(task)?;
    }
    let begin = match state {
        State::Finished => {
            print(&format!("{described}: finished before\n"))?;
            return Ok(0);
        }
        State::Running(holder) => {
            let holder = holder.map_or("another process".into(), |h| h.to_string());
            let text = format!("{described}: {holder} has it");
            return Err(CliError::Failed(text));
        }
        State::Waiting(before) => {
            let before = study.describe(before);
            let text = format!("{described}: starts from {before}, which is not finished");
            return Err(CliError::Failed(text));
        }
        State::Failed { reason, .. } if !retry => {
            let text = format!(
                "{described}: failed before: {reason}; hint: --retry goes on from its newest checkpoint, or runs it again"
            );
            return Err(CliError::Failed(text));
        }
        State::Ready => Begin::New,
        State::Half { .. } | State::Failed { .. } if goes_on => Begin::Resume(folder.clone()),
        State::Half { .. } | State::Failed { .. } => {
            // Ended before its first checkpoint, or in values that lead nowhere: nothing was learned that
            // could be lost.
            crate::recorded::remove(&folder)?;
            Begin::New
        }
    };
    let start = place.start(task);
    let wanted = place.load(task, start.as_ref().map(RunFolder::path))?;
    let of = study.tasks[task];
    let cell = &study.cells[of.cell];
    let mut run = Run {
        experiment: cell.experiment.clone(),
        set: seeded(cell, of.seed, start.as_ref().map(RunFolder::path)),
        steps: None,
        runs: place.folder.runs(),
        paused: false,
        into: Some(folder.path().to_owned()),
        screen: Screen {
            fps: 30,
            color: None,
            marker: None,
        },
    };
    let output = Output {
        json: false,
        plain: true,
    };
    let loaded = match &begin {
        Begin::Resume(folder) => {
            let recorded = face::load_recorded(folder, &Vec::new())?;
            run.experiment = Some(folder.experiment());
            run.set.clear();
            recorded
        }
        _ => {
            let folders = std::fs::create_dir_all(folder.checkpoints());
            folders.map_err(|e| CliError::Failed(format!("{}: {e}", folder.path().display())))?;
            wanted
        }
    };
    headless::train(&loaded, &run, output, begin, &Group::default())
}

/// A task in a process of its own.
struct Worker {
    task: usize,
    child: Child,
    began: Instant,
}

/// Runs all that is left, so many at a time.
fn all(place: &Place, arguments: &Arguments) -> Result<u8, CliError> {
    let interrupted = face::interrupt_flag()?;
    write_down(place)?;
    let study = &place.study;
    let workers = usize::from(arguments.workers);
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let threads = (cores / workers).max(1);
    let mut states = place.states();
    let mut tried: BTreeSet<usize> = BTreeSet::new();
    let mut running: Vec<Worker> = Vec::new();
    let mut said = Instant::now();
    let mut waits = false;
    print(&format!(
        "recording to {}\n",
        printable(&place.folder.path().display().to_string())
    ))?;
    loop {
        if interrupted.load(Ordering::Relaxed) {
            stop(&mut running)?;
            print(&format!("stopped; {}\n", summary(&place.states())))?;
            return Ok(exit::INTERRUPTED);
        }
        reap(place, &mut running)?;
        place.look_again(&mut states);
        for (task, state) in states.iter().enumerate() {
            let may_begin = match state {
                State::Ready | State::Half { .. } => true,
                State::Failed { .. } => arguments.retry,
                _ => false,
            };
            let free = running.len() < workers && running.iter().all(|w| w.task != task);
            if may_begin && free && tried.insert(task) {
                running.push(begin(place, task, threads, arguments.retry)?);
                let described = study.describe(task);
                let verb = match state {
                    State::Half { .. } => "goes on",
                    _ => "began",
                };
                print(&format!("[{task}] {described}: {verb}\n"))?;
            }
        }
        let elsewhere = states.iter().enumerate().filter(|(task, state)| {
            matches!(state, State::Running(_)) && running.iter().all(|w| w.task != *task)
        });
        let elsewhere = elsewhere.count();
        if running.is_empty() && elsewhere == 0 {
            let left = states.iter().enumerate().filter(|(task, state)| {
                matches!(state, State::Ready | State::Half { .. }) && !tried.contains(task)
            });
            if left.count() == 0 {
                for (task, state) in states.iter().enumerate() {
                    // Of a task that failed just now that was said when it did.
                    if let State::Failed { reason, .. } = state
                        && !tried.contains(&task)
                    {
                        let described = study.describe(task);
                        print(&format!("[{task}] {described}: failed: {reason}\n"))?;
                    }
                }
                print(&format!("{}\n", summary(&states)))?;
                if states.iter().any(|s| matches!(s, State::Failed { .. })) {
                    print(
                        "hint: --retry goes on with failed tasks from their newest checkpoint, or runs them again\n",
                    )?;
                }
                // What was run here may be what others were started from before.
                for (task, state) in states.iter().enumerate() {
                    let anew = study.needs(task).is_some_and(|b| tried.contains(&b));
                    if *state == State::Finished && anew && !tried.contains(&task) {
                        place.refuse_other_settings(task)?;
                    }
                }
                let finished = states.iter().all(|s| *s == State::Finished);
                return Ok(if finished { 0 } else { exit::FAILED });
            }
        }
        if running.is_empty() && elsewhere > 0 && !std::mem::replace(&mut waits, true) {
            print(&format!(
                "waiting for runs of other processes ({elsewhere})\n"
            ))?;
        }
        if said.elapsed() > SAY {
            said = Instant::now();
            print(&format!("{}\n", summary(&states)))?;
        }
        std::thread::sleep(LOOK);
    }
}

/// Starts a task in a process of its own, whose words go to a file.
fn begin(place: &Place, task: usize, threads: usize, retry: bool) -> Result<Worker, CliError> {
    let path = place.folder.said(&place.study, task);
    let failed = |e: std::io::Error| CliError::Failed(format!("{}: {e}", path.display()));
    let said = File::options()
        .create(true)
        .append(true)
        .open(&path)
        .map_err(failed)?;
    let errors = said.try_clone().map_err(failed)?;
    let mut command = Command::new(program()?);
    command
        .arg("study")
        .arg(&place.study.file)
        .arg("--into")
        .arg(place.folder.path())
        .args(["--task", &task.to_string()])
        .stdin(Stdio::null())
        .stdout(said)
        .stderr(errors)
        .env("RAYON_NUM_THREADS", threads.to_string())
        .env("OMP_NUM_THREADS", threads.to_string());
    // A launcher's ranks are this process's, if anyone's: a task trains alone.
    for name in LAUNCHERS {
        command.env_remove(name);
    }
    if retry {
        command.arg("--retry");
    }
    // A group of its own: Ctrl-C comes to the study alone, which then asks its runs to stop.
    #[cfg(unix)]
    std::os::unix::process::CommandExt::process_group(&mut command, 0);
    let child = command.spawn().map_err(failed)?;
    Ok(Worker {
        task,
        child,
        began: Instant::now(),
    })
}

/// Says what ended runs came to.
fn reap(place: &Place, running: &mut Vec<Worker>) -> Result<(), CliError> {
    let mut ended = Vec::new();
    running.retain_mut(|worker| match worker.child.try_wait() {
        Ok(None) => true,
        _ => {
            ended.push((worker.task, worker.began.elapsed()));
            false
        }
    });
    for (task, time) in ended {
        let described = place.study.describe(task);
        let state = place.folder.state(&place.study, task);
        let came = match &state {
            State::Finished => {
                let manifest = place.folder.run(&place.study, task).manifest().ok();
                let test = manifest.and_then(|m| m.test_error);
                let test = test.map_or(String::new(), |e| {
                    format!(", test error {:.2} %", 100.0 * e)
                });
                format!("finished in {}{test}", duration(time.as_secs_f64()))
            }
            State::Failed { reason, .. } => format!("failed: {reason}"),
            state => {
                let said = place.folder.said(&place.study, task);
                let text = std::fs::read_to_string(&said).unwrap_or_default();
                let last = text
                    .lines()
                    .rev()
                    .find(|l| !l.trim().is_empty())
                    .unwrap_or_default();
                format!("{}: {} ({})", state.name(), printable(last), said.display())
            }
        };
        print(&format!("[{task}] {described}: {came}\n"))?;
    }
    Ok(())
}

/// Asks the runs to stop, each with a checkpoint, and waits for them.
fn stop(running: &mut Vec<Worker>) -> Result<(), CliError> {
    for worker in running.iter_mut() {
        if let Err(error) = crate::process::terminate(&mut worker.child) {
            tracing::warn!("task {}: {error}", worker.task);
        }
    }
    for mut worker in running.drain(..) {
        let waited = worker.child.wait();
        waited.map_err(|e| CliError::Failed(format!("task {}: {e}", worker.task)))?;
    }
    Ok(())
}

/// How many tasks are how far.
fn summary(states: &[State]) -> String {
    let count = |name: &str| states.iter().filter(|s| s.name() == name).count();
    let names = [
        "finished",
        "running",
        "half done",
        "to do",
        "waiting",
        "failed",
    ];
    let parts = names.iter().filter(|n| count(n) > 0);
    let parts: Vec<String> = parts.map(|n| format!("{} {n}", count(n))).collect();
    let tasks = if states.len() == 1 { "task" } else { "tasks" };
    format!("{} {tasks}: {}", states.len(), parts.join(", "))
}

/// What would run, how long it may take by what was measured, and how much disk.
fn dry_run(place: &Place, workers: usize) -> String {
    let study = &place.study;
    let states = place.states();
    let measured: Vec<Option<(f64, u64)>> = (0..states.len())
        .map(|task| (states[task] == State::Finished).then(|| measured(place, task))?)
        .collect();
    let mean = |of_cell: Option<usize>| {
        let chosen = measured.iter().enumerate().filter_map(|(task, m)| {
            let fits = of_cell.is_none_or(|cell| study.tasks[task].cell == cell);
            m.filter(|_| fits)
        });
        let chosen: Vec<(f64, u64)> = chosen.collect();
        let count = chosen.len();
        (count > 0).then(|| {
            let seconds = chosen.iter().map(|m| m.0).sum::<f64>() / count as f64;
            (
                seconds,
                chosen.iter().map(|m| m.1).sum::<u64>() / count as u64,
            )
        })
    };
    let mut out = format!("{}: {}\n", study.name, place.folder.path().display());
    let (mut seconds, mut bytes, mut unknown) = (0.0, 0, 0);
    for (task, state) in states.iter().enumerate() {
        // A cell's own time, or else that of the others.
        let expected = mean(Some(study.tasks[task].cell)).or(mean(None));
        let time = match (state, expected) {
            (State::Waiting(_), _) if is_blocked(&states, task) => {
                "starts from a run that failed".into()
            }
            (State::Finished, _) => {
                measured[task].map_or(String::new(), |m| format!("took {}", duration(m.0)))
            }
            (State::Failed { reason, .. }, _) => reason.clone(),
            (_, Some((s, b))) => {
                (seconds, bytes) = (seconds + s, bytes + b);
                format!("about {}", duration(s))
            }
            (_, None) => {
                unknown += 1;
                String::new()
            }
        };
        let other = place.other_settings(task).unwrap_or_default();
        let time = match other.is_empty() {
            true => time,
            false => format!(
                "REFUSED: recorded with other settings: {}",
                other.join(", ")
            ),
        };
        out += &format!(
            "{task:>4}  {:<10} {:<48} {time}\n",
            state.name(),
            study.describe(task)
        );
    }
    out += &format!("{}\n", summary(&states));
    if unknown > 0 {
        out += "how long they take is known once the first is finished\n";
    } else if seconds > 0.0 {
        out += &format!(
            "left: about {} with {workers} {}, {:.1} MB of disk\n",
            duration(seconds / workers as f64),
            if workers == 1 { "worker" } else { "workers" },
            bytes as f64 / 1e6
        );
    }
    out
}

/// Whether a task waits for one that failed, or for one that does.
fn is_blocked(states: &[State], mut task: usize) -> bool {
    while let State::Waiting(before) = &states[task] {
        task = *before;
    }
    matches!(states[task], State::Failed { .. })
}

/// Seconds and bytes of a finished run.
fn measured(place: &Place, task: usize) -> Option<(f64, u64)> {
    let run = place.folder.run(&place.study, task);
    let history = History::from_log(&run.log(), None).ok()?;
    let seconds = history[Quantity::Seconds].newest()?;
    Some((seconds.into(), size(run.path())))
}

/// Bytes of a folder with all that is in it.
fn size(folder: &Path) -> u64 {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let sizes = entries.map(|entry| match entry.metadata() {
        Ok(data) if data.is_dir() => size(&entry.path()),
        Ok(data) => data.len(),
        Err(_) => 0,
    });
    sizes.sum()
}

/// `bitscope report`.
pub(crate) fn report(arguments: &ReportArguments) -> Result<u8, CliError> {
    let place = Place::find(&arguments.study, arguments.into.as_deref())?;
    // What can be shown is shown; that it is of something else has to be said.
    let mut warnings = Vec::new();
    for task in 0..place.study.tasks.len() {
        match place.other_settings(task) {
            Ok(other) if other.is_empty() => {}
            Ok(other) => warnings.push(format!(
                "{} was recorded with other settings: {}",
                place.study.describe(task),
                other.join(", ")
            )),
            Err(error) => warnings.push(error.to_string()),
        }
    }
    for warning in &warnings {
        let _ = writeln!(std::io::stderr(), "warning: {}", printable(warning));
    }
    let mut report =
        Report::read(place.study, &place.folder).map_err(|e| CliError::Failed(e.to_string()))?;
    report.warnings = warnings;
    if let Some(folder) = &arguments.figures {
        let failed =
            |e: &dyn std::fmt::Display| CliError::Failed(format!("{}: {e}", folder.display()));
        std::fs::create_dir_all(folder).map_err(|e| failed(&e))?;
        for (name, figure) in figures(&report) {
            let panels = figure.panels.len() as u32;
            let format = Format::pixels(1400, (600 * panels).clamp(800, 6000));
            for extension in ["png", "pdf", "csv"] {
                let path = folder.join(format!("{name}.{extension}"));
                figure::export(&figure, &path, arguments.theme, format, &[])
                    .map_err(|e| failed(&e))?;
            }
        }
    }
    print(&report.text(arguments.format)).map(|()| 0)
}
