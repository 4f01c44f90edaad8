//! Makes what is observed equal to what is desired: pulls the desired state, makes keys, serves tokens, starts passes
//! over targets, reports. One loop, level-triggered: whatever wakes it, it looks at everything again. Decisions are in
//! `plan`; work that may take time runs in tasks, and the loop itself never waits for the network.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use proto::agent::v1 as wire;
use proto::clock::Clock;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout_at};
use tokio_util::sync::CancellationToken;
use tonic::Status as CallStatus;
use tracing::{error, info, warn};

use super::client::{Client, call, is_transient, refusal};
use super::deployment::{Change, Deployer, Job, Progress};
use super::held::show;
use super::http01::Listeners;
use super::jitter;
use super::report::{Observed, is_too_large, report};
use super::session::Link;
use super::witness::Witness;
use crate::apply::request::{ApplyRequest, Handle};
use crate::host::Host;
use crate::ledger::Ledger;
use crate::plan::drift::Drift;
use crate::plan::slots::{KeyStep, KeyUse, expendable, key_step};
use crate::plan::{Offer, Outcome, TargetStep, judge, next_step, rest_after};
use crate::problem::Problem;
use crate::target::{Desired, KeySlot, StateName, Target, is_item_id};

mod challenges;
mod drift;
mod duty;
pub(crate) mod rehearsal;

use challenges::serve_challenges;
use drift::{Found, Looks};
use duty::{CALL_RETRY, Duty};
use rehearsal::{Rehearsal, Rehearsals};

/// The desired state is pulled this often without a hint; jitter takes up to a fifth away.
const PULL: Duration = Duration::from_secs(900);
/// Rest before a port that was taken is tried again; a challenge is short-lived.
const CHALLENGE_RETRY: Duration = Duration::from_secs(3);
/// First rest before a key or CSR that failed is tried again; it grows.
const KEY_RETRY: Duration = Duration::from_secs(3);
const KEYS_AT_ONCE: usize = 4;
const PASSES_AT_ONCE: usize = 8;
const PROGRESS_MAX: usize = 256;
/// How long running deployments may go on when the agent is told to stop.
const DRAIN: Duration = Duration::from_secs(10);

/// Reasons of refusals by a restored controller, which may not know yet what this agent holds.
const RESTORED: [&str; 2] = ["RESTORE_WAITING", "SHOW_FIRST"];

/// What a task came back with.
enum Done {
    Pulled(Result<wire::GetDesiredResponse, CallStatus>),
    /// With what the controller asks for.
    Reported(Result<wire::ReportResponse, CallStatus>),
    Shown(Result<(), CallStatus>),
    Made {
        id: String,
        csr_der: Result<Vec<u8>, Problem>,
    },
    Sent {
        id: String,
        taken: Result<(), tonic::Status>,
    },
    Served {
        serving: BTreeSet<String>,
        problems: BTreeMap<String, Problem>,
    },
    Passed,
    Looked(Found),
    Changed {
        request: u64,
        dirs: Result<Vec<String>, Problem>,
    },
}

