//! Parts of lines that can be seen: what lies far outside would otherwise be drawn at the edge, with another
//! slope.

/// A point, across and up.
type At = (f64, f64);

/// The part of a line from `a` to `b` that lies between two corners (Liang and Barsky), if any does.
pub(super) fn segment(a: At, b: At, low: At, high: At) -> Option<[At; 2]> {
    let (mut from, mut to) = (0.0f64, 1.0f64);
    for (start, end, least, most) in [(a.0, b.0, low.0, high.0), (a.1, b.1, low.1, high.1)] {
        let along = end - start;
        if !along.is_finite() {
            // (From nowhere, or so far that no way is left of it.)
            return None;
        }
        if along == 0.0 {
            if start < least || start > most {
                return None;
            }
            continue;
        }
        let (first, last) = ((least - start) / along, (most - start) / along);
        from = from.max(first.min(last));
        to = to.min(first.max(last));
    }
    let at = |t: f64| (a.0 + (b.0 - a.0) * t, a.1 + (b.1 - a.1) * t);
    // (What is not cut stays as it is, to the last bit.)
    let ends = [
        if from > 0.0 { at(from) } else { a },
        if to < 1.0 { at(to) } else { b },
    ];
    // (Of ends very far away no digit may be left of where they enter.)
    let inside = |(x, y): At| (x.clamp(low.0, high.0), y.clamp(low.1, high.1));
    (from <= to).then(|| ends.map(inside))
}

/// The same of a line through many points: the pieces of it.
pub(super) fn line(points: &[At], low: At, high: At) -> Vec<Vec<At>> {
    let mut pieces: Vec<Vec<At>> = Vec::new();
    for pair in points.windows(2) {
        let Some([from, to]) = segment(pair[0], pair[1], low, high) else {
            continue;
        };
        match pieces.last_mut() {
            Some(piece) if piece.last() == Some(&from) => piece.push(to),
            _ => pieces.push(vec![from, to]),
        }
    }
    pieces
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_to_far_outside_keeps_its_slope() {
        let corners = ((0.0, 0.0), (1.0, 1.0));
        let cut = |a, b| segment(a, b, corners.0, corners.1);
        assert_eq!(cut((0.5, 0.5), (0.7, 0.6)), Some([(0.5, 0.5), (0.7, 0.6)]));
        let [from, to] = cut((-9.0, 0.0), (11.0, 1.0)).expect("it crosses");
        assert_eq!((from.0, to.0), (0.0, 1.0));
        assert!(
            (from.1 - 0.45).abs() < 1e-12 && (to.1 - 0.5).abs() < 1e-12,
            "{from:?} {to:?}"
        );
        assert_eq!(cut((-1.0, -1.0), (-1.0, 2.0)), None);
        assert_eq!(cut((2.0, 0.0), (3.0, 1.0)), None);
        let [from, to] = cut((-1e300, 0.5), (1e300, 0.5)).expect("it crosses");
        assert!(
            (0.0..=1.0).contains(&from.0) && (0.0..=1.0).contains(&to.0),
            "{from:?} {to:?}"
        );
        let [_, to] = cut((-1e300, 0.5), (5e283, 0.5)).expect("it comes near");
        assert!((0.0..=1.0).contains(&to.0), "{to:?}");
        for far in [f64::INFINITY, f64::NAN, -f64::MAX] {
            assert_eq!(cut((f64::MAX, 0.5), (far, 0.5)), None);
        }
        let pieces = line(
            &[(0.1, 0.1), (0.9, 0.9), (5.0, 5.0), (0.2, 9.0), (0.2, 0.3)],
            corners.0,
            corners.1,
        );
        assert_eq!(pieces.len(), 2);
        assert_eq!(pieces[0], [(0.1, 0.1), (0.9, 0.9), (1.0, 1.0)]);
    }
}
