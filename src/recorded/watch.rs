//! A run that another process trains, followed through its log.

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::face::{CliError, Output, end_when_told, exit, interrupt_flag};
use crate::headless::printer;
use crate::run::{Event, Feed, LogReader, RunFolder, RunLock};

/// Time between two looks at a log that grows.
const PAUSE: Duration = Duration::from_millis(100);

/// How long a run that stopped may be nobody's: one that is detached goes from one process to the next.
const HANDOVER: Duration = Duration::from_secs(3);

/// Follows a run's log, in lines or JSON, until the run ends or nobody trains it any more.
pub(crate) fn watch(folder: &RunFolder, output: Output) -> Result<u8, CliError> {
    let interrupted = interrupt_flag()?;
    end_when_told(interrupted.clone());
    let mut printer = printer(folder.clone(), output);
    let mut stdout = std::io::stdout().lock();
    follow(folder, None, &interrupted, false, |event| {
        printer.print(&event, &mut stdout)?;
        stdout.flush()
    })?;
    Ok(match interrupted.load(Ordering::Relaxed) {
        true => exit::INTERRUPTED,
        false => 0,
    })
}

/// Hands every event of a log to `take`, old ones first, and new ones as they come; from a byte on
/// where that is given. Ends with the run, or, where it `stays`, when it is told to: somebody may take
/// the run up again.
fn follow(
    folder: &RunFolder,
    from: Option<u64>,
    stop: &AtomicBool,
    stays: bool,
    mut take: impl FnMut(Event) -> std::io::Result<()>,
) -> Result<(), CliError> {
    let mut reader = LogReader::open(&folder.log())?;
    if let Some(from) = from {
        reader.seek(from)?;
    }
    let (mut over, mut final_word, mut told) = (false, false, false);
    let mut owned_before = false;
    let mut alone = Instant::now();
    loop {
        // Asked before reading: what was written before its owner went is read.
        let owned = RunLock::holder(folder.path()).is_some();
        reader.follow(&folder.log())?;
        for event in reader.by_ref() {
            over = event.is_last();
            final_word = over && !matches!(event, Event::Stopped { .. });
            take(event)?;
        }
        if stop.load(Ordering::Relaxed) {
            return Ok(());
        }
        if owned {
            (owned_before, told) = (true, false);
            alone = Instant::now();
        }
        let awaited = owned || (owned_before && !final_word && alone.elapsed() < HANDOVER);
        if !awaited {
            if !over && !std::mem::replace(&mut told, true) {
                let step = 0;
                let message = "the run was interrupted: no process trains it; \
                               `bitscope resume` goes on with it"
                    .into();
                take(Event::Warning { step, message })?;
            }
            if !stays {
                return Ok(());
            }
        }
        std::thread::sleep(PAUSE);
    }
}

/// The same into the feed of a workbench, on a thread of its own that ends with `stop`: a run that ended may
/// be taken up again. It waits for the screen rather than drop an event: a log has time.
pub(crate) fn follow_into(
    folder: &RunFolder,
    feed: Feed,
    stop: Arc<AtomicBool>,
    from: Option<u64>,
) {
    let folder = folder.clone();
    let work = move || {
        let taken = follow(&folder, from, &stop.clone(), true, |event| {
            while feed.is_half_full() && !stop.load(Ordering::Relaxed) {
                std::thread::sleep(Duration::from_millis(5));
            }
            feed.push(Arc::new(event));
            Ok(())
        });
        if let Err(error) = taken {
            let (step, message) = (0, error.to_string());
            feed.push(Arc::new(Event::Warning { step, message }));
        }
    };
    let thread = std::thread::Builder::new().name("follow".into());
    if let Err(error) = thread.spawn(work) {
        tracing::warn!("the log cannot be followed: {error}");
    }
}
