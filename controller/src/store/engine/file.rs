//! Opens and creates the database. A database appears under its name whole or not at all, so a file that exists is never
//! initialised again, not even an empty one. Called by `engine` only.

use std::ffi::OsString;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::ops::Bound;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use redb::backends::FileBackend;
use redb::{BackendError, Builder, Database, DatabaseError, StorageBackend};

use super::{CACHE_BYTES, CUSTOM, ENGINE, EngineError, REVISION, storage};

/// Up to this length every page is read and compared with its checksum at each opening, which adds a third of a second
/// for the longest. Beyond it a start must stay one of milliseconds, and what is damaged is found when it is read.
const VERIFIED_BYTES_MAX: u64 = 320 << 20;
/// Readable and writable by the owner alone.
const OWNER_ONLY: u32 = 0o600;
const OWNER_ONLY_DIRECTORY: u32 = 0o700;
const PERMISSION_BITS: u32 = 0o777;
const GROUP_AND_OTHERS: u32 = 0o077;

/// Opens the file, after making a new database when there is none and `create` is set.
pub(super) fn open(path: &Path, create: bool) -> Result<Database, EngineError> {
    match path.symlink_metadata() {
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound && create => create_file(path)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(EngineError::Missing { path: path.to_owned() });
        }
        Err(error) => return Err(failed("look at", path)(error)),
    }
    refuse_exposed(path)?;
    let length = path.metadata().map_err(failed("look at", path))?.len();
    verified(path, length, builder().open(path).map_err(|error| not_opened(path, error))?)
}

/// Opens a custom backend, initialising it when it is empty and `create` is set.
pub(super) fn open_custom(backend: Box<dyn StorageBackend>, create: bool) -> Result<Database, EngineError> {
    let path = PathBuf::from(CUSTOM);
    let length = backend.len().map_err(failed("look at", &path))?;
    let empty = length == 0;
    if empty && !create {
        return Err(EngineError::Missing { path });
    }
    let database =
        builder().create_with_backend(Boxed(Arc::from(backend))).map_err(|error| not_opened(&path, error))?;
    if empty {
        initialise(&database)?;
    }
    verified(&path, length, database)
}

/// redb compares the checksums of its pages only here: else it hands out what a flipped bit made of a row, or panics on what
/// it made of a page.
fn verified(path: &Path, length: u64, mut database: Database) -> Result<Database, EngineError> {
    if length <= VERIFIED_BYTES_MAX {
        // Whether it had to count its free pages anew is its own affair.
        let _counted_anew = database.check_integrity().map_err(|error| not_opened(path, error))?;
    }
    Ok(database)
}

/// Opens anew what was open a moment ago: it was verified then.
pub(super) fn open_file_again(path: &Path) -> Result<Database, EngineError> {
    builder().open(path).map_err(|error| not_opened(path, error))
}

/// The same of a custom backend.
pub(super) fn open_custom_again(backend: Arc<dyn StorageBackend>) -> Result<Database, EngineError> {
    builder().create_with_backend(Boxed(backend)).map_err(|error| not_opened(Path::new(CUSTOM), error))
}

fn builder() -> Builder {
    let mut builder = Database::builder();
    builder.set_cache_size(CACHE_BYTES);
    builder
}

/// Makes an empty database; whoever is second finds the first one's.
fn create_file(path: &Path) -> Result<(), EngineError> {
    match put_in_place(path, initialise) {
        Err(EngineError::Exists { .. }) => Ok(()),
        made => made,
    }
}

