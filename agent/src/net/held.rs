//! Shows a restored controller what lies in the files of every target: it may know less than this server holds. Called by
//! `net/reconcile` when a report's answer asks for it.

use proto::agent::v1 as wire;
use proto::agent::v1::show_held_request::Message;
use tonic::Status;
use tracing::warn;

use super::client::{Client, call};
use crate::apply::request::Handle;
use crate::target::Target;

/// Shows every target whose files hold the version that was wished for last, and says that it is all.
///
/// # Errors
/// As the controller says; then everything is shown again.
pub(super) async fn show(mut client: Client, apply: Handle, targets: Vec<Target>) -> Result<(), Status> {
    for target in targets.iter().filter(|target| !target.purge) {
        let Some(version) = &target.version else { continue };
        let held = match apply.read_held(target).await {
            Ok(held) => held,
            Err(problem) => {
                // What cannot be read is not shown; nothing older will replace it all the same.
                warn!(target_id = target.id, reason = problem.reason, cause = problem.cause, "{}", problem.message);
                None
            }
        };
        let Some(held) = held.filter(|held| held.fingerprint_sha256 == version.fingerprint_sha256) else { continue };
        let message = Message::Held(wire::HeldVersion {
            target_id: target.id.clone(),
            certificate_name: target.certificate_name.clone(),
            version_id: version.id.clone(),
            key_slot_id: target.key_slot_id.clone().unwrap_or_default(),
            leaf_pem: held.leaf_pem,
            chain_pem: held.chain_pem,
        });
        call(client.show_held(wire::ShowHeldRequest { message: Some(message) })).await?;
    }
    call(client.show_held(wire::ShowHeldRequest { message: Some(Message::Done(true)) })).await.map(drop)
}
