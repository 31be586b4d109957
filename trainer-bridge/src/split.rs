//! Splits rows into training, validation and test parts by time, so that no model is judged on rows older than those
//! it learned from.
//!
//! ```text
//! time      1  2  3  3  3  4  5  6  7  8        shares 0.4 / 0.3 / 0.3 of 10 rows
//! part      0  0  0  0  0  1  1  2  2  2
//!                    ▲  ▲     ▲
//!        4th row: cut here?   7th row: the second cut
//!        times are equal, so the cut moves on behind the last 3
//! ```

use featurectl_core::{Error, Result};

/// What the parts 0, 1 and 2 are called in messages.
const PARTS: [&str; 3] = ["train", "validation", "test"];

/// How far the sum of the shares may be from 1.
const SUM_TOLERANCE: f64 = 1e-9;

/// The part of each row, in the order of `times`: 0 for training, 1 for validation, 2 for test.
///
/// The oldest `shares[0]` of the rows train, the next `shares[1]` validate and the rest test. Rows of equal time are
/// never torn apart: a cut that falls among them moves behind the last of them, to the older part. The unit of `times`
/// does not matter, nor does the order of the rows. O(rows · log rows).
///
/// Errors if a share is not in 0..=1, if they do not add up to 1, or if a part would be empty.
pub fn split_by_time(times: &[i64], shares: [f64; 3]) -> Result<Vec<u8>> {
    check_shares(shares)?;
    let mut sorted = times.to_vec();
    sorted.sort_unstable();
    let first = cut(&sorted, shares[0]);
    let second = cut(&sorted, shares[0] + shares[1]).max(first);
    let ends = [0, first, second, sorted.len()];
    if let Some(empty) = (0..PARTS.len()).find(|&part| ends[part] == ends[part + 1]) {
        return Err(empty_part(empty, &sorted, shares));
    }
    // A cut is behind all rows of its time, so the first time of a part decides for the whole time.
    let (validation_from, test_from) = (sorted[first], sorted[second]);
    Ok(times.iter().map(|&t| u8::from(t >= validation_from) + u8::from(t >= test_from)).collect())
}

/// The number of rows before the cut at `share` of all rows, moved behind rows of equal time.
fn cut(sorted: &[i64], share: f64) -> usize {
    let wanted = ((sorted.len() as f64 * share).round() as usize).min(sorted.len());
    match wanted.checked_sub(1) {
        Some(last) => sorted.partition_point(|&t| t <= sorted[last]),
        None => 0,
    }
}

fn check_shares(shares: [f64; 3]) -> Result<()> {
    for (part, share) in PARTS.iter().zip(shares) {
        if !(0.0..=1.0).contains(&share) {
            return Err(Error::invalid(format!("the `{part}` share is {share}: choose one between 0 and 1")));
        }
    }
    let sum: f64 = shares.iter().sum();
    if (sum - 1.0).abs() > SUM_TOLERANCE {
        let [train, validation, test] = shares;
        return Err(Error::invalid(format!(
            "the shares {train} (train), {validation} (validation) and {test} (test) add up to {sum}: make it 1"
        )));
    }
    Ok(())
}

/// Why part `empty` has no rows, and which share to change.
fn empty_part(empty: usize, sorted: &[i64], shares: [f64; 3]) -> Error {
    let distinct = sorted.chunk_by(|a, b| a == b).count();
    let part = PARTS[empty];
    let cause =
        format!("no row is left for the `{part}` part: its share is {} of {} rows", shares[empty], sorted.len());
    let fix = if distinct < PARTS.len() {
        format!("there are {distinct} distinct times and each part needs at least one: select a longer time range")
    } else {
        format!("rows of equal time stay together ({distinct} distinct times): raise the `{part}` share")
    };
    Error::invalid(format!("{cause}, and {fix}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::{Expect, expect};
    use proptest::prelude::*;

    fn check(times: &[i64], shares: [f64; 3], expected: Expect) {
        let got = match split_by_time(times, shares) {
            Ok(parts) => parts.iter().map(|p| p.to_string()).collect(),
            Err(e) => e.to_string(),
        };
        expected.assert_eq(&got);
    }

    #[test]
    fn rows_are_split_by_time_and_not_by_position() {
        check(&[4, 3, 2, 1], [0.5, 0.25, 0.25], expect!["2100"]);
        check(&[i64::MAX, 0, i64::MIN], [0.34, 0.33, 0.33], expect!["210"]);
    }

    #[test]
    fn rows_of_equal_time_stay_together() {
        check(&[1, 2, 3, 3, 3, 4, 5, 6, 7, 8], [0.4, 0.3, 0.3], expect!["0000011222"]);
    }

    #[test]
    fn an_empty_part_names_its_share() {
        check(
            &[1, 2, 3, 4],
            [1.0, 0.0, 0.0],
            expect![
                "no row is left for the `validation` part: its share is 0 of 4 rows, and rows of equal time stay together (4 distinct times): raise the `validation` share"
            ],
        );
        check(
            &[1, 2, 3, 3, 3],
            [0.4, 0.4, 0.2],
            expect![
                "no row is left for the `test` part: its share is 0.2 of 5 rows, and rows of equal time stay together (3 distinct times): raise the `test` share"
            ],
        );
        check(
            &[1, 2, 3, 4],
            [0.0, 0.5, 0.5],
            expect![
                "no row is left for the `train` part: its share is 0 of 4 rows, and rows of equal time stay together (4 distinct times): raise the `train` share"
            ],
        );
        check(
            &[7, 7, 7],
            [0.8, 0.1, 0.1],
            expect![
                "no row is left for the `validation` part: its share is 0.1 of 3 rows, and there are 1 distinct times and each part needs at least one: select a longer time range"
            ],
        );
        check(
            &[],
            [0.8, 0.1, 0.1],
            expect![
                "no row is left for the `train` part: its share is 0.8 of 0 rows, and there are 0 distinct times and each part needs at least one: select a longer time range"
            ],
        );
    }

    #[test]
    fn shares_are_checked() {
        check(
            &[1, 2, 3],
            [0.5, 0.5, 0.5],
            expect!["the shares 0.5 (train), 0.5 (validation) and 0.5 (test) add up to 1.5: make it 1"],
        );
        check(&[1, 2, 3], [f64::NAN, 0.5, 0.5], expect!["the `train` share is NaN: choose one between 0 and 1"]);
        check(&[1, 2, 3], [1.5, -0.5, 0.0], expect!["the `train` share is 1.5: choose one between 0 and 1"]);
    }

    proptest! {
        #[test]
        fn parts_are_ordered_in_time_and_never_share_one(
            times in prop::collection::vec(-20i64..20, 0..200),
            (a, b) in (0.0f64..1.0, 0.0f64..1.0),
        ) {
            let (low, high) = (a.min(b), a.max(b));
            if let Ok(parts) = split_by_time(&times, [low, high - low, 1.0 - high]) {
                prop_assert_eq!(parts.len(), times.len());
                for part in 0..3 {
                    prop_assert!(parts.contains(&part));
                }
                for (t, p) in times.iter().zip(&parts) {
                    for (u, q) in times.iter().zip(&parts) {
                        prop_assert!(t >= u || p <= q, "{t} is before {u} but in part {p} and not {q}");
                        prop_assert!(t != u || p == q, "time {t} is in the parts {p} and {q}");
                    }
                }
            }
        }
    }
}
