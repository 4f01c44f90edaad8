//! Random crash runs by seed, as many as asked for, on all cores: `soak [N] [--seed S]`. It names the seed of every run
//! that failed; with it the run can be repeated. `soak --months [--seed S]` is the time machine with a thousand certificates
//! instead, `soak --mass [N]` the replacement of ten thousand in a moved window. Started by `scripts/soak`.
#![allow(clippy::print_stdout, reason = "its output is for people")]

use std::time::Duration;

use anyhow::{Context as _, ensure};
use e2e::soak::{Total, many};
use proto::clock::{Clock as _, SystemClock};

/// Runs when nothing else is said.
const RUNS: u64 = 200;
/// Certificates of a mass replacement when nothing else is said.
const MASS: u64 = 10_000;
/// Runs between two words on how far it is.
const TOLD_EVERY: u64 = 500;

fn main() -> anyhow::Result<()> {
    let is_mass = std::env::args().any(|word| word == "--mass");
    let (runs, first) = wish(if is_mass { MASS } else { RUNS })?;
    if is_mass {
        return replace_all(runs);
    }
    if std::env::args().any(|word| word == "--months") {
        return through_the_months(first);
    }
    println!("{runs} runs, seeds from {first}");
    let began = SystemClock.now();
    let mut total = Total::default();
    for done in (0..runs).step_by(usize::try_from(TOLD_EVERY)?) {
        let some = many(TOLD_EVERY.min(runs - done), first.wrapping_add(done));
        total.sum.add(some.sum);
        total.failed.extend(some.failed);
        let took = Duration::try_from(SystemClock.now().duration_since(began))?;
        println!("{} runs, {} failed, {} s", TOLD_EVERY.min(runs - done) + done, total.failed.len(), took.as_secs());
    }
    let sum = total.sum;
    println!("{} kills struck; {} orders, {} of them extra", sum.kills, sum.orders, sum.extra_orders);
    ensure!(total.failed.is_empty(), "failed; repeat one with scripts/soak 1 --seed SEED: {:?}", total.failed);
    println!("all passed");
    Ok(())
}

fn through_the_months(seed: u64) -> anyhow::Result<()> {
    println!("a thousand certificates through ninety days, seed {seed}");
    let began = SystemClock.now();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build()?;
    let report = runtime.block_on(Box::pin(e2e::months::run(10, seed)));
    let took = Duration::try_from(SystemClock.now().duration_since(began))?;
    println!("{report:?}\nnone expired, in {} s", took.as_secs());
    Ok(())
}

fn replace_all(certificates: u64) -> anyhow::Result<()> {
    println!("{certificates} certificates, and the CA moves the window of all of them to the same six hours");
    let began = SystemClock.now();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build()?;
    let report = runtime.block_on(Box::pin(e2e::mass::run(usize::try_from(certificates)?)));
    let took = Duration::try_from(SystemClock.now().duration_since(began))?;
    println!("{report:?}\nall inside it, in {} s", took.as_secs());
    Ok(())
}

/// Returns how many runs are asked for, and the first seed: by the time when none is named.
fn wish(usual: u64) -> anyhow::Result<(u64, u64)> {
    let mut words = std::env::args().skip(1);
    let (mut runs, mut seed) = (usual, None);
    while let Some(word) = words.next() {
        if word == "--months" || word == "--mass" {
            continue;
        }
        if word == "--seed" {
            seed = Some(words.next().context("--seed needs a number")?.parse()?);
        } else {
            runs = word.parse().with_context(|| format!("{word} is no number of runs"))?;
        }
    }
    let by_time = u64::try_from(SystemClock.now().as_second())?;
    Ok((runs, seed.unwrap_or(by_time)))
}
