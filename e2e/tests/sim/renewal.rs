//! When a certificate is renewed: the CA's window (RFC 9773), what is said to be replaced, and what happens when the CA
//! says nonsense about it.

use std::time::Duration;

use e2e::fake_ca::fault::{Fault, RequestKind, When};
use e2e::fake_ca::{Options, RenewalInfo, Window};
use e2e::world::{Plan, World};
use jiff::{SignedDuration, Timestamp};
use proto::clock::Clock as _;
use proto::operator::v1 as api;
use proto::types::v1::Custody;

use crate::{SOON, wish};

const HOUR: Duration = Duration::from_secs(3_600);

/// A live certificate of one day at a CA that says when to renew.
async fn live_world(info: RenewalInfo) -> (World, api::Certificate) {
    let ca = Options { lifetime_seconds: 86_400, ..Options::default() };
    let mut world = World::begin(Plan { ca, ..Plan::default() }).await;
    world.ca.offer_renewal_info(Some(info));
    // The directory that was read when the account was made does not name it yet.
    world.controller.kill().await;
    world.controller.start();
    world.operator.create(&wish(&world, "web", Custody::Agent, 0)).await.unwrap();
    let first = world.settle_live("web", SOON).await;
    (world, first)
}

async fn settle_new_version(world: &mut World, old: &api::Certificate, limit: Duration) -> api::Certificate {
    let renewed = async |world: &World| {
        let now = world.operator.certificate("web").await.and_then(|certificate| certificate.current);
        now.is_some_and(|now| Some(now.id) != old.current.as_ref().map(|old| old.id.clone()))
    };
    world.settle("a new version", limit, renewed).await;
    world.settle_live("web", SOON).await
}

/// Waits until the operator sees that the renewal is planned by the CA's window.
async fn settle_planned(world: &mut World, limit: Duration) -> i64 {
    let planned = async |world: &World| {
        world.operator.certificate("web").await.is_some_and(|certificate| certificate.renew_reason == "renewal_info")
    };
    world.settle("the CA's window counts", limit, planned).await;
    world.operator.certificate("web").await.unwrap().renew_at
}

fn fixed(world: &World, from_hours: i64, to_hours: i64) -> RenewalInfo {
    let at = |hours: i64| world.clock.now() + SignedDuration::from_hours(hours);
    let window = Window::Fixed(at(from_hours), at(to_hours));
    RenewalInfo { window, explanation_url: Some("https://ca.test/why".into()), retry_after: Some("3600".into()) }
}

fn asked(world: &World) -> usize {
    world.ca.counts().get(&RequestKind::RenewalInfo).copied().unwrap_or(0)
}

#[tokio::test(start_paused = true)]
async fn renews_at_the_instant_drawn_once_in_the_cas_window_and_says_what_it_replaces() {
    let (mut world, first) = live_world(RenewalInfo::default()).await;
    let instant = settle_planned(&mut world, SOON).await;
    let current = first.current.clone().unwrap();
    let share = (instant - current.not_before) * 100 / (current.not_after - current.not_before);
    assert!((65..=68).contains(&share), "{share} % of the life");
    for _restart in 0..3 {
        tokio::time::sleep(HOUR * 4).await;
        world.controller.kill().await;
        world.controller.start();
        assert_eq!(settle_planned(&mut world, SOON).await, instant, "asked again, drawn once");
    }
    let questions = asked(&world);
    assert!((2..=3).contains(&questions), "{questions}: every six hours, whatever was restarted");
    let second = settle_new_version(&mut world, &first, HOUR * 6).await;
    let issued = second.current.as_ref().unwrap().not_before + 3_600_000;
    assert!((instant - 1_000..instant + 120_000).contains(&issued), "{issued} for {instant}");
    let orders = world.ca.orders();
    assert_eq!(orders.len(), 2);
    assert!(orders[0].replaces.is_none() && orders[1].replaces.is_some(), "{orders:?}");
    world.check().await;
}

