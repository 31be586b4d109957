//! `bucketed_<function>(…, bucket)`: any aggregation, once for each value of its last argument, as a map.
//!
//! ```text
//!  bucketed_sum(amount, category)  ──▶  { books: 12.5, games: 60.0 }
//! ```

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, MapArray, StructArray};
use arrow::buffer::{NullBuffer, OffsetBuffer};
use arrow::datatypes::{DataType, Field, FieldRef, Fields};

use super::double_double::Reader;
use super::{Aggregation, Aggregator, Events, by_row, merged};
use crate::definition::Micros;
use crate::{Error, Result, ordered};

/// More buckets than these are an error, as more values of a histogram are.
const BUCKETS_MAX: usize = 65_536;

#[derive(Debug)]
pub(super) struct Bucketed {
    pub(super) inner: Arc<dyn Aggregator>,
    /// Type of the buckets.
    pub(super) bucket: DataType,
}

impl Bucketed {
    fn fields(&self) -> Fields {
        let value = Field::new("value", self.inner.return_type(), true);
        vec![Field::new("key", self.bucket.clone(), false), value].into()
    }

    fn entries(&self) -> FieldRef {
        Arc::new(Field::new("entries", DataType::Struct(self.fields()), false))
    }
}

impl Aggregation for Bucketed {
    /// The encoded partial of each bucket.
    type Partial = BTreeMap<Box<[u8]>, Vec<u8>>;

    fn return_type(&self) -> DataType {
        DataType::Map(self.entries(), false)
    }

    /// A row whose bucket is NULL does not count.
    fn lift(&self, events: &Events<'_>) -> Result<Vec<Option<Self::Partial>>> {
        let (bucket, partials) = by_row(&self.inner, events)?;
        let one = |(bucket, partial): (Option<Box<[u8]>>, Vec<u8>)| {
            let bucket = bucket.filter(|_| !partial.is_empty())?;
            Some(BTreeMap::from([(bucket, partial)]))
        };
        Ok(ordered::encode(bucket)?.into_iter().zip(partials).map(one).collect())
    }

    fn merge(&self, into: &mut Self::Partial, other: &Self::Partial) {
        for (bucket, partial) in other {
            match into.get_mut(bucket) {
                Some(known) => *known = merged(&self.inner, known, partial),
                None => drop(into.insert(bucket.clone(), partial.clone())),
            }
        }
    }

    fn finish(&self, partials: &[Option<Self::Partial>]) -> Result<ArrayRef> {
        self.finish_at(partials, &vec![0; partials.len()])
    }

    fn finish_at(&self, partials: &[Option<Self::Partial>], at: &[Micros]) -> Result<ArrayRef> {
        if partials.iter().flatten().any(|p| p.len() > BUCKETS_MAX) {
            return Err(Error::invalid(format!("more than {BUCKETS_MAX} buckets: take one with fewer values")));
        }
        let flat = || partials.iter().flatten().flatten();
        let keys = ordered::decode(&self.bucket, flat().map(|(bucket, _)| Some(&**bucket)))?;
        let groups: Vec<Vec<&[u8]>> = flat().map(|(_, partial)| vec![partial.as_slice()]).collect();
        let times = partials.iter().zip(at).flat_map(|(p, at)| vec![*at; p.as_ref().map_or(0, BTreeMap::len)]);
        let values = self.inner.merge_finish(&groups, &times.collect::<Vec<_>>())?;
        let lengths = partials.iter().map(|p| p.as_ref().map_or(0, BTreeMap::len));
        let nulls: NullBuffer = partials.iter().map(Option::is_some).collect::<Vec<_>>().into();
        let entries = StructArray::new(self.fields(), vec![keys, values], None);
        let offsets = OffsetBuffer::from_lengths(lengths);
        Ok(Arc::new(MapArray::new(self.entries(), offsets, entries, Some(nulls), false)))
    }

    /// The number of buckets, then of each its value and its partial, both with their length (4 bytes) before them.
    fn encode(&self, partial: &Self::Partial, out: &mut Vec<u8>) {
        out.extend((partial.len() as u64).to_le_bytes());
        for bytes in partial.iter().flat_map(|(bucket, partial)| [&bucket[..], partial]) {
            out.extend((bytes.len() as u32).to_le_bytes());
            out.extend(bytes);
        }
    }

    fn decode(&self, bytes: &[u8]) -> Result<Self::Partial> {
        let mut reader = Reader(bytes);
        let buckets = reader.u64()?;
        let mut part = || {
            let length = u32::from_le_bytes(reader.array()?) as usize;
            reader.bytes(length)
        };
        let entry = |_| {
            let (bucket, partial) = (part()?.into(), part()?);
            // A damaged partial must be found now: a merge can't fail.
            self.inner.merge(&[partial])?;
            Ok((bucket, partial.to_vec()))
        };
        (0..buckets).map(entry).collect()
    }
}
