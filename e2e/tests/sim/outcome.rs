//! The event that every attempt ends with (features.md M7): host, files, commands, the exact error and what to do.

use std::time::Duration;

use e2e::fake_ca::fault::{Fault, RequestKind, When};
use e2e::fake_host::Script;
use e2e::world::World;
use e2e::world::operator::RELOAD;
use proto::operator::v1 as api;
use proto::types::v1::Custody;

use crate::{SOON, wish};

/// The outcomes so far, oldest first.
async fn outcomes(world: &World) -> Vec<(api::Event, api::AttemptOutcome)> {
    let events = world.operator.events().await.into_iter().rev();
    events.filter_map(|event| Some((event.clone(), event.outcome?))).collect()
}

#[tokio::test(start_paused = true)]
async fn a_success_is_told_once_with_host_files_and_commands() {
    let mut world = World::new(1).await;
    world.operator.create(&wish(&world, "web", Custody::Agent, 0)).await.unwrap();
    let serial = world.settle_live("web", SOON).await.current.unwrap().serial;
    tokio::time::sleep(Duration::from_secs(3600)).await;
    let [(event, outcome)] = &outcomes(&world).await[..] else { panic!("{}", world.picture().await) };
    assert_eq!((event.kind.as_str(), event.certificate.as_str()), ("attempt.ended", "web"));
    assert_eq!((outcome.result.as_str(), &outcome.serial), ("succeeded", &serial));
    let target = &outcome.targets[0];
    assert_eq!((target.host.as_str(), target.files.len()), ("h1", 4));
    assert_eq!(
        (target.commands[0].argv.as_str(), target.commands[0].exit_status),
        (RELOAD.join(" ").as_str(), Some(0))
    );
    world.check().await;
}

#[tokio::test(start_paused = true)]
async fn a_failure_is_told_with_its_error_and_again_when_it_heals_but_not_with_every_try() {
    let mut world = World::new(1).await;
    world.ca.fail(RequestKind::NewOrder, When::First(1), Fault::Refused);
    world.agents[0].machine.script(&RELOAD, Script::Exit(1, "no such file"));
    world.operator.create(&wish(&world, "web", Custody::Agent, 0)).await.unwrap();
    let deployed = async |world: &World| outcomes(world).await.len() == 2;
    world.settle("the order failed once and the deployment did", SOON, deployed).await;
    tokio::time::sleep(Duration::from_secs(3 * 3600)).await;
    world.agents[0].machine.script(&RELOAD, Script::Reload);
    world.settle_live("web", Duration::from_secs(3600)).await;
    let told = outcomes(&world).await;
    let results: Vec<_> =
        told.iter().map(|(_, outcome)| (outcome.result.as_str(), outcome.serial.is_empty())).collect();
    assert_eq!(results, [("failed", true), ("failed", false), ("succeeded", false)], "{told:#?}");
    let (event, outcome) = &told[1];
    let problem = event.problem.clone().unwrap();
    assert!(problem.cause.contains("no such file") && !problem.hint.is_empty(), "{problem:?}");
    assert_eq!(outcome.targets[0].commands[0].exit_status, Some(1));
    world.check().await;
}
