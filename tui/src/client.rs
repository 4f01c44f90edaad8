//! The one way to the controller, for the command line and the dashboard: `operator/v1` over the Unix socket.
//! It never retries and keeps no state: it answers with what the controller said, or with a [`ClientError`] that people
//! can read. Connecting happens with the first call, and again by itself after the controller was away.

mod error;
mod files;
mod socket;
mod words;

use std::path::{Path, PathBuf};
use std::time::Duration;

use proto::operator::v1::operator_service_client::OperatorServiceClient;
use proto::operator::v1::{
    AddIssuerRequest, AddTargetRequest, Agent, Certificate, CertificateAccepted, CreateCertificateRequest,
    DeleteCertificateRequest, DeleteCertificateResponse, DeployCertificateRequest, EnrollAgentRequest,
    EnrollAgentResponse, ForgetAgentRequest, ForgetAgentResponse, GetAgentRequest, GetCertificateRequest,
    GetIssuerRequest, GetJobRequest, GetOverviewRequest, GetOverviewResponse, Issuer, Job, ListAgentsRequest,
    ListAgentsResponse, ListCertificatesRequest, ListCertificatesResponse, ListEventsRequest, ListEventsResponse,
    ListIssuersRequest, ListIssuersResponse, ListJobsRequest, ListJobsResponse, ListLimitsRequest, ListLimitsResponse,
    ListVersionsRequest, ListVersionsResponse, RemoveIssuerRequest, RemoveIssuerResponse, RemoveTargetRequest,
    RenewCertificateRequest, RevokeAgentRequest, RevokeCertificateRequest, RolloverAccountRequest, SetIssuerRequest,
    SetLimitsRequest, SetPauseRequest, SetPauseResponse, TestIssuerRequest, UpdateCertificateRequest, WatchRequest,
    WatchResponse, WhoamiRequest, WhoamiResponse,
};
use tonic::transport::Channel;
use tonic::{Response, Status, Streaming};

pub use error::{ClientError, ErrorKind};
pub use files::{default_files, default_mode, default_name};
pub use words::{
    custody, file_content, key_type, limit_exemption, limit_subject, limit_used, period, reason, target_status,
};

/// Where the packaged controller listens.
pub const SOCKET_DEFAULT: &str = "/run/certwright/controller.sock";
/// A call that takes longer has failed: the controller answers from its store.
const CALL_MAX: Duration = Duration::from_secs(15);
/// The controller sends something every 5 s: after three of these have been missed it is gone.
const WATCH_SILENCE_MAX: Duration = Duration::from_secs(16);

/// A connection to one controller. Cheap to clone; clones share the connection.
#[derive(Clone, Debug)]
pub struct Client {
    rpc: OperatorServiceClient<Channel>,
    socket: PathBuf,
}

