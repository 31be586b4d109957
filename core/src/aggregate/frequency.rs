//! `histogram(x)` and `top_frequency(x, k)`: how often each value occurs.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, StructArray};
use arrow::datatypes::{DataType, Field, Fields};

use super::double_double::Reader;
use super::ranked::list;
use super::{Aggregation, Events, Inverse};
use crate::{Error, Result, ordered};

/// More values than these are an error: a partial is kept whole, and one without a bound would fill the store.
const VALUES_MAX: usize = 65_536;

/// Counts by value, exact.
#[derive(Debug)]
pub(super) struct Frequency {
    /// Type of a value.
    pub(super) data_type: DataType,
    /// Only the most frequent, the smaller value first among equals; `None`: all, in their order.
    pub(super) k: Option<usize>,
}

impl Frequency {
    fn fields(&self) -> Fields {
        vec![Field::new("value", self.data_type.clone(), true), Field::new("count", DataType::Int64, true)].into()
    }
}

impl Aggregation for Frequency {
    type Partial = BTreeMap<Box<[u8]>, u64>;

    fn return_type(&self) -> DataType {
        DataType::List(Arc::new(Field::new_list_field(DataType::Struct(self.fields()), true)))
    }

    fn lift(&self, events: &Events<'_>) -> Result<Vec<Option<Self::Partial>>> {
        let one = |value: Option<Box<[u8]>>| value.map(|v| BTreeMap::from([(v, 1)]));
        Ok(ordered::encode(&events.args[0])?.into_iter().map(one).collect())
    }

    fn inverse(&self) -> Option<Inverse<Self::Partial>> {
        Some(|p| p.iter().map(|(value, n)| (value.clone(), n.wrapping_neg())).collect())
    }

    fn merge(&self, into: &mut Self::Partial, other: &Self::Partial) {
        for (value, count) in other {
            match into.get_mut(value) {
                Some(known) => *known = known.wrapping_add(*count),
                None => drop(into.insert(value.clone(), *count)),
            }
        }
        into.retain(|_, count| *count != 0);
    }

    fn finish(&self, partials: &[Option<Self::Partial>]) -> Result<ArrayRef> {
        if partials.iter().flatten().any(|p| p.len() > VALUES_MAX) {
            return Err(Error::invalid(format!("a histogram of more than {VALUES_MAX} values: round or bucket them")));
        }
        let chosen = |p: &Self::Partial| {
            let mut entries: Vec<(Box<[u8]>, u64)> = p.iter().map(|(v, n)| (v.clone(), *n)).collect();
            if let Some(k) = self.k {
                entries.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
                entries.truncate(k);
            }
            entries
        };
        let all: Vec<_> = partials.iter().map(|p| p.as_ref().map(chosen)).collect();
        let flat = || all.iter().flatten().flatten();
        let values = ordered::decode(&self.data_type, flat().map(|(v, _)| Some(&**v)))?;
        let counts: ArrayRef = Arc::new(Int64Array::from_iter_values(flat().map(|(_, n)| *n as i64)));
        let entries = Arc::new(StructArray::new(self.fields(), vec![values, counts], None));
        Ok(list(entries, all.iter().map(|e| e.as_ref().map(Vec::len))))
    }

    /// The number of values, then of each its count (8 bytes), its length (4 bytes) and its bytes.
    fn encode(&self, partial: &Self::Partial, out: &mut Vec<u8>) {
        out.extend((partial.len() as u64).to_le_bytes());
        for (value, count) in partial {
            out.extend(count.to_le_bytes());
            out.extend((value.len() as u32).to_le_bytes());
            out.extend(&value[..]);
        }
    }

    fn decode(&self, bytes: &[u8]) -> Result<Self::Partial> {
        let mut reader = Reader(bytes);
        let entries = reader.u64()?;
        let entry = |_| {
            let count = reader.u64()?;
            let length = u32::from_le_bytes(reader.array()?) as usize;
            Ok((reader.bytes(length)?.into(), count))
        };
        (0..entries).map(entry).collect()
    }
}
