//! A controller that is only its operator API: it answers from a `World` that the test makes and changes. It speaks real
//! gRPC over a real Unix socket, in a runtime of its own so that it can be stopped as a process is. Tests include it
//! with `#[path]`; it is never part of the product.
#![allow(dead_code, clippy::unwrap_used, reason = "each test uses its part, and ends by panicking")]

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::Stream;
use prost::Message as _;
use proto::method::Method;
use proto::operator::v1::operator_service_server::{OperatorService, OperatorServiceServer};
use proto::operator::v1::*;
use proto::types::v1::{ErrorDetail, FieldError, Problem};
use tempfile::TempDir;
use tokio::net::UnixListener;
use tokio::runtime::Runtime;
use tokio::sync::watch;
use tokio_stream::wrappers::UnixListenerStream;
pub(crate) use tonic::Code;
use tonic::{Request, Response, Status};

/// A fake that does not stop in this time is left behind.
const STOP_MAX: Duration = Duration::from_secs(5);

/// A change of the world.
pub(crate) type Step = Box<dyn FnOnce(&mut World) + Send>;

/// What the controller knows, and what it was asked.
#[derive(Default)]
pub(crate) struct World {
    pub(crate) whoami: WhoamiResponse,
    pub(crate) overview: GetOverviewResponse,
    pub(crate) certificates: Vec<Certificate>,
    pub(crate) versions: Vec<Version>,
    /// What every look at challenges finds.
    pub(crate) checked: CheckChallengesResponse,
    /// What every test of targets finds.
    pub(crate) tests: Vec<TargetTest>,
    pub(crate) agents: Vec<Agent>,
    pub(crate) identity_ca: IdentityCa,
    pub(crate) detected: Detected,
    pub(crate) pending: Vec<PendingEnrollment>,
    pub(crate) enrollment: EnrollAgentResponse,
    pub(crate) issuers: Vec<Issuer>,
    pub(crate) operators: ListOperatorsResponse,
    /// Lines, the oldest first, with their head.
    pub(crate) audit: ListAuditResponse,
    pub(crate) limits: ListLimitsResponse,
    pub(crate) restore: GetRestoreResponse,
    /// The parts of a backup, and how it ends when it is not whole.
    pub(crate) backup: Vec<Vec<u8>>,
    pub(crate) backup_breaks: Option<Status>,
    pub(crate) jobs: Vec<Job>,
    pub(crate) events: Vec<Event>,
    /// The job that changing calls return.
    pub(crate) job_id: String,
    pub(crate) warnings: Vec<String>,
    /// Answered instead, to this method.
    pub(crate) refusal: Option<(Method, Status)>,
    /// One step happens after each `GetCertificate`: what a command that follows a job asks for last.
    pub(crate) script: VecDeque<Step>,
    /// Every request but the reads, as its Debug text.
    pub(crate) requests: Vec<String>,
    /// How often a job was read.
    pub(crate) reads: u64,
}

/// A running fake. Dropping it ends it.
pub(crate) struct FakeController {
    folder: TempDir,
    service: Service,
    runtime: Option<Runtime>,
}

#[derive(Clone)]
struct Service {
    world: Arc<Mutex<World>>,
    revision: Arc<watch::Sender<u64>>,
}

impl FakeController {
    /// Starts on a socket of its own.
    pub(crate) fn start(world: World) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let service = Service { world: Arc::new(Mutex::new(world)), revision: Arc::new(watch::Sender::new(1)) };
        let mut fake = Self { folder, service, runtime: None };
        fake.resume();
        fake
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.folder.path().join("controller.sock")
    }

    /// A folder for the test's own files.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Changes the world and tells every watcher.
    pub(crate) fn change(&self, step: impl FnOnce(&mut World)) {
        step(&mut self.service.world.lock().unwrap());
        self.service.revision.send_modify(|revision| *revision += 1);
    }

    /// The changing requests so far.
    pub(crate) fn requests(&self) -> Vec<String> {
        self.service.world.lock().unwrap().requests.clone()
    }

    /// How often a job was read so far: a command that follows one has begun.
    pub(crate) fn reads(&self) -> u64 {
        self.service.world.lock().unwrap().reads
    }

    /// Goes away as a stopped process does: connections end, the socket's file stays.
    pub(crate) async fn stop(&mut self) {
        let runtime = self.runtime.take().unwrap();
        tokio::task::spawn_blocking(move || runtime.shutdown_timeout(STOP_MAX)).await.unwrap();
    }

    /// Comes back after `stop`, on the same socket.
    pub(crate) fn resume(&mut self) {
        std::fs::remove_file(self.socket()).unwrap_or_default();
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let listener = {
            let _inside = runtime.enter();
            UnixListener::bind(self.socket()).unwrap()
        };
        let service = OperatorServiceServer::new(self.service.clone());
        let server = tonic::transport::Server::builder().add_service(service);
        drop(runtime.spawn(server.serve_with_incoming(UnixListenerStream::new(listener))));
        self.runtime = Some(runtime);
    }
}

