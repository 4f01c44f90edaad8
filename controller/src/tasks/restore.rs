//! A restored controller (lifecycle/restore): holds everything still until an owner accepts it, keeps what agents show of what
//! they hold, and takes it over. Also notices that a database was put back by other means, by heads of the audit that its
//! own key signed and that it does not have. Called by `rpc` and `tasks::run`.

use std::ops::Bound;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use proto::audit::{self, Head};
use proto::text::one_line;
use proto::x509::{Chain, CsrFacts, hex};
use tokio::sync::watch;
use tracing::error;

use super::hub::Hub;
use super::private_ca;
use crate::lifecycle::agent::{Agent, JoinToken};
use crate::lifecycle::audit::{Draft, Result as How};
use crate::lifecycle::certificate::{Certificate, Custody, KeySlot, Version};
use crate::lifecycle::event::Severity;
use crate::lifecycle::operator::{Invitation, Operator};
use crate::lifecycle::problem::Problem;
use crate::lifecycle::restore::{Accepted, FIRST_EPOCH, Restore, ShownLeaf, Verdict, imported, next_epoch, verdict};
use crate::store::StoreError;
use crate::store::batch::CommitError;
use crate::store::certificate::Bundle;
use crate::store::engine::Order as ScanOrder;
use crate::store::records::{Changes, Record, Versioned};
use crate::store::restore::{Shown, ShownAll};
use crate::store::tables::Table;

/// Records removed in one batch, with their names.
const BATCH: usize = 25;
/// So often a certificate that changes meanwhile is looked at.
const ATTEMPTS_MAX: u32 = 8;
/// Longest issuer name kept.
const ISSUER_CHARS_MAX: usize = 100;
/// Why a version was ordered that nobody here ordered.
const REASON: &str = "imported";
/// Who noticed a database that was put back.
const AN_AGENT: &str = "an agent";

/// Whether the controller may work.
#[derive(Debug)]
pub struct Gate {
    restore: watch::Sender<Option<Restore>>,
}

/// Why something of a restore could not be done.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RestoreError {
    /// Reading.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Writing.
    #[error(transparent)]
    Commit(#[from] CommitError),
}

impl Gate {
    /// Stands as the database says.
    #[must_use]
    pub fn new(restore: Option<Restore>) -> Self {
        Self { restore: watch::Sender::new(restore) }
    }

    /// Whether everything is held still until an owner accepts.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.restore.borrow().as_ref().is_some_and(Restore::is_waiting)
    }

    /// Returns what names the desired states of this controller.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.restore.borrow().as_ref().map_or(FIRST_EPOCH, |restore| restore.epoch)
    }

    /// Whether what was published then may be published still.
    #[must_use]
    pub fn stands(&self, published_at: Timestamp) -> bool {
        self.restore.borrow().as_ref().is_none_or(|restore| restore.stands(published_at))
    }

    /// Returns the latest line of the audit that was lost by a restore that still waits, and the agent that saw it.
    #[must_use]
    pub fn lines_lost(&self) -> Option<(u64, String)> {
        self.restore.borrow().as_ref().filter(|restore| restore.is_waiting())?.witnessed.clone()
    }

    /// Waits until the controller may work.
    pub(crate) async fn opened(&self) {
        self.until(false).await;
    }

    /// Waits until it may not.
    pub(crate) async fn closed(&self) {
        self.until(true).await;
    }

    async fn until(&self, closed: bool) {
        let mut restore = self.restore.subscribe();
        let wanted = |restore: &Option<Restore>| restore.as_ref().is_some_and(Restore::is_waiting) == closed;
        // The sender lives as long as this gate.
        drop(restore.wait_for(wanted).await);
    }

    fn set(&self, restore: Restore) {
        self.restore.send_replace(Some(restore));
    }
}

/// Whether this agent has shown all that it holds, as far as it must: only after a restore.
///
/// # Errors
/// When the store cannot be read.
pub(crate) async fn has_shown(hub: &Hub, agent_id: &str) -> Result<bool, StoreError> {
    let epoch = hub.gate.epoch();
    if epoch == FIRST_EPOCH {
        return Ok(true);
    }
    Ok(hub.store.load::<ShownAll>(agent_id).await?.is_some_and(|shown| shown.value.epoch == epoch))
}

