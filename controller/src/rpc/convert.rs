//! Between the wire's messages and the records: total in both directions, capped and sanitised on the way in.

use proto::agent::v1 as agent_wire;
use proto::clock::to_wire;
use proto::operator::v1 as operator_wire;
use proto::text::one_line;
use proto::types::v1 as wire;
use proto::x509::unhex;

use crate::lifecycle::agent::{Hello, Policy, PolicyDir};
use crate::lifecycle::batch::{Batch, Counts, Skipped};
use crate::lifecycle::certificate::{Custody, Http01, KeyType};
use crate::lifecycle::desired::{Desired, Name};
use crate::lifecycle::event::Event;
use crate::lifecycle::outcome::{AttemptOutcome, CommandOutcome, TargetOutcome};
use crate::lifecycle::pause::Pause;
use crate::lifecycle::problem::Problem;
use crate::lifecycle::renewal::ReasonLine;
use crate::lifecycle::renewal_info::RenewalInfo;
use crate::lifecycle::target::{Content, Drift, Endpoint, File, OnDrift, Protocol, Status, Step, Target};

/// Longest short text of an agent: versions, host names, features.
const WORD_CHARS_MAX: usize = 128;
/// Longest path or argument of a policy.
const PATH_CHARS_MAX: usize = 4_096;
/// Of a test: its steps, and the longest name and line of one.
const TEST_STEPS_MAX: usize = 200;
const STEP_NAME_CHARS_MAX: usize = 32;
const TEST_LINE_CHARS_MAX: usize = 400;
/// Most entries of a list in a policy.
const ENTRIES_MAX: usize = 1_000;

pub(crate) fn problem(problem: &Problem) -> wire::Problem {
    wire::Problem {
        reason: problem.reason.clone(),
        message: problem.message.clone(),
        cause: problem.cause.clone(),
        hint: problem.hint.clone(),
    }
}

/// A problem that an agent tells.
pub(crate) fn problem_in(problem: wire::Problem) -> Problem {
    Problem::new(&one_line(&problem.reason, 64), problem.message, problem.cause, problem.hint)
}

pub(crate) fn custody(custody: Custody) -> wire::Custody {
    match custody {
        Custody::Agent => wire::Custody::Agent,
        Custody::Controller => wire::Custody::Controller,
    }
}

pub(crate) fn key_type(key_type: KeyType) -> wire::KeyType {
    match key_type {
        KeyType::P256 => wire::KeyType::P256,
        KeyType::P384 => wire::KeyType::P384,
        KeyType::Rsa2048 => wire::KeyType::Rsa2048,
        KeyType::Rsa3072 => wire::KeyType::Rsa3072,
        KeyType::Rsa4096 => wire::KeyType::Rsa4096,
    }
}

/// `None` is "unspecified".
pub(crate) fn key_type_in(key_type: wire::KeyType) -> Option<KeyType> {
    match key_type {
        wire::KeyType::Unspecified => None,
        wire::KeyType::P256 => Some(KeyType::P256),
        wire::KeyType::P384 => Some(KeyType::P384),
        wire::KeyType::Rsa2048 => Some(KeyType::Rsa2048),
        wire::KeyType::Rsa3072 => Some(KeyType::Rsa3072),
        wire::KeyType::Rsa4096 => Some(KeyType::Rsa4096),
    }
}

/// `None` is "unspecified".
pub(crate) fn custody_in(custody: wire::Custody) -> Option<Custody> {
    match custody {
        wire::Custody::Unspecified => None,
        wire::Custody::Agent => Some(Custody::Agent),
        wire::Custody::Controller => Some(Custody::Controller),
    }
}

pub(crate) fn http01(http01: &Http01) -> wire::Http01 {
    let mode = match http01 {
        Http01::Standalone(port) => wire::http01::Mode::StandalonePort(u32::from(*port)),
        Http01::Webroot(dir) => wire::http01::Mode::Webroot(dir.clone()),
    };
    wire::Http01 { mode: Some(mode) }
}

