//! `var_pop`, `var_samp`, `stddev_pop`, `stddev_samp`.

use std::sync::Arc;

use arrow::array::{ArrayRef, Float64Array};
use arrow::datatypes::DataType;

use super::double_double::{DoubleDouble, Reader};
use super::sum::floats;
use super::{Aggregation, Events};
use crate::Result;

/// Variance from count, sum and sum of squares. The two sums have about 106 bits, so the textbook formula
/// `(Σx² − (Σx)²/n) / (n − ddof)` loses nothing that a double could show, and the partials add up in any order.
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
        let centred = m.squares.add(m.sum.mul(m.sum).div(m.n as f64).neg()).value();
        let variance = if centred < 0.0 { 0.0 } else { centred } / (m.n - self.ddof) as f64;
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

    fn merge(&self, into: &mut Moments, other: &Moments) {
        into.n += other.n;
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
