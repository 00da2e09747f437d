//! A network as steps on integers.

use serde::{Deserialize, Serialize};

use super::ExportError;
use super::levels::Thresholds;
use crate::graph::{Shape, Window};

/// A network whose values are integers times powers of two.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Program {
    /// In the order in which they are computed; the first yields the input, the last the logits.
    pub steps: Vec<Step>,
}

/// One step: sums of its inputs, and what becomes of them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Step {
    /// Name of the node whose value comes out.
    pub name: String,
    /// Steps that it reads; with thresholds by residual, the residual comes last.
    pub inputs: Vec<usize>,
    /// Shape of what comes out, for one picture.
    pub shape: Shape,
    /// What is summed.
    pub operation: Operation,
    /// What becomes of the sums.
    pub after: After,
    /// A sum is its integer times `2^sum_exponent`; a mean over `2^k` values is a sum of another unit.
    pub sum_exponent: i32,
    /// What comes out is its integer times `2^exponent`.
    pub exponent: i32,
    /// Least and largest sum that can occur.
    pub sums: [i64; 2],
    /// Least and largest integer that can come out.
    pub range: [i64; 2],
    /// Bits that its quantizer stores what comes out with, where it has one.
    pub bits: Option<u32>,
    /// No partial sum is larger, in whatever order it is taken, in units of what all summands are
    /// multiples of. Below 2^24 f32 adds without rounding.
    pub partial: u64,
}

/// What a step sums.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum Operation {
    /// Bytes of a picture through a table, `[channels or 1][256]`.
    Input {
        /// Integer of every byte, by channel.
        #[serde(skip)]
        codes: Vec<Vec<i32>>,
    },
    /// Nothing that integers can give exactly: the value comes from the float network.
    Float {
        /// Why.
        reason: String,
        /// What would make integers of it; nothing where the reason lies in what it reads.
        hint: Option<String>,
    },
    /// Sums of products. An affine layer is a 1x1 convolution.
    Convolution {
        /// Integers `[o, i / groups, kh, kw]`.
        #[serde(skip)]
        weights: Vec<i32>,
        /// In units of the sums, `[o]` or nothing.
        #[serde(skip)]
        bias: Vec<i64>,
        /// Kernel, stride, dilation, padding.
        window: Window,
        /// Groups of channels.
        groups: usize,
        /// How the weights are stored.
        stored: Stored,
        /// How the bias is stored, where there is one.
        stored_bias: Option<Stored>,
    },
    /// Sum of two, each shifted to the left.
    Add {
        /// Bits, by input.
        shifts: [u32; 2],
    },
    /// Product of two; the second may have one number per channel.
    Multiply,
    /// Channels behind one another, each input shifted to the left.
    Concatenate {
        /// Bits, by input.
        shifts: Vec<u32>,
    },
    /// Largest of each window.
    MaxPool {
        /// The window.
        window: Window,
    },
    /// Sum of each window.
    SumPool {
        /// The window.
        window: Window,
    },
    /// The same numbers in another shape.
    Reshape,
    /// Every `stride`-th pixel, `extra` channels of zeros behind.
    Subsample {
        /// Step between pixels.
        stride: usize,
        /// Channels of zeros.
        extra: usize,
    },
    /// Channels `[groups, c / groups]` transposed.
    Shuffle {
        /// Groups.
        groups: usize,
    },
    /// Channels `start..end`.
    Slice {
        /// First channel.
        start: usize,
        /// Behind the last.
        end: usize,
    },
    /// Zeros around.
    Pad {
        /// Before and behind, by axis.
        padding: [[usize; 2]; 2],
    },
    /// What it reads, as it is.
    Same,
}

/// A tensor as it is stored: codes of a quantizer at its own bitwidth.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Stored {
    /// Name of the parameter.
    pub name: String,
    /// Its shape.
    pub shape: Vec<usize>,
    /// Bits of every code.
    pub bits: u32,
    /// Whether levels are powers of two: a code is then a sign and an octave.
    pub octaves: bool,
    /// A level is its integer times `2^exponent`.
    pub exponent: i32,
    /// Left shift from a level's integer to the one that is multiplied or added.
    pub shift: u32,
}

/// What becomes of a step's sums.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum After {
    /// They come out as they are.
    Nothing,
    /// min(max(sum, low), high).
    Clip {
        /// Lower bound.
        low: i64,
        /// Upper bound.
        high: i64,
    },
    /// `sign(s) ((|s| + 2^(right - 1)) >> right)`, or a shift to the left where `right` is negative,
    /// and then a clip: rounding half away from zero between two grids.
    Shift {
        /// Bits.
        right: i32,
        /// Least level.
        low: i64,
        /// Largest level.
        high: i64,
    },
    /// The level is the number of thresholds that the sum reaches.
    Thresholds {
        /// Where they lie.
        #[serde(skip)]
        table: Thresholds,
    },
}

