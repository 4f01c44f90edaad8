//! Reload commands that do wrong (reliability.md FS18, FS21): one that hangs and ignores signals is killed with all it started and
//! the files of before come back; one that prints a gigabyte of escapes costs no memory and shows nobody an escape.

use anyhow::{Context, ensure};
use e2e::lab::eventually;

use crate::files::Road;
use crate::{SOON, explains};

/// Largest resident set of an agent that has read a gigabyte, KiB; a debug build needs some thirty.
const RESIDENT_KIB_MAX: u64 = 64 * 1024;

#[tokio::test]
async fn a_hung_reload_is_killed_with_all_it_started_and_rolled_back() -> anyhow::Result<()> {
    // Hangs once, with a child, and hears neither.
    let script = "rm hang 2>/dev/null || exit 0\ntrap '' TERM HUP INT\n(trap '' TERM HUP; echo $BASHPID >> pids; sleep 1000) &\n\
                  echo $$ >> pids\nwhile :; do sleep 1000; done";
    let mut road = Road::begin(script, "2s").await?;
    let before = road.shown().await?;
    std::fs::write(road.server.host.folder.join("hang"), "")?;
    road.renew().await?;
    let target = road.target("rolled_back").await?;
    explains(&target["error"], &["did not end within 2 s and was killed", "the files of before are back"]);
    ensure!(road.shown().await? == before, "not the files of before");
    let pids = std::fs::read_to_string(road.server.host.folder.join("pids"))?;
    ensure!(pids.lines().count() == 2, "{pids}");
    eventually("the end of all that was started", SOON, async || {
        let lives =
            |pid: &str| std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(" Z "));
        Ok((!pids.lines().any(lives)).then_some(()))
    })
    .await?;
    road.heals().await
}

#[tokio::test]
async fn a_reload_that_prints_a_gigabyte_of_escapes_is_capped_and_sanitised() -> anyhow::Result<()> {
    let script =
        "test -e loud || exit 0\nrm loud\nyes $'\\033[31mred\\007 \\xff\\u202e' | head -c 1000000000 >&2\nexit 1";
    let mut road = Road::begin(script, "60s").await?;
    std::fs::write(road.server.host.folder.join("loud"), "")?;
    road.renew().await?;
    let target = road.target("rolled_back").await?;
    explains(&target["error"], &["ended with status 1", "<U+001B>[31mred"]);
    let step = target["steps"].as_array().context("steps")?.iter().find(|step| step["ok"] == false);
    let output = step.context("a failed step")?["output"].as_str().context("output")?;
    ensure!(output.contains("red") && output.len() <= 4096, "{} bytes", output.len());
    let told = road.site.control.ok(&["certs", "get", "web"], &[]).await?;
    for text in [output, &told] {
        ensure!(!text.contains(['\u{1b}', '\u{7}', '\u{202e}']), "an escape is told: {text:?}");
    }
    for pid in road.agent_processes()? {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).context("a peak")?;
        let peak: u64 = peak.trim().trim_end_matches(" kB").parse()?;
        ensure!(peak < RESIDENT_KIB_MAX, "{peak} KiB");
    }
    road.heals().await
}
