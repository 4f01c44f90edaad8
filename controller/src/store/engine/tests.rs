//! Conflicts, limits, scans, and what an opener is told.

mod crash;
mod flips;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures_util::future::join_all;
use proptest::prelude::*;
use redb::backends::InMemoryBackend;

use super::*;
use crate::store::batch::{BATCH_BYTES_MAX, BATCH_KEYS_MAX};

const T: Table = Table::Certificate;

fn put(key: &str, value: &str) -> Batch {
    let mut batch = Batch::new();
    batch.put(T, key, value.into());
    batch
}

fn put_if(key: &str, value: &str, revision: u64) -> Batch {
    let mut batch = put(key, value);
    batch.expect(T, key, revision);
    batch
}

async fn memory() -> Engine {
    Engine::open(Backend::memory(), true).await.unwrap()
}

async fn text(engine: &Engine, key: &str) -> Option<(u64, String)> {
    let key = key.to_owned();
    let stored = engine.read(move |snapshot| snapshot.get(T, &key)).await.unwrap()?;
    Some((stored.revision, String::from_utf8(stored.bytes).unwrap()))
}

async fn open_file(path: &Path, create: bool) -> Result<Engine, EngineError> {
    Engine::open(Backend::File(path.to_owned()), create).await
}

/// A directory that others may enter, so that the file's own mode decides.
fn directory() -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
    directory
}

#[tokio::test]
async fn every_put_of_a_batch_gets_the_batchs_revision() {
    let engine = memory().await;
    let mut batch = put("a", "1");
    batch.put(Table::Event, "e", b"happened".to_vec());
    assert_eq!(engine.commit(batch).await.unwrap(), 1);
    assert_eq!(engine.commit(put("b", "2")).await.unwrap(), 2);
    assert_eq!(text(&engine, "a").await, Some((1, "1".to_owned())));
    assert_eq!(text(&engine, "b").await, Some((2, "2".to_owned())));
    let event = engine.read(|snapshot| snapshot.get(Table::Event, "e")).await.unwrap().unwrap();
    assert_eq!(event, Stored { revision: 1, bytes: b"happened".to_vec() });
    assert_eq!(engine.read(|snapshot| snapshot.revision()).await.unwrap(), 2);
}

#[tokio::test]
async fn the_second_of_two_writers_of_one_key_gets_a_conflict_and_changes_nothing() {
    let engine = memory().await;
    let first = engine.commit(put_if("a", "first", 0)).await.unwrap();
    let mut late = put_if("a", "late", 0);
    late.put(T, "b", b"late".to_vec());
    late.delete(T, "a");
    let refused = engine.commit(late).await.unwrap_err();
    assert!(matches!(refused, CommitError::Conflict { table: T, key } if key == "a"));
    assert_eq!(text(&engine, "a").await, Some((first, "first".to_owned())));
    assert_eq!(text(&engine, "b").await, None);
    engine.commit(put_if("a", "second", first)).await.unwrap();
    assert!(engine.commit(put_if("a", "third", first)).await.is_err());
}

#[tokio::test]
async fn a_deleted_key_counts_as_one_that_never_was() {
    let engine = memory().await;
    let revision = engine.commit(put("a", "1")).await.unwrap();
    let mut delete = Batch::new();
    delete.expect(T, "a", revision);
    delete.delete(T, "a");
    delete.delete(T, "never was");
    engine.commit(delete).await.unwrap();
    assert_eq!(text(&engine, "a").await, None);
    engine.commit(put_if("a", "again", 0)).await.unwrap();
}

#[tokio::test]
async fn a_batch_of_expectations_only_checks_them() {
    let engine = memory().await;
    let revision = engine.commit(put("a", "1")).await.unwrap();
    let mut check = Batch::new();
    check.expect(T, "a", revision);
    check.expect(Table::Agent, "nobody", 0);
    assert_eq!(engine.commit(check.clone()).await.unwrap(), revision);
    check.expect(T, "a", revision + 1);
    assert!(matches!(engine.commit(check).await, Err(CommitError::Conflict { .. })));
    assert_eq!(*engine.revision().borrow(), revision);
}

#[tokio::test]
async fn the_revision_is_announced_before_the_reply() {
    let engine = memory().await;
    let mut revision = engine.revision();
    assert_eq!(*revision.borrow_and_update(), 0);
    for expected in 1..=5 {
        assert_eq!(engine.commit(put("a", "x")).await.unwrap(), expected);
        assert!(revision.has_changed().unwrap());
        assert_eq!(*revision.borrow_and_update(), expected);
    }
    engine.commit(put_if("a", "x", 99)).await.unwrap_err();
    assert!(!revision.has_changed().unwrap());
}

