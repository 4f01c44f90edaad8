//! What the next opener of a database gets: everything, or a refusal that changes nothing.

use std::os::unix::fs::PermissionsExt as _;

use secrecy::ExposeSecret as _;
use tempfile::TempDir;

use super::*;
use crate::store::engine::{Backend, Engine};
use crate::store::master_key::{MasterKey, MasterKeyError};
use crate::store::records::Changes;
use crate::store::seal::{KeyringRecord, Place};
use crate::store::{Store, StoreError};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Note {
    id: String,
    text: String,
}

impl Record for Note {
    const TABLE: Table = Table::Job;

    fn key(&self) -> String {
        self.id.clone()
    }
}

fn note(id: &str, text: &str) -> Note {
    Note { id: id.to_owned(), text: text.to_owned() }
}

/// A state directory with a key beside it.
struct State {
    directory: TempDir,
}

impl State {
    fn new() -> Self {
        Self { directory: tempfile::tempdir().unwrap() }
    }

    fn database(&self) -> PathBuf {
        self.directory.path().join("controller.redb")
    }

    fn master(&self, name: &str) -> MasterKey {
        MasterKey::load_or_create(&self.directory.path().join("key").join(name), false).unwrap()
    }

    async fn open(&self, master: &str) -> Result<Store, StoreError> {
        Store::open(Backend::File(self.database()), true, self.master(master)).await
    }
}

#[tokio::test]
async fn records_and_secrets_survive_a_restart() {
    let place = State::new();
    let field = Place { table: Table::Job, key: "a", field: "text" };
    let store = place.open("master.key").await.unwrap();
    let sealed = store.keyring.seal(field, &"hidden".to_owned().into());
    let text = serde_json::to_string(&sealed).unwrap();
    store.commit(Changes::new().insert(&note("a", &text))).await.unwrap();
    drop(store);
    let store = place.open("master.key").await.unwrap();
    let read = store.load::<Note>("a").await.unwrap().unwrap();
    let sealed = serde_json::from_str(&read.value.text).unwrap();
    assert_eq!(store.keyring.open(field, &sealed).unwrap().expose_secret(), "hidden");
    drop(store);
    let bytes = fs::read(place.database()).unwrap();
    for secret in [b"hidden".as_slice(), place.master("master.key").expose()] {
        assert!(!bytes.windows(secret.len()).any(|window| window == secret));
    }
}

#[tokio::test]
async fn a_wrong_master_key_is_refused_and_changes_nothing() {
    let place = State::new();
    let store = place.open("master.key").await.unwrap();
    store.commit(Changes::new().insert(&note("a", "1"))).await.unwrap();
    drop(store);
    let refused = place.open("other.key").await.unwrap_err();
    let problem = refused.problem();
    assert_eq!(problem.reason, "MASTER_KEY_WRONG");
    assert!(problem.message.contains("other.key") && problem.message.contains("controller.redb"), "{problem:?}");
    let store = place.open("master.key").await.unwrap();
    assert!(store.load::<Note>("a").await.unwrap().is_some());
}

#[tokio::test]
async fn a_rotated_master_key_replaces_the_old_one() {
    let place = State::new();
    let field = Place { table: Table::Job, key: "a", field: "text" };
    let store = place.open("master.key").await.unwrap();
    let sealed = store.keyring.seal(field, &"hidden".to_owned().into());
    store.rotate_master(&place.master("new.key")).await.unwrap();
    drop(store);
    assert!(matches!(place.open("master.key").await, Err(StoreError::MasterKey(MasterKeyError::Wrong { .. }))));
    let store = place.open("new.key").await.unwrap();
    assert_eq!(store.keyring.open(field, &sealed).unwrap().expose_secret(), "hidden");
}

/// Opens, changes something as another program might, and returns what the next opener gets.
async fn after(change: impl AsyncFn(&Store) -> Changes) -> Result<Store, StoreError> {
    let place = State::new();
    let store = place.open("master.key").await.unwrap();
    let changes = change(&store).await;
    store.commit(changes).await.unwrap();
    drop(store);
    place.open("master.key").await
}

#[tokio::test]
async fn a_newer_schema_is_refused_before_its_keyring_is_read() {
    let outcome = after(async |_| {
        let schema = Schema { version: SCHEMA_VERSION + 1, ..Schema::now() };
        Changes::new().upsert(&schema).put_raw(Table::Setting, KeyringRecord::KEY, b"another form".to_vec())
    });
    let refused = outcome.await.unwrap_err();
    assert!(matches!(refused, StoreError::SchemaNewer { found: 2, known: 1, .. }), "{refused:?}");
    assert!(refused.problem().hint.contains("newer controller"));
}

#[tokio::test]
async fn a_database_without_schema_or_keyring_is_not_initialised_again() {
    for key in [Schema::KEY, KeyringRecord::KEY] {
        let outcome = after(async |_| Changes::new().delete_raw(Table::Setting, key)).await;
        assert!(matches!(outcome, Err(StoreError::Incomplete { missing, .. }) if missing == key));
    }
    let both = after(async |_| {
        Changes::new().delete_raw(Table::Setting, Schema::KEY).delete_raw(Table::Setting, KeyringRecord::KEY)
    });
    assert!(matches!(both.await, Err(StoreError::Incomplete { .. })));
}

#[tokio::test]
async fn a_damaged_keyring_is_refused() {
    let outcome = after(async |store| {
        let record = store.load::<KeyringRecord>(KeyringRecord::KEY).await.unwrap().unwrap();
        let mut json = serde_json::to_value(&record.value).unwrap();
        json["active"]["id"] = "another".into();
        Changes::new().put_raw(Table::Setting, KeyringRecord::KEY, serde_json::to_vec(&json).unwrap())
    });
    assert!(matches!(outcome.await, Err(StoreError::Keyring { .. })));
}

