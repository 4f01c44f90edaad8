//! One HTTP exchange with an ACME server, with its limits: time, size, no redirects, an answer that is ACME. It never
//! knows accounts or orders. Called by `acme/session`; `Transport` is implemented by `acme/transport` and by e2e's fake CA.

use std::error::Error as StdError;
use std::fmt::Debug;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::header::{AGE, DATE, HeaderMap, LOCATION, RETRY_AFTER, USER_AGENT};
use http::response::Parts;
use http::{HeaderValue, Method, Request, StatusCode, Uri};
use http_body_util::LengthLimitError;
use instant_acme::{BodyWrapper, Error, HttpClient};
use jiff::Timestamp;
use jiff::fmt::rfc2822;
use proto::clock::Clock;
use proto::text::one_line;

use crate::acme::pace::Pacer;
use crate::acme::problem::AcmeError;
use crate::lifecycle::clock_skew::Witnesses;

/// Longest time for one request, connecting and the last byte of the answer included (reliability.md T8).
pub const REQUEST_TIME_MAX: Duration = Duration::from_secs(60);
/// Largest body of an answer (reliability.md T8): 100 names with their authorizations take about 40 kB.
pub const BODY_BYTES_MAX: usize = 1 << 20;
/// Longest wait that a Retry-After may ask for; Let's Encrypt's longest window is 7 days.
pub const RETRY_AFTER_MAX: Duration = Duration::from_secs(7 * 86_400);
/// How much of a body that is not ACME goes into an error, characters.
const EXCERPT_CHARS_MAX: usize = 200;
/// Who asks; RFC 8555 §6.1 wants it.
const AGENT: HeaderValue = HeaderValue::from_static(concat!("certwright/", env!("CARGO_PKG_VERSION")));

/// Makes clients that reach ACME servers.
pub trait Transport: Send + Sync + Debug {
    /// Returns a client that trusts `roots` for the server's TLS certificate.
    ///
    /// # Errors
    /// When the roots cannot be used.
    fn client(&self, roots: &TrustRoots) -> Result<Box<dyn HttpClient>, AcmeError>;
}

/// Whom to believe that a server is the ACME server.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum TrustRoots {
    /// The host's certificate store.
    System,
    /// Exactly these CA certificates, PEM: a private or a test CA.
    Pem(String),
}

/// Why an exchange gave no ACME answer. Travels through instant-acme inside its `Error::Other`.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    /// No complete answer in time.
    #[error("{url} gave no complete answer within {} s", after.as_secs())]
    Timeout {
        /// What was asked.
        url: String,
        /// The limit.
        after: Duration,
    },
    /// The server asked to be left alone: nothing was sent.
    #[error("{host} asked to be left alone for another {} s", wait.as_secs())]
    Closed {
        /// Host and port.
        host: String,
        /// How much longer.
        wait: Duration,
    },
    /// The host's name has no address here.
    #[error("the name {host} cannot be resolved")]
    NameLookup {
        /// The name.
        host: String,
        /// What the resolver said.
        #[source]
        source: io::Error,
    },
    /// No connection, or it broke.
    #[error("no connection to {host}")]
    Unreachable {
        /// Host and port.
        host: String,
        /// What the system said.
        #[source]
        source: Box<dyn StdError + Send + Sync>,
    },
    /// The server's TLS certificate is not one we trust.
    #[error("the TLS certificate of {host} is not trusted")]
    Untrusted {
        /// Host and port.
        host: String,
        /// What rustls said.
        #[source]
        source: rustls::Error,
    },
    /// TLS failed for another reason.
    #[error("no TLS with {host}")]
    Tls {
        /// Host and port.
        host: String,
        /// What rustls said.
        #[source]
        source: rustls::Error,
    },
    /// The body is larger than [`BODY_BYTES_MAX`].
    #[error("the answer of {url} is larger than {BODY_BYTES_MAX} bytes")]
    TooLarge {
        /// What was asked.
        url: String,
    },
    /// The server sent us elsewhere; ACME does not do that.
    #[error("{url} redirects ({status}) to {location}")]
    Redirected {
        /// What was asked.
        url: String,
        /// 3xx.
        status: u16,
        /// Where to, sanitised.
        location: String,
    },
    /// The server named a URL on a host that its directory does not name.
    #[error("the server names {url}, which is not https on a host of its directory")]
    Foreign {
        /// The URL, sanitised.
        url: String,
    },
    /// newNonce gave no nonce (RFC 8555 §7.2).
    #[error("{url} gave no nonce")]
    NoNonce {
        /// What was asked.
        url: String,
    },
    /// An error status without a problem document: a proxy, a web page, an outage.
    #[error("{url} answered {status}: {excerpt}")]
    Status {
        /// What was asked.
        url: String,
        /// 4xx or 5xx.
        status: u16,
        /// Start of the body, sanitised.
        excerpt: String,
    },
}

