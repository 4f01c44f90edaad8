//! What a controller costs with very many agents: enrols them, holds a stream of mutual TLS for each, and measures memory, the
//! processor at rest, how long a renewed version takes to all of its servers, how long all take to come back after a kill, and
//! how fast a revoked one is refused. The agents speak the
//! bare protocol over real sockets: hello, desired state, report, a heartbeat each 30 s, back-off with full jitter, as the
//! program does. `fleet [COUNT] [--state DIR]`; prints its part of docs/performance.md. Started by `scripts/bench fleet`.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "its output is the document")]
#![allow(clippy::as_conversions, reason = "figures for people need no exact conversion")]

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use futures_util::{StreamExt as _, stream};
use hyper_util::rt::TokioIo;
use proto::agent::v1 as agent;
use proto::agent::v1::agent_service_client::AgentServiceClient;
use proto::clock::{Clock, SystemClock, to_wire};
use proto::id::{JoinToken, random_id};
use proto::operator::v1 as api;
use proto::operator::v1::operator_service_client::OperatorServiceClient;
use proto::tls::{Credentials, SERVER_NAME, Trust, client_config};
use proto::types::v1 as types;
use rcgen::{CertificateParams, KeyPair};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use secrecy::ExposeSecret as _;
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};
use tokio_rustls::TlsConnector;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Channel, Endpoint, Uri};

/// Agents when nothing else is said.
const COUNT: usize = 1_000;
/// Enrollments and first connections under way at once.
const AT_ONCE: usize = 64;
const LISTEN: &str = "127.0.0.1:17443";
/// As the agent's program has them.
const HEARTBEAT: Duration = Duration::from_secs(30);
const PING: Duration = Duration::from_secs(60);
const BACKOFF_FIRST: Duration = Duration::from_millis(500);
const BACKOFF_MAX: Duration = Duration::from_secs(60);
const PATIENCE: Duration = Duration::from_secs(30);
/// The processor is watched for so long at rest.
const REST: Duration = Duration::from_secs(60);
/// Targets of one certificate: as many as it may have.
const TARGETS: usize = 100;
/// Longest wait for all of them.
const ALL_MAX: Duration = Duration::from_secs(600);

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let mut words = std::env::args().skip(1);
    let (mut count, mut state) = (COUNT, std::env::temp_dir().join("certwright-fleet"));
    while let Some(word) = words.next() {
        match word.as_str() {
            "--state" => state = words.next().context("--state needs a directory")?.into(),
            _ => count = word.parse().with_context(|| format!("{word} is no number of agents"))?,
        }
    }
    if state.exists() {
        std::fs::remove_dir_all(&state)?;
    }
    std::fs::create_dir_all(&state)?;
    let site = Site { state };
    let controller = site.start().await?;
    let before = memory(controller.id())?;
    let began = Instant::now();
    let fleet = site.enroll(count).await?;
    eprintln!("{count} enrolled in {:.0?}", began.elapsed());
    let enrolled = memory(controller.id())?;

    let (attached, applied) = (Arc::new(AtomicUsize::new(0)), Arc::new(Applied::default()));
    let began = Instant::now();
    let mut lives = JoinSet::new();
    for one in &fleet {
        lives.spawn(live(Arc::clone(one), Arc::clone(&attached), Arc::clone(&applied)));
        if lives.len() % AT_ONCE == 0 {
            sleep(Duration::from_millis(50)).await;
        }
    }
    all(&attached, count).await?;
    eprintln!("all attached after {:.1?}", began.elapsed());
    sleep(Duration::from_secs(40)).await;
    let (held, cpu_before) = (memory(controller.id())?, cpu(controller.id())?);
    sleep(REST).await;
    let idle = (cpu(controller.id())? - cpu_before) / REST.as_secs_f64();

    let delivered = site.deliver(&fleet, &applied).await?;
    let delivered = [50, 99, 100].map(|share| format!("{} ms", percentile(&delivered, share))).join(", ");

    end(controller, "-KILL")?;
    let began = Instant::now();
    let controller = site.start().await?;
    all(&attached, count).await?;
    let back = began.elapsed();
    eprintln!("all back {back:.1?} after kill -9");
    sleep(Duration::from_secs(5)).await;
    let refused = site.revoke(fleet.first().context("one at least")?).await?;
    let peak = peak(controller.id())?;
    end(controller, "-TERM")?;
    println!(
        "{count} agents, enrolled over the wire, one stream of mutual TLS each, a heartbeat every 30 s; `scripts/bench fleet {count}`.\n"
    );
    println!("| what | goal | measured |\n|---|---|---|");
    println!(
        "| memory of the controller before, enrolled, all attached and at rest | 1 GiB | {:.0} MB, {:.0} MB, {:.0} MB |",
        mb(before),
        mb(enrolled),
        mb(held)
    );
    println!(
        "| of that for each attached agent | 56 KiB | {:.1} KiB |",
        (held.saturating_sub(enrolled)) as f64 / count as f64 / 1024.0
    );
    println!("| most memory after the restart | 1 GiB | {:.0} MB |", mb(peak));
    println!("| processor at rest, share of a core over 60 s | 2 % | {:.2} % |", idle * 100.0);
    println!(
        "| {count} targets renewed at once, from issued to fetched and reported: p50, p99, all | p99 1 s | {delivered} |"
    );
    println!("| kill -9 and start: all attached again after | 60 s | {:.1} s |", back.as_secs_f64());
    println!("| revoked: stream cut, and the next message refused, after | 1 s | {} ms |", refused.as_millis());
    lives.shutdown().await;
    Ok(())
}

