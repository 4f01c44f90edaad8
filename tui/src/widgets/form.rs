//! Forms: fields, focus, errors at their fields. Holds what is typed; knows nothing of certificates. Used by the wizard,
//! the enrolment and every prompt. `Tab` moves, `Space` chooses, `Enter` goes on.

use ratatui::buffer::Buffer;
use ratatui::layout::{Position, Rect};
use ratatui::text::{Line, Span};
use secrecy::zeroize::Zeroizing;
use tui_input::{Input, InputRequest};
use unicode_width::UnicodeWidthStr as _;

use crate::keys::Key;
use crate::theme::{State, Theme};
use crate::widgets::panel::put;
use crate::widgets::text::{cut, narrow, wrap};

/// Cells for cursor and label.
const LABEL_WIDTH: usize = 16;
/// Longest text of a field: 100 names of 253 octets with separators.
const TEXT_CHARS_MAX: usize = 26_000;
/// Longest secret, or name of its file.
const SECRET_BYTES_MAX: usize = 4_096;

/// What a field holds.
#[derive(Clone, Debug)]
pub(crate) enum Kind {
    /// One line of text.
    Text(Input),
    /// One of several.
    Choice {
        /// What can be chosen.
        options: Vec<String>,
        /// What is chosen.
        at: usize,
    },
    /// Any of several.
    Many {
        /// What can be chosen, and whether it is.
        options: Vec<(String, bool)>,
        /// The option under the cursor.
        at: usize,
    },
    /// One line that is never painted.
    Secret(Secret),
    /// A button at the end: `Enter` on it goes on.
    Button,
}

/// What is typed into a field for a secret: wiped when it goes, and in no `Debug`.
#[derive(Clone, Default, PartialEq, Eq)]
pub(crate) struct Secret(Zeroizing<String>);

impl Secret {
    /// Returns the text, trimmed.
    pub(crate) fn expose(&self) -> &str {
        self.0.trim()
    }

    /// Whether it names a file instead: `@FILE`.
    pub(crate) fn is_file(&self) -> bool {
        self.0.starts_with('@')
    }

    /// Puts in a character. The room is taken at once: growing would leave copies behind.
    fn push(&mut self, ch: char) {
        if self.0.capacity() == 0 {
            self.0.reserve(SECRET_BYTES_MAX);
        }
        if self.0.len() + ch.len_utf8() <= SECRET_BYTES_MAX {
            self.0.push(ch);
        }
    }

    /// Returns what is painted of it: the name of a file, or how much there is.
    fn painted(&self) -> String {
        let count = self.0.chars().count();
        match count {
            _ if self.is_file() => narrow(&self.0),
            0 => String::new(),
            count => format!("{} ({count} characters, not shown)", "*".repeat(count.min(8))),
        }
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret")
    }
}

/// What is wrong with a field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FieldProblem {
    /// What is wrong.
    pub(crate) message: String,
    /// What to do.
    pub(crate) hint: String,
}

/// One field.
#[derive(Clone, Debug)]
pub(crate) struct Field {
    /// The request's field, as the controller names it in errors.
    pub(crate) id: &'static str,
    /// What stands before it.
    pub(crate) label: &'static str,
    /// Shown while the field has the focus.
    pub(crate) help: String,
    /// Its value.
    pub(crate) kind: Kind,
    /// What is wrong with it.
    pub(crate) problem: Option<FieldProblem>,
    /// Not asked now.
    pub(crate) hidden: bool,
}

impl Field {
    /// Returns a line of text.
    pub(crate) fn text(id: &'static str, label: &'static str, value: &str, help: &str) -> Self {
        Self::new(id, label, help, Kind::Text(Input::new(value.to_owned())))
    }

    /// Returns a choice of one.
    pub(crate) fn choice(id: &'static str, label: &'static str, options: Vec<String>, help: &str) -> Self {
        Self::new(id, label, help, Kind::Choice { options, at: 0 })
    }

    /// Returns a choice of any.
    pub(crate) fn many(id: &'static str, label: &'static str, options: Vec<(String, bool)>, help: &str) -> Self {
        Self::new(id, label, help, Kind::Many { options, at: 0 })
    }

