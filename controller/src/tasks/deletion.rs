//! Ends the management of a certificate. One batch removes what makes it exist; what hangs on it is removed after, and
//! again at every start, so that a crash in between leaves nothing for long. Called by `rpc` and `tasks::run`.

use std::ops::Bound;

use tokio_util::sync::CancellationToken;
use tracing::error;

use super::hub::Hub;
use crate::lifecycle::problem::chain;
use crate::store::StoreError;
use crate::store::batch::CommitError;
use crate::store::certificate::Bundle;
use crate::store::engine::Order as ScanOrder;
use crate::store::records::Changes;
use crate::store::tables::Table;

/// Tables whose keys begin with a certificate's id.
const HANGING: [Table; 5] = [Table::Target, Table::TargetState, Table::Version, Table::KeySlot, Table::RenewalInfo];
/// Keys removed per batch (a batch holds at most 64).
const CHUNK: usize = 50;

/// Removes leftovers once, then waits for the end.
pub(crate) async fn run(hub: Hub, stop: CancellationToken) {
    if let Err(error) = sweep(&hub).await {
        error!(error = %chain(&error), "cannot remove what deleted certificates left");
    }
    stop.cancelled().await;
}

/// Why a deletion did not happen.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DeletionError {
    /// Reading.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Writing.
    #[error(transparent)]
    Commit(#[from] CommitError),
}

/// Stops managing a certificate; files on hosts stay as they are.
///
/// # Errors
/// When it was changed in between, or the store fails.
pub(crate) async fn delete(hub: &Hub, bundle: &Bundle, actor: &str) -> Result<(), DeletionError> {
    let certificate = &bundle.certificate;
    let event = hub
        .event("certificate.deleted", "no longer managed; its files stay on the hosts")
        .by(actor)
        .of_certificate(&certificate.value.name);
    let mut agents = bundle.target_agent_ids();
    agents.extend(bundle.responder_ids());
    // Text always encodes.
    let left = serde_json::to_vec(&agents).unwrap_or_default();
    let changes = Changes::new()
        .remove(certificate)
        .delete_raw(Table::CertificateName, &certificate.value.name)
        .delete_raw(Table::Order, &certificate.value.id)
        .put_raw(Table::Leftover, &certificate.value.id, left)
        .event(&event);
    hub.store.commit(changes).await?;
    remove_rest(hub, &certificate.value.id, &agents).await?;
    hub.wake.certificates.ring(&certificate.value.id);
    hub.wake.jobs.ring(&certificate.value.id);
    Ok(())
}

/// Ends a purge once every target reported its files gone.
///
/// # Errors
/// When the store fails.
pub(crate) async fn finish_purge(hub: &Hub, certificate_id: &str) -> Result<(), DeletionError> {
    let Some(bundle) = hub.store.bundle(certificate_id).await? else { return Ok(()) };
    let gone = bundle.targets.iter().all(|(_, state)| state.as_ref().is_some_and(|state| state.value.purged));
    if bundle.certificate.value.purging && gone {
        delete(hub, &bundle, super::hub::CONTROLLER).await?;
    }
    Ok(())
}

/// Removes what hangs on a certificate that is gone, then what says that something may be left.
async fn remove_rest(hub: &Hub, certificate_id: &str, agents: &[String]) -> Result<(), DeletionError> {
    for agent_id in agents {
        hub.store.commit(Changes::new().unlink_agent(agent_id, certificate_id)).await?;
        hub.wake.agents.ring(agent_id);
    }
    remove_hanging(hub, certificate_id).await?;
    hub.store.commit(Changes::new().delete_raw(Table::Leftover, certificate_id)).await?;
    Ok(())
}

async fn remove_hanging(hub: &Hub, certificate_id: &str) -> Result<(), DeletionError> {
    for table in HANGING {
        let prefix = format!("{certificate_id}/");
        loop {
            let from = prefix.clone();
            let rows = hub
                .store
                .read(move |snapshot| snapshot.scan(table, &from, Bound::Unbounded, ScanOrder::Ascending, CHUNK))
                .await?;
            if rows.is_empty() {
                break;
            }
            let changes = rows.iter().fold(Changes::new(), |changes, (key, _)| changes.delete_raw(table, key));
            hub.store.commit(changes).await?;
        }
    }
    Ok(())
}

/// Removes what interrupted deletions left.
async fn sweep(hub: &Hub) -> Result<(), DeletionError> {
    let left = hub
        .store
        .read(|snapshot| snapshot.scan(Table::Leftover, "", Bound::Unbounded, ScanOrder::Ascending, usize::MAX))
        .await?;
    for (id, agents) in left {
        let agents: Vec<String> = serde_json::from_slice(&agents.bytes).unwrap_or_default();
        remove_rest(hub, &id, &agents).await?;
    }
    Ok(())
}
