//! What answers about operators do to the model. An invitation goes to its screen and nowhere else. Called by `app::reply`.
#![allow(clippy::wildcard_enum_match_arm, reason = "an answer belongs to few of the calls")]

use proto::operator::v1::{AddOperatorResponse, ListOperatorsResponse};

use crate::app::call::{Call, Reply};
use crate::app::{Cmd, Model};
use crate::screens::invite::Answer;
use crate::screens::{Place, team};
use crate::theme::State;

/// Takes an answer about operators.
pub(super) fn answered(model: &mut Model, call: Call, reply: Reply) -> Vec<Cmd> {
    match (call, reply) {
        (_, Reply::Operators(found)) => operators(model, *found),
        (Call::AddOperator(request), Reply::OperatorAdded(added)) => operator_added(model, &request.user, *added),
        (Call::Invite(request), Reply::Invited(invitation)) => {
            if let Some(invite) = model.invite.as_mut().filter(|invite| invite.awaits(&request.name)) {
                invite.answer = Some(Answer::Invited(*invitation));
            } else {
                let text = format!("{} is invited, but the command was not waited for: invite again", request.name);
                model.notices.say(model.now, State::Warn, text);
            }
            Vec::new()
        }
        (_, Reply::Operator(operator)) => {
            let text = format!("{} is {}: it counts from the next message", operator.name, operator.role);
            model.notices.say(model.now, State::Ok, text);
            model.read()
        }
        (Call::RemoveOperator(name), Reply::OperatorRemoved) => {
            model.notices.say(model.now, State::Ok, format!("{name} is removed: refused from now on"));
            model.read()
        }
        _ => Vec::new(),
    }
}

fn operators(model: &mut Model, found: ListOperatorsResponse) -> Vec<Cmd> {
    let came = model.invite.take_if(|invite| model.place == Place::Invite && invite.is_answered_by(&found));
    model.team.take(team::page(found), model.now);
    match came {
        Some(invite) => {
            model.notices.say(model.now, State::Ok, format!("{} has logged in", invite.name()));
            model.go(Place::Team, false)
        }
        None => Vec::new(),
    }
}

fn operator_added(model: &mut Model, user: &str, added: AddOperatorResponse) -> Vec<Cmd> {
    let operator = added.operator.clone().unwrap_or_default();
    let text = format!("{} may act as {} from now on", operator.name, operator.role);
    model.notices.say(model.now, State::Ok, text);
    let waiting = model.invite.as_mut().filter(|invite| invite.awaits(user));
    let Some(invite) = waiting else { return model.read() };
    if !added.hint.is_empty() {
        invite.answer = Some(Answer::Added(added));
        return Vec::new();
    }
    model.invite = None;
    if model.place == Place::Invite { model.go(Place::Team, false) } else { model.read() }
}
