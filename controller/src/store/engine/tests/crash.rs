//! Whatever was acknowledged is there after a kill or a loss of power at any instant, and nothing is half there.

use std::io::{self, BufRead as _, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Mutex;

use super::super::*;

const COMMITS: u64 = 12;
const FILE: &str = "killed.redb";

/// What reached the operating system, in order.
#[derive(Clone, Debug)]
enum Op {
    Write(u64, Vec<u8>),
    SetLen(u64),
    Sync,
}

#[derive(Debug, Default)]
struct Disk {
    image: Vec<u8>,
    ops: Vec<Op>,
}

/// A disk in memory that remembers how it came to be.
#[derive(Clone, Debug, Default)]
struct Recorder(Arc<Mutex<Disk>>);

impl Recorder {
    fn holding(image: Vec<u8>) -> Self {
        Self(Arc::new(Mutex::new(Disk { image, ops: Vec::new() })))
    }

    fn record(&self, op: Op) {
        let mut disk = self.0.lock().unwrap();
        perform(&mut disk.image, &op);
        disk.ops.push(op);
    }
}

fn perform(image: &mut Vec<u8>, op: &Op) {
    match op {
        Op::Write(offset, bytes) => {
            let start = usize::try_from(*offset).unwrap();
            let end = start + bytes.len();
            if image.len() < end {
                image.resize(end, 0);
            }
            image[start..end].copy_from_slice(bytes);
        }
        Op::SetLen(len) => image.resize(usize::try_from(*len).unwrap(), 0),
        Op::Sync => {}
    }
}

impl StorageBackend for Recorder {
    fn len(&self) -> io::Result<u64> {
        Ok(u64::try_from(self.0.lock().unwrap().image.len()).unwrap())
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let start = usize::try_from(offset).unwrap();
        out.copy_from_slice(&self.0.lock().unwrap().image[start..start + out.len()]);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.record(Op::SetLen(len));
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        self.record(Op::Sync);
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.record(Op::Write(offset, data.to_vec()));
        Ok(())
    }
}

/// Batch `number` writes its own key and moves a counter, over two tables.
fn batch(number: u64) -> Batch {
    let mut batch = Batch::new();
    batch.put(Table::Event, &format!("{number:08}"), vec![b'x'; 900]);
    batch.put(Table::Setting, "counter", number.to_be_bytes().to_vec());
    batch
}

/// A finished run: the disk as it was opened, every operation since, and how many of them had happened at each
/// acknowledgement.
struct Run {
    start: Vec<u8>,
    ops: Vec<Op>,
    acknowledged: Vec<usize>,
}

impl Run {
    async fn record() -> Self {
        let recorder = Recorder::default();
        drop(Engine::open(Backend::Custom(Box::new(recorder.clone())), true).await.unwrap());
        let start = recorder.0.lock().unwrap().image.clone();
        recorder.0.lock().unwrap().ops.clear();
        let engine = Engine::open(Backend::Custom(Box::new(recorder.clone())), false).await.unwrap();
        let mut acknowledged = Vec::new();
        for number in 1..=COMMITS {
            engine.commit(batch(number)).await.unwrap();
            acknowledged.push(recorder.0.lock().unwrap().ops.len());
        }
        drop(engine);
        let ops = std::mem::take(&mut recorder.0.lock().unwrap().ops);
        Self { start, ops, acknowledged }
    }

    /// Opens what the disk holds after a crash at operation `at`, and checks every promise.
    async fn check(&self, at: usize, image: Vec<u8>) {
        let acknowledged = self.acknowledged.iter().filter(|ops| **ops <= at).count();
        let acknowledged = u64::try_from(acknowledged).unwrap();
        let engine = Engine::open(Backend::Custom(Box::new(Recorder::holding(image))), false).await;
        let engine = engine.unwrap_or_else(|error| panic!("crash at operation {at}: {error:?}"));
        check(&engine, acknowledged, &format!("crash at operation {at}")).await;
        engine.commit(batch(9_999)).await.unwrap();
    }
}

/// At least the acknowledged batches are there, each whole, in order, and not one more than was begun.
async fn check(engine: &Engine, acknowledged: u64, context: &str) {
    let (revision, counter, events) = engine
        .read(|snapshot| {
            let counter = snapshot.get(Table::Setting, "counter")?.map_or(0, |stored| {
                assert_eq!(u64::from_be_bytes(stored.bytes.as_slice().try_into().unwrap()), stored.revision);
                stored.revision
            });
            let events = snapshot.scan(Table::Event, "", Bound::Unbounded, Order::Ascending, usize::MAX)?;
            Ok((snapshot.revision()?, counter, events))
        })
        .await
        .unwrap();
    assert!(revision == acknowledged || revision == acknowledged + 1, "{context}: {revision}, {acknowledged}");
    assert_eq!(counter, revision, "{context}");
    let expected: Vec<_> = (1..=revision).map(|number| format!("{number:08}")).collect();
    assert_eq!(events.iter().map(|(key, _)| key.clone()).collect::<Vec<_>>(), expected, "{context}");
    assert!(events.iter().all(|(_, stored)| stored.bytes == vec![b'x'; 900]), "{context}");
}

#[tokio::test]
async fn a_kill_at_any_instant_loses_nothing_acknowledged() {
    let run = Run::record().await;
    let mut image = run.start.clone();
    for (index, op) in run.ops.iter().enumerate() {
        perform(&mut image, op);
        run.check(index + 1, image.clone()).await;
    }
}

/// A disk may keep any part of what was written since the last sync: each 512-byte sector on its own.
#[tokio::test]
async fn a_loss_of_power_at_any_instant_loses_nothing_acknowledged() {
    let run = Run::record().await;
    let mut random = 0x9e37_79b9_7f4a_7c15_u64;
    let mut keep = move || {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        random >> 63 == 1
    };
    let mut synced = run.start.clone();
    let mut pending: Vec<Op> = Vec::new();
    for (index, op) in run.ops.iter().enumerate() {
        if matches!(op, Op::Sync) {
            pending.drain(..).for_each(|op| perform(&mut synced, &op));
        } else {
            pending.push(op.clone());
        }
        for _ in 0..2 {
            let mut image = synced.clone();
            for op in &pending {
                match op {
                    Op::Write(offset, bytes) => {
                        for (at, part) in (*offset..).step_by(512).zip(bytes.chunks(512)) {
                            if keep() {
                                perform(&mut image, &Op::Write(at, part.to_vec()));
                            }
                        }
                    }
                    other => perform(&mut image, other),
                }
            }
            run.check(index + 1, image).await;
        }
    }
}

/// A full repair reads everything: 41 s for 8 GB (crates.md §6).
#[tokio::test]
async fn a_restart_after_a_kill_needs_no_full_repair() {
    let recorder = Recorder::default();
    let engine = Engine::open(Backend::Custom(Box::new(recorder.clone())), true).await.unwrap();
    for number in 1..=3 {
        engine.commit(batch(number)).await.unwrap();
        let killed = Recorder::holding(recorder.0.lock().unwrap().image.clone());
        let mut builder = Database::builder();
        builder.set_repair_callback(|_| panic!("a full repair"));
        builder.create_with_backend(killed).unwrap();
    }
}

/// The child of the next test; on its own it has nothing to do.
#[tokio::test]
async fn writes_until_killed() {
    if !Path::new(FILE).exists() {
        return;
    }
    let engine = Engine::open(Backend::File(FILE.into()), false).await.unwrap();
    for number in 1.. {
        assert_eq!(engine.commit(batch(number)).await.unwrap(), number);
        println!("\nacknowledged {number}");
    }
}

#[tokio::test]
async fn a_killed_process_leaves_everything_it_acknowledged() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join(FILE);
    drop(Engine::open(Backend::File(path.clone()), true).await.unwrap());
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "--nocapture", "store::engine::tests::crash::writes_until_killed"])
        .current_dir(&directory)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
    let number = |line: String| line.strip_prefix("acknowledged ").map(|number| number.parse::<u64>().unwrap());
    lines.by_ref().filter_map(number).find(|number| *number == 40).unwrap();
    let taken = Engine::open(Backend::File(path.clone()), false).await;
    assert!(matches!(taken, Err(EngineError::AlreadyOpen { .. })), "{taken:?}");
    child.kill().unwrap();
    let last = lines.filter_map(number).last().unwrap_or(40);
    child.wait().unwrap();
    let engine = Engine::open(Backend::File(path), false).await.unwrap();
    check(&engine, last, "killed").await;
}
