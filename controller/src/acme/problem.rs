//! What can go wrong between us and an ACME server, what may be tried again when, and what a person can do about it.
//! Pure: it asks nobody. Called by all of `acme`; `tasks/issuance` reads [`AcmeError::retry`] and [`AcmeError::problem`].

use std::error::Error as StdError;
use std::fmt;
use std::time::Duration;

use instant_acme::Error;
use proto::text::one_line;
use thiserror::Error;

use crate::acme::directory::DirectoryError;
use crate::acme::http::{Answer, HttpError};
use crate::acme::problem::Class::{Backoff, Daily, Operator, Slow};
use crate::lifecycle::issuer::Halt;
use crate::lifecycle::problem::Problem;

/// RFC 8555 §6.7: the types of the RFC stand below this name.
const ACME_ERROR_PREFIX: &str = "urn:ietf:params:acme:error:";
/// Longest texts of a problem document that are kept, characters.
const KIND_CHARS_MAX: usize = 100;
const DETAIL_CHARS_MAX: usize = 600;
/// Most subproblems that are kept.
const SUBPROBLEMS_MAX: usize = 10;
/// When to try again after an answer that time may heal but haste will not.
const SLOW_RETRY_AFTER: Duration = Duration::from_secs(3_600);

/// When the same thing may be tried again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retry {
    /// It may pass by itself: as soon as the caller's own back-off allows.
    Now,
    /// Not before this long: the server asked for it, or haste would cost more than it gains.
    After(Duration),
    /// A refusal that stands until someone changes something, here or at the CA: now and then, since a certificate in use
    /// must not run out because a CA was wrong for a day; not before this long, if the server says so.
    Daily(Option<Duration>),
    /// It fails again until someone changes something.
    Never,
}

/// A problem document (RFC 7807, RFC 8555 §6.7), sanitised and cut.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AcmeProblem {
    /// The type; those of RFC 8555 without their URN prefix: `rateLimited`.
    pub kind: String,
    /// The server's explanation.
    pub detail: String,
    /// HTTP status, if known.
    pub status: Option<u16>,
    /// One per identifier that was refused.
    pub subproblems: Vec<Subproblem>,
}

/// The part of a problem that concerns one identifier (RFC 8555 §6.7.1).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Subproblem {
    /// The identifier, if the server names it.
    pub identifier: Option<String>,
    /// The type, as in [`AcmeProblem::kind`].
    pub kind: String,
    /// The server's explanation.
    pub detail: String,
}

impl AcmeProblem {
    pub(crate) fn read(wire: &instant_acme::Problem, status: Option<u16>) -> Self {
        let subproblems = wire.subproblems.iter().take(SUBPROBLEMS_MAX).map(|part| Subproblem {
            identifier: part.identifier.as_ref().map(|name| one_line(&name.authorized(false).to_string(), 253)),
            kind: kind(part.r#type.as_deref()),
            detail: one_line(part.detail.as_deref().unwrap_or_default(), DETAIL_CHARS_MAX),
        });
        Self {
            kind: kind(wire.r#type.as_deref()),
            detail: one_line(wire.detail.as_deref().unwrap_or_default(), DETAIL_CHARS_MAX),
            status: wire.status.or(status),
            subproblems: subproblems.collect(),
        }
    }

    /// Returns the type that says most: that of the first subproblem when the whole only says "several".
    fn leading_kind(&self) -> &str {
        match self.subproblems.first() {
            Some(first) if matches!(self.kind.as_str(), "compound" | "malformed" | "") => &first.kind,
            _ => &self.kind,
        }
    }

    fn known(&self) -> &'static Known {
        let leading = self.leading_kind();
        match KNOWN.iter().find(|known| known.kind == leading) {
            Some(known) => known,
            None if self.status.is_some_and(|status| status >= 500) => &SERVER_ERROR,
            None => &UNKNOWN,
        }
    }
}

impl fmt::Display for AcmeProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = if self.kind.is_empty() { "no type given" } else { &self.kind };
        write!(f, "{} ({kind})", if self.detail.is_empty() { "no explanation" } else { &self.detail })?;
        for part in &self.subproblems {
            write!(f, "; {}: {} ({})", part.identifier.as_deref().unwrap_or("?"), part.detail, part.kind)?;
        }
        Ok(())
    }
}

