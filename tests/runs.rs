//! The life of a run around its training: one owner, damage, signals, resuming, forking. With the
//! real program wherever a process matters.

mod common;

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use bitscope::run::{Event, LogReader, RunFolder, Split, Status, list_runs, read_log};
use bitscope::training::Checkpoint;
use common::{Process, SMALL, command, kill_owners, program, text, wait_until, write};

/// A folder with an experiment of a few epochs.
struct Place {
    folder: tempfile::TempDir,
}

impl Place {
    fn new(more: &str) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        write(folder.path(), "e.toml", &format!("{SMALL}{more}"));
        Self { folder }
    }

    fn command(&self, arguments: &[&str]) -> Command {
        command(self.folder.path(), arguments)
    }

    /// A process whose lines are read.
    fn start(&self, arguments: &[&str]) -> Process {
        Process::piped(self.command(arguments))
    }

    fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().expect("started")
    }

    /// Runs to success; returns standard output.
    fn succeed(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        assert!(output.status.success(), "{arguments:?}: {}", text(&output));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Runs to an error; returns what it says.
    fn fail(&self, code: i32, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        let said = text(&output);
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {said}");
        said
    }

    /// The one run that there is.
    fn recorded(&self) -> RunFolder {
        let runs = list_runs(&self.folder.path().join("runs"));
        assert_eq!(runs.len(), 1, "{runs:?}");
        runs[0].0.clone()
    }

    /// Trains so many steps.
    fn trained(&self, steps: u32) -> RunFolder {
        self.succeed(&["train", "e.toml", "--plain", "--steps", &steps.to_string()]);
        self.recorded()
    }

    /// Trains without an end, and waits until so many steps were taken.
    fn training(&self, steps: usize) -> Process {
        let mut child = self.start(&["train", "e.toml", "--json"]);
        let mut lines = child.lines();
        let step = |line: &std::io::Result<String>| {
            line.as_ref()
                .is_ok_and(|l| l.contains("\"event\":\"step\""))
        };
        assert_eq!(lines.by_ref().filter(step).take(steps).count(), steps);
        // Goes on being read, so that training goes on.
        std::thread::spawn(move || lines.for_each(drop));
        child
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // Of a test that fails, a detached run would train on.
        if std::thread::panicking() {
            kill_owners(&self.folder.path().join("runs"));
        }
    }
}

fn label(folder: &RunFolder) -> String {
    folder.label()
}

fn events(folder: &RunFolder) -> Vec<Event> {
    read_log(&folder.log()).expect("readable").0
}

/// Losses by step: of steps taken twice the later.
fn losses(folder: &RunFolder) -> std::collections::BTreeMap<u64, f64> {
    let all = events(folder).into_iter();
    all.filter_map(|e| match e {
        Event::Step(r) => Some((r.step, r.loss)),
        _ => None,
    })
    .collect()
}

fn warnings(folder: &RunFolder) -> String {
    let all = events(folder).into_iter();
    let texts = all.filter_map(|e| match e {
        Event::Warning { message, .. } => Some(message),
        _ => None,
    });
    texts.collect::<Vec<_>>().join("\n")
}

#[test]
fn a_run_that_trains_belongs_to_its_process_and_killing_that_frees_it() {
    let place = Place::new("");
    let mut child = place.training(40);
    let run = place.recorded();
    let pid = child.id().to_string();
    let error = place.fail(2, &["resume", &label(&run), "--plain"]);
    assert!(error.contains(&format!("process {pid}")), "{error}");
    let listed = place.succeed(&["runs"]);
    assert!(listed.contains("running"), "{listed}");
    child.kill();
    let listed = place.succeed(&["runs"]);
    assert!(listed.contains("interrupted"), "{listed}");
    place.succeed(&["resume", &label(&run), "--plain", "--steps", "3"]);
}

#[test]
fn killed_at_any_moment_it_goes_on_bit_for_bit_and_leaves_nothing_behind() {
    let settings = "\n[budget]\nweights_kb = 12\nmethod = \"controller\"\n";
    let place = Place::new(settings);
    let whole = Place::new(settings);
    let expected = losses(&whole.trained(160));
    for (round, steps) in [41, 58, 73, 37].into_iter().enumerate() {
        let mut child = if round == 0 {
            place.training(steps)
        } else {
            let run = place.recorded();
            let mut child = place.start(&["resume", &label(&run), "--json"]);
            let mut lines = child.lines();
            lines.by_ref().take(steps).for_each(drop);
            std::thread::spawn(move || lines.for_each(drop));
            child
        };
        child.kill();
    }
    let run = place.recorded();
    std::fs::write(run.checkpoints().join(".step-9.safetensors.1.tmp"), "x").expect("written");
    std::fs::write(run.path().join(".manifest.json.1.tmp"), "x").expect("written");
    let (newest, _) = run.checkpoints_by_step().pop().expect("one is sound");
    assert!(newest < 160, "{newest}");
    let left = (160 - newest).to_string();
    place.succeed(&["resume", &label(&run), "--plain", "--steps", &left]);
    // Every step is there, and each is the one of a run that nobody killed.
    assert_eq!(losses(&run), expected);
    for folder in [run.path(), &run.checkpoints()] {
        let names = std::fs::read_dir(folder).expect("read");
        for name in names.map(|e| e.expect("an entry").file_name()) {
            assert!(!name.to_string_lossy().ends_with("tmp"), "{name:?}");
        }
    }
}

#[test]
fn a_damaged_checkpoint_is_told_from_a_sound_one_and_the_one_before_it_serves() {
    let place = Place::new("");
    let run = place.trained(80);
    let newest = run.newest_checkpoint().expect("saved");
    let bytes = std::fs::read(&newest).expect("read");
    let copy = place.folder.path().join("copy.safetensors");
    for k in 0..60 {
        let mut damaged = bytes.clone();
        let at = (k * 7919 + 13) * bytes.len() / (60 * 7919);
        damaged[at] ^= 1 << (k % 8);
        std::fs::write(&copy, &damaged).expect("written");
        assert!(
            Checkpoint::open(&copy).is_err(),
            "byte {at} of {}",
            bytes.len()
        );
        // A stretch of zeros, as a power cut leaves them; where there were none before.
        let end = (at + 512).min(bytes.len());
        if bytes[at..end].iter().any(|b| *b != 0) {
            let mut zeroed = bytes.clone();
            zeroed[at..end].fill(0);
            std::fs::write(&copy, &zeroed).expect("written");
            assert!(Checkpoint::open(&copy).is_err(), "zeros at {at}");
        }
    }
    std::fs::write(&newest, &bytes[..bytes.len() / 2]).expect("cut");
    place.succeed(&["resume", &label(&run), "--plain", "--steps", "2"]);
    let said = warnings(&run);
    assert!(
        said.contains("going on from the checkpoint before it"),
        "{said}"
    );
    assert!(said.contains("step-80.safetensors"), "{said}");

    // Where none is sound, all are named.
    let mut all = run.all_checkpoints();
    all.extend(run.best_checkpoint());
    assert!(all.len() > 2);
    for path in &all {
        std::fs::write(path, b"nothing").expect("damaged");
    }
    let error = place.fail(1, &["resume", &label(&run), "--plain"]);
    for path in &all {
        let name = path.file_name().and_then(|n| n.to_str()).expect("plain");
        assert!(error.contains(name), "{name}: {error}");
    }
}

