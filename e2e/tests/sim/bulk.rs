//! Acts on many certificates: renewed, re-keyed or revoked as one job. Each once, whatever dies in between; what is passed
//! over is named with its reason; what has not begun can be taken back.

use std::collections::BTreeMap;
use std::time::Duration;

use e2e::fake_ca::fault::{Fault, RequestKind, When};
use e2e::power::{KillPoint, Step};
use e2e::world::World;
use e2e::world::operator::Wish;
use jiff::SignedDuration;
use proto::operator::v1 as api;
use proto::types::v1::Custody;
use tonic::Code;

use crate::{SOON, served, wish};

/// What a killed program and the CA's pace need for some hundred orders.
const RECOVERY: Duration = Duration::from_secs(3_600);
/// Fleet of the crash test.
const MANY: usize = 100;

fn request(act: &str) -> api::ActOnCertificatesRequest {
    api::ActOnCertificatesRequest {
        act: act.to_owned(),
        all: true,
        // Scenarios act on what was just issued.
        override_lock: "scenario".to_owned(),
        reason: "superseded".to_owned(),
        request_id: format!("{act}-all"),
        ..Default::default()
    }
}

/// So many certificates without targets, each with its first version.
async fn fleet(world: &mut World, count: usize) {
    for number in 0..count {
        let mut wish = Wish::new(&format!("w{number:03}"), Custody::Controller);
        world.dns.set(&wish.identifiers[0], &[world.agents[0].machine.address()]);
        wish.responders = vec![world.agents[0].machine.name().to_owned()];
        world.operator.create(&wish).await.unwrap();
    }
    let issued = async |world: &World| {
        world.ca.issues().len() == count
            && world.operator.certificates().await.iter().all(|certificate| certificate.current.is_some())
    };
    world.settle("every certificate has its first version", RECOVERY, issued).await;
}

async fn ended(world: &mut World, job: &str) -> api::Job {
    let ended = async |world: &World| {
        let request = api::GetJobRequest { id: job.to_owned() };
        world.operator.client().get_job(request).await.is_ok_and(|job| job.into_inner().finished_at > 0)
    };
    world.settle("the act has ended", RECOVERY, ended).await;
    world.operator.job(job).await
}

/// How many versions of each name there are.
fn versions(world: &World) -> BTreeMap<String, usize> {
    let mut versions = BTreeMap::new();
    for issue in world.ca.issues() {
        *versions.entry(issue.identifiers[0].clone()).or_default() += 1;
    }
    versions
}

#[tokio::test(start_paused = true)]
async fn a_hundred_are_renewed_once_each_although_the_controller_dies_while_it_asks() {
    let mut world = World::new(1).await;
    fleet(&mut world, MANY).await;
    let accepted = world.operator.act(request("renew")).await.unwrap();
    assert_eq!((accepted.total, accepted.skipped_total), (100, 0));
    // Two syncs a commit, ten sub-jobs a commit, and what the first orders write meanwhile: it dies in the middle.
    for _ in 0..3 {
        let count = world.controller.switch().count(Step::BeforeSync);
        world.controller.plan(Some(KillPoint { step: Step::BeforeSync, nth: count + 25 }));
        tokio::time::sleep(Duration::from_secs(5)).await;
        world.revive().await;
    }
    world.controller.plan(None);
    assert!(world.controller.deaths() > 0, "it died");
    // Said again, nothing more is done.
    let again = world.operator.act(request("renew")).await.unwrap();
    assert_eq!(again.job_id, accepted.job_id);
    let job = ended(&mut world, &accepted.job_id).await;
    let batch = job.batch.unwrap();
    assert_eq!((job.state.as_str(), batch.total, batch.made, batch.succeeded), ("succeeded", 100, 100, 100));
    assert_eq!(versions(&world).into_values().collect::<Vec<_>>(), vec![2; MANY]);
    // Sub-jobs are the parent's, and do not stand among the others.
    let subs = world.operator.sub_jobs(&accepted.job_id).await;
    assert!(subs.len() == 100 && subs.iter().all(|sub| sub.parent == accepted.job_id && sub.state == "succeeded"));
    let jobs = world.operator.client().list_jobs(api::ListJobsRequest::default()).await.unwrap().into_inner().items;
    assert!(jobs[0].id == accepted.job_id && jobs.iter().all(|job| job.parent.is_empty()));
    world.check().await;
}

