//! The terminal's state: entered once, left on every way out.

use std::io::{self, BufWriter, Stdout, Write, stdout};
use std::mem::ManuallyDrop;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use ratatui::backend::CrosstermBackend;
use ratatui::crossterm::cursor::{Hide, Show};
use ratatui::crossterm::event::{
    DisableBracketedPaste, DisableMouseCapture, EnableBracketedPaste, EnableMouseCapture,
};
use ratatui::crossterm::execute;
use ratatui::crossterm::terminal::{
    Clear, ClearType, EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode, enable_raw_mode,
};
use ratatui::layout::Size;
use ratatui::{Frame, Terminal};
use signal_hook::consts::{SIGCONT, SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGTSTP};

/// Whether the terminal is in our hands: the panic hook asks.
static ENTERED: AtomicBool = AtomicBool::new(false);

/// Whether the mouse is to be taken with the terminal.
static MOUSE: AtomicBool = AtomicBool::new(true);

/// The alternate screen in raw mode. Dropping it restores the terminal.
pub(super) struct Screen {
    /// Never dropped at the end: it would say on standard error that the cursor cannot be shown,
    /// and where that is gone with the terminal, saying so is a panic.
    terminal: ManuallyDrop<Painted>,
}

/// A frame leaves in one piece: written bit by bit, it would wake whoever shows it several times,
/// on cores that training has use for.
type Painted = Terminal<CrosstermBackend<BufWriter<Stdout>>>;

/// More than a full frame of a large terminal takes.
const FRAME: usize = 1 << 18;

fn painted() -> io::Result<Painted> {
    Terminal::new(CrosstermBackend::new(BufWriter::with_capacity(
        FRAME,
        stdout(),
    )))
}

impl Screen {
    pub(super) fn enter() -> io::Result<Self> {
        let previous = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            // Only a panic of the screen itself ends the program; one in training becomes an event
            // and the screen stays.
            if std::thread::current().name() == Some("main") {
                restore();
                // Standard error may have gone with the terminal.
                let _ = writeln!(io::stderr(), "{info}");
            }
            previous(info);
        }));
        take_over()?;
        let terminal = painted()?;
        Ok(Self {
            terminal: ManuallyDrop::new(terminal),
        })
    }

    pub(super) fn draw(&mut self, paint: impl FnOnce(&mut Frame<'_>)) -> io::Result<()> {
        self.terminal.draw(paint).map(drop)
    }

    pub(super) fn resized(&mut self) -> io::Result<()> {
        self.terminal.autoresize()
    }

    /// Columns and rows.
    pub(super) fn size(&self) -> io::Result<Size> {
        self.terminal.size()
    }

    /// Paints everything anew: what lies on the screen is not what was painted.
    ///
    /// A new terminal knows nothing of the old picture. (`clear` would ask where the cursor is, and
    /// wait for an answer.)
    pub(super) fn repaint(&mut self) -> io::Result<()> {
        execute!(stdout(), Clear(ClearType::All))?;
        *self.terminal = painted()?;
        Ok(())
    }

    /// Takes the mouse, or leaves it to the terminal.
    pub(super) fn mouse(&mut self, taken: bool) -> io::Result<()> {
        MOUSE.store(taken, Ordering::SeqCst);
        if taken {
            execute!(stdout(), EnableMouseCapture)
        } else {
            execute!(stdout(), DisableMouseCapture)
        }
    }

    /// Gives the terminal back, once.
    pub(super) fn leave(&mut self) -> io::Result<()> {
        restore();
        Ok(())
    }

    /// Ctrl-Z: restores the terminal and stops the process until `fg`.
    pub(super) fn suspend(&mut self) -> io::Result<()> {
        restore();
        signal_hook::low_level::emulate_default_handler(SIGTSTP)?;
        self.reenter()
    }

    /// After `fg`: takes the terminal again and paints everything anew.
    pub(super) fn reenter(&mut self) -> io::Result<()> {
        take_over()?;
        self.repaint()
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        restore();
    }
}

