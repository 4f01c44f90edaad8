//! The network between agent and controller fails (reliability.md NT): both notice, neither acts twice, and what was
//! begun is finished without the other.

use std::time::Duration;

use e2e::world::World;
use e2e::world::operator::RELOAD;
use proto::types::v1::Custody;

use crate::{SOON, served, wish};

/// Keep-alive and back-off together.
const NOTICED: Duration = Duration::from_secs(300);

async fn status(world: &World) -> String {
    world.operator.agents().await.into_iter().next().unwrap_or_default().status
}

#[tokio::test(start_paused = true)]
async fn a_cut_during_the_deployment_is_finished_without_the_controller_and_never_run_twice() {
    for custody in [Custody::Agent, Custody::Controller] {
        let mut world = World::new(1).await;
        world.operator.create(&wish(&world, "web", custody, 0)).await.unwrap();
        while world.agents[0].machine.ran().is_empty() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        world.agents[0].machine.set_cut_off(true);
        world.settle("the controller notices", NOTICED, async |world| status(world).await == "offline").await;
        assert!(served(&world, 0, "web.example.test").is_some(), "the agent finished alone");
        tokio::time::sleep(Duration::from_secs(3600)).await;
        world.agents[0].machine.set_cut_off(false);
        let certificate = world.settle_live("web", NOTICED).await;
        assert_eq!(certificate.targets[0].attempt, 1);
        assert_eq!(world.agents[0].machine.ran(), [RELOAD.map(str::to_owned)], "one reload");
        assert_eq!(world.ca.orders().len(), 1);
        world.check().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_cut_before_the_challenge_costs_the_ca_nothing_and_heals() {
    let mut world = World::new(1).await;
    world.agents[0].machine.set_cut_off(true);
    world.operator.create(&wish(&world, "web", Custody::Controller, 0)).await.unwrap();
    world.settle("the controller notices", NOTICED, async |world| status(world).await == "offline").await;
    tokio::time::sleep(Duration::from_secs(600)).await;
    assert!(world.ca.orders().iter().all(|order| order.status == "pending"), "no validation is wasted");
    world.agents[0].machine.set_cut_off(false);
    world.settle_live("web", Duration::from_secs(1800)).await;
    world.check().await;
}

#[tokio::test(start_paused = true)]
async fn a_line_that_comes_and_goes_leaves_one_session() {
    let mut world = World::new(1).await;
    world.operator.create(&wish(&world, "web", Custody::Agent, 0)).await.unwrap();
    for round in 0..20 {
        world.agents[0].machine.set_cut_off(round % 2 == 0);
        tokio::time::sleep(Duration::from_secs(1 + round * 7)).await;
    }
    world.agents[0].machine.set_cut_off(false);
    world.settle_live("web", Duration::from_secs(1800)).await;
    world.settle("it is connected", SOON, async |world| status(world).await == "connected").await;
    world.check().await;
}
