//! Tests a target: everything that a deployment would do, and nothing that changes this server (features.md D12). The services' own
//! tests are run as they would be; the files are looked at by `apply`, the endpoints and the port of challenges from here.
//! Called by `net::questions`; judged in `plan::trial`.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use jiff::Timestamp;
use proto::agent::v1 as wire;
use proto::clock::{Clock, from_wire};
use proto::text::one_line;
use tokio::time::{Instant, timeout_at};

use super::deployment::how_it_failed;
use super::http01::port_problem;
use super::verify::served;
use crate::apply::request::{Handle, LookOver, LookedOver};
use crate::host::{CommandExit, Host};
use crate::plan::trial::{Check, HTTP01, Leaves, Ran, VALIDATE, in_order, no_verify, validate, verify};
use crate::policy::Policy;
use crate::problem::Problem;
use crate::target::{Place, Target, place, target};

/// The port that a CA asks first (RFC 8555 §8.3).
const HTTP_PORT: u16 = 80;

/// What to do about a service that refuses its own configuration.
const CORRECT: &str = "correct the configuration of the service on this server: a deployment would be taken back";

/// What a test needs; clones share it.
#[derive(Clone, Debug)]
pub(crate) struct Tester {
    pub(crate) apply: Handle,
    pub(crate) host: Arc<dyn Host>,
    pub(crate) clock: Arc<dyn Clock>,
}

/// A parsed question.
#[derive(Debug)]
struct Asked {
    target: Target,
    place: Option<Place>,
    not_before: Option<Timestamp>,
}

impl Tester {
    /// Tests what is asked, until `until` at the latest; what was not done by then says so.
    ///
    /// # Errors
    /// When the question cannot be understood, or the disk does not answer.
    pub(crate) async fn test(&self, question: &wire::TestTarget, until: Instant) -> Result<Vec<Check>, Problem> {
        let asked = parse(question)?;
        let policy = self.apply.policy().await?;
        let looked = timeout_at(until, self.look_over(&asked)).await;
        let LookedOver { mut checks, leaf, is_complete } = looked.unwrap_or_else(|_elapsed| Err(slow()))?;
        let leaves =
            Leaves { wanted: asked.target.version.as_ref().map(|version| version.fingerprint_sha256), in_files: leaf };
        // They do not wait for each other: the whole has a minute.
        let (validated, verified, answers) = tokio::join!(
            self.validate(&asked.target, &policy, is_complete, until),
            self.verify(&asked.target, leaves),
            self.answers(asked.place.as_ref(), &policy),
        );
        checks.extend(validated.into_iter().chain(verified).chain(answers));
        in_order(&mut checks);
        Ok(checks)
    }

    async fn look_over(&self, asked: &Asked) -> Result<LookedOver, Problem> {
        let webroot = match &asked.place {
            Some(Place::Webroot(webroot)) => Some(webroot.clone()),
            Some(Place::Standalone(_)) | None => None,
        };
        let look = LookOver { target: asked.target.clone(), not_before: asked.not_before, webroot };
        self.apply.look_over(look).await
    }

    /// Runs the services' own tests with what is there now, one after the other; after one that fails the others are not run,
    /// as in a deployment.
    async fn validate(&self, target: &Target, policy: &Policy, is_complete: bool, until: Instant) -> Vec<Check> {
        let mut checks: Vec<Check> = Vec::new();
        let mut has_failed = false;
        for argv in &target.validate {
            let subject = one_line(&argv.join(" "), 400);
            if policy.permit_command(argv).is_err() {
                checks.push(Check::skipped(VALIDATE, &subject, "the policy does not allow it"));
                continue;
            }
            if has_failed {
                checks.push(Check::skipped(VALIDATE, &subject, "the one before failed"));
                continue;
            }
            let started = Instant::now();
            let failed = match timeout_at(until, self.apply.run(argv.clone())).await {
                Ok(Ok(run)) if run.exit == CommandExit::Status(0) => None,
                Ok(Ok(run)) => {
                    let (message, said) = how_it_failed(&subject, &run);
                    Some(Problem::new("VALIDATE_FAILED", message, said, CORRECT))
                }
                Ok(Err(problem)) => Some(problem),
                Err(_elapsed) => Some(too_long(&subject, started.elapsed())),
            };
            has_failed |= failed.is_some();
            let check = validate(Ran { subject: &subject, failed, is_complete });
            checks.push(Check { took_ms: ms(started.elapsed()), ..check });
        }
        checks
    }

    async fn verify(&self, target: &Target, leaves: Leaves) -> Vec<Check> {
        if target.verify.is_empty() {
            return vec![no_verify()];
        }
        let looks = target.verify.iter().map(|endpoint| async move {
            let started = Instant::now();
            let seen = served(self.host.as_ref(), endpoint, &self.clock).await;
            let seen = seen.map_err(|error| {
                let source = std::error::Error::source(&error).map(|source| format!(": {source}")).unwrap_or_default();
                format!("{error}{source}")
            });
            Check { took_ms: ms(started.elapsed()), ..verify(&endpoint.to_string(), seen, leaves) }
        });
        join_all(looks).await
    }

    /// Whether a challenge could be answered from here, as far as `apply` does not say it.
    async fn answers(&self, place: Option<&Place>, policy: &Policy) -> Option<Check> {
        match place? {
            Place::Standalone(port) => Some(self.port(*port, policy).await),
            Place::Webroot(webroot) => {
                let is_served = !self.host.listeners(HTTP_PORT).await.is_empty();
                let message = format!("nothing listens on port {HTTP_PORT}: no CA gets what is in {webroot}");
                let hint = "start the web server of that directory, or answer without one: --http01 standalone";
                let problem = Problem::new("PORT_SILENT", message, "", hint);
                (!is_served).then(|| Check::warning(HTTP01, webroot, problem))
            }
        }
    }

    async fn port(&self, port: u16, policy: &Policy) -> Check {
        let subject = format!("port {port}");
        if let Err(problem) = policy.permit_port(port) {
            return Check::failed(HTTP01, &subject, problem);
        }
        // Open for a moment: nothing else says whether this process may, and who came in it is sent away.
        match self.host.bind(port).await {
            Ok(opened) => {
                drop(opened);
                Check::ok(HTTP01, &subject, "it is free: the agent opens it while a challenge is pending")
            }
            Err(error) => {
                let (problem, holder) = port_problem(self.host.as_ref(), &self.apply, port, &error).await;
                let own = format!("(pid {})", std::process::id());
                match holder.is_some_and(|holder| holder.ends_with(&own)) {
                    true => Check::ok(HTTP01, &subject, "the agent has it open: a challenge is pending"),
                    false => Check::failed(HTTP01, &subject, problem),
                }
            }
        }
    }
}

fn parse(question: &wire::TestTarget) -> Result<Asked, Problem> {
    let item = question.target.as_ref().ok_or_else(|| Problem::internal("a test of no target"))?;
    let place = question.http01.as_ref().map(|http01| place(Some(http01))).transpose()?;
    Ok(Asked { target: target(item)?, place, not_before: from_wire(question.not_before) })
}

fn too_long(subject: &str, after: Duration) -> Problem {
    let message = format!("`{subject}` did not end within {} s", after.as_secs());
    let hint = "run it on that server: a deployment waits for it as long as the policy says, a test does not";
    Problem::new("VALIDATE_SLOW", message, "", hint)
}

fn slow() -> Problem {
    let hint = "look at the disk of that server; the agent waits for it as long as it takes";
    Problem::new("DISK_SLOW", "the files of the target did not answer in time", "", hint)
}

fn ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
