//! Records as operators see them: computed when asked, never stored. Called by `rpc/operator`.

use std::collections::{HashMap, HashSet};

use jiff::Timestamp;
use proto::clock::to_wire;
use proto::operator::v1 as wire;

use super::convert;
use super::status::Refusal;
use crate::lifecycle::agent::Agent;
use crate::lifecycle::certificate::{Certificate, CurrentVersion, KeySlot, Status, Version};
use crate::lifecycle::deployment::Deployment;
use crate::lifecycle::filter::{Filter, Subject};
use crate::lifecycle::issuer::Issuer;
use crate::lifecycle::job::{Job, Progress, State};
use crate::lifecycle::label;
use crate::lifecycle::lock;
use crate::lifecycle::order::{AuthorizationState, Order, Phase};
use crate::lifecycle::pause::{self, Held, Pause};
use crate::lifecycle::private_ca::{PrivateCa, RevocationList};
use crate::lifecycle::renewal;
use crate::lifecycle::rollback::{self, Rollback};
use crate::lifecycle::rollout::{Plan, Wait};
use crate::lifecycle::target::{Target, TargetState};
use crate::lifecycle::window::{Window, WindowIs};
use crate::store::certificate::Bundle;
use crate::store::records::Versioned;
use crate::tasks::hub::Hub;

mod phases;

/// Names and standing of what certificates refer to by id, read once per view.
pub(super) struct Names {
    agents: HashMap<String, Agent>,
    issuers: HashMap<String, String>,
    private_cas: HashSet<String>,
    pause: Option<Pause>,
}

impl Names {
    pub(super) async fn read(hub: &Hub) -> Result<Self, Refusal> {
        let agents = hub.store.agents().await?.into_iter().map(|agent| (agent.value.id.clone(), agent.value)).collect();
        let all = hub.store.issuers().await?;
        let private_cas = all.iter().filter(|issuer| issuer.value.private.is_some());
        let private_cas = private_cas.map(|issuer| issuer.value.id.clone()).collect();
        let issuers = all.into_iter().map(|issuer| (issuer.value.id, issuer.value.name)).collect();
        Ok(Self { agents, issuers, private_cas, pause: hub.store.pause_all().await? })
    }

    pub(super) fn agent(&self, id: &str) -> String {
        self.agents.get(id).map_or_else(|| "(forgotten)".to_owned(), |agent| agent.name.clone())
    }

    fn agent_status(&self, hub: &Hub, id: &str, now: Timestamp) -> &'static str {
        self.agents.get(id).map_or("revoked", |agent| agent.status(hub.presence.is_connected(id), now))
    }

    /// Whether our own CA is to sign a certificate.
    fn is_private(&self, certificate: &Certificate) -> bool {
        self.private_cas.contains(&certificate.specification.issuer_id)
    }

    pub(super) fn issuer(&self, id: &str) -> String {
        self.issuers.get(id).cloned().unwrap_or_else(|| "(removed)".to_owned())
    }
}

