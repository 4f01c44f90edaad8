//! The crash matrix (design §4, reliability.md CR): a program is killed at every step it makes towards the world while
//! one certificate takes its road, is started again, and must arrive with nothing lost and nothing ordered twice. What
//! counts as a step is in `e2e::power::Step`; every row of the road has several on either side.

use std::time::Duration;

use e2e::fake_ca::Options;
use e2e::power::disk::{Unsynced, split_mix};
use e2e::power::{KillPoint, Step};
use e2e::world::{Plan, World};
use proto::operator::v1 as api;
use proto::types::v1::Custody;

use crate::{served, wish};

/// A killed program comes back after seconds; back-off after a lost connection and the key's wait stay below this.
const RECOVERY: Duration = Duration::from_secs(20 * 60);
/// A purge looks again every quarter of an hour.
const PURGE: Duration = Duration::from_secs(2 * 3600);
/// More kill points than any road has: the matrix must end by itself.
const POINTS_MAX: u64 = 400;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    Controller,
    Agent,
}

/// Takes the road with one kill; returns whether the kill struck.
async fn survive(side: Side, step: Step, nth: u64, custody: Custody, plan: Plan) -> bool {
    let mut world = World::begin(plan).await;
    let kill = |count: u64| Some(KillPoint { step, nth: count + nth });
    match side {
        Side::Controller => world.controller.plan(kill(world.controller.switch().count(step))),
        Side::Agent => world.agents[0].plan(kill(world.agents[0].switch().count(step))),
    }
    // A CA without reuse may have made an order of which it alone knows; an agent that dies while the CA looks at it
    // costs that order.
    let extra = usize::from(!plan.ca.reuse_orders || side == Side::Agent);
    arrive(&mut world, custody, extra).await;
    if plan.ca.reuse_orders {
        world.check().await;
    }
    world.controller.deaths() + world.agents[0].deaths() > 0
}

async fn arrive(world: &mut World, custody: Custody, extra_orders_max: usize) {
    let wish = wish(world, "web", custody, 0);
    let accepted = async |world: &World| world.operator.create(&wish).await.is_ok();
    world.settle("the wish is accepted, once", RECOVERY, accepted).await;
    let certificate = world.settle_live("web", RECOVERY).await;
    world.revive().await;
    world.controller.plan(None);
    let current = certificate.current.unwrap();
    assert_eq!(served(world, 0, "web.example.test"), Some(current.fingerprint_sha256));
    let request = api::ListVersionsRequest { certificate: "web".to_owned() };
    let versions = world.operator.client().list_versions(request).await.unwrap().into_inner().items;
    assert_eq!(versions.len(), 1, "one version: {versions:#?}");
    let orders = world.ca.orders();
    assert_eq!(orders.iter().filter(|order| order.status == "valid").count(), 1, "{orders:#?}");
    assert!(orders.len() <= 1 + extra_orders_max, "{orders:#?}\n{}", world.picture().await);
    // Where the CA stands is read before it is asked to go on: it never has to refuse.
    let refused: Vec<_> = world.ca.log().into_iter().filter(|line| line.status >= 400).collect();
    assert!(refused.is_empty(), "{refused:#?}");
}

/// A commit syncs twice. Killed before its first sync it is lost, with all that was done since the commit before it;
/// killed after its second it is durable, and nobody was told. Between the two it is lost as well.
const SYNCS_PER_COMMIT: u64 = 2;

async fn matrix(side: Side, steps: &[Step], custody: Custody, stride: u64) {
    for step in steps {
        let mut nth = if *step == Step::AfterSync { stride } else { 1 };
        while survive(side, *step, nth, custody, Plan::default()).await {
            nth += stride;
            assert!(nth < POINTS_MAX, "{step:?} has no end");
        }
        assert!(nth > 1, "{side:?} makes no {step:?} on this road");
    }
}

#[tokio::test(start_paused = true)]
async fn the_controller_dies_at_every_commit_of_a_certificate_in_agent_custody() {
    matrix(Side::Controller, &[Step::BeforeSync, Step::AfterSync], Custody::Agent, SYNCS_PER_COMMIT).await;
}

#[tokio::test(start_paused = true)]
async fn the_controller_dies_at_every_commit_of_a_certificate_in_its_own_custody() {
    matrix(Side::Controller, &[Step::BeforeSync, Step::AfterSync], Custody::Controller, SYNCS_PER_COMMIT).await;
}

#[tokio::test(start_paused = true)]
async fn the_controller_dies_around_every_request_to_the_ca() {
    matrix(Side::Controller, &[Step::CaRequest, Step::CaReply], Custody::Agent, 1).await;
    matrix(Side::Controller, &[Step::CaReply], Custody::Controller, 1).await;
}

#[tokio::test(start_paused = true)]
async fn the_controller_dies_while_it_sends() {
    matrix(Side::Controller, &[Step::NetworkWrite], Custody::Agent, 4).await;
}

#[tokio::test(start_paused = true)]
async fn the_agent_dies_around_every_command_port_and_connection() {
    for custody in [Custody::Agent, Custody::Controller] {
        matrix(Side::Agent, &[Step::HostCall, Step::HostReturn], custody, 1).await;
    }
}

