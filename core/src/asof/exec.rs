//! Physical operators, and the planner that makes them from [`AsOfNode`].

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, Int64Array, RecordBatch, RecordBatchOptions, UInt32Array, new_empty_array};
use arrow::compute::{concat, max, min, take};
use arrow::datatypes::{DataType, Schema, SchemaRef};
use arrow::row::{RowConverter, SortField};
use async_trait::async_trait;
use datafusion::catalog::Session;
use datafusion::common::internal_err;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::config::ConfigOptions;
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::physical_planning_context::PhysicalPlanningContext;
use datafusion::logical_expr::{Expr, LogicalPlan, UserDefinedLogicalNode};
use datafusion::physical_expr::expressions::DynamicFilterPhysicalExpr;
use datafusion::physical_expr::{Distribution, EquivalenceProperties, PhysicalExpr};
use datafusion::physical_plan::execution_plan::{
    Boundedness, EmissionType, ReplaceChildrenOptions, apply_expression_roots,
};
use datafusion::physical_plan::filter_pushdown::{
    ChildFilterDescription, ChildPushdownResult, FilterDescription, FilterPushdownPhase, FilterPushdownPropagation,
};
use datafusion::physical_plan::metrics::{Count, ExecutionPlanMetricsSet, MetricBuilder, MetricsSet};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{
    DisplayAs, DisplayFormatType, ExecutionPlan, ExecutionPlanProperties, InputDistributionRequirements, PlanProperties,
};
use datafusion::physical_planner::{ExtensionPlanner, PhysicalPlanner};

use super::bounds::within_reach;
use super::node::{AsOfNode, MatchOp};
use super::reach::Reach;
use super::sweep;
use super::time::{ordinals, to_micros};
use crate::aggregate::{Memo, put_where_not};
use crate::definition::{Feature, FeatureSource, FeatureView, Window};
use crate::grouped::{Keys, Order, concatenate};
use crate::partition::{Input, Rows, columns, evaluate_by_key};

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
        let (left_time, right_time) = (expr(&node.times.0, left_plan)?, expr(&node.times.1, right_plan)?);
        let view = node.view.as_ref().map(|v| Arc::clone(&v.view));
        let right = within_reach(left, &left_time, right, &right_time, node.op, view.as_deref())?;
        let exec = AsOfExec::new(
            [Arc::clone(left), right],
            node.on.iter().map(|(l, _)| expr(l, left_plan)).collect::<Result<_>>()?,
            node.on.iter().map(|(_, r)| expr(r, right_plan)).collect::<Result<_>>()?,
            left_time,
            right_time,
            node.op,
            view,
            Arc::new(node.schema().as_arrow().clone()),
        );
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

/// `AsOfJoinExec`, or with a windowed view `AsOfAggregateExec`: both sides hashed by key, and grouped by key and time in
/// the operator itself, in memory or in parts.
#[derive(Debug, Clone)]
pub(crate) struct AsOfExec {
    pub(crate) left: Arc<dyn ExecutionPlan>,
    pub(crate) right: Arc<dyn ExecutionPlan>,
    pub(crate) left_keys: Vec<Arc<dyn PhysicalExpr>>,
    pub(crate) right_keys: Vec<Arc<dyn PhysicalExpr>>,
    pub(crate) left_time: Arc<dyn PhysicalExpr>,
    pub(crate) right_time: Arc<dyn PhysicalExpr>,
    pub(crate) op: MatchOp,
    pub(crate) view: Option<Arc<FeatureView>>,
    pub(crate) schema: SchemaRef,
    properties: Arc<PlanProperties>,
    /// What prunes the right side once the left side is known.
    reach: Option<Arc<Reach>>,
    metrics: ExecutionPlanMetricsSet,
}

