//! The two roles of a cluster: one scheduler, and executors.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use ballista_core::error::BallistaError;
use ballista_core::extension::SessionConfigExt;
use ballista_core::registry::BallistaFunctionRegistry;
use ballista_core::serde::BallistaLogicalExtensionCodec;
use ballista_executor::executor_process::{ExecutorProcessConfig, start_executor_process};
use ballista_scheduler::cluster::BallistaCluster;
use ballista_scheduler::config::{SchedulerConfig, TaskDistributionPolicy};
use ballista_scheduler::scheduler_process::start_server;
use ballista_scheduler::scheduler_server::JobIdGenerator;
use datafusion::execution::runtime_env::{RuntimeEnv, RuntimeEnvBuilder};
use datafusion::execution::session_state::{SessionState, SessionStateBuilder};
use datafusion::prelude::SessionConfig;
use featurectl_core::{Error, Result};

use super::api::versioned;
use super::engine::{Engine, Tasks};
use super::job::{MESSAGE_BYTES, PATIENCE};
use super::slots::Slots;
use super::tls::{self, Tls};
use super::{Address, ClusterCodec, Role, net};

/// An executor says this often, in seconds, that it is alive.
const HEARTBEAT: u64 = 2;
/// After this many seconds of silence it is lost.
const SILENCE: u64 = 12;
/// Files of a shuffle that no job cleaned up are removed after this many seconds.
const SHUFFLE_TTL: u64 = 24 * 3600;

/// How a scheduler runs.
#[derive(Debug, Clone)]
pub struct SchedulerOptions {
    /// The address it listens on.
    pub bind: String,
    /// The port of its gRPC service, its REST API and its metrics.
    pub port: u16,
    /// What it shows and asks others for; `None`: it takes any connection.
    pub tls: Option<Arc<Tls>>,
}

/// How an executor runs.
#[derive(Debug, Clone)]
pub struct ExecutorOptions {
    /// The scheduler; with its TLS this executor serves, too.
    pub scheduler: Address,
    /// The address it listens on.
    pub bind: String,
    /// The host that others reach it by; `None`: the address that the scheduler sees.
    pub advertise: Option<String>,
    /// The port that others fetch rows from.
    pub port: u16,
    /// The port that the scheduler sends tasks to.
    pub grpc_port: u16,
    /// Tasks at once; `None`: one a core.
    pub threads: Option<usize>,
    /// Bytes for operators of all tasks; `None`: 70 % of what the machine or its control group has.
    pub memory_bytes: Option<u64>,
    /// The folder of shuffle and spill files.
    pub work_dir: PathBuf,
    /// How long tasks may go on after SIGTERM.
    pub drain: Duration,
}

/// Runs a scheduler until the process is ended.
///
/// Errors: [`Invalid`](featurectl_core::ErrorKind::Invalid) for an address that can't be listened on.
pub async fn scheduler(options: SchedulerOptions, role: &Role) -> Result<()> {
    let address = format!("{}:{}", options.bind, options.port);
    let inner = inner(&options.bind, options.tls.as_ref())?;
    if inner.is_unspecified() {
        let bind = &options.bind;
        let message = format!("--bind {bind}: executors answer to this address: give the machine's own, private one");
        return Err(Error::invalid(message));
    }
    let listen = SocketAddr::new(inner, options.port);
    if let Some(tls) = &options.tls {
        tls.front(&options.bind, options.port).await?;
    }
    let state = role.clone();
    let config = SchedulerConfig {
        scheduler_id: versioned(&unique()),
        external_host: options.bind.clone(),
        bind_host: inner.to_string(),
        bind_port: options.port,
        task_distribution: TaskDistributionPolicy::RoundRobin,
        executor_timeout_seconds: SILENCE,
        expire_dead_executor_interval_seconds: HEARTBEAT,
        no_executors_grace_period_seconds: PATIENCE.as_secs(),
        grpc_server_max_decoding_message_size: MESSAGE_BYTES as u32,
        grpc_server_max_encoding_message_size: MESSAGE_BYTES as u32,
        grpc_client_max_message_size: MESSAGE_BYTES as u32,
        override_config_producer: Some(Arc::new(SessionConfig::new_with_ballista)),
        override_create_grpc_client_endpoint: Some(net::endpoints(options.tls)),
        override_session_builder: Some(Arc::new(move |config| Ok(session_state(config, &state)))),
        override_logical_codec: Some(Arc::new(BallistaLogicalExtensionCodec::default())),
        override_physical_codec: Some(Arc::new(ClusterCodec::new(role.aggregations.clone(), role.fetch.clone()))),
        job_id_generator: Some(Arc::new(JobIds { start: unique(), next: AtomicU64::new(1) })),
        // The page at `/` would lead to a host outside.
        web_tui_route: "/unused".into(),
        ..SchedulerConfig::default()
    };
    let cluster = BallistaCluster::new_from_config(&config).await.map_err(|e| failed(&e))?;
    let cluster = BallistaCluster::new(Arc::new(Slots::of(cluster.cluster_state())), cluster.job_state());
    start_server(cluster, listen, Arc::new(config))
        .await
        .map_err(|e| failed(&e).context(format!("listening on {address}")))
}

