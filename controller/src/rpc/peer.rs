//! Who is calling, and whether they may: decided on every message, from the peer certificate or the socket's peer uid,
//! against the store as it is at that moment (design §5). Called for every request by `rpc/serve`.

use std::net::IpAddr;
use std::pin::Pin;
use std::task::{Context, Poll};

use http::{Request, Response};
use nix::unistd::{Uid, User};
use proto::id::Role;
use proto::method::Method;
use proto::tls;
use sha2::{Digest as _, Sha256};
use tonic::body::Body;
use tonic::{Code, Status};
use tower::{Layer, Service};
use tracing::{debug, warn};

use super::audited;
use super::listener::PeerUser;
use super::roles::{Access, access, is_for_waiting};
use super::status::Refusal;
use crate::lifecycle::agent::{Agent, Permission};
use crate::lifecycle::event::Severity;
use crate::lifecycle::operator::{Act, LOCAL, Operator, Proof, Role as OperatorRole};
use crate::lifecycle::problem::{Problem, chain};
use crate::store::records::{Changes, Versioned};
use crate::tasks::hub::Hub;

/// Who is at the other end of a connection, as its transport proved it.
#[derive(Clone, Debug)]
pub(crate) enum Peer {
    /// A TLS connection, with the peer's leaf if it showed one.
    Tls(Option<tls::Peer>, Origin),
    /// The Unix socket.
    Local(PeerUser),
}

/// Where a connection comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Origin {
    /// The peer's address; none where the kernel did not say.
    pub(crate) address: Option<IpAddr>,
    /// Connections are numbered as they come.
    pub(crate) number: u64,
}

impl Origin {
    /// Says it to people.
    pub(crate) fn words(self) -> String {
        self.address.map_or_else(|| "an unknown address".to_owned(), |address| address.to_string())
    }
}

/// Who may go on, put into the request's extensions.
#[derive(Clone, Debug)]
pub(crate) enum Caller {
    /// Unknown: enrolment proves itself.
    Anyone,
    /// An agent.
    Agent(AgentCaller),
    /// An operator.
    Operator(OperatorCaller),
}

/// An agent, authenticated by its leaf.
#[derive(Clone, Debug)]
pub(crate) struct AgentCaller {
    pub(crate) id: String,
    pub(crate) name: String,
    leaf: tls::Peer,
    origin: Origin,
}

/// An operator.
#[derive(Clone, Debug)]
pub(crate) struct OperatorCaller {
    /// `local:root`, `local:alice`, or as the invitation said.
    pub(crate) name: String,
    pub(crate) role: OperatorRole,
    peer: Peer,
}

/// Decides whether `peer` may call `method` now.
pub(crate) async fn authorize(hub: &Hub, method: Method, peer: &Peer) -> Result<Caller, Refusal> {
    match (access(method), peer) {
        (Access::Anyone, _) => Ok(Caller::Anyone),
        (Access::Agent, Peer::Tls(Some(leaf), origin)) => agent(hub, leaf, *origin, false).await.map(Caller::Agent),
        (Access::AgentAlsoExpired, Peer::Tls(Some(leaf), origin)) => {
            agent(hub, leaf, *origin, true).await.map(Caller::Agent)
        }
        (Access::Operator(act), peer) => {
            let caller = operator(hub, peer).await?;
            if let Err(refusal) = caller.may(act) {
                audited::refused(hub, &caller.name, peer, method, &refusal).await;
                return Err(refusal);
            }
            if hub.gate.is_closed() && !is_for_waiting(method) {
                return Err(refused(
                    "RESTORE_WAITING",
                    "the controller was restored: nothing is changed before that is accepted",
                    "certwright restore status shows what agents hold; certwright restore accept goes on",
                ));
            }
            hub.operators_seen.note(&caller.name, hub.now());
            Ok(Caller::Operator(caller))
        }
        (Access::Agent | Access::AgentAlsoExpired, Peer::Tls(None, _) | Peer::Local(_)) => Err(refused(
            "IDENTITY_MISSING",
            "this call needs an agent's identity",
            "enroll the agent: certwright agents enroll NAME prints the command",
        )),
    }
}

/// Decides again about an operator, in the middle of a stream.
pub(crate) async fn recheck_operator(hub: &Hub, caller: &OperatorCaller) -> Result<(), Refusal> {
    operator(hub, &caller.peer).await?.may(Act::See)
}

