//! The demo: a CA, a controller and two web servers on hosts of their own; a certificate for each with one command; the
//! proof. Ends in the dashboard, or with `--headless` after the proof. Run by `scripts/demo`, which brings namespaces.
#![allow(clippy::print_stdout, clippy::indexing_slicing, reason = "its output is for people; its input is our own")]

use std::time::Duration;

use anyhow::ensure;
use e2e::lab::program;
use e2e::site::{Server, Site};
use tokio::time::Instant;

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let headless = std::env::args().any(|word| word == "--headless");
    let since = Instant::now();
    told("A CA (Pebble), a DNS server and a controller, each on a host of its own");
    let site = Site::start_without_issuer().await?;
    done(since);

    told("The controller learns its CA: an ACME directory with its own root");
    let root = site.ca.root();
    let directory = site.ca.directory();
    typed(&site, &["issuers", "add", "lab", "--directory", &directory, "--root", &root, "--accept-terms"]).await?;

    told("Two servers with nginx; each agent joins with a one-time token");
    let mut servers = Vec::new();
    for number in [1, 2] {
        let since = Instant::now();
        servers.push(site.server(number).await?);
        println!("  h{number}: nginx serves a certificate of its own making, the agent is connected");
        done(since);
    }

    told("One command per certificate: order, validate, deploy, reload, prove");
    for (server, name) in servers.iter().zip(["web", "shop"]) {
        certificate(&site, server, name).await?;
    }

    told("The proof, from outside: what nginx shows is what the controller issued");
    for (server, name) in servers.iter().zip(["web", "shop"]) {
        proof(&site, server, name).await?;
    }
    if headless {
        return Ok(());
    }
    told("The dashboard. Leave with Q; everything here ends with it");
    let status = site.control.host.command(&[&program("certwright")?, "--socket", &site.control.socket()])?.status();
    ensure!(status.await?.success(), "the dashboard failed");
    Ok(())
}

async fn certificate(site: &Site, server: &Server, name: &str) -> anyhow::Result<()> {
    let identifier = server.identifier();
    let target = server.target(&identifier);
    let words = ["certs", "create", name, "--san", &identifier, "--issuer", "lab", "--http01", "standalone:80"];
    let words: Vec<&str> = words.into_iter().chain(target.iter().map(String::as_str)).chain(["--wait"]).collect();
    typed(site, &words).await
}

async fn proof(site: &Site, server: &Server, name: &str) -> anyhow::Result<()> {
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
async fn typed(site: &Site, words: &[&str]) -> anyhow::Result<()> {
    let quoted = words.iter().map(|word| if word.contains(' ') { format!("'{word}'") } else { (*word).to_owned() });
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
