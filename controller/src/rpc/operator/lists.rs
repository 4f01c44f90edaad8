//! Lists, jobs and events for operators.

use std::cmp::Reverse;
use std::sync::Arc;

use jiff::Timestamp;
use proto::operator::v1 as wire;
use proto::text::one_line;

use super::{limits, selection, wishes};
use crate::lifecycle::certificate::{KeySlot, Status};
use crate::lifecycle::deployment::Deployment;
use crate::lifecycle::job::{Job, Kind, progress};
use crate::lifecycle::pause;
use crate::rpc::convert;
use crate::rpc::status::Refusal;
use crate::rpc::views::{self, Names};
use crate::store::certificate::Bundle;
use crate::store::event::EventsOf;
use crate::store::job::JOBS_PAGE_MAX;
use crate::tasks::hub::Hub;

/// Rows of a page when the client names no size, and the most it may ask for.
const PAGE_DEFAULT: usize = 200;
const PAGE_MAX: usize = 1_000;

/// A part of a list.
pub(super) struct Page<T> {
    pub(super) items: Vec<T>,
    pub(super) total: u64,
    pub(super) next: String,
}

/// Cuts a page out of a whole list. The token is the number of the first row; anything else is the first page.
pub(super) fn page<T>(all: Vec<T>, size: u32, token: &str) -> Page<T> {
    let size = usize::try_from(size).ok().filter(|size| *size > 0).unwrap_or(PAGE_DEFAULT).min(PAGE_MAX);
    let start: usize = token.parse().unwrap_or(0);
    let total = all.len();
    let end = start.saturating_add(size);
    let next = if end < total { end.to_string() } else { String::new() };
    Page {
        items: all.into_iter().skip(start).take(size).collect(),
        total: u64::try_from(total).unwrap_or(u64::MAX),
        next,
    }
}

/// Lists certificates.
pub(crate) async fn certificates(
    hub: &Hub,
    request: wire::ListCertificatesRequest,
) -> Result<wire::ListCertificatesResponse, Refusal> {
    let revision = *hub.store.revision().borrow();
    let filter = selection::filter(&request.filter)?;
    let names = Arc::new(Names::read(hub).await?);
    let (sort, now, known) = (request.sort.clone(), hub.now(), names.clone());
    // Only what decides the order is held of each; the page is read again.
    let keep = move |keys: &mut Vec<SortKey>, bundle: Bundle| {
        if views::found(&known, &bundle, &filter, now) {
            keys.push(sort_key(&bundle, &sort, now));
        }
    };
    let mut keys = hub.store.fold_bundles(Vec::new(), keep).await?;
    keys.sort_unstable();
    let page = page(keys, request.page_size, &request.page_token);
    let mut items = Vec::with_capacity(page.items.len());
    for (.., id) in page.items {
        // One that was deleted in between is not shown.
        items.extend(hub.store.bundle(&id).await?.map(|bundle| views::certificate(hub, &names, &bundle)));
    }
    Ok(wire::ListCertificatesResponse { items, total: page.total, next_page_token: page.next, revision })
}

/// What a list is sorted by, and the id: urgency, no end, end of validity, name.
type SortKey = (u8, bool, Option<Timestamp>, String, String);

fn sort_key(bundle: &Bundle, sort: &str, now: Timestamp) -> SortKey {
    let record = &bundle.certificate.value;
    let (id, name) = (record.id.clone(), record.name.clone());
    let expires = record.current.as_ref().map(|current| current.not_after);
    match sort {
        "urgency" => (urgency(bundle, now), false, expires, name, id),
        "expires" => (0, expires.is_none(), expires, name, id),
        _ => (0, false, None, name, id),
    }
}

/// Small is urgent: expired, failed, failing, undeployed, pending, then all that is well.
fn urgency(bundle: &Bundle, now: Timestamp) -> u8 {
    let failing = bundle.order.as_ref().is_some_and(|order| order.value.failures > 0);
    match (views::status(bundle, now), views::deployment(bundle)) {
        (Status::Revoked | Status::Expired, _) => 0,
        (Status::Failed, _) => 1,
        (Status::Active, _) if failing => 2,
        (Status::Active, Deployment::Failed | Deployment::Partial) => 3,
        (Status::Pending, _) | (Status::Active, Deployment::Pending) => 4,
        (Status::Active, Deployment::None | Deployment::Ok) => 5,
    }
}

/// Returns one certificate.
pub(crate) async fn certificate(hub: &Hub, name: &str) -> Result<wire::Certificate, Refusal> {
    let bundle = wishes::bundle(hub, name).await?;
    let limits = limits::of_next_order(hub, &bundle).await?;
    Ok(wire::Certificate { limits, ..views::certificate(hub, &Names::read(hub).await?, &bundle) })
}

