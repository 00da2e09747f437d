//! A quantized network that learns from itself in float (`train.teacher`).

mod common;

use std::path::Path;
use std::sync::Arc;

use bitscope::experiment::{Experiment, load_embedded};
use bitscope::kernels::ranks::threads;
use bitscope::training::{Trainer, follow};
use common::SMALL;

fn load(set: &[&str]) -> Result<Arc<Experiment>, String> {
    let set = set.iter().map(|s| (*s).to_owned()).collect();
    let loaded = load_embedded("small.toml", SMALL, &set);
    loaded.map(|l| l.experiment).map_err(|e| e.to_string())
}

fn trainer(set: &[&str]) -> Trainer {
    let experiment = load(set).expect("valid");
    let splits = bitscope::dataset::open(&experiment).expect("data");
    let engine = bitscope::device::parse("flex").expect("compiled in");
    Trainer::new(experiment, splits, bitscope::device::burn_device(engine)).expect("built")
}

/// Cross entropies of so many steps.
fn go(trainer: &mut Trainer, steps: usize) -> Vec<f64> {
    let step = |_| {
        trainer.enter_phase();
        trainer.step(false).cross_entropy
    };
    (0..steps).map(step).collect()
}

/// Thirty steps in float (of 36 an epoch), then quantizers.
const FLOAT: &str = "train.float_epochs=0.83333";

/// The teacher is of no consequence before the quantizers, shows in no loss, and moves the weights.
#[test]
fn the_float_network_teaches_from_the_first_step_with_quantizers_on() {
    let [mut alone, mut taught] = [trainer(&[FLOAT]), trainer(&[FLOAT, "train.teacher=0.7"])];
    assert_eq!(go(&mut alone, 30), go(&mut taught, 30));
    let (alone, taught) = (go(&mut alone, 4), go(&mut taught, 4));
    assert_eq!(alone[0], taught[0], "losses are against labels");
    assert_ne!(alone[1], taught[1]);
}

/// With nothing but the teacher, quantized weights that are exact have nothing to learn.
#[test]
fn a_network_that_equals_its_teacher_stays_as_it_is() {
    let gradients = |share: &str| {
        let fine = [
            FLOAT,
            share,
            "weights.bits=16",
            "weights.bits_bounds=[2, 16]",
            "weights.d_bounds=[0.0000001, 1]",
            "activations.quantizer=none",
            "optimizer.lr=0.0001",
        ];
        let mut trainer = trainer(&fine);
        go(&mut trainer, 30);
        trainer.enter_phase();
        let record = trainer.step(true);
        let layers = record.layers.expect("probed");
        layers.iter().map(|l| f64::from(l.grad_norm)).sum::<f64>()
    };
    let (labels, teacher) = (gradients("train.teacher=0"), gradients("train.teacher=1"));
    // (Batch norms differ: the batch's statistics in training, running ones in the teacher.)
    assert!(teacher < 0.7 * labels, "{teacher} of {labels}");
}

#[test]
fn a_taught_run_resumes_bit_for_bit_and_hands_its_teacher_to_a_fork() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("c.safetensors");
    let set = [FLOAT, "train.teacher=0.5"];
    let mut whole = trainer(&set);
    go(&mut whole, 35);
    whole.save(&path).expect("saved");
    let expected = go(&mut whole, 5);
    let mut resumed = trainer(&set);
    resumed.restore(&path).expect("restored");
    assert_eq!(go(&mut resumed, 5), expected);

    let mut fork = trainer(&set);
    let notes = fork.fork_from(&path).expect("forked");
    assert!(
        !notes.iter().any(|n| n.contains("train.teacher")),
        "{notes:?}"
    );
    let mut without = trainer(&[FLOAT]);
    go(&mut without, 35);
    without.save(&path).expect("saved");
    let notes = trainer(&set).fork_from(&path).expect("forked");
    assert!(
        notes.iter().any(|n| n.contains("train.teacher")),
        "{notes:?}"
    );
}

#[test]
fn ranks_have_the_same_teacher() {
    let train = |size: usize, from: Option<&Path>| {
        let mut groups = threads(size).into_iter();
        let leader = groups.next().expect("one at least");
        std::thread::scope(|scope| {
            for group in groups {
                scope.spawn(move || follow(&group).expect("a rank that follows"));
            }
            let mut trainer = trainer(&[FLOAT, "train.teacher=1"]);
            if let Some(path) = from {
                trainer.restore(path).expect("a checkpoint");
            }
            trainer.lead(leader.clone()).expect("a batch for all");
            let losses = go(&mut trainer, 33);
            let others = trainer.compare().others;
            leader.dismiss();
            assert!(others.is_empty(), "{others:?}");
            losses
        })
    };
    let (alone, together) = (train(1, None), train(2, None));
    for (a, b) in alone.iter().zip(&together) {
        assert!((a - b).abs() / a < 0.05, "{alone:?} {together:?}");
    }
    // A rank that joins later is sent the teacher.
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("c.safetensors");
    let mut before = trainer(&[FLOAT, "train.teacher=1"]);
    go(&mut before, 35);
    before.save(&path).expect("saved");
    train(2, Some(&path));
}

#[test]
fn a_teacher_has_to_have_learned_something() {
    let error = load(&["train.teacher=0.5"]).expect_err("nothing to learn from");
    assert!(
        error.contains("no network in float to learn from"),
        "{error}"
    );
    assert!(load(&["train.teacher=0.5", "train.float_epochs=1"]).is_ok());
}