#[tokio::test]
async fn a_start_that_died_after_making_the_file_is_finished_by_the_next() {
    let place = State::new();
    drop(Engine::open(Backend::File(place.database()), true).await.unwrap());
    drop(place.open("master.key").await.unwrap());
    place.open("master.key").await.unwrap();
}

/// Makes the database one that this version wrote last, or another, or one of before that was noted.
async fn written_by(store: &Store, program: Option<&str>) {
    let mut schema = serde_json::json!({ "version": SCHEMA_VERSION });
    if let Some(program) = program {
        schema["program"] = program.into();
    }
    let changes = Changes::new().put_raw(Table::Setting, Schema::KEY, serde_json::to_vec(&schema).unwrap());
    store.commit(changes).await.unwrap();
}

impl State {
    /// Returns the names of what lies beside the database.
    fn beside(&self) -> Vec<String> {
        let mut names: Vec<_> = fs::read_dir(self.directory.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter(|name| name.starts_with("controller.redb."))
            .collect();
        names.sort();
        names
    }

    fn copy(&self) -> PathBuf {
        self.directory.path().join(format!("controller.redb.before-{PROGRAM}"))
    }
}

#[tokio::test]
async fn a_database_of_another_version_is_copied_before_it_is_changed_and_the_copy_is_the_way_back() {
    for program in [None, Some("0.0.9"), Some("99.0.0")] {
        let place = State::new();
        let store = place.open("master.key").await.unwrap();
        store.commit(Changes::new().insert(&note("a", "before"))).await.unwrap();
        written_by(&store, program).await;
        drop(store);
        let store = place.open("master.key").await.unwrap();
        store.commit(Changes::new().upsert(&note("a", "after"))).await.unwrap();
        drop(store);
        assert_eq!(place.beside(), [format!("controller.redb.before-{PROGRAM}")]);
        assert_eq!(place.copy().metadata().unwrap().permissions().mode() & 0o777, 0o600);
        // The next start of the same version makes none.
        fs::remove_file(place.copy()).unwrap();
        drop(place.open("master.key").await.unwrap());
        assert!(place.beside().is_empty(), "{program:?}");
    }
    let place = State::new();
    let store = place.open("master.key").await.unwrap();
    store.commit(Changes::new().insert(&note("a", "before"))).await.unwrap();
    written_by(&store, None).await;
    drop(store);
    let store = place.open("master.key").await.unwrap();
    store.commit(Changes::new().upsert(&note("a", "after"))).await.unwrap();
    drop(store);
    fs::rename(place.copy(), place.database()).unwrap();
    let store = Engine::open(Backend::File(place.database()), false).await.unwrap();
    let found = store.read(|snapshot| Ok((snapshot.load::<Note>("a")?, snapshot.load::<Schema>(Schema::KEY)?)));
    let (found, schema) = found.await.unwrap();
    assert_eq!((found.unwrap().value.text.as_str(), schema.unwrap().value.program.as_str()), ("before", ""));
}

#[tokio::test]
async fn an_upgrade_that_was_cut_off_anywhere_is_taken_up_by_the_next_start() {
    let place = State::new();
    let store = place.open("master.key").await.unwrap();
    store.commit(Changes::new().insert(&note("a", "before"))).await.unwrap();
    written_by(&store, Some("0.0.9")).await;
    drop(store);
    let half = place.directory.path().join("controller.redb.copy");
    for half_made in [true, false] {
        if half_made {
            fs::write(&half, "half a database").unwrap();
        } else {
            // The copy has its name, and the database is as it was.
            keep_aside(&place.database()).unwrap();
        }
        let store = place.open("master.key").await.unwrap();
        assert_eq!(store.load::<Note>("a").await.unwrap().unwrap().value.text, "before");
        assert_eq!(place.beside(), [format!("controller.redb.before-{PROGRAM}")]);
        let copy = Engine::open(Backend::File(place.copy()), false).await.unwrap();
        let written = copy.read(|snapshot| snapshot.load::<Schema>(Schema::KEY)).await.unwrap();
        assert_eq!(written.unwrap().value.program, "0.0.9");
        written_by(&store, Some("0.0.9")).await;
    }
}

#[tokio::test]
async fn two_copies_stay_and_without_room_for_one_nothing_is_changed() {
    let place = State::new();
    let store = place.open("master.key").await.unwrap();
    written_by(&store, Some("0.0.9")).await;
    drop(store);
    for (age, version) in ["0.0.1", "0.0.2", "0.0.3"].into_iter().enumerate() {
        let old = place.directory.path().join(format!("controller.redb.before-{version}"));
        fs::write(&old, version).unwrap();
        let at = std::time::UNIX_EPOCH + std::time::Duration::from_secs(1_000 + u64::try_from(age).unwrap());
        File::options().write(true).open(&old).unwrap().set_modified(at).unwrap();
    }
    // A directory where the copy would be written: it cannot be.
    let blocked = place.directory.path().join("controller.redb.copy");
    fs::create_dir(&blocked).unwrap();
    let refused = place.open("master.key").await.unwrap_err();
    assert_eq!(refused.problem().reason, "UPGRADE_COPY_FAILED");
    assert!(refused.problem().hint.contains("make room"), "{refused:?}");
    assert_eq!(place.beside().len(), 4);
    fs::remove_dir(&blocked).unwrap();
    drop(place.open("master.key").await.unwrap());
    let kept = ["0.0.3", PROGRAM].map(|version| format!("controller.redb.before-{version}"));
    assert_eq!(place.beside(), kept);
}
