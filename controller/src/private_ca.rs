//! The private CA at work (features.md C1): makes its key and root, signs leaves and revocation lists. It knows no store and no
//! network, shares nothing with the identity CA, and keeps no key: each call opens the one it is given. Called by `tasks`.

mod profile;

#[cfg(test)]
mod tests;

use jiff::Timestamp;
use proto::x509::{self, CsrFacts, LeafFacts, X509Error};
use rcgen::{
    CertificateRevocationListParams, Issuer, KeyIdMethod, KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384,
    RevokedCertParams, SerialNumber, SignatureAlgorithm, SubjectPublicKeyInfo,
};
use rustls::pki_types::CertificateDer;
use secrecy::{ExposeSecret as _, SecretString};

use self::profile::instant;
use crate::lifecycle::certificate::KeyType;
use crate::lifecycle::private_ca::{LIST_LIFE, PrivateCa, RevokedLeaf, Root};
use crate::lifecycle::problem::{Problem, causes};
use crate::lifecycle::revocation::RevocationReason;

/// Why the CA cannot sign.
#[derive(Debug, thiserror::Error)]
pub enum SignError {
    /// No root yet, or it expired.
    #[error("the CA has no valid root certificate")]
    NoRoot,
    /// The stored root and key do not fit.
    #[error("the stored CA is damaged: {0}")]
    Damaged(&'static str),
    /// The CSR is not acceptable.
    #[error("the CSR is refused")]
    Csr(#[source] X509Error),
    /// rcgen failed.
    #[error("cannot make a certificate")]
    Build(#[from] rcgen::Error),
}

impl SignError {
    /// Returns the error for people; `name` is the issuer's.
    #[must_use]
    pub fn problem(&self, name: &str) -> Problem {
        let (reason, hint) = match self {
            Self::NoRoot => {
                ("PRIVATE_CA_NO_ROOT", format!("certwright issuers test {name} makes one, or says why not"))
            }
            Self::Damaged(_) => ("PRIVATE_CA_DAMAGED", "restore the database from a backup".to_owned()),
            Self::Csr(_) => ("CSR_REFUSED", "it is tried again with another key".to_owned()),
            Self::Build(_) => ("CERTIFICATE_NOT_MADE", "this is a bug: report it with the controller's log".to_owned()),
        };
        Problem::new(reason, format!("issuer {name} cannot sign: {self}"), causes(self), hint)
    }
}

/// Makes the key of a CA.
///
/// # Errors
/// When the provider fails.
pub fn new_key(key_type: KeyType) -> Result<SecretString, SignError> {
    Ok(KeyPair::generate_for(algorithm(key_type))?.serialize_pem().into())
}

/// Makes a self-signed certificate of a CA's key, constrained to the names of its policy.
///
/// # Errors
/// When the key does not read, or the certificate cannot be made.
pub fn certify_root(ca: &PrivateCa, key: &SecretString, now: Timestamp) -> Result<Root, SignError> {
    let key = key_pair(ca, key)?;
    let certificate = profile::root(ca, now)?.self_signed(&key)?;
    let facts = LeafFacts::parse(certificate.der()).or(Err(SignError::Damaged("its root does not parse")))?;
    Ok(Root {
        pem: x509::to_pem(certificate.der()),
        fingerprint_sha256: x509::hex(&facts.fingerprint_sha256),
        not_before: facts.not_before,
        not_after: facts.not_after,
        names: ca.names.clone(),
    })
}

/// Signs a leaf for the key of a CSR and exactly these identifiers; whatever else the CSR wishes is ignored. Returns PEM: the
/// leaf, then the root.
///
/// The root is in the chain although clients have it: some servers want a chain file that is not empty.
///
/// # Errors
/// When there is no valid root, or the CSR is not signed by its key.
pub fn sign(
    ca: &PrivateCa,
    key: &SecretString,
    csr_der: &[u8],
    identifiers: &[String],
    now: Timestamp,
) -> Result<String, SignError> {
    let not_after = ca.leaf_ends(now).ok_or(SignError::NoRoot)?;
    let csr = CsrFacts::parse(csr_der).map_err(SignError::Csr)?;
    let subject_key = SubjectPublicKeyInfo::from_der(&csr.spki_der)?;
    let (root, issuer) = issuer(ca, key)?;
    let leaf = profile::leaf(ca, identifiers, &subject_key, (now, not_after))?.signed_by(&subject_key, &issuer)?;
    Ok(format!("{}{}", x509::to_pem(leaf.der()), root.pem))
}

/// Signs a revocation list (RFC 5280 §5), DER.
///
/// # Errors
/// When there is no root, or the list cannot be made.
pub fn sign_list(
    ca: &PrivateCa,
    key: &SecretString,
    revoked: &[RevokedLeaf],
    number: u64,
    now: Timestamp,
) -> Result<Vec<u8>, SignError> {
    let (_, issuer) = issuer(ca, key)?;
    let list = CertificateRevocationListParams {
        this_update: instant(now)?,
        next_update: instant(now + LIST_LIFE)?,
        crl_number: SerialNumber::from_slice(&number.to_be_bytes()),
        issuing_distribution_point: None,
        revoked_certs: revoked.iter().filter_map(entry).collect(),
        key_identifier_method: KeyIdMethod::Sha256,
    };
    Ok(list.signed_by(&issuer)?.der().to_vec())
}

fn entry(leaf: &RevokedLeaf) -> Option<RevokedCertParams> {
    use rcgen::RevocationReason as Code;
    let reason_code = match leaf.reason {
        // RFC 5280 §5.3.1: absent rather than unspecified.
        RevocationReason::Unspecified => None,
        RevocationReason::KeyCompromise => Some(Code::KeyCompromise),
        RevocationReason::AffiliationChanged => Some(Code::AffiliationChanged),
        RevocationReason::Superseded => Some(Code::Superseded),
        RevocationReason::CessationOfOperation => Some(Code::CessationOfOperation),
    };
    Some(RevokedCertParams {
        serial_number: SerialNumber::from_slice(&x509::unhex(&leaf.serial)?),
        revocation_time: instant(leaf.revoked_at).ok()?,
        reason_code,
        invalidity_date: None,
    })
}

/// The root that signs, and its key, which must be the root's.
fn issuer<'a>(ca: &'a PrivateCa, key: &SecretString) -> Result<(&'a Root, Issuer<'static, KeyPair>), SignError> {
    let root = ca.root().ok_or(SignError::NoRoot)?;
    let certificates = x509::parse_certificates(root.pem.as_bytes());
    let der: CertificateDer<'static> = certificates
        .ok()
        .and_then(|certificates| certificates.into_iter().next())
        .ok_or(SignError::Damaged("its root does not parse"))?;
    let facts = LeafFacts::parse(&der).or(Err(SignError::Damaged("its root does not parse")))?;
    let spki = x509::spki_of_key(key).or(Err(SignError::Damaged("its key does not parse")))?;
    if spki != facts.spki_der {
        return Err(SignError::Damaged("its root has another key"));
    }
    Ok((root, Issuer::from_ca_cert_der(&der, key_pair(ca, key)?)?))
}

fn key_pair(ca: &PrivateCa, key: &SecretString) -> Result<KeyPair, SignError> {
    Ok(KeyPair::from_pkcs8_pem_and_sign_algo(key.expose_secret(), algorithm(ca.key_type))?)
}

fn algorithm(key_type: KeyType) -> &'static SignatureAlgorithm {
    match key_type {
        KeyType::P384 => &PKCS_ECDSA_P384_SHA384,
        // `rpc` takes no other.
        KeyType::P256 | KeyType::Rsa2048 | KeyType::Rsa3072 | KeyType::Rsa4096 => &PKCS_ECDSA_P256_SHA256,
    }
}
