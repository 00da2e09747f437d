//! A complete experiment as the rest of the program reads it: typed, with every key resolved.

use std::path::PathBuf;

use super::value::Values;
use crate::graph::{Architecture, Override, Quantization, QuantizerPlan, Sites};
use crate::quantizer::Rules;
use crate::quantizer::memory::Resource;

/// A complete, valid experiment. Immutable; shared as `Arc<Experiment>`.
#[derive(Debug, Clone, PartialEq)]
pub struct Experiment {
    /// Every key's value: what the run folder holds and differences compare.
    pub values: Values,
    /// Name of the run.
    pub name: String,
    /// Paper or published code.
    pub rules: Rules,
    /// Of everything random.
    pub seed: u64,
    /// As the file says it; `device::parse` knows the rest.
    pub device: String,
    /// Strongest class of change applied without asking.
    pub auto_apply: AutoApply,
    /// Network.
    pub model: Architecture,
    /// Where samples come from.
    pub data: DataSource,
    /// What the file says of a picture's extent, channels and classes.
    pub shape: DeclaredShape,
    /// Whether a last layer of another size begins anew.
    pub replace_head: bool,
    /// Pictures that cannot be decoded.
    pub unreadable: OnTrouble,
    /// Classes of the test part that the training part has not.
    pub unknown_classes: OnTrouble,
    /// Share of the training part held out for validation.
    pub validation: f64,
    /// Of training samples.
    pub augment: Augment,
    /// What becomes of a byte.
    pub normalise: Normalise,
    /// Of a folder: whether pictures are held in memory.
    pub cache: Cache,
    /// Of a folder: which part of a picture is taken.
    pub framing: Framing,
    /// Of a folder: training takes a part of each picture at random.
    pub random_resized: bool,
    /// Threads of the loader.
    pub loader_threads: usize,
    /// Where the weights start.
    pub start: Start,
    /// After the float phase.
    pub epochs: f64,
    /// Before the quantizers start.
    pub float_epochs: f64,
    /// Share of each target that is spread over all classes.
    pub label_smoothing: f64,
    /// Whether batch norms of a run on several ranks take the whole batch's statistics.
    pub sync_norm: bool,
    /// Samples per step.
    pub batch: usize,
    /// Quantizer of weights and biases.
    pub weights: Option<QuantizerPlan>,
    /// Quantizer of nonlinearities' outputs.
    pub activations: Option<QuantizerPlan>,
    /// Quantizer of the network's input.
    pub input: Option<QuantizerPlan>,
    /// Which activations are quantized.
    pub sites: Sites,
    /// Exceptions for some layers.
    pub overrides: Vec<Override>,
    /// Constraints.
    pub budgets: Budgets,
    /// Optimizer.
    pub optimizer: OptimizerSettings,
    /// How quantizers move.
    pub quantizers: QuantizerDynamics,
    /// Whether a quantized network is evaluated in integers.
    pub evaluate_integers: bool,
    /// Batches that re-estimate running statistics before an evaluation.
    pub norm_batches: usize,
    /// Learning rate over time.
    pub schedule: ScheduleSettings,
    /// What is recorded and when.
    pub log: LogSettings,
    /// Limits of the detectors.
    pub verdicts: Thresholds,
}

/// Strongest class of change that applies by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AutoApply {
    /// Live and epoch changes.
    Live,
    /// Also those that fork the run.
    Fork,
    /// All.
    Fresh,
}

/// Source of samples.
#[derive(Debug, Clone, PartialEq)]
pub enum DataSource {
    /// Generated.
    Glyphs {
        /// Training pictures.
        samples: usize,
        /// 0 to 1.
        difficulty: f64,
    },
    /// Official binary files in a folder.
    Cifar10(PathBuf),
    /// IDX files in a folder.
    Idx(PathBuf),
    /// Safetensors file.
    Tensors(PathBuf),
    /// One folder per class under `train` and `test`.
    Folder(PathBuf),
    /// Tar files of pictures with their classes.
    Shards(PathBuf),
}

/// What an experiment says of its pictures, for where the data does not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeclaredShape {
    /// Height and width.
    pub size: Option<usize>,
    /// Channels.
    pub channels: Option<usize>,
    /// Number of classes.
    pub classes: Option<usize>,
}

