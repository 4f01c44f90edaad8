//! A desk of certificates: looks at each when something rang and when its time has come by the due index of the store, most
//! urgent first, so many at once. In memory is only what is in hand. What a look does is the errand's. Called by
//! `tasks/issuance` and `tasks/renewal_info`.

mod queue;
mod schedule;

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use jiff::Timestamp;
use tokio::task::{self, JoinSet};
use tokio_util::sync::CancellationToken;
use tracing::error;

use self::queue::Queue;
use self::schedule::Schedule;
use super::Context;
use super::wake::{Bell, Wake};
use crate::lifecycle::backoff::after;
use crate::lifecycle::due::Place;
use crate::lifecycle::problem::chain;
use crate::store::StoreError;
use crate::store::tables::Table;

/// The wall clock may leap (suspend, NTP), and a signal may be lost: the index is read at least this often.
const READ_EVERY: Duration = Duration::from_secs(60);
/// What is held is looked at again this often: time gets short for what waits for an issuer.
const HELD_EVERY: Duration = Duration::from_secs(3_600);
/// Certificates that wait for their look, at most, but for those that rang.
const WAITING_MAX: usize = 1_000;
/// What was due and did not change by a look is left alone for so long: our own store failed, or a bug.
const OWN_RETRY: Duration = Duration::from_secs(600);

/// One kind of look.
pub(super) trait Errand: Send + Sync + 'static {
    /// What is kept of a certificate between two looks.
    type Kept: Send + 'static;
    /// When certificates are due.
    const INDEX: Table;
    /// Most looks at once.
    const PARALLEL_MAX: usize;

    /// What rings for it.
    fn bell(wake: &Wake) -> &Bell;

    /// Whether what is due waits at this moment, whatever it is.
    fn rests(context: &Context) -> impl Future<Output = Result<bool, StoreError>> + Send;

    /// Looks at one certificate.
    fn look(
        context: Context,
        id: String,
        kept: Option<Self::Kept>,
    ) -> impl Future<Output = Looked<Self::Kept>> + Send + 'static;
}

/// One look is over.
#[derive(Debug)]
pub(super) struct Looked<K> {
    /// At which certificate.
    pub(super) id: String,
    /// For the next look.
    pub(super) kept: Option<K>,
    /// Where the index has it; none when it is gone, or could not be read.
    pub(super) place: Option<Place>,
    /// When to look again, if the look knows.
    pub(super) next: Option<Timestamp>,
}

/// Looks at certificates until `stop`.
pub(super) async fn run<E: Errand>(context: Context, stop: CancellationToken) {
    let mut desk = Desk::<E> {
        context,
        schedule: Schedule::default(),
        kept: HashMap::new(),
        waiting: Queue::default(),
        busy: HashMap::new(),
        looks: JoinSet::new(),
        next: Timestamp::MIN,
        walk: Some(String::new()),
        walked_at: Timestamp::MIN,
    };
    let mut again = desk.context.hub.wake.again();
    loop {
        desk.start_looks();
        let pause = desk.pause();
        // Every arm is cancel-safe: `wait` takes ids only when it returns, `join_next` likewise.
        tokio::select! {
            biased;
            () = stop.cancelled() => break,
            Some(looked) = desk.looks.join_next_with_id() => desk.looked(looked),
            ids = E::bell(&desk.context.hub.wake).wait() => desk.enqueue(ids.into_iter().collect()).await,
            // The clock leapt, or a pause was lifted: no time that was planned is believed.
            Ok(()) = again.changed() => desk.plan_anew(),
            () = tokio::time::sleep(pause) => desk.turn().await,
        }
    }
    // Looks in flight are dropped: each may be repeated.
    desk.looks.shutdown().await;
}

struct Desk<E: Errand> {
    context: Context,
    /// What is held, or was due in vain, by when it is looked at again: it goes before the index.
    schedule: Schedule,
    kept: HashMap<String, E::Kept>,
    waiting: Queue,
    busy: HashMap<task::Id, String>,
    looks: JoinSet<Looked<E::Kept>>,
    /// When the index must be read again.
    next: Timestamp,
    /// The walk through what is held: the last certificate of it that was queued.
    walk: Option<String>,
    walked_at: Timestamp,
}

impl<E: Errand> Desk<E> {
    /// Forgets all times, as at start.
    fn plan_anew(&mut self) {
        self.schedule = Schedule::default();
        self.next = Timestamp::MIN;
        self.walk = Some(String::new());
    }

    /// How long to wait for the next turn.
    fn pause(&self) -> Duration {
        let now = self.context.hub.now();
        let first = self.schedule.first().map_or(READ_EVERY, |at| until(at, now));
        let is_full = self.waiting.len() >= E::PARALLEL_MAX;
        let next = match self.walk {
            _ if is_full => READ_EVERY,
            Some(_) => Duration::ZERO,
            None => until(self.next, now),
        };
        first.min(next).min(READ_EVERY)
    }

    /// What a timer is for.
    async fn turn(&mut self) {
        let now = self.context.hub.now();
        let due = self.schedule.take_due(now);
        self.enqueue(due).await;
        if self.waiting.len() >= E::PARALLEL_MAX {
            return;
        }
        let read = match self.walk.take() {
            Some(last) => self.walk_on(last, now).await,
            None => self.read(now).await,
        };
        if let Err(error) = read {
            error!(error = %chain(&error), index = %E::INDEX, "cannot read what is due");
            self.next = after(now, READ_EVERY);
        }
    }

