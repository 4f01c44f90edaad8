//! What operators do about where a certificate goes: a target changed in place, an older version put back.

use std::time::Duration;

use e2e::fake_ca::Options;
use e2e::world::{Plan, World};
use proto::operator::v1 as api;
use proto::types::v1::{Command, Custody};
use tonic::Code;

use crate::{SOON, reason, served, wish};

/// The target of `web` on the first machine, as it is read.
async fn target(world: &World) -> api::Target {
    world.operator.certificate("web").await.unwrap().targets.remove(0)
}

fn set(target: &api::Target, spec: api::TargetSpec) -> api::SetTargetRequest {
    api::SetTargetRequest {
        certificate: "web".to_owned(),
        target_id: target.id.clone(),
        expected_revision: target.revision,
        target: Some(spec),
        request_id: proto::id::random_id(),
        dry_run: false,
    }
}

#[tokio::test(start_paused = true)]
async fn a_changed_target_is_deployed_anew_and_loses_the_files_it_no_longer_names() {
    let mut world = World::new(1).await;
    world.operator.create(&wish(&world, "web", Custody::Agent, 0)).await.unwrap();
    world.settle_live("web", SOON).await;
    let (old, dir) = (target(&world).await, world.agents[0].dir("web"));
    assert!(dir.join("chain.pem").exists());
    let mut spec = old.spec.clone().unwrap();
    spec.files.retain(|file| file.name != "chain.pem");
    spec.files.iter_mut().filter(|file| file.name == "key.pem").for_each(|file| file.mode = 0o640);

    let mut client = world.operator.client();
    let rehearsed = client.set_target(api::SetTargetRequest { dry_run: true, ..set(&old, spec.clone()) }).await;
    let shown = rehearsed.unwrap().into_inner().certificate.unwrap().targets.remove(0);
    assert_eq!((shown.spec.unwrap().files.len(), target(&world).await), (3, old.clone()), "nothing is changed yet");

    let request = set(&old, spec.clone());
    let accepted = client.set_target(request.clone()).await.unwrap().into_inner();
    assert_eq!(accepted.certificate.unwrap().deployment, "pending", "what was proven is another wish");
    let again = client.set_target(request).await.unwrap().into_inner();
    assert_eq!(again.job_id, accepted.job_id, "a repeated request is the same");
    world.settle_live("web", SOON).await;
    assert!(!dir.join("chain.pem").exists() && dir.join("fullchain.pem").exists());
    assert_eq!(world.operator.job(&accepted.job_id).await.state, "succeeded");
    assert_eq!(world.ca.orders().len(), 1, "nothing is ordered for it");

    let late = client.set_target(set(&old, spec.clone())).await.unwrap_err();
    assert_eq!((late.code(), reason(&late).as_str()), (Code::Aborted, "CHANGED_MEANWHILE"));
    let same = client.set_target(set(&target(&world).await, spec.clone())).await.unwrap().into_inner();
    assert!(same.job_id.is_empty(), "nothing changes, nothing is done");
    spec.reload.push(Command { argv: vec!["/usr/bin/unknown".to_owned()] });
    let refused = client.set_target(set(&target(&world).await, spec)).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument, "the agent's policy counts as for a new one: {refused:?}");
    let event = world.operator.events().await.into_iter().find(|event| event.kind == "target.changed").unwrap();
    assert!(event.message.ends_with("on h1: files"), "{}", event.message);
    world.check().await;
}

async fn current(world: &World) -> api::Version {
    world.operator.certificate("web").await.unwrap_or_default().current.unwrap_or_default()
}

async fn deploy_version(world: &World, version: &str) -> Result<api::CertificateAccepted, tonic::Status> {
    let request = api::DeployCertificateRequest {
        name: "web".to_owned(),
        version: version.to_owned(),
        request_id: proto::id::random_id(),
        ..Default::default()
    };
    world.operator.client().deploy_certificate(request).await.map(tonic::Response::into_inner)
}

async fn settle_served(world: &mut World, fingerprint: &str, limit: Duration) {
    let is_served = async |world: &World| {
        let certificate = world.operator.certificate("web").await.unwrap_or_default();
        certificate.deployment == "ok" && served(world, 0, "web.example.test").as_deref() == Some(fingerprint)
    };
    world.settle("the version is served", limit, is_served).await;
}

/// A certificate of a day, renewed once: its two versions, the older one first.
async fn renewed_world(custody: Custody) -> (World, [api::Version; 2]) {
    let ca = Options { lifetime_seconds: 86_400, ..Options::default() };
    let mut world = World::begin(Plan { ca, ..Plan::default() }).await;
    world.operator.create(&wish(&world, "web", custody, 0)).await.unwrap();
    world.settle_live("web", SOON).await;
    let first = current(&world).await;
    tokio::time::sleep(Duration::from_secs(3_600)).await;
    world.operator.renew("web", "second").await.unwrap();
    let renewed = async |world: &World| current(world).await.id != first.id && world.is_live("web").await;
    world.settle("it is renewed", SOON, renewed).await;
    let second = current(&world).await;
    (world, [first, second])
}

