//! The rotation of the identity CA: how far it is, who is ready, and its steps (`lifecycle/rotation`).

use proto::clock::to_wire;
use proto::operator::v1 as wire;
use proto::text::one_line;
use tonic::Code;

use crate::ca::CaError;
use crate::lifecycle::agent::Standing;
use crate::lifecycle::operator::Proof;
use crate::lifecycle::problem::Problem;
use crate::lifecycle::restore::Removed;
use crate::lifecycle::rotation::{PeerCa, Phase, Rotation, Step};
use crate::rpc::peer::OperatorCaller;
use crate::rpc::serve::Server;
use crate::rpc::status::Refusal;
use crate::tasks::hub::Hub;

/// Most peers that are listed; the rest is counted.
const WAITING_MAX: usize = 200;
/// Most peers named in a refusal.
const NAMED_MAX: usize = 5;

/// Who is ready for a step, and who is not.
#[derive(Debug, Default)]
struct Muster {
    ready: u64,
    waiting: Vec<wire::IdentityCaPeer>,
}

impl Muster {
    fn of(step: Option<Step>, rotation: &Rotation, peers: Vec<(PeerCa, wire::IdentityCaPeer)>) -> Self {
        let mut muster = Self::default();
        for (ca, peer) in peers {
            match step.and_then(|step| ca.lacks(step, rotation)) {
                Some(lacks) => muster.waiting.push(wire::IdentityCaPeer { lacks: lacks.to_owned(), ..peer }),
                None => muster.ready += 1,
            }
        }
        muster
    }

    fn count(&self) -> u64 {
        u64::try_from(self.waiting.len()).unwrap_or(u64::MAX)
    }

    fn names(&self) -> String {
        let names: Vec<&str> = self.waiting.iter().take(NAMED_MAX).map(|peer| peer.name.as_str()).collect();
        let more = self.waiting.len().saturating_sub(NAMED_MAX);
        if more == 0 { names.join(", ") } else { format!("{} and {more} more", names.join(", ")) }
    }
}

/// Everyone who holds a leaf of the identity CA.
async fn peers(hub: &Hub) -> Result<Vec<(PeerCa, wire::IdentityCaPeer)>, Refusal> {
    let agents = hub.store.agents().await?.into_iter().map(|agent| agent.value);
    let agents = agents.filter(|agent| agent.standing == Standing::Enrolled).map(|agent| {
        let seen = hub.presence.of(&agent.id).map(|connected| connected.seen_at).or(agent.seen_at);
        let peer = wire::IdentityCaPeer {
            kind: "agent".to_owned(),
            name: agent.name,
            last_seen_at: to_wire(seen),
            lacks: String::new(),
        };
        (agent.ca, peer)
    });
    let mut peers: Vec<_> = agents.collect();
    for operator in hub.store.operators().await? {
        let Proof::Remote { ca, not_after, .. } = operator.value.proof else { continue };
        // Who logs in again needs an invitation in any case.
        if not_after > hub.now() {
            let last_seen_at = to_wire(hub.operators_seen.at(&operator.value.name));
            let kind = "operator".to_owned();
            let peer = wire::IdentityCaPeer { kind, name: operator.value.name, last_seen_at, lacks: String::new() };
            peers.push((ca, peer));
        }
    }
    Ok(peers)
}

/// What the store holds is in force, also when whoever took a step hung up in the middle of it.
pub(crate) async fn refresh(server: &Server) -> Result<(), CaError> {
    server.ca.refresh(&server.hub.store).await?;
    let now = server.ca.rotation();
    server.hub.rotation.send_if_modified(|known| {
        let is_news = *known != now;
        known.clone_from(&now);
        is_news
    });
    Ok(())
}

/// Shows the CAs, the phase, and who is not ready for the next step.
pub(crate) async fn view(server: &Server) -> Result<wire::IdentityCa, Refusal> {
    refresh(server).await.map_err(refusal)?;
    let rotation = server.ca.rotation();
    let muster = Muster::of(rotation.forward(), &rotation, peers(&server.hub).await?);
    let slots = server.ca.slots().into_iter().map(|slot| wire::IdentityCaSlot {
        fingerprint_sha256: slot.fingerprint,
        not_before: to_wire(Some(slot.not_before)),
        not_after: to_wire(Some(slot.not_after)),
        signs: slot.signs,
        shown: slot.is_anchor,
    });
    Ok(wire::IdentityCa {
        phase: rotation.phase.word().to_owned(),
        slots: slots.collect(),
        ready: muster.ready,
        waiting_total: muster.count(),
        next: what_next(&rotation, &muster),
        waiting: muster.waiting.into_iter().take(WAITING_MAX).collect(),
    })
}