/// A certificate with all that belongs to it.
pub(super) fn certificate(hub: &Hub, names: &Names, bundle: &Bundle) -> wire::Certificate {
    let now = hub.now();
    let record = &bundle.certificate.value;
    let wanted = &record.specification;
    let order = bundle.order.as_ref().map(|order| &order.value);
    let planned = renewal::planned(record, bundle.renewal_info());
    let (plan, window) = (bundle.rollout(now), bundle.window(now));
    let is_private = names.is_private(record);
    let kind = if is_private { wire::CertificateKind::Private } else { wire::CertificateKind::Acme };
    // What costs nothing at a CA is not locked.
    let lock_opens_at = lock::opens_at(record, bundle.renewal_info(), order, hub.lock_share, now);
    wire::Certificate {
        id: record.id.clone(),
        revision: bundle.certificate.revision,
        name: record.name.clone(),
        kind: kind.into(),
        identifiers: wanted.identifiers.clone(),
        issuer: names.issuer(&wanted.issuer_id),
        key_type: convert::key_type(wanted.key_type).into(),
        custody: convert::custody(wanted.custody).into(),
        http01: Some(convert::http01(&wanted.http01)),
        responders: wanted.responders.iter().map(|id| names.agent(id)).collect(),
        status: status(bundle, now).word().to_owned(),
        deployment: deployment(bundle).word().to_owned(),
        issues: issues(hub, names, bundle, now),
        renew_at: to_wire(planned.map(|planned| planned.at)),
        renew_reason: planned.map_or_else(String::new, |planned| planned.reason.word().to_owned()),
        current: record
            .current
            .as_ref()
            .map(|facts| wire::Version { deployed: record.rollback.is_none(), ..current(names, facts) }),
        targets: bundle
            .targets
            .iter()
            .map(|(target, state)| {
                target_view(hub, names, bundle, target, state.as_ref().map(|state| &state.value), &plan)
            })
            .collect(),
        order: order.map(|order| order_view(hub, names, bundle, order)),
        created_at: to_wire(Some(record.created_at)),
        auto_renew: record.auto_renew,
        deleting: record.purging,
        lock_opens_at: to_wire(lock_opens_at.filter(|_| !is_private)),
        renewal_info: bundle.renewal_info().map(convert::renewal_info),
        reasons: renewal::reasons(record, bundle.renewal_info(), now).map(convert::renewal_reason).to_vec(),
        pause: pause::held(record, names.pause.as_ref()).map(pause_view),
        fallbacks: wanted.fallback_ids.iter().map(|id| names.issuer(id)).collect(),
        profile: wanted.profile.clone().unwrap_or_default(),
        reuse_key: wanted.reuse_key,
        limits: None,
        rollback: record.rollback.as_ref().map(|rollback| rollback_view(names, rollback)),
        windows: record.delivery.windows.iter().map(Window::words).collect(),
        window_open: matches!(window, Some(WindowIs::Open(_))),
        window_until: to_wire(window.map(WindowIs::until)),
        rollout: record.delivery.rollout.as_ref().map(|one| one.words(|id| names.agent(id))).unwrap_or_default(),
    }
}

/// Whether a filter finds a certificate. What is served decides about issuer and key; without a version, what is wanted.
pub(super) fn found(names: &Names, bundle: &Bundle, filter: &Filter, now: Timestamp) -> bool {
    let record = &bundle.certificate.value;
    let (wanted, current) = (&record.specification, record.current.as_ref());
    let agents: Vec<String> = bundle.target_agent_ids().iter().map(|id| names.agent(id)).collect();
    let ids = bundle.target_agent_ids();
    let labels: Vec<String> =
        ids.iter().filter_map(|id| names.agents.get(id)).flat_map(|agent| label::words(&agent.labels)).collect();
    let subject = Subject {
        name: &record.name,
        identifiers: &wanted.identifiers,
        issuer: &names.issuer(current.map_or(&wanted.issuer_id, |current| &current.issuer_id)),
        key: current.map_or(wanted.key_type, |current| current.key_type),
        custody: wanted.custody,
        status: status(bundle, now),
        deployment: deployment(bundle),
        agents: &agents,
        labels: &labels,
        expires_at: current.map(|current| current.not_after),
        renews_at: renewal::planned(record, bundle.renewal_info()).map(|planned| planned.at),
    };
    filter.finds(&subject, now)
}

fn pause_view(held: Held<'_>) -> wire::Pause {
    convert::pause(held.pause(), matches!(held, Held::All(_)))
}

/// The certificate's status now.
pub(super) fn status(bundle: &Bundle, now: Timestamp) -> Status {
    let failed = bundle.order.as_ref().is_some_and(|order| order.value.failures > 0);
    bundle.certificate.value.status(failed, now)
}

