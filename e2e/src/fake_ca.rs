//! An ACME server (RFC 8555) in memory, behind instant-acme's `HttpClient`: real signatures, real certificates, and
//! every fault a CA can have on request. It counts and logs all that is asked of it, for the oracle. The simulation
//! gives a client of it to the controller; it never opens a socket.

mod authority;
mod book;
pub mod fault;
mod jws;

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::error::Error as StdError;
use std::fmt::Debug;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use controller::acme::http::{BODY_BYTES_MAX, Transport, TrustRoots};
use controller::acme::problem::AcmeError;
use futures_util::stream;
use http::{Method, Request, Response};
use http_body::Frame;
use http_body_util::{BodyExt as _, Full, Limited, StreamBody};
use instant_acme::{BodyWrapper, BytesResponse, Error, HttpClient};
use jiff::Timestamp;
use proto::clock::Clock;
use proto::x509::Chain;
use serde_json::Value;
use tokio::task::JoinSet;

use self::book::{Answer, Book, Content, Policy, Refusal, Validation, problem};
pub use self::book::{RenewalInfo, Window};
use self::fault::{Fault, Faults, LATENCY, Mischief, RequestKind, When};
use self::jws::Jws;
use crate::power::{PowerSwitch, Step};

/// Host of the fake CA; every URL of it starts so.
const BASE: &str = "https://ca.test";

/// How the CA looks at a host for HTTP-01 (RFC 8555 §8.3): from one vantage point, over port 80.
#[async_trait]
pub trait Validator: Send + Sync + Debug {
    /// Returns the body of an answer with status 200; the error is `(type, detail)` of the problem, type without prefix.
    async fn get(&self, vantage: usize, host: &str, path: &str) -> Result<String, (String, String)>;
}

/// How a CA behaves by choice.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Hands out the open order again when the same account asks for the same identifiers, as Let's Encrypt does.
    pub reuse_orders: bool,
    /// Accepts a valid authorization for further orders.
    pub reuse_authorizations: bool,
    /// Seconds from `not_before` to `not_after`.
    pub lifetime_seconds: i64,
    /// Seconds that `not_before` lies before the issuance: one hour at Let's Encrypt.
    pub backdate_seconds: i64,
    /// From how many places each validation looks.
    pub vantage_points: usize,
    /// For faults that strike by chance.
    pub seed: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            reuse_orders: true,
            reuse_authorizations: false,
            lifetime_seconds: 90 * 86_400,
            backdate_seconds: 3_600,
            vantage_points: 3,
            seed: 1,
        }
    }
}

/// One request, as the CA's log has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogLine {
    /// When it arrived.
    pub at: Timestamp,
    /// What was asked.
    pub kind: RequestKind,
    /// Path of the URL.
    pub path: String,
    /// Status of the answer; 0 when there was none.
    pub status: u16,
}

/// An order, as the oracle sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OrderView {
    /// Number of the account.
    pub account: usize,
    /// Sorted.
    pub identifiers: Vec<String>,
    /// pending, ready, processing, valid or invalid.
    pub status: &'static str,
    /// The profile that was asked for.
    pub profile: Option<String>,
    /// The certificate it replaces (RFC 9773 §5).
    pub replaces: Option<String>,
}

/// A certificate that was issued.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Issue {
    /// Sorted.
    pub identifiers: Vec<String>,
    /// When it was issued.
    pub at: Timestamp,
    /// End of its validity.
    pub not_after: Timestamp,
}

/// The CA. Clones share it.
#[derive(Clone, Debug)]
pub struct FakeCa(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    clock: Arc<dyn Clock>,
    validator: Arc<dyn Validator>,
    vantage_points: usize,
    book: Mutex<Book>,
    faults: Mutex<Faults>,
    log: Mutex<Vec<LogLine>>,
    looks: Mutex<JoinSet<()>>,
}

impl FakeCa {
    /// Opens a CA without accounts.
    #[must_use]
    pub fn new(options: Options, clock: Arc<dyn Clock>, validator: Arc<dyn Validator>) -> Self {
        Self::at(BASE, options, clock, validator)
    }