fn content(content: Content) -> wire::FileContent {
    match content {
        Content::Cert => wire::FileContent::Cert,
        Content::Key => wire::FileContent::Key,
        Content::Chain => wire::FileContent::Chain,
        Content::Fullchain => wire::FileContent::Fullchain,
        Content::Combined => wire::FileContent::Combined,
        Content::Pfx => wire::FileContent::Pfx,
        Content::PfxPassword => wire::FileContent::PfxPassword,
    }
}

/// `None` is "unspecified".
pub(crate) fn content_in(content: wire::FileContent) -> Option<Content> {
    match content {
        wire::FileContent::Unspecified => None,
        wire::FileContent::Cert => Some(Content::Cert),
        wire::FileContent::Key => Some(Content::Key),
        wire::FileContent::Chain => Some(Content::Chain),
        wire::FileContent::Fullchain => Some(Content::Fullchain),
        wire::FileContent::Combined => Some(Content::Combined),
        wire::FileContent::Pfx => Some(Content::Pfx),
        wire::FileContent::PfxPassword => Some(Content::PfxPassword),
    }
}

pub(crate) fn status(status: Status) -> wire::TargetStatus {
    match status {
        Status::Pending => wire::TargetStatus::Pending,
        Status::Applied => wire::TargetStatus::Applied,
        Status::Unproven => wire::TargetStatus::Unproven,
        Status::NotLive => wire::TargetStatus::NotLive,
        Status::RolledBack => wire::TargetStatus::RolledBack,
        Status::Failed => wire::TargetStatus::Failed,
        Status::NeedsOperator => wire::TargetStatus::NeedsOperator,
        Status::Drifted => wire::TargetStatus::Drifted,
    }
}

/// An outcome that we do not know counts as a failure: never as a success.
pub(crate) fn status_in(status: wire::TargetStatus) -> Status {
    match status {
        wire::TargetStatus::Pending => Status::Pending,
        wire::TargetStatus::Applied => Status::Applied,
        wire::TargetStatus::Unproven => Status::Unproven,
        wire::TargetStatus::NotLive => Status::NotLive,
        wire::TargetStatus::RolledBack => Status::RolledBack,
        wire::TargetStatus::Unspecified | wire::TargetStatus::Failed => Status::Failed,
        wire::TargetStatus::NeedsOperator => Status::NeedsOperator,
        wire::TargetStatus::Drifted => Status::Drifted,
    }
}

pub(crate) fn files(files: &[File]) -> Vec<wire::FileSpec> {
    let file = |file: &File| wire::FileSpec {
        content: content(file.content).into(),
        name: file.name.clone(),
        owner: file.owner.clone(),
        mode: file.mode,
    };
    files.iter().map(file).collect()
}

pub(crate) fn commands(commands: &[Vec<String>]) -> Vec<wire::Command> {
    commands.iter().map(|argv| wire::Command { argv: argv.clone() }).collect()
}

pub(crate) fn endpoints(endpoints: &[Endpoint]) -> Vec<wire::Endpoint> {
    endpoints
        .iter()
        .map(|one| wire::Endpoint {
            address: one.address.clone(),
            server_name: one.server_name.clone(),
            protocol: verify_protocol(one.protocol).into(),
        })
        .collect()
}

fn verify_protocol(protocol: Protocol) -> wire::VerifyProtocol {
    match protocol {
        Protocol::Tls => wire::VerifyProtocol::Tls,
        Protocol::Smtp => wire::VerifyProtocol::Smtp,
        Protocol::Imap => wire::VerifyProtocol::Imap,
        Protocol::Pop3 => wire::VerifyProtocol::Pop3,
        Protocol::Xmpp => wire::VerifyProtocol::Xmpp,
        Protocol::Ldap => wire::VerifyProtocol::Ldap,
        Protocol::Postgres => wire::VerifyProtocol::Postgres,
    }
}

/// Returns the protocol that an operator names; `None` for one that is newer than this controller.
pub(crate) fn protocol(number: i32) -> Option<Protocol> {
    Some(match wire::VerifyProtocol::try_from(number).ok()? {
        wire::VerifyProtocol::Tls => Protocol::Tls,
        wire::VerifyProtocol::Smtp => Protocol::Smtp,
        wire::VerifyProtocol::Imap => Protocol::Imap,
        wire::VerifyProtocol::Pop3 => Protocol::Pop3,
        wire::VerifyProtocol::Xmpp => Protocol::Xmpp,
        wire::VerifyProtocol::Ldap => Protocol::Ldap,
        wire::VerifyProtocol::Postgres => Protocol::Postgres,
    })
}