#[tokio::test(start_paused = true)]
async fn the_agent_dies_while_it_sends() {
    for custody in [Custody::Agent, Custody::Controller] {
        matrix(Side::Agent, &[Step::NetworkWrite], custody, 3).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_ca_that_hands_out_no_order_twice_gets_at_most_one_extra() {
    let ca = Options { reuse_orders: false, ..Options::default() };
    let mut nth = 1;
    while survive(Side::Controller, Step::CaReply, nth, Custody::Agent, Plan { ca, ..Plan::default() }).await {
        nth += 1;
    }
    assert!(nth > 5, "the road has more requests than {nth}");
}

#[tokio::test(start_paused = true)]
async fn both_die_again_and_again_on_a_disk_that_tears_writes() {
    for seed in 1..=8_u64 {
        let mut random = split_mix(seed);
        let mut draw = |below: u64| {
            random = split_mix(random);
            random % below + 1
        };
        let plan = Plan { unsynced: Unsynced::Scattered(seed), ..Plan::default() };
        let mut world = World::begin(plan).await;
        let custody = if seed % 2 == 0 { Custody::Agent } else { Custody::Controller };
        let wish = wish(&world, "web", custody, 0);
        for _ in 0..3 {
            let count = world.controller.switch().count(Step::BeforeSync);
            world.controller.plan(Some(KillPoint { step: Step::BeforeSync, nth: count + draw(12) }));
            let count = world.agents[0].switch().count(Step::NetworkWrite);
            world.agents[0].plan(Some(KillPoint { step: Step::NetworkWrite, nth: count + draw(20) }));
            drop(world.operator.create(&wish).await);
            tokio::time::sleep(Duration::from_secs(draw(20))).await;
            world.revive().await;
        }
        world.controller.plan(None);
        world.agents[0].plan(None);
        arrive(&mut world, custody, 3).await;
        world.check().await;
    }
}

/// A certificate that is live is asked for anew, or deleted, with one kill; returns whether the kill struck.
async fn survive_after(side: Side, step: Step, nth: u64, act: Act) -> bool {
    let mut world = World::new(1).await;
    world.operator.create(&wish(&world, "web", Custody::Agent, 0)).await.unwrap();
    let first = world.settle_live("web", RECOVERY).await.current.unwrap().id;
    let kill = |count: u64| Some(KillPoint { step, nth: count + nth });
    match side {
        Side::Controller => world.controller.plan(kill(world.controller.switch().count(step))),
        Side::Agent => world.agents[0].plan(kill(world.agents[0].switch().count(step))),
    }
    match act {
        Act::Renew => {
            let asked = async |world: &World| world.operator.renew("web", "once").await.is_ok();
            world.settle("the renewal is accepted", RECOVERY, asked).await;
            let renewed = async |world: &World| {
                assert!(served(world, 0, "web.example.test").is_some(), "a certificate is served at every instant");
                let current = world.operator.certificate("web").await.and_then(|certificate| certificate.current);
                current.is_some_and(|current| current.id != first) && world.is_live("web").await
            };
            world.settle("the new version is live", RECOVERY, renewed).await;
            let extra = usize::from(side == Side::Agent);
            assert!(world.ca.orders().len() <= 2 + extra, "{:#?}", world.ca.orders());
        }
        Act::Purge => {
            let asked = async |world: &World| match world.operator.delete("web", true).await {
                Ok(_) => true,
                Err(status) => status.code() == tonic::Code::NotFound,
            };
            world.settle("the deletion is accepted", RECOVERY, asked).await;
            world.agents[0].machine.service().remove_site("web.example.test");
            world.agents[0].machine.reload().unwrap();
            let gone = async |world: &World| world.operator.certificates_told().await.is_some_and(|all| all.is_empty());
            world.settle("the certificate is gone", PURGE, gone).await;
            let key = world.agents[0].dir("web").join("key.pem");
            assert!(!key.exists(), "{side:?} {step:?} {nth}: {} is gone", key.display());
            assert_eq!(world.ca.orders().len(), 1);
        }
    }
    world.revive().await;
    world.check().await;
    world.controller.deaths() + world.agents[0].deaths() > 0
}

#[derive(Clone, Copy, Debug)]
enum Act {
    Renew,
    Purge,
}

async fn matrix_after(act: Act, stride: u64) {
    for (side, step) in [
        (Side::Controller, Step::BeforeSync),
        (Side::Controller, Step::AfterSync),
        (Side::Agent, Step::HostReturn),
        (Side::Agent, Step::NetworkWrite),
    ] {
        let mut nth = 1;
        while survive_after(side, step, nth, act).await {
            nth += stride;
            assert!(nth < POINTS_MAX, "{step:?} has no end");
        }
        assert!(nth > 1, "{side:?} makes no {step:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_renewal_survives_and_the_old_certificate_is_served_until_the_new_one_is() {
    matrix_after(Act::Renew, 6).await;
}

#[tokio::test(start_paused = true)]
async fn a_purge_survives_and_leaves_nothing() {
    matrix_after(Act::Purge, 3).await;
}

#[tokio::test(start_paused = true)]
async fn agents_keep_serving_while_the_controller_is_away_and_take_up_the_thread() {
    let mut world = World::new(1).await;
    world.operator.create(&wish(&world, "web", Custody::Agent, 0)).await.unwrap();
    world.settle_live("web", RECOVERY).await;
    world.controller.kill().await;
    world.agents[0].kill().await;
    world.agents[0].start();
    tokio::time::sleep(Duration::from_secs(3 * 86_400)).await;
    assert!(served(&world, 0, "web.example.test").is_some());
    world.controller.start();
    world.settle_live("web", RECOVERY).await;
    let connected = async |world: &World| world.operator.agents().await[0].status == "connected";
    world.settle("the agent is back", RECOVERY, connected).await;
    world.operator.deploy("web", "after").await.unwrap();
    world.settle_live("web", RECOVERY).await;
    world.check().await;
}
