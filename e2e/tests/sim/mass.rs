//! Mass replacement, small: `scripts/soak --mass` does the same with ten thousand certificates.

use e2e::mass::run;

#[tokio::test(start_paused = true)]
async fn a_moved_window_replaces_every_certificate_inside_it_evenly_and_says_what_it_replaces() {
    let report = Box::pin(run(300)).await;
    assert!(report.certificates == 300 && report.requests_in_a_second > 0, "{report:?}");
}
