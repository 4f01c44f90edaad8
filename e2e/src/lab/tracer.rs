//! Kills a program at its n-th system call that changes files, counted over all its threads and processes, before the call is
//! done: every state that a disk can be left in, and no other. `strace` counts for each thread alone. Used by the real tests.

use std::collections::BTreeSet;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::thread::JoinHandle;

use anyhow::{Context as _, ensure};
use nix::errno::Errno;
use nix::libc;
use nix::sys::ptrace::{self, Options};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

/// Longest path that is read.
const PATH_BYTES_MAX: usize = 256;
/// What every call that changes a file has first: a descriptor, a path, or a descriptor and a path.
#[derive(Clone, Copy, Debug)]
enum Subject {
    Descriptor,
    Path,
    At,
}

/// The calls, with their names. One that opens counts when it may create.
const CALLS: &[(libc::c_long, &str, Subject)] = &[
    (libc::SYS_write, "write", Subject::Descriptor),
    (libc::SYS_writev, "writev", Subject::Descriptor),
    (libc::SYS_fsync, "fsync", Subject::Descriptor),
    (libc::SYS_fdatasync, "fdatasync", Subject::Descriptor),
    (libc::SYS_ftruncate, "ftruncate", Subject::Descriptor),
    (libc::SYS_fchmod, "fchmod", Subject::Descriptor),
    (libc::SYS_fchown, "fchown", Subject::Descriptor),
    (libc::SYS_copy_file_range, "copy_file_range", Subject::Descriptor),
    (libc::SYS_openat, "openat", Subject::At),
    (libc::SYS_openat2, "openat2", Subject::At),
    (libc::SYS_mkdirat, "mkdirat", Subject::At),
    (libc::SYS_unlinkat, "unlinkat", Subject::At),
    (libc::SYS_symlinkat, "symlinkat", Subject::Path),
    (libc::SYS_linkat, "linkat", Subject::At),
    (libc::SYS_renameat, "renameat", Subject::At),
    (libc::SYS_renameat2, "renameat2", Subject::At),
    (libc::SYS_fchmodat, "fchmodat", Subject::At),
    (libc::SYS_fchownat, "fchownat", Subject::At),
    (libc::SYS_rename, "rename", Subject::Path),
    (libc::SYS_link, "link", Subject::Path),
    (libc::SYS_symlink, "symlink", Subject::Path),
    (libc::SYS_unlink, "unlink", Subject::Path),
    (libc::SYS_mkdir, "mkdir", Subject::Path),
    (libc::SYS_rmdir, "rmdir", Subject::Path),
    (libc::SYS_chmod, "chmod", Subject::Path),
    (libc::SYS_chown, "chown", Subject::Path),
];

/// A tracer that watches until the last of its processes has ended.
#[derive(Debug)]
pub struct Tracer {
    thread: JoinHandle<anyhow::Result<Vec<String>>>,
}

impl Tracer {
    /// Watches these processes, and kills all of them at the `nth` call (from 1). Returns once it does.
    pub fn start(pids: &[u32], nth: usize) -> anyhow::Result<Self> {
        let pids: Vec<Pid> =
            pids.iter().map(|pid| Ok(Pid::from_raw(i32::try_from(*pid)?))).collect::<anyhow::Result<_>>()?;
        let (ready, watches) = std::sync::mpsc::channel();
        // Whoever seizes a thread is the only one who may go on with it.
        let thread = std::thread::spawn(move || {
            let threads = seize(&pids);
            let seized = threads.as_ref().map(drop).map_err(|error| format!("{error:#}"));
            // The other end waits for it.
            ready.send(seized).ok();
            watch(&pids, nth, threads?)
        });
        let seized = watches.recv().context("the tracer ended")?;
        ensure!(seized.is_ok(), "cannot trace: {seized:?}");
        Ok(Self { thread })
    }

    /// Whether all the processes have ended.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.thread.is_finished()
    }

    /// Waits for the end of the processes; returns the calls that were begun, the one that was cut last.
    pub fn calls(self) -> anyhow::Result<Vec<String>> {
        self.thread.join().ok().context("the tracer panicked")?
    }
}

