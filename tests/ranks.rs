//! One network on several ranks: here threads of this process, as `mpirun` would start processes.

use std::sync::Arc;

use bitscope::experiment::{Experiment, load_embedded};
use bitscope::kernels::ranks::{Group, threads};
use bitscope::training::{Checkpoint, Trainer, follow};

fn experiment(set: &[&str]) -> Arc<Experiment> {
    let small = [
        "device=flex",
        "data.samples=400",
        "data.augment=crop-flip",
        "train.batch=30",
        "train.float_epochs=0",
        "train.epochs=100",
        "optimizer.lr=0.02",
        "budget.ramp_epochs=0",
    ];
    let set: Vec<String> = small.iter().chain(set).map(|s| (*s).to_owned()).collect();
    let demo = include_str!("../experiments/demo.toml");
    load_embedded("demo.toml", demo, &set)
        .expect("valid")
        .experiment
}

fn trainer(experiment: &Arc<Experiment>) -> Trainer {
    let splits = bitscope::dataset::open(experiment).expect("glyphs");
    let device = bitscope::device::burn_device(bitscope::device::Engine::Flex);
    Trainer::new(experiment.clone(), splits, device).expect("a trainer")
}

/// What a run came to.
#[derive(Debug, Clone, PartialEq)]
struct Outcome {
    /// Cross entropy and error of every step.
    steps: Vec<[f64; 2]>,
    bits: Vec<f64>,
    validation: [f64; 2],
    fingerprint: u32,
    /// Ranks whose parameters are not those of rank 0.
    others: Vec<usize>,
    clipped: Vec<f32>,
}

/// Rank 0 trains for some steps with so many ranks, from a checkpoint where there is one, and saves
/// where it is told.
fn train(
    experiment: &Arc<Experiment>,
    size: usize,
    steps: usize,
    [from, to]: [Option<&std::path::Path>; 2],
) -> Outcome {
    let mut groups = threads(size).into_iter();
    let leader = groups.next().expect("one at least");
    std::thread::scope(|scope| {
        for group in groups {
            scope.spawn(move || follow(&group).expect("a rank that follows"));
        }
        let mut trainer = trainer(experiment);
        if let Some(path) = from {
            trainer.restore(path).expect("a checkpoint");
        }
        trainer.lead(leader.clone()).expect("a batch for all");
        let mut outcome = lead(&mut trainer, steps);
        if let Some(path) = to {
            trainer.save(path).expect("written");
        }
        outcome.others = trainer.compare().others;
        leader.dismiss();
        outcome
    })
}

fn lead(trainer: &mut Trainer, steps: usize) -> Outcome {
    let mut records: Vec<_> = (0..steps).map(|_| trainer.step(true)).collect();
    let last = records.pop().expect("a step");
    let layers = last.layers.clone().expect("probed");
    records.push(last);
    let validation = trainer.validate(|| true).expect("validation");
    let compared = trainer.compare();
    Outcome {
        steps: records
            .iter()
            .map(|r| [r.cross_entropy, r.train_error])
            .collect(),
        bits: trainer
            .network()
            .slots
            .iter()
            .map(|s| s.grid().bits)
            .collect(),
        validation: [validation.error, validation.loss],
        fingerprint: compared.fingerprint,
        others: compared.others,
        clipped: layers.iter().map(|l| l.clipped).collect(),
    }
}

/// The largest relative difference of the cross entropy over steps.
fn apart(a: &Outcome, b: &Outcome) -> f64 {
    let pairs = a.steps.iter().zip(&b.steps);
    pairs
        .map(|(a, b)| (a[0] - b[0]).abs() / b[0])
        .fold(0.0, f64::max)
}

#[test]
fn ranks_train_as_one_process_does() {
    let float = experiment(&["train.float_epochs=50"]);
    let alone = train(&float, 1, 12, [None; 2]);
    for size in [2, 3, 4] {
        let together = train(&float, size, 12, [None; 2]);
        assert!(together.others.is_empty());
        // Sums in another order; a step amplifies the last bits of the one before it.
        assert!(
            apart(&together, &alone) < 1e-3,
            "{size}: {}",
            apart(&together, &alone)
        );
        assert!((together.steps[0][0] - alone.steps[0][0]).abs() < 1e-6);
        assert_eq!(together.steps[0][1], alone.steps[0][1]);
    }
}

#[test]
fn quantizers_and_budgets_are_those_of_the_first_rank() {
    let quantized = experiment(&["budget.weights_kb=14"]);
    let alone = train(&quantized, 1, 8, [None; 2]);
    let together = train(&quantized, 3, 8, [None; 2]);
    assert!(together.others.is_empty());
    // Before anything is learned: the same up to rounding, which moves an activation or two.
    assert!((together.steps[0][0] / alone.steps[0][0] - 1.0).abs() < 1e-3);
    assert!(
        apart(&together, &alone) < 0.1,
        "{}",
        apart(&together, &alone)
    );
    let near = |(a, b): (&f64, &f64)| (a - b).abs() <= 1.0;
    assert!(together.bits.iter().zip(&alone.bits).all(near));
    // Shares of all elements, whoever counted them.
    let shares = together.clipped.iter().zip(&alone.clipped);
    for (a, b) in shares {
        assert!((0.0..=1.0).contains(a) && (a - b).abs() < 0.1, "{a} {b}");
    }
}

