//! Files that are changed, removed or replaced behind the agent's back: on real files and, where the kernel tells it, in real time.

use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::Path;

use super::*;

const HOUR: Duration = Duration::from_secs(3_600);

/// A target that was applied, on an agent that runs.
async fn applied(controller: &Controller, site: &Site, on_drift: types::OnDrift) -> Vec<u8> {
    controller.publish(|desired| desired.key_slots.push(slot("slot-1", true)));
    let csr = controller.wait(|seen| seen.csrs.get("slot-1").cloned()).await;
    let fingerprint = controller.issue("v1", &csr);
    controller.publish(|desired| {
        desired.targets.push(wire::DesiredTarget { on_drift: on_drift.into(), ..site.target("v1", &fingerprint) });
    });
    controller.wait(|seen| seen.target(TargetStatus::Applied)).await;
    fingerprint
}

async fn drifted(controller: &Controller) -> wire::TargetReport {
    controller.wait(|seen| seen.target(TargetStatus::Drifted)).await
}

fn lines(report: &wire::TargetReport) -> Vec<&str> {
    report.drift.as_ref().unwrap().differences.iter().map(String::as_str).collect()
}

fn append(path: &Path) {
    let text = fs::read_to_string(path).unwrap();
    fs::write(path, text + "\n").unwrap();
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().mode() & 0o777
}

#[tokio::test]
async fn a_drift_is_told_at_once_and_repaired_on_the_ordinary_road() {
    let controller = Controller::new();
    let site = Site::new(&controller);
    site.enroll().await.unwrap();
    let agent = site.start();
    let ours = applied(&controller, &site, types::OnDrift::Repair).await;
    let right = fs::read(site.path("fullchain.pem")).unwrap();
    assert_eq!(site.reloads(), 1);

    append(&site.path("fullchain.pem"));
    let begun = tokio::time::Instant::now();
    let report = drifted(&controller).await;
    assert!(begun.elapsed() < Duration::from_secs(2), "told after {:?}", begun.elapsed());
    assert_eq!(lines(&report), ["fullchain.pem was changed"]);
    let problem = report.problem.unwrap();
    assert_eq!((problem.reason.as_str(), problem.cause.as_str()), ("DRIFTED", "fullchain.pem was changed"));

    let report = controller.wait(|seen| seen.target(TargetStatus::Applied)).await;
    assert_eq!((site.leaf(), fs::read(site.path("fullchain.pem")).unwrap()), (ours.clone(), right));
    let names: Vec<&str> = report.steps.iter().map(|step| step.name.as_str()).collect();
    assert_eq!((names, site.reloads()), (vec!["write", "reload", "verify"], 2));
    let drift = report.drift.unwrap();
    assert_eq!((drift.repairs, drift.differences.len()), (1, 1), "what was repaired stays told: {drift:?}");
    assert!(drift.ended_at > drift.seen_at);
    let kept = fs::read_dir(site.path(".certwright")).unwrap().flatten();
    let kept = kept.filter_map(|entry| fs::read_to_string(entry.path().join("fullchain.pem")).ok());
    assert!(kept.into_iter().any(|text| text.ends_with("\n\n")), "what the human wrote is kept");
    agent.stop().await.unwrap();
}

#[tokio::test]
async fn a_target_that_only_shows_is_told_every_kind_of_drift_and_keeps_it() {
    let controller = Controller::new();
    let site = Site::new(&controller);
    site.enroll().await.unwrap();
    let agent = site.start();
    applied(&controller, &site, types::OnDrift::Show).await;
    let told = |expected: &'static str| {
        controller.wait(move |seen| seen.target(TargetStatus::Drifted).filter(|report| lines(report) == [expected]))
    };
    let right = || controller.wait(|seen| seen.target(TargetStatus::Applied));
    let key = site.path("key.pem");

    fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).unwrap();
    told("key.pem has mode 0644, not 0600").await;
    assert_eq!(mode(&key), 0o644, "it is only shown");
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
    right().await;

    let link = fs::read_link(&key).unwrap();
    fs::remove_file(&key).unwrap();
    told("key.pem is missing").await;
    fs::write(&key, "mine").unwrap();
    told("key.pem was replaced by another file").await;
    fs::remove_file(&key).unwrap();
    symlink("/etc/hostname", &key).unwrap();
    let report = told("key.pem was replaced by a symbolic link").await;
    assert!(report.problem.unwrap().hint.contains("remove what stands there"));
    fs::remove_file(&key).unwrap();
    symlink(link, &key).unwrap();
    right().await;

    let current = site.path(".certwright/current");
    let generation = fs::read_link(&current).unwrap();
    fs::remove_file(&current).unwrap();
    symlink("99", &current).unwrap();
    let nowhere =
        |report: &wire::TargetReport| lines(report) == ["fullchain.pem leads to no file", "key.pem leads to no file"];
    controller.wait(|seen| seen.target(TargetStatus::Drifted).filter(nowhere)).await;
    fs::remove_file(&current).unwrap();
    symlink(generation, &current).unwrap();
    right().await;
    assert_eq!(site.reloads(), 1);

    // An operator who asks gets the files back, also where the agent only shows it.
    append(&site.path("fullchain.pem"));
    told("fullchain.pem was changed").await;
    controller.publish(|desired| desired.targets[0].deploy_wish = 1);
    let report = right().await;
    assert_eq!((report.drift, site.reloads()), (None, 2));
    agent.stop().await.unwrap();
}

