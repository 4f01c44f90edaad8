//! Asks CAs when they want certificates renewed (RFC 9773) and keeps what they say; `lifecycle/renewal` decides by it. A
//! failure here changes nothing about a renewal. Called by `tasks::run`.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::time::Duration;

use jiff::Timestamp;
use proto::x509::Chain;
use tokio::task::{self, JoinSet};
use tokio_util::sync::CancellationToken;
use tracing::{error, warn};

use super::schedule::Schedule;
use super::{Context, accounts};
use crate::acme::problem::Retry;
use crate::lifecycle::backoff::after;
use crate::lifecycle::certificate::{Certificate, Version};
use crate::lifecycle::event::Severity;
use crate::lifecycle::issuer::Issuer;
use crate::lifecycle::problem::{Problem, chain};
use crate::lifecycle::renewal_info::{Draws, RenewalInfo, look_again_at};
use crate::store::StoreError;
use crate::store::batch::CommitError;
use crate::store::certificate::Bundle;
use crate::store::records::{Changes, Versioned};
use crate::store::tables::Table;

/// Most questions under way at once; how fast one CA is asked is `acme/pace`'s.
const PARALLEL_MAX: usize = 16;
/// All certificates are counted this often, whatever rings.
const SWEEP_EVERY: Duration = Duration::from_secs(3_600);
/// After a conflict, a failure of our own store, or a bug.
const OWN_RETRY: Duration = Duration::from_secs(60);

/// Asks until `stop`.
pub(crate) async fn run(context: Context, stop: CancellationToken) {
    let mut desk = Desk {
        context,
        schedule: Schedule::default(),
        waiting: BTreeSet::new(),
        busy: HashMap::new(),
        looks: JoinSet::new(),
    };
    let mut sweeps = tokio::time::interval(SWEEP_EVERY);
    loop {
        desk.start_looks();
        let pause = desk.schedule.pause(desk.context.hub.now());
        tokio::select! {
            biased;
            () = stop.cancelled() => break,
            // The first tick comes at once: the sweep at start.
            _ = sweeps.tick() => desk.sweep().await,
            Some(looked) = desk.looks.join_next_with_id() => desk.looked(looked),
            ids = desk.context.hub.wake.renewals.wait() => desk.waiting.extend(ids),
            () = tokio::time::sleep(pause) => desk.waiting.extend(desk.schedule.take_due(desk.context.hub.now())),
        }
    }
    desk.looks.shutdown().await;
}

struct Desk {
    context: Context,
    schedule: Schedule,
    waiting: BTreeSet<String>,
    busy: HashMap<task::Id, String>,
    looks: JoinSet<(String, Option<Timestamp>)>,
}

impl Desk {
    /// What is neither scheduled nor waiting nor under way is looked at: a signal may have been lost.
    async fn sweep(&mut self) {
        match self.context.hub.store.certificate_ids().await {
            Ok(ids) => {
                let busy: HashSet<&String> = self.busy.values().collect();
                let lost: Vec<String> =
                    ids.into_iter().filter(|id| !self.schedule.has(id) && !busy.contains(id)).collect();
                self.waiting.extend(lost);
            }
            Err(error) => error!(error = %chain(&error), "cannot list certificates"),
        }
    }

    fn start_looks(&mut self) {
        let busy: HashSet<&String> = self.busy.values().collect();
        let room = PARALLEL_MAX.saturating_sub(self.looks.len());
        let startable: Vec<String> = self.waiting.iter().filter(|id| !busy.contains(id)).take(room).cloned().collect();
        startable.into_iter().for_each(|id| self.start(id));
    }

    fn start(&mut self, id: String) {
        self.waiting.remove(&id);
        self.schedule.clear(&id);
        let context = self.context.clone();
        let asked = id.clone();
        let look = self.looks.spawn(async move {
            let next = look(&context, &asked).await;
            (asked, next)
        });
        self.busy.insert(look.id(), id);
    }

    fn looked(&mut self, looked: Result<(task::Id, (String, Option<Timestamp>)), task::JoinError>) {
        match looked {
            Ok((task, (id, next))) => {
                self.busy.remove(&task);
                if let Some(next) = next {
                    self.schedule.set(id, next);
                }
            }
            Err(panic) => {
                let id = self.busy.remove(&panic.id()).unwrap_or_default();
                error!(certificate_id = id, %panic, "asking when to renew ended by a bug; it is asked again later");
                self.schedule.set(id, after(self.context.hub.now(), OWN_RETRY));
            }
        }
    }
}

/// Why nothing could be kept.
#[derive(Debug, thiserror::Error)]
enum LookError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Commit(#[from] CommitError),
}

/// Looks at one certificate and returns when to look again.
async fn look(context: &Context, id: &str) -> Option<Timestamp> {
    match ask(context, id).await {
        Ok(next) => next,
        Err(error) => {
            if !matches!(error, LookError::Commit(CommitError::Conflict { .. })) {
                error!(certificate_id = id, error = %chain(&error), "cannot keep when the CA wants a renewal");
            }
            Some(after(context.hub.now(), OWN_RETRY))
        }
    }
}

