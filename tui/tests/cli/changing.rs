//! Commands that change something: what they ask the controller for, and what consent they want.

use insta::assert_snapshot;
use proto::operator::v1::{
    Batch, Certificate, EnrollAgentResponse, Job, Pause, Rollback, SkippedCertificate, TargetTest,
};
use proto::types::v1::{Problem, TargetStatus, TestResult, TestStep};

use crate::controller::{FakeController, World};
use crate::fixtures::{at, checked, job, private_issuer};
use crate::{Place, run, session, transcript, world};

const CREATE: [&str; 25] = [
    "certs",
    "create",
    "web",
    "--san",
    "h1.example.test",
    "--san",
    "www.h1.example.test",
    "--issuer",
    "lab",
    "--http01",
    "standalone:8080",
    "--responder",
    "front",
    "--agent",
    "h1",
    "--dir",
    "/etc/nginx/ssl/h1.example.test",
    "--mode",
    "key=0640",
    "--owner",
    "root:www-data",
    "--reload",
    "/usr/sbin/nginx -s 'reload'",
    "--verify",
    "[::1]:443/h1.example.test",
];

/// Returns the last request without the id that is made anew each time.
fn request(fake: &FakeController) -> String {
    let text = fake.requests().pop().unwrap_or_default();
    let kept: Vec<&str> = text.lines().filter(|line| !line.contains("request_id")).collect();
    assert!(kept.len() < text.lines().count(), "a changing request carries an id: {text}");
    kept.join("\n")
}

#[tokio::test]
async fn create_asks_for_everything_in_one_line() {
    let fake = FakeController::start(World { warnings: vec!["agent front is offline".into()], ..world() });
    let text = session(&fake, &[&CREATE]).await;
    assert_snapshot!(format!("{text}{}", request(&fake)));
}

#[tokio::test]
async fn a_preset_fills_in_a_target_and_an_unknown_one_is_told_the_names() {
    let fake = FakeController::start(world());
    let listed = session(&fake, &[&["targets", "presets"]]).await;
    assert!(fake.requests().is_empty(), "no controller is asked");
    let create = ["certs", "create", "web", "--san", "h1.example.test", "--issuer", "lab", "--agent", "h1"];
    let ran = run(&fake, &[&create[..], &["--preset", "haproxy", "--reload", "/bin/true"]].concat()).await;
    assert_eq!(ran.code, 0, "{}", ran.err);
    let asked = request(&fake);
    for word in ["\"/etc/haproxy/certs\"", "\"web.pem\"", "content: Combined", "\"/bin/true\"", "\"127.0.0.1:443\""] {
        assert!(asked.contains(word), "{word}: {asked}");
    }
    let ran = run(&fake, &["targets", "add", "web", "--agent", "h1", "--preset", "nginx", "--dir", "/srv/tls"]).await;
    assert_eq!(ran.code, 0, "{}", ran.err);
    let asked = request(&fake);
    assert!(asked.contains("\"/srv/tls\"") && asked.contains("\"reload\""), "{asked}");
    let unknown = run(&fake, &[&create[..], &["--preset", "iis"]].concat()).await;
    assert_eq!(unknown.code, 2);
    assert_snapshot!(format!("{listed}{}", unknown.err));
    let nowhere = run(&fake, &create).await;
    assert!(nowhere.code == 2 && nowhere.err.contains("--dir") && nowhere.err.contains("--preset"), "{}", nowhere.err);
    let nowhere = run(&fake, &["targets", "add", "web", "--agent", "h1"]).await;
    assert!(nowhere.code == 2 && nowhere.err.contains("--dir"), "{}", nowhere.err);
}

