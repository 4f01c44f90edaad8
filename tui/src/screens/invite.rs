//! A new operator: a user of the controller's host, or someone elsewhere, for whom one command is shown once. The
//! invitation's token is painted here and nowhere else, and is forgotten when the screen is left.
//!
//! ```text
//!  Team > add an operator
//! ┌ Fields ──────────────────────────────────────────────────────────────┐
//! └──────────────────────────────────────────────────────────────────────┘
//!  what the field with the focus means
//!  the roles, each with what it may do; how they sign in; the same on the command line
//! ```

use proto::operator::v1::{AddOperatorRequest, AddOperatorResponse, InviteOperatorRequest, ListOperatorsResponse};
use ratatui::buffer::Buffer;
use ratatui::layout::{Position, Rect};
use ratatui::text::{Line, Span};

use crate::app::call::{Call, Invitation};
use crate::app::{Cmd, Model};
use crate::client::ClientError;
use crate::keys::Key;
use crate::screens::team::ROLES;
use crate::screens::words::badge;
use crate::theme::{State, Theme};
use crate::view;
use crate::widgets::form::{Field, Form, Outcome, help_lines};
use crate::widgets::panel::{panel, put, put_all, put_right, rows as part};
use crate::widgets::text::{command_lines, safe, until, wrap};

const ELSEWHERE: &str = "someone elsewhere";
const HERE: &str = "a user of the controller's host";
/// Border and the rows of the form with one problem.
const FORM_HEIGHT: u16 = 7;

/// What the controller answered, and what shows of it.
#[derive(Debug)]
pub(crate) enum Answer {
    /// A one-time command for someone elsewhere.
    Invited(Invitation),
    /// A user of the host was added, and something is left to do there.
    Added(AddOperatorResponse),
}

/// An operator to be.
#[derive(Debug)]
pub(crate) struct Invite {
    form: Form,
    /// What the controller answered.
    pub(crate) answer: Option<Answer>,
    /// The name that was sent.
    asked: Option<String>,
}

impl Invite {
    /// Returns an empty form.
    pub(crate) fn new() -> Self {
        let roles = ROLES.iter().map(|(word, _)| (*word).to_owned()).collect();
        let who = vec![ELSEWHERE.to_owned(), HERE.to_owned()];
        let form = Form::new(vec![
            Field::choice(
                "who",
                "Who",
                who,
                "Someone elsewhere gets a key of their own; a user of the host needs none.",
            ),
            Field::text("name", "Name", "", "What the person is called here: letters, digits, dots, hyphens."),
            Field::text("local", "User", "", "The user's name on the controller's host. Root is an owner already."),
            Field::choice("role", "Role", roles, "The table below says what each may do. It can be changed later."),
            Field::button("invite", "Make the invitation"),
            Field::button("add", "Add"),
        ]);
        let mut invite = Self { form, answer: None, asked: None };
        invite.follow();
        invite
    }

    fn is_here(&self) -> bool {
        self.form.chosen("who") == HERE
    }

    /// Returns the name that was sent, or the one that is being written.
    pub(crate) fn name(&self) -> &str {
        let written = self.form.value(if self.is_here() { "local" } else { "name" });
        self.asked.as_deref().unwrap_or(written)
    }

    /// Whether it waits for the answer about this name: not when it was left and another one is written.
    pub(crate) fn awaits(&self, name: &str) -> bool {
        self.answer.is_none() && self.asked.as_deref() == Some(name)
    }

    /// Returns the command for whoever was invited; the token is not in it.
    pub(crate) fn command_to_hand_over(&self) -> Option<String> {
        match &self.answer {
            Some(Answer::Invited(invitation)) => Some(invitation.response.command.clone()),
            Some(Answer::Added(_)) | None => None,
        }
    }

    fn follow(&mut self) {
        let here = self.is_here();
        for (id, shown) in [("name", !here), ("local", here), ("invite", !here), ("add", here)] {
            self.form.show(id, shown);
        }
    }

    /// Whether the one who was invited is among these operators.
    pub(crate) fn is_answered_by(&self, found: &ListOperatorsResponse) -> bool {
        matches!(self.answer, Some(Answer::Invited(_))) && found.items.iter().any(|one| one.name == self.name())
    }

