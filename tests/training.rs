//! Training: exact memory, resuming bit for bit, non-finite values, events on disk.

mod common;

use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex, OnceLock};

use bitscope::experiment::{Experiment, load_embedded};
use bitscope::graph::{Architecture, Model, Shortcut};
use bitscope::network::Network;
use bitscope::run::{Command, Event, RunFolder, Split, Status, read_log};
use bitscope::training::{Origin, Session, Setup, Trainer};
use common::SMALL;
use rand::SeedableRng;

fn experiment(set: &[&str]) -> Arc<Experiment> {
    let set = set.iter().map(|s| (*s).to_owned()).collect();
    load_embedded("small.toml", SMALL, &set)
        .expect("valid")
        .experiment
}

fn trainer(set: &[&str]) -> Trainer {
    let experiment = experiment(set);
    let splits = bitscope::dataset::open(&experiment).expect("data");
    let engine = bitscope::device::parse("flex").expect("compiled in");
    Trainer::new(experiment, splits, bitscope::device::burn_device(engine)).expect("built")
}

fn of_model(
    model: Model,
    experiment: &Experiment,
    device: &burn::tensor::Device,
    rng: &mut rand_pcg::Pcg64Mcg,
) -> Network {
    let built = Architecture::BuiltIn(model).graph([3, 32, 32], 10);
    Network::new(
        &built.expect("builds"),
        &experiment.quantization(),
        device,
        rng,
    )
}

#[test]
fn resnet20_takes_the_papers_kilobytes() {
    let usage = |bits: f64| {
        let set = [
            "weights.init=fixed".to_owned(),
            "activations.init=fixed".to_owned(),
            format!("weights.bits={bits}"),
            format!("activations.bits={bits}"),
        ];
        let e = experiment(&set.iter().map(String::as_str).collect::<Vec<_>>());
        let engine = bitscope::device::parse("flex").expect("compiled in");
        let device = bitscope::device::burn_device(engine).autodiff();
        let mut rng = rand_pcg::Pcg64Mcg::seed_from_u64(1);
        let model = Model::ResNet {
            depth: 20,
            shortcut: Shortcut::A,
        };
        let mut network = of_model(model, &e, &device, &mut rng);
        assert_eq!(network.stored_weights(), 268_346);
        let quantized = network.usage();
        network.quantized = false;
        (quantized, network.usage())
    };
    let (four, float) = usage(4.0);
    let (two, _) = usage(2.0);
    let round = |v: f64| (v * 100.0).round() / 100.0;
    assert_eq!(
        [float.weights, four.weights, two.weights].map(round),
        [1048.23, 131.03, 65.51]
    );
    assert_eq!([float.activation_sum, four.activation_sum], [736.0, 92.0]);
    assert_eq!([float.activation_max, four.activation_max], [64.0, 8.0]);
}

#[test]
fn other_depths_and_shortcuts_have_the_sizes_of_the_literature() {
    let weights = |depth, shortcut| {
        let e = experiment(&[]);
        let engine = bitscope::device::parse("flex").expect("compiled in");
        let device = bitscope::device::burn_device(engine).autodiff();
        let mut rng = rand_pcg::Pcg64Mcg::seed_from_u64(1);
        let model = Model::ResNet { depth, shortcut };
        of_model(model, &e, &device, &mut rng).stored_weights()
    };
    // He et al., table 6: 0.27, 0.46, 0.66, 0.85, 1.7 million parameters.
    for (depth, millions) in [(20, 0.27), (32, 0.46), (44, 0.66), (56, 0.85), (110, 1.7)] {
        let found = weights(depth, Shortcut::A) as f64 / 1e6;
        assert!((found - millions).abs() < 0.03, "ResNet-{depth}: {found}");
    }
    assert_eq!(
        weights(20, Shortcut::B) - weights(20, Shortcut::A),
        16 * 32 + 32 * 64
    );
    assert!(weights(20, Shortcut::C) > weights(20, Shortcut::B));
}

