//! Operators: listed, added, invited, given another role, removed. How one logs in is in `rpc/login`.

use jiff::SignedDuration;
use nix::unistd::{Group, User};
use proto::clock::to_wire;
use proto::id::{JoinToken as Token, random_id};
use proto::operator::v1 as wire;
use proto::text::one_line;
use proto::x509::hex;
use secrecy::ExposeSecret as _;
use sha2::{Digest as _, Sha256};
use tonic::Code;

use super::agents::{PLACEHOLDER, no_address};
use crate::lifecycle::certificate::is_name;
use crate::lifecycle::operator::{Act, INVITATION_LIFE, Invitation, LOCAL, Operator, Proof, Role};
use crate::lifecycle::problem::Problem;
use crate::lifecycle::restore::Removed;
use crate::rpc::ADMIN_GROUP;
use crate::rpc::peer::OperatorCaller;
use crate::rpc::serve::Server;
use crate::rpc::status::Refusal;
use crate::store::operator::OPERATORS_MAX;
use crate::store::records::{Changes, Versioned};
use crate::store::tables::Table;
use crate::tasks::hub::Hub;

/// What root is called.
const ROOT: &str = "local:root";

/// Lists operators, root first, and the invitations that are open.
pub(crate) async fn list(hub: &Hub) -> Result<wire::ListOperatorsResponse, Refusal> {
    let root = wire::Operator {
        name: ROOT.to_owned(),
        role: Role::Owner.word().to_owned(),
        kind: "built-in".to_owned(),
        seen_at: to_wire(hub.operators_seen.at(ROOT)),
        ..Default::default()
    };
    let operators = hub.store.operators().await?;
    let items = std::iter::once(root).chain(operators.iter().map(|operator| view(hub, operator))).collect();
    let open = hub.store.invitations().await?.into_iter().map(|invitation| invitation.value);
    let open = open.filter(|invitation| invitation.used.is_none() && invitation.expires_at > hub.now());
    let pending = open.map(|invitation| wire::PendingInvitation {
        name: invitation.name,
        role: invitation.role.word().to_owned(),
        expires_at: to_wire(Some(invitation.expires_at)),
        created_by: invitation.actor,
    });
    Ok(wire::ListOperatorsResponse { items, pending: pending.collect() })
}

fn view(hub: &Hub, operator: &Versioned<Operator>) -> wire::Operator {
    let Versioned { revision, value: operator } = operator;
    let (kind, uid, not_after) = match &operator.proof {
        Proof::Local { uid } => ("local", *uid, None),
        Proof::Remote { not_after, .. } => ("remote", 0, Some(*not_after)),
    };
    wire::Operator {
        id: operator.id.clone(),
        revision: *revision,
        name: operator.name.clone(),
        role: operator.role.word().to_owned(),
        kind: kind.to_owned(),
        uid,
        created_at: to_wire(Some(operator.created_at)),
        created_by: operator.created_by.clone(),
        seen_at: to_wire(hub.operators_seen.at(&operator.name)),
        identity_not_after: to_wire(not_after),
    }
}

/// Gives a user of this host a role.
pub(crate) async fn add(
    hub: &Hub,
    caller: &OperatorCaller,
    request: wire::AddOperatorRequest,
) -> Result<wire::AddOperatorResponse, Refusal> {
    let role = role(&request.role)?;
    let shown = one_line(&request.user, 80);
    // Names of users have other rules than ours: what NSS knows is one.
    let user = User::from_name(&request.user).ok().flatten().filter(|user| user.name == request.user);
    let Some(user) = user else {
        return Err(Refusal::field(
            "local",
            format!("there is no user \"{shown}\" on the controller's host"),
            "make the user there first (adduser), or invite someone who works elsewhere: certwright operators invite NAME",
        ));
    };
    if user.uid.is_root() {
        return Err(Refusal::field("local", "root is an owner already", "name another user"));
    }
    let operator = Operator {
        id: random_id(),
        name: format!("{LOCAL}{}", user.name),
        role,
        proof: Proof::Local { uid: user.uid.as_raw() },
        created_at: hub.now(),
        created_by: caller.name.clone(),
    };
    refuse_taken(hub, "local", &operator.name).await?;
    let message = format!("{} (uid {}) may act as {role}", operator.name, user.uid);
    let changes = Changes::new()
        .insert(&operator)
        .claim_name(Table::OperatorName, &operator.name, &operator.id)
        .event(&hub.event("operator.added", message).by(&caller.name));
    let revision = hub.store.commit(changes).await?;
    let hint = if reaches_socket(&user) {
        String::new()
    } else {
        format!("usermod -aG {ADMIN_GROUP} {} lets {0} reach the socket; it counts from the next login", user.name)
    };
    let operator = view(hub, &Versioned { revision, value: operator });
    Ok(wire::AddOperatorResponse { operator: Some(operator), hint })
}

/// Whether the user is in the group that the socket belongs to.
fn reaches_socket(user: &User) -> bool {
    let group = Group::from_name(ADMIN_GROUP).ok().flatten();
    group.is_some_and(|group| group.gid == user.gid || group.mem.contains(&user.name))
}

