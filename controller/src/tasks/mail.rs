//! Mails how attempts ended, through the local mailer (features.md M7): the one place where the controller starts a process.
//! It reads the stored events from where it last got to, so that its queue is the event log; a storm becomes one digest. It
//! never holds anything up: a mailer that fails is an event, and is tried again. Called by `tasks::run`.

use std::process::Stdio;
use std::time::Duration;

use proto::text::many_lines;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::Command;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{error, info};

use super::hub::Hub;
use super::outcome::ATTEMPT_ENDED;
use crate::config::Mail as Config;
use crate::lifecycle::event::{Event, Severity};
use crate::lifecycle::outcome::{Mail, MailCursor, mail};
use crate::lifecycle::problem::{Problem, chain};
use crate::store::StoreError;
use crate::store::batch::CommitError;
use crate::store::records::Changes;

/// What ends together is told together. Also longer than a commit takes: no event with a smaller number comes later.
const SETTLE: Duration = Duration::from_secs(2);
/// At most one mail in this time, whatever happens.
const GAP: Duration = Duration::from_secs(300);
/// After a mailer that failed; doubled with each failure.
const RETRY: Duration = Duration::from_secs(600);
const RETRY_DOUBLED_MAX: u32 = 4;
/// A mailer that takes longer is ended.
const MAILER_MAX: Duration = Duration::from_secs(30);
/// Most of its complaint that is kept.
const COMPLAINT_BYTES_MAX: u64 = 2_048;
/// Most attempts of one mail; what is beyond follows in the next.
const EVENTS_MAX: usize = 5_000;

/// Why nothing could be mailed.
#[derive(Debug, thiserror::Error)]
enum MailError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Commit(#[from] CommitError),
}

/// Mails until `stop`; `controller` names the installation.
pub(crate) async fn run(hub: Hub, config: Config, controller: String, stop: CancellationToken) {
    let Some(sendmail) = config.sendmail_there() else {
        if !config.to.is_empty() {
            info!(sendmail = %config.sendmail.display(), "no local mailer: how attempts end is told to the journal only");
        }
        stop.cancelled().await;
        return;
    };
    let mut failures: u32 = 0;
    let mut rest = Duration::ZERO;
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            () = sleep(rest) => {}
        }
        if failures == 0 {
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                _ = hub.wake.mail.wait() => sleep(SETTLE).await,
                // What a crash left unsent.
                () = sleep(GAP) => {}
            }
        }
        let sent = tokio::select! {
            biased;
            () = stop.cancelled() => return,
            sent = send(&hub, &sendmail, &config.to, &controller, failures == 0) => sent,
        };
        (failures, rest) = match sent {
            Ok(Sent::Nothing) => (0, Duration::ZERO),
            Ok(Sent::Mailed) => (0, GAP),
            Ok(Sent::Failed) => {
                (failures.saturating_add(1), RETRY.saturating_mul(1 << failures.min(RETRY_DOUBLED_MAX)))
            }
            Err(error) => {
                error!(error = %chain(&error), "cannot read or note what to mail");
                (failures, RETRY)
            }
        };
    }
}

enum Sent {
    Nothing,
    Mailed,
    Failed,
}

/// Mails what has not been mailed. A crash between the mail and its note mails once more: better twice than never.
async fn send(
    hub: &Hub,
    sendmail: &std::path::Path,
    to: &str,
    controller: &str,
    first: bool,
) -> Result<Sent, MailError> {
    let Some(cursor) = hub.store.mail_cursor().await? else {
        // What was before mail existed is history.
        hub.store.commit(Changes::new().upsert(&MailCursor { seq: hub.store.last_event_seq().await? })).await?;
        return Ok(Sent::Nothing);
    };
    let (events, seq) = hub.store.events_after(cursor.seq, ATTEMPT_ENDED, EVENTS_MAX).await?;
    if seq == cursor.seq {
        return Ok(Sent::Nothing);
    }
    let failed = if events.is_empty() { None } else { mail_out(sendmail, to, &mail(controller, &events)).await.err() };
    if let Some(problem) = failed {
        if first {
            hub.store.commit(Changes::new().event(&failed_event(hub, problem))).await?;
        }
        return Ok(Sent::Failed);
    }
    hub.store.commit(Changes::new().upsert(&MailCursor { seq })).await?;
    Ok(if events.is_empty() { Sent::Nothing } else { Sent::Mailed })
}

