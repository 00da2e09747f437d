//! All tasks that are left, each in a process of its own.

use std::collections::BTreeSet;
use std::fs::File;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::place::{Place, summary};
use crate::experiment::printable;
use crate::face::{self, CliError, duration, exit, print};
use crate::kernels::ranks::LAUNCHERS;
use crate::study::State;

/// How often the study looks what has changed.
const LOOK: Duration = Duration::from_millis(200);
/// How often it says how far it is where nobody watches a terminal.
const SAY: Duration = Duration::from_secs(60);

/// A task in a process of its own.
struct Worker {
    task: usize,
    child: Child,
    began: Instant,
}

/// Runs all that is left, so many at a time.
pub(super) fn all(place: &Place, workers: usize, retry: bool) -> Result<u8, CliError> {
    let interrupted = face::interrupt_flag()?;
    place.write_down()?;
    let study = &place.study;
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let threads = (cores / workers).max(1);
    let mut states = place.states();
    let mut tried: BTreeSet<usize> = BTreeSet::new();
    let mut running = Workers(Vec::new());
    let mut said = Instant::now();
    let mut waits = false;
    print(&format!(
        "recording to {}\n",
        printable(&place.folder.path().display().to_string())
    ))?;
    loop {
        if interrupted.load(Ordering::Relaxed) {
            running.reap(place)?;
            running.stop();
            print(&format!("stopped; {}\n", summary(&place.states())))?;
            return Ok(exit::INTERRUPTED);
        }
        for lost in running.reap(place)? {
            // Another process was quicker, and may not come to its end.
            tried.remove(&lost);
        }
        place.look_again(&mut states);
        for (task, state) in states.iter().enumerate() {
            let may_begin = match state {
                State::Ready | State::Half { .. } => true,
                State::Failed { .. } => retry,
                _ => false,
            };
            let free = running.0.len() < workers && !running.have(task);
            if may_begin && free && tried.insert(task) {
                running.0.push(begin(place, task, threads, retry)?);
                let described = study.describe(task);
                let verb = match state {
                    State::Half { .. } => "goes on",
                    _ => "began",
                };
                print(&format!("[{task}] {described}: {verb}\n"))?;
            }
        }
        let elsewhere = states
            .iter()
            .enumerate()
            .filter(|(task, state)| matches!(state, State::Running(_)) && !running.have(*task));
        let elsewhere = elsewhere.count();
        if running.0.is_empty() && elsewhere == 0 {
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
        if running.0.is_empty() && elsewhere > 0 && !std::mem::replace(&mut waits, true) {
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

/// This program's own file.
pub(super) fn program() -> Result<PathBuf, CliError> {
    std::env::current_exe().map_err(|e| CliError::Failed(format!("this program's own file: {e}")))
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
        .arg(place.folder.source(&place.study))
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

/// The runs of this process. None is left behind, whatever ends it.
struct Workers(Vec<Worker>);

impl Drop for Workers {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Workers {
    fn have(&self, task: usize) -> bool {
        self.0.iter().any(|w| w.task == task)
    }

    /// Asks the runs to stop, each with a checkpoint, and waits for them.
    fn stop(&mut self) {
        let told = |worker: &Worker, outcome: std::io::Result<()>| {
            if let Err(error) = outcome {
                tracing::warn!("task {}: {error}", worker.task);
            }
        };
        for worker in &mut self.0 {
            let asked = crate::process::terminate(&mut worker.child);
            told(worker, asked);
        }
        for mut worker in self.0.drain(..) {
            let ended = worker.child.wait().map(drop);
            told(&worker, ended);
        }
    }

    /// Says what ended runs came to. Returns those tasks that another process has.
    fn reap(&mut self, place: &Place) -> Result<Vec<usize>, CliError> {
        let mut ended = Vec::new();
        self.0.retain_mut(|worker| match worker.child.try_wait() {
            Ok(None) => true,
            status => {
                let code = status.ok().flatten().and_then(|s| s.code());
                ended.push((worker.task, worker.began.elapsed(), code));
                false
            }
        });
        let mut lost = Vec::new();
        for (task, time, code) in ended {
            let described = place.study.describe(task);
            let state = place.folder.state(&place.study, task);
            if matches!(state, State::Running(_)) {
                lost.push(task);
            }
            let came = came_to(place, task, state, time, code);
            print(&format!("[{task}] {described}: {came}\n"))?;
        }
        Ok(lost)
    }
}

/// What a process that has ended came to, in words.
fn came_to(place: &Place, task: usize, state: State, time: Duration, code: Option<i32>) -> String {
    match state {
        State::Finished => {
            let manifest = place.folder.run(&place.study, task).manifest().ok();
            let test = manifest.and_then(|m| m.test_error);
            let test = test.map_or(String::new(), |e| {
                format!(", test error {:.2} %", 100.0 * e)
            });
            format!("finished in {}{test}", duration(time.as_secs_f64()))
        }
        // (One that was refused is as it was.)
        State::Failed { reason, .. } if code != Some(exit::USAGE.into()) => {
            format!("failed: {reason}")
        }
        state => {
            let said = place.folder.said(&place.study, task);
            let text = std::fs::read_to_string(&said).unwrap_or_default();
            let mut lines = text.lines().rev();
            let last = lines.find(|l| !l.trim().is_empty()).unwrap_or_default();
            format!("{}: {} ({})", state.name(), printable(last), said.display())
        }
    }
}
