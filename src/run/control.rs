//! Steering a run from another process: a socket in the run folder, for its user only.
//!
//! The process that trains listens on `control`; whoever is connected holds the controls until the
//! connection ends, and a second one is told who does. A line of JSON is a [`Request`], and so is the
//! [`Reply`]. Events do not travel here: they are in the log, which anyone may follow. A connection
//! that breaks changes nothing for the run.

use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::event::Command;
use super::lock::Holder;
use crate::experiment::resolve_text;

/// Version of what is spoken here; both sides say theirs first.
const VERSION: u32 = 1;
/// A system takes no longer path for a socket.
const LONGEST_PATH: usize = 100;
/// How long the other side has for an answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// What a run can be asked for from outside.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Request {
    /// Opens the conversation: who asks, and in which version.
    Hello {
        /// Version of what is spoken.
        version: u32,
        /// The process that asks.
        holder: Holder,
    },
    /// Stop after the current step until told otherwise.
    Pause,
    /// Go on.
    Resume,
    /// Take this many steps, then pause.
    Step(u64),
    /// Write a checkpoint now.
    Checkpoint,
    /// End the run with a checkpoint.
    Stop,
    /// Initialise a layer's quantizers anew.
    Reinitialise(String),
    /// Take over live and epoch settings of this resolved experiment, TOML.
    Apply(String),
}

/// What comes back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reply {
    /// Passed on; the run acknowledges it with an event.
    Taken,
    /// Not passed on, and why.
    Refused(String),
}

impl Request {
    /// The same as a command of this process, where it is one that travels.
    pub fn of(command: &Command) -> Self {
        match command {
            Command::Pause => Self::Pause,
            Command::Resume => Self::Resume,
            Command::Step(n) => Self::Step(*n),
            Command::CheckpointNow => Self::Checkpoint,
            Command::Stop => Self::Stop,
            Command::Reinitialise(layer) => Self::Reinitialise(layer.clone()),
            Command::Apply(experiment) => Self::Apply(experiment.values.to_toml()),
        }
    }

    fn command(self) -> Result<Command, String> {
        Ok(match self {
            Self::Hello { .. } => return Err("greeted twice".into()),
            Self::Pause => Command::Pause,
            Self::Resume => Command::Resume,
            Self::Step(n) => Command::Step(n),
            Self::Checkpoint => Command::CheckpointNow,
            Self::Stop => Command::Stop,
            Self::Reinitialise(layer) => Command::Reinitialise(layer),
            Self::Apply(text) => {
                let experiment = resolve_text("experiment.toml", &text);
                Command::Apply(Arc::new(experiment.map_err(|e| e.to_string())?))
            }
        })
    }
}

/// The listening side, until it is dropped.
#[derive(Debug)]
pub struct ControlServer {
    path: PathBuf,
    over: Arc<AtomicBool>,
}

impl ControlServer {
    /// Listens in a run folder that this process owns, on a thread of its own.
    ///
    /// # Errors
    /// Where there can be no socket: the path is too long, or the disk has none.
    pub fn start(folder: &Path, commands: Sender<Command>) -> io::Result<Self> {
        let path = path_of(folder);
        if path.as_os_str().len() > LONGEST_PATH {
            let limit = format!("a socket's path has at most {LONGEST_PATH} bytes");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, limit));
        }
        // Whoever listened there before is gone: this process owns the run.
        match std::fs::remove_file(&path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
            _ => {}
        }
        let listener = UnixListener::bind(&path)?;
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o600))?;
        let over = Arc::new(AtomicBool::new(false));
        let (ended, held) = (over.clone(), Arc::new(Mutex::new(None)));
        std::thread::Builder::new()
            .name("control".into())
            .spawn(move || {
                for stream in listener.incoming() {
                    if ended.load(Ordering::Relaxed) {
                        return;
                    }
                    let Ok(stream) = stream else { continue };
                    let (commands, held) = (commands.clone(), held.clone());
                    let answer = move || {
                        // A connection that breaks is an end like any other.
                        let _ = converse(&stream, &commands, &held);
                    };
                    let thread = std::thread::Builder::new().name("controls".into());
                    if let Err(error) = thread.spawn(answer) {
                        tracing::warn!("no answer on the control socket: {error}");
                    }
                }
            })?;
        Ok(Self { path, over })
    }
}

impl Drop for ControlServer {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        // Wakes the thread up; it may be gone already.
        let _ = UnixStream::connect(&self.path);
        let _ = std::fs::remove_file(&self.path);
    }
}

/// Who holds the controls, while someone does.
type Held = Arc<Mutex<Option<Holder>>>;

/// Gives the controls back however the conversation ends.
struct Hold(Held);

