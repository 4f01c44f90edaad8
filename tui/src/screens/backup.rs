//! A backup from the dashboard: where to, and what opens it again; then how far it is, and how it ended. The passphrase is
//! typed twice, never painted, and forgotten when the screen is left.
//!
//! ```text
//!  Overview > take a backup
//! ┌ Fields ──────────────────────────────────────────────────────────────┐
//! └──────────────────────────────────────────────────────────────────────┘
//!  what the field with the focus means
//!  what a backup is; the last one; the same on the command line
//! ```

use proto::types::v1::Problem;
use ratatui::buffer::Buffer;
use ratatui::layout::{Position, Rect};
use ratatui::text::{Line, Span};

use crate::app::call::{BackupWish, Call};
use crate::app::{Cmd, Model};
use crate::keys::Key;
use crate::screens::Place;
use crate::screens::words::{badge, problem_lines};
use crate::theme::{State, Theme};
use crate::view;
use crate::widgets::form::{Field, Form, Outcome, Secret, help_lines};
use crate::widgets::panel::{panel, put, put_all, put_right, rows as part};
use crate::widgets::text::{ago, command_lines, count, safe, wrap};

const PASSPHRASE: &str = "a passphrase";
const KEY_FILE: &str = "a recovery key";
/// Border, fields and one problem.
const FORM_HEIGHT: u16 = 8;

/// How far it is.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Stage {
    /// It is asked for.
    Asked,
    /// So many bytes are written.
    Runs(u64),
    /// It is whole, and has so many bytes.
    Done(u64),
}

/// A backup that is asked for, runs or is done.
#[derive(Debug)]
pub(crate) struct BackupScreen {
    form: Form,
    stage: Stage,
    problem: Option<Problem>,
}

impl BackupScreen {
    fn new(model: &Model) -> Self {
        let file = format!("certwright-{}.backup", model.now.strftime("%Y-%m-%d"));
        let form = Form::new(vec![
            Field::text("to", "File", &file, "A file on this machine that does not exist yet; only you may read it."),
            Field::choice(
                "seal",
                "Opened by",
                vec![PASSPHRASE.to_owned(), KEY_FILE.to_owned()],
                "It is asked for at every restore and is not in the backup. certwright backup keygen FILE makes a key.",
            ),
            Field::secret("passphrase", "Passphrase", "At least 12 characters. Without it nobody opens the backup."),
            Field::secret("again", "Once more", "The same passphrase again."),
            Field::text("key_file", "Key file", "", "A file on this machine that certwright backup keygen made."),
            Field::button("go", "Take the backup"),
        ]);
        let mut screen = Self { form, stage: Stage::Asked, problem: None };
        screen.follow();
        screen
    }

    fn by_key(&self) -> bool {
        self.form.chosen("seal") == KEY_FILE
    }

    fn follow(&mut self) {
        let by_key = self.by_key();
        for (id, shown) in [("passphrase", !by_key), ("again", !by_key), ("key_file", by_key)] {
            self.form.show(id, shown);
        }
    }

    /// Whether it is still asked for.
    pub(crate) fn is_asked(&self) -> bool {
        self.stage == Stage::Asked
    }

    /// Whether it is on its way.
    pub(crate) fn runs(&self) -> bool {
        matches!(self.stage, Stage::Runs(_))
    }

    /// So many bytes are written.
    pub(crate) fn wrote(&mut self, bytes: u64) {
        if self.runs() {
            self.stage = Stage::Runs(bytes);
        }
    }

    /// It is whole.
    pub(crate) fn done(&mut self, bytes: u64) {
        self.form.forget_secrets();
        self.stage = Stage::Done(bytes);
    }

    /// There is none: what was written stays for another try.
    pub(crate) fn failed(&mut self, problem: &Problem) {
        self.stage = Stage::Asked;
        self.problem = Some(problem.clone());
    }

    fn wish(&self) -> BackupWish {
        let by_key = self.by_key();
        BackupWish {
            to: self.form.value("to").to_owned(),
            key_file: if by_key { self.form.value("key_file").to_owned() } else { String::new() },
            passphrase: if by_key { Secret::default() } else { self.form.secret("passphrase") },
        }
    }