/// An agent in the middle of a stream: decided about again on every message. Ten thousand of them say that they are alive
/// all the time, so a record that did not change is not read again.
#[derive(Debug)]
pub(crate) struct Standing {
    pub(crate) caller: AgentCaller,
    /// The record was right at this revision.
    checked: Option<u64>,
}

impl Standing {
    pub(crate) fn new(caller: AgentCaller) -> Self {
        Self { caller, checked: None }
    }

    /// Decides again.
    pub(crate) async fn recheck(&mut self, hub: &Hub) -> Result<(), Refusal> {
        let Self { caller, checked } = self;
        let as_before = |revision| !hub.store.agent_changed_after(&caller.id, revision);
        if checked.is_some_and(as_before) && hub.now() < caller.leaf.not_after {
            return Ok(());
        }
        // Told before the record is read: what is committed meanwhile counts as later.
        let revision = *hub.store.revision().borrow();
        agent(hub, &caller.leaf, caller.origin, false).await?;
        *checked = Some(revision);
        Ok(())
    }
}

async fn agent(hub: &Hub, leaf: &tls::Peer, origin: Origin, renewing: bool) -> Result<AgentCaller, Refusal> {
    // One text for unknown, foreign and revoked: a refused peer learns nothing.
    let refused_identity = || {
        refused(
            "IDENTITY_REFUSED",
            "this agent identity is not accepted",
            "on the controller: certwright agents ls shows it; enroll the host again with certwright agents enroll NAME --replace",
        )
    };
    if leaf.identity.role != Role::Agent {
        return Err(refused_identity());
    }
    let agent = hub.store.load::<Agent>(&leaf.identity.id).await?.ok_or_else(refused_identity)?.value;
    let spki = proto::x509::hex(&Sha256::digest(&leaf.spki_der));
    match agent.permission(&spki, leaf.not_after, hub.now()) {
        Permission::Full => {}
        Permission::RenewOnly if renewing => {}
        Permission::RenewOnly => {
            return Err(refused(
                "IDENTITY_EXPIRED",
                "this agent identity has expired",
                "the agent renews it by itself with RenewIdentity",
            ));
        }
        Permission::NeedsConsent => return Err(needs_consent(hub, &agent, renewing).await),
        Permission::Refused => return Err(refused_identity()),
    }
    Ok(AgentCaller { id: agent.id, name: agent.name, leaf: leaf.clone(), origin })
}

/// It showed the enrolled key, so it may know why; operators learn once that it stands at the door.
async fn needs_consent(hub: &Hub, agent: &Agent, renewing: bool) -> Refusal {
    let name = &agent.name;
    let problem = Problem::new(
        "IDENTITY_NEEDS_CONSENT",
        "this agent was away for too long to come back without an operator's consent",
        format!("its identity ended on {}", agent.identity_not_after.strftime("%F")),
        format!("on the controller: certwright agents consent {name}; this agent then comes back by itself"),
    );
    if renewing && hub.presence.knocks_first(&agent.id) {
        let message = format!("{name} is back after a long absence and waits for consent");
        let event = hub.event("agent.consent_wanted", message).of_agent(name);
        let event = event.with_problem(Severity::Warn, problem.clone());
        if let Err(error) = hub.store.commit(Changes::new().event(&event)).await {
            warn!(error = %chain(&error), "cannot record that an agent waits for consent");
        }
    }
    Refusal::new(Code::PermissionDenied, problem)
}

async fn operator(hub: &Hub, peer: &Peer) -> Result<OperatorCaller, Refusal> {
    let (name, role) = match peer {
        Peer::Local(user) => local_operator(hub, user.uid).await?,
        Peer::Tls(Some(leaf), _) => remote_operator(hub, leaf).await?,
        Peer::Tls(None, _) => return Err(operator_refused()),
    };
    Ok(OperatorCaller { name, role, peer: peer.clone() })
}

/// Root is Owner; so is the account that the controller runs as, which can read the database and its key anyway. Everyone
/// else is who was added, by name and uid.
async fn local_operator(hub: &Hub, uid: u32) -> Result<(String, OperatorRole), Refusal> {
    let uid = Uid::from_raw(uid);
    let user = User::from_uid(uid).ok().flatten().map_or_else(|| uid.to_string(), |user| user.name);
    let name = format!("{LOCAL}{user}");
    if uid.is_root() || uid == Uid::effective() {
        return Ok((name, OperatorRole::Owner));
    }
    refuse_while_waiting(hub)?;
    match hub.store.operator_by_name(&name).await?.map(|found| found.value) {
        Some(found) if found.is_user(uid.as_raw()) => Ok((name, found.role)),
        Some(_) => Err(refused(
            "NOT_AN_OPERATOR",
            &format!("{user} was another user (another uid than {uid}) when {name} was added"),
            &format!(
                "ask an owner: certwright operators rm {name}, then certwright operators add --local {user} --role viewer"
            ),
        )),
        None => Err(refused(
            "NOT_AN_OPERATOR",
            &format!("{user} (uid {uid}) has no role here"),
            &format!("ask an owner: certwright operators add --local {user} --role viewer"),
        )),
    }
}

