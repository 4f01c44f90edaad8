//! What is new about a job since the last look, as lines for people. Pure; called by `wait`.

use std::collections::BTreeMap;

use jiff::Timestamp;
use proto::clock::from_wire;
use proto::operator::v1::{Certificate, Job, PhaseStep, Target};
use proto::types::v1::Problem;

use crate::client::batch_words;
use crate::output::{safe, safe_lines, target, time};

/// What has been told already.
#[derive(Debug, Default)]
pub(super) struct Progress {
    phase: String,
    steps: BTreeMap<String, String>,
    targets: BTreeMap<String, String>,
    problem: String,
}

impl Progress {
    /// Returns one line per change.
    pub(super) fn news(&mut self, job: &Job, certificate: Option<&Certificate>, now: Timestamp) -> Vec<String> {
        let mut lines = Vec::new();
        let steps = certificate.map(|certificate| own_steps(job, certificate)).unwrap_or_default();
        if steps.is_empty() {
            self.phase(job, &mut lines);
        }
        steps.into_iter().for_each(|step| self.step(step, &mut lines));
        // A target changes only once the job has begun; what it was before is no news.
        for target in certificate.iter().flat_map(|certificate| &certificate.targets) {
            self.target(job, target, &mut lines);
        }
        self.problem(job, now, &mut lines);
        let at = time::clock(now);
        lines.into_iter().map(|line| format!("{at}  {}", line.trim_end())).collect()
    }

    fn phase(&mut self, job: &Job, lines: &mut Vec<String>) {
        let counts = job.batch.as_ref().map(|batch| format!(": {}", batch_words(batch))).unwrap_or_default();
        let phase = format!("{}{counts}", job.phase);
        if self.phase != phase {
            lines.push(safe(&phase));
            self.phase = phase;
        }
    }

    fn step(&mut self, step: &PhaseStep, lines: &mut Vec<String>) {
        if step.state == "todo" || self.steps.get(&step.name) == Some(&step.state) {
            return;
        }
        self.steps.insert(step.name.clone(), step.state.clone());
        let took = if step.state == "done" { time::took(step.took_ms) } else { String::new() };
        let (name, state, detail) = (safe(&step.name), safe(&step.state), safe(&step.detail));
        lines.push(format!("{name:<12} {state:<8} {took:<8} {detail}"));
    }

    fn target(&mut self, job: &Job, target: &Target, lines: &mut Vec<String>) {
        if target.started_at < job.created_at {
            return;
        }
        let status = target::status(target);
        if self.targets.get(&target.id) == Some(&status) {
            return;
        }
        self.targets.insert(target.id.clone(), status.clone());
        let (agent, dir) = target::place(target);
        let error = target.problem.as_ref().map(|problem| format!(": {}", problem.message)).unwrap_or_default();
        lines.push(safe(&format!("{agent} {dir}  {status}{error}")));
        lines.extend(target.problem.iter().flat_map(reasons));
    }

    /// Tells why a job waits, and when it goes on. The problem of an ended job is told by its result.
    fn problem(&mut self, job: &Job, now: Timestamp, lines: &mut Vec<String>) {
        let Some(problem) = job.problem.as_ref().filter(|_| matches!(job.state.as_str(), "running" | "waiting")) else {
            self.problem.clear();
            return;
        };
        let seen = format!("{}\0{}\0{}", problem.message, problem.cause, job.retry_at);
        if self.problem == seen {
            return;
        }
        self.problem = seen;
        lines.push(format!("{}: {}", safe(&job.state), safe(&problem.message)));
        lines.extend(reasons(problem));
        if let Some(at) = from_wire(job.retry_at) {
            lines.push(format!("  next try {} ({})", time::absolute(at), time::relative(now, at)));
        }
    }
}

/// Returns why it happened and what to do.
fn reasons(problem: &Problem) -> Vec<String> {
    let mut lines: Vec<String> = safe_lines(&problem.cause).lines().map(|line| format!("  because: {line}")).collect();
    if !problem.hint.is_empty() {
        lines.push(format!("  try: {}", safe(&problem.hint)));
    }
    lines
}

/// Returns the steps of the order that belongs to this job; those of an earlier order are history.
fn own_steps<'a>(job: &Job, certificate: &'a Certificate) -> Vec<&'a PhaseStep> {
    let order = certificate.order.iter().filter(|order| order.started_at >= job.created_at);
    order.flat_map(|order| &order.phases).collect()
}
