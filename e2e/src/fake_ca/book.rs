//! The books of the fake CA: accounts, orders, authorizations, certificates, and how they move (RFC 8555 §7.1.6).
//! Synchronous and without faults; `fake_ca` verifies requests before and spoils answers after.

mod kept;
mod order;
mod renewal;

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

pub(super) use order::{Order, Validation};
pub use renewal::{RenewalInfo, Window};

use super::authority::Authority;
use super::fault::Mischief;
use super::jws::{self, Jws, PublicKey, Signer};

/// A problem document in the making: HTTP status, ACME error type without prefix, detail.
#[derive(Debug)]
pub(super) struct Refusal(pub(super) u16, pub(super) &'static str, pub(super) String);

/// What the server says when it does what was asked.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) location: Option<String>,
    /// Where another chain for the same leaf is (§7.4.2).
    pub(super) alternate: Option<String>,
    pub(super) body: Content,
    /// Set when a challenge was answered: the server has to look now.
    pub(super) validate: Option<Validation>,
    /// Retry-After, as it is written.
    pub(super) retry_after: Option<String>,
}

#[derive(Debug)]
pub(super) enum Content {
    Json(Value),
    Pem(String),
}

#[derive(Debug, Deserialize, Serialize)]
pub(super) struct Account {
    pub(super) key: PublicKey,
    pub(super) contacts: Vec<String>,
    /// Which terms it agreed to.
    terms: u32,
    pub(super) deactivated: bool,
}

/// One identifier of one account, with its challenge.
#[derive(Debug, Deserialize, Serialize)]
pub(super) struct Authorization {
    pub(super) account: usize,
    pub(super) identifier: String,
    pub(super) token: String,
    pub(super) state: State,
    pub(super) expires: Timestamp,
}

/// Status of an authorization and its one challenge.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub(super) enum State {
    Pending,
    Processing,
    Valid,
    Invalid(Value),
}

/// A certificate that was issued.
#[derive(Debug, Deserialize, Serialize)]
pub(super) struct Issued {
    pub(super) pem: String,
    /// RFC 9773 §4.1.
    pub(super) renewal_id: String,
    pub(super) at: Timestamp,
    pub(super) not_before: Timestamp,
    pub(super) not_after: Timestamp,
}

/// Everything the CA knows.
#[derive(Debug)]
pub(super) struct Book {
    base: String,
    pub(super) accounts: Vec<Account>,
    pub(super) orders: Vec<Order>,
    pub(super) authorizations: Vec<Authorization>,
    pub(super) certificates: Vec<Issued>,
    /// What was revoked, with the reason code.
    pub(super) revoked: BTreeMap<usize, u64>,
    pub(super) authority: Authority,
    pub(super) policy: Policy,
    /// Lifetimes in seconds by the end of the first name, the last one first.
    pub(super) lifetimes_under: Vec<(String, i64)>,
    pub(super) mischief: Mischief,
    /// What is said of renewals (RFC 9773); nothing: the directory does not offer it.
    pub(super) renewal_info: Option<RenewalInfo>,
    /// Windows of their own, by the end of the first name, the last one first.
    pub(super) windows_under: Vec<(String, Window)>,
    /// Accounts below this number are forgotten.
    forgotten: usize,
    /// Profiles it offers; none means that it does not know of profiles and ignores them.
    pub(super) profiles: Vec<String>,
    /// How often the terms changed.
    pub(super) terms: u32,
    /// The customer whom new accounts must be bound to: key identifier and MAC key.
    pub(super) customer: Option<(String, Vec<u8>)>,
    nonces: BTreeSet<String>,
    nonces_given: u64,
    /// What a client did that no good client does.
    pub(super) violations: Vec<String>,
    /// Most orders open at once for one account and identifier set.
    pub(super) crowd: BTreeMap<(usize, Vec<String>), usize>,
}

