//! One order (RFC 8555 §7.1.3) and its authorizations, step by step. No method waits or polls: `tasks/issuance` decides
//! what is next and when.
//! ```text
//! pending ── answer ──► (server validates) ──► ready ── finalize ──► processing ──► valid ── certificate
//!    └──────────────── invalid ◄─────────────────┴─────────────────────┘
//! ```

use std::net::IpAddr;
use std::time::Duration;

use instant_acme::{
    AuthorizationHandle, AuthorizationStatus as WireAuthorization, CertificateIdentifier, ChallengeStatus,
    ChallengeType, Error, Identifier, NewOrder, Order, OrderState, OrderStatus as WireOrder,
};
use proto::text::one_line;
use proto::x509::{Chain, LeafFacts};

use crate::acme::account::Account;
use crate::acme::problem::{AcmeError, AcmeProblem, Attempt, Step};
use crate::acme::session::{Guarded, NonceTurns};

/// Most authorizations that are read for one order: as many as a certificate may have names at public CAs.
pub const AUTHORIZATIONS_MAX: usize = 100;
/// Longest token (RFC 8555 §8.1 gives no limit; servers use 43).
const TOKEN_CHARS_MAX: usize = 128;
/// Longest name of a chain's issuer that is shown, characters.
const ISSUER_CHARS_MAX: usize = 100;
/// Longest identifier, characters: a DNS name.
const IDENTIFIER_CHARS_MAX: usize = 253;

/// RFC 8555 §7.1.6.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OrderStatus {
    /// Authorizations are missing.
    Pending,
    /// May be finalised.
    Ready,
    /// The certificate is being issued.
    Processing,
    /// The certificate is there.
    Valid,
    /// Failed for good.
    Invalid,
}

impl OrderStatus {
    /// Returns the RFC's word.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Ready => "ready",
            Self::Processing => "processing",
            Self::Valid => "valid",
            Self::Invalid => "invalid",
        }
    }
}

impl From<WireOrder> for OrderStatus {
    fn from(wire: WireOrder) -> Self {
        match wire {
            WireOrder::Pending => Self::Pending,
            WireOrder::Ready => Self::Ready,
            WireOrder::Processing => Self::Processing,
            WireOrder::Valid => Self::Valid,
            WireOrder::Invalid => Self::Invalid,
        }
    }
}

/// What an order says about itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OrderFacts {
    /// Where it stands.
    pub status: OrderStatus,
    /// Why it is invalid, if the order says so itself; [`AcmeOrder::invalid_cause`] knows more.
    pub problem: Option<AcmeProblem>,
    /// How long the server asks to wait before the next question.
    pub retry_after: Option<Duration>,
}

/// RFC 8555 §7.1.6.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AuthorizationStatus {
    /// A challenge waits to be answered or checked.
    Pending,
    /// Proven.
    Valid,
    /// Failed.
    Invalid,
    /// Withdrawn by the server, expired or given up.
    Gone,
}

impl From<WireAuthorization> for AuthorizationStatus {
    fn from(wire: WireAuthorization) -> Self {
        match wire {
            WireAuthorization::Pending => Self::Pending,
            WireAuthorization::Valid => Self::Valid,
            WireAuthorization::Invalid => Self::Invalid,
            WireAuthorization::Revoked | WireAuthorization::Expired | WireAuthorization::Deactivated => Self::Gone,
        }
    }
}

/// What an authorization says about itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuthorizationFacts {
    /// The identifier, as the server writes it, lower case, sanitised; a wildcard with its `*.`.
    pub identifier: String,
    /// Where it stands.
    pub status: AuthorizationStatus,
    /// The http-01 challenge, if the server offers one.
    pub http01: Option<Http01Challenge>,
    /// Why a challenge failed.
    pub problem: Option<AcmeProblem>,
}

/// What a responder must serve (RFC 8555 §8.3). The token was checked: `^[A-Za-z0-9_-]{1,128}$`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Http01Challenge {
    /// Last part of the path.
    pub token: String,
    /// The whole body.
    pub key_authorization: String,
}

/// A chain that was downloaded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Downloaded {
    /// PEM, leaf first, unchecked.
    pub pem: String,
    /// Set when no chain is the preferred one: whose chains there are.
    pub missed: Option<String>,
}

/// One order at one server.
pub struct AcmeOrder {
    account: Account,
    guarded: Guarded,
    order: Order,
}

