//! Writes a backup, part by part, from one frozen state of the database. Whoever reads slowly holds up nobody else.

use std::collections::VecDeque;
use std::fmt;
use std::mem::take;

use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use super::super::Store;
use super::super::engine::{EngineError, Frozen};
use super::super::records::Record as _;
use super::super::seal::KeyringRecord;
use super::super::seal::recovery::{Lock, Recovery};
use super::super::seal::stream::{CHUNK, Chunks};
use super::{About, BackupError, END, FORM, LAST, MAGIC, ROW};

/// Plain bytes gathered for one part.
const PART: usize = 4 * CHUNK;

/// A backup on its way out.
pub struct BackupStream {
    frozen: Frozen,
    chunks: Chunks,
    digest: Sha256,
    header: Vec<u8>,
    /// The keyring as this backup holds it.
    keyring: Vec<u8>,
    tables: VecDeque<String>,
    /// Of the first of `tables`, the last key that was read.
    after: Option<String>,
    plain: Zeroizing<Vec<u8>>,
    rows: u64,
    bytes: u64,
    ended: bool,
    /// Of what it is a backup.
    pub about: About,
}

impl fmt::Debug for BackupStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BackupStream").field("about", &self.about).finish_non_exhaustive()
    }
}

impl Store {
    /// Begins a backup of the database as it is now. `about` is completed with the revision.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn backup(&self, recovery: Recovery, mut about: About) -> Result<BackupStream, BackupError> {
        let frozen = self.engine.freeze().await?;
        let (revision, tables) = frozen.read(|snapshot| Ok((snapshot.revision()?, snapshot.table_names()?))).await?;
        about.revision = revision;
        let first = format!("{MAGIC}{FORM}\n{}\n", serde_json::to_string(&about)?);
        // Stretching a passphrase takes a moment of a whole core.
        let made = tokio::task::spawn_blocking(move || {
            let (lock, keys) = Lock::make(&recovery, first.as_bytes());
            (first, lock, keys)
        });
        let (first, lock, keys) = made.await.map_err(|_stopping| EngineError::Stopped)?;
        let lines = format!("{first}{}\n", serde_json::to_string(&lock)?);
        let sum = proto::x509::hex(&Sha256::digest(lines.as_bytes()));
        Ok(BackupStream {
            frozen,
            chunks: Chunks::new(&keys.stream, sum.as_bytes()),
            digest: Sha256::new(),
            header: format!("{lines}{sum}\n").into_bytes(),
            keyring: serde_json::to_vec(&self.keyring.rewrap(&keys.keyring))?,
            tables: tables.into(),
            after: None,
            plain: Zeroizing::new(Vec::new()),
            rows: 0,
            bytes: 0,
            ended: false,
            about,
        })
    }
}

impl BackupStream {
    /// Returns the next part of the file; `None` behind the last.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn next(&mut self) -> Result<Option<Vec<u8>>, BackupError> {
        let mut part = take(&mut self.header);
        if part.is_empty() {
            if self.ended {
                return Ok(None);
            }
            while self.plain.len() <= PART && !self.ended {
                self.read().await?;
            }
            let mut rest = self.plain.as_slice();
            while let Some((chunk, more)) = rest.split_at_checked(CHUNK).filter(|(_, more)| !more.is_empty()) {
                part.extend(framed(&self.chunks.seal(chunk, false), 0));
                rest = more;
            }
            if self.ended {
                part.extend(framed(&self.chunks.seal(rest, true), LAST));
                rest = &[];
            }
            self.plain = Zeroizing::new(rest.to_vec());
        }
        self.bytes += u64::try_from(part.len()).unwrap_or_default();
        Ok(Some(part))
    }

    /// How many bytes were returned so far.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Reads some rows, or ends.
    async fn read(&mut self) -> Result<(), BackupError> {
        let Some(table) = self.tables.front().cloned() else {
            self.put(&[&[END], &self.rows.to_be_bytes()]);
            let digest = self.digest.clone().finalize();
            self.plain.extend_from_slice(&digest);
            self.ended = true;
            return Ok(());
        };
        let (name, after) = (table.clone(), self.after.clone());
        let rows = self.frozen.read(move |snapshot| snapshot.raw_rows(&name, after.as_deref(), PART)).await?;
        let Some((last, _)) = rows.last() else {
            self.tables.pop_front();
            self.after = None;
            return Ok(());
        };
        self.after = Some(last.clone());
        for (key, stored) in rows {
            let is_keyring = table == KeyringRecord::TABLE.name() && key == KeyringRecord::KEY;
            let bytes = if is_keyring { self.keyring.clone() } else { stored.bytes };
            self.row(&table, &key, stored.revision, &bytes);
        }
        Ok(())
    }

    fn row(&mut self, table: &str, key: &str, revision: u64, bytes: &[u8]) {
        let short = |text: &str| u16::try_from(text.len()).unwrap_or_default().to_be_bytes();
        let long = u32::try_from(bytes.len()).unwrap_or_default().to_be_bytes();
        let (table_len, key_len) = (short(table), short(key));
        self.put(&[
            &[ROW],
            &table_len,
            table.as_bytes(),
            &key_len,
            key.as_bytes(),
            &revision.to_be_bytes(),
            &long,
            bytes,
        ]);
        self.rows += 1;
    }

    fn put(&mut self, parts: &[&[u8]]) {
        for part in parts {
            self.digest.update(part);
            self.plain.extend_from_slice(part);
        }
    }
}

/// A chunk behind its length.
pub(super) fn framed(sealed: &[u8], flag: u32) -> Vec<u8> {
    let len = u32::try_from(sealed.len()).unwrap_or_default() | flag;
    [&len.to_be_bytes(), sealed].concat()
}
