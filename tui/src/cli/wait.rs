//! Following a job: each change is one line on stderr, the end is the exit code. It only looks: it may be interrupted,
//! and the controller may restart meanwhile, without any harm to the job. Called by the changing verbs and `jobs wait`.

mod progress;

use std::time::Duration;

use proto::operator::v1::{Certificate, CertificateAccepted, GetCertificateRequest, GetJobRequest, Job};
use proto::types::v1::{Problem, TargetStatus};

use self::progress::Progress;
use super::session::{Session, WaitOptions};
use crate::client::{Client, ClientError, ErrorKind, Watch, target_status};
use crate::output::{Format, accepted, certificate, safe, target};

/// Pause before a controller that went away is tried again.
const RECONNECT_AFTER: Duration = Duration::from_secs(1);

/// How a job ended, as far as it was followed.
#[derive(Debug)]
pub(super) struct End {
    pub(super) job: Job,
    certificate: Option<Certificate>,
}

impl End {
    /// Returns the outcome as the exit code wants it: succeeded, partial or failed.
    pub(super) fn result(&self) -> Result<(), ClientError> {
        let kind = match self.job.state.as_str() {
            "succeeded" => return Ok(()),
            "partial" => ErrorKind::Partial,
            "cancelled" if self.job.batch.as_ref().is_some_and(|batch| batch.succeeded > 0) => ErrorKind::Partial,
            _ => ErrorKind::Failed,
        };
        if let Some(Problem { reason, message, cause, hint }) = &self.job.problem {
            return Err(ClientError::local(kind, reason, message, cause, hint));
        }
        let message = format!("job {} ended as {}", self.job.id, self.job.state);
        let hint = match &self.job.batch {
            Some(_) => format!("see `certwright jobs get {}`", self.job.id),
            None => format!("see `certwright certs explain {}`", self.job.certificate),
        };
        Err(ClientError::local(kind, "JOB_NOT_DONE", &message, &self.unproven(), &hint))
    }

    /// Returns the targets that are not applied, in words.
    fn unproven(&self) -> String {
        let Some(certificate) = &self.certificate else { return String::new() };
        let open = certificate.targets.iter().filter(|target| target.status != i32::from(TargetStatus::Applied));
        let word = |target| {
            let (agent, dir) = target::place(target);
            format!("{agent} {dir}: {}", target_status(target.status))
        };
        open.map(word).collect::<Vec<_>>().join("\n")
    }
}

/// Tells what was accepted, follows it if asked to, and prints the certificate.
pub(super) async fn finish(
    session: &mut Session<'_>,
    mut answer: CertificateAccepted,
    wait: &WaitOptions,
) -> Result<(), ClientError> {
    warn(session, &answer);
    let Some(limit) = wait.wait.filter(|_| !answer.job_id.is_empty()) else {
        if !answer.job_id.is_empty() {
            let job = safe(&answer.job_id);
            session.console.note(&format!("accepted as job {job}; follow it with `certwright jobs wait {job}`"));
        }
        return show(session, &answer, None);
    };
    let end = follow(session, &answer.job_id, limit).await?;
    answer.certificate = end.certificate.clone().or(answer.certificate);
    show(session, &answer, Some(&end.job.state))?;
    end.result()
}

/// Prints what a dry run found.
pub(super) fn plan(session: &mut Session<'_>, answer: &CertificateAccepted) -> Result<(), ClientError> {
    warn(session, answer);
    session.console.note("dry run: all checks passed and nothing was changed");
    if session.format == Format::Json {
        return session.console.print(&accepted::json(answer, None, true));
    }
    show(session, answer, None)
}

fn warn(session: &mut Session<'_>, answer: &CertificateAccepted) {
    for warning in &answer.warnings {
        session.console.note(&format!("warning: {}", safe(warning)));
    }
}