#[tokio::test(start_paused = true)]
async fn a_window_moved_to_the_past_renews_at_the_next_look_and_says_why() {
    let (mut world, first) = live_world(RenewalInfo::default()).await;
    settle_planned(&mut world, SOON).await;
    world.ca.offer_renewal_info(Some(fixed(&world, -48, -1)));
    let second = settle_new_version(&mut world, &first, HOUR * 7).await;
    let told = world.operator.events().await;
    let moved = told.iter().find(|event| event.kind == "renewal.moved").expect("it was told");
    assert!(moved.message.contains("https://ca.test/why"), "{}", moved.message);
    // The CA still says so of the new one, whose validity began after that window: not believed.
    tokio::time::sleep(HOUR * 4).await;
    let now = world.operator.certificate("web").await.unwrap();
    assert_eq!(now.current.unwrap().id, second.current.unwrap().id);
    assert_eq!(now.renew_reason, "lifetime_fraction");
    assert_eq!(world.ca.orders().len(), 2);
    world.check().await;
}

#[tokio::test(start_paused = true)]
async fn an_order_that_may_not_replace_is_asked_for_once_without() {
    for (status, kind) in [(409, "alreadyReplaced"), (404, "malformed"), (403, "unauthorized")] {
        let (mut world, first) = live_world(RenewalInfo::default()).await;
        settle_planned(&mut world, SOON).await;
        let refused = Fault::Problem { status, kind, detail: "not that one", retry_after: None };
        world.ca.fail(RequestKind::NewOrder, When::First(1), refused);
        let before = world.ca.counts()[&RequestKind::NewOrder];
        settle_new_version(&mut world, &first, HOUR * 18).await;
        assert_eq!(world.ca.counts()[&RequestKind::NewOrder], before + 2, "{kind}");
        assert_eq!(world.ca.orders()[1].replaces, None);
        world.check().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_ca_that_says_nonsense_about_renewals_changes_nothing() {
    let window =
        |start: &str, end: &str| Window::Document(serde_json::json!({"suggestedWindow": {"start": start, "end": end}}));
    let cases = [
        (window("2040-01-01T00:00:00Z", "2030-01-01T00:00:00Z"), Some("0")),
        (window("1999-01-01T00:00:00Z", "1999-01-02T00:00:00Z"), Some("1")),
        (window("soon", "later"), Some("never")),
        (Window::Document(serde_json::json!("\u{1b}[31m")), None),
        (window("9000-01-01T00:00:00Z", "9999-12-31T00:00:00Z"), Some("99999999999")),
    ];
    for (window, retry_after) in cases {
        let said = RenewalInfo { window, explanation_url: None, retry_after: retry_after.map(str::to_owned) };
        let (mut world, first) = live_world(said.clone()).await;
        let planned = world.operator.certificate("web").await.unwrap();
        assert_eq!(planned.renew_reason, "lifetime_fraction", "{said:?}");
        tokio::time::sleep(HOUR).await;
        assert!((1..=61).contains(&asked(&world)), "{} questions in an hour: {said:?}", asked(&world));
        settle_new_version(&mut world, &first, HOUR * 23).await;
        let left = first.current.unwrap().not_after - world.now_ms();
        assert!(left > 86_400_000 / 9, "renewed in time: {said:?}");
        world.check().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_ca_that_does_not_answer_about_renewals_is_left_alone_and_renewed_from_all_the_same() {
    for fault in [Fault::Html(502), Fault::Hang, Fault::Garbage, Fault::Refused] {
        let (mut world, first) = live_world(RenewalInfo::default()).await;
        world.ca.fail(RequestKind::RenewalInfo, When::Always, fault);
        let before = asked(&world);
        settle_new_version(&mut world, &first, HOUR * 23).await;
        let questions = asked(&world) - before;
        assert!(questions <= 8, "{questions} questions in twelve hours");
        world.check().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_window_is_learned_for_certificates_of_before_a_ca_offered_any() {
    let ca = Options { lifetime_seconds: 3 * 86_400, ..Options::default() };
    let mut world = World::begin(Plan { ca, ..Plan::default() }).await;
    world.operator.create(&wish(&world, "web", Custody::Agent, 0)).await.unwrap();
    let first = world.settle_live("web", SOON).await;
    assert_eq!(first.renew_reason, "lifetime_fraction");
    world.ca.offer_renewal_info(Some(fixed(&world, 28, 30)));
    let instant = settle_planned(&mut world, HOUR * 26).await;
    let opens = Timestamp::from_millisecond(instant).unwrap();
    assert!(opens > world.clock.now());
    settle_new_version(&mut world, &first, HOUR * 6).await;
    world.check().await;
}
