//! The workbench: a screen over a training thread.
//!
//! Model, messages, update, views: `app::App` holds what is known, `keymap` is the one table
//! behind dispatch and help, `view` paints, `terminal` guards the terminal's state. The only door
//! is `run`. No tensor is touched here: everything shown comes from the run's [`History`].
//!
//! [`History`]: crate::run::History

mod app;
mod bench;
mod capture;
mod detail;
mod export;
mod keymap;
mod lifeline;
mod microscope;
mod palette;
mod preview;
mod system;
mod terminal;
mod toy;
mod view;

use std::ffi::OsStr;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver};
use std::time::{Duration, Instant};

use ratatui::crossterm::event::{self, Event as Input, KeyEventKind};

use app::{App, Effect, Role};
pub(crate) use bench::{bench_frames, bench_open};
use export::{write_figure, write_screen};
use lifeline::{Held, Lifeline};
use terminal::{Screen, Signals};

use crate::experiment::{Loaded, Saved, Watcher, merged};
use crate::export::Format;
use crate::face::{Begin, CliError, Run, exit};
#[cfg(unix)]
use crate::run::control::{Controls, Request};
use crate::run::{Command, Feed, Parent, RunFolder};
use crate::training::{NOT_SAVED, Origin, Session, Setup};

/// Opens the workbench and trains.
pub(crate) fn run(loaded: Loaded, run: &Run, begin: Begin) -> Result<u8, CliError> {
    let mut workbench = Workbench::start(loaded, run, begin)?;
    let code = workbench.on_screen()?;
    if workbench.detaching {
        return workbench.detach();
    }
    workbench.close(code)
}

/// Opens the workbench on a run that another process trains, with its controls: leaving it leaves the
/// run to go on.
#[cfg(unix)]
pub(crate) fn attach(
    loaded: &Loaded,
    run: &Run,
    folder: &RunFolder,
    controls: Controls,
) -> Result<u8, CliError> {
    let mut workbench = Workbench::looking(loaded, run, folder);
    workbench.app.shown.role = Role::Attached;
    workbench.watch_file(loaded);
    workbench.controls = Some(controls);
    let from = workbench.begin_with_summary(folder);
    let stop = workbench.stop_following.clone();
    crate::recorded::follow_into(folder, workbench.feed.clone(), stop, from);
    let code = workbench.on_screen();
    workbench.stop_following.store(true, Ordering::Relaxed);
    let code = code?;
    workbench.keep_layout();
    Ok(code)
}