fn kind(wire: Option<&str>) -> String {
    let wire = wire.unwrap_or_default();
    one_line(wire.strip_prefix(ACME_ERROR_PREFIX).unwrap_or(wire), KIND_CHARS_MAX)
}

/// Whether a problem says that only the nonce was wrong (RFC 8555 §6.5).
pub(crate) fn is_bad_nonce(problem: &instant_acme::Problem) -> bool {
    problem.r#type.as_deref().and_then(|kind| kind.strip_prefix(ACME_ERROR_PREFIX)) == Some("badNonce")
}

/// What was being done at which server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// Host and port of the ACME server.
    pub ca: String,
    /// What was asked of it.
    pub step: Step,
}

/// A step of RFC 8555 §7.1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Reading the directory.
    Directory,
    /// Making or finding the account.
    Account,
    /// Setting the account's contacts, or agreeing to its terms.
    Contacts,
    /// Giving the account another key.
    KeyChange,
    /// newOrder.
    NewOrder,
    /// Reading an order.
    Order,
    /// Reading an authorization.
    Authorization,
    /// Answering the challenge of this identifier.
    Challenge(String),
    /// Sending the CSR.
    Finalize,
    /// Downloading the certificate.
    Certificate,
    /// Asking when to renew (RFC 9773).
    RenewalInfo,
    /// Revoking a certificate.
    Revoke,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Directory => "the directory",
            Self::Account => "the account",
            Self::Contacts => "the account's contacts or terms",
            Self::KeyChange => "the account's new key",
            Self::NewOrder => "the new order",
            Self::Order => "the order",
            Self::Authorization => "the authorization",
            Self::Challenge(identifier) => return write!(f, "the challenge for {identifier}"),
            Self::Revoke => "the revocation",
            Self::Finalize => "the CSR",
            Self::Certificate => "the certificate",
            Self::RenewalInfo => "when to renew",
        })
    }
}

/// Why a step with an ACME server failed.
#[derive(Debug, Error)]
pub enum AcmeError {
    /// The server refused with a problem document.
    #[error("{} refused {}: {problem}", attempt.ca, attempt.step)]
    Refused {
        /// What was tried.
        attempt: Attempt,
        /// What the server said.
        problem: AcmeProblem,
        /// How long it asks to wait.
        retry_after: Option<Duration>,
    },
    /// The order became invalid: a challenge failed, or the CA changed its mind.
    #[error("{ca} made the order invalid: {problem}")]
    OrderInvalid {
        /// Host and port of the ACME server.
        ca: String,
        /// The identifier whose validation failed, if one did.
        identifier: Option<String>,
        /// What the server said.
        problem: AcmeProblem,
    },
    /// There was no ACME answer.
    #[error("no answer about {} from {}", attempt.step, attempt.ca)]
    Http {
        /// What was tried.
        attempt: Attempt,
        /// How long the server asks to wait.
        retry_after: Option<Duration>,
        /// Why.
        #[source]
        source: HttpError,
    },
    /// The answer is not what RFC 8555 says it must be.
    #[error("the answer of {} about {} is not ACME", attempt.ca, attempt.step)]
    Protocol {
        /// What was tried.
        attempt: Attempt,
        /// What is wrong with it.
        #[source]
        source: Box<dyn StdError + Send + Sync>,
    },
    /// The server gave a token that RFC 8555 §8.1 does not allow; it was given to nobody.
    #[error("{ca} gave an invalid token for {identifier}")]
    Token {
        /// Host and port of the ACME server.
        ca: String,
        /// For which identifier.
        identifier: String,
    },
    /// The order has no authorization for the identifier, or no http-01 challenge in it.
    #[error("{ca} offers no http-01 challenge for {identifier}")]
    NoChallenge {
        /// Host and port of the ACME server.
        ca: String,
        /// The identifier.
        identifier: String,
    },
    /// The certificate was asked for while the order is not valid.
    #[error("{ca} has no certificate yet: the order is {status}")]
    NotIssued {
        /// Host and port of the ACME server.
        ca: String,
        /// The order's status.
        status: &'static str,
    },
    /// The terms of service must be accepted before an account is made.
    #[error("the terms of service of {ca} were not accepted")]
    TermsNotAccepted {
        /// Host and port of the ACME server.
        ca: String,
        /// Where the terms are.
        terms: String,
    },
    /// The server makes accounts only with an external account binding.
    #[error("{ca} wants an external account binding")]
    ExternalAccountRequired {
        /// Host and port of the ACME server.
        ca: String,
    },
    /// The binding to an external account was refused, or cannot be made.
    #[error("{ca} does not accept the external account binding: {problem}")]
    ExternalAccountRefused {
        /// Host and port of the ACME server.
        ca: String,
        /// What the server said.
        problem: AcmeProblem,
    },
    /// The MAC key of an external account does not decode.
    #[error("the key of the external account cannot be used")]
    ExternalKey {
        /// Why.
        #[source]
        source: Box<dyn StdError + Send + Sync>,
    },
    /// The account was deactivated or revoked: it never orders again.
    #[error("our account at {ca} is {status}")]
    AccountClosed {
        /// Host and port of the ACME server.
        ca: String,
        /// The server's word, sanitised.
        status: String,
    },
    /// The directory does not list the profile: the server would refuse it, or ignore it silently.
    #[error("{ca} offers no profile {profile}")]
    ProfileNotOffered {
        /// The issuer.
        ca: String,
        /// As the operator wrote it.
        profile: String,
    },
    /// The directory names no keyChange.
    #[error("{ca} offers no change of an account's key")]
    NoKeyChange {
        /// Host and port of the ACME server.
        ca: String,
    },
    /// The account key is not a P-256 key in PKCS#8.
    #[error("the account key cannot be used")]
    AccountKey {
        /// Why.
        #[source]
        source: Box<dyn StdError + Send + Sync>,
    },
    /// The directory's URL or document is unusable.
    #[error("the ACME directory cannot be used")]
    Directory {
        /// Why.
        #[source]
        source: DirectoryError,
    },
    /// The trusted roots cannot be used.
    #[error("the trusted CA certificates cannot be used")]
    Roots {
        /// Why.
        #[source]
        source: Box<dyn StdError + Send + Sync>,
    },
}

