//! What must stay refused whatever backup is restored: revocations and removals (of leaves of private CAs too), one JSON line each, in a file beside the
//! database. A line is on the disk before the act has its effect. Called by `rpc`, and by `certwright-controller backup`.

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use crate::lifecycle::restore::Removal;

/// Its name beside the database.
pub const REMOVALS_FILE: &str = "removals.jsonl";
/// Far more than anybody revokes.
const FILE_BYTES_MAX: u64 = 64 << 20;
/// Longer than any line: two ids, a name, a time.
const LINE_BYTES_MAX: u64 = 16 << 10;

/// The list of one controller; without a path nothing is kept.
#[derive(Clone, Debug, Default)]
pub struct Removals {
    path: Option<PathBuf>,
    /// One writer at a time.
    turn: Arc<Mutex<()>>,
}

impl Removals {
    /// Keeps the list there.
    #[must_use]
    pub fn at(path: PathBuf) -> Self {
        Self { path: Some(path), turn: Arc::default() }
    }

    /// Adds a line, durably.
    ///
    /// # Errors
    /// When the disk fails.
    pub async fn add(&self, removal: Removal) -> io::Result<()> {
        let Some(path) = self.path.clone() else { return Ok(()) };
        let turn = Arc::clone(&self.turn);
        let write = move || {
            let _turn = turn.lock().unwrap_or_else(PoisonError::into_inner);
            append(&path, &removal)
        };
        tokio::task::spawn_blocking(write).await.map_err(io::Error::other)?
    }
}

fn append(path: &Path, removal: &Removal) -> io::Result<()> {
    let mut line = serde_json::to_vec(removal)?;
    line.push(b'\n');
    let mut file = OpenOptions::new().read(true).append(true).create(true).mode(0o600).open(path)?;
    let len = file.metadata()?.len();
    let is_new = len == 0;
    // What a crash or a full disk cut short would spoil the line that follows it.
    let whole = whole_lines(&mut file, len)?;
    if whole < len {
        file.set_len(whole)?;
    }
    file.write_all(&line)?;
    file.sync_all()?;
    match path.parent().filter(|_| is_new) {
        Some(directory) => File::open(directory)?.sync_all(),
        None => Ok(()),
    }
}

/// Returns how many of the file's bytes are whole lines.
fn whole_lines(file: &mut File, len: u64) -> io::Result<u64> {
    let from = len.saturating_sub(LINE_BYTES_MAX);
    let mut tail = Vec::new();
    file.seek(SeekFrom::Start(from))?;
    file.take(LINE_BYTES_MAX).read_to_end(&mut tail)?;
    let end = tail.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
    if end == 0 && from > 0 {
        return Err(io::Error::new(ErrorKind::InvalidData, "its last line is longer than any that was written"));
    }
    Ok(from + u64::try_from(end).map_err(io::Error::other)?)
}

/// Reads a list; `None` when there is no such file. A last line that a crash cut short never had its effect.
///
/// # Errors
/// When it cannot be read, is too large, or a line is none.
pub fn read_removals(path: &Path) -> io::Result<Option<Vec<Removal>>> {
    let mut text = String::new();
    match File::open(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
        Ok(file) if file.metadata()?.len() > FILE_BYTES_MAX => {
            return Err(io::Error::new(ErrorKind::FileTooLarge, format!("larger than {FILE_BYTES_MAX} bytes")));
        }
        Ok(file) => file.take(FILE_BYTES_MAX).read_to_string(&mut text)?,
    };
    let whole = text.rsplit_once('\n').map_or("", |(whole, _cut)| whole);
    let lines = whole.lines().map(|line| serde_json::from_str(line).map_err(io::Error::from));
    lines.collect::<io::Result<_>>().map(Some)
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;
    use crate::lifecycle::restore::Removed;

    #[tokio::test]
    async fn what_was_added_is_read_and_a_cut_line_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(REMOVALS_FILE);
        assert_eq!(read_removals(&path).unwrap(), None);
        let removal = |id: &str| Removal {
            at: Timestamp::UNIX_EPOCH,
            what: Removed::AgentRevoked,
            id: id.into(),
            name: "h1".into(),
            leaf: None,
        };
        let removals = Removals::at(path.clone());
        for id in ["a", "b"] {
            removals.add(removal(id)).await.unwrap();
        }
        assert_eq!(read_removals(&path).unwrap().unwrap(), [removal("a"), removal("b")]);
        let mut text = std::fs::read(&path).unwrap();
        text.truncate(text.len() - 5);
        std::fs::write(&path, text).unwrap();
        assert_eq!(read_removals(&path).unwrap().unwrap(), [removal("a")]);
        removals.add(removal("c")).await.unwrap();
        assert_eq!(read_removals(&path).unwrap().unwrap(), [removal("a"), removal("c")], "nothing follows the cut");
        std::fs::write(&path, "nonsense\n").unwrap();
        read_removals(&path).unwrap_err();
        Removals::default().add(removal("c")).await.unwrap();
    }
}
