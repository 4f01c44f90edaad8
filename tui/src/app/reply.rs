//! What answers do to the model. A read that fails because the controller is away leaves the screen as it was; a wish
//! that fails says what happened and what to do. Called by `app::update`.
#![allow(clippy::wildcard_enum_match_arm, reason = "an answer belongs to few of the calls")]

mod team;

use std::time::Duration;

use proto::operator::v1::{
    CertificateAccepted, CheckChallengesResponse, Detected, Issuer, Job, ListLimitsResponse, Seen, SetPauseResponse,
    TargetTest,
};

use crate::app::call::{Call, Page, Reply, Token, Trust};
use crate::app::layer::{Found, Layer, Tests};
use crate::app::link::Link;
use crate::app::{Cmd, Model, many, trust};
use crate::client::{ClientError, ErrorKind, test_verdict};
use crate::screens::overview::AttentionRow;
use crate::screens::{self, Place};
use crate::theme::State;
use crate::widgets::text::count;

/// Takes the answer to `call`.
pub(crate) fn take(model: &mut Model, call: Call, took: Duration, result: Result<Reply, ClientError>) -> Vec<Cmd> {
    match result {
        Ok(reply) => {
            model.heard_at = Some(model.now);
            if let Link::Live { took: last } = &mut model.link {
                *last = took;
            }
            answered(model, call, reply)
        }
        Err(error) => {
            failed(model, &call, &error);
            Vec::new()
        }
    }
}

fn answered(model: &mut Model, call: Call, reply: Reply) -> Vec<Cmd> {
    match reply {
        Reply::Overview(overview) => {
            let rows = overview.attention.iter().map(AttentionRow::from).collect();
            let page = Page { items: rows, total: overview.attention_total, more: false };
            model.overview.attention.take(page, model.now);
            model.overview.counts = Some(*overview);
        }
        Reply::Certificates(page) => {
            let Call::Certificates { filter, sort, .. } = call else { return Vec::new() };
            if filter == model.certificates.filter && sort == model.sort {
                model.certificates.take(page, model.now);
            }
        }
        Reply::Certificate(record) => model.certificate.take(*record, model.now),
        Reply::Versions(versions) => {
            if matches!(&call, Call::Versions(name) if *name == model.certificate.name) {
                model.certificate.versions = Some(versions);
            }
        }
        Reply::Events(events) => {
            let Call::Events { certificate, agent } = call else { return Vec::new() };
            if certificate == model.certificate.name && agent.is_empty() {
                model.certificate.events = events;
            } else if agent == model.agent.name {
                model.agent.events = events;
            }
        }
        Reply::Agents(page, pending) => agents(model, &call, page, pending),
        Reply::Agent(agent) => return agent_answered(model, &call, *agent),
        Reply::Detected(found) => detected(model, &call, *found),
        reply @ (Reply::Jobs(_) | Reply::Job(_) | Reply::SubJobs(_) | Reply::Acted(_)) => {
            return of_jobs(model, call, reply);
        }
        Reply::Issuers(items) => issuers(model, items),
        Reply::Issuer(record) => return issuer_answered(model, &call, *record),
        Reply::Limits(limits) => return limits_answered(model, &call, *limits),
        Reply::IssuerRemoved => return issuer_removed(model, call),
        Reply::Accepted(accepted) => return wish_accepted(model, call, *accepted),
        Reply::Tested(items) => tested(model, &call, items),
        Reply::ChallengesChecked(checked) => challenges_checked(model, &call, *checked),
        Reply::Deleted(waiting) => return deleted(model, &call, waiting),
        Reply::Paused(answer) => return paused(model, *answer),
        Reply::Enrolled(token) => enrolled(model, *token),
        Reply::Forgotten => return forgotten(model, call),
        Reply::Audit(page) => {
            let Call::Audit { filter, .. } = call else { return Vec::new() };
            model.audit.take(&filter, *page, model.now);
        }
        reply @ (Reply::Operators(_)
        | Reply::OperatorAdded(_)
        | Reply::Invited(_)
        | Reply::Operator(_)
        | Reply::OperatorRemoved) => return team::answered(model, call, reply),
        Reply::Restore(restore) => return trust::restored(model, &call, *restore),
        Reply::BackedUp(bytes) => return backed_up(model, &call, bytes),
        Reply::IdentityCa(found) => return trust::rotated(model, &call, *found),
    }
    Vec::new()
}

