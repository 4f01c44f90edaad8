//! A backup: every row of one instant, sealed so that only its passphrase or key file opens it, on any machine and without
//! the master key. Written while the controller works; read by `certwright-controller backup`. Called by `rpc` and `main`.
//!
//! ```text
//! certwright backup 1            what it is, and the version of the format
//! {"made_at":…}                  of what it is a backup; readable, bound to all that follows
//! {"stretch":…,"keys":…}         the lock: the backup's own two keys, wrapped by passphrase or key file
//! 3b1f…                          SHA-256 of the three lines: tells damage from a wrong passphrase
//! chunk, chunk, …, last chunk    length and AES-256-GCM, 64 KiB each: rows, then how many there were and their SHA-256
//! ```
//!
//! The secrets inside stay sealed by the database's keyring, which the second key wraps.

#[cfg(fuzzing)]
mod fuzz;
mod read;
mod restore;
mod write;

use std::io;
use std::path::PathBuf;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

#[cfg(fuzzing)]
pub use self::fuzz::fuzz;
pub use self::read::{Opened, open};
pub use self::restore::Terms;
pub use self::write::BackupStream;
use super::engine::EngineError;
use super::migrate::SCHEMA_VERSION;
use super::seal::SealError;
use super::seal::recovery::{LockError, RecoveryError};
use super::tables::Table;
use crate::lifecycle::problem::{Problem, causes};

/// First words of a backup.
const MAGIC: &str = "certwright backup ";
/// The form that this controller writes and reads.
const FORM: u32 = 1;
/// Longest line of the header.
const LINE_BYTES_MAX: usize = 4_096;
/// In front of the last chunk, beside its length.
const LAST: u32 = 1 << 31;
/// A row follows.
const ROW: u8 = 1;
/// Their number and digest follow, and nothing after that.
const END: u8 = 2;

/// Of what it is a backup.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct About {
    /// When it was made: everything in it is of that instant.
    pub made_at: Timestamp,
    /// Host name of the controller.
    pub controller: String,
    /// Version of the controller.
    pub version: String,
    /// Form of the records.
    pub schema: u32,
    /// Revision of the database.
    pub revision: u64,
}

/// The last backup that was handed out whole, under `last_backup` of the settings.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastBackup {
    /// When.
    pub made_at: Timestamp,
    /// Who took it.
    pub by: String,
    /// How long the file is.
    pub bytes: u64,
}

impl LastBackup {
    /// Its key among the settings.
    pub const KEY: &'static str = "last_backup";
}

impl super::records::Record for LastBackup {
    const TABLE: Table = Table::Setting;

    fn key(&self) -> String {
        Self::KEY.to_owned()
    }
}

/// What was found in a backup that is whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Summary {
    /// Of what it is a backup.
    pub about: About,
    /// How many rows.
    pub rows: u64,
    /// How long the file is.
    pub bytes: u64,
}

/// Why a backup cannot be made, read or restored.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// What was given to open it is nothing that opens backups.
    #[error(transparent)]
    Recovery(#[from] RecoveryError),
    /// The first line is another.
    #[error("this is not a backup of certwright")]
    Foreign,
    /// A newer controller made it.
    #[error("the backup has format {found}; this controller reads {FORM}")]
    Newer {
        /// Its format.
        found: u32,
    },
    /// A newer controller made it.
    #[error("the records in the backup have schema {found}; this controller knows {SCHEMA_VERSION}")]
    SchemaNewer {
        /// Its schema.
        found: u32,
    },
    /// The header is not as it was written.
    #[error("the header of the backup was changed")]
    Header,
    /// It opens with something else.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// A chunk does not open.
    #[error("the backup is damaged at byte {at}")]
    Damaged {
        /// Where the chunk begins.
        at: u64,
    },
    /// The last chunk is missing.
    #[error("the backup ends too early, after {at} bytes")]
    Truncated {
        /// How long it is.
        at: u64,
    },
    /// Sealed by its key, and still not what a controller writes.
    #[error("the backup holds something that no controller wrote: {0}")]
    Malformed(&'static str),
    /// The keyring inside does not open, or cannot be read.
    #[error("the keyring in the backup is damaged")]
    Keyring(#[source] SealError),
    /// The file could not be read.
    #[error("the backup cannot be read")]
    Read(#[source] io::Error),
    /// The database that it is made from, or restored to.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// A record is not one.
    #[error("a record in the backup does not read")]
    Record(#[from] serde_json::Error),
    /// Something is where the database would go.
    #[error("{path} is there already")]
    NotEmpty {
        /// What is there.
        path: PathBuf,
    },
    /// What was recorded of revocations and removals beside the database cannot be used.
    #[error("cannot read {path}")]
    Removals {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

impl BackupError {
    /// Returns the error for people.
    #[must_use]
    pub fn problem(&self) -> Problem {
        const ANOTHER: &str = "use another copy of this backup, or an older one; nothing was changed";
        let (reason, hint) = match self {
            Self::Engine(error) => return error.problem(),
            Self::Recovery(RecoveryError::NoKey) => ("RECOVERY_KEY_WRONG", "certwright backup keygen FILE makes one"),
            Self::Recovery(_) => (
                "PASSPHRASE_WEAK",
                "whoever finds the file can guess as long as they like: several random words, or certwright backup keygen FILE",
            ),
            Self::Foreign => ("NOT_A_BACKUP", "name the file that certwright backup create wrote"),
            Self::Newer { .. } | Self::SchemaNewer { .. } => {
                ("BACKUP_NEWER", "install the controller that made it, or a newer one")
            }
            Self::Lock(LockError::OtherKind(_)) => ("RECOVERY_OTHER_KIND", "give it that instead"),
            Self::Lock(LockError::Wrong(_)) => (
                "RECOVERY_WRONG",
                "check which passphrase or key file this backup was made with; the file itself is not damaged",
            ),
            Self::Header | Self::Damaged { .. } | Self::Lock(LockError::Absurd) => ("BACKUP_DAMAGED", ANOTHER),
            Self::Truncated { .. } => {
                ("BACKUP_TRUNCATED", "it was not written, or not copied, to its end: use another copy, or an older one")
            }
            Self::Malformed(_) | Self::Keyring(_) | Self::Record(_) => ("BACKUP_DAMAGED", ANOTHER),
            Self::Read(_) | Self::Removals { .. } => ("BACKUP_UNREADABLE", "check that the file is there and readable"),
            Self::NotEmpty { .. } => (
                "STATE_NOT_EMPTY",
                "a restore never goes over a database: move the old one away first, or name an empty directory with --state DIR",
            ),
        };
        Problem::new(reason, self.to_string(), causes(self), hint)
    }
}

#[cfg(test)]
mod tests;
