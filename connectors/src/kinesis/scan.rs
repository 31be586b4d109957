//! A stream as a table: what its options mean, and its rows.
//!
//! ```text
//!  OPTIONS (…) ──parse──▶ StreamTable ──rows──▶ Reader ─Delivery─▶ decoder ─▶ RecordBatch (+ _shard, _sequence, …)
//!                                                          └─ bad ─▶ dead letters
//! ```

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, StringArray, TimestampMicrosecondArray, UInt64Array};
use arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef, TimeUnit};
use featurectl_aws::Access;
use featurectl_core::{Error, Result, closest};
use futures::stream::{self, Stream};
use tokio::sync::OnceCell;

use super::client::Kinesis;
use super::position::digits;
use super::reader::{Bound, Delivery, Range, Reader};
use super::record::Record;
use super::shard::Limits;
use crate::dead_letter::{BadRecord, DeadLetters};
use crate::decode::{AvroDecoder, CsvDecoder, Decode, Framing, JsonDecoder, ProtobufDecoder, SchemaId, decode};

/// The share of bad records that stops a read, where no other is set.
const BAD_SHARE_MAX: f64 = 0.01;

/// All options, for the message that names them.
const OPTIONS: [&str; 14] = [
    "from",
    "to",
    "region",
    "profile",
    "endpoint",
    "dead_letter",
    "max_bad_share",
    "metadata",
    "delimiter",
    "framing",
    "schema",
    "schemas",
    "descriptors",
    "message",
];

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
    dead_letter: Option<PathBuf>,
    bad_share_max: f64,
    schema: SchemaRef,
}

/// The options of a table, each taken once.
struct Options<'a> {
    given: BTreeMap<String, &'a str>,
    root: &'a Path,
}

impl<'a> Options<'a> {
    fn new(options: &'a HashMap<String, String>, root: &'a Path) -> Result<Self> {
        let given: BTreeMap<String, &str> =
            options.iter().map(|(k, v)| (k.trim_start_matches("format.").to_lowercase(), v.as_str())).collect();
        if let Some(unknown) = given.keys().find(|k| !OPTIONS.contains(&k.as_str())) {
            let hint = closest(unknown, OPTIONS).map_or(String::new(), |n| format!("; did you mean `{n}`?"));
            return Err(Error::invalid(format!("a stream has no option `{unknown}`{hint}")));
        }
        Ok(Self { given, root })
    }

    fn text(&mut self, name: &str) -> Option<String> {
        self.given.remove(name).map(str::to_string)
    }

    fn parsed<T: std::str::FromStr>(&mut self, name: &str) -> Result<Option<T>>
    where
        T::Err: std::fmt::Display,
    {
        let Some(text) = self.given.remove(name) else { return Ok(None) };
        text.parse().map(Some).map_err(|e| Error::invalid(format!("option `{name}`: {e}")))
    }

    fn path(&mut self, name: &str) -> Option<PathBuf> {
        self.given.remove(name).map(|p| self.root.join(p))
    }

    /// A path that the format cannot do without.
    fn needed_path(&mut self, name: &str, what: &str) -> Result<PathBuf> {
        self.path(name).ok_or_else(|| Error::invalid(format!("set the option `{name}` to {what}")))
    }

    /// Options that are left mean nothing for the format.
    fn finish(self, format: &str) -> Result<()> {
        match self.given.keys().next() {
            Some(left) => Err(Error::invalid(format!("option `{left}` means nothing for {format}: leave it out"))),
            None => Ok(()),
        }
    }
}

fn read(path: &Path) -> Result<Vec<u8>> {
    std::fs::read(path).map_err(|e| Error::from(e).context(format!("reading {}", path.display())))
}

fn read_text(path: &Path) -> Result<String> {
    String::from_utf8(read(path)?).map_err(|e| Error::data(format!("{}: {e}", path.display())))
}

/// The Avro schemas of a folder: `<id>.avsc` each.
fn schemas(folder: &Path) -> Result<BTreeMap<SchemaId, String>> {
    let doing = || format!("reading the schemas in {}", folder.display());
    let mut all = BTreeMap::new();
    for entry in std::fs::read_dir(folder).map_err(|e| Error::from(e).context(doing()))? {
        let path = entry?.path();
        if path.extension().is_some_and(|e| e == "avsc") {
            let id = path.file_stem().unwrap_or_default().to_string_lossy().parse();
            all.insert(id.map_err(|e: Error| e.context(doing()))?, read_text(&path)?);
        }
    }
    Ok(all)
}

