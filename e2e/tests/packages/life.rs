//! The life of the packages on two machines: installed, enrolled, the whole road with `systemctl reload nginx`, put over
//! themselves while a deployment runs, rebooted, removed, installed again, purged.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, ensure};
use e2e::lab::machine::Machine;
use e2e::lab::{Lab, eventually};
use e2e::pebble::{Pebble, Settings};
use rcgen::{CertificateParams, KeyPair};
use serde_json::Value;

use super::{package, packages};

const SOON: Duration = Duration::from_secs(30);
const NAME: &str = "h1.example.test";
const DIR: &str = "/etc/nginx/ssl/h1.example.test";

/// Both machines and the CA.
struct Fleet {
    _lab: Lab,
    ca: Pebble,
    control: Machine,
    server: Machine,
}

impl Fleet {
    async fn boot() -> anyhow::Result<Self> {
        let image = packages().with_file_name("image.tar");
        ensure!(image.exists(), "{} is missing: run scripts/test packages", image.display());
        let lab = Lab::new().await?;
        let ca = Pebble::start(lab.host("ca", 2).await?, Settings::default()).await?;
        let control = Machine::boot(lab.host("ctl", 6).await?, &image).await?;
        let server = Machine::boot(lab.host("h1", 11).await?, &image).await?;
        ca.name(NAME, &[&server.host.address.to_string()]).await?;
        for (machine, names) in
            [(&control, ["certwright-controller", "certwright"].as_slice()), (&server, &["certwright-agent"])]
        {
            for name in names {
                install(machine, name).await?;
            }
        }
        Ok(Self { _lab: lab, ca, control, server })
    }

    /// Runs the operator's command line on the controller's machine, with `-o json`.
    async fn json(&self, words: &[&str]) -> anyhow::Result<Value> {
        let text = self.control.ok(&[["certwright", "-o", "json"].as_slice(), words].concat()).await?;
        serde_json::from_str(&text).with_context(|| format!("{words:?} prints no JSON: {text}"))
    }

    /// Waits until the certificate is deployed and proven, in a version other than `old`; returns its fingerprint.
    async fn proven(&self, old: &str) -> anyhow::Result<String> {
        let mut last = Value::Null;
        let found = eventually("the certificate to be served", SOON * 2, async || {
            last = self.json(&["certs", "get", "web"]).await?;
            let current = last["current"]["fingerprint_sha256"].as_str().unwrap_or_default().to_owned();
            let is_done = last["status"] == "active" && last["deployment"] == "ok" && current != old;
            // For 100 ms after a reload an old worker of nginx may still answer.
            Ok((is_done && self.served().await? == current).then_some(current))
        });
        found.await.with_context(|| format!("last seen: {last:#}"))
    }

    /// What nginx shows to someone outside: the leaf's SHA-256.
    async fn served(&self) -> anyhow::Result<String> {
        let address = format!("{}:443", self.server.host.address);
        let ask = ["openssl", "s_client", "-connect", &address, "-servername", NAME];
        let seen = self.ca.host.run(&ask).await?;
        let leaf = proto::x509::parse_certificates(seen.stdout.as_bytes()).ok();
        let leaf = leaf.and_then(|chain| chain.into_iter().next()).with_context(|| format!("no TLS: {seen}"))?;
        Ok(proto::x509::hex(&proto::x509::fingerprint(&leaf)))
    }

    async fn connected(&self) -> anyhow::Result<()> {
        eventually("the agent", SOON, async || {
            Ok((self.json(&["agents", "get", "h1"]).await?["status"] == "connected").then_some(()))
        })
        .await
    }

    /// The settings of the controller, as its administrator writes them.
    async fn configure(&self) -> anyhow::Result<()> {
        let settings =
            format!("advertise = \"{}:7443\"\n[dns]\nservers = [\"{}\"]\n", self.control.host.address, self.ca.dns());
        self.control.write("/etc/certwright/controller.toml", &settings)?;
        self.control.ok(&["systemctl", "restart", "certwright-controller"]).await?;
        let root = self.control.put(Path::new(&self.ca.root()))?;
        let add = ["certwright", "issuers", "add", "lab", "--accept-terms", "--directory", &self.ca.directory()];
        self.control.ok(&[add.as_slice(), &["--root", &root]].concat()).await?;
        Ok(())
    }

    /// nginx with a certificate of its own making, as an administrator has it before us.
    async fn nginx(&self) -> anyhow::Result<()> {
        let key = KeyPair::generate()?;
        let leaf = CertificateParams::new(vec![NAME.to_owned()])?.self_signed(&key)?.pem();
        self.server.write(&format!("{DIR}/fullchain.pem"), &leaf)?;
        self.server.write(&format!("{DIR}/key.pem"), &key.serialize_pem())?;
        let site = format!(
            "server {{ listen 443 ssl; server_name {NAME}; ssl_certificate {DIR}/fullchain.pem; \
             ssl_certificate_key {DIR}/key.pem; location / {{ return 200 \"here\\n\"; }} }}\n"
        );
        self.server.write("/etc/nginx/conf.d/h1.conf", &site)?;
        self.server.ok(&["rm", "/etc/nginx/sites-enabled/default"]).await?;
        self.server.ok(&["systemctl", "restart", "nginx"]).await.map(drop)
    }

