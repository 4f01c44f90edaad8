//! The road of one certificate (design §4) when nothing fails.

use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

use e2e::fake_ca::Options;
use e2e::fake_ca::fault::RequestKind;
use e2e::world::{Plan, World};
use proto::operator::v1 as api;
use proto::types::v1::{Custody, FileContent, FileSpec, TargetStatus, http01};

use crate::{SOON, served, wish};

#[tokio::test(start_paused = true)]
async fn one_wish_is_ordered_deployed_and_proven_in_either_custody() {
    for custody in [Custody::Agent, Custody::Controller] {
        let mut world = World::new(1).await;
        world.operator.create(&wish(&world, "web", custody, 0)).await.unwrap();
        let certificate = world.settle_live("web", SOON).await;
        let current = certificate.current.unwrap();
        assert_eq!(current.custody(), custody);
        assert_eq!(current.identifiers, ["web.example.test"]);
        assert_eq!(certificate.targets[0].status(), TargetStatus::Applied);
        assert_eq!(served(&world, 0, "web.example.test").unwrap(), current.fingerprint_sha256);
        let key = std::fs::metadata(world.agents[0].dir("web").join("key.pem")).unwrap();
        assert_eq!(key.permissions().mode() & 0o777, 0o600);
        assert_eq!(world.ca.orders().len(), 1);
        world.check().await;
    }
}

#[tokio::test(start_paused = true)]
async fn one_file_may_hold_leaf_chain_and_key_in_either_custody() {
    for custody in [Custody::Agent, Custody::Controller] {
        let mut world = World::new(1).await;
        let mut wish = wish(&world, "web", custody, 0);
        let file = world.agents[0].dir("web").join("site.pem");
        world.agents[0].machine.service().add_site("web.example.test", file.clone(), file.clone());
        let spec = FileSpec {
            content: FileContent::Combined.into(),
            name: "site.pem".to_owned(),
            owner: String::new(),
            mode: 0o600,
        };
        wish.target.as_mut().unwrap().files = vec![spec];
        world.operator.create(&wish).await.unwrap();
        world.settle_live("web", SOON).await;
        let key = || std::fs::read_to_string(&file).unwrap().split_once("-----BEGIN PRIVATE KEY").unwrap().1.to_owned();
        let first = key();
        world.operator.renew("web", "again").await.unwrap();
        world.settle("another key is in the file", SOON, async |_| key() != first).await;
        let certificate = world.settle_live("web", SOON).await;
        assert_eq!(certificate.targets[0].status(), TargetStatus::Applied);
        assert_eq!(served(&world, 0, "web.example.test").unwrap(), certificate.current.unwrap().fingerprint_sha256);
        assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        world.check().await;
    }
}

#[tokio::test(start_paused = true)]
async fn an_issuance_costs_the_ca_no_more_requests_than_a_bare_client() {
    let mut world = World::new(1).await;
    let registered = async |world: &World| !world.ca.accounts().concat().is_empty();
    world.settle("the account is registered with its contact", SOON, registered).await;
    for name in ["first", "second"] {
        let before = world.ca.log().len();
        world.operator.create(&wish(&world, name, Custody::Agent, 0)).await.unwrap();
        world.settle_live(name, SOON).await;
        let spent = world.ca.log().len() - before;
        // newOrder, authorization, challenge, order, finalize, certificate; a bare client needs 7.06 (issue 2).
        assert!(spent <= 7, "{name}: {spent} requests: {:#?}", world.ca.log());
    }
    let counts = world.ca.counts();
    assert_eq!(counts[&RequestKind::NewAccount], 1, "{:#?}", world.ca.log());
    assert_eq!(counts[&RequestKind::NewOrder], 2);
    assert_eq!(world.ca.accounts(), [["mailto:ops@example.test"]]);
}

#[tokio::test(start_paused = true)]
async fn a_webroot_holds_the_token_only_while_the_ca_looks() {
    let mut world = World::new(1).await;
    world.agents[0].machine.start_web("var/www/html").unwrap();
    let mut wish = wish(&world, "web", Custody::Agent, 0);
    wish.http01 = http01::Mode::Webroot(world.agents[0].machine.path("var/www/html").display().to_string());
    world.operator.create(&wish).await.unwrap();
    world.settle_live("web", SOON).await;
    let folder = world.agents[0].machine.path("var/www/html/.well-known/acme-challenge");
    let left = || std::fs::read_dir(&folder).map(|found| found.count()).unwrap_or(0);
    world.settle("the token is withdrawn", SOON, async |_| left() == 0).await;
    world.check().await;
}

#[tokio::test(start_paused = true)]
async fn every_responder_answers_so_that_a_name_may_have_several_addresses() {
    let mut world = World::new(3).await;
    let mut wish = wish(&world, "web", Custody::Agent, 0);
    wish.responders = vec!["h1".to_owned(), "h2".to_owned(), "h3".to_owned()];
    let addresses: Vec<_> = world.agents.iter().map(|site| site.machine.address()).collect();
    world.dns.set("web.example.test", &addresses);
    world.operator.create(&wish).await.unwrap();
    let certificate = world.settle_live("web", SOON).await;
    assert_eq!(certificate.order.unwrap().attempt, 1);
    world.check().await;
}

