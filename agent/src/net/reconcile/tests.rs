//! What the loop does with what it sees, on a real state directory and without a controller.

use std::sync::Mutex;

use tokio::time::timeout;

use super::*;
use crate::apply::request::tests::room;
use crate::host::RealHost;
use crate::plan::Status;
use crate::plan::tests::{outcome, target};
use crate::state::StateDir;
use crate::target::KeyType;

/// Shows what it is set to.
#[derive(Debug)]
struct Hand(Mutex<Timestamp>);

impl Clock for Hand {
    fn now(&self) -> Timestamp {
        *self.0.lock().unwrap()
    }
}

/// A loop that nobody runs, and the room it asks.
struct Bench {
    _dir: tempfile::TempDir,
    state: StateDir,
    clock: Arc<Hand>,
    reconciler: Reconciler,
    _link: watch::Sender<Link>,
    _room: JoinSet<()>,
}

impl Bench {
    async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::create(&dir.path().join("state")).unwrap();
        let host: Arc<dyn Host> = Arc::new(RealHost::default());
        let policy = dir.path().join("policy.toml");
        std::fs::write(&policy, "[key]\ncustody = [\"agent\", \"controller\"]\n").unwrap();
        let (handle, room) = room(state.clone(), policy, Arc::clone(&host));
        let (link_sender, link) = watch::channel(Link::default());
        let clock = Arc::new(Hand(Mutex::new(at(0))));
        let witness = Arc::new(Witness::open(state.clone()).unwrap());
        let reconciler =
            Reconciler::load(handle, Ledger::new(state.clone()), host, Arc::<Hand>::clone(&clock), link, witness)
                .await
                .unwrap();
        Self { _dir: dir, state, clock, reconciler, _link: link_sender, _room: room }
    }

    /// One look, and everything that it started.
    async fn look(&mut self) {
        self.reconciler.look().await;
        let limit = Duration::from_secs(20);
        while let Some(done) = timeout(limit, self.reconciler.work.join_next()).await.unwrap() {
            self.reconciler.see_done(done.unwrap()).await;
        }
    }

    fn held(&self) -> Vec<String> {
        self.reconciler.picture().key_slots_held
    }
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + second).unwrap()
}

fn slot(csr_wanted: bool) -> KeySlot {
    KeySlot { id: "slot-1".into(), identifiers: vec!["a.test".into()], key_type: KeyType::P256, csr_wanted }
}

fn desired(slot: KeySlot) -> Desired {
    Desired { slots_named: BTreeSet::from([slot.id.clone()]), key_slots: vec![slot], ..Desired::default() }
}

#[tokio::test]
async fn a_lost_key_is_reported_and_never_made_again() {
    let mut bench = Bench::new().await;
    bench.reconciler.hold(desired(slot(true)));
    bench.look().await;
    assert_eq!(bench.held(), ["slot-1"]);

    bench.reconciler.hold(desired(slot(false)));
    std::fs::remove_dir_all(bench.state.path().join("keys/slot-1")).unwrap();
    bench.reconciler.report = Duty::default();
    // The pull of every quarter of an hour, with nothing new.
    bench.reconciler.take(wire::GetDesiredResponse::default()).await.unwrap();
    assert!(bench.reconciler.report.wanted, "the controller hears of it");
    bench.look().await;
    bench.look().await;
    assert!(bench.held().is_empty(), "a key in its place would hide the loss");
    assert!(!bench.state.path().join("keys/slot-1").exists());
}

#[test]
fn what_fails_again_and_again_rests_longer_and_longer() {
    let mut duty = Duty::default();
    let rest = |duty: &Duty| duty.not_before.unwrap() - Instant::now();
    duty.back_off();
    assert!(rest(&duty) <= CALL_RETRY);
    for _ in 0..9 {
        duty.begin();
        duty.back_off();
    }
    assert!(rest(&duty) > CALL_RETRY * 40 && duty.wanted, "{:?}", rest(&duty));
    duty.begin();
    duty.succeed();
    duty.back_off();
    assert!(rest(&duty) <= CALL_RETRY);
}

#[tokio::test]
async fn a_key_that_cannot_be_made_rests_longer_and_is_told_once() {
    let mut bench = Bench::new().await;
    std::fs::write(bench.state.path().join("keys"), "no directory").unwrap();
    bench.reconciler.hold(desired(slot(true)));
    for failures in 1..=8 {
        bench.reconciler.keys_rest.clear();
        bench.reconciler.report = Duty::default();
        bench.look().await;
        assert_eq!(bench.reconciler.report.wanted, failures == 1, "nothing new after the first");
    }
    let rest = |bench: &Bench| *bench.reconciler.keys_rest.get("slot-1").unwrap() - Instant::now();
    assert!(rest(&bench) > Duration::from_secs(200), "{:?}", rest(&bench));
    bench.reconciler.hold(desired(slot(true)));
    bench.look().await;
    assert!(rest(&bench) <= KEY_RETRY, "another state is another chance");
}

