//! Physical operators, and the planner that makes them from [`AsOfNode`].

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Int64Array, RecordBatch, UInt64Array};
use arrow::compute::take;
use arrow::datatypes::{Schema, SchemaRef};
use arrow::row::{RowConverter, Rows, SortField};
use async_trait::async_trait;
use datafusion::catalog::Session;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::common::{internal_err, plan_err};
use datafusion::error::Result;
use datafusion::execution::memory_pool::MemoryConsumer;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::physical_planning_context::PhysicalPlanningContext;
use datafusion::logical_expr::{Expr, LogicalPlan, UserDefinedLogicalNode};
use datafusion::physical_expr::{Distribution, EquivalenceProperties, OrderingRequirements, PhysicalExpr};
use datafusion::physical_plan::execution_plan::{
    Boundedness, EmissionType, ReplaceChildrenOptions, apply_expression_roots,
};
use datafusion::physical_plan::metrics::{BaselineMetrics, ExecutionPlanMetricsSet, MetricsSet, RecordOutput};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{
    DisplayAs, DisplayFormatType, ExecutionPlan, ExecutionPlanProperties, InputDistributionRequirements, PlanProperties,
};
use datafusion::physical_planner::{ExtensionPlanner, PhysicalPlanner};
use futures::{StreamExt, TryStreamExt, stream};

use super::node::{AsOfNode, MatchOp};
use super::sweep::Groups;
use super::time::to_micros;
use crate::definition::{Feature, FeatureSource, FeatureView};
use crate::partition::{collect, sorted_by};

/// Plans [`AsOfNode`]s.
#[derive(Debug, Default)]
pub struct AsOfPlanner;

#[async_trait]
impl ExtensionPlanner for AsOfPlanner {
    async fn plan_extension(
        &self,
        planner: &dyn PhysicalPlanner,
        node: &dyn UserDefinedLogicalNode,
        logical: &[&LogicalPlan],
        physical: &[Arc<dyn ExecutionPlan>],
        session: &dyn Session,
        context: &PhysicalPlanningContext,
    ) -> Result<Option<Arc<dyn ExecutionPlan>>> {
        let Some(node) = node.as_any().downcast_ref::<AsOfNode>() else { return Ok(None) };
        let ([left_plan, right_plan], [left, right]) = (logical, physical) else {
            return internal_err!("an as-of join has two inputs");
        };
        let expr = |e: &Expr, plan: &LogicalPlan| planner.create_physical_expr(e, plan.schema(), session, context);
        let exec = AsOfExec {
            left_keys: node.on.iter().map(|(l, _)| expr(l, left_plan)).collect::<Result<_>>()?,
            right_keys: node.on.iter().map(|(_, r)| expr(r, right_plan)).collect::<Result<_>>()?,
            left_time: expr(&node.times.0, left_plan)?,
            right_time: expr(&node.times.1, right_plan)?,
            op: node.op,
            view: node.view.as_ref().map(|v| Arc::clone(&v.view)),
            schema: Arc::new(node.schema().as_arrow().clone()),
            properties: Arc::new(properties(left, node.schema().as_arrow())),
            left: Arc::clone(left),
            right: Arc::clone(right),
            metrics: ExecutionPlanMetricsSet::new(),
        };
        Ok(Some(Arc::new(exec)))
    }
}

/// The left columns come first, so the left side's partitioning holds for the output too.
fn properties(left: &Arc<dyn ExecutionPlan>, schema: &Schema) -> PlanProperties {
    PlanProperties::new(
        EquivalenceProperties::new(Arc::new(schema.clone())),
        left.output_partitioning().clone(),
        EmissionType::Final,
        Boundedness::Bounded,
    )
}

/// `AsOfJoinExec`, or with a windowed view `AsOfAggregateExec`: both sides hashed by key and sorted by (key, time), a
/// partition at a time in memory, accounted to the pool.
#[derive(Debug, Clone)]
struct AsOfExec {
    left: Arc<dyn ExecutionPlan>,
    right: Arc<dyn ExecutionPlan>,
    left_keys: Vec<Arc<dyn PhysicalExpr>>,
    right_keys: Vec<Arc<dyn PhysicalExpr>>,
    left_time: Arc<dyn PhysicalExpr>,
    right_time: Arc<dyn PhysicalExpr>,
    op: MatchOp,
    view: Option<Arc<FeatureView>>,
    schema: SchemaRef,
    properties: Arc<PlanProperties>,
    metrics: ExecutionPlanMetricsSet,
}