    /// Opens a CA without accounts whose URLs start with `base`.
    #[must_use]
    pub fn at(base: &str, options: Options, clock: Arc<dyn Clock>, validator: Arc<dyn Validator>) -> Self {
        let policy = Policy {
            reuse_orders: options.reuse_orders,
            reuse_authorizations: options.reuse_authorizations,
            lifetime_seconds: options.lifetime_seconds,
            backdate_seconds: options.backdate_seconds,
        };
        Self(Arc::new(Inner {
            book: Mutex::new(Book::new(base.to_owned(), policy, clock.now())),
            clock,
            validator,
            vantage_points: options.vantage_points,
            faults: Mutex::new(Faults::new(options.seed)),
            log: Mutex::default(),
            looks: Mutex::default(),
        }))
    }

    /// Returns the URL of the directory.
    #[must_use]
    pub fn directory_url() -> String {
        format!("{BASE}/directory")
    }

    /// Returns the root that signs this CA's certificates, PEM.
    #[must_use]
    pub fn root_pem(&self) -> String {
        self.0.book().authority.root_pem().to_owned()
    }

    /// Returns the way to the CA for one life of the controller.
    #[must_use]
    pub fn transport(&self, switch: PowerSwitch) -> Arc<dyn Transport> {
        Arc::new(SimTransport { ca: self.clone(), switch })
    }

    /// Answers one request, for a server that speaks for this CA.
    ///
    /// # Errors
    /// When there is no answer: the connection is to be closed.
    pub async fn answer_to(&self, request: Request<Bytes>) -> Result<Response<Body>, Error> {
        self.0.clone().serve(request).await
    }

    /// Returns a new nonce, for an answer that is not this CA's.
    #[must_use]
    pub fn nonce(&self) -> String {
        self.0.book().nonce()
    }

    /// Returns what a CA keeps on disk: accounts, orders, authorizations, certificates and its own keys.
    #[must_use]
    pub fn kept(&self) -> Value {
        self.0.book().kept()
    }

    /// Takes up what [`Self::kept`] returned in an earlier life.
    ///
    /// # Errors
    /// When it is something else.
    pub fn take_up(&self, kept: &Value) -> Result<(), serde_json::Error> {
        self.0.book().take_up(kept)
    }

    /// Scripts a fault.
    pub fn fail(&self, kind: RequestKind, when: When, fault: Fault) {
        self.0.faults().add(kind, when, fault);
    }

    /// Changes the standing misbehaviour.
    pub fn misbehave(&self, mischief: Mischief) {
        self.0.book().mischief = mischief;
    }

    /// Ends all faults and misbehaviour.
    pub fn heal(&self) {
        self.0.faults().clear();
        self.0.book().mischief = Mischief::default();
    }

    /// Forgets all accounts, as a test CA does when it restarts.
    pub fn forget_accounts(&self) {
        self.0.book().forget_accounts();
    }

    /// Offers these profiles from now on.
    pub fn offer_profiles(&self, profiles: &[&str]) {
        self.0.book().profiles = profiles.iter().map(|&profile| profile.to_owned()).collect();
    }

    /// Changes the terms: accounts order again only once they agreed (RFC 8555 §7.3.3).
    pub fn change_terms(&self) {
        self.0.book().terms += 1;
    }

    /// Returns the thumbprint of each account's key (RFC 7638).
    #[must_use]
    pub fn account_keys(&self) -> Vec<String> {
        self.0.book().accounts.iter().map(|account| account.key.thumbprint.clone()).collect()
    }

    /// Deactivates an account, as an operator of the CA may.
    pub fn deactivate_account(&self, number: usize) {
        self.0.book().accounts[number].deactivated = true;
    }

    /// Makes new accounts only for this customer: key identifier and MAC key (RFC 8555 §7.3.4).
    pub fn require_customer(&self, kid: &str, mac: &[u8]) {
        self.0.book().customer = Some((kid.to_owned(), mac.to_vec()));
    }

