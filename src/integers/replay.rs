//! A program executed on integers.

use super::levels::Thresholds;
use super::program::{After, Operation, Program, Step, signed_bits};
use crate::graph::{Shape, Window};
use crate::kernels::conv::{Extents, Geometry};
use crate::kernels::integer::{self, Sum};
use crate::kernels::parallel::{Cpu, Pool};

/// The integers of a value, `[n, c, h, w]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Numbers {
    /// Where they fit.
    Narrow(Vec<i32>),
    /// Where they may not.
    Wide(Vec<i64>),
}

impl Numbers {
    /// How many.
    pub fn len(&self) -> usize {
        match self {
            Self::Narrow(v) => v.len(),
            Self::Wide(v) => v.len(),
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// One of them.
    #[inline]
    pub fn at(&self, index: usize) -> i64 {
        match self {
            Self::Narrow(v) => i64::from(v[index]),
            Self::Wide(v) => v[index],
        }
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = i64> + '_ {
        (0..self.len()).map(|i| self.at(i))
    }

    fn narrow(&self) -> Vec<i32> {
        match self {
            Self::Narrow(v) => v.clone(),
            // (Only what has been shown to fit is asked for so.)
            Self::Wide(v) => v.iter().map(|v| *v as i32).collect(),
        }
    }

    /// Of that range.
    fn of(range: [i64; 2], values: Vec<i64>) -> Self {
        if signed_bits(range) <= i32::BITS {
            Self::Narrow(values.into_iter().map(|v| v as i32).collect())
        } else {
            Self::Wide(values)
        }
    }
}

/// A program on its way through a batch.
pub struct Replay<'a> {
    program: &'a Program,
    last: Vec<usize>,
    values: Vec<Option<Numbers>>,
    images: usize,
}

impl<'a> Replay<'a> {
    /// Of so many pictures.
    pub fn new(program: &'a Program, images: usize) -> Self {
        Self {
            last: program.last_readers(),
            values: vec![None; program.steps.len()],
            program,
            images,
        }
    }

    /// Logits `[n, classes]` of pictures `[n, c, h, w]` as bytes, as f32 would hold them.
    pub fn logits(program: &'a Program, images: usize, bytes: &[u8]) -> Vec<f32> {
        let input = program.steps.first().map(|step| &step.operation);
        let codes = match input {
            Some(Operation::Input { codes }) => input_codes(&program.steps[0], codes, bytes),
            _ => Numbers::Narrow(Vec::new()),
        };
        Self::logits_of(program, images, codes)
    }

    /// The same of the input's integers.
    pub fn logits_of(program: &'a Program, images: usize, input: Numbers) -> Vec<f32> {
        let mut replay = Self::new(program, images);
        replay.put(0, input);
        for at in 1..program.steps.len() {
            replay.compute(at);
        }
        let scale = program.logit_scale();
        let logits = replay.values.pop().flatten();
        logits.map_or_else(Vec::new, |logits| {
            logits.iter().map(|v| (v as f64 * scale) as f32).collect()
        })
    }

    /// Gives a step's integers from outside.
    pub fn put(&mut self, at: usize, numbers: Numbers) {
        self.values[at] = Some(numbers);
    }

    /// A step's integers, as long as somebody reads them.
    pub fn value(&self, at: usize) -> Option<&Numbers> {
        self.values[at].as_ref()
    }

    /// Computes a step, where all that it reads is there, and gives up what it read last. Returns the
    /// least and the largest sum that occurred.
    pub fn compute(&mut self, at: usize) -> Option<[i64; 2]> {
        let step = &self.program.steps[at];
        let inputs: Option<Vec<&Numbers>> = step
            .inputs
            .iter()
            .map(|i| self.values[*i].as_ref())
            .collect();
        let done = inputs.filter(|_| !step.is_float()).map(|inputs| {
            let shapes: Vec<Shape> = step
                .inputs
                .iter()
                .map(|i| self.program.steps[*i].shape)
                .collect();
            let sums = sums(step, &shapes, &inputs, self.images);
            let ends = ends(&sums);
            let residual = inputs.last().copied().filter(|_| step.has_residual());
            (after(step, sums, residual), ends)
        });
        self.release(at);
        let (value, ends) = done?;
        self.values[at] = Some(value);
        Some(ends)
    }

