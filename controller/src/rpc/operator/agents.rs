//! Agents: listed, invited, revoked, forgotten.

use jiff::SignedDuration;
use proto::clock::to_wire;
use proto::id::JoinToken as Token;
use proto::operator::v1 as wire;
use proto::text::one_line;
use proto::x509::hex;
use secrecy::ExposeSecret as _;
use sha2::{Digest as _, Sha256};
use tonic::Code;

use crate::lifecycle::agent::{Agent, JOIN_TOKEN_LIFE, JoinToken, Standing};
use crate::lifecycle::certificate::is_name;
use crate::lifecycle::desired::Name;
use crate::lifecycle::label;
use crate::lifecycle::problem::Problem;
use crate::lifecycle::restore::Removed;
use crate::rpc::peer::OperatorCaller;
use crate::rpc::serve::Server;
use crate::rpc::status::{Refusal, field_error};
use crate::rpc::views;
use crate::store::batch::CommitError;
use crate::store::certificate::Bundle;
use crate::store::records::{Changes, Versioned};
use crate::store::tables::Table;
use crate::tasks::hub::Hub;

use super::lists::{Page, page};
use super::targets::{BATCH_RECORDS, concerned};

/// Stands where an address is not known.
pub(super) const PLACEHOLDER: &str = "CONTROLLER:7443";
/// Most tokens voided at once: since a new token voids the earlier ones, there is one.
const TOKENS_VOIDED_MAX: usize = 20;
/// Most unused join tokens listed.
const PENDING_MAX: usize = 100;

/// Lists agents, and the join tokens that wait for theirs.
pub(crate) async fn list(hub: &Hub, request: wire::ListAgentsRequest) -> Result<wire::ListAgentsResponse, Refusal> {
    let mut agents = hub.store.agents().await?;
    agents.retain(|agent| match request.filter.strip_prefix("label:") {
        Some(wanted) => label::has(&agent.value.labels, wanted),
        None => agent.value.name.contains(&request.filter) || agent.value.hello.hostname.contains(&request.filter),
    });
    let Page { items, total, next } = page(agents, request.page_size, &request.page_token);
    let mut views = Vec::with_capacity(items.len());
    for agent in &items {
        views.push(view(hub, agent).await?);
    }
    let now = hub.now();
    let tokens = hub.store.list::<JoinToken>("", usize::MAX).await?;
    let pending =
        tokens.into_iter().map(|token| token.value).filter(|token| token.used.is_none() && token.expires_at > now);
    let pending = pending
        .map(|token| wire::PendingEnrollment { agent: token.agent_name, expires_at: to_wire(Some(token.expires_at)) });
    Ok(wire::ListAgentsResponse {
        items: views,
        total,
        next_page_token: next,
        pending: pending.take(PENDING_MAX).collect(),
    })
}

/// Returns one agent.
pub(crate) async fn one(hub: &Hub, name: &str) -> Result<wire::Agent, Refusal> {
    view(hub, &named(hub, name).await?).await
}

async fn view(hub: &Hub, agent: &Versioned<Agent>) -> Result<wire::Agent, Refusal> {
    let bundles = hub.store.bundles_of_agent(&agent.value.id).await?;
    let generation = hub.store.load::<Name>(&agent.value.id).await?.map_or(0, |name| name.value.generation);
    Ok(views::agent(hub, agent, &bundles, generation))
}

async fn named(hub: &Hub, name: &str) -> Result<Versioned<Agent>, Refusal> {
    hub.store.agent_by_name(name).await?.ok_or_else(|| Refusal::not_found("agent", &one_line(name, 80)))
}

