//! Writes a database from a backup: one transaction, so that there is all of it or none. What may have been used, spent or
//! withdrawn since the backup does not come back. Called by `certwright-controller backup restore`.

use std::collections::{HashMap, HashSet};
use std::io::Read;

use jiff::Timestamp;
use proto::audit;

use super::super::engine::{Backend, EngineError, Filler, fill};
use super::super::master_key::MasterKey;
use super::super::migrate::Schema;
use super::super::records::{Record, Versioned};
use super::super::seal::{Keyring, KeyringRecord};
use super::super::tables::Table;
use super::read::Row;
use super::{BackupError, Opened, Summary};
use crate::lifecycle::agent::{Agent, Standing};
use crate::lifecycle::audit::{Draft, Result as How};
use crate::lifecycle::issuer::Issuer;
use crate::lifecycle::restore::{FIRST_EPOCH, Removal, Removed, Restore, next_epoch};

impl Record for Restore {
    const TABLE: Table = Table::Setting;

    fn key(&self) -> String {
        Self::KEY.to_owned()
    }
}

impl Restore {
    /// Its key among the settings.
    pub const KEY: &'static str = "restore";
}

/// By whom and when, and what is known besides the backup.
#[derive(Clone, Debug)]
pub struct Terms {
    /// When.
    pub at: Timestamp,
    /// `local:root`.
    pub by: String,
    /// How they proved it: `uid 0`.
    pub from: String,
    /// What was written down beside the old database; `None` when that is lost.
    pub removals: Option<Vec<Removal>>,
}

/// What is carried from row to row.
struct Pass<'a> {
    master: &'a MasterKey,
    terms: &'a Terms,
    /// Of the removals that the backup may not know of.
    removed: HashMap<&'a str, &'a Removal>,
    /// Issuers of the backup.
    issuers: HashSet<String>,
    /// The last identity CA that the backup may not know of.
    next_ca: Option<&'a str>,
    epoch_before: u64,
    /// The last line of the audit.
    line: Option<(u64, String)>,
    has_schema: bool,
    has_keyring: bool,
}

impl<R: Read> Opened<R> {
    /// Writes the database, which must not exist yet, under another master key. It waits to be accepted then.
    ///
    /// # Errors
    /// When the backup is not whole, a database is there, or the disk fails; there is no database then.
    pub fn restore(
        mut self,
        backend: Backend,
        master: &MasterKey,
        terms: &Terms,
    ) -> Result<(Summary, Restore), BackupError> {
        fill(backend, |filler| {
            let made_at = self.about.made_at;
            let news = terms.removals.iter().flatten().filter(|removal| removal.is_news_for(made_at));
            let (rotations, removals): (Vec<_>, Vec<_>) =
                news.partition(|removal| removal.what == Removed::IdentityCaActivated);
            let mut removed: HashMap<_, _> =
                removals.into_iter().map(|removal| (removal.id.as_str(), removal)).collect();
            removed.retain(|_, removal| removal.what != Removed::IssuerKept);
            let mut pass = Pass {
                master,
                terms,
                removed,
                next_ca: rotations.last().map(|rotation| rotation.id.as_str()),
                issuers: HashSet::new(),
                epoch_before: FIRST_EPOCH,
                line: None,
                has_schema: false,
                has_keyring: false,
            };
            while let Some(row) = self.row()? {
                if let Some(row) = pass.row(&self, row)? {
                    filler.put(&row.table, &row.key, row.revision, &row.bytes)?;
                }
            }
            if !pass.has_schema || !pass.has_keyring {
                return Err(BackupError::Malformed("a database without schema or keyring"));
            }
            let revision = self.about.revision.saturating_add(1);
            let restore = pass.end(&self, filler, revision)?;
            Ok((revision, (self.summary(), restore)))
        })
    }
}

