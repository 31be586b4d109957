//! How roles reach each other: time limits on every connection, and what an executor says of its tasks.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::future::{Ready, ready};
use std::net::SocketAddr;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use arrow_flight::flight_service_server::FlightServiceServer;
use ballista_core::error::BallistaError;
use ballista_core::extension::EndpointOverrideFn;
use ballista_core::utils::{GrpcServerConfig, create_grpc_server};
use ballista_executor::ArrowFlightServerProvider;
use ballista_executor::flight_service::BallistaFlightService;
use ballista_executor::shutdown::Shutdown;
use featurectl_core::{Error, ErrorKind, Result};
use http_body_util::{BodyExt, Full};
use tonic::body::Body;
use tonic::codegen::{Service, http};
use tonic::server::NamedService;
use tonic::transport::Endpoint;

use super::engine::Tasks;
use super::job::MESSAGE_BYTES;

/// How long a machine may take to accept a connection.
const CONNECT: Duration = Duration::from_secs(5);
/// How long a role may take to begin an answer.
const ANSWER: Duration = Duration::from_secs(30);
/// Of a connection that gave nothing for this long it is asked whether the other end is still there…
const SILENCE: Duration = Duration::from_secs(10);
/// … and without an answer for this long, it is not.
const GONE: Duration = Duration::from_secs(20);
/// What an executor says of its tasks, on the port of its shuffle files.
const TASKS: &str = "/featurectl/tasks";

/// An endpoint with limits. Ballista's own have none where rows are fetched and where states of tasks are told: behind a
/// cut line they would wait for ever.
pub(super) fn limited(endpoint: Endpoint) -> Endpoint {
    endpoint
        .connect_timeout(CONNECT)
        .timeout(ANSWER)
        .tcp_nodelay(true)
        .tcp_keepalive(Some(SILENCE))
        .http2_keep_alive_interval(SILENCE)
        .keep_alive_timeout(GONE)
        .keep_alive_while_idle(true)
}

/// The same for Ballista's own connections.
pub(super) fn endpoints() -> EndpointOverrideFn {
    Arc::new(|endpoint| Ok(limited(endpoint)))
}

/// An endpoint of a role at `http://HOST:PORT`.
pub(super) fn endpoint(url: &str) -> Result<Endpoint> {
    Endpoint::from_shared(url.to_string()).map(limited).map_err(|e| Error::invalid(format!("{url}: {e}")))
}

/// The service of an executor that gives shuffle files and results, and says which tasks it has.
pub(super) fn flight(tasks: Tasks) -> Arc<ArrowFlightServerProvider> {
    Arc::new(move |work_dir: String, address: SocketAddr, mut shutdown: Shutdown, config: GrpcServerConfig| {
        let files = FlightServiceServer::new(BallistaFlightService::new(work_dir))
            .max_decoding_message_size(MESSAGE_BYTES)
            .max_encoding_message_size(MESSAGE_BYTES);
        let tasks = TaskService(tasks.clone());
        tokio::spawn(async move {
            let server = create_grpc_server(&config).add_service(files).add_service(tasks);
            server.serve_with_shutdown(address, shutdown.recv()).await.map_err(BallistaError::from)
        })
    })
}

/// Tells the number of tasks of each job, as JSON.
#[derive(Clone)]
struct TaskService(Tasks);

impl NamedService for TaskService {
    const NAME: &'static str = "featurectl";
}

impl Service<http::Request<Body>> for TaskService {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Ready<std::result::Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<std::result::Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: http::Request<Body>) -> Self::Future {
        let jobs = serde_json::to_vec(&self.0.of_jobs()).unwrap_or_default();
        ready(Ok(http::Response::new(Body::new(Full::new(bytes::Bytes::from(jobs))))))
    }
}

/// The tasks that the executor at `host:port` has under way: how many of each job.
///
/// Errors: [`Unavailable`](ErrorKind::Unavailable) if it doesn't say.
pub(super) async fn tasks_at(place: &str) -> Result<BTreeMap<String, usize>> {
    let silent = |e: &dyn std::error::Error| {
        Error::new(ErrorKind::Unavailable, format!("executor {place} does not answer: {}", super::api::cause(e)))
    };
    let answer = async {
        let mut channel = endpoint(&format!("http://{place}"))?.connect().await.map_err(|e| silent(&e))?;
        std::future::poll_fn(|c| channel.poll_ready(c)).await.map_err(|e| silent(&e))?;
        let request = http::Request::get(TASKS).body(Body::empty()).map_err(|e| silent(&e))?;
        let answer = channel.call(request).await.map_err(|e| silent(&e))?;
        let body = answer.into_body().collect().await.map_err(|e| silent(&e))?.to_bytes();
        serde_json::from_slice(&body).map_err(|e| silent(&e))
    };
    tokio::time::timeout(CONNECT, answer).await.map_err(|e| silent(&e))?
}
