//! `bitscope predict`: logits of pictures in a safetensors file.

use std::path::PathBuf;
use std::sync::Arc;

use burn::tensor::{Tensor, TensorData};
use clap::Args;
use rand::SeedableRng;
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};

use crate::dataset::Normalisation;
use crate::experiment::{Experiment, Normalise};
use crate::face::checkpoint::{Checkpoint, Which};
use crate::face::{CliError, print};
use crate::files::is_same_file;
use crate::graph::{Architecture, Quantization};
use crate::integers::{Program, Replay};
use crate::network::weights::{Tensors, floats, to_bytes};
use crate::network::{Mode, Network, read_tensor};
use crate::quantizer::Rules;
use crate::run::{RunFolder, write_whole};
use crate::training::Trainer;

/// Options of `bitscope predict`.
#[derive(Debug, Args, Clone)]
pub(crate) struct Predict {
    /// Safetensors file with `images`: f32 [N, C, H, W] as they are, or u8, normalised as in training
    #[arg(long, value_name = "FILE")]
    pub images: PathBuf,
    /// File to write `logits`, f32 [N, classes], to
    #[arg(short, long, value_name = "FILE")]
    pub output: PathBuf,
    /// For a run or an experiment: its quantized network (the default if it has one)
    #[arg(long, conflicts_with = "float")]
    pub quantized: bool,
    /// For a run or an experiment: the network without its quantizers
    #[arg(long)]
    pub float: bool,
    #[command(flatten)]
    pub checkpoint: Checkpoint,
    /// Engine and device
    #[arg(long, value_name = "DEVICE")]
    pub device: Option<String>,
    /// Override a key of the experiment; repeatable
    #[arg(long = "set", value_name = "KEY.PATH=VALUE")]
    pub set: Vec<String>,
    /// Pictures per forward pass
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..))]
    pub batch: u32,
}

/// What predicts.
pub(crate) enum Source {
    /// A network in integers.
    Integers(Program),
    /// One with tensors.
    Tensors(Origin),
}

/// Where a network with tensors comes from.
pub(crate) enum Origin {
    /// An ONNX file as it is.
    Model(Architecture),
    /// An experiment before its first step.
    Experiment(Arc<Experiment>),
    /// A run's checkpoint.
    Run(RunFolder, Arc<Experiment>),
}

impl Origin {
    /// What it is, and which options say nothing of it.
    fn without<'a>(&self, predict: &'a Predict) -> (&'static str, Vec<(&'a str, bool)>) {
        let checkpoint = ("--checkpoint", predict.checkpoint.which.is_some());
        match self {
            Self::Model(_) => {
                let quantizers = [
                    ("--quantized", predict.quantized),
                    ("--float", predict.float),
                ];
                let options = quantizers.into_iter().chain([checkpoint]);
                ("an ONNX file", options.collect())
            }
            Self::Experiment(_) => ("an experiment before its first step", vec![checkpoint]),
            Self::Run(..) => ("a run", Vec::new()),
        }
    }
}

/// Refuses an option that would be ignored.
fn all_mean_something(source: &str, options: &[(&str, bool)]) -> Result<(), CliError> {
    match options.iter().find(|(_, given)| *given) {
        Some((option, _)) => Err(wrong(&format!(
            "{option}: has no meaning for {source}; expected a run"
        ))),
        None => Ok(()),
    }
}

/// Pictures as floats.
struct Pictures {
    values: Vec<f32>,
    count: usize,
    shape: [usize; 3],
}

fn failed(error: &dyn std::fmt::Display) -> CliError {
    CliError::Failed(error.to_string())
}

fn wrong(error: &dyn std::fmt::Display) -> CliError {
    CliError::Usage(error.to_string())
}