#[tokio::test]
async fn what_is_queued_together_is_synced_together_and_fails_alone() {
    let syncs = Arc::new(AtomicUsize::new(0));
    let backend = Probe { inner: InMemoryBackend::new(), syncs: syncs.clone(), fault: Arc::default() };
    let engine = Engine::open(Backend::Custom(Box::new(backend)), true).await.unwrap();
    syncs.store(0, Ordering::SeqCst);
    engine.commit(put("alone", "x")).await.unwrap();
    let alone = syncs.swap(0, Ordering::SeqCst);
    assert_eq!(alone, 2, "two-phase commit");
    let outcomes = join_all((0..200).map(|number| {
        // Every tenth one wants a key that exists.
        let key = if number % 10 == 0 { "alone".to_owned() } else { format!("k{number}") };
        let engine = engine.clone();
        async move { engine.commit(put_if(&key, "x", 0)).await }
    }));
    let outcomes = outcomes.await;
    let together = syncs.load(Ordering::SeqCst);
    assert!(together <= alone * 3, "{together} syncs for 200 batches, {alone} for one");
    for (number, outcome) in outcomes.iter().enumerate() {
        assert_eq!(outcome.is_err(), number % 10 == 0, "{number}: {outcome:?}");
    }
    let mut revisions: Vec<_> = outcomes.into_iter().flatten().collect();
    revisions.sort_unstable();
    assert_eq!(revisions, (2..=181).collect::<Vec<_>>());
}

#[tokio::test]
async fn of_many_that_want_one_key_exactly_one_wins() {
    let engine = memory().await;
    let outcomes = join_all((0..50).map(|number| {
        let engine = engine.clone();
        async move { engine.commit(put_if("token", &number.to_string(), 0)).await }
    }));
    assert_eq!(outcomes.await.iter().filter(|outcome| outcome.is_ok()).count(), 1);
}

#[tokio::test]
async fn limits_are_kept_before_anything_is_queued() {
    let engine = memory().await;
    let batch = |keys: usize| {
        let mut batch = Batch::new();
        for number in 0..keys {
            batch.put(T, &number.to_string(), Vec::new());
            batch.expect(T, &number.to_string(), 0);
        }
        batch
    };
    engine.commit(batch(BATCH_KEYS_MAX)).await.unwrap();
    let mut large = Batch::new();
    large.put(T, "a", vec![0; BATCH_BYTES_MAX]);
    engine.commit(large.clone()).await.unwrap();
    large.put(T, "b", vec![0]);
    for refused in [batch(BATCH_KEYS_MAX + 1), large, put("", "x"), put(&"k".repeat(1025), "x")] {
        assert!(matches!(engine.commit(refused).await, Err(CommitError::TooLarge)));
    }
}

#[tokio::test]
async fn a_snapshot_does_not_see_what_is_committed_later() {
    let engine = memory().await;
    engine.commit(put("a", "before")).await.unwrap();
    let (started, wait_started) = std::sync::mpsc::channel();
    let (go, wait_go) = std::sync::mpsc::channel::<()>();
    let reader = {
        let engine = engine.clone();
        async move {
            engine
                .read(move |snapshot| {
                    started.send(()).unwrap();
                    wait_go.recv().unwrap();
                    Ok((snapshot.get(T, "a")?, snapshot.get(T, "b")?, snapshot.revision()?))
                })
                .await
        }
    };
    let writer = async {
        tokio::task::spawn_blocking(move || wait_started.recv().unwrap()).await.unwrap();
        let mut batch = put("a", "after");
        batch.put(T, "b", b"after".to_vec());
        engine.commit(batch).await.unwrap();
        go.send(()).unwrap();
    };
    let (seen, ()) = tokio::join!(reader, writer);
    let (a, b, revision) = seen.unwrap();
    assert_eq!((a.unwrap().bytes, b, revision), (b"before".to_vec(), None, 1));
}

#[tokio::test]
async fn a_closed_database_reopens_at_once_with_everything() {
    let directory = directory();
    let path = directory.path().join("controller.redb");
    for round in 1..=20 {
        let engine = open_file(&path, round == 1).await.unwrap();
        assert_eq!(*engine.revision().borrow(), round - 1);
        assert_eq!(engine.commit(put(&round.to_string(), "x")).await.unwrap(), round);
        for earlier in 1..=round {
            assert_eq!(text(&engine, &earlier.to_string()).await.unwrap().0, earlier);
        }
    }
    let names: Vec<_> = fs::read_dir(&directory).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, ["controller.redb"], "nothing is left beside it");
}

