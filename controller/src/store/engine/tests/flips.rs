//! One bit of the file is not what was written (reliability.md DB1): the database does not open and says so, or it is as it was.

use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

use redb::backends::InMemoryBackend;
use secrecy::ExposeSecret as _;

use super::super::*;
use crate::store::master_key::MasterKey;
use crate::store::records::Changes;
use crate::store::seal::Place;
use crate::store::{Store, StoreError};

/// Bits flipped, one by one, in the tests; `scripts/soak` says more.
const FLIPS: u64 = 150;
/// Changes that the file went through.
const CHANGES: u64 = 200;
/// Opening and reading everything takes milliseconds.
const HANGS_AFTER: Duration = Duration::from_secs(20);
const HEADER_BYTES: usize = 4_096;
const TABLES: [Table; 4] = [Table::Certificate, Table::Event, Table::Agent, Table::Version];
const SECRET: &str = "a private key";

/// The next of the numbers that follow from a seed.
fn next(state: &mut u64) -> u64 {
    *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    *state >> 33
}

fn place(table: Table, key: &str) -> Place<'_> {
    Place { table, key, field: "key" }
}

type Rows = BTreeMap<(String, String), Stored>;

/// A folder with a database, and what is in it.
struct Used {
    folder: tempfile::TempDir,
    bytes: Vec<u8>,
    rows: Rows,
}

impl Used {
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut used = Self { folder, bytes: Vec::new(), rows: Rows::new() };
        let path = used.path("good.redb");
        let store = Store::open(Backend::File(path.clone()), true, used.master()).await.unwrap();
        let mut random = 1;
        for number in 0..CHANGES {
            let mut changes = Changes::new();
            for table in TABLES {
                let key = format!("{:05}", next(&mut random) % 300);
                let sealed = store.keyring.seal(place(table, &key), &SECRET.to_owned().into());
                let text = "x".repeat(usize::try_from(next(&mut random) % 900).unwrap());
                let value = serde_json::json!({ "number": number, "sealed": sealed, "text": text });
                changes = changes.put_raw(table, &key, serde_json::to_vec(&value).unwrap());
            }
            store.commit(changes).await.unwrap();
        }
        drop(store);
        used.bytes = fs::read(&path).unwrap();
        used.rows = read(path, used.master()).await.unwrap();
        used
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn master(&self) -> MasterKey {
        MasterKey::load_or_create(&self.path("key/master.key"), false).unwrap()
    }

    /// Flips the bit that follows from the seed in a copy, and returns what is found there.
    async fn with_a_flip(&self, seed: u64) -> Result<Rows, StoreError> {
        let mut random = seed;
        next(&mut random);
        let mut bytes = self.bytes.clone();
        let at = usize::try_from(next(&mut random) << 20 ^ next(&mut random)).unwrap() % bytes.len();
        bytes[at] ^= 1 << (next(&mut random) % 8);
        let path = self.path("flipped.redb");
        fs::write(&path, &bytes).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        let found = tokio::time::timeout(HANGS_AFTER, read(path.clone(), self.master())).await;
        let found = found.unwrap_or_else(|_| panic!("seed {seed}: it hangs"));
        // In the header redb notes that it was open.
        let same = || fs::read(path).unwrap()[HEADER_BYTES..] == bytes[HEADER_BYTES..];
        assert!(found.is_ok() || same(), "seed {seed}: it was refused, and written to");
        found
    }
}

/// Opens, reads every row and every secret, and changes something.
async fn read(path: PathBuf, master: MasterKey) -> Result<Rows, StoreError> {
    let store = Store::open(Backend::File(path), false, master).await?;
    let rows = store
        .read(|snapshot| {
            let mut rows = Rows::new();
            for table in snapshot.table_names()? {
                for (key, stored) in snapshot.raw_rows(&table, None, usize::MAX)? {
                    rows.insert((table.clone(), key), stored);
                }
            }
            Ok(rows)
        })
        .await?;
    for ((table, key), stored) in &rows {
        let Some(table) = TABLES.iter().find(|known| known.name() == table) else { continue };
        let value: serde_json::Value = serde_json::from_slice(&stored.bytes).unwrap();
        let sealed = serde_json::from_value(value["sealed"].clone()).unwrap();
        assert_eq!(store.keyring.open(place(*table, key), &sealed).unwrap().expose_secret(), SECRET);
    }
    store.commit(Changes::new().put_raw(Table::Job, "after", b"{}".to_vec())).await.unwrap();
    Ok(rows)
}

#[tokio::test]
#[allow(clippy::disallowed_methods, reason = "scripts/soak says how many there are")]
async fn a_flipped_bit_is_found_before_anything_is_believed() {
    let flips = env::var("FLIPS").map_or(FLIPS, |count| count.parse().unwrap());
    let used = Used::new().await;
    let mut refused = 0;
    for seed in 0..flips {
        match used.with_a_flip(seed).await {
            // It struck a page that is not in use.
            Ok(rows) => assert!(rows == used.rows, "seed {seed}: it opens, and is not what was written"),
            Err(error) => {
                refused += 1;
                let problem = error.problem();
                assert_eq!(problem.reason, "DATABASE_DAMAGED", "seed {seed}: {problem:?}");
                let names = |word: &str| problem.hint.contains(word);
                assert!(names("certwright-controller backup restore --state DIR --from FILE"), "{problem:?}");
            }
        }
    }
    assert!(refused * 4 > flips, "most of the file is in use: {refused} of {flips}");
}

/// A larger file is not read at every start: there a bad page is an error of whoever reads it, and the rest goes on.
#[tokio::test]
async fn a_page_that_is_nonsense_is_an_error_of_its_reader() {
    let used = Used::new().await;
    let mut bytes = used.bytes.clone();
    let needle = b"\"text\":\"xxxx";
    let row = bytes.windows(needle.len()).rposition(|window| window == needle).unwrap();
    // The page's own header: how many rows it has, and where each of them ends.
    let page = row / 4_096 * 4_096;
    bytes[page + 2..page + 64].fill(0xff);
    let disk = InMemoryBackend::new();
    disk.set_len(u64::try_from(bytes.len()).unwrap()).unwrap();
    disk.write(0, &bytes).unwrap();
    let database = Database::builder().create_with_backend(disk).unwrap();
    let slot = Arc::new(Slot::new(Source::Custom(Arc::new(InMemoryBackend::new())), Arc::new(database)));
    let engine = Engine { writer: Arc::new(Writer::start(&slot, 1)), slot };
    let mut bad = 0;
    for table in TABLES {
        for (_, key) in used.rows.keys().filter(|(name, _)| *name == table.name()) {
            let key = key.clone();
            match engine.read(move |snapshot| snapshot.get(table, &key)).await {
                Err(EngineError::Panicked { .. } | EngineError::Damaged { .. } | EngineError::Storage(_)) => bad += 1,
                Err(other) => panic!("{other:?}"),
                Ok(_) => {}
            }
        }
    }
    assert!(bad > 0 && bad < used.rows.len(), "{bad}");
}
