//! Carries targets through one pass: fetch and write each, let the services test what is in place, then run every distinct
//! reload command once, then prove each by handshake. A version that is not proven makes room for the one that was: that is a pass of its own. One target's
//! failure never stops another. Effects on this server are asked of `apply`.

use std::collections::{BTreeSet, HashMap};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use futures_util::stream::{self, StreamExt as _};
use jiff::{SignedDuration, Timestamp};
use proto::agent::v1 as wire;
use proto::clock::Clock;
use proto::text::{many_lines, one_line};
use proto::x509::{Chain, hex};
use secrecy::SecretString;
use tokio::sync::{OnceCell, mpsc, watch};
use tokio::time::{Instant, timeout};

use super::client::{call, is_transient, refusal};
use super::jitter;
use super::session::Link;
use super::verify::{VerifyError, prove, served};
use crate::apply::request::{ApplyRequest, Handle, Install};
use crate::host::{CommandExit, CommandOutcome, Host};
use crate::plan::{Outcome, RELOADS_MAX, ReloadStep, Status, Step, reload_step, retry_after};
use crate::problem::Problem;
use crate::target::{Endpoint, Target};

/// How long a reload and the reading of the files may keep other passes with the same command from switching theirs
/// (nginx reads within 0.4 s, apache within 1.1 s: lab.md §5).
const READING: Duration = Duration::from_secs(2);
/// Targets that are worked on at the same time.
const AT_ONCE: usize = 4;
/// The step's name.
const ROLL_BACK: &str = "roll back";
/// What to do about a service that does not take a version.
const AGAIN: &str = "correct the service on this server; the agent tries again by itself, or at once with: certwright targets \
                     deploy NAME";
/// The cause of a command that failed and says nothing.
const SILENT: &str = "it printed nothing; the log of the service on that server may say why (journalctl -e)";
/// Output kept of a step that failed.
const OUTPUT_BYTES_MAX: usize = 4096;
/// Said of a purge that had no endpoint to look at.
const UNPROVEN: &str = "the target names no endpoint: nothing proved that no service uses the files any more";
/// Output kept of a step that went well: with it the ledger of a thousand full targets stays readable.
const OUTPUT_OK_BYTES_MAX: usize = 1024;

/// What became of a target so far.
#[derive(Debug)]
pub(crate) enum Change {
    Doing(&'static str),
    Done(Box<Outcome>),
    /// The controller is needed and not there: try again with the next connection.
    Later,
}

/// What a pass tells while it goes on.
#[derive(Debug)]
pub(crate) enum Progress {
    /// A target changed.
    Target { target_id: String, change: Change },
    /// The services of these reload commands have read their files: other targets may switch theirs.
    Read(BTreeSet<Vec<String>>),
}

/// A target to work on.
#[derive(Clone, Debug)]
pub(crate) struct Job {
    pub(crate) target: Target,
    pub(crate) attempt: u32,
    /// Reloads of this wish that ended well since its files were written last.
    pub(crate) reloads: u32,
    /// Names that this target wrote earlier in the same directory.
    pub(crate) names_before: Vec<String>,
    /// The files of before come back, because of this outcome.
    pub(crate) roll_back: Option<Box<Outcome>>,
    /// The files of the version that was applied drifted: what stands there now is nothing to come back to.
    pub(crate) repair: bool,
}

/// Works on targets; shared by all passes.
#[derive(Debug)]
pub(crate) struct Deployer {
    pub(crate) apply: Handle,
    pub(crate) host: Arc<dyn Host>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) link: watch::Receiver<Link>,
    pub(crate) progress: mpsc::Sender<Progress>,
}

/// One attempt at one target.
struct Attempt {
    job: Job,
    started_at: Timestamp,
    steps: Vec<Step>,
    /// The version's files are in place.
    written: bool,
    /// As in the job, and carried on.
    reloads: u32,
    /// The leaf that is back in the files.
    rolled_back_to: Option<[u8; 32]>,
}

/// Each distinct command of one stage of a pass, run by whoever needs it first.
type Runs = HashMap<Vec<String>, OnceCell<Result<CommandOutcome, Problem>>>;