fn mb(bytes: u64) -> f64 {
    bytes as f64 / 1e6
}

/// An agent that was enrolled.
struct Agent {
    name: String,
    leaf: Vec<u8>,
    roots: Vec<Vec<u8>>,
    key: Vec<u8>,
}

impl Agent {
    async fn connect(&self) -> anyhow::Result<AgentServiceClient<Channel>> {
        let der = |bytes: &Vec<u8>| CertificateDer::from(bytes.clone());
        let key = PrivateKeyDer::try_from(self.key.clone()).map_err(anyhow::Error::msg)?;
        let credentials = Credentials { chain: vec![der(&self.leaf)], key };
        client(Trust::Roots(self.roots.iter().map(der).collect()), Some(credentials)).await
    }
}

/// When each version was applied on each agent: (agent, version) → ms since 1970.
#[derive(Default)]
struct Applied(Mutex<HashMap<(String, String), i64>>);

impl Applied {
    fn note(&self, agent: &str, version: &str) {
        let at = SystemClock.now().as_millisecond();
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert((agent.to_owned(), version.to_owned()), at);
    }

    /// Of one version, how long after that instant each was applied, ms.
    fn after(&self, version: &str, at: i64) -> Vec<i64> {
        let applied = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        applied.iter().filter(|((_, of), _)| of == version).map(|(_, applied_at)| applied_at - at).collect()
    }
}

/// Of sorted figures.
fn percentile(sorted: &[i64], share: usize) -> i64 {
    let place = (sorted.len() * share).div_ceil(100).saturating_sub(1);
    sorted.get(place).copied().unwrap_or_default()
}

/// Holds one connection until it ends; every wait as the program has it.
async fn live(one: Arc<Agent>, attached: Arc<AtomicUsize>, applied: Arc<Applied>) {
    let mut ceiling = BACKOFF_FIRST;
    loop {
        if let Ok(began) = session(&one, &attached, &applied).await
            && began.elapsed() > HEARTBEAT
        {
            ceiling = BACKOFF_FIRST;
        }
        let mut byte = [0_u8];
        getrandom(&mut byte);
        sleep(ceiling * u32::from(byte[0]) / 255).await;
        ceiling = (ceiling * 2).min(BACKOFF_MAX);
    }
}

/// Any randomness does for jitter.
fn getrandom(byte: &mut [u8; 1]) {
    byte[0] = random_id().bytes().last().unwrap_or_default().wrapping_mul(37);
}

async fn session(one: &Agent, attached: &AtomicUsize, applied: &Applied) -> anyhow::Result<Instant> {
    let mut client = one.connect().await?;
    let (line, mut hints) = attach(&mut client).await?;
    let began = Instant::now();
    let mut held = take(one, &mut client, applied).await?;
    attached.fetch_add(1, Ordering::Relaxed);
    loop {
        tokio::select! {
            hint = hints.message() => match hint {
                // As the program does: pulled when it names a state that is not held.
                Ok(Some(hint)) if hint.desired.is_some() && hint.desired != held => {
                    match take(one, &mut client, applied).await {
                        Ok(name) => held = name,
                        Err(_) => break,
                    }
                }
                Ok(Some(_)) => {}
                Ok(None) | Err(_) => break,
            },
            () = sleep(HEARTBEAT) => {
                let beat = agent::Heartbeat { clock_at: to_wire(Some(SystemClock.now())) };
                let message = Some(agent::attach_request::Message::Heartbeat(beat));
                if line.send(agent::AttachRequest { message }).await.is_err() { break }
            }
        }
    }
    attached.fetch_sub(1, Ordering::Relaxed);
    Ok(began)
}

