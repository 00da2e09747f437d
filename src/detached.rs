//! Training without a terminal: in a process of its own that outlives the one that starts it.

use std::ffi::OsStr;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::experiment::Loaded;
use crate::face::{CliError, Run, Screen, print};
#[cfg(unix)]
use crate::run::control::{Controls, Request};
use crate::run::{RunFolder, RunLock};

/// How long a new process has to take its run: it reads its data first.
const PATIENCE: Duration = Duration::from_secs(60);

/// Starts this program with these arguments beside the terminal, and waits until it owns the run.
/// Returns the process's number.
pub(crate) fn start(folder: &RunFolder, arguments: &[&OsStr]) -> Result<u32, CliError> {
    let failed = |what: &Path, e: std::io::Error| {
        CliError::Failed(format!("not detached: {}: {e}", what.display()))
    };
    let program = std::env::current_exe()
        .map_err(|e| CliError::Failed(format!("not detached: this program's own file: {e}")))?;
    let said = folder.path().join("detached.txt");
    let file = std::fs::File::create(&said).map_err(|e| failed(&said, e))?;
    let mut command = Command::new(&program);
    command
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(file);
    // A group of its own: what a terminal sends to its programs, Ctrl-C or a hangup, passes it by.
    #[cfg(unix)]
    std::os::unix::process::CommandExt::process_group(&mut command, 0);
    let mut child = command.spawn().map_err(|e| failed(&program, e))?;
    let started = Instant::now();
    loop {
        let holder = RunLock::holder(folder.path());
        if holder.flatten().is_some_and(|h| h.pid == child.id()) {
            return Ok(child.id());
        }
        if let Some(status) = child.try_wait().map_err(|e| failed(&program, e))? {
            let text = std::fs::read_to_string(&said).unwrap_or_default();
            if status.success() {
                // Over before anyone could look.
                return Ok(child.id());
            }
            return Err(CliError::Failed(format!("not detached: {}", text.trim())));
        }
        if started.elapsed() > PATIENCE {
            return Err(CliError::Failed(format!(
                "process {} did not take over the run within {} s; {} may say why",
                child.id(),
                PATIENCE.as_secs(),
                said.display()
            )));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Says where a detached run is and how to come back to it.
pub(crate) fn announce(folder: &RunFolder, pid: u32) -> Result<(), CliError> {
    let path = folder.path().display();
    print(&format!(
        "process {pid} goes on training in {path}\n\
         bitscope attach {path}   watches and steers; bitscope watch only watches\n"
    ))
}

/// What `attach --send` asks for.
#[derive(Debug, Clone, Copy, clap::ValueEnum)]
pub(crate) enum Sent {
    /// Pause after the current step until resumed
    Pause,
    /// Go on
    Resume,
    /// Take one step, then pause
    Step,
    /// Write a checkpoint now
    Checkpoint,
    /// End the run with a checkpoint
    Stop,
}

/// Trains in a process of its own: the experiment has been checked here, where someone reads.
pub(crate) fn train(loaded: &Loaded, run: &Run) -> Result<u8, CliError> {
    let folder = run.new_folder(loaded)?;
    let steps = run.steps.map(|n| n.to_string());
    let mut arguments: Vec<&OsStr> = vec!["train".as_ref(), "--plain".as_ref()];
    if let Some(experiment) = &run.experiment {
        arguments.push(experiment.as_ref());
    }
    for setting in &run.set {
        arguments.extend([OsStr::new("--set"), setting.as_ref()]);
    }
    if let Some(steps) = &steps {
        arguments.extend([OsStr::new("--steps"), steps.as_ref()]);
    }
    arguments.extend([OsStr::new("--into"), folder.path().as_os_str()]);
    let started = start(&folder, &arguments);
    if started.is_err() && !folder.log().exists() {
        // Nothing was recorded: an empty folder would only be in the way.
        let _ = std::fs::remove_dir_all(folder.path());
    }
    announce(&folder, started?)?;
    Ok(0)
}

/// Takes the controls of a run that another process trains: for one thing, or with the workbench.
#[cfg(unix)]
pub(crate) fn attach(
    folder: &RunFolder,
    loaded: impl FnOnce() -> Result<Loaded, CliError>,
    send: Option<Sent>,
    runs: &Path,
    screen: Screen,
) -> Result<u8, CliError> {
    let refused = |e: std::io::Error| {
        let path = folder.path().display();
        let why = match e.kind() {
            std::io::ErrorKind::NotFound | std::io::ErrorKind::ConnectionRefused => {
                "no process trains it; hint: `bitscope resume` goes on with it".into()
            }
            _ => e.to_string(),
        };
        CliError::Usage(format!("{path}: {why}"))
    };
    let mut controls = Controls::take(folder.path()).map_err(refused)?;
    let request = match send {
        Some(Sent::Pause) => Request::Pause,
        Some(Sent::Resume) => Request::Resume,
        Some(Sent::Step) => Request::Step(1),
        Some(Sent::Checkpoint) => Request::Checkpoint,
        Some(Sent::Stop) => Request::Stop,
        None => {
            let manifest = folder.manifest().ok();
            let (source, set) = manifest.map_or((None, Vec::new()), |m| (m.source, m.set));
            let run = Run {
                experiment: source.filter(|p| p.is_file()),
                set,
                steps: None,
                paused: false,
                runs: runs.to_owned(),
                into: None,
                screen,
            };
            return crate::tui::attach(&loaded()?, &run, folder, controls);
        }
    };
    controls.ask(&request).map_err(refused)?;
    Ok(0)
}

/// Without Unix sockets there are no controls to take.
#[cfg(not(unix))]
pub(crate) fn attach(
    _: &RunFolder,
    _: impl FnOnce() -> Result<Loaded, CliError>,
    _: Option<Sent>,
    _: &Path,
    _: Screen,
) -> Result<u8, CliError> {
    Err(CliError::Usage(
        "`attach` needs Unix sockets; hint: `watch` works without".into(),
    ))
}
