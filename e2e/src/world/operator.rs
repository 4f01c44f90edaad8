//! The operator of the simulation: root at the controller's socket. Sends what the CLI would send.

use std::net::SocketAddr;
use std::time::Duration;

use hyper_util::rt::TokioIo;
use proto::operator::v1 as api;
use proto::operator::v1::operator_service_client::OperatorServiceClient;
use proto::types::v1 as types;
use tokio::time::timeout;
use tonic::Status;
use tonic::transport::{Channel, Endpoint};
use tower::service_fn;

use super::ISSUER;
use crate::power::PowerSwitch;
use crate::sim_net::{CONTROLLER_HOST, SimNet};

/// Users of the controller's host, by their uid; root, and some that every Linux has.
pub(super) const USERS: [(&str, u32); 5] = [("root", 0), ("daemon", 1), ("bin", 2), ("sys", 3), ("nobody", 65534)];

/// Where the controller's Unix socket is in the simulated network, for a user: one port for each, because pipes have no
/// peer credentials.
pub(super) fn socket(uid: u32) -> SocketAddr {
    let port = USERS.iter().zip(1..).find(|((_, known), _)| *known == uid).expect("one of USERS").1;
    SocketAddr::new(CONTROLLER_HOST, port)
}

/// How long the operator waits for an answer.
const PATIENCE: Duration = Duration::from_secs(20);
/// The reload command of every target.
pub const RELOAD: [&str; 3] = ["/usr/sbin/nginx", "-s", "reload"];

/// The operator.
#[derive(Debug)]
pub struct Operator {
    channel: Channel,
}

/// A certificate to be made: what `certs create` takes.
#[derive(Clone, Debug)]
pub struct Wish {
    /// Its name; also its only identifier's first label.
    pub name: String,
    /// SANs.
    pub identifiers: Vec<String>,
    /// Where the key is born.
    pub custody: types::Custody,
    /// How challenges are answered.
    pub http01: types::http01::Mode,
    /// Agents that answer; none means the targets'.
    pub responders: Vec<String>,
    /// The first target.
    pub target: Option<api::TargetSpec>,
}

impl Operator {
    pub(super) fn new(net: &SimNet, switch: PowerSwitch) -> Self {
        Self::of_user(net, switch, 0)
    }

    /// A user of the controller's host: daemon, bin, sys or nobody.
    ///
    /// # Panics
    /// When there is no such user.
    #[must_use]
    pub fn local(net: &SimNet, user: &str) -> Self {
        let uid = USERS.iter().find(|(name, _)| *name == user).expect("one of USERS").1;
        Self::of_user(net, PowerSwitch::new(), uid)
    }

    fn of_user(net: &SimNet, switch: PowerSwitch, uid: u32) -> Self {
        let net = net.clone();
        let connect = service_fn(move |_| {
            let (net, switch) = (net.clone(), switch.clone());
            async move { Ok::<_, std::io::Error>(TokioIo::new(net.connect(CONTROLLER_HOST, socket(uid), &switch).await?)) }
        });
        let endpoint = Endpoint::from_static("http://controller.test").timeout(PATIENCE);
        Self { channel: endpoint.connect_with_connector_lazy(connect) }
    }

    /// Someone elsewhere, by a channel of their own.
    #[must_use]
    pub fn remote(channel: Channel) -> Self {
        Self { channel }
    }

    /// Calls an RPC by its name, with an empty request, and returns what it answers first.
    ///
    /// # Errors
    /// As the controller says.
    pub async fn call_by_name(&self, method: &str) -> Result<(), Status> {
        let path = format!("/certwright.operator.v1.OperatorService/{method}").parse().expect("a path");
        let mut grpc = tonic::client::Grpc::new(self.channel.clone());
        grpc.ready().await.map_err(|error| Status::unavailable(error.to_string()))?;
        let codec = tonic_prost::ProstCodec::<(), ()>::default();
        // An answer of one message reads like a stream of one.
        let mut answers = grpc.server_streaming(tonic::Request::new(()), path, codec).await?.into_inner();
        answers.message().await.map(|_| ())
    }

    /// Returns a client of the operator's API.
    #[must_use]
    pub fn client(&self) -> OperatorServiceClient<Channel> {
        OperatorServiceClient::new(self.channel.clone())
    }

