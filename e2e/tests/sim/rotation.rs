//! The identity CA is rotated (reliability.md UP6, UP7): everyone comes along, who was away comes back, each step can be taken
//! back, and a crash in any of them leaves one phase or the other.

use std::sync::Arc;
use std::time::Duration;

use e2e::power::{KillPoint, Step};
use e2e::raw_operator::RawOperator;
use e2e::world::World;
use e2e::world::operator::Operator;
use e2e::world::program::LISTEN;
use proto::clock::Clock;
use proto::operator::v1 as api;
use tonic::Status;

use crate::{SOON, reason};

const DAY: Duration = Duration::from_secs(86_400);
/// All are told at once, and each waits up to a minute before it renews.
const LEARNED: Duration = Duration::from_secs(120);

async fn rotate(world: &World, step: &str, anyway: u64) -> Result<api::IdentityCa, Status> {
    let request = api::RotateIdentityCaRequest { step: step.to_owned(), anyway };
    let answer = tokio::time::timeout(SOON, world.operator.client().rotate_identity_ca(request)).await;
    answer.unwrap_or_else(|_| Err(Status::deadline_exceeded("the controller is away"))).map(tonic::Response::into_inner)
}

async fn look(world: &World) -> api::IdentityCa {
    let answer =
        tokio::time::timeout(SOON, world.operator.client().get_identity_ca(api::GetIdentityCaRequest {})).await;
    answer.ok().and_then(Result::ok).map(tonic::Response::into_inner).unwrap_or_default()
}

async fn phase(world: &World) -> String {
    look(world).await.phase
}

async fn all_are_ready(world: &mut World) {
    let ready = async |world: &World| {
        let seen = look(world).await;
        !seen.phase.is_empty() && seen.waiting_total == 0
    };
    world.settle("all are ready for the next step", LEARNED, ready).await;
}

async fn all_are_connected(world: &mut World) {
    let connected = async |world: &World| {
        let agents = world.operator.agents().await;
        !agents.is_empty() && agents.iter().all(|agent| agent.status == "connected" && agent.problems.is_empty())
    };
    world.settle("all are connected", SOON, connected).await;
}

/// Everything is started anew: what counts is what the disks hold.
async fn restart_all(world: &mut World) {
    world.controller.kill().await;
    world.controller.start();
    for agent in &mut world.agents {
        agent.kill().await;
        agent.start();
    }
    all_are_connected(world).await;
}

fn clock(world: &World) -> Arc<dyn Clock> {
    world.clock.clone()
}

#[tokio::test(start_paused = true)]
async fn a_rotation_takes_every_agent_and_operator_along() {
    let mut world = World::new(3).await;
    let request = api::InviteOperatorRequest { name: "alice".to_owned(), role: "owner".to_owned() };
    let invitation = world.operator.client().invite_operator(request).await.unwrap().into_inner().token;
    let (net, time) = (world.net.clone(), clock(&world));
    let mut alice = RawOperator::login(&net, LISTEN, &time, &invitation, None).await.unwrap();
    let as_alice = |alice: &RawOperator| Operator::remote(alice.channel(&net, LISTEN, &time));
    assert!(as_alice(&alice).whoami().await);
    let old = look(&world).await;
    assert_eq!((old.phase.as_str(), old.slots.len(), old.waiting_total), ("steady", 1, 0));

    let prepared = rotate(&world, "prepare", 0).await.unwrap();
    assert_eq!((prepared.phase.as_str(), prepared.slots.len()), ("prepared", 2));
    assert!(prepared.slots[0].signs && prepared.slots[0].shown && !prepared.slots[1].signs, "{prepared:?}");
    assert_eq!(prepared.waiting_total, 4, "nobody knows of it yet");
    let refused = rotate(&world, "activate", 0).await.unwrap_err();
    assert_eq!(reason(&refused), "PEERS_NOT_READY");
    let agents = async |world: &World| look(world).await.waiting_total == 1;
    world.settle("the agents know of it", LEARNED, agents).await;
    assert!(world.operator.agents().await.iter().all(|agent| agent.identity_ca == "ready"));
    assert_eq!(look(&world).await.waiting[0].name, "alice");
    alice.renew(&net, LISTEN, &time).await.unwrap();
    assert_eq!(look(&world).await.waiting_total, 1, "an answer that was not used may be lost");
    assert!(as_alice(&alice).whoami().await);
    all_are_ready(&mut world).await;
    restart_all(&mut world).await;

    let activated = rotate(&world, "activate", 0).await.unwrap();
    assert!(activated.slots[1].signs && activated.slots[0].shown, "{activated:?}");
    assert_eq!(reason(&rotate(&world, "retire", 0).await.unwrap_err()), "PEERS_NOT_READY");
    alice.renew(&net, LISTEN, &time).await.unwrap();
    assert!(as_alice(&alice).whoami().await);
    all_are_ready(&mut world).await;
    restart_all(&mut world).await;

    let retired = rotate(&world, "retire", 0).await.unwrap();
    assert_eq!((retired.phase.as_str(), retired.slots.len()), ("steady", 1));
    assert_eq!(retired.slots[0].fingerprint_sha256, activated.slots[1].fingerprint_sha256);
    restart_all(&mut world).await;
    assert!(as_alice(&alice).whoami().await);
    let late = world.bare_machine();
    world.enroll(late).await;
    world.agents[late].start();
    all_are_connected(&mut world).await;
    assert_eq!(reason(&rotate(&world, "retire", 0).await.unwrap_err()), "ROTATION_STEP");
    tokio::time::sleep(3 * DAY).await;
    all_are_connected(&mut world).await;
}

