//! Our side of the conversation with one ACME server: its directory, its nonces, and the guard that every request of
//! instant-acme passes. It never decides to repeat a request. Called by `acme/account` and `acme/order`.
//!
//! instant-acme asks for a directory per account and for a nonce per account-level call. Both are answered from memory
//! here, so that a warm account costs 7 requests per certificate (reliability.md G8):
//! ```text
//! instant-acme ── GET directory ──► Guarded ── read once ──► Session
//!              ── HEAD newNonce ──►         ── pool has one ─► answered here; empty ─► server
//!              ── POST ───────────►         ── origin allowed? ─► server; its Replay-Nonce goes to the pool only
//! ```

use std::collections::HashMap;
use std::fmt;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderMap, LINK};
use http::{HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri};
use http_body_util::Full;
use instant_acme::{BodyWrapper, BytesResponse, Error, HttpClient};
use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

use crate::acme::directory::{Directory, DirectoryDocument, parse_url};
use crate::acme::http::{Answer, HttpError, Reply, Wire, shown, shown_host};
use crate::acme::jws::{Signer, SigningKey};
use crate::acme::problem::{AcmeError, Attempt, Step, is_bad_nonce};

/// RFC 8555 §6.5.1.
const REPLAY_NONCE: HeaderName = HeaderName::from_static("replay-nonce");
/// RFC 8555 §6.2.
const JOSE_JSON: HeaderValue = HeaderValue::from_static("application/jose+json");
/// Nonces refused in a row to one request of ours (reliability.md AC3).
const NONCE_REFUSALS_MAX: u8 = 5;
/// Most alternate chains that are looked at; CAs offer one or two.
const ALTERNATES_MAX: usize = 5;
/// How long a directory is believed; its URLs may change.
const DIRECTORY_AGE_MAX: SignedDuration = SignedDuration::from_hours(12);
/// Most nonces kept: one per parallel order is of use.
const NONCES_MAX: usize = 64;
/// Longest nonce kept; servers use up to about 70 characters.
const NONCE_CHARS_MAX: usize = 512;

/// One server, one trust: shared by all its accounts and orders.
pub(crate) struct Session {
    pub(crate) document: DirectoryDocument,
    read_at: Timestamp,
    /// Set when a URL of the directory turned out to be wrong.
    is_outdated: AtomicBool,
    body: Bytes,
    wire: Wire,
    nonces: Mutex<Vec<HeaderValue>>,
    /// Account URLs by public key (SPKI, DER).
    accounts: Mutex<HashMap<Vec<u8>, String>>,
}

impl Session {
    /// Reads the directory: one request.
    pub(crate) async fn open(directory: &Directory, wire: Wire, now: Timestamp) -> Result<Self, AcmeError> {
        let uri = parse_url(&directory.url).map_err(|source| AcmeError::Directory { source })?;
        let attempt = Attempt { ca: shown_host(&uri), step: Step::Directory };
        let mut request = Request::new(BodyWrapper::default());
        *request.uri_mut() = uri.clone();
        let reply = wire.send(request).await.map_err(|source| AcmeError::http(attempt.clone(), source, None))?;
        let answer = reply.answer;
        let reply = reply
            .check(&Method::GET, &uri)
            .map_err(|source| AcmeError::http(attempt.clone(), source, answer.retry_after))?;
        if let Some(problem) = reply.problem().filter(|_| !answer.status.is_success()) {
            return Err(AcmeError::refused(attempt, &problem, Some(answer)));
        }
        let document = DirectoryDocument::parse(&uri, &reply.body).map_err(|source| AcmeError::Directory { source })?;
        let session = Self {
            document,
            read_at: now,
            is_outdated: AtomicBool::new(false),
            body: reply.body.clone(),
            wire,
            nonces: Mutex::default(),
            accounts: Mutex::default(),
        };
        session.absorb_nonce(reply);
        Ok(session)
    }

