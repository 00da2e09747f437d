//! The thread that appends events to the log.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::super::disk::write_whole;
use super::super::event::Event;
use super::summary::Summary;
use super::{Damage, HEADER, LogError, LogReader};

/// Records that wait for the disk at most; then training waits too, since the log loses nothing.
const WAITING: usize = 4096;
/// Bytes that are gathered before they are written.
const GATHERED: usize = 1 << 16;
/// Bytes of the log between two summaries, and from which on a log that is closed gets one.
const SUMMARISED: u64 = 32 << 20;
const CLOSED: u64 = 8 << 20;
/// Time between two writes of what was gathered, and between two tries on a disk that is full.
const FLUSH: Duration = Duration::from_millis(500);

/// Writes events on a thread of its own. Lossless: it makes training wait rather than drop.
pub struct LogWriter {
    sender: Option<SyncSender<Message>>,
    thread: Option<JoinHandle<()>>,
    shared: Arc<Shared>,
    /// What was damaged in a log that goes on, in words.
    found: Vec<String>,
    /// Whether there was a log without a record, or one with.
    was_empty: bool,
    had_records: bool,
}

/// What the thread is told.
enum Message {
    /// To append.
    Event(Arc<Event>),
    /// To write what was gathered, and to answer.
    Settle(SyncSender<()>),
}

#[derive(Default)]
struct Shared {
    failed: AtomicBool,
    lost: AtomicU64,
    bytes: AtomicU64,
    /// Times that the file was put back after someone had removed it.
    restored: AtomicU64,
    /// Times that someone cut the file.
    cut: AtomicU64,
}

impl LogWriter {
    /// Creates a log, or continues one behind its last sound record. What lies behind that is kept
    /// under another name.
    ///
    /// # Errors
    /// Where the file cannot be created, or is no log of this version.
    pub fn open(path: &Path) -> Result<Self, LogError> {
        let was_there = path.exists();
        let exists = path.metadata().is_ok_and(|m| m.len() > 0);
        let (sound, damages) = if exists {
            LogReader::sound_length(path)?
        } else {
            (0, Vec::new())
        };
        let mut options = File::options();
        let mut file = options
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .open(path)
            .map_err(LogError::io(path))?;
        let mut found = Vec::new();
        for damage in damages {
            let mut text = format!("{}: {damage}", path.display());
            if damage.is_tail {
                let kept = keep_tail(&mut file, path, damage).map_err(LogError::io(path))?;
                text += &format!("; they are kept in {}", kept.display());
            }
            found.push(text);
        }
        file.set_len(sound).map_err(LogError::io(path))?;
        file.seek(SeekFrom::End(0)).map_err(LogError::io(path))?;
        if sound == 0 {
            file.write_all(HEADER).map_err(LogError::io(path))?;
        }
        let (sender, receiver) = sync_channel(WAITING);
        let shared = Arc::new(Shared::default());
        let mut appender = Appender {
            length: sound.max(HEADER.len() as u64),
            file,
            gathered: Vec::with_capacity(GATHERED),
            events: 0,
            unsaid: 0,
            newest: 0,
            started: Vec::new(),
            shared: shared.clone(),
        };
        let path = path.to_owned();
        let thread = std::thread::Builder::new()
            .name("log".into())
            .spawn(move || write_all(&receiver, &mut appender, &path))
            .expect("the system can start a thread");
        Ok(Self {
            sender: Some(sender),
            thread: Some(thread),
            shared,
            found,
            was_empty: was_there && sound <= HEADER.len() as u64,
            had_records: was_there && sound > HEADER.len() as u64,
        })
    }

    /// What was damaged when the log was opened, a sentence each.
    pub fn found(&self) -> &[String] {
        &self.found
    }

    /// Whether there was a log before that held nothing.
    pub fn was_empty(&self) -> bool {
        self.was_empty
    }

    /// Whether there was a log before that held something.
    pub fn had_records(&self) -> bool {
        self.had_records
    }

    /// Appends an event.
    pub fn push(&self, event: Arc<Event>) {
        if let Some(sender) = &self.sender {
            // The thread runs until the sender is dropped.
            let _ = sender.send(Message::Event(event));
        }
    }

