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

/// A legend's entries in so many cells: names give way to what is read at the cursor, and values to their
/// differences from the second one.
pub(super) fn cut_before_readings(labels: &[&str], width: usize) -> Vec<String> {
    let parts: Vec<(&str, [String; 2])> = labels.iter().map(|l| taken_apart(l)).collect();
    // (Of a name that is cut to two letters nothing can be told.)
    const NAME: usize = 6;
    let widest = |form: usize| parts.iter().map(|p| p.1[form].width()).max().unwrap_or(0);
    let longest = parts.iter().map(|p| p.0.width()).max().unwrap_or(0);
    let fits = |form: &usize| widest(*form) + NAME.min(longest) <= width;
    let Some(form) = [0, 1].into_iter().find(fits) else {
        return cut_apart(parts.iter().map(|p| p.0), width);
    };
    let names = cut_apart(parts.iter().map(|p| p.0), width - widest(form));
    let entries = names.into_iter().zip(&parts);
    entries.map(|(name, part)| name + &part.1[form]).collect()
}

/// The name in a label, and what is read behind it: all of it, and the shortest.
fn taken_apart(label: &str) -> (&str, [String; 2]) {
    let (head, difference) = match label.strip_suffix(')').and_then(|l| l.rsplit_once(" (Δ ")) {
        Some((head, difference)) => (head, Some(difference)),
        None => (label, None),
    };
    let is_value = |text: &str| text.contains('.') && text.parse::<f64>().is_ok();
    let read = head.rsplit_once(' ').filter(|(_, value)| is_value(value));
    match (read, difference) {
        (Some((name, value)), Some(difference)) => {
            let whole = format!(" {value} (Δ {difference})");
            (name, [whole, format!(" Δ {difference}")])
        }
        (Some((name, value)), None) => (name, [format!(" {value}"), format!(" {value}")]),
        (None, _) => (label, [String::new(), String::new()]),
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
        let labels = [
            "s0.b0.conv1 0.9425 (Δ -0.0312)",
            "s0.b1.conv1 0.8000 (Δ +0.1000)",
            "validation, top 5",
        ];
        assert_eq!(cut_before_readings(&labels, 40), labels);
        let at = |width| cut_before_readings(&labels, width);
        let fine = ["s0.b0…1 0.9425 (Δ -0.0312)", "s0.b1…1 0.8000 (Δ +0.1000)"];
        assert_eq!(at(26)[..2], fine);
        let short = ["s0.b0…1 Δ -0.0312", "s0.b1…1 Δ +0.1000"];
        assert_eq!(at(17)[..2], short);
        assert!(at(17).iter().all(|l| l.width() <= 17));
        let few = ["sum 90.0000", "max 8.0000"];
        assert_eq!(cut_before_readings(&few, 11), few);
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
