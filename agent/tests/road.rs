//! The agent's half of the road (design §4) against a small controller of our own: real TLS, real gRPC, real files, over
//! in-memory pipes. The whole system is tested in e2e; this tells whether the agent alone keeps its side.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test ends by panicking")]

#[path = "road/controller.rs"]
mod controller;
#[path = "road/detected.rs"]
mod detected;
#[path = "road/drift.rs"]
mod drift;
#[path = "road/evil.rs"]
mod evil;
#[path = "road/rehearsal.rs"]
mod rehearsal;
#[path = "road/site.rs"]
mod site;
#[path = "road/trial.rs"]
mod trial;

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use proto::agent::v1 as wire;
use proto::types::v1::{self as types, TargetStatus};

use controller::Controller;
use site::{Running, Site};

const NAME: &str = "h1.example.test";

#[tokio::test]
async fn a_certificate_goes_the_whole_road() {
    goes_the_whole_road(Site::start, Site::state).await;
}

#[tokio::test]
async fn a_certificate_goes_the_whole_road_through_two_halves() {
    goes_the_whole_road(Site::start_halves, Site::apply_state).await;
}

async fn goes_the_whole_road(start: fn(&Site) -> Running, keys: fn(&Site) -> PathBuf) {
    let controller = Controller::new();
    let site = Site::new(&controller);
    site.enroll().await.unwrap();
    let agent = start(&site);

    // Key first: the agent makes it and offers exactly the identifiers.
    controller.publish(|desired| desired.key_slots.push(slot("slot-1", true)));
    let csr = controller.wait(|seen| seen.csrs.get("slot-1").cloned()).await;
    controller.publish(|desired| desired.key_slots[0].csr_wanted = false);

    // A token is answered on port 80 while it is desired.
    controller.publish(|desired| desired.challenges.push(challenge("tok-1")));
    controller.wait(|seen| seen.challenge("tok-1").filter(|challenge| challenge.serving).map(|_| ())).await;
    assert!(site.get(80, NAME, "/.well-known/acme-challenge/tok-1").await.unwrap().ends_with("tok-1.thumb"));
    controller.publish(|desired| desired.challenges.clear());
    controller.wait(|seen| seen.report.challenges.is_empty().then_some(())).await;
    assert!(site.get(80, NAME, "/.well-known/acme-challenge/tok-1").await.is_err());

    // Files, reload, proof.
    let fingerprint = controller.issue("v1", &csr);
    controller.publish(|desired| desired.targets.push(site.target("v1", &fingerprint)));
    let report = controller.wait(|seen| seen.target(TargetStatus::Applied)).await;
    assert_eq!(report.served_fingerprint_sha256, fingerprint);
    let names: Vec<&str> = report.steps.iter().map(|step| step.name.as_str()).collect();
    assert_eq!(names, ["write", "reload", "verify"]);
    assert_eq!(site.reloads(), 1);
    let key = fs::read_to_string(site.dir().join("key.pem")).unwrap();
    assert_eq!(key, fs::read_to_string(keys(&site).join("keys/slot-1/key.pem")).unwrap());

    // A restart does nothing again; deploy now does.
    agent.stop().await.unwrap();
    let agent = start(&site);
    controller.wait(|seen| seen.target(TargetStatus::Applied)).await;
    assert_eq!(site.reloads(), 1);
    controller.publish(|desired| desired.targets[0].deploy_wish = 1);
    controller.wait(|seen| seen.target(TargetStatus::Applied).filter(|report| report.deploy_wish == 1)).await;
    assert_eq!(site.reloads(), 2);

    // Purge waits for the service, then removes what is ours.
    controller.publish(|desired| desired.targets[0].purge = true);
    let report =
        controller.wait(|seen| seen.target(TargetStatus::Pending).filter(|report| report.problem.is_some())).await;
    assert_eq!(report.problem.unwrap().reason, "STILL_SERVED");
    site.serve_nothing();
    controller.publish(|desired| desired.targets[0].deploy_wish = 2);
    controller.wait(|seen| seen.target(TargetStatus::Applied).filter(|report| report.purged)).await;
    assert_eq!(fs::read_dir(site.dir()).unwrap().count(), 0);
    agent.stop().await.unwrap();
    let uses: serde_json::Value = serde_json::from_slice(&site.key_uses()).unwrap();
    assert_eq!(uses, serde_json::json!({"target-1": {"retired": ["slot-1"], "live": []}}));
}

