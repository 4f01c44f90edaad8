//! Hosts for the real tests, the demo and the bench: network and mount namespaces on one switch, each held open by a
//! sleeping process. Touches nothing outside its namespaces and its temporary folder. Needs root, or the user namespace
//! that `scripts/test` makes. Every process it starts gets SIGTERM when the thread that started it ends.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::io::AsyncWriteExt;
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep, timeout};

pub mod machine;
#[cfg(target_arch = "x86_64")]
pub mod tracer;

/// Longest run of a command that is expected to end by itself.
const RUN_TIME_MAX: Duration = Duration::from_secs(120);
/// Longest wait for a process to end after SIGTERM.
const STOP_TIME_MAX: Duration = Duration::from_secs(15);
/// Pause between two looks at something that is awaited.
const POLL_PAUSE: Duration = Duration::from_millis(20);

/// A switch and a temporary folder; hosts are plugged into it.
#[derive(Debug)]
pub struct Lab {
    folder: tempfile::TempDir,
    switch: Process,
}

/// One host: its own network and mounts, the machine's file system otherwise.
#[derive(Debug)]
pub struct Host {
    /// Name, for logs and its folder.
    pub name: String,
    /// Its address on the switch.
    pub address: Ipv4Addr,
    /// A folder of its own, the same path seen from everywhere.
    pub folder: PathBuf,
    holder: Process,
}

/// A process that runs until it is stopped.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    /// Where its output goes.
    pub log: PathBuf,
}

/// What a command that has ended left behind.
#[derive(Debug, Clone)]
pub struct Ran {
    /// The command, for messages.
    pub command: String,
    /// Exit status; `None` when a signal ended it.
    pub status: Option<i32>,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl Lab {
    /// Makes the folder and the switch.
    pub async fn new() -> anyhow::Result<Self> {
        let folder = tempfile::Builder::new().prefix("certwright-lab-").tempdir()?;
        let switch = hold("switch", folder.path()).await?;
        let lab = Self { folder, switch };
        lab.on_switch(&["ip", "link", "add", "br0", "type", "bridge", "stp_state", "0", "forward_delay", "0"]).await?;
        lab.on_switch(&["ip", "link", "set", "br0", "up"]).await?;
        Ok(lab)
    }

    /// Returns the folder in which everything of this lab lies.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Plugs in a host with the address 10.97.0.`number`.
    pub async fn host(&self, name: &str, number: u8) -> anyhow::Result<Host> {
        let folder = self.folder().join(name);
        std::fs::create_dir_all(&folder)?;
        let holder = hold(name, &folder).await?;
        let (cable, space) = (format!("v{number}"), holder.id()?.to_string());
        let peer = ["peer", "name", "eth0", "netns", &space];
        self.on_switch(&[["ip", "link", "add", &cable, "type", "veth"].as_slice(), &peer].concat()).await?;
        self.on_switch(&["ip", "link", "set", &cable, "master", "br0", "up"]).await?;
        let address = Ipv4Addr::new(10, 97, 0, number);
        let host = Host { name: name.to_owned(), address, folder, holder };
        host.ok(&["ip", "addr", "add", &format!("{address}/24"), "dev", "eth0"]).await?;
        host.ok(&["ip", "link", "set", "eth0", "up"]).await?;
        host.ok(&["ip", "link", "set", "lo", "up"]).await?;
        Ok(host)
    }

    /// Pulls a host's cable, or puts it back.
    pub async fn cable(&self, host: &Host, plugged: bool) -> anyhow::Result<()> {
        let [.., number] = host.address.octets();
        self.on_switch(&["ip", "link", "set", &format!("v{number}"), if plugged { "up" } else { "down" }]).await
    }

    async fn on_switch(&self, argv: &[&str]) -> anyhow::Result<()> {
        run(inside(self.switch.id()?, argv), "", argv).await?.expect_ok().map(drop)
    }
}

impl Host {
    /// Runs a command to its end, whatever its end.
    pub async fn run(&self, argv: &[&str]) -> anyhow::Result<Ran> {
        self.run_with(argv, "").await
    }