impl AsOfExec {
    #[expect(clippy::too_many_arguments, reason = "the parts of one operator, which is made here and from bytes")]
    pub(crate) fn new(
        [left, right]: [Arc<dyn ExecutionPlan>; 2],
        left_keys: Vec<Arc<dyn PhysicalExpr>>,
        right_keys: Vec<Arc<dyn PhysicalExpr>>,
        left_time: Arc<dyn PhysicalExpr>,
        right_time: Arc<dyn PhysicalExpr>,
        op: MatchOp,
        view: Option<Arc<FeatureView>>,
        schema: SchemaRef,
    ) -> Self {
        let properties = Arc::new(properties(&left, &schema));
        let metrics = ExecutionPlanMetricsSet::new();
        Self {
            left,
            right,
            left_keys,
            right_keys,
            left_time,
            right_time,
            op,
            view,
            schema,
            properties,
            reach: None,
            metrics,
        }
    }

    fn new_reach(&self) -> Result<Option<Reach>> {
        let (left, right) = (self.left.schema(), self.right.schema());
        let types = (self.left_time.data_type(&left)?, self.right_time.data_type(&right)?);
        let keys = self.left_keys.iter().cloned().zip(self.right_keys.iter().cloned());
        let times = (Arc::clone(&self.left_time), Arc::clone(&self.right_time));
        let key_types = key_types(&self.right_keys, &self.right)?;
        Ok(Reach::new(keys, times, types, self.op, self.view.clone(), &key_types))
    }

    pub(super) fn left(&self) -> &Arc<dyn ExecutionPlan> {
        &self.left
    }