/// Keeps a version that an agent shows. What does not parse was told to nobody and is not kept.
///
/// # Errors
/// When the store fails.
pub(crate) async fn keep(hub: &Hub, shown: Shown) -> Result<(), RestoreError> {
    if parse(&shown).is_some() && !hub.store.has_shown_too_much(&shown.agent_id).await? {
        hub.store.commit(Changes::new().upsert(&shown)).await?;
    }
    Ok(())
}

/// The agent has shown everything. An accepted controller takes it over at once, before it tells the agent anything.
///
/// # Errors
/// When the store fails; the agent says it again.
pub(crate) async fn shown_all(hub: &Hub, agent_id: &str) -> Result<(), RestoreError> {
    if has_shown(hub, agent_id).await? {
        return Ok(());
    }
    if !hub.gate.is_closed() {
        take_over(hub, agent_id).await?;
    }
    hub.store
        .commit(Changes::new().upsert(&ShownAll { agent_id: agent_id.to_owned(), epoch: hub.gate.epoch() }))
        .await?;
    hub.wake.agents.ring(agent_id);
    Ok(())
}

/// Lets the controller work: first takes over what agents showed, then says so. May be cut anywhere and repeated.
///
/// # Errors
/// When the store fails.
pub(crate) async fn accept(hub: &Hub, by: &str, keep_operators: bool) -> Result<(), RestoreError> {
    let Some(mut record) = hub.store.restore_record().await? else { return Ok(()) };
    if !record.value.is_waiting() {
        return Ok(());
    }
    if !keep_operators {
        remove_operators(hub).await?;
    }
    void_tokens(hub).await?;
    take_over(hub, "").await?;
    private_ca::mark_revoked(hub).await?;
    record.value.accepted = Some(Accepted { at: hub.now(), by: by.to_owned() });
    let message = format!("the restored database is in use: epoch {}", record.value.epoch);
    let event = hub.event("restore.accepted", message).by(by);
    hub.store.commit(Changes::new().update(&record).event(&event)).await?;
    hub.gate.set(record.value);
    for agent in hub.store.agents().await? {
        hub.wake.agents.ring(&agent.value.id);
    }
    Ok(())
}

/// What an agent shows, with the certificate that its target belongs to.
#[derive(Debug)]
pub(crate) struct Finding {
    /// As it was shown.
    pub(crate) shown: Shown,
    /// Its leaf.
    pub(crate) leaf: ShownLeaf,
    /// `None` when no certificate here has the target.
    pub(crate) certificate: Option<Certificate>,
    /// What is done with it.
    pub(crate) verdict: Verdict,
    slot: Option<KeySlot>,
}

impl Finding {
    /// Whether its key is known to be held by the agent, or here.
    pub(crate) fn has_key(&self) -> bool {
        self.shown.key_slot_id.is_some() || self.slot.is_some()
    }
}

/// Judges what this agent showed, or everyone for the empty id.
///
/// # Errors
/// When the store cannot be read.
pub(crate) async fn findings(hub: &Hub, agent_id: &str) -> Result<Vec<Finding>, StoreError> {
    let (mut findings, mut known) = (Vec::new(), Known::default());
    for shown in hub.store.shown_by(agent_id).await? {
        findings.extend(finding(hub, &mut known, shown.value).await?);
    }
    Ok(findings)
}

/// The certificates of the agent whose turn it is.
#[derive(Default)]
struct Known {
    agent_id: String,
    bundles: Vec<Bundle>,
}