#[test]
fn a_damaged_log_is_read_around_and_a_damaged_header_is_refused() {
    let place = Place::new("");
    let run = place.trained(80);
    let bytes = std::fs::read(run.log()).expect("read");
    let mut damaged = bytes.clone();
    damaged[bytes.len() / 3] ^= 4;
    std::fs::write(run.log(), &damaged).expect("written");
    let (all, read) = (80, losses(&run).len());
    assert_eq!(read, all - 1);
    let picture = place.folder.path().join("a.png");
    let drawn = place.run(&[
        "plot",
        &label(&run),
        "loss",
        "-o",
        picture.to_str().expect("plain"),
    ]);
    assert!(drawn.status.success());
    let said = String::from_utf8_lossy(&drawn.stderr).into_owned();
    assert!(said.contains("damaged") && said.contains("byte"), "{said}");
    place.succeed(&["resume", &label(&run), "--plain", "--steps", "5"]);
    assert_eq!(losses(&run).len(), read + 5);
    assert!(warnings(&run).contains("damaged"), "{}", warnings(&run));

    let mut headless = bytes.clone();
    headless[3] = b'x';
    std::fs::write(run.log(), &headless).expect("written");
    let error = place.fail(1, &["resume", &label(&run), "--plain", "--steps", "5"]);
    assert!(error.contains("first line is damaged"), "{error}");
    assert_eq!(std::fs::read(run.log()).expect("read"), headless);
}

#[test]
fn a_damaged_manifest_is_rebuilt_from_the_log() {
    let place = Place::new("");
    let run = place.trained(80);
    let before = run.manifest().expect("a manifest");
    std::fs::write(run.path().join("manifest.json"), "{\"version").expect("damaged");
    let listed = list_runs(&place.folder.path().join("runs"));
    let (_, rebuilt) = &listed[0];
    assert_eq!(rebuilt.status, Status::Stopped);
    assert_eq!((rebuilt.step, rebuilt.best_error), (80, before.best_error));
    assert_eq!(rebuilt.task, before.task);
    assert!(rebuilt.note.as_ref().is_some_and(|n| n.contains("damaged")));
    place.succeed(&["resume", &label(&run), "--plain", "--steps", "2"]);
    assert!(warnings(&run).contains("manifest.json was damaged"));
    // It is whole again, and what was said of it is no note of the user's.
    assert_eq!(run.manifest().expect("whole").note, None);

    std::fs::remove_file(run.path().join("manifest.json")).expect("removed");
    assert!(
        place
            .succeed(&["runs"])
            .contains("manifest.json was missing")
    );
    place.succeed(&["resume", &label(&run), "--plain", "--steps", "2"]);
    assert!(warnings(&run).contains("manifest.json was missing"));

    // Without its log it is no run any more, and that is said.
    std::fs::remove_file(run.log()).expect("removed");
    let output = place.run(&["runs"]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        said.contains("events.log is gone") && said.contains(&label(&run)),
        "{said}"
    );
    let error = place.fail(2, &["resume", &label(&run), "--plain"]);
    assert!(error.contains("events.log is gone"), "{error}");
}

#[test]
fn an_experiment_that_was_cut_short_is_taken_from_the_log() {
    let place = Place::new("");
    let run = place.trained(40);
    let whole = std::fs::read_to_string(run.experiment()).expect("read");
    for text in ["", &whole[..whole.len() / 2]] {
        std::fs::write(run.experiment(), text).expect("cut");
        place.succeed(&["resume", &label(&run), "--plain", "--steps", "2"]);
        assert_eq!(
            std::fs::read_to_string(run.experiment()).expect("read"),
            whole
        );
    }
}

#[test]
fn nothing_that_is_not_finite_is_saved() {
    let place = Place::new("");
    let float = ["weights.quantizer=none", "activations.quantizer=none"];
    let set = |settings: &[&str]| -> Vec<String> {
        let both = settings.iter().flat_map(|s| ["--set", s]);
        both.map(str::to_owned).collect()
    };
    let begin = [
        &["train", "e.toml", "--plain", "--steps", "80"].map(str::to_owned)[..],
        &set(&float),
    ];
    let begin = begin.concat();
    place.succeed(&begin.iter().map(String::as_str).collect::<Vec<_>>());
    let run = place.recorded();
    // Then it diverges.
    let on = ["resume".to_owned(), label(&run), "--plain".into()];
    let on = [
        &on[..],
        &set(&["optimizer.lr=1e3", "optimizer.weight_decay=1"]),
    ]
    .concat();
    place.fail(1, &on.iter().map(String::as_str).collect::<Vec<_>>());
    let found = events(&run).iter().find_map(|e| match e {
        Event::NonFinite { step, .. } => Some(*step),
        _ => None,
    });
    let broken = found.expect("it diverges");
    let manifest = run.manifest().expect("a manifest");
    assert!(manifest.dead_end);
    let reason = manifest.reason.unwrap_or_default();
    assert!(reason.contains("not finite"), "{reason}");
    assert!(place.succeed(&["runs"]).contains("diverged"));
    let mut saved = run.checkpoints_by_step();
    assert!(!saved.is_empty());
    saved.extend(run.best_checkpoint().map(|path| (0, path)));
    for (step, path) in saved {
        assert!(step < broken);
        let checkpoint = Checkpoint::open(&path).expect("sound");
        let values = checkpoint.weights.values();
        assert!(
            values.flat_map(|(_, v)| v).all(|v| v.is_finite()),
            "step {step}"
        );
    }

    // Without a checkpoint there is nothing to go on from, and why is said.
    let place = Place::new("");
    let set = set(&[
        &float[..],
        &["optimizer.lr=1e3", "optimizer.weight_decay=1"],
    ]
    .concat());
    let mut command = place.command(&["train", "e.toml", "--plain"]);
    let output = command.args(&set).output().expect("started");
    assert_eq!(output.status.code(), Some(1), "{}", text(&output));
    let run = place.recorded();
    if run.newest_checkpoint().is_none() {
        let error = place.fail(2, &["resume", &label(&run), "--plain"]);
        let none = "no checkpoint: not finite at step";
        assert!(error.contains(none), "{error}");
    }
}