    /// Waits until all that was appended so far is in the file, or was refused by the disk: what depends
    /// on it may be written then.
    pub fn settle(&self) {
        let (sender, answer) = sync_channel(1);
        if let Some(thread) = &self.sender
            && thread.send(Message::Settle(sender)).is_ok()
        {
            // (A thread that ends has written everything.)
            let _ = answer.recv();
        }
    }

    /// Whether writing fails now, and how many events were lost to that.
    pub fn trouble(&self) -> Option<u64> {
        let failed = self.shared.failed.load(Ordering::Relaxed);
        failed.then(|| self.lost())
    }

    /// Events that were lost because the disk did not take them.
    pub fn lost(&self) -> u64 {
        self.shared.lost.load(Ordering::Relaxed)
    }

    /// How often the file was put back after someone had removed it.
    pub fn restored(&self) -> u64 {
        self.shared.restored.load(Ordering::Relaxed)
    }

    /// How often someone cut the file under the run.
    pub fn cut(&self) -> u64 {
        self.shared.cut.load(Ordering::Relaxed)
    }

    /// Bytes handed to this writer.
    pub fn bytes(&self) -> u64 {
        self.shared.bytes.load(Ordering::Relaxed)
    }
}

impl Drop for LogWriter {
    fn drop(&mut self) {
        self.sender = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Copies a damaged end to a file beside the log.
fn keep_tail(file: &mut File, path: &Path, damage: Damage) -> io::Result<PathBuf> {
    let mut bytes = Vec::new();
    file.seek(SeekFrom::Start(damage.at))?;
    file.read_to_end(&mut bytes)?;
    let kept = path.with_extension(format!("log.damaged-{}", damage.at));
    write_whole(&kept, &bytes)?;
    Ok(kept)
}

/// What the log needs of a file; tests have one that fails.
pub(super) trait Storage {
    /// Appends at the end; may write a part and then fail.
    fn append(&mut self, bytes: &[u8]) -> io::Result<()>;
    /// Cuts everything behind this length, where the next append goes.
    fn cut(&mut self, length: u64) -> io::Result<()>;
    /// Makes what was appended durable.
    fn sync(&mut self) -> io::Result<()>;
}

impl Storage for File {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.write_all(bytes)
    }

    fn cut(&mut self, length: u64) -> io::Result<()> {
        self.set_len(length)?;
        self.seek(SeekFrom::Start(length)).map(drop)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.sync_data()
    }
}

/// Gathers whole records and writes them whole: after an error the file is cut back to its last
/// record, so that a disk that fills up in the middle of one leaves nothing torn.
struct Appender<S> {
    file: S,
    /// Bytes of whole records in the file.
    length: u64,
    gathered: Vec<u8>,
    /// Events in `gathered`.
    events: u64,
    /// Lost events that the log does not tell of yet.
    unsaid: u64,
    /// Step of the newest event.
    newest: u64,
    /// The newest records that say what the run is, without which no other can be understood.
    started: Vec<u8>,
    shared: Arc<Shared>,
}

impl<S: Storage> Appender<S> {
    fn take(&mut self, event: &Event) {
        self.newest = event.step();
        let before = self.gathered.len();
        encode(event, &mut self.gathered);
        match event {
            Event::Started { .. } => self.started = self.gathered[before..].to_vec(),
            Event::Quantizers { .. } => self.started.extend(&self.gathered[before..]),
            _ => {}
        }
        let bytes = (self.gathered.len() - before) as u64;
        self.shared.bytes.fetch_add(bytes, Ordering::Relaxed);
        self.events += 1;
    }