#[tokio::test]
async fn a_webroot_token_survives_neither_its_wish_nor_a_crash() {
    let controller = Controller::new();
    let site = Site::new(&controller);
    site.enroll().await.unwrap();
    let agent = site.start();
    let mode = Some(types::http01::Mode::Webroot(site.webroot().to_str().unwrap().to_owned()));
    let by_files =
        |token| wire::DesiredChallenge { http01: Some(types::Http01 { mode: mode.clone() }), ..challenge(token) };
    let path = |token: &str| site.webroot().join(".well-known/acme-challenge").join(token);
    controller.publish(|desired| desired.challenges = vec![by_files("tok-1"), by_files("tok-2")]);
    controller.wait(|seen| seen.challenge("tok-2").filter(|challenge| challenge.serving).map(|_| ())).await;
    assert_eq!(fs::read_to_string(path("tok-1")).unwrap(), "tok-1.thumb");
    controller.publish(|desired| drop(desired.challenges.remove(0)));
    controller.wait(|seen| (seen.report.challenges.len() == 1 && !path("tok-1").exists()).then_some(())).await;
    assert!(path("tok-2").exists());
    // This kill spares the threads of the process: the answer that stays is written once more after the other is gone.
    tokio::time::sleep(Duration::from_millis(300)).await;

    // Killed, and the controller is away: what was served is taken away at the next start.
    agent.kill().await;
    site.set_away(true);
    let agent = site.start();
    let gone = async {
        while path("tok-2").exists() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), gone).await.unwrap();
    agent.stop().await.unwrap();
}

#[tokio::test]
async fn a_lost_enrolment_reply_can_be_repeated_with_the_same_key() {
    let controller = Controller::new();
    let site = Site::new(&controller);
    controller.lose_next_reply();
    assert!(site.enroll().await.is_err());
    let key = fs::read(site.state().join("identity.key")).unwrap();
    site.enroll().await.unwrap();
    assert_eq!(fs::read(site.state().join("identity.key")).unwrap(), key);
    assert!(site.policy_path().exists());
}

#[tokio::test]
async fn a_controller_that_the_token_does_not_pin_is_refused() {
    let controller = Controller::new();
    let site = Site::new(&controller);
    let other = Controller::new();
    let error = site.enroll_with(&other.token()).await.unwrap_err();
    assert_eq!(error.downcast_ref::<agent::problem::Problem>().unwrap().reason, "CONTROLLER_NOT_TRUSTED");
}

#[tokio::test]
async fn what_the_policy_does_not_allow_is_refused_and_never_fetched() {
    let controller = Controller::new();
    let site = Site::new(&controller);
    site.enroll().await.unwrap();
    let agent = site.start();
    controller.publish(|desired| {
        let mut target = site.target("v1", &[7; 32]);
        target.dir = "/etc/cron.d".into();
        desired.targets.push(target);
        let mut challenge = challenge("tok-1");
        challenge.http01 = Some(types::Http01 { mode: Some(types::http01::Mode::StandalonePort(22)) });
        desired.challenges.push(challenge);
    });
    let report = controller.wait(|seen| seen.target(TargetStatus::Failed)).await;
    let problem = report.problem.unwrap();
    assert_eq!(problem.reason, "POLICY_DIR");
    assert!(problem.hint.contains("/etc/cron.d"), "{}", problem.hint);
    assert!(report.retry_at > report.finished_at);
    let reason = controller.wait(|seen| seen.challenge("tok-1").and_then(|challenge| challenge.problem)).await.reason;
    assert_eq!(reason, "POLICY_PORT");
    assert_eq!(controller.fetches(), 0);
    agent.stop().await.unwrap();
    let uses = String::from_utf8(site.key_uses()).unwrap();
    assert!(!uses.contains("slot-1"), "a key that was never written is pending: {uses}");
}