/// The stages that run commands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Validate,
    Reload,
}

impl Stage {
    fn commands(self, target: &Target) -> &[Vec<String>] {
        match self {
            Self::Validate => &target.validate,
            Self::Reload => &target.reload,
        }
    }

    fn runs<'a>(self, attempts: impl IntoIterator<Item = &'a Attempt>) -> Runs {
        let commands = attempts.into_iter().flat_map(|attempt| self.commands(&attempt.job.target));
        commands.map(|argv| (argv.clone(), OnceCell::new())).collect()
    }
}

/// What each verify endpoint showed, in the target's order.
type Seen = Vec<Result<[u8; 32], VerifyError>>;

enum Written {
    /// The files are in place; `changed` when this attempt put them there.
    Yes {
        changed: bool,
    },
    Later,
    Failed(Problem),
}

impl Deployer {
    /// Works on all jobs; every one of them ends in `Done` or `Later`. Nobody else may switch files for the same reload
    /// commands until they are [`Progress::Read`]: a service that reads its whole configuration must not find another
    /// target's pair half switched (`nginx -s reload` then fails for all of them).
    pub(crate) async fn pass(&self, jobs: Vec<Job>) {
        let commands_held = jobs.iter().flat_map(|job| job.target.commands().cloned()).collect();
        let written: Vec<Attempt> = stream::iter(jobs)
            .map(|job| self.begin(job))
            .buffer_unordered(AT_ONCE)
            .filter_map(std::future::ready)
            .collect()
            .await;
        // All files are in place before the first command, so one run serves every target that names it.
        let runs = Stage::Validate.runs(&written);
        let valid: Vec<Attempt> = stream::iter(written)
            .map(|attempt| self.validate(attempt, &runs))
            .buffer_unordered(AT_ONCE)
            .filter_map(std::future::ready)
            .collect()
            .await;
        let runs = Stage::Reload.runs(&valid);
        let proofs = stream::iter(valid).map(|attempt| self.finish(attempt, &runs)).buffer_unordered(AT_ONCE);
        let mut proofs = pin!(proofs.collect::<()>());
        // A service has read its files when it proves the new leaf, or soon after the reload; one that never proves it
        // must not hold up the others.
        let slow = timeout(READING, &mut proofs).await.is_err();
        drop(self.progress.send(Progress::Read(commands_held)).await);
        if slow {
            proofs.await;
        }
    }

    /// Writes the files; `None` when the attempt ends here.
    async fn begin(&self, job: Job) -> Option<Attempt> {
        let (started_at, reloads) = (self.clock.now(), job.reloads);
        let mut attempt = Attempt { job, started_at, steps: Vec::new(), written: false, reloads, rolled_back_to: None };
        if let Some(failed) = attempt.job.roll_back.take() {
            return self.begin_roll_back(attempt, *failed).await;
        }
        if attempt.job.target.purge {
            let outcome = self.purge(&mut attempt).await;
            self.tell(&attempt, Change::Done(Box::new(outcome))).await;
            return None;
        }
        self.tell(&attempt, Change::Doing("writing")).await;
        let started = Instant::now();
        let (problem, note) = match self.write(&attempt.job).await {
            Written::Later => {
                self.tell(&attempt, Change::Later).await;
                return None;
            }
            Written::Yes { changed } => {
                if changed {
                    attempt.reloads = 0;
                }
                (None, String::new())
            }
            Written::Failed(problem) => (Some(problem.clone()), problem.cause),
        };
        attempt.written = problem.is_none();
        attempt.step("write", attempt.job.target.dir.clone(), attempt.written, None, &note, started);
        let Some(problem) = problem else { return Some(attempt) };
        let outcome = self.outcome(&attempt, Status::Failed, Some(problem), None);
        self.tell(&attempt, Change::Done(Box::new(outcome))).await;
        None
    }