impl Drop for FakeController {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// Returns the status that the controller makes for `problem`.
pub(crate) fn refused(code: Code, problem: Problem, fields: Vec<FieldError>) -> Status {
    let detail = ErrorDetail { problem: Some(problem.clone()), fields };
    Status::with_details(code, problem.message, detail.encode_to_vec().into())
}

/// Returns the refusal for a record that is not there.
pub(crate) fn not_found(kind: &str, name: &str) -> Status {
    let problem = Problem {
        reason: format!("{}_NOT_FOUND", kind.to_uppercase()),
        message: format!("there is no {kind} named {name}"),
        cause: String::new(),
        hint: format!("see `certwright {kind}s ls`"),
    };
    refused(Code::NotFound, problem, Vec::new())
}

type Answer<T> = Result<Response<T>, Status>;

impl Service {
    fn serve<T>(&self, method: Method, answer: impl FnOnce(&mut World) -> Result<T, Status>) -> Answer<T> {
        let mut world = self.world.lock().unwrap();
        if let Some((_, status)) = world.refusal.as_ref().filter(|(refused, _)| *refused == method) {
            return Err(status.clone());
        }
        answer(&mut world).map(Response::new)
    }

    /// Like `serve`, for a call that changes something.
    fn change<Q: std::fmt::Debug, T>(
        &self,
        method: Method,
        request: Request<Q>,
        answer: impl FnOnce(&mut World, Q) -> Result<T, Status>,
    ) -> Answer<T> {
        let request = request.into_inner();
        self.serve(method, |world| {
            world.requests.push(format!("{request:#?}"));
            answer(world, request)
        })
    }
}

impl World {
    fn certificate(&self, name: &str) -> Result<Certificate, Status> {
        let found = self.certificates.iter().find(|certificate| certificate.name == name);
        found.cloned().ok_or_else(|| not_found("cert", name))
    }

    fn agent(&self, name: &str) -> Result<Agent, Status> {
        self.agents.iter().find(|agent| agent.name == name).cloned().ok_or_else(|| not_found("agent", name))
    }

    fn issuer(&self, name: &str) -> Result<Issuer, Status> {
        self.issuers.iter().find(|issuer| issuer.name == name).cloned().ok_or_else(|| not_found("issuer", name))
    }

    fn accepted(&self, name: &str) -> Result<CertificateAccepted, Status> {
        let certificate = Some(self.certificate(name)?);
        Ok(CertificateAccepted { certificate, job_id: self.job_id.clone(), warnings: self.warnings.clone() })
    }
}

fn count<T>(items: &[T]) -> u64 {
    u64::try_from(items.len()).unwrap()
}

/// One page of two rows, so that paging is always tried.
fn page<T: Clone>(items: &[T], token: &str) -> (Vec<T>, String) {
    let start: usize = token.parse().unwrap_or(0);
    let page: Vec<T> = items.iter().skip(start).take(2).cloned().collect();
    let next = start + page.len();
    (page, if next < items.len() { next.to_string() } else { String::new() })
}

#[tonic::async_trait]
impl OperatorService for Service {
    type WatchStream = Pin<Box<dyn Stream<Item = Result<WatchResponse, Status>> + Send>>;

    async fn whoami(&self, _: Request<WhoamiRequest>) -> Answer<WhoamiResponse> {
        self.serve(Method::OperatorWhoami, |world| Ok(world.whoami.clone()))
    }

    async fn get_overview(&self, _: Request<GetOverviewRequest>) -> Answer<GetOverviewResponse> {
        self.serve(Method::OperatorGetOverview, |world| Ok(world.overview.clone()))
    }

