//! The agents' RPCs. No request names its agent: who calls is known from the peer certificate, checked on every message.
//! What belongs to another agent and what never existed get the same answer.

use std::pin::Pin;
use std::time::Duration;

use futures_util::Stream;
use futures_util::stream::unfold;
use proto::agent::v1 as wire;
use proto::agent::v1::agent_service_server::AgentService;
use proto::agent::v1::attach_request::Message;
use proto::audit::Head;
use proto::clock::from_wire;
use proto::x509::CsrFacts;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tonic::{Code, Request, Response, Status, Streaming};

use super::audited;
use super::convert;
use super::peer::{AgentCaller, Standing, agent_caller};
use super::serve::Server;
use super::status::Refusal;
use super::{enrollment, greeting, report};
use crate::lifecycle::agent::Agent;
use crate::lifecycle::certificate::{Custody, KeySlot, Version};
use crate::lifecycle::csr;
use crate::lifecycle::problem::Problem;
use crate::lifecycle::rotation::{Rotation, renew_within_s};
use crate::store::certificate::Bundle;
use crate::store::records::{Changes, Versioned};
use crate::tasks::hub::Hub;
use crate::tasks::issuance::key_place;
use crate::tasks::presence::Session;
use crate::tasks::publish;
use crate::tasks::restore::{self, HeadIs};

/// The hello must come within this.
const HELLO_TIME_MAX: Duration = Duration::from_secs(10);
/// Three heartbeats missed: the stream is dead.
const SILENCE_MAX: Duration = Duration::from_secs(95);

/// Serves agents.
#[derive(Debug)]
pub(crate) struct AgentApi {
    pub(crate) server: Server,
}

type AttachStream = Pin<Box<dyn Stream<Item = Result<wire::AttachResponse, Status>> + Send>>;

#[tonic::async_trait]
impl AgentService for AgentApi {
    type AttachStream = AttachStream;

    async fn enroll(&self, request: Request<wire::EnrollRequest>) -> Result<Response<wire::EnrollResponse>, Status> {
        Ok(Response::new(enrollment::enroll(&self.server, request.into_inner()).await?))
    }

    async fn renew_identity(
        &self,
        request: Request<wire::RenewIdentityRequest>,
    ) -> Result<Response<wire::RenewIdentityResponse>, Status> {
        let caller = agent_caller(&request)?;
        Ok(Response::new(enrollment::renew_identity(&self.server, &caller, request.into_inner()).await?))
    }

    async fn attach(&self, request: Request<Streaming<wire::AttachRequest>>) -> Result<Response<AttachStream>, Status> {
        let caller = agent_caller(&request)?;
        let mut inbound = request.into_inner();
        let first = tokio::time::timeout(HELLO_TIME_MAX, inbound.message()).await;
        let Ok(Some(wire::AttachRequest { message: Some(Message::Hello(hello)) })) =
            first.map_err(|elapsed| Status::deadline_exceeded(elapsed.to_string()))?
        else {
            return Err(Status::invalid_argument("the first message of a stream must be hello"));
        };
        let hub = self.server.hub.clone();
        let session = greeting::greet(&hub, &caller, hello).await?;
        // From here on the presence ends with this call or its stream, however they end.
        let mut guard = Present { hub: hub.clone(), standing: Standing::new(caller.clone()), number: session.number };
        // It may have been revoked since the call began.
        guard.standing.recheck(&hub).await?;
        hub.wake.agents.ring(&caller.id);
        for bundle in hub.store.bundles_of_agent(&caller.id).await.map_err(Refusal::from)? {
            hub.wake.certificates.ring(&bundle.certificate.value.id);
        }
        let mut rotation = hub.rotation.subscribe();
        rotation.mark_changed();
        let line = Line { guard, inbound, session, rotation, stop: self.server.stop.clone() };
        Ok(Response::new(Box::pin(unfold(line, next_hint))))
    }