impl Program {
    /// Steps where integers end, with the reason; not those that only read what is in float.
    pub fn float_steps(&self) -> Vec<(&str, &str)> {
        let steps = self.steps.iter().filter_map(|step| match &step.operation {
            Operation::Float {
                reason,
                hint: Some(_),
            } => Some((step.name.as_str(), reason.as_str())),
            _ => None,
        });
        steps.collect()
    }

    /// Nothing, where integers give everything.
    ///
    /// # Errors
    /// Names the steps that they do not give.
    pub fn require_exact(&self, format: &'static str) -> Result<(), ExportError> {
        const NAMED: usize = 4;
        let float = self.float_steps();
        if float.is_empty() {
            return Ok(());
        }
        let named: Vec<String> = float
            .iter()
            .take(NAMED)
            .map(|(name, reason)| format!("{name} ({reason})"))
            .collect();
        let more = match float.len().saturating_sub(NAMED) {
            0 => String::new(),
            more => format!(", and {more} more"),
        };
        let mut hints: Vec<&str> = Vec::new();
        for step in &self.steps {
            if let Operation::Float {
                hint: Some(hint), ..
            } = &step.operation
                && !hints.contains(&hint.as_str())
            {
                hints.push(hint);
            }
        }
        Err(ExportError::Float {
            format,
            steps: named.join(", ") + &more,
            hint: format!("train or fork with {}", hints.join("; and ")),
        })
    }

    /// Whether it can be executed: what a file says is believed only so far.
    ///
    /// # Errors
    /// The first step that cannot be.
    pub fn validate(&self) -> Result<(), String> {
        let first = self.steps.first().map(|s| &s.operation);
        let Some(Operation::Input { codes }) = first else {
            return Err("it does not begin with an input".into());
        };
        let channels = self.steps[0].shape[0];
        if codes.is_empty() || (codes.len() != 1 && codes.len() != channels) {
            return Err("its input has no table for every channel".into());
        }
        for (at, step) in self.steps.iter().enumerate() {
            let wrong = |what: &str| Err(format!("{}: {what}", step.name));
            if step.inputs.iter().any(|input| *input >= at) {
                return wrong("it reads a value that does not come before it");
            }
            if step.shape.contains(&0) || step.shape.iter().any(|e| *e > 1 << 24) {
                return wrong("an impossible shape");
            }
            if step.exponent.abs() > 300 || step.sum_exponent.abs() > 300 {
                return wrong("an exponent that is impossible");
            }
            if step.range[0] > step.range[1] || step.sums[0] > step.sums[1] {
                return wrong("a range that ends before it begins");
            }
            if let Some(what) = self.misfit(step) {
                return wrong(what);
            }
        }
        Ok(())
    }

