//! First contact and the daily new leaf of agents (features.md O6). A join token is spent in one durable write; the same
//! key may ask again and gets the same identity. Called by `rpc/agent_service`.

use proto::agent::v1::{EnrollRequest, EnrollResponse, RenewIdentityRequest, RenewIdentityResponse};
use proto::id::random_id;
use proto::method::Method;
use proto::text::one_line;
use proto::x509::{CsrFacts, hex};
use sha2::{Digest as _, Sha256};
use tonic::Code;
use tracing::warn;

use super::audited;
use super::greeting::{self, shown};
use super::peer::AgentCaller;
use super::serve::Server;
use super::status::Refusal;
use crate::ca::{CaError, IssuedIdentity};
use crate::lifecycle::agent::{Agent, Hello, JoinToken, Redemption, Standing, TokenRefusal, TokenUse};
use crate::lifecycle::event::Severity;
use crate::lifecycle::holder::{Holder, Leafed};
use crate::lifecycle::problem::{Problem, chain};
use crate::lifecycle::restore::Removed;
use crate::lifecycle::rotation::PeerCa;
use crate::store::records::{Changes, Versioned};
use crate::store::tables::Table;

/// Longer tokens are not even hashed.
pub(super) const TOKEN_CHARS_MAX: usize = 128;

/// No identity is dated by a wrong clock: once the clock is right it would not be valid, or not yet.
pub(super) fn refuse_by_wrong_clock(server: &Server) -> Result<(), Refusal> {
    match server.hub.clock_watch.verdict().problem() {
        Some(problem) => Err(Refusal::new(Code::Unavailable, problem)),
        None => Ok(()),
    }
}

/// Redeems a join token.
pub(crate) async fn enroll(server: &Server, request: EnrollRequest) -> Result<EnrollResponse, Refusal> {
    refuse_by_wrong_clock(server)?;
    let hub = &server.hub;
    if request.token.len() > TOKEN_CHARS_MAX {
        return Err(unknown_token());
    }
    let hash = hex(&Sha256::digest(request.token.as_bytes()));
    let token = hub.store.load::<JoinToken>(&hash).await?.ok_or_else(unknown_token)?;
    let csr = CsrFacts::parse(&request.csr_der).map_err(|error| csr_refused(&CaError::Csr(error)))?;
    let spki = hex(&Sha256::digest(&csr.spki_der));
    let named = hub.store.agent_by_name(&token.value.agent_name).await?;
    let record = named.as_ref().map(|agent| &agent.value);
    let redemption = match token.value.redeem(&spki, record, hub.now()) {
        Ok(redemption) => redemption,
        Err(refusal) => return Err(report_refusal(server, &token.value, refusal).await),
    };
    let id = record.map_or_else(random_id, |agent| agent.id.clone());
    let issued = server.ca.issue_agent(&id, &request.csr_der).map_err(|error| csr_refused(&error))?;
    let hello = Hello {
        version: one_line(&request.agent_version, 64),
        hostname: one_line(&request.hostname, 128),
        ..Hello::default()
    };
    let fresh = Agent {
        id: id.clone(),
        name: token.value.agent_name.clone(),
        standing: Standing::Enrolled,
        spki_sha256: spki.clone(),
        serial: issued.serial.clone(),
        identity_not_after: issued.not_after,
        enrolled_at: hub.now(),
        seen_at: None,
        hello,
        consent: None,
        holder: Holder::default(),
        ca: PeerCa { issued: Some(issued.made.clone()), held: None },
        // They say what the place is for, as its name does.
        labels: record.map(|agent| agent.labels.clone()).unwrap_or_default(),
    };
    let agent = match (redemption, record) {
        (Redemption::Again, Some(agent)) => {
            Agent { serial: fresh.serial, identity_not_after: fresh.identity_not_after, ca: fresh.ca, ..agent.clone() }
        }
        (Redemption::First | Redemption::Again, _) => fresh,
    };
    let actor = format!("agent:{}", agent.name);
    let begun = audited::enters(hub, &actor, Method::AgentEnroll, &spki, &token.value.actor).await?;
    let stored = store(server, token, named, &agent, redemption).await;
    audited::end(hub, begun, &stored).await;
    stored?;
    hub.presence.cut(&id);
    Ok(EnrollResponse { agent_id: id, agent_name: agent.name, leaf_der: issued.leaf_der, ca_der: ca_der(server) })
}

