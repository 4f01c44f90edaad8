//! Acts on many certificates in the dashboard: marks, the question before, the job after.

use proto::operator::v1::{
    ActOnCertificatesRequest, ActOnCertificatesResponse, Batch, Certificate, Count, Denied, Job, SkippedCertificate,
};
use proto::types::v1::Problem;

use super::fixtures::{at, job};
use super::{Call, Desk, Key, Msg, Place, TOOK, WhoamiResponse};

fn shop() -> SkippedCertificate {
    SkippedCertificate {
        name: "shop.example.test".into(),
        reason: "locked".into(),
        why: "locked until 2026-12-01T00:00:00Z".into(),
    }
}

pub(super) fn parent() -> Job {
    let batch = Batch {
        selection: "issuer:le".into(),
        total: 35,
        made: 35,
        succeeded: 31,
        open: 2,
        failed: 2,
        skipped: vec![shop()],
        skipped_total: 1,
        ..Batch::default()
    };
    Job {
        id: "j3".into(),
        kind: "renew".into(),
        certificate: String::new(),
        batch: Some(batch),
        ..job("running", "running")
    }
}

pub(super) fn jobs() -> Vec<Job> {
    vec![job("running", "validating"), Job { id: "j2".into(), ..job("failed", "") }, parent()]
}

pub(super) fn subs() -> Vec<Job> {
    let problem = |message: &str| {
        Some(Problem { message: message.into(), hint: "correct the CAA record".into(), ..Problem::default() })
    };
    let sub = |id: &str, state: &str, phase: &str| Job {
        id: id.into(),
        parent: "j3".into(),
        certificate: format!("{id}.example.test"),
        ..job(state, phase)
    };
    vec![
        Job { problem: problem("CAA forbids the CA"), ..sub("api", "failed", "completed") },
        Job {
            problem: problem("nobody answers on port 80"),
            failures: 3,
            retry_at: at(2_040),
            ..sub("web", "waiting", "waiting")
        },
        sub("www", "succeeded", "completed"),
    ]
}

/// What a controller would say: `shop` is locked.
pub(super) fn plan(request: &ActOnCertificatesRequest, known: &[Certificate]) -> ActOnCertificatesResponse {
    let names: Vec<String> = if request.names.is_empty() {
        known.iter().map(|record| record.name.clone()).filter(|name| name.contains(&request.filter)).collect()
    } else {
        request.names.clone()
    };
    let locks = request.act == "renew" && request.override_lock.is_empty();
    let (locked, will): (Vec<_>, Vec<_>) = names.into_iter().partition(|name| locks && *name == shop().name);
    let count = |names: &[String]| u64::try_from(names.len()).unwrap();
    ActOnCertificatesResponse {
        act: if request.act.is_empty() { "renew".into() } else { request.act.clone() },
        job_id: if request.rehearse { String::new() } else { "j3".into() },
        total: count(&will),
        skipped_total: count(&locked),
        skipped: locked.iter().map(|_| shop()).collect(),
        skipped_by: vec![Count { state: "locked".into(), count: count(&locked) }],
        names: will,
        ..ActOnCertificatesResponse::default()
    }
}

/// What was sent beside rehearsals.
fn acts(desk: &Desk) -> Vec<ActOnCertificatesRequest> {
    let acts = desk.sent.iter().filter_map(|call| if let Call::Act(request) = call { Some(request) } else { None });
    acts.filter(|request| !request.rehearse).map(|request| (**request).clone()).collect()
}

#[test]
fn marked_rows_are_renewed_together_after_a_question_that_counts() {
    let mut desk = Desk::connected(80, 24);
    desk.keys("2   ").shows("3 marked");
    desk.keys("r").shows("renew 2 certificate(s)");
    desk.shows("1 are passed over: 1 locked");
    desk.shows("shop.example.test: locked until");
    assert!(acts(&desk).is_empty(), "nothing without an answer");
    desk.key(Key::Enter);
    let sent = acts(&desk);
    assert!(sent.len() == 1 && sent[0].names.len() == 3 && sent[0].expected == 2 && !sent[0].request_id.is_empty());
    assert_eq!(desk.model.place, Place::Job("j3".into()), "the job shows");
    desk.shows("31/35 ok, 2 to go, 2 failed");
    desk.keys("2");
    assert!(desk.model.marks.is_empty());
}