/// Makes a join token and the command that uses it.
pub(crate) async fn enroll(
    server: &Server,
    caller: &OperatorCaller,
    request: wire::EnrollAgentRequest,
) -> Result<wire::EnrollAgentResponse, Refusal> {
    let hub = &server.hub;
    let name = request.name;
    if !is_name(&name) {
        return Err(Refusal::field(
            "name",
            format!("\"{}\" is not a name", one_line(&name, 80)),
            "use letters, digits, dots, hyphens and underscores, at most 64; the host's short name is a good choice",
        ));
    }
    let existing = hub.store.agent_by_name(&name).await?;
    if existing.is_some() && !request.replace {
        return Err(Refusal::field(
            "name",
            format!("an agent named {name} is enrolled"),
            format!("for a reinstalled host: certwright agents enroll {name} --replace; else choose another name"),
        ));
    }
    if existing.is_none() && request.replace {
        return Err(Refusal::field(
            "replace",
            format!("there is no agent named {name} to replace"),
            "leave --replace out",
        ));
    }
    let token = Token::random(server.ca.pin());
    let life = SignedDuration::try_from(JOIN_TOKEN_LIFE).unwrap_or(SignedDuration::ZERO);
    let expires_at = hub.now() + life;
    let record = JoinToken {
        hash: hex(&Sha256::digest(token.secret.expose_secret().as_bytes())),
        agent_name: name.clone(),
        replace: request.replace,
        expires_at,
        actor: caller.name.clone(),
        used: None,
    };
    let event = hub
        .event("agent.enrollment_offered", format!("a join token for {name}, valid until {expires_at}"))
        .of_agent(&name)
        .by(&caller.name);
    // One token a name: a new one makes the earlier ones worthless.
    let changes = void_tokens(hub, &name, Changes::new()).await?;
    hub.store.commit(changes.insert(&record).event(&event)).await?;
    let address = server.installation.advertise.clone();
    let hint = no_address(address.as_deref());
    let command = format!(
        "certwright-agent enroll --state /var/lib/certwright-agent --policy /etc/certwright/policy.toml --controller {} --token -",
        address.as_deref().unwrap_or(PLACEHOLDER)
    );
    Ok(wire::EnrollAgentResponse {
        token: token.expose().expose_secret().to_owned(),
        command,
        expires_at: to_wire(Some(expires_at)),
        hint,
    })
}

/// What to do about a command that holds a placeholder; empty when it does not.
pub(super) fn no_address(address: Option<&str>) -> String {
    match address {
        Some(_) => String::new(),
        None => format!(
            "replace {PLACEHOLDER} by this controller's address as others see it; serve --advertise HOST:PORT, or advertise in the configuration, fills it in"
        ),
    }
}

/// Refuses an agent everything from this moment on; its stream is cut.
pub(crate) async fn revoke(hub: &Hub, caller: &OperatorCaller, name: &str) -> Result<wire::Agent, Refusal> {
    let agent = named(hub, name).await?.value;
    if agent.standing != Standing::Revoked {
        hub.removed(Removed::AgentRevoked, &agent.id, name).await;
    }
    loop {
        let mut agent = named(hub, name).await?;
        if agent.value.standing == Standing::Revoked {
            return view(hub, &agent).await;
        }
        agent.value.standing = Standing::Revoked;
        let event =
            hub.event("agent.revoked", format!("{name} is refused from now on")).of_agent(name).by(&caller.name);
        // Nor may a token that is still about bring it back.
        let changes = void_tokens(hub, name, Changes::new()).await?;
        match hub.store.commit(changes.update(&agent).event(&event)).await {
            Ok(_) => {}
            // The agent's own calls write the same record: they must not be able to put its revocation off.
            Err(CommitError::Conflict { .. }) => continue,
            Err(error) => return Err(error.into()),
        }
        hub.presence.cut(&agent.value.id);
        for bundle in hub.store.bundles_of_agent(&agent.value.id).await? {
            hub.wake.certificates.ring(&bundle.certificate.value.id);
        }
    }
}