#[tokio::test]
async fn a_second_opener_is_told_which_file_is_taken() {
    let directory = directory();
    let path = directory.path().join("controller.redb");
    let first = open_file(&path, true).await.unwrap();
    let refused = open_file(&path, true).await.unwrap_err();
    assert_eq!(refused.to_string(), format!("another controller has the database {} open", path.display()));
    assert!(refused.problem().hint.contains(&path.display().to_string()));
    first.commit(put("a", "1")).await.unwrap();
}

#[tokio::test]
async fn two_first_starts_at_once_make_one_database() {
    let directory = directory();
    let path = directory.path().join("controller.redb");
    let (one, two) = tokio::join!(open_file(&path, true), open_file(&path, true));
    let refused = match (one, two) {
        (Ok(_engine), Err(refused)) | (Err(refused), Ok(_engine)) => refused,
        other => panic!("{other:?}"),
    };
    assert!(matches!(refused, EngineError::AlreadyOpen { .. }), "{refused:?}");
}

#[tokio::test]
async fn a_missing_database_is_not_made_unless_asked() {
    let directory = directory();
    let path = directory.path().join("state").join("controller.redb");
    assert!(!Backend::File(path.clone()).exists());
    assert!(matches!(open_file(&path, false).await, Err(EngineError::Missing { .. })));
    assert!(!path.parent().unwrap().exists());
    drop(open_file(&path, true).await.unwrap());
    assert!(Backend::File(path.clone()).exists());
    let mode = |path: &Path| path.metadata().unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&path), mode(path.parent().unwrap())), (0o600, 0o700));
    assert!(Backend::File(path.join("below a file")).exists(), "the kernel did not say that there is none");
    let empty = Backend::Custom(Box::new(InMemoryBackend::new()));
    assert!(!empty.exists());
    assert!(matches!(Engine::open(empty, false).await, Err(EngineError::Missing { .. })));
}

#[tokio::test]
async fn a_file_that_is_not_ours_is_refused_and_left_as_it_is() {
    let directory = directory();
    for (name, content) in [("empty", Vec::new()), ("zeros", vec![0; 1 << 16]), ("text", b"hello".repeat(5000))] {
        let path = directory.path().join(name);
        fs::write(&path, &content).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        let refused = open_file(&path, true).await.unwrap_err();
        assert!(matches!(refused, EngineError::Open { .. }), "{name}: {refused:?}");
        assert_eq!(fs::read(&path).unwrap(), content, "{name}");
    }
    let path = directory.path().join("foreign");
    Database::create(&path).unwrap().close().unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    assert!(matches!(open_file(&path, true).await, Err(EngineError::Foreign { .. })));
}

#[tokio::test]
async fn a_database_that_others_can_read_is_refused_unless_its_directory_is_closed() {
    let directory = directory();
    let path = directory.path().join("controller.redb");
    drop(open_file(&path, true).await.unwrap());
    fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
    let refused = open_file(&path, true).await.unwrap_err();
    assert!(matches!(refused, EngineError::Exposed { mode: 0o640, .. }), "{refused:?}");
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o700)).unwrap();
    open_file(&path, true).await.unwrap();
}

#[tokio::test]
async fn a_failing_disk_is_reported_and_ends_the_engine() {
    let directory = directory();
    let path = directory.path().join("controller.redb");
    drop(open_file(&path, true).await.unwrap());
    let fault = Arc::new(Mutex::new(Fault::None));
    let file = fs::OpenOptions::new().read(true).write(true).open(&path).unwrap();
    let inner = redb::backends::FileBackend::new(file).unwrap();
    let backend = Probe { inner, syncs: Arc::default(), fault: fault.clone() };
    let engine = Engine::open(Backend::Custom(Box::new(backend)), false).await.unwrap();
    engine.commit(put("a", "kept")).await.unwrap();
    assert!(!engine.failed().is_cancelled());
    *fault.lock().unwrap() = Fault::Broken;
    let refused = engine.commit(put("a", "lost")).await.unwrap_err();
    assert!(matches!(refused, CommitError::Storage(EngineError::Storage(_))), "{refused:?}");
    assert!(engine.failed().is_cancelled());
    assert_eq!(*engine.revision().borrow(), 1);
    *fault.lock().unwrap() = Fault::None;
    assert!(engine.commit(put("a", "lost")).await.is_err(), "nothing is trusted until it is opened again");
    drop(engine);
    let engine = open_file(&path, false).await.unwrap();
    assert_eq!(text(&engine, "a").await, Some((1, "kept".to_owned())));
}