    /// Runs a command to its end with `input` as its standard input.
    pub async fn run_with(&self, argv: &[&str], input: &str) -> anyhow::Result<Ran> {
        run(inside(self.holder.id()?, argv), input, argv).await
    }

    /// Runs a command that must succeed; returns its standard output.
    pub async fn ok(&self, argv: &[&str]) -> anyhow::Result<String> {
        self.run(argv).await?.expect_ok()
    }

    /// Starts a command that keeps running; its output goes to `NAME.log` in the host's folder.
    pub fn start(&self, name: &str, argv: &[&str], environment: &[(&str, &str)]) -> anyhow::Result<Process> {
        let mut command = inside(self.holder.id()?, argv);
        command.envs(environment.iter().copied());
        Process::start(&format!("{}:{name}", self.name), command, self.folder.join(format!("{name}.log")))
    }

    /// Returns a command that runs inside this host, for a caller that wants the terminal.
    pub fn command(&self, argv: &[&str]) -> anyhow::Result<Command> {
        Ok(inside(self.holder.id()?, argv))
    }

    /// Lays an empty file system of its own over a folder, `size` as mount(8) spells it.
    pub async fn own_folder(&self, path: &str, size: &str) -> anyhow::Result<()> {
        let options = format!("mode=0755,size={size}");
        self.ok(&["mount", "-t", "tmpfs", "-o", &options, "tmpfs", path]).await.map(drop)
    }

    /// Reads a file as this host sees it.
    pub async fn read(&self, path: &str) -> anyhow::Result<String> {
        self.ok(&["cat", path]).await
    }

    /// Writes a file as this host sees it, with its folders.
    pub async fn write(&self, path: &str, text: &str) -> anyhow::Result<()> {
        let folder = Path::new(path).parent().context("a path has a parent")?.to_string_lossy().into_owned();
        self.ok(&["mkdir", "-p", &folder]).await?;
        self.run_with(&["dd", "status=none", &format!("of={path}")], text).await?.expect_ok().map(drop)
    }
}

impl Process {
    fn start(name: &str, mut command: Command, log: PathBuf) -> anyhow::Result<Self> {
        let output = std::fs::File::options().create(true).append(true).open(&log)?;
        command.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output);
        let child = command.spawn().with_context(|| format!("start {name}"))?;
        Ok(Self { name: name.to_owned(), child, log })
    }

    /// Returns the process id.
    pub fn id(&self) -> anyhow::Result<u32> {
        self.child.id().with_context(|| format!("{} has ended:\n{}", self.name, self.output()))
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        Ok(kill(Pid::from_raw(i32::try_from(self.id()?)?), signal)?)
    }

    /// Asks it to end and waits; a process that does not obey is an error.
    pub async fn stop(mut self) -> anyhow::Result<()> {
        self.signal(Signal::SIGTERM)?;
        let ended = timeout(STOP_TIME_MAX, self.child.wait()).await;
        ended.with_context(|| format!("{} ignores SIGTERM:\n{}", self.name, self.output()))??;
        Ok(())
    }

    /// Kills it at once, as a power cut would.
    pub async fn kill(mut self) -> anyhow::Result<()> {
        self.child.kill().await.with_context(|| format!("kill {}", self.name))
    }

    /// Waits for it to end by itself; returns its exit status.
    pub async fn ended(&mut self, within: Duration) -> anyhow::Result<Option<i32>> {
        let status =
            timeout(within, self.child.wait()).await.with_context(|| format!("{} still runs", self.name))??;
        Ok(status.code())
    }

