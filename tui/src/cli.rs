//! The command line: one tree of nouns and verbs (design.md §7), one exit code per outcome (tui.md §5.2).
//! It asks the controller and prints; it decides nothing about certificates. Called by `main` and by the tests.

mod agents;
mod audit;
mod backup;
mod certs;
mod challenges;
mod confirm;
mod console;
mod context;
mod doctor;
mod identity_ca;
mod issuers;
mod jobs;
mod local;
mod login;
mod operators;
mod pause;
mod restore;
mod save;
mod session;
mod target_options;
mod targets;
mod wait;

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use clap::{CommandFactory as _, Parser, Subcommand};

pub use console::Console;
use session::Session;

use crate::client::{Client, ClientError, Contexts, ErrorKind, SOCKET_DEFAULT};
use crate::output::{self, Format, failure};

/// Operates a certwright controller: without a subcommand on a terminal, the dashboard.
#[derive(Debug, Parser)]
#[command(name = "certwright", version, disable_help_subcommand = true, after_help = AFTER_HELP)]
pub(crate) struct Cli {
    /// The controller's Unix socket [default: the context in use, else /run/certwright/controller.sock]
    #[arg(long, global = true, value_name = "PATH", help_heading = GLOBAL)]
    socket: Option<PathBuf>,
    /// The controller of this context: see `context ls` (also: CERTWRIGHT_CONTEXT)
    #[arg(long, global = true, value_name = "NAME", conflicts_with = "socket", help_heading = GLOBAL)]
    context: Option<String>,
    /// How to print the answer
    #[arg(short, long, global = true, value_enum, value_name = "FORMAT", default_value_t = Format::Table, help_heading = GLOBAL)]
    output: Format,
    #[command(subcommand)]
    verb: Option<Verb>,
}

const GLOBAL: &str = "Global options";
const AFTER_HELP: &str = "Exit codes: 0 done, 1 failed, 2 usage or not valid, 3 not found, 4 not allowed, \
5 changed meanwhile, 6 partly done, 7 controller not reachable, 9 refused by the guard, 124 timed out, 130 interrupted";

#[derive(Debug, Subcommand)]
enum Verb {
    /// Shows the fleet: counts, and what needs attention
    Status,
    /// Shows who the controller takes you for
    Whoami,
    /// Shows the versions of this program and of the controller
    Version,
    /// Checks the connection and the terminal, and says what to change
    Doctor,
    /// Prints a completion script
    Completion { shell: clap_complete::Shell },
    /// Prints the manual page, or writes one per command
    Man {
        /// Directory to write into
        #[arg(long, value_name = "DIR")]
        out: Option<PathBuf>,
    },
    /// Logs in to a controller elsewhere with an owner's invitation
    Login(login::Login),
    /// The controllers that you work with
    #[command(subcommand)]
    Context(context::Verb),
    /// Holds everything still: no orders, no deployments
    Pause(pause::PauseAll),
    /// Lifts the pause of everything
    Resume(pause::ResumeAll),
    /// Certificates
    #[command(subcommand, visible_alias = "cert")]
    Certs(certs::Verb),
    /// Where certificates are deployed
    #[command(subcommand, visible_alias = "target")]
    Targets(targets::Verb),
    /// What proves to a CA that names are yours
    #[command(subcommand, visible_alias = "challenge")]
    Challenges(challenges::Verb),
    /// Agents on the servers
    #[command(subcommand, visible_alias = "agent")]
    Agents(agents::Verb),
    /// Certificate authorities
    #[command(subcommand, visible_alias = "issuer")]
    Issuers(issuers::Verb),
    /// People and what they may do
    #[command(subcommand, visible_alias = "operator")]
    Operators(operators::Verb),
    /// The CA of agents' and operators' identities, and its rotation
    #[command(subcommand)]
    IdentityCa(identity_ca::Verb),
    /// Who did what, when, and what came of it
    #[command(subcommand)]
    Audit(audit::Verb),
    /// Backups of the controller
    #[command(subcommand)]
    Backup(backup::Verb),
    /// A controller that was restored from a backup
    #[command(subcommand)]
    Restore(restore::Verb),
    /// Jobs: what was asked for and how it went
    #[command(subcommand, visible_alias = "job")]
    Jobs(jobs::Verb),
}

/// What `main` does next.
#[derive(Debug)]
pub enum Outcome {
    /// End with this exit code.
    Exit(u8),
    /// Start the dashboard on this connection.
    Dashboard(Client, Option<Contexts>),
}

