//! The rows of a file as payloads: one JSON object each.
//!
//! ```text
//!  .jsonl .json   its lines as they are ──────────────┐
//!  .csv           types from all rows ──▶ JSON objects ├──▶ Row { number, key, data }
//!  .parquet       its own types ────────▶ JSON objects ┘
//! ```

use std::fs::File;
use std::io::{BufRead, BufReader, Seek};
use std::path::Path;
use std::sync::Arc;

use arrow::array::{Array, RecordBatch};
use arrow::csv::reader::Format;
use arrow::error::ArrowError;
use arrow::json::LineDelimitedWriter;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use bytes::Bytes;
use featurectl_core::{Error, Result, closest};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use serde::de::IgnoredAny;
use serde_json::{Map, Value};

/// A row to be put.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// Its number in the file, counted from 1.
    pub number: u64,
    /// The text of its key column, if one was named.
    pub key: Option<String>,
    /// A JSON object.
    pub data: Bytes,
}

/// Rows in the file's order, some at once.
pub type Rows = Box<dyn Iterator<Item = Result<Vec<Row>>> + Send>;

/// Rows of a file read at once.
const ROWS_AT_ONCE: usize = 4_096;

/// The rows of a file of JSON lines, CSV with a header, or Parquet, as its name says.
///
/// Errors: [`Invalid`](featurectl_core::ErrorKind::Invalid) for another name or a key column that is not there,
/// [`Data`](featurectl_core::ErrorKind::Data) for what cannot be read, with the row's number, and those of the file
/// system.
pub fn rows(path: &Path, key: Option<&str>) -> Result<Rows> {
    let doing = format!("reading {}", path.display());
    let open = || File::open(path).map_err(|e| Error::from(e).context(doing.clone()));
    let extension = path.extension().unwrap_or_default().to_string_lossy().to_lowercase();
    let rows = match extension.as_str() {
        "jsonl" | "ndjson" | "json" => Ok(json_lines(BufReader::new(open()?), key.map(str::to_string))),
        "csv" => csv(open()?, key),
        "parquet" => parquet(open()?, key),
        _ => Err(Error::invalid("the name must end with .jsonl, .ndjson, .json, .csv or .parquet")),
    };
    let context = doing.clone();
    let rows = rows.map_err(|e| e.context(doing))?;
    Ok(Box::new(rows.map(move |r| r.map_err(|e| e.context(context.clone())))))
}

fn json_lines(file: BufReader<File>, key: Option<String>) -> Rows {
    let lines = (1_u64..).zip(file.split(b'\n'));
    let rows = lines.filter_map(move |(number, line)| match line {
        Ok(line) if line.trim_ascii().is_empty() => None,
        Ok(line) => Some(json_line(number, line.trim_ascii(), key.as_deref()).map(|row| vec![row])),
        Err(e) => Some(Err(e.into())),
    });
    Box::new(rows)
}

fn json_line(number: u64, line: &[u8], key: Option<&str>) -> Result<Row> {
    let wrong = |e: &dyn std::fmt::Display| Error::data(format!("line {number}: {e}"));
    if line.first() != Some(&b'{') {
        return Err(wrong(&"it is no JSON object"));
    }
    let key = match key {
        None => serde_json::from_slice::<IgnoredAny>(line).map(|_| None).map_err(|e| wrong(&e))?,
        Some(name) => {
            let object: Map<String, Value> = serde_json::from_slice(line).map_err(|e| wrong(&e))?;
            Some(match object.get(name) {
                Some(Value::String(s)) => s.clone(),
                Some(value @ (Value::Number(_) | Value::Bool(_))) => value.to_string(),
                _ => return Err(wrong(&format!("its key `{name}` is missing, null, or no single value"))),
            })
        }
    };
    Ok(Row { number, key, data: Bytes::copy_from_slice(line) })
}

fn csv(mut file: File, key: Option<&str>) -> Result<Rows> {
    let format = Format::default().with_header(true);
    let (schema, _) = format.infer_schema(BufReader::new(&file), None)?;
    file.rewind()?;
    let names: Vec<String> = schema.fields().iter().map(|f| f.name().clone()).collect();
    let column = key.map(|k| key_column(k, &names)).transpose()?;
    let builder = arrow::csv::ReaderBuilder::new(Arc::new(schema)).with_format(format).with_batch_size(ROWS_AT_ONCE);
    Ok(tabular(builder.build(file)?, column))
}

fn parquet(file: File, key: Option<&str>) -> Result<Rows> {
    let damaged = |e: parquet::errors::ParquetError| Error::data(e.to_string()).with_source(e);
    let builder = ParquetRecordBatchReaderBuilder::try_new(file).map_err(damaged)?;
    let names: Vec<String> = builder.schema().fields().iter().map(|f| f.name().clone()).collect();
    let column = key.map(|k| key_column(k, &names)).transpose()?;
    Ok(tabular(builder.with_batch_size(ROWS_AT_ONCE).build().map_err(damaged)?, column))
}

fn key_column(key: &str, names: &[String]) -> Result<usize> {
    names.iter().position(|n| n == key).ok_or_else(|| {
        let hint = closest(key, names).map_or(String::new(), |n| format!("; did you mean `{n}`?"));
        Error::invalid(format!("there is no column `{key}`{hint}"))
    })
}

fn tabular(
    batches: impl Iterator<Item = Result<RecordBatch, ArrowError>> + Send + 'static,
    key: Option<usize>,
) -> Rows {
    let mut before = 0;
    Box::new(batches.map(move |batch| {
        let batch = batch?;
        let rows = batch_rows(&batch, key, before);
        before += batch.num_rows() as u64;
        rows
    }))
}

fn batch_rows(batch: &RecordBatch, key: Option<usize>, before: u64) -> Result<Vec<Row>> {
    let mut writer = LineDelimitedWriter::new(Vec::new());
    writer.write(batch)?;
    writer.finish()?;
    let text = Bytes::from(writer.into_inner());
    let keys = key.map(|k| batch.column(k));
    let options = FormatOptions::default();
    let formatter = keys.map(|k| ArrayFormatter::try_new(k.as_ref(), &options)).transpose()?;
    let lines = text.split(|b| *b == b'\n').filter(|line| !line.is_empty());
    let row = |(i, line): (usize, &[u8])| {
        let number = before + i as u64 + 1;
        if keys.is_some_and(|k| k.is_null(i)) {
            return Err(Error::data(format!("row {number}: its key is null")));
        }
        let key = formatter.as_ref().map(|f| f.value(i).to_string());
        Ok(Row { number, key, data: text.slice_ref(line) })
    };
    let rows: Vec<Row> = lines.enumerate().map(row).collect::<Result<_>>()?;
    if rows.len() == batch.num_rows() {
        return Ok(rows);
    }
    Err(Error::internal(format!("{} rows became {} JSON objects", batch.num_rows(), rows.len())))
}