    /// Returns host and port of the server, for people.
    pub(crate) fn ca(&self) -> String {
        shown_host(&self.document.uri)
    }

    /// Whether the directory may still be believed.
    pub(crate) fn is_fresh(&self, now: Timestamp) -> bool {
        !self.is_outdated.load(Ordering::Relaxed) && self.read_at.duration_until(now) < DIRECTORY_AGE_MAX
    }

    /// Returns the URL of the account with this public key, if it was used in this session.
    pub(crate) fn known_account(&self, spki: &[u8]) -> Option<String> {
        lock(&self.accounts).get(spki).cloned()
    }

    pub(crate) fn remember_account(&self, spki: Vec<u8>, url: String) {
        lock(&self.accounts).insert(spki, url);
    }

    pub(crate) fn forget_account(&self, url: &str) {
        lock(&self.accounts).retain(|_, known| known != url);
    }

    /// Answers what needs no request: the directory, and a nonce while the pool has one.
    fn remembered(&self, request: &Request<BodyWrapper<Bytes>>) -> Option<BytesResponse> {
        let mut response = Response::new(Full::new(Bytes::new()));
        if request.method() == Method::GET && *request.uri() == self.document.uri {
            *response.body_mut() = Full::new(self.body.clone());
        } else if request.method() == Method::HEAD && *request.uri() == self.document.new_nonce {
            response.headers_mut().insert(REPLAY_NONCE, lock(&self.nonces).pop()?);
        } else {
            return None;
        }
        Some(BytesResponse::from(response))
    }

    /// Returns a nonce from the pool, else a fresh one: one request.
    async fn nonce(&self, last: &LastAnswer) -> Result<HeaderValue, HttpError> {
        if let Some(nonce) = lock(&self.nonces).pop() {
            return Ok(nonce);
        }
        let mut request = Request::new(BodyWrapper::default());
        *request.method_mut() = Method::HEAD;
        *request.uri_mut() = self.document.new_nonce.clone();
        let mut reply = self.exchange(request, last).await?;
        let nonce = reply.parts.headers.remove(REPLAY_NONCE);
        nonce.ok_or_else(|| HttpError::NoNonce { url: shown(&self.document.new_nonce) })
    }

    async fn exchange(&self, request: Request<BodyWrapper<Bytes>>, last: &LastAnswer) -> Result<Reply, HttpError> {
        let (method, uri) = (request.method().clone(), request.uri().clone());
        last.set(None, Vec::new());
        if !self.document.allows(&uri) {
            return Err(HttpError::Foreign { url: shown(&uri) });
        }
        let reply = self.wire.send(request).await?;
        last.set(Some(reply.answer), alternates(&reply.parts.headers));
        if reply.parts.status == StatusCode::BAD_REQUEST && reply.problem().is_some_and(|p| is_bad_nonce(&p)) {
            // The server forgot one: the others are as old or older.
            lock(&self.nonces).clear();
        }
        let reply = if method == Method::HEAD { reply } else { self.absorb_nonce(reply) };
        reply.check(&method, &uri)
    }

    /// Asks for a document that needs no account: one GET.
    pub(crate) async fn get(&self, uri: Uri, step: Step) -> Result<(Bytes, Answer), AcmeError> {
        let attempt = Attempt { ca: self.ca(), step };
        let last = LastAnswer::default();
        let mut request = Request::new(BodyWrapper::default());
        *request.uri_mut() = uri;
        let reply = self.exchange(request, &last).await;
        let retry_after = last.get().and_then(|answer| answer.retry_after);
        let reply = reply.map_err(|source| AcmeError::http(attempt.clone(), source, retry_after))?;
        match reply.problem().filter(|_| !reply.answer.status.is_success()) {
            Some(problem) => Err(AcmeError::refused(attempt, &problem, Some(reply.answer))),
            None => Ok((reply.body, reply.answer)),
        }
    }

