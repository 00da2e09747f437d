//! `bitscope verify`: a run's network in integers beside the fake-quantized one, bit for bit.

use std::path::PathBuf;
use std::sync::Arc;

use burn::tensor::{Device, Tensor, TensorData};
use clap::Args;
use safetensors::Dtype;
use safetensors::tensor::TensorView;
use serde_json::{Value, json};

use crate::dataset::{Batch, Normalisation, Pixels, Samples, Splits, evaluation_batches};
use crate::experiment::{DataSource, Experiment};
use crate::face::checkpoint::{Checkpoint, Chosen, Which};
use crate::face::{CliError, exit, print};
use crate::integers::{Comparison, FirstDifference, Program, signed_bits};
use crate::network::Network;
use crate::run::RunFolder;

/// Options of `bitscope verify`.
#[derive(Debug, Args, Clone)]
pub(crate) struct Verify {
    /// Run folder, or its name under the runs folder
    pub run: PathBuf,
    #[command(flatten)]
    pub checkpoint: Checkpoint,
    /// Maximum number of pictures (default: the whole test part)
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub pictures: Option<u64>,
    /// Override a key of the experiment, such as data.path where the data moved; repeatable
    #[arg(long = "set", value_name = "KEY.PATH=VALUE")]
    pub set: Vec<String>,
    /// One JSON object
    #[arg(long)]
    pub json: bool,
    /// Also write the pictures (`images`, as exported files take them), their `labels` and the network's `logits`
    #[arg(long, value_name = "FILE.safetensors")]
    pub save: Option<PathBuf>,
    /// Where runs are recorded
    #[arg(long, value_name = "DIR", default_value = "runs")]
    pub runs: PathBuf,
}

/// A run's network at a checkpoint, on the host's own engine.
pub(crate) struct Deployed {
    /// The network, with its quantizers in use.
    pub network: Network,
    /// Its experiment.
    pub experiment: Arc<Experiment>,
    /// Where it came from.
    pub checkpoint: PathBuf,
    /// What computes.
    pub device: Device,
    /// What there is to say of the choice.
    pub notes: Vec<String>,
}

impl Deployed {
    /// Reads it.
    ///
    /// # Errors
    /// Where there is no such checkpoint, or its network is in float.
    pub fn open(
        folder: &RunFolder,
        experiment: &Arc<Experiment>,
        which: Which,
    ) -> Result<Self, CliError> {
        let Chosen {
            path: checkpoint,
            notes,
            ..
        } = which.of(folder)?;
        let engine = crate::device::parse("flex").map_err(|e| CliError::Failed(e.to_string()))?;
        let device = crate::device::burn_device(engine);
        let experiment = folder.with_own_model(experiment);
        let (shape, absent) = crate::dataset::shape(&experiment);
        let knows_its_shape = matches!(
            experiment.data,
            DataSource::Glyphs { .. } | DataSource::Cifar10(_)
        ) || experiment.shape.size.is_some();
        if let (Some(error), false) = (&absent, knows_its_shape) {
            return Err(CliError::Usage(format!(
                "{error}; the shape of the network's input is the data's"
            )));
        }
        let network = crate::training::network_of(&experiment, &checkpoint, shape.picture, &device);
        let network = network.map_err(|e| CliError::Failed(e.to_string()))?;
        if !network.quantized {
            let what = if network.slots.is_empty() {
                "its experiment has no quantizers; hint: fork it with `weights.quantizer` and \
                 `activations.quantizer`"
            } else {
                "the run is in its float phase there; expected a checkpoint with quantizers in use"
            };
            return Err(CliError::Usage(format!("{}: {what}", checkpoint.display())));
        }
        Ok(Self {
            network,
            experiment,
            checkpoint,
            device,
            notes,
        })
    }

    /// Hands the first `most` pictures of a part to `f`, batch by batch.
    ///
    /// # Errors
    /// What `f` returns ends it.
    pub fn over(
        &mut self,
        data: Arc<dyn Samples>,
        most: usize,
        mut f: impl FnMut(&mut Network, Tensor<4>, &Batch) -> Result<(), CliError>,
    ) -> Result<(), CliError> {
        /// Values of the pictures that are computed together, and pictures at most.
        const VALUES: usize = 1 << 18;
        const PICTURES: usize = 128;
        let picture: usize = data.shape().iter().product();
        let size = (VALUES / picture.max(1)).clamp(1, PICTURES);
        let mut left = most;
        for mut batch in evaluation_batches(data, size, self.experiment.loader_threads) {
            let count = batch.labels.len().min(left);
            if count == 0 {
                break;
            }
            left -= count;
            batch.labels.truncate(count);
            batch.images.truncate(count * picture);
            let [c, h, w] = batch.shape;
            let tensor = TensorData::new(batch.images.clone(), [count, c, h, w]);
            let images = Tensor::from_data(tensor, &self.device);
            f(&mut self.network, images, &batch)?;
        }
        Ok(())
    }

