//! Makes a key and its CSR in controller custody. The key is sealed in the same batch as the CSR. Called by `attempt`.

use proto::id::random_id;
use rcgen::{
    CertificateParams, DistinguishedName, KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, PKCS_RSA_SHA256,
    RsaKeySize,
};
use secrecy::SecretString;

use crate::lifecycle::certificate::{Certificate, Custody, KeySlot, KeyType};
use crate::store::seal::{Keyring, Place};
use crate::store::tables::Table;

/// Why no key could be made.
#[derive(Debug, thiserror::Error)]
pub(super) enum KeyError {
    /// rcgen refused.
    #[error("cannot make a key or its CSR")]
    Rcgen(#[from] rcgen::Error),
    /// The blocking task died.
    #[error("making a key ended by a bug")]
    Task(#[from] tokio::task::JoinError),
}

/// A slot that the agent fills: its key is born there.
pub(super) fn agent_slot(certificate: &Certificate, agent_id: &str) -> KeySlot {
    KeySlot {
        id: random_id(),
        certificate_id: certificate.id.clone(),
        custody: Custody::Agent,
        agent_id: Some(agent_id.to_owned()),
        identifiers: certificate.specification.identifiers.clone(),
        key_type: certificate.specification.key_type,
        csr: None,
        key: None,
        lost: false,
        problem: None,
    }
}

/// A slot with a key made here and sealed.
pub(super) async fn controller_slot(certificate: &Certificate, keyring: &Keyring) -> Result<KeySlot, KeyError> {
    let (identifiers, key_type) = (certificate.specification.identifiers.clone(), certificate.specification.key_type);
    let names = identifiers.clone();
    // RSA takes up to a second.
    let (key_pem, csr) = tokio::task::spawn_blocking(move || make(key_type, names)).await??;
    let mut slot =
        KeySlot { csr: Some(csr), custody: Custody::Controller, agent_id: None, ..agent_slot(certificate, "") };
    slot.identifiers = identifiers;
    slot.key = Some(keyring.seal(key_place(&format!("{}/{}", slot.certificate_id, slot.id)), &key_pem));
    Ok(slot)
}

/// Where a slot's key is sealed.
pub(crate) fn key_place(slot_key: &str) -> Place<'_> {
    Place { table: Table::KeySlot, key: slot_key, field: "key" }
}

fn make(key_type: KeyType, identifiers: Vec<String>) -> Result<(SecretString, String), rcgen::Error> {
    use base64::Engine as _;
    let key = match key_type {
        KeyType::P256 => KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?,
        KeyType::P384 => KeyPair::generate_for(&PKCS_ECDSA_P384_SHA384)?,
        KeyType::Rsa2048 => KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_2048)?,
        KeyType::Rsa3072 => KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_3072)?,
        KeyType::Rsa4096 => KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_4096)?,
    };
    let mut params = CertificateParams::new(identifiers)?;
    // No common name to rely on: the names are in the SAN extension (RFC 8555 §7.4 allows either).
    params.distinguished_name = DistinguishedName::new();
    let csr = params.serialize_request(&key)?;
    Ok((key.serialize_pem().into(), base64::engine::general_purpose::STANDARD.encode(csr.der())))
}
