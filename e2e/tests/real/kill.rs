//! Any instant may be the last: the controller and the agent are killed in the middle of the road, at growing delays, and
//! the road is finished after a restart without an operator.

use std::time::Duration;

use anyhow::Context;
use e2e::site::{Agent, Server, Site};
use tokio::time::sleep;

use crate::{SOON, is_done};

/// When the kill comes after the wish is accepted, ms: from before the order to after the reload.
const DELAYS_MS: [u64; 6] = [0, 30, 80, 160, 320, 640];

/// A site whose server has a name per delay.
async fn site_with_names() -> anyhow::Result<(Site, Server, Vec<String>)> {
    let site = Site::start().await?;
    let mut server = site.server(1).await?;
    let names: Vec<String> = DELAYS_MS.iter().map(|delay| format!("k{delay}.example.test")).collect();
    for name in &names {
        site.ca.name(name, &[&server.host.address.to_string()]).await?;
    }
    server.nginx.take().context("nginx runs")?.stop().await?;
    server.serve(&names.iter().map(String::as_str).collect::<Vec<_>>()).await?;
    Ok((site, server, names))
}

#[tokio::test]
async fn a_killed_controller_finishes_what_it_began() -> anyhow::Result<()> {
    let (mut site, server, names) = site_with_names().await?;
    for (name, delay) in names.iter().zip(DELAYS_MS) {
        let certificate = format!("k{delay}");
        site.create(&server, &certificate, name, &[]).await?.expect_ok()?;
        sleep(Duration::from_millis(delay)).await;
        site.control.kill().await?;
        site.control.start().await?;
        site.control.until(&certificate, "the road to be finished", SOON * 2, is_done).await?;
        site.proven(&server, &certificate, name).await?;
    }
    Ok(())
}

#[tokio::test]
async fn a_killed_agent_finishes_what_it_began() -> anyhow::Result<()> {
    let (site, mut server, names) = site_with_names().await?;
    for (name, delay) in names.iter().zip(DELAYS_MS) {
        let certificate = format!("k{delay}");
        site.create(&server, &certificate, name, &[]).await?.expect_ok()?;
        sleep(Duration::from_millis(delay)).await;
        let Agent { apply, net } = server.agent.take().context("the agent runs")?;
        // Each half alone, and both.
        server.agent = Some(match delay % 3 {
            0 => {
                apply.kill().await?;
                Agent { apply: server.start_apply()?, net }
            }
            1 => {
                net.kill().await?;
                Agent { apply, net: server.start_net()? }
            }
            _ => {
                Agent { apply, net }.kill().await?;
                Agent { apply: server.start_apply()?, net: server.start_net()? }
            }
        });
        site.control.until(&certificate, "the road to be finished", SOON * 2, is_done).await?;
        site.proven(&server, &certificate, name).await?;
    }
    Ok(())
}
