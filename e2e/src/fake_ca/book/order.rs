//! Orders and their authorizations (RFC 8555 §7.4, §7.5). Part of the books; nothing here waits.

use jiff::{SignedDuration, Timestamp};
use proto::x509::{Chain, CsrFacts};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{Answer, Authorization, Book, Content, Issued, Refusal, State, problem};
use crate::fake_ca::authority::LeafPlan;

/// Life of orders and authorizations: 7 days, as at Let's Encrypt.
const PENDING_LIFE: SignedDuration = SignedDuration::from_hours(7 * 24);
/// Most identifiers of one order, as at Let's Encrypt.
const IDENTIFIERS_MAX: usize = 100;

/// An order.
#[derive(Debug, Deserialize, Serialize)]
pub(in crate::fake_ca) struct Order {
    pub(in crate::fake_ca) account: usize,
    pub(in crate::fake_ca) identifiers: Vec<String>,
    pub(in crate::fake_ca) profile: Option<String>,
    authorizations: Vec<usize>,
    expires: Timestamp,
    csr_der: Option<Vec<u8>>,
    polls_left: u32,
    pub(in crate::fake_ca) certificate: Option<usize>,
    error: Option<Value>,
    /// The certificate it replaces (RFC 9773 §5).
    pub(in crate::fake_ca) replaces: Option<String>,
}

/// Something to look at over HTTP (§8.3).
#[derive(Clone, Debug)]
pub(in crate::fake_ca) struct Validation {
    pub(in crate::fake_ca) authorization: usize,
    pub(in crate::fake_ca) host: String,
    pub(in crate::fake_ca) token: String,
    pub(in crate::fake_ca) key_authorization: String,
}

impl Book {
    /// newOrder.
    pub(in crate::fake_ca) fn new_order(
        &mut self,
        account: usize,
        payload: &Value,
        now: Timestamp,
    ) -> Result<Answer, Refusal> {
        self.agrees(account)?;
        let identifiers = identifiers(payload)?;
        let profile = self.profile(payload)?;
        let replaces = payload.get("replaces").and_then(Value::as_str).map(str::to_owned);
        let open = |order: &Order, book: &Self| {
            order.account == account
                && order.identifiers == identifiers
                && order.profile == profile
                && matches!(book.status(order, now), "pending" | "ready" | "processing")
        };
        let same: Vec<_> = (0..self.orders.len()).filter(|index| open(&self.orders[*index], self)).collect();
        let reusable = same.iter().copied().find(|index| self.status(&self.orders[*index], now) != "processing");
        if let Some(index) = reusable.filter(|_| self.policy.reuse_orders) {
            return Ok(self.order_answer(201, index, now));
        }
        if let Some(replaces) = &replaces {
            self.check_replaces(account, &identifiers, replaces, now)?;
        }
        let authorizations = identifiers.iter().map(|name| self.authorization_for(account, name, now)).collect();
        let crowd = self.crowd.entry((account, identifiers.clone())).or_default();
        *crowd = (*crowd).max(same.len() + 1);
        self.orders.push(Order {
            account,
            identifiers,
            profile,
            authorizations,
            expires: now + PENDING_LIFE,
            csr_der: None,
            polls_left: 0,
            certificate: None,
            error: None,
            replaces,
        });
        Ok(self.order_answer(201, self.orders.len() - 1, now))
    }

    /// A server that does not know of profiles ignores them; one that does refuses what it does not offer.
    fn profile(&self, payload: &Value) -> Result<Option<String>, Refusal> {
        let profile = payload.get("profile").and_then(Value::as_str).map(str::to_owned);
        match profile.filter(|_| !self.profiles.is_empty()) {
            Some(profile) if !self.profiles.contains(&profile) => {
                Err(Refusal(400, "invalidProfile", format!("no profile {profile}")))
            }
            profile => Ok(profile),
        }
    }

    fn authorization_for(&mut self, account: usize, identifier: &str, now: Timestamp) -> usize {
        let reusable = self.authorizations.iter().position(|found| {
            found.account == account
                && found.identifier == identifier
                && found.state == State::Valid
                && found.expires > now
        });
        if let Some(index) = reusable.filter(|_| self.policy.reuse_authorizations) {
            return index;
        }
        let made = format!("token-{:04}-{identifier}", self.authorizations.len()).replace(['.', '*'], "_");
        self.authorizations.push(Authorization {
            account,
            identifier: identifier.to_owned(),
            token: made,
            state: State::Pending,
            expires: now + PENDING_LIFE,
        });
        self.authorizations.len() - 1
    }

