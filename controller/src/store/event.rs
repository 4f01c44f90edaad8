//! Events: written in the batch of their cause, listed newest first. Called by `rpc` and `tasks`.

use std::ops::Bound;

use super::Store;
use super::StoreError;
use super::engine::Order as ScanOrder;
use super::records::{Changes, Record};
use super::tables::Table;
use crate::lifecycle::event::Event;
use crate::lifecycle::outcome::MailCursor;

/// Most events of one page.
pub const EVENTS_PAGE_MAX: usize = 500;
/// Its key among the settings.
const MAIL_CURSOR: &str = "mail";

impl Record for Event {
    const TABLE: Table = Table::Event;

    fn key(&self) -> String {
        key(self.seq)
    }
}

/// Twenty digits, so that keys sort as numbers do.
fn key(seq: u64) -> String {
    format!("{seq:020}")
}

impl Record for MailCursor {
    const TABLE: Table = Table::Setting;

    fn key(&self) -> String {
        MAIL_CURSOR.to_owned()
    }
}

/// Whose events to list.
#[derive(Clone, Debug)]
pub enum EventsOf {
    /// Everyone's.
    All,
    /// Of the certificate with this name.
    Certificate(String),
    /// Of the agent with this name.
    Agent(String),
}

impl Changes {
    /// Adds an event with its index rows.
    pub fn event(self, event: &Event) -> Self {
        let seq = event.key();
        let index = |changes: Self, table, name: &Option<String>| match name {
            Some(name) => changes.put_raw(table, &format!("{name}/{seq}"), Vec::new()),
            None => changes,
        };
        let changes = index(self, Table::EventByCertificate, &event.certificate);
        index(changes, Table::EventByAgent, &event.agent).upsert(event)
    }

    /// Removes an event with its index rows.
    pub fn remove_event(self, event: &Event) -> Self {
        let seq = event.key();
        let index = |changes: Self, table, name: &Option<String>| match name {
            Some(name) => changes.delete_raw(table, &format!("{name}/{seq}")),
            None => changes,
        };
        let changes = index(self, Table::EventByCertificate, &event.certificate);
        index(changes, Table::EventByAgent, &event.agent).delete_raw(Table::Event, &seq)
    }
}

impl Store {
    /// Returns the newest events before `before_seq` (0 means from the newest).
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn events(&self, of: EventsOf, before_seq: u64, limit: usize) -> Result<Vec<Event>, StoreError> {
        let limit = limit.clamp(1, EVENTS_PAGE_MAX);
        self.read(move |snapshot| {
            let (table, prefix) = match of {
                EventsOf::All => (Table::Event, String::new()),
                EventsOf::Certificate(name) => (Table::EventByCertificate, format!("{name}/")),
                EventsOf::Agent(name) => (Table::EventByAgent, format!("{name}/")),
            };
            let from = format!("{prefix}{}", key(before_seq));
            let from = if before_seq == 0 { Bound::Unbounded } else { Bound::Excluded(from.as_str()) };
            let rows = snapshot.scan(table, &prefix, from, ScanOrder::Descending, limit)?;
            let mut events = Vec::with_capacity(rows.len());
            for (row, _) in rows {
                let seq = row.strip_prefix(&prefix).unwrap_or_default();
                events.extend(snapshot.load::<Event>(seq)?.map(|event| event.value));
            }
            Ok(events)
        })
        .await
    }

    /// Returns how far the mailer got; `None` before it ever looked.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn mail_cursor(&self) -> Result<Option<MailCursor>, StoreError> {
        Ok(self.load::<MailCursor>(MAIL_CURSOR).await?.map(|record| record.value))
    }

    /// Returns the events of one kind after `seq`, oldest first and at most `limit`, and the number of the last event that
    /// was looked at.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn events_after(
        &self,
        mut seq: u64,
        kind: &'static str,
        limit: usize,
    ) -> Result<(Vec<Event>, u64), StoreError> {
        let mut found = Vec::new();
        loop {
            let from = key(seq);
            let page = self
                .read(move |snapshot| {
                    snapshot.list::<Event>("", Bound::Excluded(&from), ScanOrder::Ascending, EVENTS_PAGE_MAX)
                })
                .await?;
            let full = page.len() == EVENTS_PAGE_MAX;
            seq = page.last().map_or(seq, |event| event.value.seq);
            found.extend(page.into_iter().map(|event| event.value).filter(|event| event.kind == kind));
            if !full || found.len() >= limit {
                return Ok((found, seq));
            }
        }
    }

    /// Returns the highest sequence number in use, 0 when there is none.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn last_event_seq(&self) -> Result<u64, StoreError> {
        let newest = self.events(EventsOf::All, 0, 1).await?;
        Ok(newest.first().map_or(0, |event| event.seq))
    }
}