/// The decoder of a format.
fn decoder(format: &str, declared: &SchemaRef, options: &mut Options<'_>) -> Result<Box<dyn Decode>> {
    let framing = |o: &mut Options<'_>| o.parsed::<Framing>("framing").map(Option::unwrap_or_default);
    let empty = declared.fields().is_empty();
    match format {
        "JSON" | "CSV" if empty => {
            Err(Error::invalid(format!("declare the columns: a stream of {format} does not say what it holds")))
        }
        "JSON" => Ok(Box::new(JsonDecoder::new(declared.clone()))),
        "CSV" => {
            let delimiter = options.text("delimiter").unwrap_or_else(|| ",".into());
            match delimiter.as_bytes() {
                [byte] => Ok(Box::new(CsvDecoder::new(declared.clone(), *byte))),
                _ => Err(Error::invalid(format!("option `delimiter`: `{delimiter}` is not one ASCII character"))),
            }
        }
        "AVRO" | "PROTOBUF" if !empty => {
            Err(Error::invalid(format!("leave the columns out: those of {format} come from its schema")))
        }
        "AVRO" => {
            let schema =
                read_text(&options.needed_path("schema", "the file of the Avro schema (.avsc) to read with")?)?;
            let writers = options.path("schemas").map(|p| schemas(&p)).transpose()?.unwrap_or_default();
            Ok(Box::new(AvroDecoder::new(&schema, &writers, framing(options)?)?))
        }
        "PROTOBUF" => {
            let file = options.needed_path("descriptors", "a file that protoc wrote with --descriptor_set_out")?;
            let message = options.text("message");
            let message =
                message.ok_or_else(|| Error::invalid("set the option `message` to the message's full name"))?;
            Ok(Box::new(ProtobufDecoder::new(&read(&file)?, &message, framing(options)?)?))
        }
        _ => Err(Error::invalid(format!("a stream is STORED AS JSON, CSV, AVRO or PROTOBUF, not {format}"))),
    }
}

impl StreamTable {
    /// The table that `CREATE EXTERNAL TABLE (declared) STORED AS format LOCATION location OPTIONS (options)` means.
    /// Paths are relative to `root`.
    ///
    /// Errors: [`Invalid`](featurectl_core::ErrorKind::Invalid) for what cannot be meant, and those of the files that
    /// options name.
    pub fn new(
        location: &str,
        format: &str,
        declared: &SchemaRef,
        options: &HashMap<String, String>,
        root: &Path,
    ) -> Result<Self> {
        let stream = location.strip_prefix("kinesis://").map(|s| s.trim_end_matches('/')).unwrap_or_default();
        if stream.is_empty() {
            let message = format!("`{location}` is no stream: write `kinesis://<name>`, or an ARN behind `kinesis://`");
            return Err(Error::invalid(message));
        }
        let mut options = Options::new(options, root)?;
        let format = format.to_uppercase();
        let decoder = decoder(&format, declared, &mut options)?;
        let range = Range {
            from: options.parsed("from")?.unwrap_or_default(),
            to: options.parsed::<Bound>("to")?.unwrap_or_default(),
        };
        let access = Access {
            region: options.text("region"),
            profile: options.text("profile"),
            endpoint: options.text("endpoint"),
        };
        let metadata = options.parsed("metadata")?.unwrap_or(false);
        let dead_letter = options.path("dead_letter");
        let bad_share_max = options.parsed("max_bad_share")?.unwrap_or(BAD_SHARE_MAX);
        if !(0.0..=1.0).contains(&bad_share_max) {
            return Err(Error::invalid("option `max_bad_share` is a share, from 0 to 1"));
        }
        options.finish(&format)?;
        let schema = table_schema(&decoder.schema(), metadata)?;
        let (fixed, limits, stream) = (OnceCell::new(), Limits::default(), stream.to_string());
        Ok(Self { stream, access, metadata, range, fixed, limits, decoder, dead_letter, bad_share_max, schema })
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
            let batch = table.batch(delivery?, &mut letters)?;
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
