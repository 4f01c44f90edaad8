//! Staged rollout (features.md D9): a new version goes to the canary targets first, then to the rest in waves; a stage that does
//! not take it holds the next ones on what they have, and outside its window (`window`) all of them do. Which targets may take the deployed version now is a function of the
//! records, what was observed and the time: nothing else remembers how far a rollout is. Called by `tasks/publish` and views.
//!
//! A target that never answered has nothing to lose and waits for nothing; one that began is never held again. A rollback, a
//! replacement for a revoked version and a purge wait for nothing either. When little is left of the life of what is still
//! served, everything is let go: an outage for sure is worse than one that is feared.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use super::certificate::{Certificate, CurrentVersion};
use super::job::{Progress, State};
use super::problem::Problem;
use super::target::{Status, Target, TargetState};
use super::window::{Window, WindowIs};

/// What is still served is replaced everywhere when such a share of its life is left: the same as ends a rollback.
const LEFT_LAST: i32 = 8;
/// Longest rest between two stages: a certificate that lives for months has days for its rollout.
const REST_MAX_S: u32 = 7 * 86_400;
/// Most failures that an operator can allow; more targets than that no certificate has.
const FAILURES_MAX: u32 = 100;

/// How versions reach the targets of a certificate.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Delivery {
    /// Absent: all at once.
    pub rollout: Option<Rollout>,
    /// What targets held when the current version was issued.
    pub outgoing: Option<Outgoing>,
    /// Id of the version that an operator, or a revocation, lets go everywhere at once.
    pub released: Option<String>,
    /// When targets may begin with a new version; empty: at any time.
    pub windows: Vec<Window>,
    /// Id of the version that an operator asked to have now: it waits for no window.
    pub hurried: Option<String>,
}

/// How a rollout goes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rollout {
    /// Ids of the agents whose targets go first; none: the first wave does.
    pub canaries: Vec<String>,
    /// How many of the rest go together.
    pub wave: Wave,
    /// How many of a wave may be without success when the next one begins; of the canaries none.
    pub failures_max: u32,
    /// How long a stage is looked at after its last success, seconds.
    pub rest_s: u32,
}

/// The size of a wave.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Wave {
    /// So many targets.
    Count(u32),
    /// So many of a hundred, at least one.
    Percent(u32),
}

/// The version before the current one, as far as its end matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outgoing {
    /// Start of validity.
    pub not_before: Timestamp,
    /// End of validity.
    pub not_after: Timestamp,
}

/// Why a target does not take the version yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wait {
    /// The stage before is under way, or is looked at until an instant.
    Stage(Option<Timestamp>),
    /// A stage before failed.
    Stopped,
    /// The window is closed until an instant.
    Window(Timestamp),
}

/// How far a rollout is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// Targets that wait, by id, with why.
    pub waits: BTreeMap<String, Wait>,
    /// Targets that stopped it, by id.
    pub failed: Vec<String>,
    /// When time alone changes this.
    pub look_at: Option<Timestamp>,
}

