//! Seals secrets with AES-256-GCM before they are stored. Each sealed secret has its own random nonce and is bound to the
//! place it was sealed for: moved to another table, key or field it does not open. Called by `tasks` and `ca`.

pub mod recovery;
pub(super) mod stream;

use std::fmt;

use aes_gcm::aead::{Aead as _, KeyInit as _, Nonce, Payload};
use aes_gcm::{Aes256Gcm, Key};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use secrecy::{ExposeSecret as _, SecretBox, SecretString};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::master_key::{KEY_LEN, MasterKey, random_key};
use super::records::Record;
use super::tables::Table;
use crate::lifecycle::sealed::Sealed;

/// The form of the AAD and of the ciphertext; part of the AAD.
const SEAL_SCHEMA: &str = "1";
/// 96 bits: NIST SP 800-38D §8.2.2 allows 2^32 random nonces for each key.
const NONCE_LEN: usize = 12;
/// Key id of secrets sealed by the master key itself: the data keys.
const MASTER_KEY_ID: &str = "master";

/// Where a sealed secret lives. It opens nowhere else.
#[derive(Clone, Copy, Debug)]
pub struct Place<'a> {
    /// The record's table.
    pub table: Table,
    /// The record's key.
    pub key: &'a str,
    /// The record's field.
    pub field: &'a str,
}

impl Place<'_> {
    /// Every part has its length in front, so that no two places have the same bytes.
    fn associated_data(&self, key_id: &str) -> Vec<u8> {
        let mut bytes = Vec::new();
        for part in [self.table.name(), self.key, self.field, SEAL_SCHEMA, key_id] {
            let len = u64::try_from(part.len()).unwrap_or(u64::MAX);
            bytes.extend_from_slice(&len.to_be_bytes());
            bytes.extend_from_slice(part.as_bytes());
        }
        bytes
    }
}

/// Why a sealed secret does not open.
#[derive(Debug, thiserror::Error)]
pub enum SealError {
    /// Sealed by a key that is not in the keyring.
    #[error("sealed with the data key {key_id}, which the keyring does not have")]
    UnknownKey {
        /// The data key.
        key_id: String,
    },
    /// Changed, or moved from where it was sealed.
    #[error("the sealed {field} of {key} in {table} does not open: it was changed or moved")]
    Damaged {
        /// The record's table.
        table: Table,
        /// The record's key.
        key: String,
        /// The record's field.
        field: String,
    },
}

impl SealError {
    fn damaged(place: Place<'_>) -> Self {
        Self::Damaged { table: place.table, key: place.key.to_owned(), field: place.field.to_owned() }
    }
}

/// The data keys, open. New secrets are sealed with the active one.
pub struct Keyring {
    active: DataKey,
    older: Vec<DataKey>,
}

impl fmt::Debug for Keyring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Keyring(active {}, {} older, ..)", self.active.id, self.older.len())
    }
}

impl Keyring {
    /// Makes a keyring with one new data key.
    #[must_use]
    pub(super) fn random() -> Self {
        Self { active: DataKey { id: proto::id::random_id(), key: random_key() }, older: Vec::new() }
    }

    /// Opens the stored keyring; `None` when the key is not the one that wrapped it.
    pub(super) fn unwrap(record: &KeyringRecord, master: &MasterKey) -> Result<Option<Self>, SealError> {
        if record.master_check != master.check_value() {
            return Ok(None);
        }
        let open = |wrapped: &WrappedKey| {
            let place = KeyringRecord::place(&wrapped.id);
            let damaged = || SealError::damaged(place);
            let bytes = open(master.expose(), place, &wrapped.key).ok_or_else(damaged)?;
            let key = <&[u8; KEY_LEN]>::try_from(bytes.as_slice()).ok().copied().ok_or_else(damaged)?;
            Ok(DataKey { id: wrapped.id.clone(), key: SecretBox::new(Box::new(key)) })
        };
        let older = record.older.iter().map(open).collect::<Result<_, SealError>>()?;
        Ok(Some(Self { active: open(&record.active)?, older }))
    }

