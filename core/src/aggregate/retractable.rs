//! Events that can be taken back: what a view with `retract` makes of its aggregations.
//!
//! ```text
//!  row  retract        a partial is a function's partial, and how many rows are left in it
//!   +5  false   ┐
//!   −5  true    ┘─▶ nothing left: NULL, as if there never was a row
//! ```
//! An update is two rows, the old values with `retract`, and the new ones.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::datatypes::DataType;

use super::double_double::Reader;
use super::{Aggregation, Aggregator, Events, by_row, merged};
use crate::definition::Micros;
use crate::{Error, Result};

/// An invertible aggregation whose last argument says which rows are taken back.
#[derive(Debug)]
pub(super) struct Retractable(pub(super) Arc<dyn Aggregator>);

impl Aggregation for Retractable {
    /// Rows left, and the partial's bytes.
    type Partial = (i64, Vec<u8>);

    fn return_type(&self) -> DataType {
        self.0.return_type()
    }

    fn lift(&self, events: &Events<'_>) -> Result<Vec<Option<Self::Partial>>> {
        let (retract, partials) = by_row(&self.0, events)?;
        let retract = retract.as_boolean();
        let one = |(row, partial): (usize, Vec<u8>)| match partial.is_empty() {
            true => Ok(None),
            false if retract.is_valid(row) && retract.value(row) => Ok(Some((-1, self.0.invert(&partial)?))),
            false => Ok(Some((1, partial))),
        };
        partials.into_iter().enumerate().map(one).collect()
    }

    fn merge(&self, into: &mut Self::Partial, other: &Self::Partial) {
        *into = (into.0 + other.0, merged(&self.0, &into.1, &other.1));
    }

    fn finish(&self, partials: &[Option<Self::Partial>]) -> Result<ArrayRef> {
        self.finish_at(partials, &vec![0; partials.len()])
    }

    fn finish_at(&self, partials: &[Option<Self::Partial>], at: &[Micros]) -> Result<ArrayRef> {
        if partials.iter().flatten().any(|(left, _)| *left < 0) {
            return Err(Error::data(
                "more rows are taken back than there are in a window: a row with `retract` has the key and the event \
                 time of the row that it takes back",
            ));
        }
        let group =
            |p: &'_ Option<Self::Partial>| p.as_ref().filter(|(left, _)| *left > 0).map(|(_, bytes)| bytes.clone());
        let left: Vec<Option<Vec<u8>>> = partials.iter().map(group).collect();
        let groups: Vec<Vec<&[u8]>> = left.iter().map(|bytes| bytes.iter().map(Vec::as_slice).collect()).collect();
        self.0.merge_finish(&groups, at)
    }

    /// Rows left (8 bytes), then the function's own partial.
    fn encode(&self, partial: &Self::Partial, out: &mut Vec<u8>) {
        out.extend(partial.0.to_le_bytes());
        out.extend(&partial.1);
    }

    fn decode(&self, bytes: &[u8]) -> Result<Self::Partial> {
        let mut reader = Reader(bytes);
        let left = i64::from_le_bytes(reader.array()?);
        // A damaged partial must be found now: a merge can't fail.
        self.0.merge(&[reader.0])?;
        Ok((left, reader.0.to_vec()))
    }
}