    async fn get_desired(
        &self,
        request: Request<wire::GetDesiredRequest>,
    ) -> Result<Response<wire::GetDesiredResponse>, Status> {
        let caller = agent_caller(&request)?;
        let hub = &self.server.hub;
        if let Some(known) = request.into_inner().witnessed {
            let head = Head::from(known);
            if restore::look_at_head(hub, &caller.name, &head).await.map_err(Refusal::from)? == HeadIs::Comparable {
                hub.audit.witnessed(hub, &caller.name, head.seq, &head.hash).await.map_err(Refusal::from)?;
            }
        }
        may_be_told(hub, &caller).await?;
        let (name, desired, _) = publish::refresh(hub, &caller.id).await.map_err(publish_refusal)?;
        let mut answer = convert::desired(&name, desired);
        if let Some((head, key)) = hub.audit.head(hub).await.map_err(Refusal::from)? {
            answer.audit_head = Some(head.into());
            answer.audit_key = key;
        }
        Ok(Response::new(answer))
    }

    async fn fetch(&self, request: Request<wire::FetchRequest>) -> Result<Response<wire::FetchResponse>, Status> {
        let caller = agent_caller(&request)?;
        may_be_told(&self.server.hub, &caller).await?;
        Ok(Response::new(fetch(&self.server.hub, &caller, &request.into_inner()).await?))
    }

    async fn submit_csr(
        &self,
        request: Request<wire::SubmitCsrRequest>,
    ) -> Result<Response<wire::SubmitCsrResponse>, Status> {
        let caller = agent_caller(&request)?;
        may_be_told(&self.server.hub, &caller).await?;
        submit_csr(&self.server.hub, &caller, request.into_inner()).await?;
        Ok(Response::new(wire::SubmitCsrResponse {}))
    }

    async fn report(&self, request: Request<wire::ReportRequest>) -> Result<Response<wire::ReportResponse>, Status> {
        let caller = agent_caller(&request)?;
        let show_held = report::take(&self.server.hub, &caller, request.into_inner()).await?;
        Ok(Response::new(wire::ReportResponse { show_held }))
    }

    async fn show_held(
        &self,
        request: Request<wire::ShowHeldRequest>,
    ) -> Result<Response<wire::ShowHeldResponse>, Status> {
        let caller = agent_caller(&request)?;
        report::shown(&self.server.hub, &caller, request.into_inner()).await?;
        Ok(Response::new(wire::ShowHeldResponse {}))
    }

    async fn answer(&self, request: Request<wire::AnswerRequest>) -> Result<Response<wire::AnswerResponse>, Status> {
        let caller = agent_caller(&request)?;
        // Whether anybody waited for it, or for another agent's, is told to nobody.
        self.server.hub.questions.answer(&caller.id, request.into_inner());
        Ok(Response::new(wire::AnswerResponse {}))
    }
}

/// Whether this agent may be told anything: after a restore not before it is accepted, and not before the agent has shown what
/// it holds.
async fn may_be_told(hub: &Hub, caller: &AgentCaller) -> Result<(), Refusal> {
    if hub.gate.is_closed() {
        let hint = "on the controller: certwright restore status, then certwright restore accept";
        let problem = Problem::new("RESTORE_WAITING", "the controller was restored and is not accepted yet", "", hint);
        return Err(Refusal::new(Code::Unavailable, problem));
    }
    if restore::has_shown(hub, &caller.id).await? {
        return Ok(());
    }
    let hint = "nothing: the agent does so by itself";
    let problem = Problem::new("SHOW_FIRST", "the controller was restored: show what is held first", "", hint);
    Err(Refusal::new(Code::Unavailable, problem))
}

/// An open stream.
struct Line {
    guard: Present,
    inbound: Streaming<wire::AttachRequest>,
    session: Session,
    rotation: watch::Receiver<Rotation>,
    stop: CancellationToken,
}

/// Ends the presence however the stream ends.
struct Present {
    hub: Hub,
    standing: Standing,
    number: u64,
}

