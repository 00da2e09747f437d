//! Networks as graphs: from ONNX files, built in, written in the experiment file.

mod common;

use std::path::{Path, PathBuf};
use std::process::Command;

use bitscope::experiment::{load, load_embedded};
use bitscope::graph::{Architecture, NormChoice, Operation, Quantization, onnx};
use bitscope::network::{Mode, Network};
use bitscope::quantizer::Rules;
use bitscope::quantizer::memory::Role;
use bitscope::training::Outline;
use burn::tensor::{Tensor, TensorData};
use rand::SeedableRng;
use safetensors::SafeTensors;

const FILES: [(&str, &str); 8] = [
    ("lenet", "lenet"),
    ("resnet-small", "resnet-small"),
    ("resnet-small-folded", "resnet-small-folded"),
    ("resnet-small-training", "resnet-small-training"),
    ("densenet-tiny", "densenet-tiny"),
    ("mixed", "mixed"),
    ("mixed-optimised", "mixed"),
    ("mixed-older", "mixed"),
];

fn data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/data/onnx")
        .join(name)
}

fn tensor(file: &Path, name: &str) -> (Vec<usize>, Vec<f32>) {
    let bytes = std::fs::read(file).expect("readable");
    let all = SafeTensors::deserialize(&bytes).expect("safetensors");
    let view = all.tensor(name).expect("there");
    let values = view.data().as_chunks::<4>().0;
    let values = values.iter().map(|b| f32::from_le_bytes(*b)).collect();
    (view.shape().to_vec(), values)
}

fn file(name: &str, norm: NormChoice) -> Architecture {
    Architecture::File {
        path: data(&format!("{name}.onnx")),
        input: None,
        output: None,
        norm,
        replace_head: false,
    }
}

fn engines() -> Vec<&'static str> {
    let mut engines = vec!["flex"];
    if cfg!(feature = "libtorch") {
        engines.push("libtorch:cpu");
    }
    engines
}

/// Largest difference of two vectors, relative to the largest value.
fn difference(ours: &[f32], theirs: &[f32]) -> f32 {
    assert_eq!(ours.len(), theirs.len());
    let largest = theirs.iter().fold(0f32, |m, v| m.max(v.abs()));
    let gaps = ours.iter().zip(theirs).map(|(a, b)| (a - b).abs());
    gaps.fold(0.0, f32::max) / largest
}

fn logits(architecture: &Architecture, io: &str, engine: &str) -> (Vec<f32>, Vec<f32>) {
    let io = data(&format!("{io}.safetensors"));
    let (shape, images) = tensor(&io, "images");
    let built = architecture.as_it_is([shape[1], shape[2], shape[3]]);
    let built = built.unwrap_or_else(|e| panic!("{e}"));
    let engine = bitscope::device::parse(engine).expect("compiled in");
    let device = bitscope::device::burn_device(engine);
    let autodiff = device.clone().autodiff();
    let quantization = Quantization::none(Rules::Paper);
    let mut rng = rand_pcg::Pcg64Mcg::seed_from_u64(0);
    let mut network = Network::new(&built, &quantization, &autodiff, &mut rng);
    let images = Tensor::<4>::from_data(TensorData::new(images, shape), &device);
    let logits = network.forward(images, Mode::Evaluate);
    let ours = logits.into_data().try_to_vec::<f32>().expect("f32");
    (ours, tensor(&io, "logits").1)
}

#[test]
fn files_give_pytorchs_logits() {
    for engine in engines() {
        for (name, io) in FILES {
            let (ours, theirs) = logits(&file(name, NormChoice::Keep), io, engine);
            let gap = difference(&ours, &theirs);
            assert!(gap < 1e-5, "{name} on {engine}: {gap}");
        }
    }
}

#[test]
fn new_batch_norms_begin_as_the_identity() {
    let kept = logits(
        &file("resnet-small-folded", NormChoice::Keep),
        "resnet-small-folded",
        "flex",
    );
    let fresh = file("resnet-small-folded", NormChoice::Fresh);
    let built = fresh.as_it_is([3, 32, 32]).expect("builds");
    assert_eq!(built.fresh_norms.len(), 11);
    let (ours, theirs) = logits(&fresh, "resnet-small-folded", "flex");
    assert!(difference(&ours, &theirs) < 1e-5 && difference(&ours, &kept.0) < 1e-5);
    let said = &file("resnet-small-folded", NormChoice::Keep).as_it_is([3, 32, 32]);
    let notes = &said.as_ref().expect("builds").notes;
    assert!(notes[0].contains("model.norm = \"fresh\""), "{notes:?}");
}