#[test]
fn a_reason_takes_the_locked_ones_along() {
    let mut desk = Desk::connected(80, 24);
    desk.keys("2   rnew keys everywhere\n");
    let sent = acts(&desk);
    assert_eq!((sent[0].override_lock.as_str(), sent[0].expected), ("new keys everywhere", 0));
}

#[test]
fn all_that_a_filter_finds_wants_the_number_typed() {
    let mut desk = Desk::connected(80, 24);
    desk.keys("2/host\n*").shows("all 40 marked");
    desk.keys("K").shows("re-key 40 certificate(s)");
    desk.keys("4\n");
    assert!(acts(&desk).is_empty(), "not the whole number");
    desk.keys("0\n").shows("re-key: Enter counts in 3s");
    assert!(acts(&desk).is_empty(), "not before it could be read");
    desk.later(2).keys("\n").shows("Enter counts in 1s");
    desk.later(1).keys("\n");
    let sent = acts(&desk);
    assert_eq!((sent[0].act.as_str(), sent[0].filter.as_str(), sent[0].expected), ("rekey", "host", 40));
    // Another filter would be about other certificates.
    desk.keys("2*/api\n");
    assert!(desk.model.marks.is_empty());
}

#[test]
fn marked_rows_are_revoked_as_one_job_with_a_reason_after_the_number_is_typed() {
    let mut desk = Desk::connected(80, 24);
    desk.keys("2   V").shows("revoke 3 certificate(s)");
    desk.keys("2").later(3).keys("\n");
    assert!(acts(&desk).is_empty(), "another number sends nothing");
    desk.key(Key::Backspace).key(Key::Tab).keys("3\n");
    let sent = acts(&desk);
    assert_eq!((sent.len(), sent[0].act.as_str(), sent[0].reason.as_str()), (1, "revoke", "keyCompromise"));
    assert_eq!((sent[0].names.len(), sent[0].expected), (3, 3));
    // Without marks it is the one under the cursor.
    desk.keys("2V").shows("revoke host-01.example.test");
}

#[test]
fn a_role_that_may_not_act_on_many_sends_nothing() {
    let mut desk = Desk::connected(80, 24);
    let denied = vec![Denied { rpc: "ActOnCertificates".into(), needs: "owner".into() }];
    let who = WhoamiResponse { role: "maintainer".into(), denied, ..WhoamiResponse::default() };
    desk.send(Msg::Connected { who: Box::new(who), took: TOOK });
    desk.keys("2   V").shows("not now, needs owner");
    assert!(desk.sent.is_empty() && desk.model.layers.is_empty());
}

#[test]
fn marks_outlive_a_filter_and_are_told_while_they_are_hidden() {
    let mut desk = Desk::connected(80, 24);
    desk.keys("2  /host-1\n").shows("2 marked, 2 of them hidden");
    desk.key(Key::Esc).shows("2 marked:");
    desk.key(Key::Esc);
    assert!(desk.model.marks.is_empty() && desk.model.place == Place::Certificates, "first the filter, then the marks");
}

#[test]
fn one_certificate_gets_a_new_key_from_its_own_screen() {
    let mut desk = Desk::connected(80, 24);
    desk.keys("2jj\nK").shows("re-key 1 certificate(s)");
    desk.keys("y");
    assert_eq!(acts(&desk)[0].names, ["host-00.example.test"]);
}

#[test]
fn a_job_says_why_it_waits_and_is_done_again_or_taken_back() {
    let mut desk = Desk::connected(80, 24);
    desk.keys("4jj\nj").shows("attempt 3 failed; next in 34m");
    desk.shows("r tries now");
    desk.keys("r").shows("renew");
    assert!(matches!(desk.sent.last(), Some(Call::Act(request)) if request.failed_of == "j3" && request.rehearse));
    desk.key(Key::Esc).keys("cy").shows("what has not begun is taken back");
    assert!(matches!(desk.sent.last(), Some(Call::CancelJob(id)) if id == "j3"));
    desk.keys("\n");
    assert!(matches!(&desk.model.place, Place::Certificate(name) if name == "web.example.test"));
}