#[test]
fn classes_hold_on_resume() {
    let place = Place::new("");
    let run = place.trained(40);
    for (setting, command) in [
        ("weights.quantizer=\"u1\"", "bitscope fork"),
        ("seed=9", "bitscope train"),
    ] {
        let error = place.fail(2, &["resume", &label(&run), "--plain", "--set", setting]);
        assert!(
            error.contains("needs a new run") && error.contains(command),
            "{error}"
        );
    }
    assert!(
        !events(&run)
            .iter()
            .any(|e| matches!(e, Event::Applied { .. }))
    );
    let set = "optimizer.lr=0.002";
    place.succeed(&[
        "resume",
        &label(&run),
        "--plain",
        "--steps",
        "2",
        "--set",
        set,
    ]);
    let applied = events(&run).into_iter().find_map(|e| match e {
        Event::Applied { changes, .. } => Some(changes),
        _ => None,
    });
    assert_eq!(applied.expect("recorded"), ["optimizer.lr 0.01 → 0.002"]);
    let kept = std::fs::read_to_string(run.experiment()).expect("read");
    assert!(kept.contains("lr = 0.002"), "{kept}");
}

/// Eighty pictures of ten classes, as a safetensors file.
fn tensors(path: &Path) {
    let images: Vec<u8> = (0..80 * 3 * 32 * 32)
        .map(|i| (i * 31 % 251) as u8)
        .collect();
    let labels: Vec<u8> = (0..80).map(|i| i % 10).collect();
    let view = |shape: Vec<usize>, data| {
        safetensors::tensor::TensorView::new(safetensors::Dtype::U8, shape, data).expect("fits")
    };
    let tensors = [
        ("images", view(vec![80, 3, 32, 32], &images)),
        ("labels", view(vec![80], &labels)),
    ];
    safetensors::serialize_to_file(tensors, None, path).expect("written");
}

#[test]
fn a_run_knows_where_its_data_is_and_what_it_started_from_is_not_needed_again() {
    let place = Place::new("");
    let first = place.trained(40);
    let sub = place.folder.path().join("exps");
    std::fs::create_dir(&sub).expect("created");
    tensors(&sub.join("d.safetensors"));
    let text = SMALL.replace(
        "[data]",
        "[data]\nsource = \"tensors\"\npath = \"d.safetensors\"",
    );
    let text = format!("{text}\n[init]\nrun = \"{}\"\n", first.path().display());
    write(&sub, "f.toml", &text);
    place.succeed(&[
        "train",
        "exps/f.toml",
        "--plain",
        "--steps",
        "8",
        "--runs",
        "other",
    ]);
    let run = list_runs(&place.folder.path().join("other"))[0].0.clone();
    std::fs::remove_dir_all(first.path()).expect("removed");
    let resume = |more: &[&str]| -> Vec<String> {
        let fixed = [
            "resume",
            &label(&run),
            "--runs",
            "other",
            "--plain",
            "--steps",
            "2",
        ];
        fixed.iter().chain(more).map(|s| (*s).to_owned()).collect()
    };
    let borrowed = |a: &Vec<String>| -> Output {
        place.run(&a.iter().map(String::as_str).collect::<Vec<_>>())
    };
    let output = borrowed(&resume(&[]));
    assert!(output.status.success(), "{output:?}");
    // Moved data is named, and told about.
    std::fs::rename(sub.join("d.safetensors"), sub.join("e.safetensors")).expect("moved");
    let output = borrowed(&resume(&[]));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        !output.status.success() && text.contains("exps/d.safetensors"),
        "{text}"
    );
    assert!(
        text.contains("does not exist") && text.contains("--set data.path="),
        "{text}"
    );
    let moved = format!("data.path={}", sub.join("e.safetensors").display());
    let output = borrowed(&resume(&["--set", &moved]));
    assert!(output.status.success(), "{output:?}");
}

#[test]
fn a_fork_keeps_what_was_learned_and_knows_its_parent() {
    let place = Place::new("");
    let run = place.trained(100);
    let slots = |folder: &RunFolder, step: u64| {
        let path = folder.checkpoint(step);
        Checkpoint::open(&path).expect("sound").state.slots
    };
    let (at, _) = run.checkpoints_by_step()[0].clone();
    let asked = (at + 3).to_string();
    let set = [
        "--set",
        "weights.quantizer=u2",
        "--set",
        "optimizer.kind=adam",
        "--set",
        "optimizer.lr=0",
    ];
    let mut arguments = vec![
        "fork",
        run.path().to_str().expect("plain"),
        "--step",
        &asked,
    ];
    arguments.extend(["--plain", "--steps", "1"]);
    arguments.extend(set);
    place.succeed(&arguments);
    let runs = list_runs(&place.folder.path().join("runs"));
    let (child, manifest) = runs.iter().find(|r| r.0 != run).expect("a child");
    let parent = manifest.parent.clone().expect("known");
    // Its file is its user's, not the parent's own copy.
    let file = place.folder.path().join("e.toml").canonicalize();
    let source = manifest.source.as_ref().and_then(|s| s.canonicalize().ok());
    assert_eq!(source, file.ok());
    assert_eq!((parent.run, parent.step), (run.label(), at));
    for (before, after) in slots(&run, at).iter().zip(slots(child, 1)) {
        let [a, b] = [before, &after].map(|s| s.quantizer.grid(s.parameters));
        assert_eq!((a.step, a.bits), (b.step, b.bits), "{}", before.name);
    }
    let said = warnings(child);
    assert!(said.contains("not kept: the optimizer's moments"), "{said}");
    // At a learning rate of zero the weights are still the parent's; running statistics move.
    let weights = |folder: &RunFolder, step: u64| {
        let path = folder.checkpoint(step);
        let all = Checkpoint::open(&path).expect("sound").weights;
        let kept = all
            .into_iter()
            .filter(|(name, _)| !name.ends_with("mean") && !name.ends_with("var"));
        kept.collect::<std::collections::BTreeMap<_, _>>()
    };
    let before = weights(&run, at);
    assert!(before.len() > 10, "{:?}", before.keys());
    assert_eq!(weights(child, 1), before);
    // The same kind of optimizer goes on with its moments.
    let same = ["--set", "optimizer.lr=0", "--steps", "1", "--plain"];
    let path = run.path().to_str().expect("plain");
    place.succeed(&[&["fork", path, "--checkpoint", "newest"][..], &same].concat());
    let runs = list_runs(&place.folder.path().join("runs"));
    let twin = runs
        .iter()
        .find(|r| r.0 != run && r.0 != *child)
        .expect("a second child");
    assert!(
        !warnings(&twin.0).contains("not kept"),
        "{}",
        warnings(&twin.0)
    );
}

