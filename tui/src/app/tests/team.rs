//! Operators from the dashboard: who is there, who is invited, and what each key asks before it changes that.
#![allow(clippy::wildcard_enum_match_arm, reason = "other calls are answered elsewhere")]

use proto::operator::v1::{
    AddOperatorResponse, Denied, InviteOperatorResponse, ListOperatorsResponse, Operator, WhoamiResponse,
};
use proto::types::v1::FieldError;

use super::{Desk, TOOK, fixtures};
use crate::app::call::{Call, Invitation, Reply};
use crate::app::{Msg, update};
use crate::client::{ClientError, ErrorKind};
use crate::keys::Key;
use crate::screens::Place;

/// Answers as the controller would, of this team.
pub(super) fn answer(team: &ListOperatorsResponse, call: &Call) -> Reply {
    match call {
        Call::Operators => Reply::Operators(Box::new(team.clone())),
        Call::AddOperator(request) => Reply::OperatorAdded(Box::new(AddOperatorResponse {
            operator: Some(Operator {
                name: format!("local:{}", request.user),
                role: request.role.clone(),
                ..Operator::default()
            }),
            hint: "usermod -aG certwright-admin dave lets dave reach the socket; it counts from the next login".into(),
        })),
        Call::Invite(_) => Reply::Invited(Box::new(Invitation {
            response: InviteOperatorResponse {
                token: "SECRET-INVITATION.PIN".into(),
                command: "certwright login --controller ctl-1:8443 --invite -".into(),
                expires_at: fixtures::at(86_400),
                hint: String::new(),
            },
        })),
        Call::SetRole(request) => Reply::Operator(Box::new(Operator {
            name: request.name.clone(),
            role: request.role.clone(),
            ..Operator::default()
        })),
        Call::RemoveOperator(_) => Reply::OperatorRemoved,
        other => panic!("not about operators: {other:?}"),
    }
}

#[test]
fn the_invitation_shows_once_is_in_no_debug_and_ends_with_the_login() {
    let mut desk = Desk::connected(80, 24);
    desk.keys("9n\ndave").shows("certwright operators invite dave --role viewer");
    desk.keys("\n  \n\n").shows("SECRET-INVITATION.PIN");
    desk.shows("certwright login --controller ctl-1:8443 --invite -").shows("Valid for 24h");
    let Some(Call::Invite(request)) = desk.sent.last().cloned() else { panic!("{:?}", desk.sent) };
    assert_eq!((request.name.as_str(), request.role.as_str()), ("dave", "maintainer"));
    assert!(!format!("{:?}{:?}", desk.model, desk.sent).contains("SECRET-INVITATION"));
    desk.send(Msg::Watched(7));
    assert_eq!(desk.model.place, Place::Invite, "carol's login is not dave's");
    desk.team.items.push(Operator { name: "dave".into(), kind: "remote".into(), ..Operator::default() });
    desk.send(Msg::Watched(8));
    assert_eq!(desk.model.place, Place::Team);
    desk.shows("dave has logged in");
    assert!(!desk.picture().contains("SECRET-INVITATION"));
}

#[test]
fn leaving_forgets_the_invitation_and_what_was_written() {
    let mut desk = Desk::connected(80, 24);
    desk.keys("9n\ndave\n\n\n").shows("SECRET-INVITATION.PIN");
    desk.keys("q");
    assert!(desk.model.place == Place::Team && desk.model.invite.is_none());
    desk.keys("n\n");
    assert!(!desk.picture().contains("dave") && !desk.picture().contains("SECRET-INVITATION"));
    desk.key(Key::Esc);
    assert!(desk.model.invite.is_none());
}

#[test]
fn the_invitation_is_forgotten_wherever_one_goes() {
    let mut desk = Desk::connected(80, 24);
    desk.keys("9n\ndave\n\n\n").shows("SECRET-INVITATION.PIN");
    desk.keys("2-");
    assert!(desk.model.place == Place::Team && desk.model.invite.is_none());
    desk.shows("carol");
}

#[test]
fn an_answer_that_was_not_waited_for_is_not_shown_for_another() {
    let mut desk = Desk::connected(80, 24);
    desk.keys("9n\ndave\n\n");
    let cmds = update(&mut desk.model, Msg::Key(Key::Enter));
    desk.key(Key::Esc).keys("n\nerin");
    desk.perform(cmds);
    desk.shows("dave is invited, but the command was not waited for").shows("erin");
    assert!(!desk.picture().contains("SECRET-INVITATION"));
}

