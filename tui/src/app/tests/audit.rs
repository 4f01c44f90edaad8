//! The audit in the dashboard: acts with what came of them, looked for and opened, witnesses, and who may see it.

use proto::audit::Line;
use proto::operator::v1::{AuditWitness, Denied, WhoamiResponse};

use super::{Desk, TOOK};
use crate::app::call::{AuditPage, Call};
use crate::app::link::Link;
use crate::app::list::PAGE_ROWS;
use crate::app::{Cmd, Msg, update};
use crate::client::{AuditFilter, ClientError, ErrorKind, fold_audit};
use crate::keys::Key;
use crate::screens::Place;

fn line(seq: u64, act: &str, subject: &str, detail: &str, result: &str, answers: Option<u64>) -> Line {
    Line {
        seq,
        at: format!("2026-11-21T20:{:02}:{:02}Z", seq / 60 % 60, seq % 60).parse().unwrap(),
        actor: if seq.is_multiple_of(2) { "local:alice".into() } else { "bob".into() },
        from: "uid 1000, login uid 1000".into(),
        act: act.into(),
        subject: subject.into(),
        detail: detail.into(),
        result: result.into(),
        answers,
        previous: "9f".repeat(32),
    }
}

/// An audit of 250 older acts, then a refused one, a failed one, one that is on its way, and one that was done.
pub(super) fn page() -> AuditPage {
    let mut lines = vec![
        line(507, "RenewCertificate", "web", "", "done", Some(505)),
        line(506, "DeployCertificate", "api", "agent=h1", "asked", None),
        line(505, "RenewCertificate", "web", "override-lock=key leaked", "asked", None),
        line(
            504,
            "DeleteCertificate",
            "shop\u{1b}[31m",
            "NOT_FOUND: certificate shop does not exist",
            "failed",
            Some(503),
        ),
        line(503, "DeleteCertificate", "shop\u{1b}[31m", "purge", "asked", None),
        line(502, "AddIssuer", "", "ROLE_TOO_LOW: alice has the role viewer", "refused", None),
    ];
    for seq in (1..=250).rev() {
        lines.push(line(2 * seq, "EnrollAgent", &format!("h{seq}"), "", "done", Some(2 * seq - 1)));
        lines.push(line(2 * seq - 1, "EnrollAgent", &format!("h{seq}"), "", "asked", None));
    }
    let witness = |agent: &str, seq| AuditWitness { agent: agent.into(), seq, agrees: true };
    let witnesses = vec![witness("h1", 480), witness("h2", 505)];
    AuditPage { acts: fold_audit(lines), head_seq: 507, witnesses, ..AuditPage::default() }
}

/// Answers as the controller would.
pub(super) fn answer(all: &AuditPage, filter: &AuditFilter, rows: usize) -> AuditPage {
    let fits = |line: &Line| {
        let named = line.actor.contains(&filter.name) || line.subject.contains(&filter.name);
        named && filter.start.is_none_or(|at| line.at >= at) && filter.end.is_none_or(|at| line.at < at)
    };
    let mut acts: Vec<_> = all.acts.iter().filter(|act| fits(&act.line)).cloned().collect();
    let more = acts.len() > rows;
    acts.truncate(rows);
    AuditPage { acts, more, ..all.clone() }
}

#[test]
fn each_act_stands_with_what_came_of_it_and_opens_whole() {
    let mut desk = Desk::connected(80, 24);
    desk.keys("8").shows("2 agents agree, up to line 505 of 507");
    desk.shows("NOT_FOUND").shows("ROLE_TOO_LOW");
    desk.keys(".\n").shows("Audit > line 503");
    desk.shows("uid 1000, login uid 1000").shows("purge").shows("(line 504)");
    desk.shows("NOT_FOUND: certificate shop does not exist");
    assert!(!desk.picture().contains('\u{1b}'), "what others wrote is made safe");
    desk.keys("q");
    assert_eq!(desk.model.place, Place::Audit);
}

#[test]
fn an_act_that_ends_while_it_is_open_shows_its_end() {
    let mut desk = Desk::connected(80, 24);
    desk.keys("8\n").shows("nothing is known of it yet");
    let mut lines: Vec<Line> = desk.audit.acts.iter().map(|act| act.line.clone()).collect();
    lines.insert(0, line(508, "DeployCertificate", "api", "NO_AGENT: h1 is away", "failed", Some(506)));
    desk.audit.acts = fold_audit(lines);
    desk.send(Msg::Watched(9));
    desk.shows("NO_AGENT: h1 is away").shows("(line 508)");
}

