//! A run's network in integers and for other programs.

mod common;

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use common::text;
use safetensors::SafeTensors;
use serde_json::Value;

fn bitscope(folder: &Path, arguments: &[&str]) -> Output {
    common::command(folder, arguments).output().expect("starts")
}

/// Trains a few steps with these settings; the run's folder.
fn train(folder: &Path, name: &str, settings: &[&str]) -> PathBuf {
    let runs = folder.join(name);
    let runs_text = runs.to_string_lossy().into_owned();
    let common = [
        "device=flex",
        "data.samples=160",
        "train.batch=16",
        "train.float_epochs=0",
        "train.epochs=1",
        "optimizer.lr=0.01",
    ];
    let mut arguments = vec!["train", "--plain", "--runs", &runs_text];
    for setting in common.iter().chain(settings) {
        arguments.extend(["--set", setting]);
    }
    let trained = bitscope(folder, &arguments);
    assert!(trained.status.success(), "{name}: {}", text(&trained));
    let mut entries = std::fs::read_dir(&runs).expect("runs");
    entries.next().expect("a run").expect("readable").path()
}

fn quantized<'a>(quantizer: &'a str, at: &'a str) -> Vec<String> {
    vec![
        format!("weights.quantizer={quantizer}"),
        format!("activations.quantizer={quantizer}"),
        format!("activations.at={at}"),
        "input.bits=8".to_owned(),
        // (A quantized input counts among the activations.)
        "budget.activations_sum_kb=8".to_owned(),
    ]
}

fn verify(folder: &Path, run: &Path) -> (Option<i32>, Value) {
    let run = run.to_string_lossy();
    let output = bitscope(
        folder,
        &["verify", &run, "--json", "--save", "io.safetensors"],
    );
    let json = serde_json::from_slice(&output.stdout);
    let json = json.unwrap_or_else(|_| panic!("{}", text(&output)));
    (output.status.code(), json)
}

/// Every kind of network, quantizer and placement: integers and fake-quantized floats agree on every
/// value that integers give.
#[test]
fn integers_equal_the_fake_quantized_network() {
    let folder = tempfile::tempdir().expect("a folder");
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let file = |name: &str| {
        let path = root.join("tests/data/onnx").join(name);
        format!("model.file={}", path.display())
    };
    let networks = [
        ("glyphnet", vec!["model.name=glyphnet".to_owned()]),
        (
            "resnet20",
            vec![
                "model.name=resnet20".to_owned(),
                "model.shortcut=b".to_owned(),
            ],
        ),
        ("densenet", vec![file("densenet-tiny.onnx")]),
        (
            "mobilenet",
            vec![
                "model.name=mobilenet_v2".to_owned(),
                "model.width=0.25".to_owned(),
            ],
        ),
    ];
    let no_budget = [
        "budget.weights_kb=10000".to_owned(),
        "budget.activations_sum_kb=10000".to_owned(),
    ];
    for (name, model) in networks {
        for (quantizer, at) in [("u3", "everywhere"), ("p3", "nonlinearities")] {
            let settings = [&model[..], &quantized(quantizer, at), &no_budget].concat();
            let settings: Vec<&str> = settings.iter().map(String::as_str).collect();
            let what = format!("{name}-{quantizer}");
            let run = train(folder.path(), &what, &settings);
            let (code, seen) = verify(folder.path(), &run);
            assert_eq!(seen["differing"], 0, "{what}: {}", seen["first"]);
            assert_eq!(code, Some(0), "{what}");
            assert!(seen["compared"].as_u64() > Some(100_000), "{what}: {seen}");
            let in_float = seen["in_float"].as_array().expect("a list");
            if at == "everywhere" || name == "glyphnet" || name == "densenet" {
                assert!(in_float.is_empty(), "{what}: {in_float:?}");
            } else {
                let why = in_float[0]["why"].as_str().expect("a reason");
                assert_eq!(why, "batch norm without a quantizer behind it", "{what}");
            }
        }
    }
}

fn tensor(file: &Path, name: &str) -> (Vec<usize>, Vec<u8>) {
    let bytes = std::fs::read(file).expect("readable");
    let all = SafeTensors::deserialize(&bytes).expect("safetensors");
    let view = all.tensor(name).expect("there");
    (view.shape().to_vec(), view.data().to_vec())
}

