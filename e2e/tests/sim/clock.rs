//! The controller's clock is set wrong and right again (reliability.md TM1, TM2, AC2): nothing is ordered, nothing fails,
//! nothing is forgotten.

use std::time::Duration;

use e2e::fake_ca::Options;
use e2e::fake_ca::fault::{Fault, RequestKind, When};
use e2e::world::{Plan, World};
use jiff::SignedDuration;
use proto::operator::v1 as api;
use proto::types::v1::Custody;

use crate::{SOON, wish};

const DAY: Duration = Duration::from_secs(86_400);

async fn attention(world: &World) -> Vec<api::Attention> {
    let answer = world.operator.client().get_overview(api::GetOverviewRequest {}).await;
    answer.map(|answer| answer.into_inner().attention).unwrap_or_default()
}

async fn clock_is_wrong(world: &World) -> bool {
    attention(world).await.iter().any(|line| line.what == "CLOCK WRONG")
}

async fn agents_connected(world: &World) -> bool {
    world.operator.agents().await.iter().all(|agent| agent.status == "connected")
}

fn orders_sent(world: &World) -> usize {
    world.ca.counts().get(&RequestKind::NewOrder).copied().unwrap_or(0)
}

#[tokio::test(start_paused = true)]
async fn a_leap_of_400_days_either_way_orders_nothing_fails_nothing_and_is_over_when_it_is_undone() {
    for days in [400, -400] {
        let mut world = World::new(1).await;
        for name in ["a", "b", "c"] {
            world.operator.create(&wish(&world, name, Custody::Controller, 0)).await.unwrap();
        }
        for name in ["a", "b", "c"] {
            world.settle_live(name, SOON).await;
        }
        world.controller.clock.set_wrong_by(SignedDuration::from_hours(days * 24));
        world.settle("the clock is seen to be wrong", Duration::from_secs(600), clock_is_wrong).await;
        world.operator.create(&wish(&world, "late", Custody::Controller, 0)).await.unwrap();
        tokio::time::sleep(Duration::from_secs(5 * 3_600)).await;
        assert_eq!(orders_sent(&world), 3, "no mass renewal, and no order by a wrong clock");
        for certificate in world.operator.certificates().await {
            let error = certificate.order.and_then(|order| order.error);
            assert_eq!(error, None, "{} failed", certificate.name);
        }
        let said = attention(&world).await.remove(0);
        assert!(
            said.what == "CLOCK WRONG" && said.why.contains("400 days") && said.action.contains("timedatectl"),
            "{said:?}"
        );
        world.controller.clock.set_wrong_by(SignedDuration::ZERO);
        world.settle("the clock is right", Duration::from_secs(600), async |world| !clock_is_wrong(world).await).await;
        world.settle("the agent is back", Duration::from_secs(3_600), agents_connected).await;
        world.settle_live("late", Duration::from_secs(600)).await;
        tokio::time::sleep(Duration::from_secs(3_600)).await;
        assert_eq!(orders_sent(&world), 4);
        let events = world.operator.events().await;
        let told = |kind: &str| events.iter().filter(|event| event.kind == kind).count();
        assert_eq!((told("clock.wrong"), told("clock.right")), (1, 1), "said once each");
        world.check().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_host_that_slept_looks_again_and_renews_what_came_due() {
    let ca = Options { lifetime_seconds: 86_400, ..Options::default() };
    let mut world = World::begin(Plan { ca, ..Plan::default() }).await;
    world.operator.create(&wish(&world, "web", Custody::Controller, 0)).await.unwrap();
    world.settle_live("web", SOON).await;
    // Everyone's wall clock goes on while the controller's own time stands still.
    let slept = SignedDuration::from_hours(13);
    world.clock.set_wrong_by(slept);
    world.controller.clock.set_wrong_by(slept);
    world.settle("it is renewed soon", Duration::from_secs(600), async |world| orders_sent(world) == 2).await;
    world.settle_live("web", SOON).await;
    assert!(!clock_is_wrong(&world).await);
}

#[tokio::test(start_paused = true)]
async fn a_clock_that_is_wrong_from_the_start_is_found_before_the_first_order() {
    let mut world = World::new(1).await;
    world.controller.stop().await;
    world.controller.clock.set_wrong_by(SignedDuration::from_mins(20));
    world.controller.start();
    world.settle("the controller answers", SOON, async |world| world.operator.whoami().await).await;
    world.operator.create(&wish(&world, "web", Custody::Controller, 0)).await.unwrap();
    world.settle("the clock is seen to be wrong", Duration::from_secs(600), clock_is_wrong).await;
    assert_eq!(orders_sent(&world), 0);
    world.controller.clock.set_wrong_by(SignedDuration::ZERO);
    world.settle_live("web", Duration::from_secs(3_600)).await;
    assert_eq!(orders_sent(&world), 1);
    world.check().await;
}

#[tokio::test(start_paused = true)]
async fn a_ca_that_asks_to_be_left_alone_is_not_asked_by_anyone_until_then() {
    let mut world = World::new(1).await;
    let busy = Fault::Problem {
        status: 503,
        kind: "rateLimited",
        detail: "Service busy; retry later.",
        retry_after: Some(900),
    };
    world.ca.fail(RequestKind::Challenge, When::First(1), busy);
    for name in ["a", "b", "c", "d"] {
        world.operator.create(&wish(&world, name, Custody::Controller, 0)).await.unwrap();
    }
    let all_wait = async |world: &World| {
        let orders = world.operator.certificates().await.into_iter().filter_map(|certificate| certificate.order);
        orders.filter(|order| order.phase == "waiting").count() == 4
    };
    world.settle("all wait", SOON, all_wait).await;
    let closed_at = world.ca.log().iter().find(|line| line.status == 503).unwrap().at;
    for name in ["a", "b", "c", "d"] {
        world.settle_live(name, DAY).await;
    }
    let early = world.ca.log().into_iter().filter(|line| {
        let after = line.at.duration_since(closed_at);
        after > SignedDuration::from_secs(1) && after < SignedDuration::from_secs(899)
    });
    assert_eq!(early.count(), 0, "no request for 15 minutes");
    let failures = world.operator.events().await.into_iter().filter(|event| event.kind == "order.failed").count();
    assert_eq!(failures, 1, "only the one that met it failed");
    world.check().await;
}
