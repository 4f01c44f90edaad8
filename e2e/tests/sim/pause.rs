//! Pause and the kill switch (features.md C15, O10): nothing is ordered and nothing is deployed until it is lifted, through
//! any restart; then everything goes on where it stood.

use std::time::Duration;

use e2e::fake_ca::Options;
use e2e::fake_ca::fault::{Fault, RequestKind, When};
use e2e::fake_host::Script;
use e2e::power::{KillPoint, Step};
use e2e::world::operator::RELOAD;
use e2e::world::{Plan, World};
use proto::operator::v1 as api;
use proto::types::v1::Custody;

use crate::{SOON, served, wish};

const DAY: Duration = Duration::from_secs(86_400);
/// A program that was killed is back after this.
const RECOVERY: Duration = Duration::from_secs(20 * 60);

/// Requests to the CA that spend something there.
fn spent(world: &World) -> usize {
    let costs =
        |kind: &RequestKind| matches!(kind, RequestKind::NewOrder | RequestKind::Challenge | RequestKind::Finalize);
    world.ca.log().iter().filter(|line| costs(&line.kind)).count()
}

fn reloads(world: &World) -> usize {
    world.agents[0].machine.ran().len()
}

async fn kinds(world: &World) -> Vec<String> {
    world.operator.events().await.into_iter().map(|event| event.kind).collect()
}

#[tokio::test(start_paused = true)]
async fn everything_stands_still_until_it_is_lifted_also_over_a_restart() {
    let ca = Options { lifetime_seconds: 86_400, ..Options::default() };
    let mut world = World::begin(Plan { ca, ..Plan::default() }).await;
    world.operator.create(&wish(&world, "web", Custody::Agent, 0)).await.unwrap();
    let first = world.settle_live("web", SOON).await.current.unwrap();
    assert_eq!(world.operator.pause("", true).await.unwrap().pause.unwrap().by, "local:root");
    let before = (spent(&world), reloads(&world));
    world.operator.create(&wish(&world, "new", Custody::Controller, 0)).await.unwrap();
    let renewal = world.operator.renew("web", "asked").await.unwrap();
    world.operator.deploy("web", "again").await.unwrap();
    tokio::time::sleep(DAY / 2).await;
    world.controller.kill().await;
    world.controller.start();
    tokio::time::sleep(DAY / 2).await;
    let back = async |world: &World| world.operator.whoami().await;
    world.settle("the controller answers", RECOVERY, back).await;
    assert_eq!((spent(&world), reloads(&world)), before, "nothing was ordered, nothing was deployed");
    assert_eq!(served(&world, 0, "web.example.test"), Some(first.fingerprint_sha256), "and it is still served");
    let overview = world.operator.client().get_overview(api::GetOverviewRequest {}).await.unwrap().into_inner();
    assert_eq!(overview.pause.unwrap().reason, "for a look");
    let told: Vec<_> = overview.attention.iter().map(|line| (line.what.as_str(), line.name.as_str())).collect();
    assert_eq!(told[0], ("PAUSED", ""), "{told:?}");
    assert!(told.contains(&("EXPIRED", "web")), "a pause hides no expiry: {told:?}");
    let job = world.operator.job(&renewal.job_id).await;
    assert_eq!((job.state.as_str(), job.phase.as_str()), ("waiting", "paused"));
    assert!(job.problem.unwrap().hint.contains("certwright resume --all"));
    world.operator.pause("", false).await.unwrap();
    for name in ["web", "new"] {
        world.settle_live(name, RECOVERY).await;
    }
    let kinds = kinds(&world).await;
    assert!(kinds.contains(&"controller.paused".into()) && kinds.contains(&"controller.resumed".into()), "{kinds:?}");
    world.check().await;
}