    /// Puts the files of before back; `None` when the attempt ends here.
    async fn begin_roll_back(&self, mut attempt: Attempt, failed: Outcome) -> Option<Attempt> {
        self.tell(&attempt, Change::Doing("rolling back")).await;
        let started = Instant::now();
        let back = self.roll_back(&attempt.job.target).await;
        attempt.started_at = failed.started_at;
        // One line for it, however often it is tried.
        attempt.steps.extend(failed.steps.iter().filter(|step| step.name != ROLL_BACK).cloned());
        let note = back.as_ref().err().map(|problem| problem.cause.clone()).unwrap_or_default();
        attempt.step(ROLL_BACK, attempt.job.target.dir.clone(), back.is_ok(), None, &note, started);
        let outcome = match back {
            Ok(Some(leaf)) => {
                attempt.rolled_back_to = Some(leaf);
                attempt.job.roll_back = Some(Box::new(failed));
                return Some(attempt);
            }
            Ok(None) => {
                let retry_at = self.retry_at(failed.status, attempt.job.attempt);
                Outcome { roll_back: false, retry_at, ..failed }
            }
            Err(problem) => {
                let retry_at = self.retry_at(Status::Failed, attempt.job.attempt);
                let problem = match failed.problem.clone() {
                    Some(first) if first.message.contains(&problem.message) => first,
                    Some(first) => first.then(&problem.message),
                    None => problem,
                };
                Outcome { problem: Some(problem), retry_at, steps: attempt.steps.clone(), ..failed }
            }
        };
        self.tell(&attempt, Change::Done(Box::new(outcome))).await;
        None
    }

    /// Puts the files of before back; returns their leaf. Nothing is left to put back when an agent that was killed had done
    /// it: the service has yet to take them up.
    async fn roll_back(&self, target: &Target) -> Result<Option<[u8; 32]>, Problem> {
        if let Some(leaf) = self.apply.roll_back(target).await? {
            return Ok(Some(leaf));
        }
        let failed = target.version.as_ref().map(|version| version.fingerprint_sha256);
        let held = self.apply.read_held(target).await?.map(|held| held.fingerprint_sha256);
        Ok(held.filter(|leaf| Some(*leaf) != failed))
    }

    async fn write(&self, job: &Job) -> Written {
        match self.try_write(job).await {
            Ok(written) => written,
            Err(problem) => Written::Failed(problem),
        }
    }

    async fn try_write(&self, job: &Job) -> Result<Written, Problem> {
        let Job { target, attempt, names_before, repair, .. } = job;
        // Refused before a secret travels; `apply` enforces the policy again.
        self.apply.policy().await?.permit(target)?;
        let client = self.link.borrow().client.clone();
        let names = target.names();
        let dropped: Vec<String> = names_before.iter().filter(|name| !names.contains(name)).cloned().collect();
        // A look does not see names that are no longer listed: only `install` removes them.
        let may_be_done = dropped.is_empty() && (*attempt > 1 || *repair || client.is_none());
        if may_be_done && self.apply.is_in_place(target).await? {
            return Ok(Written::Yes { changed: false });
        }
        let (Some(mut client), Some(version)) = (client, target.version.as_ref()) else { return Ok(Written::Later) };
        let request = wire::FetchRequest { target_id: target.id.clone(), version_id: version.id.clone() };
        let fetched = match call(client.fetch(request)).await {
            Ok(fetched) => fetched,
            Err(status) if is_transient(&status) => return Ok(Written::Later),
            Err(status) => return Err(refusal(&status)),
        };
        let key_pem = SecretString::from(fetched.key_pem);
        let has_key = !secrecy::ExposeSecret::expose_secret(&key_pem).is_empty();
        let install = Install {
            target: target.clone(),
            leaf_pem: fetched.leaf_pem,
            chain_pem: fetched.chain_pem,
            key_pem: has_key.then_some(key_pem),
            dropped,
            was_proven: !repair && self.is_proven(target).await?,
        };
        let changed = self.apply.install(install).await?;
        Ok(Written::Yes { changed })
    }

