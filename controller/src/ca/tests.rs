//! Real handshakes over in-memory pipes: who is let in, and when.

use std::sync::Mutex;

use jiff::{SignedDuration, ToSpan as _};
use proto::id::Role;
use proto::tls::{Peer, SERVER_NAME, Trust, client_config, server_config};
use rcgen::{CertificateParams, DnType, SanType};
use rustls::pki_types::ServerName;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::*;
use crate::store::engine::Backend;
use crate::store::master_key::MasterKey;

const DAY: SignedDuration = SignedDuration::from_hours(24);

#[derive(Debug)]
struct FakeClock(Mutex<Timestamp>);

impl FakeClock {
    fn new() -> Arc<Self> {
        Arc::new(Self(Mutex::new("2026-03-01T00:00:00Z".parse().unwrap())))
    }

    fn advance(&self, by: SignedDuration) {
        *self.0.lock().unwrap() += by;
    }
}

impl Clock for FakeClock {
    fn now(&self) -> Timestamp {
        *self.0.lock().unwrap()
    }
}

async fn store() -> Store {
    Store::open(Backend::memory(), true, MasterKey::random()).await.unwrap()
}

async fn ca(clock: &Arc<FakeClock>) -> IdentityCa {
    IdentityCa::open_or_create(&store().await, clock.clone()).await.unwrap()
}

/// A new agent's credentials under the CA.
fn agent(ca: &IdentityCa) -> Credentials {
    let key = KeyPair::generate().unwrap();
    let csr = CertificateParams::default().serialize_request(&key).unwrap();
    let issued = ca.issue_agent(&proto::id::random_id(), csr.der()).unwrap();
    Credentials { chain: vec![issued.leaf_der.into()], key: PrivatePkcs8KeyDer::from(key.serialize_der()).into() }
}

