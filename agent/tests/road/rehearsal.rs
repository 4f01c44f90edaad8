//! Challenges that an operator has served for a look at them (features.md A17): beside the desired ones, under the same policy, and
//! withdrawn by themselves.

use proto::agent::v1 as wire;
use proto::agent::v1::answer_request::Kind as Answer;
use proto::agent::v1::question::Kind;
use proto::types::v1 as types;

use super::controller::Controller;
use super::site::{Running, Site};
use super::{NAME, challenge};

const SECONDS: u32 = 2;

async fn server() -> (Controller, Site, Running) {
    let controller = Controller::new();
    let site = Site::new(&controller);
    site.enroll().await.unwrap();
    let agent = site.start();
    controller.publish(|desired| desired.challenges.push(challenge("tok-1")));
    controller.wait(|seen| seen.challenge("tok-1").filter(|challenge| challenge.serving).map(|_| ())).await;
    (controller, site, agent)
}

async fn rehearse(controller: &Controller, challenges: Vec<wire::DesiredChallenge>) -> Answer {
    rehearse_for(controller, challenges, SECONDS).await
}

async fn rehearse_for(controller: &Controller, challenges: Vec<wire::DesiredChallenge>, seconds: u32) -> Answer {
    let id = proto::id::random_id();
    let asked = Kind::RehearseChallenges(wire::RehearseChallenges { challenges });
    controller.ask_within(&id, Some(asked), seconds).await;
    controller.answer_to(&id).await
}

fn reports(answer: Answer) -> Vec<wire::ChallengeReport> {
    match answer {
        Answer::RehearseChallenges(told) => told.challenges,
        other => panic!("{other:?}"),
    }
}

fn is_served(site_answer: std::io::Result<String>, token: &str) -> bool {
    site_answer.is_ok_and(|answer| answer.ends_with(&format!("{token}.thumb")))
}

#[tokio::test]
async fn a_rehearsed_challenge_is_served_beside_the_desired_ones_and_for_a_while() {
    let (controller, site, agent) = server().await;
    let path = |token: &str| format!("/.well-known/acme-challenge/{token}");
    let told = reports(rehearse(&controller, vec![challenge("trial-1"), challenge("trial-2")]).await);
    assert!(told.len() == 2 && told.iter().all(|one| one.serving && one.problem.is_none()), "{told:?}");
    for token in ["tok-1", "trial-1", "trial-2"] {
        assert!(is_served(site.get(80, NAME, &path(token)).await, token), "{token}");
    }
    let gone = async {
        while is_served(site.get(80, NAME, &path("trial-1")).await, "trial-1") {
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(10), gone).await.expect("withdrawn by itself");
    assert!(is_served(site.get(80, NAME, &path("tok-1")).await, "tok-1"), "what is desired stays");
    let reported = controller.wait(|seen| Some(seen.report.challenges.clone())).await;
    assert_eq!(reported.iter().map(|one| one.token.as_str()).collect::<Vec<_>>(), ["tok-1"], "no report tells of them");
    agent.stop().await.unwrap();
}

#[tokio::test]
async fn a_rehearsal_is_under_the_policy_and_under_the_checks_of_every_challenge() {
    let (controller, site, agent) = server().await;
    let at = |token: &str, mode: types::http01::Mode| wire::DesiredChallenge {
        http01: Some(types::Http01 { mode: Some(mode) }),
        ..challenge(token)
    };
    let asked = vec![
        at("port", types::http01::Mode::StandalonePort(22)),
        at("root", types::http01::Mode::Webroot("/etc/cron.d".to_owned())),
        challenge("../escape"),
        challenge("fine"),
    ];
    let told = reports(rehearse(&controller, asked).await);
    let of = |token: &str| told.iter().find(|one| one.token == token).unwrap();
    for (token, reason) in [("port", "POLICY_PORT"), ("root", "POLICY_WEBROOT"), ("../escape", "TOKEN_INVALID")] {
        let found = of(token).problem.as_ref().map(|problem| problem.reason.as_str());
        assert_eq!((found, of(token).serving), (Some(reason), false), "{token}");
    }
    assert!(of("fine").serving);
    assert!(!std::path::Path::new("/etc/cron.d/.well-known").exists());
    let too_many = (0..200).map(|number| challenge(&format!("t{number}"))).collect();
    assert!(
        matches!(rehearse(&controller, too_many).await, Answer::Refused(problem) if problem.reason == "QUESTION_TOO_LARGE")
    );
    assert!(
        site.get(80, NAME, "/.well-known/acme-challenge/t0").await.is_ok_and(|answer| !answer.contains("t0.thumb"))
    );
    agent.stop().await.unwrap();
}

#[tokio::test]
async fn one_check_too_many_is_refused_with_what_is_full() {
    let (controller, _site, agent) = server().await;
    // Long enough that none ends before the last is asked for.
    for number in 0..4 {
        let asked = vec![challenge(&format!("t{number}"))];
        assert!(reports(rehearse_for(&controller, asked, 60).await)[0].serving);
    }
    let answer = rehearse_for(&controller, vec![challenge("t4")], 60).await;
    let Answer::Refused(problem) = answer else { panic!("there is no room: {answer:?}") };
    assert_eq!(problem.message, "the agent serves the challenges of 4 such checks already");
    agent.stop().await.unwrap();
}