    /// Returns what is wrong: field, what, what to do.
    fn complaint(&self) -> Option<(&'static str, &'static str, &'static str)> {
        let wish = self.wish();
        match wish.to.as_str() {
            "" | "-" => return Some(("to", "a file is needed", "such as certwright.backup")),
            _ => {}
        }
        if self.by_key() {
            return wish.key_file.is_empty().then_some((
                "key_file",
                "its file is needed",
                "certwright backup keygen FILE",
            ));
        }
        if wish.passphrase.expose().is_empty() {
            return Some(("passphrase", "a passphrase is needed", "at least 12 characters"));
        }
        let same = wish.passphrase == self.form.secret("again");
        (!same).then_some(("again", "it is not the same", "Ctrl-u clears the field"))
    }

    fn command(&self) -> String {
        let seal =
            if self.by_key() { format!("--key-file {}", self.quoted("key_file")) } else { "--passphrase -".to_owned() };
        format!("certwright backup create --to {} {seal}", self.quoted("to"))
    }

    /// Returns the command that proves a backup which is whole.
    pub(crate) fn check_command(&self) -> Option<String> {
        let seal =
            if self.by_key() { format!("--key-file {}", self.quoted("key_file")) } else { "--passphrase -".to_owned() };
        matches!(self.stage, Stage::Done(_))
            .then(|| format!("certwright-controller backup verify --from {} {seal}", self.quoted("to")))
    }

    fn quoted(&self, id: &str) -> String {
        let value = self.form.value(id);
        let value = if value.is_empty() { "FILE" } else { value };
        shlex::try_quote(value).map_or_else(|_| String::new(), std::borrow::Cow::into_owned)
    }
}

/// `B`: asks for a backup, or shows the one that runs.
pub(crate) fn open(model: &mut Model) -> Vec<Cmd> {
    if model.backup.is_none() {
        model.backup = Some(BackupScreen::new(model));
    }
    model.go(Place::Backup, true)
}

/// Handles a key; `None` when it is not for the form.
pub(crate) fn key(model: &mut Model, key: Key) -> Option<Vec<Cmd>> {
    let screen = model.backup.as_mut()?;
    match screen.form.key(key) {
        Outcome::Ignored => None,
        Outcome::Moved => Some(Vec::new()),
        Outcome::Changed(_) => {
            screen.problem = None;
            screen.follow();
            Some(Vec::new())
        }
        Outcome::Submit => Some(submit(model)),
    }
}

/// Puts text into the form; `None` when its field takes none.
pub(crate) fn insert(model: &mut Model, text: &str) -> Option<Vec<Cmd>> {
    model.backup.as_mut()?.form.insert(text)?;
    Some(Vec::new())
}

fn submit(model: &mut Model) -> Vec<Cmd> {
    if let Some(why) = model.read_only() {
        model.notices.say(model.now, State::Warn, format!("not now: {why}"));
        return Vec::new();
    }
    let Some(screen) = model.backup.as_mut().filter(|screen| screen.is_asked()) else { return Vec::new() };
    screen.form.absolve();
    if let Some((field, what, hint)) = screen.complaint() {
        screen.form.blame(field, what, hint);
        screen.form.focus(field);
        return Vec::new();
    }
    screen.stage = Stage::Runs(0);
    screen.problem = None;
    let wish = screen.wish();
    model.notices.say(model.now, State::Busy, format!("backup into {} …", wish.to));
    vec![model.call(Call::Backup(Box::new(wish)))]
}

/// Paints the form, or how far it is.
pub(crate) fn paint(model: &Model, area: Rect, buf: &mut Buffer) -> Option<Position> {
    let screen = model.backup.as_ref()?;
    let theme = model.theme;
    let heading = vec![Span::styled(" Overview > ", theme.dim()), Span::styled("take a backup", theme.strong())];
    put(buf, area, 0, &Line::from(heading));
    let width = usize::from(area.width).saturating_sub(4).max(1);
    let (state, word, lines) = match screen.stage {
        Stage::Asked => return paint_form(model, screen, area, buf),
        Stage::Runs(bytes) => (State::Busy, "on its way ", running_lines(screen, bytes, width)),
        Stage::Done(bytes) => (State::Ok, "whole ", done_lines(screen, bytes, theme, width)),
    };
    put_right(buf, area, 0, &badge(state, word, theme));
    put_all(buf, part(area, 2, u16::MAX), lines);
    None
}

