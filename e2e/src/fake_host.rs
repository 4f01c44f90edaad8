//! A server of the simulation: an address, a folder as its file system, a TLS service that reads its PEM pairs when it is
//! told to reload, and the commands that exist there. It outlives the agent on it. Commands do only what a test scripted;
//! nothing of the real machine is run or bound.

pub mod service;
mod web;

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use agent::host::{CommandExit, CommandOutcome, Connection, Host, Incoming};
use async_trait::async_trait;
use tempfile::TempDir;
use tokio::task::JoinSet;

use self::service::TlsService;
use crate::fake_dns::FakeDns;
use crate::power::{PowerSwitch, Step, disk};
use crate::sim_net::{Listener, SimNet};

/// How long a command takes.
const COMMAND_TIME: Duration = Duration::from_millis(30);

/// What a scripted command does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Script {
    /// Makes the TLS service read its files again; exit status 1 when they do not fit.
    Reload,
    /// Says it did, and does nothing: the old certificate stays.
    ReloadInVain,
    /// Ends with this status and output.
    Exit(i32, &'static str),
    /// Never ends by itself.
    Hang,
}

/// One server. Clones share it.
#[derive(Clone)]
pub struct Machine(Arc<Inner>);

struct Inner {
    name: String,
    address: IpAddr,
    folder: TempDir,
    net: SimNet,
    dns: FakeDns,
    service: TlsService,
    commands: Mutex<Vec<(Vec<String>, Script)>>,
    ran: Mutex<Vec<Vec<String>>>,
    web: Mutex<JoinSet<()>>,
}

impl fmt::Debug for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Machine({})", self.0.name)
    }
}

impl Machine {
    /// A server with an empty disk; its name resolves to its address.
    #[must_use]
    pub fn new(name: &str, address: IpAddr, net: &SimNet, dns: &FakeDns) -> Self {
        dns.set(name, &[address]);
        Self(Arc::new(Inner {
            name: name.to_owned(),
            address,
            folder: disk::folder(&format!("certwright-sim-{name}-")),
            net: net.clone(),
            dns: dns.clone(),
            service: TlsService::new(),
            commands: Mutex::default(),
            ran: Mutex::default(),
            web: Mutex::default(),
        }))
    }

    /// Returns the server's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// Returns the server's address.
    #[must_use]
    pub fn address(&self) -> IpAddr {
        self.0.address
    }

    /// Cuts the server off the network, or connects it again.
    pub fn set_cut_off(&self, cut_off: bool) {
        self.0.net.cable(self.0.address).set_cut(cut_off);
    }

    /// Returns the path of a file or folder on the server: `path` is relative to its root.
    #[must_use]
    pub fn path(&self, path: &str) -> PathBuf {
        self.0.folder.path().join(path)
    }

    /// Returns the server's root folder.
    #[must_use]
    pub fn root(&self) -> &Path {
        self.0.folder.path()
    }

    /// Returns the TLS service.
    #[must_use]
    pub fn service(&self) -> &TlsService {
        &self.0.service
    }

    /// Starts the TLS service on a port, under its own power.
    ///
    /// # Errors
    /// When the port is taken.
    pub fn start_service(&self, port: u16) -> io::Result<()> {
        let address = SocketAddr::new(self.0.address, port);
        self.0.service.start(self.0.net.bind(address, "nginx (pid 812)", &PowerSwitch::new())?, false);
        Ok(())
    }

    /// Starts a mail server with the certificates of the TLS service: they are shown behind STARTTLS.
    ///
    /// # Errors
    /// When the port is taken.
    pub fn start_mail(&self, port: u16) -> io::Result<()> {
        self.0.service.start(self.occupy(port, "master (pid 813)")?, true);
        Ok(())
    }

    /// Starts a web server on port 80 for a folder of the machine.
    ///
    /// # Errors
    /// When the port is taken.
    pub fn start_web(&self, folder: &str) -> io::Result<()> {
        let listener = self.occupy(80, "nginx (pid 812)")?;
        let mut web = self.0.web.lock().unwrap_or_else(PoisonError::into_inner);
        web.spawn(web::serve(listener, self.path(folder)));
        Ok(())
    }

    /// Binds a port for a program that is not ours.
    ///
    /// # Errors
    /// When the port is taken.
    pub fn occupy(&self, port: u16, holder: &str) -> io::Result<Listener> {
        self.0.net.bind(SocketAddr::new(self.0.address, port), holder, &PowerSwitch::new())
    }

    /// Makes a command exist, or changes what it does.
    pub fn script(&self, argv: &[&str], script: Script) {
        let argv: Vec<_> = argv.iter().map(|word| (*word).to_owned()).collect();
        let mut commands = self.0.commands.lock().unwrap_or_else(PoisonError::into_inner);
        commands.retain(|(known, _)| *known != argv);
        commands.push((argv, script));
    }

