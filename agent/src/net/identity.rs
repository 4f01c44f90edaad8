//! Who this agent is to the controller: a key made here, a leaf from the identity CA, renewed daily with the same key
//! (design §5). The key is on the disk, mode 0600, before the controller hears of it, so a lost reply can be repeated.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::{SignedDuration, Timestamp};
use proto::agent::v1 as wire;
use proto::id::{Identity as Name, Role};
use proto::text::one_line;
use proto::tls::{Credentials, Peer, Trust};
use proto::x509::{Chain, LeafFacts, parse_key, spki_of_key, spki_pin, to_pem};
use rcgen::{CertificateParams, DistinguishedName, KeyPair};
use rustls::pki_types::CertificateDer;
use secrecy::{ExposeSecret as _, SecretString};
use serde::{Deserialize, Serialize};

use super::client::{Client, call, refusal};
use crate::problem::Problem;
use crate::state::{StateDir, not_enrolled, problem};

const KEY: &str = "identity.key";
const IDENTITY: &str = "identity.json";
/// A leaf of 30 days is renewed every day: after this part of its life.
const RENEW_FRACTION: i32 = 30;
/// Most identity CA certificates: two slots during a rotation, and room.
const ROOTS_MAX: usize = 8;

/// An enrolled agent's identity.
#[derive(Clone, Debug)]
pub(crate) struct Identity {
    pub(crate) agent_id: String,
    pub(crate) agent_name: String,
    /// Where the controller is.
    pub(crate) controller: String,
    pub(crate) not_before: Timestamp,
    pub(crate) not_after: Timestamp,
    leaf: CertificateDer<'static>,
    roots: Vec<CertificateDer<'static>>,
    key: SecretString,
}

#[derive(Serialize, Deserialize)]
struct Stored {
    agent_id: String,
    agent_name: String,
    controller: String,
    leaf_der: String,
    ca_der: Vec<String>,
}

impl Identity {
    /// Reads the identity.
    pub(crate) fn load(state: &StateDir) -> Result<Self, Problem> {
        let bytes = state.read(IDENTITY)?.ok_or_else(|| not_enrolled(state.path()))?;
        let stored: Stored = serde_json::from_slice(&bytes).map_err(|error| broken(error.to_string()))?;
        let decode = |text: &String| STANDARD.decode(text).map_err(|error| broken(error.to_string()));
        let leaf = decode(&stored.leaf_der)?;
        let facts = LeafFacts::parse(&leaf).map_err(|error| broken(error.to_string()))?;
        let roots = stored.ca_der.iter().map(|text| Ok(decode(text)?.into())).collect::<Result<_, Problem>>()?;
        Ok(Self {
            agent_id: stored.agent_id,
            agent_name: stored.agent_name,
            controller: stored.controller,
            not_before: facts.not_before,
            not_after: facts.not_after,
            leaf: leaf.into(),
            roots,
            key: read_key(state)?.ok_or_else(|| broken(format!("{KEY} is missing")))?,
        })
    }

    /// Returns what TLS needs.
    pub(crate) fn credentials(&self) -> Result<Credentials, Problem> {
        let key = parse_key(&self.key).map_err(|error| broken(error.to_string()))?;
        Ok(Credentials { chain: vec![self.leaf.clone()], key })
    }

    /// Returns whom to accept as the controller.
    pub(crate) fn trust(&self) -> Trust {
        Trust::Roots(self.roots.clone())
    }

    /// Returns when to ask for the next leaf: after a thirtieth of this one's life.
    pub(crate) fn renew_at(&self) -> Timestamp {
        let life: SignedDuration = self.not_before.duration_until(self.not_after);
        self.not_before.checked_add(life / RENEW_FRACTION).unwrap_or(self.not_after)
    }

    /// Asks for a new leaf for the same key and stores it.
    pub(crate) async fn renew(&self, state: &StateDir, client: &mut Client) -> Result<Self, Problem> {
        let csr_der = csr(&self.key)?;
        let answer = call(client.renew_identity(wire::RenewIdentityRequest { csr_der })).await;
        let answer = answer.map_err(|status| refusal(&status))?;
        let reply = Reply { agent_id: &self.agent_id, leaf_der: answer.leaf_der, ca_der: answer.ca_der };
        let checked = reply.check(&self.key, &Anchor::Held(&self.roots))?;
        let (state, agent_name, controller) = (state.clone(), self.agent_name.clone(), self.controller.clone());
        tokio::task::spawn_blocking(move || save(&state, &checked, &agent_name, &controller))
            .await
            .unwrap_or_else(|error| Err(Problem::internal(&format!("storing the identity: {error}"))))
    }
}

