//! `bitscope study` and `bitscope report`: many runs on this machine, or one of them at a time where a
//! scheduler starts it.

use std::path::PathBuf;

use clap::Args;

use self::dry_run::dry_run;
use self::place::Place;
pub(crate) use self::report::{ReportArguments, report};
use self::workers::{all, program};
use crate::face::{self, Begin, CliError, Output, Run, Screen, exit, print};
use crate::headless;
use crate::kernels::ranks::Group;
use crate::run::RunFolder;
use crate::study::{Scheduler, State, moved, script, seeded};
use crate::training::Checkpoint;

mod dry_run;
mod place;
mod report;
mod workers;

/// Variables in which schedulers say which task of an array they start.
const TASK_VARIABLES: [&str; 2] = ["SLURM_ARRAY_TASK_ID", "HQ_TASK_ID"];
/// What `bitscope study` is asked for.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// The study's file, or its folder
    study: PathBuf,
    /// Where its runs are recorded (default: studies/NAME)
    #[arg(long, value_name = "DIR")]
    into: Option<PathBuf>,
    /// Runs at a time, by default 1; the cores are shared out among them
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    workers: Option<u16>,
    /// Run only the K-th task, counted from 0 (default: SLURM_ARRAY_TASK_ID or HQ_TASK_ID, where one is set
    /// and --workers is not given)
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
    #[arg(long, conflicts_with = "plan")]
    retry: bool,
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
    let workers = usize::from(arguments.workers.unwrap_or(1));
    if arguments.dry_run {
        place.check()?;
        return print(&dry_run(&place, workers, arguments.retry)).map(|()| 0);
    }
    let task = match (arguments.task, arguments.workers) {
        (None, None) => task_of_scheduler()?,
        (task, _) => task,
    };
    if let Some(task) = task {
        return one(&place, task, arguments.retry);
    }
    place.check()?;
    for (task, state) in place.states().iter().enumerate() {
        // (Whoever changes what failed may have mended it: the task itself looks.)
        let failed = matches!(state, State::Failed { .. });
        if *state == State::Finished || !failed && place.goes_on(task, state) {
            place.refuse_other_settings(task)?;
        }
    }
    all(&place, workers, arguments.retry)
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

/// Runs one task in this process, where there is something to do.
fn one(place: &Place, task: usize, retry: bool) -> Result<u8, CliError> {
    let study = &place.study;
    if task >= study.tasks.len() {
        let last = study.tasks.len() - 1;
        let text = format!("task {task}: {} has tasks 0 to {last}", study.name);
        return Err(CliError::Usage(text));
    }
    place.write_down()?;
    let described = study.describe(task);
    let folder = place.folder.run(study, task);
    let state = place.folder.state(study, task);
    let goes_on = place.goes_on(task, &state);
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
    if let (Some(from), Begin::New) = (&start, &begin)
        && let Some(Err(error)) = from.start().map(|path| Checkpoint::open(&path))
    {
        return Err(CliError::Failed(format!(
            "{described}: {error}; hint: remove the folder {} to train that run again",
            from.path().display()
        )));
    }
    let wanted = place.load(task, start.as_ref().map(RunFolder::path))?;
    let of = study.tasks[task];
    let cell = &study.cells[of.cell];
    let screen = Screen {
        fps: 30,
        color: None,
        marker: None,
    };
    let mut run = Run {
        experiment: cell.experiment.clone(),
        set: seeded(cell, of.seed, start.as_ref().map(RunFolder::path)),
        into: Some(folder.path().to_owned()),
        ..Run::recorded_in(place.folder.runs(), screen)
    };
    let output = Output {
        json: false,
        plain: true,
    };
    let loaded = match &begin {
        Begin::Resume(folder) => {
            let recorded = face::load_recorded(folder, &Vec::new())?;
            let (was, is) = (&recorded.experiment.values, &wanted.experiment.values);
            run.set = moved(was, is);
            run.experiment = Some(folder.experiment());
            face::load_recorded(folder, &run.set)?
        }
        _ => {
            let folders = std::fs::create_dir_all(folder.checkpoints());
            folders.map_err(|e| CliError::Failed(format!("{}: {e}", folder.path().display())))?;
            wanted
        }
    };
    let code = headless::train(&loaded, &run, output, begin, &Group::default())?;
    // Who waits for this task must not take one that was stopped for one that is done.
    let is_done = place.folder.state(study, task) == State::Finished;
    Ok(if code == 0 && !is_done {
        exit::INTERRUPTED
    } else {
        code
    })
}
