//! The demo: a CA, a controller and two web servers on hosts of their own; a certificate for each with one command; the
//! proof. Ends in the dashboard, or with `--headless` after the proof. With `--private` the controller is the CA, where Pebble
//! cannot be had. Run by `scripts/demo`, which brings namespaces.
#![allow(clippy::print_stdout, clippy::indexing_slicing, reason = "its output is for people; its input is our own")]

use std::time::Duration;

use anyhow::ensure;
use e2e::lab::program;
use e2e::site::{Names, NoCa, Server, Site};
use tokio::time::Instant;

/// Of the certificates, one for each server.
const CERTIFICATES: [&str; 2] = ["web", "shop"];

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let asked = |option: &str| std::env::args().any(|word| word == option);
    let since = Instant::now();
    if asked("--private") {
        told("A controller on a host of its own; no CA beside it");
        let site = Site::start_without_ca().await?;
        done(since);
        told("The controller becomes a CA for names below example.test, and for nothing else");
        typed(&site, &["issuers", "add", "lab", "--private", "--names", "*.example.test"]).await?;
        let servers = road(&site, &[]).await?;
        told("The proof, as a client sees it: whoever has the exported root trusts them, others do not");
        trusted(&site, &servers).await?;
        return ended(&site, asked("--headless")).await;
    }
    told("A CA (Pebble), a DNS server and a controller, each on a host of its own");
    let site = Site::start_without_issuer().await?;
    done(since);
    told("The controller learns its CA: an ACME directory with its own root");
    let root = site.ca.root();
    let directory = site.ca.directory();
    typed(&site, &["issuers", "add", "lab", "--directory", &directory, "--root", &root, "--accept-terms"]).await?;
    let _servers = road(&site, &["--http01", "standalone:80"]).await?;
    ended(&site, asked("--headless")).await
}

/// What is the same with any CA; `more` are the words of `certs create` that it needs. Returns the servers, which run until
/// they are dropped.
async fn road<Ca: Names>(site: &Site<Ca>, more: &[&str]) -> anyhow::Result<Vec<Server>> {
    told("Two servers with nginx; each agent joins with a one-time token");
    let mut servers = Vec::new();
    for number in [1, 2] {
        let since = Instant::now();
        servers.push(site.server(number).await?);
        println!("  h{number}: nginx serves a certificate of its own making, the agent is connected");
        done(since);
    }

    told("One command per certificate: obtain, deploy, reload, prove");
    for (server, name) in servers.iter().zip(CERTIFICATES) {
        certificate(site, server, name, more).await?;
    }

    told("The proof, from outside: what nginx shows is what the controller issued");
    for (server, name) in servers.iter().zip(CERTIFICATES) {
        proof(site, server, name).await?;
    }
    Ok(servers)
}

/// Clients take the CA by its exported root, and without it they refuse what nginx shows.
async fn trusted(site: &Site<NoCa>, servers: &[Server]) -> anyhow::Result<()> {
    let root = site.control.path("lab.crt");
    typed(site, &["issuers", "root", "lab", "--out", &root]).await?;
    for server in servers {
        let name = server.identifier();
        let (url, resolved) = (format!("https://{name}/"), format!("{name}:443:{}", server.host.address));
        let fetch = ["curl", "-sS", "--max-time", "5", "--resolve", &resolved, &url];
        let without = site.control.host.run(&fetch).await?;
        ensure!(without.status != Some(0), "trusted without its root: {without}");
        let with = site.control.host.ok(&[fetch.as_slice(), &["--cacert", &root]].concat()).await?;
        println!("  $ curl {url}\n    {}", without.stderr.lines().next().unwrap_or_default());
        println!("  $ curl --cacert lab.crt {url}\n    {}", with.trim_end());
    }
    Ok(())
}

/// The end: the dashboard, unless nobody is there to look.
async fn ended<Ca: Names>(site: &Site<Ca>, headless: bool) -> anyhow::Result<()> {
    if headless {
        return Ok(());
    }
    told("The dashboard. Leave with Q; everything here ends with it");
    let status = site.control.host.command(&[&program("certwright")?, "--socket", &site.control.socket()])?.status();
    ensure!(status.await?.success(), "the dashboard failed");
    Ok(())
}

async fn certificate<Ca: Names>(site: &Site<Ca>, server: &Server, name: &str, more: &[&str]) -> anyhow::Result<()> {
    let identifier = server.identifier();
    let target = server.target(&identifier);
    let target: Vec<&str> = target.iter().map(String::as_str).collect();
    let words = ["certs", "create", name, "--san", &identifier, "--issuer", "lab"];
    typed(site, &[&words, more, &target, &["--wait"]].concat()).await
}

async fn proof<Ca: Names>(site: &Site<Ca>, server: &Server, name: &str) -> anyhow::Result<()> {
    let identifier = server.identifier();
    site.proven(server, name, &identifier).await?;
    let record = site.control.certificate(name).await?;
    let served = site.served(server, &identifier).await?;
    println!("  {identifier}  serial {}", record["current"]["serial"].as_str().unwrap_or_default());
    println!("    openssl s_client  sha256 {served}");
    println!("    certwright        sha256 {}", record["current"]["fingerprint_sha256"].as_str().unwrap_or_default());
    Ok(())
}

/// Shows a command as an operator types it, runs it, and shows its answer.
async fn typed<Ca: Names>(site: &Site<Ca>, words: &[&str]) -> anyhow::Result<()> {
    let quoted =
        words.iter().map(|word| if word.contains([' ', '*']) { format!("'{word}'") } else { (*word).to_owned() });
    println!("  $ certwright {}", quoted.collect::<Vec<_>>().join(" "));
    let since = Instant::now();
    let answer = site.control.ok(words, &[]).await?;
    for line in answer.lines() {
        println!("  {line}");
    }
    done(since);
    Ok(())
}

fn told(what: &str) {
    println!("\n\u{1b}[1m{what}\u{1b}[0m");
}

fn done(since: Instant) {
    let took: Duration = since.elapsed();
    println!("  ({:.1} s)", took.as_secs_f32());
}
