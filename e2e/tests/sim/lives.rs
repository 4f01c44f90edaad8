//! The life of an agent's identity (design §5): back after a long absence, with an operator's consent after a longer one, and
//! never once it is revoked or forgotten.

use std::time::Duration;

use e2e::power::{KillPoint, Step};
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

/// Kills one side at one of its steps while the agent comes back after so many days; returns whether the kill struck.
async fn comes_back(side: Side, step: Step, nth: u64, days: u32) -> bool {
    let mut world = World::new(1).await;
    let first = agent(&world).await;
    world.agents[0].stop().await;
    world.controller.stop().await;
    tokio::time::sleep(DAY * days).await;
    world.controller.start();
    world.agents[0].start();
    let kill = Some(KillPoint { step, nth });
    match side {
        Side::Controller => world.controller.plan(kill),
        Side::Agent => world.agents[0].plan(kill),
    }
    if days > 120 {
        let agreed = async |world: &World| match consent(world, "h1").await {
            Ok(_) => true,
            // The answer was lost, and it is back already.
            Err(status) => status.code() == Code::FailedPrecondition && reason(&status) == "CONSENT_NOT_NEEDED",
        };
        world.settle("the consent is given", BACK, agreed).await;
    }
    world.settle("it is back", BACK, is_connected).await;
    // The second loss is that of the answer which a kill right at the end would cost.
    let has_more = async |world: &World| agent(world).await.identity_serial != first.identity_serial;
    world.settle("with a new identity", BACK, has_more).await;
    world.revive().await;
    world.controller.plan(None);
    world.settle("it is connected", BACK, is_connected).await;
    let back = agent(&world).await;
    assert_eq!((&back.id, back.consent_until, back.problems.len()), (&first.id, 0, 0), "{back:?}");
    assert!(back.identity_not_after > world.now_ms(), "{back:?}");
    for kind in ["agent.held_twice", "agent.older_identity", "agent.enrollment_refused"] {
        assert_eq!(happened(&world, kind).await, 0, "{side:?} {step:?} {nth}: {kind}");
    }
    world.controller.deaths() + world.agents[0].deaths() > 0
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    Controller,
    Agent,
}

/// The steps of the way back, and how many of each are passed over: around every commit, and a sample of the writes.
const STEPS: [(Side, Step, u64); 6] = [
    (Side::Controller, Step::BeforeSync, 1),
    (Side::Controller, Step::AfterSync, 1),
    (Side::Controller, Step::NetworkWrite, 2),
    (Side::Agent, Step::HostCall, 1),
    (Side::Agent, Step::HostReturn, 1),
    (Side::Agent, Step::NetworkWrite, 1),
];

