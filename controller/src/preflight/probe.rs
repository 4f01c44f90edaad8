//! One plain HTTP request, small and bounded, to one address: what a CA does for http-01. It never follows a redirect and
//! never resolves a name. Called by `preflight`; e2e has the second implementation.

use std::fmt::Debug;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use async_trait::async_trait;
use proto::text::one_line;
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

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
    /// Sends `GET path` with this Host to `address`, plain HTTP/1.1.
    ///
    /// # Errors
    /// When there is no HTTP answer in time.
    async fn fetch(&self, address: SocketAddr, host: &str, path: &str) -> Result<ProbeAnswer, ProbeError>;
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
    /// Something answered, not in HTTP.
    #[error("{0}")]
    NotHttp(String),
}

/// Asks over the network.
#[derive(Clone, Copy, Debug, Default)]
pub struct TcpProbe;

#[async_trait]
impl Probe for TcpProbe {
    async fn fetch(&self, address: SocketAddr, host: &str, path: &str) -> Result<ProbeAnswer, ProbeError> {
        let exchange = async {
            let mut stream = TcpStream::connect(address).await.map_err(ProbeError::Unreachable)?;
            stream.set_nodelay(true).map_err(ProbeError::Unreachable)?;
            let request = format!(
                "GET {path} HTTP/1.1\r\nHost: {}\r\nUser-Agent: certwright/{} (preflight)\r\nAccept: */*\r\nConnection: close\r\n\r\n",
                host_header(host, address.port()),
                env!("CARGO_PKG_VERSION"),
            );
            stream.write_all(request.as_bytes()).await.map_err(ProbeError::Unreachable)?;
            read_answer(&mut stream).await
        };
        tokio::time::timeout(PROBE_TIME_MAX, exchange).await.map_err(|_elapsed| ProbeError::Timeout)?
    }
}

fn host_header(host: &str, port: u16) -> String {
    let host = if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
    if port == 80 { host } else { format!("{host}:{port}") }
}

/// Reads head and the start of the body, at most [`HEAD_BYTES_MAX`] + [`BODY_BYTES_MAX`] bytes.
async fn read_answer(stream: &mut (impl AsyncRead + Unpin)) -> Result<ProbeAnswer, ProbeError> {
    let mut bytes = Vec::with_capacity(2048);
    loop {
        if let Some(answer) = parse(&bytes, false)? {
            return Ok(answer);
        }
        if bytes.len() > HEAD_BYTES_MAX + BODY_BYTES_MAX * 4 {
            return Err(ProbeError::NotHttp("the answer's head is too large".to_owned()));
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
