//! A sheet: one form about one record, with what its change means and the same on the command line, before it is sent.
//! Used for issuers, their limits, and the settings of certificates and targets; what it holds of each stands in the files below.
//!
//! ```text
//!  Issuers > le > change
//! ┌ Fields ──────────────────────────────────────────────────────────────┐
//! └──────────────────────────────────────────────────────────────────────┘
//!  what the field with the focus means
//!  what the change means
//!  certwright issuers set le …
//! ```

pub(crate) mod certificate;
mod issuer;
mod limits;
mod private_ca;
mod target;

use proto::operator::v1::{Certificate, Issuer, ListLimitsResponse, Target};
use proto::types::v1::Problem;
use ratatui::buffer::Buffer;
use ratatui::layout::{Position, Rect};
use ratatui::text::{Line, Span};

use crate::app::call::Call;
use crate::app::{Cmd, Model};
use crate::client::ClientError;
use crate::keys::Key;
use crate::screens::{self, Place};
use crate::theme::{State, Theme};
use crate::view;
use crate::widgets::form::{Form, Outcome, help_lines};
use crate::widgets::panel::{panel, put, put_all, rows as part};
use crate::widgets::text::{command_lines, safe, wrap};

/// Lines for the help of a field.
const HELP_HEIGHT: u16 = 2;
/// Most lines for what the change means and the command.
const MEANS_HEIGHT: u16 = 7;

/// What a sheet is about.
#[derive(Debug)]
pub(crate) enum Subject {
    /// A new issuer, and the name that was proposed for it.
    NewIssuer(String),
    /// The settings of an issuer.
    Issuer(Box<Issuer>),
    /// The limits of an issuer.
    Limits(Box<ListLimitsResponse>),
    /// The settings of a certificate, and the issuers to choose from.
    Certificate(Box<Certificate>, Vec<Issuer>),
    /// A target of a certificate.
    Target(Box<Certificate>, Box<Target>),
}

/// An open sheet.
#[derive(Debug)]
pub(crate) struct Sheet {
    subject: Subject,
    form: Form,
    /// Sent and not yet answered.
    waits: bool,
    touched: bool,
    problem: Option<Problem>,
}

/// What a form asks for.
#[derive(Debug, Default)]
pub(super) struct Wish {
    /// What the change means.
    effects: Vec<String>,
    /// The same on the command line.
    command: String,
    /// What is sent; `None` when nothing is changed.
    call: Option<Call>,
    /// Field, what is wrong with it, what to do.
    complaints: Vec<(&'static str, &'static str, &'static str)>,
}

impl Wish {
    fn complain(&mut self, field: &'static str, message: &'static str, hint: &'static str) {
        self.complaints.push((field, message, hint));
    }
}

/// Returns the words of a text, split at spaces and commas.
fn words(text: &str) -> Vec<String> {
    text.split([' ', ',', ';']).filter(|word| !word.is_empty()).map(str::to_owned).collect()
}

fn quoted(word: &str) -> String {
    shlex::try_quote(word).map_or_else(|_| word.replace('\0', ""), std::borrow::Cow::into_owned)
}

impl Sheet {
    /// Returns the sheet of `subject` with what holds now.
    pub(crate) fn new(mut subject: Subject) -> Self {
        let form = match &mut subject {
            Subject::NewIssuer(proposed) => {
                let mut form = issuer::new_form();
                issuer::follow_new(&mut form, proposed);
                form
            }
            Subject::Issuer(record) => issuer::form(record),
            Subject::Limits(limits) => limits::form(limits),
            Subject::Certificate(record, _) => certificate::form(record),
            Subject::Target(_, target) => target::form(target),
        };
        let mut sheet = Self { subject, form, waits: false, touched: false, problem: None };
        sheet.follow();
        sheet
    }

    /// Takes the issuers to choose from.
    pub(crate) fn offer_issuers(&mut self, offered: &[Issuer]) {
        if let Subject::Certificate(_, issuers) = &mut self.subject {
            *issuers = offered.to_vec();
            self.form.offer("issuer", offered.iter().map(|issuer| issuer.name.clone()).collect());
            self.follow();
        }
    }

    /// Whether it is the draft of a new issuer.
    pub(crate) fn is_new_issuer(&self) -> bool {
        matches!(self.subject, Subject::NewIssuer(_))
    }