fn floats(file: &Path, name: &str) -> Vec<f32> {
    let (_, bytes) = tensor(file, name);
    let (chunks, _) = bytes.as_chunks::<4>();
    chunks.iter().map(|b| f32::from_le_bytes(*b)).collect()
}

const MAIN: &str = r#"
#include <stdio.h>
#include "network.h"
int main(void)
{
    static uint8_t image[NETWORK_INPUT];
    static int32_t logits[NETWORK_CLASSES];
    while (fread(image, 1, sizeof image, stdin) == sizeof image) {
        int k;
        network_run(image, logits);
        for (k = 0; k < NETWORK_CLASSES; k++)
            printf("%ld ", (long)logits[k]);
        printf("%d\n", network_classify(image));
    }
    return 0;
}
"#;

/// The `integers` file, the C file and the network itself agree on every picture of the test part.
#[test]
fn exported_files_compute_the_same_logits() {
    let folder = tempfile::tempdir().expect("a folder");
    let at = |name: &str| folder.path().join(name);
    for (quantizer, placed) in [
        ("u3", "everywhere"),
        ("p3", "nonlinearities"),
        ("u3", "nonlinearities"),
    ] {
        let settings = quantized(quantizer, placed);
        let mut settings: Vec<&str> = settings.iter().map(String::as_str).collect();
        settings.push("budget.weights_kb=14");
        let run = train(folder.path(), &format!("{quantizer}-{placed}"), &settings);
        let (code, seen) = verify(folder.path(), &run);
        assert_eq!(code, Some(0), "{seen}");
        let logits = floats(&at("io.safetensors"), "logits");
        let run = run.to_string_lossy();
        for (format, file) in [("integers", "network.safetensors"), ("c", "network.c")] {
            let exported = bitscope(
                folder.path(),
                &["export", &run, "--format", format, "-o", file],
            );
            assert!(exported.status.success(), "{}", text(&exported));
        }
        let predicted = bitscope(
            folder.path(),
            &[
                "predict",
                "network.safetensors",
                "--images",
                "io.safetensors",
                "-o",
                "logits.safetensors",
            ],
        );
        assert!(predicted.status.success(), "{}", text(&predicted));
        assert_eq!(floats(&at("logits.safetensors"), "logits"), logits);
        // And the network as the run has it, from the same bytes.
        let predicted = bitscope(
            folder.path(),
            &[
                "predict",
                &run,
                "--images",
                "io.safetensors",
                "-o",
                "logits.safetensors",
            ],
        );
        assert!(predicted.status.success(), "{}", text(&predicted));
        assert_eq!(floats(&at("logits.safetensors"), "logits"), logits);
        in_c(folder.path(), &logits);
    }
}

/// Compiles `network.c` with every warning an error, and undefined behaviour a trap; runs it on the
/// pictures of `io.safetensors`.
fn in_c(folder: &Path, logits: &[f32]) {
    std::fs::write(folder.join("main.c"), MAIN).expect("written");
    let compiled = Command::new("cc")
        .current_dir(folder)
        .args(["-std=c99", "-O1", "-Wall", "-Wextra", "-Werror"])
        .args(["-fsanitize=undefined", "-fsanitize-undefined-trap-on-error"])
        .args(["-o", "network", "main.c", "network.c"])
        .output()
        .expect("a C compiler");
    assert!(compiled.status.success(), "{}", text(&compiled));
    let (_, images) = tensor(&folder.join("io.safetensors"), "images");
    std::fs::write(folder.join("images.bin"), images).expect("written");
    let images = std::fs::File::open(folder.join("images.bin")).expect("there");
    let ran = Command::new(folder.join("network"))
        .stdin(Stdio::from(images))
        .output()
        .expect("runs");
    assert!(ran.status.success(), "{}", text(&ran));
    let header = std::fs::read_to_string(folder.join("network.h")).expect("there");
    let exponent = header.split("_LOGIT_EXPONENT (").nth(1).expect("defined");
    let exponent: i32 = exponent
        .split(')')
        .next()
        .and_then(|e| e.parse().ok())
        .expect("a number");
    let unit = f64::from(exponent).exp2();
    let text = String::from_utf8(ran.stdout).expect("text");
    let rows: Vec<Vec<i64>> = text
        .lines()
        .map(|line| {
            line.split(' ')
                .map(|n| n.parse().expect("a number"))
                .collect()
        })
        .collect();
    assert_eq!(rows.len() * 10, logits.len());
    for (row, logits) in rows.iter().zip(logits.chunks(10)) {
        let (class, numbers) = row.split_last().expect("a class");
        let found: Vec<f32> = numbers.iter().map(|n| (*n as f64 * unit) as f32).collect();
        assert_eq!(found, logits);
        let largest = logits.iter().copied().fold(f32::MIN, f32::max);
        assert_eq!(
            logits.iter().position(|v| *v == largest),
            Some(*class as usize)
        );
    }
}

