//! The end of an order: the chain is downloaded, distrusted until it is checked, and becomes the current version.

use std::collections::HashSet;
use std::ops::Bound;

use jiff::Timestamp;
use proto::id::random_id;
use proto::text::one_line;
use proto::x509::{self, Chain, CsrFacts};

use super::{Attempt, StepError};
use crate::acme::order::{AcmeOrder, Downloaded};
use crate::lifecycle::certificate::{CurrentVersion, KeySlot, Version, Wanted};
use crate::lifecycle::event::Severity;
use crate::lifecycle::order::Phase;
use crate::lifecycle::problem::Problem;
use crate::lifecycle::rollout::Outgoing;
use crate::store::engine::Order as ScanOrder;
use crate::store::records::{Changes, Versioned};
use crate::store::tables::Table;
use crate::tasks::{outcome, private_ca, rollback};

/// A leaf may begin this much in our future: clocks differ.
const CLOCK_TOLERANCE: jiff::SignedDuration = jiff::SignedDuration::from_mins(10);
/// Versions kept of one certificate, the newest included.
const VERSIONS_KEPT: usize = 20;
/// Versions removed at once.
const OUTLIVED_MAX: usize = 5;
/// Longest issuer name kept.
const ISSUER_CHARS_MAX: usize = 100;

impl Attempt<'_> {
    pub(super) async fn download(&self, handle: &mut Option<AcmeOrder>) -> Result<(), StepError> {
        let preferred = self.order()?.value.issuer_id;
        let preferred = self.gathered.issuers.iter().find(|issuer| issuer.id == preferred);
        let preferred = preferred.and_then(|issuer| issuer.preferred_chain.clone());
        let Downloaded { pem, missed } = {
            let resumed = self.resume_order(handle).await?;
            resumed.certificate(preferred.as_deref()).await?
        };
        let mut changes = Changes::new();
        if let Some(offered) = missed {
            let message = format!(
                "no chain under {}; the CA's own choice is used; offered: {offered}",
                preferred.unwrap_or_default()
            );
            let mut event = self.event("version.chain", message);
            event.severity = Severity::Warn;
            changes = changes.event(&event);
        }
        *handle = None;
        self.finish(&pem, changes).await
    }

    /// Our own CA signs. What it signed is committed with the version that holds it, or was never issued.
    pub(super) async fn sign(&self) -> Result<(), StepError> {
        let order = self.order()?.value;
        let issuer = self.issuer_record(&order).await?;
        let (csr, names) = (self.csr()?, &self.certificate().specification.identifiers);
        let pem = private_ca::sign(&self.context.hub, &issuer.value, &csr, names).map_err(StepError::Refused)?;
        // Not for a policy that changes at this moment.
        self.finish(&pem, Changes::new().expect(Table::Issuer, &issuer.value.id, issuer.revision)).await
    }

    /// Makes a chain the current version, together with these changes.
    async fn finish(&self, pem: &str, changes: Changes) -> Result<(), StepError> {
        let slot = self.gathered.bundle.order_slot().map(|slot| slot.value.clone());
        let slot = slot.ok_or_else(|| StepError::Refused(wrong(&self.certificate().name, "its key slot is gone")))?;
        let now = self.context.hub.now();
        let chain =
            check(pem, &slot, now).map_err(|cause| StepError::Refused(wrong(&self.certificate().name, &cause)))?;
        let version = self.version(&chain, &slot, now)?;
        let mut order = self.order()?;
        // An ACME order is there already.
        order.value.enter(Phase::Finalizing, now);
        order.value.enter(Phase::Completed, now);
        order.value.failures = 0;
        order.value.replaces_refused = false;
        order.value.error = None;
        order.value.retry_at = None;
        let mut certificate = self.gathered.bundle.certificate.clone();
        if let Some(before) = self.certificate().deployed() {
            let delivery = &mut certificate.value.delivery;
            let targets = self.gathered.bundle.target_values();
            delivery.outgoing = Some(Outgoing::of(before, delivery.outgoing, &targets));
            // What was revoked is replaced everywhere at once.
            delivery.released = before.revoked_at.map(|_| version.id.clone());
        }
        certificate.value.current = Some(version.facts.clone());
        let went_back = certificate.value.rollback.take();
        let mut changes = changes.insert(&version).update(&certificate);
        if went_back.is_some() {
            let ended = rollback::ended(&self.context.hub, self.certificate(), "a new version was issued");
            changes = changes.event(&ended);
        }
        let (outlived, kept) = self.outlived(&version).await?;
        for old in outlived {
            let slot = format!("{}/{}", old.value.certificate_id, old.value.facts.key_slot_id);
            changes = changes.remove(&old);
            // A pinned key is in later versions as well.
            if !kept.contains(&old.value.facts.key_slot_id) {
                changes = changes.delete_raw(Table::KeySlot, &slot);
            }
        }
        let message = format!(
            "serial {} from {}, valid until {}",
            version.facts.serial, version.facts.issuer_cn, version.facts.not_after
        );
        if let Some(before) = &self.certificate().current {
            let known = format!("{}/{}", version.certificate_id, before.version_id);
            changes = changes.delete_raw(Table::RenewalInfo, &known);
        }
        changes = changes.event(&self.event("version.issued", message));
        let (hub, bundle) = (&self.context.hub, &self.gathered.bundle);
        // With targets the attempt ends when they have answered.
        let ended = bundle.targets.is_empty().then(|| outcome::issued(hub, bundle, &version.facts.serial));
        changes = ended.iter().fold(changes, |changes, ended| changes.event(ended));
        self.save(&order, changes).await?;
        ended.iter().for_each(|ended| outcome::told(hub, ended));
        self.wake_agents();
        self.context.hub.wake.renewals.ring(&version.certificate_id);
        Ok(())
    }

    /// The versions that are old enough to go, with their keys: a few at a time, oldest first.
    /// Beside them the slots that other versions need.
    async fn outlived(&self, newest: &Version) -> Result<(Vec<Versioned<Version>>, HashSet<String>), StepError> {
        let prefix = format!("{}/", newest.certificate_id);
        let versions = self.context.hub.store.read(move |snapshot| {
            snapshot.list::<Version>(&prefix, Bound::Unbounded, ScanOrder::Descending, VERSIONS_KEPT + OUTLIVED_MAX)
        });
        let current = self.certificate().current.as_ref().map(|current| current.version_id.clone());
        let is_kept = |(index, version): &(usize, Versioned<Version>)| {
            *index < VERSIONS_KEPT - 1 || current.as_ref() == Some(&version.value.id)
        };
        let (kept, old): (Vec<_>, Vec<_>) = versions.await?.into_iter().enumerate().partition(is_kept);
        let slots = kept.into_iter().map(|(_, version)| version.value.facts.key_slot_id);
        let slots = slots.chain(std::iter::once(newest.facts.key_slot_id.clone()));
        Ok((old.into_iter().map(|(_, version)| version).collect(), slots.collect()))
    }

    fn version(&self, chain: &Chain, slot: &KeySlot, now: Timestamp) -> Result<Version, StepError> {
        let order = self.order()?.value;
        let leaf = &chain.leaf;
        let certificates = chain.certificates.iter().map(|der| x509::to_pem(der)).collect::<Vec<_>>();
        // Sorts by time, so that history is listed newest first.
        let id = format!("{:012x}{}", now.as_millisecond(), random_id());
        Ok(Version {
            id: id.clone(),
            certificate_id: self.certificate().id.clone(),
            facts: CurrentVersion {
                version_id: id,
                serial: leaf.serial.clone(),
                fingerprint_sha256: x509::hex(&leaf.fingerprint_sha256),
                not_before: leaf.not_before,
                not_after: leaf.not_after,
                issuer_cn: one_line(&leaf.issuer_cn, ISSUER_CHARS_MAX),
                custody: slot.custody,
                key_slot_id: slot.id.clone(),
                identifiers: slot.identifiers.clone(),
                key_type: slot.key_type,
                wanted: Some(Wanted {
                    issuer_id: order.issuers.first().unwrap_or(&order.issuer_id).clone(),
                    profile: order.wanted_profile,
                }),
                issuer_id: order.issuer_id,
                profile: order.profile,
                key_lost: false,
                revoked_at: None,
                revoked_reason: None,
            },
            leaf_pem: certificates.first().cloned().unwrap_or_default(),
            chain_pem: certificates.iter().skip(1).cloned().collect(),
            order_url: order.order_url.unwrap_or_default(),
            issued_at: now,
            reason: order.reason.word().to_owned(),
        })
    }
}

