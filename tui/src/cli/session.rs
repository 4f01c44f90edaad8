//! One command's client, format and console together. Holds what every noun needs and nothing of any noun.

use std::time::Duration;

use jiff::Timestamp;

use super::Console;
use crate::client::{Client, ClientError, ErrorKind};
use crate::output::table::Table;
use crate::output::{Format, time};

/// What `--wait` without a time waits for.
pub(super) const WAIT_DEFAULT: &str = "5m";
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