    /// Makes the fields that depend on others follow them.
    fn follow(&mut self) {
        match &mut self.subject {
            Subject::NewIssuer(proposed) => issuer::follow_new(&mut self.form, proposed),
            Subject::Certificate(_, issuers) => certificate::offer_profiles(&mut self.form, issuers),
            Subject::Issuer(_) | Subject::Limits(_) | Subject::Target(..) => {}
        }
    }

    fn wish(&self) -> Wish {
        match &self.subject {
            Subject::NewIssuer(_) => issuer::new_wish(&self.form),
            Subject::Issuer(record) => issuer::wish(record, &self.form),
            Subject::Limits(limits) => limits::wish(limits, &self.form),
            Subject::Certificate(record, _) => certificate::wish(record, &self.form),
            Subject::Target(record, target) => target::wish(record, target, &self.form),
        }
    }

    fn changed(&mut self) {
        self.touched = true;
        self.problem = None;
        self.follow();
    }

    /// The controller refused; its complaints go to their fields.
    pub(crate) fn refused(&mut self, error: &ClientError) {
        self.waits = false;
        let mut problem = error.problem.clone();
        for field in &error.fields {
            let id = match &self.subject {
                Subject::NewIssuer(_) | Subject::Issuer(_) => issuer::place_of(&field.field),
                Subject::Limits(_) => "",
                Subject::Certificate(..) => certificate::place_of(&field.field),
                Subject::Target(..) => target::place_of(&field.field),
            };
            let id = if id == "profile" && self.form.is_hidden(id) { "profile_text" } else { id };
            if !self.form.blame(id, &field.message, &field.hint) {
                problem.cause = format!("{} {}: {}", problem.cause, field.field, field.message).trim().to_owned();
            }
        }
        self.form.focus_problem();
        self.problem = Some(problem);
    }
}

/// Opens a sheet.
pub(crate) fn open(model: &mut Model, subject: Subject) -> Vec<Cmd> {
    model.sheet = Some(Sheet::new(subject));
    model.go(Place::Sheet, true)
}

/// `n` on the issuers: a new one, or the draft of one.
pub(crate) fn new_issuer(model: &mut Model) -> Vec<Cmd> {
    if model.sheet.as_ref().is_some_and(Sheet::is_new_issuer) {
        model.notices.say(model.now, State::Idle, "your draft is back; Ctrl-u clears a field");
        return model.go(Place::Sheet, true);
    }
    open(model, Subject::NewIssuer(String::new()))
}

/// `e`: the settings of what shows.
pub(crate) fn edit(model: &mut Model) -> Vec<Cmd> {
    if let Some((record, target)) = screens::target_here(model) {
        return open(model, Subject::Target(Box::new(record), Box::new(target)));
    }
    if let Some(record) = screens::certificate_here(model) {
        let issuers = model.issuers.rows.clone();
        return open(model, Subject::Certificate(Box::new(record), issuers));
    }
    let Some(record) = screens::issuer_here(model) else { return Vec::new() };
    match model.issuer.limits.clone().filter(|_| model.issuer.shows_limits() && model.place != Place::Issuers) {
        Some(limits) => open(model, Subject::Limits(Box::new(limits))),
        None => open(model, Subject::Issuer(Box::new(record))),
    }
}

/// `Esc`: nothing is changed. The draft of a new issuer is kept, but not its secret.
pub(crate) fn leave(model: &mut Model) -> Vec<Cmd> {
    if let Some(sheet) = model.sheet.take_if(|sheet| !sheet.is_new_issuer() || !sheet.touched) {
        if sheet.touched {
            model.notices.say(model.now, State::Idle, "nothing was changed");
        }
    } else if let Some(sheet) = &mut model.sheet {
        sheet.form.forget_secrets();
        model.notices.say(model.now, State::Idle, "the draft is kept, without its key: n brings it back");
    }
    model.go_back()
}

/// Handles a key; `None` when it is not for the form.
pub(crate) fn key(model: &mut Model, key: Key) -> Option<Vec<Cmd>> {
    let sheet = model.sheet.as_mut()?;
    match sheet.form.key(key) {
        Outcome::Ignored => None,
        Outcome::Moved => Some(Vec::new()),
        Outcome::Changed(_) => {
            sheet.changed();
            Some(Vec::new())
        }
        Outcome::Submit => Some(submit(model)),
    }
}

/// Puts text into the form; `None` when its field takes none.
pub(crate) fn insert(model: &mut Model, text: &str) -> Option<Vec<Cmd>> {
    let sheet = model.sheet.as_mut()?;
    sheet.form.insert(text)?;
    sheet.changed();
    Some(Vec::new())
}

fn submit(model: &mut Model) -> Vec<Cmd> {
    if let Some(why) = model.read_only() {
        model.notices.say(model.now, State::Warn, format!("not now: {why}; what you wrote stays"));
        return Vec::new();
    }
    let Some(sheet) = model.sheet.as_mut() else { return Vec::new() };
    let wish = sheet.wish();
    sheet.form.absolve();
    for (field, message, hint) in &wish.complaints {
        sheet.form.blame(field, message, hint);
    }
    sheet.form.focus_problem();
    if sheet.waits || sheet.form.has_problems() {
        return Vec::new();
    }
    let Some(mut call) = wish.call else {
        model.notices.say(model.now, State::Idle, "nothing is changed yet; Esc leaves");
        return Vec::new();
    };
    sheet.waits = true;
    sheet.problem = None;
    if let Call::SetTarget(request) = &mut call {
        request.request_id = model.wish_id();
    }
    vec![model.call(call)]
}

/// Paints the sheet.
pub(crate) fn paint(model: &Model, area: Rect, buf: &mut Buffer) -> Option<Position> {
    let sheet = model.sheet.as_ref()?;
    let theme = model.theme;
    let (place, name, what) = match &sheet.subject {
        Subject::NewIssuer(_) => ("Issuers", "", "add an issuer"),
        Subject::Issuer(record) => ("Issuers", record.name.as_str(), "change"),
        Subject::Limits(limits) => ("Issuers", limits.issuer.as_str(), "limits"),
        Subject::Certificate(record, _) => ("Certificates", record.name.as_str(), "change"),
        Subject::Target(record, _) => ("Certificates", record.name.as_str(), "change a target"),
    };
    let path = if name.is_empty() { format!(" {place} > ") } else { format!(" {place} > {} > ", safe(name)) };
    let mut spans = vec![Span::styled(path, theme.dim()), Span::styled(what, theme.strong())];
    spans.extend(view::read_only_mark(model));
    put(buf, area, 0, &Line::from(spans));
    let width = usize::from(area.width).saturating_sub(2).max(1);
    let means = means_lines(sheet, theme, width);
    let below = u16::try_from(means.len()).unwrap_or(MEANS_HEIGHT).min(MEANS_HEIGHT).min(area.height / 3);
    let form = part(area, 1, area.height.saturating_sub(1 + HELP_HEIGHT + below));
    let inner = panel(buf, form, theme, "", "Esc leaves it as it is");
    let cursor = sheet.form.view(buf, inner, theme);
    let bottom = 1 + form.height;
    let indent = |line: Line<'static>| {
        let mut spans = vec![Span::raw(" ")];
        spans.extend(line.spans.into_iter().map(|span| span.patch_style(line.style)));
        Line::from(spans)
    };
    let help = help_lines(sheet.form.help(), area.width.saturating_sub(2), theme);
    put_all(buf, part(area, bottom, HELP_HEIGHT), help.into_iter().map(indent));
    put_all(buf, part(area, bottom + HELP_HEIGHT, below), means.into_iter().map(indent));
    cursor
}

