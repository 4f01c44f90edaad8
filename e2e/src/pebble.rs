//! A real ACME server and a real DNS server on a host of the lab: Debian's Pebble and pebble-challtestsrv. Pebble keeps
//! everything in memory and now and then deadlocks under parallel orders (every POST hangs while its directory still
//! answers): `heal` looks, and restarts it aloud.

use std::time::Duration;

use anyhow::Context;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, SanType};
use serde_json::{Value, json};

use crate::lab::{Host, Process, eventually};

/// Where challtestsrv takes orders.
const NAMES_CONTROL: &str = "http://127.0.0.1:8055";
/// Longest wait for Pebble to answer after its start.
const START_TIME_MAX: Duration = Duration::from_secs(20);
/// Life of a certificate when nothing else is said: 90 days.
const USUAL_LIFE_SECONDS: u32 = 7_776_000;
/// The one customer of a CA that wants external account bindings (RFC 8555 §7.3.4): key identifier and MAC key, base64url.
pub const CUSTOMER: (&str, &str) = ("customer-7", "zWNDZM6eQGHWpSRTPal5eIUYFTu7EajVIoguysqZ9wG44nMEtx3MUAsUDkMTQ12W");
/// What makes Pebble quick and repeatable: no pauses, no refused nonces, no authorization taken from an older order.
const QUICK: [(&str, &str); 3] =
    [("PEBBLE_VA_NOSLEEP", "1"), ("PEBBLE_WFE_NONCEREJECT", "0"), ("PEBBLE_AUTHZREUSE", "0")];

/// What a Pebble is to be like.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Life of its certificates.
    pub life_seconds: u32,
    /// It makes accounts for its customer only: see `CUSTOMER`.
    pub customers_only: bool,
    /// How many chains it offers beside its first choice.
    pub alternate_chains: u8,
}

impl Default for Settings {
    fn default() -> Self {
        Self { life_seconds: USUAL_LIFE_SECONDS, customers_only: false, alternate_chains: 0 }
    }
}

/// The CA and the names of the lab.
#[derive(Debug)]
pub struct Pebble {
    /// The host it runs on.
    pub host: Host,
    settings: Settings,
    server: Option<Process>,
    _names: Process,
}

impl Pebble {
    /// Starts both servers on `host` and waits until they answer.
    pub async fn start(host: Host, settings: Settings) -> anyhow::Result<Self> {
        listener_identity(&host)?;
        // Later Pebbles take the life from their profiles; Debian 12's does not read them.
        let profile = json!({ "description": "the usual", "validityPeriod": settings.life_seconds });
        let config = json!({ "pebble": {
            "profiles": { "default": profile },
            "listenAddress": "0.0.0.0:14000", "managementListenAddress": "0.0.0.0:15000",
            "certificate": host.folder.join("listener.pem"), "privateKey": host.folder.join("listener.key"),
            "httpPort": 80, "tlsPort": 443, "ocspResponderURL": "",
            "externalAccountBindingRequired": settings.customers_only,
            "externalAccountMACKeys": if settings.customers_only { json!({ CUSTOMER.0: CUSTOMER.1 }) } else { json!({}) },
            "domainBlocklist": ["blocked.example.test"], "certificateValidityPeriod": settings.life_seconds
        }});
        std::fs::write(host.folder.join("pebble.json"), config.to_string())?;
        let argv = ["pebble-challtestsrv", "-defaultIPv4", "", "-defaultIPv6", "", "-dns01", ":53", "-http01", ""];
        let argv = [argv.as_slice(), &["-https01", "", "-tlsalpn01", "", "-management", ":8055"]].concat();
        let names = host.start("names", &argv, &[])?;
        let mut pebble = Self { host, settings, server: None, _names: names };
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
        let alternates = self.settings.alternate_chains.to_string();
        let environment = [QUICK.as_slice(), &[("PEBBLE_ALTERNATE_ROOTS", alternates.as_str())]].concat();
        let server = self.host.start("pebble", &argv, &environment)?;
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
        self.root_of_chain(0).await
    }

    /// Returns the root of one of its chains, PEM; 0 is its first choice.
    pub async fn root_of_chain(&self, chain: u8) -> anyhow::Result<String> {
        self.managed(&format!("roots/{chain}")).await
    }

    /// Returns what Pebble knows about a certificate of its own: `Status`, `Reason` and more.
    pub async fn status_of(&self, serial: &str) -> anyhow::Result<Value> {
        let text = self.managed(&format!("cert-status-by-serial/{serial}")).await?;
        serde_json::from_str(&text).with_context(|| format!("Pebble says no JSON: {text}"))
    }

    async fn managed(&self, path: &str) -> anyhow::Result<String> {
        self.host.ok(&["curl", "-skf", "--max-time", "5", &format!("https://127.0.0.1:15000/{path}")]).await
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
