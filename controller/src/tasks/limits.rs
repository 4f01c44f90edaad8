//! The one ledger of the CAs' rate limits (features.md A15): what `lifecycle/rate_limit` decides is stored here before
//! the request that spends it, so that a crash forgets nothing. Called by `tasks/issuance`, and by `rpc` for views.

use std::ops::Bound;

use jiff::{SignedDuration, Timestamp};
use proto::id::random_id;
use tokio::sync::Mutex;
use tracing::info;

use super::hub::Hub;
use crate::lifecycle::issuer::Issuer;
use crate::lifecycle::order::Order;
use crate::lifecycle::rate_limit::{
    Ask, Decision, Entry, Key, Kind, Ledger, Limit, Line, Refusal, Wait, limit_of, refusal,
};
use crate::store::StoreError;
use crate::store::batch::CommitError;
use crate::store::engine::Order as ScanOrder;
use crate::store::limit::first_id;
use crate::store::records::{Changes, Versioned};
use crate::store::tables::Table;

/// The ledger; read from the store when it is first needed, and again when limits were set.
#[derive(Debug, Default)]
pub struct Limits {
    ledger: Mutex<Option<Ledger>>,
}

/// Why the ledger could not be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LimitError {
    /// Reading.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Writing.
    #[error(transparent)]
    Commit(#[from] CommitError),
}

/// Whether an order may be sent.
#[derive(Debug)]
pub(crate) enum Asked {
    /// Now. What it spends is stored; `None` where nothing is limited.
    Go(Option<Entry>),
    /// Later; nothing is spent.
    Wait(Wait),
}

/// Asks for an order, and stores what it spends. `order` must not have changed since it was read.
///
/// # Errors
/// When the store fails; nothing is spent then.
pub(crate) async fn ask(hub: &Hub, ask: Ask<'_>, order: &Versioned<Order>) -> Result<Asked, LimitError> {
    let now = hub.now();
    let spent = match with(hub, |ledger| ledger.decide(ask, now, hub.jitter())).await? {
        Decision::Wait(wait) => return Ok(Asked::Wait(wait)),
        Decision::Go(keys) if keys.is_empty() => return Ok(Asked::Go(None)),
        Decision::Go(keys) => keys,
    };
    let entry = entry(now, spent);
    let changes = Changes::new().insert(&entry).expect(Table::Order, &order.value.certificate_id, order.revision);
    match hub.store.commit(changes).await {
        Ok(_) => Ok(Asked::Go(Some(entry))),
        Err(error) => {
            give_back(hub, ask.issuer, &entry.spent).await?;
            Err(error.into())
        }
    }
}

/// Returns what an order has spent that the CA refused: there is no such order.
///
/// # Errors
/// When the store fails.
pub(crate) async fn refused(hub: &Hub, issuer: &Issuer, entry: &Entry) -> Result<(), LimitError> {
    hub.store.commit(Changes::new().delete_raw(Table::Limit, &entry.id)).await?;
    give_back(hub, issuer, &entry.spent).await
}

/// Returns what an order would have spent by a certificate that was never issued: it counts as an order only.
///
/// # Errors
/// When the store fails.
pub(crate) async fn not_issued(hub: &Hub, issuer: &Issuer, entry_id: &str) -> Result<(), LimitError> {
    let Some(mut entry) = hub.store.load::<Entry>(entry_id).await? else { return Ok(()) };
    let counts_certificates = |key: &Key| matches!(key.kind, Kind::RegisteredDomain | Kind::ExactSet);
    let unused: Vec<Key> = entry.value.spent.iter().filter(|key| counts_certificates(key)).cloned().collect();
    entry.value.spent.retain(|key| !counts_certificates(key));
    let changes =
        if entry.value.spent.is_empty() { Changes::new().remove(&entry) } else { Changes::new().update(&entry) };
    hub.store.commit(changes).await?;
    give_back(hub, issuer, &unused).await
}

/// Counts a failed authorization.
///
/// # Errors
/// When the store fails.
pub(crate) async fn failed_authorization(hub: &Hub, issuer: &Issuer, identifier: &str) -> Result<(), LimitError> {
    let now = hub.now();
    let Some(key) = with(hub, |ledger| ledger.failed(issuer, identifier, now)).await? else { return Ok(()) };
    hub.store.commit(Changes::new().insert(&entry(now, vec![key]))).await?;
    Ok(())
}

/// Takes a CA's word that it will not be asked for a while.
///
/// # Errors
/// When the store fails.
pub(crate) async fn close(hub: &Hub, ask: Ask<'_>, said: Refusal<'_>) -> Result<(), LimitError> {
    let now = hub.now();
    for closed in refusal(ask, said, now) {
        info!(issuer = ask.issuer.name, kind = closed.key.kind.word(), until = %closed.until, "the CA closed a limit");
        let limit = limit_of(ask.issuer, closed.key.kind);
        with(hub, |ledger| ledger.close(closed.clone(), limit)).await?;
        hub.store.commit(Changes::new().insert(&Entry { closed: Some(closed), ..entry(now, Vec::new()) })).await?;
    }
    Ok(())
}

/// Returns what is used of an issuer's limits.
///
/// # Errors
/// When the store cannot be read.
pub(crate) async fn lines(hub: &Hub, issuer: &Issuer) -> Result<Vec<Line>, StoreError> {
    if issuer.private.is_some() {
        // It counts nothing.
        return Ok(Vec::new());
    }
    let now = hub.now();
    with(hub, |ledger| ledger.lines(issuer, now)).await
}

