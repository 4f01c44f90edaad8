//! Records through the store: by revision, sorted, and never misread.

use serde::Deserialize;

use super::*;
use crate::store::Store;
use crate::store::engine::Backend;
use crate::store::master_key::MasterKey;

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

#[tokio::test]
async fn records_are_inserted_updated_and_removed_by_revision() {
    let store = Store::open(Backend::memory(), true, MasterKey::random()).await.unwrap();
    let first = store.commit(Changes::new().insert(&note("a", "1"))).await.unwrap();
    assert_eq!(*store.revision().borrow(), first);
    let mut read = store.load::<Note>("a").await.unwrap().unwrap();
    assert_eq!(read, Versioned { revision: first, value: note("a", "1") });
    assert!(matches!(
        store.commit(Changes::new().insert(&note("a", "2"))).await,
        Err(CommitError::Conflict { table: Table::Job, .. })
    ));
    let stale = read.clone();
    read.value.text = "2".to_owned();
    read.revision = store.commit(Changes::new().update(&read)).await.unwrap();
    assert_eq!(store.load::<Note>("a").await.unwrap().unwrap(), read);
    assert!(store.commit(Changes::new().update(&stale)).await.is_err());
    assert!(store.commit(Changes::new().remove(&stale)).await.is_err());
    store.commit(Changes::new().upsert(&note("a", "3"))).await.unwrap();
    let read = store.load::<Note>("a").await.unwrap().unwrap();
    store.commit(Changes::new().remove(&read)).await.unwrap();
    assert_eq!(store.load::<Note>("a").await.unwrap(), None);
}

#[tokio::test]
async fn a_list_is_sorted_and_cut() {
    let store = Store::open(Backend::memory(), true, MasterKey::random()).await.unwrap();
    let changes = ["b/2", "a/1", "b/1", "c/1"].iter().fold(Changes::new(), |all, id| all.insert(&note(id, "")));
    store.commit(changes.put_raw(Table::Event, "b/9", b"{}".to_vec())).await.unwrap();
    let ids = |notes: Vec<Versioned<Note>>| notes.into_iter().map(|note| note.value.id).collect::<Vec<_>>();
    assert_eq!(ids(store.list("b/", 10).await.unwrap()), ["b/1", "b/2"]);
    assert_eq!(ids(store.list("", 3).await.unwrap()), ["a/1", "b/1", "b/2"]);
}

#[tokio::test]
async fn a_record_of_another_form_is_an_error_that_names_it() {
    let store = Store::open(Backend::memory(), true, MasterKey::random()).await.unwrap();
    store.commit(Changes::new().put_raw(Table::Job, "odd", b"[1]".to_vec())).await.unwrap();
    let error = store.load::<Note>("odd").await.unwrap_err();
    assert_eq!(error.to_string(), "odd of job does not read as its record");
    assert_eq!(error.problem().reason, "DATABASE_DAMAGED");
}
