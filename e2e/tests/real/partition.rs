//! What is away in the middle of a deployment: the network (reliability.md NT1), and an agent that knows what to do does it alone
//! and reports on its return; one service of three, and the others do not wait for it, and it comes by itself.

use std::time::Duration;

use anyhow::{Context, ensure};
use e2e::lab::eventually;
use e2e::site::{NoCa, Server, Site};
use serde_json::Value;

use crate::{SOON, explains, is_done};

/// Longest rest of an agent after a failure, with time to spare.
const BY_ITSELF: Duration = Duration::from_secs(90);
/// Waits for a file before it reloads, and counts.
const RELOAD: &str =
    "#!/bin/sh\necho >> /run/reloads\nwhile [ ! -e /run/go ]; do sleep 0.05; done\nexec /usr/sbin/nginx -s reload\n";

#[tokio::test]
async fn an_agent_that_is_cut_off_after_the_hint_finishes_alone_and_reports_once() -> anyhow::Result<()> {
    let (site, servers) = with_servers(1).await?;
    let [server] = servers.as_slice() else { anyhow::bail!("one server") };
    let name = server.identifier();
    server.host.write("/etc/nginx/reload", RELOAD).await?;
    server.host.ok(&["chmod", "0755", "/etc/nginx/reload"]).await?;
    let policy = std::fs::read_to_string(server.policy())?;
    std::fs::write(
        server.policy(),
        format!("{policy}\n[[command]]\nargv = [\"/etc/nginx/reload\"]\ntimeout = \"60s\"\n"),
    )?;
    let verify = format!("127.0.0.1:443/{name}");
    let words = ["certs", "create", "web", "--san", &name, "--issuer", "corp", "--agent", "h1", "--dir"];
    let target = [&server.dir(&name), "--reload", "/etc/nginx/reload", "--verify", &verify];
    eventually("the policy to be known", SOON, async || {
        Ok((site.control.certwright(&[words.as_slice(), &target].concat()).await?.status == Some(0)).then_some(()))
    })
    .await?;
    let reloads = |record: &Value| record["targets"][0]["doing"] == "reloading";
    let record = site.control.until("web", "the reload to begin", SOON, reloads).await?;
    let wanted = record["current"]["fingerprint_sha256"].clone();

    site.lab.cable(&server.host, false).await?;
    server.host.write("/run/go", "").await?;
    let argv = ["openssl", "s_client", "-connect", "127.0.0.1:443", "-servername", &name];
    let state = server.state();
    eventually("the proof, alone", SOON, async || {
        let seen = server.host.run(&argv).await?;
        let leaf = proto::x509::Chain::parse_pem(seen.stdout.as_bytes())?.leaf;
        ensure!(wanted == proto::x509::hex(&leaf.fingerprint_sha256), "it serves another one");
        // What it will report is on its disk.
        let outcomes = std::fs::read_to_string(format!("{state}/outcomes.json"))?;
        Ok(outcomes.contains("applied").then_some(()))
    })
    .await?;
    ensure!(!is_done(&site.control.certificate("web").await?), "nobody could tell the controller");

    site.lab.cable(&server.host, true).await?;
    let record = site.control.until("web", "the report", SOON, is_done).await?;
    ensure!(record["current"]["fingerprint_sha256"] == wanted, "another version: {record:#}");
    ensure!(server.host.read("/run/reloads").await?.lines().count() == 1, "it reloaded again");
    Ok(())
}

#[tokio::test]
async fn of_three_targets_one_whose_service_is_down_heals_alone() -> anyhow::Result<()> {
    let (site, mut servers) = with_servers(3).await?;
    let name = servers[0].identifier();
    let words = ["certs", "create", "web", "--san", &name, "--issuer", "corp", "--custody", "controller"];
    let target = servers[0].target(&name);
    site.control.ok(&words, &target.iter().map(String::as_str).collect::<Vec<_>>()).await?;
    for server in &servers[1..] {
        let target = server.target(&name);
        site.control.ok(&["targets", "add", "web"], &target.iter().map(String::as_str).collect::<Vec<_>>()).await?;
    }
    let all = |record: &Value| is_done(record) && targets(record, "applied") == 3;
    site.control.until("web", "all three", SOON, all).await?;

    servers[2].nginx.take().context("nginx runs")?.stop().await?;
    let first = site.control.certificate("web").await?["current"]["version"].clone();
    site.control.ok(&["certs", "renew", "web", "--override-lock", "drill"], &[]).await?;
    let partial = |record: &Value| {
        record["current"]["version"] != first && record["deployment"] == "partial" && targets(record, "applied") == 2
    };
    let record = site.control.until("web", "two of three", SOON, partial).await?;
    let renewed = record["current"].clone();
    // For 100 ms after a reload an old worker of nginx may still answer.
    let shown = async |server: &Server| {
        eventually("the renewed one to be served", SOON, async || {
            Ok((renewed["fingerprint_sha256"] == site.served(server, &name).await?.as_str()).then_some(()))
        })
        .await
    };
    for server in &servers[..2] {
        shown(server).await?;
    }
    explains(&down(&record)["error"], &["nginx"]);
    servers[2].serve(&[&name]).await?;
    let record = site.control.until("web", "the third by itself", BY_ITSELF, all).await?;
    ensure!(record["current"]["version"] == renewed["version"], "ordered anew: {record:#}");
    shown(&servers[2]).await
}

/// A private CA, and servers with nginx for the first one's name.
async fn with_servers(count: u8) -> anyhow::Result<(Site<NoCa>, Vec<Server>)> {
    let site = Site::start_without_ca().await?;
    site.control.ok(&["issuers", "add", "corp", "--private", "--names", "*.example.test"], &[]).await?;
    let mut servers = Vec::new();
    for number in 1..=count {
        let mut server = site.bare_server(number).await?;
        server.serve(&["h1.example.test"]).await?;
        server.enroll(&site.control).await?;
        server.start_agent()?;
        site.control.connected(&server.host.name).await?;
        servers.push(server);
    }
    Ok((site, servers))
}

fn targets(record: &Value, status: &str) -> usize {
    let each = record["targets"].as_array().into_iter().flatten();
    each.filter(|target| target["status"] == status).count()
}

/// The target of the third server.
fn down(record: &Value) -> &Value {
    let mut each = record["targets"].as_array().into_iter().flatten();
    each.find(|target| target["agent"] == "h3").unwrap_or(&Value::Null)
}