impl AcmeError {
    pub(crate) fn refused(attempt: Attempt, problem: &instant_acme::Problem, last: Option<Answer>) -> Self {
        Self::Refused {
            attempt,
            problem: AcmeProblem::read(problem, last.map(|answer| answer.status.as_u16())),
            retry_after: last.and_then(|answer| answer.retry_after),
        }
    }

    pub(crate) fn http(attempt: Attempt, source: HttpError, retry_after: Option<Duration>) -> Self {
        Self::Http { attempt, retry_after, source }
    }

    /// Says what an error of instant-acme means.
    pub(crate) fn explain(attempt: Attempt, error: Error, last: Option<Answer>) -> Self {
        match error {
            Error::Api(problem) => Self::refused(attempt, &problem, last),
            Error::Other(source) => match source.downcast::<HttpError>() {
                Ok(source) => Self::http(attempt, *source, last.and_then(|answer| answer.retry_after)),
                Err(source) => Self::Protocol { attempt, source },
            },
            Error::KeyRejected | Error::Crypto => Self::AccountKey { source: Box::new(error) },
            other => Self::Protocol { attempt, source: Box::new(other) },
        }
    }

    /// Whether the server does not know the account (any more): forget its URL, then ask for the account again.
    #[must_use]
    pub fn is_account_gone(&self) -> bool {
        matches!(self, Self::Refused { problem, .. } if problem.kind == "accountDoesNotExist")
    }

    /// Whether the account never orders again.
    #[must_use]
    pub fn is_account_closed(&self) -> bool {
        matches!(self, Self::AccountClosed { .. })
    }

    /// Whether the server refused the account itself, not what it asked: perhaps it is closed (RFC 8555 §7.3.6).
    #[must_use]
    pub fn is_account_refused(&self) -> bool {
        let Self::Refused { attempt, problem, .. } = self else { return false };
        let of_account = matches!(attempt.step, Step::Account | Step::Contacts | Step::KeyChange | Step::NewOrder);
        of_account && problem.kind == "unauthorized"
    }

    /// A refused new account with a binding was most likely refused for the binding: CAs differ in what they call it.
    #[must_use]
    pub(crate) fn of_external_account(self, bound: bool) -> Self {
        match self {
            Self::Refused { attempt, problem, .. }
                if bound
                    && matches!(
                        problem.kind.as_str(),
                        "unauthorized" | "malformed" | "externalAccountRequired" | "badSignatureAlgorithm"
                    ) =>
            {
                Self::ExternalAccountRefused { ca: attempt.ca, problem }
            }
            other => other,
        }
    }