/// Each signal while it trains, waits, validates and tests: it ends with a checkpoint, and what was cut
/// short is made up for.
#[test]
fn a_signal_in_any_phase_ends_it_and_nothing_is_missed() {
    for (phase, name) in [
        ("training", "INT"),
        ("paused", "HUP"),
        ("validating", "TERM"),
        ("validating", "HUP"),
        ("testing", "INT"),
        ("testing", "TERM"),
    ] {
        // An epoch of fifty steps, after which looking takes far longer than a signal.
        let place = Place::new("");
        let text = SMALL.replace("samples = 640", "samples = 8000\nvalidation = 0.5");
        let text = text.replace("epochs = 1000", "epochs = 1");
        let text = text.replace("batch = 16", "batch = 80");
        write(place.folder.path(), "e.toml", &text);
        let mut child = place.start(&["train", "e.toml", "--json"]);
        let mut lines = child.lines();
        let wanted = match phase {
            "training" | "paused" => "\"step\":20,",
            "validating" => "\"step\":50,",
            _ => "\"split\":\"validation\"",
        };
        let seen = lines.by_ref().any(|l| l.expect("a line").contains(wanted));
        assert!(seen, "{phase}");
        let run = place.recorded();
        if phase == "paused" {
            place.succeed(&["attach", &label(&run), "--send", "pause"]);
            let paused = lines
                .by_ref()
                .any(|l| l.expect("a line").contains("\"paused\""));
            assert!(paused);
        }
        child.signal(name);
        std::thread::spawn(move || lines.for_each(drop));
        let code = child.ends();
        assert_eq!(code, Some(130), "{name} while {phase}");
        assert_eq!(run.manifest().expect("there").status, Status::Stopped);
        place.succeed(&["resume", &label(&run), "--plain"]);
        let all = events(&run);
        let at_end = |wanted: Split| {
            let evaluations = all.iter().filter(
                |e| matches!(e, Event::Evaluation { step: 50, split, .. } if *split == wanted),
            );
            evaluations.count()
        };
        assert!(
            at_end(Split::Validation) >= 1 && at_end(Split::Test) == 1,
            "{name} {phase}"
        );
        assert_eq!(losses(&run).len(), 50, "{name} while {phase}");
        assert!(run.best_checkpoint().is_some(), "{name} while {phase}");
    }
}

#[test]
fn a_reader_that_does_not_read_does_not_keep_a_run_from_ending() {
    let place = Place::new("");
    let mut child = place.start(&["train", "e.toml", "--json"]);
    // Nobody reads: the pipe fills up and training comes to a halt. Wait until it has.
    let runs = place.folder.path().join("runs");
    let log = || {
        let found = std::fs::read_dir(&runs).into_iter().flatten().flatten();
        let mut logs = found.map(|e| e.path().join("events.log"));
        logs.find(|l| l.is_file())
    };
    wait_until("a log", || log().is_some());
    let log = log().expect("there");
    let (mut size, mut still) = (0, Instant::now());
    wait_until("training stands still", || {
        let now = log.metadata().expect("there").len();
        if now != size {
            (size, still) = (now, Instant::now());
        }
        size > 1000 && still.elapsed() > Duration::from_secs(2)
    });
    let full = child.stdout.take();
    child.signal("TERM");
    assert_eq!(child.ends(), Some(130));
    drop(full);
    let run = place.recorded();
    assert_eq!(run.manifest().expect("a manifest").status, Status::Stopped);
    assert!(run.newest_checkpoint().is_some());
}

#[test]
fn a_reader_that_goes_away_stops_the_run_it_was_reading_and_that_is_said() {
    let place = Place::new("");
    let mut child = place.start(&["train", "e.toml", "--json"]);
    let mut lines = child.lines();
    assert_eq!(lines.by_ref().take(20).count(), 20);
    drop(lines);
    assert_eq!(child.ends(), Some(0));
    let run = place.recorded();
    let manifest = run.manifest().expect("a manifest");
    assert_eq!(manifest.status, Status::Stopped);
    assert_eq!(
        manifest.reason.as_deref(),
        Some("standard output was closed")
    );
    assert!(run.newest_checkpoint().is_some());
}

#[test]
fn a_bare_name_is_a_recorded_run_and_never_a_folder_that_is_here() {
    let place = Place::new("");
    for runs in [".", "kept"] {
        place.succeed(&["train", "e.toml", "--plain", "--steps", "3", "--runs", runs]);
    }
    let of = |runs: &str| list_runs(&place.folder.path().join(runs))[0].0.clone();
    std::fs::rename(of(".").path(), place.folder.path().join("twin")).expect("renamed");
    std::fs::rename(of("kept").path(), place.folder.path().join("kept/twin")).expect("renamed");
    place.succeed(&["runs", "kept", "--delete", "twin", "--yes"]);
    assert!(place.folder.path().join("twin").is_dir());
    assert!(!place.folder.path().join("kept/twin").exists());
    let said = place.succeed(&["check", "e.toml", "--set", "name=\"a\\u001b[31mb\""]);
    assert!(said.contains("a␛[31mb: valid"), "{said:?}");
}

#[test]
fn a_hangup_that_is_ignored_stays_ignored() {
    let place = Place::new("");
    let mut command = Command::new("nohup");
    command.args([program(), "train", "e.toml", "--json"]);
    command.current_dir(place.folder.path());
    command.stdin(Stdio::null()).stderr(Stdio::null());
    let mut child = Process::piped(command);
    let mut lines = child.lines();
    lines.by_ref().take(20).for_each(drop);
    child.signal("HUP");
    // It goes on: more lines come.
    assert_eq!(lines.by_ref().take(60).count(), 60);
    child.signal("TERM");
    std::thread::spawn(move || lines.for_each(drop));
    assert_eq!(child.ends(), Some(130));
}

#[test]
fn an_experiment_that_is_no_file_is_a_sentence() {
    let place = Place::new("");
    let fifo = place.folder.path().join("fifo.toml");
    let made = Command::new("mkfifo").arg(&fifo).status();
    assert!(made.expect("made").success());
    for path in ["fifo.toml", ".", "/dev/zero"] {
        let error = place.fail(2, &["check", path]);
        assert!(error.contains("no regular file"), "{path}: {error}");
    }
    let large = place.folder.path().join("large.toml");
    std::fs::write(&large, vec![b'#'; 3 << 20]).expect("written");
    let error = place.fail(2, &["check", "large.toml"]);
    assert!(error.contains("at most"), "{error}");
}

