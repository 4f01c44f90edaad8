//! What happens to a certificate after its first day: renewal, deployment on request, deletion and purge, an agent whose
//! files or identity change.

use std::time::Duration;

use e2e::fake_ca::Options;
use e2e::fake_ca::fault::{Fault, RequestKind, When};
use e2e::fake_host::Script;
use e2e::world::operator::RELOAD;
use e2e::world::{Plan, World};
use proto::operator::v1::RenewCertificateRequest;
use proto::types::v1::{Custody, TargetStatus, VerifyProtocol};

use crate::{SOON, served, wish};

const DAY: Duration = Duration::from_secs(86_400);

async fn version(world: &World) -> String {
    let certificate = world.operator.certificate("web").await.unwrap_or_default();
    certificate.current.map(|current| current.id).unwrap_or_default()
}

async fn live_world(custody: Custody) -> (World, String) {
    let ca = Options { lifetime_seconds: 86_400, ..Options::default() };
    let mut world = World::begin(Plan { ca, ..Plan::default() }).await;
    world.operator.create(&wish(&world, "web", custody, 0)).await.unwrap();
    world.settle_live("web", SOON).await;
    let first = version(&world).await;
    (world, first)
}

async fn settle_new_version(world: &mut World, old: &str, limit: Duration) {
    let renewed = async |world: &World| version(world).await != old && world.is_live("web").await;
    world.settle("a new version is live", limit, renewed).await;
}

