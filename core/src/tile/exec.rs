//! Tile backfill as a plan node: events in, tiles out.

use std::cmp::Ordering;
use std::collections::VecDeque;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, RecordBatch};
use async_trait::async_trait;
use datafusion::catalog::Session;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::common::{DFSchema, DFSchemaRef, ScalarValue, internal_err, plan_err};
use datafusion::error::Result;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::physical_planning_context::PhysicalPlanningContext;
use datafusion::logical_expr::{
    Expr, Extension, LogicalPlan, LogicalPlanBuilder, UserDefinedLogicalNode, UserDefinedLogicalNodeCore, lit,
};
use datafusion::physical_expr::expressions::Column as PhysicalColumn;
use datafusion::physical_expr::{Distribution, EquivalenceProperties, Partitioning, PhysicalExpr};
use datafusion::physical_plan::execution_plan::{
    Boundedness, ChildrenPropertiesMode, EmissionType, ReplaceChildrenOptions, apply_expression_roots,
};
use datafusion::physical_plan::metrics::{ExecutionPlanMetricsSet, MetricsSet};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{
    DisplayAs, DisplayFormatType, ExecutionPlan, ExecutionPlanProperties, InputDistributionRequirements, PlanProperties,
};
use datafusion::physical_planner::{ExtensionPlanner, PhysicalPlanner};

use super::{Program, tile_schema};
use crate::asof::to_micros;
use crate::definition::{FeatureView, Micros};
use crate::grouped::{Keys, Order};
use crate::partition::{Input, Rows, evaluate_by_key};

/// The tiles of a view's events.
#[derive(Clone)]
pub struct TileNode {
    view: Arc<FeatureView>,
    events: LogicalPlan,
    schema: DFSchemaRef,
}

impl TileNode {
    /// A plan for all tiles of `view`, of events before `until` if it is given. Events without a key or a time belong
    /// to no tile.
    ///
    /// Errors: DataFusion's, if the view's events don't plan.
    pub fn plan(view: &Arc<FeatureView>, until: Option<Micros>) -> crate::Result<LogicalPlan> {
        let column = |i: usize| Expr::Column(view.events.schema().qualified_field(i).into());
        let known = (0..=view.time_column()).map(|i| column(i).is_not_null());
        let before =
            until.map(|t| column(view.time_column()).lt(lit(ScalarValue::TimestampMicrosecond(Some(t), None))));
        let Some(filter) = known.chain(before).reduce(Expr::and) else {
            return Err(crate::Error::internal("a feature view without an event time"));
        };
        let events = LogicalPlanBuilder::from(view.events.clone()).filter(filter)?.build()?;
        let node = Self::try_new(Arc::clone(view), events)?;
        Ok(LogicalPlan::Extension(Extension { node: Arc::new(node) }))
    }

    fn try_new(view: Arc<FeatureView>, events: LogicalPlan) -> Result<Self> {
        let schema = Arc::new(DFSchema::try_from(tile_schema(&view))?);
        Ok(Self { view, events, schema })
    }

    fn identity(&self) -> (&str, &LogicalPlan) {
        (&self.view.sql, &self.events)
    }
}

impl fmt::Debug for TileNode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        UserDefinedLogicalNodeCore::fmt_for_explain(self, f)
    }
}

impl PartialEq for TileNode {
    fn eq(&self, other: &Self) -> bool {
        self.identity() == other.identity()
    }
}

impl Eq for TileNode {}

impl PartialOrd for TileNode {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        self.identity().partial_cmp(&other.identity())
    }
}

impl Hash for TileNode {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.identity().hash(state);
    }
}

impl UserDefinedLogicalNodeCore for TileNode {
    fn name(&self) -> &str {
        "Tiles"
    }

    fn inputs(&self) -> Vec<&LogicalPlan> {
        vec![&self.events]
    }

    fn schema(&self) -> &DFSchemaRef {
        &self.schema
    }

    fn expressions(&self) -> Vec<Expr> {
        vec![]
    }

    fn fmt_for_explain(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Tiles: {}", self.view.name)
    }

    fn with_exprs_and_inputs(&self, _: Vec<Expr>, mut inputs: Vec<LogicalPlan>) -> Result<Self> {
        match inputs.pop() {
            Some(events) => Self::try_new(Arc::clone(&self.view), events),
            None => plan_err!("tiles have one input"),
        }
    }

    fn necessary_children_exprs(&self, _: &[usize]) -> Option<Vec<Vec<usize>>> {
        Some(vec![(0..self.events.schema().fields().len()).collect()])
    }
}

/// Plans [`TileNode`]s.
#[derive(Debug, Default)]
pub struct TilePlanner;

#[async_trait]
impl ExtensionPlanner for TilePlanner {
    async fn plan_extension(
        &self,
        _: &dyn PhysicalPlanner,
        node: &dyn UserDefinedLogicalNode,
        _: &[&LogicalPlan],
        physical: &[Arc<dyn ExecutionPlan>],
        _: &dyn Session,
        _: &PhysicalPlanningContext,
    ) -> Result<Option<Arc<dyn ExecutionPlan>>> {
        let Some(node) = node.as_any().downcast_ref::<TileNode>() else { return Ok(None) };
        let [events] = physical else { return internal_err!("tiles have one input") };
        Ok(Some(Arc::new(TileExec::new(Arc::clone(&node.view), Arc::clone(events)))))
    }
}

