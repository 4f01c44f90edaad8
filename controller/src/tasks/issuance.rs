//! Drives orders: which certificate to look at when. What to do is decided by `lifecycle/order`, done by
//! `issuance/attempt`. Certificates are looked at when something rang and when their time has come, most urgent first; at
//! start and every hour `issuance/sweep` proves that none is forgotten. Called by `tasks::run`.

mod attempt;
mod facts;
mod keys;
mod queue;
mod sweep;

pub(crate) use self::keys::key_place;

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use jiff::Timestamp;
use tokio::task::{self, JoinSet};
use tokio_util::sync::CancellationToken;
use tracing::{error, info};

use self::queue::Queue;
use self::sweep::{Fate, Glance, Place, fate, forgotten};
use super::Context;
use super::schedule::Schedule;
use crate::acme::order::AcmeOrder;
use crate::lifecycle::backoff::after;
use crate::lifecycle::event::Severity;
use crate::lifecycle::problem::{Problem, chain};
use crate::store::records::Changes;

/// Most orders worked on at once (reliability.md: 7 requests each; a CA allows tens of orders a second).
const PARALLEL_MAX: usize = 32;
/// It is proven this often that no certificate was forgotten.
const SWEEP_EVERY: Duration = Duration::from_secs(3_600);
/// Ids of forgotten certificates that the log names.
const FORGOTTEN_TOLD_MAX: usize = 10;
/// After a failure of our own store.
const STORE_RETRY: Duration = Duration::from_secs(10);
/// After a bug of ours: it will most likely happen again.
const PANIC_RETRY: Duration = Duration::from_secs(600);

/// One look at a certificate is over.
#[derive(Debug)]
struct Looked {
    id: String,
    /// The conversation about its running order, kept so that the order need not be read again.
    order: Option<AcmeOrder>,
    /// When to look again by itself.
    next: Option<Timestamp>,
}

/// Looks at certificates until `stop`.
pub(crate) async fn run(context: Context, stop: CancellationToken) {
    let mut desk = Desk {
        context,
        schedule: Schedule::default(),
        orders: HashMap::new(),
        waiting: Queue::default(),
        busy: HashMap::new(),
        looks: JoinSet::new(),
        sweep: Some(Sweep::default()),
        swept: None,
    };
    let mut swept_at = desk.context.hub.now();
    let mut again = desk.context.hub.clock_watch.again();
    loop {
        desk.start_looks();
        let now = desk.context.hub.now();
        if after(swept_at, SWEEP_EVERY) <= now {
            desk.sweep.get_or_insert_default();
            swept_at = now;
        }
        let pause = if desk.sweep.is_some() { Duration::ZERO } else { desk.schedule.pause(now) };
        // Every arm is cancel-safe: `wait` takes ids only when it returns, `join_next` likewise.
        tokio::select! {
            biased;
            () = stop.cancelled() => break,
            Some(looked) = desk.looks.join_next_with_id() => desk.looked(looked),
            ids = desk.context.hub.wake.certificates.wait() => desk.enqueue(ids.into_iter().collect()).await,
            // The clock leapt, or is right again: no time that was planned is believed.
            Ok(()) = again.changed() => {
                desk.plan_anew();
                swept_at = desk.context.hub.now();
            }
            () = tokio::time::sleep(pause) => desk.turn().await,
        }
    }
    // Steps in flight are dropped: each may be repeated, and what the CA did is read from the CA again.
    desk.looks.shutdown().await;
}

struct Desk {
    context: Context,
    schedule: Schedule,
    orders: HashMap<String, AcmeOrder>,
    waiting: Queue,
    busy: HashMap<task::Id, String>,
    looks: JoinSet<Looked>,
    /// The proof under way.
    sweep: Option<Sweep>,
    /// The store's revision before the last whole one.
    swept: Option<u64>,
}

/// How far a sweep is.
#[derive(Debug, Default)]
struct Sweep {
    /// The last certificate that was read.
    after: Option<String>,
    /// The store's revision when it began.
    began: Option<u64>,
    /// How many were read.
    read: usize,
    /// What was forgotten, a few of them.
    forgotten: Vec<String>,
}

impl Desk {
    /// Forgets all times, as at start.
    fn plan_anew(&mut self) {
        self.schedule = Schedule::default();
        self.sweep = Some(Sweep::default());
        self.swept = None;
    }

    /// What a timer is for: one part of a sweep, else what is due.
    async fn turn(&mut self) {
        match self.sweep.take() {
            Some(sweep) => self.sweep_on(sweep).await,
            None => {
                let due = self.schedule.take_due(self.context.hub.now());
                self.enqueue(due).await;
            }
        }
    }