    /// Changes the life of the certificates issued from now on.
    pub fn set_lifetime(&self, seconds: i64) {
        self.0.book().policy.lifetime_seconds = seconds;
    }

    /// Changes what is said of renewals (RFC 9773); `None` takes it out of the directory.
    pub fn offer_renewal_info(&self, info: Option<RenewalInfo>) {
        self.0.book().renewal_info = info;
    }

    /// Changes the windows of certificates whose first name ends in a suffix; the last one that fits counts. What is issued
    /// in a window or after it is not meant: it is the renewal.
    pub fn set_windows_under(&self, windows: Vec<(String, Window)>) {
        self.0.book().windows_under = windows;
    }

    /// Changes the life of the certificates issued from now on whose first name ends in `suffix`.
    pub fn set_lifetime_under(&self, suffix: &str, seconds: i64) {
        self.0.book().lifetimes_under.push((suffix.to_owned(), seconds));
    }

    /// Returns every certificate so far, by the age of its order.
    #[must_use]
    pub fn issues(&self) -> Vec<Issue> {
        let book = self.0.book();
        let view = |order: &book::Order| {
            let issued = book.certificates.get(order.certificate?)?;
            let (at, not_after) = (issued.at, issued.not_after);
            Some(Issue { identifiers: order.identifiers.clone(), at, not_after })
        };
        book.orders.iter().filter_map(view).collect()
    }

    /// Returns the public keys of all certificates for this identifier, by the age of their orders.
    ///
    /// # Panics
    /// Never: it made them.
    #[must_use]
    pub fn keys_of(&self, identifier: &str) -> Vec<Vec<u8>> {
        let book = self.0.book();
        let ours = book.orders.iter().filter(|order| order.identifiers.iter().any(|one| one == identifier));
        let issued = ours.filter_map(|order| book.certificates.get(order.certificate?));
        issued.map(|issued| Chain::parse_pem(issued.pem.as_bytes()).expect("our own chain").leaf.spki_der).collect()
    }

    /// Returns how many faults of this kind have struck.
    #[must_use]
    pub fn struck(&self, kind: RequestKind) -> u64 {
        self.0.faults().struck(kind)
    }

    /// Returns every request so far.
    #[must_use]
    pub fn log(&self) -> Vec<LogLine> {
        self.0.log.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Returns how many requests of each kind have come.
    #[must_use]
    pub fn counts(&self) -> BTreeMap<RequestKind, usize> {
        let mut counts = BTreeMap::new();
        for line in self.log() {
            *counts.entry(line.kind).or_default() += 1;
        }
        counts
    }

    /// Returns every order so far.
    #[must_use]
    pub fn orders(&self) -> Vec<OrderView> {
        let book = self.0.book();
        let now = self.0.clock.now();
        let view = |order: &book::Order| OrderView {
            account: order.account,
            identifiers: order.identifiers.clone(),
            status: book.status(order, now),
            replaces: order.replaces.clone(),
            profile: order.profile.clone(),
        };
        book.orders.iter().map(view).collect()
    }

    /// Returns what was revoked, by the number of its issuance, and the reason's code.
    #[must_use]
    pub fn revoked(&self) -> Vec<(usize, u64)> {
        self.0.book().revoked.iter().map(|(number, reason)| (*number, *reason)).collect()
    }

    /// Returns the contacts of each account.
    #[must_use]
    pub fn accounts(&self) -> Vec<Vec<String>> {
        self.0.book().accounts.iter().map(|account| account.contacts.clone()).collect()
    }

    /// Returns the most orders that were open at once for one account and identifier set.
    #[must_use]
    pub fn crowd_max(&self) -> usize {
        self.0.book().crowd.values().copied().max().unwrap_or(0)
    }

    /// Returns what clients did that no good client does.
    #[must_use]
    pub fn violations(&self) -> Vec<String> {
        self.0.book().violations.clone()
    }
}

impl Inner {
    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn faults(&self) -> MutexGuard<'_, Faults> {
        self.faults.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn serve(self: Arc<Self>, request: Request<Bytes>) -> Result<Response<Body>, Error> {
        tokio::time::sleep(LATENCY / 2).await;
        let kind = kind(request.uri().path());
        let fault = self.faults().next(kind);
        let line = {
            let mut log = self.log.lock().unwrap_or_else(PoisonError::into_inner);
            log.push(LogLine { at: self.clock.now(), kind, path: request.uri().path().to_owned(), status: 0 });
            log.len() - 1
        };
        let answer = match fault {
            None => self.answer(kind, &request),
            Some(Fault::Refused) => return Err(refused()),
            Some(Fault::Hang) => std::future::pending().await,
            Some(Fault::LostReply) => {
                drop(self.answer(kind, &request));
                return Err(reset());
            }
            Some(fault) => self.spoiled(fault),
        };
        let mut answer = answer;
        answer.headers_mut().insert("Date", http_date(self.clock.now()));
        self.log.lock().unwrap_or_else(PoisonError::into_inner)[line].status = answer.status().as_u16();
        tokio::time::sleep(LATENCY / 2).await;
        Ok(answer)
    }

