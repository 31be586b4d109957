//! The latest row as an aggregation, so that latest-row views live in tiles like all others.

use std::cmp::Ordering;
use std::sync::Arc;

use arrow::array::{ArrayRef, StructArray};
use arrow::datatypes::{DataType, Field, Fields};

use crate::aggregate::{Aggregation, Events};
use crate::definition::FeatureView;
use crate::{Error, Result, ordered};

/// The row with the greatest (event time, sequence, values), as a struct of its columns.
#[derive(Debug)]
pub(super) struct LatestRow(Vec<DataType>);

/// A row of many columns is one piece of memory.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Row {
    time: i64,
    /// The sequence and the values: of each its length in 4 bytes, little-endian, and its bytes; [`NULL`] alone for NULL.
    cells: Box<[u8]>,
}

/// The length of NULL.
const NULL: u32 = u32::MAX;

/// Which of two rows, each a time and its cells, is the later one: by time, sequence and values; NULLs first.
fn order(a: (i64, &[u8]), b: (i64, &[u8])) -> Ordering {
    a.0.cmp(&b.0).then_with(|| Cells(a.1).cmp(Cells(b.1)))
}

/// The cells in some bytes, up to the end or to the first that is cut off.
struct Cells<'a>(&'a [u8]);

impl<'a> Iterator for Cells<'a> {
    type Item = Option<&'a [u8]>;

    fn next(&mut self) -> Option<Self::Item> {
        let (len, rest) = self.0.split_first_chunk()?;
        let len = match u32::from_le_bytes(*len) {
            NULL => {
                self.0 = rest;
                return Some(None);
            }
            len => len as usize,
        };
        let (cell, rest) = rest.split_at_checked(len)?;
        self.0 = rest;
        Some(Some(cell))
    }
}

fn push(cell: Option<&[u8]>, out: &mut Vec<u8>) {
    out.extend(cell.map_or(NULL, |v| v.len() as u32).to_le_bytes());
    out.extend(cell.unwrap_or_default());
}

impl LatestRow {
    pub(super) fn of(view: &FeatureView) -> Self {
        Self(view.events.schema().fields()[view.first_input()..].iter().map(|f| f.data_type().clone()).collect())
    }

    fn fields(&self) -> Fields {
        self.0.iter().enumerate().map(|(i, t)| Field::new(format!("c{i}"), t.clone(), true)).collect()
    }

    /// The columns of the latest of each group of encoded rows; NULL for none.
    ///
    /// Errors: [`Data`](crate::ErrorKind::Data) if one is damaged.
    pub(super) fn columns(&self, groups: &[Vec<&[u8]>]) -> Result<Vec<ArrayRef>> {
        let mut latest = Vec::with_capacity(groups.len());
        for group in groups {
            let mut best: Option<(i64, &[u8])> = None;
            for bytes in group.iter().filter(|bytes| !bytes.is_empty()) {
                let row = self.split(bytes)?;
                best = if best.is_none_or(|best| order(row, best).is_gt()) { Some(row) } else { best };
            }
            latest.push(best.map(|(_, cells)| cells));
        }
        self.values(&latest)
    }

    /// The columns of rows that are cells, the first of which is the sequence.
    fn values(&self, rows: &[Option<&[u8]>]) -> Result<Vec<ArrayRef>> {
        let width = self.0.len();
        let mut cells = Vec::with_capacity(width * rows.len());
        for (i, row) in rows.iter().enumerate() {
            cells.extend(row.iter().flat_map(|cells| Cells(cells).skip(1)));
            cells.resize((i + 1) * width, None);
        }
        let column = |(i, t)| ordered::decode(t, cells.iter().skip(i).step_by(width).copied());
        self.0.iter().enumerate().map(column).collect()
    }

    /// The time and the cells of an encoded row.
    fn split<'a>(&self, bytes: &'a [u8]) -> Result<(i64, &'a [u8])> {
        let short = || Error::data("a stored row is too short");
        let (time, rest) = bytes.split_first_chunk().ok_or_else(short)?;
        let mut cells = Cells(rest);
        if cells.by_ref().take(1 + self.0.len()).count() != 1 + self.0.len() {
            return Err(short());
        }
        Ok((i64::from_le_bytes(*time), &rest[..rest.len() - cells.0.len()]))
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
            let mut cells = Vec::new();
            push(Some(sequences.as_ref().and_then(|s| s[i].as_deref()).unwrap_or_default()), &mut cells);
            columns.iter().for_each(|column| push(column[i].as_deref(), &mut cells));
            Some(Row { time: *time, cells: cells.into() })
        };
        Ok(events.time.iter().enumerate().map(row).collect())
    }

    fn merge(&self, into: &mut Row, other: &Row) {
        if order((other.time, &other.cells), (into.time, &into.cells)).is_gt() {
            into.clone_from(other);
        }
    }

    fn finish(&self, rows: &[Option<Row>]) -> Result<ArrayRef> {
        let cells: Vec<_> = rows.iter().map(|row| row.as_ref().map(|row| &row.cells[..])).collect();
        Ok(Arc::new(StructArray::try_new_with_length(self.fields(), self.values(&cells)?, None, rows.len())?))
    }

    fn encode(&self, row: &Row, out: &mut Vec<u8>) {
        out.extend(row.time.to_le_bytes());
        out.extend(&row.cells);
    }

    fn decode(&self, bytes: &[u8]) -> Result<Row> {
        let (time, cells) = self.split(bytes)?;
        Ok(Row { time, cells: cells.into() })
    }
}
