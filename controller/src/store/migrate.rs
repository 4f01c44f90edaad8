//! The schema gate: which form the records have, and which version of the controller wrote last. A database of a newer form is
//! refused before any record is touched; one that another version wrote is copied before this one changes it, so that there is a
//! way back; an older form would be migrated after that. Called by `store` only.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use super::records::Record;
use super::tables::Table;

/// Version of this controller.
pub(super) const PROGRAM: &str = env!("CARGO_PKG_VERSION");
/// Copies of before upgrades that stay: the last one, and the one before in case the last was made of what was bad already.
const COPIES_MAX: usize = 2;
/// Stands in the names of copies between the database's own and the version that came.
const BEFORE: &str = ".before-";
/// A copy that is being made.
const HALF_MADE: &str = ".copy";
/// Readable and writable by the owner alone.
const OWNER_ONLY: u32 = 0o600;

/// The form of the records that this controller reads and writes.
pub const SCHEMA_VERSION: u32 = 1;

/// The schema version in the database, under `schema` of the settings.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Schema {
    /// Rises with every change that an older controller would misread.
    pub(super) version: u32,
    /// The version of the controller that wrote last; empty before versions were noted.
    #[serde(default)]
    pub(super) program: String,
}

impl Schema {
    pub(super) const KEY: &'static str = "schema";
    /// What this controller writes.
    pub(super) fn now() -> Self {
        Self { version: SCHEMA_VERSION, program: PROGRAM.to_owned() }
    }
}

/// Copies the file of a database that nobody writes to, under a name that says before which version; the copy is whole before it has
/// that name. Of earlier ones the newest stay. Blocking.
///
/// # Errors
/// When there is no room, or the directory cannot be written.
pub(super) fn keep_aside(database: &Path) -> io::Result<PathBuf> {
    let named = |suffix: &str| {
        let mut name = OsString::from(database.file_name().unwrap_or_default());
        name.push(suffix);
        database.with_file_name(name)
    };
    let (copy, fresh) = (named(&format!("{BEFORE}{PROGRAM}")), named(HALF_MADE));
    match fs::remove_file(&fresh) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let written = write_copy(database, &fresh).and_then(|()| fs::rename(&fresh, &copy));
    if let Err(error) = written {
        // What is left of it takes the room that was missing.
        drop(fs::remove_file(&fresh));
        return Err(error);
    }
    let directory = database.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."));
    File::open(directory)?.sync_all()?;
    let mut copies = copies(directory, &named(BEFORE))?;
    copies.retain(|(_, path)| *path != copy);
    copies.sort();
    for (_, old) in copies.iter().rev().skip(COPIES_MAX - 1) {
        fs::remove_file(old)?;
    }
    Ok(copy)
}

fn write_copy(database: &Path, fresh: &Path) -> io::Result<()> {
    let mut from = File::open(database)?;
    let mut to = OpenOptions::new().write(true).create_new(true).mode(OWNER_ONLY).open(fresh)?;
    io::copy(&mut from, &mut to)?;
    to.sync_all()
}

/// The copies that are there, by age.
fn copies(directory: &Path, prefix: &Path) -> io::Result<Vec<(SystemTime, PathBuf)>> {
    let prefix = prefix.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let mut found = Vec::new();
    for entry in directory.read_dir()? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with(&prefix) {
            found.push((entry.metadata()?.modified()?, entry.path()));
        }
    }
    Ok(found)
}

impl Record for Schema {
    const TABLE: Table = Table::Setting;

    fn key(&self) -> String {
        Self::KEY.to_owned()
    }
}

#[cfg(test)]
mod tests;