    async fn watch(&self, _: Request<WatchRequest>) -> Answer<Self::WatchStream> {
        let receiver = self.revision.subscribe();
        let stream = futures_util::stream::unfold(receiver, |mut receiver| async move {
            receiver.changed().await.ok()?;
            let revision = *receiver.borrow_and_update();
            Some((Ok(WatchResponse { revision, ..WatchResponse::default() }), receiver))
        });
        self.serve(Method::OperatorWatch, |_| Ok(()))?;
        Ok(Response::new(Box::pin(stream)))
    }

    async fn list_certificates(&self, request: Request<ListCertificatesRequest>) -> Answer<ListCertificatesResponse> {
        let request = request.into_inner();
        self.serve(Method::OperatorListCertificates, |world| {
            let fits = |certificate: &&Certificate| certificate.name.contains(&request.filter);
            let all: Vec<Certificate> = world.certificates.iter().filter(fits).cloned().collect();
            let (items, next_page_token) = page(&all, &request.page_token);
            Ok(ListCertificatesResponse { items, total: count(&all), next_page_token, revision: 1 })
        })
    }

    async fn get_certificate(&self, request: Request<GetCertificateRequest>) -> Answer<Certificate> {
        let answer = self.serve(Method::OperatorGetCertificate, |world| world.certificate(&request.get_ref().name));
        let step = self.world.lock().unwrap().script.pop_front();
        if let Some(step) = step {
            step(&mut self.world.lock().unwrap());
            self.revision.send_modify(|revision| *revision += 1);
        }
        answer
    }

    async fn create_certificate(&self, request: Request<CreateCertificateRequest>) -> Answer<CertificateAccepted> {
        self.change(Method::OperatorCreateCertificate, request, |world, request| world.accepted(&request.name))
    }

    async fn update_certificate(&self, request: Request<UpdateCertificateRequest>) -> Answer<CertificateAccepted> {
        self.change(Method::OperatorUpdateCertificate, request, |world, request| world.accepted(&request.name))
    }

    async fn renew_certificate(&self, request: Request<RenewCertificateRequest>) -> Answer<CertificateAccepted> {
        self.change(Method::OperatorRenewCertificate, request, |world, request| world.accepted(&request.name))
    }

    async fn revoke_certificate(&self, request: Request<RevokeCertificateRequest>) -> Answer<CertificateAccepted> {
        self.change(Method::OperatorRevokeCertificate, request, |world, request| world.accepted(&request.name))
    }

    async fn deploy_certificate(&self, request: Request<DeployCertificateRequest>) -> Answer<CertificateAccepted> {
        self.change(Method::OperatorDeployCertificate, request, |world, request| world.accepted(&request.name))
    }

    async fn delete_certificate(
        &self,
        request: Request<DeleteCertificateRequest>,
    ) -> Answer<DeleteCertificateResponse> {
        self.change(Method::OperatorDeleteCertificate, request, |world, request| {
            let certificate = Some(world.certificate(&request.name)?).filter(|_| request.purge);
            Ok(DeleteCertificateResponse { certificate })
        })
    }

    async fn set_pause(&self, request: Request<SetPauseRequest>) -> Answer<SetPauseResponse> {
        self.change(Method::OperatorSetPause, request, |world, request| {
            let pause = request.paused.then(|| Pause {
                since_at: 0,
                by: "local:root".into(),
                reason: request.reason.clone(),
                all: request.certificate.is_empty(),
            });
            if request.certificate.is_empty() {
                world.overview.pause.clone_from(&pause);
                return Ok(SetPauseResponse { certificate: None, pause });
            }
            let certificate = Certificate { pause: pause.clone(), ..world.certificate(&request.certificate)? };
            Ok(SetPauseResponse { certificate: Some(certificate), pause })
        })
    }

    async fn add_target(&self, request: Request<AddTargetRequest>) -> Answer<CertificateAccepted> {
        self.change(Method::OperatorAddTarget, request, |world, request| world.accepted(&request.certificate))
    }

    async fn remove_target(&self, request: Request<RemoveTargetRequest>) -> Answer<CertificateAccepted> {
        self.change(Method::OperatorRemoveTarget, request, |world, request| world.accepted(&request.certificate))
    }

    async fn set_target(&self, request: Request<SetTargetRequest>) -> Answer<CertificateAccepted> {
        self.change(Method::OperatorSetTarget, request, |world, request| world.accepted(&request.certificate))
    }

    async fn check_challenges(&self, request: Request<CheckChallengesRequest>) -> Answer<CheckChallengesResponse> {
        self.change(Method::OperatorCheckChallenges, request, |world, request| {
            world.certificate(&request.certificate)?;
            Ok(world.checked.clone())
        })
    }

