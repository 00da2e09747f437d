//! Studies as they are used: run, killed, gone on with, run by a scheduler's script, reported.

mod common;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use bitscope::run::RunFolder;
use common::{Process, command, kill_owners, text, wait_until, write};
use serde_json::Value;

/// Two stages, two values on an axis, two seeds: six runs of a few seconds at most.
const STUDY: &str = r#"
name = "small"
base = "base.toml"
seeds = [1, 2]
reference = "float"

[[axis]]
keys = ["weights.quantizer"]
values = ["u2", "u3"]

[[row]]
name = "float"
axes = false
paper = 12.5

[[row]]
name = "learned"
from = "float"
"#;

const BASE: &str = r#"
device = "flex"
[data]
samples = 640
difficulty = 0.3
[train]
batch = 32
epochs = 2
[log]
checkpoint_every = 0.25
"#;

const LABELS: [&str; 6] = [
    "float-s1",
    "learned-u2-s1",
    "learned-u3-s1",
    "float-s2",
    "learned-u2-s2",
    "learned-u3-s2",
];

fn place() -> (tempfile::TempDir, PathBuf) {
    let place = tempfile::tempdir().expect("a folder");
    write(place.path(), "base.toml", BASE);
    let study = write(place.path(), "small.toml", STUDY);
    (place, study)
}

fn bitscope(folder: &Path, arguments: &[&str]) -> Output {
    command(folder, arguments).output().expect("started")
}

/// The report without what differs between two equal studies: how long they took.
fn report(folder: &Path, into: &str) -> Value {
    let output = bitscope(folder, &["report", into, "--format", "json"]);
    assert!(output.status.success(), "{}", text(&output));
    let mut report: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    for cell in report["cells"].as_array_mut().expect("cells") {
        for run in cell["runs"].as_array_mut().expect("runs") {
            run["seconds"].take();
        }
    }
    report
}

fn log_sizes(folder: &Path) -> Vec<u64> {
    let log = |label: &&str| folder.join(label).join("events.log");
    let sizes = LABELS
        .iter()
        .map(|l| log(l).metadata().map_or(0, |m| m.len()));
    sizes.collect()
}

#[test]
fn a_study_killed_and_gone_on_with_comes_to_the_same() {
    let (place, _) = place();
    let folder = place.path();
    let whole = bitscope(
        folder,
        &["study", "small.toml", "--into", "whole", "--workers", "2"],
    );
    assert!(whole.status.success(), "{}", text(&whole));
    let expected = report(folder, "whole");
    assert_eq!(expected["cells"].as_array().map(Vec::len), Some(3));
    assert_eq!(expected["cells"][0]["published"]["error"], 12.5);
    for cell in expected["cells"].as_array().expect("cells") {
        assert_eq!(cell["measures"]["test %"]["runs"], 2, "{cell}");
        for run in cell["runs"].as_array().expect("runs") {
            assert_eq!(
                (&run["state"], &run["test_reads"]),
                (&"finished".into(), &1.into())
            );
        }
    }
    // Nothing is run twice.
    let before = log_sizes(&folder.join("whole/runs"));
    assert!(before.iter().all(|size| *size > 0), "{before:?}");
    let again = bitscope(folder, &["study", "small.toml", "--into", "whole"]);
    assert!(again.status.success(), "{}", text(&again));
    assert!(
        text(&again).contains("6 tasks: 6 finished"),
        "{}",
        text(&again)
    );
    assert_eq!(log_sizes(&folder.join("whole/runs")), before);

    // Killed hard, with the runs that it had begun, wherever they were.
    let killed = ["study", "small.toml", "--into", "killed"];
    let runs = folder.join("killed/runs");
    for label in ["float-s1", "learned-u2-s1", "learned-u3-s2"] {
        let mut study = Process::start(command(folder, &killed));
        wait_until("a run has begun", || {
            runs.join(label).join("events.log").is_file()
        });
        study.kill();
        kill_owners(&runs);
        let left = text(&bitscope(folder, &[&killed[..], &["--dry-run"]].concat()));
        assert!(left.contains("1 half done"), "{left}");
    }
    let rest = bitscope(folder, &killed);
    assert!(rest.status.success(), "{}", text(&rest));
    assert_eq!(report(folder, "killed"), expected);
}

