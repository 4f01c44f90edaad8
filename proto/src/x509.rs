//! Reads certificates, chains, keys and CSRs (RFC 5280, RFC 2986). Input is hostile: sizes are capped before parsing.
//! Controller and agent both check a pair with this code before they let it near a server.

use jiff::Timestamp;
use rcgen::PublicKeyData as _;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use secrecy::{ExposeSecret as _, SecretString};
use sha2::{Digest as _, Sha256};
use x509_parser::asn1_rs::Any;
use x509_parser::cri_attributes::{ParsedCriAttribute, X509CriAttribute};
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::prelude::{FromDer as _, X509Certificate, X509CertificationRequest};

/// Largest PEM text accepted: ten certificates of generous size.
pub const PEM_BYTES_MAX: usize = 64 * 1024;
/// Most certificates in a chain, leaf included.
pub const CHAIN_LEN_MAX: usize = 10;
/// Most subject alternative names of a CSR or leaf (Let's Encrypt's limit is 100).
pub const NAMES_MAX: usize = 100;

/// Why bytes are not what they should be. The text is ours, never the input's.
#[derive(Debug, thiserror::Error)]
pub enum X509Error {
    /// More bytes than [`PEM_BYTES_MAX`].
    #[error("larger than {PEM_BYTES_MAX} bytes")]
    TooLarge,
    /// No certificate in the text, or a broken PEM block.
    #[error("no readable PEM certificate")]
    NotPem,
    /// More certificates than [`CHAIN_LEN_MAX`].
    #[error("more than {CHAIN_LEN_MAX} certificates")]
    TooMany,
    /// DER that does not parse, or bytes behind it.
    #[error("{0} does not parse as DER")]
    BadDer(&'static str),
    /// A key that does not parse or is of an unsupported kind.
    #[error("the private key does not parse")]
    BadKey,
    /// The CSR's signature is not by its own key.
    #[error("the CSR is not signed by its key")]
    CsrSignature,
    /// Each certificate of a chain must be issued by the next one.
    #[error("certificate {0} of the chain is not issued by the one after it")]
    ChainOrder(usize),
}

/// What a leaf says. Text fields are raw: sanitise before showing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeafFacts {
    /// Serial number, lower-case hex without separators.
    pub serial: String,
    /// SHA-256 over the DER.
    pub fingerprint_sha256: [u8; 32],
    /// Start of validity.
    pub not_before: Timestamp,
    /// End of validity, inclusive.
    pub not_after: Timestamp,
    /// DNS names of the SAN extension, lower case; IP addresses in text form behind them.
    pub identifiers: Vec<String>,
    /// URIs of the SAN extension.
    pub uris: Vec<String>,
    /// Common name of the issuer, or its first attribute.
    pub issuer_cn: String,
    /// SubjectPublicKeyInfo, DER.
    pub spki_der: Vec<u8>,
    /// basicConstraints CA.
    pub is_ca: bool,
    /// What the CA's renewal information calls it (RFC 9773 §4.1); none without an authority key identifier.
    pub renewal_id: Option<String>,
}

/// A parsed PEM chain, leaf first.
#[derive(Clone, Debug)]
pub struct Chain {
    /// DER of the leaf and then of each issuer.
    pub certificates: Vec<CertificateDer<'static>>,
    /// Facts of the leaf.
    pub leaf: LeafFacts,
}

impl Chain {
    /// Parses a PEM chain, leaf first, and checks that each certificate is issued by the next one.
    ///
    /// # Errors
    /// When the text is too large, is not PEM, does not parse, or is out of order.
    pub fn parse_pem(pem: &[u8]) -> Result<Self, X509Error> {
        let certificates = parse_certificates(pem)?;
        let leaf = certificates.first().ok_or(X509Error::NotPem)?;
        let leaf = LeafFacts::parse(leaf)?;
        for (index, pair) in certificates.windows(2).enumerate() {
            let [subject, issuer] = pair else { continue };
            let subject = parse_certificate(subject)?;
            let issuer = parse_certificate(issuer)?;
            let linked = subject.issuer() == issuer.subject();
            if !linked || subject.verify_signature(Some(issuer.public_key())).is_err() {
                return Err(X509Error::ChainOrder(index));
            }
        }
        Ok(Self { certificates, leaf })
    }
}

