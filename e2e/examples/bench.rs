//! The bench: 50 single-name certificates through a controller and one agent, deployed to nginx and proven, one by one
//! and 10 at once; beside it lego and uacme on the same Pebble, which deploy nothing. Prints its part of docs/performance.md.
//! Run by `scripts/bench`, which builds for release and brings namespaces.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "its output is the document")]
#![allow(clippy::as_conversions, reason = "figures for people need no exact conversion")]
#![allow(clippy::indexing_slicing, reason = "a JSON value without a field gives null")]

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use e2e::lab::{Host, Process, program};
use e2e::site::{Server, Site};
use futures_util::StreamExt;
use futures_util::stream;
use jiff::Timestamp;
use serde_json::Value;
use tokio::time::{Instant, sleep};

/// Certificates per measurement.
const CERTIFICATES: usize = 50;
/// How many are asked for at the same time in the second measurement.
const AT_ONCE: usize = 10;
/// Attempts at one measurement: Pebble deadlocks now and then, and the measurement is then repeated.
const ATTEMPTS: usize = 4;
/// Deployments of one certificate, one after the other.
const DEPLOYMENTS: usize = 200;
/// Longest wait for one of them.
const DEPLOYMENT_TIME_MAX: Duration = Duration::from_secs(30);
/// How long the agent rests before its memory is read.
const REST: Duration = Duration::from_secs(10);
/// Where nginx answers for lego and uacme.
const WEB_ROOT: &str = "/var/www/html";

/// What one client needed.
struct Figure {
    client: &'static str,
    at_once: usize,
    took: Duration,
    requests: f64,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let mut site = Site::start().await?;
    let server = site.server(1).await?;
    let other = web_server(&site).await?;
    trust_pebble(&site, &other.host).await?;
    let mut figures = Vec::new();
    for at_once in [1, AT_ONCE] {
        for client in ["certwright", "uacme", "lego"] {
            let figure = measure(&mut site, &server, &other, client, at_once).await?;
            eprintln!("{client}, {at_once} at once: {:.2} s", figure.took.as_secs_f32());
            figures.push(figure);
        }
    }
    let deployments = deployments(&site, &server).await?;
    sleep(REST).await;
    let halves = server.agent.as_ref().context("the agent runs")?;
    let agent = memory(&[&halves.apply, &halves.net])?;
    let controller = memory(&[site.control.process.as_ref().context("the controller runs")?])?;
    document(&figures, &deployments, &agent, &controller)
}

/// A server without an agent whose nginx serves a web root for the other clients.
async fn web_server(site: &Site) -> anyhow::Result<Server> {
    let mut server = site.bare_server(2).await?;
    server.host.own_folder("/var/www", "4m").await?;
    server.host.ok(&["mkdir", "-p", &format!("{WEB_ROOT}/.well-known/acme-challenge")]).await?;
    let name = server.identifier();
    server.serve(&[&name]).await?;
    server.configure(&[&name], &format!("  server {{ listen 80; root {WEB_ROOT}; }}\n")).await?;
    server.host.ok(&["/usr/sbin/nginx", "-s", "reload"]).await?;
    Ok(server)
}

/// uacme knows only the system's roots: this host gets its own copy with Pebble's added.
async fn trust_pebble(site: &Site, host: &Host) -> anyhow::Result<()> {
    let system = "/etc/ssl/certs/ca-certificates.crt";
    let both = format!("{}{}", host.read(system).await?, std::fs::read_to_string(site.ca.root())?);
    let copy = host.folder.join("roots.pem");
    std::fs::write(&copy, both)?;
    host.ok(&["mount", "--bind", &copy.to_string_lossy(), system]).await.map(drop)
}

async fn measure(
    site: &mut Site,
    server: &Server,
    other: &Server,
    client: &'static str,
    at_once: usize,
) -> anyhow::Result<Figure> {
    for attempt in 0..ATTEMPTS {
        let names: Vec<String> =
            (0..CERTIFICATES).map(|number| format!("{client}-{at_once}-{attempt}-{number}.example.test")).collect();
        let host = if client == "certwright" { server } else { other };
        for name in &names {
            site.ca.name(name, &[&host.host.address.to_string()]).await?;
        }
        prepare(site, host, client, &names).await?;
        let (before, since) = (site.ca.requests(), Instant::now());
        let mut running = stream::iter(&names).map(|name| one(site, host, client, name)).buffer_unordered(at_once);
        let mut outcome = Ok(());
        while let Some(done) = running.next().await {
            outcome = outcome.and(done);
        }
        drop(running);
        let (took, requests) = (since.elapsed(), site.ca.requests() - before);
        match outcome {
            Ok(()) => return Ok(Figure { client, at_once, took, requests: requests as f64 / CERTIFICATES as f64 }),
            Err(error) if site.ca.heal().await? => eprintln!("Pebble had deadlocked, once more: {error:#}"),
            Err(error) => return Err(error),
        }
    }
    bail!("Pebble deadlocked {ATTEMPTS} times")
}

