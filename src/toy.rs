//! The toy of the paper's section 2: quantize samples of N(0, 1), minimise E[(Q(x) - x)^2] / 2
//! with SGD under every parametrization from several starts.

use std::path::Path;

use rand::SeedableRng;
use rand_distr::{Distribution, StandardNormal};
use serde_json::json;

use crate::face::{CliError, print};
use crate::figure::{
    self, Axis, DOT, Figure, Format, Ink, Item, Label, Line, Place, Scale, Scene, Theme,
};
use crate::quantizer::{Parametrization, Quantizer, Rules, Sums, largest_level};

/// Samples of N(0, 1).
const SAMPLES: usize = 10_000;
/// Samples per step of SGD.
const BATCH: usize = 100;
/// Learning rate, the same for every parametrization.
const RATE: f64 = 0.01;
/// Steps over which the spread at the end is taken.
const TAIL: usize = 300;
/// Starts (step size, bits) for the uniform quantizer and (q_max, bits) for powers of two.
const STARTS: [(f64, f64); 3] = [(0.25, 3.0), (0.125, 4.0), (0.0625, 6.0)];

/// One descent.
#[derive(Debug, Clone, PartialEq)]
pub struct Descent {
    /// Parametrization.
    pub parametrization: Parametrization,
    /// Error over all samples after each step.
    pub errors: Vec<f64>,
    /// Bitwidth after each step.
    pub bits: Vec<f64>,
    /// Step size (or `q_min`) and range after each step.
    pub plane: Vec<(f64, f64)>,
    /// Step size and bits that it started from, as the legend names them.
    pub start: (f64, f64),
}

impl Descent {
    /// Standard deviation of the last errors: how much it oscillates.
    pub fn spread(&self) -> f64 {
        let tail = &self.errors[self.errors.len().saturating_sub(TAIL)..];
        let mean = tail.iter().sum::<f64>() / tail.len() as f64;
        (tail.iter().map(|e| (e - mean).powi(2)).sum::<f64>() / tail.len() as f64).sqrt()
    }
}

/// Descends from every start under every parametrization.
pub fn descend_all(steps: usize) -> Vec<Descent> {
    descents(steps).collect()
}

/// Number of descents.
pub const DESCENTS: usize = Parametrization::ALL.len() * STARTS.len();

/// The descents one by one, as they are computed.
pub fn descents(steps: usize) -> impl Iterator<Item = Descent> {
    let mut rng = rand_pcg::Pcg64Mcg::seed_from_u64(1);
    let samples: Vec<f32> = (0..SAMPLES)
        .map(|_| -> f64 { StandardNormal.sample(&mut rng) })
        .map(|v| v as f32)
        .collect();
    let all = Parametrization::ALL
        .into_iter()
        .flat_map(|p| STARTS.map(|start| (p, start)));
    all.map(move |(p, start)| descend(p, start, &samples, steps))
}

fn descend(p: Parametrization, (d, b): (f64, f64), samples: &[f32], steps: usize) -> Descent {
    let quantizer = Quantizer::learned(p, true, Rules::Paper);
    let q_max = d * largest_level(true, b);
    let octaves = ((b - 1.0).exp2() - 1.0).min(12.0).exp2();
    let mut parameters = quantizer.project(match p {
        Parametrization::U1 => [b, d],
        Parametrization::U2 => [b, q_max],
        Parametrization::U3 => [d, q_max],
        Parametrization::P1 => [b, 2.0 / octaves],
        Parametrization::P2 => [b, 2.0],
        Parametrization::P3 => [2.0 / octaves, 2.0],
    });
    let mut descent = Descent {
        parametrization: p,
        errors: Vec::new(),
        bits: Vec::new(),
        plane: Vec::new(),
        start: (d, b),
    };
    for step in 0..steps {
        let grid = quantizer.grid(parameters);
        let start = step * BATCH % SAMPLES;
        let mut sums = Sums::default();
        for x in &samples[start..start + BATCH] {
            let g = (grid.forward(*x) - x) / BATCH as f32;
            grid.backward(*x, g, &mut sums);
        }
        let gradients = quantizer.parameter_gradients(parameters, sums);
        for i in 0..2 {
            parameters[i] -= RATE * gradients[i];
        }
        parameters = quantizer.project(parameters);
        let grid = quantizer.grid(parameters);
        let error = samples
            .iter()
            .map(|x| f64::from(grid.forward(*x) - x).powi(2))
            .sum::<f64>();
        descent.errors.push(error / SAMPLES as f64 / 2.0);
        descent.bits.push(grid.bits);
        descent.plane.push(quantizer.raw_step_and_range(parameters));
    }
    descent
}

