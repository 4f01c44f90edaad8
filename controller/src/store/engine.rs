//! Everything specific to redb: snapshots, and a writer that commits what is queued in one durable transaction (redb has
//! a single writer and no group commit). It never initialises anything over an existing file, and never acknowledges
//! before the disk did. Called by `store` and, through it, by everyone.

mod agents;
mod file;
mod fill;
mod frozen;
mod slot;
mod writer;

use std::fmt;
use std::io::ErrorKind;
use std::ops::Bound;
use std::path::PathBuf;
use std::sync::Arc;

use redb::{Database, ReadTransaction, ReadableDatabase as _, ReadableTableMetadata as _};
use redb::{StorageBackend, TableDefinition, TableError};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

pub use self::fill::{Filler, fill};
pub use self::frozen::Frozen;
use self::slot::{Slot, Source};
use self::writer::Writer;
use super::batch::{Batch, CommitError};
use super::tables::Table;
use crate::lifecycle::problem::Problem;

/// redb's default is 1 GiB; the hot part of 1,000,000 certificates is 32 MB (reliability.md §5).
const CACHE_BYTES: usize = 64 << 20;
/// The engine's own table: the revision counter. Its presence marks a database as ours.
const ENGINE: TableDefinition<'static, &str, u64> = TableDefinition::new("engine");
const REVISION: &str = "revision";
/// What messages call a custom backend.
const CUSTOM: &str = "(custom)";
/// Revision, big-endian, in front of every value.
const REVISION_LEN: usize = size_of::<u64>();

/// Where the database is.
#[derive(Debug)]
pub enum Backend {
    /// A file of its own.
    File(PathBuf),
    /// Anything that stores bytes: the simulation.
    Custom(Box<dyn StorageBackend>),
}

impl Backend {
    /// Whether a database is there, so that a master key must be there too. When the kernel does not tell, there is one.
    /// A custom backend says so by its length.
    #[must_use]
    pub fn exists(&self) -> bool {
        match self {
            Self::File(path) => !matches!(path.symlink_metadata(), Err(error) if error.kind() == ErrorKind::NotFound),
            Self::Custom(backend) => backend.len().map_or(true, |len| len > 0),
        }
    }

    #[cfg(test)]
    pub(crate) fn memory() -> Self {
        Self::Custom(Box::new(redb::backends::InMemoryBackend::new()))
    }

    pub(super) fn path(&self) -> PathBuf {
        match self {
            Self::File(path) => path.clone(),
            Self::Custom(_) => PathBuf::from(CUSTOM),
        }
    }
}

