//! What floats above a place: prompts, questions, help, messages. `Esc` always closes the top one without doing anything.
//! A question names what it is about when it opens, so what changes on the screen below cannot change what is done.
//! Called by `app::act`; painted by `screens::layers`.
#![allow(clippy::wildcard_enum_match_arm, reason = "keys and places: most mean nothing here")]

use std::time::Duration;

use jiff::Timestamp;
use proto::operator::v1::{CheckChallengesResponse, TargetTest};
use tui_input::{Input, InputRequest};

use crate::app::call::{Call, Trust};
use crate::app::{Cmd, Model, Timer, act, off};
use crate::keys::{Action, Key, TABLE};
use crate::screens::Place;
use crate::theme::State;

/// The list is asked for again when the typing rests for so long.
const FILTER_REST: Duration = Duration::from_millis(150);
/// How long a question about what cannot be undone stands before `Enter` answers it (tui.md §2.9, level 3).
const READING: Duration = Duration::from_secs(3);
/// What happens to the files of a certificate that is deleted.
pub(crate) const PURGES: [(&str, &str); 2] =
    [("keep", "files stay as they are"), (PURGE, "files are removed once they are no longer served")];
const PURGE: &str = "purge";
/// Why a version is revoked: the words of RFC 5280.
pub(crate) const REASONS: [(&str, &str); 5] = [
    ("superseded", "another certificate took its place"),
    ("keyCompromise", "somebody else may have the key"),
    ("cessationOfOperation", "the names are not used any more"),
    ("affiliationChanged", "the names have another owner"),
    ("unspecified", "none of these"),
];
/// What becomes of the operators that a backup has.
pub(crate) const OPERATORS: [(&str, &str); 2] =
    [("remove", "all but root; invite them again"), (KEEP, "they stay as the backup has them")];
const KEEP: &str = "keep";
/// Longest line in a prompt.
const PROMPT_CHARS_MAX: usize = 256;

/// One layer.
#[derive(Clone, Debug)]
pub(crate) enum Layer {
    /// The keys, scrolled by so many lines.
    Help(usize),
    /// The messages, scrolled by so many lines.
    Messages(usize),
    /// What agents found when they were asked.
    Tests(Box<Tests>),
    /// The command line.
    Palette(Palette),
    /// The filter of the list below.
    Filter(Filter),
    /// A question.
    Confirm(Box<Confirm>),
}

impl Layer {
    /// Returns by how many lines it is scrolled, when it is read and not answered.
    pub(crate) fn scroll(&mut self) -> Option<&mut usize> {
        match self {
            Self::Help(scroll) | Self::Messages(scroll) => Some(scroll),
            Self::Tests(tests) => Some(&mut tests.scroll),
            Self::Palette(_) | Self::Filter(_) | Self::Confirm(_) => None,
        }
    }
}

/// What agents found when they were asked.
#[derive(Clone, Debug)]
pub(crate) enum Found {
    /// By tests of targets.
    Targets(Vec<TargetTest>),
    /// By a look at challenges.
    Challenges(Box<CheckChallengesResponse>),
}

/// What agents found about a certificate.
#[derive(Clone, Debug)]
pub(crate) struct Tests {
    /// Whose targets or challenges.
    pub(crate) certificate: String,
    /// What they found.
    pub(crate) found: Found,
    /// Scrolled by so many lines.
    pub(crate) scroll: usize,
}

/// The command line.
#[derive(Clone, Debug, Default)]
pub(crate) struct Palette {
    /// What is typed.
    pub(crate) input: Input,
    /// Which entry is chosen.
    pub(crate) at: usize,
}

/// The filter prompt.
#[derive(Clone, Debug)]
pub(crate) struct Filter {
    /// What is typed.
    pub(crate) input: Input,
    /// What the filter was before.
    pub(crate) before: String,
    /// Counts the typing, so that only its last rest asks.
    typed: u64,
}