/// What an agent found, with one step that went as told.
fn tested(agent: &str, result: TestResult, problem: Option<Problem>) -> TargetTest {
    let step = |name: &str, subject: &str, found: &str| TestStep {
        name: name.into(),
        subject: subject.into(),
        result: TestResult::Ok.into(),
        found: found.into(),
        ..TestStep::default()
    };
    let policy = step("policy", "/etc/certwright/policy.toml", "it allows all of it");
    let test = step("validate", "/usr/sbin/nginx -t", "");
    let steps = vec![policy, TestStep { result: result.into(), problem, took_ms: 30, ..test }];
    TargetTest { target_id: "t1".into(), agent: agent.into(), dir: "/etc/nginx/ssl".into(), steps, problem: None }
}

#[tokio::test]
async fn a_test_shows_each_step_and_fails_when_a_target_would() {
    let fake = FakeController::start(world());
    let problem = |reason: &str, message: &str| Problem {
        reason: reason.into(),
        message: message.into(),
        cause: "nginx: [emerg] unknown directive \"sslx\"\u{1b}[2J".into(),
        hint: "correct the service on this server".into(),
    };
    let failed =
        tested("h1", TestResult::Failed, Some(problem("VALIDATE_FAILED", "`/usr/sbin/nginx -t` ended with status 1")));
    let away = TargetTest {
        steps: vec![],
        problem: Some(problem("AGENT_AWAY", "agent h2 is away")),
        ..tested("h2", TestResult::Ok, None)
    };
    fake.change(|world| world.tests = vec![tested("h3", TestResult::Ok, None), failed.clone(), away]);
    let ran = run(&fake, &["targets", "test", "web"]).await;
    assert_eq!(ran.code, 6, "{}", ran.err);
    let named = run(&fake, &["targets", "test", "web", "-o", "name"]).await;
    assert_snapshot!(format!("{}{}{}", ran.out, ran.err, named.out));
    let json: serde_json::Value =
        serde_json::from_str(&run(&fake, &["targets", "test", "web", "-o", "json"]).await.out).unwrap();
    assert_eq!((&json["kind"], &json["items"][1]["result"]), (&"TargetTestList".into(), &"failed".into()));
    assert_eq!(json["items"][1]["steps"][1]["error"]["reason"], "VALIDATE_FAILED");
    fake.change(|world| world.tests = vec![failed]);
    assert_eq!(run(&fake, &["targets", "test", "web", "--agent", "h1"]).await.code, 1);
    assert!(fake.requests().pop().unwrap().contains("target_id: \"01jtarget"), "{:?}", fake.requests().pop());
    fake.change(|world| world.tests = vec![tested("h1", TestResult::Warning, None)]);
    let ran = run(&fake, &["targets", "set", "web", "--agent", "h1", "--owner", "root:adm", "--test"]).await;
    assert_eq!(ran.code, 0, "{}", ran.err);
    let asked = fake.requests().pop().unwrap();
    assert!(asked.starts_with("TestTargetsRequest") && asked.contains("root:adm"), "{asked}");
    let ran = run(&fake, &["targets", "add", "web", "--agent", "h1", "--dir", "/srv/tls", "--test"]).await;
    assert_eq!(ran.code, 0, "{}", ran.err);
    let asked = fake.requests().pop().unwrap();
    assert!(
        asked.starts_with("TestTargetsRequest") && asked.contains("/srv/tls") && asked.contains("target_id: \"\""),
        "{asked}"
    );
}

#[tokio::test]
async fn a_check_of_challenges_shows_the_whole_way_and_fails_when_a_ca_would() {
    let fake = FakeController::start(world());
    let mut checked = checked();
    fake.change(|world| world.checked = checked.clone());
    let check = ["challenges", "check", "web"];
    let ran = run(&fake, &check).await;
    assert_eq!(ran.code, 6, "{}", ran.err);
    let named = run(&fake, &[&check[..], &["-o", "name"]].concat()).await;
    assert_snapshot!(format!("{}{}{}", ran.out, ran.err, named.out));
    let json: serde_json::Value =
        serde_json::from_str(&run(&fake, &[&check[..], &["-o", "json"]].concat()).await.out).unwrap();
    assert_eq!((&json["kind"], &json["names"][0]["seen"]), (&"ChallengeCheck".into(), &"blocked".into()));
    assert_eq!(json["names"][0]["trails"][0]["hops"][1]["outcome"], "200");
    let good = vec![checked.names.remove(1)];
    fake.change(|world| world.checked = checked.clone());
    assert_eq!(run(&fake, &check).await.code, 1);
    checked.names = good;
    fake.change(|world| world.checked = checked.clone());
    assert_eq!(run(&fake, &check).await.code, 0);
    checked.responders[0].problem = Some(Problem { message: "agent h1 is away".into(), ..Problem::default() });
    fake.change(|world| world.checked = checked.clone());
    assert_eq!(run(&fake, &check).await.code, 6, "one of its agents would not answer a CA");
}