/// What to do about data that is not as it should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnTrouble {
    /// An error.
    Stop,
    /// It is left out, and counted.
    Skip,
}

/// What becomes of a byte of a picture.
#[derive(Debug, Clone, PartialEq)]
pub enum Normalise {
    /// A number from -1 to 1.
    Symmetric,
    /// Less ImageNet's mean, over its standard deviation, by channel.
    Imagenet,
    /// Of a value from 0 to 1: less the first number, over the second; the same for all channels where
    /// there is one pair.
    Channels(Vec<[f32; 2]>),
}

/// Whether decoded pictures are held in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cache {
    /// Where they are few.
    Auto,
    /// All of them.
    Memory,
    /// Each is decoded as it is needed.
    None,
    /// Each is decoded as it is needed for the first time, and kept in a file beside the data.
    File,
}

/// Which part of a picture is taken.
#[derive(Debug, Clone, PartialEq)]
pub struct Framing {
    /// Pixels that the shorter side is brought to before the middle is cut out; `None`: the whole picture.
    pub resize: Option<usize>,
    /// Share of the picture that a random part has.
    pub scale: std::ops::RangeInclusive<f64>,
    /// Width over height of a random part.
    pub ratio: std::ops::RangeInclusive<f64>,
}

/// Augmentation of training samples.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Augment {
    /// Pixels of padding that a random crop moves in; 0 for none.
    pub crop: usize,
    /// Random horizontal flip.
    pub flip: bool,
}

/// Where the weights start.
#[derive(Debug, Clone, PartialEq)]
pub enum Start {
    /// Random.
    Scratch,
    /// A safetensors file.
    Weights(PathBuf),
    /// The best checkpoint of a run folder.
    Run(PathBuf),
}

/// Constraints (8a) to (8c) and BOPs.
#[derive(Debug, Clone, PartialEq)]
pub struct Budgets {
    /// What is bounded: weights first, then activations, then bit operations.
    pub limits: Vec<Limit>,
    /// How they are kept.
    pub method: BudgetMethod,
    /// Epochs over which they tighten.
    pub ramp_epochs: f64,
}

/// A budget of one resource.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Limit {
    /// What it bounds.
    pub resource: Resource,
    /// As much as is allowed: kB, or 10^9 bit operations.
    pub amount: f64,
    /// Factor of the penalty (10), per kB (or 10^9) squared.
    pub lambda: f64,
}

impl Limit {
    /// The keys of a budget, and of its lambda, by resource.
    pub(crate) const KEYS: [(Resource, &str, &str); 4] = [
        (
            Resource::Weights,
            "budget.weights_kb",
            "budget.lambda_weights",
        ),
        (
            Resource::ActivationSum,
            "budget.activations_sum_kb",
            "budget.lambda_activations",
        ),
        (
            Resource::ActivationMax,
            "budget.activations_max_kb",
            "budget.lambda_activations",
        ),
        (Resource::Bops, "budget.gbops", "budget.lambda_gbops"),
    ];

    /// The key that sets it.
    pub fn key(&self) -> &'static str {
        let own = Self::KEYS
            .iter()
            .find(|(resource, ..)| *resource == self.resource);
        own.expect("every resource has a key").1
    }
}

/// How a budget is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BudgetMethod {
    /// Bitwidths are lowered where they exceed it.
    Projection,
    /// A term of the loss, constant lambda.
    Penalty,
    /// Augmented Lagrangian.
    Lagrangian,
    /// A term of the loss whose lambda follows the excess.
    Controller,
}

/// How the quantizers' parameters move, and when they stand still.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct QuantizerDynamics {
    /// Scale of the steps.
    pub steps: QuantizerSteps,
    /// Largest relative step, octaves or bits.
    pub rate: f64,
    /// How far a parameter goes on past where it changed a level or a bitwidth, octaves or bits.
    pub hysteresis: f64,
    /// Epochs at the end without quantizer steps.
    pub freeze_epochs: f64,
    /// Steps after which a dead layer's quantizer is initialised anew; `None`: never.
    pub revive_steps: Option<u64>,
}

/// Scale of a quantizer's steps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum QuantizerSteps {
    /// The optimizer's, on the parameters as they are.
    Plain,
    /// Octaves and bits.
    Relative,
}