    /// Whether an answer is awaited.
    pub(crate) fn asked(&self) -> bool {
        self.asked.is_some() && self.answer.is_none()
    }

    /// The controller refused.
    pub(crate) fn refused(&mut self, error: &ClientError) {
        self.asked = None;
        let mut placed = false;
        for field in &error.fields {
            placed |= self.form.blame(&field.field, &field.message, &field.hint);
        }
        if !placed {
            let id = if self.is_here() { "local" } else { "name" };
            self.form.blame(id, &error.problem.message, &error.problem.hint);
        }
        self.form.focus_problem();
    }

    /// Returns the command line that does the same.
    fn command(&self) -> String {
        let quoted = shlex::try_quote(self.name()).map_or_else(|_| String::new(), std::borrow::Cow::into_owned);
        let name = if self.name().is_empty() { "NAME" } else { &quoted };
        let role = self.form.chosen("role");
        if self.is_here() {
            format!("certwright operators add --local {name} --role {role}")
        } else {
            format!("certwright operators invite {name} --role {role}")
        }
    }
}

/// Handles a key; `None` when it is not for the form.
pub(crate) fn key(model: &mut Model, key: Key) -> Option<Vec<Cmd>> {
    let invite = model.invite.as_mut()?;
    match invite.form.key(key) {
        Outcome::Ignored => None,
        Outcome::Moved => Some(Vec::new()),
        Outcome::Changed(_) => {
            invite.follow();
            Some(Vec::new())
        }
        Outcome::Submit => Some(submit(model)),
    }
}

/// Puts text into the form.
pub(crate) fn insert(model: &mut Model, text: &str) -> Option<Vec<Cmd>> {
    model.invite.as_mut()?.form.insert(text)?;
    Some(Vec::new())
}

fn submit(model: &mut Model) -> Vec<Cmd> {
    if let Some(why) = model.read_only() {
        model.notices.say(model.now, State::Warn, format!("not now: {why}; what you wrote stays"));
        return Vec::new();
    }
    let Some(invite) = model.invite.as_mut() else { return Vec::new() };
    let (name, role) = (invite.name().to_owned(), invite.form.chosen("role").to_owned());
    invite.form.absolve();
    if name.is_empty() {
        let (id, hint) = if invite.is_here() { ("local", "as in /etc/passwd") } else { ("name", "such as bob") };
        invite.form.blame(id, "a name is needed", hint);
        invite.form.focus(id);
        return Vec::new();
    }
    if invite.asked.is_some() {
        return Vec::new();
    }
    invite.asked = Some(name.clone());
    let call = if invite.is_here() {
        Call::AddOperator(AddOperatorRequest { user: name, role })
    } else {
        Call::Invite(InviteOperatorRequest { name, role })
    };
    vec![model.call(call)]
}

/// Paints the form, or what came of it.
pub(crate) fn paint(model: &Model, area: Rect, buf: &mut Buffer) -> Option<Position> {
    let invite = model.invite.as_ref()?;
    let theme = model.theme;
    let heading = vec![Span::styled(" Team > ", theme.dim()), Span::styled("add an operator", theme.strong())];
    put(buf, area, 0, &Line::from(heading));
    let width = usize::from(area.width).saturating_sub(4).max(1);
    match &invite.answer {
        None => return paint_form(model, invite, area, buf),
        Some(Answer::Invited(answer)) => {
            put_right(buf, area, 0, &badge(State::Busy, "waiting for the login ", theme));
            let lines = invitation_lines(model, invite, answer, usize::from(area.width).max(1));
            put_all(buf, part(area, 2, u16::MAX), lines);
        }
        Some(Answer::Added(answer)) => {
            let lines = added_lines(answer, theme, width);
            put_all(buf, part(area, 2, u16::MAX), lines);
        }
    }
    None
}

