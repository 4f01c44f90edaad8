//! The proof that no certificate is forgotten: what the store says about each against what this task knows, a part at a
//! time. At start it fills the schedule; every hour it must find nothing to mend. Called by `tasks/issuance`.

use std::ops::Bound;

use jiff::Timestamp;

use crate::lifecycle::certificate::Certificate;
use crate::lifecycle::order::{Order, Phase};
use crate::lifecycle::pause::{Pause, held};
use crate::lifecycle::renewal::{Due, due, urgency};
use crate::lifecycle::renewal_info::RenewalInfo;
use crate::store::engine::{EngineError, Order as ScanOrder, Snapshot, Stored};
use crate::store::pause::pause_all;
use crate::store::records::Versioned;
use crate::store::tables::Table;
use crate::store::{Store, StoreError};

/// Certificates read at once: some milliseconds.
const PART: usize = 1_000;

/// What the store says about one certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Glance {
    pub(super) id: String,
    pub(super) when: When,
    /// As `lifecycle/renewal` measures it.
    pub(super) urgency: u32,
    /// The latest change of anything that was read for it.
    pub(super) revision: u64,
}

/// When the store says that a certificate must be looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum When {
    /// Now.
    Now,
    /// Then; nothing else rings for it.
    At(Timestamp),
    /// An unfinished order: what it waits for is not in these records.
    Order,
    /// At rest on purpose: without renewal, or until someone acts.
    Rest,
}

/// What is to be done about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// It is where it should be.
    Leave,
    /// Look at it.
    Look,
    /// Put it there: the schedule does not have it, or later.
    Schedule(Timestamp),
}

/// Where this task has a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// A look at it runs or is about to.
    InHand,
    /// In the schedule.
    Scheduled(Timestamp),
    /// Nowhere.
    Nowhere,
}

/// Compares the two.
pub(super) fn fate(when: When, place: Place) -> Fate {
    match (when, place) {
        (_, Place::InHand) | (When::Rest, _) => Fate::Leave,
        (When::Now | When::Order, _) => Fate::Look,
        (When::At(at), Place::Scheduled(known)) if known <= at => Fate::Leave,
        (When::At(at), Place::Scheduled(_) | Place::Nowhere) => Fate::Schedule(at),
    }
}

/// Whether a certificate was forgotten: it must be looked at by itself, did not change since `swept`, and is nowhere.
pub(super) fn forgotten(glance: &Glance, place: Place, swept: u64) -> bool {
    let by_itself = matches!(glance.when, When::Now | When::At(_));
    place == Place::Nowhere && by_itself && glance.revision <= swept
}

/// Reads the next part behind `after`; an empty one is the end.
pub(super) async fn part(store: &Store, after: Option<String>, now: Timestamp) -> Result<Vec<Glance>, StoreError> {
    store
        .read(move |snapshot| {
            let from = after.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
            let rows = snapshot.scan(Table::Certificate, "", from, ScanOrder::Ascending, PART)?;
            let paused = pause_all(snapshot)?;
            Ok(rows.into_iter().map(|(id, row)| glance(snapshot, id, &row, (paused.as_ref(), now))).collect())
        })
        .await
}

/// A record that cannot be read is looked at: the look says so, and the others are not held up by it.
fn glance(snapshot: &Snapshot<'_>, id: String, row: &Stored, at: (Option<&Pause>, Timestamp)) -> Glance {
    read(snapshot, &id, row, at).unwrap_or(Glance { id, when: When::Now, urgency: 0, revision: u64::MAX })
}

