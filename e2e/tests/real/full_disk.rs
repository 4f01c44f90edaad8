//! The disk of the controller's state is full (reliability.md DB3): told, survived, and overcome by the same process.

use e2e::lab::eventually;
use e2e::site::Site;

use crate::{SOON, says};

/// Changes that are tried: the free pages of the file take a few more.
const CHANGES_MAX: u32 = 300;

#[tokio::test]
async fn a_full_disk_refuses_changes_and_the_same_process_goes_on_once_there_is_room() -> anyhow::Result<()> {
    let mut site = Site::start().await?;
    if let Some(running) = site.control.process.take() {
        running.stop().await?;
    }
    let (state, kept) = (site.control.path("state"), site.control.path("state.kept"));
    site.control.host.ok(&["cp", "-a", &state, &kept]).await?;
    site.control.host.own_folder(&state, "16m").await?;
    site.control.host.ok(&["cp", "-a", &format!("{kept}/."), &state]).await?;
    site.control.start().await?;
    let process = site.control.process.as_ref().map(e2e::lab::Process::id).transpose()?;
    let server = site.server(1).await?;
    let name = server.identifier();
    site.create(&server, "web", &name, &["--wait"]).await?.expect_ok()?;
    site.proven(&server, "web", &name).await?;
    let was_served = site.served(&server, &name).await?;

    let filler = format!("{state}/filler");
    let filled = site.control.host.run(&["dd", "if=/dev/zero", &format!("of={filler}"), "bs=4k"]).await?;
    says(&filled.text(), &["No space left"]);
    let mut refused = None;
    for number in 0..CHANGES_MAX {
        let ran = site.control.certwright(&["agents", "enroll", &format!("n{number}")]).await?;
        if ran.status != Some(0) {
            refused = Some(ran);
            break;
        }
    }
    let refused = refused.expect("a full disk refuses in the end").text();
    says(&refused, &["the disk of the database is full", "goes on by itself"]);
    // Reading goes on, and so does everyone else.
    says(&site.control.ok(&["certs", "ls"], &[]).await?, &["web", "active"]);
    says(&site.control.ok(&["status"], &[]).await?, &["DISK FULL"]);
    assert_eq!(site.served(&server, &name).await?, was_served);

    site.control.host.ok(&["rm", &filler]).await?;
    eventually("changes again", SOON, async || {
        let ran = site.control.certwright(&["agents", "enroll", "later"]).await?;
        Ok((ran.status == Some(0)).then_some(()))
    })
    .await?;
    let now = site.control.process.as_ref().map(e2e::lab::Process::id).transpose()?;
    assert_eq!(process, now, "the same process");
    site.control.connected("h1").await?;
    site.control.ok(&["certs", "renew", "web", "--override-lock", "drill", "--wait"], &[]).await?;
    eventually("another version", SOON, async || Ok((site.served(&server, &name).await? != was_served).then_some(())))
        .await
}
