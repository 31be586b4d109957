//! The engine on a Ballista cluster: the same plans, cut into stages whose tasks run on executors.
//!
//! ```text
//!  driver (run --cluster)          scheduler                    executors
//!  SQL ─▶ physical plan ──bytes──▶ stages, tasks ──bytes──▶ ┌ scan, shuffle, AsOf…, Sink ┐
//!        ▲ codec.rs                                         └──── files of the result ───┘
//!        └──── rows of a query, or the names of written files ◀──────────┘
//! ```
//! The driver plans, with everything that it knows; a scheduler only cuts the plan where rows are exchanged. (Ballista's
//! own way, to send the logical plan, would need every table and statement on the scheduler.) So all roles need the same
//! codec and functions: [`Role`]. A plan with a leaf that can't be cut into tasks, such as the scan of a stream, runs in
//! the driver, as it would without a cluster.
//!
//! | file | |
//! |---|---|
//! | `codec.rs` | operators and functions as bytes |
//! | `models.rs` | models by path, each loaded once a process |
//! | `remote.rs` | a plan as one operator that runs elsewhere |
//! | `job.rs` | one job: submitted, watched, fetched, submitted again |
//! | `idle.rs` | whether anybody works on a job |
//! | `shape.rs` | what a plan must look like to be cut |
//! | `roles.rs` | scheduler and executor |
//! | `slots.rs` | how many more tasks an executor can take |
//! | `engine.rs` | what an executor does: its tasks, where an error was |
//! | `net.rs` | time limits of connections; what an executor says of itself |
//! | `tls.rs` | certificates, and what decrypts before Ballista |
//! | `api.rs` | what a scheduler says of itself over HTTP |

mod api;
mod codec;
mod engine;
mod idle;
mod job;
mod models;
mod net;
mod remote;
mod roles;
mod shape;
mod slots;
mod tls;

use std::fmt;
use std::sync::Arc;

use ballista_core::extension::SessionConfigExt;
use datafusion::logical_expr::ScalarUDF;
use datafusion::prelude::SessionContext;
use featurectl_core::aggregate::Functions;
use featurectl_core::asof::FeatureRelations;
use featurectl_core::{Error, Result};

use crate::local::{LocalOptions, SharedExtensionPlanner, Stores, config, local_with};
use crate::score::Fetch;

pub use api::{ExecutorStatus, JobStatus, Status};
pub use codec::ClusterCodec;
pub use job::Progress;
pub use roles::{Ended, ExecutorOptions, SchedulerOptions, executor, scheduler};
pub use tls::Tls;

/// Version of this program: all roles of a cluster have the same.
const VERSION: &str = env!("CARGO_PKG_VERSION");

/// What every process of a cluster must know beside the plans that reach it: a user's own functions and aggregations, and
/// how it reaches the files that plans name.
#[derive(Debug, Clone)]
pub struct Role {
    /// Scalar functions.
    pub scalar: Vec<ScalarUDF>,
    /// Aggregations of feature views.
    pub aggregations: Functions,
    /// Where files are.
    pub stores: Stores,
    /// How models in buckets are read.
    pub fetch: Fetch,
}

/// The address of a scheduler.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    host: String,
    port: u16,
    tls: Option<Arc<Tls>>,
}

impl Address {
    /// Reads `df://HOST:PORT`; the port is 50050 if it is not given.
    ///
    /// Errors: [`Invalid`](featurectl_core::ErrorKind::Invalid) for anything else.
    pub fn parse(text: &str) -> Result<Self> {
        let wrong = || Error::invalid(format!("`{text}` is no address of a cluster: write df://HOST:50050"));
        let rest = text.strip_prefix("df://").ok_or_else(wrong)?.trim_end_matches('/');
        let (host, port) = match rest.rsplit_once(':') {
            Some((host, port)) => (host, port.parse().map_err(|_| wrong())?),
            None => (rest, 50050),
        };
        if host.is_empty() || host.contains(['/', '@', ' ']) {
            return Err(wrong());
        }
        Ok(Self { host: host.into(), port, tls: None })
    }

    /// The same, reached with TLS if it is given.
    pub fn with_tls(self, tls: Option<Arc<Tls>>) -> Self {
        Self { tls, ..self }
    }

    fn tls(&self) -> Option<&Tls> {
        self.tls.as_deref()
    }

    fn place(&self) -> String {
        format!("{}:{}", self.host, self.port)
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "df://{}:{}", self.host, self.port)
    }
}

/// A session whose plans run on the cluster at `address`, of which `status` is known.
///
/// Errors: [`Invalid`](featurectl_core::ErrorKind::Invalid) for options that DataFusion refuses.
pub fn session(
    address: &Address,
    status: &Status,
    options: &LocalOptions,
    stores: Stores,
    relations: Arc<FeatureRelations>,
    planners: Vec<SharedExtensionPlanner>,
    progress: tokio::sync::watch::Sender<Option<Progress>>,
) -> Result<SessionContext> {
    let slots = status.executors.iter().map(|e| e.slots).sum::<usize>().max(1);
    // What the driver itself does, such as reading an offline table, takes as many parts as the cluster has.
    let options = LocalOptions { threads: Some(slots), memory_bytes: options.memory_bytes };
    // Filters that are filled in while a plan runs would wait for ever in another process; strings and joins as the
    // shuffle can take them.
    let config = config(&options)?.upgrade_for_ballista();
    let config = config
        .with_ballista_grpc_client_max_message_size(job::MESSAGE_BYTES)
        .set_bool("datafusion.optimizer.enable_join_dynamic_filter_pushdown", false)
        .set_bool("datafusion.optimizer.enable_topk_dynamic_filter_pushdown", false)
        .set_bool("datafusion.optimizer.enable_aggregate_dynamic_filter_pushdown", false);
    let remote = remote::RemotePlanner::new(address.clone(), planners, progress);
    local_with(config, &options, stores, relations, Arc::new(remote))
}

impl Address {
    /// What runs there: executors, and jobs of late.
    ///
    /// Errors: [`Unavailable`](featurectl_core::ErrorKind::Unavailable) if nothing answers,
    /// [`Invalid`](featurectl_core::ErrorKind::Invalid) if it is no featurectl scheduler.
    pub async fn status(&self) -> Result<Status> {
        api::status(self).await
    }

    /// Like [`status`](Self::status), for a cluster that a job can run on.
    ///
    /// Errors: beside those, [`Invalid`](featurectl_core::ErrorKind::Invalid) if it has no executor, or one of another
    /// version.
    pub async fn connect(&self) -> Result<Status> {
        let status = self.status().await?;
        let other = |id: &str, version: &str| {
            Error::invalid(format!(
                "{id} of {self} is featurectl {version}, this is featurectl {VERSION}: install one version for all roles"
            ))
        };
        if status.version != VERSION {
            return Err(other("the scheduler", &status.version));
        }
        if let Some(executor) = status.executors.iter().find(|e| e.version != VERSION) {
            return Err(other(&format!("executor {}", executor.id), &executor.version));
        }
        if status.executors.is_empty() {
            return Err(Error::invalid(format!(
                "the cluster {self} has no executor yet: featurectl cluster executor --scheduler {}:{}",
                self.host, self.port
            )));
        }
        Ok(status)
    }
}