async fn comes_back_whenever_killed(days: u32) {
    for (side, step, stride) in STEPS {
        let mut nth = 1;
        while comes_back(side, step, nth, days).await {
            nth += stride;
            assert!(nth < 200, "{side:?} {step:?} has no end");
        }
        assert!(nth > 1, "{side:?} makes no {step:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_return_after_a_month_survives_a_kill_at_every_step_and_alarms_nobody() {
    comes_back_whenever_killed(35).await;
}

#[tokio::test(start_paused = true)]
async fn the_return_by_consent_survives_a_kill_at_every_step_and_alarms_nobody() {
    comes_back_whenever_killed(150).await;
}

#[tokio::test(start_paused = true)]
async fn the_daily_renewal_survives_a_kill_at_every_step_and_alarms_nobody() {
    comes_back_whenever_killed(2).await;
}

#[tokio::test(start_paused = true)]
async fn enrolment_survives_a_kill_of_the_agent_at_every_step_and_makes_one_agent() {
    for step in [Step::HostCall, Step::HostReturn, Step::NetworkWrite] {
        let mut nth = 1;
        loop {
            let mut world = World::begin(e2e::world::Plan { agents: 0, ..Default::default() }).await;
            let index = world.bare_machine();
            let request = api::EnrollAgentRequest { name: "late".to_owned(), replace: false };
            let token = world.operator.client().enroll_agent(request).await.unwrap().into_inner().token.into();
            let ended = world.agents[index].enroll_until(&token, KillPoint { step, nth }).await.unwrap();
            world.agents[index].enroll(&token).await.expect("the same key may ask again");
            world.agents[index].start();
            world.settle("it is connected", SOON, is_connected).await;
            assert_eq!(world.operator.agents().await.len(), 1);
            if ended {
                break;
            }
            nth += 1;
        }
        assert!(nth > 1, "{step:?}");
    }
}

async fn is_held_twice(world: &World) -> bool {
    agent(world).await.problems.iter().any(|problem| problem.reason == "HELD_TWICE")
}

#[tokio::test(start_paused = true)]
async fn a_cloned_machine_is_noticed_shown_and_does_not_flap() {
    let mut world = World::new(1).await;
    let copy = world.clone_machine(0);
    world.agents[copy].start();
    world.settle("two holders are noticed", BACK, is_held_twice).await;
    let seen = agent(&world).await;
    let problem = &seen.problems[0];
    assert!(problem.message.contains("10.0.1.1") && problem.message.contains("10.0.1.2"), "{problem:?}");
    assert!(problem.hint.contains("--replace"), "{problem:?}");
    let overview = world.operator.client().get_overview(api::GetOverviewRequest {}).await.unwrap().into_inner();
    assert!(overview.attention.iter().any(|line| line.name == "h1" && line.what == "HELD TWICE"), "{overview:#?}");
    let connected = happened(&world, "agent.connected").await;
    tokio::time::sleep(DAY / 8).await;
    assert_eq!(happened(&world, "agent.held_twice").await, 1, "told once");
    assert_eq!(happened(&world, "agent.connected").await, connected, "one of them keeps the stream");
    assert!(is_connected(&world).await && is_held_twice(&world).await);
    // The one that was there first is the one that waits: it says so.
    assert_eq!(journal_of_the_agent(&world).unwrap()["problem"]["reason"], "IDENTITY_TWICE");

    // The remedy: the copy becomes an agent of its own, the other one is back by itself, and the issue ends.
    let request = api::EnrollAgentRequest { name: "h2".to_owned(), replace: false };
    let token = world.operator.client().enroll_agent(request).await.unwrap().into_inner().token;
    world.agents[copy].stop().await;
    std::fs::remove_dir_all(world.agents[copy].state_dir()).unwrap();
    world.agents[copy].enroll(&token.into()).await.unwrap();
    world.agents[copy].start();
    let both = async |world: &World| world.operator.agents().await.iter().all(|agent| agent.status == "connected");
    world.settle("both are connected", BACK, both).await;
    world.clock.leap(jiff::SignedDuration::from_hours(73));
    tokio::time::sleep(BACK).await;
    let all = world.operator.agents().await;
    assert!(all.len() == 2 && all.iter().all(|agent| agent.problems.is_empty()), "{all:#?}");
}

#[tokio::test(start_paused = true)]
async fn enrolling_one_of_two_holders_anew_shuts_the_other_out_at_once() {
    let mut world = World::new(1).await;
    let copy = world.clone_machine(0);
    world.agents[copy].start();
    world.settle("two holders are noticed", BACK, is_held_twice).await;
    let request = api::EnrollAgentRequest { name: "h1".to_owned(), replace: true };
    let token = world.operator.client().enroll_agent(request).await.unwrap().into_inner().token;
    world.agents[0].stop().await;
    std::fs::remove_dir_all(world.agents[0].state_dir()).unwrap();
    world.agents[0].enroll(&token.into()).await.unwrap();
    world.agents[0].start();
    let back = async |world: &World| is_connected(world).await && agent(world).await.address == "10.0.1.1";
    world.settle("the right one is connected", BACK, back).await;
    tokio::time::sleep(BACK).await;
    let seen = agent(&world).await;
    assert_eq!((seen.problems.len(), seen.address.as_str()), (0, "10.0.1.1"));
}

#[tokio::test(start_paused = true)]
async fn two_holders_that_take_turns_are_noticed_by_their_leaves() {
    let mut world = World::new(1).await;
    let copy = world.clone_machine(0);
    tokio::time::sleep(2 * DAY).await;
    // The copy is started while the original is off: a restored disk, as far as anyone can see.
    world.agents[0].stop().await;
    tokio::time::sleep(SOON).await;
    world.agents[copy].start();
    world.settle("the copy is connected", BACK, is_connected).await;
    assert_eq!(happened(&world, "agent.older_identity").await, 1);
    assert!(!is_held_twice(&world).await);
    world.agents[copy].stop().await;
    tokio::time::sleep(SOON).await;
    world.agents[0].start();
    world.settle("the original comes back, and there are two", BACK, is_held_twice).await;
    world.settle("it is served all the same", BACK, is_connected).await;
}

#[tokio::test(start_paused = true)]
async fn neither_crashes_nor_reconnections_nor_a_restored_disk_look_like_two_holders() {
    let mut world = World::new(1).await;
    let folder = tempfile::tempdir().unwrap();
    let backup = folder.path().join("state");
    world.agents[0].copy_state(&backup);
    for _ in 0..6 {
        tokio::time::sleep(DAY / 2).await;
        world.agents[0].kill().await;
        world.agents[0].start();
        world.settle("it is back after a crash", BACK, is_connected).await;
        let cable = world.net.cable(world.agents[0].machine.address());
        cable.set_cut(true);
        tokio::time::sleep(SOON).await;
        cable.set_cut(false);
        world.controller.kill().await;
        world.controller.start();
        world.settle("it is back after the network", BACK, is_connected).await;
    }
    assert_eq!(happened(&world, "agent.older_identity").await, 0);
    // Power goes, and the disk of three days ago comes back while the old connection still looks open.
    world.agents[0].kill().await;
    world.agents[0].restore_state(&backup);
    world.agents[0].start();
    world.settle("it is back after the restore", BACK, is_connected).await;
    tokio::time::sleep(2 * DAY).await;
    let seen = agent(&world).await;
    assert!(seen.status == "connected" && seen.problems.is_empty(), "{seen:?}");
    assert_eq!(happened(&world, "agent.held_twice").await, 0);
    assert_eq!(happened(&world, "agent.older_identity").await, 1);
}
