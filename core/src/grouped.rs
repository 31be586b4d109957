//! An operator's input, grouped by key and ordered by time within each group, without a comparison sort.
//!
//! ```text
//!  batches ──intern──▶ a group number for each row ──counting sort──▶ group 0 │ group 1 │ …   each by time
//! ```
//! Interning and counting are linear; a group is sorted only if its rows do not come in order of time. The rows
//! themselves stay where they are: an [`Order`] says where to find them.

use std::ops::Range;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, ArrowPrimitiveType, AsArray, BooleanArray, Int64Array, PrimitiveArray, RecordBatch, UInt32Array,
    downcast_primitive, new_empty_array, new_null_array,
};
use arrow::buffer::{BooleanBuffer, NullBuffer};
use arrow::compute::{concat, interleave, max, min, take};
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
    /// Row numbers, or [places](Pieces), group by group, by time within a group.
    pub(crate) rows: Vec<u32>,
    /// The times of `rows`.
    pub(crate) times: Vec<i64>,
    /// `rows[starts[g]..starts[g + 1]]` is group g.
    starts: Vec<u32>,
}

impl Order {
    /// Orders rows that have the given groups and times, the latter in pieces. Rows of no group, or of a group past
    /// `groups`, are left out. Rows are numbered from the first on, or if pieces have `bits`, by their [places](Pieces).
    pub(crate) fn new(of: &[u32], times: &[Int64Array], groups: usize, bits: Option<u32>) -> Result<Self> {
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
        let mut next = order.starts.clone();
        let mut row = 0;
        for (number, piece) in times.iter().enumerate() {
            let first = bits.map_or(row as u32, |bits| (number as u32) << bits);
            let of = &of[row..row + piece.len()];
            let rows = piece.values().iter().zip(of).enumerate().filter(|(_, (_, group))| known(**group));
            order.scatter(rows.map(|(at, (time, group))| (*time, first + at as u32, *group)), &mut next);
            row += piece.len();
        }
        order.sort_groups();
        Ok(order)
    }

    /// Puts rows, given as their times, numbers and groups, at the next places of their groups.
    fn scatter(&mut self, rows: impl Iterator<Item = (i64, u32, u32)>, next: &mut [u32]) {
        for (time, row, group) in rows {
            let place = &mut next[group as usize];
            self.rows[*place as usize] = row;
            self.times[*place as usize] = time;
            *place += 1;
        }
    }

