//! Waits for room on a full disk, and writes down that there was none: the event that tells it is the first change that is tried
//! again and again. Called by `tasks::run`.

use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tracing::{error, info};

use super::hub::Hub;
use crate::lifecycle::event::Severity;
use crate::store::records::Changes;

/// How often it is tried; the store leaves a full disk alone for less than that.
const TRY_EVERY: Duration = Duration::from_secs(5);

/// Tells of full disks until `stop`.
pub(crate) async fn run(hub: Hub, stop: CancellationToken) {
    let mut full = hub.store.engine.full();
    loop {
        let problem = tokio::select! {
            biased;
            () = stop.cancelled() => return,
            // The store outlives its tasks.
            found = full.wait_for(Option::is_some) => match found.ok().and_then(|found| found.clone()) {
                Some(full) => full.problem(),
                None => return,
            },
        };
        let since = hub.now();
        error!(cause = problem.cause, "the disk is full: nothing is changed until there is room, {}", problem.hint);
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                () = tokio::time::sleep(TRY_EVERY) => {}
            }
            let seconds = hub.now().duration_since(since).as_secs();
            let said =
                format!("the disk of the database was full for {seconds} s: no change could be stored meanwhile");
            let event = hub.event("store.full", said).with_problem(Severity::Error, problem.clone());
            if hub.store.commit(Changes::new().event(&event)).await.is_ok() {
                break;
            }
        }
        info!("there is room again: changes are stored");
        hub.wake.ring_all();
    }
}