/// The loop's state.
#[derive(Debug)]
pub(crate) struct Reconciler {
    apply: Handle,
    ledger: Ledger,
    clock: Arc<dyn Clock>,
    witness: Arc<Witness>,
    link: watch::Receiver<Link>,
    link_number: u64,
    deployer: Arc<Deployer>,
    progress: mpsc::Receiver<Progress>,
    listeners: Arc<tokio::sync::Mutex<Listeners>>,
    work: JoinSet<Done>,
    desired: Option<Desired>,
    /// The controller has named the held state since the agent started: only then are tokens served.
    confirmed: bool,
    ignored: Option<StateName>,
    outcomes: BTreeMap<String, Outcome>,
    /// Which keys each target used, by target id.
    key_uses: BTreeMap<String, KeyUse>,
    /// Wanted while the outcomes or the uses of keys are not on the disk as they are here.
    save: Duty,
    doing: BTreeMap<String, &'static str>,
    later: BTreeMap<String, Instant>,
    passes: usize,
    /// Commands whose services may still read files of a pass: targets that name them wait, and then share one pass and
    /// one run.
    reading: BTreeSet<Vec<String>>,
    /// When the first of the targets that wait is due, as the last look saw it.
    retry_at: Option<Timestamp>,
    keys_held: Vec<String>,
    /// Something happened since the last look for keys that nobody needs.
    keys_to_sift: bool,
    keys_busy: BTreeSet<String>,
    keys_rest: BTreeMap<String, Instant>,
    /// In a row, by slot.
    key_failures: BTreeMap<String, u32>,
    key_problems: BTreeMap<String, Problem>,
    /// CSRs of held keys that the controller may want.
    csrs: BTreeMap<String, Vec<u8>>,
    csr_sent: BTreeSet<String>,
    /// The keys that the report under way names as held.
    keys_told: Vec<String>,
    serving: BTreeSet<String>,
    challenge_problems: BTreeMap<String, Problem>,
    pull: Duty,
    pull_at: Instant,
    report: Duty,
    /// Showing a restored controller what is held.
    show: Duty,
    challenges: Duty,
    rehearsals: Rehearsals,
    looks: Looks,
}

impl Reconciler {
    /// Loads what the ledger remembers and removes what a crash may have left.
    pub(crate) async fn load(
        apply: Handle,
        ledger: Ledger,
        host: Arc<dyn Host>,
        clock: Arc<dyn Clock>,
        link: watch::Receiver<Link>,
        witness: Arc<Witness>,
    ) -> Result<Self, Problem> {
        let loaded = ledger.recover().await?;
        let keys_held = apply.keys_held().await?;
        if let Err(problem) = apply.perform(ApplyRequest::WithdrawTokens { keep: vec![] }).await {
            warn!(reason = problem.reason, cause = problem.cause, "{}", problem.message);
        }
        let (sender, progress) = mpsc::channel(PROGRESS_MAX);
        let deployer = Deployer {
            apply: apply.clone(),
            host: Arc::clone(&host),
            clock: Arc::clone(&clock),
            link: link.clone(),
            progress: sender,
        };
        let outcomes = loaded.outcomes.into_iter().map(|outcome| (outcome.target_id.clone(), outcome)).collect();
        Ok(Self {
            apply: apply.clone(),
            ledger,
            clock,
            witness,
            link,
            link_number: 0,
            deployer: Arc::new(deployer),
            progress,
            listeners: Arc::new(tokio::sync::Mutex::new(Listeners::new(host, apply))),
            work: JoinSet::new(),
            desired: loaded.desired.as_ref().map(Desired::from_wire),
            confirmed: false,
            ignored: None,
            outcomes,
            key_uses: loaded.key_uses,
            save: Duty::default(),
            doing: BTreeMap::new(),
            later: BTreeMap::new(),
            passes: 0,
            reading: BTreeSet::new(),
            retry_at: None,
            keys_held,
            keys_to_sift: true,
            keys_busy: BTreeSet::new(),
            keys_rest: BTreeMap::new(),
            key_failures: BTreeMap::new(),
            key_problems: BTreeMap::new(),
            csrs: BTreeMap::new(),
            csr_sent: BTreeSet::new(),
            keys_told: Vec::new(),
            serving: BTreeSet::new(),
            challenge_problems: BTreeMap::new(),
            pull: Duty::default(),
            pull_at: Instant::now() + PULL,
            report: Duty::default(),
            show: Duty::default(),
            challenges: Duty::default(),
            rehearsals: Rehearsals::new(),
            looks: Looks::new(),
        })
    }

    /// Where to ask for challenges to be served for a while.
    pub(crate) fn rehearsals(&self) -> mpsc::Sender<Rehearsal> {
        self.rehearsals.sender()
    }

