//! A series of numbers over steps with several levels of detail.
//!
//! Level 0 holds the newest points one by one; each level above holds buckets of four of the level
//! below. Every level keeps a bounded number of buckets, and the top one reaches back to the first
//! point, so memory grows with the logarithm of the length and the cost of a plot with its width.
//! Minimum and maximum survive in every bucket: no spike vanishes.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

/// Buckets that a level keeps. A multiple of [`FACTOR`].
const KEEP: usize = 2048;
/// Buckets of one level that make one of the next.
const FACTOR: usize = 4;
/// Buckets of the top level at most: where hundreds of layers share a plot, each is drawn with few.
const TOP: usize = 128;

/// One or more neighbouring points.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Bucket {
    /// Step of the first point.
    pub first: u32,
    /// Step of the last point.
    pub last: u32,
    /// Smallest value.
    pub min: f32,
    /// Largest value.
    pub max: f32,
    /// Mean value.
    pub mean: f32,
    /// Value of the last point.
    pub end: f32,
    /// Number of points; the top bit says that the line breaks before this bucket.
    count: u32,
}

const BREAK: u32 = 1 << 31;

impl Bucket {
    fn point(step: u32, value: f32, breaks: bool) -> Self {
        let count = 1 | if breaks { BREAK } else { 0 };
        Self {
            first: step,
            last: step,
            min: value,
            max: value,
            mean: value,
            end: value,
            count,
        }
    }

    /// Number of points.
    pub fn count(&self) -> u32 {
        self.count & !BREAK
    }

    /// Whether the line breaks before it: a non-finite value or a restart lies between.
    pub fn breaks(&self) -> bool {
        self.count & BREAK != 0
    }

    /// Takes in the bucket that follows.
    pub fn absorb(&mut self, other: &Self) {
        let (n, m) = (self.count() as f32, other.count() as f32);
        self.last = other.last;
        self.min = self.min.min(other.min);
        self.max = self.max.max(other.max);
        self.mean += (other.mean - self.mean) * (m / (n + m));
        self.end = other.end;
        self.count += other.count();
    }
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct Level {
    #[serde(with = "packed")]
    buckets: VecDeque<Bucket>,
    /// Buckets of the level below in the newest bucket.
    filled: usize,
    /// Whether buckets were dropped: then the level no longer reaches the first point.
    dropped: bool,
}

/// Buckets as bytes: a summary holds a million of them.
mod packed {
    use std::collections::VecDeque;

    use serde::de::{Error, Visitor};
    use serde::{Deserializer, Serializer};

    use super::Bucket;

    /// Bytes of one bucket: seven numbers, little endian.
    const BYTES: usize = 28;

    pub fn serialize<S: Serializer>(
        buckets: &VecDeque<Bucket>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        let mut bytes = Vec::with_capacity(buckets.len() * BYTES);
        for b in buckets {
            let [min, max, mean, end] = [b.min, b.max, b.mean, b.end].map(f32::to_bits);
            for number in [b.first, b.last, b.count, min, max, mean, end] {
                bytes.extend(number.to_le_bytes());
            }
        }
        serializer.serialize_bytes(&bytes)
    }

    struct Bytes;

    impl Visitor<'_> for Bytes {
        type Value = VecDeque<Bucket>;

        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("packed buckets")
        }

        fn visit_bytes<E: Error>(self, bytes: &[u8]) -> Result<Self::Value, E> {
            let (chunks, rest) = bytes.as_chunks::<BYTES>();
            if !rest.is_empty() {
                return Err(E::invalid_length(bytes.len(), &self));
            }
            let of = |chunk: &[u8; BYTES]| {
                let [first, last, count, min, max, mean, end] = std::array::from_fn(|i| {
                    let [a, b, c, d] = std::array::from_fn(|j| chunk[4 * i + j]);
                    u32::from_le_bytes([a, b, c, d])
                });
                let [min, max, mean, end] = [min, max, mean, end].map(f32::from_bits);
                Bucket {
                    first,
                    last,
                    min,
                    max,
                    mean,
                    end,
                    count,
                }
            };
            Ok(chunks.iter().map(of).collect())
        }
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<VecDeque<Bucket>, D::Error> {
        deserializer.deserialize_bytes(Bytes)
    }
}

impl Level {
    /// Adds a bucket of the level below.
    fn push(&mut self, bucket: Bucket, merge: bool) {
        // A break starts a bucket of its own, so that no bucket spans it.
        let full = self.filled == 0 || self.filled == FACTOR || !merge || bucket.breaks();
        match self.buckets.back_mut() {
            Some(newest) if !full => {
                newest.absorb(&bucket);
                self.filled += 1;
            }
            _ => {
                self.append(bucket);
                self.filled = 1;
            }
        }
    }
}

