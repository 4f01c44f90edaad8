//! The one writer: takes what is queued, commits it in one redb transaction, replies. It never waits for more to come,
//! so a lone batch pays nothing for the grouping. Called by `engine` only.

use std::sync::{Arc, Weak};
use std::time::Duration;

use redb::{Database, ReadableTable as _, WriteTransaction};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::error;

use super::super::batch::{Batch, CommitError};
use super::agents::AgentChanges;
use super::slot::Slot;
use super::{ENGINE, EngineError, REVISION, Stored, blocking, definition, storage};
use crate::lifecycle::problem::causes;

/// Batches that may wait; more make their callers wait.
const QUEUE_MAX: usize = 1024;
/// Most batches of one transaction: bounds the time that the last of them waits, and the memory (each is ≤ 1 MiB).
const GROUP_MAX: usize = 256;

/// A full disk is left alone so long before the next change tries it: every try closes and opens the database.
const FULL_RETRY_AFTER: Duration = Duration::from_secs(2);

type Reply = oneshot::Sender<Result<u64, CommitError>>;

/// The queue's near end. The task ends with it.
#[derive(Debug)]
pub(super) struct Writer {
    queue: mpsc::Sender<(Batch, Reply)>,
    revision: watch::Receiver<u64>,
    failed: CancellationToken,
    agents: Arc<AgentChanges>,
    full: watch::Receiver<Option<EngineError>>,
    _task: JoinSet<()>,
}

impl Writer {
    /// Starts the task. It holds the database only while it commits, so that the last clone of the engine closes it.
    pub(super) fn start(slot: &Arc<Slot>, revision: u64) -> Self {
        let (queue, jobs) = mpsc::channel(QUEUE_MAX);
        let (announce, revision) = watch::channel(revision);
        let (room, full) = watch::channel(None);
        let failed = CancellationToken::new();
        let agents = Arc::new(AgentChanges::default());
        let mut task = JoinSet::new();
        let said = Said { revision: announce, full: room, agents: agents.clone() };
        task.spawn(write(Arc::downgrade(slot), jobs, said, failed.clone()));
        Self { queue, revision, failed, agents, full, _task: task }
    }

    pub(super) fn full(&self) -> watch::Receiver<Option<EngineError>> {
        self.full.clone()
    }

    pub(super) fn failed(&self) -> CancellationToken {
        self.failed.clone()
    }

    pub(super) fn revision(&self) -> watch::Receiver<u64> {
        self.revision.clone()
    }

    pub(super) fn agents(&self) -> &AgentChanges {
        &self.agents
    }

    pub(super) async fn commit(&self, batch: Batch) -> Result<u64, CommitError> {
        let (reply, outcome) = oneshot::channel();
        self.queue.send((batch, reply)).await.or(Err(EngineError::Stopped))?;
        outcome.await.or(Err(EngineError::Stopped))?
    }
}

/// What the writer tells everyone.
struct Said {
    revision: watch::Sender<u64>,
    full: watch::Sender<Option<EngineError>>,
    agents: Arc<AgentChanges>,
}

impl Said {
    fn stored(&self, revision: u64) {
        self.revision.send_if_modified(|latest| std::mem::replace(latest, revision) != revision);
        self.full.send_if_modified(|full| full.take().is_some());
    }
}

async fn write(slot: Weak<Slot>, mut jobs: mpsc::Receiver<(Batch, Reply)>, said: Said, failed: CancellationToken) {
    // However this task ends.
    let failed = failed.drop_guard();
    let (mut group, mut leave_alone) = (Vec::new(), None);
    while jobs.recv_many(&mut group, GROUP_MAX).await > 0 {
        let Some(slot) = slot.upgrade() else { break };
        let (batches, replies): (Vec<_>, Vec<_>) = group.drain(..).unzip();
        let full = said.full.borrow().clone().filter(|_| leave_alone.is_some_and(|until| Instant::now() < until));
        let outcome = match full {
            Some(full) => Err(full),
            None => attempt(&slot, &said.agents, batches).await,
        };
        match outcome {
            Ok((revision, outcomes)) => {
                said.stored(revision);
                for (reply, outcome) in replies.into_iter().zip(outcomes) {
                    answer(reply, outcome);
                }
            }
            Err(failure) => {
                let goes_on = matches!(failure, EngineError::Full(_));
                if goes_on && leave_alone.is_none_or(|until| Instant::now() >= until) {
                    leave_alone = Some(Instant::now() + FULL_RETRY_AFTER);
                    said.full.send_replace(Some(failure.clone()));
                }
                for reply in replies {
                    answer(reply, Err(failure.clone().into()));
                }
                if !goes_on {
                    error!(error = %failure, cause = causes(&failure), "the database cannot store changes");
                    break;
                }
            }
        }
    }
    drop(failed);
}

