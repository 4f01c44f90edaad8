//! Renewal over months: nothing is missed, nothing is ordered twice, whatever fails meanwhile.

/// Any other does as well; this one is repeated.
const SEED: u64 = 20_261_121;

#[tokio::test(start_paused = true)]
async fn a_hundred_certificates_live_through_ninety_days_of_outages_and_crashes() {
    let report = Box::pin(e2e::months::run(1, SEED)).await;
    assert_eq!(report.certificates, 100);
    assert!(report.deaths.0 > 5 && report.deaths.1 > 5, "{report:?}");
}