    /// Its program.
    pub fn program(&self) -> Program {
        let normalisation = Normalisation::new(&self.experiment.normalise);
        Program::of(&self.network.snapshot(), &normalisation)
    }
}

/// The part of the data that a result is proven on, and what it is called.
pub(crate) fn test_part(
    experiment: &Experiment,
) -> Result<(Arc<dyn Samples>, &'static str), CliError> {
    let Splits {
        test, validation, ..
    } = crate::dataset::open(experiment).map_err(|e| CliError::Failed(e.to_string()))?;
    let part = test.map(|part| (part, "test"));
    part.or(validation.map(|part| (part, "validation")))
        .ok_or_else(|| CliError::Usage("the data has neither a test nor a validation part".into()))
}

/// Runs it.
pub(crate) fn command(
    folder: &RunFolder,
    experiment: &Arc<Experiment>,
    verify: &Verify,
) -> Result<u8, CliError> {
    let mut deployed = Deployed::open(
        folder,
        experiment,
        verify.checkpoint.which.unwrap_or(Which::Best),
    )?;
    let program = deployed.program();
    if program.steps.iter().all(|step| step.is_float()) {
        return Err(CliError::Usage(format!(
            "{}: no step of the network is in integers; hint: quantize weights and activations both",
            folder.path().display()
        )));
    }
    let rounding: Vec<String> = {
        let steps = program.prepare(&mut deployed.network);
        steps.into_iter().map(str::to_owned).collect()
    };
    let (data, part) = test_part(&deployed.experiment)?;
    let most = verify.pictures.map_or(usize::MAX, |n| n as usize);
    let mut comparison = Comparison::new(program);
    let started = std::time::Instant::now();
    let mut saved = verify
        .save
        .as_ref()
        .map(|_| Saved::new(&comparison, &*data));
    deployed.over(data.clone(), most, |network, images, batch| {
        let first = comparison.pictures;
        let logits = comparison.batch(network, images);
        match &mut saved {
            Some(saved) => saved.add(&*data, first, batch, &logits),
            None => Ok(()),
        }
    })?;
    let seconds = started.elapsed().as_secs_f64();
    if comparison.pictures == 0 {
        return Err(CliError::Failed(format!("the {part} part has no picture")));
    }
    if let (Some(saved), Some(path)) = (saved, &verify.save) {
        let bytes = saved.to_bytes()?;
        crate::run::write_whole(path, &bytes)
            .map_err(|e| CliError::Usage(format!("{}: {e}", path.display())))?;
    }
    print(&if verify.json {
        format!(
            "{}\n",
            as_json(&deployed, &comparison, part, &rounding, seconds)
        )
    } else {
        table(&deployed, &comparison, part, &rounding, seconds)
    })?;
    Ok(if comparison.differing() == 0 {
        0
    } else {
        exit::FAILED
    })
}

/// Pictures as an exported file takes them, with what the network says of them.
struct Saved {
    is_bytes: bool,
    shape: [usize; 3],
    classes: usize,
    images: Vec<u8>,
    labels: Vec<u8>,
    logits: Vec<u8>,
    count: usize,
}

impl Saved {
    fn new(comparison: &Comparison, data: &dyn Samples) -> Self {
        Self {
            is_bytes: !comparison.program().steps[0].is_float(),
            shape: data.shape(),
            classes: comparison.program().classes(),
            images: Vec::new(),
            labels: Vec::new(),
            logits: Vec::new(),
            count: 0,
        }
    }

    fn add(
        &mut self,
        data: &dyn Samples,
        first: usize,
        batch: &Batch,
        logits: &[f32],
    ) -> Result<(), CliError> {
        let (values, labels) = (&batch.images, &batch.labels);
        if self.is_bytes {
            for index in first..first + labels.len() {
                let sample = data.sample(index, None);
                match sample.map_err(|e| CliError::Failed(e.to_string()))? {
                    Some((Pixels::Bytes(bytes), _)) => self.images.extend(bytes.iter()),
                    _ => {
                        return Err(CliError::Usage(
                            "--save: the data's pictures are not bytes, which the exported network takes; \
                             expected pictures, or u8 tensors"
                                .into(),
                        ));
                    }
                }
            }
        } else {
            self.images
                .extend(values.iter().flat_map(|v| v.to_le_bytes()));
        }
        let labels_as_bytes = labels.iter().flat_map(|l| i64::from(*l).to_le_bytes());
        self.labels.extend(labels_as_bytes);
        self.logits
            .extend(logits.iter().flat_map(|v| v.to_le_bytes()));
        self.count += labels.len();
        Ok(())
    }

