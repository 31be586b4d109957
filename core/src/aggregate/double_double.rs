//! Sums that do not depend on the order of their terms, for all that matters here.
//!
//! A value is carried as the unevaluated sum of two doubles, about 106 bits (Dekker, "A floating-point technique for
//! extending the available precision", 1971; Knuth's two-sum). Two evaluators that add the same terms in different
//! orders then agree to far better than 1e-9, even where the terms cancel.

use crate::{Error, Result};

/// An unevaluated sum `hi + lo`.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(super) struct DoubleDouble {
    hi: f64,
    lo: f64,
}

impl From<f64> for DoubleDouble {
    fn from(hi: f64) -> Self {
        Self { hi, lo: 0.0 }
    }
}

impl DoubleDouble {
    /// The exact square of `x`, unless it overflows.
    pub(super) fn square(x: f64) -> Self {
        let hi = x * x;
        let lo = if hi.is_finite() { x.mul_add(x, -hi) } else { 0.0 };
        Self { hi, lo }
    }

    /// The sum of three numbers, each of which is zero or greater than those after it together.
    pub(super) fn descending([high, middle, low]: [f64; 3]) -> Self {
        let (s, e) = quick_two_sum(high, middle);
        let (s, f) = two_sum(s, low);
        let (hi, lo) = quick_two_sum(s, e + f);
        Self { hi, lo }
    }

    /// This times a power of two.
    pub(super) fn scaled(self, by: f64) -> Self {
        Self { hi: self.hi * by, lo: self.lo * by }
    }

    pub(super) fn add(self, other: Self) -> Self {
        let (s, e) = two_sum(self.hi, other.hi);
        if !s.is_finite() {
            return Self { hi: s, lo: 0.0 };
        }
        let (t, f) = two_sum(self.lo, other.lo);
        let (s, e) = quick_two_sum(s, e + t);
        let (hi, lo) = quick_two_sum(s, e + f);
        Self { hi, lo }
    }

    pub(super) fn neg(self) -> Self {
        Self { hi: -self.hi, lo: -self.lo }
    }

    pub(super) fn mul(self, other: Self) -> Self {
        let hi = self.hi * other.hi;
        let lo = self.hi.mul_add(other.hi, -hi) + (self.hi * other.lo + self.lo * other.hi);
        let (hi, lo) = quick_two_sum(hi, lo);
        Self { hi, lo }
    }

    pub(super) fn div(self, by: f64) -> Self {
        let q = self.hi / by;
        let rest = self.add(Self { hi: q, lo: 0.0 }.mul(by.into()).neg());
        let (hi, lo) = quick_two_sum(q, rest.hi / by);
        Self { hi, lo }
    }

    pub(super) fn high(self) -> f64 {
        self.hi
    }

    pub(super) fn low(self) -> f64 {
        self.lo
    }

    pub(super) fn value(self) -> f64 {
        self.hi + self.lo
    }

    pub(super) fn encode(self, out: &mut Vec<u8>) {
        out.extend(self.hi.to_le_bytes());
        out.extend(self.lo.to_le_bytes());
    }
}

fn two_sum(a: f64, b: f64) -> (f64, f64) {
    let s = a + b;
    let bb = s - a;
    (s, (a - (s - bb)) + (b - bb))
}

fn quick_two_sum(a: f64, b: f64) -> (f64, f64) {
    let s = a + b;
    (s, b - (s - a))
}

/// Reads little-endian numbers of a partial one after the other.
pub(super) struct Reader<'a>(pub(super) &'a [u8]);

impl<'a> Reader<'a> {
    pub(super) fn bytes(&mut self, n: usize) -> Result<&'a [u8]> {
        let (head, tail) = self.0.split_at_checked(n).ok_or_else(|| Error::data("a stored partial is too short"))?;
        self.0 = tail;
        Ok(head)
    }

    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        self.bytes(N).map(|b| std::array::from_fn(|i| b[i]))
    }

    pub(super) fn u64(&mut self) -> Result<u64> {
        self.array().map(u64::from_le_bytes)
    }

    pub(super) fn double_double(&mut self) -> Result<DoubleDouble> {
        Ok(DoubleDouble { hi: f64::from_le_bytes(self.array()?), lo: f64::from_le_bytes(self.array()?) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cancelling_terms_leave_what_is_left() {
        let sum = [1e16, 1.0, -1e16, 1e-3].iter().fold(DoubleDouble::default(), |s, x| s.add((*x).into()));
        assert_eq!(sum.value(), 1.001);
    }

    #[test]
    fn infinity_stays_infinity() {
        let sum = DoubleDouble::from(f64::INFINITY).add(1.0.into());
        assert_eq!(sum.value(), f64::INFINITY);
        assert!(sum.add(f64::NEG_INFINITY.into()).value().is_nan());
    }
}
