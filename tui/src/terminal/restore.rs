//! Leaves the terminal as it was, on every road out: normal end, error, panic in any thread, signals, hang-up.
//! One idempotent function, `leave`, callable from any thread; it never blocks on a terminal that takes no bytes.
//! Called by `terminal`, the panic hook and the signal thread.

use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::AsFd as _;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcsetattr};

/// Alternate screen, bracketed paste, focus reports; nothing else, because all of it must be undone by a dying process.
const ENTER: &str = "\x1b[?1049h\x1b[?2004h\x1b[?1004h";
/// Undoes `ENTER`, an open synchronized update, mouse modes a child may have left, the hidden cursor and colours.
const LEAVE: &str =
    "\x1b[?2026l\x1b[?1004l\x1b[?2004l\x1b[?1000l\x1b[?1002l\x1b[?1003l\x1b[?1006l\x1b[m\x1b[?1049l\x1b[?25h\x1b[m";
/// How long a dying process waits for a terminal that takes no bytes.
const DRAIN_MAX: Timespec = Timespec { tv_sec: 0, tv_nsec: 200_000_000 };

#[derive(Debug)]
struct Saved {
    tty: File,
    termios: Termios,
}

static SAVED: OnceLock<Saved> = OnceLock::new();
static ENTERED: AtomicBool = AtomicBool::new(false);

/// Remembers the terminal's settings, switches to raw mode and to the alternate screen.
///
/// # Errors
/// When standard output is no terminal or cannot be set.
pub(crate) fn enter() -> io::Result<()> {
    let saved = saved()?;
    let mut raw = saved.termios.clone();
    raw.make_raw();
    ENTERED.store(true, Ordering::SeqCst);
    tcsetattr(&saved.tty, OptionalActions::Now, &raw)?;
    (&saved.tty).write_all(ENTER.as_bytes())
}

fn saved() -> io::Result<&'static Saved> {
    if let Some(saved) = SAVED.get() {
        return Ok(saved);
    }
    let tty = File::from(io::stdout().as_fd().try_clone_to_owned()?);
    let termios = tcgetattr(&tty)?;
    Ok(SAVED.get_or_init(|| Saved { tty, termios }))
}

/// Puts the terminal back if `enter` changed it. Errors are not reported: nobody could read them.
pub(crate) fn leave() {
    if !ENTERED.swap(false, Ordering::SeqCst) {
        return;
    }
    let Some(saved) = SAVED.get() else { return };
    let mut ready = [PollFd::new(&saved.tty, PollFlags::OUT)];
    if poll(&mut ready, Some(&DRAIN_MAX)).is_ok_and(|count| count > 0) {
        drop((&saved.tty).write_all(LEAVE.as_bytes()));
    }
    tcsetattr(&saved.tty, OptionalActions::Now, &saved.termios).unwrap_or_default();
}

/// Returns a second handle on the terminal, for frames.
///
/// # Errors
/// When standard output is no terminal.
pub(crate) fn tty() -> io::Result<File> {
    saved()?.tty.try_clone()
}

/// Waits until the terminal has hung up. Blocks: for a thread of its own.
pub(crate) fn wait_for_hang_up() -> io::Result<()> {
    let tty = tty()?;
    loop {
        let mut ready = [PollFd::new(&tty, PollFlags::empty())];
        match poll(&mut ready, None) {
            Ok(_) if ready.iter().any(|fd| fd.revents().intersects(PollFlags::HUP | PollFlags::ERR)) => return Ok(()),
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
}