    /// The printed command, with the token on standard input.
    async fn enroll(&self) -> anyhow::Result<()> {
        let answer = self.json(&["agents", "enroll", "h1"]).await?;
        let (token, command) = (answer["token"].as_str(), answer["command"].as_str());
        let words: Vec<&str> = command.context("a command")?.split(' ').filter(|word| *word != "sudo").collect();
        let said = self.server.run_with(&words, token.context("a token")?).await?.expect_ok()?;
        assert!(said.contains("next: systemctl daemon-reload && systemctl start certwright-agent"), "{said}");
        self.server.ok(&["systemctl", "daemon-reload"]).await?;
        self.server.ok(&["systemctl", "start", "certwright-agent"]).await?;
        self.connected().await
    }

    async fn renew(&self) -> anyhow::Result<()> {
        self.json(&["certs", "renew", "web", "--override-lock", "drill"]).await.map(drop)
    }
}

async fn install(machine: &Machine, name: &str) -> anyhow::Result<()> {
    let file = machine.put(&package(name, "deb")?)?;
    machine.ok(&["dpkg", "--install", &file]).await.map(drop)
}

#[tokio::test]
async fn they_are_installed_enrolled_upgraded_rebooted_removed_and_purged() -> anyhow::Result<()> {
    let mut fleet = Fleet::boot().await?;
    assert!(fleet.control.is_active("certwright-controller").await?, "it runs once it is installed");
    assert!(!fleet.server.is_active("certwright-agent").await?, "there is nothing to run before it is enrolled");
    for (machine, unit, exposure) in [
        (&fleet.control, "certwright-controller", "20"),
        (&fleet.server, "certwright-agent", "20"),
        (&fleet.server, "certwright-agent-apply", "20"),
    ] {
        machine.ok(&["systemd-analyze", "--no-pager", "security", "--threshold", exposure, unit]).await?;
    }
    let key = fleet.control.ok(&["stat", "--format", "%a %U %s", "/etc/credstore/certwright.master-key"]).await?;
    assert_eq!(key.trim(), "400 root 32");
    fleet.configure().await?;
    fleet.nginx().await?;
    fleet.enroll().await?;

    let create =
        ["certwright", "certs", "create", "web", "--san", NAME, "--issuer", "lab", "--http01", "standalone:80"];
    let target = ["--agent", "h1", "--dir", DIR, "--reload", "/usr/bin/systemctl reload nginx", "--wait"];
    // Runs as a transient unit: in the sandbox of the agent, without a network, it would fail.
    let validate = ["--validate", "/usr/sbin/nginx -t"];
    let verify = format!("127.0.0.1:443/{NAME}");
    fleet.control.ok(&[create.as_slice(), &target, &validate, &["--verify", &verify]].concat()).await?;
    let first = fleet.proven("").await?;

    kept_in_the_policy(&fleet).await?;
    over_themselves(&fleet, &first).await?;
    rebooted(&mut fleet).await?;
    restored(&fleet).await?;
    removed_and_purged(&fleet).await
}

/// The half that writes may write where the policy says, once systemd knows; the other half owns nothing but its state.
async fn kept_in_the_policy(fleet: &Fleet) -> anyhow::Result<()> {
    let server = &fleet.server;
    let owners = ["/var/lib/certwright-agent", "/var/lib/certwright-agent-apply", "/run/certwright-agent/apply.sock"];
    let owners = server.ok(&[["stat", "--format", "%a %U"].as_slice(), &owners].concat()).await?;
    assert_eq!(owners, "700 certwright-agent\n700 root\n600 certwright-agent\n");
    let status: Value = serde_json::from_str(&server.ok(&["certwright-agent", "status", "-o", "json"]).await?)?;
    assert!(status["running"] == true && status["keys"]["held"] == 1, "{status:#}");

    server.ok(&["mkdir", "/srv/tls"]).await?;
    let policy = server.ok(&["cat", "/etc/certwright/policy.toml"]).await?;
    server.write("/etc/certwright/policy.toml", &format!("{policy}\n[[dir]]\npath = \"/srv/tls\"\n"))?;
    let create =
        ["certwright", "certs", "create", "srv", "--san", NAME, "--issuer", "lab", "--http01", "standalone:80"];
    let words = [create.as_slice(), &["--agent", "h1", "--dir", "/srv/tls"]].concat();
    eventually("the agent's policy to be known", SOON, async || {
        Ok((fleet.control.run(&words).await?.status == Some(0)).then_some(()))
    })
    .await?;
    let target = async || Ok::<_, anyhow::Error>(fleet.json(&["certs", "get", "srv"]).await?["targets"][0].clone());
    eventually("systemd's sandbox to refuse", SOON, async || {
        let target = target().await?;
        Ok((target["error"]["hint"].to_string().contains("policy install")).then_some(()))
    })
    .await?;
    let said = server.ok(&["certwright-agent", "policy", "install"]).await?;
    assert!(said.contains("kept /etc/certwright/policy.toml") && said.contains("systemctl daemon-reload &&"), "{said}");
    server.ok(&["systemctl", "daemon-reload"]).await?;
    server.ok(&["systemctl", "restart", "certwright-agent-apply"]).await?;
    fleet.json(&["targets", "deploy", "srv"]).await?;
    eventually("the files", SOON, async || Ok((target().await?["status"] == "unproven").then_some(()))).await?;
    assert!(server.has("/srv/tls/key.pem"));
    fleet.control.ok(&["certwright", "certs", "delete", "srv", "--confirm=srv"]).await.map(drop)
}

