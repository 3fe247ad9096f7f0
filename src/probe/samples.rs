//! Do two sets of measurements differ? The rank test of Mann, Whitney and Wilcoxon.

/// The probability below which a difference is not taken for chance.
const SIGNIFICANT: f64 = 0.01;
/// A smaller difference of medians cannot be seen across a network: milliseconds, and a share of the time.
const VISIBLE_MS: f64 = 2.0;
const VISIBLE_SHARE: f64 = 0.1;

/// The median, in the unit of the samples; 0 for none.
pub(super) fn median(samples: &[f64]) -> f64 {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match (sorted.get(middle.wrapping_sub(1)), sorted.get(middle)) {
        (Some(low), Some(high)) if sorted.len().is_multiple_of(2) => f64::midpoint(*low, *high),
        (_, Some(high)) => *high,
        _ => 0.0,
    }
}

/// Whether two sets of times in milliseconds differ by more than chance, and by so much that a stranger can see it.
pub(super) fn differ(a: &[f64], b: &[f64]) -> bool {
    let (median_a, median_b) = (median(a), median(b));
    let visible = VISIBLE_MS.max(VISIBLE_SHARE * median_a.min(median_b));
    (median_a - median_b).abs() > visible && probability(a, b) < SIGNIFICANT
}

/// The probability (0 to 1) that two samples of one distribution differ by as much as these, or more: two-sided, by
/// counting pairs, with the normal approximation and its correction for continuity.
fn probability(a: &[f64], b: &[f64]) -> f64 {
    let (n, m) = (a.len() as f64, b.len() as f64);
    if a.is_empty() || b.is_empty() {
        return 1.0;
    }
    let pair = |x: f64, y: f64| match x.total_cmp(&y) {
        core::cmp::Ordering::Greater => 1.0,
        core::cmp::Ordering::Equal => 0.5,
        core::cmp::Ordering::Less => 0.0,
    };
    let wins: f64 = a.iter().map(|x| b.iter().map(|y| pair(*x, *y)).sum::<f64>()).sum();
    let (mean, deviation) = (n * m / 2.0, (n * m * (n + m + 1.0) / 12.0).sqrt());
    let distance = ((wins - mean).abs() - 0.5).max(0.0) / deviation;
    2.0 * upper_tail(distance)
}

/// The area of the normal distribution above `z`, for `z` of 0 and more: formula 26.2.17 of Abramowitz and Stegun, with
/// an error below 1e-7.
fn upper_tail(z: f64) -> f64 {
    let t = 1.0 / (1.0 + 0.231_641_9 * z);
    let terms = [0.319_381_53, -0.356_563_782, 1.781_477_937, -1.821_255_978, 1.330_274_429];
    let sum = terms.iter().rev().fold(0.0, |sum, term| (sum + term) * t);
    sum * (-z * z / 2.0).exp() / (2.0 * core::f64::consts::PI).sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_normal_distribution_is_right() {
        for (z, area) in [(0.0, 0.5), (1.0, 0.158_655), (1.959_964, 0.025), (3.0, 0.001_35)] {
            assert!((upper_tail(z) - area).abs() < 1e-5, "{z}");
        }
    }

    #[test]
    fn only_clear_differences_count() {
        let same = [40.0, 43.0, 41.0, 44.0, 39.0, 42.0];
        let also = [41.5, 40.5, 43.5, 42.5, 39.5, 44.5];
        let slower: Vec<f64> = same.iter().map(|ms| ms + 20.0).collect();
        let hardly: Vec<f64> = same.iter().map(|ms| ms / 100.0 + 1.0).collect();
        assert!(!differ(&same, &also) && differ(&same, &slower) && differ(&slower, &same));
        assert!(!differ(&[0.4, 0.43, 0.41, 0.44, 0.39, 0.42], &hardly), "a millisecond is not seen across a network");
        assert!(!differ(&[], &same) && !differ(&[40.0], &[90.0]), "too few to say");
    }

    #[test]
    fn medians() {
        assert!(median(&[3.0, 1.0, 2.0]) == 2.0 && median(&[1.0, 2.0, 4.0, 3.0]) == 2.5 && median(&[]) == 0.0);
    }
}
