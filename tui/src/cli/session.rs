//! One command's client, format and console together. Holds what every noun needs and nothing of any noun.

use std::io::Read as _;
use std::time::Duration;

use jiff::Timestamp;

use super::Console;
use crate::client::{Client, ClientError, ErrorKind};
use crate::output::table::Table;
use crate::output::{Format, time};

/// What `--wait` without a time waits for.
pub(super) const WAIT_DEFAULT: &str = "5m";
/// Longest secret that is read.
const SECRET_BYTES_MAX: u64 = 4_096;
/// Rows asked for at once.
pub(super) const PAGE_SIZE: u32 = 200;

#[derive(Debug)]
pub(crate) struct Session<'a> {
    pub(crate) client: Client,
    pub(crate) format: Format,
    pub(crate) console: &'a mut Console,
}

impl Session<'_> {
    pub(crate) fn now(&self) -> Timestamp {
        self.console.now()
    }

    /// Prints a list in the format asked for.
    pub(crate) fn list(
        &mut self,
        names: impl FnOnce() -> Vec<String>,
        json: impl FnOnce() -> String,
        table: impl FnOnce(Timestamp, bool) -> Table,
    ) -> Result<(), ClientError> {
        let text = match self.format {
            Format::Json => json(),
            Format::Name => names().iter().map(|name| format!("{}\n", crate::output::safe(name))).collect(),
            Format::Wide => table(self.now(), true).render(None),
            Format::Table => table(self.now(), false).render(self.console.width),
        };
        self.console.print(&text)
    }

    /// Prints one record in the format asked for.
    pub(crate) fn record(
        &mut self,
        name: &str,
        json: impl FnOnce() -> String,
        text: impl FnOnce(Timestamp) -> String,
    ) -> Result<(), ClientError> {
        let text = match self.format {
            Format::Json => json(),
            Format::Name => format!("{}\n", crate::output::safe(name)),
            Format::Wide | Format::Table => text(self.now()),
        };
        self.console.print(&text)
    }
}

/// How long to follow a job.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct WaitOptions {
    /// Follow the job to its end, for 5m or the time given
    #[arg(long, value_name = "TIME", num_args = 0..=1, require_equals = true,
          default_missing_value = WAIT_DEFAULT, value_parser = time::parse_duration)]
    pub(crate) wait: Option<Duration>,
}

/// An option that does not fit the rest of the command.
pub(super) fn invalid(message: &str, hint: &str) -> ClientError {
    ClientError::local(ErrorKind::Invalid, "OPTION_INVALID", message, "", hint)
}

/// Reads a secret from where an option says: `@FILE`, or `-` for standard input. Among the words of a command it would stand in the
/// process list.
///
/// # Errors
/// When it is a word, cannot be read, or is empty.
pub(super) fn secret(option: &str, what: &str, place: &str) -> Result<String, ClientError> {
    let unreadable = |cause: &str| {
        let hint = format!("write --{option} @FILE, or --{option} - and give it on standard input");
        ClientError::local(ErrorKind::Invalid, "SECRET_UNREADABLE", &format!("{what} could not be read"), cause, &hint)
    };
    let mut text = String::new();
    let read = match (place, place.strip_prefix('@')) {
        ("-", _) => std::io::stdin().take(SECRET_BYTES_MAX).read_to_string(&mut text),
        (_, Some(path)) => {
            std::fs::File::open(path).and_then(|file| file.take(SECRET_BYTES_MAX).read_to_string(&mut text))
        }
        (_, None) => return Err(unreadable("it was given as a word, which everyone on this host can read")),
    };
    read.map_err(|error| unreadable(&error.to_string()))?;
    match text.trim() {
        "" => Err(unreadable("it is empty")),
        key => Ok(key.to_owned()),
    }
}