/// Told to end, a study ends its runs first, each with a checkpoint.
#[cfg(unix)]
#[test]
fn a_study_that_is_told_to_stop_takes_its_runs_with_it() {
    let (place, _) = place();
    let folder = place.path();
    write(
        folder,
        "base.toml",
        &BASE.replace("epochs = 2", "epochs = 2000"),
    );
    let mut study = command(folder, &["study", "small.toml", "--workers", "2"]);
    study.stdout(std::process::Stdio::null());
    let study = Process::start(study);
    let opened = |label: &str| RunFolder::open(&folder.join("studies/small/runs").join(label));
    let runs = || ["float-s1", "float-s2"].map(opened).into_iter().flatten();
    wait_until("both train", || {
        let train = runs().filter(|run| run.manifest().is_ok_and(|m| m.step > 0));
        train.count() == 2
    });
    let taken = bitscope(folder, &["study", "small.toml", "--task", "0"]);
    assert_eq!(taken.status.code(), Some(1), "{}", text(&taken));
    assert!(text(&taken).contains("has it"), "{}", text(&taken));
    study.signal("TERM");
    assert_eq!(study.ends(), Some(130));
    for run in runs() {
        assert!(bitscope::run::RunLock::holder(run.path()).is_none());
        let manifest = run.manifest().expect("written");
        let newest = run.checkpoints_by_step().pop().expect("saved").0;
        assert_eq!(newest, manifest.step, "{run:?}");
    }
}

#[test]
fn a_task_says_why_it_cannot_run_and_runs_once() {
    let (place, _) = place();
    let folder = place.path();
    let task = |k: &str| bitscope(folder, &["study", "small.toml", "--task", k]);
    let early = task("1");
    assert_eq!(early.status.code(), Some(1));
    assert!(text(&early).contains("starts from float, seed 1, which is not finished"));
    let beyond = task("6");
    assert_eq!(beyond.status.code(), Some(2));
    assert!(
        text(&beyond).contains("has tasks 0 to 5"),
        "{}",
        text(&beyond)
    );
    for k in ["0", "1"] {
        let done = task(k);
        assert!(done.status.success(), "{}", text(&done));
    }
    let again = task("1");
    assert!(text(&again).contains("finished before"), "{}", text(&again));
    // The run is an ordinary one, with where it came from.
    let run = folder.join("studies/small/runs/learned-u2-s1");
    let experiment = std::fs::read_to_string(run.join("experiment.toml")).expect("kept");
    assert!(experiment.contains("float-s1"), "{experiment}");
    let listed = bitscope(folder, &["runs", "studies/small/runs", "--json"]);
    let listed: Value = serde_json::from_slice(&listed.stdout).expect("JSON");
    assert_eq!(listed.as_array().map(Vec::len), Some(2));
    // Until all is there, the report says what is missing.
    let half = bitscope(folder, &["report", "small.toml"]);
    let half = text(&half);
    assert!(half.contains("2 of 6 runs finished"), "{half}");
    assert!(half.contains("learned, u3, seed 2: waiting"), "{half}");
    let dry = text(&bitscope(folder, &["study", "small.toml", "--dry-run"]));
    assert!(dry.contains("MB of disk"), "{dry}");
    assert_eq!(dry.matches("took 0:").count(), 2, "{dry}");
}

/// Starts a task and kills it once it has saved something.
fn killed_behind_a_checkpoint(task: Command, run: &Path) {
    let mut child = Process::start(task);
    let saved = |run: RunFolder| !run.checkpoints_by_step().is_empty();
    wait_until("a checkpoint", || RunFolder::open(run).is_ok_and(saved));
    child.kill();
}

/// Data that is not there for a while costs no training.
#[test]
fn a_failed_task_goes_on_from_its_checkpoint() {
    let place = tempfile::tempdir().expect("a folder");
    let folder = place.path();
    let shade = |x: u32, y: u32, number: u32| ((x * 7 + y * 3 + number * 37) % 256) as u8;
    for part in ["train", "test"] {
        for (class, offset) in [("a", 0), ("b", 1000)] {
            let path = folder.join("pictures").join(part).join(class);
            std::fs::create_dir_all(&path).expect("made");
            for number in 0..32 {
                let pixel = |x, y| image::Luma([shade(x, y, offset + number)]);
                let picture = image::GrayImage::from_fn(16, 16, pixel);
                let at = path.join(format!("{number}.png"));
                picture.save(at).expect("written");
            }
        }
    }
    let base = "device = \"flex\"\n[data]\nsource = \"folder\"\npath = \"pictures\"\nsize = 16\n\
                [train]\nbatch = 16\nepochs = 400\n[log]\ncheckpoint_every = 1\n";
    write(folder, "base.toml", base);
    write(
        folder,
        "one.toml",
        "name = \"one\"\nbase = \"base.toml\"\n[[row]]\nname = \"a\"\n[[row]]\nname = \"b\"\nfrom = \"a\"\n",
    );
    let task = |more: &[&str]| {
        let task = ["study", "one.toml", "--into", "out", "--task", "0"];
        bitscope(folder, &[&task[..], more].concat())
    };
    killed_behind_a_checkpoint(
        command(
            folder,
            &["study", "one.toml", "--into", "out", "--task", "0"],
        ),
        &folder.join("out/runs/a-s1"),
    );

    std::fs::rename(folder.join("pictures"), folder.join("away")).expect("moved");
    let failed = task(&[]);
    assert_eq!(failed.status.code(), Some(1), "{}", text(&failed));
    std::fs::rename(folder.join("away"), folder.join("pictures")).expect("moved");
    let left = bitscope(folder, &["study", "one.toml", "--into", "out", "--dry-run"]);
    let said = text(&left);
    assert!(said.contains("starts from a run that failed"), "{said}");
    let refused = task(&[]);
    assert_eq!(refused.status.code(), Some(1), "{}", text(&refused));
    assert!(text(&refused).contains("--retry"), "{}", text(&refused));
    let done = task(&["--retry"]);
    assert!(done.status.success(), "{}", text(&done));
    assert!(text(&done).contains("resumed"), "{}", text(&done));
}

