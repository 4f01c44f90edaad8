//! Looks after private CAs (features.md C1): makes key and root, certifies the root again at half its life, and keeps the
//! revocation list fresh. What is missing is read from the store, so a lost ring or a crash only delays it. Called by
//! `tasks::run`; `sign` by `tasks/issuance`, `revoke` by `tasks/revocation`.

use std::collections::{BTreeSet, HashSet};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use secrecy::SecretString;
use tokio_util::sync::CancellationToken;
use tracing::error;

use super::hub::Hub;
use super::restore::RestoreError;
use super::{Context, clock};
use crate::lifecycle::certificate::{Certificate, CurrentVersion, Version};
use crate::lifecycle::event::Severity;
use crate::lifecycle::issuer::Issuer;
use crate::lifecycle::private_ca::{LIST_LIFE, PrivateCa, REVOKED_MAX, RevocationList, RevokedLeaf};
use crate::lifecycle::problem::{Problem, chain};
use crate::lifecycle::revocation::RevocationReason;
use crate::private_ca::{self, SignError};
use crate::store::StoreError;
use crate::store::batch::CommitError;
use crate::store::certificate::Bundle;
use crate::store::private_ca::private_key_place;
use crate::store::records::{Changes, Record as _, Versioned};
use crate::store::seal::SealError;
use crate::store::tables::Table;

/// Every private CA is looked at this often, whatever rings.
const LOOK_AGAIN: Duration = Duration::from_secs(600);
/// Rows of leaves that expired long ago, removed at once.
const PAST_MAX: usize = 50;

