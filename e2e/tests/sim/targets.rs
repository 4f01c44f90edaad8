//! What operators do about where a certificate goes: a target changed in place, an older version put back, a rollout in
//! stages.

use std::time::Duration;

use e2e::fake_ca::Options;
use e2e::fake_host::Script;
use e2e::world::operator::RELOAD;
use e2e::world::{Plan, World};
use proto::operator::v1 as api;
use proto::types::v1::{Command, Custody, TargetStatus};
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

#[tokio::test(start_paused = true)]
async fn targets_that_are_added_at_once_are_all_added() {
    let mut world = World::new(6).await;
    world.operator.create(&wish(&world, "web", Custody::Controller, 0)).await.unwrap();
    let add = |index: usize| {
        let target = Some(world.agents[index].target("web", "web.example.test"));
        let request = api::AddTargetRequest { certificate: "web".into(), target, ..Default::default() };
        let mut client = world.operator.client();
        async move { client.add_target(request).await }
    };
    // Its first version is being ordered meanwhile: the record changes again and again.
    let added = futures_util::future::join_all((1..6).map(add)).await;
    assert!(added.iter().all(Result::is_ok), "{added:?}");
    world.settle_live("web", SOON).await;
    assert_eq!(world.operator.certificate("web").await.unwrap().targets.len(), 6);
    world.check().await;
}

/// A certificate of so many hours that is live on three agents, with a rollout; and its fingerprint.
async fn three(hours: i64, rollout: &str) -> (World, String) {
    let ca = Options { lifetime_seconds: hours * 3_600, ..Options::default() };
    let mut world = World::begin(Plan { agents: 3, ca, ..Plan::default() }).await;
    world.operator.create(&wish(&world, "web", Custody::Controller, 0)).await.unwrap();
    world.settle_live("web", SOON).await;
    for index in [1, 2] {
        let target = Some(world.agents[index].target("web", "web.example.test"));
        let request = api::AddTargetRequest { certificate: "web".into(), target, ..Default::default() };
        world.operator.client().add_target(request).await.unwrap();
    }
    world.settle_live("web", SOON).await;
    set_rollout(&world, rollout).await.unwrap();
    let fingerprint = current(&world).await.fingerprint_sha256;
    (world, fingerprint)
}

async fn set_rollout(world: &World, words: &str) -> Result<(), tonic::Status> {
    let request =
        api::UpdateCertificateRequest { name: "web".into(), rollout: Some(words.to_owned()), ..Default::default() };
    world.operator.client().update_certificate(request).await.map(drop)
}

/// What each of the three shows: true for the current version.
async fn shown(world: &World) -> Vec<bool> {
    let wanted = current(world).await.fingerprint_sha256;
    (0..3).map(|agent| served(world, agent, "web.example.test") == Some(wanted.clone())).collect()
}

async fn stopped(world: &World) -> bool {
    let seen = world.operator.certificate("web").await.unwrap_or_default();
    seen.issues.iter().any(|issue| issue.kind == "rollout_stopped" && issue.action.contains("--continue"))
}

#[tokio::test(start_paused = true)]
async fn a_canary_that_fails_holds_the_rest_until_it_is_corrected() {
    let (mut world, before) = three(90 * 24, "canary=h1").await;
    world.agents[0].machine.script(&RELOAD, Script::ReloadInVain);
    let asked = world.operator.renew("web", "again").await.unwrap();
    world.settle("the rollout is stopped", SOON, stopped).await;
    let seen = world.operator.certificate("web").await.unwrap();
    assert_eq!(seen.rollout, "canary=h1 wave=100% failures=0 rest=0s");
    let held: Vec<_> = seen.targets.iter().map(|target| (target.status(), target.waits.is_empty())).collect();
    assert_eq!(held.iter().filter(|one| **one == (TargetStatus::Pending, false)).count(), 2, "{held:?}");
    let job = world.operator.job(&asked.job_id).await;
    assert_eq!((job.state.as_str(), job.phase.as_str()), ("waiting", "rollout"));
    // Nobody is told anything else by a restart.
    world.controller.kill().await;
    world.controller.start();
    world.agents[1].kill().await;
    world.agents[1].start();
    tokio::time::sleep(Duration::from_secs(1_200)).await;
    assert_eq!(shown(&world).await, [false; 3]);
    assert_eq!(served(&world, 2, "web.example.test").unwrap(), before);
    world.check().await;
    world.agents[0].machine.script(&RELOAD, Script::Reload);
    world.settle_live("web", Duration::from_secs(7_200)).await;
    assert_eq!((shown(&world).await, world.ca.orders().len()), (vec![true; 3], 2), "by itself, without an order");
    assert_eq!(world.operator.job(&asked.job_id).await.state, "succeeded");
    world.check().await;
}

