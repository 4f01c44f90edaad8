//! Asks CAs when they want certificates renewed (RFC 9773) and keeps what they say; `lifecycle/renewal` decides by it. A
//! failure here changes nothing about a renewal. Called by `tasks::run`.

use std::time::Duration;

use proto::x509::Chain;
use tokio_util::sync::CancellationToken;
use tracing::{error, warn};

use super::desk::{self, Errand, Looked};
use super::wake::{Bell, Wake};
use super::{Context, accounts, clock};
use crate::acme::problem::Retry;
use crate::lifecycle::backoff::after;
use crate::lifecycle::certificate::{Certificate, CurrentVersion, Version};
use crate::lifecycle::due::{Place, of_questions};
use crate::lifecycle::event::Severity;
use crate::lifecycle::issuer::Issuer;
use crate::lifecycle::problem::{Problem, chain};
use crate::lifecycle::renewal_info::{Draws, RenewalInfo};
use crate::store::StoreError;
use crate::store::batch::CommitError;
use crate::store::certificate::Bundle;
use crate::store::records::{Changes, Versioned};
use crate::store::tables::Table;

/// After a conflict, or a failure of our own store.
const OWN_RETRY: Duration = Duration::from_secs(60);

/// Asks until `stop`.
pub(crate) async fn run(context: Context, stop: CancellationToken) {
    desk::run::<Questions>(context, stop).await;
}

/// The errand: a question to a certificate's CA.
struct Questions;

impl Errand for Questions {
    type Kept = ();
    const INDEX: Table = Table::QuestionDue;
    /// How fast one CA is asked is `acme/pace`'s.
    const PARALLEL_MAX: usize = 16;

    fn bell(wake: &Wake) -> &Bell {
        &wake.renewals
    }

    /// By a clock that is far ahead every question would be due.
    async fn rests(context: &Context) -> Result<bool, StoreError> {
        Ok(!clock::is_right(context))
    }

    async fn look(context: Context, id: String, _kept: Option<()>) -> Looked<()> {
        let (place, next) = match ask(&context, &id).await {
            Ok(place) => (place, None),
            Err(error) => {
                if !matches!(error, LookError::Commit(CommitError::Conflict { .. })) {
                    error!(certificate_id = id, error = %chain(&error), "cannot keep when the CA wants a renewal");
                }
                (None, Some(after(context.hub.now(), OWN_RETRY)))
            }
        };
        Looked { id, kept: None, place, next }
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

/// Asks about one certificate if it is time, and returns where the index has it then.
async fn ask(context: &Context, id: &str) -> Result<Option<Place>, LookError> {
    let hub = &context.hub;
    let Some(bundle) = hub.store.bundle(id).await? else { return Ok(None) };
    let (record, earlier) = (&bundle.certificate.value, bundle.renewal_info());
    let place = of_questions(record, earlier);
    let (Place::At(at), Some(current)) = (place, &record.current) else { return Ok(Some(place)) };
    let now = hub.now();
    if at > now && !earlier.is_some_and(|info| info.is_of_the_future(now)) {
        return Ok(Some(place));
    }
    let info = answer(context, record, current, earlier).await?;
    let ask_at = info.ask_at;
    keep(context, &bundle, info).await?;
    Ok(Some(Place::At(ask_at)))
}

/// What the CA says about the current version.
async fn answer(
    context: &Context,
    record: &Certificate,
    current: &CurrentVersion,
    earlier: Option<&RenewalInfo>,
) -> Result<RenewalInfo, StoreError> {
    let (hub, version) = (&context.hub, (record.id.as_str(), current.version_id.as_str()));
    let issuer = hub.store.load::<Issuer>(&current.issuer_id).await?;
    let issuer = issuer.filter(|issuer| issuer.value.private.is_none());
    let (Some(issuer), Some(renewal_id)) = (issuer, renewal_id(context, record).await?) else {
        return Ok(RenewalInfo::not_offered(version, hub.now()));
    };
    let said = context.acme.renewal_info(&accounts::directory(&issuer.value), &renewal_id).await;
    let now = hub.now();
    Ok(match said {
        Ok(None) if earlier.is_none_or(|earlier| earlier.window.is_none()) => RenewalInfo::not_offered(version, now),
        Ok(None) => RenewalInfo::failed(earlier, version, (withdrawn(), None), now, hub.jitter()),
        Ok(Some(said)) => {
            let draws = Draws { instant: hub.jitter(), spread: hub.jitter() };
            RenewalInfo::answered(earlier, current, (&record.id, said), now, draws)
        }
        Err(error) => {
            warn!(certificate_id = record.id, error = %chain(&error), "the CA does not say when to renew");
            let retry_after = match error.retry() {
                Retry::After(wait) => Some(wait),
                Retry::Daily(wait) => wait,
                Retry::Now | Retry::Never => None,
            };
            RenewalInfo::failed(earlier, version, (error.problem(), retry_after), now, hub.jitter())
        }
    })
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
