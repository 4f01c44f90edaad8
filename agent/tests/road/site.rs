//! A server in memory: ports are channels, one reload command exists, and a TLS service serves what its files held when
//! it was last reloaded. State, policy and certificate directory are real, below a temporary directory.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use agent::app::{self, ApplyParts, Enrolled, NetParts, Parts};
use agent::host::{CommandExit, CommandOutcome, Connection, Host, Incoming};
use async_trait::async_trait;
use proto::agent::v1 as wire;
use proto::clock::{Clock, SystemClock};
use proto::types::v1 as types;
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use secrecy::SecretString;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use super::controller::Controller;

const CONTROLLER: &str = "controller.test:8443";
const SERVICE: &str = "127.0.0.1:443";
pub(crate) const VALIDATE: [&str; 2] = ["/usr/sbin/nginx", "-t"];
pub(crate) const RELOAD: [&str; 3] = ["/usr/sbin/nginx", "-s", "reload"];

/// The server and what runs on it.
pub(crate) struct Site {
    root: tempfile::TempDir,
    controller: Controller,
    host: Arc<PipeHost>,
    clock: TestClock,
}

/// Goes with the time of tokio, so that a wait for an instant ends also where that time is paused.
#[derive(Clone, Copy, Debug)]
struct TestClock {
    from: jiff::Timestamp,
    since: tokio::time::Instant,
}

impl Clock for TestClock {
    fn now(&self) -> jiff::Timestamp {
        self.from + self.since.elapsed()
    }
}

struct PipeHost {
    root: PathBuf,
    controller: Controller,
    dir: PathBuf,
    ports: Mutex<BTreeMap<u16, mpsc::Sender<DuplexStream>>>,
    service: Mutex<Option<Arc<ServerConfig>>>,
    reloads: Mutex<usize>,
    broken: Mutex<bool>,
    validations: Mutex<usize>,
    away: Mutex<bool>,
    deaf: Mutex<bool>,
    ran: Mutex<Vec<Vec<String>>>,
    mute: Mutex<bool>,
    lost_program: Mutex<Option<&'static str>>,
    ports_taken: Mutex<bool>,
    tasks: Mutex<JoinSet<()>>,
}

impl fmt::Debug for PipeHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PipeHost")
    }
}

/// A running agent.
pub(crate) struct Running {
    stop: CancellationToken,
    tasks: JoinSet<anyhow::Result<()>>,
}

impl Running {
    /// Ends it between two instructions, as `kill -9` does.
    pub(crate) async fn kill(mut self) {
        self.tasks.shutdown().await;
    }

    pub(crate) async fn stop(mut self) -> anyhow::Result<()> {
        // Lets an agent that refuses to start say so first.
        tokio::time::sleep(Duration::from_millis(50)).await;
        self.stop.cancel();
        while let Some(ended) = self.tasks.join_next().await {
            ended.unwrap()?;
        }
        Ok(())
    }
}

impl Site {
    pub(crate) fn new(controller: &Controller) -> Self {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir(root.path().join("ssl")).unwrap();
        std::fs::create_dir(root.path().join("www")).unwrap();
        let clock = TestClock { from: SystemClock.now(), since: tokio::time::Instant::now() };
        let host = PipeHost {
            root: root.path().to_owned(),
            controller: controller.clone(),
            dir: root.path().join("ssl/web"),
            ports: Mutex::new(BTreeMap::new()),
            service: Mutex::new(None),
            reloads: Mutex::new(0),
            broken: Mutex::new(false),
            validations: Mutex::new(0),
            away: Mutex::new(false),
            deaf: Mutex::new(false),
            ran: Mutex::new(Vec::new()),
            mute: Mutex::new(false),
            lost_program: Mutex::new(None),
            ports_taken: Mutex::new(false),
            tasks: Mutex::new(JoinSet::new()),
        };
        let site = Self { root, controller: controller.clone(), host: Arc::new(host), clock };
        let policy = format!(
            "[[dir]]\npath = \"{}\"\n[[command]]\nargv = {RELOAD:?}\n[[command]]\nargv = {VALIDATE:?}\n[http01]\nports = [80]\nwebroots = [\"{}\"]\n",
            site.root.path().join("ssl").display(),
            site.webroot().display()
        );
        std::fs::write(site.policy_path(), policy).unwrap();
        site
    }

    pub(crate) fn dir(&self) -> PathBuf {
        self.host.dir.clone()
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir().join(name)
    }

    pub(crate) fn state(&self) -> PathBuf {
        self.root.path().join("state")
    }

    pub(crate) fn key_uses_path(&self) -> PathBuf {
        self.state().join("key_uses.json")
    }

    pub(crate) fn key_uses(&self) -> Vec<u8> {
        std::fs::read(self.key_uses_path()).unwrap()
    }

    pub(crate) fn webroot(&self) -> PathBuf {
        self.root.path().join("www")
    }

