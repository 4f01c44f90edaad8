//! The fake CA against instant-acme itself: what passes here is ACME.

use instant_acme::{Account, CertificateIdentifier, ChallengeType, Identifier, Key, NewOrder, OrderStatus};
use proto::x509::spki_of_key;
use rcgen::{CertificateParams, KeyPair};

use super::*;
use crate::sim_clock::SimClock;

/// Serves whatever was published, to every vantage point.
#[derive(Debug, Default)]
struct Published(Mutex<BTreeMap<String, String>>);

#[async_trait]
impl Validator for Published {
    async fn get(&self, _vantage: usize, _host: &str, path: &str) -> Result<String, (String, String)> {
        let found = self.0.lock().unwrap().get(path).cloned();
        found.ok_or_else(|| ("unauthorized".to_owned(), format!("404 for {path}")))
    }
}

struct Bench {
    ca: FakeCa,
    published: Arc<Published>,
}

fn bench(options: Options) -> Bench {
    let published = Arc::new(Published::default());
    Bench { ca: FakeCa::new(options, Arc::new(SimClock::new()), published.clone()), published }
}

impl Bench {
    async fn account(&self) -> Account {
        let builder =
            Account::builder_with_http(self.ca.transport(PowerSwitch::new()).client(&TrustRoots::System).unwrap());
        let (key, der) = Key::generate_pkcs8().unwrap();
        builder.create_from_key((key, der.into()), FakeCa::directory_url()).await.unwrap().0
    }

    async fn order(&self, account: &Account) -> Result<instant_acme::Order, Error> {
        account.new_order(&NewOrder::new(&[Identifier::Dns("a.test".to_owned())])).await
    }