/// The certificate's deployment now.
pub(super) fn deployment(bundle: &Bundle) -> Deployment {
    let version = bundle.deployed_id();
    Deployment::of(
        bundle
            .targets
            .iter()
            .map(|(target, state)| target.value.status(state.as_ref().map(|state| &state.value), version)),
    )
}

fn rollback_view(names: &Names, rollback: &Rollback) -> wire::Rollback {
    let version = wire::Version { current: false, deployed: true, ..current(names, &rollback.version) };
    wire::Rollback {
        version: Some(version),
        since_at: to_wire(Some(rollback.at)),
        by: rollback.by.clone(),
        until_at: to_wire(Some(rollback.until())),
    }
}

fn current(names: &Names, facts: &CurrentVersion) -> wire::Version {
    wire::Version {
        id: facts.version_id.clone(),
        serial: facts.serial.clone(),
        fingerprint_sha256: facts.fingerprint_sha256.clone(),
        not_before: to_wire(Some(facts.not_before)),
        not_after: to_wire(Some(facts.not_after)),
        issuer_cn: facts.issuer_cn.clone(),
        custody: convert::custody(facts.custody).into(),
        identifiers: facts.identifiers.clone(),
        issued_at: 0,
        current: true,
        deployable: !facts.key_lost,
        reason: String::new(),
        issuer: names.issuer(&facts.issuer_id),
        profile: facts.profile.clone().unwrap_or_default(),
        revoked_at: to_wire(facts.revoked_at),
        revoked_reason: facts.revoked_reason.clone().unwrap_or_default(),
        deployed: false,
    }
}

/// A version in a certificate's history; `slot` is the one of its key.
pub(super) fn version(
    hub: &Hub,
    names: &Names,
    version: &Version,
    slot: Option<&KeySlot>,
    bundle: &Bundle,
) -> wire::Version {
    let now_current = bundle.certificate.value.current.as_ref().filter(|current| current.version_id == version.id);
    let key = rollback::key_is(slot, &bundle.target_agent_ids(), |agent, slot| hub.presence.holds_key(agent, slot));
    let is_fit = || rollback::refusal("", &version.facts, key, hub.now()).is_none();
    wire::Version {
        issued_at: to_wire(Some(version.issued_at)),
        reason: version.reason.clone(),
        current: now_current.is_some(),
        deployable: now_current.map_or_else(is_fit, |current| !current.key_lost),
        deployed: bundle.deployed_id() == Some(version.id.as_str()),
        ..current(names, &version.facts)
    }
}

fn target_view(
    hub: &Hub,
    names: &Names,
    bundle: &Bundle,
    target: &Versioned<Target>,
    state: Option<&TargetState>,
    plan: &Plan,
) -> wire::Target {
    let Versioned { revision, value: target } = target;
    let version = bundle.deployed_id();
    let status = target.status(state, version);
    // What was reported last, and what is served since, stays true until the next report.
    let reported = state;
    // What went wrong with an earlier version does not stand beside a status that is about the current one.
    let state = target.outcome(state, version);
    let doing = hub.presence.of(&target.agent_id).and_then(|connected| connected.doing.get(&target.id).cloned());
    wire::Target {
        id: target.id.clone(),
        spec: Some(convert::target_spec(target, &names.agent(&target.agent_id))),
        status: convert::status(status).into(),
        served_fingerprint_sha256: reported.map(|state| state.served_fingerprint_sha256.clone()).unwrap_or_default(),
        version_id: reported.map(|state| state.version_id.clone()).unwrap_or_default(),
        problem: state.and_then(|state| state.problem.as_ref()).map(convert::problem),
        steps: state.map(|state| convert::steps(&state.steps)).unwrap_or_default(),
        started_at: to_wire(state.and_then(|state| state.started_at)),
        finished_at: to_wire(state.and_then(|state| state.finished_at)),
        retry_at: to_wire(state.and_then(|state| state.retry_at)),
        attempt: state.map_or(0, |state| state.attempt),
        agent_status: names.agent_status(hub, &target.agent_id, hub.now()).to_owned(),
        doing: doing.unwrap_or_default(),
        revision: *revision,
        waits: plan.waits.get(&target.id).map(Wait::words).unwrap_or_default(),
        waits_until: to_wire(plan.look_at.filter(|_| plan.waits.contains_key(&target.id))),
        drift: state.and_then(|state| state.drift.as_ref()).map(convert::drift),
    }
}

