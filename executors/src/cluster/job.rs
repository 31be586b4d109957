//! One plan as a job of a scheduler: submitted, watched, its rows fetched; submitted again if it was lost.
//!
//! ```text
//!          ┌─── lost: no such job, nobody works on it, a result is gone ◀┐
//!          ▼                                                             │
//!  connect, submit ──id──▶ ask for its status ──▶ where its rows are ──▶ fetch ──▶ rows
//!          ▲                 │ no answer: ask again                 │
//!          └─ no answer ─────┘  for PATIENCE                        └ failed ──▶ error
//! ```
//! A scheduler keeps its jobs in memory, so a new one knows none of them. Submitting a plan again is harmless: it names
//! nothing that a reader sees, and files of an earlier attempt are in no result.
//!
//! A result counts only if no attempt of any task of its job failed: a job is the unit of recovery. Ballista 55 by itself
//! goes on with a job whose executor was lost, but then now and then gives rows twice, without an error (in a run of
//! `tests/cluster.rs`, which kills roles, 205,623 rows instead of 202,629).

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::RecordBatch;
use ballista_core::BALLISTA_VERSION;
use ballista_core::client::BallistaClient;
use ballista_core::extension::BallistaConfigGrpcEndpoint;
use ballista_core::serde::protobuf::scheduler_grpc_client::SchedulerGrpcClient;
use ballista_core::serde::protobuf::{
    CancelJobParams, ExecuteQueryParams, GetJobStatusParams, KeyValuePair, PartitionLocation, execute_query_params,
    execute_query_result, job_status,
};
use ballista_core::version::{check_compatibility, insert_version_header, version_from_metadata};
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion_proto::physical_plan::{AsExecutionPlan, PhysicalExtensionCodec};
use datafusion_proto::protobuf::PhysicalPlanNode;
use featurectl_core::{Error, ErrorKind};
use futures::{TryStreamExt, stream};
use tokio::sync::watch;
use tonic::transport::Channel;

use super::api::FailedTask;
use super::idle::{self, Life};
use super::tls::Tls;
use super::{Address, VERSION, api, engine, net};

/// How long a driver waits for a scheduler that does not answer, or for a new one in its place.
pub(super) const PATIENCE: Duration = Duration::from_secs(120);
/// How often a job is submitted again after executors or results were lost.
const RESUBMISSIONS: u32 = 20;
/// The longest message that roles exchange, in bytes.
pub(super) const MESSAGE_BYTES: usize = 256 << 20;
/// The longest plan that is sent, in bytes; rows in memory that make it longer are the driver's own.
const PLAN_BYTES: usize = 8 << 20;
/// A result up to this size, in bytes, is fetched whole before its first row is given out, so that it can be made again
/// if a part of it is lost.
const WHOLE_BYTES: i64 = 256 << 20;
/// How long an executor may take to send the next rows of a result.
const ROWS_WITHIN: Duration = Duration::from_secs(60);
/// Between two questions for the status of a job.
const POLL: Duration = Duration::from_millis(40);

/// How far a job is.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Progress {
    /// Its id at the scheduler.
    pub job: String,
    /// Stages that are done, and all of them.
    pub stages: (usize, usize),
    /// Tasks of the stages under way that are done, and all of them.
    pub tasks: (usize, usize),
    /// Tasks that the scheduler believes to run.
    pub running: usize,
    /// Rows read from files and shuffles so far.
    pub rows: u64,
    /// Attempts of tasks that failed.
    pub failed_tasks: usize,
    /// How often the job was submitted again.
    pub resubmissions: u32,
}

/// A plan under way.
pub(super) struct Job {
    address: Address,
    plan: Arc<Vec<u8>>,
    schema: arrow::datatypes::SchemaRef,
    session: String,
    settings: Vec<KeyValuePair>,
    progress: watch::Sender<Option<Progress>>,
}

/// Why an attempt ended without a result.
enum Ended {
    /// Nobody knows of it any more.
    Lost(DataFusionError),
    /// It failed by itself.
    Failed(DataFusionError),
}

impl Job {
    /// A plan's bytes; `None` if it can't be sent, which is when it has an operator without bytes, or is too long.
    pub(super) fn encode(plan: &Arc<dyn ExecutionPlan>, codec: &dyn PhysicalExtensionCodec) -> Result<Option<Vec<u8>>> {
        let Ok(node) = PhysicalPlanNode::try_from_physical_plan(Arc::clone(plan), codec) else { return Ok(None) };
        let mut bytes = Vec::new();
        node.try_encode(&mut bytes)?;
        Ok((bytes.len() <= PLAN_BYTES).then_some(bytes))
    }