#[tokio::test(start_paused = true)]
async fn an_operator_lets_a_stopped_rollout_go_on_or_one_target_alone() {
    let (mut world, _) = three(90 * 24, "canary=h1").await;
    world.agents[0].machine.script(&RELOAD, Script::ReloadInVain);
    world.operator.renew("web", "again").await.unwrap();
    world.settle("the rollout is stopped", SOON, stopped).await;
    let deploy = |agent: &str, continue_rollout| api::DeployCertificateRequest {
        name: "web".into(),
        agent: agent.into(),
        request_id: proto::id::random_id(),
        continue_rollout,
        ..Default::default()
    };
    world.operator.client().deploy_certificate(deploy("h2", false)).await.unwrap();
    let one = async |world: &World| shown(world).await == [false, true, false];
    world.settle("the named one goes alone", SOON, one).await;
    world.operator.client().deploy_certificate(deploy("", true)).await.unwrap();
    let rest = async |world: &World| shown(world).await == [false, true, true];
    world.settle("then all the others", SOON, rest).await;
    let seen = world.operator.certificate("web").await.unwrap();
    assert!(seen.deployment != "ok" && !stopped(&world).await, "one is not live, nobody waits: {seen:?}");
    world.agents[0].machine.script(&RELOAD, Script::Reload);
    world.settle_live("web", Duration::from_secs(7_200)).await;
    world.check().await;
}

#[tokio::test(start_paused = true)]
async fn a_canary_is_looked_at_for_a_while_and_a_near_expiry_waits_for_nobody() {
    let (mut world, before) = three(24, "canary=h2 rest=30m").await;
    world.operator.renew("web", "again").await.unwrap();
    let canary = async |world: &World| shown(world).await == [false, true, false];
    world.settle("the canary has it", SOON, canary).await;
    tokio::time::sleep(Duration::from_secs(25 * 60)).await;
    let seen = world.operator.certificate("web").await.unwrap();
    let until = seen.targets.iter().map(|target| target.waits_until).max().unwrap();
    assert!(shown(&world).await == [false, true, false] && until > world.now_ms(), "{seen:?}");
    world.settle_live("web", Duration::from_secs(8 * 60)).await;

    // The next one fails on the canary until little is left of the life of what is served.
    let second = current(&world).await;
    assert_ne!(second.fingerprint_sha256, before);
    world.agents[1].machine.script(&RELOAD, Script::ReloadInVain);
    world.operator.renew("web", "third").await.unwrap();
    world.settle("the rollout is stopped", SOON, stopped).await;
    let update = api::UpdateCertificateRequest { name: "web".into(), auto_renew: Some(false), ..Default::default() };
    world.operator.client().update_certificate(update).await.unwrap();
    let rest = async |world: &World| shown(world).await == [true, false, true];
    world.settle("it is let go", Duration::from_secs(24 * 3_600), rest).await;
    let left = second.not_after - world.now_ms();
    assert!((2 * 3_600_000..=3 * 3_600_000).contains(&left), "an eighth of a day is left: {left}");
    world.check().await;
}

#[tokio::test(start_paused = true)]
async fn words_that_are_no_rollout_are_refused_with_the_field() {
    let (world, _) = three(24, "wave=50% failures=1").await;
    for wrong in ["canary=h9", "wave=0", "fast"] {
        let refused = set_rollout(&world, wrong).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument, "{wrong}: {refused:?}");
    }
    set_rollout(&world, "off").await.unwrap();
    assert_eq!(world.operator.certificate("web").await.unwrap().rollout, "");
}

/// A window of an hour on each day, which opens so many hours after now.
fn window_in(world: &World, hours: i64) -> String {
    let opens = jiff::Timestamp::from_millisecond(world.now_ms()).unwrap() + jiff::SignedDuration::from_hours(hours);
    let (from, to) = (opens.strftime("%H:%M"), (opens + jiff::SignedDuration::from_hours(1)).strftime("%H:%M"));
    format!("daily {from}-{to} UTC")
}

async fn set_windows(world: &World, windows: &[&str]) -> Result<(), tonic::Status> {
    let windows = windows.iter().map(|one| (*one).to_owned()).collect();
    let request =
        api::UpdateCertificateRequest { name: "web".into(), set_windows: true, windows, ..Default::default() };
    world.operator.client().update_certificate(request).await.map(drop)
}

