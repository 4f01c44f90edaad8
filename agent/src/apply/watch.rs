//! Waits until something changes in the directories of targets, so that a drift is seen at once. A watch on a file ends at its first
//! rename: directories are watched, the target's own, `.certwright` in it and the generation that is current. Tells only that there is
//! something to look at, and may tell it for nothing; whoever asks looks now and then anyway. The one home of notify.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use notify::event::{AccessKind, AccessMode, ModifyKind};
use notify::{Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher as _};
use tokio::sync::{Notify, watch};
use tokio::task::spawn_blocking;
use tokio::time::{Instant, timeout_at};

use crate::problem::Problem;
use crate::target::BASE;

/// An editor writes, renames and changes modes: told once it is quiet for so long …
const QUIET: Duration = Duration::from_millis(300);
/// … or after this, of something that never is.
const QUIET_MAX: Duration = Duration::from_millis(1_200);
/// Directories of one request, and three watches for each: the kernel's usual limit is 8,192 for a user.
const DIRS_MAX: usize = 2_000;

/// The watch of the room; made when it is first asked for.
#[derive(Debug)]
pub(super) struct Watch {
    /// Without it nothing is ever told.
    is_told: bool,
    watching: Mutex<Option<Watching>>,
    told: Arc<Told>,
    /// How many requests there were: a new one ends the one before.
    asked: watch::Sender<u64>,
}

/// What changed and was not asked for yet.
#[derive(Debug, Default)]
struct Told {
    dirs: Mutex<BTreeSet<String>>,
    bell: Notify,
}

#[derive(Debug)]
struct Watching {
    watcher: RecommendedWatcher,
    /// By watched path.
    places: Arc<Mutex<BTreeMap<PathBuf, Place>>>,
}

/// A watched directory.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Place {
    /// The directories of targets that are to be looked at when something changes here.
    dirs: BTreeSet<String>,
    /// Device and inode: a directory that was made anew under the same name needs a new watch.
    id: (u64, u64),
}

impl Watch {
    pub(super) fn new(is_told: bool) -> Self {
        Self { is_told, watching: Mutex::new(None), told: Arc::default(), asked: watch::Sender::new(0) }
    }

    /// Returns the directories in which something changed since they were told last, once it is quiet there. A directory that is
    /// watched anew is told at once: nobody saw what happened before. Empty when another request took the place of this one.
    pub(super) async fn wait(self: Arc<Self>, dirs: Vec<String>) -> Result<Vec<String>, Problem> {
        let mut asked = self.asked.subscribe();
        self.asked.send_modify(|asked| *asked += 1);
        asked.mark_unchanged();
        let (this, wanted) = (Arc::clone(&self), dirs.clone());
        spawn_blocking(move || this.set(&wanted))
            .await
            .unwrap_or_else(|error| Err(Problem::internal(&format!("a watch: {error}"))))?;
        loop {
            // Cancel-safe: a bell that rang stays rung, a count stays counted.
            tokio::select! {
                biased;
                _ = asked.changed() => return Ok(Vec::new()),
                () = self.told.bell.notified() => {}
            }
            let latest = Instant::now() + QUIET_MAX;
            while timeout_at((Instant::now() + QUIET).min(latest), self.told.bell.notified()).await.is_ok() {
                if Instant::now() >= latest {
                    break;
                }
            }
            let mut told = std::mem::take(&mut *lock(&self.told.dirs));
            told.retain(|dir| dirs.contains(dir));
            if !told.is_empty() {
                return Ok(told.into_iter().collect());
            }
        }
    }

    /// Watches exactly what these directories need now.
    fn set(&self, dirs: &[String]) -> Result<(), Problem> {
        if !self.is_told {
            return Ok(());
        }
        if dirs.len() > DIRS_MAX {
            return Err(unwatched(&format!("{} directories, {DIRS_MAX} at most", dirs.len())));
        }
        let mut wanted: BTreeMap<PathBuf, Place> = BTreeMap::new();
        for dir in dirs {
            for (path, id) in places(Path::new(dir)) {
                let place = wanted.entry(path).or_insert_with(|| Place { dirs: BTreeSet::new(), id });
                place.dirs.insert(dir.clone());
            }
        }
        let mut watching = lock(&self.watching);
        if watching.is_none() {
            *watching = Some(Watching::new(&self.told)?);
        }
        let Some(fresh) = watching.as_mut().map(|watching| watching.set(wanted)) else { return Ok(()) };
        // Half a watch is none: the next request begins anew.
        let fresh = fresh.inspect_err(|_| *watching = None)?;
        if !fresh.is_empty() {
            lock(&self.told.dirs).extend(fresh);
            self.told.bell.notify_one();
        }
        Ok(())
    }
}

