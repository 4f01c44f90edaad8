//! Keeps the connection: says who we are, follows the controller's revision, and when it is lost tries again with growing
//! pauses, for as long as the dashboard runs. One task, spawned by `run`.

use std::sync::Arc;
use std::time::Duration;

use proto::clock::{Clock as _, SystemClock};
use proto::operator::v1::WhoamiRequest;
use tokio::sync::{Notify, mpsc};
use tokio::time::{Instant, sleep};

use crate::app::Msg;
use crate::client::{Client, ClientError, Contexts};

/// Pauses between attempts; the last one stays.
const PAUSES_MS: [u64; 6] = [500, 1_000, 2_000, 4_000, 8_000, 15_000];

/// The connection, and what renews the login behind it.
pub(crate) struct Line {
    pub(crate) client: Client,
    pub(crate) contexts: Option<Contexts>,
    pub(crate) clock: SystemClock,
}

/// Follows the controller until the dashboard ends.
pub(crate) async fn keep(line: Line, to_loop: mpsc::Sender<Msg>, retry: Arc<Notify>) {
    let mut attempt: u32 = 0;
    loop {
        let error = match follow(&line, &to_loop, &mut attempt).await {
            Ok(()) => return,
            Err(error) => error,
        };
        let retry_in = pause(attempt);
        attempt = attempt.saturating_add(1);
        let lost = Msg::Lost { problem: error.problem, attempt, retry_in };
        if to_loop.send(lost).await.is_err() {
            return;
        }
        // Both arms are cancel-safe: a notification that came too early is kept by `Notify`.
        tokio::select! {
            () = sleep(retry_in) => {}
            () = retry.notified() => {}
        }
    }
}

/// Connects and follows; returns `Ok` when nobody listens any more.
async fn follow(line: &Line, to_loop: &mpsc::Sender<Msg>, attempt: &mut u32) -> Result<(), ClientError> {
    let client = &line.client;
    let started = Instant::now();
    let mut who = client.whoami(WhoamiRequest {}).await?;
    let mut watch = client.watch().await?;
    let connected = Msg::Connected { who: Box::new(who.clone()), took: started.elapsed() };
    if to_loop.send(connected).await.is_err() {
        return Ok(());
    }
    let mut revision = None;
    loop {
        let event = watch.next().await?;
        // A renewed login brings another connection: what is left of this one ends with its last answer.
        if let Some(contexts) = &line.contexts
            && client.renew_login(contexts, line.clock.now()).await?
        {
            watch = client.watch().await?;
        }
        *attempt = 0;
        // A change may be one of the own role: what it does not allow is dim from now on.
        if revision.replace(event.revision) != Some(event.revision) {
            let asked = Instant::now();
            let now = client.whoami(WhoamiRequest {}).await?;
            if now.role != who.role || now.denied != who.denied {
                who = now;
                let again = Msg::Connected { who: Box::new(who.clone()), took: asked.elapsed() };
                if to_loop.send(again).await.is_err() {
                    return Ok(());
                }
            }
        }
        if to_loop.send(Msg::Paused(event.pause)).await.is_err()
            || to_loop.send(Msg::Watched(event.revision)).await.is_err()
        {
            return Ok(());
        }
    }
}

/// Returns the pause after `attempt` failures, up to a fifth shorter, so that many dashboards do not return at once.
fn pause(attempt: u32) -> Duration {
    let at = usize::try_from(attempt).unwrap_or(usize::MAX);
    let millis = PAUSES_MS.get(at).or(PAUSES_MS.last()).copied().unwrap_or(0);
    let random =
        proto::id::random_id().bytes().fold(0_u64, |sum, byte| sum.wrapping_mul(31).wrapping_add(u64::from(byte)));
    Duration::from_millis(millis - random % (millis / 5 + 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_and_stay_below_fifteen_seconds() {
        for (attempt, millis) in (0..).zip(PAUSES_MS.into_iter().chain([15_000, 15_000])) {
            let pause = pause(attempt);
            assert!(pause <= Duration::from_millis(millis), "{attempt}: {pause:?}");
            assert!(pause >= Duration::from_millis(millis - millis / 5 - 1), "{attempt}: {pause:?}");
        }
    }
}
