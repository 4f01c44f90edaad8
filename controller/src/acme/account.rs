//! Accounts at ACME servers (RFC 8555 §7.3), and the one place that remembers conversations. It never makes an account
//! key on its own: the caller seals a key first, so that a crash finds the same account again. Called by
//! `tasks/issuance` and by the RPC of issuers.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use instant_acme::AccountBuilder;
use jiff::SignedDuration;
use proto::clock::Clock;
use proto::text::one_line;
use proto::x509;
use rcgen::KeyPair;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use secrecy::SecretString;
use serde_json::{Value, json};

use crate::acme::directory::{Directory, DirectoryFacts};
use crate::acme::http::{Line, Reply, Transport, Wire};
use crate::acme::jws::{ExternalAccount, Signer, SigningKey};
use crate::acme::order::AcmeOrder;
use crate::acme::pace::Pacer;
use crate::acme::problem::{AcmeError, Attempt, Step};
use crate::acme::session::{Guarded, Session};
use crate::lifecycle::clock_skew::{Verdict, Witnesses};
use crate::lifecycle::issuer::host_of;
use crate::lifecycle::rate_limit::{RequestPace, default_pace};

/// Longest word for an account's status that is shown.
const STATUS_CHARS_MAX: usize = 32;

/// An account's private key: PKCS#8 PEM, P-256.
#[derive(Clone, Debug)]
pub struct AccountKey(pub SecretString);

impl AccountKey {
    /// Makes a new key.
    ///
    /// # Errors
    /// When the system gives no random numbers.
    pub fn generate() -> Result<Self, AcmeError> {
        let key = KeyPair::generate().map_err(|source| AcmeError::AccountKey { source: source.into() })?;
        Ok(Self(key.serialize_pem().into()))
    }

    pub(crate) fn read(&self) -> Result<PrivatePkcs8KeyDer<'static>, AcmeError> {
        match x509::parse_key(&self.0).map_err(|source| AcmeError::AccountKey { source: source.into() })? {
            PrivateKeyDer::Pkcs8(der) => Ok(der),
            _ => Err(AcmeError::AccountKey { source: "not PKCS#8".into() }),
        }
    }
}

/// Whether the operator agreed to the CA's terms of service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AccountTerms {
    /// `--accept-terms` was given.
    Accepted,
    /// It was not: an account is made only if the CA has no terms.
    NotAccepted,
}

/// What a server says of the account of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It may order; this is its URL.
    Valid(String),
    /// The server knows no account of this key.
    Unknown,
    /// Deactivated by us or revoked by the CA (RFC 8555 §7.3.6): it never orders again.
    Closed,
}

/// All conversations with ACME servers: one per directory and trust, with the accounts in it.
pub struct Acme {
    transport: Arc<dyn Transport>,
    clock: Arc<dyn Clock>,
    requests: Arc<AtomicU64>,
    sessions: Mutex<HashMap<Directory, Slot>>,
    /// By host of the directory.
    pacers: Mutex<HashMap<String, Arc<Pacer>>>,
    witnesses: Arc<Mutex<Witnesses>>,
}

/// One directory's session; its lock is held while the directory is read, so that it is read once.
type Slot = Arc<tokio::sync::Mutex<Option<Arc<Session>>>>;

impl Acme {
    /// Makes the room; asks nobody.
    #[must_use]
    pub fn new(transport: Arc<dyn Transport>, clock: Arc<dyn Clock>) -> Self {
        Self {
            transport,
            clock,
            requests: Arc::default(),
            sessions: Mutex::default(),
            pacers: Mutex::default(),
            witnesses: Arc::default(),
        }
    }

    /// Sets how fast the CA of this directory may be asked, by all issuers there.
    pub fn set_pace(&self, directory: &Directory, pace: RequestPace) {
        self.pacer(&host_of(&directory.url)).set(pace);
    }

    /// Judges our clock by what the CAs said, and by what connected agents say (theirs minus ours).
    #[must_use]
    pub fn judge_clock(&self, agents: &[SignedDuration]) -> Verdict {
        self.witnesses.lock().unwrap_or_else(PoisonError::into_inner).judge(agents)
    }

    /// Our clock leapt by so much.
    pub fn clock_leapt(&self, by: SignedDuration) {
        self.witnesses.lock().unwrap_or_else(PoisonError::into_inner).leapt(by);
    }

    fn pacer(&self, host: &str) -> Arc<Pacer> {
        let mut pacers = self.pacers.lock().unwrap_or_else(PoisonError::into_inner);
        let pacer = pacers.entry(host.to_owned()).or_insert_with(|| Arc::new(Pacer::new(default_pace())));
        Arc::clone(pacer)
    }

