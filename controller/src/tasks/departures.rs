//! Writes down that an agent's stream ended. An agent that is back by then only had a new connection. Called by
//! `tasks::run`.

use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tracing::error;

use super::hub::Hub;
use crate::lifecycle::agent::{Agent, Standing};
use crate::lifecycle::event::Severity;
use crate::lifecycle::problem::chain;
use crate::store::StoreError;
use crate::store::batch::CommitError;
use crate::store::records::Changes;

/// A reconnection within this is not news.
const GRACE: Duration = Duration::from_secs(3);

/// Notes departures until `stop`.
pub(crate) async fn run(hub: Hub, stop: CancellationToken) {
    loop {
        let ids = tokio::select! {
            biased;
            () = stop.cancelled() => return,
            ids = hub.wake.gone.wait() => ids,
        };
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            () = tokio::time::sleep(GRACE) => {}
        }
        for id in ids {
            if let Err(error) = note(&hub, &id).await {
                error!(agent_id = id, error = %chain(&error), "cannot note that an agent left");
            }
        }
    }
}

async fn note(hub: &Hub, agent_id: &str) -> Result<(), StoreError> {
    let Some(mut agent) = hub.store.load::<Agent>(agent_id).await? else { return Ok(()) };
    if hub.presence.is_connected(agent_id) || agent.value.standing == Standing::Revoked {
        return Ok(());
    }
    let name = agent.value.name.clone();
    agent.value.seen_at = Some(hub.now());
    let mut event = hub.event("agent.offline", format!("{name} is no longer connected")).of_agent(&name);
    event.severity = Severity::Warn;
    match hub.store.commit(Changes::new().update(&agent).event(&event)).await {
        Ok(_) | Err(CommitError::Conflict { .. }) => {}
        Err(error) => error!(agent = name, error = %chain(&error), "cannot note that an agent left"),
    }
    for bundle in hub.store.bundles_of_agent(agent_id).await? {
        hub.wake.certificates.ring(&bundle.certificate.value.id);
    }
    Ok(())
}