#[tokio::test(start_paused = true)]
async fn a_new_version_waits_for_its_window_and_the_stages_begin_within_it() {
    let (mut world, before) = three(90 * 24, "canary=h1").await;
    let window = window_in(&world, 6);
    set_windows(&world, &[&window]).await.unwrap();
    let asked = world.operator.renew("web", "again").await.unwrap();
    let issued = async |world: &World| current(world).await.fingerprint_sha256 != before;
    world.settle("it is issued", SOON, issued).await;
    world.controller.kill().await;
    world.controller.start();
    tokio::time::sleep(Duration::from_secs(4 * 3_600)).await;
    let seen = world.operator.certificate("web").await.unwrap();
    assert_eq!((seen.windows.clone(), seen.window_open), (vec![window], false));
    assert!(seen.window_until > world.now_ms() && seen.issues.is_empty(), "{seen:?}");
    for target in &seen.targets {
        assert_eq!((target.waits.as_str(), target.waits_until), ("for its window", seen.window_until));
    }
    let job = world.operator.job(&asked.job_id).await;
    assert_eq!((job.state.as_str(), job.phase.as_str(), job.retry_at), ("waiting", "window", seen.window_until));
    assert_eq!(shown(&world).await, [false; 3]);

    // The canary has it within the window, and the rest only in the next one.
    world.agents[0].machine.script(&RELOAD, Script::ReloadInVain);
    world.settle("the rollout is stopped", Duration::from_secs(3 * 3_600), stopped).await;
    tokio::time::sleep(Duration::from_secs(3_600)).await;
    world.agents[0].machine.script(&RELOAD, Script::Reload);
    tokio::time::sleep(Duration::from_secs(18 * 3_600)).await;
    assert_eq!(shown(&world).await, [false; 3], "what was rolled back is not tried again outside");
    world.settle_live("web", Duration::from_secs(6 * 3_600)).await;
    assert!(world.operator.certificate("web").await.unwrap().window_open && world.ca.orders().len() == 2);
    assert_eq!(world.operator.job(&asked.job_id).await.state, "succeeded");
    world.check().await;
}

#[tokio::test(start_paused = true)]
async fn a_window_holds_no_first_version_no_operator_and_no_near_expiry() {
    let (mut world, before) = three(24, "off").await;
    // One that is open for an hour of each month or so never is in the life of these.
    let opens = jiff::Timestamp::from_millisecond(world.now_ms()).unwrap() + jiff::SignedDuration::from_hours(72);
    let window = format!("{} 00:00-01:00", opens.strftime("%a"));
    set_windows(&world, &[&window]).await.unwrap();
    world.operator.renew("web", "again").await.unwrap();
    let issued = async |world: &World| current(world).await.fingerprint_sha256 != before;
    world.settle("it is issued", SOON, issued).await;
    let deploy = |agent: &str| api::DeployCertificateRequest {
        name: "web".into(),
        agent: agent.into(),
        request_id: proto::id::random_id(),
        ..Default::default()
    };
    world.operator.client().deploy_certificate(deploy("h2")).await.unwrap();
    let one = async |world: &World| shown(world).await == [false, true, false];
    world.settle("the named one goes alone", SOON, one).await;
    world.operator.client().deploy_certificate(deploy("")).await.unwrap();
    world.settle_live("web", SOON).await;

    // A renewal by itself waits, until little is left of the life of what is served.
    let second = current(&world).await;
    let renewed = async |world: &World| current(world).await.fingerprint_sha256 != second.fingerprint_sha256;
    world.settle("it renews by itself", Duration::from_secs(20 * 3_600), renewed).await;
    tokio::time::sleep(SOON).await;
    assert_eq!(shown(&world).await, [false; 3]);
    let all = async |world: &World| shown(world).await == [true; 3];
    world.settle("it is let go", Duration::from_secs(24 * 3_600), all).await;
    let left = second.not_after - world.now_ms();
    assert!((2 * 3_600_000..=3 * 3_600_000).contains(&left), "an eighth of a day is left: {left}");

    // What replaces a revoked version waits for nothing.
    let third = current(&world).await;
    let request = api::RevokeCertificateRequest {
        name: "web".into(),
        request_id: "revoke".into(),
        reason: "keyCompromise".into(),
        ..Default::default()
    };
    world.operator.client().revoke_certificate(request).await.unwrap();
    let replaced = async |world: &World| {
        current(world).await.fingerprint_sha256 != third.fingerprint_sha256 && shown(world).await == [true; 3]
    };
    world.settle("the replacement is everywhere", Duration::from_secs(3_600), replaced).await;
    world.check().await;
}

#[tokio::test(start_paused = true)]
async fn words_that_are_no_window_are_refused_with_the_field() {
    let (world, _) = three(24, "off").await;
    for wrong in ["Sam 02:00-05:00", "Sat 02:00", "Sat 02:00-05:00 Nowhere/Land", "Sat 02:00-05:00 ../etc/passwd"] {
        let refused = set_windows(&world, &[wrong]).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument, "{wrong}: {refused:?}");
    }
    let many = vec!["Sat 02:00-05:00"; 21];
    assert_eq!(set_windows(&world, &many).await.unwrap_err().code(), Code::InvalidArgument);
    set_windows(&world, &["Sat 02:00-05:00", "Sun 22:00-02:00 UTC"]).await.unwrap();
    let seen = world.operator.certificate("web").await.unwrap();
    assert_eq!(seen.windows, ["Sat 02:00-05:00 UTC", "Sun 22:00-02:00 UTC"]);
    set_windows(&world, &["off"]).await.unwrap();
    assert!(world.operator.certificate("web").await.unwrap().windows.is_empty());
}
