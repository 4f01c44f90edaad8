//! What came of one attempt (features.md M7): which hosts, which files, which commands, the exact error and what to do, as
//! one record and as a mail. Holds no secret. Called by `tasks/outcome` and `tasks/mail`.

use serde::{Deserialize, Serialize};

use super::event::Event;
use super::problem::Problem;
use super::target::{Status, Target, TargetState};

/// Most targets told in full; the rest is counted.
const TARGETS_TOLD_MAX: usize = 20;
/// Most attempts told in full in one mail; of the rest one line each, and beyond that a count.
const TOLD_IN_FULL_MAX: usize = 20;
const TOLD_IN_LINES_MAX: usize = 200;
/// Longest subject, characters (RFC 5322 §2.1.1 wants lines of 78 at most, with the field's name).
const SUBJECT_CHARS_MAX: usize = 68;

/// The outcome of one attempt to issue or deploy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttemptOutcome {
    /// How it ended.
    pub result: AttemptResult,
    /// Serial of the version it was about; empty when none was issued.
    pub serial: String,
    /// Its targets, the first [`TARGETS_TOLD_MAX`].
    pub targets: Vec<TargetOutcome>,
    /// How many there are.
    pub targets_total: usize,
}

/// How an attempt ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AttemptResult {
    /// Issued, and proven on every target.
    Succeeded,
    /// Some targets are not proven.
    Partial,
    /// Nothing was issued, or no target is proven.
    Failed,
}

/// What it did on one host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TargetOutcome {
    /// Name of the agent.
    pub host: String,
    /// Where its files are.
    pub dir: String,
    /// The target's status; `None` when nothing was sent there.
    pub status: Option<Status>,
    /// Names of the files written.
    pub files: Vec<String>,
    /// Commands run, each with its exit status.
    pub commands: Vec<CommandOutcome>,
    /// What went wrong there.
    pub problem: Option<Problem>,
}

/// One command that was run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommandOutcome {
    /// Its words, as the agent reports them.
    pub argv: String,
    /// As it ended; `None` when it did not by itself.
    pub exit_status: Option<i32>,
}

impl AttemptResult {
    /// The word of the wire.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Succeeded => "succeeded",
            Self::Partial => "partial",
            Self::Failed => "failed",
        }
    }
}

impl TargetOutcome {
    /// Returns what is known of one target; `state` is absent when nothing was sent there.
    #[must_use]
    pub fn of(host: &str, target: &Target, state: Option<&TargetState>) -> Self {
        let steps = || state.into_iter().flat_map(|state| &state.steps);
        let wrote = steps().any(|step| step.name == "write" && step.ok);
        let reloads = steps().filter(|step| step.name == "reload");
        Self {
            host: host.to_owned(),
            dir: target.dir.clone(),
            status: state.map(|state| state.status),
            files: if wrote { target.files.iter().map(|file| file.name.clone()).collect() } else { Vec::new() },
            commands: reloads
                .map(|step| CommandOutcome { argv: step.subject.clone(), exit_status: step.exit_status })
                .collect(),
            problem: state.and_then(|state| state.problem.clone()),
        }
    }
}

impl AttemptOutcome {
    /// An order that ended without a version: nothing changes on any host.
    #[must_use]
    pub fn not_issued(targets: Vec<TargetOutcome>) -> Self {
        Self::new(AttemptResult::Failed, String::new(), targets)
    }

    /// A version that was issued, and what its targets say.
    #[must_use]
    pub fn deployed(serial: &str, targets: Vec<TargetOutcome>) -> Self {
        let proven = targets.iter().filter(|target| target.status == Some(Status::Applied)).count();
        let result = match proven {
            all if all == targets.len() => AttemptResult::Succeeded,
            0 => AttemptResult::Failed,
            _ => AttemptResult::Partial,
        };
        Self::new(result, serial.to_owned(), targets)
    }

    fn new(result: AttemptResult, serial: String, mut targets: Vec<TargetOutcome>) -> Self {
        let targets_total = targets.len();
        // Whatever is cut, what went wrong is told.
        targets.sort_by_key(|target| target.status == Some(Status::Applied));
        targets.truncate(TARGETS_TOLD_MAX);
        Self { result, serial, targets, targets_total }
    }

