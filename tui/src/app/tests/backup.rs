//! A backup from the dashboard: what is asked, what is never painted, and what is told of it.

use proto::operator::v1::Denied;

use super::{Cmd, Desk, Key, Msg, Place, Reply, TOOK, WhoamiResponse, update};
use crate::app::call::{BackupWish, Call};
use crate::client::{ClientError, ErrorKind};

const PASSPHRASE: &str = "correct horse battery";

/// A form with a passphrase typed twice.
pub(super) fn asked() -> Desk {
    let mut desk = Desk::connected(80, 24);
    desk.keys("B\n\n").keys(PASSPHRASE).keys("\n").keys(PASSPHRASE);
    desk
}

/// A backup that is on its way; the number of its call.
pub(super) fn running() -> (Desk, u64) {
    let mut desk = asked();
    desk.key(Key::Enter);
    let cmds = update(&mut desk.model, Msg::Key(Key::Enter));
    let Some(Cmd::Call(id, call)) = cmds.into_iter().next() else { panic!("nothing was sent") };
    desk.sent.push(call);
    desk.send(Msg::Progress { id, bytes: 1_234_567 });
    (desk, id)
}

fn done() -> Desk {
    let (mut desk, id) = running();
    desk.send(Msg::Reply { id, took: TOOK, result: Ok(Reply::BackedUp(2_345_678)) });
    desk
}

/// The screens, for the tour.
pub(super) fn tour() -> Vec<(&'static str, Desk)> {
    let mut by_key = Desk::connected(80, 24);
    by_key.keys("B\n ").key(Key::Enter).keys("recovery.key");
    vec![
        ("backup", asked()),
        ("backup_key", by_key),
        ("backup_runs", running().0),
        ("backup_done", done()),
        ("backup_failed", failed()),
    ]
}

fn failed() -> Desk {
    let (mut desk, id) = running();
    let error = ClientError::local(
        ErrorKind::Failed,
        "OUTPUT_FAILED",
        "cannot write certwright-2026-11-21.backup",
        "No space left on device (os error 28)",
        "check the directory and the room on its disk, or name another file",
    );
    desk.send(Msg::Reply { id, took: TOOK, result: Err(error) });
    desk
}

#[test]
fn a_backup_asks_for_the_passphrase_twice_and_paints_it_never() {
    let mut desk = Desk::connected(80, 24);
    desk.keys("B")
        .shows("There is no backup yet.")
        .shows("backup create --to certwright-2026-11-21.backup --passphrase -");
    desk.keys("\n\n\n\n\n").shows("a passphrase is needed");
    desk.keys(PASSPHRASE).keys("\ncorrect horse batterie\n\n").shows("it is not the same");
    assert!(desk.sent.is_empty());
    desk.key(Key::Ctrl('u')).keys(PASSPHRASE).shows("(21 characters, not shown)");
    let told = format!("{}{:?}", desk.picture(), desk.model);
    assert!(!told.contains("correct horse"), "{told}");
    desk.keys("\n\n");
    let [Call::Backup(wish)] = desk.sent.as_slice() else { panic!("{:?}", desk.sent) };
    assert_eq!((wish.to.as_str(), wish.passphrase.expose()), ("certwright-2026-11-21.backup", PASSPHRASE));
    assert!(wish.key_file.is_empty() && !format!("{:?}", desk.sent).contains("correct horse"));
}

#[test]
fn a_recovery_key_is_named_by_its_file() {
    let mut desk = Desk::connected(80, 24);
    desk.keys("B\n ").key(Key::Enter).keys("\n\n").shows("its file is needed");
    desk.keys("my key").shows("'my key'");
    desk.keys("\n\n");
    let to = "certwright-2026-11-21.backup".to_owned();
    let wish = BackupWish { to, key_file: "my key".into(), ..BackupWish::default() };
    assert_eq!(desk.sent, [Call::Backup(Box::new(wish))]);
}

#[test]
fn it_says_how_far_it_is_and_how_it_ended_wherever_one_is() {
    let (mut desk, id) = running();
    desk.shows("1,234,567 bytes so far");
    desk.keys("B\n");
    assert_eq!(desk.sent.len(), 1, "one at a time");
    desk.keys("2").send(Msg::Progress { id, bytes: 2_000_000 });
    desk.keys("1B").shows("2,000,000 bytes so far");
    desk.keys("Q").shows("Q again leaves without it");
    assert!(!desk.quit);
    desk.keys("2").send(Msg::Reply { id, took: TOOK, result: Ok(Reply::BackedUp(2_345_678)) });
    desk.shows("2,345,678 bytes");
    let mut desk = done();
    desk.shows("certwright-controller backup verify --from certwright-2026-11-21.backup");
    desk.keys("y");
    assert!(desk.copied.iter().all(|text| text.contains("verify") && !text.contains("correct")), "{:?}", desk.copied);
    desk.keys("q");
    assert!(desk.model.place == Place::Overview && desk.model.backup.is_none());
}

#[test]
fn what_failed_says_why_and_the_form_is_there_again() {
    let mut desk = failed();
    desk.shows("cannot write certwright-2026-11-21.backup").shows("No space left on device");
    desk.keys("\n");
    assert_eq!(desk.sent.len(), 2, "what was typed stays");
    desk.key(Key::Esc);
    assert_eq!(desk.model.place, Place::Overview);
}

#[test]
fn leaving_the_form_forgets_the_passphrase() {
    let mut desk = asked();
    desk.key(Key::Esc);
    assert!(desk.model.backup.is_none() && desk.sent.is_empty());
    desk.keys("-");
    assert_eq!(desk.model.place, Place::Overview, "nothing brings it back");
}

#[test]
fn only_an_owner_takes_backups() {
    let mut desk = Desk::connected(80, 24);
    let denied = vec![Denied { rpc: "CreateBackup".into(), needs: "owner".into() }];
    let who = WhoamiResponse { role: "maintainer".into(), denied, ..WhoamiResponse::default() };
    desk.send(Msg::Connected { who: Box::new(who), took: TOOK });
    desk.keys("B").shows("backup: not now, needs owner");
    assert!(desk.sent.is_empty() && desk.model.place == Place::Overview);
}