#[tokio::test(start_paused = true)]
async fn targets_go_back_to_an_older_version_and_renewal_goes_on() {
    for custody in [Custody::Agent, Custody::Controller] {
        let (mut world, [first, second]) = renewed_world(custody).await;
        let planned = world.operator.certificate("web").await.unwrap().renew_at;
        let accepted = deploy_version(&world, &first.serial.to_uppercase()).await.unwrap();
        assert!(accepted.warnings[0].contains("renewal goes on"), "{:?}", accepted.warnings);
        settle_served(&mut world, &first.fingerprint_sha256, SOON).await;
        assert_eq!(world.operator.job(&accepted.job_id).await.state, "succeeded");
        let seen = world.operator.certificate("web").await.unwrap();
        assert_eq!((seen.renew_at, &seen.current.as_ref().unwrap().id), (planned, &second.id), "renewal is not fooled");
        assert_eq!(seen.rollback.unwrap().version.unwrap().id, first.id);
        assert!(seen.issues.iter().any(|issue| issue.kind == "rolled_back" && !issue.action.is_empty()));
        let overview = world.operator.client().get_overview(api::GetOverviewRequest {}).await.unwrap().into_inner();
        assert!(overview.attention.iter().any(|line| line.what == "ROLLED BACK"), "{:?}", overview.attention);
        let listed = api::ListVersionsRequest { certificate: "web".to_owned() };
        let listed = world.operator.client().list_versions(listed).await.unwrap().into_inner().items;
        let flags: Vec<_> = listed.iter().map(|one| (one.current, one.deployed, one.deployable)).collect();
        assert_eq!(flags, [(true, false, true), (false, true, true)], "both can still be deployed");

        // The same once more over restarts of both, and deploy now repeats it.
        world.controller.kill().await;
        world.agents[0].kill().await;
        world.controller.start();
        world.agents[0].start();
        world.operator.deploy("web", "again").await.unwrap();
        settle_served(&mut world, &first.fingerprint_sha256, SOON).await;

        deploy_version(&world, "current").await.unwrap();
        settle_served(&mut world, &second.fingerprint_sha256, SOON).await;
        let twice = deploy_version(&world, "current").await.unwrap_err();
        assert_eq!(twice.code(), Code::InvalidArgument, "{twice:?}");

        deploy_version(&world, &first.id).await.unwrap();
        settle_served(&mut world, &first.fingerprint_sha256, SOON).await;
        let renewed = async |world: &World| {
            let seen = world.operator.certificate("web").await.unwrap_or_default();
            seen.rollback.is_none() && seen.current.is_some_and(|current| current.id != second.id)
        };
        world.settle("the next version ends it", Duration::from_secs(86_400), renewed).await;
        world.settle_live("web", SOON).await;
        assert_eq!(world.ca.orders().len(), 3, "nothing is ordered for a rollback");
        world.check().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_rollback_ends_before_the_older_version_does_and_what_cannot_serve_is_refused() {
    let (mut world, [first, second]) = renewed_world(Custody::Controller).await;
    let update = api::UpdateCertificateRequest { name: "web".into(), auto_renew: Some(false), ..Default::default() };
    world.operator.client().update_certificate(update).await.unwrap();
    deploy_version(&world, &first.id).await.unwrap();
    settle_served(&mut world, &first.fingerprint_sha256, SOON).await;
    settle_served(&mut world, &second.fingerprint_sha256, Duration::from_secs(22 * 3_600)).await;
    assert!(world.now_ms() < first.not_after - 2 * 3_600_000, "in time");
    let told = world.operator.events().await;
    assert!(told.iter().any(|event| event.kind == "rollback.ended" && event.message.contains("little of its life")));
    let late = deploy_version(&world, &first.id).await.unwrap_err();
    assert!(late.message().contains("too little of its life"), "{late:?}");
    let unknown = deploy_version(&world, "nothing\u{1b}").await.unwrap_err();
    assert_eq!(unknown.code(), Code::InvalidArgument, "{unknown:?}");
    world.check().await;
}

#[tokio::test(start_paused = true)]
async fn a_version_that_is_revoked_is_no_longer_gone_back_to() {
    let (mut world, [first, second]) = renewed_world(Custody::Controller).await;
    deploy_version(&world, &first.id).await.unwrap();
    settle_served(&mut world, &first.fingerprint_sha256, SOON).await;
    let revoke = api::RevokeCertificateRequest {
        name: "web".into(),
        serial: first.serial.clone(),
        reason: "superseded".into(),
        ..Default::default()
    };
    world.operator.client().revoke_certificate(revoke).await.unwrap();
    settle_served(&mut world, &second.fingerprint_sha256, SOON).await;
    assert!(world.operator.certificate("web").await.unwrap().rollback.is_none());
    let refused = deploy_version(&world, &first.id).await.unwrap_err();
    assert!(refused.message().contains("was revoked"), "{refused:?}");
    world.check().await;
}