    /// Moves the nonce of an answer into the pool, newest last; instant-acme then asks for one before each POST.
    fn absorb_nonce(&self, mut reply: Reply) -> Reply {
        if let Some(nonce) = reply.parts.headers.remove(REPLAY_NONCE).filter(|nonce| nonce.len() <= NONCE_CHARS_MAX) {
            let mut nonces = lock(&self.nonces);
            if nonces.len() == NONCES_MAX {
                nonces.remove(0);
            }
            nonces.push(nonce);
        }
        reply
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").field("document", &self.document).finish_non_exhaustive()
    }
}

/// What the server last said to one account or order; orders of one account run in parallel, so each has its own.
#[derive(Clone, Debug, Default)]
pub(crate) struct LastAnswer(Arc<Mutex<(Option<Answer>, Vec<Uri>)>>);

impl LastAnswer {
    pub(crate) fn get(&self) -> Option<Answer> {
        lock(&self.0).0
    }

    /// The alternate chains that a certificate's answer named (RFC 8555 §7.4.2).
    pub(crate) fn alternates(&self) -> Vec<Uri> {
        lock(&self.0).1.clone()
    }

    fn set(&self, answer: Option<Answer>, alternates: Vec<Uri>) {
        *lock(&self.0) = (answer, alternates);
    }
}

/// Reads `Link: <URL>;rel="alternate"` headers (RFC 8288), as many as are of use.
fn alternates(headers: &HeaderMap) -> Vec<Uri> {
    let links = headers.get_all(LINK).iter().filter_map(|value| value.to_str().ok()).flat_map(|value| value.split(','));
    let alternate = |link: &str| {
        let (url, parameters) = link.trim().strip_prefix('<')?.split_once('>')?;
        let is_alternate = parameters.split(';').any(|one| matches!(one.trim(), "rel=\"alternate\"" | "rel=alternate"));
        url.parse().ok().filter(|_| is_alternate)
    };
    links.filter_map(alternate).take(ALTERNATES_MAX).collect()
}

/// instant-acme's only way out.
#[derive(Clone, Debug)]
pub(crate) struct Guarded {
    pub(crate) session: Arc<Session>,
    pub(crate) last: LastAnswer,
}

impl Guarded {
    pub(crate) fn new(session: Arc<Session>) -> Self {
        Self { session, last: LastAnswer::default() }
    }

