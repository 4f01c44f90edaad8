//! Renewal information (RFC 9773): when the CA wants a certificate renewed, and which order replaces which certificate.
//! Part of the books; what it says is scripted.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::{Answer, Book, Refusal};

/// What the CA says about renewals.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RenewalInfo {
    /// The suggested window.
    pub window: Window,
    /// Where the CA explains itself.
    pub explanation_url: Option<String>,
    /// Retry-After as it is written: seconds, a date, or rubbish.
    pub retry_after: Option<String>,
}

/// A suggested window.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Window {
    /// 2 % of the validity around two thirds of it, as at Let's Encrypt.
    Usual,
    /// The same for every certificate, whether it makes sense or not.
    Fixed(Timestamp, Timestamp),
    /// This document instead.
    Document(Value),
}

impl Default for RenewalInfo {
    fn default() -> Self {
        Self { window: Window::Usual, explanation_url: None, retry_after: Some("21600".to_owned()) }
    }
}

impl Book {
    /// GET of one certificate's renewal information (§4.1); it needs no account.
    pub(in crate::fake_ca) fn renewal_info(&mut self, id: &str) -> Result<Answer, Refusal> {
        let info = self.renewal_info.clone().ok_or_else(|| Refusal(404, "malformed", "not offered".to_owned()))?;
        let Some(number) = self.certificates.iter().position(|issued| issued.renewal_id == id) else {
            self.violations.push(format!("renewal information was asked of {id}, which was never issued"));
            return Err(Refusal(404, "malformed", "no such certificate".to_owned()));
        };
        let issued = &self.certificates[number];
        let order = self.orders.iter().find(|order| order.certificate == Some(number));
        let first = order.and_then(|order| order.identifiers.first()).map_or("", String::as_str);
        let is_for = |window: &Window| !matches!(window, Window::Fixed(start, _) if issued.at >= *start);
        let mut own = self.windows_under.iter().rev();
        let own = own.find(|(suffix, window)| first.ends_with(suffix) && is_for(window));
        let mut value = match own.map_or(info.window, |(_, window)| window.clone()) {
            Window::Usual => {
                let life = issued.not_after.duration_since(issued.not_before);
                let start = issued.not_before + life / 100 * 66;
                json!({ "suggestedWindow": { "start": start.to_string(), "end": (start + life / 50).to_string() } })
            }
            Window::Fixed(start, end) => {
                json!({ "suggestedWindow": { "start": start.to_string(), "end": end.to_string() } })
            }
            Window::Document(value) => value,
        };
        if let Some(url) = info.explanation_url {
            value["explanationURL"] = url.into();
        }
        Ok(Answer { retry_after: info.retry_after, ..Answer::json(200, value) })
    }

    /// Whether a new order may say that it replaces this certificate (§5).
    pub(super) fn check_replaces(
        &mut self,
        account: usize,
        identifiers: &[String],
        id: &str,
        now: Timestamp,
    ) -> Result<(), Refusal> {
        if self.renewal_info.is_none() {
            self.violations.push("an order has `replaces`, which the directory does not offer".to_owned());
        }
        let certificate = self.certificates.iter().position(|issued| issued.renewal_id == id);
        let predecessor = self.orders.iter().find(|order| certificate.is_some() && order.certificate == certificate);
        let Some(predecessor) = predecessor else {
            return Err(Refusal(404, "malformed", format!("no certificate {id} to replace")));
        };
        if predecessor.account != account {
            return Err(Refusal(403, "unauthorized", format!("{id} belongs to another account")));
        }
        if !predecessor.identifiers.iter().any(|name| identifiers.contains(name)) {
            return Err(Refusal(400, "malformed", format!("{id} shares no name with the order")));
        }
        let taken = |order: &&super::Order| order.replaces.as_deref() == Some(id);
        if self.orders.iter().filter(taken).any(|order| self.status(order, now) != "invalid") {
            return Err(Refusal(409, "alreadyReplaced", format!("{id} was already replaced")));
        }
        Ok(())
    }
}