    /// Returns the keyring as it is stored, wrapped by `master`: first start, and rotation of the master key.
    #[must_use]
    pub fn rewrap(&self, master: &MasterKey) -> KeyringRecord {
        let wrap = |key: &DataKey| WrappedKey {
            id: key.id.clone(),
            key: seal(master.expose(), MASTER_KEY_ID, KeyringRecord::place(&key.id), key.key.expose_secret()),
        };
        KeyringRecord {
            master_check: master.check_value(),
            active: wrap(&self.active),
            older: self.older.iter().map(wrap).collect(),
        }
    }

    /// Seals a secret for its place.
    ///
    /// # Panics
    /// When the kernel gives no random bytes.
    #[must_use]
    pub fn seal(&self, place: Place<'_>, plaintext: &SecretString) -> Sealed {
        let DataKey { id, key } = &self.active;
        seal(key.expose_secret(), id, place, plaintext.expose_secret().as_bytes())
    }

    /// Opens a secret at its place.
    ///
    /// # Errors
    /// When its key is not in the keyring, or it was changed or moved.
    pub fn open(&self, place: Place<'_>, sealed: &Sealed) -> Result<SecretString, SealError> {
        let key = std::iter::once(&self.active).chain(&self.older).find(|key| key.id == sealed.key_id);
        let key = key.ok_or_else(|| SealError::UnknownKey { key_id: sealed.key_id.clone() })?;
        let bytes = open(key.key.expose_secret(), place, sealed).ok_or_else(|| SealError::damaged(place))?;
        let text = std::str::from_utf8(&bytes).ok().ok_or_else(|| SealError::damaged(place))?;
        Ok(text.into())
    }
}

struct DataKey {
    id: String,
    key: SecretBox<[u8; KEY_LEN]>,
}

/// The keyring in the database, under `keyring` of the settings.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyringRecord {
    /// Tells the right master key from a wrong one.
    master_check: String,
    active: WrappedKey,
    older: Vec<WrappedKey>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct WrappedKey {
    id: String,
    key: Sealed,
}

impl KeyringRecord {
    pub(super) const KEY: &'static str = "keyring";

    fn place(data_key_id: &str) -> Place<'_> {
        Place { table: Self::TABLE, key: Self::KEY, field: data_key_id }
    }
}

impl Record for KeyringRecord {
    const TABLE: Table = Table::Setting;

    fn key(&self) -> String {
        Self::KEY.to_owned()
    }
}

fn seal(key: &[u8; KEY_LEN], key_id: &str, place: Place<'_>, plaintext: &[u8]) -> Sealed {
    let mut nonce = [0_u8; NONCE_LEN];
    getrandom::fill(&mut nonce).expect("the kernel gives random bytes");
    let aad = place.associated_data(key_id);
    let ciphertext = cipher(key)
        .encrypt(&Nonce::<Aes256Gcm>::from(nonce), Payload { msg: plaintext, aad: &aad })
        .expect("AES-GCM seals everything below 64 GiB");
    Sealed { key_id: key_id.to_owned(), nonce: STANDARD.encode(nonce), ciphertext: STANDARD.encode(ciphertext) }
}

fn open(key: &[u8; KEY_LEN], place: Place<'_>, sealed: &Sealed) -> Option<Zeroizing<Vec<u8>>> {
    let nonce: [u8; NONCE_LEN] = STANDARD.decode(&sealed.nonce).ok()?.try_into().ok()?;
    let ciphertext = STANDARD.decode(&sealed.ciphertext).ok()?;
    let aad = place.associated_data(&sealed.key_id);
    let payload = Payload { msg: &ciphertext, aad: &aad };
    cipher(key).decrypt(&Nonce::<Aes256Gcm>::from(nonce), payload).ok().map(Zeroizing::new)
}

fn cipher(key: &[u8; KEY_LEN]) -> Aes256Gcm {
    Aes256Gcm::new(&Key::<Aes256Gcm>::from(*key))
}

#[cfg(test)]
mod tests;
