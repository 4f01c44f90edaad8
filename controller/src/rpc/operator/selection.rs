//! Which certificates an act on many is about: by names, by the words of a filter, all, or what a job did not do.

use std::collections::BTreeSet;

use proto::operator::v1 as wire;
use proto::text::one_line;
use tonic::Code;

use crate::lifecycle::batch::{Act, MEMBERS_MAX};
use crate::lifecycle::filter::Filter;
use crate::lifecycle::job::{Job, State};
use crate::lifecycle::order::Phase;
use crate::lifecycle::problem::Problem;
use crate::rpc::status::Refusal;
use crate::rpc::views::{self, Names};
use crate::store::certificate::Bundle;
use crate::store::tables::Table;
use crate::tasks::hub::Hub;

/// Most names of one request.
const NAMES_MAX: usize = 2_000;
/// Longest selection kept for people, characters.
const WORDS_MAX: usize = 120;

/// What was picked.
pub(super) struct Picked {
    pub(super) act: Act,
    /// How, for people.
    pub(super) words: String,
    /// By name.
    pub(super) bundles: Vec<Bundle>,
}

/// Reads a filter.
pub(super) fn filter(text: &str) -> Result<Filter, Refusal> {
    Filter::parse(text).map_err(|error| {
        let message = format!("{} (character {} of `{}`)", error.message, error.column, one_line(text, WORDS_MAX));
        Refusal::field("filter", one_line(&message, 2 * WORDS_MAX), error.hint)
    })
}

/// Returns the certificates that a request is about.
pub(super) async fn pick(hub: &Hub, request: &wire::ActOnCertificatesRequest) -> Result<Picked, Refusal> {
    let ways = [!request.names.is_empty(), !request.filter.is_empty(), request.all, !request.failed_of.is_empty()];
    if ways.iter().filter(|way| **way).count() != 1 {
        let hint = "a name, --filter, --issuer, --key-type, or --all";
        return Err(Refusal::field("filter", "it must be said which certificates, in one way", hint));
    }
    if !request.failed_of.is_empty() {
        return failed(hub, &request.failed_of).await;
    }
    let Some(act) = Act::parse(&request.act) else {
        let message = format!("\"{}\" is no act", one_line(&request.act, 40));
        return Err(Refusal::field("act", message, "renew, rekey or revoke"));
    };
    let (words, mut bundles) = if request.names.is_empty() {
        let words = if request.all { "all".to_owned() } else { one_line(&request.filter, WORDS_MAX) };
        (words, filtered(hub, filter(&request.filter)?).await?)
    } else {
        let bundles = named(hub, &request.names).await?;
        let words = if let [one] = bundles.as_slice() {
            one.certificate.value.name.clone()
        } else {
            format!("{} by name", bundles.len())
        };
        (words, bundles)
    };
    bundles.sort_by(|one, other| one.certificate.value.name.cmp(&other.certificate.value.name));
    Ok(Picked { act, words, bundles })
}

async fn filtered(hub: &Hub, filter: Filter) -> Result<Vec<Bundle>, Refusal> {
    let (names, now) = (Names::read(hub).await?, hub.now());
    // No more are held than may be acted on.
    let see = move |(count, found): &mut (usize, Vec<Bundle>), bundle: Bundle| {
        if views::found(&names, &bundle, &filter, now) {
            *count += 1;
            if *count <= MEMBERS_MAX {
                found.push(bundle);
            }
        }
    };
    let (count, found) = hub.store.fold_bundles((0, Vec::new()), see).await?;
    if count <= MEMBERS_MAX {
        return Ok(found);
    }
    let message = format!("{count} certificates are more than the {MEMBERS_MAX} of one act");
    Err(Refusal::field("filter", message, "pick a part: --filter 'issuer:NAME expires<30d'"))
}

async fn named(hub: &Hub, names: &[String]) -> Result<Vec<Bundle>, Refusal> {
    let names: BTreeSet<String> = names.iter().cloned().collect();
    if names.len() > NAMES_MAX {
        return Err(Refusal::field("name", format!("more than {NAMES_MAX} names"), "a filter picks more"));
    }
    let read = hub.store.read(move |snapshot| {
        let mut found = Vec::with_capacity(names.len());
        for name in names {
            let id = crate::store::certificate::id_by_name(snapshot, Table::CertificateName, &name)?;
            let bundle = match id {
                Some(id) => crate::store::certificate::bundle(snapshot, &id)?,
                None => None,
            };
            found.push((name, bundle));
        }
        Ok(found)
    });
    let missing = |name: &str| Refusal::not_found("certificate", &one_line(name, 80));
    read.await?.into_iter().map(|(name, bundle)| bundle.ok_or_else(|| missing(&name))).collect()
}

/// What a job did not do: sub-jobs that failed or were taken back, and those whose order waits after a failure.
async fn failed(hub: &Hub, id: &str) -> Result<Picked, Refusal> {
    let job = hub.store.load::<Job>(id).await?.ok_or_else(|| Refusal::not_found("job", &one_line(id, 80)))?.value;
    let act = match &job.batch {
        Some(batch) => Some(batch.act),
        None => Act::of(job.kind),
    };
    let Some(act) = act else {
        let hint = format!("certwright targets deploy {}", job.certificate_name);
        let message = format!("job {} is a deployment; agents repeat it by themselves", job.id);
        return Err(Refusal::new(Code::FailedPrecondition, Problem::new("NOTHING_TO_RETRY", message, "", hint)));
    };
    let candidates: Vec<Job> = if job.batch.is_some() {
        let states = [State::Failed, State::Cancelled, State::Running];
        hub.store.sub_jobs_in(&job.id, &states).await?.into_iter().map(|job| job.value).collect()
    } else {
        vec![job.clone()]
    };
    let mut bundles = Vec::new();
    for candidate in candidates {
        let Some(bundle) = hub.store.bundle(&candidate.certificate_id).await? else { continue };
        let order = bundle.order.as_ref().map(|order| &order.value);
        let waits = order.is_some_and(|order| {
            order.failures > 0 && matches!(order.phase, Phase::Waiting | Phase::Failed) && !order.waits_for_limit()
        });
        let again = match candidate.outcome.as_ref().map(|outcome| outcome.state) {
            None => waits && candidate.revocation.is_none(),
            Some(State::Failed | State::Cancelled) => true,
            Some(State::Running | State::Waiting | State::Succeeded | State::Partial) => false,
        };
        if again {
            bundles.push(bundle);
        }
    }
    Ok(Picked { act, words: format!("not done by {}", job.id), bundles })
}
