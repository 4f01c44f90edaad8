//! The rooms `acme`, `dns` and `preflight` against real servers: Debian's Pebble and pebble-challtestsrv, on free loopback
//! ports. Never skips: without these programs it fails and says what to install. Pebble deadlocks now and then under
//! parallel orders, so orders run one by one here and the whole test has a deadline.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test that cannot go on has failed; clippy allows this only inside test functions"
)]

use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use controller::acme::account::{Account, AccountKey, AccountTerms, Acme, Standing};
use controller::acme::directory::Directory;
use controller::acme::http::TrustRoots;
use controller::acme::order::{AuthorizationStatus, OrderStatus};
use controller::acme::transport::HyperTransport;
use controller::dns::lookup::{Lookup, LookupError, Resolver};
use controller::preflight::probe::{Probe, Scheme, TcpProbe};
use controller::preflight::{self, Verdict};
use proto::clock::SystemClock;
use proto::x509::Chain;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, SanType};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep, timeout};

const TEST_TIME_MAX: Duration = Duration::from_secs(60);
const START_TIME_MAX: Duration = Duration::from_secs(20);
const NAME: &str = "h1.example.test";
/// Pebble's pauses, refused nonces and reused authorizations are off.
const QUICK: [(&str, &str); 3] =
    [("PEBBLE_VA_NOSLEEP", "1"), ("PEBBLE_WFE_NONCEREJECT", "0"), ("PEBBLE_AUTHZREUSE", "0")];

/// Both servers; they end with it.
struct Lab {
    folder: tempfile::TempDir,
    directory: Directory,
    dns: SocketAddr,
    http: SocketAddr,
    control: SocketAddr,
    acme: SocketAddr,
    pebble: Child,
    _names: Child,
}

impl Lab {
    async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let [acme, management, http, control] = free_ports();
        let dns = SocketAddr::from((Ipv4Addr::LOCALHOST, free_dns_port()));
        let root = listener_identity(folder.path());
        let config = json!({ "pebble": {
            "listenAddress": acme.to_string(), "managementListenAddress": management.to_string(),
            "certificate": folder.path().join("listener.pem"), "privateKey": folder.path().join("listener.key"),
            "httpPort": http.port(), "tlsPort": 1, "ocspResponderURL": "", "externalAccountBindingRequired": false,
            "domainBlocklist": ["blocked.example.test"]
        }});
        let config_path = folder.path().join("pebble.json");
        std::fs::write(&config_path, config.to_string()).unwrap();
        let (dns_text, http_text, control_text) = (dns.to_string(), http.to_string(), control.to_string());
        let names = [
            "-defaultIPv4",
            "127.0.0.1",
            "-defaultIPv6",
            "",
            "-https01",
            "",
            "-tlsalpn01",
            "",
            "-dns01",
            &dns_text,
            "-http01",
            &http_text,
            "-management",
            &control_text,
        ];
        let names = server("/usr/bin/pebble-challtestsrv", &names, folder.path());
        let pebble = pebble_server(folder.path(), dns);
        for address in [acme, http, control] {
            listening(address, folder.path()).await;
        }
        let directory =
            Directory { url: format!("https://localhost:{}/dir", acme.port()), roots: TrustRoots::Pem(root) };
        Self { folder, directory, dns, http, control, acme, pebble, _names: names }
    }

    /// Ends Pebble and starts it again: it has forgotten everything.
    async fn restart_pebble(&mut self) {
        self.pebble.kill().await.unwrap();
        self.pebble = pebble_server(self.folder.path(), self.dns);
        listening(self.acme, self.folder.path()).await;
    }

    /// Tells challtestsrv something.
    async fn tell(&self, call: &str, body: &serde_json::Value) {
        let body = body.to_string();
        let request = format!(
            "POST /{call} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        let mut stream = TcpStream::connect(self.control).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 200"), "challtestsrv: {answer}");
    }

    fn log(&self) -> String {
        log(self.folder.path())
    }
}

fn pebble_server(folder: &Path, dns: SocketAddr) -> Child {
    let config = folder.join("pebble.json");
    let arguments = ["-config", config.to_str().unwrap(), "-dnsserver", &dns.to_string(), "-strict=false"];
    server("/usr/bin/pebble", &arguments, folder)
}

