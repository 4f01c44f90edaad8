//! mutual TLS under the controller's identity CA: TLS 1.3 only, no session resumption (a resumed session would skip the
//! client-certificate check), the peer known by its SAN URI and never by a host name (design §5).

use std::sync::Arc;

use jiff::Timestamp;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption, verify_server_cert_signed_by_trust_anchor};
use rustls::crypto::{
    CryptoProvider, WebPkiSupportedAlgorithms, aws_lc_rs, verify_tls12_signature, verify_tls13_signature,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{NoServerSessionStorage, ParsedCertificate, WebPkiClientVerifier};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, DistinguishedName, Error, RootCertStore, ServerConfig,
    SignatureScheme,
};

use crate::clock::{Clock, TlsTime, unix_time};
use crate::id::{Identity, Role};
use crate::x509::{self, LeafFacts};

/// ALPN of gRPC.
const ALPN_H2: &[u8] = b"h2";
/// The name clients put into SNI; it is never checked.
pub const SERVER_NAME: &str = "controller.certwright.invalid";

/// A leaf with its chain and key, for one side of the handshake.
#[derive(Debug)]
pub struct Credentials {
    /// Leaf first; the controller adds its CA so that enrolling agents can check the pin.
    pub chain: Vec<CertificateDer<'static>>,
    /// The leaf's key.
    pub key: PrivateKeyDer<'static>,
}

/// Whom a client accepts as the controller.
#[derive(Clone, Debug)]
pub enum Trust {
    /// The identity CA's certificates, learned at enrolment.
    Roots(Vec<CertificateDer<'static>>),
    /// SHA-256 of the identity CA's SPKI, from a join token: first contact.
    Pin([u8; 32]),
}

/// Returns the TLS configuration that asks as a CA does on its way to an HTTP-01 challenge: any certificate will do. Nothing
/// that comes over it may be trusted.
///
/// # Errors
/// When the provider has no usual protocol version.
pub fn unverified_client_config() -> Result<ClientConfig, Error> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let verifier = Arc::new(AnyLeaf { algorithms: provider.signature_verification_algorithms });
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    let mut config = builder.dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth();
    config.resumption = Resumption::disabled();
    Ok(config)
}

/// Returns the TLS configuration of an agent or operator. Without credentials only first contact is possible.
///
/// # Errors
/// When the key does not fit the chain.
pub fn client_config(
    trust: Trust,
    credentials: Option<Credentials>,
    clock: Arc<dyn Clock>,
) -> Result<ClientConfig, Error> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let verifier = Arc::new(ControllerVerifier { trust, algorithms: provider.signature_verification_algorithms });
    let builder = ClientConfig::builder_with_details(provider, Arc::new(TlsTime(clock)))
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(verifier);
    let mut config = match credentials {
        Some(Credentials { chain, key }) => builder.with_client_auth_cert(chain, key)?,
        None => builder.with_no_client_auth(),
    };
    config.resumption = Resumption::disabled();
    config.alpn_protocols = vec![ALPN_H2.to_vec()];
    Ok(config)
}

/// Returns the TLS configuration of the controller's port. The client certificate is optional there: who may call what
/// is decided per message.
///
/// # Errors
/// When the key does not fit the chain, or `roots` is empty.
pub fn server_config(
    roots: &[CertificateDer<'static>],
    credentials: Credentials,
    clock: Arc<dyn Clock>,
) -> Result<ServerConfig, Error> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let verifier = PeerVerifier::new(roots, &provider)?;
    let mut config = ServerConfig::builder_with_details(provider, Arc::new(TlsTime(clock)))
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_client_cert_verifier(Arc::new(verifier))
        .with_single_cert(credentials.chain, credentials.key)?;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    config.alpn_protocols = vec![ALPN_H2.to_vec()];
    Ok(config)
}

/// Who a peer's leaf says it is, and until when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Role and id from the SAN URI.
    pub identity: Identity,
    /// Serial of the leaf, lower-case hex.
    pub serial: String,
    /// SubjectPublicKeyInfo of the leaf, DER.
    pub spki_der: Vec<u8>,
    /// End of the leaf's validity.
    pub not_after: Timestamp,
}

impl Peer {
    /// Reads the identity of a verified leaf; `None` when it carries none.
    #[must_use]
    pub fn from_leaf(der: &[u8]) -> Option<Self> {
        let facts = LeafFacts::parse(der).ok()?;
        let [uri] = facts.uris.as_slice() else { return None };
        let identity = uri.parse().ok()?;
        Some(Self { identity, serial: facts.serial, spki_der: facts.spki_der, not_after: facts.not_after })
    }
}

/// Accepts a server whose chain ends in the pinned identity CA and whose leaf has the controller's role.
#[derive(Debug)]
struct ControllerVerifier {
    trust: Trust,
    algorithms: WebPkiSupportedAlgorithms,
}

impl ControllerVerifier {
    fn roots(&self, intermediates: &[CertificateDer<'_>]) -> Result<RootCertStore, Error> {
        let mut roots = RootCertStore::empty();
        match &self.trust {
            Trust::Roots(certificates) => {
                for certificate in certificates {
                    roots.add(certificate.clone())?;
                }
            }
            Trust::Pin(pin) => {
                let pinned = intermediates.iter().find(|der| x509::spki_pin(der).is_ok_and(|found| found == *pin));
                let pinned = pinned.ok_or(Error::InvalidCertificate(CertificateError::UnknownIssuer))?;
                roots.add(pinned.clone().into_owned())?;
            }
        }
        Ok(roots)
    }
}

impl ServerCertVerifier for ControllerVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let roots = self.roots(intermediates)?;
        let parsed = ParsedCertificate::try_from(end_entity)?;
        verify_server_cert_signed_by_trust_anchor(&parsed, &roots, intermediates, now, self.algorithms.all)?;
        match Peer::from_leaf(end_entity) {
            Some(peer) if peer.identity.role == Role::Controller => Ok(ServerCertVerified::assertion()),
            _ => Err(Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure)),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, dss, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

/// Takes any leaf whose key the server holds.
#[derive(Debug)]
struct AnyLeaf {
    algorithms: WebPkiSupportedAlgorithms,
}

impl ServerCertVerifier for AnyLeaf {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, dss, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

/// Accepts client leaves under the identity CA, also expired ones: what such a peer may do is decided per message, and it
/// can only be told so when it got as far as saying one.
#[derive(Debug)]
struct PeerVerifier {
    inner: Arc<dyn ClientCertVerifier>,
}

impl PeerVerifier {
    fn new(roots: &[CertificateDer<'static>], provider: &Arc<CryptoProvider>) -> Result<Self, Error> {
        let mut store = RootCertStore::empty();
        for root in roots {
            store.add(root.clone())?;
        }
        let inner = WebPkiClientVerifier::builder_with_provider(Arc::new(store), provider.clone())
            .allow_unauthenticated()
            .build()
            .map_err(|error| Error::General(error.to_string()))?;
        Ok(Self { inner })
    }
}

impl ClientCertVerifier for PeerVerifier {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.inner.root_hint_subjects()
    }

    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let not_after = Peer::from_leaf(end_entity).map(|peer| peer.not_after);
        let not_after = not_after.ok_or(Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure))?;
        let is_expired = i64::try_from(now.as_secs()).unwrap_or(i64::MAX) > not_after.as_second();
        let at = if is_expired { unix_time(not_after) } else { now };
        self.inner.verify_client_cert(end_entity, intermediates, at)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}