#[tokio::test(start_paused = true)]
async fn a_full_disk_refuses_changes_alone_and_they_go_on_once_there_is_room() {
    let fault = Arc::new(Mutex::new(Fault::None));
    let backend = Probe { inner: InMemoryBackend::new(), syncs: Arc::default(), fault: fault.clone() };
    let engine = Engine::open(Backend::Custom(Box::new(backend)), true).await.unwrap();
    engine.commit(put("a", "kept")).await.unwrap();
    let frozen = engine.freeze().await.unwrap();
    for round in 0..3 {
        *fault.lock().unwrap() = Fault::Full;
        for _ in 0..3 {
            let refused = engine.commit(put("a", "lost")).await.unwrap_err();
            assert!(matches!(refused, CommitError::Storage(EngineError::Full(_))), "{refused:?}");
            let problem = refused.problem();
            assert_eq!(problem.reason, "DATABASE_FULL");
            assert!(problem.cause.contains("no storage space"), "{problem:?}");
            assert_eq!(text(&engine, "a").await.unwrap().1, "kept", "round {round}");
            assert!(engine.full().borrow().is_some() && !engine.failed().is_cancelled());
            tokio::time::sleep(std::time::Duration::from_secs(3 * round)).await;
        }
        *fault.lock().unwrap() = Fault::None;
        tokio::time::sleep(std::time::Duration::from_secs(3)).await;
        engine.commit(put("b", &round.to_string())).await.unwrap();
        assert!(engine.full().borrow().is_none());
        assert_eq!(*engine.revision().borrow(), 2 + round);
    }
    assert!(
        frozen.read(|snapshot| snapshot.get(T, "a")).await.is_err(),
        "what was frozen is of a file that was closed"
    );
    drop(frozen);
    assert_eq!(text(&engine, "a").await, Some((1, "kept".to_owned())));
}

#[tokio::test]
async fn another_file_in_its_place_is_not_taken_for_the_database() {
    let directory = directory();
    let path = directory.path().join("controller.redb");
    let engine = open_file(&path, true).await.unwrap();
    engine.commit(put("a", "1")).await.unwrap();
    fs::rename(&path, directory.path().join("moved.redb")).unwrap();
    drop(open_file(&path, true).await.unwrap());
    let refused = engine.slot.reopen().await.unwrap_err();
    assert!(matches!(refused, EngineError::Missing { .. }), "{refused:?}");
}

#[tokio::test]
async fn a_panic_in_a_read_is_the_readers_own() {
    let engine = memory().await;
    let mut readers = tokio::task::JoinSet::new();
    let reading = engine.clone();
    readers.spawn(async move { reading.read::<()>(|_| panic!("a bug")).await });
    let refused = readers.join_next().await.unwrap().unwrap().unwrap_err();
    assert!(matches!(&refused, EngineError::Panicked { what } if what == "a bug"), "{refused:?}");
    engine.commit(put("a", "1")).await.unwrap();
}

#[tokio::test]
async fn a_panic_in_a_commit_ends_the_engine_and_leaves_no_one_waiting() {
    let fault = Arc::new(Mutex::new(Fault::None));
    let backend = Probe { inner: InMemoryBackend::new(), syncs: Arc::default(), fault: fault.clone() };
    let engine = Engine::open(Backend::Custom(Box::new(backend)), true).await.unwrap();
    engine.commit(put("a", "1")).await.unwrap();
    *fault.lock().unwrap() = Fault::Panic;
    let outcome = engine.commit(put("b", "1")).await;
    assert!(matches!(outcome, Err(CommitError::Storage(EngineError::Panicked { .. }))), "{outcome:?}");
    engine.failed().cancelled().await;
    assert!(matches!(engine.commit(put("b", "1")).await, Err(CommitError::Storage(EngineError::Stopped))));
}

#[derive(Debug, Default)]
enum Fault {
    #[default]
    None,
    /// There is no room for more: what is there, the header, can be written again.
    Full,
    /// Every write and sync fails: the disk is broken.
    Broken,
    /// The next sync panics, as redb itself may on a damaged file.
    Panic,
}

/// Counts syncs, and fails on demand.
#[derive(Debug)]
struct Probe<B> {
    inner: B,
    syncs: Arc<AtomicUsize>,
    fault: Arc<Mutex<Fault>>,
}

impl<B> Probe<B> {
    fn check(&self, grows: bool) -> std::io::Result<()> {
        match *self.fault.lock().unwrap() {
            Fault::Full if grows => Err(ErrorKind::StorageFull.into()),
            Fault::Full => Ok(()),
            Fault::Broken => Err(std::io::Error::other("a broken disk")),
            Fault::None | Fault::Panic => Ok(()),
        }
    }
}

