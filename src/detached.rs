//! Training without a terminal: in a process of its own that outlives the one that starts it.

use std::ffi::OsStr;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::experiment::Loaded;
use crate::face::{CliError, Run, print};
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