/// Why the database cannot be used.
#[derive(Clone, Debug, thiserror::Error)]
pub enum EngineError {
    /// No file, and none was to be made.
    #[error("there is no database at {path}")]
    Missing {
        /// The file.
        path: PathBuf,
    },
    /// Another process holds the lock of the file.
    #[error("another controller has the database {path} open")]
    AlreadyOpen {
        /// The file.
        path: PathBuf,
    },
    /// Others may read the file.
    #[error("the database {path} can be read by other users: its mode is {mode:04o}")]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// A database where one was to be made.
    #[error("there is a database at {path} already")]
    Exists {
        /// The file.
        path: PathBuf,
    },
    /// A file that is not ours.
    #[error("{path} is not a database of certwright")]
    Foreign {
        /// The file.
        path: PathBuf,
    },
    /// The file could not be made or looked at.
    #[error("cannot {action} {path}")]
    File {
        /// What was tried.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// What the kernel says.
        #[source]
        source: Arc<std::io::Error>,
    },
    /// redb refused to open the file.
    #[error("cannot open the database {path}")]
    Open {
        /// The file.
        path: PathBuf,
        /// What redb says.
        #[source]
        source: Arc<redb::Error>,
    },
    /// Reading or writing failed.
    #[error("the database failed")]
    Storage(#[source] Arc<redb::Error>),
    /// The disk is full. Nothing is lost: it is tried again until there is room.
    #[error("the disk of the database is full")]
    Full(#[source] Arc<redb::Error>),
    /// A value has no revision in front.
    #[error("{key} of {table} is damaged")]
    Damaged {
        /// The name of the table.
        table: String,
        /// The key.
        key: String,
    },
    /// A value is not the JSON of its record.
    #[error("{key} of {table} does not read as its record")]
    Undecodable {
        /// The table.
        table: Table,
        /// The key.
        key: String,
        /// What serde says.
        #[source]
        source: Arc<serde_json::Error>,
    },
    /// redb, or what reads through it, came upon something that cannot be, and panicked.
    #[error("the database cannot be read: {what}")]
    Panicked {
        /// What the panic says.
        what: String,
    },
    /// The writer is gone: the process is ending.
    #[error("the store has stopped")]
    Stopped,
}

/// What to do about a database that is damaged, or not ours.
pub(super) const RESTORE: &str = "no record was changed; name the right --state DIR, or move the damaged files away and make the database from the newest \
     backup: certwright-controller backup restore --state DIR --from FILE";

impl EngineError {
    /// Returns the error for people.
    #[must_use]
    pub fn problem(&self) -> Problem {
        let cause = crate::lifecycle::problem::causes(self);
        let (reason, hint) = match self {
            Self::Missing { .. } => {
                ("DATABASE_MISSING", "name the directory that holds it with --state DIR".to_owned())
            }
            Self::Exists { .. } => (
                "STATE_NOT_EMPTY",
                "a restore never goes over a database: move the old one away first, or name an empty directory with --state DIR"
                    .to_owned(),
            ),
            Self::AlreadyOpen { path } => {
                let hint =
                    format!("stop the other one, or use another --state DIR; `fuser {}` names it", path.display());
                ("DATABASE_IN_USE", hint)
            }
            Self::Exposed { path, .. } => ("DATABASE_EXPOSED", format!("chmod 0600 {}", path.display())),
            Self::File { path, .. } => {
                ("DATABASE_UNREADABLE", format!("check owner, directory and disk of {}", path.display()))
            }
            Self::Foreign { .. }
            | Self::Open { .. }
            | Self::Damaged { .. }
            | Self::Undecodable { .. }
            | Self::Panicked { .. } => ("DATABASE_DAMAGED", RESTORE.to_owned()),
            Self::Storage(_) => ("DATABASE_FAILED", "check the disk and its free space, then restart".to_owned()),
            Self::Full(_) => (
                "DATABASE_FULL",
                "nothing was changed, and agents go on with what they hold; make room on the disk of the controller's state directory (df): it \
                 goes on by itself within seconds"
                    .to_owned(),
            ),
            Self::Stopped => ("STOPPING", "try again once the controller has started".to_owned()),
        };
        Problem::new(reason, self.to_string(), cause, hint)
    }

    /// Tells a full disk from all else that goes wrong.
    fn full(error: redb::Error) -> Result<Self, redb::Error> {
        match &error {
            redb::Error::Io(io) if matches!(io.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded) => {
                Ok(Self::Full(Arc::new(error)))
            }
            _ => Err(error),
        }
    }
}

/// Every way in which redb reports an error becomes [`EngineError::Storage`], or [`EngineError::Full`].
pub(super) fn storage(error: impl Into<redb::Error>) -> EngineError {
    EngineError::full(error.into()).unwrap_or_else(|other| EngineError::Storage(Arc::new(other)))
}

/// The open database. Clones share it; it closes with the last one.
#[derive(Clone)]
pub struct Engine {
    slot: Arc<Slot>,
    writer: Arc<Writer>,
}

impl fmt::Debug for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Engine").field("revision", &*self.writer.revision().borrow()).finish_non_exhaustive()
    }
}

impl Engine {
    /// Opens the database, or makes one when `create` is set and there is none.
    ///
    /// # Errors
    /// When it is missing, open elsewhere, readable by others, not ours or broken; nothing is changed then.
    pub async fn open(backend: Backend, create: bool) -> Result<Self, EngineError> {
        let path = backend.path();
        let (source, backend) = Source::of(backend);
        let opened = blocking(move || open(backend, create)).await;
        let (database, revision) = opened.map_err(|error| match error {
            // Nothing of ours runs there that could: redb takes a damaged page at its word.
            EngineError::Panicked { what } => {
                let source = redb::Error::Corrupted(what);
                EngineError::Open { path, source: Arc::new(source) }
            }
            other => other,
        })?;
        let slot = Arc::new(Slot::new(source, Arc::new(database)));
        let writer = Arc::new(Writer::start(&slot, revision));
        Ok(Self { slot, writer })
    }