#[tokio::test]
async fn files_and_directories_that_are_gone_come_back_with_their_key() {
    let controller = Controller::new();
    let site = Site::new(&controller);
    site.enroll().await.unwrap();
    let agent = site.start();
    let ours = applied(&controller, &site, types::OnDrift::Repair).await;
    let key = fs::read(site.path("key.pem")).unwrap();
    fs::remove_dir_all(site.dir()).unwrap();
    drifted(&controller).await;
    let report = controller.wait(|seen| seen.target(TargetStatus::Applied)).await;
    assert_eq!((site.leaf(), fs::read(site.path("key.pem")).unwrap()), (ours, key));
    assert_eq!(lines(&report), [format!("{} is missing", site.dir().display())]);
    agent.stop().await.unwrap();
}

#[tokio::test]
async fn a_drift_of_while_the_agent_was_away_is_found_at_its_start() {
    let controller = Controller::new();
    let site = Site::new(&controller);
    site.enroll().await.unwrap();
    let agent = site.start();
    applied(&controller, &site, types::OnDrift::Show).await;
    agent.stop().await.unwrap();
    fs::remove_file(site.path("fullchain.pem")).unwrap();
    let agent = site.start();
    assert_eq!(lines(&drifted(&controller).await), ["fullchain.pem is missing"]);
    agent.stop().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_change_that_the_kernel_does_not_tell_is_found_by_looking() {
    let controller = Controller::new();
    let site = Site::new(&controller);
    site.tell_no_changes();
    site.enroll().await.unwrap();
    let agent = site.start();
    applied(&controller, &site, types::OnDrift::Show).await;
    // The first look is done.
    tokio::time::sleep(Duration::from_secs(60)).await;
    append(&site.path("key.pem"));
    let begun = tokio::time::Instant::now();
    let quarter = Duration::from_secs(15 * 60);
    let report = controller.wait_within(quarter, |seen| seen.target(TargetStatus::Drifted)).await;
    assert_eq!(lines(&report), ["key.pem was changed"]);
    assert!(begun.elapsed() > quarter / 2, "{:?}", begun.elapsed());
    agent.stop().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn two_writers_back_off_and_an_operator_is_told() {
    let controller = Controller::new();
    let site = Site::new(&controller);
    site.tell_no_changes();
    site.enroll().await.unwrap();
    let agent = site.start();
    let ours = applied(&controller, &site, types::OnDrift::Repair).await;
    for repairs in 0..4 {
        append(&site.path("fullchain.pem"));
        let drifts = |report: &wire::TargetReport| report.drift.as_ref().unwrap().repairs == repairs;
        controller.wait_within(HOUR, |seen| seen.target(TargetStatus::Drifted).filter(drifts)).await;
        let repaired = |report: &wire::TargetReport| report.drift.as_ref().unwrap().repairs == repairs + 1;
        controller.wait_within(HOUR, |seen| seen.target(TargetStatus::Applied).filter(repaired)).await;
    }
    append(&site.path("fullchain.pem"));
    let report = controller.wait_within(HOUR, |seen| seen.target(TargetStatus::NeedsOperator)).await;
    let problem = report.problem.unwrap();
    assert_eq!(problem.reason, "DRIFTS_AGAIN");
    assert!(problem.message.ends_with("they drifted 5 times") && problem.hint.contains("configuration management"));
    let reloads = site.reloads();
    tokio::time::sleep(Duration::from_secs(6 * 3_600)).await;
    assert_eq!(site.reloads(), reloads, "it stopped");
    controller.publish(|desired| desired.targets[0].deploy_wish = 1);
    controller.wait(|seen| seen.target(TargetStatus::Applied).filter(|report| report.deploy_wish == 1)).await;
    assert_eq!(site.leaf(), ours);
    agent.stop().await.unwrap();
}

#[tokio::test]
async fn our_own_switches_are_no_drift() {
    let controller = Controller::new();
    let site = Site::new(&controller);
    site.enroll().await.unwrap();
    let agent = site.start();
    applied(&controller, &site, types::OnDrift::Repair).await;
    let csr = controller.wait(|seen| seen.csrs.get("slot-1").cloned()).await;
    for number in 2..12 {
        let version = format!("v{number}");
        let fingerprint = controller.issue(&version, &csr);
        controller.publish(|desired| desired.targets[0] = site.target(&version, &fingerprint));
        let report = controller
            .wait(|seen| seen.target(TargetStatus::Applied).filter(|report| report.version_id == version))
            .await;
        assert_eq!(report.drift, None, "{version}");
    }
    tokio::time::sleep(Duration::from_secs(2)).await;
    let report = controller.wait(|seen| seen.report.targets.first().cloned()).await;
    assert_eq!((report.drift, site.reloads()), (None, 11));
    agent.stop().await.unwrap();
}
