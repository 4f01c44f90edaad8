//! What is told of a restore and of a rotation of the identity CA, in the same words on the command line and in the dashboard.
//! Pure.

use proto::operator::v1::{GetRestoreResponse, IdentityCa, RestoreFinding};

/// What is typed where the controller's name is not known: a database that was put back by other means.
const NAMELESS: &str = "accept";
/// So much of a fingerprint is compared by eye and typed.
const SHORT: usize = 8;

/// Returns what is typed to accept a restore: the name of the controller that the backup is of.
#[must_use]
pub fn restore_name(restore: &GetRestoreResponse) -> &str {
    if restore.controller.is_empty() { NAMELESS } else { &restore.controller }
}

/// Returns what accepting a restore does, sentence by sentence, except to operators.
#[must_use]
pub fn restore_effects(restore: &GetRestoreResponse) -> [String; 2] {
    let imports = restore.findings.iter().filter(|finding| finding.outcome.starts_with("import")).count();
    let missing = restore.agents.iter().filter(|agent| !agent.shown).count();
    [
        format!(
            "{imports} versions are taken over from agents; {missing} agents have not shown theirs, and show them when they come."
        ),
        "The controller orders and publishes again from then on.".to_owned(),
    ]
}

/// Returns how many agents have shown what they hold.
#[must_use]
pub fn restore_shown(restore: &GetRestoreResponse) -> String {
    let shown = restore.agents.iter().filter(|agent| agent.shown).count();
    format!("{shown} of {} agents have shown what they hold", restore.agents.len())
}

/// Returns whether it is known who was revoked or removed since the backup.
#[must_use]
pub fn restore_removals(restore: &GetRestoreResponse) -> String {
    if restore.removals_known {
        return format!("{} revocations and removals since the backup still hold", restore.removals);
    }
    "not known: look at certwright agents ls for agents that were revoked since the backup".to_owned()
}

/// Returns what of the audit is lost.
#[must_use]
pub fn restore_audit(restore: &GetRestoreResponse) -> String {
    if restore.witnessed_seq <= restore.audit_seq {
        return format!("goes on after line {}; no agent saw a later one", restore.audit_seq);
    }
    let lost = restore.witnessed_seq - restore.audit_seq;
    let GetRestoreResponse { audit_seq, witnessed_seq, witnessed_by, .. } = restore;
    format!("goes on after line {audit_seq}; {lost} later ones are lost: {witnessed_by} saw line {witnessed_seq}")
}

/// Returns what becomes of something that an agent holds and the database does not know; `valid` says until when it is valid.
#[must_use]
pub fn restore_finding(finding: &RestoreFinding, valid: &str) -> String {
    let RestoreFinding { agent, certificate, serial, outcome, why, .. } = finding;
    let what = match outcome.as_str() {
        "import" => "is taken over",
        "import_without_key" => "is taken over without its key",
        "unknown" => "stays where it is",
        _ => "is not taken over",
    };
    let why = if why.is_empty() { String::new() } else { format!(": {why}") };
    format!("{certificate} on {agent}: serial {serial}, valid until {valid}, {what}{why}")
}

/// Returns what is typed to retire the old CA: the start of its fingerprint.
#[must_use]
pub fn retire_name(found: &IdentityCa) -> String {
    let old = found.slots.iter().find(|slot| slot.shown);
    old.map(|slot| slot.fingerprint_sha256.chars().take(SHORT).collect()).unwrap_or_default()
}

/// Returns what retiring the old CA means.
#[must_use]
pub fn retire_effects(name: &str) -> String {
    format!(
        "Retiring drops CA {name} for good. Whoever knows only that one cannot come back; join tokens and invitations made until now stop working."
    )
}

/// Returns what a CA of a rotation does.
#[must_use]
pub fn slot_does(signs: bool, shown: bool) -> &'static str {
    match (signs, shown) {
        (true, true) => "signs, and the controller shows itself with it",
        (true, false) => "signs; trusted",
        (false, true) => "trusted; the controller shows itself with it",
        (false, false) => "trusted; does not sign yet",
    }
}