    /// Whether the certificate to revoke is revoked already (RFC 8555 §7.6).
    #[must_use]
    pub fn is_already_revoked(&self) -> bool {
        matches!(self, Self::Refused { problem, .. } if problem.kind == "alreadyRevoked")
    }

    /// Whether the server does not know what the URL named (404): an order that is gone needs a new one.
    #[must_use]
    pub fn is_not_found(&self) -> bool {
        match self {
            Self::Refused { problem, .. } => problem.status == Some(404),
            Self::Http { source: HttpError::Status { status, .. }, .. } => *status == 404,
            _ => false,
        }
    }

    /// Whether a new order that names its predecessor may have been refused, or misunderstood, for that: it was replaced
    /// already, belongs to another account, or is not known (RFC 9773 §5). Then the order is asked for once without.
    #[must_use]
    pub fn is_replaces_refused(&self) -> bool {
        match self {
            Self::Refused { attempt, problem, .. } => {
                attempt.step == Step::NewOrder
                    && (matches!(problem.kind.as_str(), "alreadyReplaced" | "malformed" | "unauthorized" | "conflict")
                        || matches!(problem.status, Some(404 | 409)))
            }
            // The answer does not repeat it: such a CA takes no notice of it.
            Self::Protocol { attempt, .. } => attempt.step == Step::NewOrder,
            _ => false,
        }
    }

    /// Whether what is gone is the order, or what belongs to it: not the directory, not the account.
    #[must_use]
    pub fn is_order_gone(&self) -> bool {
        let (Self::Refused { attempt, .. } | Self::Http { attempt, .. }) = self else { return false };
        let of_order = match &attempt.step {
            Step::Order | Step::Authorization | Step::Challenge(_) | Step::Finalize | Step::Certificate => true,
            Step::Directory
            | Step::Account
            | Step::Contacts
            | Step::KeyChange
            | Step::NewOrder
            | Step::RenewalInfo
            | Step::Revoke => false,
        };
        of_order && self.is_not_found()
    }

    /// Returns HTTP status, explanation and Retry-After when the server says that it was asked too often, or too much.
    #[must_use]
    pub fn too_often(&self) -> Option<(u16, &str, Option<Duration>)> {
        match self {
            Self::Refused { problem, retry_after, .. } => {
                let status = problem.status.unwrap_or(429);
                let told = problem.leading_kind() == "rateLimited" || (status == 503 && retry_after.is_some());
                told.then_some((status, problem.detail.as_str(), *retry_after))
            }
            Self::Http { source: HttpError::Status { status: 429 | 503, excerpt, .. }, retry_after, .. } => {
                // No ACME server said this: what stands before it closes the way for all.
                retry_after.map(|wait| (503, excerpt.as_str(), Some(wait)))
            }
            _ => None,
        }
    }

    /// Returns how much longer the server wants to be left alone, when that is why nothing was sent.
    #[must_use]
    pub fn not_sent(&self) -> Option<Duration> {
        match self {
            Self::Http { source: HttpError::Closed { wait, .. }, .. } => Some(*wait),
            _ => None,
        }
    }

    /// Nothing is sent to a server that asked to be left alone for so much longer.
    #[must_use]
    pub fn left_alone(ca: String, wait: Duration) -> Self {
        let source = HttpError::Closed { host: ca.clone(), wait };
        Self::Http { attempt: Attempt { ca, step: Step::Account }, retry_after: Some(wait), source }
    }