fn server(program: &str, arguments: &[&str], folder: &Path) -> Child {
    assert!(Path::new(program).exists(), "{program} is missing: apt-get install pebble");
    let log = std::fs::File::options().create(true).append(true).open(folder.join("log")).unwrap();
    let mut command = Command::new(program);
    command.args(arguments).envs(QUICK).stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
    command.kill_on_drop(true).spawn().unwrap()
}

/// Ports that were free a moment ago; all are held until the last is known, so they differ.
fn free_ports() -> [SocketAddr; 4] {
    let held = [(); 4].map(|()| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap());
    held.map(|listener| listener.local_addr().unwrap())
}

/// DNS needs the same port by UDP and TCP.
fn free_dns_port() -> u16 {
    let free = (0..50).find_map(|_try| {
        let udp = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).ok()?;
        let port = udp.local_addr().ok()?.port();
        TcpListener::bind((Ipv4Addr::LOCALHOST, port)).ok().map(|_tcp| port)
    });
    free.expect("a port free by UDP and TCP")
}

async fn listening(address: SocketAddr, folder: &Path) {
    let started = Instant::now();
    while TcpStream::connect(address).await.is_err() {
        assert!(started.elapsed() < START_TIME_MAX, "nothing listens on {address}:\n{}", log(folder));
        sleep(Duration::from_millis(20)).await;
    }
}

fn log(folder: &Path) -> String {
    std::fs::read_to_string(folder.join("log")).unwrap_or_default()
}

/// Makes Pebble's own certificate; returns the root that signs it.
fn listener_identity(folder: &Path) -> String {
    let root_key = KeyPair::generate().unwrap();
    let mut root = CertificateParams::new(Vec::new()).unwrap();
    root.distinguished_name.push(DnType::CommonName, "test root");
    root.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let root_pem = root.self_signed(&root_key).unwrap().pem();
    let key = KeyPair::generate().unwrap();
    let mut leaf = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    leaf.subject_alt_names.push(SanType::IpAddress(IpAddr::V4(Ipv4Addr::LOCALHOST)));
    let leaf = leaf.signed_by(&key, &Issuer::new(root, root_key)).unwrap();
    std::fs::write(folder.join("listener.pem"), leaf.pem()).unwrap();
    std::fs::write(folder.join("listener.key"), key.serialize_pem()).unwrap();
    root_pem
}

fn acme() -> Acme {
    let clock = Arc::new(SystemClock);
    Acme::new(Arc::new(HyperTransport::new(clock.clone())), clock)
}

fn csr(name: &str) -> Vec<u8> {
    let key = KeyPair::generate().unwrap();
    CertificateParams::new(vec![name.to_owned()]).unwrap().serialize_request(&key).unwrap().der().to_vec()
}

/// Issues one certificate; polls as the driver would, without its pauses.
async fn issue(lab: &Lab, account: &Account) -> String {
    let mut order = account.new_order(&[NAME.to_owned()], None, None).await.unwrap();
    let challenge = order.authorizations().await.unwrap().remove(0).http01.unwrap();
    lab.tell("add-http01", &json!({"token": challenge.token, "content": challenge.key_authorization})).await;
    order.answer(NAME).await.unwrap();
    until(&mut order, OrderStatus::Ready).await;
    order.finalize(&csr(NAME)).await.unwrap();
    until(&mut order, OrderStatus::Valid).await;
    order.certificate(None).await.unwrap().pem
}

/// Waits before each question, so that one question is usually enough.
async fn until(order: &mut controller::acme::order::AcmeOrder, wanted: OrderStatus) {
    loop {
        sleep(Duration::from_millis(300)).await;
        let facts = order.refresh().await.unwrap();
        if facts.status == wanted {
            return;
        }
        assert_ne!(facts.status, OrderStatus::Invalid, "{:?}", order.invalid_cause().await);
    }
}

async fn within_its_deadline(test: impl Future<Output = ()>) {
    timeout(TEST_TIME_MAX, test).await.expect("Pebble has deadlocked or is very slow: run again");
}

#[tokio::test]
async fn a_real_ca_issues_and_a_warm_account_costs_seven_requests() {
    within_its_deadline(async {
        let lab = Lab::start().await;
        let acme = acme();
        let facts = acme.probe_directory(&lab.directory).await.unwrap();
        assert!(facts.terms_of_service.is_some() && !facts.external_account_required);
        let key = AccountKey::generate().unwrap();
        let contacts = ["mailto:ops@example.test".to_owned()];
        let account = acme.account(&lab.directory, &key, &contacts, AccountTerms::Accepted, None, None).await.unwrap();
        let again =
            self::acme().account(&lab.directory, &key, &contacts, AccountTerms::Accepted, None, None).await.unwrap();
        assert_eq!(account.url(), again.url(), "the same key finds the same account");
        for _certificate in 0..2 {
            let before = acme.requests();
            let pem = issue(&lab, &account).await;
            let requests = acme.requests() - before;
            assert!(requests <= 8, "{requests} requests:\n{}", lab.log());
            let chain = Chain::parse_pem(pem.as_bytes()).unwrap();
            assert!(chain.leaf.has_exactly(&[NAME.to_owned()]));
        }
    })
    .await;
}

