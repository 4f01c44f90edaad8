//! Random crash runs by seed: what the crash matrix does in order, chance does in any combination.

/// Runs of every test; `scripts/soak` does thousands.
const RUNS: u64 = 200;

#[test]
fn two_hundred_random_crash_runs_lose_nothing_and_order_nothing_twice() {
    let total = e2e::soak::many(RUNS, 1);
    assert_eq!(total.failed, [0_u64; 0], "repeat one: scripts/soak 1 --seed SEED");
    assert!(total.sum.kills > RUNS, "{} kills struck in {RUNS} runs", total.sum.kills);
}