impl<B: StorageBackend> StorageBackend for Probe<B> {
    fn len(&self) -> std::io::Result<u64> {
        self.inner.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> std::io::Result<()> {
        self.inner.read(offset, out)
    }

    fn set_len(&self, len: u64) -> std::io::Result<()> {
        self.check(true)?;
        self.inner.set_len(len)
    }

    fn sync_data(&self) -> std::io::Result<()> {
        self.check(false)?;
        if matches!(*self.fault.lock().unwrap(), Fault::Full) {
            return self.inner.sync_data();
        }
        let fault = std::mem::take(&mut *self.fault.lock().unwrap());
        assert!(!matches!(fault, Fault::Panic), "a fault of the test");
        self.syncs.fetch_add(1, Ordering::SeqCst);
        self.inner.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> std::io::Result<()> {
        self.check(offset > 0)?;
        self.inner.write(offset, data)
    }
}

fn key() -> impl Strategy<Value = String> {
    "[ab/\u{ff}\u{d7ff}\u{e000}\u{10ffff}]{1,4}"
}

fn bound() -> impl Strategy<Value = Bound<String>> {
    prop_oneof![
        Just(Bound::Unbounded),
        key().prop_map(Bound::Included),
        key().prop_map(Bound::Excluded),
        Just(Bound::Included(String::new())),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Against the obvious model: filter, sort, cut.
    #[test]
    fn a_scan_finds_what_a_filter_would(
        keys in prop::collection::btree_set(key(), 0..30),
        queries in prop::collection::vec(("[ab/\u{d7ff}\u{10ffff}]{0,2}", bound(), any::<bool>(), 0_usize..8), 1..20),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let engine = memory().await;
            let mut model = BTreeMap::new();
            let mut batch = Batch::new();
            for key in &keys {
                batch.put(T, key, key.clone().into_bytes());
                model.insert(key.clone(), key.clone().into_bytes());
            }
            engine.commit(batch).await.unwrap();
            for (prefix, from, ascending, limit) in queries {
                let matching = model.keys().filter(|key| key.starts_with(&prefix));
                let count = matching.clone().count();
                let after = |key: &&String| match (&from, ascending) {
                    (Bound::Unbounded, _) => true,
                    (Bound::Included(from), true) => *key >= from,
                    (Bound::Excluded(from), true) => *key > from,
                    (Bound::Included(from), false) => *key <= from,
                    (Bound::Excluded(from), false) => *key < from,
                };
                let mut expected: Vec<_> = matching.filter(after).cloned().collect();
                if !ascending {
                    expected.reverse();
                }
                expected.truncate(limit);
                let order = if ascending { Order::Ascending } else { Order::Descending };
                let found = engine
                    .read(move |snapshot| {
                        let from = from.as_ref().map(String::as_str);
                        let rows = snapshot.scan(T, &prefix, from, order, limit)?;
                        Ok((rows, snapshot.count(T, &prefix)?))
                    })
                    .await
                    .unwrap();
                let found_keys: Vec<_> = found.0.iter().map(|(key, _)| key.clone()).collect();
                assert_eq!((found_keys, found.1), (expected, u64::try_from(count).unwrap()));
                assert!(found.0.iter().all(|(key, stored)| stored.bytes == key.as_bytes()));
            }
        });
    }
}

#[tokio::test]
async fn an_agent_that_changed_is_told_from_one_that_did_not() {
    let engine = memory().await;
    let write = |id: &str, expected: u64| {
        let mut batch = Batch::new();
        batch.expect(Table::Agent, id, expected);
        batch.put(Table::Agent, id, b"{}".to_vec());
        batch
    };
    engine.commit(write("a1", 0)).await.unwrap();
    engine.commit(write("a2", 0)).await.unwrap();
    let revision = *engine.revision().borrow();
    assert!(!engine.agent_changed_after("a1", revision) && !engine.agent_changed_after("a2", revision));
    engine.commit(put("a1", "of another table")).await.unwrap();
    assert!(engine.commit(write("a1", 99)).await.is_err(), "refused, so unchanged");
    assert!(!engine.agent_changed_after("a1", revision));
    engine.commit(write("a2", 2)).await.unwrap();
    assert!(engine.agent_changed_after("a2", revision) && !engine.agent_changed_after("a1", revision));
    let mut forgotten = Batch::new();
    forgotten.delete(Table::Agent, "a1");
    engine.commit(forgotten).await.unwrap();
    assert!(engine.agent_changed_after("a1", revision));
}
