//! `min`, `max`, `first_value` and `last_value` of any scalar type.

use std::cmp::Ordering;
use std::ops::Range;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, DynComparator, Float64Array, Int64Array, UInt32Array, make_comparator};
use arrow::buffer::{BooleanBuffer, NullBuffer};
use arrow::compute::{SortOptions, cast, take};
use arrow::datatypes::{DataType, Float64Type, Int64Type};

use super::double_double::Reader;
use super::kernels::{Minima, Seen, counted, extremes, put_where_not};
use super::{Aggregation, Events};
use crate::{Result, ordered};

/// `min` and `max`. The partial is the value as [ordered](crate::ordered) bytes.
#[derive(Debug)]
pub(super) struct Extreme {
    pub(super) data_type: DataType,
    pub(super) max: bool,
}

impl Aggregation for Extreme {
    type Partial = Box<[u8]>;

    fn return_type(&self) -> DataType {
        self.data_type.clone()
    }

    fn lift(&self, events: &Events<'_>) -> Result<Vec<Option<Self::Partial>>> {
        ordered::encode(&events.args[0])
    }

    fn windows(&self, events: &Events<'_>, ranges: &[&[Range<usize>]]) -> Result<Option<Vec<ArrayRef>>> {
        let Some(keys) = Keys::new(&self.data_type, self.max) else { return Ok(None) };
        let arg = &events.args[0];
        let lane = usize::from(self.max);
        let both = |r: &&[Range<usize>]| {
            let plain = || Keys { max: false, ..keys }.of(arg);
            let Some(pairs) = extremes(events, arg, r, plain)? else { return Ok(None) };
            keys.values(pairs.iter().map(|p| p[lane]), Seen::new(events, Some(arg), r)?.nulls.clone()).map(Some)
        };
        if let Some(values) = ranges.iter().map(both).collect::<Result<Option<Vec<_>>>>()? {
            return Ok(Some(values));
        }
        let counted = counted(events, Some(arg));
        let mut rows = keys.of(arg)?;
        if let Some(counted) = &counted {
            put_where_not(counted, i64::MAX, &mut rows);
        }
        let minima = Minima::new(rows);
        let values = |r: &&[Range<usize>]| {
            let seen = Seen::new(events, Some(&events.args[0]), r)?;
            keys.values(r.iter().map(|r| minima.of(r)), seen.nulls.clone())
        };
        ranges.iter().map(values).collect::<Result<_>>().map(Some)
    }

    fn merge(&self, into: &mut Self::Partial, other: &Self::Partial) {
        if if self.max { other > into } else { other < into } {
            into.clone_from(other);
        }
    }

    fn finish(&self, partials: &[Option<Self::Partial>]) -> Result<ArrayRef> {
        ordered::decode(&self.data_type, partials.iter().map(Option::as_deref))
    }

    fn encode(&self, partial: &Self::Partial, out: &mut Vec<u8>) {
        out.push(1);
        out.extend(&partial[..]);
    }

    fn decode(&self, bytes: &[u8]) -> Result<Self::Partial> {
        let mut reader = Reader(bytes);
        reader.bytes(1)?;
        Ok(reader.0.into())
    }
}

/// Values of at most 64 bits as integers of the same order, or of the opposite one for a maximum.
struct Keys<'a> {
    data_type: &'a DataType,
    float: bool,
    max: bool,
}

impl<'a> Keys<'a> {
    fn new(data_type: &'a DataType, max: bool) -> Option<Self> {
        use DataType as D;
        let float = matches!(data_type, D::Float16 | D::Float32 | D::Float64);
        let integer = matches!(
            data_type,
            D::Int8 | D::Int16 | D::Int32 | D::Int64 | D::UInt8 | D::UInt16 | D::UInt32 | D::Date64 | D::Timestamp(..)
        );
        (float || integer).then_some(Self { data_type, float, max })
    }

    fn of(&self, values: &ArrayRef) -> Result<Vec<i64>> {
        let turn = |key: i64| if self.max { !key } else { key };
        Ok(if self.float {
            let values = cast(values, &DataType::Float64)?;
            values.as_primitive::<Float64Type>().values().iter().map(|v| turn(float_key(v.to_bits() as i64))).collect()
        } else {
            let values = cast(values, &DataType::Int64)?;
            values.as_primitive::<Int64Type>().values().iter().map(|v| turn(*v)).collect()
        })
    }

    fn values(&self, keys: impl Iterator<Item = i64>, nulls: Option<NullBuffer>) -> Result<ArrayRef> {
        let keys = keys.map(|key| if self.max { !key } else { key });
        let values: ArrayRef = if self.float {
            let values: Vec<f64> = keys.map(|k| f64::from_bits(float_key(k) as u64)).collect();
            Arc::new(Float64Array::new(values.into(), nulls))
        } else {
            Arc::new(Int64Array::new(keys.collect::<Vec<_>>().into(), nulls))
        };
        Ok(cast(&values, self.data_type)?)
    }
}

/// The bits of a double in IEEE total order as an integer; its own inverse.
fn float_key(bits: i64) -> i64 {
    bits ^ ((bits >> 63) as u64 >> 1) as i64
}

/// `first_value` and `last_value` by `(event time, sequence, value)`: a total order, so that ties are broken the same
/// way everywhere. Without a sequence column the value itself decides: the smallest is first, the greatest is last.
#[derive(Debug)]
pub(super) struct Edge {
    pub(super) data_type: DataType,
    pub(super) last: bool,
}

