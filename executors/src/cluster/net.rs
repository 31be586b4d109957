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
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tonic::body::Body;
use tonic::codegen::{Service, http};
use tonic::server::NamedService;
use tonic::transport::{Channel, Endpoint};

use super::engine::Tasks;
use super::job::MESSAGE_BYTES;
use super::tls::Tls;

/// How long a machine may take to accept a connection.
const CONNECT: Duration = Duration::from_secs(5);
/// How long a role may take to begin an answer.
const ANSWER: Duration = Duration::from_secs(30);
/// Of a connection that gave nothing for this long it is asked whether the other end is still there…
const SILENCE: Duration = Duration::from_secs(10);
/// … and without an answer for this long, it is not.
const GONE: Duration = Duration::from_secs(20);
/// How long an answer over HTTP may take in all.
const GET: Duration = Duration::from_secs(10);
/// How long a role may take to refuse a certificate that it has.
const REFUSAL: Duration = Duration::from_millis(500);
/// The type of the frame that an end of HTTP/2 begins with.
const SETTINGS: u8 = 4;
/// What is to be done when two ends do not understand each other.
pub(super) const TLS_FIX: &str =
    "the roles of a cluster need certificates of one authority, or none of them any: --tls-ca, --tls-cert, --tls-key";
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

/// The same for Ballista's own connections, with TLS if roles have it.
pub(super) fn endpoints(tls: Option<Arc<Tls>>) -> EndpointOverrideFn {
    Arc::new(move |endpoint| {
        let endpoint = tls.as_ref().map_or(Ok(endpoint.clone()), |tls| tls.connect(&endpoint))?;
        Ok(limited(endpoint))
    })
}

/// A connection to the role at `place`, which is HOST:PORT.
///
/// Errors: [`Unavailable`](ErrorKind::Unavailable) if nothing accepts it, or not with this certificate.
pub(super) async fn connect(place: &str, tls: Option<&Tls>) -> Result<Channel> {
    let wrong = |e: tonic::transport::Error| Error::invalid(format!("{place}: {}", cause(&e)));
    let endpoint = Endpoint::from_shared(format!("http://{place}")).map_err(wrong)?;
    let endpoint = tls.map_or(Ok(endpoint.clone()), |tls| tls.connect(&endpoint)).map_err(wrong)?;
    limited(endpoint).connect().await.map_err(|e| silent(&e))
}

/// The status and the body of what is at a path of a role.
///
/// Errors: as [`connect`].
pub(super) async fn get(place: &str, tls: Option<&Tls>, path: &str) -> Result<(u16, bytes::Bytes)> {
    let answer = async {
        let mut channel = connect(place, tls).await?;
        std::future::poll_fn(|c| channel.poll_ready(c)).await.map_err(|e| silent(&e))?;
        let request = http::Request::get(path).body(Body::empty()).map_err(|e| silent(&e))?;
        let answer = channel.call(request).await.map_err(|e| silent(&e))?;
        let status = answer.status().as_u16();
        Ok((status, answer.into_body().collect().await.map_err(|e| silent(&e))?.to_bytes()))
    };
    tokio::time::timeout(GET, answer).await.map_err(|e| silent(&e))?
}

/// Why no request can be made of what listens at `place`, HOST:PORT, although it accepts connections: it does not speak
/// HTTP/2, or one of the two ends refuses the certificate of the other. `None` if it is not that.
///
/// The error of a request says it only sometimes: a connection may be closed before the request is sent, and then that is
/// all there is to know.
pub(super) async fn misfit(place: &str, tls: Option<&Tls>) -> Option<String> {
    let first = async {
        let stream = TcpStream::connect(place).await?;
        match tls {
            Some(tls) => first_frame(tls.handshake(stream).await?).await,
            None => first_frame(stream).await,
        }
    };
    match tokio::time::timeout(CONNECT, first).await.ok()? {
        Ok(SETTINGS) => None,
        Ok(_) => Some(TLS_FIX.into()),
        Err(e) if e.kind() == std::io::ErrorKind::InvalidData => Some(format!("{e}: {TLS_FIX}")),
        Err(_) => None,
    }
}

/// The type of the first frame that the other end sends (RFC 9113, §3.4 and §4.1).
async fn first_frame(mut stream: impl AsyncRead + AsyncWrite + Unpin) -> std::io::Result<u8> {
    let mut frame = [0; 4];
    // What refuses a certificate says so at once. It is heard first: the word is lost if the other end closes with bytes
    // of ours that it did not read.
    let early = tokio::time::timeout(REFUSAL, stream.read_exact(&mut frame)).await;
    if let Ok(read) = early {
        return read.map(|_| frame[3]);
    }
    stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await?;
    stream.read_exact(&mut frame).await.map(|_| frame[3])
}

/// What an error comes down to: the innermost of its sources.
pub(super) fn cause(e: &dyn std::error::Error) -> String {
    let cause = std::iter::successors(Some(e), |e| e.source()).last().map_or(String::new(), ToString::to_string);
    // What TLS says to the other end, what HTTP/2 reads in it, and what TLS reads in anything else.
    let signs = ["alert", "certificate", "frame with invalid size", "corrupt message"];
    if signs.iter().any(|s| cause.contains(s)) { format!("{cause}: {TLS_FIX}") } else { cause }
}

fn silent(e: &dyn std::error::Error) -> Error {
    Error::new(ErrorKind::Unavailable, cause(e))
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

/// The tasks that the executor at `place`, HOST:PORT, has under way: how many of each job.
///
/// Errors: [`Unavailable`](ErrorKind::Unavailable) if it doesn't say.
pub(super) async fn tasks_at(place: &str, tls: Option<&Tls>) -> Result<BTreeMap<String, usize>> {
    let (_, body) = get(place, tls, TASKS).await?;
    serde_json::from_slice(&body).map_err(|e| silent(&e))
}
