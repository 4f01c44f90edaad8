//! Agents: the list, the record, and a fresh enrollment.

use jiff::Timestamp;
use proto::clock::from_wire;
use proto::operator::v1::{Agent, EnrollAgentResponse, PendingEnrollment};
use proto::types::v1::{Policy, PolicyDir};
use serde::Serialize;

use super::block::Block;
use super::failure::ProblemView;
use super::table::Table;
use super::{each, safe, some, time};
use crate::client::{agent_status, custody, target_status};

/// An agent in JSON.
#[derive(Debug, Serialize)]
pub(crate) struct AgentView {
    id: String,
    revision: u64,
    name: String,
    status: String,
    version: Option<String>,
    hostname: Option<String>,
    os: Option<String>,
    features: Vec<String>,
    policy: Option<PolicyView>,
    enrolled_at: Option<Timestamp>,
    last_seen_at: Option<Timestamp>,
    identity_not_after: Option<Timestamp>,
    identity_serial: Option<String>,
    clock_skew_ms: i64,
    targets: Vec<AgentTargetView>,
    generation: u64,
    generation_reported: u64,
    problems: Vec<ProblemView>,
    consent_until: Option<Timestamp>,
    address: Option<String>,
    identity_ca: Option<String>,
    labels: Vec<String>,
}

#[derive(Debug, Serialize)]
struct PolicyView {
    dirs: Vec<PolicyDirView>,
    commands: Vec<Vec<String>>,
    http01_ports: Vec<u32>,
    webroots: Vec<String>,
    custody: Vec<&'static str>,
}

#[derive(Debug, Serialize)]
struct PolicyDirView {
    path: String,
    names: Vec<String>,
    files: Vec<String>,
    owners: Vec<String>,
    key_mode_max: String,
}

#[derive(Debug, Serialize)]
struct AgentTargetView {
    certificate: String,
    dir: String,
    status: &'static str,
}

#[derive(Serialize)]
struct PendingView {
    agent: String,
    expires_at: Option<Timestamp>,
}

#[derive(Serialize)]
struct AgentListView {
    items: Vec<AgentView>,
    total: u64,
    pending: Vec<PendingView>,
}

#[derive(Serialize)]
struct EnrollmentView {
    agent: String,
    token: String,
    command: String,
    expires_at: Option<Timestamp>,
    hint: Option<String>,
}

impl From<&Agent> for AgentView {
    fn from(agent: &Agent) -> Self {
        let targets = agent.targets.iter().map(|target| AgentTargetView {
            certificate: safe(&target.certificate),
            dir: safe(&target.dir),
            status: target_status(target.status),
        });
        Self {
            id: safe(&agent.id),
            revision: agent.revision,
            name: safe(&agent.name),
            status: safe(&agent.status),
            version: some(&agent.version),
            hostname: some(&agent.hostname),
            os: some(&agent.os),
            features: each(&agent.features),
            policy: agent.policy.as_ref().map(PolicyView::from),
            enrolled_at: from_wire(agent.enrolled_at),
            last_seen_at: from_wire(agent.last_seen_at),
            identity_not_after: from_wire(agent.identity_not_after),
            identity_serial: some(&agent.identity_serial),
            clock_skew_ms: agent.clock_skew_ms,
            targets: targets.collect(),
            generation: agent.generation,
            generation_reported: agent.generation_reported,
            problems: agent.problems.iter().map(ProblemView::from).collect(),
            consent_until: from_wire(agent.consent_until),
            address: some(&agent.address),
            identity_ca: some(&agent.identity_ca),
            labels: each(&agent.labels),
        }
    }
}

impl From<&Policy> for PolicyView {
    fn from(policy: &Policy) -> Self {
        Self {
            dirs: policy.dirs.iter().map(PolicyDirView::from).collect(),
            commands: policy.commands.iter().map(|command| each(&command.argv)).collect(),
            http01_ports: policy.http01_ports.clone(),
            webroots: each(&policy.webroots),
            custody: policy.custody.iter().map(|&value| custody(value)).collect(),
        }
    }
}

impl From<&PolicyDir> for PolicyDirView {
    fn from(dir: &PolicyDir) -> Self {
        Self {
            path: safe(&dir.path),
            names: each(&dir.names),
            files: each(&dir.files),
            owners: each(&dir.owners),
            key_mode_max: format!("{:04o}", dir.key_mode_max),
        }
    }
}

/// Returns one agent as a JSON document.
pub(crate) fn json(agent: &Agent) -> String {
    super::json(Some("Agent"), AgentView::from(agent))
}

