//! An operator's input, grouped by key and ordered by time within each group, without a comparison sort.
//!
//! ```text
//!  batches ──intern──▶ a group for each row ──counting sort──▶ a place for each row ──scatter──▶ group 0 │ group 1 │ …
//! ```
//! Interning and counting are linear; a group is sorted only if its rows do not come in order of time. Columns are read
//! once, batch by batch, and each value is written to its place: what a group's rows are written to stays in the caches
//! for some time, what is read does not need to.

use std::ops::Range;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, BooleanBufferBuilder, Int64Array, PrimitiveArray, RecordBatch, UInt32Array,
    downcast_primitive, new_empty_array, new_null_array,
};
use arrow::buffer::{BooleanBuffer, NullBuffer};
use arrow::compute::{concat, max, min, take};
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

/// The order of rows: group by group, by time within a group.
#[derive(Debug)]
pub(crate) struct Order {
    /// The times of the rows at the places.
    pub(crate) times: Vec<i64>,
    /// `starts[g]..starts[g + 1]` are the places of group g.
    starts: Vec<u32>,
}

/// Where each row goes.
pub(crate) struct Places {
    /// Of each row, or [`NONE`].
    of: Vec<u32>,
    /// How many there are.
    len: usize,
}

impl Order {
    /// Orders rows that have the given groups and times, the latter in pieces. Rows of no group, or of a group past
    /// `groups`, are left out.
    pub(crate) fn new(mut of: Vec<u32>, times: &[Int64Array], groups: usize) -> Result<(Self, Places)> {
        if of.len() >= NONE as usize {
            return internal_err!("a partition of more than 4 billion rows: use more partitions");
        }
        let mut starts = vec![0u32; groups + 1];
        of.iter().filter(|g| (**g as usize) < groups).for_each(|g| starts[*g as usize + 1] += 1);
        for g in 0..groups {
            starts[g + 1] += starts[g];
        }
        let mut next = starts[..groups].to_vec();
        let mut order = Self { times: vec![0; starts[groups] as usize], starts };
        let mut rest = &mut of[..];
        for piece in times {
            let (mine, others) = rest.split_at_mut(piece.len());
            rest = others;
            for (place, time) in mine.iter_mut().zip(piece.values()) {
                *place = match next.get_mut(*place as usize) {
                    Some(next) => {
                        order.times[*next as usize] = *time;
                        *next += 1;
                        *next - 1
                    }
                    None => NONE,
                };
            }
        }
        let mut places = Places { of, len: order.times.len() };
        order.sort_groups(&mut places);
        Ok((order, places))
    }

    /// Few rows are sorted group by group; many are sorted by time as a whole, which takes a few passes, and dealt to
    /// their groups again.
    fn sort_groups(&mut self, places: &mut Places) {
        let unsorted: Vec<usize> = (0..self.groups()).filter(|g| !self.times[self.group(*g)].is_sorted()).collect();
        if unsorted.is_empty() {
            return;
        }
        let mut moved: Vec<u32> = (0..self.times.len() as u32).collect();
        let rows: usize = unsorted.iter().map(|g| self.group(*g).len()).sum();
        if rows > 4096 && rows > self.times.len() / 8 {
            let order = &*self;
            let group = |g: usize| order.group(g).map(move |at| (order.times[at], at as u32, g as u32));
            let mut rows: Vec<_> = (0..order.groups()).flat_map(group).collect();
            // Rows of one time stay in their order.
            radix_sort(&mut rows);
            let mut next = self.starts.clone();
            for (time, place, group) in rows {
                let to = &mut next[group as usize];
                (self.times[*to as usize], moved[place as usize]) = (time, *to);
                *to += 1;
            }
        } else {
            for g in unsorted {
                let range = self.group(g);
                let mut pairs: Vec<(i64, u32)> = range.clone().map(|at| (self.times[at], at as u32)).collect();
                pairs.sort_unstable();
                for (to, (time, place)) in range.zip(pairs) {
                    (self.times[to], moved[place as usize]) = (time, to as u32);
                }
            }
        }
        for place in &mut places.of {
            *place = moved.get(*place as usize).copied().unwrap_or(NONE);
        }
    }

    /// How many groups there are, empty ones included.
    pub(crate) fn groups(&self) -> usize {
        self.starts.len() - 1
    }

    /// The places of a group.
    pub(crate) fn group(&self, g: usize) -> Range<usize> {
        self.starts[g] as usize..self.starts[g + 1] as usize
    }
}

impl Places {
    /// The number of the row at each place.
    pub(crate) fn rows(&self) -> Vec<u32> {
        let rows: Vec<u32> = (0..self.of.len() as u32).collect();
        self.scatter([&rows[..]].into_iter())
    }