/// Lets an agent come back that was away for too long: once, with the key it enrolled with, within a day.
pub(crate) async fn consent(hub: &Hub, caller: &OperatorCaller, name: &str) -> Result<wire::Agent, Refusal> {
    loop {
        let mut agent = named(hub, name).await?;
        let Some(consent) = agent.value.consented(&caller.name, hub.now()) else {
            return Err(no_consent(&agent.value));
        };
        let message = format!("{name} may come back until {}", consent.until);
        agent.value.consent = Some(consent);
        let event = hub.event("agent.consented", message).of_agent(name).by(&caller.name);
        match hub.store.commit(Changes::new().update(&agent).event(&event)).await {
            Ok(_) => return view(hub, &agent).await,
            Err(CommitError::Conflict { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

fn no_consent(agent: &Agent) -> Refusal {
    let Agent { name, .. } = agent;
    let problem = match agent.standing {
        Standing::Revoked => Problem::new(
            "AGENT_REVOKED",
            format!("agent {name} is revoked: it never comes back by itself"),
            "",
            format!("to take that server in again: certwright agents enroll {name} --replace"),
        ),
        Standing::Enrolled => Problem::new(
            "CONSENT_NOT_NEEDED",
            format!("agent {name} needs no consent: its identity is valid"),
            "",
            "nothing to do; if it is not connected, look at its journal: journalctl -u certwright-agent",
        ),
    };
    Refusal::new(Code::FailedPrecondition, problem)
}

/// Changes what operators say of an agent. No target follows from it: a label names agents when it is used.
pub(crate) async fn set(
    hub: &Hub,
    caller: &OperatorCaller,
    request: wire::SetAgentRequest,
) -> Result<wire::Agent, Refusal> {
    let mut errors = Vec::new();
    let hint = "write for example role=web; role- takes it away";
    let mut fresh = label::Labels::new();
    for text in request.labels.iter().take(label::LABELS_MAX + 1) {
        match label::parse(&one_line(text, label::SHOWN_CHARS_MAX)) {
            Ok((key, value)) => drop(fresh.insert(key, value)),
            Err(message) => errors.push(field_error("label", message, hint)),
        }
    }
    let mut agent = named(hub, &request.name).await?;
    let before = agent.value.labels.clone();
    agent.value.labels.retain(|key, _| !request.remove_labels.contains(key));
    agent.value.labels.extend(fresh);
    if agent.value.labels.len() > label::LABELS_MAX {
        let message = format!("an agent has at most {} labels", label::LABELS_MAX);
        errors.push(field_error("label", message, "take one away: KEY-"));
    }
    if !errors.is_empty() {
        return Err(Refusal::fields(errors));
    }
    if agent.value.labels == before {
        return view(hub, &agent).await;
    }
    let (name, words) = (agent.value.name.clone(), label::words(&agent.value.labels).join(" "));
    let message = if words.is_empty() { format!("{name} has no label") } else { format!("{name} has {words}") };
    let event = hub.event("agent.labelled", message).of_agent(&name).by(&caller.name);
    hub.store.commit(Changes::new().update(&agent).event(&event)).await?;
    one(hub, &name).await
}

/// Removes an agent that nothing needs any more.
pub(crate) async fn forget(
    hub: &Hub,
    caller: &OperatorCaller,
    name: &str,
) -> Result<wire::ForgetAgentResponse, Refusal> {
    let Some(agent) = hub.store.agent_by_name(name).await? else { return cancel_enrollment(hub, caller, name).await };
    let bundles = hub.store.bundles_of_agent(&agent.value.id).await?;
    // A link too many may have stayed behind: only what the certificate says counts.
    let needing = bundles.iter().filter(|bundle| concerned(bundle).contains(&agent.value.id));
    let needing: Vec<&str> = needing.map(|bundle| bundle.certificate.value.name.as_str()).collect();
    if !needing.is_empty() {
        let problem = Problem::new(
            "AGENT_IN_USE",
            format!("agent {name} is a target or responder of {}", needing.join(", ")),
            "",
            "remove it there first: certwright targets rm, certwright certs set --responder; or enroll the host again with --replace",
        );
        return Err(Refusal::new(Code::FailedPrecondition, problem));
    }
    hub.removed(Removed::AgentForgotten, &agent.value.id, name).await;
    let event = hub.event("agent.forgotten", format!("{name} is forgotten")).of_agent(name).by(&caller.name);
    let changes = void_tokens(hub, name, Changes::new())
        .await?
        .remove(&agent)
        .delete_raw(Table::AgentName, name)
        .delete_raw(Table::Desired, &agent.value.id)
        .delete_raw(Table::Detected, &agent.value.id)
        .event(&event);
    hub.store.commit(changes).await?;
    hub.presence.cut(&agent.value.id);
    hub.audit.forget(name);
    for bundles in bundles.chunks(BATCH_RECORDS) {
        let unlink =
            |changes: Changes, bundle: &Bundle| changes.unlink_agent(&agent.value.id, &bundle.certificate.value.id);
        hub.store.commit(bundles.iter().fold(Changes::new(), unlink)).await?;
    }
    Ok(wire::ForgetAgentResponse {})
}

/// A name that only has a join token: the token is cancelled.
async fn cancel_enrollment(
    hub: &Hub,
    caller: &OperatorCaller,
    name: &str,
) -> Result<wire::ForgetAgentResponse, Refusal> {
    let tokens = hub.store.list::<JoinToken>("", usize::MAX).await?;
    if !tokens.iter().any(|token| token.value.agent_name == name && token.value.used.is_none()) {
        return Err(Refusal::not_found("agent", &one_line(name, 80)));
    }
    let event = hub
        .event("agent.enrollment_cancelled", format!("the join token for {name} is cancelled"))
        .of_agent(name)
        .by(&caller.name);
    hub.store.commit(void_tokens(hub, name, Changes::new()).await?.event(&event)).await?;
    Ok(wire::ForgetAgentResponse {})
}

/// Removes the unused join tokens of a name.
async fn void_tokens(hub: &Hub, name: &str, changes: Changes) -> Result<Changes, Refusal> {
    let tokens = hub.store.list::<JoinToken>("", usize::MAX).await?;
    let open = tokens.iter().filter(|token| token.value.agent_name == name && token.value.used.is_none());
    Ok(open.take(TOKENS_VOIDED_MAX).fold(changes, Changes::remove))
}