fn show(session: &mut Session<'_>, answer: &CertificateAccepted, outcome: Option<&str>) -> Result<(), ClientError> {
    let Some(found) = &answer.certificate else {
        return if session.format == Format::Json {
            session.console.print(&accepted::json(answer, outcome, false))
        } else {
            Ok(())
        };
    };
    session.record(&found.name, || accepted::json(answer, outcome, false), |now| certificate::describe(found, now))
}

/// Follows a job until it ends.
///
/// # Errors
/// When there is no such job, or when it has not ended within `limit`.
pub(super) async fn follow(session: &mut Session<'_>, job_id: &str, limit: Duration) -> Result<End, ClientError> {
    let mut follower = Follower { client: session.client.clone(), job_id, watch: None, last: None, lost: None };
    match tokio::time::timeout(limit, follower.run(session)).await {
        Ok(end) => end,
        Err(_elapsed) => Err(follower.too_late(limit)),
    }
}

struct Follower<'a> {
    client: Client,
    job_id: &'a str,
    watch: Option<Watch>,
    /// The job as last seen.
    last: Option<Job>,
    /// Set while the controller cannot be reached.
    lost: Option<ClientError>,
}

impl Follower<'_> {
    async fn run(&mut self, session: &mut Session<'_>) -> Result<End, ClientError> {
        let mut progress = Progress::default();
        loop {
            let round = match self.look(session, &mut progress).await {
                Ok(Some(end)) => return Ok(end),
                Ok(None) => self.changed().await,
                Err(error) => Err(error),
            };
            match round {
                Ok(()) => {}
                Err(error) if error.kind == ErrorKind::Unreachable => self.away(error, session).await,
                Err(error) => return Err(error),
            }
        }
    }

    /// Reads job and certificate, tells what is new, and returns the end if it has come.
    async fn look(&mut self, session: &mut Session<'_>, progress: &mut Progress) -> Result<Option<End>, ClientError> {
        // Opened before reading, so that no change between reading and waiting is missed.
        if self.watch.is_none() {
            self.watch = Some(self.client.watch().await?);
        }
        let job = self.client.get_job(GetJobRequest { id: self.job_id.to_owned() }).await?;
        let certificate = self.certificate(&job.certificate).await?;
        self.lost = None;
        for line in progress.news(&job, certificate.as_ref(), session.now()) {
            session.console.note(&line);
        }
        self.last = Some(job.clone());
        let ended = matches!(job.state.as_str(), "succeeded" | "partial" | "failed" | "cancelled");
        Ok(ended.then_some(End { job, certificate }))
    }

    /// A job that deletes its certificate outlives it.
    async fn certificate(&self, name: &str) -> Result<Option<Certificate>, ClientError> {
        if name.is_empty() {
            return Ok(None);
        }
        match self.client.get_certificate(GetCertificateRequest { name: name.to_owned() }).await {
            Ok(found) => Ok(Some(found)),
            Err(error) if error.kind == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn changed(&mut self) -> Result<(), ClientError> {
        match &mut self.watch {
            Some(watch) => watch.next().await.map(|_| ()),
            None => Ok(()),
        }
    }

    async fn away(&mut self, error: ClientError, session: &mut Session<'_>) {
        if self.lost.is_none() {
            session.console.note(&format!("{}; trying again", error.problem.message));
        }
        self.lost = Some(error);
        self.watch = None;
        tokio::time::sleep(RECONNECT_AFTER).await;
    }

    fn too_late(self, limit: Duration) -> ClientError {
        if let Some(error) = self.lost {
            return error;
        }
        let id = self.job_id;
        let message = format!("job {id} has not ended after {} s", limit.as_secs());
        let cause = self.last.map(|job| {
            let problem = job.problem.map(|problem| format!(": {}", problem.message)).unwrap_or_default();
            format!("it is {} in phase {}{problem}", job.state, job.phase)
        });
        let hint = format!("it goes on: follow it with `certwright jobs wait {id}`");
        ClientError::local(ErrorKind::TimedOut, "WAIT_TIMED_OUT", &message, &cause.unwrap_or_default(), &hint)
    }
}