/// Why a CA could not do its work.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PrivateCaError {
    /// Reading.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Writing.
    #[error(transparent)]
    Commit(#[from] CommitError),
    /// Its key does not open.
    #[error("the key of the private CA does not open")]
    Seal(#[from] SealError),
    /// Signing.
    #[error(transparent)]
    Sign(#[from] SignError),
}

/// Looks after private CAs until `stop`.
pub(crate) async fn run(context: Context, stop: CancellationToken) {
    let mut ids = all(&context.hub).await;
    loop {
        for id in &ids {
            if let Err(error) = look(&context, id).await {
                error!(issuer_id = id, error = %chain(&error), "a private CA does not work");
            }
        }
        // Every arm is cancel-safe.
        ids = tokio::select! {
            biased;
            () = stop.cancelled() => return,
            ids = context.hub.wake.private_cas.wait() => ids,
            () = tokio::time::sleep(LOOK_AGAIN) => all(&context.hub).await,
        };
    }
}

async fn all(hub: &Hub) -> BTreeSet<String> {
    match hub.store.issuers().await {
        Ok(issuers) => {
            let ours = issuers.into_iter().filter(|issuer| issuer.value.private.is_some());
            ours.map(|issuer| issuer.value.id).collect()
        }
        Err(error) => {
            error!(error = %chain(&error), "cannot list issuers");
            BTreeSet::new()
        }
    }
}

/// Does what one CA needs now.
async fn look(context: &Context, issuer_id: &str) -> Result<(), PrivateCaError> {
    let hub = &context.hub;
    if !clock::is_right(context) {
        // By a wrong clock a root would be made too early, or a list that nobody believes. It is looked at again by itself.
        return Ok(());
    }
    loop {
        let Some(issuer) = hub.store.load::<Issuer>(issuer_id).await? else { return Ok(()) };
        if issuer.value.private.is_none() || issuer.value.refuses_use().is_some() {
            return Ok(());
        }
        let looked = match root(hub, issuer.clone()).await {
            Ok(()) => list(hub, issuer_id).await,
            Err(error) => Err(error),
        };
        match looked {
            // Changed meanwhile: decided again on what is there now.
            Err(PrivateCaError::Commit(CommitError::Conflict { .. })) => {}
            Err(error @ (PrivateCaError::Seal(_) | PrivateCaError::Sign(_))) => {
                failed(hub, issuer_id, &error).await?;
                return Err(error);
            }
            done => return done,
        }
    }
}

/// Makes what is missing of key and root. Key and certificate are one commit: neither is ever without the other.
async fn root(hub: &Hub, mut issuer: Versioned<Issuer>) -> Result<(), PrivateCaError> {
    let now = hub.now();
    let (id, name) = (issuer.value.id.clone(), issuer.value.name.clone());
    let Some(ca) = issuer.value.private.as_mut() else { return Ok(()) };
    let was_first = ca.root().is_none();
    let made = ca.needs_root(now);
    if made {
        let key = match &ca.key {
            Some(sealed) => hub.store.keyring.open(private_key_place(&id), sealed)?,
            None => {
                let key = private_ca::new_key(ca.key_type)?;
                ca.key = Some(hub.store.keyring.seal(private_key_place(&id), &key));
                key
            }
        };
        let root = private_ca::certify_root(ca, &key, now)?;
        ca.take_root(root, now);
    }
    let root = ca.root().map(|root| (root.fingerprint_sha256.clone(), root.not_after));
    let waited = issuer.value.checking || issuer.value.problem.is_some();
    if !made && !waited {
        return Ok(());
    }
    issuer.value.works();
    let mut changes = Changes::new().update(&issuer);
    if let (true, Some((fingerprint, not_after))) = (made, root) {
        let what = if was_first { "has a root certificate" } else { "has a new root certificate of the same key" };
        let message =
            format!("{name} {what}, SHA-256 {fingerprint}, valid until {not_after}: certwright issuers root {name}");
        let mut event = hub.event("issuer.root", message);
        // Clients have to be given it.
        event.severity = if was_first { Severity::Info } else { Severity::Warn };
        changes = changes.event(&event);
    }
    hub.store.commit(changes).await?;
    // Orders may wait for it.
    hub.wake.ring_all();
    Ok(())
}

/// Makes the revocation list anew when a leaf is missing on it, or half of its life is over.
async fn list(hub: &Hub, issuer_id: &str) -> Result<(), PrivateCaError> {
    let now = hub.now();
    let Some(issuer) = hub.store.load::<Issuer>(issuer_id).await? else { return Ok(()) };
    let Some(ca) = &issuer.value.private else { return Ok(()) };
    let earlier = hub.store.load::<RevocationList>(issuer_id).await?;
    let rows = hub.store.revoked_leaves(issuer_id).await?;
    let (past, rows): (Vec<_>, Vec<_>) = rows.into_iter().partition(|row| row.value.is_past(now));
    forget(hub, &past).await?;
    let newest = rows.iter().map(|row| row.revision).max().unwrap_or(0);
    // A new root needs none: name and key are the same.
    let stands =
        |list: &RevocationList| list.newest >= newest && list.next_at() > now && hub.gate.stands(list.this_update);
    let stands = earlier.as_ref().is_some_and(|list| stands(&list.value));
    if stands {
        return Ok(());
    }
    let revoked: Vec<RevokedLeaf> = rows.into_iter().map(|row| row.value).collect();
    let key = key(hub, &issuer.value, ca)?;
    let number = RevocationList::number_at(earlier.as_ref().map(|list| &list.value), now);
    let der = private_ca::sign_list(ca, &key, &revoked, number, now)?;
    let list = RevocationList {
        issuer_id: issuer_id.to_owned(),
        number,
        this_update: now,
        next_update: now + LIST_LIFE,
        count: u64::try_from(revoked.len()).unwrap_or(u64::MAX),
        newest,
        der: STANDARD.encode(der),
    };
    let changes = match &earlier {
        Some(earlier) => Changes::new().update(&Versioned { revision: earlier.revision, value: list }),
        None => Changes::new().insert(&list),
    };
    // Not for an issuer that is removed at this moment.
    let changes = changes.expect(Table::Issuer, issuer_id, issuer.revision);
    hub.store.commit(changes).await?;
    Ok(())
}

/// Removes the rows of leaves that expired, so that there is room for others.
async fn forget(hub: &Hub, past: &[Versioned<RevokedLeaf>]) -> Result<(), CommitError> {
    for part in past.chunks(PAST_MAX) {
        hub.store.commit(part.iter().fold(Changes::new(), Changes::remove)).await?;
    }
    Ok(())
}

fn key(hub: &Hub, issuer: &Issuer, ca: &PrivateCa) -> Result<SecretString, PrivateCaError> {
    let sealed = ca.key.as_ref().ok_or(SignError::NoRoot)?;
    Ok(hub.store.keyring.open(private_key_place(&issuer.id), sealed)?)
}

/// Keeps on the issuer why its CA does not work: one event, however often it is looked at.
async fn failed(hub: &Hub, issuer_id: &str, error: &PrivateCaError) -> Result<(), PrivateCaError> {
    let Some(mut issuer) = hub.store.load::<Issuer>(issuer_id).await? else { return Ok(()) };
    let problem = error.problem(&issuer.value.name);
    let known = issuer.value.problem.as_ref().is_some_and(|known| known.reason == problem.reason);
    if known && !issuer.value.checking {
        return Ok(());
    }
    let event = hub.event("issuer.failed", format!("{}: {}", issuer.value.name, problem.message));
    let event = event.with_problem(Severity::Error, problem.clone());
    issuer.value.fail(problem, None);
    hub.store.commit(Changes::new().update(&issuer).event(&event)).await?;
    Ok(())
}

impl PrivateCaError {
    /// Returns the error for people; `name` is the issuer's.
    pub(crate) fn problem(&self, name: &str) -> Problem {
        match self {
            Self::Store(error) => error.problem(),
            Self::Commit(error) => error.problem(),
            Self::Sign(error) => error.problem(name),
            Self::Seal(error) => Problem::new(
                "PRIVATE_CA_DAMAGED",
                format!("issuer {name} cannot sign: {self}"),
                error.to_string(),
                "restore the database from a backup",
            ),
        }
    }
}

/// Signs a leaf; PEM, with the root. Nothing is stored: what is not committed with its version was never issued.
///
/// # Errors
/// When the policy does not allow a name, or the CA cannot sign.
pub(crate) fn sign(hub: &Hub, issuer: &Issuer, csr_der: &[u8], identifiers: &[String]) -> Result<String, Problem> {
    let unsigned = |error: PrivateCaError| error.problem(&issuer.name);
    let Some(ca) = &issuer.private else { return Err(unsigned(SignError::NoRoot.into())) };
    let refused = ca.refused(identifiers);
    if let Some(first) = refused.first() {
        let message = format!("issuer {} may not certify {first}", issuer.name);
        let cause = format!("its names are {}", ca.names_said());
        let hint = format!("certwright issuers set {} --names … with all that it may certify", issuer.name);
        return Err(Problem::new("NAME_NOT_ALLOWED", message, cause, hint));
    }
    let key = key(hub, issuer, ca).map_err(unsigned)?;
    private_ca::sign(ca, &key, csr_der, identifiers, hub.now()).map_err(|error| unsigned(error.into()))
}

/// Returns what revokes a version of a private CA, to be committed with what says so. The list follows by `tasks/private_ca`:
/// ring for it.
///
/// # Errors
/// When the store cannot be read.
pub(crate) async fn revoke(
    hub: &Hub,
    issuer: &Issuer,
    version: &Version,
    reason: RevocationReason,
) -> Result<Result<Changes, Problem>, StoreError> {
    let key = key_of(&version.facts);
    if hub.store.load::<RevokedLeaf>(&key).await?.is_some() {
        // The first reason and time stand.
        return Ok(Ok(Changes::new()));
    }
    if hub.store.revoked_leaves_count(&issuer.id).await? >= REVOKED_MAX {
        let message = format!("the revocation list of {} is full: {REVOKED_MAX} leaves", issuer.name);
        let name = &issuer.name;
        let hint = format!(
            "it is tried again every day: leaves that expired leave it; certwright certs rekey replaces it meanwhile; \
             for new certificates add another private CA beside {name}"
        );
        return Ok(Err(Problem::new("REVOCATION_LIST_FULL", message, "", hint)));
    }
    let leaf = RevokedLeaf {
        issuer_id: issuer.id.clone(),
        serial: version.facts.serial.clone(),
        revoked_at: hub.now(),
        reason,
        not_after: version.facts.not_after,
    };
    // Before it counts: what is written down twice counts once.
    hub.leaf_revoked(leaf.clone(), &issuer.name).await;
    Ok(Ok(Changes::new().upsert(&leaf)))
}

/// Notes on certificates of a restored database that their current version was revoked after the backup, so that it is replaced.
/// May be repeated.
///
/// # Errors
/// When the store fails.
pub(crate) async fn mark_revoked(hub: &Hub) -> Result<(), RestoreError> {
    let leaves = hub.store.list::<RevokedLeaf>("", usize::MAX).await?;
    if leaves.is_empty() {
        return Ok(());
    }
    let leaves: HashSet<String> = leaves.into_iter().map(|leaf| leaf.value.key()).collect();
    let is_revoked = move |current: &CurrentVersion| current.revoked_at.is_none() && leaves.contains(&key_of(current));
    let find = move |found: &mut Vec<String>, bundle: Bundle| {
        let certificate = bundle.certificate.value;
        if certificate.current.as_ref().is_some_and(&is_revoked) {
            found.push(certificate.id);
        }
    };
    for id in hub.store.fold_bundles(Vec::new(), find).await? {
        let Some(mut certificate) = hub.store.load::<Certificate>(&id).await? else { continue };
        let Some(current) = certificate.value.current.as_mut() else { continue };
        mark(hub, current).await?;
        let message = format!("serial {} was revoked after the backup", current.serial);
        let version = hub.store.load::<Version>(&format!("{id}/{}", current.version_id)).await?;
        let facts = current.clone();
        let event = hub.event("version.revoked", message).of_certificate(&certificate.value.name);
        let mut changes = Changes::new().update(&certificate).event(&event);
        if let Some(mut version) = version {
            version.value.facts = facts;
            changes = changes.update(&version);
        }
        hub.store.commit(changes).await?;
    }
    Ok(())
}

/// Notes on a version that it is revoked, where it is of a private CA and that is so.
///
/// # Errors
/// When the store cannot be read.
pub(crate) async fn mark(hub: &Hub, facts: &mut CurrentVersion) -> Result<(), StoreError> {
    if let Some(leaf) = hub.store.load::<RevokedLeaf>(&key_of(facts)).await? {
        facts.revoked_at = Some(leaf.value.revoked_at);
        facts.revoked_reason = Some(leaf.value.reason.word().to_owned());
    }
    Ok(())
}

fn key_of(version: &CurrentVersion) -> String {
    format!("{}/{}", version.issuer_id, version.serial)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use jiff::SignedDuration;
    use proto::clock::SystemClock;

    use super::*;
    use crate::lifecycle::issuer::tests::issuer;
    use crate::lifecycle::private_ca::tests::private_ca;
    use crate::lifecycle::renewal::tests::certificate;
    use crate::store::Store;
    use crate::store::engine::Backend;
    use crate::store::master_key::MasterKey;

    /// A leaf with the longest row of a list: 16 octets of serial, and a reason.
    fn leaf(number: u64, hub: &Hub, expired: SignedDuration) -> RevokedLeaf {
        RevokedLeaf {
            issuer_id: "corp".into(),
            serial: format!("{:032x}", (0x40_u128 << 120) + u128::from(number)),
            revoked_at: hub.now(),
            reason: RevocationReason::KeyCompromise,
            not_after: hub.now() - expired,
        }
    }

    async fn put(hub: &Hub, leaves: &[RevokedLeaf]) {
        for part in leaves.chunks(PAST_MAX) {
            hub.store.commit(part.iter().fold(Changes::new(), Changes::upsert)).await.unwrap();
        }
    }

    async fn made(hub: &Hub) -> RevocationList {
        list(hub, "corp").await.unwrap();
        hub.store.load::<RevocationList>("corp").await.unwrap().unwrap().value
    }

    #[tokio::test]
    async fn a_list_holds_all_it_may_refuses_more_and_has_room_again_once_leaves_expired() {
        let store = Store::open(Backend::memory(), true, MasterKey::random()).await.unwrap();
        let hub = Hub::open(store, Arc::new(SystemClock)).await.unwrap();
        let mut corp = issuer("corp");
        corp.private = Some(private_ca(&["*.corp.example"]));
        hub.store.commit(Changes::new().insert(&corp)).await.unwrap();
        root(&hub, hub.store.load::<Issuer>("corp").await.unwrap().unwrap()).await.unwrap();
        let valid = -SignedDuration::from_hours(24);
        put(&hub, &(0..REVOKED_MAX).map(|number| leaf(number, &hub, valid)).collect::<Vec<_>>()).await;
        let full = made(&hub).await;
        assert_eq!(full.count, REVOKED_MAX);

        let version = Version {
            id: "v".into(),
            certificate_id: "c".into(),
            facts: CurrentVersion {
                issuer_id: "corp".into(),
                not_after: hub.now() - valid,
                ..certificate(1).current.unwrap()
            },
            leaf_pem: String::new(),
            chain_pem: String::new(),
            order_url: String::new(),
            issued_at: hub.now(),
            reason: String::new(),
        };
        let asked = async || revoke(&hub, &corp, &version, RevocationReason::Superseded).await.unwrap();
        let refused = asked().await.unwrap_err();
        assert_eq!(refused.reason, "REVOCATION_LIST_FULL");
        // Expired, but clients may still ask for it: it stays.
        put(&hub, &[leaf(0, &hub, SignedDuration::ZERO)]).await;
        assert_eq!(made(&hub).await.count, REVOKED_MAX);
        asked().await.unwrap_err();
        let expired = LIST_LIFE + SignedDuration::from_secs(1);
        put(&hub, &(0..200).map(|number| leaf(number, &hub, expired)).collect::<Vec<_>>()).await;
        list(&hub, "corp").await.unwrap();
        assert_eq!(hub.store.revoked_leaves_count("corp").await.unwrap(), REVOKED_MAX - 200, "all of them, at once");
        hub.store.commit(asked().await.unwrap()).await.unwrap();
        let next = made(&hub).await;
        assert_eq!(next.count, REVOKED_MAX - 199);
        assert!(next.number > full.number);
    }
}
