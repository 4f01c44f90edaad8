//! Names each agent's desired state and announces a new one. Push is a hint, pull is truth: the content is computed again
//! when the agent asks. Called by `tasks::run` and, for one agent, by `rpc/agent_service`.

use sha2::{Digest as _, Sha256};
use tokio_util::sync::CancellationToken;
use tracing::error;

use super::hub::Hub;
use super::{restore, rollback};
use crate::lifecycle::certificate::KeySlot;
use crate::lifecycle::desired::{Desired, Name};
use crate::lifecycle::pause::{self, Pause};
use crate::lifecycle::problem::chain;
use crate::lifecycle::target::Target;
use crate::store::StoreError;
use crate::store::batch::CommitError;
use crate::store::certificate::Bundle;
use crate::store::records::{Changes, Versioned};

/// Why a desired state could not be named.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PublishError {
    /// Reading.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Writing the new name.
    #[error("cannot write the name of a desired state")]
    Commit(#[from] CommitError),
    /// Never with records we wrote.
    #[error("cannot encode a desired state")]
    Encode(#[from] serde_json::Error),
}

/// Announces new desired states until `stop`.
pub(crate) async fn run(hub: Hub, stop: CancellationToken) {
    match hub.store.agents().await {
        Ok(agents) => agents.iter().for_each(|agent| hub.wake.agents.ring(&agent.value.id)),
        Err(error) => error!(error = %chain(&error), "cannot list agents"),
    }
    loop {
        let ids = tokio::select! {
            biased;
            () = stop.cancelled() => return,
            ids = hub.wake.agents.wait() => ids,
        };
        for id in ids {
            match restore::has_shown(&hub, &id).await {
                Ok(true) => {}
                // It is told when it has shown what it holds.
                Ok(false) => continue,
                Err(error) => error!(agent_id = id, error = %chain(&error), "cannot publish"),
            }
            match refresh(&hub, &id).await {
                Ok((name, _)) => hub.presence.hint(&name),
                Err(error) => error!(agent_id = id, error = %chain(&error), "cannot publish"),
            }
        }
    }
}

/// Computes the agent's desired state and gives it a new generation if it changed.
///
/// # Errors
/// When the store fails.
pub(crate) async fn refresh(hub: &Hub, agent_id: &str) -> Result<(Name, Desired), PublishError> {
    loop {
        let (stored, bundles, pause) = hub.store.desired_of(agent_id).await?;
        if rollback::end_what_is_over(hub, &bundles).await? {
            continue;
        }
        let desired = compute(agent_id, &bundles, pause.as_ref());
        let epoch = hub.gate.epoch();
        let digest = proto::x509::hex(&Sha256::digest(serde_json::to_vec(&desired)?));
        if let Some(stored) =
            stored.as_ref().filter(|stored| stored.value.digest == digest && stored.value.epoch == epoch)
        {
            return Ok((stored.value.clone(), desired));
        }
        let generation = stored.as_ref().map_or(0, |stored| stored.value.generation) + 1;
        let name = Name { agent_id: agent_id.to_owned(), epoch, generation, digest };
        let changes = match stored {
            Some(stored) => Changes::new().update(&Versioned { revision: stored.revision, value: name.clone() }),
            None => Changes::new().insert(&name),
        };
        match hub.store.commit(changes).await {
            Ok(_) => return Ok((name, desired)),
            Err(CommitError::Conflict { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

fn compute(agent_id: &str, bundles: &[Bundle], all: Option<&Pause>) -> Desired {
    let mut desired = Desired::default();
    for bundle in bundles {
        let slots: Vec<KeySlot> = bundle.slots.iter().map(|slot| slot.value.clone()).collect();
        let targets: Vec<Target> = bundle.targets.iter().map(|(target, _)| target.value.clone()).collect();
        let order = bundle.order.as_ref().map(|order| &order.value);
        let certificate = &bundle.certificate.value;
        let hold = pause::held(certificate, all).is_some();
        desired.add(agent_id, hold, certificate, order, &slots, &targets);
    }
    desired
}
