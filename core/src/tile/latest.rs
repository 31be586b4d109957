//! The latest row as an aggregation, so that latest-row views live in tiles like all others.

use std::sync::Arc;

use arrow::array::{ArrayRef, StructArray};
use arrow::datatypes::{DataType, Field, Fields};

use crate::aggregate::{Aggregation, Events};
use crate::{Error, Result, ordered};

/// The row with the greatest (event time, sequence, values), as a struct of its columns.
#[derive(Debug)]
pub(super) struct LatestRow(pub(super) Vec<DataType>);

/// Ordered as its fields are; NULLs first.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Row {
    time: i64,
    sequence: Box<[u8]>,
    values: Vec<Option<Box<[u8]>>>,
}

impl LatestRow {
    fn fields(&self) -> Fields {
        self.0.iter().enumerate().map(|(i, t)| Field::new(format!("c{i}"), t.clone(), true)).collect()
    }
}

impl Aggregation for LatestRow {
    type Partial = Row;

    fn return_type(&self) -> DataType {
        DataType::Struct(self.fields())
    }

    fn lift(&self, events: &Events<'_>) -> Result<Vec<Option<Row>>> {
        let sequences = events.sequence.map(ordered::encode).transpose()?;
        let columns = events.args.iter().map(ordered::encode).collect::<Result<Vec<_>>>()?;
        let row = |(i, time): (usize, &i64)| {
            let sequence = sequences.as_ref().and_then(|s| s[i].clone()).unwrap_or_default();
            Some(Row { time: *time, sequence, values: columns.iter().map(|c| c[i].clone()).collect() })
        };
        Ok(events.time.iter().enumerate().map(row).collect())
    }

    fn merge(&self, into: &mut Row, other: &Row) {
        if other > into {
            into.clone_from(other);
        }
    }

    fn finish(&self, rows: &[Option<Row>]) -> Result<ArrayRef> {
        let column = |(i, t): (usize, &DataType)| {
            ordered::decode(t, rows.iter().map(|r| r.as_ref().and_then(|r| r.values[i].as_deref())))
        };
        let columns = self.0.iter().enumerate().map(column).collect::<Result<Vec<_>>>()?;
        Ok(Arc::new(StructArray::try_new_with_length(self.fields(), columns, None, rows.len())?))
    }

    fn encode(&self, row: &Row, out: &mut Vec<u8>) {
        out.extend(row.time.to_le_bytes());
        for value in std::iter::once(Some(&row.sequence)).chain(row.values.iter().map(Option::as_ref)) {
            let len = value.map_or(u32::MAX, |v| v.len() as u32);
            out.extend(len.to_le_bytes());
            value.inspect(|v| out.extend(&v[..]));
        }
    }

    fn decode(&self, mut bytes: &[u8]) -> Result<Row> {
        let mut take = |n: usize| {
            let (head, tail) = bytes.split_at_checked(n).ok_or_else(|| Error::data("a stored row is too short"))?;
            bytes = tail;
            Ok::<_, Error>(head)
        };
        let time = i64::from_le_bytes(take(8)?.try_into().map_err(|_| Error::data("a stored row has no time"))?);
        let mut value = || {
            let len = take(4)?.try_into().map_err(|_| Error::data("a stored row is too short"))?;
            match u32::from_le_bytes(len) {
                u32::MAX => Ok(None),
                len => take(len as usize).map(|v| Some(v.into())),
            }
        };
        let sequence = value()?.unwrap_or_default();
        let values = (0..self.0.len()).map(|_| value()).collect::<Result<_>>()?;
        Ok(Row { time, sequence, values })
    }
}