/// How an executor ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// It was told to.
    Told,
    /// Its scheduler was gone, or had given it up. In a new process it can serve the next one.
    Left,
}

/// Runs an executor until it is told to end; then it takes no more tasks, and ends when those under way are done.
///
/// It waits for its scheduler for as long as that takes. Once connected, it ends when some heartbeats in a row had no
/// answer: see [`Ended::Left`].
///
/// Errors: [`Invalid`](featurectl_core::ErrorKind::Invalid) for an address that can't be listened on, or a folder that
/// can't be written.
pub async fn executor(options: ExecutorOptions, role: &Role) -> Result<Ended> {
    std::fs::create_dir_all(&options.work_dir)
        .map_err(|e| Error::from(e).context(format!("--work-dir {}", options.work_dir.display())))?;
    let told = AtomicBool::new(false);
    let drain = options.drain;
    let tls = options.scheduler.tls.clone();
    let inner = inner(&options.bind, tls.as_ref())?;
    let mut options = options;
    if let Some(tls) = &tls {
        tls.front(&options.bind, options.port).await?;
        tls.front(&options.bind, options.grpc_port).await?;
        // The scheduler sees connections that come from its own machine.
        options.advertise = Some(options.advertise.map_or_else(|| toward(&options.scheduler), Ok)?);
    }
    let run = start_executor_process(Arc::new(executor_config(options, inner, role)));
    let late = async {
        terminated().await;
        told.store(true, Ordering::Relaxed);
        tokio::time::sleep(drain).await;
    };
    tokio::select! {
        done = run => match done {
            Ok(()) if told.load(Ordering::Relaxed) => Ok(Ended::Told),
            Ok(()) => Ok(Ended::Left),
            // It was gone while this one registered.
            Err(BallistaError::GrpcError(status)) if status.code() != tonic::Code::FailedPrecondition => {
                log::warn!("the scheduler does not take this executor: {}", status.message());
                Ok(Ended::Left)
            }
            Err(e) => Err(failed(&e)),
        },
        () = late => {
            log::warn!("tasks are still under way after {} s: they are given up", drain.as_secs());
            Ok(Ended::Told)
        }
    }
}