#[test]
fn a_user_of_the_host_is_added_with_what_is_left_to_do_there() {
    let mut desk = Desk::connected(80, 24);
    desk.keys("9n ").shows("the kernel says at the controller's socket");
    desk.keys("\n\n\n\n").shows("a name is needed");
    assert!(desk.sent.is_empty());
    desk.keys("dave").shows("certwright operators add --local dave --role viewer");
    desk.keys("\n\n\n").shows("usermod -aG certwright-admin dave");
    assert!(matches!(desk.sent.as_slice(), [Call::AddOperator(request)] if request.user == "dave"));
    desk.keys("q");
    assert_eq!(desk.model.place, Place::Team);
}

#[test]
fn what_the_controller_refuses_of_a_name_stands_at_the_name() {
    let mut desk = Desk::connected(80, 24);
    let mut error = ClientError::local(ErrorKind::Invalid, "INVALID", "1 field is wrong", "", "");
    let (field, message) = ("name".into(), "an operator named bob exists".into());
    error.fields = vec![FieldError { field, message, hint: "change the role".into() }];
    desk.refusal = Some(error);
    desk.keys("9n\nbob\n\n\n").shows("an operator named bob exists (change the role)");
    desk.refusal = None;
    desk.keys("2\n\n\n").shows("SECRET-INVITATION.PIN");
    assert_eq!(desk.sent.len(), 2);
}

#[test]
fn a_role_is_chosen_and_given_only_by_yes() {
    let mut desk = Desk::connected(80, 24);
    desk.keys("9je").shows("role of local:alice").shows("(*) maintainer").shows("counts from the next message");
    desk.keys("\n");
    assert!(desk.sent.is_empty(), "Enter is Cancel");
    desk.keys("e").key(Key::Tab).shows("(*) owner");
    desk.keys("y");
    assert!(
        matches!(desk.sent.as_slice(), [Call::SetRole(request)] if request.name == "local:alice" && request.role == "owner")
    );
    desk.shows("local:alice is owner: it counts from the next message");
}

#[test]
fn an_operator_is_removed_by_the_typed_name_and_an_invitation_withdrawn() {
    let mut desk = Desk::connected(80, 24);
    desk.keys("9jD").shows("remove operator local:alice").shows("the user and their groups on the host stay");
    desk.send(Msg::Paste { text: "local:alice".into(), bracketed: true });
    desk.keys("\n");
    assert!(desk.sent.is_empty(), "a paste is no name typed");
    desk.keys("local:alice\n").shows("local:alice is removed: refused from now on");
    desk.keys("GD").shows("withdraw the invitation of carol");
    desk.keys("carol\n");
    assert!(
        matches!(desk.sent.as_slice(), [Call::RemoveOperator(one), Call::RemoveOperator(two)] if one == "local:alice" && two == "carol")
    );
}

#[test]
fn root_stays_an_owner_and_an_invitation_has_its_role_for_good() {
    let mut desk = Desk::connected(80, 24);
    desk.keys("9e").shows("role: not now, local:root is always an owner");
    desk.keys("D").shows("remove: not now, local:root is always an owner");
    desk.keys("Ge").shows("role: not now, not logged in yet");
    desk.keys("?").shows("give an operator another role  (not logged in yet)");
    assert!(desk.sent.is_empty());
}

#[test]
fn only_who_may_change_trust_changes_the_team() {
    let mut desk = Desk::new(80, 24);
    let denied = ["AddOperator", "InviteOperator", "SetOperatorRole", "RemoveOperator"];
    let denied = denied.map(|rpc| Denied { rpc: rpc.into(), needs: "owner".into() }).to_vec();
    let who = WhoamiResponse { role: "maintainer".into(), denied, ..WhoamiResponse::default() };
    desk.send(Msg::Connected { who: Box::new(who), took: TOOK });
    desk.keys("9j");
    for key in ["n", "e", "D"] {
        desk.keys(key).shows("not now, needs owner");
    }
    assert!(desk.sent.is_empty() && desk.model.layers.is_empty() && desk.model.place == Place::Team);
}