impl Watching {
    fn new(told: &Arc<Told>) -> Result<Self, Problem> {
        let places: Arc<Mutex<BTreeMap<PathBuf, Place>>> = Arc::default();
        let (seen, told) = (Arc::clone(&places), Arc::clone(told));
        let watcher = notify::recommended_watcher(move |event: notify::Result<Event>| {
            let changed = changed(&mut lock(&seen), event);
            if !changed.is_empty() {
                lock(&told.dirs).extend(changed);
                told.bell.notify_one();
            }
        });
        Ok(Self { watcher: watcher.map_err(|error| unwatched(&error.to_string()))?, places })
    }

    /// Returns the targets' directories of which something is watched anew.
    fn set(&mut self, wanted: BTreeMap<PathBuf, Place>) -> Result<BTreeSet<String>, Problem> {
        let before = lock(&self.places).clone();
        let is_kept = |path: &PathBuf, place: &Place| {
            before.get(path).is_some_and(|before| before.id == place.id && place.dirs.is_subset(&before.dirs))
        };
        for path in before.iter().filter(|(path, place)| wanted.get(*path).is_none_or(|now| now.id != place.id)) {
            // One that is gone took its watch along.
            drop(self.watcher.unwatch(path.0));
        }
        // Known before they are watched, so that no event finds its path unknown.
        *lock(&self.places) = wanted.clone();
        let mut fresh = BTreeSet::new();
        for (path, place) in wanted.iter().filter(|(path, place)| !is_kept(path, place)) {
            // A directory that took the place of a watched one has the same name.
            drop(self.watcher.unwatch(path));
            match self.watcher.watch(path, RecursiveMode::NonRecursive) {
                Ok(()) => fresh.extend(place.dirs.iter().cloned()),
                // Gone since it was looked at: that is a change, and the next request watches what is above.
                Err(error) if is_missing(&error) => {
                    lock(&self.places).remove(path);
                    fresh.extend(place.dirs.iter().cloned());
                }
                Err(error) => return Err(unwatched(&format!("{}: {error}", path.display()))),
            }
        }
        Ok(fresh)
    }
}

/// The directories that one target's directory needs watched, with device and inode. Of one that is missing, the one above: it may
/// come back.
fn places(dir: &Path) -> Vec<(PathBuf, (u64, u64))> {
    let base = dir.join(BASE);
    let current = fs::read_link(base.join("current")).ok();
    // Only a number is a generation of ours: a link to anywhere else is watched as what it is, a change.
    let current =
        current.and_then(|link| link.to_str()?.parse::<u64>().ok()).map(|number| base.join(number.to_string()));
    let above = dir.parent().filter(|_| id_of(dir).is_none());
    [Some(dir.to_owned()), Some(base), current, above.map(Path::to_owned)]
        .into_iter()
        .flatten()
        .filter_map(|path| id_of(&path).map(|id| (path, id)))
        .collect()
}

/// `None` for what is no directory; follows no link.
fn id_of(path: &Path) -> Option<(u64, u64)> {
    fs::symlink_metadata(path).ok().filter(fs::Metadata::is_dir).map(|found| (found.dev(), found.ino()))
}

/// The targets' directories that an event is about. Reading is no change: services read these files, and so do we. A watched directory
/// that is gone took its watch along, also when another one has its name and even its inode by now.
fn changed(places: &mut BTreeMap<PathBuf, Place>, event: notify::Result<Event>) -> BTreeSet<String> {
    let all =
        |places: &BTreeMap<PathBuf, Place>| places.values().flat_map(|place| place.dirs.iter().cloned()).collect();
    let Ok(event) = event else { return all(places) };
    match event.kind {
        EventKind::Access(AccessKind::Close(AccessMode::Write)) => {}
        EventKind::Access(_) => return BTreeSet::new(),
        _ => {}
    }
    // The kernel's queue ran over: anything may have changed.
    if event.need_rescan() || event.paths.is_empty() {
        return all(places);
    }
    let mut dirs: BTreeSet<String> = BTreeSet::new();
    for path in event.paths.iter().flat_map(|path| [Some(path.as_path()), path.parent()]).flatten() {
        dirs.extend(places.get(path).into_iter().flat_map(|place| place.dirs.iter().cloned()));
    }
    if matches!(event.kind, EventKind::Remove(_) | EventKind::Modify(ModifyKind::Name(_))) {
        event.paths.iter().for_each(|path| drop(places.remove(path)));
    }
    dirs
}