fn executor_config(options: ExecutorOptions, inner: IpAddr, role: &Role) -> ExecutorProcessConfig {
    let work_dir = options.work_dir.display().to_string();
    let state = session_state(SessionConfig::new_with_ballista(), role);
    let (spill, stores) = (work_dir.clone(), Arc::clone(&role.stores));
    let executor_id = versioned(&unique());
    let host = options.advertise.clone().unwrap_or_else(|| options.bind.clone());
    let place = format!("executor {executor_id} at {host}:{}, --work-dir {work_dir}", options.port);
    let tasks = Tasks::default();
    let endpoints = net::endpoints(options.scheduler.tls.clone());
    let fetches = Arc::clone(&endpoints);
    ExecutorProcessConfig {
        executor_id,
        bind_host: inner.to_string(),
        external_host: options.advertise,
        port: options.port,
        grpc_port: options.grpc_port,
        scheduler_host: options.scheduler.host.clone(),
        scheduler_port: options.scheduler.port,
        // Any value but 0 waits without end in Ballista 55, which is right: a scheduler may come later.
        scheduler_connect_timeout_seconds: 1,
        vcores: options.threads.unwrap_or(0),
        work_dir: Some(work_dir),
        job_data_ttl_seconds: SHUFFLE_TTL,
        job_data_clean_up_interval_seconds: 600,
        grpc_max_decoding_message_size: MESSAGE_BYTES as u32,
        grpc_max_encoding_message_size: MESSAGE_BYTES as u32,
        executor_heartbeat_interval_seconds: HEARTBEAT,
        memory_pool_size: options.memory_bytes,
        override_execution_engine: Some(Arc::new(Engine::new(tasks.clone(), place))),
        override_arrow_flight_service: Some(net::flight(tasks)),
        override_create_grpc_client_endpoint: Some(endpoints),
        override_function_registry: Some(Arc::new(BallistaFunctionRegistry::from(&state))),
        override_runtime_producer: Some(Arc::new(move |_| {
            let runtime = RuntimeEnvBuilder::new().with_object_store_registry(Arc::clone(&stores));
            Ok(Arc::new(runtime.with_temp_file_path(spill.clone()).build()?))
        })),
        override_config_producer: Some(Arc::new(move || {
            SessionConfig::new_with_ballista().with_ballista_override_create_grpc_client_endpoint(Arc::clone(&fetches))
        })),
        override_logical_codec: Some(Arc::new(BallistaLogicalExtensionCodec::default())),
        override_physical_codec: Some(Arc::new(ClusterCodec::new(role.aggregations.clone(), role.fetch.clone()))),
        ..ExecutorProcessConfig::default()
    }
}

/// The address that Ballista's own servers listen on.
fn inner(bind: &str, tls: Option<&Arc<Tls>>) -> Result<IpAddr> {
    match tls {
        Some(_) => tls::behind(bind),
        None => bind.parse().map_err(|e| Error::invalid(format!("--bind {bind}: {e}: give an IP address"))),
    }
}

/// The address of this machine by which it reaches the scheduler.
fn toward(scheduler: &Address) -> Result<String> {
    let own = || {
        let socket = UdpSocket::bind("0.0.0.0:0")?;
        socket.connect(scheduler.place())?;
        socket.local_addr()
    };
    let own = own().map_err(|e| Error::from(e).context(format!("{scheduler}: give --advertise")))?;
    Ok(own.ip().to_string())
}

/// Waits for a signal that ends a process: SIGTERM, or that of Ctrl-C.
async fn terminated() {
    use tokio::signal::unix::{SignalKind, signal};
    match (signal(SignalKind::terminate()), signal(SignalKind::interrupt())) {
        (Ok(mut term), Ok(mut interrupt)) => {
            tokio::select! { _ = term.recv() => {}, _ = interrupt.recv() => {} }
        }
        _ => std::future::pending().await,
    }
}

fn session_state(config: SessionConfig, role: &Role) -> SessionState {
    // Parquet scans ask for the store of their files as soon as they are made of bytes, in the scheduler, too.
    let runtime = RuntimeEnv { object_store_registry: Arc::clone(&role.stores), ..RuntimeEnv::default() };
    let builder = SessionStateBuilder::new().with_default_features().with_config(config);
    let mut state = builder.with_runtime_env(Arc::new(runtime)).build();
    for function in &role.scalar {
        // It replaces one of the same name, as it does in a driver.
        let _ = datafusion::execution::FunctionRegistry::register_udf(&mut state, Arc::new(function.clone()));
    }
    state
}

/// Ids that tell schedulers of one cluster apart.
struct JobIds {
    start: String,
    next: AtomicU64,
}

#[async_trait]
impl JobIdGenerator for JobIds {
    async fn next_id(&self) -> String {
        versioned(&format!("{}-{}", self.start, self.next.fetch_add(1, Ordering::Relaxed)))
    }
}

/// What no other process has.
fn unique() -> String {
    use std::hash::{BuildHasher, RandomState};
    format!("{:012x}", RandomState::new().hash_one(std::process::id()) >> 16)
}

fn failed(e: &BallistaError) -> Error {
    Error::invalid(e.to_string())
}