    /// Status of an order (§7.1.6), derived from everything else.
    pub(in crate::fake_ca) fn status(&self, order: &Order, now: Timestamp) -> &'static str {
        let states = || order.authorizations.iter().map(|index| &self.authorizations[*index].state);
        if order.certificate.is_some() {
            "valid"
        } else if order.error.is_some()
            || order.expires <= now
            || states().any(|state| matches!(state, State::Invalid(_)))
        {
            "invalid"
        } else if order.csr_der.is_some() {
            "processing"
        } else if states().all(|state| *state == State::Valid) {
            "ready"
        } else {
            "pending"
        }
    }

    fn order_answer(&self, status: u16, index: usize, now: Timestamp) -> Answer {
        let order = &self.orders[index];
        let authorizations: Vec<_> =
            order.authorizations.iter().map(|index| self.url("authorization", *index)).collect();
        let identifiers: Vec<_> = order.identifiers.iter().map(|name| identifier_value(name)).collect();
        let mut value = json!({
            "status": self.status(order, now),
            "expires": order.expires.to_string(),
            "identifiers": identifiers,
            "authorizations": authorizations,
            "finalize": self.url("finalize", index),
        });
        if let Some(error) = &order.error {
            value["error"] = error.clone();
        }
        if let Some(replaces) = &order.replaces {
            value["replaces"] = replaces.as_str().into();
        }
        if let Some(certificate) = order.certificate {
            value["certificate"] = self.url("certificate", certificate).into();
        }
        Answer { location: Some(self.url("order", index)), ..Answer::json(status, value) }
    }

    fn order_of(&self, account: usize, index: usize) -> Result<&Order, Refusal> {
        let order = self.orders.get(index).ok_or_else(|| missing("order"))?;
        if order.account == account { Ok(order) } else { Err(foreign()) }
    }

    /// POST-as-GET of an order: each poll of a processing one brings it nearer to its certificate.
    pub(in crate::fake_ca) fn order(
        &mut self,
        account: usize,
        index: usize,
        now: Timestamp,
    ) -> Result<Answer, Refusal> {
        let order = self.order_of(account, index)?;
        if self.status(order, now) == "processing" {
            let order = &mut self.orders[index];
            order.polls_left = order.polls_left.saturating_sub(1);
            if order.polls_left == 0 {
                self.issue(index, now);
            }
        }
        Ok(self.order_answer(200, index, now))
    }

    /// POST-as-GET of an authorization.
    pub(in crate::fake_ca) fn authorization(&self, account: usize, index: usize) -> Result<Answer, Refusal> {
        let found = self.authorizations.get(index).ok_or_else(|| missing("authorization"))?;
        if found.account != account {
            return Err(foreign());
        }
        let status = match found.state {
            State::Pending | State::Processing => "pending",
            State::Valid => "valid",
            State::Invalid(_) => "invalid",
        };
        let wildcard = found.identifier.strip_prefix("*.");
        let mut challenges = vec![json!({
            "type": "dns-01", "url": self.url("other-challenge", index), "status": "pending", "token": self.shown_token(found),
        })];
        if wildcard.is_none() {
            challenges.insert(0, self.challenge_value(index));
        }
        let mut value = json!({
            "status": status,
            "expires": found.expires.to_string(),
            "identifier": identifier_value(wildcard.unwrap_or(&found.identifier)),
            "challenges": challenges,
        });
        if wildcard.is_some() {
            value["wildcard"] = true.into();
        }
        Ok(Answer::json(200, value))
    }

    fn shown_token<'a>(&'a self, authorization: &'a Authorization) -> &'a str {
        self.mischief.token.as_deref().unwrap_or(&authorization.token)
    }

    fn challenge_value(&self, index: usize) -> Value {
        let found = &self.authorizations[index];
        let (status, error) = match &found.state {
            State::Pending => ("pending", None),
            State::Processing => ("processing", None),
            State::Valid => ("valid", None),
            State::Invalid(error) => ("invalid", Some(error.clone())),
        };
        let mut value = json!({
            "type": "http-01", "url": self.url("challenge", index), "status": status, "token": self.shown_token(found),
        });
        if let Some(error) = error {
            value["error"] = error;
        }
        value
    }

    /// POST to a challenge: "I am ready, look now" (§7.5.1).
    pub(in crate::fake_ca) fn challenge(
        &mut self,
        account: usize,
        index: usize,
        payload: &Value,
    ) -> Result<Answer, Refusal> {
        let found = self.authorizations.get_mut(index).ok_or_else(|| missing("challenge"))?;
        if found.account != account {
            return Err(foreign());
        }
        let ready = payload.as_object().is_some_and(serde_json::Map::is_empty);
        let mut validate = None;
        if ready && found.state == State::Pending {
            found.state = State::Processing;
            validate = Some(Validation {
                authorization: index,
                host: found.identifier.clone(),
                token: found.token.clone(),
                key_authorization: format!("{}.{}", found.token, self.accounts[account].key.thumbprint),
            });
        } else if ready && found.state != State::Processing {
            self.violations.push(format!("challenge {index} was answered again in state {:?}", found.state));
        }
        Ok(Answer { validate, ..Answer::json(200, self.challenge_value(index)) })
    }

    /// Records what the look found.
    pub(in crate::fake_ca) fn validated(&mut self, index: usize, found: Result<(), (String, String)>) {
        self.authorizations[index].state = match found {
            Ok(()) => State::Valid,
            Err((kind, detail)) => State::Invalid(problem(403, &kind, &detail)),
        };
    }

    /// POST to finalize (§7.4): the CSR must be signed by its key and carry exactly the names of the order.
    pub(in crate::fake_ca) fn finalize(
        &mut self,
        account: usize,
        index: usize,
        payload: &Value,
        now: Timestamp,
    ) -> Result<Answer, Refusal> {
        let order = self.order_of(account, index)?;
        let csr_der = csr(payload)?;
        if order.csr_der.as_ref().is_some_and(|known| *known != csr_der) {
            self.violations.push(format!("order {index} was finalized with two CSRs"));
            return Err(Refusal(403, "orderNotReady", "the order has another CSR".to_owned()));
        }
        let status = self.status(order, now);
        if status != "ready" {
            return Err(Refusal(403, "orderNotReady", format!("the order is {status}")));
        }
        let facts = CsrFacts::parse(&csr_der).map_err(|error| Refusal(400, "badCSR", error.to_string()))?;
        let mut names = facts.identifiers.clone();
        names.sort();
        if names != order.identifiers {
            return Err(Refusal(400, "badCSR", format!("the CSR is for {names:?}")));
        }
        let polls_left = self.mischief.processing_polls;
        let order = &mut self.orders[index];
        order.csr_der = Some(csr_der);
        order.polls_left = polls_left;
        if polls_left == 0 {
            self.issue(index, now);
        }
        Ok(self.order_answer(200, index, now))
    }

    fn issue(&mut self, index: usize, now: Timestamp) {
        let order = &mut self.orders[index];
        if let Some((kind, detail)) = self.mischief.fail_issuance {
            order.error = Some(problem(500, kind, detail));
            return;
        }
        let mut identifiers = order.identifiers.clone();
        identifiers.extend(self.mischief.extra_name.clone());
        let first = identifiers.first().map_or("", String::as_str);
        let special = self.lifetimes_under.iter().rev().find(|(suffix, _)| first.ends_with(suffix));
        let lifetime = special.map_or(self.policy.lifetime_seconds, |(_, seconds)| *seconds);
        let mut not_before = now - SignedDuration::from_secs(self.policy.backdate_seconds);
        if self.mischief.already_expired {
            not_before -= SignedDuration::from_secs(2 * lifetime);
        }
        let plan = LeafPlan {
            csr_der: order.csr_der.as_deref().expect("issue follows finalize"),
            identifiers: &identifiers,
            not_before,
            not_after: not_before + SignedDuration::from_secs(lifetime),
            other_key: self.mischief.other_key,
        };
        match self.authority.issue(&plan) {
            Ok(pem) => {
                let leaf = Chain::parse_pem(pem.as_bytes()).expect("our own chain").leaf;
                self.certificates.push(Issued {
                    pem,
                    renewal_id: leaf.renewal_id.expect("our leaves name their issuer's key"),
                    at: now,
                    not_before: leaf.not_before,
                    not_after: leaf.not_after,
                });
                order.certificate = Some(self.certificates.len() - 1);
            }
            Err(error) => order.error = Some(problem(500, "serverInternal", &error)),
        }
    }

    /// POST to revokeCert (§7.6), signed by the account that ordered it.
    pub(in crate::fake_ca) fn revoke(&mut self, account: usize, payload: &Value) -> Result<Answer, Refusal> {
        use base64::Engine as _;
        let text = payload["certificate"].as_str().unwrap_or_default();
        let der = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(text);
        let der = der.map_err(|error| Refusal(400, "malformed", error.to_string()))?;
        let is_it = |issued: &Issued| {
            let chain = Chain::parse_pem(issued.pem.as_bytes()).expect("we issued it");
            chain.certificates.first().map(AsRef::as_ref) == Some(der.as_slice())
        };
        let number = self.certificates.iter().position(is_it).ok_or_else(|| missing("certificate"))?;
        let order = self.orders.iter().find(|order| order.certificate == Some(number));
        if order.ok_or_else(|| missing("certificate"))?.account != account {
            return Err(foreign());
        }
        if self.revoked.contains_key(&number) {
            return Err(Refusal(400, "alreadyRevoked", "it is revoked".to_owned()));
        }
        self.revoked.insert(number, payload["reason"].as_u64().unwrap_or(0));
        Ok(Answer::json(200, Value::Null))
    }

    /// POST-as-GET of a certificate (§7.4.2), or of its alternate chain.
    pub(in crate::fake_ca) fn certificate(
        &self,
        account: usize,
        index: usize,
        is_alternate: bool,
    ) -> Result<Answer, Refusal> {
        let order = self.orders.iter().find(|order| order.certificate == Some(index));
        if order.ok_or_else(|| missing("certificate"))?.account != account {
            return Err(foreign());
        }
        let pem = self.certificates[index].pem.clone();
        let pem = if is_alternate { self.authority.under_the_other_root(&pem) } else { pem };
        let alternate = (!is_alternate).then(|| self.url("alternate", index));
        Ok(Answer { alternate, body: Content::Pem(pem), ..Answer::json(200, Value::Null) })
    }
}

