//! The schema of the experiment file.

use super::schema::{Class::*, Default as D, Field, Key, Kind::*};
use crate::graph::{LAYER_KINDS, Model};

const MAX: f64 = f64::MAX;
const QUANTIZERS: &[&str] = &["none", "u1", "u2", "u3", "p1", "p2", "p3"];

macro_rules! key {
    ($path:literal, $kind:expr, $default:expr, $class:expr, $doc:literal) => {
        Key {
            path: $path,
            kind: $kind,
            default: $default,
            class: $class,
            doc: $doc,
        }
    };
}

macro_rules! field {
    ($name:literal, $kind:expr, $required:literal, $doc:literal) => {
        Field {
            name: $name,
            kind: $kind,
            required: $required,
            doc: $doc,
        }
    };
}

/// Fields of `[[model.layers]]`.
#[rustfmt::skip]
const LAYER: &[Field] = &[
    field!("kind", Choice(&LAYER_KINDS), true, "Kind of layer. `residual`: two convolutions with batch norm and a shortcut around them, projected where shapes differ."),
    field!("name", Text, false, "Name of the layer; by default its kind and a number."),
    field!("from", Words, false, "Names of the layers that it reads (`input` is the network's input); by default the one before it."),
    field!("channels", Whole(1, 1_000_000), false, "Output channels or features; by default the number of classes (for `depthwise` and `residual`, the channels of the input)."),
    field!("kernel", Whole(1, 64), false, "Size of a square kernel; by default 3, for pooling 2."),
    field!("stride", Whole(1, 64), false, "Stride; by default 1, for pooling the kernel size."),
    field!("padding", Whole(0, 64), false, "Zeros on every side; by default half the kernel, for pooling 0."),
    field!("dilation", Whole(1, 64), false, "Spacing of the kernel's taps."),
    field!("groups", Whole(1, 1_000_000), false, "Groups of channels that do not mix."),
    field!("bias", Flag, false, "Whether a convolution has a bias."),
    field!("repeat", Whole(1, 1000), false, "Number of residual blocks in a row; only the first has the stride."),
];

/// Fields of `[[layers]]`.
#[rustfmt::skip]
const EXCEPTION: &[Field] = &[
    field!("match", Words, true, "Which layers: names, patterns with `*` and `?`, kinds (`depthwise`, `pointwise`, `affine`, ...), `first` and `last` (of those with weights)."),
    field!("side", Choice(&["weights", "activations", "both"]), false, "Which of their quantizers; by default `both`."),
    field!("quantizer", Choice(QUANTIZERS), false, "Another parametrization, or `none`: float."),
    field!("learn", Choice(&["both", "range", "none"]), false, "As for `[weights]`."),
    field!("bits", Number(1.0, 16.0), false, "Initial bitwidth; the fixed one where it is not learned."),
    field!("bits_bounds", Range(1.0, 16.0), false, "Clamp of the bitwidth."),
    field!("allowed_bits", Numbers(1.0, 16.0), false, "Bitwidths that the hardware supports."),
    field!("d_bounds", Range(1e-9, 1e9), false, "Clamp of the step size."),
    field!("q_min_bounds", Range(1e-9, 1e9), false, "Clamp of the smallest magnitude."),
    field!("q_max_bounds", Range(1e-9, 1e9), false, "Clamp of the range."),
];