/// A question before something is changed.
#[derive(Clone, Debug)]
pub(crate) struct Confirm {
    /// What will be done.
    pub(crate) title: String,
    /// What exactly happens, line by line.
    pub(crate) lines: Vec<String>,
    /// The name to type, for what cannot be undone.
    pub(crate) name: Option<String>,
    /// A reason may be typed instead.
    pub(crate) note: Option<Note>,
    /// What is typed of either.
    pub(crate) input: Input,
    /// What else has to be chosen.
    pub(crate) choice: Option<Choice>,
    /// The word on the button.
    pub(crate) verb: &'static str,
    /// What is sent.
    pub(crate) call: Call,
    /// `Enter` is not taken before: who is about to do what cannot be undone reads it first.
    pub(crate) opens_at: Option<Timestamp>,
}

/// One of several ways to do it; `Tab` goes through them.
#[derive(Clone, Debug)]
pub(crate) struct Choice {
    /// What can be chosen: the word for the request, and what it means.
    pub(crate) options: &'static [(&'static str, &'static str)],
    /// Which one is.
    pub(crate) at: usize,
}

impl Choice {
    /// Returns a choice of which the first option is chosen.
    pub(crate) fn of(options: &'static [(&'static str, &'static str)]) -> Self {
        Self { options, at: 0 }
    }

    /// Returns the word of what is chosen.
    pub(crate) fn word(&self) -> &'static str {
        self.options.get(self.at).map_or("", |(word, _)| word)
    }

    fn turn(&mut self, forward: bool) {
        let count = self.options.len().max(1);
        self.at = if forward { self.at + 1 } else { self.at + count - 1 } % count;
    }
}

/// The reason of an act.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Note {
    /// Without it the act is refused.
    pub(crate) needed: bool,
}

impl Confirm {
    /// Whether the name stands there in full, or the reason that is needed.
    pub(crate) fn is_named(&self) -> bool {
        let typed = self.input.value();
        let reason = self.note.is_none_or(|note| !note.needed || !typed.trim().is_empty());
        reason && self.name.as_deref().is_none_or(|name| name == typed)
    }

    /// Whether it takes text, so that no key means yes.
    pub(crate) fn takes_text(&self) -> bool {
        self.name.is_some() || self.note.is_some()
    }

    /// Makes it a question of the highest level: it has to stand for a moment.
    pub(crate) fn read_first(mut self, now: Timestamp) -> Self {
        self.opens_at = now.checked_add(READING).ok();
        self
    }

    /// Returns for how many seconds `Enter` is not taken yet; 0 when it is.
    pub(crate) fn opens_in(&self, now: Timestamp) -> i64 {
        let millis = self.opens_at.map_or(0, |at| at.as_millisecond() - now.as_millisecond());
        millis.max(0).div_euclid(1_000) + i64::from(millis.max(0) % 1_000 > 0)
    }

    fn call(self) -> Call {
        match (self.call, self.choice) {
            (Call::Pause(mut request), _) if self.note.is_some() => {
                self.input.value().trim().clone_into(&mut request.reason);
                Call::Pause(request)
            }
            (Call::Renew(mut request), _) if self.note.is_some() => {
                self.input.value().trim().clone_into(&mut request.override_lock);
                Call::Renew(request)
            }
            (Call::Act(mut request), _) if self.note.is_some() => {
                self.input.value().trim().clone_into(&mut request.override_lock);
                if !request.override_lock.is_empty() {
                    // The locked ones come with it: the number is another.
                    request.expected = 0;
                }
                Call::Act(request)
            }
            (Call::Act(mut request), Some(choice)) => {
                choice.word().clone_into(&mut request.reason);
                Call::Act(request)
            }
            (Call::Delete(mut request), Some(choice)) => {
                request.purge = choice.word() == PURGE;
                Call::Delete(request)
            }
            (Call::RevokeVersion(mut request), Some(choice)) => {
                choice.word().clone_into(&mut request.reason);
                Call::RevokeVersion(request)
            }
            (Call::SetRole(mut request), Some(choice)) => {
                choice.word().clone_into(&mut request.role);
                Call::SetRole(request)
            }
            (Call::Trust(Trust::Accept { .. }), Some(choice)) => {
                Call::Trust(Trust::Accept { keep_operators: choice.word() == KEEP })
            }
            (call, _) => call,
        }
    }
}

