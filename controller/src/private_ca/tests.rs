//! What the private CA signs, read by others: webpki verifies it as a client does, x509-parser says what stands in it.

use std::sync::Arc;
use std::time::Duration;

use jiff::SignedDuration;
use rcgen::{CertificateParams, DistinguishedName, PKCS_RSA_SHA256, RsaKeySize};
use rustls::RootCertStore;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier as _;
use rustls::pki_types::{CertificateRevocationListDer, ServerName, UnixTime};
use x509_parser::extensions::ParsedExtension;
use x509_parser::prelude::{CertificateRevocationList, FromDer as _, X509Certificate};

use super::*;
use crate::lifecycle::private_ca::tests::private_ca;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + second).unwrap()
}

/// A CA with its key and first root, made at second 0.
fn authority(names: &[&str], key_type: KeyType) -> (PrivateCa, SecretString) {
    let mut ca = PrivateCa { key_type, ..private_ca(names) };
    let key = new_key(key_type).unwrap();
    let root = certify_root(&ca, &key, at(0)).unwrap();
    ca.take_root(root, at(0));
    (ca, key)
}

fn csr(names: &[&str], key: &KeyPair) -> Vec<u8> {
    let mut params = CertificateParams::new(names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>()).unwrap();
    params.distinguished_name = DistinguishedName::new();
    params.serialize_request(key).unwrap().der().to_vec()
}

fn signed(ca: &PrivateCa, key: &SecretString, names: &[&str], second: i64) -> Result<String, SignError> {
    let own = KeyPair::generate().unwrap();
    let identifiers: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    sign(ca, key, &csr(names, &own), &identifiers, at(second))
}

fn ders(pem: &str) -> Vec<CertificateDer<'static>> {
    x509::parse_certificates(pem.as_bytes()).unwrap()
}

/// What a client says that trusts this root, and insists on a fresh list if it has one.
fn client(root: &Root, lists: &[Vec<u8>], pem: &str, name: &str, second: i64) -> Result<(), rustls::Error> {
    let mut roots = RootCertStore::empty();
    roots.add(ders(&root.pem).remove(0)).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let lists: Vec<_> = lists.iter().map(|der| CertificateRevocationListDer::from(der.clone())).collect();
    let mut builder = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider).with_crls(lists);
    builder = builder.enforce_revocation_expiration();
    let chain = ders(pem);
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let now = UnixTime::since_unix_epoch(Duration::from_secs(u64::try_from(at(second).as_second()).unwrap()));
    builder.build().unwrap().verify_server_cert(&chain[0], &chain[1..], &name, &[], now).map(drop)
}

#[test]
fn clients_that_trust_the_root_trust_its_leaves_and_no_other_names() {
    for key_type in [KeyType::P256, KeyType::P384] {
        let (ca, key) = authority(&["*.corp.example", "10.0.0.0/8"], key_type);
        let root = ca.root().unwrap().clone();
        let names = ["a.corp.example", "10.1.2.3"];
        let pem = signed(&ca, &key, &names, 10).unwrap();
        for name in names {
            client(&root, &[], &pem, name, 20).unwrap();
        }
        assert!(client(&root, &[], &pem, "b.corp.example", 20).is_err());
        assert!(client(&root, &[], &pem, names[0], ca.leaf_life_s + 11).is_err(), "it lives its life");
        // Whoever got the key signs what the policy does not allow: clients refuse it all the same.
        for stolen in ["bank.example", "192.0.2.1", "2001:db8::1"] {
            let pem = signed(&ca, &key, &[stolen], 10).unwrap();
            let said = client(&root, &[], &pem, stolen, 20).unwrap_err();
            assert!(format!("{said:?}").contains("NameConstraint"), "{stolen}: {said:?}");
        }
    }
}

#[test]
fn a_kind_of_name_without_a_line_is_excluded_as_a_whole() {
    for (names, stolen) in [(["10.0.0.0/8"], "a.example"), (["*.example"], "10.0.0.1"), (["2001:db8::/32"], "10.0.0.1")]
    {
        let (ca, key) = authority(&names, KeyType::P256);
        let pem = signed(&ca, &key, &[stolen], 10).unwrap();
        assert!(client(ca.root().unwrap(), &[], &pem, stolen, 20).is_err(), "{names:?}");
    }
    let (ca, key) = authority(&["0.0.0.0/0"], KeyType::P256);
    client(ca.root().unwrap(), &[], &signed(&ca, &key, &["192.0.2.1"], 1).unwrap(), "192.0.2.1", 2).unwrap();
}