#[tokio::test(start_paused = true)]
async fn an_offline_responder_delays_nothing_for_long_and_is_named() {
    let mut world = World::new(2).await;
    world.agents[1].kill().await;
    let offline = async |world: &World| world.operator.agents().await.iter().any(|agent| agent.status == "offline");
    world.settle("h2 is seen to be offline", SOON, offline).await;
    let mut wish = wish(&world, "web", Custody::Agent, 0);
    wish.responders = vec!["h1".to_owned(), "h2".to_owned()];
    world.operator.create(&wish).await.unwrap();
    let certificate = world.settle_live("web", Duration::from_secs(60)).await;
    let issue = certificate.issues.iter().find(|issue| issue.kind == "responder_offline").expect("an issue");
    assert!(issue.cause.contains("h2"), "{issue:?}");
    assert!(!issue.action.is_empty());
    world.check().await;
}

#[tokio::test(start_paused = true)]
async fn without_any_responder_the_order_waits_and_goes_on_by_itself() {
    let mut world = World::new(1).await;
    world.agents[0].kill().await;
    let offline = async |world: &World| world.operator.agents().await.iter().any(|agent| agent.status == "offline");
    world.settle("h1 is seen to be offline", SOON, offline).await;
    world.operator.create(&wish(&world, "web", Custody::Agent, 0)).await.unwrap();
    let waiting = async |world: &World| {
        let order = world.operator.certificate("web").await.and_then(|certificate| certificate.order);
        order.is_some_and(|order| order.phase == "waiting")
    };
    world.settle("the order waits", SOON, waiting).await;
    let order = world.operator.certificate("web").await.unwrap().order.unwrap();
    let error = order.error.unwrap();
    assert!(error.message.contains("h1") && !error.hint.is_empty(), "{error:?}");
    assert!(order.retry_at > world.now_ms());
    assert!(world.ca.orders().is_empty(), "nothing is spent at the CA");
    world.check().await;
    world.agents[0].start();
    world.settle_live("web", Duration::from_secs(60)).await;
    world.check().await;
}

#[tokio::test(start_paused = true)]
async fn two_agents_share_one_certificate_in_controller_custody() {
    let mut world = World::new(2).await;
    world.operator.create(&wish(&world, "web", Custody::Controller, 0)).await.unwrap();
    world.settle_live("web", SOON).await;
    let target = world.agents[1].target("web", "web.example.test");
    let request = api::AddTargetRequest {
        certificate: "web".to_owned(),
        target: Some(target),
        request_id: "second".to_owned(),
        dry_run: false,
        agents_label: String::new(),
    };
    world.operator.client().add_target(request).await.unwrap();
    let both = async |world: &World| {
        let certificate = world.operator.certificate("web").await.unwrap_or_default();
        certificate.targets.len() == 2 && world.is_live("web").await
    };
    world.settle("both targets are applied", SOON, both).await;
    let current = world.operator.certificate("web").await.unwrap().current.unwrap().fingerprint_sha256;
    assert_eq!(served(&world, 0, "web.example.test"), Some(current.clone()));
    assert_eq!(served(&world, 1, "web.example.test"), Some(current));
    assert_eq!(world.ca.orders().len(), 1, "a new target needs no new order");
    world.check().await;
}

#[tokio::test(start_paused = true)]
async fn a_key_that_stays_on_one_agent_is_not_promised_to_a_second() {
    let mut world = World::new(2).await;
    world.operator.create(&wish(&world, "web", Custody::Agent, 0)).await.unwrap();
    world.settle_live("web", SOON).await;
    let request = api::AddTargetRequest {
        certificate: "web".to_owned(),
        target: Some(world.agents[1].target("web", "web.example.test")),
        request_id: "second".to_owned(),
        dry_run: false,
        agents_label: String::new(),
    };
    let refusal = world.operator.client().add_target(request).await.unwrap_err();
    let text = String::from_utf8_lossy(refusal.details()).into_owned();
    assert!(text.contains("--custody controller"), "the remedy is told: {refusal:?} {text}");
    world.check().await;
}

#[tokio::test(start_paused = true)]
async fn authorizations_that_are_still_valid_are_used_without_a_challenge() {
    let ca = Options { reuse_authorizations: true, ..Options::default() };
    let mut world = World::begin(Plan { ca, ..Plan::default() }).await;
    world.operator.create(&wish(&world, "web", Custody::Agent, 0)).await.unwrap();
    let first = world.settle_live("web", SOON).await.current.unwrap().id;
    world.operator.renew("web", "again").await.unwrap();
    let renewed = async |world: &World| {
        let certificate = world.operator.certificate("web").await.unwrap_or_default();
        certificate.current.is_some_and(|current| current.id != first) && world.is_live("web").await
    };
    world.settle("renewed", SOON, renewed).await;
    assert_eq!(world.ca.counts()[&RequestKind::Challenge], 1);
    world.check().await;
}

#[tokio::test(start_paused = true)]
async fn a_ca_that_takes_its_time_is_waited_for() {
    let mut world = World::new(1).await;
    let slow = e2e::fake_ca::fault::Mischief { processing_polls: 4, retry_after: Some(7), ..Default::default() };
    world.ca.misbehave(slow);
    world.operator.create(&wish(&world, "web", Custody::Controller, 0)).await.unwrap();
    let certificate = world.settle_live("web", SOON).await;
    assert_eq!(certificate.order.unwrap().attempt, 1);
    let log = world.ca.log();
    // The order is polled until the names are validated, and after finalize until there is a certificate.
    for stage in log.split(|line| line.kind == RequestKind::Finalize) {
        let polls: Vec<_> = stage.iter().filter(|line| line.kind == RequestKind::Order).collect();
        for pair in polls.windows(2) {
            let gap = pair[1].at.duration_since(pair[0].at);
            assert!(gap.as_secs() >= 7, "Retry-After is obeyed: {log:#?}");
        }
    }
    world.check().await;
}
