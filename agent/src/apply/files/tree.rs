//! A target's directory through descriptors: opened below the policy's root with openat2, no symbolic link followed,
//! modes and owners set before content, everything fsynced. Performs single steps; `steps` decides which.

use std::ffi::CStr;
use std::fmt;
use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::fd::OwnedFd;

use rustix::fs::{
    Access, AtFlags, CWD, Dir, FileType, Gid, Mode, OFlags, ResolveFlags, Stat, Uid, accessat, fchmod, fchown, fstat,
    fstatvfs, fsync, mkdirat, openat, openat2, readlinkat, renameat, statat, symlinkat, unlinkat,
};
use rustix::io::Errno;

use super::steps::{Live, Observed, Step};
use crate::problem::Problem;
use crate::target::BASE;

const CURRENT: &str = "current";
const DIRECTORY: OFlags = OFlags::DIRECTORY.union(OFlags::CLOEXEC).union(OFlags::RDONLY);
/// Opens without waiting on a FIFO and without following a link.
const SOURCE: OFlags = OFlags::RDONLY.union(OFlags::CLOEXEC).union(OFlags::NOFOLLOW).union(OFlags::NONBLOCK);
const RESOLVE: ResolveFlags = ResolveFlags::BENEATH.union(ResolveFlags::NO_SYMLINKS).union(ResolveFlags::NO_MAGICLINKS);
/// Largest file that is taken over or compared.
const FILE_BYTES_MAX: u64 = 4 * 1024 * 1024;

/// What failed, at which path.
#[derive(Debug, thiserror::Error)]
#[error("cannot {verb} {path}")]
pub(crate) struct TreeError {
    verb: &'static str,
    path: String,
    #[source]
    source: Errno,
}

/// A file to write; it may be a private key.
pub(super) struct NewFile {
    pub(super) name: String,
    pub(super) mode: u32,
    pub(super) owner: Option<(u32, u32)>,
    pub(super) bytes: zeroize::Zeroizing<Vec<u8>>,
}

impl fmt::Debug for NewFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NewFile({:?}, ...)", self.name)
    }
}

/// An open target directory.
#[derive(Debug)]
pub(crate) struct Tree {
    dir: OwnedFd,
    path: String,
    /// Others than root and the agent's user could swap files here or in the policy's directory above.
    pub(super) is_shared: bool,
}

impl Tree {
    /// Opens `path`, which the policy allows below `root`. With `create`, makes the last part of either when its parent
    /// exists.
    pub(super) fn open(root: &str, path: &str, create: bool) -> Result<Self, TreeError> {
        let slash = openat(CWD, "/", DIRECTORY, Mode::empty()).map_err(|source| at("open", "/", source))?;
        let top = open_dir(&slash, root.trim_start_matches('/'), root, create)?;
        let below = path.strip_prefix(root).unwrap_or_default().trim_start_matches('/');
        let mut shared = is_shared(&top).map_err(|source| at("look at", root, source))?;
        let dir = if below.is_empty() { top } else { open_dir(&top, below, path, create)? };
        shared |= is_shared(&dir).map_err(|source| at("look at", path, source))?;
        Ok(Self { dir, path: path.to_owned(), is_shared: shared })
    }

    /// Opens `path` as a deployment would, without making anything: with the directory in which it would be made instead, where
    /// it is missing. Says whether it is.
    pub(super) fn open_or_above(root: &str, path: &str) -> Result<(Self, bool), TreeError> {
        match Self::open(root, path, false) {
            Err(error) if error.is_missing() => {}
            other => return other.map(|tree| (tree, false)),
        }
        // What is made is the last part of either, as in `open`.
        match Self::open(root, root, false) {
            Ok(_) => Self::open(root, parent(path), false).map(|tree| (tree, true)),
            // What is made anew is nobody else's, wherever it lies.
            Err(error) if error.is_missing() && (path == root || parent(path) == root) => {
                let tree = Self::open(parent(root), parent(root), false)?;
                Ok((Self { is_shared: false, ..tree }, true))
            }
            Err(error) => Err(error),
        }
    }