#[test]
fn a_batch_norm_keeps_its_own_numbers() {
    let built = file("mixed", NormChoice::Keep)
        .as_it_is([3, 23, 21])
        .expect("builds");
    let norms: Vec<[f32; 2]> = built
        .graph
        .nodes
        .iter()
        .filter_map(|n| match n.operation {
            Operation::BatchNorm {
                epsilon, momentum, ..
            } => Some([epsilon, momentum]),
            _ => None,
        })
        .collect();
    assert_eq!(norms[0], [1e-3, 0.8]);
    assert_eq!(norms[1], [1e-5, 0.9]);
    assert!(
        built
            .graph
            .parameters
            .iter()
            .any(|p| p.name == "stem_norm.weight")
    );
}

#[test]
fn what_is_no_network_gets_a_sentence() {
    let folder = tempfile::tempdir().expect("a folder");
    let at = |name: &str| folder.path().join(name);
    let lenet = std::fs::read(data("lenet.onnx")).expect("there");
    std::fs::write(at("empty.onnx"), b"").expect("written");
    std::fs::write(at("text.onnx"), b"hello").expect("written");
    let zeros = std::fs::File::create(at("zeros.onnx")).expect("created");
    zeros
        .set_len(1 << 30)
        .expect("a gigabyte with nothing in it");
    for (name, expected) in [
        ("empty.onnx", "the file is empty"),
        ("text.onnx", "cut or damaged"),
        ("zeros.onnx", "begins no protobuf message"),
        ("missing.onnx", "No such file"),
    ] {
        let error = onnx::read(&at(name)).err().expect(name).to_string();
        assert!(error.contains(expected) && error.contains(name), "{error}");
    }
    let architecture = |path: PathBuf| Architecture::File {
        path,
        input: None,
        output: None,
        norm: NormChoice::Keep,
        replace_head: false,
    };
    // Cut anywhere, damaged anywhere: an error or another network, never a panic.
    for cut in (1..lenet.len()).step_by(lenet.len() / 97) {
        std::fs::write(at("cut.onnx"), &lenet[..cut]).expect("written");
        let found = architecture(at("cut.onnx")).as_it_is([1, 28, 28]);
        assert!(found.is_err(), "{cut} of {} bytes", lenet.len());
    }
    for place in (0..lenet.len()).step_by(lenet.len() / 211) {
        let mut damaged = lenet.clone();
        damaged[place] ^= 0x5a;
        std::fs::write(at("damaged.onnx"), &damaged).expect("written");
        let _ = architecture(at("damaged.onnx")).as_it_is([1, 28, 28]);
    }
    let wrong = architecture(data("lenet.onnx")).as_it_is([3, 28, 28]);
    let error = wrong.expect_err("three channels").to_string();
    assert!(
        error.contains("an input of [3, 28, 28]; expected 1 channels"),
        "{error}"
    );
    let classes = architecture(data("lenet.onnx")).graph([1, 28, 28], 7);
    let error = classes.expect_err("ten outputs").to_string();
    assert!(
        error.contains("10 outputs and the data 7 classes"),
        "{error}"
    );
}

#[test]
fn a_head_of_another_size_is_replaced_where_that_is_asked_for() {
    for (name, shape) in [("lenet", [1, 28, 28]), ("mixed", [3, 23, 21])] {
        let Architecture::File { path, .. } = file(name, NormChoice::Keep) else {
            unreachable!("a file")
        };
        let asked = Architecture::File {
            path,
            input: None,
            output: None,
            norm: NormChoice::Keep,
            replace_head: true,
        };
        let built = asked.graph(shape, 3).expect("replaced");
        assert_eq!(built.graph.classes(), 3);
        assert!(
            built
                .notes
                .iter()
                .any(|n| n.contains("the last layer is new"))
        );
        let [head, _] = built.graph.head().expect("a last layer");
        let head = &built.graph.parameters[head.expect("weights")];
        assert_eq!(head.shape[0], 3);
        assert!(!built.values.contains_key(&head.name));
    }
}