fn order_view(hub: &Hub, names: &Names, bundle: &Bundle, order: &Order) -> wire::Order {
    let ids = bundle.responder_ids();
    let responders: Vec<_> = ids.iter().filter_map(|id| hub.presence.of(id)).collect();
    let authorization = |one: &crate::lifecycle::order::Authorization| {
        let serving = responders.iter().filter(|responder| responder.serving.contains(&one.token)).count();
        let state = match one.state {
            AuthorizationState::Pending if serving > 0 => "published",
            AuthorizationState::Pending => "pending",
            AuthorizationState::Answered => "answered",
            AuthorizationState::Valid => "valid",
        };
        wire::Authorization {
            identifier: one.identifier.clone(),
            state: state.to_owned(),
            // Once it is proven nobody serves it any more, and nobody should.
            responders_serving: if one.state == AuthorizationState::Valid { 0 } else { count(serving) },
            responders_total: if one.state == AuthorizationState::Valid { 0 } else { count(ids.len()) },
        }
    };
    wire::Order {
        phase: order.phase.word().to_owned(),
        attempt: order.attempt,
        started_at: to_wire(Some(order.started_at)),
        retry_at: to_wire(order.retry_at.filter(|_| order.phase == Phase::Waiting)),
        error: order.error.as_ref().map(convert::problem),
        phases: phases::steps(hub, bundle, order),
        order_url: order.order_url.clone().unwrap_or_default(),
        authorizations: order.authorizations.iter().map(authorization).collect(),
        reason: order.reason.word().to_owned(),
        issuer: names.issuer(&order.issuer_id),
        profile: order.profile.clone().unwrap_or_default(),
        rehearsal: order.rehearsal,
    }
}