/// What the agent needed for one deployment.
struct Deployment {
    /// Four files, from their fetching to the switch.
    files: Duration,
    /// With nginx's reload and the proof.
    whole: Duration,
}

/// Renews a certificate of a private CA again and again; each version is deployed as four files and proven.
async fn deployments(site: &Site, server: &Server) -> anyhow::Result<Vec<Deployment>> {
    let name = server.identifier();
    server.configure(&[&name], "").await?;
    server.host.ok(&["/usr/sbin/nginx", "-s", "reload"]).await?;
    site.control.ok(&["issuers", "add", "corp", "--private", "--names", "*.example.test"], &[]).await?;
    let target = server.target(&name);
    let words = ["certs", "create", "often", "--san", &name, "--issuer", "corp", "--wait=60s"];
    let words: Vec<&str> = words.into_iter().chain(target.iter().map(String::as_str)).collect();
    site.control.ok(&words, &[]).await?;
    let mut deployments = Vec::new();
    let mut before = site.control.certificate("often").await?["current"]["version"].clone();
    while deployments.len() < DEPLOYMENTS {
        site.control.ok(&["certs", "renew", "often", "--override-lock", "bench"], &[]).await?;
        let done = |record: &Value| {
            let (target, version) = (&record["targets"][0], &record["current"]["version"]);
            *version != before && target["version"] == *version && target["status"] == "applied"
        };
        let record = site.control.until("often", "a deployment", DEPLOYMENT_TIME_MAX, done).await?;
        deployments.push(deployment(&record["targets"][0])?);
        before = record["current"]["version"].clone();
    }
    Ok(deployments)
}

fn deployment(target: &Value) -> anyhow::Result<Deployment> {
    let at = |field: &str| -> anyhow::Result<Timestamp> { Ok(target[field].as_str().context("a time")?.parse()?) };
    let mut steps = target["steps"].as_array().context("steps")?.iter();
    let files = steps.find(|step| step["name"] == "write").and_then(|step| step["took_ms"].as_u64());
    let whole = Duration::try_from(at("started_at")?.duration_until(at("finished_at")?))?;
    Ok(Deployment { files: Duration::from_millis(files.context("files were written")?), whole })
}

/// Returns the value below which so many of a hundred are, by rank.
fn percentile(mut values: Vec<Duration>, hundredth: usize) -> Duration {
    values.sort_unstable();
    let rank = (values.len() * hundredth).div_ceil(100).saturating_sub(1);
    values.get(rank).copied().unwrap_or_default()
}

/// Brings a client to where its first certificate needs no new account, as it would be after its first day.
async fn prepare(site: &Site, host: &Server, client: &str, names: &[String]) -> anyhow::Result<()> {
    if client == "certwright" {
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        host.configure(&names, "").await?;
        return host.host.ok(&["/usr/sbin/nginx", "-s", "reload"]).await.map(drop);
    }
    let name = format!("warm-{}", names.first().context("there are names")?);
    site.ca.name(&name, &[&host.host.address.to_string()]).await?;
    if client == "uacme" {
        let folder = host.host.folder.join("uacme");
        let known = folder.exists();
        let (folder, url) = (folder.to_string_lossy(), site.ca.directory());
        if known {
            return Ok(());
        }
        host.host.ok(&["uacme", "-y", "-t", "EC", "-a", &url, "-c", &folder, "new"]).await?;
    }
    one(site, host, client, &name).await
}

