//! An operator's input, grouped by key and ordered by time within each group, without a comparison sort.
//!
//! ```text
//!  batches ──intern──▶ a group number for each row ──counting sort──▶ group 0 │ group 1 │ …   each by time
//! ```
//! Interning and counting are linear; a group is sorted only if its rows do not come in order of time. The rows
//! themselves stay where they are: an [`Order`] says where to find them.

use std::ops::Range;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Int64Array, RecordBatch, new_empty_array, new_null_array};
use arrow::compute::{concat, max, min};
use arrow::datatypes::{DataType, Field, Int64Type, Schema};
use datafusion::common::internal_err;
use datafusion::error::Result;
use datafusion::physical_plan::aggregates::group_values::{GroupValues, new_group_values};
use datafusion::physical_plan::aggregates::order::GroupOrdering;

use crate::aggregate::put_where_not;

/// A row that belongs to no group, since a key of it is NULL.
const NONE: u32 = u32::MAX;

/// Numbers the keys in order of first sight.
pub(crate) enum Keys {
    /// There are no key columns: all rows are one group.
    One,
    /// Integers that lie close together: the group of each, from the least on.
    Dense {
        least: i64,
        groups: Vec<u32>,
        count: u32,
    },
    Any {
        values: Box<dyn GroupValues>,
        scratch: Vec<usize>,
    },
}

impl Keys {
    /// For keys of these types, and these values: `batches` are all that will be seen.
    pub(crate) fn new<'a>(
        types: impl IntoIterator<Item = &'a DataType>,
        batches: impl Iterator<Item = &'a Vec<ArrayRef>>,
    ) -> Result<Self> {
        let fields: Vec<_> =
            types.into_iter().enumerate().map(|(i, t)| Field::new(format!("k{i}"), t.clone(), true)).collect();
        if fields.is_empty() {
            return Ok(Self::One);
        }
        if let [field] = fields.as_slice()
            && field.data_type() == &DataType::Int64
            && let Some((least, len)) = dense(batches)
        {
            return Ok(Self::Dense { least, groups: vec![NONE; len], count: 0 });
        }
        let values = new_group_values(Arc::new(Schema::new(fields)), &GroupOrdering::None)?;
        Ok(Self::Any { values, scratch: Vec::new() })
    }

    /// How many groups there are.
    pub(crate) fn len(&self) -> usize {
        match self {
            Self::One => 1,
            Self::Dense { count, .. } => *count as usize,
            Self::Any { values, .. } => values.len(),
        }
    }

    /// Appends the group of each of `rows` rows to `out`; a row with a NULL key belongs to none.
    pub(crate) fn intern(&mut self, keys: &[ArrayRef], rows: usize, out: &mut Vec<u32>) -> Result<()> {
        let first = out.len();
        match self {
            Self::One => out.resize(first + rows, 0),
            Self::Dense { least, groups, count } => {
                let values = keys[0].as_primitive::<Int64Type>();
                out.extend(values.values().iter().enumerate().map(|(row, value)| {
                    if values.is_null(row) {
                        return NONE;
                    }
                    let group = &mut groups[value.wrapping_sub(*least) as usize];
                    if *group == NONE {
                        (*group, *count) = (*count, *count + 1);
                    }
                    *group
                }));
            }
            Self::Any { values, scratch } => {
                values.intern(keys, scratch)?;
                out.extend(scratch.iter().map(|g| *g as u32));
                for nulls in keys.iter().filter_map(|k| k.logical_nulls()) {
                    put_where_not(nulls.inner(), NONE, &mut out[first..]);
                }
            }
        }
        Ok(())
    }
}