/// Values over steps. Steps ascend; a step that does not is taken as a restart.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Series {
    levels: Vec<Level>,
    breaks: bool,
    len: u64,
    /// Stretches that are held point by point, besides.
    #[serde(skip)]
    pinned: Vec<Pinned>,
}

/// Points of some steps that a level holds in larger buckets.
#[derive(Debug, Clone)]
struct Pinned {
    steps: (u64, u64),
    points: Vec<(u32, f32)>,
}

/// Stretches that are pinned at most: around two cursors, and where they were before.
const PINNED: usize = 4;

impl Series {
    /// Adds a point. A non-finite value is not stored: the line breaks there.
    pub fn push(&mut self, step: u64, value: f32) {
        if !value.is_finite() {
            self.breaks = true;
            return;
        }
        let step = u32::try_from(step).unwrap_or(u32::MAX);
        if self.last().is_some_and(|b| b.last > step) {
            self.truncate(step);
        }
        let point = Bucket::point(step, value, std::mem::take(&mut self.breaks));
        self.len += 1;
        if self.levels.is_empty() {
            self.levels.push(Level::default());
        }
        for (i, level) in self.levels.iter_mut().enumerate() {
            // Every level takes the point itself: a bucket is full after FACTOR^i points.
            if i == 0 {
                level.push(point, false);
            } else {
                level.push_point(point, i);
            }
        }
        self.trim();
    }

    /// The line breaks after the newest point (a restart).
    pub fn break_line(&mut self) {
        self.breaks = true;
    }

    /// Number of points pushed.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether nothing was pushed.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The newest point.
    pub fn last(&self) -> Option<&Bucket> {
        self.levels.first()?.buckets.back()
    }

    /// Value of the newest point.
    pub fn newest(&self) -> Option<f32> {
        self.last().map(|b| b.end)
    }

    /// The value at the newest point whose step is at most `step`; `None` also where memory holds but
    /// the mean of points on both sides of it, until they are [pinned](Self::pin).
    pub fn at(&self, step: u64) -> Option<f32> {
        let bucket = self.bucket(step)?;
        if u64::from(bucket.last) <= step {
            return Some(bucket.end);
        }
        let covers = |p: &&Pinned| p.steps.0 <= step && step <= p.steps.1;
        self.pinned.iter().filter(covers).find_map(|pinned| {
            let after = pinned.points.partition_point(|p| u64::from(p.0) <= step);
            Some(pinned.points.get(after.checked_sub(1)?)?.1)
        })
    }

    /// The value near a step: of its newest point, or the mean of some around it.
    pub fn near(&self, step: u64) -> Option<f32> {
        let bucket = self.bucket(step)?;
        Some(if u64::from(bucket.last) <= step {
            bucket.end
        } else {
            bucket.mean
        })
    }

    /// The finest bucket that begins at or before a step.
    fn bucket(&self, step: u64) -> Option<&Bucket> {
        self.levels.iter().find_map(|level| {
            let after = level
                .buckets
                .partition_point(|b| u64::from(b.first) <= step);
            level.buckets.get(after.checked_sub(1)?)
        })
    }

    /// Holds the points of another series, of these steps of the same run, besides.
    pub fn pin(&mut self, steps: (u64, u64), of: &Self) {
        let points = of.levels.first().into_iter().flat_map(|l| &l.buckets);
        let points = points
            .filter(|b| (steps.0..=steps.1).contains(&b.last.into()))
            .map(|b| (b.last, b.end))
            .collect();
        self.pinned.retain(|p| p.steps != steps);
        if self.pinned.len() == PINNED {
            self.pinned.remove(0);
        }
        self.pinned.push(Pinned { steps, points });
    }

    /// Steps of the first and the newest point.
    pub fn extent(&self) -> Option<(u64, u64)> {
        let first = self.levels.last()?.buckets.front()?.first;
        Some((first.into(), self.last()?.last.into()))
    }

    /// Buckets that overlap `[from, to]`, with one neighbour on either side so that lines leave the
    /// plot: the finest level that reaches back to `from` with at most `most` buckets.
    pub fn range(&self, from: u64, to: u64, most: usize) -> impl Iterator<Item = &Bucket> + '_ {
        let mut chosen = None;
        for level in &self.levels {
            let covers = level
                .buckets
                .front()
                .is_some_and(|b| u64::from(b.first) <= from);
            let start = level.buckets.partition_point(|b| u64::from(b.last) < from);
            let end = level.buckets.partition_point(|b| u64::from(b.first) <= to);
            let start = start.saturating_sub(1);
            let end = (end + 1).min(level.buckets.len());
            chosen = Some((level, start, end));
            if (covers || !level.dropped) && end - start <= most.max(2) {
                break;
            }
        }
        chosen
            .into_iter()
            .flat_map(|(level, start, end)| level.buckets.range(start..end.max(start)))
    }

    /// Bytes in use, for the benchmark.
    pub fn bytes(&self) -> usize {
        let buckets: usize = self.levels.iter().map(|l| l.buckets.capacity()).sum();
        buckets * size_of::<Bucket>() + size_of::<Self>()
    }

    fn truncate(&mut self, step: u32) {
        self.pinned.retain(|p| p.steps.1 < step.into());
        for level in &mut self.levels {
            while level.buckets.back().is_some_and(|b| b.first >= step) {
                level.buckets.pop_back();
            }
            level.filled = 0;
        }
        self.breaks = true;
    }

    fn trim(&mut self) {
        if let Some(top) = self.levels.last().filter(|l| l.buckets.len() > TOP) {
            self.levels.push(Level::summary(top));
        }
        for i in 0..self.levels.len() {
            if self.levels[i].buckets.len() <= KEEP {
                continue;
            }
            // Drop in lots: the front moves rarely.
            let level = &mut self.levels[i];
            level.buckets.drain(..KEEP / 4);
            level.dropped = true;
        }
    }
}

