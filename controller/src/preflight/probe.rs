//! One HTTP request, small and bounded, to one address: what a CA does for http-01. Over TLS it takes any certificate, as a CA
//! does. It never follows a redirect and never resolves a name. Called by `preflight`; e2e has the second implementation.

use std::fmt::{self, Debug};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use proto::text::one_line;
use proto::tls::unverified_client_config;
use rustls::pki_types::ServerName;
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// Longest time for one request, connecting included; Let's Encrypt gives 10 s.
pub const PROBE_TIME_MAX: Duration = Duration::from_secs(5);
/// Most of a body that is read; a key authorization has at most 172 bytes.
pub const BODY_BYTES_MAX: usize = 1024;
/// Largest status line with headers.
const HEAD_BYTES_MAX: usize = 16 * 1024;
/// Longest redirect target kept, characters.
const LOCATION_CHARS_MAX: usize = 2_000;

/// Asks an address as the CA would.
#[async_trait]
pub trait Probe: Send + Sync + Debug {
    /// Sends `GET path` with this Host to `address`, HTTP/1.1.
    ///
    /// # Errors
    /// When there is no HTTP answer in time.
    async fn fetch(
        &self,
        scheme: Scheme,
        address: SocketAddr,
        host: &str,
        path: &str,
    ) -> Result<ProbeAnswer, ProbeError>;
}

/// How it is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    /// Plain.
    Http,
    /// Over TLS, whatever the certificate.
    Https,
}

impl Scheme {
    /// The port that a CA asks.
    #[must_use]
    pub const fn port(self) -> u16 {
        match self {
            Self::Http => 80,
            Self::Https => 443,
        }
    }

    /// As in a URL.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }
}

/// What answered.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProbeAnswer {
    /// HTTP status.
    pub status: u16,
    /// The Location header, for redirects; sanitised.
    pub location: Option<String>,
    /// The first [`BODY_BYTES_MAX`] bytes.
    pub body: Vec<u8>,
}

/// Why there is no answer.
#[derive(Debug, Error)]
pub enum ProbeError {
    /// Refused, reset, no route.
    #[error("no connection: {0}")]
    Unreachable(io::Error),
    /// Nothing in time.
    #[error("no answer within {} s", PROBE_TIME_MAX.as_secs())]
    Timeout,
    /// No TLS with it.
    #[error("no TLS: {0}")]
    Tls(String),
    /// Something answered, not in HTTP.
    #[error("{0}")]
    NotHttp(String),
}

/// Asks over the network.
#[derive(Clone, Copy, Debug, Default)]
pub struct TcpProbe;

#[async_trait]
impl Probe for TcpProbe {
    async fn fetch(
        &self,
        scheme: Scheme,
        address: SocketAddr,
        host: &str,
        path: &str,
    ) -> Result<ProbeAnswer, ProbeError> {
        in_time(async {
            let mut stream = TcpStream::connect(address).await.map_err(ProbeError::Unreachable)?;
            stream.set_nodelay(true).map_err(ProbeError::Unreachable)?;
            let host_header = host_header(scheme, host, address.port());
            match scheme {
                Scheme::Http => exchange(&mut stream, &host_header, path).await,
                Scheme::Https => exchange(&mut secured(stream, host).await?, &host_header, path).await,
            }
        })
        .await
    }
}

/// TLS with any certificate.
async fn secured(stream: TcpStream, host: &str) -> Result<TlsStream<TcpStream>, ProbeError> {
    let tls = |error: &dyn fmt::Display| ProbeError::Tls(one_line(&error.to_string(), 200));
    let name = ServerName::try_from(host.to_owned()).map_err(|error| tls(&error))?;
    let config = unverified_client_config().map_err(|error| tls(&error))?;
    TlsConnector::from(Arc::new(config)).connect(name, stream).await.map_err(|error| tls(&error))
}