/// What a palette entry does.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Run {
    /// An action here.
    Action(Action),
    /// Go to a place.
    Go(Place),
    /// Go to a list and filter it.
    Find(Place, String),
}

/// One line of the palette.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    /// What it says.
    pub(crate) label: String,
    /// Its key.
    pub(crate) key: String,
    /// Why it cannot be run now.
    pub(crate) off: Option<String>,
    /// What it does.
    pub(crate) run: Run,
}

/// Returns the palette's entries for what is typed.
pub(crate) fn entries(model: &Model, typed: &str) -> Vec<Entry> {
    let typed = typed.trim();
    let mut found: Vec<Entry> = named(typed).into_iter().collect();
    let context = model.place_context();
    let needle = typed.to_lowercase();
    for row in TABLE.iter().filter(|row| row.palette && row.action != Action::Palette) {
        let place = if row.id.starts_with("go.") { "go to " } else { "" };
        let label = format!("{place}{}", row.help);
        if !label.to_lowercase().contains(&needle) && !row.id.contains(&needle) {
            continue;
        }
        let here = row.contexts.contains(&context) || row.id.starts_with("go.");
        let off = if here { off::why(model, row) } else { Some("not here".to_owned()) };
        let key = row.keys.first().map_or_else(String::new, |key| key.label());
        found.push(Entry { label, key, off, run: Run::Action(row.action) });
    }
    found.sort_by_key(|entry| entry.off.is_some());
    found
}

/// Reads `certs TEXT`, `cert NAME`, `agents TEXT`, `agent NAME`.
fn named(typed: &str) -> Option<Entry> {
    let (word, rest) = typed.split_once(' ').unwrap_or((typed, ""));
    let rest = rest.trim().to_owned();
    let (label, run) = match (word, rest.is_empty()) {
        ("certs" | "certificates", _) => (format!("certificates {rest}"), Run::Find(Place::Certificates, rest)),
        ("agents", _) => (format!("agents {rest}"), Run::Find(Place::Agents, rest)),
        ("issuer", false) => (format!("open issuer {rest}"), Run::Go(Place::Issuer(rest))),
        ("cert", false) => (format!("open certificate {rest}"), Run::Go(Place::Certificate(rest))),
        ("agent", false) => (format!("open agent {rest}"), Run::Go(Place::Agent(rest))),
        ("q" | "quit", true) => ("leave the dashboard".to_owned(), Run::Action(Action::Quit)),
        _ => return None,
    };
    Some(Entry { label, key: String::new(), off: None, run })
}

/// Opens the filter prompt of the list that shows.
pub(crate) fn open_filter(model: &mut Model) -> Vec<Cmd> {
    let before = match model.place {
        Place::Agents => model.agents.filter.clone(),
        Place::Audit => model.audit.list.filter.clone(),
        _ => model.certificates.filter.clone(),
    };
    let input = Input::new(before.clone());
    model.layers.push(Layer::Filter(Filter { input, before, typed: 0 }));
    Vec::new()
}

/// Sets the filter of the list that shows and reads it.
pub(crate) fn set_filter(model: &mut Model, filter: &str) -> Vec<Cmd> {
    match model.place {
        Place::Certificates if model.certificates.filter != filter => {
            model.certificates.filter = filter.to_owned();
            model.marks.filter_changed();
            model.certificates.refresh();
        }
        Place::Agents if model.agents.filter != filter => {
            model.agents.filter = filter.to_owned();
            model.agents.refresh();
        }
        Place::Audit if model.audit.list.filter != filter => {
            model.audit.list.filter = filter.to_owned();
            model.audit.refresh();
        }
        _ => return Vec::new(),
    }
    model.read()
}

