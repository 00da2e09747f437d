//! A replay beside the fake-quantized network, step by step.

use burn::tensor::Tensor;

use super::program::{After, Operation, Program, signed_bits};
use super::replay::{Numbers, Replay};
use crate::network::{Network, read_tensor};

/// f32 adds integers without rounding below this.
pub(super) const EXACT_IN_F32: u64 = 1 << 24;
/// Bits that the transforms of a 3x3 convolution need besides.
const TRANSFORM_BITS: u32 = 5;

/// What was seen of one step.
#[derive(Debug, Clone, PartialEq)]
pub struct StepOutcome {
    /// Values that were compared.
    pub compared: u64,
    /// Values that differ.
    pub differing: u64,
    /// Least and largest sum that occurred.
    pub sums: Option<[i64; 2]>,
}

/// Where the two first differ.
#[derive(Debug, Clone, PartialEq)]
pub struct FirstDifference {
    /// The step.
    pub step: String,
    /// Picture, from 0.
    pub picture: usize,
    /// Channel, row, column.
    pub place: [usize; 3],
    /// What the fake-quantized network has.
    pub float: f32,
    /// What the integers give.
    pub integers: f32,
}

/// A program held against the network that it was made of.
#[derive(Debug)]
pub struct Comparison {
    program: Program,
    /// By step.
    pub steps: Vec<StepOutcome>,
    /// The first difference, in the order of pictures and then of steps.
    pub first: Option<FirstDifference>,
    /// Pictures seen.
    pub pictures: usize,
}

impl Comparison {
    /// Nothing seen yet.
    pub fn new(program: Program) -> Self {
        let nothing = StepOutcome {
            compared: 0,
            differing: 0,
            sums: None,
        };
        Self {
            steps: vec![nothing; program.steps.len()],
            program,
            first: None,
            pictures: 0,
        }
    }

    /// The program.
    pub fn program(&self) -> &Program {
        &self.program
    }

    /// Values that differ, over all steps.
    pub fn differing(&self) -> u64 {
        self.steps.iter().map(|s| s.differing).sum()
    }

    /// Compares a batch, on a network that [adds exactly](Program::prepare). Returns the logits of the
    /// float network.
    pub fn batch(&mut self, network: &mut Network, images: Tensor<4>) -> Vec<f32> {
        let [count, ..] = images.dims();
        let (program, outcomes) = (&self.program, &mut self.steps);
        let (first, pictures) = (&mut self.first, self.pictures);
        let mut replay = Replay::new(program, count);
        let mut at = 0;
        let logits = network.watched(images, |_, output| {
            let step = &program.steps[at];
            let float = read_tensor(output.clone());
            let is_input = matches!(step.operation, Operation::Input { .. });
            if is_input || step.is_float() {
                replay.release(at);
                if step.bits.is_some() {
                    let unit = f64::from(step.exponent).exp2();
                    let codes = float.iter().map(|v| (f64::from(*v) / unit) as i32);
                    replay.put(at, Numbers::Narrow(codes.collect()));
                }
            } else if let Some(ends) = replay.compute(at) {
                let outcome = &mut outcomes[at];
                let seen = outcome.sums.get_or_insert(ends);
                *seen = [seen[0].min(ends[0]), seen[1].max(ends[1])];
                if let Some(numbers) = replay.value(at) {
                    let unit = f64::from(step.exponent).exp2();
                    let value = |i: usize| (numbers.at(i) as f64 * unit) as f32;
                    let differ = |i: &usize| float[*i] != value(*i);
                    outcome.compared += float.len() as u64;
                    let mut different = (0..float.len()).filter(differ);
                    if let Some(i) = different.next() {
                        outcome.differing += 1 + different.count() as u64;
                        first.get_or_insert_with(|| FirstDifference {
                            step: step.name.clone(),
                            picture: pictures + i / step.elements(),
                            place: place(i % step.elements(), step.shape),
                            float: float[i],
                            integers: value(i),
                        });
                    }
                }
            }
            at += 1;
        });
        self.pictures += count;
        read_tensor(logits)
    }
}

fn place(index: usize, [_, height, width]: [usize; 3]) -> [usize; 3] {
    let plane = height * width;
    [index / plane, index % plane / width, index % width]
}

