//! Training and the other subcommands without a screen: plain lines or JSON lines.

use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use crate::cli::{CliError, Output, Run, exit, print};
use crate::dataset::cifar10::{self, Archive};
use crate::experiment::Loaded;
use crate::figure::{self, Format, Name, Theme};
use crate::run::{Event, History, LayerInfo, Manifest, RunFolder, StepRecord};
use crate::training::{Session, Setup};

/// Events that wait for standard output at most; then training waits: no line is lost.
const WAITING: usize = 1024;

/// Trains without a screen.
pub(crate) fn train(
    loaded: &Loaded,
    run: &Run,
    output: Output,
    resume: Option<(RunFolder, PathBuf)>,
) -> Result<u8, CliError> {
    let (folder, checkpoint) = run.folder(loaded, resume)?;
    let interrupted = interrupt_flag()?;
    let setup = Setup {
        experiment: loaded.experiment.clone(),
        folder: folder.clone(),
        resume: checkpoint,
        fork: None,
        max_steps: run.steps,
    };
    let (sender, events) = mpsc::sync_channel::<Arc<Event>>(WAITING);
    // A receiver that went away stops the run through the session's end.
    let session = Session::start(setup, move |event| drop(sender.send(event)));
    let mut printer: Box<dyn Printer> = if output.json {
        Box::new(Json { layers: Vec::new() })
    } else {
        Box::new(Plain::new(folder))
    };
    let mut stdout = std::io::stdout().lock();
    let mut code = 0;
    loop {
        let event = match events.recv_timeout(Duration::from_millis(100)) {
            Ok(event) => event,
            Err(mpsc::RecvTimeoutError::Timeout) => {
                if interrupted.swap(false, Ordering::Relaxed) {
                    session.send(crate::run::Command::Stop);
                    code = exit::INTERRUPTED;
                }
                continue;
            }
            Err(mpsc::RecvTimeoutError::Disconnected) => break,
        };
        if interrupted.swap(false, Ordering::Relaxed) {
            session.send(crate::run::Command::Stop);
            code = exit::INTERRUPTED;
        }
        if let Event::NonFinite { .. } = event.as_ref() {
            // Nobody is there to look: the last checkpoint stands, the run ends.
            session.send(crate::run::Command::Stop);
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
            drop(events);
            session.stop();
            return Err(error.into());
        }
        if event.is_last() {
            break;
        }
    }
    Ok(code)
}

/// Set by SIGINT, SIGTERM and SIGHUP.
fn interrupt_flag() -> Result<Arc<AtomicBool>, CliError> {
    let flag = Arc::new(AtomicBool::new(false));
    use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        signal_hook::flag::register(signal, flag.clone())
            .map_err(|e| CliError::Failed(format!("signals: {e}")))?;
    }
    Ok(flag)
}

trait Printer {
    fn print(&mut self, event: &Event, out: &mut dyn Write) -> std::io::Result<()>;
}

/// One object per event and line.
struct Json {
    layers: Vec<LayerInfo>,
}

impl Printer for Json {
    fn print(&mut self, event: &Event, out: &mut dyn Write) -> std::io::Result<()> {
        if let Event::Started { layers, .. } = event {
            self.layers.clone_from(layers);
        }
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
    messages: usize,
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
            messages: 0,
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

/// Seconds as h:mm:ss or m:ss.
pub(crate) fn duration(seconds: f64) -> String {
    let s = seconds.max(0.0) as u64;
    let (h, m, s) = (s / 3600, s / 60 % 60, s % 60);
    if h > 0 {
        format!("{h}:{m:02}:{s:02}")
    } else {
        format!("{m}:{s:02}")
    }
}

impl Printer for Plain {
    fn print(&mut self, event: &Event, out: &mut dyn Write) -> std::io::Result<()> {
        let before = self.history.messages.len();
        self.history.push(event);
        if let Event::Started { .. } = event {
            writeln!(out, "recording to {}", self.folder.path().display())?;
        }
        // The window of messages may have moved: count from the end.
        let new = if self.history.messages.len() == before && before == self.messages {
            usize::from(!matches!(event, Event::Step(_)))
        } else {
            self.history.messages.len() - before
        };
        self.messages = self.history.messages.len();
        if new > 0 {
            self.clear(out)?;
            for message in self.history.messages.iter().rev().take(new).rev() {
                writeln!(out, "[{}] {}", message.step, message.text)?;
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
            write!(out, "\r\x1b[K{bar} {line}")?;
            self.bar = true;
        } else {
            writeln!(out, "{line}")?;
        }
        out.flush()
    }
}

/// Recorded runs, a line each.
pub(crate) fn runs_table(runs: &[(RunFolder, Manifest)]) -> String {
    if runs.is_empty() {
        return "no runs yet\n".into();
    }
    let mut out = format!(
        "{:<40} {:<9} {:>8} {:>7} {:>7} {:>7} {:>9} {:>9}\n",
        "run", "status", "step", "epoch", "val %", "test %", "weight kB", "act kB"
    );
    let percent = |v: Option<f64>| v.map_or("-".to_owned(), |e| format!("{:.2}", e * 100.0));
    for (folder, m) in runs {
        out += &format!(
            "{:<40} {:<9} {:>8} {:>7.2} {:>7} {:>7} {:>9.2} {:>9.2}\n",
            folder.label(),
            m.status.name(),
            m.step,
            m.epoch,
            percent(m.best_error),
            percent(m.test_error),
            m.weight_kb,
            m.activation_kb
        );
    }
    out
}

/// Draws a figure of a recorded run.
pub(crate) fn plot(
    folder: &RunFolder,
    name: Name,
    output: &Path,
    theme: Theme,
    format: Format,
) -> Result<(), CliError> {
    let history = History::from_log(&folder.log(), None);
    let history = history.map_err(|e| CliError::Failed(e.to_string()))?;
    let scene = figure::build(name, &history, &figure::View::default());
    let notes = figure::notes(&history);
    // A named format is that of one panel; pixels are the whole picture's.
    let format = match format.text {
        Some(_) => format.panels(scene.panels.len()),
        None => format,
    };
    figure::export(&scene, output, theme, format, &notes)
        .map_err(|e| CliError::Failed(e.to_string()))
}

/// Draws a saved figure again.
pub(crate) fn plot_saved(file: &Path, output: Option<&Path>) -> Result<(), CliError> {
    let saved = figure::Saved::read(file).map_err(|e| CliError::Usage(e.to_string()))?;
    let beside = file.with_extension("png");
    saved
        .draw(file, output.unwrap_or(&beside))
        .map_err(|e| CliError::Failed(e.to_string()))
}

/// Fetches CIFAR-10 with a progress bar.
pub(crate) fn fetch_cifar10(dir: &Path, url: Option<String>) -> Result<u8, CliError> {
    let mut archive = Archive::default();
    if let Some(url) = url {
        archive.url = url;
    }
    let terminal = std::io::stderr().is_terminal();
    let mut shown = Instant::now();
    let outcome = cifar10::download(&archive, dir, |done, total| {
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
    });
    outcome.map_err(|e| CliError::Failed(e.to_string()))?;
    print(&format!("CIFAR-10 is in {}\n", dir.display()))?;
    Ok(0)
}