/// First contact: presents the join token and stores what the controller answers.
pub(crate) async fn enroll(
    state: &StateDir,
    client: &mut Client,
    token: &proto::id::JoinToken,
    controller: &str,
    hostname: String,
) -> Result<Identity, Problem> {
    let key = make_key(state)?;
    let request = wire::EnrollRequest {
        token: token.secret.expose_secret().to_owned(),
        csr_der: csr(&key)?,
        agent_version: env!("CARGO_PKG_VERSION").to_owned(),
        hostname,
    };
    let answer = call(client.enroll(request)).await.map_err(|status| refusal(&status))?;
    let reply = Reply { agent_id: &answer.agent_id, leaf_der: answer.leaf_der, ca_der: answer.ca_der };
    let checked = reply.check(&key, &Anchor::Pin(token.pin))?;
    save(state, &checked, &one_line(&answer.agent_name, 128), controller)
}

/// Returns the identity key; makes it, durably, the first time.
fn make_key(state: &StateDir) -> Result<SecretString, Problem> {
    // One that does not parse is worth nothing: enrolling again must mend it.
    if let Some(key) = read_key(state)?.filter(|key| spki_of_key(key).is_ok()) {
        return Ok(key);
    }
    let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).map_err(|error| broken(error.to_string()))?;
    let pem = SecretString::from(key.serialize_pem());
    state.write(KEY, pem.expose_secret().as_bytes())?;
    Ok(pem)
}

fn read_key(state: &StateDir) -> Result<Option<SecretString>, Problem> {
    let Some(bytes) = state.read(KEY)? else { return Ok(None) };
    let text = String::from_utf8(bytes).map_err(|error| broken(error.to_string()))?;
    Ok(Some(text.into()))
}

/// Proves possession of the key; the controller ignores everything else in it.
fn csr(key: &SecretString) -> Result<Vec<u8>, Problem> {
    let signed = || -> Result<Vec<u8>, rcgen::Error> {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        Ok(params.serialize_request(&KeyPair::from_pem(key.expose_secret())?)?.der().to_vec())
    };
    signed().map_err(|error| broken(error.to_string()))
}

/// What a controller answered, before it is believed.
struct Reply<'a> {
    agent_id: &'a str,
    leaf_der: Vec<u8>,
    ca_der: Vec<Vec<u8>>,
}

/// What makes an identity CA believable.
enum Anchor<'a> {
    /// At first contact: the pin of the join token.
    Pin([u8; 32]),
    /// Later: a root held already must be among those answered, so that one bad answer can neither lock this agent out
    /// nor plant a foreign CA. Rotation always answers old and new.
    Held(&'a [CertificateDer<'static>]),
}

struct Checked {
    agent_id: String,
    leaf_der: Vec<u8>,
    ca_der: Vec<Vec<u8>>,
}

impl Reply<'_> {
    /// The leaf must be for our key and our id and be signed by one of the CAs, of which one must be anchored.
    fn check(self, key: &SecretString, anchor: &Anchor<'_>) -> Result<Checked, Problem> {
        let bad = |what: &str| {
            Problem::new(
                "IDENTITY_REPLY",
                "the controller answered with an identity that cannot be used",
                what,
                "nothing was stored; report a bug of the controller",
            )
        };
        let peer = Peer::from_leaf(&self.leaf_der).ok_or_else(|| bad("the leaf carries no identity"))?;
        if peer.identity != (Name { role: Role::Agent, id: self.agent_id.to_owned() }) {
            return Err(bad("the leaf is for another identity"));
        }
        let spki = spki_of_key(key).map_err(|error| broken(error.to_string()))?;
        if peer.spki_der != spki {
            return Err(bad("the leaf is for another key"));
        }
        if self.ca_der.is_empty() || self.ca_der.len() > ROOTS_MAX {
            return Err(bad("no identity CA, or too many"));
        }
        if !self.ca_der.iter().all(|der| LeafFacts::parse(der).is_ok_and(|facts| facts.is_ca)) {
            return Err(bad("what it calls its identity CA is not a CA certificate"));
        }
        let anchored = |der: &Vec<u8>| match anchor {
            Anchor::Pin(pin) => spki_pin(der).is_ok_and(|found| found == *pin),
            Anchor::Held(roots) => roots.iter().any(|root| root.as_ref() == der.as_slice()),
        };
        if !self.ca_der.iter().any(anchored) {
            return Err(bad("the identity CA is not the one of the join token, nor one that is known here"));
        }
        let signed = |der: &Vec<u8>| Chain::parse_pem((to_pem(&self.leaf_der) + &to_pem(der)).as_bytes()).is_ok();
        if !self.ca_der.iter().any(signed) {
            return Err(bad("the leaf is not signed by its identity CA"));
        }
        Ok(Checked { agent_id: self.agent_id.to_owned(), leaf_der: self.leaf_der, ca_der: self.ca_der })
    }
}

fn save(state: &StateDir, checked: &Checked, agent_name: &str, controller: &str) -> Result<Identity, Problem> {
    let stored = Stored {
        agent_id: checked.agent_id.clone(),
        agent_name: agent_name.to_owned(),
        controller: controller.to_owned(),
        leaf_der: STANDARD.encode(&checked.leaf_der),
        ca_der: checked.ca_der.iter().map(|der| STANDARD.encode(der)).collect(),
    };
    let bytes = serde_json::to_vec_pretty(&stored)
        .map_err(|error| problem(&state.path().join(IDENTITY), "write", &std::io::Error::other(error)))?;
    state.write(IDENTITY, &bytes)?;
    Identity::load(state)
}

