//! An issuer: an ACME directory, its roots, our account there (features.md A14), or a CA of our own (`private_ca`), and whether
//! it takes orders. Called by `rpc` and `tasks`.
//!
//! ```text
//!            add ──▶ none ── account made ──▶ valid ── the CA wants something ──▶ halted ── operator's act ──▶ valid
//! ```

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Deserializer, Serialize};

use super::private_ca::PrivateCa;
use super::problem::Problem;
use super::rate_limit::Limits;
use super::sealed::Sealed;

/// Most contacts of an account.
pub const CONTACTS_MAX: usize = 10;

/// A CA's Retry-After is not believed beyond this (`acme/http`): what is later was written by a clock that was ahead.
const REST_MAX: SignedDuration = SignedDuration::from_hours(168);

/// An issuer. Key in the store: `id`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Issuer {
    /// Random, never reused.
    pub id: String,
    /// Unique, chosen by the operator.
    pub name: String,
    /// RFC 8555 §7.1.1 directory URL, https; empty for a private CA.
    pub directory: String,
    /// PEM roots to trust for it instead of the system's.
    pub root_pem: Option<String>,
    /// Mail addresses of the account's contacts. Earlier versions knew one.
    #[serde(default, alias = "email", deserialize_with = "one_or_many")]
    pub contacts: Vec<String>,
    /// The operator accepted the CA's terms of service.
    pub terms_accepted: bool,
    /// What binds a new account to a customer of the CA.
    #[serde(default)]
    pub external: Option<External>,
    /// Our account's key, sealed before the account is made: a crash in between finds the same account again.
    pub account_key: Option<Sealed>,
    /// The key that follows, sealed before the CA is told. It stays until it is the account's key: the CA may have taken
    /// it while its answer was lost.
    #[serde(default)]
    pub next_key: Option<Sealed>,
    /// An operator asked for another key, and it is not known yet which one the CA has.
    #[serde(default)]
    pub rolling: bool,
    /// How often the key changed: what was signed or computed with an earlier one is void.
    #[serde(default)]
    pub key_epoch: u32,
    /// The account's URL, once it exists.
    pub account_url: Option<String>,
    /// Why the account does not work.
    pub problem: Option<Problem>,
    /// Set while only an operator's act helps: nothing is ordered from it.
    #[serde(default)]
    pub halt: Option<Halt>,
    /// The CA asked not to be bothered about the account before then (Retry-After).
    #[serde(default)]
    pub retry_at: Option<Timestamp>,
    /// An operator's change, or a test, that was not tried yet.
    #[serde(default)]
    pub checking: bool,
    /// Contacts or agreement that the CA has not been told yet.
    #[serde(default)]
    pub unsent: bool,
    /// What its directory said of itself last.
    #[serde(default)]
    pub facts: Option<Facts>,
    /// Profile that is ordered where a certificate names none; `None` leaves it to the CA.
    #[serde(default)]
    pub profile: Option<String>,
    /// Common name of whoever issued the topmost certificate of the chain to take, where the CA offers several.
    #[serde(default)]
    pub preferred_chain: Option<String>,
    /// The CA's staging directory: after a failed validation the next try is rehearsed there.
    #[serde(default)]
    pub staging_directory: Option<String>,
    /// Key of our account there, and its URL.
    #[serde(default)]
    pub staging_key: Option<Sealed>,
    /// See `staging_key`.
    #[serde(default)]
    pub staging_account_url: Option<String>,
    /// When it was added.
    pub created_at: Timestamp,
    /// Limits that an operator set instead of what the CA publishes.
    #[serde(default)]
    pub limits: Limits,
    /// A CA of our own: there is no directory and no account, and nothing is validated or limited.
    #[serde(default)]
    pub private: Option<PrivateCa>,
}

/// A CA's customer (RFC 8555 §7.3.4).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct External {
    /// The key identifier.
    pub kid: String,
    /// The MAC key, base64url.
    pub key: Sealed,
}

/// What a directory says of itself; sanitised.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Facts {
    /// Terms that must be agreed to.
    pub terms_of_service: Option<String>,
    /// Whether a new account needs an external account binding.
    pub external_account_required: bool,
    /// Names that a CAA record may hold for it.
    pub caa_identities: Vec<String>,
    /// Profiles with their descriptions.
    pub profiles: BTreeMap<String, String>,
    /// Whether it offers renewal information (RFC 9773).
    pub renewal_info: bool,
}

/// Why nothing is ordered until an operator acts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Halt {
    /// Terms are not agreed to, or changed.
    Terms,
    /// The account was deactivated or revoked.
    Closed,
    /// It wants an external account binding, or another one.
    External,
    /// Its directory, its roots or our key cannot be used.
    Unusable,
    /// It was removed, and a backup of before that was restored: it never works again.
    Removed,
}

