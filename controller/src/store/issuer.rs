//! Issuers. Called by `rpc` and `tasks`.

use std::ops::Bound;

use super::Store;
use super::StoreError;
use super::certificate::id_by_name;
use super::engine::Order as ScanOrder;
use super::records::{Record, Versioned};
use super::seal::Place;
use super::tables::Table;
use crate::lifecycle::issuer::Issuer;

/// Most issuers listed.
pub const ISSUERS_MAX: usize = 1_000;

impl Record for Issuer {
    const TABLE: Table = Table::Issuer;

    fn key(&self) -> String {
        self.id.clone()
    }
}

/// Where an issuer's account key is sealed.
#[must_use]
pub fn account_key_place(issuer_id: &str) -> Place<'_> {
    Place { table: Table::Issuer, key: issuer_id, field: "account_key" }
}

/// Where the key of its staging account is sealed.
#[must_use]
pub fn staging_key_place(issuer_id: &str) -> Place<'_> {
    Place { table: Table::Issuer, key: issuer_id, field: "staging_key" }
}

/// Where the MAC key of its external account is sealed.
#[must_use]
pub fn external_key_place(issuer_id: &str) -> Place<'_> {
    Place { table: Table::Issuer, key: issuer_id, field: "external_key" }
}

impl Store {
    /// Returns the issuer with this name.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn issuer_by_name(&self, name: &str) -> Result<Option<Versioned<Issuer>>, StoreError> {
        let name = name.to_owned();
        self.read(move |snapshot| match id_by_name(snapshot, Table::IssuerName, &name)? {
            Some(id) => snapshot.load(&id),
            None => Ok(None),
        })
        .await
    }

    /// Returns every issuer, in the order of their names.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn issuers(&self) -> Result<Vec<Versioned<Issuer>>, StoreError> {
        let mut issuers = self
            .read(|snapshot| snapshot.list::<Issuer>("", Bound::Unbounded, ScanOrder::Ascending, ISSUERS_MAX))
            .await?;
        issuers.sort_by(|left, right| left.value.name.cmp(&right.value.name));
        Ok(issuers)
    }
}
