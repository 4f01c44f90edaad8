//! Somebody swaps names below a target while it is deployed (reliability.md FS10): directories, files and temporary names become
//! symbolic links to elsewhere and back, hundreds of times and more. Nothing outside is ever written. No directory here is sticky,
//! so fs.protected_symlinks, whatever it says, helps nobody.

use std::os::unix::fs::{MetadataExt as _, symlink};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, ensure};

use crate::files::Road;

/// Deployments under attack.
const DEPLOYMENTS: u32 = 12;
/// Fewer swaps than this prove nothing.
const SWAPS_MIN: u64 = 200;
const CANARY: &str = "nobody writes here\n";

#[tokio::test]
async fn a_race_of_symbolic_links_writes_nothing_outside() -> anyhow::Result<()> {
    let mut road = Road::begin("", "30s").await?;
    let outside = road.server.host.folder.join("outside");
    // What the agent would write through a link: files of the target, of a generation, and what is renamed.
    for folder in ["", "web", "web/.certwright"] {
        std::fs::create_dir_all(outside.join(folder))?;
        for name in ["key.pem", "cert.pem", "current"] {
            std::fs::write(outside.join(folder).join(name), CANARY)?;
        }
    }
    let before = state(&outside)?;
    let stop = Arc::new(AtomicBool::new(false));
    let racer = {
        let (root, outside, stop) = (road.root.clone(), outside.clone(), Arc::clone(&stop));
        std::thread::spawn(move || race(&root, &outside, &stop))
    };
    let mut ended = [0_u32; 2];
    for _ in 0..DEPLOYMENTS {
        road.renew().await?;
        let record = road.ends_as(&["unproven", "failed", "rolled_back"]).await;
        ensure!(record.is_ok(), "{record:?}");
        let failed = road.end(&["unproven"]).await?.is_none();
        ended[usize::from(failed)] += 1;
    }
    stop.store(true, Ordering::Relaxed);
    let swaps = racer.join().ok().context("the racer panicked")?;
    println!("{swaps} swaps, {} deployments done and {} refused", ended[0], ended[1]);
    ensure!(swaps >= SWAPS_MIN, "{swaps} swaps");
    ensure!(state(&outside)? == before, "written outside: {:#?}, not {before:#?}", state(&outside)?);
    road.heals().await
}

/// Swaps until it is told to stop, and leaves everything as it should be; returns how often.
fn race(root: &Path, outside: &Path, stop: &AtomicBool) -> u64 {
    let dir = root.join("web");
    let base = dir.join(".certwright");
    let places = [
        (root.to_path_buf(), outside.to_path_buf()),
        (dir.clone(), outside.join("web")),
        (base.clone(), outside.join("web/.certwright")),
        (dir.join("key.pem"), outside.join("key.pem")),
        (dir.join("cert.pem"), outside.join("web")),
        (base.join("current"), outside.join("web")),
    ];
    let mut swaps = 0;
    let mut number = 1_u64;
    while !stop.load(Ordering::Relaxed) {
        for (place, elsewhere) in &places {
            let aside = root.with_file_name("aside");
            if std::fs::rename(place, &aside).is_ok() {
                symlink(elsewhere, place).ok();
                // Long enough for a whole step of a deployment to fall into it.
                pause(number * 20);
                // Whatever stands there now makes room.
                std::fs::remove_file(place).or_else(|_| std::fs::remove_dir_all(place)).ok();
                std::fs::rename(&aside, place).ok();
                swaps += 1;
            }
        }
        // Temporary names that are about to be used.
        number = number % 64 + 1;
        for name in [format!(".{number}.new"), number.to_string(), ".current.certwright-new".to_owned()] {
            let place = base.join(name);
            if symlink(outside.join("web"), &place).is_ok() {
                std::thread::yield_now();
                std::fs::remove_file(&place).ok();
                swaps += 1;
            }
        }
        // In between it is quiet: what is always in the way is no race.
        pause(number * 100);
    }
    swaps
}

fn pause(turns: u64) {
    (0..turns).for_each(|_| std::thread::yield_now());
}

/// Path, inode, mode, when it was changed, and content.
type Fact = (PathBuf, u64, u32, (i64, i64), Vec<u8>);

/// Tells everything below a folder.
fn state(folder: &Path) -> anyhow::Result<Vec<Fact>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        let facts = path.symlink_metadata()?;
        let content = if facts.is_file() { std::fs::read(&path)? } else { Vec::new() };
        if facts.is_dir() {
            found.extend(state(&path)?);
        }
        found.push((path, facts.ino(), facts.mode(), (facts.mtime(), facts.mtime_nsec()), content));
    }
    found.sort();
    Ok(found)
}
