//! Checks a leaf, its chain and its key before anything is written: a mismatched pair kills some servers at reload, and
//! their own configuration tests do not see it (design §8). Pure but for the parsing.

use proto::x509::{Chain, LeafFacts, hex, parse_certificates, spki_of_key, to_pem};
use rcgen::KeyPair;
use secrecy::{ExposeSecret as _, SecretString};
use zeroize::Zeroizing;

use super::pfx;
use crate::problem::Problem;
use crate::target::{Content, Target};

/// A version that is fit to be written.
#[derive(Debug)]
pub(crate) struct Pair {
    pub(crate) leaf: LeafFacts,
    leaf_pem: String,
    chain_pem: String,
    key_pem: Option<SecretString>,
    /// DER, the leaf first.
    certificates: Vec<Vec<u8>>,
    /// PKCS #8, DER.
    key_der: Zeroizing<Vec<u8>>,
}

impl Pair {
    /// Returns what a file holds; `password` is that of PKCS #12 files.
    pub(super) fn bytes(
        &self,
        target: &Target,
        content: Content,
        password: &SecretString,
    ) -> Result<Zeroizing<Vec<u8>>, Problem> {
        let text = match content {
            Content::Leaf => self.leaf_pem.clone(),
            Content::Chain => self.chain_pem.clone(),
            Content::Fullchain => format!("{}{}", self.leaf_pem, self.chain_pem),
            Content::Key => self.key().to_owned(),
            Content::Combined => [&self.leaf_pem, &self.chain_pem, self.key()].concat(),
            Content::Pfx => {
                return pfx::encode(&target.certificate_name, &self.certificates, &self.key_der, password)
                    .map(Zeroizing::new);
            }
            // Without a line's end: some read the first line of it, some the whole file.
            Content::PfxPassword => password.expose_secret().to_owned(),
        };
        Ok(Zeroizing::new(text.into_bytes()))
    }

    fn key(&self) -> &str {
        self.key_pem.as_ref().map_or("", |key| key.expose_secret())
    }
}

/// Checks chain, key, names and fingerprint against the target. The text is written anew from what was parsed, so that
/// nothing but PEM blocks reaches a file.
pub(crate) fn check(target: &Target, leaf: &str, chain: &str, key: Option<SecretString>) -> Result<Pair, Problem> {
    let version = target.version.as_ref().ok_or_else(|| unfit("there is no version to write", String::new()))?;
    let parsed = Chain::parse_pem(format!("{leaf}\n{chain}").as_bytes())
        .map_err(|error| unfit("the chain does not parse", error.to_string()))?;
    if parsed.leaf.fingerprint_sha256 != version.fingerprint_sha256 {
        let found =
            format!("expected {}, got {}", hex(&version.fingerprint_sha256), hex(&parsed.leaf.fingerprint_sha256));
        return Err(unfit("the leaf is not the desired one", found));
    }
    if let Some(name) = target.identifiers.iter().find(|name| !parsed.leaf.identifiers.contains(name)) {
        return Err(unfit("the leaf does not cover every identifier", format!("{name} is missing")));
    }
    if key.is_none() && target.has_key_file() {
        return Err(unfit("the controller sent no private key", String::new()));
    }
    let (key_pem, key_der) = match key {
        None => (None, Vec::new()),
        Some(key) => {
            let spki = spki_of_key(&key).map_err(|error| unfit("the private key does not parse", error.to_string()))?;
            if spki != parsed.leaf.spki_der {
                return Err(unfit("the private key does not belong to the leaf", String::new()));
            }
            let key = KeyPair::from_pem(key.expose_secret());
            let key = key.map_err(|error| unfit("the private key does not parse", error.to_string()))?;
            (Some(key.serialize_pem().into()), key.serialize_der())
        }
    };
    let (leaf_der, issuers) =
        parsed.certificates.split_first().ok_or_else(|| unfit("the chain is empty", String::new()))?;
    Ok(Pair {
        leaf_pem: to_pem(leaf_der),
        chain_pem: issuers.iter().map(|der| to_pem(der)).collect(),
        key_pem,
        key_der: Zeroizing::new(key_der),
        certificates: parsed.certificates.iter().map(|der| der.to_vec()).collect(),
        leaf: parsed.leaf,
    })
}

/// Returns the facts of the first certificate of a file, if it has one.
pub(crate) fn leaf_of(pem: &[u8]) -> Option<LeafFacts> {
    LeafFacts::parse(parse_certificates(pem).ok()?.first()?).ok()
}

fn unfit(message: &str, cause: String) -> Problem {
    Problem::new(
        "PAIR_INVALID",
        format!("the certificate was not written: {message}"),
        cause,
        "the files on this server are unchanged; renew the certificate, and report a bug if it happens again",
    )
}
