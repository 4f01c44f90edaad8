//! Drives orders: which certificate to look at when. What to do is decided by `lifecycle/order`, done by
//! `issuance/attempt`. Certificates are looked at when something rang, when their time has come, and all of them at start
//! and every hour, so that none is forgotten. Called by `tasks::run`.

mod attempt;
mod facts;
mod keys;

pub(crate) use self::keys::key_place;

use std::collections::{BTreeSet, HashMap, HashSet};
use std::time::Duration;

use jiff::Timestamp;
use tokio::task::{self, JoinSet};
use tokio_util::sync::CancellationToken;
use tracing::error;

use super::Context;
use super::schedule::Schedule;
use crate::acme::order::AcmeOrder;
use crate::lifecycle::backoff::after;
use crate::lifecycle::problem::chain;

/// Most orders worked on at once (reliability.md: 7 requests each; a CA allows tens of orders a second).
const PARALLEL_MAX: usize = 32;
/// All certificates are looked at this often, whatever rings.
const SWEEP_EVERY: Duration = Duration::from_secs(3_600);
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
        waiting: BTreeSet::new(),
        busy: HashMap::new(),
        looks: JoinSet::new(),
    };
    desk.sweep().await;
    let mut swept_at = desk.context.hub.now();
    loop {
        desk.start_looks();
        let now = desk.context.hub.now();
        if after(swept_at, SWEEP_EVERY) <= now {
            desk.sweep().await;
            swept_at = now;
        }
        let pause = desk.schedule.pause(now);
        // Every arm is cancel-safe: `wait` takes ids only when it returns, `join_next` likewise.
        tokio::select! {
            biased;
            () = stop.cancelled() => break,
            Some(looked) = desk.looks.join_next_with_id() => desk.looked(looked),
            ids = desk.context.hub.wake.certificates.wait() => desk.waiting.extend(ids),
            () = tokio::time::sleep(pause) => desk.waiting.extend(desk.schedule.take_due(desk.context.hub.now())),
        }
    }
    // Steps in flight are dropped: each may be repeated, and what the CA did is read from the CA again.
    desk.looks.shutdown().await;
}

struct Desk {
    context: Context,
    schedule: Schedule,
    orders: HashMap<String, AcmeOrder>,
    waiting: BTreeSet<String>,
    busy: HashMap<task::Id, String>,
    looks: JoinSet<Looked>,
}

impl Desk {
    async fn sweep(&mut self) {
        match self.context.hub.store.certificate_ids().await {
            Ok(ids) => self.waiting.extend(ids),
            Err(error) => error!(error = %chain(&error), "cannot list certificates"),
        }
    }

    fn start_looks(&mut self) {
        let busy: HashSet<&String> = self.busy.values().collect();
        let room = PARALLEL_MAX.saturating_sub(self.looks.len());
        let startable: Vec<String> = self.waiting.iter().filter(|id| !busy.contains(id)).take(room).cloned().collect();
        for id in startable {
            self.waiting.remove(&id);
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
