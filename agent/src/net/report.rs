//! PURE: the report of everything the agent observes, always the whole picture (agent.proto `ReportRequest`), kept
//! below the size that the controller takes.

use std::collections::{BTreeMap, BTreeSet};

use prost::Message as _;
use proto::agent::v1 as wire;
use proto::clock::to_wire;
use proto::text::{many_lines, one_line};
use proto::types::v1 as types;

use crate::plan::drift::{Drift, told};
use crate::plan::{Outcome, Step};
use crate::problem::Problem;
use crate::target::{Desired, StateName, Target};

/// The controller refuses more than 256 KiB (reliability.md NT10).
const REPORT_BYTES_MAX: usize = 200 * 1024;

/// What the agent observes.
#[derive(Debug, Default)]
pub(crate) struct Observed<'a> {
    pub(crate) desired: Option<&'a Desired>,
    pub(crate) outcomes: Option<&'a BTreeMap<String, Outcome>>,
    /// What is under way: target id → "writing", "reloading", "verifying".
    pub(crate) doing: BTreeMap<String, &'static str>,
    pub(crate) keys_held: Vec<String>,
    pub(crate) key_problems: BTreeMap<String, Problem>,
    pub(crate) serving: BTreeSet<String>,
    pub(crate) challenge_problems: BTreeMap<String, Problem>,
    pub(crate) ignored: Option<StateName>,
}

/// Makes the report.
pub(crate) fn report(observed: &Observed<'_>) -> wire::ReportRequest {
    let empty = Desired::default();
    let desired = observed.desired.unwrap_or(&empty);
    let targets = desired.targets.iter().map(|target| target_report(observed, target));
    let refused = desired.refused.targets.iter().map(|(id, version, wish, problem)| wire::TargetReport {
        target_id: id.clone(),
        version_id: version.clone(),
        deploy_wish: *wish,
        status: types::TargetStatus::Failed.into(),
        problem: Some(problem.clone().into()),
        ..wire::TargetReport::default()
    });
    let key_problem = |(id, problem): (&String, &Problem)| wire::KeyProblem {
        key_slot_id: id.clone(),
        problem: Some(problem.clone().into()),
    };
    let mut report = wire::ReportRequest {
        name: observed.desired.map(|desired| desired.name.clone().into()),
        targets: targets.chain(refused).collect(),
        challenges: challenges(observed, desired),
        key_slots_held: observed.keys_held.clone(),
        key_problems: observed
            .key_problems
            .iter()
            .map(key_problem)
            .chain(desired.refused.key_slots.iter().map(|(id, problem)| key_problem((id, problem))))
            .collect(),
        ignored: observed.ignored.clone().map(Into::into),
    };
    shrink(&mut report);
    report
}

fn target_report(observed: &Observed<'_>, target: &Target) -> wire::TargetReport {
    let doing = observed.doing.get(&target.id).copied().unwrap_or_default().to_owned();
    let last = observed.outcomes.and_then(|outcomes| outcomes.get(&target.id));
    let Some(last) = last.filter(|last| last.wish == target.digest()) else {
        // A wish that was not tried yet says nothing of the last one.
        return wire::TargetReport {
            target_id: target.id.clone(),
            version_id: target.version.as_ref().map(|version| version.id.clone()).unwrap_or_default(),
            deploy_wish: target.deploy_wish,
            status: types::TargetStatus::Pending.into(),
            doing,
            ..wire::TargetReport::default()
        };
    };
    let (status, problem) = match told(target, last) {
        Some((status, problem)) => (status, Some(problem)),
        None => (last.status.into(), last.problem.clone()),
    };
    wire::TargetReport {
        target_id: target.id.clone(),
        version_id: last.version_id.clone(),
        deploy_wish: last.deploy_wish,
        status: status.into(),
        served_fingerprint_sha256: last.served_fingerprint_sha256.map(|bytes| bytes.to_vec()).unwrap_or_default(),
        problem: problem.map(Into::into),
        steps: last.steps.iter().map(step_report).collect(),
        started_at: to_wire(Some(last.started_at)),
        finished_at: to_wire(Some(last.finished_at)),
        retry_at: to_wire(last.retry_at),
        attempt: last.attempt,
        purged: last.purged,
        doing,
        drift: last.drift.as_ref().map(drift_report),
    }
}