impl AsOfExec {
    fn windowed(&self) -> Option<&FeatureView> {
        self.view.as_deref().filter(|v| !v.is_latest())
    }

    fn sequence(&self) -> Option<Arc<dyn PhysicalExpr>> {
        let column = self.view.as_ref()?.sequence_column()?;
        let name = self.right.schema().field(column).name().clone();
        Some(Arc::new(datafusion::physical_expr::expressions::Column::new(&name, column)))
    }
}

impl DisplayAs for AsOfExec {
    fn fmt_as(&self, t: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let on: Vec<_> = self.left_keys.iter().zip(&self.right_keys).map(|(l, r)| format!("{l} = {r}")).collect();
        let on = on.join(", ");
        let (at, op, time) = (&self.left_time, self.op, &self.right_time);
        let view = self.view.as_ref().map_or(String::new(), |v| format!("view={}, ", v.name));
        match t {
            DisplayFormatType::TreeRender => write!(f, "{view}match={at} {op} {time}"),
            _ => write!(f, "{}: {view}match=[{at} {op} {time}], on=[{on}]", self.name()),
        }
    }
}

impl ExecutionPlan for AsOfExec {
    fn name(&self) -> &str {
        if self.windowed().is_some() { "AsOfAggregateExec" } else { "AsOfJoinExec" }
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.left, &self.right]
    }

    fn input_distribution_requirements(&self) -> InputDistributionRequirements {
        if self.left_keys.is_empty() {
            return InputDistributionRequirements::new(vec![Distribution::SinglePartition; 2]);
        }
        InputDistributionRequirements::co_partitioned(vec![
            Distribution::KeyPartitioned(self.left_keys.clone()),
            Distribution::KeyPartitioned(self.right_keys.clone()),
        ])
    }

    fn required_input_ordering(&self) -> Vec<Option<OrderingRequirements>> {
        vec![sorted_by(self.left_keys.iter().chain([&self.left_time]).cloned()), sorted_by(self.right_order())]
    }

    fn apply_expressions(
        &self,
        f: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        let times = [&self.left_time, &self.right_time];
        apply_expression_roots(self.left_keys.iter().chain(&self.right_keys).chain(times), f)
    }

    fn replace_children(
        self: Arc<Self>,
        children: Vec<Arc<dyn ExecutionPlan>>,
        _: ReplaceChildrenOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let [left, right] = children.as_slice() else { return internal_err!("an as-of join has two inputs") };
        let properties = Arc::new(properties(left, &self.schema));
        let (left, right) = (Arc::clone(left), Arc::clone(right));
        let metrics = ExecutionPlanMetricsSet::new();
        Ok(Arc::new(Self { left, right, properties, metrics, ..self.as_ref().clone() }))
    }

    fn with_new_children(self: Arc<Self>, children: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        let mode = datafusion::physical_plan::execution_plan::ChildrenPropertiesMode::Recompute;
        self.replace_children(children, ReplaceChildrenOptions::new(mode))
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let name = format!("{}[{partition}]", self.name());
        let reservation = MemoryConsumer::new(name).register(context.memory_pool());
        let left = self.left.execute(partition, Arc::clone(&context))?;
        let right = self.right.execute(partition, Arc::clone(&context))?;
        let (exec, schema) = (self.clone(), Arc::clone(&self.schema));
        let metrics = BaselineMetrics::new(&self.metrics, partition);
        let batch_size = context.session_config().batch_size();
        let output = async move {
            let left = collect(left, &reservation).await?;
            let right = collect(right, &reservation).await?;
            let timer = metrics.elapsed_compute().timer();
            let output = exec.evaluate(&left, &right)?.record_output(&metrics);
            drop(timer);
            reservation.try_grow(output.get_array_memory_size())?;
            let slices: Vec<_> =
                slices(output.num_rows(), batch_size).map(|r| output.slice(r.start, r.len())).collect();
            Ok::<_, datafusion::error::DataFusionError>(stream::iter(slices).map(move |b| {
                let _held = &reservation;
                Ok(b)
            }))
        };
        let stream = stream::once(output).try_flatten();
        Ok(Box::pin(RecordBatchStreamAdapter::new(schema, stream)))
    }

    fn metrics(&self) -> Option<MetricsSet> {
        Some(self.metrics.clone_inner())
    }
}

