//! The plane of step size and range over the lines of equal bitwidth.

use super::super::scene::{Axis, DOT, Ink, Item, Label, Line, Place, Scale, Scene};
use super::Builder;
use crate::quantizer::memory::{Role, Side};
use crate::quantizer::{Family, Learn, Parametrization, code_count, dynamic, largest_level};
use crate::run::{LayerHistory, LayerInfo, LayerQuantity, LayerRecord};

/// Unbroken runs of points.
type Segments = Vec<Vec<(f64, f64)>>;

impl Builder<'_> {
    /// Trajectories of (step size, range): panel 0 weights and biases, panel 1 activations.
    pub(super) fn plane(&self, side: Side) -> Scene {
        let mut layers = self.visible_layers();
        layers.retain(|(_, l)| l.info.role.side() == side);
        layers.sort_by_key(|(i, _)| Some(*i) == self.view.selected);
        let (of, signed) = kind_of_most(&layers, side);
        let uniform = of.family() == Family::Uniform;
        let paths: Vec<(usize, Segments)> = layers
            .iter()
            .map(|(i, layer)| (*i, self.trajectory(layer)))
            .collect();
        let points = || paths.iter().flat_map(|p| p.1.iter().flatten());
        let range = |of: fn(&(f64, f64)) -> f64| {
            let (low, high) = points()
                .map(of)
                .fold((f64::MAX, 0.0f64), |r, v| (r.0.min(v), r.1.max(v)));
            if low > high {
                (0.125, 1.0)
            } else {
                // An octave of ground on either side, whole octaves.
                (
                    (low.log2().floor() - 1.0).exp2(),
                    (high.log2().ceil() + 1.0).exp2(),
                )
            }
        };
        let (x, y) = (range(|p| p.0), range(|p| p.1));
        let mut items = Vec::new();
        if !paths.iter().all(|p| p.1.is_empty()) {
            items.extend(boundaries(of, signed, x, y));
            if let [(_, layer)] = layers[..] {
                items.push(Item::Line(clamp_box(layer.info.clamps)));
            }
        }
        let inks = self.layer_inks();
        let mut dots = Vec::new();
        let mut names = Vec::new();
        for (i, segments) in paths {
            let layer = &self.history.layers[i];
            let now = segments.last().and_then(|s| s.last()).copied();
            let ink = inks[i];
            if segments.is_empty() {
                continue;
            }
            items.push(Item::Line(Line {
                // (Its name stands at its dot.)
                label: String::new(),
                ink,
                dash: 0,
                segments,
                band: Vec::new(),
            }));
            let Some(at) = now else { continue };
            if let Some(arrow) = self.arrow(layer, at, x, y) {
                items.push(Item::Line(Line {
                    label: String::new(),
                    ink,
                    dash: 0,
                    segments: arrow,
                    band: Vec::new(),
                }));
            }
            let label = |text: &str, place| {
                Item::Label(Label {
                    at,
                    text: text.into(),
                    ink,
                    place,
                })
            };
            dots.push(label(DOT, Place::On));
            names.push(label(&layer.info.name, Place::Beside));
        }
        // The chosen layer's name takes its place first.
        names.reverse();
        items.extend(dots.into_iter().chain(names));
        let axis = |label: &str, range| Axis {
            label: label.into(),
            scale: Scale::Log2,
            range,
            ticks: None,
        };
        let step = if uniform { "step size d" } else { "q_min" };
        let mut used = Vec::new();
        if !layers.is_empty() && is_inferred(of) {
            used.push("stairs: rounded to powers of two");
        }
        let others = |(_, l): &(usize, &LayerHistory)| is_signed(l) != signed;
        // (The power-of-two quantizer's sign costs no range.)
        if uniform && layers.iter().any(others) {
            used.push(match signed {
                true => "bits of signed quantizers; others have one less",
                false => "bits of unsigned quantizers; signed ones have one more",
            });
        }
        let used = match &used[..] {
            [] => String::new(),
            notes => format!(" ({})", notes.join("; ")),
        };
        Scene {
            title: format!("plane of {step} and range, {}", side.word()),
            x: axis(&format!("{step}{used}"), x),
            y: axis("range q_max", y),
            items,
            marks: Vec::new(),
            guides: Vec::new(),
            cursor: None,
            second: None,
            empty: self.no_quantizers(),
        }
    }

    /// The trajectories alone, without what the plane's own run has around them.
    pub(super) fn paths(&self, side: Side) -> Vec<Item> {
        let inks = self.layer_inks();
        let layers = self.visible_layers().into_iter();
        let of_side = layers.filter(|(_, l)| l.info.role.side() == side);
        let path = |(i, layer)| {
            Item::Line(Line {
                label: String::new(),
                ink: inks[i],
                dash: 0,
                segments: self.trajectory(layer),
                band: Vec::new(),
            })
        };
        of_side.map(path).collect()
    }

    /// Where a quantizer has been: up to the cursor, or up to now.
    pub(super) fn trajectory(&self, layer: &LayerHistory) -> Segments {
        let (from, to) = self.x_range();
        let to = self.view.cursor.unwrap_or(to).max(0.0) as u64;
        // Where many layers share the plane, none needs so many points.
        let layers = self.history.layers.len();
        let most = (self.view.resolution * 2 / (1 + layers / 4)).max(16);
        let steps = layer[LayerQuantity::StepSize].range(from.max(0.0) as u64, to, most);
        let ranges = layer[LayerQuantity::Range].range(from.max(0.0) as u64, to, most);
        // Both are recorded at the same steps, so their buckets match.
        let pairs: Vec<_> = steps
            .zip(ranges)
            .filter(|(d, _)| u64::from(d.first) <= to)
            .collect();
        let stride = pairs.len().div_ceil(most).max(1);
        let mut segments = Segments::new();
        for (i, (d, q)) in pairs.iter().enumerate() {
            if segments.is_empty() || d.breaks() {
                segments.push(Vec::new());
            }
            let is_kept = i % stride == 0 || i + 1 == pairs.len();
            if let Some(segment) = segments.last_mut().filter(|_| is_kept) {
                segment.push((d.end.into(), q.end.into()));
            }
        }
        segments.retain(|s| !s.is_empty());
        segments
    }

    /// The negative gradient at the newest record, as seen in the plane: an arrow a tenth of it long.
    pub(super) fn arrow(
        &self,
        layer: &LayerHistory,
        at: (f64, f64),
        x: (f64, f64),
        y: (f64, f64),
    ) -> Option<Segments> {
        // The newest gradient belongs at the newest place, not where an older view ends.
        let is_now = self.view.cursor.is_none() && self.x_range().1 >= self.history.step() as f64;
        // What does not learn does not follow its gradient.
        let quantizer = layer.info.quantizer.as_ref();
        let learns = quantizer.is_none_or(|q| q.learn != Learn::None);
        let newest = layer.newest.as_ref().filter(|_| is_now && learns)?;
        let (u, v) = log_descent(&layer.info, newest, is_signed(layer))?;
        let spans = ((x.1 / x.0).log2(), (y.1 / y.0).log2());
        // Lengths as seen: each axis has its own scale.
        let length = ((u / spans.0).powi(2) + (v / spans.1).powi(2)).sqrt();
        if !(length.is_finite() && length > 0.0) {
            return None;
        }
        let (u, v) = (u / length * 0.1, v / length * 0.1);
        let to = |along: f64, aside: f64| {
            let (dx, dy) = (
                u * along - v * spans.0 / spans.1 * aside,
                v * along + u * spans.1 / spans.0 * aside,
            );
            (at.0 * dx.exp2(), at.1 * dy.exp2())
        };
        let tip = to(1.0, 0.0);
        Some(vec![vec![at, tip], vec![to(0.7, 0.2), tip, to(0.7, -0.2)]])
    }
}

