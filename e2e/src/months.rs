//! The time machine: a fleet with mixed lifetimes through three months with two outages of the CA and random crashes.
//! Idle hours are leapt over by the wall clock of all programs at once, as if their machines had been suspended together:
//! due times, lifetimes and back-off see the hours, the heartbeats of connections do not. `tests/sim/months.rs` does it
//! with a hundred certificates, `scripts/soak --months` with a thousand.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::fake_ca::fault::{Fault, RequestKind, When};
use crate::fake_ca::{Issue, Options};
use crate::power::disk::split_mix;
use crate::power::{KillPoint, Step};
use crate::soak::{AGENT_STEPS, CONTROLLER_STEPS};
use crate::world::operator::Wish;
use crate::world::program::AgentSite;
use crate::world::{Plan, World};
use jiff::{SignedDuration, Timestamp};
use proto::clock::Clock as _;
use proto::types::v1::Custody;

/// The fleet: end of the names, how many of a hundred certificates, and their lifetime in hours.
const FLEET: [(&str, usize, i64); 4] =
    [("d90.test", 50, 90 * 24), ("d64.test", 30, 64 * 24), ("d45.test", 18, 45 * 24), ("h160.test", 2, 160)];
/// Most servers with an agent. Each answers challenges; every twentieth certificate is also deployed and proven on one.
const AGENTS_MAX: usize = 10;
/// Certificates for each server, until there are so many.
const CERTIFICATES_EACH: usize = 25;
const DEPLOYED_EVERY: usize = 20;
/// How long the story is.
const DAYS: i64 = 90;
/// One leap, and one while the CA is away and until all is caught up.
const LEAP: SignedDuration = SignedDuration::from_hours(6);
const SMALL_LEAP: SignedDuration = SignedDuration::from_mins(30);
/// Time that all programs live through after each leap: the wall clock is looked at every minute.
const AWAKE: Duration = Duration::from_secs(80);
/// The outages, in hours since the start: hours, and three days.
const OUTAGES: [(i64, i64); 2] = [(15 * 24, 15 * 24 + 7), (48 * 24, 51 * 24)];
/// Small leaps go on for so long after an outage, in hours.
const CATCHING_UP: i64 = 12;
/// One program dies at a random step after about so many leaps.
const CRASH_EVERY: u64 = 10;
/// All that one version costs at the CA: newOrder, authorization, challenge, finalize, certificate, and polls.
const REQUESTS_EACH: usize = 8;
/// What a start of the controller may cost beyond that: directory, account, nonces for what it does in parallel.
const REQUESTS_OF_A_START: usize = 20;

/// A leap makes the controller ask the CA for the time, once: without its word it would not trust its own clock.
const REQUESTS_OF_A_LEAP: usize = 1;

async fn fleet(world: &mut World, hundreds: usize) -> usize {
    let mut number = 0;
    for (zone, count, hours) in FLEET {
        world.ca.set_lifetime_under(zone, hours * 3_600);
        for _ in 0..count * hundreds {
            let site = &world.agents[number % world.agents.len()];
            let mut wish = Wish::new(&format!("w{number}"), Custody::Controller);
            wish.identifiers = vec![format!("w{number}.{zone}")];
            world.dns.set(&wish.identifiers[0], &[site.machine.address()]);
            wish.responders = vec![site.machine.name().to_owned()];
            if number.is_multiple_of(DEPLOYED_EVERY) {
                wish.custody = if number % (2 * DEPLOYED_EVERY) == 0 { Custody::Agent } else { Custody::Controller };
                wish.target = Some(site.target(&wish.name, &wish.identifiers[0]));
            }
            world.operator.create(&wish).await.expect("the wish is accepted");
            number += 1;
        }
    }
    let issued = async |world: &World| world.ca.issues().len() == number;
    world.settle("every certificate has its first version", Duration::from_secs(7_200), issued).await;
    number
}

/// Plans the death of one program at one of its next steps.
fn sow(world: &World, seed: &mut u64) {
    let mut draw = |below: u64| {
        *seed = split_mix(*seed);
        *seed % below
    };
    let (switch, steps): (_, &[Step]) = if draw(2) == 0 {
        (world.controller.switch(), &CONTROLLER_STEPS)
    } else {
        let site = &world.agents[usize::try_from(draw(world.agents.len() as u64)).unwrap()];
        (site.switch(), &AGENT_STEPS)
    };
    let step = steps[usize::try_from(draw(steps.len() as u64)).unwrap()];
    switch.plan(Some(KillPoint { step, nth: switch.count(step) + 1 + draw(12) }));
}

