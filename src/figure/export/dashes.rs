//! Polylines cut to the plot and into dashes.

/// The parts of a polyline inside the rectangle.
pub(super) fn clipped(points: &[(i32, i32)], plot: (i32, i32, i32, i32)) -> Vec<Vec<(i32, i32)>> {
    let mut pieces: Vec<Vec<(i32, i32)>> = Vec::new();
    for pair in points.windows(2) {
        let Some((a, b)) = clip_segment(pair[0], pair[1], plot) else {
            continue;
        };
        match pieces.last_mut() {
            Some(piece) if piece.last() == Some(&a) => piece.push(b),
            _ => pieces.push(vec![a, b]),
        }
    }
    pieces
}

/// Liang and Barsky's clipping of a segment to a rectangle.
fn clip_segment(
    a: (i32, i32),
    b: (i32, i32),
    (left, top, right, bottom): (i32, i32, i32, i32),
) -> Option<((i32, i32), (i32, i32))> {
    let (ax, ay) = (f64::from(a.0), f64::from(a.1));
    let (dx, dy) = (f64::from(b.0) - ax, f64::from(b.1) - ay);
    let (mut enter, mut leave) = (0.0f64, 1.0f64);
    for (p, q) in [
        (-dx, ax - f64::from(left)),
        (dx, f64::from(right) - ax),
        (-dy, ay - f64::from(top)),
        (dy, f64::from(bottom) - ay),
    ] {
        if p == 0.0 {
            if q < 0.0 {
                return None;
            }
        } else if p < 0.0 {
            enter = enter.max(q / p);
        } else {
            leave = leave.min(q / p);
        }
    }
    if enter > leave {
        return None;
    }
    let at = |t: f64| ((ax + t * dx).round() as i32, (ay + t * dy).round() as i32);
    Some((at(enter), at(leave)))
}

/// Cuts a polyline into dashes: pattern 0 is solid.
pub(super) fn dashed(points: &[(i32, i32)], pattern: usize, em: f64) -> Vec<Vec<(i32, i32)>> {
    let lengths: &[f64] = match pattern % 4 {
        0 => return vec![points.to_vec()],
        1 => &[0.6, 0.35],
        2 => &[0.15, 0.3],
        _ => &[0.7, 0.25, 0.15, 0.25],
    };
    let mut out: Vec<Vec<(i32, i32)>> = Vec::new();
    let (mut index, mut left) = (0, lengths[0] * em);
    let mut current = points.first().map(|p| vec![*p]).unwrap_or_default();
    for pair in points.windows(2) {
        let (ax, ay) = (f64::from(pair[0].0), f64::from(pair[0].1));
        let (dx, dy) = (f64::from(pair[1].0) - ax, f64::from(pair[1].1) - ay);
        let length = dx.hypot(dy);
        let mut done = 0.0;
        while done < length {
            let take = left.min(length - done);
            done += take;
            left -= take;
            let at = (
                (ax + dx * done / length) as i32,
                (ay + dy * done / length) as i32,
            );
            if index % 2 == 0 {
                current.push(at);
            }
            if left <= 0.0 {
                if index % 2 == 0 {
                    out.push(std::mem::take(&mut current));
                } else {
                    current = vec![at];
                }
                index = (index + 1) % lengths.len();
                left = lengths[index] * em;
            }
        }
    }
    if index % 2 == 0 && current.len() > 1 {
        out.push(current);
    }
    out
}

/// A polyline in parts without sharp corners: a wide line's joint at one reaches far beyond it, to
/// where no value was.
pub(super) fn without_corners(points: &[(i32, i32)]) -> Vec<&[(i32, i32)]> {
    let mut parts = Vec::new();
    let mut start = 0;
    for corner in 1..points.len().saturating_sub(1) {
        let [a, b, c] = [corner - 1, corner, corner + 1].map(|i| {
            let (x, y) = points[i];
            (f64::from(x), f64::from(y))
        });
        let (before, after) = ((b.0 - a.0, b.1 - a.1), (c.0 - b.0, c.1 - b.1));
        let along = before.0 * after.0 + before.1 * after.1;
        let lengths = before.0.hypot(before.1) * after.0.hypot(after.1);
        // Turns of more than sixty degrees.
        if along < 0.5 * lengths {
            parts.push(&points[start..=corner]);
            start = corner;
        }
    }
    parts.push(&points[start..]);
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn corners_part_a_line_and_every_point_stays() {
        let gentle = [(0, 0), (10, 1), (20, 3)];
        assert_eq!(without_corners(&gentle), [&gentle[..]]);
        let spike = [(0, 0), (10, 0), (11, 90), (12, 0), (20, 0)];
        let parts = without_corners(&spike);
        let expected = [&spike[..2], &spike[1..3], &spike[2..4], &spike[3..]];
        assert_eq!(parts, expected);
        assert_eq!(without_corners(&spike[..1]), [&spike[..1]]);
    }

    #[test]
    fn dashes_cover_the_line_and_leave_gaps() {
        let line = [(0, 0), (1000, 0)];
        for pattern in 1..4 {
            let dashes = dashed(&line, pattern, 20.0);
            let drawn: i32 = dashes.iter().map(|d| d[d.len() - 1].0 - d[0].0).sum();
            assert!((200..900).contains(&drawn), "{pattern}: {drawn}");
        }
        assert_eq!(dashed(&line, 0, 20.0), [line.to_vec()]);
    }

    #[test]
    fn clipping_keeps_what_is_inside() {
        let plot = (0, 0, 100, 100);
        let through = clipped(&[(-50, 50), (150, 50)], plot);
        assert_eq!(through, [vec![(0, 50), (100, 50)]]);
        assert!(clipped(&[(-50, -50), (150, -50)], plot).is_empty());
        let twice = clipped(&[(50, 50), (50, 150), (60, 50)], plot);
        assert_eq!(twice.len(), 2);
    }
}
