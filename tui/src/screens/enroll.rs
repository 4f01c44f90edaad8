//! Enrol an agent: a name, then one command that is shown once; the screen turns into the agent's record when it appears.
//! The join token is painted here and nowhere else, and is forgotten when the screen is left.

use proto::operator::v1::{Agent, EnrollAgentRequest};
use ratatui::buffer::Buffer;
use ratatui::layout::{Position, Rect};
use ratatui::text::Line;

use crate::app::call::{Call, Token};
use crate::app::{Cmd, Model};
use crate::client::ClientError;
use crate::keys::Key;
use crate::screens::words::badge;
use crate::theme::State;
use crate::widgets::form::{Field, Form, Outcome, help_lines};
use crate::widgets::panel::{put, put_all, put_right, rows as part};
use crate::widgets::text::{command_lines, until, wrap};

const REPLACE: &str = "yes: the host was reinstalled";

/// An enrolment.
#[derive(Debug)]
pub(crate) struct Enroll {
    form: Form,
    /// What the controller gave out.
    pub(crate) token: Option<Token>,
    asked: bool,
    /// Agents with this name that were there before, by when they enrolled.
    before: i64,
}

impl Enroll {
    /// Returns an enrolment that asks for the name.
    pub(crate) fn new() -> Self {
        let form = Form::new(vec![
            Field::text("name", "Name", "", "What the agent is called here, usually the server's host name."),
            Field::choice(
                "replace",
                "Replace",
                vec!["no".to_owned(), REPLACE.to_owned()],
                "Binds a reinstalled host to the targets of the agent that had this name.",
            ),
            Field::button("go", "Make the command"),
        ]);
        Self { form, token: None, asked: false, before: 0 }
    }

    /// Returns the name of the agent that is awaited.
    pub(crate) fn awaits(&self) -> Option<String> {
        self.token.as_ref().map(|_| self.form.value("name").to_owned())
    }

    /// Whether this is the agent that is awaited.
    pub(crate) fn is_answered_by(&self, agent: &Agent) -> bool {
        self.token.is_some()
            && agent.name == self.form.value("name")
            && agent.enrolled_at > 0
            && agent.enrolled_at != self.before
            && agent.status != "revoked"
    }

    /// The controller refused.
    pub(crate) fn refused(&mut self, error: &ClientError) {
        self.asked = false;
        let mut placed = false;
        for field in &error.fields {
            let id = if field.field.contains("replace") { "replace" } else { "name" };
            placed |= self.form.blame(id, &field.message, &field.hint);
        }
        if !placed {
            self.form.blame("name", &error.problem.message, &error.problem.hint);
        }
    }
}

/// Handles a key; `None` when it is not for the form.
pub(crate) fn key(model: &mut Model, key: Key) -> Option<Vec<Cmd>> {
    let enroll = model.enroll.as_mut()?;
    match enroll.form.key(key) {
        Outcome::Ignored => None,
        Outcome::Moved | Outcome::Changed(_) => Some(Vec::new()),
        Outcome::Submit => Some(submit(model)),
    }
}

/// Puts text into the form.
pub(crate) fn insert(model: &mut Model, text: &str) -> Option<Vec<Cmd>> {
    model.enroll.as_mut()?.form.insert(text)?;
    Some(Vec::new())
}

fn submit(model: &mut Model) -> Vec<Cmd> {
    if let Some(why) = model.read_only() {
        model.notices.say(model.now, State::Warn, format!("not now: {why}"));
        return Vec::new();
    }
    let Some(enroll) = model.enroll.as_mut() else { return Vec::new() };
    let name = enroll.form.value("name").to_owned();
    if name.is_empty() {
        enroll.form.blame("name", "a name is needed", "usually the server's host name");
        enroll.form.focus("name");
        return Vec::new();
    }
    if std::mem::replace(&mut enroll.asked, true) {
        return Vec::new();
    }
    enroll.before = model.agents.rows.iter().find(|agent| agent.name == name).map_or(0, |agent| agent.enrolled_at);
    let replace = enroll.form.chosen("replace") == REPLACE;
    vec![model.call(Call::Enroll(EnrollAgentRequest { name, replace }))]
}

/// Paints the enrolment.
pub(crate) fn paint(model: &Model, area: Rect, buf: &mut Buffer) -> Option<Position> {
    let enroll = model.enroll.as_ref()?;
    let theme = model.theme;
    put(buf, area, 0, &Line::styled(" Enrol agent", theme.strong()));
    let Some(token) = &enroll.token else {
        let inner = part(area, 2, u16::MAX);
        let cursor = enroll.form.view(buf, part(inner, 0, 8), theme);
        let help = help_lines(enroll.form.help(), area.width.saturating_sub(2), theme);
        put_all(buf, part(inner, 9, u16::MAX), help);
        return cursor;
    };
    put_right(buf, area, 0, &badge(State::Busy, "waiting for the agent ", theme));
    let answer = &token.response;
    let width = usize::from(area.width).saturating_sub(4).max(1);
    let mut lines = vec![Line::styled(" 1  Run this on the server, as root:", theme.strong()), Line::default()];
    let command = command_lines(&answer.command, width);
    lines.extend(command.into_iter().map(|line| Line::styled(format!("  {line}"), theme.accent())));
    lines.push(Line::default());
    lines.push(Line::styled(" 2  It waits for this token: paste it there, then Enter and Ctrl-d:", theme.strong()));
    lines.push(Line::default());
    // From the first column over the whole width: the backend lets the terminal wrap it, so that it copies as one word.
    let token = wrap(&answer.token, usize::from(area.width).max(1));
    lines.extend(token.into_iter().map(|line| Line::styled(line, theme.accent())));
    lines.push(Line::default());
    let valid = until(model.now, answer.expires_at);
    lines.push(Line::from(format!(" Valid for {valid}, once, for this name only. It is shown here and never again.")));
    if !answer.hint.is_empty() {
        lines.push(Line::default());
        let hint = wrap(&answer.hint, width);
        lines.extend(hint.into_iter().map(|line| Line::styled(format!(" ! {line}"), theme.state(State::Warn))));
    }
    lines.push(Line::default());
    lines.push(Line::styled(" This screen turns into the agent's record when it appears; q leaves it.", theme.dim()));
    put_all(buf, part(area, 2, u16::MAX), lines);
    None
}

/// Returns the status line.
pub(crate) fn status(model: &Model) -> (String, String) {
    let waiting = model.enroll.as_ref().and_then(Enroll::awaits);
    match waiting {
        Some(name) => (format!("waiting for {name} to connect"), "one-time command".to_owned()),
        None => ("the agent gets its own identity; no password is shared".to_owned(), String::new()),
    }
}