/// Seizes every thread of the processes and asks each to stop.
fn seize(pids: &[Pid]) -> anyhow::Result<BTreeSet<Pid>> {
    let options = Options::PTRACE_O_TRACESYSGOOD | Options::PTRACE_O_TRACECLONE;
    let mut threads = BTreeSet::new();
    // Threads may begin meanwhile: until there is none that is new.
    loop {
        let before = threads.len();
        for pid in pids {
            for entry in std::fs::read_dir(format!("/proc/{pid}/task"))? {
                let thread = Pid::from_raw(entry?.file_name().to_string_lossy().parse()?);
                if threads.contains(&thread) {
                    continue;
                }
                match ptrace::seize(thread, options).and_then(|()| ptrace::interrupt(thread)) {
                    // It ended, or began as a child of a thread that is watched already.
                    Err(Errno::ESRCH | Errno::EPERM) => {}
                    seized => seized.with_context(|| format!("thread {thread}"))?,
                }
                threads.insert(thread);
            }
        }
        if threads.len() == before {
            return Ok(threads);
        }
    }
}

fn watch(pids: &[Pid], nth: usize, _threads: BTreeSet<Pid>) -> anyhow::Result<Vec<String>> {
    let mut calls = Vec::new();
    loop {
        // Only what this thread traces: other threads wait for their own children.
        let status = match waitpid(None, Some(WaitPidFlag::__WALL | WaitPidFlag::__WNOTHREAD)) {
            Err(Errno::ECHILD) => return Ok(calls),
            Err(Errno::EINTR) => continue,
            status => status?,
        };
        let (thread, signal) = match status {
            WaitStatus::PtraceSyscall(thread) => {
                if let Some(call) = changing_call(thread) {
                    calls.push(call);
                    if calls.len() == nth {
                        // Stopped before the call: it is never done.
                        pids.iter().for_each(|pid| kill(*pid, Signal::SIGKILL).unwrap_or_default());
                    }
                }
                (thread, None)
            }
            WaitStatus::PtraceEvent(thread, _, _) => (thread, None),
            WaitStatus::Stopped(thread, signal) => (thread, Some(signal)),
            _ => continue,
        };
        match ptrace::syscall(thread, signal) {
            Ok(()) | Err(Errno::ESRCH) => {}
            Err(error) => return Err(error).context("go on with a thread"),
        }
    }
}

/// The call that a stopped thread is about to do, if it changes a file. A thread that is killed meanwhile has none.
fn changing_call(thread: Pid) -> Option<String> {
    let entry = ptrace::syscall_info(thread).ok()?.op == libc::PTRACE_SYSCALL_INFO_ENTRY;
    let (number, arguments) = registers(thread).filter(|_| entry)?;
    let (_, name, subject) = CALLS.iter().find(|(call, _, _)| *call == number)?;
    let descriptor = || std::fs::read_link(format!("/proc/{thread}/fd/{}", arguments[0])).ok();
    let on_disk =
        |path: &std::path::Path| path.is_absolute() && !path.starts_with("/dev") && !path.starts_with("/proc");
    let path = match subject {
        Subject::Descriptor => descriptor()?.to_str().filter(|path| on_disk(path.as_ref()))?.to_owned(),
        Subject::Path => text_at(thread, arguments[0]).ok()?,
        Subject::At => text_at(thread, arguments[1]).ok()?,
    };
    let flags = match *name {
        "openat" => Some(arguments[2]),
        "openat2" => Some(u64::from_ne_bytes(bytes_at(thread, arguments[2], 8).ok()?.try_into().ok()?)),
        _ => None,
    };
    let creates = |flags: u64| flags & u64::try_from(libc::O_CREAT).unwrap_or_default() != 0;
    flags.is_none_or(creates).then(|| format!("{name} {path}"))
}

#[cfg(target_arch = "x86_64")]
fn registers(thread: Pid) -> Option<(libc::c_long, [u64; 3])> {
    let registers = ptrace::getregs(thread).ok()?;
    Some((libc::c_long::try_from(registers.orig_rax).ok()?, [registers.rdi, registers.rsi, registers.rdx]))
}

fn text_at(thread: Pid, address: u64) -> io::Result<String> {
    let bytes = bytes_at(thread, address, PATH_BYTES_MAX)?;
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    Ok(String::from_utf8_lossy(bytes.get(..end).unwrap_or_default()).into_owned())
}

fn bytes_at(thread: Pid, address: u64, length: usize) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; length];
    let read = std::fs::File::open(format!("/proc/{thread}/mem"))?.read_at(&mut bytes, address)?;
    bytes.truncate(read);
    Ok(bytes)
}