    /// How long the server asks to wait, in its own words.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Refused { retry_after, .. } | Self::Http { retry_after, .. } => *retry_after,
            _ => None,
        }
    }

    /// Whether the server read what it was asked and refused it: nothing came of it there.
    #[must_use]
    pub fn is_refusal(&self) -> bool {
        matches!(self, Self::Refused { problem, .. } if problem.status.is_none_or(|status| status < 500))
    }

    /// Returns when the same step may be tried again.
    #[must_use]
    pub fn retry(&self) -> Retry {
        match self {
            Self::Refused { problem, retry_after, .. } => class_retry(problem.known().class, *retry_after),
            Self::OrderInvalid { problem, .. } => class_retry(problem.known().class, None),
            Self::Http { source: HttpError::Closed { wait, .. }, .. } => Retry::After(*wait),
            Self::Http { source, retry_after, .. } => class_retry(http_row(source).class, *retry_after),
            Self::Protocol { .. } | Self::Directory { source: DirectoryError::Document(_) } => {
                Retry::After(SLOW_RETRY_AFTER)
            }
            Self::Token { .. } | Self::NoChallenge { .. } => Retry::After(SLOW_RETRY_AFTER),
            Self::NotIssued { .. } => Retry::Now,
            Self::TermsNotAccepted { .. }
            | Self::ExternalAccountRequired { .. }
            | Self::ExternalAccountRefused { .. }
            | Self::ExternalKey { .. }
            | Self::AccountClosed { .. }
            | Self::NoKeyChange { .. }
            | Self::ProfileNotOffered { .. }
            | Self::AccountKey { .. }
            | Self::Directory { .. }
            | Self::Roots { .. } => Retry::Never,
        }
    }

    /// Why nothing should be ordered from the issuer before an operator acts; `None` when time may heal it.
    #[must_use]
    pub fn halt(&self) -> Option<Halt> {
        match self {
            Self::TermsNotAccepted { .. } => Some(Halt::Terms),
            Self::ExternalAccountRequired { .. } | Self::ExternalAccountRefused { .. } | Self::ExternalKey { .. } => {
                Some(Halt::External)
            }
            Self::AccountClosed { .. } => Some(Halt::Closed),
            Self::Refused { problem, .. } => match problem.kind.as_str() {
                "userActionRequired" => Some(Halt::Terms),
                "externalAccountRequired" => Some(Halt::External),
                _ => None,
            },
            Self::AccountKey { .. } | Self::Roots { .. } => Some(Halt::Unusable),
            Self::Directory { .. } if self.retry() == Retry::Never => Some(Halt::Unusable),
            Self::Directory { .. }
            | Self::OrderInvalid { .. }
            | Self::Http { .. }
            | Self::Protocol { .. }
            | Self::Token { .. }
            | Self::NoChallenge { .. }
            | Self::NotIssued { .. }
            | Self::ProfileNotOffered { .. }
            | Self::NoKeyChange { .. } => None,
        }
    }

    /// Returns what happened, to what, why, and what to do.
    #[must_use]
    pub fn problem(&self) -> Problem {
        match self {
            Self::Refused { attempt, problem, .. } => {
                let message = format!("{} refused {}", attempt.ca, attempt.step);
                problem.known().problem(&message, &problem.to_string())
            }
            Self::OrderInvalid { ca, identifier, problem } => {
                let message = match identifier {
                    Some(identifier) => format!("{ca} could not validate {identifier}"),
                    None => format!("{ca} made the order invalid"),
                };
                problem.known().problem(&message, &problem.to_string())
            }
            Self::Http { attempt, source, .. } => http_row(source)
                .problem(&format!("No answer about {} from {}", attempt.step, attempt.ca), &chain(source)),
            Self::Protocol { source, .. } => NOT_ACME.problem(&self.to_string(), &chain(source.as_ref())),
            Self::Token { .. } => TOKEN.problem(&self.to_string(), "RFC 8555 §8.1 allows base64url only"),
            Self::NoChallenge { .. } => NO_CHALLENGE.problem(&self.to_string(), "no http-01 in the authorization"),
            Self::NotIssued { .. } => NOT_ISSUED.problem(&self.to_string(), ""),
            Self::TermsNotAccepted { terms, .. } => TERMS.problem(&self.to_string(), terms),
            Self::ExternalAccountRequired { .. } => EXTERNAL.problem(&self.to_string(), "externalAccountRequired"),
            Self::ExternalAccountRefused { ca, problem } => {
                let message = format!("{ca} does not accept the external account binding");
                EXTERNAL_REFUSED.problem(&message, &problem.to_string())
            }
            Self::ExternalKey { source } => EXTERNAL_REFUSED.problem(&self.to_string(), &chain(source.as_ref())),
            Self::AccountClosed { status, .. } => CLOSED.problem(&self.to_string(), status),
            Self::ProfileNotOffered { .. } => NO_PROFILE.problem(&self.to_string(), "its directory does not list it"),
            Self::NoKeyChange { .. } => NO_KEY_CHANGE.problem(&self.to_string(), "its directory names no keyChange"),
            Self::AccountKey { source } => ACCOUNT_KEY.problem(&self.to_string(), &chain(source.as_ref())),
            Self::Directory { source } => DIRECTORY.problem(&self.to_string(), &chain(source)),
            Self::Roots { source } => ROOTS.problem(&self.to_string(), &chain(source.as_ref())),
        }
    }
}