fn paint_form(model: &Model, screen: &BackupScreen, area: Rect, buf: &mut Buffer) -> Option<Position> {
    let theme = model.theme;
    if let Some(mark) = view::read_only_mark(model) {
        put_right(buf, area, 0, &Line::from(mark));
    }
    let inner = panel(buf, part(area, 1, FORM_HEIGHT), theme, "", "Esc leaves, nothing is taken");
    let cursor = screen.form.view(buf, inner, theme);
    let width = area.width.saturating_sub(2);
    let room = usize::from(width).max(1);
    let mut lines = help_lines(screen.form.help(), width, theme);
    lines.push(Line::default());
    match &screen.problem {
        Some(problem) => {
            let text = format!("{} {}", theme.glyph(State::Bad), problem.message);
            lines.extend(wrap(&text, room).into_iter().map(|part| Line::styled(part, theme.state(State::Bad))));
            lines.extend(problem_lines(problem, theme, room, 2));
        }
        None => {
            let what = "The whole controller of this instant, sealed there: it works on meanwhile, and the file may lie anywhere.";
            lines.extend(wrap(what, room).into_iter().map(Line::from));
            lines.push(Line::from(last(model)));
        }
    }
    lines.push(Line::default());
    let command = command_lines(&screen.command(), room);
    lines.extend(command.into_iter().map(|part| Line::styled(part, theme.accent())));
    let indent = |line: Line<'static>| {
        let mut spans = vec![Span::raw(" ")];
        spans.extend(line.spans.into_iter().map(|span| span.patch_style(line.style)));
        Line::from(spans)
    };
    put_all(buf, part(area, 1 + FORM_HEIGHT, u16::MAX), lines.into_iter().map(indent));
    cursor
}

/// When the last one was taken, and by whom.
fn last(model: &Model) -> String {
    match &model.overview.counts {
        None => String::new(),
        Some(counts) if counts.backup_at == 0 => "There is no backup yet.".to_owned(),
        Some(counts) => {
            format!("The last one was taken {} by {}.", ago(model.now, counts.backup_at), safe(&counts.backup_by))
        }
    }
}

fn running_lines(screen: &BackupScreen, bytes: u64, width: usize) -> Vec<Line<'static>> {
    let to = safe(screen.form.value("to"));
    let mut lines = vec![Line::from(format!("  {} bytes so far into {to}", count(bytes))), Line::default()];
    let what = "It counts once it is whole; until then it is called .part. It goes on when this screen is left, and the status line tells how it ended.";
    lines.extend(wrap(what, width).into_iter().map(|part| Line::from(format!("  {part}"))));
    lines
}

fn done_lines(screen: &BackupScreen, bytes: u64, theme: Theme, width: usize) -> Vec<Line<'static>> {
    let to = safe(screen.form.value("to"));
    let mut lines = vec![
        Line::styled(format!("  {} bytes written to {to}", count(bytes)), theme.strong()),
        Line::default(),
        Line::from("  Check that it opens (y copies the command):"),
        Line::default(),
    ];
    let command = command_lines(&screen.check_command().unwrap_or_default(), width);
    lines.extend(command.into_iter().map(|part| Line::styled(format!("  {part}"), theme.accent())));
    lines.push(Line::default());
    let keep = "Keep it and what opens it apart, and neither on this machine only. With a copy of removals.jsonl a restore also knows who was revoked since.";
    lines.extend(wrap(keep, width).into_iter().map(|part| Line::from(format!("  {part}"))));
    lines
}

/// Returns the status line.
pub(crate) fn status(model: &Model) -> (String, String) {
    let left = match model.backup.as_ref().map(|screen| &screen.stage) {
        Some(Stage::Asked) => "Tab next field, Space chooses",
        Some(Stage::Runs(_)) => "a backup is being taken",
        Some(Stage::Done(_)) => "q goes back",
        None => "",
    };
    (left.to_owned(), String::new())
}
