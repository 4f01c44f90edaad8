//! Looks at challenges: what a CA would see of each name, with the whole way there.

use proto::operator::v1::{ChallengeHop, ChallengeResponder, ChallengeTrail, CheckChallengesResponse, NameSeen, Seen};
use serde::Serialize;

use super::block::Block;
use super::failure::ProblemView;
use super::safe;
use crate::client::seen_word;

#[derive(Serialize)]
struct CheckView {
    responders: Vec<ResponderView>,
    names: Vec<NameView>,
}

#[derive(Serialize)]
struct ResponderView {
    agent: String,
    serves: bool,
    error: Option<ProblemView>,
}

#[derive(Serialize)]
struct NameView {
    identifier: String,
    seen: &'static str,
    error: Option<ProblemView>,
    trails: Vec<TrailView>,
}

#[derive(Serialize)]
struct TrailView {
    address: String,
    seen: &'static str,
    error: Option<ProblemView>,
    hops: Vec<HopView>,
}

#[derive(Serialize)]
struct HopView {
    url: String,
    address: String,
    outcome: String,
}

impl From<&ChallengeResponder> for ResponderView {
    fn from(responder: &ChallengeResponder) -> Self {
        let error = responder.problem.as_ref().map(ProblemView::from);
        Self { agent: safe(&responder.agent), serves: error.is_none(), error }
    }
}

impl From<&NameSeen> for NameView {
    fn from(name: &NameSeen) -> Self {
        Self {
            identifier: safe(&name.identifier),
            seen: seen_word(name.seen),
            error: name.problem.as_ref().map(ProblemView::from),
            trails: name.trails.iter().map(TrailView::from).collect(),
        }
    }
}

impl From<&ChallengeTrail> for TrailView {
    fn from(trail: &ChallengeTrail) -> Self {
        Self {
            address: safe(&trail.address),
            seen: seen_word(trail.seen),
            error: trail.problem.as_ref().map(ProblemView::from),
            hops: trail.hops.iter().map(HopView::from).collect(),
        }
    }
}

impl From<&ChallengeHop> for HopView {
    fn from(hop: &ChallengeHop) -> Self {
        Self { url: safe(&hop.url), address: safe(&hop.address), outcome: safe(&hop.outcome) }
    }
}

/// Returns a check as JSON.
pub(crate) fn json(checked: &CheckChallengesResponse) -> String {
    let view = CheckView {
        responders: checked.responders.iter().map(ResponderView::from).collect(),
        names: checked.names.iter().map(NameView::from).collect(),
    };
    super::json(Some("ChallengeCheck"), view)
}

/// Returns `NAME WORD`, one per line.
pub(crate) fn names(checked: &CheckChallengesResponse) -> String {
    checked.names.iter().map(|name| format!("{} {}\n", safe(&name.identifier), seen_word(name.seen))).collect()
}

/// Returns every name with its ways, then the agents that do not serve.
pub(crate) fn text(checked: &CheckChallengesResponse) -> String {
    checked.responders.iter().map(responder).chain(checked.names.iter().map(name)).collect()
}

fn responder(responder: &ChallengeResponder) -> String {
    let word = if responder.problem.is_some() { "does not serve" } else { "serves" };
    let mut block = Block::titled(&format!("agent {} {word}", responder.agent));
    block.problem(responder.problem.as_ref());
    block.render()
}

fn name(name: &NameSeen) -> String {
    let mut block = Block::titled(&format!("{}  {}", name.identifier, seen_word(name.seen)));
    if name.trails.is_empty() {
        block.problem(name.problem.as_ref());
    }
    for trail in &name.trails {
        block.line(&format!("{}  {}", trail.address, seen_word(trail.seen)));
        for hop in &trail.hops {
            block.below(&format!("{} at {}: {}", hop.url, hop.address, hop.outcome));
        }
        if trail.seen() != Seen::Ok {
            block.problem(trail.problem.as_ref());
        }
    }
    block.render()
}