/// A `sbatch` and a `hq` that run the tasks of an array one after the other, as the real ones would on
/// one node.
const FAKE: &str = r#"#!/bin/sh
ids=; command=; capture=
while [ $# -gt 0 ]; do
    case "$1" in
    --array=*) ids=$(echo "${1#--array=}" | tr ',' ' ');;
    --wrap) command="$2"; shift;;
    --) shift; command="$*"; break;;
    submit|--*) ;;
    esac
    shift
done
for range in $ids; do
    from=${range%-*}; to=${range#*-}
    while [ "$from" -le "$to" ]; do
        env VARIABLE=$from sh -c "$command" >&2 || exit 1
        from=$((from + 1))
    done
done
echo 7
"#;

#[cfg(unix)]
#[test]
fn job_scripts_run_every_task_in_order() {
    use std::os::unix::fs::PermissionsExt;
    let (place, _) = place();
    let folder = place.path();
    for (name, variable) in [("sbatch", "SLURM_ARRAY_TASK_ID"), ("hq", "HQ_TASK_ID")] {
        let path = write(folder, name, &FAKE.replace("VARIABLE", variable));
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).expect("set");
    }
    let search = format!(
        "{}:{}",
        folder.display(),
        std::env::var("PATH").expect("set")
    );
    let mut reports = Vec::new();
    for (scheduler, runs_it) in [
        ("slurm", "bash"),
        ("hyperqueue", "bash"),
        ("make", "make -f"),
    ] {
        let plan = [
            "study",
            "small.toml",
            "--into",
            scheduler,
            "--plan",
            scheduler,
        ];
        let script = bitscope(folder, &plan);
        assert!(script.status.success(), "{}", text(&script));
        let path = folder.join(format!("{scheduler}.sh"));
        std::fs::write(&path, &script.stdout).expect("written");
        let mut words = runs_it.split(' ');
        let mut command = Command::new(words.next().expect("a program"));
        command.args(words).arg(&path).current_dir(folder);
        command.env("PATH", &search);
        let ran = match command.output() {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound && scheduler == "make" => {
                eprintln!("this machine has no make: its plan was not run");
                continue;
            }
            ran => ran.expect("started"),
        };
        assert!(ran.status.success(), "{}", text(&ran));
        reports.push(report(folder, scheduler));
    }
    for other in &reports[1..] {
        assert_eq!(reports[0], *other);
    }
    let finished = reports[0]["cells"][2]["measures"]["test %"]["runs"].clone();
    assert_eq!(finished, 2);
}

#[test]
fn other_settings_under_a_run_that_was_begun_are_refused() {
    let (place, study) = place();
    let folder = place.path();
    // Stopped after some steps: half done.
    write(
        folder,
        "base.toml",
        &BASE.replace("epochs = 2", "epochs = 200"),
    );
    killed_behind_a_checkpoint(
        command(folder, &["study", "small.toml", "--task", "0"]),
        &folder.join("studies/small/runs/float-s1"),
    );
    let other = STUDY.replace("[[axis]]", "[set]\ntrain.batch = 16\n[[axis]]");
    std::fs::write(&study, other).expect("written");
    let refused = bitscope(folder, &["study", "small.toml", "--task", "0"]);
    let said = text(&refused);
    assert_eq!(refused.status.code(), Some(2), "{said}");
    assert!(
        said.contains("other settings") && said.contains("train.batch"),
        "{said}"
    );
    // The whole study says so before anything else runs.
    let whole = bitscope(folder, &["study", "small.toml"]);
    let said = text(&whole);
    assert_eq!(whole.status.code(), Some(2), "{said}");
    assert!(said.contains("other settings"), "{said}");
    assert!(!said.contains("began"), "{said}");
}

