//! Files of this server as `detect` may read them: regular ones only, each and all together below a limit. A file that is
//! not there, or is too large, is none.

use std::collections::BTreeSet;
use std::fs::OpenOptions;
use std::io::Read as _;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use crate::policy::glob_matches;

/// Largest file that is read.
const FILE_BYTES_MAX: u64 = 1024 * 1024;
/// Most bytes, and most files, of one look.
const BYTES_MAX: u64 = 16 * 1024 * 1024;
const FILES_MAX: usize = 3_000;
/// Largest part of a file of /proc.
const SMALL_BYTES_MAX: u64 = 4 * 1024;
/// Most entries of one directory.
const ENTRIES_MAX: usize = 10_000;

/// Reads below a root, which is `/` but in tests.
pub(super) struct Files {
    root: PathBuf,
    bytes: u64,
    files: usize,
    too_large: BTreeSet<String>,
}

/// Who owns a file, and its permission bits.
pub(super) struct Standing {
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) mode: u32,
}

impl Files {
    pub(super) fn new(root: &Path) -> Self {
        Self { root: root.to_owned(), bytes: 0, files: 0, too_large: BTreeSet::new() }
    }

    fn at(&self, path: &str) -> PathBuf {
        self.root.join(path.trim_start_matches('/'))
    }

    pub(super) fn is_dir(&self, path: &str) -> bool {
        self.at(path).is_dir()
    }

    pub(super) fn is_file(&self, path: &str) -> bool {
        self.at(path).is_file()
    }

    /// A link counts although it leads nowhere below this root.
    pub(super) fn is_link_or_file(&self, path: &str) -> bool {
        self.at(path).symlink_metadata().is_ok()
    }

    /// Returns a file's bytes.
    pub(super) fn bytes(&mut self, path: &str, most: u64) -> std::io::Result<Vec<u8>> {
        self.files += 1;
        let most = most.min(FILE_BYTES_MAX);
        if self.files > FILES_MAX || self.bytes > BYTES_MAX {
            self.too_large.insert("what lies on this server".to_owned());
            return Err(std::io::ErrorKind::FileTooLarge.into());
        }
        // Opens without waiting on a FIFO.
        let flags = rustix::fs::OFlags::NONBLOCK.bits();
        let flags = i32::try_from(flags).map_err(std::io::Error::other)?;
        let file = OpenOptions::new().read(true).custom_flags(flags).open(self.at(path))?;
        let metadata = file.metadata()?;
        if !metadata.is_file() {
            return Err(std::io::Error::other("it is no regular file"));
        }
        if metadata.len() > most {
            self.too_large.insert(path.to_owned());
            return Err(std::io::ErrorKind::FileTooLarge.into());
        }
        let mut bytes = Vec::new();
        // A file of /proc has no length.
        file.take(most).read_to_end(&mut bytes)?;
        self.bytes += u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        Ok(bytes)
    }

    /// Returns a file's text; what is no UTF-8 in it is replaced.
    pub(super) fn text(&mut self, path: &str) -> Option<String> {
        self.bytes(path, FILE_BYTES_MAX).ok().map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
    }

    /// Returns the beginning of a small file without counting it: a server may have many processes.
    pub(super) fn small(&self, path: &str) -> Option<String> {
        let mut text = Vec::new();
        std::fs::File::open(self.at(path)).ok()?.take(SMALL_BYTES_MAX).read_to_end(&mut text).ok()?;
        String::from_utf8(text).ok()
    }

    /// Returns the names in a directory, in order.
    pub(super) fn names(&self, path: &str) -> Vec<String> {
        let entries = std::fs::read_dir(self.at(path)).into_iter().flatten().flatten().take(ENTRIES_MAX);
        let mut names: Vec<String> = entries.filter_map(|entry| entry.file_name().into_string().ok()).collect();
        names.sort_unstable();
        names
    }

    /// Returns the paths that a pattern stands for. Names with a leading dot are none.
    pub(super) fn matching(&self, pattern: &str) -> Vec<String> {
        let mut found = vec![String::new()];
        for part in pattern.split('/').skip(1) {
            let mut next = Vec::new();
            for path in found {
                if part.contains('*') {
                    let names = self.names(&path).into_iter().filter(|name| !name.starts_with('.'));
                    next.extend(names.filter(|name| glob_matches(part, name)).map(|name| format!("{path}/{name}")));
                } else {
                    next.push(format!("{path}/{part}"));
                }
                next.truncate(FILES_MAX);
            }
            found = next;
        }
        found
    }

    /// Returns where a symbolic link leads in the end; nothing for what is none.
    pub(super) fn leads_to(&self, path: &str) -> Option<String> {
        let at = self.at(path);
        if !at.symlink_metadata().ok()?.file_type().is_symlink() {
            return None;
        }
        let end = at.canonicalize().ok()?;
        let root = self.root.canonicalize().ok()?;
        let below = end.strip_prefix(root).unwrap_or(&end);
        Some(format!("/{}", below.display()))
    }

    pub(super) fn standing(&self, path: &str) -> Option<Standing> {
        let metadata = self.at(path).metadata().ok()?;
        Some(Standing { uid: metadata.uid(), gid: metadata.gid(), mode: metadata.mode() & 0o7777 })
    }

    /// What was passed over.
    pub(super) fn notes(&self) -> impl Iterator<Item = String> {
        self.too_large.iter().map(|path| format!("{path} is too large and was not read whole"))
    }
}