impl LeafFacts {
    /// Parses one certificate.
    ///
    /// # Errors
    /// When the DER does not parse.
    pub fn parse(der: &[u8]) -> Result<Self, X509Error> {
        let certificate = parse_certificate(der)?;
        let (identifiers, uris) = names(certificate.extensions().iter().map(|ext| ext.parsed_extension()));
        let issuer_cn = certificate
            .issuer()
            .iter_common_name()
            .next()
            .or_else(|| certificate.issuer().iter_attributes().next())
            .and_then(|attribute| attribute.as_str().ok())
            .unwrap_or_default()
            .to_owned();
        const BAD: X509Error = X509Error::BadDer("validity");
        Ok(Self {
            serial: certificate.raw_serial().iter().map(|byte| format!("{byte:02x}")).collect(),
            fingerprint_sha256: fingerprint(der),
            not_before: Timestamp::from_second(certificate.validity().not_before.timestamp()).or(Err(BAD))?,
            not_after: Timestamp::from_second(certificate.validity().not_after.timestamp()).or(Err(BAD))?,
            identifiers,
            uris,
            issuer_cn,
            spki_der: certificate.public_key().raw.to_vec(),
            is_ca: certificate.is_ca(),
            renewal_id: renewal_id(&certificate),
        })
    }

    /// Whether the two name sets are equal, ignoring order and case.
    #[must_use]
    pub fn has_exactly(&self, identifiers: &[String]) -> bool {
        same_set(&self.identifiers, identifiers)
    }
}

/// What a CSR says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CsrFacts {
    /// DNS names and IP addresses of the requested SAN extension.
    pub identifiers: Vec<String>,
    /// How many other wishes it has: parts of a subject, other kinds of names, other extensions or attributes. A
    /// certificate's CSR has none.
    pub others: usize,
    /// SubjectPublicKeyInfo, DER.
    pub spki_der: Vec<u8>,
}

impl CsrFacts {
    /// Parses a PKCS #10 request and checks its signature (proof of possession).
    ///
    /// # Errors
    /// When it does not parse or is not signed by its key.
    pub fn parse(der: &[u8]) -> Result<Self, X509Error> {
        if der.len() > PEM_BYTES_MAX {
            return Err(X509Error::TooLarge);
        }
        const BAD: X509Error = X509Error::BadDer("the CSR");
        let (rest, csr) = X509CertificationRequest::from_der(der).or(Err(BAD))?;
        if !rest.is_empty() {
            return Err(BAD);
        }
        csr.verify_signature().or(Err(X509Error::CsrSignature))?;
        let extensions: Vec<_> = csr.requested_extensions().into_iter().flatten().collect();
        let others = extensions.iter().filter(|ext| !matches!(ext, ParsedExtension::SubjectAlternativeName(_))).count();
        let (identifiers, uris) = names(extensions.into_iter());
        let request = &csr.certification_request_info;
        let subject = request.subject.iter_attributes().count();
        let others = others + uris.len() + subject + other_attributes(request.attributes());
        Ok(Self { identifiers, others, spki_der: request.subject_pki.raw.to_vec() })
    }

    /// Whether the two name sets are equal, ignoring order and case.
    #[must_use]
    pub fn has_exactly(&self, identifiers: &[String]) -> bool {
        same_set(&self.identifiers, identifiers)
    }
}

/// Returns the SubjectPublicKeyInfo (DER) of the first private key in a PEM text; certificates may stand before it.
///
/// # Errors
/// When the key does not parse.
pub fn spki_of_key(key_pem: &SecretString) -> Result<Vec<u8>, X509Error> {
    if key_pem.expose_secret().len() > PEM_BYTES_MAX {
        return Err(X509Error::TooLarge);
    }
    let key = rcgen::KeyPair::try_from(&parse_key(key_pem)?).or(Err(X509Error::BadKey))?;
    Ok(key.subject_public_key_info())
}