fn drift_report(drift: &Drift) -> types::Drift {
    types::Drift {
        differences: drift.differences.iter().map(|difference| difference.line.clone()).collect(),
        seen_at: to_wire(Some(drift.seen_at)),
        ended_at: to_wire(drift.ended_at),
        times: drift.times,
        repairs: drift.repairs,
    }
}

fn step_report(step: &Step) -> types::StepReport {
    types::StepReport {
        name: step.name.clone(),
        subject: step.subject.clone(),
        ok: step.ok,
        exit_status: step.exit_status,
        output: step.output.clone(),
        took_ms: step.took_ms,
    }
}

fn challenges(observed: &Observed<'_>, desired: &Desired) -> Vec<wire::ChallengeReport> {
    let mut tokens: BTreeSet<&String> = desired.challenges.iter().map(|challenge| &challenge.token).collect();
    let refused: BTreeMap<&String, &Problem> =
        desired.refused.challenges.iter().map(|(token, problem)| (token, problem)).collect();
    tokens.extend(refused.keys());
    let report = |token: &String| {
        let problem = observed.challenge_problems.get(token).or_else(|| refused.get(token).copied());
        wire::ChallengeReport {
            token: token.clone(),
            serving: problem.is_none() && observed.serving.contains(token),
            problem: problem.cloned().map(Into::into),
        }
    };
    tokens.into_iter().map(report).collect()
}

/// What is given up of a report that is too large, one after the other. Which items there are, their status and the reason
/// of what went wrong always stay.
const STAGES: [fn(&mut wire::ReportRequest); 7] = [
    |report| steps(report).filter(|step| step.ok).for_each(|step| step.output.clear()),
    |report| steps(report).for_each(|step| step.output = many_lines(&step.output, 200)),
    |report| report.targets.iter_mut().for_each(|target| target.steps.clear()),
    |report| {
        report.targets.iter_mut().filter_map(|target| target.drift.as_mut()).for_each(|drift| drift.differences.clear())
    },
    |report| {
        for problem in problems(report) {
            [&mut problem.message, &mut problem.cause, &mut problem.hint].into_iter().for_each(shorten);
        }
    },
    |report| {
        for problem in problems(report) {
            [&mut problem.cause, &mut problem.hint].into_iter().for_each(String::clear);
        }
    },
    |report| {
        problems(report).for_each(|problem| problem.message.clear());
        for target in &mut report.targets {
            target.served_fingerprint_sha256.clear();
            target.drift = None;
            (target.started_at, target.finished_at) = (0, 0);
        }
    },
];

fn shrink(report: &mut wire::ReportRequest) {
    for stage in STAGES {
        if !is_too_large(report) {
            return;
        }
        stage(report);
    }
}

/// Whether the controller will refuse it: only when thousands of items are left.
pub(crate) fn is_too_large(report: &wire::ReportRequest) -> bool {
    report.encoded_len() > REPORT_BYTES_MAX
}

fn steps(report: &mut wire::ReportRequest) -> impl Iterator<Item = &mut types::StepReport> {
    report.targets.iter_mut().flat_map(|target| &mut target.steps)
}

fn problems(report: &mut wire::ReportRequest) -> impl Iterator<Item = &mut types::Problem> {
    let of_targets = report.targets.iter_mut().filter_map(|target| target.problem.as_mut());
    let of_challenges = report.challenges.iter_mut().filter_map(|challenge| challenge.problem.as_mut());
    let of_keys = report.key_problems.iter_mut().filter_map(|key| key.problem.as_mut());
    of_targets.chain(of_challenges).chain(of_keys)
}

