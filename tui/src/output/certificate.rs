//! Certificates: the JSON contract of design.md §7, the list, the record, and the explanation.

use jiff::Timestamp;
use proto::clock::from_wire;
use proto::operator::v1::{Authorization, Certificate, CertificateKind, Issue, Order, PhaseStep};
use proto::types::v1::{Http01, TargetStatus, http01};
use serde::Serialize;

use super::block::Block;
use super::failure::ProblemView;
use super::limit::{OrderLimitsView, explain as explain_limits};
use super::pause::{self, PauseView};
use super::renewal::{ReasonView, RenewalInfoView, explain as explain_renewal, explain_wait};
use super::table::Table;
use super::target::{self, TargetView};
use super::version::{RollbackView, VersionView};
use super::{each, safe, some, time};
use crate::client::{custody, key_type, reason};

/// A certificate in JSON.
#[derive(Debug, Serialize)]
pub(crate) struct CertificateView {
    id: String,
    revision: u64,
    name: String,
    kind: &'static str,
    identifiers: Vec<String>,
    issuer: Option<String>,
    fallbacks: Vec<String>,
    profile: Option<String>,
    reuse_key: bool,
    key_type: Option<String>,
    custody: Option<String>,
    http01: Option<String>,
    responders: Vec<String>,
    status: String,
    deployment: String,
    issues: Vec<IssueView>,
    auto_renew: bool,
    renew_at: Option<Timestamp>,
    renew_reason: Option<String>,
    renewal_info: Option<RenewalInfoView>,
    reasons: Vec<ReasonView>,
    lock_opens_at: Option<Timestamp>,
    current: Option<VersionView>,
    targets: Vec<TargetView>,
    order: Option<OrderView>,
    created_at: Option<Timestamp>,
    deleting: bool,
    pause: Option<PauseView>,
    limits: Option<OrderLimitsView>,
    rollback: Option<RollbackView>,
    rollout: Option<String>,
    windows: Vec<String>,
    window_open: bool,
    window_until: Option<Timestamp>,
}

#[derive(Debug, Serialize)]
struct IssueView {
    kind: String,
    cause: String,
    action: Option<String>,
    since_at: Option<Timestamp>,
}

#[derive(Debug, Serialize)]
struct OrderView {
    phase: String,
    attempt: u32,
    issuer: Option<String>,
    profile: Option<String>,
    rehearsal: bool,
    reason: Option<String>,
    started_at: Option<Timestamp>,
    retry_at: Option<Timestamp>,
    error: Option<ProblemView>,
    order_url: Option<String>,
    phases: Vec<PhaseView>,
    authorizations: Vec<AuthorizationView>,
}

#[derive(Debug, Serialize)]
struct PhaseView {
    name: String,
    state: String,
    started_at: Option<Timestamp>,
    took_ms: u64,
    detail: Option<String>,
}

#[derive(Debug, Serialize)]
struct AuthorizationView {
    identifier: String,
    state: String,
    responders_serving: u32,
    responders_total: u32,
}

impl From<&Certificate> for CertificateView {
    fn from(certificate: &Certificate) -> Self {
        Self {
            id: safe(&certificate.id),
            revision: certificate.revision,
            name: safe(&certificate.name),
            kind: kind(certificate.kind),
            identifiers: each(&certificate.identifiers),
            issuer: some(&certificate.issuer),
            fallbacks: each(&certificate.fallbacks),
            profile: some(&certificate.profile),
            reuse_key: certificate.reuse_key,
            key_type: some(key_type(certificate.key_type)),
            custody: some(custody(certificate.custody)),
            http01: certificate.http01.as_ref().and_then(http01_word),
            responders: each(&certificate.responders),
            status: safe(&certificate.status),
            deployment: safe(&certificate.deployment),
            issues: certificate.issues.iter().map(IssueView::from).collect(),
            auto_renew: certificate.auto_renew,
            renew_at: from_wire(certificate.renew_at),
            renew_reason: some(&certificate.renew_reason),
            renewal_info: certificate.renewal_info.as_ref().map(RenewalInfoView::from),
            reasons: certificate.reasons.iter().map(ReasonView::from).collect(),
            lock_opens_at: from_wire(certificate.lock_opens_at),
            current: certificate.current.as_ref().map(VersionView::from),
            targets: certificate.targets.iter().map(TargetView::from).collect(),
            order: certificate.order.as_ref().map(OrderView::from),
            created_at: from_wire(certificate.created_at),
            deleting: certificate.deleting,
            pause: certificate.pause.as_ref().map(PauseView::from),
            limits: certificate.limits.as_ref().map(OrderLimitsView::from),
            rollback: certificate.rollback.as_ref().map(RollbackView::from),
            rollout: some(&certificate.rollout),
            windows: each(&certificate.windows),
            window_open: certificate.window_open,
            window_until: from_wire(certificate.window_until),
        }
    }
}