/// Table 4 of the paper, MB at 32 bit and at 4: weights, largest activation.
#[test]
fn imagenets_networks_take_the_papers_megabytes() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("experiments/imagenet");
    for (name, float, four) in [
        ("resnet18", [44.56, 3.06], [5.57, 0.38]),
        ("mobilenetv2", [13.24, 4.59], [1.65, 0.57]),
    ] {
        for row in [
            "float",
            "quantized",
            "fixed-w4a4",
            "learned-range-w4a4",
            "budget",
        ] {
            let nowhere = vec!["data.path=/nonexistent".to_owned()];
            let loaded = load(&root.join(format!("{name}-{row}.toml")), &nowhere);
            let outline = Outline::of(&loaded.expect("valid").experiment).expect("builds");
            assert!(outline.missing.is_some(), "the pictures are not there");
            let rounded = |kb: f64| (kb / 1024.0 * 100.0).round() / 100.0;
            let usage = outline.float();
            assert_eq!(
                [usage.weights, usage.activation_max].map(rounded),
                float,
                "{name} {row}"
            );
            if row != "float" {
                let usage = outline.initial();
                assert_eq!(
                    [usage.weights, usage.activation_max].map(rounded),
                    four,
                    "{name} {row}"
                );
            }
        }
    }
}

#[test]
fn everywhere_means_every_value_that_a_layer_reads() {
    let base = "[model]\nname = \"mobilenet_v2\"\n[data]\nsource = \"folder\"\npath = \"none\"\nsize = 64\n\
                [weights]\nquantizer = \"u3\"\n[activations]\nquantizer = \"u3\"\n";
    let placed = |at: &str| {
        let set = vec![format!("activations.at={at}")];
        let loaded = load_embedded("e.toml", base, &set).expect("valid");
        Outline::of(&loaded.experiment).expect("builds").placement
    };
    let paper = placed("nonlinearities");
    let activations = paper
        .quantizers
        .iter()
        .filter(|q| q.role == Role::Activation);
    assert!(activations.clone().all(|q| !q.plan.quantizer.signed));
    assert_eq!(activations.count(), 35);
    let all = placed("everywhere");
    let of = |name: &str| {
        let found = all
            .quantizers
            .iter()
            .find(|q| q.name == name && q.role == Role::Activation);
        found.map(|q| q.plan.quantizer.signed)
    };
    assert_eq!(of("input"), Some(true));
    // A linear bottleneck, its sum with the block's input, a ReLU6, the mean, and the logits.
    assert_eq!(of("features.3.conv.3"), Some(true));
    assert_eq!(of("features.3.add"), Some(true));
    assert_eq!(of("features.3.conv.0.2"), Some(false));
    assert_eq!(of("pool"), Some(false));
    assert_eq!(of("classifier.1"), None);
    let input = all
        .quantizers
        .iter()
        .find(|q| q.name == "input")
        .expect("placed");
    assert_eq!(input.plan.quantizer.grid(input.plan.parameters()).bits, 8.0);
}

#[test]
fn exceptions_go_by_name_pattern_kind_and_place() {
    let text = "[[layers]]\nmatch = [\"first\", \"last\"]\nside = \"weights\"\nbits = 8\n\
                [[layers]]\nmatch = \"s1.*\"\nside = \"weights\"\nquantizer = \"none\"\n\
                [[layers]]\nmatch = \"nonlinearity\"\nquantizer = \"p3\"\nbits_bounds = [2, 4]\n\
                [model]\nname = \"resnet20\"\n\
                [weights]\nquantizer = \"u3\"\n[activations]\nquantizer = \"u3\"\n";
    let loaded = load_embedded("e.toml", text, &Vec::new()).unwrap_or_else(|e| panic!("{e}"));
    let placement = Outline::of(&loaded.experiment).expect("builds").placement;
    let bits = |name: &str| {
        let of = |q: &&bitscope::graph::Placed| q.name == name && q.role == Role::Weight;
        placement.quantizers.iter().find(of).map(|q| q.plan.bits)
    };
    assert_eq!([bits("stem"), bits("classifier")], [Some(8.0); 2]);
    assert_eq!(
        [bits("s1.b1.conv1"), bits("s2.b1.conv1")],
        [None, Some(4.0)]
    );
    let activations = placement
        .quantizers
        .iter()
        .filter(|q| q.role == Role::Activation);
    assert!(
        activations
            .clone()
            .all(|q| q.plan.quantizer.parametrization.name() == "p3")
    );
    assert!(
        activations
            .clone()
            .all(|q| q.plan.quantizer.bounds.b == (2.0..=4.0))
    );
    // What a run records of them reads back the same.
    let again = load_embedded("e.toml", &loaded.experiment.values.to_toml(), &Vec::new());
    assert_eq!(again.expect("valid").experiment, loaded.experiment);
    // What matches nothing is said.
    let typed = text.replace("\"s1.*\"", "[\"s1.*\", \"stern\"]");
    let typed = load_embedded("e.toml", &typed, &Vec::new()).expect("valid");
    let notes = Outline::of(&typed.experiment).expect("builds").notes;
    assert_eq!(notes, ["`[[layers]]`: `stern` matches no layer"]);
    let float = "[[layers]]\nmatch = \"last\"\nside = \"weights\"\nquantizer = \"u2\"\n";
    let float = load_embedded("e.toml", float, &Vec::new()).expect("valid");
    let notes = Outline::of(&float.experiment).expect("builds").notes;
    assert_eq!(
        notes,
        ["`[[layers]]`: `last`: weights are not quantized (`weights.quantizer`)"]
    );
    // Bounds that leave no bitwidth are an error, for a side and for a layer.
    let bounds = "bits_bounds = [2, 4]\nd_bounds = [0.0001, 0.001]\nq_max_bounds = [4, 8]\n";
    for text in [
        format!("[weights]\nquantizer = \"u3\"\n{bounds}"),
        format!(
            "[weights]\nquantizer = \"u3\"\n[[layers]]\nmatch = \"last\"\nside = \"weights\"\n{bounds}"
        ),
    ] {
        let errors = load_embedded("e.toml", &text, &Vec::new()).expect_err("no bitwidth");
        assert!(errors.to_string().contains("leave 14 to 18"), "{errors}");
    }
    // And what is wrong with one stands at its place.
    let wrong = "[[layers]]\nmatch = \"first\"\nbitz = 3\n[[layers]]\nbits = 3\n[[layers]]\nmatch = \"x\"\nbits = \"a\"\n";
    let errors = load_embedded("e.toml", wrong, &Vec::new()).expect_err("wrong");
    let places: Vec<&str> = errors.0.iter().map(|e| e.place.line()).collect();
    assert_eq!(places.len(), 3, "{errors}");
    assert!(
        places[0].contains("bitz") && places[2].contains("\"a\""),
        "{places:?}"
    );
}

