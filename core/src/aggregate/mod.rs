//! The algebra of aggregations: `lift → merge → finish` over partials that form a commutative monoid.
//!
//! ```text
//!  events (columns) ──lift──▶ one partial a row ──merge, any order──▶ partial of a window or a tile ──finish──▶ value
//!                                                      │ encode ▲ decode
//!                                                      ▼        │
//!                                               bytes in a store
//! ```
//! Every evaluator — as-of join, tile backfill, stream, online read — is made of these steps only, and because a merge
//! does not depend on order, all of them give the same value.

mod blocks;
mod bucketed;
mod decayed;
mod distinct;
mod double_double;
mod frequency;
mod functions;
mod kernels;
mod moments;
mod order;
mod quantile;
mod ranked;
mod retractable;
mod sum;
mod vector;

use std::fmt::Debug;
use std::ops::Range;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BooleanArray};
use arrow::datatypes::DataType;

pub use functions::{AggregateFunction, Arg, Binding, Functions};
pub(crate) use kernels::{Memo, put_where_not};

use crate::Result;
use crate::definition::Micros;
use blocks::Blocks;

/// Events of one or several entities, in columns of equal length.
#[derive(Debug, Clone, Copy)]
pub struct Events<'a> {
    /// The arguments of the aggregation, one row an event; empty for `count(*)`. Constants after the first argument are
    /// told when the function is bound, and are not here.
    pub args: &'a [ArrayRef],
    /// Event times, microseconds UTC.
    pub time: &'a [i64],
    /// What orders events of equal time, if the view has such a column.
    pub sequence: Option<&'a ArrayRef>,
    /// Rows where this is not true do not take part.
    pub filter: Option<&'a BooleanArray>,
    /// What several aggregations over these columns share, where they are called one after the other.
    pub(crate) memo: Option<&'a Memo>,
}

/// Gives the partial that undoes a partial.
pub type Inverse<P> = fn(&P) -> P;

/// An aggregation function over typed partials. Implement this to bring one of your own.
///
/// The partials must form a commutative monoid under [`merge`](Self::merge): any grouping and any order of merges
/// gives the same value (floats: to 1e-9 relative).
///
/// ```
/// use featurectl_core::aggregate::{Aggregation, Events};
/// use featurectl_core::{Error, Result};
/// use arrow::array::{Array, ArrayRef, AsArray, BooleanArray};
/// use arrow::datatypes::DataType;
/// use std::sync::Arc;
///
/// /// Whether any event was true.
/// #[derive(Debug)]
/// struct Any;
///
/// impl Aggregation for Any {
///     type Partial = bool;
///     fn return_type(&self) -> DataType { DataType::Boolean }
///     fn lift(&self, events: &Events<'_>) -> Result<Vec<Option<bool>>> { Ok(events.args[0].as_boolean().iter().collect()) }
///     fn merge(&self, into: &mut bool, other: &bool) { *into |= other }
///     fn finish(&self, partials: &[Option<bool>]) -> Result<ArrayRef> {
///         Ok(Arc::new(partials.iter().copied().collect::<BooleanArray>()))
///     }
///     fn encode(&self, partial: &bool, out: &mut Vec<u8>) { out.push(u8::from(*partial)) }
///     fn decode(&self, bytes: &[u8]) -> Result<bool> {
///         bytes.first().map(|b| *b != 0).ok_or_else(|| Error::data("a partial of `any` is empty"))
///     }
/// }
/// ```
pub trait Aggregation: Debug + Send + Sync + 'static {
    /// What is merged.
    type Partial: Clone + Send + Sync;

    /// Type of the finished value.
    fn return_type(&self) -> DataType;

    /// One partial a row, `events.time.len()` in all; `None` where the row does not count, as for a NULL argument.
    /// The filter is applied by the caller.
    fn lift(&self, events: &Events<'_>) -> Result<Vec<Option<Self::Partial>>>;

    /// The value of each range of rows, for each list of ranges, by a faster way than merging partials. `None`: there is
    /// none for these events. The values must be those of [`merge`](Self::merge) and [`finish`](Self::finish).
    fn windows(&self, _: &Events<'_>, _: &[&[Range<usize>]]) -> Result<Option<Vec<ArrayRef>>> {
        Ok(None)
    }

    /// Folds `other` into `into`.
    fn merge(&self, into: &mut Self::Partial, other: &Self::Partial);

    /// One value a partial; `None` is the empty window.
    fn finish(&self, partials: &[Option<Self::Partial>]) -> Result<ArrayRef>;

    /// [`finish`](Self::finish) for a value that changes with time: `at` is the instant of each partial's window, in
    /// microseconds UTC, exclusive.
    fn finish_at(&self, partials: &[Option<Self::Partial>], _at: &[Micros]) -> Result<ArrayRef> {
        self.finish(partials)
    }

    /// What gives the partial that undoes a partial when both are merged. `None`: there is none, as for a maximum,
    /// and events can't be taken back.
    fn inverse(&self) -> Option<Inverse<Self::Partial>> {
        None
    }

    /// Appends the partial's bytes, at least one; their layout must stay readable in later versions.
    fn encode(&self, partial: &Self::Partial, out: &mut Vec<u8>);

    /// Reads what [`encode`](Self::encode) wrote.
    fn decode(&self, bytes: &[u8]) -> Result<Self::Partial>;
}

