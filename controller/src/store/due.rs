//! The due indexes (decision 0005): beside the certificates one row for each, sorted by when something must be done about it.
//! The row is a function of the records (`lifecycle/due`) and is written in the batch that changes them, by the one door
//! through which all batches pass. So each certificate is in each index exactly once, and `tasks/proof` can prove it.
//!
//! | key | is |
//! |---|---|
//! | `h/ID` | held: an order under way, or one that waits for its issuer |
//! | `r/ID` | at rest |
//! | `t/TIME/ID` | due then: Unix milliseconds, twelve hexadecimal digits |

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::batch::{Batch, CommitError};
use super::engine::{Engine, EngineError, Order as ScanOrder, Snapshot, Stored};
use super::records::{Changes, Record};
use super::tables::Table;
use super::{Store, StoreError};
use crate::lifecycle::certificate::Certificate;
use crate::lifecycle::due::{Place, Urgency, of_orders, of_questions};
use crate::lifecycle::order::Order;
use crate::lifecycle::renewal_info::RenewalInfo;

/// The two indexes.
pub const INDEXES: [Table; 2] = [Table::OrderDue, Table::QuestionDue];
/// Raised when `lifecycle/due` puts certificates elsewhere than before: all rows are then made anew.
const FORM: u32 = 1;
const HELD: &str = "h/";
const REST: &str = "r/";
const TIMED: &str = "t/";
/// Rows read together.
const PART: usize = 1_000;

/// What is due.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DueNow {
    /// Certificates with their urgency, most urgent first.
    pub rows: Vec<(String, u32)>,
    /// Whether there are more than were asked for.
    pub more: bool,
    /// When the next one is due.
    pub next: Option<Timestamp>,
}

/// Which form the rows have. Absent until every certificate was seen to have its rows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Form {
    form: u32,
}

impl Form {
    const KEY: &'static str = "due_index";
    /// Today's. A new database has it from the beginning.
    pub(super) const NOW: Self = Self { form: FORM };
}

impl Record for Form {
    const TABLE: Table = Table::Setting;

    fn key(&self) -> String {
        Self::KEY.to_owned()
    }
}

/// A part of the certificates, compared with their rows.
#[derive(Clone, Debug, Default)]
pub struct Compared {
    /// The last of the part; none at the end.
    pub last: Option<String>,
    /// How many there were.
    pub read: usize,
    /// Those whose rows are not what they should be.
    pub wrong: Vec<String>,
    /// Those that wait for their targets to be purged.
    pub purging: Vec<String>,
    /// Those with an order whose times were written by a clock that was far ahead.
    pub orders_of_the_future: Vec<String>,
    /// Those whose next question was planned by such a clock.
    pub questions_of_the_future: Vec<String>,
}

/// Commits a batch with the rows that follow from it.
pub(super) async fn commit(engine: &Engine, batch: Batch) -> Result<u64, CommitError> {
    let concerned = concerned(&batch);
    if concerned.is_empty() {
        return engine.commit(batch).await;
    }
    loop {
        let (whole, ids) = (batch.clone(), concerned.clone());
        let (whole, read) = engine.read(move |snapshot| followed(snapshot, whole, &ids)).await?;
        match engine.commit(whole).await {
            // What the rows follow from was changed in between; the batch itself may still hold.
            Err(CommitError::Conflict { table, key }) if read.contains(&(table, key.clone())) => {}
            done => return done,
        }
    }
}

/// The certificates whose rows may change.
fn concerned(batch: &Batch) -> BTreeSet<String> {
    let changed = batch.changes.keys().filter_map(|(table, key)| match table {
        Table::Certificate | Table::Order => Some(key.as_str()),
        Table::RenewalInfo => key.split('/').next(),
        _ => None,
    });
    changed.map(str::to_owned).collect()
}

