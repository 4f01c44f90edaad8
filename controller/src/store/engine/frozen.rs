//! The whole database as it was at one instant, for as long as somebody reads it: a backup. Later commits do not show.

use std::fmt;
use std::ops::Bound;
use std::sync::Arc;

use redb::{ReadTransaction, ReadableDatabase as _, TableDefinition, TableError, TableHandle as _};

use super::{ENGINE, Engine, EngineError, Snapshot, Stored, blocking, storage};

/// One state of all tables. Holding it keeps old pages in the file: not for longer than needed.
#[derive(Clone)]
pub struct Frozen {
    transaction: Arc<ReadTransaction>,
}

impl fmt::Debug for Frozen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Frozen")
    }
}

impl Engine {
    /// Holds the present state.
    ///
    /// # Errors
    /// When it cannot be read.
    pub async fn freeze(&self) -> Result<Frozen, EngineError> {
        let database = self.slot.get().await?;
        let transaction = blocking(move || database.begin_read().map_err(storage)).await?;
        Ok(Frozen { transaction: Arc::new(transaction) })
    }
}

impl Frozen {
    /// Runs `f` on the state, off the async threads.
    ///
    /// # Errors
    /// When `f` fails.
    pub async fn read<T: Send + 'static>(
        &self,
        f: impl FnOnce(&Snapshot<'_>) -> Result<T, EngineError> + Send + 'static,
    ) -> Result<T, EngineError> {
        let transaction = Arc::clone(&self.transaction);
        blocking(move || f(&Snapshot { transaction: &transaction })).await
    }
}

impl Snapshot<'_> {
    /// Returns the names of all tables that hold rows, also of tables that this version does not know; not the engine's own.
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn table_names(&self) -> Result<Vec<String>, EngineError> {
        let tables = self.transaction.list_tables().map_err(storage)?;
        let own = ENGINE.name().to_owned();
        Ok(tables.map(|table| table.name().to_owned()).filter(|name| *name != own).collect())
    }

    /// Returns rows of the table of this name behind the key `after`, as many as fit in about so many bytes, and at least
    /// one if there is one.
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn raw_rows(
        &self,
        table: &str,
        after: Option<&str>,
        bytes_max: usize,
    ) -> Result<Vec<(String, Stored)>, EngineError> {
        let definition = TableDefinition::<&str, &[u8]>::new(table);
        let rows = match self.transaction.open_table(definition) {
            Ok(rows) => rows,
            Err(TableError::TableDoesNotExist(_)) => return Ok(Vec::new()),
            Err(error) => return Err(storage(error)),
        };
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let (mut found, mut bytes) = (Vec::new(), 0);
        for row in rows.range::<&str>((from, Bound::Unbounded)).map_err(storage)? {
            let (key, value) = row.map_err(storage)?;
            let Some(stored) = Stored::parse(value.value()) else {
                return Err(EngineError::Damaged { table: table.to_owned(), key: key.value().to_owned() });
            };
            bytes += key.value().len() + stored.bytes.len();
            found.push((key.value().to_owned(), stored));
            if bytes >= bytes_max {
                break;
            }
        }
        Ok(found)
    }
}
