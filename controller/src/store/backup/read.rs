//! Reads a backup from its beginning to its end. The bytes come from outside: nothing of them is used before it is
//! authenticated, and every length has a limit. Nothing here writes. Called by `certwright-controller backup`.

use std::fmt;
use std::io::{BufRead, BufReader, Read};

use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use super::super::batch::{BATCH_BYTES_MAX, KEY_BYTES_MAX};
use super::super::migrate::SCHEMA_VERSION;
use super::super::seal::recovery::{BackupKeys, Lock, Recovery};
use super::super::seal::stream::{CHUNK, Chunks, TAG_LEN};
use super::{About, BackupError, END, FORM, LAST, LINE_BYTES_MAX, MAGIC, ROW, Summary};

/// Longest name of a table.
const TABLE_BYTES_MAX: usize = 64;
/// Digits of the header's digest.
const SUM_LEN: usize = 64;

/// A backup whose header was read and whose lock is open.
pub struct Opened<R> {
    /// Of what it is a backup.
    pub about: About,
    pub(super) keys: BackupKeys,
    input: BufReader<R>,
    chunks: Chunks,
    digest: Sha256,
    /// Opened and not yet read.
    plain: Zeroizing<Vec<u8>>,
    at: usize,
    bytes: u64,
    rows: u64,
    last: bool,
}

/// One row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Row {
    pub(super) table: String,
    pub(super) key: String,
    pub(super) revision: u64,
    pub(super) bytes: Vec<u8>,
}

impl<R> fmt::Debug for Opened<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Opened").field("about", &self.about).finish_non_exhaustive()
    }
}

/// Reads the header and opens the lock. Takes a moment and much memory: not for an async thread.
///
/// # Errors
/// When this is no backup, one of a newer controller, damaged, or opens with something else.
pub fn open<R: Read>(input: R, recovery: &Recovery) -> Result<Opened<R>, BackupError> {
    let mut input = BufReader::with_capacity(CHUNK, input);
    let magic = line(&mut input)?;
    let form = magic.strip_prefix(MAGIC).and_then(|form| form.parse::<u32>().ok()).ok_or(BackupError::Foreign)?;
    if form != FORM {
        return Err(BackupError::Newer { found: form });
    }
    let (about, lock, sum) = (line(&mut input)?, line(&mut input)?, line(&mut input)?);
    let first = format!("{magic}\n{about}\n");
    let lines = format!("{first}{lock}\n");
    if sum.len() != SUM_LEN || sum != proto::x509::hex(&Sha256::digest(lines.as_bytes())) {
        return Err(BackupError::Header);
    }
    let about: About = serde_json::from_str(&about).or(Err(BackupError::Malformed("the header")))?;
    let lock: Lock = serde_json::from_str(&lock).or(Err(BackupError::Malformed("the lock")))?;
    if about.schema > SCHEMA_VERSION {
        return Err(BackupError::SchemaNewer { found: about.schema });
    }
    let keys = lock.open(recovery, first.as_bytes())?;
    Ok(Opened {
        chunks: Chunks::new(&keys.stream, sum.as_bytes()),
        about,
        keys,
        input,
        digest: Sha256::new(),
        plain: Zeroizing::new(Vec::new()),
        at: 0,
        bytes: u64::try_from(lines.len() + sum.len() + 1).unwrap_or_default(),
        rows: 0,
        last: false,
    })
}

impl<R: Read> Opened<R> {
    /// Reads everything, and says what it is when it is whole.
    ///
    /// # Errors
    /// When it is not.
    pub fn verify(mut self) -> Result<Summary, BackupError> {
        while self.row()?.is_some() {}
        Ok(self.summary())
    }

    pub(super) fn summary(&self) -> Summary {
        Summary { about: self.about.clone(), rows: self.rows, bytes: self.bytes }
    }