    async fn validate(&self, order: &mut instant_acme::Order) -> Result<OrderStatus, Error> {
        let mut authorizations = order.authorizations();
        while let Some(authorization) = authorizations.next().await {
            let mut authorization = authorization?;
            let mut challenge = authorization.challenge(ChallengeType::Http01).unwrap();
            let path = format!("/.well-known/acme-challenge/{}", challenge.token);
            let answer = challenge.key_authorization().as_str().to_owned();
            self.published.0.lock().unwrap().insert(path, answer);
            challenge.set_ready().await?;
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
        Ok(order.refresh().await?.status)
    }
}

fn csr(names: &[&str]) -> (KeyPair, Vec<u8>) {
    let key = KeyPair::generate().unwrap();
    let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
    let csr = CertificateParams::new(names).unwrap().serialize_request(&key).unwrap();
    (key, csr.der().to_vec())
}

#[tokio::test(start_paused = true)]
async fn a_good_client_gets_a_certificate_for_its_key_and_names() {
    let bench = bench(Options::default());
    let account = bench.account().await;
    let mut order = bench.order(&account).await.unwrap();
    assert_eq!(bench.validate(&mut order).await.unwrap(), OrderStatus::Ready);
    let (key, csr_der) = csr(&["a.test"]);
    order.finalize_csr(&csr_der).await.unwrap();
    let pem = order.certificate().await.unwrap().unwrap();
    let chain = Chain::parse_pem(pem.as_bytes()).unwrap();
    assert_eq!(chain.leaf.identifiers, ["a.test"]);
    assert_eq!(chain.leaf.spki_der, spki_of_key(&key.serialize_pem().into()).unwrap());
    assert_eq!(chain.certificates.len(), 2);
    assert_eq!(bench.ca.violations(), Vec::<String>::new());
    assert_eq!(bench.ca.counts()[&RequestKind::Finalize], 1);
    assert_eq!(bench.ca.orders()[0].status, "valid");
}

#[tokio::test(start_paused = true)]
async fn a_csr_for_other_names_and_an_early_finalize_are_refused() {
    let bench = bench(Options::default());
    let account = bench.account().await;
    let mut order = bench.order(&account).await.unwrap();
    let early = order.finalize_csr(&csr(&["a.test"]).1).await.unwrap_err();
    assert!(early.to_string().contains("orderNotReady"), "{early}");
    bench.validate(&mut order).await.unwrap();
    let other = order.finalize_csr(&csr(&["a.test", "b.test"]).1).await.unwrap_err();
    assert!(other.to_string().contains("badCSR"), "{other}");
}

#[tokio::test(start_paused = true)]
async fn an_unanswered_challenge_makes_the_order_invalid_with_its_problem() {
    let bench = bench(Options::default());
    let account = bench.account().await;
    let mut order = bench.order(&account).await.unwrap();
    bench.ca.misbehave(Mischief { refuse_validation: Some(("connection", "refused")), ..Mischief::default() });
    assert_eq!(bench.validate(&mut order).await.unwrap(), OrderStatus::Invalid);
    let mut again = account.order(order.url().to_owned()).await.unwrap();
    let mut authorizations = again.authorizations();
    let authorization = authorizations.next().await.unwrap().unwrap();
    let error = authorization.challenges[0].error.clone().unwrap();
    assert_eq!(error.r#type.as_deref(), Some("urn:ietf:params:acme:error:connection"));
}

#[tokio::test(start_paused = true)]
async fn an_open_order_is_handed_out_again_if_the_ca_does_so() {
    for (reuse_orders, orders, crowd) in [(true, 1, 1), (false, 2, 2)] {
        let bench = bench(Options { reuse_orders, ..Options::default() });
        let account = bench.account().await;
        bench.order(&account).await.unwrap();
        bench.order(&account).await.unwrap();
        assert_eq!((bench.ca.orders().len(), bench.ca.crowd_max()), (orders, crowd));
    }
}

#[tokio::test(start_paused = true)]
async fn faults_strike_when_scripted_and_end_when_healed() {
    let bench = bench(Options::default());
    let account = bench.account().await;
    let problem = |kind, retry_after| Fault::Problem { status: 429, kind, detail: "slow down", retry_after };
    for (fault, expected) in [
        (Fault::Refused, "refused"),
        (Fault::LostReply, "reset"),
        (Fault::Html(502), "expected value"),
        (Fault::Garbage, "EOF"),
        (Fault::EndlessBody, "length limit"),
        (problem("rateLimited", Some(3600)), "rateLimited"),
    ] {
        bench.ca.fail(RequestKind::NewOrder, When::First(1), fault);
        let error = bench.order(&account).await.err().unwrap();
        let chain = format!("{error} {:?}", std::error::Error::source(&error));
        assert!(chain.to_lowercase().contains(&expected.to_lowercase()), "{chain}");
        bench.ca.heal();
        bench.order(&account).await.unwrap();
    }
    bench.ca.fail(RequestKind::NewOrder, When::Always, Fault::Hang);
    assert!(tokio::time::timeout(Duration::from_secs(600), bench.order(&account)).await.is_err());
    bench.ca.heal();
    bench.ca.forget_accounts();
    let error = bench.order(&account).await.err().unwrap();
    assert!(error.to_string().contains("accountDoesNotExist"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn bad_nonces_are_survived_by_instant_acmes_own_retries() {
    let bench = bench(Options::default());
    let account = bench.account().await;
    let fault = Fault::Problem { status: 400, kind: "badNonce", detail: "try again", retry_after: None };
    bench.ca.fail(RequestKind::NewOrder, When::First(2), fault);
    bench.order(&account).await.unwrap();
    assert_eq!(bench.ca.struck(RequestKind::NewOrder), 2);
}

#[tokio::test(start_paused = true)]
async fn renewal_information_is_told_and_a_certificate_is_replaced_once() {
    let bench = bench(Options { reuse_orders: false, ..Options::default() });
    bench.ca.offer_renewal_info(Some(RenewalInfo::default()));
    let account = bench.account().await;
    let mut order = bench.order(&account).await.unwrap();
    bench.validate(&mut order).await.unwrap();
    order.finalize_csr(&csr(&["a.test"]).1).await.unwrap();
    let pem = order.certificate().await.unwrap().unwrap();
    let leaf = Chain::parse_pem(pem.as_bytes()).unwrap().leaf;
    let id = leaf.renewal_id.unwrap();
    let (issuer_key, serial) = id.split_once('.').unwrap();
    let id = CertificateIdentifier { authority_key_identifier: issuer_key.into(), serial: serial.into() };
    let (info, _wait) = account.renewal_info(&id).await.unwrap();
    assert_eq!((info.suggested_window.end - info.suggested_window.start).whole_seconds(), 90 * 86_400 / 50);

    let names = [Identifier::Dns("a.test".to_owned())];
    let replace = async |account: &Account| account.new_order(&NewOrder::new(&names).replaces(id.clone())).await;
    let kind = |refused: Result<instant_acme::Order, Error>| match refused {
        Err(Error::Api(problem)) => problem.r#type.unwrap_or_default().rsplit(':').next().unwrap().to_owned(),
        other => panic!("{:?}", other.map(|order| order.url().to_owned())),
    };
    assert_eq!(kind(replace(&bench.account().await).await), "unauthorized", "another account's certificate");
    replace(&account).await.unwrap();
    assert_eq!(kind(replace(&account).await), "alreadyReplaced");
    assert_eq!(bench.ca.orders().iter().filter(|order| order.replaces.is_some()).count(), 1);
    bench.ca.offer_renewal_info(Some(RenewalInfo { retry_after: None, ..RenewalInfo::default() }));
    account.renewal_info(&id).await.expect_err("instant-acme wants a Retry-After; the RFC only recommends it");
    assert_eq!(bench.ca.violations(), Vec::<String>::new());
}