    fn answer(self: &Arc<Self>, kind: RequestKind, request: &Request<Bytes>) -> Response<Body> {
        let mut book = self.book();
        let answered = match (kind, request.method()) {
            (RequestKind::Directory, &Method::GET) => Ok(Answer::json(200, book.directory())),
            (RequestKind::NewNonce, &Method::HEAD | &Method::GET) => Ok(Answer::json(200, Value::Null)),
            (RequestKind::RenewalInfo, &Method::GET) => {
                let path = request.uri().path();
                book.renewal_info(path.rsplit('/').next().unwrap_or_default())
            }
            (RequestKind::Unknown, _) => Err(Refusal(404, "malformed", "no such resource".to_owned())),
            (_, &Method::POST) => act(&mut book, kind, request, self.clock.now()),
            _ => Err(Refusal(405, "malformed", "use POST".to_owned())),
        };
        if let Ok(Answer { validate: Some(validation), .. }) = &answered {
            self.look(validation.clone());
        }
        let retry_after = book.mischief.retry_after.filter(|_| kind == RequestKind::Order);
        let mut response = match answered {
            Ok(answer) => render(answer),
            Err(Refusal(status, kind, detail)) => document(status, kind, &detail, None),
        };
        if let Some(seconds) = retry_after {
            response.headers_mut().insert("Retry-After", seconds.into());
        }
        if kind != RequestKind::Directory {
            response.headers_mut().insert("Replay-Nonce", book.nonce().parse().expect("a nonce is ASCII"));
        }
        response
    }

    fn spoiled(&self, fault: Fault) -> Response<Body> {
        match fault {
            Fault::Html(status) => {
                plain(status, "text/html", "<html><body><h1>502 Bad Gateway</h1>\u{1b}[31m</body></html>")
            }
            Fault::Garbage => plain(200, "application/json", "{\"status\": \"val"),
            Fault::Problem { status, kind, detail, retry_after } => {
                let mut response = document(status, kind, detail, retry_after);
                let nonce = self.book().nonce();
                response.headers_mut().insert("Replay-Nonce", nonce.parse().expect("a nonce is ASCII"));
                response
            }
            Fault::EndlessBody => {
                const CHUNK: &[u8] = &[b'x'; 64 * 1024];
                let frames = stream::repeat_with(|| Ok::<_, Infallible>(Frame::data(Bytes::from_static(CHUNK))));
                // The real transport ends such an answer in the same way.
                let limited = Limited::new(StreamBody::new(frames), BODY_BYTES_MAX);
                Response::new(limited.boxed_unsync())
            }
            Fault::Refused | Fault::Hang | Fault::LostReply => unreachable!("answered before"),
        }
    }