    /// Returns how many requests were sent so far, to all servers.
    #[must_use]
    pub fn requests(&self) -> u64 {
        self.requests.load(Ordering::Relaxed)
    }

    /// Reads a directory anew and returns what it says about itself; for an operator who adds or tests an issuer.
    ///
    /// # Errors
    /// When there is no ACME server at that URL, or none we trust.
    pub async fn probe_directory(&self, directory: &Directory) -> Result<DirectoryFacts, AcmeError> {
        let slot = self.slot(directory);
        let mut session = slot.lock().await;
        let opened = self.open(directory).await?;
        Ok(session.insert(opened).document.facts.clone())
    }

    /// Returns the account of `key`. With its URL known (or used before) this costs no request once the directory is
    /// read; otherwise the account is found or made and its contacts are set. `contacts` are URIs (`mailto:`).
    ///
    /// Without `known_url` it may be repeated after a crash: the same key finds the same account. `external` binds a new
    /// account to a customer of the CA.
    ///
    /// # Errors
    /// When the server refuses, or the terms were not accepted.
    pub async fn account(
        &self,
        directory: &Directory,
        key: &AccountKey,
        contacts: &[String],
        terms: AccountTerms,
        external: Option<&ExternalAccount>,
        known_url: Option<&str>,
    ) -> Result<Account, AcmeError> {
        let session = self.session(directory).await?;
        let der = key.read()?;
        let spki = x509::spki_of_key(&key.0).map_err(|source| AcmeError::AccountKey { source: source.into() })?;
        let known = known_url.map(str::to_owned).or_else(|| session.known_account(&spki));
        let account = match known {
            Some(url) => Account { session, key: Arc::new(der), url },
            None => {
                let account = Account::register(session, der, terms, external).await?;
                if !contacts.is_empty() {
                    account.update(&json!({"contact": contacts})).await?;
                }
                account
            }
        };
        account.session.remember_account(spki, account.url.clone());
        Ok(account)
    }

    /// Asks whether the server knows an account of this key (RFC 8555 §7.3.1), and makes none.
    ///
    /// # Errors
    /// When the server does not say.
    pub async fn standing(&self, directory: &Directory, key: &AccountKey) -> Result<Standing, AcmeError> {
        let session = self.session(directory).await?;
        let guarded = Guarded::new(Arc::clone(&session));
        let signing = SigningKey::read(&key.read()?)?;
        let payload = json!({"onlyReturnExisting": true});
        let uri = &session.document.new_account;
        match guarded.post(Step::Account, (&signing, Signer::Key), uri, Some(&payload)).await {
            Ok(reply) => match account_url(&session, &reply) {
                Ok(url) => Ok(Standing::Valid(url)),
                Err(error) if error.is_account_closed() => Ok(Standing::Closed),
                Err(error) => Err(error),
            },
            Err(error) if error.is_account_gone() => Ok(Standing::Unknown),
            Err(error) if error.is_account_refused() => Ok(Standing::Closed),
            Err(error) => Err(error),
        }
    }

    /// Gives the account another key (RFC 8555 §7.3.5): one request. After a crash [`Self::standing`] of either key says
    /// whether it was done.
    ///
    /// # Errors
    /// When the server refuses, or offers no key change.
    pub async fn change_key(
        &self,
        directory: &Directory,
        account_url: &str,
        old: &AccountKey,
        new: &AccountKey,
    ) -> Result<(), AcmeError> {
        let session = self.session(directory).await?;
        let Some(uri) = session.document.key_change.clone() else {
            return Err(AcmeError::NoKeyChange { ca: session.ca() });
        };
        let guarded = Guarded::new(Arc::clone(&session));
        let (old, new) = (SigningKey::read(&old.read()?)?, SigningKey::read(&new.read()?)?);
        let inner = new.succeed(&old, account_url, &uri.to_string())?;
        guarded.post(Step::KeyChange, (&old, Signer::Account(account_url)), &uri, Some(&inner)).await?;
        session.forget_account(account_url);
        Ok(())
    }