    /// Gives up what step `at` was the last to read.
    pub fn release(&mut self, at: usize) {
        for input in &self.program.steps[at].inputs {
            if self.last[*input] == at {
                self.values[*input] = None;
            }
        }
    }
}

impl Program {
    /// The input's integers, of pictures as numbers: the nearest that the bytes' table has.
    pub fn input_codes(&self, values: &[f32]) -> Numbers {
        let step = &self.steps[0];
        let unit = f64::from(step.exponent).exp2();
        let [low, high] = step.range;
        let code = |v: &f32| {
            (f64::from(*v) / unit)
                .round()
                .clamp(low as f64, high as f64) as i32
        };
        Numbers::Narrow(values.iter().map(code).collect())
    }
}

/// The integers of a picture's bytes.
pub(super) fn input_codes(step: &Step, codes: &[Vec<i32>], bytes: &[u8]) -> Numbers {
    let [channels, height, width] = step.shape;
    let plane = (height * width).max(1);
    let values = bytes.chunks(plane).enumerate().flat_map(|(i, plane)| {
        let table = &codes[i % channels % codes.len()];
        plane.iter().map(|b| table[usize::from(*b)])
    });
    Numbers::Narrow(values.collect())
}

fn ends(numbers: &Numbers) -> [i64; 2] {
    match numbers {
        Numbers::Narrow(v) => {
            let (low, high) = (v.iter().min(), v.iter().max());
            [low, high].map(|v| v.map_or(0, |v| i64::from(*v)))
        }
        Numbers::Wide(v) => [v.iter().min(), v.iter().max()].map(|v| v.copied().unwrap_or(0)),
    }
}

/// The sums of a step over a batch.
fn sums(step: &Step, shapes: &[Shape], inputs: &[&Numbers], images: usize) -> Numbers {
    let [channels, height, width] = shapes.first().copied().unwrap_or([0; 3]);
    let [outputs, down, across] = step.shape;
    match &step.operation {
        Operation::Convolution {
            weights,
            bias,
            window,
            groups,
            ..
        } => {
            let padded;
            let (x, size) = match window.symmetric_padding() {
                Some(_) => (inputs[0].narrow(), [height, width]),
                None => {
                    let [[top, bottom], [left, right]] = window.padding;
                    padded = pad(inputs[0], shapes[0], window.padding, images);
                    (padded, [height + top + bottom, width + left + right])
                }
            };
            let extents = Extents {
                images,
                input: channels,
                size,
                output: outputs,
                kernel: window.kernel,
                geometry: Geometry {
                    stride: window.stride,
                    padding: window.symmetric_padding().unwrap_or([0; 2]),
                    dilation: window.dilation,
                    groups: *groups,
                    in_order: false,
                },
            };
            // (Sums wrap around, so what fits in the end is right.)
            if signed_bits(step.sums) <= i32::BITS {
                let mut y = convolved::<i32>(&extents, &x, weights);
                add_bias(&mut y, bias, down * across, |b| b as i32);
                Numbers::Narrow(y)
            } else {
                let mut y = convolved::<i64>(&extents, &x, weights);
                add_bias(&mut y, bias, down * across, |b| b);
                Numbers::Wide(y)
            }
        }
        Operation::Add { shifts } => {
            let [a, b] = *shifts;
            let sums = inputs[0].iter().zip(inputs[1].iter());
            Numbers::of(step.sums, sums.map(|(x, y)| (x << a) + (y << b)).collect())
        }
        Operation::Multiply => {
            let per_channel = inputs[1].len() != inputs[0].len();
            let plane = height * width;
            let factor = |i: usize| inputs[1].at(if per_channel { i / plane } else { i });
            let products = inputs[0].iter().enumerate();
            Numbers::of(step.sums, products.map(|(i, x)| x * factor(i)).collect())
        }
        Operation::Concatenate { shifts } => {
            let mut all = Vec::with_capacity(images * step.elements());
            for image in 0..images {
                for ((input, shape), shift) in inputs.iter().zip(shapes).zip(shifts) {
                    let length: usize = shape.iter().product();
                    let values = (image * length..(image + 1) * length).map(|i| input.at(i));
                    all.extend(values.map(|v| v << shift));
                }
            }
            Numbers::of(step.sums, all)
        }
        Operation::MaxPool { window } => {
            let pooled = windows(window, shapes[0], step.shape, images, |taps| {
                taps.map(|i| inputs[0].at(i)).max().unwrap_or(0)
            });
            Numbers::of(step.sums, pooled)
        }
        Operation::SumPool { window } => {
            let pooled = windows(window, shapes[0], step.shape, images, |taps| {
                taps.map(|i| inputs[0].at(i)).sum()
            });
            Numbers::of(step.sums, pooled)
        }
        Operation::Subsample { stride, .. } => {
            let mut all = Vec::with_capacity(images * step.elements());
            for image in 0..images {
                for c in 0..outputs {
                    for (y, x) in (0..down).flat_map(|y| (0..across).map(move |x| (y, x))) {
                        let at =
                            ((image * channels + c) * height + y * stride) * width + x * stride;
                        all.push(if c < channels { inputs[0].at(at) } else { 0 });
                    }
                }
            }
            Numbers::of(step.sums, all)
        }
        Operation::Shuffle { groups } => {
            let (plane, per) = (height * width, channels / groups);
            let source = |c: usize| (c % groups) * per + c / groups;
            let all = (0..images).flat_map(|image| {
                (0..channels).flat_map(move |c| {
                    let start = (image * channels + source(c)) * plane;
                    start..start + plane
                })
            });
            Numbers::of(step.sums, all.map(|i| inputs[0].at(i)).collect())
        }
        Operation::Slice { start, end } => {
            let plane = height * width;
            let all = (0..images).flat_map(|image| {
                let base = image * channels * plane;
                base + start * plane..base + end * plane
            });
            Numbers::of(step.sums, all.map(|i| inputs[0].at(i)).collect())
        }
        Operation::Pad { padding } => Numbers::Narrow(pad(inputs[0], shapes[0], *padding, images)),
        Operation::Same | Operation::Reshape => inputs[0].clone(),
        Operation::Input { .. } | Operation::Float { .. } => {
            unreachable!("these are given from outside")
        }
    }
}

fn convolved<S: Sum>(extents: &Extents, x: &[i32], weights: &[i32]) -> Vec<S> {
    integer::convolution(Cpu::current(Pool::Rayon), extents, x, weights)
}

fn add_bias<S: Copy + std::ops::AddAssign>(
    y: &mut [S],
    bias: &[i64],
    plane: usize,
    of: impl Fn(i64) -> S,
) {
    if bias.is_empty() {
        return;
    }
    for (i, plane) in y.chunks_mut(plane.max(1)).enumerate() {
        let bias = of(bias[i % bias.len()]);
        for y in plane {
            *y += bias;
        }
    }
}

fn pad(x: &Numbers, shape: Shape, padding: [[usize; 2]; 2], images: usize) -> Vec<i32> {
    let [channels, height, width] = shape;
    let [[top, bottom], [left, right]] = padding;
    let (down, across) = (height + top + bottom, width + left + right);
    let mut all = vec![0; images * channels * down * across];
    for plane in 0..images * channels {
        for y in 0..height {
            for x_at in 0..width {
                let to = (plane * down + y + top) * across + x_at + left;
                all[to] = x.at((plane * height + y) * width + x_at) as i32;
            }
        }
    }
    all
}

/// One number for each window, from the indices of its values; what lies outside has none.
fn windows(
    window: &Window,
    [channels, height, width]: Shape,
    [_, down, across]: Shape,
    images: usize,
    reduce: impl Fn(&mut dyn Iterator<Item = usize>) -> i64 + Sync,
) -> Vec<i64> {
    use rayon::prelude::*;
    let along = |axis: usize, output: usize, size: usize| {
        let start = output * window.stride[axis];
        (0..window.kernel[axis])
            .filter_map(move |k| {
                (start + k * window.dilation[axis]).checked_sub(window.padding[axis][0])
            })
            .filter(move |at| *at < size)
    };
    (0..images * channels)
        .into_par_iter()
        .flat_map_iter(|plane| {
            let reduce = &reduce;
            (0..down * across).map(move |i| {
                let rows = along(0, i / across, height);
                let mut taps = rows.flat_map(|y| {
                    along(1, i % across, width).map(move |x| (plane * height + y) * width + x)
                });
                reduce(&mut taps)
            })
        })
        .collect()
}

/// What becomes of the sums.
fn after(step: &Step, sums: Numbers, residual: Option<&Numbers>) -> Numbers {
    match &step.after {
        After::Nothing => sums,
        After::Clip { low, high } => {
            let clipped = sums.iter().map(|v| v.max(*low).min(*high));
            Numbers::of(step.range, clipped.collect())
        }
        After::Shift { right, low, high } => {
            let levels = sums
                .iter()
                .map(|v| round_shift(v, *right).clamp(*low, *high));
            Numbers::Narrow(levels.map(|v| v as i32).collect())
        }
        After::Thresholds { table } => Numbers::Narrow(thresholded(step, table, &sums, residual)),
    }
}

/// `v / 2^right`, rounded half away from zero.
pub(super) fn round_shift(v: i64, right: i32) -> i64 {
    if right <= 0 {
        return v << -right;
    }
    let magnitude = (v.unsigned_abs() + (1 << (right - 1))) >> right;
    if v < 0 {
        -(magnitude as i64)
    } else {
        magnitude as i64
    }
}

fn thresholded(
    step: &Step,
    table: &Thresholds,
    sums: &Numbers,
    residual: Option<&Numbers>,
) -> Vec<i32> {
    use rayon::prelude::*;
    let [channels, height, width] = step.shape;
    let plane = (height * width).max(1);
    let mut codes = vec![0; sums.len()];
    codes
        .par_chunks_mut(plane)
        .enumerate()
        .for_each(|(i, codes)| {
            let channel = i % channels;
            for (j, code) in codes.iter_mut().enumerate() {
                let at = i * plane + j;
                let place = residual.map_or(0, |r| table.place(r.at(at)));
                *code = table.code(channel, place, sums.at(at));
            }
        });
    codes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shift_rounds_half_away_from_zero() {
        for (v, right, expected) in [
            (3, 1, 2),
            (-3, 1, -2),
            (5, 1, 3),
            (2, 2, 1),
            (1, 2, 0),
            (-1, 2, 0),
            (-2, 2, -1),
            (3, -2, 12),
            (-7, 0, -7),
        ] {
            assert_eq!(round_shift(v, right), expected, "{v} >> {right}");
            let exact = (f64::from(v as i32) / f64::from(right).exp2()).round();
            assert_eq!(round_shift(v, right) as f64, exact);
        }
    }
}