    pub(crate) fn policy_path(&self) -> PathBuf {
        self.root.path().join("policy.toml")
    }

    /// Where everything is.
    pub(crate) fn root(&self) -> &Path {
        self.root.path()
    }

    /// Every command that ran.
    pub(crate) fn ran(&self) -> Vec<Vec<String>> {
        self.host.ran.lock().unwrap().clone()
    }

    /// A program that is no longer on this server.
    pub(crate) fn lose_program(&self, program: &'static str) {
        *self.host.lost_program.lock().unwrap() = Some(program);
    }

    /// Another process has every port.
    pub(crate) fn take_ports(&self) {
        *self.host.ports_taken.lock().unwrap() = true;
    }

    /// Every port that was opened.
    pub(crate) fn ports(&self) -> Vec<u16> {
        self.host.ports.lock().unwrap().keys().copied().collect()
    }

    pub(crate) fn reloads(&self) -> usize {
        *self.host.reloads.lock().unwrap()
    }

    pub(crate) fn validations(&self) -> usize {
        *self.host.validations.lock().unwrap()
    }

    pub(crate) fn ignore_reloads(&self) {
        *self.host.deaf.lock().unwrap() = true;
    }

    /// From the next start on, as on a server whose kernel has no watch left.
    pub(crate) fn tell_no_changes(&self) {
        *self.host.mute.lock().unwrap() = true;
    }

    pub(crate) fn heed_reloads(&self) {
        *self.host.deaf.lock().unwrap() = false;
    }

    /// SHA-256 of the leaf in the files; empty when there is none.
    pub(crate) fn leaf(&self) -> Vec<u8> {
        let leaf = CertificateDer::from_pem_file(self.dir().join("fullchain.pem"));
        leaf.map(|leaf| proto::x509::fingerprint(&leaf).to_vec()).unwrap_or_default()
    }

    /// Whether the service's configuration is broken: tests and reloads of it fail.
    pub(crate) fn set_broken(&self, broken: bool) {
        *self.host.broken.lock().unwrap() = broken;
    }

    /// Whether the controller can be reached.
    pub(crate) fn set_away(&self, away: bool) {
        *self.host.away.lock().unwrap() = away;
    }

    pub(crate) fn serve_nothing(&self) {
        *self.host.service.lock().unwrap() = None;
    }

    pub(crate) async fn enroll(&self) -> anyhow::Result<Enrolled> {
        self.enroll_with(&self.controller.token()).await
    }

    pub(crate) async fn enroll_with(&self, token: &SecretString) -> anyhow::Result<Enrolled> {
        app::enroll(&self.parts(), CONTROLLER, token).await
    }

    pub(crate) fn start(&self) -> Running {
        let stop = CancellationToken::new();
        let mut tasks = JoinSet::new();
        tasks.spawn(app::run(self.parts(), stop.clone()));
        Running { stop, tasks }
    }

    /// Starts the two halves, with a socket between them and a directory each.
    pub(crate) fn start_halves(&self) -> Running {
        let stop = CancellationToken::new();
        let mut tasks = JoinSet::new();
        let apply = ApplyParts {
            host: Arc::<PipeHost>::clone(&self.host),
            state_dir: self.apply_state(),
            policy_path: self.policy_path(),
            socket: self.root.path().join("apply.sock"),
            net_user: None,
        };
        let net = NetParts {
            clock: Arc::new(SystemClock),
            host: Arc::<PipeHost>::clone(&self.host),
            state_dir: self.state(),
            socket: apply.socket.clone(),
        };
        tasks.spawn(app::run_apply(apply, stop.clone()));
        tasks.spawn(app::run_net(net, stop.clone()));
        Running { stop, tasks }
    }

    /// Where the half with the keys keeps them, if it is one of its own.
    pub(crate) fn apply_state(&self) -> PathBuf {
        self.root.path().join("apply")
    }

    fn parts(&self) -> Parts {
        Parts {
            clock: Arc::new(self.clock),
            host: Arc::<PipeHost>::clone(&self.host),
            state_dir: self.state(),
            policy_path: self.policy_path(),
        }
    }

