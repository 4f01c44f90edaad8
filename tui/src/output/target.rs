//! Targets: where a certificate is deployed and how that went.

use jiff::Timestamp;
use proto::clock::from_wire;
use proto::operator::v1::{Target, TargetSpec};
use proto::types::v1::{Drift, Endpoint, FileSpec, StepReport, TargetStatus};
use serde::Serialize;

use super::block::Block;
use super::failure::ProblemView;
use super::table::Table;
use super::{each, safe, safe_lines, some, time};
use crate::client::{file_content, on_drift, target_lines, target_status};

/// A target in JSON.
#[derive(Debug, Serialize)]
pub(crate) struct TargetView {
    id: String,
    agent: String,
    agent_status: Option<String>,
    dir: String,
    files: Vec<FileView>,
    validate: Vec<Vec<String>>,
    reload: Vec<Vec<String>>,
    verify: Vec<EndpointView>,
    on_drift: &'static str,
    status: &'static str,
    doing: Option<String>,
    version: Option<String>,
    served_fingerprint_sha256: Option<String>,
    error: Option<ProblemView>,
    drift: Option<DriftView>,
    steps: Vec<StepView>,
    started_at: Option<Timestamp>,
    finished_at: Option<Timestamp>,
    attempt: u32,
    retry_at: Option<Timestamp>,
    waits: Option<String>,
    waits_until: Option<Timestamp>,
}

#[derive(Debug, Serialize)]
struct FileView {
    content: &'static str,
    name: String,
    owner: Option<String>,
    mode: String,
}

#[derive(Debug, Serialize)]
struct EndpointView {
    protocol: &'static str,
    address: String,
    server_name: Option<String>,
}

/// The last time that files were no longer as the agent wrote them.
#[derive(Debug, Serialize)]
struct DriftView {
    differences: Vec<String>,
    seen_at: Option<Timestamp>,
    ended_at: Option<Timestamp>,
    times: u32,
    repairs: u32,
}

#[derive(Debug, Serialize)]
struct StepView {
    name: String,
    subject: String,
    ok: bool,
    exit_status: Option<i32>,
    output: String,
    took_ms: u64,
}

impl From<&Target> for TargetView {
    fn from(target: &Target) -> Self {
        let spec = target.spec.clone().unwrap_or_default();
        Self {
            id: safe(&target.id),
            agent: safe(&spec.agent),
            agent_status: some(&target.agent_status),
            dir: safe(&spec.dir),
            files: spec.files.iter().map(FileView::from).collect(),
            validate: spec.validate.iter().map(|command| each(&command.argv)).collect(),
            reload: spec.reload.iter().map(|command| each(&command.argv)).collect(),
            verify: spec.verify.iter().map(EndpointView::from).collect(),
            on_drift: on_drift(spec.on_drift),
            status: target_status(target.status),
            doing: some(&target.doing),
            version: some(&target.version_id),
            served_fingerprint_sha256: some(&target.served_fingerprint_sha256),
            error: target.problem.as_ref().map(ProblemView::from),
            drift: target.drift.as_ref().map(DriftView::from),
            steps: target.steps.iter().map(StepView::from).collect(),
            started_at: from_wire(target.started_at),
            finished_at: from_wire(target.finished_at),
            attempt: target.attempt,
            retry_at: from_wire(target.retry_at),
            waits: some(&target.waits),
            waits_until: from_wire(target.waits_until),
        }
    }
}

impl From<&FileSpec> for FileView {
    fn from(file: &FileSpec) -> Self {
        Self {
            content: file_content(file.content),
            name: safe(&file.name),
            owner: some(&file.owner),
            mode: format!("{:04o}", file.mode),
        }
    }
}

impl From<&Endpoint> for EndpointView {
    fn from(endpoint: &Endpoint) -> Self {
        Self {
            protocol: proto::endpoint::word(endpoint.protocol()),
            address: safe(&endpoint.address),
            server_name: some(&endpoint.server_name),
        }
    }
}

impl From<&Drift> for DriftView {
    fn from(drift: &Drift) -> Self {
        Self {
            differences: each(&drift.differences),
            seen_at: from_wire(drift.seen_at),
            ended_at: from_wire(drift.ended_at),
            times: drift.times,
            repairs: drift.repairs,
        }
    }
}