    /// Returns a line for a secret.
    pub(crate) fn secret(id: &'static str, label: &'static str, help: &str) -> Self {
        Self::new(id, label, help, Kind::Secret(Secret::default()))
    }

    /// Chooses an option, if it is offered.
    pub(crate) fn choose(&mut self, option: &str) {
        if let Kind::Choice { options, at } = &mut self.kind {
            *at = options.iter().position(|one| one == option).unwrap_or(*at);
        }
    }

    /// Returns a button.
    pub(crate) fn button(id: &'static str, label: &'static str) -> Self {
        Self::new(id, label, "", Kind::Button)
    }

    fn new(id: &'static str, label: &'static str, help: &str, kind: Kind) -> Self {
        Self { id, label, help: help.to_owned(), kind, problem: None, hidden: false }
    }

    fn lines(&self) -> usize {
        let own = match &self.kind {
            Kind::Many { options, .. } => options.len().max(1),
            Kind::Text(_) | Kind::Choice { .. } | Kind::Secret(_) | Kind::Button => 1,
        };
        own + usize::from(self.problem.is_some())
    }
}

/// What a key did to a form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Nothing: the key is not for forms.
    Ignored,
    /// Only the focus moved.
    Moved,
    /// The value of this field changed.
    Changed(&'static str),
    /// Go on.
    Submit,
}

/// Fields in their order, and which has the focus.
#[derive(Clone, Debug, Default)]
pub(crate) struct Form {
    /// The fields.
    pub(crate) fields: Vec<Field>,
    focus: usize,
}

impl Form {
    /// Returns a form with the focus on its first field.
    pub(crate) fn new(fields: Vec<Field>) -> Self {
        Self { fields, focus: 0 }
    }

    /// Handles a key.
    pub(crate) fn key(&mut self, key: Key) -> Outcome {
        let last = self.is_last();
        let Some(field) = self.fields.get_mut(self.focus) else {
            return if key == Key::Enter { Outcome::Submit } else { Outcome::Ignored };
        };
        match (&mut field.kind, key) {
            (_, Key::Tab) => self.step(true),
            (_, Key::BackTab) => self.step(false),
            (Kind::Many { options, at }, Key::Down) if *at + 1 < options.len() => {
                *at += 1;
                Outcome::Moved
            }
            (Kind::Many { at, .. }, Key::Up) if *at > 0 => {
                *at -= 1;
                Outcome::Moved
            }
            (_, Key::Down) => self.step(true),
            (_, Key::Up) => self.step(false),
            (Kind::Button, Key::Char(' ')) => Outcome::Submit,
            (_, Key::Enter) if last => Outcome::Submit,
            (_, Key::Enter) => self.step(true),
            (_, key) => edit(field, key),
        }
    }