/// Whether a layer's quantizer has negative levels.
fn is_signed(layer: &LayerHistory) -> bool {
    let quantizer = layer.info.quantizer.as_ref();
    quantizer.map_or(layer.info.role != Role::Activation, |q| q.signed)
}

/// Parametrization and sign that most of the layers have: those that the plane's lines are of.
fn kind_of_most(layers: &[(usize, &LayerHistory)], side: Side) -> (Parametrization, bool) {
    let kinds = Parametrization::ALL
        .into_iter()
        .flat_map(|p| [(p, false), (p, true)]);
    let count = |kind: &(Parametrization, bool)| {
        let same = |l: &LayerHistory| (l.info.parametrization, is_signed(l)) == *kind;
        layers.iter().filter(|(_, l)| same(l)).count()
    };
    let none = (Parametrization::U3, side == Side::Weights);
    let most = kinds.max_by_key(count).filter(|kind| count(kind) > 0);
    most.unwrap_or(none)
}

/// Whether the bitwidth follows from step size and range, instead of being a parameter.
fn is_inferred(parametrization: Parametrization) -> bool {
    matches!(parametrization, Parametrization::U3 | Parametrization::P3)
}

/// Lines of equal bitwidth with their numbers: below each, that many bits suffice.
///
/// Where the bitwidth is inferred they are stairs: `d` (and `q_min`, `q_max` of the power-of-two
/// quantizer) is rounded to a power of two before the bitwidth follows from it, so the boundary is level
/// over an octave and rises where `d` rounds to the next. Where the bitwidth is a parameter, the range is
/// the step size times a number of levels, rounded or not: straight lines.
pub fn boundaries(of: Parametrization, signed: bool, x: (f64, f64), y: (f64, f64)) -> Vec<Item> {
    let mut items = Vec::new();
    let uniform = of.family() == Family::Uniform;
    for bits in 1..=8 {
        let bits = f64::from(bits);
        let ratio = if uniform {
            largest_level(signed, bits)
        } else {
            dynamic(bits)
        };
        if ratio <= 0.0 || !ratio.is_finite() {
            continue;
        }
        let (left, right) = (x.0.max(y.0 / ratio), x.1.min(y.1 / ratio));
        if left >= right {
            continue;
        }
        if is_inferred(of) {
            // A range that rounds reaches half an octave further.
            let reach = if uniform {
                ratio
            } else {
                ratio * 0.5f64.exp2()
            };
            items.extend(stairs(reach, bits, x, y));
            continue;
        }
        items.push(Item::Line(Line {
            label: String::new(),
            ink: Ink::Muted,
            dash: 2,
            segments: vec![vec![(left, left * ratio), (right, right * ratio)]],
            band: Vec::new(),
        }));
        // Inside, near the upper end: numbers at the very edge would fall off.
        let place = (left.log2() * 0.12 + right.log2() * 0.88).exp2();
        items.push(Item::Label(Label {
            at: (place, place * ratio),
            text: format!("{bits}b"),
            ink: Ink::Muted,
            place: Place::Beside,
        }));
    }
    items
}