pub(crate) fn steps(steps: &[Step]) -> Vec<wire::StepReport> {
    let step = |step: &Step| wire::StepReport {
        name: step.name.clone(),
        subject: step.subject.clone(),
        ok: step.ok,
        exit_status: step.exit_status,
        output: step.output.clone(),
        took_ms: step.took_ms,
    };
    steps.iter().map(step).collect()
}

pub(crate) fn target_spec(target: &Target, agent_name: &str) -> proto::operator::v1::TargetSpec {
    proto::operator::v1::TargetSpec {
        agent: agent_name.to_owned(),
        dir: target.dir.clone(),
        files: files(&target.files),
        reload: commands(&target.reload),
        verify: endpoints(&target.verify),
        validate: commands(&target.validate),
        on_drift: on_drift(target.on_drift).into(),
    }
}

pub(crate) fn on_drift(on_drift: OnDrift) -> wire::OnDrift {
    match on_drift {
        OnDrift::Repair => wire::OnDrift::Repair,
        OnDrift::Show => wire::OnDrift::Show,
    }
}

pub(crate) fn drift(drift: &Drift) -> wire::Drift {
    wire::Drift {
        differences: drift.differences.clone(),
        seen_at: to_wire(drift.seen_at),
        ended_at: to_wire(drift.ended_at),
        times: drift.times,
        repairs: drift.repairs,
    }
}

pub(crate) fn policy(policy: &Policy) -> wire::Policy {
    let dir = |dir: &PolicyDir| wire::PolicyDir {
        path: dir.path.clone(),
        names: dir.names.clone(),
        files: dir.files.clone(),
        owners: dir.owners.clone(),
        key_mode_max: dir.key_mode_max,
    };
    wire::Policy {
        dirs: policy.dirs.iter().map(dir).collect(),
        commands: commands(&policy.commands),
        http01_ports: policy.http01_ports.iter().map(|port| u32::from(*port)).collect(),
        webroots: policy.webroots.clone(),
        custody: policy
            .custody
            .iter()
            .map(|word| if word == "agent" { wire::Custody::Agent } else { wire::Custody::Controller })
            .map(i32::from)
            .collect(),
    }
}

/// What an agent says of itself, capped and sanitised.
pub(crate) fn hello_in(hello: agent_wire::Hello) -> Hello {
    Hello {
        version: one_line(&hello.agent_version, WORD_CHARS_MAX),
        hostname: one_line(&hello.hostname, WORD_CHARS_MAX),
        os: one_line(&hello.os, WORD_CHARS_MAX),
        features: texts(&hello.features, WORD_CHARS_MAX),
        policy: hello.policy.map(policy_in).unwrap_or_default(),
    }
}

fn policy_in(policy: wire::Policy) -> Policy {
    let dir = |dir: wire::PolicyDir| PolicyDir {
        path: one_line(&dir.path, PATH_CHARS_MAX),
        names: texts(&dir.names, PATH_CHARS_MAX),
        files: texts(&dir.files, PATH_CHARS_MAX),
        owners: texts(&dir.owners, WORD_CHARS_MAX),
        key_mode_max: dir.key_mode_max,
    };
    let custody = policy.custody().filter_map(custody_in).map(|custody| match custody {
        Custody::Agent => "agent".to_owned(),
        Custody::Controller => "controller".to_owned(),
    });
    Policy {
        custody: custody.collect(),
        commands: policy
            .commands
            .iter()
            .take(ENTRIES_MAX)
            .map(|command| texts(&command.argv, PATH_CHARS_MAX))
            .collect(),
        http01_ports: policy
            .http01_ports
            .iter()
            .take(ENTRIES_MAX)
            .filter_map(|port| u16::try_from(*port).ok())
            .collect(),
        webroots: texts(&policy.webroots, PATH_CHARS_MAX),
        dirs: policy.dirs.into_iter().take(ENTRIES_MAX).map(dir).collect(),
    }
}

