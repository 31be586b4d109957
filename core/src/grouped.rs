//! An operator's input, grouped by key and ordered by time within each group, without a comparison sort.
//!
//! ```text
//!  batches ──intern──▶ a group number for each row ──counting sort──▶ group 0 │ group 1 │ …   each by time
//! ```
//! Interning and counting are linear; a group is sorted only if its rows do not come in order of time. The rows
//! themselves stay where they are: an [`Order`] says where to find them.

use std::ops::Range;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, Int64Array, RecordBatch, new_empty_array, new_null_array};
use arrow::compute::concat;
use arrow::datatypes::{DataType, Field, Schema};
use datafusion::common::internal_err;
use datafusion::error::Result;
use datafusion::physical_plan::aggregates::group_values::{GroupValues, new_group_values};
use datafusion::physical_plan::aggregates::order::GroupOrdering;

/// A row that belongs to no group, since a key of it is NULL.
const NONE: u32 = u32::MAX;

/// Numbers the keys in order of first sight.
pub(crate) struct Keys {
    /// `None` if there are no key columns: all rows are one group.
    values: Option<Box<dyn GroupValues>>,
    scratch: Vec<usize>,
}

impl Keys {
    pub(crate) fn new<'a>(types: impl IntoIterator<Item = &'a DataType>) -> Result<Self> {
        let fields: Vec<_> =
            types.into_iter().enumerate().map(|(i, t)| Field::new(format!("k{i}"), t.clone(), true)).collect();
        let values = match fields.is_empty() {
            true => None,
            false => Some(new_group_values(Arc::new(Schema::new(fields)), &GroupOrdering::None)?),
        };
        Ok(Self { values, scratch: Vec::new() })
    }

    /// How many groups there are.
    pub(crate) fn len(&self) -> usize {
        self.values.as_ref().map_or(1, |v| v.len())
    }

    /// Appends the group of each of `rows` rows to `out`; a row with a NULL key belongs to none.
    pub(crate) fn intern(&mut self, keys: &[ArrayRef], rows: usize, out: &mut Vec<u32>) -> Result<()> {
        let Some(values) = &mut self.values else {
            out.resize(out.len() + rows, 0);
            return Ok(());
        };
        values.intern(keys, &mut self.scratch)?;
        let first = out.len();
        out.extend(self.scratch.iter().map(|g| *g as u32));
        for nulls in keys.iter().filter_map(|k| k.logical_nulls()) {
            out[first..].iter_mut().zip(&nulls).filter(|(_, valid)| !valid).for_each(|(group, _)| *group = NONE);
        }
        Ok(())
    }
}

/// Where the rows of each group are.
#[derive(Debug)]
pub(crate) struct Order {
    /// Row numbers, group by group, by time within a group.
    pub(crate) rows: Vec<u32>,
    /// The times of `rows`.
    pub(crate) times: Vec<i64>,
    /// `rows[starts[g]..starts[g + 1]]` is group g.
    starts: Vec<u32>,
}

impl Order {
    /// Orders rows that have the given groups and times, the latter in pieces. Rows of no group, or of a group past
    /// `groups`, are left out.
    pub(crate) fn new(of: &[u32], times: &[Int64Array], groups: usize) -> Result<Self> {
        if of.len() >= NONE as usize {
            return internal_err!("a partition of more than 4 billion rows: use more partitions");
        }
        let mut starts = vec![0u32; groups + 1];
        let known = |group: u32| (group as usize) < groups;
        of.iter().filter(|g| known(**g)).for_each(|g| starts[*g as usize + 1] += 1);
        for g in 0..groups {
            starts[g + 1] += starts[g];
        }
        let mut next = starts.clone();
        let total = starts[groups] as usize;
        let mut order = Self { rows: vec![0; total], times: vec![0; total], starts };
        let mut row = 0;
        for piece in times {
            for (group, time) in of[row..].iter().zip(piece.values()) {
                if known(*group) {
                    let place = &mut next[*group as usize];
                    order.rows[*place as usize] = row as u32;
                    order.times[*place as usize] = *time;
                    *place += 1;
                }
                row += 1;
            }
        }
        order.sort_groups();
        Ok(order)
    }