/// Makes the directory if need be, and the database under another name, then links it in place when it is whole: never over another.
pub(super) fn put_in_place<T, E: From<EngineError>>(
    path: &Path,
    make: impl FnOnce(&Database) -> Result<T, E>,
) -> Result<T, E> {
    if path.symlink_metadata().is_ok() {
        return Err(EngineError::Exists { path: path.to_owned() }.into());
    }
    let directory = directory(path);
    DirBuilder::new()
        .recursive(true)
        .mode(OWNER_ONLY_DIRECTORY)
        .create(directory)
        .map_err(failed("create", directory))?;
    let mut name = OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    name.push(format!(".{}.new", proto::id::random_id()));
    let fresh = directory.join(name);
    let made = make_at(&fresh, make).and_then(|made| match fs::hard_link(&fresh, path) {
        Ok(()) => Ok(made),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            Err(EngineError::Exists { path: path.to_owned() }.into())
        }
        Err(error) => Err(failed("create", path)(error).into()),
    });
    let removed = fs::remove_file(&fresh).map_err(failed("remove", &fresh));
    let made = made?;
    removed?;
    File::open(directory).and_then(|directory| directory.sync_all()).map_err(failed("sync", directory))?;
    Ok(made)
}

fn make_at<T, E: From<EngineError>>(fresh: &Path, make: impl FnOnce(&Database) -> Result<T, E>) -> Result<T, E> {
    let file = OpenOptions::new().read(true).write(true).create_new(true).mode(OWNER_ONLY).open(fresh);
    let file = file.map_err(failed("create", fresh))?;
    let backend = FileBackend::new(file).map_err(|error| not_opened(fresh, error))?;
    let database = builder().create_with_backend(backend).map_err(|error| not_opened(fresh, error))?;
    let made = make(&database)?;
    database.close().map_err(|error| not_opened(fresh, error))?;
    Ok(made)
}

/// Makes a database, without anything in it yet, on an empty backend.
pub(super) fn new_custom(backend: Box<dyn StorageBackend>) -> Result<Database, EngineError> {
    let path = PathBuf::from(CUSTOM);
    if backend.len().map_err(failed("look at", &path))? > 0 {
        return Err(EngineError::Exists { path });
    }
    builder().create_with_backend(Boxed(Arc::from(backend))).map_err(|error| not_opened(&path, error))
}

/// Marks a new database as ours.
fn initialise(database: &Database) -> Result<(), EngineError> {
    let mut transaction = database.begin_write().map_err(storage)?;
    transaction.set_two_phase_commit(true);
    transaction.set_quick_repair(true);
    transaction.open_table(ENGINE).map_err(storage)?.insert(REVISION, 0).map_err(storage)?;
    transaction.commit().map_err(storage)
}

/// Secrets are sealed, but names and times are not everybody's either.
fn refuse_exposed(path: &Path) -> Result<(), EngineError> {
    let mode = |of: &Path| of.metadata().map(|metadata| metadata.permissions().mode()).map_err(failed("look at", path));
    let file = mode(path)? & PERMISSION_BITS;
    if file & GROUP_AND_OTHERS != 0 && mode(directory(path))? & GROUP_AND_OTHERS != 0 {
        return Err(EngineError::Exposed { path: path.to_owned(), mode: file });
    }
    Ok(())
}

fn directory(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."))
}

fn failed<'a>(action: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> EngineError + 'a {
    move |source| EngineError::File { action, path: path.to_owned(), source: Arc::new(source) }
}

fn not_opened(path: &Path, error: DatabaseError) -> EngineError {
    let path = path.to_owned();
    match error {
        DatabaseError::DatabaseAlreadyOpen | DatabaseError::LockProtocolMismatch => EngineError::AlreadyOpen { path },
        other => match EngineError::full(other.into()) {
            Ok(full) => full,
            Err(other) => EngineError::Open { path, source: Arc::new(other) },
        },
    }
}

/// redb takes a sized backend, and keeps it to itself: one that is opened again after a full disk is shared.
#[derive(Debug)]
pub(super) struct Boxed(pub(super) Arc<dyn StorageBackend>);

impl StorageBackend for Boxed {
    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.0.read(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.0.write(offset, data)
    }

    fn close(&self) -> io::Result<()> {
        self.0.close()
    }

    fn try_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.0.try_lock_range(start, end)
    }

    fn try_lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.0.try_lock_shared_range(start, end)
    }

    fn lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.0.lock_range(start, end)
    }

    fn lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.0.lock_shared_range(start, end)
    }

    fn unlock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.0.unlock_range(start, end)
    }

    fn query_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.0.query_lock_range(start, end)
    }
}
