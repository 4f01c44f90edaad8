//! The one way to the controller, for the command line and the dashboard: `operator/v1` over the Unix socket, or over mTLS
//! from elsewhere.
//! It never retries and keeps no state: it answers with what the controller said, or with a [`ClientError`] that people
//! can read. Connecting happens with the first call, and again by itself after the controller was away.

mod acts;
mod backup;
mod contexts;
mod detected;
mod error;
mod files;
mod limit;
mod login;
mod named_files;
mod place;
mod remote;
mod socket;
mod trust;
mod words;

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use proto::id::JoinToken;
use proto::operator::v1::operator_service_client::OperatorServiceClient;
use proto::operator::v1::{
    AcceptRestoreRequest, ActOnCertificatesRequest, ActOnCertificatesResponse, AddIssuerRequest, AddOperatorRequest,
    AddOperatorResponse, AddTargetRequest, Agent, CancelJobRequest, Certificate, CertificateAccepted,
    CheckChallengesRequest, CheckChallengesResponse, ConsentAgentRequest, CreateCertificateRequest,
    DeleteCertificateRequest, DeleteCertificateResponse, DeployCertificateRequest, DetectAgentRequest, Detected,
    EnrollAgentRequest, EnrollAgentResponse, ForgetAgentRequest, ForgetAgentResponse, GetAgentRequest,
    GetCertificateRequest, GetDetectedRequest, GetIdentityCaRequest, GetIssuerRequest, GetJobRequest,
    GetOverviewRequest, GetOverviewResponse, GetRestoreRequest, GetRestoreResponse, GetRevocationListRequest,
    IdentityCa, InviteOperatorRequest, InviteOperatorResponse, Issuer, Job, ListAgentsRequest, ListAgentsResponse,
    ListAuditRequest, ListAuditResponse, ListCertificatesRequest, ListCertificatesResponse, ListEventsRequest,
    ListEventsResponse, ListIssuersRequest, ListIssuersResponse, ListJobsRequest, ListJobsResponse, ListLimitsRequest,
    ListLimitsResponse, ListOperatorsRequest, ListOperatorsResponse, ListVersionsRequest, ListVersionsResponse,
    LoginRequest, LoginResponse, Operator, RemoveIssuerRequest, RemoveIssuerResponse, RemoveOperatorRequest,
    RemoveOperatorResponse, RemoveTargetRequest, RenewCertificateRequest, RenewLoginRequest, RevocationList,
    RevokeAgentRequest, RevokeCertificateRequest, RolloverAccountRequest, RotateIdentityCaRequest, SetAgentRequest,
    SetIssuerRequest, SetLimitsRequest, SetOperatorRoleRequest, SetPauseRequest, SetPauseResponse, SetTargetRequest,
    TestIssuerRequest, TestTargetsRequest, TestTargetsResponse, UpdateCertificateRequest, WatchRequest, WatchResponse,
    WhoamiRequest, WhoamiResponse,
};
use proto::tls::Trust;
use tonic::transport::Channel;
use tonic::{Response, Status, Streaming};

pub use acts::{AuditAct, AuditFilter, fold_audit, parse_instant};
pub use backup::{Backup, make_recovery_key};
pub use contexts::Contexts;
pub use detected::{DetectedLine, detected_lines, found_key, http01_words, suggestion_lines, target_lines};
pub use error::{ClientError, ErrorKind};
pub use files::{default_files, default_mode, default_name, holds_key, preset_spec, target_changes};
pub use limit::{limit_exemption, limit_subject, limit_used, parse_limit, parse_period, period};
use login::Anchor;
pub use login::Login;
pub use named_files::{read_roots, read_secret};
use place::Address;
pub use place::Place;
use secrecy::ExposeSecret as _;
pub use trust::{
    restore_audit, restore_effects, restore_finding, restore_name, restore_removals, restore_shown, retire_effects,
    retire_name, slot_does,
};
pub use words::{
    agent_status, batch_words, content_of, custody, file_content, key_type, on_drift, on_drift_of, reason, seen_word,
    target_status, test_result, test_verdict,
};

/// Where the packaged controller listens.
pub const SOCKET_DEFAULT: &str = "/run/certwright/controller.sock";
/// A call that takes longer has failed: the controller answers from its store.
const CALL_MAX: Duration = Duration::from_secs(15);
/// A call that agents have to answer takes a minute at most.
const ASK_MAX: Duration = Duration::from_secs(65);
/// The controller sends something every 5 s: after three of these have been missed it is gone.
const WATCH_SILENCE_MAX: Duration = Duration::from_secs(16);

/// A connection to one controller. Cheap to clone; clones share the connection.
#[derive(Clone, Debug)]
pub struct Client {
    line: Arc<Mutex<Line>>,
}

