//! `count`, `sum` and `avg`.

use std::ops::Range;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Float64Array, Int64Array, UInt64Array};
use arrow::buffer::ScalarBuffer;
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float64Type, Int64Type, UInt64Type};

use super::double_double::{DoubleDouble, Reader};
use super::kernels::{Counts, Seen, Sums, both, counted, float_sums, integer_sums, truth};
use super::{Aggregation, Events, Inverse};
use crate::{Error, Result};

/// `count(*)` and `count(x)`: with `count_if` the only aggregations whose empty window is not NULL.
#[derive(Debug)]
pub(super) struct Count;

impl Aggregation for Count {
    type Partial = u64;

    fn return_type(&self) -> DataType {
        DataType::Int64
    }

    fn lift(&self, events: &Events<'_>) -> Result<Vec<Option<u64>>> {
        let nulls = events.args.first().and_then(|a| a.logical_nulls());
        let counts = |row: usize| nulls.as_ref().is_none_or(|n| n.is_valid(row)).then_some(1);
        Ok((0..events.time.len()).map(counts).collect())
    }

    fn windows(&self, events: &Events<'_>, ranges: &[&[Range<usize>]]) -> Result<Option<Vec<ArrayRef>>> {
        let values = |r: &&[Range<usize>]| Ok(counts(&*Seen::new(events, events.args.first(), r)?));
        ranges.iter().map(values).collect::<Result<_>>().map(Some)
    }

    fn inverse(&self) -> Option<Inverse<Self::Partial>> {
        Some(|n| n.wrapping_neg())
    }

    fn merge(&self, into: &mut u64, other: &u64) {
        *into = into.wrapping_add(*other);
    }

    fn finish(&self, partials: &[Option<u64>]) -> Result<ArrayRef> {
        Ok(Arc::new(Int64Array::from_iter_values(partials.iter().map(|p| p.unwrap_or(0) as i64))))
    }

    fn encode(&self, partial: &u64, out: &mut Vec<u8>) {
        out.extend(partial.to_le_bytes());
    }

    fn decode(&self, bytes: &[u8]) -> Result<u64> {
        Reader(bytes).u64()
    }
}

fn counts(seen: &Seen) -> ArrayRef {
    Arc::new(Int64Array::from_iter_values(seen.counts.iter().map(|n| i64::from(*n))))
}

/// `count_if(condition)`: the events for which it is true.
#[derive(Debug)]
pub(super) struct CountIf;

impl Aggregation for CountIf {
    type Partial = u64;

    fn return_type(&self) -> DataType {
        DataType::Int64
    }

    fn lift(&self, events: &Events<'_>) -> Result<Vec<Option<u64>>> {
        Ok(events.args[0].as_boolean().iter().map(|v| (v == Some(true)).then_some(1)).collect())
    }

    fn windows(&self, events: &Events<'_>, ranges: &[&[Range<usize>]]) -> Result<Option<Vec<ArrayRef>>> {
        let true_ones = both(Some(truth(events.args[0].as_boolean())), events.filter.map(truth));
        let index = Counts::new(true_ones.as_ref());
        Ok(Some(ranges.iter().map(|r| counts(&Seen::from_counts(&index, r))).collect()))
    }

    fn inverse(&self) -> Option<Inverse<Self::Partial>> {
        Some(|n| n.wrapping_neg())
    }

    fn merge(&self, into: &mut u64, other: &u64) {
        *into = into.wrapping_add(*other);
    }

    fn finish(&self, partials: &[Option<u64>]) -> Result<ArrayRef> {
        Count.finish(partials)
    }

    fn encode(&self, partial: &u64, out: &mut Vec<u8>) {
        out.extend(partial.to_le_bytes());
    }

    fn decode(&self, bytes: &[u8]) -> Result<u64> {
        Reader(bytes).u64()
    }
}

/// `sum` of integers: exact, an overflow of the result's type is an error.
#[derive(Debug)]
pub(super) struct SumInt {
    pub(super) unsigned: bool,
}

