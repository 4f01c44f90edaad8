//! `context`: the controllers that this user works with, and which of them a command is for. Called by `cli`.

use std::path::PathBuf;

use clap::Subcommand;
use serde::Serialize;

use super::{Console, Session};
use crate::client::{Client, ClientError, Contexts, ErrorKind, Place, SOCKET_DEFAULT};
use crate::output::table::Table;
use crate::output::{self, safe, time};

#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Lists contexts; the one in use is marked
    Ls,
    /// Uses a context when none is named; `-` goes back to the socket of this host
    Use { name: String },
    /// Adds a context for a socket; `login` makes one for a controller elsewhere
    Add {
        name: String,
        /// The controller's Unix socket
        #[arg(long = "at", value_name = "PATH")]
        at: PathBuf,
    },
    /// Removes a context; the key of its login is gone then
    Rm { name: String },
}

#[derive(Serialize)]
struct ContextView {
    name: String,
    current: bool,
    controller: Option<String>,
    operator: Option<String>,
    login_expires_at: Option<String>,
    error: Option<String>,
}

/// Returns the connection that a command is for: `--socket`, `--context`, CERTWRIGHT_CONTEXT, the context in use, or the
/// socket of this host, the first that is given. A login is renewed on the way, once a day.
pub(super) async fn client(
    socket: Option<PathBuf>,
    context: Option<String>,
    contexts: Option<&Contexts>,
    console: &mut Console,
) -> Result<Client, ClientError> {
    if let Some(socket) = socket {
        return Ok(Client::new(&socket));
    }
    let named = context.or_else(|| console.variables.get("CERTWRIGHT_CONTEXT").cloned());
    let Some(contexts) = contexts else {
        return named.map_or_else(|| Ok(Client::new(SOCKET_DEFAULT.as_ref())), |_| Err(homeless()));
    };
    let Some(name) = named.or_else(|| contexts.current()) else { return Ok(Client::new(SOCKET_DEFAULT.as_ref())) };
    let client = Client::open(contexts.place(&name)?)?;
    if let Err(error) = client.renew_login(contexts, console.now()).await {
        // The present leaf may still do: the command itself tells when it does not.
        console.note(&output::failure::text(&error).replacen("error:", "note:", 1));
    }
    Ok(client)
}

pub(super) fn run(verb: Verb, contexts: Option<&Contexts>, session: &mut Session<'_>) -> Result<(), ClientError> {
    let contexts = contexts.ok_or_else(homeless)?;
    match verb {
        Verb::Ls => ls(contexts, session),
        Verb::Use { name } if name == "-" => {
            contexts.set_current(None)?;
            session.console.note(&format!("commands are for {SOCKET_DEFAULT} again"));
            Ok(())
        }
        Verb::Use { name } => {
            contexts.set_current(Some(&name))?;
            session.console.note(&format!("commands are for {} now", contexts.place(&name)?));
            Ok(())
        }
        Verb::Add { name, at } => contexts.add_socket(&name, &at),
        Verb::Rm { name } => {
            contexts.remove(&name)?;
            session.console.note(&format!(
                "context {} removed; the controller still knows its operator: certwright operators rm",
                safe(&name)
            ));
            Ok(())
        }
    }
}

fn ls(contexts: &Contexts, session: &mut Session<'_>) -> Result<(), ClientError> {
    let current = contexts.current();
    let views: Vec<ContextView> = contexts
        .names()?
        .into_iter()
        .map(|name| {
            let place = contexts.place(&name);
            let login = match &place {
                Ok(Place::Remote(login)) => Some(login),
                Ok(Place::Socket(_)) | Err(_) => None,
            };
            ContextView {
                current: current.as_deref() == Some(&name),
                controller: place.as_ref().ok().map(ToString::to_string),
                operator: login.map(|login| safe(&login.operator)),
                login_expires_at: login.map(|login| time::absolute(login.not_after)),
                error: place.as_ref().err().map(ToString::to_string),
                name,
            }
        })
        .collect();
    session.list(
        || views.iter().map(|view| view.name.clone()).collect(),
        || output::json_list("ContextList", views.iter().collect()),
        |_, _| table(&views),
    )
}

fn table(views: &[ContextView]) -> Table {
    let mut table = Table::new(&["IN USE", "NAME", "CONTROLLER", "OPERATOR", "LOGIN EXPIRES", "ERROR"]);
    for view in views {
        let text = |part: &Option<String>| part.clone().unwrap_or_default();
        table.row(vec![
            if view.current { "*" } else { "" }.to_owned(),
            view.name.clone(),
            text(&view.controller),
            text(&view.operator),
            text(&view.login_expires_at),
            text(&view.error),
        ]);
    }
    table
}

/// Without a home there is nowhere to look.
pub(super) fn homeless() -> ClientError {
    let hint = "set HOME or XDG_CONFIG_HOME, or name the controller's socket with --socket PATH";
    let message = "there is no directory for contexts";
    ClientError::local(ErrorKind::Invalid, "NO_HOME", message, "neither HOME nor XDG_CONFIG_HOME is set", hint)
}
