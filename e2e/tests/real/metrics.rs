//! What a monitor on the controller's host reads, and nobody elsewhere.

use e2e::site::{METRICS, Site};

#[tokio::test]
async fn a_monitor_on_the_controllers_host_reads_metrics_and_nobody_elsewhere() -> anyhow::Result<()> {
    let site = Site::start_without_issuer().await?;
    let curl = |path: &str| ["curl", "-fsS", "--max-time", "5", &format!("http://{METRICS}{path}")].map(str::to_owned);
    let get = async |path: &str| {
        let argv = curl(path);
        site.control.host.ok(&argv.each_ref().map(String::as_str)).await
    };
    assert_eq!(get("/healthz").await?, "ok\n");
    site.control.ok(&["agents", "enroll", "h1"], &[]).await?;
    let page = get("/metrics").await?;
    for line in ["certwright_clock_right 1", "certwright_audit_lines 2", "certwright_paused 0"] {
        assert!(page.lines().any(|found| found == line), "{line}: {page}");
    }
    let elsewhere = site.bare_server(1).await?.host;
    let port = METRICS.rsplit(':').next().unwrap_or_default();
    let outside = format!("http://{}:{port}/metrics", site.control.host.address);
    assert_ne!(elsewhere.run(&["curl", "-sS", "--max-time", "5", &outside]).await?.status, Some(0));
    Ok(())
}