    pub(super) fn new(
        address: Address,
        plan: Arc<Vec<u8>>,
        schema: arrow::datatypes::SchemaRef,
        context: &TaskContext,
        progress: watch::Sender<Option<Progress>>,
    ) -> Self {
        // Settings decide how a plan runs; what only a driver needs, and anything that a key could be in, stays here.
        let travels = |key: &str| key.starts_with("datafusion.execution.") || key.starts_with("ballista.");
        let entries = context.session_config().options().entries().into_iter().filter(|e| travels(&e.key));
        let settings = entries.map(|e| KeyValuePair { key: e.key, value: e.value }).collect();
        Self { address, plan, schema, session: context.session_id(), settings, progress }
    }

    /// The rows of the plan.
    pub(super) async fn run(self) -> Result<SendableRecordBatchStream> {
        let mut resubmissions = 0;
        loop {
            match self.attempt(resubmissions).await {
                Ok(rows) => {
                    self.progress.send_replace(None);
                    return Ok(rows);
                }
                Err(Ended::Lost(e)) if resubmissions < RESUBMISSIONS => {
                    log::warn!("{}: {e}; the job is submitted again", self.address);
                    resubmissions += 1;
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
                Err(Ended::Lost(e) | Ended::Failed(e)) => {
                    self.progress.send_replace(None);
                    return Err(e);
                }
            }
        }
    }

    async fn attempt(&self, resubmissions: u32) -> std::result::Result<SendableRecordBatchStream, Ended> {
        let mut scheduler = self.patiently(|| self.scheduler()).await.map_err(Ended::Failed)?;
        let job = self.submit(&mut scheduler).await?;
        let mut cancel = Cancel { job: Some(job.clone()), address: self.address.clone() };
        let locations = self.watch(scheduler, &job, resubmissions).await?;
        // A job that is done need not be cancelled; one that nobody watches any more must.
        cancel.job = None;
        self.fetch(locations).await
    }

    async fn scheduler(&self) -> Result<SchedulerGrpcClient<Channel>> {
        let channel = net::connect(&self.address.place(), self.address.tls()).await;
        let channel = channel.map_err(|e| unreachable(&self.address, &e))?;
        Ok(SchedulerGrpcClient::new(channel)
            .max_encoding_message_size(MESSAGE_BYTES)
            .max_decoding_message_size(MESSAGE_BYTES))
    }

    /// Tries again for [`PATIENCE`].
    async fn patiently<T, E, F>(&self, attempt: impl Fn() -> F) -> Result<T>
    where
        E: Into<DataFusionError>,
        F: Future<Output = std::result::Result<T, E>>,
    {
        let started = Instant::now();
        loop {
            match attempt().await.map_err(Into::into) {
                Err(e) if started.elapsed() < PATIENCE => {
                    log::warn!("{e}; trying again");
                    tokio::time::sleep(Duration::from_millis(500)).await;
                }
                other => return other,
            }
        }
    }

    async fn submit(&self, scheduler: &mut SchedulerGrpcClient<Channel>) -> std::result::Result<String, Ended> {
        let mut request = tonic::Request::new(ExecuteQueryParams {
            query: Some(execute_query_params::Query::PhysicalPlan(self.plan.as_ref().clone())),
            settings: self.settings.clone(),
            session_id: self.session.clone(),
            operation_id: String::new(),
        });
        insert_version_header(request.metadata_mut());
        let response = match scheduler.execute_query(request).await {
            Ok(response) => response,
            Err(status) if is_connection(&status) => return Err(Ended::Lost(unreachable(&self.address, &status))),
            Err(status) => return Err(Ended::Failed(refused(&self.address, status.message()))),
        };
        check_compatibility(Some(BALLISTA_VERSION), version_from_metadata(response.metadata()))
            .map_err(|e| Ended::Failed(refused(&self.address, &e)))?;
        match response.into_inner().result {
            Some(execute_query_result::Result::Success(done)) => Ok(done.job_id),
            Some(execute_query_result::Result::Failure(f)) => {
                Err(Ended::Failed(refused(&self.address, &format!("{f:?}"))))
            }
            None => Err(Ended::Failed(refused(&self.address, "an empty answer"))),
        }
    }

    /// Waits until the job is done; gives the places of its rows.
    async fn watch(
        &self,
        mut scheduler: SchedulerGrpcClient<Channel>,
        job: &str,
        resubmissions: u32,
    ) -> std::result::Result<Vec<PartitionLocation>, Ended> {
        if api::version_of(job) != Some(VERSION) {
            let other = api::version_of(job).unwrap_or("another program");
            let message =
                format!("the scheduler is featurectl {other}, this is {VERSION}: install one version everywhere");
            return Err(Ended::Failed(refused(&self.address, &message)));
        }
        let (mut told, mut silent) = (Instant::now(), None::<Instant>);
        let mut moves = idle::Watch::new();
        loop {
            let status = match scheduler.get_job_status(GetJobStatusParams { job_id: job.into() }).await {
                Ok(answer) => {
                    silent = None;
                    answer.into_inner().status.and_then(|s| s.status)
                }
                Err(status) if silent.get_or_insert_with(Instant::now).elapsed() > PATIENCE => {
                    return Err(Ended::Failed(unreachable(&self.address, &status)));
                }
                Err(status) => {
                    log::warn!("{}: no status of job {job}: {}", self.address, status.message());
                    scheduler = self.patiently(|| self.scheduler()).await.map_err(Ended::Failed)?;
                    continue;
                }
            };
            match status {
                None => return Err(Ended::Lost(refused(&self.address, &format!("it has no job {job} any more")))),
                Some(job_status::Status::Queued(_) | job_status::Status::Running(_)) => {
                    if told.elapsed() >= Duration::from_secs(1) {
                        told = Instant::now();
                        if let Ok((progress, failed)) = api::progress(&self.address, job).await {
                            self.progress.send_replace(Some(Progress { resubmissions, ..progress.clone() }));
                            if let Some(task) = failed.iter().find(|f| !f.by_itself) {
                                return Err(disturbed(job, task));
                            }
                            match moves.look(&self.address, progress).await {
                                Ok(Life::Idle) => return Err(Ended::Lost(abandoned(job))),
                                Ok(Life::Alone(since)) if since > PATIENCE => {
                                    return Err(Ended::Failed(alone(&self.address)));
                                }
                                _ => {}
                            }
                        }
                    }
                    tokio::time::sleep(POLL).await;
                }
                Some(job_status::Status::Failed(failed)) => {
                    let error = failure(job, &failed.error);
                    return Err(if lost(&failed.error) { Ended::Lost(error) } else { Ended::Failed(error) });
                }
                Some(job_status::Status::Successful(done)) => {
                    let (_, failed) =
                        self.patiently(|| api::progress(&self.address, job)).await.map_err(Ended::Lost)?;
                    return match failed.first() {
                        Some(task) => Err(disturbed(job, task)),
                        None => Ok(done.partition_location),
                    };
                }
            }
        }
    }

    async fn fetch(&self, locations: Vec<PartitionLocation>) -> std::result::Result<SendableRecordBatchStream, Ended> {
        let bytes: i64 = locations.iter().filter_map(|l| Some(l.partition_stats.as_ref()?.num_bytes)).sum();
        let mut clients = HashMap::new();
        if bytes > WHOLE_BYTES {
            let parts = (locations.into_iter(), None::<SendableRecordBatchStream>, self.address.tls.clone());
            let rows = stream::try_unfold(parts, |(mut left, mut part, tls)| async move {
                loop {
                    if let Some(rows) = &mut part
                        && let Some(batch) = within(rows.try_next()).await?
                    {
                        return Ok(Some((batch, (left, part, tls))));
                    }
                    let Some(location) = left.next() else { return Ok(None) };
                    part = Some(within(fetch_partition(&mut HashMap::new(), location, tls.clone())).await?);
                }
            });
            return Ok(Box::pin(RecordBatchStreamAdapter::new(Arc::clone(&self.schema), rows)));
        }
        let mut rows: Vec<RecordBatch> = Vec::new();
        for location in locations {
            let mut part =
                within(fetch_partition(&mut clients, location, self.address.tls.clone())).await.map_err(Ended::Lost)?;
            while let Some(batch) = within(part.try_next()).await.map_err(Ended::Lost)? {
                rows.push(batch);
            }
        }
        let rows = stream::iter(rows.into_iter().map(Ok));
        Ok(Box::pin(RecordBatchStreamAdapter::new(Arc::clone(&self.schema), rows)))
    }
}

/// What an executor answers, if it does so in time: one behind a cut line would never.
async fn within<T>(answer: impl Future<Output = Result<T>>) -> Result<T> {
    let late =
        || Error::new(ErrorKind::Unavailable, format!("an executor gave no rows for {} s", ROWS_WITHIN.as_secs()));
    tokio::time::timeout(ROWS_WITHIN, answer).await.map_err(|_| DataFusionError::from(late()))?
}

async fn fetch_partition(
    clients: &mut HashMap<(String, u32), BallistaClient>,
    location: PartitionLocation,
    tls: Option<Arc<Tls>>,
) -> Result<SendableRecordBatchStream> {
    let layout = location.layout();
    let (Some(executor), Some(partition)) = (location.executor_meta, location.partition_id) else {
        return Err(Error::internal("a part of a result without a place").into());
    };
    let (host, port) = (executor.host.as_str(), executor.port as u16);
    let place = (executor.host.clone(), executor.port);
    let external = |e: ballista_core::error::BallistaError| e.into_datafusion();
    if !clients.contains_key(&place) {
        let endpoints = Arc::new(BallistaConfigGrpcEndpoint::new(net::endpoints(tls)));
        let client = BallistaClient::try_new(host, port, MESSAGE_BYTES, false, Some(endpoints), 2, 500, 0, 0)
            .await
            .map_err(external)?;
        clients.insert(place.clone(), client);
    }
    let Some(client) = clients.get_mut(&place) else { return Err(Error::internal("a client is gone").into()) };
    let id = partition.into();
    client
        .fetch_partition_proxied(&executor.id, &id, location.file_id, layout, host, port, true)
        .await
        .map_err(external)
}

/// Cancels a job whose rows nobody waits for any more.
struct Cancel {
    job: Option<String>,
    address: Address,
}

impl Drop for Cancel {
    fn drop(&mut self) {
        let (Some(job), Ok(runtime)) = (self.job.take(), tokio::runtime::Handle::try_current()) else { return };
        let address = self.address.clone();
        runtime.spawn(async move {
            let channel = net::connect(&address.place(), address.tls()).await.ok()?;
            SchedulerGrpcClient::new(channel).cancel_job(CancelJobParams { job_id: job }).await.ok()
        });
    }
}

fn is_connection(status: &tonic::Status) -> bool {
    matches!(status.code(), tonic::Code::Unavailable | tonic::Code::Cancelled | tonic::Code::DeadlineExceeded)
        || std::error::Error::source(status).is_some()
}

/// Whether a job failed by the loss of executors or of what they held, rather than by itself.
fn lost(error: &str) -> bool {
    const SIGNS: [&str; 8] = [
        "ExecutorLost",
        "FetchPartitionError",
        "FetchFailed",
        "no alive executors",
        "No executors",
        "all executors",
        "GrpcConnectionError",
        "transport error",
    ];
    SIGNS.iter().any(|sign| error.contains(sign))
}

/// Why an attempt of a task that did not succeed ends the attempt of its job. On a full volume it would fail again.
fn disturbed(job: &str, task: &FailedTask) -> Ended {
    let error = &task.error;
    if task.error.contains(engine::FULL) {
        return Ended::Failed(failure(job, error));
    }
    let message = format!("tasks of job {job} were lost or failed on the way: {error}");
    Ended::Lost(Error::new(ErrorKind::Unavailable, message).into())
}

fn abandoned(job: &str) -> DataFusionError {
    Error::new(ErrorKind::Unavailable, format!("no executor works on job {job}, which is not done")).into()
}

fn alone(address: &Address) -> DataFusionError {
    let message = format!(
        "the cluster {address} has had no executor for {} s: start one with featurectl cluster executor",
        PATIENCE.as_secs()
    );
    Error::new(ErrorKind::Unavailable, message).into()
}

fn failure(job: &str, error: &str) -> DataFusionError {
    Error::data(format!("job {job} of the cluster failed: {error}")).into()
}

fn refused(address: &Address, message: &str) -> DataFusionError {
    Error::invalid(format!("the scheduler {address}: {message}")).into()
}

fn unreachable(address: &Address, e: &dyn std::error::Error) -> DataFusionError {
    let cause = net::cause(e);
    Error::new(ErrorKind::Unavailable, format!("the scheduler {address} does not answer: {cause}")).into()
}
