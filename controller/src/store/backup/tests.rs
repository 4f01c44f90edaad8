//! Backups are whole, of one instant, and open only with what they were made with.

use std::io::Cursor;

use super::super::Store;
use super::super::engine::Backend;
use super::super::master_key::MasterKey;
use super::super::records::Changes;
use super::super::seal::recovery::Recovery;
use super::*;
use crate::lifecycle::restore::{Removal, Removed};

pub(super) fn about() -> About {
    About {
        made_at: Timestamp::from_second(1_800_000_000).unwrap(),
        controller: "ctl".into(),
        version: "0.1.0".into(),
        schema: SCHEMA_VERSION,
        revision: 0,
    }
}

pub(super) fn key(digit: &str) -> Recovery {
    Recovery::key_file(&digit.repeat(64).into()).unwrap()
}

pub(super) async fn store(rows: usize) -> Store {
    let store = Store::open(Backend::memory(), true, MasterKey::random()).await.unwrap();
    for number in 0..rows {
        let text = format!("{number:08}").repeat(400).into_bytes();
        store.commit(Changes::new().put_raw(Table::Event, &format!("{number:08}"), text)).await.unwrap();
    }
    store
}

pub(super) async fn all(mut stream: BackupStream) -> Vec<u8> {
    let mut file = Vec::new();
    while let Some(part) = stream.next().await.unwrap() {
        file.extend(part);
    }
    assert_eq!(stream.bytes(), u64::try_from(file.len()).unwrap());
    file
}

fn verified(file: &[u8]) -> Result<Summary, BackupError> {
    open(Cursor::new(file), &key("a"))?.verify()
}

#[tokio::test]
async fn a_backup_is_of_one_instant_while_writes_go_on() {
    let store = store(150).await;
    let mut stream = store.backup(key("a"), about()).await.unwrap();
    let revision = *store.revision().borrow();
    let mut file = stream.next().await.unwrap().unwrap();
    // What is written from here on is not in it, however far the reading has come.
    for number in 0..150 {
        let changes = Changes::new().put_raw(Table::Event, &format!("{number:08}"), b"later".to_vec()).put_raw(
            Table::Job,
            &format!("{number:08}"),
            b"later".to_vec(),
        );
        store.commit(changes).await.unwrap();
        file.extend(stream.next().await.unwrap().unwrap_or_default());
    }
    while let Some(part) = stream.next().await.unwrap() {
        file.extend(part);
    }
    let mut opened = open(Cursor::new(&file), &key("a")).unwrap();
    assert_eq!(opened.about.revision, revision);
    let mut events = 0;
    while let Some(row) = opened.row().unwrap() {
        assert!(row.revision <= revision && row.bytes != b"later", "{row:?}");
        events += usize::from(row.table == "event");
    }
    assert_eq!(events, 150);
}

#[tokio::test]
async fn whatever_is_changed_is_found_and_told() {
    let store = store(100).await;
    let file = all(store.backup(key("a"), about()).await.unwrap()).await;
    let whole = verified(&file).unwrap();
    assert_eq!(whole.bytes, u64::try_from(file.len()).unwrap());
    assert!(file.len() > 3 * (64 << 10), "several chunks: {}", file.len());
    let reason = |file: &[u8]| verified(file).unwrap_err().problem().reason;
    for end in (0..file.len()).step_by(9_973).chain([file.len() - 1]) {
        let told = reason(&file[..end]);
        assert!(["BACKUP_TRUNCATED", "NOT_A_BACKUP"].contains(&told.as_str()), "{end}: {told}");
    }
    let body = file.windows(2).enumerate().filter(|(_, pair)| pair[0] == b'\n').nth(3).unwrap().0 + 1;
    assert_eq!(reason(&file[..body]), "BACKUP_TRUNCATED");
    assert_eq!(reason(&file[..body + 4 + (64 << 10) + 16]), "BACKUP_TRUNCATED");
    for at in (0..file.len()).step_by(6_421).chain(0..body) {
        let mut changed = file.clone();
        changed[at] ^= 1 << (at % 8);
        let told = reason(&changed);
        let expected =
            if at < body { ["NOT_A_BACKUP", "BACKUP_DAMAGED", "BACKUP_NEWER"] } else { ["BACKUP_DAMAGED"; 3] };
        assert!(expected.contains(&told.as_str()), "{at}: {told}");
    }
    assert_eq!(reason(&[file.as_slice(), b"x"].concat()), "BACKUP_DAMAGED");
    assert_eq!(
        reason(&String::from_utf8_lossy(&file).replacen("backup 1", "backup 2", 1).into_bytes()),
        "BACKUP_NEWER"
    );
    let wrong = |recovery: &Recovery| open(Cursor::new(&file), recovery).unwrap_err().problem().reason;
    assert_eq!(wrong(&key("b")), "RECOVERY_WRONG");
    assert_eq!(wrong(&Recovery::passphrase("correct horse battery".to_owned().into()).unwrap()), "RECOVERY_OTHER_KIND");
}

