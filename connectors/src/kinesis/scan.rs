//! A stream as a table: what it is made of, and its rows.
//!
//! ```text
//!  OPTIONS (…) ──parse──▶ StreamTable ──rows──▶ Reader ─Delivery─▶ decoder ─▶ RecordBatch (+ _shard, _sequence, …)
//!                                                          └─ bad ─▶ dead letters
//! ```

mod options;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, StringArray, TimestampMicrosecondArray, UInt64Array};
use arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef, TimeUnit};
use featurectl_aws::Access;
use featurectl_core::{Error, Result};
use futures::stream::{self, Stream};
use futures::{StreamExt, TryStreamExt};
use tokio::sync::OnceCell;

use super::client::Kinesis;
use super::position::digits;
use super::reader::{Bound, Delivery, Range, Reader};
use super::record::Record;
use super::shard::Limits;
use crate::dead_letter::{BadRecord, DeadLetters};
use crate::decode::{Decode, Framing, Schemas, decode};
use crate::glue::SchemaRegistry;
use options::{Frame, Options, decoder};

/// The share of bad records that stops a read, where no other is set.
const BAD_SHARE_MAX: f64 = 0.01;
/// Schemas that the registry is asked for at once.
const SCHEMAS_AT_ONCE: usize = 4;

/// A bounded stretch of a stream as a table.
#[derive(Debug)]
pub struct StreamTable {
    /// Name or ARN of the stream.
    pub stream: String,
    /// How to reach it.
    pub access: Access,
    /// Whether rows carry where they come from.
    metadata: bool,
    range: Range,
    /// The range with the time of the first scan in it, so that all scans give the same rows.
    fixed: OnceCell<Range>,
    limits: Limits,
    decoder: Box<dyn Decode>,
    /// Where schemas come from that records name, and those that came.
    registry: Option<(SchemaRegistry, Arc<Schemas>)>,
    dead_letter: Option<PathBuf>,
    bad_share_max: f64,
    schema: SchemaRef,
}

impl StreamTable {
    /// The table that `CREATE EXTERNAL TABLE (declared) STORED AS format LOCATION location OPTIONS (options)` means.
    /// Paths are relative to `root`; what the options do not say of how to reach the service, `access` does.
    ///
    /// Errors: [`Invalid`](featurectl_core::ErrorKind::Invalid) for what cannot be meant, and those of the files and of the
    /// registry that options name.
    pub async fn new(
        location: &str,
        format: &str,
        declared: &SchemaRef,
        options: &HashMap<String, String>,
        root: &Path,
        access: &Access,
    ) -> Result<Self> {
        let stream = location.strip_prefix("kinesis://").map(|s| s.trim_end_matches('/')).unwrap_or_default();
        if stream.is_empty() {
            let message = format!("`{location}` is no stream: write `kinesis://<name>`, or an ARN behind `kinesis://`");
            return Err(Error::invalid(message));
        }
        let mut options = Options::new(options, root)?;
        let format = format.to_uppercase();
        let (region, profile) = (options.text("region"), options.text("profile"));
        let reached = Access { region, profile, endpoint: None }.or(access);
        let endpoint = options.text("endpoint").or_else(|| access.endpoint.clone());
        let frame = Frame::new(&format, &mut options, &reached)?;
        let decoder = decoder(&format, declared, &mut options, &frame).await?;
        let range = Range {
            from: options.parsed("from")?.unwrap_or_default(),
            to: options.parsed::<Bound>("to")?.unwrap_or_default(),
        };
        let access = Access { endpoint, ..reached };
        let metadata = options.parsed("metadata")?.unwrap_or(false);
        let dead_letter = options.path("dead_letter");
        let bad_share_max = options.parsed("max_bad_share")?.unwrap_or(BAD_SHARE_MAX);
        if !(0.0..=1.0).contains(&bad_share_max) {
            return Err(Error::invalid("option `max_bad_share` is a share, from 0 to 1"));
        }
        options.finish(&format)?;
        let schema = table_schema(&decoder.schema(), metadata)?;
        let (fixed, limits, stream) = (OnceCell::new(), Limits::default(), stream.to_string());
        let registry = frame.registry;
        Ok(Self {
            stream,
            access,
            metadata,
            range,
            fixed,
            limits,
            decoder,
            registry,
            dead_letter,
            bad_share_max,
            schema,
        })
    }

    /// The same with other limits.
    pub fn with_limits(self, limits: Limits) -> Self {
        Self { limits, ..self }
    }

    /// Its columns.
    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// Its rows: in the order of each shard, and the shards as they come.
    pub fn rows(self: Arc<Self>, kinesis: Kinesis) -> impl Stream<Item = Result<RecordBatch>> + Send {
        stream::try_unfold(Rows::NotStarted(self, kinesis), Rows::next)
    }