fn chain(error: &(dyn StdError + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let said = cause.to_string();
        if !text.ends_with(&said) {
            text.push_str(": ");
            text.push_str(&said);
        }
        next = cause.source();
    }
    text
}

fn class_retry(class: Class, retry_after: Option<Duration>) -> Retry {
    match (class, retry_after) {
        (Operator, _) => Retry::Never,
        (Daily, wait) => Retry::Daily(wait),
        (Backoff | Slow, Some(wait)) => Retry::After(wait),
        (Backoff, None) => Retry::Now,
        (Slow, None) => Retry::After(SLOW_RETRY_AFTER),
    }
}

/// How a failure may heal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Class {
    /// By itself, or by the operator while we keep trying.
    Backoff,
    /// Likewise, but haste is of no use or costs a limit.
    Slow,
    /// When someone changes something, here or at the CA.
    Daily,
    /// Only when someone changes something here: the CA need not even be asked.
    Operator,
}

/// One known failure: reason code, hint (features.md O11) and class.
#[derive(Debug)]
struct Known {
    kind: &'static str,
    reason: &'static str,
    class: Class,
    hint: &'static str,
}

impl Known {
    fn problem(&self, message: &str, cause: &str) -> Problem {
        Problem::new(self.reason, message, cause, self.hint)
    }
}

const fn row(kind: &'static str, reason: &'static str, class: Class, hint: &'static str) -> Known {
    Known { kind, reason, class, hint }
}

/// Every type of RFC 8555 §6.7, RFC 9773 §7.4 and the profiles draft.
#[rustfmt::skip]
const KNOWN: &[Known] = &[
    row("accountDoesNotExist", "ACME_ACCOUNT_GONE", Backoff, "The CA has forgotten the account (a test CA forgets at every restart). It is registered again with the same key at the next try"),
    row("alreadyReplaced", "ACME_ALREADY_REPLACED", Backoff, "Another order already replaces this version. The next try orders without naming it"),
    row("alreadyRevoked", "ACME_ALREADY_REVOKED", Daily, "Nothing to do: the certificate is revoked already"),
    row("badCSR", "ACME_BAD_CSR", Daily, "The CA does not accept the key or the names of the CSR: choose another key type with `certs set NAME --key TYPE`, or check the names"),
    row("badNonce", "ACME_BAD_NONCE", Backoff, "The CA refused several fresh nonces in a row. It is tried again; if it lasts, look for a proxy that caches or splits requests"),
    row("badPublicKey", "ACME_BAD_KEY", Daily, "The CA does not accept this key type or knows the key as compromised: `certs set NAME --key TYPE` makes a new key"),
    row("badRevocationReason", "ACME_BAD_REVOCATION_REASON", Daily, "Choose another revocation reason; CAs accept only some"),
    row("badSignatureAlgorithm", "ACME_BAD_SIGNATURE_ALGORITHM", Daily, "This CA does not accept ES256 account keys; use another CA"),
    row("caa", "ACME_CAA", Slow, "A CAA record forbids this CA. Add an `issue` record with the CA's name to the domain's DNS, or choose the issuer that the record names"),
    row("compound", "ACME_SEVERAL_PROBLEMS", Backoff, "Several names were refused; the cause says which and why"),
    row("connection", "ACME_CONNECTION", Backoff, "The CA could not connect to the name's address. Check that A/AAAA point to the responder and that port 80 is reachable from the Internet (firewall, IPv6)"),
    row("dns", "ACME_DNS", Backoff, "The CA could not resolve the name. Check its A/AAAA records, its name servers and DNSSEC"),
    row("externalAccountRequired", "ACME_EXTERNAL_ACCOUNT", Operator, EXTERNAL_HINT),
    row("incorrectResponse", "ACME_INCORRECT_RESPONSE", Backoff, "Something else answered the challenge. Check which server answers port 80 for the name, its redirects, and whether every address of the name is a responder"),
    row("invalidContact", "ACME_INVALID_CONTACT", Daily, "The CA does not accept a contact address: certwright issuers set NAME --contact ADDRESS"),
    row("invalidProfile", "ACME_INVALID_PROFILE", Daily, "The CA does not offer this profile: choose one that its directory lists"),
    row("malformed", "ACME_MALFORMED", Slow, "The CA did not understand the request. If the cause names an identifier, correct it; else report it with this text"),
    row("orderNotReady", "ACME_ORDER_NOT_READY", Backoff, "The order is not ready to be finalised yet; its state is read again"),
    row("rateLimited", "ACME_RATE_LIMITED", Slow, "The CA limits how much may be asked. It is tried again when the limit opens; use the CA's staging server for trials"),
    row("rejectedIdentifier", "ACME_REJECTED_IDENTIFIER", Daily, "The CA will not issue for this name. Check its spelling; some names need an exception by the CA, others a private issuer"),
    row("serverInternal", "ACME_SERVER_INTERNAL", Backoff, "The CA has a fault of its own; it is tried again. Look at the CA's status page if it lasts"),
    row("tls", "ACME_TLS", Backoff, "The CA met a TLS error while validating. Check what answers on port 443 of the name, and whether port 80 redirects there"),
    row("unauthorized", "ACME_UNAUTHORIZED", Backoff, "The CA got a wrong answer or may not use the account. Check which server answers port 80 for the name, and that no rule hides /.well-known/acme-challenge/"),
    row("unsupportedContact", "ACME_UNSUPPORTED_CONTACT", Daily, "The CA does not accept this kind of contact; give a plain mail address: certwright issuers set NAME --contact ADDRESS"),
    row("unsupportedIdentifier", "ACME_UNSUPPORTED_IDENTIFIER", Daily, "The CA issues no certificates for this kind of name (IP address, single label): choose another issuer"),
    row("userActionRequired", "ACME_USER_ACTION", Operator, "The CA wants something of you first, usually agreement to new terms: the cause says what and where. Then certwright issuers set NAME --accept-terms"),
];