    /// Tells whether it still runs.
    pub fn runs(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Returns what it has printed so far.
    #[must_use]
    pub fn output(&self) -> String {
        std::fs::read(&self.log).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Some(id) = self.child.id().and_then(|id| i32::try_from(id).ok()) {
            // It may have ended meanwhile: then there is nothing left to stop.
            kill(Pid::from_raw(id), Signal::SIGTERM).ok();
        }
    }
}

impl Ran {
    /// Returns the standard output if the command succeeded, else an error with all it said.
    pub fn expect_ok(self) -> anyhow::Result<String> {
        ensure!(self.status == Some(0), "{self}");
        Ok(self.stdout)
    }

    /// Returns everything it printed.
    #[must_use]
    pub fn text(&self) -> String {
        format!("{}{}", self.stdout, self.stderr)
    }
}

impl std::fmt::Display for Ran {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let status = self.status.map_or_else(|| "a signal".to_owned(), |status| format!("status {status}"));
        write!(f, "`{}` ended with {status}\n{}{}", self.command, self.stdout, self.stderr)
    }
}

/// Waits until `look` returns something; fails with `what` after `within`.
pub async fn eventually<T>(
    what: &str,
    within: Duration,
    mut look: impl AsyncFnMut() -> anyhow::Result<Option<T>>,
) -> anyhow::Result<T> {
    let deadline = Instant::now() + within;
    loop {
        let seen = look().await;
        match seen {
            Ok(Some(value)) => return Ok(value),
            Ok(None) if Instant::now() >= deadline => bail!("waited {within:?} for {what}"),
            Err(error) if Instant::now() >= deadline => return Err(error.context(format!("waited for {what}"))),
            _ => sleep(POLL_PAUSE).await,
        }
    }
}

/// Returns the path of one of the programs under test, as cargo built it beside this test.
pub fn program(name: &str) -> anyhow::Result<String> {
    let here = std::env::current_exe()?;
    let built = here.parent().and_then(Path::parent).context("cargo puts a test two folders below the target")?;
    let path = built.join(name);
    ensure!(path.exists(), "{} is missing: cargo build --workspace --bins", path.display());
    Ok(path.to_string_lossy().into_owned())
}

/// Starts a process that only holds fresh namespaces open.
async fn hold(name: &str, folder: &Path) -> anyhow::Result<Process> {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "TERM", "--", "unshare", "--net", "--mount", "--propagation", "private", "--"]);
    command.args(["sleep", "infinity"]);
    let holder = Process::start(name, command, folder.join(format!("{name}.hold.log")))?;
    let status = format!("/proc/{}/comm", holder.id()?);
    eventually("a host's namespaces (are you root?)", Duration::from_secs(5), async || {
        holder.id()?;
        Ok((std::fs::read_to_string(&status)?.trim() == "sleep").then_some(()))
    })
    .await?;
    Ok(holder)
}

/// A command in another process's namespaces that ends with the thread that starts it.
fn inside(holder: u32, argv: &[&str]) -> Command {
    let mut command = Command::new("nsenter");
    command.args(["--target", &holder.to_string(), "--net", "--mount", "--", "setpriv", "--pdeathsig", "TERM", "--"]);
    command.args(argv).kill_on_drop(false);
    command
}

async fn run(mut command: Command, input: &str, argv: &[&str]) -> anyhow::Result<Ran> {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    let name = argv.iter().map(|word| word.rsplit('/').next().unwrap_or(word)).collect::<Vec<_>>().join(" ");
    let mut child = command.spawn().with_context(|| format!("start `{name}`"))?;
    let mut stdin = child.stdin.take().context("standard input was asked for")?;
    // A command that does not read its input closes it early: that is its right.
    stdin.write_all(input.as_bytes()).await.ok();
    drop(stdin);
    let output = timeout(RUN_TIME_MAX, child.wait_with_output()).await;
    let output = output.with_context(|| format!("`{name}` still runs after {RUN_TIME_MAX:?}"))??;
    Ok(Ran {
        command: name,
        status: output.status.code(),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    })
}
