//! A list on a screen: the rows that were read, the record under the cursor, the part that shows. The cursor follows the
//! record, not the row number; rows are not re-sorted under the operator's hands; a record that disappears stays, struck
//! through, until the cursor leaves it (tui.md §2.1). Pure.

use std::collections::HashMap;

use jiff::Timestamp;

use crate::app::call::Page;
use crate::theme::State;

/// Rows read at once.
pub(crate) const PAGE_ROWS: usize = 200;
/// Rows held at most: what lies further is reached with a filter.
pub(crate) const ROWS_MAX: usize = 2_000;
/// An order that has not been touched for so long may change again.
const FROZEN_SECONDS: i64 = 30;
/// How long a changed row is marked.
const CHANGED_SECONDS: i64 = 5;
/// Rows from the end at which more are read.
const NEAR_END: usize = 20;

/// A record that can stand in a list.
pub(crate) trait Record: Clone + PartialEq {
    /// Returns what identifies the record for good.
    fn id(&self) -> &str;
    /// Returns how the record stands.
    fn state(&self) -> State;
}

/// Rows, cursor and window.
#[derive(Clone, Debug)]
pub(crate) struct List<T> {
    /// The rows, as they show.
    pub(crate) rows: Vec<T>,
    /// How many the controller has for this filter.
    pub(crate) total: u64,
    /// Whether rows follow that were not read.
    pub(crate) more: bool,
    /// Whether an answer has come at all.
    pub(crate) loaded: bool,
    /// What the operator is looking for.
    pub(crate) filter: String,
    /// First row that shows.
    pub(crate) offset: usize,
    /// How many rows the controller would put elsewhere now.
    pub(crate) newer: usize,
    cursor: Option<String>,
    gone: Option<String>,
    changed: HashMap<String, Timestamp>,
    moved_at: Option<Timestamp>,
    fresh: bool,
}

impl<T> Default for List<T> {
    fn default() -> Self {
        Self {
            rows: Vec::new(),
            total: 0,
            more: false,
            loaded: false,
            filter: String::new(),
            offset: 0,
            newer: 0,
            cursor: None,
            gone: None,
            changed: HashMap::new(),
            moved_at: None,
            fresh: true,
        }
    }
}

impl<T: Record> List<T> {
    /// Takes an answer. Keeps the order on the screen while the operator is at work in it.
    pub(crate) fn take(&mut self, page: Page<T>, now: Timestamp) {
        let idle = self.moved_at.is_none_or(|at| now.as_second() - at.as_second() >= FROZEN_SECONDS);
        let keep = self.loaded && !self.fresh && !idle;
        self.note_changes(&page.items, now);
        let vanished = self.vanished(&page);
        let order: Vec<String> = page.items.iter().map(|row| row.id().to_owned()).collect();
        let mut rows = if keep { self.in_old_order(page.items) } else { page.items };
        self.newer = rows.iter().zip(&order).filter(|(row, id)| row.id() != id.as_str()).count();
        if let Some((at, row)) = vanished {
            self.gone = Some(row.id().to_owned());
            rows.insert(at.min(rows.len()), row);
        } else {
            self.gone = None;
        }
        self.rows = rows;
        self.total = page.total;
        self.more = page.more;
        self.loaded = true;
        self.fresh = false;
        if self.cursor.is_none() || self.index().is_none() {
            self.cursor = self.rows.first().map(|row| row.id().to_owned());
        }
    }

    /// The record under the cursor, when the controller no longer has it.
    fn vanished(&self, page: &Page<T>) -> Option<(usize, T)> {
        if self.fresh || page.more {
            return None;
        }
        let at = self.index()?;
        let row = self.rows.get(at)?;
        let there = page.items.iter().any(|item| item.id() == row.id());
        (!there).then(|| (at, row.clone()))
    }

    fn note_changes(&mut self, items: &[T], now: Timestamp) {
        self.changed.retain(|_, at| now.as_second() - at.as_second() < CHANGED_SECONDS);
        if !self.loaded || self.fresh {
            return;
        }
        let old: HashMap<&str, &T> = self.rows.iter().map(|row| (row.id(), row)).collect();
        for item in items {
            if old.get(item.id()).is_none_or(|row| *row != item) {
                self.changed.insert(item.id().to_owned(), now);
            }
        }
    }