    /// Sends one signed request of ours; `payload` without a value is a POST-as-GET. Only a refused nonce is repeated.
    pub(crate) async fn post(
        &self,
        step: Step,
        (key, signer): (&SigningKey, Signer<'_>),
        uri: &Uri,
        payload: Option<&Value>,
    ) -> Result<Reply, AcmeError> {
        let attempt = Attempt { ca: self.session.ca(), step };
        let http = |source| AcmeError::http(attempt.clone(), source, self.last.get().and_then(|last| last.retry_after));
        let mut refusals = 0;
        loop {
            let nonce = self.session.nonce(&self.last).await.map_err(http)?;
            let jws = key.sign(signer, &uri.to_string(), nonce.to_str().ok(), payload)?;
            let mut request = Request::new(BodyWrapper::from(jws.to_string().into_bytes()));
            *request.method_mut() = Method::POST;
            *request.uri_mut() = uri.clone();
            request.headers_mut().insert(CONTENT_TYPE, JOSE_JSON);
            let reply = self.session.exchange(request, &self.last).await.map_err(http)?;
            match reply.problem().filter(|_| !reply.answer.status.is_success()) {
                None => return Ok(reply),
                Some(problem) if is_bad_nonce(&problem) && refusals < NONCE_REFUSALS_MAX => refusals += 1,
                Some(problem) => return Err(AcmeError::refused(attempt, &problem, Some(reply.answer))),
            }
        }
    }

    /// Says what an error of instant-acme means, with what the server said beside it. If a URL of the directory leads
    /// nowhere, the directory is read anew before the next try.
    pub(crate) fn explain(&self, step: Step, error: Error) -> AcmeError {
        let is_from_directory = matches!(step, Step::Account | Step::NewOrder);
        let error = AcmeError::explain(Attempt { ca: self.session.ca(), step }, error, self.last.get());
        if is_from_directory { self.outdated(error) } else { error }
    }

    /// A URL of the directory that leads nowhere makes the directory old.
    pub(crate) fn outdated(&self, error: AcmeError) -> AcmeError {
        if error.is_not_found() {
            self.session.is_outdated.store(true, Ordering::Relaxed);
        }
        error
    }
}

impl HttpClient for Guarded {
    fn request(
        &self,
        request: Request<BodyWrapper<Bytes>>,
    ) -> Pin<Box<dyn Future<Output = Result<BytesResponse, Error>> + Send>> {
        if let Some(known) = self.session.remembered(&request) {
            return Box::pin(std::future::ready(Ok(known)));
        }
        let Self { session, last } = self.clone();
        Box::pin(async move {
            let reply = session.exchange(request, &last).await.map_err(|error| Error::Other(Box::new(error)))?;
            Ok(BytesResponse { parts: reply.parts, body: Box::new(reply.body) })
        })
    }
}

/// How often one request may be built anew because only its nonce was refused: the server did nothing then. instant-acme
/// tries 3 times per turn, which makes 5 retries in all (reliability.md AC3).
#[derive(Debug)]
pub(crate) struct NonceTurns(u8);

impl Default for NonceTurns {
    fn default() -> Self {
        Self(2)
    }
}

impl NonceTurns {
    /// Ends a turn; says whether another one follows.
    pub(crate) fn again<T>(&mut self, result: &Result<T, Error>) -> bool {
        self.0 = self.0.saturating_sub(1);
        self.0 > 0 && matches!(result, Err(Error::Api(problem)) if is_bad_nonce(problem))
    }
}

/// No code panics while it holds one of these locks, and each value is whole after every statement.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    #[test]
    fn links_to_alternate_chains_are_read() {
        let mut headers = HeaderMap::new();
        for link in [
            r#"<https://ca.test/dir>;rel="index""#,
            r#"<https://ca.test/c/1/1>;rel="alternate", <https://ca.test/c/1/2>; rel="alternate""#,
            "<not a url>;rel=alternate",
            "nonsense",
        ] {
            headers.append(LINK, link.parse().unwrap());
        }
        assert_eq!(alternates(&headers), ["https://ca.test/c/1/1", "https://ca.test/c/1/2"]);
    }

    use super::*;
    use crate::acme::account::{AccountKey, AccountTerms, Acme};
    use crate::acme::canned::{Canned, CannedCa, HandClock};
    use crate::acme::http::REQUEST_TIME_MAX;
    use crate::acme::problem::Retry;

    /// Lets the next newOrder meet `canned` and returns reason and retry of the failure.
    async fn failed_order(canned: Canned) -> (String, Retry) {
        let ca = CannedCa::new();
        let account = ca.warm_account().await;
        ca.next("/order", canned);
        let error = account.new_order(&["h1.example.test".to_owned()], None, None).await.unwrap_err();
        let problem = error.problem();
        assert!(
            !problem.hint.is_empty() && !problem.cause.is_empty() && problem.message.contains("ca.test"),
            "{problem:?}"
        );
        (problem.reason, error.retry())
    }

    async fn check(canned: Canned, reason: &str, retry: Retry) {
        let shown = format!("{canned:?}");
        assert_eq!(failed_order(canned).await, (reason.to_owned(), retry), "{shown}");
    }