/// What this CA does by choice.
#[derive(Clone, Copy, Debug)]
pub(super) struct Policy {
    pub(super) reuse_orders: bool,
    pub(super) reuse_authorizations: bool,
    pub(super) lifetime_seconds: i64,
    pub(super) backdate_seconds: i64,
}

impl Book {
    pub(super) fn new(base: String, policy: Policy, now: Timestamp) -> Self {
        Self {
            base,
            accounts: Vec::new(),
            orders: Vec::new(),
            authorizations: Vec::new(),
            certificates: Vec::new(),
            revoked: BTreeMap::new(),
            authority: Authority::new(now),
            policy,
            lifetimes_under: Vec::new(),
            mischief: Mischief::default(),
            renewal_info: None,
            windows_under: Vec::new(),
            forgotten: 0,
            profiles: Vec::new(),
            terms: 0,
            customer: None,
            nonces: BTreeSet::new(),
            nonces_given: 0,
            violations: Vec::new(),
            crowd: BTreeMap::new(),
        }
    }

    pub(super) fn url(&self, what: &str, index: usize) -> String {
        format!("{}/{what}/{index}", self.base)
    }

    pub(super) fn directory(&self) -> Value {
        let base = &self.base;
        let mut directory = json!({
            "newNonce": format!("{base}/new-nonce"),
            "newAccount": format!("{base}/new-account"),
            "newOrder": format!("{base}/new-order"),
            "revokeCert": format!("{base}/revoke-cert"),
            "keyChange": format!("{base}/key-change"),
            "meta": {
                "termsOfService": format!("{base}/terms/{}", self.terms),
                "caaIdentities": ["ca.test"],
                "externalAccountRequired": self.customer.is_some(),
            },
        });
        for profile in &self.profiles {
            directory["meta"]["profiles"][profile] = format!("{base}/profiles/{profile}").into();
        }
        if self.renewal_info.is_some() {
            directory["renewalInfo"] = format!("{base}/renewal-info").into();
        }
        directory
    }

    pub(super) fn nonce(&mut self) -> String {
        self.nonces_given += 1;
        let nonce = format!("nonce-{:08}", self.nonces_given);
        self.nonces.insert(nonce.clone());
        nonce
    }

    /// Takes the nonce, checks URL and signature, and returns the account; `None` for a new one.
    pub(super) fn authenticate(&mut self, jws: &Jws, url: &str) -> Result<(PublicKey, Option<usize>), Refusal> {
        if !self.nonces.remove(&jws.nonce) {
            return Err(Refusal(400, "badNonce", "the nonce is not known or was used".to_owned()));
        }
        if jws.url != url {
            self.violations.push(format!("signed for {} and sent to {url}", jws.url));
            return Err(Refusal(401, "unauthorized", "the url of the header is another one".to_owned()));
        }
        let is_new_account = url == format!("{}/new-account", self.base);
        let (key, account) = match &jws.signer {
            Signer::Key(key) if is_new_account => (key.clone(), self.account_of(key)),
            Signer::Account(kid) if !is_new_account => {
                let index = (self.forgotten..self.accounts.len()).find(|index| self.url("account", *index) == *kid);
                let index = index.ok_or_else(|| Refusal(400, "accountDoesNotExist", format!("no account {kid}")))?;
                (self.accounts[index].key.clone(), Some(index))
            }
            _ => {
                self.violations.push(format!("wrong kind of signer for {url}"));
                return Err(Refusal(400, "malformed", "jwk is for newAccount only, kid for all else".to_owned()));
            }
        };
        if account.is_some_and(|index| self.accounts[index].deactivated) {
            return Err(Refusal(403, "unauthorized", "the account is deactivated".to_owned()));
        }
        if !jws.is_signed_by(&key) {
            self.violations.push(format!("bad signature for {url}"));
            return Err(Refusal(401, "unauthorized", "the signature does not verify".to_owned()));
        }
        Ok((key, account))
    }

    fn account_of(&self, key: &PublicKey) -> Option<usize> {
        (self.forgotten..self.accounts.len()).find(|index| self.accounts[*index].key == *key)
    }