fn count(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

/// Standing facts that an operator should know, each with its cause and what to do.
pub(super) fn issues(hub: &Hub, names: &Names, bundle: &Bundle, now: Timestamp) -> Vec<wire::Issue> {
    let record = &bundle.certificate.value;
    let mut issues = Vec::new();
    let mut add = |kind: &str, cause: String, action: String, since: Option<Timestamp>| {
        issues.push(wire::Issue { kind: kind.to_owned(), cause, action, since_at: to_wire(since) });
    };
    let responders = if names.is_private(record) { Vec::new() } else { bundle.responder_ids() };
    for id in responders {
        if !hub.presence.is_connected(&id) {
            let name = names.agent(&id);
            let since = names.agents.get(&id).and_then(|agent| agent.seen_at);
            add(
                "responder_offline",
                format!("agent {name} is not connected and cannot answer challenges"),
                format!("start certwright-agent on {name}"),
                since,
            );
        }
    }
    if record.current.as_ref().is_some_and(|current| current.key_lost) {
        add(
            "key_lost",
            "the agent no longer has the key of the current version".to_owned(),
            "nothing: a new key is made and certified".to_owned(),
            None,
        );
    }
    if let Some((at, current)) = record.current.as_ref().and_then(|one| one.revoked_at.map(|at| (at, one))) {
        let why = current.revoked_reason.as_deref().map(|why| format!(" ({why})")).unwrap_or_default();
        add(
            "revoked",
            format!("the current version was revoked{why}"),
            "nothing: a new version is ordered".to_owned(),
            Some(at),
        );
    }
    if let Some(order) = bundle.order.as_ref().map(|order| &order.value).filter(|order| order.failures > 0) {
        let kind = if record.current.is_some() { "renewal_failing" } else { "issuance_failing" };
        let (cause, action) =
            order.error.as_ref().map(|error| (error.message.clone(), error.hint.clone())).unwrap_or_default();
        add(kind, cause, action, Some(order.started_at));
    }
    if let Some(order) = bundle.order.as_ref().map(|order| &order.value).filter(|order| order.waits_for_limit()) {
        let (cause, action) =
            order.error.as_ref().map(|error| (error.message.clone(), error.hint.clone())).unwrap_or_default();
        add("limit_holds", cause, action, Some(order.started_at));
    }
    if record.current.as_ref().is_some_and(|current| current.not_after <= now) {
        add(
            "expired",
            "the current version is no longer valid".to_owned(),
            format!("certwright certs renew {}", record.name),
            record.current.as_ref().map(|current| current.not_after),
        );
    }
    issues.extend(delivery_issues(bundle, now));
    issues
}

/// What stands between the current version and its targets.
fn delivery_issues(bundle: &Bundle, now: Timestamp) -> Vec<wire::Issue> {
    let record = &bundle.certificate.value;
    let issue = |kind: &str, cause, action, since| wire::Issue {
        kind: kind.to_owned(),
        cause,
        action,
        since_at: to_wire(since),
    };
    let stopped = bundle.rollout(now).problem(&record.name);
    let stopped = stopped.map(|problem| issue("rollout_stopped", problem.message, problem.hint, None));
    let rolled_back = record.rollback.as_ref().map(|rollback| {
        let cause = format!(
            "the targets hold serial {} instead of the current version, asked by {}; renewal goes on by the current one",
            rollback.version.serial, rollback.by
        );
        let action = format!(
            "certwright certs rollback {} current ends it; a renewal does, and it ends by itself at {:.0}",
            record.name,
            rollback.until()
        );
        issue("rolled_back", cause, action, Some(rollback.at))
    });
    stopped.into_iter().chain(rolled_back).collect()
}

/// A job with how far it is. `order` is the certificate's, while the job is open.
pub(super) fn job(job: &Job, progress: &Progress, order: Option<&Order>) -> wire::Job {
    let revoking = job.revocation.as_ref().map(|revocation| revocation.failures);
    let failures = revoking.or_else(|| order.map(|order| order.failures)).filter(|_| progress.state == State::Waiting);
    wire::Job {
        id: job.id.clone(),
        kind: job.kind.word().to_owned(),
        certificate: job.certificate_name.clone(),
        actor: job.actor.clone(),
        created_at: to_wire(Some(job.created_at)),
        finished_at: to_wire(job.outcome.as_ref().map(|outcome| outcome.at)),
        state: progress.state.word().to_owned(),
        phase: progress.phase.to_owned(),
        retry_at: to_wire(progress.retry_at),
        problem: progress.problem.as_ref().map(convert::problem),
        parent: job.parent.clone().unwrap_or_default(),
        batch: None,
        failures: failures.unwrap_or_default(),
    }
}

/// An issuer.
pub(super) fn issuer(
    issuer: &Versioned<Issuer>,
    list: Option<&RevocationList>,
    certificates: u64,
    limits: &str,
) -> wire::Issuer {
    let record = &issuer.value;
    let facts = record.facts.clone().unwrap_or_default();
    let profiles = facts.profiles.into_iter().map(|(name, description)| wire::IssuerProfile { name, description });
    wire::Issuer {
        id: record.id.clone(),
        revision: issuer.revision,
        name: record.name.clone(),
        directory: record.directory.clone(),
        own_root: record.root_pem.is_some(),
        contacts: record.contacts.clone(),
        terms_accepted: record.terms_accepted,
        account_status: record.account_status().to_owned(),
        account_url: record.account_url.clone().unwrap_or_default(),
        certificates,
        problem: record.problem.as_ref().map(convert::problem),
        checking: record.checking,
        terms_url: facts.terms_of_service.unwrap_or_default(),
        profiles: profiles.collect(),
        external_account_required: facts.external_account_required,
        external_kid: record.external.as_ref().map(|external| external.kid.clone()).unwrap_or_default(),
        profile: record.profile.clone().unwrap_or_default(),
        preferred_chain: record.preferred_chain.clone().unwrap_or_default(),
        staging_directory: record.staging_directory.clone().unwrap_or_default(),
        limits: limits.to_owned(),
        private_ca: record.private.as_ref().map(|ca| private_ca(ca, list)),
    }
}

fn private_ca(ca: &PrivateCa, list: Option<&RevocationList>) -> wire::PrivateCa {
    let roots = ca.roots.iter().rev().map(|root| wire::PrivateRoot {
        pem: root.pem.clone(),
        fingerprint_sha256: root.fingerprint_sha256.clone(),
        not_before: to_wire(Some(root.not_before)),
        not_after: to_wire(Some(root.not_after)),
    });
    wire::PrivateCa {
        common_name: ca.common_name.clone(),
        key_type: convert::key_type(ca.key_type).into(),
        names: ca.names.iter().map(ToString::to_string).collect(),
        leaf_life_seconds: ca.leaf_life_s.unsigned_abs(),
        root_life_seconds: ca.root_life_s.unsigned_abs(),
        list_url: ca.list_url.clone().unwrap_or_default(),
        roots: roots.collect(),
        next_root_at: to_wire(ca.next_root_at()),
        list_number: list.map_or(0, |list| list.number),
        list_made_at: to_wire(list.map(|list| list.this_update)),
        list_next_at: to_wire(list.map(RevocationList::next_at)),
        revoked: list.map_or(0, |list| list.count),
    }
}

/// Whether an agent is ready for the next step of a rotation; nothing in between rotations.
fn identity_ca(hub: &Hub, agent: &Agent) -> &'static str {
    let rotation = hub.rotation.borrow();
    match rotation.forward() {
        Some(step) if agent.ca.lacks(step, &rotation).is_some() => "waits",
        Some(_) => "ready",
        None => "",
    }
}