impl std::fmt::Debug for AcmeOrder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AcmeOrder").field("url", &self.order.url()).finish_non_exhaustive()
    }
}

impl AcmeOrder {
    pub(crate) async fn create(
        account: Account,
        line: &instant_acme::Account,
        guarded: Guarded,
        identifiers: &[String],
        (profile, replaces): (Option<&str>, Option<&str>),
    ) -> Result<Self, AcmeError> {
        let identifiers: Vec<Identifier> = identifiers.iter().map(|name| identifier(name)).collect();
        let mut turns = NonceTurns::default();
        let order = loop {
            let wanted = NewOrder::new(&identifiers);
            let wanted = match profile {
                Some(profile) => wanted.profile(profile),
                None => wanted,
            };
            let wanted = match replaces.and_then(|id| id.split_once('.')) {
                Some((issuer_key, serial)) => wanted.replaces(CertificateIdentifier {
                    authority_key_identifier: issuer_key.into(),
                    serial: serial.into(),
                }),
                None => wanted,
            };
            let result = line.new_order(&wanted).await;
            if !turns.again(&result) {
                break result;
            }
        };
        let order = order.map_err(|error| account.explain(&guarded, Step::NewOrder, error))?;
        Ok(Self { account, guarded, order })
    }

    pub(crate) async fn resume(
        account: Account,
        line: &instant_acme::Account,
        guarded: Guarded,
        url: &str,
    ) -> Result<Self, AcmeError> {
        let mut turns = NonceTurns::default();
        let order = loop {
            let result = line.order(url.to_owned()).await;
            if !turns.again(&result) {
                break result;
            }
        };
        let order = order.map_err(|error| account.explain(&guarded, Step::Order, error))?;
        Ok(Self { account, guarded, order })
    }

    /// Returns the order's URL: its name at the server. Store it before the next step.
    #[must_use]
    pub fn url(&self) -> &str {
        self.order.url()
    }

    /// Returns what is known of the order, without a request.
    #[must_use]
    pub fn facts(&mut self) -> OrderFacts {
        let retry_after = self.guarded.last.get().and_then(|answer| answer.retry_after);
        order_facts(self.order.state(), retry_after)
    }

    /// Returns the authorizations: one request each the first time and after [`Self::refresh`].
    ///
    /// # Errors
    /// When the server refuses, names too many, or gives a token that may not be used.
    pub async fn authorizations(&mut self) -> Result<Vec<AuthorizationFacts>, AcmeError> {
        let ca = self.guarded.session.ca();
        if self.order.state().authorizations.len() > AUTHORIZATIONS_MAX {
            let attempt = Attempt { ca, step: Step::Order };
            let source = format!("more than {AUTHORIZATIONS_MAX} authorizations").into();
            return Err(AcmeError::Protocol { attempt, source });
        }
        let mut turns = NonceTurns::default();
        let read = loop {
            let result = read_authorizations(&mut self.order).await;
            if !turns.again(&result) {
                break result;
            }
        };
        let read = read.map_err(|error| self.account.explain(&self.guarded, Step::Authorization, error))?;
        read.into_iter()
            .map(|facts| facts.map_err(|identifier| AcmeError::Token { ca: ca.clone(), identifier }))
            .collect()
    }

    /// Tells the server that the http-01 challenge of `identifier` may be checked (RFC 8555 §7.5.1): one request. Does
    /// nothing if the authorization needs no answer any more, so it may be repeated.
    ///
    /// # Errors
    /// When the server refuses, or offers no http-01 challenge.
    pub async fn answer(&mut self, identifier: &str) -> Result<(), AcmeError> {
        let mut turns = NonceTurns::default();
        let answered = loop {
            let result = answer(&mut self.order, identifier).await;
            if !turns.again(&result) {
                break result;
            }
        };
        let answered = answered
            .map_err(|error| self.account.explain(&self.guarded, Step::Challenge(identifier.to_owned()), error))?;
        match answered {
            Answered::Sent | Answered::NotNeeded => Ok(()),
            Answered::NoChallenge => {
                Err(AcmeError::NoChallenge { ca: self.guarded.session.ca(), identifier: identifier.to_owned() })
            }
        }
    }

    /// Reads the order: one request.
    ///
    /// # Errors
    /// When the server refuses.
    pub async fn refresh(&mut self) -> Result<OrderFacts, AcmeError> {
        let mut turns = NonceTurns::default();
        let read = loop {
            let result = self.order.refresh().await.map(|_state| ());
            if !turns.again(&result) {
                break result;
            }
        };
        read.map_err(|error| self.account.explain(&self.guarded, Step::Order, error))?;
        Ok(self.facts())
    }