    /// Writes what was gathered. What fails is lost, counted, and told of in the log as soon as it
    /// can be written again.
    fn flush(&mut self) {
        let recovering = self.unsaid > 0;
        if self.gathered.is_empty() && !recovering {
            return;
        }
        let mut bytes = std::mem::take(&mut self.gathered);
        if recovering {
            let message = format!(
                "{} events before this one were lost: they could not be written to disk",
                self.unsaid
            );
            let step = self.newest;
            let mut told = Vec::new();
            encode(&Event::Warning { step, message }, &mut told);
            told.extend(&bytes);
            bytes = told;
        }
        let mut result = self.file.append(&bytes);
        if recovering {
            // Said to be well only when it is on the disk.
            result = result.and_then(|()| self.file.sync());
        }
        match result {
            Ok(()) => {
                self.length += bytes.len() as u64;
                self.unsaid = 0;
                self.shared.failed.store(false, Ordering::Relaxed);
            }
            Err(error) => {
                if !self.shared.failed.swap(true, Ordering::Relaxed) {
                    tracing::warn!("the event log: {error}");
                }
                self.unsaid += self.events;
                self.shared.lost.fetch_add(self.events, Ordering::Relaxed);
                // Should this fail too, the reader passes over what is torn.
                let _ = self.file.cut(self.length);
            }
        }
        self.events = 0;
        bytes.clear();
        self.gathered = bytes;
    }
}

fn encode(event: &Event, out: &mut Vec<u8>) {
    match postcard::to_stdvec(event) {
        Ok(payload) => {
            out.extend((payload.len() as u32).to_le_bytes());
            out.extend(crc32fast::hash(&payload).to_le_bytes());
            out.extend(payload);
        }
        Err(error) => tracing::error!("an event cannot be encoded: {error}"),
    }
}

fn write_all(receiver: &Receiver<Message>, out: &mut Appender<File>, path: &Path) {
    let mut flushed = Instant::now();
    let mut summarised = out.length;
    loop {
        let mut asked = None;
        let important = match receiver.recv_timeout(FLUSH) {
            Ok(Message::Event(event)) => {
                out.take(&event);
                !matches!(event.as_ref(), Event::Step(_))
            }
            Ok(Message::Settle(answer)) => {
                asked = Some(answer);
                true
            }
            Err(RecvTimeoutError::Timeout) => true,
            Err(RecvTimeoutError::Disconnected) => break,
        };
        let failing = out.shared.failed.load(Ordering::Relaxed);
        let due = flushed.elapsed() >= FLUSH;
        if due || (!failing && (important || out.gathered.len() >= GATHERED)) {
            // (Behind what was cut the next write would leave a hole.)
            if out.file.metadata().is_ok_and(|m| m.len() < out.length) {
                out.begin_again(path);
            }
            out.flush();
        }
        if let Some(answer) = asked {
            // (Who asked waits.)
            let _ = answer.send(());
        }
        if due {
            restore(&mut out.file, path, &out.shared);
            flushed = Instant::now();
            if out.length >= summarised + SUMMARISED {
                summarised = out.length;
                summarise(path);
            }
        }
    }
    out.flush();
    if out.length >= summarised + CLOSED {
        summarise(path);
    }
    if let Err(error) = out.file.sync() {
        tracing::warn!("{}: {error}", path.display());
    }
}

impl Appender<File> {
    /// Someone cut the file under the run: what is gone is gone; what is left, and what comes, can be read.
    fn begin_again(&mut self, path: &Path) {
        let header = HEADER.len() as u64;
        let sound = LogReader::sound_length(path).map_or(0, |(sound, _)| sound);
        let (kept, mut bytes) = match sound > header {
            true => (sound, Vec::new()),
            // Without the records that say what the run is, no other can be understood.
            false => (0, [HEADER, &self.started].concat()),
        };
        let lost = self.length.saturating_sub(kept.max(header));
        let message = format!(
            "the event log was cut under the run: {lost} bytes that it held before this are gone"
        );
        let step = self.newest;
        encode(&Event::Warning { step, message }, &mut bytes);
        let written = self.file.cut(kept).and_then(|()| self.file.append(&bytes));
        match written {
            Ok(()) => self.length = kept + bytes.len() as u64,
            Err(error) => tracing::warn!("{} was cut: {error}", path.display()),
        }
        self.shared.cut.fetch_add(1, Ordering::Relaxed);
        // The summary is of a log that is no more.
        summarise(path);
    }
}

/// So that the next reader need not read all.
fn summarise(path: &Path) {
    if let Err(error) = Summary::update(path) {
        tracing::warn!("{error}");
    }
}

/// Writes the log again where someone removed it under the run: all of it is still there while the
/// file is open.
fn restore(file: &mut File, path: &Path, shared: &Shared) {
    if path.exists() {
        return;
    }
    let copy = || -> io::Result<File> {
        let mut bytes = Vec::new();
        file.seek(SeekFrom::Start(0))?;
        file.read_to_end(&mut bytes)?;
        write_whole(path, &bytes)?;
        let mut again = File::options().read(true).write(true).open(path)?;
        again.seek(SeekFrom::End(0))?;
        Ok(again)
    };
    let mut copy = copy;
    match copy() {
        Ok(again) => {
            *file = again;
            shared.restored.fetch_add(1, Ordering::Relaxed);
        }
        Err(error) => {
            tracing::warn!("{} was removed: {error}", path.display());
            // The open file goes on where it was.
            let _ = file.seek(SeekFrom::End(0));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::read_log;
    use super::*;

    /// A disk with room for so many bytes.
    struct Full {
        bytes: Vec<u8>,
        room: usize,
    }

    impl Storage for Full {
        fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
            let fits = bytes.len().min(self.room.saturating_sub(self.bytes.len()));
            self.bytes.extend(&bytes[..fits]);
            if fits < bytes.len() {
                return Err(io::Error::from(io::ErrorKind::StorageFull));
            }
            Ok(())
        }

        fn cut(&mut self, length: u64) -> io::Result<()> {
            self.bytes.truncate(length as usize);
            Ok(())
        }

        fn sync(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn event(step: u64) -> Event {
        Event::Warning {
            step,
            message: "m".repeat(step as usize % 50),
        }
    }

    #[test]
    fn a_disk_that_fills_up_and_is_freed_leaves_whole_records_and_says_what_is_missing() {
        for room in 60..400 {
            let shared = Arc::new(Shared::default());
            let mut out = Appender {
                file: Full {
                    bytes: HEADER.to_vec(),
                    room,
                },
                length: HEADER.len() as u64,
                gathered: Vec::new(),
                events: 0,
                unsaid: 0,
                newest: 0,
                started: Vec::new(),
                shared: shared.clone(),
            };
            for step in 0..20 {
                out.take(&event(step));
                out.flush();
            }
            assert!(shared.failed.load(Ordering::Relaxed), "{room}");
            let lost = shared.lost.load(Ordering::Relaxed);
            out.file.room = usize::MAX;
            for step in 20..25 {
                out.take(&event(step));
                out.flush();
            }
            assert!(!shared.failed.load(Ordering::Relaxed), "{room}");
            let folder = tempfile::tempdir().expect("a folder");
            let path = folder.path().join("events.log");
            std::fs::write(&path, &out.file.bytes).expect("written");
            let (events, sound) = read_log(&path).expect("readable");
            assert_eq!(sound as usize, out.file.bytes.len(), "{room}: all is sound");
            let kept = 20 - lost;
            assert!(
                events
                    .iter()
                    .take(kept as usize)
                    .cloned()
                    .eq((0..kept).map(event))
            );
            let told = &events[kept as usize];
            assert!(
                matches!(told, Event::Warning { message, .. } if message.starts_with(&format!("{lost} events"))),
                "{told:?}"
            );
            assert!(
                events[kept as usize + 1..]
                    .iter()
                    .cloned()
                    .eq((20..25).map(event))
            );
        }
    }

    #[test]
    fn a_log_that_is_removed_under_the_run_is_written_again() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("events.log");
        let writer = LogWriter::open(&path).expect("created");
        writer.push(Arc::new(event(1)));
        writer.settle();
        assert!(path.metadata().expect("there").len() > HEADER.len() as u64);
        std::fs::remove_file(&path).expect("removed");
        let began = Instant::now();
        while writer.restored() == 0 {
            assert!(began.elapsed() < Duration::from_secs(60), "not restored");
            std::thread::sleep(Duration::from_millis(10));
        }
        writer.push(Arc::new(event(2)));
        drop(writer);
        let (events, _) = read_log(&path).expect("readable");
        assert_eq!(events, [event(1), event(2)]);
    }
}