impl Drop for Hold {
    fn drop(&mut self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

fn converse(stream: &UnixStream, commands: &Sender<Command>, held: &Held) -> io::Result<()> {
    let mut lines = BufReader::new(stream).lines();
    let mut hold = None;
    while let Some(line) = lines.next().transpose()? {
        let outcome = match (serde_json::from_str(&line), &hold) {
            (Err(error), _) => Err(format!("not understood: {error}")),
            (Ok(Request::Hello { version, holder }), None) => {
                greet(version, holder, held).map(|taken| hold = Some(taken))
            }
            (Ok(_), None) => Err("expected a greeting first".into()),
            (Ok(request), Some(_)) => Request::command(request).and_then(|command| {
                let ended = |_| "the run has ended".to_owned();
                commands.send(command).map_err(ended)
            }),
        };
        let refused = outcome.is_err() && hold.is_none();
        write_line(
            stream,
            &outcome.map_or_else(Reply::Refused, |()| Reply::Taken),
        )?;
        if refused {
            return Ok(());
        }
    }
    Ok(())
}

fn greet(version: u32, holder: Holder, held: &Held) -> Result<Hold, String> {
    if version != VERSION {
        return Err(format!(
            "version {version} of the control protocol; this run uses version {VERSION}"
        ));
    }
    let mut now = held.lock().unwrap_or_else(PoisonError::into_inner);
    match now.as_ref() {
        Some(other) => Err(format!("the controls are held by {other}")),
        None => {
            *now = Some(holder);
            Ok(Hold(held.clone()))
        }
    }
}

fn write_line(mut stream: &UnixStream, value: &impl Serialize) -> io::Result<()> {
    let mut line = serde_json::to_vec(value).map_err(io::Error::other)?;
    line.push(b'\n');
    stream.write_all(&line)
}

/// The controls of a run that another process trains.
#[derive(Debug)]
pub struct Controls {
    stream: UnixStream,
    replies: BufReader<UnixStream>,
}

impl Controls {
    /// Takes the controls of a run.
    ///
    /// # Errors
    /// Where nobody listens, or someone else holds them.
    pub fn take(folder: &Path) -> io::Result<Self> {
        let stream = UnixStream::connect(path_of(folder))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        let replies = BufReader::new(stream.try_clone()?);
        let mut controls = Self { stream, replies };
        controls.ask(&Request::Hello {
            version: VERSION,
            holder: Holder::this_process(),
        })?;
        Ok(controls)
    }

    /// Asks for something; what it led to comes as an event of the run.
    ///
    /// # Errors
    /// Where the run refuses, or the connection is gone.
    pub fn ask(&mut self, request: &Request) -> io::Result<()> {
        write_line(&self.stream, request)?;
        let mut line = String::new();
        let read = self
            .replies
            .read_line(&mut line)
            .map_err(|e| match e.kind() {
                io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => io::Error::new(
                    io::ErrorKind::TimedOut,
                    format!(
                        "no answer within {} s: is the training process suspended?",
                        PATIENCE.as_secs()
                    ),
                ),
                _ => e,
            });
        if read? == 0 {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof));
        }
        match serde_json::from_str(&line).map_err(io::Error::other)? {
            Reply::Taken => Ok(()),
            Reply::Refused(why) => Err(io::Error::other(why)),
        }
    }
}

fn path_of(folder: &Path) -> PathBuf {
    folder.join("control")
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use super::*;
    use crate::experiment::load_embedded;

    #[test]
    fn every_request_goes_there_and_back() {
        let experiment = load_embedded("e.toml", "[optimizer]\nlr = 0.5\n", &Vec::new());
        let experiment = experiment.expect("valid").experiment;
        let commands = [
            Command::Pause,
            Command::Resume,
            Command::Step(7),
            Command::CheckpointNow,
            Command::Stop,
            Command::Reinitialise("conv1".into()),
            Command::Apply(experiment),
        ];
        for command in commands {
            let text = serde_json::to_string(&Request::of(&command)).expect("written");
            let back: Request = serde_json::from_str(&text).expect("read");
            let back = back.command().expect("a command");
            assert_eq!(format!("{back:?}"), format!("{command:?}"));
        }
    }

    #[test]
    fn one_holds_the_controls_and_a_broken_connection_gives_them_back() {
        let folder = tempfile::tempdir().expect("a folder");
        let (sender, commands) = channel();
        let server = ControlServer::start(folder.path(), sender).expect("listening");
        let mode = std::fs::metadata(path_of(folder.path())).expect("there");
        assert_eq!(mode.permissions().mode() & 0o777, 0o600);
        let mut first = Controls::take(folder.path()).expect("free");
        first.ask(&Request::Pause).expect("taken");
        assert!(matches!(commands.recv(), Ok(Command::Pause)));
        let refused = Controls::take(folder.path()).expect_err("held").to_string();
        let own = format!("process {}", std::process::id());
        assert!(refused.contains(&own), "{refused}");
        let bad = first.ask(&Request::Apply("nonsense = 1".into()));
        assert!(
            bad.expect_err("refused")
                .to_string()
                .contains("unknown key")
        );
        drop(first);
        let again = std::iter::repeat_with(|| Controls::take(folder.path()));
        let mut again = again.flatten().next().expect("free again");
        again.ask(&Request::Stop).expect("taken");
        assert!(matches!(commands.recv(), Ok(Command::Stop)));
        drop(server);
        assert!(!path_of(folder.path()).exists());
        assert!(Controls::take(folder.path()).is_err());
    }

    #[test]
    fn what_is_no_request_is_answered_and_does_no_harm() {
        let folder = tempfile::tempdir().expect("a folder");
        let (sender, commands) = channel();
        let _server = ControlServer::start(folder.path(), sender).expect("listening");
        for text in ["\n", "{}\n", "\"pause\"\n", "\u{0}\n"] {
            let mut stream = UnixStream::connect(path_of(folder.path())).expect("listening");
            stream.write_all(text.as_bytes()).expect("sent");
            let mut line = String::new();
            BufReader::new(stream)
                .read_line(&mut line)
                .expect("answered");
            assert!(line.contains("refused"), "{text:?}: {line}");
        }
        assert!(commands.try_recv().is_err());
    }
}