/// Spends the token and writes the agent in one batch: of two that race, one conflicts.
async fn store(
    server: &Server,
    mut token: Versioned<JoinToken>,
    named: Option<Versioned<Agent>>,
    agent: &Agent,
    redemption: Redemption,
) -> Result<(), Refusal> {
    let hub = &server.hub;
    let name = &agent.name;
    let verb = if named.is_some() && redemption == Redemption::First {
        "enrolled again: its host was replaced"
    } else {
        "enrolled"
    };
    let event = hub
        .event("agent.enrolled", format!("{name} {verb} from {}", agent.hello.hostname))
        .of_agent(name)
        .by(&token.value.actor);
    if redemption == Redemption::First {
        token.value.used =
            Some(TokenUse { agent_id: agent.id.clone(), spki_sha256: agent.spki_sha256.clone(), at: hub.now() });
    }
    if let Some(named) = named.as_ref().filter(|_| redemption == Redemption::First) {
        hub.removed(Removed::AgentReplaced, &named.value.id, name).await;
    }
    let changes = Changes::new().update(&token).event(&event);
    let changes = match named {
        Some(named) => changes.update(&Versioned { revision: named.revision, value: agent.clone() }),
        None => changes.insert(agent).claim_name(Table::AgentName, name, &agent.id),
    };
    hub.store.commit(changes).await?;
    Ok(())
}

/// Gives the caller a new leaf for the key it enrolled with.
pub(crate) async fn renew_identity(
    server: &Server,
    caller: &AgentCaller,
    request: RenewIdentityRequest,
) -> Result<RenewIdentityResponse, Refusal> {
    refuse_by_wrong_clock(server)?;
    let csr = CsrFacts::parse(&request.csr_der).map_err(|error| csr_refused(&CaError::Csr(error)))?;
    if csr.spki_der != caller.leaf().spki_der {
        return Err(csr_refused(&CaError::CsrKey));
    }
    let issued: IssuedIdentity =
        server.ca.issue_agent(&caller.id, &request.csr_der).map_err(|error| csr_refused(&error))?;
    let Some(mut agent) = server.hub.store.load::<Agent>(&caller.id).await? else {
        return Err(Refusal::not_found("agent", ""));
    };
    let (hub, known) = (&server.hub, agent.value.holder.clone());
    let address = caller.origin().words();
    let new = Leafed { serial: issued.serial, not_after: issued.not_after, made: issued.made };
    let verdict = agent.value.renewed(&shown(caller, "", &address), new, hub.now());
    let event = greeting::event(hub, &agent.value, &known, verdict);
    let changes = Changes::new().update(&agent);
    hub.store.commit(event.iter().fold(changes, Changes::event)).await?;
    Ok(RenewIdentityResponse { leaf_der: issued.leaf_der, ca_der: ca_der(server) })
}

pub(super) fn ca_der(server: &Server) -> Vec<Vec<u8>> {
    server.ca.roots().iter().map(|root| root.to_vec()).collect()
}

fn unknown_token() -> Refusal {
    token_refused("TOKEN_UNKNOWN", "this join token is not known here")
}

fn token_refused(reason: &str, message: &str) -> Refusal {
    let hint = "make a new one on the controller: certwright agents enroll NAME";
    Refusal::new(Code::PermissionDenied, Problem::new(reason, message, "", hint))
}

pub(super) fn csr_refused(error: &CaError) -> Refusal {
    Refusal::new(Code::InvalidArgument, error.problem())
}

/// A refused token may be a stolen one: the operator sees it.
async fn report_refusal(server: &Server, token: &JoinToken, refusal: TokenRefusal) -> Refusal {
    let name = &token.agent_name;
    let answer = match refusal {
        TokenRefusal::Expired => token_refused("TOKEN_EXPIRED", "this join token has expired"),
        TokenRefusal::Used => token_refused("TOKEN_USED", "this join token was already used by another key"),
        TokenRefusal::NameTaken => Refusal::new(
            Code::PermissionDenied,
            Problem::new(
                "NAME_TAKEN",
                format!("an agent named {name} is already enrolled"),
                "",
                format!("for a reinstalled host: certwright agents enroll {name} --replace; else choose another name"),
            ),
        ),
    };
    let event =
        server.hub.event("agent.enrollment_refused", format!("a join token for {name} was refused: {refusal:?}"));
    let mut event = event.of_agent(name);
    event.severity = Severity::Warn;
    if let Err(error) = server.hub.store.commit(Changes::new().event(&event)).await {
        warn!(error = %chain(&error), "cannot record a refused join token");
    }
    answer
}