fn bitscope(folder: &Path) -> Command {
    common::command(folder, &[])
}

/// The networks that are written in the file, a file's network, and one whose file is gone.
#[test]
fn networks_of_any_origin_train_and_resume_bit_for_bit() {
    let folder = tempfile::tempdir().expect("a folder");
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("experiments/networks");
    let copy = folder.path().join("net.onnx");
    std::fs::copy(data("resnet-small.onnx"), &copy).expect("copied");
    std::fs::write(
        folder.path().join("file.toml"),
        "[model]\nfile = \"net.onnx\"\n[init]\nhead = \"replace\"\n[train]\nbatch = 25\n[optimizer]\nlr = 0.02\n\
         [weights]\nquantizer = \"u3\"\n[activations]\nquantizer = \"u3\"\nat = \"everywhere\"\n",
    )
    .expect("written");
    let written = ["lenet", "residual", "branches"].map(|n| root.join(format!("{n}.toml")));
    for file in written.iter().chain([&folder.path().join("file.toml")]) {
        let settings = [
            "data.samples=200",
            "train.batch=25",
            "train.float_epochs=0",
            "train.epochs=2",
            "log.evaluate_every=10",
        ];
        let train = |runs: &str, extra: &[&str]| {
            let mut command = bitscope(folder.path());
            command
                .arg("train")
                .arg(file)
                .args(["--runs", runs, "--plain"]);
            for setting in settings.iter().chain(extra) {
                command.args(["--set", setting]);
            }
            command
        };
        let whole = train("whole", &[]).output().expect("runs");
        assert!(
            whole.status.success(),
            "{}",
            String::from_utf8_lossy(&whole.stderr)
        );
        let half = train("half", &[])
            .args(["--steps", "7"])
            .output()
            .expect("runs");
        assert!(
            half.status.success(),
            "{}",
            String::from_utf8_lossy(&half.stderr)
        );
        let is_file = file.ends_with("file.toml");
        if is_file {
            // The run has a copy of its own.
            std::fs::remove_file(&copy).expect("removed");
        }
        let newest = |runs: &str| {
            let entries = std::fs::read_dir(folder.path().join(runs)).expect("runs");
            let all = entries.map(|e| e.expect("an entry").path());
            all.max_by_key(|p| p.metadata().and_then(|m| m.modified()).expect("a time"))
                .expect("a run")
        };
        let resumed = bitscope(folder.path())
            .arg("resume")
            .arg(newest("half"))
            .arg("--plain")
            .output()
            .expect("runs");
        assert!(
            resumed.status.success(),
            "{}",
            String::from_utf8_lossy(&resumed.stderr)
        );
        let losses = |runs: &str| {
            let out = bitscope(folder.path())
                .arg("log")
                .arg(newest(runs))
                .args(["--csv", "--series", "loss,weight_kb"])
                .output();
            String::from_utf8(out.expect("runs").stdout).expect("text")
        };
        let (whole, halves) = (losses("whole"), losses("half"));
        let tail = |text: &str| {
            text.lines()
                .rev()
                .take(6)
                .map(str::to_owned)
                .collect::<Vec<_>>()
        };
        assert!(whole.lines().count() > 14, "{whole}");
        assert_eq!(tail(&whole), tail(&halves), "{}", file.display());
        for runs in ["whole", "half"] {
            std::fs::remove_dir_all(folder.path().join(runs)).expect("removed");
        }
    }
}