/// Lists a certificate's versions, newest first.
pub(crate) async fn versions(hub: &Hub, name: &str) -> Result<wire::ListVersionsResponse, Refusal> {
    let bundle = wishes::bundle(hub, name).await?;
    let versions = hub.store.versions(&bundle.certificate.value.id).await?;
    let names = Names::read(hub).await?;
    let mut items = Vec::with_capacity(versions.len());
    for version in &versions {
        let slot = format!("{}/{}", version.certificate_id, version.facts.key_slot_id);
        let slot = hub.store.load::<KeySlot>(&slot).await?.map(|slot| slot.value);
        items.push(views::version(hub, &names, version, slot.as_ref(), &bundle));
    }
    Ok(wire::ListVersionsResponse { items })
}

/// Lists jobs, newest first, without sub-jobs; or those of one certificate; or the sub-jobs of an act on many.
pub(crate) async fn jobs(hub: &Hub, request: wire::ListJobsRequest) -> Result<wire::ListJobsResponse, Refusal> {
    let size =
        usize::try_from(request.page_size).ok().filter(|size| *size > 0).unwrap_or(PAGE_DEFAULT).min(JOBS_PAGE_MAX);
    let (jobs, next) = if !request.parent.is_empty() {
        let (jobs, next) = hub.store.sub_jobs(&request.parent, &request.page_token, size).await?;
        (jobs.into_iter().map(|job| job.value).collect(), next)
    } else if !request.certificate.is_empty() {
        (hub.store.jobs_of(&request.certificate, size).await?, String::new())
    } else {
        let jobs = hub.store.jobs(&request.page_token, size).await?;
        let next = jobs.last().filter(|_| jobs.len() >= size).map(|job| job.id.clone()).unwrap_or_default();
        (jobs, next)
    };
    let mut items = Vec::with_capacity(jobs.len());
    for job in &jobs {
        items.push(job_view(hub, job).await?);
    }
    Ok(wire::ListJobsResponse { items, next_page_token: next })
}

/// Returns one job.
pub(crate) async fn job(hub: &Hub, id: &str) -> Result<wire::Job, Refusal> {
    let job = hub.store.load::<Job>(id).await?.ok_or_else(|| Refusal::not_found("job", &one_line(id, 64)))?;
    job_view(hub, &job.value).await
}

/// A job with how far it is now.
pub(super) async fn job_view(hub: &Hub, job: &Job) -> Result<wire::Job, Refusal> {
    if let Some(batch) = &job.batch {
        let counts = hub.store.sub_job_counts(&job.id).await?;
        let progress = match &job.outcome {
            Some(_) => progress(job, None, None, &[]),
            None => batch.progress(&job.id, counts),
        };
        let view = views::job(job, &progress, None);
        return Ok(wire::Job { batch: Some(convert::batch(batch, counts)), ..view });
    }
    let bundle = if job.outcome.is_some() { None } else { hub.store.bundle(&job.certificate_id).await? };
    let targets = bundle.as_ref().map(Bundle::target_values).unwrap_or_default();
    let certificate = bundle.as_ref().map(|bundle| &bundle.certificate.value);
    let order = bundle.as_ref().and_then(|bundle| bundle.order.as_ref()).map(|order| &order.value);
    let progress = progress(job, certificate, order, &targets);
    let progress = match &bundle {
        Some(bundle) => bundle.rollout(hub.now()).over(progress, &job.certificate_name),
        None => progress,
    };
    let all = if job.outcome.is_some() { None } else { hub.store.pause_all().await? };
    // A revocation is not held by a pause.
    let held =
        certificate.filter(|_| job.kind != Kind::Revoke).and_then(|certificate| pause::held(certificate, all.as_ref()));
    Ok(views::job(job, &pause::over(progress, held, &job.certificate_name), order))
}

/// Lists events, newest first.
pub(crate) async fn events(hub: &Hub, request: wire::ListEventsRequest) -> Result<wire::ListEventsResponse, Refusal> {
    let of = match (request.certificate, request.agent) {
        (name, _) if !name.is_empty() => EventsOf::Certificate(name),
        (_, name) if !name.is_empty() => EventsOf::Agent(name),
        _ => EventsOf::All,
    };
    let size = usize::try_from(request.page_size).ok().filter(|size| *size > 0).unwrap_or(PAGE_DEFAULT);
    let mut events = hub.store.events(of, request.before_seq, size).await?;
    events.sort_by_key(|event| Reverse(event.seq));
    Ok(wire::ListEventsResponse { items: events.into_iter().map(convert::event).collect() })
}