    /// Puts pasted or quickly typed text into the field with the focus; false when that field takes no text.
    pub(crate) fn insert(&mut self, text: &str) -> Option<&'static str> {
        let field = self.fields.get_mut(self.focus)?;
        if let Kind::Secret(secret) = &mut field.kind {
            text.chars().filter(|ch| !ch.is_control()).for_each(|ch| secret.push(ch));
            field.problem = None;
            return Some(field.id);
        }
        let Kind::Text(input) = &mut field.kind else { return None };
        let room = TEXT_CHARS_MAX.saturating_sub(input.value().chars().count());
        for ch in text.trim_end_matches(['\n', '\r']).chars().take(room) {
            match ch {
                '\n' | '\r' | '\t' => drop(input.handle(InputRequest::InsertChar(' '))),
                ch if ch.is_control() => {}
                ch => drop(input.handle(InputRequest::InsertChar(ch))),
            }
        }
        field.problem = None;
        Some(field.id)
    }

    fn is_last(&self) -> bool {
        self.fields.iter().skip(self.focus.saturating_add(1)).all(|field| field.hidden)
    }

    fn step(&mut self, forward: bool) -> Outcome {
        let count = self.fields.len().max(1);
        let mut at = self.focus;
        for _ in 0..count {
            at = if forward { (at + 1) % count } else { (at + count - 1) % count };
            if self.fields.get(at).is_some_and(|field| !field.hidden) {
                self.focus = at;
                break;
            }
        }
        Outcome::Moved
    }

    /// Returns the id of the field with the focus.
    #[cfg(test)]
    pub(crate) fn focused(&self) -> Option<&'static str> {
        self.fields.get(self.focus).map(|field| field.id)
    }

    /// Puts the focus on a field.
    pub(crate) fn focus(&mut self, id: &str) {
        if let Some(at) = self.fields.iter().position(|field| field.id == id && !field.hidden) {
            self.focus = at;
        }
    }

    fn field(&self, id: &str) -> Option<&Field> {
        self.fields.iter().find(|field| field.id == id)
    }

    /// Returns a field, to change it.
    pub(crate) fn field_mut(&mut self, id: &str) -> Option<&mut Field> {
        self.fields.iter_mut().find(|field| field.id == id)
    }

    /// Returns the text of a field, trimmed; empty when there is no such text.
    pub(crate) fn value(&self, id: &str) -> &str {
        match self.field(id).map(|field| &field.kind) {
            Some(Kind::Text(input)) => input.value().trim(),
            _ => "",
        }
    }

    /// Returns the secret of a field.
    pub(crate) fn secret(&self, id: &str) -> Secret {
        match self.field(id).map(|field| &field.kind) {
            Some(Kind::Secret(secret)) => secret.clone(),
            _ => Secret::default(),
        }
    }

    /// Returns what is chosen in a field; empty when nothing is.
    pub(crate) fn chosen(&self, id: &str) -> &str {
        match self.field(id).map(|field| &field.kind) {
            Some(Kind::Choice { options, at }) => options.get(*at).map_or("", String::as_str),
            _ => "",
        }
    }

    /// Returns everything that is chosen in a field, in its order.
    pub(crate) fn picked(&self, id: &str) -> Vec<String> {
        match self.field(id).map(|field| &field.kind) {
            Some(Kind::Many { options, .. }) => {
                options.iter().filter(|(_, on)| *on).map(|(option, _)| option.clone()).collect()
            }
            _ => Vec::new(),
        }
    }

    /// Returns everything that can be picked in a field.
    pub(crate) fn offered(&self, id: &str) -> Vec<String> {
        match self.field(id).map(|field| &field.kind) {
            Some(Kind::Many { options, .. }) => options.iter().map(|(option, _)| option.clone()).collect(),
            _ => Vec::new(),
        }
    }

    /// Replaces the text of a field.
    pub(crate) fn set(&mut self, id: &str, value: &str) {
        if let Some(Field { kind: Kind::Text(input), .. }) = self.field_mut(id) {
            *input = Input::new(value.to_owned());
        }
    }

    /// Picks exactly these of what a field offers.
    pub(crate) fn pick(&mut self, id: &str, wanted: &[String]) {
        if let Some(Field { kind: Kind::Many { options, .. }, .. }) = self.field_mut(id) {
            options.iter_mut().for_each(|(option, on)| *on = wanted.contains(option));
        }
    }

    /// Shows or hides a field.
    pub(crate) fn show(&mut self, id: &str, shown: bool) {
        if let Some(field) = self.field_mut(id) {
            field.hidden = !shown;
        }
    }

    /// Replaces what can be chosen; what was chosen stays chosen where it is still offered.
    pub(crate) fn offer(&mut self, id: &str, offered: Vec<String>) {
        let Some(field) = self.field_mut(id) else { return };
        match &mut field.kind {
            Kind::Choice { options, at } => {
                let before = options.get(*at).cloned();
                *at = offered.iter().position(|option| Some(option) == before.as_ref()).unwrap_or(0);
                *options = offered;
            }
            Kind::Many { options, at } => {
                let on = |option: &String| options.iter().any(|(old, on)| old == option && *on);
                let merged: Vec<_> = offered.into_iter().map(|option| (option.clone(), on(&option))).collect();
                *at = (*at).min(merged.len().saturating_sub(1));
                *options = merged;
            }
            Kind::Text(_) | Kind::Secret(_) | Kind::Button => {}
        }
    }

    /// Whether a field is not asked now.
    pub(crate) fn is_hidden(&self, id: &str) -> bool {
        self.field(id).is_some_and(|field| field.hidden)
    }

    /// Empties the fields for secrets.
    pub(crate) fn forget_secrets(&mut self) {
        for field in &mut self.fields {
            if let Kind::Secret(secret) = &mut field.kind {
                *secret = Secret::default();
            }
        }
    }

    /// Says what is wrong with a field; false when there is no such field.
    pub(crate) fn blame(&mut self, id: &str, message: &str, hint: &str) -> bool {
        let Some(field) = self.field_mut(id) else { return false };
        field.problem = Some(FieldProblem { message: message.to_owned(), hint: hint.to_owned() });
        true
    }

    /// Forgets all problems.
    pub(crate) fn absolve(&mut self) {
        for field in &mut self.fields {
            field.problem = None;
        }
    }

    /// Whether anything is wrong, as far as is known.
    pub(crate) fn has_problems(&self) -> bool {
        self.fields.iter().any(|field| field.problem.is_some() && !field.hidden)
    }

    /// Puts the focus on the first field with a problem.
    pub(crate) fn focus_problem(&mut self) {
        if let Some(at) = self.fields.iter().position(|field| field.problem.is_some() && !field.hidden) {
            self.focus = at;
        }
    }

    /// Returns the help of the field with the focus.
    pub(crate) fn help(&self) -> &str {
        self.fields.get(self.focus).map_or("", |field| field.help.as_str())
    }

    /// Paints the form, scrolled so that the focus shows; returns where the cursor belongs.
    pub(crate) fn view(&self, buf: &mut Buffer, area: Rect, theme: Theme) -> Option<Position> {
        let mut skip = self.scroll(usize::from(area.height));
        let mut painter = Painter { buf, area, theme, row: 0, cursor: None };
        for (index, field) in self.fields.iter().enumerate().filter(|(_, field)| !field.hidden) {
            if skip > 0 {
                skip = skip.saturating_sub(field.lines());
                continue;
            }
            painter.field(field, index == self.focus);
        }
        painter.cursor
    }

    /// Returns how many lines of whole fields must be left out at the top.
    fn scroll(&self, height: usize) -> usize {
        let shown: Vec<(usize, usize)> = self
            .fields
            .iter()
            .enumerate()
            .filter(|(_, field)| !field.hidden)
            .map(|(at, field)| (at, field.lines()))
            .collect();
        let end: usize = shown.iter().take_while(|(at, _)| *at <= self.focus).map(|(_, lines)| lines).sum();
        let mut out = 0;
        for (at, lines) in shown {
            if end - out <= height || at >= self.focus {
                break;
            }
            out += lines;
        }
        out
    }
}