    /// Sends the CSR (RFC 8555 §7.4): one request, or none if it was accepted before.
    ///
    /// # Errors
    /// When the server refuses the CSR or the order is not ready.
    pub async fn finalize(&mut self, csr_der: &[u8]) -> Result<OrderFacts, AcmeError> {
        if matches!(self.order.state().status, WireOrder::Processing | WireOrder::Valid) {
            return Ok(self.facts());
        }
        let mut turns = NonceTurns::default();
        let sent = loop {
            let result = self.order.finalize_csr(csr_der).await;
            if !turns.again(&result) {
                break result;
            }
        };
        sent.map_err(|error| self.account.explain(&self.guarded, Step::Finalize, error))?;
        Ok(self.facts())
    }

    /// Downloads the certificate of a valid order: one request, and one for each alternate chain until one fits
    /// `preferred`, the common name of whoever issued the topmost certificate.
    ///
    /// # Errors
    /// When the order is not valid, or the server refuses. An alternate that cannot be read is passed over.
    pub async fn certificate(&mut self, preferred: Option<&str>) -> Result<Downloaded, AcmeError> {
        let pem = self.default_chain().await?;
        let Some(preferred) = preferred else { return Ok(Downloaded { pem, missed: None }) };
        let mut offered = vec![topmost_issuer(&pem)];
        if offered.iter().any(|name| name.eq_ignore_ascii_case(preferred)) {
            return Ok(Downloaded { pem, missed: None });
        }
        for uri in self.guarded.last.alternates() {
            let Ok(reply) = self.account.download(Step::Certificate, &uri).await else { continue };
            let alternate = String::from_utf8_lossy(&reply.body).into_owned();
            let name = topmost_issuer(&alternate);
            if name.eq_ignore_ascii_case(preferred) {
                return Ok(Downloaded { pem: alternate, missed: None });
            }
            offered.push(name);
        }
        Ok(Downloaded { pem, missed: Some(offered.join(", ")) })
    }

    /// The chain that the server prefers. PEM, leaf first, unchecked.
    async fn default_chain(&mut self) -> Result<String, AcmeError> {
        let status = OrderStatus::from(self.order.state().status);
        if status != OrderStatus::Valid {
            return Err(AcmeError::NotIssued { ca: self.guarded.session.ca(), status: status.word() });
        }
        let mut turns = NonceTurns::default();
        let pem = loop {
            let result = self.order.certificate().await;
            if !turns.again(&result) {
                break result;
            }
        };
        let pem = pem.map_err(|error| self.account.explain(&self.guarded, Step::Certificate, error))?;
        pem.ok_or_else(|| AcmeError::NotIssued { ca: self.guarded.session.ca(), status: status.word() })
    }

    /// Finds out why an invalid order is invalid: the problem of a failed authorization, else the order's own. Costs one
    /// request per authorization; a failure to ask is swallowed in favour of what is known.
    pub async fn invalid_cause(&mut self) -> AcmeError {
        let ca = self.guarded.session.ca();
        let authorizations = self.authorizations().await.unwrap_or_default();
        for facts in authorizations {
            if let Some(problem) = facts.problem {
                return AcmeError::OrderInvalid { ca, identifier: Some(facts.identifier), problem };
            }
        }
        AcmeError::OrderInvalid { ca, identifier: None, problem: self.facts().problem.unwrap_or_default() }
    }
}

/// Returns who issued the topmost certificate of a chain, sanitised; empty when it does not parse.
fn topmost_issuer(pem: &str) -> String {
    let chain = Chain::parse_pem(pem.as_bytes()).ok();
    let top = chain.as_ref().and_then(|chain| chain.certificates.last()).and_then(|der| LeafFacts::parse(der).ok());
    top.map(|top| one_line(&top.issuer_cn, ISSUER_CHARS_MAX)).unwrap_or_default()
}

fn identifier(name: &str) -> Identifier {
    match name.parse::<IpAddr>() {
        Ok(address) => Identifier::Ip(address),
        Err(_not_an_address) => Identifier::Dns(name.to_owned()),
    }
}

fn order_facts(state: &OrderState, retry_after: Option<Duration>) -> OrderFacts {
    OrderFacts {
        status: state.status.into(),
        problem: state.error.as_ref().map(|problem| AcmeProblem::read(problem, None)),
        retry_after,
    }
}