impl Aggregation for SumInt {
    type Partial = i128;

    fn return_type(&self) -> DataType {
        if self.unsigned { DataType::UInt64 } else { DataType::Int64 }
    }

    fn lift(&self, events: &Events<'_>) -> Result<Vec<Option<i128>>> {
        let values = cast(&events.args[0], &self.return_type())?;
        Ok(if self.unsigned {
            values.as_primitive::<UInt64Type>().iter().map(|v| v.map(i128::from)).collect()
        } else {
            values.as_primitive::<Int64Type>().iter().map(|v| v.map(i128::from)).collect()
        })
    }

    fn windows(&self, events: &Events<'_>, ranges: &[&[Range<usize>]]) -> Result<Option<Vec<ArrayRef>>> {
        let nulls = |r: &[Range<usize>]| Ok::<_, Error>(Seen::new(events, Some(&events.args[0]), r)?.nulls.clone());
        if let Some(prefix) = integer_sums(events, &events.args[0])?.as_ref() {
            let one = |r: &&[Range<usize>]| {
                let sums = Int64Array::new(r.iter().map(|r| prefix[r.end] - prefix[r.start]).collect(), nulls(r)?);
                Ok(cast(&sums, &self.return_type())?)
            };
            return ranges.iter().map(one).collect::<Result<_>>().map(Some);
        }
        let counted = counted(events, Some(&events.args[0]));
        let values = cast(&events.args[0], &self.return_type())?;
        let counts = |row: usize| counted.as_ref().is_none_or(|c| c.value(row));
        let rows = 0..values.len();
        let sums = if self.unsigned {
            let values = values.as_primitive::<UInt64Type>().values();
            Sums::of_integers(rows.map(|row| if counts(row) { values[row].into() } else { 0 }))
        } else {
            let values = values.as_primitive::<Int64Type>().values();
            Sums::of_integers(rows.map(|row| if counts(row) { values[row].into() } else { 0 }))
        };
        let one = |r: &&[Range<usize>]| {
            let nulls = nulls(r)?;
            let units = r.iter().map(|r| sums.units(r));
            Ok::<ArrayRef, Error>(if self.unsigned {
                let values = units.map(u64::try_from).collect::<Result<Vec<_>, _>>().map_err(overflow)?;
                Arc::new(UInt64Array::new(values.into(), nulls))
            } else {
                let values = units.map(i64::try_from).collect::<Result<Vec<_>, _>>().map_err(overflow)?;
                Arc::new(Int64Array::new(values.into(), nulls))
            })
        };
        ranges.iter().map(one).collect::<Result<_>>().map(Some)
    }

    fn inverse(&self) -> Option<Inverse<Self::Partial>> {
        Some(|sum| -sum)
    }

    fn merge(&self, into: &mut i128, other: &i128) {
        *into += other;
    }

    fn finish(&self, partials: &[Option<i128>]) -> Result<ArrayRef> {
        Ok(if self.unsigned {
            let narrow = |p: &Option<i128>| p.map(u64::try_from).transpose();
            Arc::new(partials.iter().map(narrow).collect::<Result<UInt64Array, _>>().map_err(overflow)?)
        } else {
            let narrow = |p: &Option<i128>| p.map(i64::try_from).transpose();
            Arc::new(partials.iter().map(narrow).collect::<Result<Int64Array, _>>().map_err(overflow)?)
        })
    }

    fn encode(&self, partial: &i128, out: &mut Vec<u8>) {
        out.extend(partial.to_le_bytes());
    }

    fn decode(&self, bytes: &[u8]) -> Result<i128> {
        Reader(bytes).array().map(i128::from_le_bytes)
    }
}

fn overflow(_: std::num::TryFromIntError) -> Error {
    Error::data("sum of integers overflows 64 bits: cast the argument to DOUBLE")
}

/// `sum` of floats.
#[derive(Debug)]
pub(super) struct SumFloat;

impl Aggregation for SumFloat {
    type Partial = DoubleDouble;

    fn return_type(&self) -> DataType {
        DataType::Float64
    }