async fn remote_operator(hub: &Hub, leaf: &tls::Peer) -> Result<(String, OperatorRole), Refusal> {
    if leaf.identity.role != Role::Operator {
        return Err(operator_refused());
    }
    refuse_while_waiting(hub)?;
    let stored = hub.store.load::<Operator>(&leaf.identity.id).await?.ok_or_else(operator_refused)?;
    let found = &stored.value;
    if !found.has_key(&proto::x509::hex(&Sha256::digest(&leaf.spki_der))) {
        return Err(operator_refused());
    }
    if leaf.not_after <= hub.now() {
        return Err(refused(
            "LOGIN_EXPIRED",
            &format!("the login of {} was not used for too long and has expired", found.name),
            &format!("ask an owner: certwright operators rm {0}, then certwright operators invite {0}", found.name),
        ));
    }
    let (name, role) = (found.name.clone(), found.role);
    acknowledge(hub, stored, leaf).await;
    Ok((name, role))
}

/// Notes, once for each leaf, that its holder has it.
async fn acknowledge(hub: &Hub, mut stored: Versioned<Operator>, leaf: &tls::Peer) {
    let Proof::Remote { serial, ca, .. } = &mut stored.value.proof else { return };
    if *serial != leaf.serial || ca.held == ca.issued {
        return;
    }
    ca.shown();
    // Whoever was faster noted it; the next call tries again otherwise.
    if let Err(error) = hub.store.commit(Changes::new().update(&stored)).await {
        debug!(error = %chain(&error), "cannot note that a login was renewed");
    }
}

/// Who was removed after the backup is in it: until an owner has looked, root alone is known for certain.
fn refuse_while_waiting(hub: &Hub) -> Result<(), Refusal> {
    if !hub.gate.is_closed() {
        return Ok(());
    }
    Err(refused(
        "RESTORE_WAITING",
        "the controller was restored, and that is not accepted yet: only root on its host may call",
        "on the controller's host: sudo certwright restore accept --keep-operators, once the operators were looked at",
    ))
}

/// One text for unknown, removed and foreign: a refused peer learns nothing.
fn operator_refused() -> Refusal {
    refused(
        "NOT_AN_OPERATOR",
        "this login is not accepted",
        "ask an owner for an invitation: certwright operators invite NAME; on the controller's host, use its socket",
    )
}

fn refused(reason: &str, message: &str, hint: &str) -> Refusal {
    Refusal::new(Code::PermissionDenied, Problem::new(reason, message, "", hint))
}

impl OperatorCaller {
    fn may(&self, act: Act) -> Result<(), Refusal> {
        if self.role.may(act) {
            return Ok(());
        }
        let Self { name, role, .. } = self;
        Err(refused(
            "ROLE_TOO_LOW",
            &format!("{name} has the role {role}, and this needs {}", act.needs()),
            &format!("ask an owner: certwright operators role {name} {}", act.needs()),
        ))
    }

    /// Who it is at the socket, or the leaf it showed.
    pub(crate) fn peer(&self) -> &Peer {
        &self.peer
    }

    #[cfg(test)]
    pub(crate) fn root() -> Self {
        let peer = Peer::Local(PeerUser { uid: 0, login_uid: None });
        Self { name: "local:root".to_owned(), role: OperatorRole::Owner, peer }
    }
}

impl AgentCaller {
    /// The leaf it showed.
    pub(crate) fn leaf(&self) -> &tls::Peer {
        &self.leaf
    }

    /// Where it connects from.
    pub(crate) fn origin(&self) -> Origin {
        self.origin
    }
}

/// Puts [`authorize`] in front of every service.
#[derive(Clone, Debug)]
pub(crate) struct Guard {
    pub(crate) hub: Hub,
}

impl<S> Layer<S> for Guard {
    type Service = Guarded<S>;

