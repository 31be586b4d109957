//! Windows without merging: what makes the common aggregations fast.
//!
//! ```text
//!  counts, exact sums    prefix[i] = Σ of the first i rows       a window is prefix[end] − prefix[start]
//!  min, max              minima of blocks (blocks.rs)             a window is two look-ups of each level
//! ```
//! All work for all windows of a view is done on one index, so further windows cost only their look-ups, and what
//! several aggregations need of the same argument is made once. Subtraction is
//! used only where it is exact: for counts, for integers, and for floats as integers of a common unit.

use std::any::Any;
use std::borrow::Cow;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Float64Array};
use arrow::buffer::{BooleanBuffer, NullBuffer, ScalarBuffer};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Int64Type};

use super::Events;
use super::blocks::Blocks;
use super::double_double::DoubleDouble;
use super::sum::floats;
use crate::Result;
use crate::definition::{AggregateCall, FeatureView};

/// What several aggregations over the same events share: which rows count, how many do in each range, and their sums.
#[derive(Debug, Default)]
pub(crate) struct Memo {
    made: Mutex<Vec<(Key, Arc<dyn Any + Send + Sync>)>>,
    /// Addresses of the arguments and filters of which both the least and the greatest value are wanted.
    extremes: Vec<(usize, usize)>,
}

impl Memo {
    /// For the aggregates of a view over these columns.
    pub(crate) fn of(view: &FeatureView, events: &[ArrayRef]) -> Self {
        let calls = |name: &'static str| view.aggregates.iter().filter(move |c| c.binding.name == name);
        let both = |min: &&AggregateCall| calls("max").any(|max| (&max.args, max.filter) == (&min.args, min.filter));
        let place = |call: &AggregateCall| {
            (
                address(call.args.first().map(|c| &events[*c])),
                filter_address(call.filter.map(|c| events[c].as_boolean())),
            )
        };
        Self { made: Mutex::default(), extremes: calls("min").filter(both).map(place).collect() }
    }
}

fn address(arg: Option<&ArrayRef>) -> usize {
    arg.map_or(0, |a| Arc::as_ptr(a).cast::<()>() as usize)
}

fn filter_address(filter: Option<&BooleanArray>) -> usize {
    filter.map_or(0, |f| std::ptr::from_ref(f) as usize)
}

/// What it is, and the addresses of the argument, the filter and the ranges that it is of.
type Key = (&'static str, usize, usize, usize);

/// Makes something of an argument, the filter and ranges, or takes it from the memo.
fn shared<T: Send + Sync + 'static>(
    events: &Events<'_>,
    what: &'static str,
    arg: Option<&ArrayRef>,
    ranges: &[Range<usize>],
    make: impl FnOnce() -> Result<T>,
) -> Result<Arc<T>> {
    let Some(memo) = events.memo else { return make().map(Arc::new) };
    let key = (what, address(arg), filter_address(events.filter), ranges.as_ptr() as usize);
    let known = |memo: &Memo| {
        let found = memo.made.lock().unwrap_or_else(PoisonError::into_inner);
        found.iter().find(|(k, _)| *k == key).and_then(|(_, v)| Arc::clone(v).downcast().ok())
    };
    if let Some(known) = known(memo) {
        return Ok(known);
    }
    let made = Arc::new(make()?);
    memo.made.lock().unwrap_or_else(PoisonError::into_inner).push((key, Arc::clone(&made) as _));
    Ok(made)
}

/// Which rows count: not NULL in `arg`, and true in the filter. `None`: all of them.
pub(super) fn counted(events: &Events<'_>, arg: Option<&ArrayRef>) -> Option<BooleanBuffer> {
    both(arg.and_then(|a| a.logical_nulls()).map(|n| n.into_inner()), events.filter.map(truth))
}

/// Where a condition is true, not false or NULL.
pub(super) fn truth(condition: &BooleanArray) -> BooleanBuffer {
    match condition.nulls() {
        Some(nulls) => condition.values() & nulls.inner(),
        None => condition.values().clone(),
    }
}