    /// Returns the outcome as one sentence.
    #[must_use]
    pub fn sentence(&self) -> String {
        let hosts: Vec<&str> = self.targets.iter().map(|target| target.host.as_str()).collect();
        let on = if hosts.is_empty() { "deployed nowhere".to_owned() } else { format!("on {}", hosts.join(", ")) };
        match self.result {
            AttemptResult::Failed if self.serial.is_empty() => "no version was issued".to_owned(),
            AttemptResult::Succeeded if hosts.is_empty() => format!("serial {} was issued; it is {on}", self.serial),
            AttemptResult::Succeeded => format!("serial {} is served {on}", self.serial),
            AttemptResult::Partial | AttemptResult::Failed => {
                let bad = self.targets.iter().filter(|target| target.status != Some(Status::Applied));
                let hosts: Vec<&str> = bad.map(|target| target.host.as_str()).collect();
                format!("serial {} was issued and is not proven on {}", self.serial, hosts.join(", "))
            }
        }
    }
}

/// Returns the words for a target's status in a mail.
fn target_words(status: Option<Status>) -> &'static str {
    match status {
        None => "unchanged",
        Some(Status::Pending) => "waits",
        Some(Status::Applied) => "applied and proven by handshake",
        Some(Status::Unproven) => "written; nothing proves that it is served",
        Some(Status::NotLive) => "written, but the new leaf is not served",
        Some(Status::RolledBack) => "rolled back to the previous files",
        Some(Status::Failed) => "not deployed",
        Some(Status::NeedsOperator) => "stopped; an operator must look",
        Some(Status::Drifted) => "files on the host were changed",
    }
}

/// How far the mailer got. Key in the store: a constant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MailCursor {
    /// Number of the last event that was looked at.
    pub seq: u64,
}

/// A mail: one subject, and the text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mail {
    /// Printable ASCII, one line.
    pub subject: String,
    /// Lines of text, each ended by `\n`.
    pub body: String,
}

/// Returns the mail about these attempts, oldest first; `controller` names the installation.
#[must_use]
pub fn mail(controller: &str, events: &[Event]) -> Mail {
    let failed = events.iter().filter(|event| result(event) != Some(AttemptResult::Succeeded)).count();
    let subject = match events {
        [one] => format!("{}: {}", name(one), result(one).map_or("ended", AttemptResult::word)),
        many if failed == 0 => format!("{} attempts succeeded", many.len()),
        many => format!("{failed} of {} attempts failed", many.len()),
    };
    let mut body = String::new();
    // What went wrong first.
    let mut sorted: Vec<&Event> = events.iter().collect();
    sorted.sort_by_key(|event| result(event) == Some(AttemptResult::Succeeded));
    for (index, event) in sorted.iter().enumerate() {
        match index {
            0..TOLD_IN_FULL_MAX => body.push_str(&told(event)),
            TOLD_IN_FULL_MAX..TOLD_IN_LINES_MAX => body.push_str(&format!("{}: {}\n", name(event), event.message)),
            _ => {}
        }
    }
    let untold = events.len().saturating_sub(TOLD_IN_LINES_MAX);
    if untold > 0 {
        body.push_str(&format!("and {untold} more: certwright status, certwright certs activity NAME\n"));
    }
    let subject: String = format!("[certwright {controller}] {subject}")
        .chars()
        .map(|ch| if ch.is_ascii_graphic() || ch == ' ' { ch } else { '?' })
        .take(SUBJECT_CHARS_MAX)
        .collect();
    Mail { subject, body }
}

fn result(event: &Event) -> Option<AttemptResult> {
    event.outcome.as_ref().map(|outcome| outcome.result)
}

fn name(event: &Event) -> &str {
    event.certificate.as_deref().unwrap_or("?")
}

/// One attempt in full.
fn told(event: &Event) -> String {
    let mut text = format!("{}: {}\n  {:.0}\n", name(event), event.message, event.at);
    problem_lines(event.problem.as_ref(), "  ", &mut text);
    for target in event.outcome.iter().flat_map(|outcome| &outcome.targets) {
        text.push_str(&format!("  on {} in {}: {}\n", target.host, target.dir, target_words(target.status)));
        if !target.files.is_empty() {
            text.push_str(&format!("    files: {}\n", target.files.join(", ")));
        }
        for command in &target.commands {
            let ended = command.exit_status.map_or_else(|| "did not end".to_owned(), |status| format!("exit {status}"));
            text.push_str(&format!("    ran: {} ({ended})\n", command.argv));
        }
        if target.problem != event.problem {
            problem_lines(target.problem.as_ref(), "    ", &mut text);
        }
    }
    let more = event.outcome.as_ref().map_or(0, |outcome| outcome.targets_total.saturating_sub(outcome.targets.len()));
    if more > 0 {
        text.push_str(&format!("  and on {more} more\n"));
    }
    text.push('\n');
    text
}