impl From<&Issue> for IssueView {
    fn from(issue: &Issue) -> Self {
        Self {
            kind: safe(&issue.kind),
            cause: safe(&issue.cause),
            action: some(&issue.action),
            since_at: from_wire(issue.since_at),
        }
    }
}

impl From<&Order> for OrderView {
    fn from(order: &Order) -> Self {
        Self {
            phase: safe(&order.phase),
            attempt: order.attempt,
            issuer: some(&order.issuer),
            profile: some(&order.profile),
            rehearsal: order.rehearsal,
            reason: some(&order.reason),
            started_at: from_wire(order.started_at),
            retry_at: from_wire(order.retry_at),
            error: order.error.as_ref().map(ProblemView::from),
            order_url: some(&order.order_url),
            phases: order.phases.iter().map(PhaseView::from).collect(),
            authorizations: order.authorizations.iter().map(AuthorizationView::from).collect(),
        }
    }
}

impl From<&PhaseStep> for PhaseView {
    fn from(step: &PhaseStep) -> Self {
        Self {
            name: safe(&step.name),
            state: safe(&step.state),
            started_at: from_wire(step.started_at),
            took_ms: step.took_ms,
            detail: some(&step.detail),
        }
    }
}

impl From<&Authorization> for AuthorizationView {
    fn from(authorization: &Authorization) -> Self {
        Self {
            identifier: safe(&authorization.identifier),
            state: safe(&authorization.state),
            responders_serving: authorization.responders_serving,
            responders_total: authorization.responders_total,
        }
    }
}

fn kind(value: i32) -> &'static str {
    match CertificateKind::try_from(value) {
        Ok(CertificateKind::Acme | CertificateKind::Unspecified) => "acme",
        Ok(CertificateKind::Private) => "private",
        Err(_) => "unknown",
    }
}

fn http01_word(http01: &Http01) -> Option<String> {
    http01.mode.as_ref().map(|mode| match mode {
        http01::Mode::StandalonePort(port) => format!("standalone:{port}"),
        http01::Mode::Webroot(dir) => format!("webroot:{}", safe(dir)),
    })
}

/// Returns one certificate as a JSON document.
pub(crate) fn json(certificate: &Certificate) -> String {
    super::json(None, CertificateView::from(certificate))
}

/// Returns certificates as a JSON list.
pub(crate) fn json_list(certificates: &[Certificate]) -> String {
    super::json_list("CertificateList", certificates.iter().map(CertificateView::from).collect())
}

/// Returns certificates as a table.
pub(crate) fn table(certificates: &[Certificate], now: Timestamp, wide: bool) -> Table {
    let mut head = vec!["NAME", "STATUS", "DEPLOYMENT", "EXPIRES", "RENEWS", "TARGETS", "ISSUER", "ISSUES"];
    if wide {
        head.extend(["IDENTIFIERS", "KEY", "CUSTODY", "PHASE", "SERIAL"]);
    }
    let mut table = Table::new(&head);
    for certificate in certificates {
        let version = certificate.current.clone().unwrap_or_default();
        let issues: Vec<&str> = certificate.issues.iter().map(|issue| issue.kind.as_str()).collect();
        let mut row = vec![
            certificate.name.clone(),
            certificate.status.clone(),
            certificate.deployment.clone(),
            time::short(now, version.not_after),
            time::short(now, certificate.renew_at),
            applied(certificate),
            certificate.issuer.clone(),
            issues.join(","),
        ];
        if wide {
            row.extend([
                certificate.identifiers.join(","),
                key_type(certificate.key_type).to_owned(),
                custody(certificate.custody).to_owned(),
                certificate.order.as_ref().map(|order| order.phase.clone()).unwrap_or_default(),
                version.serial,
            ]);
        }
        table.row(row);
    }
    table
}

/// Returns `2/3`: targets where a handshake proved the current version, of all.
fn applied(certificate: &Certificate) -> String {
    let done = certificate.targets.iter().filter(|target| target.status == i32::from(TargetStatus::Applied)).count();
    format!("{done}/{}", certificate.targets.len())
}