/// Checks what the CA sent: it may be anything.
fn check(pem: &str, slot: &KeySlot, now: Timestamp) -> Result<Chain, String> {
    use base64::Engine as _;
    let chain = Chain::parse_pem(pem.as_bytes()).map_err(|error| error.to_string())?;
    let csr = slot.csr.as_deref().and_then(|csr| base64::engine::general_purpose::STANDARD.decode(csr).ok());
    let csr = csr.and_then(|der| CsrFacts::parse(&der).ok()).ok_or("the recorded CSR does not parse")?;
    let leaf = &chain.leaf;
    if leaf.spki_der != csr.spki_der {
        return Err("it certifies another key than ours".to_owned());
    }
    if !leaf.has_exactly(&slot.identifiers) {
        return Err(format!(
            "it names {}, and {} was ordered",
            leaf.identifiers.join(", "),
            slot.identifiers.join(", ")
        ));
    }
    if leaf.not_after <= now || leaf.not_after <= leaf.not_before {
        return Err(format!("it is valid until {}, which is past", leaf.not_after));
    }
    if leaf.not_before.duration_since(now) > CLOCK_TOLERANCE {
        return Err(format!("it is valid only from {}, which is in the future of this host's clock", leaf.not_before));
    }
    Ok(chain)
}

fn wrong(name: &str, cause: &str) -> Problem {
    Problem::new(
        "CERTIFICATE_WRONG",
        format!("the CA's certificate for {name} is not the one that was ordered; it is not used"),
        cause,
        "nothing to do now: a new order is made at the next try; if it happens again, tell the CA",
    )
}