    fn layer(&self, inner: S) -> Guarded<S> {
        Guarded { hub: self.hub.clone(), inner }
    }
}

/// A service behind [`Guard`].
#[derive(Clone, Debug)]
pub(crate) struct Guarded<S> {
    hub: Hub,
    inner: S,
}

impl<S> Service<Request<Body>> for Guarded<S>
where
    S: Service<Request<Body>, Response = Response<Body>> + Clone + Send + 'static,
    S::Future: Send,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, S::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        // The clone that was polled ready is the one to call.
        let ready = self.inner.clone();
        let mut inner = std::mem::replace(&mut self.inner, ready);
        let hub = self.hub.clone();
        Box::pin(async move {
            let Some(method) = Method::from_path(request.uri().path()) else {
                return Ok(Status::unimplemented("there is no such call; upgrade the controller").into_http());
            };
            let Some(peer) = request.extensions().get::<Peer>().cloned() else {
                return Ok(Status::internal("the connection has no peer").into_http());
            };
            match authorize(&hub, method, &peer).await {
                Ok(caller) => {
                    request.extensions_mut().insert(caller);
                    inner.call(request).await
                }
                Err(refusal) => Ok(Status::from(refusal).into_http()),
            }
        })
    }
}

/// Returns the agent that [`Guard`] let through.
///
/// # Errors
/// When the role table let someone else call an agent's RPC.
pub(crate) fn agent_caller<T>(request: &tonic::Request<T>) -> Result<AgentCaller, Status> {
    match request.extensions().get::<Caller>() {
        Some(Caller::Agent(agent)) => Ok(agent.clone()),
        Some(Caller::Anyone | Caller::Operator(_)) | None => Err(Status::internal("not called by an agent")),
    }
}

/// Returns the operator that [`Guard`] let through.
///
/// # Errors
/// When the role table let someone else call an operator's RPC.
pub(crate) fn operator_caller<T>(request: &tonic::Request<T>) -> Result<OperatorCaller, Status> {
    match request.extensions().get::<Caller>() {
        Some(Caller::Operator(operator)) => Ok(operator.clone()),
        Some(Caller::Anyone | Caller::Agent(_)) | None => Err(Status::internal("not called by an operator")),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proto::clock::SystemClock;
    use proto::id::Identity;

    use super::*;
    use crate::lifecycle::agent::Standing as AgentStanding;
    use crate::lifecycle::agent::tests::agent as example;
    use crate::store::Store;
    use crate::store::engine::Backend;
    use crate::store::master_key::MasterKey;

    #[tokio::test]
    async fn a_change_of_the_record_counts_from_the_next_message_and_a_leaf_ends_in_time() {
        let store = Store::open(Backend::memory(), true, MasterKey::random()).await.unwrap();
        let hub = Hub::open(store, Arc::new(SystemClock)).await.unwrap();
        let spki = proto::x509::hex(&Sha256::digest(b"key"));
        let record = Agent { spki_sha256: spki, ..example() };
        hub.store.commit(Changes::new().insert(&record)).await.unwrap();
        let leaf = tls::Peer {
            identity: Identity { role: Role::Agent, id: record.id.clone() },
            serial: "01".into(),
            spki_der: b"key".to_vec(),
            not_after: hub.now() + std::time::Duration::from_secs(3_600),
        };
        let origin = Origin { address: None, number: 1 };
        let caller = agent(&hub, &leaf, origin, false).await.unwrap();
        let mut standing = Standing::new(caller.clone());
        standing.recheck(&hub).await.unwrap();
        standing.recheck(&hub).await.unwrap();

        let mut stored = hub.store.load::<Agent>(&record.id).await.unwrap().unwrap();
        stored.value.standing = AgentStanding::Revoked;
        hub.store.commit(Changes::new().update(&stored)).await.unwrap();
        let refusal = Status::from(standing.recheck(&hub).await.unwrap_err());
        assert_eq!(refusal.code(), Code::PermissionDenied);
        assert!(standing.recheck(&hub).await.is_err(), "and stays so");

        let mut stored = hub.store.load::<Agent>(&record.id).await.unwrap().unwrap();
        stored.value.standing = AgentStanding::Enrolled;
        hub.store.commit(Changes::new().update(&stored)).await.unwrap();
        standing.recheck(&hub).await.unwrap();
        standing.caller.leaf.not_after = hub.now();
        assert!(standing.recheck(&hub).await.is_err(), "its leaf has ended");
    }
}