/// Where standard error led before the screen came up, while it leads elsewhere.
#[cfg(unix)]
static STDERR: std::sync::Mutex<Option<std::os::fd::OwnedFd>> = std::sync::Mutex::new(None);

/// What libraries write to standard error while the screen is up goes to the run's trace, or, of a run
/// that is only looked at, nowhere: on the screen it would be rubbish. Where standard error is no
/// terminal it stays what it is.
#[cfg(unix)]
fn divert_stderr() -> io::Result<()> {
    use std::io::IsTerminal;
    let mut kept = STDERR
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner);
    if kept.is_some() || !io::stderr().is_terminal() {
        return Ok(());
    }
    let before = rustix::io::dup(io::stderr())?;
    match crate::trace::file() {
        Some(file) => rustix::stdio::dup2_stderr(file.as_ref())?,
        None => {
            rustix::stdio::dup2_stderr(std::fs::File::options().write(true).open("/dev/null")?)?
        }
    }
    *kept = Some(before);
    Ok(())
}

/// Standard error as it was.
#[cfg(unix)]
fn give_stderr_back() {
    let mut kept = STDERR
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner);
    if let Some(before) = kept.take() {
        // On the way out: who would be told?
        let _ = rustix::stdio::dup2_stderr(before);
    }
}

fn take_over() -> io::Result<()> {
    #[cfg(unix)]
    divert_stderr()?;
    enable_raw_mode()?;
    ENTERED.store(true, Ordering::SeqCst);
    execute!(stdout(), EnterAlternateScreen, EnableBracketedPaste, Hide)?;
    if MOUSE.load(Ordering::SeqCst) {
        execute!(stdout(), EnableMouseCapture)?;
    }
    Ok(())
}

pub(super) fn restore() {
    if !ENTERED.swap(false, Ordering::SeqCst) {
        return;
    }
    // On the way out; a terminal that is gone cannot be restored, and needs not be.
    let _ = leave(&mut stdout());
    let _ = disable_raw_mode();
    #[cfg(unix)]
    give_stderr_back();
}

fn leave(out: &mut impl Write) -> io::Result<()> {
    execute!(
        out,
        DisableMouseCapture,
        DisableBracketedPaste,
        LeaveAlternateScreen,
        Show
    )
}

/// The same where the terminal may not read, and another thread may be waiting for it: what it does not
/// take at once stays unsaid.
pub(super) fn restore_at_once() {
    if !ENTERED.swap(false, Ordering::SeqCst) {
        return;
    }
    // Opened anew: what standard output is open as belongs to the shell too.
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt;
        let mut options = std::fs::File::options();
        options.write(true).custom_flags(libc::O_NONBLOCK);
        if let Ok(mut terminal) = options.open("/dev/tty") {
            let _ = leave(&mut terminal);
        }
    }
    let _ = disable_raw_mode();
}

/// Signals, noted by handlers and asked between frames.
pub(super) struct Signals {
    termination: Arc<AtomicUsize>,
    resumed: Arc<AtomicBool>,
}

impl Signals {
    pub(super) fn register() -> io::Result<Self> {
        let termination = Arc::new(AtomicUsize::new(0));
        for signal in [SIGTERM, SIGHUP, SIGINT, SIGQUIT] {
            if crate::process::ignores(signal) {
                continue;
            }
            signal_hook::flag::register_usize(signal, termination.clone(), signal as usize)?;
        }
        let resumed = Arc::new(AtomicBool::new(false));
        signal_hook::flag::register(SIGCONT, resumed.clone())?;
        Ok(Self {
            termination,
            resumed,
        })
    }

    /// The flag that a termination signal sets, for another thread to watch.
    pub(super) fn termination_flag(&self) -> Arc<AtomicUsize> {
        self.termination.clone()
    }

    pub(super) fn termination(&self) -> Option<usize> {
        Some(self.termination.load(Ordering::Relaxed)).filter(|s| *s != 0)
    }

    /// Whether the process was continued since the last call.
    pub(super) fn resumed(&self) -> bool {
        self.resumed.swap(false, Ordering::Relaxed)
    }
}
