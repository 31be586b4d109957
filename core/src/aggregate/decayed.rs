//! `decayed_sum`, `decayed_count` and `decayed_avg`: an event counts half as much each half-life that it is older.
//!
//! ```text
//!  value at T = Σ xᵢ · 2^−((T − tᵢ) / half-life)         partial = (t, Σ as it is at t, Σ of weights at t)
//!  merge: both sums are taken to the later t, then added
//! ```
//! Forward decay (Cormode, Shkapenyuk, Srivastava, Xu: "Forward decay: a practical time decay model for streaming
//! systems", ICDE 2009) with the newest event as its landmark, so that nothing overflows.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, Float64Array};
use arrow::datatypes::DataType;

use super::double_double::{DoubleDouble, Reader};
use super::sum::floats;
use super::{Aggregation, Events, Inverse};
use crate::Result;
use crate::definition::Micros;

/// What of the sum and the weights is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Of {
    Sum,
    Count,
    Avg,
}

#[derive(Debug)]
pub(super) struct Decayed {
    pub(super) of: Of,
    /// Microseconds.
    pub(super) half_life: Micros,
    /// Whether there is an argument whose NULLs do not count.
    pub(super) has_argument: bool,
}

/// Sum and weights as they are at the time of the newest event.
#[derive(Debug, Clone, Copy)]
pub(super) struct Weighted {
    time: Micros,
    sum: DoubleDouble,
    weight: f64,
}

impl Decayed {
    /// The share that is left after some microseconds.
    fn left(&self, after: Micros) -> f64 {
        (-(after as f64) / self.half_life as f64).exp2()
    }
}

impl Aggregation for Decayed {
    type Partial = Weighted;

    fn return_type(&self) -> DataType {
        DataType::Float64
    }

    fn lift(&self, events: &Events<'_>) -> Result<Vec<Option<Weighted>>> {
        let values = match events.args.first().filter(|_| self.has_argument) {
            None => Float64Array::from(vec![1.0; events.time.len()]),
            Some(arg) if self.of == Of::Count => Float64Array::new(vec![1.0; arg.len()].into(), arg.logical_nulls()),
            Some(arg) => floats(arg)?,
        };
        let one = |(time, value): (&Micros, Option<f64>)| {
            value.map(|value| Weighted { time: *time, sum: value.into(), weight: 1.0 })
        };
        Ok(events.time.iter().zip(&values).map(one).collect())
    }

    fn inverse(&self) -> Option<Inverse<Self::Partial>> {
        Some(|p| Weighted { time: p.time, sum: p.sum.neg(), weight: -p.weight })
    }

    fn merge(&self, into: &mut Weighted, other: &Weighted) {
        let (mut later, mut earlier) = (*other, *into);
        if later.time < earlier.time {
            std::mem::swap(&mut later, &mut earlier);
        }
        let share = self.left(later.time.saturating_sub(earlier.time));
        let sum = later.sum.add(earlier.sum.mul(share.into()));
        *into = Weighted { time: later.time, sum, weight: later.weight + earlier.weight * share };
    }

    fn finish(&self, partials: &[Option<Weighted>]) -> Result<ArrayRef> {
        let at: Vec<_> = partials.iter().map(|p| p.map_or(0, |p| p.time)).collect();
        self.finish_at(partials, &at)
    }

    fn finish_at(&self, partials: &[Option<Weighted>], at: &[Micros]) -> Result<ArrayRef> {
        let value = |(p, at): (&Option<Weighted>, &Micros)| {
            let Some(p) = p else { return (self.of == Of::Count).then_some(0.0) };
            let share = self.left(at.saturating_sub(p.time));
            Some(match self.of {
                Of::Sum => p.sum.value() * share,
                Of::Count => p.weight * share,
                Of::Avg => p.sum.value() / p.weight,
            })
        };
        Ok(Arc::new(partials.iter().zip(at).map(value).collect::<Float64Array>()))
    }

    /// Time of the newest event, sum (two doubles), sum of weights.
    fn encode(&self, partial: &Weighted, out: &mut Vec<u8>) {
        out.extend(partial.time.to_le_bytes());
        partial.sum.encode(out);
        out.extend(partial.weight.to_le_bytes());
    }

    fn decode(&self, bytes: &[u8]) -> Result<Weighted> {
        let mut reader = Reader(bytes);
        let time = i64::from_le_bytes(reader.array()?);
        Ok(Weighted { time, sum: reader.double_double()?, weight: f64::from_le_bytes(reader.array()?) })
    }
}
