//! Ends the process properly when something outside ends it: the terminal is put back first, then the signal has its
//! usual effect, so the shell sees the usual status. Any panic is fatal, in whichever thread. Called once, by `terminal`.

use std::backtrace::Backtrace;
use std::io;
use std::panic::PanicHookInfo;
use std::thread;

use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM};
use signal_hook::iterator::Signals;
use signal_hook::low_level::{emulate_default_handler, exit};

use super::restore;

/// What a Rust program's panic exits with.
const PANIC_STATUS: i32 = 101;
/// What the shell shows for a process that SIGHUP ended.
const HANG_UP_STATUS: i32 = 129;

/// Starts the signal thread and the hang-up watchdog and installs the panic hook.
///
/// # Errors
/// When a thread cannot be started or a handler cannot be installed.
pub(crate) fn guard() -> io::Result<()> {
    let previous = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        restore::leave();
        report(info, &*previous);
        exit(PANIC_STATUS);
    }));
    let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP, SIGQUIT])?;
    thread::Builder::new().name("signals".to_owned()).spawn(move || {
        if let Some(signal) = signals.forever().next() {
            restore::leave();
            drop(emulate_default_handler(signal));
            exit(128_i32.saturating_add(signal));
        }
    })?;
    // SIGHUP may be ignored (nohup, sudo): crossterm's reader would then spin on the end of its input.
    thread::Builder::new().name("hang-up".to_owned()).spawn(|| {
        if restore::wait_for_hang_up().is_ok() {
            restore::leave();
            exit(HANG_UP_STATUS);
        }
    })?;
    Ok(())
}

fn report(info: &PanicHookInfo<'_>, previous: &(dyn Fn(&PanicHookInfo<'_>) + Send + Sync)) {
    previous(info);
    let backtrace = Backtrace::force_capture();
    #[allow(clippy::print_stderr, reason = "the terminal has been put back and the process ends here")]
    {
        eprintln!("certwright {} stopped on a bug; nothing on the controller is affected.", env!("CARGO_PKG_VERSION"));
        eprintln!("Please report the lines above and these:\n{backtrace}");
    }
}
