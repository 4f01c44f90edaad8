//! Keeps what grows with time within bounds: events, jobs, answered requests, spent join tokens, spent limits, the audit. It never touches what a
//! certificate or an agent is made of. Called by `tasks::run`.

use std::collections::HashMap;
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
use crate::lifecycle::job::Job;
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

/// Jobs sort by time; open ones are never older than closed ones for long, and are kept all the same. A sub-job counts, and
/// goes with its parent only: a parent without its results would tell nothing.
async fn jobs(hub: &Hub, kept: usize) -> Result<(), RetentionError> {
    let rows =
        hub.store.read(|snapshot| snapshot.list::<Job>("", Bound::Unbounded, ScanOrder::Ascending, usize::MAX)).await?;
    let mut surplus = rows.len().saturating_sub(kept);
    let mut subs: HashMap<&str, Vec<&Job>> = HashMap::new();
    for job in rows.iter().map(|row| &row.value) {
        job.parent.iter().for_each(|parent| subs.entry(parent.as_str()).or_default().push(job));
    }
    for job in rows.iter().map(|row| &row.value).filter(|job| job.parent.is_none() && job.outcome.is_some()) {
        if surplus == 0 {
            break;
        }
        let subs = subs.get(job.id.as_str()).map(Vec::as_slice).unwrap_or_default();
        surplus = surplus.saturating_sub(subs.len() + 1);
        // The parent goes last: cut short, the next look finishes it.
        for chunk in subs.chunks(CHUNK) {
            hub.store.commit(chunk.iter().fold(Changes::new(), |changes, sub| changes.remove_job(sub))).await?;
        }
        hub.store.commit(Changes::new().remove_job(job)).await?;
    }
    Ok(())
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
    use crate::lifecycle::batch::Members;
    use crate::lifecycle::job::{Kind, Outcome, State};
    use crate::store::Store;
    use crate::store::engine::Backend;
    use crate::store::event::EventsOf;
    use crate::store::job::{job_id, sub_job_id};
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

    #[tokio::test]
    async fn sub_jobs_go_with_their_parent_and_stay_with_it() {
        let dir = tempfile::tempdir().unwrap();
        let store =
            Store::open(Backend::File(dir.path().join("s").join("db")), true, MasterKey::random()).await.unwrap();
        let hub = Hub::open(store, Arc::new(SystemClock)).await.unwrap();
        let (old, new) = (made(&hub, 5, true).await, made(&hub, 5, true).await);
        let open = made(&hub, 1, false).await;
        look(&hub, 10, 13).await.unwrap();
        let left: Vec<String> =
            hub.store.list::<Job>("", 99).await.unwrap().into_iter().map(|job| job.value.id).collect();
        assert!(left.iter().all(|id| !id.contains(&old)), "{left:?}");
        assert_eq!(left.iter().filter(|id| id.contains(&new)).count(), 6, "{left:?}");
        for table in [Table::BatchJob, Table::BatchMembers] {
            let rows = hub.store.read(move |snapshot| snapshot.count(table, "")).await.unwrap();
            assert_eq!(rows, if table == Table::BatchJob { 6 } else { 2 }, "{table}");
        }
        look(&hub, 10, 0).await.unwrap();
        let left = hub.store.list::<Job>("", 99).await.unwrap();
        assert!(left.iter().all(|job| job.value.id.contains(&open)) && left.len() == 2, "what is open stays: {left:?}");
    }

    /// A parent with so many sub-jobs.
    async fn made(hub: &Hub, count: usize, ended: bool) -> String {
        let job = |id: String, parent: Option<String>| Job {
            id,
            kind: Kind::Renew,
            certificate_id: String::new(),
            certificate_name: String::new(),
            actor: String::new(),
            created_at: hub.now(),
            version_before: None,
            agent_id: None,
            revocation: None,
            parent,
            batch: None,
            outcome: None,
        };
        let parent = job(job_id(hub.now()), None);
        let subs = (0..count).map(|index| job(sub_job_id(&parent.id, index), Some(parent.id.clone())));
        let jobs: Vec<Job> = subs.chain([parent.clone()]).collect();
        let members = Members { job_id: parent.id.clone(), certificate_ids: Vec::new() };
        hub.store.commit(jobs.iter().fold(Changes::new().insert(&members), Changes::open_job)).await.unwrap();
        for id in jobs.iter().map(|job| &job.id).filter(|_| ended) {
            let mut job = hub.store.load::<Job>(id).await.unwrap().unwrap();
            job.value.outcome = Some(Outcome { at: hub.now(), state: State::Succeeded, problem: None });
            hub.store.commit(Changes::new().close_job(&job)).await.unwrap();
        }
        parent.id
    }
}