#[test]
fn runs_that_started_from_weights_that_are_gone_are_not_mixed_in() {
    let (place, study) = place();
    let folder = place.path();
    let small = ["study", "small.toml", "--workers", "2"];
    let whole = bitscope(folder, &small);
    assert!(whole.status.success(), "{}", text(&whole));
    let runs = folder.join("studies/small/runs");
    // As it was: the same weights again, and nothing to say.
    std::fs::remove_dir_all(runs.join("float-s1")).expect("removed");
    let again = bitscope(folder, &small);
    assert!(again.status.success(), "{}", text(&again));
    let float = "name = \"float\"\n";
    let other = STUDY.replacen(
        float,
        &format!("{float}set = {{ optimizer.lr = 0.03 }}\n"),
        2,
    );
    assert_ne!(other, STUDY);
    std::fs::write(&study, other).expect("written");
    for label in ["float-s1", "float-s2"] {
        std::fs::remove_dir_all(runs.join(label)).expect("removed");
    }
    let anew = bitscope(folder, &small);
    assert_eq!(anew.status.code(), Some(2), "{}", text(&anew));
    let gone = "the weights of float";
    assert!(text(&anew).contains(gone), "{}", text(&anew));
    assert!(runs.join("float-s1").is_dir() && runs.join("float-s2").is_dir());
    // What is refused is named, and counts nowhere.
    let output = bitscope(folder, &["report", "small.toml"]);
    assert!(output.status.success() && text(&output).contains(gone));
    let report = report(folder, "small.toml");
    for (cell, counted) in [(0, 2), (1, 0), (2, 0)] {
        let measured = &report["cells"][cell]["measures"]["test %"]["runs"];
        assert_eq!(measured.as_u64().unwrap_or(0), counted, "cell {cell}");
    }
}

#[test]
fn figures_are_written_and_files_that_are_wrong_are_named() {
    let (place, _) = place();
    let folder = place.path();
    let ran = bitscope(folder, &["study", "small.toml", "--workers", "2"]);
    assert!(ran.status.success(), "{}", text(&ran));
    let drawn = bitscope(folder, &["report", "studies/small", "--figures", "figures"]);
    assert!(drawn.status.success(), "{}", text(&drawn));
    for name in ["error-kb.png", "error-kb.pdf", "curves.csv", "bits.png"] {
        let path = folder.join("figures").join(name);
        assert!(path.metadata().is_ok_and(|m| m.len() > 200), "{name}");
    }
    for form in ["csv", "tex", "md"] {
        let output = bitscope(folder, &["report", "studies/small", "--format", form]);
        assert!(text(&output).contains("learned"), "{form}");
    }
    // The folder of another study is not taken over.
    write(
        folder,
        "other.toml",
        STUDY.replacen("small", "other", 1).as_str(),
    );
    let other = bitscope(
        folder,
        &[
            "study",
            "other.toml",
            "--into",
            "studies/small",
            "--dry-run",
        ],
    );
    assert_eq!(other.status.code(), Some(2), "{}", text(&other));
    assert!(
        text(&other).contains("is of the study \"small\""),
        "{}",
        text(&other)
    );
    write(
        folder,
        "bad.toml",
        "base = \"base.toml\"\n[set]\ntrain.epoch = 3\n",
    );
    let bad = bitscope(folder, &["study", "bad.toml"]);
    assert_eq!(bad.status.code(), Some(2));
    assert!(text(&bad).contains("train.epoch"), "{}", text(&bad));
    for (path, said) in [
        ("nothing.toml", "nothing.toml does not exist"),
        ("figures", "it has no study.json"),
    ] {
        for command in ["study", "report"] {
            let none = bitscope(folder, &[command, path]);
            assert_eq!(none.status.code(), Some(2), "{}", text(&none));
            assert!(text(&none).contains(said), "{}", text(&none));
        }
    }
}

/// Every study that is shipped can be read, and its experiments are sound.
#[test]
fn shipped_studies_are_sound() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/studies");
    let place = tempfile::tempdir().expect("a folder");
    let mut seen = 0;
    for entry in std::fs::read_dir(root).expect("shipped") {
        let path = entry.expect("an entry").path();
        let path = path.display().to_string();
        let output = bitscope(place.path(), &["study", &path, "--dry-run"]);
        assert!(output.status.success(), "{path}: {}", text(&output));
        seen += 1;
    }
    assert!(seen >= 5, "{seen}");
}