    fn lift(&self, events: &Events<'_>) -> Result<Vec<Option<DoubleDouble>>> {
        Ok(floats(&events.args[0])?.iter().map(|v| v.map(DoubleDouble::from)).collect())
    }

    fn windows(&self, events: &Events<'_>, ranges: &[&[Range<usize>]]) -> Result<Option<Vec<ArrayRef>>> {
        exact(events, ranges, |sums, _| sums)
    }

    fn inverse(&self) -> Option<Inverse<Self::Partial>> {
        Some(|sum| sum.neg())
    }

    fn merge(&self, into: &mut DoubleDouble, other: &DoubleDouble) {
        *into = into.add(*other);
    }

    fn finish(&self, partials: &[Option<DoubleDouble>]) -> Result<ArrayRef> {
        Ok(Arc::new(partials.iter().map(|p| p.map(DoubleDouble::value)).collect::<Float64Array>()))
    }

    fn encode(&self, partial: &DoubleDouble, out: &mut Vec<u8>) {
        partial.encode(out);
    }

    fn decode(&self, bytes: &[u8]) -> Result<DoubleDouble> {
        Reader(bytes).double_double()
    }
}

/// `avg`: sum and count.
#[derive(Debug)]
pub(super) struct Avg;

impl Aggregation for Avg {
    type Partial = (DoubleDouble, u64);

    fn return_type(&self) -> DataType {
        DataType::Float64
    }

    fn lift(&self, events: &Events<'_>) -> Result<Vec<Option<Self::Partial>>> {
        Ok(floats(&events.args[0])?.iter().map(|v| v.map(|v| (v.into(), 1))).collect())
    }

    fn windows(&self, events: &Events<'_>, ranges: &[&[Range<usize>]]) -> Result<Option<Vec<ArrayRef>>> {
        exact(events, ranges, |sums, counts| {
            sums.iter().zip(counts).map(|(sum, n)| sum / f64::from(*n)).collect::<Vec<_>>().into()
        })
    }

    fn inverse(&self) -> Option<Inverse<Self::Partial>> {
        Some(|(sum, n)| (sum.neg(), n.wrapping_neg()))
    }

    fn merge(&self, into: &mut Self::Partial, other: &Self::Partial) {
        *into = (into.0.add(other.0), into.1.wrapping_add(other.1));
    }

    fn finish(&self, partials: &[Option<Self::Partial>]) -> Result<ArrayRef> {
        let mean = |(sum, n): (DoubleDouble, u64)| sum.value() / n as f64;
        Ok(Arc::new(partials.iter().map(|p| p.map(mean)).collect::<Float64Array>()))
    }

    fn encode(&self, partial: &Self::Partial, out: &mut Vec<u8>) {
        partial.0.encode(out);
        out.extend(partial.1.to_le_bytes());
    }

    fn decode(&self, bytes: &[u8]) -> Result<Self::Partial> {
        let mut reader = Reader(bytes);
        Ok((reader.double_double()?, reader.u64()?))
    }
}

/// The values made of the exact sums and the counts of the ranges, if these floats have exact sums.
fn exact(
    events: &Events<'_>,
    ranges: &[&[Range<usize>]],
    value: impl Fn(ScalarBuffer<f64>, &[u32]) -> ScalarBuffer<f64>,
) -> Result<Option<Vec<ArrayRef>>> {
    let arg = &events.args[0];
    let one = |r: &&[Range<usize>]| {
        let Some(sums) = float_sums(events, arg, r)? else { return Ok(None) };
        let seen = Seen::new(events, Some(arg), r)?;
        let values = value(sums, &seen.counts);
        Ok(Some(Arc::new(Float64Array::new(values, seen.nulls.clone())) as ArrayRef))
    };
    ranges.iter().map(one).collect()
}

/// Any numeric column as doubles.
pub(super) fn floats(array: &ArrayRef) -> Result<Float64Array> {
    Ok(cast(array, &DataType::Float64)?.as_primitive::<Float64Type>().clone())
}
