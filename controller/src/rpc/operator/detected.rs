//! What agents found on their servers: the last picture of each is kept, and what follows from it is computed when it is asked
//! for. An agent's word is capped and sanitised before it is kept.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use prost::Message as _;
use proto::agent::v1::DetectServer;
use proto::agent::v1::answer_request::Kind as Answer;
use proto::agent::v1::question::Kind;
use proto::clock::to_wire;
use proto::operator::v1 as wire;
use proto::text::one_line;
use proto::types::v1::Picture;
use tokio::time::Instant;
use tonic::Code;

use crate::lifecycle::agent::Agent;
use crate::lifecycle::detected::Detected;
use crate::lifecycle::suggestion::{self, Held, Suggestion};
use crate::rpc::convert;
use crate::rpc::status::Refusal;
use crate::store::certificate::Bundle;
use crate::store::records::Changes;
use crate::tasks::hub::Hub;
use crate::tasks::questions::{self, WAIT_MAX};

/// What an agent must have to be asked.
const FEATURE: &str = "detect";
/// Most entries of each list, and characters of each text, that are kept of a picture.
const ENTRIES_MAX: usize = 400;
const NAMES_MAX: usize = 100;
const TEXT_CHARS_MAX: usize = 1024;

/// Returns what an agent found when it looked last.
pub(crate) async fn get(hub: &Hub, name: &str) -> Result<wire::Detected, Refusal> {
    let agent = named(hub, name).await?;
    let found = hub.store.load::<Detected>(&agent.id).await?;
    view(hub, &agent, found.map(|found| found.value)).await
}

/// Lets an agent look now.
pub(crate) async fn ask(hub: &Hub, name: &str) -> Result<wire::Detected, Refusal> {
    let agent = named(hub, name).await?;
    let kind = Kind::Detect(DetectServer {});
    let asked = questions::ask(hub, &agent, FEATURE, kind, Instant::now() + WAIT_MAX).await?;
    let picture = match asked.map_err(|problem| Refusal::new(Code::Unavailable, problem))? {
        Answer::Detect(picture) => clean(picture),
        Answer::Refused(problem) => {
            return Err(Refusal::new(Code::FailedPrecondition, convert::problem_in(problem)));
        }
        _ => return Err(Refusal::new(Code::Internal, questions::another(name))),
    };
    let found = Detected {
        agent_id: agent.id.clone(),
        at: hub.now(),
        agent_version: agent.hello.version.clone(),
        picture: STANDARD.encode(picture.encode_to_vec()),
    };
    hub.store.commit(Changes::new().upsert(&found)).await?;
    view(hub, &agent, Some(found)).await
}

async fn named(hub: &Hub, name: &str) -> Result<Agent, Refusal> {
    let agent = hub.store.agent_by_name(name).await?;
    agent.map(|agent| agent.value).ok_or_else(|| Refusal::not_found("agent", &one_line(name, 80)))
}

async fn view(hub: &Hub, agent: &Agent, found: Option<Detected>) -> Result<wire::Detected, Refusal> {
    let Some(found) = found else {
        return Ok(wire::Detected { agent: agent.name.clone(), ..Default::default() });
    };
    let bytes = STANDARD.decode(&found.picture).unwrap_or_default();
    // What cannot be read any more is found again.
    let picture = Picture::decode(bytes.as_slice()).unwrap_or_default();
    let drafts = suggestion::drafts(&picture, &agent.id);
    let held = held(hub, agent, &drafts).await?;
    let suggestions = suggestion::settle(drafts, &held, &agent.hello.policy);
    Ok(wire::Detected {
        agent: agent.name.clone(),
        seen_at: to_wire(Some(found.at)),
        agent_version: found.agent_version,
        picture: Some(picture),
        suggestions: suggestions.into_iter().map(|one| told(one, &agent.name)).collect(),
    })
}

