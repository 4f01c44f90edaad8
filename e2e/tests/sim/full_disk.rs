//! The controller's disk is full (reliability.md DB3), in the worst way: not even what is there can be written again. Nobody is
//! told anything wrong, servers go on, and so does the controller once there is room, in the same life.

use std::time::Duration;

use proto::types::v1::Custody;
use tonic::Code;

use e2e::world::World;

use crate::{SOON, reason, served, wish};

#[tokio::test(start_paused = true)]
async fn a_full_disk_is_told_and_overcome_without_a_restart() {
    let mut world = World::new(2).await;
    world.operator.create(&wish(&world, "web", Custody::Agent, 0)).await.unwrap();
    world.settle_live("web", SOON).await;
    let was_served = served(&world, 0, "web.example.test");
    for round in ["first", "second"] {
        world.controller.disk.set_full(true);
        let refused = world.operator.renew("web", round).await.unwrap_err();
        assert_eq!((refused.code(), reason(&refused).as_str()), (Code::Unavailable, "DATABASE_FULL"), "{refused:?}");
        assert!(format!("{refused:?}").contains("goes on by itself"), "{refused:?}");
        tokio::time::sleep(Duration::from_secs(1_800)).await;
        let refused = world.operator.renew("web", round).await.unwrap_err();
        assert_eq!(reason(&refused), "DATABASE_FULL");
        assert_eq!(served(&world, 0, "web.example.test"), was_served, "servers go on");
        assert!(!world.controller.is_down() && world.agents.iter_mut().all(|agent| !agent.is_down()));
        world.controller.disk.set_full(false);
        let back = async |world: &World| {
            let agents = world.operator.agents().await;
            agents.len() == 2 && agents.iter().all(|agent| agent.status == "connected" && agent.problems.is_empty())
        };
        world.settle("all is as it was", SOON, back).await;
    }
    assert_eq!(world.controller.deaths(), 0);
    let told = world.operator.events().await;
    let told: Vec<_> = told.iter().filter(|event| event.kind == "store.full").collect();
    assert_eq!(told.len(), 2, "once for each: {told:?}");
    assert!(told.iter().all(|event| event.message.contains("was full for 180")), "{told:?}");
    world.operator.renew("web", "third").await.unwrap();
    world.settle_live("web", SOON).await;
    assert_ne!(served(&world, 0, "web.example.test"), was_served);
    world.check().await;
}
