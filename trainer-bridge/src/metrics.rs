//! How good predictions are, as pure functions over a slice of truths and a slice of predictions of the same length.
//!
//! Every function returns `None` where its formula has no value (no rows, or for [`auc`] only one class), so that a
//! report shows a gap instead of `NaN`. A `NaN` among the scores makes the result `NaN`: a broken model stays visible.

/// The smallest distance of a probability from 0 and 1 that [`log_loss`] takes into account.
const PROBABILITY_MARGIN: f64 = 1e-15;

/// Area under the ROC curve: the probability that a random positive row is scored above a random negative one, where
/// an equal score counts one half.
///
/// From the Mann-Whitney statistic: with `R` the sum of the positives' ranks (equal scores share their mean rank),
/// `auc = (R - p(p + 1)/2) / (p·n)` for `p` positives and `n` negatives
/// (Hanley and McNeil, "The meaning and use of the area under a ROC curve", Radiology 143, 1982).
/// O(rows · log rows). `None` unless both classes are present.
pub fn auc(labels: &[bool], scores: &[f64]) -> Option<f64> {
    assert_eq!(labels.len(), scores.len(), "one score per label");
    let positives = labels.iter().filter(|label| **label).count() as f64;
    let negatives = labels.len() as f64 - positives;
    if positives == 0.0 || negatives == 0.0 {
        return None;
    }
    if scores.iter().any(|score| score.is_nan()) {
        return Some(f64::NAN);
    }
    let rank_sum = positive_rank_sum(labels, scores);
    Some((rank_sum - positives * (positives + 1.0) / 2.0) / (positives * negatives))
}

/// The sum of the positives' ranks, counted from 1 in ascending order of score; equal scores share their mean rank.
fn positive_rank_sum(labels: &[bool], scores: &[f64]) -> f64 {
    let mut order: Vec<usize> = (0..scores.len()).collect();
    order.sort_unstable_by(|&a, &b| scores[a].total_cmp(&scores[b]));
    let mut before = 0.0;
    let mut sum = 0.0;
    for tied in order.chunk_by(|&a, &b| scores[a] == scores[b]) {
        let mean_rank = before + (tied.len() as f64 + 1.0) / 2.0;
        sum += mean_rank * tied.iter().filter(|&&row| labels[row]).count() as f64;
        before += tied.len() as f64;
    }
    sum
}

/// Mean negative log likelihood of the labels, `-(1/n)·Σ [y·ln p + (1 - y)·ln(1 - p)]` with natural logarithms
/// (Bishop, "Pattern Recognition and Machine Learning", equation 4.90, divided by the rows).
///
/// `probabilities` are clamped to `[1e-15, 1 - 1e-15]`, so one certain mistake costs 34.5 and not infinity.
pub fn log_loss(labels: &[bool], probabilities: &[f64]) -> Option<f64> {
    mean(labels, probabilities, |&label, p| {
        let p = p.clamp(PROBABILITY_MARGIN, 1.0 - PROBABILITY_MARGIN);
        if label { -p.ln() } else { -(-p).ln_1p() }
    })
}

/// The share of rows whose probability is on the label's side of one half; exactly one half predicts `true`.
pub fn accuracy(labels: &[bool], probabilities: &[f64]) -> Option<f64> {
    mean(labels, probabilities, |&label, p| {
        if p.is_nan() {
            return f64::NAN;
        }
        f64::from(label == (p >= 0.5))
    })
}

/// The share of positive labels: what a model that knows nothing should predict.
pub fn base_rate(labels: &[bool]) -> Option<f64> {
    let positives = labels.iter().filter(|label| **label).count();
    (!labels.is_empty()).then(|| positives as f64 / labels.len() as f64)
}

/// Root mean squared error, `√((1/n)·Σ (y - ŷ)²)`, in the unit of the target
/// (Hastie, Tibshirani and Friedman, "The Elements of Statistical Learning", section 7.2).
pub fn rmse(truths: &[f64], predictions: &[f64]) -> Option<f64> {
    mean(truths, predictions, |truth, predicted| (truth - predicted).powi(2)).map(f64::sqrt)
}

/// Mean absolute error, `(1/n)·Σ |y - ŷ|`, in the unit of the target (section 7.2 of the same book).
pub fn mae(truths: &[f64], predictions: &[f64]) -> Option<f64> {
    mean(truths, predictions, |truth, predicted| (truth - predicted).abs())
}

/// The mean of `of(truth, prediction)` over all rows.
fn mean<T>(truths: &[T], predictions: &[f64], of: impl Fn(&T, f64) -> f64) -> Option<f64> {
    assert_eq!(truths.len(), predictions.len(), "one prediction per truth");
    let sum: f64 = truths.iter().zip(predictions).map(|(truth, predicted)| of(truth, *predicted)).sum();
    (!truths.is_empty()).then(|| sum / truths.len() as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn close(got: Option<f64>, expected: f64) {
        let got = got.expect("a value");
        assert!((got - expected).abs() < 1e-12, "{got} is not {expected}");
    }

    #[test]
    fn auc_counts_ordered_pairs() {
        // Of the 4 pairs, 0.35 < 0.4 is the only one in the wrong order.
        close(auc(&[false, false, true, true], &[0.1, 0.4, 0.35, 0.8]), 0.75);
        close(auc(&[true, false], &[0.1, 0.2]), 0.0);
    }

    #[test]
    fn auc_counts_a_tie_as_one_half() {
        close(auc(&[false, true, true, false], &[0.5, 0.5, 0.5, 0.5]), 0.5);
        // Pairs (positive, negative): (2,1) right, (2,2) tied, (3,1) right, (3,2) right: 3.5 of 4.
        close(auc(&[false, false, true, true], &[1.0, 2.0, 2.0, 3.0]), 0.875);
        close(auc(&[false, true], &[0.0, -0.0]), 0.5);
    }

    #[test]
    fn auc_needs_both_classes() {
        assert_eq!(auc(&[true, true], &[0.1, 0.2]), None);
        assert_eq!(auc(&[], &[]), None);
        assert!(auc(&[true, false], &[f64::NAN, 0.2]).unwrap().is_nan());
    }

    #[test]
    fn log_loss_by_hand() {
        close(log_loss(&[true, false], &[0.5, 0.5]), std::f64::consts::LN_2);
        close(log_loss(&[true, false], &[0.8, 0.4]), -(0.8f64.ln() + 0.6f64.ln()) / 2.0);
        close(log_loss(&[true], &[0.0]), -(1e-15f64.ln()));
        assert_eq!(log_loss(&[], &[]), None);
    }

    #[test]
    fn accuracy_and_base_rate_by_hand() {
        close(accuracy(&[true, false, true, false], &[0.5, 0.5, 0.9, 0.1]), 0.75);
        close(base_rate(&[true, false, false, false]), 0.25);
        assert_eq!(base_rate(&[]), None);
    }

    #[test]
    fn errors_by_hand() {
        // Differences 3 and -4: squares 9 and 16, mean 12.5.
        close(rmse(&[1.0, 2.0], &[-2.0, 6.0]), 12.5f64.sqrt());
        close(mae(&[1.0, 2.0], &[-2.0, 6.0]), 3.5);
        assert_eq!(rmse(&[], &[]), None);
    }
}
