//! The append-only event log.
//!
//! A header line, then records: length (u32, little endian), CRC-32 of the payload, payload
//! (postcard). A torn tail is cut off when the log is opened again; nothing before it is lost.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::event::Event;

mod detail;
mod reader;

pub use detail::{Detail, Index};
pub use reader::{LogReader, read_log};

const HEADER: &[u8] = b"bitscope events 3\n";
/// Records that wait for the disk at most; then training waits too, since the log loses nothing.
const WAITING: usize = 4096;
/// A record longer than this is no record.
const LONGEST: u32 = 1 << 26;
const FLUSH: Duration = Duration::from_millis(500);

/// Why a log cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The file cannot be read or written.
    #[error("{path}: {source}")]
    Io {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It is no event log of this version.
    #[error("{path}: at byte 0: not an event log of this version; expected \"bitscope events 3\"")]
    Header {
        /// Which file.
        path: PathBuf,
    },
}

impl LogError {
    fn io(path: &Path) -> impl FnOnce(io::Error) -> Self + '_ {
        move |source| Self::Io {
            path: path.to_owned(),
            source,
        }
    }
}

/// Writes events on a thread of its own. Lossless: it makes training wait rather than drop.
pub struct LogWriter {
    sender: Option<SyncSender<Arc<Event>>>,
    thread: Option<JoinHandle<()>>,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    failed: AtomicBool,
    lost: AtomicU64,
    bytes: AtomicU64,
}

impl LogWriter {
    /// Creates a log, or continues one after its sound part.
    ///
    /// # Errors
    /// Where the file cannot be created or is something else.
    pub fn open(path: &Path) -> Result<Self, LogError> {
        let exists = path.metadata().is_ok_and(|m| m.len() > 0);
        let sound = if exists {
            LogReader::sound_length(path)?
        } else {
            0
        };
        let mut options = File::options();
        let mut file = options
            .create(true)
            .truncate(false)
            .write(true)
            .open(path)
            .map_err(LogError::io(path))?;
        file.set_len(sound).map_err(LogError::io(path))?;
        io::Seek::seek(&mut file, io::SeekFrom::End(0)).map_err(LogError::io(path))?;
        if sound == 0 {
            file.write_all(HEADER).map_err(LogError::io(path))?;
        }
        let (sender, receiver) = sync_channel(WAITING);
        let shared = Arc::new(Shared::default());
        let state = shared.clone();
        let path = path.to_owned();
        let thread = std::thread::Builder::new()
            .name("log".into())
            .spawn(move || write_all(&receiver, file, &path, &state))
            .expect("the system can start a thread");
        Ok(Self {
            sender: Some(sender),
            thread: Some(thread),
            shared,
        })
    }

    /// Appends an event.
    pub fn push(&self, event: Arc<Event>) {
        if let Some(sender) = &self.sender {
            // The thread runs until the sender is dropped.
            let _ = sender.send(event);
        }
    }

    /// Whether writing fails now, and how many events were lost to that.
    pub fn trouble(&self) -> Option<u64> {
        let failed = self.shared.failed.load(Ordering::Relaxed);
        failed.then(|| self.shared.lost.load(Ordering::Relaxed))
    }

    /// Bytes written by this writer.
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

fn write_all(receiver: &Receiver<Arc<Event>>, file: File, path: &Path, shared: &Shared) {
    let mut out = BufWriter::with_capacity(1 << 16, file);
    let mut flushed = Instant::now();
    let note = |result: io::Result<()>, events: u64| match result {
        Ok(()) => shared.failed.store(false, Ordering::Relaxed),
        Err(error) => {
            if !shared.failed.swap(true, Ordering::Relaxed) {
                tracing::warn!("{}: {error}", path.display());
            }
            shared.lost.fetch_add(events, Ordering::Relaxed);
        }
    };
    loop {
        match receiver.recv_timeout(FLUSH) {
            Ok(event) => {
                let payload = match postcard::to_stdvec(event.as_ref()) {
                    Ok(payload) => payload,
                    Err(error) => {
                        tracing::error!("an event cannot be encoded: {error}");
                        continue;
                    }
                };
                let mut head = (payload.len() as u32).to_le_bytes().to_vec();
                head.extend(crc32fast::hash(&payload).to_le_bytes());
                shared
                    .bytes
                    .fetch_add(8 + payload.len() as u64, Ordering::Relaxed);
                let result = out.write_all(&head).and_then(|()| out.write_all(&payload));
                if result.is_err() || shared.failed.load(Ordering::Relaxed) {
                    note(result, 1);
                }
                let important = !matches!(event.as_ref(), Event::Step(_));
                if important || flushed.elapsed() >= FLUSH {
                    note(out.flush(), 0);
                    flushed = Instant::now();
                }
            }
            Err(RecvTimeoutError::Timeout) => {
                note(out.flush(), 0);
                flushed = Instant::now();
            }
            Err(RecvTimeoutError::Disconnected) => break,
        }
    }
    note(out.flush().and_then(|()| out.get_ref().sync_all()), 0);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn events(n: u64) -> Vec<Event> {
        (0..n)
            .map(|step| Event::Warning {
                step,
                message: "m".repeat(step as usize % 50),
            })
            .collect()
    }

    #[test]
    fn a_torn_tail_is_cut_and_nothing_before_it_is_lost() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("events.log");
        let all = events(100);
        let writer = LogWriter::open(&path).expect("created");
        all.iter().for_each(|e| writer.push(Arc::new(e.clone())));
        drop(writer);
        let bytes = std::fs::read(&path).expect("written");
        assert_eq!(
            read_log(&path).expect("sound"),
            (all.clone(), bytes.len() as u64)
        );
        for cut in [1, 7, 20, 300] {
            std::fs::write(&path, &bytes[..bytes.len() - cut]).expect("cut");
            let (kept, _) = read_log(&path).expect("readable");
            assert_eq!(kept, all[..kept.len()]);
            let writer = LogWriter::open(&path).expect("continued");
            writer.push(Arc::new(Event::Paused { step: 7 }));
            drop(writer);
            let (again, _) = read_log(&path).expect("sound");
            assert_eq!(again.len(), kept.len() + 1);
            assert_eq!(again.last(), Some(&Event::Paused { step: 7 }));
        }
        let mut damaged = bytes.clone();
        let middle = bytes.len() / 2;
        damaged[middle] ^= 0xff;
        std::fs::write(&path, damaged).expect("damaged");
        let (kept, _) = read_log(&path).expect("readable");
        assert!(kept.len() > 10 && kept.len() < 90, "{}", kept.len());
    }

    #[test]
    fn another_file_is_refused() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("events.log");
        std::fs::write(&path, "something else").expect("written");
        assert!(matches!(
            LogWriter::open(&path),
            Err(LogError::Header { .. })
        ));
    }
}
