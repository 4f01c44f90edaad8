//! Private CAs: their revoked leaves and revocation lists; the CA itself is in its issuer's record. Called by `tasks` and `rpc`.

use std::ops::Bound;

use super::Store;
use super::StoreError;
use super::engine::Order as ScanOrder;
use super::records::{Record, Versioned};
use super::seal::Place;
use super::tables::Table;
use crate::lifecycle::private_ca::{REVOKED_MAX, RevocationList, RevokedLeaf};

impl Record for RevokedLeaf {
    const TABLE: Table = Table::RevokedLeaf;

    fn key(&self) -> String {
        format!("{}/{}", self.issuer_id, self.serial)
    }
}

impl Record for RevocationList {
    const TABLE: Table = Table::RevocationList;

    fn key(&self) -> String {
        self.issuer_id.clone()
    }
}

/// Where the key of an issuer's private CA is sealed.
#[must_use]
pub fn private_key_place(issuer_id: &str) -> Place<'_> {
    Place { table: Table::Issuer, key: issuer_id, field: "private.key" }
}

impl Store {
    /// Returns the revoked leaves of a private CA.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn revoked_leaves(&self, issuer_id: &str) -> Result<Vec<Versioned<RevokedLeaf>>, StoreError> {
        let prefix = format!("{issuer_id}/");
        // After a restore those of the backup stand beside those since, until what expired of them is removed.
        let most = usize::try_from(REVOKED_MAX * 2).unwrap_or(usize::MAX);
        self.read(move |snapshot| snapshot.list(&prefix, Bound::Unbounded, ScanOrder::Ascending, most)).await
    }

    /// Returns how many leaves of a private CA are revoked and remembered.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn revoked_leaves_count(&self, issuer_id: &str) -> Result<u64, StoreError> {
        let prefix = format!("{issuer_id}/");
        self.read(move |snapshot| snapshot.count(Table::RevokedLeaf, &prefix)).await
    }
}
