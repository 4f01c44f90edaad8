//! What the program knows by itself: its version, completions, manual pages. Needs no controller.

use std::path::Path;

use clap::CommandFactory as _;
use clap_complete::Shell;
use serde::Serialize;

use super::{Cli, Session};
use crate::client::{ClientError, ErrorKind};
use crate::output::{self, Format};

const PROGRAM: &str = "certwright";
const VERSION: &str = env!("CARGO_PKG_VERSION");

#[derive(Serialize)]
struct VersionView<'a> {
    client: &'a str,
    controller: Option<&'a str>,
}

/// Prints both versions. A controller that cannot be reached is told, and is no failure.
pub(super) async fn version(session: &mut Session<'_>) -> Result<(), ClientError> {
    let controller = session.client.whoami(Default::default()).await;
    let controller = controller.map(|whoami| output::safe(&whoami.controller_version));
    let text = match (session.format, &controller) {
        (Format::Json, found) => {
            let controller = found.as_deref().ok();
            output::json(Some("Version"), VersionView { client: VERSION, controller })
        }
        (Format::Name, _) => format!("{VERSION}\n"),
        (Format::Table | Format::Wide, Ok(found)) => format!("{PROGRAM}  {VERSION}\ncontroller  {found}\n"),
        (Format::Table | Format::Wide, Err(_)) => format!("{PROGRAM}  {VERSION}\ncontroller  unknown\n"),
    };
    if let Err(error) = &controller {
        session.console.note(&output::failure::text(error).replacen("error:", "note:", 1));
    }
    session.console.print(&text)
}

/// Prints a completion script for `shell`.
pub(super) fn completion(shell: Shell, session: &mut Session<'_>) -> Result<(), ClientError> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), PROGRAM, &mut script);
    session.console.print(&String::from_utf8_lossy(&script))
}

/// Prints the manual page of the program, or writes one page per command below `dir`.
pub(super) fn man(dir: Option<&Path>, session: &mut Session<'_>) -> Result<(), ClientError> {
    let Some(dir) = dir else {
        let mut page = Vec::new();
        let rendered = clap_mangen::Man::new(Cli::command()).render(&mut page);
        rendered.map_err(|error| unwritable("the manual page", &error))?;
        return session.console.print(&String::from_utf8_lossy(&page));
    };
    let written = std::fs::create_dir_all(dir).and_then(|()| clap_mangen::generate_to(Cli::command(), dir));
    written.map_err(|error| unwritable(&format!("manual pages below {}", dir.display()), &error))
}

fn unwritable(what: &str, error: &std::io::Error) -> ClientError {
    let message = format!("{what} could not be written");
    let hint = "check that the directory given with --out can be written to";
    ClientError::local(ErrorKind::Failed, "OUTPUT_FAILED", &message, &error.to_string(), hint)
}
