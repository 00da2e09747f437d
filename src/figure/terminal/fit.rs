//! What fits: rows for bars, names cut to a width.

use std::collections::BTreeSet;

use unicode_width::UnicodeWidthStr;

use super::super::scene::Axis;

/// Rows of bars: whole rows for every bit where they fit, so that ticks are evenly spaced.
pub(super) struct BarRows {
    /// Rows for one bit.
    each: f64,
    most: f64,
}

impl BarRows {
    pub(super) fn new(axis: &Axis, height: u16) -> Self {
        let bits = axis.range.1.floor().max(1.0);
        let height = f64::from(height);
        let each = (height / bits).floor();
        Self {
            each: if each >= 1.0 { each } else { height / bits },
            most: height,
        }
    }

    /// Height of a bar in rows.
    pub(super) fn height(&self, value: f64) -> f64 {
        (value * self.each).clamp(0.0, self.most)
    }
}

/// Names with a part of their middle left out where they are too long: the part without which most of
/// them are still told apart.
pub(crate) fn cut_apart<'a>(
    names: impl Iterator<Item = &'a str> + Clone,
    width: usize,
) -> Vec<String> {
    if names.clone().all(|name| name.width() <= width) {
        return names.map(str::to_owned).collect();
    }
    let kept = width.saturating_sub(1);
    let half = kept / 2;
    let most = names.clone().collect::<BTreeSet<_>>().len();
    let cut = |front: usize| -> Vec<String> {
        let cut = names.clone().map(|name| cut_behind(name, width, front));
        cut.collect()
    };
    let distinct = |labels: &Vec<String>| labels.iter().collect::<BTreeSet<_>>().len();
    let mut fronts: Vec<usize> = (0..=kept).collect();
    fronts.sort_by_key(|front| front.abs_diff(half));
    let mut best = (0, Vec::new());
    for labels in fronts.into_iter().map(cut) {
        let told_apart = distinct(&labels);
        if best.1.is_empty() || told_apart > best.0 {
            best = (told_apart, labels);
        }
        if best.0 == most {
            break;
        }
    }
    best.1
}

/// A legend's entry in so many cells: its name gives way to what is read at the cursor, and the value to
/// its difference from the second one.
pub(super) fn cut_before_reading(label: &str, width: usize) -> String {
    let (head, difference) = match label.strip_suffix(')').and_then(|l| l.rsplit_once(" (Δ ")) {
        Some((head, difference)) => (head, Some(difference)),
        None => (label, None),
    };
    let is_value = |text: &str| text.contains('.') && text.parse::<f64>().is_ok();
    let read = head.rsplit_once(' ').filter(|(_, value)| is_value(value));
    let Some((name, value)) = read else {
        return cut_in_the_middle(label, width);
    };
    let readings = match difference {
        Some(difference) => [
            format!(" {value} (Δ {difference})"),
            format!(" Δ {difference}"),
        ],
        None => [format!(" {value}"), String::new()],
    };
    // (Of a name that is cut to two letters nothing can be told.)
    const NAME: usize = 5;
    let fits = |reading: &&String| reading.width() + NAME.min(name.width()) <= width;
    match readings.iter().find(fits) {
        Some(reading) => cut_in_the_middle(name, width - reading.width()) + reading,
        None => cut_in_the_middle(name, width),
    }
}

/// A name with its middle left out where it is too long: both ends tell layers apart.
pub(crate) fn cut_in_the_middle(name: &str, width: usize) -> String {
    cut_behind(name, width, width.saturating_sub(1) / 2)
}

/// The same with so many letters in front of the gap.
fn cut_behind(name: &str, width: usize, front: usize) -> String {
    let letters: Vec<char> = name.chars().collect();
    if letters.len() <= width {
        return name.to_owned();
    }
    let back = width.saturating_sub(1) - front;
    let middle: &[char] = if width > 0 { &['…'] } else { &[] };
    let ends = [&letters[..front], middle, &letters[letters.len() - back..]];
    ends.concat().into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_beside_one_another_stay_different() {
        let names = ["s0.b0.conv0", "s0.b1.conv0", "s0.b2.conv0"];
        let cut = cut_apart(names.into_iter(), 8);
        assert_eq!(cut, ["s0.b0…v0", "s0.b1…v0", "s0.b2…v0"]);
        assert_eq!(
            cut_apart(["a", "classifier"].into_iter(), 8),
            ["a", "cla…fier"]
        );
    }

    #[test]
    fn a_reading_is_never_cut() {
        let label = "cross entropy 0.9425 (Δ -0.0312)";
        assert_eq!(cut_before_reading(label, 40), label);
        assert_eq!(
            cut_before_reading(label, 28),
            "cros…ropy 0.9425 (Δ -0.0312)"
        );
        assert_eq!(cut_before_reading(label, 16), "cr…opy Δ -0.0312");
        assert_eq!(
            cut_before_reading("cross entropy 0.9425", 14),
            "cro…opy 0.9425"
        );
        assert_eq!(cut_before_reading("validation, top 5", 12), "valid… top 5");
    }

    #[test]
    fn long_names_keep_both_ends() {
        assert_eq!(cut_in_the_middle("conv1", 9), "conv1");
        assert_eq!(
            cut_in_the_middle("features.13.conv.1.0", 13),
            "featur…nv.1.0"
        );
        assert_eq!(
            cut_in_the_middle("features.13.conv.1.0", 13)
                .chars()
                .count(),
            13
        );
    }
}