    /// Returns the next row; `None` behind the last, once the end was found as it must be.
    pub(super) fn row(&mut self) -> Result<Option<Row>, BackupError> {
        match self.number::<1>()? {
            [ROW] => {}
            [END] => return self.end().map(|()| None),
            _ => return Err(BackupError::Malformed("neither a row nor the end")),
        }
        let len = usize::from(u16::from_be_bytes(self.number()?));
        let table = self.text(len, TABLE_BYTES_MAX)?;
        if !table.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_') {
            return Err(BackupError::Malformed("the name of a table"));
        }
        let len = usize::from(u16::from_be_bytes(self.number()?));
        let key = self.text(len, KEY_BYTES_MAX)?;
        let revision = u64::from_be_bytes(self.number()?);
        let len = usize::try_from(u32::from_be_bytes(self.number()?)).unwrap_or(usize::MAX);
        let bytes = self.take(len, BATCH_BYTES_MAX)?;
        self.rows += 1;
        Ok(Some(Row { table, key, revision, bytes }))
    }

    fn end(&mut self) -> Result<(), BackupError> {
        let rows = u64::from_be_bytes(self.number()?);
        let found = self.digest.clone().finalize();
        let said = self.take(found.len(), found.len())?;
        let whole = rows == self.rows && said == found.as_slice() && self.last && self.at == self.plain.len();
        if whole { Ok(()) } else { Err(BackupError::Malformed("an end that does not fit the rows")) }
    }

    fn number<const LEN: usize>(&mut self) -> Result<[u8; LEN], BackupError> {
        let bytes = self.take(LEN, LEN)?;
        <[u8; LEN]>::try_from(bytes).or(Err(BackupError::Malformed("a number")))
    }

    fn text(&mut self, len: usize, max: usize) -> Result<String, BackupError> {
        String::from_utf8(self.take(len, max)?).or(Err(BackupError::Malformed("text that is none")))
    }

    fn take(&mut self, len: usize, max: usize) -> Result<Vec<u8>, BackupError> {
        if len > max {
            return Err(BackupError::Malformed("something too long"));
        }
        let mut taken = Vec::with_capacity(len);
        while taken.len() < len {
            let there = self.plain.get(self.at..).unwrap_or_default();
            let part = there.get(..there.len().min(len - taken.len())).unwrap_or_default();
            if part.is_empty() {
                self.refill()?;
                continue;
            }
            self.digest.update(part);
            taken.extend_from_slice(part);
            self.at += part.len();
        }
        Ok(taken)
    }

    /// Reads so many bytes.
    fn read(&mut self, len: usize) -> Result<Vec<u8>, BackupError> {
        let mut bytes = Vec::with_capacity(len);
        let limit = u64::try_from(len).unwrap_or_default();
        (&mut self.input).take(limit).read_to_end(&mut bytes).map_err(BackupError::Read)?;
        self.bytes += u64::try_from(bytes.len()).unwrap_or_default();
        if bytes.len() == len { Ok(bytes) } else { Err(BackupError::Truncated { at: self.bytes }) }
    }

    /// Opens the next chunk.
    fn refill(&mut self) -> Result<(), BackupError> {
        if self.last {
            return Err(BackupError::Malformed("an end in the middle"));
        }
        let begin = self.bytes;
        let length = self.read(size_of::<u32>())?;
        let length = <[u8; 4]>::try_from(length.as_slice()).map_or(0, u32::from_be_bytes);
        let (last, length) = (length & LAST > 0, usize::try_from(length & !LAST).unwrap_or(usize::MAX));
        if length > CHUNK + TAG_LEN {
            return Err(BackupError::Damaged { at: begin });
        }
        let sealed = self.read(length)?;
        let more = last && !self.input.fill_buf().map_err(BackupError::Read)?.is_empty();
        let plain = self.chunks.open(&sealed, last).filter(|_| !more).ok_or(BackupError::Damaged { at: begin })?;
        (self.plain, self.at, self.last) = (plain, 0, last);
        Ok(())
    }
}

/// Reads one line of the header.
fn line(input: &mut impl BufRead) -> Result<String, BackupError> {
    let mut bytes = Vec::new();
    let limit = u64::try_from(LINE_BYTES_MAX).unwrap_or_default();
    input.take(limit).read_until(b'\n', &mut bytes).map_err(BackupError::Read)?;
    if bytes.pop() != Some(b'\n') {
        return Err(BackupError::Foreign);
    }
    String::from_utf8(bytes).or(Err(BackupError::Foreign))
}
