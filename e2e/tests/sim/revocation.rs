//! Revocation (RFC 8555 §7.6): wished once, done once whatever dies in between, and what is revoked is replaced at once.

use std::time::Duration;

use e2e::fake_ca::fault::{Fault, RequestKind, When};
use e2e::power::{KillPoint, Step};
use e2e::world::World;
use proto::operator::v1 as api;
use proto::types::v1::Custody;
use tonic::Code;

use crate::{SOON, served, wish};

/// A program that was killed is back after this, and back-off stays below it.
const RECOVERY: Duration = Duration::from_secs(20 * 60);
/// RFC 5280 §5.3.1.
const KEY_COMPROMISE: u64 = 1;

async fn revoke(world: &World, reason: &str, serial: &str) -> Result<api::CertificateAccepted, tonic::Status> {
    let request = api::RevokeCertificateRequest {
        name: "web".to_owned(),
        request_id: format!("revoke-{serial}"),
        serial: serial.to_owned(),
        reason: reason.to_owned(),
    };
    world.operator.client().revoke_certificate(request).await.map(tonic::Response::into_inner)
}

async fn live(custody: Custody) -> (World, api::Version) {
    let mut world = World::new(1).await;
    world.operator.create(&wish(&world, "web", custody, 0)).await.unwrap();
    let current = world.settle_live("web", SOON).await.current.unwrap();
    (world, current)
}

async fn replaced(world: &mut World, old: &api::Version) {
    let renewed = async |world: &World| {
        assert!(served(world, 0, "web.example.test").is_some(), "something is served at every instant");
        let current = world.operator.certificate("web").await.and_then(|certificate| certificate.current);
        current.is_some_and(|current| current.id != old.id) && world.is_live("web").await
    };
    world.settle("it is replaced", RECOVERY, renewed).await;
}

#[tokio::test(start_paused = true)]
async fn what_is_revoked_is_replaced_at_once_with_a_new_key() {
    for custody in [Custody::Agent, Custody::Controller] {
        let (mut world, first) = live(custody).await;
        let key = std::fs::read(world.agents[0].dir("web").join("key.pem")).unwrap();
        let job = revoke(&world, "keyCompromise", "").await.unwrap().job_id;
        replaced(&mut world, &first).await;
        assert_eq!(world.ca.revoked(), [(0, KEY_COMPROMISE)]);
        assert_ne!(std::fs::read(world.agents[0].dir("web").join("key.pem")).unwrap(), key);
        assert_eq!(world.operator.job(&job).await.state, "succeeded");
        let kinds: Vec<_> = world.operator.events().await.into_iter().map(|event| event.kind).collect();
        assert!(kinds.contains(&"certificate.revoke_asked".into()) && kinds.contains(&"version.revoked".into()));
        assert_eq!(world.ca.orders().len(), 2);
        let request = api::ListVersionsRequest { certificate: "web".into() };
        let versions = world.operator.client().list_versions(request).await.unwrap().into_inner().items;
        let revoked: Vec<_> = versions.iter().map(|one| (one.revoked_at != 0, one.revoked_reason.as_str())).collect();
        assert_eq!(revoked, [(false, ""), (true, "keyCompromise")], "the history says which one");
        // An earlier version is revoked without touching the current one.
        let second = world.operator.certificate("web").await.unwrap().current.unwrap();
        revoke(&world, "superseded", &second.serial.to_uppercase()).await.unwrap();
        replaced(&mut world, &second).await;
        let third = world.operator.certificate("web").await.unwrap().current.unwrap();
        assert_eq!(revoke(&world, "superseded", &first.serial).await.map(|_| ()).ok(), Some(()));
        tokio::time::sleep(Duration::from_secs(3600)).await;
        assert_eq!(world.operator.certificate("web").await.unwrap().current.unwrap().id, third.id);
        world.check().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_ca_that_is_away_is_asked_again_and_meanwhile_the_job_says_why() {
    let (mut world, first) = live(Custody::Agent).await;
    world.ca.fail(RequestKind::Revoke, When::First(2), Fault::Refused);
    let job = revoke(&world, "keyCompromise", "").await.unwrap().job_id;
    let waits = async |world: &World| world.operator.job(&job).await.state == "waiting";
    world.settle("the job waits", SOON, waits).await;
    let waiting = world.operator.job(&job).await;
    assert!(waiting.retry_at > world.now_ms() && !waiting.problem.unwrap().hint.is_empty());
    assert_eq!(world.operator.certificate("web").await.unwrap().status, "active", "nothing is revoked yet");
    replaced(&mut world, &first).await;
    assert_eq!(world.ca.revoked().len(), 1);
    world.check().await;
}

#[tokio::test(start_paused = true)]
async fn a_wrong_wish_is_refused_and_changes_nothing() {
    let (world, _) = live(Custody::Agent).await;
    for (reason, serial) in [("caCompromise", ""), ("superseded", "00ff")] {
        assert_eq!(revoke(&world, reason, serial).await.unwrap_err().code(), Code::InvalidArgument);
    }
    assert!(world.ca.revoked().is_empty());
    world.check().await;
}

#[tokio::test(start_paused = true)]
async fn a_revocation_survives_a_death_at_every_commit_and_request() {
    for (step, stride) in [(Step::BeforeSync, 4), (Step::AfterSync, 5), (Step::CaRequest, 3), (Step::CaReply, 3)] {
        let mut nth = 1;
        loop {
            let (mut world, first) = live(Custody::Agent).await;
            let count = world.controller.switch().count(step);
            world.controller.plan(Some(KillPoint { step, nth: count + nth }));
            let accepted = async |world: &World| revoke(world, "superseded", "").await.is_ok();
            world.settle("the wish is accepted, once", RECOVERY, accepted).await;
            replaced(&mut world, &first).await;
            world.revive().await;
            world.controller.plan(None);
            assert_eq!(world.ca.revoked(), [(0, 4)], "{step:?} {nth}");
            assert_eq!(world.ca.orders().len(), 2, "{step:?} {nth}");
            world.check().await;
            if world.controller.deaths() == 0 {
                break;
            }
            nth += stride;
            assert!(nth < 200, "{step:?} has no end");
        }
        assert!(nth > 1, "{step:?} never struck");
    }
}