/// The stairs of one bitwidth: `q_max` of `reach` times the power of two that `d` rounds to.
fn stairs(reach: f64, bits: f64, x: (f64, f64), y: (f64, f64)) -> Vec<Item> {
    let (first, last) = (x.0.log2().round() as i32, x.1.log2().round() as i32);
    let mut points = Vec::new();
    let mut places = Vec::new();
    for octave in first..=last {
        let octave = f64::from(octave);
        let level = reach * octave.exp2();
        if level < y.0 || level > y.1 {
            continue;
        }
        let from = (octave - 0.5).exp2().max(x.0);
        let to = (octave + 0.5).exp2().min(x.1);
        if from < to {
            points.extend([(from, level), (to, level)]);
            places.push(((from * to).sqrt(), level));
        }
    }
    // Near the upper end, and not beside the neighbour's.
    let last = places.len().saturating_sub(1 + bits as usize % 2);
    let Some(at) = places.get(last).copied() else {
        return Vec::new();
    };
    vec![
        Item::Line(Line {
            label: String::new(),
            ink: Ink::Muted,
            dash: 2,
            segments: vec![points],
            band: Vec::new(),
        }),
        Item::Label(Label {
            at,
            text: format!("{bits}b"),
            ink: Ink::Muted,
            place: Place::Beside,
        }),
    ]
}

