//! When a certificate renews and why, or why not yet: the table of reasons, what its CA says, the lock. Called by
//! `output/certificate`.

use jiff::Timestamp;
use proto::clock::from_wire;
use proto::operator::v1::{Certificate, Order, Pause, RenewalInfo, RenewalReason};
use serde::Serialize;

use super::block::Block;
use super::failure::ProblemView;
use super::{safe, some, time};
use crate::client::reason;

/// What a CA says about a renewal, in JSON.
#[derive(Debug, Serialize)]
pub(crate) struct RenewalInfoView {
    window_start: Option<Timestamp>,
    window_end: Option<Timestamp>,
    instant: Option<Timestamp>,
    explanation_url: Option<String>,
    ask_at: Option<Timestamp>,
    problem: Option<ProblemView>,
}

/// A line of the table of reasons, in JSON.
#[derive(Debug, Serialize)]
pub(crate) struct ReasonView {
    reason: String,
    holds: bool,
    at: Option<Timestamp>,
}

impl From<&RenewalInfo> for RenewalInfoView {
    fn from(info: &RenewalInfo) -> Self {
        Self {
            window_start: from_wire(info.window_start),
            window_end: from_wire(info.window_end),
            instant: from_wire(info.instant),
            explanation_url: some(&info.explanation_url),
            ask_at: from_wire(info.ask_at),
            problem: info.problem.as_ref().map(ProblemView::from),
        }
    }
}

impl From<&RenewalReason> for ReasonView {
    fn from(line: &RenewalReason) -> Self {
        Self { reason: safe(&line.reason), holds: line.holds, at: from_wire(line.at) }
    }
}

/// Writes why it is ordered now, or why not yet and when.
pub(super) fn explain(block: &mut Block, certificate: &Certificate, now: Timestamp) {
    if let Some(info) = &certificate.renewal_info {
        suggestion(block, info, now);
    }
    if from_wire(certificate.lock_opens_at).is_some_and(|opens| opens > now) {
        block.line(&format!("a new order by hand is locked until {}", time::both(now, certificate.lock_opens_at)));
        block.below(&format!(
            "nothing changed since the last one; if it is needed: certwright certs renew {} --override-lock REASON",
            certificate.name
        ));
    }
    if certificate.reasons.is_empty() {
        return;
    }
    let held = certificate.pause.as_ref();
    block.line("reasons for a new version; the first that holds counts:");
    for line in &certificate.reasons {
        let holds = match (line.holds, from_wire(line.at)) {
            (true, _) if let Some(pause) = held => format!("no: paused by {}{}", safe(&pause.by), of_all(pause)),
            (true, _) => "yes, now".to_owned(),
            (false, Some(_)) => time::both(now, line.at),
            (false, None) => "no".to_owned(),
        };
        block.below(&format!("{:<26} {holds}", reason(&line.reason)));
    }
}

fn of_all(pause: &Pause) -> &'static str {
    if pause.all { " (all)" } else { "" }
}

fn suggestion(block: &mut Block, info: &RenewalInfo, now: Timestamp) {
    if from_wire(info.window_end).is_some() {
        block.line(&format!(
            "its CA suggests a renewal between {} and {}",
            time::both(now, info.window_start),
            time::both(now, info.window_end)
        ));
        block.below(&format!("drawn in it, once: {}", time::both(now, info.instant)));
    } else {
        block.line("its CA says nothing usable about when to renew");
    }
    if !info.explanation_url.is_empty() {
        block.below(&format!("the CA explains why: {}", info.explanation_url));
    }
    block.problem(info.problem.as_ref());
    block.below(&format!("asked again {}", time::both(now, info.ask_at)));
}

/// Says when a failed attempt is tried again, and by which rule.
pub(super) fn explain_wait(block: &mut Block, order: &Order, now: Timestamp) {
    if from_wire(order.retry_at).is_none() {
        return;
    }
    block.below(&format!("next try {}", time::both(now, order.retry_at)));
    if order.attempt > 1 {
        block.below(&format!(
            "attempt {}: waits are 1, 10, 100 minutes, then a day, never more than an eighth of the life that is left; or as the CA says",
            order.attempt
        ));
    }
}
