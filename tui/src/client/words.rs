//! The words for the wire's enums, as JSON, tables and forms show them (snake case). Used by `output` and the screens.

use proto::operator::v1::{Agent, Batch, Seen, TargetTest};
use proto::types::v1::{Custody, FileContent, KeyType, OnDrift, TargetStatus, TestResult};

/// Shown for a value this program does not know: a newer controller.
const UNKNOWN: &str = "unknown";

/// Returns the words of a reason: `NEEDS_CONSENT` is "needs consent".
fn reason_words(reason: &str) -> String {
    reason.to_ascii_lowercase().replace('_', " ")
}

/// Returns an agent's status as one reads it: what is wrong with its identity says more than whether it is connected.
#[must_use]
pub fn agent_status(agent: &Agent) -> String {
    agent.problems.first().map_or_else(|| agent.status.clone(), |problem| reason_words(&problem.reason))
}

/// Returns the word for a `KeyType`; empty when unspecified.
#[must_use]
pub fn key_type(value: i32) -> &'static str {
    match KeyType::try_from(value) {
        Ok(KeyType::Unspecified) => "",
        Ok(KeyType::P256) => "p256",
        Ok(KeyType::P384) => "p384",
        Ok(KeyType::Rsa2048) => "rsa2048",
        Ok(KeyType::Rsa3072) => "rsa3072",
        Ok(KeyType::Rsa4096) => "rsa4096",
        Err(_) => UNKNOWN,
    }
}

/// Returns the word for a `Custody`; empty when unspecified.
#[must_use]
pub fn custody(value: i32) -> &'static str {
    match Custody::try_from(value) {
        Ok(Custody::Unspecified) => "",
        Ok(Custody::Agent) => "agent",
        Ok(Custody::Controller) => "controller",
        Err(_) => UNKNOWN,
    }
}

/// Returns the word for a `TargetStatus`; "pending" when unspecified.
#[must_use]
pub fn target_status(value: i32) -> &'static str {
    match TargetStatus::try_from(value) {
        Ok(TargetStatus::Unspecified | TargetStatus::Pending) => "pending",
        Ok(TargetStatus::Applied) => "applied",
        Ok(TargetStatus::Unproven) => "unproven",
        Ok(TargetStatus::NotLive) => "not_live",
        Ok(TargetStatus::RolledBack) => "rolled_back",
        Ok(TargetStatus::Failed) => "failed",
        Ok(TargetStatus::NeedsOperator) => "needs_operator",
        Ok(TargetStatus::Drifted) => "drifted",
        Err(_) => UNKNOWN,
    }
}

/// Returns the word for a `TestResult`.
#[must_use]
pub fn test_result(value: i32) -> &'static str {
    match TestResult::try_from(value) {
        Ok(TestResult::Ok) => "ok",
        Ok(TestResult::Warning) => "warning",
        Ok(TestResult::Failed) => "failed",
        Ok(TestResult::Skipped) => "skipped",
        Ok(TestResult::Unspecified) | Err(_) => UNKNOWN,
    }
}

/// Returns the word for a `Seen`.
#[must_use]
pub fn seen_word(value: i32) -> &'static str {
    match Seen::try_from(value) {
        Ok(Seen::Ok) => "ok",
        Ok(Seen::Blocked) => "blocked",
        Ok(Seen::Unknown) => "unseen",
        Ok(Seen::Unspecified) | Err(_) => UNKNOWN,
    }
}

/// Returns what a test of a target came to: the worst of its steps; `untested` when its agent could not be asked.
#[must_use]
pub fn test_verdict(test: &TargetTest) -> &'static str {
    let has = |result: TestResult| test.steps.iter().any(|step| step.result() == result);
    // A result that this program does not know is no good news.
    let is_strange = test.steps.is_empty() || has(TestResult::Unspecified);
    match () {
        () if test.problem.is_some() => "untested",
        () if is_strange || has(TestResult::Failed) => "failed",
        () if has(TestResult::Warning) => "warning",
        () => "ok",
    }
}

/// Returns the word for an `OnDrift`; "repair" when unspecified.
#[must_use]
pub fn on_drift(value: i32) -> &'static str {
    match OnDrift::try_from(value) {
        Ok(OnDrift::Unspecified | OnDrift::Repair) => "repair",
        Ok(OnDrift::Show) => "show",
        Err(_) => UNKNOWN,
    }
}