/// Reads all authorizations; those that were read before cost nothing.
async fn read_authorizations(order: &mut Order) -> Result<Vec<Result<AuthorizationFacts, String>>, Error> {
    let mut facts = Vec::new();
    let mut authorizations = order.authorizations();
    while let Some(authorization) = authorizations.next().await {
        facts.push(authorization_facts(authorization?));
    }
    Ok(facts)
}

/// Returns what an authorization says, or its identifier if its token may not be used.
fn authorization_facts(handle: AuthorizationHandle<'_>) -> Result<AuthorizationFacts, String> {
    let mut handle = handle; // with a lifetime that ends here: `challenge` borrows for all of it
    let name = shown_identifier(&handle);
    let status = handle.status.into();
    let problem = handle.challenges.iter().find_map(|challenge| challenge.error.as_ref());
    let problem = problem.map(|problem| AcmeProblem::read(problem, None));
    let http01 = match handle.challenge(ChallengeType::Http01) {
        Some(challenge) if is_token(&challenge.token) => Some(Http01Challenge {
            token: challenge.token.clone(),
            key_authorization: challenge.key_authorization().as_str().to_owned(),
        }),
        Some(_) => return Err(name),
        None => None,
    };
    Ok(AuthorizationFacts { identifier: name, status, http01, problem })
}

fn shown_identifier(handle: &AuthorizationHandle<'_>) -> String {
    one_line(&handle.identifier().to_string().to_ascii_lowercase(), IDENTIFIER_CHARS_MAX)
}

/// RFC 8555 §8.1: base64url characters only. What becomes part of a path is checked before anyone sees it.
fn is_token(token: &str) -> bool {
    (1..=TOKEN_CHARS_MAX).contains(&token.len())
        && token.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-')
}

enum Answered {
    Sent,
    NotNeeded,
    NoChallenge,
}