#[tokio::test(start_paused = true)]
async fn renews_by_itself_when_a_fraction_of_the_life_is_left_with_a_new_key() {
    for custody in [Custody::Agent, Custody::Controller] {
        let (mut world, first) = live_world(custody).await;
        let old = world.operator.certificate("web").await.unwrap();
        let (old_key, dir) = (world.agents[0].dir("web").join("key.pem"), world.agents[0].dir("web"));
        let old_key = std::fs::read(old_key).unwrap();
        settle_new_version(&mut world, &first, DAY).await;
        let new = world.operator.certificate("web").await.unwrap();
        let renewed_at = new.current.as_ref().unwrap().not_before;
        assert!(renewed_at + 3_601_000 >= old.renew_at, "not before its time");
        assert_ne!(std::fs::read(dir.join("key.pem")).unwrap(), old_key, "a new key with every renewal");
        assert_eq!(served(&world, 0, "web.example.test").unwrap(), new.current.unwrap().fingerprint_sha256);
        assert_eq!(world.ca.orders().len(), 2);
        world.check().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_failed_renewal_hides_nothing_and_heals() {
    let (mut world, first) = live_world(Custody::Agent).await;
    world.ca.fail(RequestKind::NewOrder, When::Always, Fault::Refused);
    let failing = async |world: &World| {
        let order = world.operator.certificate("web").await.and_then(|certificate| certificate.order);
        order.is_some_and(|order| order.phase == "waiting")
    };
    world.settle("the renewal fails", DAY, failing).await;
    let certificate = world.operator.certificate("web").await.unwrap();
    assert_eq!((certificate.status.as_str(), certificate.deployment.as_str()), ("active", "ok"));
    let order = certificate.order.unwrap();
    assert!(order.error.is_some() && order.retry_at > world.now_ms());
    assert!(certificate.issues.iter().any(|issue| issue.kind == "renewal_failing"), "{:?}", certificate.issues);
    world.check().await;
    world.ca.heal();
    settle_new_version(&mut world, &first, Duration::from_secs(3 * 3600)).await;
    world.check().await;
}

#[tokio::test(start_paused = true)]
async fn renew_asked_twice_with_one_request_id_is_one_order() {
    let (mut world, first) = live_world(Custody::Agent).await;
    let one = world.operator.renew("web", "same").await.unwrap();
    let two = world.operator.renew("web", "same").await.unwrap();
    assert_eq!(one.job_id, two.job_id);
    settle_new_version(&mut world, &first, SOON).await;
    tokio::time::sleep(Duration::from_secs(600)).await;
    assert_eq!(world.ca.orders().len(), 2);
    world.check().await;
}

#[tokio::test(start_paused = true)]
async fn deploy_asked_runs_the_reload_again_without_a_new_order() {
    let (mut world, first) = live_world(Custody::Agent).await;
    let before = world.agents[0].machine.ran().len();
    world.operator.deploy("web", "again").await.unwrap();
    let again = async |world: &World| world.agents[0].machine.ran().len() > before && world.is_live("web").await;
    world.settle("the reload ran again", SOON, again).await;
    assert_eq!(version(&world).await, first);
    assert_eq!(world.ca.orders().len(), 1);
    world.check().await;
}

#[tokio::test(start_paused = true)]
async fn a_service_that_keeps_the_old_leaf_keeps_its_files_and_is_tried_again() {
    let (mut world, first) = live_world(Custody::Agent).await;
    world.agents[0].machine.script(&RELOAD, Script::ReloadInVain);
    world.operator.renew("web", "again").await.unwrap();
    let rolled_back = async |world: &World| {
        let certificate = world.operator.certificate("web").await.unwrap_or_default();
        let target =
            certificate.targets.first().map(|target| (target.status(), target.problem.clone(), target.retry_at));
        target.is_some_and(|(status, problem, retry_at)| {
            status == TargetStatus::RolledBack
                && problem.is_some_and(|problem| !problem.hint.is_empty())
                && retry_at > 0
        })
    };
    world.settle("it is rolled back", SOON, rolled_back).await;
    assert_ne!(version(&world).await, first, "the certificate itself is fine");
    world.check().await;
    world.agents[0].machine.script(&RELOAD, Script::Reload);
    world.settle_live("web", Duration::from_secs(3600)).await;
    assert_eq!(world.ca.orders().len(), 2, "a failed deployment never orders again");
    world.check().await;
}

#[tokio::test(start_paused = true)]
async fn a_service_that_works_is_disturbed_less_and_less() {
    let (mut world, _first) = live_world(Custody::Agent).await;
    let before = world.agents[0].machine.ran().len();
    world.agents[0].machine.script(&RELOAD, Script::ReloadInVain);
    world.operator.renew("web", "again").await.unwrap();
    tokio::time::sleep(Duration::from_secs(4 * 3600)).await;
    let reloads = world.agents[0].machine.ran().len() - before;
    assert_eq!(reloads, 3 * 2, "three attempts in four hours, each with the reload that takes it back");
    let target = world.operator.certificate("web").await.unwrap().targets.remove(0);
    assert_eq!(target.status(), TargetStatus::RolledBack);
    assert!(target.problem.as_ref().is_some_and(|problem| problem.hint.contains("targets deploy NAME")), "{target:?}");

    world.operator.deploy("web", "now").await.unwrap();
    let again = async |world: &World| world.agents[0].machine.ran().len() > before + reloads;
    world.settle("deploy now reloads", SOON, again).await;
    world.agents[0].machine.script(&RELOAD, Script::Reload);
    world.settle_live("web", Duration::from_secs(3600)).await;
    world.check().await;
}

#[tokio::test(start_paused = true)]
async fn a_service_that_never_showed_a_certificate_of_ours_is_not_reloaded_for_ever() {
    let mut world = World::new(1).await;
    world.agents[0].machine.script(&RELOAD, Script::ReloadInVain);
    world.operator.create(&wish(&world, "web", Custody::Agent, 0)).await.unwrap();
    tokio::time::sleep(Duration::from_secs(4 * 3600)).await;
    let reloads = world.agents[0].machine.ran().len();
    assert!((2..=3).contains(&reloads), "{reloads} reloads in vain");
    let target = world.operator.certificate("web").await.unwrap().targets.remove(0);
    assert_eq!(target.status(), TargetStatus::NotLive);
    assert!(target.problem.as_ref().is_some_and(|problem| problem.hint.contains("targets deploy NAME")), "{target:?}");
    world.agents[0].machine.reload().unwrap();
    world.settle_live("web", Duration::from_secs(3600)).await;
    assert_eq!(world.agents[0].machine.ran().len(), reloads, "live is seen without one more reload");
    world.check().await;
}

#[tokio::test(start_paused = true)]
async fn a_mail_server_without_starttls_is_quoted_and_proven_once_it_offers_it() {
    let mut world = World::new(1).await;
    let machine = world.agents[0].machine.clone();
    machine.start_mail(25).unwrap();
    machine.service().offer_starttls(false);
    let mut wish = wish(&world, "web", Custody::Agent, 0);
    let endpoint = &mut wish.target.as_mut().unwrap().verify[0];
    endpoint.address = "127.0.0.1:25".to_owned();
    endpoint.set_protocol(VerifyProtocol::Smtp);
    world.operator.create(&wish).await.unwrap();
    let quoted = async |world: &World| {
        let certificate = world.operator.certificate("web").await.unwrap_or_default();
        let problem = certificate.targets.first().and_then(|target| target.problem.clone()).unwrap_or_default();
        problem.message.contains("smtp://127.0.0.1:25") && problem.cause.contains("offers no STARTTLS: 250-mail")
    };
    world.settle("the refusal is quoted", SOON, quoted).await;
    machine.service().offer_starttls(true);
    world.settle_live("web", Duration::from_secs(3600)).await;
    assert_eq!(world.ca.orders().len(), 1);
    world.check().await;
}

#[tokio::test(start_paused = true)]
async fn a_reload_that_fails_or_hangs_is_told_and_retried_without_a_new_order() {
    for script in [Script::Exit(1, "nginx: [emerg] unknown directive\u{1b}[31m"), Script::Hang] {
        let mut world = World::new(1).await;
        world.agents[0].machine.script(&RELOAD, script.clone());
        world.operator.create(&wish(&world, "web", Custody::Agent, 0)).await.unwrap();
        let failed = async |world: &World| {
            let certificate = world.operator.certificate("web").await.unwrap_or_default();
            certificate.targets.first().is_some_and(|target| target.status() == TargetStatus::Failed)
        };
        world.settle("the deployment fails", SOON, failed).await;
        let certificate = world.operator.certificate("web").await.unwrap();
        assert_eq!(certificate.status, "active");
        let target = &certificate.targets[0];
        let problem = target.problem.clone().unwrap();
        assert!(!problem.reason.is_empty() && !problem.hint.is_empty() && target.retry_at > 0, "{problem:?}");
        let told = format!("{problem:?} {:?}", target.steps);
        assert!(!told.contains('\u{1b}'), "{told}");
        world.agents[0].machine.script(&RELOAD, Script::Reload);
        world.settle_live("web", Duration::from_secs(3600)).await;
        assert_eq!(world.ca.orders().len(), 1);
        world.check().await;
    }
}

#[tokio::test(start_paused = true)]
async fn delete_stops_managing_and_leaves_the_files() {
    let (mut world, _first) = live_world(Custody::Agent).await;
    world.operator.delete("web", false).await.unwrap();
    let gone = async |world: &World| world.operator.certificates_told().await.is_some_and(|all| all.is_empty());
    world.settle("the certificate is gone", SOON, gone).await;
    tokio::time::sleep(DAY * 4 / 5).await;
    assert!(world.agents[0].dir("web").join("key.pem").exists(), "files stay");
    assert!(served(&world, 0, "web.example.test").is_some(), "and are served");
    assert_eq!(world.ca.orders().len(), 1, "no renewal any more");
    world.check().await;
}

#[tokio::test(start_paused = true)]
async fn purge_removes_the_files_only_once_nothing_serves_them() {
    let (mut world, _first) = live_world(Custody::Agent).await;
    world.operator.delete("web", true).await.unwrap();
    tokio::time::sleep(Duration::from_secs(3600)).await;
    assert!(world.agents[0].dir("web").join("key.pem").exists(), "it is still served");
    assert!(world.operator.certificate("web").await.unwrap().deleting);
    world.agents[0].machine.service().remove_site("web.example.test");
    world.agents[0].machine.reload().unwrap();
    let gone = async |world: &World| world.operator.certificates_told().await.is_some_and(|all| all.is_empty());
    world.settle("the certificate is gone", DAY, gone).await;
    assert!(!world.agents[0].dir("web").join("key.pem").exists());
    assert!(!world.agents[0].dir("web").join("fullchain.pem").exists());
    world.check().await;
}

#[tokio::test(start_paused = true)]
async fn a_name_can_be_used_again_after_delete() {
    let (mut world, _first) = live_world(Custody::Agent).await;
    world.operator.delete("web", false).await.unwrap();
    let gone = async |world: &World| world.operator.certificates_told().await.is_some_and(|all| all.is_empty());
    world.settle("the certificate is gone", SOON, gone).await;
    let mut wish = wish(&world, "web", Custody::Controller, 0);
    wish.identifiers = vec!["web.example.test".to_owned()];
    let mut request = wish.request();
    request.request_id = "create-web-2".to_owned();
    world.operator.client().create_certificate(request).await.unwrap();
    world.settle_live("web", SOON).await;
    world.check().await;
}

#[tokio::test(start_paused = true)]
async fn an_order_that_gains_nothing_is_locked_and_an_override_says_why() {
    let (mut world, first) = live_world(Custody::Agent).await;
    let ask = async |world: &World, reason: &str| {
        let request =
            RenewCertificateRequest { name: "web".into(), override_lock: reason.into(), ..Default::default() };
        world.operator.client().renew_certificate(request).await
    };
    let refused = ask(&world, "").await.unwrap_err();
    assert!(refused.message().contains("locked until"), "{refused:?}");
    let seen = world.operator.certificate("web").await.unwrap();
    assert!(seen.lock_opens_at > world.now_ms() && seen.lock_opens_at <= seen.renew_at, "{seen:?}");
    assert!(ask(&world, "  ").await.is_err(), "no reason");
    ask(&world, "the proxy\u{1b}[31m lost its key").await.unwrap();
    settle_new_version(&mut world, &first, SOON).await;
    let told = world.operator.events().await;
    let told = told.iter().find(|event| event.kind == "certificate.lock_overridden").unwrap();
    assert!(told.message.contains("the proxy<U+001B>[31m lost its key"), "{}", told.message);

    // A failed order may be tried again at once, and a changed wish is no second order.
    world.ca.fail(RequestKind::NewOrder, When::Always, Fault::Refused);
    ask(&world, "again").await.unwrap();
    let failing = async |world: &World| {
        let order = world.operator.certificate("web").await.and_then(|certificate| certificate.order);
        order.is_some_and(|order| order.phase == "waiting")
    };
    world.settle("it fails", SOON, failing).await;
    world.ca.heal();
    let second = version(&world).await;
    ask(&world, "").await.unwrap();
    settle_new_version(&mut world, &second, SOON).await;
    assert_eq!(world.ca.orders().len(), 3);
    world.check().await;
}