    fn look(self: &Arc<Self>, validation: Validation) {
        let ca = self.clone();
        let mut looks = self.looks.lock().unwrap_or_else(PoisonError::into_inner);
        while looks.try_join_next().is_some() {}
        looks.spawn(async move {
            let found = ca.validate(&validation).await;
            ca.book().validated(validation.authorization, found);
        });
    }

    async fn validate(&self, validation: &Validation) -> Result<(), (String, String)> {
        tokio::time::sleep(Duration::from_millis(50)).await;
        if let Some((kind, detail)) = self.book().mischief.refuse_validation {
            return Err((kind.to_owned(), detail.to_owned()));
        }
        let path = format!("/.well-known/acme-challenge/{}", validation.token);
        for vantage in 0..self.vantage_points {
            let body = self.validator.get(vantage, &validation.host, &path).await?;
            if body.trim_end() != validation.key_authorization {
                let detail = format!("{}: the key authorization is {body:?}", validation.host);
                return Err(("unauthorized".to_owned(), detail));
            }
        }
        Ok(())
    }
}

fn act(book: &mut Book, kind: RequestKind, request: &Request<Bytes>, now: Timestamp) -> Result<Answer, Refusal> {
    let content_type = request.headers().get("Content-Type").and_then(|value| value.to_str().ok());
    if content_type != Some("application/jose+json") {
        return Err(Refusal(415, "malformed", "send application/jose+json".to_owned()));
    }
    let jws = Jws::parse(request.body()).map_err(|detail| Refusal(400, "malformed", detail))?;
    let (key, account) = book.authenticate(&jws, &request.uri().to_string())?;
    let payload = match jws.payload.as_slice() {
        [] => Value::Null,
        bytes => serde_json::from_slice(bytes).map_err(|error| Refusal(400, "malformed", error.to_string()))?,
    };
    if kind == RequestKind::NewAccount {
        return book.new_account(key, account, &payload);
    }
    let account = account.expect("every signer but newAccount's is an account");
    let index = request.uri().path().rsplit('/').next().and_then(|last| last.parse().ok()).unwrap_or(usize::MAX);
    match kind {
        RequestKind::Account if index == account => Ok(book.account(account, &payload)),
        RequestKind::KeyChange => book.key_change(account, &payload, &request.uri().to_string()),
        RequestKind::NewOrder => book.new_order(account, &payload, now),
        RequestKind::Order => book.order(account, index, now),
        RequestKind::Authorization => book.authorization(account, index),
        RequestKind::Challenge => book.challenge(account, index, &payload),
        RequestKind::Finalize => book.finalize(account, index, &payload, now),
        RequestKind::Revoke => book.revoke(account, &payload),
        RequestKind::Certificate => book.certificate(account, index, request.uri().path().starts_with("/alternate/")),
        _ => Err(Refusal(404, "malformed", "no such resource".to_owned())),
    }
}

fn kind(path: &str) -> RequestKind {
    match path.split('/').nth(1).unwrap_or_default() {
        "directory" => RequestKind::Directory,
        "new-nonce" => RequestKind::NewNonce,
        "new-account" => RequestKind::NewAccount,
        "account" => RequestKind::Account,
        "new-order" => RequestKind::NewOrder,
        "order" => RequestKind::Order,
        "authorization" => RequestKind::Authorization,
        "challenge" => RequestKind::Challenge,
        "finalize" => RequestKind::Finalize,
        "certificate" | "alternate" => RequestKind::Certificate,
        "renewal-info" => RequestKind::RenewalInfo,
        "key-change" => RequestKind::KeyChange,
        "revoke-cert" => RequestKind::Revoke,
        _ => RequestKind::Unknown,
    }
}

/// The body of an answer, which may be longer than anyone should read.
pub type Body = http_body_util::combinators::UnsyncBoxBody<Bytes, Box<dyn StdError + Send + Sync>>;

fn render(answer: Answer) -> Response<Body> {
    let mut response = match answer.body {
        Content::Json(Value::Null) => plain(answer.status, "text/plain", ""),
        Content::Json(value) => plain(answer.status, "application/json", &value.to_string()),
        Content::Pem(pem) => plain(answer.status, "application/pem-certificate-chain", &pem),
    };
    if let Some(alternate) = answer.alternate {
        let link = format!("<{alternate}>;rel=\"alternate\"");
        response.headers_mut().insert("Link", link.parse().expect("our URLs are ASCII"));
    }
    if let Some(location) = answer.location {
        response.headers_mut().insert("Location", location.parse().expect("our URLs are ASCII"));
    }
    if let Some(retry_after) = answer.retry_after {
        response.headers_mut().insert("Retry-After", retry_after.parse().expect("scripted in ASCII"));
    }
    response
}

fn document(status: u16, kind: &str, detail: &str, retry_after: Option<u64>) -> Response<Body> {
    let mut response = plain(status, "application/problem+json", &problem(status, kind, detail).to_string());
    if let Some(seconds) = retry_after {
        response.headers_mut().insert("Retry-After", seconds.into());
    }
    response
}

fn plain(status: u16, content_type: &str, text: &str) -> Response<Body> {
    let body = Full::new(Bytes::from(text.to_owned())).map_err(Into::into).boxed_unsync();
    let builder = Response::builder().status(status).header("Content-Type", content_type);
    builder.body(body).expect("status and type are constants")
}

fn refused() -> Error {
    Error::Other(Box::new(NotConnected(std::io::ErrorKind::ConnectionRefused.into())))
}

fn reset() -> Error {
    Error::Other(Box::new(NotConnected(std::io::ErrorKind::ConnectionReset.into())))
}

#[derive(Debug)]
struct SimTransport {
    ca: FakeCa,
    switch: PowerSwitch,
}

impl Transport for SimTransport {
    /// The CA's own TLS certificate is under its root, which the system trusts as well.
    fn client(&self, roots: &TrustRoots) -> Result<Box<dyn HttpClient>, AcmeError> {
        let trusted = match roots {
            TrustRoots::System => true,
            TrustRoots::Pem(pem) => pem.trim() == self.ca.root_pem().trim(),
        };
        Ok(Box::new(Client { ca: self.ca.clone(), switch: self.switch.clone(), trusted }))
    }
}

/// An error as hyper's client nests it: what went wrong is two levels down.
#[derive(Debug)]
struct NotConnected(std::io::Error);

impl std::fmt::Display for NotConnected {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("client error (Connect)")
    }
}

