//! A login of an operator who works elsewhere (design §5): a key made here, mode 0600 before the controller hears of it, and a
//! leaf for it that is renewed while it is used. Called by `client` and by `certwright login`.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use proto::id::{Identity, Role};
use proto::operator::v1::LoginResponse;
use proto::text::one_line;
use proto::tls::{Credentials, Peer, Trust};
use proto::x509::{LeafFacts, parse_key, spki_of_key, spki_pin};
use rcgen::{CertificateParams, DistinguishedName, KeyPair};
use rustls::pki_types::CertificateDer;
use secrecy::{ExposeSecret as _, SecretString};
use serde::{Deserialize, Serialize};

use super::error::{ClientError, ErrorKind};

/// Most identity CA certificates: two slots during a rotation, and room.
const ROOTS_MAX: usize = 8;
/// A leaf of 14 days is renewed once a day of use: after this part of its life. What it is renewed with may be of another CA.
const RENEW_AT_PART: i32 = 14;

/// A login as a context holds it.
#[derive(Clone, Debug)]
pub struct Login {
    /// Name of the context.
    pub context: String,
    /// `HOST:PORT`.
    pub controller: String,
    /// What the controller calls the operator.
    pub operator: String,
    /// End of the leaf.
    pub not_after: Timestamp,
    not_before: Timestamp,
    leaf: CertificateDer<'static>,
    roots: Vec<CertificateDer<'static>>,
    key: SecretString,
}

/// A login without its key, as it is written to disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct StoredLogin {
    controller: String,
    operator: String,
    leaf_der: String,
    ca_der: Vec<String>,
}

/// Whom the answer must come from.
pub(super) enum Anchor<'a> {
    /// First contact: the CA of the invitation's pin.
    Pin([u8; 32]),
    /// Later: a CA that is trusted already must stay among those told.
    Held(&'a Login),
}

impl Login {
    /// Puts together what the disk holds.
    ///
    /// # Errors
    /// When it does not read.
    pub(super) fn open(context: &str, stored: StoredLogin, key: SecretString) -> Result<Self, ClientError> {
        let decode = |text: &String| STANDARD.decode(text).map_err(|error| broken(context, &error.to_string()));
        let leaf = decode(&stored.leaf_der)?;
        let facts = LeafFacts::parse(&leaf).map_err(|error| broken(context, &error.to_string()))?;
        let roots = stored.ca_der.iter().map(|text| Ok(decode(text)?.into())).collect::<Result<_, ClientError>>()?;
        Ok(Self {
            context: context.to_owned(),
            controller: stored.controller,
            operator: stored.operator,
            not_before: facts.not_before,
            not_after: facts.not_after,
            leaf: leaf.into(),
            roots,
            key,
        })
    }

    /// Checks what the controller answered to our key, for the disk.
    ///
    /// # Errors
    /// When the leaf is not for our key, not an operator's, or not of a CA that we may trust.
    pub(super) fn check(
        context: &str,
        controller: &str,
        key: &SecretString,
        answer: &LoginResponse,
        anchor: &Anchor<'_>,
    ) -> Result<StoredLogin, ClientError> {
        let wrong = |why: &str| {
            let hint = "nothing was stored; ask an owner for a new invitation if it stays so";
            ClientError::local(ErrorKind::Failed, "LOGIN_ANSWER_WRONG", "the controller's answer is not one", why, hint)
        };
        let peer = Peer::from_leaf(&answer.leaf_der).ok_or_else(|| wrong("its leaf carries no identity"))?;
        let identity = Identity { role: Role::Operator, id: answer.operator_id.clone() };
        let ours = spki_of_key(key).map_err(|error| broken(context, &error.to_string()))?;
        if peer.identity != identity || peer.spki_der != ours {
            return Err(wrong("its leaf is not for this operator's key"));
        }
        let anchored = match anchor {
            Anchor::Pin(pin) => answer.ca_der.iter().any(|der| spki_pin(der).is_ok_and(|found| found == *pin)),
            Anchor::Held(login) => answer.ca_der.iter().any(|der| login.roots.iter().any(|root| root.as_ref() == der)),
        };
        if !anchored || answer.ca_der.len() > ROOTS_MAX {
            return Err(wrong("its authorities are not the ones that are trusted"));
        }
        Ok(StoredLogin {
            controller: controller.to_owned(),
            operator: one_line(&answer.name, 128),
            leaf_der: STANDARD.encode(&answer.leaf_der),
            ca_der: answer.ca_der.iter().map(|der| STANDARD.encode(der)).collect(),
        })
    }

    /// Returns what TLS needs.
    pub(super) fn credentials(&self) -> Result<Credentials, ClientError> {
        let key = parse_key(&self.key).map_err(|error| broken(&self.context, &error.to_string()))?;
        Ok(Credentials { chain: vec![self.leaf.clone()], key })
    }

    /// Returns whom to accept as the controller.
    pub(super) fn trust(&self) -> Trust {
        Trust::Roots(self.roots.clone())
    }

    pub(super) fn key(&self) -> &SecretString {
        &self.key
    }

    /// Whether the leaf is old enough to be renewed.
    #[must_use]
    pub fn is_due(&self, now: Timestamp) -> bool {
        now >= self.not_before + self.not_before.duration_until(self.not_after) / RENEW_AT_PART
    }
}

/// Makes a key: PKCS #8 PEM.
pub(super) fn make_key() -> Result<SecretString, ClientError> {
    let made = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256);
    made.map(|key| key.serialize_pem().into()).map_err(|error| broken("new", &error.to_string()))
}

/// Proves possession of the key; the controller ignores everything else in it.
pub(super) fn csr(key: &SecretString) -> Result<Vec<u8>, ClientError> {
    let signed = || -> Result<Vec<u8>, rcgen::Error> {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        Ok(params.serialize_request(&KeyPair::from_pem(key.expose_secret())?)?.der().to_vec())
    };
    signed().map_err(|error| broken("new", &error.to_string()))
}

/// What is stored of a login does not read.
pub(super) fn broken(context: &str, why: &str) -> ClientError {
    let hint = format!(
        "remove it (certwright context rm {context}), then log in again with a new invitation (certwright operators invite)"
    );
    let message = format!("the login of context {context} cannot be used");
    ClientError::local(ErrorKind::Failed, "LOGIN_BROKEN", &message, why, &hint)
}
