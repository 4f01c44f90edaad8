//! First contact and later leaves of operators away from the controller's host (design §5): as `rpc/enrollment`, with an
//! invitation for the join token. Called by `rpc/operator_service`.

use proto::id::random_id;
use proto::method::Method;
use proto::operator::v1 as wire;
use proto::x509::{CsrFacts, hex};
use sha2::{Digest as _, Sha256};
use tonic::Code;
use tracing::warn;

use super::audited;
use super::enrollment::{TOKEN_CHARS_MAX, ca_der, csr_refused, refuse_by_wrong_clock};
use super::peer::{OperatorCaller, Peer};
use super::serve::Server;
use super::status::Refusal;
use crate::ca::{CaError, IssuedIdentity};
use crate::lifecycle::event::Severity;
use crate::lifecycle::operator::{Invitation, InvitationRefusal, Operator, Proof, Redeemed};
use crate::lifecycle::problem::{Problem, chain};
use crate::lifecycle::rotation::PeerCa;
use crate::store::records::{Changes, Versioned};
use crate::store::tables::Table;

/// Redeems an invitation.
pub(crate) async fn login(server: &Server, request: wire::LoginRequest) -> Result<wire::LoginResponse, Refusal> {
    refuse_by_wrong_clock(server)?;
    let hub = &server.hub;
    if request.token.len() > TOKEN_CHARS_MAX {
        return Err(refused("INVITATION_UNKNOWN", "this invitation is not known here"));
    }
    let hash = hex(&Sha256::digest(request.token.as_bytes()));
    let invitation = hub.store.load::<Invitation>(&hash).await?;
    let invitation = invitation.ok_or_else(|| refused("INVITATION_UNKNOWN", "this invitation is not known here"))?;
    let csr = CsrFacts::parse(&request.csr_der).map_err(|error| csr_refused(&CaError::Csr(error)))?;
    let spki_sha256 = hex(&Sha256::digest(&csr.spki_der));
    let named = hub.store.operator_by_name(&invitation.value.name).await?;
    let first = match invitation.value.redeem(&spki_sha256, named.as_ref().map(|named| &named.value), hub.now()) {
        Ok(first) => first,
        Err(refusal) => return Err(report_refusal(server, &invitation.value, refusal).await),
    };
    let id = named.as_ref().map_or_else(random_id, |named| named.value.id.clone());
    let issued = server.ca.issue_operator(&id, &request.csr_der).map_err(|error| csr_refused(&error))?;
    let operator = match named {
        Some(named) => named.value,
        None => Operator {
            id,
            name: invitation.value.name.clone(),
            role: invitation.value.role,
            proof: Proof::Remote {
                spki_sha256: spki_sha256.clone(),
                serial: issued.serial.clone(),
                not_after: issued.not_after,
                ca: PeerCa { issued: Some(issued.made.clone()), held: None },
            },
            created_at: hub.now(),
            created_by: invitation.value.actor.clone(),
        },
    };
    if first {
        let (name, by) = (&operator.name, &invitation.value.actor);
        let begun = audited::enters(hub, name, Method::OperatorLogin, &spki_sha256, by).await?;
        let stored = store(server, invitation, &operator).await;
        audited::end(hub, begun, &stored).await;
        stored?;
    }
    Ok(answer(server, operator, issued))
}

/// Spends the invitation and writes the operator in one batch: of two that race, one conflicts.
async fn store(server: &Server, mut invitation: Versioned<Invitation>, operator: &Operator) -> Result<(), Refusal> {
    let Proof::Remote { spki_sha256, .. } = &operator.proof else {
        return Err(refused("INVITATION_UNKNOWN", "this invitation is not known here"));
    };
    invitation.value.used = Some(Redeemed { operator_id: operator.id.clone(), spki_sha256: spki_sha256.clone() });
    let message = format!("{} logged in for the first time, as {}", operator.name, operator.role);
    let event = server.hub.event("operator.added", message).by(&operator.name);
    let changes = Changes::new()
        .update(&invitation)
        .insert(operator)
        .claim_name(Table::OperatorName, &operator.name, &operator.id)
        .event(&event);
    server.hub.store.commit(changes).await?;
    Ok(())
}

/// Gives the caller a new leaf for the key they logged in with.
pub(crate) async fn renew(
    server: &Server,
    caller: &OperatorCaller,
    request: wire::RenewLoginRequest,
) -> Result<wire::LoginResponse, Refusal> {
    refuse_by_wrong_clock(server)?;
    let Peer::Tls(Some(leaf), _) = caller.peer() else {
        let hint = "the kernel says who you are at the socket: there is nothing to renew";
        let problem = Problem::new("LOGIN_LOCAL", "only a login from elsewhere has an identity of its own", "", hint);
        return Err(Refusal::new(Code::FailedPrecondition, problem));
    };
    let csr = CsrFacts::parse(&request.csr_der).map_err(|error| csr_refused(&CaError::Csr(error)))?;
    if csr.spki_der != leaf.spki_der {
        return Err(csr_refused(&CaError::CsrKey));
    }
    let Some(mut operator) = server.hub.store.load::<Operator>(&leaf.identity.id).await? else {
        return Err(Refusal::not_found("operator", ""));
    };
    let issued = server.ca.issue_operator(&operator.value.id, &request.csr_der).map_err(|error| csr_refused(&error))?;
    if let Proof::Remote { serial, not_after, ca, .. } = &mut operator.value.proof {
        issued.serial.clone_into(serial);
        *not_after = issued.not_after;
        ca.issued(issued.made.clone());
    }
    server.hub.store.commit(Changes::new().update(&operator)).await?;
    Ok(answer(server, operator.value, issued))
}

fn answer(server: &Server, operator: Operator, issued: IssuedIdentity) -> wire::LoginResponse {
    wire::LoginResponse {
        operator_id: operator.id,
        name: operator.name,
        role: operator.role.word().to_owned(),
        leaf_der: issued.leaf_der,
        ca_der: ca_der(server),
        controller_name: server.installation.name.clone(),
    }
}

fn refused(reason: &str, message: &str) -> Refusal {
    let hint = "ask an owner for a new one: certwright operators invite NAME";
    Refusal::new(Code::PermissionDenied, Problem::new(reason, message, "", hint))
}

/// A refused invitation may be a stolen one: owners see it.
async fn report_refusal(server: &Server, invitation: &Invitation, refusal: InvitationRefusal) -> Refusal {
    let answer = match refusal {
        InvitationRefusal::Expired => refused("INVITATION_EXPIRED", "this invitation has expired"),
        InvitationRefusal::Used => refused("INVITATION_USED", "this invitation was already used by another key"),
        InvitationRefusal::NameTaken => {
            refused("NAME_TAKEN", &format!("an operator named {} exists meanwhile", invitation.name))
        }
    };
    let message = format!("an invitation for {} was refused: {refusal:?}", invitation.name);
    let mut event = server.hub.event("operator.login_refused", message);
    event.severity = Severity::Warn;
    if let Err(error) = server.hub.store.commit(Changes::new().event(&event)).await {
        warn!(error = %chain(&error), "cannot record a refused invitation");
    }
    answer
}