/// Returns the `OnDrift` of a word.
#[must_use]
pub fn on_drift_of(word: &str) -> Option<OnDrift> {
    [OnDrift::Repair, OnDrift::Show].into_iter().find(|value| on_drift((*value).into()) == word)
}

/// Returns the word for a `FileContent`; empty when unspecified.
#[must_use]
pub fn file_content(value: i32) -> &'static str {
    match FileContent::try_from(value) {
        Ok(FileContent::Unspecified) => "",
        Ok(FileContent::Cert) => "cert",
        Ok(FileContent::Key) => "key",
        Ok(FileContent::Chain) => "chain",
        Ok(FileContent::Fullchain) => "fullchain",
        Ok(FileContent::Combined) => "combined",
        Ok(FileContent::Pfx) => "pfx",
        Ok(FileContent::PfxPassword) => "pfx-password",
        Err(_) => UNKNOWN,
    }
}

/// Returns the `FileContent` that a word means.
#[must_use]
pub fn content_of(word: &str) -> Option<FileContent> {
    let all = [
        FileContent::Cert,
        FileContent::Key,
        FileContent::Chain,
        FileContent::Fullchain,
        FileContent::Combined,
        FileContent::Pfx,
        FileContent::PfxPassword,
    ];
    all.into_iter().find(|content| file_content((*content).into()) == word)
}

/// Why a version is ordered, in people's words; a reason that this program does not know stays as it is.
#[must_use]
pub fn reason(word: &str) -> &str {
    match word {
        "no_version" => "first version",
        "specification_changed" => "its specification changed",
        "revoked" => "it was revoked",
        "key_lost" => "its key was lost",
        "renewal_info" => "its CA asked for it",
        "lifetime_fraction" => "its lifetime runs out",
        "operator_asked" => "an operator asked",
        other => other,
    }
}

/// Returns how far a parent job is, in a few words: `31/35 ok, 2 to go, 2 failed`.
#[must_use]
pub fn batch_words(batch: &Batch) -> String {
    let unasked = if batch.cancelled_at == 0 { batch.total.saturating_sub(batch.made) } else { 0 };
    let to_go = batch.open + unasked;
    let parts =
        [(to_go, "to go"), (batch.failed, "failed"), (batch.partial, "in part"), (batch.cancelled, "taken back")];
    let parts = parts.into_iter().filter(|(count, _)| *count > 0).map(|(count, word)| format!(", {count} {word}"));
    format!("{}/{} ok{}", batch.succeeded, batch.total, parts.collect::<String>())
}

#[cfg(test)]
mod tests {
    use proto::types::v1::{Problem, TestStep};

    use super::*;

    #[test]
    fn a_test_is_as_good_as_its_worst_step() {
        let check = |results: &[TestResult], expected: &str| {
            let step = |result: &TestResult| TestStep { result: (*result).into(), ..TestStep::default() };
            let test = TargetTest { steps: results.iter().map(step).collect(), ..TargetTest::default() };
            assert_eq!(test_verdict(&test), expected);
            let away = TargetTest { problem: Some(Problem::default()), ..test };
            assert_eq!(test_verdict(&away), "untested");
        };
        check(&[TestResult::Ok, TestResult::Skipped], "ok");
        check(&[TestResult::Ok, TestResult::Warning], "warning");
        check(&[TestResult::Failed, TestResult::Warning], "failed");
        check(&[TestResult::Unspecified], "failed");
        check(&[], "failed");
    }

    #[test]
    fn a_parent_is_told_in_a_few_words() {
        let check = |batch: Batch, expected: &str| assert_eq!(batch_words(&batch), expected);
        let batch = Batch { total: 35, made: 35, succeeded: 31, open: 2, failed: 2, ..Batch::default() };
        check(batch.clone(), "31/35 ok, 2 to go, 2 failed");
        check(Batch { made: 30, ..batch.clone() }, "31/35 ok, 7 to go, 2 failed");
        check(Batch { total: 3, made: 3, succeeded: 3, ..Batch::default() }, "3/3 ok");
        let cancelled = Batch { made: 20, open: 0, succeeded: 10, failed: 0, cancelled: 10, cancelled_at: 5, ..batch };
        check(cancelled, "10/35 ok, 10 taken back");
    }
}