/// Gets one certificate with one client.
async fn one(site: &Site, host: &Server, client: &str, name: &str) -> anyhow::Result<()> {
    let (url, folder) = (site.ca.directory(), host.host.folder.join(client));
    let folder = folder.to_string_lossy();
    match client {
        "certwright" => {
            let certificate = name.trim_end_matches(".example.test");
            site.create(host, certificate, name, &["--wait=120s"]).await?.expect_ok().map(drop)
        }
        "uacme" => {
            let hook = ["env", "UACME_CHALLENGE_PATH=/var/www/html/.well-known/acme-challenge", "uacme", "-t", "EC"];
            let rest = ["-a", &url, "-c", &folder, "-h", "/usr/share/uacme/uacme.sh", "issue", name];
            host.host.ok(&[hook.as_slice(), &rest].concat()).await.map(drop)
        }
        _ => {
            let roots = format!("LEGO_CA_CERTIFICATES={}", site.ca.root());
            let lego = ["env", &roots, "lego", "--server", &url, "--accept-tos", "--email", "a@example.test"];
            let rest = ["--path", &folder, "--http", "--http.webroot", WEB_ROOT, "--domains", name, "run"];
            host.host.ok(&[lego.as_slice(), &rest].concat()).await.map(drop)
        }
    }
}

/// Reads the resident memory of a process, as `/proc` spells it.
fn memory(processes: &[&Process]) -> anyhow::Result<String> {
    let mut sum = 0.0;
    for process in processes {
        let status = std::fs::read_to_string(format!("/proc/{}/status", process.id()?))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("VmRSS")?;
        sum += line.trim().trim_end_matches(" kB").parse::<f64>()?;
    }
    Ok(format!("{:.1} MB", sum / 1_000.0 * 1.024))
}

fn size(name: &str) -> anyhow::Result<String> {
    Ok(format!("{:.1} MB", std::fs::metadata(program(name)?)?.len() as f64 / 1e6))
}

fn document(figures: &[Figure], deployments: &[Deployment], agent: &str, controller: &str) -> anyhow::Result<()> {
    ensure!(program("certwright")?.contains("/release/"), "figures come from a release build: scripts/bench");
    println!("Measured by `scripts/bench`, which writes this part. {}\n", machine()?);
    println!(
        "{CERTIFICATES} single-name certificates from one Pebble (validation pauses off, no refused nonces, account \
         warm), in one run. certwright's time is from the operator's command to the proof: order, HTTP-01 by the agent, \
         files, `nginx -s reload`, and a TLS handshake that shows the new leaf. lego and uacme stop at the file, with a \
         web root that nginx serves; they deploy nothing.\n"
    );
    println!(
        "nginx sets two floors: its master lets old and new workers accept side by side for 100 ms after every reload and \
         reads the next signal only then, so {CERTIFICATES} reloads one after the other take it more than 5 s; what comes \
         while one is read shares the next. And certwright never asks one CA for more than 100 things at once and 100 a \
         second after that.\n"
    );
    println!("| client | one by one | {AT_ONCE} at once | ACME requests per certificate |\n|---|---|---|---|");
    for first in figures.iter().filter(|figure| figure.at_once == 1) {
        let second = figures.iter().find(|other| other.client == first.client && other.at_once == AT_ONCE);
        let second = second.context("both were measured")?;
        let (one, ten) = (first.took.as_secs_f32(), second.took.as_secs_f32());
        println!("| {} | {one:.1} s | {ten:.1} s | {:.2} / {:.2} |", first.client, first.requests, second.requests);
    }
    println!("\n{DEPLOYMENTS} deployments of four files to nginx, one after the other, as the agent tells them:\n");
    println!("| step | p50 | p99 | longest |\n|---|---|---|---|");
    let row = |step: &str, each: fn(&Deployment) -> Duration| {
        let of = |hundredth| percentile(deployments.iter().map(each).collect(), hundredth).as_millis();
        println!("| {step} | {} ms | {} ms | {} ms |", of(50), of(99), of(100));
    };
    row("fetch, four files and the switch", |one| one.files);
    row("the same with reload and proof", |one| one.whole);
    println!("\n| program | binary | memory |\n|---|---|---|");
    println!("| certwright-agent | {} | {agent}, idle after these certificates |", size("certwright-agent")?);
    println!("| certwright-controller | {} | {controller}, idle after them |", size("certwright-controller")?);
    println!("| certwright | {} | |", size("certwright")?);
    Ok(())
}

/// Says what it was measured on.
fn machine() -> anyhow::Result<String> {
    let cpu = std::fs::read_to_string("/proc/cpuinfo")?;
    let model = cpu.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or(": unknown processor");
    let cores = std::thread::available_parallelism()?;
    let debian = std::fs::read_to_string("/etc/debian_version").unwrap_or_default();
    let kernel = std::fs::read_to_string(Path::new("/proc/sys/kernel/osrelease"))?;
    let model = model.trim_start_matches(['\t', ':', ' ']);
    Ok(format!("Machine: {cores} cores of {model}, Debian {}, Linux {}.", debian.trim(), kernel.trim()))
}
