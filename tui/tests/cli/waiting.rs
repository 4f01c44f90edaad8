//! `--wait`: each change is a line, the end is the exit code.

use insta::assert_snapshot;
use proto::operator::v1::{Order, PhaseStep};
use proto::types::v1::{Problem, TargetStatus};

use crate::controller::{FakeController, Step, World};
use crate::fixtures::{MINUTE, at, broken_target, certificate, completed_order, job, phase, problem};
use crate::{Place, accepted, run, session, target_step, world};

const CREATE: [&str; 12] = [
    "certs",
    "create",
    "web",
    "--san",
    "h1.example.test",
    "--issuer",
    "lab",
    "--agent",
    "h1",
    "--dir",
    "/etc/x",
    "--wait=30s",
];

fn phases(state: &'static str, phases: Vec<PhaseStep>) -> Step {
    Box::new(move |world: &mut World| {
        world.jobs[0].state = state.into();
        let started_at = at(0);
        world.certificates[0].order = Some(Order { started_at, phases, ..completed_order() });
    })
}

#[tokio::test]
async fn every_phase_is_told_once_and_all_applied_is_0() {
    let done = |name: &str| phase(name, "done", 812, "");
    let fake = FakeController::start(accepted(vec![
        phases("running", vec![done("starting"), phase("dns_check", "running", 0, "h1.example.test")]),
        phases("running", vec![done("starting"), done("dns_check"), phase("validating", "running", 0, "")]),
        Box::new(|_| {}),
        target_step("running", TargetStatus::Pending),
        Box::new(|world| world.certificates[0].targets[0].doing = "verifying".into()),
        Box::new(|world| {
            world.certificates = vec![certificate("web")];
            world.certificates[0].targets[0].started_at = at(1);
            world.certificates[0].order.as_mut().unwrap().started_at = at(0);
            world.jobs[0].state = "succeeded".into();
        }),
    ]));
    assert_snapshot!(session(&fake, &[&CREATE]).await);
}

#[tokio::test]
async fn some_applied_is_6_and_names_the_target_that_is_not() {
    let fake = FakeController::start(accepted(vec![Box::new(|world| {
        let mut failed = broken_target();
        failed.spec.as_mut().unwrap().agent = "h2".into();
        failed.id = "2".into();
        failed.started_at = at(1);
        world.certificates = vec![certificate("web")];
        world.certificates[0].targets.push(failed);
        world.jobs[0].state = "partial".into();
    })]));
    let words = [CREATE.as_slice(), &["-o", "json"]].concat();
    let ran = run(&fake, &words).await;
    assert_eq!(ran.code, 6, "{}", ran.err);
    assert!(ran.out.contains("\"outcome\": \"partial\""), "{}", ran.out);
    assert_snapshot!(ran.err);
}

#[tokio::test]
async fn none_applied_is_1_with_the_jobs_own_problem() {
    let fake = FakeController::start(accepted(vec![Box::new(|world| {
        world.jobs[0].state = "failed".into();
        world.jobs[0].problem = Some(problem());
        world.certificates[0].targets = vec![broken_target()];
    })]));
    assert_snapshot!(session(&fake, &[&CREATE]).await);
}

#[tokio::test]
async fn a_job_that_waits_says_why_and_until_when_and_times_out_as_124() {
    let wait: Step = Box::new(|world| {
        world.jobs[0].state = "waiting".into();
        world.jobs[0].phase = "ordering".into();
        world.jobs[0].retry_at = at(10 * MINUTE);
        world.jobs[0].problem = Some(Problem {
            reason: "RATE_LIMITED".into(),
            message: "the CA refused the order".into(),
            cause: "urn:ietf:params:acme:error:rateLimited: too many certificates".into(),
            hint: "nothing to do: it is tried again".into(),
        });
    });
    let fake = FakeController::start(accepted(vec![wait, Box::new(|_| {})]));
    let mut words = CREATE;
    words[11] = "--wait=1s";
    assert_snapshot!(session(&fake, &[&words]).await);
}

#[tokio::test]
async fn an_earlier_order_is_no_news() {
    let fake = FakeController::start(World {
        jobs: vec![job("running", "deploying")],
        certificates: vec![certificate("web")],
        script: vec![target_step("succeeded", TargetStatus::Applied)].into(),
        ..world()
    });
    let ran = run(&fake, &["targets", "deploy", "web", "--wait", "-o", "name"]).await;
    assert_eq!((ran.code, ran.out.as_str()), (0, "web\n"));
    assert_snapshot!(ran.err, @r"
    21:30:00Z  deploying
    21:30:00Z  h1 /etc/nginx/ssl/h1.example.test  applied
    ");
}

#[tokio::test]
async fn a_job_can_be_waited_for_later() {
    let fake = FakeController::start(accepted(vec![target_step("succeeded", TargetStatus::Applied)]));
    let ran = run(&fake, &["jobs", "wait", "J1"]).await;
    assert_eq!(ran.code, 0, "{}", ran.err);
    assert!(ran.out.starts_with("J1: issue web, succeeded"), "{}", ran.out);
    assert_eq!(run(&fake, &["jobs", "wait", "J2"]).await.code, 3);
}

#[tokio::test]
async fn a_controller_that_restarts_meanwhile_is_waited_for() {
    let mut fake = FakeController::start(accepted(Vec::new()));
    let socket = fake.socket();
    let restart = async {
        while fake.reads() == 0 {
            tokio::task::yield_now().await;
        }
        fake.stop().await;
        fake.resume();
        fake.change(|world| world.jobs[0].state = "succeeded".into());
    };
    let words = ["jobs", "wait", "J1"];
    let (ran, ()) = tokio::join!(Place::default().run(&socket, &words), restart);
    assert_eq!(ran.code, 0, "{}", ran.err);
    assert!(ran.err.contains("; trying again"), "{}", ran.err);
}

#[tokio::test]
async fn a_controller_that_stays_away_is_7() {
    let mut fake = FakeController::start(accepted(vec![Box::new(|_| {})]));
    fake.stop().await;
    let ran = run(&fake, &["jobs", "wait", "J1", "--timeout", "1s"]).await;
    assert_eq!(ran.code, 7, "{}", ran.err);
    assert!(ran.err.contains("nothing listens"), "{}", ran.err);
}