    /// Tries what a write needs, in a file without a name that is gone at once: space, owners, a disk that takes it. Returns
    /// false where the file system has no such files, and only rights and free space were looked at.
    pub(crate) fn try_write(&self, bytes: usize, owners: &[(u32, u32)]) -> Result<bool, TreeError> {
        let failed = |source| at("write into", &self.path, source);
        let flags = OFlags::TMPFILE | OFlags::WRONLY | OFlags::CLOEXEC;
        match openat2(&self.dir, ".", flags, Mode::from_raw_mode(0o600), RESOLVE) {
            Ok(file) => {
                for (user, group) in owners {
                    fchown(&file, Some(Uid::from_raw(*user)), Some(Gid::from_raw(*group))).map_err(failed)?;
                }
                let mut file = File::from(file);
                let written = file.write_all(&vec![0; bytes]);
                written.map_err(|error| failed(Errno::from_io_error(&error).unwrap_or(Errno::IO)))?;
                fsync(&file).map_err(failed)?;
                Ok(true)
            }
            Err(Errno::OPNOTSUPP | Errno::ISDIR | Errno::INVAL) => {
                accessat(&self.dir, ".", Access::WRITE_OK | Access::EXEC_OK, AtFlags::empty()).map_err(failed)?;
                let found = fstatvfs(&self.dir).map_err(failed)?;
                let free = found.f_bavail.saturating_mul(found.f_frsize);
                if free < u64::try_from(bytes).unwrap_or(u64::MAX) { Err(failed(Errno::NOSPC)) } else { Ok(false) }
            }
            Err(source) => Err(failed(source)),
        }
    }

    /// Opens any directory that must exist, without following a symbolic link.
    pub(crate) fn open_existing(path: &str) -> Result<Self, TreeError> {
        Self::open(path, path, false)
    }

    /// Opens a directory inside, and makes it first if it is missing.
    pub(crate) fn enter(&self, name: &str) -> Result<Self, TreeError> {
        let path = format!("{}/{name}", self.path);
        Ok(Self { dir: open_dir(&self.dir, name, &path, true)?, path, is_shared: self.is_shared })
    }

    /// Looks at everything that the steps depend on.
    pub(super) fn observe(&self, names: &[String]) -> Result<Observed, TreeError> {
        let mut observed = Observed::default();
        for name in names {
            observed.live.insert(name.clone(), self.live(name)?);
        }
        let Some(base) = self.base_if_there()? else { return Ok(observed) };
        observed.has_base = true;
        for name in list(&base).map_err(|source| at("list", &self.base_path(""), source))? {
            match name.parse::<u64>() {
                Ok(generation) => {
                    observed.generations.insert(generation);
                }
                Err(_) if name != CURRENT => observed.leftovers.push(name),
                Err(_) => {}
            }
        }
        observed.current = link_target(&base, CURRENT).and_then(|target| target.parse().ok());
        observed.current = observed.current.filter(|current| observed.generations.contains(current));
        if let Some(current) = observed.current {
            let generation = self.generation(&base, &current.to_string())?;
            observed.current_files = list(&generation).map_err(|source| at("list", &self.path, source))?;
        }
        for name in &observed.current_files {
            observed.live.insert(name.clone(), self.live(name)?);
        }
        Ok(observed)
    }