fn shorten(text: &mut String) {
    *text = one_line(text, 80);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::target::{Challenge, Place};

    #[test]
    fn a_token_is_served_only_without_a_problem() {
        let challenge = |token: &str| Challenge {
            token: token.into(),
            key_authorization: format!("{token}.t"),
            identifier: "a.test".into(),
            place: Place::Standalone(80),
        };
        let mut desired = Desired { challenges: vec![challenge("a"), challenge("b")], ..Desired::default() };
        desired.refused.challenges.push(("c".into(), Problem::internal("x")));
        let observed = Observed {
            desired: Some(&desired),
            serving: BTreeSet::from(["a".to_owned()]),
            challenge_problems: BTreeMap::from([("b".to_owned(), Problem::internal("y"))]),
            ..Observed::default()
        };
        let report = report(&observed);
        let serving: Vec<(&str, bool, bool)> =
            report.challenges.iter().map(|item| (item.token.as_str(), item.serving, item.problem.is_some())).collect();
        assert_eq!(serving, [("a", true, false), ("b", false, true), ("c", false, true)]);
    }

    #[test]
    fn a_report_stays_below_the_limit() {
        let step = types::StepReport { output: "x".repeat(4096), ok: false, ..types::StepReport::default() };
        let target = wire::TargetReport { steps: vec![step; 4], ..wire::TargetReport::default() };
        let mut report = wire::ReportRequest { targets: vec![target; 100], ..wire::ReportRequest::default() };
        shrink(&mut report);
        assert!(report.encoded_len() <= REPORT_BYTES_MAX);
        assert_eq!(report.targets.len(), 100);
        assert_eq!(report.targets[0].steps.len(), 4);
    }

    /// So many targets that all fail for a reason of the longest kind.
    fn all_failing(targets: usize) -> wire::ReportRequest {
        let long = "\u{20ac}".repeat(500);
        let problem = Some(Problem::new("POLICY_INVALID", &long, &long, &long).into());
        let at = to_wire(Some(jiff::Timestamp::from_second(1_800_000_000).unwrap()));
        let target = wire::TargetReport {
            target_id: "01jd5mz0v3x8y6q2k4t7w9b1nc".into(),
            version_id: "01jd5mz0v3x8y6q2k4t7w9b1nc".into(),
            deploy_wish: 3,
            status: types::TargetStatus::Failed.into(),
            served_fingerprint_sha256: vec![7; 32],
            problem: problem.clone(),
            started_at: at,
            finished_at: at,
            retry_at: at,
            attempt: 30,
            ..wire::TargetReport::default()
        };
        let key_problem = wire::KeyProblem { key_slot_id: "slot-1".into(), problem: problem.clone() };
        let challenge = wire::ChallengeReport { token: "t".into(), serving: false, problem };
        wire::ReportRequest {
            targets: vec![target; targets],
            challenges: vec![challenge; 20],
            key_slots_held: vec!["slot-1".into()],
            key_problems: vec![key_problem; 20],
            ..wire::ReportRequest::default()
        }
    }

    #[test]
    fn a_report_fits_also_when_every_target_of_a_large_server_fails() {
        for targets in [100, 300, 600, 1_200, 2_000] {
            let mut report = all_failing(targets);
            shrink(&mut report);
            assert!(!is_too_large(&report), "{targets}: {} bytes", report.encoded_len());
            assert_eq!((report.targets.len(), report.challenges.len(), report.key_problems.len()), (targets, 20, 20));
            assert!(report.targets.iter().all(|target| target.status() == types::TargetStatus::Failed));
            assert!(problems(&mut report).all(|problem| problem.reason == "POLICY_INVALID"));
        }
    }

    #[test]
    fn a_report_gives_up_no_more_than_it_must() {
        let mut report = all_failing(100);
        shrink(&mut report);
        let problem = report.targets[0].problem.as_ref().unwrap();
        assert!(!problem.message.is_empty() && !problem.hint.is_empty(), "{problem:?}");
        let mut report = all_failing(1);
        let whole = report.clone();
        shrink(&mut report);
        assert!(report == whole, "it fits as it is");
    }
}
