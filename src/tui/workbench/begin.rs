//! How a workbench begins: on a run that it trains, or on one that it looks at.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;

use super::{Workbench, layout_file};
use crate::experiment::{Loaded, Saved, Watcher, merged};
use crate::face::{Begin, CliError, Run};
use crate::run::{Feed, History, RunFolder};
use crate::training::Origin;
use crate::tui::app::{App, Role};
use crate::tui::lifeline::Lifeline;

impl Workbench {
    pub(in crate::tui) fn start(loaded: Loaded, run: &Run, begin: Begin) -> Result<Self, CliError> {
        let mut run = watched(run, &begin);
        let setup = run.setup(&loaded, begin)?;
        if matches!(setup.origin, Origin::Fork { .. }) && run.experiment.is_none() {
            // Without a file of its user's the child has its own copy.
            run.experiment = Some(setup.folder.experiment());
        }
        let mut workbench = Self::on(&loaded, &run, &setup.folder);
        if setup.origin == Origin::Resume {
            say_reading(&setup.folder);
            workbench.app.load_history();
            // It goes on at once: what is asked for until it says so is for a run that trains.
            workbench.app.shown.history.end = None;
        }
        workbench.watch_file(&loaded);
        workbench.train(setup);
        Ok(workbench)
    }

    /// Without a session: what happens comes from the log alone.
    pub(in crate::tui) fn looking(loaded: &Loaded, run: &Run, folder: &RunFolder) -> Self {
        let mut workbench = Self::on(loaded, run, folder);
        workbench.app.shown.role = Role::Watching;
        workbench
    }

    /// Shows a run as its log grows, until its user leaves.
    pub(in crate::tui) fn look_on(mut self, folder: &RunFolder) -> Result<u8, CliError> {
        self.follow(folder);
        let code = self.on_screen();
        self.stop_following.store(true, Ordering::Relaxed);
        let code = code?;
        self.keep_layout();
        Ok(code)
    }

    /// Shows what the log's summary holds, and takes in what comes behind it.
    pub(super) fn follow(&mut self, folder: &RunFolder) {
        let (history, position) = History::from_summary(&folder.log());
        if position.is_some() {
            self.app.shown.history = history;
        }
        let stop = self.stop_following.clone();
        crate::recorded::follow_into(folder, self.feed.clone(), stop, position);
    }

    /// A screen for a run, with the look of the last one, before anything drives it.
    fn on(loaded: &Loaded, run: &Run, folder: &RunFolder) -> Self {
        let mut app = App::new(
            loaded,
            run.experiment.clone(),
            folder.clone(),
            run.runs.clone(),
            run.set.clone(),
        );
        // A look that cannot be read is no reason to fail: the default one serves.
        let layout = std::fs::read_to_string(layout_file(&run.runs)).ok();
        if let Some(layout) = layout.and_then(|text| toml::from_str(&text).ok()) {
            app.restore(layout);
        }
        if let Some(colours) = run.screen.color {
            app.palette.colours = colours;
        }
        if let Some(marker) = run.screen.marker {
            app.palette.marker = marker;
        }
        Self {
            app,
            run: run.clone(),
            session: None,
            #[cfg(unix)]
            controls: None,
            detaching: false,
            began: 0,
            feed: Feed::default(),
            saved: mpsc::channel().1,
            exported: mpsc::channel(),
            previews: mpsc::channel(),
            lifeline: Lifeline::default(),
            watcher: None,
            stop_following: Arc::new(AtomicBool::new(false)),
        }
    }

    /// Watches the experiment file, where there is one.
    pub(in crate::tui) fn watch_file(&mut self, loaded: &Loaded) {
        let Some(path) = &self.run.experiment else {
            return;
        };
        let mut files = loaded.files.clone();
        if !files.contains(path) {
            // A recorded run has a copy of its own; the file it came from may have changed since.
            files = match crate::experiment::load(path, &self.run.set) {
                Ok(now) => {
                    let files = now.files.clone();
                    self.app.compare_with_file(now);
                    files
                }
                Err(diagnostics) => {
                    self.app.saved(Saved::Broken(diagnostics));
                    vec![path.clone()]
                }
            };
        }
        let (sender, saved) = mpsc::channel();
        self.saved = saved;
        let set = self.run.set.clone();
        let watcher = Watcher::start(path, set, files, move |s| {
            // A closed receiver means that the workbench is going away.
            let _ = sender.send(s);
        });
        match watcher {
            Ok(watcher) => self.watcher = Some(watcher),
            Err(error) => {
                let text = format!("the experiment file is not being watched: {error}");
                self.app.warn(text);
            }
        }
    }
}

/// The same with the file that a recorded run came from, where it is still there, and what was set over
/// it: that is what its user edits, not the run's own copy.
fn watched(run: &Run, begin: &Begin) -> Run {
    let recorded = match begin {
        Begin::New => return run.clone(),
        Begin::Resume(folder) => Some(folder.clone()),
        Begin::Fork { checkpoint, .. } => RunFolder::of_checkpoint(checkpoint),
    };
    let Some(manifest) = recorded.and_then(|folder| folder.manifest().ok()) else {
        return run.clone();
    };
    let set = merged(&manifest.set, &run.set);
    match manifest.source.filter(|path| path.is_file()) {
        Some(source) => Run {
            experiment: Some(source),
            set,
            ..run.clone()
        },
        None => run.clone(),
    }
}

/// Says on the terminal, before the screen is there, that a long log takes a moment.
fn say_reading(folder: &RunFolder) {
    const LONG: u64 = 32 << 20;
    let length = folder.unread();
    if length > LONG {
        let (log, megabytes) = (folder.log(), length >> 20);
        let _ = writeln!(io::stdout(), "reading {} ({megabytes} MB)", log.display());
    }
}