    async fn test_targets(&self, request: Request<TestTargetsRequest>) -> Answer<TestTargetsResponse> {
        self.change(Method::OperatorTestTargets, request, |world, request| {
            if request.create.is_none() {
                world.certificate(&request.certificate)?;
            }
            Ok(TestTargetsResponse { items: world.tests.clone() })
        })
    }

    async fn list_versions(&self, request: Request<ListVersionsRequest>) -> Answer<ListVersionsResponse> {
        self.serve(Method::OperatorListVersions, |world| {
            world.certificate(&request.get_ref().certificate)?;
            Ok(ListVersionsResponse { items: world.versions.clone() })
        })
    }

    async fn list_agents(&self, request: Request<ListAgentsRequest>) -> Answer<ListAgentsResponse> {
        self.serve(Method::OperatorListAgents, |world| {
            let (items, next_page_token) = page(&world.agents, &request.get_ref().page_token);
            let (total, pending) = (count(&world.agents), world.pending.clone());
            Ok(ListAgentsResponse { items, total, next_page_token, pending })
        })
    }

    async fn get_agent(&self, request: Request<GetAgentRequest>) -> Answer<Agent> {
        self.serve(Method::OperatorGetAgent, |world| world.agent(&request.get_ref().name))
    }

    async fn enroll_agent(&self, request: Request<EnrollAgentRequest>) -> Answer<EnrollAgentResponse> {
        self.change(Method::OperatorEnrollAgent, request, |world, _| Ok(world.enrollment.clone()))
    }

    async fn get_identity_ca(&self, _: Request<GetIdentityCaRequest>) -> Answer<IdentityCa> {
        self.serve(Method::OperatorGetIdentityCa, |world| Ok(world.identity_ca.clone()))
    }

    async fn rotate_identity_ca(&self, request: Request<RotateIdentityCaRequest>) -> Answer<IdentityCa> {
        self.change(Method::OperatorRotateIdentityCa, request, |world, _| Ok(world.identity_ca.clone()))
    }

    async fn get_detected(&self, request: Request<GetDetectedRequest>) -> Answer<Detected> {
        self.serve(Method::OperatorGetDetected, |world| {
            let agent = world.agent(&request.get_ref().name)?.name;
            Ok(Detected { agent, ..world.detected.clone() })
        })
    }

    async fn detect_agent(&self, request: Request<DetectAgentRequest>) -> Answer<Detected> {
        self.change(Method::OperatorDetectAgent, request, |world, request| {
            let agent = world.agent(&request.name)?.name;
            Ok(Detected { agent, ..world.detected.clone() })
        })
    }

    async fn consent_agent(&self, request: Request<ConsentAgentRequest>) -> Answer<Agent> {
        self.change(Method::OperatorConsentAgent, request, |world, request| {
            let agent = world.agent(&request.name)?;
            let consent_until = agent.last_seen_at + 24 * 3_600_000;
            Ok(Agent { problems: Vec::new(), consent_until, ..agent })
        })
    }

    async fn set_agent(&self, request: Request<SetAgentRequest>) -> Answer<Agent> {
        self.change(Method::OperatorSetAgent, request, |world, request| {
            Ok(Agent { labels: request.labels.clone(), ..world.agent(&request.name)? })
        })
    }

    async fn revoke_agent(&self, request: Request<RevokeAgentRequest>) -> Answer<Agent> {
        self.change(Method::OperatorRevokeAgent, request, |world, request| {
            Ok(Agent { status: "revoked".into(), ..world.agent(&request.name)? })
        })
    }

    async fn forget_agent(&self, request: Request<ForgetAgentRequest>) -> Answer<ForgetAgentResponse> {
        self.change(Method::OperatorForgetAgent, request, |world, request| {
            world.agent(&request.name).map(|_| ForgetAgentResponse {})
        })
    }

    type CreateBackupStream = Pin<Box<dyn Stream<Item = Result<CreateBackupResponse, Status>> + Send>>;

    async fn create_backup(&self, request: Request<CreateBackupRequest>) -> Answer<Self::CreateBackupStream> {
        self.change(Method::OperatorCreateBackup, request, |world, _| {
            let parts = world.backup.iter().map(|part| Ok(CreateBackupResponse { part: part.clone() }));
            let parts = parts.chain(world.backup_breaks.clone().map(Err)).collect::<Vec<_>>();
            let parts: Self::CreateBackupStream = Box::pin(tokio_stream::iter(parts));
            Ok(parts)
        })
    }

