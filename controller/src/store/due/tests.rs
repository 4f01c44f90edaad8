//! Each certificate is in each index exactly once, whoever writes what; and what is not so is found.

use jiff::SignedDuration;

use super::*;
use crate::lifecycle::problem::Problem;
use crate::lifecycle::renewal::Reason;
use crate::lifecycle::renewal::tests::certificate;
use crate::store::engine::Backend;
use crate::store::master_key::MasterKey;
use crate::store::records::Versioned;

async fn store() -> Store {
    Store::open(Backend::memory(), true, MasterKey::random()).await.unwrap()
}

fn named(id: &str, hours: i64) -> Certificate {
    Certificate { id: id.into(), name: id.into(), ..certificate(hours) }
}

fn hour(hour: i64) -> Timestamp {
    certificate(1).created_at + SignedDuration::from_hours(hour)
}

async fn keys(store: &Store, index: Table) -> Vec<String> {
    let rows = store
        .read(move |snapshot| snapshot.scan(index, "", Bound::Unbounded, ScanOrder::Ascending, usize::MAX))
        .await
        .unwrap();
    rows.into_iter().map(|(key, _)| key).collect()
}

async fn due_ids(store: &Store, now: Timestamp, most: usize) -> Vec<String> {
    let due = store.due(Table::OrderDue, now, most, |id| id == "skipped").await.unwrap();
    due.rows.into_iter().map(|(id, _)| id).collect()
}

async fn load<R: Record + Send + 'static>(store: &Store, key: &str) -> Versioned<R> {
    store.load(key).await.unwrap().unwrap()
}

async fn wrong(store: &Store) -> Vec<String> {
    store.compare_due(None, hour(0), 100).await.unwrap().wrong
}

#[tokio::test]
async fn the_rows_follow_certificate_order_and_renewal_info() {
    let store = store().await;
    let one = named("a", 90 * 24);
    store.commit(Changes::new().insert(&one)).await.unwrap();
    let [order] = keys(&store, Table::OrderDue).await.try_into().unwrap();
    assert!(order.starts_with("t/") && order.ends_with("/a"), "{order}");
    assert_eq!(keys(&store, Table::QuestionDue).await, ["t/000000000000/a"]);

    let info = RenewalInfo::not_offered(("a", "v"), hour(0));
    store.commit(Changes::new().insert(&info)).await.unwrap();
    assert_eq!(keys(&store, Table::QuestionDue).await, [key(Place::At(hour(24)), "a")]);

    let mut running = Order::begin(&one, "i", Reason::LifetimeFraction, None, hour(1));
    store.commit(Changes::new().insert(&running)).await.unwrap();
    assert_eq!(keys(&store, Table::OrderDue).await, ["h/a"]);
    running.fail(Problem::new("R", "m", "c", "h"), Some(hour(7)), hour(2));
    store.commit(Changes::new().upsert(&running)).await.unwrap();
    assert_eq!(keys(&store, Table::OrderDue).await, [key(Place::At(hour(7)), "a")]);

    let mut certificate = load::<Certificate>(&store, "a").await;
    certificate.value.purging = true;
    store.commit(Changes::new().update(&certificate)).await.unwrap();
    assert_eq!(
        (keys(&store, Table::OrderDue).await, keys(&store, Table::QuestionDue).await.len()),
        (vec!["r/a".to_owned()], 1)
    );
    assert!(wrong(&store).await.is_empty() && store.due_counts_agree().await.unwrap());

    let certificate = load::<Certificate>(&store, "a").await;
    store.commit(Changes::new().remove(&certificate).delete_raw(Table::Order, "a")).await.unwrap();
    assert!(keys(&store, Table::OrderDue).await.is_empty() && keys(&store, Table::QuestionDue).await.is_empty());
    assert!(store.due_counts_agree().await.unwrap());
}

#[tokio::test]
async fn writers_that_know_nothing_of_each_other_leave_one_row() {
    let store = store().await;
    let one = named("a", 90 * 24);
    store.commit(Changes::new().insert(&one)).await.unwrap();
    // Nobody expects what the other writes: only the rows depend on both.
    let writes = (0..40_i64).map(|number| {
        let (store, mut certificate) = (store.clone(), one.clone());
        async move {
            let mut order = Order::begin(&certificate, "i", Reason::LifetimeFraction, None, hour(number));
            order.fail(Problem::new("R", "m", "c", "h"), Some(hour(number)), hour(0));
            certificate.auto_renew = number % 2 == 0;
            let changes =
                if number % 3 == 0 { Changes::new().upsert(&certificate) } else { Changes::new().upsert(&order) };
            store.commit(changes).await
        }
    });
    for written in futures_util::future::join_all(writes).await {
        written.unwrap();
    }
    assert_eq!(keys(&store, Table::OrderDue).await.len(), 1);
    assert!(wrong(&store).await.is_empty() && store.due_counts_agree().await.unwrap());
}