#[tokio::test(start_paused = true)]
async fn a_rehearsal_does_nothing_and_names_each_that_is_passed_over() {
    let mut world = World::new(1).await;
    fleet(&mut world, 4).await;
    for name in ["w000", "w001", "w002", "w003"] {
        let update = api::UpdateCertificateRequest { name: name.into(), auto_renew: Some(false), ..Default::default() };
        world.operator.client().update_certificate(update).await.unwrap();
    }
    // All are locked while they are new.
    let locked = api::ActOnCertificatesRequest { override_lock: String::new(), ..request("renew") };
    let refused = world.operator.act(locked.clone()).await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition, "{refused:?}");
    world.clock.leap(SignedDuration::from_hours(65 * 24));
    tokio::time::sleep(Duration::from_secs(120)).await;
    world.operator.renew("w003", "one").await.unwrap();
    world.settle("w003 is new", SOON, async |world| world.ca.issues().len() == 5).await;
    world.operator.pause("w002", true).await.unwrap();
    let rehearse = api::ActOnCertificatesRequest { rehearse: true, ..locked.clone() };
    let plan = world.operator.act(rehearse).await.unwrap();
    assert_eq!((plan.job_id.as_str(), plan.names.as_slice()), ("", ["w000".to_owned(), "w001".to_owned()].as_slice()));
    let skipped: Vec<_> = plan.skipped.iter().map(|one| (one.name.as_str(), one.reason.as_str())).collect();
    assert_eq!(skipped, [("w002", "paused"), ("w003", "locked")]);
    assert!(plan.skipped[1].why.starts_with("locked until 2"), "{plan:?}");
    tokio::time::sleep(Duration::from_secs(600)).await;
    assert_eq!(world.ca.orders().len(), 5, "nothing was done");
    let other = api::ActOnCertificatesRequest { expected: 3, ..locked.clone() };
    assert_eq!(world.operator.act(other).await.unwrap_err().code(), Code::Aborted);
    // A filter picks the same way.
    let filter = |words: &str| api::ActOnCertificatesRequest {
        all: false,
        filter: words.to_owned(),
        rehearse: true,
        ..locked.clone()
    };
    let named = async |words: &str| world.operator.act(filter(words)).await.unwrap().names;
    assert_eq!(named("w001 issuer:lab key:p256 status:active expires<30d").await, ["w001"]);
    assert_eq!(named("!w001 expires>1d").await, ["w000"]);
    assert_eq!(world.operator.act(filter("isuer:lab")).await.unwrap_err().code(), Code::InvalidArgument);
    let accepted = world.operator.act(api::ActOnCertificatesRequest { expected: 2, ..locked }).await.unwrap();
    let job = ended(&mut world, &accepted.job_id).await;
    let batch = job.batch.unwrap();
    assert_eq!((job.state.as_str(), batch.succeeded, batch.skipped_total), ("succeeded", 2, 2));
    world.check().await;
}

#[tokio::test(start_paused = true)]
async fn a_new_key_for_everything_also_where_the_key_is_pinned() {
    let mut world = World::new(2).await;
    for (name, custody, agent) in [("web", Custody::Agent, 0), ("api", Custody::Controller, 1)] {
        world.operator.create(&wish(&world, name, custody, agent)).await.unwrap();
        world.settle_live(name, SOON).await;
        let update = api::UpdateCertificateRequest { name: name.into(), reuse_key: Some(true), ..Default::default() };
        world.operator.client().update_certificate(update).await.unwrap();
        world.operator.renew(name, &format!("pin-{name}")).await.unwrap();
    }
    world.settle("the pinned keys are in the second versions", SOON, async |world| world.ca.issues().len() == 4).await;
    // The first try of each fails before it has a version: the new key outlives that.
    world.ca.fail(RequestKind::NewOrder, When::First(2), Fault::Refused);
    let act = api::ActOnCertificatesRequest { override_lock: String::new(), ..request("rekey") };
    let accepted = world.operator.act(act).await.unwrap();
    assert_eq!((accepted.total, accepted.skipped_total), (2, 0), "no lock stands before a new key");
    let job = ended(&mut world, &accepted.job_id).await;
    assert_eq!((job.kind.as_str(), job.state.as_str()), ("rekey", "succeeded"));
    for (name, agent) in [("web", 0), ("api", 1)] {
        let keys = world.ca.keys_of(&format!("{name}.example.test"));
        assert!(keys.len() == 3 && keys[0] == keys[1] && keys[1] != keys[2], "{name}");
        // The pin stays for the versions after it.
        let before = world.operator.certificate(name).await.unwrap().current.unwrap().id;
        world.operator.renew(name, &format!("after-{name}")).await.unwrap();
        let renewed = async |world: &World| {
            let current = world.operator.certificate(name).await.and_then(|certificate| certificate.current);
            current.is_some_and(|current| current.id != before) && world.is_live(name).await
        };
        world.settle("it is renewed", SOON, renewed).await;
        let keys = world.ca.keys_of(&format!("{name}.example.test"));
        assert!(keys.len() == 4 && keys[3] == keys[2], "{name}");
        assert!(served(&world, agent, &format!("{name}.example.test")).is_some());
    }
    world.check().await;
}