    /// Runs `f` on one consistent state of all tables, off the async threads. Later commits do not show in it.
    ///
    /// # Errors
    /// When `f` fails or the state cannot be read.
    pub async fn read<T: Send + 'static>(
        &self,
        f: impl FnOnce(&Snapshot<'_>) -> Result<T, EngineError> + Send + 'static,
    ) -> Result<T, EngineError> {
        let database = self.slot.get().await?;
        let result = blocking(move || {
            let transaction = database.begin_read().map_err(storage)?;
            f(&Snapshot { transaction: &transaction })
        });
        match result.await {
            // A write failed, and its writer deals with that.
            Err(EngineError::Storage(error))
                if matches!(*error, redb::Error::PreviousIo | redb::Error::DatabaseClosed) =>
            {
                Err(EngineError::Stopped)
            }
            Err(EngineError::Storage(error)) => {
                self.writer.failed().cancel();
                Err(EngineError::Storage(error))
            }
            other => other,
        }
    }

    /// Applies the batch durably and returns its revision. Dropping the future does not take the batch back.
    /// A batch without changes only checks its expectations.
    ///
    /// # Errors
    /// On a conflict, a limit, or a failure of the database.
    pub async fn commit(&self, batch: Batch) -> Result<u64, CommitError> {
        if !batch.fits() {
            return Err(CommitError::TooLarge);
        }
        self.writer.commit(batch).await
    }

    /// Tells whether the disk is full, and nothing can be changed until there is room.
    #[must_use]
    pub fn full(&self) -> watch::Receiver<Option<EngineError>> {
        self.writer.full()
    }

    /// Is cancelled once the disk failed. redb then refuses all further work until the database is opened again: the
    /// process must end and be started anew.
    #[must_use]
    pub fn failed(&self) -> CancellationToken {
        self.writer.failed()
    }

    /// Tells the latest durable revision, starting with the stored one.
    #[must_use]
    pub fn revision(&self) -> watch::Receiver<u64> {
        self.writer.revision()
    }

    /// Whether the agent's record changed after `revision`, one that [`Self::revision`] told. Asks no disk.
    pub(super) fn agent_changed_after(&self, id: &str, revision: u64) -> bool {
        self.writer.agents().is_newer(id, revision)
    }
}

/// A value with the revision of the batch that put it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    /// Revision of the batch.
    pub revision: u64,
    /// The value.
    pub bytes: Vec<u8>,
}

/// Order of a scan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Smallest key first; a scan starts above its `from`.
    Ascending,
    /// Largest key first; a scan starts below its `from`.
    Descending,
}

/// One consistent state of all tables.
#[derive(Clone, Copy)]
pub struct Snapshot<'a> {
    transaction: &'a ReadTransaction,
}

impl fmt::Debug for Snapshot<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Snapshot")
    }
}

impl Snapshot<'_> {
    /// Returns one value.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn get(&self, table: Table, key: &str) -> Result<Option<Stored>, EngineError> {
        let Some(rows) = self.rows(table)? else { return Ok(None) };
        let found = rows.get(key).map_err(storage)?;
        found.map(|value| Stored::split(table, key, value.value())).transpose()
    }

    /// Returns up to `limit` rows whose keys start with `prefix`, beginning at `from` in the given order.
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn scan(
        &self,
        table: Table,
        prefix: &str,
        from: Bound<&str>,
        order: Order,
        limit: usize,
    ) -> Result<Vec<(String, Stored)>, EngineError> {
        let Some(rows) = self.rows(table)? else { return Ok(Vec::new()) };
        let after = successor(prefix);
        let (low, high) = (Bound::Included(prefix), after.as_deref().map_or(Bound::Unbounded, Bound::Excluded));
        let (low, high) = match order {
            Order::Ascending => (higher(low, from), high),
            Order::Descending => (low, lower(high, from)),
        };
        if is_empty(low, high) {
            return Ok(Vec::new());
        }
        let mut range = rows.range::<&str>((low, high)).map_err(storage)?;
        let mut found = Vec::new();
        while found.len() < limit {
            let next = match order {
                Order::Ascending => range.next(),
                Order::Descending => range.next_back(),
            };
            let Some(row) = next else { break };
            let (key, value) = row.map_err(storage)?;
            let stored = Stored::split(table, key.value(), value.value())?;
            found.push((key.value().to_owned(), stored));
        }
        Ok(found)
    }

    /// Returns how many keys start with `prefix`; at once for the empty prefix, else by walking them.
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn count(&self, table: Table, prefix: &str) -> Result<u64, EngineError> {
        let Some(rows) = self.rows(table)? else { return Ok(0) };
        if prefix.is_empty() {
            return rows.len().map_err(storage);
        }
        let after = successor(prefix);
        let high = after.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
        let mut count = 0;
        for row in rows.range::<&str>((Bound::Included(prefix), high)).map_err(storage)? {
            row.map_err(storage)?;
            count += 1;
        }
        Ok(count)
    }

    /// Returns the revision of the last batch that this state contains.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn revision(&self) -> Result<u64, EngineError> {
        stored_revision(self.transaction).map(|revision| revision.unwrap_or(0))
    }

    /// A table that nothing was ever written to does not exist yet.
    fn rows(&self, table: Table) -> Result<Option<redb::ReadOnlyTable<&'static str, &'static [u8]>>, EngineError> {
        match self.transaction.open_table(definition(table)) {
            Ok(rows) => Ok(Some(rows)),
            Err(TableError::TableDoesNotExist(_)) => Ok(None),
            Err(error) => Err(storage(error)),
        }
    }
}

