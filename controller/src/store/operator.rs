//! Operators and their invitations. Called by `rpc`.

use std::ops::Bound;

use super::Store;
use super::StoreError;
use super::certificate::id_by_name;
use super::engine::Order as ScanOrder;
use super::records::{Record, Versioned};
use super::tables::Table;
use crate::lifecycle::operator::{Invitation, Operator};

/// Most operators, and most invitations that are open.
pub const OPERATORS_MAX: usize = 1_000;

impl Record for Operator {
    const TABLE: Table = Table::Operator;

    fn key(&self) -> String {
        self.id.clone()
    }
}

impl Record for Invitation {
    const TABLE: Table = Table::Invitation;

    fn key(&self) -> String {
        self.hash.clone()
    }
}

impl Store {
    /// Returns the operator with this name.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn operator_by_name(&self, name: &str) -> Result<Option<Versioned<Operator>>, StoreError> {
        let name = name.to_owned();
        self.read(move |snapshot| match id_by_name(snapshot, Table::OperatorName, &name)? {
            Some(id) => snapshot.load(&id),
            None => Ok(None),
        })
        .await
    }

    /// Returns every operator, in the order of their names.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn operators(&self) -> Result<Vec<Versioned<Operator>>, StoreError> {
        let mut operators = self
            .read(|snapshot| snapshot.list::<Operator>("", Bound::Unbounded, ScanOrder::Ascending, OPERATORS_MAX))
            .await?;
        operators.sort_by(|left, right| left.value.name.cmp(&right.value.name));
        Ok(operators)
    }

    /// Returns every invitation, redeemed ones too.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn invitations(&self) -> Result<Vec<Versioned<Invitation>>, StoreError> {
        self.list("", usize::MAX).await
    }
}