/// Parses a PEM private key for TLS use.
///
/// # Errors
/// When the key does not parse.
pub fn parse_key(key_pem: &SecretString) -> Result<PrivateKeyDer<'static>, X509Error> {
    PrivateKeyDer::from_pem_slice(key_pem.expose_secret().as_bytes()).or(Err(X509Error::BadKey))
}

/// Parses all certificates of a PEM text, in its order.
///
/// # Errors
/// When the text is too large, holds none or too many, or a block is broken.
pub fn parse_certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, X509Error> {
    if pem.len() > PEM_BYTES_MAX {
        return Err(X509Error::TooLarge);
    }
    let mut certificates = Vec::new();
    for certificate in CertificateDer::pem_slice_iter(pem) {
        if certificates.len() == CHAIN_LEN_MAX {
            return Err(X509Error::TooMany);
        }
        certificates.push(certificate.or(Err(X509Error::NotPem))?);
    }
    if certificates.is_empty() { Err(X509Error::NotPem) } else { Ok(certificates) }
}

/// Returns one certificate as PEM with a final line break.
#[must_use]
pub fn to_pem(der: &[u8]) -> String {
    use base64::Engine as _;
    let text = base64::engine::general_purpose::STANDARD.encode(der);
    let mut pem = String::from("-----BEGIN CERTIFICATE-----\n");
    for (index, ch) in text.chars().enumerate() {
        if index > 0 && index % 64 == 0 {
            pem.push('\n');
        }
        pem.push(ch);
    }
    pem.push_str("\n-----END CERTIFICATE-----\n");
    pem
}

/// Returns the SHA-256 of a DER certificate.
#[must_use]
pub fn fingerprint(der: &[u8]) -> [u8; 32] {
    Sha256::digest(der).into()
}

/// Returns lower-case hex without separators.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Reads hex without separators; nothing when it is none.
#[must_use]
pub fn unhex(text: &str) -> Option<Vec<u8>> {
    let bytes = text.as_bytes();
    let digit = |byte: &u8| char::from(*byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let pairs = bytes.chunks(2).map(|pair| match pair {
        [high, low] => Some(digit(high)? << 4 | digit(low)?),
        _ => None,
    });
    pairs.collect()
}

/// Returns the SHA-256 of a certificate's SubjectPublicKeyInfo: the pin of a join token.
///
/// # Errors
/// When the DER does not parse.
pub fn spki_pin(der: &[u8]) -> Result<[u8; 32], X509Error> {
    Ok(Sha256::digest(parse_certificate(der)?.public_key().raw).into())
}

fn parse_certificate(der: &[u8]) -> Result<X509Certificate<'_>, X509Error> {
    const BAD: X509Error = X509Error::BadDer("the certificate");
    if der.len() > PEM_BYTES_MAX {
        return Err(X509Error::TooLarge);
    }
    let (rest, certificate) = X509Certificate::from_der(der).or(Err(BAD))?;
    if rest.is_empty() { Ok(certificate) } else { Err(BAD) }
}

/// RFC 9773 §4.1: base64url of the authority key identifier, a dot, base64url of the serial number's DER content.
fn renewal_id(certificate: &X509Certificate<'_>) -> Option<String> {
    use base64::Engine as _;
    let engine = base64::engine::general_purpose::URL_SAFE_NO_PAD;
    let issuer_key = certificate.extensions().iter().find_map(|extension| match extension.parsed_extension() {
        ParsedExtension::AuthorityKeyIdentifier(found) => found.key_identifier.as_ref(),
        _ => None,
    })?;
    Some(format!("{}.{}", engine.encode(issuer_key.0), engine.encode(certificate.raw_serial())))
}

fn names<'a>(extensions: impl Iterator<Item = &'a ParsedExtension<'a>>) -> (Vec<String>, Vec<String>) {
    let (mut identifiers, mut uris) = (Vec::new(), Vec::new());
    for extension in extensions {
        let ParsedExtension::SubjectAlternativeName(san) = extension else { continue };
        for name in &san.general_names {
            match name {
                GeneralName::DNSName(name) => identifiers.push(name.to_ascii_lowercase()),
                GeneralName::IPAddress(bytes) => identifiers.push(ip_text(bytes)),
                GeneralName::URI(uri) => uris.push((*uri).to_owned()),
                other => uris.push(format!("{other:?}")),
            }
        }
    }
    (identifiers, uris)
}