    async fn get_restore(&self, _request: Request<GetRestoreRequest>) -> Answer<GetRestoreResponse> {
        self.serve(Method::OperatorGetRestore, |world| Ok(world.restore.clone()))
    }

    async fn accept_restore(&self, request: Request<AcceptRestoreRequest>) -> Answer<GetRestoreResponse> {
        self.change(Method::OperatorAcceptRestore, request, |world, _| {
            world.restore.state = "accepted".into();
            Ok(world.restore.clone())
        })
    }

    async fn list_audit(&self, request: Request<ListAuditRequest>) -> Answer<ListAuditResponse> {
        self.serve(Method::OperatorListAudit, |world| {
            let mut lines = world.audit.lines.clone();
            if !request.get_ref().ascending {
                lines.reverse();
            }
            let from = usize::try_from(request.get_ref().from_seq).unwrap();
            let mut lines = lines.split_off(from.min(lines.len()));
            let size = usize::try_from(request.get_ref().page_size).unwrap();
            let next_seq = if lines.len() > size { u64::try_from(from + size).unwrap() } else { 0 };
            lines.truncate(size);
            Ok(ListAuditResponse { lines, next_seq, ..world.audit.clone() })
        })
    }

    async fn list_operators(&self, _: Request<ListOperatorsRequest>) -> Answer<ListOperatorsResponse> {
        self.serve(Method::OperatorListOperators, |world| Ok(world.operators.clone()))
    }

    async fn add_operator(&self, request: Request<AddOperatorRequest>) -> Answer<AddOperatorResponse> {
        self.change(Method::OperatorAddOperator, request, |_, request| {
            let name = format!("local:{}", request.user);
            let operator = Operator { name, role: request.role, kind: "local".into(), uid: 1000, ..Default::default() };
            let hint = "usermod -aG certwright-admin bob lets bob reach the socket".to_owned();
            Ok(AddOperatorResponse { operator: Some(operator), hint })
        })
    }

    async fn invite_operator(&self, request: Request<InviteOperatorRequest>) -> Answer<InviteOperatorResponse> {
        self.change(Method::OperatorInviteOperator, request, |world, _| {
            let EnrollAgentResponse { token, expires_at, hint, .. } = world.enrollment.clone();
            let command = "certwright login --controller ctl.example.test:7443 --invite -".to_owned();
            Ok(InviteOperatorResponse { token, command, expires_at, hint })
        })
    }

    async fn set_operator_role(&self, request: Request<SetOperatorRoleRequest>) -> Answer<Operator> {
        self.change(Method::OperatorSetOperatorRole, request, |_, request| {
            Ok(Operator { name: request.name, role: request.role, kind: "remote".into(), ..Default::default() })
        })
    }

    async fn remove_operator(&self, request: Request<RemoveOperatorRequest>) -> Answer<RemoveOperatorResponse> {
        self.change(Method::OperatorRemoveOperator, request, |_, _| Ok(RemoveOperatorResponse {}))
    }

    async fn login(&self, _: Request<LoginRequest>) -> Answer<LoginResponse> {
        Err(Status::unimplemented("a socket needs no login"))
    }

    async fn renew_login(&self, _: Request<RenewLoginRequest>) -> Answer<LoginResponse> {
        Err(Status::unimplemented("a socket needs no login"))
    }

    async fn list_issuers(&self, _: Request<ListIssuersRequest>) -> Answer<ListIssuersResponse> {
        self.serve(Method::OperatorListIssuers, |world| Ok(ListIssuersResponse { items: world.issuers.clone() }))
    }

    async fn get_issuer(&self, request: Request<GetIssuerRequest>) -> Answer<Issuer> {
        self.serve(Method::OperatorGetIssuer, |world| world.issuer(&request.get_ref().name))
    }

    async fn get_revocation_list(&self, _: Request<GetRevocationListRequest>) -> Answer<RevocationList> {
        let list = RevocationList { der: vec![0x30, 0], number: 7, made_at: 1, next_at: 1_800_000_000_000, revoked: 2 };
        self.serve(Method::OperatorGetRevocationList, |_| Ok(list))
    }

    async fn add_issuer(&self, request: Request<AddIssuerRequest>) -> Answer<Issuer> {
        self.change(Method::OperatorAddIssuer, request, |world, request| world.issuer(&request.name))
    }