fn issuers(model: &mut Model, items: Vec<Issuer>) {
    if let Some(wizard) = &mut model.wizard {
        wizard.offer_issuers(&items);
    }
    if let Some(sheet) = &mut model.sheet {
        sheet.offer_issuers(&items);
    }
    items.iter().for_each(|record| tried(model, record));
    let total = items.len().try_into().unwrap_or(u64::MAX);
    model.issuers.take(Page { items, total, more: false }, model.now);
}

/// Shows what agents found, in place of what an earlier test did.
fn tested(model: &mut Model, call: &Call, items: Vec<TargetTest>) {
    let Call::TestTargets(request) = call else { return };
    let draft = request.create.as_ref();
    let certificate = draft.map_or(&request.certificate, |create| &create.name).clone();
    let bad = items.iter().filter(|test| matches!(test_verdict(test), "failed" | "untested")).count();
    let (state, word) = match bad {
        0 => (State::Ok, "would take a deployment".to_owned()),
        _ => (State::Bad, format!("{bad} of {} would not take a deployment", items.len())),
    };
    model.notices.say(model.now, state, format!("test of {certificate}: {word}"));
    let from = if draft.is_some() { Place::AddCertificate } else { Place::Certificate(certificate.clone()) };
    show_found(model, &from, certificate, Found::Targets(items));
}

/// Shows what a CA would see of a certificate's names.
fn challenges_checked(model: &mut Model, call: &Call, checked: CheckChallengesResponse) {
    let Call::CheckChallenges(certificate) = call else { return };
    let bad = checked.names.iter().filter(|name| name.seen() != Seen::Ok).count();
    let unserved = checked.responders.iter().any(|responder| responder.problem.is_some());
    let (state, words) = match bad {
        0 if unserved => (State::Warn, "not every agent serves them".to_owned()),
        0 => (State::Ok, "a CA would see them".to_owned()),
        _ => (State::Bad, format!("{bad} of {} names were not seen", checked.names.len())),
    };
    model.notices.say(model.now, state, format!("challenges of {certificate}: {words}"));
    let from = Place::Certificate(certificate.clone());
    show_found(model, &from, certificate.clone(), Found::Challenges(Box::new(checked)));
}

/// Shows what was found where it was asked for. Who went on, or answers a question, is not interrupted.
fn show_found(model: &mut Model, from: &Place, certificate: String, found: Found) {
    if model.place == *from {
        model.layers.retain(|layer| !matches!(layer, Layer::Tests(_)));
        if model.layers.is_empty() {
            model.layers.push(Layer::Tests(Box::new(Tests { certificate, found, scroll: 0 })));
        }
    }
}

fn backed_up(model: &mut Model, call: &Call, bytes: u64) -> Vec<Cmd> {
    let Call::Backup(wish) = call else { return Vec::new() };
    if let Some(screen) = &mut model.backup {
        screen.done(bytes);
    }
    model.notices.say(model.now, State::Ok, format!("backup: {} bytes written to {}", count(bytes), wish.to));
    if model.place == Place::Backup {
        return model.read();
    }
    // It was left: what it ended as is told, and the next one begins anew.
    model.backup = None;
    model.read()
}

fn issuer_removed(model: &mut Model, call: Call) -> Vec<Cmd> {
    let Call::RemoveIssuer(name) = call else { return Vec::new() };
    model.notices.say(model.now, State::Ok, format!("issuer {name} is removed"));
    leave(model, &Place::Issuer(name), Place::Issuers)
}

fn limits_answered(model: &mut Model, call: &Call, limits: ListLimitsResponse) -> Vec<Cmd> {
    let name = limits.issuer.clone();
    if name == model.issuer.name {
        model.issuer.limits = Some(limits);
    }
    match call {
        Call::SetLimits(_) => saved(model, format!("limits of {name} are set; orders that wait for one ask again")),
        _ => Vec::new(),
    }
}

/// A sheet was accepted: back to what it was about.
fn saved(model: &mut Model, text: String) -> Vec<Cmd> {
    model.notices.say(model.now, State::Ok, text);
    model.sheet = None;
    if model.place == Place::Sheet { model.go_back() } else { model.read() }
}