/// How many attributes of a CSR are not its one extension request: those the parser passes over.
fn other_attributes(attributes: &[X509CriAttribute<'_>]) -> usize {
    let is_whole = |value: &[u8]| Any::from_der(value).is_ok_and(|(rest, _)| rest.is_empty());
    let is_request = |one: &X509CriAttribute<'_>| {
        // A second value behind the first is cut off from what was parsed.
        matches!(one.parsed_attribute(), ParsedCriAttribute::ExtensionRequest(_)) && is_whole(one.value)
    };
    match attributes {
        [one] if is_request(one) => 0,
        attributes => attributes.len(),
    }
}

fn ip_text(bytes: &[u8]) -> String {
    if let Ok(v4) = <[u8; 4]>::try_from(bytes) {
        std::net::Ipv4Addr::from(v4).to_string()
    } else if let Ok(v6) = <[u8; 16]>::try_from(bytes) {
        std::net::Ipv6Addr::from(v6).to_string()
    } else {
        format!("bad-ip:{}", hex(bytes))
    }
}

fn same_set(left: &[String], right: &[String]) -> bool {
    let sorted = |names: &[String]| {
        let mut names: Vec<_> = names.iter().map(|name| name.to_ascii_lowercase()).collect();
        names.sort_unstable();
        names.dedup();
        names
    };
    sorted(left) == sorted(right)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn issue(names: &[&str]) -> (rcgen::Certificate, rcgen::KeyPair) {
        let key = rcgen::KeyPair::generate().unwrap();
        let names = names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        (rcgen::CertificateParams::new(names).unwrap().self_signed(&key).unwrap(), key)
    }

    #[test]
    fn reads_what_a_leaf_says() {
        let (certificate, key) = issue(&["a.example.test", "B.example.test"]);
        let facts = LeafFacts::parse(certificate.der()).unwrap();
        assert!(facts.has_exactly(&["b.example.test".into(), "A.example.test".into()]));
        assert!(!facts.has_exactly(&["a.example.test".into()]));
        assert_eq!(facts.spki_der, spki_of_key(&key.serialize_pem().into()).unwrap());
        assert_eq!(to_pem(certificate.der()).replace('\n', ""), certificate.pem().replace(['\r', '\n'], ""));
    }

    #[test]
    fn names_a_leaf_as_rfc_9773_does() {
        let issuer_key = [0x69, 0x88, 0x5B, 0x6B, 0x87, 0x46, 0x40, 0x41, 0xE1, 0xB3];
        let issuer_key = [&issuer_key[..], &[0x7B, 0x84, 0x7B, 0xA0, 0xAE, 0x2C, 0xDE, 0x01, 0xC8, 0xD4]].concat();
        let mut authority = rcgen::CertificateParams::default();
        authority.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        authority.key_identifier_method = rcgen::KeyIdMethod::PreSpecified(issuer_key);
        let key = rcgen::KeyPair::generate().unwrap();
        let authority = rcgen::CertifiedIssuer::self_signed(authority, rcgen::KeyPair::generate().unwrap()).unwrap();
        let mut leaf = rcgen::CertificateParams::new(vec!["a.test".to_owned()]).unwrap();
        leaf.serial_number = Some(rcgen::SerialNumber::from_slice(&[0x87, 0x65, 0x43, 0x21]));
        leaf.use_authority_key_identifier_extension = true;
        let leaf = LeafFacts::parse(leaf.signed_by(&key, &authority).unwrap().der()).unwrap();
        // The example of RFC 9773 §4.1.
        assert_eq!(leaf.renewal_id.unwrap(), "aYhba4dGQEHhs3uEe6CuLN4ByNQ.AIdlQyE");
        assert_eq!(LeafFacts::parse(issue(&["a.test"]).0.der()).unwrap().renewal_id, None);
    }

    #[test]
    fn a_chain_in_the_wrong_order_is_refused() {
        let (one, _) = issue(&["a.test"]);
        let (two, _) = issue(&["b.test"]);
        let pem = format!("{}{}", one.pem(), two.pem());
        assert!(matches!(Chain::parse_pem(pem.as_bytes()), Err(X509Error::ChainOrder(0))));
    }

    #[test]
    fn hostile_pem_is_refused_before_parsing() {
        assert!(matches!(parse_certificates(&vec![b'x'; PEM_BYTES_MAX + 1]), Err(X509Error::TooLarge)));
        assert!(matches!(parse_certificates(b"-----BEGIN CERTIFICATE-----\n!!"), Err(X509Error::NotPem)));
        let (one, _) = issue(&["a.test"]);
        assert!(matches!(parse_certificates(one.pem().repeat(11).as_bytes()), Err(X509Error::TooMany)));
    }

    /// A CSR for `a.test` with an empty subject.
    fn plain() -> rcgen::CertificateParams {
        let mut params = rcgen::CertificateParams::new(vec!["a.test".to_owned()]).unwrap();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params
    }

    fn others(params: &rcgen::CertificateParams, attributes: Vec<rcgen::Attribute>) -> usize {
        let key = rcgen::KeyPair::generate().unwrap();
        let csr = params.serialize_request_with_attributes(&key, attributes).unwrap();
        CsrFacts::parse(csr.der()).unwrap().others
    }

    #[test]
    fn every_other_wish_of_a_csr_is_counted() {
        assert_eq!(others(&plain(), Vec::new()), 0);
        let mut named = plain();
        named.distinguished_name.push(rcgen::DnType::CommonName, "b.test");
        assert_eq!(others(&named, Vec::new()), 1);
        named.distinguished_name.push(rcgen::DnType::OrganizationName, "Bank");
        assert_eq!(others(&named, Vec::new()), 2);
        let mut staples = plain();
        // TLS feature: status_request (RFC 7633).
        let feature = rcgen::CustomExtension::from_oid_content(&[1, 3, 6, 1, 5, 5, 7, 1, 24], vec![0x30, 3, 2, 1, 5]);
        staples.custom_extensions.push(feature);
        assert_eq!(others(&staples, Vec::new()), 1);
        // PKCS #9 unstructuredName.
        let attribute =
            rcgen::Attribute { oid: &[1, 2, 840, 113_549, 1, 9, 2], values: vec![0x31, 4, 0x0C, 2, b'n', b'o'] };
        assert!(others(&plain(), vec![attribute]) > 0);
    }

    #[test]
    fn a_second_extension_request_does_not_slip_by() {
        let second = |values: Vec<u8>| rcgen::Attribute { oid: &[1, 2, 840, 113_549, 1, 9, 14], values };
        // BasicConstraints with cA TRUE.
        let authority = [0x30, 0x11, 0x30, 0x0F, 6, 3, 0x55, 0x1D, 0x13, 1, 1, 0xFF, 4, 5, 0x30, 3, 1, 1, 0xFF];
        let set = |values: &[u8]| [&[0x31, u8::try_from(values.len()).unwrap()], values].concat();
        assert!(others(&plain(), vec![second(set(&authority))]) > 0, "another attribute");
        let mut bare = plain();
        bare.subject_alt_names.clear();
        assert!(others(&bare, vec![second(set(&authority))]) > 0, "its only attribute");
        let nothing = [0x30, 0];
        assert_eq!(others(&bare, vec![second(set(&nothing))]), 0);
        assert!(others(&bare, vec![second(set(&[&nothing[..], &authority].concat()))]) > 0, "its second value");
    }

    #[test]
    fn a_csr_tells_its_names() {
        let key = rcgen::KeyPair::generate().unwrap();
        let csr = plain().serialize_request(&key).unwrap();
        let facts = CsrFacts::parse(csr.der()).unwrap();
        assert!(facts.has_exactly(&["a.test".into()]));
        assert_eq!(facts.others, 0);
        let mut broken = csr.der().to_vec();
        let last = broken.len() - 3;
        broken[last] ^= 1;
        assert!(CsrFacts::parse(&broken).is_err());
    }
}