/// Makes a one-time token, and the command that uses it.
pub(crate) async fn invite(
    server: &Server,
    caller: &OperatorCaller,
    request: wire::InviteOperatorRequest,
) -> Result<wire::InviteOperatorResponse, Refusal> {
    let hub = &server.hub;
    let role = role(&request.role)?;
    let name = request.name;
    if !is_name(&name) {
        return Err(Refusal::field(
            "name",
            format!("\"{}\" is not a name", one_line(&name, 80)),
            "use letters, digits, dots, hyphens and underscores, at most 64; a user of this host: certwright operators add --local USER",
        ));
    }
    refuse_taken(hub, "name", &name).await?;
    let token = Token::random(server.ca.pin());
    let expires_at = hub.now() + SignedDuration::try_from(INVITATION_LIFE).unwrap_or(SignedDuration::ZERO);
    let invitation = Invitation {
        hash: hex(&Sha256::digest(token.secret.expose_secret().as_bytes())),
        name: name.clone(),
        role,
        expires_at,
        actor: caller.name.clone(),
        used: None,
    };
    let event = hub
        .event("operator.invited", format!("an invitation for {name} as {role}, valid until {expires_at}"))
        .by(&caller.name);
    // One invitation a name: a new one makes the earlier ones worthless.
    let changes = withdraw(hub, &name, Changes::new()).await?.0;
    hub.store.commit(changes.insert(&invitation).event(&event)).await?;
    let address = server.installation.advertise.as_deref();
    Ok(wire::InviteOperatorResponse {
        token: token.expose().expose_secret().to_owned(),
        command: format!("certwright login --controller {} --invite -", address.unwrap_or(PLACEHOLDER)),
        expires_at: to_wire(Some(expires_at)),
        hint: no_address(address),
    })
}

/// Gives an operator another role; it counts from their next message.
pub(crate) async fn set_role(
    hub: &Hub,
    caller: &OperatorCaller,
    request: wire::SetOperatorRoleRequest,
) -> Result<wire::Operator, Refusal> {
    let role = role(&request.role)?;
    let mut operator = named(hub, &request.name).await?;
    if operator.value.role == role {
        return Ok(view(hub, &operator));
    }
    let message = format!("{} is {role} instead of {}", operator.value.name, operator.value.role);
    if Act::ALL.iter().any(|act| operator.value.role.may(*act) && !role.may(*act)) {
        hub.removed(Removed::OperatorRemoved, &operator.value.id, &operator.value.name).await;
    }
    operator.value.role = role;
    let event = hub.event("operator.role_set", message).by(&caller.name);
    operator.revision = hub.store.commit(Changes::new().update(&operator).event(&event)).await?;
    Ok(view(hub, &operator))
}

/// Removes an operator: their next message is refused, and their open dashboards are cut. Or withdraws an invitation.
pub(crate) async fn remove(
    hub: &Hub,
    caller: &OperatorCaller,
    name: &str,
) -> Result<wire::RemoveOperatorResponse, Refusal> {
    refuse_root(name)?;
    let (changes, withdrawn) = withdraw(hub, name, Changes::new()).await?;
    let operator = hub.store.operator_by_name(name).await?;
    if let Some(operator) = &operator {
        hub.removed(Removed::OperatorRemoved, &operator.value.id, name).await;
    }
    let changes = match (&operator, withdrawn) {
        (Some(operator), _) => {
            let event = hub.event("operator.removed", format!("{name} is refused from now on")).by(&caller.name);
            changes.remove(operator).delete_raw(Table::OperatorName, name).event(&event)
        }
        (None, true) => {
            let event = hub.event("operator.invitation_withdrawn", format!("the invitation for {name} is withdrawn"));
            changes.event(&event.by(&caller.name))
        }
        (None, false) => return Err(Refusal::not_found("operator", &one_line(name, 80))),
    };
    hub.store.commit(changes).await?;
    Ok(wire::RemoveOperatorResponse {})
}

/// Removes the invitations of a name that are not redeemed, and says whether there were any.
async fn withdraw(hub: &Hub, name: &str, changes: Changes) -> Result<(Changes, bool), Refusal> {
    let invitations = hub.store.invitations().await?;
    let of_name: Vec<_> = invitations.iter().filter(|invitation| invitation.value.name == name).collect();
    let open = of_name.iter().any(|invitation| invitation.value.used.is_none());
    // There is one at a time, and one redeemed before it.
    Ok((of_name.into_iter().take(BATCH_INVITATIONS_MAX).fold(changes, Changes::remove), open))
}

/// Most invitations of one name that a batch removes.
const BATCH_INVITATIONS_MAX: usize = 20;

async fn named(hub: &Hub, name: &str) -> Result<Versioned<Operator>, Refusal> {
    refuse_root(name)?;
    let found = hub.store.operator_by_name(name).await?;
    found.ok_or_else(|| Refusal::not_found("operator", &one_line(name, 80)))
}

fn refuse_root(name: &str) -> Result<(), Refusal> {
    if name == ROOT {
        let hint = "root can read the database and its key anyway; give people names of their own";
        let problem = Problem::new("OPERATOR_BUILT_IN", "root is always an owner", "", hint);
        return Err(Refusal::new(Code::FailedPrecondition, problem));
    }
    Ok(())
}

fn role(word: &str) -> Result<Role, Refusal> {
    word.parse().map_err(|_no| {
        let message = format!("\"{}\" is not a role", one_line(word, 40));
        Refusal::field(
            "role",
            message,
            "viewer sees, auditor also sees the audit, maintainer operates, owner may everything",
        )
    })
}

async fn refuse_taken(hub: &Hub, field: &str, name: &str) -> Result<(), Refusal> {
    if hub.store.operator_by_name(name).await?.is_some() {
        return Err(Refusal::field(
            field,
            format!("an operator named {name} exists"),
            format!(
                "change the role: certwright operators role {name} ROLE; or remove it first: certwright operators rm {name}"
            ),
        ));
    }
    if hub.store.operators().await?.len() >= OPERATORS_MAX {
        return Err(Refusal::field(field, format!("there are {OPERATORS_MAX} operators already"), "remove some first"));
    }
    Ok(())
}