/// The packages once more, in the middle of a deployment: nothing is lost, and who was connected comes back.
async fn over_themselves(fleet: &Fleet, first: &str) -> anyhow::Result<()> {
    fleet.renew().await?;
    install(&fleet.server, "certwright-agent").await?;
    fleet.connected().await?;
    let second = fleet.proven(first).await?;
    fleet.renew().await?;
    install(&fleet.control, "certwright-controller").await?;
    assert!(fleet.control.is_active("certwright-controller").await?);
    fleet.connected().await?;
    fleet.proven(&second).await.map(drop)
}

/// Both come up by themselves and serve what they served.
async fn rebooted(fleet: &mut Fleet) -> anyhow::Result<()> {
    let served = fleet.served().await?;
    fleet.server.reboot().await?;
    fleet.connected().await?;
    assert_eq!(fleet.served().await?, served);
    fleet.control.reboot().await?;
    eventually("the agent to come back", SOON, async || fleet.connected().await.map(Some)).await?;
    fleet.renew().await?;
    fleet.proven(&served).await.map(drop)
}

/// The drill of the manual: a backup, a version that it does not know, a lost database, the restore.
async fn restored(fleet: &Fleet) -> anyhow::Result<()> {
    let control = &fleet.control;
    let before = fleet.served().await?;
    control.ok(&["certwright", "backup", "keygen", "/root/recovery.key"]).await?;
    let sealed = ["--key-file", "/root/recovery.key"];
    let create = ["certwright", "backup", "create", "--to", "/root/ctl.backup"];
    control.ok(&[create.as_slice(), &sealed].concat()).await?;
    fleet.renew().await?;
    let later = fleet.proven(&before).await?;

    control.ok(&["systemctl", "stop", "certwright-controller"]).await?;
    control.ok(&["mv", "/var/lib/certwright/certwright.redb", "/root/lost.redb"]).await?;
    let restore = ["certwright-controller", "backup", "restore", "--state", "/var/lib/certwright"];
    let from = ["--master-key", "/etc/credstore/certwright.master-key", "--from", "/root/ctl.backup"];
    control.ok(&[restore.as_slice(), &from, &sealed].concat()).await?;
    control.ok(&["systemctl", "start", "certwright-controller"]).await?;
    eventually("what the agent holds to be known", SOON, async || {
        let said = control.run(&["certwright", "restore", "accept", "--confirm=ctl"]).await?;
        ensure!(said.status == Some(0), "{said}");
        fleet.connected().await.map(Some)
    })
    .await?;
    assert_eq!(fleet.proven("").await?, later, "nothing was ordered anew that the agent holds");
    fleet.renew().await?;
    fleet.proven(&later).await.map(drop)
}

async fn removed_and_purged(fleet: &Fleet) -> anyhow::Result<()> {
    let served = fleet.served().await?;
    fleet.server.ok(&["dpkg", "--remove", "certwright-agent"]).await?;
    ensure!(!fleet.server.has("/usr/bin/certwright-agent") && fleet.server.has("/var/lib/certwright-agent"));
    fleet.server.ok(&["systemctl", "reload", "nginx"]).await?;
    assert_eq!(fleet.served().await?, served, "a removed agent takes nothing away from nginx");
    install(&fleet.server, "certwright-agent").await?;
    fleet.connected().await?;

    fleet.server.ok(&["dpkg", "--purge", "certwright-agent"]).await?;
    fleet.control.ok(&["dpkg", "--purge", "certwright-controller", "certwright"]).await?;
    for machine in [&fleet.server, &fleet.control] {
        let left = machine
            .ok(&[
                "find",
                "/etc",
                "/usr",
                "/var/lib",
                "/run",
                "-path",
                "/var/lib/dpkg",
                "-prune",
                "-o",
                "-name",
                "*certwright*",
                "-print",
            ])
            .await?;
        // Debian keeps the users of removed packages; what nginx reads lies in its own directory.
        let left: Vec<&str> = left.lines().filter(|path| !path.contains("/nginx/ssl/")).collect();
        assert!(left.is_empty(), "{}: {left:?}", machine.host.name);
        assert!(machine.ok(&["systemctl", "--failed", "--quiet"]).await?.is_empty());
    }
    fleet.server.ok(&["systemctl", "reload", "nginx"]).await?;
    assert_eq!(fleet.served().await?, served, "what nginx reads is still there");
    let uids = fleet.server.ok(&["stat", "--format", "%U", &format!("{DIR}/key.pem")]).await?;
    assert_eq!(uids.trim(), "root");
    Ok(())
}