async fn finding(hub: &Hub, known: &mut Known, shown: Shown) -> Result<Option<Finding>, StoreError> {
    let Some((chain, leaf)) = parse(&shown) else { return Ok(None) };
    if known.agent_id != shown.agent_id {
        let bundles = hub.store.bundles_of_agent(&shown.agent_id).await?;
        *known = Known { agent_id: shown.agent_id.clone(), bundles };
    }
    let is_its = |bundle: &&Bundle| {
        bundle
            .targets
            .iter()
            .any(|(target, _)| target.value.id == shown.target_id && target.value.agent_id == shown.agent_id)
    };
    let Some(bundle) = known.bundles.iter().find(is_its) else {
        let verdict = Verdict::Refuse("no certificate here has this target; its files stay as they are".to_owned());
        return Ok(Some(Finding { shown, leaf, certificate: None, verdict, slot: None }));
    };
    let certificate = bundle.certificate.value.clone();
    let slots = slots(hub, &certificate.id).await?;
    let certified = slots.into_iter().find(|slot| csr_key(slot).is_some_and(|key| key == chain.leaf.spki_der));
    let mut verdict = verdict(&certificate, &leaf, hub.now());
    let agents = bundle.target_agent_ids();
    if let Some(id) = shown.key_slot_id.as_ref().filter(|_| verdict == Verdict::Take) {
        let is_foreign = certified.as_ref().is_some_and(|slot| slot.id != *id || slot.custody != Custody::Agent);
        if is_foreign || agents.iter().any(|agent| *agent != shown.agent_id) {
            verdict = Verdict::Refuse("its key cannot be the one that this agent says".to_owned());
        }
    }
    Ok(Some(Finding { shown, leaf, certificate: Some(certificate), verdict, slot: certified }))
}

async fn slots(hub: &Hub, certificate_id: &str) -> Result<Vec<KeySlot>, StoreError> {
    let prefix = format!("{certificate_id}/");
    let list = hub
        .store
        .read(move |snapshot| snapshot.list::<KeySlot>(&prefix, Bound::Unbounded, ScanOrder::Ascending, usize::MAX));
    Ok(list.await?.into_iter().map(|slot| slot.value).collect())
}

fn csr_key(slot: &KeySlot) -> Option<Vec<u8>> {
    let der = STANDARD.decode(slot.csr.as_deref()?).ok()?;
    Some(CsrFacts::parse(&der).ok()?.spki_der)
}

fn parse(shown: &Shown) -> Option<(Chain, ShownLeaf)> {
    let chain = Chain::parse_pem(format!("{}{}", shown.leaf_pem, shown.chain_pem).as_bytes()).ok()?;
    let leaf = &chain.leaf;
    let facts = ShownLeaf {
        version_id: shown.version_id.clone(),
        serial: leaf.serial.clone(),
        fingerprint_sha256: hex(&leaf.fingerprint_sha256),
        not_before: leaf.not_before,
        not_after: leaf.not_after,
        issuer_cn: one_line(&leaf.issuer_cn, ISSUER_CHARS_MAX),
        identifiers: leaf.identifiers.clone(),
    };
    Some((chain, facts))
}

/// Makes what was shown current where it is newer, one certificate at a time, and forgets it.
async fn take_over(hub: &Hub, agent_id: &str) -> Result<(), RestoreError> {
    let mut known = Known::default();
    for record in hub.store.shown_by(agent_id).await? {
        let mut attempt = 1;
        loop {
            match take(hub, &mut known, &record).await {
                // The certificate changed meanwhile: judged again as it is now.
                Err(RestoreError::Commit(CommitError::Conflict { .. })) if attempt < ATTEMPTS_MAX => {
                    (attempt, known) = (attempt + 1, Known::default());
                }
                done => break done?,
            }
        }
    }
    Ok(())
}

async fn take(hub: &Hub, known: &mut Known, record: &Versioned<Shown>) -> Result<(), RestoreError> {
    if hub.store.load::<Shown>(&record.value.key()).await?.is_none_or(|now| now.revision != record.revision) {
        // Somebody else took it, or will take what it became.
        return Ok(());
    }
    let changes = Changes::new().remove(record);
    if let Some(finding) = finding(hub, known, record.value.clone()).await?
        && finding.verdict == Verdict::Take
        && let Some(certificate) = &finding.certificate
    {
        let changes = import(hub, &finding, certificate, changes).await?;
        hub.store.commit(changes).await?;
        // What its other targets hold is judged beside this version.
        *known = Known::default();
        hub.wake.certificates.ring(&certificate.id);
    } else {
        hub.store.commit(changes).await?;
    }
    Ok(())
}