    /// Queues a part of what is held and not in hand.
    async fn walk_on(&mut self, last: String, now: Timestamp) -> Result<(), StoreError> {
        let from = Some(last).filter(|last| !last.is_empty());
        let part = self.context.hub.store.held(E::INDEX, from, now, WAITING_MAX).await?;
        match part.last() {
            Some((id, _)) => self.walk = Some(id.clone()),
            None => self.walked_at = now,
        }
        let busy: HashSet<&String> = self.busy.values().collect();
        for (id, urgency) in part {
            if !busy.contains(&id) && !self.schedule.has(&id) {
                self.waiting.push(id, urgency);
            }
        }
        Ok(())
    }

    /// Queues what is due, and remembers when the next is.
    async fn read(&mut self, now: Timestamp) -> Result<(), StoreError> {
        self.next = after(now, READ_EVERY);
        if after(self.walked_at, HELD_EVERY) <= now {
            self.walk = Some(String::new());
        }
        if E::rests(&self.context).await? {
            return Ok(());
        }
        let mut in_hand: HashSet<String> = self.busy.values().cloned().collect();
        in_hand.extend(self.schedule.ids().cloned());
        let skip = move |id: &str| in_hand.contains(id);
        let due = self.context.hub.store.due(E::INDEX, now, WAITING_MAX, skip).await?;
        // With more than fits it is read again as soon as there is room.
        let next = if due.more { Some(now) } else { due.next };
        self.next = next.map_or(self.next, |next| next.min(self.next));
        due.rows.into_iter().for_each(|(id, urgency)| self.waiting.push(id, urgency));
        Ok(())
    }

    /// Queues what rang. Urgency matters only when not all can be looked at together.
    async fn enqueue(&mut self, ids: Vec<String>) {
        let room = E::PARALLEL_MAX.saturating_sub(self.looks.len() + self.waiting.len());
        if ids.len() <= room {
            ids.into_iter().for_each(|id| self.waiting.push(id, 0));
            return;
        }
        let hub = &self.context.hub;
        match hub.store.urgencies(ids.clone(), hub.now()).await {
            Ok(found) => found.into_iter().for_each(|(id, urgency)| self.waiting.push(id, urgency)),
            Err(error) => {
                error!(error = %chain(&error), "cannot read how urgent certificates are");
                ids.into_iter().for_each(|id| self.waiting.push(id, 0));
            }
        }
    }

    fn start_looks(&mut self) {
        let busy: HashSet<&String> = self.busy.values().collect();
        let room = E::PARALLEL_MAX.saturating_sub(self.looks.len());
        for id in self.waiting.take(room, |id| !busy.iter().any(|one| *one == id)) {
            self.schedule.clear(&id);
            let kept = self.kept.remove(&id);
            let look = self.looks.spawn(E::look(self.context.clone(), id.clone(), kept));
            self.busy.insert(look.id(), id);
        }
    }

    fn looked(&mut self, looked: Result<(task::Id, Looked<E::Kept>), task::JoinError>) {
        let now = self.context.hub.now();
        match looked {
            Ok((task, Looked { id, kept, place, next })) => {
                self.busy.remove(&task);
                if let Some(kept) = kept {
                    self.kept.insert(id.clone(), kept);
                }
                if let Some(at) = place.and_then(|place| place.to_come(now)) {
                    self.next = self.next.min(at);
                } else if let Some(at) = in_hand_until(place, next, now) {
                    self.schedule.set(id, at);
                }
            }
            Err(panic) => {
                let id = self.busy.remove(&panic.id()).unwrap_or_default();
                error!(certificate_id = id, %panic, "a look ended by a bug; it is repeated later");
                self.schedule.set(id, after(now, OWN_RETRY));
            }
        }
    }
}

/// When to look again at what the index does not bring by itself.
fn in_hand_until(place: Option<Place>, next: Option<Timestamp>, now: Timestamp) -> Option<Timestamp> {
    match place {
        Some(Place::Rest) => None,
        // Else it would be brought again at once.
        Some(Place::At(_)) => Some(next.unwrap_or_else(|| after(now, OWN_RETRY))),
        Some(Place::Held) | None => next,
    }
}

fn until(at: Timestamp, now: Timestamp) -> Duration {
    at.duration_since(now).try_into().unwrap_or(Duration::ZERO)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_the_index_does_not_bring_is_kept_in_hand() {
        let at = |second: i64| Timestamp::from_second(second).unwrap();
        let (now, soon) = (at(1_000), at(1_010));
        for (place, next, expected) in [
            (Some(Place::Rest), Some(soon), None),
            (Some(Place::Held), Some(soon), Some(soon)),
            (Some(Place::Held), None, None),
            (Some(Place::At(at(999))), Some(soon), Some(soon)),
            (Some(Place::At(at(999))), None, Some(after(now, OWN_RETRY))),
            (None, Some(soon), Some(soon)),
            (None, None, None),
        ] {
            assert_eq!(in_hand_until(place, next, now), expected, "{place:?} {next:?}");
        }
    }
}
