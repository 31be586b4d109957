//! Avro.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::compute::concat_batches;
use arrow::datatypes::{Schema, SchemaRef};
use arrow_avro::reader::{Decoder, ReaderBuilder};
use arrow_avro::schema::{AvroSchema, Fingerprint, FingerprintAlgorithm, SchemaStore};
use featurectl_core::{Error, Result};

use super::{Decode, Framing, Rows, SchemaId, Schemas};

/// The number of the writer's schema in its decoder, which knows no other.
const WRITER: u32 = 0;

/// What the decoder wants before each datum.
const WRITER_FRAME: [u8; 5] = [0, 0, 0, 0, 0];

/// Reads payloads that are one Avro record each, written by any of several schemas.
#[derive(Debug)]
pub struct AvroDecoder {
    reader: AvroSchema,
    writers: Arc<Schemas>,
    framing: Framing,
    schema: SchemaRef,
}

impl AvroDecoder {
    /// A decoder to rows of the Avro schema `reader`. Plain payloads are written by that schema, framed ones by the
    /// one of `writers` that their id names; the rules of schema resolution bring them together.
    ///
    /// Errors: [`Invalid`](featurectl_core::ErrorKind::Invalid) if a schema is none, or a writer's does not fit.
    pub fn new(reader: &str, writers: &BTreeMap<SchemaId, String>, framing: Framing) -> Result<Self> {
        let new = Self::over(reader, Arc::new(Schemas::of(writers)), framing)?;
        for id in writers.keys() {
            new.decoder(Some(*id), 1)?;
        }
        Ok(new)
    }

    /// The same with writers' schemas that become known later.
    ///
    /// Errors: [`Invalid`](featurectl_core::ErrorKind::Invalid) if `reader` is no schema of a record.
    pub fn over(reader: &str, writers: Arc<Schemas>, framing: Framing) -> Result<Self> {
        let reader = AvroSchema::new(reader.to_string());
        let schema = without_metadata(&decoder(&reader, &reader, 1)?.schema());
        Ok(Self { reader, writers, framing, schema })
    }

    fn decoder(&self, id: Option<SchemaId>, rows_max: usize) -> Result<Decoder> {
        let Some(id) = id else { return decoder(&self.reader, &self.reader, rows_max) };
        let writer = AvroSchema::new(self.writers.text(id)?);
        decoder(&writer, &self.reader, rows_max).map_err(|e| e.context(format!("Avro schema {id}")))
    }

    /// The rows of payloads that one schema wrote.
    fn decode_run(&self, id: Option<SchemaId>, payloads: &[impl AsRef<[u8]>]) -> Result<RecordBatch> {
        let mut decoder = self.decoder(id, payloads.len() + 1)?;
        let mut framed = Vec::new();
        for payload in payloads {
            framed.clear();
            framed.extend_from_slice(&WRITER_FRAME);
            framed.extend_from_slice(payload.as_ref());
            let before = decoder.capacity();
            let used = decoder.decode(&framed).map_err(|e| Error::data(e.to_string()))?;
            if used != framed.len() || decoder.capacity() + 1 != before {
                return Err(Error::data("it is not exactly one Avro record of the schema"));
            }
        }
        let batch = decoder.flush().map_err(|e| Error::data(e.to_string()))?;
        let batch = batch.ok_or_else(|| Error::data("it holds no Avro record"))?;
        // Resolution leaves notes on defaults in the fields: the columns are the same.
        Ok(RecordBatch::try_new(self.schema.clone(), batch.columns().to_vec())?)
    }
}

fn decoder(writer: &AvroSchema, reader: &AvroSchema, rows_max: usize) -> Result<Decoder> {
    let wrong = |e: arrow::error::ArrowError| Error::invalid(format!("this Avro schema cannot be used: {e}"));
    let mut store = SchemaStore::new_with_type(FingerprintAlgorithm::Id);
    let fingerprint = store.set(Fingerprint::Id(WRITER), writer.clone()).map_err(wrong)?;
    let builder = ReaderBuilder::new().with_writer_schema_store(store).with_active_fingerprint(fingerprint);
    builder.with_reader_schema(reader.clone()).with_batch_size(rows_max).build_decoder().map_err(wrong)
}

fn without_metadata(schema: &Schema) -> SchemaRef {
    Arc::new(Schema::new(schema.fields().clone()))
}

impl Decode for AvroDecoder {
    fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    fn decode(&self, payloads: &[&[u8]]) -> Result<Rows> {
        let opened: Vec<_> = payloads.iter().map(|p| self.framing.open(p)).collect::<Result<_>>()?;
        let mut batches = Vec::new();
        for run in opened.chunk_by(|a, b| a.0 == b.0) {
            let bodies: Vec<&[u8]> = run.iter().map(|(_, body)| body.as_ref()).collect();
            batches.push(self.decode_run(run[0].0, &bodies)?);
        }
        Ok(Rows { batch: concat_batches(&self.schema, &batches)?, counts: vec![1; payloads.len()] })
    }
}