/// Shakes hands and sends one byte each way, so that TLS 1.3's late refusal of a client shows. Returns whom the server
/// saw.
async fn handshake(
    clock: &Arc<FakeClock>,
    server: (Vec<CertificateDer<'static>>, Credentials),
    client: (Trust, Option<Credentials>),
) -> Result<Option<Peer>, std::io::Error> {
    let server = server_config(&server.0, server.1, clock.clone()).unwrap();
    let client = client_config(client.0, client.1, clock.clone()).unwrap();
    let (near, far) = tokio::io::duplex(16 * 1024);
    let serve = async {
        let mut stream = TlsAcceptor::from(Arc::new(server)).accept(far).await?;
        stream.write_all(b"!").await?;
        stream.flush().await?;
        stream.read_u8().await?;
        let leaf = stream.get_ref().1.peer_certificates().and_then(<[_]>::first).cloned();
        Ok::<_, std::io::Error>(leaf.and_then(|leaf| Peer::from_leaf(&leaf)))
    };
    let connect = async {
        let name = ServerName::try_from(SERVER_NAME).unwrap();
        let mut stream = TlsConnector::from(Arc::new(client)).connect(name, near).await?;
        stream.read_u8().await?;
        stream.write_all(b"!").await?;
        stream.flush().await
    };
    let (served, connected) = tokio::join!(serve, connect);
    connected.and(served)
}

#[tokio::test]
async fn agent_and_controller_know_each_other_by_role_and_id() {
    let clock = FakeClock::new();
    let ca = ca(&clock).await;
    let agent = agent(&ca);
    let expected = Peer::from_leaf(&agent.chain[0]).unwrap();
    let peer = handshake(&clock, (ca.roots(), ca.issue_controller().unwrap()), (Trust::Roots(ca.roots()), Some(agent)));
    let peer = peer.await.unwrap().unwrap();
    assert_eq!(peer, expected);
    assert_eq!(peer.identity.role, Role::Agent);
}

#[tokio::test]
async fn an_agents_leaf_is_refused_as_a_server() {
    let clock = FakeClock::new();
    let ca = ca(&clock).await;
    let outcome = handshake(&clock, (ca.roots(), agent(&ca)), (Trust::Roots(ca.roots()), Some(agent(&ca)))).await;
    assert!(outcome.unwrap_err().to_string().contains("invalid peer certificate"));
}

#[tokio::test]
async fn the_controllers_leaf_is_refused_as_a_client() {
    let clock = FakeClock::new();
    let ca = ca(&clock).await;
    let (server, client) = (ca.issue_controller().unwrap(), ca.issue_controller().unwrap());
    assert!(handshake(&clock, (ca.roots(), server), (Trust::Roots(ca.roots()), Some(client))).await.is_err());
}

#[tokio::test]
async fn leaves_of_another_ca_are_refused_on_both_sides() {
    let clock = FakeClock::new();
    let (ours, theirs) = (ca(&clock).await, ca(&clock).await);
    let stranger = handshake(
        &clock,
        (ours.roots(), ours.issue_controller().unwrap()),
        (Trust::Roots(ours.roots()), Some(agent(&theirs))),
    );
    assert!(stranger.await.is_err());
    let impostor =
        handshake(&clock, (theirs.roots(), theirs.issue_controller().unwrap()), (Trust::Roots(ours.roots()), None));
    assert!(impostor.await.unwrap_err().to_string().contains("UnknownIssuer"));
}

#[tokio::test]
async fn first_contact_needs_the_right_pin() {
    let clock = FakeClock::new();
    let (ours, theirs) = (ca(&clock).await, ca(&clock).await);
    let pinned = |pin| {
        let server = ours.issue_controller().unwrap();
        let (clock, roots) = (clock.clone(), ours.roots());
        async move { handshake(&clock, (roots, server), (Trust::Pin(pin), None)).await }
    };
    assert_eq!(pinned(ours.pin()).await.unwrap(), None);
    assert!(pinned(theirs.pin()).await.is_err());
    // A chain with the pinned certificate in it, but a leaf that it did not issue.
    let mut forged = theirs.issue_controller().unwrap();
    forged.chain[1] = ours.roots().remove(0);
    assert!(handshake(&clock, (theirs.roots(), forged), (Trust::Pin(ours.pin()), None)).await.is_err());
}

#[tokio::test]
async fn an_expired_agent_is_let_in_to_be_told_what_it_may_do() {
    let clock = FakeClock::new();
    let ca = ca(&clock).await;
    let credentials = agent(&ca);
    let connect = async |age: SignedDuration| {
        clock.advance(age);
        let server = ca.issue_controller().unwrap();
        let again = Credentials { chain: credentials.chain.clone(), key: credentials.key.clone_key() };
        handshake(&clock, (ca.roots(), server), (Trust::Roots(ca.roots()), Some(again))).await
    };
    assert!(connect(DAY * 29).await.is_ok(), "valid");
    assert!(connect(DAY * 2).await.is_ok(), "expired for a day");
    assert!(connect(DAY * 200).await.is_ok(), "expired for 201 days");
}

#[tokio::test]
async fn an_expired_controller_is_refused() {
    let clock = FakeClock::new();
    let ca = ca(&clock).await;
    let server = ca.issue_controller().unwrap();
    clock.advance(DAY * 91);
    assert!(handshake(&clock, (ca.roots(), server), (Trust::Roots(ca.roots()), None)).await.is_err());
}

#[tokio::test]
async fn a_leaf_is_valid_five_minutes_back_and_not_before() {
    let clock = FakeClock::new();
    let ca = ca(&clock).await;
    let connect = async |credentials: Credentials, back: SignedDuration| {
        clock.advance(-back);
        let server = ca.issue_controller().unwrap();
        let outcome = handshake(&clock, (ca.roots(), server), (Trust::Roots(ca.roots()), Some(credentials))).await;
        clock.advance(back);
        outcome
    };
    clock.advance(DAY);
    assert!(connect(agent(&ca), SignedDuration::from_mins(4)).await.is_ok());
    assert!(connect(agent(&ca), SignedDuration::from_mins(6)).await.is_err());
}

#[tokio::test]
async fn nothing_of_a_csr_but_its_key_enters_the_leaf() {
    let clock = FakeClock::new();
    let ca = ca(&clock).await;
    let key = KeyPair::generate().unwrap();
    let mut wishes = CertificateParams::new(vec!["www.example.test".to_owned()]).unwrap();
    let other = Identity { role: Role::Controller, id: proto::id::random_id() };
    wishes.subject_alt_names.push(SanType::URI(other.to_string().try_into().unwrap()));
    wishes.distinguished_name.push(DnType::CommonName, "root");
    wishes.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    wishes.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ServerAuth];
    let id = proto::id::random_id();
    let issued = ca.issue_agent(&id, wishes.serialize_request(&key).unwrap().der()).unwrap();
    let facts = LeafFacts::parse(&issued.leaf_der).unwrap();
    assert_eq!(facts.uris, [Identity { role: Role::Agent, id }.to_string()]);
    assert!(facts.identifiers.is_empty() && !facts.is_ca);
    assert_eq!(issued.spki_der, PublicKeyData::subject_public_key_info(&key));
    assert_eq!(issued.serial, Peer::from_leaf(&issued.leaf_der).unwrap().serial);
    assert_eq!(issued.not_before, clock.now() - 5.minutes());
    assert_eq!(issued.not_after, clock.now() + DAY * 30);
}