impl Drop for Present {
    fn drop(&mut self) {
        let id = &self.standing.caller.id;
        if self.hub.presence.detach(id, self.number) {
            self.hub.wake.gone.ring(id);
        }
    }
}

/// Waits for the next desired state to announce; heartbeats are taken meanwhile. `None` ends the stream.
async fn next_hint(mut line: Line) -> Option<(Result<wire::AttachResponse, Status>, Line)> {
    loop {
        // Every arm is cancel-safe: `message`, `changed`, `recv` and `cancelled` lose nothing when another arm wins.
        tokio::select! {
            biased;
            () = line.stop.cancelled() => return None,
            () = line.session.cut.cancelled() => return None,
            changed = line.session.hints.changed() => {
                changed.ok()?;
                let name = line.session.hints.borrow_and_update().clone();
                let Some(name) = name else { continue };
                let answer = wire::AttachResponse { desired: Some(convert::state_name(&name)), ..Default::default() };
                return Some((Ok(answer), line));
            }
            question = line.session.questions.recv() => {
                let answer = wire::AttachResponse { question: Some(question?), ..Default::default() };
                return Some((Ok(answer), line));
            }
            changed = line.rotation.changed() => {
                changed.ok()?;
                if should_renew(&mut line).await {
                    let connected = line.guard.hub.presence.count();
                    let answer = wire::AttachResponse {
                        renew_identity: true,
                        renew_within_seconds: renew_within_s(connected),
                        ..Default::default()
                    };
                    return Some((Ok(answer), line));
                }
            }
            message = tokio::time::timeout(SILENCE_MAX, line.inbound.message()) => match message {
                Ok(Ok(Some(message))) => {
                    if let Err(refusal) = heard(&mut line.guard, message).await {
                        // The last thing this stream says: the next call finds it cut.
                        line.session.cut.cancel();
                        return Some((Err(refusal.into()), line));
                    }
                }
                Ok(Ok(None) | Err(_)) | Err(_) => return None,
            },
        }
    }
}

/// Whether the agent's identity should be made anew, because the CAs are not those that came with it.
async fn should_renew(line: &mut Line) -> bool {
    let rotation = line.rotation.borrow_and_update().clone();
    let Present { hub, standing, .. } = &line.guard;
    // What cannot be read now is looked at with the next stream.
    let agent = hub.store.load::<Agent>(&standing.caller.id).await.ok().flatten();
    agent.is_some_and(|agent| agent.value.ca.wants_renewal(&rotation))
}

async fn heard(guard: &mut Present, message: wire::AttachRequest) -> Result<(), Refusal> {
    let Present { hub, standing, .. } = guard;
    standing.recheck(hub).await?;
    if let Some(Message::Heartbeat(heartbeat)) = message.message {
        let now = hub.now();
        let skew = from_wire(heartbeat.clock_at)
            .map_or(0, |clock| clock.as_millisecond().saturating_sub(now.as_millisecond()));
        hub.presence.heard(&standing.caller.id, now, skew);
    }
    Ok(())
}

/// Hands out one version to a target's own agent.
async fn fetch(hub: &Hub, caller: &AgentCaller, request: &wire::FetchRequest) -> Result<wire::FetchResponse, Refusal> {
    let bundles = hub.store.bundles_of_agent(&caller.id).await?;
    let mine = |bundle: &&Bundle| {
        bundle
            .targets
            .iter()
            .any(|(target, _)| target.value.id == request.target_id && target.value.agent_id == caller.id)
    };
    let bundle = bundles.iter().find(mine).ok_or_else(nothing_there)?;
    let certificate = &bundle.certificate.value;
    let current =
        certificate.deployed().filter(|current| current.version_id == request.version_id).ok_or_else(nothing_there)?;
    let key = format!("{}/{}", certificate.id, current.version_id);
    let version = hub.store.load::<Version>(&key).await?.ok_or_else(nothing_there)?.value;
    let key_pem = match current.custody {
        Custody::Agent => String::new(),
        Custody::Controller => {
            // A key that leaves the controller is audited before it does.
            audited::key_leaves(hub, caller, &certificate.name, &current.serial).await?;
            key_of(hub, bundle, &current.key_slot_id)?
        }
    };
    let message = format!("{} fetched serial {}", caller.name, current.serial);
    let event = hub
        .event("version.fetched", message)
        .of_certificate(&certificate.name)
        .of_agent(&caller.name)
        .by(&format!("agent:{}", caller.name));
    hub.store.commit(Changes::new().event(&event)).await?;
    Ok(wire::FetchResponse { leaf_pem: version.leaf_pem, chain_pem: version.chain_pem, key_pem })
}