/// What a panel of the toy shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum View {
    /// Error against steps.
    Steps,
    /// Error against bits.
    Bits,
    /// Where step size and range went, over the lines of equal bitwidth.
    Plane,
}

/// Panels of every parametrization in [`scenes`].
pub(crate) const VIEWS: usize = 3;

/// A row for every parametrization: error against steps, error against bits, and the plane of step size
/// and range.
pub fn scenes(descents: &[Descent]) -> Figure {
    let mut panels = Vec::new();
    for p in Parametrization::ALL {
        for view in [View::Steps, View::Bits, View::Plane] {
            let own = descents.iter().filter(|d| d.parametrization == p);
            panels.push(scene(p, own, view));
        }
    }
    Figure {
        panels,
        columns: VIEWS,
    }
}

fn scene<'a>(p: Parametrization, descents: impl Iterator<Item = &'a Descent>, view: View) -> Scene {
    let mut items = Vec::new();
    let mut last = 1.0f64;
    let axis = |label: &str, scale, range| Axis::new(label, scale, range);
    let uniform = p.family() == crate::quantizer::Family::Uniform;
    let ground = if uniform {
        ((-7f64).exp2(), 1.0)
    } else {
        ((-16f64).exp2(), 4.0)
    };
    let reach = (0.25, 16.0);
    if view == View::Plane {
        items.extend(figure::equal_bits(p, true, ground, reach));
    }
    for (i, descent) in descents.enumerate() {
        last = last.max(descent.errors.len() as f64);
        let errors = descent.errors.iter().enumerate();
        let points = match view {
            View::Steps => errors.map(|(s, e)| (s as f64, *e)).collect(),
            View::Bits => errors.map(|(s, e)| (descent.bits[s], *e)).collect(),
            View::Plane => descent.plane.clone(),
        };
        let (d, b) = descent.start;
        items.push(Item::Line(Line {
            label: format!("from {b} bits, d {d}"),
            ink: Ink::Series(i),
            dash: i,
            segments: vec![points],
            band: Vec::new(),
        }));
        if view == View::Plane
            && let Some(at) = descent.plane.last()
        {
            items.push(Item::Label(Label {
                at: *at,
                text: DOT.into(),
                ink: Ink::Series(i),
                place: Place::On,
            }));
        }
    }
    let error = || axis("error", Scale::Log10, (1e-5, 1.0));
    let step = if uniform { "step size d" } else { "q_min" };
    let (title, x, y) = match view {
        View::Steps => (
            format!("{p}: error over steps"),
            axis("step", Scale::Linear, (0.0, last)),
            error(),
        ),
        View::Bits => (
            format!("{p}: error over bits"),
            axis("bits", Scale::Linear, (1.5, 8.5)),
            error(),
        ),
        View::Plane => (
            format!("{p}: {step} and range"),
            axis(step, Scale::Log2, ground),
            axis("range q_max", Scale::Log2, reach),
        ),
    };
    Scene::new(title, x, y, items, "no steps")
}

/// `bitscope toy`.
pub(crate) fn command(output: &Path, steps: usize, json: bool) -> Result<u8, CliError> {
    if steps == 0 {
        return Err(CliError::Usage(
            "--steps 0; expected at least one step".into(),
        ));
    }
    let descents = descend_all(steps);
    figure::export(
        &scenes(&descents),
        output,
        Theme::Light,
        Format::pixels(1650, 2700),
        &[],
    )
    .map_err(|e| CliError::Failed(e.to_string()))?;
    if json {
        let rows: Vec<_> = descents
            .iter()
            .map(|d| {
                json!({
                    "parametrization": d.parametrization, "spread": d.spread(),
                    "error": d.errors.last(), "bits": d.bits.last(),
                })
            })
            .collect();
        return print(&format!("{}\n", json!({ "runs": rows }))).map(|()| 0);
    }
    let mut out = format!(
        "{:<16} {:>12} {:>12} {:>5}\n",
        "parametrization", "last error", "spread", "bits"
    );
    for d in &descents {
        let (error, bits) = (d.errors[steps - 1], d.bits[steps - 1]);
        out += &format!(
            "{:<16} {error:>12.3e} {:>12.3e} {bits:>5}\n",
            d.parametrization.to_string(),
            d.spread()
        );
    }
    print(&out)?;
    Ok(0)
}
