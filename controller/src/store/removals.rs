//! What must stay refused whatever backup is restored: revocations and removals, one JSON line each, in a file beside the
//! database. A line is on the disk before the act has its effect. Called by `rpc`, and by `certwright-controller backup`.

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use crate::lifecycle::restore::Removal;

/// Its name beside the database.
pub const REMOVALS_FILE: &str = "removals.jsonl";
/// Far more than anybody revokes.
const FILE_BYTES_MAX: u64 = 64 << 20;

/// The list of one controller; without a path nothing is kept.
#[derive(Clone, Debug, Default)]
pub struct Removals {
    path: Option<PathBuf>,
}

impl Removals {
    /// Keeps the list there.
    #[must_use]
    pub fn at(path: PathBuf) -> Self {
        Self { path: Some(path) }
    }

    /// Adds a line, durably.
    ///
    /// # Errors
    /// When the disk fails.
    pub async fn add(&self, removal: Removal) -> io::Result<()> {
        let Some(path) = self.path.clone() else { return Ok(()) };
        tokio::task::spawn_blocking(move || append(&path, &removal)).await.map_err(io::Error::other)?
    }
}

fn append(path: &Path, removal: &Removal) -> io::Result<()> {
    let mut line = serde_json::to_vec(removal)?;
    line.push(b'\n');
    let mut file = OpenOptions::new().append(true).create(true).mode(0o600).open(path)?;
    let is_new = file.metadata()?.len() == 0;
    file.write_all(&line)?;
    file.sync_all()?;
    match path.parent().filter(|_| is_new) {
        Some(directory) => File::open(directory)?.sync_all(),
        None => Ok(()),
    }
}

/// Reads a list; `None` when there is no such file. A last line that a crash cut short never had its effect.
///
/// # Errors
/// When it cannot be read, or a line is none.
pub fn read_removals(path: &Path) -> io::Result<Option<Vec<Removal>>> {
    let mut text = String::new();
    match File::open(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
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
        std::fs::write(&path, "nonsense\n").unwrap();
        read_removals(&path).unwrap_err();
        Removals::default().add(removal("c")).await.unwrap();
    }
}
