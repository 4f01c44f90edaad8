//! Renewal in real time: certificates that live two minutes.

use std::time::Duration;

use e2e::site::Site;
use serde_json::Value;

use crate::{SOON, is_done};

/// What Pebble gives.
const LIFE: u32 = 120;

#[tokio::test]
async fn a_two_minute_certificate_renews_by_itself_and_again_after_the_ca_forgot_the_account() -> anyhow::Result<()> {
    let mut site = Site::start_with_life(LIFE).await?;
    let server = site.server(1).await?;
    let name = server.identifier();
    site.create(&server, "web", &name, &["--wait"]).await?.expect_ok()?;
    for turn in ["the first renewal", "a renewal at a CA that forgot the account"] {
        let record = site.control.certificate("web").await?;
        let known = record["current"]["fingerprint_sha256"].clone();
        let renewed = |record: &Value| is_done(record) && record["current"]["fingerprint_sha256"] != known;
        let next = site.control.until("web", turn, Duration::from_secs(LIFE.into()), renewed).await?;
        assert_eq!(next["status"], "active", "never expired: {next:#}");
        site.proven(&server, "web", &name).await?;
        site.ca.stop_server().await?;
        site.ca.start_server().await?;
    }
    site.control.until("web", "still active", SOON, is_done).await.map(drop)
}