#[test]
fn a_leaf_says_its_names_and_how_to_use_it_and_nothing_else() {
    let (mut ca, key) = authority(&["*.corp.example", "10.0.0.0/8"], KeyType::P256);
    ca.list_url = Some("http://crl.corp.example/crl/corp.crl".into());
    let own = KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_2048).unwrap();
    let names = ["a.corp.example".to_owned(), "10.1.2.3".to_owned()];
    let pem = sign(&ca, &key, &csr(&["evil.example"], &own), &names, at(10)).unwrap();
    let ders = ders(&pem);
    assert_eq!(ders.len(), 2, "the root is in the chain");
    let (_, leaf) = X509Certificate::from_der(&ders[0]).unwrap();
    assert_eq!(leaf.subject().iter().count(), 0);
    let facts = LeafFacts::parse(&ders[0]).unwrap();
    assert_eq!(facts.identifiers, names, "not what the CSR wished");
    assert_eq!(facts.serial.len(), 32);
    assert_eq!(facts.not_before, at(10) - SignedDuration::from_mins(5));
    assert_eq!(facts.not_after, at(10 + ca.leaf_life_s));
    assert!(leaf.subject_alternative_name().unwrap().unwrap().critical);
    let usage = leaf.key_usage().unwrap().unwrap();
    assert!(usage.critical && usage.value.digital_signature() && usage.value.key_encipherment());
    assert!(!usage.value.key_cert_sign() && !usage.value.crl_sign());
    let extended = leaf.extended_key_usage().unwrap().unwrap().value;
    assert!(extended.server_auth && !extended.client_auth && !extended.any && extended.other.is_empty());
    assert!(!leaf.basic_constraints().unwrap().unwrap().value.ca);
    let said =
        |wanted: fn(&ParsedExtension<'_>) -> bool| leaf.extensions().iter().any(|one| wanted(one.parsed_extension()));
    assert!(said(|one| matches!(one, ParsedExtension::AuthorityKeyIdentifier(_))));
    assert!(said(|one| matches!(one, ParsedExtension::SubjectKeyIdentifier(_))));
    assert!(said(|one| format!("{one:?}").contains("http://crl.corp.example/crl/corp.crl")));
}

#[test]
fn the_root_signs_leaves_and_lists_only_and_its_constraints_are_critical() {
    let (ca, _) = authority(&["*.corp.example"], KeyType::P256);
    let der = ders(&ca.root().unwrap().pem).remove(0);
    let (_, root) = X509Certificate::from_der(&der).unwrap();
    let basic = root.basic_constraints().unwrap().unwrap();
    assert!(basic.critical && basic.value.ca && basic.value.path_len_constraint == Some(0));
    let usage = root.key_usage().unwrap().unwrap();
    assert!(
        usage.critical && usage.value.key_cert_sign() && usage.value.crl_sign() && !usage.value.digital_signature()
    );
    assert!(root.name_constraints().unwrap().unwrap().critical);
}

#[test]
fn what_was_signed_before_and_after_a_new_root_verifies_under_both() {
    let (mut ca, key) = authority(&["*.corp.example"], KeyType::P256);
    let first = ca.root().unwrap().clone();
    let before = signed(&ca, &key, &["a.corp.example"], 17_000).unwrap();
    let second = certify_root(&ca, &key, at(18_000)).unwrap();
    ca.take_root(second.clone(), at(18_000));
    let after = signed(&ca, &key, &["a.corp.example"], 18_010).unwrap();
    for root in [&first, &second] {
        for pem in [&before, &after] {
            client(root, &[], pem, "a.corp.example", 18_020).unwrap();
        }
    }
    assert_ne!(first.fingerprint_sha256, second.fingerprint_sha256);
}

fn revoked(pem: &str, reason: RevocationReason) -> RevokedLeaf {
    let facts = LeafFacts::parse(&ders(pem)[0]).unwrap();
    RevokedLeaf { issuer_id: "i".into(), serial: facts.serial, revoked_at: at(100), reason, not_after: facts.not_after }
}

#[test]
fn a_client_with_the_list_refuses_what_is_on_it_and_nothing_else() {
    let (ca, key) = authority(&["*.corp.example"], KeyType::P256);
    let root = ca.root().unwrap();
    let (good, bad) =
        (signed(&ca, &key, &["a.corp.example"], 10).unwrap(), signed(&ca, &key, &["b.corp.example"], 10).unwrap());
    let empty = sign_list(&ca, &key, &[], 7, at(50)).unwrap();
    client(root, std::slice::from_ref(&empty), &bad, "b.corp.example", 60).unwrap();
    let rows = [revoked(&bad, RevocationReason::KeyCompromise), revoked(&bad, RevocationReason::Unspecified)];
    for row in rows {
        let list = sign_list(&ca, &key, &[row], 8, at(100)).unwrap();
        assert!(client(root, std::slice::from_ref(&list), &bad, "b.corp.example", 110).is_err());
        client(root, std::slice::from_ref(&list), &good, "a.corp.example", 110).unwrap();
        let (_, parsed) = CertificateRevocationList::from_der(&list).unwrap();
        assert_eq!(parsed.crl_number().unwrap().to_string(), "8");
        assert_eq!(parsed.iter_revoked_certificates().count(), 1);
    }
    let (_, parsed) = CertificateRevocationList::from_der(&empty).unwrap();
    let next = parsed.next_update().unwrap().timestamp() - parsed.last_update().timestamp();
    assert_eq!(next, LIST_LIFE.as_secs());
}

#[test]
fn a_ca_that_cannot_sign_says_why() {
    let (ca, key) = authority(&["*.corp.example"], KeyType::P256);
    let expired = signed(&ca, &key, &["a.corp.example"], ca.root_life_s).unwrap_err();
    assert!(matches!(expired, SignError::NoRoot) && expired.problem("corp").hint.contains("issuers test corp"));
    let other = new_key(KeyType::P256).unwrap();
    assert!(matches!(signed(&ca, &other, &["a.corp.example"], 1), Err(SignError::Damaged(_))));
    let mut broken = csr(&["a.corp.example"], &KeyPair::generate().unwrap());
    let last = broken.len() - 1;
    broken[last] ^= 1;
    assert!(matches!(sign(&ca, &key, &broken, &["a.corp.example".into()], at(1)), Err(SignError::Csr(_))));
    assert!(!format!("{:?}", ca).contains("PRIVATE"), "no key in Debug");
}