    fn sort_groups(&mut self) {
        for g in 0..self.groups() {
            let range = self.group(g);
            if self.times[range.clone()].is_sorted() {
                continue;
            }
            let (times, rows) = (&self.times[range.clone()], &self.rows[range.clone()]);
            let mut pairs: Vec<(i64, u32)> = times.iter().copied().zip(rows.iter().copied()).collect();
            pairs.sort_unstable();
            for (place, (time, row)) in range.zip(pairs) {
                (self.times[place], self.rows[place]) = (time, row);
            }
        }
    }

    /// How many groups there are, empty ones included.
    pub(crate) fn groups(&self) -> usize {
        self.starts.len() - 1
    }

    /// The places of a group in `rows` and `times`.
    pub(crate) fn group(&self, g: usize) -> Range<usize> {
        self.starts[g] as usize..self.starts[g + 1] as usize
    }
}

/// The columns of `batches`, each in one piece; a batch is given up as soon as its columns are copied. The first
/// `unused` columns are not copied, but NULL.
pub(crate) fn concatenate(schema: &Schema, batches: Vec<RecordBatch>, unused: usize) -> Result<Vec<ArrayRef>> {
    let rows = batches.iter().map(RecordBatch::num_rows).sum();
    let mut columns: Vec<Vec<ArrayRef>> = schema.fields().iter().map(|_| Vec::with_capacity(batches.len())).collect();
    for batch in batches {
        let (_, arrays, _) = batch.into_parts();
        columns.iter_mut().zip(arrays).for_each(|(column, array)| column.push(array));
    }
    columns[..unused].iter_mut().for_each(Vec::clear);
    let whole = |(number, (pieces, field)): (usize, (Vec<ArrayRef>, &Arc<Field>))| {
        let pieces: Vec<&dyn Array> = pieces.iter().map(AsRef::as_ref).collect();
        Ok(match pieces.is_empty() {
            true if number < unused => new_null_array(&DataType::Null, rows),
            true => new_empty_array(field.data_type()),
            false => concat(&pieces)?,
        })
    };
    columns.into_iter().zip(schema.fields()).enumerate().map(whole).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::StringArray;

    #[test]
    fn rows_are_grouped_by_key_and_ordered_by_time() {
        let mut keys = Keys::new([&DataType::Utf8, &DataType::Int64]).unwrap();
        let columns: Vec<ArrayRef> = vec![
            Arc::new(StringArray::from(vec![Some("a"), Some("b"), None, Some("a"), Some("a"), Some("b")])),
            Arc::new(Int64Array::from(vec![Some(1), Some(1), Some(1), Some(1), None, Some(1)])),
        ];
        let mut of = Vec::new();
        keys.intern(&columns, 6, &mut of).unwrap();
        let order = Order::new(&of, &[vec![5, 9, 0].into(), vec![3, 0, 7].into()], keys.len()).unwrap();
        let groups: Vec<_> = (0..order.groups()).map(|g| order.rows[order.group(g)].to_vec()).collect();
        assert!(groups.contains(&vec![3, 0]) && groups.contains(&vec![5, 1]), "{groups:?}");
        assert_eq!(order.rows.len(), 4, "rows with a NULL key are in no group");
    }

    #[test]
    fn without_keys_there_is_one_group() {
        let mut keys = Keys::new([]).unwrap();
        let mut of = Vec::new();
        keys.intern(&[], 3, &mut of).unwrap();
        let order = Order::new(&of, &[vec![3, 1, 2].into()], keys.len()).unwrap();
        assert_eq!((order.groups(), order.rows, order.times), (1, vec![1, 2, 0], vec![1, 2, 3]));
    }
}
