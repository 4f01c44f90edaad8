//! A controller small enough to read: an identity CA, one agent, a desired state, and a record of what the agent said.

use std::collections::BTreeMap;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::Stream;
use proto::agent::v1 as wire;
use proto::agent::v1::agent_service_server::{AgentService, AgentServiceServer};
use proto::clock::{Clock as _, SystemClock};
use proto::id::JoinToken;
use proto::tls::{Credentials, server_config};
use proto::types::v1::TargetStatus;
use proto::x509::{spki_pin, to_pem};
use rcgen::{BasicConstraints, CertificateParams, CertificateSigningRequestParams, IsCa, Issuer, KeyPair, SanType};
use secrecy::{ExposeSecret as _, SecretString};
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tonic::transport::server::Connected;
use tonic::{Request, Response, Status, Streaming};

/// What the agent said so far.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    pub(crate) attached: usize,
    pub(crate) csrs: BTreeMap<String, Vec<u8>>,
    pub(crate) report: wire::ReportRequest,
    pub(crate) renewals: usize,
    fetches: usize,
}

impl Seen {
    pub(crate) fn target(&self, status: TargetStatus) -> Option<wire::TargetReport> {
        let report = self.report.targets.first()?;
        (report.status() == status && report.doing.is_empty()).then(|| report.clone())
    }

    pub(crate) fn challenge(&self, token: &str) -> Option<wire::ChallengeReport> {
        self.report.challenges.iter().find(|challenge| challenge.token == token).cloned()
    }
}

/// Rest of life of an identity leaf: 30 days.
const LEAF_SECONDS: i64 = 30 * 86_400;

fn time_of(second: i64) -> time::OffsetDateTime {
    time::OffsetDateTime::from_unix_timestamp(second).unwrap()
}

struct State {
    ca: Issuer<'static, KeyPair>,
    ca_der: Vec<u8>,
    secret: JoinToken,
    desired: watch::Sender<wire::GetDesiredResponse>,
    seen: watch::Sender<Seen>,
    versions: Mutex<BTreeMap<String, String>>,
    lose_next_reply: Mutex<bool>,
    agent_id: Mutex<String>,
    leaf_age_seconds: i64,
    asks_to_renew: AtomicBool,
    cut: Mutex<CancellationToken>,
    /// The newest stream, for questions.
    line: Mutex<Option<mpsc::Sender<Result<wire::AttachResponse, Status>>>>,
    answers: watch::Sender<BTreeMap<String, wire::answer_request::Kind>>,
}

/// The controller; clones are the same one.
#[derive(Clone)]
pub(crate) struct Controller(Arc<State>);

impl Controller {
    pub(crate) fn new() -> Self {
        Self::with_leaves_of_age(0)
    }