/// Runs it.
pub(crate) fn command(source: &Source, predict: &Predict) -> Result<u8, CliError> {
    if is_same_file(&predict.output, &predict.images) {
        let path = predict.output.display();
        return Err(wrong(&format!(
            "{path}: holds the images; expected another file for the logits"
        )));
    }
    match source {
        Source::Integers(program) => in_integers(program, predict),
        Source::Tensors(origin) => with_tensors(origin, predict),
    }
}

fn with_tensors(origin: &Origin, predict: &Predict) -> Result<u8, CliError> {
    let (source, without) = origin.without(predict);
    all_mean_something(source, &without)?;
    let normalise = match origin {
        Origin::Model(_) => &Normalise::Symmetric,
        Origin::Experiment(experiment) | Origin::Run(_, experiment) => &experiment.normalise,
    };
    let pictures = pictures(&predict.images, &Normalisation::new(normalise))?;
    let (mut network, device) = network(origin, predict, &pictures)?;
    let expected = network.graph().nodes[0].shape;
    if expected != pictures.shape {
        return Err(wrong(&format!(
            "{}: images of shape {:?}; expected {expected:?}",
            predict.images.display(),
            pictures.shape
        )));
    }
    let length: usize = pictures.shape.iter().product();
    let classes = network.graph().classes();
    let [c, h, w] = pictures.shape;
    let mut logits = Vec::with_capacity(pictures.count * classes);
    for values in pictures
        .values
        .chunks(length.max(1) * predict.batch as usize)
    {
        let data = TensorData::new(values.to_vec(), [values.len() / length, c, h, w]);
        let images = Tensor::<4>::from_data(data, &device);
        logits.extend(read_tensor(network.forward(images, Mode::Evaluate)));
    }
    write_logits(predict, pictures.count, classes, logits)
}

fn write_logits(
    predict: &Predict,
    count: usize,
    classes: usize,
    logits: Vec<f32>,
) -> Result<u8, CliError> {
    let mut tensors = Tensors::new();
    tensors.insert("logits".into(), (vec![count, classes], logits));
    let bytes = to_bytes(&tensors, Default::default()).map_err(|e| failed(&e))?;
    write_whole(&predict.output, &bytes)
        .map_err(|e| failed(&format!("{}: {e}", predict.output.display())))?;
    print(&format!(
        "{}: logits of {count} pictures, {classes} classes\n",
        predict.output.display(),
    ))?;
    Ok(0)
}

/// By a network in integers, whose input are bytes.
fn in_integers(program: &Program, predict: &Predict) -> Result<u8, CliError> {
    let given = [
        ("--float", predict.float),
        ("--quantized", predict.quantized),
        ("--checkpoint", predict.checkpoint.which.is_some()),
        ("--device", predict.device.is_some()),
        ("--set", !predict.set.is_empty()),
    ];
    all_mean_something("a network in integers", &given)?;
    let path = &predict.images;
    let at = |text: String| wrong(&format!("{}: {text}", path.display()));
    let bytes = crate::files::read(path).map_err(|e| at(e.to_string()))?;
    let view = images_of(&bytes).map_err(at)?;
    let expected = program.steps[0].shape;
    let fits = matches!(view.shape(), [_, rest @ ..] if *rest == expected);
    if view.dtype() != Dtype::U8 || !fits {
        return Err(at(format!(
            "images of type {:?} and shape {:?}; expected U8 and [n, {}, {}, {}]: a network in integers takes bytes",
            view.dtype(),
            view.shape(),
            expected[0],
            expected[1],
            expected[2],
        )));
    }
    let length: usize = expected.iter().product();
    let mut logits = Vec::new();
    for bytes in view.data().chunks(length * predict.batch as usize) {
        logits.extend(Replay::logits(program, bytes.len() / length, bytes));
    }
    write_logits(predict, view.shape()[0], program.classes(), logits)
}