/// Runs one command line (the program's name first). Must be called inside a tokio runtime.
pub async fn run(args: impl IntoIterator<Item = OsString>, console: &mut Console) -> Outcome {
    let cli = match Cli::try_parse_from(args) {
        Ok(cli) => cli,
        Err(error) => return Outcome::Exit(usage(&error, console)),
    };
    let (format, contexts) = (cli.output, contexts(console));
    let wants_dashboard = cli.verb.is_none();
    if wants_dashboard && (console.width.is_none() || console.answers.is_none()) {
        console.note(&Cli::command().render_help().to_string());
        console.note("error: the dashboard needs a terminal; name a command from the list above");
        return Outcome::Exit(ErrorKind::Invalid.exit_code());
    }
    // What makes, lists and removes contexts must work when the one in use does not.
    let client = match &cli.verb {
        Some(Verb::Login(_) | Verb::Context(_)) => Ok(Client::new(Path::new(SOCKET_DEFAULT))),
        _ => context::client(cli.socket, cli.context, contexts.as_ref(), console).await,
    };
    let client = match client {
        Ok(client) => client,
        Err(error) => return Outcome::Exit(report(&error, format, console)),
    };
    let Some(verb) = cli.verb else { return Outcome::Dashboard(client, contexts) };
    let mut session = Session { client, format, console };
    let done = tokio::select! {
        biased;
        interrupted = interrupted() => interrupted,
        done = dispatch(verb, contexts.as_ref(), &mut session) => done,
    };
    Outcome::Exit(done.err().map_or(0, |error| report(&error, format, console)))
}

/// Where this user's contexts are; absent without a home directory.
fn contexts(console: &Console) -> Option<Contexts> {
    let variable = |name: &str| console.variables.get(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let config = variable("XDG_CONFIG_HOME").or_else(|| variable("HOME").map(|home| home.join(".config")));
    config.map(|config| Contexts::new(config.join("certwright")))
}

async fn dispatch(verb: Verb, contexts: Option<&Contexts>, session: &mut Session<'_>) -> Result<(), ClientError> {
    match verb {
        Verb::Status => status(session).await,
        Verb::Whoami => whoami(session).await,
        Verb::Version => local::version(session).await,
        Verb::Doctor => doctor::run(session).await,
        Verb::Completion { shell } => local::completion(shell, session),
        Verb::Man { out } => local::man(out.as_deref(), session),
        Verb::Login(login) => Box::pin(login::run(login, contexts, session)).await,
        Verb::Context(verb) => context::run(verb, contexts, session),
        Verb::IdentityCa(verb) => identity_ca::run(verb, session).await,
        Verb::Operators(verb) => Box::pin(operators::run(verb, session)).await,
        Verb::Audit(verb) => Box::pin(audit::run(verb, session)).await,
        Verb::Backup(verb) => Box::pin(backup::run(verb, session)).await,
        Verb::Restore(verb) => Box::pin(restore::run(verb, session)).await,
        Verb::Pause(all) => pause::pause_all(all, session).await,
        Verb::Resume(all) => pause::resume_all(all, session).await,
        Verb::Certs(verb) => Box::pin(certs::run(verb, session)).await,
        Verb::Targets(verb) => Box::pin(targets::run(verb, session)).await,
        Verb::Challenges(verb) => Box::pin(challenges::run(verb, session)).await,
        Verb::Agents(verb) => Box::pin(agents::run(verb, session)).await,
        Verb::Issuers(verb) => Box::pin(issuers::run(verb, session)).await,
        Verb::Jobs(verb) => Box::pin(jobs::run(verb, session)).await,
    }
}

async fn status(session: &mut Session<'_>) -> Result<(), ClientError> {
    let whoami = session.client.whoami(Default::default()).await?;
    let overview = session.client.get_overview(Default::default()).await?;
    let text = match session.format {
        Format::Json => output::overview::json(&overview, &whoami),
        Format::Name => format!("{}\n", output::safe(&whoami.controller_name)),
        Format::Table | Format::Wide => output::overview::describe(&overview, &whoami, session.console.now()),
    };
    session.console.print(&text)
}

async fn whoami(session: &mut Session<'_>) -> Result<(), ClientError> {
    let whoami = session.client.whoami(Default::default()).await?;
    let (operator, role) = (output::safe(&whoami.operator), output::safe(&whoami.role));
    let text = match session.format {
        Format::Json => output::overview::whoami_json(&whoami),
        Format::Name => format!("{operator}\n"),
        Format::Table | Format::Wide => format!("{operator} ({role})\n"),
    };
    session.console.print(&text)
}

/// Waits for Ctrl-C. Without a signal handler the kernel ends the process by itself, so there is nothing to wait for.
async fn interrupted() -> Result<(), ClientError> {
    if tokio::signal::ctrl_c().await.is_err() {
        std::future::pending::<()>().await;
    }
    let hint = "what the controller has accepted goes on: see `certwright jobs ls`";
    Err(ClientError::local(ErrorKind::Interrupted, "INTERRUPTED", "interrupted", "", hint))
}

/// Prints clap's own text where it belongs and returns its exit code: help and version are data.
fn usage(error: &clap::Error, console: &mut Console) -> u8 {
    let text = error.render().to_string();
    if error.use_stderr() {
        console.note(text.trim_end());
        return ErrorKind::Invalid.exit_code();
    }
    console.print(&text).err().map_or(0, |error| report(&error, Format::Table, console))
}

fn report(error: &ClientError, format: Format, console: &mut Console) -> u8 {
    // One form only, so that a program can read all of stderr.
    let words = if format == Format::Json { failure::json(error) } else { failure::text(error) };
    console.note(&words);
    error.kind.exit_code()
}