/// One method per unary RPC, so that every call gets the same time limit and the same errors.
macro_rules! unary {
    ($($(#[$doc:meta])* $name:ident($request:ty) -> $response:ty;)*) => {
        impl Client {
            $(
                $(#[$doc])*
                ///
                /// # Errors
                /// When the controller refuses, fails or cannot be reached.
                pub async fn $name(&self, request: $request) -> Result<$response, ClientError> {
                    let mut rpc = self.rpc.clone();
                    self.answer(async move { rpc.$name(request).await }).await
                }
            )*
        }
    };
}

unary! {
    /// Returns who the controller takes the caller for, and what the controller is.
    whoami(WhoamiRequest) -> WhoamiResponse;
    /// Returns the counts of the overview and what needs attention.
    get_overview(GetOverviewRequest) -> GetOverviewResponse;
    /// Returns one page of certificates.
    list_certificates(ListCertificatesRequest) -> ListCertificatesResponse;
    /// Returns one certificate by name.
    get_certificate(GetCertificateRequest) -> Certificate;
    /// Creates a certificate; a repeated `request_id` returns the first outcome.
    create_certificate(CreateCertificateRequest) -> CertificateAccepted;
    /// Changes the fields that are present.
    update_certificate(UpdateCertificateRequest) -> CertificateAccepted;
    /// Orders a new version now.
    renew_certificate(RenewCertificateRequest) -> CertificateAccepted;
    /// Revokes a version at its CA.
    revoke_certificate(RevokeCertificateRequest) -> CertificateAccepted;
    /// Applies the current version again, to one target or to all.
    deploy_certificate(DeployCertificateRequest) -> CertificateAccepted;
    /// Stops managing a certificate; with `purge` its files go too.
    delete_certificate(DeleteCertificateRequest) -> DeleteCertificateResponse;
    /// Holds a certificate, or everything, still, or lifts that.
    set_pause(SetPauseRequest) -> SetPauseResponse;
    /// Adds a place to deploy to.
    add_target(AddTargetRequest) -> CertificateAccepted;
    /// Stops deploying to a place.
    remove_target(RemoveTargetRequest) -> CertificateAccepted;
    /// Returns the versions of a certificate, newest first.
    list_versions(ListVersionsRequest) -> ListVersionsResponse;
    /// Returns one page of agents, and the enrollments that wait.
    list_agents(ListAgentsRequest) -> ListAgentsResponse;
    /// Returns one agent by name.
    get_agent(GetAgentRequest) -> Agent;
    /// Makes a join token.
    enroll_agent(EnrollAgentRequest) -> EnrollAgentResponse;
    /// Cuts an agent off at once.
    revoke_agent(RevokeAgentRequest) -> Agent;
    /// Removes the record of an agent that is revoked or never came.
    forget_agent(ForgetAgentRequest) -> ForgetAgentResponse;
    /// Returns all issuers.
    list_issuers(ListIssuersRequest) -> ListIssuersResponse;
    /// Returns one issuer by name.
    get_issuer(GetIssuerRequest) -> Issuer;
    /// Adds an ACME issuer.
    add_issuer(AddIssuerRequest) -> Issuer;
    /// Removes an issuer that no certificate uses.
    remove_issuer(RemoveIssuerRequest) -> RemoveIssuerResponse;
    /// Changes an issuer; it is tried right after.
    set_issuer(SetIssuerRequest) -> Issuer;
    /// Tries an issuer.
    test_issuer(TestIssuerRequest) -> Issuer;
    /// Returns what is used of an issuer's limits.
    list_limits(ListLimitsRequest) -> ListLimitsResponse;
    /// Sets limits of an issuer, or goes back to what the CA publishes.
    set_limits(SetLimitsRequest) -> ListLimitsResponse;
    /// Gives an issuer's account another key.
    rollover_account(RolloverAccountRequest) -> Issuer;
    /// Returns one page of jobs, newest first.
    list_jobs(ListJobsRequest) -> ListJobsResponse;
    /// Returns one job by id.
    get_job(GetJobRequest) -> Job;
    /// Returns events, newest first.
    list_events(ListEventsRequest) -> ListEventsResponse;
}

impl Client {
    /// Returns a client for the controller behind `socket`. Does no I/O. Must be called inside a tokio runtime.
    #[must_use]
    pub fn new(socket: &Path) -> Self {
        Self { rpc: OperatorServiceClient::new(socket::channel(socket)), socket: socket.to_owned() }
    }

    /// Returns the path this client connects to.
    #[must_use]
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// Opens the stream of "look again" events: one per burst of changes, and one every 5 s when nothing changes.
    ///
    /// # Errors
    /// When the controller refuses, fails or cannot be reached.
    pub async fn watch(&self) -> Result<Watch, ClientError> {
        let mut rpc = self.rpc.clone();
        let stream = self.answer(async move { rpc.watch(WatchRequest {}).await }).await?;
        Ok(Watch { stream, socket: self.socket.clone() })
    }

    async fn answer<T>(&self, call: impl Future<Output = Result<Response<T>, Status>>) -> Result<T, ClientError> {
        match tokio::time::timeout(CALL_MAX, call).await {
            Ok(Ok(response)) => Ok(response.into_inner()),
            Ok(Err(status)) => Err(ClientError::from_status(&status, &self.socket)),
            Err(elapsed) => Err(ClientError::silent(&self.socket, CALL_MAX, &elapsed)),
        }
    }
}

/// An open stream of "look again" events. Dropping it ends it.
#[derive(Debug)]
pub struct Watch {
    stream: Streaming<WatchResponse>,
    socket: PathBuf,
}

impl Watch {
    /// Waits for the next event. Cancel-safe. After an error open a new stream.
    ///
    /// # Errors
    /// When the stream ends or stays silent for longer than the controller may be.
    pub async fn next(&mut self) -> Result<WatchResponse, ClientError> {
        match tokio::time::timeout(WATCH_SILENCE_MAX, self.stream.message()).await {
            Ok(Ok(Some(event))) => Ok(event),
            Ok(Ok(None)) => Err(ClientError::lost(&self.socket, "the stream ended")),
            Ok(Err(status)) => Err(ClientError::from_status(&status, &self.socket)),
            Err(elapsed) => Err(ClientError::silent(&self.socket, WATCH_SILENCE_MAX, &elapsed)),
        }
    }
}
