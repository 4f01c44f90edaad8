//! Consent for what cannot be undone: the record's name, typed on a terminal or given as `--confirm=NAME`.
//! Never assumes consent. Called by the verbs that destroy.

use super::console::Console;
use crate::client::{ClientError, ErrorKind};
use crate::output::safe;

/// Returns when the operator has consented.
///
/// # Errors
/// When another name was given, or none and there is no terminal to ask on.
pub(super) async fn confirm(
    console: &mut Console,
    what: &str,
    name: &str,
    given: Option<&str>,
) -> Result<(), ClientError> {
    let noun = if name.bytes().all(|byte| byte.is_ascii_digit()) { "number" } else { "name" };
    let typed = match given {
        Some(given) => given.to_owned(),
        None => {
            let question = format!("{what}\nType the {noun} ({}) to go on: ", safe(name));
            let Some(answer) = console.ask(&question).await else {
                return Err(refused(name, "there is no terminal to ask on"));
            };
            answer
        }
    };
    if typed == name { Ok(()) } else { Err(refused(name, &format!("'{typed}' is not the {noun}"))) }
}

fn refused(name: &str, cause: &str) -> ClientError {
    let hint = format!("repeat with --confirm={name}");
    ClientError::local(ErrorKind::Invalid, "NOT_CONFIRMED", "nothing was done: not confirmed", cause, &hint)
}