    /// Whether what is in the target's files now works: still valid, and served wherever it can be looked at. Only then
    /// there is something worth coming back to.
    async fn is_proven(&self, target: &Target) -> Result<bool, Problem> {
        let Some(held) = self.apply.read_held(target).await? else { return Ok(false) };
        let chain = Chain::parse_pem(held.leaf_pem.as_bytes()).ok();
        if chain.is_none_or(|chain| chain.leaf.not_after <= self.clock.now()) {
            return Ok(false);
        }
        let looks = target.verify.iter().map(|endpoint| served(self.host.as_ref(), endpoint, &self.clock));
        let shown = join_all(looks).await;
        Ok(shown.iter().all(|seen| matches!(seen, Ok(leaf) if *leaf == held.fingerprint_sha256)))
    }

    async fn finish(&self, mut attempt: Attempt, runs: &Runs) {
        let outcome = match (attempt.job.roll_back.take(), attempt.rolled_back_to) {
            (Some(failed), Some(leaf)) => self.finish_roll_back(&mut attempt, *failed, leaf, runs).await,
            _ => match self.already_live(&mut attempt).await {
                Some(outcome) => self.concluded(&attempt, outcome).await,
                None => {
                    let outcome = match self.reload(&mut attempt, runs).await {
                        Err(problem) => self.outcome(&attempt, Status::Failed, Some(problem), None),
                        Ok(()) => self.verify(&mut attempt).await,
                    };
                    self.concluded(&attempt, outcome).await
                }
            },
        };
        self.tell(&attempt, Change::Done(Box::new(outcome))).await;
    }

    /// Confirms what is proven, so that the files stay; asks for the files of before when this version is not.
    async fn concluded(&self, attempt: &Attempt, mut outcome: Outcome) -> Outcome {
        let target = &attempt.job.target;
        match outcome.status {
            Status::Applied | Status::Unproven => {
                let confirm = ApplyRequest::Confirm(Box::new(target.clone()));
                let Err(problem) = self.apply.perform(confirm).await else { return outcome };
                // Nothing is lost: the next attempt finds it live and confirms it.
                self.outcome(attempt, Status::Pending, Some(problem), outcome.served_fingerprint_sha256)
            }
            Status::Pending | Status::NotLive | Status::RolledBack | Status::Failed => {
                // What cannot be told stays as it is; the files are a matching pair either way.
                if self.apply.can_roll_back(target).await.unwrap_or_default() {
                    outcome.roll_back = true;
                    outcome.retry_at = None;
                }
                outcome
            }
        }
    }

    /// Reloads and proves the files that are back. A service that has not read the new ones is not disturbed.
    async fn finish_roll_back(&self, attempt: &mut Attempt, failed: Outcome, leaf: [u8; 32], runs: &Runs) -> Outcome {
        let was_reloaded = failed.steps.iter().any(|step| step.name == "reload");
        let reloaded = if was_reloaded { self.reload(attempt, runs).await } else { Ok(()) };
        let target = attempt.job.target.clone();
        let mut shown = None;
        // What is served counts: a reload that fails again, as over a broken configuration, took nothing away.
        let mut trouble = reloaded.err().filter(|_| target.verify.is_empty());
        self.tell(attempt, Change::Doing("verifying")).await;
        let started = Instant::now();
        let proofs = target.verify.iter().map(|endpoint| prove(self.host.as_ref(), endpoint, leaf, &self.clock));
        for (endpoint, seen) in target.verify.iter().zip(join_all(proofs).await) {
            let problem = not_live(endpoint, &seen, leaf, false);
            let note = problem.as_ref().map(|problem| problem.cause.clone()).unwrap_or_default();
            attempt.step("verify", endpoint.to_string(), problem.is_none(), None, &note, started);
            shown = seen.ok().or(shown);
            trouble = trouble.or(problem);
        }
        let what = match &trouble {
            None if target.verify.is_empty() => "the files of before are back".to_owned(),
            None => "the certificate of before is served again".to_owned(),
            Some(problem) => format!("the files of before are back, but {}", problem.message),
        };
        let problem = failed.problem.map(|problem| Problem { hint: AGAIN.to_owned(), ..problem.then(&what) });
        let mut outcome = self.outcome(attempt, Status::RolledBack, problem, shown);
        if !was_reloaded {
            // The service was not disturbed: no need to wait long.
            outcome.retry_at = self.retry_at(Status::Failed, attempt.job.attempt);
        }
        outcome
    }

