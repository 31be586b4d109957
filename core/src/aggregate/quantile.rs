//! `approx_percentile_cont(x, q)`: a quantile to 1 % of its value.
//!
//! The partial is a DDSketch (Masson, Rim, Lee: "DDSketch: a fast and fully-mergeable quantile sketch with
//! relative-error guarantees", VLDB 2019): values are counted in buckets whose borders grow by the factor
//! γ = (1 + α) / (1 − α), α = 0.01. Buckets simply add up, so any merge order gives the same counts, and the same
//! value offline and online. The value for q is within α of the one with rank ⌊q (n − 1)⌋.

use std::sync::Arc;

use arrow::array::{ArrayRef, Float64Array};
use arrow::datatypes::DataType;

use super::double_double::Reader;
use super::sum::floats;
use super::{Aggregation, Events};
use crate::Result;

/// Relative error.
const ALPHA: f64 = 0.01;
/// Magnitudes below this count as zero.
const SMALLEST: f64 = 1e-12;
const INFINITE: i32 = i32::MAX - 1;
const NAN: i32 = i32::MAX;

#[derive(Debug)]
pub(super) struct Percentile {
    /// Between 0 and 1.
    pub(super) q: f64,
}

/// Counts by bucket, in ascending order of the bucket, which is the order of the values.
pub(super) type Sketch = Vec<(i32, u64)>;

fn ln_gamma() -> f64 {
    ((1.0 + ALPHA) / (1.0 - ALPHA)).ln()
}

/// The bucket of a value: 0 for zero, its sign that of the value.
fn bucket(x: f64) -> i32 {
    if x.is_nan() {
        return NAN;
    }
    if x.abs() < SMALLEST {
        return 0;
    }
    let magnitude = if x.is_infinite() { INFINITE } else { ((x.abs() / SMALLEST).ln() / ln_gamma()).ceil() as i32 + 1 };
    if x < 0.0 { -magnitude } else { magnitude }
}

/// A value at most α away, relatively, from every value of the bucket.
fn representative(bucket: i32) -> f64 {
    match bucket.abs() {
        0 => 0.0,
        NAN => f64::NAN,
        INFINITE => f64::INFINITY.copysign(f64::from(bucket)),
        magnitude => {
            let upper = SMALLEST * (f64::from(magnitude - 1) * ln_gamma()).exp();
            (upper * (1.0 - ALPHA)).copysign(f64::from(bucket))
        }
    }
}

fn quantile(sketch: &Sketch, q: f64) -> Option<f64> {
    let n: u64 = sketch.iter().map(|(_, count)| count).sum();
    let rank = (q * (n.checked_sub(1)?) as f64).floor() as u64;
    let mut seen = 0;
    let hit = sketch.iter().find(|(_, count)| {
        seen += count;
        seen > rank
    });
    hit.map(|(bucket, _)| representative(*bucket))
}

impl Aggregation for Percentile {
    type Partial = Sketch;

    fn return_type(&self) -> DataType {
        DataType::Float64
    }

    fn lift(&self, events: &Events<'_>) -> Result<Vec<Option<Sketch>>> {
        Ok(floats(&events.args[0])?.iter().map(|v| v.map(|v| vec![(bucket(v), 1)])).collect())
    }

    fn merge(&self, into: &mut Sketch, other: &Sketch) {
        if let [(bucket, count)] = other.as_slice() {
            match into.binary_search_by_key(bucket, |(b, _)| *b) {
                Ok(at) => into[at].1 += count,
                Err(at) => into.insert(at, (*bucket, *count)),
            }
            return;
        }
        let mut merged = Sketch::with_capacity(into.len() + other.len());
        let (mut left, mut right) = (into.iter().peekable(), other.iter().peekable());
        while let (Some(l), Some(r)) = (left.peek(), right.peek()) {
            let (bucket, mut count) = (l.0.min(r.0), 0);
            count += left.next_if(|l| l.0 == bucket).map_or(0, |l| l.1);
            count += right.next_if(|r| r.0 == bucket).map_or(0, |r| r.1);
            merged.push((bucket, count));
        }
        merged.extend(left.chain(right));
        *into = merged;
    }

    fn finish(&self, partials: &[Option<Sketch>]) -> Result<ArrayRef> {
        let value = |p: &Option<Sketch>| p.as_ref().and_then(|s| quantile(s, self.q));
        Ok(Arc::new(partials.iter().map(value).collect::<Float64Array>()))
    }

    fn encode(&self, sketch: &Sketch, out: &mut Vec<u8>) {
        for (bucket, count) in sketch {
            out.extend(bucket.to_le_bytes());
            out.extend(count.to_le_bytes());
        }
    }

    fn decode(&self, bytes: &[u8]) -> Result<Sketch> {
        let mut reader = Reader(bytes);
        let mut sketch = Sketch::with_capacity(bytes.len() / 12);
        while !reader.0.is_empty() {
            sketch.push((i32::from_le_bytes(reader.array()?), reader.u64()?));
        }
        Ok(sketch)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_quantile_is_within_one_percent_of_the_exact_rank(
            mut values in prop::collection::vec(-1e9..1e9f64, 1..200), q in 0.0..=1.0f64, cut in 0usize..200,
        ) {
            let p = Percentile { q };
            let cut = cut.min(values.len());
            let sketch = |v: &[f64]| {
                v.iter().fold(Sketch::new(), |mut s, x| { p.merge(&mut s, &vec![(bucket(*x), 1)]); s })
            };
            let (mut left, right) = (sketch(&values[..cut]), sketch(&values[cut..]));
            prop_assert_eq!(sketch(&values), { p.merge(&mut left, &right); left.clone() });
            values.sort_by(f64::total_cmp);
            let exact = values[(q * (values.len() - 1) as f64).floor() as usize];
            let got = quantile(&left, q).unwrap();
            prop_assert!((got - exact).abs() <= ALPHA * 1.0001 * exact.abs() + SMALLEST, "{} is not {}", got, exact);
        }
    }

    #[test]
    fn zero_and_infinity_are_kept() {
        let sketch = vec![(bucket(f64::NEG_INFINITY), 1), (bucket(0.0), 1), (bucket(f64::INFINITY), 1)];
        assert_eq!(quantile(&sketch, 0.0), Some(f64::NEG_INFINITY));
        assert_eq!(quantile(&sketch, 0.5), Some(0.0));
        assert_eq!(quantile(&sketch, 1.0), Some(f64::INFINITY));
    }
}