#[test]
fn the_same_number_of_ranks_gives_the_same_bits() {
    for sync in ["train.sync_norm=true", "train.sync_norm=false"] {
        let experiment = experiment(&[sync]);
        let first = train(&experiment, 3, 6, [None; 2]);
        assert_eq!(train(&experiment, 3, 6, [None; 2]), first);
        assert!(first.others.is_empty(), "{sync}");
    }
}

#[test]
fn a_run_goes_on_with_another_number_of_ranks() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("a.safetensors");
    let experiment = experiment(&[]);
    train(&experiment, 3, 5, [None, Some(&path)]);
    let with = |size| train(&experiment, size, 4, [Some(&path), None]);
    let (three, two, one) = (with(3), with(2), with(1));
    assert!(three.others.is_empty() && two.others.is_empty());
    assert!((two.steps[0][0] / three.steps[0][0] - 1.0).abs() < 1e-3);
    assert!((one.steps[0][0] / three.steps[0][0] - 1.0).abs() < 1e-3);
    // As if nothing had come between.
    let whole = train(&experiment, 3, 9, [None; 2]);
    assert_eq!(whole.steps[5..], three.steps);
    assert_eq!(whole.fingerprint, three.fingerprint);
}

#[test]
fn a_lost_rank_leaves_the_state_of_the_last_step() {
    let folder = tempfile::tempdir().expect("a folder");
    let [saved, whole] = ["saved", "whole"].map(|name| folder.path().join(name));
    let experiment = experiment(&[]);
    let mut groups = threads(2).into_iter();
    let (leader, other) = (groups.next().expect("two"), groups.next().expect("two"));
    std::thread::scope(|scope| {
        let follower = scope.spawn(move || {
            // It takes part until it is gone: a rank that dies says nothing.
            let gone = other.guarded(|| follow(&Group::clone(&other)));
            drop(gone);
        });
        let mut trainer = trainer(&experiment);
        trainer.lead(leader.clone()).expect("a batch for all");
        for _ in 0..3 {
            trainer.step(false);
        }
        trainer.save(&whole).expect("written");
        // An empty message dismisses it.
        leader.broadcast(Vec::new());
        follower.join().expect("ended");
        assert!(leader.guarded(|| trainer.step(false)).is_err());
        assert!(leader.is_over());
        trainer.undo_step();
        trainer.save(&saved).expect("written");
        assert_eq!(trainer.steps(), 3);
    });
    // (Their bytes may differ: metadata has no order.)
    let [saved, whole] = [saved, whole].map(|path| Checkpoint::open(&path).expect("sound"));
    assert!(saved.state == whole.state && saved.weights == whole.weights);
}

#[test]
fn a_batch_has_a_picture_for_every_rank() {
    let experiment = experiment(&["train.batch=2"]);
    let group = threads(3).remove(0);
    let error = trainer(&experiment).lead(group).unwrap_err().to_string();
    assert!(
        error.contains("2 pictures") && error.contains("3 ranks"),
        "{error}"
    );
}

#[test]
fn pictures_that_other_ranks_left_out_are_counted_too() {
    const DAMAGED: usize = 6;
    let folder = tempfile::tempdir().expect("a folder");
    for (class, shade) in [("a", 40u8), ("b", 200)] {
        for part in ["train", "test"] {
            let path = folder.path().join(part).join(class);
            std::fs::create_dir_all(&path).expect("made");
            for number in 0..20u8 {
                let at = path.join(format!("{number}.png"));
                let shade = |x: u32, y: u32| shade.wrapping_add((x * y) as u8 ^ number);
                let picture = image::GrayImage::from_fn(9, 9, |x, y| image::Luma([shade(x, y)]));
                picture.save(&at).expect("written");
                if part == "train" && usize::from(number) < DAMAGED / 2 {
                    std::fs::write(&at, b"no picture").expect("written");
                }
            }
        }
    }
    let path = format!("data.path={}", folder.path().display());
    let experiment = experiment(&[
        "data.source=folder",
        &path,
        "data.size=16",
        "data.cache=none",
        "data.unreadable=skip",
        "data.validation=0.2",
        "train.batch=8",
    ]);
    let mut groups = threads(2).into_iter();
    let leader = groups.next().expect("two");
    let counted = std::thread::scope(|scope| {
        let group = groups.next().expect("two");
        scope.spawn(move || follow(&group).expect("a rank that follows"));
        let mut trainer = trainer(&experiment);
        trainer.lead(leader.clone()).expect("a batch for all");
        for _ in 0..12 {
            trainer.step(false);
        }
        trainer.validate(|| true).expect("validation");
        let counted = trainer.left_out();
        leader.dismiss();
        counted
    });
    assert_eq!(counted, DAMAGED);
}
