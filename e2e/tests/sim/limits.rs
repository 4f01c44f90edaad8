//! The CA's limits: an order waits with a stated time rather than burn one (reliability.md AC1, AC13, AC30).

use std::time::Duration;

use e2e::fake_ca::fault::{Fault, RequestKind, When};
use e2e::world::{ISSUER, World};
use proto::operator::v1 as api;
use proto::types::v1::Custody;

use crate::{SOON, wish};

const HOUR: Duration = Duration::from_secs(3_600);

async fn limit(world: &World, kind: &str, count: u32, period: Duration) {
    let period_seconds = u32::try_from(period.as_secs()).unwrap();
    let set = vec![api::LimitSetting { kind: kind.into(), count, period_seconds }];
    let request = api::SetLimitsRequest { issuer: ISSUER.into(), set, reset: false };
    world.operator.client().set_limits(request).await.unwrap();
}

async fn line(world: &World, kind: &str) -> api::LimitLine {
    let request = api::ListLimitsRequest { issuer: ISSUER.into() };
    let lines = world.operator.client().list_limits(request).await.unwrap().into_inner().items;
    lines.into_iter().find(|line| line.kind == kind).unwrap()
}

fn orders_sent(world: &World) -> usize {
    world.ca.counts().get(&RequestKind::NewOrder).copied().unwrap_or(0)
}

async fn live(world: &World) -> usize {
    world.operator.certificates().await.iter().filter(|one| one.status == "active").count()
}

async fn held(world: &World, name: &str) -> Option<api::Certificate> {
    let certificate = world.operator.certificate(name).await?;
    let order = certificate.order.as_ref()?;
    let is_held = order.error.as_ref().is_some_and(|error| error.reason == "RATE_LIMIT_PREDICTED");
    (is_held && order.phase == "waiting").then_some(certificate)
}

#[tokio::test(start_paused = true)]
async fn a_first_import_is_paced_and_no_order_is_ever_refused_also_over_a_restart() {
    let mut world = World::new(1).await;
    limit(&world, "orders", 3, HOUR).await;
    for number in 0..8 {
        world.operator.create(&wish(&world, &format!("c{number}"), Custody::Controller, 0)).await.unwrap();
    }
    world.settle("three are live", SOON, async |world| live(world).await == 3).await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(orders_sent(&world), 3, "the others were not even asked for");
    let shown = line(&world, "orders").await;
    assert_eq!((shown.used, shown.left, shown.waiting, shown.source.as_str()), (3, 0, 5, "set"));
    let mut times = Vec::new();
    for number in 0..8 {
        let Some(certificate) = held(&world, &format!("c{number}")).await else { continue };
        assert_eq!(certificate.status, "pending", "nothing failed");
        let order = certificate.order.unwrap();
        let error = order.error.unwrap();
        assert!(error.hint.contains("nothing was sent") && error.cause.contains("3 in 1 h"), "{error:?}");
        times.push(order.retry_at);
    }
    times.sort_unstable();
    assert_eq!(times.len(), 5);
    assert!(times.windows(2).all(|pair| pair[1] - pair[0] == 1_200_000), "one every 20 minutes: {times:?}");
    let overview = world.operator.client().get_overview(api::GetOverviewRequest {}).await.unwrap().into_inner();
    let line = overview.attention.iter().find(|line| line.what == "LIMIT").expect("it is said");
    assert!(line.name == ISSUER && line.why.contains("5 orders wait"), "{line:?}");

    world.controller.kill().await;
    world.controller.start();
    tokio::time::sleep(HOUR / 2).await;
    assert!(orders_sent(&world) <= 5, "what was spent survives: {}", orders_sent(&world));
    world.settle("all are live", 3 * HOUR, async |world| live(world).await == 8).await;
    let orders: Vec<_> = world.ca.log().into_iter().filter(|line| line.kind == RequestKind::NewOrder).collect();
    assert!(orders.iter().all(|line| line.status == 201), "{orders:?}");
    assert_eq!(orders.len(), 8);
    world.check().await;
}

