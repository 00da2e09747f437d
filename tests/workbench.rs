//! The real program on a pseudo-terminal.

mod common;

use std::io::{Read, Write};
use std::path::Path;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use common::{FOREIGN, SMALL, program, write};
use portable_pty::{Child, CommandBuilder, MasterPty, PtySize, native_pty_system};

const PATIENCE: Duration = Duration::from_secs(60);

/// The program, its terminal, and everything it wrote.
struct Terminal {
    child: Box<dyn Child + Send + Sync>,
    master: Box<dyn MasterPty + Send>,
    keys: Box<dyn Write + Send>,
    output: Receiver<Vec<u8>>,
    parser: vt100::Parser,
    raw: Vec<u8>,
}

/// A terminal of its own, whatever the test itself was started by.
fn plain(command: &mut CommandBuilder) {
    FOREIGN.iter().for_each(|name| command.env_remove(name));
    command.env("TERM", "xterm-256color");
    command.env("LANG", "C.UTF-8");
}

fn size(columns: u16, rows: u16) -> PtySize {
    PtySize {
        rows,
        cols: columns,
        pixel_width: 0,
        pixel_height: 0,
    }
}

impl Terminal {
    fn start(folder: &Path, arguments: &[&str], variables: &[(&str, &str)]) -> Self {
        let pair = native_pty_system()
            .openpty(size(120, 40))
            .expect("a terminal");
        let mut command = CommandBuilder::new(program());
        command.args(arguments);
        command.cwd(folder);
        plain(&mut command);
        for (name, value) in variables {
            command.env(name, value);
        }
        let child = pair.slave.spawn_command(command).expect("started");
        drop(pair.slave);
        let mut reader = pair.master.try_clone_reader().expect("a reader");
        let keys = pair.master.take_writer().expect("a writer");
        let (sender, output) = channel();
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(n) = reader.read(&mut buffer) {
                if n == 0 || sender.send(buffer[..n].to_vec()).is_err() {
                    break;
                }
            }
        });
        let parser = vt100::Parser::new(40, 120, 0);
        Self {
            child,
            master: pair.master,
            keys,
            output,
            parser,
            raw: Vec::new(),
        }
    }

    fn press(&mut self, keys: &str) {
        self.keys.write_all(keys.as_bytes()).expect("typed");
        self.keys.flush().expect("typed");
    }

    fn screen(&self) -> String {
        self.parser.screen().contents()
    }

    /// Reads until the screen shows what is wanted.
    fn until(&mut self, what: &str, seen: impl Fn(&str) -> bool) {
        assert!(
            self.within(PATIENCE, seen),
            "never saw {what}; the screen:\n{}",
            self.screen()
        );
    }

    /// Whether the screen shows what is wanted before long. A run's screen never rests, so the
    /// clock counts, not silence.
    fn within(&mut self, patience: Duration, seen: impl Fn(&str) -> bool) -> bool {
        let start = Instant::now();
        while !seen(&self.screen()) {
            if start.elapsed() > patience {
                return false;
            }
            if let Ok(bytes) = self.output.recv_timeout(Duration::from_millis(100)) {
                self.parser.process(&bytes);
                self.raw.extend(bytes);
            }
        }
        true
    }

    fn see(&mut self, text: &str) {
        self.until(text, |screen| screen.contains(text));
    }

    /// Waits for the end; returns the exit code. The terminal must have been restored.
    fn end(mut self) -> u32 {
        let start = Instant::now();
        let status = loop {
            if let Ok(bytes) = self.output.recv_timeout(Duration::from_millis(20)) {
                self.raw.extend(bytes);
            }
            match self.child.try_wait().expect("a status") {
                Some(status) => break status,
                None => assert!(start.elapsed() < PATIENCE, "never ended"),
            }
        };
        while let Ok(bytes) = self.output.recv_timeout(Duration::from_millis(200)) {
            self.raw.extend(bytes);
        }
        let raw = String::from_utf8_lossy(&self.raw).into_owned();
        let last = |sequence: &str| raw.rfind(sequence);
        assert!(
            last("\x1b[?1049l") > last("\x1b[?1049h"),
            "the alternate screen was left"
        );
        assert!(
            last("\x1b[?25h") > last("\x1b[?25l"),
            "the cursor is visible again"
        );
        status.exit_code()
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // A test that failed must not leave the program behind.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The terminal vanishes (a closed window, a lost connection): the run stops with a checkpoint and
/// the program ends.
#[cfg(unix)]
#[test]
fn a_terminal_that_vanishes_ends_the_program() {
    let folder = tempfile::tempdir().expect("a folder");
    write(folder.path(), "e.toml", SMALL);
    let pair = native_pty_system()
        .openpty(size(120, 40))
        .expect("a terminal");
    let mut command = CommandBuilder::new(program());
    command.args(["e.toml"]);
    command.cwd(folder.path());
    plain(&mut command);
    let mut child = pair.slave.spawn_command(command).expect("started");
    drop(pair.slave);
    let mut reader = pair.master.try_clone_reader().expect("a reader");
    let (mut seen, mut buffer) = (Vec::new(), [0; 4096]);
    while !String::from_utf8_lossy(&seen).contains("samples/s") {
        let n = reader.read(&mut buffer).expect("output");
        assert!(n > 0, "it ended: {}", String::from_utf8_lossy(&seen));
        seen.extend(&buffer[..n]);
    }
    drop(reader);
    drop(pair.master);
    let start = Instant::now();
    while child.try_wait().expect("a status").is_none() {
        if start.elapsed() > PATIENCE {
            let _ = child.kill();
            panic!("still running without its terminal");
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    let runs = bitscope::run::list_runs(&folder.path().join("runs"));
    assert_eq!(runs[0].1.status, bitscope::run::Status::Stopped);
}

#[test]
fn pages_reload_export_quit() {
    let folder = tempfile::tempdir().expect("a folder");
    write(folder.path(), "e.toml", SMALL);
    let mut terminal = Terminal::start(folder.path(), &["e.toml"], &[]);
    terminal.see("bitscope");
    terminal.see("samples/s");
    for (key, text) in [
        ("2", "q_max"),
        ("3", "layers x steps"),
        ("4", "step size d, weights"),
        ("5", "gradient norm of W"),
        ("6", "plane of step size d and range"),
        ("7", "kB per layer, weights"),
        ("8", "transfer curve"),
        ("9", "verdict"),
        ("0", "against the current experiment"),
        ("S", "samples/s   "),
        ("L", "quantizers in use"),
        ("T", "samples of N(0, 1)"),
        ("?", "write a checkpoint now"),
    ] {
        terminal.press(key);
        terminal.see(text);
    }
    terminal.press("\x1b");
    terminal.until("the help gone", |s| !s.contains("write a checkpoint now"));
    terminal.press("1");
    terminal.see("memory of weights");
    // A click on a tab opens its page; the wheel zooms, which the axis shows.
    terminal.press("\x1b[<0;16;2M\x1b[<0;16;2m");
    terminal.until("the layers' table", |s| {
        s.contains("q_max") && s.contains("clip %")
    });
    terminal.press("1\x1b[<64;50;10M\x1b[<65;50;10M");
    terminal.see("memory of weights");
    // Edit the file: the value changes on the screen.
    terminal.until("the first rate", |s| s.contains("lr 0.0100"));
    write(
        folder.path(),
        "e.toml",
        &SMALL.replace("lr = 0.01", "lr = 0.005"),
    );
    terminal.until("the new rate", |s| s.contains("lr 0.0050"));
    // Break it: the diagnostic shows its line, the run goes on.
    write(folder.path(), "e.toml", "[optimizer]\nlr = \"x\"\n");
    terminal.see("e.toml:2:6");
    terminal.press("\x1b");
    terminal.see("experiment file broken");
    write(
        folder.path(),
        "e.toml",
        &SMALL.replace("lr = 0.01", "lr = 0.002"),
    );
    terminal.until("the third rate", |s| {
        s.contains("lr 0.0020") && !s.contains("broken")
    });
    // A value set from the screen goes through the file, whose comments stay.
    let commented = format!(
        "# mine\n{}",
        SMALL.replace("lr = 0.01", "lr = 0.002 # small")
    );
    write(folder.path(), "e.toml", &commented);
    terminal.press(":set optimizer.lr 0.003\r");
    terminal.until("the fourth rate", |s| s.contains("lr 0.0030"));
    let text = std::fs::read_to_string(folder.path().join("e.toml")).expect("readable");
    assert!(
        text.contains("# mine") && text.contains("lr = 0.003 # small"),
        "{text}"
    );
    terminal.press(":theme high-contrast\r");
    terminal.press(":nonsense\r");
    terminal.see("no command");
    // A change that needs a new run asks first; no keeps the run.
    write(folder.path(), "e.toml", &SMALL.replace("\"u3\"", "\"u2\""));
    terminal.see("needs a new run");
    terminal.press("n");
    terminal.until("the question gone", |s| !s.contains("needs a new run"));
    terminal.press("x");
    terminal.see("exported ");
    terminal.press("X");
    let exported = |start: &str| {
        let runs = std::fs::read_dir(folder.path().join("runs"))
            .into_iter()
            .flatten()
            .flatten();
        let figures = runs.filter_map(|run| std::fs::read_dir(run.path().join("figures")).ok());
        let mut files = figures.flatten().flatten();
        files.any(|f| f.file_name().to_string_lossy().starts_with(start))
    };
    terminal.until("the picture of the screen", |_| exported("screen-"));
    terminal.master.resize(size(40, 10)).expect("resized");
    terminal.parser.screen_mut().set_size(10, 40);
    terminal.see("too small");
    terminal.master.resize(size(120, 40)).expect("resized");
    terminal.parser.screen_mut().set_size(40, 120);
    terminal.see("memory of weights");
    terminal.press("q");
    terminal.see("quit?");
    terminal.press("y");
    assert_eq!(terminal.end(), 0);
    let (run, _) = &bitscope::run::list_runs(&folder.path().join("runs"))[0];
    let figures = run.path().join("figures");
    let files: Vec<_> = std::fs::read_dir(&figures)
        .expect("figures")
        .map(|f| f.expect("one").path())
        .collect();
    let count = |extension: &str| {
        let of = files
            .iter()
            .filter(|f| f.extension().is_some_and(|e| e == extension));
        of.count()
    };
    assert!(
        count("png") >= 4 && count("svg") >= 3 && count("csv") >= 3,
        "{files:?}"
    );
    for file in &files {
        let bytes = std::fs::read(file).expect("readable");
        match file.extension().and_then(|e| e.to_str()) {
            Some("png") => {
                assert!(bytes.starts_with(b"\x89PNG"));
                let says = |text: &[u8]| bytes.windows(text.len()).any(|w| w == text);
                assert!(says(b"Experiment-SHA256") && says(b"Step"), "{file:?}");
            }
            Some("csv") => assert!(bytes.starts_with(b"panel,series,x,y,low,high")),
            Some("toml") => reproduces(file),
            _ => {}
        }
    }
    // The next start looks as this one was left.
    let layout = std::fs::read_to_string(folder.path().join("runs/.workbench.toml"));
    assert!(layout.expect("kept").contains("high-contrast"));
}

/// `bitscope plot FIGURE.toml` gives the same bytes as the export did.
fn reproduces(file: &std::path::Path) {
    for extension in ["png", "svg", "csv"] {
        let again = file.with_file_name(format!("again.{extension}"));
        let out = std::process::Command::new(program())
            .arg("plot")
            .arg(file)
            .arg("-o")
            .arg(&again)
            .output()
            .expect("runs");
        assert!(
            out.status.success(),
            "{}",
            String::from_utf8_lossy(&out.stderr)
        );
        let bytes = |path: &std::path::Path| std::fs::read(path).expect("readable");
        let same = bytes(&again) == bytes(&file.with_extension(extension));
        assert!(same, "{} as {extension}", file.display());
        std::fs::remove_file(&again).expect("removed");
    }
}

/// Resizes in a storm down to one cell, a paste of a megabyte, unknown escape sequences: the screen
/// comes back, and the terminal is left as it was.
#[test]
fn what_terminals_do_to_programs() {
    let folder = tempfile::tempdir().expect("a folder");
    write(folder.path(), "e.toml", SMALL);
    let mut terminal = Terminal::start(folder.path(), &["e.toml"], &[]);
    terminal.see("samples/s");
    for i in 0..60u16 {
        let (columns, rows) = match i % 4 {
            0 => (1, 1),
            1 => (300, 80),
            2 => (13, 3),
            _ => (80, 24),
        };
        terminal
            .master
            .resize(size(columns, rows))
            .expect("resized");
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    terminal.master.resize(size(120, 40)).expect("resized");
    terminal.parser.screen_mut().set_size(40, 120);
    terminal.press("1");
    terminal.until("the overview", |s| s.contains("memory of weights"));
    // Bracketed, as terminals paste where they are asked to: no letter of it is a command.
    let paste = format!("\x1b[200~{}\x1b[201~", "qy \n".repeat(250_000));
    terminal.press(&paste);
    terminal.press("\x1b]777;x\x07\x1bOZ\x1b[1;1;1;1Q\x1b[<999;1;1M");
    terminal.press("\x1b");
    // Escape and a key at once are Alt and that key, and the paste may still be on its way: a key
    // pressed again is what a person would do.
    let layers = (0..20).any(|_| {
        std::thread::sleep(Duration::from_millis(300));
        terminal.press("2");
        terminal.within(Duration::from_secs(2), |s| s.contains("q_max"))
    });
    assert!(layers, "never saw the layers:\n{}", terminal.screen());
    terminal.press("q");
    terminal.see("quit?");
    terminal.press("y");
    assert_eq!(terminal.end(), 0);
}

/// Ctrl-Z gives the terminal back and stops; continued, the screen is there again.
#[cfg(unix)]
#[test]
fn suspending_and_coming_back() {
    let folder = tempfile::tempdir().expect("a folder");
    write(folder.path(), "e.toml", SMALL);
    let mut terminal = Terminal::start(folder.path(), &["e.toml"], &[]);
    terminal.see("samples/s");
    let pid = terminal.child.process_id().expect("running");
    terminal.press("\x1a");
    let stopped = || {
        let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        text.rsplit_once(')')
            .is_some_and(|(_, rest)| rest.trim_start().starts_with('T'))
    };
    if std::path::Path::new("/proc/self/stat").exists() {
        let began = std::time::Instant::now();
        while !stopped() && began.elapsed().as_secs() < 20 {
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
        assert!(stopped());
    }
    let continued = std::process::Command::new("kill")
        .args(["-s", "CONT", &pid.to_string()])
        .status();
    assert!(continued.expect("sent").success());
    terminal.press("2");
    terminal.until("the layers", |s| s.contains("q_max"));
    terminal.press("q");
    terminal.see("quit?");
    terminal.press("y");
    assert_eq!(terminal.end(), 0);
}

#[test]
fn a_run_that_fails_leaves_the_screen_up() {
    let folder = tempfile::tempdir().expect("a folder");
    let text = SMALL.replace("[data]", "[data]\nsource = \"cifar10\"\npath = \"nowhere\"");
    write(folder.path(), "e.toml", &text);
    let mut terminal = Terminal::start(folder.path(), &["e.toml"], &[]);
    terminal.see("FAILED");
    terminal.press("L");
    terminal.see("nowhere");
    terminal.press("q");
    assert_eq!(terminal.end(), 0);
    let runs = bitscope::run::list_runs(&folder.path().join("runs"));
    assert_eq!(runs[0].1.status, bitscope::run::Status::Failed);
}

#[cfg(unix)]
#[test]
fn termination_restores_the_terminal() {
    let folder = tempfile::tempdir().expect("a folder");
    write(folder.path(), "e.toml", SMALL);
    for signal in ["TERM", "HUP", "QUIT"] {
        let mut terminal = Terminal::start(folder.path(), &["e.toml"], &[("NO_COLOR", "1")]);
        terminal.see("samples/s");
        let pid = terminal.child.process_id().expect("running").to_string();
        let killed = std::process::Command::new("kill")
            .args(["-s", signal, &pid])
            .status();
        assert!(killed.expect("sent").success());
        assert_eq!(terminal.end(), 130);
    }
}

/// A terminal that stopped reading (Ctrl-S, a stalled connection) holds up whoever writes to it; it must
/// not keep the program from ending, nor the run from its checkpoint.
#[cfg(unix)]
#[test]
fn a_terminal_that_does_not_read_does_not_keep_the_workbench_from_ending() {
    let folder = tempfile::tempdir().expect("a folder");
    write(folder.path(), "e.toml", SMALL);
    let pair = native_pty_system().openpty(size(200, 50)).expect("one");
    let mut command = CommandBuilder::new(program());
    command.args(["e.toml"]);
    command.cwd(folder.path());
    command.env("TERM", "xterm-256color");
    let mut child = pair.slave.spawn_command(command).expect("started");
    drop(pair.slave);
    let trains = |runs: &[(bitscope::run::RunFolder, bitscope::run::Manifest)]| {
        let read = |(run, _): &(bitscope::run::RunFolder, _)| bitscope::run::read_log(&run.log());
        let (events, _) = runs.first().and_then(|run| read(run).ok())?;
        let is_step = |e: &&bitscope::run::Event| matches!(e, bitscope::run::Event::Step(_));
        Some(events.iter().filter(is_step).count())
    };
    let root = folder.path().join("runs");
    let began = Instant::now();
    // Several frames: the terminal is full, and the screen's thread waits for it.
    while trains(&bitscope::run::list_runs(&root)).is_none_or(|steps| steps < 100) {
        assert!(began.elapsed() < PATIENCE, "never trained");
        std::thread::sleep(Duration::from_millis(50));
    }
    let pid = child.process_id().expect("running").to_string();
    let told = Instant::now();
    let killed = std::process::Command::new("kill").args([&pid]).status();
    assert!(killed.expect("sent").success());
    let code = loop {
        if let Some(status) = child.try_wait().expect("asked") {
            break status.exit_code();
        }
        if told.elapsed() > Duration::from_secs(20) {
            child.kill().expect("killed");
            panic!("it did not end");
        }
        std::thread::sleep(Duration::from_millis(50));
    };
    assert_eq!(code, 130);
    assert!(told.elapsed() < Duration::from_secs(8));
    let (run, manifest) = bitscope::run::list_runs(&root).remove(0);
    assert_eq!(manifest.status, bitscope::run::Status::Stopped);
    assert!(run.newest_checkpoint().is_some());
}

/// Edits of the file that a run came from reach it after a resume, over what was set when it began.
#[test]
fn a_resumed_run_takes_edits_of_the_file_it_came_from() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = write(folder.path(), "e.toml", SMALL);
    let arguments = [
        "train",
        "e.toml",
        "--plain",
        "--steps",
        "20",
        "--set",
        "train.epochs=300",
        "--set",
        "log.checkpoint_every=5",
    ];
    let output = common::command(folder.path(), &arguments).output();
    assert!(output.expect("started").status.success());
    let root = folder.path().join("runs");
    let run = bitscope::run::list_runs(&root)[0].0.clone();
    let mut terminal = Terminal::start(
        folder.path(),
        &["resume", &run.label(), "--set", "optimizer.momentum=0.5"],
        &[],
    );
    terminal.see("samples/s");
    let applied = || -> Vec<String> {
        let (events, _) = bitscope::run::read_log(&run.log()).expect("readable");
        let all = events.into_iter().filter_map(|e| match e {
            bitscope::run::Event::Applied { changes, .. } => Some(changes),
            _ => None,
        });
        all.flatten().collect()
    };
    terminal.press(":set optimizer.lr 0.0123\r");
    terminal.until("the change", |_| {
        applied().iter().any(|c| c.contains("0.0123"))
    });
    let text = std::fs::read_to_string(&file).expect("read");
    assert!(text.contains("lr = 0.0123"), "{text}");
    // An edit by hand, and nothing that nobody asked for.
    std::fs::write(&file, text.replace("0.0123", "0.0321")).expect("written");
    terminal.until("the edit", |_| {
        applied().iter().any(|c| c.contains("0.0321"))
    });
    let all = applied();
    assert_eq!(all.len(), 3, "{all:?}");
    assert!(all[0].starts_with("optimizer.momentum"), "{all:?}");
    terminal.press("q");
    terminal.see("quit?");
    terminal.press("y");
    assert_eq!(terminal.end(), 0);

    // A file that changed while the run rested: said, and taken where it is asked for.
    let manifest = || bitscope::run::list_runs(&root)[0].1.clone();
    assert_eq!(manifest().set.len(), 3, "{:?}", manifest().set);
    std::fs::write(&file, text.replace("0.0123", "0.0456")).expect("written");
    let mut terminal = Terminal::start(folder.path(), &["resume", &run.label()], &[]);
    terminal.see("has changed since");
    terminal.press("a");
    terminal.until("the change", |_| {
        applied().iter().any(|c| c.contains("0.0456"))
    });
    assert_eq!(applied().len(), 4);
    terminal.press("qy");
    assert_eq!(terminal.end(), 0);
}

/// Whoever watches a run sees it go on when the workbench that trains it detaches.
#[test]
fn a_watcher_sees_a_run_go_on_in_another_process() {
    let folder = tempfile::tempdir().expect("a folder");
    write(folder.path(), "e.toml", SMALL);
    let mut terminal = Terminal::start(folder.path(), &["e.toml"], &[]);
    terminal.see("samples/s");
    let root = folder.path().join("runs");
    let name = bitscope::run::list_runs(&root)[0].0.label();
    let mut watcher = Terminal::start(folder.path(), &["watch", &name], &[]);
    watcher.see("watching");
    let mut attached = Terminal::start(folder.path(), &["attach", &name], &[]);
    attached.see("attached");
    terminal.press("D");
    assert_eq!(terminal.end(), 0);
    watcher.until("the run go on", |s| {
        s.contains("watching") && s.contains("quantized")
    });
    // The controls follow the run to its new process.
    attached.until("the run go on", |s| s.contains("quantized"));
    attached.press(":stop run\r");
    let began = Instant::now();
    let status = || bitscope::run::list_runs(&root)[0].1.status;
    while status() != bitscope::run::Status::Stopped {
        assert!(began.elapsed() < PATIENCE, "{:?}", status());
        std::thread::sleep(Duration::from_millis(50));
    }
    attached.until("the end", |s| s.contains("attached stopped"));
    watcher.see("watching stopped");
    attached.press("q");
    assert_eq!(attached.end(), 0);
    watcher.press("q");
    assert_eq!(watcher.end(), 0);
}

/// Detached, its terminal gone, attached from twenty others that are left, killed or hung up, and stopped
/// from the last: the losses are those of a run that nobody touched.
#[test]
fn a_run_goes_on_without_its_terminal_and_is_taken_up_in_another() {
    let folder = tempfile::tempdir().expect("a folder");
    write(folder.path(), "e.toml", SMALL);
    let mut terminal = Terminal::start(folder.path(), &["e.toml"], &[]);
    terminal.see("samples/s");
    terminal.press("D");
    assert_eq!(terminal.end(), 0);
    let root = folder.path().join("runs");
    let run = bitscope::run::list_runs(&root)[0].0.clone();
    let name = run.label();
    for round in 0..20 {
        let mut terminal = Terminal::start(folder.path(), &["attach", &name], &[]);
        terminal.see("attached");
        if round % 4 == 0 {
            terminal.press(" ");
            terminal.see("PAUSED");
            terminal.press(" ");
        }
        terminal.until("training again", |s| s.contains("quantized"));
        match round {
            19 => {
                terminal.press(":stop run\r");
                terminal.until("the end", |s| s.contains("stopped"));
                terminal.press("q");
                assert_eq!(terminal.end(), 0);
            }
            // Left, killed outright, or its terminal closed under it.
            _ if round % 3 == 0 => {
                terminal.press("q");
                assert_eq!(terminal.end(), 0);
            }
            _ if round % 3 == 1 => drop(terminal),
            _ => {
                let Terminal { child, .. } = &mut terminal;
                let pid = child.process_id().expect("running").to_string();
                let hangup = std::process::Command::new("kill")
                    .args(["-s", "HUP", &pid])
                    .status();
                assert!(hangup.expect("sent").success());
                terminal.end();
            }
        }
    }
    let mut watcher = Terminal::start(folder.path(), &["watch", &name], &[]);
    watcher.see("watching stopped");
    watcher.press("q");
    assert_eq!(watcher.end(), 0);
    let losses = |run: &bitscope::run::RunFolder| -> std::collections::BTreeMap<u64, f64> {
        let (events, _) = bitscope::run::read_log(&run.log()).expect("readable");
        let steps = events.into_iter().filter_map(|e| match e {
            bitscope::run::Event::Step(r) => Some((r.step, r.loss)),
            _ => None,
        });
        steps.collect()
    };
    let seen = losses(&run);
    let steps = seen.keys().max().expect("steps").to_string();
    let arguments = [
        "train", "e.toml", "--plain", "--steps", &steps, "--runs", "whole",
    ];
    let output = common::command(folder.path(), &arguments).output();
    assert!(output.expect("started").status.success());
    let whole = bitscope::run::list_runs(&folder.path().join("whole"))[0]
        .0
        .clone();
    assert_eq!(seen, losses(&whole));
}
