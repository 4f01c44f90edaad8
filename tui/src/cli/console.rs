//! Where a command reads and writes: data on stdout, everything else on stderr, answers only from a terminal.
//! Tests give it buffers and a fixed clock; `main` gives it the process' own. It never decides what is said.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{ErrorKind as IoKind, Write};
use std::sync::Arc;

use jiff::Timestamp;
use proto::clock::Clock;
use tokio::io::{AsyncBufRead, AsyncBufReadExt as _, AsyncReadExt as _};

use crate::client::{ClientError, ErrorKind};

/// Longest answer that is read from the terminal.
const ANSWER_BYTES_MAX: u64 = 4_096;

/// The outside of one command.
pub struct Console {
    /// Tells the wall time.
    pub clock: Arc<dyn Clock>,
    /// Data, and nothing else.
    pub out: Box<dyn Write + Send>,
    /// Progress, warnings, errors, questions.
    pub err: Box<dyn Write + Send>,
    /// The operator's answers; `None` when standard input is no terminal: nothing is asked then.
    pub answers: Option<Box<dyn AsyncBufRead + Send + Unpin>>,
    /// Columns of the terminal on stdout; `None` when stdout is no terminal: tables are not cut then.
    pub width: Option<u16>,
    /// The variables `doctor` explains (TERM, LANG, TMUX …) and contexts are found by (HOME …), read once in `main`.
    pub variables: BTreeMap<String, String>,
}

impl fmt::Debug for Console {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Console").field("width", &self.width).finish_non_exhaustive()
    }
}

impl Console {
    pub(crate) fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// Writes data. A reader that went away (`| head`) is no error.
    pub(crate) fn print(&mut self, text: &str) -> Result<(), ClientError> {
        self.print_bytes(text.as_bytes())
    }

    /// Writes data that is no text.
    pub(crate) fn print_bytes(&mut self, bytes: &[u8]) -> Result<(), ClientError> {
        match self.out.write_all(bytes).and_then(|()| self.out.flush()) {
            Err(error) if error.kind() != IoKind::BrokenPipe => Err(ClientError::local(
                ErrorKind::Failed,
                "OUTPUT_FAILED",
                "the output could not be written",
                &error.to_string(),
                "check where standard output goes: is the disk full?",
            )),
            _ => Ok(()),
        }
    }

    /// Writes one line for people. If even that fails there is nobody left to tell.
    pub(crate) fn note(&mut self, line: &str) {
        writeln!(self.err, "{line}").and_then(|()| self.err.flush()).unwrap_or_default();
    }

    /// Asks on the terminal and returns the line typed; `None` when there is no terminal to ask on.
    pub(crate) async fn ask(&mut self, question: &str) -> Option<String> {
        let answers = self.answers.as_mut()?;
        write!(self.err, "{question}").and_then(|()| self.err.flush()).unwrap_or_default();
        let mut line = String::new();
        answers.take(ANSWER_BYTES_MAX).read_line(&mut line).await.ok()?;
        Some(line.trim().to_owned())
    }
}
