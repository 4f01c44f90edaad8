//! One random crash run: a small world, a few wishes, and kills of either program at random steps, again during recovery,
//! on a disk that may tear writes, at a CA that may lose answers. Everything follows from the seed. `tests/sim/soak.rs`
//! does 200 of them, `scripts/soak` as many as it is told.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use proto::operator::v1 as api;
use proto::types::v1::Custody;

use crate::fake_ca::Options;
use crate::fake_ca::fault::{Fault, RequestKind, When};
use crate::power::disk::{Unsynced, split_mix};
use crate::power::{KillPoint, Step};
use crate::world::operator::Wish;
use crate::world::program::AgentSite;
use crate::world::{Plan, World};

/// Everything must be well so long after the last kill: lost answers cost attempts, and their back-off.
const RECOVERY: Duration = Duration::from_secs(4 * 3_600);
/// Longest pause between two kills of one run.
const PAUSE_SECONDS_MAX: u64 = 40;
/// Kills of one run, at most.
const KILLS_MAX: u64 = 6;
/// A program makes up to so many steps of one kind on the road of a certificate.
const STEPS_MAX: u64 = 45;
/// A kill that is meant for the recovery strikes within the first steps of the new life.
const RECOVERY_STEPS_MAX: u64 = 8;
/// What the controller can die at.
pub const CONTROLLER_STEPS: [Step; 5] =
    [Step::BeforeSync, Step::AfterSync, Step::CaRequest, Step::CaReply, Step::NetworkWrite];
/// What an agent can die at.
pub const AGENT_STEPS: [Step; 3] = [Step::HostCall, Step::HostReturn, Step::NetworkWrite];
/// Whose answers a CA may lose.
const LOSABLE: [RequestKind; 6] = [
    RequestKind::NewOrder,
    RequestKind::Order,
    RequestKind::Authorization,
    RequestKind::Challenge,
    RequestKind::Finalize,
    RequestKind::Certificate,
];

/// What came of one run that ended well.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Kills that struck.
    pub kills: u64,
    /// Orders at the CA.
    pub orders: usize,
    /// Orders beyond one for each version.
    pub extra_orders: usize,
}

/// What came of many runs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Total {
    /// The sum of the runs that ended well.
    pub sum: Report,
    /// The seeds of the others, in order.
    pub failed: Vec<u64>,
}

/// Does `runs` runs, with the seeds from `first` on, on all cores. What a failed run says is on standard error.
///
/// # Panics
/// When no thread can be made.
#[must_use]
pub fn many(runs: u64, first: u64) -> Total {
    let next = Arc::new(AtomicU64::new(0));
    let worker = |_| {
        let next = next.clone();
        thread::spawn(move || work(&next, runs, first))
    };
    let workers: Vec<_> = (0..thread::available_parallelism().map_or(1, usize::from)).map(worker).collect();
    let mut total = Total::default();
    for worker in workers {
        let Total { sum, failed } = worker.join().expect("a worker only counts");
        total.sum.add(sum);
        total.failed.extend(failed);
    }
    total.failed.sort_unstable();
    total
}

/// Takes seeds until there are none left. A run is a thread of its own, because a broken promise is a panic.
fn work(next: &AtomicU64, runs: u64, first: u64) -> Total {
    let mut total = Total::default();
    loop {
        let number = next.fetch_add(1, Ordering::Relaxed);
        if number >= runs {
            return total;
        }
        let seed = first.wrapping_add(number);
        let one = thread::Builder::new().name(format!("seed {seed}")).spawn(move || run(seed)).expect("a thread");
        match one.join() {
            Ok(report) => total.sum.add(report),
            Err(_said) => total.failed.push(seed),
        }
    }
}

impl Report {
    /// Adds another run.
    pub fn add(&mut self, other: Self) {
        self.kills += other.kills;
        self.orders += other.orders;
        self.extra_orders += other.extra_orders;
    }
}

/// Does the run of a seed, in a runtime of its own with paused time.
///
/// # Panics
/// When anything was lost, ordered twice, or did not end: the message holds what the operator sees.
#[must_use]
pub fn run(seed: u64) -> Report {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    let runtime = builder.enable_all().start_paused(true).build().expect("a runtime");
    runtime.block_on(Box::pin(road(seed)))
}