pub(super) fn both(one: Option<BooleanBuffer>, other: Option<BooleanBuffer>) -> Option<BooleanBuffer> {
    match (one, other) {
        (Some(one), Some(other)) => Some(&one & &other),
        (one, other) => one.or(other),
    }
}

/// How many rows of each range count, and which ranges have none, as the NULLs of a result.
pub(super) struct Seen {
    pub(super) counts: Vec<u32>,
    pub(super) nulls: Option<NullBuffer>,
}

impl Seen {
    pub(super) fn new(events: &Events<'_>, arg: Option<&ArrayRef>, ranges: &[Range<usize>]) -> Result<Arc<Self>> {
        shared(events, "seen", arg, ranges, || {
            let counts = shared(events, "counts", arg, &[], || Ok(Counts::new(counted(events, arg).as_ref())))?;
            Ok(Self::from_counts(&counts, ranges))
        })
    }

    pub(super) fn from_counts(counts: &Counts, ranges: &[Range<usize>]) -> Self {
        let counts: Vec<u32> = ranges.iter().map(|r| counts.of(r)).collect();
        let nulls = NullBuffer::new(BooleanBuffer::collect_bool(counts.len(), |i| counts[i] > 0));
        Self { counts, nulls: Some(nulls).filter(|n| n.null_count() > 0) }
    }
}

/// Sums of the first rows of an integer column, as far as they count: if 64 bits hold all of them, and doubles each value.
pub(super) fn integer_sums(events: &Events<'_>, arg: &ArrayRef) -> Result<Arc<Option<Vec<i64>>>> {
    shared(events, "integer sums", Some(arg), &[], || {
        if !arg.data_type().is_integer() || arg.data_type() == &DataType::UInt64 {
            return Ok(None);
        }
        let mut values = cast(arg, &DataType::Int64)?.as_primitive::<Int64Type>().values().to_vec();
        if let Some(counted) = counted(events, Some(arg)) {
            put_where_not(&counted, 0, &mut values);
        }
        let most = values.iter().map(|value| value.unsigned_abs()).max().unwrap_or(0);
        let fits = most <= 1 << f64::MANTISSA_DIGITS && most.saturating_mul(values.len() as u64) <= i64::MAX as u64;
        Ok(fits.then(|| prefix(values.into_iter(), |a, b| a + b)))
    })
}

/// The exact sum of the counted floats of each range, 0 for none; `None` if these floats have no exact sums.
pub(super) fn float_sums(
    events: &Events<'_>,
    arg: &ArrayRef,
    ranges: &[Range<usize>],
) -> Result<Option<ScalarBuffer<f64>>> {
    if let Some(prefix) = integer_sums(events, arg)?.as_ref() {
        return Ok(Some(ranges.iter().map(|r| (prefix[r.end] - prefix[r.start]) as f64).collect::<Vec<_>>().into()));
    }
    let sums = shared(events, "float sums", Some(arg), &[], || {
        Ok(Sums::of_floats(&floats(arg)?, counted(events, Some(arg)).as_ref()))
    })?;
    let Some(sums) = sums.as_ref() else { return Ok(None) };
    let values = || Ok(ScalarBuffer::from(ranges.iter().map(|r| sums.value(r)).collect::<Vec<f64>>()));
    shared(events, "float sums of ranges", Some(arg), ranges, values).map(|values| Some(values.as_ref().clone()))
}

/// The exact sums of the counted floats of an argument, and of their squares; `None` if there are no exact ones.
pub(super) fn sums_and_squares(events: &Events<'_>, arg: &ArrayRef) -> Result<Option<[Arc<Option<Sums>>; 3]>> {
    let counted = || counted(events, Some(arg));
    let sums = shared(events, "float sums", Some(arg), &[], || Ok(Sums::of_floats(&floats(arg)?, counted().as_ref())))?;
    // A square is two doubles, each of which has exact sums of its own.
    let part = |what, part: fn(DoubleDouble) -> f64| {
        shared(events, what, Some(arg), &[], || {
            let squares: Float64Array = floats(arg)?.unary(|x| part(DoubleDouble::square(x)));
            Ok(Sums::of_floats(&squares, counted().as_ref()))
        })
    };
    let all = [sums, part("squares", DoubleDouble::high)?, part("low parts of squares", DoubleDouble::low)?];
    Ok(all.iter().all(|s| s.is_some()).then_some(all))
}

