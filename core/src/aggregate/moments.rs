//! Variance, skewness, kurtosis, covariance and correlation.

use std::ops::Range;
use std::sync::Arc;

use arrow::array::{ArrayRef, Float64Array};
use arrow::datatypes::DataType;

use super::double_double::{DoubleDouble, Reader};
use super::kernels::{Seen, sums_and_squares};
use super::sum::floats;
use super::{Aggregation, Events, Inverse};
use crate::Result;

/// Variance from count, sum and sum of squares. The two sums have about 106 bits, so the textbook formula
/// `(nΣx² − (Σx)²) / (n (n − ddof))` loses nothing that a double could show, and the partials add up in any order.
#[derive(Debug)]
pub(super) struct Variance {
    /// 0 for the population, 1 for a sample.
    pub(super) ddof: u64,
    /// Whether to take the square root.
    pub(super) root: bool,
}

/// Count, Σx and Σx².
#[derive(Debug, Clone, Copy)]
pub(super) struct Moments {
    n: u64,
    sum: DoubleDouble,
    squares: DoubleDouble,
}

impl Variance {
    fn value(&self, m: &Moments) -> Option<f64> {
        if m.n <= self.ddof {
            return None;
        }
        let n = m.n as f64;
        let centred = m.squares.mul(n.into()).add(m.sum.mul(m.sum).neg()).value();
        let variance = if centred < 0.0 { 0.0 } else { centred } / (n * (m.n - self.ddof) as f64);
        Some(if self.root { variance.sqrt() } else { variance })
    }
}

impl Aggregation for Variance {
    type Partial = Moments;

    fn return_type(&self) -> DataType {
        DataType::Float64
    }

    fn lift(&self, events: &Events<'_>) -> Result<Vec<Option<Moments>>> {
        let lift = |x: f64| Moments { n: 1, sum: x.into(), squares: DoubleDouble::square(x) };
        Ok(floats(&events.args[0])?.iter().map(|v| v.map(lift)).collect())
    }

    fn windows(&self, events: &Events<'_>, ranges: &[&[Range<usize>]]) -> Result<Option<Vec<ArrayRef>>> {
        let Some(exact) = sums_and_squares(events, &events.args[0])? else { return Ok(None) };
        let [Some(sums), Some(high), Some(low)] = exact.each_ref().map(|s| s.as_ref().as_ref()) else {
            return Ok(None);
        };
        let one = |r: &&[Range<usize>]| {
            let seen = Seen::new(events, Some(&events.args[0]), r)?;
            let moments = |(range, n): (&Range<usize>, &u32)| Moments {
                n: u64::from(*n),
                sum: sums.double_double(range),
                squares: high.double_double(range).add(low.double_double(range)),
            };
            let value = |of: (&Range<usize>, &u32)| (*of.1 > 0).then(|| self.value(&moments(of))).flatten();
            Ok(Arc::new(r.iter().zip(&seen.counts).map(value).collect::<Float64Array>()) as ArrayRef)
        };
        ranges.iter().map(one).collect::<Result<_>>().map(Some)
    }

    fn inverse(&self) -> Option<Inverse<Self::Partial>> {
        Some(|m| Moments { n: m.n.wrapping_neg(), sum: m.sum.neg(), squares: m.squares.neg() })
    }

    fn merge(&self, into: &mut Moments, other: &Moments) {
        into.n = into.n.wrapping_add(other.n);
        into.sum = into.sum.add(other.sum);
        into.squares = into.squares.add(other.squares);
    }

    fn finish(&self, partials: &[Option<Moments>]) -> Result<ArrayRef> {
        Ok(Arc::new(partials.iter().map(|p| p.as_ref().and_then(|m| self.value(m))).collect::<Float64Array>()))
    }

    fn encode(&self, m: &Moments, out: &mut Vec<u8>) {
        out.extend(m.n.to_le_bytes());
        m.sum.encode(out);
        m.squares.encode(out);
    }

    fn decode(&self, bytes: &[u8]) -> Result<Moments> {
        let mut reader = Reader(bytes);
        Ok(Moments { n: reader.u64()?, sum: reader.double_double()?, squares: reader.double_double()? })
    }
}

/// `skewness` and `kurtosis` of the population: m₃ / m₂^(3/2), and m₄ / m₂² − 3. NULL where all values are equal.
///
/// Kept as Σx … Σx⁴, each with about 106 bits, for the reason given at [`Variance`]. What a large value took of those
/// bits does not come back when it is taken back, so there is no inverse.
#[derive(Debug)]
pub(super) struct Shape {
    pub(super) kurtosis: bool,
}

/// Count, and Σx to Σx⁴.
pub(super) type Powers = (u64, [DoubleDouble; 4]);

impl Shape {
    fn value(&self, (n, [s1, s2, s3, s4]): &Powers) -> Option<f64> {
        let n = *n as f64;
        let times = |k: f64, x: DoubleDouble| x.mul(k.into());
        let mean = s1.div(n);
        let square = mean.mul(mean);
        let m2 = s2.div(n).add(square.neg());
        let scale = s2.div(n).value();
        if m2.value() <= scale * 1e-28 {
            return None;
        }
        if self.kurtosis {
            let m4 = s4.div(n).add(times(-4.0, mean.mul(s3.div(n)))).add(times(6.0, square.mul(s2.div(n))));
            let m4 = m4.add(times(-3.0, square.mul(square)));
            return Some(m4.value() / (m2.value() * m2.value()) - 3.0);
        }
        let m3 = s3.div(n).add(times(-3.0, mean.mul(s2.div(n)))).add(times(2.0, square.mul(mean)));
        Some(m3.value() / m2.value().powf(1.5))
    }
}