    /// Whether the controller answers.
    pub async fn whoami(&self) -> bool {
        timeout(PATIENCE, self.client().whoami(api::WhoamiRequest {})).await.is_ok_and(|answer| answer.is_ok())
    }

    /// Returns a certificate; `None` when there is none or the controller is away.
    pub async fn certificate(&self, name: &str) -> Option<api::Certificate> {
        let request = api::GetCertificateRequest { name: name.to_owned() };
        let answer = timeout(PATIENCE, self.client().get_certificate(request)).await.ok()?;
        answer.ok().map(tonic::Response::into_inner)
    }

    /// Returns all certificates.
    pub async fn certificates(&self) -> Vec<api::Certificate> {
        self.certificates_told().await.unwrap_or_default()
    }

    /// Returns all certificates, or `None` when the controller did not answer: then nothing is known of them.
    pub async fn certificates_told(&self) -> Option<Vec<api::Certificate>> {
        let request = api::ListCertificatesRequest { page_size: 1000, ..Default::default() };
        let answer = timeout(PATIENCE, self.client().list_certificates(request)).await;
        answer.ok().and_then(Result::ok).map(|answer| answer.into_inner().items)
    }

    /// Returns all agents.
    pub async fn agents(&self) -> Vec<api::Agent> {
        let request = api::ListAgentsRequest { page_size: 1000, ..Default::default() };
        let answer = timeout(PATIENCE, self.client().list_agents(request)).await;
        answer.ok().and_then(Result::ok).map(|answer| answer.into_inner().items).unwrap_or_default()
    }

    /// Returns the newest events, newest first.
    pub async fn events(&self) -> Vec<api::Event> {
        let request = api::ListEventsRequest { page_size: 100, ..Default::default() };
        let answer = timeout(PATIENCE, self.client().list_events(request)).await;
        answer.ok().and_then(Result::ok).map(|answer| answer.into_inner().items).unwrap_or_default()
    }

    /// Asks for a certificate once.
    ///
    /// # Errors
    /// As the controller says.
    pub async fn create(&self, wish: &Wish) -> Result<api::CertificateAccepted, Status> {
        let request = wish.request();
        match timeout(PATIENCE, self.client().create_certificate(request)).await {
            Ok(answer) => answer.map(tonic::Response::into_inner),
            Err(_elapsed) => Err(Status::deadline_exceeded("the controller is away")),
        }
    }

    /// Asks for a new order now.
    ///
    /// # Errors
    /// As the controller says.
    pub async fn renew(&self, name: &str, request_id: &str) -> Result<api::CertificateAccepted, Status> {
        let request = api::RenewCertificateRequest {
            name: name.to_owned(),
            request_id: request_id.to_owned(),
            // Scenarios renew what was just issued.
            override_lock: "scenario".to_owned(),
        };
        self.client().renew_certificate(request).await.map(tonic::Response::into_inner)
    }

    /// Acts on many certificates.
    ///
    /// # Errors
    /// As the controller says.
    pub async fn act(&self, request: api::ActOnCertificatesRequest) -> Result<api::ActOnCertificatesResponse, Status> {
        match timeout(PATIENCE, self.client().act_on_certificates(request)).await {
            Ok(answer) => answer.map(tonic::Response::into_inner),
            Err(_elapsed) => Err(Status::deadline_exceeded("the controller is away")),
        }
    }

    /// Takes back what has not begun of a job.
    ///
    /// # Errors
    /// As the controller says.
    pub async fn cancel(&self, id: &str) -> Result<api::Job, Status> {
        let request = api::CancelJobRequest { id: id.to_owned() };
        self.client().cancel_job(request).await.map(tonic::Response::into_inner)
    }

    /// Returns the first sub-jobs of an act on many, what needs someone first.
    pub async fn sub_jobs(&self, parent: &str) -> Vec<api::Job> {
        let request = api::ListJobsRequest { parent: parent.to_owned(), page_size: 200, ..Default::default() };
        let answer = timeout(PATIENCE, self.client().list_jobs(request)).await;
        answer.ok().and_then(Result::ok).map(|answer| answer.into_inner().items).unwrap_or_default()
    }