impl Issuer {
    /// The snake-case account status of the wire.
    #[must_use]
    pub fn account_status(&self) -> &'static str {
        match self.halt {
            Some(Halt::Terms) => "terms",
            Some(Halt::Closed) => "closed",
            Some(Halt::External) => "external",
            Some(Halt::Unusable) => "unusable",
            Some(Halt::Removed) => "removed",
            None if self.private.as_ref().is_some_and(|ca| ca.root().is_some()) => "private",
            None if self.rolling => "rolling",
            None if self.account_url.is_some() => "valid",
            None => "none",
        }
    }

    /// Whether it should be looked at now and then without being asked. What only an operator mends is left alone: the
    /// CA would be asked in vain.
    #[must_use]
    pub fn heals_by_itself(&self) -> bool {
        if self.private.is_some() {
            // `tasks/private_ca` looks after it.
            return false;
        }
        let is_open =
            self.account_url.is_none() || self.problem.is_some() || self.unsent || self.checking || self.rolling;
        is_open && matches!(self.halt, None | Some(Halt::Unusable))
    }

    /// Whether it is looked at now: an operator asked for it, or it may heal and the CA does not want to be left alone.
    #[must_use]
    pub fn is_tried_at(&self, now: Timestamp) -> bool {
        self.private.is_none() && (self.checking || (self.heals_by_itself() && self.rest_until(now).is_none()))
    }

    /// Until when the CA wants to be left alone about the account, while it does.
    #[must_use]
    pub fn rest_until(&self, now: Timestamp) -> Option<Timestamp> {
        self.retry_at.filter(|at| *at > now && at.duration_since(now) <= REST_MAX && self.account_url.is_none())
    }

    /// Why an order of `certificate` waits for this issuer, while it does.
    #[must_use]
    pub fn waits(&self, certificate: &str) -> Option<Problem> {
        let name = &self.name;
        if self.rolling {
            let message = format!("{certificate} waits for issuer {name}, whose account gets another key");
            let hint = format!("nothing: it goes on by itself; certwright issuers get {name} says how far it is");
            return Some(Problem::new("ISSUER_ROLLING", message, "which key the CA knows is not certain yet", hint));
        }
        if self.private.as_ref().is_some_and(|ca| ca.root().is_none()) {
            let (cause, hint) = match &self.problem {
                Some(problem) => (problem.message.clone(), problem.hint.clone()),
                None => ("its key and root are being made".to_owned(), "nothing: it goes on by itself".to_owned()),
            };
            let message = format!("{certificate} waits for issuer {name}, which has no root yet");
            return Some(Problem::new("PRIVATE_CA_NO_ROOT", message, cause, hint));
        }
        self.halt?;
        let (cause, hint) = match &self.problem {
            Some(problem) => (problem.message.clone(), problem.hint.clone()),
            None => (String::new(), format!("certwright issuers get {name} says why")),
        };
        Some(Problem::new("ISSUER_HALTED", format!("{certificate} waits for issuer {name}"), cause, hint))
    }

    /// Keeps why the account does not work. Hints name issuers as NAME: this one has a name.
    pub fn fail(&mut self, mut problem: Problem, halt: Option<Halt>) {
        problem.hint = problem.hint.replace("issuers set NAME", &format!("issuers set {}", self.name));
        self.problem = Some(problem);
        self.halt = halt;
        self.checking = false;
    }

    /// It was removed since the backup that is restored: what it could be used with goes, and what named it is told why.
    pub fn removed_since(&mut self, at: Timestamp) {
        let name = &self.name;
        let message = format!("issuer {name} was removed at {at:.0}, after the backup that was restored");
        let hint = format!(
            "give its certificates another issuer: certwright certs set NAME --issuer OTHER; then certwright issuers rm {name}"
        );
        let cause = "its keys are not taken over from the backup";
        let problem = Problem::new("ISSUER_REMOVED", message, cause, hint);
        (self.account_key, self.next_key, self.staging_key, self.external) = (None, None, None, None);
        (self.account_url, self.staging_account_url) = (None, None);
        self.rolling = false;
        if let Some(ca) = &mut self.private {
            ca.key = None;
        }
        self.fail(problem, Some(Halt::Removed));
    }

    /// Returns why it can neither be tried nor changed.
    #[must_use]
    pub fn refuses_use(&self) -> Option<&Problem> {
        self.problem.as_ref().filter(|_| self.halt == Some(Halt::Removed))
    }

    /// The key that followed is the account's key.
    pub fn roll_over(&mut self) {
        if let Some(next) = self.next_key.take() {
            self.account_key = Some(next);
            self.key_epoch = self.key_epoch.saturating_add(1);
        }
        self.rolling = false;
    }

    /// Everything works.
    pub fn works(&mut self) {
        self.problem = None;
        self.halt = None;
        self.retry_at = None;
        self.checking = false;
    }

    /// Returns the host of the directory, with its port where it is not 443: what a CA's limits belong to.
    #[must_use]
    pub fn ca_host(&self) -> String {
        host_of(&self.directory)
    }
}

