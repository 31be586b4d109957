//! What the left side's rows say about the right side while the query runs: bounds of keys and times, as a dynamic filter
//! of the right side's files.
//!
//! ```text
//!  left, all partitions ──gathered──▶ k ∈ [3, 9], at ∈ [t0, t1] ──▶ DynamicFilter: k ≥ 3 ∧ k ≤ 9 ∧ t ≥ … ∧ t < …
//!                                                                          │ prunes files and row groups
//!  right                              waits for it, then is read ◀─────────┘
//! ```
//! The partitions of a join share the scan of the right side, so the filter holds only once all of them have gathered
//! their left rows. A partition waits for the others if all of them are under way in this process, as a hash join of
//! DataFusion does; else, as in a task of a cluster that has one partition, nothing waits and nothing is pruned.

use std::sync::{Arc, Mutex, PoisonError};

use arrow::array::{ArrayRef, RecordBatch};
use arrow::datatypes::DataType;
use datafusion::common::ScalarValue;
use datafusion::error::Result;
use datafusion::functions_aggregate::min_max::{MaxAccumulator, MinAccumulator};
use datafusion::logical_expr::{Accumulator, Operator};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::{BinaryExpr, Column, DynamicFilterPhysicalExpr, lit};
use datafusion::physical_expr::utils::conjunction;

use super::bounds::time_bounds;
use super::node::MatchOp;
use crate::definition::FeatureView;

/// The least and the greatest value of an expression over the left side, if it has any.
type Range = Option<(ScalarValue, ScalarValue)>;

/// A filter of the right side that is not known before the left side is.
#[derive(Debug)]
pub(super) struct Reach {
    /// Left expressions whose range is gathered: keys, then the time, if they can be bounded.
    left: Vec<Arc<dyn PhysicalExpr>>,
    /// What they bound on the right.
    right: Vec<Arc<dyn PhysicalExpr>>,
    /// How many of them are keys.
    keys: usize,
    op: MatchOp,
    view: Option<Arc<FeatureView>>,
    time_type: DataType,
    pub(super) filter: Arc<DynamicFilterPhysicalExpr>,
    progress: Mutex<Progress>,
}

#[derive(Debug, Default)]
struct Progress {
    started: usize,
    done: usize,
    ranges: Vec<Range>,
}

impl Reach {
    /// A filter by these keys and times, where they are columns of the right side.
    pub(super) fn new(
        keys: impl Iterator<Item = (Arc<dyn PhysicalExpr>, Arc<dyn PhysicalExpr>)>,
        times: (Arc<dyn PhysicalExpr>, Arc<dyn PhysicalExpr>),
        types: (DataType, DataType),
        op: MatchOp,
        view: Option<Arc<FeatureView>>,
        key_types: &[DataType],
    ) -> Option<Self> {
        let bounded = keys.zip(key_types).filter(|((_, r), t)| has_order(t) && r.is::<Column>());
        let (mut left, mut right): (Vec<_>, Vec<_>) = bounded.map(|(pair, _)| pair).unzip();
        let keys = left.len();
        if times.1.is::<Column>() && has_order(&types.0) {
            left.push(times.0);
            right.push(times.1);
        }
        let filter = Arc::new(DynamicFilterPhysicalExpr::new(right.clone(), lit(true)));
        let reach = Self { left, right, keys, op, view, time_type: types.1, filter, progress: Mutex::default() };
        (!reach.left.is_empty()).then_some(reach)
    }

    /// The same, for a filter that an equal one has offered.
    pub(super) fn with_filter(self, filter: Arc<DynamicFilterPhysicalExpr>) -> Self {
        Self { filter, ..self }
    }

    /// A partition of `partitions` begins.
    pub(super) fn start(self: &Arc<Self>, partitions: usize) -> Watch {
        self.progress().started += 1;
        Watch { reach: Arc::clone(self), partitions, ranges: vec![None; self.left.len()], reported: false }
    }

    fn progress(&self) -> std::sync::MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The filter that the ranges come to.
    fn predicate(&self, ranges: &[Range]) -> Result<Arc<dyn PhysicalExpr>> {
        let mut filters: Vec<Arc<dyn PhysicalExpr>> = Vec::new();
        for (number, (range, right)) in ranges.iter().zip(&self.right).enumerate() {
            // Without a left row that has a key and a time, no right row is seen.
            let Some((low, high)) = range else { return Ok(lit(false)) };
            let compare =
                |op, value: ScalarValue| Arc::new(BinaryExpr::new(Arc::clone(right), op, lit(value))) as Arc<_>;
            if number == self.keys {
                let bounds = time_bounds(low, high, &self.time_type, self.op, self.view.as_deref())?;
                filters.extend(bounds.into_iter().map(|(op, value)| compare(op, value)));
            } else {
                filters.extend([compare(Operator::GtEq, low.clone()), compare(Operator::LtEq, high.clone())]);
            }
        }
        Ok(conjunction(filters))
    }
}

/// Types whose least and greatest values bound all others: floats have NaN.
fn has_order(data_type: &DataType) -> bool {
    data_type.is_integer() || data_type.is_temporal() || data_type.is_string()
}

/// One partition's part of a [`Reach`].
pub(crate) struct Watch {
    reach: Arc<Reach>,
    partitions: usize,
    ranges: Vec<Range>,
    reported: bool,
}

impl Watch {
    /// Takes note of left rows.
    pub(crate) fn observe(&mut self, batch: &RecordBatch) -> Result<()> {
        for (range, expr) in self.ranges.iter_mut().zip(&self.reach.left) {
            let values: ArrayRef = expr.evaluate(batch)?.into_array(batch.num_rows())?;
            *range = wider(range.take(), range_of(values)?);
        }
        Ok(())
    }

    /// All left rows have been seen: the last partition to say so sets the filter, the others wait for it.
    pub(crate) async fn done(mut self) -> Result<()> {
        self.reported = true;
        let (last, all_started) = {
            let mut progress = self.reach.progress();
            let before = std::mem::take(&mut progress.ranges);
            let before = before.into_iter().chain(std::iter::repeat(None));
            progress.ranges = self.ranges.iter().cloned().zip(before).map(|(a, b)| wider(a, b)).collect();
            progress.done += 1;
            (progress.done == self.partitions, progress.started == self.partitions)
        };
        if last {
            let predicate = self.reach.predicate(&self.reach.progress().ranges);
            let updated = predicate.and_then(|p| self.reach.filter.update(p));
            // The others wait, also for one that failed.
            self.reach.filter.mark_complete();
            updated?;
        } else if all_started {
            self.reach.filter.wait_complete().await;
        }
        Ok(())
    }
}

impl Drop for Watch {
    /// A partition that is given up lets the others go on without the filter.
    fn drop(&mut self) {
        if !self.reported {
            self.reach.filter.mark_complete();
        }
    }
}

/// The range of the values that are not NULL.
fn range_of(values: ArrayRef) -> Result<Range> {
    let (mut low, mut high) =
        (MinAccumulator::try_new(values.data_type())?, MaxAccumulator::try_new(values.data_type())?);
    low.update_batch(&[Arc::clone(&values)])?;
    high.update_batch(&[values])?;
    Ok(Some((low.evaluate()?, high.evaluate()?)).filter(|(low, _)| !low.is_null()))
}

fn wider(one: Range, other: Range) -> Range {
    match (one, other) {
        (Some((a, b)), Some((c, d))) => Some((if c < a { c } else { a }, if d > b { d } else { b })),
        (one, other) => one.or(other),
    }
}