/// Packed weights take what the screen says, and the codes of a file that others read are the levels.
#[test]
fn a_file_of_integers_is_what_it_says() {
    let folder = tempfile::tempdir().expect("a folder");
    let settings = quantized("u3", "nonlinearities");
    let settings: Vec<&str> = settings.iter().map(String::as_str).collect();
    let run = train(folder.path(), "run", &settings);
    let name = run.to_string_lossy();
    for (format, file) in [
        ("integers", "integers.safetensors"),
        ("safetensors", "weights.safetensors"),
    ] {
        let exported = bitscope(
            folder.path(),
            &["export", &name, "--format", format, "-o", file],
        );
        assert!(exported.status.success(), "{}", text(&exported));
    }
    let at = |name: &str| folder.path().join(name);
    let bytes = std::fs::read(at("integers.safetensors")).expect("there");
    let (_, metadata) = SafeTensors::read_metadata(&bytes).expect("safetensors");
    let metadata = metadata.metadata().clone().expect("metadata");
    let program: Value = serde_json::from_str(&metadata["program"]).expect("JSON");
    let file = SafeTensors::deserialize(&bytes).expect("safetensors");
    // The record of the checkpoint's step says how many kB the weights take there.
    let log = bitscope(
        folder.path(),
        &["log", &name, "--csv", "--series", "weight_kb"],
    );
    let log = String::from_utf8(log.stdout).expect("text");
    let last = log.lines().last().expect("a row");
    let kilobytes: f64 = last
        .rsplit(',')
        .next()
        .and_then(|n| n.parse().ok())
        .expect("a number");
    let mut payload = 0;
    let mut tensors = 0;
    for step in program["steps"].as_array().expect("a list") {
        for stored in [
            &step["operation"]["stored"],
            &step["operation"]["stored_bias"],
        ] {
            let Some(parameter) = stored["name"].as_str() else {
                continue;
            };
            let packed = file.tensor(&format!("{parameter}.codes")).expect("packed");
            payload += packed.data().len();
            tensors += 1;
            // Unpacked here by other means: a level is its code times the step size.
            let bits = stored["bits"].as_u64().expect("bits") as usize;
            let unit = f64::from(stored["exponent"].as_i64().expect("an exponent") as i32).exp2();
            let used = floats(
                &at("weights.safetensors"),
                &format!("{parameter}.quantized"),
            );
            let mut number = packed
                .data()
                .iter()
                .flat_map(|byte| (0..8).map(move |bit| (byte >> bit) & 1));
            for level in &used {
                let code = (0..bits).fold(0i64, |code, bit| {
                    code | i64::from(number.next().expect("a bit")) << bit
                });
                let signed = if code >> (bits - 1) == 1 {
                    code - (1 << bits)
                } else {
                    code
                };
                assert_eq!((signed as f64 * unit) as f32, *level, "{parameter}");
            }
            assert_eq!(
                floats(&at("weights.safetensors"), &format!("{parameter}.bits")).first(),
                Some(&(bits as f32))
            );
        }
    }
    let difference = payload as f64 - kilobytes * 1024.0;
    assert!(
        (0.0..tensors as f64).contains(&difference),
        "{payload} bytes, {kilobytes} kB"
    );
    // A file that is damaged is no network.
    let mut damaged = bytes;
    let middle = damaged.len() / 2;
    damaged[middle] ^= 1;
    std::fs::write(at("damaged.safetensors"), damaged).expect("written");
    verify(folder.path(), &run);
    let predicted = bitscope(
        folder.path(),
        &[
            "predict",
            "damaged.safetensors",
            "--images",
            "io.safetensors",
            "-o",
            "x",
        ],
    );
    assert_eq!(predicted.status.code(), Some(2));
    assert!(text(&predicted).contains("damaged"), "{}", text(&predicted));
}