const SERVER_ERROR: Known = row(
    "",
    "ACME_SERVER_ERROR",
    Backoff,
    "The CA has a fault of its own; it is tried again. Look at the CA's status page if it lasts",
);
const UNKNOWN: Known =
    row("", "ACME_REFUSED", Slow, "The CA gives a reason that is not in RFC 8555; the cause is in its own words");
const NOT_ACME: Known =
    row("", "CA_NOT_ACME", Slow, "Check the directory URL of the issuer, and whether a proxy changes the answers");
const TOKEN: Known = row(
    "",
    "ACME_TOKEN_INVALID",
    Slow,
    "The CA is broken or hostile: nothing was given to an agent. Check the directory URL of the issuer",
);
const NO_CHALLENGE: Known = row(
    "",
    "ACME_NO_HTTP01",
    Slow,
    "The CA does not validate this name by HTTP-01 (a wildcard needs DNS-01): choose other names or another issuer",
);
const NOT_ISSUED: Known = row("", "ACME_NOT_ISSUED", Backoff, "The CA is still working; the order is read again");
const TERMS: Known = row(
    "",
    "ACME_TERMS_NOT_ACCEPTED",
    Operator,
    "Read the terms at the address in the cause, then certwright issuers set NAME --accept-terms",
);
const EXTERNAL: Known = row("", "ACME_EXTERNAL_ACCOUNT", Operator, EXTERNAL_HINT);
const EXTERNAL_HINT: &str = "The CA makes accounts only for its customers: get a key identifier and a MAC key from its customer pages, then certwright issuers set NAME --eab-kid KID --eab-key @FILE";
const EXTERNAL_REFUSED: Known = row(
    "",
    "ACME_EXTERNAL_REFUSED",
    Operator,
    "Get a fresh key identifier and MAC key from the CA's customer pages (some may be used only once), then certwright issuers set NAME --eab-kid KID --eab-key @FILE",
);
const CLOSED: Known = row(
    "",
    "ACME_ACCOUNT_CLOSED",
    Operator,
    "Ask the CA why. A new account with a new key: certwright issuers set NAME --new-account; or order elsewhere: certwright certs set CERTIFICATE --issuer OTHER",
);
const NO_PROFILE: Known = row(
    "",
    "PROFILE_NOT_OFFERED",
    Operator,
    "certwright issuers get shows what it offers; then certwright issuers set NAME --profile PROFILE, or --profile default",
);
const NO_KEY_CHANGE: Known = row(
    "",
    "ACME_NO_KEY_CHANGE",
    Operator,
    "Nothing was changed. If the key may be known to others, make a new account with a new key: certwright issuers set NAME --new-account",
);
const ACCOUNT_KEY: Known = row(
    "",
    "ACCOUNT_KEY_UNUSABLE",
    Operator,
    "The stored account key is not a P-256 key: certwright issuers set NAME --new-account makes a new one",
);
const DIRECTORY: Known = row(
    "",
    "CA_DIRECTORY_INVALID",
    Operator,
    "Check the directory URL: https, and a JSON document with newNonce, newAccount and newOrder",
);
const ROOTS: Known = row(
    "",
    "CA_ROOTS_UNUSABLE",
    Operator,
    "Give its CA certificate in PEM: certwright issuers set NAME --root FILE; without a root of its own the host needs the package ca-certificates",
);

