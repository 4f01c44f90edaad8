//! Whether a CSR that an agent made is the one that was ordered (RFC 8555 §7.4): exactly the names, the type of key, and no
//! other wish. A CA may grant whatever a CSR asks for. Called by `rpc`.

use proto::x509::CsrFacts;

use super::certificate::{KeySlot, KeyType};

/// Returns why a CSR is not accepted for its slot, if it is not.
#[must_use]
pub fn refusal(slot: &KeySlot, facts: &CsrFacts) -> Option<&'static str> {
    if !facts.has_exactly(&slot.identifiers) || facts.others > 0 {
        return Some("it must name exactly the identifiers of its slot, and nothing else");
    }
    (!key_matches(slot.key_type, &facts.spki_der)).then_some("its key is of another type than ordered")
}

/// Whether a SubjectPublicKeyInfo is of the ordered type: the lengths of these encodings are fixed (RFC 5480, RFC 8017),
/// and a key of another kind with one of them is too weak for the signature of its CSR to be accepted.
fn key_matches(key_type: KeyType, spki_der: &[u8]) -> bool {
    let length = match key_type {
        KeyType::P256 => 91,
        KeyType::P384 => 120,
        KeyType::Rsa2048 => 294,
        KeyType::Rsa3072 => 422,
        KeyType::Rsa4096 => 550,
    };
    spki_der.len() == length
}

#[cfg(test)]
mod tests {
    use rcgen::{
        BasicConstraints, CertificateParams, CustomExtension, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
        KeyPair, KeyUsagePurpose, SanType, SignatureAlgorithm,
    };

    use super::*;
    use crate::lifecycle::certificate::Custody;

    const NAMES: [&str; 3] = ["h1.example.test", "192.0.2.1", "2001:db8::1"];

    /// What makes an honest CSR another one.
    type Change = fn(&mut CertificateParams);

    /// openssl req -new -newkey rsa:1024 -nodes -subj / -addext subjectAltName=DNS:h1.example.test
    const RSA_1024: &str = concat!(
        "MIIBbDCB1gIBADAAMIGfMA0GCSqGSIb3DQEBAQUAA4GNADCBiQKBgQCzEau9jXxfMlOi7LSSiqL8M6/qq5eSdMcF/7D5PtIwn4XF",
        "6ecojQGsQacb9qzd3yumzTaseSfd5jdkrUfoG40JYnmIw1nQ+M+0EqjGCrONHPUK9nSdwTV8M+Xhj1COfneM5zu20vFA/yQux0pE",
        "f5VrpQfSqJW3kH/QR+ei78i0qQIDAQABoC0wKwYJKoZIhvcNAQkOMR4wHDAaBgNVHREEEzARgg9oMS5leGFtcGxlLnRlc3QwDQYJ",
        "KoZIhvcNAQELBQADgYEAlQWovc6QFFNabZHGrMsKLNNBJ/LHEn09/hsBZbTvii3qjWq5BO3cABjBH67+0L0yhz9bnnURRom1aTg1",
        "XR7VLEKPVTUTTaDgSGwONJl/iIlKMH4weDS/3gZcPmtQ2NLGxgN+QzTlwHDBP2lwAsd5HK+ruO7B5B3YRL3A0bhkU+0=",
    );

    fn slot(key_type: KeyType) -> KeySlot {
        let identifiers = NAMES.map(str::to_owned).to_vec();
        KeySlot {
            id: "slot".into(),
            certificate_id: "web".into(),
            custody: Custody::Agent,
            agent_id: None,
            identifiers,
            key_type,
            csr: None,
            key: None,
            lost: false,
            problem: None,
        }
    }

    /// What is said of a CSR for a P-256 slot that was made with such a key and changed so.
    fn said(
        algorithm: &'static SignatureAlgorithm,
        change: impl FnOnce(&mut CertificateParams),
    ) -> Option<&'static str> {
        let mut params = CertificateParams::new(NAMES.map(str::to_owned)).unwrap();
        params.distinguished_name = DistinguishedName::new();
        change(&mut params);
        let csr = params.serialize_request(&KeyPair::generate_for(algorithm).unwrap()).unwrap();
        refusal(&slot(KeyType::P256), &CsrFacts::parse(csr.der()).unwrap())
    }

    fn wish(change: impl FnOnce(&mut CertificateParams)) -> Option<&'static str> {
        said(&rcgen::PKCS_ECDSA_P256_SHA256, change)
    }

    /// TLS feature with status_request (RFC 7633).
    fn must_staple() -> CustomExtension {
        CustomExtension::from_oid_content(&[1, 3, 6, 1, 5, 5, 7, 1, 24], vec![0x30, 3, 2, 1, 5])
    }

    #[test]
    fn whatever_a_csr_wishes_beside_its_names_is_refused() {
        assert_eq!(wish(|_| {}), None);
        let wishes: [(&str, Change); 11] = [
            ("a CN", |csr| csr.distinguished_name.push(DnType::CommonName, NAMES[0])),
            ("an organisation", |csr| csr.distinguished_name.push(DnType::OrganizationName, "Bank")),
            ("clientAuth", |csr| csr.extended_key_usages.push(ExtendedKeyUsagePurpose::ClientAuth)),
            ("serverAuth", |csr| csr.extended_key_usages.push(ExtendedKeyUsagePurpose::ServerAuth)),
            ("must-staple", |csr| csr.custom_extensions.push(must_staple())),
            ("a CA", |csr| csr.is_ca = IsCa::Ca(BasicConstraints::Unconstrained)),
            ("keyCertSign", |csr| csr.key_usages.push(KeyUsagePurpose::KeyCertSign)),
            ("another name", |csr| csr.subject_alt_names.push(SanType::DnsName("bank.example".try_into().unwrap()))),
            ("a mail address", |csr| {
                csr.subject_alt_names.push(SanType::Rfc822Name("root@example.test".try_into().unwrap()))
            }),
            ("a URI", |csr| csr.subject_alt_names.push(SanType::URI("certwright:controller".try_into().unwrap()))),
            ("a name less", |csr| drop(csr.subject_alt_names.pop())),
        ];
        for (what, change) in wishes {
            assert!(wish(change).is_some_and(|said| said.contains("exactly")), "{what}");
        }
    }

    #[test]
    fn a_key_of_another_type_than_ordered_is_refused() {
        for algorithm in [&rcgen::PKCS_ECDSA_P384_SHA384, &rcgen::PKCS_ED25519, &rcgen::PKCS_RSA_SHA256] {
            assert!(said(algorithm, |_| {}).is_some_and(|said| said.contains("type")), "{algorithm:?}");
        }
    }

    #[test]
    fn a_weak_key_is_refused_whatever_was_ordered() {
        use base64::Engine as _;
        let der = base64::engine::general_purpose::STANDARD.decode(RSA_1024).unwrap();
        let facts = CsrFacts::parse(&der);
        let all = [KeyType::P256, KeyType::P384, KeyType::Rsa2048, KeyType::Rsa3072, KeyType::Rsa4096];
        let refused = |facts: &CsrFacts| all.iter().all(|one| !key_matches(*one, &facts.spki_der));
        assert!(facts.is_err() || facts.is_ok_and(|facts| refused(&facts)));
    }
}
