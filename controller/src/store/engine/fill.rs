//! Makes a database that has its rows from the beginning: a restore. One transaction writes everything, the mark that makes
//! it ours last, so that a half-written one is none.

use std::fmt;

use redb::{Database, TableDefinition, WriteTransaction};

use super::file::{self, new_custom};
use super::{Backend, ENGINE, EngineError, REVISION, Stored, storage};

/// The rows of a database that is being made.
pub struct Filler {
    transaction: WriteTransaction,
}

impl fmt::Debug for Filler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Filler")
    }
}

impl Filler {
    /// Writes a row as it was.
    ///
    /// # Errors
    /// When the disk fails.
    pub fn put(&self, table: &str, key: &str, revision: u64, bytes: &[u8]) -> Result<(), EngineError> {
        let mut rows = self.transaction.open_table(TableDefinition::<&str, &[u8]>::new(table)).map_err(storage)?;
        rows.insert(key, Stored::join(revision, bytes).as_slice()).map_err(storage)?;
        Ok(())
    }
}

/// Makes a database where none is, with the rows that `write` puts; it returns their revision. Blocking.
///
/// # Errors
/// When `write` fails, a database is there, or the disk fails; there is no database then.
pub fn fill<T, E: From<EngineError>>(
    backend: Backend,
    write: impl FnOnce(&Filler) -> Result<(u64, T), E>,
) -> Result<T, E> {
    match backend {
        Backend::File(path) => file::put_in_place(&path, |database| rows(database, write)),
        Backend::Custom(backend) => rows(&new_custom(backend)?, write),
    }
}

fn rows<T, E: From<EngineError>>(
    database: &Database,
    write: impl FnOnce(&Filler) -> Result<(u64, T), E>,
) -> Result<T, E> {
    let mut transaction = database.begin_write().map_err(storage)?;
    transaction.set_two_phase_commit(true);
    transaction.set_quick_repair(true);
    let filler = Filler { transaction };
    let (revision, made) = write(&filler)?;
    let transaction = filler.transaction;
    transaction.open_table(ENGINE).map_err(storage)?.insert(REVISION, revision).map_err(storage)?;
    transaction.commit().map_err(storage)?;
    Ok(made)
}