/// The least key and how many there could be, if a table of them all is no larger than the rows.
fn dense<'a>(batches: impl Iterator<Item = &'a Vec<ArrayRef>>) -> Option<(i64, usize)> {
    let (mut least, mut most, mut rows) = (i64::MAX, i64::MIN, 0);
    for keys in batches {
        let values = keys[0].as_primitive::<Int64Type>();
        rows += values.len();
        least = least.min(min(values).unwrap_or(i64::MAX));
        most = most.max(max(values).unwrap_or(i64::MIN));
    }
    let len = usize::try_from(most.checked_sub(least)?).ok()?.checked_add(1)?;
    (len <= rows).then_some((least, len))
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
        let total = starts[groups] as usize;
        let mut order = Self { rows: vec![0; total], times: vec![0; total], starts };
        let mut row = 0u32;
        let rows = times.iter().flat_map(|piece| piece.values()).map(|time| {
            row += 1;
            (*time, row - 1)
        });
        order.scatter(of, rows);
        order.sort_groups(of);
        Ok(order)
    }

    /// Puts rows, given with their times, into their groups, in the order in which they are given.
    fn scatter(&mut self, of: &[u32], rows: impl Iterator<Item = (i64, u32)>) {
        let mut next = self.starts.clone();
        let groups = self.groups();
        for (time, row) in rows {
            let group = of[row as usize] as usize;
            if group < groups {
                let place = &mut next[group];
                self.rows[*place as usize] = row;
                self.times[*place as usize] = time;
                *place += 1;
            }
        }
    }

    /// Few rows are sorted group by group; many are sorted by time as a whole, which takes a few passes, and dealt to
    /// their groups again.
    fn sort_groups(&mut self, of: &[u32]) {
        let unsorted: Vec<usize> = (0..self.groups()).filter(|g| !self.times[self.group(*g)].is_sorted()).collect();
        let rows: usize = unsorted.iter().map(|g| self.group(*g).len()).sum();
        if rows > 4096 && rows > self.rows.len() / 8 {
            let mut pairs: Vec<(i64, u32)> = self.times.iter().copied().zip(self.rows.iter().copied()).collect();
            // Rows of one time stay in their order.
            radix_sort(&mut pairs);
            return self.scatter(of, pairs.into_iter());
        }
        for g in unsorted {
            let range = self.group(g);
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

/// Sorts by time, digit by digit from the lowest on (Knuth, "The art of computer programming", volume 3, 5.2.5). Pairs of
/// one time stay in their order.
fn radix_sort(pairs: &mut Vec<(i64, u32)>) {
    const BITS: u32 = 11;
    let Some(least) = pairs.iter().map(|(time, _)| *time).min() else { return };
    let most = pairs.iter().map(|(time, _)| *time).max().unwrap_or(least);
    let key = |time: i64| time.wrapping_sub(least) as u64;
    let width = u64::BITS - key(most).leading_zeros();
    let mut other = vec![(0, 0); pairs.len()];
    for shift in (0..width).step_by(BITS as usize) {
        let digit = |time: i64| (key(time) >> shift) as usize & ((1 << BITS) - 1);
        let mut next = [0u32; 1 << BITS];
        pairs.iter().for_each(|(time, _)| next[digit(*time)] += 1);
        let mut start = 0;
        for place in &mut next {
            (*place, start) = (start, start + *place);
        }
        for pair in pairs.iter() {
            let place = &mut next[digit(pair.0)];
            other[*place as usize] = *pair;
            *place += 1;
        }
        std::mem::swap(pairs, &mut other);
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
    use proptest::prelude::*;

    #[test]
    fn rows_are_grouped_by_key_and_ordered_by_time() {
        let columns: Vec<ArrayRef> = vec![
            Arc::new(StringArray::from(vec![Some("a"), Some("b"), None, Some("a"), Some("a"), Some("b")])),
            Arc::new(Int64Array::from(vec![Some(1), Some(1), Some(1), Some(1), None, Some(1)])),
        ];
        let mut keys = Keys::new([&DataType::Utf8, &DataType::Int64], [&columns].into_iter()).unwrap();
        let mut of = Vec::new();
        keys.intern(&columns, 6, &mut of).unwrap();
        let order = Order::new(&of, &[vec![5, 9, 0].into(), vec![3, 0, 7].into()], keys.len()).unwrap();
        let groups: Vec<_> = (0..order.groups()).map(|g| order.rows[order.group(g)].to_vec()).collect();
        assert!(groups.contains(&vec![3, 0]) && groups.contains(&vec![5, 1]), "{groups:?}");
        assert_eq!(order.rows.len(), 4, "rows with a NULL key are in no group");
    }

    #[test]
    fn keys_close_together_are_grouped_like_any_others() {
        let near =
            |far: i64| vec![Arc::new(Int64Array::from(vec![Some(-3), None, Some(0), Some(-3), Some(far)])) as ArrayRef];
        for (keys, dense) in [(near(1), true), (near(i64::MAX), false), (near(2), false)] {
            let mut found = Keys::new([&DataType::Int64], [&keys].into_iter()).unwrap();
            assert_eq!(matches!(found, Keys::Dense { .. }), dense);
            let mut of = Vec::new();
            found.intern(&keys, 5, &mut of).unwrap();
            assert_eq!((of[0] == of[3], of[0] == of[2], of[1], of[4] == of[2]), (true, false, NONE, false));
        }
    }

    proptest! {
        #[test]
        fn many_rows_are_ordered_as_few_are(
            rows in prop::collection::vec((0u32..5, prop_oneof![-40i64..40, any::<i64>()]), 4100..4300),
        ) {
            let (of, times): (Vec<u32>, Vec<i64>) = rows.iter().copied().unzip();
            let order = Order::new(&of, &[times.clone().into()], 4).unwrap();
            for group in 0..4 {
                let mut wanted: Vec<_> = (0..of.len()).filter(|row| of[*row] == group as u32).collect();
                wanted.sort_by_key(|row| times[*row]);
                let found: Vec<_> = order.rows[order.group(group)].iter().map(|row| *row as usize).collect();
                prop_assert_eq!(&found, &wanted);
                let wanted: Vec<_> = wanted.into_iter().map(|row| times[row]).collect();
                prop_assert_eq!(&order.times[order.group(group)], &wanted[..]);
            }
        }
    }

    #[test]
    fn without_keys_there_is_one_group() {
        let mut keys = Keys::new([], std::iter::empty()).unwrap();
        let mut of = Vec::new();
        keys.intern(&[], 3, &mut of).unwrap();
        let order = Order::new(&of, &[vec![3, 1, 2].into()], keys.len()).unwrap();
        assert_eq!((order.groups(), order.rows, order.times), (1, vec![1, 2, 0], vec![1, 2, 3]));
    }
}
