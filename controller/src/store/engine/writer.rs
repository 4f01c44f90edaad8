//! The one writer: takes what is queued, commits it in one redb transaction, replies. It never waits for more to come,
//! so a lone batch pays nothing for the grouping. Called by `engine` only.

use std::sync::{Arc, Weak};

use redb::{Database, ReadableTable as _, WriteTransaction};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::error;

use super::super::batch::{Batch, CommitError};
use super::agents::AgentChanges;
use super::{ENGINE, EngineError, REVISION, Stored, blocking, definition, storage};
use crate::lifecycle::problem::causes;

/// Batches that may wait; more make their callers wait.
const QUEUE_MAX: usize = 1024;
/// Most batches of one transaction: bounds the time that the last of them waits, and the memory (each is ≤ 1 MiB).
const GROUP_MAX: usize = 256;

type Reply = oneshot::Sender<Result<u64, CommitError>>;

/// The queue's near end. The task ends with it.
#[derive(Debug)]
pub(super) struct Writer {
    queue: mpsc::Sender<(Batch, Reply)>,
    revision: watch::Receiver<u64>,
    failed: CancellationToken,
    agents: Arc<AgentChanges>,
    _task: JoinSet<()>,
}

impl Writer {
    /// Starts the task. It holds the database only while it commits, so that the last clone of the engine closes it.
    pub(super) fn start(database: &Arc<Database>, revision: u64) -> Self {
        let (queue, jobs) = mpsc::channel(QUEUE_MAX);
        let (announce, revision) = watch::channel(revision);
        let failed = CancellationToken::new();
        let agents = Arc::new(AgentChanges::default());
        let mut task = JoinSet::new();
        task.spawn(write(Arc::downgrade(database), jobs, announce, failed.clone(), agents.clone()));
        Self { queue, revision, failed, agents, _task: task }
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

async fn write(
    database: Weak<Database>,
    mut jobs: mpsc::Receiver<(Batch, Reply)>,
    announce: watch::Sender<u64>,
    failed: CancellationToken,
    agents: Arc<AgentChanges>,
) {
    // However this task ends.
    let failed = failed.drop_guard();
    let mut group = Vec::new();
    while jobs.recv_many(&mut group, GROUP_MAX).await > 0 {
        let Some(database) = database.upgrade() else { break };
        let (batches, replies): (Vec<_>, Vec<_>) = group.drain(..).unzip();
        let agents = agents.clone();
        let work = move || {
            let done = commit(&database, &batches)?;
            for (batch, outcome) in batches.iter().zip(&done.1) {
                if let Ok(revision) = outcome {
                    agents.note(batch, *revision);
                }
            }
            Ok(done)
        };
        match blocking(work).await {
            Ok((revision, outcomes)) => {
                announce.send_if_modified(|latest| std::mem::replace(latest, revision) != revision);
                for (reply, outcome) in replies.into_iter().zip(outcomes) {
                    answer(reply, outcome);
                }
            }
            Err(failure) => {
                error!(error = %failure, cause = causes(&failure), "the database cannot store changes");
                for reply in replies {
                    answer(reply, Err(failure.clone().into()));
                }
                break;
            }
        }
    }
    drop(failed);
}

/// A caller that has gone does not need its answer.
fn answer(reply: Reply, outcome: Result<u64, CommitError>) {
    drop(reply.send(outcome));
}

/// Applies the batches in their order; each sees those before it. Returns the last revision and each one's outcome.
fn commit(database: &Database, batches: &[Batch]) -> Result<(u64, Vec<Result<u64, CommitError>>), EngineError> {
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