/// The typing in the filter has rested.
pub(crate) fn filter_rested(model: &mut Model, typed: u64) -> Vec<Cmd> {
    let Some(Layer::Filter(filter)) = model.layers.last() else { return Vec::new() };
    if filter.typed != typed {
        return Vec::new();
    }
    let text = filter.input.value().trim().to_owned();
    set_filter(model, &text)
}

/// Handles a key in the top layer; `None` when the key is not text and the key table shall say what it means.
pub(crate) fn key(model: &mut Model, key: Key) -> Option<Vec<Cmd>> {
    match model.layers.last_mut()? {
        Layer::Help(_) | Layer::Messages(_) | Layer::Tests(_) => None,
        Layer::Palette(palette) => {
            let at = palette.at;
            match key {
                Key::Down | Key::Tab => palette.at = at.saturating_add(1),
                Key::Up | Key::BackTab => palette.at = at.saturating_sub(1),
                Key::Backspace if palette.input.value().is_empty() => drop(model.layers.pop()),
                key if edit(&mut palette.input, key) => palette.at = 0,
                _ => return None,
            }
            Some(Vec::new())
        }
        Layer::Filter(filter) => {
            if !edit(&mut filter.input, key) {
                return None;
            }
            filter.typed = filter.typed.wrapping_add(1);
            Some(vec![Cmd::After(Timer::Filter(filter.typed), FILTER_REST)])
        }
        Layer::Confirm(confirm) => {
            if let (Key::Tab | Key::BackTab | Key::Down | Key::Up, Some(choice)) = (key, &mut confirm.choice) {
                choice.turn(matches!(key, Key::Tab | Key::Down));
                return Some(Vec::new());
            }
            (confirm.takes_text() && edit(&mut confirm.input, key)).then(Vec::new)
        }
    }
}

/// Puts text into the top layer's line; false when it takes none.
pub(crate) fn insert(model: &mut Model, text: &str, bracketed: bool) -> Option<Vec<Cmd>> {
    let now = model.now;
    if bracketed
        && let Some(Layer::Confirm(confirm)) = model.layers.last()
        && confirm.name.is_some()
    {
        model.notices.say(now, State::Warn, "the name must be typed, not pasted");
        return Some(Vec::new());
    }
    let input = match model.layers.last_mut()? {
        Layer::Help(_) | Layer::Messages(_) | Layer::Tests(_) => return None,
        Layer::Palette(palette) => &mut palette.input,
        Layer::Filter(filter) => &mut filter.input,
        Layer::Confirm(confirm) if confirm.takes_text() => &mut confirm.input,
        Layer::Confirm(_) => return None,
    };
    for ch in text.trim_end_matches(['\n', '\r']).chars() {
        edit(input, Key::Char(if ch.is_control() { ' ' } else { ch }));
    }
    if let Some(Layer::Filter(filter)) = model.layers.last_mut() {
        filter.typed = filter.typed.wrapping_add(1);
        return Some(vec![Cmd::After(Timer::Filter(filter.typed), FILTER_REST)]);
    }
    Some(Vec::new())
}

fn edit(input: &mut Input, key: Key) -> bool {
    let request = match key {
        Key::Char(ch) if input.value().chars().count() < PROMPT_CHARS_MAX => InputRequest::InsertChar(ch),
        Key::Backspace => InputRequest::DeletePrevChar,
        Key::Delete => InputRequest::DeleteNextChar,
        Key::Left => InputRequest::GoToPrevChar,
        Key::Right => InputRequest::GoToNextChar,
        Key::Home => InputRequest::GoToStart,
        Key::End => InputRequest::GoToEnd,
        Key::Ctrl('u') => InputRequest::DeleteLine,
        _ => return false,
    };
    input.handle(request);
    true
}