async fn road(seed: u64) -> Report {
    let mut dice = Dice(seed);
    let plan = dice.plan(seed);
    let mut world = World::begin(plan).await;
    let lost = dice.draw(3) == 0;
    if lost {
        world.ca.fail(dice.pick(&LOSABLE), When::Nth(dice.draw(2) + 1), Fault::LostReply);
    }
    let wishes: Vec<Wish> = (0..=dice.draw(4) / 3).map(|number| dice.wish(&world, number)).collect();
    let mut kills = dice.kills(plan.agents);
    for wish in &wishes {
        plan_next(&world, &mut kills);
        ask(&mut world, &mut kills, async |world| world.operator.create(wish).await.is_ok()).await;
        rest(&mut world, &mut kills, dice.draw(PAUSE_SECONDS_MAX)).await;
    }
    let renewed = dice.draw(3) == 0;
    if renewed {
        for wish in &wishes {
            settle(&mut world, &mut kills, &wish.name).await;
            let request_id = format!("renew-{}", wish.name);
            ask(&mut world, &mut kills, async |world| world.operator.renew(&wish.name, &request_id).await.is_ok())
                .await;
            rest(&mut world, &mut kills, dice.draw(PAUSE_SECONDS_MAX)).await;
        }
    }
    world.controller.plan(None);
    world.agents.iter().for_each(|site| site.plan(None));
    let versions_each = 1 + usize::from(renewed);
    for wish in &wishes {
        arrived(&mut world, wish, versions_each).await;
    }
    judge(&world, plan, lost, wishes.len() * versions_each).await
}

/// Asks until the controller has heard it.
async fn ask(world: &mut World, kills: &mut VecDeque<Kill>, asked: impl AsyncFn(&World) -> bool) {
    let deadline = tokio::time::Instant::now() + RECOVERY;
    while !asked(world).await {
        assert!(tokio::time::Instant::now() < deadline, "never heard\n{}", world.picture().await);
        rest(world, kills, 1).await;
    }
}

async fn settle(world: &mut World, kills: &mut VecDeque<Kill>, name: &str) {
    let deadline = tokio::time::Instant::now() + RECOVERY;
    while !world.is_live(name).await {
        assert!(tokio::time::Instant::now() < deadline, "{name} is not live\n{}", world.picture().await);
        rest(world, kills, 5).await;
    }
}

/// Lets time pass; whatever dies is started again, and the next kill is planned for its new life.
async fn rest(world: &mut World, kills: &mut VecDeque<Kill>, seconds: u64) {
    for _ in 0..seconds.max(1) {
        tokio::time::sleep(Duration::from_secs(1)).await;
        let before = deaths(world);
        world.revive().await;
        if deaths(world) > before {
            plan_next(world, kills);
        }
    }
}

fn deaths(world: &World) -> u64 {
    world.controller.deaths() + world.agents.iter().map(AgentSite::deaths).sum::<u64>()
}

fn plan_next(world: &World, kills: &mut VecDeque<Kill>) {
    let Some(Kill { agent, step, nth }) = kills.pop_front() else { return };
    let switch = match agent {
        None => world.controller.switch(),
        Some(index) => world.agents[index].switch(),
    };
    switch.plan(Some(KillPoint { step, nth: switch.count(step) + nth }));
}

async fn arrived(world: &mut World, wish: &Wish, versions: usize) {
    let whole = async |world: &World| {
        let request = api::ListVersionsRequest { certificate: wish.name.clone() };
        let Ok(found) = world.operator.client().list_versions(request).await else { return false };
        let found = found.into_inner().items.len();
        assert!(found <= versions, "{found} versions of {}\n{}", wish.name, world.picture().await);
        found == versions && world.is_live(&wish.name).await
    };
    world.settle(&format!("{} has {versions} versions and is live", wish.name), RECOVERY, whole).await;
    let current = world.settle_live(&wish.name, RECOVERY).await.current.expect("a live certificate has a version");
    let target = wish.target.clone().expect("each has one");
    let site = world.agents.iter().find(|site| site.machine.name() == target.agent).expect("it was there");
    let served = site.machine.service().served(&wish.identifiers[0]).expect("it is served");
    let served: String = proto::x509::fingerprint(&served).iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(served, current.fingerprint_sha256, "{} is served", wish.name);
}