    async fn start(self: &Arc<Self>, kinesis: Kinesis) -> Result<(Reader, DeadLetters)> {
        let fixed = self.fixed.get_or_try_init(|| self.range.clone().fixed(&kinesis, &self.limits)).await?;
        let letters = DeadLetters::new(&self.stream, self.dead_letter.as_deref(), self.bad_share_max)?;
        Ok((Reader::start(kinesis, fixed.clone(), self.limits.clone()).await?, letters))
    }

    /// Asks the registry for the schemas that records name and of which nothing is known yet.
    async fn learn(&self, delivery: &Delivery) -> Result<()> {
        let Some((registry, schemas)) = &self.registry else { return Ok(()) };
        let named = schemas.unknown(Framing::Glue, delivery.records.iter().map(|r| r.data.as_ref()));
        let asked = stream::iter(named).map(|id| async move { registry.version(id).await.map(|known| (id, known)) });
        let mut answers = asked.buffer_unordered(SCHEMAS_AT_ONCE);
        while let Some((id, known)) = answers.try_next().await? {
            schemas.insert(id, known);
        }
        Ok(())
    }

    /// The rows of a delivery; what cannot be read goes to the dead letters.
    fn batch(&self, delivery: Delivery, letters: &mut DeadLetters) -> Result<RecordBatch> {
        let payloads: Vec<&[u8]> = delivery.records.iter().map(|r| r.data.as_ref()).collect();
        let decoded = decode(self.decoder.as_ref(), &payloads)?;
        let mut bad = delivery.bad;
        bad.extend(decoded.bad.iter().map(|(i, reason)| refused(&delivery.records[*i], reason)));
        letters.note((payloads.len() - decoded.bad.len()) as u64, &bad)?;
        let mut columns = decoded.batch.columns().to_vec();
        if self.metadata {
            columns.extend(metadata_columns(&delivery.records, &decoded.origins));
        }
        let options = arrow::array::RecordBatchOptions::new().with_row_count(Some(decoded.batch.num_rows()));
        Ok(RecordBatch::try_new_with_options(self.schema.clone(), columns, &options)?)
    }
}

/// A scan that has, or has not yet, asked the service.
enum Rows {
    NotStarted(Arc<StreamTable>, Kinesis),
    Started(Arc<StreamTable>, Reader, DeadLetters),
}

impl Rows {
    async fn next(self) -> Result<Option<(RecordBatch, Self)>> {
        let (table, mut reader, mut letters) = match self {
            Self::NotStarted(table, kinesis) => {
                let (reader, letters) = table.start(kinesis).await?;
                (table, reader, letters)
            }
            Self::Started(table, reader, letters) => (table, reader, letters),
        };
        while let Some(delivery) = reader.next().await {
            let delivery = delivery?;
            table.learn(&delivery).await?;
            let batch = table.batch(delivery, &mut letters)?;
            if batch.num_rows() > 0 {
                return Ok(Some((batch, Self::Started(table, reader, letters))));
            }
        }
        letters.finish()?;
        Ok(None)
    }
}

fn refused(record: &Record, reason: &str) -> BadRecord {
    BadRecord {
        shard: record.shard.clone(),
        sequence: record.sequence,
        sub: record.sub,
        arrival: record.arrival,
        reason: reason.to_string(),
        data: record.data.clone(),
    }
}

fn metadata_fields() -> Vec<Field> {
    vec![
        Field::new("_shard", DataType::Utf8, false),
        Field::new("_sequence", DataType::Utf8, false),
        Field::new("_sub_sequence", DataType::UInt64, true),
        Field::new("_arrival", DataType::Timestamp(TimeUnit::Microsecond, None), false),
        Field::new("_partition_key", DataType::Utf8, false),
    ]
}

fn table_schema(decoded: &Schema, metadata: bool) -> Result<SchemaRef> {
    let mut fields: Vec<FieldRef> = decoded.fields().iter().cloned().collect();
    for field in metadata_fields().into_iter().filter(|_| metadata) {
        if fields.iter().any(|f| f.name() == field.name()) {
            let name = field.name();
            return Err(Error::invalid(format!("there is a column `{name}` already: leave the option `metadata` out")));
        }
        fields.push(Arc::new(field));
    }
    Ok(Arc::new(Schema::new(fields)))
}

fn metadata_columns(records: &[Record], origins: &[u32]) -> Vec<ArrayRef> {
    let rows = || origins.iter().map(|i| &records[*i as usize]);
    vec![
        Arc::new(StringArray::from_iter_values(rows().map(|r| &r.shard))),
        Arc::new(StringArray::from_iter_values(rows().map(|r| digits(r.sequence)))),
        Arc::new(UInt64Array::from_iter(rows().map(|r| r.sub))),
        Arc::new(TimestampMicrosecondArray::from_iter_values(rows().map(|r| r.arrival))),
        Arc::new(StringArray::from_iter_values(rows().map(|r| &r.partition_key))),
    ]
}

#[cfg(test)]
mod tests;