/// Optimizer.
#[derive(Debug, Clone, PartialEq)]
pub struct OptimizerSettings {
    /// SGD or Adam.
    pub kind: OptimizerKind,
    /// Before the schedule.
    pub lr: f64,
    /// Of SGD; first decay rate of Adam.
    pub momentum: f64,
    /// Second decay rate of Adam.
    pub beta2: f64,
    /// Weight decay.
    pub weight_decay: f64,
    /// What it decays.
    pub decay: Decay,
    /// Factor for biases and batch norm.
    pub lr_norm: f64,
    /// Factor for the weights' quantizers.
    pub lr_weight_quantizers: f64,
    /// Factor for the activations' quantizers.
    pub lr_activation_quantizers: f64,
    /// Clipping of the quantizers' gradients.
    pub clip: Clip,
}

/// Kind of optimizer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OptimizerKind {
    /// SGD with momentum.
    Sgd,
    /// Adam.
    Adam,
}

/// What weight decay decays.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decay {
    /// Weights.
    Weights,
    /// Every parameter.
    All,
}

/// Clipping of the quantizers' gradients to plus and minus the step size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Clip {
    /// Where there is a budget.
    WithBudget,
    /// Always.
    Always,
    /// Never.
    Never,
}

/// Learning rate over the run.
#[derive(Debug, Clone, PartialEq)]
pub struct ScheduleSettings {
    /// Shape.
    pub kind: ScheduleKind,
    /// Epochs behind the float phase at which [`ScheduleKind::Step`] drops.
    pub milestones: Vec<f64>,
    /// What it is multiplied by at a milestone.
    pub factor: f64,
    /// Epochs over which it rises from zero, behind the float phase.
    pub warmup: f64,
    /// Learning rate of the float phase.
    pub float_lr: Option<f64>,
}

/// Shape of the schedule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ScheduleKind {
    /// Drops at milestones.
    Step,
    /// Half a cosine to zero.
    Cosine,
    /// None.
    Constant,
}

/// What is recorded and when.
#[derive(Debug, Clone, PartialEq)]
pub struct LogSettings {
    /// Steps between two records of every layer.
    pub probe_every: u64,
    /// Epochs between two evaluations on the validation part.
    pub evaluate_every: f64,
    /// Epochs between two checkpoints.
    pub checkpoint_every: f64,
    /// TensorBoard event files beside the log.
    pub tensorboard: bool,
}

/// Limits of the detectors, as the keys of `[verdicts]` say.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Thresholds {
    /// Records for which a condition holds before it becomes a verdict, and is absent before that ends.
    pub hold: u32,
    /// Steps without a change after which parameters are frozen.
    pub frozen_steps: u64,
    /// Distance from a clamp, relative to it, that counts as at the clamp.
    pub clamp_margin: f64,
    /// Share of clipped elements from which on a quantizer is saturated, 0 to 1.
    pub clipped: f64,
    /// Steps without clipping after which a range is unreached.
    pub unreached_steps: u64,
    /// Share of elements on level zero from which on a layer is too coarse, 0 to 1.
    pub zeros: f64,
    /// Share of clipped elements, or of those on level zero, from which on a layer is dead, 0 to 1.
    pub dead: f64,
    /// Changes of a bitwidth's direction within [`window`](Self::window) that are an oscillation.
    pub oscillations: u64,
    /// Steps that oscillations are counted over.
    pub window: u64,
    /// Gradient of a quantizer's parameter over that parameter, below which it vanishes.
    pub vanishing: f64,
    /// The same above which it explodes.
    pub exploding: f64,
    /// Penalty over cross entropy above which it dominates the loss.
    pub drowning: f64,
}

impl Experiment {
    /// How the network is quantized.
    pub fn quantization(&self) -> Quantization {
        Quantization {
            weights: self.weights.clone(),
            activations: self.activations.clone(),
            input: self.input.clone(),
            sites: self.sites,
            rules: self.rules,
            overrides: self.overrides.clone(),
        }
    }

    /// Epoch from which on the quantizers stand still.
    pub fn frozen_from(&self) -> f64 {
        self.float_epochs + self.epochs - self.quantizers.freeze_epochs
    }

    /// Whether the gradients of plain quantizer steps are clipped.
    pub fn clips(&self) -> bool {
        match self.optimizer.clip {
            Clip::WithBudget => !self.budgets.limits.is_empty(),
            Clip::Always => true,
            Clip::Never => false,
        }
    }
}