#[tokio::test]
async fn a_leaf_with_names_beyond_the_policy_is_never_written() {
    let controller = Controller::new();
    let site = Site::new(&controller);
    site.enroll().await.unwrap();
    let policy = fs::read_to_string(site.policy_path()).unwrap();
    let names = format!("names = [\"{NAME}\"]\n[[command]]");
    fs::write(site.policy_path(), policy.replacen("[[command]]", &names, 1)).unwrap();
    let agent = site.start();
    controller.publish(|desired| desired.key_slots.push(slot("slot-1", true)));
    let csr = controller.wait(|seen| seen.csrs.get("slot-1").cloned()).await;
    let fingerprint = controller.issue_with("v1", &csr, &["bank.internal"]);
    controller.publish(|desired| desired.targets.push(site.target("v1", &fingerprint)));
    let problem = controller.wait(|seen| seen.target(TargetStatus::Failed)).await.problem.unwrap();
    assert_eq!(problem.reason, "POLICY_NAME");
    assert!(problem.message.contains("bank.internal"), "{}", problem.message);
    assert!(!site.dir().join("key.pem").exists() && site.reloads() == 0);
    agent.stop().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_policy_that_is_widened_counts_without_a_restart() {
    let controller = Controller::new();
    let site = Site::new(&controller);
    let policy = fs::read_to_string(site.policy_path()).unwrap();
    fs::write(site.policy_path(), "[http01]\nports = [80]\n").unwrap();
    site.enroll().await.unwrap();
    let agent = site.start();
    controller.publish(|desired| desired.key_slots.push(slot("slot-1", true)));
    let csr = controller.wait(|seen| seen.csrs.get("slot-1").cloned()).await;
    let fingerprint = controller.issue("v1", &csr);
    controller.publish(|desired| desired.targets.push(site.target("v1", &fingerprint)));
    let report = controller.wait(|seen| seen.target(TargetStatus::Failed)).await;
    assert_eq!(report.problem.unwrap().reason, "POLICY_DIR");
    fs::write(site.policy_path(), policy).unwrap();
    controller.wait(|seen| seen.target(TargetStatus::Applied)).await;
    assert_eq!(controller.wait(|seen| Some(seen.attached)).await, 2, "the controller learns the new policy");
    agent.stop().await.unwrap();
}

#[tokio::test]
async fn a_name_no_longer_listed_is_not_forgotten() {
    let controller = Controller::new();
    let site = Site::new(&controller);
    site.enroll().await.unwrap();
    let agent = site.start();
    controller.publish(|desired| desired.key_slots.push(slot("slot-1", true)));
    let csr = controller.wait(|seen| seen.csrs.get("slot-1").cloned()).await;
    let fingerprint = controller.issue("v1", &csr);
    let chain =
        types::FileSpec { content: types::FileContent::Chain.into(), name: "chain.pem".into(), ..Default::default() };
    controller.publish(|desired| {
        let mut target = site.target("v1", &fingerprint);
        target.files.push(types::FileSpec { mode: 0o644, ..chain });
        desired.targets.push(target);
    });
    controller.wait(|seen| seen.target(TargetStatus::Applied)).await;
    agent.stop().await.unwrap();

    // As after an attempt that switched and then failed to remove `old.pem`.
    let outcomes = site.state().join("outcomes.json");
    let mut ledger: serde_json::Value = serde_json::from_slice(&fs::read(&outcomes).unwrap()).unwrap();
    ledger[0]["status"] = "failed".into();
    ledger[0]["names"].as_array_mut().unwrap().push("old.pem".into());
    fs::write(&outcomes, serde_json::to_vec(&ledger).unwrap()).unwrap();
    std::os::unix::fs::symlink(".certwright/current/old.pem", site.dir().join("old.pem")).unwrap();
    let agent = site.start();
    let is_gone = || fs::symlink_metadata(site.dir().join("old.pem")).is_err();
    controller.wait(|seen| seen.target(TargetStatus::Applied).filter(|_| is_gone())).await;

    // A purge that has to wait still knows of `chain.pem`, which its target no longer lists.
    controller.publish(|desired| {
        desired.targets[0].files.truncate(2);
        desired.targets[0].purge = true;
    });
    controller.wait(|seen| seen.target(TargetStatus::Pending).filter(|report| report.problem.is_some())).await;
    controller.publish(|desired| desired.targets[0].verify.clear());
    let report = controller.wait(|seen| seen.target(TargetStatus::Applied).filter(|report| report.purged)).await;
    assert_eq!(fs::read_dir(site.dir()).unwrap().count(), 0);
    assert!(report.steps[0].output.contains("no endpoint"), "{:?}", report.steps);
    agent.stop().await.unwrap();
}

#[tokio::test]
async fn a_failed_reload_is_quoted_and_the_files_stay() {
    let controller = Controller::new();
    let site = Site::new(&controller);
    site.enroll().await.unwrap();
    let agent = site.start();
    controller.publish(|desired| desired.key_slots.push(slot("slot-1", true)));
    let csr = controller.wait(|seen| seen.csrs.get("slot-1").cloned()).await;
    let fingerprint = controller.issue("v1", &csr);
    site.set_broken(true);
    controller.publish(|desired| desired.targets.push(site.target("v1", &fingerprint)));
    let report = controller.wait(|seen| seen.target(TargetStatus::Failed)).await;
    assert_eq!(report.problem.unwrap().reason, "RELOAD_FAILED");
    assert_eq!(report.steps.last().unwrap().exit_status, Some(1));
    assert!(site.dir().join("key.pem").exists(), "the files stay");
    agent.stop().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_service_that_keeps_the_old_leaf_keeps_its_files_too() {
    let controller = Controller::new();
    let site = Site::new(&controller);
    site.enroll().await.unwrap();
    let agent = site.start();
    controller.publish(|desired| desired.key_slots.push(slot("slot-1", true)));
    let csr = controller.wait(|seen| seen.csrs.get("slot-1").cloned()).await;
    let old = controller.issue("v1", &csr);
    controller.publish(|desired| desired.targets.push(site.target("v1", &old)));
    controller.wait(|seen| seen.target(TargetStatus::Applied)).await;

    let new = controller.issue("v2", &csr);
    site.ignore_reloads();
    controller.publish(|desired| desired.targets[0] = site.target("v2", &new));
    let report = controller.wait(|seen| seen.target(TargetStatus::RolledBack)).await;
    assert_eq!((report.served_fingerprint_sha256, site.leaf()), (old.clone(), old));
    let problem = report.problem.unwrap();
    assert_eq!(problem.reason, "NOT_LIVE");
    assert!(problem.message.ends_with("; the certificate of before is served again"), "{}", problem.message);
    let steps: Vec<&str> = report.steps.iter().map(|step| step.name.as_str()).collect();
    assert_eq!(steps, ["write", "reload", "verify", "roll back", "reload", "verify"]);
    assert!(report.finished_at - report.started_at < 60_000 && report.retry_at > report.finished_at);

    // The service listens again: the next attempt goes through, and the files stay.
    site.heed_reloads();
    controller.publish(|desired| desired.targets[0].deploy_wish = 1);
    controller.wait(|seen| seen.target(TargetStatus::Applied)).await;
    assert_eq!(site.leaf(), new);
    site.ignore_reloads();
    let newest = controller.issue("v3", &csr);
    controller.publish(|desired| desired.targets[0] = site.target("v3", &newest));
    controller.wait(|seen| seen.target(TargetStatus::RolledBack)).await;
    assert_eq!(site.leaf(), new);

    // What it still serves is no longer current, but its configuration names these files.
    controller.publish(|desired| desired.targets[0].purge = true);
    let report =
        controller.wait(|seen| seen.target(TargetStatus::Pending).filter(|report| report.problem.is_some())).await;
    assert_eq!(report.problem.unwrap().reason, "STILL_SERVED");
    assert!(site.dir().join("key.pem").exists());
    agent.stop().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_configuration_that_fails_its_test_is_never_reloaded() {
    let controller = Controller::new();
    let site = Site::new(&controller);
    site.enroll().await.unwrap();
    let agent = site.start();
    controller.publish(|desired| desired.key_slots.push(slot("slot-1", true)));
    let csr = controller.wait(|seen| seen.csrs.get("slot-1").cloned()).await;
    let tested = |version: &str, fingerprint: &[u8]| {
        let mut target = site.target(version, fingerprint);
        target.validate.push(types::Command { argv: site::VALIDATE.map(str::to_owned).to_vec() });
        target.requires.push("validate".to_owned());
        target
    };
    let old = controller.issue("v1", &csr);
    controller.publish(|desired| desired.targets.push(tested("v1", &old)));
    let report = controller.wait(|seen| seen.target(TargetStatus::Applied)).await;
    let steps: Vec<&str> = report.steps.iter().map(|step| step.name.as_str()).collect();
    assert_eq!(steps, ["write", "validate", "reload", "verify"]);
    assert_eq!((site.validations(), site.reloads()), (1, 1));

    site.set_broken(true);
    let new = controller.issue("v2", &csr);
    controller.publish(|desired| desired.targets[0] = tested("v2", &new));
    let report = controller.wait(|seen| seen.target(TargetStatus::RolledBack)).await;
    let problem = report.problem.unwrap();
    assert_eq!((problem.reason.as_str(), problem.cause.as_str()), ("VALIDATE_FAILED", "broken configuration"));
    assert!(problem.message.contains("nothing was reloaded; the certificate of before is served again"), "{problem:?}");
    let steps: Vec<&str> = report.steps.iter().map(|step| step.name.as_str()).collect();
    assert_eq!(steps, ["write", "validate", "roll back", "verify"]);
    assert_eq!((site.validations(), site.reloads(), site.leaf()), (2, 1, old));
    assert!(report.retry_at - report.finished_at <= 60_000, "nothing was disturbed");
    site.set_broken(false);
    controller.publish(|desired| desired.targets[0].deploy_wish = 1);
    controller.wait(|seen| seen.target(TargetStatus::Applied)).await;
    assert_eq!((site.validations(), site.reloads(), site.leaf()), (3, 2, new));
    agent.stop().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_first_certificate_that_is_not_proven_stays() {
    let controller = Controller::new();
    let site = Site::new(&controller);
    site.enroll().await.unwrap();
    let agent = site.start();
    controller.publish(|desired| desired.key_slots.push(slot("slot-1", true)));
    let csr = controller.wait(|seen| seen.csrs.get("slot-1").cloned()).await;
    let first = controller.issue("v1", &csr);
    site.ignore_reloads();
    controller.publish(|desired| desired.targets.push(site.target("v1", &first)));
    controller.wait(|seen| seen.target(TargetStatus::NotLive)).await;
    // The service never showed it: there is nothing proven to go back to.
    let second = controller.issue("v2", &csr);
    controller.publish(|desired| desired.targets[0] = site.target("v2", &second));
    controller.wait(|seen| seen.target(TargetStatus::NotLive).filter(|report| report.version_id == "v2")).await;
    assert_eq!(site.leaf(), second);
    agent.stop().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn an_agent_that_dies_before_the_proof_still_knows_what_was_proven() {
    let controller = Controller::new();
    let site = Site::new(&controller);
    site.enroll().await.unwrap();
    let agent = site.start();
    controller.publish(|desired| desired.key_slots.push(slot("slot-1", true)));
    let csr = controller.wait(|seen| seen.csrs.get("slot-1").cloned()).await;
    let old = controller.issue("v1", &csr);
    controller.publish(|desired| desired.targets.push(site.target("v1", &old)));
    controller.wait(|seen| seen.target(TargetStatus::Applied)).await;
    let new = controller.issue("v2", &csr);
    site.ignore_reloads();
    controller.publish(|desired| desired.targets[0] = site.target("v2", &new));
    controller.wait(|_| (site.leaf() == new).then_some(())).await;
    agent.kill().await;
    assert_eq!(site.leaf(), new, "cut after the switch");
    let agent = site.start();
    controller.wait(|seen| seen.target(TargetStatus::RolledBack)).await;
    assert_eq!(site.leaf(), old);
    agent.stop().await.unwrap();
}

#[tokio::test]
async fn an_older_desired_state_is_ignored_and_reported() {
    let controller = Controller::new();
    let site = Site::new(&controller);
    site.enroll().await.unwrap();
    let agent = site.start();
    controller.publish(|desired| desired.name.as_mut().unwrap().generation = 9);
    controller.wait(|seen| seen.report.name.clone().filter(|name| name.generation == 10)).await;
    controller.publish(|desired| desired.name.as_mut().unwrap().generation = 3);
    let ignored = controller.wait(|seen| seen.report.ignored.clone()).await;
    assert_eq!(ignored.generation, 4);
    agent.stop().await.unwrap();
}

#[tokio::test]
async fn a_controller_that_restarts_gets_its_agent_back() {
    let controller = Controller::new();
    let site = Site::new(&controller);
    site.enroll().await.unwrap();
    let agent = site.start();
    controller.wait(|seen| (seen.attached == 1).then_some(())).await;
    controller.cut();
    controller.wait(|seen| (seen.attached == 2).then_some(())).await;
    assert!(tokio::time::timeout(Duration::from_secs(10), agent.stop()).await.unwrap().is_ok());
}

#[tokio::test]
async fn works_from_the_disk_while_the_controller_is_away() {
    let controller = Controller::new();
    let site = Site::new(&controller);
    site.enroll().await.unwrap();
    let agent = site.start();
    controller.publish(|desired| desired.key_slots.push(slot("slot-1", true)));
    let csr = controller.wait(|seen| seen.csrs.get("slot-1").cloned()).await;
    let fingerprint = controller.issue("v1", &csr);
    controller.publish(|desired| desired.targets.push(site.target("v1", &fingerprint)));
    controller.wait(|seen| seen.target(TargetStatus::Applied)).await;
    agent.stop().await.unwrap();

    // As after a crash between the switch and the ledger.
    fs::remove_file(site.state().join("outcomes.json")).unwrap();
    site.serve_nothing();
    site.set_away(true);
    let fetches = controller.fetches();
    let agent = site.start();
    let ended = tokio::time::timeout(Duration::from_secs(10), async {
        while !site.state().join("outcomes.json").exists() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    });
    ended.await.unwrap();
    assert_eq!((site.reloads(), controller.fetches()), (2, fetches));
    site.set_away(false);
    agent.stop().await.unwrap();
}

#[tokio::test]
async fn keys_go_when_later_versions_took_their_place_and_pending_ones_stay() {
    let controller = Controller::new();
    let site = Site::new(&controller);
    site.enroll().await.unwrap();
    let agent = site.start();
    let held = |expected: &'static [&'static str]| {
        controller.wait(move |seen| (seen.report.key_slots_held == expected).then_some(()))
    };
    // The certificate of this key is never deployed, and its slot is withdrawn.
    controller.publish(|desired| desired.key_slots.push(slot("pending", true)));
    controller.wait(|seen| seen.csrs.get("pending").cloned()).await;
    controller.publish(|desired| desired.key_slots.clear());
    let mut agent = Some(agent);
    for number in 1..=6 {
        let (id, version) = (format!("k{number}"), format!("v{number}"));
        controller.publish(|desired| desired.key_slots.push(slot(&id, true)));
        let csr = controller.wait(|seen| seen.csrs.get(&id).cloned()).await;
        let fingerprint = controller.issue(&version, &csr);
        controller.publish(|desired| {
            desired.key_slots = vec![slot(&id, false)];
            desired.targets = vec![wire::DesiredTarget { key_slot_id: id, ..site.target(&version, &fingerprint) }];
        });
        let applied = |report: &wire::TargetReport| report.version_id == version;
        controller.wait(|seen| seen.target(TargetStatus::Applied).filter(applied)).await;
        if number == 4 {
            // What each key was used for outlives a crash.
            held(&["k1", "k2", "k3", "k4", "pending"]).await;
            agent.take().unwrap().kill().await;
            agent = Some(site.start());
        }
    }
    held(&["k3", "k4", "k5", "k6", "pending"]).await;
    assert!(!site.state().join("keys/k1").exists() && site.state().join("keys/pending/key.pem").exists());
    agent.take().unwrap().stop().await.unwrap();
}

#[tokio::test]
async fn no_key_goes_before_the_controller_has_spoken() {
    let controller = Controller::new();
    let site = Site::new(&controller);
    site.enroll().await.unwrap();
    let agent = site.start();
    controller.publish(|desired| desired.key_slots.push(slot("k1", true)));
    controller.wait(|seen| seen.csrs.get("k1").cloned()).await;
    controller.publish(|desired| desired.key_slots.clear());
    controller.wait(|seen| seen.report.name.clone().filter(|name| name.generation == 3)).await;
    agent.stop().await.unwrap();

    // Retired long ago, as far as this server knows.
    let uses = r#"{"t":{"retired":["k1","a","b","c"],"live":[]}}"#;
    fs::write(site.key_uses_path(), uses).unwrap();
    let key = || fs::read_to_string(site.state().join("keys/k1/key.pem")).unwrap();
    let before = key();
    // The stored state does without this key, the controller went back to it meanwhile.
    controller.publish(|desired| desired.key_slots.push(slot("k1", false)));
    let agent = site.start();
    controller.wait(|seen| seen.report.name.clone().filter(|name| name.generation == 4)).await;
    assert_eq!(key(), before, "neither deleted nor made anew");
    controller.publish(|desired| desired.key_slots.clear());
    controller.wait(|seen| seen.report.key_slots_held.is_empty().then_some(())).await;
    agent.stop().await.unwrap();
}

#[tokio::test]
async fn one_reload_serves_every_target_of_a_pass() {
    let controller = Controller::new();
    let site = Site::new(&controller);
    site.enroll().await.unwrap();
    let agent = site.start();
    controller.publish(|desired| desired.key_slots.push(slot("slot-1", true)));
    let csr = controller.wait(|seen| seen.csrs.get("slot-1").cloned()).await;
    let fingerprint = controller.issue("v1", &csr);
    controller.publish(|desired| {
        for number in 0..3 {
            let mut target = site.target("v1", &fingerprint);
            target.target_id = format!("target-{number}");
            target.dir = if number == 0 { target.dir } else { format!("{}-{number}", target.dir) };
            desired.targets.push(target);
        }
    });
    let applied = |report: &wire::TargetReport| report.status() == TargetStatus::Applied;
    controller
        .wait(|seen| (seen.report.targets.iter().filter(|report| applied(report)).count() == 3).then_some(()))
        .await;
    assert_eq!(site.reloads(), 1);
    agent.stop().await.unwrap();
}

#[tokio::test]
async fn a_wrong_clock_makes_no_storm_of_renewals() {
    // Two days of the leaf's life are gone when it is handed out: every leaf is due at once.
    let controller = Controller::with_leaves_of_age(2 * 86_400);
    let site = Site::new(&controller);
    site.enroll().await.unwrap();
    let agent = site.start();
    controller.wait(|seen| (seen.attached == 1).then_some(())).await;
    agent.stop().await.unwrap();
    assert_eq!(controller.wait(|seen| Some(seen.renewals)).await, 1);
}

#[tokio::test(start_paused = true)]
async fn a_controller_that_asks_for_a_renewal_without_end_gets_it_soon_and_then_ever_less_often() {
    let controller = Controller::new();
    controller.ask_to_renew();
    let site = Site::new(&controller);
    site.enroll().await.unwrap();
    let agent = site.start();
    controller.wait(|seen| (seen.renewals == 1).then_some(())).await;
    let mut before = 1;
    for (hour, at_most) in [(1, 11), (2, 6), (3, 6)] {
        tokio::time::sleep(Duration::from_secs(3_600)).await;
        let renewals = controller.renewals();
        assert!((3..=at_most).contains(&(renewals - before)), "{} in hour {hour}", renewals - before);
        before = renewals;
    }
    agent.stop().await.unwrap();
}

#[tokio::test]
async fn a_second_agent_on_the_same_state_is_refused() {
    let controller = Controller::new();
    let site = Site::new(&controller);
    site.enroll().await.unwrap();
    let agent = site.start();
    controller.wait(|seen| (seen.attached == 1).then_some(())).await;
    let second = site.start().stop().await.unwrap_err();
    assert_eq!(second.downcast_ref::<agent::problem::Problem>().unwrap().reason, "ALREADY_RUNNING");
    agent.stop().await.unwrap();
}

fn slot(id: &str, csr_wanted: bool) -> wire::KeySlot {
    let key_type = types::KeyType::P256.into();
    wire::KeySlot { id: id.to_owned(), identifiers: vec![NAME.to_owned()], key_type, csr_wanted }
}

fn challenge(token: &str) -> wire::DesiredChallenge {
    wire::DesiredChallenge {
        token: token.to_owned(),
        key_authorization: format!("{token}.thumb"),
        identifier: NAME.to_owned(),
        http01: Some(types::Http01 { mode: Some(types::http01::Mode::StandalonePort(80)) }),
        requires: vec!["http01-standalone".to_owned()],
    }
}
