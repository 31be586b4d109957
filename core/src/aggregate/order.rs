//! `min`, `max`, `first_value` and `last_value` of any scalar type.

use arrow::array::ArrayRef;
use arrow::datatypes::DataType;

use super::double_double::Reader;
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