impl Rollout {
    /// Reads `canary=A,B wave=10|25% failures=1 rest=5m`; each word may be left out. Canaries are the names as written.
    ///
    /// # Errors
    /// A sentence about the word that is none.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut rollout = Self { canaries: Vec::new(), wave: Wave::Percent(100), failures_max: 0, rest_s: 0 };
        for word in text.split_whitespace() {
            let (name, value) = word.split_once('=').unwrap_or((word, ""));
            match name {
                "canary" if !value.is_empty() => {
                    rollout.canaries = value.split(',').filter(|name| !name.is_empty()).map(str::to_owned).collect();
                }
                "wave" => rollout.wave = wave(value).ok_or_else(|| format!("\"{value}\" is no size of a wave"))?,
                "failures" => {
                    let count = value.parse().ok().filter(|count| *count <= FAILURES_MAX);
                    rollout.failures_max = count.ok_or_else(|| format!("\"{value}\" is no number of failures"))?;
                }
                "rest" => rollout.rest_s = seconds(value).ok_or_else(|| format!("\"{value}\" is no time to rest"))?,
                _ => return Err(format!("\"{word}\" is none of canary=, wave=, failures=, rest=")),
            }
        }
        Ok(rollout)
    }

    /// Returns the words that read back as this; `name` tells an agent's name by its id.
    #[must_use]
    pub fn words(&self, name: impl Fn(&str) -> String) -> String {
        let mut words = Vec::new();
        if !self.canaries.is_empty() {
            let names: Vec<String> = self.canaries.iter().map(|id| name(id)).collect();
            words.push(format!("canary={}", names.join(",")));
        }
        words.push(match self.wave {
            Wave::Count(count) => format!("wave={count}"),
            Wave::Percent(share) => format!("wave={share}%"),
        });
        words.push(format!("failures={}", self.failures_max));
        words.push(format!("rest={}s", self.rest_s));
        words.join(" ")
    }

    /// The stages in their order, each with how many of it may be without success.
    fn stages<'a>(&self, known: Vec<&'a Known<'a>>) -> Vec<(Vec<&'a Known<'a>>, usize)> {
        let (canaries, rest): (Vec<_>, Vec<_>) =
            known.into_iter().partition(|(target, _)| self.canaries.contains(&target.agent_id));
        let count = match self.wave {
            Wave::Count(count) => usize::try_from(count).unwrap_or(usize::MAX),
            Wave::Percent(share) => {
                rest.len().saturating_mul(usize::try_from(share).unwrap_or(usize::MAX)).div_ceil(100)
            }
        };
        let allowed = usize::try_from(self.failures_max).unwrap_or(usize::MAX);
        let waves = rest.chunks(count.max(1)).map(|wave| (wave.to_vec(), allowed));
        let first = (!canaries.is_empty()).then_some((canaries, 0));
        first.into_iter().chain(waves).collect()
    }
}

impl Wait {
    /// Returns why, for people.
    #[must_use]
    pub fn words(&self) -> String {
        match self {
            Self::Stage(None) => "for the targets before it in the rollout".to_owned(),
            Self::Stage(Some(_)) => "while the targets before it in the rollout are looked at".to_owned(),
            Self::Stopped => "because a target before it in the rollout did not take the version".to_owned(),
            Self::Window(_) => "for its window".to_owned(),
        }
    }
}

impl Plan {
    /// Returns what stopped the rollout; `name` is the certificate's.
    #[must_use]
    pub fn problem(&self, name: &str) -> Option<Problem> {
        let (failed, waiting) = (self.failed.len(), self.waits.len());
        (failed > 0 && waiting > 0).then(|| {
            let message = format!(
                "the rollout is stopped: {failed} target(s) did not take the new version, {waiting} more keep the one before"
            );
            let hint = format!(
                "correct what certwright targets ls {name} shows: it goes on by itself; or let it go on everywhere: certwright targets deploy {name} --continue"
            );
            Problem::new("ROLLOUT_STOPPED", message, "", hint)
        })
    }

    /// Returns how far a job is: what is stopped waits for someone, or for the next try of what failed; what has a window waits
    /// for that.
    #[must_use]
    pub fn over(&self, progress: Progress, name: &str) -> Progress {
        if progress.state.is_final() || progress.phase != "deploying" {
            return progress;
        }
        let window = self.waits.values().find_map(|wait| match wait {
            Wait::Window(until) => Some(*until),
            Wait::Stage(_) | Wait::Stopped => None,
        });
        match (self.problem(name), window) {
            (Some(problem), _) => {
                Progress { state: State::Waiting, phase: "rollout", retry_at: self.look_at, problem: Some(problem) }
            }
            (None, Some(until)) => {
                Progress { state: State::Waiting, phase: "window", retry_at: Some(until), problem: None }
            }
            (None, None) => progress,
        }
    }
}

impl Outgoing {
    /// Notes what the targets hold when a version is issued: `before`, unless an earlier one did not get out of everywhere.
    #[must_use]
    pub fn of(before: &CurrentVersion, earlier: Option<Self>, targets: &[(Target, Option<TargetState>)]) -> Self {
        let holds = |(_, state): &(Target, Option<TargetState>)| {
            state.as_ref().is_none_or(|state| state.version_id == before.version_id && is_done(state.status))
        };
        let fresh = Self { not_before: before.not_before, not_after: before.not_after };
        earlier.filter(|earlier| earlier.not_after < fresh.not_after && !targets.iter().all(holds)).unwrap_or(fresh)
    }