/// Returns agents, and the enrollments that wait for theirs, as a JSON list.
pub(crate) fn json_list(agents: &[Agent], pending: &[PendingEnrollment]) -> String {
    let wait = |pending: &PendingEnrollment| PendingView {
        agent: safe(&pending.agent),
        expires_at: from_wire(pending.expires_at),
    };
    let list = AgentListView {
        items: agents.iter().map(AgentView::from).collect(),
        total: u64::try_from(agents.len()).unwrap_or(u64::MAX),
        pending: pending.iter().map(wait).collect(),
    };
    super::json(Some("AgentList"), list)
}

/// Returns agents as a table; an enrollment that waits is a row with the status `enrolling`.
pub(crate) fn table(agents: &[Agent], pending: &[PendingEnrollment], now: Timestamp, wide: bool) -> Table {
    let mut head = vec!["NAME", "STATUS", "VERSION", "HOSTNAME", "LAST SEEN", "IDENTITY EXPIRES", "TARGETS", "LABELS"];
    if wide {
        head.extend(["OS", "GENERATION", "CLOCK SKEW", "ID"]);
    }
    let mut table = Table::new(&head);
    for agent in agents {
        let mut row = vec![
            agent.name.clone(),
            agent_status(agent),
            agent.version.clone(),
            agent.hostname.clone(),
            time::short(now, agent.last_seen_at),
            time::short(now, agent.identity_not_after),
            agent.targets.len().to_string(),
            agent.labels.join(" "),
        ];
        if wide {
            let generation = format!("{}/{}", agent.generation_reported, agent.generation);
            row.extend([agent.os.clone(), generation, format!("{} ms", agent.clock_skew_ms), agent.id.clone()]);
        }
        table.row(row);
    }
    for enrollment in pending {
        let until = format!("token expires {}", time::short(now, enrollment.expires_at));
        let mut row = vec![enrollment.agent.clone(), "enrolling".to_owned(), String::new(), until];
        row.resize(head.len(), String::new());
        table.row(row);
    }
    table
}

/// Returns one agent for people.
pub(crate) fn describe(agent: &Agent, now: Timestamp) -> String {
    let mut block = Block::titled(&format!("{}: {}", agent.name, agent.status));
    block.field("host", &agent.hostname);
    block.field("address", &agent.address);
    block.field("os", &agent.os);
    block.field("version", &agent.version);
    block.field("labels", &agent.labels.join(" "));
    block.field("last seen", &time::both(now, agent.last_seen_at));
    block.field("enrolled", &time::both(now, agent.enrolled_at));
    block.field("identity", &format!("expires {}", time::both(now, agent.identity_not_after)));
    block.field("serial", &agent.identity_serial);
    block.field("next CA", &agent.identity_ca);
    block.field("clock skew", &format!("{} ms", agent.clock_skew_ms));
    block.field("generation", &format!("{} of {} reported", agent.generation_reported, agent.generation));
    block.field("features", &agent.features.join(", "));
    block.field("id", &agent.id);
    if agent.consent_until > 0 {
        block.field("consent", &format!("it may come back until {}", time::both(now, agent.consent_until)));
    }
    for problem in &agent.problems {
        block.section("needs someone");
        block.line(&problem.message);
        block.field("cause", &problem.cause);
        block.field("try", &problem.hint);
    }
    if !agent.targets.is_empty() {
        block.section("targets");
        for target in &agent.targets {
            block.line(&format!("{}  {}  {}", target.certificate, target.dir, target_status(target.status)));
        }
    }
    if let Some(policy) = &agent.policy {
        block.section("policy (the agent's own; change it on the host)");
        describe_policy(&mut block, policy);
    }
    block.render()
}

fn describe_policy(block: &mut Block, policy: &Policy) {
    for dir in &policy.dirs {
        let mut parts =
            vec![format!("files {}", dir.files.join(" ")), format!("key mode up to {:04o}", dir.key_mode_max)];
        if !dir.names.is_empty() {
            parts.push(format!("names {}", dir.names.join(" ")));
        }
        if !dir.owners.is_empty() {
            parts.push(format!("owners {}", dir.owners.join(" ")));
        }
        block.field("dir", &format!("{}  {}", dir.path, parts.join("; ")));
    }
    for command in &policy.commands {
        block.field("command", &command.argv.join(" "));
    }
    let ports: Vec<String> = policy.http01_ports.iter().map(ToString::to_string).collect();
    block.field("http-01", &ports.join(", "));
    block.field("webroots", &policy.webroots.join(", "));
    let custodies: Vec<&str> = policy.custody.iter().map(|&value| custody(value)).collect();
    block.field("custody", &custodies.join(", "));
}

/// Returns a fresh enrollment as a JSON document. It holds a secret: it is made for stdout only.
pub(crate) fn enrollment_json(name: &str, enrollment: &EnrollAgentResponse) -> String {
    let view = EnrollmentView {
        agent: safe(name),
        token: safe(&enrollment.token),
        command: safe(&enrollment.command),
        expires_at: from_wire(enrollment.expires_at),
        hint: some(&enrollment.hint),
    };
    super::json(Some("Enrollment"), view)
}