fn edit(field: &mut Field, key: Key) -> Outcome {
    match &mut field.kind {
        Kind::Text(input) => {
            let request = match key {
                Key::Char(ch) if input.value().chars().count() < TEXT_CHARS_MAX => InputRequest::InsertChar(ch),
                Key::Backspace => InputRequest::DeletePrevChar,
                Key::Delete => InputRequest::DeleteNextChar,
                Key::Left => InputRequest::GoToPrevChar,
                Key::Right => InputRequest::GoToNextChar,
                Key::Home => InputRequest::GoToStart,
                Key::End => InputRequest::GoToEnd,
                Key::Ctrl('u') => InputRequest::DeleteLine,
                _ => return Outcome::Ignored,
            };
            if input.handle(request).is_some_and(|change| change.value) {
                field.problem = None;
                return Outcome::Changed(field.id);
            }
            Outcome::Moved
        }
        Kind::Choice { options, at } => {
            let count = options.len().max(1);
            match key {
                Key::Char(' ') | Key::Right => *at = (*at + 1) % count,
                Key::Left => *at = (*at + count - 1) % count,
                _ => return Outcome::Ignored,
            }
            field.problem = None;
            Outcome::Changed(field.id)
        }
        Kind::Many { options, at } => match (key, options.get_mut(*at)) {
            (Key::Char(' '), Some((_, on))) => {
                *on = !*on;
                field.problem = None;
                Outcome::Changed(field.id)
            }
            _ => Outcome::Ignored,
        },
        Kind::Secret(secret) => {
            match key {
                Key::Char(ch) => secret.push(ch),
                Key::Backspace => drop(secret.0.pop()),
                Key::Ctrl('u') => secret.0.clear(),
                _ => return Outcome::Ignored,
            }
            field.problem = None;
            Outcome::Changed(field.id)
        }
        Kind::Button => Outcome::Ignored,
    }
}