#[test]
fn a_change_of_the_batch_in_mid_epoch_resumes_bit_for_bit() {
    use bitscope::experiment::load_embedded;
    use bitscope::training::Trainer;
    let experiment = |set: &[&str]| {
        let set = set.iter().map(|s| (*s).to_owned()).collect();
        load_embedded("small.toml", SMALL, &set)
            .expect("valid")
            .experiment
    };
    let trainer = |set: &[&str]| {
        let experiment = experiment(set);
        let splits = bitscope::dataset::open(&experiment).expect("data");
        let engine = bitscope::device::parse("flex").expect("compiled in");
        Trainer::new(experiment, splits, bitscope::device::burn_device(engine)).expect("built")
    };
    let losses = |t: &mut Trainer| -> Vec<f64> { (0..60).map(|_| t.step(false).loss).collect() };
    let path = tempfile::tempdir().expect("a folder");
    let path = path.path().join("c.safetensors");
    let mut whole = trainer(&[]);
    (0..10).for_each(|_| drop(whole.step(false)));
    whole.apply(experiment(&["train.batch=24"]));
    (0..5).for_each(|_| drop(whole.step(false)));
    std::fs::create_dir_all(path.parent().expect("a folder")).expect("created");
    whole.save(&path).expect("saved");
    let mut resumed = trainer(&["train.batch=24"]);
    resumed.restore(&path).expect("restored");
    assert_eq!(losses(&mut resumed), losses(&mut whole));
}

#[test]
fn an_evaluation_that_a_signal_cut_short_is_caught_up() {
    use bitscope::experiment::load_embedded;
    use bitscope::training::Trainer;
    let experiment = load_embedded("small.toml", SMALL, &Vec::new())
        .expect("valid")
        .experiment;
    let splits = || bitscope::dataset::open(&experiment).expect("data");
    let engine = bitscope::device::parse("flex").expect("compiled in");
    let device = bitscope::device::burn_device(engine);
    let mut trainer = Trainer::new(experiment.clone(), splits(), device).expect("built");
    while trainer.epochs() < 1.0 - 1e-9 {
        trainer.step(false);
    }
    // Told to stop before the first batch.
    assert!(trainer.validate(|| false).is_none());
    let place = Place::new("");
    let run = place.trained(1);
    for (_, path) in run.checkpoints_by_step() {
        std::fs::remove_file(path).expect("removed");
    }
    trainer
        .save(&run.checkpoint(trainer.steps()))
        .expect("saved");
    place.succeed(&["resume", &label(&run), "--plain", "--steps", "1"]);
    let at = trainer.steps();
    let caught = events(&run)
        .iter()
        .any(|e| matches!(e, Event::Evaluation { step, .. } if *step == at));
    assert!(caught && run.best_checkpoint().is_some());
}

#[test]
fn reading_goes_on_where_a_growing_log_does() {
    let place = Place::new("");
    let run = place.trained(20);
    let bytes = std::fs::read(run.log()).expect("read");
    let copy: PathBuf = place.folder.path().join("events.log");
    let cut = bytes.len() / 2;
    std::fs::write(&copy, &bytes[..cut]).expect("written");
    let mut reader = LogReader::open(&copy).expect("a log");
    let mut read: Vec<Event> = reader.by_ref().collect();
    std::fs::write(&copy, &bytes).expect("grown");
    read.extend(reader.by_ref());
    assert_eq!(format!("{read:?}"), format!("{:?}", events(&run)));
}

#[test]
fn a_run_is_watched_from_its_log_while_it_grows_and_to_its_end() {
    let place = Place::new("");
    let child = place.training(30);
    let run = place.recorded();
    let mut watcher = place.start(&["watch", &label(&run), "--json"]);
    let mut lines = watcher.lines();
    let first = lines.next().expect("a line").expect("text");
    assert!(first.contains("\"event\":\"started\""), "{first}");
    assert_eq!(lines.by_ref().take(60).count(), 60);
    child.signal("TERM");
    assert_eq!(child.ends(), Some(130));
    let last = lines.last().expect("a line").expect("text");
    assert!(last.contains("\"event\":\"stopped\""), "{last}");
    assert_eq!(watcher.ends(), Some(0));
    // What was stopped is shown whole, in lines too.
    let plain = place.succeed(&["watch", &label(&run), "--plain"]);
    assert!(plain.contains("stopped"), "{plain}");
}

#[test]
fn the_log_gives_every_step_and_only_what_was_asked_for() {
    let place = Place::new("");
    let run = place.trained(60);
    let all = place.succeed(&["log", &label(&run)]);
    assert_eq!(place.succeed(&["log", &label(&run), "--json"]), all);
    let rows: Vec<serde_json::Value> = all
        .lines()
        .map(|l| serde_json::from_str(l).expect("JSON"))
        .collect();
    let expected = losses(&run);
    assert_eq!(rows.len(), 60);
    for row in &rows {
        let step = row["step"].as_u64().expect("a step");
        let loss = row["loss"].as_f64().expect("a loss");
        assert!((loss / expected[&step] - 1.0).abs() < 1e-14, "step {step}");
        assert!(row["conv2.bitwidth"].is_number() && row["times.forward"].is_number());
    }
    let arguments = ["log", &label(&run), "--csv", "--series", "loss,conv2.d"];
    let part = place.succeed(&[&arguments[..], &["--from", "5", "--to", "7"]].concat());
    let lines: Vec<&str> = part.lines().collect();
    assert_eq!((lines[0], lines.len()), ("step,loss,conv2.d", 4));
    assert!(
        lines[1].starts_with(&format!("5,{}", expected[&5])),
        "{part}"
    );
    let error = place.fail(2, &["log", &label(&run), "--series", "lozz"]);
    assert!(error.contains("did you mean `loss`?"), "{error}");
    let error = place.fail(2, &["log", &label(&run), "--from", "9", "--to", "3"]);
    assert!(error.contains("--from 9 --to 3"), "{error}");
    let none = place.run(&["log", &label(&run), "--from", "900"]);
    assert!(none.status.success() && none.stdout.is_empty());
    let said = String::from_utf8_lossy(&none.stderr).into_owned();
    assert!(said.contains("the newest that is recorded is 60"), "{said}");
}