    /// Hands out identity leaves whose life began some time ago, as to an agent whose clock is ahead.
    pub(crate) fn with_leaves_of_age(leaf_age_seconds: i64) -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let ca_der = params.self_signed(&key).unwrap().der().to_vec();
        let name = wire::StateName { epoch: 1, generation: 1, digest: vec![] };
        let desired = wire::GetDesiredResponse { name: Some(name), ..wire::GetDesiredResponse::default() };
        Self(Arc::new(State {
            secret: JoinToken::random(spki_pin(&ca_der).unwrap()),
            ca: Issuer::new(params, key),
            ca_der,
            desired: watch::Sender::new(desired),
            seen: watch::Sender::new(Seen::default()),
            versions: Mutex::new(BTreeMap::new()),
            lose_next_reply: Mutex::new(false),
            agent_id: Mutex::new(String::new()),
            leaf_age_seconds,
            asks_to_renew: AtomicBool::new(false),
            cut: Mutex::new(CancellationToken::new()),
            line: Mutex::new(None),
            answers: watch::Sender::new(BTreeMap::new()),
        }))
    }

    pub(crate) fn token(&self) -> SecretString {
        self.0.secret.expose()
    }

    /// Changes the desired state and its generation.
    pub(crate) fn publish(&self, change: impl FnOnce(&mut wire::GetDesiredResponse)) {
        self.0.desired.send_modify(|desired| {
            change(desired);
            desired.name.as_mut().unwrap().generation += 1;
        });
    }

    /// Waits until the agent has said something.
    pub(crate) async fn wait<T>(&self, find: impl Fn(&Seen) -> Option<T>) -> T {
        self.wait_within(Duration::from_secs(60), find).await
    }

    pub(crate) async fn wait_within<T>(&self, limit: Duration, find: impl Fn(&Seen) -> Option<T>) -> T {
        let mut seen = self.0.seen.subscribe();
        let found = async {
            loop {
                if let Some(found) = find(&seen.borrow_and_update()) {
                    return found;
                }
                seen.changed().await.unwrap();
            }
        };
        let found = tokio::time::timeout(limit, found).await;
        found.unwrap_or_else(|_| panic!("waited in vain; the last report: {:#?}", self.0.seen.borrow().report))
    }

    /// Asks a question under an id that is used once.
    pub(crate) async fn ask(&self, id: &str, kind: Option<wire::question::Kind>) {
        self.ask_within(id, kind, 20).await;
    }

    pub(crate) async fn ask_within(&self, id: &str, kind: Option<wire::question::Kind>, within_seconds: u32) {
        let line = self.0.line.lock().unwrap().clone().unwrap();
        let question = wire::Question { id: id.to_owned(), within_seconds, kind };
        line.send(Ok(wire::AttachResponse { question: Some(question), ..Default::default() })).await.unwrap();
    }

    /// Waits for the answer to a question.
    pub(crate) async fn answer_to(&self, id: &str) -> wire::answer_request::Kind {
        let mut answers = self.0.answers.subscribe();
        let answered = answers.wait_for(|answers| answers.contains_key(id));
        let answers = tokio::time::timeout(Duration::from_secs(30), answered).await.expect("an answer").unwrap();
        answers[id].clone()
    }

    pub(crate) fn fetches(&self) -> usize {
        self.0.seen.borrow().fetches
    }

    pub(crate) fn lose_next_reply(&self) {
        *self.0.lose_next_reply.lock().unwrap() = true;
    }

    /// Asks for a new identity with every answer from now on.
    pub(crate) fn ask_to_renew(&self) {
        self.0.asks_to_renew.store(true, Ordering::Relaxed);
    }

    pub(crate) fn renewals(&self) -> usize {
        self.0.seen.borrow().renewals
    }

    /// Cuts every connection.
    pub(crate) fn cut(&self) {
        std::mem::take(&mut *self.0.cut.lock().unwrap()).cancel();
    }

    /// Signs a certificate for a CSR; returns its fingerprint.
    pub(crate) fn issue(&self, version: &str, csr: &[u8]) -> Vec<u8> {
        self.issue_with(version, csr, &[])
    }

    /// Issues with more names than the CSR asks for.
    pub(crate) fn issue_with(&self, version: &str, csr: &[u8], names: &[&str]) -> Vec<u8> {
        let mut csr = CertificateSigningRequestParams::from_der(&csr.into()).unwrap();
        for name in names {
            csr.params.subject_alt_names.push(SanType::DnsName((*name).try_into().unwrap()));
        }
        let leaf = csr.signed_by(&self.0.ca).unwrap();
        self.0.versions.lock().unwrap().insert(version.to_owned(), leaf.pem());
        proto::x509::fingerprint(leaf.der()).to_vec()
    }

    /// Serves one connection until it ends or is cut.
    pub(crate) async fn serve(self, stream: DuplexStream) {
        let cut = self.0.cut.lock().unwrap().clone();
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        let uri = format!("certwright:controller:{}", proto::id::random_id());
        params.subject_alt_names = vec![SanType::URI(uri.try_into().unwrap())];
        let leaf = params.signed_by(&key, &self.0.ca).unwrap();
        let credentials = Credentials {
            chain: vec![leaf.der().clone(), self.0.ca_der.clone().into()],
            key: key.serialize_der().try_into().unwrap(),
        };
        let config = server_config(&[self.0.ca_der.clone().into()], credentials, Arc::new(SystemClock)).unwrap();
        let Ok(stream) = TlsAcceptor::from(Arc::new(config)).accept(stream).await else { return };
        let line = Line { stream, cut: Box::pin(cut.cancelled_owned()) };
        // The server drops its connections with its list, so the list never ends by itself.
        let incoming = tokio_stream::once(Ok::<Line, io::Error>(line)).chain(tokio_stream::pending());
        let server = tonic::transport::Server::builder().add_service(AgentServiceServer::new(self));
        server.serve_with_incoming(incoming).await.unwrap();
    }

    /// A leaf as long as the fake controller wants; the life of a real one is the controller's matter.
    fn identity(&self, id: &str, csr: &[u8]) -> Vec<u8> {
        let mut csr = CertificateSigningRequestParams::from_der(&csr.into()).unwrap();
        csr.params.subject_alt_names = vec![SanType::URI(format!("certwright:agent:{id}").try_into().unwrap())];
        let now = SystemClock.now().as_second();
        let at = |second| time_of(now + second);
        (csr.params.not_before, csr.params.not_after) = (at(-self.0.leaf_age_seconds), at(LEAF_SECONDS));
        csr.signed_by(&self.0.ca).unwrap().der().to_vec()
    }
}

/// A TLS stream that can be cut like a cable.
struct Line {
    stream: TlsStream<DuplexStream>,
    cut: Pin<Box<WaitForCancellationFutureOwned>>,
}

impl Connected for Line {
    type ConnectInfo = ();

    fn connect_info(&self) {}
}

