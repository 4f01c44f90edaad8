//! Tests of targets, and with them questions to agents: what is away, lost, too old or another's never stops the rest, nothing is
//! changed, and who asked is in the audit.

use std::sync::Arc;
use std::time::Duration;

use e2e::fake_host::Script;
use e2e::raw_agent::RawAgent;
use e2e::world::World;
use e2e::world::program::LISTEN;
use proto::agent::v1 as wire;
use proto::agent::v1::agent_service_client::AgentServiceClient;
use proto::clock::Clock;
use proto::operator::v1 as api;
use proto::types::v1::{self as types, Custody, TestResult};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use tonic::{Status, Streaming};

use crate::{SOON, wish};

const VALIDATE: [&str; 2] = ["/usr/sbin/nginx", "-t"];

/// A certificate that is live on two agents; each has a test of its configuration, which passes.
async fn live_on_two() -> World {
    let mut world = World::new(2).await;
    for agent in &world.agents {
        let path = agent.machine.path("etc/certwright/policy.toml");
        let policy = std::fs::read_to_string(&path).unwrap() + &format!("\n[[command]]\nargv = {VALIDATE:?}\n");
        std::fs::write(path, policy).unwrap();
        agent.machine.script(&VALIDATE, Script::Exit(0, "syntax is ok"));
    }
    let allowed = async |world: &World| {
        let agents = world.operator.agents().await;
        agents.iter().all(|agent| agent.policy.as_ref().is_some_and(|policy| policy.commands.len() == 2))
    };
    world.settle("the policies are told", SOON, allowed).await;
    let mut wish = wish(&world, "web", Custody::Controller, 0);
    wish.target = Some(spec(&world, 0, &wish.identifiers[0]));
    world.operator.create(&wish).await.unwrap();
    world.settle_live("web", SOON).await;
    let target = Some(spec(&world, 1, &wish.identifiers[0]));
    let request = api::AddTargetRequest { certificate: "web".into(), target, ..Default::default() };
    world.operator.client().add_target(request).await.unwrap();
    world.settle_live("web", SOON).await;
    world
}

fn spec(world: &World, agent: usize, name: &str) -> api::TargetSpec {
    let validate = vec![types::Command { argv: VALIDATE.map(str::to_owned).to_vec() }];
    api::TargetSpec { validate, ..world.agents[agent].target("web", name) }
}

async fn test(world: &World, target: Option<api::TargetSpec>) -> Result<Vec<api::TargetTest>, Status> {
    let request = api::TestTargetsRequest { certificate: "web".into(), target, ..Default::default() };
    world.operator.client().test_targets(request).await.map(|answer| answer.into_inner().items)
}

fn failed(test: &api::TargetTest) -> Vec<&str> {
    let bad = test.steps.iter().filter(|step| step.result() != TestResult::Ok);
    bad.map(|step| step.name.as_str()).collect()
}

fn reason(test: &api::TargetTest) -> &str {
    test.problem.as_ref().map_or("", |problem| problem.reason.as_str())
}