/// Returns what of an issuer's limits an order has to pass.
///
/// # Errors
/// When the store cannot be read.
pub(crate) async fn lines_of(hub: &Hub, ask: Ask<'_>) -> Result<Vec<Line>, StoreError> {
    if ask.issuer.private.is_some() {
        return Ok(Vec::new());
    }
    let now = hub.now();
    with(hub, |ledger| ledger.lines_of(ask, now)).await
}

/// Returns when the last of these orders could be sent, if all were asked for now: nothing is spent. `None` when no limit
/// holds any of them.
///
/// # Errors
/// When the store cannot be read.
pub(crate) async fn predict(hub: &Hub, asks: &[Ask<'_>]) -> Result<Option<Timestamp>, StoreError> {
    let now = hub.now();
    let mut ledger = with(hub, |ledger| ledger.clone()).await?;
    let waits = asks.iter().filter_map(|ask| match ledger.decide(*ask, now, 0.0) {
        Decision::Wait(wait) => Some(wait.until),
        Decision::Go(_) => None,
    });
    Ok(waits.max())
}

/// Lets the orders at an issuer that wait for a limit ask again: its limits were set. One that is changed at this moment is
/// looked at anyway.
///
/// # Errors
/// When the store fails.
pub(crate) async fn ask_again(hub: &Hub, issuer_id: &str) -> Result<(), LimitError> {
    let now = hub.now();
    let mut after: Option<String> = None;
    loop {
        let orders = hub
            .store
            .read(move |snapshot| {
                let from = after.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
                snapshot.list::<Order>("", from, ScanOrder::Ascending, PART)
            })
            .await?;
        let Some(last) = orders.last() else { return Ok(()) };
        after = Some(last.value.certificate_id.clone());
        for mut order in orders {
            if order.value.issuer_id != issuer_id || !order.value.waits_for_limit() {
                continue;
            }
            order.value.retry_at = Some(now);
            match hub.store.commit(Changes::new().update(&order)).await {
                Ok(_) | Err(CommitError::Conflict { .. }) => hub.wake.certificates.ring(&order.value.certificate_id),
                Err(error) => return Err(error.into()),
            }
        }
    }
}

/// Orders read at once.
const PART: usize = 1_000;

/// Reads everything anew: limits were set, or the clock leapt.
pub(crate) async fn reset(hub: &Hub) {
    *hub.limits.ledger.lock().await = None;
}

/// Forgets what nobody counts any more, in memory and, up to `most` rows, in the store. Returns whether there is more.
///
/// # Errors
/// When the store fails.
pub(crate) async fn retire(hub: &Hub, most: usize) -> Result<bool, LimitError> {
    let now = hub.now();
    with(hub, |ledger| ledger.sweep(now)).await?;
    let issuers = hub.store.issuers().await?;
    let limits = issuers.iter().flat_map(|issuer| Kind::ALL.map(|kind| limit_of(&issuer.value, kind)));
    let longest = limits.flatten().map(|limit| limit.period_s).max().unwrap_or(0).max(CLOSED_MAX_S);
    let before = now.saturating_sub(SignedDuration::from_secs(i64::from(longest))).unwrap_or(now);
    let old = hub.store.limit_entries_before(before, most).await?;
    if old.is_empty() {
        return Ok(false);
    }
    hub.store.commit(old.iter().fold(Changes::new(), |changes, id| changes.delete_raw(Table::Limit, id))).await?;
    Ok(old.len() == most)
}

/// A Retry-After is not believed beyond a week (`acme/http`): no closed scope is older.
const CLOSED_MAX_S: u32 = 7 * 24 * 3_600;

async fn give_back(hub: &Hub, issuer: &Issuer, keys: &[Key]) -> Result<(), LimitError> {
    with(hub, |ledger| keys.iter().for_each(|key| ledger.give_back(key, issuer))).await?;
    Ok(())
}

async fn with<T>(hub: &Hub, act: impl FnOnce(&mut Ledger) -> T) -> Result<T, StoreError> {
    let mut held = hub.limits.ledger.lock().await;
    let ledger = match held.as_mut() {
        Some(ledger) => ledger,
        None => held.insert(read(hub).await?),
    };
    Ok(act(ledger))
}

async fn read(hub: &Hub) -> Result<Ledger, StoreError> {
    let issuers: Vec<Issuer> = hub.store.issuers().await?.into_iter().map(|issuer| issuer.value).collect();
    // What counts for everyone may be limited by several issuers of one CA: the strictest counts.
    let limit = |key: &Key| -> Option<Limit> {
        let owners = issuers.iter().filter(|issuer| issuer.id == key.owner || issuer.ca_host() == key.owner);
        owners.filter_map(|issuer| limit_of(issuer, key.kind)).max_by_key(|limit| limit.period_s / limit.count.max(1))
    };
    let now = hub.now();
    let mut ledger = Ledger::default();
    for entry in hub.store.limit_entries().await? {
        ledger.replay(&entry, now, limit);
    }
    ledger.sweep(now);
    Ok(ledger)
}

fn entry(now: Timestamp, spent: Vec<Key>) -> Entry {
    Entry { id: format!("{}{}", first_id(now), random_id()), at: now, spent, closed: None }
}