    /// The columns of `batches` in this order, each in one piece; what a batch has of a column is given up as soon as it
    /// is copied. The first `unused` columns are not copied, but NULL.
    pub(crate) fn arrange(&self, schema: &Schema, batches: Vec<RecordBatch>, unused: usize) -> Result<Vec<ArrayRef>> {
        let mut rows = None;
        let mut arranged = Vec::with_capacity(schema.fields().len());
        for (number, (pieces, field)) in columns_of(schema, batches).into_iter().zip(schema.fields()).enumerate() {
            if number < unused {
                arranged.push(new_null_array(&DataType::Null, self.len));
                continue;
            }
            macro_rules! primitive {
                ($t:ty) => {{
                    let values = self.scatter(pieces.iter().map(|p| &p.as_primitive::<$t>().values()[..]));
                    let array = PrimitiveArray::<$t>::new(values.into(), self.nulls(&pieces));
                    Arc::new(array.with_data_type(field.data_type().clone())) as ArrayRef
                }};
            }
            arranged.push(downcast_primitive! {
                field.data_type() => (primitive),
                DataType::Boolean => self.booleans(&pieces),
                _ => {
                    let rows = rows.get_or_insert_with(|| UInt32Array::from(self.rows()));
                    take(&whole(pieces, field)?, rows, None)?
                }
            });
        }
        Ok(arranged)
    }

    fn scatter<'a, T: Copy + Default + 'a>(&self, pieces: impl Iterator<Item = &'a [T]>) -> Vec<T> {
        let mut out = vec![T::default(); self.len];
        let mut rest = &self.of[..];
        for piece in pieces {
            let (places, others) = rest.split_at(piece.len());
            rest = others;
            for (value, place) in piece.iter().zip(places) {
                // There is no place NONE.
                if let Some(out) = out.get_mut(*place as usize) {
                    *out = *value;
                }
            }
        }
        out
    }

    fn booleans(&self, pieces: &[ArrayRef]) -> ArrayRef {
        let set = pieces.iter().map(|p| (p.len(), Some(p.as_boolean().values().clone())));
        Arc::new(BooleanArray::new(self.bits(false, set), self.nulls(pieces)))
    }

    fn nulls(&self, pieces: &[ArrayRef]) -> Option<NullBuffer> {
        let unset = pieces.iter().map(|p| (p.len(), p.nulls().map(|n| !n.inner())));
        pieces.iter().any(|p| p.null_count() > 0).then(|| NullBuffer::new(self.bits(true, unset)))
    }

    /// Bits that are `all`, but at the places of the rows whose bits are set in `others`, pieces of some lengths.
    fn bits(&self, all: bool, others: impl Iterator<Item = (usize, Option<BooleanBuffer>)>) -> BooleanBuffer {
        let mut out = BooleanBufferBuilder::new(self.len);
        out.append_n(self.len, all);
        let mut first = 0;
        for (len, piece) in others {
            let places = piece.iter().flat_map(BooleanBuffer::set_indices).map(|row| self.of[first + row]);
            places.filter(|place| *place != NONE).for_each(|place| out.set_bit(place as usize, !all));
            first += len;
        }
        out.finish()
    }
}

/// Sorts by time, digit by digit from the lowest on (Knuth, "The art of computer programming", volume 3, 5.2.5). Rows of
/// one time stay in their order.
fn radix_sort(rows: &mut Vec<(i64, u32, u32)>) {
    const BITS: u32 = 11;
    let Some(least) = rows.iter().map(|row| row.0).min() else { return };
    let most = rows.iter().map(|row| row.0).max().unwrap_or(least);
    let key = |time: i64| time.wrapping_sub(least) as u64;
    let width = u64::BITS - key(most).leading_zeros();
    let mut other = vec![(0, 0, 0); rows.len()];
    for shift in (0..width).step_by(BITS as usize) {
        let digit = |time: i64| (key(time) >> shift) as usize & ((1 << BITS) - 1);
        let mut next = [0u32; 1 << BITS];
        rows.iter().for_each(|row| next[digit(row.0)] += 1);
        let mut start = 0;
        for place in &mut next {
            (*place, start) = (start, start + *place);
        }
        for row in rows.iter() {
            let place = &mut next[digit(row.0)];
            other[*place as usize] = *row;
            *place += 1;
        }
        std::mem::swap(rows, &mut other);
    }
}

fn columns_of(schema: &Schema, batches: Vec<RecordBatch>) -> Vec<Vec<ArrayRef>> {
    let mut columns: Vec<Vec<ArrayRef>> = schema.fields().iter().map(|_| Vec::with_capacity(batches.len())).collect();
    for batch in batches {
        let (_, arrays, _) = batch.into_parts();
        columns.iter_mut().zip(arrays).for_each(|(column, array)| column.push(array));
    }
    columns
}