/// The batch with the rows of these certificates, and what was read for them beyond what it demands by itself.
fn followed(
    snapshot: &Snapshot<'_>,
    mut batch: Batch,
    ids: &BTreeSet<String>,
) -> Result<(Batch, Vec<(Table, String)>), EngineError> {
    let demanded: BTreeSet<(Table, String)> =
        batch.expects.iter().map(|(table, key, _)| (*table, key.clone())).collect();
    let changes = batch.changes.clone();
    let mut read: BTreeMap<(Table, String), Option<Stored>> = BTreeMap::new();
    let own = (batch.expects.len(), batch.changes.len());
    for id in ids {
        let mut stored = |table: Table, key: &str| -> Result<Option<Vec<u8>>, EngineError> {
            let found = snapshot.get(table, key)?;
            let bytes = found.as_ref().map(|found| found.bytes.clone());
            read.insert((table, key.to_owned()), found);
            Ok(bytes)
        };
        let before = Records::read(id, &mut stored)?.rows(id);
        let after = Records::read(id, |table, key| match changes.get(&(table, key.to_owned())) {
            Some(change) => Ok(change.clone()),
            None => stored(table, key),
        })?;
        let after = after.rows(id);
        for (index, key) in INDEXES.iter().zip(&before.keys) {
            key.iter().for_each(|key| batch.delete(*index, key));
        }
        for (index, key) in INDEXES.iter().zip(&after.keys) {
            key.iter().for_each(|key| batch.put(*index, key, after.urgency.clone()));
        }
    }
    let mut beyond = Vec::new();
    for ((table, key), found) in read {
        if !demanded.contains(&(table, key.clone())) {
            batch.expect(table, &key, found.map_or(0, |found| found.revision));
            beyond.push((table, key));
        }
    }
    batch.added = batch.expects.len() + batch.changes.len() - own.0 - own.1;
    Ok((batch, beyond))
}

/// The records of one certificate that its rows follow from. One that does not decode is an error of its own.
struct Records {
    certificate: Option<Result<Certificate, serde_json::Error>>,
    info: Option<Result<RenewalInfo, serde_json::Error>>,
    order: Option<Result<Order, serde_json::Error>>,
}

/// The row of a certificate in each index, in the order of [`INDEXES`], and what stands in them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Rows {
    keys: [Option<String>; 2],
    urgency: Vec<u8>,
}

impl Records {
    /// Takes the records that `read` gives.
    fn read(
        id: &str,
        mut read: impl FnMut(Table, &str) -> Result<Option<Vec<u8>>, EngineError>,
    ) -> Result<Self, EngineError> {
        let certificate = read(Table::Certificate, id)?.map(|bytes| serde_json::from_slice::<Certificate>(&bytes));
        let order = read(Table::Order, id)?.map(|bytes| serde_json::from_slice(&bytes));
        let current = certificate.as_ref().and_then(|certificate| certificate.as_ref().ok()?.current.as_ref());
        let info = match current {
            Some(current) => read(Table::RenewalInfo, &format!("{id}/{}", current.version_id))?,
            None => None,
        };
        let info = info.map(|bytes| serde_json::from_slice(&bytes));
        Ok(Self { certificate, info, order })
    }

    /// Computes the rows. What does not decode is due at once: the look says so.
    fn rows(&self, id: &str) -> Rows {
        let now = Place::At(Timestamp::MIN);
        let (certificate, info) = match (&self.certificate, &self.info) {
            (None, _) => return Rows::default(),
            (Some(Ok(certificate)), None) => (certificate, None),
            (Some(Ok(certificate)), Some(Ok(info))) => (certificate, Some(info)),
            (Some(Err(_)), _) | (_, Some(Err(_))) => {
                return Rows { keys: [Some(key(now, id)), Some(key(Place::Rest, id))], urgency: Vec::new() };
            }
        };
        let orders = match &self.order {
            None => of_orders(certificate, info, None),
            Some(Ok(order)) => of_orders(certificate, info, Some(order)),
            Some(Err(_)) => now,
        };
        let urgency = serde_json::to_vec(&Urgency::of(certificate)).unwrap_or_default();
        Rows { keys: [Some(key(orders, id)), Some(key(of_questions(certificate, info), id))], urgency }
    }
}

fn key(place: Place, id: &str) -> String {
    match place {
        Place::At(at) => format!("{TIMED}{:012x}/{id}", at.as_millisecond().max(0)),
        Place::Held => format!("{HELD}{id}"),
        Place::Rest => format!("{REST}{id}"),
    }
}

/// The first key that is due after `now`.
fn behind(now: Timestamp) -> String {
    format!("{TIMED}{:012x}/", now.as_millisecond().max(0).saturating_add(1))
}

fn urgency(stored: &Stored, now: Timestamp) -> u32 {
    // What does not read is looked at first.
    serde_json::from_slice::<Urgency>(&stored.bytes).map_or(0, |urgency| urgency.at(now))
}