/// Returns one certificate for people.
pub(crate) fn describe(certificate: &Certificate, now: Timestamp) -> String {
    let mut block = Block::titled(&headline(certificate));
    block.field("identifiers", &certificate.identifiers.join(", "));
    block.field("issuer", &certificate.issuer);
    block.field("fallbacks", &certificate.fallbacks.join(", "));
    block.field("profile", &certificate.profile);
    let kept = if certificate.reuse_key { ", kept in later versions" } else { "" };
    let key = format!("{}, custody {}{kept}", key_type(certificate.key_type), custody(certificate.custody));
    block.field("key", &key);
    if certificate.kind() != CertificateKind::Private {
        block.field("http-01", &certificate.http01.as_ref().and_then(http01_word).unwrap_or_default());
        block.field("responders", &certificate.responders.join(", "));
    }
    if let Some(version) = &certificate.current {
        block.field("expires", &time::both(now, version.not_after));
        block.field("serial", &version.serial);
        block.field("sha256", &version.fingerprint_sha256);
        block.field("issued by", &version.issuer_cn);
    }
    block.field("renews", &renewal(certificate, now));
    block.field("paused", &paused(certificate, now));
    block.field("rollout", &certificate.rollout);
    block.field("window", &window(certificate, now));
    block.field("rolled back", &rolled_back(certificate, now));
    block.field("revision", &certificate.revision.to_string());
    if !certificate.targets.is_empty() {
        block.section("targets");
        certificate.targets.iter().for_each(|target| target::describe(&mut block, target, now));
    }
    if let Some(order) = &certificate.order {
        block.section("order");
        describe_fallback(&mut block, certificate, order);
        describe_order(&mut block, order, now);
    }
    describe_issues(&mut block, certificate, now);
    block.render()
}

fn headline(certificate: &Certificate) -> String {
    let deleting = if certificate.deleting { ", being deleted" } else { "" };
    let paused = if certificate.pause.is_some() { ", PAUSED" } else { "" };
    let back = if certificate.rollback.is_some() { ", ROLLED BACK" } else { "" };
    format!(
        "{}: {}, deployment {}{deleting}{paused}{back}",
        certificate.name, certificate.status, certificate.deployment
    )
}

/// Returns the hours in which new versions may reach the targets, and whether that is now.
fn window(certificate: &Certificate, now: Timestamp) -> String {
    if certificate.windows.is_empty() {
        return String::new();
    }
    let is = if certificate.window_open { "open" } else { "closed" };
    format!("{}: {is} until {}", certificate.windows.join("; "), time::both(now, certificate.window_until))
}

/// Returns who holds the certificate still and how to lift that; nothing when nobody does.
fn paused(certificate: &Certificate, now: Timestamp) -> String {
    let Some(held) = &certificate.pause else { return String::new() };
    let (what, lift) = if held.all {
        ("everything is ", "certwright resume --all".to_owned())
    } else {
        ("", format!("certwright certs resume {}", certificate.name))
    };
    format!("{what}{}; lifted by `{lift}`", pause::words(held, now))
}

/// Returns what the targets hold instead of the current version, and how long; nothing when they hold that.
fn rolled_back(certificate: &Certificate, now: Timestamp) -> String {
    let Some(rollback) = &certificate.rollback else { return String::new() };
    let version = rollback.version.clone().unwrap_or_default();
    let (expires, until) = (time::both(now, version.not_after), time::both(now, rollback.until_at));
    format!("to serial {}, which expires {expires}; by {}, at most until {until}", version.serial, rollback.by)
}

fn renewal(certificate: &Certificate, now: Timestamp) -> String {
    if !certificate.auto_renew {
        return "never by itself (auto-renew is off)".to_owned();
    }
    match (from_wire(certificate.renew_at), certificate.renew_reason.as_str()) {
        (None, _) => String::new(),
        (Some(_), "") => time::both(now, certificate.renew_at),
        (Some(_), word) => format!("{}, because {}", time::both(now, certificate.renew_at), reason(word)),
    }
}

/// Another issuer than the first is asked, or was.
fn describe_fallback(block: &mut Block, certificate: &Certificate, order: &Order) {
    if !order.issuer.is_empty() && order.issuer != certificate.issuer {
        block.line(&format!("from issuer {}, a fallback of {}", order.issuer, certificate.issuer));
    }
    if order.rehearsal {
        block.line("rehearsed at the staging directory first");
    }
}