fn failed_event(hub: &Hub, problem: Problem) -> Event {
    hub.event("mail.failed", &problem.message).with_problem(Severity::Warn, problem)
}

/// Gives one mail to the mailer: its words are fixed, no shell, nothing of the environment; the text goes to its input.
async fn mail_out(sendmail: &std::path::Path, to: &str, mail: &Mail) -> Result<(), Problem> {
    let text = format!(
        "To: {to}\nSubject: {}\nAuto-Submitted: auto-generated\nMIME-Version: 1.0\n\
         Content-Type: text/plain; charset=utf-8\nContent-Transfer-Encoding: 8bit\n\n{}",
        mail.subject, mail.body
    );
    let failed = |cause: String| {
        Problem::new(
            "MAIL_FAILED",
            format!("{} did not take the mail about the last attempts", sendmail.display()),
            cause,
            "mend the mailer of this host; it is tried again, and nothing is lost. A setgid mailer (postfix) needs NoNewPrivileges=no in the unit",
        )
    };
    let spawned = Command::new(sendmail)
        .args(["-i", to])
        .env_clear()
        .current_dir("/")
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn();
    let mut child = spawned.map_err(|error| failed(error.to_string()))?;
    let (mut input, mut complaint) = (child.stdin.take(), child.stderr.take());
    let talk = async {
        let told = async {
            if let Some(input) = &mut input {
                // A mailer that does not read to the end says so by its status.
                drop(input.write_all(text.as_bytes()).await);
            }
            drop(input.take());
        };
        let heard = async {
            let mut bytes = Vec::new();
            if let Some(complaint) = &mut complaint {
                drop(complaint.take(COMPLAINT_BYTES_MAX).read_to_end(&mut bytes).await);
            }
            // More than that is not read, and must not block the mailer.
            drop(complaint.take());
            String::from_utf8_lossy(&bytes).into_owned()
        };
        let ((), complaint) = tokio::join!(told, heard);
        (child.wait().await, complaint)
    };
    match timeout(MAILER_MAX, talk).await {
        Ok((Ok(status), _)) if status.success() => Ok(()),
        Ok((Ok(status), complaint)) => Err(failed(format!("{status}: {}", many_lines(complaint.trim(), 1_000)))),
        Ok((Err(error), _)) => Err(failed(error.to_string())),
        Err(_elapsed) => Err(failed(format!("it had not ended after {} s", MAILER_MAX.as_secs()))),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;
    use std::path::{Path, PathBuf};

    use super::*;

    /// A mailer that is a script: it keeps its words and its input, then ends as told.
    fn mailer(dir: &Path, end: &str) -> PathBuf {
        let path = dir.join("sendmail");
        let kept = dir.display();
        let text = format!("#!/bin/sh\necho \"$@\" > {kept}/words\n/bin/cat > {kept}/mail\n{end}\n");
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        path
    }

    fn letter() -> Mail {
        Mail { subject: "[certwright ctl] web: failed".into(), body: "web: no version was issued\n.\nlast\n".into() }
    }

    #[tokio::test]
    async fn the_mailer_gets_fixed_words_and_the_text_on_its_input() {
        let dir = tempfile::tempdir().unwrap();
        mail_out(&mailer(dir.path(), "exit 0"), "root", &letter()).await.unwrap();
        assert_eq!(std::fs::read_to_string(dir.path().join("words")).unwrap(), "-i root\n");
        let mail = std::fs::read_to_string(dir.path().join("mail")).unwrap();
        let (head, body) = mail.split_once("\n\n").unwrap();
        assert!(
            head.starts_with("To: root\nSubject: [certwright ctl] web: failed\nAuto-Submitted: auto-generated\n"),
            "{head}"
        );
        assert_eq!(body, letter().body);
    }

    #[tokio::test]
    async fn what_a_mailer_says_when_it_fails_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let problem =
            mail_out(&mailer(dir.path(), "echo no queue here >&2; exit 75"), "root", &letter()).await.unwrap_err();
        assert_eq!(problem.reason, "MAIL_FAILED");
        assert!(problem.cause.contains("75") && problem.cause.contains("no queue here"), "{problem:?}");
        let problem = mail_out(&dir.path().join("none"), "root", &letter()).await.unwrap_err();
        assert!(problem.cause.contains("No such file"), "{problem:?}");
    }
}