/// Returns the host of a directory's URL, with its port where it is not 443.
#[must_use]
pub fn host_of(directory: &str) -> String {
    let rest = directory.split_once("://").map_or(directory, |(_, rest)| rest);
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    authority.strip_suffix(":443").unwrap_or(authority).to_ascii_lowercase()
}

/// Reads a list, a single text or nothing.
fn one_or_many<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Stored {
        Many(Vec<String>),
        One(Option<String>),
    }
    Ok(match Stored::deserialize(deserializer)? {
        Stored::Many(many) => many,
        Stored::One(one) => one.into_iter().collect(),
    })
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// An issuer with an account.
    pub(crate) fn issuer(id: &str) -> Issuer {
        let stored = serde_json::json!({"id": id, "name": id, "directory": "https://ca.test/", "root_pem": null,
            "email": "ops@example.test", "terms_accepted": true, "account_key": null, "account_url": "https://ca.test/1",
            "problem": null, "created_at": "2026-11-21T12:00:00Z"});
        serde_json::from_value(stored).unwrap()
    }

    #[test]
    fn an_issuer_of_an_earlier_version_keeps_its_contact() {
        assert_eq!(issuer("lab").contacts, ["ops@example.test"]);
        let again: Issuer = serde_json::from_value(serde_json::to_value(issuer("lab")).unwrap()).unwrap();
        assert_eq!(again, issuer("lab"));
        let without: Issuer = serde_json::from_value({
            let mut stored = serde_json::to_value(issuer("lab")).unwrap();
            stored.as_object_mut().unwrap().remove("contacts");
            stored["email"] = serde_json::Value::Null;
            stored
        })
        .unwrap();
        assert_eq!(without.contacts, [""; 0]);
    }

    #[test]
    fn a_ca_that_wants_to_be_left_alone_about_the_account_is_left_alone_unless_an_operator_asks() {
        let at = |second: i64| Timestamp::from_second(1_800_000_000 + second).unwrap();
        let mut one = Issuer { account_url: None, retry_at: Some(at(3_600)), ..issuer("lab") };
        assert!(!one.is_tried_at(at(3_599)) && one.is_tried_at(at(3_600)));
        one.checking = true;
        assert!(one.is_tried_at(at(0)));
        one.works();
        assert!(one.is_tried_at(at(0)) && one.rest_until(at(0)).is_none());
        let known = Issuer { retry_at: Some(at(3_600)), ..issuer("lab") };
        assert_eq!(known.rest_until(at(0)), None, "an account that exists does not wait to be made");
    }

    #[test]
    fn one_that_was_removed_since_the_backup_has_no_key_and_is_never_tried() {
        let now = Timestamp::from_second(1_800_000_000).unwrap();
        let mut one = issuer("lab");
        one.account_key =
            serde_json::from_value(serde_json::json!({"key_id": "1", "nonce": "", "ciphertext": ""})).ok();
        one.removed_since(now);
        assert!(!one.is_tried_at(now) && !one.heals_by_itself());
        assert_eq!((&one.account_key, &one.account_url, one.account_status()), (&None, &None, "removed"));
        assert_eq!(one.waits("web").unwrap().reason, "ISSUER_HALTED");
        assert_eq!(one.refuses_use().unwrap().reason, "ISSUER_REMOVED");
    }

    #[test]
    fn what_only_an_operator_mends_is_not_tried_again() {
        let problem = || Problem::new("X", "x", "", "certwright issuers set NAME --accept-terms");
        let mut one = issuer("lab");
        assert!(!one.heals_by_itself() && one.waits("web").is_none());
        one.fail(problem(), None);
        assert!(one.heals_by_itself() && one.waits("web").is_none(), "an outage passes");
        one.fail(problem(), Some(Halt::Terms));
        assert!(!one.heals_by_itself());
        assert_eq!(one.waits("web").unwrap().hint, "certwright issuers set lab --accept-terms");
        assert_eq!(one.account_status(), "terms");
        one.works();
        assert_eq!((one.account_status(), one.waits("web")), ("valid", None));
    }
}
