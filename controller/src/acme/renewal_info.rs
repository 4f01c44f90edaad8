//! Asks a CA when it wants a certificate renewed (RFC 9773): one GET without an account. It decides nothing: what to make
//! of the answer is in `lifecycle/renewal_info`. Called by `tasks/renewal_info`.

use http::Uri;
use jiff::Timestamp;
use proto::text::one_line;
use serde::Deserialize;

use crate::acme::account::Acme;
use crate::acme::directory::Directory;
use crate::acme::problem::{AcmeError, Attempt, Step};
use crate::lifecycle::renewal_info::Suggestion;

/// Longest explanation URL that is kept, characters.
const URL_CHARS_MAX: usize = 300;

impl Acme {
    /// Returns what the CA suggests for the certificate that RFC 9773 §4.1 calls `id`; `None` when its directory does not
    /// offer renewal information. One request once the directory is read.
    ///
    /// # Errors
    /// When the CA does not answer, refuses, or says something else.
    pub async fn renewal_info(&self, directory: &Directory, id: &str) -> Result<Option<Suggestion>, AcmeError> {
        let session = self.session(directory).await?;
        let Some(base) = &session.document.renewal_info else { return Ok(None) };
        let attempt = Attempt { ca: session.ca(), step: Step::RenewalInfo };
        let wrong = |source| AcmeError::Protocol { attempt: attempt.clone(), source };
        let base = base.to_string();
        let uri: Uri =
            format!("{}/{id}", base.trim_end_matches('/')).parse().map_err(|error| wrong(Box::from(error)))?;
        let (body, answer) = session.get(uri, Step::RenewalInfo).await?;
        let document: Document = serde_json::from_slice(&body).map_err(|error| wrong(Box::from(error)))?;
        Ok(Some(Suggestion {
            start: document.suggested_window.start,
            end: document.suggested_window.end,
            explanation_url: document.explanation_url.as_deref().and_then(shown_url),
            retry_after: answer.retry_after,
        }))
    }
}

/// A link for people: a web page, or nothing.
fn shown_url(text: &str) -> Option<String> {
    let uri: Uri = text.parse().ok()?;
    let is_web = matches!(uri.scheme_str(), Some("https" | "http")) && uri.host().is_some();
    (is_web && text.chars().count() <= URL_CHARS_MAX).then(|| one_line(text, URL_CHARS_MAX))
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Document {
    suggested_window: SuggestedWindow,
    #[serde(rename = "explanationURL")]
    explanation_url: Option<String>,
}

#[derive(Deserialize)]
struct SuggestedWindow {
    start: Timestamp,
    end: Timestamp,
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::{Value, json};

    use super::*;
    use crate::acme::canned::{Canned, CannedCa};

    fn offering() -> CannedCa {
        let ca = CannedCa::new();
        ca.document(
            "/dir",
            json!({"newNonce": "https://ca.test/nonce", "newAccount": "https://ca.test/account",
            "newOrder": "https://ca.test/order", "renewalInfo": "https://ca.test/ari/"}),
        );
        ca
    }

    fn window() -> Value {
        json!({"suggestedWindow": {"start": "2026-12-01T00:00:00Z", "end": "2026-12-03T02:00:00+02:00"},
            "explanationURL": "https://ca.test/why"})
    }

    async fn ask(ca: &CannedCa) -> Result<Option<Suggestion>, AcmeError> {
        ca.acme().renewal_info(&CannedCa::directory(), "aki.serial").await
    }

    #[tokio::test]
    async fn a_window_is_read_with_one_request_and_no_nonce() {
        let ca = offering();
        let answer = Canned::Answer(200, vec![("Retry-After", "21600".to_owned())], window().to_string());
        ca.next("/ari/aki.serial", answer);
        let said = ask(&ca).await.unwrap().unwrap();
        assert_eq!(said.start, "2026-12-01T00:00:00Z".parse().unwrap());
        assert_eq!(said.end, "2026-12-03T00:00:00Z".parse().unwrap());
        assert_eq!(said.explanation_url.as_deref(), Some("https://ca.test/why"));
        assert_eq!(said.retry_after, Some(Duration::from_secs(21_600)));
        assert_eq!(ca.lines(), ["GET /dir", "GET /ari/aki.serial"]);
    }

    #[tokio::test]
    async fn a_ca_that_offers_nothing_is_not_asked() {
        let ca = CannedCa::new();
        assert_eq!(ask(&ca).await.unwrap(), None);
        assert_eq!(ca.lines(), ["GET /dir"]);
    }

    #[tokio::test]
    async fn what_is_no_window_is_an_error_and_what_is_no_link_is_dropped() {
        for body in ["{}", "<html>", r#"{"suggestedWindow": {"start": "soon", "end": "later"}}"#, "[[["] {
            let ca = offering();
            ca.next("/ari/aki.serial", Canned::Answer(200, vec![], body.to_owned()));
            assert_eq!(ask(&ca).await.unwrap_err().problem().reason, "CA_NOT_ACME", "{body}");
        }
        let ca = offering();
        ca.next("/ari/aki.serial", Canned::Problem(404, "malformed"));
        assert_eq!(ask(&ca).await.unwrap_err().problem().reason, "ACME_MALFORMED");
        let long = format!("https://ca.test/{}", "x".repeat(400));
        for link in ["javascript:alert(1)", "file:///etc/passwd", "https://ca.test/\u{1b}[2J", long.as_str(), ""] {
            assert_eq!(shown_url(link), None, "{link}");
        }
    }
}