/// What was refused, or what the change means and the command that does the same.
fn means_lines(sheet: &Sheet, theme: Theme, width: usize) -> Vec<Line<'static>> {
    if let Some(problem) = &sheet.problem {
        let text = format!("{} {}", theme.glyph(State::Bad), problem.message);
        let mut lines: Vec<Line<'static>> =
            wrap(&text, width).into_iter().map(|part| Line::styled(part, theme.state(State::Bad))).collect();
        lines.extend(screens::words::problem_lines(problem, theme, width, 2));
        return lines;
    }
    let wish = sheet.wish();
    if wish.call.is_none() {
        return vec![Line::styled("Nothing is changed so far.", theme.dim())];
    }
    let effects = wish.effects.iter().flat_map(|text| wrap(text, width));
    let mut lines: Vec<Line<'static>> = effects.map(Line::from).collect();
    let command = command_lines(&wish.command, width);
    lines.extend(command.into_iter().map(|part| Line::styled(part, theme.accent())));
    lines
}

/// Returns the status line.
pub(crate) fn status(model: &Model) -> (String, String) {
    let Some(sheet) = &model.sheet else { return (String::new(), String::new()) };
    let left = if sheet.waits { "sent; waiting for the controller …" } else { "Tab next field, Space chooses" };
    (left.to_owned(), String::new())
}
