//! Writes the audit: every line is durable before the act that it is about has its effect. Lines are chained, so they are
//! written by one at a time; who waits meanwhile is written together with the next. Called by `rpc`.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::mem::take;
use std::sync::{Arc, Mutex as StdMutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use proto::audit::{self, BEGINNING, Head};
use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256, PublicKeyData as _};
use secrecy::ExposeSecret as _;
use tokio::sync::{Mutex, oneshot};
use tracing::error;

use super::hub::Hub;
use crate::lifecycle::audit::Draft;
use crate::lifecycle::backoff::after;
use crate::lifecycle::event::Severity;
use crate::lifecycle::problem::{Problem, chain};
use crate::store::audit::AuditKey;
use crate::store::batch::CommitError;
use crate::store::engine::EngineError;
use crate::store::engine::Order as ScanOrder;
use crate::store::records::Changes;
use crate::store::seal::SealError;
use crate::store::{Store, StoreError};

/// Lines of one commit; a batch holds 64 keys.
const LINES_MAX: usize = 30;
/// So often a line is tried when others are cancelled while they write it.
const ATTEMPTS_MAX: usize = 8;
/// What the same peer does over and over is written once within this.
const REPEAT_EVERY: Duration = Duration::from_secs(60);
/// Repeats remembered; more are forgotten all at once.
const REPEATS_MAX: usize = 10_000;

/// Why a line could not be written. Nothing is done then.
#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum AuditError {
    /// Reading the end of the chain, or writing.
    #[error("cannot write the audit")]
    Store(#[source] Arc<dyn std::error::Error + Send + Sync>),
    /// The disk is full.
    #[error(transparent)]
    Full(EngineError),
    /// A line of that number is there already.
    #[error("the end of the audit moved meanwhile")]
    Conflict,
    /// Whoever wrote for this caller was cancelled, again and again.
    #[error("too many calls were cancelled at the same time")]
    Contended,
}

/// The one writer of the audit.
#[derive(Default)]
pub(crate) struct Auditor {
    waiting: StdMutex<Vec<Waiting>>,
    chain: Mutex<Option<End>>,
    witnesses: StdMutex<BTreeMap<String, Witness>>,
    repeats: StdMutex<HashMap<(String, String), Timestamp>>,
}

/// A line that is to be written, and who waits for its number.
type Waiting = (Draft, oneshot::Sender<Result<u64, AuditError>>);

/// Where the chain ends now.
struct End {
    seq: u64,
    hash: String,
    key: KeyPair,
}

/// What an agent keeps of the audit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Witness {
    /// The last line that it knows of.
    pub(crate) seq: u64,
    hash: String,
    /// Whether our line of that number is the one it knows.
    pub(crate) agrees: bool,
}

impl fmt::Debug for Auditor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Auditor")
    }
}

impl Auditor {
    /// Writes a line and returns its number once it is durable. A caller that is cancelled meanwhile, by a client that hangs up,
    /// takes nobody else's line with it; its own may stand twice.
    ///
    /// # Errors
    /// When it could not be written.
    pub(crate) async fn write(&self, hub: &Hub, draft: Draft) -> Result<u64, AuditError> {
        for _ in 0..ATTEMPTS_MAX {
            if let Some(written) = self.try_write(hub, draft.clone()).await {
                return written;
            }
        }
        Err(AuditError::Contended)
    }

