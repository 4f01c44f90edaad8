//! Tests of a target (features.md D12): every step of a deployment is looked at, what would fail says why, and nothing on this
//! server changes.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;
use std::time::Duration;

use proto::agent::v1 as wire;
use proto::agent::v1::answer_request::Kind as Answer;
use proto::agent::v1::question::Kind;
use proto::types::v1::{self as types, TargetStatus, TestResult, TestStep};

use super::controller::Controller;
use super::evil::tree;
use super::site::{Running, Site, VALIDATE};
use super::slot;

/// A server whose certificate is live, and its key slot.
async fn live() -> (Controller, Site, Running, wire::DesiredTarget) {
    let controller = Controller::new();
    let site = Site::new(&controller);
    site.enroll().await.unwrap();
    let agent = site.start();
    controller.publish(|desired| desired.key_slots.push(slot("slot-1", true)));
    let csr = controller.wait(|seen| seen.csrs.get("slot-1").cloned()).await;
    let fingerprint = controller.issue("v1", &csr);
    let validate = vec![types::Command { argv: VALIDATE.map(str::to_owned).to_vec() }];
    let target = wire::DesiredTarget { validate, ..site.target("v1", &fingerprint) };
    controller.publish(|desired| desired.targets.push(target.clone()));
    controller.wait(|seen| seen.target(TargetStatus::Applied)).await;
    (controller, site, agent, target)
}

fn question(target: &wire::DesiredTarget) -> wire::TestTarget {
    let http01 = Some(types::Http01 { mode: Some(types::http01::Mode::StandalonePort(80)) });
    wire::TestTarget { target: Some(target.clone()), http01, not_before: 0 }
}

async fn ask(controller: &Controller, asked: wire::TestTarget) -> Answer {
    let id = proto::id::random_id();
    controller.ask(&id, Some(Kind::TestTarget(asked))).await;
    controller.answer_to(&id).await
}

async fn steps(controller: &Controller, asked: wire::TestTarget) -> Vec<TestStep> {
    match ask(controller, asked).await {
        Answer::TestTarget(tested) => tested.steps,
        other => panic!("{other:?}"),
    }
}

/// The reason of the step with this name that is not well, with its result.
fn reason(steps: &[TestStep], name: &str) -> (TestResult, String) {
    let bad = |step: &&TestStep| step.name == name && step.problem.is_some();
    let step = steps.iter().find(bad).unwrap_or_else(|| panic!("{name} went well: {steps:#?}"));
    (step.result(), step.problem.clone().unwrap().reason)
}

#[tokio::test]
async fn a_target_that_is_well_passes_every_step_and_nothing_is_changed() {
    let (controller, site, agent, target) = live().await;
    let before = (tree(site.root(), &[]), site.reloads(), site.validations());
    let found = steps(&controller, question(&target)).await;
    let names: Vec<&str> = found.iter().map(|step| step.name.as_str()).collect();
    let expected = ["policy", "version", "key", "directory", "file", "file", "validate", "reload", "verify", "http01"];
    assert_eq!(names, expected);
    assert!(found.iter().all(|step| step.result() == TestResult::Ok), "{found:#?}");
    let words: Vec<&str> = found.iter().map(|step| step.found.as_str()).collect();
    assert!(words[1].contains("in the files already") && words[2].contains("held here"), "{words:#?}");
    assert!(words[4].contains("as the agent wrote it") && words[8].contains("the version to deploy"), "{words:#?}");
    assert!(words[9].contains("free"), "{words:#?}");
    assert_eq!(tree(site.root(), &[]), before.0, "nothing on the disk changed");
    assert_eq!((site.reloads(), site.validations()), (before.1, before.2 + 1), "tested and not reloaded");
    agent.stop().await.unwrap();
}

