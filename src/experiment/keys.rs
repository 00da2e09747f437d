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
    field!("kind", Choice(&LAYER_KINDS), true, "What it is. `residual`: two convolutions with batch norm around which the input goes, projected where shapes differ."),
    field!("name", Text, false, "Its name; the kind and a number where absent."),
    field!("from", Words, false, "Names of the layers that it reads (`input` is the network's); the one before it where absent."),
    field!("channels", Whole(1, 1_000_000), false, "Output channels or features; the number of classes where absent (of `depthwise` and `residual`: the input's)."),
    field!("kernel", Whole(1, 64), false, "Extent of a square kernel: 3, of a pooling 2."),
    field!("stride", Whole(1, 64), false, "Step between outputs: 1, of a pooling its kernel."),
    field!("padding", Whole(0, 64), false, "Zeros on every side: half the kernel, of a pooling 0."),
    field!("dilation", Whole(1, 64), false, "Step between taps."),
    field!("groups", Whole(1, 1_000_000), false, "Groups of channels that do not mix."),
    field!("bias", Flag, false, "Whether a convolution has a bias."),
    field!("repeat", Whole(1, 1000), false, "How many residual blocks stand one behind the other; the first has the stride."),
];

/// Fields of `[[layers]]`.
#[rustfmt::skip]
const EXCEPTION: &[Field] = &[
    field!("match", Words, true, "Which layers: names, patterns with `*` and `?`, kinds (`depthwise`, `pointwise`, `affine`, ...), `first` and `last` (of those with weights)."),
    field!("side", Choice(&["weights", "activations", "both"]), false, "What of them; `both` where absent."),
    field!("quantizer", Choice(QUANTIZERS), false, "Another parametrization, or `none`: float."),
    field!("learn", Choice(&["both", "range", "none"]), false, "As for `[weights]`."),
    field!("bits", Number(1.0, 16.0), false, "Bitwidth that initialisation aims at."),
    field!("bits_bounds", Range(1.0, 16.0), false, "Clamp of the bitwidth."),
    field!("allowed_bits", Numbers(1.0, 16.0), false, "Bitwidths that the hardware has."),
    field!("d_bounds", Range(1e-9, 1e9), false, "Clamp of the step size."),
    field!("q_min_bounds", Range(1e-9, 1e9), false, "Clamp of the smallest magnitude."),
    field!("q_max_bounds", Range(1e-9, 1e9), false, "Clamp of the range."),
];