impl Stored {
    fn split(table: Table, key: &str, value: &[u8]) -> Result<Self, EngineError> {
        Self::parse(value).ok_or_else(|| EngineError::Damaged { table: table.name().to_owned(), key: key.to_owned() })
    }

    fn parse(value: &[u8]) -> Option<Self> {
        let (revision, bytes) = value.split_first_chunk::<REVISION_LEN>()?;
        Some(Self { revision: u64::from_be_bytes(*revision), bytes: bytes.to_vec() })
    }

    fn join(revision: u64, bytes: &[u8]) -> Vec<u8> {
        let mut value = Vec::with_capacity(REVISION_LEN + bytes.len());
        value.extend_from_slice(&revision.to_be_bytes());
        value.extend_from_slice(bytes);
        value
    }
}

const fn definition(table: Table) -> TableDefinition<'static, &'static str, &'static [u8]> {
    TableDefinition::new(table.name())
}

fn open(backend: Backend, create: bool) -> Result<(Database, u64), EngineError> {
    let path = backend.path();
    let database = match backend {
        Backend::File(path) => file::open(&path, create)?,
        Backend::Custom(backend) => file::open_custom(backend, create)?,
    };
    let transaction = database.begin_read().map_err(storage)?;
    let revision = stored_revision(&transaction)?.ok_or(EngineError::Foreign { path })?;
    Ok((database, revision))
}

fn stored_revision(transaction: &ReadTransaction) -> Result<Option<u64>, EngineError> {
    let table = match transaction.open_table(ENGINE) {
        Ok(table) => table,
        Err(TableError::TableDoesNotExist(_)) => return Ok(None),
        Err(error) => return Err(storage(error)),
    };
    Ok(table.get(REVISION).map_err(storage)?.map(|revision| revision.value()))
}

/// Returns the smallest text above every text that starts with `prefix`; `None` when there is no end.
fn successor(prefix: &str) -> Option<String> {
    let mut text = prefix.to_owned();
    while let Some(last) = text.pop() {
        if let Some(next) = (last..=char::MAX).nth(1) {
            text.push(next);
            return Some(text);
        }
    }
    None
}

/// Returns the bound that admits less, of two lower bounds.
fn higher<'a>(low: Bound<&'a str>, from: Bound<&'a str>) -> Bound<&'a str> {
    match (low, from) {
        (Bound::Included(prefix), Bound::Included(at) | Bound::Excluded(at)) if at >= prefix => from,
        _ => low,
    }
}

/// Returns the bound that admits less, of two upper bounds.
fn lower<'a>(high: Bound<&'a str>, from: Bound<&'a str>) -> Bound<&'a str> {
    match (high, from) {
        (_, Bound::Unbounded) => high,
        (Bound::Excluded(end), Bound::Included(at) | Bound::Excluded(at)) if at >= end => high,
        _ => from,
    }
}

/// Whether no text lies between the bounds; redb wants ordered ones.
fn is_empty(low: Bound<&str>, high: Bound<&str>) -> bool {
    match (low, high) {
        (Bound::Unbounded, _) | (_, Bound::Unbounded) => false,
        (Bound::Included(low), Bound::Included(high)) => low > high,
        (Bound::Included(low) | Bound::Excluded(low), Bound::Included(high) | Bound::Excluded(high)) => low >= high,
    }
}

/// Runs blocking work. A panic in it becomes an error: redb has no other word for a page that a flipped bit made nonsense of. A
/// runtime that is ending reports [`EngineError::Stopped`].
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, EngineError> + Send + 'static,
) -> Result<T, EngineError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => {
                let said = panic.downcast_ref::<String>().map(String::as_str);
                let what =
                    said.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no reason given").to_owned();
                Err(EngineError::Panicked { what })
            }
            Err(_cancelled) => Err(EngineError::Stopped),
        },
    }
}

#[cfg(test)]
mod tests;