/// Every key there is, section by section.
#[rustfmt::skip]
pub const KEYS: &[Key] = &[
    key!("name", Text, D::Absent, Live, "Name of the run; by default the file's name."),
    key!("rules", Choice(&["paper", "published-code"]), D::Text("paper"), Fork, "The paper's definitions, or those of its published program where the two differ."),
    key!("seed", Whole(0, i64::MAX), D::Whole(1), Fresh, "Seed of initialisation, shuffling and augmentation."),
    key!("device", Text, D::Text("auto"), Fresh, "`auto`, `flex`, `libtorch:cpu`, `libtorch:cuda:N`, `cuda:N`; `bitscope devices` lists them."),
    key!("auto_apply", Choice(&["live", "fork", "fresh"]), D::Text("live"), Live, "Changes that are applied without asking when the file is saved: `live` (live and epoch), `fork` (forks too), `fresh` (all)."),
    key!("layers", Tables(EXCEPTION), D::Absent, Fork, "Exceptions for some layers; later ones override earlier ones."),

    key!("model.name", Choice(&Model::NAMES), D::Text("glyphnet"), Fresh, "Built-in network. `resnet18`, `resnet34`, `resnet50` and `mobilenet_v2` have torchvision's structure and names; the others are for 32x32 pictures."),
    key!("model.width", Number(0.1, 4.0), D::Number(1.0), Fresh, "Factor on the channels of `mobilenet_v2`."),
    key!("model.file", Path, D::Absent, Fresh, "An ONNX file instead of a built-in network; training starts from its weights."),
    key!("model.input", Text, D::Absent, Fresh, "Name of the input that takes the pictures, if the file has several."),
    key!("model.output", Text, D::Absent, Fresh, "Name of the output with the logits, if the file has several."),
    key!("model.norm", Choice(&["keep", "fresh"]), D::Text("keep"), Fresh, "For a file whose batch norms were folded into its convolutions. `keep`: biases are trained; `fresh`: every convolution with a bias gets a batch norm that starts as the identity on calibration batches."),
    key!("model.layers", Tables(LAYER), D::Absent, Fresh, "A network defined layer by layer in this file, instead of a built-in one."),
    key!("model.shortcut", Choice(&["a", "b", "c"]), D::Text("a"), Fresh, "Residual shortcut (He et al.): a pads with zeros (the paper's), b projects where the shape changes, c everywhere."),

    key!("data.source", Choice(&["glyphs", "cifar10", "idx", "tensors", "folder", "tar"]), D::Text("glyphs"), Fresh, "`glyphs` is generated; `cifar10` reads the official binary files; `idx` the four files of MNIST and Fashion-MNIST, gzipped or not; `tensors` a safetensors file with `images` (u8, or f32 as they are) and `labels`; `folder` pictures (PNG, JPEG, WebP, BMP, GIF) in one folder per class under `train` and `test` (or `val`), rotated by their EXIF data, transparency composited over black, scaled bilinearly; `tar` the same pictures in tar files, named as WebDataset does (`KEY.jpg` beside `KEY.cls`) or in a folder per class."),
    key!("data.path", Path, D::Absent, Fresh, "Folder or file of the data; `glyphs` needs none. `tar`: a folder with train*.tar (and test*.tar or val*.tar), a tar file, or a shell pattern (`*`, `?`, `[0-9]`, `{000..031}`)."),
    key!("data.size", Whole(1, 4096), D::Absent, Fresh, "Height and width of a picture. `folder` and `tar`: pictures are resized to it; `glyphs`: they are drawn at it (16 to 256); by default 32. `check` uses it if the data is missing."),
    key!("data.resize", Whole(1, 8192), D::Absent, Fresh, "For `folder` and `tar`: the shorter side is resized to this many pixels, at least `data.size`, and the centre is cropped (torchvision's Resize and CenterCrop). By default the whole picture is resized to `data.size`."),
    key!("data.crop", Choice(&["padded", "resized"]), D::Text("padded"), Fresh, "What `data.augment` crops. `padded`: from the padded picture. `resized`, for `folder` and `tar`: a part of the stored picture, of random area and aspect ratio, is resized to `data.size` (torchvision's RandomResizedCrop); such pictures are decoded for every batch."),
    key!("data.crop_scale", Range(0.001, 1.0), D::Numbers(&[0.08, 1.0]), Fresh, "Share of the picture's area that `resized` takes."),
    key!("data.crop_ratio", Range(0.1, 10.0), D::Numbers(&[0.75, 1.3333]), Fresh, "Width over height of the part that `resized` takes."),
    key!("data.normalise", Choice(&["symmetric", "imagenet"]), D::Text("symmetric"), Fresh, "What becomes of a byte x: `symmetric` (x / 255 - 0.5) * 2; `imagenet` (x / 255 - mean) / std with ImageNet's mean 0.485, 0.456, 0.406 and std 0.229, 0.224, 0.225 of red, green and blue."),
    key!("data.mean", Channels(0.0, 1.0), D::Absent, Fresh, "With `data.std`, instead of `data.normalise`: a byte x becomes (x / 255 - mean) / std, by channel."),
    key!("data.std", Channels(0.001, 100.0), D::Absent, Fresh, "See `data.mean`."),
    key!("data.cache", Choice(&["auto", "memory", "none", "file"]), D::Text("auto"), Fresh, "For `folder` and `tar`: pictures are decoded once and held in `memory`; or for every batch (`none`: only the list of files is held); or once, and kept in a `file` beside the data (`.bitscope-...`, which can be removed; a picture whose size or time changed is decoded again). `auto`: `memory` if they take at most 1 GiB and `data.crop` is not `resized`, else `none`."),
    key!("data.channels", Whole(1, 4), D::Absent, Fresh, "Channels of a picture, for `check` if the data is missing; by default 3."),
    key!("data.classes", Whole(1, 1_000_000), D::Absent, Fresh, "Number of classes, for `check` if the data is missing; by default 10."),
    key!("data.unreadable", Choice(&["stop", "skip"]), D::Text("stop"), Fresh, "For `folder` and `tar`: pictures that cannot be decoded in full are an error (`stop`), or left out and counted (`skip`). `bitscope data check` lists them."),
    key!("data.unknown_classes", Choice(&["stop", "skip"]), D::Text("stop"), Fresh, "For `folder`: classes of the test part that the training part does not have are an error (`stop`), or left out (`skip`)."),
    key!("data.samples", Whole(100, 1_000_000), D::Whole(8192), Fresh, "Training pictures that `glyphs` generates."),
    key!("data.difficulty", Number(0.0, 1.0), D::Number(0.6), Fresh, "Amount of jitter, clutter and noise in `glyphs`."),
    key!("data.validation", Number(0.0, 0.5), D::Number(0.1), Fresh, "Share of the training part that is split off for validation. The test part is read once, at the end."),
    key!("data.augment", Choice(&["none", "crop", "flip", "crop-flip"]), D::Text("none"), Epoch, "Random crop from the padded picture, random horizontal flip."),
    key!("data.crop_padding", Whole(1, 16), D::Whole(4), Epoch, "Pixels of zero padding around a picture for random crops."),
    key!("data.loader_threads", Whole(1, 16), D::Whole(1), Epoch, "Threads that prepare batches while the device works."),

    key!("init.weights", Path, D::Absent, Fresh, "A safetensors file with weights by name; names and layouts of the published code are understood."),
    key!("init.head", Choice(&["keep", "replace"]), D::Text("keep"), Fresh, "`replace`: a last layer whose size is not the data's number of classes, in `model.file` or in the weights, is initialised anew."),
    key!("init.run", Path, D::Absent, Fresh, "A run folder: training starts from the weights of its best checkpoint."),

    key!("train.epochs", Number(0.0, 1e6), D::Number(160.0), Live, "Length of the run after the float phase, in epochs."),
    key!("train.float_epochs", Number(0.0, 1e6), D::Number(0.0), Fork, "Epochs in float before the quantizers are initialised from what was learned."),
    key!("train.label_smoothing", Number(0.0, 0.9), D::Number(0.0), Live, "Share of each target that is spread evenly over all classes. Reported losses exclude it."),
    key!("train.batch", Whole(1, 65536), D::Whole(128), Epoch, "Samples per step."),

    key!("train.sync_norm", Flag, D::Flag(true), Live, "For a run on several ranks: batch norms use the mean and variance of the whole batch, so that it trains as on one rank; else each rank uses those of its own share, and running statistics are the mean over all ranks."),

    key!("weights.quantizer", Choice(QUANTIZERS), D::Text("none"), Fork, "Parametrization for weights and biases: u1 (b, d), u2 (b, q_max), u3 (d, q_max), p1 (b, q_min), p2 (b, q_max), p3 (q_min, q_max)."),
    key!("weights.learn", Choice(&["both", "range", "none"]), D::Text("both"), Fork, "`both` learns the bitwidth; `range` keeps it fixed and learns the range; `none` keeps both fixed."),
    key!("weights.bits", Number(1.0, 16.0), D::Number(4.0), Fork, "Initial bitwidth; the fixed one where it is not learned."),
    key!("weights.init", Choice(&["data", "fixed"]), D::Text("data"), Fork, "`data`: step and range from the largest weight of each layer; `fixed`: from the values below."),
    key!("weights.d", Number(1e-9, 1e9), D::Number(0.125), Fork, "Initial step size where `init = \"fixed\"`."),
    key!("weights.q_min", Number(1e-9, 1e9), D::Absent, Fork, "Initial smallest magnitude where `init = \"fixed\"` (p1, p3)."),
    key!("weights.q_max", Number(1e-9, 1e9), D::Absent, Fork, "Initial range where `init = \"fixed\"`; by default the one that `bits` and `d` imply."),
    key!("weights.bits_bounds", Range(1.0, 16.0), D::Numbers(&[2.0, 8.0]), Fork, "Clamp of the bitwidth."),
    key!("weights.allowed_bits", Numbers(1.0, 16.0), D::Absent, Fork, "Bitwidths that the hardware supports, such as [2, 4, 8]: a bitwidth is rounded up to one of them in the forward pass, memory, bit operations and everywhere else. By default any whole bitwidth."),
    key!("weights.d_bounds", Range(1e-9, 1e9), D::Numbers(&[0.00390625, 1.0]), Fork, "Clamp of the step size."),
    key!("weights.q_min_bounds", Range(1e-9, 1e9), D::Numbers(&[0.0000152587890625, 127.0]), Fork, "Clamp of the smallest magnitude."),
    key!("weights.q_max_bounds", Range(1e-9, 1e9), D::Numbers(&[0.00390625, 127.0]), Fork, "Clamp of the range."),

    key!("activations.at", Choice(&["nonlinearities", "everywhere"]), D::Text("nonlinearities"), Fork, "`nonlinearities`: their outputs (the paper's choice); `everywhere`: also the input, outputs without a nonlinearity, additions, poolings and concatenations, signed where values are: everything that integer-only hardware needs."),
    key!("activations.quantizer", Choice(QUANTIZERS), D::Text("none"), Fork, "Parametrization for the outputs of nonlinearities (unsigned)."),
    key!("activations.learn", Choice(&["both", "range", "none"]), D::Text("both"), Fork, "As for weights."),
    key!("activations.bits", Number(1.0, 16.0), D::Number(4.0), Fork, "Initial bitwidth; the fixed one where it is not learned."),
    key!("activations.init", Choice(&["data", "fixed"]), D::Text("data"), Fork, "`data`: from the largest activation of one batch; `fixed`: from the values below."),
    key!("activations.d", Number(1e-9, 1e9), D::Number(0.125), Fork, "Initial step size where `init = \"fixed\"`."),
    key!("activations.q_min", Number(1e-9, 1e9), D::Absent, Fork, "Initial smallest magnitude where `init = \"fixed\"` (p1, p3)."),
    key!("activations.q_max", Number(1e-9, 1e9), D::Absent, Fork, "Initial range where `init = \"fixed\"`; by default the one that `bits` and `d` imply."),
    key!("activations.bits_bounds", Range(1.0, 16.0), D::Numbers(&[1.0, 8.0]), Fork, "Clamp of the bitwidth."),
    key!("activations.allowed_bits", Numbers(1.0, 16.0), D::Absent, Fork, "As for weights."),
    key!("activations.d_bounds", Range(1e-9, 1e9), D::Numbers(&[0.00390625, 1.0]), Fork, "Clamp of the step size."),
    key!("activations.q_min_bounds", Range(1e-9, 1e9), D::Numbers(&[0.00006103515625, 255.0]), Fork, "Clamp of the smallest magnitude."),
    key!("activations.q_max_bounds", Range(1e-9, 1e9), D::Numbers(&[0.00390625, 255.0]), Fork, "Clamp of the range."),

    key!("input.bits", Number(0.0, 16.0), D::Absent, Fork, "Fixed bitwidth of the network's input, 2 to 16; 0: float. By default 8 if `activations.at` is `everywhere`, else 0. A quantized input counts among the activations."),

    key!("budget.weights_kb", Number(0.0, MAX), D::Absent, Live, "(8a): kB that all weights and biases may take."),
    key!("budget.activations_sum_kb", Number(0.0, MAX), D::Absent, Live, "(8b): kB that one sample's activations may take together."),
    key!("budget.activations_max_kb", Number(0.0, MAX), D::Absent, Live, "(8c): kB that the largest activation of one sample may take."),
    key!("budget.gbops", Number(0.0, MAX), D::Absent, Live, "Multiply-accumulates times weight bits times activation bits of one sample, in 10^9."),
    key!("budget.method", Choice(&["auto", "projection", "penalty", "lagrangian", "controller"]), D::Text("auto"), Live, "`projection`: bitwidths are lowered until the budget is met, first where losing a bit raises the loss least per kB; `penalty`: lambda max(0, g)^2 with constant lambda (the paper's equation 10); `lagrangian`: augmented Lagrangian; `controller`: lambda follows the logarithm of use over budget (PI). `auto`: `penalty` under the published code's rules, else `projection`. Under the paper's rules every method ends with a projection."),
    key!("budget.ramp_epochs", Number(0.0, 1e6), D::Absent, Live, "Epochs over which a budget tightens geometrically, from what the network takes when it begins. By default a quarter of `train.epochs`, or 0 under the published code's rules."),
    key!("budget.lambda_weights", Number(0.0, MAX), D::Number(0.1), Live, "lambda of (8a), per kB squared."),
    key!("budget.lambda_activations", Number(0.0, MAX), D::Number(0.1), Live, "lambda of (8b) and (8c), per kB squared."),
    key!("budget.lambda_gbops", Number(0.0, MAX), D::Number(0.1), Live, "lambda of the bit operations, per GBOP squared."),

    key!("optimizer.kind", Choice(&["sgd", "adam"]), D::Text("sgd"), Fork, "SGD with momentum, or Adam."),
    key!("optimizer.lr", Number(0.0, 1e3), D::Number(0.1), Live, "Learning rate before the schedule."),
    key!("optimizer.momentum", Number(0.0, 0.9999), D::Number(0.9), Live, "Momentum of SGD, first decay rate of Adam."),
    key!("optimizer.beta2", Number(0.0, 0.999999), D::Number(0.999), Live, "Second decay rate of Adam."),
    key!("optimizer.weight_decay", Number(0.0, 1.0), D::Number(0.0002), Live, "Weight decay."),
    key!("optimizer.decay", Choice(&["weights", "all"]), D::Text("weights"), Live, "Decays weights only, or every parameter: biases, batch norm, d and q_max too (as the published code does)."),
    key!("optimizer.lr_norm", Number(0.0, 1e3), D::Number(1.0), Live, "Factor on the learning rate for biases and batch norm."),
    key!("optimizer.lr_weight_quantizers", Number(0.0, 1e3), D::Number(1.0), Live, "Factor on the learning rate for the weights' quantizers."),
    key!("optimizer.lr_activation_quantizers", Number(0.0, 1e3), D::Number(1.0), Live, "Factor on the learning rate for the activations' quantizers."),
    key!("optimizer.clip_quantizers", Choice(&["with-budget", "always", "never"]), D::Text("with-budget"), Live, "When to clip the gradients of a quantizer's parameters to plus or minus its step size (`q_min` for p1 to p3)."),

    key!("quantizers.steps", Choice(&["auto", "plain", "relative"]), D::Text("auto"), Live, "`plain`: the optimizer's steps on the parameters as they are; `relative`: steps on one scale, octaves of d, q_min, q_max and bits of b, divided by the root mean square of the cross entropy's gradient. `auto`: `relative` with a budget under the paper's rules, else `plain`."),
    key!("quantizers.rate", Number(0.0, 1.0), D::Number(0.002), Live, "Largest relative step, in octaves or bits, before the schedule and the factors `optimizer.lr_weight_quantizers` and `optimizer.lr_activation_quantizers`."),
    key!("quantizers.hysteresis", Number(0.0, 0.4), D::Absent, Live, "Octaves (bits of b) by which a parameter moves past the point where it changes levels or bitwidth, so that noise does not move it back. By default 0.1 with a budget under the paper's rules, else 0."),
    key!("quantizers.freeze_epochs", Number(0.0, 1e6), D::Absent, Live, "Epochs at the end in which quantizers are frozen and only weights are trained. By default a tenth of `train.epochs` with a budget under the paper's rules, else 0."),
    key!("quantizers.revive_steps", Whole(0, 1_000_000_000), D::Absent, Live, "Consecutive steps that a layer is dead (all weights clipped or all on level zero) before its quantizer is initialised anew from its weights; 0: never. By default 50, or 0 under the published code's rules."),

    key!("evaluate.integers", Flag, D::Flag(false), Live, "Evaluates a quantized network in integers, as `verify` replays it and exported files compute it, so that the error is the deployed one. Needs a network that is in integers throughout, as most are with `activations.at = \"everywhere\"`; obstacles are reported."),
    key!("evaluate.norm_batches", Whole(0, 100_000), D::Absent, Live, "Training batches, augmented as in training and at most an epoch of them, from which the running statistics of batch norm are computed anew before every evaluation of a quantized network; 0: those from training are used. By default 32 with a budget under the paper's rules, else 0."),

    key!("schedule.kind", Choice(&["step", "cosine", "constant"]), D::Text("step"), Live, "How the learning rate changes over the run."),
    key!("schedule.milestones", Numbers(0.0, 1e6), D::Numbers(&[80.0, 120.0]), Live, "Epochs at which a step schedule multiplies the rate by `factor`."),
    key!("schedule.factor", Number(0.0, 1.0), D::Number(0.1), Live, "Factor of a step schedule."),
    key!("schedule.warmup_epochs", Number(0.0, 1e6), D::Number(0.0), Live, "Epochs over which the rate rises from zero."),
    key!("schedule.float_lr", Number(0.0, 1e3), D::Absent, Live, "Learning rate of the float phase; by default `optimizer.lr`. It falls to a tenth over the last third of the phase."),

    key!("log.probe_every", Whole(1, 1_000_000), D::Whole(1), Live, "Steps between records of every layer."),
    key!("log.evaluate_every", Number(0.01, 1e6), D::Number(1.0), Live, "Epochs between evaluations on the validation part."),
    key!("log.checkpoint_every", Number(0.01, 1e6), D::Number(1.0), Live, "Epochs between checkpoints."),

    key!("log.tensorboard", Flag, D::Flag(false), Live, "Also writes TensorBoard event files, into `tensorboard` in the run folder, from the next start of the run on."),

    key!("verdicts.hold", Whole(1, 1_000_000), D::Whole(20), Live, "Records for which a condition must hold before it becomes a verdict, and be absent before the verdict ends."),
    key!("verdicts.frozen_steps", Whole(1, 1_000_000_000), D::Whole(2000), Live, "Steps without a change after which a learned bitwidth counts as frozen."),
    key!("verdicts.clamp_margin", Number(0.0, 1.0), D::Number(0.01), Live, "Relative distance within which `d` or `q_max` counts as at its limit."),
    key!("verdicts.clipped", Number(0.0, 1.0), D::Number(0.2), Live, "Share of clipped elements above which a quantizer is saturated."),
    key!("verdicts.unreached_steps", Whole(1, 1_000_000_000), D::Whole(500), Live, "Steps without a clipped element after which the range counts as unreached."),
    key!("verdicts.zeros", Number(0.0, 1.0), D::Number(0.999), Live, "Share of elements quantized to zero above which a layer is reported."),
    key!("verdicts.dead", Number(0.0, 1.0), D::Number(0.999), Live, "Share of weights that are clipped, or on level zero, from which a layer counts as dead: no gradient can bring it back."),
    key!("verdicts.oscillations", Whole(1, 1_000_000), D::Whole(10), Live, "Changes of direction of a bitwidth within `window` steps from which it counts as oscillating."),
    key!("verdicts.window", Whole(1, 1_000_000_000), D::Whole(500), Live, "Steps over which changes of direction are counted."),
    key!("verdicts.vanishing", Number(0.0, 1.0), D::Number(1e-10), Live, "A quantizer's gradients vanish if both are below this share of their parameters."),
    key!("verdicts.exploding", Number(0.0, MAX), D::Number(100.0), Live, "A quantizer's gradient explodes if it exceeds this many times its parameter."),
    key!("verdicts.drowning", Number(0.0, MAX), D::Number(10.0), Live, "A penalty above this many times the cross entropy dominates the loss."),
];