#[tokio::test]
async fn no_secret_stands_in_a_backup() {
    let store = store(1).await;
    let place = super::super::seal::Place { table: Table::Job, key: "a", field: "text" };
    let sealed = store.keyring.seal(place, &"hidden".to_owned().into());
    let text = serde_json::to_vec(&sealed).unwrap();
    store.commit(Changes::new().put_raw(Table::Job, "a", text)).await.unwrap();
    let words = Recovery::passphrase("correct horse battery".to_owned().into()).unwrap();
    let file = all(store.backup(words, about()).await.unwrap()).await;
    for text in ["hidden", "event", "correct horse", &sealed.ciphertext] {
        assert!(!file.windows(text.len()).any(|window| window == text.as_bytes()), "{text}");
    }
}

fn terms(removals: Option<Vec<Removal>>) -> Terms {
    Terms {
        at: Timestamp::from_second(1_800_000_100).unwrap(),
        by: "local:root".into(),
        from: "uid 0".into(),
        removals,
    }
}

#[tokio::test]
async fn a_restored_database_has_everything_but_what_is_void_under_another_master_key() {
    let store = store(10).await;
    let place = super::super::seal::Place { table: Table::Job, key: "a", field: "text" };
    let sealed = store.keyring.seal(place, &"hidden".to_owned().into());
    let changes = Changes::new()
        .put_raw(Table::Job, "a", serde_json::to_vec(&sealed).unwrap())
        .put_raw(Table::JoinToken, "t", b"{}".to_vec())
        .put_raw(Table::Invitation, "i", b"{}".to_vec())
        .put_raw(Table::Operator, "o1", b"{}".to_vec())
        .put_raw(Table::OperatorName, "alice", b"o1".to_vec());
    store.commit(changes).await.unwrap();
    let file = all(store.backup(key("a"), about()).await.unwrap()).await;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state").join("certwright.redb");
    let removed = Removal {
        at: terms(None).at,
        what: Removed::OperatorRemoved,
        id: "o1".into(),
        name: "alice".into(),
        leaf: None,
    };
    let master = |name: &str| MasterKey::load_or_create(&folder.path().join(name), false).unwrap();
    let restore = |file: &[u8], terms: &Terms| {
        open(Cursor::new(file), &key("a")).unwrap().restore(Backend::File(path.clone()), &master("new.key"), terms)
    };
    let cut = restore(&file[..file.len() - 20], &terms(None)).unwrap_err();
    assert_eq!(cut.problem().reason, "BACKUP_TRUNCATED");
    assert!(std::fs::read_dir(path.parent().unwrap()).unwrap().next().is_none(), "nothing is left of half a restore");
    let (summary, made) = restore(&file, &terms(Some(vec![removed]))).unwrap();
    assert!(made.is_waiting() && made.epoch > 1 && made.removals == Some(1) && summary.rows > 10);
    let again = restore(&file, &terms(None)).unwrap_err();
    assert_eq!(again.problem().reason, "STATE_NOT_EMPTY");

    let wrong = Store::open(Backend::File(path.clone()), false, master("other.key")).await.unwrap_err();
    assert_eq!(wrong.problem().reason, "MASTER_KEY_WRONG");
    let restored = Store::open(Backend::File(path.clone()), false, master("new.key")).await.unwrap();
    let job = restored.read(|snapshot| snapshot.get(Table::Job, "a")).await.unwrap().unwrap();
    let sealed = serde_json::from_slice(&job.bytes).unwrap();
    assert_eq!(secrecy::ExposeSecret::expose_secret(&restored.keyring.open(place, &sealed).unwrap()), "hidden");
    let count = |table| restored.read(move |snapshot| snapshot.count(table, ""));
    assert_eq!(count(Table::Event).await.unwrap(), 10);
    for table in [Table::JoinToken, Table::Invitation, Table::Operator, Table::OperatorName] {
        assert_eq!(count(table).await.unwrap(), 0, "{table}");
    }
    assert!(restored.pause_all().await.unwrap().is_some(), "it waits");
}
