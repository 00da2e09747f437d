//! The app with everything it drives, and the loop that drives it.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::mpsc::{self, Receiver};
use std::time::{Duration, Instant};

use ratatui::crossterm::event::{self, Event as Input, KeyEventKind};

use super::app::{App, Effect, Layer};
use super::lifeline::Lifeline;
use super::terminal::{Screen, Signals};
use super::{preview, view};
use crate::experiment::{Saved, Watcher};
use crate::face::{CliError, Run, exit};
use crate::run::Feed;
#[cfg(unix)]
use crate::run::control::Controls;
use crate::training::Session;

mod begin;
mod export;
mod steer;

/// The app with everything it drives.
pub(super) struct Workbench {
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
    /// Takes the terminal, and gives it back whatever happens.
    pub(super) fn on_screen(&mut self) -> Result<u8, CliError> {
        let failed = |e: io::Error| CliError::Failed(format!("terminal: {e}"));
        let signals = Signals::register().map_err(failed)?;
        self.lifeline.watch(signals.termination_flag());
        let mut screen = Screen::enter().map_err(failed)?;
        let outcome = self.main_loop(&mut screen, &signals);
        screen.leave().map_err(failed)?;
        drop(screen);
        outcome.map_err(failed)
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
                Ok(preview) => self.app.layers.put(Layer::Preview(preview)),
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
                    "another process is training this run: `bitscope fork {run}` starts a new one from it"
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

    /// Keeps the look for the next start.
    pub(super) fn keep_layout(&self) {
        if let Ok(layout) = toml::to_string(&self.app.layout()) {
            let file = layout_file(&self.run.runs);
            if let Err(error) = crate::run::write_whole(&file, layout.as_bytes()) {
                tracing::warn!("{}: {error}", file.display());
            }
        }
    }
}

type PreviewResult = Result<preview::Preview, String>;

/// Where the look of the workbench is kept.
fn layout_file(runs: &Path) -> PathBuf {
    runs.join(".workbench.toml")
}