fn clamp_box([d, q_max]: [[f64; 2]; 2]) -> Line {
    let corners = vec![
        (d[0], q_max[0]),
        (d[1], q_max[0]),
        (d[1], q_max[1]),
        (d[0], q_max[1]),
        (d[0], q_max[0]),
    ];
    Line {
        label: "clamps".into(),
        ink: Ink::Budget,
        dash: 1,
        segments: vec![corners],
        band: Vec::new(),
    }
}

/// Direction of the negative gradient in (log2 d or q_min, log2 q_max), straight through rounding.
fn log_descent(info: &LayerInfo, r: &LayerRecord, signed: bool) -> Option<(f64, f64)> {
    let [first, second] = r.gradients.map(|g| -f64::from(g));
    let (d, q, b) = (f64::from(r.d), f64::from(r.q_max), f64::from(r.bitwidth));
    let codes = code_count(signed, b);
    // d(log2 n)/db with n = codes - 1, and d(log2 ratio)/db with ratio = 2^(2^(b-1) - 1).
    let uniform = codes / (codes - 1.0).max(1.0);
    let octaves = (b - 1.0).exp2() * std::f64::consts::LN_2;
    let log = |change: f64, of: f64| change / (of * std::f64::consts::LN_2);
    let (u, v) = match info.parametrization {
        Parametrization::U3 | Parametrization::P3 => (log(first, d), log(second, q)),
        Parametrization::U1 => (log(second, d), log(second, d) + uniform * first),
        Parametrization::U2 => (log(second, q) - uniform * first, log(second, q)),
        Parametrization::P1 => (log(second, d), log(second, d) + octaves * first),
        Parametrization::P2 => (log(second, q) - octaves * first, log(second, q)),
    };
    (u.is_finite() && v.is_finite()).then_some((u, v))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::quantizer::{Quantizer, Rules};

    /// A point just below a stair has its bitwidth, one just above has the next: whatever `d` is before it
    /// is rounded.
    #[test]
    fn stairs_are_where_the_bitwidth_changes() {
        for (of, bits) in [(Parametrization::U3, 4.0), (Parametrization::P3, 4.0)] {
            let quantizer = Quantizer::learned(of, true, Rules::Paper);
            let ground = ((-6f64).exp2(), 1.0);
            let items = boundaries(of, true, ground, ((-6f64).exp2(), 64.0));
            let label =
                |item: &Item| matches!(item, Item::Label(l) if l.text == format!("{bits}b"));
            let place = items.iter().position(label).expect("drawn");
            let Item::Line(line) = &items[place - 1] else {
                panic!("a line before its label");
            };
            let mut seen = 0;
            for pair in line.segments[0].chunks(2) {
                let (from, to, level) = (pair[0].0, pair[1].0, pair[0].1);
                for share in [0.02, 0.5, 0.98] {
                    let d = from * (to / from).powf(share);
                    let at = |q_max: f64| quantizer.grid([d, q_max]).bits;
                    assert_eq!(at(level * 0.999), bits, "{of} below {level} at {d}");
                    assert_eq!(at(level * 1.001), bits + 1.0, "{of} above {level} at {d}");
                    seen += 1;
                }
            }
            assert!(seen >= 6, "{of}");
        }
    }
}
