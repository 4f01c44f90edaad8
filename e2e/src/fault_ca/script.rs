//! The script of the fault CA: what it does wrong, and to which requests. Written by tests as JSON, read for every request.
//!
//! ```json
//! { "rules": [{ "kind": "new-order", "times": 1,
//!               "act": { "problem": { "status": 429, "type": "rateLimited", "detail": "…", "retry_after": "600" } } }],
//!   "names": { "h1.example.test": "10.97.0.11" }, "processing_polls": 3, "token": null,
//!   "renewals": { "retry_after": "60", "explanation_url": "https://ca.test/incident",
//!                 "windows": [{ "start": "2026-11-22T04:00:00Z", "end": "2026-11-22T04:00:30Z" },
//!                             { "under": "h1.example.test", "from": "2026-11-22T03:50:00Z", "start": "…", "end": "…" }] } }
//! ```

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::Path;

use bytes::Bytes;
use jiff::{SignedDuration, Timestamp};
use serde::Deserialize;
use serde_json::json;

use super::http::{Content, Reply};
use crate::fake_ca::fault::Mischief;
use crate::fake_ca::{FakeCa, RenewalInfo, Window};

/// The whole script.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Script {
    /// The first rule that fits a request strikes.
    pub rules: Vec<Rule>,
    /// Names the CA can resolve.
    pub names: BTreeMap<String, IpAddr>,
    /// An order stays processing for so many polls after finalize.
    pub processing_polls: u32,
    /// Retry-After beside each order: seconds, or `date+SECONDS` for an HTTP-date so far ahead.
    pub poll_after: Option<String>,
    /// Every challenge is shown with this token.
    pub token: Option<String>,
    /// What is said of renewals (RFC 9773); nothing: the directory does not offer it.
    pub renewals: Option<Renewals>,
}

/// What the CA says about when to renew.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Renewals {
    /// The last one that fits a certificate counts, where that was issued before it; 2 % of the validity around two thirds of it where none does.
    pub windows: Vec<Suggestion>,
    /// Retry-After: seconds, or `date+SECONDS`.
    pub retry_after: Option<String>,
    /// Where the CA explains itself.
    pub explanation_url: Option<String>,
}

/// A window, and whose it is from when on.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Suggestion {
    /// End of the first name of the certificates it is for; all when it is not said.
    #[serde(default)]
    pub under: String,
    /// When it moves there; always when it is not said.
    pub from: Option<Timestamp>,
    /// Its start.
    pub start: Timestamp,
    /// Its end.
    pub end: Timestamp,
}

/// What befalls requests of one kind.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// First part of the path (`directory`, `new-order`, …), `signed` for every POST, or `any`.
    pub kind: String,
    /// How often; always when it is not said.
    pub times: Option<u64>,
    /// So many of a hundred such requests, the same ones in each life of the CA; all when it is not said.
    pub percent: Option<u64>,
    /// What.
    pub act: Act,
}

/// What befalls a request.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Act {
    /// A problem document (RFC 7807).
    Problem {
        /// HTTP status.
        status: u16,
        /// Without `urn:ietf:params:acme:error:`.
        r#type: String,
        /// For people.
        detail: String,
        /// Seconds, or `date+SECONDS` for an HTTP-date so far ahead.
        retry_after: Option<String>,
    },
    /// This body with this status, as JSON.
    Body {
        /// HTTP status.
        status: u16,
        /// Anything.
        text: String,
    },
    /// 200, and so many bytes.
    Long(u64),
    /// 200, and a byte now and then, for ever.
    Drip,
    /// The connection is closed without an answer.
    Close,
    /// No answer, and the connection stays open.
    Hang,
    /// The honest answer, late.
    Delay {
        /// How late.
        milliseconds: u64,
    },
}

impl Script {
    /// Reads the script in a folder; none means no faults.
    ///
    /// # Panics
    /// When it is no script: a test wrote it.
    #[must_use]
    pub fn read(folder: &Path) -> Self {
        let Ok(text) = std::fs::read(folder.join("script.json")) else { return Self::default() };
        serde_json::from_slice(&text).unwrap_or_else(|error| panic!("script.json: {error}"))
    }

    /// Tells the CA its standing misbehaviour, and what it says of renewals now.
    pub(super) fn apply(&self, ca: &FakeCa, now: Timestamp) {
        ca.misbehave(Mischief {
            processing_polls: self.processing_polls,
            token: self.token.clone(),
            ..Mischief::default()
        });
        let info = self.renewals.as_ref().map(|renewals| RenewalInfo {
            window: Window::Usual,
            explanation_url: renewals.explanation_url.clone(),
            retry_after: renewals.retry_after.as_deref().map(|when| written(when, now)),
        });
        ca.offer_renewal_info(info);
        let moved = self.renewals.iter().flat_map(|renewals| &renewals.windows);
        let moved = moved.filter(|one| one.from.is_none_or(|from| from <= now));
        ca.set_windows_under(moved.map(|one| (one.under.clone(), Window::Fixed(one.start, one.end))).collect());
    }

    /// Returns Retry-After beside an answer of this kind.
    pub(super) fn retry_after(&self, kind: &str, now: Timestamp) -> Option<(String, String)> {
        let when = self.poll_after.as_ref().filter(|_| kind == "order")?;
        Some(("Retry-After".to_owned(), written(when, now)))
    }
}

impl Rule {
    /// Whether it may strike a request.
    pub(super) fn is_about(&self, method: &str, kind: &str) -> bool {
        self.kind == kind || self.kind == "any" || (self.kind == "signed" && method == "POST")
    }
}

impl Act {
    /// Returns the dishonest answer; `Delay` has none.
    pub(super) fn reply(self, nonce: &str, now: Timestamp) -> Reply {
        let mut headers = vec![("Replay-Nonce".to_owned(), nonce.to_owned())];
        let (status, content_type, body) = match self {
            Self::Problem { status, r#type, detail, retry_after } => {
                headers.extend(retry_after.map(|when| ("Retry-After".to_owned(), written(&when, now))));
                let kind = format!("urn:ietf:params:acme:error:{type}");
                let document = json!({ "type": kind, "detail": detail, "status": status });
                (status, "application/problem+json", Bytes::from(document.to_string()).into())
            }
            Self::Body { status, text } => (status, "application/json", Bytes::from(text).into()),
            Self::Long(length) => (200, "application/json", Content::Long(length)),
            Self::Drip => (200, "application/json", Content::Drip),
            Self::Hang => (0, "", Content::Never),
            Self::Close | Self::Delay { .. } => return Reply::silent(),
        };
        headers.push(("Content-Type".to_owned(), content_type.to_owned()));
        Reply { status, headers, body }
    }
}

/// Retry-After as it is written: seconds, or an HTTP-date (RFC 9110 §5.6.7).
fn written(when: &str, now: Timestamp) -> String {
    match when.strip_prefix("date+").and_then(|seconds| seconds.parse().ok()) {
        Some(seconds) => (now + SignedDuration::from_secs(seconds)).strftime("%a, %d %b %Y %H:%M:%S GMT").to_string(),
        None => when.to_owned(),
    }
}