/// What is kept of the last answer besides its body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer {
    /// HTTP status.
    pub status: StatusCode,
    /// How long the server asks to wait, from seconds or an HTTP date, at most [`RETRY_AFTER_MAX`].
    pub retry_after: Option<Duration>,
    /// The server's own clock.
    pub date: Option<Timestamp>,
}

impl Answer {
    fn read(parts: &Parts, now: Timestamp) -> Self {
        let date = text(&parts.headers, &DATE).and_then(http_date);
        let retry_after = text(&parts.headers, &RETRY_AFTER).and_then(|value| wait(value, date.unwrap_or(now)));
        Self { status: parts.status, retry_after, date }
    }
}

/// A complete answer.
pub(crate) struct Reply {
    pub(crate) parts: Parts,
    pub(crate) body: Bytes,
    pub(crate) answer: Answer,
}

/// Sends requests to one server, each within the limits of this file, and counts them.
pub(crate) struct Wire {
    client: Box<dyn HttpClient>,
    clock: Arc<dyn Clock>,
    requests: Arc<AtomicU64>,
    line: Line,
}

/// What all sessions with one CA share.
#[derive(Clone, Debug)]
pub(crate) struct Line {
    /// Host of its directory.
    pub(crate) host: String,
    /// How fast it is asked.
    pub(crate) pacer: Arc<Pacer>,
    /// What CAs say of the time.
    pub(crate) witnesses: Arc<Mutex<Witnesses>>,
}

impl Wire {
    pub(crate) fn new(
        client: Box<dyn HttpClient>,
        clock: Arc<dyn Clock>,
        requests: Arc<AtomicU64>,
        line: Line,
    ) -> Self {
        Self { client, clock, requests, line }
    }

    /// Sends one request and collects its answer, whatever its status is.
    pub(crate) async fn send(&self, mut request: Request<BodyWrapper<Bytes>>) -> Result<Reply, HttpError> {
        let uri = request.uri().clone();
        request.headers_mut().insert(USER_AGENT, AGENT);
        let is_nonce = request.method() == Method::HEAD;
        let turn = self.line.pacer.turn(is_nonce).await;
        turn.map_err(|wait| HttpError::Closed { host: shown_host(&uri), wait })?;
        self.requests.fetch_add(1, Ordering::Relaxed);
        let pending = self.client.request(request);
        let exchange = async {
            let mut response = pending.await.map_err(|error| classify(&uri, unwrap(error)))?;
            let body = response.body.into_bytes().await.map_err(|error| classify(&uri, error))?;
            Ok((response.parts, body))
        };
        let (parts, body) = tokio::time::timeout(REQUEST_TIME_MAX, exchange)
            .await
            .map_err(|_elapsed| HttpError::Timeout { url: shown(&uri), after: REQUEST_TIME_MAX })??;
        if body.len() > BODY_BYTES_MAX {
            return Err(HttpError::TooLarge { url: shown(&uri) });
        }
        let now = self.clock.now();
        let answer = Answer::read(&parts, now);
        self.learn(&parts, answer, now);
        tracing::debug!(url = shown(&uri), status = parts.status.as_u16(), "acme request");
        Ok(Reply { parts, body, answer })
    }

    /// Takes the CA's time, and its wish to be left alone by everyone who asks from here.
    fn learn(&self, parts: &Parts, answer: Answer, now: Timestamp) {
        // A cached answer has the time at which it was made.
        if let Some(date) = answer.date.filter(|_| !parts.headers.contains_key(AGE)) {
            let mut witnesses = self.line.witnesses.lock().unwrap_or_else(PoisonError::into_inner);
            witnesses.ca_said(&self.line.host, date.duration_since(now));
        }
        if let Some(wait) = answer.retry_after.filter(|_| answer.status == StatusCode::SERVICE_UNAVAILABLE) {
            self.line.pacer.close(wait);
        }
    }
}