    /// What is visible under a name.
    pub(super) fn live(&self, name: &str) -> Result<Live, TreeError> {
        let stat = match statat(&self.dir, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => stat,
            Err(Errno::NOENT) => return Ok(Live::Missing),
            Err(source) => return Err(at("look at", &self.file_path(name), source)),
        };
        Ok(match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => Live::Regular,
            FileType::Symlink if link_target(&self.dir, name) == Some(link(name)) => Live::Ours,
            FileType::Symlink => Live::Foreign("a symbolic link".to_owned()),
            FileType::Directory => Live::Foreign("a directory".to_owned()),
            FileType::Fifo => Live::Foreign("a FIFO".to_owned()),
            FileType::Socket => Live::Foreign("a socket".to_owned()),
            FileType::CharacterDevice | FileType::BlockDevice | FileType::Unknown => {
                Live::Foreign("a device".to_owned())
            }
        })
    }

    /// Reads a visible file: our link's target, or a regular file. `None` for everything else, also for what somebody put into a
    /// generation and no service could read: a directory, a link, a file without end.
    pub(super) fn read(&self, name: &str) -> Result<Option<(Vec<u8>, Stat)>, TreeError> {
        let path = self.file_path(name);
        match self.live(name)? {
            Live::Regular => read_file(&self.dir, name, &path).map(Some),
            Live::Ours => {
                let read = self.base().and_then(|base| {
                    let Some(current) = link_target(&base, CURRENT) else { return Ok(None) };
                    read_file(&self.generation(&base, &current)?, name, &path).map(Some)
                });
                match read {
                    Err(error) if error.is_missing() || error.is_another_kind() => Ok(None),
                    read => read,
                }
            }
            Live::Missing | Live::Foreign(_) => Ok(None),
        }
    }

    /// Reads a name's file in every generation that is kept.
    pub(super) fn read_kept(&self, name: &str) -> Result<Vec<Vec<u8>>, TreeError> {
        let mut kept = Vec::new();
        let Some(base) = self.base_if_there()? else { return Ok(kept) };
        for inside in list(&base).map_err(|source| at("list", &self.base_path(""), source))? {
            if inside.parse::<u64>().is_err() {
                continue;
            }
            match read_file(&self.generation(&base, &inside)?, name, &self.base_path(&format!("{inside}/{name}"))) {
                Ok((bytes, _)) => kept.push(bytes),
                Err(error) if error.is_missing() => {}
                Err(error) => return Err(error),
            }
        }
        Ok(kept)
    }

    /// Performs one step; it may have been performed before.
    pub(super) fn perform(&self, step: &Step, files: &[NewFile]) -> Result<(), TreeError> {
        match step {
            Step::MakeBase => {
                self.enter(BASE)?;
                self.sync(&self.dir)
            }
            Step::Clear(name) => self.remove_inside(name),
            Step::MakeStage(stage) => {
                self.remove_inside(stage)?;
                open_dir(&self.base()?, stage, &self.base_path(stage), true).map(drop)
            }
            Step::CopyLive { stage, name } => {
                let (bytes, stat) = read_file(&self.dir, name, &self.file_path(name))?;
                self.write(stage, &copied(name, bytes, &stat))
            }
            Step::CopyKept { stage, generation, name } => {
                let from = self.generation(&self.base()?, &generation.to_string())?;
                let (bytes, stat) = read_file(&from, name, &self.base_path(name))?;
                self.write(stage, &copied(name, bytes, &stat))
            }
            Step::Write { stage, index } => files.get(*index).map_or(Ok(()), |file| self.write(stage, file)),
            Step::Commit { stage, generation } => self.commit(stage, *generation),
            Step::Link(name) => self.replace_link(&self.dir, name, &link(name)),
            Step::Switch(generation) => self.replace_link(&self.base()?, CURRENT, &generation.to_string()),
            Step::Unlink(name) => self.unlink_ours(name).map(drop),
            Step::Prune(generation) => self.remove_inside(&generation.to_string()),
        }
    }

    /// After a failure: removes stages and links that point at nothing.
    pub(super) fn tidy(&self, steps: &[Step]) {
        for step in steps {
            // Best effort: what stays is cleared by the next attempt.
            match step {
                Step::MakeStage(stage) => drop(self.remove_inside(stage)),
                Step::Link(name) if matches!(self.read(name), Ok(None)) => drop(self.unlink_ours(name)),
                _ => {}
            }
        }
    }

    /// Removes our link, and nothing else, under a name; returns whether there was one.
    pub(super) fn unlink_ours(&self, name: &str) -> Result<bool, TreeError> {
        if self.live(name)? != Live::Ours {
            return Ok(false);
        }
        unlinkat(&self.dir, name, AtFlags::empty()).map_err(|source| at("remove", &self.file_path(name), source))?;
        self.sync(&self.dir)?;
        Ok(true)
    }

    /// Removes names from every generation, and all generations if no link leads into them any more. The names' links
    /// must be gone.
    pub(super) fn forget(&self, names: &[String]) -> Result<(), TreeError> {
        let Some(base) = self.base_if_there()? else { return Ok(()) };
        if !self.has_links()? {
            return self.remove_base(&base);
        }
        for inside in list(&base).map_err(|source| at("list", &self.base_path(""), source))? {
            if inside.parse::<u64>().is_ok() {
                self.remove_from(&self.generation(&base, &inside)?, &inside, names)?;
            } else if inside != CURRENT {
                self.remove_inside(&inside)?;
            }
        }
        Ok(())
    }

    fn remove_from(&self, generation: &OwnedFd, number: &str, names: &[String]) -> Result<(), TreeError> {
        for name in names {
            match unlinkat(generation, name, AtFlags::empty()) {
                Ok(()) | Err(Errno::NOENT) => {}
                Err(source) => return Err(at("remove", &self.base_path(&format!("{number}/{name}")), source)),
            }
        }
        self.sync(generation)
    }

    /// Whether a link of ours leads to a file. One that leads nowhere was left by a crash and is removed.
    fn has_links(&self) -> Result<bool, TreeError> {
        let mut found = false;
        for name in list(&self.dir).map_err(|source| at("list", &self.path, source))? {
            if self.live(&name)? != Live::Ours {
                continue;
            }
            match statat(&self.dir, &name, AtFlags::empty()) {
                Err(Errno::NOENT) => {
                    self.unlink_ours(&name)?;
                }
                Ok(_) | Err(_) => found = true,
            }
        }
        Ok(found)
    }

    fn remove_base(&self, base: &OwnedFd) -> Result<(), TreeError> {
        for name in list(base).map_err(|source| at("list", &self.base_path(""), source))? {
            self.remove_inside(&name)?;
        }
        unlinkat(&self.dir, BASE, AtFlags::REMOVEDIR).map_err(|source| at("remove", &self.base_path(""), source))?;
        self.sync(&self.dir)
    }

    /// Replaces a small public file atomically, mode 0644.
    pub(crate) fn publish(&self, name: &str, bytes: &[u8]) -> Result<(), TreeError> {
        let temporary = format!(".{name}.new");
        let file = NewFile { name: temporary.clone(), mode: 0o644, owner: None, bytes: bytes.to_vec().into() };
        self.withdraw(&temporary)?;
        let written = create(&self.dir, &file).map_err(|source| at("write", &self.file_path(name), source));
        let published = written.and_then(|()| {
            let renamed = renameat(&self.dir, &temporary, &self.dir, name);
            renamed.map_err(|source| at("rename", &self.file_path(name), source))
        });
        if published.is_err() {
            // A full disk gets its part back; what matters is the error that was met first.
            self.withdraw(&temporary).ok();
        }
        published
    }

    /// Removes a file; one that is gone is fine.
    pub(crate) fn withdraw(&self, name: &str) -> Result<(), TreeError> {
        match unlinkat(&self.dir, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(source) => Err(at("remove", &self.file_path(name), source)),
        }
    }

    fn write(&self, stage: &str, file: &NewFile) -> Result<(), TreeError> {
        let stage = self.generation(&self.base()?, stage)?;
        create(&stage, file).map_err(|source| at("write", &self.file_path(&file.name), source))
    }

    fn commit(&self, stage: &str, generation: u64) -> Result<(), TreeError> {
        let base = self.base()?;
        self.sync(&self.generation(&base, stage)?)?;
        renameat(&base, stage, &base, generation.to_string())
            .map_err(|source| at("rename", &self.base_path(stage), source))?;
        self.sync(&base)
    }

    fn replace_link(&self, dir: &OwnedFd, name: &str, target: &str) -> Result<(), TreeError> {
        let temporary = format!(".{name}.certwright-new");
        let made = match unlinkat(dir, &temporary, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => symlinkat(target, dir, &temporary),
            Err(error) => Err(error),
        };
        let renamed = made.and_then(|()| renameat(dir, &temporary, dir, name));
        if renamed.is_err() {
            unlinkat(dir, &temporary, AtFlags::empty()).ok();
        }
        renamed.map_err(|source| at("link", &self.file_path(name), source))?;
        self.sync(dir)
    }

    /// Removes a stage, a generation or a stray file inside our base.
    fn remove_inside(&self, name: &str) -> Result<(), TreeError> {
        let base = self.base()?;
        let failed = |source| at("remove", &self.base_path(name), source);
        match openat2(&base, name, DIRECTORY, Mode::empty(), RESOLVE) {
            Ok(inside) => {
                for file in list(&inside).map_err(failed)? {
                    unlinkat(&inside, &file, AtFlags::empty()).map_err(failed)?;
                }
                unlinkat(&base, name, AtFlags::REMOVEDIR).map_err(failed)
            }
            Err(Errno::NOENT) => Ok(()),
            Err(Errno::NOTDIR | Errno::LOOP) => unlinkat(&base, name, AtFlags::empty()).map_err(failed),
            Err(source) => Err(failed(source)),
        }
    }

    fn base(&self) -> Result<OwnedFd, TreeError> {
        openat2(&self.dir, BASE, DIRECTORY, Mode::empty(), RESOLVE)
            .map_err(|source| at("open", &self.base_path(""), source))
    }

    fn base_if_there(&self) -> Result<Option<OwnedFd>, TreeError> {
        match self.base() {
            Ok(base) => Ok(Some(base)),
            Err(error) if error.is_missing() => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn generation(&self, base: &OwnedFd, name: &str) -> Result<OwnedFd, TreeError> {
        openat2(base, name, DIRECTORY, Mode::empty(), RESOLVE)
            .map_err(|source| at("open", &self.base_path(name), source))
    }

    fn sync(&self, dir: &OwnedFd) -> Result<(), TreeError> {
        fsync(dir).map_err(|source| at("sync", &self.path, source))
    }

    fn file_path(&self, name: &str) -> String {
        format!("{}/{name}", self.path)
    }

    fn base_path(&self, name: &str) -> String {
        format!("{}/{BASE}/{name}", self.path)
    }
}

impl TreeError {
    /// Whether the path, or a part of it, is not there.
    pub(crate) fn is_missing(&self) -> bool {
        self.source == Errno::NOENT
    }

    /// Whether there is something, and not what was looked for: no regular file or directory, or one that is too large.
    pub(super) fn is_another_kind(&self) -> bool {
        [Errno::LOOP, Errno::XDEV, Errno::NOTDIR, Errno::INVAL, Errno::FBIG].contains(&self.source)
    }

    /// Says it to people.
    pub(crate) fn problem(&self) -> Problem {
        let (reason, hint) = match self.source {
            Errno::NOSPC | Errno::DQUOT => ("DISK_FULL", "free space or inodes on that file system"),
            Errno::ROFS => (
                "READ_ONLY",
                "mount the file system writable; where the agent's unit may not write there: `certwright-agent policy install`",
            ),
            Errno::ACCESS | Errno::PERM => {
                ("NO_PERMISSION", "let the agent's user write there, or run the agent as root")
            }
            Errno::LOOP | Errno::XDEV => {
                ("SYMLINK", "the agent follows no symbolic link: name the real directory in policy and target")
            }
            Errno::NOTDIR => ("NOT_A_DIRECTORY", "choose a directory, or remove the file that stands in its place"),
            Errno::NOENT => ("PARENT_MISSING", "make the parent directory first: the agent makes only the last part"),
            Errno::IO => ("DISK_ERROR", "check the disk; the agent writes everything anew at the next attempt"),
            Errno::NOSYS => ("KERNEL_TOO_OLD", "the agent needs openat2: Linux 5.6 or newer"),
            _ => ("FILE_IO", "the files that were there are unchanged"),
        };
        Problem::new(reason, format!("{self}; no file is half-written"), self.source.to_string(), hint)
    }
}

fn parent(path: &str) -> &str {
    path.rsplit_once('/').map_or("/", |(parent, _)| if parent.is_empty() { "/" } else { parent })
}

fn is_shared(dir: &OwnedFd) -> Result<bool, Errno> {
    let stat = fstat(dir)?;
    let own = rustix::process::geteuid().as_raw();
    Ok(stat.st_mode & 0o022 != 0 || (stat.st_uid != 0 && stat.st_uid != own))
}

/// Opens a directory below another one; with `create`, makes its last part with mode 0755 if the parent exists.
fn open_dir(above: &OwnedFd, below: &str, path: &str, create: bool) -> Result<OwnedFd, TreeError> {
    let failed = |source| at("open", path, source);
    match openat2(above, below, DIRECTORY, Mode::empty(), RESOLVE) {
        Err(Errno::NOENT) if create => {}
        other => return other.map_err(failed),
    }
    let (parent, name) = below.rsplit_once('/').unwrap_or((".", below));
    let parent = openat2(above, parent, DIRECTORY, Mode::empty(), RESOLVE).map_err(failed)?;
    match mkdirat(&parent, name, Mode::from_raw_mode(0o755)) {
        Ok(()) | Err(Errno::EXIST) => {}
        Err(source) => return Err(at("make", path, source)),
    }
    let made = openat2(&parent, name, DIRECTORY, Mode::empty(), RESOLVE).map_err(failed)?;
    fchmod(&made, Mode::from_raw_mode(0o755)).map_err(failed)?;
    fsync(&parent).map_err(failed)?;
    Ok(made)
}

/// Creates a file that must not exist: owner and mode on the descriptor, then content, then fsync.
fn create(dir: &OwnedFd, file: &NewFile) -> Result<(), Errno> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let descriptor = openat2(dir, file.name.as_str(), flags, Mode::from_raw_mode(0o600), RESOLVE)?;
    if let Some((user, group)) = file.owner {
        fchown(&descriptor, Some(Uid::from_raw(user)), Some(Gid::from_raw(group)))?;
    }
    fchmod(&descriptor, Mode::from_raw_mode(file.mode))?;
    let mut descriptor = File::from(descriptor);
    descriptor.write_all(&file.bytes).map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))?;
    fsync(&descriptor)
}

