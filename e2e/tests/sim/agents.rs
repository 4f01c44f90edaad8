//! Agents over time: identities that renew or expire, hosts that are installed anew, agents that are revoked or forgotten,
//! and wishes that change while they are met.

use std::time::Duration;

use e2e::world::World;
use e2e::world::program::CONTROLLER;
use proto::operator::v1 as api;
use proto::types::v1::Custody;

use crate::{SOON, served, wish};

const DAY: Duration = Duration::from_secs(86_400);

async fn agent(world: &World) -> api::Agent {
    world.operator.agents().await.into_iter().next().unwrap_or_default()
}

#[tokio::test(start_paused = true)]
async fn a_running_agent_renews_its_identity_long_before_it_ends() {
    let mut world = World::new(1).await;
    let first = agent(&world).await;
    let renewed = async |world: &World| agent(world).await.identity_serial != first.identity_serial;
    world.settle("the identity is renewed", 2 * DAY, renewed).await;
    let second = agent(&world).await;
    assert!(second.identity_not_after > first.identity_not_after);
    let connected = async |world: &World| agent(world).await.status == "connected";
    world.settle("it is connected with it", SOON, connected).await;
    world.operator.create(&wish(&world, "web", Custody::Agent, 0)).await.unwrap();
    world.settle_live("web", SOON).await;
    world.check().await;
}

#[tokio::test(start_paused = true)]
async fn an_agent_that_slept_for_a_month_comes_back_by_itself() {
    let mut world = World::new(1).await;
    world.operator.create(&wish(&world, "web", Custody::Agent, 0)).await.unwrap();
    world.settle_live("web", SOON).await;
    world.agents[0].stop().await;
    world.controller.stop().await;
    tokio::time::sleep(35 * DAY).await;
    world.controller.start();
    world.settle("it is seen to be expired", SOON, async |world| agent(world).await.status == "expired").await;
    world.agents[0].start();
    let connected = async |world: &World| agent(world).await.status == "connected";
    world.settle("it has a new identity", Duration::from_secs(600), connected).await;
    world.operator.deploy("web", "again").await.unwrap();
    world.settle_live("web", SOON).await;
    world.check().await;
}