    /// What does not fit a step's inputs.
    fn misfit(&self, step: &Step) -> Option<&'static str> {
        let shape = |i: usize| self.steps[step.inputs[i]].shape;
        let same = |i: usize| shape(i) == step.shape;
        if matches!(step.after, After::Shift { right, low, high } if right.abs() > 62 || low > high)
        {
            return Some("an impossible shift");
        }
        let residual = step.has_residual();
        let count = step.inputs.len().checked_sub(usize::from(residual))?;
        if residual && shape(count) != step.shape {
            return Some("a residual of another shape");
        }
        let expected = match &step.operation {
            Operation::Input { .. } | Operation::Float { .. } => 0,
            Operation::Add { .. } | Operation::Multiply => 2,
            Operation::Concatenate { shifts } => shifts.len(),
            _ => 1,
        };
        if count != expected {
            return Some("a different number of inputs from what it needs");
        }
        let moves = |window: &Window| {
            let least = [window.stride, window.kernel, window.dilation];
            let padded = window.padding.iter().flatten().all(|v| *v < 1 << 16);
            let sound = padded && least.iter().flatten().all(|v| (1..1 << 16).contains(v));
            let [_, height, width] = shape(0);
            let [_, down, across] = step.shape;
            sound && window.output([height, width]) == Some([down, across])
        };
        let fits = match &step.operation {
            Operation::Input { .. } => true,
            Operation::Float { .. } => false,
            Operation::Convolution {
                weights,
                bias,
                window,
                groups,
                stored,
                ..
            } => {
                let [channels, ..] = shape(0);
                let [kh, kw] = window.kernel;
                let divides = *groups > 0
                    && channels.is_multiple_of(*groups)
                    && step.shape[0].is_multiple_of(*groups);
                divides
                    && moves(window)
                    && stored.shift <= 40
                    && weights.len() == step.shape[0] * (channels / groups) * kh * kw
                    && (bias.is_empty() || bias.len() == step.shape[0])
            }
            Operation::Add { shifts } => same(0) && same(1) && shifts.iter().all(|s| *s <= 40),
            Operation::Multiply => same(0) && (same(1) || shape(1) == [step.shape[0], 1, 1]),
            Operation::Concatenate { shifts } => {
                let channels: usize = (0..count).map(|i| shape(i)[0]).sum();
                let planes = (0..count).all(|i| shape(i)[1..] == step.shape[1..]);
                planes && channels == step.shape[0] && shifts.iter().all(|s| *s <= 40)
            }
            Operation::MaxPool { window } | Operation::SumPool { window } => {
                moves(window) && shape(0)[0] == step.shape[0]
            }
            Operation::Reshape => shape(0).iter().product::<usize>() == step.elements(),
            Operation::Subsample { stride, extra } => {
                let [c, h, w] = shape(0);
                *stride > 0 && step.shape == [c + extra, h.div_ceil(*stride), w.div_ceil(*stride)]
            }
            Operation::Shuffle { groups } => {
                *groups > 0 && same(0) && step.shape[0].is_multiple_of(*groups)
            }
            Operation::Slice { start, end } => {
                let [c, h, w] = shape(0);
                start < end && *end <= c && step.shape == [end - start, h, w]
            }
            Operation::Pad { padding } => {
                let [c, h, w] = shape(0);
                let [[top, bottom], [left, right]] = padding;
                step.shape == [c, h + top + bottom, w + left + right]
            }
            Operation::Same => same(0),
        };
        (!fits).then_some("numbers that do not fit its inputs")
    }

    /// Classes.
    pub fn classes(&self) -> usize {
        self.steps.last().map_or(0, Step::elements)
    }

    /// What a logit's integer is to be multiplied by.
    pub fn logit_scale(&self) -> f64 {
        self.steps
            .last()
            .map_or(1.0, |step| f64::from(step.exponent).exp2())
    }

    /// The step after which each step's value is read no more.
    pub fn last_readers(&self) -> Vec<usize> {
        let mut last: Vec<usize> = (0..self.steps.len()).collect();
        for (at, step) in self.steps.iter().enumerate() {
            for input in &step.inputs {
                last[*input] = at;
            }
        }
        if let Some(output) = last.last_mut() {
            *output = usize::MAX;
        }
        last
    }

    /// Bytes of all packed weights and biases, each tensor rounded up to whole bytes.
    pub fn payload(&self) -> usize {
        let stored = self.steps.iter().flat_map(Step::stored);
        stored.map(|stored| stored.bits().div_ceil(8)).sum()
    }
}

impl Stored {
    /// Elements.
    pub fn elements(&self) -> usize {
        self.shape.iter().product()
    }

    /// Bits of all codes.
    pub fn bits(&self) -> usize {
        self.elements() * self.bits as usize
    }
}

impl Step {
    /// Its packed tensors: weights, and a bias where there is one.
    pub fn stored(&self) -> Vec<&Stored> {
        match &self.operation {
            Operation::Convolution {
                stored,
                stored_bias,
                ..
            } => [stored].into_iter().chain(stored_bias).collect(),
            _ => Vec::new(),
        }
    }

    /// Whether its last input joins behind the sums: thresholds are then kept for each of its values.
    pub fn has_residual(&self) -> bool {
        matches!(&self.after, After::Thresholds { table } if !table.residuals.is_empty())
    }

    /// Elements of one picture.
    pub fn elements(&self) -> usize {
        self.shape.iter().product()
    }

    /// Whether its value comes from the float network.
    pub fn is_float(&self) -> bool {
        matches!(self.operation, Operation::Float { .. })
    }
}

/// Bits that a signed integer needs for every value of a range.
pub fn signed_bits([low, high]: [i64; 2]) -> u32 {
    let bits = |v: i64| {
        if v < 0 {
            65 - (!v).leading_zeros().min(64)
        } else {
            65 - v.leading_zeros()
        }
    };
    bits(low).max(bits(high))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signed_integers_need_as_many_bits_as_twos_complement() {
        for (range, bits) in [
            ([0, 0], 1),
            ([-1, 0], 1),
            ([0, 1], 2),
            ([-2, 1], 2),
            ([-128, 127], 8),
            ([-129, 0], 9),
            ([0, 128], 9),
            ([i64::MIN, i64::MAX], 64),
        ] {
            assert_eq!(signed_bits(range), bits, "{range:?}");
        }
    }
}
