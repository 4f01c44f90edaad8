//! What opens a backup besides the master key: a passphrase, stretched with Argon2id (RFC 9106), or a key file of 32 random
//! bytes. Either one wraps the keys of one backup and nothing else. Called by `store/backup`.

use std::fmt;

use aes_gcm::Aes256Gcm;
use aes_gcm::aead::{Aead as _, Nonce, Payload};
use argon2::{Algorithm, Argon2, Params, Version};
use proto::x509::{hex, unhex};
use secrecy::{ExposeSecret as _, SecretBox, SecretString};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::super::master_key::{KEY_LEN, MasterKey, random_key};
use super::{NONCE_LEN, cipher};

/// Fewer characters are guessed, whatever stretches them.
const PASSPHRASE_CHARS_MIN: usize = 12;
/// Longer ones are no passphrase.
const PASSPHRASE_BYTES_MAX: usize = 1_024;
const SALT_LEN: usize = 16;
/// More memory than this is not given to a file that asks for it: 1 GiB.
const MEMORY_KIB_MAX: u32 = 1 << 20;
/// Nor more passes, nor lanes.
const PASSES_MAX: u32 = 16;
const LANES_MAX: u32 = 16;

/// What opens a backup.
pub enum Recovery {
    /// Something that a person remembers.
    Passphrase(SecretString),
    /// Something that lies in a safe.
    KeyFile(SecretBox<[u8; KEY_LEN]>),
}

impl fmt::Debug for Recovery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Passphrase(_) => "Passphrase(..)",
            Self::KeyFile(_) => "KeyFile(..)",
        })
    }
}

/// Why something cannot open backups.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecoveryError {
    /// A passphrase that is guessed.
    #[error("the passphrase has fewer than {PASSPHRASE_CHARS_MIN} characters")]
    Short,
    /// Something else than a passphrase.
    #[error("the passphrase has more than {PASSPHRASE_BYTES_MAX} bytes")]
    Long,
    /// Not what `backup keygen` writes.
    #[error("a recovery key has 64 hexadecimal digits")]
    NoKey,
}

impl Recovery {
    /// Takes a passphrase.
    ///
    /// # Errors
    /// When it is too short or too long.
    pub fn passphrase(text: SecretString) -> Result<Self, RecoveryError> {
        match text.expose_secret() {
            text if text.chars().count() < PASSPHRASE_CHARS_MIN => Err(RecoveryError::Short),
            text if text.len() > PASSPHRASE_BYTES_MAX => Err(RecoveryError::Long),
            _ => Ok(Self::Passphrase(text)),
        }
    }

    /// Takes the text of a key file: 64 hexadecimal digits.
    ///
    /// # Errors
    /// When it is something else.
    pub fn key_file(text: &SecretString) -> Result<Self, RecoveryError> {
        let bytes = unhex(text.expose_secret().trim()).map(Zeroizing::new).ok_or(RecoveryError::NoKey)?;
        let key = <&[u8; KEY_LEN]>::try_from(bytes.as_slice()).ok().ok_or(RecoveryError::NoKey)?;
        Ok(Self::KeyFile(SecretBox::new(Box::new(*key))))
    }

    /// The word for what this is.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Passphrase(_) => "passphrase",
            Self::KeyFile(_) => "key-file",
        }
    }
}

/// How the recovery key of one backup is found, and the backup's own keys, wrapped by it. Stands in the backup's header.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Lock {
    stretch: Stretch,
    /// Lower-case hex.
    nonce: String,
    /// The two keys of the backup, sealed; lower-case hex.
    keys: String,
}

/// From what the operator gives to 32 bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
enum Stretch {
    /// A passphrase.
    Argon2id {
        memory_kib: u32,
        passes: u32,
        lanes: u32,
        /// Lower-case hex.
        salt: String,
    },
    /// Random bytes need no stretching.
    KeyFile,
}