    /// Looks at what is served before a reload is repeated; `None` when the attempt goes on with it.
    async fn already_live(&self, attempt: &mut Attempt) -> Option<Outcome> {
        let step = reload_step(attempt.reloads);
        let target = attempt.job.target.clone();
        let wanted = target.version.as_ref().filter(|_| !target.verify.is_empty())?.fingerprint_sha256;
        if step == ReloadStep::Reload {
            return None;
        }
        self.tell(attempt, Change::Doing("verifying")).await;
        let started = Instant::now();
        let looks = target.verify.iter().map(|endpoint| served(self.host.as_ref(), endpoint, &self.clock));
        let seen = join_all(looks).await;
        let is_live = seen.iter().all(|seen| matches!(seen, Ok(fingerprint) if *fingerprint == wanted));
        (is_live || step == ReloadStep::LookOnly).then(|| self.judged(attempt, seen, wanted, started))
    }

    /// Asks the services whether they can use what is in place, before any of them reads it; `None` when the attempt ends
    /// here. A test before the switch would test the files of before.
    async fn validate(&self, mut attempt: Attempt, runs: &Runs) -> Option<Attempt> {
        if attempt.rolled_back_to.is_some() || attempt.job.target.validate.is_empty() {
            return Some(attempt);
        }
        self.tell(&attempt, Change::Doing("validating")).await;
        let Err(problem) = self.run(&mut attempt, Stage::Validate, runs).await else { return Some(attempt) };
        let outcome = self.outcome(&attempt, Status::Failed, Some(problem), None);
        let outcome = self.concluded(&attempt, outcome).await;
        self.tell(&attempt, Change::Done(Box::new(outcome))).await;
        None
    }

    async fn reload(&self, attempt: &mut Attempt, runs: &Runs) -> Result<(), Problem> {
        if attempt.job.target.reload.is_empty() {
            return Ok(());
        }
        self.tell(attempt, Change::Doing("reloading")).await;
        self.run(attempt, Stage::Reload, runs).await?;
        attempt.reloads = attempt.reloads.saturating_add(1);
        Ok(())
    }

    /// Runs the commands of a stage in their order, until one fails.
    async fn run(&self, attempt: &mut Attempt, stage: Stage, runs: &Runs) -> Result<(), Problem> {
        let name = match stage {
            Stage::Validate => "validate",
            Stage::Reload => "reload",
        };
        for argv in stage.commands(&attempt.job.target).to_vec() {
            let started = Instant::now();
            let run = runs.get(&argv).ok_or_else(|| Problem::internal("a command that nobody planned"))?;
            let run = run.get_or_init(|| self.apply.run(argv.clone())).await.clone()?;
            let status = match run.exit {
                CommandExit::Status(status) => Some(status),
                CommandExit::Signal(_) | CommandExit::TimedOut | CommandExit::NotStarted(_) => None,
            };
            let subject = one_line(&argv.join(" "), 400);
            let ok = status == Some(0);
            attempt.step(name, subject.clone(), ok, status, &run.output, started);
            if !ok {
                return Err(command_failed(stage, &subject, &run));
            }
        }
        Ok(())
    }

    async fn verify(&self, attempt: &mut Attempt) -> Outcome {
        let target = attempt.job.target.clone();
        let Some(version) = target.version.as_ref().filter(|_| !target.verify.is_empty()) else {
            return self.outcome(attempt, Status::Unproven, None, None);
        };
        self.tell(attempt, Change::Doing("verifying")).await;
        let wanted = version.fingerprint_sha256;
        let started = Instant::now();
        let proofs = target.verify.iter().map(|endpoint| prove(self.host.as_ref(), endpoint, wanted, &self.clock));
        let seen = join_all(proofs).await;
        self.judged(attempt, seen, wanted, started)
    }