/// An identifier (§9.7.7, RFC 8738 §3).
fn identifier_value(name: &str) -> Value {
    let kind = if name.parse::<std::net::IpAddr>().is_ok() { "ip" } else { "dns" };
    json!({ "type": kind, "value": name })
}

fn missing(what: &str) -> Refusal {
    Refusal(404, "malformed", format!("no such {what}"))
}

fn foreign() -> Refusal {
    Refusal(403, "unauthorized", "it belongs to another account".to_owned())
}

fn csr(payload: &Value) -> Result<Vec<u8>, Refusal> {
    use base64::Engine as _;
    let text = payload.get("csr").and_then(Value::as_str).unwrap_or_default();
    let engine = base64::engine::general_purpose::URL_SAFE_NO_PAD;
    engine.decode(text).map_err(|error| Refusal(400, "badCSR", error.to_string()))
}

fn identifiers(payload: &Value) -> Result<Vec<String>, Refusal> {
    let list = payload.get("identifiers").and_then(Value::as_array);
    let mut names = Vec::new();
    for entry in list.into_iter().flatten() {
        let name = entry["value"].as_str().unwrap_or_default();
        let well_formed = !name.is_empty() && name.is_ascii() && !name.ends_with('.') && name == name.to_lowercase();
        let kind = if name.parse::<std::net::IpAddr>().is_ok() { "ip" } else { "dns" };
        if entry["type"] != kind || !well_formed {
            return Err(Refusal(400, "rejectedIdentifier", format!("{entry} is not accepted")));
        }
        names.push(name.to_owned());
    }
    names.sort();
    names.dedup();
    if names.is_empty() || names.len() > IDENTIFIERS_MAX {
        return Err(Refusal(400, "malformed", format!("{} identifiers", names.len())));
    }
    Ok(names)
}
