//! Tasks as an executor runs them: which it has now, and where an error was.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use ballista_core::JobId;
use ballista_core::client::BallistaClient;
use ballista_core::client_pool::{BallistaClientPool, PooledClient};
use ballista_core::extension::BallistaConfigGrpcEndpoint;
use ballista_core::serde::protobuf::{RuntimeStatsReport, ShuffleWritePartition, TaskColumnStats, WindowStateReport};
use ballista_core::utils::GrpcClientConfig;
use ballista_executor::execution_engine::{DefaultExecutionEngine, ExecutionEngine, QueryStageExecutor};
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::TaskContext;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::metrics::MetricsSet;
use datafusion::prelude::SessionConfig;

/// What the operating system calls a volume without space.
pub(super) const FULL: &str = "No space left on device";
/// An idle connection to another executor is kept for this long.
const IDLE: Duration = Duration::from_secs(30);

/// The tasks that an executor has under way: how many of each job.
#[derive(Debug, Clone, Default)]
pub(super) struct Tasks(Arc<Mutex<BTreeMap<String, usize>>>);

impl Tasks {
    pub(super) fn of_jobs(&self) -> BTreeMap<String, usize> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn begin(&self, job: String) -> Running {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner).entry(job.clone()).or_default() += 1;
        Running { job, tasks: self.clone() }
    }
}

/// One task under way, until it is dropped: also one that was cancelled.
struct Running {
    job: String,
    tasks: Tasks,
}

impl Drop for Running {
    fn drop(&mut self) {
        let mut jobs = self.tasks.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = jobs.get_mut(&self.job) {
            *count -= 1;
            if *count == 0 {
                jobs.remove(&self.job);
            }
        }
    }
}

/// Ballista's own engine, which says what it does and where.
pub(super) struct Engine {
    inner: DefaultExecutionEngine,
    tasks: Tasks,
    place: String,
}

impl Engine {
    /// One that counts `tasks`; errors name the `place`.
    pub(super) fn new(tasks: Tasks, place: String) -> Self {
        Self { inner: DefaultExecutionEngine::with_client_pool(Arc::new(Pool::default())), tasks, place }
    }
}

impl ExecutionEngine for Engine {
    fn create_query_stage_exec(
        &self,
        job_id: JobId,
        stage_id: usize,
        task_id: usize,
        partitions: Vec<usize>,
        plan: Arc<dyn ExecutionPlan>,
        work_dir: &str,
        config: &SessionConfig,
    ) -> Result<Arc<dyn QueryStageExecutor>> {
        let job = job_id.to_string();
        let inner =
            self.inner.create_query_stage_exec(job_id, stage_id, task_id, partitions, plan, work_dir, config)?;
        Ok(Arc::new(Task { inner, job, tasks: self.tasks.clone(), place: self.place.clone() }))
    }
}

#[derive(Debug)]
struct Task {
    inner: Arc<dyn QueryStageExecutor>,
    job: String,
    tasks: Tasks,
    place: String,
}

impl fmt::Display for Task {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt(f)
    }
}

#[async_trait]
impl QueryStageExecutor for Task {
    async fn execute_query_stage(
        &self,
        task_id: usize,
        context: Arc<TaskContext>,
    ) -> Result<Vec<ShuffleWritePartition>> {
        let _running = self.tasks.begin(self.job.clone());
        self.inner.execute_query_stage(task_id, context).await.map_err(|e| located(e, &self.place))
    }

    fn collect_plan_metrics(&self) -> Vec<MetricsSet> {
        self.inner.collect_plan_metrics()
    }

    fn collect_runtime_stats_reports(&self) -> Vec<RuntimeStatsReport> {
        self.inner.collect_runtime_stats_reports()
    }

    fn collect_window_state_reports(&self) -> Result<Vec<WindowStateReport>> {
        self.inner.collect_window_state_reports()
    }

    fn collect_column_stats(&self) -> Vec<TaskColumnStats> {
        self.inner.collect_column_stats()
    }
}

/// An error with the place where it was, and the fix if it can be known.
fn located(e: DataFusionError, place: &str) -> DataFusionError {
    let fix = if e.to_string().contains(FULL) {
        ": a volume is full there; free some of it, or give a larger one"
    } else {
        ""
    };
    e.context(format!("on {place}{fix}"))
}

/// Connections to other executors that nobody uses now.
#[derive(Default)]
struct Pool(Arc<Mutex<Vec<Idle>>>);

struct Idle {
    place: (String, u16),
    client: BallistaClient,
    since: Instant,
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Pool")
    }
}

#[async_trait]
impl BallistaClientPool for Pool {
    async fn acquire(
        &self,
        host: &str,
        port: u16,
        config: &GrpcClientConfig,
        endpoint: Option<Arc<BallistaConfigGrpcEndpoint>>,
    ) -> ballista_core::error::Result<PooledClient> {
        let place = (host.to_string(), port);
        let idle = {
            let mut idle = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            idle.retain(|i| i.since.elapsed() < IDLE);
            idle.iter().rposition(|i| i.place == place).map(|at| idle.remove(at).client)
        };
        let client = match idle {
            Some(client) => client,
            None => {
                let (bytes, tls) = (config.max_message_size, config.use_tls);
                let (tries, wait) = (config.io_retries_times, config.io_retry_wait_time_ms);
                let windows = (config.initial_connection_window_size, config.initial_stream_window_size);
                BallistaClient::try_new(host, port, bytes, tls, endpoint, tries, wait, windows.0, windows.1).await?
            }
        };
        let pool = Arc::clone(&self.0);
        let give_back = move |client| {
            let mut idle = pool.lock().unwrap_or_else(PoisonError::into_inner);
            idle.push(Idle { place, client, since: Instant::now() });
        };
        Ok(PooledClient::new(client, Box::new(give_back)))
    }

    async fn evict_idle(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).retain(|i| i.since.elapsed() < IDLE);
    }
}