/// What cannot be written gets a sentence that says what would work, and leaves no file behind.
#[test]
fn what_cannot_leave_says_why_and_what_would_work() {
    let folder = tempfile::tempdir().expect("a folder");
    let powers = quantized("p2", "everywhere");
    let powers: Vec<&str> = powers.iter().map(String::as_str).collect();
    let powers = train(folder.path(), "powers", &powers);
    let float_input = [
        "weights.quantizer=u3",
        "activations.quantizer=u3",
        "budget.weights_kb=15",
    ];
    let float_input = train(folder.path(), "float-input", &float_input);
    let float_phase = ["train.float_epochs=1", "train.epochs=2"];
    let mut phase = float_phase.to_vec();
    phase.push("log.checkpoint_every=1");
    let float = {
        let runs = folder.path().join("float");
        let runs = runs.to_string_lossy();
        let mut arguments = vec!["train", "--plain", "--steps", "4", "--runs", &runs];
        for setting in phase
            .iter()
            .chain(&["device=flex", "data.samples=160", "train.batch=16"])
        {
            arguments.extend(["--set", setting]);
        }
        assert!(bitscope(folder.path(), &arguments).status.success());
        let mut entries = std::fs::read_dir(folder.path().join("float")).expect("runs");
        entries.next().expect("a run").expect("readable").path()
    };
    for (run, arguments, words) in [
        (
            &powers,
            vec!["--format", "qonnx", "-o", "x"],
            "no power-of-two levels; hint: `--format onnx`",
        ),
        (
            &float_input,
            vec!["--format", "c", "-o", "x.c"],
            "hint: train or fork with `input.bits = 8`",
        ),
        (
            &float_input,
            vec!["--format", "integers", "-o", "x"],
            "input (pictures come in float",
        ),
        (
            &float,
            vec!["--format", "integers", "-o", "x"],
            "in its float phase there",
        ),
        (
            &powers,
            vec!["--format", "onnx", "--rounding", "half-even", "-o", "x"],
            "hint: `--format qonnx`",
        ),
        (
            &powers,
            vec!["--format", "c", "--norm", "kept", "-o", "x.c"],
            "it is for `onnx` and `qonnx`",
        ),
        (
            &powers,
            vec!["--format", "c", "-o", "x.h"],
            "that is the header's name",
        ),
        (
            &powers,
            vec![
                "--format",
                "onnx",
                "--checkpoint",
                "9999999",
                "-o",
                "missing/x",
            ],
            "missing/x",
        ),
        (
            &powers,
            vec!["--format", "onnx", "--checkpoint", "0", "-o", "x"],
            "no checkpoint at or before step 0",
        ),
        (
            &powers,
            vec!["--format", "onnx", "--checkpoint", "last", "-o", "x"],
            "expected `best`, `newest` or a step",
        ),
    ] {
        let run = run.to_string_lossy();
        let output = bitscope(folder.path(), &[&["export", &run], &arguments[..]].concat());
        assert!(!output.status.success(), "{arguments:?}");
        assert!(
            text(&output).contains(words),
            "{arguments:?}: {}",
            text(&output)
        );
    }
    for left in ["x", "x.c", "x.h"] {
        assert!(!folder.path().join(left).exists(), "{left}");
    }
    // A target that cannot be written leaves its neighbours alone.
    std::fs::create_dir(folder.path().join("y.c")).expect("made");
    std::fs::write(folder.path().join("y.h"), "old").expect("written");
    let powers = powers.to_string_lossy();
    for (name, words) in [
        ("y.c", "that is a folder; expected a file"),
        ("stdint.c", "C cannot include a header of that name"),
        ("a\"b.c", "C cannot include a header of that name"),
        ("none/y.c", "there is no folder none"),
    ] {
        let output = bitscope(
            folder.path(),
            &["export", &powers, "--format", "c", "-o", name],
        );
        assert_eq!(output.status.code(), Some(2), "{name}");
        assert!(text(&output).contains(words), "{name}: {}", text(&output));
    }
    let header = std::fs::read_to_string(folder.path().join("y.h"));
    assert_eq!(header.expect("there"), "old");
    assert!(!folder.path().join("stdint.h").exists());
    // Whatever its name, a file of integers is known by what it holds; what says something of a run
    // alone is refused, and what cannot be executed is no network.
    let exported = bitscope(
        folder.path(),
        &["export", &powers, "--format", "integers", "-o", "i.bin"],
    );
    assert!(exported.status.success(), "{}", text(&exported));
    let io = ["--images", "io.safetensors", "-o", "logits"];
    bitscope(
        folder.path(),
        &["verify", &powers, "--save", "io.safetensors"],
    );
    let predicted = bitscope(folder.path(), &[&["predict", "i.bin"], &io[..]].concat());
    assert!(predicted.status.success(), "{}", text(&predicted));
    let predicted = bitscope(
        folder.path(),
        &[&["predict", "i.bin", "--float"], &io[..]].concat(),
    );
    assert_eq!(predicted.status.code(), Some(2));
    let bytes = std::fs::read(folder.path().join("i.bin")).expect("there");
    for (from, to) in [
        ("\"inputs\":[1]", "\"inputs\":[9]"),
        ("\"groups\":1", "\"groups\":0"),
        ("\"stride\":[2,2]", "\"stride\":[0,0]"),
        ("\"stride\":[2,2]", "\"stride\":[1,1]"),
    ] {
        std::fs::write(folder.path().join("crafted.bin"), crafted(&bytes, from, to))
            .expect("written");
        let predicted = bitscope(
            folder.path(),
            &[&["predict", "crafted.bin"], &io[..]].concat(),
        );
        assert_eq!(
            predicted.status.code(),
            Some(2),
            "{to}: {}",
            text(&predicted)
        );
    }
}

