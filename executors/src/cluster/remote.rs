//! A physical plan as one operator whose rows come from a cluster.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use datafusion::catalog::Session;
use datafusion::common::internal_err;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::datasource::sink::DataSinkExec;
use datafusion::error::Result;
use datafusion::execution::context::QueryPlanner;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::LogicalPlan;
use datafusion::physical_expr::{EquivalenceProperties, Partitioning, PhysicalExpr};
use datafusion::physical_plan::analyze::AnalyzeExec;
use datafusion::physical_plan::execution_plan::{
    Boundedness, ChildrenPropertiesMode, EmissionType, ReplaceChildrenOptions, apply_expression_roots,
    replace_children_if_necessary,
};
use datafusion::physical_plan::metrics::{ExecutionPlanMetricsSet, MetricBuilder, MetricsSet};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{DisplayAs, DisplayFormatType, ExecutionPlan, PlanProperties};
use futures::{StreamExt, TryStreamExt, stream};
use tokio::sync::watch;

use super::job::{Job, Progress};
use super::shape::{gathered, unsliceable};
use super::{Address, ClusterCodec};
use crate::local::{Planner, SharedExtensionPlanner};

/// Plans as on one machine, and sends the plan to a cluster if it can be cut into tasks.
pub(super) struct RemotePlanner {
    address: Address,
    planner: Planner,
    progress: watch::Sender<Option<Progress>>,
}

impl RemotePlanner {
    pub(super) fn new(
        address: Address,
        planners: Vec<SharedExtensionPlanner>,
        progress: watch::Sender<Option<Progress>>,
    ) -> Self {
        Self { address, planner: Planner(planners), progress }
    }
}

impl fmt::Debug for RemotePlanner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RemotePlanner({})", self.address)
    }
}

#[async_trait]
impl QueryPlanner for RemotePlanner {
    async fn create_physical_plan(&self, plan: &LogicalPlan, session: &dyn Session) -> Result<Arc<dyn ExecutionPlan>> {
        let plan = self.planner.create_physical_plan(plan, session).await?;
        // What ends here, with the rows of one input, is the driver's: files that are not Parquet, and EXPLAIN ANALYZE.
        if plan.is::<DataSinkExec>() || plan.is::<AnalyzeExec>() {
            let input = plan.children().into_iter().map(|c| self.place(Arc::clone(c))).collect::<Result<_>>()?;
            return replace_children_if_necessary(plan, input);
        }
        self.place(plan)
    }
}

impl RemotePlanner {
    /// The plan on the cluster, or here if it can't be cut into tasks.
    fn place(&self, plan: Arc<dyn ExecutionPlan>) -> Result<Arc<dyn ExecutionPlan>> {
        if unsliceable(&plan).is_some() {
            return Ok(plan);
        }
        let plan = gathered(plan)?;
        match Job::encode(&plan, &ClusterCodec::default())? {
            Some(bytes) => Ok(Arc::new(RemoteExec::new(self.address.clone(), plan, bytes, self.progress.clone()))),
            None => Ok(plan),
        }
    }
}

/// `RemoteExec`: a plan that runs on a cluster, with one partition here.
#[derive(Debug)]
struct RemoteExec {
    address: Address,
    plan: Arc<dyn ExecutionPlan>,
    bytes: Arc<Vec<u8>>,
    progress: watch::Sender<Option<Progress>>,
    properties: Arc<PlanProperties>,
    metrics: ExecutionPlanMetricsSet,
}

impl RemoteExec {
    fn new(
        address: Address,
        plan: Arc<dyn ExecutionPlan>,
        bytes: Vec<u8>,
        progress: watch::Sender<Option<Progress>>,
    ) -> Self {
        let properties = PlanProperties::new(
            EquivalenceProperties::new(plan.schema()),
            Partitioning::UnknownPartitioning(1),
            EmissionType::Final,
            Boundedness::Bounded,
        );
        let metrics = ExecutionPlanMetricsSet::new();
        Self { address, plan, bytes: Arc::new(bytes), progress, properties: Arc::new(properties), metrics }
    }
}

impl DisplayAs for RemoteExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RemoteExec: {}", self.address)
    }
}

impl ExecutionPlan for RemoteExec {
    fn name(&self) -> &str {
        "RemoteExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    /// None: what the plan is made of is no longer for the rules of this process.
    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![]
    }

    fn apply_expressions(
        &self,
        f: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        apply_expression_roots(std::iter::empty::<&Arc<dyn PhysicalExpr>>(), f)
    }

    fn replace_children(
        self: Arc<Self>,
        children: Vec<Arc<dyn ExecutionPlan>>,
        _: ReplaceChildrenOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        if children.is_empty() { Ok(self) } else { internal_err!("a remote plan has no input here") }
    }

    fn with_new_children(self: Arc<Self>, children: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        self.replace_children(children, ReplaceChildrenOptions::new(ChildrenPropertiesMode::Recompute))
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let job = Job::new(
            self.address.clone(),
            Arc::clone(&self.bytes),
            self.plan.schema(),
            &context,
            self.progress.clone(),
        );
        let rows = MetricBuilder::new(&self.metrics).output_rows(partition);
        let stream = stream::once(job.run()).try_flatten().inspect(move |batch| {
            batch.iter().for_each(|b| rows.add(b.num_rows()));
        });
        Ok(Box::pin(RecordBatchStreamAdapter::new(self.plan.schema(), stream)))
    }

    fn metrics(&self) -> Option<MetricsSet> {
        Some(self.metrics.clone_inner())
    }
}
