//! The owner's acts on what everything else trusts: consent to a restore, and the steps of a rotation of the identity CA.
//! Asked here, in the words of their commands, and told here when they are done. Called by `app::act`, `app::off` and
//! `app::reply`.
#![allow(clippy::wildcard_enum_match_arm, reason = "most actions mean something else")]

use proto::operator::v1::{GetRestoreResponse, IdentityCa};

use crate::app::act::question;
use crate::app::call::{Call, Step, Trust};
use crate::app::layer::{Choice, Confirm, OPERATORS};
use crate::app::{Cmd, Model};
use crate::client::{restore_effects, restore_name, retire_effects, retire_name};
use crate::keys::Action;
use crate::screens::restore::WAITING;
use crate::theme::State;
use crate::widgets::text::{safe, short_fingerprint};

/// Who is not ready is named up to so many; the screen has all.
const NAMED_MAX: usize = 2;

/// Returns the question of an action.
pub(super) fn ask(model: &Model, action: Action) -> Option<Confirm> {
    if action == Action::Accept {
        return accept(model, model.restore.record.as_ref()?);
    }
    Some(rotate(model, model.identity_ca.record.as_ref()?, step(action)?))
}

fn accept(model: &Model, restore: &GetRestoreResponse) -> Option<Confirm> {
    let name = restore_name(restore).to_owned();
    let [taken, then] = restore_effects(restore);
    let mut lines = vec![taken, then];
    let operators = restore.operators.len();
    if operators > 0 {
        lines.push(format!("The backup has {operators} operators besides root:"));
    }
    let call = Call::Trust(Trust::Accept { keep_operators: false });
    let mut confirm = question("accept the restore".to_owned(), lines, "accept", call);
    confirm.choice = (operators > 0).then(|| Choice::of(&OPERATORS));
    confirm.name = Some(name);
    Some(confirm.read_first(model.now))
}

fn rotate(model: &Model, found: &IdentityCa, step: Step) -> Confirm {
    let prepared = found.phase == "prepared";
    let (title, verb, lines) = match step {
        Step::Prepare => (
            "prepare the next identity CA",
            "prepare",
            vec![
                "Makes the next CA and lets agents and operators learn of it;",
                "it does not sign yet. c takes it back.",
            ],
        ),
        Step::Activate => (
            "activate the next identity CA",
            "activate",
            vec!["Lets the next CA sign; the old one stays trusted.", "c goes one step back."],
        ),
        Step::Abort if prepared => {
            ("drop the next identity CA", "drop it", vec!["The next CA is dropped; n makes another one."])
        }
        Step::Abort => {
            ("let the old identity CA sign again", "go back", vec!["The old CA signs again; both stay trusted."])
        }
        Step::Retire => return retire(model, found),
    };
    let lines = lines.into_iter().map(str::to_owned).collect();
    question(title.to_owned(), lines, verb, Call::Trust(Trust::Rotate(step)))
}

/// The one step that cannot be taken back.
fn retire(model: &Model, found: &IdentityCa) -> Confirm {
    let name = retire_name(found);
    let lines = vec![retire_effects(&safe(&name))];
    let mut confirm =
        question("retire the old identity CA".to_owned(), lines, "retire", Call::Trust(Trust::Rotate(Step::Retire)));
    confirm.name = Some(name);
    confirm.read_first(model.now)
}

fn step(action: Action) -> Option<Step> {
    match action {
        Action::CaPrepare => Some(Step::Prepare),
        Action::CaActivate => Some(Step::Activate),
        Action::CaRetire => Some(Step::Retire),
        Action::CaAbort => Some(Step::Abort),
        _ => None,
    }
}

/// Returns why the restore that shows cannot be accepted.
pub(super) fn of_restore(model: &Model) -> Option<String> {
    match &model.restore.record {
        None => Some("how it stands was not read yet".to_owned()),
        Some(restore) if restore.state == WAITING => None,
        Some(restore) if restore.restored_at == 0 => Some("this database was never restored".to_owned()),
        Some(_) => Some("it is accepted".to_owned()),
    }
}

/// Returns why a step cannot be taken now.
pub(super) fn of_rotation(model: &Model, action: Action) -> Option<String> {
    let Some(found) = &model.identity_ca.record else { return Some("how it stands was not read yet".to_owned()) };
    let why = match (step(action)?, found.phase.as_str()) {
        (Step::Prepare, "steady") | (Step::Abort, "prepared" | "activated") => return None,
        (Step::Activate, "prepared") | (Step::Retire, "activated") => return missing(found),
        (Step::Prepare, _) => "a rotation is on its way",
        (Step::Activate, "activated") => "the next CA signs already",
        (Step::Retire, "prepared") => "the next CA does not sign yet",
        (Step::Activate | Step::Retire | Step::Abort, _) => "no rotation is on its way: n prepares one",
    };
    Some(why.to_owned())
}

/// Says who is not ready for the step that goes on.
fn missing(found: &IdentityCa) -> Option<String> {
    let names: Vec<String> = found.waiting.iter().take(NAMED_MAX).map(|peer| safe(&peer.name)).collect();
    let named = u64::try_from(names.len()).unwrap_or(u64::MAX);
    let more = found.waiting_total.saturating_sub(named);
    let more = if more == 0 { String::new() } else { format!(" and {more} more") };
    (found.waiting_total > 0).then(|| format!("not ready: {}{more}", names.join(", ")))
}

/// How a restore stands was answered.
pub(super) fn restored(model: &mut Model, call: &Call, restore: GetRestoreResponse) -> Vec<Cmd> {
    model.restore.record = Some(restore);
    if call.reads() {
        return Vec::new();
    }
    model.notices.say(model.now, State::Ok, "accepted: orders and publishes again");
    model.read()
}

/// How a rotation stands was answered.
pub(super) fn rotated(model: &mut Model, call: &Call, found: IdentityCa) -> Vec<Cmd> {
    let said = match call {
        Call::Trust(Trust::Rotate(Step::Prepare)) => {
            Some("the next CA is made; agents and operators learn of it".to_owned())
        }
        Call::Trust(Trust::Rotate(Step::Activate)) => {
            Some("the next CA signs; the old one is still trusted".to_owned())
        }
        Call::Trust(Trust::Rotate(Step::Retire)) => {
            let left = found.slots.first().map(|slot| short_fingerprint(&slot.fingerprint_sha256));
            Some(format!("the old CA is dropped; CA {} is left", left.unwrap_or_default()))
        }
        Call::Trust(Trust::Rotate(Step::Abort)) if found.phase == "steady" => Some("the next CA is dropped".to_owned()),
        Call::Trust(Trust::Rotate(Step::Abort)) => Some("the old CA signs again; both are trusted".to_owned()),
        _ => None,
    };
    model.identity_ca.take(found, model.now);
    match said {
        None => Vec::new(),
        Some(text) => {
            model.notices.say(model.now, State::Ok, text);
            model.read()
        }
    }
}