fn what_next(rotation: &Rotation, muster: &Muster) -> String {
    let waits = muster.count();
    match (rotation.phase, waits) {
        (Phase::Steady, _) => "nothing to do; certwright identity-ca prepare begins a rotation".to_owned(),
        (Phase::Prepared, 0) => "all trust the next CA: certwright identity-ca activate lets it sign".to_owned(),
        (Phase::Activated, 0) => {
            "all have a leaf of the next CA: certwright identity-ca retire drops the old one".to_owned()
        }
        (Phase::Prepared | Phase::Activated, _) => {
            "those listed become ready by themselves once they connect; certwright identity-ca abort goes one step back"
                .to_owned()
        }
    }
}

/// Takes a step, unless it would cost someone their way back.
pub(crate) async fn rotate(
    server: &Server,
    caller: &OperatorCaller,
    request: wire::RotateIdentityCaRequest,
) -> Result<wire::IdentityCa, Refusal> {
    let hub = &server.hub;
    let Some(step) = Step::parse(&request.step) else {
        let message = format!("\"{}\" is no step of a rotation", one_line(&request.step, 40));
        return Err(Refusal::field("step", message, "prepare, activate, retire or abort"));
    };
    refresh(server).await.map_err(refusal)?;
    let rotation = server.ca.rotation();
    if rotation.allows(step) {
        let muster = Muster::of(Some(step), &rotation, peers(hub).await?);
        if muster.count() > request.anyway {
            return Err(not_ready(step, &muster));
        }
    }
    if step == Step::Activate
        && rotation.allows(step)
        && let Some(next) = &rotation.next
    {
        hub.removed(Removed::IdentityCaActivated, next, "identity CA").await;
    }
    let (kind, message) = words(step, &rotation);
    let event = hub.event(kind, message).by(&caller.name);
    server.ca.rotate(&hub.store, step, &event).await.map_err(refusal)?;
    view(server).await
}

fn words(step: Step, rotation: &Rotation) -> (&'static str, &'static str) {
    match (step, rotation.phase) {
        (Step::Prepare, _) => {
            ("identity_ca.prepared", "the next identity CA is made; agents and operators learn of it")
        }
        (Step::Activate, _) => ("identity_ca.activated", "the next identity CA signs; the old one is still trusted"),
        (Step::Retire, _) => ("identity_ca.retired", "the old identity CA is dropped"),
        (Step::Abort, Phase::Activated) => ("identity_ca.aborted", "the old identity CA signs again; both are trusted"),
        (Step::Abort, Phase::Prepared | Phase::Steady) => ("identity_ca.aborted", "the next identity CA is dropped"),
    }
}

fn not_ready(step: Step, muster: &Muster) -> Refusal {
    let (count, word) = (muster.count(), step.word());
    let price = match step {
        Step::Prepare | Step::Activate => {
            "they become ready when they come back: both CAs are accepted until the old one is retired"
        }
        Step::Retire | Step::Abort => {
            "they could not come back: an agent would have to be enrolled again with --replace, an operator invited again"
        }
    };
    let are = if count == 1 { "1 is".to_owned() } else { format!("{count} are") };
    let problem = Problem::new(
        "PEERS_NOT_READY",
        format!("{are} not ready for that: {}", muster.names()),
        price,
        format!(
            "certwright identity-ca ls shows them; wait for them, or knowing that: certwright identity-ca {word} --anyway={count}"
        ),
    );
    Refusal::new(Code::FailedPrecondition, problem)
}

fn refusal(error: CaError) -> Refusal {
    match error {
        CaError::Read(error) => error.into(),
        CaError::Write(error) => error.into(),
        error @ CaError::Step { .. } => Refusal::new(Code::FailedPrecondition, error.problem()),
        error => Refusal::new(Code::Internal, error.problem()),
    }
}