/// An [`Aggregation`] without its type: what the engine works with. Made by [`aggregator`].
pub trait Aggregator: Debug + Send + Sync {
    /// Type of the finished value.
    fn return_type(&self) -> DataType;

    /// Whether events can be taken back.
    fn invertible(&self) -> bool;

    /// The value of each range of rows, for each list of ranges. Within a list, starts and ends never decrease; `at` is
    /// the instant of each range, microseconds UTC, exclusive.
    fn windows(&self, events: &Events<'_>, ranges: &[&[Range<usize>]], at: &[Micros]) -> Result<Vec<ArrayRef>>;

    /// The encoded partial of each range of rows; empty bytes where no row counts.
    fn fold(&self, events: &Events<'_>, ranges: &[Range<usize>]) -> Result<Vec<Vec<u8>>>;

    /// The encoded merge of encoded partials; empty bytes if all of them are.
    ///
    /// Errors: [`Data`](crate::ErrorKind::Data) if one is damaged.
    fn merge(&self, partials: &[&[u8]]) -> Result<Vec<u8>>;

    /// The encoded partial that undoes an encoded partial.
    ///
    /// Errors: [`Invalid`](crate::ErrorKind::Invalid) if the aggregation is not [`invertible`](Self::invertible).
    fn invert(&self, partial: &[u8]) -> Result<Vec<u8>>;

    /// The value of each group of encoded partials at the instant of the group, microseconds UTC, exclusive.
    fn merge_finish(&self, groups: &[Vec<&[u8]>], at: &[Micros]) -> Result<ArrayRef>;
}

/// The object-safe face of an aggregation.
pub fn aggregator<A: Aggregation>(aggregation: A) -> Arc<dyn Aggregator> {
    Arc::new(Typed(aggregation))
}

#[derive(Debug)]
struct Typed<A>(A);

impl<A: Aggregation> Typed<A> {
    fn lift(&self, events: &Events<'_>) -> Result<Vec<Option<A::Partial>>> {
        let mut lifted = self.0.lift(events)?;
        if let Some(filter) = events.filter {
            for (row, partial) in lifted.iter_mut().enumerate() {
                if filter.is_null(row) || !filter.value(row) {
                    *partial = None;
                }
            }
        }
        Ok(lifted)
    }

    fn merge_into(&self, into: &mut Option<A::Partial>, other: Option<&A::Partial>) {
        match (into.as_mut(), other) {
            (Some(into), Some(other)) => self.0.merge(into, other),
            (None, Some(other)) => *into = Some(other.clone()),
            (_, None) => {}
        }
    }

    fn decode_all(&self, partials: &[&[u8]]) -> Result<Option<A::Partial>> {
        let mut merged = None;
        for bytes in partials.iter().filter(|b| !b.is_empty()) {
            let partial = self.0.decode(bytes)?;
            match &mut merged {
                Some(merged) => self.0.merge(merged, &partial),
                None => merged = Some(partial),
            }
        }
        Ok(merged)
    }

    /// The merge of the rows of each range; equal ranges in a row are merged once.
    fn ranges(&self, blocks: &Blocks<Option<A::Partial>>, ranges: &[Range<usize>]) -> Vec<Option<A::Partial>> {
        let mut out: Vec<Option<A::Partial>> = Vec::with_capacity(ranges.len());
        for (i, range) in ranges.iter().enumerate() {
            match i.checked_sub(1).filter(|last| ranges[*last] == *range) {
                Some(last) => out.push(out[last].clone()),
                None => out.push(blocks.of(range, None, |into, other| self.merge_into(into, other.as_ref()))),
            }
        }
        out
    }
}

impl<A: Aggregation> Aggregator for Typed<A> {
    fn return_type(&self) -> DataType {
        self.0.return_type()
    }

    fn invertible(&self) -> bool {
        self.0.inverse().is_some()
    }

    fn windows(&self, events: &Events<'_>, ranges: &[&[Range<usize>]], at: &[Micros]) -> Result<Vec<ArrayRef>> {
        if let Some(values) = self.0.windows(events, ranges)? {
            return Ok(values);
        }
        let blocks = Blocks::new(self.lift(events)?, |into, other| self.merge_into(into, other.as_ref()));
        ranges.iter().map(|ranges| self.0.finish_at(&self.ranges(&blocks, ranges), at)).collect()
    }

    fn fold(&self, events: &Events<'_>, ranges: &[Range<usize>]) -> Result<Vec<Vec<u8>>> {
        let lifted = self.lift(events)?;
        let fold_one = |range: &Range<usize>| {
            let mut partial = None;
            lifted[range.clone()].iter().for_each(|p| self.merge_into(&mut partial, p.as_ref()));
            let mut bytes = Vec::new();
            partial.inspect(|p| self.0.encode(p, &mut bytes));
            bytes
        };
        Ok(ranges.iter().map(fold_one).collect())
    }

    fn merge(&self, partials: &[&[u8]]) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        self.decode_all(partials)?.inspect(|p| self.0.encode(p, &mut bytes));
        Ok(bytes)
    }

    fn invert(&self, partial: &[u8]) -> Result<Vec<u8>> {
        let invert =
            self.0.inverse().ok_or_else(|| crate::Error::invalid("this aggregation can't take events back"))?;
        let mut bytes = Vec::new();
        self.0.encode(&invert(&self.0.decode(partial)?), &mut bytes);
        Ok(bytes)
    }

    fn merge_finish(&self, groups: &[Vec<&[u8]>], at: &[Micros]) -> Result<ArrayRef> {
        let partials: Vec<_> = groups.iter().map(|g| self.decode_all(g)).collect::<Result<_>>()?;
        self.0.finish_at(&partials, at)
    }
}

/// The last argument of `events`, which belongs to a function around `inner`, and the encoded partial of `inner` over
/// each row; empty bytes where it does not count.
fn by_row<'a>(inner: &Arc<dyn Aggregator>, events: &Events<'a>) -> Result<(&'a ArrayRef, Vec<Vec<u8>>)> {
    let Some((last, args)) = events.args.split_last() else {
        return Err(crate::Error::internal("a function around another needs an argument of its own"));
    };
    let rows: Vec<_> = (0..events.time.len()).map(|row| row..row + 1).collect();
    let partials = inner.fold(&Events { args, filter: None, memo: None, ..*events }, &rows)?;
    Ok((last, partials))
}

/// The merge of two encoded partials that are known to be whole.
fn merged(aggregator: &Arc<dyn Aggregator>, left: &[u8], right: &[u8]) -> Vec<u8> {
    match aggregator.merge(&[left, right]) {
        Ok(merged) => merged,
        Err(e) => unreachable!("partials are checked when they are read: {e}"),
    }
}

#[cfg(test)]
mod tests;