    /// Queues what must be looked at. Urgency matters only when not all can be looked at together.
    async fn enqueue(&mut self, ids: Vec<String>) {
        let room = PARALLEL_MAX.saturating_sub(self.looks.len() + self.waiting.len());
        if ids.len() <= room {
            ids.into_iter().for_each(|id| self.waiting.push(id, 0));
            return;
        }
        let hub = &self.context.hub;
        match sweep::urgencies(&hub.store, ids.clone(), hub.now()).await {
            Ok(found) => found.into_iter().for_each(|(id, urgency)| self.waiting.push(id, urgency)),
            Err(error) => {
                error!(error = %chain(&error), "cannot read how urgent certificates are");
                ids.into_iter().for_each(|id| self.waiting.push(id, 0));
            }
        }
    }

    async fn sweep_on(&mut self, mut sweep: Sweep) {
        let hub = &self.context.hub;
        if sweep.began.is_none() {
            sweep.began = Some(*hub.store.revision().borrow());
        }
        match sweep::part(&hub.store, sweep.after.clone(), hub.now()).await {
            Ok(part) if part.is_empty() => self.swept(sweep).await,
            Ok(part) => {
                sweep.after = sweep::last(&part);
                sweep.read += part.len();
                let busy: HashSet<String> = self.busy.values().cloned().collect();
                part.into_iter().for_each(|glance| self.glance(glance, &busy, &mut sweep));
                self.sweep = Some(sweep);
            }
            Err(error) => error!(error = %chain(&error), "cannot look whether a certificate was forgotten"),
        }
    }

    fn glance(&mut self, glance: Glance, busy: &HashSet<String>, sweep: &mut Sweep) {
        let place = match self.schedule.at(&glance.id) {
            _ if busy.contains(&glance.id) || self.waiting.has(&glance.id) => Place::InHand,
            Some(at) => Place::Scheduled(at),
            None => Place::Nowhere,
        };
        if self.swept.is_some_and(|swept| forgotten(&glance, place, swept)) {
            sweep.forgotten.push(glance.id.clone());
        }
        match fate(glance.when, place) {
            Fate::Leave => {}
            Fate::Look => self.waiting.push(glance.id, glance.urgency),
            Fate::Schedule(at) => self.schedule.set(glance.id, at),
        }
    }

    /// Ends a sweep. What it had to mend is a bug of ours: it is told, and done all the same.
    async fn swept(&mut self, sweep: Sweep) {
        let found = sweep.forgotten.len();
        info!(certificates = sweep.read, forgotten = found, "every certificate has its next time");
        self.swept = sweep.began;
        if found == 0 {
            return;
        }
        let some: Vec<&str> = sweep.forgotten.iter().take(FORGOTTEN_TOLD_MAX).map(String::as_str).collect();
        error!(forgotten = found, some = some.join(" "), "certificates had no next time; they have one again");
        let problem = Problem::new(
            "CERTIFICATES_FORGOTTEN",
            format!("{found} certificates had no next time; they have one again"),
            "this is a bug of the controller; the hourly check found it",
            "nothing to do now; report it with the controller's log",
        );
        let hub = &self.context.hub;
        let event = hub.event("schedule.mended", &problem.message).with_problem(Severity::Error, problem.clone());
        if let Err(error) = hub.store.commit(Changes::new().event(&event)).await {
            error!(error = %chain(&error), "cannot tell that certificates were forgotten");
        }
    }

    fn start_looks(&mut self) {
        let busy: HashSet<&String> = self.busy.values().collect();
        let room = PARALLEL_MAX.saturating_sub(self.looks.len());
        for id in self.waiting.take(room, |id| !busy.iter().any(|one| *one == id)) {
            self.schedule.clear(&id);
            let order = self.orders.remove(&id);
            let look = self.looks.spawn(look(self.context.clone(), id.clone(), order));
            self.busy.insert(look.id(), id);
        }
    }

    fn looked(&mut self, looked: Result<(task::Id, Looked), task::JoinError>) {
        match looked {
            Ok((task, Looked { id, order, next })) => {
                self.busy.remove(&task);
                if let Some(order) = order {
                    self.orders.insert(id.clone(), order);
                }
                if let Some(next) = next {
                    self.schedule.set(id, next);
                }
            }
            Err(panic) => {
                let id = self.busy.remove(&panic.id()).unwrap_or_default();
                error!(certificate_id = id, %panic, "an order's step ended by a bug; it is looked at again later");
                self.schedule.set(id, after(self.context.hub.now(), PANIC_RETRY));
            }
        }
    }
}

/// Does step after step until there is nothing to do at this moment.
async fn look(context: Context, id: String, mut order: Option<AcmeOrder>) -> Looked {
    loop {
        match attempt::step(&context, &id, &mut order).await {
            Ok(attempt::After::Again) => {}
            Ok(attempt::After::Sleep(next)) => return Looked { id, order, next },
            Err(error) => {
                error!(
                    certificate_id = id,
                    error = %chain(&error),
                    "a step could not be recorded; it is repeated"
                );
                let next = Some(after(context.hub.now(), STORE_RETRY));
                return Looked { id, order, next };
            }
        }
    }
}
