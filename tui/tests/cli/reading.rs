//! Commands that only look, in every format.

use insta::assert_snapshot;
use proto::method::Method;
use proto::types::v1::{FieldError, Problem};
use serde_json::Value;

use crate::controller::{Code, FakeController, World, not_found, refused};
use crate::{Place, fixtures, run, session, transcript, world};

#[tokio::test]
async fn tables_and_records_for_people() {
    let fake = FakeController::start(world());
    let commands: &[&[&str]] = &[
        &["status"],
        &["whoami"],
        &["certs", "ls"],
        &["certs", "ls", "-o", "wide"],
        &["certs", "ls", "-o", "name"],
        &["certs", "ls", "--filter", "sho"],
        &["certs", "get", "web"],
        &["certs", "get", "shop"],
        &["certs", "explain", "web"],
        &["certs", "explain", "shop"],
        &["certs", "explain", "new"],
        &["certs", "history", "web"],
        &["certs", "activity", "web", "--limit", "3"],
        &["targets", "ls"],
        &["targets", "ls", "shop", "-o", "wide"],
        &["agents", "ls"],
        &["agents", "get", "h1"],
        &["agents", "activity", "h1"],
        &["issuers", "ls"],
        &["issuers", "get", "lab"],
        &["jobs", "ls"],
        &["jobs", "get", "J1"],
        &["version"],
    ];
    assert_snapshot!(session(&fake, commands).await);
}

#[tokio::test]
async fn json_is_a_contract() {
    let fake = FakeController::start(world());
    let commands: &[&[&str]] = &[
        &["certs", "get", "web", "-o", "json"],
        &["certs", "get", "shop", "-o", "json"],
        &["certs", "history", "web", "-o", "json"],
        &["certs", "activity", "web", "--limit", "1", "-o", "json"],
        &["agents", "ls", "-o", "json"],
        &["issuers", "get", "lab", "-o", "json"],
        &["jobs", "get", "J1", "-o", "json"],
        &["status", "-o", "json"],
        &["whoami", "-o", "json"],
        &["version", "-o", "json"],
    ];
    assert_snapshot!(session(&fake, commands).await);
}

#[tokio::test]
async fn every_json_answer_names_its_api_version_and_lists_have_items_and_total() {
    let fake = FakeController::start(world());
    let lists: &[(&[&str], &str, u64)] = &[
        (&["certs", "ls"], "CertificateList", 3),
        (&["certs", "history", "web"], "VersionList", 1),
        (&["certs", "activity", "web"], "EventList", 5),
        (&["targets", "ls"], "TargetList", 3),
        (&["agents", "ls"], "AgentList", 3),
        (&["issuers", "ls"], "IssuerList", 1),
        (&["jobs", "ls"], "JobList", 1),
    ];
    for (words, kind, total) in lists {
        let ran = run(&fake, &[words, ["-o", "json"].as_slice()].concat()).await;
        let json: Value = serde_json::from_str(&ran.out).unwrap();
        assert_eq!(json["apiVersion"], "certwright/v1", "{words:?}");
        assert_eq!(json["kind"], *kind, "{words:?}");
        assert_eq!(json["total"], *total, "{words:?}: every page was read");
        assert_eq!(json["items"].as_array().map(|items| items.len().try_into().unwrap()), Some(*total), "{words:?}");
        assert_eq!(ran.err, "", "{words:?}: data goes to stdout, and nothing else happened");
    }
}

#[tokio::test]
async fn a_table_is_cut_to_the_terminal_and_only_there() {
    let fake = FakeController::start(world());
    let words = ["targets", "ls"];
    let whole = run(&fake, &words).await;
    assert!(whole.out.lines().any(|line| line.len() > 100), "{}", whole.out);
    let place = Place { width: Some(80), ..Place::default() };
    let cut = place.run(&fake.socket(), &words).await;
    assert!(cut.out.lines().all(|line| line.chars().count() <= 80), "{}", cut.out);
}