fn is_missing(error: &notify::Error) -> bool {
    match &error.kind {
        notify::ErrorKind::PathNotFound => true,
        notify::ErrorKind::Io(error) => error.kind() == std::io::ErrorKind::NotFound,
        _ => false,
    }
}

fn unwatched(cause: &str) -> Problem {
    Problem::new(
        "WATCH_FAILED",
        "changes of files are not told by this server's kernel; they are looked at every quarter of an hour instead",
        cause,
        "raise fs.inotify.max_user_watches and fs.inotify.max_user_instances with sysctl",
    )
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use tokio::time::timeout;

    use super::*;

    const LIMIT: Duration = Duration::from_secs(10);

    struct Site {
        dir: tempfile::TempDir,
        watch: Arc<Watch>,
    }

    impl Site {
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            fs::create_dir_all(dir.path().join("web/.certwright/7")).unwrap();
            fs::write(dir.path().join("web/.certwright/7/key.pem"), "key").unwrap();
            symlink("7", dir.path().join("web/.certwright/current")).unwrap();
            symlink(".certwright/current/key.pem", dir.path().join("web/key.pem")).unwrap();
            Self { dir, watch: Arc::new(Watch::new(true)) }
        }

        fn web(&self) -> PathBuf {
            self.dir.path().join("web")
        }

        async fn told(&self) -> Vec<String> {
            let dirs = vec![self.web().to_str().unwrap().to_owned()];
            timeout(LIMIT, Arc::clone(&self.watch).wait(dirs)).await.expect("a change is told").unwrap()
        }

        /// Does something and waits until it is told.
        async fn sees(&self, what: &str, act: impl FnOnce(&Path)) {
            act(&self.web());
            assert_eq!(self.told().await, [self.web().to_str().unwrap()], "{what}");
            // What is watched anew by this is told once more.
            while self.is_told_again().await {}
        }

        async fn is_told_again(&self) -> bool {
            let dirs = vec![self.web().to_str().unwrap().to_owned()];
            timeout(QUIET * 3, Arc::clone(&self.watch).wait(dirs)).await.is_ok()
        }
    }

    #[tokio::test]
    async fn every_kind_of_change_is_told_and_reading_is_none() {
        let site = Site::new();
        site.sees("a new watch", |_| {}).await;
        fs::read(site.web().join("key.pem")).unwrap();
        fs::read_dir(site.web()).unwrap().count();
        assert!(!site.is_told_again().await, "reading is no change");
        site.sees("written through the link", |web| fs::write(web.join("key.pem"), "other").unwrap()).await;
        site.sees("a mode in the generation", |web| {
            use std::os::unix::fs::PermissionsExt as _;
            fs::set_permissions(web.join(".certwright/7/key.pem"), fs::Permissions::from_mode(0o644)).unwrap();
        })
        .await;
        site.sees("a link removed", |web| fs::remove_file(web.join("key.pem")).unwrap()).await;
        site.sees("a file in its place", |web| fs::write(web.join("key.pem"), "mine").unwrap()).await;
        site.sees("the switch", |web| {
            fs::create_dir(web.join(".certwright/8")).unwrap();
            fs::remove_file(web.join(".certwright/current")).unwrap();
            symlink("8", web.join(".certwright/current")).unwrap();
        })
        .await;
        site.sees("a file of the new generation", |web| fs::write(web.join(".certwright/8/key.pem"), "x").unwrap())
            .await;
        site.sees("the directory gone", |web| fs::remove_dir_all(web).unwrap()).await;
        site.sees("and back", |web| fs::create_dir(web).unwrap()).await;
        site.sees("and written", |web| fs::write(web.join("key.pem"), "x").unwrap()).await;
        site.sees("made anew at once", |web| {
            fs::remove_dir_all(web).unwrap();
            fs::create_dir(web).unwrap();
        })
        .await;
        site.sees("and written", |web| fs::write(web.join("key.pem"), "x").unwrap()).await;
        site.sees("renamed", |web| fs::rename(web, web.with_extension("old")).unwrap()).await;
    }

    #[tokio::test]
    async fn a_new_request_ends_the_one_before() {
        let site = Site::new();
        site.sees("a new watch", |_| {}).await;
        let dirs = vec![site.web().to_str().unwrap().to_owned()];
        let first = tokio::task::JoinSet::from_iter([Arc::clone(&site.watch).wait(dirs)]);
        tokio::time::sleep(QUIET).await;
        site.sees("the second one", |web| fs::write(web.join("key.pem"), "other").unwrap()).await;
        assert_eq!(first.join_all().await.pop().unwrap().unwrap(), Vec::<String>::new());
    }
}