fn slices(rows: usize, size: usize) -> impl Iterator<Item = Range<usize>> {
    (0..rows).step_by(size.max(1)).map(move |start| start..(start + size).min(rows))
}

impl AsOfExec {
    /// Both inputs are one partition, whole and sorted.
    fn evaluate(&self, left: &RecordBatch, right: &RecordBatch) -> Result<RecordBatch> {
        let (left_keys, right_keys) = (columns(&self.left_keys, left)?, columns(&self.right_keys, right)?);
        let left_time = column(&self.left_time, left)?;
        let right_time = column(&self.right_time, right)?;
        let (left_rows, right_rows) = rows_of(&left_keys, &right_keys, left.num_rows(), right.num_rows())?;
        let timeless = right_time.logical_nulls();
        let groups = Groups::new(
            &left_rows,
            &right_rows,
            |row| left_keys.iter().any(|k| k.is_null(row)),
            |row| timeless.as_ref().is_some_and(|n| n.is_null(row)),
        );
        let found = match self.windowed() {
            Some(view) => self.aggregate(view, &groups, &left_time, right)?,
            None => self.latest(&groups, &left_time, &right_time, right)?,
        };
        let columns = left.columns().iter().cloned().chain(found).collect();
        Ok(RecordBatch::try_new(Arc::clone(&self.schema), columns)?)
    }

    fn aggregate(
        &self,
        view: &FeatureView,
        groups: &Groups,
        at: &ArrayRef,
        events: &RecordBatch,
    ) -> Result<Vec<ArrayRef>> {
        let at = to_micros(at)?;
        let times = to_micros(events.column(view.time_column()))?;
        let inclusive = self.op == MatchOp::GtEq;
        let windows = view.windows();
        let ranges: Vec<_> = windows.iter().map(|w| groups.windows(&at, times.values(), *w, inclusive)).collect();
        let mut out: Vec<Option<ArrayRef>> = vec![None; view.features.len()];
        for (index, call) in view.aggregates.iter().enumerate() {
            let mine = |(i, f): (usize, &Feature)| match f.source {
                FeatureSource::Window { aggregate, window } if aggregate == index => Some((i, window)),
                _ => None,
            };
            let features: Vec<_> = view.features.iter().enumerate().filter_map(mine).collect();
            let wanted: Vec<_> =
                features.iter().filter_map(|(_, w)| windows.binary_search(w).ok().map(|i| ranges[i].clone())).collect();
            let values = call.over(view, events, times.values(), |input| call.function.windows(input, &wanted))?;
            for ((feature, _), values) in features.iter().zip(values) {
                out[*feature] = Some(values);
            }
        }
        match out.into_iter().collect() {
            Some(columns) => Ok(columns),
            None => internal_err!("a windowed view has a feature that is no aggregate"),
        }
    }

    fn latest(&self, groups: &Groups, at: &ArrayRef, times: &ArrayRef, right: &RecordBatch) -> Result<Vec<ArrayRef>> {
        let (at, times) = match self.view {
            Some(_) => (Arc::new(to_micros(at)?) as ArrayRef, Arc::new(to_micros(times)?) as ArrayRef),
            None => (Arc::clone(at), Arc::clone(times)),
        };
        let (left, encoded) = rows_of(std::slice::from_ref(&at), std::slice::from_ref(&times), at.len(), times.len())?;
        let nulls = at.logical_nulls();
        let timed = |row: usize| nulls.as_ref().is_none_or(|n| n.is_valid(row));
        let mut found = groups.matches(&left, &encoded, timed, self.op);
        break_ties(&mut found, right, self.right_order(), self.op)?;
        if let Some(ttl) = self.view.as_ref().and_then(|v| v.ttl) {
            expire(&mut found, &at, &times, ttl, self.op == MatchOp::GtEq);
        }
        let indices: UInt64Array = found.into_iter().map(|r| r.map(|r| r as u64)).collect();
        let payload = match &self.view {
            None => (0..right.num_columns()).collect(),
            Some(view) => latest_columns(view),
        };
        payload.into_iter().map(|c| Ok(take(right.column(c), &indices, None)?)).collect()
    }