impl StdError for NotConnected {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        Some(&self.0)
    }
}

struct Client {
    ca: FakeCa,
    switch: PowerSwitch,
    trusted: bool,
}

impl HttpClient for Client {
    fn request(
        &self,
        request: Request<BodyWrapper<Bytes>>,
    ) -> Pin<Box<dyn Future<Output = Result<BytesResponse, Error>> + Send>> {
        let (ca, switch, trusted) = (self.ca.0.clone(), self.switch.clone(), self.trusted);
        Box::pin(async move {
            let (parts, body) = request.into_parts();
            let Ok(body) = body.collect().await;
            let body = body.to_bytes();
            let request = Request::from_parts(parts, body);
            if request.uri().host() != Some("ca.test") || request.uri().scheme_str() != Some("https") {
                return Err(refused());
            }
            if !trusted {
                let error = rustls::Error::InvalidCertificate(rustls::CertificateError::UnknownIssuer);
                return Err(Error::Other(Box::new(NotConnected(std::io::Error::other(error)))));
            }
            let served = switch.deed(Step::CaRequest, Step::CaReply, ca.serve(request)).await?;
            Ok(BytesResponse::from(served))
        })
    }
}

#[cfg(test)]
mod tests;

fn http_date(now: Timestamp) -> http::HeaderValue {
    let text = jiff::fmt::rfc2822::DateTimePrinter::new().timestamp_to_rfc9110_string(&now);
    text.expect("our times have four-digit years").parse().expect("a date is ASCII")
}