#[tokio::test]
async fn only_p256_keys_and_whole_csrs_are_accepted() {
    let clock = FakeClock::new();
    let ca = ca(&clock).await;
    let id = proto::id::random_id();
    for algorithm in [&rcgen::PKCS_ECDSA_P384_SHA384, &rcgen::PKCS_ED25519, &rcgen::PKCS_RSA_SHA256] {
        let key = KeyPair::generate_for(algorithm).unwrap();
        let csr = CertificateParams::default().serialize_request(&key).unwrap();
        let refused = ca.issue_agent(&id, csr.der()).unwrap_err();
        assert!(matches!(refused, CaError::CsrKey), "{algorithm:?}: {refused:?}");
    }
    let key = KeyPair::generate().unwrap();
    let csr = CertificateParams::default().serialize_request(&key).unwrap().der().to_vec();
    assert!(matches!(ca.issue_agent("../../etc", &csr), Err(CaError::Id)));
    for at in 0..csr.len() {
        let mut broken = csr.clone();
        broken[at] ^= 0x20;
        // A flip may hit the signature's algorithm parameters at most; nothing issued may carry another key.
        if let Ok(issued) = ca.issue_agent(&id, &broken) {
            assert_eq!(issued.spki_der, PublicKeyData::subject_public_key_info(&key), "byte {at}");
        }
        assert!(ca.issue_agent(&id, &csr[..at]).is_err(), "cut at {at}");
    }
}

#[tokio::test]
async fn every_leaf_has_its_own_serial() {
    let clock = FakeClock::new();
    let ca = ca(&clock).await;
    let key = KeyPair::generate().unwrap();
    let csr = CertificateParams::default().serialize_request(&key).unwrap();
    let id = proto::id::random_id();
    let serials: std::collections::HashSet<_> =
        (0..20).map(|_| ca.issue_agent(&id, csr.der()).unwrap().serial).collect();
    assert_eq!(serials.len(), 20);
    assert!(serials.iter().all(|serial| serial.len() == 32));
}

#[tokio::test]
async fn the_ca_is_made_once_and_read_ever_after() {
    let clock = FakeClock::new();
    let store = store().await;
    let first = IdentityCa::open_or_create(&store, clock.clone()).await.unwrap();
    clock.advance(DAY * 365);
    let second = IdentityCa::open_or_create(&store, clock.clone()).await.unwrap();
    assert_eq!((first.roots(), first.pin()), (second.roots(), second.pin()));
    assert_eq!(first.controller_id(), second.controller_id());
    let outcome = handshake(
        &clock,
        (first.roots(), second.issue_controller().unwrap()),
        (Trust::Pin(first.pin()), Some(agent(&first))),
    );
    assert!(outcome.await.unwrap().is_some());
}

#[tokio::test]
async fn no_leaf_outlives_the_ca() {
    let clock = FakeClock::new();
    let ca = ca(&clock).await;
    clock.advance(DAY * (3650 - 10));
    let leaf = agent(&ca).chain.remove(0);
    let root = LeafFacts::parse(&ca.roots()[0]).unwrap();
    assert_eq!(LeafFacts::parse(&leaf).unwrap().not_after, root.not_after);
}