async fn ask(context: &Context, id: &str) -> Result<Option<Timestamp>, LookError> {
    let hub = &context.hub;
    let Some(bundle) = hub.store.bundle(id).await? else { return Ok(None) };
    let record = &bundle.certificate.value;
    let Some(current) = record.current.as_ref().filter(|_| record.auto_renew && !record.purging) else {
        return Ok(None);
    };
    let now = hub.now();
    if let Some(ask_at) = bundle.renewal_info().map(|info| info.ask_at).filter(|at| *at > now) {
        return Ok(Some(ask_at));
    }
    let Some(issuer) = hub.store.load::<Issuer>(&current.issuer_id).await? else { return Ok(None) };
    let Some(renewal_id) = renewal_id(context, record).await? else { return Ok(None) };
    let said = context.acme.renewal_info(&accounts::directory(&issuer.value), &renewal_id).await;
    let (now, earlier) = (hub.now(), bundle.renewal_info());
    let version = (id, current.version_id.as_str());
    let info = match said {
        Ok(None) if earlier.is_none_or(|earlier| earlier.window.is_none()) => return Ok(Some(look_again_at(now))),
        Ok(None) => RenewalInfo::failed(earlier, version, (withdrawn(), None), now, hub.jitter()),
        Ok(Some(said)) => {
            let draws = Draws { instant: hub.jitter(), spread: hub.jitter() };
            RenewalInfo::answered(earlier, current, (id, said), now, draws)
        }
        Err(error) => {
            warn!(certificate_id = id, error = %chain(&error), "the CA does not say when to renew");
            let retry_after = match error.retry() {
                Retry::After(wait) => Some(wait),
                Retry::Daily(wait) => wait,
                Retry::Now | Retry::Never => None,
            };
            RenewalInfo::failed(earlier, version, (error.problem(), retry_after), now, hub.jitter())
        }
    };
    let ask_at = info.ask_at;
    keep(context, &bundle, info).await?;
    Ok(Some(ask_at))
}

/// Keeps an answer, unless the certificate changed meanwhile, and lets the renewal be decided again.
async fn keep(context: &Context, bundle: &Bundle, info: RenewalInfo) -> Result<(), LookError> {
    let certificate = &bundle.certificate;
    let mut changes = Changes::new().expect(Table::Certificate, &certificate.value.id, certificate.revision);
    if info.moved(bundle.renewal_info()) {
        let window = info.window.map(|window| (window.start, window.end, window.instant));
        let (start, end, instant) = window.unwrap_or_default();
        let why = info.explanation_url.as_deref().map(|url| format!("; it explains why at {url}")).unwrap_or_default();
        let message = format!("the CA moved the renewal to between {start} and {end}; it is renewed at {instant}{why}");
        changes = changes.event(&context.hub.event("renewal.moved", message).of_certificate(&certificate.value.name));
    } else if let Some(problem) = news(&info, bundle.renewal_info()) {
        let event = context.hub.event("renewal.unknown", &problem.message).of_certificate(&certificate.value.name);
        changes = changes.event(&event.with_problem(Severity::Info, problem.clone()));
    }
    let stands = bundle.renewal_info().and_then(|earlier| earlier.window);
    let decided_again = info.window != stands;
    changes = match &bundle.renewal_info {
        Some(earlier) => changes.update(&Versioned { revision: earlier.revision, value: info }),
        None => changes.insert(&info),
    };
    context.hub.store.commit(changes).await?;
    if decided_again {
        context.hub.wake.certificates.ring(&certificate.value.id);
    }
    Ok(())
}

/// A problem that was not there before.
fn news<'a>(info: &'a RenewalInfo, earlier: Option<&RenewalInfo>) -> Option<&'a Problem> {
    let before = earlier.and_then(|earlier| earlier.problem.as_ref());
    info.problem.as_ref().filter(|problem| before.is_none_or(|before| before.reason != problem.reason))
}

/// What the CA calls the current version; `None` when its leaf does not name its issuer's key.
pub(super) async fn renewal_id(context: &Context, certificate: &Certificate) -> Result<Option<String>, StoreError> {
    let Some(current) = &certificate.current else { return Ok(None) };
    let key = format!("{}/{}", certificate.id, current.version_id);
    let version = context.hub.store.load::<Version>(&key).await?;
    let leaf = version.and_then(|version| Chain::parse_pem(version.value.leaf_pem.as_bytes()).ok());
    Ok(leaf.and_then(|chain| chain.leaf.renewal_id))
}

fn withdrawn() -> Problem {
    Problem::new(
        "RENEWAL_INFO_WITHDRAWN",
        "the CA no longer says when it wants renewals",
        "its directory does not name renewalInfo any more",
        "nothing to do: the window that it told last stands",
    )
}