/// What this agent has to do with, and what has a name that would be taken.
async fn held(hub: &Hub, agent: &Agent, drafts: &[Suggestion]) -> Result<Vec<Held>, Refusal> {
    let mut bundles = hub.store.bundles_of_agent(&agent.id).await?;
    for draft in drafts {
        if bundles.iter().any(|bundle| bundle.certificate.value.name == draft.certificate) {
            continue;
        }
        bundles.extend(hub.store.bundle_by_name(&draft.certificate).await?);
    }
    Ok(bundles.iter().map(|bundle| held_of(bundle, &agent.id)).collect())
}

fn held_of(bundle: &Bundle, agent_id: &str) -> Held {
    let record = &bundle.certificate.value;
    let own = bundle.targets.iter().map(|(target, _)| &target.value).filter(|target| target.agent_id == agent_id);
    let place = own.map(|target| (target.dir.clone(), target.files.iter().map(|file| file.name.clone()).collect()));
    Held {
        name: record.name.clone(),
        identifiers: record.specification.identifiers.clone(),
        custody: record.specification.custody,
        places: place.collect(),
        has_target: !bundle.targets.is_empty(),
    }
}

fn told(one: Suggestion, agent: &str) -> wire::Suggestion {
    wire::Suggestion {
        name: one.name,
        kind: one.does.word().to_owned(),
        certificate: one.certificate,
        identifiers: one.identifiers,
        preset: one.preset,
        target: Some(convert::target_spec(&one.target, agent)),
        http01: Some(convert::http01(&one.http01)),
        adopts: one.adopts,
        configure: one.configure,
        source: one.source,
        policy: one.policy,
        warnings: one.warnings,
        first: one.first,
    }
}

/// An agent may say anything.
fn clean(mut picture: Picture) -> Picture {
    let text = |text: &mut String| *text = one_line(text, TEXT_CHARS_MAX);
    let texts = |list: &mut Vec<String>| {
        list.truncate(NAMES_MAX);
        list.iter_mut().for_each(text);
    };
    text(&mut picture.os);
    texts(&mut picture.notes);
    picture.services.truncate(ENTRIES_MAX);
    picture.sites.truncate(ENTRIES_MAX);
    picture.certificates.truncate(ENTRIES_MAX);
    picture.renewers.truncate(ENTRIES_MAX);
    for one in &mut picture.services {
        [&mut one.preset, &mut one.unit].into_iter().for_each(text);
    }
    for one in &mut picture.sites {
        [&mut one.names, &mut one.listens].into_iter().for_each(texts);
        [&mut one.service, &mut one.certificate, &mut one.key].into_iter().for_each(text);
        [&mut one.root, &mut one.challenges, &mut one.source].into_iter().for_each(text);
    }
    for one in &mut picture.certificates {
        texts(&mut one.identifiers);
        [&mut one.path, &mut one.leads_to, &mut one.key_path, &mut one.key_leads_to].into_iter().for_each(text);
        text(&mut one.issuer_cn);
        [&mut one.fingerprint_sha256, &mut one.owner, &mut one.key_owner, &mut one.problem].into_iter().for_each(text);
    }
    for one in &mut picture.renewers {
        [&mut one.program, &mut one.name, &mut one.certificate].into_iter().for_each(text);
        [&mut one.key, &mut one.webroot].into_iter().for_each(text);
    }
    picture
}

#[cfg(test)]
mod tests {
    use proto::types::v1::FoundSite;

    use super::*;

    #[test]
    fn a_picture_is_capped_and_sanitised_before_it_is_kept() {
        let site =
            FoundSite { source: "\u{1b}[2J".repeat(9_000), names: vec!["x".into(); 9_000], ..Default::default() };
        let picture = clean(Picture { sites: vec![site; 500], notes: vec!["\u{202e}".into()], ..Default::default() });
        assert_eq!((picture.sites.len(), picture.sites[0].names.len()), (ENTRIES_MAX, NAMES_MAX));
        assert!(picture.sites[0].source.chars().count() < 8_000 && !picture.sites[0].source.contains('\u{1b}'));
        assert_eq!(picture.notes, ["<U+202E>"]);
    }
}
