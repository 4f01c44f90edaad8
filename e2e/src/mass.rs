//! Mass replacement (case AC9): the CA moves the window of every certificate to the same few hours. All must be replaced
//! inside it, evenly, within the CA's limits, and each order must say what it replaces. `tests/sim/mass.rs` does it with some
//! hundreds, `scripts/soak --mass` with ten thousand. Keys are at the controller; agents only answer challenges.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use proto::clock::Clock as _;
use proto::types::v1::Custody;

use crate::fake_ca::fault::RequestKind;
use crate::fake_ca::{Options, RenewalInfo, Window};
use crate::world::operator::Wish;
use crate::world::{Plan, World};

/// The CA is asked about each certificate this often.
const ASKED_EVERY_S: i64 = 3_600;
/// The window begins so long after it was moved: everyone has asked by then.
const NOTICE: SignedDuration = SignedDuration::from_hours(2);
/// How wide it is.
const WIDTH: SignedDuration = SignedDuration::from_hours(6);
/// What is ordered in the last moment is there so long after the window.
const GRACE: SignedDuration = SignedDuration::from_mins(2);
/// Certificates for which one agent answers challenges: each step of an order computes what its agent must hold.
const EACH_AGENT: usize = 15;
/// With fewer orders than this in a part of the window, chance alone would be above twice the mean.
const EACH_PART: usize = 25;
/// Most requests in one second (AC9).
const REQUESTS_MAX: usize = 200;

/// What came of it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Report {
    /// Certificates replaced.
    pub certificates: usize,
    /// Minutes of one part of the window.
    pub part_minutes: i64,
    /// Most orders in one part, and their mean.
    pub most: usize,
    /// The mean of all parts.
    pub mean: f64,
    /// Most requests at the CA in one second, from the first question on.
    pub requests_in_a_second: usize,
}

/// Replaces so many certificates.
///
/// # Panics
/// When one was late, missed or ordered twice, or they came in crowds.
pub async fn run(certificates: usize) -> Report {
    let ca = Options { reuse_authorizations: true, ..Options::default() };
    let agents = certificates.div_ceil(EACH_AGENT).clamp(1, 200);
    let mut world = World::begin(Plan { agents, ca, ..Plan::default() }).await;
    let retry_after = Some(ASKED_EVERY_S.to_string());
    world.ca.offer_renewal_info(Some(RenewalInfo { retry_after, ..RenewalInfo::default() }));
    // The directory that was read when the account was made does not name it yet.
    world.controller.kill().await;
    world.controller.start();
    fleet(&mut world, certificates).await;

    let moved_at = world.clock.now();
    let (start, end) = (moved_at + NOTICE, moved_at + NOTICE + WIDTH);
    // What replaces them is issued in the window, and has its own.
    world.ca.set_windows_under(vec![("mass.test".to_owned(), Window::Fixed(start, end))]);
    while world.clock.now() < end + GRACE {
        tokio::time::sleep(Duration::from_secs(60)).await;
        world.revive().await;
    }
    let report = judge(&world, certificates, moved_at, (start, end));
    world.check().await;
    report
}

async fn fleet(world: &mut World, certificates: usize) {
    for number in 0..certificates {
        let site = &world.agents[number % world.agents.len()];
        let mut wish = Wish::new(&format!("w{number}"), Custody::Controller);
        wish.identifiers = vec![format!("w{number}.mass.test")];
        world.dns.set(&wish.identifiers[0], &[site.machine.address()]);
        wish.responders = vec![site.machine.name().to_owned()];
        world.operator.create(&wish).await.expect("the wish is accepted");
    }
    let asked = async |world: &World| {
        let questions = world.ca.counts().get(&RequestKind::RenewalInfo).copied().unwrap_or(0);
        world.ca.issues().len() == certificates && questions >= certificates
    };
    world.settle("every certificate has a version and a window", Duration::from_secs(4 * 3_600), asked).await;
}

fn judge(world: &World, certificates: usize, moved_at: Timestamp, (start, end): (Timestamp, Timestamp)) -> Report {
    let (orders, issues) = (world.ca.orders(), world.ca.issues());
    assert_eq!((orders.len(), issues.len()), (2 * certificates, 2 * certificates), "one order for each replacement");
    let unsaid = orders.iter().skip(certificates).filter(|order| order.replaces.is_none()).count();
    assert_eq!(unsaid, 0, "orders that do not say what they replace");
    let mut by_name: BTreeMap<&str, Vec<Timestamp>> = BTreeMap::new();
    for issue in &issues {
        by_name.entry(&issue.identifiers[0]).or_default().push(issue.at);
    }
    assert!(by_name.len() == certificates && by_name.values().all(|times| times.len() == 2), "each was replaced once");
    let outside = issues.iter().filter(|issue| issue.at > moved_at && !(start..end + GRACE).contains(&issue.at));
    assert_eq!(outside.count(), 0, "replaced outside the window");

    let log = world.ca.log();
    let parts = (certificates / EACH_PART).clamp(1, 360);
    let part_minutes = 360 / i64::try_from(parts).unwrap();
    let mut histogram: BTreeMap<i64, usize> = BTreeMap::new();
    for line in log.iter().filter(|line| line.kind == RequestKind::NewOrder && line.at >= start) {
        assert!(line.at <= end + GRACE, "ordered at {}, the window ended at {end}", line.at);
        *histogram.entry(line.at.duration_since(start).as_mins() / part_minutes).or_default() += 1;
    }
    let most = histogram.values().copied().max().unwrap_or_default();
    let mean = certificates as f64 * part_minutes as f64 / 360.0;
    assert!(most as f64 <= 2.0 * mean, "{most} orders in {part_minutes} minutes, {mean:.1} in the mean");
    let mut seconds: BTreeMap<i64, usize> = BTreeMap::new();
    for line in log.iter().filter(|line| line.at >= moved_at) {
        *seconds.entry(line.at.as_second()).or_default() += 1;
    }
    let requests_in_a_second = seconds.values().copied().max().unwrap_or_default();
    assert!(requests_in_a_second <= REQUESTS_MAX, "{requests_in_a_second} requests in one second");
    Report { certificates, part_minutes, most, mean, requests_in_a_second }
}
