//! What is on a server, and what is made of it.

use insta::assert_snapshot;

use crate::controller::{FakeController, World};
use crate::fixtures::{at, detected};
use crate::{run, session, world};

#[tokio::test]
async fn what_was_found_is_told_for_people_and_for_programs() {
    let fake = FakeController::start(World { detected: detected(), ..world() });
    let text =
        session(&fake, &[&["agents", "detect", "h1"], &["agents", "detect", "h1", "--stored", "-o", "json"]]).await;
    assert_snapshot!(text);
    assert!(fake.requests().iter().any(|request| request.contains("DetectAgent")), "{:?}", fake.requests());
}

#[tokio::test]
async fn a_suggestion_becomes_a_certificate_or_a_target() {
    let mut world = World { detected: detected(), ..world() };
    world.certificates.push(crate::fixtures::fresh_certificate("www.example.test"));
    let fake = FakeController::start(world);
    let ran = run(&fake, &["agents", "apply", "h1", "www.example.test"]).await;
    assert_eq!(ran.code, 0, "{}", ran.err);
    assert!(ran.err.contains("+ certificate www.example.test") && ran.err.contains("[[dir]]"), "{}", ran.err);
    let asked = fake.requests().pop().unwrap();
    assert!(asked.contains("CreateCertificateRequest") && asked.contains("issuer: \"lab\""), "the only one: {asked}");
    assert!(asked.contains("/etc/nginx/tls") && asked.contains("Webroot"), "{asked}");
    let ran = run(&fake, &["agents", "apply", "h1", "web", "--dry-run"]).await;
    assert_eq!(ran.code, 0, "{}", ran.err);
    let asked = fake.requests().pop().unwrap();
    assert!(asked.contains("AddTargetRequest") && asked.contains("dry_run: true"), "{asked}");
    let count = fake.requests().len();
    assert_eq!(run(&fake, &["agents", "apply", "h1", "shop"]).await.code, 0);
    assert_eq!(fake.requests().len(), count, "what is there is not asked for");
}

#[tokio::test]
async fn what_does_not_fit_is_said() {
    let fake = FakeController::start(world());
    let none = run(&fake, &["agents", "apply", "h1", "--all"]).await;
    assert!(none.code == 3 && none.err.contains("certwright agents detect h1"), "{}", none.err);
    fake.change(|world| {
        world.detected = detected();
        world.issuers.push(crate::fixtures::issuer("other"));
        world.detected.seen_at = at(0);
    });
    let unknown = run(&fake, &["agents", "apply", "h1", "nothing"]).await;
    assert!(unknown.code == 3 && unknown.err.contains("no suggestion nothing"), "{}", unknown.err);
    let several = run(&fake, &["agents", "apply", "h1", "www.example.test"]).await;
    assert!(several.code == 2 && several.err.contains("--issuer: lab, other"), "{}", several.err);
    assert!(fake.requests().is_empty());
    assert_eq!(run(&fake, &["agents", "apply", "h1"]).await.code, 2, "all must be said");
}