/// Pulls the desired state, fetches every version that it names, and reports each as applied. Files, reload and proof are the
/// server's own time, and are measured on a real one.
async fn take(
    one: &Agent,
    client: &mut AgentServiceClient<Channel>,
    applied: &Applied,
) -> anyhow::Result<Option<agent::StateName>> {
    let desired = timeout(PATIENCE, client.get_desired(agent::GetDesiredRequest::default())).await??.into_inner();
    let mut targets = Vec::new();
    for target in desired.targets.iter().filter(|target| !target.version_id.is_empty()) {
        let (target_id, version_id) = (target.target_id.clone(), target.version_id.clone());
        timeout(PATIENCE, client.fetch(agent::FetchRequest { target_id, version_id })).await??;
        targets.push(agent::TargetReport {
            target_id: target.target_id.clone(),
            version_id: target.version_id.clone(),
            deploy_wish: target.deploy_wish,
            status: types::TargetStatus::Applied.into(),
            served_fingerprint_sha256: target.fingerprint_sha256.clone(),
            attempt: 1,
            ..Default::default()
        });
    }
    let report = agent::ReportRequest { name: desired.name.clone(), targets, ..Default::default() };
    timeout(PATIENCE, client.report(report)).await??;
    desired.targets.iter().for_each(|target| applied.note(&one.name, &target.version_id));
    Ok(desired.name)
}

type Line = (mpsc::Sender<agent::AttachRequest>, tonic::Streaming<agent::AttachResponse>);

async fn attach(client: &mut AgentServiceClient<Channel>) -> anyhow::Result<Line> {
    let (line, messages) = mpsc::channel(8);
    let hello = agent::Hello {
        agent_version: env!("CARGO_PKG_VERSION").to_owned(),
        policy: Some(types::Policy {
            dirs: vec![types::PolicyDir {
                path: "/srv".to_owned(),
                names: vec!["*.example.test".to_owned()],
                files: vec!["*".to_owned()],
                owners: vec!["root:root".to_owned()],
                key_mode_max: 0o600,
            }],
            http01_ports: vec![80],
            custody: vec![types::Custody::Controller.into()],
            ..Default::default()
        }),
        hostname: "fleet".to_owned(),
        os: "Debian".to_owned(),
        instance: random_id(),
        ..Default::default()
    };
    line.send(agent::AttachRequest { message: Some(agent::attach_request::Message::Hello(hello)) }).await?;
    let hints = timeout(PATIENCE, client.attach(ReceiverStream::new(messages))).await??.into_inner();
    Ok((line, hints))
}

async fn client(trust: Trust, credentials: Option<Credentials>) -> anyhow::Result<AgentServiceClient<Channel>> {
    let config = client_config(trust, credentials, Arc::new(SystemClock))?;
    let connector = TlsConnector::from(Arc::new(config));
    let connect = tower::service_fn(move |_: Uri| {
        let connector = connector.clone();
        async move {
            let name = ServerName::try_from(SERVER_NAME).expect("a constant name");
            Ok::<_, std::io::Error>(TokioIo::new(connector.connect(name, TcpStream::connect(LISTEN).await?).await?))
        }
    });
    let endpoint =
        Endpoint::from_static("http://controller.invalid").http2_keep_alive_interval(PING).keep_alive_while_idle(true);
    Ok(AgentServiceClient::new(timeout(PATIENCE, endpoint.connect_with_connector(connect)).await??))
}