    /// Asks a port as a CA would.
    pub(crate) async fn get(&self, port: u16, host: &str, path: &str) -> io::Result<String> {
        let listener = self.host.ports.lock().unwrap().get(&port).cloned();
        let listener = listener.ok_or(io::ErrorKind::ConnectionRefused)?;
        let (mut client, server) = duplex(4096);
        listener.send(server).await.map_err(io::Error::other)?;
        client.write_all(format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n").as_bytes()).await?;
        let mut answer = String::new();
        client.read_to_string(&mut answer).await?;
        Ok(answer)
    }

    pub(crate) fn target(&self, version: &str, fingerprint: &[u8]) -> wire::DesiredTarget {
        let file = |content: types::FileContent, name: &str, mode| types::FileSpec {
            content: content.into(),
            name: name.to_owned(),
            owner: String::new(),
            mode,
        };
        wire::DesiredTarget {
            target_id: "target-1".into(),
            certificate_name: "web".into(),
            identifiers: vec![super::NAME.to_owned()],
            version_id: version.to_owned(),
            fingerprint_sha256: fingerprint.to_vec(),
            custody: types::Custody::Agent.into(),
            key_slot_id: "slot-1".into(),
            dir: self.dir().to_str().unwrap().to_owned(),
            files: vec![
                file(types::FileContent::Fullchain, "fullchain.pem", 0o644),
                file(types::FileContent::Key, "key.pem", 0o600),
            ],
            reload: vec![types::Command { argv: RELOAD.map(str::to_owned).to_vec() }],
            verify: vec![types::Endpoint { address: SERVICE.to_owned(), server_name: String::new(), protocol: 0 }],
            deploy_wish: 0,
            purge: false,
            hold: false,
            rollback: false,
            on_drift: 0,
            validate: vec![],
            requires: vec![],
        }
    }
}

impl PipeHost {
    /// Reads the files as a server does at reload.
    fn reload(&self) -> Result<(), Box<dyn std::error::Error>> {
        let chain = CertificateDer::pem_file_iter(self.dir.join("fullchain.pem"))?.collect::<Result<Vec<_>, _>>()?;
        let key = PrivateKeyDer::from_pem_file(self.dir.join("key.pem"))?;
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(chain, key)?;
        *self.service.lock().unwrap() = Some(Arc::new(config));
        Ok(())
    }
}

#[async_trait]
impl Host for PipeHost {
    /// Nothing of the real machine is looked at.
    fn root(&self) -> PathBuf {
        self.root.clone()
    }

    async fn connect(&self, address: &str) -> io::Result<Box<dyn Connection>> {
        let (client, server) = duplex(64 * 1024);
        match address {
            CONTROLLER if *self.away.lock().unwrap() => return Err(io::ErrorKind::ConnectionRefused.into()),
            CONTROLLER => {
                self.tasks.lock().unwrap().spawn(self.controller.clone().serve(server));
            }
            SERVICE => {
                let config = self.service.lock().unwrap().clone().ok_or(io::ErrorKind::ConnectionRefused)?;
                self.tasks.lock().unwrap().spawn(async move { drop(TlsAcceptor::from(config).accept(server).await) });
            }
            _ => return Err(io::ErrorKind::HostUnreachable.into()),
        }
        Ok(Box::new(client))
    }

    async fn bind(&self, port: u16) -> io::Result<Box<dyn Incoming>> {
        if *self.ports_taken.lock().unwrap() {
            return Err(io::ErrorKind::AddrInUse.into());
        }
        let (listener, incoming) = mpsc::channel(8);
        self.ports.lock().unwrap().insert(port, listener);
        Ok(Box::new(Pipes(incoming)))
    }

    async fn run(&self, argv: &[String], _timeout: Duration) -> CommandOutcome {
        self.ran.lock().unwrap().push(argv.to_vec());
        if argv == VALIDATE {
            *self.validations.lock().unwrap() += 1;
            let invalid = *self.broken.lock().unwrap();
            let (status, output) = if invalid { (1, "broken configuration") } else { (0, "") };
            let exit = CommandExit::Status(status);
            return CommandOutcome { exit, output: output.to_owned(), took: Duration::from_millis(1) };
        }
        assert_eq!(argv, RELOAD);
        *self.reloads.lock().unwrap() += 1;
        let reloaded = match (*self.broken.lock().unwrap(), *self.deaf.lock().unwrap()) {
            (true, _) => Err("broken configuration".into()),
            (false, true) => Ok(()),
            (false, false) => self.reload(),
        };
        let (status, output) = reloaded.map_or_else(|error| (1, error.to_string()), |()| (0, String::new()));
        CommandOutcome { exit: CommandExit::Status(status), output, took: Duration::from_millis(1) }
    }

    async fn listeners(&self, _port: u16) -> Vec<u64> {
        Vec::new()
    }

    async fn socket_holder(&self, _sockets: Vec<u64>) -> Option<String> {
        self.ports_taken.lock().unwrap().then(|| "nginx (pid 812)".to_owned())
    }

    async fn cannot_run(&self, program: &str) -> Option<String> {
        let is_lost = *self.lost_program.lock().unwrap() == Some(program);
        is_lost.then(|| "No such file or directory (os error 2)".to_owned())
    }

    fn tells_changes(&self) -> bool {
        !*self.mute.lock().unwrap()
    }
}

struct Pipes(mpsc::Receiver<DuplexStream>);

#[async_trait]
impl Incoming for Pipes {
    async fn accept(&mut self) -> io::Result<Box<dyn Connection>> {
        match self.0.recv().await {
            Some(stream) => Ok(Box::new(stream)),
            None => std::future::pending().await,
        }
    }
}
