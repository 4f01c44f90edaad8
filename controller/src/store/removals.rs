//! What must stay refused whatever backup is restored: revocations and removals (of issuers, and of leaves of private CAs, too), one JSON line each,
//! in a file beside the database. A line is on the disk before the act has its effect. A file that has grown is written anew without the leaves that
//! expired long ago: they are refused as they are. Called by `rpc`, and by `certwright-controller backup`.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead as _, BufReader, BufWriter, ErrorKind, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use jiff::Timestamp;
use tracing::warn;

use crate::lifecycle::restore::Removal;

/// Its name beside the database.
pub const REMOVALS_FILE: &str = "removals.jsonl";
/// Far more than anybody revokes.
const FILE_BYTES_MAX: u64 = 64 << 20;
/// Longer than any line: two ids, a name, a time.
const LINE_BYTES_MAX: u64 = 16 << 10;
/// A smaller file is left as it is; a larger one is written anew when it has doubled.
const REWRITTEN_BYTES_MIN: u64 = 1 << 20;
/// The file while it is written anew; what a crash leaves of it is overwritten by the next.
const FRESH_FILE: &str = "removals.jsonl.new";

/// The list of one controller; without a path nothing is kept.
#[derive(Clone, Debug, Default)]
pub struct Removals {
    path: Option<PathBuf>,
    /// One writer at a time; holds how long the file was when it was last written anew.
    turn: Arc<Mutex<u64>>,
}

impl Removals {
    /// Keeps the list there.
    #[must_use]
    pub fn at(path: PathBuf) -> Self {
        Self { path: Some(path), turn: Arc::default() }
    }

    /// Adds a line, durably. `now` lets lines of before it go, `None` none: by a wrong clock nothing is forgotten.
    ///
    /// # Errors
    /// When the disk fails.
    pub async fn add(&self, removal: Removal, now: Option<Timestamp>) -> io::Result<()> {
        let Some(path) = self.path.clone() else { return Ok(()) };
        let turn = Arc::clone(&self.turn);
        let write = move || {
            let mut rewritten = turn.lock().unwrap_or_else(PoisonError::into_inner);
            append(&path, &removal)?;
            let len = fs::metadata(&path)?.len();
            let Some(now) = now.filter(|_| len >= REWRITTEN_BYTES_MIN && len / 2 >= *rewritten) else { return Ok(()) };
            // The line stands; a file that stays long does no harm yet.
            *rewritten = rewrite(&path, now).unwrap_or_else(|error| {
                warn!(%error, path = %path.display(), "the list of removals is not written anew");
                len
            });
            Ok(())
        };
        tokio::task::spawn_blocking(write).await.map_err(io::Error::other)?
    }
}

/// Writes the file anew without what is past; returns its length. It is replaced as a whole, or not at all.
fn rewrite(path: &Path, now: Timestamp) -> io::Result<u64> {
    let fresh = path.with_file_name(FRESH_FILE);
    let mut from = BufReader::new(File::open(path)?);
    let mut to = BufWriter::new(OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&fresh)?);
    let (mut line, mut len) = (Vec::new(), 0);
    while (&mut from).take(LINE_BYTES_MAX).read_until(b'\n', &mut line)? > 0 {
        // A line that says nothing to us may say something to a later version.
        let is_past = serde_json::from_slice::<Removal>(&line).is_ok_and(|removal| removal.is_past(now));
        if !is_past {
            to.write_all(&line)?;
            len += u64::try_from(line.len()).map_err(io::Error::other)?;
        }
        line.clear();
    }
    to.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()?;
    fs::rename(&fresh, path)?;
    path.parent().map_or(Ok(()), |directory| File::open(directory)?.sync_all())?;
    Ok(len)
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
    use super::*;
    use crate::lifecycle::private_ca::RevokedLeaf;
    use crate::lifecycle::restore::Removed;
    use crate::lifecycle::revocation::RevocationReason;
    use crate::store::records::Record as _;

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
            removals.add(removal(id), None).await.unwrap();
        }
        assert_eq!(read_removals(&path).unwrap().unwrap(), [removal("a"), removal("b")]);
        let mut text = fs::read(&path).unwrap();
        text.truncate(text.len() - 5);
        fs::write(&path, text).unwrap();
        assert_eq!(read_removals(&path).unwrap().unwrap(), [removal("a")]);
        removals.add(removal("c"), None).await.unwrap();
        assert_eq!(read_removals(&path).unwrap().unwrap(), [removal("a"), removal("c")], "nothing follows the cut");
        fs::write(&path, "nonsense\n").unwrap();
        read_removals(&path).unwrap_err();
        Removals::default().add(removal("c"), None).await.unwrap();
    }

    #[tokio::test]
    async fn a_file_that_has_grown_is_written_anew_without_leaves_that_expired_long_ago() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(REMOVALS_FILE);
        let at = |day: i32| Timestamp::from_second(1_800_000_000 + i64::from(day) * 86_400).unwrap();
        let leaf = |number: i32| {
            let leaf = RevokedLeaf {
                issuer_id: "corp".into(),
                serial: format!("{number:032x}"),
                revoked_at: at(0),
                reason: RevocationReason::KeyCompromise,
                not_after: at(number % 2 * 100),
            };
            Removal { at: at(0), what: Removed::LeafRevoked, id: leaf.key(), name: "corp".into(), leaf: Some(leaf) }
        };
        let agent = Removal { at: at(0), what: Removed::AgentForgotten, id: "a".into(), name: "h1".into(), leaf: None };
        let mut text = serde_json::to_string(&agent).unwrap() + "\n{\"of\": \"a later version\"}\n";
        for number in 0..6_000 {
            text += &(serde_json::to_string(&leaf(number)).unwrap() + "\n");
        }
        fs::write(&path, &text).unwrap();
        fs::write(folder.path().join(FRESH_FILE), "what a crash left").unwrap();
        let len = || fs::metadata(&path).unwrap().len();
        assert!(len() > REWRITTEN_BYTES_MIN);
        let removals = Removals::at(path.clone());
        removals.add(leaf(6_001), None).await.unwrap();
        removals.add(leaf(6_003), Some(at(13))).await.unwrap();
        assert!(len() > u64::try_from(text.len()).unwrap(), "nothing is past yet");

        let removals = Removals::at(path.clone());
        removals.add(leaf(6_005), Some(at(60))).await.unwrap();
        let kept = fs::read_to_string(&path).unwrap();
        let lines: Vec<&str> = kept.lines().collect();
        assert_eq!(lines.len(), 2 + 3_000 + 3, "what is valid, what is no leaf, and what is unknown stays");
        assert_eq!(serde_json::from_str::<Removal>(lines[0]).unwrap(), agent);
        assert_eq!(serde_json::from_str::<Removal>(lines[3_004]).unwrap(), leaf(6_005), "in their order");
        assert!(!folder.path().join(FRESH_FILE).exists());
        removals.add(leaf(6_007), Some(at(10_000))).await.unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap().lines().count(), 3_006, "not before it has doubled");
    }
}
