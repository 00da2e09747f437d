//! Runs that earlier versions wrote: read, or refused in words. A folder for each pair of formats stays
//! here for ever; `bitscope train --steps 3` on a small setting of the demo wrote it.

mod common;

use std::path::{Path, PathBuf};

use bitscope::run::{Event, LogReader, RunFolder, read_log};
use bitscope::training::Checkpoint;

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/data/runs")
        .join(name)
}

/// A copy that may be written to.
fn copied(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("created");
    for entry in std::fs::read_dir(from).expect("read") {
        let path = entry.expect("an entry").path();
        let target = to.join(path.file_name().expect("a name"));
        if path.is_dir() {
            copied(&path, &target);
        } else {
            std::fs::copy(&path, target).expect("copied");
        }
    }
}

#[test]
fn log_4_with_checkpoint_2_is_read_and_resumed() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("run");
    copied(&fixture("log-4-checkpoint-2"), &path);
    let run = RunFolder::open(&path).expect("a run");
    let (events, bytes) = read_log(&run.log()).expect("readable");
    assert_eq!(bytes, run.log().metadata().expect("there").len());
    let steps: Vec<u64> = events
        .iter()
        .filter_map(|e| match e {
            Event::Step(r) => Some(r.step),
            _ => None,
        })
        .collect();
    assert_eq!(steps, [1, 2, 3]);
    assert!(matches!(events.first(), Some(Event::Started { layers, .. }) if layers.len() == 9));
    let checkpoint = Checkpoint::open(&run.checkpoint(3)).expect("sound");
    assert_eq!(
        (checkpoint.state.step, checkpoint.state.slots.len()),
        (3, 9)
    );
    assert_eq!(checkpoint.weights["conv1.weight"].0, [16, 3, 3, 3]);
    let resume = ["resume", "run", "--plain", "--steps", "2"];
    let output = common::command(folder.path(), &resume).output();
    let output = output.expect("started");
    assert!(output.status.success(), "{output:?}");
    assert_eq!(run.manifest().expect("a manifest").step, 5);
}

#[test]
fn older_formats_are_refused_in_words() {
    let folder = tempfile::tempdir().expect("a folder");
    let log = folder.path().join("events.log");
    std::fs::write(&log, "bitscope events 3\n").expect("written");
    let error = LogReader::open(&log).expect_err("refused").to_string();
    assert!(error.contains("another version"), "{error}");
    // A checkpoint without a version, as the first ones were.
    let file = folder.path().join("c.safetensors");
    let metadata = std::collections::HashMap::from([("bitscope.state".into(), "00".into())]);
    let tensors: [(&str, safetensors::tensor::TensorView<'_>); 0] = [];
    safetensors::serialize_to_file(tensors, Some(metadata), &file).expect("written");
    let error = Checkpoint::open(&file).expect_err("refused").to_string();
    assert!(error.contains("older version"), "{error}");
}
