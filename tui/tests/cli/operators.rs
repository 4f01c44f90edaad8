//! People and their contexts: what the commands print and ask for.

use std::collections::BTreeMap;

use insta::assert_snapshot;
use proto::operator::v1::EnrollAgentResponse;
use proto::types::v1::Problem;

use crate::controller::{FakeController, World};
use crate::fixtures::{self, at};
use crate::{Place, run, session, world};

fn team() -> World {
    let enrollment = EnrollAgentResponse { token: "SECRET.PIN".into(), expires_at: at(86_400), ..Default::default() };
    World { operators: fixtures::team(), enrollment, ..world() }
}

#[tokio::test]
async fn the_team_is_listed_changed_and_invited() {
    let fake = FakeController::start(team());
    let commands: &[&[&str]] = &[
        &["operators", "ls"],
        &["operators", "ls", "-o", "wide"],
        &["operators", "ls", "-o", "json"],
        &["operators", "add", "--local", "bob", "--role", "viewer"],
        &["operators", "invite", "dave", "--role", "maintainer"],
        &["operators", "role", "bob", "owner"],
        &["operators", "role", "bob", "king"],
        &["operators", "rm", "bob"],
        &["operators", "rm", "bob", "--confirm=bob"],
    ];
    assert_snapshot!(session(&fake, commands).await);
}

#[tokio::test]
async fn an_agent_that_was_away_too_long_says_so_and_is_let_back() {
    let mut world = world();
    let agent = world.agents.first_mut().expect("h1");
    agent.status = "expired".into();
    agent.problems = vec![Problem {
        reason: "NEEDS_CONSENT".into(),
        message: "h1 was away for too long to come back by itself".into(),
        cause: "its identity ended on 2026-01-01".into(),
        hint: "if that server is still the one: certwright agents consent h1".into(),
    }];
    let fake = FakeController::start(world);
    let commands: &[&[&str]] =
        &[&["agents", "ls"], &["agents", "get", "h1"], &["agents", "consent", "h1"], &["agents", "consent", "h9"]];
    assert_snapshot!(session(&fake, commands).await);
}

#[tokio::test]
async fn a_rotation_of_the_identity_ca_says_who_is_not_ready_and_asks_before_its_last_step() {
    let identity_ca = fixtures::identity_ca();
    let fake = FakeController::start(World { identity_ca, ..world() });
    let commands: &[&[&str]] = &[
        &["identity-ca", "ls"],
        &["identity-ca", "ls", "-o", "json"],
        &["identity-ca", "prepare", "-o", "name"],
        &["identity-ca", "activate", "--anyway=1", "-o", "name"],
        &["identity-ca", "retire"],
        &["identity-ca", "retire", "--confirm=4e5f6a7b"],
        &["identity-ca", "retire", "--anyway=1", "--confirm=0a1b2c3d", "-o", "name"],
        &["identity-ca", "abort", "-o", "name"],
    ];
    let text = session(&fake, commands).await;
    assert_eq!(fake.requests().len(), 4, "{:?}", fake.requests());
    assert_snapshot!(text);
}

#[tokio::test]
async fn contexts_are_listed_and_the_one_in_use_is_asked() {
    let fake = FakeController::start(team());
    let home = tempfile::tempdir().unwrap();
    let variables = BTreeMap::from([("HOME".to_owned(), home.path().to_string_lossy().into_owned())]);
    let place = || Place { variables: variables.clone(), ..Place::default() };
    let socket = fake.socket().to_string_lossy().into_owned();
    assert_eq!(place().bare(&["context", "add", "lab", "--at", &socket]).await.code, 0);
    assert_eq!(place().bare(&["--context", "lab", "whoami"]).await.out, "local:root (owner)\n");
    assert_eq!(place().bare(&["context", "use", "lab"]).await.code, 0);
    assert_eq!(place().bare(&["whoami"]).await.out, "local:root (owner)\n");
    let listed = place().bare(&["context", "ls"]).await.out;
    assert!(listed.contains("*") && listed.contains(&socket), "{listed}");
    assert_eq!(place().bare(&["context", "use", "-"]).await.code, 0);
    assert_eq!(place().bare(&["--context", "none", "whoami"]).await.code, 3, "no such context");
    assert_eq!(place().bare(&["context", "rm", "lab"]).await.code, 0);
    assert_eq!(place().bare(&["context", "rm", "lab"]).await.code, 3);
    let homeless = Place::default().bare(&["context", "ls"]).await;
    assert!(homeless.code == 2 && homeless.err.contains("HOME"), "{}", homeless.err);
}

#[tokio::test]
async fn a_login_is_refused_before_anything_is_made() {
    let fake = FakeController::start(team());
    let home = tempfile::tempdir().unwrap();
    let file = home.path().join("invitation");
    std::fs::write(&file, "hello").unwrap();
    let at = format!("@{}", file.display());
    let variables = BTreeMap::from([("HOME".to_owned(), home.path().to_string_lossy().into_owned())]);
    let check = async |words: &[&str], said: &str| {
        let place = Place { variables: variables.clone(), ..Place::default() };
        let ran = place.run(&fake.socket(), words).await;
        assert!(ran.code == 2 && ran.err.contains(said), "{words:?}: {}", ran.err);
    };
    check(&["login", "--controller", "ctl:7443", "--invite", "SECRET.PIN"], "everyone on this host can read").await;
    check(&["login", "--controller", "ctl:7443", "--invite", &at], "not an invitation").await;
    check(&["login", "--controller", "ctl", "--invite", &at], "HOST:PORT").await;
    assert!(!home.path().join(".config").exists());
    assert_eq!(run(&fake, &["whoami"]).await.code, 0);
}
