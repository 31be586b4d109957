//! Lines of CSV.

use arrow::array::RecordBatch;
use arrow::csv::ReaderBuilder;
use arrow::datatypes::SchemaRef;
use csv_core::ReadRecordResult;
use featurectl_core::{Error, Result};

use super::{Decode, Rows};

/// Reads payloads that are lines of CSV without a header, one or several each; the columns are taken by their place.
#[derive(Debug)]
pub struct CsvDecoder {
    schema: SchemaRef,
    delimiter: u8,
}

impl CsvDecoder {
    /// A decoder to rows of `schema`.
    pub fn new(schema: SchemaRef, delimiter: u8) -> Self {
        Self { schema, delimiter }
    }

    /// The number of rows of a payload, which must not end within quotes: the next payload would go on in them.
    fn count(&self, payload: &[u8]) -> Result<usize> {
        let mut reader = csv_core::ReaderBuilder::new().delimiter(self.delimiter).build();
        let (mut fields, mut ends) = (vec![0; payload.len() + 1], vec![0; payload.len() + 2]);
        let mut rows = 0;
        let line_end: &[u8] = if payload.ends_with(b"\n") { b"" } else { b"\n" };
        for part in [payload, line_end] {
            let mut rest = part;
            while !rest.is_empty() {
                let (result, read, ..) = reader.read_record(rest, &mut fields, &mut ends);
                rest = &rest[read..];
                rows += usize::from(matches!(result, ReadRecordResult::Record));
                if read == 0 {
                    return Err(Error::data("it is no CSV"));
                }
            }
        }
        match reader.read_record(&[], &mut fields, &mut ends).0 {
            ReadRecordResult::End => Ok(rows),
            _ => Err(Error::data("it ends within quotes")),
        }
    }
}

impl Decode for CsvDecoder {
    fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    fn decode(&self, payloads: &[&[u8]]) -> Result<Rows> {
        let counts: Vec<usize> = payloads.iter().map(|p| self.count(p)).collect::<Result<_>>()?;
        let rows_max = counts.iter().sum::<usize>() + 1;
        let builder = ReaderBuilder::new(self.schema.clone()).with_header(false).with_delimiter(self.delimiter);
        let mut decoder = builder.with_batch_size(rows_max).build_decoder();
        for payload in payloads {
            let line_end: &[u8] = if payload.ends_with(b"\n") { b"" } else { b"\n" };
            for part in [payload, line_end] {
                // An empty part would mean the end of all.
                if !part.is_empty() && decoder.decode(part)? < part.len() {
                    return Err(Error::data("it is not a whole number of lines"));
                }
            }
        }
        // The whole row is in the dead letter; the reason goes to the terminal, too.
        let flushed =
            decoder.flush().map_err(|e| Error::data(e.to_string().split(" Row data:").next().unwrap_or_default()));
        let batch = flushed?.unwrap_or_else(|| RecordBatch::new_empty(self.schema.clone()));
        Ok(Rows { batch, counts })
    }
}