/// Every key there is, section by section.
#[rustfmt::skip]
pub const KEYS: &[Key] = &[
    key!("name", Text, D::Absent, Live, "Name of the run; the file's name where absent."),
    key!("rules", Choice(&["paper", "published-code"]), D::Text("paper"), Fork, "The paper's definitions, or those of its published program where the two differ."),
    key!("seed", Whole(0, i64::MAX), D::Whole(1), Fresh, "Of initialisation, shuffling and augmentation."),
    key!("device", Text, D::Text("auto"), Fresh, "`auto`, `flex`, `libtorch:cpu`, `libtorch:cuda:N`, `cuda:N`; `bitscope devices` lists them."),
    key!("auto_apply", Choice(&["live", "fork", "fresh"]), D::Text("live"), Live, "The strongest class of change that a saved file applies without asking."),
    key!("layers", Tables(EXCEPTION), D::Absent, Fork, "Exceptions for some layers; later ones go over earlier ones."),

    key!("model.name", Choice(&Model::NAMES), D::Text("glyphnet"), Fresh, "Network that is built in: for 32x32 pictures, `resnet18`, `resnet34`, `resnet50` and `mobilenet_v2` in torchvision's structure and names."),
    key!("model.width", Number(0.1, 4.0), D::Number(1.0), Fresh, "Factor on the channels of `mobilenet_v2`."),
    key!("model.file", Path, D::Absent, Fresh, "An ONNX file instead of a network that is built in; its weights are where training starts."),
    key!("model.input", Text, D::Absent, Fresh, "Name of the input that pictures go to, where the file has several."),
    key!("model.output", Text, D::Absent, Fresh, "Name of the output that yields the logits, where the file has several."),
    key!("model.norm", Choice(&["keep", "fresh"]), D::Text("keep"), Fresh, "Of a file whose batch norms were folded into its convolutions. `keep`: biases are trained; `fresh`: every convolution with a bias gets a batch norm that starts as the identity of what calibration batches show."),
    key!("model.layers", Tables(LAYER), D::Absent, Fresh, "A network of the experiment's own, layer by layer, instead of one that is built in."),
    key!("model.shortcut", Choice(&["a", "b", "c"]), D::Text("a"), Fresh, "Residual shortcut (He et al.): a pads with zeros (the paper's), b projects where the shape changes, c everywhere."),

    key!("data.source", Choice(&["glyphs", "cifar10", "idx", "tensors", "folder", "tar"]), D::Text("glyphs"), Fresh, "`glyphs` is generated; `cifar10` reads the official binary files; `idx` the four files of MNIST and Fashion-MNIST, gzipped or not; `tensors` a safetensors file with `images` (u8, or f32 as they are) and `labels`; `folder` pictures (PNG, JPEG, WebP, BMP, GIF) in one folder per class under `train` and `test` (or `val`), turned as their EXIF data says, transparency over black, scaled bilinearly; `tar` the same pictures in tar files, named as WebDataset does (`KEY.jpg` beside `KEY.cls`) or in a folder per class."),
    key!("data.path", Path, D::Absent, Fresh, "Folder or file of the data; `glyphs` needs none. `tar`: a folder with train*.tar (and test*.tar or val*.tar), a tar file, or a pattern as a shell takes it (`*`, `?`, `[0-9]`, `{000..031}`)."),
    key!("data.size", Whole(1, 4096), D::Absent, Fresh, "Height and width of a picture. `folder`: pictures are brought to it, 32 where absent. `check` takes it where the data is not there."),
    key!("data.resize", Whole(1, 8192), D::Absent, Fresh, "Of `folder` and `tar`: the shorter side is brought to so many pixels, at least `data.size`, and the middle is cut out (torchvision's Resize and CenterCrop). The whole picture is brought to `data.size` where absent."),
    key!("data.crop", Choice(&["padded", "resized"]), D::Text("padded"), Fresh, "What `data.augment` crops. `padded`: out of the padded picture. `resized`, of `folder` and `tar`: a part of the stored picture, of random share and ratio, is brought to `data.size` (torchvision's RandomResizedCrop); such pictures are decoded for every batch."),
    key!("data.crop_scale", Range(0.001, 1.0), D::Numbers(&[0.08, 1.0]), Fresh, "Share of the picture that `resized` takes."),
    key!("data.crop_ratio", Range(0.1, 10.0), D::Numbers(&[0.75, 1.3333]), Fresh, "Width over height of what `resized` takes."),
    key!("data.normalise", Choice(&["symmetric", "imagenet"]), D::Text("symmetric"), Fresh, "What becomes of a byte x: `symmetric` (x / 255 - 0.5) * 2; `imagenet` (x / 255 - mean) / std with ImageNet's mean 0.485, 0.456, 0.406 and std 0.229, 0.224, 0.225 of red, green and blue."),
    key!("data.mean", Channels(0.0, 1.0), D::Absent, Fresh, "With `data.std`, instead of `data.normalise`: a byte x becomes (x / 255 - mean) / std, by channel."),
    key!("data.std", Channels(0.001, 100.0), D::Absent, Fresh, "See `data.mean`."),
    key!("data.cache", Choice(&["auto", "memory", "none", "file"]), D::Text("auto"), Fresh, "Of `folder` and `tar`: pictures are decoded once and held in `memory`, or for every batch (`none`: the list of files alone is held), or once, and kept in a `file` beside the data (`.bitscope-...`, which can be removed; a picture whose size or time changed is decoded anew). `auto` holds them where they take at most 1 GiB and are not cropped `resized`, which are decoded for every batch."),
    key!("data.channels", Whole(1, 4), D::Absent, Fresh, "Channels of a picture, for `check` where the data is not there; 3 where absent."),
    key!("data.classes", Whole(1, 1_000_000), D::Absent, Fresh, "Number of classes, for `check` where the data is not there; 10 where absent."),
    key!("data.unreadable", Choice(&["stop", "skip"]), D::Text("stop"), Fresh, "Of `folder` and `tar`: pictures that cannot be decoded in full are an error, or left out and counted. `bitscope data check` lists them."),
    key!("data.unknown_classes", Choice(&["stop", "skip"]), D::Text("stop"), Fresh, "Of `folder`: classes of the test part that the training part has not are an error, or left out."),
    key!("data.samples", Whole(100, 1_000_000), D::Whole(8192), Fresh, "Training pictures that `glyphs` generates."),
    key!("data.difficulty", Number(0.0, 1.0), D::Number(0.6), Fresh, "Of `glyphs`: jitter, clutter and noise."),
    key!("data.validation", Number(0.0, 0.5), D::Number(0.1), Fresh, "Share of the training part that is split off for validation. The test part is read once, at the end."),
    key!("data.augment", Choice(&["none", "crop", "flip", "crop-flip"]), D::Text("none"), Epoch, "Random crop out of the padded picture, random horizontal flip."),
    key!("data.crop_padding", Whole(1, 16), D::Whole(4), Epoch, "Pixels of zero padding that a random crop moves in."),
    key!("data.loader_threads", Whole(1, 16), D::Whole(1), Epoch, "Threads that prepare batches while the device works."),

    key!("init.weights", Path, D::Absent, Fresh, "A safetensors file with weights by name; names and layouts of the published code are understood."),
    key!("init.head", Choice(&["keep", "replace"]), D::Text("keep"), Fresh, "`replace`: a last layer whose size is not the data's number of classes, in `model.file` or in the weights, begins anew."),
    key!("init.run", Path, D::Absent, Fresh, "A run folder: its best checkpoint is where the weights start."),

    key!("train.epochs", Number(0.0, 1e6), D::Number(160.0), Live, "Length of the run after the float phase, in epochs."),
    key!("train.float_epochs", Number(0.0, 1e6), D::Number(0.0), Fork, "Epochs in float before the quantizers are initialised from what was learned."),
    key!("train.label_smoothing", Number(0.0, 0.9), D::Number(0.0), Live, "Share of each target that is spread evenly over all classes. Losses that are shown are without it."),
    key!("train.batch", Whole(1, 65536), D::Whole(128), Epoch, "Samples per step."),

    key!("train.sync_norm", Flag, D::Flag(true), Live, "Of a run on several ranks: batch norms take mean and variance of the whole batch, so that it trains as on one; else each rank takes those of its own share, and running statistics are the mean over all."),

    key!("weights.quantizer", Choice(QUANTIZERS), D::Text("none"), Fork, "Parametrization for weights and biases: u1 (b, d), u2 (b, q_max), u3 (d, q_max), p1 (b, q_min), p2 (b, q_max), p3 (q_min, q_max)."),
    key!("weights.learn", Choice(&["both", "range", "none"]), D::Text("both"), Fork, "`both` learns the bitwidth; `range` keeps it fixed and learns the range; `none` keeps both fixed."),
    key!("weights.bits", Number(1.0, 16.0), D::Number(4.0), Fork, "Bitwidth that initialisation aims at."),
    key!("weights.init", Choice(&["data", "fixed"]), D::Text("data"), Fork, "`data`: step and range from the largest weight of each layer; `fixed`: from the values below."),
    key!("weights.d", Number(1e-9, 1e9), D::Number(0.125), Fork, "Initial step size where `init = \"fixed\"`."),
    key!("weights.q_min", Number(1e-9, 1e9), D::Absent, Fork, "Initial smallest magnitude where `init = \"fixed\"` (p1, p3)."),
    key!("weights.q_max", Number(1e-9, 1e9), D::Absent, Fork, "Initial range where `init = \"fixed\"`; what `bits` and `d` give where absent."),
    key!("weights.bits_bounds", Range(1.0, 16.0), D::Numbers(&[2.0, 8.0]), Fork, "Clamp of the bitwidth."),
    key!("weights.allowed_bits", Numbers(1.0, 16.0), D::Absent, Fork, "Bitwidths that the hardware has, such as [2, 4, 8]: a bitwidth counts as the next of them, in the forward pass, memory, bit operations and everywhere else. Any whole one where absent."),
    key!("weights.d_bounds", Range(1e-9, 1e9), D::Numbers(&[0.00390625, 1.0]), Fork, "Clamp of the step size."),
    key!("weights.q_min_bounds", Range(1e-9, 1e9), D::Numbers(&[0.0000152587890625, 127.0]), Fork, "Clamp of the smallest magnitude."),
    key!("weights.q_max_bounds", Range(1e-9, 1e9), D::Numbers(&[0.00390625, 127.0]), Fork, "Clamp of the range."),

    key!("activations.at", Choice(&["nonlinearities", "everywhere"]), D::Text("nonlinearities"), Fork, "`nonlinearities`: their outputs (the paper's choice); `everywhere`: also the input, outputs without a nonlinearity, additions, poolings and concatenations, signed where values are: what an integer machine needs."),
    key!("activations.quantizer", Choice(QUANTIZERS), D::Text("none"), Fork, "Parametrization for the outputs of nonlinearities (unsigned)."),
    key!("activations.learn", Choice(&["both", "range", "none"]), D::Text("both"), Fork, "As for weights."),
    key!("activations.bits", Number(1.0, 16.0), D::Number(4.0), Fork, "Bitwidth that initialisation aims at."),
    key!("activations.init", Choice(&["data", "fixed"]), D::Text("data"), Fork, "`data`: from the largest activation of one batch; `fixed`: from the values below."),
    key!("activations.d", Number(1e-9, 1e9), D::Number(0.125), Fork, "Initial step size where `init = \"fixed\"`."),
    key!("activations.q_min", Number(1e-9, 1e9), D::Absent, Fork, "Initial smallest magnitude where `init = \"fixed\"` (p1, p3)."),
    key!("activations.q_max", Number(1e-9, 1e9), D::Absent, Fork, "Initial range where `init = \"fixed\"`; what `bits` and `d` give where absent."),
    key!("activations.bits_bounds", Range(1.0, 16.0), D::Numbers(&[1.0, 8.0]), Fork, "Clamp of the bitwidth."),
    key!("activations.allowed_bits", Numbers(1.0, 16.0), D::Absent, Fork, "As for weights."),
    key!("activations.d_bounds", Range(1e-9, 1e9), D::Numbers(&[0.00390625, 1.0]), Fork, "Clamp of the step size."),
    key!("activations.q_min_bounds", Range(1e-9, 1e9), D::Numbers(&[0.00006103515625, 255.0]), Fork, "Clamp of the smallest magnitude."),
    key!("activations.q_max_bounds", Range(1e-9, 1e9), D::Numbers(&[0.00390625, 255.0]), Fork, "Clamp of the range."),

    key!("input.bits", Number(0.0, 16.0), D::Absent, Fork, "Fixed bitwidth of the network's input, 2 to 16; 0: float. 8 where absent and `activations.at` is `everywhere`, else 0. A quantized input counts among the activations."),

    key!("budget.weights_kb", Number(0.0, MAX), D::Absent, Live, "(8a): kB that all weights and biases may take."),
    key!("budget.activations_sum_kb", Number(0.0, MAX), D::Absent, Live, "(8b): kB that one sample's activations may take together."),
    key!("budget.activations_max_kb", Number(0.0, MAX), D::Absent, Live, "(8c): kB that the largest activation of one sample may take."),
    key!("budget.gbops", Number(0.0, MAX), D::Absent, Live, "Multiply-accumulates times weight bits times activation bits of one sample, in 10^9."),
    key!("budget.method", Choice(&["auto", "projection", "penalty", "lagrangian", "controller"]), D::Text("auto"), Live, "`projection`: bitwidths are lowered until the budget is met, first where a bit costs the loss least per kB; `penalty`: lambda max(0, g)^2 with constant lambda (the paper's equation 10); `lagrangian`: augmented Lagrangian; `controller`: lambda follows the logarithm of use over budget (PI). `auto`: `penalty` under the published code's rules, else `projection`. Under the paper's rules every method ends with a projection."),
    key!("budget.ramp_epochs", Number(0.0, 1e6), D::Absent, Live, "Epochs over which a budget tightens geometrically, from what the network takes when it begins. A quarter of `train.epochs` where absent, 0 under the published code's rules."),
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
    key!("optimizer.clip_quantizers", Choice(&["with-budget", "always", "never"]), D::Text("with-budget"), Live, "Clips the gradients of a quantizer's parameters to plus and minus its step size (q_min for p1 to p3)."),

    key!("quantizers.steps", Choice(&["auto", "plain", "relative"]), D::Text("auto"), Live, "`plain`: the optimizer's steps on the parameters as they are; `relative`: steps on one scale, octaves of d, q_min, q_max and bits of b, divided by the root mean square of the cross entropy's gradient. `auto`: `relative` where there is a budget under the paper's rules, else `plain`."),
    key!("quantizers.rate", Number(0.0, 1.0), D::Number(0.002), Live, "Largest relative step, in octaves or bits, before the schedule and the factors `optimizer.lr_weight_quantizers` and `optimizer.lr_activation_quantizers`."),
    key!("quantizers.hysteresis", Number(0.0, 0.4), D::Absent, Live, "Octaves (bits of b) by which a parameter goes on beyond the place where it changes levels or bitwidth, so that noise does not take it back. 0.1 where there is a budget under the paper's rules and it is absent, else 0."),
    key!("quantizers.freeze_epochs", Number(0.0, 1e6), D::Absent, Live, "Epochs at the end in which quantizers stand still and only weights are trained. A tenth of `train.epochs` where there is a budget under the paper's rules and it is absent, else 0."),
    key!("quantizers.revive_steps", Whole(0, 1_000_000_000), D::Absent, Live, "Steps in a row that a layer is dead (all weights clipped or all on level zero) before its quantizer is initialised anew from its weights; 0: never. 50 where absent, 0 under the published code's rules."),

    key!("evaluate.integers", Flag, D::Flag(false), Live, "Evaluates a quantized network in integers, as `verify` replays it and exported files compute it, so that the error is the deployed one. Needs a network that integers give in full, as `activations.at = \"everywhere\"` makes most; what stands in the way is said."),
    key!("evaluate.norm_batches", Whole(0, 100_000), D::Absent, Live, "Batches of training data from which the running statistics of batch norm are computed anew before every evaluation of a quantized network; 0: what training left. 8 where there is a budget under the paper's rules and it is absent, else 0."),

    key!("schedule.kind", Choice(&["step", "cosine", "constant"]), D::Text("step"), Live, "Learning rate over the run."),
    key!("schedule.milestones", Numbers(0.0, 1e6), D::Numbers(&[80.0, 120.0]), Live, "Epochs at which a step schedule multiplies the rate by `factor`."),
    key!("schedule.factor", Number(0.0, 1.0), D::Number(0.1), Live, "Of a step schedule."),
    key!("schedule.warmup_epochs", Number(0.0, 1e6), D::Number(0.0), Live, "Epochs over which the rate rises from zero."),
    key!("schedule.float_lr", Number(0.0, 1e3), D::Absent, Live, "Learning rate of the float phase; `optimizer.lr` where absent. It falls to a tenth over the last third of the phase."),

    key!("log.probe_every", Whole(1, 1_000_000), D::Whole(1), Live, "Steps between records of every layer."),
    key!("log.evaluate_every", Number(0.01, 1e6), D::Number(1.0), Live, "Epochs between evaluations on the validation part."),
    key!("log.checkpoint_every", Number(0.01, 1e6), D::Number(1.0), Live, "Epochs between checkpoints."),

    key!("log.tensorboard", Flag, D::Flag(false), Live, "Writes TensorBoard event files too, into `tensorboard` of the run folder, from the next start of the run on."),

    key!("verdicts.hold", Whole(1, 1_000_000), D::Whole(20), Live, "Records that a condition must hold before it is told, and be gone before it ends."),
    key!("verdicts.frozen_steps", Whole(1, 1_000_000_000), D::Whole(2000), Live, "Steps without a change after which a learned bitwidth counts as frozen."),
    key!("verdicts.clamp_margin", Number(0.0, 1.0), D::Number(0.01), Live, "Relative distance within which `d` or `q_max` counts as at its limit."),
    key!("verdicts.clipped", Number(0.0, 1.0), D::Number(0.2), Live, "Share of clipped elements above which a quantizer is saturated."),
    key!("verdicts.unreached_steps", Whole(1, 1_000_000_000), D::Whole(500), Live, "Steps without a clipped element after which the range counts as unreached."),
    key!("verdicts.zeros", Number(0.0, 1.0), D::Number(0.999), Live, "Share of elements quantized to zero above which a layer is reported."),
    key!("verdicts.dead", Number(0.0, 1.0), D::Number(0.999), Live, "Share of clipped weights, or of weights on the zero level, from which on a layer is dead: no gradient brings it back."),
    key!("verdicts.oscillations", Whole(1, 1_000_000), D::Whole(10), Live, "Turns of a bitwidth within `window` steps from which on it oscillates."),
    key!("verdicts.window", Whole(1, 1_000_000_000), D::Whole(500), Live, "Steps that turns are counted over."),
    key!("verdicts.vanishing", Number(0.0, 1.0), D::Number(1e-10), Live, "Both gradients of a quantizer below this share of their parameters vanish."),
    key!("verdicts.exploding", Number(0.0, MAX), D::Number(100.0), Live, "A quantizer's gradient above this many times its parameter explodes."),
    key!("verdicts.drowning", Number(0.0, MAX), D::Number(10.0), Live, "A penalty above this many times the cross entropy dominates the loss."),
];
