//! What the left side's files say about time, used to leave out right rows that no left row can see.
//!
//! ```text
//!  left files, by their statistics:   at ∈ [first, last]
//!  right:   first − longest window  ≤  time  <  last        a filter, which prunes files, row groups and pages
//! ```
//! The statistics are those of whole files, so they hold whatever is filtered on the way.

use std::ops::Range;
use std::sync::Arc;

use arrow::datatypes::{DataType, TimeUnit};
use datafusion::common::ScalarValue;
use datafusion::common::stats::Precision;
use datafusion::datasource::physical_plan::FileScanConfig;
use datafusion::datasource::source::DataSourceExec;
use datafusion::error::Result;
use datafusion::logical_expr::Operator;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::{BinaryExpr, Column, Literal};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::coalesce_partitions::CoalescePartitionsExec;
use datafusion::physical_plan::filter::FilterExec;
use datafusion::physical_plan::projection::ProjectionExec;
use datafusion::physical_plan::repartition::RepartitionExec;

use super::exec::AsOfExec;
use super::node::MatchOp;
use super::time::to_micros;
use crate::definition::{FeatureView, Micros};

/// The right side without the rows that the times of the left side, as far as they are known, put out of reach.
pub(super) fn within_reach(
    left: &Arc<dyn ExecutionPlan>,
    at: &Arc<dyn PhysicalExpr>,
    right: &Arc<dyn ExecutionPlan>,
    time: &Arc<dyn PhysicalExpr>,
    op: MatchOp,
    view: Option<&FeatureView>,
) -> Result<Arc<dyn ExecutionPlan>> {
    let Some((first, last)) = at.downcast_ref::<Column>().and_then(|c| range(left.as_ref(), c.index())) else {
        return Ok(Arc::clone(right));
    };
    let time_type = time.data_type(&right.schema())?;
    let there = time.downcast_ref::<Column>().and_then(|c| range(right.as_ref(), c.index()));
    if let (Some(view), Some((from, to))) = (view, &there) {
        let wanted = reach(view, near(&first, op)?).unwrap_or(Micros::MIN)..near(&last, op)?;
        if !pays(micros_of(from)?..micros_of(to)?, wanted) {
            return Ok(Arc::clone(right));
        }
    }
    let compare = |(op, value): (Operator, ScalarValue)| {
        Arc::new(BinaryExpr::new(Arc::clone(time), op, Arc::new(Literal::new(value)))) as Arc<dyn PhysicalExpr>
    };
    let filters = time_bounds(&first, &last, &time_type, op, view)?.into_iter().map(compare);
    let both = |a, b| Arc::new(BinaryExpr::new(a, Operator::And, b)) as Arc<dyn PhysicalExpr>;
    Ok(match filters.reduce(both) {
        Some(filter) => Arc::new(FilterExec::try_new(filter, Arc::clone(right))?),
        None => Arc::clone(right),
    })
}

/// What the times of right rows must be to be seen by a left row with a time in [`first`, `last`].
pub(super) fn time_bounds(
    first: &ScalarValue,
    last: &ScalarValue,
    time_type: &DataType,
    op: MatchOp,
    view: Option<&FeatureView>,
) -> Result<Vec<(Operator, ScalarValue)>> {
    Ok(match view {
        None if first.data_type() != *time_type => vec![],
        None => match op {
            MatchOp::Gt => vec![(Operator::Lt, last.clone())],
            MatchOp::GtEq => vec![(Operator::LtEq, last.clone())],
            MatchOp::Lt => vec![(Operator::Gt, first.clone())],
            MatchOp::LtEq => vec![(Operator::GtEq, first.clone())],
        },
        Some(_) if *time_type != DataType::Timestamp(TimeUnit::Microsecond, None) => vec![],
        Some(view) => {
            let micros = |t| ScalarValue::TimestampMicrosecond(Some(t), None);
            let low = reach(view, near(first, op)?).map(|t| (Operator::GtEq, micros(t)));
            low.into_iter().chain([(Operator::Lt, micros(near(last, op)?))]).collect()
        }
    })
}

/// A filter costs something for every row, and gains for those it leaves out: worth it from a tenth of them on, taking
/// the rows as spread evenly over time.
fn pays(there: Range<Micros>, wanted: Range<Micros>) -> bool {
    let kept = there.end.min(wanted.end).saturating_sub(there.start.max(wanted.start)).max(0);
    let all = there.end.saturating_sub(there.start);
    (kept as f64) < 0.9 * all as f64 || kept == 0
}

fn micros_of(time: &ScalarValue) -> Result<Micros> {
    Ok(to_micros(&time.to_array()?)?.value(0))
}

fn near(at: &ScalarValue, op: MatchOp) -> Result<Micros> {
    Ok(micros_of(at)?.saturating_add(Micros::from(op == MatchOp::GtEq)))
}

/// The first instant that `view` can see from `first` on; `None`: it sees everything before.
fn reach(view: &FeatureView, first: Micros) -> Option<Micros> {
    if view.is_latest() {
        return view.ttl.map(|ttl| first.saturating_sub(ttl));
    }
    view.windows().iter().map(|w| w.start(first)).min().filter(|t| *t > Micros::MIN)
}

/// The least and the greatest value of a column, if all files that it comes from say so.
fn range(plan: &dyn ExecutionPlan, column: usize) -> Option<(ScalarValue, ScalarValue)> {
    if let Some(project) = plan.downcast_ref::<ProjectionExec>() {
        let inner = project.expr().get(column)?.expr.downcast_ref::<Column>()?.index();
        return range(project.input().as_ref(), inner);
    }
    if let Some(filter) = plan.downcast_ref::<FilterExec>() {
        let inner = filter.projection().as_ref().map_or(Some(&column), |p| p.get(column))?;
        return range(filter.input().as_ref(), *inner);
    }
    if let Some(join) = plan.downcast_ref::<AsOfExec>() {
        let left = join.left();
        return (column < left.schema().fields().len()).then(|| range(left.as_ref(), column))?;
    }
    if plan.is::<RepartitionExec>() || plan.is::<CoalescePartitionsExec>() {
        return range(plan.children().first()?.as_ref(), column);
    }
    let scan = plan.downcast_ref::<DataSourceExec>()?.data_source().downcast_ref::<FileScanConfig>()?;
    let schema = plan.schema();
    let (index, field) = scan.file_schema().column_with_name(schema.field(column).name())?;
    if field.data_type() != schema.field(column).data_type() {
        return None;
    }
    let mut found: Option<(ScalarValue, ScalarValue)> = None;
    for file in scan.file_groups.iter().flat_map(|g| g.iter()) {
        let statistics = file.statistics.as_ref()?.column_statistics.get(index)?;
        let (Precision::Exact(low), Precision::Exact(high)) = (&statistics.min_value, &statistics.max_value) else {
            return None;
        };
        if low.is_null() || high.is_null() {
            return None;
        }
        found = Some(match found {
            Some((a, b)) => (if *low < a { low.clone() } else { a }, if *high > b { high.clone() } else { b }),
            None => (low.clone(), high.clone()),
        });
    }
    found
}