fn read_file(dir: &OwnedFd, name: &str, path: &str) -> Result<(Vec<u8>, Stat), TreeError> {
    let failed = |source| at("read", path, source);
    let descriptor = openat2(dir, name, SOURCE, Mode::empty(), RESOLVE).map_err(failed)?;
    let stat = fstat(&descriptor).map_err(failed)?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Err(failed(Errno::INVAL));
    }
    if u64::try_from(stat.st_size).unwrap_or(u64::MAX) > FILE_BYTES_MAX {
        return Err(failed(Errno::FBIG));
    }
    let mut bytes = Vec::new();
    let read = File::from(descriptor).take(FILE_BYTES_MAX).read_to_end(&mut bytes);
    read.map_err(|error| failed(Errno::from_io_error(&error).unwrap_or(Errno::IO)))?;
    Ok((bytes, stat))
}

fn copied(name: &str, bytes: Vec<u8>, stat: &Stat) -> NewFile {
    let owner = Some((stat.st_uid, stat.st_gid));
    NewFile { name: name.to_owned(), mode: stat.st_mode & 0o777, owner, bytes: bytes.into() }
}

fn list(dir: &OwnedFd) -> Result<Vec<String>, Errno> {
    let mut names = Vec::new();
    for entry in Dir::read_from(dir)? {
        let entry = entry?;
        let name = CStr::to_string_lossy(entry.file_name()).into_owned();
        if name != "." && name != ".." {
            names.push(name);
        }
    }
    names.sort_unstable();
    Ok(names)
}

fn link_target(dir: &OwnedFd, name: &str) -> Option<String> {
    readlinkat(dir, name, Vec::new()).ok()?.into_string().ok()
}

fn link(name: &str) -> String {
    format!("{BASE}/{CURRENT}/{name}")
}

fn at(verb: &'static str, path: &str, source: Errno) -> TreeError {
    TreeError { verb, path: path.to_owned(), source }
}
