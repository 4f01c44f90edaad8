//! What everything else trusts, on the screen: a restore that waits, and the rotation of the identity CA.

use proto::operator::v1::{Attention, Denied, GetRestoreResponse, IdentityCa, Pause};

use super::{Call, Desk, Key, Msg, Place, Reply, TOOK, WhoamiResponse, fixtures};
use crate::app::call::{Step, Trust};
use crate::screens::overview::AttentionRow;

/// What a controller would say.
pub(super) fn answer(restore: &GetRestoreResponse, found: &IdentityCa, asked: Trust) -> Reply {
    match asked {
        Trust::Restore => Reply::Restore(Box::new(restore.clone())),
        Trust::Accept { .. } => {
            let accepted =
                GetRestoreResponse { state: "accepted".into(), accepted_at: fixtures::at(0), ..restore.clone() };
            Reply::Restore(Box::new(accepted))
        }
        Trust::IdentityCa | Trust::Rotate(_) => Reply::IdentityCa(Box::new(found.clone())),
    }
}

/// Nobody rotates; the next CA is asked for.
pub(super) fn steady_ca() -> Desk {
    let mut desk = Desk::connected(80, 24);
    desk.identity_ca.phase = "steady".into();
    desk.identity_ca.slots.truncate(1);
    desk.identity_ca.waiting.clear();
    desk.keys("gkn");
    desk
}

/// Everyone is ready for the last step, which is asked about.
pub(super) fn ready_ca() -> Desk {
    let mut desk = Desk::connected(80, 24);
    desk.agent.identity_ca = "ready".into();
    (desk.identity_ca.waiting_total, desk.identity_ca.ready) = (0, 5);
    desk.identity_ca.waiting.clear();
    desk.keys("gkD0a1b2c3d");
    desk
}

fn restored() -> Desk {
    let mut desk = Desk::connected(80, 24);
    let reason = "restored from the backup of 2026-11-20T21:30:00Z and not accepted yet".into();
    let pause = Pause { by: "restore".into(), reason, all: true, ..Pause::default() };
    desk.send(Msg::Paused(Some(pause)));
    desk
}

fn maintainer(desk: &mut Desk) {
    let denied = ["AcceptRestore", "RotateIdentityCa", "CreateBackup"];
    let denied = denied.map(|rpc| Denied { rpc: rpc.into(), needs: "owner".into() }).to_vec();
    let who = WhoamiResponse { role: "maintainer".into(), denied, ..WhoamiResponse::default() };
    desk.send(Msg::Connected { who: Box::new(who), took: TOOK });
}

#[test]
fn a_restored_controller_says_so_everywhere_and_does_nothing_until_an_owner_accepts() {
    let mut desk = restored();
    for place in ["1", "2", "3", "4", "8", "9", "0", "gk"] {
        desk.keys(place).shows("RESTORED: nothing acts until accepted (gr)");
    }
    desk.keys("2r").shows("renew: not now, a restore waits (gr)");
    desk.keys("1P").shows("pause everything, or lift that: no");
    assert!(desk.model.layers.is_empty());
    desk.keys("3D").shows("revoke agent h1");
    desk.key(Key::Esc);
    desk.keys("gr").shows("2 of 3 agents have shown what they hold").shows("h3: not connected");
    desk.shows("30 later ones are lost: h1 saw line 1230").shows("web on h1: serial 04ab12cd");
    desk.keys("A").shows("2 versions are taken over from agents; 1 agents have not").shows("2 operators besides root");
    desk.keys("ctl\n").later(3).keys("\n");
    assert!(desk.sent.is_empty(), "another name sends nothing");
    desk.keys("-1").key(Key::Tab).keys("\n").shows("orders and publishes again");
    assert_eq!(desk.sent, [Call::Trust(Trust::Accept { keep_operators: true })]);
}

