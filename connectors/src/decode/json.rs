//! JSON objects.

use std::sync::Arc;

use arrow::array::{RecordBatch, StructArray};
use arrow::compute::{CastOptions, cast_with_options, concat_batches};
use arrow::datatypes::{DataType, Field, FieldRef, Fields, Schema, SchemaRef};
use arrow::json::ReaderBuilder;
use arrow::json::reader::Decoder;
use featurectl_core::{Error, Result};

use super::{Decode, Rows};

/// Reads payloads that are JSON objects, one or several each. Fields that are no columns are left out, columns that are
/// no fields are NULL.
#[derive(Debug)]
pub struct JsonDecoder {
    schema: SchemaRef,
    /// The same with integers as text: read as numbers, `1.5` would silently become 1.
    read: SchemaRef,
}

impl JsonDecoder {
    /// A decoder to rows of `schema`.
    pub fn new(schema: SchemaRef) -> Self {
        let read = Arc::new(Schema::new(integers_as_text(schema.fields())));
        Self { schema, read }
    }

    fn decoder(&self, rows_max: usize) -> Result<Decoder> {
        let builder =
            ReaderBuilder::new(self.read.clone()).with_coerce_primitive(self.read.fields() != self.schema.fields());
        Ok(builder.with_batch_size(rows_max).build_decoder()?)
    }

    /// The batch with its integers as numbers.
    fn convert(&self, batch: RecordBatch) -> Result<RecordBatch> {
        let options = CastOptions { safe: false, ..CastOptions::default() };
        let rows = batch.num_rows();
        let as_struct = StructArray::from(batch);
        let columns = as_struct.columns().iter().zip(self.schema.fields());
        let columns = columns.map(|(array, field)| {
            let cast = cast_with_options(array, field.data_type(), &options);
            cast.map_err(|e| Error::from(e).context(format!("column `{}`", field.name())))
        });
        let options = arrow::array::RecordBatchOptions::new().with_row_count(Some(rows));
        Ok(RecordBatch::try_new_with_options(self.schema.clone(), columns.collect::<Result<_>>()?, &options)?)
    }
}

fn integers_as_text(fields: &Fields) -> Fields {
    fields.iter().map(|f| Arc::new(field_as_text(f))).collect()
}

fn field_as_text(field: &FieldRef) -> Field {
    let of = |f: &FieldRef| Arc::new(field_as_text(f));
    let data_type = match field.data_type() {
        t if t.is_integer() => DataType::Utf8,
        DataType::Struct(fields) => DataType::Struct(integers_as_text(fields)),
        DataType::List(f) => DataType::List(of(f)),
        DataType::LargeList(f) => DataType::LargeList(of(f)),
        DataType::FixedSizeList(f, n) => DataType::FixedSizeList(of(f), *n),
        other => other.clone(),
    };
    field.as_ref().clone().with_data_type(data_type)
}

impl Decode for JsonDecoder {
    fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    fn decode(&self, payloads: &[&[u8]]) -> Result<Rows> {
        // Several objects of a payload mostly stand on lines of their own; one without lines is read by itself.
        let lines = |p: &&[u8]| p.iter().filter(|b| **b == b'\n').count() + 1;
        let rows_max = match payloads {
            [one] => one.len() / 2 + 1,
            many => many.iter().map(lines).sum::<usize>() + 1,
        };
        let mut decoder = self.decoder(rows_max)?;
        let mut counts = Vec::with_capacity(payloads.len());
        let mut before = 0;
        for payload in payloads {
            let used = decoder.decode(payload)?;
            if used < payload.len() || decoder.has_partial_record() {
                return Err(Error::data("it is not a whole JSON object"));
            }
            counts.push(decoder.len() - before);
            before = decoder.len();
        }
        let batch = decoder.flush()?.unwrap_or_else(|| RecordBatch::new_empty(self.read.clone()));
        let batch = concat_batches(&self.read, [&batch])?;
        Ok(Rows { batch: self.convert(batch)?, counts })
    }
}