/// `Enter` in a layer.
pub(crate) fn enter(model: &mut Model) -> Vec<Cmd> {
    match model.layers.pop() {
        Some(Layer::Palette(palette)) => {
            let found = entries(model, palette.input.value());
            let last = found.len().saturating_sub(1);
            match found.into_iter().nth(palette.at.min(last)) {
                Some(entry) => run(model, entry),
                None => {
                    let text = format!("no command and no place is called `{}`", palette.input.value());
                    model.notices.say(model.now, State::Warn, text);
                    Vec::new()
                }
            }
        }
        Some(Layer::Filter(filter)) => set_filter(model, filter.input.value().trim()),
        Some(Layer::Confirm(confirm)) if !confirm.takes_text() => {
            model.notices.say(model.now, State::Idle, format!("{}: cancelled, nothing was done", confirm.title));
            Vec::new()
        }
        Some(Layer::Confirm(confirm)) if confirm.is_named() && confirm.opens_in(model.now) > 0 => {
            let text = format!("read it once more: Enter counts in {}s; Esc cancels", confirm.opens_in(model.now));
            model.layers.push(Layer::Confirm(confirm));
            model.notices.say(model.now, State::Warn, text);
            Vec::new()
        }
        Some(Layer::Confirm(confirm)) if confirm.is_named() => accept(model, *confirm),
        Some(layer @ Layer::Confirm(_)) => {
            let noted = matches!(&layer, Layer::Confirm(confirm) if confirm.note.is_some());
            let what = if noted { "a reason" } else { "the exact name" };
            model.layers.push(layer);
            model.notices.say(model.now, State::Warn, format!("type {what} first; Esc cancels"));
            Vec::new()
        }
        Some(Layer::Help(_) | Layer::Messages(_) | Layer::Tests(_)) | None => Vec::new(),
    }
}

fn run(model: &mut Model, entry: Entry) -> Vec<Cmd> {
    if let Some(why) = entry.off {
        model.notices.say(model.now, State::Warn, format!("{}: not now, {why}", entry.label));
        return Vec::new();
    }
    match entry.run {
        Run::Action(action) => act::act(model, action),
        Run::Go(place) => model.go(place, true),
        Run::Find(place, filter) => {
            let mut cmds = model.go(place, false);
            cmds.extend(set_filter(model, &filter));
            cmds
        }
    }
}

/// `y` in a question.
pub(crate) fn yes(model: &mut Model) -> Vec<Cmd> {
    match model.layers.pop() {
        Some(Layer::Confirm(confirm)) if !confirm.takes_text() => accept(model, *confirm),
        Some(layer) => {
            model.layers.push(layer);
            Vec::new()
        }
        None => Vec::new(),
    }
}

fn accept(model: &mut Model, confirm: Confirm) -> Vec<Cmd> {
    if let Some(why) = model.read_only() {
        model.notices.say(model.now, State::Warn, format!("{}: not now, {why}", confirm.title));
        return Vec::new();
    }
    model.notices.say(model.now, State::Busy, format!("{} …", confirm.title));
    let call = confirm.call();
    vec![model.call(call)]
}

/// `Esc` in a layer.
pub(crate) fn close(model: &mut Model) -> Vec<Cmd> {
    match model.layers.pop() {
        Some(Layer::Filter(filter)) => set_filter(model, &filter.before),
        Some(Layer::Confirm(confirm)) => {
            model.notices.say(model.now, State::Idle, format!("{}: cancelled, nothing was done", confirm.title));
            Vec::new()
        }
        Some(Layer::Palette(_) | Layer::Help(_) | Layer::Messages(_) | Layer::Tests(_)) | None => Vec::new(),
    }
}
