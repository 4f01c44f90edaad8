//! How and when new versions reach the targets of a certificate, as an operator writes it.

use jiff::tz::TimeZone;
use proto::text::one_line;
use proto::types::v1 as types;

use super::no_agent;
use crate::lifecycle::label;
use crate::lifecycle::rollout::Rollout;
use crate::lifecycle::window::{UTC, WINDOWS_MAX, Window};
use crate::rpc::status::{Refusal, field_error};
use crate::store::certificate::Bundle;
use crate::tasks::hub::Hub;

/// What ends a rollout in stages, or windows.
const OFF: &str = "off";
const FIELD: &str = "rollout";
const WINDOW: &str = "window";
/// Longest text.
const CHARS_MAX: usize = 4_096;

/// Reads the words; what is wrong with them becomes a field error.
pub(in crate::rpc::operator) async fn read(
    hub: &Hub,
    bundle: &Bundle,
    text: &str,
    errors: &mut Vec<types::FieldError>,
) -> Result<Option<Rollout>, Refusal> {
    let text = one_line(text, CHARS_MAX);
    if text.is_empty() || text == OFF {
        return Ok(None);
    }
    let hint = "write for example \"canary=web1 wave=25% failures=0 rest=5m\", or off";
    let mut rollout = match Rollout::parse(&text) {
        Ok(rollout) => rollout,
        Err(message) => {
            errors.push(field_error(FIELD, message, hint));
            return Ok(None);
        }
    };
    let agents = bundle.target_agent_ids();
    rollout.canaries = named(hub, &agents, rollout.canaries, errors).await?;
    for name in &mut rollout.canaries {
        match hub.store.agent_by_name(name).await? {
            None => errors.push(no_agent(FIELD, name)),
            Some(agent) if !agents.contains(&agent.value.id) => {
                let certificate = &bundle.certificate.value.name;
                let message = format!("{certificate} has no target on {name}");
                errors.push(field_error(
                    FIELD,
                    message,
                    format!("certwright targets ls {certificate} shows its targets"),
                ));
            }
            Some(agent) => *name = agent.value.id,
        }
    }
    Ok(Some(rollout))
}

/// Puts the agents of a label, those that have a target now, in its place: `canary=role=canary`.
async fn named(
    hub: &Hub,
    agents: &[String],
    words: Vec<String>,
    errors: &mut Vec<types::FieldError>,
) -> Result<Vec<String>, Refusal> {
    let mut names = Vec::new();
    for word in words {
        if !word.contains('=') {
            names.push(word);
            continue;
        }
        let all = hub.store.agents().await?.into_iter().map(|agent| agent.value);
        let found = all.filter(|agent| agents.contains(&agent.id) && label::has(&agent.labels, &word));
        let found: Vec<String> = found.map(|agent| agent.name).collect();
        if found.is_empty() {
            let message = format!("no agent with a target has the label {word}");
            errors.push(field_error(FIELD, message, format!("certwright agents set NAME --label {word}")));
        }
        names.extend(found);
    }
    names.sort_unstable();
    names.dedup();
    Ok(names)
}

/// Reads windows; what is wrong with them becomes a field error.
pub(in crate::rpc::operator) fn windows(texts: &[String], errors: &mut Vec<types::FieldError>) -> Vec<Window> {
    let texts: Vec<String> = texts.iter().map(|text| one_line(text, CHARS_MAX).trim().to_owned()).collect();
    let texts: Vec<&str> = texts.iter().map(String::as_str).filter(|text| !text.is_empty() && *text != OFF).collect();
    if texts.len() > WINDOWS_MAX {
        errors.push(field_error(WINDOW, format!("there are {}; at most {WINDOWS_MAX}", texts.len()), "use fewer"));
    }
    let hint = "write for example \"Sat,Sun 02:00-05:00 Europe/Berlin\", or off";
    let mut windows = Vec::new();
    for text in texts.into_iter().take(WINDOWS_MAX) {
        match Window::parse(text) {
            Ok(window) if window.zone == UTC || TimeZone::get(&window.zone).is_ok() => windows.push(window),
            Ok(window) => {
                let message = format!("this controller knows no time zone \"{}\"", window.zone);
                let hint = "write UTC, or a name such as Europe/Berlin: they come with the package tzdata on the controller's host";
                errors.push(field_error(WINDOW, message, hint));
            }
            Err(message) => errors.push(field_error(WINDOW, message, hint)),
        }
    }
    windows
}
