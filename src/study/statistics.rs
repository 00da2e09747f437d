//! Means over seeds with their uncertainty.

use statrs::distribution::{ContinuousCDF, StudentsT};

/// Mean of a sample, with what is needed to say how sure it is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sample {
    /// Number of values.
    pub count: usize,
    /// Their mean.
    pub mean: f64,
    /// Their standard deviation (n - 1 in the denominator); `None` of fewer than two.
    pub deviation: Option<f64>,
    /// The lowest and the highest.
    pub range: (f64, f64),
}

impl Sample {
    /// Of all values that are finite; `None` of none.
    pub fn of(values: impl IntoIterator<Item = f64>) -> Option<Self> {
        let values: Vec<f64> = values.into_iter().filter(|v| v.is_finite()).collect();
        let count = values.len();
        if count == 0 {
            return None;
        }
        let mean = values.iter().sum::<f64>() / count as f64;
        let squares: f64 = values.iter().map(|v| (v - mean).powi(2)).sum();
        let deviation = (count > 1).then(|| (squares / (count - 1) as f64).sqrt());
        let (low, high) = (f64::INFINITY, f64::NEG_INFINITY);
        let range = values
            .iter()
            .fold((low, high), |r, v| (r.0.min(*v), r.1.max(*v)));
        Some(Self {
            count,
            mean,
            deviation,
            range,
        })
    }

    /// Half the width of the 95 % confidence interval of the mean, by Student's t with n - 1 degrees of
    /// freedom; `None` of a single value, of which nothing is known.
    pub fn half_width(&self) -> Option<f64> {
        let deviation = self.deviation?;
        let freedom = (self.count - 1) as f64;
        let quantile = StudentsT::new(0.0, 1.0, freedom).ok()?.inverse_cdf(0.975);
        Some(quantile * deviation / (self.count as f64).sqrt())
    }
}

/// Differences of pairs of values: what two settings differ by where they share their seeds.
pub fn paired(of: &[f64], against: &[f64]) -> Option<Sample> {
    Sample::of(of.iter().zip(against).map(|(a, b)| a - b))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Quantiles of t as in every table: 12.706 (1 degree of freedom), 4.303 (2), 2.776 (4), 2.045 (29).
    #[test]
    fn intervals_are_students() {
        let half = |values: &[f64]| {
            let sample = Sample::of(values.iter().copied()).expect("some");
            let half = sample.half_width().expect("two or more");
            half * (sample.count as f64).sqrt() / sample.deviation.expect("two or more")
        };
        let many: Vec<f64> = (0..30).map(f64::from).collect();
        for (values, quantile) in [
            (&[1.0, 2.0][..], 12.706),
            (&[1.0, 2.0, 4.0], 4.303),
            (&[1.0, 2.0, 4.0, 8.0, 16.0], 2.776),
            (&many, 2.045),
        ] {
            assert!((half(values) - quantile).abs() < 1e-3, "{values:?}");
        }
    }

    #[test]
    fn one_value_has_no_interval_and_none_no_mean() {
        let one = Sample::of([3.0]).expect("one");
        assert_eq!((one.mean, one.half_width()), (3.0, None));
        assert_eq!(Sample::of([f64::NAN]), None);
        assert_eq!(paired(&[3.0, 5.0], &[1.0, 2.0]).expect("two").mean, 2.5);
    }
}