    fn answer(status: u16, headers: &[(&'static str, &str)], body: &str) -> Canned {
        Canned::Answer(
            status,
            headers.iter().map(|(name, value)| (*name, (*value).to_owned())).collect(),
            body.to_owned(),
        )
    }

    #[tokio::test]
    async fn every_kind_of_bad_answer_has_its_reason_and_its_time() {
        let hour = Retry::After(Duration::from_secs(3_600));
        let html = "<html>\u{1b}[31mBad Gateway</html>";
        check(answer(502, &[], html), "CA_SERVER_ERROR", Retry::Now).await;
        check(answer(503, &[("Retry-After", "120")], html), "CA_SERVER_ERROR", Retry::After(Duration::from_secs(120)))
            .await;
        check(answer(429, &[], "slow down"), "CA_RATE_LIMITED", hour).await;
        check(answer(403, &[], html), "CA_NOT_ACME", hour).await;
        check(answer(404, &[], ""), "CA_NOT_ACME", hour).await;
        check(answer(500, &[], "{}"), "CA_SERVER_ERROR", Retry::Now).await;
        check(answer(200, &[], html), "CA_NOT_ACME", hour).await;
        check(answer(201, &[], "{}"), "CA_NOT_ACME", hour).await;
        check(answer(301, &[("Location", "https://elsewhere.test/")], ""), "CA_REDIRECTS", hour).await;
        check(answer(201, &[], &"x".repeat((1 << 20) + 1)), "CA_ANSWER_TOO_LARGE", hour).await;
        check(Canned::Refused, "CA_UNREACHABLE", Retry::Now).await;
        check(Canned::Problem(429, "rateLimited"), "ACME_RATE_LIMITED", hour).await;
        check(Canned::Problem(503, "somethingNew"), "ACME_SERVER_ERROR", Retry::Now).await;
        check(Canned::Problem(403, "somethingNew"), "ACME_REFUSED", hour).await;
        check(Canned::Problem(403, "userActionRequired"), "ACME_USER_ACTION", Retry::Never).await;
    }

    #[tokio::test]
    async fn a_rate_limit_opens_when_the_server_says() {
        let limited = r#"{"type": "urn:ietf:params:acme:error:rateLimited", "detail": "too many"}"#;
        let check = async |headers: &[(&'static str, &str)], seconds| {
            check(answer(429, headers, limited), "ACME_RATE_LIMITED", Retry::After(Duration::from_secs(seconds))).await;
        };
        check(&[("Retry-After", "90")], 90).await;
        let server_time = ("Date", "Sat, 21 Nov 2026 08:00:00 GMT");
        check(&[server_time, ("Retry-After", "Sat, 21 Nov 2026 08:01:30 GMT")], 90).await;
        check(&[("Retry-After", "Sat, 21 Nov 2026 12:01:30 GMT")], 90).await;
        check(&[server_time, ("Retry-After", "Sat, 21 Nov 2026 07:00:00 GMT")], 0).await;
        check(&[("Retry-After", "99999999999")], 7 * 86_400).await;
        check(&[("Retry-After", "soon")], 3_600).await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_never_finishes_costs_one_minute() {
        for canned in [Canned::Endless, Canned::Silence] {
            let started = tokio::time::Instant::now();
            check(canned, "CA_TIMEOUT", Retry::Now).await;
            assert_eq!(started.elapsed().as_secs(), REQUEST_TIME_MAX.as_secs());
        }
    }

    #[tokio::test]
    async fn a_forgotten_nonce_costs_one_request_and_nobody_notices() {
        let ca = CannedCa::new();
        let account = ca.warm_account().await;
        ca.forget_nonces();
        account.new_order(&["h1.example.test".to_owned()], None, None).await.unwrap();
        assert_eq!(ca.lines(), ["POST /order", "POST /order"]);
    }

    #[tokio::test]
    async fn one_forgotten_nonce_means_that_all_are() {
        let ca = CannedCa::new();
        let account = ca.warm_account().await;
        let names = ["h1.example.test".to_owned()];
        let four_orders = async || {
            let orders =
                futures_util::future::join_all((0..4).map(|_order| account.new_order(&names, None, None))).await;
            assert!(orders.iter().all(Result::is_ok));
        };
        four_orders().await;
        ca.forget_nonces();
        account.new_order(&names, None, None).await.unwrap();
        ca.lines();
        four_orders().await;
        let posts = ca.lines().iter().filter(|line| line.starts_with("POST")).count();
        assert_eq!(posts, 4, "no order spends a request on a nonce that is known to be dead");
    }

    #[tokio::test]
    async fn a_nonce_is_retried_five_times_and_no_more() {
        for (refusals, posts, is_ok) in [(1, 2, true), (5, 6, true), (6, 6, false), (50, 6, false)] {
            let ca = CannedCa::new();
            let account = ca.warm_account().await;
            for _refusal in 0..refusals {
                ca.next("/order", Canned::Problem(400, "badNonce"));
            }
            let result = account.new_order(&["h1.example.test".to_owned()], None, None).await;
            assert_eq!(ca.lines(), vec!["POST /order"; posts], "always with the nonce of the refusal");
            match result {
                Ok(_) => assert!(is_ok),
                Err(error) => {
                    assert_eq!((error.problem().reason.as_str(), error.retry()), ("ACME_BAD_NONCE", Retry::Now));
                }
            }
        }
    }

    #[tokio::test]
    async fn a_url_on_another_host_is_not_asked() {
        let foreign = "CA_FOREIGN_URL";
        let cases = [
            ("https://evil.test/x", foreign),
            ("https://ca.test:444/x", foreign),
            ("http://ca.test/x", foreign),
            ("ftp://ca.test/x", foreign),
            ("/x", foreign),
            ("file:///etc/shadow", "CA_NOT_ACME"), // no URL that http knows
        ];
        for (url, reason) in cases {
            let ca = CannedCa::new();
            let account = ca.warm_account().await;
            let error = account.resume(url).await.unwrap_err();
            assert_eq!(error.problem().reason, reason, "{url}");
            assert_eq!(ca.lines(), [""; 0], "the nonce came from the pool");
        }
    }

    #[tokio::test]
    async fn the_directory_is_read_anew_after_half_a_day_or_when_its_urls_lead_nowhere() {
        let ca = CannedCa::new();
        let clock = HandClock::start();
        let acme = Acme::new(Arc::new(ca.clone()), clock.clone());
        let key = AccountKey::generate().unwrap();
        let use_account = async || {
            acme.account(
                &CannedCa::directory(),
                &key,
                &[],
                AccountTerms::Accepted,
                None,
                Some("https://ca.test/account/1"),
            )
            .await
            .unwrap()
        };
        let account = use_account().await;
        clock.forward(11);
        use_account().await;
        assert_eq!(ca.lines(), ["GET /dir"]);
        ca.next("/order", Canned::Problem(404, "malformed"));
        account.new_order(&["h1.example.test".to_owned()], None, None).await.unwrap_err();
        use_account().await;
        clock.forward(12);
        use_account().await;
        assert_eq!(ca.lines(), ["HEAD /nonce", "POST /order", "GET /dir", "GET /dir"]);
    }

    #[tokio::test]
    async fn an_outage_of_the_directory_is_told_apart() {
        let cases = [
            (answer(503, &[], "<html>"), "CA_SERVER_ERROR"),
            (answer(200, &[], "<html>"), "CA_DIRECTORY_INVALID"),
            (answer(404, &[], "nothing here"), "CA_NOT_ACME"),
            (Canned::Problem(503, "rateLimited"), "ACME_RATE_LIMITED"),
            (Canned::Refused, "CA_UNREACHABLE"),
        ];
        for (canned, reason) in cases {
            let ca = CannedCa::new();
            ca.next("/dir", canned);
            let acme = ca.acme();
            let error = acme.probe_directory(&CannedCa::directory()).await.unwrap_err();
            assert_eq!(error.problem().reason, reason);
            assert_ne!(error.retry(), Retry::Never, "an outage passes");
            assert_eq!(acme.requests(), 1);
        }
    }
}