#[tokio::test]
async fn a_real_ca_says_why_and_a_crash_repeats_nothing() {
    within_its_deadline(async {
        let lab = Lab::start().await;
        let acme = acme();
        let key = AccountKey::generate().unwrap();
        let account = acme.account(&lab.directory, &key, &[], AccountTerms::Accepted, None, None).await.unwrap();

        let refused = account.new_order(&["blocked.example.test".to_owned()], None, None).await.unwrap_err();
        assert_eq!(refused.problem().reason, "ACME_REJECTED_IDENTIFIER", "{refused}");

        // Nothing serves the token.
        let mut order = account.new_order(&[NAME.to_owned()], None, None).await.unwrap();
        order.answer(NAME).await.unwrap();
        while order.refresh().await.unwrap().status == OrderStatus::Pending {
            sleep(Duration::from_millis(100)).await;
        }
        let cause = order.invalid_cause().await;
        assert!(["ACME_UNAUTHORIZED", "ACME_INCORRECT_RESPONSE"].contains(&cause.problem().reason.as_str()), "{cause}");

        // A crash after every step: the order is found again by its URL, and the step may be repeated.
        let url = account.new_order(&[NAME.to_owned()], None, None).await.unwrap().url().to_owned();
        let mut order = account.resume(&url).await.unwrap();
        let challenge = order.authorizations().await.unwrap().remove(0).http01.unwrap();
        lab.tell("add-http01", &json!({"token": challenge.token, "content": challenge.key_authorization})).await;
        order.answer(NAME).await.unwrap();
        until(&mut account.resume(&url).await.unwrap(), OrderStatus::Ready).await;
        let mut order = account.resume(&url).await.unwrap();
        order.answer(NAME).await.expect("the authorization is valid: nothing to answer");
        assert_eq!(order.authorizations().await.unwrap()[0].status, AuthorizationStatus::Valid);
        let foreign = order.finalize(&csr("other.example.test")).await.unwrap_err();
        assert!(["ACME_BAD_CSR", "ACME_UNAUTHORIZED"].contains(&foreign.problem().reason.as_str()), "{foreign}");
        order.finalize(&csr(NAME)).await.unwrap();
        let mut order = account.resume(&url).await.unwrap();
        order.finalize(&csr(NAME)).await.expect("accepted before: nothing is sent");
        until(&mut order, OrderStatus::Valid).await;
        order.certificate(None).await.unwrap();
        assert!(account.resume(&format!("{url}x")).await.unwrap_err().is_not_found());
    })
    .await;
}

#[tokio::test]
async fn a_ca_that_forgot_the_account_gets_it_again() {
    within_its_deadline(async {
        let mut lab = Lab::start().await;
        let acme = acme();
        let key = AccountKey::generate().unwrap();
        let account = acme.account(&lab.directory, &key, &[], AccountTerms::Accepted, None, None).await.unwrap();
        let order = account.new_order(&[NAME.to_owned()], None, None).await.unwrap();
        lab.restart_pebble().await;
        let gone = account.resume(order.url()).await.unwrap_err();
        assert!(gone.is_account_gone(), "{gone}");
        let account = acme.account(&lab.directory, &key, &[], AccountTerms::Accepted, None, None).await.unwrap();
        issue(&lab, &account).await;
    })
    .await;
}

