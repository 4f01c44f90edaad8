//! Writes what a command was asked to put into a file.

use std::io::Write as _;
use std::path::Path;

use crate::client::{ClientError, ErrorKind};

/// Writes a file with this mode, whole or not at all.
pub(super) fn save(path: &Path, mode: u32, bytes: &[u8]) -> Result<(), ClientError> {
    use std::os::unix::fs::OpenOptionsExt as _;
    let mut fresh = path.as_os_str().to_owned();
    fresh.push(".part");
    let written = || -> std::io::Result<()> {
        let mut file = std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(mode).open(&fresh)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        std::fs::rename(&fresh, path)
    };
    written().map_err(|error| {
        // What is half-written is worth nothing; that it could not be written is told.
        drop(std::fs::remove_file(&fresh));
        let message = format!("cannot write {}", path.display());
        let hint = "check the directory and the room on its disk, or name another file";
        ClientError::local(ErrorKind::Failed, "OUTPUT_FAILED", &message, &error.to_string(), hint)
    })
}