impl AsyncRead for Line {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.cut.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Line {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[tonic::async_trait]
impl AgentService for Controller {
    async fn enroll(&self, request: Request<wire::EnrollRequest>) -> Result<Response<wire::EnrollResponse>, Status> {
        let request = request.into_inner();
        if request.token != self.0.secret.secret.expose_secret() {
            return Err(Status::unauthenticated("token"));
        }
        if std::mem::take(&mut *self.0.lose_next_reply.lock().unwrap()) {
            return Err(Status::unavailable("lost"));
        }
        let agent_id = proto::id::random_id();
        self.0.agent_id.lock().unwrap().clone_from(&agent_id);
        let leaf_der = self.identity(&agent_id, &request.csr_der);
        let ca_der = vec![self.0.ca_der.clone()];
        Ok(Response::new(wire::EnrollResponse { agent_id, agent_name: "h1".into(), leaf_der, ca_der }))
    }

    async fn renew_identity(
        &self,
        request: Request<wire::RenewIdentityRequest>,
    ) -> Result<Response<wire::RenewIdentityResponse>, Status> {
        let id = self.0.agent_id.lock().unwrap().clone();
        let leaf_der = self.identity(&id, &request.into_inner().csr_der);
        self.0.seen.send_modify(|seen| seen.renewals += 1);
        Ok(Response::new(wire::RenewIdentityResponse { leaf_der, ca_der: vec![self.0.ca_der.clone()] }))
    }

    type AttachStream = Pin<Box<dyn Stream<Item = Result<wire::AttachResponse, Status>> + Send>>;

    async fn attach(
        &self,
        request: Request<Streaming<wire::AttachRequest>>,
    ) -> Result<Response<Self::AttachStream>, Status> {
        let first = request.into_inner().message().await?.and_then(|first| first.message);
        let Some(wire::attach_request::Message::Hello(hello)) = first else {
            return Err(Status::invalid_argument("hello comes first"));
        };
        assert!(hello.features.contains(&"verify-tls".to_owned()) && hello.policy.is_some());
        self.0.seen.send_modify(|seen| seen.attached += 1);
        let (hints, stream) = mpsc::channel(4);
        *self.0.line.lock().unwrap() = Some(hints.clone());
        let mut desired = self.0.desired.subscribe();
        let renew_identity = self.0.asks_to_renew.load(Ordering::Relaxed);
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            loop {
                let name = desired.borrow_and_update().name.clone();
                if hints
                    .send(Ok(wire::AttachResponse { desired: name, renew_identity, ..Default::default() }))
                    .await
                    .is_err()
                    || desired.changed().await.is_err()
                {
                    return;
                }
            }
        });
        // The tasks live as long as the stream that holds them.
        let stream = ReceiverStream::new(stream).map(move |hint| {
            assert!(!tasks.is_empty());
            hint
        });
        Ok(Response::new(Box::pin(stream)))
    }

    async fn get_desired(
        &self,
        _request: Request<wire::GetDesiredRequest>,
    ) -> Result<Response<wire::GetDesiredResponse>, Status> {
        Ok(Response::new(self.0.desired.borrow().clone()))
    }

    async fn fetch(&self, request: Request<wire::FetchRequest>) -> Result<Response<wire::FetchResponse>, Status> {
        self.0.seen.send_modify(|seen| seen.fetches += 1);
        let leaf_pem = self.0.versions.lock().unwrap().get(&request.into_inner().version_id).cloned();
        let leaf_pem = leaf_pem.ok_or_else(|| Status::not_found("version"))?;
        let chain_pem = to_pem(&self.0.ca_der);
        Ok(Response::new(wire::FetchResponse { leaf_pem, chain_pem, key_pem: String::new() }))
    }

    async fn submit_csr(
        &self,
        request: Request<wire::SubmitCsrRequest>,
    ) -> Result<Response<wire::SubmitCsrResponse>, Status> {
        let request = request.into_inner();
        self.0.seen.send_modify(|seen| drop(seen.csrs.insert(request.key_slot_id, request.csr_der)));
        Ok(Response::new(wire::SubmitCsrResponse {}))
    }

    async fn answer(&self, request: Request<wire::AnswerRequest>) -> Result<Response<wire::AnswerResponse>, Status> {
        let wire::AnswerRequest { question_id, kind } = request.into_inner();
        self.0.answers.send_modify(|answers| drop(answers.insert(question_id, kind.unwrap())));
        Ok(Response::new(wire::AnswerResponse {}))
    }

    async fn show_held(
        &self,
        _request: Request<wire::ShowHeldRequest>,
    ) -> Result<Response<wire::ShowHeldResponse>, Status> {
        Err(Status::unimplemented("it was never restored"))
    }

    async fn report(&self, request: Request<wire::ReportRequest>) -> Result<Response<wire::ReportResponse>, Status> {
        self.0.seen.send_modify(|seen| seen.report = request.into_inner());
        Ok(Response::new(wire::ReportResponse::default()))
    }
}