#[test]
fn check_tells_all_of_a_network_as_json() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let out = bitscope(root)
        .args([
            "check",
            "experiments/imagenet/resnet18-budget.toml",
            "--json",
        ])
        .output()
        .expect("runs");
    assert!(out.status.success());
    let value: serde_json::Value = serde_json::from_slice(&out.stdout).expect("JSON");
    let layers = value["layers"].as_array().expect("a list");
    assert_eq!(layers.len(), 39);
    assert_eq!(layers[0]["name"], "conv1");
    assert_eq!(layers[0]["kind"], "convolution");
    assert_eq!(layers[0]["kb"], 64.0 * 3.0 * 49.0 * 4.0 / 8.0 / 1024.0);
    let totals = &value["totals"];
    let number = |v: &serde_json::Value| v.as_f64().expect("a number");
    assert!(number(&totals["peak_alive"]["kb"]) > number(&totals["activations_max"]["kb"]));
    assert!(
        value["warnings"][0]
            .as_str()
            .expect("a text")
            .contains("1000 classes")
    );
    let strict = bitscope(root)
        .args([
            "check",
            "experiments/imagenet/resnet18-budget.toml",
            "--data",
            "--set",
            "data.path=/nonexistent",
        ])
        .output()
        .expect("runs");
    assert_eq!(strict.status.code(), Some(2));
}

#[test]
fn check_looks_for_the_weights_that_training_starts_from() {
    let folder = tempfile::tempdir().expect("a folder");
    for (key, gone) in [
        ("init.weights", "gone.safetensors: No such file"),
        ("init.run", "gone.safetensors is not a run folder"),
    ] {
        let check = |strict: &[&str]| {
            let out = bitscope(folder.path())
                .args(["check", "--set", &format!("{key}=gone.safetensors")])
                .args(strict)
                .output()
                .expect("runs");
            let said = [out.stdout, out.stderr].concat();
            (
                out.status.code(),
                String::from_utf8_lossy(&said).into_owned(),
            )
        };
        let (code, said) = check(&[]);
        assert_eq!(code, Some(0), "{said}");
        assert!(said.contains(&format!("warning: `{key}`: ")), "{said}");
        assert!(said.contains(gone), "{said}");
        let (code, said) = check(&["--data"]);
        assert_eq!(code, Some(2), "{said}");
        assert!(said.contains(gone), "{said}");
    }
}

#[test]
fn predictions_equal_the_networks() {
    let folder = tempfile::tempdir().expect("a folder");
    let out = folder.path().join("out.safetensors");
    let status = bitscope(folder.path())
        .arg("predict")
        .arg(data("lenet.onnx"))
        .arg("--images")
        .arg(data("lenet.safetensors"))
        .arg("-o")
        .arg(&out)
        .status();
    assert!(status.expect("runs").success());
    let (shape, ours) = tensor(&out, "logits");
    let (expected, theirs) = tensor(&data("lenet.safetensors"), "logits");
    assert_eq!(shape, expected);
    assert!(difference(&ours, &theirs) < 1e-5);
    let wrong = bitscope(folder.path())
        .arg("predict")
        .arg(data("lenet.onnx"))
        .arg("--images")
        .arg(data("mixed.safetensors"))
        .arg("-o")
        .arg(&out)
        .output()
        .expect("runs");
    assert_eq!(wrong.status.code(), Some(2));
    // What may be said of a network's file, and what may not: nothing is passed over.
    for (setting, expected) in [
        ("weights.bits=4", "only `model.input` and `model.output`"),
        ("model.output=nowhere", "nowhere"),
    ] {
        let refused = bitscope(folder.path())
            .arg("predict")
            .arg(data("lenet.onnx"))
            .arg("--images")
            .arg(data("lenet.safetensors"))
            .args(["-o", "x.safetensors", "--set", setting])
            .output()
            .expect("runs");
        let error = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert!(error.contains(expected), "{error}");
        assert_eq!(refused.status.code(), Some(2), "{error}");
    }
}
