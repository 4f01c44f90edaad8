//! Proves what an endpoint serves: a TLS handshake, after the plain text that the endpoint's protocol has before it
//! (`starttls`), that accepts every certificate, records the leaf, and checks only that the server holds its key. Done means
//! served (design §1); trusts nothing it sees.

use std::io;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use proto::clock::{Clock, TlsTime};
use proto::x509::fingerprint;
use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{WebPkiSupportedAlgorithms, aws_lc_rs, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, InvalidDnsNameError, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, Error, InvalidMessage, SignatureScheme};
use tokio::time::{Instant, sleep, timeout};
use tokio_rustls::TlsConnector;

use self::preamble::Refusal;
use crate::host::Host;
use crate::target::{Endpoint, Protocol};

pub(crate) mod preamble;
mod starttls;

/// One handshake.
const HANDSHAKE: Duration = Duration::from_secs(5);
/// How long a service may take to show the new leaf after its reload (lab.md §5: up to 1.1 s measured).
const PROOF: Duration = Duration::from_secs(10);
/// Between handshakes: short while most services switch (the old workers of nginx accept for 100 ms beside the new ones),
/// an eighth longer each time.
const PAUSE: Duration = Duration::from_millis(10);
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// Why no leaf was seen.
#[derive(Debug, thiserror::Error)]
pub(crate) enum VerifyError {
    #[error("cannot connect to {0}")]
    Connect(String, #[source] io::Error),
    #[error("the TLS handshake with {0} failed")]
    Handshake(String, #[source] io::Error),
    #[error(
        "{0} does not begin with TLS; if it speaks smtp, imap, pop3, xmpp, ldap or postgres first, the endpoint needs \
         that word and :// before its address"
    )]
    NotTls(String, #[source] io::Error),
    #[error("{0} does not come to TLS")]
    Preamble(String, #[source] Refusal),
    #[error("{0} cannot stand in SNI")]
    Name(String, #[source] InvalidDnsNameError),
    #[error("TLS cannot be set up")]
    Setup(#[source] Error),
}

impl VerifyError {
    /// Whether nothing listens there.
    pub(crate) fn is_refused(&self) -> bool {
        matches!(self, Self::Connect(_, error) if error.kind() == io::ErrorKind::ConnectionRefused)
    }
}

/// Returns the SHA-256 of the leaf that an endpoint serves now.
pub(crate) async fn served(
    host: &dyn Host,
    endpoint: &Endpoint,
    clock: &Arc<dyn Clock>,
) -> Result<[u8; 32], VerifyError> {
    let name = ServerName::try_from(endpoint.server_name.clone());
    let name = name.map_err(|error| VerifyError::Name(endpoint.server_name.clone(), error))?;
    let recorder = Arc::new(Recorder::new());
    let config = ClientConfig::builder_with_details(
        Arc::new(aws_lc_rs::default_provider()),
        Arc::new(TlsTime(Arc::clone(clock))),
    )
    .with_safe_default_protocol_versions()
    .map_err(VerifyError::Setup)?;
    let mut config =
        config.dangerous().with_custom_certificate_verifier(Arc::<Recorder>::clone(&recorder)).with_no_client_auth();
    config.resumption = Resumption::disabled();

    let stream = timeout(HANDSHAKE, host.connect(&endpoint.address)).await;
    let stream = stream.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
    let mut stream = stream.map_err(|error| VerifyError::Connect(endpoint.address.clone(), error))?;
    let begun = starttls::negotiate(&mut stream, endpoint.protocol, &name).await;
    begun.map_err(|refusal| VerifyError::Preamble(endpoint.address.clone(), refusal))?;
    let handshake = timeout(HANDSHAKE, TlsConnector::from(Arc::new(config)).connect(name, stream)).await;
    let handshake = handshake.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())).map(drop);
    // A server that wants a client certificate ends the handshake after it has proved its own.
    match (recorder.proved(), handshake) {
        (Some(fingerprint), _) => Ok(fingerprint),
        (None, Err(error)) if endpoint.protocol == Protocol::Tls && is_no_tls(&error) => {
            Err(VerifyError::NotTls(endpoint.address.clone(), error))
        }
        (None, Err(error)) => Err(VerifyError::Handshake(endpoint.address.clone(), error)),
        (None, Ok(())) => Err(VerifyError::Handshake(endpoint.address.clone(), io::ErrorKind::InvalidData.into())),
    }
}

/// Whether the peer answered with something that is no TLS at all.
fn is_no_tls(error: &io::Error) -> bool {
    let error = error.get_ref().and_then(|error| error.downcast_ref::<Error>());
    matches!(error, Some(Error::InvalidMessage(InvalidMessage::InvalidContentType)))
}

/// Tries until the endpoint shows `wanted` or the time is up; returns the last thing seen.
pub(crate) async fn prove(
    host: &dyn Host,
    endpoint: &Endpoint,
    wanted: [u8; 32],
    clock: &Arc<dyn Clock>,
) -> Result<[u8; 32], VerifyError> {
    let until = Instant::now() + PROOF;
    let mut pause = PAUSE;
    loop {
        let seen = served(host, endpoint, clock).await;
        if matches!(seen, Ok(fingerprint) if fingerprint == wanted) || Instant::now() + pause >= until {
            return seen;
        }
        sleep(pause).await;
        pause = (pause + pause / 8).min(PAUSE_MAX);
    }
}

/// Accepts every certificate; remembers the leaf once the server has signed with its key.
#[derive(Debug)]
struct Recorder {
    algorithms: WebPkiSupportedAlgorithms,
    shown: OnceLock<[u8; 32]>,
    signed: OnceLock<()>,
}

impl Recorder {
    fn new() -> Self {
        let algorithms = aws_lc_rs::default_provider().signature_verification_algorithms;
        Self { algorithms, shown: OnceLock::new(), signed: OnceLock::new() }
    }

    fn proved(&self) -> Option<[u8; 32]> {
        self.signed.get().and_then(|()| self.shown.get()).copied()
    }

    fn note(&self, valid: Result<HandshakeSignatureValid, Error>) -> Result<HandshakeSignatureValid, Error> {
        if valid.is_ok() {
            self.signed.get_or_init(|| ());
        }
        valid
    }
}

impl ServerCertVerifier for Recorder {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.shown.get_or_init(|| fingerprint(end_entity));
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.note(verify_tls12_signature(message, cert, dss, &self.algorithms))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.note(verify_tls13_signature(message, cert, dss, &self.algorithms))
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}