#[tokio::test]
async fn what_is_to_be_created_is_tested_and_not_created() {
    let fake = FakeController::start(world());
    fake.change(|world| world.tests = vec![tested("h1", TestResult::Ok, None)]);
    let ran = run(&fake, &[&CREATE[..], &["--test"]].concat()).await;
    assert_eq!(ran.code, 0, "{}", ran.err);
    let asked = fake.requests();
    assert!(asked.len() == 1 && asked[0].starts_with("TestTargetsRequest"), "{asked:?}");
    assert!(asked[0].contains("\"www.h1.example.test\"") && asked[0].contains("root:www-data"), "{asked:?}");
}

#[tokio::test]
async fn pause_and_resume_say_what_stands_still_and_how_to_lift_it() {
    let fake = FakeController::start(world());
    let pause = ["pause", "--all", "--reason", "the CA is replaced"];
    let one = ["certs", "pause", "web", "--reason", "moves tonight", "-o", "json"];
    let text = session(&fake, &[&pause, &["status"], &["resume", "--all", "-o", "json"]]).await;
    let paused = run(&fake, &one).await;
    let json: serde_json::Value = serde_json::from_str(&paused.out).unwrap();
    assert_eq!(json["pause"]["reason"], "moves tonight");
    assert_eq!(json["pause"]["all"], false);
    let resumed = run(&fake, &["certs", "resume", "web"]).await;
    assert_snapshot!(format!("{text}{}{}", paused.err, resumed.err));
    let ran = run(&fake, &["pause", "--reason", "x"]).await;
    assert_eq!(ran.code, 2, "everything is paused only by --all: {}", ran.err);
}