    fn windowed(&self) -> Option<&FeatureView> {
        self.view.as_deref().filter(|v| !v.is_latest())
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

    /// Offers the right side a filter that will be known once the left side is.
    fn gather_filters_for_pushdown(
        &self,
        phase: FilterPushdownPhase,
        parent_filters: Vec<Arc<dyn PhysicalExpr>>,
        config: &ConfigOptions,
    ) -> Result<FilterDescription> {
        let none = ChildFilterDescription::all_unsupported(&parent_filters);
        let wanted = phase == FilterPushdownPhase::Post && config.optimizer.enable_join_dynamic_filter_pushdown;
        let right = match self.new_reach()?.filter(|_| wanted && self.reach.is_none()) {
            Some(reach) => none.clone().with_self_filter(reach.filter),
            None => none.clone(),
        };
        Ok(FilterDescription::new().with_child(none).with_child(right))
    }

    fn handle_child_pushdown_result(
        &self,
        _: FilterPushdownPhase,
        result: ChildPushdownResult,
        _: &ConfigOptions,
    ) -> Result<FilterPushdownPropagation<Arc<dyn ExecutionPlan>>> {
        let offered = result.self_filters.get(1).and_then(|f| f.first()).map(|f| Arc::clone(&f.predicate));
        let filter = offered.and_then(|f| Arc::downcast::<DynamicFilterPhysicalExpr>(f).ok());
        let reach = self.new_reach()?.zip(filter).map(|(reach, filter)| Arc::new(reach.with_filter(filter)));
        let propagation = FilterPushdownPropagation::all_unsupported(result);
        Ok(match reach {
            Some(reach) => propagation.with_updated_node(Arc::new(Self { reach: Some(reach), ..self.clone() })),
            None => propagation,
        })
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let input = |plan: &Arc<dyn ExecutionPlan>, keys: &Vec<Arc<dyn PhysicalExpr>>, watch| {
            let stream = plan.execute(partition, Arc::clone(&context))?;
            Ok::<_, DataFusionError>(Input { stream, keys: keys.clone(), watch })
        };
        let watch = self.reach.as_ref().map(|r| r.start(self.left.output_partitioning().partition_count()));
        let inputs = vec![input(&self.left, &self.left_keys, watch)?, input(&self.right, &self.right_keys, None)?];
        let (exec, target) = (Arc::new(self.clone()), context.session_config().batch_size());
        let matches = MetricBuilder::new(&self.metrics).counter("matches", partition);
        let evaluate = move |rows| Evaluation::new(Arc::clone(&exec), rows, target, matches.clone());
        let stream = evaluate_by_key(self.name(), partition, &context, &self.metrics, inputs, evaluate);
        Ok(Box::pin(RecordBatchStreamAdapter::new(Arc::clone(&self.schema), stream)))
    }

    fn metrics(&self) -> Option<MetricsSet> {
        Some(self.metrics.clone_inner())
    }
}

/// Both sides of one part, and how far it is done: group by group, about `target` left rows at a time.
///
/// ```text
///  left  ──intern, order──▶ asks    group 0 │ group 1 │ …      left rows of a group, by time
///  right ──intern, order──▶ events  group 0 │ group 1 │ …      right rows of the same key, by time
/// ```
struct Evaluation {
    exec: Arc<AsOfExec>,
    left: Vec<ArrayRef>,
    asks: Order,
    /// The left rows at the places of `asks`.
    ask_rows: Vec<u32>,
    /// The right columns; for windows in the order of `events`.
    right: Vec<ArrayRef>,
    events: Order,
    /// The right rows at the places of `events`, but for windows.
    event_rows: Vec<u32>,
    next: usize,
    target: usize,
    /// Left rows that see a right row.
    matches: Count,
}

impl Evaluation {
    fn new(exec: Arc<AsOfExec>, rows: Vec<Rows>, target: usize, matches: Count) -> Result<Self> {
        let Ok([left, mut right]) = <[Rows; 2]>::try_from(rows) else {
            return internal_err!("an as-of join has two inputs");
        };
        by_first_time(&mut right, &exec.right_time)?;
        let keys_of = |exprs: &[_], rows: &Rows| rows.iter().map(|b| columns(exprs, b)).collect::<Result<Vec<_>>>();
        let (left_keys, right_keys) = (keys_of(&exec.left_keys, &left)?, keys_of(&exec.right_keys, &right)?);
        let types = key_types(&exec.left_keys, &exec.left)?;
        let mut keys = Keys::new(&types, left_keys.iter().chain(&right_keys))?;
        let mut groups_of = |key_columns: &[Vec<ArrayRef>], rows: &Rows| {
            let mut of = Vec::with_capacity(rows.iter().map(RecordBatch::num_rows).sum());
            let mut each = key_columns.iter().zip(rows);
            each.try_for_each(|(columns, b)| keys.intern(columns, b.num_rows(), &mut of))?;
            Ok::<_, DataFusionError>((of, keys.len()))
        };
        let (mut left_of, groups) = groups_of(&left_keys, &left)?;
        let (mut right_of, _) = groups_of(&right_keys, &right)?;
        drop((left_keys, right_keys));
        let pieces = |expr, rows: &Rows| rows.iter().map(|b| column(expr, b)).collect::<Result<Vec<_>>>();
        let (at, time) = (pieces(&exec.left_time, &left)?, pieces(&exec.right_time, &right)?);
        let (at, time) = match exec.view {
            Some(_) => (micros_of(&at)?, micros_of(&time)?),
            None => {
                let at = whole(&at, &exec.left_time, &exec.left)?;
                let (at, time) = ordinals(&at, &whole(&time, &exec.right_time, &exec.right)?)?;
                (vec![at], vec![time])
            }
        };
        // Left rows without a key or a time are a group of their own, which has no events.
        left_of.iter_mut().for_each(|g| *g = (*g).min(groups as u32));
        without_time(&mut left_of, &at, groups as u32);
        without_time(&mut right_of, &time, u32::MAX);
        let (asks, ask_places) = Order::new(left_of, &at, groups + 1)?;
        let (events, places) = Order::new(right_of, &time, groups)?;
        drop((at, time));
        let (schema, mut event_rows) = (exec.right.schema(), Vec::new());
        let right = match exec.windowed() {
            // Windows need no more of keys and times than `events` has.
            Some(view) => places.arrange(&schema, right, view.time_column() + 1)?,
            None => {
                event_rows = places.rows();
                concatenate(&schema, right)?
            }
        };
        Ok(Self {
            left: concatenate(&exec.left.schema(), left)?,
            ask_rows: ask_places.rows(),
            asks,
            right,
            events,
            event_rows,
            exec,
            next: 0,
            target,
            matches,
        })
    }

