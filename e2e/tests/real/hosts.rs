//! The ground the other real tests stand on: hosts see each other, and only through the switch.

use e2e::lab::{Lab, eventually};
use e2e::pebble::{Pebble, Settings};

use crate::SOON;

#[tokio::test]
async fn hosts_reach_the_ca_while_their_cable_is_in() -> anyhow::Result<()> {
    let lab = Lab::new().await?;
    let mut ca =
        Pebble::start(lab.host("ca", 2).await?, Settings { life_seconds: 3_600, ..Settings::default() }).await?;
    let (h1, root, url) = (lab.host("h1", 11).await?, ca.root(), ca.directory());
    let ask = ["curl", "-sf", "--max-time", "2", "--cacert", &root, &url];
    assert!(h1.ok(&ask).await?.contains("newOrder"));
    lab.cable(&h1, false).await?;
    assert_ne!(h1.run(&ask).await?.status, Some(0), "the cable is out");
    lab.cable(&h1, true).await?;
    // On a busy machine the link is up a moment before the switch forwards.
    eventually("the cable to carry", SOON, async || Ok(h1.ok(&ask).await?.contains("newOrder").then_some(()))).await?;
    assert!(!ca.heal().await?, "Pebble is well");
    ca.stop_server().await?;
    assert_ne!(h1.run(&ask).await?.status, Some(0), "the CA is gone");
    assert!(ca.heal().await?, "Pebble was down");
    assert!(h1.ok(&ask).await?.contains("newOrder"));
    Ok(())
}