    /// Returns when everything is let go.
    #[must_use]
    pub fn until(&self) -> Timestamp {
        let life = self.not_after.duration_since(self.not_before);
        self.not_after.checked_sub(life / LEFT_LAST).unwrap_or(self.not_before)
    }
}

type Known<'a> = (&'a Target, &'a TargetState);

/// Decides which targets may take the deployed version at `now`; `window` says how the windows stand, if there are any.
#[must_use]
pub fn plan<'a>(
    certificate: &Certificate,
    targets: impl IntoIterator<Item = (&'a Target, Option<&'a TargetState>)>,
    window: Option<WindowIs>,
    now: Timestamp,
) -> Plan {
    let delivery = &certificate.delivery;
    if delivery.rollout.is_none() && window.is_none() {
        return Plan::default();
    }
    let Some(version) = certificate.deployed().filter(|_| certificate.rollback.is_none() && !certificate.purging)
    else {
        return Plan::default();
    };
    let id = version.version_id.as_str();
    let last = delivery.outgoing.map(|outgoing| outgoing.until());
    if delivery.released.as_deref() == Some(id) || last.is_some_and(|last| last <= now) {
        return Plan::default();
    }
    let known: Vec<Known<'_>> = targets.into_iter().filter_map(|(target, state)| Some((target, state?))).collect();
    let window = window.filter(|_| delivery.hurried.as_deref() != Some(id));
    if let Some(WindowIs::Closed(until)) = window {
        return outside(&known, id, until, last);
    }
    let mut plan = delivery.rollout.as_ref().map_or_else(Plan::default, |rollout| staged(rollout, &known, id, now));
    let last = last.filter(|_| !plan.waits.is_empty());
    // Who has not begun when it closes waits for the next one.
    let is_open = |(target, state): &Known<'_>| !is_done(target.status(Some(state), Some(id)));
    let closes_at = match window {
        Some(WindowIs::Open(until)) if known.iter().any(is_open) => Some(until),
        Some(WindowIs::Open(_) | WindowIs::Closed(_)) | None => None,
    };
    plan.look_at = plan.look_at.into_iter().chain(last).chain(closes_at).min();
    plan
}

/// Outside the window nothing begins, and a version that made room for the one before is not tried again: each attempt disturbs
/// the service. What has the version, or whose files were left without their proof, goes on.
fn outside(known: &[Known<'_>], version: &str, until: Timestamp, last: Option<Timestamp>) -> Plan {
    let held = |(target, state): &&Known<'_>| {
        let begins = match target.status(Some(state), Some(version)) {
            Status::Pending | Status::Failed | Status::RolledBack => true,
            Status::Applied | Status::Unproven | Status::NotLive | Status::NeedsOperator | Status::Drifted => false,
        };
        begins && target.released.as_deref() != Some(version)
    };
    let waits: BTreeMap<_, _> =
        known.iter().filter(held).map(|(target, _)| (target.id.clone(), Wait::Window(until))).collect();
    let look_at = last.into_iter().chain([until]).min().filter(|_| !waits.is_empty());
    Plan { waits, failed: Vec::new(), look_at }
}