#[tokio::test(start_paused = true)]
async fn what_has_not_begun_is_taken_back_and_the_rest_goes_on() {
    let mut world = World::new(1).await;
    fleet(&mut world, 60).await;
    // The CA hangs: 32 orders are begun, and no more.
    world.ca.fail(RequestKind::NewOrder, When::Always, Fault::Hang);
    let accepted = world.operator.act(request("renew")).await.unwrap();
    let asked = async |world: &World| world.operator.job(&accepted.job_id).await.batch.unwrap().made == 60;
    world.settle("all are asked", SOON, asked).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    let job = world.operator.cancel(&accepted.job_id).await.unwrap();
    assert_eq!((job.state.as_str(), job.phase.as_str()), ("running", "cancelling"));
    world.ca.heal();
    let job = ended(&mut world, &accepted.job_id).await;
    let batch = job.batch.unwrap();
    assert_eq!(job.state, "cancelled");
    assert_eq!((batch.succeeded, batch.cancelled), (32, 28), "{batch:?}");
    tokio::time::sleep(Duration::from_secs(3_600)).await;
    assert_eq!(world.ca.issues().len(), 60 + 32, "what was taken back is not ordered");
    assert_eq!(world.operator.cancel(&accepted.job_id).await.unwrap_err().code(), Code::FailedPrecondition);
    // What was taken back can be done after all.
    let retry = api::ActOnCertificatesRequest {
        failed_of: accepted.job_id,
        request_id: "retry".into(),
        override_lock: "scenario".into(),
        ..Default::default()
    };
    let retried = world.operator.act(retry).await.unwrap();
    assert_eq!(retried.total, 28);
    assert_eq!(ended(&mut world, &retried.job_id).await.state, "succeeded");
    assert_eq!(versions(&world).into_values().collect::<Vec<_>>(), vec![2; 60]);
    world.check().await;
}

#[tokio::test(start_paused = true)]
async fn a_failed_one_never_stops_the_others_and_is_done_again_alone() {
    let mut world = World::new(1).await;
    fleet(&mut world, 6).await;
    let address = world.agents[0].machine.address();
    // The name points elsewhere: its order waits for its next try.
    world.dns.set("w003.example.test", &["10.9.9.9".parse().unwrap()]);
    let accepted = world.operator.act(request("renew")).await.unwrap();
    let one_left = async |world: &World| {
        let batch = world.operator.job(&accepted.job_id).await.batch.unwrap();
        (batch.succeeded, batch.open) == (5, 1)
    };
    world.settle("the others are done", SOON, one_left).await;
    let subs = world.operator.sub_jobs(&accepted.job_id).await;
    let waiting = &subs[0];
    assert_eq!((waiting.certificate.as_str(), waiting.state.as_str()), ("w003", "waiting"), "{subs:#?}");
    assert!(waiting.failures > 0 && waiting.retry_at > 0 && waiting.problem.is_some());
    world.dns.set("w003.example.test", &[address]);
    let retry = api::ActOnCertificatesRequest {
        failed_of: accepted.job_id.clone(),
        request_id: "retry".into(),
        ..Default::default()
    };
    let retried = world.operator.act(retry).await.unwrap();
    assert_eq!(retried.total, 1);
    assert_eq!(ended(&mut world, &retried.job_id).await.state, "succeeded");
    assert_eq!(ended(&mut world, &accepted.job_id).await.state, "succeeded");
    assert_eq!(versions(&world).into_values().collect::<Vec<_>>(), vec![2; 6]);
    world.check().await;
}

#[tokio::test(start_paused = true)]
async fn many_are_revoked_by_a_filter_and_replaced_whenever_the_controller_dies() {
    for nth in [9, 30, 60] {
        let mut world = World::new(1).await;
        fleet(&mut world, 12).await;
        let count = world.controller.switch().count(Step::BeforeSync);
        world.controller.plan(Some(KillPoint { step: Step::BeforeSync, nth: count + nth }));
        let act = api::ActOnCertificatesRequest { all: false, filter: "!w011".into(), ..request("revoke") };
        let accepted = world.operator.act(act).await.unwrap();
        assert_eq!(accepted.total, 11);
        let job = ended(&mut world, &accepted.job_id).await;
        world.controller.plan(None);
        assert_eq!((job.kind.as_str(), job.state.as_str()), ("revoke", "succeeded"));
        assert_eq!(world.ca.revoked().len(), 11);
        let replaced = async |world: &World| world.ca.issues().len() == 12 + 11;
        world.settle("each is replaced", RECOVERY, replaced).await;
        assert!(world.controller.deaths() > 0, "{nth}: it died");
        world.check().await;
    }
}