    /// Forgets what is remembered of a directory: its accounts are asked for again.
    pub fn forget(&self, directory: &Directory) {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner).remove(directory);
    }

    pub(super) async fn session(&self, directory: &Directory) -> Result<Arc<Session>, AcmeError> {
        let slot = self.slot(directory);
        let mut slot = slot.lock().await;
        match slot.as_ref() {
            Some(session) if session.is_fresh(self.clock.now()) => Ok(Arc::clone(session)),
            _ => Ok(Arc::clone(slot.insert(self.open(directory).await?))),
        }
    }

    async fn open(&self, directory: &Directory) -> Result<Arc<Session>, AcmeError> {
        let client = self.transport.client(&directory.roots)?;
        let host = host_of(&directory.url);
        let line = Line { pacer: self.pacer(&host), witnesses: Arc::clone(&self.witnesses), host };
        let wire = Wire::new(client, Arc::clone(&self.clock), Arc::clone(&self.requests), line);
        Ok(Arc::new(Session::open(directory, wire, self.clock.now()).await?))
    }

    fn slot(&self, directory: &Directory) -> Slot {
        let mut sessions = self.sessions.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(sessions.entry(directory.clone()).or_default())
    }
}

impl fmt::Debug for Acme {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Acme").field("transport", &self.transport).finish_non_exhaustive()
    }
}

/// One account at one server. Cheap to clone; its orders may run in parallel.
#[derive(Clone)]
pub struct Account {
    session: Arc<Session>,
    key: Arc<PrivatePkcs8KeyDer<'static>>,
    url: String,
}

impl Account {
    /// Finds or makes the account of a key (RFC 8555 §7.3).
    async fn register(
        session: Arc<Session>,
        key: PrivatePkcs8KeyDer<'static>,
        terms: AccountTerms,
        external: Option<&ExternalAccount>,
    ) -> Result<Self, AcmeError> {
        let facts = &session.document.facts;
        match (&facts.terms_of_service, terms) {
            (Some(url), AccountTerms::NotAccepted) => {
                return Err(AcmeError::TermsNotAccepted { ca: session.ca(), terms: url.clone() });
            }
            (Some(_), AccountTerms::Accepted) | (None, _) => {}
        }
        if facts.external_account_required && external.is_none() {
            return Err(AcmeError::ExternalAccountRequired { ca: session.ca() });
        }
        let guarded = Guarded::new(Arc::clone(&session));
        let signing = SigningKey::read(&key)?;
        let uri = &session.document.new_account;
        let payload = match external {
            Some(external) => {
                let binding = signing.bind(external, &uri.to_string())?;
                json!({"termsOfServiceAgreed": true, "externalAccountBinding": binding})
            }
            None => json!({"termsOfServiceAgreed": true}),
        };
        let reply = guarded.post(Step::Account, (&signing, Signer::Key), uri, Some(&payload)).await;
        let reply = reply.map_err(|error| guarded.outdated(error).of_external_account(external.is_some()))?;
        Ok(Self { url: account_url(&session, &reply)?, session, key: Arc::new(key) })
    }

    /// Returns the account's URL: its name at the server.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Changes the account's own facts (RFC 8555 §7.3.2, §7.3.3): `contact` replaces them all, `termsOfServiceAgreed`
    /// agrees to the terms as they are now.
    ///
    /// # Errors
    /// When the server refuses them.
    pub async fn update(&self, facts: &Value) -> Result<(), AcmeError> {
        let guarded = Guarded::new(Arc::clone(&self.session));
        let signing = SigningKey::read(&self.key)?;
        let attempt = Attempt { ca: self.session.ca(), step: Step::Contacts };
        let uri = self.url.parse::<http::Uri>();
        let uri = uri.map_err(|source| AcmeError::Protocol { attempt, source: Box::new(source) })?;
        let reply = guarded.post(Step::Contacts, (&signing, Signer::Account(&self.url)), &uri, Some(facts)).await;
        let reply = reply.inspect_err(|error| {
            if error.is_account_gone() {
                self.session.forget_account(&self.url);
            }
        })?;
        refuse_closed(&self.session, &reply)
    }

    /// Returns what the directory says about itself, as it was read last.
    #[must_use]
    pub fn directory(&self) -> &DirectoryFacts {
        &self.session.document.facts
    }

    /// Whether the CA takes orders that name the certificate they replace (RFC 9773 §5).
    #[must_use]
    pub fn offers_renewal_info(&self) -> bool {
        self.session.document.renewal_info.is_some()
    }

    /// Makes an order (RFC 8555 §7.4). Identifiers are DNS names in A-label form, or IP addresses. A `profile` must be
    /// one that [`Self::directory`] lists: a server without profiles ignores it. `replaces` names the certificate that the
    /// new one takes the place of, as RFC 9773 §4.1 calls it.
    ///
    /// # Errors
    /// When the server refuses it.
    pub async fn new_order(
        &self,
        identifiers: &[String],
        profile: Option<&str>,
        replaces: Option<&str>,
    ) -> Result<AcmeOrder, AcmeError> {
        let (account, guarded) = self.line().await?;
        AcmeOrder::create(self.clone(), &account, guarded, identifiers, (profile, replaces)).await
    }