    /// The rows of the next groups.
    fn chunk(&mut self) -> Result<RecordBatch> {
        /// So many events that what is made of them, such as prefix sums, stays in a core's own cache.
        const EVENTS: usize = 1 << 14;
        let (first, begin) = (self.next, self.asks.group(self.next).start);
        let events = |groups: Range<usize>| if self.exec.windowed().is_some() { self.places(groups).len() } else { 0 };
        let mut last = first;
        while last + 1 < self.asks.groups()
            && self.asks.group(last).end - begin < self.target
            && events(first..last + 1) < EVENTS
        {
            last += 1;
        }
        let groups = first..last + 1;
        self.next = groups.end;
        let rows = UInt32Array::from(self.ask_rows[begin..self.asks.group(groups.end - 1).end].to_vec());
        let mut columns = self.left.iter().map(|c| Ok(take(c, &rows, None)?)).collect::<Result<Vec<_>>>()?;
        columns.extend(match self.exec.windowed() {
            Some(view) => self.aggregate(view, groups)?,
            None => self.latest(groups)?,
        });
        let options = RecordBatchOptions::new().with_row_count(Some(rows.len()));
        Ok(RecordBatch::try_new_with_options(Arc::clone(&self.exec.schema), columns, &options)?)
    }

    /// Calls `f` with the times of the asks and of the events of each group, and the place of its first event.
    fn for_each_group(&self, groups: Range<usize>, mut f: impl FnMut(&[i64], &[i64], usize)) {
        for g in groups {
            let events = self.places(g..g + 1);
            f(&self.asks.times[self.asks.group(g)], &self.events.times[events.clone()], events.start);
        }
    }

    /// Where the events of some groups are; those of the last group, which has none, are at the end.
    fn places(&self, groups: Range<usize>) -> Range<usize> {
        let start =
            |g: usize| if g < self.events.groups() { self.events.group(g).start } else { self.events.times.len() };
        start(groups.start)..start(groups.end)
    }

    fn aggregate(&self, view: &FeatureView, groups: Range<usize>) -> Result<Vec<ArrayRef>> {
        let places = self.places(groups.clone());
        let events: Vec<_> = self.right.iter().map(|c| c.slice(places.start, places.len())).collect();
        let inclusive = self.exec.op == MatchOp::GtEq;
        let asks = self.asks.group(groups.start).start..self.asks.group(groups.end - 1).end;
        let windows = view.windows();
        let mut ranges: Vec<Vec<Range<usize>>> = vec![Vec::new(); windows.len()];
        self.for_each_group(groups, |at, times, place| {
            sweep::windows(at, times, &windows, inclusive, place - places.start, &mut ranges);
        });
        let seen = (0..asks.len()).filter(|ask| ranges.iter().any(|r| !r[*ask].is_empty()));
        self.matches.add(seen.count());
        let at: Vec<i64> = self.asks.times[asks].iter().map(|t| t.saturating_add(inclusive.into())).collect();
        features(view, &windows, &ranges, &events, &self.events.times[places], &at)
    }

    fn latest(&self, groups: Range<usize>) -> Result<Vec<ArrayRef>> {
        let mut found = Vec::new();
        let mut ties = Vec::new();
        let first = self.asks.group(groups.start).start;
        self.for_each_group(groups, |at, times, place| {
            let from = found.len();
            sweep::matches(at, times, self.exec.op, place, &mut found);
            for (ask, hit) in found.iter().enumerate().skip(from).filter_map(|(ask, hit)| Some((ask, (*hit)?))) {
                let run = sweep::run(times, hit - place, place);
                if run.len() > 1 {
                    ties.push((ask, run));
                }
            }
        });
        self.break_ties(&mut found, &ties)?;
        if let Some(ttl) = self.exec.view.as_ref().and_then(|v| v.ttl) {
            self.expire(&mut found, first, ttl);
        }
        self.matches.add(found.iter().flatten().count());
        let row = |place: Option<usize>| place.map(|p| self.event_rows[p]);
        let rows: UInt32Array = found.into_iter().map(row).collect();
        let payload = match &self.exec.view {
            None => (0..self.right.len()).collect(),
            Some(view) => latest_columns(view),
        };
        payload.into_iter().map(|c| Ok(take(&self.right[c], &rows, None)?)).collect()
    }