async fn import(
    hub: &Hub,
    finding: &Finding,
    certificate: &Certificate,
    changes: Changes,
) -> Result<Changes, RestoreError> {
    let Finding { shown, leaf, slot, .. } = finding;
    let Some(mut record) = hub.store.load::<Certificate>(&certificate.id).await? else { return Ok(changes) };
    let custody = if shown.key_slot_id.is_some() { Custody::Agent } else { Custody::Controller };
    let key_type = slot.as_ref().map_or(certificate.specification.key_type, |slot| slot.key_type);
    // Without a slot of its key the version names one that does not exist.
    let slot_id = slot.as_ref().map(|slot| &slot.id).or(shown.key_slot_id.as_ref()).unwrap_or(&shown.version_id);
    let mut facts = imported(certificate, leaf, slot_id, key_type, custody);
    facts.key_lost &= slot.is_none();
    private_ca::mark(hub, &mut facts).await?;
    let mut changes = changes;
    if slot.is_none() && custody == Custody::Agent {
        let slot = KeySlot {
            id: slot_id.clone(),
            certificate_id: certificate.id.clone(),
            custody,
            agent_id: Some(shown.agent_id.clone()),
            identifiers: certificate.specification.identifiers.clone(),
            key_type,
            csr: None,
            key: None,
            lost: false,
            problem: None,
        };
        changes = changes.upsert(&slot);
    }
    let version = Version {
        id: shown.version_id.clone(),
        certificate_id: certificate.id.clone(),
        facts: facts.clone(),
        leaf_pem: shown.leaf_pem.clone(),
        chain_pem: shown.chain_pem.clone(),
        order_url: String::new(),
        issued_at: leaf.not_before,
        reason: REASON.to_owned(),
    };
    if let Some(before) = &certificate.current {
        changes = changes.delete_raw(Table::RenewalInfo, &format!("{}/{}", certificate.id, before.version_id));
    }
    // A wish that was fulfilled after the backup is not fulfilled again.
    record.value.renew_asked_at = record.value.renew_asked_at.filter(|asked| *asked > leaf.not_before);
    record.value.rekey_asked &= record.value.renew_asked_at.is_some();
    let agent = hub.store.load::<Agent>(&shown.agent_id).await?.map(|agent| agent.value.name).unwrap_or_default();
    let key = if facts.key_lost { "; its key was lost with the database: a new version is ordered" } else { "" };
    let message = format!("serial {}, valid until {}, is taken over from {agent}{key}", leaf.serial, leaf.not_after);
    let event = hub.event("version.imported", message).of_certificate(&certificate.name).of_agent(&agent);
    record.value.current = Some(facts);
    record.value.rollback = None;
    Ok(changes.upsert(&version).update(&record).event(&event))
}

async fn remove_operators(hub: &Hub) -> Result<(), RestoreError> {
    let operators: Vec<Versioned<Operator>> = hub.store.operators().await?;
    for part in operators.chunks(BATCH) {
        let remove = |changes: Changes, operator: &Versioned<Operator>| {
            changes.remove(operator).delete_raw(Table::OperatorName, &operator.value.name)
        };
        hub.store.commit(part.iter().fold(Changes::new(), remove)).await?;
    }
    Ok(())
}

/// A database that was put back by other means still has the tokens of its day.
async fn void_tokens(hub: &Hub) -> Result<(), RestoreError> {
    remove_all(hub, &hub.store.list::<JoinToken>("", usize::MAX).await?).await?;
    remove_all(hub, &hub.store.list::<Invitation>("", usize::MAX).await?).await
}

async fn remove_all<R: Record>(hub: &Hub, records: &[Versioned<R>]) -> Result<(), RestoreError> {
    for part in records.chunks(BATCH) {
        hub.store.commit(part.iter().fold(Changes::new(), Changes::remove)).await?;
    }
    Ok(())
}