/// The connection as it is now: a renewed login brings another one.
#[derive(Clone, Debug)]
struct Line {
    rpc: OperatorServiceClient<Channel>,
    place: Place,
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
                    let Line { mut rpc, place } = self.line();
                    answer(place.address(), async move { rpc.$name(request).await }).await
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
    /// Changes a place to deploy to.
    set_target(SetTargetRequest) -> CertificateAccepted;
    /// Returns the versions of a certificate, newest first.
    list_versions(ListVersionsRequest) -> ListVersionsResponse;
    /// Returns one page of agents, and the enrollments that wait.
    list_agents(ListAgentsRequest) -> ListAgentsResponse;
    /// Returns one agent by name.
    get_agent(GetAgentRequest) -> Agent;
    /// Makes a join token.
    enroll_agent(EnrollAgentRequest) -> EnrollAgentResponse;
    /// Returns the identity CA and how far its rotation is.
    get_identity_ca(GetIdentityCaRequest) -> IdentityCa;
    /// Takes a step of its rotation.
    rotate_identity_ca(RotateIdentityCaRequest) -> IdentityCa;
    /// Returns what an agent found on its server when it looked last.
    get_detected(GetDetectedRequest) -> Detected;
    /// Lets an agent back that was away for too long.
    consent_agent(ConsentAgentRequest) -> Agent;
    set_agent(SetAgentRequest) -> Agent;
    /// Cuts an agent off at once.
    revoke_agent(RevokeAgentRequest) -> Agent;
    /// Removes the record of an agent that is revoked or never came.
    forget_agent(ForgetAgentRequest) -> ForgetAgentResponse;
    /// Returns all issuers.
    list_issuers(ListIssuersRequest) -> ListIssuersResponse;
    /// Returns one issuer by name.
    get_issuer(GetIssuerRequest) -> Issuer;
    /// Returns the revocation list of a private CA.
    get_revocation_list(GetRevocationListRequest) -> RevocationList;
    /// Adds an ACME issuer or a private CA.
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
    /// Returns all operators, and the invitations that are open.
    list_operators(ListOperatorsRequest) -> ListOperatorsResponse;
    /// Gives a user of the controller's host a role.
    add_operator(AddOperatorRequest) -> AddOperatorResponse;
    /// Makes an invitation.
    invite_operator(InviteOperatorRequest) -> InviteOperatorResponse;
    /// Gives an operator another role.
    set_operator_role(SetOperatorRoleRequest) -> Operator;
    /// Refuses an operator from now on, or withdraws an invitation.
    remove_operator(RemoveOperatorRequest) -> RemoveOperatorResponse;
    /// Returns lines of the audit.
    list_audit(ListAuditRequest) -> ListAuditResponse;
    /// Returns whether the controller was restored, and what agents showed since.
    get_restore(GetRestoreRequest) -> GetRestoreResponse;
    /// Takes over what agents hold, and lets a restored controller work.
    accept_restore(AcceptRestoreRequest) -> GetRestoreResponse;
    /// Returns one page of jobs, newest first.
    list_jobs(ListJobsRequest) -> ListJobsResponse;
    /// Returns one job by id.
    get_job(GetJobRequest) -> Job;
    /// Takes back what has not begun of a job.
    cancel_job(CancelJobRequest) -> Job;
    /// Renews, re-keys or revokes many certificates as one job; or says what that would do.
    act_on_certificates(ActOnCertificatesRequest) -> ActOnCertificatesResponse;
    /// Returns events, newest first.
    list_events(ListEventsRequest) -> ListEventsResponse;
}

impl Client {
    /// Returns a client for the controller at `place`. Does no I/O. Must be called inside a tokio runtime.
    ///
    /// # Errors
    /// When the login's key and leaf cannot be used.
    pub fn open(place: Place) -> Result<Self, ClientError> {
        Ok(Self { line: Arc::new(Mutex::new(Line::open(place)?)) })
    }

    /// Returns a client for the controller behind `socket`, likewise.
    #[must_use]
    pub fn new(socket: &Path) -> Self {
        let line = Line { rpc: rpc(socket::channel(socket)), place: Place::Socket(socket.to_owned()) };
        Self { line: Arc::new(Mutex::new(line)) }
    }

    /// Returns where this client connects to.
    #[must_use]
    pub fn place(&self) -> Place {
        self.line().place
    }

    /// Redeems an invitation, and keeps the login as a context.
    ///
    /// # Errors
    /// When the context's name is taken, the controller refuses or is not the one of the invitation.
    pub async fn login(
        contexts: &Contexts,
        context: &str,
        controller: &str,
        invitation: &JoinToken,
    ) -> Result<Self, ClientError> {
        let key = contexts.begin(context)?;
        let channel = remote::channel(controller, Trust::Pin(invitation.pin), None);
        let mut stranger = rpc(channel.map_err(|error| login::broken(context, &error.to_string()))?);
        let token = invitation.secret.expose_secret().to_owned();
        let request = LoginRequest { token, csr_der: login::csr(&key)? };
        let said = answer(Address::Port(controller), async move { stranger.login(request).await }).await?;
        let stored = Login::check(context, controller, &key, &said, &Anchor::Pin(invitation.pin))?;
        Self::open(contexts.keep(context, stored)?)
    }