    /// Sorts `items` as the rows stand now; a new one goes behind the row it follows in the controller's order.
    fn in_old_order(&self, items: Vec<T>) -> Vec<T> {
        let old: HashMap<&str, usize> = self.rows.iter().enumerate().map(|(at, row)| (row.id(), at + 1)).collect();
        let mut after = 0;
        let mut keyed: Vec<((usize, usize), T)> = Vec::with_capacity(items.len());
        for (position, item) in items.into_iter().enumerate() {
            match old.get(item.id()) {
                Some(at) => {
                    after = *at;
                    keyed.push(((*at, 0), item));
                }
                None => keyed.push(((after, position + 1), item)),
            }
        }
        keyed.sort_by_key(|(key, _)| *key);
        keyed.into_iter().map(|(_, item)| item).collect()
    }

    /// Lets the next answer replace order and rows: another filter, another sort, or the operator asked.
    pub(crate) fn refresh(&mut self) {
        self.fresh = true;
        self.gone = None;
    }

    /// Returns the position of the cursor.
    pub(crate) fn index(&self) -> Option<usize> {
        let cursor = self.cursor.as_deref()?;
        self.rows.iter().position(|row| row.id() == cursor)
    }

    /// Returns the record under the cursor, unless it is gone.
    pub(crate) fn current(&self) -> Option<&T> {
        let row = self.index().and_then(|at| self.rows.get(at))?;
        (self.gone.as_deref() != Some(row.id())).then_some(row)
    }

    /// Moves the cursor to a position; a record that is gone disappears once the cursor leaves it.
    pub(crate) fn move_to(&mut self, at: usize, now: Timestamp) {
        let Some(row) = self.rows.get(at.min(self.rows.len().saturating_sub(1))) else { return };
        let id = row.id().to_owned();
        if let Some(gone) = self.gone.take_if(|gone| *gone != id) {
            self.rows.retain(|row| row.id() != gone);
        }
        self.cursor = Some(id);
        self.moved_at = Some(now);
    }

    /// Moves the cursor by so many rows.
    pub(crate) fn move_by(&mut self, rows: isize, now: Timestamp) {
        let at = self.index().unwrap_or(0);
        self.move_to(at.saturating_add_signed(rows), now);
    }

    /// Moves the cursor to the next row that needs someone, or the previous one.
    pub(crate) fn move_to_problem(&mut self, forward: bool, now: Timestamp) -> bool {
        let at = self.index().unwrap_or(0);
        let hit = |(at, row): (usize, &T)| row.state().needs_someone().then_some(at);
        let found = if forward {
            self.rows.iter().enumerate().skip(at + 1).find_map(hit)
        } else {
            self.rows.iter().enumerate().take(at).rev().find_map(hit)
        };
        if let Some(at) = found {
            self.move_to(at, now);
        }
        found.is_some()
    }

    /// Scrolls so that the cursor shows in a window of `height` rows.
    pub(crate) fn settle(&mut self, height: usize) {
        let at = self.index().unwrap_or(0);
        let height = height.max(1);
        let last = self.rows.len().saturating_sub(height);
        self.offset = self.offset.min(at).max((at + 1).saturating_sub(height)).min(last);
    }

    /// Returns the rows that show in a window of `height` rows.
    pub(crate) fn window(&self, height: usize) -> impl Iterator<Item = &T> {
        self.rows.iter().skip(self.offset).take(height)
    }

    /// Returns the cursor's position within the window.
    pub(crate) fn cursor_in_window(&self) -> Option<usize> {
        self.index()?.checked_sub(self.offset)
    }

    /// Whether this record is gone.
    pub(crate) fn is_gone(&self, id: &str) -> bool {
        self.gone.as_deref() == Some(id)
    }

    /// Whether this record changed a moment ago.
    pub(crate) fn is_changed(&self, id: &str, now: Timestamp) -> bool {
        self.changed.get(id).is_some_and(|at| now.as_second() - at.as_second() < CHANGED_SECONDS)
    }