/// How many rows of a range count: a bit a row, and how many of them are set before each word of 64.
pub(super) struct Counts(Option<(Vec<u64>, Vec<u32>)>);

impl Counts {
    pub(super) fn new(counted: Option<&BooleanBuffer>) -> Self {
        let index = |counted: &BooleanBuffer| {
            let chunks = counted.bit_chunks();
            let words: Vec<u64> = chunks.iter_padded().collect();
            let before = prefix(words.iter().map(|w| w.count_ones()), |a, b| a + b);
            (words, before)
        };
        Self(counted.map(index))
    }

    pub(super) fn of(&self, range: &Range<usize>) -> u32 {
        let Some((words, before)) = &self.0 else { return range.len() as u32 };
        let rank = |row: usize| match row % 64 {
            0 => before[row / 64],
            bits => before[row / 64] + (words[row / 64] << (64 - bits)).count_ones(),
        };
        rank(range.end) - rank(range.start)
    }
}

/// Bits that an exact sum of floats may take, beside its sign.
const SUM_BITS: u32 = 124;

/// Exact sums of a range, as integers of a common unit, which is a power of two.
pub(super) struct Sums {
    prefix: Vec<i128>,
    /// The unit, in two factors, since it can be smaller than the smallest double.
    unit: [f64; 2],
}

impl Sums {
    pub(super) fn of_integers(values: impl Iterator<Item = i128>) -> Self {
        Self { prefix: prefix(values, |a, b| a + b), unit: [1.0, 1.0] }
    }

    /// Of the counted floats, as integers of the smallest unit among them; `None` if that would take more than 127
    /// bits, or one of them is not finite. Every double is an integer times a power of two, so nothing is rounded
    /// before the end (the idea of Kulisch's long accumulator, as long as the data needs).
    pub(super) fn of_floats(values: &Float64Array, counted: Option<&BooleanBuffer>) -> Option<Self> {
        let mut values = Cow::Borrowed(&values.values()[..]);
        if let Some(counted) = counted {
            put_where_not(counted, 0.0, values.to_mut());
        }
        let least = unit_of(&values)?;
        let fixed = |value: &f64| {
            let bits = value.to_bits();
            let (exponent, whole) = parts(bits & (u64::MAX >> 1));
            let (up, down) = ((exponent - least).max(0), (least - exponent).max(0));
            // Bits below the lowest one are not set; a shift of all 64 is one of a zero.
            let shifted = i128::from(whole.checked_shr(down as u32).unwrap_or(0)) << up;
            if bits >> 63 == 1 { -shifted } else { shifted }
        };
        let (exponent, half) = (least - 1075, (least - 1075) / 2);
        let unit = [2f64.powi(half), 2f64.powi(exponent - half)];
        Some(Self { prefix: prefix(values.iter().map(fixed), |a, b| a + b), unit })
    }

    /// The sum to the 106 bits of two doubles.
    pub(super) fn double_double(&self, range: &Range<usize>) -> DoubleDouble {
        /// A double holds each of three pieces of this many bits, and what [`SUM_BITS`] have above two of them.
        const PIECE: u32 = 42;
        let units = self.units(range);
        let piece = |at: u32| ((units >> at) as i64 & ((1 << PIECE) - 1)) as f64;
        let up = (1u64 << PIECE) as f64;
        let pieces = [(units >> (2 * PIECE)) as i64 as f64 * up * up, piece(PIECE) * up, piece(0)];
        DoubleDouble::descending(pieces).scaled(self.unit[0]).scaled(self.unit[1])
    }