/// Tells once how a try that was asked for has ended.
fn tried(model: &mut Model, record: &Issuer) {
    if record.checking || record.account_status == "rolling" || model.trying.as_deref() != Some(record.name.as_str()) {
        return;
    }
    model.trying = None;
    match &record.problem {
        None => model.notices.say(
            model.now,
            State::Ok,
            format!("issuer {} works: its account is {}", record.name, record.account_status),
        ),
        Some(problem) => model.notices.fail(model.now, "", problem),
    }
}

fn of_jobs(model: &mut Model, call: Call, reply: Reply) -> Vec<Cmd> {
    match (call, reply) {
        (_, Reply::Jobs(items)) => {
            let total = items.len().try_into().unwrap_or(u64::MAX);
            model.jobs.take(Page { items, total, more: false }, model.now);
        }
        (call, Reply::Job(job)) => return job_answered(model, &call, *job),
        (Call::SubJobs(id), Reply::SubJobs(items)) => {
            let total = items.len().try_into().unwrap_or(u64::MAX);
            model.job.take_subs(&id, Page { items, total, more: false }, model.now);
        }
        (Call::Act(request), Reply::Acted(answer)) => return many::answered(model, *request, &answer),
        _ => {}
    }
    Vec::new()
}

fn job_answered(model: &mut Model, call: &Call, job: Job) -> Vec<Cmd> {
    let cancelled = matches!(call, Call::CancelJob(_));
    model.job.take(job);
    if !cancelled {
        return Vec::new();
    }
    model.notices.say(model.now, State::Ok, "what has not begun is taken back; what has begun goes on");
    model.read()
}

fn issuer_answered(model: &mut Model, call: &Call, record: Issuer) -> Vec<Cmd> {
    let name = record.name.clone();
    if !call.reads() {
        model.trying = Some(name.clone());
    }
    match call {
        Call::AddIssuer(_) => {
            model.notices.say(model.now, State::Ok, format!("issuer {name} was added; it is tried now"));
            model.sheet = None;
            let cmds = model.go(Place::Issuer(name), false);
            model.back = vec![Place::Issuers];
            model.issuer.take(record);
            return cmds;
        }
        Call::SetIssuer(_) => {
            model.issuer.take(record);
            return saved(model, format!("issuer {name} is changed; it is tried now"));
        }
        _ => {}
    }
    let said = match call {
        Call::TestIssuer(_) => Some(format!("issuer {name} is being tried")),
        Call::Rollover(_) => Some(format!("the account of {name} gets another key; its orders wait meanwhile")),
        _ => None,
    };
    if call.reads() {
        tried(model, &record);
    }
    model.issuer.take(record);
    match said {
        None => Vec::new(),
        Some(text) => {
            model.notices.say(model.now, State::Ok, text);
            model.read()
        }
    }
}

fn agents(
    model: &mut Model,
    call: &Call,
    page: Page<proto::operator::v1::Agent>,
    pending: Vec<proto::operator::v1::PendingEnrollment>,
) {
    let Call::Agents { filter, .. } = call else { return };
    if let Some(wizard) = &mut model.wizard
        && filter.is_empty()
    {
        wizard.offer_agents(&page.items);
    }
    if model.place == Place::IdentityCa {
        model.identity_ca.take_agents(page.items, model.now);
        return;
    }
    if *filter == model.agents.filter && model.place != Place::AddCertificate {
        model.agents.take(page, model.now);
        model.pending = pending;
    }
}

fn forgotten(model: &mut Model, call: Call) -> Vec<Cmd> {
    let Call::Forget(name) = call else { return Vec::new() };
    model.notices.say(model.now, State::Ok, format!("agent {name} is forgotten"));
    leave(model, &Place::Agent(name), Place::Agents)
}

fn detected(model: &mut Model, call: &Call, found: Detected) {
    if matches!(call, Call::Detect(_)) {
        let count = found.suggestions.iter().filter(|one| one.kind != "present").count();
        model.notices.say(model.now, State::Ok, format!("{} has looked: {count} suggestion(s)", found.agent));
    }
    model.agent.take_detected(found);
}

