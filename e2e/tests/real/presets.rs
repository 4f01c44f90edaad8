//! A preset over the whole road: HAProxy reads leaf, chain and key from one file, found by its directory alone.

use anyhow::ensure;
use e2e::lab::eventually;
use e2e::site::{Server, Site};
use proto::presets::Preset;
use rcgen::{CertificateParams, KeyPair};

use crate::{SOON, is_done};

const CONFIGURATION: &str = "\
defaults
  mode http
  timeout connect 5s
  timeout client 5s
  timeout server 5s
frontend web
  bind :443 ssl crt /etc/haproxy/certs
  http-request return status 200 content-type text/plain string here
";
/// Without systemd: the master's pid is in a file, and no shell would read it.
const RELOAD: &str = "#!/bin/sh\nexec kill -USR2 \"$(cat /run/haproxy.pid)\"\n";

#[tokio::test]
async fn haproxy_takes_one_file_by_its_preset_and_shows_every_renewal() -> anyhow::Result<()> {
    let site = Site::start().await?;
    let mut server = site.bare_server(1).await?;
    let name = server.identifier();
    server.host.own_folder("/etc/haproxy", "1m").await?;
    let key = KeyPair::generate()?;
    let leaf = CertificateParams::new(vec!["default.example.test".to_owned()])?.self_signed(&key)?.pem();
    server.host.write("/etc/haproxy/certs/default.pem", &format!("{leaf}{}", key.serialize_pem())).await?;
    server.host.write("/etc/haproxy/haproxy.cfg", CONFIGURATION).await?;
    server.host.write("/etc/haproxy/reload", RELOAD).await?;
    server.host.ok(&["chmod", "0755", "/etc/haproxy/reload"]).await?;
    server.host.ok(Preset::named("haproxy").map_or(&[], |preset| preset.validate)).await?;
    let argv = ["/usr/sbin/haproxy", "-W", "-f", "/etc/haproxy/haproxy.cfg", "-p", "/run/haproxy.pid"];
    let mut haproxy = server.host.start("haproxy", &argv, &[])?;
    eventually("haproxy", SOON, async || {
        ensure!(haproxy.runs(), "haproxy ended:\n{}", haproxy.output());
        Ok((server.host.run(&["curl", "-sk", "https://127.0.0.1/"]).await?.status == Some(0)).then_some(()))
    })
    .await?;

    server.enroll(&site.control).await?;
    let policy = std::fs::read_to_string(server.policy())?;
    ensure!(policy.contains("\"-c\", \"-f\", \"/etc/haproxy/haproxy.cfg\""), "the service was not found: {policy}");
    std::fs::write(server.policy(), format!("{policy}\n[[command]]\nargv = [\"/etc/haproxy/reload\"]\n"))?;
    server.start_agent()?;
    site.control.connected("h1").await?;
    let create = ["certs", "create", "web", "--san", &name, "--issuer", "lab", "--agent", "h1"];
    let target = ["--preset", "haproxy", "--reload", "/etc/haproxy/reload", "--wait"];
    site.control.ok(&create, &target).await?;
    site.proven(&server, "web", &name).await?;
    one_file_holds_all(&server).await?;

    let first = site.control.certificate("web").await?["current"]["fingerprint_sha256"].clone();
    site.control.ok(&["certs", "renew", "web", "--override-lock", "drill"], &[]).await?;
    let renewed = |record: &serde_json::Value| is_done(record) && record["current"]["fingerprint_sha256"] != first;
    site.control.until("web", "the renewed version", SOON, renewed).await?;
    site.proven(&server, "web", &name).await?;
    one_file_holds_all(&server).await
}

async fn one_file_holds_all(server: &Server) -> anyhow::Result<()> {
    let path = "/etc/haproxy/certs/web.pem";
    assert_eq!(server.host.ok(&["stat", "-L", "-c", "%a", path]).await?.trim(), "600");
    let key = server.host.ok(&["openssl", "pkey", "-pubout", "-in", path]).await?;
    let leaf = server.host.ok(&["openssl", "x509", "-noout", "-pubkey", "-in", path]).await?;
    assert_eq!(key, leaf, "the key belongs to the leaf");
    Ok(())
}