type Outcomes = (u64, Vec<Result<u64, CommitError>>);

/// Commits. After a full disk the database is opened anew at once, so that it can be read.
async fn attempt(slot: &Arc<Slot>, agents: &Arc<AgentChanges>, batches: Vec<Batch>) -> Result<Outcomes, EngineError> {
    let database = match slot.now() {
        Some(database) => database,
        // The disk was too full even to open it.
        None => {
            slot.reopen().await?;
            slot.now().ok_or(EngineError::Stopped)?
        }
    };
    let agents = Arc::clone(agents);
    let work = move || {
        let done = match commit(&database, &batches) {
            Ok(done) => done,
            Err(failure) => {
                // Whether it reached the disk is known to nobody: who asks reads.
                batches.iter().for_each(|batch| agents.note(batch, u64::MAX));
                return Err(failure);
            }
        };
        for (batch, outcome) in batches.iter().zip(&done.1) {
            if let Ok(revision) = outcome {
                agents.note(batch, *revision);
            }
        }
        Ok(done)
    };
    let outcome = blocking(work).await;
    if let Err(full @ EngineError::Full(_)) = outcome {
        return match slot.reopen().await {
            Ok(()) | Err(EngineError::Full(_)) => Err(full),
            Err(other) => Err(other),
        };
    }
    outcome
}

/// A caller that has gone does not need its answer.
fn answer(reply: Reply, outcome: Result<u64, CommitError>) {
    drop(reply.send(outcome));
}

/// Applies the batches in their order; each sees those before it. Returns the last revision and each one's outcome.
fn commit(database: &Database, batches: &[Batch]) -> Result<Outcomes, EngineError> {
    let mut transaction = database.begin_write().map_err(storage)?;
    // The second sync is the price of a restart in milliseconds after a kill, with a repair that need not guess.
    transaction.set_two_phase_commit(true);
    transaction.set_quick_repair(true);
    let stored = revision(&transaction)?;
    let mut latest = stored;
    let mut outcomes = Vec::with_capacity(batches.len());
    for batch in batches {
        let outcome = match refusal(&transaction, batch)? {
            Some(refusal) => Err(refusal),
            None if batch.changes.is_empty() => Ok(latest),
            None => {
                latest += 1;
                apply(&transaction, batch, latest)?;
                Ok(latest)
            }
        };
        outcomes.push(outcome);
    }
    if latest == stored {
        transaction.abort().map_err(storage)?;
    } else {
        transaction.open_table(ENGINE).map_err(storage)?.insert(REVISION, latest).map_err(storage)?;
        transaction.commit().map_err(storage)?;
    }
    Ok((latest, outcomes))
}

fn revision(transaction: &WriteTransaction) -> Result<u64, EngineError> {
    let table = transaction.open_table(ENGINE).map_err(storage)?;
    let revision = table.get(REVISION).map_err(storage)?;
    Ok(revision.map_or(0, |revision| revision.value()))
}

/// Returns the first expectation that does not hold.
fn refusal(transaction: &WriteTransaction, batch: &Batch) -> Result<Option<CommitError>, EngineError> {
    for (table, key, expected) in &batch.expects {
        let rows = transaction.open_table(definition(*table)).map_err(storage)?;
        let found = rows.get(key.as_str()).map_err(storage)?;
        match found.map(|value| Stored::split(*table, key, value.value())).transpose() {
            Ok(found) if found.as_ref().map_or(0, |stored| stored.revision) == *expected => {}
            Ok(_) => return Ok(Some(CommitError::Conflict { table: *table, key: key.clone() })),
            Err(damaged) => return Ok(Some(damaged.into())),
        }
    }
    Ok(None)
}

fn apply(transaction: &WriteTransaction, batch: &Batch, revision: u64) -> Result<(), EngineError> {
    for ((table, key), change) in &batch.changes {
        let mut rows = transaction.open_table(definition(*table)).map_err(storage)?;
        match change {
            Some(bytes) => {
                let value = Stored::join(revision, bytes);
                rows.insert(key.as_str(), value.as_slice()).map_err(storage)?;
            }
            None => {
                rows.remove(key.as_str()).map_err(storage)?;
            }
        }
    }
    Ok(())
}