/// Whether a certificate is only not valid at the time that our clock shows: one of the two is wrong, and without an
/// answer of the CA nobody says which.
fn is_of_the_time(error: &rustls::Error) -> bool {
    use rustls::CertificateError::{Expired, ExpiredContext, NotValidYet, NotValidYetContext};
    let rustls::Error::InvalidCertificate(error) = error else { return false };
    matches!(error, Expired | ExpiredContext { .. } | NotValidYet | NotValidYetContext { .. })
}

#[rustfmt::skip]
fn http_row(error: &HttpError) -> &'static Known {
    const TIMEOUT: Known = row("", "CA_TIMEOUT", Backoff, "The CA accepts connections but does not finish its answers; it is tried again. If it is your own CA, look at its load or restart it");
    const NAME: Known = row("", "CA_NAME_UNKNOWN", Backoff, "Check the host in the directory URL and the controller's DNS (/etc/resolv.conf)");
    const UNREACHABLE: Known = row("", "CA_UNREACHABLE", Backoff, "Check that the controller may reach the CA (firewall, proxy, port) and that the CA runs; it is tried again");
    const UNTRUSTED: Known = row("", "CA_UNTRUSTED", Slow, "If the CA has a root of its own: certwright issuers set NAME --root FILE. Otherwise check the clock, and whether a proxy breaks TLS open");
    const NOT_NOW: Known = row("", "CA_NOT_VALID_NOW", Backoff, "Compare both times: if this host's is wrong, set the clock (timedatectl; chronyc makestep). If it is right, the CA's operator has to renew its certificate. It is tried again");
    const TLS: Known = row("", "CA_TLS_FAILED", Slow, "The server does not speak TLS 1.2 or 1.3 as expected: check the port in the directory URL");
    const LARGE: Known = row("", "CA_ANSWER_TOO_LARGE", Slow, "An ACME answer is small: check the directory URL of the issuer");
    const REDIRECTED: Known = row("", "CA_REDIRECTS", Slow, "Redirects are not followed: add the issuer once more under another name with the final URL");
    const FOREIGN: Known = row("", "CA_FOREIGN_URL", Slow, "The CA is broken or hostile: it sends us to a host that its directory does not name");
    const BUSY: Known = row("", "CA_SERVER_ERROR", Backoff, "The CA or a proxy before it has a fault; it is tried again. Look at the CA's status page if it lasts");
    const LIMITED: Known = row("", "CA_RATE_LIMITED", Slow, "The CA or a proxy before it limits how much may be asked; it is tried again later");
    match error {
        HttpError::Timeout { .. } => &TIMEOUT,
        HttpError::NameLookup { .. } => &NAME,
        HttpError::Unreachable { .. } => &UNREACHABLE,
        HttpError::Untrusted { source, .. } if is_of_the_time(source) => &NOT_NOW,
        HttpError::Untrusted { .. } => &UNTRUSTED,
        HttpError::Tls { .. } => &TLS,
        HttpError::TooLarge { .. } => &LARGE,
        HttpError::Redirected { .. } => &REDIRECTED,
        HttpError::Foreign { .. } => &FOREIGN,
        HttpError::Closed { .. } | HttpError::Status { status: 429, .. } => &LIMITED,
        HttpError::Status { status: 500.., .. } => &BUSY,
        HttpError::NoNonce { .. } | HttpError::Status { .. } => &NOT_ACME,
    }
}

#[cfg(test)]
mod tests;
