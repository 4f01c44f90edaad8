//! Whether a CA could see the challenges of a certificate (features.md A17): its agents serve tokens of ours for half a minute, and
//! the controller looks at them as a CA would, redirects and all. Nothing is stored.

use std::time::Duration;

use futures_util::future::join_all;
use proto::agent::v1 as agent_wire;
use proto::agent::v1::answer_request::Kind as Answer;
use proto::agent::v1::question::Kind;
use proto::operator::v1 as wire;
use tokio::time::Instant;

use super::wishes;
use crate::lifecycle::agent::Agent;
use crate::lifecycle::issuer::Issuer;
use crate::lifecycle::problem::Problem;
use crate::rpc::convert;
use crate::rpc::serve::Server;
use crate::rpc::status::Refusal;
use crate::tasks::hub::Hub;
use crate::tasks::questions::{another, ask};
use crate::tasks::rehearsal::{Hop, Seen, Sight, Trial, Way, look};

/// What an agent must have for it.
const FEATURE: &str = "rehearse-challenges";
/// How long agents are asked; they serve 10 s less than that.
const ASK_MAX: Duration = Duration::from_secs(40);
/// When the looks end: tokens are still served then.
const LOOK_MAX: Duration = Duration::from_secs(28);

/// Has the challenges of a certificate served, and looks at them.
pub(crate) async fn check(
    server: &Server,
    request: wire::CheckChallengesRequest,
) -> Result<wire::CheckChallengesResponse, Refusal> {
    let (hub, begun) = (&server.hub, Instant::now());
    let bundle = wishes::changeable(hub, &request.certificate).await?;
    let specification = &bundle.certificate.value.specification;
    let issuer = hub.store.load::<Issuer>(&specification.issuer_id).await?;
    if let Some(issuer) = issuer.filter(|issuer| issuer.value.private.is_some()) {
        return Err(Refusal::field(
            "name",
            format!("{} is of the private CA {}, which validates no challenge", request.certificate, issuer.value.name),
            "there is nothing to check",
        ));
    }
    let trials: Vec<Trial> = specification.identifiers.iter().map(|identifier| Trial::of(identifier)).collect();
    let challenge = |trial: &Trial| {
        let Trial { identifier, token, key_authorization } = trial.clone();
        convert::desired_challenge(identifier, token, key_authorization, &specification.http01)
    };
    let question = agent_wire::RehearseChallenges { challenges: trials.iter().map(challenge).collect() };
    let ids = bundle.responder_ids();
    let asked = ids.iter().map(|id| responder(hub, id, &question, begun + ASK_MAX));
    let responders = join_all(asked).await.into_iter().collect::<Result<Vec<_>, Refusal>>()?;
    let served = responders.iter().any(|responder| responder.problem.is_none());
    let seen = look(&server.eyes, &trials, served, begun + LOOK_MAX).await;
    Ok(wire::CheckChallengesResponse { responders, names: seen.into_iter().map(name).collect() })
}

/// Has one agent serve the challenges.
async fn responder(
    hub: &Hub,
    id: &str,
    question: &agent_wire::RehearseChallenges,
    until: Instant,
) -> Result<wire::ChallengeResponder, Refusal> {
    let Some(agent) = hub.store.load::<Agent>(id).await?.map(|agent| agent.value) else {
        let hint = "name others: certwright certs set NAME --responder AGENT";
        let problem =
            Problem::new("AGENT_FORGOTTEN", "an agent that answers for this certificate is forgotten", "", hint);
        return Ok(wire::ChallengeResponder {
            agent: "(forgotten)".to_owned(),
            problem: Some(convert::problem(&problem)),
        });
    };
    let problem = match ask(hub, &agent, FEATURE, Kind::RehearseChallenges(question.clone()), until).await? {
        Ok(Answer::RehearseChallenges(told)) => unserved(&agent, told, question.challenges.len()),
        Ok(Answer::Refused(problem)) => Some(convert::problem_in(problem)),
        Ok(_) => Some(another(&agent.name)),
        Err(problem) => Some(problem),
    };
    let problem = problem.as_ref().map(convert::problem);
    Ok(wire::ChallengeResponder { agent: agent.name, problem })
}

/// Why an agent does not serve all of them.
fn unserved(agent: &Agent, told: agent_wire::ChallengesRehearsed, wanted: usize) -> Option<Problem> {
    let served = told.challenges.iter().filter(|challenge| challenge.serving).count();
    let told = told.challenges.into_iter().find_map(|challenge| challenge.problem);
    told.map(convert::problem_in).or_else(|| {
        let message = format!("agent {} serves {served} of {wanted} challenges", agent.name);
        (served < wanted).then(|| Problem::new("CHALLENGE_NOT_SERVED", message, "", "its log says why"))
    })
}

fn name(seen: Seen) -> wire::NameSeen {
    wire::NameSeen {
        identifier: seen.identifier,
        seen: sight(seen.sight).into(),
        problem: seen.problem.as_ref().map(convert::problem),
        trails: seen.ways.into_iter().map(trail).collect(),
    }
}

fn trail(way: Way) -> wire::ChallengeTrail {
    let hop = |hop: Hop| wire::ChallengeHop { url: hop.url, address: hop.address.to_string(), outcome: hop.outcome };
    wire::ChallengeTrail {
        address: way.address.to_string(),
        seen: sight(way.sight).into(),
        problem: way.problem.as_ref().map(convert::problem),
        hops: way.hops.into_iter().map(hop).collect(),
    }
}

fn sight(sight: Sight) -> wire::Seen {
    match sight {
        Sight::Clear => wire::Seen::Ok,
        Sight::Blocked => wire::Seen::Blocked,
        Sight::Unknown => wire::Seen::Unknown,
    }
}