#[tokio::test(start_paused = true)]
async fn the_limit_of_one_set_is_predicted_and_lifted_by_an_owner() {
    let mut world = World::new(1).await;
    limit(&world, "exact-set", 1, 24 * HOUR).await;
    world.operator.create(&wish(&world, "web", Custody::Agent, 0)).await.unwrap();
    world.settle_live("web", SOON).await;
    world.operator.renew("web", "again").await.unwrap();
    world.settle("it is held", SOON, async |world| held(world, "web").await.is_some()).await;
    tokio::time::sleep(HOUR).await;
    assert_eq!(orders_sent(&world), 1, "nothing was sent");
    let limits = world.operator.certificate("web").await.unwrap().limits.expect("it is told of one certificate");
    let [only] = limits.items.as_slice() else { panic!("{limits:?}") };
    let told = (limits.issuer.as_str(), only.kind.as_str(), only.used, only.count, only.waiting);
    assert_eq!(told, (ISSUER, "exact-set", 1, 1, 1), "{limits:?}");
    let certificate = held(&world, "web").await.unwrap();
    assert_eq!(certificate.status, "active");
    assert!(certificate.issues.iter().any(|issue| issue.kind == "limit_holds"), "{:?}", certificate.issues);
    limit(&world, "exact-set", 0, Duration::ZERO).await;
    world.settle("it is ordered", SOON, async |world| orders_sent(world) == 2).await;
    world.settle_live("web", SOON).await;
    world.check().await;
}

#[tokio::test(start_paused = true)]
async fn an_order_that_dies_gives_back_its_certificate_but_not_its_failure() {
    let mut world = World::new(1).await;
    limit(&world, "exact-set", 1, 24 * HOUR).await;
    limit(&world, "failed-authorizations", 2, HOUR).await;
    world.ca.misbehave(e2e::fake_ca::fault::Mischief {
        refuse_validation: Some(("connection", "timeout")),
        ..Default::default()
    });
    world.operator.create(&wish(&world, "web", Custody::Agent, 0)).await.unwrap();
    world
        .settle("two attempts failed", HOUR, async |world| {
            let order = world.operator.certificate("web").await.and_then(|certificate| certificate.order);
            order.is_some_and(|order| order.attempt >= 2) && line(world, "failed-authorizations").await.used == 2
        })
        .await;
    assert_eq!(line(&world, "exact-set").await.used, 0, "nothing was issued");
    world.ca.heal();
    world.operator.renew("web", "now").await.unwrap();
    world.settle("it is held", SOON, async |world| held(world, "web").await.is_some()).await;
    let sent = orders_sent(&world);
    world.settle_live("web", HOUR).await;
    assert_eq!(orders_sent(&world), sent + 1);
    world.check().await;
}

#[tokio::test(start_paused = true)]
async fn a_429_closes_what_it_names_until_its_time_and_nothing_else() {
    let mut world = World::new(1).await;
    let limited = Fault::Problem {
        status: 429,
        kind: "rateLimited",
        detail: "too many certificates (50) already issued for \"example.test\" in the last 168h0m0s",
        retry_after: Some(1_800),
    };
    world.ca.fail(RequestKind::NewOrder, When::First(1), limited);
    let asked_at = world.now_ms();
    world.operator.create(&wish(&world, "web", Custody::Controller, 0)).await.unwrap();
    let is_waiting = async |world: &World| {
        let order = world.operator.certificate("web").await.and_then(|certificate| certificate.order);
        order.is_some_and(|order| order.phase == "waiting" && order.retry_at >= asked_at + 1_800_000)
    };
    world.settle("it waits as the CA says", SOON, is_waiting).await;
    world.operator.create(&wish(&world, "sibling", Custody::Controller, 0)).await.unwrap();
    world.settle("its sibling waits unasked", SOON, async |world| held(world, "sibling").await.is_some()).await;
    let mut elsewhere = wish(&world, "elsewhere", Custody::Controller, 0);
    elsewhere.identifiers = vec!["www.other.test".to_owned()];
    world.dns.set("www.other.test", &[world.agents[0].machine.address()]);
    elsewhere.target = Some(world.agents[0].target("elsewhere", "www.other.test"));
    world.operator.create(&elsewhere).await.unwrap();
    world.settle_live("elsewhere", SOON).await;
    world.operator.renew("web", "now").await.unwrap();
    world.settle("also an operator waits", SOON, async |world| held(world, "web").await.is_some()).await;
    assert_eq!(orders_sent(&world), 2);
    let shown = line(&world, "registered-domain").await;
    assert!(shown.closed_until >= asked_at + 1_800_000 && shown.cause.contains("too many"), "{shown:?}");
    world.settle_live("web", HOUR).await;
    world.settle_live("sibling", HOUR).await;
    let log = world.ca.log();
    let third = log.iter().filter(|line| line.kind == RequestKind::NewOrder).nth(2).unwrap();
    assert!(third.at.as_millisecond() >= asked_at + 1_800_000, "{third:?}");
    world.check().await;
}