impl Reply {
    /// Refuses what ACME cannot be: a redirect, or an error without a problem document.
    pub(crate) fn check(self, method: &Method, uri: &Uri) -> Result<Self, HttpError> {
        let status = self.parts.status;
        if status.is_redirection() {
            let location = text(&self.parts.headers, &LOCATION).unwrap_or("nowhere");
            return Err(HttpError::Redirected {
                url: shown(uri),
                status: status.as_u16(),
                location: one_line(location, EXCERPT_CHARS_MAX),
            });
        }
        let is_error = status.is_client_error() || status.is_server_error();
        if is_error && (method == Method::HEAD || self.problem().is_none()) {
            let excerpt = one_line(&String::from_utf8_lossy(&self.body), EXCERPT_CHARS_MAX);
            return Err(HttpError::Status { url: shown(uri), status: status.as_u16(), excerpt });
        }
        Ok(self)
    }

    /// Returns the problem document of an error answer, if there is one that says anything.
    pub(crate) fn problem(&self) -> Option<instant_acme::Problem> {
        let problem = serde_json::from_slice::<instant_acme::Problem>(&self.body).ok()?;
        (problem.r#type.is_some() || problem.detail.is_some()).then_some(problem)
    }
}

/// Returns a URL for people: sanitised and cut.
pub(crate) fn shown(uri: &Uri) -> String {
    one_line(&uri.to_string(), EXCERPT_CHARS_MAX)
}

/// Returns host and port of a URL for people.
pub(crate) fn shown_host(uri: &Uri) -> String {
    uri.authority().map_or_else(|| "the server".to_owned(), |authority| one_line(authority.as_str(), EXCERPT_CHARS_MAX))
}

fn text<'h>(headers: &'h HeaderMap, name: &http::HeaderName) -> Option<&'h str> {
    headers.get(name)?.to_str().ok().map(str::trim)
}

/// Reads an IMF-fixdate (RFC 9110 §5.6.7), which is also an RFC 2822 date.
fn http_date(value: &str) -> Option<Timestamp> {
    rfc2822::DateTimeParser::new().parse_timestamp(value).ok()
}

/// Reads a Retry-After (RFC 9110 §10.2.3): seconds, or a date on the server's clock.
fn wait(value: &str, server_now: Timestamp) -> Option<Duration> {
    let wait = match value.parse::<u64>() {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_not_seconds) => Duration::try_from(server_now.until(http_date(value)?).ok()?).unwrap_or(Duration::ZERO),
    };
    Some(wait.min(RETRY_AFTER_MAX))
}

/// An `Error::Other` hides what it wraps from `source()`.
fn unwrap(error: Error) -> Box<dyn StdError + Send + Sync> {
    match error {
        Error::Other(inner) => inner,
        other => Box::new(other),
    }
}

/// Finds out what a client's error means, from the errors it is made of.
fn classify(uri: &Uri, error: Box<dyn StdError + Send + Sync>) -> HttpError {
    let host = shown_host(uri);
    let mut next: Option<&(dyn StdError + 'static)> = Some(error.as_ref());
    while let Some(cause) = next {
        if cause.downcast_ref::<LengthLimitError>().is_some() {
            return HttpError::TooLarge { url: shown(uri) };
        }
        if let Some(source) = cause.downcast_ref::<NameLookupError>() {
            return HttpError::NameLookup { host, source: copy(&source.0) };
        }
        if let Some(source) = cause.downcast_ref::<rustls::Error>() {
            return tls(host, source.clone());
        }
        // An io::Error hides what it wraps from `source()`.
        next = match cause.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
            Some(inner) => Some(inner),
            None => cause.source(),
        };
    }
    HttpError::Unreachable { host, source: error }
}

fn tls(host: String, source: rustls::Error) -> HttpError {
    match source {
        rustls::Error::InvalidCertificate(_) | rustls::Error::NoCertificatesPresented => {
            HttpError::Untrusted { host, source }
        }
        _ => HttpError::Tls { host, source },
    }
}

fn copy(error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), error.to_string())
}

/// A name that the system's resolver does not know; made by `acme/transport`.
#[derive(Debug, thiserror::Error)]
#[error("name lookup failed")]
pub(crate) struct NameLookupError(#[source] pub(crate) io::Error);