fn agent_answered(model: &mut Model, call: &Call, agent: proto::operator::v1::Agent) -> Vec<Cmd> {
    if let Call::Revoke(name) = call {
        model.notices.say(model.now, State::Ok, format!("agent {name} is revoked: it is cut off now"));
    }
    if let Call::Consent(name) = call {
        model.notices.say(model.now, State::Ok, format!("agent {name} may come back within a day"));
    }
    if let Some(enroll) = &model.enroll
        && model.place == Place::Enroll
        && enroll.is_answered_by(&agent)
    {
        let name = agent.name.clone();
        model.enroll = None;
        model.notices.say(model.now, State::Ok, format!("agent {name} has enrolled"));
        model.back = vec![Place::Agents];
        let back = model.back.clone();
        let cmds = model.go(Place::Agent(name), false);
        model.back = back;
        model.agent.take(agent);
        return cmds;
    }
    model.agent.take(agent);
    Vec::new()
}

fn wish_accepted(model: &mut Model, call: Call, accepted: CertificateAccepted) -> Vec<Cmd> {
    for warning in &accepted.warnings {
        model.notices.say(model.now, State::Warn, warning.clone());
    }
    match call {
        Call::Create(request) if request.dry_run => {
            if let Some(wizard) = &mut model.wizard {
                wizard.checked(Ok(accepted));
            }
            Vec::new()
        }
        Call::Create(request) => {
            model.wizard = None;
            model.notices.say(model.now, State::Ok, format!("{} was added; it is issued now", request.name));
            model.certificates.refresh();
            let cmds = model.go(Place::Certificate(request.name), false);
            model.back = vec![Place::Certificates];
            if let Some(record) = accepted.certificate {
                model.certificate.take(record, model.now);
            }
            cmds
        }
        Call::Update(request) => {
            let ordered = if accepted.job_id.is_empty() { "" } else { "; a new version is ordered" };
            if let Some(record) = accepted.certificate {
                model.certificate.take(record, model.now);
            }
            saved(model, format!("{} is changed{ordered}", request.name))
        }
        Call::AddTarget(request) => started(model, "deployment", &request.certificate, accepted),
        Call::SetTarget(request) => {
            let deployed = if accepted.job_id.is_empty() { "" } else { "; it is deployed now" };
            if let Some(record) = accepted.certificate {
                model.certificate.take(record, model.now);
            }
            saved(model, format!("a target of {} is changed{deployed}", request.certificate))
        }
        Call::Renew(request) => started(model, "renewal", &request.name, accepted),
        Call::RevokeVersion(request) => started(model, "revocation", &request.name, accepted),
        Call::Deploy(request) => started(model, "deployment", &request.name, accepted),
        _ => Vec::new(),
    }
}

fn started(model: &mut Model, what: &str, name: &str, accepted: CertificateAccepted) -> Vec<Cmd> {
    model.notices.say(model.now, State::Ok, format!("{what} of {name} started"));
    if let Some(record) = accepted.certificate {
        model.certificate.take(record, model.now);
    }
    model.read()
}

fn paused(model: &mut Model, answer: SetPauseResponse) -> Vec<Cmd> {
    let subject = answer.certificate.as_ref().map_or_else(|| "everything".to_owned(), |record| record.name.clone());
    let word = if answer.pause.is_some() { "is paused: P lifts it" } else { "goes on" };
    model.notices.say(model.now, State::Ok, format!("{subject} {word}"));
    match answer.certificate {
        Some(record) => model.certificate.take(record, model.now),
        None => model.pause = answer.pause,
    }
    model.read()
}

fn deleted(model: &mut Model, call: &Call, waiting: bool) -> Vec<Cmd> {
    let Call::Delete(request) = call else { return Vec::new() };
    let name = request.name.clone();
    if waiting {
        let text = format!("{name} is being deleted: its files go once they are no longer served");
        model.notices.say(model.now, State::Ok, text);
        return model.read();
    }
    model.notices.say(model.now, State::Ok, format!("{name} is deleted; nothing renews it any more"));
    leave(model, &Place::Certificate(name), Place::Certificates)
}

/// Leaves a record that is no more; elsewhere only reads again.
fn leave(model: &mut Model, record: &Place, to: Place) -> Vec<Cmd> {
    if model.place == *record { model.go(to, false) } else { model.read() }
}

fn enrolled(model: &mut Model, token: Token) {
    if let Some(enroll) = &mut model.enroll {
        enroll.token = Some(token);
    }
}