    pub(super) fn units(&self, range: &Range<usize>) -> i128 {
        self.prefix[range.end] - self.prefix[range.start]
    }

    /// The sum, rounded once.
    pub(super) fn value(&self, range: &Range<usize>) -> f64 {
        rounded(self.units(range)) * self.unit[0] * self.unit[1]
    }
}

/// The nearest double. What two doubles hold is their sum, which is rounded once and costs less than the general way.
fn rounded(units: i128) -> f64 {
    const LOW: u32 = 42;
    let high = (units >> LOW) as i64;
    match i128::from(high) == units >> LOW && high.unsigned_abs() <= 1 << f64::MANTISSA_DIGITS {
        true => high as f64 * (1u64 << LOW) as f64 + (units as i64 & ((1 << LOW) - 1)) as f64,
        false => units as f64,
    }
}

/// The biased exponent of a power of two that all `values` are multiples of, and of which [`SUM_BITS`] hold their sum;
/// `None` if there is none.
fn unit_of(values: &[f64]) -> Option<i32> {
    let width = 64 - (values.len() as u64).leading_zeros() as i32;
    let fits = |least: i32, most: i32| most < 0x7FF && most + 53 - least + width <= SUM_BITS as i32;
    // The exponents say it for most; a zero has none.
    let exponent = |value: &f64| (value.to_bits() >> 52) as i32 & 0x7FF;
    let (mut least, mut most) = (0x7FF, 0);
    for value in values {
        least = least.min(if *value == 0.0 { 0x7FF } else { exponent(value).max(1) });
        most = most.max(exponent(value));
    }
    if least == 0x7FF && most == 0 {
        return Some(1);
    }
    if fits(least, most) {
        return Some(least);
    }
    // Those of few bits set are multiples of more than their exponents say.
    let lowest = |value: &f64| {
        let (exponent, whole) = parts(value.to_bits() & (u64::MAX >> 1));
        exponent + whole.trailing_zeros() as i32
    };
    let least = values.iter().filter(|v| **v != 0.0).map(lowest).min()?;
    fits(least, most.max(1)).then_some(least)
}

/// Sets each value whose bit is not set.
pub(crate) fn put_where_not<T: Copy>(counted: &BooleanBuffer, value: T, values: &mut [T]) {
    for (word, values) in counted.bit_chunks().iter_padded().zip(values.chunks_mut(64)) {
        let mut unset = !word;
        while unset != 0 {
            match values.get_mut(unset.trailing_zeros() as usize) {
                Some(place) => *place = value,
                None => break,
            }
            unset &= unset - 1;
        }
    }
}

/// The biased exponent of the lowest bit of a double's 53, and those bits; the sign is left out.
fn parts(bits: u64) -> (i32, u64) {
    let (exponent, fraction) = ((bits >> 52) as i32, bits & ((1 << 52) - 1));
    if exponent == 0 { (1, fraction) } else { (exponent, fraction | 1 << 52) }
}

fn prefix<T: Copy + Default>(values: impl Iterator<Item = T>, add: impl Fn(T, T) -> T) -> Vec<T> {
    let mut out = Vec::with_capacity(values.size_hint().0 + 1);
    let mut sum = T::default();
    out.push(sum);
    out.extend(values.map(|v| {
        sum = add(sum, v);
        sum
    }));
    out
}