async fn exchange(
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
    host_header: &str,
    path: &str,
) -> Result<ProbeAnswer, ProbeError> {
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: {host_header}\r\nUser-Agent: certwright/{} (preflight)\r\nAccept: */*\r\nConnection: close\r\n\r\n",
        env!("CARGO_PKG_VERSION"),
    );
    stream.write_all(request.as_bytes()).await.map_err(ProbeError::Unreachable)?;
    read_answer(stream).await
}

async fn in_time(exchange: impl Future<Output = Result<ProbeAnswer, ProbeError>>) -> Result<ProbeAnswer, ProbeError> {
    tokio::time::timeout(PROBE_TIME_MAX, exchange).await.map_err(|_elapsed| ProbeError::Timeout)?
}

fn host_header(scheme: Scheme, host: &str, port: u16) -> String {
    let host = if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
    if port == scheme.port() { host } else { format!("{host}:{port}") }
}

/// Reads head and the start of the body, at most [`HEAD_BYTES_MAX`] + [`BODY_BYTES_MAX`] bytes.
async fn read_answer(stream: &mut (impl AsyncRead + Unpin)) -> Result<ProbeAnswer, ProbeError> {
    let mut bytes = Vec::with_capacity(2048);
    loop {
        if let Some(answer) = parse(&bytes, false)? {
            return Ok(answer);
        }
        if bytes.len() > HEAD_BYTES_MAX + BODY_BYTES_MAX * 4 {
            return Err(ProbeError::NotHttp("the answer is too large".to_owned()));
        }
        let mut chunk = [0; 2048];
        let count = stream.read(&mut chunk).await.map_err(ProbeError::Unreachable)?;
        bytes.extend(chunk.iter().take(count));
        if count == 0 {
            let ended = || ProbeError::NotHttp("the connection ended before an HTTP answer was complete".to_owned());
            return parse(&bytes, true)?.ok_or_else(ended);
        }
    }
}

/// Returns the answer once head and (enough of) the body are there; at the end of the stream what there is of the body.
fn parse(bytes: &[u8], ended: bool) -> Result<Option<ProbeAnswer>, ProbeError> {
    let Some(head_end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") else { return Ok(None) };
    let (head, rest) = bytes.split_at(head_end);
    let head = String::from_utf8_lossy(head);
    let mut lines = head.split("\r\n");
    let first = lines.next().unwrap_or_default();
    let status = parse_status(first)
        .ok_or_else(|| ProbeError::NotHttp(format!("the answer starts with {:?}, not HTTP", one_line(first, 60))))?;
    let mut answer = ProbeAnswer { status, ..ProbeAnswer::default() };
    let (mut length, mut chunked) = (None, false);
    for (name, value) in lines.filter_map(|line| line.split_once(':')) {
        match name.to_ascii_lowercase().as_str() {
            "location" => answer.location = Some(one_line(value.trim(), LOCATION_CHARS_MAX)),
            "content-length" => length = value.trim().parse::<usize>().ok(),
            "transfer-encoding" => chunked = value.trim().eq_ignore_ascii_case("chunked"),
            _ => {}
        }
    }
    let raw: Vec<u8> = rest.iter().skip(4).copied().collect();
    let (body, complete) = if chunked { unchunk(&raw) } else { (raw, false) };
    let enough =
        complete || (300..400).contains(&status) || body.len() >= length.unwrap_or(usize::MAX).min(BODY_BYTES_MAX);
    let limit = if chunked { BODY_BYTES_MAX } else { length.unwrap_or(BODY_BYTES_MAX).min(BODY_BYTES_MAX) };
    answer.body = body.into_iter().take(limit).collect();
    Ok((enough || ended).then_some(answer))
}

fn parse_status(line: &str) -> Option<u16> {
    let mut words = line.split(' ');
    let version = words.next()?;
    let status = words.next()?;
    (version.starts_with("HTTP/1.") && status.len() == 3).then(|| status.parse().ok())?
}

/// Undoes chunked coding (RFC 9112 §7.1) as far as the bytes go; says whether the last chunk was seen.
fn unchunk(mut raw: &[u8]) -> (Vec<u8>, bool) {
    let mut body = Vec::new();
    while let Some(line_end) = raw.windows(2).position(|window| window == b"\r\n") {
        let (line, rest) = raw.split_at(line_end);
        let size = std::str::from_utf8(line)
            .ok()
            .and_then(|line| usize::from_str_radix(line.split(';').next().unwrap_or_default().trim(), 16).ok());
        let Some(size) = size else { return (body, true) };
        if size == 0 {
            return (body, true);
        }
        let content: Vec<u8> = rest.iter().skip(2).copied().collect();
        body.extend(content.iter().take(size.min(BODY_BYTES_MAX)));
        raw = rest.get(2 + size.min(rest.len())..).and_then(|after| after.get(2..)).unwrap_or_default();
    }
    (body, false)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rustls::ServerConfig;
    use rustls::crypto::aws_lc_rs;
    use rustls::pki_types::PrivateKeyDer;
    use tokio::io::duplex;
    use tokio::net::TcpListener;
    use tokio_rustls::TlsAcceptor;

    use super::*;

    /// Serves `answer` in pieces and returns what was made of it.
    async fn read(answer: &[u8]) -> Result<ProbeAnswer, ProbeError> {
        let (mut here, mut there) = duplex(64);
        let send = async {
            for piece in answer.chunks(7) {
                if there.write_all(piece).await.is_err() {
                    break; // enough was read
                }
            }
            drop(there);
        };
        let receive = async {
            let answer = read_answer(&mut here).await;
            drop(here);
            answer
        };
        tokio::join!(receive, send).0
    }

    async fn check(answer: &str, status: u16, body: &str) {
        let read = read(answer.as_bytes()).await.unwrap();
        assert_eq!((read.status, String::from_utf8(read.body).unwrap().as_str()), (status, body), "{answer:?}");
    }

    #[tokio::test]
    async fn a_body_ends_by_its_length_its_chunks_or_the_connection() {
        check("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabcdef", 200, "abc").await;
        check("HTTP/1.1 200 OK\r\n\r\nabc", 200, "abc").await;
        check("HTTP/1.0 404 Not Found\r\n\r\n", 404, "").await;
        check("HTTP/1.1 200\r\ncontent-length: 0\r\n\r\n", 200, "").await;
        let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
        check(&format!("{chunked}3\r\nabc\r\n2;x=y\r\nde\r\n0\r\n\r\n"), 200, "abcde").await;
        check(&format!("{chunked}ffffffffffffffff\r\nabc"), 200, "abc").await;
        check(&format!("{chunked}nonsense\r\nabc"), 200, "").await;
    }

    #[tokio::test]
    async fn a_redirect_keeps_its_target() {
        let answer = read(b"HTTP/1.1 301 Moved\r\nLOCATION:  http://a.test/\x1b[2J \r\n\r\n").await.unwrap();
        assert_eq!(answer.location.as_deref(), Some("http://a.test/<U+001B>[2J"));
    }

    #[tokio::test]
    async fn an_endless_answer_is_cut() {
        let body = "x".repeat(100_000);
        let cut = read(format!("HTTP/1.1 200 OK\r\n\r\n{body}").as_bytes()).await.unwrap();
        assert_eq!(cut.body.len(), BODY_BYTES_MAX);
        let head = read(format!("HTTP/1.1 200 OK\r\nX: {body}\r\n\r\n").as_bytes()).await;
        assert!(matches!(head, Err(ProbeError::NotHttp(_))));
    }

    #[tokio::test]
    async fn what_is_not_http_is_shown_without_escapes() {
        for answer in ["SSH-2.0-OpenSSH_9\x1b[2J\r\n\r\n", "HTTP/2 200\r\n\r\n", "HTTP/1.1 20\r\n\r\n", "", "\r\n\r\n"]
        {
            let error = read(answer.as_bytes()).await.unwrap_err();
            assert!(matches!(error, ProbeError::NotHttp(_)), "{answer:?}");
            assert!(!error.to_string().contains('\x1b'));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_server_costs_five_seconds() {
        let (mut here, _there) = duplex(64);
        let started = tokio::time::Instant::now();
        assert!(matches!(in_time(read_answer(&mut here)).await, Err(ProbeError::Timeout)));
        assert_eq!(started.elapsed().as_secs(), 5);
    }

    #[tokio::test]
    async fn a_closed_port_is_unreachable() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        drop(listener);
        for scheme in [Scheme::Http, Scheme::Https] {
            let closed = TcpProbe.fetch(scheme, address, "h1.example.test", "/").await;
            assert!(matches!(closed, Err(ProbeError::Unreachable(_))), "{closed:?}");
        }
    }

    #[tokio::test]
    async fn over_tls_any_certificate_is_taken_and_what_speaks_no_tls_is_told() {
        let key = rcgen::KeyPair::generate().unwrap();
        let leaf = rcgen::CertificateParams::new(vec!["another.test".to_owned()]).unwrap().self_signed(&key).unwrap();
        let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        let config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![leaf.der().clone()], key)
            .unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = async {
            let mut stream = acceptor.accept(listener.accept().await.unwrap().0).await.unwrap();
            let mut request = vec![0; 1024];
            let count = stream.read(&mut request).await.unwrap();
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi").await.unwrap();
            String::from_utf8(request[..count].to_vec()).unwrap()
        };
        let asked = TcpProbe.fetch(Scheme::Https, address, "h1.example.test", "/x");
        let (request, answer) = tokio::join!(server, asked);
        let answer = answer.unwrap();
        assert_eq!((answer.status, answer.body.as_slice()), (200, b"hi".as_slice()));
        let host = format!("Host: h1.example.test:{}\r\n", address.port());
        assert!(request.starts_with("GET /x HTTP/1.1\r\n") && request.contains(&host), "{request}");

        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let plain = async {
            let mut stream = listener.accept().await.unwrap().0;
            stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await.unwrap();
        };
        let ((), answer) = tokio::join!(plain, TcpProbe.fetch(Scheme::Https, address, "h1.example.test", "/x"));
        assert!(matches!(answer, Err(ProbeError::Tls(_))), "{answer:?}");
    }

    #[test]
    fn the_host_header_is_written_as_a_ca_would() {
        assert_eq!(host_header(Scheme::Http, "h1.example.test", 80), "h1.example.test");
        assert_eq!(host_header(Scheme::Http, "2001:db8::1", 80), "[2001:db8::1]");
        assert_eq!(host_header(Scheme::Https, "h1.example.test", 8080), "h1.example.test:8080");
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic_or_grow(bytes in proptest::collection::vec(any::<u8>(), 0..3000), http in any::<bool>()) {
            let mut answer = if http { b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec() } else { Vec::new() };
            answer.extend(bytes);
            if let Ok(Some(parsed)) = parse(&answer, true) {
                prop_assert!(parsed.body.len() <= BODY_BYTES_MAX);
            }
        }
    }
}