/// The instant and the certificate of a timed row.
fn timed(key: &str) -> Option<(Timestamp, &str)> {
    let (millis, id) = key.strip_prefix(TIMED)?.split_once('/')?;
    Some((Timestamp::from_millisecond(i64::from_str_radix(millis, 16).ok()?).ok()?, id))
}

/// The certificate of a row.
fn id_of(key: &str) -> &str {
    key.rsplit('/').next().unwrap_or_default()
}

fn due(
    snapshot: &Snapshot<'_>,
    index: Table,
    now: Timestamp,
    most: usize,
    skip: &dyn Fn(&str) -> bool,
) -> Result<DueNow, EngineError> {
    // By urgency and id; the last is dropped when there are too many.
    let mut first: BTreeSet<(u32, String)> = BTreeSet::new();
    let mut found = DueNow::default();
    let mut from: Option<String> = None;
    let end = behind(now);
    loop {
        let bound = from.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
        // Most often nothing is due: the first row says so.
        let part = snapshot.scan(index, TIMED, bound, ScanOrder::Ascending, if from.is_none() { 1 } else { PART })?;
        for (key, stored) in &part {
            let Some((at, id)) = timed(key) else { continue };
            if *key >= end {
                found.next = Some(at);
                break;
            }
            if !skip(id) {
                first.insert((urgency(stored, now), id.to_owned()));
            }
            if first.len() > most {
                first.pop_last();
                found.more = true;
            }
        }
        from = part.last().map(|(key, _)| key.clone());
        if found.next.is_some() || from.is_none() {
            break;
        }
    }
    found.rows = first.into_iter().map(|(urgency, id)| (id, urgency)).collect();
    Ok(found)
}

fn compare(snapshot: &Snapshot<'_>, after: Option<&str>, now: Timestamp, most: usize) -> Result<Compared, EngineError> {
    let from = after.map_or(Bound::Unbounded, Bound::Excluded);
    let part = snapshot.scan(Table::Certificate, "", from, ScanOrder::Ascending, most)?;
    let mut compared =
        Compared { last: part.last().map(|(id, _)| id.clone()), read: part.len(), ..Compared::default() };
    for (id, certificate) in part {
        let records = Records::read(&id, |table, key| match table {
            Table::Certificate => Ok(Some(certificate.bytes.clone())),
            _ => Ok(snapshot.get(table, key)?.map(|stored| stored.bytes)),
        })?;
        let expected = records.rows(&id);
        let mut is_wrong = false;
        for (index, key) in INDEXES.iter().zip(&expected.keys) {
            let found = key.as_deref().map(|key| snapshot.get(*index, key)).transpose()?.flatten();
            is_wrong |= found.is_none_or(|found| found.bytes != expected.urgency);
        }
        if is_wrong {
            compared.wrong.push(id.clone());
        }
        if matches!(&records.order, Some(Ok(order)) if order.is_of_the_future(now)) {
            compared.orders_of_the_future.push(id.clone());
        }
        if matches!(&records.info, Some(Ok(info)) if info.is_of_the_future(now)) {
            compared.questions_of_the_future.push(id.clone());
        }
        if matches!(&records.certificate, Some(Ok(certificate)) if certificate.purging) {
            compared.purging.push(id);
        }
    }
    Ok(compared)
}

