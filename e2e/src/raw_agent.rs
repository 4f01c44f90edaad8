//! An agent without the agent's program: the bare protocol under an identity that was enrolled properly. The isolation
//! matrix uses it to ask what no honest agent asks.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use hyper_util::rt::TokioIo;
use proto::agent::v1 as api;
use proto::agent::v1::agent_service_client::AgentServiceClient;
use proto::clock::Clock;
use proto::id::JoinToken;
use proto::tls::{Credentials, SERVER_NAME, Trust, client_config};
use rcgen::{CertificateParams, KeyPair};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use secrecy::ExposeSecret as _;
use tokio_rustls::TlsConnector;
use tonic::transport::{Channel, Endpoint};
use tower::service_fn;

use crate::power::PowerSwitch;
use crate::sim_net::SimNet;

/// Where it runs.
const HOST: IpAddr = IpAddr::V4(Ipv4Addr::new(198, 51, 100, 1));
/// Longest wait for one answer.
const PATIENCE: Duration = Duration::from_secs(30);

/// Where and as whom to speak.
#[derive(Debug)]
pub struct RawAgent {
    /// The id it was enrolled with.
    pub id: String,
    leaf_der: Vec<u8>,
    ca_der: Vec<Vec<u8>>,
    key: KeyPair,
}

/// Returns a CSR for a new identity key: PKCS #10, DER, of no name.
#[must_use]
pub fn identity_csr() -> (KeyPair, Vec<u8>) {
    let key = KeyPair::generate().unwrap();
    let csr = CertificateParams::default().serialize_request(&key).unwrap();
    let der = csr.der().to_vec();
    (key, der)
}

/// Returns a client without an identity, as at first contact.
#[must_use]
pub fn stranger(net: &SimNet, at: SocketAddr, clock: &Arc<dyn Clock>, pin: [u8; 32]) -> AgentServiceClient<Channel> {
    AgentServiceClient::new(channel(net, at, clock, Trust::Pin(pin), None))
}

impl RawAgent {
    /// Enrols with a join token as `agents enroll` prints it.
    ///
    /// # Errors
    /// As the controller says.
    pub async fn enroll(
        net: &SimNet,
        at: SocketAddr,
        clock: &Arc<dyn Clock>,
        token: &str,
    ) -> Result<Self, tonic::Status> {
        let token = JoinToken::parse(token).expect("a join token");
        let (key, csr_der) = identity_csr();
        let request = api::EnrollRequest {
            token: token.secret.expose_secret().to_owned(),
            csr_der,
            agent_version: "0.1.0".to_owned(),
            hostname: "raw".to_owned(),
        };
        let answer = stranger(net, at, clock, token.pin).enroll(request).await?.into_inner();
        Ok(Self { id: answer.agent_id, leaf_der: answer.leaf_der, ca_der: answer.ca_der, key })
    }

    /// Returns a channel under this identity, for any service.
    #[must_use]
    pub fn channel(&self, net: &SimNet, at: SocketAddr, clock: &Arc<dyn Clock>) -> Channel {
        let der = |bytes: &Vec<u8>| CertificateDer::from(bytes.clone());
        let key = PrivateKeyDer::try_from(self.key.serialize_der()).expect("rcgen writes PKCS #8");
        let credentials = Credentials { chain: vec![der(&self.leaf_der)], key };
        channel(net, at, clock, Trust::Roots(self.ca_der.iter().map(der).collect()), Some(credentials))
    }

    /// Returns a client under this identity.
    #[must_use]
    pub fn client(&self, net: &SimNet, at: SocketAddr, clock: &Arc<dyn Clock>) -> AgentServiceClient<Channel> {
        AgentServiceClient::new(self.channel(net, at, clock))
    }
}

/// Returns a channel to the controller's port, as whom the credentials say.
pub(crate) fn channel(
    net: &SimNet,
    at: SocketAddr,
    clock: &Arc<dyn Clock>,
    trust: Trust,
    credentials: Option<Credentials>,
) -> Channel {
    let config = client_config(trust, credentials, clock.clone()).expect("credentials fit");
    let (connector, net, switch) = (TlsConnector::from(Arc::new(config)), net.clone(), PowerSwitch::new());
    let connect = service_fn(move |_| {
        let (connector, net, switch) = (connector.clone(), net.clone(), switch.clone());
        async move {
            let pipe = net.connect(HOST, at, &switch).await?;
            let name = ServerName::try_from(SERVER_NAME).expect("a constant name");
            Ok::<_, std::io::Error>(TokioIo::new(connector.connect(name, pipe).await?))
        }
    });
    Endpoint::from_static("http://controller.test").timeout(PATIENCE).connect_with_connector_lazy(connect)
}