#[tokio::test]
async fn a_retry_that_falls_due_during_a_look_wakes_the_loop() {
    let mut bench = Bench::new().await;
    let target = target();
    let failed = outcome(&target, Status::Failed, 1, Some(at(60)));
    bench.reconciler.outcomes.insert(target.id.clone(), failed);
    bench.reconciler.hold(Desired { targets: vec![target], ..Desired::default() });
    bench.look().await;
    let wakes_in = |bench: &Bench| bench.reconciler.wakes_at().saturating_duration_since(Instant::now());
    assert!((50..=60).contains(&wakes_in(&bench).as_secs()), "{:?}", wakes_in(&bench));
    *bench.clock.0.lock().unwrap() = at(61);
    assert_eq!(wakes_in(&bench), Duration::ZERO);
}

#[tokio::test]
async fn an_outcome_that_could_not_be_saved_is_saved_later() {
    let mut bench = Bench::new().await;
    let target = target();
    let done = outcome(&target, Status::Applied, 1, None);
    let in_the_way = bench.state.path().join("key_uses.json");
    std::fs::create_dir(&in_the_way).unwrap();
    let change = Change::Done(Box::new(done));
    bench.reconciler.see_progress(Progress::Target { target_id: target.id.clone(), change });
    bench.look().await;
    assert!(!bench.state.path().join("outcomes.json").exists());
    assert!(bench.reconciler.wakes_at() <= Instant::now() + CALL_RETRY, "it is tried again");

    std::fs::remove_dir(&in_the_way).unwrap();
    bench.reconciler.save.not_before = None;
    bench.look().await;
    let saved = bench.reconciler.ledger.recover().await.unwrap().outcomes;
    assert_eq!(saved.iter().map(|one| &one.target_id).collect::<Vec<_>>(), [&target.id]);
}

#[tokio::test]
async fn targets_that_share_a_reload_wait_for_its_reading_and_then_share_one_pass() {
    let mut bench = Bench::new().await;
    let reloads = |id: &str, daemon: &str| {
        let reload = if daemon.is_empty() { vec![] } else { vec![vec![daemon.to_owned(), "reload".to_owned()]] };
        Target { id: id.into(), dir: format!("/etc/{id}"), reload, ..target() }
    };
    let all = [("a", "nginx"), ("b", "nginx"), ("c", "nginx"), ("d", "postfix"), ("e", "")];
    let all = all.map(|(id, daemon)| reloads(id, daemon));
    let began = |bench: &Bench| bench.reconciler.doing.keys().cloned().collect::<Vec<_>>();

    bench.reconciler.hold(Desired { targets: all[..1].to_vec(), ..Desired::default() });
    bench.reconciler.start_passes();
    bench.reconciler.hold(Desired { targets: all.to_vec(), ..Desired::default() });
    bench.reconciler.start_passes();
    assert_eq!(began(&bench), ["a", "d", "e"], "another service does not wait, nor what reloads nothing");
    let passes = bench.reconciler.passes;
    bench.reconciler.see_progress(Progress::Read(all[0].reload.iter().cloned().collect()));
    bench.reconciler.start_passes();
    assert_eq!((began(&bench).len(), bench.reconciler.passes), (5, passes + 1), "b and c go together");
    bench.look().await;
    assert!(matches!(bench.reconciler.progress.recv().await, Some(Progress::Target { .. })));
    let mut read = false;
    while let Ok(progress) = bench.reconciler.progress.try_recv() {
        read |= matches!(progress, Progress::Read(_));
    }
    assert!(read, "every pass ends with its commands free");
}

#[test]
fn a_name_that_another_target_took_over_is_not_removed() {
    let file = |name: &str| crate::target::TargetFile {
        content: crate::target::Content::Leaf,
        name: name.into(),
        owner: None,
        mode: 0o644,
    };
    let one = Target { id: "a".into(), files: vec![file("kept.pem")], ..target() };
    let other = Target { id: "b".into(), files: vec![file("moved.pem")], ..target() };
    let mut last = outcome(&one, Status::Applied, 1, None);
    (last.wish, last.dir) = ("another".into(), one.dir.clone());
    last.names = ["kept.pem", "moved.pem", "old.pem"].map(str::to_owned).to_vec();
    let desired = Desired { targets: vec![one.clone(), other], ..Desired::default() };
    assert_eq!(names_before(&desired, &one, Some(&last)), ["kept.pem", "old.pem"]);
    let elsewhere = Target { dir: "/etc/y".into(), ..one };
    assert!(names_before(&desired, &elsewhere, Some(&last)).is_empty(), "its old directory is not touched");
}

#[tokio::test]
async fn no_key_is_made_where_the_policy_keeps_keys_at_the_controller() {
    let mut bench = Bench::new().await;
    let policy = bench.state.path().join("../policy.toml");
    std::fs::write(policy, "[key]\ncustody = [\"controller\"]\n").unwrap();
    bench.reconciler.hold(desired(slot(true)));
    bench.look().await;
    assert!(bench.held().is_empty());
    assert_eq!(bench.reconciler.key_problems.get("slot-1").unwrap().reason, "POLICY_CUSTODY");
}