async fn answer(order: &mut Order, identifier: &str) -> Result<Answered, Error> {
    let mut authorizations = order.authorizations();
    while let Some(authorization) = authorizations.next().await {
        let mut authorization = authorization?;
        if !shown_identifier(&authorization).eq_ignore_ascii_case(identifier) {
            continue;
        }
        if authorization.status != WireAuthorization::Pending {
            return Ok(Answered::NotNeeded);
        }
        return match authorization.challenge(ChallengeType::Http01) {
            Some(challenge) if challenge.status != ChallengeStatus::Pending => Ok(Answered::NotNeeded),
            Some(mut challenge) => challenge.set_ready().await.map(|()| Answered::Sent),
            None => Ok(Answered::NoChallenge),
        };
    }
    Ok(Answered::NoChallenge)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::acme::canned::{Canned, CannedCa};
    use crate::acme::problem::Retry;

    #[allow(dead_code, reason = "compiles only if tasks may run these on any thread")]
    fn every_step_may_run_on_any_thread(mut order: AcmeOrder, account: &Account) {
        fn is_send<T: Send>(_: T) {}
        is_send(account.new_order(&[], None, None));
        is_send(account.resume(""));
        is_send(order.authorizations());
        is_send(order.answer(""));
        is_send(order.refresh());
        is_send(order.finalize(&[]));
        is_send(order.certificate(None));
        is_send(order.invalid_cause());
    }

    fn names() -> Vec<String> {
        vec!["h1.example.test".to_owned()]
    }

    async fn order(ca: &CannedCa) -> AcmeOrder {
        let order = ca.warm_account().await.new_order(&names(), None, None).await.unwrap();
        ca.lines();
        order
    }

    /// The whole road of one certificate on a warm account.
    async fn issue(account: &Account) -> String {
        let mut order = account.new_order(&names(), None, None).await.unwrap();
        let authorizations = order.authorizations().await.unwrap();
        assert_eq!(authorizations[0].identifier, "h1.example.test");
        order.answer("h1.example.test").await.unwrap();
        assert_eq!(order.refresh().await.unwrap().status, OrderStatus::Ready);
        assert_eq!(order.finalize(b"csr").await.unwrap().status, OrderStatus::Processing);
        assert_eq!(order.refresh().await.unwrap().status, OrderStatus::Valid);
        order.certificate(None).await.unwrap().pem
    }

    #[tokio::test]
    async fn a_warm_account_needs_seven_requests_per_certificate() {
        let ca = CannedCa::new();
        let account = ca.warm_account().await;
        for _certificate in 0..2 {
            ca.document("/order/1", ca.order("ready"));
            assert_eq!(issue(&account).await, "PEM");
            assert_eq!(
                ca.lines(),
                [
                    "POST /order",
                    "POST /authz/1",
                    "POST /chall/1",
                    "POST /order/1",
                    "POST /order/1/finalize",
                    "POST /order/1",
                    "POST /cert/1",
                ]
            );
        }
    }

    #[tokio::test]
    async fn orders_of_one_account_run_side_by_side_without_a_refused_nonce() {
        let ca = CannedCa::new();
        let account = ca.warm_account().await;
        let names = names();
        let orders = futures_util::future::join_all((0..8).map(|_order| account.new_order(&names, None, None))).await;
        for order in orders {
            order.unwrap().refresh().await.unwrap();
        }
        let asked = ca.lines();
        assert_eq!(asked.iter().filter(|line| line.starts_with("POST")).count(), 16);
        assert_eq!(asked.iter().filter(|line| line.starts_with("HEAD")).count(), 7);
    }

    #[tokio::test]
    async fn a_challenge_names_its_token_and_the_key_authorization() {
        let ca = CannedCa::new();
        let mut order = order(&ca).await;
        let authorization = order.authorizations().await.unwrap().remove(0);
        let http01 = authorization.http01.unwrap();
        assert_eq!(http01.token, "token-1_A");
        assert_eq!(http01.key_authorization.split_once('.').unwrap().0, "token-1_A");
        assert_eq!(http01.key_authorization.split_once('.').unwrap().1.len(), 43, "a SHA-256 in base64url");
        order.authorizations().await.unwrap();
        assert_eq!(ca.lines(), ["POST /authz/1"], "the second look is free");
    }

    #[tokio::test]
    async fn a_token_that_could_be_a_path_is_given_to_nobody() {
        let long = "a".repeat(129);
        for token in ["../../etc/x", "", "a/b", "a.b", "a%2fb", "a b", "a\u{0}b", "ä", long.as_str()] {
            let ca = CannedCa::new();
            ca.document("/authz/1", ca.authorization(token));
            let error = order(&ca).await.authorizations().await.unwrap_err();
            assert_eq!(error.problem().reason, "ACME_TOKEN_INVALID", "{token:?}");
            assert!(!format!("{error} {:?}", error.problem()).contains("etc"), "nor shown");
        }
        assert!(is_token(&"a".repeat(128)) && is_token("-_09azAZ"));
    }

    #[tokio::test]
    async fn an_answer_is_sent_only_while_the_authorization_waits_for_it() {
        let ca = CannedCa::new();
        let mut order = order(&ca).await;
        order.answer("H1.EXAMPLE.test").await.unwrap();
        assert_eq!(ca.lines(), ["POST /authz/1", "POST /chall/1"]);
        let mut valid = ca.authorization("t");
        valid["status"] = json!("valid");
        ca.document("/authz/1", valid);
        order.refresh().await.unwrap();
        order.answer("h1.example.test").await.unwrap();
        assert_eq!(ca.lines(), ["POST /order/1", "POST /authz/1"]);
        let error = order.answer("other.example.test").await.unwrap_err();
        assert_eq!(error.problem().reason, "ACME_NO_HTTP01");
    }

    #[tokio::test]
    async fn a_resumed_order_goes_on_where_it_was() {
        let ca = CannedCa::new();
        let account = ca.warm_account().await;
        ca.document("/order/1", ca.order("valid"));
        let mut order = account.resume("https://ca.test/order/1").await.unwrap();
        assert_eq!(order.url(), "https://ca.test/order/1");
        assert_eq!(
            order.finalize(b"csr").await.unwrap().status,
            OrderStatus::Valid,
            "finalised before: nothing is sent"
        );
        order.certificate(None).await.unwrap();
        assert_eq!(ca.lines(), ["POST /order/1", "POST /cert/1"]);
        let gone = account.resume("https://ca.test/order/9").await.unwrap_err();
        assert!(gone.is_not_found());
    }

    #[tokio::test]
    async fn a_certificate_is_asked_for_only_when_the_order_is_valid() {
        let ca = CannedCa::new();
        let mut order = order(&ca).await;
        assert_eq!(order.certificate(None).await.unwrap_err().problem().reason, "ACME_NOT_ISSUED");
        assert_eq!(ca.lines(), [""; 0]);
    }

    #[tokio::test]
    async fn an_invalid_order_is_explained_by_the_challenge_that_failed() {
        let ca = CannedCa::new();
        let mut order = order(&ca).await;
        let mut failed = ca.authorization("t");
        failed["status"] = json!("invalid");
        failed["challenges"][1]["error"] = json!({
            "type": "urn:ietf:params:acme:error:connection", "detail": "192.0.2.1: Connection refused\u{1b}[2J"
        });
        ca.document("/authz/1", failed);
        ca.document("/order/1", ca.order("invalid"));
        assert_eq!(order.refresh().await.unwrap().status, OrderStatus::Invalid);
        let error = order.invalid_cause().await;
        let problem = error.problem();
        assert_eq!((problem.reason.as_str(), error.retry()), ("ACME_CONNECTION", Retry::Now));
        assert_eq!(problem.message, "ca.test could not validate h1.example.test");
        assert!(problem.cause.contains("192.0.2.1: Connection refused<U+001B>[2J"), "{}", problem.cause);
    }

    #[tokio::test]
    async fn an_invalid_order_without_a_failed_challenge_is_explained_by_itself() {
        let ca = CannedCa::new();
        let mut order = order(&ca).await;
        let mut invalid = ca.order("invalid");
        invalid["error"] = json!({"type": "urn:ietf:params:acme:error:caa", "detail": "forbidden"});
        ca.document("/order/1", invalid);
        order.refresh().await.unwrap();
        assert_eq!(order.invalid_cause().await.problem().reason, "ACME_CAA");
        ca.next("/authz/1", Canned::Refused);
        order.refresh().await.unwrap();
        assert_eq!(order.invalid_cause().await.problem().reason, "ACME_CAA", "also when the CA is gone now");
    }

    #[tokio::test]
    async fn a_refused_csr_says_so_and_is_tried_once_a_day() {
        let ca = CannedCa::new();
        let mut order = order(&ca).await;
        ca.next("/order/1/finalize", Canned::Problem(400, "badCSR"));
        let error = order.finalize(b"csr").await.unwrap_err();
        assert_eq!((error.problem().reason.as_str(), error.retry()), ("ACME_BAD_CSR", Retry::Daily(None)));
        ca.next("/order/1/finalize", Canned::Problem(403, "orderNotReady"));
        let error = order.finalize(b"csr").await.unwrap_err();
        assert_eq!((error.problem().reason.as_str(), error.retry()), ("ACME_ORDER_NOT_READY", Retry::Now));
    }

    #[tokio::test]
    async fn a_wait_that_the_server_asks_for_is_reported() {
        let ca = CannedCa::new();
        let mut order = order(&ca).await;
        let body = ca.order("processing").to_string();
        ca.next("/order/1", Canned::Answer(200, vec![("Retry-After", "7".to_owned())], body));
        assert_eq!(order.refresh().await.unwrap().retry_after, Some(Duration::from_secs(7)));
        assert_eq!(order.refresh().await.unwrap().retry_after, None);
    }

    #[tokio::test]
    async fn an_order_with_too_many_authorizations_is_refused_before_they_are_read() {
        let ca = CannedCa::new();
        let mut large = ca.order("pending");
        large["authorizations"] = json!(vec!["https://ca.test/authz/1"; 101]);
        ca.document("/order", large);
        let error = order(&ca).await.authorizations().await.unwrap_err();
        assert_eq!(error.problem().reason, "CA_NOT_ACME");
        assert_eq!(ca.lines(), [""; 0]);
    }

    #[tokio::test]
    async fn a_status_that_the_rfc_does_not_know_is_an_error_not_a_guess() {
        let ca = CannedCa::new();
        let mut order = order(&ca).await;
        ca.document("/order/1", ca.order("enlightened"));
        assert_eq!(order.refresh().await.unwrap_err().problem().reason, "CA_NOT_ACME");
    }

    #[tokio::test]
    async fn names_and_addresses_are_different_identifiers() {
        let ca = CannedCa::new();
        let account = ca.warm_account().await;
        account.new_order(&["*.example.test".to_owned(), "2001:db8::1".to_owned()], None, None).await.unwrap();
        let payload = ca.asked().pop().unwrap().payload;
        let expected = json!([{"type": "dns", "value": "*.example.test"}, {"type": "ip", "value": "2001:db8::1"}]);
        assert_eq!(payload["identifiers"], expected);
    }
}
