//! Reads a channel's Parquet files into the column-major numbers that the trainer works on.
//!
//! ```text
//!   part-0.parquet      part-1.parquet             Table
//!   a     b     y       a     b     y              features (column after column)     labels
//!   1     true  0       2     NULL  1      ──▶     1.0 2.0 │ 1.0 NaN                  0.0 1.0
//! ```

use crate::contract::at;
use arrow::array::{Array, AsArray, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float64Type, Schema};
use featurectl_core::{Error, Result, closest};
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

/// Rows that are decoded at a time.
const BATCH_ROWS: usize = 64 * 1024;

/// A channel's rows.
#[derive(Debug)]
pub(crate) struct Table {
    /// The number of rows.
    pub rows: usize,
    /// The feature columns one after the other, each of `rows` numbers; a missing value is `NaN`.
    pub features: Vec<f64>,
    /// One number per row, never `NaN`.
    pub labels: Vec<f64>,
}

impl Table {
    /// Reads columns `features` and `label` of all Parquet files in `dir`, in the order of their paths.
    ///
    /// Errors if there is no row, if a column is missing, is not made of numbers or booleans, holds an infinite
    /// number, or if a label is NULL.
    pub(crate) fn read(dir: &Path, features: &[String], label: &str) -> Result<Self> {
        let names: Vec<&str> = features.iter().map(String::as_str).chain([label]).collect();
        let mut columns = vec![Vec::new(); names.len()];
        for file in parquet_files(dir)? {
            read_file(&file, &names, &mut columns).map_err(|e| e.context(format!("reading `{}`", file.display())))?;
        }
        let labels = columns.pop().unwrap_or_default();
        let rows = labels.len();
        if rows == 0 {
            return Err(Error::invalid("there are no rows: write at least one Parquet file with rows to it"));
        }
        let missing = labels.iter().filter(|y| y.is_nan()).count();
        if missing > 0 {
            let fix = format!("keep only rows WHERE {label} IS NOT NULL");
            return Err(Error::invalid(format!("label `{label}` is NULL in {missing} of {rows} rows: {fix}")));
        }
        check_finite(features, &columns)?;
        check_finite(&[label.to_string()], std::slice::from_ref(&labels))?;
        Ok(Self { rows, features: concat(columns, rows), labels })
    }

    /// The smallest and the largest value of feature column `index`, if it has any.
    pub(crate) fn range(&self, index: usize) -> Option<(f64, f64)> {
        let column = &self.features[index * self.rows..(index + 1) * self.rows];
        let values = || column.iter().copied().filter(|x| !x.is_nan());
        Some((values().reduce(f64::min)?, values().reduce(f64::max)?))
    }
}

/// One long column, freeing each as soon as it is copied.
fn concat(columns: Vec<Vec<f64>>, rows: usize) -> Vec<f64> {
    let mut all = Vec::with_capacity(columns.len() * rows);
    for column in columns {
        all.extend(column);
    }
    all
}

/// The files of a folder and its subfolders by path, without those whose names say that they are not data.
fn parquet_files(dir: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    let mut folders = vec![dir.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).map_err(|e| at(e, "reading", &folder))? {
            let path = entry.map_err(|e| at(e, "reading", &folder))?.path();
            let hidden = path.file_name().is_some_and(|n| n.to_string_lossy().starts_with(['.', '_']));
            match (hidden, path.is_dir()) {
                (true, _) => {}
                (false, true) => folders.push(path),
                (false, false) => files.push(path),
            }
        }
    }
    files.sort();
    Ok(files)
}

/// Appends the values of one file to `columns`, which are in the order of `names`.
fn read_file(path: &Path, names: &[&str], columns: &mut [Vec<f64>]) -> Result<()> {
    let file = File::open(path)?;
    let builder = ParquetRecordBatchReaderBuilder::try_new(file).map_err(not_parquet)?;
    let wanted = names.iter().map(|name| find(builder.schema(), name)).collect::<Result<Vec<usize>>>()?;
    let mask = ProjectionMask::roots(builder.parquet_schema(), wanted);
    let reader = builder.with_projection(mask).with_batch_size(BATCH_ROWS).build().map_err(not_parquet)?;
    for batch in reader {
        let batch = batch?;
        for (name, column) in names.iter().zip(&mut *columns) {
            append(&batch, name, column)?;
        }
    }
    Ok(())
}

/// A file that the reader does not understand is not the user's Parquet data.
fn not_parquet(e: parquet::errors::ParquetError) -> Error {
    Error::data(format!("{e}: write Parquet files only to a channel")).with_source(e)
}

/// The position of a column that can be used as numbers.
fn find(schema: &Schema, name: &str) -> Result<usize> {
    let Some((index, field)) = schema.column_with_name(name) else {
        let names = schema.fields().iter().map(|f| f.name());
        let hint = match closest(name, names) {
            Some(known) => format!("did you mean `{known}`?"),
            None => "name a column of the file".to_string(),
        };
        return Err(Error::not_found(format!("no column `{name}`: {hint}")));
    };
    let kind = field.data_type();
    if !(kind.is_numeric() || matches!(kind, DataType::Boolean | DataType::Null)) {
        return Err(Error::invalid(format!("column `{name}` is {kind}: turn it into a number or leave it out")));
    }
    Ok(index)
}

/// Appends one column as numbers; false is 0, true is 1, NULL is `NaN`.
fn append(batch: &RecordBatch, name: &str, to: &mut Vec<f64>) -> Result<()> {
    let column = batch.column_by_name(name).ok_or_else(|| Error::internal(format!("column `{name}` was not read")))?;
    let numbers = cast(column, &DataType::Float64)?;
    let numbers = numbers.as_primitive::<Float64Type>();
    match numbers.null_count() {
        0 => to.extend_from_slice(numbers.values()),
        _ => to.extend(numbers.iter().map(|x| x.unwrap_or(f64::NAN))),
    }
    Ok(())
}

/// The trainer cuts columns at values below the largest number, so nothing may be as large as that.
fn check_finite(names: &[String], columns: &[Vec<f64>]) -> Result<()> {
    for (name, column) in names.iter().zip(columns) {
        let infinite = column.iter().filter(|x| x.abs() >= f64::MAX).count();
        if infinite > 0 {
            let fix = "turn it into NULL or a finite number";
            return Err(Error::invalid(format!("column `{name}` is infinite in {infinite} rows: {fix}")));
        }
    }
    Ok(())
}