    /// Returns nothing when whoever wrote for us was cancelled.
    async fn try_write(&self, hub: &Hub, draft: Draft) -> Option<Result<u64, AuditError>> {
        let (told, mut answer) = oneshot::channel();
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).push((draft, told));
        let mut end = self.chain.lock().await;
        // Whoever was before may have written ours with theirs; then there may be nothing left to write.
        let mut all = take(&mut *self.waiting.lock().unwrap_or_else(PoisonError::into_inner));
        while !all.is_empty() {
            let rest = all.split_off(all.len().min(LINES_MAX));
            let (drafts, tellers): (Vec<Draft>, Vec<_>) = all.into_iter().unzip();
            let written = append(hub, &mut end, &drafts).await;
            for (number, teller) in tellers.into_iter().enumerate() {
                let number = u64::try_from(number).unwrap_or_default();
                // Whoever does not wait any more was cancelled; the line stands.
                drop(teller.send(written.clone().map(|first| first + number)));
            }
            all = rest;
        }
        answer.try_recv().ok()
    }

    /// Writes a line, unless the same one about `what` was written a moment ago: a refused operator or a hijacked agent that
    /// repeats itself must not push what others did out of the audit.
    ///
    /// # Errors
    /// When it could not be written.
    pub(crate) async fn write_new(&self, hub: &Hub, what: &str, draft: Draft) -> Result<(), AuditError> {
        let known = (draft.actor.clone(), what.to_owned());
        let now = hub.now();
        let written = self.repeats.lock().unwrap_or_else(PoisonError::into_inner).get(&known).copied();
        if written.is_some_and(|at| after(at, REPEAT_EVERY) > now && at <= now) {
            return Ok(());
        }
        self.write(hub, draft).await?;
        let mut repeats = self.repeats.lock().unwrap_or_else(PoisonError::into_inner);
        if repeats.len() >= REPEATS_MAX {
            repeats.clear();
        }
        repeats.insert(known, now);
        Ok(())
    }

    /// Returns the signed end of the chain, and the public key it is signed with; `None` before the first line.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub(crate) async fn head(&self, hub: &Hub) -> Result<Option<(Head, Vec<u8>)>, AuditError> {
        let mut end = self.chain.lock().await;
        if end.is_none() {
            *end = open(&hub.store).await?;
        }
        let Some(end) = end.as_ref().filter(|end| end.seq > 0) else { return Ok(None) };
        let head = Head::sign(hub.gate.epoch(), end.seq, &end.hash, &end.key).map_err(store_error)?;
        Ok(Some((head, end.key.der_bytes().to_vec())))
    }

    /// Returns the number of the last line; 0 before the first.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub(crate) async fn last(&self, hub: &Hub) -> Result<u64, AuditError> {
        Ok(self.head(hub).await?.map_or(0, |(head, _)| head.seq))
    }

    /// Compares what an agent keeps with what is written, and tells once when they differ.
    ///
    /// # Errors
    /// When the store cannot be read or written.
    pub(crate) async fn witnessed(&self, hub: &Hub, agent: &str, seq: u64, hash: &str) -> Result<(), AuditError> {
        let known = self.witnesses.lock().unwrap_or_else(PoisonError::into_inner).get(agent).cloned();
        if known.as_ref().is_some_and(|known| known.seq == seq && known.hash == hash) {
            return Ok(());
        }
        let oldest = hub.store.audit_lines(None, ScanOrder::Ascending, 1).await.map_err(store_error)?;
        let removed = oldest.first().is_some_and(|(first, _)| *first > seq);
        let line = hub.store.audit_line(seq).await.map_err(store_error)?;
        let agrees = removed || line.is_some_and(|line| audit::hash(&line) == hash);
        let witness = Witness { seq, hash: hash.to_owned(), agrees };
        self.witnesses.lock().unwrap_or_else(PoisonError::into_inner).insert(agent.to_owned(), witness);
        if agrees || known.is_some_and(|known| !known.agrees) {
            return Ok(());
        }
        let problem = Problem::new(
            "AUDIT_REWRITTEN",
            format!("the audit is not the one that agent {agent} saw: line {seq} differs or is gone"),
            "someone changed the database, or an older one was restored",
            "compare: certwright audit verify --witness FILE, with the output of certwright-agent status -o json on that host",
        );
        let event = hub.event("audit.rewritten", &problem.message).of_agent(agent);
        let changes = Changes::new().event(&event.with_problem(Severity::Error, problem));
        hub.store.commit(changes).await.map_err(store_error)?;
        Ok(())
    }

    /// Returns what the agents keep, by name, as far as they said since the controller started.
    pub(crate) fn witnesses(&self) -> BTreeMap<String, Witness> {
        self.witnesses.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Forgets what an agent keeps.
    pub(crate) fn forget(&self, agent: &str) {
        self.witnesses.lock().unwrap_or_else(PoisonError::into_inner).remove(agent);
    }
}

/// Writes these lines in one batch and returns the number of the first. When that fails the end is read anew next time: a batch
/// whose writer was cancelled may still have come in between, and is a conflict then.
async fn append(hub: &Hub, end: &mut Option<End>, drafts: &[Draft]) -> Result<u64, AuditError> {
    let mut appended = try_append(hub, end, drafts).await;
    for _ in 1..ATTEMPTS_MAX {
        if !matches!(appended, Err(AuditError::Conflict)) {
            break;
        }
        appended = try_append(hub, end, drafts).await;
    }
    if let Err(error) = &appended {
        error!(error = %chain(error), "cannot write the audit");
    }
    appended
}

