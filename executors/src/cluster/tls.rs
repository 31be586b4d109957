//! TLS between roles, from files: each shows that it belongs to the cluster, and asks the other to.
//!
//! Ballista 55 can be told how to connect, but its servers of tasks (an executor's `--grpc-port`) and of the scheduler
//! take no certificate. So with TLS all servers listen on a loopback address, and what comes to the real one is
//! decrypted here:
//!
//! ```text
//!  other machine ──TLS──▶ 10.0.0.5:50050 (here) ──▶ 127.0.0.2:50050 (Ballista)
//! ```

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use featurectl_core::{Error, Result};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::crypto::ring::default_provider;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio_rustls::{TlsAcceptor, TlsConnector};
use tonic::transport::{Certificate, ClientTlsConfig, Endpoint, Identity};

/// The name that every certificate of a cluster is for. Machines come and go, so their own names say nothing; whom the
/// cluster's authority signed for this name is of the cluster.
const NAME: &str = "featurectl";
/// How long the other end may take to show who it is.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// What a role shows, and what it asks others for.
#[derive(Clone)]
pub struct Tls {
    files: [PathBuf; 3],
    client: ClientTlsConfig,
    connector: TlsConnector,
    server: Arc<ServerConfig>,
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Tls({:?})", self.files)
    }
}

impl PartialEq for Tls {
    fn eq(&self, other: &Self) -> bool {
        self.files == other.files
    }
}

impl Eq for Tls {}

impl Tls {
    /// Reads PEM files: the certificates of the authorities that sign for the cluster, this role's own certificate, and
    /// its key.
    ///
    /// Errors: [`NotFound`](featurectl_core::ErrorKind::NotFound) for a file that is not there,
    /// [`Invalid`](featurectl_core::ErrorKind::Invalid) for one that has not what it should, or a key of another
    /// certificate.
    pub fn read(ca: &Path, cert: &Path, key: &Path) -> Result<Self> {
        let bytes = |file: &Path| std::fs::read(file).map_err(|e| Error::from(e).context(file.display().to_string()));
        let (ca_pem, cert_pem, key_pem) = (bytes(ca)?, bytes(cert)?, bytes(key)?);
        let wrong = |file: &Path, e: &dyn fmt::Display| Error::invalid(format!("{}: {e}", file.display()));
        let mut authorities = RootCertStore::empty();
        for authority in certificates(&ca_pem).map_err(|e| wrong(ca, &e))? {
            authorities.add(authority).map_err(|e| wrong(ca, &e))?;
        }
        let own = certificates(&cert_pem).map_err(|e| wrong(cert, &e))?;
        let own_key = PrivateKeyDer::from_pem_slice(&key_pem).map_err(|e| wrong(key, &format!("no key: {e}")))?;
        let provider = Arc::new(default_provider());
        let authorities = Arc::new(authorities);
        let connector =
            ClientConfig::builder_with_provider(Arc::clone(&provider)).with_safe_default_protocol_versions();
        let connector = connector.map_err(|e| Error::internal(e.to_string()))?;
        let connector = connector.with_root_certificates(Arc::clone(&authorities));
        let mut connector =
            connector.with_client_auth_cert(own.clone(), own_key.clone_key()).map_err(|e| wrong(key, &e))?;
        connector.alpn_protocols = vec![b"h2".to_vec()];
        let asks = WebPkiClientVerifier::builder_with_provider(authorities, Arc::clone(&provider));
        let asks = asks.build().map_err(|e| wrong(ca, &e))?;
        let server = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let server = server.map_err(|e| Error::internal(e.to_string()))?.with_client_cert_verifier(asks);
        let mut server = server.with_single_cert(own, own_key).map_err(|e| wrong(key, &e))?;
        server.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        let client = ClientTlsConfig::new()
            .domain_name(NAME)
            .ca_certificate(Certificate::from_pem(&ca_pem))
            .identity(Identity::from_pem(&cert_pem, &key_pem));
        let files = [ca, cert, key].map(Path::to_path_buf);
        Ok(Self { files, client, connector: Arc::new(connector).into(), server: Arc::new(server) })
    }

    /// The endpoint, with TLS.
    pub(super) fn connect(&self, endpoint: &Endpoint) -> std::result::Result<Endpoint, tonic::transport::Error> {
        let uri = endpoint.uri().to_string().replacen("http://", "https://", 1);
        Endpoint::from_shared(uri)?.tls_config(self.client.clone())
    }

    /// The connection, encrypted.
    pub(super) async fn handshake(&self, stream: TcpStream) -> std::io::Result<TlsStream<TcpStream>> {
        self.connector.connect(ServerName::try_from(NAME).map_err(std::io::Error::other)?, stream).await
    }

    /// Listens on `bind:port`. What comes there is decrypted and goes to the same port of [`behind`], for as long as
    /// this process lives.
    pub(super) async fn front(&self, bind: &str, port: u16) -> Result<()> {
        let wrong = |e: &dyn fmt::Display| Error::invalid(format!("listening on {bind}:{port}: {e}"));
        let plain: SocketAddr = format!("{}:{port}", behind(bind)?).parse().map_err(|e| wrong(&e))?;
        let listener = TcpListener::bind((bind, port)).await.map_err(|e| wrong(&e))?;
        let acceptor = TlsAcceptor::from(Arc::clone(&self.server));
        tokio::spawn(async move {
            loop {
                match listener.accept().await {
                    Ok((encrypted, from)) => {
                        let done = forward(acceptor.clone(), encrypted, plain);
                        tokio::spawn(async move {
                            if let Err(e) = done.await {
                                log::info!("connection from {from}: {e}");
                            }
                        });
                    }
                    // Of a connection that is gone already, or for want of file handles.
                    Err(e) => {
                        log::warn!("{plain}: {e}");
                        tokio::time::sleep(Duration::from_millis(100)).await;
                    }
                }
            }
        });
        Ok(())
    }
}

/// The loopback address that a role's plain servers listen on, behind TLS on `bind`.
///
/// Errors: [`Invalid`](featurectl_core::ErrorKind::Invalid) if `bind` is no address, or all of them.
pub(super) fn behind(bind: &str) -> Result<IpAddr> {
    let bind: IpAddr = bind.parse().map_err(|e| Error::invalid(format!("--bind {bind}: {e}: give an IP address")))?;
    if bind.is_unspecified() {
        return Err(Error::invalid(format!("--bind {bind}: with TLS, give one address of this machine")));
    }
    let usual = Ipv4Addr::new(127, 0, 0, 2);
    Ok(if bind == usual { Ipv4Addr::new(127, 0, 0, 3) } else { usual }.into())
}

fn certificates(pem: &[u8]) -> std::result::Result<Vec<CertificateDer<'static>>, String> {
    let all: std::result::Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let all = all.map_err(|e| e.to_string())?;
    if all.is_empty() { Err("there is no certificate in it".into()) } else { Ok(all) }
}

async fn forward(acceptor: TlsAcceptor, encrypted: TcpStream, plain: SocketAddr) -> std::io::Result<()> {
    encrypted.set_nodelay(true)?;
    let mut outside = tokio::time::timeout(HANDSHAKE, acceptor.accept(encrypted)).await??;
    let mut inside = TcpStream::connect(plain).await?;
    inside.set_nodelay(true)?;
    tokio::io::copy_bidirectional(&mut outside, &mut inside).await.map(|_| ())
}
