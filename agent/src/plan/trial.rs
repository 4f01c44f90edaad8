//! PURE: what a test of a target says of what was found (features.md D12): each step of a deployment, and how it would go. Does
//! nothing and asks nothing; `apply` and `net` look, `net::trial` puts it together.

use proto::text::one_line;
use proto::types::v1 as types;
use proto::x509::hex;
use serde::{Deserialize, Serialize};

use crate::problem::Problem;

/// Longest line of a check, characters.
const LINE_CHARS_MAX: usize = 400;
/// The steps in the order of a deployment.
const ORDER: [&str; 10] = [POLICY, OWNER, VERSION, KEY, DIRECTORY, FILE, VALIDATE, RELOAD, VERIFY, HTTP01];

/// Names of the steps.
pub(crate) const POLICY: &str = "policy";
pub(crate) const OWNER: &str = "owner";
pub(crate) const VERSION: &str = "version";
pub(crate) const KEY: &str = "key";
pub(crate) const DIRECTORY: &str = "directory";
pub(crate) const FILE: &str = "file";
pub(crate) const VALIDATE: &str = "validate";
pub(crate) const RELOAD: &str = "reload";
pub(crate) const VERIFY: &str = "verify";
pub(crate) const HTTP01: &str = "http01";

/// How a step would go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Verdict {
    Ok,
    /// A deployment may go through, and something is not as it should be.
    Warning,
    Failed,
    /// Not looked at.
    Skipped,
}

/// One step of a test.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Check {
    pub(crate) name: String,
    pub(crate) subject: String,
    pub(crate) verdict: Verdict,
    pub(crate) found: String,
    pub(crate) problem: Option<Problem>,
    pub(crate) took_ms: u64,
}

impl Check {
    pub(crate) fn ok(name: &str, subject: &str, found: &str) -> Self {
        Self::new(name, subject, Verdict::Ok, found, None)
    }

    pub(crate) fn skipped(name: &str, subject: &str, why: &str) -> Self {
        Self::new(name, subject, Verdict::Skipped, why, None)
    }

    pub(crate) fn failed(name: &str, subject: &str, problem: Problem) -> Self {
        Self::new(name, subject, Verdict::Failed, "", Some(problem))
    }

    pub(crate) fn warning(name: &str, subject: &str, problem: Problem) -> Self {
        Self::new(name, subject, Verdict::Warning, "", Some(problem))
    }

    fn new(name: &str, subject: &str, verdict: Verdict, found: &str, problem: Option<Problem>) -> Self {
        let line = |text: &str| one_line(text, LINE_CHARS_MAX);
        Self { name: name.to_owned(), subject: line(subject), verdict, found: line(found), problem, took_ms: 0 }
    }
}

impl From<Check> for types::TestStep {
    fn from(check: Check) -> Self {
        let result = match check.verdict {
            Verdict::Ok => types::TestResult::Ok,
            Verdict::Warning => types::TestResult::Warning,
            Verdict::Failed => types::TestResult::Failed,
            Verdict::Skipped => types::TestResult::Skipped,
        };
        Self {
            name: check.name,
            subject: check.subject,
            result: result.into(),
            found: check.found,
            problem: check.problem.map(Into::into),
            took_ms: check.took_ms,
        }
    }
}

/// Puts checks into the order of a deployment.
pub(crate) fn in_order(checks: &mut [Check]) {
    checks.sort_by_key(|check| ORDER.iter().position(|name| *name == check.name).unwrap_or(ORDER.len()));
}

/// What is in the place of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum There {
    Missing,
    /// Ours; `as_written` when it is noted what was written.
    Ours {
        as_written: Option<bool>,
    },
    /// A regular file of somebody else.
    Stranger,
    /// Something that is never replaced.
    InTheWay(Problem),
}

/// Says what a deployment does with what is in the place of a file; `rights` is how owner and mode differ from those wanted.
pub(crate) fn file(path: &str, there: There, rights: Option<&str>) -> Check {
    let rights = rights.map(|rights| format!("; {rights}")).unwrap_or_default();
    match there {
        There::Missing => Check::ok(FILE, path, "it is not there yet: a deployment makes it"),
        There::Ours { as_written: None } => Check::ok(FILE, path, &format!("it is the agent's{rights}")),
        There::Ours { as_written: Some(true) } => {
            Check::ok(FILE, path, &format!("it is as the agent wrote it{rights}"))
        }
        There::Ours { as_written: Some(false) } => {
            let message = format!("{path} is no longer as the agent wrote it");
            let cause = "something on that server writes this file besides the agent";
            let hint = "find out what does: a deployment writes the file anew, and keeps what stands there now";
            Check::warning(FILE, path, Problem::new("DRIFTED", message, cause, hint))
        }
        There::Stranger => {
            let message = format!("{path} is a file that the agent did not write{rights}");
            let hint = "nothing, if it may be replaced: the first deployment keeps a copy, and goes back to it when the new one fails";
            Check::warning(FILE, path, Problem::new("FOREIGN_FILE", message, "", hint))
        }
        There::InTheWay(problem) => Check::failed(FILE, path, problem),
    }
}

/// What a service's own test of its configuration came to.
pub(crate) struct Ran<'a> {
    pub(crate) subject: &'a str,
    /// `None` when it went well, else how it ended.
    pub(crate) failed: Option<Problem>,
    /// Every file of the target is there already: the test saw what it would see after a deployment, but for the content.
    pub(crate) is_complete: bool,
}