impl Program {
    /// Has the network take sums in f64 where f32 may round on the way: a 3x3 convolution's transforms
    /// need more bits than its sums. Returns the steps whose sums f32 may round in any order.
    pub fn prepare(&self, network: &mut Network) -> Vec<&str> {
        let sums = |least: u64| {
            let steps = self.steps.iter().enumerate();
            steps.filter(move |(_, step)| {
                let adds = matches!(
                    step.operation,
                    Operation::Convolution { .. } | Operation::SumPool { .. }
                );
                adds && step.partial >= least
            })
        };
        let with_transforms = sums(EXACT_IN_F32 >> TRANSFORM_BITS);
        network.add_exactly(with_transforms.map(|(at, _)| at));
        sums(EXACT_IN_F32)
            .map(|(_, step)| step.name.as_str())
            .collect()
    }
}

impl super::program::Step {
    /// Whether f32 may round a sum of this step.
    pub fn rounds_in_f32(&self) -> bool {
        let adds = matches!(
            self.operation,
            Operation::Convolution { .. } | Operation::SumPool { .. }
        );
        adds && self.partial >= EXACT_IN_F32
    }

    /// Bits of an accumulator for every sum that can occur.
    pub fn sum_bits(&self) -> u32 {
        signed_bits(self.sums)
    }

    /// How sums become what comes out, in a word.
    pub fn after_word(&self) -> &'static str {
        match &self.after {
            _ if self.is_float() => "float",
            After::Nothing => "sums",
            After::Clip { .. } => "clip",
            After::Shift { .. } => "shift",
            After::Thresholds { .. } if self.has_residual() => "thresholds by residual",
            After::Thresholds { .. } => "thresholds",
        }
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::TensorData;

    use super::*;
    use crate::dataset::Normalisation;
    use crate::network::example;

    const EVERYWHERE: &str = "[model]\nname = \"glyphnet\"\n[data]\nsource = \"glyphs\"\n\
        [input]\nbits = 8\n[weights]\nquantizer = \"u3\"\n\
        [activations]\nquantizer = \"u3\"\nat = \"everywhere\"\n";

    /// A comparison that finds nothing where something is wrong would prove nothing.
    #[test]
    fn a_difference_is_found_and_its_place_is_named() {
        let mut network = example::network(EVERYWHERE);
        let loaded = crate::experiment::load_embedded("e.toml", EVERYWHERE, &Vec::new());
        let normalisation = Normalisation::new(&loaded.expect("valid").experiment.normalise);
        let program = Program::of(&network.snapshot(), &normalisation);
        assert!(
            program.float_steps().is_empty(),
            "{:?}",
            program.float_steps()
        );
        program.prepare(&mut network);
        let [channels, height, width] = program.steps[0].shape;
        let count = 2;
        let unit = f64::from(program.steps[0].exponent).exp2() as f32;
        let pixels = (0..count * channels * height * width).map(|i| (i * 37 % 127) as f32 * unit);
        let pixels: Vec<f32> = pixels.collect();
        let images = |network: &Network| {
            let data = TensorData::new(pixels.clone(), [count, channels, height, width]);
            Tensor::from_data(data, &network.device().clone().inner())
        };
        let mut sound = Comparison::new(program.clone());
        let batch = images(&network);
        sound.batch(&mut network, batch);
        assert_eq!((sound.differing(), sound.first.clone()), (0, None));
        assert!(sound.steps.iter().map(|s| s.compared).sum::<u64>() > 1000);
        // The first channel of the first convolution with its signs turned.
        let mut damaged = program;
        let is_convolution = |step: &super::super::program::Step| {
            matches!(step.operation, Operation::Convolution { .. })
        };
        let at = damaged.steps.iter().position(is_convolution).expect("one");
        let step = &mut damaged.steps[at];
        let (name, outputs) = (step.name.clone(), step.shape[0]);
        if let Operation::Convolution { weights, .. } = &mut step.operation {
            let of_one = weights.len() / outputs;
            weights[..of_one].iter_mut().for_each(|w| *w = -*w);
        }
        let mut found = Comparison::new(damaged);
        let batch = images(&network);
        found.batch(&mut network, batch);
        let first = found.first.clone().expect("a difference");
        assert!(found.steps[at].differing > 0);
        assert_eq!((first.step, first.picture, first.place[0]), (name, 0, 0));
        assert_ne!(first.float, first.integers);
    }
}