/// The same file with another program in it, and a checksum that is right.
fn crafted(bytes: &[u8], from: &str, to: &str) -> Vec<u8> {
    let (_, metadata) = SafeTensors::read_metadata(bytes).expect("safetensors");
    let mut metadata = metadata.metadata().clone().expect("metadata");
    let program = metadata["program"].replacen(from, to, 1);
    assert_ne!(program, metadata["program"], "{from}");
    let file = SafeTensors::deserialize(bytes).expect("safetensors");
    let mut tensors = file.tensors();
    tensors.sort_by(|a, b| a.0.cmp(&b.0));
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(program.as_bytes());
    for (name, view) in &tensors {
        hasher.update(name.as_bytes());
        hasher.update(view.data());
    }
    metadata.insert("crc32".into(), format!("{:08x}", hasher.finalize()));
    metadata.insert("program".into(), program);
    safetensors::serialize(tensors, Some(metadata)).expect("serialized")
}

/// Sums beyond 2^24 are rounded before they are quantized, in the network and in the thresholds.
#[test]
fn sums_that_f32_rounds_are_replayed_too() {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(
        folder.path().join("plain.toml"),
        "[[model.layers]]\nkind = \"convolution\"\nchannels = 8\nkernel = 3\npadding = 1\nbias = true\n\
         [[model.layers]]\nkind = \"relu\"\n\
         [[model.layers]]\nkind = \"global-average\"\n[[model.layers]]\nkind = \"affine\"\n",
    )
    .expect("written");
    let settings = [
        "weights.quantizer=u3",
        "activations.quantizer=u3",
        "activations.at=everywhere",
        "weights.bits=16",
        "activations.bits=16",
        "weights.bits_bounds=[16, 16]",
        "activations.bits_bounds=[16, 16]",
        "weights.d_bounds=[1e-7, 1]",
        "activations.d_bounds=[1e-7, 1]",
        "input.bits=16",
        "data.samples=160",
        "train.batch=16",
        "train.float_epochs=0",
        "train.epochs=1",
        "device=flex",
    ];
    let mut arguments = vec!["train", "plain.toml", "--plain", "--runs", "runs"];
    for setting in &settings {
        arguments.extend(["--set", setting]);
    }
    let trained = bitscope(folder.path(), &arguments);
    assert!(trained.status.success(), "{}", text(&trained));
    let mut runs = std::fs::read_dir(folder.path().join("runs")).expect("runs");
    let run = runs.next().expect("a run").expect("readable").path();
    let (code, seen) = verify(folder.path(), &run);
    let rounding = seen["rounding"].as_array().expect("a list");
    assert!(!rounding.is_empty(), "{seen}");
    assert_eq!(
        (code, &seen["differing"]),
        (Some(0), &Value::from(0)),
        "{}",
        seen["first"]
    );
}