impl Level {
    /// Adds a point to a level whose buckets hold `FACTOR^i` points.
    fn push_point(&mut self, point: Bucket, i: usize) {
        let full = self
            .buckets
            .back()
            .is_none_or(|b| b.count() as usize >= FACTOR.pow(i as u32));
        if full || point.breaks() || self.filled == 0 {
            self.append(point);
            self.filled = 1;
        } else if let Some(newest) = self.buckets.back_mut() {
            newest.absorb(&point);
        }
    }

    /// Appends a bucket; capacity doubles up to what a level keeps and no further.
    fn append(&mut self, bucket: Bucket) {
        let length = self.buckets.len();
        if length == self.buckets.capacity() {
            self.buckets
                .reserve_exact(length.clamp(16, (KEEP + 1).saturating_sub(length).max(16)));
        }
        self.buckets.push_back(bucket);
    }

    /// A level above this one that holds all of it.
    fn summary(below: &Self) -> Self {
        let mut level = Self::default();
        for bucket in &below.buckets {
            level.push(*bucket, true);
        }
        // The next point must not join a bucket that was cut short.
        level.filled = 1;
        level
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn every_extreme_is_in_a_bucket(
            count in 1usize..40_000,
            spikes in prop::collection::vec((0usize..40_000, -1e6..1e6f32), 0..5),
            most in 2usize..600,
        ) {
            let mut values: Vec<f32> = (0..count).map(|i| (i as f32 * 0.01).sin()).collect();
            for (at, height) in spikes {
                values[at % count] = height;
            }
            let mut series = Series::default();
            for (step, value) in values.iter().enumerate() {
                series.push(step as u64, *value);
            }
            let all: Vec<&Bucket> = series.range(0, count as u64, most).collect();
            let low = all.iter().map(|b| b.min).fold(f32::MAX, f32::min);
            let high = all.iter().map(|b| b.max).fold(f32::MIN, f32::max);
            prop_assert_eq!(low, values.iter().copied().fold(f32::MAX, f32::min));
            prop_assert_eq!(high, values.iter().copied().fold(f32::MIN, f32::max));
            let points: u32 = all.iter().map(|b| b.count()).sum();
            prop_assert_eq!(points as usize, count);
            prop_assert!(all.windows(2).all(|w| w[0].last < w[1].first));
            prop_assert_eq!(series.newest(), values.last().copied());
        }
    }

    #[test]
    fn non_finite_values_break_the_line_and_are_not_stored() {
        let mut series = Series::default();
        for (step, value) in [1.0, 2.0, f32::NAN, f32::INFINITY, 3.0]
            .into_iter()
            .enumerate()
        {
            series.push(step as u64, value);
        }
        let breaks: Vec<bool> = series.range(0, 10, 100).map(Bucket::breaks).collect();
        assert_eq!(breaks, [false, false, true]);
        assert_eq!(series.extent(), Some((0, 4)));
        let mut nothing = Series::default();
        nothing.push(0, f32::NAN);
        assert!(nothing.is_empty() && nothing.range(0, 9, 9).next().is_none());
    }

    #[test]
    fn memory_grows_with_the_logarithm() {
        let mut series = Series::default();
        for step in 0..1_000_000u64 {
            series.push(step, step as f32);
        }
        // 200 of them must stay under 100 MB.
        assert!(series.bytes() < 500_000, "{} bytes", series.bytes());
        // The top level is never coarser than it needs to be: a whole run is at most `KEEP` buckets.
        assert!(series.range(0, 1_000_000, 800).count() <= KEEP);
        assert_eq!(series.range(999_990, 999_999, 800).count(), 11);
    }

    #[test]
    fn a_step_back_is_a_restart() {
        let mut series = Series::default();
        for step in 0..100u64 {
            series.push(step, 1.0);
        }
        series.push(50, 2.0);
        assert_eq!(series.extent(), Some((0, 50)));
        assert!(series.last().is_some_and(Bucket::breaks));
    }
}