/// Waits until that many are attached.
async fn all(attached: &AtomicUsize, count: usize) -> anyhow::Result<()> {
    let began = Instant::now();
    // They notice the end of their stream before the new ones are counted.
    sleep(Duration::from_millis(200)).await;
    while attached.load(Ordering::Relaxed) < count {
        let there = attached.load(Ordering::Relaxed);
        ensure!(began.elapsed() < ALL_MAX, "only {there} of {count} are attached after {ALL_MAX:?}");
        sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}

struct Site {
    state: PathBuf,
}

impl Site {
    fn socket(&self) -> PathBuf {
        self.state.join("operator.sock")
    }

    /// Starts the controller and waits until it answers.
    async fn start(&self) -> anyhow::Result<Program> {
        let program = std::env::current_exe()?;
        let folder = program.parent().and_then(Path::parent).context("an example has a folder")?;
        let log = std::fs::File::options().create(true).append(true).open(self.state.join("controller.log"))?;
        let mut command = Command::new(folder.join("certwright-controller"));
        command.arg("serve").arg("--state").arg(self.state.join("state")).arg("--socket").arg(self.socket());
        command.args(["--listen", LISTEN]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        let mut process = Program(command.spawn()?);
        let began = Instant::now();
        while self.client().whoami(api::WhoamiRequest {}).await.is_err() {
            let log = self.state.join("controller.log");
            ensure!(
                process.0.try_wait()?.is_none() && began.elapsed() < PATIENCE,
                "no controller: see {}",
                log.display()
            );
            sleep(Duration::from_millis(5)).await;
        }
        Ok(process)
    }

    fn client(&self) -> OperatorServiceClient<Channel> {
        let path = self.socket();
        let connect = tower::service_fn(move |_: Uri| {
            let path = path.clone();
            async move { UnixStream::connect(path).await.map(TokioIo::new) }
        });
        let endpoint = Endpoint::from_static("http://controller.invalid");
        OperatorServiceClient::new(endpoint.connect_with_connector_lazy(connect))
    }

    /// Enrols agents `a0` and on.
    async fn enroll(&self, count: usize) -> anyhow::Result<Vec<Arc<Agent>>> {
        let operator = self.client();
        let enrolled = stream::iter(0..count).map(|number| enroll(operator.clone(), format!("a{number}")));
        let mut fleet = Vec::with_capacity(count);
        let mut enrolled = enrolled.buffer_unordered(AT_ONCE);
        while let Some(one) = enrolled.next().await {
            fleet.push(Arc::new(one?));
        }
        Ok(fleet)
    }

    /// Has certificates of a private CA deployed on all agents, renews them all at once, and returns how long after it was
    /// issued each agent had applied its own, ms, sorted.
    async fn deliver(&self, fleet: &[Arc<Agent>], applied: &Applied) -> anyhow::Result<Vec<i64>> {
        let mut operator = self.client();
        let private_ca = Some(api::PrivateCaSpec { names: vec!["*.example.test".to_owned()], ..Default::default() });
        let issuer = api::AddIssuerRequest { name: "corp".to_owned(), private_ca, ..Default::default() };
        operator.add_issuer(issuer).await?;
        let mut names = Vec::new();
        for (number, agents) in fleet.chunks(TARGETS).enumerate() {
            let (name, identifier) = (format!("c{number}"), format!("c{number}.example.test"));
            let endpoint = types::Endpoint {
                address: "127.0.0.1:443".to_owned(),
                server_name: identifier.clone(),
                ..Default::default()
            };
            let target = |one: &Agent| api::TargetSpec {
                agent: one.name.clone(),
                dir: format!("/srv/{name}"),
                verify: vec![endpoint.clone()],
                ..Default::default()
            };
            let (first, others) = agents.split_first().context("a chunk is not empty")?;
            let request = api::CreateCertificateRequest {
                name: name.clone(),
                identifiers: vec![identifier.clone()],
                issuer: "corp".to_owned(),
                custody: types::Custody::Controller.into(),
                target: Some(target(first)),
                ..Default::default()
            };
            operator.create_certificate(request).await?;
            for one in others {
                let target = Some(target(one));
                let request = api::AddTargetRequest { certificate: name.clone(), target, ..Default::default() };
                operator.add_target(request).await?;
            }
            names.push((name, agents.len()));
        }
        self.current(&names, applied, &HashMap::new()).await?;
        eprintln!("{} certificates are applied on {} agents", names.len(), fleet.len());
        let mut before = HashMap::new();
        for (name, _) in &names {
            let certificate = operator.get_certificate(api::GetCertificateRequest { name: name.clone() }).await?;
            before.insert(name.clone(), certificate.into_inner().current.context("it is issued")?.id);
        }
        for (name, _) in &names {
            let request = api::RenewCertificateRequest { name: name.clone(), ..Default::default() };
            operator.renew_certificate(request).await?;
        }
        self.current(&names, applied, &before).await
    }

    /// Waits until another version than before is applied on all agents of each certificate; returns how long each took.
    async fn current(
        &self,
        names: &[(String, usize)],
        applied: &Applied,
        before: &HashMap<String, String>,
    ) -> anyhow::Result<Vec<i64>> {
        let (mut operator, began) = (self.client(), Instant::now());
        let mut took = Vec::new();
        for (name, targets) in names {
            loop {
                ensure!(began.elapsed() < ALL_MAX, "{name} is not applied everywhere after {ALL_MAX:?}");
                let request = api::GetCertificateRequest { name: name.clone() };
                let current = operator.get_certificate(request).await?.into_inner().current;
                let fresh = current.filter(|current| before.get(name) != Some(&current.id));
                let mut each = Vec::new();
                if let Some(fresh) = fresh {
                    let request = api::ListVersionsRequest { certificate: name.clone() };
                    let versions = operator.list_versions(request).await?.into_inner().items;
                    let issued = versions.into_iter().find(|version| version.id == fresh.id);
                    each = applied.after(&fresh.id, issued.context("a version that is current is listed")?.issued_at);
                }
                if each.len() == *targets {
                    took.extend(each);
                    break;
                }
                sleep(Duration::from_millis(50)).await;
            }
        }
        took.sort_unstable();
        Ok(took)
    }

    /// Revokes an agent and returns how long it was until its stream was cut and its next message refused.
    async fn revoke(&self, one: &Agent) -> anyhow::Result<Duration> {
        let mut client = one.connect().await?;
        let (_line, mut hints) = attach(&mut client).await?;
        client.get_desired(agent::GetDesiredRequest::default()).await?;
        let began = Instant::now();
        let request = api::RevokeAgentRequest { name: one.name.clone() };
        let mut operator = self.client();
        let refused = async {
            while let Ok(Ok(Some(_))) = timeout(PATIENCE, hints.message()).await {}
            let answer = client.get_desired(agent::GetDesiredRequest::default()).await;
            ensure!(answer.is_err(), "a revoked agent was answered");
            Ok(began.elapsed())
        };
        let (revoked, took) = tokio::join!(operator.revoke_agent(request), refused);
        revoked?;
        took
    }
}

async fn enroll(mut operator: OperatorServiceClient<Channel>, name: String) -> anyhow::Result<Agent> {
    let request = api::EnrollAgentRequest { name: name.clone(), replace: false };
    let token = JoinToken::parse(&operator.enroll_agent(request).await?.into_inner().token)?;
    let key = KeyPair::generate()?;
    let request = agent::EnrollRequest {
        token: token.secret.expose_secret().to_owned(),
        csr_der: CertificateParams::default().serialize_request(&key)?.der().to_vec(),
        agent_version: env!("CARGO_PKG_VERSION").to_owned(),
        hostname: "fleet".to_owned(),
    };
    let answer = client(Trust::Pin(token.pin), None).await?.enroll(request).await?.into_inner();
    Ok(Agent { name, leaf: answer.leaf_der, roots: answer.ca_der, key: key.serialize_der() })
}

/// A controller that ends with this program, whatever ends it: the next run needs its port.
struct Program(Child);

impl Program {
    fn id(&self) -> u32 {
        self.0.id()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // One that ended already refuses, which is as it should be.
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

/// Sends a signal and waits for the end.
fn end(mut process: Program, signal: &str) -> anyhow::Result<()> {
    ensure!(Command::new("kill").arg(signal).arg(process.id().to_string()).status()?.success());
    process.0.wait()?;
    Ok(())
}

fn memory(id: u32) -> anyhow::Result<u64> {
    status(id, "VmRSS:")
}

fn peak(id: u32) -> anyhow::Result<u64> {
    status(id, "VmHWM:")
}

fn status(id: u32, what: &str) -> anyhow::Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{id}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix(what)).context("the kernel says it")?;
    Ok(line.trim().trim_end_matches(" kB").parse::<u64>()? * 1024)
}

/// Seconds of the processor so far.
fn cpu(id: u32) -> anyhow::Result<f64> {
    let stat = std::fs::read_to_string(format!("/proc/{id}/stat"))?;
    let rest = stat.rsplit_once(") ").context("a name in parentheses")?.1;
    let ticks = rest.split(' ').skip(11).take(2).map(str::parse::<f64>).sum::<Result<f64, _>>()?;
    Ok(ticks / 100.0)
}