/// An agent. `bundles` are the certificates it has to do with.
pub(super) fn agent(hub: &Hub, agent: &Versioned<Agent>, bundles: &[Bundle], generation: u64) -> wire::Agent {
    let record = &agent.value;
    let connected = hub.presence.of(&record.id);
    let targets = bundles.iter().flat_map(|bundle| {
        let version = bundle.deployed_id();
        let mine = bundle.targets.iter().filter(|(target, _)| target.value.agent_id == record.id);
        mine.map(move |(target, state)| wire::AgentTarget {
            certificate: bundle.certificate.value.name.clone(),
            dir: target.value.dir.clone(),
            status: convert::status(target.value.status(state.as_ref().map(|state| &state.value), version)).into(),
        })
    });
    wire::Agent {
        id: record.id.clone(),
        revision: agent.revision,
        name: record.name.clone(),
        status: record.status(connected.is_some(), hub.now()).to_owned(),
        version: record.hello.version.clone(),
        hostname: record.hello.hostname.clone(),
        os: record.hello.os.clone(),
        features: record.hello.features.clone(),
        policy: Some(convert::policy(&record.hello.policy)),
        enrolled_at: to_wire(Some(record.enrolled_at)),
        last_seen_at: to_wire(connected.as_ref().map(|connected| connected.seen_at).or(record.seen_at)),
        identity_not_after: to_wire(Some(record.identity_not_after)),
        identity_serial: record.serial.clone(),
        clock_skew_ms: connected.as_ref().map_or(0, |connected| connected.clock_skew_ms),
        targets: targets.collect(),
        generation,
        generation_reported: connected.map_or(0, |connected| connected.generation_reported),
        problems: record.problems(hub.now(), &hub.rotation.borrow()).iter().map(convert::problem).collect(),
        address: record.holder.address.clone(),
        labels: label::words(&record.labels),
        identity_ca: identity_ca(hub, record).to_owned(),
        consent_until: to_wire(record.consent.as_ref().map(|consent| consent.until).filter(|until| *until > hub.now())),
    }
}
