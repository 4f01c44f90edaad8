//! Disks that fail in the middle of a deployment (reliability.md FS2 to FS6): the old pair stands, nothing half-written is left,
//! the operator reads what the disk said, the agent rests, and the next attempt writes everything anew.

use anyhow::ensure;
use serde_json::Value;

use crate::explains;
use crate::files::Road;

#[tokio::test]
async fn a_disk_that_fails_only_at_the_switch_keeps_the_old_pair() -> anyhow::Result<()> {
    let mut road = Road::begin("", "30s").await?;
    for (call, error, says) in [
        ("renameat", "ENOSPC", "no space"),
        ("symlinkat", "ENOSPC", "no space"),
        ("renameat", "EROFS", "read-only"),
        ("renameat", "EIO", "input/output error"),
    ] {
        let before = road.shown().await?;
        // Of all that is renamed, only the link to the current generation.
        let (trace, inject) = (format!("trace={call}"), format!("inject={call}:error={error}"));
        let strace = road.strace(&["-P", ".current.certwright-new", "-e", &trace, "-e", &inject]).await?;
        road.renew().await?;
        let target = road.target("failed").await?;
        ensure!(strace.output().contains("(INJECTED)"), "{call} was not met: {}", strace.output());
        strace.stop().await?;
        explains(&target["error"], &[says, "no file is half-written"]);
        rests(&target);
        ensure!(road.shown().await? == before, "{call} {error}: the old pair is gone");
        nothing_is_left(&road).await?;
        road.heals().await?;
    }
    Ok(())
}

#[tokio::test]
async fn what_an_fsync_lost_is_written_again_from_scratch() -> anyhow::Result<()> {
    let mut road = Road::begin("", "30s").await?;
    let before = road.shown().await?;
    let newest = road.list(".certwright").await?.iter().filter_map(|name| name.parse::<u64>().ok()).max();
    let key = road.dir.join(format!(".certwright/.{}.new/key.pem", newest.unwrap_or_default() + 1));
    let (key, trace) = (key.to_string_lossy(), "trace=fsync,fdatasync,openat2");
    let strace = road.strace(&["-P", &key, "-e", trace, "-e", "inject=fsync:error=EIO"]).await?;
    road.renew().await?;
    let target = road.target("failed").await?;
    explains(&target["error"], &["input/output error", "key.pem", "writes everything anew"]);
    rests(&target);
    ensure!(road.shown().await? == before, "the old pair is gone");
    // A second fsync would say yes and have lost the pages (the kernel marks them clean).
    let calls = strace.output();
    ensure!(calls.matches("fsync(").count() == 1, "{calls}");
    strace.stop().await?;
    nothing_is_left(&road).await?;
    road.heals().await
}

#[tokio::test]
async fn a_file_system_without_inodes_keeps_the_old_pair() -> anyhow::Result<()> {
    let mut road = Road::begin("", "30s").await?;
    let (dir, kept) = (road.dir.to_string_lossy().into_owned(), road.root.join("kept").to_string_lossy().into_owned());
    let host = &road.server.host;
    host.ok(&["cp", "-a", &dir, &kept]).await?;
    host.own_folder(&dir, "4m,nr_inodes=64").await?;
    host.ok(&["cp", "-a", &format!("{kept}/."), &dir]).await?;
    // Until none is left.
    let fill =
        format!("n=0; while mkdir {dir}/filler$n 2>/dev/null; do n=$((n+1)); done; test $n -gt 3; rmdir {dir}/filler0");
    host.ok(&["sh", "-c", &fill]).await?;
    let before = road.shown().await?;
    road.renew().await?;
    let target = road.target("failed").await?;
    explains(&target["error"], &["no space", "inodes"]);
    rests(&target);
    ensure!(road.shown().await? == before, "the old pair is gone");
    nothing_is_left(&road).await?;
    road.server.host.ok(&["sh", "-c", &format!("rmdir {dir}/filler*")]).await?;
    road.heals().await
}

/// One attempt, and the next one not at once.
fn rests(target: &Value) {
    let at = |field: &str| target[field].as_str().unwrap().parse::<jiff::Timestamp>().unwrap();
    let rest = at("finished_at").duration_until(at("retry_at")).as_secs();
    assert!((40..=900).contains(&rest) && target["attempt"] == 1, "{target:#}");
}

/// Neither a stage nor a temporary link.
async fn nothing_is_left(road: &Road) -> anyhow::Result<()> {
    for inside in ["", ".certwright"] {
        let listed = road.list(inside).await?;
        let left: Vec<_> = listed.iter().filter(|name| name.contains("new")).collect();
        ensure!(left.is_empty(), "left in {inside:?}: {left:?}");
    }
    Ok(())
}