#[test]
fn older_acts_are_read_when_the_cursor_comes_near() {
    let mut desk = Desk::connected(80, 24);
    desk.keys("8").shows("1 of 200+");
    assert_eq!(desk.model.audit.list.rows.len(), PAGE_ROWS);
    desk.keys("G").shows("of 254");
    assert_eq!(desk.model.audit.list.rows.len(), 254);
    desk.keys("G").shows("254 of 254").shows("h1 ");
}

#[test]
fn the_filter_knows_times_and_keeps_the_rows_while_it_cannot_be_read() {
    let mut desk = Desk::connected(80, 24);
    desk.keys("8/h250\n").shows("1 of 1").shows("--name h250");
    desk.keys("/").key(Key::Ctrl('u')).keys("since:20\n");
    desk.shows("! expected 2026-11-21").shows("h250");
    desk.keys("/").key(Key::Ctrl('u')).keys("since:2026-11-21T20:08:22Z\n");
    desk.shows("1 of 4").shows("--start 2026-11-21T20:08:22Z");
    desk.keys("/").key(Key::Ctrl('u')).keys("zzz\n");
    desk.shows("0 match `zzz`");
    desk.keys("q").shows("1 of 200+");
}

#[test]
fn older_acts_are_not_wanted_again_and_again_while_they_cannot_be_read() {
    let mut desk = Desk::connected(80, 24);
    desk.keys("8/since:20\nG").shows("200 of 200+");
    assert!(desk.model.is_idle());
    let mut desk = Desk::connected(80, 24);
    desk.keys("8");
    desk.lose();
    desk.keys("G").shows("READ ONLY");
    desk.connect();
    desk.shows("of 254");
}

#[test]
fn a_witness_that_disagrees_is_told_before_all_that_agree() {
    let mut desk = Desk::connected(80, 24);
    desk.audit.witnesses.push(AuditWitness { agent: "h9".into(), seq: 400, agrees: false });
    desk.keys("8").shows("✗ agent h9 keeps another line 400: rewritten, or an older database restored");
    desk.audit.witnesses.clear();
    desk.audit.unreadable = 2;
    desk.keys("R").shows("2 line(s) cannot be read: certwright audit verify");
    desk.audit.unreadable = 0;
    desk.keys("R").shows("no agent keeps its end yet");
}

#[test]
fn who_may_not_see_the_audit_does_not_ask_for_it() {
    let mut desk = Desk::new(80, 24);
    let denied = vec![Denied { rpc: "ListAudit".into(), needs: "auditor".into() }];
    let who = WhoamiResponse { role: "maintainer".into(), denied, ..WhoamiResponse::default() };
    desk.send(Msg::Connected { who: Box::new(who.clone()), took: TOOK });
    desk.keys("8").shows("Audit: not now, needs auditor");
    assert_eq!(desk.model.place, Place::Overview);
    desk.keys("gu").shows("Audit: not now, needs auditor");
    desk.keys(":go to au").shows("(needs auditor)");
    // The role was taken away while the audit shows: it is not asked for any more.
    let mut desk = Desk::connected(80, 24);
    desk.keys("8");
    let cmds = update(&mut desk.model, Msg::Connected { who: Box::new(who), took: TOOK });
    assert!(cmds.iter().all(|cmd| !matches!(cmd, Cmd::Call(_, Call::Audit { .. }))), "{cmds:?}");
    desk.shows("it needs auditor");
}

#[test]
fn a_refusal_is_not_asked_for_again_by_itself() {
    let mut desk = Desk::connected(80, 24);
    desk.reading =
        Some(ClientError::local(ErrorKind::NotAllowed, "ROLE_TOO_LOW", "bob is a viewer now", "", "ask an owner"));
    desk.keys("8").shows("bob is a viewer now");
    let cmds = update(&mut desk.model, Msg::Watched(11));
    assert!(cmds.iter().all(|cmd| !matches!(cmd, Cmd::Call(..))), "each refusal is a line of the audit: {cmds:?}");
    desk.reading = None;
    desk.keys("R").shows("2 agents agree");
    assert!(matches!(desk.model.link, Link::Live { .. }));
}

#[test]
fn commands_are_copied_and_never_a_token() {
    let mut desk = Desk::connected(80, 24);
    desk.keys("8/bob\ny").shows("sent to the terminal's clipboard");
    desk.keys("9n\ndave\n\n\ny").keys("q3n").text("web-07").keys("\n\n\ny");
    let expected = [
        "certwright audit export --out audit.jsonl --name bob",
        "certwright login --controller ctl-1:8443 --invite -",
        "certwright-agent enroll --controller ctl-1:8443 --token - # web-07",
    ];
    assert_eq!(desk.copied, expected);
}