#[tokio::test]
async fn after_a_key_change_the_account_orders_with_the_new_key_and_the_old_one_opens_nothing() {
    within_its_deadline(async {
        let lab = Lab::start().await;
        let acme = acme();
        let (old, new) = (AccountKey::generate().unwrap(), AccountKey::generate().unwrap());
        let account = acme.account(&lab.directory, &old, &[], AccountTerms::Accepted, None, None).await.unwrap();
        let url = account.url().to_owned();
        acme.change_key(&lab.directory, &url, &old, &new).await.unwrap();
        // A crash before the answer: it is done again, and the CA is asked which key it knows.
        acme.change_key(&lab.directory, &url, &old, &new).await.unwrap_err();
        assert_eq!(acme.standing(&lab.directory, &new).await.unwrap(), Standing::Valid(url.clone()));
        assert_eq!(acme.standing(&lab.directory, &old).await.unwrap(), Standing::Unknown);
        let refused = account.new_order(&[NAME.to_owned()], None, None).await.unwrap_err();
        assert!(refused.is_refusal(), "{refused}");
        let known = Some(url.as_str());
        let account =
            self::acme().account(&lab.directory, &new, &[], AccountTerms::Accepted, None, known).await.unwrap();
        issue(&lab, &account).await;
    })
    .await;
}

#[tokio::test]
async fn a_ca_that_cannot_be_reached_or_trusted_says_which() {
    within_its_deadline(async {
        let lab = Lab::start().await;
        let reason = async |url: &str, roots: TrustRoots| {
            let directory = Directory { url: url.to_owned(), roots };
            acme().probe_directory(&directory).await.unwrap_err().problem().reason
        };
        let url = lab.directory.url.clone();
        let other_folder = tempfile::tempdir().unwrap();
        let other_root = TrustRoots::Pem(listener_identity(other_folder.path()));
        assert_eq!(reason(&url, other_root).await, "CA_UNTRUSTED");
        assert_eq!(reason(&url, TrustRoots::System).await, "CA_UNTRUSTED");
        assert_eq!(reason(&url, TrustRoots::Pem("nothing".to_owned())).await, "CA_ROOTS_UNUSABLE");
        let roots = lab.directory.roots.clone();
        let [closed, ..] = free_ports();
        assert_eq!(reason(&format!("https://{closed}/dir"), roots.clone()).await, "CA_UNREACHABLE");
        assert_eq!(reason("https://no-such-host.invalid/dir", roots.clone()).await, "CA_NAME_UNKNOWN");
        assert_eq!(reason(&format!("https://{}/dir", lab.http), roots.clone()).await, "CA_TLS_FAILED");
        assert_eq!(reason(&url.replace("/dir", "/other"), roots.clone()).await, "CA_NOT_ACME");
        assert_eq!(reason(&url.replace("https", "http"), roots).await, "CA_DIRECTORY_INVALID");
    })
    .await;
}

#[tokio::test]
async fn names_and_challenges_are_seen_as_the_ca_sees_them() {
    within_its_deadline(async {
        let lab = Lab::start().await;
        let resolver = Resolver::with_servers(&[lab.dns]).unwrap();
        lab.tell("add-a", &json!({"host": NAME, "addresses": ["127.0.0.1", "192.0.2.7"]})).await;
        lab.tell("add-aaaa", &json!({"host": NAME, "addresses": ["2001:db8::7"]})).await;
        lab.tell("add-caa", &json!({"host": "caa.example.test", "policies": [{"tag": "issue", "value": ";"}]})).await;
        lab.tell("set-servfail", &json!({"host": "broken.example.test"})).await;
        lab.tell("set-default-ipv4", &json!({"ip": ""})).await;
        let mut addresses = resolver.addresses(NAME).await.unwrap();
        addresses.sort();
        let expected: Vec<IpAddr> =
            ["127.0.0.1", "192.0.2.7", "2001:db8::7"].iter().map(|address| address.parse().unwrap()).collect();
        assert_eq!(addresses, expected);
        assert_eq!(resolver.addresses("none.example.test").await, Err(LookupError::NoRecords));
        let broken = resolver.addresses("broken.example.test").await;
        assert!(matches!(broken, Err(LookupError::Unreachable(_))), "{broken:?}");
        let caa = resolver.caa("caa.example.test").await.unwrap();
        assert_eq!((caa[0].tag.as_str(), caa[0].value.as_str()), ("issue", ";"));

        lab.tell("add-http01", &json!({"token": "abc", "content": "abc.thumb"})).await;
        let answer = TcpProbe.fetch(Scheme::Http, lab.http, NAME, "/.well-known/acme-challenge/abc").await.unwrap();
        assert_eq!((answer.status, answer.body.as_slice()), (200, b"abc.thumb".as_slice()));
        let verdicts = preflight::names(&resolver, &[NAME.to_owned(), "none.example.test".to_owned()]).await;
        assert_eq!(verdicts[0].1, Verdict::Ok);
        assert!(matches!(verdicts[1].1, Verdict::Contradicted(_)));
    })
    .await;
}
