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

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use proto::x509::CsrFacts;

    use super::*;

    /// One DER value of less than 128 bytes.
    fn der(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
        let content = parts.concat();
        [&[tag, u8::try_from(content.len()).unwrap()], content.as_slice()].concat()
    }

    /// Checks a CSR byte by byte (RFC 2986 §4.1): version 0, an empty subject, the key, and one attribute: the extension
    /// request with one extension, the names, critical because the subject is empty (RFC 5280 §4.2.1.6). No CN, no extended
    /// key usage, no TLS feature has a place in it.
    fn names_and_nothing_else(csr: &[u8], spki: &[u8]) {
        let names = der(
            0x30,
            &[
                &der(0x82, &[b"h1.example.test"]),
                &der(0x82, &[b"*.h1.example.test"]),
                &der(0x87, &[&[192, 0, 2, 1]]),
                &der(0x87, &[&[0x20, 0x01, 0x0D, 0xB8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]]),
            ],
        );
        let critical = [1, 1, 0xFF];
        let extension = der(0x30, &[&[6, 3, 0x55, 0x1D, 0x11], &critical, &der(0x04, &[&names])]);
        let extension_request = [6, 9, 0x2A, 0x86, 0x48, 0x86, 0xF7, 0x0D, 1, 9, 14];
        let attribute = der(0x30, &[&extension_request, &der(0x31, &[&der(0x30, &[&extension])])]);
        let whole = [&[2, 1, 0, 0x30, 0], spki, &der(0xA0, &[&attribute])].concat();
        let begins = csr.windows(whole.len()).position(|part| part == whole);
        assert!(begins.is_some_and(|at| at <= 8), "behind two lengths of at most four bytes: {csr:02x?}");
    }

    #[test]
    fn the_csr_holds_the_identifiers_and_nothing_else() {
        let types = [KeyType::P256, KeyType::P384, KeyType::Rsa2048, KeyType::Rsa3072, KeyType::Rsa4096];
        for (key_type, spki_bytes) in types.into_iter().zip([91, 120, 294, 422, 550]) {
            let identifiers = ["h1.example.test", "*.h1.example.test", "192.0.2.1", "2001:db8::1"].map(str::to_owned);
            let (key, csr) = make(key_type, identifiers.to_vec()).unwrap();
            let csr = base64::engine::general_purpose::STANDARD.decode(csr).unwrap();
            let spki = proto::x509::spki_of_key(&key).unwrap();
            assert_eq!(spki.len(), spki_bytes, "{key_type:?}");
            names_and_nothing_else(&csr, &spki);
            let facts = CsrFacts::parse(&csr).unwrap();
            assert!(facts.has_exactly(&identifiers) && facts.others == 0 && facts.spki_der == spki);
        }
    }
}
