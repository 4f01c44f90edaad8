//! How answers look: JSON for programs (a contract), tables and blocks for people. Pure: text in, text out, the time is
//! given. Everything from outside passes `proto::text` here. Called by `cli`.

pub(crate) mod accepted;
pub(crate) mod agent;
pub(crate) mod audit;
pub(crate) mod batch;
pub(crate) mod block;
pub(crate) mod certificate;
pub(crate) mod challenge;
pub(crate) mod detected;
pub(crate) mod event;
pub(crate) mod failure;
pub(crate) mod identity_ca;
pub(crate) mod issuer;
pub(crate) mod job;
pub(crate) mod limit;
pub(crate) mod operator;
pub(crate) mod overview;
pub(crate) mod pause;
mod pdf;
pub(crate) mod preset;
mod renewal;
pub(crate) mod restore;
pub(crate) mod table;
pub(crate) mod target;
pub(crate) mod time;
pub(crate) mod trial;
pub(crate) mod version;

use proto::text;
use serde::Serialize;

/// First member of every JSON document.
const API_VERSION: &str = "certwright/v1";
/// Longest text of one field.
const FIELD_CHARS_MAX: usize = 8_192;

/// What `-o` asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Format {
    /// For people, cut to the terminal's width.
    Table,
    /// More columns, never cut.
    Wide,
    /// For programs.
    Json,
    /// One name per line.
    Name,
}

#[derive(Serialize)]
struct Document<T> {
    #[serde(rename = "apiVersion")]
    api_version: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    kind: Option<&'static str>,
    #[serde(flatten)]
    body: T,
}

#[derive(Serialize)]
struct List<T> {
    items: Vec<T>,
    total: u64,
}

/// Returns one JSON document. A body with a `kind` of its own (a certificate's, a job's) is given with `kind` `None`.
pub(crate) fn json(kind: Option<&'static str>, body: impl Serialize) -> String {
    let document = Document { api_version: API_VERSION, kind, body };
    let mut text = serde_json::to_string_pretty(&document).expect("our views have string keys and no failing parts");
    text.push('\n');
    text
}

/// Returns a JSON list. `total` counts all there are, which is what `items` holds.
pub(crate) fn json_list<T: Serialize>(kind: &'static str, items: Vec<T>) -> String {
    let total = u64::try_from(items.len()).unwrap_or(u64::MAX);
    json(Some(kind), List { items, total })
}

/// Returns `text` safe to show, on one line.
pub(crate) fn safe(text: &str) -> String {
    text::one_line(text, FIELD_CHARS_MAX)
}

/// Returns `text` safe to show with its lines, for the output of commands.
pub(crate) fn safe_lines(text: &str) -> String {
    text::many_lines(text, FIELD_CHARS_MAX)
}

/// Returns `text` safe to show, or `None` when it is empty: JSON says `null` for what is absent.
pub(crate) fn some(text: &str) -> Option<String> {
    (!text.is_empty()).then(|| safe(text))
}

/// Returns each text safe to show.
pub(crate) fn each(texts: &[String]) -> Vec<String> {
    texts.iter().map(|text| safe(text)).collect()
}
