//! Acts on many certificates from a list: which rows are marked, what is asked for, and the question that says how many are
//! acted on and who is passed over before anything is done. Pure. Called by `app::act` and `app::reply`.

use std::collections::{BTreeMap, BTreeSet};

use proto::operator::v1::{ActOnCertificatesRequest, ActOnCertificatesResponse};
use tui_input::Input;

use crate::app::call::Call;
use crate::app::layer::{Choice, Confirm, Layer, Note, REASONS};
use crate::app::{Cmd, Model};
use crate::screens::{self, Place};
use crate::theme::State;
use crate::widgets::text::{instant, safe};

/// The act that nothing undoes.
pub(super) const REVOKE: &str = "revoke";
/// From so many on the count must be typed; of what nothing undoes, always.
const TYPED_FROM: u64 = 10;
/// So many that are passed over are named in the question.
const NAMED_MAX: usize = 4;

/// The marked certificates: some by name, which outlive the filter, or all that a filter found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Marks {
    names: BTreeSet<String>,
    all: Option<(String, u64)>,
}

impl Marks {
    /// Whether nothing is marked.
    pub(crate) fn is_empty(&self) -> bool {
        self.names.is_empty() && self.all.is_none()
    }

    /// Whether a row is marked.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.all.is_some() || self.names.contains(name)
    }

    /// Marks a row, or takes its mark away.
    pub(crate) fn turn(&mut self, name: &str) {
        self.all = None;
        if !self.names.remove(name) {
            self.names.insert(name.to_owned());
        }
    }

    /// Marks all that the filter finds, or takes that away.
    pub(crate) fn turn_all(&mut self, filter: &str, total: u64) {
        let all = (filter.to_owned(), total);
        *self = Self { names: BTreeSet::new(), all: (self.all.as_ref() != Some(&all)).then_some(all) };
    }

    /// The filter changed: what was marked as a whole is no longer what shows.
    pub(crate) fn filter_changed(&mut self) {
        self.all = None;
    }

    /// Returns what is marked, in words. `shown` are the names that the list holds.
    pub(crate) fn words(&self, shown: &[&str]) -> Option<String> {
        match &self.all {
            Some((_, total)) => Some(format!("all {total} marked")),
            None if self.names.is_empty() => None,
            None => {
                let hidden = self.names.iter().filter(|name| !shown.contains(&name.as_str())).count();
                let hidden = if hidden > 0 { format!(", {hidden} of them hidden") } else { String::new() };
                Some(format!("{} marked{hidden}", self.names.len()))
            }
        }
    }

    fn request(&self, act: &str) -> ActOnCertificatesRequest {
        let (filter, all) = match &self.all {
            Some((filter, _)) => (filter.clone(), filter.is_empty()),
            None => (String::new(), false),
        };
        let names = self.names.iter().cloned().collect();
        // The reason is chosen in the question; until then there has to be one.
        let reason = if act == REVOKE { "unspecified" } else { "" }.to_owned();
        ActOnCertificatesRequest { act: act.to_owned(), names, filter, all, reason, ..Default::default() }
    }
}

/// `*`: marks all that the filter finds, or takes that away.
pub(crate) fn mark_all(model: &mut Model) -> Vec<Cmd> {
    let (filter, total) = (model.certificates.filter.clone(), model.certificates.total);
    model.marks.turn_all(&filter, total);
    Vec::new()
}

/// Whether acts in the list are about the marked certificates.
pub(crate) fn are_meant(model: &Model) -> bool {
    model.place == Place::Certificates && !model.marks.is_empty()
}

/// Asks what an act on the marked certificates, or on the one here, would do.
pub(crate) fn rehearse(model: &mut Model, act: &str) -> Vec<Cmd> {
    let mut marks = model.marks.clone();
    if marks.is_empty() || model.place != Place::Certificates {
        let Some(record) = screens::certificate_here(model) else { return Vec::new() };
        marks = Marks { names: BTreeSet::from([record.name]), all: None };
    }
    let request = marks.request(act);
    send(model, request)
}

/// Asks what doing again what a job did not do would do.
pub(crate) fn rehearse_retry(model: &mut Model, job_id: String) -> Vec<Cmd> {
    send(model, ActOnCertificatesRequest { failed_of: job_id, ..Default::default() })
}