    /// Among right rows of equal time takes the greatest by sequence and all columns for `>` and `>=`, the smallest for
    /// `<` and `<=`: the choice must not depend on the order in which files are read. Of a plain table, the columns are
    /// those that the query reads.
    fn break_ties(&self, found: &mut [Option<usize>], ties: &[(usize, Range<usize>)]) -> Result<()> {
        if ties.is_empty() {
            return Ok(());
        }
        let mut runs: Vec<Range<usize>> = ties.iter().map(|(_, run)| run.clone()).collect();
        runs.dedup();
        let rows: UInt32Array = runs.iter().flat_map(|run| &self.event_rows[run.clone()]).copied().collect();
        let sequence = self.exec.view.as_ref().and_then(|v| v.sequence_column()).map(|c| &self.right[c]);
        let compared = sequence.into_iter().chain(&self.right);
        let compared = compared.map(|c| Ok(take(c, &rows, None)?)).collect::<Result<Vec<_>>>()?;
        let fields = compared.iter().map(|c| SortField::new(c.data_type().clone())).collect();
        let values = RowConverter::new(fields)?.convert_columns(&compared)?;
        let backward = matches!(self.exec.op, MatchOp::Gt | MatchOp::GtEq);
        let mut winners = Vec::with_capacity(runs.len());
        let mut at = 0;
        for run in &runs {
            let places = at..at + run.len();
            at = places.end;
            let best = if backward {
                places.clone().max_by(|a, b| values.row(*a).cmp(&values.row(*b)))
            } else {
                places.clone().min_by(|a, b| values.row(*a).cmp(&values.row(*b)))
            };
            winners.push(best.map(|best| run.start + best - places.start));
        }
        let mut number = 0;
        for (ask, run) in ties {
            while runs[number] != *run {
                number += 1;
            }
            found[*ask] = winners[number];
        }
        Ok(())
    }

    /// Forgets matches that are older than `ttl`: a row is known in `[time, time + ttl]` for `>`, up to, not including,
    /// the end for `>=`, as a window of that length would have it.
    fn expire(&self, found: &mut [Option<usize>], first: usize, ttl: i64) {
        let inclusive = i64::from(self.exec.op == MatchOp::GtEq);
        for (ask, hit) in found.iter_mut().enumerate() {
            let near = self.asks.times[first + ask].saturating_add(inclusive);
            *hit = hit.filter(|place| self.events.times[*place] >= near.saturating_sub(ttl));
        }
    }
}

impl Iterator for Evaluation {
    type Item = Result<RecordBatch>;