fn problem_lines(problem: Option<&Problem>, lead: &str, text: &mut String) {
    let Some(Problem { reason, message, cause, hint }) = problem else { return };
    text.push_str(&format!("{lead}error: {message} ({reason})\n"));
    for line in cause.lines() {
        text.push_str(&format!("{lead}because: {line}\n"));
    }
    if !hint.is_empty() {
        text.push_str(&format!("{lead}try: {hint}\n"));
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;
    use crate::lifecycle::event::Severity;

    fn on(host: &str, status: Status) -> TargetOutcome {
        TargetOutcome {
            host: host.into(),
            dir: "/etc/ssl/web".into(),
            status: Some(status),
            files: vec!["key.pem".into()],
            commands: vec![CommandOutcome { argv: "/usr/sbin/nginx -s reload".into(), exit_status: Some(0) }],
            problem: None,
        }
    }

    fn event(name: &str, outcome: AttemptOutcome, problem: Option<Problem>) -> Event {
        Event {
            seq: 1,
            at: Timestamp::UNIX_EPOCH,
            severity: Severity::Info,
            actor: "controller".into(),
            kind: "attempt.ended".into(),
            certificate: Some(name.into()),
            agent: None,
            message: outcome.sentence(),
            problem,
            outcome: Some(Box::new(outcome)),
        }
    }

    #[test]
    fn an_attempt_has_succeeded_only_when_every_target_is_proven() {
        let check = |targets: Vec<TargetOutcome>, result| {
            assert_eq!(AttemptOutcome::deployed("01", targets.clone()).result, result, "{targets:?}");
        };
        check(vec![], AttemptResult::Succeeded);
        check(vec![on("h1", Status::Applied)], AttemptResult::Succeeded);
        check(vec![on("h1", Status::Applied), on("h2", Status::Unproven)], AttemptResult::Partial);
        check(vec![on("h1", Status::NotLive)], AttemptResult::Failed);
        assert_eq!(AttemptOutcome::not_issued(vec![]).result, AttemptResult::Failed);
    }

    #[test]
    fn what_went_wrong_is_told_however_many_targets_there_are() {
        let mut targets = vec![on("fine", Status::Applied); 90];
        targets.push(on("broken", Status::Failed));
        let outcome = AttemptOutcome::deployed("01", targets);
        assert_eq!((outcome.targets.len(), outcome.targets_total), (TARGETS_TOLD_MAX, 91));
        assert_eq!(outcome.sentence(), "serial 01 was issued and is not proven on broken");
    }

    #[test]
    fn a_mail_names_host_files_commands_error_and_hint() {
        let bad = Problem::new("RELOAD_FAILED", "nginx ended with 1", "line 3\nline 4", "mend it");
        let target = TargetOutcome { problem: Some(bad.clone()), ..on("h1", Status::Failed) };
        let mail = mail("ctl", &[event("web", AttemptOutcome::deployed("01", vec![target]), Some(bad))]);
        assert_eq!(mail.subject, "[certwright ctl] web: failed");
        let body = "web: serial 01 was issued and is not proven on h1\n  1970-01-01T00:00:00Z\n  \
                    error: nginx ended with 1 (RELOAD_FAILED)\n  because: line 3 line 4\n  try: mend it\n  \
                    on h1 in /etc/ssl/web: not deployed\n    files: key.pem\n    ran: /usr/sbin/nginx -s reload (exit 0)\n\n";
        assert_eq!(mail.body, body);
    }

    #[test]
    fn a_storm_is_one_mail_with_the_failures_first_and_an_end() {
        let fine =
            |n: usize| event(&format!("ok{n}"), AttemptOutcome::deployed("01", vec![on("h1", Status::Applied)]), None);
        let mut events: Vec<Event> = (0..999).map(fine).collect();
        events.push(event("bad", AttemptOutcome::not_issued(vec![]), Some(Problem::new("X", "m", "c", "h"))));
        let mail = mail("ctl", &events);
        assert_eq!(mail.subject, "[certwright ctl] 1 of 1000 attempts failed");
        assert!(mail.body.starts_with("bad: no version was issued\n"), "{}", mail.body);
        assert!(mail.body.contains("and 800 more") && mail.body.len() < 64 * 1024);
    }

    #[test]
    fn a_subject_is_one_short_line_of_ascii_whatever_the_names_are() {
        let name = format!("a\r\nBcc: x@y\u{202e}é{}", "z".repeat(500));
        let mail = mail("c\u{1b}tl", &[event(&name, AttemptOutcome::not_issued(vec![]), None)]);
        assert!(mail.subject.chars().all(|ch| ch == ' ' || ch.is_ascii_graphic()), "{:?}", mail.subject);
        assert!(mail.subject.len() <= SUBJECT_CHARS_MAX);
    }
}
