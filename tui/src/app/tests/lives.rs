//! Agents' lives on the screen: what is wrong with an identity, and what an operator can do about it.

use proto::types::v1::Problem;

use super::{Desk, fixtures};
use crate::app::Msg;
use crate::app::call::Call;

const DAY: i64 = 86_400;

fn problem(reason: &str, message: &str, hint: &str) -> Problem {
    Problem { reason: reason.into(), message: message.into(), cause: "so it is".into(), hint: hint.into() }
}

#[test]
fn in_a_rotation_each_agent_says_whether_it_is_ready() {
    let mut desk = Desk::connected(140, 40);
    desk.agent.identity_ca = "waits".into();
    desk.keys("3").shows("waits 29d");
    desk.keys("\n").shows("does not have the next one yet");
    desk.agent.identity_ca = "ready".into();
    desk.send(Msg::Watched(7));
    desk.shows("ready for the next one");
}

#[test]
fn an_agent_that_waits_for_consent_is_shown_and_let_back_by_one_key() {
    let mut desk = Desk::connected(140, 40);
    desk.keys("3A");
    assert!(desk.sent.is_empty());
    desk.shows("its identity has not ended");
    desk.agent.status = "expired".into();
    desk.agent.identity_not_after = fixtures::at(-120 * DAY);
    desk.agent.problems = vec![problem(
        "NEEDS_CONSENT",
        "h1 was away for too long to come back by itself",
        "certwright agents consent h1",
    )];
    desk.send(Msg::Watched(7));
    desk.shows("needs consent");
    desk.keys("\n").shows("h1 was away for too long").shows("certwright agents consent h1");
    desk.keys("A").shows("let agent h1 back").shows("is still the one it was");
    desk.keys("y");
    assert!(matches!(desk.sent.last(), Some(Call::Consent(name)) if name == "h1"), "{:?}", desk.sent);
    desk.shows("h1 may come back within a day");
}
