//! Means of repetitions and how far they can be trusted.

use serde::Serialize;
use statrs::distribution::{ContinuousCDF, StudentsT};

/// Mean and confidence interval of a sample.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Summary {
    /// Number of values.
    pub count: usize,
    /// Their mean.
    pub mean: f64,
    /// Half of the mean's 95 % confidence interval (Student's t); `None` for a single value.
    pub ci95: Option<f64>,
    /// The least value.
    pub min: f64,
    /// The greatest value.
    pub max: f64,
}

impl Summary {
    /// Summarises `values`; `None` if there are none, or some are not finite.
    pub fn of(values: &[f64]) -> Option<Self> {
        if values.is_empty() || values.iter().any(|value| !value.is_finite()) {
            return None;
        }
        let count = values.len();
        let mean = values.iter().sum::<f64>() / count as f64;
        let fold = |least: fn(f64, f64) -> f64| values.iter().copied().fold(values[0], least);
        Some(Self { count, mean, ci95: half_width(values, mean), min: fold(f64::min), max: fold(f64::max) })
    }
}

fn half_width(values: &[f64], mean: f64) -> Option<f64> {
    let freedom = values.len().checked_sub(1).filter(|&freedom| freedom > 0)? as f64;
    let variance = values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / freedom;
    let t = StudentsT::new(0.0, 1.0, freedom).ok()?.inverse_cdf(0.975);
    Some(t * (variance / values.len() as f64).sqrt())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interval_is_that_of_student_s_t() {
        // t for 12 degrees of freedom is 2.1788.
        let values: Vec<f64> = (0..13).map(f64::from).collect();
        let summary = Summary::of(&values).unwrap();
        assert_eq!((summary.count, summary.mean, summary.min, summary.max), (13, 6.0, 0.0, 12.0));
        let expected = 2.1788 * (15.166_667_f64 / 13.0).sqrt();
        assert!((summary.ci95.unwrap() - expected).abs() < 1e-3, "{summary:?}");
    }

    #[test]
    fn one_value_has_no_interval_and_none_no_summary() {
        assert_eq!(Summary::of(&[3.0]).unwrap().ci95, None);
        assert_eq!(Summary::of(&[]), None);
        assert_eq!(Summary::of(&[1.0, f64::NAN]), None);
    }

    #[test]
    fn equal_values_leave_no_doubt() {
        assert_eq!(Summary::of(&[0.0; 5]).unwrap().ci95, Some(0.0));
    }
}
