//! The real way to an ACME server: hyper over rustls. It never follows a redirect and never speaks plain HTTP. Made by
//! `app`, used through `Transport`.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http_body_util::Limited;
use hyper_rustls::{ConfigBuilderExt, HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::connect::dns::Name;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use instant_acme::{BodyWrapper, BytesResponse, Error, HttpClient};
use proto::clock::{Clock, TlsTime};
use proto::x509;
use rustls::crypto::aws_lc_rs;
use rustls::{ClientConfig, RootCertStore};
use tower::Service;

use crate::acme::http::{BODY_BYTES_MAX, NameLookupError, Transport, TrustRoots};
use crate::acme::problem::AcmeError;

/// Longest time for one TCP connection (reliability.md T8).
const CONNECT_TIME_MAX: Duration = Duration::from_secs(10);
/// How long an unused connection is kept: longer than the steps of one order, shorter than common servers' 60 s.
const IDLE_TIME_MAX: Duration = Duration::from_secs(45);
/// How often a busy HTTP/2 connection is asked for a sign of life, and how long it may take: a dead one must not take
/// the next order with it.
const ALIVE_EVERY: Duration = Duration::from_secs(15);
const ALIVE_TIME_MAX: Duration = Duration::from_secs(10);
/// Largest header block of an answer; an ACME answer needs under 2 kB.
const HEADER_BYTES_MAX: u32 = 16 * 1024;

/// Reaches ACME servers over the network.
#[derive(Debug)]
pub struct HyperTransport {
    clock: Arc<dyn Clock>,
}

impl HyperTransport {
    /// Makes the transport; `clock` decides whether a server's certificate has expired.
    #[must_use]
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self { clock }
    }

    fn tls(&self, roots: &TrustRoots) -> Result<ClientConfig, AcmeError> {
        let builder = ClientConfig::builder_with_details(
            Arc::new(aws_lc_rs::default_provider()),
            Arc::new(TlsTime(Arc::clone(&self.clock))),
        )
        .with_safe_default_protocol_versions()
        .map_err(|source| AcmeError::Roots { source: source.into() })?;
        let builder = match roots {
            TrustRoots::System => builder.try_with_platform_verifier(),
            TrustRoots::Pem(pem) => Ok(builder.with_root_certificates(root_store(pem)?)),
        };
        Ok(builder.map_err(|source| AcmeError::Roots { source: source.into() })?.with_no_client_auth())
    }
}

fn root_store(pem: &str) -> Result<RootCertStore, AcmeError> {
    let certificates =
        x509::parse_certificates(pem.as_bytes()).map_err(|source| AcmeError::Roots { source: source.into() })?;
    let mut store = RootCertStore::empty();
    for certificate in certificates {
        store.add(certificate).map_err(|source| AcmeError::Roots { source: source.into() })?;
    }
    Ok(store)
}

impl Transport for HyperTransport {
    fn client(&self, roots: &TrustRoots) -> Result<Box<dyn HttpClient>, AcmeError> {
        let mut tcp = HttpConnector::new_with_resolver(SystemNames);
        tcp.enforce_http(false);
        tcp.set_nodelay(true); // without it every request waits 40 ms for a delayed ACK (crates.md §3)
        tcp.set_connect_timeout(Some(CONNECT_TIME_MAX));
        let https = HttpsConnectorBuilder::new()
            .with_tls_config(self.tls(roots)?)
            .https_only()
            .enable_http1()
            .enable_http2()
            .wrap_connector(tcp);
        let client = Client::builder(TokioExecutor::new())
            .timer(TokioTimer::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE_TIME_MAX)
            .http2_keep_alive_interval(ALIVE_EVERY)
            .http2_keep_alive_timeout(ALIVE_TIME_MAX)
            .http2_max_header_list_size(HEADER_BYTES_MAX)
            .build(https);
        Ok(Box::new(Hyper(client)))
    }
}

struct Hyper(Client<HttpsConnector<HttpConnector<SystemNames>>, BodyWrapper<Bytes>>);

impl HttpClient for Hyper {
    fn request(
        &self,
        request: Request<BodyWrapper<Bytes>>,
    ) -> Pin<Box<dyn Future<Output = Result<BytesResponse, Error>> + Send>> {
        let pending = self.0.request(request);
        Box::pin(async move {
            let response = pending.await.map_err(|error| Error::Other(error.into()))?;
            Ok(BytesResponse::from(response.map(|body| Limited::new(body, BODY_BYTES_MAX))))
        })
    }
}

/// The system's resolver, with errors that can be told from a refused connection.
#[derive(Clone, Copy, Debug)]
struct SystemNames;

impl Service<Name> for SystemNames {
    type Response = std::vec::IntoIter<SocketAddr>;
    type Error = NameLookupError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, name: Name) -> Self::Future {
        Box::pin(async move {
            let found = tokio::net::lookup_host((name.as_str(), 0)).await.map_err(NameLookupError)?;
            Ok(found.collect::<Vec<_>>().into_iter())
        })
    }
}

#[cfg(test)]
mod tests {
    use proto::clock::SystemClock;
    use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
    use rustls::ServerConfig;
    use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;
    use tokio_rustls::TlsAcceptor;

    use super::*;
    use crate::acme::account::Acme;
    use crate::acme::directory::Directory;

    /// Returns a root and a server that has a leaf of it for localhost.
    fn tls_server() -> (TrustRoots, TlsAcceptor) {
        let root_key = KeyPair::generate().unwrap();
        let mut root = CertificateParams::new(Vec::new()).unwrap();
        root.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let root_pem = root.self_signed(&root_key).unwrap().pem();
        let key = KeyPair::generate().unwrap();
        let leaf = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        let leaf = leaf.signed_by(&key, &Issuer::new(root, root_key)).unwrap();
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![leaf.der().clone()], key)
            .unwrap();
        (TrustRoots::Pem(root_pem), TlsAcceptor::from(Arc::new(config)))
    }

    #[tokio::test]
    async fn an_endless_body_is_cut_while_it_comes() {
        let (roots, acceptor) = tls_server();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("https://localhost:{}/dir", listener.local_addr().unwrap().port());
        let serve = async {
            let (stream, _peer) = listener.accept().await.unwrap();
            let mut stream = acceptor.accept(stream).await.unwrap();
            let mut request = [0; 1024];
            assert!(stream.read(&mut request).await.unwrap() > 0);
            let mut sent = 0;
            let mut piece = b"HTTP/1.1 200 OK\r\n\r\n".to_vec();
            while stream.write_all(&piece).await.is_ok() {
                sent += piece.len();
                piece = vec![b' '; 64 * 1024];
            }
            sent
        };
        let ask = async {
            let acme = Acme::new(Arc::new(HyperTransport::new(Arc::new(SystemClock))), Arc::new(SystemClock));
            acme.probe_directory(&Directory { url, roots }).await.unwrap_err()
        };
        let (error, sent) = tokio::join!(ask, serve);
        assert_eq!(error.problem().reason, "CA_ANSWER_TOO_LARGE");
        assert!(sent < 16 * BODY_BYTES_MAX, "the server could send {sent} bytes");
    }
}