fn broken(cause: String) -> Problem {
    Problem::new(
        "IDENTITY_BROKEN",
        "this agent's identity cannot be used",
        cause,
        "enrol again with a new join token: `certwright agents enroll NAME --replace`",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn issue(key: &SecretString, identity: &str) -> (Vec<u8>, Vec<u8>) {
        let ca_key = KeyPair::generate().unwrap();
        let mut ca = CertificateParams::default();
        ca.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let ca_der = ca.self_signed(&ca_key).unwrap().der().to_vec();
        let mut leaf = CertificateParams::default();
        leaf.subject_alt_names = vec![rcgen::SanType::URI(identity.try_into().unwrap())];
        let key = KeyPair::from_pem(key.expose_secret()).unwrap();
        let leaf = leaf.signed_by(&key, &rcgen::Issuer::new(ca, ca_key)).unwrap();
        (leaf.der().to_vec(), ca_der)
    }

    fn check(role: &str, other_key: bool, pinned: bool) -> Option<String> {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::create(&dir.path().join("state")).unwrap();
        let key = make_key(&state).unwrap();
        assert_eq!(make_key(&state).unwrap().expose_secret(), key.expose_secret());
        let id = proto::id::random_id();
        let signing: SecretString =
            if other_key { KeyPair::generate().unwrap().serialize_pem().into() } else { key.clone() };
        let (leaf_der, ca) = issue(&signing, &format!("certwright:{role}:{id}"));
        let pin = if pinned { spki_pin(&ca).unwrap() } else { [0; 32] };
        let reply = Reply { agent_id: &id, leaf_der, ca_der: vec![ca] };
        match reply.check(&key, &Anchor::Pin(pin)) {
            Err(problem) => Some(problem.cause),
            Ok(checked) => {
                let identity = save(&state, &checked, "h1", "ctl:8443").unwrap();
                assert_eq!((identity.agent_id.as_str(), identity.agent_name.as_str()), (id.as_str(), "h1"));
                assert!(!format!("{identity:?}").contains("PRIVATE"));
                identity.credentials().unwrap();
                None
            }
        }
    }

    #[test]
    fn a_renewal_under_a_ca_that_is_not_held_changes_nothing() {
        let key: SecretString = KeyPair::generate().unwrap().serialize_pem().into();
        let id = proto::id::random_id();
        let (leaf_der, ca) = issue(&key, &format!("certwright:agent:{id}"));
        let (_, foreign) = issue(&key, &format!("certwright:agent:{id}"));
        let check = |ca_der: Vec<Vec<u8>>, held: &[u8]| {
            let held = [CertificateDer::from(held.to_vec())];
            let reply = Reply { agent_id: &id, leaf_der: leaf_der.clone(), ca_der };
            reply.check(&key, &Anchor::Held(&held)).err().map(|problem| problem.cause)
        };
        assert_eq!(check(vec![ca.clone()], &ca), None);
        assert_eq!(check(vec![foreign.clone(), ca.clone()], &foreign), None, "rotation: the old one is held");
        assert!(check(vec![ca.clone()], &foreign).unwrap().contains("known here"));
        assert!(check(vec![foreign.clone()], &foreign).unwrap().contains("not signed"));
        assert!(check(vec![leaf_der.clone(), ca.clone()], &ca).unwrap().contains("not a CA"));
        assert!(check(vec![b"junk".to_vec(), ca.clone()], &ca).unwrap().contains("not a CA"));
    }

    #[test]
    fn a_key_that_does_not_parse_is_made_anew_by_enrolling() {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::create(&dir.path().join("state")).unwrap();
        state.write(KEY, b"torn").unwrap();
        assert!(spki_of_key(&make_key(&state).unwrap()).is_ok());
    }

    #[test]
    fn stores_only_an_identity_for_its_own_key_id_and_pinned_ca() {
        assert_eq!(check("agent", false, true), None);
        assert!(check("operator", false, true).unwrap().contains("another identity"));
        assert!(check("agent", true, true).unwrap().contains("another key"));
        assert!(check("agent", false, false).unwrap().contains("join token"));
    }

    #[test]
    fn a_leaf_of_thirty_days_is_renewed_after_one() {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::create(&dir.path().join("state")).unwrap();
        let key = make_key(&state).unwrap();
        let id = proto::id::random_id();
        let (leaf_der, ca) = issue(&key, &format!("certwright:agent:{id}"));
        let pin = spki_pin(&ca).unwrap();
        let checked = Reply { agent_id: &id, leaf_der, ca_der: vec![ca] }.check(&key, &Anchor::Pin(pin)).unwrap();
        let mut identity = save(&state, &checked, "h1", "ctl:8443").unwrap();
        identity.not_before = Timestamp::from_second(0).unwrap();
        identity.not_after = Timestamp::from_second(30 * 86_400).unwrap();
        assert_eq!(identity.renew_at().as_second(), 86_400);
    }
}