    fn to_bytes(&self) -> Result<Vec<u8>, CliError> {
        let [c, h, w] = self.shape;
        let pixels = if self.is_bytes { Dtype::U8 } else { Dtype::F32 };
        let tensors = [
            ("images", pixels, vec![self.count, c, h, w], &self.images),
            ("labels", Dtype::I64, vec![self.count], &self.labels),
            (
                "logits",
                Dtype::F32,
                vec![self.count, self.classes],
                &self.logits,
            ),
        ];
        let views: Result<Vec<_>, _> = tensors
            .into_iter()
            .map(|(name, dtype, shape, bytes)| {
                TensorView::new(dtype, shape, bytes).map(|view| (name, view))
            })
            .collect();
        views
            .and_then(|views| safetensors::serialize(views, None))
            .map_err(|e| CliError::Failed(e.to_string()))
    }
}

fn as_json(
    deployed: &Deployed,
    comparison: &Comparison,
    part: &str,
    rounding: &[String],
    seconds: f64,
) -> Value {
    let program = comparison.program();
    let steps = program.steps.iter().zip(&comparison.steps);
    let steps: Vec<Value> = steps
        .map(|(step, seen)| {
            json!({
                "name": step.name,
                "after": step.after_word(),
                "compared": seen.compared,
                "differing": seen.differing,
                "sums": seen.sums,
                "possible_sums": step.sums,
                "accumulator_bits": step.sum_bits(),
                "rounds_in_f32": step.rounds_in_f32(),
            })
        })
        .collect();
    let first = comparison.first.as_ref().map(|first| {
        json!({
            "step": first.step, "picture": first.picture, "place": first.place,
            "float": first.float, "integers": first.integers,
        })
    });
    let float: Vec<Value> = program
        .float_steps()
        .into_iter()
        .map(|(step, why)| json!({"step": step, "why": why}))
        .collect();
    json!({
        "checkpoint": deployed.checkpoint,
        "part": part,
        "pictures": comparison.pictures,
        "differing": comparison.differing(),
        "compared": comparison.steps.iter().map(|s| s.compared).sum::<u64>(),
        "first": first,
        "notes": deployed.notes,
        "in_float": float,
        "rounding": rounding,
        "steps": steps,
        "payload_bytes": program.payload(),
        "seconds": seconds,
    })
}

fn table(
    deployed: &Deployed,
    comparison: &Comparison,
    part: &str,
    rounding: &[String],
    seconds: f64,
) -> String {
    use std::fmt::Write;
    let program = comparison.program();
    let names = program.steps.iter().map(|s| s.name.chars().count());
    let wide = names.max().unwrap_or(4).max(4);
    let mut text = format!(
        "{}: {} pictures of the {part} part\n\n{:wide$}  {:>12}  {:>9}  {:>24}  {:>8}  {:>8}\n",
        deployed.checkpoint.display(),
        comparison.pictures,
        "step",
        "compared",
        "differing",
        "sums",
        "seen",
        "possible",
    );
    for (step, seen) in program.steps.iter().zip(&comparison.steps) {
        let (range, bits) = match seen.sums {
            Some(sums) => (
                format!("{} .. {}", sums[0], sums[1]),
                format!("{} bits", signed_bits(sums)),
            ),
            None => (step.after_word().to_owned(), String::new()),
        };
        let possible = match seen.sums {
            Some(_) => format!("{} bits", step.sum_bits()),
            None => String::new(),
        };
        let _ = writeln!(
            text,
            "{:wide$}  {:>12}  {:>9}  {range:>24}  {bits:>8}  {possible:>8}",
            step.name, seen.compared, seen.differing,
        );
    }
    text.push('\n');
    for note in &deployed.notes {
        let _ = writeln!(text, "{note}");
    }
    for (step, why) in program.float_steps() {
        let _ = writeln!(text, "in float: {step}: {why}");
    }
    for step in rounding {
        let _ = writeln!(
            text,
            "{step}: its sums reach 2^24, which f32 may round; compared with sums in f64, rounded once"
        );
    }
    let compared: u64 = comparison.steps.iter().map(|s| s.compared).sum();
    let _ = match &comparison.first {
        None => {
            let logits = comparison.steps.last().is_some_and(|s| s.compared > 0);
            let but = if logits {
                ""
            } else {
                "; the logits, which are in float, were not compared"
            };
            writeln!(
                text,
                "equal bit for bit: {compared} values, {seconds:.1} s{but}"
            )
        }
        Some(FirstDifference {
            step,
            picture,
            place: [c, y, x],
            float,
            integers,
        }) => writeln!(
            text,
            "{} of {compared} values differ; the first in {step}, picture {picture}, channel {c}, \
             row {y}, column {x}: {float} in the network, {integers} in integers",
            comparison.differing(),
        ),
    };
    text
}