impl Store {
    /// Returns up to `most` certificates that are due at `now`, the most urgent ones, without those that `skip` names; and
    /// when the next one is due.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn due(
        &self,
        index: Table,
        now: Timestamp,
        most: usize,
        skip: impl Fn(&str) -> bool + Send + 'static,
    ) -> Result<DueNow, StoreError> {
        self.read(move |snapshot| due(snapshot, index, now, most, &skip)).await
    }

    /// Returns up to `most` certificates behind `after` that are held, with their urgency.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn held(
        &self,
        index: Table,
        after: Option<String>,
        now: Timestamp,
        most: usize,
    ) -> Result<Vec<(String, u32)>, StoreError> {
        self.read(move |snapshot| {
            let from = after.map(|id| format!("{HELD}{id}"));
            let from = from.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
            let rows = snapshot.scan(index, HELD, from, ScanOrder::Ascending, most)?;
            Ok(rows.iter().map(|(key, stored)| (id_of(key).to_owned(), urgency(stored, now))).collect())
        })
        .await
    }

    /// Returns the urgency of each of these.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn urgencies(&self, ids: Vec<String>, now: Timestamp) -> Result<Vec<(String, u32)>, StoreError> {
        self.read(move |snapshot| {
            let urgency = |id: &str| {
                let certificate = snapshot.load::<Certificate>(id).ok().flatten();
                certificate.map_or(0, |certificate| Urgency::of(&certificate.value).at(now))
            };
            Ok(ids.into_iter().map(|id| (urgency(&id), id)).map(|(urgency, id)| (id, urgency)).collect())
        })
        .await
    }

    /// Compares up to `most` certificates behind `after` with their rows.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn compare_due(
        &self,
        after: Option<String>,
        now: Timestamp,
        most: usize,
    ) -> Result<Compared, StoreError> {
        self.read(move |snapshot| compare(snapshot, after.as_deref(), now, most)).await
    }

    /// Writes the rows of a certificate anew.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn mend_due(&self, id: &str) -> Result<(), CommitError> {
        let owned = id.to_owned();
        loop {
            let (batch, expected) = self
                .engine
                .read({
                    let id = owned.clone();
                    move |snapshot| followed(snapshot, Batch::new(), &BTreeSet::from([id]))
                })
                .await?;
            match self.engine.commit(batch).await {
                Err(CommitError::Conflict { table, key }) if expected.contains(&(table, key.clone())) => {}
                done => return done.map(drop),
            }
        }
    }

    /// Removes rows that belong to no certificate, or stand where its row does not belong. Returns how many there were.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn remove_stray_due(&self) -> Result<usize, CommitError> {
        let mut removed = 0;
        for index in INDEXES {
            let mut from: Option<String> = None;
            loop {
                let after = from.clone();
                let (last, stray) = self.engine.read(move |snapshot| strays(snapshot, index, after.as_deref())).await?;
                removed += stray.len();
                for (key, revision) in stray {
                    let mut batch = Batch::new();
                    batch.expect(index, &key, revision);
                    batch.delete(index, &key);
                    match self.engine.commit(batch).await {
                        // It was written again in between: then it belongs there.
                        Ok(_) | Err(CommitError::Conflict { .. }) => {}
                        Err(error) => return Err(error),
                    }
                }
                if last.is_none() {
                    break;
                }
                from = last;
            }
        }
        Ok(removed)
    }

    /// Returns whether each index has as many rows as there are certificates.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn due_counts_agree(&self) -> Result<bool, StoreError> {
        self.read(|snapshot| {
            let certificates = snapshot.count(Table::Certificate, "")?;
            Ok(snapshot.count(Table::OrderDue, "")? == certificates
                && snapshot.count(Table::QuestionDue, "")? == certificates)
        })
        .await
    }

    /// Returns whether every certificate was seen to have its rows, in today's form.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn due_is_filled(&self) -> Result<bool, StoreError> {
        Ok(self.load::<Form>(Form::KEY).await?.is_some_and(|known| known.value == Form::NOW))
    }

    /// Remembers that.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn set_due_filled(&self) -> Result<u64, CommitError> {
        self.commit(Changes::new().upsert(&Form::NOW)).await
    }
}

/// The last row that was read, and the keys and revisions of those that should not be there.
type Strays = (Option<String>, Vec<(String, u64)>);

/// Reads the next part of an index, and says which of its rows should not be there.
fn strays(snapshot: &Snapshot<'_>, index: Table, after: Option<&str>) -> Result<Strays, EngineError> {
    let from = after.map_or(Bound::Unbounded, Bound::Excluded);
    let part = snapshot.scan(index, "", from, ScanOrder::Ascending, PART)?;
    let mut stray = Vec::new();
    for (key, stored) in &part {
        let read = |table: Table, key: &str| Ok(snapshot.get(table, key)?.map(|stored| stored.bytes));
        let expected = Records::read(id_of(key), read)?.rows(id_of(key));
        if !INDEXES.iter().zip(&expected.keys).any(|(table, row)| *table == index && row.as_ref() == Some(key)) {
            stray.push((key.clone(), stored.revision));
        }
    }
    Ok((part.last().map(|(key, _)| key.clone()), stray))
}

#[cfg(test)]
mod tests;