struct Painter<'a> {
    buf: &'a mut Buffer,
    area: Rect,
    theme: Theme,
    row: u16,
    cursor: Option<Position>,
}

impl Painter<'_> {
    fn field(&mut self, field: &Field, focused: bool) {
        let room = usize::from(self.area.width).saturating_sub(LABEL_WIDTH);
        match &field.kind {
            Kind::Text(input) => {
                let scroll = if focused { input.visual_scroll(room.saturating_sub(1)) } else { 0 };
                let shown: String = narrow(input.value()).chars().skip(scroll).take(room).collect();
                let pad = " ".repeat(room.saturating_sub(shown.width()));
                let style = ratatui::style::Style::new().add_modifier(ratatui::style::Modifier::UNDERLINED);
                let at = LABEL_WIDTH + input.visual_cursor().saturating_sub(scroll);
                self.line(field, focused, vec![Span::styled(format!("{shown}{pad}"), style)], at);
            }
            Kind::Choice { options, at } => {
                let text = choice_text(options, *at, room);
                self.line(field, focused, vec![Span::raw(text)], LABEL_WIDTH);
            }
            Kind::Secret(secret) => {
                let shown = cut(&secret.painted(), room, self.theme.cut());
                let pad = " ".repeat(room.saturating_sub(shown.width()));
                let style = ratatui::style::Style::new().add_modifier(ratatui::style::Modifier::UNDERLINED);
                self.line(field, focused, vec![Span::styled(format!("{shown}{pad}"), style)], LABEL_WIDTH);
            }
            Kind::Many { options, at } => self.many(field, focused, options, *at, room),
            Kind::Button => {
                let style = if focused { self.theme.reverse() } else { self.theme.strong() };
                let label = Span::styled(format!("[ {} ]", field.label), style);
                let lead = Span::raw(" ".repeat(LABEL_WIDTH));
                self.put(Line::from(vec![lead, label]), focused.then_some(LABEL_WIDTH));
            }
        }
        if let Some(problem) = &field.problem {
            let hint = if problem.hint.is_empty() { String::new() } else { format!(" ({})", problem.hint) };
            let text = cut(&format!("{}{hint}", problem.message), room.saturating_sub(2), self.theme.cut());
            let style = self.theme.state(State::Bad);
            let glyph = self.theme.glyph(State::Bad);
            let lead = Span::raw(" ".repeat(LABEL_WIDTH));
            self.put(Line::from(vec![lead, Span::styled(format!("{glyph} {text}"), style)]), None);
        }
    }

    fn many(&mut self, field: &Field, focused: bool, options: &[(String, bool)], at: usize, room: usize) {
        if options.is_empty() {
            self.line(field, focused, vec![Span::styled("(nothing to choose)", self.theme.dim())], LABEL_WIDTH);
        }
        for (index, (option, on)) in options.iter().enumerate() {
            let mark = if *on { "[x]" } else { "[ ]" };
            let text = cut(&format!("{mark} {}", narrow(option)), room, self.theme.cut());
            let here = focused && index == at;
            let span = Span::styled(text, if here { self.theme.reverse() } else { ratatui::style::Style::new() });
            if index == 0 {
                self.line(field, focused, vec![span], LABEL_WIDTH);
            } else {
                self.put(Line::from(vec![Span::raw(" ".repeat(LABEL_WIDTH)), span]), here.then_some(LABEL_WIDTH));
            }
        }
    }

    fn line(&mut self, field: &Field, focused: bool, value: Vec<Span<'static>>, cursor: usize) {
        let lead = if focused { ">" } else { " " };
        let label = format!("{lead} {:<width$}", field.label, width = LABEL_WIDTH - 2);
        let style = if focused { self.theme.strong() } else { self.theme.dim() };
        let mut spans = vec![Span::styled(label, style)];
        spans.extend(value);
        self.put(Line::from(spans), focused.then_some(cursor));
    }

    fn put(&mut self, line: Line<'_>, cursor: Option<usize>) {
        put(self.buf, self.area, self.row, &line);
        if let Some(column) = cursor
            && self.row < self.area.height
        {
            let column = u16::try_from(column).unwrap_or(u16::MAX).min(self.area.width.saturating_sub(1));
            self.cursor =
                Some(Position { x: self.area.x.saturating_add(column), y: self.area.y.saturating_add(self.row) });
        }
        self.row = self.row.saturating_add(1);
    }
}