/// Events hashed by entity, and grouped by entity and time in the operator itself.
#[derive(Debug)]
pub(crate) struct TileExec {
    pub(crate) view: Arc<FeatureView>,
    events: Arc<dyn ExecutionPlan>,
    properties: Arc<PlanProperties>,
    metrics: ExecutionPlanMetricsSet,
}

impl TileExec {
    pub(crate) fn new(view: Arc<FeatureView>, events: Arc<dyn ExecutionPlan>) -> Self {
        let properties = PlanProperties::new(
            EquivalenceProperties::new(tile_schema(&view)),
            Partitioning::UnknownPartitioning(events.output_partitioning().partition_count()),
            EmissionType::Final,
            Boundedness::Bounded,
        );
        Self { view, events, properties: Arc::new(properties), metrics: ExecutionPlanMetricsSet::new() }
    }

    fn columns(&self, n: usize) -> impl Iterator<Item = Arc<dyn PhysicalExpr>> {
        let schema = self.events.schema();
        (0..n).map(move |i| Arc::new(PhysicalColumn::new(schema.field(i).name(), i)) as Arc<dyn PhysicalExpr>)
    }
}

impl DisplayAs for TileExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TileExec: view={}", self.view.name)
    }
}

impl ExecutionPlan for TileExec {
    fn name(&self) -> &str {
        "TileExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.events]
    }

    fn input_distribution_requirements(&self) -> InputDistributionRequirements {
        let keys = self.columns(self.view.entity.len()).collect();
        InputDistributionRequirements::new(vec![Distribution::KeyPartitioned(keys)])
    }

    fn apply_expressions(
        &self,
        f: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        apply_expression_roots(std::iter::empty::<&Arc<dyn PhysicalExpr>>(), f)
    }

    fn replace_children(
        self: Arc<Self>,
        mut children: Vec<Arc<dyn ExecutionPlan>>,
        _: ReplaceChildrenOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        match children.pop() {
            Some(events) => Ok(Arc::new(Self::new(Arc::clone(&self.view), events))),
            None => internal_err!("tiles have one input"),
        }
    }

    fn with_new_children(self: Arc<Self>, children: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        self.replace_children(children, ReplaceChildrenOptions::new(ChildrenPropertiesMode::Recompute))
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let stream = self.events.execute(partition, Arc::clone(&context))?;
        let inputs = vec![Input { stream, keys: self.columns(self.view.entity.len()).collect(), watch: None }];
        let (view, target) = (Arc::clone(&self.view), context.session_config().batch_size());
        let evaluate = move |rows| Evaluation::new(Arc::clone(&view), rows, target);
        let stream = evaluate_by_key(self.name(), partition, &context, &self.metrics, inputs, evaluate);
        Ok(Box::pin(RecordBatchStreamAdapter::new(tile_schema(&self.view), stream)))
    }

    fn metrics(&self) -> Option<MetricsSet> {
        Some(self.metrics.clone_inner())
    }
}

/// The events of one part, and how far it is done: group by group, at least `target` events at a time.
pub(super) struct Evaluation {
    view: Arc<FeatureView>,
    program: Program,
    events: Vec<ArrayRef>,
    order: Order,
    next: usize,
    target: usize,
    /// The tiles that are made, but not given out.
    ready: VecDeque<RecordBatch>,
}

impl Evaluation {
    pub(super) fn new(view: Arc<FeatureView>, rows: Vec<Rows>, target: usize) -> Result<Self> {
        let rows: Rows = rows.into_iter().flatten().collect();
        let key_columns: Vec<_> = rows.iter().map(|b| b.columns()[..view.entity.len()].to_vec()).collect();
        let mut keys = Keys::new(view.entity.iter().map(|f| f.data_type()), key_columns.iter())?;
        let mut of = Vec::with_capacity(rows.iter().map(RecordBatch::num_rows).sum());
        key_columns.iter().zip(&rows).try_for_each(|(columns, b)| keys.intern(columns, b.num_rows(), &mut of))?;
        let times: Vec<_> =
            rows.iter().map(|b| to_micros(b.column(view.time_column()))).collect::<crate::Result<_>>()?;
        let (order, places) = Order::new(of, &times, keys.len())?;
        drop((key_columns, times));
        let events = places.arrange(view.events.schema().as_arrow(), rows, 0)?;
        let program = Program::new(&view);
        Ok(Self { view, program, events, order, next: 0, target, ready: VecDeque::new() })
    }

    fn chunk(&mut self) -> Result<()> {
        let (first, begin) = (self.next, self.order.group(self.next).start);
        while self.next < self.order.groups() && self.order.group(self.next).end - begin < self.target {
            self.next += 1;
        }
        self.next = (self.next + 1).min(self.order.groups());
        let end = self.order.group(self.next - 1).end;
        let events: Vec<_> = self.events.iter().map(|c| c.slice(begin, end - begin)).collect();
        let group = |g| self.order.group(g).start - begin..self.order.group(g).end - begin;
        let groups: Vec<_> = (first..self.next).map(group).collect();
        self.ready.extend(self.program.build(&self.view, &events, &self.order.times[begin..end], &groups)?);
        Ok(())
    }
}

impl Iterator for Evaluation {
    type Item = Result<RecordBatch>;

    fn next(&mut self) -> Option<Self::Item> {
        while self.ready.is_empty() && self.next < self.order.groups() {
            if let Err(e) = self.chunk() {
                return Some(Err(e));
            }
        }
        self.ready.pop_front().map(Ok)
    }
}