#[tokio::test]
async fn revoking_wants_the_name_or_with_a_filter_the_count() {
    let fake = FakeController::start(world());
    let revoke = |more: &[&'static str]| [&["certs", "revoke", "--reason", "keyCompromise"], more].concat();
    let ran = run(&fake, &revoke(&["web"])).await;
    assert_eq!(ran.code, 2, "not without consent: {}", ran.err);
    assert!(fake.requests().is_empty());
    let ran = run(&fake, &revoke(&["web", "--confirm=web"])).await;
    assert_eq!(ran.code, 0, "{}", ran.err);
    assert!(request(&fake).contains("reason: \"keyCompromise\""));
    let ran = run(&fake, &revoke(&["--filter", "e", "--confirm=9"])).await;
    assert_eq!((ran.code, fake.requests().len()), (2, 1), "the wrong count: {}", ran.err);
    let ran = run(&fake, &revoke(&["--filter", "web", "--confirm=1"])).await;
    assert_eq!((ran.code, ran.out.as_str()), (0, "J1\n"), "{}", ran.err);
    assert!(ran.err.contains("cannot be undone") || ran.err.contains("the current version is revoked"), "{}", ran.err);
    let ran = run(&fake, &revoke(&["--filter", "web", "--yes"])).await;
    assert_eq!(ran.code, 2, "only the count consents to a revocation: {}", ran.err);
    let ran = run(&fake, &["certs", "revoke", "web", "--reason", "caCompromise", "--confirm=web"]).await;
    assert_eq!(ran.code, 2, "only a CA may say that: {}", ran.err);
}

#[tokio::test]
async fn many_are_rehearsed_agreed_to_and_done_as_one_job() {
    let fake = FakeController::start(world());
    fake.change(|world| {
        let base = world.certificates[0].clone();
        world.certificates =
            ["api", "shop", "web"].map(|name| Certificate { name: name.into(), ..base.clone() }).to_vec();
        world.certificates[1].pause = Some(Pause::default());
    });
    let mut text = session(
        &fake,
        &[
            &["certs", "renew", "--all", "--rehearse"],
            &["certs", "renew", "--all"],
            &["certs", "renew", "--all", "--confirm=3"],
            &["certs", "renew", "api", "web", "--yes"],
            &["certs", "rekey", "--filter", "web", "--rehearse", "-o", "json"],
            &["certs", "rekey", "web", "--yes", "-o", "json"],
            &["jobs", "retry", "J1", "--yes", "-o", "name"],
            &["certs", "renew"],
        ],
    )
    .await;
    let all = ["certs", "rekey", "--all"];
    let typed = Place { answers: Some("2\n"), ..Place::default() };
    text.push_str(&transcript(&fake, &all, &typed.run(&fake.socket(), &all).await));
    let requests = fake.requests().join("\n");
    let kept: Vec<&str> = requests.lines().filter(|line| !line.contains("request_id")).collect();
    assert_snapshot!(format!("{text}{}", kept.join("\n")));
    let words = ["certs", "rekey", "--issuer", "le", "--key-type", "rsa2048", "--filter", "a or b", "--yes"];
    run(&fake, &words).await;
    assert!(fake.requests().last().unwrap().contains("filter: \"(a or b) issuer:le key:rsa2048\""));
}

#[tokio::test]
async fn a_job_over_many_is_shown_with_each_of_them_and_taken_back() {
    let fake = FakeController::start(world());
    fake.change(|world| {
        let batch = Batch {
            selection: "issuer:le".into(),
            total: 35,
            made: 35,
            succeeded: 31,
            open: 2,
            failed: 2,
            skipped: vec![SkippedCertificate {
                name: "shop".into(),
                reason: "locked".into(),
                why: "locked until 2026-12-01T00:00:00Z".into(),
            }],
            skipped_total: 1,
            ..Batch::default()
        };
        let parent =
            Job { kind: "renew".into(), certificate: String::new(), batch: Some(batch), ..job("running", "running") };
        let problem = Problem { reason: "X".into(), message: "CAA forbids the CA".into(), ..Problem::default() };
        let sub = Job {
            id: "sJ1.00000".into(),
            parent: "J1".into(),
            failures: 3,
            retry_at: world.certificates[0].renew_at,
            problem: Some(problem),
            ..job("waiting", "waiting")
        };
        world.jobs = vec![parent, sub];
    });
    let text = session(
        &fake,
        &[
            &["jobs", "ls"],
            &["jobs", "get", "J1"],
            &["jobs", "get", "sJ1.00000"],
            &["jobs", "get", "J1", "-o", "json"],
            &["jobs", "cancel", "J1", "-o", "name"],
        ],
    )
    .await;
    assert_snapshot!(text);
}

#[tokio::test]
async fn a_dry_run_shows_the_plan_and_says_that_nothing_changed() {
    let fake = FakeController::start(world());
    let words = [CREATE.as_slice(), &["--dry-run"]].concat();
    let ran = run(&fake, &words).await;
    assert_eq!((ran.code, ran.err.as_str()), (0, "dry run: all checks passed and nothing was changed\n"));
    assert!(ran.out.starts_with("web: active"), "{}", ran.out);
    assert!(request(&fake).contains("dry_run: true"));
    let json = run(&fake, &[words.as_slice(), &["-o", "json"]].concat()).await;
    assert!(json.out.contains("\"dry_run\": true") && json.out.contains("\"kind\": \"Accepted\""), "{}", json.out);
}

#[tokio::test]
async fn set_changes_only_what_is_named() {
    let fake = FakeController::start(world());
    run(&fake, &["certs", "set", "web", "--custody", "controller", "--no-responders", "--auto-renew", "off"]).await;
    assert_snapshot!(fake.requests().concat());
    let nothing = run(&fake, &["certs", "set", "web"]).await;
    assert_eq!(nothing.code, 2);
    assert!(nothing.err.contains("nothing to change"), "{}", nothing.err);
    assert_eq!(fake.requests().len(), 1, "nothing was asked for");
}

#[tokio::test]
async fn a_target_is_changed_by_what_is_said_and_keeps_the_rest() {
    let fake = FakeController::start(world());
    let set = |more: &[&'static str]| [&["targets", "set", "web", "--agent", "h1"], more].concat();
    let ran = run(&fake, &set(&["--mode", "key=0640", "--validate", "/usr/sbin/nginx -t", "--dry-run"])).await;
    assert_eq!(ran.code, 0, "{}", ran.err);
    assert!(ran.err.contains("- file key=key.pem 0600\n+ file key=key.pem 0640\n"), "{}", ran.err);
    assert!(ran.err.contains("+ validate /usr/sbin/nginx -t\n"), "{}", ran.err);
    let asked = request(&fake);
    for word in ["dry_run: true", "mode: 416", "\"-t\"", "\"root:www-data\"", "127.0.0.1:443", "\"reload\""] {
        assert!(asked.contains(word), "{word}: {asked}");
    }
    let more = ["--no-reload", "--new-dir", "/srv/tls", "--file", "key=tls.key", "--file", "fullchain=tls.crt"];
    let ran = run(&fake, &set(&more)).await;
    assert_eq!(ran.code, 0, "{}", ran.err);
    let asked = request(&fake);
    assert!(asked.contains("reload: []") && asked.contains("/srv/tls") && asked.contains("tls.crt"), "{asked}");
    let ran = run(&fake, &set(&["--dir", "/etc/nginx/ssl/h1.example.test"])).await;
    assert!(ran.code == 0 && ran.err.contains("nothing changes"), "{}", ran.err);
    let ran = run(&fake, &set(&["--no-reload", "--reload", "/bin/true"])).await;
    assert_eq!(ran.code, 2, "{}", ran.err);
    let ran = run(&fake, &set(&["--mode", "combined=0600"])).await;
    assert!(ran.code == 2 && ran.err.contains("no combined file"), "{}", ran.err);
}

#[tokio::test]
async fn an_older_version_is_put_back_and_shown_loudly() {
    let fake = FakeController::start(world());
    let ran = run(&fake, &["certs", "rollback", "web", "0a1b"]).await;
    assert_eq!(ran.code, 0, "{}", ran.err);
    assert!(request(&fake).contains("version: \"0a1b\""), "{}", request(&fake));
    let ran = run(&fake, &["targets", "deploy", "web", "--version", "current"]).await;
    assert!(ran.code == 0 && request(&fake).contains("version: \"current\""), "{}", ran.err);
    let ran = run(&fake, &["targets", "deploy", "web", "--version", "current", "--agent", "h1"]).await;
    assert_eq!(ran.code, 2, "to all targets: {}", ran.err);
    fake.change(|world| {
        world.certificates[0].rollback = Some(Rollback {
            version: world.certificates[0].current.clone(),
            since_at: at(0),
            by: "local:root".into(),
            until_at: at(86_400),
        });
    });
    let shown = run(&fake, &["certs", "get", "web"]).await.out;
    assert!(shown.contains(", ROLLED BACK") && shown.contains("by local:root, at most until"), "{shown}");
    let json: serde_json::Value =
        serde_json::from_str(&run(&fake, &["certs", "get", "web", "-o", "json"]).await.out).unwrap();
    assert_eq!(json["rollback"]["by"], "local:root");
}

#[tokio::test]
async fn a_rollout_is_set_in_words_and_let_go_on() {
    let fake = FakeController::start(world());
    let words = "canary=h1 wave=25% rest=5m";
    let ran = run(&fake, &["certs", "set", "web", "--rollout", words]).await;
    assert!(ran.code == 0 && fake.requests().last().unwrap().contains(words), "{}", ran.err);
    let ran = run(&fake, &["targets", "deploy", "web", "--continue"]).await;
    assert!(ran.code == 0 && request(&fake).contains("continue_rollout: true"), "{}", ran.err);
    let ran = run(&fake, &["targets", "deploy", "web", "--continue", "--agent", "h1"]).await;
    assert_eq!(ran.code, 2, "{}", ran.err);
    fake.change(|world| {
        world.certificates[0].rollout = words.into();
        world.certificates[0].targets[0].status = TargetStatus::Pending.into();
        world.certificates[0].targets[0].waits = "for the targets before it in the rollout".into();
        world.certificates[0].targets[0].waits_until = at(3_600);
    });
    let shown = run(&fake, &["certs", "get", "web"]).await.out;
    assert!(
        shown.contains(words) && shown.contains("keeps the version before and waits for the targets before it"),
        "{shown}"
    );
    assert!(run(&fake, &["targets", "ls", "web"]).await.out.contains("held"));
}

#[tokio::test]
async fn windows_are_set_in_words_and_who_waits_for_one_says_so() {
    let fake = FakeController::start(world());
    let words = "Sat,Sun 02:00-05:00 Europe/Berlin";
    let ran = run(&fake, &["certs", "set", "web", "--window", words, "--window", "daily 12:00-13:00"]).await;
    let sent = fake.requests().pop().unwrap();
    assert!(ran.code == 0 && sent.contains("set_windows: true") && sent.contains("daily 12:00-13:00"), "{}", ran.err);
    fake.change(|world| {
        let web = &mut world.certificates[0];
        (web.windows, web.window_until) = (vec![words.into()], at(7_200));
        web.targets[0].status = TargetStatus::Pending.into();
        (web.targets[0].waits, web.targets[0].waits_until) = ("for its window".into(), at(3_600));
    });
    let shown = run(&fake, &["certs", "get", "web"]).await.out;
    assert!(shown.contains(&format!("{words}: closed until")), "{shown}");
    assert!(shown.contains("keeps the version before and waits for its window, at most until"), "{shown}");
    assert!(run(&fake, &["targets", "ls", "web"]).await.out.contains("held"));
    let json: serde_json::Value =
        serde_json::from_str(&run(&fake, &["certs", "get", "web", "-o", "json"]).await.out).unwrap();
    assert_eq!((json["window_open"].as_bool(), json["windows"][0].as_str()), (Some(false), Some(words)));
    assert_eq!(json["targets"][0]["waits"], "for its window");
}

#[tokio::test]
async fn agents_are_labelled_and_a_label_stands_for_them() {
    let fake = FakeController::start(world());
    let ran = run(&fake, &["agents", "set", "h1", "--label", "role=web", "--label", "tier-"]).await;
    assert!(ran.code == 0 && ran.out.contains("role=web"), "{}{}", ran.out, ran.err);
    let sent = fake.requests().pop().unwrap();
    let words: String = sent.split_whitespace().collect();
    assert!(words.contains(r#"labels:["role=web",],remove_labels:["tier",]"#), "{sent}");
    let add =
        ["targets", "add", "web", "--agents", "role=web", "--dir", "/srv/tls", "--owner", "root:root", "--dry-run"];
    let ran = run(&fake, &add).await;
    assert!(ran.code == 0 && request(&fake).contains("agents_label: \"role=web\""), "{}", ran.err);
    assert_eq!(run(&fake, &["targets", "add", "web", "--dir", "/srv/tls"]).await.code, 2, "on which?");
    assert_eq!(run(&fake, &[&add[..], &["--agent", "h1"]].concat()).await.code, 2);
    let ran = run(&fake, &["targets", "add", "web", "--agent", "h1", "--dir", "/d", "--file", "jks=a.jks"]).await;
    assert!(ran.code == 2 && ran.err.contains("use pfx="), "{}", ran.err);
}

#[tokio::test]
async fn targets_are_added_deployed_and_removed_by_agent_and_directory() {
    let fake = FakeController::start(world());
    let mut text = String::new();
    let commands: [&[&str]; 5] = [
        &["targets", "add", "web", "--agent", "h3", "--dir", "/etc/x", "--file", "fullchain=server.crt", "-o", "name"],
        &["targets", "deploy", "web", "--agent", "h1", "-o", "name"],
        &["certs", "renew", "web", "-o", "name"],
        &["targets", "rm", "web", "--agent", "h1", "-o", "name"],
        &["targets", "rm", "web", "--agent", "h9", "-o", "name"],
    ];
    for words in commands {
        text.push_str(&session(&fake, &[words]).await);
    }
    fake.change(|world| {
        let mut second = world.certificates[0].targets[0].clone();
        second.spec.as_mut().unwrap().dir = "/etc/other".into();
        world.certificates[0].targets.push(second);
    });
    text.push_str(&session(&fake, &[&["targets", "rm", "web", "--agent", "h1"]]).await);
    let requests = fake.requests().join("\n");
    let kept: Vec<&str> = requests.lines().filter(|line| !line.contains("request_id")).collect();
    assert_snapshot!(format!("{text}{}", kept.join("\n")));
}

#[tokio::test]
async fn nothing_is_destroyed_without_the_name() {
    let fake = FakeController::start(world());
    let mut text = session(
        &fake,
        &[
            &["certs", "delete", "web"],
            &["certs", "delete", "web", "--confirm=shop"],
            &["agents", "revoke", "h1"],
            &["agents", "forget", "h1", "--confirm="],
        ],
    )
    .await;
    let delete = ["certs", "delete", "web"];
    let wrong = Place { answers: Some("wbe\n"), ..Place::default() };
    text.push_str(&transcript(&fake, &delete, &wrong.run(&fake.socket(), &delete).await));
    assert!(fake.requests().is_empty(), "{:?}", fake.requests());

    let right = Place { answers: Some("web\n"), ..Place::default() };
    text.push_str(&transcript(&fake, &delete, &right.run(&fake.socket(), &delete).await));
    let consented: &[&[&str]] = &[
        &["certs", "delete", "web", "--purge", "--confirm=web"],
        &["agents", "revoke", "h1", "--confirm=h1", "-o", "name"],
        &["agents", "forget", "h1", "--confirm=h1"],
    ];
    text.push_str(&session(&fake, consented).await);
    assert_eq!(fake.requests().len(), 4);
    assert_snapshot!(text);
}

#[tokio::test]
async fn an_enrollment_is_one_command_on_stdout_and_its_story_on_stderr() {
    let enrollment = EnrollAgentResponse {
        token: "SECRET.PIN".into(),
        command: "echo SECRET.PIN | certwright-agent enroll --controller ADDRESS:7443 --token -".into(),
        expires_at: at(3_600),
        hint: "put the controller's address for ADDRESS, or start it with --advertise HOST:PORT".into(),
    };
    let fake = FakeController::start(World { enrollment, ..world() });
    let text = session(&fake, &[&["agents", "enroll", "h5"], &["agents", "enroll", "h1", "--replace", "-o", "json"]]);
    assert_snapshot!(text.await);
    assert!(fake.requests()[1].contains("replace: true"));
}

#[tokio::test]
async fn an_issuer_is_added_with_its_own_roots() {
    let fake = FakeController::start(world());
    let root = fake.folder().join("root.pem");
    std::fs::write(&root, "-----BEGIN CERTIFICATE-----\n").unwrap();
    let root = root.to_string_lossy().into_owned();
    let words = ["issuers", "add", "lab", "--directory", "https://ca.example.test/dir", "--accept-terms", "--root"];
    let ran = run(&fake, &[words.as_slice(), &[&root, "--email", "ops@example.test"]].concat()).await;
    assert_eq!(ran.code, 0, "{}", ran.err);
    assert_snapshot!(fake.requests().concat());
    let missing = run(&fake, &[words.as_slice(), &["/nonexistent.pem"]].concat()).await;
    assert_eq!(missing.code, 2);
    assert!(missing.err.contains("/nonexistent.pem"), "{}", missing.err);
    assert_eq!(run(&fake, &["issuers", "rm", "lab"]).await.code, 0);
}

#[tokio::test]
async fn an_option_that_cannot_be_right_is_refused_before_anything_is_asked() {
    let fake = FakeController::start(world());
    let base = ["certs", "create", "web", "--san", "a.test", "--issuer", "lab"];
    let placed = ["--agent", "h1", "--dir", "/etc/x"];
    for (words, said) in [
        (["--dir", "/etc/x"].as_slice(), "--agent"),
        (&["--agent", "h1"], "--dir"),
        (&["--agent", "h1", "--dir", "etc/x"], "absolute"),
        (&["--reload", "/bin/true"], "--agent"),
        (&["--key", "dsa"], "p256"),
        (&["--custody", "me"], "agent or controller"),
        (&["--http01", "webroot:x"], "absolute"),
        (&["--wait", "--dry-run"], "cannot be used with"),
        (&["--wait=soon"], "duration"),
        (&["-o", "yaml"], "possible values"),
    ] {
        let ran = run(&fake, &[base.as_slice(), words].concat()).await;
        assert_eq!(ran.code, 2, "{words:?}");
        assert!(ran.err.contains(said), "{words:?}: {}", ran.err);
    }
    for (words, said) in [
        (["--reload", "nginx -s reload"].as_slice(), "command -v nginx"),
        (&["--reload", "/bin/sh -c x && y"], "no"),
        (&["--verify", "::1:443"], "brackets"),
        (&["--file", "fullchain=../x"], "bare file name"),
        (&["--file", "fullchain=x", "--mode", "key=0600"], "no key file"),
    ] {
        let ran = run(&fake, &[base.as_slice(), &placed, words].concat()).await;
        assert_eq!(ran.code, 2, "{words:?}");
        assert!(ran.err.contains(said), "{words:?}: {}", ran.err);
    }
    assert!(fake.requests().is_empty(), "{:?}", fake.requests());
}

#[tokio::test]
async fn a_private_ca_is_added_shown_and_exported() {
    let mut corp = world();
    corp.issuers.push(private_issuer());
    let fake = FakeController::start(corp);
    let root = fake.folder().join("corp.crt");
    let shown = root.to_string_lossy().into_owned();
    let add = ["issuers", "add", "corp", "--private", "--names", "*.corp.example,10.0.0.0/8", "--lifetime", "30d"];
    let text = session(
        &fake,
        &[
            &add,
            &["issuers", "set", "corp", "--names", "db.example", "--crl-url", "none"],
            &["issuers", "get", "corp"],
            &["issuers", "ls"],
            &["issuers", "root", "corp"],
            &["issuers", "root", "lab"],
            &["issuers", "crl", "corp"],
            &["issuers", "add", "x", "--directory", "https://ca.example.test", "--names", "a.example"],
            &["issuers", "get", "corp", "-o", "json"],
        ],
    )
    .await;
    assert_snapshot!(text);
    assert_snapshot!("a_private_ca_is_asked_for", fake.requests().concat());
    assert_eq!(run(&fake, &["issuers", "root", "corp", "--out", &shown]).await.code, 0);
    let written = std::fs::read_to_string(&root).unwrap();
    assert!(written.starts_with("-----BEGIN CERTIFICATE-----\nb\n") && written.matches("BEGIN").count() == 2);
    let both = run(&fake, &["issuers", "add", "x", "--private", "--directory", "https://ca.example.test"]).await;
    assert_eq!(both.code, 2);

    let unasked = run(&fake, &["issuers", "rm", "corp"]).await;
    assert!(unasked.code == 2 && unasked.err.contains("--confirm=corp"), "{} {}", unasked.code, unasked.err);
    assert_eq!(run(&fake, &["issuers", "rm", "corp", "--confirm=corp"]).await.code, 0);
}