/// The least and the greatest value of each range, if the view asks for both of this argument: they are found together.
/// `keys` gives the rows as integers of their order; those that do not count may be anything.
pub(super) fn extremes(
    events: &Events<'_>,
    arg: &ArrayRef,
    ranges: &[Range<usize>],
    keys: impl FnOnce() -> Result<Vec<i64>>,
) -> Result<Option<Arc<Vec<[i64; 2]>>>> {
    let place = (address(Some(arg)), filter_address(events.filter));
    if !events.memo.is_some_and(|m| m.extremes.contains(&place)) {
        return Ok(None);
    }
    let blocks = shared(events, "extremes", Some(arg), &[], || {
        // The second of a pair is turned, so that both are minima.
        let mut rows: Vec<[i64; 2]> = keys()?.into_iter().map(|key| [key, !key]).collect();
        if let Some(counted) = counted(events, Some(arg)) {
            put_where_not(&counted, [i64::MAX; 2], &mut rows);
        }
        Ok(Blocks::new(rows, lower_pair))
    })?;
    let of = |r: &Range<usize>| blocks.of(r, [i64::MAX; 2], lower_pair);
    shared(events, "extremes of ranges", Some(arg), ranges, || Ok(ranges.iter().map(of).collect())).map(Some)
}

fn lower_pair(least: &mut [i64; 2], value: &[i64; 2]) {
    lower(&mut least[0], &value[0]);
    lower(&mut least[1], &value[1]);
}

/// The smallest value of a range.
pub(super) struct Minima(Blocks<i64>);

impl Minima {
    /// A row that does not count is `i64::MAX`.
    pub(super) fn new(rows: Vec<i64>) -> Self {
        Self(Blocks::new(rows, lower))
    }

    pub(super) fn of(&self, range: &Range<usize>) -> i64 {
        self.0.of(range, i64::MAX, lower)
    }
}

fn lower(least: &mut i64, value: &i64) {
    *least = (*least).min(*value);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn range(len: usize, a: usize, b: usize) -> Range<usize> {
        let (a, b) = (a % (len + 1), b % (len + 1));
        a.min(b)..a.max(b)
    }

    proptest! {
        #[test]
        fn the_minimum_of_a_range_is_what_a_scan_finds(rows in prop::collection::vec(any::<i64>(), 0..700), a: usize, b: usize) {
            let range = range(rows.len(), a, b);
            prop_assert_eq!(Minima::new(rows.clone()).of(&range), rows[range].iter().copied().min().unwrap_or(i64::MAX));
        }

        #[test]
        fn units_are_rounded_as_any_integer_is(units: i128, shift in 0u32..128, odd: bool) {
            // Half of them lie half-way between two doubles, or next to that.
            let units = units >> shift;
            let near = (units << 53 | 1 << 52) + i128::from(odd);
            for units in [units, near >> (shift % 54)] {
                prop_assert_eq!(rounded(units), units as f64);
            }
        }

        #[test]
        fn sums_of_floats_are_rounded_once(
            mantissas in prop::collection::vec(-(1i64 << 53)..1 << 53, 1..60), shifts in prop::collection::vec(0u32..40, 60), scale in -1100i32..900, a: usize, b: usize,
        ) {
            let scale = scale.max(-1060);
            let unit = 2f64.powi(scale / 2) * 2f64.powi(scale - scale / 2);
            let whole: Vec<i128> = mantissas.iter().zip(&shifts).map(|(m, s)| i128::from(*m) << s).collect();
            let values: Float64Array = whole.iter().map(|w| Some(*w as f64 * unit)).collect();
            let range = range(values.len(), a, b);
            let sums = Sums::of_floats(&values, None).expect("they fit");
            let exact = whole[range.clone()].iter().sum::<i128>() as f64 * unit;
            prop_assert_eq!(sums.value(&range), exact);
        }
    }

    #[test]
    fn floats_that_do_not_fit_are_left_to_the_slow_way() {
        for values in [[1e300, 1e-300], [f64::NAN, 1.0], [f64::INFINITY, 1.0]] {
            assert!(Sums::of_floats(&Float64Array::from(values.to_vec()), None).is_none());
        }
        let tiny = Float64Array::from(vec![f64::from_bits(1), f64::from_bits(3), 0.0, -0.0]);
        let sums = Sums::of_floats(&tiny, None).expect("subnormal numbers fit");
        assert_eq!(sums.value(&(0..4)).to_bits(), 4);
        assert_eq!(Sums::of_floats(&Float64Array::from(vec![0.0; 3]), None).expect("zeros").value(&(0..3)), 0.0);
    }
}