    async fn set_issuer(&self, request: Request<SetIssuerRequest>) -> Answer<Issuer> {
        self.change(Method::OperatorSetIssuer, request, |world, request| world.issuer(&request.name))
    }

    async fn rollover_account(&self, request: Request<RolloverAccountRequest>) -> Answer<Issuer> {
        self.serve(Method::OperatorRolloverAccount, |world| world.issuer(&request.get_ref().name))
    }

    async fn test_issuer(&self, request: Request<TestIssuerRequest>) -> Answer<Issuer> {
        self.serve(Method::OperatorTestIssuer, |world| world.issuer(&request.get_ref().name))
    }

    async fn remove_issuer(&self, request: Request<RemoveIssuerRequest>) -> Answer<RemoveIssuerResponse> {
        self.change(Method::OperatorRemoveIssuer, request, |world, request| {
            world.issuer(&request.name).map(|_| RemoveIssuerResponse {})
        })
    }

    async fn list_limits(&self, _: Request<ListLimitsRequest>) -> Answer<ListLimitsResponse> {
        self.serve(Method::OperatorListLimits, |world| Ok(world.limits.clone()))
    }

    async fn set_limits(&self, request: Request<SetLimitsRequest>) -> Answer<ListLimitsResponse> {
        self.change(Method::OperatorSetLimits, request, |world, _| Ok(world.limits.clone()))
    }

    async fn list_jobs(&self, request: Request<ListJobsRequest>) -> Answer<ListJobsResponse> {
        self.serve(Method::OperatorListJobs, |world| {
            let (items, next_page_token) = page(&world.jobs, &request.get_ref().page_token);
            Ok(ListJobsResponse { items, next_page_token })
        })
    }

    async fn get_job(&self, request: Request<GetJobRequest>) -> Answer<Job> {
        let id = request.into_inner().id;
        self.serve(Method::OperatorGetJob, |world| {
            world.reads += 1;
            world.jobs.iter().find(|job| job.id == id).cloned().ok_or_else(|| not_found("job", &id))
        })
    }

    async fn cancel_job(&self, request: Request<CancelJobRequest>) -> Answer<Job> {
        self.change(Method::OperatorCancelJob, request, |world, request| {
            let found = world.jobs.iter().find(|job| job.id == request.id).cloned();
            found.map(|job| Job { phase: "cancelling".into(), ..job }).ok_or_else(|| not_found("job", &request.id))
        })
    }

    /// Finds by part of the name only; one that is paused is passed over.
    async fn act_on_certificates(
        &self,
        request: Request<ActOnCertificatesRequest>,
    ) -> Answer<ActOnCertificatesResponse> {
        let asked = request.get_ref().clone();
        let words = asked.filter.trim_matches(['(', ')']);
        let plan = self.serve(Method::OperatorActOnCertificates, |world| {
            let picked = world.certificates.iter().filter(|certificate| {
                asked.names.contains(&certificate.name) || (asked.names.is_empty() && certificate.name.contains(words))
            });
            let (paused, will): (Vec<_>, Vec<_>) = picked.partition(|certificate| certificate.pause.is_some());
            let skipped = paused.iter().map(|certificate| SkippedCertificate {
                name: certificate.name.clone(),
                reason: "paused".into(),
                why: "it is paused".into(),
            });
            let skipped_by = vec![Count { state: "paused".into(), count: count(&paused) }];
            Ok(ActOnCertificatesResponse {
                act: asked.act.clone(),
                total: count(&will),
                names: will.iter().map(|certificate| certificate.name.clone()).collect(),
                skipped: skipped.collect(),
                skipped_total: count(&paused),
                skipped_by: skipped_by.into_iter().filter(|one| one.count > 0).collect(),
                ..ActOnCertificatesResponse::default()
            })
        })?;
        if asked.rehearse {
            return Ok(plan);
        }
        let plan = plan.into_inner();
        self.change(Method::OperatorActOnCertificates, request, |world, _| {
            Ok(ActOnCertificatesResponse { job_id: world.job_id.clone(), ..plan })
        })
    }

    async fn list_events(&self, request: Request<ListEventsRequest>) -> Answer<ListEventsResponse> {
        let request = request.into_inner();
        self.serve(Method::OperatorListEvents, |world| {
            let before = |event: &&Event| request.before_seq == 0 || event.seq < request.before_seq;
            let size = usize::try_from(request.page_size.min(2)).unwrap();
            Ok(ListEventsResponse { items: world.events.iter().filter(before).take(size).cloned().collect() })
        })
    }
}
