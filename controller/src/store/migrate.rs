//! The schema gate: which form the records have. A database of a newer controller is refused before anything in it is
//! touched; an older one would be migrated here. Called by `store` only.

use serde::{Deserialize, Serialize};

use super::records::Record;
use super::tables::Table;

/// The form of the records that this controller reads and writes.
pub const SCHEMA_VERSION: u32 = 1;

/// The schema version in the database, under `schema` of the settings.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Schema {
    /// Rises with every change that an older controller would misread.
    pub(super) version: u32,
}

impl Schema {
    pub(super) const KEY: &'static str = "schema";
}

impl Record for Schema {
    const TABLE: Table = Table::Setting;

    fn key(&self) -> String {
        Self::KEY.to_owned()
    }
}

#[cfg(test)]
mod tests;