#[tokio::test]
async fn a_target_before_its_first_deployment_is_told_what_would_be_made() {
    let (controller, site, agent, target) = live().await;
    let dir = site.root().join("ssl/new");
    let new = wire::DesiredTarget {
        target_id: "target-2".into(),
        dir: dir.to_str().unwrap().to_owned(),
        version_id: String::new(),
        fingerprint_sha256: vec![],
        verify: vec![],
        ..target
    };
    site.set_broken(true);
    let before = tree(site.root(), &[]);
    let found = steps(&controller, question(&new)).await;
    assert_eq!(reason(&found, "validate"), (TestResult::Warning, "VALIDATE_FAILED".to_owned()), "no file is there yet");
    assert_eq!(reason(&found, "verify"), (TestResult::Warning, "NO_VERIFY".to_owned()));
    let of = |name: &str| found.iter().find(|step| step.name == name).unwrap();
    assert_eq!(of("version").result(), TestResult::Skipped);
    assert!(of("directory").found.contains("a deployment makes it"), "{:?}", of("directory"));
    assert!(of("file").found.contains("a deployment makes it"));
    assert_eq!(tree(site.root(), &[]), before, "the directory was not made");
    agent.stop().await.unwrap();
}

#[tokio::test]
async fn every_step_that_would_fail_says_why_and_still_changes_nothing() {
    let (controller, site, agent, target) = live().await;
    let dir = |name: &str| site.root().join("ssl").join(name);
    fs::create_dir(dir("shared")).unwrap();
    fs::set_permissions(dir("shared"), fs::Permissions::from_mode(0o777)).unwrap();
    symlink(site.webroot(), dir("link")).unwrap();
    fs::create_dir_all(dir("taken/fullchain.pem")).unwrap();
    fs::write(dir("taken/key.pem"), "a stranger's").unwrap();
    fs::write(site.path("fullchain.pem"), "changed behind the agent's back").unwrap();
    site.set_broken(true);
    site.serve_nothing();
    site.take_ports();
    site.lose_program("/usr/sbin/nginx");
    let before = (tree(site.root(), &[]), site.reloads());
    let with = |change: &dyn Fn(&mut wire::DesiredTarget)| {
        let mut target = target.clone();
        change(&mut target);
        question(&target)
    };
    let at = |name: &str| {
        let path = dir(name).to_str().unwrap().to_owned();
        with(&move |target| target.dir.clone_from(&path))
    };
    let check = async |asked, name: &str, result, expected: &str| {
        let found = steps(&controller, asked).await;
        assert_eq!(reason(&found, name), (result, expected.to_owned()));
    };
    let failed = TestResult::Failed;
    check(with(&|_| {}), "file", TestResult::Warning, "DRIFTED").await;
    check(with(&|_| {}), "validate", failed, "VALIDATE_FAILED").await;
    check(with(&|_| {}), "reload", failed, "COMMAND_MISSING").await;
    check(with(&|_| {}), "http01", failed, "PORT_TAKEN").await;
    check(with(&|target| target.key_slot_id = "slot-2".into()), "key", failed, "KEY_LOST").await;
    check(with(&|target| target.files[0].owner = "root:nobodys".into()), "policy", failed, "POLICY_OWNER").await;
    check(with(&|target| target.files[0].owner = "root:root".into()), "verify", TestResult::Warning, "NOT_LIVE").await;
    check(at("shared"), "directory", failed, "UNSAFE_DIR").await;
    check(at("link"), "directory", failed, "SYMLINK").await;
    check(at("none/below"), "directory", failed, "PARENT_MISSING").await;
    check(at("taken"), "file", failed, "NOT_A_FILE").await;
    let found = steps(&controller, at("taken")).await;
    assert!(found.iter().any(|step| step.problem.as_ref().is_some_and(|problem| problem.reason == "FOREIGN_FILE")));
    let webroot = |path: &Path| {
        let mode = types::http01::Mode::Webroot(path.to_str().unwrap().to_owned());
        wire::TestTarget { http01: Some(types::Http01 { mode: Some(mode) }), ..question(&target) }
    };
    check(webroot(Path::new("/srv")), "http01", failed, "POLICY_WEBROOT").await;
    check(webroot(&site.webroot()), "http01", TestResult::Warning, "PORT_SILENT").await;
    assert_eq!((tree(site.root(), &[]), site.reloads()), before);
    agent.stop().await.unwrap();
}

