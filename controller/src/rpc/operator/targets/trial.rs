//! A test of targets: their agents do everything that a deployment would do and change nothing (features.md D12). Answers with what
//! each of them found, also when some are away. Nothing of it is stored.

use std::collections::BTreeMap;

use futures_util::future::join_all;
use futures_util::stream::{StreamExt as _, iter};
use proto::agent::v1 as agent_wire;
use proto::agent::v1::answer_request::Kind as Answer;
use proto::agent::v1::question::Kind;
use proto::clock::to_wire;
use proto::operator::v1 as wire;
use tokio::time::Instant;

use super::{Context, parse, set};
use crate::lifecycle::agent::{Agent, Standing};
use crate::lifecycle::certificate::Certificate;
use crate::lifecycle::desired::{DesiredTarget, answers};
use crate::lifecycle::issuer::Issuer;
use crate::lifecycle::problem::Problem;
use crate::lifecycle::target::Target;
use crate::rpc::convert;
use crate::rpc::operator::{create, wishes};
use crate::rpc::status::Refusal;
use crate::store::certificate::Bundle;
use crate::tasks::hub::Hub;
use crate::tasks::questions::{WAIT_MAX, another, ask};

/// What an agent must have for it.
const FEATURE: &str = "test-target";
/// Targets that one agent tests at the same time for one call: it answers others besides.
const OF_ONE_AGENT: usize = 4;

/// Has the agents of the targets test them.
pub(crate) async fn test(hub: &Hub, request: wire::TestTargetsRequest) -> Result<wire::TestTargetsResponse, Refusal> {
    let until = Instant::now() + WAIT_MAX;
    let (certificate, targets) = what(hub, &request).await?;
    let certificate = &certificate;
    if targets.is_empty() {
        let hint = format!("add one: certwright targets add {} --agent AGENT --dir DIR", certificate.name);
        return Err(Refusal::field("name", format!("{} has no target to test", certificate.name), hint));
    }
    // A private CA validates nothing.
    let issuer = hub.store.load::<Issuer>(&certificate.specification.issuer_id).await?;
    let is_validated = issuer.is_none_or(|issuer| issuer.value.private.is_none());
    let mut by_agent: BTreeMap<&str, Vec<(usize, &Target)>> = BTreeMap::new();
    for (place, target) in targets.iter().enumerate() {
        by_agent.entry(&target.agent_id).or_default().push((place, target));
    }
    let agents = by_agent.into_iter().map(|(agent_id, targets)| async move {
        let agent = hub.store.load::<Agent>(agent_id).await?.map(|agent| agent.value);
        let one = async |(place, target): (usize, &Target)| {
            Ok::<_, Refusal>((place, one(hub, agent.as_ref(), certificate, target, is_validated, until).await?))
        };
        let tested: Vec<_> = iter(targets).map(one).buffer_unordered(OF_ONE_AGENT).collect().await;
        tested.into_iter().collect::<Result<Vec<_>, Refusal>>()
    });
    let mut items: Vec<(usize, wire::TargetTest)> = Vec::new();
    for tested in join_all(agents).await {
        items.extend(tested?);
    }
    items.sort_by_key(|(place, _)| *place);
    let is_saved = request.create.is_none() && (request.target.is_none() || !request.target_id.is_empty());
    let item = |(_, item): (usize, wire::TargetTest)| match is_saved {
        true => item,
        false => wire::TargetTest { target_id: String::new(), ..item },
    };
    Ok(wire::TestTargetsResponse { items: items.into_iter().map(item).collect() })
}

/// The certificate that is meant, as it is or would be created, and the targets to test.
async fn what(hub: &Hub, request: &wire::TestTargetsRequest) -> Result<(Certificate, Vec<Target>), Refusal> {
    if let Some(create) = &request.create {
        let (certificate, target) = create::parse(hub, create).await?;
        return Ok((certificate, target.into_iter().collect()));
    }
    let bundle = wishes::changeable(hub, &request.certificate).await?;
    let targets = wanted(hub, &bundle, request).await?;
    Ok((bundle.certificate.value, targets))
}

/// The targets that are meant, with the settings that are to be tested.
async fn wanted(hub: &Hub, bundle: &Bundle, request: &wire::TestTargetsRequest) -> Result<Vec<Target>, Refusal> {
    let record = &bundle.certificate.value;
    let saved = bundle.targets.iter().map(|(target, _)| &target.value);
    let named: Vec<&Target> =
        saved.filter(|target| request.target_id.is_empty() || target.id == request.target_id).collect();
    if !request.target_id.is_empty() && named.is_empty() {
        return Err(Refusal::not_found("target", &proto::text::one_line(&request.target_id, set::ID_CHARS_MAX)));
    }
    let Some(spec) = &request.target else { return Ok(named.into_iter().cloned().collect()) };
    if let Some(old) = named.first().filter(|_| !request.target_id.is_empty()) {
        return Ok(vec![set::wanted(hub, bundle, old, spec.clone()).await?]);
    }
    let mut errors = Vec::new();
    let context = Context {
        certificate_id: &record.id,
        identifiers: &record.specification.identifiers,
        custody: record.specification.custody,
    };
    let target = parse(hub, spec, &context, &mut errors).await?;
    target.map(|target| vec![target]).ok_or_else(|| Refusal::fields(errors))
}

async fn one(
    hub: &Hub,
    agent: Option<&Agent>,
    certificate: &Certificate,
    target: &Target,
    is_validated: bool,
    until: Instant,
) -> Result<wire::TargetTest, Refusal> {
    let mut test = wire::TargetTest {
        target_id: target.id.clone(),
        agent: agent.map_or_else(|| "(forgotten)".to_owned(), |agent| agent.name.clone()),
        dir: target.dir.clone(),
        ..Default::default()
    };
    let Some(agent) = agent.filter(|agent| agent.standing == Standing::Enrolled) else {
        let hint = format!("certwright targets rm {} --agent {}", certificate.name, test.agent);
        let problem = Problem::new("AGENT_REVOKED", format!("agent {} is revoked", test.agent), "", hint);
        test.problem = Some(convert::problem(&problem));
        return Ok(test);
    };
    let answers = is_validated && answers(certificate, &agent.id, true);
    let question = agent_wire::TestTarget {
        target: Some(convert::desired_target(DesiredTarget::of(certificate, target))),
        http01: answers.then(|| convert::http01(&certificate.specification.http01)),
        not_before: to_wire(certificate.deployed().map(|version| version.not_before)),
    };
    match ask(hub, agent, FEATURE, Kind::TestTarget(question), until).await? {
        Ok(Answer::TestTarget(tested)) => test.steps = convert::test_steps_in(tested.steps),
        Ok(Answer::Refused(problem)) => test.problem = Some(convert::problem(&convert::problem_in(problem))),
        Ok(_) => test.problem = Some(convert::problem(&another(&agent.name))),
        Err(problem) => test.problem = Some(convert::problem(&problem)),
    }
    Ok(test)
}
