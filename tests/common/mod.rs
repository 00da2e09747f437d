//! What several tests need: a small, fast experiment, and the program in a process of its own.

#![allow(dead_code, reason = "each test uses a part")]

use std::io::{BufRead, BufReader, Lines};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Output, Stdio};
use std::time::{Duration, Instant};

use bitscope::run::RunLock;

/// A run of a few hundred short steps on generated data.
pub const SMALL: &str = r#"
name = "small"
device = "flex"

[data]
samples = 640
difficulty = 0.3

[train]
batch = 16
epochs = 1000

[weights]
quantizer = "u3"

[activations]
quantizer = "u3"

[optimizer]
lr = 0.01

[log]
evaluate_every = 1
checkpoint_every = 1
"#;

/// Writes a text to a file of a folder.
pub fn write(folder: &Path, name: &str, text: &str) -> PathBuf {
    let path = folder.join(name);
    std::fs::write(&path, text).expect("written");
    path
}

/// The program under test.
pub fn program() -> &'static str {
    env!("CARGO_BIN_EXE_bitscope")
}

/// Variables with which a scheduler, a launcher or a terminal changes what the program does or says.
pub const FOREIGN: [&str; 14] = [
    "SLURM_ARRAY_TASK_ID",
    "SLURM_STEP_NUM_TASKS",
    "HQ_TASK_ID",
    "OMPI_COMM_WORLD_SIZE",
    "PMI_SIZE",
    "MPI_LOCALNRANKS",
    "PMIX_RANK",
    "NO_COLOR",
    "COLORTERM",
    "TMUX",
    "LC_ALL",
    "LC_CTYPE",
    "COLUMNS",
    "LINES",
];

/// The program in a folder, whatever the test itself was started by.
pub fn command(folder: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(program());
    command.args(arguments).current_dir(folder);
    FOREIGN.iter().for_each(|name| _ = command.env_remove(name));
    command
}

/// Both of a process's streams.
pub fn text(output: &Output) -> String {
    let all = [&output.stdout[..], &output.stderr].concat();
    String::from_utf8_lossy(&all).into_owned()
}

/// A process that does not outlive the test.
pub struct Process(Child);

impl Process {
    /// Starts it, its standard output on a pipe.
    pub fn piped(mut command: Command) -> Self {
        command.stdout(Stdio::piped());
        Self::start(command)
    }

    /// Starts it as it is.
    pub fn start(mut command: Command) -> Self {
        Self(command.spawn().expect("started"))
    }

    /// The lines that it writes.
    pub fn lines(&mut self) -> Lines<BufReader<ChildStdout>> {
        BufReader::new(self.0.stdout.take().expect("piped")).lines()
    }

    /// Sends it a signal by name.
    pub fn signal(&self, name: &str) {
        let number = self.0.id().to_string();
        let sent = Command::new("kill").args(["-s", name, &number]).status();
        assert!(sent.expect("sent").success());
    }

    /// Ends it as a power cut would.
    pub fn kill(&mut self) {
        self.0.kill().expect("killed");
        self.0.wait().expect("ended");
    }

    /// The exit code with which it ends by itself.
    pub fn ends(mut self) -> Option<i32> {
        let mut status = None;
        wait_until("the process ends", || {
            status = self.0.try_wait().expect("a status");
            status.is_some()
        });
        status.and_then(|s| s.code())
    }
}

impl std::ops::Deref for Process {
    type Target = Child;

    fn deref(&self) -> &Child {
        &self.0
    }
}

impl std::ops::DerefMut for Process {
    fn deref_mut(&mut self) -> &mut Child {
        &mut self.0
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // One that has ended is left alone.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Waits for something that comes, on however slow a machine, within two minutes.
pub fn wait_until(what: &str, mut is: impl FnMut() -> bool) {
    let began = Instant::now();
    while !is() {
        assert!(began.elapsed() < Duration::from_secs(120), "never: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Kills whoever trains the runs of a folder, and waits until the system has released them.
pub fn kill_owners(runs: &Path) {
    let entries = std::fs::read_dir(runs).into_iter().flatten().flatten();
    for run in entries.map(|entry| entry.path()) {
        wait_until("the run is released", || match RunLock::holder(&run) {
            None => true,
            Some(holder) => {
                if let Some(holder) = holder {
                    let number = holder.pid.to_string();
                    let _ = Command::new("kill").args(["-KILL", &number]).output();
                }
                false
            }
        });
    }
}
