//! The place of the open database. redb refuses all work after a write that failed, so after a full disk it is opened anew here,
//! behind everyone's back: reads go on, and changes once there is room. Called by `engine` only.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use redb::{Database, StorageBackend};
use tokio::sync::watch;

use super::{Backend, EngineError, blocking, file};

/// A reader waits so long for a database that is being opened anew: that takes milliseconds once the disk answers.
const READER_WAIT_MAX: Duration = Duration::from_secs(5);
/// Until the last reader of the old one is done.
const LOOK_AGAIN_AFTER: Duration = Duration::from_millis(5);

/// The database, or nothing while it is being opened anew.
pub(super) struct Slot {
    open: watch::Sender<Option<Arc<Database>>>,
    source: Source,
    /// Why it could not be opened anew: a disk so full that not even the header can be written.
    shut: Mutex<Option<EngineError>>,
}

/// What is opened anew: never another file that lies there meanwhile.
pub(super) enum Source {
    /// A file by its device and inode.
    File(PathBuf, Option<(u64, u64)>),
    /// The simulation's.
    Custom(Arc<dyn StorageBackend>),
}

impl Source {
    /// Takes the backend, and returns what to open.
    pub(super) fn of(backend: Backend) -> (Self, Backend) {
        match backend {
            Backend::File(path) => (Self::File(path.clone(), None), Backend::File(path)),
            Backend::Custom(backend) => {
                let shared: Arc<dyn StorageBackend> = Arc::from(backend);
                (Self::Custom(Arc::clone(&shared)), Backend::Custom(Box::new(file::Boxed(shared))))
            }
        }
    }
}

impl Slot {
    /// Holds a database that was just opened.
    pub(super) fn new(mut source: Source, database: Arc<Database>) -> Self {
        if let Source::File(path, identity) = &mut source {
            *identity = path.metadata().ok().as_ref().map(identity_of);
        }
        Self { open: watch::Sender::new(Some(database)), source, shut: Mutex::default() }
    }

    /// Returns the database, if it is open.
    pub(super) fn now(&self) -> Option<Arc<Database>> {
        self.open.borrow().clone()
    }

    /// Returns the database, after a moment if it is being opened anew.
    pub(super) async fn get(&self) -> Result<Arc<Database>, EngineError> {
        if let Some(database) = self.now() {
            return Ok(database);
        }
        if let Some(why) = self.shut.lock().unwrap_or_else(PoisonError::into_inner).clone() {
            return Err(why);
        }
        let mut open = self.open.subscribe();
        let found = tokio::time::timeout(READER_WAIT_MAX, open.wait_for(Option::is_some)).await;
        found.ok().and_then(Result::ok).and_then(|found| found.clone()).ok_or(EngineError::Stopped)
    }

    /// Closes what is open, once its last reader is done, and opens it anew. Only the writer calls it.
    pub(super) async fn reopen(self: &Arc<Self>) -> Result<(), EngineError> {
        if let Some(mut old) = self.open.send_replace(None) {
            loop {
                match Arc::try_unwrap(old) {
                    Ok(last) => {
                        blocking(move || {
                            drop(last);
                            Ok(())
                        })
                        .await?;
                        break;
                    }
                    Err(shared) => old = shared,
                }
                tokio::time::sleep(LOOK_AGAIN_AFTER).await;
            }
        }
        let slot = Arc::clone(self);
        let opened = blocking(move || slot.open_anew()).await;
        *self.shut.lock().unwrap_or_else(PoisonError::into_inner) = opened.as_ref().err().cloned();
        self.open.send_replace(Some(Arc::new(opened?)));
        Ok(())
    }

    fn open_anew(&self) -> Result<Database, EngineError> {
        match &self.source {
            Source::Custom(backend) => file::open_custom_again(Arc::clone(backend)),
            Source::File(path, identity) => {
                let found = path.metadata().ok().as_ref().map(identity_of);
                if found != *identity {
                    return Err(EngineError::Missing { path: path.clone() });
                }
                file::open_file_again(path)
            }
        }
    }
}

fn identity_of(metadata: &Metadata) -> (u64, u64) {
    (metadata.dev(), metadata.ino())
}
