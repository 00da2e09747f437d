//! Training and the other subcommands without a screen: plain lines or JSON lines.

use std::io::{IsTerminal, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use crate::dataset::{Archive, cifar10, idx};
use crate::experiment::Loaded;
use crate::experiment::printable;
use crate::face::{
    self, Begin, CliError, LAST_LINES, Output, Run, duration, exit, interrupt_flag, print,
};
use crate::figure::{self, Format, Name, Theme};
use crate::kernels::ranks::{self, Group};
use crate::run::{Event, History, LayerInfo, RunFolder, Status, StepRecord};
use crate::training::{self, Session};

/// Events that wait for standard output at most; then training waits: no line is lost.
const WAITING: usize = 1024;
/// How long a run has for its last checkpoint once it was told to stop, whatever the reader of
/// standard output does.
const LAST_CHECKPOINT: Duration = Duration::from_secs(60);
/// Signals this close together are one: a session that ends sends two at once.
const TOGETHER: Duration = Duration::from_millis(500);

/// Trains without a screen.
pub(crate) fn train(
    loaded: &Loaded,
    run: &Run,
    output: Output,
    begin: Begin,
    group: &Group,
) -> Result<u8, CliError> {
    let interrupted = interrupt_flag()?;
    let setup = run.setup(loaded, begin)?;
    let folder = setup.folder.clone();
    let run_folder = folder.clone();
    let log = folder.log();
    let (sender, events) = mpsc::sync_channel::<Arc<Event>>(WAITING);
    let deaf = Arc::new(AtomicBool::new(false));
    let mut session = Session::leading(setup, group.clone(), {
        let deaf = deaf.clone();
        move |event| deliver(&sender, event, &deaf)
    });
    let commands = session.commands();
    // Lines are written on a thread of their own: a pipe that nobody reads, or a terminal that
    // stopped, would hold up whoever writes to it.
    let printing = std::thread::Builder::new()
        .name("lines".into())
        .spawn(move || print_all(&events, output, folder, &commands))
        .map_err(|e| CliError::Failed(format!("no thread: {e}")))?;
    let pause = || std::thread::sleep(Duration::from_millis(20));
    let mut told: Option<Instant> = None;
    while !session.is_over() {
        if interrupted.swap(false, Ordering::Relaxed) {
            if told.is_some_and(|told| told.elapsed() > TOGETHER) {
                // Who asks twice does not want to wait for the checkpoint.
                session.forget();
                group.abandon();
                return Ok(exit::INTERRUPTED);
            }
            if told.is_none() && std::io::stderr().is_terminal() {
                let hint = "stopping with a checkpoint; Ctrl-C again stops at once, without it";
                let _ = writeln!(std::io::stderr(), "\n{hint}");
            }
            session.send(crate::run::Command::Stop);
            told.get_or_insert_with(Instant::now);
        }
        if let Some(told) = told {
            // From here on training does not wait for a reader that does not read.
            deaf.fetch_or(told.elapsed() > LAST_LINES, Ordering::Relaxed);
            if told.elapsed() > LAST_LINES && !session.is_prepared() {
                // Still reading its data: there is nothing to save.
                session.abandon();
                group.abandon();
                return Ok(exit::INTERRUPTED);
            }
            if told.elapsed() > LAST_CHECKPOINT {
                session.forget();
                group.abandon();
                return Ok(exit::INTERRUPTED);
            }
        }
        pause();
    }
    let over = Instant::now();
    while !printing.is_finished() {
        if told.is_some() && over.elapsed() > LAST_LINES {
            return Ok(exit::INTERRUPTED);
        }
        if interrupted.load(Ordering::Relaxed) {
            told.get_or_insert_with(Instant::now);
        }
        pause();
    }
    match printing.join() {
        Ok(Ok(code)) if !log.is_file() && code == 0 => Err(CliError::Failed(format!(
            "{} is gone: it was removed during training, and nothing of the run is left",
            log.display()
        ))),
        Ok(Ok(code)) if told.is_some() && code == 0 => Ok(exit::INTERRUPTED),
        Ok(Err(CliError::Output(error))) => Err(unheard(&run_folder, error)),
        Ok(outcome) => outcome,
        Err(_) => Err(CliError::Failed("the thread that prints ended".into())),
    }
}

/// Trains with the ranks that `mpirun` or `srun` started with this one: the first does as `lead` says, the
/// others follow it.
pub(crate) fn together(lead: impl FnOnce(&Group) -> Result<u8, CliError>) -> Result<u8, CliError> {
    let group = ranks::launched().map_err(CliError::Usage)?;
    if group.is_alone() {
        return lead(&group);
    }
    crate::kernels::parallel::share_cores(group.on_machine()[1]);
    if group.leads() {
        let outcome = lead(&group);
        if let Err(error) = &outcome
            && group.is_in_the_middle()
        {
            // The others are ended, and this process with them.
            face::report(error);
        }
        group.dismiss();
        return match outcome {
            Ok(0) if group.is_over() && !group.is_dismissed() => Ok(exit::INTERRUPTED),
            other => other,
        };
    }
    // The launcher's signals are heard where it waits for others.
    let _interrupted = interrupt_flag()?;
    let rank = group.rank();
    let followed = catch_unwind(AssertUnwindSafe(|| training::follow(&group)));
    let reason = match followed {
        Ok(Ok(())) => {
            group.finish();
            return Ok(0);
        }
        _ if group.is_over() => {
            // The launcher and rank 0 say why: of the rank that was lost, not of this one.
            std::thread::sleep(LAST_LINES);
            return Ok(exit::INTERRUPTED);
        }
        Ok(Err(error)) => error.to_string(),
        Err(panic) => training::reason(panic.as_ref()),
    };
    // Before all are ended: whoever ends them does not know why.
    let _ = writeln!(std::io::stderr(), "error: rank {rank}: {reason}");
    group.abort();
    Ok(exit::FAILED)
}

/// A reader of standard output that went away (`| head`) stops the run it was reading, quietly; the
/// manifest says why.
fn unheard(folder: &RunFolder, error: std::io::Error) -> CliError {
    let stopped = folder.manifest().is_ok_and(|m| m.status == Status::Stopped);
    if stopped && error.kind() == std::io::ErrorKind::BrokenPipe {
        let reason = "standard output was closed";
        let kept = crate::recorded::change(folder, |m| m.reason = Some(reason.into()));
        if let Err(error) = kept {
            tracing::warn!("manifest: {error}");
        }
    }
    CliError::Output(error)
}

/// Hands an event to whoever prints; waits while too many wait, unless nobody listens any more.
fn deliver(sender: &mpsc::SyncSender<Arc<Event>>, event: Arc<Event>, deaf: &AtomicBool) {
    let mut event = event;
    loop {
        match sender.try_send(event) {
            Err(mpsc::TrySendError::Full(back)) if !deaf.load(Ordering::Relaxed) => {
                event = back;
                std::thread::sleep(Duration::from_millis(1));
            }
            // A receiver that went away has said why.
            _ => return,
        }
    }
}

/// Prints until the last event; the exit code that the events ask for.
fn print_all(
    events: &mpsc::Receiver<Arc<Event>>,
    output: Output,
    folder: RunFolder,
    commands: &mpsc::Sender<crate::run::Command>,
) -> Result<u8, CliError> {
    let mut printer = printer(folder, output);
    let mut stdout = std::io::stdout().lock();
    let mut code = 0;
    for event in events {
        if let Event::NonFinite { .. } = event.as_ref() {
            // Nobody is there to look: the last checkpoint stands, the run ends.
            let _ = commands.send(crate::run::Command::Stop);
            code = exit::FAILED;
        }
        if matches!(event.as_ref(), Event::Failed { .. }) {
            code = exit::FAILED;
        }
        let written = printer
            .print(&event, &mut stdout)
            .and_then(|()| match event.as_ref() {
                Event::Step(_) if !output.json => Ok(()),
                _ => stdout.flush(),
            });
        if let Err(error) = written {
            // A run that has ended takes no command.
            let _ = commands.send(crate::run::Command::Stop);
            return Err(error.into());
        }
        if event.is_last() {
            break;
        }
    }
    Ok(code)
}

/// The printer that was asked for.
pub(crate) fn printer(folder: RunFolder, output: Output) -> Box<dyn Printer> {
    if output.json {
        Box::new(Json { layers: Vec::new() })
    } else {
        Box::new(Plain::new(folder))
    }
}

/// Writes events for whoever reads standard output.
pub(crate) trait Printer {
    fn print(&mut self, event: &Event, out: &mut dyn Write) -> std::io::Result<()>;
}

/// One object per event and line.
struct Json {
    layers: Vec<LayerInfo>,
}

impl Printer for Json {
    fn print(&mut self, event: &Event, out: &mut dyn Write) -> std::io::Result<()> {
        event.describe(&mut self.layers);
        serde_json::to_writer(&mut *out, &event.to_json(&self.layers))?;
        out.write_all(b"\n")
    }
}

/// Readable lines; a progress bar that redraws itself where there is a terminal.
struct Plain {
    history: History,
    folder: RunFolder,
    terminal: bool,
    printed: Option<Instant>,
    bar: bool,
}

const PLAIN_EVERY: Duration = Duration::from_secs(5);
const BAR_EVERY: Duration = Duration::from_millis(200);

impl Plain {
    fn new(folder: RunFolder) -> Self {
        Self {
            history: History::default(),
            folder,
            terminal: std::io::stdout().is_terminal(),
            printed: None,
            bar: false,
        }
    }

    fn line(&self, r: &StepRecord) -> String {
        let h = &self.history;
        let left = h.total_steps.saturating_sub(r.step);
        let eta = left as f64 * f64::from(r.times.total());
        format!(
            "step {}/{}  epoch {:.2}  loss {:.4}  error {:.1} %  weights {:.2} kB  \
             activations {:.2} kB  {:.0} samples/s  left {}",
            r.step,
            h.total_steps,
            r.epoch,
            r.loss,
            r.train_error * 100.0,
            r.usage.weights,
            r.usage.activation_max,
            r.samples_per_s,
            duration(eta),
        )
    }

    fn clear(&mut self, out: &mut dyn Write) -> std::io::Result<()> {
        if std::mem::take(&mut self.bar) {
            out.write_all(b"\r\x1b[K")
        } else {
            Ok(())
        }
    }
}

impl Printer for Plain {
    fn print(&mut self, event: &Event, out: &mut dyn Write) -> std::io::Result<()> {
        let before = self.history.messages.back().cloned();
        self.history.push(event);
        if let Event::Started { .. } = event {
            let path = self.folder.path().display().to_string();
            writeln!(out, "recording to {}", printable(&path))?;
        }
        // Those behind the one that was the newest: an event may say nothing, or several things.
        let messages = self.history.messages.iter().rev();
        let new = messages.take_while(|m| Some(*m) != before.as_ref()).count();
        if new > 0 {
            self.clear(out)?;
            for message in self.history.messages.iter().rev().take(new).rev() {
                writeln!(out, "[{}] {}", message.step, printable(&message.text))?;
            }
        }
        let Event::Step(record) = event else {
            return Ok(());
        };
        let every = if self.terminal {
            BAR_EVERY
        } else {
            PLAIN_EVERY
        };
        if self.printed.is_some_and(|t| t.elapsed() < every) {
            return Ok(());
        }
        self.printed = Some(Instant::now());
        let line = self.line(record);
        if self.terminal {
            let share = record.step as f64 / self.history.total_steps.max(1) as f64;
            let filled = (share.clamp(0.0, 1.0) * 20.0) as usize;
            let bar = format!("{}{}", "█".repeat(filled), "░".repeat(20 - filled));
            // One row: a second one would stay behind when the first is drawn anew.
            let columns = crossterm::terminal::size().map_or(80, |(columns, _)| columns);
            let width = usize::from(columns).saturating_sub(1);
            let row: String = format!("{bar} {line}").chars().take(width).collect();
            write!(out, "\r\x1b[K{row}")?;
            self.bar = true;
        } else {
            writeln!(out, "{line}")?;
        }
        out.flush()
    }
}

/// Draws a figure of a recorded run.
pub(crate) fn plot(
    folder: &RunFolder,
    name: Name,
    view: &figure::View,
    output: &Path,
    theme: Theme,
    format: Format,
) -> Result<(), CliError> {
    let history = History::from_log(&folder.log(), None);
    let history = history.map_err(|e| CliError::Failed(e.to_string()))?;
    for damage in &history.damages {
        // A figure of what is left is worth drawing; that something is missing is worth saying.
        let _ = writeln!(std::io::stderr(), "warning: {damage}");
    }
    if !view.filter.is_empty() && !history.layers.iter().any(|l| view.shows(l)) {
        let message = format!("--only {}: no layer of the run matches", view.filter);
        return Err(CliError::Usage(message));
    }
    let scene = figure::build(name, &history, view);
    let notes = figure::notes(&history);
    // A named format is that of one panel; pixels are the whole picture's.
    let format = match format.text {
        Some(_) => format.panels(scene.panels.len()),
        None => format,
    };
    figure::export(&scene, output, theme, format, &notes).map_err(|error| match error {
        figure::ExportError::Extension(_) => CliError::Usage(error.to_string()),
        error => CliError::Failed(error.to_string()),
    })
}

/// Draws a saved figure again.
pub(crate) fn plot_saved(file: &Path, output: Option<&Path>) -> Result<(), CliError> {
    let saved = figure::Saved::read(file).map_err(|e| CliError::Usage(e.to_string()))?;
    let beside = file.with_extension("png");
    saved
        .draw(file, output.unwrap_or(&beside))
        .map_err(|e| CliError::Failed(e.to_string()))
}

/// Fetches CIFAR-10.
pub(crate) fn fetch_cifar10(dir: &Path, url: Option<String>) -> Result<u8, CliError> {
    let mut archive = Archive::default();
    if let Some(url) = url {
        archive.url = url;
    }
    cifar10::download(&archive, dir, progress()).map_err(|e| CliError::Failed(e.to_string()))?;
    print(&format!("CIFAR-10 is in {}\n", dir.display()))?;
    Ok(0)
}

/// Fetches Fashion-MNIST.
pub(crate) fn fetch_fashion_mnist(dir: &Path, url: Option<&str>) -> Result<u8, CliError> {
    let files = idx::fashion_mnist(url);
    idx::download(&files, dir, progress()).map_err(|e| CliError::Failed(e.to_string()))?;
    print(&format!("Fashion-MNIST is in {}\n", dir.display()))?;
    Ok(0)
}

/// Shows how far a download has come: one line that changes on a terminal, elsewhere lines.
fn progress() -> impl FnMut(u64, Option<u64>) {
    let terminal = std::io::stderr().is_terminal();
    let mut shown = Instant::now();
    move |done, total| {
        let complete = Some(done) == total;
        if !complete && shown.elapsed() < Duration::from_millis(200) {
            return;
        }
        shown = Instant::now();
        let mb = |bytes: u64| bytes as f64 / 1e6;
        let of = total.map_or(String::new(), |t| format!(" of {:.1}", mb(t)));
        let end = if terminal { "\r" } else { "\n" };
        // Progress is a courtesy: where standard error is closed the download goes on.
        let _ = write!(std::io::stderr(), "{:.1}{of} MB{end}", mb(done));
    }
}
