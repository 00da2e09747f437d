//! What plots of one quantity against another share: axes around the data, and the front of the best.

/// The lowest and the highest, with a share of what lies between as a margin; not below zero.
pub fn around(values: impl Iterator<Item = f64>, share: f64) -> (f64, f64) {
    let (low, high) = values.fold((f64::MAX, f64::MIN), |r, v| (r.0.min(v), r.1.max(v)));
    if low > high {
        return (0.0, 1.0);
    }
    let margin = ((high - low) * share).max(0.05 * high.abs()).max(1e-3);
    ((low - margin).max(0.0), high + margin)
}

/// The points that no other beats in both coordinates, lower ones being better, as a staircase from the
/// smallest first coordinate on.
pub fn pareto_front(points: impl IntoIterator<Item = (f64, f64)>) -> Vec<(f64, f64)> {
    let mut points: Vec<(f64, f64)> = points.into_iter().collect();
    points.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.total_cmp(&b.1)));
    let mut front: Vec<(f64, f64)> = Vec::new();
    for point in points {
        if front.last().is_none_or(|last| point.1 < last.1) {
            // Down to the better one at the same place: a staircase, not a promise in between.
            if let Some(last) = front.last().copied() {
                front.push((point.0, last.1));
            }
            front.push(point);
        }
    }
    front
}
