//! The k best of something: `first_k`, `last_k`, `top_k`, `bottom_k`, `min_by`, `max_by`, and the distinct values up to a
//! bound.
//!
//! ```text
//!  event ──lift──▶ [entry]      entry = (rank, time, sequence, value): a total order, so nothing depends on arrival
//!  [a c f] ⊕ [b c] ──merge──▶ [a b c …]     sorted, cut at k
//! ```
//! The k best of a union are among the k best of its parts, which is all that a merge needs.

use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, ListArray};
use arrow::buffer::{NullBuffer, OffsetBuffer};
use arrow::datatypes::{DataType, Field};

use super::double_double::Reader;
use super::{Aggregation, Events};
use crate::{Error, Result, ordered};

/// What entries are ordered by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum By {
    /// Event time, sequence, value.
    Time,
    /// The value.
    Value,
    /// The value, each once.
    DistinctValue,
    /// The second argument, then as [`By::Time`].
    Key,
}

/// What becomes of the entries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shape {
    /// A list of their values, in order.
    List,
    /// The value of the first.
    First,
    /// How many there are; none in an empty window is NULL.
    Count,
}

/// The `k` first entries in an order.
#[derive(Debug)]
pub(super) struct Ranked {
    /// Type of a value.
    pub(super) data_type: DataType,
    pub(super) by: By,
    pub(super) descending: bool,
    pub(super) k: usize,
    pub(super) shape: Shape,
}

/// Ordered as its fields are.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Entry {
    rank: Box<[u8]>,
    time: i64,
    sequence: Box<[u8]>,
    value: Box<[u8]>,
}

impl Ranked {
    fn before(&self, a: &Entry, b: &Entry) -> bool {
        if self.descending { a > b } else { a < b }
    }
}

impl Aggregation for Ranked {
    type Partial = Vec<Entry>;

    fn return_type(&self) -> DataType {
        match self.shape {
            Shape::List => DataType::List(Arc::new(Field::new_list_field(self.data_type.clone(), true))),
            Shape::First => self.data_type.clone(),
            Shape::Count => DataType::Int64,
        }
    }

    fn lift(&self, events: &Events<'_>) -> Result<Vec<Option<Vec<Entry>>>> {
        let values = ordered::encode(&events.args[0])?;
        let timed = matches!(self.by, By::Time | By::Key);
        let sequences = events.sequence.filter(|_| timed).map(ordered::encode).transpose()?;
        let ranks = if self.by == By::Key { Some(ordered::encode(&events.args[1])?) } else { None };
        let entry = |(row, value): (usize, Option<Box<[u8]>>)| {
            let rank = match &ranks {
                Some(ranks) => ranks[row].clone()?,
                None => Box::default(),
            };
            let sequence = sequences.as_ref().and_then(|s| s[row].clone()).unwrap_or_default();
            Some(vec![Entry { rank, time: if timed { events.time[row] } else { 0 }, sequence, value: value? }])
        };
        Ok(values.into_iter().enumerate().map(entry).collect())
    }

    fn merge(&self, into: &mut Vec<Entry>, other: &Vec<Entry>) {
        if into.len() == self.k
            && let (Some(last), Some(first)) = (into.last(), other.first())
            && !self.before(first, last)
        {
            return;
        }
        let mut merged = Vec::with_capacity(self.k.min(into.len() + other.len()));
        let (mut a, mut b) = (std::mem::take(into).into_iter().peekable(), other.iter().peekable());
        while merged.len() < self.k {
            let next = match (a.peek(), b.peek()) {
                (Some(x), Some(y)) if self.by == By::DistinctValue && x == *y => {
                    b.next();
                    a.next()
                }
                (Some(x), Some(y)) if self.before(y, x) => b.next().cloned(),
                (Some(_), _) => a.next(),
                (None, _) => b.next().cloned(),
            };
            match next {
                Some(entry) => merged.push(entry),
                None => break,
            }
        }
        *into = merged;
    }

    fn finish(&self, partials: &[Option<Vec<Entry>>]) -> Result<ArrayRef> {
        let first = |p: &Option<Vec<Entry>>| p.as_ref()?.first().map(|e| e.value.clone());
        match self.shape {
            Shape::First => {
                let values: Vec<_> = partials.iter().map(first).collect();
                ordered::decode(&self.data_type, values.iter().map(Option::as_deref))
            }
            Shape::Count => {
                Ok(Arc::new(partials.iter().map(|p| p.as_ref().map(|p| p.len() as i64)).collect::<Int64Array>()))
            }
            Shape::List => {
                let entries = partials.iter().flatten().flatten();
                let values = ordered::decode(&self.data_type, entries.map(|e| Some(&*e.value)))?;
                Ok(list(values, partials.iter().map(|p| p.as_ref().map(Vec::len))))
            }
        }
    }

    /// The number of entries, then of each the lengths of rank, sequence and value (4 bytes each), the time, and the
    /// three.
    fn encode(&self, partial: &Vec<Entry>, out: &mut Vec<u8>) {
        out.extend((partial.len() as u64).to_le_bytes());
        for entry in partial {
            let parts = [&entry.rank, &entry.sequence, &entry.value];
            parts.iter().for_each(|p| out.extend((p.len() as u32).to_le_bytes()));
            out.extend(entry.time.to_le_bytes());
            parts.iter().for_each(|p| out.extend(&p[..]));
        }
    }

    fn decode(&self, bytes: &[u8]) -> Result<Vec<Entry>> {
        let mut reader = Reader(bytes);
        let entries = reader.u64()?;
        if entries > self.k as u64 {
            return Err(Error::data(format!(
                "a stored partial has {entries} entries, but at most {} belong there",
                self.k
            )));
        }
        let entry = |_| {
            let mut length = || Ok::<_, Error>(u32::from_le_bytes(reader.array()?) as usize);
            let (rank, sequence, value) = (length()?, length()?, length()?);
            let time = i64::from_le_bytes(reader.array()?);
            let mut part = |n| Ok::<Box<[u8]>, Error>(reader.bytes(n)?.into());
            Ok(Entry { rank: part(rank)?, time, sequence: part(sequence)?, value: part(value)? })
        };
        (0..entries).map(entry).collect()
    }
}

/// Lists of the given lengths, one after the other in `values`; `None` is NULL.
pub(super) fn list(values: ArrayRef, lengths: impl Iterator<Item = Option<usize>> + Clone) -> ArrayRef {
    let field = Arc::new(Field::new_list_field(values.data_type().clone(), true));
    let offsets = OffsetBuffer::from_lengths(lengths.clone().map(Option::unwrap_or_default));
    let nulls: NullBuffer = lengths.map(|l| l.is_some()).collect::<Vec<_>>().into();
    Arc::new(ListArray::new(field, offsets, values, Some(nulls)))
}