    /// Makes the outcome of what the endpoints showed.
    fn judged(&self, attempt: &mut Attempt, seen: Seen, wanted: [u8; 32], started: Instant) -> Outcome {
        let reloads_stopped = reload_step(attempt.reloads) == ReloadStep::LookOnly;
        let mut shown = None;
        let mut problem = None;
        for (endpoint, seen) in attempt.job.target.verify.clone().iter().zip(seen) {
            let failed = not_live(endpoint, &seen, wanted, reloads_stopped);
            let note = failed.as_ref().map(|problem| problem.cause.clone()).unwrap_or_default();
            attempt.step("verify", endpoint.to_string(), failed.is_none(), None, &note, started);
            shown = if failed.is_some() || shown.is_none() { seen.ok().or(shown) } else { shown };
            problem = problem.or(failed);
        }
        let status = if problem.is_none() { Status::Applied } else { Status::NotLive };
        self.outcome(attempt, status, problem, shown)
    }

    /// Removes the files once no endpoint serves them any more.
    async fn purge(&self, attempt: &mut Attempt) -> Outcome {
        self.tell(attempt, Change::Doing("verifying")).await;
        let started = Instant::now();
        let removed = self.try_purge(&attempt.job).await;
        let note = match &removed {
            Err(problem) => problem.cause.clone(),
            Ok(()) if attempt.job.target.verify.is_empty() => UNPROVEN.to_owned(),
            Ok(()) => String::new(),
        };
        attempt.step("purge", attempt.job.target.dir.clone(), removed.is_ok(), None, &note, started);
        match removed {
            Ok(()) => Outcome { purged: true, names: vec![], ..self.outcome(attempt, Status::Applied, None, None) },
            Err(problem) => self.outcome(attempt, Status::Pending, Some(problem), None),
        }
    }

    async fn try_purge(&self, job: &Job) -> Result<(), Problem> {
        let target = &job.target;
        let mut names = target.names();
        names.extend(job.names_before.iter().cloned());
        let mut ours = self.apply.leaves(target, names.clone()).await?;
        if ours.is_empty() {
            ours.extend(target.version.as_ref().map(|version| version.fingerprint_sha256));
        }
        for endpoint in &target.verify {
            match served(self.host.as_ref(), endpoint, &self.clock).await {
                Ok(fingerprint) if ours.contains(&fingerprint) => {
                    let message = format!("{endpoint} still serves the certificate; its files were not removed");
                    let hint =
                        "point the service at another certificate and reload it; the agent looks again by itself";
                    return Err(Problem::new("STILL_SERVED", message, format!("leaf {}", hex(&fingerprint)), hint));
                }
                Ok(_) => {}
                Err(error) if error.is_refused() => {}
                Err(error) => {
                    let message = format!("{endpoint} does not tell what it serves; the files were not removed");
                    let hint = "bring the endpoint up, or remove it from the target; the agent looks again by itself";
                    return Err(Problem::new("PURGE_UNPROVEN", message, chain(&error), hint));
                }
            }
        }
        self.apply.perform(ApplyRequest::Purge { target: Box::new(target.clone()), names }).await
    }

    fn outcome(&self, attempt: &Attempt, status: Status, problem: Option<Problem>, shown: Option<[u8; 32]>) -> Outcome {
        let target = &attempt.job.target;
        let finished_at = self.clock.now();
        let retry_at = match status {
            Status::Applied | Status::Unproven => None,
            Status::Pending | Status::NotLive | Status::RolledBack | Status::Failed => {
                self.retry_at(status, attempt.job.attempt)
            }
        };
        let mut names = target.names();
        // Until this version is written, or a purge is done, what was written earlier may still be there.
        if !attempt.written {
            names.extend(attempt.job.names_before.iter().filter(|name| !target.names().contains(name)).cloned());
        }
        Outcome {
            target_id: target.id.clone(),
            wish: target.digest(),
            version_id: target.version.as_ref().map(|version| version.id.clone()).unwrap_or_default(),
            key_slot_id: target.key_slot_id.clone().filter(|_| attempt.written),
            deploy_wish: target.deploy_wish,
            status,
            served_fingerprint_sha256: shown,
            problem,
            steps: attempt.steps.clone(),
            started_at: attempt.started_at,
            finished_at,
            retry_at,
            attempt: attempt.job.attempt,
            reloads: attempt.reloads,
            purged: false,
            roll_back: false,
            dir: target.dir.clone(),
            names,
            drift: None,
        }
    }