fn failed(model: &mut Model, call: &Call, error: &ClientError) {
    let missing = error.kind == ErrorKind::NotFound;
    let away = error.kind == ErrorKind::Unreachable;
    match call {
        Call::Certificate(name) if missing => model.certificate.vanished(name),
        Call::Agent(_) if missing && model.place == Place::Enroll => {}
        Call::Agent(name) if missing => model.agent.vanished(name),
        Call::Job(id) if missing => model.job.vanished(id),
        Call::Issuer(name) | Call::Limits(name) if missing => model.issuer.vanished(name),
        call if call.reads() => {
            if !away {
                if matches!(call, Call::Audit { .. }) {
                    model.audit.was_refused();
                }
                model.notices.fail(model.now, "", &error.problem);
            }
        }
        Call::Create(request) => {
            if let Some(wizard) = &mut model.wizard {
                wizard.checked(Err(error.clone()));
            }
            if !request.dry_run {
                model.notices.fail(model.now, &doing(call), &error.problem);
            }
        }
        Call::AddIssuer(_) | Call::SetIssuer(_) | Call::SetLimits(_) | Call::Update(_) | Call::SetTarget(_) => {
            if let Some(sheet) = &mut model.sheet {
                sheet.refused(error);
            }
            model.notices.fail(model.now, &doing(call), &error.problem);
        }
        Call::Backup(_) => {
            if let Some(screen) = &mut model.backup {
                screen.failed(&error.problem);
            }
            screens::forget_backup(model);
            model.notices.fail(model.now, &doing(call), &error.problem);
        }
        Call::AddOperator(_) | Call::Invite(_) => {
            if let Some(invite) = model.invite.as_mut().filter(|invite| invite.asked()) {
                invite.refused(error);
            }
            model.notices.fail(model.now, &doing(call), &error.problem);
        }
        Call::Enroll(_) => {
            if let Some(enroll) = &mut model.enroll {
                enroll.refused(error);
            }
            model.notices.fail(model.now, &doing(call), &error.problem);
        }
        _ => model.notices.fail(model.now, &doing(call), &error.problem),
    }
}

fn doing(call: &Call) -> String {
    match call {
        Call::Create(request) => format!("create {}", request.name),
        Call::Renew(request) => format!("renew {}", request.name),
        Call::RevokeVersion(request) => format!("revoke {}", request.name),
        Call::Deploy(request) => format!("deploy {}", request.name),
        Call::Delete(request) => format!("delete {}", request.name),
        Call::Pause(request) if request.paused => format!("pause {}", request.certificate),
        Call::Pause(request) => format!("resume {}", request.certificate),
        Call::Enroll(request) => format!("enrol {}", request.name),
        Call::Revoke(name) => format!("revoke {name}"),
        Call::Consent(name) => format!("let {name} back"),
        Call::Forget(name) => format!("forget {name}"),
        Call::AddIssuer(wish) => format!("add {}", wish.request.name),
        Call::SetIssuer(wish) => format!("change {}", wish.request.name),
        Call::SetLimits(request) => format!("limits of {}", request.issuer),
        Call::Update(request) => format!("change {}", request.name),
        Call::TestTargets(request) => {
            let draft = request.create.as_ref();
            format!("test {}", draft.map_or(&request.certificate, |create| &create.name))
        }
        Call::CheckChallenges(name) => format!("check the challenges of {name}"),
        Call::SetTarget(request) => format!("change a target of {}", request.certificate),
        Call::TestIssuer(name) => format!("test {name}"),
        Call::Rollover(name) => format!("new account key of {name}"),
        Call::RemoveIssuer(name) | Call::RemoveOperator(name) => format!("remove {name}"),
        Call::AddOperator(request) => format!("add {}", request.user),
        Call::Invite(request) => format!("invite {}", request.name),
        Call::SetRole(request) => format!("role of {}", request.name),
        Call::CancelJob(_) => "cancel the job".to_owned(),
        Call::Trust(Trust::Accept { .. }) => "accept the restore".to_owned(),
        Call::Backup(_) => "backup".to_owned(),
        Call::Trust(Trust::Rotate(step)) => format!("identity CA: {}", step.word()),
        Call::Act(request) if request.act.is_empty() => "retry".to_owned(),
        Call::Act(request) => request.act.clone(),
        _ => String::new(),
    }
}