/// Says what a validate command found in the files that are there now.
pub(crate) fn validate(ran: Ran<'_>) -> Check {
    match ran.failed {
        None => Check::ok(VALIDATE, ran.subject, "it accepts the configuration with the files that are there now"),
        Some(problem) if ran.is_complete => Check::failed(VALIDATE, ran.subject, problem),
        Some(problem) => {
            let hint = "not all files of this target are there yet: if that is what it says, the first deployment brings them; \
                        if it says something else, correct that first";
            Check::warning(VALIDATE, ran.subject, Problem { hint: hint.to_owned(), ..problem })
        }
    }
}

/// What is known of the leaves when an endpoint is looked at.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Leaves {
    /// Of the version to deploy.
    pub(crate) wanted: Option<[u8; 32]>,
    /// In the target's files.
    pub(crate) in_files: Option<[u8; 32]>,
}

/// Says what an endpoint shows now; an error comes with what it says.
pub(crate) fn verify(endpoint: &str, seen: Result<[u8; 32], String>, leaves: Leaves) -> Check {
    let shown = match seen {
        Ok(shown) => shown,
        Err(cause) => {
            let message = format!("{endpoint} shows no certificate now");
            if leaves.in_files.is_none() {
                let hint =
                    "nothing, if the service waits for its first certificate; after a deployment it must answer there";
                return Check::warning(VERIFY, endpoint, Problem::new("NOT_LIVE", message, cause, hint));
            }
            let hint = "check that the service runs, and address and name of the verify endpoint";
            return Check::failed(VERIFY, endpoint, Problem::new("NOT_LIVE", message, cause, hint));
        }
    };
    let leaf = hex(&shown);
    if Some(shown) == leaves.wanted {
        return Check::ok(VERIFY, endpoint, &format!("it shows the version to deploy, leaf {leaf}"));
    }
    if Some(shown) == leaves.in_files {
        return Check::ok(VERIFY, endpoint, &format!("it shows what is in the files now, leaf {leaf}"));
    }
    let Some(held) = leaves.in_files else {
        return Check::ok(VERIFY, endpoint, &format!("it answers, and shows another leaf now: {leaf}"));
    };
    let message = format!("{endpoint} shows another certificate than is in the target's files");
    let cause = format!("leaf {} in the files, {leaf} shown", hex(&held));
    let hint = "check that the service reads these files, and the name of the verify endpoint: otherwise a deployment is rolled back";
    Check::warning(VERIFY, endpoint, Problem::new("SHOWS_ANOTHER", message, cause, hint))
}

/// Said of a target that proves nothing.
pub(crate) fn no_verify() -> Check {
    let message = "the target names no endpoint: a deployment is never shown as ok";
    let hint = "name where the service shows the certificate, for example --verify 127.0.0.1:443";
    Check::warning(VERIFY, "", Problem::new("NO_VERIFY", message, "nothing would prove what is served", hint))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem() -> Problem {
        Problem::new("X", "message", "cause", "hint")
    }

    #[test]
    fn what_lies_in_the_place_of_a_file_is_told_with_what_a_deployment_does() {
        let check = |there, expected, words: &str| {
            let check = file("/d/key.pem", there, Some("it has mode 0600, not 0640"));
            let text = check.problem.map_or(check.found, |problem| problem.message);
            assert!(check.verdict == expected && text.contains(words), "{text}");
        };
        check(There::Missing, Verdict::Ok, "not there yet");
        check(There::Ours { as_written: None }, Verdict::Ok, "the agent's; it has mode 0600");
        check(There::Ours { as_written: Some(true) }, Verdict::Ok, "as the agent wrote it; it has mode");
        check(There::Ours { as_written: Some(false) }, Verdict::Warning, "no longer as the agent wrote it");
        check(There::Stranger, Verdict::Warning, "did not write");
        check(There::InTheWay(problem()), Verdict::Failed, "message");
    }

    #[test]
    fn a_service_that_waits_for_its_first_files_is_warned_of_and_any_other_failed() {
        let ran = |failed, is_complete| validate(Ran { subject: "/x -t", failed, is_complete });
        assert_eq!(ran(None, false).verdict, Verdict::Ok);
        assert_eq!(ran(Some(problem()), true).verdict, Verdict::Failed);
        let first = ran(Some(problem()), false);
        assert_eq!((first.verdict, first.problem.unwrap().cause.as_str()), (Verdict::Warning, "cause"));
    }

    #[test]
    fn an_endpoint_is_held_against_the_version_and_the_files() {
        let check = |seen: Result<u8, &str>, wanted: Option<u8>, in_files: Option<u8>, expected| {
            let leaf = |byte| [byte; 32];
            let leaves = Leaves { wanted: wanted.map(leaf), in_files: in_files.map(leaf) };
            let check = verify("127.0.0.1:443", seen.map(leaf).map_err(str::to_owned), leaves);
            assert_eq!(check.verdict, expected, "{check:?}");
        };
        check(Ok(1), Some(1), Some(1), Verdict::Ok);
        check(Ok(1), Some(2), Some(1), Verdict::Ok);
        check(Ok(3), Some(2), None, Verdict::Ok);
        check(Ok(3), None, None, Verdict::Ok);
        check(Ok(3), Some(2), Some(1), Verdict::Warning);
        check(Err("refused"), Some(2), None, Verdict::Warning);
        check(Err("refused"), Some(2), Some(2), Verdict::Failed);
    }

    #[test]
    fn checks_come_in_the_order_of_a_deployment_and_hold_no_escape_sequence() {
        let mut checks = [VERIFY, RELOAD, FILE, POLICY].map(|name| Check::ok(name, "a\u{1b}[2J", "b\nc"));
        in_order(&mut checks);
        assert_eq!(checks.each_ref().map(|check| check.name.as_str()), [POLICY, FILE, RELOAD, VERIFY]);
        assert_eq!((checks[0].subject.as_str(), checks[0].found.as_str()), ("a<U+001B>[2J", "b c"));
    }
}