fn texts(texts: &[String], chars_max: usize) -> Vec<String> {
    texts.iter().take(ENTRIES_MAX).map(|text| one_line(text, chars_max)).collect()
}

/// What an agent found when it tested a target.
pub(crate) fn test_steps_in(steps: Vec<wire::TestStep>) -> Vec<wire::TestStep> {
    let step = |step: wire::TestStep| wire::TestStep {
        name: one_line(&step.name, STEP_NAME_CHARS_MAX),
        subject: one_line(&step.subject, TEST_LINE_CHARS_MAX),
        result: wire::TestResult::try_from(step.result).unwrap_or_default().into(),
        found: one_line(&step.found, TEST_LINE_CHARS_MAX),
        problem: step.problem.map(|told| problem(&problem_in(told))),
        took_ms: step.took_ms,
    };
    steps.into_iter().take(TEST_STEPS_MAX).map(step).collect()
}

/// The name of a desired state.
pub(crate) fn state_name(name: &Name) -> agent_wire::StateName {
    agent_wire::StateName {
        epoch: name.epoch,
        generation: name.generation,
        digest: unhex(&name.digest).unwrap_or_default(),
    }
}

/// A challenge for the agent that is to serve it.
pub(crate) fn desired_challenge(
    identifier: String,
    token: String,
    key_authorization: String,
    how: &Http01,
) -> agent_wire::DesiredChallenge {
    agent_wire::DesiredChallenge {
        requires: vec![http01_feature(how).to_owned()],
        token,
        key_authorization,
        identifier,
        http01: Some(http01(how)),
    }
}

/// A desired state for its agent.
pub(crate) fn desired(name: &Name, desired: Desired) -> agent_wire::GetDesiredResponse {
    let slot = |slot: crate::lifecycle::desired::DesiredSlot| agent_wire::KeySlot {
        id: slot.id,
        identifiers: slot.identifiers,
        key_type: key_type(slot.key_type).into(),
        csr_wanted: slot.csr_wanted,
    };
    let challenge = |one: crate::lifecycle::desired::DesiredChallenge| {
        desired_challenge(one.identifier, one.token, one.key_authorization, &one.http01)
    };
    agent_wire::GetDesiredResponse {
        name: Some(state_name(name)),
        key_slots: desired.key_slots.into_iter().map(slot).collect(),
        targets: desired.targets.into_iter().map(desired_target).collect(),
        challenges: desired.challenges.into_iter().map(challenge).collect(),
        ..Default::default()
    }
}

/// A pause; `all` when everything is.
pub(crate) fn pause(pause: &Pause, all: bool) -> operator_wire::Pause {
    operator_wire::Pause { since_at: to_wire(Some(pause.at)), by: pause.by.clone(), reason: pause.reason.clone(), all }
}

pub(crate) fn desired_target(target: crate::lifecycle::desired::DesiredTarget) -> agent_wire::DesiredTarget {
    let mut requires = Vec::new();
    if !target.verify.is_empty() {
        requires.push("verify-tls".to_owned());
    }
    if target.verify.iter().any(|endpoint| !endpoint.protocol.is_tls()) {
        requires.push("verify-starttls".to_owned());
    }
    if !target.validate.is_empty() {
        requires.push("validate".to_owned());
    }
    if target.purge {
        requires.push("purge".to_owned());
    }
    if target.hold {
        requires.push("hold".to_owned());
    }
    if target.rollback {
        requires.push("rollback".to_owned());
    }
    if target.files.iter().any(|file| file.content == Content::Combined) {
        requires.push("file-combined".to_owned());
    }
    if target.files.iter().any(|file| matches!(file.content, Content::Pfx | Content::PfxPassword)) {
        requires.push("file-pfx".to_owned());
    }
    agent_wire::DesiredTarget {
        target_id: target.target_id,
        certificate_name: target.certificate_name,
        identifiers: target.identifiers,
        version_id: target.version_id,
        fingerprint_sha256: unhex(&target.fingerprint_sha256).unwrap_or_default(),
        custody: custody(target.custody).into(),
        key_slot_id: target.key_slot_id,
        dir: target.dir,
        files: files(&target.files),
        reload: commands(&target.reload),
        verify: endpoints(&target.verify),
        deploy_wish: target.deploy_wish,
        purge: target.purge,
        hold: target.hold,
        rollback: target.rollback,
        validate: commands(&target.validate),
        on_drift: on_drift(target.on_drift).into(),
        requires,
    }
}