/// Looks at the last head of the audit that an agent keeps. One that our key signed and that is beyond our lines proves that
/// this database is older than what it once was, or that another one was restored from its backup: then everything is held
/// still, as after a restore. What follows from a restore that is known is only written down.
///
/// # Errors
/// When the store fails.
pub(crate) async fn look_at_head(hub: &Hub, agent: &str, head: &Head) -> Result<HeadIs, RestoreError> {
    let epoch = hub.gate.epoch();
    let head_epoch = head.epoch.max(FIRST_EPOCH);
    if head_epoch < epoch {
        if let Some(record) = hub.store.restore_record().await? {
            if head.seq <= record.value.audit_seq {
                return Ok(HeadIs::Comparable);
            }
            if record.value.witnessed.as_ref().is_none_or(|(seq, _)| *seq < head.seq) && is_ours(hub, head).await {
                witness(hub, record, agent, head.seq).await?;
            }
        }
        return Ok(HeadIs::Lost);
    }
    let last = hub.audit.last(hub).await.unwrap_or(u64::MAX);
    if (head_epoch == epoch && head.seq <= last) || hub.gate.is_closed() || !is_ours(hub, head).await {
        return Ok(HeadIs::Comparable);
    }
    put_back(hub, agent, head, last).await?;
    Ok(HeadIs::Lost)
}

/// What an agent's head can be compared with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HeadIs {
    /// With the line of its number.
    Comparable,
    /// With nothing: its line was lost by a restore.
    Lost,
}

async fn is_ours(hub: &Hub, head: &Head) -> bool {
    matches!(hub.audit.head(hub).await, Ok(Some((_, key))) if head.is_signed_by(&key))
}

/// Writes down how far the audit once went.
async fn witness(hub: &Hub, mut record: Versioned<Restore>, agent: &str, seq: u64) -> Result<(), RestoreError> {
    record.value.witnessed = Some((seq, agent.to_owned()));
    let (lines, last) = (record.value.lines_lost(), record.value.audit_seq);
    let message =
        format!("{lines} lines of the audit, {} to {seq}, were written after the backup and are lost", last + 1);
    let event = hub.event("audit.lines_lost", message).of_agent(agent);
    match hub.store.commit(Changes::new().update(&record).event(&event)).await {
        Ok(_) => hub.gate.set(record.value),
        // Somebody was faster; the agent says it again.
        Err(CommitError::Conflict { .. }) => {}
        Err(error) => return Err(error.into()),
    }
    Ok(())
}

async fn put_back(hub: &Hub, agent: &str, head: &Head, last: u64) -> Result<(), RestoreError> {
    let (now, before) = (hub.now(), hub.store.restore_record().await?);
    let known = hub.gate.epoch().max(head.epoch);
    let random = u16::try_from(now.as_nanosecond().rem_euclid(i128::from(u16::MAX))).unwrap_or_default();
    let restore = Restore {
        epoch: next_epoch(known, now, random),
        restored_at: now,
        by: AN_AGENT.to_owned(),
        made_at: Timestamp::UNIX_EPOCH,
        controller: String::new(),
        audit_seq: last,
        witnessed: Some((head.seq, agent.to_owned())),
        removals: None,
        accepted: None,
    };
    let problem = Problem::new(
        "DATABASE_PUT_BACK",
        format!("this database is older than what agent {agent} knows of it: everything is held still"),
        format!(
            "the agent keeps line {} of the audit, signed by this controller; the last one here is {last}",
            head.seq
        ),
        "if another controller took over, stop this one; if this database was put back, look at certwright restore status and then certwright restore accept",
    );
    error!(
        agent,
        seq = head.seq,
        last,
        "the database is older than what an agent knows of it; nothing is ordered or published"
    );
    let event = hub.event("restore.noticed", &problem.message).of_agent(agent).with_problem(Severity::Error, problem);
    let changes = match before {
        Some(before) => Changes::new().update(&Versioned { revision: before.revision, value: restore.clone() }),
        None => Changes::new().insert(&restore),
    };
    match hub.store.commit(changes.event(&event)).await {
        Ok(_) => {
            hub.gate.set(restore.clone());
            // So that whoever checks the chain knows which lines are lost. Without it they are only called gone.
            let draft = Draft {
                actor: format!("agent:{agent}"),
                from: format!("its head of line {}", head.seq),
                act: audit::RESTORE.to_owned(),
                subject: "database".to_owned(),
                detail: format!("noticed line={last} epoch={}", restore.epoch),
                result: How::Asked,
            };
            drop(hub.audit.write(hub, draft).await);
        }
        Err(CommitError::Conflict { .. }) => {}
        Err(error) => return Err(error.into()),
    }
    Ok(())
}
