//! The kill switch. Called by `tasks` and `rpc`.

use super::Store;
use super::StoreError;
use super::engine::{EngineError, Snapshot};
use super::records::{Changes, Record, Versioned};
use super::tables::Table;
use crate::lifecycle::pause::{Pause, PauseAll};
use crate::lifecycle::restore::Restore;

/// Its key among the settings.
const KEY: &str = "pause";

impl Record for PauseAll {
    const TABLE: Table = Table::Setting;

    fn key(&self) -> String {
        KEY.to_owned()
    }
}

impl Changes {
    /// Sets or lifts the kill switch, which must be as it was read.
    pub fn set_pause(self, before: Option<&Versioned<PauseAll>>, pause: Option<Pause>) -> Self {
        let value = PauseAll { pause };
        match before {
            Some(before) => self.update(&Versioned { revision: before.revision, value }),
            None => self.insert(&value),
        }
    }
}

/// Returns the pause of everything, while there is one.
pub(crate) fn pause_all(snapshot: &Snapshot<'_>) -> Result<Option<Pause>, EngineError> {
    // A restore that nobody accepted yet holds everything still, whatever the kill switch says.
    let restored = snapshot.load::<Restore>(Restore::KEY)?.and_then(|restore| restore.value.pause());
    if restored.is_some() {
        return Ok(restored);
    }
    Ok(snapshot.load::<PauseAll>(KEY)?.and_then(|record| record.value.pause))
}

impl Store {
    /// Returns the kill switch; `None` when it was never used.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn pause_record(&self) -> Result<Option<Versioned<PauseAll>>, StoreError> {
        self.load(KEY).await
    }

    /// Returns the pause of everything, while there is one.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn pause_all(&self) -> Result<Option<Pause>, StoreError> {
        self.read(pause_all).await
    }
}