#[test]
fn a_resumed_run_goes_on_bit_for_bit() {
    let set = [
        "data.augment=crop-flip",
        "optimizer.kind=adam",
        "optimizer.lr=0.001",
    ];
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("c.safetensors");
    let losses =
        |t: &mut Trainer, n: usize| -> Vec<f64> { (0..n).map(|_| t.step(false).loss).collect() };
    let mut whole = trainer(&set);
    losses(&mut whole, 7);
    whole.save(&path).expect("saved");
    let expected = losses(&mut whole, 7);
    let mut resumed = trainer(&set);
    resumed.restore(&path).expect("restored");
    assert_eq!(losses(&mut resumed, 7), expected);
    let parameters = |t: &Trainer| {
        t.network()
            .slots
            .iter()
            .map(|s| s.parameters)
            .collect::<Vec<_>>()
    };
    assert_eq!(parameters(&resumed), parameters(&whole));
}

/// As on a card. An epoch ends within these steps, and behind it batches are larger.
#[test]
fn a_batch_that_was_taken_ahead_is_the_one_that_would_have_come() {
    let set = ["data.augment=crop-flip", "data.samples=400"];
    let changed = [&set[..], &["train.batch=24"]].concat();
    let larger = experiment(&changed);
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("c.safetensors");
    let train = |ahead: bool, save: bool| -> Vec<u64> {
        let mut trainer = trainer(&set);
        if ahead {
            trainer.take_ahead();
        }
        let step = |trainer: &mut Trainer, n: usize| {
            if n == 5 {
                trainer.apply(larger.clone());
            }
            trainer.step(false).loss.to_bits()
        };
        let mut losses: Vec<u64> = (0..30).map(|n| step(&mut trainer, n)).collect();
        if save {
            trainer.save(&path).expect("saved");
        }
        losses.extend((30..40).map(|n| step(&mut trainer, n)));
        losses
    };
    let expected = train(false, false);
    assert_eq!(train(true, true), expected);
    let mut resumed = trainer(&changed);
    resumed.restore(&path).expect("restored");
    let rest: Vec<u64> = (0..10)
        .map(|_| resumed.step(false).loss.to_bits())
        .collect();
    assert_eq!(rest, expected[30..]);
}

#[test]
fn a_checkpoint_of_another_network_is_refused_with_names() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("c.safetensors");
    trainer(&["weights.quantizer=none", "activations.quantizer=none"])
        .save(&path)
        .expect("saved");
    let error = trainer(&[])
        .restore(&path)
        .expect_err("refused")
        .to_string();
    assert!(
        error.contains("0 quantizers where the network has 9"),
        "{error}"
    );
}

/// Runs a session to its end; returns every event. `during` is asked on the training thread: what it
/// wants is there when that thread looks for commands next.
fn session(
    set: &[&str],
    max_steps: impl Into<Option<u64>>,
    during: impl Fn(&Event) -> Option<Command> + Send + 'static,
) -> (RunFolder, Vec<Event>, tempfile::TempDir) {
    let root = tempfile::tempdir().expect("a folder");
    let folder = RunFolder::create(root.path(), "test").expect("created");
    let setup = Setup {
        experiment: experiment(set),
        folder: folder.clone(),
        origin: Origin::New,
        source: None,
        set: Vec::new(),
        max_steps: max_steps.into(),
        paused: false,
    };
    let commands = Arc::new(OnceLock::<Sender<Command>>::new());
    let (sender, receiver) = std::sync::mpsc::channel();
    let session = Session::start(setup, {
        let commands = commands.clone();
        move |event| {
            if let Some(command) = during(&event) {
                drop(commands.wait().send(command));
            }
            drop(sender.send(event));
        }
    });
    drop(commands.set(session.commands()));
    let events = receiver.iter().map(|e| e.as_ref().clone()).collect();
    (folder, events, root)
}