/// The books of the CA: one valid order for each version, and no more beyond than what happened explains, for each certificate. An agent
/// that dies while the CA looks at it costs that order, and so does a lost answer to "look now", because the attempt that
/// failed by it withdraws its token. A CA that hands no order out twice may know of one that nobody else knows.
async fn judge(world: &World, plan: Plan, lost: bool, versions: usize) -> Report {
    let orders = world.ca.orders();
    let valid = orders.iter().filter(|order| order.status == "valid").count();
    assert_eq!(valid, versions, "valid orders\n{}", world.picture().await);
    let agent_deaths: u64 = world.agents.iter().map(AgentSite::deaths).sum();
    let forgotten = if plan.ca.reuse_orders { 0 } else { world.controller.deaths() };
    let explained = usize::try_from(agent_deaths + forgotten + u64::from(lost)).expect("few");
    // One death may cost an order of each certificate that was just looked at.
    let mut extras: BTreeMap<&[String], usize> = BTreeMap::new();
    for order in orders.iter().filter(|order| order.status != "valid") {
        *extras.entry(&order.identifiers).or_default() += 1;
    }
    for (identifiers, extra) in &extras {
        assert!(*extra <= explained, "{extra} extra orders of {identifiers:?}\n{}", world.picture().await);
    }
    let extra_orders = orders.len() - versions;
    if plan.ca.reuse_orders {
        world.check().await;
    }
    Report { kills: deaths(world), orders: orders.len(), extra_orders }
}

/// A planned end of one life.
#[derive(Clone, Copy, Debug)]
struct Kill {
    /// Index of the agent; `None` is the controller.
    agent: Option<usize>,
    step: Step,
    /// Counted from when it is planned.
    nth: u64,
}

/// Chance, by a seed.
#[derive(Clone, Copy, Debug)]
struct Dice(u64);

impl Dice {
    /// Returns 0 to `below` - 1.
    fn draw(&mut self, below: u64) -> u64 {
        self.0 = split_mix(self.0);
        self.0 % below
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[usize::try_from(self.draw(from.len() as u64)).expect("an index")]
    }

    fn plan(&mut self, seed: u64) -> Plan {
        let ca = Options {
            reuse_orders: self.draw(4) > 0,
            reuse_authorizations: self.draw(4) == 0,
            seed,
            ..Options::default()
        };
        let unsynced = if self.draw(2) == 0 { Unsynced::Lost } else { Unsynced::Scattered(seed) };
        let agents = 1 + usize::try_from(self.draw(2)).expect("few");
        Plan { agents, ca, unsynced }
    }

    fn wish(&mut self, world: &World, number: u64) -> Wish {
        let custody = self.pick(&[Custody::Agent, Custody::Controller]);
        let mut wish = Wish::new(&format!("w{number}"), custody);
        let site = &world.agents[usize::try_from(self.draw(world.agents.len() as u64)).expect("an index")];
        world.dns.set(&wish.identifiers[0], &[site.machine.address()]);
        wish.target = Some(site.target(&wish.name, &wish.identifiers[0]));
        wish
    }

    /// The first kill is somewhere on the road; of the others every second is meant for the recovery from the one before.
    fn kills(&mut self, agents: usize) -> VecDeque<Kill> {
        let count = 1 + self.draw(KILLS_MAX);
        let one = |_| {
            let agent = (self.draw(3) == 0).then(|| usize::try_from(self.draw(agents as u64)).expect("an index"));
            let step = if agent.is_some() { self.pick(&AGENT_STEPS) } else { self.pick(&CONTROLLER_STEPS) };
            let within = if self.draw(2) == 0 { STEPS_MAX } else { RECOVERY_STEPS_MAX };
            Kill { agent, step, nth: 1 + self.draw(within) }
        };
        (0..count).map(one).collect()
    }
}
