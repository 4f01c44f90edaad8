//! `doctor`: what stands between this terminal and a working dashboard, each with what to do about it.
//! Looks and never changes anything. Called by `cli`.

use std::time::Duration;

use serde::Serialize;
use tokio::process::Command;

use super::Session;
use crate::client::ClientError;
use crate::output::{self, Format};

/// tmux holds a lone Esc back for this long at most before it feels late.
const ESCAPE_TIME_MS_MAX: u32 = 50;
/// tmux answers at once or not at all.
const TMUX_MAX: Duration = Duration::from_secs(2);
const COLUMNS_MIN: u16 = 80;

#[derive(Debug, Serialize)]
struct Check {
    name: &'static str,
    /// ok, warn or fail.
    state: &'static str,
    found: String,
    hint: Option<String>,
}

impl Check {
    fn new(name: &'static str, found: impl Into<String>, advice: Option<(&'static str, &str)>) -> Self {
        let state = advice.map_or("ok", |(state, _)| state);
        Self { name, state, found: output::safe(&found.into()), hint: advice.map(|(_, hint)| hint.to_owned()) }
    }
}

#[derive(Serialize)]
struct DoctorView {
    checks: Vec<Check>,
}

/// Prints every check; fails as the connection fails.
pub(super) async fn run(session: &mut Session<'_>) -> Result<(), ClientError> {
    let (mut checks, connected) = connection(session).await;
    checks.push(terminal(session));
    checks.push(locale(session));
    checks.push(colour(session));
    checks.extend(tmux(session).await);
    let text = match session.format {
        Format::Json => output::json(Some("Doctor"), DoctorView { checks }),
        Format::Name => checks.iter().map(|check| format!("{} {}\n", check.name, check.state)).collect(),
        Format::Table | Format::Wide => checks.iter().map(line).collect(),
    };
    session.console.print(&text)?;
    connected
}

fn line(check: &Check) -> String {
    let hint = check.hint.as_ref().map(|hint| format!("      try: {hint}\n")).unwrap_or_default();
    format!("{:<5} {:<11} {}\n{hint}", check.state, check.name, check.found)
}

async fn connection(session: &Session<'_>) -> (Vec<Check>, Result<(), ClientError>) {
    let client_version = env!("CARGO_PKG_VERSION");
    let place = session.client.place().to_string();
    match session.client.whoami(Default::default()).await {
        Ok(whoami) => {
            let same = whoami.controller_version == client_version;
            let advice = (!same).then_some(("warn", "install the same version of certwright and its controller"));
            let versions = format!("certwright {client_version}, controller {}", whoami.controller_version);
            let operator = format!("{} as {} ({})", place, whoami.operator, whoami.role);
            let agents = match whoami.advertise.as_str() {
                "" => Check::new(
                    "agents",
                    "no address to tell agents",
                    Some(("warn", "start the controller with --advertise HOST:PORT, the address agents reach it at")),
                ),
                address => Check::new("agents", format!("are told {address}"), None),
            };
            let mail = match whoami.mail.as_str() {
                "" => "the journal only: the controller's host has no local mailer, or [mail] to is empty".to_owned(),
                mail => format!("the journal, and mail to {mail}"),
            };
            let told = Check::new("outcomes", mail, None);
            (vec![Check::new("socket", operator, None), Check::new("versions", versions, advice), agents, told], Ok(()))
        }
        Err(error) => {
            let hint = error.problem.hint.clone();
            let socket = Check::new("socket", error.problem.message.clone(), Some(("fail", &hint)));
            (vec![socket, Check::new("versions", format!("certwright {client_version}"), None)], Err(error))
        }
    }
}

fn variable<'a>(session: &'a Session<'_>, name: &str) -> &'a str {
    session.console.variables.get(name).map_or("", String::as_str)
}

fn terminal(session: &Session<'_>) -> Check {
    let term = variable(session, "TERM");
    match (session.console.width, term) {
        (None, _) => Check::new("terminal", "standard output is no terminal", None),
        (Some(_), "" | "dumb") => {
            let advice = ("warn", "set TERM to what the terminal is, for example xterm-256color");
            Check::new("terminal", "TERM says nothing about the terminal", Some(advice))
        }
        (Some(columns), term) => {
            let narrow = ("warn", "the dashboard wants at least 80 columns");
            Check::new("terminal", format!("{term}, {columns} columns"), (columns < COLUMNS_MIN).then_some(narrow))
        }
    }
}

fn locale(session: &Session<'_>) -> Check {
    // The order in which the C library looks.
    let set = ["LC_ALL", "LC_CTYPE", "LANG"].map(|name| variable(session, name));
    let locale = set.into_iter().find(|value| !value.is_empty()).unwrap_or("C");
    let lower = locale.to_lowercase();
    let utf8 = lower.contains("utf-8") || lower.contains("utf8");
    let advice = ("warn", "without UTF-8 lines and marks may look broken: set LANG=C.UTF-8");
    Check::new("locale", locale, (!utf8).then_some(advice))
}

fn colour(session: &Session<'_>) -> Check {
    let off = !variable(session, "NO_COLOR").is_empty();
    Check::new("colour", if off { "off (NO_COLOR)" } else { "as the terminal has it" }, None)
}

async fn tmux(session: &Session<'_>) -> Option<Check> {
    if variable(session, "TMUX").is_empty() {
        return None;
    }
    let asked = Command::new("tmux").args(["show-options", "-sv", "escape-time"]).kill_on_drop(true).output();
    let answer = tokio::time::timeout(TMUX_MAX, asked).await.ok().and_then(Result::ok);
    let milliseconds = answer.and_then(|answer| String::from_utf8_lossy(&answer.stdout).trim().parse::<u32>().ok());
    Some(escape_time(milliseconds))
}

fn escape_time(milliseconds: Option<u32>) -> Check {
    let advice = ("warn", "Esc arrives late in tmux: run `tmux set -sg escape-time 10`, and put it into ~/.tmux.conf");
    match milliseconds {
        Some(ms) => Check::new("tmux", format!("escape-time {ms} ms"), (ms > ESCAPE_TIME_MS_MAX).then_some(advice)),
        None => Check::new("tmux", "escape-time unknown", Some(advice)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tmux_defaults_are_named_as_the_reason_for_a_late_escape() {
        assert_eq!(escape_time(Some(10)).state, "ok");
        assert!(escape_time(Some(500)).hint.unwrap().contains("escape-time 10"));
        assert_eq!(escape_time(None).state, "warn");
    }
}