async fn try_append(hub: &Hub, end: &mut Option<End>, drafts: &[Draft]) -> Result<u64, AuditError> {
    if end.is_none() {
        *end = open(&hub.store).await?;
    }
    let (mut changes, mut next) = match end.take() {
        Some(end) => (Changes::new(), end),
        None => begin(&hub.store)?,
    };
    let first = next.seq + 1;
    for draft in drafts {
        next.seq += 1;
        let text = serde_json::to_string(&draft.line(next.seq, hub.now(), &next.hash)).map_err(store_error)?;
        next.hash = audit::hash(&text);
        changes = changes.audit_line(next.seq, text);
    }
    match hub.store.commit(changes).await {
        Ok(_) => {}
        Err(CommitError::Conflict { .. }) => return Err(AuditError::Conflict),
        Err(CommitError::Storage(full @ EngineError::Full(_))) => return Err(AuditError::Full(full)),
        Err(error) => return Err(store_error(error)),
    }
    *end = Some(next);
    Ok(first)
}

/// Reads where the chain ends; `None` when there is no key yet, and so no line.
async fn open(store: &Store) -> Result<Option<End>, AuditError> {
    let read = async {
        let key = store.load::<AuditKey>(AuditKey::KEY).await?;
        let last = store.audit_lines(None, ScanOrder::Descending, 1).await?;
        Ok::<_, StoreError>((key, last))
    };
    let (key, last) = read.await.map_err(|error| match error {
        StoreError::Engine(full @ EngineError::Full(_)) => AuditError::Full(full),
        other => store_error(other),
    })?;
    let Some(key) = key else { return Ok(None) };
    let pem = store.keyring.open(AuditKey::place(), &key.value.key).map_err(|error: SealError| store_error(error))?;
    let key = KeyPair::from_pkcs8_pem_and_sign_algo(pem.expose_secret(), &PKCS_ECDSA_P256_SHA256);
    let key = key.map_err(store_error)?;
    Ok(Some(match last.into_iter().next() {
        Some((seq, line)) => End { seq, hash: audit::hash(&line), key },
        None => End { seq: 0, hash: BEGINNING.to_owned(), key },
    }))
}

/// Makes the key with the first lines.
fn begin(store: &Store) -> Result<(Changes, End), AuditError> {
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(store_error)?;
    let sealed = store.keyring.seal(AuditKey::place(), &key.serialize_pem().into());
    let changes = Changes::new().insert(&AuditKey { key: sealed });
    Ok((changes, End { seq: 0, hash: BEGINNING.to_owned(), key }))
}

fn store_error(error: impl std::error::Error + Send + Sync + 'static) -> AuditError {
    AuditError::Store(Arc::new(error))
}

#[cfg(test)]
mod tests {
    use proto::audit::Chain;
    use proto::clock::SystemClock;
    use tokio::task::JoinSet;

    use super::*;
    use crate::lifecycle::audit::Result as How;
    use crate::store::engine::Backend;
    use crate::store::master_key::MasterKey;

    fn draft(subject: &str) -> Draft {
        let text = |text: &str| text.to_owned();
        Draft {
            actor: text("local:root"),
            from: text("uid 0"),
            act: text("RenewCertificate"),
            subject: text(subject),
            detail: String::new(),
            result: How::Asked,
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn a_call_that_is_cancelled_takes_no_other_line_with_it() {
        let store = Store::open(Backend::memory(), true, MasterKey::random()).await.unwrap();
        let hub = Hub::open(store, Arc::new(SystemClock)).await.unwrap();
        let (mut stay, mut leave) = (JoinSet::new(), JoinSet::new());
        for number in 0..200_u64 {
            let one = hub.clone();
            stay.spawn(async move { one.audit.write(&one, draft(&format!("stays-{number}"))).await });
            let other = hub.clone();
            leave.spawn(async move {
                let patience = Duration::from_micros(number * 37 % 1_500);
                tokio::time::timeout(patience, other.audit.write(&other, draft("leaves"))).await.is_ok()
            });
        }
        while let Some(written) = stay.join_next().await {
            written.unwrap().unwrap();
        }
        while leave.join_next().await.is_some() {}
        // Nothing that was cancelled is still on its way once this is written.
        hub.audit.write(&hub, draft("last")).await.unwrap();
        let lines = hub.store.audit_lines(None, ScanOrder::Ascending, usize::MAX).await.unwrap();
        let mut chain = Chain::default();
        let subjects: Vec<String> = lines.iter().map(|(_, line)| chain.follow(line).unwrap().subject).collect();
        for number in 0..200 {
            assert!(subjects.contains(&format!("stays-{number}")), "{number}");
        }
    }
}