#[tokio::test(start_paused = true)]
async fn targets_are_tested_on_all_agents_that_are_there_and_nothing_changes() {
    let mut world = live_on_two().await;
    let before = (world.operator.certificate("web").await, world.operator.events().await.len());
    let reloads = |world: &World| world.agents[0].machine.ran().iter().filter(|argv| argv.len() == 3).count();
    let reloads_before = reloads(&world);
    let tests = test(&world, None).await.unwrap();
    let names: Vec<&str> = tests.iter().map(|test| test.agent.as_str()).collect();
    assert_eq!(names.len(), 2, "{names:?}");
    for test in &tests {
        assert_eq!(failed(test), Vec::<&str>::new(), "{test:#?}");
        let steps: Vec<&str> = test.steps.iter().map(|step| step.name.as_str()).collect();
        for step in ["policy", "key", "directory", "file", "validate", "reload", "verify", "http01"] {
            assert!(steps.contains(&step), "{step}: {steps:?}");
        }
    }
    assert_eq!(reloads(&world), reloads_before);
    assert_eq!((world.operator.certificate("web").await, world.operator.events().await.len()), before);

    world.agents[1].machine.script(&VALIDATE, Script::Exit(1, "nginx: [emerg] unknown directive"));
    world.agents[0].kill().await;
    let gone = async |world: &World| world.operator.agents().await.iter().any(|agent| agent.status == "offline");
    world.settle("h1 is away", SOON, gone).await;
    let mut tests = test(&world, None).await.unwrap();
    tests.sort_by(|one, other| one.agent.cmp(&other.agent));
    assert_eq!((reason(&tests[0]), tests[0].steps.len()), ("AGENT_AWAY", 0));
    assert!(tests[0].problem.as_ref().unwrap().message.contains("h1 is away since 20"), "{:?}", tests[0].problem);
    assert_eq!(failed(&tests[1]), ["validate"]);
    let step = tests[1].steps.iter().find(|step| step.name == "validate").unwrap();
    assert!(step.problem.as_ref().unwrap().cause.contains("unknown directive"));

    // Settings that are not saved are tested like those that are.
    let other = api::TargetSpec { dir: format!("{}-other", spec(&world, 1, "web").dir), ..spec(&world, 1, "web") };
    let tests = test(&world, Some(other.clone())).await.unwrap();
    assert_eq!((tests.len(), tests[0].dir.as_str(), tests[0].target_id.as_str()), (1, other.dir.as_str(), ""));
    assert!(!std::path::Path::new(&other.dir).exists());
    let outside = api::TargetSpec { dir: "/etc/cron.d".into(), ..other };
    assert_eq!(crate::reason(&test(&world, Some(outside)).await.unwrap_err()), "INVALID_REQUEST");

    let mut auditor = world.operator.client();
    // So is a certificate that does not exist yet, and it does not come to exist.
    let mut draft = wish(&world, "draft", Custody::Agent, 1).request();
    let create = api::TestTargetsRequest { create: Some(draft.clone()), ..Default::default() };
    let tests = world.operator.client().test_targets(create).await.unwrap().into_inner().items;
    let step = |name: &str| tests[0].steps.iter().find(|step| step.name == name).unwrap().result();
    assert_eq!(
        (step("policy"), step("version"), step("http01")),
        (TestResult::Ok, TestResult::Skipped, TestResult::Ok)
    );
    assert!(world.operator.certificate("draft").await.is_none());
    draft.target = None;
    draft.custody = Custody::Controller.into();
    let create = api::TestTargetsRequest { create: Some(draft), ..Default::default() };
    assert_eq!(crate::reason(&world.operator.client().test_targets(create).await.unwrap_err()), "INVALID_REQUEST");
    let lines = auditor.list_audit(api::ListAuditRequest { page_size: 500, ..Default::default() });
    let audit = format!("{:?}", lines.await.unwrap().into_inner().lines);
    assert!(audit.contains("TestTargets"), "{audit}");
    world.agents[0].start();
    world.check().await;
}

#[tokio::test(start_paused = true)]
async fn an_agent_that_is_lost_in_the_middle_ends_the_question_at_once() {
    let mut world = live_on_two().await;
    world.agents[0].machine.script(&VALIDATE, Script::Hang);
    let asker = world.operator.client();
    let id = world.operator.certificate("web").await.unwrap().targets;
    let id = id.iter().find(|target| target.spec.as_ref().unwrap().agent == "h1").unwrap().id.clone();
    let asked = tokio::time::Instant::now();
    let request = api::TestTargetsRequest { certificate: "web".into(), target_id: id, ..Default::default() };
    let mut asking = Box::pin(async move { asker.clone().test_targets(request).await });
    tokio::time::timeout(Duration::from_secs(3), &mut asking).await.expect_err("it hangs");
    world.agents[0].kill().await;
    let tests = asking.await.unwrap().into_inner().items;
    assert_eq!(reason(&tests[0]), "AGENT_LOST");
    assert!(asked.elapsed() < Duration::from_secs(15), "{:?}", asked.elapsed());
    world.agents[0].machine.script(&VALIDATE, Script::Exit(0, ""));
    world.agents[0].start();
    let well = async |world: &World| {
        test(world, None)
            .await
            .is_ok_and(|tests| tests.iter().all(|test| failed(test).is_empty() && reason(test).is_empty()))
    };
    world.settle("it is asked again", SOON, well).await;
    world.check().await;
}

/// Attaches an agent of bare protocol with these features.
async fn attach(
    client: &mut AgentServiceClient<Channel>,
    features: &[&str],
) -> (mpsc::Sender<wire::AttachRequest>, Streaming<wire::AttachResponse>) {
    let (sender, receiver) = mpsc::channel(4);
    let policy = types::Policy {
        dirs: vec![types::PolicyDir { path: "/srv".to_owned(), key_mode_max: 0o640, ..Default::default() }],
        http01_ports: vec![80],
        custody: vec![Custody::Agent.into(), Custody::Controller.into()],
        ..Default::default()
    };
    let hello = wire::Hello {
        agent_version: "0.0.1".to_owned(),
        features: features.iter().map(|feature| (*feature).to_owned()).collect(),
        policy: Some(policy),
        ..Default::default()
    };
    let message = wire::AttachRequest { message: Some(wire::attach_request::Message::Hello(hello)) };
    sender.send(message).await.unwrap();
    let stream = client.attach(ReceiverStream::new(receiver)).await.unwrap().into_inner();
    (sender, stream)
}

