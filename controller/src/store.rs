//! The durable truth: redb records with revisions, secrets sealed with AES-256-GCM. Every other room goes through it. It
//! never initialises anything over what exists, and never keeps a secret in plain text.

pub mod agent;
pub mod audit;
pub mod backup;
pub mod batch;
pub mod certificate;
pub mod due;
pub mod engine;
pub mod event;
pub mod issuer;
pub mod job;
pub mod limit;
pub mod master_key;
mod migrate;
pub mod operator;
pub mod pause;
pub mod private_ca;
pub mod records;
pub mod removals;
pub mod restore;
pub mod seal;
pub mod tables;

use std::ops::Bound;
use std::path::PathBuf;
use std::sync::Arc;

use tokio::sync::watch;
use tracing::info;

use self::batch::CommitError;
use self::engine::{Backend, Engine, EngineError, Order, RESTORE, Snapshot};
use self::master_key::{MasterKey, MasterKeyError};
pub use self::migrate::SCHEMA_VERSION;
use self::migrate::{PROGRAM, Schema, keep_aside};
use self::records::{Changes, Record, Versioned};
use self::seal::{Keyring, KeyringRecord, SealError};
use crate::lifecycle::problem::{Problem, causes};

/// Why the store cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The database, or reading from it.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// The first records, or the keyring, could not be written.
    #[error("cannot write to the database {path}")]
    Commit {
        /// The database.
        path: PathBuf,
        /// Why.
        #[source]
        source: CommitError,
    },
    /// The master key is not the database's.
    #[error(transparent)]
    MasterKey(#[from] MasterKeyError),
    /// A newer controller wrote the database.
    #[error("the database {path} has schema {found}; this controller knows {known}")]
    SchemaNewer {
        /// The database.
        path: PathBuf,
        /// Its schema.
        found: u32,
        /// Ours.
        known: u32,
    },
    /// Another version of the controller wrote the database, and no copy of it can be kept.
    #[error("cannot keep a copy of the database {path}, which another version of the controller wrote")]
    Copy {
        /// The database.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A database with records but without schema or keyring.
    #[error("the database {path} has records but no {missing}")]
    Incomplete {
        /// The database.
        path: PathBuf,
        /// What it lacks.
        missing: &'static str,
    },
    /// The right master key, but a keyring that does not open.
    #[error("the keyring of the database {path} is damaged")]
    Keyring {
        /// The database.
        path: PathBuf,
        /// Why.
        #[source]
        source: SealError,
    },
}

impl StoreError {
    /// Returns the error for people.
    #[must_use]
    pub fn problem(&self) -> Problem {
        let (reason, cause, hint) = match self {
            Self::Engine(error) => return error.problem(),
            Self::MasterKey(error) => return error.problem(),
            Self::Commit { .. } => ("DATABASE_FAILED", causes(self), "check the disk and its free space"),
            Self::SchemaNewer { .. } => (
                "DATABASE_NEWER",
                "a newer controller wrote it; nothing was touched".to_owned(),
                "start the newer controller; or go back: move the database away and the copy DATABASE.before-VERSION in its place",
            ),
            Self::Copy { source, .. } => (
                "UPGRADE_COPY_FAILED",
                source.to_string(),
                "no record was changed; make room for the copy beside the database (or check that the directory can be written), then start again",
            ),
            Self::Incomplete { .. } => ("DATABASE_DAMAGED", "it was not written by a controller".to_owned(), RESTORE),
            Self::Keyring { source, .. } => ("DATABASE_DAMAGED", source.to_string(), RESTORE),
        };
        Problem::new(reason, self.to_string(), cause, hint)
    }
}

/// The open database and the keys of its secrets. Clones share both.
#[derive(Clone, Debug)]
pub struct Store {
    /// Snapshots and batches.
    pub engine: Engine,
    /// Seals and opens secrets.
    pub keyring: Arc<Keyring>,
    path: PathBuf,
}

impl Store {
    /// Opens the database with its master key, or makes one when `create` is set and there is none.
    ///
    /// # Errors
    /// When the database, its schema or the key do not fit; nothing is changed then.
    pub async fn open(backend: Backend, create: bool, master: MasterKey) -> Result<Self, StoreError> {
        let path = backend.path();
        let in_file = matches!(backend, Backend::File(_));
        let engine = Engine::open(backend, create).await?;
        let (revision, schema, keyring) = engine
            .read(|snapshot| {
                let schema = snapshot.load::<Schema>(Schema::KEY)?;
                // A newer schema may have another keyring: it is not even read.
                let newer = schema.as_ref().is_some_and(|schema| schema.value.version > SCHEMA_VERSION);
                let keyring = if newer { None } else { snapshot.load::<KeyringRecord>(KeyringRecord::KEY)? };
                Ok((snapshot.revision()?, schema, keyring))
            })
            .await?;
        if let Some(found) = schema.as_ref().map(|schema| schema.value.version).filter(|found| *found > SCHEMA_VERSION)
        {
            return Err(StoreError::SchemaNewer { path, found, known: SCHEMA_VERSION });
        }
        let failed = |source| StoreError::Commit { path: path.clone(), source };
        let written_by = schema.as_ref().map(|schema| schema.value.program.clone());
        let keyring = match (schema, keyring) {
            (None, None) if revision == 0 => {
                start(&engine, &master).await.map_err(|source| StoreError::Commit { path: path.clone(), source })?
            }
            (None, _) => return Err(StoreError::Incomplete { path, missing: Schema::KEY }),
            (Some(_), None) => return Err(StoreError::Incomplete { path, missing: KeyringRecord::KEY }),
            (Some(_), Some(record)) => match Keyring::unwrap(&record.value, &master) {
                Ok(Some(keyring)) => keyring,
                Ok(None) => return Err(master.wrong_for(&path).into()),
                Err(source) => return Err(StoreError::Keyring { path, source }),
            },
        };
        if let Some(before) = written_by.filter(|before| before != PROGRAM) {
            keep_copy(in_file.then_some(&path), &before).await?;
            let noted = engine.commit(Changes::new().upsert(&Schema::now()).into_batch().map_err(failed)?).await;
            noted.map_err(failed)?;
        }
        Ok(Self { engine, keyring: Arc::new(keyring), path })
    }

    /// Returns one record.
    ///
    /// # Errors
    /// When it cannot be read.
    pub async fn load<R: Record + Send + 'static>(&self, key: &str) -> Result<Option<Versioned<R>>, StoreError> {
        let key = key.to_owned();
        self.read(move |snapshot| snapshot.load(&key)).await
    }

    /// Returns up to `limit` records whose keys start with `prefix`, smallest key first.
    ///
    /// # Errors
    /// When they cannot be read.
    pub async fn list<R: Record + Send + 'static>(
        &self,
        prefix: &str,
        limit: usize,
    ) -> Result<Vec<Versioned<R>>, StoreError> {
        let prefix = prefix.to_owned();
        self.read(move |snapshot| snapshot.list(&prefix, Bound::Unbounded, Order::Ascending, limit)).await
    }

    /// Runs `f` on one consistent state of all tables: several records that must fit together.
    ///
    /// # Errors
    /// When `f` fails or the state cannot be read.
    pub async fn read<T: Send + 'static>(
        &self,
        f: impl FnOnce(&Snapshot<'_>) -> Result<T, EngineError> + Send + 'static,
    ) -> Result<T, StoreError> {
        Ok(self.engine.read(f).await?)
    }

    /// Applies the changes durably, all or none, and returns their revision. The rows of the due indexes follow them.
    ///
    /// # Errors
    /// On a conflict, a limit, or a failure of the database.
    pub async fn commit(&self, changes: Changes) -> Result<u64, CommitError> {
        due::commit(&self.engine, changes.into_batch()?).await
    }

    /// Tells the latest durable revision, starting with the stored one.
    #[must_use]
    pub fn revision(&self) -> watch::Receiver<u64> {
        self.engine.revision()
    }

    /// Wraps the keyring by another master key. From then on only that key opens the database.
    ///
    /// # Errors
    /// When the keyring cannot be read or written.
    pub async fn rotate_master(&self, new: &MasterKey) -> Result<u64, StoreError> {
        let missing = || StoreError::Incomplete { path: self.path.clone(), missing: KeyringRecord::KEY };
        let mut record = self.load::<KeyringRecord>(KeyringRecord::KEY).await?.ok_or_else(missing)?;
        record.value = self.keyring.rewrap(new);
        let failed = |source| StoreError::Commit { path: self.path.clone(), source };
        self.commit(Changes::new().update(&record)).await.map_err(failed)
    }
}

/// Keeps a copy of what another version wrote, and nothing has changed yet.
async fn keep_copy(file: Option<&PathBuf>, before: &str) -> Result<(), StoreError> {
    if let Some(path) = file {
        let path = path.clone();
        let kept = tokio::task::spawn_blocking({
            let path = path.clone();
            move || keep_aside(&path)
        });
        let kept = kept.await.map_err(|_stopping| EngineError::Stopped)?;
        let copy = kept.map_err(|source| StoreError::Copy { path, source })?;
        info!(copy = %copy.display(), before, now = PROGRAM, "another version wrote this database: it is kept as a copy, see the manual for the way back");
    }
    Ok(())
}

/// Writes the first records of a new database.
async fn start(engine: &Engine, master: &MasterKey) -> Result<Keyring, CommitError> {
    let keyring = Keyring::random();
    let first = Changes::new().insert(&Schema::now()).insert(&keyring.rewrap(master)).insert(&due::Form::NOW);
    engine.commit(first.into_batch()?).await?;
    Ok(keyring)
}