/// Ordered as its fields are.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Stamped {
    time: i64,
    sequence: Box<[u8]>,
    value: Box<[u8]>,
}

impl Aggregation for Edge {
    type Partial = Stamped;

    fn return_type(&self) -> DataType {
        self.data_type.clone()
    }

    fn lift(&self, events: &Events<'_>) -> Result<Vec<Option<Stamped>>> {
        let sequences = events.sequence.map(ordered::encode).transpose()?;
        let values = ordered::encode(&events.args[0])?;
        let stamp = |(row, value): (usize, Option<Box<[u8]>>)| {
            let sequence = sequences.as_ref().and_then(|s| s[row].clone()).unwrap_or_default();
            value.map(|value| Stamped { time: events.time[row], sequence, value })
        };
        Ok(values.into_iter().enumerate().map(stamp).collect())
    }

    fn windows(&self, events: &Events<'_>, ranges: &[&[Range<usize>]]) -> Result<Option<Vec<ArrayRef>>> {
        let counted = counted(events, Some(&events.args[0]));
        let edges = edges(events.time.len(), counted.as_ref(), self.last);
        let order = TieOrder::new(events)?;
        let one = |r: &Range<usize>| {
            let row = if self.last { r.end.wrapping_sub(1) } else { r.start };
            match edges.get(row) {
                Some(row) if r.contains(&(*row as usize)) => order.winner(*row as usize, r, &counted, self.last) as u32,
                _ => NO_ROW,
            }
        };
        let values = |r: &&[Range<usize>]| {
            let rows: Vec<u32> = r.iter().map(one).collect();
            let nulls = NullBuffer::new(BooleanBuffer::collect_bool(rows.len(), |i| rows[i] != NO_ROW));
            let nulls = Some(nulls).filter(|n| n.null_count() > 0);
            Ok(take(&events.args[0], &UInt32Array::new(rows.into(), nulls), None)?)
        };
        ranges.iter().map(values).collect::<Result<_>>().map(Some)
    }

    fn merge(&self, into: &mut Stamped, other: &Stamped) {
        if if self.last { other > into } else { other < into } {
            into.clone_from(other);
        }
    }

    fn finish(&self, partials: &[Option<Stamped>]) -> Result<ArrayRef> {
        ordered::decode(&self.data_type, partials.iter().map(|p| p.as_ref().map(|p| &*p.value)))
    }

    fn encode(&self, partial: &Stamped, out: &mut Vec<u8>) {
        out.extend(partial.time.to_le_bytes());
        out.extend((partial.sequence.len() as u64).to_le_bytes());
        out.extend(&partial.sequence[..]);
        out.extend(&partial.value[..]);
    }

    fn decode(&self, bytes: &[u8]) -> Result<Stamped> {
        let mut reader = Reader(bytes);
        let time = i64::from_le_bytes(reader.array()?);
        let len = reader.u64()?;
        let sequence = reader.bytes(usize::try_from(len).unwrap_or(usize::MAX))?.into();
        Ok(Stamped { time, sequence, value: reader.0.into() })
    }
}

/// Stands for no row; a chunk of events is shorter.
const NO_ROW: u32 = u32::MAX;

/// For each row the last row that counts at or before it, or with `!last` the first one at or after it.
fn edges(rows: usize, counted: Option<&BooleanBuffer>, last: bool) -> Vec<u32> {
    let mut out: Vec<u32> = (0..rows as u32).collect();
    let Some(counted) = counted else { return out };
    put_where_not(counted, NO_ROW, &mut out);
    let mut known = NO_ROW;
    let mut see = |row: &mut u32| {
        known = if *row == NO_ROW { known } else { *row };
        *row = known;
    };
    if last {
        out.iter_mut().for_each(&mut see)
    } else {
        out.iter_mut().rev().for_each(&mut see)
    }
    out
}

/// Orders events of equal time.
struct TieOrder<'a> {
    time: &'a [i64],
    comparators: Vec<DynComparator>,
}

impl<'a> TieOrder<'a> {
    fn new(events: &Events<'a>) -> Result<Self> {
        let nulls_first = SortOptions { descending: false, nulls_first: true };
        let columns = events.sequence.into_iter().chain(&events.args[..1]);
        let one = |c: &ArrayRef| make_comparator(c.as_ref(), c.as_ref(), nulls_first);
        Ok(Self { time: events.time, comparators: columns.map(one).collect::<Result<_, _>>()? })
    }

    fn cmp(&self, a: usize, b: usize) -> Ordering {
        self.comparators.iter().fold(Ordering::Equal, |order, c| order.then_with(|| c(a, b)))
    }

    /// Of the rows of `range` that count and have the time of `row`, an outermost one, the last or the first.
    fn winner(&self, row: usize, range: &Range<usize>, counted: &Option<BooleanBuffer>, last: bool) -> usize {
        let tied = |r: &usize| self.time[*r] == self.time[row];
        let counts = |r: &usize| counted.as_ref().is_none_or(|c| c.value(*r));
        let better = |best: usize, r: usize| {
            let wanted = if last { Ordering::Greater } else { Ordering::Less };
            if self.cmp(r, best) == wanted { r } else { best }
        };
        if last {
            (range.start..row).rev().take_while(tied).filter(counts).fold(row, better)
        } else {
            (row + 1..range.end).take_while(tied).filter(counts).fold(row, better)
        }
    }
}
