//! A short road for faults of files and commands: a private CA, and one target whose service is a script that takes up its
//! leaf. Nothing else serves it, so that only files and commands are looked at.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, ensure};
use e2e::lab::{Process, eventually};
use e2e::site::{NoCa, Server, Site};
use serde_json::Value;

/// Longest wait for an end: less than an agent rests after a failure (48 s), so that no second attempt hides a first one.
const AT_ONCE: Duration = Duration::from_secs(40);

/// The road.
pub(crate) struct Road {
    pub(crate) site: Site<NoCa>,
    pub(crate) server: Server,
    /// The policy's directory above the target's.
    pub(crate) root: PathBuf,
    /// The target's directory.
    pub(crate) dir: PathBuf,
    /// The version that was current before the last renewal.
    before: String,
}

impl Road {
    /// Brings the first version. The reload takes up the leaf, and then does what this shell script says.
    pub(crate) async fn begin(reload: &str, time_limit: &str) -> anyhow::Result<Self> {
        let site = Site::start_without_ca().await?;
        let mut server = site.bare_server(1).await?;
        server.enroll(&site.control).await?;
        let folder = server.host.folder.clone();
        let (root, script) = (folder.join("tls"), folder.join("reload"));
        std::fs::create_dir(&root)?;
        let service = format!("#!/bin/bash\ncd {}\ncp tls/web/cert.pem taken-up.pem\n{reload}\n", folder.display());
        std::fs::write(&script, service)?;
        server.host.ok(&["chmod", "0755", &script.to_string_lossy()]).await?;
        let policy = std::fs::read_to_string(server.policy())?;
        let more =
            format!("\n[[dir]]\npath = {root:?}\n\n[[command]]\nargv = [{script:?}]\ntimeout = \"{time_limit}\"\n");
        std::fs::write(server.policy(), format!("{policy}{more}"))?;
        server.start_agent()?;
        site.control.connected("h1").await?;
        site.control.ok(&["issuers", "add", "corp", "--private", "--names", "*.example.test"], &[]).await?;
        let dir = root.join("web");
        let (place, script) = (dir.to_string_lossy(), script.to_string_lossy());
        let create = ["certs", "create", "web", "--san", "h1.example.test", "--issuer", "corp", "--agent", "h1"];
        site.control.ok(&create, &["--dir", &place, "--reload", &script]).await?;
        let road = Self { dir: root.join("web"), before: String::new(), site, server, root };
        road.ends_as(&["unproven"]).await?;
        Ok(road)
    }

    /// Asks for a new version.
    pub(crate) async fn renew(&mut self) -> anyhow::Result<()> {
        let record = self.site.control.certificate("web").await?;
        self.before = record["current"]["version"].as_str().context("a version")?.to_owned();
        self.site.control.ok(&["certs", "renew", "web", "--override-lock", "drill"], &[]).await.map(drop)
    }

    /// Waits until the target ended so with the version of the last renewal; returns that version's fingerprint.
    pub(crate) async fn ends_as(&self, statuses: &[&str]) -> anyhow::Result<String> {
        let ended = eventually("the deployment", AT_ONCE, async || self.end(statuses).await).await;
        match ended {
            Ok(record) => Ok(record["current"]["fingerprint_sha256"].as_str().context("a fingerprint")?.to_owned()),
            Err(error) => Err(error.context(format!("{:#}", self.site.control.certificate("web").await?))),
        }
    }

    /// The record, if the target ended so with the version of the last renewal.
    pub(crate) async fn end(&self, statuses: &[&str]) -> anyhow::Result<Option<Value>> {
        let record = self.site.control.certificate("web").await?;
        let target = &record["targets"][0];
        let version = record["current"]["version"].as_str().unwrap_or_default();
        let is_there = !version.is_empty() && version != self.before && target["version"] == version;
        let ended = statuses.iter().any(|status| target["status"] == *status);
        Ok((is_there && ended && target["doing"].is_null()).then_some(record))
    }

    /// Waits for such an end; returns the target.
    pub(crate) async fn target(&self, status: &str) -> anyhow::Result<Value> {
        self.ends_as(&[status]).await?;
        Ok(self.site.control.certificate("web").await?["targets"][0].clone())
    }

    /// Asks for another deployment, as an operator does after a repair; the new version must be there then.
    pub(crate) async fn heals(&self) -> anyhow::Result<()> {
        self.site.control.ok(&["targets", "deploy", "web"], &[]).await?;
        let wanted = self.ends_as(&["unproven"]).await?;
        ensure!(self.shown().await? == wanted, "the new version is not in the files");
        Ok(())
    }

    /// Checks by openssl that the files that can be seen belong together; returns the leaf's fingerprint.
    pub(crate) async fn shown(&self) -> anyhow::Result<String> {
        let file = |name: &str| self.dir.join(name).to_string_lossy().into_owned();
        let host = &self.server.host;
        let key = host.ok(&["openssl", "pkey", "-pubout", "-in", &file("key.pem")]).await?;
        for name in ["cert.pem", "fullchain.pem"] {
            let public = host.ok(&["openssl", "x509", "-noout", "-pubkey", "-in", &file(name)]).await?;
            ensure!(public == key, "the key is not the one of {name}");
        }
        host.ok(&["test", "-e", &file("chain.pem")]).await?;
        fingerprint(&host.read(&file("cert.pem")).await?)
    }

    /// The fingerprint of the leaf that the service took up last.
    pub(crate) fn taken_up(&self) -> anyhow::Result<String> {
        fingerprint(&std::fs::read_to_string(self.server.host.folder.join("taken-up.pem"))?)
    }

    /// What lies in a directory, the target's or one inside, as the host sees it.
    pub(crate) async fn list(&self, inside: &str) -> anyhow::Result<Vec<String>> {
        let dir = self.dir.join(inside);
        let listed = self.server.host.ok(&["ls", "-A", &dir.to_string_lossy()]).await?;
        Ok(listed.lines().map(str::to_owned).collect())
    }

    /// The ids of the agent's processes.
    pub(crate) fn agent_processes(&self) -> anyhow::Result<[u32; 2]> {
        let agent = self.server.agent.as_ref().context("the agent runs")?;
        Ok([agent.apply.id()?, agent.net.id()?])
    }

    /// Puts the agent under strace with these words; what it does is in the log until the returned process is stopped.
    pub(crate) async fn strace(&self, words: &[&str]) -> anyhow::Result<Process> {
        let mut argv = vec!["strace".to_owned(), "-f".to_owned()];
        argv.extend(words.iter().map(|word| (*word).to_owned()));
        for pid in self.agent_processes()? {
            argv.extend(["-p".to_owned(), pid.to_string()]);
        }
        let argv: Vec<&str> = argv.iter().map(String::as_str).collect();
        // What an earlier one said is no word of this one.
        std::fs::remove_file(self.server.host.folder.join("strace.log")).ok();
        let mut strace = self.server.host.start("strace", &argv, &[])?;
        eventually("strace", AT_ONCE, async || {
            ensure!(strace.runs(), "strace ended: {}", strace.output());
            Ok((strace.output().matches("attached").count() == 2).then_some(()))
        })
        .await?;
        Ok(strace)
    }
}

pub(crate) fn fingerprint(pem: &str) -> anyhow::Result<String> {
    Ok(proto::x509::hex(&proto::x509::Chain::parse_pem(pem.as_bytes())?.leaf.fingerprint_sha256))
}