/// The keys of one backup.
pub struct BackupKeys {
    /// Of the stream.
    pub(in crate::store) stream: SecretBox<[u8; KEY_LEN]>,
    /// Of the keyring inside, which it wraps as a master key does.
    pub(in crate::store) keyring: MasterKey,
}

impl fmt::Debug for BackupKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("BackupKeys(..)")
    }
}

/// Why a lock does not open.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LockError {
    /// It was made for the other kind.
    #[error("the backup opens with a {0}")]
    OtherKind(&'static str),
    /// Another passphrase, or another key file.
    #[error("the {0} is not the one of this backup")]
    Wrong(&'static str),
    /// Parameters that nobody wrote.
    #[error("the header of the backup asks for what no backup needs")]
    Absurd,
}

/// RFC 9106 §4, the second choice: 64 MiB, three passes, four lanes. Tests take less.
const STRONG: (u32, u32, u32) = if cfg!(test) { (64, 1, 1) } else { (64 << 10, 3, 4) };

impl Lock {
    /// Makes the keys of a new backup and wraps them. Takes a moment and much memory: not for an async thread.
    pub(in crate::store) fn make(recovery: &Recovery, bound_to: &[u8]) -> (Self, BackupKeys) {
        let (memory_kib, passes, lanes) = STRONG;
        let stretch = match recovery {
            Recovery::Passphrase(_) => {
                Stretch::Argon2id { memory_kib, passes, lanes, salt: hex(&random::<SALT_LEN>()) }
            }
            Recovery::KeyFile(_) => Stretch::KeyFile,
        };
        let key = stretch.key(recovery).expect("these are parameters that we chose");
        let (stream, keyring) = (random_key(), MasterKey::random());
        let mut keys = Zeroizing::new(Vec::with_capacity(2 * KEY_LEN));
        keys.extend_from_slice(stream.expose_secret());
        keys.extend_from_slice(keyring.expose());
        let nonce = random::<NONCE_LEN>();
        let sealed = cipher(key.expose_secret())
            .encrypt(&Nonce::<Aes256Gcm>::from(nonce), Payload { msg: &keys, aad: bound_to })
            .expect("AES-GCM seals everything below 64 GiB");
        let lock = Self { stretch, nonce: hex(&nonce), keys: hex(&sealed) };
        (lock, BackupKeys { stream, keyring })
    }

    /// Opens the keys. Takes a moment and much memory: not for an async thread.
    ///
    /// # Errors
    /// When the operator gave something else than the backup was sealed with.
    pub(in crate::store) fn open(&self, recovery: &Recovery, bound_to: &[u8]) -> Result<BackupKeys, LockError> {
        let key = self.stretch.key(recovery)?;
        let nonce = unhex(&self.nonce).and_then(|nonce| <[u8; NONCE_LEN]>::try_from(nonce).ok());
        let (nonce, sealed) = nonce.zip(unhex(&self.keys)).ok_or(LockError::Absurd)?;
        let payload = Payload { msg: &sealed, aad: bound_to };
        let opened = cipher(key.expose_secret()).decrypt(&Nonce::<Aes256Gcm>::from(nonce), payload);
        let opened = opened.map(Zeroizing::new).or(Err(LockError::Wrong(recovery.kind())))?;
        let (stream, keyring) = opened.split_first_chunk::<KEY_LEN>().ok_or(LockError::Absurd)?;
        let keyring = <&[u8; KEY_LEN]>::try_from(keyring).or(Err(LockError::Absurd))?;
        Ok(BackupKeys { stream: SecretBox::new(Box::new(*stream)), keyring: MasterKey::in_memory(*keyring) })
    }
}

impl Stretch {
    fn key(&self, recovery: &Recovery) -> Result<SecretBox<[u8; KEY_LEN]>, LockError> {
        match (self, recovery) {
            (Self::KeyFile, Recovery::KeyFile(key)) => Ok(SecretBox::new(Box::new(*key.expose_secret()))),
            (Self::Argon2id { memory_kib, passes, lanes, salt }, Recovery::Passphrase(text)) => {
                if *memory_kib > MEMORY_KIB_MAX || *passes > PASSES_MAX || *lanes > LANES_MAX {
                    return Err(LockError::Absurd);
                }
                let salt = unhex(salt).filter(|salt| salt.len() == SALT_LEN).ok_or(LockError::Absurd)?;
                let params = Params::new(*memory_kib, *passes, *lanes, Some(KEY_LEN)).or(Err(LockError::Absurd))?;
                let argon = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
                let mut key = SecretBox::new(Box::new([0_u8; KEY_LEN]));
                let bytes = secrecy::ExposeSecretMut::expose_secret_mut(&mut key);
                let made = argon.hash_password_into(text.expose_secret().as_bytes(), &salt, bytes);
                made.map(|()| key).or(Err(LockError::Absurd))
            }
            (Self::KeyFile, Recovery::Passphrase(_)) => Err(LockError::OtherKind("key file: --key-file FILE")),
            (Self::Argon2id { .. }, Recovery::KeyFile(_)) => {
                Err(LockError::OtherKind("passphrase: --passphrase -|@FILE"))
            }
        }
    }
}

fn random<const LEN: usize>() -> [u8; LEN] {
    let mut bytes = [0_u8; LEN];
    getrandom::fill(&mut bytes).expect("the kernel gives random bytes");
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn passphrase(text: &str) -> Recovery {
        Recovery::passphrase(text.to_owned().into()).unwrap()
    }

    #[test]
    fn a_lock_opens_with_what_made_it_and_says_what_it_wants_otherwise() {
        let key = |digit: &str| Recovery::key_file(&format!("{}\n", digit.repeat(64)).into()).unwrap();
        let words = passphrase("correct horse battery");
        for (made, wrong, other, kind) in [
            (&words, passphrase("correct horse bat"), key("a"), "passphrase"),
            (&key("a"), key("b"), passphrase("correct horse battery"), "key-file"),
        ] {
            let (lock, keys) = Lock::make(made, b"header");
            let again = lock.open(made, b"header").unwrap();
            assert_eq!(keys.stream.expose_secret(), again.stream.expose_secret());
            assert_eq!(keys.keyring.expose(), again.keyring.expose());
            assert_eq!(lock.open(&wrong, b"header").unwrap_err(), LockError::Wrong(kind));
            assert_eq!(lock.open(made, b"another").unwrap_err(), LockError::Wrong(kind));
            assert!(matches!(lock.open(&other, b"header"), Err(LockError::OtherKind(_))));
        }
    }

    #[test]
    fn absurd_parameters_are_not_tried() {
        let words = passphrase("correct horse battery");
        let (lock, _) = Lock::make(&words, b"");
        let salt = "00".repeat(SALT_LEN);
        for stretch in [
            Stretch::Argon2id { memory_kib: u32::MAX, passes: 1, lanes: 1, salt: salt.clone() },
            Stretch::Argon2id { memory_kib: 64, passes: u32::MAX, lanes: 1, salt: salt.clone() },
            Stretch::Argon2id { memory_kib: 64, passes: 0, lanes: 1, salt },
            Stretch::Argon2id { memory_kib: 64, passes: 1, lanes: 1, salt: "zz".into() },
        ] {
            let lock = Lock { stretch, ..lock.clone() };
            assert_eq!(lock.open(&words, b"").unwrap_err(), LockError::Absurd);
        }
    }

    #[test]
    fn what_is_guessed_is_no_passphrase_and_only_64_digits_are_a_key() {
        assert_eq!(Recovery::passphrase("eleven char".to_owned().into()).unwrap_err(), RecoveryError::Short);
        assert_eq!(Recovery::passphrase("x".repeat(2_000).into()).unwrap_err(), RecoveryError::Long);
        for text in ["", "ab", &"g".repeat(64), &"a".repeat(66)] {
            assert_eq!(Recovery::key_file(&text.to_owned().into()).unwrap_err(), RecoveryError::NoKey);
        }
    }
}