#[test]
fn runs_are_compared_renamed_annotated_and_deleted() {
    let place = Place::new("");
    let first = place.trained(80);
    let path = first.path().to_str().expect("plain").to_owned();
    place.succeed(&["runs", "--rename", &path, "größer 1"]);
    assert!(!first.path().exists());
    let arguments = [
        "train",
        "e.toml",
        "--plain",
        "--steps",
        "80",
        "--set",
        "optimizer.lr=0.02",
    ];
    place.succeed(&arguments);
    let listed = place.succeed(&["runs", "--json"]);
    let listed: serde_json::Value = serde_json::from_str(&listed).expect("JSON");
    let names: Vec<&str> = listed
        .as_array()
        .expect("a list")
        .iter()
        .map(|r| r["run"].as_str().expect("a name"))
        .collect();
    assert_eq!((names.len(), names[1]), (2, "größer 1"));
    let compared = place.succeed(&["compare", names[0], names[1], "--json"]);
    let compared: serde_json::Value = serde_json::from_str(&compared).expect("JSON");
    assert_eq!(
        compared["settings"],
        serde_json::json!({"optimizer.lr": ["0.02", "0.01"]})
    );
    for run in compared["runs"].as_array().expect("runs") {
        let step = run["best_step"].as_u64().expect("evaluated");
        assert!(step > 0 && run["bits"]["conv1"].is_number() && run["weight_kb"].is_number());
    }
    let table = place.succeed(&["compare", names[0], names[1]]);
    assert!(
        table.contains("optimizer.lr") && table.contains("bits conv1"),
        "{table}"
    );
    place.succeed(&["runs", "--note", names[0], "a note"]);
    assert!(place.succeed(&["runs"]).contains("a note"));
    let error = place.fail(2, &["runs", "--delete", names[0]]);
    assert!(
        error.contains("80 steps") && error.contains("--yes"),
        "{error}"
    );
    place.succeed(&["runs", "--delete", names[0], "--yes"]);
    assert_eq!(list_runs(&place.folder.path().join("runs")).len(), 1);
}