    fn next(&mut self) -> Option<Self::Item> {
        (self.next < self.asks.groups()).then(|| self.chunk())
    }
}

/// The features of a windowed view at the instants `at` over `events`, whose columns up to the time are not needed.
fn features(
    view: &FeatureView,
    windows: &[Window],
    ranges: &[Vec<Range<usize>>],
    events: &[ArrayRef],
    times: &[i64],
    at: &[i64],
) -> Result<Vec<ArrayRef>> {
    let memo = Memo::of(view, events);
    let mut out: Vec<Option<ArrayRef>> = vec![None; view.features.len()];
    for (index, call) in view.aggregates.iter().enumerate() {
        let mine = |(i, f): (usize, &Feature)| match f.source {
            FeatureSource::Window { aggregate, window } if aggregate == index => Some((i, window)),
            _ => None,
        };
        let features: Vec<_> = view.features.iter().enumerate().filter_map(mine).collect();
        let wanted: Vec<_> =
            features.iter().filter_map(|(_, w)| windows.binary_search(w).ok().map(|i| ranges[i].as_slice())).collect();
        let values = call.over(view, events, times, Some(&memo), |input| call.function.windows(input, &wanted, at))?;
        for ((feature, _), values) in features.iter().zip(values) {
            out[*feature] = Some(values);
        }
    }
    match out.into_iter().collect() {
        Some(columns) => Ok(columns),
        None => internal_err!("a windowed view has a feature that is no aggregate"),
    }
}

fn micros_of(pieces: &[ArrayRef]) -> Result<Vec<Int64Array>> {
    Ok(pieces.iter().map(to_micros).collect::<crate::Result<_>>()?)
}

/// Cuts batches where their times descend or leap, and puts the pieces into the order of their first times. Rows of files
/// that are ordered by time then follow each other as in the files, whatever order they came in, and no group needs to be
/// sorted. Rows that are in no order stay as they are.
fn by_first_time(rows: &mut Rows, time: &Arc<dyn PhysicalExpr>) -> Result<()> {
    /// A leap is one over as much time as this many rows take.
    const LEAP_ROWS: i64 = 1024;
    /// Pieces are worth their trouble from this length on.
    const PIECE_ROWS: usize = 128;
    let times = rows.iter().map(|batch| Ok(to_micros(&column(time, batch)?)?)).collect::<Result<Vec<_>>>();
    // Times that are no instants are ordered later.
    let Ok(times) = times else { return Ok(()) };
    let total: usize = rows.iter().map(RecordBatch::num_rows).sum();
    let (first, last) = (times.iter().filter_map(min).min(), times.iter().filter_map(max).max());
    let (Some(first), Some(last)) = (first, last) else { return Ok(()) };
    let leap = (last.saturating_sub(first) / total as i64).saturating_mul(LEAP_ROWS).max(1);
    let mut pieces = Vec::with_capacity(rows.len());
    for (batch, times) in rows.iter().zip(&times) {
        let times = times.values();
        let breaks = |at: usize| !(0..=leap).contains(&times[at].saturating_sub(times[at - 1]));
        let mut from = 0;
        for at in (1..=times.len()).filter(|at| *at == times.len() || breaks(*at)) {
            pieces.push((times[from], batch.slice(from, at - from)));
            from = at;
        }
        if pieces.len() > rows.len() + total / PIECE_ROWS {
            return Ok(());
        }
    }
    pieces.sort_by_key(|(first, _)| *first);
    *rows = pieces.into_iter().map(|(_, piece)| piece).collect();
    Ok(())
}

/// Puts the rows whose time is NULL into a group.
fn without_time(of: &mut [u32], times: &[Int64Array], group: u32) {
    let mut row = 0;
    for piece in times {
        let rows = &mut of[row..row + piece.len()];
        if let Some(nulls) = piece.nulls() {
            put_where_not(nulls.inner(), group, rows);
        }
        row += piece.len();
    }
}

/// The pieces of an expression as one.
fn whole(pieces: &[ArrayRef], expr: &Arc<dyn PhysicalExpr>, input: &Arc<dyn ExecutionPlan>) -> Result<ArrayRef> {
    let pieces: Vec<&dyn Array> = pieces.iter().map(AsRef::as_ref).collect();
    match pieces.is_empty() {
        true => Ok(new_empty_array(&expr.data_type(&input.schema())?)),
        false => Ok(concat(&pieces)?),
    }
}

fn key_types(keys: &[Arc<dyn PhysicalExpr>], plan: &Arc<dyn ExecutionPlan>) -> Result<Vec<DataType>> {
    keys.iter().map(|k| k.data_type(&plan.schema())).collect()
}

fn latest_columns(view: &FeatureView) -> Vec<usize> {
    let column = |f: &Feature| match f.source {
        FeatureSource::Latest { column } => Some(column),
        FeatureSource::Window { .. } => None,
    };
    view.features.iter().filter_map(column).collect()
}

fn column(expr: &Arc<dyn PhysicalExpr>, batch: &RecordBatch) -> Result<ArrayRef> {
    expr.evaluate(batch)?.into_array(batch.num_rows())
}