/// Opens the workbench on a run that trains elsewhere, or ended: it looks and changes nothing.
pub(crate) fn watch(loaded: &Loaded, run: &Run, folder: &RunFolder) -> Result<u8, CliError> {
    let mut workbench = Workbench::looking(loaded, run, folder);
    let from = workbench.begin_with_summary(folder);
    let stop = workbench.stop_following.clone();
    crate::recorded::follow_into(folder, workbench.feed.clone(), stop, from);
    let code = workbench.on_screen();
    workbench.stop_following.store(true, Ordering::Relaxed);
    let code = code?;
    workbench.keep_layout();
    Ok(code)
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

/// The app with everything it drives.
struct Workbench {
    app: App,
    run: Run,
    session: Option<Session>,
    /// Of a run that another process trains.
    #[cfg(unix)]
    controls: Option<Controls>,
    /// Whether the run is to go on in a process of its own.
    detaching: bool,
    /// Step that this process began at.
    began: u64,
    feed: Feed,
    saved: Receiver<Saved>,
    exported: (mpsc::Sender<String>, Receiver<String>),
    previews: (mpsc::Sender<PreviewResult>, Receiver<PreviewResult>),
    lifeline: Lifeline,
    watcher: Option<Watcher>,
    /// Ends the thread that follows another process's log.
    stop_following: Arc<AtomicBool>,
}

impl Workbench {
    fn start(loaded: Loaded, run: &Run, begin: Begin) -> Result<Self, CliError> {
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
    fn looking(loaded: &Loaded, run: &Run, folder: &RunFolder) -> Self {
        let mut workbench = Self::on(loaded, run, folder);
        workbench.app.shown.role = Role::Watching;
        workbench
    }

    /// Shows what the log's summary holds; returns where the log is to be followed from.
    fn begin_with_summary(&mut self, folder: &RunFolder) -> Option<u64> {
        let (history, position) = crate::run::History::from_summary(&folder.log());
        if position.is_some() {
            self.app.shown.history = history;
        }
        position
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
    fn watch_file(&mut self, loaded: &Loaded) {
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

    /// Passes a command on to whoever trains.
    fn send(&mut self, command: Command) {
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

    /// Takes the terminal, and gives it back whatever happens.
    fn on_screen(&mut self) -> Result<u8, CliError> {
        let failed = |e: io::Error| CliError::Failed(format!("terminal: {e}"));
        let signals = Signals::register().map_err(failed)?;
        self.lifeline.watch(signals.termination_flag());
        let mut screen = Screen::enter().map_err(failed)?;
        let outcome = self.main_loop(&mut screen, &signals);
        screen.leave().map_err(failed)?;
        drop(screen);
        outcome.map_err(failed)
    }

    fn train(&mut self, setup: Setup) {
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

    fn main_loop(&mut self, screen: &mut Screen, signals: &Signals) -> io::Result<u8> {
        let period = Duration::from_secs(1) / u32::from(self.run.screen.fps);
        if !self.app.mouse_is_taken {
            screen.mouse(false)?;
        }
        let mut next_frame = Instant::now();
        let mut dirty = true;
        loop {
            if let Some(signal) = signals.termination() {
                tracing::info!("ended by signal {signal}");
                return Ok(exit::INTERRUPTED);
            }
            if signals.resumed() {
                screen.reenter()?;
                dirty = true;
            }
            let wait = next_frame.saturating_duration_since(Instant::now());
            if event::poll(wait)? {
                // Everything that waits is taken before the next frame: a paste of a megabyte
                // costs one frame, not a thousand.
                loop {
                    let input = event::read()?;
                    for effect in self.input(input, screen)? {
                        if let Some(code) = self.perform(effect, screen)? {
                            return Ok(code);
                        }
                    }
                    dirty = true;
                    if !event::poll(Duration::ZERO)? || Instant::now() > next_frame + period {
                        break;
                    }
                }
            }
            dirty |= self.receive(screen)?;
            if Instant::now() >= next_frame {
                next_frame = Instant::now() + period;
                if std::mem::take(&mut dirty) {
                    self.app.prepare(screen.size()?.width);
                    screen.draw(|frame| view::draw(&self.app, frame))?;
                }
            }
        }
    }

    fn input(&mut self, input: Input, screen: &mut Screen) -> io::Result<Vec<Effect>> {
        Ok(match input {
            Input::Key(key) if key.kind != KeyEventKind::Release => self.app.key(key),
            Input::Mouse(event) => self.app.mouse(event),
            Input::Paste(text) => {
                self.app.paste(&text);
                Vec::new()
            }
            Input::Resize(..) => {
                screen.resized()?;
                Vec::new()
            }
            _ => Vec::new(),
        })
    }

    /// Takes in what training, watcher and exports have to say; `true` if the screen changes.
    fn receive(&mut self, screen: &mut Screen) -> io::Result<bool> {
        let (events, lost) = self.feed.take();
        let mut changed = !events.is_empty() | self.app.message_is_over();
        let newest = |app: &App| app.shown.history.messages.back().cloned();
        let before = newest(&self.app);
        if lost {
            self.app.load_history();
        } else {
            for event in &events {
                self.app.shown.history.push(event);
                if let crate::run::Event::Started { step, .. } = event.as_ref() {
                    self.began = *step;
                }
                if matches!(event.as_ref(), crate::run::Event::Checkpoint { .. }) {
                    self.app.microscope.refresh(&self.app.shown.folder);
                }
            }
        }
        if newest(&self.app) != before {
            self.app.notices.said = Some(Instant::now());
        }
        changed |= self.app.look_closely();
        changed |= self.app.look_at_runs();
        changed |= self.app.toy.receive();
        changed |= self.app.system.sample();
        while let Ok(text) = self.exported.1.try_recv() {
            self.app.tell(text);
            changed = true;
        }
        while let Ok(preview) = self.previews.1.try_recv() {
            match preview {
                Ok(preview) => self.app.layers.put(app::Layer::Preview(preview)),
                Err(problem) => self.app.warn(problem),
            }
            changed = true;
        }
        while let Ok(saved) = self.saved.try_recv() {
            changed = true;
            for effect in self.app.saved(saved) {
                self.perform(effect, screen)?;
            }
        }
        Ok(changed)
    }

    fn perform(&mut self, effect: Effect, screen: &mut Screen) -> io::Result<Option<u8>> {
        match effect {
            Effect::Quit => return Ok(Some(0)),
            Effect::Send(command) => self.send(command),
            Effect::Detach => {
                self.detaching = true;
                return Ok(Some(0));
            }
            Effect::NewRun { .. } | Effect::Fork { .. } if self.session.is_none() => {
                let run = self.app.shown.folder.path().display();
                let text = format!(
                    "another process trains this run: `bitscope fork {run}` starts one from it"
                );
                self.app.warn(text);
            }
            Effect::NewRun {
                loaded,
                fork: false,
            } => self.new_run(*loaded, None),
            Effect::NewRun { loaded, fork: true } => self.new_run(*loaded, Some(None)),
            Effect::Fork { loaded, step } => self.new_run(*loaded, Some(step)),
            Effect::ExportFigure(saved) => self.export_figure(saved),
            Effect::ExportPicture => self.export_picture(),
            Effect::ExportScreen => self.export_screen(screen)?,
            Effect::ExportNetwork(folder, format) => self.export_network(folder, format),
            Effect::Open(folder) => self.open(folder),
            Effect::Preview => self.preview(screen)?,
            Effect::Repaint => screen.repaint()?,
            Effect::Mouse(taken) => screen.mouse(taken)?,
            Effect::Suspend => screen.suspend()?,
        }
        Ok(None)
    }

    /// Shows a recorded run instead of one that ended, or that another process trains.
    fn open(&mut self, folder: RunFolder) {
        let text = match crate::files::read_text(&folder.experiment()) {
            Ok(text) => text,
            Err(error) => return self.app.warn(format!("not opened: {error}")),
        };
        let name = folder.experiment().display().to_string();
        let loaded = match crate::experiment::load_embedded(&name, &text, &Vec::new()) {
            Ok(loaded) => loaded,
            Err(_) => {
                let text = format!("not opened: {name} is no experiment of this version");
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
        let from = self.begin_with_summary(&folder);
        let stop = self.stop_following.clone();
        crate::recorded::follow_into(&folder, self.feed.clone(), stop, from);
        self.app.go_to(app::Page::Overview);
    }

    /// Ends the current run with a checkpoint and starts another, from the checkpoint at or before a
    /// step or from scratch.
    /// A new run, from a checkpoint of the one on the screen where it is a fork: the newest at or before a
    /// step, or the newest of all.
    fn new_run(&mut self, loaded: Loaded, fork: Option<Option<u64>>) {
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

    /// Paints a figure beside the main loop: a frame must not wait for a PNG.
    fn export_figure(&mut self, saved: crate::figure::Saved) {
        let folder = self.app.shown.folder.figures();
        let history = &self.app.shown.history;
        let behind = &self.app.shown.overlays;
        let figure = saved.figure(history, &self.app.shown.folder.log(), behind);
        let notes = crate::figure::notes(history);
        let name = format!("{}-{}", saved.figure.label(), history.step());
        self.export_beside(move || {
            let figure = figure().map_err(|e| e.to_string())?;
            write_figure(&saved, &figure, &notes, &folder, &name)?;
            Ok(format!(
                "exported {}.png, .svg, .pdf, .csv, .toml (p shows it)",
                folder.join(name).display()
            ))
        });
    }

    /// Paints the plots of a page that no log draws again.
    fn export_picture(&mut self) {
        let app = &self.app;
        let (name, figure) = match app.page {
            app::Page::Microscope => (app.microscope.name(), app.microscope.figure.clone()),
            app::Page::Toy => ("toy".to_owned(), app.toy.figure.clone()),
            _ => {
                let scene = view::error_against_memory(app);
                let panels = vec![scene];
                let figure = crate::figure::Figure { panels, columns: 1 };
                ("error-against-memory".to_owned(), Some(figure))
            }
        };
        let Some(figure) = figure else {
            self.app.tell("there is nothing to export yet".into());
            return;
        };
        let look = (
            crate::figure::Theme::Light,
            app.paper.format(figure.panels.len()),
        );
        let notes = crate::figure::notes(&app.shown.history);
        let folder = app.shown.folder.figures();
        self.export_beside(move || {
            export::write_picture(&figure, look, &notes, &folder, &name)?;
            Ok(format!(
                "exported {}.png, .svg, .pdf, .csv (p shows it)",
                folder.join(name).display()
            ))
        });
    }

    /// Writes files beside the main loop, and says what became of them.
    fn export_beside(&mut self, write: impl FnOnce() -> Result<String, String> + Send + 'static) {
        let done = self.exported.0.clone();
        let work = move || {
            let text = write().unwrap_or_else(|error| format!("not exported: {error}"));
            // A workbench that is closing no longer listens.
            let _ = done.send(text);
        };
        if let Err(error) = std::thread::Builder::new()
            .name("export".into())
            .spawn(work)
        {
            self.app.warn(format!("not exported: {error}"));
        }
    }

    /// Writes a run's network beside the main loop, into the run's folder.
    fn export_network(&mut self, folder: RunFolder, format: Format) {
        self.app.tell(format!("writing {} ...", format.name()));
        self.export_beside(move || {
            let said = crate::export::beside_run(&folder, format).map_err(|e| e.to_string())?;
            // (The first line names the file and its size.)
            Ok(format!(
                "exported {}",
                said.lines().next().unwrap_or_default()
            ))
        });
    }

    fn export_screen(&mut self, screen: &mut Screen) -> io::Result<()> {
        let mut cells = None;
        screen.draw(|frame| {
            view::draw(&self.app, frame);
            cells = Some(frame.buffer_mut().clone());
        })?;
        let Some(cells) = cells else { return Ok(()) };
        let folder = self.app.shown.folder.figures();
        let (page, step) = (self.app.page.title(), self.app.shown.history.step());
        let path = folder.join(format!("screen-{page}-{step}.png"));
        let theme = self.app.palette.theme;
        let notes = crate::figure::notes(&self.app.shown.history);
        match write_screen(&cells, &path, theme, &notes) {
            Ok(()) => self
                .app
                .tell(format!("exported {} and .svg (p shows it)", path.display())),
            Err(error) => self.app.warn(format!("not exported: {error}")),
        }
        Ok(())
    }

    /// Reads the newest picture beside the main loop.
    fn preview(&mut self, screen: &Screen) -> io::Result<()> {
        let Some(path) = preview::newest_picture(&self.app.shown.folder.figures()) else {
            self.app
                .tell("no picture exported yet; x exports this page's plots".into());
            return Ok(());
        };
        let variable = |name: &str| std::env::var(name).unwrap_or_default();
        let (cell, form) = (preview::cell_size(), preview::form_of_terminal(variable));
        let room = view::preview_room(screen.size()?);
        let done = self.previews.0.clone();
        let work = move || {
            // A workbench that is closing no longer listens.
            let _ = done.send(preview::open(path, room, cell, form));
        };
        let thread = std::thread::Builder::new().name("preview".into());
        if let Err(error) = thread.spawn(work) {
            self.app.warn(format!("no preview: {error}"));
        }
        Ok(())
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

    /// Keeps the look for the next start.
    fn keep_layout(&self) {
        if let Ok(layout) = toml::to_string(&self.app.layout()) {
            let file = layout_file(&self.run.runs);
            if let Err(error) = crate::run::write_whole(&file, layout.as_bytes()) {
                tracing::warn!("{}: {error}", file.display());
            }
        }
    }
}

/// Asks whoever trains a run; a run that went on in another process meanwhile is asked there.
#[cfg(unix)]
fn pass_on(controls: &mut Controls, folder: &RunFolder, command: &Command) -> io::Result<()> {
    let request = Request::of(command);
    match controls.ask(&request) {
        Err(error) if error.kind() != io::ErrorKind::Other => {
            *controls = Controls::take(folder.path()).map_err(|_| error)?;
            controls.ask(&request)
        }
        outcome => outcome,
    }
}

type PreviewResult = Result<preview::Preview, String>;

/// Where the look of the workbench is kept.
fn layout_file(runs: &Path) -> PathBuf {
    runs.join(".workbench.toml")
}
