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
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::Full;
use instant_acme::{BodyWrapper, BytesResponse, Error, HttpClient};
use jiff::Timestamp;

use crate::acme::directory::{Directory, DirectoryDocument, parse_url};
use crate::acme::http::{Answer, HttpError, Reply, Wire, shown, shown_host};
use crate::acme::problem::{AcmeError, Attempt, Step, is_bad_nonce};

/// RFC 8555 §6.5.1.
const REPLAY_NONCE: HeaderName = HeaderName::from_static("replay-nonce");
/// Most nonces kept: one per parallel order is of use.
const NONCES_MAX: usize = 64;
/// Longest nonce kept; servers use up to about 70 characters.
const NONCE_CHARS_MAX: usize = 512;

/// One server, one trust: shared by all its accounts and orders.
pub(crate) struct Session {
    pub(crate) document: DirectoryDocument,
    /// When the directory was read.
    pub(crate) read_at: Timestamp,
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

    async fn exchange(&self, request: Request<BodyWrapper<Bytes>>, last: &LastAnswer) -> Result<Reply, HttpError> {
        let (method, uri) = (request.method().clone(), request.uri().clone());
        last.set(None);
        if !self.document.allows(&uri) {
            return Err(HttpError::Foreign { url: shown(&uri) });
        }
        let reply = self.wire.send(request).await?;
        last.set(Some(reply.answer));
        if reply.parts.status == StatusCode::BAD_REQUEST && reply.problem().is_some_and(|p| is_bad_nonce(&p)) {
            // The server forgot one: the others are as old or older.
            lock(&self.nonces).clear();
        }
        let reply = if method == Method::HEAD { reply } else { self.absorb_nonce(reply) };
        reply.check(&method, &uri)
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
pub(crate) struct LastAnswer(Arc<Mutex<Option<Answer>>>);

impl LastAnswer {
    pub(crate) fn get(&self) -> Option<Answer> {
        *lock(&self.0)
    }

    fn set(&self, answer: Option<Answer>) {
        *lock(&self.0) = answer;
    }
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

    /// Says what an error of instant-acme means, with what the server said beside it.
    pub(crate) fn explain(&self, step: Step, error: Error) -> AcmeError {
        AcmeError::explain(Attempt { ca: self.session.ca(), step }, error, self.last.get())
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
