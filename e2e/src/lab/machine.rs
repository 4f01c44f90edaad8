//! A machine with a systemd of its own, for what packages do: a Debian image started by systemd-nspawn on a host's network.
//! Needs real root. Its whole file system lies in the host's folder and goes with it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, ensure};
use tokio::process::Command;

use super::{Host, Process, Ran, eventually, run};

/// Longest wait for systemd to say that it has started everything.
const BOOT_TIME_MAX: Duration = Duration::from_secs(60);

/// How systemd-nspawn says that the machine is to be started anew.
const WANTS_REBOOT: i32 = 133;

/// The running machine. What is plugged into the network is `host`; what runs on it is inside.
#[derive(Debug)]
pub struct Machine {
    /// Its place on the switch.
    pub host: Host,
    root: PathBuf,
    nspawn: Process,
}

impl Machine {
    /// Unpacks `image` (a tar file that `scripts/test` makes) and boots it.
    pub async fn boot(host: Host, image: &Path) -> anyhow::Result<Self> {
        let root = host.folder.join("root");
        std::fs::create_dir(&root)?;
        let image = image.to_string_lossy().into_owned();
        host.ok(&["tar", "--numeric-owner", "-C", &root.to_string_lossy(), "-xf", &image]).await?;
        std::fs::write(root.join("etc/hostname"), format!("{}\n", host.name))?;
        // Each machine gets its own at its first start.
        std::fs::write(root.join("etc/machine-id"), "")?;
        let nspawn = start(&host, &root)?;
        let mut machine = Self { host, root, nspawn };
        machine.is_up().await?;
        Ok(machine)
    }

    /// Waits until everything that starts at boot has started.
    async fn is_up(&mut self) -> anyhow::Result<()> {
        eventually("the machine to boot", BOOT_TIME_MAX, async || {
            ensure!(self.nspawn.runs(), "systemd-nspawn ended:\n{}", self.nspawn.output());
            let asked = self.run(&["systemctl", "is-system-running"]).await?;
            ensure!(asked.stdout.trim() == "running", "{asked}{}", self.nspawn.output());
            Ok(Some(()))
        })
        .await
    }

    /// Reboots it as its administrator would, and waits until it is up again.
    pub async fn reboot(&mut self) -> anyhow::Result<()> {
        // The answer may be lost with the machine.
        self.run(&["systemctl", "reboot"]).await?;
        let status = self.nspawn.ended(BOOT_TIME_MAX).await?;
        ensure!(status == Some(WANTS_REBOOT), "it ended with {status:?}:\n{}", self.nspawn.output());
        self.nspawn = start(&self.host, &self.root)?;
        self.is_up().await
    }

    /// The machine's first process, as the host sees it.
    async fn first_process(&self) -> anyhow::Result<u32> {
        let path = format!("/proc/{0}/task/{0}/children", self.nspawn.id()?);
        let children = tokio::fs::read_to_string(path).await?;
        let first = children.split_whitespace().next().context("it does not run just now")?;
        Ok(first.parse()?)
    }

    /// Runs a command inside, to its end, whatever its end.
    pub async fn run(&self, argv: &[&str]) -> anyhow::Result<Ran> {
        self.run_with(argv, "").await
    }

    /// Runs a command inside with `input` as its standard input.
    pub async fn run_with(&self, argv: &[&str], input: &str) -> anyhow::Result<Ran> {
        let mut command = Command::new("nsenter");
        command.args([
            "--target",
            &self.first_process().await?.to_string(),
            "--mount",
            "--uts",
            "--ipc",
            "--net",
            "--pid",
        ]);
        command.args(["--cgroup", "--root", "--wdns=/", "--"]).args(argv);
        run(command, input, argv).await
    }

    /// Runs a command inside that must succeed; returns its standard output.
    pub async fn ok(&self, argv: &[&str]) -> anyhow::Result<String> {
        self.run(argv).await?.expect_ok()
    }

    /// Copies a file of ours into the machine; returns its path there.
    pub fn put(&self, file: &Path) -> anyhow::Result<String> {
        let name = file.file_name().context("a file has a name")?;
        std::fs::copy(file, self.root.join("root").join(name)).with_context(|| file.display().to_string())?;
        Ok(format!("/root/{}", name.to_string_lossy()))
    }

    /// Writes a file inside, with its folders.
    pub fn write(&self, path: &str, text: &str) -> anyhow::Result<()> {
        let path = self.inside(path);
        std::fs::create_dir_all(path.parent().context("a path has a parent")?)?;
        Ok(std::fs::write(path, text)?)
    }

    /// Returns whether there is something at a path inside.
    #[must_use]
    pub fn has(&self, path: &str) -> bool {
        self.inside(path).symlink_metadata().is_ok()
    }

    fn inside(&self, path: &str) -> PathBuf {
        self.root.join(path.trim_start_matches('/'))
    }

    /// Returns whether a unit is active.
    pub async fn is_active(&self, unit: &str) -> anyhow::Result<bool> {
        Ok(self.run(&["systemctl", "is-active", unit]).await?.stdout.trim() == "active")
    }

    /// Returns what a unit has written to the journal.
    pub async fn journal(&self, unit: &str) -> anyhow::Result<String> {
        self.ok(&["journalctl", "--no-pager", "--output=cat", "--unit", unit]).await
    }
}

fn start(host: &Host, root: &Path) -> anyhow::Result<Process> {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "TERM", "--", "systemd-nspawn", "--quiet", "--boot", "--directory"]).arg(root);
    command.args(["--register=no", "--keep-unit", "--resolv-conf=off", "--console=pipe"]);
    command.arg(format!("--machine={}", host.name));
    command.arg(format!("--network-namespace-path=/proc/{}/ns/net", host.holder.id()?));
    Process::start(&host.name, command, host.folder.join("console.log"))
}