#[tokio::test(start_paused = true)]
async fn a_host_installed_anew_gets_its_targets_back_and_a_lost_key_is_replaced() {
    for custody in [Custody::Agent, Custody::Controller] {
        let mut world = World::new(1).await;
        world.operator.create(&wish(&world, "web", custody, 0)).await.unwrap();
        let first = world.settle_live("web", SOON).await.current.unwrap().id;
        world.agents[0].kill().await;
        std::fs::remove_dir_all(world.agents[0].machine.path("var/lib/certwright-agent")).unwrap();
        std::fs::remove_dir_all(world.agents[0].dir("web")).unwrap();
        let request = api::EnrollAgentRequest { name: "h1".to_owned(), replace: true };
        let token = world.operator.client().enroll_agent(request).await.unwrap().into_inner().token;
        world.agents[0].enroll(&token.into()).await.unwrap();
        world.agents[0].start();
        let restored =
            async |world: &World| world.agents[0].dir("web").join("key.pem").exists() && world.is_live("web").await;
        world.settle("the files are back", Duration::from_secs(3600), restored).await;
        let current = world.operator.certificate("web").await.unwrap().current.unwrap();
        assert_eq!(custody == Custody::Agent, current.id != first, "only a lost key needs a new certificate");
        assert_eq!(served(&world, 0, "web.example.test"), Some(current.fingerprint_sha256));
        world.check().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_revoked_agent_stays_out_and_what_it_serves_stays() {
    let mut world = World::new(1).await;
    world.operator.create(&wish(&world, "web", Custody::Agent, 0)).await.unwrap();
    world.settle_live("web", SOON).await;
    let request = api::RevokeAgentRequest { name: "h1".to_owned() };
    world.operator.client().revoke_agent(request).await.unwrap();
    tokio::time::sleep(Duration::from_secs(3600)).await;
    assert_eq!(agent(&world).await.status, "revoked");
    assert!(served(&world, 0, "web.example.test").is_some());
    world.agents[0].stop_if_running().await;
    world.agents[0].start();
    tokio::time::sleep(Duration::from_secs(600)).await;
    assert_eq!(agent(&world).await.status, "revoked");
}

#[tokio::test(start_paused = true)]
async fn enrolment_survives_a_kill_of_the_controller_at_every_commit_and_the_token_is_used_once() {
    use e2e::power::{KillPoint, Step};
    for step in [Step::BeforeSync, Step::AfterSync, Step::NetworkWrite] {
        let mut nth = 1;
        loop {
            let mut world = World::begin(e2e::world::Plan { agents: 1, ..Default::default() }).await;
            let request = api::EnrollAgentRequest { name: "late".to_owned(), replace: false };
            let token = world.operator.client().enroll_agent(request).await.unwrap().into_inner().token.into();
            world.agents[0].kill().await;
            std::fs::remove_dir_all(world.agents[0].machine.path("var/lib/certwright-agent")).unwrap();
            let count = world.controller.switch().count(step);
            world.controller.plan(Some(KillPoint { step, nth: count + nth }));
            let tried = tokio::time::timeout(Duration::from_secs(120), world.agents[0].enroll(&token));
            let tried = tried.await.expect("enrol gives up in time");
            world.revive().await;
            let struck = world.controller.deaths() > 0;
            world.controller.plan(None);
            if tried.is_err() {
                world.agents[0].enroll(&token).await.expect("the same key may try again");
            }
            if world.agents[0].is_down() {
                world.agents[0].kill().await;
            }
            world.agents[0].start_if_stopped();
            let connected = async |world: &World| {
                world.operator.agents().await.iter().any(|agent| agent.name == "late" && agent.status == "connected")
            };
            world.settle(&format!("late is connected to {CONTROLLER}"), SOON, connected).await;
            if !struck {
                break;
            }
            nth += 1;
        }
        assert!(nth > 1, "{step:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn changed_names_and_custody_make_a_new_version() {
    let mut world = World::new(1).await;
    world.operator.create(&wish(&world, "web", Custody::Agent, 0)).await.unwrap();
    let first = world.settle_live("web", SOON).await.current.unwrap().id;
    world.dns.set("www.example.test", &[world.agents[0].machine.address()]);
    let request = api::UpdateCertificateRequest {
        name: "web".to_owned(),
        identifiers: vec!["web.example.test".to_owned(), "www.example.test".to_owned()],
        custody: Some(Custody::Controller.into()),
        ..Default::default()
    };
    world.operator.client().update_certificate(request).await.unwrap();
    let changed = async |world: &World| {
        let current = world.operator.certificate("web").await.and_then(|certificate| certificate.current);
        current.is_some_and(|current| current.id != first) && world.is_live("web").await
    };
    world.settle("the new names are live", SOON, changed).await;
    let current = world.operator.certificate("web").await.unwrap().current.unwrap();
    assert_eq!(current.identifiers, ["web.example.test", "www.example.test"]);
    assert_eq!(current.custody(), Custody::Controller);
    world.check().await;
}

#[tokio::test(start_paused = true)]
async fn two_certificates_for_one_name_do_not_spoil_each_other() {
    let mut world = World::new(1).await;
    let one = wish(&world, "one", Custody::Agent, 0);
    let mut two = wish(&world, "two", Custody::Agent, 0);
    two.identifiers.clone_from(&one.identifiers);
    two.target.as_mut().unwrap().verify.clear();
    world.operator.create(&one).await.unwrap();
    world.operator.create(&two).await.unwrap();
    world.settle_live("one", Duration::from_secs(3600)).await;
    let active = async |world: &World| {
        world.operator.certificate("two").await.is_some_and(|certificate| certificate.status == "active")
    };
    world.settle("the second is active too", Duration::from_secs(3600), active).await;
    let one = world.operator.certificate("one").await.unwrap().current.unwrap();
    let two = world.operator.certificate("two").await.unwrap().current.unwrap();
    assert_ne!(one.fingerprint_sha256, two.fingerprint_sha256);
}

#[tokio::test(start_paused = true)]
async fn fifty_certificates_at_once_are_all_live_within_a_minute() {
    let mut world = World::new(2).await;
    for number in 0..50 {
        let wish = wish(&world, &format!("n{number}"), Custody::Agent, number % 2);
        world.operator.create(&wish).await.unwrap();
    }
    let all = async |world: &World| {
        let certificates = world.operator.certificates().await;
        certificates.len() == 50 && certificates.iter().all(|one| one.status == "active" && one.deployment == "ok")
    };
    world.settle("all are live", Duration::from_secs(60), all).await;
    assert_eq!(world.ca.orders().len(), 50);
    world.check().await;
}