#[test]
fn quantize_says_what_is_wrong_with_bounds_and_with_nothing_to_plot() {
    let place = Place::new("");
    let case = |bounds: &str| {
        format!(
            r#"{{"cases": [{{"quantizer": "u3", "signed": true, "params": {{"d": 0.25, "q_max": 1.0}},
            "x": [0.4], "grad_y": [1.0]{bounds}}}]}}"#
        )
    };
    for bounds in [r#""x""#, "[1]", r#"{"e": [1, 2]}"#] {
        let text = case(&format!(r#", "bounds": {bounds}"#));
        write(place.folder.path(), "c.json", &text);
        let error = place.fail(2, &["quantize", "c.json"]);
        assert!(error.contains("expected an object"), "{error}");
    }
    // No bounds and none at all are the same.
    write(place.folder.path(), "c.json", &case(r#", "bounds": {}"#));
    let empty = place.succeed(&["quantize", "c.json"]);
    write(place.folder.path(), "c.json", &case(""));
    let absent = place.succeed(&["quantize", "c.json"]);
    assert_eq!(empty.replace(r#""bounds":{},"#, ""), absent);
    write(place.folder.path(), "c.json", r#"{"cases": []}"#);
    let error = place.fail(2, &["quantize", "c.json", "--plot", "a.png"]);
    assert!(error.contains("no case to plot"), "{error}");
    write(
        place.folder.path(),
        "c.json",
        &case(r#", "bonds": {"d": [1, 2]}"#),
    );
    let output = place.run(&["quantize", "c.json"]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        said.contains("`bonds` is passed over; did you mean `bounds`?"),
        "{said}"
    );
    // What it writes it reads again.
    write(place.folder.path(), "c.json", &empty);
    assert_eq!(place.succeed(&["quantize", "c.json"]), empty);
}

#[test]
fn a_detached_run_is_steered_from_elsewhere_and_ends_as_if_nobody_had() {
    let place = Place::new("");
    let whole = Place::new("");
    // Thousands of steps: whatever is sent finds it training.
    let said = place.succeed(&["train", "e.toml", "--detach", "--steps", "100000"]);
    assert!(said.contains("bitscope attach runs/"), "{said}");
    let run = place.recorded();
    let name = label(&run);
    let send = |command: &str| place.succeed(&["attach", &name, "--send", command]);
    let seen = |what: &str, wanted: &dyn Fn(&Event) -> bool| {
        wait_until(what, || events(&run).iter().any(wanted));
    };
    send("pause");
    seen("paused", &|e| matches!(e, Event::Paused { .. }));
    let paused = events(&run).iter().map(Event::step).max().unwrap_or(0);
    for command in ["step", "checkpoint", "resume"] {
        send(command);
    }
    seen("further steps", &|e| e.step() > paused + 40);
    send("stop");
    seen("its end", &Event::is_last);
    wait_until("its owner is gone", || {
        bitscope::run::RunLock::holder(run.path()).is_none()
    });
    let taken = losses(&run);
    assert!(taken.len() as u64 > paused + 40, "{}", taken.len());
    assert_eq!(taken, losses(&whole.trained(taken.len() as u32)));
    let error = place.fail(2, &["attach", &name, "--send", "pause"]);
    assert!(error.contains("no process trains it"), "{error}");
    // What is wrong with an experiment is said where someone reads.
    write(place.folder.path(), "bad.toml", "[train]\nbatch = 0\n");
    let error = place.fail(2, &["train", "bad.toml", "--detach"]);
    assert!(error.contains("train.batch"), "{error}");
    assert_eq!(list_runs(&place.folder.path().join("runs")).len(), 1);
}

#[test]
fn names_are_kept_in_any_script_and_harm_no_shell() {
    let place = Place::new("");
    let text = std::fs::read_to_string(place.folder.path().join("e.toml")).expect("read");
    // The run's name is that of its file.
    let text = text.replace("name = \"small\"\n", "");
    let long = "x".repeat(240);
    for (name, expected) in [
        ("with space", "with-space-2"),
        ("it's \"quoted\"", "it-s-quoted-2"),
        ("измерение 測定", "измерение-測定-2"),
        ("--dash", "dash-2"),
        (";$HOME `x`", "HOME-x-2"),
        ("\u{1b}[31mred", "31mred-2"),
        ("line\nline", "line-line-2"),
        ("..", "run-2"),
        (&long, &long[..120]),
    ] {
        let inside = place.folder.path().join(format!("in {name}"));
        std::fs::create_dir_all(&inside).expect("made");
        let file = inside.join(format!("{name}.toml"));
        std::fs::write(&file, &text).expect("written");
        let (file, inside) = (file.to_str().expect("text"), inside.to_str().expect("text"));
        let runs = format!("{inside}/runs");
        place.succeed(&["train", file, "--plain", "--steps", "3", "--runs", &runs]);
        let all = list_runs(Path::new(&runs));
        let folder = all[0].0.path();
        let label = label(&all[0].0);
        assert!(label.starts_with(expected), "{name}: {label}");
        let folder = folder.to_str().expect("text");
        place.succeed(&["resume", folder, "--plain", "--steps", "2"]);
        place.succeed(&["resume", &label, "--runs", &runs, "--plain", "--steps", "2"]);
        assert_eq!(losses(&all[0].0).len(), 7, "{name}");
        place.succeed(&["plot", folder, "loss", "-o", &format!("{inside}/p.png")]);
        let listed = place.succeed(&["runs", &runs]);
        assert!(!listed.contains('\u{1b}'), "{listed:?}");
    }
}

/// What a run records are texts: a path that is none is refused before anything is made.
#[cfg(target_os = "linux")]
#[test]
fn a_path_that_is_not_utf8_is_refused_at_once() {
    use std::os::unix::ffi::OsStrExt;
    let place = Place::new("");
    let odd = place
        .folder
        .path()
        .join(std::ffi::OsStr::from_bytes(b"odd \xff"));
    std::fs::create_dir(&odd).expect("made");
    std::fs::copy(place.folder.path().join("e.toml"), odd.join("e.toml")).expect("copied");
    for folder in [place.folder.path(), &odd] {
        let mut command = place.command(&["train", "--plain", "--steps", "3"]);
        command.current_dir(folder).arg("--runs");
        let other = if folder == odd {
            place.folder.path()
        } else {
            &odd
        };
        command.arg(other.join("runs")).arg("e.toml");
        let output = command.output().expect("started");
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(error.contains("not UTF-8"), "{error}");
        assert!(!other.join("runs").exists());
    }
}

#[test]
fn a_run_whose_folder_is_removed_trains_on_and_says_so_at_its_end() {
    let place = Place::new("");
    let child = place.training(40);
    std::fs::remove_dir_all(place.recorded().path()).expect("removed");
    child.signal("TERM");
    assert_eq!(child.ends(), Some(1));
    for runs in ["/proc/none", "e.toml"] {
        let error = place.fail(1, &["train", "e.toml", "--plain", "--runs", runs]);
        assert!(error.starts_with(&format!("error: {runs}: ")), "{error}");
    }
}

#[test]
fn no_clock_decides_what_is_newest() {
    let place = Place::new("");
    let run = place.trained(130);
    let checkpoints = run.checkpoints_by_step();
    assert!(checkpoints.len() >= 2, "{checkpoints:?}");
    // As if the clock had been set back by a day before every write.
    let day = Duration::from_secs(86_400);
    for (step, path) in &checkpoints {
        let file = std::fs::File::options()
            .write(true)
            .open(path)
            .expect("open");
        file.set_modified(std::time::SystemTime::now() - day * *step as u32)
            .expect("set");
    }
    let log = std::fs::File::options()
        .write(true)
        .open(run.log())
        .expect("open");
    log.set_modified(std::time::SystemTime::now() + day)
        .expect("set");
    place.succeed(&["resume", &label(&run), "--plain", "--steps", "20"]);
    let whole = Place::new("");
    assert_eq!(losses(&run), losses(&whole.trained(150)));
}

#[test]
fn a_run_is_replayed_with_its_changes_where_they_were_made() {
    let place = Place::new("\n[budget]\nweights_kb = 12\nramp_epochs = 1\n");
    let run = place.trained(70);
    let set = "optimizer.lr=0.02";
    place.succeed(&[
        "resume",
        &label(&run),
        "--plain",
        "--steps",
        "30",
        "--set",
        set,
    ]);
    let said = place.succeed(&["replay", &label(&run)]);
    assert!(
        said.contains("100 steps again") && said.contains("bit for bit"),
        "{said}"
    );
    let fork = [
        "fork",
        &label(&run),
        "--plain",
        "--steps",
        "20",
        "--set",
        "weights.quantizer=u2",
    ];
    place.succeed(&fork);
    let runs = list_runs(&place.folder.path().join("runs"));
    let child = runs.iter().find(|r| r.0 != run).expect("a child");
    place.succeed(&["replay", &label(&child.0)]);
    // Other data: it goes differently, and says where.
    let (events, _) = read_log(&run.log()).expect("readable");
    std::fs::remove_file(run.log()).expect("removed");
    let writer = bitscope::run::LogWriter::open(&run.log()).expect("created");
    for event in events {
        let event = match event {
            Event::Started {
                experiment,
                name,
                device,
                layers,
                budgets,
                steps_per_epoch,
                total_steps,
                step,
                parent,
            } => Event::Started {
                experiment: experiment.replace("seed = 1", "seed = 2"),
                name,
                device,
                layers,
                budgets,
                steps_per_epoch,
                total_steps,
                step,
                parent,
            },
            other => other,
        };
        writer.push(std::sync::Arc::new(event));
    }
    drop(writer);
    let said = place.fail(1, &["replay", &label(&run)]);
    assert!(said.contains("it went differently: step 1: loss"), "{said}");
}

/// Where the quantizers come into use, a step is evaluated in float and quantized.
#[test]
fn a_run_that_began_in_float_is_replayed() {
    let place = Place::new("\n[budget]\nweights_kb = 12\n");
    let float = "train.float_epochs=1";
    place.succeed(&[
        "train", "e.toml", "--plain", "--steps", "60", "--set", float,
    ]);
    let said = place.succeed(&["replay", &label(&place.recorded())]);
    assert!(said.contains("60 steps again"), "{said}");
}

#[test]
fn a_run_that_ends_above_its_budget_says_so_and_has_no_best() {
    let place = Place::new("\n[budget]\nweights_kb = 12\nramp_epochs = 0\n");
    let two = "train.epochs=2";
    let said = place.succeed(&["train", "e.toml", "--plain", "--set", two]);
    assert!(!said.contains("above its budget"), "{said}");
    let run = place.recorded();
    let best = run.manifest().expect("readable").best.expect("met");
    assert!(best.weight_kb > 8.5, "{best:?}");
    // Tighter, where no step is left to get there.
    let tighter = "budget.weights_kb=8.5";
    let said = place.succeed(&["resume", &label(&run), "--plain", "--set", tighter]);
    assert!(said.contains("ends above its budget: weights"), "{said}");
    let manifest = run.manifest().expect("readable");
    assert_eq!((manifest.best_error, manifest.best), (None, None));
    let weights = ["--format", "safetensors", "--output", "x.safetensors"];
    let said = place.succeed(&[&["export", &label(&run)], &weights[..]].concat());
    assert!(said.contains("no evaluation met the budget"), "{said}");
    // The log says the same, where the manifest is gone.
    std::fs::remove_file(run.path().join("manifest.json")).expect("removed");
    assert_eq!(run.manifest_or_rebuilt().expect("rebuilt").best, None);
}

/// As after a kill: the newest checkpoint is of before the budget, what the run forgot since is known to its
/// log.
#[test]
fn a_best_that_a_budget_took_away_does_not_come_back() {
    let place = Place::new("");
    let run = place.trained(80);
    let wide = run.newest_checkpoint().expect("saved");
    let kept = std::fs::read(&wide).expect("read");
    let tight = "budget.weights_kb=9";
    let resume = ["resume", &label(&run), "--plain", "--steps"];
    let budget = ["2", "--set", tight, "--set", "budget.ramp_epochs=0"];
    place.succeed(&[&resume[..], &budget].concat());
    assert_eq!(run.manifest().expect("readable").best_error, None);
    assert_eq!(run.best_checkpoint(), None);
    for path in run.all_checkpoints() {
        std::fs::remove_file(path).expect("there");
    }
    std::fs::write(&wide, kept).expect("written");
    place.succeed(&[&resume[..], &["80"]].concat());
    let best = run.manifest().expect("readable").best.expect("within");
    assert!(best.step > 80 && best.weight_kb <= 9.0, "{best:?}");
    assert!(run.best_checkpoint().is_some());
    // Every list says the same.
    let error = run.manifest().expect("readable").best_error;
    let compared = place.succeed(&["compare", &label(&run), "--json"]);
    let compared: serde_json::Value = serde_json::from_str(&compared).expect("JSON");
    assert_eq!(compared["runs"][0]["best_error"].as_f64(), error);
    assert_eq!(compared["runs"][0]["best_step"].as_u64(), Some(best.step));
    let history = bitscope::run::History::from_log(&run.log(), None).expect("readable");
    assert_eq!(history.best().map(|(_, e)| e), error);
}

/// A run that goes on says its phase again, which is no change of it.
#[test]
fn what_was_best_stays_so_in_every_list_when_a_run_goes_on() {
    let place = Place::new("");
    let float = "train.float_epochs=1";
    place.succeed(&[
        "train", "e.toml", "--plain", "--steps", "160", "--set", float,
    ]);
    let run = place.recorded();
    let best = || run.manifest_or_rebuilt().expect("readable").best_error;
    let before = best().expect("evaluated");
    place.succeed(&["resume", &label(&run), "--plain", "--steps", "1"]);
    assert_eq!(best(), Some(before));
    let compared = place.succeed(&["compare", &label(&run), &label(&run), "--json"]);
    assert!(
        compared.contains(&format!("{before}")),
        "{before}: {compared}"
    );
    std::fs::remove_file(run.path().join("manifest.json")).expect("removed");
    assert_eq!(best(), Some(before));
}

#[test]
fn a_fork_falls_back_from_a_damaged_checkpoint_and_a_resume_to_the_best() {
    let place = Place::new("");
    let run = place.trained(80);
    let newest = run.newest_checkpoint().expect("saved");
    std::fs::write(&newest, b"cut").expect("damaged");
    let output = place.run(&["fork", &label(&run), "--plain", "--steps", "2"]);
    assert!(output.status.success(), "{output:?}");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("the checkpoint before it serves"), "{said}");
    for path in run.all_checkpoints() {
        std::fs::remove_file(path).expect("there");
    }
    assert!(run.best_checkpoint().is_some());
    place.succeed(&["resume", &label(&run), "--plain", "--steps", "2"]);
}

#[test]
fn hints_can_be_pasted() {
    let place = Place::new("");
    let run = place.trained(40);
    let refused = ["--set", "weights.bits_bounds=[2, 5]", "--plain"];
    let error = place.fail(2, &[&["resume", &label(&run)][..], &refused].concat());
    let command = error.split('`').nth(1).expect("a hint");
    let command = command.replacen("bitscope", &format!("exec '{}'", program()), 1);
    let output = Command::new("sh")
        .args(["-c", &format!("{command} --plain --steps 2")])
        .current_dir(place.folder.path())
        .output()
        .expect("started");
    assert!(output.status.success(), "{command}: {output:?}");
}

#[cfg(unix)]
#[test]
fn what_is_no_file_is_refused_and_not_waited_for() {
    let place = Place::new("");
    let run = place.trained(40);
    let fifo = |path: &Path| {
        let made = Command::new("mkfifo").arg(path).status();
        assert!(made.expect("started").success());
    };
    fifo(&place.folder.path().join("x.fifo"));
    let error = place.fail(
        1,
        &["train", "e.toml", "--plain", "--set", "init.weights=x.fifo"],
    );
    assert!(error.contains("x.fifo: it is no regular file"), "{error}");
    fifo(&run.checkpoint(99));
    place.succeed(&["resume", &label(&run), "--plain", "--steps", "2"]);
    assert!(warnings(&run).contains("step-99.safetensors"));
    std::fs::remove_file(run.path().join("manifest.json")).expect("there");
    fifo(&run.path().join("manifest.json"));
    assert!(
        place
            .succeed(&["runs"])
            .contains("manifest.json was damaged")
    );
    let error = place.fail(2, &["quantize", "/dev/zero"]);
    assert!(error.contains("more than 268435456 bytes"), "{error}");
}

#[cfg(target_os = "linux")]
#[test]
fn what_has_nothing_to_save_ends_at_once() {
    // Reading data that takes long; and a watcher whose reader does not read.
    let place = Place::new("");
    let many = ["--set", "data.samples=400000"];
    let mut command = place.command(&["train", "e.toml", "--plain", "--steps", "1"]);
    command.args(many).stdout(Stdio::null());
    let loading = Process::start(command);
    let runs = place.folder.path().join("runs");
    let owned = || list_runs(&runs).first().map(|r| r.0.clone());
    wait_until("it has its run", || {
        owned().is_some_and(|run| bitscope::run::RunLock::holder(run.path()).is_some())
    });
    loading.signal("TERM");
    assert_eq!(loading.ends(), Some(130));
    let manifest = place.recorded().manifest().expect("written");
    assert_eq!((manifest.status, manifest.step), (Status::Stopped, 0));
    let place = Place::new("");
    let run = place.trained(300);
    let mut watcher = place.start(&["watch", &label(&run), "--json"]);
    let mut lines = watcher.lines();
    assert!(lines.next().is_some());
    watcher.signal("TERM");
    assert_eq!(watcher.ends(), Some(130));
    drop(lines);
}

#[test]
fn a_log_that_is_cut_under_the_run_goes_on_and_says_so() {
    let place = Place::new("");
    let child = place.training(30);
    let run = place.recorded();
    wait_until("something is written", || !losses(&run).is_empty());
    std::fs::File::options()
        .write(true)
        .truncate(true)
        .open(run.log())
        .expect("cut");
    let cut = || read_log(&run.log()).is_ok_and(|(all, _)| all.len() > 1);
    wait_until("it is written anew", cut);
    child.signal("TERM");
    assert_eq!(child.ends(), Some(130));
    assert!(
        warnings(&run).contains("was cut under the run"),
        "{}",
        warnings(&run)
    );
    assert!(!losses(&run).is_empty());
    std::fs::write(run.log(), b"").expect("emptied");
    place.succeed(&["resume", &label(&run), "--plain", "--steps", "2"]);
    assert!(warnings(&run).contains("what the run recorded before is gone"));
}