/// Lets the months pass; returns how often the clock leapt, and how often the controller and the agents died.
async fn months(world: &mut World, mut seed: u64) -> (usize, (u64, u64)) {
    let start = world.clock.now();
    let hours = |hours: i64| start + SignedDuration::from_hours(hours);
    let (mut away, mut leaps) = (false, 0);
    while world.clock.now() < hours(DAYS * 24) {
        let now = world.clock.now();
        let outage = OUTAGES.iter().any(|(from, to)| (hours(*from)..hours(*to)).contains(&now));
        let slow = OUTAGES.iter().any(|(from, to)| (hours(from - 6)..hours(to + CATCHING_UP)).contains(&now));
        if outage && !away {
            RequestKind::ALL.iter().for_each(|kind| world.ca.fail(*kind, When::Always, Fault::Refused));
        } else if away && !outage {
            world.ca.heal();
        }
        away = outage;
        seed = split_mix(seed);
        if seed.is_multiple_of(CRASH_EVERY) {
            sow(world, &mut seed);
        }
        leaps += 1;
        world.clock.leap(if slow { SMALL_LEAP } else { LEAP });
        for _ in 0..8 {
            tokio::time::sleep(AWAKE / 8).await;
            world.revive().await;
        }
    }
    let agents = world.agents.iter().map(AgentSite::deaths).sum();
    (leaps, (world.controller.deaths(), agents))
}

/// By name: when each version was issued, and until when it was good.
fn histories(issues: Vec<Issue>) -> BTreeMap<String, Vec<(Timestamp, Timestamp)>> {
    let mut histories: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for issue in issues {
        histories.entry(issue.identifiers[0].clone()).or_default().push((issue.at, issue.not_after));
    }
    histories.values_mut().for_each(|history| history.sort_unstable());
    histories
}

fn judge(name: &str, history: &[(Timestamp, Timestamp)], now: Timestamp) -> Vec<String> {
    let mut broken = Vec::new();
    for pair in history.windows(2) {
        let [(before, end), (at, _)] = pair else { unreachable!("windows of two") };
        if at >= end {
            broken.push(format!("{name} had expired at {end}; renewed at {at}"));
        }
        if at.duration_since(*before) < end.duration_since(*before) / 3 {
            broken.push(format!("{name} was issued at {before} and again at {at}, good until {end}"));
        }
    }
    if history.last().is_none_or(|(_, end)| *end <= now) {
        broken.push(format!("{name} has expired: {history:?}"));
    }
    broken
}

/// What came of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Report {
    /// Certificates in the fleet.
    pub certificates: usize,
    /// Versions issued.
    pub versions: usize,
    /// Orders at the CA beyond them.
    pub extra_orders: usize,
    /// Requests that the CA answered.
    pub requests: usize,
    /// Kills that struck: of the controller, and of agents.
    pub deaths: (u64, u64),
}

/// Lives through the months with so many hundreds of certificates. Everything else follows from the seed.
///
/// # Panics
/// When a certificate expired, was ordered twice, or the CA was asked too much.
pub async fn run(hundreds: usize, seed: u64) -> Report {
    let ca = Options { reuse_authorizations: true, ..Options::default() };
    let agents = (hundreds * 100 / CERTIFICATES_EACH).min(AGENTS_MAX);
    let mut world = World::begin(Plan { agents, ca, ..Plan::default() }).await;
    let certificates = fleet(&mut world, hundreds).await;
    let (leaps, deaths) = months(&mut world, seed).await;
    world.controller.plan(None);
    world.agents.iter().for_each(|site| site.plan(None));

    let (issues, now) = (world.ca.issues(), world.clock.now());
    let versions = issues.len();
    let histories = histories(issues);
    assert_eq!(histories.len(), certificates);
    let broken: Vec<_> = histories.iter().flat_map(|(name, history)| judge(name, history, now)).collect();
    assert!(broken.is_empty(), "seed {seed}: {} findings: {broken:#?}", broken.len());
    let extra_orders = world.ca.orders().len() - versions;
    // An agent that dies while the CA looks at it costs that order.
    assert!(extra_orders as u64 <= deaths.1, "seed {seed}: {extra_orders} orders beyond {versions} versions");
    let requests = world.ca.log().iter().filter(|line| line.status != 0).count();
    let restarts = usize::try_from(deaths.0).unwrap();
    let budget = versions * REQUESTS_EACH + restarts * REQUESTS_OF_A_START + leaps * REQUESTS_OF_A_LEAP;
    assert!(requests <= budget, "seed {seed}: {requests} requests for {versions} versions, {restarts} restarts");
    world.check().await;
    Report { certificates, versions, extra_orders, requests, deaths }
}