#[test]
fn accepting_has_to_stand_for_three_seconds() {
    let mut desk = restored();
    desk.keys("grActl-1\n").shows("Enter counts in 3s");
    assert!(desk.sent.is_empty());
    desk.later(3).keys("\n");
    assert_eq!(desk.sent, [Call::Trust(Trust::Accept { keep_operators: false })]);
}

#[test]
fn a_restore_is_accepted_once_and_by_an_owner() {
    let mut desk = restored();
    maintainer(&mut desk);
    desk.keys("grA").shows("accept: not now, needs owner");
    desk.connect();
    desk.restore.state = "accepted".into();
    desk.keys("R").keys("A").shows("accept: not now, it is accepted");
    desk.restore = GetRestoreResponse { state: "never".into(), ..GetRestoreResponse::default() };
    desk.keys("1gr").shows("This database was never restored.");
    desk.keys("A").shows("was never restored");
    assert!(desk.sent.is_empty() && desk.model.layers.is_empty());
}

#[test]
fn what_needs_someone_leads_to_the_restore() {
    let what = |kind: &str, what: &str| {
        AttentionRow::from(&Attention { kind: kind.into(), what: what.into(), ..Attention::default() }).place()
    };
    assert_eq!(what("controller", "RESTORED"), Some(Place::Restore));
    assert_eq!(what("controller", "PAUSED"), None);
}

#[test]
fn the_last_step_waits_for_everyone_and_wants_the_fingerprint() {
    let mut desk = Desk::connected(80, 24);
    desk.keys("3I").shows("Ready 4, not ready 1").shows("still has a leaf of the old CA");
    desk.shows("identity-ca retire --anyway=1");
    desk.keys("D").shows("retire: not now, not ready: h2");
    desk.keys("n").shows("prepare: not now, a rotation is on its way");
    desk.keys("A").shows("activate: not now, the next CA signs already");
    assert!(desk.sent.is_empty() && desk.model.layers.is_empty());
    let mut desk = ready_ca();
    desk.shows("Retiring drops CA 0a1b2c3d for good");
    desk.keys("\n").shows("Enter counts in 3s");
    desk.later(3).keys("x\n");
    assert!(desk.sent.is_empty(), "another fingerprint sends nothing");
    desk.key(Key::Backspace).keys("\n").shows("the old CA is dropped");
    assert_eq!(desk.sent, [Call::Trust(Trust::Rotate(Step::Retire))]);
}

#[test]
fn steps_that_can_be_taken_back_ask_once() {
    let mut desk = steady_ca();
    desk.key(Key::Enter);
    assert!(desk.sent.is_empty(), "Enter is Cancel");
    desk.keys("c").shows("abort: not now, no rotation is on its way");
    desk.keys("ny").shows("the next CA is made");
    desk.identity_ca = fixtures::identity_ca();
    desk.identity_ca.phase = "prepared".into();
    desk.send(Msg::Watched(7));
    desk.keys("A").shows("activate: not now, not ready: h2");
    desk.keys("cy");
    (desk.identity_ca.waiting_total, desk.identity_ca.ready) = (0, 5);
    desk.send(Msg::Watched(8));
    desk.keys("Ay").shows("the next CA signs");
    let steps = [Step::Prepare, Step::Abort, Step::Activate];
    assert_eq!(desk.sent, steps.map(|step| Call::Trust(Trust::Rotate(step))));
}

#[test]
fn only_an_owner_rotates() {
    let mut desk = Desk::connected(80, 24);
    maintainer(&mut desk);
    for key in ["n", "A", "D", "c"] {
        desk.keys("gk").keys(key).shows("not now, needs owner");
    }
    assert!(desk.sent.is_empty() && desk.model.layers.is_empty());
}

#[test]
fn each_agent_of_a_rotation_is_listed_with_whether_it_is_ready() {
    let mut desk = Desk::connected(80, 24);
    desk.agent.identity_ca = "ready".into();
    desk.keys("gk").shows("h1").shows("3 not listed");
    desk.keys("j\n");
    assert_eq!(desk.model.place, Place::Agent("h1".into()));
    desk.keys("q").shows("Agents > Identity CA");
}
