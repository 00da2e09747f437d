//! Quantities over steps: axes, lines, marks.

use super::super::scene::{Axis, Guide, Ink, Item, Line, Scale, Scene, VerticalMark};
use super::{Builder, XUnit};
use crate::run::{Bucket, Mark, MarkKind, Quantity, Series};

/// A series to be drawn.
pub(super) struct Drawn<'a> {
    pub label: &'a str,
    pub series: &'a Series,
    pub ink: Ink,
    pub dash: usize,
    /// Whether it follows the view's smoothing.
    pub smooth: bool,
    /// Weight of the past at least: of what is nothing but noise from step to step.
    pub least: f64,
    /// Factor on the values (100 for percent).
    pub factor: f64,
}

impl Builder<'_> {
    /// Visible steps.
    pub(super) fn x_range(&self) -> (f64, f64) {
        let last = self.history.step().max(1) as f64;
        self.view.x_range.unwrap_or((0.0, last))
    }

    /// A step in the unit of the x axis.
    pub(super) fn x(&self, step: f64) -> f64 {
        let h = self.history;
        match self.view.x_unit {
            XUnit::Step => step,
            XUnit::Epoch => self.paced(step, &h[Quantity::Epochs]),
            // An epoch shows every sample once, whatever the batch is now.
            XUnit::Samples => {
                let epoch = h.steps_per_epoch.max(1) * h.batch.max(1);
                self.paced(step, &h[Quantity::Epochs]) * epoch as f64
            }
            XUnit::Seconds => self.paced(step, &h[Quantity::Seconds]),
        }
    }

    /// The last step at or before `x`, and the first one at or behind it.
    pub(super) fn steps_around(&self, x: f64) -> [f64; 2] {
        if self.view.x_unit == XUnit::Step {
            return [x.max(0.0); 2];
        }
        if x <= self.x(0.0) {
            return [0.0; 2];
        }
        let (mut low, mut high) = (0, 1 + self.history.step());
        while self.x(high as f64) < x && high < 1 << 40 {
            (low, high) = (high, high * 2);
        }
        while high - low > 1 {
            let middle = low.midpoint(high);
            if self.x(middle as f64) < x {
                low = middle;
            } else {
                high = middle;
            }
        }
        let at_high = self.x(high as f64) <= x;
        [if at_high { high } else { low } as f64, high as f64]
    }

    /// What a series that grows with the run says at a step: before its first record and behind its
    /// last the pace of the run goes on.
    fn paced(&self, step: f64, series: &Series) -> f64 {
        let Some((first, last)) = series.extent() else {
            return step / self.history.steps_per_epoch.max(1) as f64;
        };
        let at = |s: u64| series.near(s).map_or(0.0, f64::from);
        let (first, last) = (first as f64, last as f64);
        let (begin, end) = (at(first as u64), at(last as u64));
        let pace = match last > first {
            true => (end - begin) / (last - first),
            false => end / last.max(1.0),
        };
        if step > last {
            end + (step - last) * pace
        } else if step < first {
            // (A fork begins behind the epochs in float that its parent had.)
            begin - (first - step) * pace
        } else {
            at(step as u64)
        }
    }

    pub(super) fn x_axis(&self) -> Axis {
        let (low, high) = self.x_range();
        Axis {
            label: self.view.x_unit.label().into(),
            scale: Scale::Linear,
            range: (self.x(low), self.x(high)),
            ticks: None,
        }
    }

    pub(super) fn line(&self, drawn: &Drawn<'_>) -> Line {
        let (from, to) = self.x_range();
        let from_step = from.max(0.0) as u64;
        let to_step = to.max(0.0).ceil() as u64;
        // One to four buckets for a column of dots resolve what the plot can show.
        let most = (self.view.resolution * 4).max(16);
        let beta = if drawn.smooth {
            self.view.smoothing.max(drawn.least)
        } else {
            0.0
        };
        let mut segments: Vec<Vec<(f64, f64)>> = vec![Vec::new()];
        let mut band = Vec::new();
        let (mut average, mut weight) = (0.0, 0.0);
        // Where the view begins with the quantizers, a bucket that reaches back into the float phase is
        // of neither.
        let begins = |m: &Mark| m.kind == MarkKind::Quantized && m.step + 1 == from_step;
        let begins = self.history.marks.iter().any(begins);
        let straddles = move |b: &Bucket| begins && u64::from(b.first) < from_step;
        let buckets = drawn.series.range(from_step, to_step, most).copied();
        let buckets = buckets.filter(move |b| !straddles(b));
        // Half a column of the terminal: finer detail would be painted over itself.
        let width = (to - from) / self.view.resolution.max(1) as f64;
        for bucket in columns(buckets, from, width) {
            if bucket.breaks() {
                segments.push(Vec::new());
                (average, weight) = (0.0, 0.0);
            }
            let x = self.x((f64::from(bucket.first) + f64::from(bucket.last)) / 2.0);
            let mean = f64::from(bucket.mean) * drawn.factor;
            let y = if beta > 0.0 {
                // Debiased: divided by the weight collected so far, a start does not lean to zero.
                let keep = beta.powi(bucket.count().min(1 << 20) as i32);
                average = average * keep + mean * (1.0 - keep);
                weight = weight * keep + (1.0 - keep);
                if weight > 0.0 { average / weight } else { mean }
            } else {
                mean
            };
            if let Some(segment) = segments.last_mut() {
                segment.push((x, y));
            }
            let (low, high) = (f64::from(bucket.min), f64::from(bucket.max));
            if beta > 0.0 || bucket.count() > 1 {
                band.push((x, low * drawn.factor, high * drawn.factor));
            }
        }
        segments.retain(|s| !s.is_empty());
        Line {
            label: self.reading(drawn),
            ink: drawn.ink,
            dash: drawn.dash,
            segments,
            band,
        }
    }

    /// The label, with the value at the cursor and its difference from the second one.
    pub(super) fn reading(&self, drawn: &Drawn<'_>) -> String {
        let at = |cursor: f64| {
            let value = drawn.series.at(cursor.max(0.0) as u64)?;
            Some(f64::from(value) * drawn.factor)
        };
        let Some(value) = self
            .view
            .cursor
            .and_then(at)
            .filter(|_| !drawn.label.is_empty())
        else {
            return drawn.label.into();
        };
        match self.view.second.and_then(at) {
            Some(from) => format!("{} {value:.4} (Δ {:+.4})", drawn.label, value - from),
            None => format!("{} {value:.4}", drawn.label),
        }
    }

    /// A scene of lines over steps.
    pub(super) fn scene(
        &self,
        title: String,
        y_label: &str,
        scale: Scale,
        lines: Vec<Line>,
        guides: Vec<Guide>,
    ) -> Scene {
        let y = self.y_axis(y_label, scale, &lines, &guides);
        let marks = self.history.marks.iter().map(|mark| VerticalMark {
            x: self.x(mark.step as f64),
            letter: match mark.kind {
                MarkKind::Applied => '▲',
                MarkKind::Checkpoint => '·',
                MarkKind::Quantized => 'Q',
                MarkKind::NonFinite => '!',
            },
            label: mark.label.clone(),
        });
        Scene {
            title,
            x: self.x_axis(),
            y,
            items: lines.into_iter().map(Item::Line).collect(),
            marks: marks.collect(),
            guides,
            cursor: self.view.cursor.map(|c| self.x(c)),
            second: self.view.second.map(|c| self.x(c)),
            empty: "no data yet".into(),
        }
    }

    pub(super) fn y_axis(
        &self,
        label: &str,
        scale: Scale,
        lines: &[Line],
        guides: &[Guide],
    ) -> Axis {
        let positive = scale != Scale::Linear;
        let inside = self.x_axis().range;
        let mut range = (f64::INFINITY, f64::NEG_INFINITY);
        let mut take = |v: f64| {
            if v.is_finite() && (!positive || v > 0.0) {
                range = (range.0.min(v), range.1.max(v));
            }
        };
        for line in lines {
            let visible = |x: f64| x >= inside.0 && x <= inside.1;
            line.segments
                .iter()
                .flatten()
                .filter(|p| visible(p.0))
                .for_each(|p| take(p.1));
            if self.view.smoothing == 0.0 {
                for (_, low, high) in line.band.iter().filter(|b| visible(b.0)) {
                    take(*low);
                    take(*high);
                }
            }
        }
        guides.iter().for_each(|g| take(g.y));
        if range.0 > range.1 {
            range = if positive { (0.1, 1.0) } else { (0.0, 1.0) };
        }
        let forward = |v: f64| scale.forward(v).unwrap_or(0.0);
        let (low, high) = (forward(range.0), forward(range.1));
        let span = if high > low {
            high - low
        } else {
            low.abs().max(1.0) * 0.2
        };
        let half = span * 0.52 * self.view.y_zoom;
        let middle = (low + high) / 2.0;
        // Outwards to a grid of about a twentieth of the span: the axis moves rarely, not with
        // every new extreme.
        let lot = (span * self.view.y_zoom).log2().floor().exp2() / 16.0;
        let (bottom, top) = (
            ((middle - half) / lot).floor() * lot,
            ((middle + half) / lot).ceil() * lot,
        );
        let mut range = (scale.inverse(bottom), scale.inverse(top));
        // Quantities that cannot be negative do not show negative ground.
        if !positive && low >= 0.0 && range.0 < 0.0 {
            range.0 = 0.0;
        }
        Axis {
            label: label.into(),
            scale,
            range,
            ticks: None,
        }
    }

    pub(super) fn linear_or_log(&self) -> Scale {
        if self.view.log_y {
            Scale::Log10
        } else {
            Scale::Linear
        }
    }
}

/// Merges buckets that fall into the same column of `width` steps, counted from `from`.
fn columns(
    buckets: impl Iterator<Item = Bucket>,
    from: f64,
    width: f64,
) -> impl Iterator<Item = Bucket> {
    // What lies before the first column is one of its own. (A cast, since rounding down is a call.)
    let column = move |b: &Bucket| {
        let at = (f64::from(b.last) - from) / width;
        if at < 0.0 { -1 } else { at as i64 }
    };
    let mut buckets = buckets.peekable();
    std::iter::from_fn(move || {
        let mut merged = buckets.next()?;
        let own = column(&merged);
        while let Some(next) = buckets.next_if(|b| !b.breaks() && column(b) == own) {
            merged.absorb(&next);
        }
        Some(merged)
    })
}
