//! The command line as a user meets it.

mod common;

use std::io::Write;
use std::process::{Command, Output, Stdio};

use common::{SMALL, program, write};
use serde_json::Value;

fn bitscope(folder: &std::path::Path, arguments: &[&str]) -> Output {
    common::command(folder, arguments).output().expect("runs")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn every_message_is_printed_once() {
    let folder = tempfile::tempdir().expect("a folder");
    write(folder.path(), "e.toml", SMALL);
    let out = bitscope(
        folder.path(),
        &["train", "e.toml", "--steps", "3", "--plain"],
    );
    assert!(out.status.success(), "{}", text(&out.stderr));
    let printed = text(&out.stdout);
    let messages: Vec<&str> = printed.lines().filter(|l| l.starts_with('[')).collect();
    let different: std::collections::BTreeSet<&&str> = messages.iter().collect();
    assert_eq!(different.len(), messages.len(), "{printed}");
    assert!(messages[0].starts_with("[0] started"), "{printed}");
}

#[test]
fn json_lines_runs_resume_and_plots() {
    let folder = tempfile::tempdir().expect("a folder");
    let at = folder.path();
    write(at, "e.toml", SMALL);
    let out = bitscope(
        at,
        &[
            "train",
            "e.toml",
            "--steps",
            "40",
            "--json",
            "--set",
            "optimizer.lr=0.02",
        ],
    );
    assert!(out.status.success(), "{}", text(&out.stderr));
    let events: Vec<Value> = text(&out.stdout)
        .lines()
        .map(|l| serde_json::from_str(l).expect("JSON"))
        .collect();
    let named = |name: &str| {
        events
            .iter()
            .filter(|e| e["event"] == name)
            .collect::<Vec<_>>()
    };
    assert_eq!(named("step").len(), 40);
    assert_eq!(named("step")[0]["lr"], 0.02);
    let evaluation = named("evaluation")[0];
    assert!(evaluation["split"] == "validation" && evaluation["error"].is_number());
    let run = named("started")[0]["name"]
        .as_str()
        .expect("a name")
        .to_owned();
    let listed = text(&bitscope(at, &["runs"]).stdout);
    assert!(
        listed.contains(&run) && listed.contains("stopped"),
        "{listed}"
    );
    let out = bitscope(at, &["resume", &run, "--json", "--steps", "3"]);
    assert!(
        text(&out.stdout).contains("\"step\":43"),
        "{}",
        text(&out.stderr)
    );
    for figure in [
        "loss",
        "error",
        "bitwidth",
        "bitwidth-heat",
        "step-size",
        "range",
        "gradients",
        "memory",
        "plane",
        "ledger",
        "pull",
        "phases",
    ] {
        for (extension, start) in [
            ("png", &b"\x89PNG"[..]),
            ("svg", b"<svg"),
            ("pdf", b"%PDF"),
            ("csv", b"panel,series,x,y"),
        ] {
            let file = format!("{figure}.{extension}");
            let out = bitscope(at, &["plot", &run, figure, "-o", &file]);
            assert!(out.status.success(), "{figure}: {}", text(&out.stderr));
            let bytes = std::fs::read(at.join(&file)).expect("written");
            assert!(bytes.starts_with(start) && bytes.len() > 200, "{file}");
        }
    }
}

#[test]
fn wrong_usage_is_2_and_says_where() {
    let folder = tempfile::tempdir().expect("a folder");
    let at = folder.path();
    write(at, "bad.toml", "[optimizer]\nlr = 1\nlearning_rate = 2\n");
    let out = bitscope(at, &["check", "bad.toml"]);
    let error = text(&out.stderr);
    assert_eq!(out.status.code(), Some(2));
    assert!(
        error.contains("bad.toml:3:1") && error.contains("learning_rate = 2"),
        "{error}"
    );
    write(at, "gpu.toml", "device = \"libtorch:cuda:99\"\n");
    let out = bitscope(at, &["train", "gpu.toml"]);
    assert_eq!(out.status.code(), Some(2));
    assert!(text(&out.stderr).contains("flex"), "{}", text(&out.stderr));
    write(
        at,
        "tight.toml",
        "[weights]\nquantizer = \"u3\"\n[budget]\nweights_kb = 0.5\n",
    );
    let out = bitscope(at, &["check", "tight.toml"]);
    assert!(
        text(&out.stderr).contains("tight.toml:4:14"),
        "{}",
        text(&out.stderr)
    );
    for arguments in [
        &["frobnicate"][..],
        &["resume", "nothing"],
        &["plot", "nothing", "loss", "-o", "x.png"],
    ] {
        assert_eq!(
            bitscope(at, arguments).status.code(),
            Some(2),
            "{arguments:?}"
        );
    }
}

#[test]
fn a_reader_that_goes_away_ends_the_program_quietly() {
    let folder = tempfile::tempdir().expect("a folder");
    write(folder.path(), "e.toml", SMALL);
    let mut child = common::command(folder.path(), &["train", "e.toml", "--json"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("runs");
    let mut line = String::new();
    let mut reader = std::io::BufReader::new(child.stdout.take().expect("piped"));
    std::io::BufRead::read_line(&mut reader, &mut line).expect("a line");
    drop(reader);
    let out = child.wait_with_output().expect("ended");
    assert_eq!(
        (out.status.code(), text(&out.stderr)),
        (Some(0), String::new())
    );
}

#[test]
fn quantize_agrees_with_the_published_code() {
    let golden = include_str!("data/reference/quantizer-golden.json");
    let folder = tempfile::tempdir().expect("a folder");
    let mut child = common::command(folder.path(), &["quantize", "--plot", "figure.png"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("runs");
    let mut stdin = child.stdin.take().expect("piped");
    let writer = std::thread::spawn(move || stdin.write_all(golden.as_bytes()));
    let out = child.wait_with_output().expect("ended");
    writer.join().expect("no panic").expect("written");
    assert!(out.status.success());
    let ours: Value = serde_json::from_slice(&out.stdout).expect("JSON");
    let theirs: Value = serde_json::from_str(golden).expect("JSON");
    let close = |a: f64, b: f64| (a - b).abs() <= 1e-6_f64.max(1e-5 * b.abs());
    let cases = theirs["cases"].as_array().expect("cases");
    for (i, case) in cases.iter().enumerate() {
        let own = &ours["cases"][i];
        for key in ["y", "grad_x"] {
            for (j, expected) in case[key].as_array().expect("a list").iter().enumerate() {
                let (a, b) = (
                    own[key][j].as_f64().expect("a number"),
                    expected.as_f64().unwrap_or(0.0),
                );
                assert!(close(a, b), "case {i} {key}[{j}]: {a} {b}");
            }
        }
        for (name, expected) in case["grad_params"].as_object().expect("an object") {
            let (a, b) = (
                own["grad_params"][name].as_f64().expect("a number"),
                expected.as_f64().expect("a number"),
            );
            assert!(close(a, b), "case {i} {name}: {a} {b}");
        }
        assert!(own["bitwidth"].is_number() && own["levels"].is_number());
    }
    assert!(
        std::fs::read(folder.path().join("figure.png"))
            .expect("drawn")
            .starts_with(b"\x89PNG")
    );
    let bad = write(
        folder.path(),
        "bad.json",
        r#"{"cases":[{"quantizer":"u9","signed":true}]}"#,
    );
    let out = Command::new(program())
        .arg("quantize")
        .arg(bad)
        .output()
        .expect("runs");
    assert_eq!(out.status.code(), Some(2));
    assert!(text(&out.stderr).contains("case 0: unknown quantizer \"u9\"; expected u1"));
}

/// A full disk, as the limit on the size of a file shows it: writes fail, training does not.
#[test]
#[cfg(unix)]
fn a_full_disk_costs_the_record_and_not_the_run() {
    let folder = tempfile::tempdir().expect("a folder");
    let at = folder.path();
    write(at, "e.toml", SMALL);
    let command = format!(
        "trap '' XFSZ; ulimit -f 8; exec '{}' train e.toml --steps 80 --json",
        program()
    );
    let out = Command::new("bash")
        .args(["-c", &command])
        .current_dir(at)
        .output()
        .expect("runs");
    let text = text(&out.stdout);
    assert!(out.status.success(), "{text}");
    let events: Vec<Value> = text
        .lines()
        .map(|l| serde_json::from_str(l).expect("JSON"))
        .collect();
    let steps = events.iter().filter(|e| e["event"] == "step").count();
    assert_eq!(steps, 80);
    let warned = |words: &str| {
        let all = events.iter().filter(|e| e["event"] == "warning");
        all.filter_map(|e| e["message"].as_str())
            .any(|m| m.contains(words))
    };
    assert!(warned("the event log is not being written"), "{text}");
    assert!(warned("no checkpoint written"), "{text}");
    assert_eq!(events.last().expect("some")["event"], "stopped");
    // What was written before the disk was full can still be read.
    let listed = bitscope(at, &["runs"]);
    assert!(String::from_utf8_lossy(&listed.stdout).contains("small-"));
}

/// A new file is whole, opens, and never goes over one that is there.
#[test]
fn new_writes_a_file_of_ones_own() {
    let folder = tempfile::tempdir().expect("a folder");
    let run = |arguments: &[&str]| {
        Command::new(program())
            .current_dir(folder.path())
            .args(arguments)
            .output()
            .expect("starts")
    };
    std::fs::write(folder.path().join("base.toml"), "[optimizer]\nlr = 0.07\n").expect("written");
    std::fs::write(
        folder.path().join("child.toml"),
        "extends = \"base.toml\"\n[model]\nname = \"resnet20\"\n",
    )
    .expect("written");
    let made = run(&["new", "mine", "--from", "child.toml", "--set", "seed=5"]);
    assert!(
        made.status.success(),
        "{}",
        String::from_utf8_lossy(&made.stderr)
    );
    let path = folder.path().join("mine.toml");
    let text = std::fs::read_to_string(&path).expect("there");
    for line in [
        "name = \"mine\"",
        "lr = 0.07",
        "name = \"resnet20\"",
        "seed = 5",
        "# momentum = 0.9",
    ] {
        assert!(text.lines().any(|l| l == line), "{line}\n{text}");
    }
    assert!(!text.contains("extends ="));
    assert!(run(&["check", "mine.toml"]).status.success());
    let again = run(&["new", "mine"]);
    assert_eq!(again.status.code(), Some(2));
    assert_eq!(std::fs::read_to_string(&path).expect("there"), text);
}

/// Completions and the manual know every command.
#[test]
fn completions_and_the_manual_name_every_command() {
    let out = |arguments: &[&str]| {
        let output = Command::new(program()).args(arguments).output();
        let output = output.expect("starts");
        assert!(output.status.success(), "{arguments:?}");
        String::from_utf8(output.stdout).expect("text")
    };
    let manual = out(&["man"]);
    let help = out(&["help"]);
    let shells = ["bash", "zsh", "fish", "elvish", "powershell"];
    let scripts = shells.map(|shell| out(&["completions", shell]));
    let commands = help
        .lines()
        .skip_while(|l| !l.starts_with("Commands:"))
        .skip(1);
    for command in commands.take_while(|l| l.starts_with("  ")) {
        let name = command.split_whitespace().next().expect("a name");
        assert!(manual.contains(name), "{name}");
        for (shell, script) in shells.iter().zip(&scripts) {
            assert!(script.contains(name), "{shell}: {name}");
        }
    }
    assert!(manual.starts_with(".ie") && manual.contains(".TH"));
}
