//! The life of an agent's identity (design §5): back after a long absence, with an operator's consent after a longer one, and
//! never once it is revoked or forgotten.

use std::time::Duration;

use e2e::world::World;
use proto::operator::v1 as api;
use proto::types::v1::Custody;
use tonic::{Code, Status};

use crate::{SOON, reason, served, wish};

const DAY: Duration = Duration::from_secs(86_400);
/// The agent tries again at least every minute.
const BACK: Duration = Duration::from_secs(600);

pub(crate) async fn agent(world: &World) -> api::Agent {
    world.operator.agents().await.into_iter().next().unwrap_or_default()
}

async fn is_connected(world: &World) -> bool {
    agent(world).await.status == "connected"
}

async fn consent(world: &World, name: &str) -> Result<api::Agent, Status> {
    let request = api::ConsentAgentRequest { name: name.to_owned() };
    world.operator.client().consent_agent(request).await.map(tonic::Response::into_inner)
}

async fn happened(world: &World, kind: &str) -> usize {
    world.operator.events().await.iter().filter(|event| event.kind == kind).count()
}

fn journal_of_the_agent(world: &World) -> Option<serde_json::Value> {
    let bytes = std::fs::read(world.agents[0].machine.path("var/lib/certwright-agent/trouble.json")).ok()?;
    serde_json::from_slice(&bytes).ok()
}

/// One agent, back after so many days in which nothing ran.
async fn after_absence(days: u32) -> World {
    let mut world = World::new(1).await;
    world.operator.create(&wish(&world, "web", Custody::Agent, 0)).await.unwrap();
    world.settle_live("web", SOON).await;
    world.agents[0].stop().await;
    world.controller.stop().await;
    tokio::time::sleep(DAY * days).await;
    world.controller.start();
    world.agents[0].start();
    world
}

/// It stands at the door and goes on knocking.
async fn waits_for_consent(world: &mut World) {
    let knocked = async |world: &World| happened(world, "agent.consent_wanted").await == 1;
    world.settle("the operator is told that it waits", BACK, knocked).await;
    let seen = agent(world).await;
    assert_eq!((seen.status.as_str(), seen.problems.len()), ("expired", 1));
    assert_eq!(seen.problems[0].reason, "NEEDS_CONSENT");
    assert!(seen.problems[0].hint.contains("certwright agents consent h1"), "{seen:?}");
    let overview = world.operator.client().get_overview(api::GetOverviewRequest {}).await.unwrap().into_inner();
    assert!(overview.attention.iter().any(|line| line.name == "h1" && line.what == "NEEDS CONSENT"), "{overview:#?}");
    let said = journal_of_the_agent(world).expect("status says why");
    assert_eq!(said["problem"]["reason"], "IDENTITY_NEEDS_CONSENT");
    assert!(said["problem"]["hint"].as_str().unwrap().contains("certwright agents consent h1"), "{said}");
}

#[tokio::test(start_paused = true)]
async fn an_agent_away_for_half_a_year_comes_back_by_itself_once_an_operator_consents() {
    let mut world = after_absence(150).await;
    waits_for_consent(&mut world).await;
    tokio::time::sleep(DAY).await;
    assert_eq!(happened(&world, "agent.consent_wanted").await, 1, "it is told once");
    let told = consent(&world, "h1").await.unwrap();
    assert!(told.problems.is_empty() && told.consent_until > world.now_ms(), "{told:?}");
    world.settle("it is back without a restart", BACK, is_connected).await;
    let back = agent(&world).await;
    assert_eq!(back.consent_until, 0, "the consent is used up");
    assert!(back.identity_not_after > world.now_ms());
    assert_eq!(journal_of_the_agent(&world), None);
    assert_eq!(reason(&consent(&world, "h1").await.unwrap_err()), "CONSENT_NOT_NEEDED");
    let by = world.operator.events().await.into_iter().find(|event| event.kind == "agent.consented").unwrap().actor;
    assert_eq!(by, "local:root");
    world.operator.deploy("web", "again").await.unwrap();
    world.settle_live("web", SOON).await;
    world.check().await;
}

#[tokio::test(start_paused = true)]
async fn consent_ends_after_a_day_and_can_be_given_again() {
    let mut world = after_absence(150).await;
    waits_for_consent(&mut world).await;
    world.agents[0].stop().await;
    consent(&world, "h1").await.unwrap();
    tokio::time::sleep(DAY + Duration::from_secs(60)).await;
    world.agents[0].start();
    tokio::time::sleep(BACK).await;
    assert_eq!(agent(&world).await.problems[0].reason, "NEEDS_CONSENT", "too late");
    consent(&world, "h1").await.unwrap();
    world.settle("it is back", BACK, is_connected).await;
}

#[tokio::test(start_paused = true)]
async fn consent_is_no_way_back_for_the_revoked_or_the_forgotten() {
    // Revoked before it is asked for, and revoked after it was given.
    for consented in [false, true] {
        let mut world = after_absence(150).await;
        waits_for_consent(&mut world).await;
        world.agents[0].stop().await;
        if consented {
            consent(&world, "h1").await.unwrap();
        }
        let request = api::RevokeAgentRequest { name: "h1".to_owned() };
        world.operator.client().revoke_agent(request).await.unwrap();
        assert_eq!(reason(&consent(&world, "h1").await.unwrap_err()), "AGENT_REVOKED");
        world.agents[0].start();
        tokio::time::sleep(BACK).await;
        assert_eq!(agent(&world).await.status, "revoked");
        assert_eq!(journal_of_the_agent(&world).unwrap()["problem"]["reason"], "IDENTITY_REFUSED");
        assert!(served(&world, 0, "web.example.test").is_some(), "what it serves stays");
    }
    let mut world = World::new(1).await;
    world.agents[0].stop().await;
    world.controller.stop().await;
    tokio::time::sleep(DAY * 150).await;
    world.controller.start();
    world.settle("the controller answers", SOON, async |world| world.operator.whoami().await).await;
    consent(&world, "h1").await.unwrap();
    let request = api::ForgetAgentRequest { name: "h1".to_owned() };
    world.operator.client().forget_agent(request).await.unwrap();
    assert_eq!(consent(&world, "h1").await.unwrap_err().code(), Code::NotFound);
    world.agents[0].start();
    tokio::time::sleep(BACK).await;
    assert!(world.operator.agents().await.is_empty());
}

#[tokio::test(start_paused = true)]
async fn consent_is_for_the_enrolled_key_alone() {
    let mut world = after_absence(150).await;
    waits_for_consent(&mut world).await;
    world.agents[0].stop().await;
    consent(&world, "h1").await.unwrap();
    // The host was installed anew meanwhile: the one that waits is not the one it was.
    let request = api::EnrollAgentRequest { name: "h1".to_owned(), replace: true };
    let token = world.operator.client().enroll_agent(request).await.unwrap().into_inner().token;
    let state = world.agents[0].machine.path("var/lib/certwright-agent");
    let old = world.agents[0].machine.path("var/lib/old");
    std::fs::rename(&state, &old).unwrap();
    world.agents[0].enroll(&token.into()).await.unwrap();
    std::fs::remove_dir_all(&state).unwrap();
    std::fs::rename(&old, &state).unwrap();
    world.agents[0].start();
    tokio::time::sleep(BACK).await;
    assert_ne!(agent(&world).await.status, "connected");
    assert_eq!(journal_of_the_agent(&world).unwrap()["problem"]["reason"], "IDENTITY_REFUSED");
}