#[tokio::test(start_paused = true)]
async fn two_hundred_agents_are_ready_for_each_step_within_two_minutes() {
    let mut world = World::new(200).await;
    for (step, phase) in [("prepare", "prepared"), ("activate", "activated"), ("retire", "steady")] {
        assert_eq!(rotate(&world, step, 0).await.unwrap().phase, phase);
        all_are_ready(&mut world).await;
    }
    all_are_connected(&mut world).await;
}

#[tokio::test(start_paused = true)]
async fn who_was_away_comes_back_until_the_old_ca_is_retired_and_is_listed_after_that() {
    let mut world = World::new(2).await;
    world.agents[1].stop().await;
    rotate(&world, "prepare", 0).await.unwrap();
    let waits = async |world: &World| look(world).await.waiting_total == 1;
    world.settle("one of them is ready", LEARNED, waits).await;
    let refused = rotate(&world, "activate", 0).await.unwrap_err();
    let detail = format!("{refused:?}");
    assert_eq!(reason(&refused), "PEERS_NOT_READY");
    assert!(detail.contains("h2") && detail.contains("--anyway=1"), "{detail}");
    rotate(&world, "activate", 1).await.unwrap();
    // Its leaf ends meanwhile as well.
    world.clock.leap(jiff::SignedDuration::from_hours(40 * 24));
    tokio::time::sleep(SOON).await;
    world.agents[1].start();
    all_are_connected(&mut world).await;
    all_are_ready(&mut world).await;
    world.agents[1].stop().await;
    rotate(&world, "retire", 0).await.unwrap();
    world.agents[1].start();
    all_are_connected(&mut world).await;

    // The next rotation goes by without it.
    world.agents[1].stop().await;
    rotate(&world, "prepare", 0).await.unwrap();
    world.settle("one of them is ready", LEARNED, waits).await;
    rotate(&world, "activate", 1).await.unwrap();
    world.settle("one of them is ready", LEARNED, waits).await;
    let refused = rotate(&world, "retire", 0).await.unwrap_err();
    assert!(format!("{refused:?}").contains("enrolled again with --replace"), "{refused:?}");
    rotate(&world, "retire", 1).await.unwrap();
    world.agents[1].start();
    tokio::time::sleep(SOON).await;
    let lost = world.operator.agents().await.into_iter().find(|agent| agent.name == "h2").unwrap();
    assert_eq!((lost.status.as_str(), lost.problems[0].reason.as_str()), ("offline", "CA_UNKNOWN"), "{lost:?}");
    let request = api::EnrollAgentRequest { name: "h2".to_owned(), replace: true };
    let token = world.operator.client().enroll_agent(request).await.unwrap().into_inner().token;
    world.agents[1].stop_if_running().await;
    std::fs::remove_dir_all(world.agents[1].state_dir()).unwrap();
    world.agents[1].enroll(&token.into()).await.unwrap();
    world.agents[1].start();
    all_are_connected(&mut world).await;
}