    /// Keys, time and sequence of the right side: its order, and what says whether two of its rows are tied.
    fn right_order(&self) -> Vec<Arc<dyn PhysicalExpr>> {
        self.right_keys.iter().chain([&self.right_time]).cloned().chain(self.sequence()).collect()
    }
}

fn latest_columns(view: &FeatureView) -> Vec<usize> {
    let column = |f: &Feature| match f.source {
        FeatureSource::Latest { column } => Some(column),
        FeatureSource::Window { .. } => None,
    };
    view.features.iter().filter_map(column).collect()
}

/// Among right rows that are tied with the matching one, takes the greatest by all columns for `>` and `>=`, the
/// smallest for `<` and `<=`: the choice must not depend on the order in which files are read. Of a plain table, the
/// columns are those that the query reads.
fn break_ties(
    found: &mut [Option<usize>],
    right: &RecordBatch,
    tie: Vec<Arc<dyn PhysicalExpr>>,
    op: MatchOp,
) -> Result<()> {
    let tie = columns(&tie, right)?;
    let (same, _) = rows_of(&tie, &[], right.num_rows(), 0)?;
    let tied = |a: usize, b: usize| same.row(a) == same.row(b);
    if !(1..right.num_rows()).any(|r| tied(r - 1, r)) {
        return Ok(());
    }
    let (all, _) = rows_of(right.columns(), &[], right.num_rows(), 0)?;
    let backward = matches!(op, MatchOp::Gt | MatchOp::GtEq);
    for hit in found.iter_mut().flatten() {
        let (at, mut best) = (*hit, *hit);
        if backward {
            for r in (0..at).rev().take_while(|r| tied(*r, at)) {
                best = if all.row(r) > all.row(best) { r } else { best };
            }
        } else {
            for r in (at + 1..right.num_rows()).take_while(|r| tied(*r, at)) {
                best = if all.row(r) < all.row(best) { r } else { best };
            }
        }
        *hit = best;
    }
    Ok(())
}

/// Forgets matches that are older than `ttl`: a row is known in `[time, time + ttl]` for `>`, up to, not including,
/// the end for `>=`, as a window of that length would have it.
fn expire(found: &mut [Option<usize>], at: &ArrayRef, times: &ArrayRef, ttl: i64, inclusive: bool) {
    let (at, times): (&Int64Array, &Int64Array) = (at.as_primitive(), times.as_primitive());
    for (row, hit) in found.iter_mut().enumerate() {
        *hit = hit.filter(|r| {
            let near = at.value(row).saturating_add(i64::from(inclusive));
            times.value(*r) >= near.saturating_sub(ttl)
        });
    }
}

fn columns(exprs: &[Arc<dyn PhysicalExpr>], batch: &RecordBatch) -> Result<Vec<ArrayRef>> {
    exprs.iter().map(|e| column(e, batch)).collect()
}

fn column(expr: &Arc<dyn PhysicalExpr>, batch: &RecordBatch) -> Result<ArrayRef> {
    expr.evaluate(batch)?.into_array(batch.num_rows())
}

/// Comparable rows of both sides; no columns give equal rows. The sort order is the one the inputs are sorted by.
fn rows_of(left: &[ArrayRef], right: &[ArrayRef], left_len: usize, right_len: usize) -> Result<(Rows, Rows)> {
    let constant = |n: usize| vec![Arc::new(arrow::array::Int8Array::from(vec![0i8; n])) as ArrayRef];
    let (left, right) = match (left.is_empty(), right.is_empty()) {
        (true, _) => (constant(left_len), constant(right_len)),
        (false, true) => (left.to_vec(), left.iter().map(|a| arrow::array::new_empty_array(a.data_type())).collect()),
        (false, false) => (left.to_vec(), right.to_vec()),
    };
    let fields = left.iter().map(|a| SortField::new(a.data_type().clone())).collect();
    let converter = RowConverter::new(fields)?;
    if left.iter().zip(&right).any(|(l, r)| l.data_type() != r.data_type()) {
        return plan_err!("the keys of an as-of join must have equal types on both sides");
    }
    Ok((converter.convert_columns(&left)?, converter.convert_columns(&right)?))
}
