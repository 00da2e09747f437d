//! The run on the screen: commands to whoever trains it, another one in its place, its end.

use std::ffi::OsStr;
use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
#[cfg(unix)]
use std::time::{Duration, Instant};

use super::Workbench;
use crate::experiment::Loaded;
use crate::face::{Begin, CliError};
#[cfg(unix)]
use crate::run::RunLock;
#[cfg(unix)]
use crate::run::control::{Controls, Request};
use crate::run::{Command, Feed, Parent, RunFolder};
use crate::training::{NOT_SAVED, Session, Setup};
use crate::tui::app::{Page, Role};
use crate::tui::lifeline::Held;

impl Workbench {
    pub(super) fn train(&mut self, setup: Setup) {
        // A new feed: what an earlier run still says goes to the old one.
        self.feed = Feed::default();
        let feed = self.feed.clone();
        let over = Arc::new(AtomicBool::new(false));
        let session = Session::start(setup, {
            let over = over.clone();
            move |event| {
                let last = event.is_last();
                feed.push(event);
                over.fetch_or(last, Ordering::Relaxed);
            }
        });
        self.lifeline.hold(Held {
            commands: session.commands(),
            prepared: session.prepared(),
            over,
        });
        self.session = Some(session);
    }

    /// Asks the process that trains the run through these.
    #[cfg(unix)]
    pub(in crate::tui) fn steer_with(&mut self, controls: Controls) {
        self.app.shown.role = Role::Attached;
        self.controls = Some(controls);
    }

    /// Passes a command on to whoever trains.
    pub(super) fn send(&mut self, command: Command) {
        if let Some(session) = &self.session {
            session.send(command);
            return;
        }
        #[cfg(unix)]
        if let Some(controls) = &mut self.controls
            && let Err(error) = pass_on(controls, &self.app.shown.folder, &command)
        {
            self.app.warn(format!("not passed on: {error}"));
            if !matches!(error.kind(), io::ErrorKind::Other) {
                // The connection is gone; the run is not.
                self.controls = None;
                self.app.shown.role = Role::Watching;
            }
        }
    }

    /// Shows a recorded run instead of one that ended, or that another process trains.
    pub(super) fn open(&mut self, folder: RunFolder) {
        let text = match crate::files::read_text(&folder.experiment()) {
            Ok(text) => text,
            Err(error) => return self.app.warn(format!("not opened: {error}")),
        };
        let name = folder.experiment().display().to_string();
        let loaded = match crate::experiment::load_embedded(&name, &text, &Vec::new()) {
            Ok(loaded) => loaded,
            Err(_) => {
                let text = format!("not opened: {name} is not an experiment of this version");
                return self.app.warn(text);
            }
        };
        self.session = None;
        #[cfg(unix)]
        {
            self.controls = None;
        }
        self.stop_following.store(true, Ordering::Relaxed);
        self.stop_following = Arc::new(AtomicBool::new(false));
        self.feed = Feed::default();
        self.app.adopt(&loaded, folder.clone());
        self.app.shown.role = Role::Watching;
        self.follow(&folder);
        self.app.go_to(Page::Overview);
    }

    /// Ends the run on the screen with a checkpoint and starts another: from scratch, or as a fork from one
    /// of its checkpoints, the newest at or before a step, or the newest of all.
    pub(super) fn new_run(&mut self, loaded: Loaded, fork: Option<Option<u64>>) {
        if let Some(session) = self.session.take() {
            session.stop();
        }
        let old = self.app.shown.folder.clone();
        let checkpoint = fork.and_then(|step| {
            let (checkpoint, damaged) = crate::face::checkpoint::checkpoint_at(&old, step);
            damaged
                .into_iter()
                .for_each(|problem| self.app.warn(problem));
            checkpoint
        });
        if fork.is_some() && checkpoint.is_none() {
            self.app.warn(format!(
                "{} has no checkpoint to go on from: the new run starts anew",
                old.label()
            ));
        }
        let begin = match checkpoint {
            Some((step, checkpoint)) => Begin::Fork {
                checkpoint,
                parent: Parent {
                    run: old.label(),
                    step,
                },
            },
            None => Begin::New,
        };
        match self.run.setup(&loaded, begin) {
            Ok(setup) => {
                self.app.adopt(&loaded, setup.folder.clone());
                self.train(setup);
            }
            Err(error) => self.app.warn(format!("no new run: {error}")),
        }
    }

    /// Ends the run with this process, or leaves it to another one where that was asked for.
    pub(in crate::tui) fn leave(self, code: u8) -> Result<u8, CliError> {
        match self.detaching {
            true => self.detach(),
            false => self.close(code),
        }
    }

    /// Leaves the run to a process of its own, which goes on from a checkpoint written here.
    fn detach(mut self) -> Result<u8, CliError> {
        if let Some(session) = self.session.take() {
            session.stop();
        }
        self.keep_layout();
        let folder = self.app.shown.folder.clone();
        let path = std::path::absolute(folder.path()).unwrap_or(folder.path().to_owned());
        let mut arguments = vec!["resume".as_ref(), path.as_os_str(), "--plain".as_ref()];
        let taken = self.app.shown.history.step().saturating_sub(self.began);
        let left = self
            .run
            .steps
            .map(|steps| steps.saturating_sub(taken).max(1));
        let left = left.map(|left| left.to_string());
        if let Some(left) = &left {
            arguments.extend(["--steps".as_ref(), OsStr::new(left)]);
        }
        if self.app.shown.history.paused {
            arguments.push("--paused".as_ref());
        }
        let pid = crate::detached::start(&folder, &arguments)?;
        crate::detached::announce(&folder, pid)?;
        Ok(0)
    }

    /// Stops the run (a checkpoint is written) after the terminal is restored; the exit code.
    fn close(mut self, code: u8) -> Result<u8, CliError> {
        let ran = self.session.is_some() && self.app.shown.history.end.is_none();
        if let Some(session) = self.session.take() {
            session.stop();
        }
        self.keep_layout();
        let folder = self.app.shown.folder.path().display().to_string();
        // Whoever closed standard output does not want to know.
        let _ = crate::face::print(&format!("recorded in {folder}\n"));
        let (events, _) = self.feed.take();
        for event in &events {
            match event.as_ref() {
                crate::run::Event::Failed { message, .. } if ran => {
                    return Err(CliError::Failed(message.clone()));
                }
                crate::run::Event::Warning { message, .. } if message.starts_with(NOT_SAVED) => {
                    // Standard error may have gone with the terminal.
                    let _ = writeln!(io::stderr(), "warning: {message}");
                }
                _ => {}
            }
        }
        Ok(code)
    }
}

/// For how long a run that goes from one process to the next may have no one who listens.
#[cfg(unix)]
const HANDOVER: Duration = Duration::from_secs(2);

/// Asks whoever trains a run; a run that went on in another process meanwhile is asked there.
#[cfg(unix)]
fn pass_on(controls: &mut Controls, folder: &RunFolder, command: &Command) -> io::Result<()> {
    let request = Request::of(command);
    let gone = match controls.ask(&request) {
        Err(error) if error.kind() != io::ErrorKind::Other => error,
        outcome => return outcome,
    };
    let began = Instant::now();
    loop {
        match Controls::take(folder.path()) {
            Ok(taken) => {
                *controls = taken;
                return controls.ask(&request);
            }
            // (Who owns it listens in a moment.)
            Err(_) if began.elapsed() < HANDOVER && RunLock::holder(folder.path()).is_some() => {
                std::thread::sleep(Duration::from_millis(20));
            }
            Err(_) => return Err(gone),
        }
    }
}