#[test]
fn the_log_holds_what_was_said() {
    let (folder, events, _root) = session(&[], 45, |_| None);
    let (logged, _) = read_log(&folder.log()).expect("readable");
    // NaN is not equal to itself; the text form is.
    assert_eq!(format!("{logged:?}"), format!("{events:?}"));
    assert_eq!(
        events
            .iter()
            .filter(|e| matches!(e, Event::Step(_)))
            .count(),
        45
    );
    assert_eq!(
        folder.manifest().expect("a manifest").status,
        Status::Stopped
    );
    assert!(folder.newest_checkpoint().is_some());
    let first = events.iter().find(|e| matches!(e, Event::Step(_)));
    let json = first.expect("a step").to_json(match &events[0] {
        Event::Started { layers, .. } => layers,
        other => panic!("{other:?} came first"),
    });
    for key in [
        "step",
        "epoch",
        "loss",
        "cross_entropy",
        "weight_penalty",
        "activation_penalty",
        "lr",
        "weight_kb",
        "activation_kb",
        "samples_per_s",
    ] {
        assert!(json[key].is_number(), "{key}: {json}");
    }
    for key in [
        "name",
        "role",
        "d",
        "q_max",
        "bitwidth",
        "grad_d",
        "grad_q_max",
        "clipped",
        "grad_norm",
    ] {
        assert!(!json["layers"][0][key].is_null(), "{key}: {json}");
    }
}

#[test]
fn a_diverging_run_pauses_and_names_the_layer() {
    let stop = |event: &Event| matches!(event, Event::NonFinite { .. }).then_some(Command::Stop);
    let set = [
        "optimizer.lr=1e3",
        "weights.quantizer=none",
        "activations.quantizer=none",
        "optimizer.weight_decay=1",
    ];
    let (folder, events, _root) = session(&set, 400, stop);
    let found = events.iter().find_map(|e| match e {
        Event::NonFinite { layer, .. } => Some(layer.clone()),
        _ => None,
    });
    let layer = found.expect("it diverges").expect("a layer is named");
    let known = ["conv", "relu", "pool", "classifier"];
    assert!(known.iter().any(|name| layer.starts_with(name)), "{layer}");
    assert!(matches!(events.last(), Some(Event::Stopped { .. })));
    assert_eq!(
        folder.manifest().expect("a manifest").status,
        Status::Stopped
    );
}

#[test]
fn commands_are_acknowledged_with_their_step() {
    let (_, events, _root) = session(&[], 10, |event| match event {
        Event::Step(r) if r.step == 3 => Some(Command::Pause),
        Event::Paused { .. } => Some(Command::Step(2)),
        _ => None,
    });
    let pauses: Vec<u64> = events
        .iter()
        .filter_map(|e| match e {
            Event::Paused { step } => Some(*step),
            _ => None,
        })
        .collect();
    assert!(
        pauses.len() >= 3 && pauses.windows(2).all(|w| w[1] == w[0] + 2),
        "{pauses:?}"
    );
    let (_, events, _root) = session(&[], 10, |event| match event {
        Event::Step(r) if r.step == 2 => Some(Command::Apply(experiment(&["optimizer.lr=0.002"]))),
        _ => None,
    });
    let applied = events.iter().find_map(|e| match e {
        Event::Applied { changes, .. } => Some(changes.clone()),
        _ => None,
    });
    assert_eq!(
        applied.expect("acknowledged"),
        ["optimizer.lr 0.01 → 0.002"]
    );
    assert!(
        events
            .iter()
            .any(|e| matches!(e, Event::Step(r) if r.lr == 0.002))
    );
}

/// A run of one epoch that is told something when its last validation is over.
fn told_at_the_end(command: Command) -> (RunFolder, Vec<Event>, tempfile::TempDir) {
    let set = ["train.epochs=1", "log.evaluate_every=100"];
    let command = Mutex::new(Some(command));
    session(&set, None, move |event| {
        let validated = matches!(
            event,
            Event::Evaluation {
                split: Split::Validation,
                ..
            }
        );
        validated
            .then(|| command.lock().expect("not poisoned").take())
            .flatten()
    })
}