fn key_of(hub: &Hub, bundle: &Bundle, slot_id: &str) -> Result<String, Refusal> {
    use secrecy::ExposeSecret as _;
    let slot = bundle.slots.iter().find(|slot| slot.value.id == slot_id).ok_or_else(nothing_there)?;
    let sealed = slot.value.key.as_ref().ok_or_else(nothing_there)?;
    let place = format!("{}/{}", slot.value.certificate_id, slot.value.id);
    match hub.store.keyring.open(key_place(&place), sealed) {
        Ok(key) => Ok(key.expose_secret().to_owned()),
        Err(error) => {
            tracing::error!(certificate_id = bundle.certificate.value.id, %error, "a key does not open");
            let hint = "journalctl -u certwright-controller; a renewal makes a new key";
            Err(Refusal::new(
                Code::Internal,
                Problem::new("KEY_UNREADABLE", "the key of this version does not open", "", hint),
            ))
        }
    }
}

/// Records a CSR for a slot of the calling agent. The same CSR again is fine; another one is not.
async fn submit_csr(hub: &Hub, caller: &AgentCaller, request: wire::SubmitCsrRequest) -> Result<(), Refusal> {
    use base64::Engine as _;
    let bundles = hub.store.bundles_of_agent(&caller.id).await?;
    let slots = bundles.iter().flat_map(|bundle| &bundle.slots);
    let mine = |slot: &&Versioned<KeySlot>| {
        slot.value.id == request.key_slot_id && slot.value.agent_id.as_deref() == Some(&caller.id)
    };
    let mut slot = slots.clone().find(mine).ok_or_else(nothing_there)?.clone();
    let csr = base64::engine::general_purpose::STANDARD.encode(&request.csr_der);
    if let Some(recorded) = &slot.value.csr {
        return if *recorded == csr {
            Ok(())
        } else {
            Err(csr_refused("another CSR is already on record for this key"))
        };
    }
    let facts = CsrFacts::parse(&request.csr_der).map_err(|error| csr_refused(&error.to_string()))?;
    if let Some(cause) = csr::refusal(&slot.value, &facts) {
        return Err(csr_refused(cause));
    }
    slot.value.csr = Some(csr);
    slot.value.problem = None;
    hub.store.commit(Changes::new().update(&slot)).await?;
    hub.wake.certificates.ring(&slot.value.certificate_id);
    hub.wake.agents.ring(&caller.id);
    Ok(())
}

fn csr_refused(cause: &str) -> Refusal {
    let hint = "the agent makes CSRs itself: upgrade it";
    Refusal::new(Code::InvalidArgument, Problem::new("CSR_REFUSED", "the CSR is not accepted", cause, hint))
}

/// One answer for what is another agent's and for what never existed.
fn nothing_there() -> Refusal {
    Refusal::not_found("record", "")
}

pub(super) fn publish_refusal(error: publish::PublishError) -> Refusal {
    match error {
        publish::PublishError::Store(error) => error.into(),
        publish::PublishError::Commit(error) => error.into(),
        publish::PublishError::Encode(error) => {
            tracing::error!(%error, "cannot encode a desired state");
            Refusal::new(
                Code::Internal,
                Problem::new(
                    "INTERNAL",
                    "the desired state could not be computed",
                    "",
                    "report this with the controller's log",
                ),
            )
        }
    }
}
