//! Names each agent's desired state and announces a new one. Push is a hint, pull is truth: the content is computed again
//! when the agent asks. Called by `tasks::run` and, for one agent, by `rpc/agent_service`.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use sha2::{Digest as _, Sha256};
use tokio_util::sync::CancellationToken;
use tracing::error;

use super::hub::Hub;
use super::{restore, rollback};
use crate::lifecycle::certificate::KeySlot;
use crate::lifecycle::desired::{Desired, Name};
use crate::lifecycle::pause::{self, Pause};
use crate::lifecycle::problem::chain;
use crate::lifecycle::rollback::Rollback;
use crate::lifecycle::target::Target;
use crate::store::StoreError;
use crate::store::batch::CommitError;
use crate::store::certificate::Bundle;
use crate::store::records::{Changes, Versioned};

/// Longest wait for an instant at once.
const REST_MAX: Duration = Duration::from_secs(300);

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
    // When time alone changes what an agent must hold.
    let mut look_at: BTreeMap<String, Timestamp> = BTreeMap::new();
    loop {
        let first = look_at.values().min().copied();
        let ids = tokio::select! {
            biased;
            () = stop.cancelled() => return,
            ids = hub.wake.agents.wait() => ids,
            () = reached(&hub, first) => {
                let now = hub.now();
                look_at.iter().filter(|(_, at)| **at <= now).map(|(id, _)| id.clone()).collect()
            }
        };
        for id in ids {
            match restore::has_shown(&hub, &id).await {
                Ok(true) => {}
                // It is told when it has shown what it holds.
                Ok(false) => continue,
                Err(error) => error!(agent_id = id, error = %chain(&error), "cannot publish"),
            }
            match refresh(&hub, &id).await {
                Ok((name, _, next)) => {
                    hub.presence.hint(&name);
                    look_at.remove(&id);
                    look_at.extend(next.map(|at| (id, at)));
                }
                Err(error) => error!(agent_id = id, error = %chain(&error), "cannot publish"),
            }
        }
    }
}

/// Waits for an instant, or for ever; not longer than [`REST_MAX`], because the clock may be set.
async fn reached(hub: &Hub, at: Option<Timestamp>) {
    match at {
        Some(at) => {
            let rest = Duration::try_from(hub.now().duration_until(at)).unwrap_or_default();
            tokio::time::sleep(rest.min(REST_MAX)).await;
        }
        None => std::future::pending().await,
    }
}

/// Computes the agent's desired state and gives it a new generation if it changed. Also says when time alone may change it.
///
/// # Errors
/// When the store fails.
pub(crate) async fn refresh(hub: &Hub, agent_id: &str) -> Result<(Name, Desired, Option<Timestamp>), PublishError> {
    loop {
        let (stored, bundles, pause) = hub.store.desired_of(agent_id).await?;
        if rollback::end_what_is_over(hub, &bundles).await? {
            continue;
        }
        let (desired, look_at) = compute(agent_id, &bundles, pause.as_ref(), hub.now());
        let epoch = hub.gate.epoch();
        let digest = proto::x509::hex(&Sha256::digest(serde_json::to_vec(&desired)?));
        if let Some(stored) =
            stored.as_ref().filter(|stored| stored.value.digest == digest && stored.value.epoch == epoch)
        {
            return Ok((stored.value.clone(), desired, look_at));
        }
        let generation = stored.as_ref().map_or(0, |stored| stored.value.generation) + 1;
        let name = Name { agent_id: agent_id.to_owned(), epoch, generation, digest };
        let changes = match stored {
            Some(stored) => Changes::new().update(&Versioned { revision: stored.revision, value: name.clone() }),
            None => Changes::new().insert(&name),
        };
        match hub.store.commit(changes).await {
            Ok(_) => return Ok((name, desired, look_at)),
            Err(CommitError::Conflict { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

fn compute(agent_id: &str, bundles: &[Bundle], all: Option<&Pause>, now: Timestamp) -> (Desired, Option<Timestamp>) {
    let mut desired = Desired::default();
    let mut look_at: Option<Timestamp> = None;
    for bundle in bundles {
        let slots: Vec<KeySlot> = bundle.slots.iter().map(|slot| slot.value.clone()).collect();
        let targets: Vec<Target> = bundle.targets.iter().map(|(target, _)| target.value.clone()).collect();
        let order = bundle.order.as_ref().map(|order| &order.value);
        let certificate = &bundle.certificate.value;
        let paused = pause::held(certificate, all).is_some();
        let plan = bundle.rollout(now);
        let hold = |target: &Target| paused || plan.waits.contains_key(&target.id);
        desired.add(agent_id, hold, certificate, order, &slots, &targets);
        let ends_at = certificate.rollback.as_ref().map(Rollback::until);
        look_at = look_at.into_iter().chain(plan.look_at).chain(ends_at).min();
    }
    (desired, look_at)
}
