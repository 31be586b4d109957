//! The engine on one machine: a DataFusion session that knows as-of joins.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use datafusion::catalog::Session;
use datafusion::error::Result;
use datafusion::execution::context::QueryPlanner;
use datafusion::execution::memory_pool::FairSpillPool;
use datafusion::execution::object_store::ObjectStoreRegistry;
use datafusion::execution::runtime_env::RuntimeEnvBuilder;
use datafusion::execution::session_state::SessionStateBuilder;
use datafusion::logical_expr::LogicalPlan;
use datafusion::optimizer::{Optimizer, OptimizerRule};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_planner::{DefaultPhysicalPlanner, ExtensionPlanner, PhysicalPlanner};
use datafusion::prelude::{SessionConfig, SessionContext};
use featurectl_core::asof::{AsOfPlanner, FeatureRelations, PushFiltersBelowAsOf};
use featurectl_core::sink::SinkPlanner;
use featurectl_core::tile::TilePlanner;

/// How much of the machine a session takes.
#[derive(Debug, Clone, Default)]
pub struct LocalOptions {
    /// Threads that the plan is cut for; `None`: one a core.
    pub threads: Option<usize>,
    /// Bytes that operators may hold before they spill or fail; `None`: no limit.
    pub memory_bytes: Option<usize>,
}

/// A planner of an operator that a crate beside this one brings, such as the online read.
pub type SharedExtensionPlanner = Arc<dyn ExtensionPlanner + Send + Sync>;

/// Where the files of a session's tables are read and written, by their URLs.
pub type Stores = Arc<dyn ObjectStoreRegistry>;

/// A session that plans and runs the whole dialect, over files in `stores`. `relations` gives it as-of joins and services.
///
/// Errors: [`Invalid`](featurectl_core::ErrorKind::Invalid) for options that DataFusion refuses.
pub fn local(
    options: &LocalOptions,
    stores: Stores,
    relations: Arc<FeatureRelations>,
    planners: Vec<SharedExtensionPlanner>,
) -> featurectl_core::Result<SessionContext> {
    local_with(config(options)?, options, stores, relations, Arc::new(Planner(planners)))
}

/// A session with these settings and this planner.
pub(crate) fn local_with(
    config: SessionConfig,
    options: &LocalOptions,
    stores: Stores,
    relations: Arc<FeatureRelations>,
    planner: Arc<dyn QueryPlanner + Send + Sync>,
) -> featurectl_core::Result<SessionContext> {
    let mut runtime = RuntimeEnvBuilder::new().with_object_store_registry(stores);
    if let Some(bytes) = options.memory_bytes {
        runtime = runtime.with_memory_pool(Arc::new(FairSpillPool::new(bytes)));
    }
    let state = SessionStateBuilder::new()
        .with_default_features()
        .with_config(config)
        .with_runtime_env(runtime.build_arc()?)
        .with_optimizer_rules(optimizer_rules())
        .with_query_planner(planner)
        .with_relation_planners(vec![relations])
        .build();
    Ok(SessionContext::new_with_state(state))
}

/// DataFusion's rules and ours, right after the one that pushes filters down to an as-of join, before others put
/// projections between the two.
fn optimizer_rules() -> Vec<Arc<dyn OptimizerRule + Send + Sync>> {
    let mut rules = Optimizer::new().rules;
    let place = rules.iter().position(|r| r.name() == "push_down_filter").map_or(rules.len(), |p| p + 1);
    rules.insert(place, Arc::new(PushFiltersBelowAsOf));
    rules
}

/// The settings that must be the same wherever the dialect is planned. Strings are `Utf8` everywhere, since view types
/// do not cross a cluster's shuffle.
pub(crate) fn config(options: &LocalOptions) -> Result<SessionConfig> {
    let config = SessionConfig::new()
        .with_information_schema(true)
        .set_bool("datafusion.sql_parser.collect_spans", true)
        .set_bool("datafusion.sql_parser.map_string_types_to_utf8view", false)
        .set_bool("datafusion.execution.parquet.schema_force_view_types", false)
        .set_str("datafusion.execution.parquet.compression", "snappy");
    let threads = options.threads.unwrap_or_else(|| config.target_partitions());
    let config = match options.memory_bytes {
        // What each sort keeps for its merge must leave the others something of a small limit.
        Some(bytes) => {
            let kept = config.options().execution.sort_spill_reservation_bytes;
            config.with_sort_spill_reservation_bytes(kept.min(bytes / (16 * threads.max(1))))
        }
        None => config,
    };
    let each = if options.memory_bytes.is_some() { 1 } else { PARTITIONS_PER_THREAD };
    Ok(config.with_target_partitions(threads.max(1) * each))
}

/// More partitions than threads keep all threads busy when keys are skewed. With a limit of memory there are as many as
/// threads, since each partition has an equal share of it.
const PARTITIONS_PER_THREAD: usize = 2;

pub(crate) struct Planner(pub(crate) Vec<SharedExtensionPlanner>);

impl fmt::Debug for Planner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Planner")
    }
}

#[async_trait]
impl QueryPlanner for Planner {
    async fn create_physical_plan(&self, plan: &LogicalPlan, session: &dyn Session) -> Result<Arc<dyn ExecutionPlan>> {
        let own: [SharedExtensionPlanner; 3] = [Arc::new(AsOfPlanner), Arc::new(TilePlanner), Arc::new(SinkPlanner)];
        let planners = own.into_iter().chain(self.0.iter().cloned()).collect();
        DefaultPhysicalPlanner::with_extension_planners(planners).create_physical_plan(plan, session).await
    }
}