impl Aggregation for Shape {
    type Partial = Powers;

    fn return_type(&self) -> DataType {
        DataType::Float64
    }

    fn lift(&self, events: &Events<'_>) -> Result<Vec<Option<Powers>>> {
        let lift = |x: f64| {
            let square = DoubleDouble::square(x);
            (1, [x.into(), square, square.mul(x.into()), square.mul(square)])
        };
        Ok(floats(&events.args[0])?.iter().map(|v| v.map(lift)).collect())
    }

    fn merge(&self, into: &mut Powers, other: &Powers) {
        into.0 = into.0.wrapping_add(other.0);
        into.1.iter_mut().zip(other.1).for_each(|(a, b)| *a = a.add(b));
    }

    fn finish(&self, partials: &[Option<Powers>]) -> Result<ArrayRef> {
        Ok(Arc::new(partials.iter().map(|p| p.as_ref().and_then(|m| self.value(m))).collect::<Float64Array>()))
    }

    fn encode(&self, (n, sums): &Powers, out: &mut Vec<u8>) {
        out.extend(n.to_le_bytes());
        sums.iter().for_each(|s| s.encode(out));
    }

    fn decode(&self, bytes: &[u8]) -> Result<Powers> {
        let mut reader = Reader(bytes);
        let n = reader.u64()?;
        let mut sum = || reader.double_double();
        Ok((n, [sum()?, sum()?, sum()?, sum()?]))
    }
}

/// What [`Pair`] gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Together {
    CovarPop,
    CovarSamp,
    Corr,
}

/// `covar_pop`, `covar_samp` and `corr` of two arguments, over the events where neither is NULL.
#[derive(Debug)]
pub(super) struct Pair(pub(super) Together);

/// Count, and Σx, Σy, Σxy, Σx², Σy².
pub(super) type PairSums = (u64, [DoubleDouble; 5]);

impl Pair {
    fn value(&self, (n, [x, y, xy, xx, yy]): &PairSums) -> Option<f64> {
        let count = *n as f64;
        let centred =
            |product: DoubleDouble, a: DoubleDouble, b: DoubleDouble| product.add(a.mul(b).div(count).neg()).value();
        match self.0 {
            Together::CovarPop => Some(centred(*xy, *x, *y) / count),
            Together::CovarSamp => (*n > 1).then(|| centred(*xy, *x, *y) / (count - 1.0)),
            Together::Corr => {
                let (vx, vy) = (centred(*xx, *x, *x), centred(*yy, *y, *y));
                let varies = |v: f64, square: &DoubleDouble| v > square.value() * 1e-28;
                (varies(vx, xx) && varies(vy, yy)).then(|| (centred(*xy, *x, *y) / (vx * vy).sqrt()).clamp(-1.0, 1.0))
            }
        }
    }
}

impl Aggregation for Pair {
    type Partial = PairSums;

    fn return_type(&self) -> DataType {
        DataType::Float64
    }

    fn lift(&self, events: &Events<'_>) -> Result<Vec<Option<PairSums>>> {
        let (xs, ys) = (floats(&events.args[0])?, floats(&events.args[1])?);
        let lift = |(x, y): (Option<f64>, Option<f64>)| {
            let (x, y) = (x?, y?);
            let xy = DoubleDouble::from(x).mul(y.into());
            Some((1, [x.into(), y.into(), xy, DoubleDouble::square(x), DoubleDouble::square(y)]))
        };
        Ok(xs.iter().zip(ys.iter()).map(lift).collect())
    }

    fn inverse(&self) -> Option<Inverse<Self::Partial>> {
        // Whether values vary at all, which decides on NULL, is lost in what a large value leaves behind.
        let inverse: fn(&PairSums) -> PairSums = |(n, sums)| (n.wrapping_neg(), sums.map(DoubleDouble::neg));
        (self.0 != Together::Corr).then_some(inverse)
    }

    fn merge(&self, into: &mut PairSums, other: &PairSums) {
        into.0 = into.0.wrapping_add(other.0);
        into.1.iter_mut().zip(other.1).for_each(|(a, b)| *a = a.add(b));
    }

    fn finish(&self, partials: &[Option<PairSums>]) -> Result<ArrayRef> {
        Ok(Arc::new(partials.iter().map(|p| p.as_ref().and_then(|m| self.value(m))).collect::<Float64Array>()))
    }

    fn encode(&self, (n, sums): &PairSums, out: &mut Vec<u8>) {
        out.extend(n.to_le_bytes());
        sums.iter().for_each(|s| s.encode(out));
    }

    fn decode(&self, bytes: &[u8]) -> Result<PairSums> {
        let mut reader = Reader(bytes);
        let n = reader.u64()?;
        let mut sum = || reader.double_double();
        Ok((n, [sum()?, sum()?, sum()?, sum()?, sum()?]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variance_of_values_far_from_zero_is_stable() {
        let values: Vec<f64> = (0..100_000).map(|i| 100_000.0 + f64::from(i % 1000) / 1000.0).collect();
        let variance = Variance { ddof: 0, root: false };
        let events = Events {
            args: &[Arc::new(Float64Array::from(values)) as ArrayRef],
            time: &[0; 100_000],
            sequence: None,
            filter: None,
            memo: None,
        };
        let all = variance.lift(&events).unwrap().into_iter().flatten().reduce(|mut a, b| {
            variance.merge(&mut a, &b);
            a
        });
        // The variance of k/1000 for k = 0..999 is (1000² − 1) / 12 / 1000².
        let exact = 999_999.0 / 12.0 / 1e6;
        let got = variance.value(&all.unwrap()).unwrap();
        assert!((got / exact - 1.0).abs() < 1e-9, "{got} is not {exact}");
    }
}