fn network(
    origin: &Origin,
    predict: &Predict,
    pictures: &Pictures,
) -> Result<(Network, burn::tensor::Device), CliError> {
    let device = |name: &str| {
        let name = predict.device.as_deref().unwrap_or(name);
        let engine = crate::device::parse(name).map_err(|e| wrong(&e))?;
        Ok::<_, CliError>(crate::device::burn_device(engine))
    };
    match origin {
        Origin::Model(architecture) => {
            let device = device("auto")?;
            let built = architecture
                .as_it_is(pictures.shape)
                .map_err(|e| wrong(&e))?;
            let quantization = Quantization::none(Rules::Paper);
            let mut rng = rand_pcg::Pcg64Mcg::seed_from_u64(0);
            let autodiff = device.clone().autodiff();
            let network = Network::new(&built, &quantization, &autodiff, &mut rng);
            Ok((network, device))
        }
        Origin::Experiment(experiment) => {
            let device = device(&experiment.device)?;
            let splits = crate::dataset::open(experiment).map_err(|e| failed(&e))?;
            let trainer = Trainer::new(experiment.clone(), splits, device.clone());
            let mut network = trainer.map_err(|e| failed(&e))?.into_network();
            network.quantized &= !predict.float;
            Ok((network, device))
        }
        Origin::Run(folder, experiment) => {
            let device = device(&experiment.device)?;
            let which = predict.checkpoint.which.unwrap_or(Which::Best);
            let chosen = which.of(folder)?;
            crate::face::warn(&chosen.notes);
            let path = chosen.path;
            let experiment = folder.with_own_model(experiment);
            let (trained, absent) = crate::dataset::shape(&experiment);
            if absent.is_none() && trained.picture != pictures.shape {
                let [found, of] = [pictures.shape, trained.picture];
                crate::face::warn(&[format!(
                    "images of shape {found:?}, where the run was trained on {of:?}"
                )]);
            }
            let network = crate::training::network_of(&experiment, &path, pictures.shape, &device);
            let mut network = network.map_err(|e| failed(&e))?;
            if predict.quantized && !network.quantized {
                return Err(wrong(&format!(
                    "{}: the network has no quantizers in use; hint: leave `--quantized` out",
                    path.display()
                )));
            }
            network.quantized &= !predict.float;
            Ok((network, device))
        }
    }
}

/// The tensor `images` of a safetensors file.
fn images_of(bytes: &[u8]) -> Result<TensorView<'_>, String> {
    let file = SafeTensors::deserialize(bytes)
        .map_err(|e| format!("{e}; expected a safetensors file with `images`"))?;
    let view = file.tensor("images");
    view.map_err(|_| format!("tensors {:?}; expected `images`", file.names()))
}

/// The file's `images`.
fn pictures(path: &std::path::Path, normalisation: &Normalisation) -> Result<Pictures, CliError> {
    let at = |text: String| wrong(&format!("{}: {text}", path.display()));
    let bytes = crate::files::read(path).map_err(|e| at(e.to_string()))?;
    let view = images_of(&bytes).map_err(at)?;
    let &[count, c, h, w] = view.shape() else {
        let found = format!("images of shape {:?}; expected [n, c, h, w]", view.shape());
        return Err(at(found));
    };
    let values = match view.dtype() {
        Dtype::U8 => {
            let planes = view.data().chunks((h * w).max(1)).enumerate();
            let numbers = planes.flat_map(|(plane, bytes)| {
                let table = normalisation.channel(plane % c);
                bytes.iter().map(move |v| table[usize::from(*v)])
            });
            numbers.collect()
        }
        other => floats(other, view.data())
            .ok_or_else(|| at(format!("images of type {other:?}; expected floats or U8")))?,
    };
    if let Some(place) = values.iter().position(|v| !v.is_finite()) {
        let length = (c * h * w).max(1);
        return Err(at(format!(
            "images hold a value that is not finite, in picture {} (from 0)",
            place / length
        )));
    }
    Ok(Pictures {
        values,
        count,
        shape: [c, h, w],
    })
}
