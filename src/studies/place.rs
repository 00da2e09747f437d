//! A study with its folder, and what its tasks are asked for.

use std::path::Path;

use crate::experiment::{Diagnostics, Loaded};
use crate::face::{self, CliError};
use crate::run::RunFolder;
use crate::study::{State, Study, StudyError, StudyFolder, differences, seeded};
use crate::training::Checkpoint;

/// A study with its folder.
pub(super) struct Place {
    pub(super) study: Study,
    pub(super) folder: StudyFolder,
}

impl Place {
    pub(super) fn find(path: &Path, into: Option<&Path>) -> Result<Self, CliError> {
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
        if let Some(into) = into.filter(|into| into.to_str().is_none()) {
            let text = format!(
                "{}: not UTF-8; runs record their paths as text",
                into.display()
            );
            return Err(CliError::Usage(text));
        }
        let folder = match (into, own) {
            (Some(into), _) => {
                let folder = StudyFolder::at(into);
                if let Ok(there) = folder.study()
                    && there.name != study.name
                {
                    let text = format!(
                        "{} is of the study \"{}\" ({}); expected another folder for \"{}\"",
                        into.display(),
                        there.name,
                        there.file.display(),
                        study.name
                    );
                    return Err(CliError::Usage(text));
                }
                folder
            }
            (None, Some(own)) => own,
            (None, None) => StudyFolder::at(&Path::new("studies").join(&study.name)),
        };
        Ok(Self { study, folder })
    }

    pub(super) fn states(&self) -> Vec<State> {
        let tasks = 0..self.study.tasks.len();
        tasks.map(|t| self.folder.state(&self.study, t)).collect()
    }

    /// How far the tasks are now; what is finished stays so, and is not read again.
    pub(super) fn look_again(&self, states: &mut [State]) {
        for (task, state) in states.iter_mut().enumerate() {
            if *state != State::Finished {
                *state = self.folder.state(&self.study, task);
            }
        }
    }

    /// The experiment of a task, checked; `start` is the run that it starts from.
    pub(super) fn load(&self, task: usize, start: Option<&Path>) -> Result<Loaded, CliError> {
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
    pub(super) fn other_settings(&self, task: usize) -> Result<Vec<String>, CliError> {
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
    pub(super) fn refuse_other_settings(&self, task: usize) -> Result<(), CliError> {
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

    /// Whether a task in that state goes on from a checkpoint of its own.
    pub(super) fn goes_on(&self, task: usize, state: &State) -> bool {
        state.may_go_on() && self.folder.run(&self.study, task).start().is_some()
    }

    /// The run that a task starts from.
    pub(super) fn start(&self, task: usize) -> Option<RunFolder> {
        let before = self.study.needs(task)?;
        Some(self.folder.run(&self.study, before))
    }

    /// Every cell's experiment, and the network of those that have runs to do, before anything runs: a
    /// study that fails at its last cell after a night would be worth little.
    pub(super) fn check(&self) -> Result<(), CliError> {
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

    /// Writes down which study the folder is of.
    pub(super) fn write_down(&self) -> Result<(), CliError> {
        let failed = |e| CliError::Failed(format!("{}: {e}", self.folder.path().display()));
        self.folder.keep(&self.study).map_err(failed)
    }
}

/// How many tasks are how far.
pub(super) fn summary(states: &[State]) -> String {
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