    /// Downloads what a URL of the account names: a POST-as-GET.
    pub(crate) async fn download(&self, step: Step, uri: &http::Uri) -> Result<Reply, AcmeError> {
        let guarded = Guarded::new(Arc::clone(&self.session));
        let signing = SigningKey::read(&self.key)?;
        guarded.post(step, (&signing, Signer::Account(&self.url)), uri, None).await
    }

    /// Reads an order that was made before, by its URL.
    ///
    /// # Errors
    /// When the server does not know it ([`AcmeError::is_not_found`]) or refuses.
    pub async fn resume(&self, order_url: &str) -> Result<AcmeOrder, AcmeError> {
        let (account, guarded) = self.line().await?;
        AcmeOrder::resume(self.clone(), &account, guarded, order_url).await
    }

    /// Returns instant-acme's view of this account with a guard of its own. No request: the directory is in memory.
    pub(crate) async fn line(&self) -> Result<(instant_acme::Account, Guarded), AcmeError> {
        let guarded = Guarded::new(Arc::clone(&self.session));
        let url = self.session.document.uri.to_string();
        let account = builder(&guarded).from_parts(self.url.clone(), self.key.clone_key(), url).await;
        let account = account.map_err(|error| guarded.explain(Step::Account, error))?;
        Ok((account, guarded))
    }

    /// Says what an error means, and forgets the account if the server has.
    pub(crate) fn explain(&self, guarded: &Guarded, step: Step, error: instant_acme::Error) -> AcmeError {
        let error = guarded.explain(step, error);
        if error.is_account_gone() {
            self.session.forget_account(&self.url);
        }
        error
    }
}

impl fmt::Debug for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Account").field("url", &self.url).finish_non_exhaustive()
    }
}

/// Returns the URL of the account that a newAccount answer is about.
fn account_url(session: &Session, reply: &Reply) -> Result<String, AcmeError> {
    refuse_closed(session, reply)?;
    let url = reply.parts.headers.get(http::header::LOCATION).and_then(|url| url.to_str().ok());
    url.map(str::to_owned).ok_or_else(|| AcmeError::Protocol {
        attempt: Attempt { ca: session.ca(), step: Step::Account },
        source: "the answer names no account".into(),
    })
}

/// An answer may be about an account that never orders again.
fn refuse_closed(session: &Session, reply: &Reply) -> Result<(), AcmeError> {
    let attempt = || Attempt { ca: session.ca(), step: Step::Account };
    let account: Value = serde_json::from_slice(&reply.body)
        .map_err(|source| AcmeError::Protocol { attempt: attempt(), source: Box::new(source) })?;
    match account.get("status").and_then(Value::as_str) {
        Some("valid") => Ok(()),
        Some(status) => Err(AcmeError::AccountClosed { ca: session.ca(), status: one_line(status, STATUS_CHARS_MAX) }),
        None => Err(AcmeError::Protocol { attempt: attempt(), source: "the answer is about no account".into() }),
    }
}