    fn retry_at(&self, status: Status, attempt: u32) -> Option<Timestamp> {
        let after = retry_after(status, attempt, jitter());
        self.clock.now().checked_add(SignedDuration::try_from(after).unwrap_or_default()).ok()
    }

    async fn tell(&self, attempt: &Attempt, change: Change) {
        let target_id = attempt.job.target.id.clone();
        // Nobody listens only while the agent stops.
        drop(self.progress.send(Progress::Target { target_id, change }).await);
    }
}

impl Attempt {
    fn step(
        &mut self,
        name: &str,
        subject: String,
        ok: bool,
        exit_status: Option<i32>,
        output: &str,
        started: Instant,
    ) {
        self.steps.push(Step {
            name: name.to_owned(),
            subject,
            ok,
            exit_status,
            output: clip(output, if ok { OUTPUT_OK_BYTES_MAX } else { OUTPUT_BYTES_MAX }),
            took_ms: u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX),
        });
    }
}

fn command_failed(stage: Stage, subject: &str, run: &CommandOutcome) -> Problem {
    let (message, said) = how_it_failed(subject, run);
    let (reason, end) = match stage {
        Stage::Validate => ("VALIDATE_FAILED", ", so nothing was reloaded"),
        Stage::Reload => ("RELOAD_FAILED", ""),
    };
    Problem::new(reason, format!("{message}{end}"), said, AGAIN)
}

/// Returns how a command ended that did not end well, and what it said.
pub(super) fn how_it_failed(subject: &str, run: &CommandOutcome) -> (String, String) {
    let how = match &run.exit {
        CommandExit::Status(status) => format!("ended with status {status}"),
        CommandExit::Signal(signal) => format!("was killed by signal {signal}"),
        CommandExit::TimedOut => format!("did not end within {} s and was killed", run.took.as_secs()),
        CommandExit::NotStarted(error) => format!("could not be started: {error}"),
    };
    let said = one_line(run.output.trim(), 600);
    // `postfix check` tells a terminal or its log, and nobody else.
    let said = if said.is_empty() { SILENT.to_owned() } else { said };
    (format!("`{subject}` {how}"), said)
}

/// `reloads_stopped` when the agent will not run the reload commands again by itself.
fn not_live(
    endpoint: &Endpoint,
    seen: &Result<[u8; 32], VerifyError>,
    wanted: [u8; 32],
    reloads_stopped: bool,
) -> Option<Problem> {
    let (message, cause) = match seen {
        Ok(fingerprint) if *fingerprint == wanted => return None,
        Ok(fingerprint) => (
            format!("{endpoint} still shows another certificate"),
            format!("expected leaf {}, got {}", hex(&wanted), hex(fingerprint)),
        ),
        Err(error) => (format!("{endpoint} shows no certificate"), chain(error)),
    };
    let check = "check that the service reads these files, that the reload command is the right one, and address and \
                 name of the verify endpoint";
    let hint = if reloads_stopped {
        format!(
            "{check}; {RELOADS_MAX} reloads did not help: the agent looks again by itself; certwright targets deploy NAME also reloads"
        )
    } else {
        check.to_owned()
    };
    Some(Problem::new("NOT_LIVE", message, cause, hint))
}

fn chain(error: &dyn std::error::Error) -> String {
    let source = error.source().map(|source| format!(": {source}")).unwrap_or_default();
    format!("{error}{source}")
}

/// Sanitises output and cuts it.
fn clip(output: &str, bytes_max: usize) -> String {
    let mut text = many_lines(output, bytes_max);
    while text.len() > bytes_max {
        text.pop();
    }
    text
}

#[cfg(test)]
mod tests;