    /// Runs until it is stopped.
    ///
    /// # Errors
    /// When a task panicked: a bug; the whole agent starts anew.
    pub(crate) async fn run(mut self, stop: CancellationToken) -> Result<(), Problem> {
        loop {
            self.look().await;
            let wake_at = self.wakes_at();
            // Cancel-safe: every arm is a queue, a watch or a timer.
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                changed = self.link.changed() => {
                    if changed.is_err() {
                        break;
                    }
                    self.see_link();
                }
                Some(progress) = self.progress.recv() => self.see_progress(progress),
                Some(asked) = self.rehearsals.asked() => {
                    if self.rehearsals.begin(asked) {
                        self.want_challenges();
                    }
                }
                Some(done) = self.work.join_next(), if !self.work.is_empty() => {
                    let done = done.map_err(|error| Problem::internal(&format!("a task: {error}")))?;
                    self.see_done(done).await;
                }
                () = sleep_until(wake_at) => {}
            }
            while let Ok(progress) = self.progress.try_recv() {
                self.see_progress(progress);
            }
        }
        self.drain().await;
        Ok(())
    }

    /// Starts everything that is due.
    async fn look(&mut self) {
        let now = Instant::now();
        self.later.retain(|_, until| *until > now);
        self.keys_rest.retain(|_, until| *until > now);
        if now >= self.pull_at {
            self.pull.wanted = true;
        }
        self.start_passes();
        self.start_keys();
        self.start_looks();
        if self.rehearsals.end(now) {
            self.want_challenges();
        }
        if self.challenges.is_due(now) {
            self.challenges.begin();
            let desired = self.desired.as_ref().filter(|_| self.confirmed);
            let mut wanted = desired.map(|desired| desired.challenges.clone()).unwrap_or_default();
            wanted.extend(self.rehearsals.challenges());
            self.work.spawn(serve_challenges(self.apply.clone(), Arc::clone(&self.listeners), wanted));
        }
        self.save_outcomes().await;
        self.remove_keys().await;
        let Some(client) = self.link.borrow().client.clone() else { return };
        if self.pull.is_due(now) {
            self.pull.begin();
            self.pull_at = now + PULL - PULL * u32::from(jitter()) / 255 / 5;
            self.work.spawn(pull(client.clone(), Arc::clone(&self.witness)));
        }
        if self.report.is_due(now) {
            self.report.begin();
            self.keys_told.clone_from(&self.keys_held);
            self.work.spawn(send_report(client.clone(), self.picture()));
        }
        // Not while files are written: what is shown must be what stays.
        if self.show.is_due(now) && self.doing.is_empty() {
            self.show.begin();
            let targets = self.desired.as_ref().map(|desired| desired.targets.clone()).unwrap_or_default();
            let apply = self.apply.clone();
            self.work.spawn(async move { Done::Shown(show(client, apply, targets).await) });
        }
    }

    fn start_passes(&mut self) {
        self.retry_at = None;
        let Some(desired) = &self.desired else { return };
        if self.passes >= PASSES_AT_ONCE {
            return;
        }
        let now = self.clock.now();
        let mut jobs = Vec::new();
        for target in &desired.targets {
            let resting = self.doing.contains_key(&target.id) || self.later.contains_key(&target.id);
            if resting || target.commands().any(|argv| self.reading.contains(argv)) {
                continue;
            }
            let last = self.outcomes.get(&target.id);
            let mut repair = false;
            let (attempt, roll_back) = match next_step(target, last, now) {
                TargetStep::Apply { attempt } | TargetStep::Purge { attempt } => (attempt, None),
                TargetStep::Repair => {
                    repair = true;
                    (1, None)
                }
                TargetStep::RollBack => (last.map_or(1, |last| last.attempt), last.cloned().map(Box::new)),
                TargetStep::Wait(at) => {
                    self.retry_at = Some(self.retry_at.map_or(at, |first| first.min(at)));
                    continue;
                }
                TargetStep::Nothing | TargetStep::Keep => continue,
            };
            let names_before = names_before(desired, target, last);
            let reloads = last.filter(|last| last.wish == target.digest()).map_or(0, |last| last.reloads);
            jobs.push(Job { target: target.clone(), attempt, reloads, names_before, roll_back, repair });
        }
        if jobs.is_empty() {
            return;
        }
        for job in &jobs {
            self.doing.insert(job.target.id.clone(), "writing");
            self.reading.extend(job.target.commands().cloned());
        }
        self.passes += 1;
        let deployer = Arc::clone(&self.deployer);
        self.work.spawn(async move {
            deployer.pass(jobs).await;
            Done::Passed
        });
    }

    /// Makes keys, then offers their CSRs.
    fn start_keys(&mut self) {
        let Some(desired) = &self.desired else { return };
        let client = self.link.borrow().client.clone();
        for slot in &desired.key_slots {
            let resting = self.keys_busy.contains(&slot.id) || self.keys_rest.contains_key(&slot.id);
            if resting || self.keys_busy.len() >= KEYS_AT_ONCE {
                continue;
            }
            let held = self.keys_held.contains(&slot.id);
            let csr = self.csrs.get(&slot.id);
            // A report that left before the key was made must not arrive after its CSR: the key would count as lost.
            let told = !self.report.busy || self.keys_told.contains(&slot.id);
            let csr_wanted = slot.csr_wanted && !self.csr_sent.contains(&slot.id);
            match (key_step(csr_wanted, held, csr.is_some()), csr, &client) {
                (KeyStep::Make, ..) => {
                    self.work.spawn(make_key(self.apply.clone(), slot.clone()));
                }
                (KeyStep::Offer, Some(csr), Some(client)) if told => {
                    self.work.spawn(send_csr(client.clone(), slot.id.clone(), csr.clone()));
                }
                (KeyStep::Keep | KeyStep::Offer, ..) => continue,
            }
            self.keys_busy.insert(slot.id.clone());
        }
    }

    fn see_link(&mut self) {
        let link = self.link.borrow_and_update().clone();
        if link.client.is_none() {
            return;
        }
        if link.number != self.link_number {
            self.link_number = link.number;
            self.later.clear();
            self.keys_rest.clear();
            self.key_failures.clear();
            self.pull.failures = 0;
            self.report.failures = 0;
            // A changed policy makes a new connection: what it refused is looked at again.
            let refused = |outcome: &&mut Outcome| {
                outcome.problem.as_ref().is_some_and(|problem| problem.reason.starts_with("POLICY_"))
            };
            for outcome in self.outcomes.values_mut().filter(refused) {
                outcome.retry_at = None;
            }
            self.challenges.wanted |= self.confirmed;
            self.want_pull();
            self.want_report();
        }
        if link.announced.is_some() && link.announced.as_ref() != self.desired.as_ref().map(|desired| &desired.name) {
            self.want_pull();
        }
    }

    fn see_progress(&mut self, progress: Progress) {
        let (target_id, change) = match progress {
            Progress::Read(commands) => {
                self.reading.retain(|argv| !commands.contains(argv));
                return;
            }
            Progress::Target { target_id, change } => (target_id, change),
        };
        match change {
            Change::Doing(what) => {
                self.doing.insert(target_id, what);
            }
            Change::Later => {
                self.doing.remove(&target_id);
                self.later.insert(target_id, Instant::now() + CALL_RETRY * 6);
            }
            Change::Done(mut outcome) => {
                outcome.drift = Drift::after(self.outcomes.get(&target_id), &outcome);
                self.looks.is_stale = true;
                self.doing.remove(&target_id);
                info!(target_id = outcome.target_id, status = ?outcome.status, attempt = outcome.attempt, "target done");
                self.key_uses.entry(target_id.clone()).or_default().record(&outcome);
                self.outcomes.insert(target_id, *outcome);
                self.save.wanted = true;
                self.keys_to_sift = true;
            }
        }
        self.want_report();
    }

    async fn see_done(&mut self, done: Done) {
        match done {
            Done::Looked(found) => self.see_found(found),
            Done::Changed { request, dirs } => self.see_changed(request, dirs),
            Done::Passed => self.passes = self.passes.saturating_sub(1),
            Done::Reported(Ok(response)) => {
                self.report.succeed();
                self.show.wanted |= response.show_held && !self.show.busy;
            }
            Done::Shown(Ok(())) => {
                info!("showed the restored controller what is held");
                self.show.succeed();
            }
            Done::Shown(Err(status)) => {
                warn!(reason = refusal(&status).reason, "what is held was not shown to the end");
                self.show.back_off();
            }
            Done::Reported(Err(status)) => {
                warn!(code = ?status.code(), "report not taken");
                self.report.back_off();
            }
            Done::Pulled(Ok(response)) => {
                self.pull.busy = false;
                match self.take(response).await {
                    Ok(()) => self.pull.succeed(),
                    Err(problem) => {
                        let Problem { reason, message, cause, hint } = problem;
                        warn!(reason, cause, hint, "{message}");
                        self.pull.back_off();
                    }
                }
            }
            Done::Pulled(Err(status)) => {
                let reason = refusal(&status).reason;
                warn!(reason, "desired state not pulled");
                self.pull.back_off();
                // A restored controller wants to see what is held, before it tells anything.
                if RESTORED.contains(&reason.as_str()) && !self.show.wanted && !self.show.busy {
                    self.want_report();
                }
            }
            Done::Made { id, csr_der } => self.see_key(id, csr_der).await,
            Done::Sent { id, taken } => {
                self.keys_busy.remove(&id);
                match taken {
                    Ok(()) => {
                        self.key_failures.remove(&id);
                        self.csr_sent.insert(id);
                    }
                    // Nobody looked at the CSR: no problem of the key, and told to nobody.
                    Err(status) if is_transient(&status) => {
                        warn!(key_slot_id = id, code = ?status.code(), "CSR not taken");
                        self.rest_key(id);
                    }
                    Err(status) => self.see_key_problem(id, refusal(&status)),
                }
            }
            Done::Served { serving, problems } => {
                self.challenges.busy = false;
                // What became desired meanwhile does not wait for what failed.
                if !problems.is_empty() && !self.challenges.wanted {
                    self.challenges.retry(CHALLENGE_RETRY);
                }
                if (&serving, &problems) != (&self.serving, &self.challenge_problems) {
                    self.want_report();
                }
                self.rehearsals.tell(&serving, &problems);
                self.serving = serving;
                self.challenge_problems = problems;
            }
        }
    }

    fn see_key_problem(&mut self, id: String, problem: Problem) {
        warn!(key_slot_id = id, reason = problem.reason, cause = problem.cause, "{}", problem.message);
        self.rest_key(id.clone());
        if self.key_problems.insert(id, problem.clone()).as_ref() != Some(&problem) {
            self.want_report();
        }
    }

    fn rest_key(&mut self, id: String) {
        let failures = self.key_failures.entry(id.clone()).or_default();
        *failures = failures.saturating_add(1);
        self.keys_rest.insert(id, Instant::now() + rest_after(KEY_RETRY, *failures, jitter()));
    }

    async fn see_key(&mut self, id: String, csr_der: Result<Vec<u8>, Problem>) {
        self.keys_busy.remove(&id);
        match csr_der {
            Ok(csr_der) => {
                self.key_problems.remove(&id);
                self.csrs.insert(id, csr_der);
                self.want_report();
            }
            Err(problem) => self.see_key_problem(id, problem),
        }
        self.see_keys_held().await;
    }

    /// Looks which keys are on the disk: one may be gone without our doing.
    async fn see_keys_held(&mut self) {
        match self.apply.keys_held().await {
            Ok(held) if held == self.keys_held => {}
            Ok(held) => {
                self.keys_held = held;
                self.csrs.retain(|id, _| self.keys_held.contains(id));
                self.want_report();
            }
            Err(problem) => warn!(reason = problem.reason, cause = problem.cause, "{}", problem.message),
        }
    }

    /// Takes an offered desired state: judged, on the disk, and only then acted on.
    async fn take(&mut self, response: wire::GetDesiredResponse) -> Result<(), Problem> {
        let offered: StateName = response.name.clone().unwrap_or_default().into();
        match judge(self.desired.as_ref().map(|desired| &desired.name), &offered) {
            Offer::Same => {}
            Offer::Older => {
                warn!(epoch = offered.epoch, generation = offered.generation, "older desired state ignored");
                self.ignored = Some(offered);
                self.want_report();
                return Ok(());
            }
            Offer::Newer => {
                let targets = response.targets.iter().map(|target| target.target_id.clone());
                let targets = targets.filter(|id| is_item_id(id)).collect();
                self.ledger.save_desired(response.clone()).await?;
                self.apply.perform(ApplyRequest::Targets(targets)).await?;
                info!(epoch = offered.epoch, generation = offered.generation, "desired state taken");
                self.hold(Desired::from_wire(&response));
            }
        }
        if !self.confirmed {
            self.confirmed = true;
            self.challenges.wanted = true;
        }
        self.see_keys_held().await;
        let announced = self.link.borrow().announced.clone();
        if announced.is_none_or(|announced| announced == offered) {
            self.pull.wanted = false;
        }
        Ok(())
    }

    fn hold(&mut self, desired: Desired) {
        self.ignored = None;
        self.csr_sent.clear();
        self.keys_rest.clear();
        self.key_failures.clear();
        let slots: BTreeSet<&String> = desired.key_slots.iter().map(|slot| &slot.id).collect();
        self.key_problems.retain(|id, _| slots.contains(id));
        self.csrs.retain(|id, _| slots.contains(id));
        let targets: BTreeSet<&String> = desired.targets.iter().map(|target| &target.id).collect();
        let refused: BTreeSet<&String> = desired.refused.targets.iter().map(|(id, ..)| id).collect();
        let count = self.outcomes.len();
        self.outcomes.retain(|id, _| targets.contains(id) || refused.contains(id));
        self.save.wanted |= self.outcomes.len() != count;
        self.desired = Some(desired);
        self.looks.is_stale = true;
        self.keys_to_sift = true;
        self.want_challenges();
        self.want_report();
    }

    async fn save_outcomes(&mut self) {
        if !self.save.is_due(Instant::now()) {
            return;
        }
        self.save.begin();
        let outcomes = self.outcomes.values().cloned().collect();
        match self.ledger.save_outcomes(outcomes, self.key_uses.clone()).await {
            Ok(()) => self.save.succeed(),
            // An outcome that a restart forgets costs one more reload and the names written before; a use keeps a key.
            Err(problem) => {
                warn!(reason = problem.reason, cause = problem.cause, hint = problem.hint, "{}", problem.message);
                self.save.back_off();
            }
        }
    }

    /// Deletes the keys that nobody needs. Only while the state held here is the one the controller holds, and nothing
    /// is under way that may read a key of an older one; the loop waits, so neither can begin meanwhile.
    async fn remove_keys(&mut self) {
        let agreed = self.confirmed && self.ignored.is_none() && !self.pull.wanted && !self.pull.busy;
        let idle = self.doing.is_empty() && self.keys_busy.is_empty();
        let Some(desired) = self.desired.as_ref().filter(|_| self.keys_to_sift && agreed && idle) else { return };
        self.keys_to_sift = false;
        let ids = expendable(&self.keys_held, &self.key_uses, &desired.slots_named);
        for id in &ids {
            info!(key_slot_id = id, "key removed: later versions took its place");
        }
        // Also with nothing to remove: it clears what a crash left.
        if let Err(problem) = self.apply.perform(ApplyRequest::RemoveKeys(ids)).await {
            warn!(reason = problem.reason, cause = problem.cause, hint = problem.hint, "{}", problem.message);
        }
        let before = self.keys_held.len();
        self.see_keys_held().await;
        if self.keys_held.len() != before {
            self.key_uses.values_mut().for_each(|uses| uses.forget(&self.keys_held));
            self.save.wanted = true;
        }
        self.key_uses.retain(|_, uses| !uses.is_empty());
    }

    /// Lets running deployments end, so that a stop does not cut a reload short.
    async fn drain(&mut self) {
        let until = Instant::now() + DRAIN;
        while !self.doing.is_empty() {
            match timeout_at(until, self.progress.recv()).await {
                Ok(Some(progress)) => self.see_progress(progress),
                Ok(None) | Err(_) => break,
            }
        }
        self.save.not_before = None;
        self.save_outcomes().await;
        self.work.shutdown().await;
        if let Err(problem) = self.apply.perform(ApplyRequest::WithdrawTokens { keep: vec![] }).await {
            warn!(reason = problem.reason, cause = problem.cause, "{}", problem.message);
        }
    }

    fn picture(&self) -> wire::ReportRequest {
        let picture = report(&Observed {
            desired: self.desired.as_ref(),
            outcomes: Some(&self.outcomes),
            doing: self.doing.clone(),
            keys_held: self.keys_held.clone(),
            key_problems: self.key_problems.clone(),
            serving: self.serving.clone(),
            challenge_problems: self.challenge_problems.clone(),
            ignored: self.ignored.clone(),
        });
        if is_too_large(&picture) {
            let (targets, tokens) = (picture.targets.len(), picture.challenges.len());
            error!(targets, tokens, "the report is too large for the controller: this server has too many targets");
        }
        picture
    }

    fn want_challenges(&mut self) {
        self.challenges.wanted = true;
        self.challenges.not_before = None;
    }

    fn want_pull(&mut self) {
        self.pull.wanted = true;
        self.pull.not_before = None;
    }

    fn want_report(&mut self) {
        self.report.wanted = true;
        self.report.not_before = None;
    }

    /// Returns when there is something to do again.
    fn wakes_at(&self) -> Instant {
        // A time that was reached since the look is now: it must not be lost.
        let wait = |at| Duration::try_from(self.clock.now().duration_until(at)).unwrap_or_default();
        let retry_at = self.retry_at.map(|at| Instant::now() + wait(at));
        // Without a link there is nobody to pull from or report to: the link itself wakes the loop.
        let linked = self.link.borrow().client.is_some();
        let calls = [&self.pull, &self.report, &self.show].into_iter().filter(|_| linked);
        let duties = calls.chain([&self.challenges, &self.save]).filter_map(Duty::wakes_at);
        let rests = self.later.values().chain(self.keys_rest.values()).copied();
        let pull_at = if self.pull.wanted || self.pull.busy { Instant::now() + PULL } else { self.pull_at };
        let rests = rests.chain(self.rehearsals.wakes_at());
        duties.chain(rests).chain(retry_at).fold(pull_at.min(self.looks.wakes_at()), Instant::min)
    }
}

