//! Keeps what grows with time within bounds: events, jobs, answered requests, spent join tokens, spent limits, the audit. It never touches what a
//! certificate or an agent is made of. Called by `tasks::run`.

use std::ops::Bound;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tokio_util::sync::CancellationToken;
use tracing::error;

use super::hub::Hub;
use super::limits::{self, LimitError};
use crate::lifecycle::agent::JoinToken;
use crate::lifecycle::clock_skew::Verdict;
use crate::lifecycle::event::Event;
use crate::lifecycle::problem::chain;
use crate::store::StoreError;
use crate::store::batch::CommitError;
use crate::store::engine::Order as ScanOrder;
use crate::store::records::Changes;
use crate::store::tables::Table;

/// How often it looks.
const LOOK_EVERY: Duration = Duration::from_secs(3_600);
/// Events kept; the oldest go first.
const EVENTS_KEPT: u64 = 200_000;
/// Lines of the audit kept.
const AUDIT_KEPT: u64 = 1_000_000;
/// Jobs kept.
const JOBS_KEPT: usize = 20_000;
/// A client repeats a request within seconds; an expired token is shown no more.
const ANSWERS_KEPT: SignedDuration = SignedDuration::from_hours(24);
/// Records removed per batch: an event has up to three keys, and a batch holds 64.
const CHUNK: usize = 20;
/// Batches per look, so that a backlog does not hold up the writer.
const BATCHES_MAX: usize = 500;

/// Looks every hour until `stop`.
pub(crate) async fn run(hub: Hub, stop: CancellationToken) {
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            () = tokio::time::sleep(LOOK_EVERY) => {}
        }
        if hub.clock_watch.verdict() != Verdict::Right {
            // What looks old may be of today.
            continue;
        }
        if let Err(error) = look(&hub, EVENTS_KEPT, JOBS_KEPT).await {
            error!(error = %chain(&error), "cannot remove old records");
        }
    }
}

/// Why a look was cut short.
#[derive(Debug, thiserror::Error)]
enum RetentionError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Commit(#[from] CommitError),
    #[error(transparent)]
    Limits(#[from] LimitError),
}

async fn look(hub: &Hub, events_kept: u64, jobs_kept: usize) -> Result<(), RetentionError> {
    events(hub, events_kept).await?;
    jobs(hub, jobs_kept).await?;
    requests(hub).await?;
    tokens(hub).await?;
    audit(hub, AUDIT_KEPT).await?;
    for _ in 0..BATCHES_MAX {
        if !limits::retire(hub, CHUNK).await? {
            break;
        }
    }
    Ok(())
}

/// The chain begins later then; what is left still follows.
async fn audit(hub: &Hub, kept: u64) -> Result<(), RetentionError> {
    let newest = hub.store.audit_lines(None, ScanOrder::Descending, 1).await?;
    let bound = newest.first().map_or(0, |(seq, _)| seq.saturating_sub(kept));
    for _ in 0..BATCHES_MAX {
        let oldest = hub.store.audit_lines(None, ScanOrder::Ascending, CHUNK).await?;
        let old: Vec<u64> = oldest.into_iter().map(|(seq, _)| seq).filter(|seq| *seq <= bound).collect();
        if old.is_empty() {
            return Ok(());
        }
        hub.store.commit(old.into_iter().fold(Changes::new(), Changes::remove_audit_line)).await?;
    }
    Ok(())
}

async fn events(hub: &Hub, kept: u64) -> Result<(), RetentionError> {
    let bound = hub.store.last_event_seq().await?.saturating_sub(kept);
    for _ in 0..BATCHES_MAX {
        let oldest = hub
            .store
            .read(|snapshot| snapshot.list::<Event>("", Bound::Unbounded, ScanOrder::Ascending, CHUNK))
            .await?;
        let old: Vec<Event> = oldest.into_iter().map(|event| event.value).filter(|event| event.seq <= bound).collect();
        if old.is_empty() {
            return Ok(());
        }
        hub.store.commit(old.iter().fold(Changes::new(), Changes::remove_event)).await?;
    }
    Ok(())
}

/// Jobs sort by time; open ones are never older than closed ones for long, and are kept all the same.
async fn jobs(hub: &Hub, kept: usize) -> Result<(), RetentionError> {
    let closed = hub
        .store
        .read(|snapshot| {
            let rows =
                snapshot.list::<crate::lifecycle::job::Job>("", Bound::Unbounded, ScanOrder::Ascending, usize::MAX)?;
            Ok(rows.into_iter().filter(|job| job.value.outcome.is_some()).map(|job| job.value.id).collect::<Vec<_>>())
        })
        .await?;
    let surplus = closed.len().saturating_sub(kept);
    remove(hub, Table::Job, closed.into_iter().take(surplus).collect()).await
}

/// A request's value is the id of its job, which begins with its time.
async fn requests(hub: &Hub) -> Result<(), RetentionError> {
    let before = format!("{:012x}", (hub.now() - ANSWERS_KEPT).as_millisecond());
    let rows = hub
        .store
        .read(|snapshot| snapshot.scan(Table::Request, "", Bound::Unbounded, ScanOrder::Ascending, usize::MAX))
        .await?;
    let old = rows.into_iter().filter(|(_, job)| job.bytes.as_slice() < before.as_bytes()).map(|(key, _)| key);
    remove(hub, Table::Request, old.collect()).await
}

async fn tokens(hub: &Hub) -> Result<(), RetentionError> {
    let before: Timestamp = hub.now() - ANSWERS_KEPT;
    let tokens = hub.store.list::<JoinToken>("", usize::MAX).await?;
    let old = tokens.into_iter().filter(|token| token.value.expires_at < before).map(|token| token.value.hash);
    remove(hub, Table::JoinToken, old.collect()).await
}

async fn remove(hub: &Hub, table: Table, keys: Vec<String>) -> Result<(), RetentionError> {
    for chunk in keys.chunks(CHUNK).take(BATCHES_MAX) {
        hub.store.commit(chunk.iter().fold(Changes::new(), |changes, key| changes.delete_raw(table, key))).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proto::clock::SystemClock;

    use super::*;
    use crate::store::Store;
    use crate::store::engine::Backend;
    use crate::store::event::EventsOf;
    use crate::store::master_key::MasterKey;

    #[tokio::test]
    async fn the_oldest_events_go_with_their_index_rows_and_the_newest_stay() {
        let dir = tempfile::tempdir().unwrap();
        let store =
            Store::open(Backend::File(dir.path().join("s").join("db")), true, MasterKey::random()).await.unwrap();
        let hub = Hub::open(store, Arc::new(SystemClock)).await.unwrap();
        for number in 0..50 {
            let event = hub.event("test", format!("{number}")).of_certificate("web").of_agent("h1");
            hub.store.commit(Changes::new().event(&event)).await.unwrap();
        }
        look(&hub, 10, 10).await.unwrap();
        for of in [EventsOf::All, EventsOf::Certificate("web".into()), EventsOf::Agent("h1".into())] {
            let left = hub.store.events(of, 0, 500).await.unwrap();
            let messages: Vec<&str> = left.iter().map(|event| event.message.as_str()).collect();
            assert_eq!(messages, ["49", "48", "47", "46", "45", "44", "43", "42", "41", "40"]);
        }
        let rows = hub.store.read(|snapshot| snapshot.count(Table::EventByAgent, "")).await.unwrap();
        assert_eq!(rows, 10, "no index row is left behind");
    }
}