fn http01_feature(http01: &Http01) -> &'static str {
    match http01 {
        Http01::Standalone(_) => "http01-standalone",
        Http01::Webroot(_) => "http01-webroot",
    }
}

pub(crate) fn event(event: Event) -> proto::operator::v1::Event {
    proto::operator::v1::Event {
        seq: event.seq,
        at: to_wire(Some(event.at)),
        severity: event.severity.word().to_owned(),
        actor: event.actor,
        kind: event.kind,
        certificate: event.certificate.unwrap_or_default(),
        agent: event.agent.unwrap_or_default(),
        message: event.message,
        problem: event.problem.as_ref().map(problem),
        outcome: event.outcome.as_deref().map(outcome),
    }
}

fn outcome(outcome: &AttemptOutcome) -> operator_wire::AttemptOutcome {
    let target = |target: &TargetOutcome| operator_wire::TargetOutcome {
        host: target.host.clone(),
        dir: target.dir.clone(),
        status: target.status.map_or(wire::TargetStatus::Unspecified, status).into(),
        files: target.files.clone(),
        commands: target.commands.iter().map(command_outcome).collect(),
        problem: target.problem.as_ref().map(problem),
    };
    operator_wire::AttemptOutcome {
        result: outcome.result.word().to_owned(),
        serial: outcome.serial.clone(),
        targets: outcome.targets.iter().map(target).collect(),
        targets_total: u64::try_from(outcome.targets_total).unwrap_or(u64::MAX),
    }
}

fn command_outcome(command: &CommandOutcome) -> operator_wire::CommandOutcome {
    operator_wire::CommandOutcome { argv: command.argv.clone(), exit_status: command.exit_status }
}

/// What a CA says about a renewal.
pub(super) fn renewal_info(info: &RenewalInfo) -> operator_wire::RenewalInfo {
    operator_wire::RenewalInfo {
        window_start: to_wire(info.window.map(|window| window.start)),
        window_end: to_wire(info.window.map(|window| window.end)),
        instant: to_wire(info.window.map(|window| window.instant)),
        explanation_url: info.explanation_url.clone().unwrap_or_default(),
        ask_at: to_wire(Some(info.ask_at)),
        problem: info.problem.as_ref().map(problem),
    }
}

/// One line of the table of reasons.
pub(super) fn renewal_reason(line: ReasonLine) -> operator_wire::RenewalReason {
    operator_wire::RenewalReason { reason: line.reason.word().to_owned(), holds: line.holds, at: to_wire(line.at) }
}

/// How far an act on many is.
pub(super) fn batch(batch: &Batch, counts: Counts) -> operator_wire::Batch {
    operator_wire::Batch {
        selection: batch.selection.clone(),
        total: count(batch.total),
        made: count(batch.made),
        open: count(counts.open),
        succeeded: count(counts.succeeded),
        partial: count(counts.partial),
        failed: count(counts.failed),
        cancelled: count(counts.cancelled),
        skipped: batch.skipped.iter().map(skipped).collect(),
        skipped_total: count(batch.skipped_total),
        cancelled_at: to_wire(batch.cancelled.as_ref().map(|cancelled| cancelled.at)),
        cancelled_by: batch.cancelled.as_ref().map(|cancelled| cancelled.by.clone()).unwrap_or_default(),
    }
}

/// A certificate that is passed over.
pub(super) fn skipped(one: &Skipped) -> operator_wire::SkippedCertificate {
    operator_wire::SkippedCertificate {
        name: one.name.clone(),
        reason: one.skip.word().to_owned(),
        why: one.skip.why(),
    }
}

/// A number of records.
pub(super) fn count(number: usize) -> u64 {
    u64::try_from(number).unwrap_or(u64::MAX)
}