/// All options when they fit in one line, else the chosen one and how many there are.
fn choice_text(options: &[String], at: usize, room: usize) -> String {
    let marked = options
        .iter()
        .enumerate()
        .map(|(index, option)| format!("{} {}", if index == at { "(*)" } else { "( )" }, narrow(option)));
    let all = marked.collect::<Vec<_>>().join("  ");
    if options.is_empty() {
        return "(nothing to choose)".to_owned();
    }
    if all.width() <= room {
        return all;
    }
    let chosen = options.get(at).map_or("", String::as_str);
    cut(&format!("< {} >  {} of {}", narrow(chosen), at + 1, options.len()), room, "~")
}

/// Returns the lines of a text for below a form.
pub(crate) fn help_lines(text: &str, width: u16, theme: Theme) -> Vec<Line<'static>> {
    wrap(text, usize::from(width)).into_iter().map(|line| Line::styled(line, theme.dim())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn form() -> Form {
        Form::new(vec![
            Field::text("name", "Name", "", ""),
            Field::choice("key", "Key", vec!["p256".into(), "p384".into()], ""),
            Field::many("reload", "Reload", vec![("a".into(), false), ("b".into(), true)], ""),
            Field::button("go", "Continue"),
        ])
    }

    #[test]
    fn enter_goes_from_field_to_field_and_on_the_last_one_submits() {
        let mut form = form();
        for expected in ["key", "reload", "go"] {
            assert_eq!(form.key(Key::Enter), Outcome::Moved);
            assert_eq!(form.focused(), Some(expected));
        }
        assert_eq!(form.key(Key::Enter), Outcome::Submit);
    }

    #[test]
    fn a_paste_becomes_one_line_without_control_characters() {
        let mut form = form();
        form.insert("a.example\nb.example\u{1b}[A\n");
        assert_eq!(form.value("name"), "a.example b.example[A");
    }

    #[test]
    fn a_secret_is_neither_painted_nor_in_debug() {
        let mut form = Form::new(vec![Field::secret("key", "Key", ""), Field::button("go", "Go")]);
        form.insert("zWNDZM6e\n");
        form.key(Key::Char('Q'));
        assert_eq!(form.secret("key").expose(), "zWNDZM6eQ");
        let area = Rect::new(0, 0, 60, 2);
        let mut buf = Buffer::empty(area);
        form.view(&mut buf, area, Theme { color: false, ascii: true });
        let painted: String = buf.content.iter().map(|cell| cell.symbol()).collect();
        assert!(painted.contains("******** (9 characters, not shown)"), "{painted}");
        assert!(!format!("{form:?}{painted}").contains("zWNDZM"));
        form.key(Key::Ctrl('u'));
        assert_eq!(form.secret("key"), Secret::default());
    }

    #[test]
    fn new_offers_keep_what_was_chosen() {
        let mut form = form();
        form.offer("reload", vec!["b".into(), "c".into()]);
        assert_eq!(form.picked("reload"), ["b"]);
        form.focus("key");
        form.key(Key::Char(' '));
        form.offer("key", vec!["rsa2048".into(), "p384".into()]);
        assert_eq!(form.chosen("key"), "p384");
    }

    #[test]
    fn the_focus_shows_at_every_size() {
        let theme = Theme { color: false, ascii: true };
        for height in 1..8 {
            for focus in ["name", "key", "reload", "go"] {
                let mut form = form();
                form.focus(focus);
                let area = Rect::new(0, 0, 40, height);
                let cursor = form.view(&mut Buffer::empty(area), area, theme);
                assert!(cursor.is_some() || focus == "reload", "{focus} at height {height}");
            }
        }
    }
}
