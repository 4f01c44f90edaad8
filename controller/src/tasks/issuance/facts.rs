//! What a decision about one certificate needs: its bundle, and who of its agents is there. Called by `attempt`.

use jiff::Timestamp;

use crate::lifecycle::agent::{Agent, Standing};
use crate::lifecycle::certificate::Custody;
use crate::lifecycle::due::{Place, of_orders};
use crate::lifecycle::fallback::candidates;
use crate::lifecycle::issuer::Issuer;
use crate::lifecycle::order::{Facts, Responder, Step, next_step};
use crate::lifecycle::pause;
use crate::store::StoreError;
use crate::store::certificate::Bundle;
use crate::tasks::hub::Hub;

/// Owned facts; [`Gathered::decide`] borrows them.
#[derive(Debug)]
pub(super) struct Gathered {
    pub(super) bundle: Bundle,
    key_agent: Option<Responder>,
    responders: Vec<Responder>,
    pub(super) issuers: Vec<Issuer>,
    paused: bool,
}

impl Gathered {
    /// Reads the facts of one certificate; `None` when it does not exist any more.
    pub(super) async fn read(hub: &Hub, certificate_id: &str) -> Result<Option<Self>, StoreError> {
        let id = certificate_id.to_owned();
        let read = hub.store.read(move |snapshot| {
            let Some(bundle) = crate::store::certificate::bundle(snapshot, &id)? else { return Ok(None) };
            let mut agents = Vec::new();
            for agent_id in bundle.responder_ids().into_iter().chain(bundle.target_agent_ids()) {
                agents.extend(snapshot.load::<Agent>(&agent_id)?.map(|agent| agent.value));
            }
            let mut issuers = Vec::new();
            for issuer_id in candidates(&bundle.certificate.value.specification) {
                issuers.extend(snapshot.load::<Issuer>(&issuer_id)?.map(|issuer| issuer.value));
            }
            Ok(Some((bundle, agents, issuers, crate::store::pause::pause_all(snapshot)?)))
        });
        let Some((bundle, agents, issuers, all)) = read.await? else { return Ok(None) };
        // What hinders another order of the same agent does not hinder this one.
        let tokens: Vec<&str> =
            bundle.order.iter().flat_map(|order| &order.value.authorizations).map(|one| one.token.as_str()).collect();
        let responder = |agent_id: &String| {
            let agent = agents.iter().find(|agent| agent.id == *agent_id)?;
            Some(responder(hub, agent, &tokens))
        };
        let responders = bundle.responder_ids().iter().filter_map(responder).collect();
        let key_agent = match bundle.certificate.value.specification.custody {
            Custody::Agent => bundle.target_agent_ids().first().and_then(responder),
            Custody::Controller => None,
        };
        let paused = pause::held(&bundle.certificate.value, all.as_ref()).is_some();
        Ok(Some(Self { bundle, key_agent, responders, issuers, paused }))
    }

    /// Asks for the single next step.
    pub(super) fn decide(&self, now: Timestamp) -> Step {
        let facts = Facts {
            certificate: &self.bundle.certificate.value,
            renewal_info: self.bundle.renewal_info(),
            order: self.bundle.order.as_ref().map(|order| &order.value),
            slot: self.bundle.order_slot().map(|slot| &slot.value),
            key_agent: self.key_agent.as_ref(),
            responders: &self.responders,
            issuers: &self.issuers,
            paused: self.paused,
        };
        next_step(facts, now)
    }

    /// Where the due index has it, by the same facts.
    pub(super) fn place(&self) -> Place {
        let order = self.bundle.order.as_ref().map(|order| &order.value);
        of_orders(&self.bundle.certificate.value, self.bundle.renewal_info(), order)
    }

    /// The agent that holds the key, in agent custody.
    pub(super) fn key_agent_id(&self) -> Option<&str> {
        self.key_agent.as_ref().map(|agent| agent.agent_id.as_str())
    }
}

fn responder(hub: &Hub, agent: &Agent, tokens: &[&str]) -> Responder {
    let connected = hub.presence.of(&agent.id);
    Responder {
        agent_id: agent.id.clone(),
        name: agent.name.clone(),
        connected: connected.is_some(),
        revoked: agent.standing == Standing::Revoked,
        serving: connected.as_ref().map(|agent| agent.serving.clone()).unwrap_or_default(),
        problem: connected
            .and_then(|agent| tokens.iter().find_map(|token| agent.challenge_problems.get(*token).cloned())),
    }
}