#[tokio::test]
async fn a_ca_whose_key_was_swapped_is_refused() {
    let clock = FakeClock::new();
    let store = store().await;
    IdentityCa::open_or_create(&store, clock.clone()).await.unwrap();
    let mut slots = store.load::<Slots>(Slots::KEY).await.unwrap().unwrap();
    let other = KeyPair::generate().unwrap().serialize_pem();
    slots.value.active.key = store.keyring.seal(Slots::active_key(), &other.into());
    store.commit(Changes::new().update(&slots)).await.unwrap();
    assert!(matches!(IdentityCa::open_or_create(&store, clock.clone()).await, Err(CaError::Damaged(_))));
}

#[test]
fn renewal_is_due_at_half_the_life() {
    let start: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
    assert_eq!(renew_at(start, start + DAY * 90), start + DAY * 45);
    assert_eq!(renew_at(start, start + SignedDuration::from_secs(10)), start + SignedDuration::from_secs(5));
}

#[tokio::test]
async fn a_rotation_keeps_old_and_new_peers_and_is_read_back_in_every_phase() {
    use crate::lifecycle::rotation::Step;
    let clock = FakeClock::new();
    let store = store().await;
    let hub = crate::tasks::hub::Hub::open(store.clone(), clock.clone()).await.unwrap();
    let ca = IdentityCa::open_or_create(&store, clock.clone()).await.unwrap();
    let (old_roots, old_pin, veteran) = (ca.roots(), ca.pin(), agent(&ca));
    let connects = async |ca: &IdentityCa, trust: Trust, with: &Credentials| {
        let again = Credentials { chain: with.chain.clone(), key: with.key.clone_key() };
        let server = (ca.roots(), ca.issue_controller().unwrap());
        handshake(&clock, server, (trust, Some(again))).await.is_ok()
    };
    // As when whoever took the step hung up before it was in force.
    let behind = IdentityCa::open_or_create(&store, clock.clone()).await.unwrap();
    let mut newcomer = None;
    for (step, phase, roots) in [
        (Step::Prepare, Phase::Prepared, 2),
        (Step::Activate, Phase::Activated, 2),
        (Step::Abort, Phase::Prepared, 2),
        (Step::Abort, Phase::Steady, 1),
        (Step::Prepare, Phase::Prepared, 2),
        (Step::Activate, Phase::Activated, 2),
    ] {
        ca.rotate(&store, step, &hub.event("identity_ca.step", step.word())).await.unwrap();
        assert_ne!(behind.rotation(), ca.rotation());
        behind.refresh(&store).await.unwrap();
        assert_eq!(behind.rotation(), ca.rotation());
        let read = IdentityCa::open_or_create(&store, clock.clone()).await.unwrap();
        assert_eq!((read.rotation(), read.roots(), read.pin()), (ca.rotation(), ca.roots(), old_pin));
        assert_eq!((ca.rotation().phase, ca.roots().len()), (phase, roots), "{step:?}");
        assert!(connects(&read, Trust::Roots(old_roots.clone()), &veteran).await, "{step:?}: who was away comes back");
        assert!(connects(&read, Trust::Pin(old_pin), &veteran).await, "{step:?}: tokens pin what is shown");
        let fresh = agent(&ca);
        assert!(connects(&read, Trust::Roots(read.roots()), &fresh).await, "{step:?}");
        newcomer = Some((read.roots(), fresh));
    }
    let refused = ca.rotate(&store, Step::Prepare, &hub.event("identity_ca.step", "twice")).await.unwrap_err();
    assert_eq!(refused.problem().reason, "ROTATION_STEP");
    ca.rotate(&store, Step::Retire, &hub.event("identity_ca.step", "retire")).await.unwrap();
    let read = IdentityCa::open_or_create(&store, clock.clone()).await.unwrap();
    assert_eq!((read.rotation(), read.roots().len()), (ca.rotation(), 1));
    assert_ne!(read.pin(), old_pin);
    let (roots, fresh) = newcomer.unwrap();
    assert!(connects(&read, Trust::Roots(roots.clone()), &fresh).await, "has a leaf of the new one");
    assert!(!connects(&read, Trust::Roots(old_roots), &fresh).await, "trusts the old one only");
    assert!(!connects(&read, Trust::Roots(roots), &veteran).await, "has a leaf of the old one");
}