#[tokio::test]
async fn the_policy_is_told_line_by_line_and_nothing_beyond_it_is_looked_at() {
    let (controller, site, agent, target) = live().await;
    let mut wants = target.clone();
    wants.files[0].owner = "daemon:daemon".into();
    wants.files[1].mode = 0o640;
    wants.reload.push(types::Command { argv: vec!["/sbin/reboot".into()] });
    wants.validate.insert(0, types::Command { argv: vec!["/bin/sh".into(), "-c".into(), "id".into()] });
    let (ran, before) = (site.ran().len(), tree(site.root(), &[]));
    let found = steps(&controller, question(&wants)).await;
    let hints: Vec<String> =
        found.iter().filter(|step| step.name == "policy").map(|step| step.problem.clone().unwrap().hint).collect();
    for line in [r#"owners = ["daemon:daemon"]"#, r#"argv = ["/bin/sh", "-c", "id"]"#, r#"argv = ["/sbin/reboot"]"#] {
        assert!(hints.iter().any(|hint| hint.contains(line)), "{line}: {hints:#?}");
    }
    let skipped =
        |name: &str| found.iter().filter(|step| step.name == name && step.result() == TestResult::Skipped).count();
    assert_eq!((skipped("directory"), skipped("file"), skipped("validate"), skipped("reload")), (1, 2, 1, 1));
    assert_eq!(site.ran().len(), ran + 1, "only what the policy holds was run");
    let etc = wire::DesiredTarget { dir: "/etc/cron.d".into(), ..target.clone() };
    let found = steps(&controller, question(&etc)).await;
    let policy = found.iter().find(|step| step.name == "policy").unwrap().problem.clone().unwrap();
    assert!(policy.reason == "POLICY_DIR" && policy.hint.contains("path = \"/etc/cron.d\""), "{policy:?}");
    let lines = found.iter().filter(|step| ["directory", "file"].contains(&step.name.as_str()));
    assert!(lines.clone().count() == 3 && lines.clone().all(|step| step.result() == TestResult::Skipped));
    for dir in ["/etc/../root", "relative", ""] {
        let evil = wire::DesiredTarget { dir: dir.into(), ..target.clone() };
        assert!(matches!(ask(&controller, question(&evil)).await, Answer::Refused(_)), "{dir}");
    }
    let unknown = wire::DesiredTarget { requires: vec!["time-travel".into()], ..target };
    let Answer::Refused(problem) = ask(&controller, question(&unknown)).await else { panic!("it was tested") };
    assert_eq!(problem.reason, "UPGRADE_AGENT");
    assert_eq!(tree(site.root(), &[]), before);
    agent.stop().await.unwrap();
}

#[tokio::test]
async fn questions_are_answered_through_two_halves_and_an_unknown_one_is_refused() {
    let controller = Controller::new();
    let site = Site::new(&controller);
    site.enroll().await.unwrap();
    let agent = site.start_halves();
    controller.wait(|seen| (seen.attached > 0).then_some(())).await;
    let target = site.target("v1", &[7; 32]);
    let found = steps(&controller, question(&target)).await;
    assert_eq!(reason(&found, "key"), (TestResult::Failed, "KEY_LOST".to_owned()));
    controller.ask("q-unknown", None).await;
    let Answer::Refused(problem) = controller.answer_to("q-unknown").await else { panic!("it was answered") };
    assert_eq!(problem.reason, "UPGRADE_AGENT");
    agent.stop().await.unwrap();
}

#[tokio::test]
async fn a_flood_of_questions_is_refused_as_busy_and_deployments_go_on() {
    let (controller, site, agent, target) = live().await;
    let asked = |number: usize| {
        let target = wire::DesiredTarget { target_id: format!("target-{number}"), ..target.clone() };
        Kind::TestTarget(question(&target))
    };
    for number in 0..200 {
        controller.ask(&format!("q-{number}"), Some(asked(number % 40))).await;
    }
    controller.publish(|desired| desired.targets[0].deploy_wish = 1);
    controller.wait(|seen| seen.target(TargetStatus::Applied).filter(|report| report.deploy_wish == 1)).await;
    // Those that found no room are dropped: after them the agent answers as before.
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(steps(&controller, question(&target)).await.iter().any(|step| step.name == "verify"));
    assert_eq!(site.reloads(), 2);
    agent.stop().await.unwrap();
}