#[tokio::test(start_paused = true)]
async fn one_certificate_stands_still_and_the_others_go_on() {
    let ca = Options { lifetime_seconds: 86_400, ..Options::default() };
    let mut world = World::begin(Plan { ca, ..Plan::default() }).await;
    for name in ["web", "shop"] {
        world.operator.create(&wish(&world, name, Custody::Controller, 0)).await.unwrap();
        world.settle_live(name, SOON).await;
    }
    let old = async |world: &World, name: &str| world.operator.certificate(name).await.unwrap().current.unwrap().id;
    let (web, shop) = (old(&world, "web").await, old(&world, "shop").await);
    let paused = world.operator.pause("web", true).await.unwrap().certificate.unwrap();
    assert_eq!(paused.pause.unwrap().reason, "for a look");
    tokio::time::sleep(DAY * 4 / 5).await;
    assert_eq!(old(&world, "web").await, web);
    assert_ne!(old(&world, "shop").await, shop);
    world.operator.pause("web", false).await.unwrap();
    let renewed = async |world: &World| old(world, "web").await != web && world.is_live("web").await;
    world.settle("it is renewed", SOON, renewed).await;
    assert_eq!(world.ca.crowd_max(), 1);
    world.check().await;
}

#[tokio::test(start_paused = true)]
async fn an_agent_that_is_about_to_try_again_does_not_while_it_is_paused() {
    let mut world = World::new(1).await;
    world.agents[0].machine.script(&RELOAD, Script::Exit(1, "no"));
    world.operator.create(&wish(&world, "web", Custody::Agent, 0)).await.unwrap();
    let failed = async |world: &World| {
        world.operator.certificate("web").await.is_some_and(|certificate| certificate.deployment == "failed")
    };
    world.settle("the deployment fails", SOON, failed).await;
    world.operator.pause("web", true).await.unwrap();
    // What was under way may end.
    tokio::time::sleep(Duration::from_secs(30)).await;
    let tried = world.operator.certificate("web").await.unwrap().targets[0].attempt;
    tokio::time::sleep(DAY).await;
    assert_eq!(world.operator.certificate("web").await.unwrap().targets[0].attempt, tried);
    world.agents[0].machine.script(&RELOAD, Script::Reload);
    world.operator.pause("web", false).await.unwrap();
    world.settle_live("web", RECOVERY).await;
    world.check().await;
}

#[tokio::test(start_paused = true)]
async fn an_order_under_way_lets_go_of_its_token_and_goes_on_with_the_same_order() {
    for kind in [RequestKind::Authorization, RequestKind::Challenge, RequestKind::Finalize] {
        let mut world = World::new(1).await;
        world.ca.fail(kind, When::First(1), Fault::Hang);
        world.operator.create(&wish(&world, "web", Custody::Agent, 0)).await.unwrap();
        let asked = async |world: &World| world.ca.log().iter().any(|line| line.kind == kind);
        world.settle("the order is under way", SOON, asked).await;
        world.operator.pause("web", true).await.unwrap();
        tokio::time::sleep(Duration::from_secs(3 * 3600)).await;
        let order = world.operator.certificate("web").await.unwrap().order.unwrap();
        assert_eq!(order.phase, "waiting", "{kind:?}");
        assert!(world.agents[0].machine.occupy(80, "a look").is_ok(), "{kind:?}: nothing waits on port 80");
        world.operator.pause("web", false).await.unwrap();
        world.settle_live("web", RECOVERY).await;
        assert_eq!(world.ca.orders().len(), 1, "{:#?}", world.ca.orders());
        world.check().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_pause_is_kept_or_was_never_accepted_whenever_the_controller_dies() {
    let mut nth = 1;
    loop {
        let mut world = World::new(1).await;
        world.operator.create(&wish(&world, "web", Custody::Agent, 0)).await.unwrap();
        let count = world.controller.switch().count(Step::BeforeSync);
        world.controller.plan(Some(KillPoint { step: Step::BeforeSync, nth: count + nth }));
        tokio::time::sleep(Duration::from_millis(400)).await;
        let asked = async |world: &World| world.operator.pause("", true).await.is_ok();
        world.settle("the pause is accepted", RECOVERY, asked).await;
        tokio::time::sleep(Duration::from_secs(60)).await;
        world.revive().await;
        world.controller.plan(None);
        let before = spent(&world);
        tokio::time::sleep(Duration::from_secs(3 * 3600)).await;
        assert_eq!(spent(&world), before, "killed at commit {nth}");
        let lifted = async |world: &World| world.operator.pause("", false).await.is_ok();
        world.settle("the pause is lifted", RECOVERY, lifted).await;
        world.settle_live("web", RECOVERY).await;
        world.check().await;
        let struck = world.controller.deaths() > 0;
        nth += 4;
        if !struck {
            break;
        }
    }
    assert!(nth > 4);
}