/// The names that this target wrote earlier in the same directory, but those that another target has taken over: they are
/// no longer this one's to remove.
fn names_before(desired: &Desired, target: &Target, last: Option<&Outcome>) -> Vec<String> {
    let Some(last) = last.filter(|last| last.dir == target.dir) else { return Vec::new() };
    let others = || desired.targets.iter().filter(|other| other.id != target.id && other.dir == target.dir);
    let is_ours = |name: &&String| !others().any(|other| other.names().contains(name));
    last.names.iter().filter(is_ours).cloned().collect()
}

async fn pull(mut client: Client, witness: Arc<Witness>) -> Done {
    let pulled = call(client.get_desired(witness.request())).await;
    if let Ok(answer) = &pulled {
        witness.keep(answer).await;
    }
    Done::Pulled(pulled)
}

async fn send_report(mut client: Client, report: wire::ReportRequest) -> Done {
    Done::Reported(call(client.report(report)).await)
}

async fn make_key(apply: Handle, slot: KeySlot) -> Done {
    let id = slot.id.clone();
    Done::Made { id, csr_der: apply.make_key(slot).await }
}

async fn send_csr(mut client: Client, id: String, csr_der: Vec<u8>) -> Done {
    let request = wire::SubmitCsrRequest { key_slot_id: id.clone(), csr_der };
    let taken = call(client.submit_csr(request)).await.map(drop);
    Done::Sent { id, taken }
}

#[cfg(test)]
mod tests;
