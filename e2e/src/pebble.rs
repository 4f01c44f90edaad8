//! A real ACME server and a real DNS server on a host of the lab: Debian's Pebble and pebble-challtestsrv. Pebble keeps
//! everything in memory and now and then deadlocks under parallel orders (every POST hangs while its directory still
//! answers): `heal` looks, and restarts it aloud.

use std::time::Duration;

use anyhow::Context;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, SanType};
use serde_json::json;

use crate::lab::{Host, Process, eventually};

/// Where challtestsrv takes orders.
const NAMES_CONTROL: &str = "http://127.0.0.1:8055";
/// Longest wait for Pebble to answer after its start.
const START_TIME_MAX: Duration = Duration::from_secs(20);
/// What makes Pebble quick and repeatable: no pauses, no refused nonces, no authorization taken from an older order.
const QUICK: [(&str, &str); 3] =
    [("PEBBLE_VA_NOSLEEP", "1"), ("PEBBLE_WFE_NONCEREJECT", "0"), ("PEBBLE_AUTHZREUSE", "0")];

/// The CA and the names of the lab.
#[derive(Debug)]
pub struct Pebble {
    /// The host it runs on.
    pub host: Host,
    server: Option<Process>,
    _names: Process,
}

impl Pebble {
    /// Starts both servers on `host` and waits until they answer. Certificates live `life_seconds`.
    pub async fn start(host: Host, life_seconds: u32) -> anyhow::Result<Self> {
        listener_identity(&host)?;
        let config = json!({ "pebble": {
            "listenAddress": "0.0.0.0:14000", "managementListenAddress": "0.0.0.0:15000",
            "certificate": host.folder.join("listener.pem"), "privateKey": host.folder.join("listener.key"),
            "httpPort": 80, "tlsPort": 443, "ocspResponderURL": "", "externalAccountBindingRequired": false,
            "domainBlocklist": ["blocked.example.test"], "certificateValidityPeriod": life_seconds
        }});
        std::fs::write(host.folder.join("pebble.json"), config.to_string())?;
        let argv = ["pebble-challtestsrv", "-defaultIPv4", "", "-defaultIPv6", "", "-dns01", ":53", "-http01", ""];
        let argv = [argv.as_slice(), &["-https01", "", "-tlsalpn01", "", "-management", ":8055"]].concat();
        let names = host.start("names", &argv, &[])?;
        let mut pebble = Self { host, server: None, _names: names };
        pebble.start_server().await?;
        Ok(pebble)
    }

    /// Returns the ACME directory's URL.
    #[must_use]
    pub fn directory(&self) -> String {
        format!("https://{}:14000/dir", self.host.address)
    }

    /// Returns the path of the root that the directory's own certificate is signed with.
    #[must_use]
    pub fn root(&self) -> String {
        self.host.folder.join("root.pem").to_string_lossy().into_owned()
    }

    /// Returns HOST:PORT of the DNS server.
    #[must_use]
    pub fn dns(&self) -> String {
        format!("{}:53", self.host.address)
    }

    /// Lets a name point to addresses; none takes it away.
    pub async fn name(&self, name: &str, addresses: &[&str]) -> anyhow::Result<()> {
        let call = if addresses.is_empty() { "clear-a" } else { "add-a" };
        let body = json!({ "host": name, "addresses": addresses }).to_string();
        let url = format!("{NAMES_CONTROL}/{call}");
        self.host.ok(&["curl", "-sf", "--max-time", "5", "-d", &body, &url]).await.map(drop)
    }

    /// Returns how many ACME requests Pebble has taken since the lab was made.
    #[must_use]
    pub fn requests(&self) -> usize {
        let log = std::fs::read_to_string(self.host.folder.join("pebble.log")).unwrap_or_default();
        log.lines().filter(|line| line.contains("-> calling handler()")).count()
    }

    /// Ends the ACME server; DNS goes on.
    pub async fn stop_server(&mut self) -> anyhow::Result<()> {
        match self.server.take() {
            Some(server) => server.kill().await,
            None => Ok(()),
        }
    }

    /// Starts the ACME server. It has forgotten every account and order, and has new roots.
    pub async fn start_server(&mut self) -> anyhow::Result<()> {
        let config = self.host.folder.join("pebble.json").to_string_lossy().into_owned();
        let argv = ["pebble", "-config", &config, "-dnsserver", &self.dns()];
        let server = self.host.start("pebble", &argv, &QUICK)?;
        self.server = Some(server);
        eventually("Pebble", START_TIME_MAX, async || {
            let answer = self.host.run(&["curl", "-skf", "--max-time", "2", "https://127.0.0.1:14000/dir"]).await?;
            Ok((answer.status == Some(0)).then_some(()))
        })
        .await
    }

    /// Restarts the ACME server if it has deadlocked, and says so; returns whether it had.
    pub async fn heal(&mut self) -> anyhow::Result<bool> {
        // Reads under the lock that deadlocks, and is nobody's business otherwise.
        let url = "https://127.0.0.1:15000/cert-status-by-serial/ff";
        let answer = self.host.run(&["curl", "-sk", "--max-time", "5", url]).await?;
        let stuck = answer.status != Some(0);
        if stuck {
            tracing::warn!("Pebble has deadlocked: restarting it");
            self.stop_server().await?;
            self.start_server().await?;
        }
        Ok(stuck)
    }

    /// Returns the root that Pebble signs leaves with, PEM. New after each start.
    pub async fn issuing_root(&self) -> anyhow::Result<String> {
        self.host.ok(&["curl", "-skf", "--max-time", "5", "https://127.0.0.1:15000/roots/0"]).await
    }
}

/// Makes the certificate of Pebble's own listener, and the root that a client must be told.
fn listener_identity(host: &Host) -> anyhow::Result<()> {
    let root_key = KeyPair::generate()?;
    let mut root = CertificateParams::new(Vec::new())?;
    root.distinguished_name.push(DnType::CommonName, "certwright lab root");
    root.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let root_pem = root.self_signed(&root_key)?.pem();
    let issuer = Issuer::new(root, root_key);
    let key = KeyPair::generate()?;
    let mut leaf = CertificateParams::new(vec!["localhost".to_owned()])?;
    leaf.distinguished_name.push(DnType::CommonName, "certwright lab CA listener");
    leaf.subject_alt_names.push(SanType::IpAddress(host.address.into()));
    let leaf_pem = leaf.signed_by(&key, &issuer)?.pem();
    for (file, text) in [("root.pem", root_pem), ("listener.pem", leaf_pem), ("listener.key", key.serialize_pem())] {
        std::fs::write(host.folder.join(file), text).with_context(|| format!("write {file}"))?;
    }
    Ok(())
}