#[tokio::test(start_paused = true)]
async fn each_step_can_be_taken_back_until_the_old_ca_is_retired() {
    let mut world = World::new(2).await;
    let old = look(&world).await.slots.remove(0).fingerprint_sha256;
    // Back from prepared, at once and after all know of it.
    for learned in [false, true] {
        rotate(&world, "prepare", 0).await.unwrap();
        if learned {
            all_are_ready(&mut world).await;
        }
        let steady = rotate(&world, "abort", 0).await.unwrap();
        assert_eq!((steady.phase.as_str(), steady.slots.len()), ("steady", 1));
        assert_eq!(steady.slots[0].fingerprint_sha256, old);
        restart_all(&mut world).await;
    }
    // Back from activated: both stay trusted until nobody has a leaf of the next one any more.
    rotate(&world, "prepare", 0).await.unwrap();
    all_are_ready(&mut world).await;
    rotate(&world, "activate", 0).await.unwrap();
    all_are_ready(&mut world).await;
    let back = rotate(&world, "abort", 0).await.unwrap();
    assert_eq!((back.phase.as_str(), back.slots.len()), ("prepared", 2));
    assert_eq!(reason(&rotate(&world, "abort", 0).await.unwrap_err()), "PEERS_NOT_READY");
    restart_all(&mut world).await;
    let done = async |world: &World| rotate(world, "abort", 0).await.is_ok();
    world.settle("the old one signed all leaves again", LEARNED, done).await;
    assert_eq!(look(&world).await.slots[0].fingerprint_sha256, old);
    restart_all(&mut world).await;
    tokio::time::sleep(3 * DAY).await;
    all_are_connected(&mut world).await;
    assert_eq!(reason(&rotate(&world, "abort", 0).await.unwrap_err()), "ROTATION_STEP");
}

/// Takes a step with a kill of the controller; returns whether the kill struck.
async fn step_with_kill(world: &mut World, step: &str, to: &str, kill: Step, nth: u64) -> bool {
    let deaths = world.controller.deaths();
    let count = world.controller.switch().count(kill);
    world.controller.plan(Some(KillPoint { step: kill, nth: count + nth }));
    let taken = async |world: &World| rotate(world, step, 0).await.is_ok() || phase(world).await == to;
    world.settle(&format!("{step} is taken"), LEARNED, taken).await;
    all_are_ready(world).await;
    world.revive().await;
    world.controller.plan(None);
    assert_eq!(phase(world).await, to, "{step} {kill:?} {nth}");
    all_are_connected(world).await;
    world.controller.deaths() > deaths
}

#[tokio::test(start_paused = true)]
async fn a_crash_in_any_step_leaves_one_phase_or_the_other_and_everyone_connected() {
    // There and back again, so that each kill finds the same CAs.
    let road = [
        ("prepare", "prepared"),
        ("activate", "activated"),
        ("abort", "prepared"),
        ("activate", "activated"),
        ("retire", "steady"),
    ];
    for kill in [Step::BeforeSync, Step::AfterSync] {
        let mut nth = 1;
        loop {
            let mut world = World::new(2).await;
            let mut struck = false;
            for (step, to) in road {
                struck |= step_with_kill(&mut world, step, to, kill, nth).await;
            }
            restart_all(&mut world).await;
            if !struck {
                break;
            }
            nth += 2;
            assert!(nth < 100, "{kill:?} has no end");
        }
        assert!(nth > 3, "a step has several commits: {kill:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn two_hundred_agents_come_back_after_forty_days_without_a_controller() {
    let mut world = World::new(200).await;
    world.controller.stop().await;
    tokio::time::sleep(Duration::from_secs(3_600)).await;
    world.clock.leap(jiff::SignedDuration::from_hours(40 * 24));
    tokio::time::sleep(Duration::from_secs(600)).await;
    let count =
        |world: &World| -> Vec<u64> { world.agents.iter().map(|agent| agent.switch().count(Step::HostCall)).collect() };
    let before = count(&world);
    world.controller.start();
    let back = async |world: &World| {
        let agents = world.operator.agents().await;
        agents.len() == 200 && agents.iter().all(|agent| agent.status == "connected" && agent.problems.is_empty())
    };
    world.settle("all are back", Duration::from_secs(300), back).await;
    assert!(world.operator.agents().await.iter().all(|agent| agent.identity_not_after > world.now_ms()));
    let asked: Vec<u64> = count(&world).iter().zip(before).map(|(after, before)| after - before).collect();
    let most = asked.iter().copied().max().unwrap();
    assert!(most <= 6, "one connection renews, the next one stays: {most}");
    assert!(asked.iter().sum::<u64>() <= 200 * 4, "{}", asked.iter().sum::<u64>());
    let odd = ["agent.held_twice", "agent.older_identity", "agent.enrollment_refused"];
    assert!(world.operator.events().await.iter().all(|event| !odd.contains(&event.kind.as_str())));
}