/// Which targets the stages hold.
fn staged(rollout: &Rollout, known: &[Known<'_>], id: &str, now: Timestamp) -> Plan {
    let mut plan = Plan::default();
    let mut closed: Option<Wait> = None;
    for (stage, allowed) in rollout.stages(known.iter().collect()) {
        if let Some(why) = &closed {
            let waiting = stage.iter().filter(|(target, state)| waits(target, state, id));
            plan.waits.extend(waiting.map(|(target, _)| (target.id.clone(), why.clone())));
            continue;
        }
        closed = passed(&stage, allowed, rollout.rest_s, id, now).err();
        if closed == Some(Wait::Stopped) {
            let failed = stage.iter().filter(|(target, state)| is_failed(target.status(Some(state), Some(id))));
            plan.failed = failed.map(|(target, _)| target.id.clone()).collect();
        }
    }
    if plan.waits.is_empty() {
        return Plan::default();
    }
    plan.look_at = plan.waits.values().find_map(|wait| match wait {
        Wait::Stage(until) => *until,
        Wait::Stopped | Wait::Window(_) => None,
    });
    plan
}

/// Whether the next stage may begin; else why not.
fn passed(stage: &[&Known<'_>], allowed: usize, rest_s: u32, version: &str, now: Timestamp) -> Result<(), Wait> {
    let status = |(target, state): &Known<'_>| target.status(Some(state), Some(version));
    let failed = stage.iter().filter(|one| is_failed(status(one))).count();
    if failed > allowed {
        return Err(Wait::Stopped);
    }
    let done: Vec<_> = stage.iter().filter(|one| is_done(status(one))).collect();
    if stage.len() - done.len() > allowed {
        return Err(Wait::Stage(None));
    }
    let last = done.iter().filter_map(|(_, state)| state.finished_at).max();
    let rested = last.and_then(|last| last.checked_add(SignedDuration::from_secs(i64::from(rest_s))).ok());
    match rested.filter(|at| *at > now) {
        Some(at) => Err(Wait::Stage(Some(at))),
        None => Ok(()),
    }
}

/// What began is not held again; what an operator named goes by itself.
fn waits(target: &Target, state: &TargetState, version: &str) -> bool {
    target.released.as_deref() != Some(version) && target.status(Some(state), Some(version)) == Status::Pending
}

fn is_done(status: Status) -> bool {
    matches!(status, Status::Applied | Status::Unproven | Status::Drifted)
}

fn is_failed(status: Status) -> bool {
    matches!(status, Status::NotLive | Status::RolledBack | Status::Failed | Status::NeedsOperator)
}

fn wave(text: &str) -> Option<Wave> {
    match text.strip_suffix('%') {
        Some(share) => share.parse().ok().filter(|share| (1..=100).contains(share)).map(Wave::Percent),
        None => text.parse().ok().filter(|count| (1..=FAILURES_MAX).contains(count)).map(Wave::Count),
    }
}

fn seconds(text: &str) -> Option<u32> {
    let unit = text.chars().next_back()?;
    let factor = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3_600,
        'd' => 86_400,
        _ => return None,
    };
    let count: u32 = text.strip_suffix(unit)?.parse().ok()?;
    count.checked_mul(factor).filter(|seconds| *seconds <= REST_MAX_S)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lifecycle::renewal::tests::certificate;
    use crate::lifecycle::rollback::Rollback;

    const HOUR: SignedDuration = SignedDuration::from_hours(1);

    /// Ten targets on agents a0 to a9, with their statuses; a blank is one that never answered.
    fn targets(statuses: &str, at: Timestamp) -> Vec<(Target, Option<TargetState>)> {
        let one = |(index, word): (usize, char)| {
            let target = Target {
                id: format!("t{index}"),
                certificate_id: "c".into(),
                agent_id: format!("a{index}"),
                dir: "/etc/x".into(),
                files: vec![],
                validate: vec![],
                reload: vec![],
                verify: vec![],
                deploy_wish: 0,
                on_drift: crate::lifecycle::target::OnDrift::Repair,
                released: None,
            };
            let (version_id, status) = match word {
                'a' => ("v", Status::Applied),
                'u' => ("v", Status::Unproven),
                'f' => ("v", Status::Failed),
                'r' => ("v", Status::RolledBack),
                _ => ("before", Status::Applied),
            };
            let state = TargetState {
                certificate_id: "c".into(),
                target_id: target.id.clone(),
                version_id: version_id.into(),
                deploy_wish: 0,
                status,
                served_fingerprint_sha256: String::new(),
                problem: None,
                steps: vec![],
                started_at: None,
                finished_at: Some(at),
                retry_at: None,
                attempt: 1,
                drift: None,
                purged: false,
            };
            (target, Some(state).filter(|_| word != ' '))
        };
        statuses.chars().enumerate().map(one).collect()
    }

    fn plan_of(one: &Certificate, targets: &[(Target, Option<TargetState>)], now: Timestamp) -> Plan {
        plan(one, targets.iter().map(|(target, state)| (target, state.as_ref())), None, now)
    }

    fn rolled(words: &str) -> Certificate {
        let mut one = certificate(80 * 24);
        one.delivery.rollout = Some(Rollout::parse(words).unwrap());
        one
    }

    /// The numbers of the targets that may go, and whether it is stopped.
    fn open(words: &str, statuses: &str) -> (String, bool) {
        let one = rolled(words);
        let at = one.created_at;
        let plan = plan_of(&one, &targets(statuses, at), at + HOUR);
        let free = (0..statuses.len()).filter(|index| !plan.waits.contains_key(&format!("t{index}")));
        (free.map(|index| index.to_string()).collect(), !plan.failed.is_empty())
    }

    #[test]
    fn canaries_go_first_then_the_rest_in_waves() {
        let check = |statuses: &str, free: &str, stopped| {
            assert_eq!(open("canary=a1 wave=40% failures=1", statuses), (free.to_owned(), stopped), "{statuses:?}");
        };
        check("......", "1", false);
        check(".a....", "012", false);
        check(".u....", "012", false);
        check("aa....", "01234", false);
        check("aaaa..", "012345", false);
        check(".r....", "1", true);
        check("fa....", "012", false);
        check("fafa..", "0123", true);
        check("faaa..", "012345", false);
        check("faf...", "012", true);
        check("aaaaaa", "012345", false);
    }

    #[test]
    fn without_a_canary_the_first_wave_is_one_and_count_is_a_size() {
        assert_eq!(open("wave=2", "....").0, "01");
        assert_eq!(open("wave=2", "aa..").0, "0123");
        assert_eq!(open("wave=1%", "...").0, "0", "at least one");
        assert_eq!(open("", "...").0, "012", "all at once");
        assert_eq!(open("canary=a2", "...").0, "2");
    }

    #[test]
    fn what_never_answered_has_nothing_to_lose_and_what_began_is_not_held_again() {
        assert_eq!(open("wave=1", "    ").0, "0123", "the first version goes everywhere");
        assert_eq!(open("wave=1", ". . ").0, "013");
        assert_eq!(open("wave=1", "..a.").0, "02", "it has it already");
    }

    #[test]
    fn a_stage_is_looked_at_before_the_next_begins() {
        let one = rolled("wave=1 rest=90m");
        let at = one.created_at;
        let states = targets("a..", at);
        let waiting = plan_of(&one, &states, at + HOUR);
        let until = at + SignedDuration::from_mins(90);
        assert_eq!((waiting.waits["t1"].clone(), waiting.look_at), (Wait::Stage(Some(until)), Some(until)));
        let gone = plan_of(&one, &states, until);
        assert!(!gone.waits.contains_key("t1") && gone.waits["t2"] == Wait::Stage(None), "{gone:?}");
    }

    #[test]
    fn an_operator_a_near_expiry_a_rollback_and_a_purge_let_everything_go() {
        let one = rolled("canary=a0");
        let (at, states) = (one.created_at, targets("f..", one.created_at));
        let held =
            |one: &Certificate, states: &[(Target, Option<TargetState>)], now| plan_of(one, states, now).waits.len();
        assert_eq!(held(&one, &states, at), 2);
        let mut free = one.clone();
        free.delivery.released = Some("v".into());
        assert_eq!(held(&free, &states, at), 0);
        free.delivery.released = Some("before".into());
        assert_eq!(held(&free, &states, at), 2, "that was another version");
        let outgoing = Outgoing { not_before: at, not_after: at + HOUR * 80 };
        free.delivery.outgoing = Some(outgoing);
        assert_eq!(outgoing.until(), at + HOUR * 70);
        assert_eq!((held(&free, &states, at), held(&free, &states, at + HOUR * 70)), (2, 0));
        assert_eq!(plan_of(&free, &states, at).look_at, Some(at + HOUR * 70));
        let version = one.current.clone().unwrap();
        free = Certificate { rollback: Some(Rollback { version, at, by: "x".into() }), ..one.clone() };
        assert_eq!(held(&free, &states, at), 0);
        assert_eq!(held(&Certificate { purging: true, ..one.clone() }, &states, at), 0);
        let mut named = states.clone();
        named[1].0.released = Some("v".into());
        assert_eq!(held(&one, &named, at), 1, "one target by its name");
    }

    #[test]
    fn outside_its_window_no_version_begins_and_none_that_failed_is_tried_again() {
        let mut one = certificate(80 * 24);
        let (at, until) = (one.created_at, one.created_at + HOUR * 5);
        let mut states = targets("afr. .", at);
        // A changed target that has the version already.
        states[5].0.released = Some("v".into());
        let held = |one: &Certificate, window, now| {
            let plan = plan(one, states.iter().map(|(target, state)| (target, state.as_ref())), window, now);
            assert!(plan.waits.values().all(|wait| *wait == Wait::Window(until)));
            (plan.waits.keys().cloned().collect::<Vec<_>>().join(" "), plan.look_at)
        };
        let closed = Some(WindowIs::Closed(until));
        assert_eq!(held(&one, closed, at), ("t1 t2 t3".to_owned(), Some(until)));
        assert_eq!(
            held(&one, Some(WindowIs::Open(until)), at),
            (String::new(), Some(until)),
            "looked at when it closes"
        );
        assert_eq!(held(&one, None, at), (String::new(), None));
        one.delivery.hurried = Some("v".into());
        assert_eq!(held(&one, closed, at), (String::new(), None), "an operator waits for no window");
        one.delivery.hurried = Some("before".into());
        assert_eq!(held(&one, closed, at).0, "t1 t2 t3");
        one.delivery.released = Some("v".into());
        assert_eq!(held(&one, closed, at).0, "", "nor what replaces a revoked one");
        one.delivery.released = None;
        one.delivery.outgoing = Some(Outgoing { not_before: at, not_after: at + HOUR * 8 });
        assert_eq!(held(&one, closed, at + HOUR * 6), ("t1 t2 t3".to_owned(), Some(until)));
        assert_eq!(held(&one, closed, at + HOUR * 7).0, "", "nor what is near its end");
        one.delivery.outgoing = None;
        let version = one.current.clone().unwrap();
        one.rollback = Some(Rollback { version, at, by: "x".into() });
        assert_eq!(held(&one, closed, at).0, "", "nor a rollback");
        one.back_to_current();
        assert_eq!(held(&one, closed, at).0, "", "nor its end");
    }

    #[test]
    fn waves_begin_only_within_the_window() {
        let one = rolled("wave=1");
        let (at, until) = (one.created_at, one.created_at + HOUR);
        let states = targets("a..", at);
        let of = |window| {
            let plan = plan(&one, states.iter().map(|(target, state)| (target, state.as_ref())), Some(window), at);
            (plan.waits.into_iter().collect::<Vec<_>>(), plan.look_at)
        };
        let named = |id: &str, wait| (id.to_owned(), wait);
        assert_eq!(of(WindowIs::Open(until)), (vec![named("t2", Wait::Stage(None))], Some(until)));
        let closed = Wait::Window(until);
        assert_eq!(of(WindowIs::Closed(until)).0, [named("t1", closed.clone()), named("t2", closed)]);
    }

    #[test]
    fn a_job_says_that_it_waits_for_a_window() {
        let until = certificate(80).created_at;
        let waits = [("t1".to_owned(), Wait::Window(until))].into();
        let plan = Plan { waits, ..Plan::default() };
        let of = |phase| Progress { state: State::Running, phase, retry_at: None, problem: None };
        let over = plan.over(of("deploying"), "web");
        assert_eq!((over.state, over.phase, over.retry_at), (State::Waiting, "window", Some(until)));
        assert_eq!(plan.over(of("validating"), "web"), of("validating"));
    }

    #[test]
    fn a_version_that_did_not_get_out_everywhere_counts_until_it_did() {
        let version = certificate(80).current.unwrap();
        let at = version.not_before;
        let fresh = Outgoing { not_before: at, not_after: version.not_after };
        let older = Outgoing { not_before: at - HOUR, not_after: at + HOUR };
        assert_eq!(Outgoing::of(&version, Some(older), &targets("aa", at)), fresh);
        assert_eq!(Outgoing::of(&version, Some(older), &targets("a.", at)), older);
        assert_eq!(Outgoing::of(&version, Some(older), &targets("af", at)), older);
        assert_eq!(Outgoing::of(&version, None, &targets("a.", at)), fresh);
    }

    #[test]
    fn the_words_of_a_rollout_read_back() {
        let text = "canary=h1,h2 wave=25% failures=1 rest=300s";
        assert_eq!(Rollout::parse(text).unwrap().words(str::to_owned), text);
        assert_eq!(Rollout::parse("rest=5m wave=3").unwrap().words(str::to_owned), "wave=3 failures=0 rest=300s");
        for wrong in
            ["wave=0", "wave=101%", "wave=x", "rest=5", "rest=8d", "rest=-1s", "failures=x", "canary=", "x=1", "off"]
        {
            assert!(Rollout::parse(wrong).is_err(), "{wrong}");
        }
    }
}
