//! The process `certwright`: the only place that reads the environment and the terminal's state. Everything else is
//! given to `tui::cli`. It never decides anything by itself.

use std::collections::BTreeMap;
use std::io::IsTerminal as _;
use std::process::ExitCode;
use std::sync::Arc;

use proto::clock::SystemClock;
use tokio::io::BufReader;
use tui::cli::{self, Console, Outcome};
use tui::run;

/// What `doctor` explains, the dashboard follows and contexts are found by; nothing else is taken from the environment.
const VARIABLES: [&str; 14] = [
    "TERM",
    "LC_ALL",
    "LC_CTYPE",
    "LANG",
    "TMUX",
    "NO_COLOR",
    "COLORTERM",
    "SSH_CONNECTION",
    "CERTWRIGHT_ASCII",
    "CERTWRIGHT_LINK",
    "CERTWRIGHT_TEST_TITLE",
    "CERTWRIGHT_CONTEXT",
    "HOME",
    "XDG_CONFIG_HOME",
];

/// Width of a terminal that does not tell.
const COLUMNS_DEFAULT: u16 = 80;

fn main() -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let outcome = runtime.block_on(async { cli::run(std::env::args_os(), &mut console()).await });
    let status = match outcome {
        Outcome::Exit(code) => Ok(ExitCode::from(code)),
        Outcome::Dashboard(client, contexts) => {
            runtime.block_on(run::run(run::Options { client, contexts, variables: variables() }))
        }
    };
    // An interrupted question leaves a thread reading standard input behind: do not wait for it.
    runtime.shutdown_background();
    status
}

fn console() -> Console {
    let on_terminal = std::io::stdout().is_terminal();
    Console {
        clock: Arc::new(SystemClock),
        out: Box::new(std::io::stdout()),
        err: Box::new(std::io::stderr()),
        answers: std::io::stdin().is_terminal().then(|| -> Box<dyn tokio::io::AsyncBufRead + Send + Unpin> {
            Box::new(BufReader::new(tokio::io::stdin()))
        }),
        width: on_terminal.then(|| crossterm::terminal::size().map_or(COLUMNS_DEFAULT, |(columns, _)| columns)),
        variables: variables(),
    }
}

#[allow(clippy::disallowed_methods, reason = "main reads the environment once and hands it on")]
fn variables() -> BTreeMap<String, String> {
    VARIABLES.iter().filter_map(|&name| Some((name.to_owned(), std::env::var(name).ok()?))).collect()
}