fn paint_form(model: &Model, invite: &Invite, area: Rect, buf: &mut Buffer) -> Option<Position> {
    let theme = model.theme;
    if let Some(mark) = view::read_only_mark(model) {
        put_right(buf, area, 0, &Line::from(mark));
    }
    let form = part(area, 1, FORM_HEIGHT);
    let inner = panel(buf, form, theme, "", "Esc leaves, nobody is added");
    let cursor = invite.form.view(buf, inner, theme);
    let width = area.width.saturating_sub(2);
    let indent = |line: Line<'static>| {
        let mut spans = vec![Span::raw(" ")];
        spans.extend(line.spans.into_iter().map(|span| span.patch_style(line.style)));
        Line::from(spans)
    };
    let mut lines = help_lines(invite.form.help(), width, theme);
    lines.push(Line::default());
    for (word, may) in ROLES {
        let chosen = invite.form.chosen("role") == word;
        let lead = if chosen { ">" } else { " " };
        let style = if chosen { theme.strong() } else { theme.dim() };
        lines.push(Line::styled(format!("{lead} {word:<11} {may}"), style));
    }
    lines.push(Line::default());
    let signs_in = if invite.is_here() {
        "Signs in: the kernel says at the controller's socket who they are. No password, no key."
    } else {
        "Signs in: with a key made on their own machine, by a command that works once, within a day. The login is renewed on use."
    };
    lines.extend(wrap(signs_in, usize::from(width)).into_iter().map(Line::from));
    let command = command_lines(&invite.command(), usize::from(width));
    lines.extend(command.into_iter().map(|line| Line::styled(line, theme.accent())));
    put_all(buf, part(area, 1 + FORM_HEIGHT, u16::MAX), lines.into_iter().map(indent));
    cursor
}

fn invitation_lines(model: &Model, invite: &Invite, answer: &Invitation, full: usize) -> Vec<Line<'static>> {
    let theme = model.theme;
    let width = full.saturating_sub(4).max(1);
    let answer = &answer.response;
    let name = safe(invite.name());
    let mut lines = vec![
        Line::styled(format!(" 1  {name} runs this on their own machine, not as root:"), theme.strong()),
        Line::default(),
    ];
    let command = command_lines(&answer.command, width);
    lines.extend(command.into_iter().map(|line| Line::styled(format!("  {line}"), theme.accent())));
    lines.push(Line::default());
    lines.push(Line::styled(" 2  It asks for the invitation. Hand this over where nobody else reads:", theme.strong()));
    lines.push(Line::default());
    // From the first column over the whole width: the backend lets the terminal wrap it, so that it copies as one word.
    let token = wrap(&answer.token, full);
    lines.extend(token.into_iter().map(|line| Line::styled(line, theme.accent())));
    lines.push(Line::default());
    let valid = until(model.now, answer.expires_at);
    lines.push(Line::from(format!(" Valid for {valid}, once, for this name only. It is shown here and never again.")));
    lines.push(Line::default());
    if !answer.hint.is_empty() {
        let hint = wrap(&answer.hint, width);
        lines.extend(hint.into_iter().map(|line| Line::styled(format!(" ! {line}"), theme.state(State::Warn))));
        lines.push(Line::default());
    }
    lines.push(Line::styled(" This screen goes back to the team when they have logged in; q leaves it.", theme.dim()));
    lines
}

fn added_lines(answer: &AddOperatorResponse, theme: Theme, width: usize) -> Vec<Line<'static>> {
    let operator = answer.operator.clone().unwrap_or_default();
    let text = format!(" {} may act as {} from now on.", safe(&operator.name), safe(&operator.role));
    let mut lines = vec![Line::styled(text, theme.strong()), Line::default()];
    lines.push(Line::from(" Still to be done on the controller's host, as root:"));
    lines.push(Line::default());
    let hint = wrap(&answer.hint, width);
    lines.extend(hint.into_iter().map(|line| Line::styled(format!("  {line}"), theme.accent())));
    lines.push(Line::default());
    lines.push(Line::styled(" q goes back to the team.", theme.dim()));
    lines
}

/// Returns the status line.
pub(crate) fn status(model: &Model) -> (String, String) {
    match model.invite.as_ref().and_then(|invite| invite.answer.as_ref().map(|answer| (invite, answer))) {
        Some((invite, Answer::Invited(_))) => {
            (format!("waiting for {} to log in", safe(invite.name())), "one-time command".to_owned())
        }
        Some((_, Answer::Added(_))) => ("added; one thing is left to do".to_owned(), String::new()),
        None => ("Tab next field, Space chooses".to_owned(), String::new()),
    }
}
