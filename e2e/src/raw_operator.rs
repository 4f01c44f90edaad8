//! An operator away from the controller's host, without the operator's program: the bare protocol under an invitation.

use std::net::SocketAddr;
use std::sync::Arc;

use proto::clock::Clock;
use proto::id::JoinToken;
use proto::operator::v1 as api;
use proto::operator::v1::operator_service_client::OperatorServiceClient;
use proto::tls::{Credentials, Trust};
use rcgen::{CertificateParams, KeyPair};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use secrecy::ExposeSecret as _;
use tonic::transport::Channel;

use crate::raw_agent::{channel, identity_csr};
use crate::sim_net::SimNet;

/// A login.
#[derive(Debug)]
pub struct RawOperator {
    /// What the controller answered.
    pub answer: api::LoginResponse,
    key: KeyPair,
}

impl RawOperator {
    /// Redeems an invitation as `operators invite` prints it; `key` is that of an earlier try.
    ///
    /// # Errors
    /// As the controller says.
    ///
    /// # Panics
    /// When the text is no invitation.
    pub async fn login(
        net: &SimNet,
        at: SocketAddr,
        clock: &Arc<dyn Clock>,
        invitation: &str,
        key: Option<KeyPair>,
    ) -> Result<Self, tonic::Status> {
        let token = JoinToken::parse(invitation).expect("an invitation");
        let key = key.unwrap_or_else(|| identity_csr().0);
        let request = api::LoginRequest { token: token.secret.expose_secret().to_owned(), csr_der: csr(&key) };
        let stranger = channel(net, at, clock, Trust::Pin(token.pin), None);
        let answer = OperatorServiceClient::new(stranger).login(request).await?.into_inner();
        Ok(Self { answer, key })
    }

    /// Returns the key, for a login that lost its answer.
    #[must_use]
    pub fn into_key(self) -> KeyPair {
        self.key
    }

    /// Asks for the next leaf, and uses it from now on.
    ///
    /// # Errors
    /// As the controller says.
    pub async fn renew(&mut self, net: &SimNet, at: SocketAddr, clock: &Arc<dyn Clock>) -> Result<(), tonic::Status> {
        let request = api::RenewLoginRequest { csr_der: csr(&self.key) };
        self.answer = OperatorServiceClient::new(self.channel(net, at, clock)).renew_login(request).await?.into_inner();
        Ok(())
    }

    /// Returns a channel under this identity, for any service.
    ///
    /// # Panics
    /// When the key does not read back.
    #[must_use]
    pub fn channel(&self, net: &SimNet, at: SocketAddr, clock: &Arc<dyn Clock>) -> Channel {
        let der = |bytes: &Vec<u8>| CertificateDer::from(bytes.clone());
        let key = PrivateKeyDer::try_from(self.key.serialize_der()).expect("rcgen writes PKCS #8");
        let credentials = Credentials { chain: vec![der(&self.answer.leaf_der)], key };
        channel(net, at, clock, Trust::Roots(self.answer.ca_der.iter().map(der).collect()), Some(credentials))
    }
}

fn csr(key: &KeyPair) -> Vec<u8> {
    CertificateParams::default().serialize_request(key).expect("a key signs").der().to_vec()
}