    /// newAccount (§7.3): the same key gets the same account.
    pub(super) fn new_account(
        &mut self,
        key: PublicKey,
        known: Option<usize>,
        payload: &Value,
    ) -> Result<Answer, Refusal> {
        let index = match known {
            Some(index) => index,
            None if payload["onlyReturnExisting"] == true => {
                return Err(Refusal(400, "accountDoesNotExist", "no account for this key".to_owned()));
            }
            None if payload["termsOfServiceAgreed"] != true => {
                return Err(Refusal(403, "userActionRequired", "the terms of service are not agreed to".to_owned()));
            }
            None => {
                if let Some((kid, mac)) = &self.customer {
                    jws::check_binding(&payload["externalAccountBinding"], kid, mac, &key)
                        .map_err(|detail| Refusal(403, "unauthorized", detail))?;
                }
                let terms = self.terms;
                self.accounts.push(Account { key, contacts: contacts(payload), terms, deactivated: false });
                self.accounts.len() - 1
            }
        };
        let mut answer = self.account(index, &Value::Null);
        answer.status = if known.is_some() { 200 } else { 201 };
        answer.location = Some(self.url("account", index));
        Ok(answer)
    }

    /// Reads or updates an account (§7.3.2).
    pub(super) fn account(&mut self, index: usize, payload: &Value) -> Answer {
        if payload.get("contact").is_some() {
            self.accounts[index].contacts = contacts(payload);
        }
        if payload["termsOfServiceAgreed"] == true {
            self.accounts[index].terms = self.terms;
        }
        Answer::json(200, json!({ "status": "valid", "contact": self.accounts[index].contacts }))
    }

    /// New terms stop an account until it agrees (§7.3.3).
    pub(super) fn agrees(&self, account: usize) -> Result<(), Refusal> {
        if self.accounts[account].terms == self.terms {
            return Ok(());
        }
        let detail = format!("the terms have changed: {}/terms/{}", self.base, self.terms);
        Err(Refusal(403, "userActionRequired", detail))
    }

    /// keyChange (§7.3.5): the account signs what its new key signed.
    pub(super) fn key_change(&mut self, account: usize, payload: &Value, url: &str) -> Result<Answer, Refusal> {
        let malformed = |detail: &str| Refusal(400, "malformed", detail.to_owned());
        let inner = Jws::parse_inner(payload.to_string().as_bytes()).map_err(|detail| malformed(&detail))?;
        let Signer::Key(key) = &inner.signer else { return Err(malformed("the inner part names no key")) };
        if inner.url != url || !inner.is_signed_by(key) {
            return Err(malformed("the inner part is not signed by its key"));
        }
        let change: Value = serde_json::from_slice(&inner.payload).map_err(|error| malformed(&error.to_string()))?;
        let old = PublicKey::parse(&change["oldKey"]).map_err(|detail| malformed(&detail))?;
        if change["account"] != self.url("account", account).as_str() || old != self.accounts[account].key {
            return Err(malformed("the inner part is about another account or key"));
        }
        if self.account_of(key).is_some() {
            return Err(Refusal(409, "malformed", "the new key has an account".to_owned()));
        }
        self.accounts[account].key = key.clone();
        Ok(self.account(account, &Value::Null))
    }

    /// Forgets every account, as a test CA does when it is reset.
    pub(super) fn forget_accounts(&mut self) {
        self.forgotten = self.accounts.len();
    }
}

impl Answer {
    pub(super) fn json(status: u16, value: Value) -> Self {
        Self { status, location: None, alternate: None, body: Content::Json(value), validate: None, retry_after: None }
    }
}

fn contacts(payload: &Value) -> Vec<String> {
    let list = payload.get("contact").and_then(Value::as_array);
    list.into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
}

/// Returns a problem document (RFC 7807) with an ACME type.
pub(super) fn problem(status: u16, kind: &str, detail: &str) -> Value {
    json!({ "type": format!("urn:ietf:params:acme:error:{kind}"), "detail": detail, "status": status })
}
