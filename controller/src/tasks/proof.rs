//! The proof that no certificate is forgotten (rule 17): at start, every hour and when the clock leapt, each certificate is
//! compared with its rows in the due indexes, a part at a time and never faster than the rest of the controller can spare. It
//! must find nothing to mend. It also fills the indexes of a database of earlier days, finds what a clock that was far ahead
//! had planned, and ends purges that a crash interrupted. Called by `tasks::run`.

use std::time::Duration;

use futures_util::{StreamExt as _, stream};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{error, info};

use super::deletion::{self, DeletionError};
use super::hub::Hub;
use crate::lifecycle::event::Severity;
use crate::lifecycle::problem::{Problem, chain};
use crate::store::StoreError;
use crate::store::batch::CommitError;
use crate::store::due::Compared;
use crate::store::records::Changes;

/// It is proven this often.
const PROVE_EVERY: Duration = Duration::from_secs(3_600);
/// Certificates compared at once: some milliseconds.
const PART: usize = 250;
/// After each part it rests so many times as long as the part took.
const REST_TIMES: u32 = 74;
/// Rows written anew at the same time: the writer takes them together.
const MENDED_AT_ONCE: usize = 256;
/// Ids of forgotten certificates that the log names.
const FORGOTTEN_TOLD_MAX: usize = 10;

/// Why the proof stopped.
#[derive(Debug, thiserror::Error)]
enum ProofError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Commit(#[from] CommitError),
    #[error(transparent)]
    Deletion(#[from] DeletionError),
}

/// Proves until `stop`.
pub(crate) async fn run(hub: Hub, stop: CancellationToken) {
    let mut again = hub.clock_watch.again();
    loop {
        let proven = tokio::select! {
            biased;
            () = stop.cancelled() => return,
            proven = prove(&hub) => proven,
        };
        if let Err(error) = proven {
            error!(error = %chain(&error), "cannot prove that no certificate is forgotten");
        }
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            // The clock leapt: what it had planned may be of the future.
            changed = again.changed() => if changed.is_err() { return },
            () = tokio::time::sleep(PROVE_EVERY) => {}
        }
    }
}

async fn prove(hub: &Hub) -> Result<(), ProofError> {
    let is_filled = hub.store.due_is_filled().await?;
    let (mut after, mut read, mut forgotten) = (None, 0, Vec::new());
    loop {
        let began = Instant::now();
        let part = hub.store.compare_due(after, hub.now(), PART).await?;
        read += part.read;
        act(hub, &part, is_filled).await?;
        forgotten.extend(part.wrong);
        if !is_filled {
            forgotten.clear();
        }
        after = part.last;
        if after.is_none() {
            break;
        }
        if is_filled {
            tokio::time::sleep(began.elapsed() * REST_TIMES).await;
        }
    }
    // Each certificate has its rows, so as many rows as certificates are each certificate exactly once.
    let strays = if hub.store.due_counts_agree().await? { 0 } else { hub.store.remove_stray_due().await? };
    if !is_filled {
        hub.store.set_due_filled().await?;
        hub.wake.ring_all();
        info!(certificates = read, "the due indexes are made");
        return Ok(());
    }
    info!(certificates = read, forgotten = forgotten.len(), strays, "every certificate has its next time");
    if forgotten.is_empty() && strays == 0 { Ok(()) } else { tell(hub, &forgotten, strays).await }
}

/// Mends what is wrong in a part, and has looked at what must be looked at.
async fn act(hub: &Hub, part: &Compared, is_filled: bool) -> Result<(), ProofError> {
    let mend = |id: String| {
        let store = hub.store.clone();
        async move { store.mend_due(&id).await }
    };
    let mut mended = stream::iter(part.wrong.clone()).map(mend).buffer_unordered(MENDED_AT_ONCE);
    while let Some(mended) = mended.next().await {
        mended?;
    }
    if is_filled {
        part.wrong.iter().for_each(|id| {
            hub.wake.certificates.ring(id);
            hub.wake.renewals.ring(id);
        });
    }
    part.orders_of_the_future.iter().for_each(|id| hub.wake.certificates.ring(id));
    part.questions_of_the_future.iter().for_each(|id| hub.wake.renewals.ring(id));
    for id in &part.purging {
        deletion::finish_purge(hub, id).await?;
    }
    Ok(())
}

/// What had to be mended is a bug of ours: it is told, and done all the same.
async fn tell(hub: &Hub, forgotten: &[String], strays: usize) -> Result<(), ProofError> {
    let some: Vec<&str> = forgotten.iter().take(FORGOTTEN_TOLD_MAX).map(String::as_str).collect();
    let found = forgotten.len();
    error!(forgotten = found, strays, some = some.join(" "), "certificates had no next time; they have one again");
    let problem = Problem::new(
        "CERTIFICATES_FORGOTTEN",
        format!("{found} certificates had no next time, {strays} had one too many; each has its own again"),
        "this is a bug of the controller; the hourly check found it",
        "nothing to do now; report it with the controller's log",
    );
    let event = hub.event("schedule.mended", &problem.message).with_problem(Severity::Error, problem.clone());
    hub.store.commit(Changes::new().event(&event)).await?;
    Ok(())
}