fn send(model: &mut Model, request: ActOnCertificatesRequest) -> Vec<Cmd> {
    let request = ActOnCertificatesRequest { rehearse: true, request_id: model.wish_id(), ..request };
    vec![model.call(Call::Act(Box::new(request)))]
}

/// Takes the answer to a rehearsal, which becomes a question, or to the act itself.
pub(crate) fn answered(
    model: &mut Model,
    request: ActOnCertificatesRequest,
    answer: &ActOnCertificatesResponse,
) -> Vec<Cmd> {
    if request.rehearse {
        ask(model, request, answer);
        return Vec::new();
    }
    let text = format!("{} of {} certificate(s) started", verb(&answer.act), answer.total);
    model.notices.say(model.now, State::Ok, text);
    model.marks = Marks::default();
    model.go(Place::Job(answer.job_id.clone()), true)
}

fn ask(model: &mut Model, request: ActOnCertificatesRequest, plan: &ActOnCertificatesResponse) {
    if !model.layers.is_empty() {
        model.notices.say(model.now, State::Idle, "ask again once this question is closed");
        return;
    }
    let locked = plan.skipped_by.iter().filter(|one| one.state == "locked").map(|one| one.count).sum::<u64>();
    let only_locked = plan.act == "renew" && locked > 0 && locked == plan.skipped_total;
    if plan.total == 0 && !only_locked {
        let why = if plan.skipped_total == 0 { "nothing is left to do".to_owned() } else { reasons(plan) };
        model.notices.say(model.now, State::Warn, format!("{}: nothing to do: {why}", verb(&plan.act)));
        return;
    }
    let revokes = plan.act == REVOKE;
    let typed = revokes || plan.total >= TYPED_FROM;
    let overrides = plan.act == "renew" && locked > 0 && !typed;
    let request = ActOnCertificatesRequest { rehearse: false, expected: plan.total, ..request };
    let confirm = Confirm {
        title: format!("{} {} certificate(s)", verb(&plan.act), plan.total),
        lines: lines(plan, overrides),
        name: typed.then(|| plan.total.to_string()),
        note: overrides.then_some(Note { needed: plan.total == 0 }),
        input: Input::default(),
        // What is done again for a job keeps that job's reason.
        choice: (revokes && request.failed_of.is_empty()).then(|| Choice::of(&REASONS)),
        verb: verb(&plan.act),
        call: Call::Act(Box::new(request)),
        opens_at: None,
    };
    let confirm = if typed { confirm.read_first(model.now) } else { confirm };
    model.layers.push(Layer::Confirm(Box::new(confirm)));
}

fn lines(plan: &ActOnCertificatesResponse, overrides: bool) -> Vec<String> {
    let what = match plan.act.as_str() {
        "rekey" => "get a new version with a new key, also where it is kept",
        REVOKE => "are revoked; each is replaced at once, with a new key",
        _ => "get a new version",
    };
    let mut lines = vec![format!("{} {what}, as one job.", plan.total)];
    if plan.skipped_total > 0 {
        lines.push(format!("{} are passed over: {}", plan.skipped_total, reasons(plan)));
        let named = plan.skipped.iter().take(NAMED_MAX);
        lines.extend(named.map(|one| format!("· {}: {}", safe(&one.name), safe(&one.why))));
    }
    if plan.last_order_at > 0 {
        lines.push(format!("The CAs' limits let the last order go at {}.", instant(plan.last_order_at)));
    }
    if overrides {
        lines.push("A reason orders the locked ones too.".to_owned());
    }
    if plan.act == REVOKE {
        lines.push("Clients that ask the CA refuse them; it cannot be undone. Why, for the CA:".to_owned());
    }
    lines
}

fn reasons(plan: &ActOnCertificatesResponse) -> String {
    let by: BTreeMap<&str, u64> = plan.skipped_by.iter().map(|one| (one.state.as_str(), one.count)).collect();
    by.iter().map(|(reason, count)| format!("{count} {}", reason.replace('_', " "))).collect::<Vec<_>>().join(", ")
}

fn verb(act: &str) -> &'static str {
    match act {
        "rekey" => "re-key",
        REVOKE => REVOKE,
        _ => "renew",
    }
}
