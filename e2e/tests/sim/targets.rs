//! What operators do about where a certificate goes: a target changed in place.

use e2e::world::World;
use proto::operator::v1 as api;
use proto::types::v1::{Command, Custody};
use tonic::Code;

use crate::{SOON, reason, wish};

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