    /// Returns every command run so far.
    #[must_use]
    pub fn ran(&self) -> Vec<Vec<String>> {
        self.0.ran.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Makes the TLS service read its files, as an administrator would.
    ///
    /// # Errors
    /// When a pair does not fit.
    pub fn reload(&self) -> Result<(), String> {
        self.0.service.reload()
    }

    /// Returns the server as one life of an agent sees it.
    #[must_use]
    pub fn host(&self, switch: PowerSwitch) -> Arc<dyn Host> {
        Arc::new(SimHost { machine: self.clone(), switch })
    }

    fn resolve(&self, address: &str) -> io::Result<SocketAddr> {
        let (host, port) = address.rsplit_once(':').ok_or(io::ErrorKind::InvalidInput)?;
        let port = port.parse::<u16>().map_err(io::Error::other)?;
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let ip = match host.parse::<IpAddr>() {
            Ok(ip) if ip.is_loopback() => self.0.address,
            Ok(ip) => ip,
            Err(_) if host == "localhost" => self.0.address,
            Err(_) => self.0.dns.resolve(host).map_err(|error| io::Error::other(error.to_string()))?[0],
        };
        Ok(SocketAddr::new(ip, port))
    }

    async fn execute(&self, argv: &[String], limit: Duration) -> CommandExitAndOutput {
        self.0.ran.lock().unwrap_or_else(PoisonError::into_inner).push(argv.to_vec());
        let script = {
            let commands = self.0.commands.lock().unwrap_or_else(PoisonError::into_inner);
            commands.iter().find(|(known, _)| known == argv).map(|(_, script)| script.clone())
        };
        if script == Some(Script::Hang) {
            tokio::time::sleep(limit).await;
            return (CommandExit::TimedOut, String::new());
        }
        tokio::time::sleep(COMMAND_TIME).await;
        match script {
            None => (CommandExit::NotStarted("No such file or directory (os error 2)".to_owned()), String::new()),
            Some(Script::Exit(status, output)) => (CommandExit::Status(status), output.to_owned()),
            Some(Script::Reload) => match self.0.service.reload() {
                Ok(()) => (CommandExit::Status(0), String::new()),
                Err(error) => (CommandExit::Status(1), format!("nginx: [emerg] {error}\n")),
            },
            Some(Script::ReloadInVain | Script::Hang) => (CommandExit::Status(0), String::new()),
        }
    }
}

type CommandExitAndOutput = (CommandExit, String);

/// The server under one life of an agent: every deed is counted and ends with that life.
#[derive(Debug)]
struct SimHost {
    machine: Machine,
    switch: PowerSwitch,
}

#[async_trait]
impl Host for SimHost {
    async fn connect(&self, address: &str) -> io::Result<Box<dyn Connection>> {
        let deed = async {
            let address = self.machine.resolve(address)?;
            let pipe = self.machine.0.net.connect(self.machine.0.address, address, &self.switch).await?;
            Ok(Box::new(pipe) as Box<dyn Connection>)
        };
        self.switch.deed(Step::HostCall, Step::HostReturn, deed).await
    }

    async fn bind(&self, port: u16) -> io::Result<Box<dyn Incoming>> {
        let address = SocketAddr::new(self.machine.0.address, port);
        let deed = async {
            let listener = self.machine.0.net.bind(address, "certwright-agent (pid 900)", &self.switch)?;
            Ok(Box::new(SimIncoming { listener, switch: self.switch.clone() }) as Box<dyn Incoming>)
        };
        self.switch.deed(Step::HostCall, Step::HostReturn, deed).await
    }

    async fn run(&self, argv: &[String], timeout: Duration) -> CommandOutcome {
        let start = tokio::time::Instant::now();
        let deed = self.machine.execute(argv, timeout);
        let (exit, output) = self.switch.deed(Step::HostCall, Step::HostReturn, deed).await;
        CommandOutcome { exit, output, took: start.elapsed() }
    }

    async fn cannot_run(&self, program: &str) -> Option<String> {
        let commands = self.machine.0.commands.lock().unwrap_or_else(PoisonError::into_inner);
        let is_there = commands.iter().any(|(known, _)| known.first().is_some_and(|first| first == program));
        (!is_there).then(|| "No such file or directory (os error 2)".to_owned())
    }

    /// Nothing of the real machine is looked at.
    fn root(&self) -> PathBuf {
        self.machine.root().to_owned()
    }

    /// What the kernel tells comes at a real instant, and a thousand agents of one process have no watch each.
    fn tells_changes(&self) -> bool {
        false
    }

    async fn listeners(&self, port: u16) -> Vec<u64> {
        vec![port.into()]
    }

    async fn socket_holder(&self, sockets: Vec<u64>) -> Option<String> {
        let port = sockets.first().and_then(|socket| u16::try_from(*socket).ok())?;
        self.machine.0.net.holder(SocketAddr::new(self.machine.0.address, port))
    }
}

struct SimIncoming {
    listener: Listener,
    switch: PowerSwitch,
}

#[async_trait]
impl Incoming for SimIncoming {
    async fn accept(&mut self) -> io::Result<Box<dyn Connection>> {
        match self.switch.run(self.listener.accept()).await {
            Some(pipe) => Ok(Box::new(pipe)),
            None => Err(io::ErrorKind::BrokenPipe.into()),
        }
    }
}

#[cfg(test)]
mod tests;