fn builder(guarded: &Guarded) -> AccountBuilder {
    instant_acme::Account::builder_with_http(Box::new(guarded.clone()))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::acme::canned::{Canned, CannedCa};
    use crate::acme::problem::Retry;

    fn contacts() -> Vec<String> {
        vec!["mailto:ops@example.test".to_owned()]
    }

    #[tokio::test]
    async fn an_account_is_made_with_its_key_and_then_told_its_contacts() {
        let ca = CannedCa::new();
        let acme = ca.acme();
        let key = AccountKey::generate().unwrap();
        let directory = CannedCa::directory();
        let account = acme.account(&directory, &key, &contacts(), AccountTerms::Accepted, None, None).await.unwrap();
        assert_eq!(account.url(), "https://ca.test/account/1");
        let asked = ca.asked();
        assert_eq!(ca.lines(), ["GET /dir", "HEAD /nonce", "POST /account", "POST /account/1"]);
        assert_eq!(asked[2].payload["termsOfServiceAgreed"], json!(true));
        assert_eq!(asked[3].payload, json!({"contact": ["mailto:ops@example.test"]}));
        acme.account(&directory, &key, &contacts(), AccountTerms::Accepted, None, None).await.unwrap();
        assert_eq!(ca.lines(), [""; 0], "known now");
        assert_eq!(acme.requests(), 4);
    }

    #[tokio::test]
    async fn an_account_whose_url_is_known_costs_only_the_directory() {
        let ca = CannedCa::new();
        let key = AccountKey::generate().unwrap();
        let url = Some("https://ca.test/account/1");
        let directory = CannedCa::directory();
        ca.acme().account(&directory, &key, &contacts(), AccountTerms::NotAccepted, None, url).await.unwrap();
        assert_eq!(ca.lines(), ["GET /dir"]);
    }

    #[tokio::test]
    async fn no_account_is_made_before_the_terms_are_accepted() {
        let ca = CannedCa::new();
        let key = AccountKey::generate().unwrap();
        let directory = CannedCa::directory();
        let refused =
            ca.acme().account(&directory, &key, &[], AccountTerms::NotAccepted, None, None).await.unwrap_err();
        let problem = refused.problem();
        assert_eq!(
            (problem.reason.as_str(), problem.cause.as_str()),
            ("ACME_TERMS_NOT_ACCEPTED", "https://ca.test/terms")
        );
        assert_eq!(refused.retry(), Retry::Never);
        assert_eq!(ca.lines(), ["GET /dir"]);
        let urls = json!({"newNonce": "https://ca.test/nonce", "newAccount": "https://ca.test/account",
            "newOrder": "https://ca.test/order"});
        ca.document("/dir", urls);
        ca.acme()
            .account(&directory, &key, &[], AccountTerms::NotAccepted, None, None)
            .await
            .expect("no terms, no question");
    }

    #[tokio::test]
    async fn an_external_account_is_asked_for_before_the_server_refuses() {
        let ca = CannedCa::new();
        ca.document(
            "/dir",
            json!({"newNonce": "https://ca.test/nonce", "newAccount": "https://ca.test/account",
            "newOrder": "https://ca.test/order", "meta": {"externalAccountRequired": true}}),
        );
        let key = AccountKey::generate().unwrap();
        let error =
            ca.acme().account(&CannedCa::directory(), &key, &[], AccountTerms::Accepted, None, None).await.unwrap_err();
        assert_eq!(error.problem().reason, "ACME_EXTERNAL_ACCOUNT");
        assert_eq!(ca.lines(), ["GET /dir"]);
    }

    #[tokio::test]
    async fn an_account_that_the_server_forgot_is_made_again_with_the_same_key() {
        let ca = CannedCa::new();
        let acme = ca.acme();
        let key = AccountKey::generate().unwrap();
        let directory = CannedCa::directory();
        let account = acme.account(&directory, &key, &[], AccountTerms::Accepted, None, None).await.unwrap();
        ca.next("/order", Canned::Problem(400, "accountDoesNotExist"));
        let error = account.new_order(&["h1.example.test".to_owned()], None, None).await.unwrap_err();
        assert!(error.is_account_gone());
        assert_eq!((error.problem().reason.as_str(), error.retry()), ("ACME_ACCOUNT_GONE", Retry::Now));
        ca.lines();
        acme.account(&directory, &key, &[], AccountTerms::Accepted, None, None).await.unwrap();
        assert_eq!(ca.lines(), ["POST /account"]);
    }

    #[tokio::test]
    async fn refused_contacts_leave_the_account_to_the_next_try() {
        let ca = CannedCa::new();
        let acme = ca.acme();
        let key = AccountKey::generate().unwrap();
        let directory = CannedCa::directory();
        ca.next("/account/1", Canned::Problem(400, "invalidContact"));
        let error = acme.account(&directory, &key, &contacts(), AccountTerms::Accepted, None, None).await.unwrap_err();
        assert_eq!(error.problem().reason, "ACME_INVALID_CONTACT");
        ca.lines();
        acme.account(&directory, &key, &contacts(), AccountTerms::Accepted, None, None).await.unwrap();
        assert_eq!(ca.lines(), ["POST /account", "POST /account/1"]);
    }

    #[tokio::test]
    async fn a_key_that_is_not_p256_is_refused_here() {
        let p384 = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).unwrap().serialize_pem();
        for pem in [p384.as_str(), "not a key"] {
            let ca = CannedCa::new();
            let key = AccountKey(pem.into());
            let error = ca
                .acme()
                .account(&CannedCa::directory(), &key, &[], AccountTerms::Accepted, None, None)
                .await
                .unwrap_err();
            assert_eq!(error.problem().reason, "ACCOUNT_KEY_UNUSABLE");
            assert!(!format!("{error:?} {key:?}").contains("BEGIN"), "a key is never shown");
        }
    }
}