    /// Asks for the next leaf once a part of the present one's life is over, keeps it, and connects with it from now on. Says
    /// whether it did.
    ///
    /// # Errors
    /// When the controller refuses, or the leaf cannot be kept.
    pub async fn renew_login(&self, contexts: &Contexts, now: Timestamp) -> Result<bool, ClientError> {
        let Place::Remote(login) = self.place() else { return Ok(false) };
        if !login.is_due(now) {
            return Ok(false);
        }
        let said = self.renew(RenewLoginRequest { csr_der: login::csr(login.key())? }).await?;
        let stored = Login::check(&login.context, &login.controller, login.key(), &said, &Anchor::Held(&login))?;
        let line = Line::open(contexts.keep(&login.context, stored)?)?;
        *self.line.lock().unwrap_or_else(PoisonError::into_inner) = line;
        Ok(true)
    }

    async fn renew(&self, request: RenewLoginRequest) -> Result<LoginResponse, ClientError> {
        let Line { mut rpc, place } = self.line();
        answer(place.address(), async move { rpc.renew_login(request).await }).await
    }

    /// Opens the stream of "look again" events: one per burst of changes, and one every 5 s when nothing changes.
    ///
    /// # Errors
    /// When the controller refuses, fails or cannot be reached.
    pub async fn watch(&self) -> Result<Watch, ClientError> {
        let Line { mut rpc, place } = self.line();
        let stream = answer(place.address(), async move { rpc.watch(WatchRequest {}).await }).await?;
        Ok(Watch { stream, place })
    }

    /// Has agents serve a token for each name of a certificate, and the controller look at them as a CA would.
    ///
    /// # Errors
    /// When the controller refuses, fails or cannot be reached.
    pub async fn check_challenges(
        &self,
        request: CheckChallengesRequest,
    ) -> Result<CheckChallengesResponse, ClientError> {
        let Line { mut rpc, place } = self.line();
        answer_within(ASK_MAX, place.address(), async move { rpc.check_challenges(request).await }).await
    }

    /// Has agents do everything that a deployment would do, without changing anything.
    ///
    /// # Errors
    /// When the controller refuses, fails or cannot be reached.
    pub async fn test_targets(&self, request: TestTargetsRequest) -> Result<TestTargetsResponse, ClientError> {
        let Line { mut rpc, place } = self.line();
        answer_within(ASK_MAX, place.address(), async move { rpc.test_targets(request).await }).await
    }

    /// Lets an agent look at its server.
    ///
    /// # Errors
    /// When the controller refuses, fails or cannot be reached.
    pub async fn detect_agent(&self, request: DetectAgentRequest) -> Result<Detected, ClientError> {
        let Line { mut rpc, place } = self.line();
        answer_within(ASK_MAX, place.address(), async move { rpc.detect_agent(request).await }).await
    }

    fn line(&self) -> Line {
        self.line.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Line {
    fn open(place: Place) -> Result<Self, ClientError> {
        let channel = match &place {
            Place::Socket(path) => socket::channel(path),
            Place::Remote(login) => remote::channel(&login.controller, login.trust(), Some(login.credentials()?))
                .map_err(|error| login::broken(&login.context, &error.to_string()))?,
        };
        Ok(Self { rpc: rpc(channel), place })
    }
}

fn rpc(channel: Channel) -> OperatorServiceClient<Channel> {
    OperatorServiceClient::new(channel)
}

async fn answer<T>(at: Address<'_>, call: impl Future<Output = Result<Response<T>, Status>>) -> Result<T, ClientError> {
    answer_within(CALL_MAX, at, call).await
}

async fn answer_within<T>(
    limit: Duration,
    at: Address<'_>,
    call: impl Future<Output = Result<Response<T>, Status>>,
) -> Result<T, ClientError> {
    match tokio::time::timeout(limit, call).await {
        Ok(Ok(response)) => Ok(response.into_inner()),
        Ok(Err(status)) => Err(ClientError::from_status(&status, at)),
        Err(elapsed) => Err(ClientError::silent(at, limit, &elapsed)),
    }
}

/// An open stream of "look again" events. Dropping it ends it.
#[derive(Debug)]
pub struct Watch {
    stream: Streaming<WatchResponse>,
    place: Place,
}

impl Watch {
    /// Waits for the next event. Cancel-safe. After an error open a new stream.
    ///
    /// # Errors
    /// When the stream ends or stays silent for longer than the controller may be.
    pub async fn next(&mut self) -> Result<WatchResponse, ClientError> {
        match tokio::time::timeout(WATCH_SILENCE_MAX, self.stream.message()).await {
            Ok(Ok(Some(event))) => Ok(event),
            Ok(Ok(None)) => Err(ClientError::lost(self.place.address(), "the stream ended")),
            Ok(Err(status)) => Err(ClientError::from_status(&status, self.place.address())),
            Err(elapsed) => Err(ClientError::silent(self.place.address(), WATCH_SILENCE_MAX, &elapsed)),
        }
    }
}