    /// Whether any mark will go away by itself.
    pub(crate) fn has_changes(&self) -> bool {
        !self.changed.is_empty()
    }

    /// Forgets marks whose time is over.
    pub(crate) fn expire(&mut self, now: Timestamp) {
        self.changed.retain(|_, at| now.as_second() - at.as_second() < CHANGED_SECONDS);
    }

    /// Returns how many rows to read so that the cursor and what follows it are there.
    pub(crate) fn rows_wanted(&self) -> usize {
        let end = self.index().unwrap_or(0).saturating_add(NEAR_END);
        (end / PAGE_ROWS + 1).saturating_mul(PAGE_ROWS).min(ROWS_MAX)
    }

    /// Whether rows after the ones that were read are needed now.
    pub(crate) fn wants_more(&self) -> bool {
        self.more && self.rows.len() < self.rows_wanted()
    }

    /// Returns the position as the status line says it: `3 of 1,284`.
    pub(crate) fn position(&self) -> String {
        let total = crate::widgets::text::count(self.total);
        match self.index() {
            Some(at) if self.total > 0 => format!("{} of {total}", at + 1),
            _ => format!("0 of {total}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Clone, Debug, PartialEq)]
    struct Item(String, u32);

    impl Record for Item {
        fn id(&self) -> &str {
            &self.0
        }
        fn state(&self) -> State {
            if self.1 > 1 { State::Bad } else { State::Ok }
        }
    }

    fn page(ids: &[&str]) -> Page<Item> {
        let items: Vec<_> = ids.iter().map(|id| Item((*id).to_owned(), 0)).collect();
        Page { total: items.len().try_into().unwrap(), items, more: false }
    }

    fn ids(list: &List<Item>) -> Vec<&str> {
        list.rows.iter().map(|row| row.id()).collect()
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_000 + second).unwrap()
    }

    #[test]
    fn the_cursor_follows_its_record_and_the_order_stays() {
        let mut list = List::default();
        list.take(page(&["a", "b", "c"]), at(0));
        list.move_by(1, at(0));
        list.take(page(&["c", "x", "b", "a"]), at(1));
        assert_eq!(list.current().map(Record::id), Some("b"));
        assert_eq!(ids(&list), ["a", "b", "c", "x"]);
        assert!(list.newer > 0);
        list.take(page(&["c", "x", "b", "a"]), at(31));
        assert_eq!(ids(&list), ["c", "x", "b", "a"], "after 30 s of rest the new order is taken");
        assert_eq!(list.current().map(Record::id), Some("b"));
    }

    #[test]
    fn a_record_that_vanishes_under_the_cursor_cannot_be_acted_on() {
        let mut list = List::default();
        list.take(page(&["a", "b", "c"]), at(0));
        list.move_by(1, at(0));
        list.take(page(&["a", "c"]), at(1));
        assert_eq!(ids(&list), ["a", "b", "c"]);
        assert!(list.is_gone("b") && list.current().is_none());
        list.move_by(1, at(2));
        assert_eq!(ids(&list), ["a", "c"]);
        assert_eq!(list.current().map(Record::id), Some("c"));
    }

    #[test]
    fn changed_rows_are_marked_for_a_moment() {
        let mut list = List::default();
        list.take(page(&["a", "b"]), at(0));
        let mut next = page(&["a", "b"]);
        next.items[1].1 = 7;
        list.take(next, at(10));
        assert!(list.is_changed("b", at(12)) && !list.is_changed("a", at(12)) && !list.is_changed("b", at(15)));
    }

    #[test]
    fn the_window_holds_the_cursor() {
        let mut list = List::default();
        let names: Vec<String> = (0..50).map(|n| format!("{n:02}")).collect();
        list.take(page(&names.iter().map(String::as_str).collect::<Vec<_>>()), at(0));
        list.move_to(49, at(0));
        list.settle(10);
        assert_eq!((list.offset, list.cursor_in_window()), (40, Some(9)));
        list.move_to(39, at(0));
        list.settle(10);
        assert_eq!((list.offset, list.cursor_in_window()), (39, Some(0)));
    }
}