/// The columns of `batches`, each in one piece; what a batch has of a column is given up as soon as it is copied.
pub(crate) fn concatenate(schema: &Schema, batches: Vec<RecordBatch>) -> Result<Vec<ArrayRef>> {
    columns_of(schema, batches).into_iter().zip(schema.fields()).map(|(pieces, field)| whole(pieces, field)).collect()
}

fn whole(pieces: Vec<ArrayRef>, field: &Field) -> Result<ArrayRef> {
    let pieces: Vec<&dyn Array> = pieces.iter().map(AsRef::as_ref).collect();
    Ok(if pieces.is_empty() { new_empty_array(field.data_type()) } else { concat(&pieces)? })
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
        let (order, places) = Order::new(of, &[vec![5, 9, 0].into(), vec![3, 0, 7].into()], keys.len()).unwrap();
        let rows = places.rows();
        let groups: Vec<_> = (0..order.groups()).map(|g| rows[order.group(g)].to_vec()).collect();
        assert!(groups.contains(&vec![3, 0]) && groups.contains(&vec![5, 1]), "{groups:?}");
        assert_eq!(rows.len(), 4, "rows with a NULL key are in no group");
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
            let (order, places) = Order::new(of.clone(), &[times.clone().into()], 4).unwrap();
            let rows = places.rows();
            for group in 0..4 {
                let mut wanted: Vec<_> = (0..of.len()).filter(|row| of[*row] == group as u32).collect();
                wanted.sort_by_key(|row| times[*row]);
                let found: Vec<_> = rows[order.group(group)].iter().map(|row| *row as usize).collect();
                prop_assert_eq!(&found, &wanted);
                let wanted: Vec<_> = wanted.into_iter().map(|row| times[row]).collect();
                prop_assert_eq!(&order.times[order.group(group)], &wanted[..]);
            }
        }
    }

    proptest! {
        #[test]
        fn columns_are_arranged_as_rows_are(
            lens in prop::collection::vec(0usize..900, 0..12), seed in 0i64..1000, sorted: bool, unused in 0usize..2,
        ) {
            let mut row = 0;
            let batches: Vec<RecordBatch> = lens.iter().map(|len| {
                let rows: Vec<i64> = (row..row + *len as i64).collect();
                row += *len as i64;
                let mixed = rows.iter().map(|row| (row * 7919 + seed) % 97);
                let some = |row: i64| (row % 5 != 0 || *len % 2 == 0).then_some(row);
                let columns: [(&str, ArrayRef); 4] = [
                    ("time", Arc::new(Int64Array::from_iter_values(rows.iter().zip(mixed.clone()).map(|(row, m)| if sorted { *row } else { m })))),
                    ("number", Arc::new(mixed.clone().map(some).collect::<Int64Array>())),
                    ("flag", Arc::new(mixed.clone().map(|m| some(m).map(|m| m % 2 == 0)).collect::<BooleanArray>())),
                    ("text", Arc::new(mixed.map(|m| some(m).map(|m| m.to_string())).collect::<StringArray>())),
                ];
                RecordBatch::try_from_iter_with_nullable(columns.map(|(n, c)| (n, c, true))).unwrap()
            }).collect();
            prop_assume!(!batches.is_empty());
            let schema = batches[0].schema();
            let times: Vec<Int64Array> = batches.iter().map(|b| b.column(0).as_primitive::<Int64Type>().clone()).collect();
            let of: Vec<u32> = (0..row).map(|row| ((row * 31 + seed) % 4) as u32).collect();
            let (_, places) = Order::new(of, &times, 3).unwrap();
            let rows = UInt32Array::from(places.rows());
            let whole = concatenate(&schema, batches.clone()).unwrap();
            let arranged = places.arrange(&schema, batches, unused).unwrap();
            prop_assert!(arranged.iter().all(|column| column.len() == rows.len()));
            for (arranged, whole) in arranged[unused..].iter().zip(&whole[unused..]) {
                prop_assert_eq!(arranged, &take(whole, &rows, None).unwrap());
            }
        }
    }

    #[test]
    fn without_keys_there_is_one_group() {
        let mut keys = Keys::new([], std::iter::empty()).unwrap();
        let mut of = Vec::new();
        keys.intern(&[], 3, &mut of).unwrap();
        let (order, places) = Order::new(of, &[vec![3, 1, 2].into()], keys.len()).unwrap();
        assert_eq!((order.groups(), places.rows(), order.times), (1, vec![1, 2, 0], vec![1, 2, 3]));
    }
}