    /// Few rows are sorted group by group; many are sorted by time as a whole, which takes a few passes, and dealt to
    /// their groups again.
    fn sort_groups(&mut self) {
        let unsorted: Vec<usize> = (0..self.groups()).filter(|g| !self.times[self.group(*g)].is_sorted()).collect();
        let rows: usize = unsorted.iter().map(|g| self.group(*g).len()).sum();
        if rows > 4096 && rows > self.rows.len() / 8 {
            let order = &*self;
            let group = |g: usize| order.group(g).map(move |at| (order.times[at], order.rows[at], g as u32));
            let mut rows: Vec<_> = (0..order.groups()).flat_map(group).collect();
            // Rows of one time stay in their order.
            radix_sort(&mut rows);
            let mut next = self.starts.clone();
            return self.scatter(rows.into_iter(), &mut next);
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

/// The columns of many batches, which stay where they are: a row is found by its place, `piece << bits | row of the piece`.
pub(crate) struct Pieces {
    columns: Vec<Vec<ArrayRef>>,
    bits: Option<u32>,
}

impl Pieces {
    /// Of `batches`, without the first `unused` columns.
    pub(crate) fn new(schema: &Schema, batches: Vec<RecordBatch>, unused: usize) -> Result<Self> {
        let longest = batches.iter().map(RecordBatch::num_rows).max().unwrap_or(0);
        let bits = usize::BITS - longest.leading_zeros();
        if batches.len() < 2 || (batches.len() as u64) << bits > u64::from(u32::MAX) {
            return Self::whole(schema, batches, unused);
        }
        let mut columns = columns_of(schema, batches);
        columns[..unused].iter_mut().for_each(Vec::clear);
        Ok(Self { columns, bits: Some(bits) })
    }

    /// All in one piece.
    pub(crate) fn whole(schema: &Schema, batches: Vec<RecordBatch>, unused: usize) -> Result<Self> {
        let columns = concatenate(schema, batches, unused)?.into_iter().map(|column| vec![column]).collect();
        Ok(Self { columns, bits: None })
    }

    /// Of a place; `None`: a place is a row number.
    pub(crate) fn bits(&self) -> Option<u32> {
        self.bits
    }

    /// The columns, if they are in one piece.
    pub(crate) fn one(&self) -> Result<Vec<ArrayRef>> {
        match self.bits {
            None => Ok(self.columns.iter().map(|pieces| Arc::clone(&pieces[0])).collect()),
            Some(_) => internal_err!("these columns are in many pieces"),
        }
    }

    /// All columns of the rows at `places`; unused ones are NULL.
    pub(crate) fn take(&self, places: &[u32]) -> Result<Vec<ArrayRef>> {
        let Some(bits) = self.bits else {
            let places = UInt32Array::from(places.to_vec());
            return self.columns.iter().map(|pieces| Ok(take(&pieces[0], &places, None)?)).collect();
        };
        let gather = Gather { bits, places };
        let mut pairs = None;
        let one = |pieces: &Vec<ArrayRef>| {
            let Some(first) = pieces.first() else { return Ok(new_null_array(&DataType::Null, places.len())) };
            macro_rules! primitive {
                ($t:ty) => {
                    Ok(gather.primitives::<$t>(pieces))
                };
            }
            downcast_primitive! {
                first.data_type() => (primitive),
                DataType::Boolean => Ok(gather.booleans(pieces)),
                _ => {
                    let pairs = pairs.get_or_insert_with(|| places.iter().map(|p| gather.pair(*p)).collect::<Vec<_>>());
                    let pieces: Vec<&dyn Array> = pieces.iter().map(AsRef::as_ref).collect();
                    Ok(interleave(&pieces, pairs)?)
                }
            }
        };
        self.columns.iter().map(one).collect()
    }
}

/// The rows at some places of columns in pieces.
struct Gather<'a> {
    bits: u32,
    places: &'a [u32],
}

impl Gather<'_> {
    fn pair(&self, place: u32) -> (usize, usize) {
        ((place >> self.bits) as usize, (place & ((1 << self.bits) - 1)) as usize)
    }

    fn primitives<T: ArrowPrimitiveType>(&self, pieces: &[ArrayRef]) -> ArrayRef {
        let values: Vec<&[T::Native]> = pieces.iter().map(|p| &p.as_primitive::<T>().values()[..]).collect();
        let value = |place: &u32| {
            let (piece, row) = self.pair(*place);
            values[piece][row]
        };
        let values: Vec<T::Native> = self.places.iter().map(value).collect();
        let array = PrimitiveArray::<T>::new(values.into(), self.nulls(pieces));
        Arc::new(array.with_data_type(pieces[0].data_type().clone()))
    }

    fn booleans(&self, pieces: &[ArrayRef]) -> ArrayRef {
        let values: Vec<_> = pieces.iter().map(|p| Some(p.as_boolean().values())).collect();
        Arc::new(BooleanArray::new(self.bits(&values), self.nulls(pieces)))
    }

    fn nulls(&self, pieces: &[ArrayRef]) -> Option<NullBuffer> {
        let nulls: Vec<_> = pieces.iter().map(|p| p.nulls().map(NullBuffer::inner)).collect();
        nulls.iter().any(Option::is_some).then(|| NullBuffer::new(self.bits(&nulls)))
    }

    /// A piece without bits has all of them set.
    fn bits(&self, pieces: &[Option<&BooleanBuffer>]) -> BooleanBuffer {
        BooleanBuffer::collect_bool(self.places.len(), |at| {
            let (piece, row) = self.pair(self.places[at]);
            pieces[piece].is_none_or(|bits| bits.value(row))
        })
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

/// The columns of `batches`, each in one piece; a batch is given up as soon as its columns are copied. The first
/// `unused` columns are not copied, but NULL.
pub(crate) fn concatenate(schema: &Schema, batches: Vec<RecordBatch>, unused: usize) -> Result<Vec<ArrayRef>> {
    let rows = batches.iter().map(RecordBatch::num_rows).sum();
    let mut columns = columns_of(schema, batches);
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
        let order = Order::new(&of, &[vec![5, 9, 0].into(), vec![3, 0, 7].into()], keys.len(), None).unwrap();
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
            let order = Order::new(&of, &[times.clone().into()], 4, None).unwrap();
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

    proptest! {
        #[test]
        fn rows_in_pieces_are_ordered_and_found_as_in_one(
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
            let both = [Pieces::new(&schema, batches.clone(), unused), Pieces::whole(&schema, batches, unused)].map(|pieces| {
                let pieces = pieces.unwrap();
                let order = Order::new(&of, &times, 3, pieces.bits()).unwrap();
                let columns = pieces.take(&order.rows).unwrap();
                (order.times, order.starts, columns[unused..].to_vec())
            });
            prop_assert_eq!(&both[0], &both[1]);
        }
    }

    #[test]
    fn more_pieces_than_places_have_room_for_are_made_one() {
        let batch = |rows: usize| {
            RecordBatch::try_from_iter([("x", Arc::new(Int64Array::from(vec![7; rows])) as ArrayRef)]).unwrap()
        };
        let (schema, long) = (batch(0).schema(), batch(1 << 16));
        let pieces = |count: usize| {
            let batches = (0..count).map(|_| long.slice(0, 1)).chain([long.clone()]).collect();
            Pieces::new(&schema, batches, 0).unwrap()
        };
        assert_eq!(pieces(100).bits(), Some(17));
        let many = pieces(1 << 15);
        assert_eq!((many.bits(), many.one().unwrap()[0].len()), (None, (1 << 15) + (1 << 16)));
    }

    #[test]
    fn without_keys_there_is_one_group() {
        let mut keys = Keys::new([], std::iter::empty()).unwrap();
        let mut of = Vec::new();
        keys.intern(&[], 3, &mut of).unwrap();
        let order = Order::new(&of, &[vec![3, 1, 2].into()], keys.len(), None).unwrap();
        assert_eq!((order.groups(), order.rows, order.times), (1, vec![1, 2, 0], vec![1, 2, 3]));
    }
}