#[tokio::test]
async fn a_batch_whose_own_expectation_fails_is_refused() {
    let store = store().await;
    store.commit(Changes::new().insert(&named("a", 90 * 24))).await.unwrap();
    let stale = load::<Certificate>(&store, "a").await;
    store.commit(Changes::new().update(&stale)).await.unwrap();
    let refused = store.commit(Changes::new().update(&stale)).await;
    assert!(matches!(refused, Err(CommitError::Conflict { table: Table::Certificate, .. })), "{refused:?}");
}

#[tokio::test]
async fn what_is_due_comes_most_urgent_first_and_no_more_than_asked_for() {
    let store = store().await;
    for (id, hours) in [("short", 240), ("shorter", 120), ("skipped", 1), ("long", 90 * 24)] {
        store.commit(Changes::new().insert(&named(id, hours))).await.unwrap();
    }
    assert_eq!(due_ids(&store, hour(0), 10).await, Vec::<String>::new());
    let first = store.due(Table::OrderDue, hour(0), 10, |_| false).await.unwrap().next.unwrap();
    assert!(first < hour(1), "{first}");
    assert_eq!(due_ids(&store, hour(200), 10).await, ["shorter", "short"]);
    let due = store.due(Table::OrderDue, hour(200), 1, |_| false).await.unwrap();
    assert_eq!((due.rows.len(), due.more), (1, true));
    let due = store.due(Table::OrderDue, hour(200), 10, |_| false).await.unwrap();
    assert!(due.next.is_some_and(|next| next > hour(200)) && !due.more);
    // A thousandth of a second earlier it was not due.
    let just_before = first - SignedDuration::from_millis(1);
    assert!(store.due(Table::OrderDue, just_before, 10, |_| false).await.unwrap().rows.is_empty());
    assert_eq!(store.due(Table::OrderDue, first, 10, |_| false).await.unwrap().rows.len(), 1);
}

#[tokio::test]
async fn a_lost_row_a_second_row_and_a_row_of_nobody_are_found_and_mended() {
    let store = store().await;
    for id in ["a", "b", "c"] {
        store.commit(Changes::new().insert(&named(id, 90 * 24))).await.unwrap();
    }
    let before = (keys(&store, Table::OrderDue).await, keys(&store, Table::QuestionDue).await);
    let lost = before.0.iter().find(|key| key.ends_with("/b")).unwrap();
    store.commit(Changes::new().delete_raw(Table::OrderDue, lost)).await.unwrap();
    assert_eq!(wrong(&store).await, ["b"]);
    store.mend_due("b").await.unwrap();
    assert!(wrong(&store).await.is_empty() && store.due_counts_agree().await.unwrap());

    for stray in ["t/000000000001/a", "h/nobody"] {
        store.commit(Changes::new().put_raw(Table::OrderDue, stray, b"{}".to_vec())).await.unwrap();
    }
    assert!(!store.due_counts_agree().await.unwrap());
    assert_eq!(store.remove_stray_due().await.unwrap(), 2);
    assert_eq!((keys(&store, Table::OrderDue).await, keys(&store, Table::QuestionDue).await), before);
}

#[tokio::test]
async fn a_record_that_does_not_read_is_due_at_once() {
    let store = store().await;
    store.commit(Changes::new().insert(&named("a", 90 * 24))).await.unwrap();
    store.commit(Changes::new().put_raw(Table::Order, "a", b"[]".to_vec())).await.unwrap();
    assert_eq!(due_ids(&store, hour(0), 10).await, ["a"]);
    let held = store.held(Table::OrderDue, None, hour(0), 10).await.unwrap();
    assert!(held.is_empty(), "{held:?}");
}

#[tokio::test]
async fn what_a_clock_far_ahead_planned_is_found() {
    let store = store().await;
    let one = named("a", 90 * 24);
    let order = Order::begin(&one, "i", Reason::LifetimeFraction, None, hour(9_000));
    let info = RenewalInfo::not_offered(("a", "v"), hour(9_000));
    store.commit(Changes::new().insert(&one).insert(&order).insert(&info)).await.unwrap();
    let now = store.compare_due(None, hour(0), 100).await.unwrap();
    assert_eq!((now.orders_of_the_future, now.questions_of_the_future), (vec!["a".to_owned()], vec!["a".to_owned()]));
    let then = store.compare_due(None, hour(9_000), 100).await.unwrap();
    assert!(then.orders_of_the_future.is_empty() && then.questions_of_the_future.is_empty() && then.wrong.is_empty());
}

#[tokio::test]
async fn the_rows_do_not_count_among_the_keys_of_a_batch() {
    let store = store().await;
    let all = (0..15).map(|number| named(&format!("c{number}"), 90 * 24));
    let changes = all.fold(Changes::new(), |changes, one| changes.insert(&one));
    let changes =
        (0..49).fold(changes, |changes, number| changes.put_raw(Table::Request, &format!("{number}"), vec![]));
    store.commit(changes).await.unwrap();
    let many =
        (0..65).fold(Changes::new(), |changes, number| changes.put_raw(Table::Request, &format!("{number}"), vec![]));
    assert!(matches!(store.commit(many).await, Err(CommitError::TooLarge)));
}