fn read(
    snapshot: &Snapshot<'_>,
    id: &str,
    row: &Stored,
    (all, now): (Option<&Pause>, Timestamp),
) -> Result<Glance, EngineError> {
    let certificate = Versioned::<Certificate>::decode(id, row)?;
    let order = snapshot.load::<Order>(id)?;
    let info = match &certificate.value.current {
        Some(current) => snapshot.load::<RenewalInfo>(&format!("{id}/{}", current.version_id))?,
        None => None,
    };
    let revisions = [Some(certificate.revision), revision(&order), revision(&info)];
    Ok(Glance {
        when: if held(&certificate.value, all).is_some() {
            paused(order.as_ref())
        } else {
            when(&certificate.value, info.as_ref(), order.as_ref(), now)
        },
        urgency: urgency(&certificate.value, now),
        revision: revisions.into_iter().flatten().max().unwrap_or_default(),
        id: certificate.value.id,
    })
}

/// Returns the urgency of each of these.
pub(super) async fn urgencies(
    store: &Store,
    ids: Vec<String>,
    now: Timestamp,
) -> Result<Vec<(String, u32)>, StoreError> {
    store
        .read(move |snapshot| {
            let mut found = Vec::with_capacity(ids.len());
            for id in ids {
                let certificate = snapshot.load::<Certificate>(&id).ok().flatten();
                let urgency = certificate.map_or(0, |certificate| urgency(&certificate.value, now));
                found.push((id, urgency));
            }
            Ok(found)
        })
        .await
}

fn revision<T>(record: &Option<Versioned<T>>) -> Option<u64> {
    record.as_ref().map(|record| record.revision)
}

/// Nothing begins while it is paused.
fn paused(order: Option<&Versioned<Order>>) -> When {
    if order.is_some_and(|order| order.value.phase != Phase::Completed) { When::Order } else { When::Rest }
}

fn when(
    certificate: &Certificate,
    info: Option<&Versioned<RenewalInfo>>,
    order: Option<&Versioned<Order>>,
    now: Timestamp,
) -> When {
    if order.is_some_and(|order| order.value.is_of_the_future(now)) {
        return When::Now;
    }
    match order.map(|order| &order.value).filter(|order| order.phase != Phase::Completed) {
        _ if certificate.purging => When::Rest,
        Some(_) => When::Order,
        None => match due(certificate, info.map(|info| &info.value), now) {
            Due::Now(_) => When::Now,
            Due::At(at) => When::At(at),
            Due::Never => When::Rest,
        },
    }
}

/// The key behind which the next part begins.
pub(super) fn last(part: &[Glance]) -> Option<String> {
    part.last().map(|glance| glance.id.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn what_is_in_hand_or_in_time_is_left_alone_and_all_else_is_mended() {
        for (when, place, expected) in [
            (When::Now, Place::InHand, Fate::Leave),
            (When::At(at(9)), Place::InHand, Fate::Leave),
            (When::At(at(9)), Place::Scheduled(at(9)), Fate::Leave),
            (When::At(at(9)), Place::Scheduled(at(5)), Fate::Leave),
            (When::At(at(9)), Place::Scheduled(at(10)), Fate::Schedule(at(9))),
            (When::At(at(9)), Place::Nowhere, Fate::Schedule(at(9))),
            (When::Now, Place::Scheduled(at(9)), Fate::Look),
            (When::Now, Place::Nowhere, Fate::Look),
            (When::Rest, Place::Nowhere, Fate::Leave),
        ] {
            assert_eq!(fate(when, place), expected, "{when:?} {place:?}");
        }
    }

    #[test]
    fn only_what_had_its_time_and_is_nowhere_was_forgotten() {
        let glance = |when, revision| Glance { id: "c".into(), when, urgency: 0, revision };
        assert!(forgotten(&glance(When::At(at(9)), 7), Place::Nowhere, 7));
        assert!(forgotten(&glance(When::Now, 7), Place::Nowhere, 8));
        assert!(
            !forgotten(&glance(When::At(at(9)), 8), Place::Nowhere, 7),
            "changed a moment ago: its signal is on the way"
        );
        assert!(!forgotten(&glance(When::Rest, 1), Place::Nowhere, 7));
        assert!(!forgotten(&glance(When::Order, 1), Place::Nowhere, 7), "it may wait for an agent");
        assert!(!forgotten(&glance(When::At(at(9)), 1), Place::Scheduled(at(9)), 7));
    }
}