#[test]
fn commands_during_the_last_test_are_heard() {
    let more = experiment(&["train.epochs=2", "log.evaluate_every=100"]);
    let (_, events, _root) = told_at_the_end(Command::Apply(more));
    let place = |wanted: fn(&Event) -> bool| events.iter().position(wanted);
    let tested = place(|e| {
        matches!(
            e,
            Event::Evaluation {
                split: Split::Test,
                ..
            }
        )
    });
    let applied = place(|e| matches!(e, Event::Applied { .. }));
    assert!(
        tested < applied && applied.is_some(),
        "{tested:?} {applied:?}"
    );
    let steps = |e: &Event| matches!(e, Event::Step(_));
    let all = events.iter().filter(|e| steps(e)).count();
    let first = events[..applied.unwrap_or(0)]
        .iter()
        .filter(|e| steps(e))
        .count();
    assert_eq!(all, 2 * first, "training went on for the second epoch");
    assert!(matches!(events.last(), Some(Event::Finished { .. })));

    let (folder, events, _root) = told_at_the_end(Command::Stop);
    assert!(matches!(events.last(), Some(Event::Stopped { .. })));
    assert_eq!(
        folder.manifest().expect("a manifest").status,
        Status::Stopped
    );
}

#[test]
fn a_panic_in_training_becomes_an_event_and_the_checkpoint_stands() {
    let (folder, events, _root) = session(&[], 100, |event| match event {
        Event::Step(r) if r.step == 60 => panic!("on purpose"),
        _ => None,
    });
    let Some(Event::Failed { message, .. }) = events.last() else {
        panic!("{:?}", events.last())
    };
    assert_eq!(message, "panic: on purpose");
    let manifest = folder.manifest().expect("a manifest");
    assert_eq!(manifest.status, Status::Failed);
    assert!(folder.newest_checkpoint().is_some());
}

#[test]
fn a_missing_file_fails_the_run_with_its_name() {
    let set = ["data.source=cifar10", "data.path=/nowhere/cifar"];
    let (_, events, _root) = session(&set, 10, |_| None);
    let Some(Event::Failed { message, .. }) = events.last() else {
        panic!("{events:?}")
    };
    assert!(
        message.contains("/nowhere/cifar/data_batch_1.bin"),
        "{message}"
    );
}

#[test]
fn the_toys_u1_oscillates_and_u3_does_not() {
    use bitscope::quantizer::Parametrization;
    let descents = bitscope::toy::descend_all(3000);
    let spread = |p: Parametrization| {
        descents
            .iter()
            .filter(|d| d.parametrization == p)
            .map(|d| d.spread())
            .fold(0.0, f64::max)
    };
    let (u1, u3) = (spread(Parametrization::U1), spread(Parametrization::U3));
    assert!(
        u1 > 5.0 * u3,
        "spread of the last 300 errors: U1 {u1:e}, U3 {u3:e}"
    );
}

/// The loss that is shown is the cross entropy of the labels; the gradient is that of the smoothed one.
#[test]
fn smoothed_labels_change_what_is_learned_and_not_what_is_shown() {
    let first = |smoothing: &str| -> Vec<f64> {
        let e = experiment(&[
            smoothing,
            "weights.quantizer=none",
            "activations.quantizer=none",
        ]);
        let splits = bitscope::dataset::open(&e).expect("data");
        let engine = bitscope::device::parse("flex").expect("compiled in");
        let device = bitscope::device::burn_device(engine);
        let mut trainer = Trainer::new(e, splits, device).expect("built");
        (0..3).map(|_| trainer.step(false).cross_entropy).collect()
    };
    let (plain, smoothed) = (
        first("train.label_smoothing=0"),
        first("train.label_smoothing=0.2"),
    );
    assert_eq!(plain[0], smoothed[0]);
    assert_ne!(plain[2], smoothed[2]);
}

/// The elements of a bias that its weights' quantizer holds are counted, and divided by.
#[test]
fn no_more_than_all_elements_are_clipped() {
    let set = [
        "weights.q_max_bounds=[0.00390625, 0.004]",
        "weights.d_bounds=[0.00390625, 0.00390625]",
        "activations.quantizer=none",
        "optimizer.lr=0.5",
    ];
    let (_, events, _root) = session(&set, 40, |_| None);
    let records = events.iter().filter_map(|e| match e {
        Event::Step(r) => r.layers.as_ref(),
        _ => None,
    });
    let shares: Vec<f32> = records.flatten().map(|l| l.clipped).collect();
    assert!(shares.iter().all(|s| *s <= 1.0), "{shares:?}");
    assert!(shares.iter().any(|s| *s > 0.99), "{shares:?}");
}