impl Pass<'_> {
    /// Returns the row as it is restored; `None` when it is not.
    fn row<R>(&mut self, opened: &Opened<R>, mut row: Row) -> Result<Option<Row>, BackupError> {
        let is = |table: Table| row.table == table.name();
        let is_setting = is(Table::Setting);
        // Whoever held one may have used it since.
        if is(Table::JoinToken) || is(Table::Invitation) {
            return Ok(None);
        }
        if is_setting && row.key == Restore::KEY {
            self.epoch_before = serde_json::from_slice::<Restore>(&row.bytes)?.epoch;
            return Ok(None);
        }
        if is_setting && row.key == KeyringRecord::KEY {
            let record: KeyringRecord = serde_json::from_slice(&row.bytes)?;
            let keyring = Keyring::unwrap(&record, &opened.keys.keyring).map_err(BackupError::Keyring)?;
            let keyring = keyring.ok_or(BackupError::Malformed("a keyring of another backup"))?;
            row.bytes = serde_json::to_vec(&keyring.rewrap(self.master))?;
            self.has_keyring = true;
        }
        if is(Table::Issuer) {
            self.issuers.insert(row.key.clone());
            if let Some(removal) = self.removed.get(row.key.as_str()) {
                let mut issuer: Issuer = serde_json::from_slice(&row.bytes)?;
                issuer.removed_since(removal.at);
                row.bytes = serde_json::to_vec(&issuer)?;
            }
        }
        self.has_schema |= is_setting && row.key == Schema::KEY;
        if is(Table::Audit) {
            let seq = row.key.parse().or(Err(BackupError::Malformed("a line of the audit without number")))?;
            self.line = Some((seq, String::from_utf8_lossy(&row.bytes).into_owned()));
        }
        if is(Table::Operator) && self.removed.contains_key(row.key.as_str()) {
            return Ok(None);
        }
        if is(Table::OperatorName) && self.removed.contains_key(String::from_utf8_lossy(&row.bytes).as_ref()) {
            return Ok(None);
        }
        if is(Table::Agent) && self.removed.get(row.key.as_str()).is_some_and(|removal| removal.what.refuses_agent()) {
            let mut agent: Agent = serde_json::from_slice(&row.bytes)?;
            agent.standing = Standing::Revoked;
            row.bytes = serde_json::to_vec(&agent)?;
        }
        if let Some(next) = self.next_ca.filter(|_| is(Table::Agent)) {
            let mut agent: Agent = serde_json::from_slice(&row.bytes)?;
            agent.ca.followed(next);
            row.bytes = serde_json::to_vec(&agent)?;
        }
        Ok(Some(row))
    }

    /// Writes what a restore adds: that it waits, and a line of the audit.
    fn end<R>(&self, opened: &Opened<R>, filler: &Filler, revision: u64) -> Result<Restore, BackupError> {
        let Terms { at, by, from, removals } = self.terms;
        let mut random = [0_u8; 2];
        getrandom::fill(&mut random).expect("the kernel gives random bytes");
        let restore = Restore {
            epoch: next_epoch(self.epoch_before, *at, u16::from_be_bytes(random)),
            restored_at: *at,
            by: by.clone(),
            made_at: opened.about.made_at,
            controller: opened.about.controller.clone(),
            audit_seq: self.line.as_ref().map_or(0, |(seq, _)| *seq),
            witnessed: None,
            removals: removals.as_ref().map(|_| u64::try_from(self.removed.len()).unwrap_or(u64::MAX)),
            accepted: None,
        };
        put(filler, &Versioned { revision, value: restore.clone() })?;
        self.put_leaves(filler, revision)?;
        // Every backup is an act of its own, so there is a line to follow; without one there is no key to sign with either.
        let Some((seq, text)) = &self.line else { return Ok(restore) };
        let detail = format!(
            "backup={:.0} line={seq} epoch={} removals={}",
            restore.made_at,
            restore.epoch,
            restore.removals.map_or_else(|| "unknown".to_owned(), |count| count.to_string())
        );
        let draft = Draft {
            actor: by.clone(),
            from: from.clone(),
            act: audit::RESTORE.to_owned(),
            subject: opened.about.controller.clone(),
            detail,
            result: How::Asked,
        };
        let line = serde_json::to_string(&draft.line(seq + 1, *at, &audit::hash(text)))?;
        filler.put(Table::Audit.name(), &format!("{:020}", seq + 1), revision, line.as_bytes())?;
        Ok(restore)
    }

    /// Writes what was revoked of the leaves of private CAs since the backup. The revision is above that of every list, so that a
    /// new one is made.
    fn put_leaves(&self, filler: &Filler, revision: u64) -> Result<(), BackupError> {
        let news =
            self.terms.removals.iter().flatten().filter(|removal| self.removed.contains_key(removal.id.as_str()));
        for leaf in news.filter_map(|removal| removal.leaf.as_ref()) {
            if self.issuers.contains(&leaf.issuer_id) && !leaf.is_past(self.terms.at) {
                put(filler, &Versioned { revision, value: leaf.clone() })?;
            }
        }
        Ok(())
    }
}

fn put<T: Record>(filler: &Filler, record: &Versioned<T>) -> Result<(), BackupError> {
    let bytes = serde_json::to_vec(&record.value)?;
    let put: Result<(), EngineError> = filler.put(T::TABLE.name(), &record.value.key(), record.revision, &bytes);
    Ok(put?)
}