fn describe_order(block: &mut Block, order: &Order, now: Timestamp) {
    let attempt = if order.attempt > 1 { format!(", attempt {}", order.attempt) } else { String::new() };
    block.line(&format!("{}{attempt}", order.phase));
    for step in order.phases.iter().filter(|step| step.state != "todo") {
        let took = if step.took_ms > 0 { format!("  {}", time::took(step.took_ms)) } else { String::new() };
        block.below(&format!("{:<12} {}{took}  {}", step.name, step.state, step.detail));
    }
    for authorization in &order.authorizations {
        let Authorization { identifier, state, responders_serving, responders_total } = authorization;
        let serving = if *responders_total > 0 {
            format!(", served by {responders_serving} of {responders_total} responders")
        } else {
            String::new()
        };
        block.below(&format!("{identifier}: {state}{serving}"));
    }
    block.problem(order.error.as_ref());
    if from_wire(order.retry_at).is_some() {
        block.below(&format!("next try {}", time::both(now, order.retry_at)));
    }
}

fn describe_issues(block: &mut Block, certificate: &Certificate, now: Timestamp) {
    if certificate.issues.is_empty() {
        return;
    }
    block.section("issues");
    for issue in &certificate.issues {
        let since = from_wire(issue.since_at).map(|at| format!(" ({})", time::relative(now, at))).unwrap_or_default();
        block.line(&format!("{}: {}{since}", issue.kind, issue.cause));
        if !issue.action.is_empty() {
            block.below(&format!("try: {}", issue.action));
        }
    }
}

/// Returns what the certificate is doing, why, and what to do about it.
pub(crate) fn explain(certificate: &Certificate, now: Timestamp) -> String {
    let mut block = Block::titled(&headline(certificate));
    block.line(&status_sentence(certificate, now));
    if certificate.pause.is_some() {
        block.line(&format!("nothing is ordered and nothing is deployed: {}", paused(certificate, now)));
    }
    let renewal = renewal(certificate, now);
    if !renewal.is_empty() {
        block.line(&format!("it renews {renewal}"));
    }
    explain_renewal(&mut block, certificate, now);
    if let Some(limits) = &certificate.limits {
        explain_limits(&mut block, limits, now);
    }
    if let Some(order) = certificate.order.as_ref().filter(|order| order.phase != "completed") {
        let why = if order.reason.is_empty() { String::new() } else { format!(": {}", reason(&order.reason)) };
        block.line(&format!("an order is in phase {}{why}", order.phase));
        describe_fallback(&mut block, certificate, order);
        if let Some(step) = order.phases.iter().find(|step| step.state == "running" || step.state == "waiting") {
            block.below(&format!("{} is {}: {}", step.name, step.state, step.detail));
        }
        block.problem(order.error.as_ref());
        explain_wait(&mut block, order, now);
    }
    for target in &certificate.targets {
        let (agent, dir) = target::place(target);
        block.line(&format!("on {agent} in {dir}: {}", target_sentence(target.status)));
        target::describe_wait(&mut block, target, now);
        block.problem(target.problem.as_ref());
        if from_wire(target.retry_at).is_some() {
            block.below(&format!("next try {}", time::both(now, target.retry_at)));
        }
    }
    if certificate.targets.is_empty() {
        block.line("it is deployed nowhere: add a place with `certwright targets add`");
    }
    describe_issues(&mut block, certificate, now);
    block.render()
}

fn status_sentence(certificate: &Certificate, now: Timestamp) -> String {
    let expires = certificate.current.as_ref().map(|version| time::both(now, version.not_after)).unwrap_or_default();
    match certificate.status.as_str() {
        "active" => format!("a valid version exists; it expires {expires}"),
        "expired" => format!("the current version expired {expires}"),
        "revoked" => "the current version is revoked".to_owned(),
        "failed" => "no version could be obtained".to_owned(),
        "pending" => "no version has been obtained yet".to_owned(),
        other => format!("its status is {other}"),
    }
}

fn target_sentence(status: i32) -> &'static str {
    match TargetStatus::try_from(status) {
        Ok(TargetStatus::Unspecified | TargetStatus::Pending) => "not deployed yet",
        Ok(TargetStatus::Applied) => "a TLS handshake shows the current version",
        Ok(TargetStatus::Unproven) => "the files are in place, but no --verify endpoint proves that they are served",
        Ok(TargetStatus::NotLive) => "the files are in place, but a handshake shows another certificate or none",
        Ok(TargetStatus::RolledBack) => "the previous files were put back",
        Ok(TargetStatus::Failed) => "the deployment failed",
        Ok(TargetStatus::NeedsOperator) => "it waits for an operator",
        Ok(TargetStatus::Drifted) => "a file was changed or removed on the host",
        Err(_) => "in a state this program does not know: it is older than the controller",
    }
}
