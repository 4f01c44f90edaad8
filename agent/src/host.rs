//! The outside of the agent: connections, listeners, commands. Two implementations: `RealHost` here, and the fake host
//! of e2e. Decides nothing and retries nothing; `net` and `apply::command` call it.

use std::fmt::Debug;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncWrite};

mod command;
mod port;
mod socket;
mod unit;

/// A byte stream to a peer.
pub trait Connection: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Connection for T {}

/// A listening port; dropping it closes the port.
#[async_trait]
pub trait Incoming: Send {
    /// Returns the next connection.
    ///
    /// # Errors
    /// When the kernel gives none, for example because no descriptor is left.
    async fn accept(&mut self) -> io::Result<Box<dyn Connection>>;
}

/// What the agent may do outside of its own process.
#[async_trait]
pub trait Host: Send + Sync + Debug {
    /// Connects to `HOST:PORT`. The caller sets the time limit.
    ///
    /// # Errors
    /// When the name does not resolve or the peer refuses.
    async fn connect(&self, address: &str) -> io::Result<Box<dyn Connection>>;

    /// Listens on a TCP port, IPv6 and IPv4.
    ///
    /// # Errors
    /// When the port is taken or not allowed.
    async fn bind(&self, port: u16) -> io::Result<Box<dyn Incoming>>;

    /// Runs an exact argv: no shell, own process group, empty environment, no stdin, output capped, killed at `timeout`.
    async fn run(&self, argv: &[String], timeout: Duration) -> CommandOutcome;

    /// Returns why a program cannot be started, without starting it; `None` when nothing speaks against it.
    async fn cannot_run(&self, _program: &str) -> Option<String> {
        None
    }

    /// Runs a program that prints its configuration: as [`Self::run`] does, with a larger cap.
    async fn dump(&self, argv: &[String], timeout: Duration) -> CommandOutcome {
        self.run(argv, timeout).await
    }

    /// Where the files of this server begin: elsewhere than at `/` only where the server is made up.
    fn root(&self) -> PathBuf {
        PathBuf::from("/")
    }

    /// Returns the sockets that listen on a port, by the kernel's numbers. Needs no privilege.
    async fn listeners(&self, port: u16) -> Vec<u64>;

    /// Returns who holds one of these sockets, as "nginx (pid 812)". Needs to look into other users' processes.
    async fn socket_holder(&self, sockets: Vec<u64>) -> Option<String>;

    /// Whether changes of files are told by the kernel. Not where the clock is simulated: what comes at a real instant is never
    /// the same twice.
    fn tells_changes(&self) -> bool {
        true
    }
}

/// How a command ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum CommandExit {
    /// It returned this status.
    Status(i32),
    /// A signal killed it.
    Signal(i32),
    /// It was killed, with its process group, at the time limit.
    TimedOut,
    /// It could not be started, for this reason.
    NotStarted(String),
}

/// What a command did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommandOutcome {
    /// How it ended.
    pub exit: CommandExit,
    /// What it wrote to stdout and stderr, raw, at most 64 KiB.
    pub output: String,
    /// How long it ran.
    pub took: Duration,
}

/// The machine the agent runs on.
#[derive(Debug, Default, Clone, Copy)]
pub struct RealHost {
    /// Commands run as transient units of systemd, outside of the sandbox of this process.
    pub units: bool,
}

#[async_trait]
impl Host for RealHost {
    async fn connect(&self, address: &str) -> io::Result<Box<dyn Connection>> {
        socket::connect(address).await
    }

    async fn bind(&self, port: u16) -> io::Result<Box<dyn Incoming>> {
        socket::bind(port)
    }

    async fn run(&self, argv: &[String], timeout: Duration) -> CommandOutcome {
        if self.units { unit::run(argv, timeout).await } else { command::run(argv, timeout).await }
    }

    async fn cannot_run(&self, program: &str) -> Option<String> {
        let program = program.to_owned();
        let looked = tokio::task::spawn_blocking(move || command::cannot_run(&program)).await;
        looked.unwrap_or_else(|error| Some(error.to_string()))
    }

    async fn dump(&self, argv: &[String], timeout: Duration) -> CommandOutcome {
        if self.units { unit::dump(argv, timeout).await } else { command::dump(argv, timeout).await }
    }

    async fn listeners(&self, port: u16) -> Vec<u64> {
        tokio::task::spawn_blocking(move || port::listeners(port)).await.unwrap_or_default()
    }

    async fn socket_holder(&self, sockets: Vec<u64>) -> Option<String> {
        tokio::task::spawn_blocking(move || port::holder(&sockets)).await.ok().flatten()
    }
}
