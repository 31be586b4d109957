//! Payloads of records to rows.
//!
//! ```text
//!  [p0, p1, p2 ✗, p3] ──all at once──▶ ✗ ──▶ [p0, p1] ──▶ rows      a payload that cannot be read
//!                                       └──▶ [p2 ✗, p3] ─▶ ✗ ──▶ …   costs a search for it, not its neighbours
//! ```
//! A decoder takes payloads all or none; [`decode`] finds the ones that spoil the others.

mod avro;
mod csv;
mod framed;
mod framing;
mod json;
mod protobuf;
mod schemas;

use std::fmt::Debug;

use arrow::array::RecordBatch;
use arrow::compute::concat_batches;
use arrow::datatypes::SchemaRef;
use featurectl_core::{Error, Result};

pub use avro::AvroDecoder;
pub use csv::CsvDecoder;
pub use framed::FramedDecoder;
pub use framing::{Framing, SchemaId};
pub use json::JsonDecoder;
pub use protobuf::ProtobufDecoder;
pub use schemas::{Known, Schemas};

/// Rows from payloads of one format.
pub trait Decode: Debug + Send + Sync {
    /// The columns of its rows.
    fn schema(&self) -> SchemaRef;

    /// The rows of all payloads, in order.
    ///
    /// Errors: [`Data`](featurectl_core::ErrorKind::Data) if one of them cannot be read; the message names the reason.
    fn decode(&self, payloads: &[&[u8]]) -> Result<Rows>;
}

/// Rows, and how many each payload gave.
#[derive(Debug, Clone)]
pub struct Rows {
    /// The rows.
    pub batch: RecordBatch,
    /// For each payload the number of its rows, at least one.
    pub counts: Vec<usize>,
}

/// Rows of the payloads that could be read, and the ones that could not.
#[derive(Debug, Clone)]
pub struct Decoded {
    /// The rows, in the order of the payloads.
    pub batch: RecordBatch,
    /// For each row the place of its payload.
    pub origins: Vec<u32>,
    /// The places of payloads that could not be read, with the reason.
    pub bad: Vec<(usize, String)>,
}

/// Reads as many of `payloads` as can be read.
///
/// Errors: [`Internal`](featurectl_core::ErrorKind::Internal) if parts do not fit together.
pub fn decode(decoder: &dyn Decode, payloads: &[&[u8]]) -> Result<Decoded> {
    let mut batches = Vec::new();
    let mut decoded = Decoded { batch: RecordBatch::new_empty(decoder.schema()), origins: Vec::new(), bad: Vec::new() };
    // Parts still to be read, the first on top.
    let mut todo = Vec::new();
    let mut next = Some(0..payloads.len());
    while let Some(part) = next.take().or_else(|| todo.pop()) {
        if part.is_empty() {
            continue;
        }
        match rows(decoder, &payloads[part.clone()]) {
            Ok(rows) => {
                let places = part.clone().zip(&rows.counts);
                decoded.origins.extend(places.flat_map(|(i, n)| std::iter::repeat_n(i as u32, *n)));
                batches.push(rows.batch);
            }
            Err(e) if part.len() == 1 => decoded.bad.push((part.start, e.to_string())),
            Err(_) => {
                let middle = part.start + part.len() / 2;
                todo.extend([middle..part.end, part.start..middle]);
            }
        }
    }
    decoded.batch = concat_batches(&decoder.schema(), &batches)?;
    Ok(decoded)
}

/// A decoder's rows, checked against what it says of them.
fn rows(decoder: &dyn Decode, payloads: &[&[u8]]) -> Result<Rows> {
    let rows = decoder.decode(payloads)?;
    let sum: usize = rows.counts.iter().sum();
    if rows.counts.len() == payloads.len() && sum == rows.batch.num_rows() && rows.counts.iter().all(|n| *n > 0) {
        return Ok(rows);
    }
    Err(Error::data("it holds no row, or not a whole number of them"))
}

#[cfg(test)]
mod tests;
