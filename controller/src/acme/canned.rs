//! A small ACME server in memory for the tests of this room: it answers well unless told otherwise, insists on fresh
//! nonces, and keeps what it was asked. It has no logic worth testing; e2e has the CA that validates.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use bytes::Bytes;
use http::{Method, Request, Response};
use http_body_util::BodyExt;
use instant_acme::{BodyWrapper, BytesBody, BytesResponse, Error, HttpClient};
use jiff::Timestamp;
use proto::clock::Clock;
use serde_json::{Value, json};

use crate::acme::account::{Account, AccountKey, AccountTerms, Acme};
use crate::acme::directory::Directory;
use crate::acme::http::{Transport, TrustRoots};
use crate::acme::problem::AcmeError;

/// One answer out of turn.
#[derive(Debug)]
pub(crate) enum Canned {
    /// Status, headers, body.
    Answer(u16, Vec<(&'static str, String)>, String),
    /// A problem document of this RFC 8555 type.
    Problem(u16, &'static str),
    /// A head, and a body that never ends.
    Endless,
    /// No answer at all.
    Silence,
    /// No connection.
    Refused,
}

/// What the server was asked.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    pub(crate) line: String,
    pub(crate) payload: Value,
}

#[derive(Debug, Default)]
struct State {
    asked: Vec<Asked>,
    script: HashMap<String, VecDeque<Canned>>,
    documents: HashMap<String, Value>,
    nonces: BTreeSet<String>,
    nonces_made: u64,
}

/// The server, and the transport that leads to it.
#[derive(Clone, Debug)]
pub(crate) struct CannedCa(Arc<Mutex<State>>);

/// A clock that a test moves.
#[derive(Debug)]
pub(crate) struct HandClock(pub(crate) Mutex<Timestamp>);

impl Clock for HandClock {
    fn now(&self) -> Timestamp {
        *self.0.lock().unwrap()
    }
}

impl HandClock {
    pub(crate) fn start() -> Arc<Self> {
        Arc::new(Self(Mutex::new("2026-11-21T12:00:00Z".parse().unwrap())))
    }

    pub(crate) fn forward(&self, hours: i64) {
        *self.0.lock().unwrap() += jiff::SignedDuration::from_hours(hours);
    }
}

impl CannedCa {
    pub(crate) fn new() -> Self {
        let ca = Self(Arc::default());
        ca.document(
            "/dir",
            json!({"newNonce": "https://ca.test/nonce", "newAccount": "https://ca.test/account",
            "newOrder": "https://ca.test/order", "meta": {"termsOfService": "https://ca.test/terms"}}),
        );
        ca.document("/account", json!({"status": "valid"}));
        ca.document("/account/1", json!({"status": "valid"}));
        ca.document("/order", ca.order("pending"));
        ca.document("/order/1", ca.order("ready"));
        ca.document("/order/1/finalize", ca.order("processing"));
        ca.document("/authz/1", ca.authorization("token-1_A"));
        ca.document("/chall/1", json!({"type": "http-01", "url": "https://ca.test/chall/1", "status": "processing"}));
        ca.document("/cert/1", json!("PEM"));
        ca
    }

    pub(crate) fn order(&self, status: &str) -> Value {
        json!({"status": status, "finalize": "https://ca.test/order/1/finalize",
            "authorizations": ["https://ca.test/authz/1"], "certificate": "https://ca.test/cert/1"})
    }

    pub(crate) fn authorization(&self, token: &str) -> Value {
        json!({"status": "pending", "identifier": {"type": "dns", "value": "H1.example.test"}, "challenges": [
            {"type": "dns-01", "url": "https://ca.test/chall/2", "status": "pending", "token": "t"},
            {"type": "http-01", "url": "https://ca.test/chall/1", "status": "pending", "token": token}]})
    }

    /// From now on `path` answers with `document`.
    pub(crate) fn document(&self, path: &str, document: Value) {
        self.0.lock().unwrap().documents.insert(path.to_owned(), document);
    }

    /// The next request to `path` gets this answer; several calls queue up.
    pub(crate) fn next(&self, path: &str, canned: Canned) {
        self.0.lock().unwrap().script.entry(path.to_owned()).or_default().push_back(canned);
    }

    /// All nonces given out so far become bad.
    pub(crate) fn forget_nonces(&self) {
        self.0.lock().unwrap().nonces.clear();
    }

    /// Returns the requests since the last call, as `METHOD /path`.
    pub(crate) fn lines(&self) -> Vec<String> {
        self.0.lock().unwrap().asked.drain(..).map(|asked| asked.line).collect()
    }

    pub(crate) fn asked(&self) -> Vec<Asked> {
        self.0.lock().unwrap().asked.clone()
    }

    pub(crate) fn acme(&self) -> Acme {
        Acme::new(Arc::new(self.clone()), HandClock::start())
    }

    pub(crate) fn directory() -> Directory {
        Directory { url: "https://ca.test/dir".to_owned(), roots: TrustRoots::System }
    }

    /// An account that was used before, whose conversation is warm: directory read, a nonce in hand.
    pub(crate) async fn warm_account(&self) -> Account {
        let key = AccountKey::generate().unwrap();
        let acme = self.acme();
        let account = acme.account(&Self::directory(), &key, &[], AccountTerms::Accepted, None, None).await.unwrap();
        self.lines();
        account
    }

    fn answer(&self, method: &Method, path: &str, body: &[u8]) -> Result<BytesResponse, Error> {
        let mut state = self.0.lock().unwrap();
        let (payload, nonce) = if method == Method::POST { read_jws(body) } else { (Value::Null, None) };
        state.asked.push(Asked { line: format!("{method} {path}"), payload });
        let fresh = format!("nonce-{}", state.nonces_made);
        state.nonces_made += 1;
        state.nonces.insert(fresh.clone());
        let bad_nonce = nonce.is_some_and(|nonce| !state.nonces.remove(&nonce));
        let scripted = state.script.get_mut(path).and_then(VecDeque::pop_front);
        let canned = match scripted {
            Some(canned) => canned,
            None if bad_nonce => Canned::Problem(400, "badNonce"),
            None if path == "/nonce" => Canned::Answer(200, Vec::new(), String::new()),
            None => well(&mut state, path),
        };
        let (status, headers, body): (u16, _, Box<dyn BytesBody>) = match canned {
            Canned::Answer(status, headers, body) => (status, headers, Box::new(Bytes::from(body))),
            Canned::Problem(status, kind) => {
                let problem = json!({"type": format!("urn:ietf:params:acme:error:{kind}"), "detail": "no \u{1b}[31m"});
                (status, Vec::new(), Box::new(Bytes::from(problem.to_string())))
            }
            Canned::Endless => (200, Vec::new(), Box::new(EndlessBody)),
            Canned::Silence | Canned::Refused => {
                let error = io::Error::from(io::ErrorKind::ConnectionRefused);
                return Err(Error::Other(Box::new(error)));
            }
        };
        let mut response = Response::builder().status(status);
        if method != Method::GET {
            response = response.header("Replay-Nonce", fresh);
        }
        for (name, value) in headers {
            response = response.header(name, value);
        }
        Ok(BytesResponse { parts: response.body(()).unwrap().into_parts().0, body })
    }

    fn is_silent(&self, path: &str) -> bool {
        let state = self.0.lock().unwrap();
        matches!(state.script.get(path).and_then(VecDeque::front), Some(Canned::Silence))
    }
}

fn well(state: &mut State, path: &str) -> Canned {
    let Some(document) = state.documents.get(path).cloned() else { return Canned::Problem(404, "malformed") };
    if path == "/order/1/finalize" {
        let mut order = document.clone();
        order["status"] = json!("valid");
        state.documents.insert("/order/1".to_owned(), order);
    }
    let body = document.as_str().map_or_else(|| document.to_string(), str::to_owned);
    match path {
        "/account" => Canned::Answer(201, vec![("Location", "https://ca.test/account/1".to_owned())], body),
        "/order" => Canned::Answer(201, vec![("Location", "https://ca.test/order/1".to_owned())], body),
        _ => Canned::Answer(200, Vec::new(), body),
    }
}

fn read_jws(body: &[u8]) -> (Value, Option<String>) {
    let jws: Value = serde_json::from_slice(body).unwrap();
    let part = |name: &str| -> Value {
        let bytes = BASE64_URL_SAFE_NO_PAD.decode(jws[name].as_str().unwrap()).unwrap();
        if bytes.is_empty() { Value::Null } else { serde_json::from_slice(&bytes).unwrap() }
    };
    (part("payload"), Some(part("protected")["nonce"].as_str().unwrap().to_owned()))
}

impl Transport for CannedCa {
    fn client(&self, _roots: &TrustRoots) -> Result<Box<dyn HttpClient>, AcmeError> {
        Ok(Box::new(self.clone()))
    }
}

impl HttpClient for CannedCa {
    fn request(
        &self,
        request: Request<BodyWrapper<Bytes>>,
    ) -> Pin<Box<dyn Future<Output = Result<BytesResponse, Error>> + Send>> {
        let ca = self.clone();
        Box::pin(async move {
            let (parts, body) = request.into_parts();
            assert_eq!(parts.uri.authority().unwrap(), "ca.test", "no request may leave the directory's host");
            let body = body.collect().await.unwrap().to_bytes();
            tokio::task::yield_now().await; // as a network would: others run meanwhile
            if ca.is_silent(parts.uri.path()) {
                std::future::pending::<()>().await;
            }
            ca.answer(&parts.method, parts.uri.path(), &body)
        })
    }
}

struct EndlessBody;

#[async_trait]
impl BytesBody for EndlessBody {
    async fn into_bytes(&mut self) -> Result<Bytes, Box<dyn std::error::Error + Send + Sync>> {
        std::future::pending().await
    }
}