impl From<&StepReport> for StepView {
    fn from(step: &StepReport) -> Self {
        Self {
            name: safe(&step.name),
            subject: safe(&step.subject),
            ok: step.ok,
            exit_status: step.exit_status,
            output: safe_lines(&step.output),
            took_ms: step.took_ms,
        }
    }
}

#[derive(Serialize)]
struct OwnedView {
    certificate: String,
    #[serde(flatten)]
    target: TargetView,
}

/// Returns targets, each with its certificate's name, as a JSON list.
pub(crate) fn json_list(targets: &[(String, Target)]) -> String {
    let view =
        |(certificate, target): &(String, Target)| OwnedView { certificate: safe(certificate), target: target.into() };
    super::json_list("TargetList", targets.iter().map(view).collect())
}

/// Returns targets, each with its certificate's name, as a table.
pub(crate) fn table(targets: &[(String, Target)], now: Timestamp, wide: bool) -> Table {
    let mut head = vec!["CERTIFICATE", "AGENT", "DIR", "STATUS", "FINISHED", "ERROR"];
    if wide {
        head.extend(["AGENT STATUS", "SERVED", "RETRY", "ID"]);
    }
    let mut table = Table::new(&head);
    for (certificate, target) in targets {
        let (agent, dir) = place(target);
        let error = target.problem.as_ref().map(|problem| problem.message.clone()).unwrap_or_default();
        let mut row =
            vec![certificate.clone(), agent, dir, status(target), time::short(now, target.finished_at), error];
        if wide {
            let served = target.served_fingerprint_sha256.clone();
            row.extend([target.agent_status.clone(), served, time::short(now, target.retry_at), target.id.clone()]);
        }
        table.row(row);
    }
    table
}

/// Adds a target, and what went wrong with it, to a record's block.
pub(crate) fn describe(block: &mut Block, target: &Target, now: Timestamp) {
    let (agent, dir) = place(target);
    let agent_status = match target.agent_status.as_str() {
        "" | "connected" => String::new(),
        other => format!(" (agent {other})"),
    };
    block.line(&format!("{agent}  {dir}  {}{agent_status}", status(target)));
    describe_wait(block, target, now);
    if let Some(spec) = &target.spec {
        settings(block, spec);
    }
    block.problem(target.problem.as_ref());
    if let Some(drift) = target.drift.as_ref().filter(|drift| drift.ended_at != 0) {
        let what = each(&drift.differences).join("; ");
        let times = if drift.repairs == 0 { String::new() } else { format!(", repaired {}", repairs(drift.repairs)) };
        block.below(&format!("drifted {}{times}: {what}", time::both(now, drift.seen_at)));
    }
    for step in target.steps.iter().filter(|step| !step.ok) {
        let exit = step.exit_status.map(|status| format!(", exit status {status}")).unwrap_or_default();
        block.below(&format!("{} {} failed{exit}", step.name, step.subject));
        for line in safe_lines(&step.output).lines() {
            block.below(&format!("  {line}"));
        }
    }
    if from_wire(target.retry_at).is_some() {
        block.below(&format!("next try {}", time::both(now, target.retry_at)));
    }
}

/// Adds why a target keeps what it has although another version is wanted.
pub(crate) fn describe_wait(block: &mut Block, target: &Target, now: Timestamp) {
    if target.waits.is_empty() {
        return;
    }
    let until =
        from_wire(target.waits_until).map(|_| format!(", at most until {}", time::both(now, target.waits_until)));
    block.below(&format!("it keeps the version before and waits {}{}", target.waits, until.unwrap_or_default()));
}

fn settings(block: &mut Block, spec: &TargetSpec) {
    target_lines(spec).iter().for_each(|line| block.below(line));
}

/// Returns how often, in words.
fn repairs(count: u32) -> String {
    if count == 1 { "once".to_owned() } else { format!("{count} times") }
}

/// Returns the agent and the directory of a target.
pub(crate) fn place(target: &Target) -> (String, String) {
    target.spec.as_ref().map_or_else(Default::default, |spec| (spec.agent.clone(), spec.dir.clone()))
}

/// Returns the status of a target, and what its agent does right now.
pub(crate) fn status(target: &Target) -> String {
    // What failed says so.
    let is_held = !target.waits.is_empty() && target.status() == TargetStatus::Pending;
    let word = if is_held { "held" } else { target_status(target.status) };
    if target.doing.is_empty() { word.to_owned() } else { format!("{word} ({})", target.doing) }
}
