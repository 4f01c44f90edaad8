//! A deployment of four files is killed at its system calls that change files (reliability.md CR10), and so is one that is rolled
//! back: after each kill the visible files are a pair, by openssl, and after the next start the agent ends with the one it
//! should. Here a sample of them; `scripts/soak --kills` takes every one.

use anyhow::{Context, ensure};
use e2e::lab::eventually;
use e2e::lab::tracer::Tracer;
use nix::sys::signal::Signal;

use crate::SOON;
use crate::files::Road;

/// Every how many calls one is killed at, when nobody asks for all: some fifteen for each of the two.
const SAMPLE: usize = 9;
/// Says to take every call.
const ALL: &str = "CERTWRIGHT_ALL_KILLS";
/// What must be among the calls, or this looks at something else than a deployment.
const EXPECTED: &[&str] = &["mkdirat", "openat2", "fchmod", "write", "fsync", "renameat", "symlinkat", "unlinkat"];

#[tokio::test]
async fn a_kill_at_any_write_of_a_deployment_leaves_a_pair_and_the_new_one_in_the_end() -> anyhow::Result<()> {
    let mut road = Road::begin("", "30s").await?;
    let mut nth = usize::MAX;
    loop {
        let before = road.shown().await?;
        let calls = killed_at(&mut road, nth).await?;
        let left = road.shown().await.with_context(|| format!("after a kill at {nth}: {:?}", calls.last()))?;
        road.server.start_agent()?;
        let wanted = road.ends_as(&["unproven"]).await?;
        ensure!(left == before || left == wanted, "neither the old pair nor the new one after {:?}", calls.last());
        let now = road.shown().await?;
        ensure!(now == wanted, "the old pair in the end, after a kill at {nth}: {:?}", calls.last());
        ensure!(road.taken_up()? == wanted, "the service has another one, after a kill at {nth}: {:?}", calls.last());
        println!("killed at {nth} of {}: {:?}", calls.len(), calls.last());
        let Some(next) = next(nth, &calls)? else { return Ok(()) };
        nth = next;
    }
}

#[tokio::test]
async fn a_kill_at_any_write_of_a_roll_back_leaves_a_pair_and_the_old_one_in_the_end() -> anyhow::Result<()> {
    let mut road = Road::begin("test ! -e broken", "30s").await?;
    std::fs::write(road.server.host.folder.join("broken"), "")?;
    let before = road.shown().await?;
    let mut nth = usize::MAX;
    loop {
        let calls = killed_at(&mut road, nth).await?;
        road.shown().await.with_context(|| format!("after a kill at {nth}: {:?}", calls.last()))?;
        road.server.start_agent()?;
        road.ends_as(&["rolled_back"]).await?;
        let now = road.shown().await?;
        ensure!(now == before, "not the pair of before, after a kill at {nth}: {:?}", calls.last());
        ensure!(road.taken_up()? == before, "the service has another one, after a kill at {nth}: {:?}", calls.last());
        println!("killed at {nth} of {}: {:?}", calls.len(), calls.last());
        let Some(next) = next(nth, &calls)? else { return Ok(()) };
        nth = next;
    }
}

/// Returns the next call to kill at; the first round counts them.
fn next(nth: usize, calls: &[String]) -> anyhow::Result<Option<usize>> {
    let step = if std::env::var_os(ALL).is_some() { 1 } else { SAMPLE };
    if nth == usize::MAX {
        for name in EXPECTED {
            ensure!(calls.iter().any(|call| call.starts_with(name)), "no {name} in {calls:#?}");
        }
        return Ok(Some(1));
    }
    // A round that was not cut had fewer: that is the end.
    Ok(Some(nth + step).filter(|_| calls.len() >= nth))
}

/// Renews, and kills the agent at this call, or once the renewal is deployed; returns the calls that were begun.
async fn killed_at(road: &mut Road, nth: usize) -> anyhow::Result<Vec<String>> {
    let tracer = Tracer::start(&road.agent_processes()?, nth)?;
    road.renew().await?;
    eventually("the kill or the end", SOON, async || {
        Ok((tracer.is_over() || road.end(&["unproven", "rolled_back"]).await?.is_some()).then_some(()))
    })
    .await?;
    // Its end is the tracer's to see, not ours.
    let agent = road.server.agent.take().context("the agent runs")?;
    if !tracer.is_over() {
        agent.apply.signal(Signal::SIGKILL)?;
        agent.net.signal(Signal::SIGKILL)?;
    }
    tokio::task::spawn_blocking(|| tracer.calls()).await?
}