    /// Asks to deploy again now.
    ///
    /// # Errors
    /// As the controller says.
    pub async fn deploy(&self, name: &str, request_id: &str) -> Result<api::CertificateAccepted, Status> {
        let request = api::DeployCertificateRequest {
            name: name.to_owned(),
            request_id: request_id.to_owned(),
            ..Default::default()
        };
        self.client().deploy_certificate(request).await.map(tonic::Response::into_inner)
    }

    /// Pauses or resumes a certificate; an empty name means everything.
    ///
    /// # Errors
    /// As the controller says.
    pub async fn pause(&self, name: &str, paused: bool) -> Result<api::SetPauseResponse, Status> {
        let request = api::SetPauseRequest { certificate: name.to_owned(), paused, reason: "for a look".to_owned() };
        match timeout(PATIENCE, self.client().set_pause(request)).await {
            Ok(answer) => answer.map(tonic::Response::into_inner),
            Err(_elapsed) => Err(Status::deadline_exceeded("the controller is away")),
        }
    }

    /// Takes a backup that this key opens.
    ///
    /// # Errors
    /// As the controller says.
    pub async fn backup(&self, key: &str) -> Result<Vec<u8>, Status> {
        let recovery = Some(api::create_backup_request::Recovery::Key(key.to_owned()));
        let mut parts = self.client().create_backup(api::CreateBackupRequest { recovery }).await?.into_inner();
        let mut file = Vec::new();
        while let Some(part) = parts.message().await? {
            file.extend(part.part);
        }
        Ok(file)
    }

    /// Returns how a restore stands.
    ///
    /// # Errors
    /// As the controller says.
    pub async fn restore(&self) -> Result<api::GetRestoreResponse, Status> {
        match timeout(PATIENCE, self.client().get_restore(api::GetRestoreRequest {})).await {
            Ok(answer) => answer.map(tonic::Response::into_inner),
            Err(_elapsed) => Err(Status::deadline_exceeded("the controller is away")),
        }
    }

    /// Accepts a restore.
    ///
    /// # Errors
    /// As the controller says.
    pub async fn accept(&self, keep_operators: bool) -> Result<api::GetRestoreResponse, Status> {
        match timeout(PATIENCE, self.client().accept_restore(api::AcceptRestoreRequest { keep_operators })).await {
            Ok(answer) => answer.map(tonic::Response::into_inner),
            Err(_elapsed) => Err(Status::deadline_exceeded("the controller is away")),
        }
    }

    /// Returns a job.
    ///
    /// # Panics
    /// When the controller does not know it.
    pub async fn job(&self, id: &str) -> api::Job {
        let request = api::GetJobRequest { id: id.to_owned() };
        self.client().get_job(request).await.expect("the job is known").into_inner()
    }

    /// Stops managing a certificate.
    ///
    /// # Errors
    /// As the controller says.
    pub async fn delete(&self, name: &str, purge: bool) -> Result<api::DeleteCertificateResponse, Status> {
        let request = api::DeleteCertificateRequest { name: name.to_owned(), expected_revision: 0, purge };
        self.client().delete_certificate(request).await.map(tonic::Response::into_inner)
    }
}

impl Wish {
    /// A certificate for `NAME.example.test`, answered by standalone listeners on port 80.
    #[must_use]
    pub fn new(name: &str, custody: types::Custody) -> Self {
        Self {
            name: name.to_owned(),
            identifiers: vec![format!("{name}.example.test")],
            custody,
            http01: types::http01::Mode::StandalonePort(80),
            responders: Vec::new(),
            target: None,
        }
    }

    /// Returns what is sent for it; the same wish has the same request id.
    #[must_use]
    pub fn request(&self) -> api::CreateCertificateRequest {
        api::CreateCertificateRequest {
            request_id: format!("create-{}", self.name),
            name: self.name.clone(),
            identifiers: self.identifiers.clone(),
            issuer: ISSUER.to_owned(),
            key_type: types::KeyType::P256.into(),
            custody: self.custody.into(),
            http01: Some(types::Http01 { mode: Some(self.http01.clone()) }),
            responders: self.responders.clone(),
            target: self.target.clone(),
            dry_run: false,
            ..Default::default()
        }
    }
}