async fn raw(world: &World, name: &str) -> AgentServiceClient<Channel> {
    let clock: Arc<dyn Clock> = world.clock.clone();
    let request = api::EnrollAgentRequest { name: name.to_owned(), replace: false };
    let token = world.operator.client().enroll_agent(request).await.unwrap().into_inner().token;
    RawAgent::enroll(&world.net, LISTEN, &clock, &token).await.unwrap().client(&world.net, LISTEN, &clock)
}

fn answer(id: &str, name: &str) -> wire::AnswerRequest {
    let step = types::TestStep { name: name.to_owned(), result: TestResult::Ok.into(), ..Default::default() };
    let kind = wire::answer_request::Kind::TestTarget(wire::TargetTested { steps: vec![step] });
    wire::AnswerRequest { question_id: id.to_owned(), kind: Some(kind) }
}

#[tokio::test(start_paused = true)]
async fn only_the_agent_that_was_asked_answers_and_an_old_one_is_not_asked() {
    let world = World::new(1).await;
    let (mut asked, mut thief, mut old) =
        (raw(&world, "asked").await, raw(&world, "thief").await, raw(&world, "old").await);
    let (_asked_line, mut questions) = attach(&mut asked, &["test-target"]).await;
    let (_thief_line, _thief_stream) = attach(&mut thief, &["test-target"]).await;
    let (_old_line, _old_stream) = attach(&mut old, &["http01-webroot"]).await;
    let mut wish = wish(&world, "web", Custody::Controller, 0);
    wish.responders = vec!["h1".to_owned()];
    let on =
        |agent: &str| api::TargetSpec { agent: agent.to_owned(), dir: "/srv/web".to_owned(), ..Default::default() };
    wish.target = Some(on("asked"));
    world.operator.create(&wish).await.unwrap();
    let tests = test(&world, Some(on("old"))).await.unwrap();
    assert_eq!(reason(&tests[0]), "AGENT_TOO_OLD");
    assert!(tests[0].problem.as_ref().unwrap().hint.contains("upgrade agent old"), "{:?}", tests[0].problem);

    let operator = world.operator.client();
    let request = api::TestTargetsRequest { certificate: "web".into(), ..Default::default() };
    let asking = async move { operator.clone().test_targets(request).await.unwrap().into_inner().items };
    let answering = async {
        let question = loop {
            if let Some(question) = questions.message().await.unwrap().unwrap().question {
                break question;
            }
        };
        let Some(wire::question::Kind::TestTarget(target)) = &question.kind else { panic!("{question:?}") };
        assert_eq!(target.target.as_ref().unwrap().dir, "/srv/web");
        assert!(target.http01.is_none(), "h1 answers for it");
        thief.answer(answer(&question.id, "a lie")).await.unwrap();
        asked.answer(answer("never asked", "a lie")).await.unwrap();
        let long = "x\u{1b}[2J".repeat(100);
        asked.answer(answer(&question.id, &long)).await.unwrap();
        asked.answer(answer(&question.id, "too late")).await.unwrap();
    };
    let (tests, ()) = tokio::join!(asking, answering);
    let name = &tests[0].steps[0].name;
    assert!(name.starts_with("x<U+001B>") && name.chars().count() < 400, "{name}");
}

#[tokio::test(start_paused = true)]
async fn an_agent_that_never_answers_is_told_of_after_a_minute_and_holds_up_nobody() {
    let world = World::new(1).await;
    let mut silent = raw(&world, "silent").await;
    let (_line, _stream) = attach(&mut silent, &["test-target"]).await;
    let mut wish = wish(&world, "web", Custody::Controller, 0);
    wish.responders = vec!["h1".to_owned()];
    wish.target = Some(api::TargetSpec { agent: "silent".into(), dir: "/srv/web".into(), ..Default::default() });
    world.operator.create(&wish).await.unwrap();
    // The operator's own patience of 20 s ends first: who is gone leaves no question behind.
    for _ in 0..20 {
        assert!(test(&world, None).await.is_err());
    }
}
