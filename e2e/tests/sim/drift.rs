//! Files that are changed behind an agent's back: told, repaired or only shown, and never taken for a deployment. The kernel tells
//! nothing here: the looks of every quarter of an hour find it.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use e2e::world::World;
use proto::operator::v1 as api;
use proto::types::v1::{Custody, OnDrift, TargetStatus};

use crate::{SOON, wish};

const LOOK: Duration = Duration::from_secs(16 * 60);

/// A certificate that is live on one agent, and the path of its key there.
async fn live(on_drift: OnDrift) -> (World, PathBuf) {
    let mut world = World::new(1).await;
    let mut wish = wish(&world, "web", Custody::Agent, 0);
    wish.target.as_mut().unwrap().on_drift = on_drift.into();
    world.operator.create(&wish).await.unwrap();
    world.settle_live("web", SOON).await;
    let key = world.agents[0].dir("web").join("key.pem");
    (world, key)
}

/// Kinds of the events of targets and attempts, oldest first.
async fn kinds(world: &World) -> Vec<String> {
    let events = world.operator.events().await.into_iter().rev();
    events.map(|event| event.kind).filter(|kind| kind.starts_with("target.") || kind.starts_with("attempt.")).collect()
}

async fn event(world: &World, kind: &str) -> api::Event {
    world.operator.events().await.into_iter().find(|event| event.kind == kind).unwrap()
}

async fn target(world: &World) -> api::Target {
    world.operator.certificate("web").await.unwrap().targets.remove(0)
}

#[tokio::test(start_paused = true)]
async fn a_missing_key_is_told_and_repaired_and_that_is_no_deployment() {
    let (mut world, key) = live(OnDrift::Repair).await;
    let before = kinds(&world).await;
    fs::remove_file(&key).unwrap();
    let repaired = async |world: &World| kinds(world).await.contains(&"target.repaired".to_owned());
    world.settle("it is repaired", LOOK, repaired).await;
    assert!(key.exists());
    assert_eq!(kinds(&world).await[before.len()..], ["target.drifted", "target.repaired"]);
    let problem = event(&world, "target.drifted").await.problem.unwrap();
    assert_eq!((problem.reason.as_str(), problem.cause.as_str()), ("DRIFTED", "key.pem is missing"));
    let target = target(&world).await;
    assert_eq!((target.status(), target.drift.unwrap().repairs), (TargetStatus::Applied, 1));
    assert_eq!(world.ca.orders().len(), 1, "nothing is ordered for it");
    world.check().await;
}

#[tokio::test(start_paused = true)]
async fn what_is_only_shown_stays_until_an_operator_deploys() {
    let (mut world, key) = live(OnDrift::Show).await;
    fs::remove_file(&key).unwrap();
    let drifted = async |world: &World| target(world).await.status() == TargetStatus::Drifted;
    world.settle("it is shown", LOOK, drifted).await;
    tokio::time::sleep(Duration::from_secs(6 * 3600)).await;
    assert!(drifted(&world).await && !key.exists());
    let kinds_before = kinds(&world).await;
    assert_eq!(kinds_before.last().unwrap(), "target.drifted", "told once");
    let told = target(&world).await.problem.unwrap();
    assert!(told.hint.contains("targets deploy NAME"), "{told:?}");
    let shown = target(&world).await;
    let spec = api::TargetSpec { on_drift: OnDrift::Repair.into(), ..shown.spec.clone().unwrap() };
    let set = |spec| api::SetTargetRequest {
        certificate: "web".into(),
        target_id: shown.id.clone(),
        target: Some(spec),
        ..Default::default()
    };
    let asked = world.operator.client().set_target(set(shown.spec.clone().unwrap())).await.unwrap().into_inner();
    assert_eq!(asked.job_id, "", "nothing changes");
    let deployed = world.operator.client().set_target(set(spec)).await.unwrap().into_inner();
    assert_eq!(deployed.job_id, "", "it says what to do with what is there, and deploys nothing by itself");
    let back = async |world: &World| target(world).await.status() == TargetStatus::Applied;
    world.settle("it is deployed", SOON, back).await;
    assert!(key.exists());
    world.check().await;
}

#[tokio::test(start_paused = true)]
async fn a_drift_that_ended_while_the_controller_was_away_is_told_afterwards() {
    let (mut world, key) = live(OnDrift::Show).await;
    world.controller.kill().await;
    let link = fs::read_link(&key).unwrap();
    fs::remove_file(&key).unwrap();
    tokio::time::sleep(LOOK).await;
    std::os::unix::fs::symlink(link, &key).unwrap();
    tokio::time::sleep(LOOK).await;
    world.controller.start();
    let told = async |world: &World| kinds(world).await.contains(&"target.drifted".to_owned());
    world.settle("it is told", SOON, told).await;
    let problem = event(&world, "target.drifted").await.problem.unwrap();
    assert!(problem.cause == "key.pem is missing" && problem.hint.contains("right again"), "{problem:?}");
    assert_eq!(target(&world).await.status(), TargetStatus::Applied);
    world.check().await;
}