#[tokio::test]
async fn no_byte_from_outside_commands_the_terminal() {
    let evil = "\u{1b}]0;owned\u{7}\u{9b}2J\u{202e}";
    let mut certificate = fixtures::troubled_certificate("web");
    certificate.issuer = evil.into();
    certificate.identifiers = vec![evil.into()];
    certificate.status = evil.into();
    certificate.current.as_mut().unwrap().issuer_cn = evil.into();
    certificate.targets[0].steps[0].output = format!("{evil}\n{evil}");
    certificate.targets[0].problem.as_mut().unwrap().cause = evil.into();
    certificate.targets[0].spec.as_mut().unwrap().dir = evil.into();
    certificate.issues[0].cause = evil.into();
    let mut agent = fixtures::agent("h1");
    agent.hostname = evil.into();
    let mut event = fixtures::event(1, "x", evil);
    event.actor = evil.into();
    let fake = FakeController::start(World {
        certificates: vec![certificate],
        agents: vec![agent],
        events: vec![event],
        ..world()
    });
    for words in [
        ["certs", "get", "web"].as_slice(),
        &["certs", "ls", "-o", "wide"],
        &["certs", "explain", "web"],
        &["certs", "get", "web", "-o", "json"],
        &["certs", "activity", "web"],
        &["certs", "activity", "web", "-o", "json"],
        &["targets", "ls"],
        &["agents", "get", "h1"],
        &["agents", "ls", "-o", "json"],
    ] {
        let ran = run(&fake, words).await;
        let hostile = |ch: &char| (ch.is_control() && *ch != '\n') || *ch == '\u{202e}';
        assert_eq!(ran.out.chars().find(hostile), None, "{words:?}: {:?}", ran.out);
        assert!(ran.out.contains("<U+001B>"), "{words:?} shows that something was there: {}", ran.out);
    }
}

#[tokio::test]
async fn a_refusal_says_what_why_and_what_to_do() {
    let mut fake = FakeController::start(world());
    let mut text = session(&fake, &[&["certs", "get", "nope"], &["certs", "get", "nope", "-o", "json"]]).await;
    let fields = vec![
        FieldError {
            field: "--san".into(),
            message: "h1..test has an empty label".into(),
            hint: "check the dots".into(),
        },
        FieldError { field: "--dir".into(), message: "outside the policy of h1".into(), hint: String::new() },
    ];
    let invalid = Problem {
        reason: "REQUEST_INVALID".into(),
        message: "certificate web was not created".into(),
        cause: String::new(),
        hint: "correct the fields and try again".into(),
    };
    fake.change(|world| {
        world.refusal = Some((Method::OperatorCreateCertificate, refused(Code::InvalidArgument, invalid, fields)));
    });
    let create = ["certs", "create", "web", "--san", "h1..test", "--issuer", "lab"];
    let json = [create.as_slice(), &["-o", "json"]].concat();
    text.push_str(&session(&fake, &[&create, &json]).await);
    fake.stop().await;
    text.push_str(&session(&fake, &[&["status"]]).await);
    assert_snapshot!(text);
}

#[tokio::test]
async fn each_kind_of_refusal_has_its_exit_code() {
    for (code, exit) in [
        (Code::NotFound, 3),
        (Code::PermissionDenied, 4),
        (Code::Aborted, 5),
        (Code::Unavailable, 7),
        (Code::ResourceExhausted, 9),
        (Code::FailedPrecondition, 1),
    ] {
        let problem = Problem { message: "no".into(), ..Problem::default() };
        let refusal = Some((Method::OperatorListIssuers, refused(code, problem, Vec::new())));
        let fake = FakeController::start(World { refusal, ..world() });
        let ran = run(&fake, &["issuers", "ls"]).await;
        assert_eq!((ran.code, ran.err.as_str(), ran.out.as_str()), (exit, "error: no\n", ""), "{code:?}");
    }
    let fake = FakeController::start(World { refusal: None, ..world() });
    assert_eq!(run(&fake, &["issuers", "get", "x"]).await.code, 3);
    assert!(not_found("issuer", "x").message().contains("no issuer"));
}

#[tokio::test]
async fn doctor_names_what_to_change() {
    let mut fake = FakeController::start(world());
    let words = ["doctor"];
    let variables = [("TERM", "xterm-256color"), ("LANG", "de_DE.UTF-8"), ("NO_COLOR", "1")];
    let variables = variables.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
    let place = Place { width: Some(140), variables, ..Place::default() };
    let mut text = transcript(&fake, &words, &place.run(&fake.socket(), &words).await);
    fake.change(|world| {
        world.whoami.controller_version = "0.0.9".into();
        world.whoami.advertise = String::new();
    });
    let place = Place { width: Some(60), ..Place::default() };
    text.push_str(&transcript(&fake, &words, &place.run(&fake.socket(), &words).await));
    fake.stop().await;
    text.push_str(&session(&fake, &[&words, &["doctor", "-o", "json"]]).await);
    assert_snapshot!(text);
}
