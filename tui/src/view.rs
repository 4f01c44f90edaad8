//! Paints the model: title, places, body, status, hints. Total at every size, and pure: the same model is the same frame.
//!
//! ```text
//! line 1      title: program, controller, operator (role)      link
//! line 2      places, the current one in [ ]
//! lines 3..n  body
//! line n+1    message or what is selected          position
//! line n+2    keys that work here
//! ```

use ratatui::Frame;
use ratatui::buffer::Buffer;
use ratatui::layout::{Position, Rect};
use ratatui::text::{Line, Span};
use unicode_width::UnicodeWidthStr as _;

use crate::app::layer::Layer;
use crate::app::link::Link;
use crate::app::{Model, off};
use crate::keys::{Action, Context, TABLE};
use crate::screens::{self, Place, audit, layers, restore};
use crate::theme::{State, Theme};
use crate::widgets::panel::{put, put_all, put_right, rows as part};
use crate::widgets::text::{clock, cut, cut_start, safe, wrap};

/// Smaller windows get one message.
const WIDTH_MIN: u16 = 60;
const HEIGHT_MIN: u16 = 16;
/// Smaller windows get two columns and no boxes.
const WIDTH_FULL: u16 = 80;
const HEIGHT_FULL: u16 = 24;
/// From this width on places have their whole names.
const WIDTH_WIDE: u16 = 120;
/// Title, places, status, hints.
const FRAME_HEIGHT: u16 = 4;

/// Paints one frame.
pub(crate) fn view(model: &Model, frame: &mut Frame<'_>) {
    let area = frame.area();
    if let Some(cursor) = paint(model, area, frame.buffer_mut()) {
        frame.set_cursor_position(cursor);
    }
}

/// Paints one frame into a buffer; returns where the cursor belongs.
pub(crate) fn paint(model: &Model, area: Rect, buf: &mut Buffer) -> Option<Position> {
    if area.width < WIDTH_MIN || area.height < HEIGHT_MIN {
        too_small(area, buf);
        return None;
    }
    title(model, part(area, 0, 1), buf);
    places(model, part(area, 1, 1), buf);
    let body = part(area, 2, area.height.saturating_sub(FRAME_HEIGHT));
    let below = screens::paint(model, body, buf);
    let above = layers::paint(model, body, buf);
    status(model, part(area, area.height.saturating_sub(2), 1), buf);
    hints(model, part(area, area.height.saturating_sub(1), 1), buf);
    if model.layers.is_empty() { below } else { above }
}

/// Returns how many rows the body has.
pub(crate) fn body_height(model: &Model) -> u16 {
    model.size.1.saturating_sub(FRAME_HEIGHT)
}

/// Whether there is room for two columns only.
pub(crate) fn is_compact(model: &Model) -> bool {
    model.size.0 < WIDTH_FULL || model.size.1 < HEIGHT_FULL
}

fn too_small(area: Rect, buf: &mut Buffer) {
    let need = format!("certwright needs {WIDTH_MIN}x{HEIGHT_MIN}, this is {}x{}.", area.width, area.height);
    let lines =
        [need, "Make the window larger, or use:".to_owned(), "  certwright status".to_owned(), "Q quit".to_owned()];
    put_all(buf, area, lines.into_iter().map(Line::from));
}

fn title(model: &Model, area: Rect, buf: &mut Buffer) {
    let theme = model.theme;
    let name = match &model.who {
        Some(who) => {
            format!(" certwright  {}  {} ({})", safe(&who.controller_name), safe(&who.operator), safe(&who.role))
        }
        None => " certwright".to_owned(),
    };
    let (state, words) = model.link.words(model.now);
    let right = format!("{} {words} ", theme.glyph(state));
    let room = usize::from(area.width).saturating_sub(right.width() + 1);
    put(buf, area, 0, &Line::from(cut(&name, room, theme.cut())));
    put_right(
        buf,
        area,
        0,
        &Line::styled(right, if state == State::Bad { theme.state(state) } else { theme.strong() }),
    );
    buf.set_style(area.intersection(buf.area), theme.reverse());
}

/// The places: key, name in wide windows, name elsewhere.
const PLACES: [(&str, &str, &str); 7] = [
    ("1", "Overview", "Over"),
    ("2", "Certificates", "Certs"),
    ("3", "Agents", "Agents"),
    ("4", "Jobs", "Jobs"),
    ("8", "Audit", "Audit"),
    ("9", "Team", "Team"),
    ("0", "Issuers", "Issuers"),
];

/// Returns the key of the place that shows.
fn place_key(model: &Model) -> &'static str {
    let place = if model.place == Place::Sheet { model.back.last().unwrap_or(&model.place) } else { &model.place };
    match place {
        Place::Overview | Place::Restore | Place::Backup => "1",
        Place::Certificates | Place::Certificate(_) | Place::AddCertificate => "2",
        Place::Agents | Place::Agent(_) | Place::Enroll | Place::IdentityCa => "3",
        Place::Jobs | Place::Job(_) => "4",
        Place::Audit | Place::Act(_) => "8",
        Place::Team | Place::Invite => "9",
        Place::Issuers | Place::Issuer(_) | Place::Sheet => "0",
    }
}

fn places(model: &Model, area: Rect, buf: &mut Buffer) {
    let width = usize::from(area.width);
    let pause = paused(model);
    let pause_width = pause.as_ref().map_or(0, |text| text.width() + 1);
    let names = place_spans(model, area.width >= WIDTH_WIDE, false);
    let taken = |spans: &[Span<'_>]| spans.iter().map(Span::width).sum::<usize>();
    // That everything is paused matters more than the names of the other places: these then show as their keys.
    let names =
        if pause.is_some() && taken(&names) + pause_width > width { place_spans(model, false, true) } else { names };
    let room = width.saturating_sub(taken(&names) + 1);
    put(buf, area, 0, &Line::from(names));
    if let Some(text) = pause {
        put_right(buf, area, 0, &Line::styled(cut(&text, room, model.theme.cut()), model.theme.state(State::Bad)));
    }
}

fn paused(model: &Model) -> Option<String> {
    let pause = model.pause.as_ref()?;
    if restore::waits(model) {
        let glyph = model.theme.glyph(State::Bad);
        return Some(format!("{glyph} RESTORED: nothing acts until accepted (gr) "));
    }
    let why = if pause.reason.is_empty() { String::new() } else { format!(": {}", safe(&pause.reason)) };
    Some(format!("{} PAUSED by {}{why} ", model.theme.glyph(State::Bad), safe(&pause.by)))
}

fn place_spans(model: &Model, wide: bool, keys_only: bool) -> Vec<Span<'static>> {
    let attention = model.overview.counts.as_ref().map_or(0, |counts| counts.attention_total);
    let current = place_key(model);
    let mut spans = Vec::new();
    for (key, long, short) in PLACES {
        let name = match (key == current, keys_only, wide) {
            (false, true, _) => key.to_owned(),
            (_, _, true) => format!("{key} {long}"),
            (_, _, false) => format!("{key}{short}"),
        };
        let count = if key == "1" && attention > 0 { format!(":{attention}") } else { String::new() };
        if key == current {
            spans.push(Span::styled(format!("[{name}{count}]"), model.theme.strong()));
        } else {
            let off = key == "8" && audit::denied(model).is_some();
            let style = if off { model.theme.dim() } else { ratatui::style::Style::new() };
            spans.push(Span::styled(format!(" {name}{count} "), style));
        }
        spans.push(Span::raw(if wide { "  " } else { "" }));
    }
    spans
}

fn status(model: &Model, area: Rect, buf: &mut Buffer) {
    let theme = model.theme;
    let (idle, right) = screens::status(model);
    let trouble = model.link.trouble(model.now);
    let right = match &model.link {
        Link::Offline { heard_at: Some(at), .. } => format!("copy from {}Z", clock(at.as_millisecond())),
        _ => right,
    };
    let right = cut(&right, usize::from(area.width / 2), theme.cut());
    let room = usize::from(area.width).saturating_sub(right.width() + 4);
    let line = if let Some(notice) = model.notices.showing() {
        let more = if notice.cause.is_empty() && notice.hint.is_empty() { "" } else { " (M why)" };
        let text = cut(&notice.text, room.saturating_sub(more.len() + 2), theme.cut());
        Line::styled(format!(" {} {text}{more}", theme.glyph(notice.state)), theme.state(notice.state))
    } else if let Some(trouble) = trouble {
        let text = cut(&trouble, room.saturating_sub(2), theme.cut());
        Line::styled(format!(" {} {text}", theme.glyph(State::Bad)), theme.state(State::Bad))
    } else {
        Line::from(format!(" {}", cut(&idle, room, theme.cut())))
    };
    put(buf, area, 0, &line);
    put_right(buf, area, 0, &Line::styled(format!("{right} "), theme.dim()));
}

fn hints(model: &Model, area: Rect, buf: &mut Buffer) {
    let theme = model.theme;
    let context = model.context();
    let typed_name = matches!(model.layers.last(), Some(Layer::Confirm(confirm)) if confirm.takes_text());
    let last = if context == Context::Form { "F1 help " } else { "? help " };
    let closes = matches!(context, Context::Prompt | Context::Dialog | Context::Reading);
    let mut room = usize::from(area.width).saturating_sub(if closes { 1 } else { last.len() + 2 });
    let mut spans = vec![Span::raw(" ")];
    if !is_compact(model) || closes {
        for row in TABLE.iter().filter(|row| row.contexts.contains(&context) && !row.hint.is_empty()) {
            if row.action == Action::Help || (row.action == Action::Yes && typed_name) {
                continue;
            }
            let key = row.keys.first().map_or_else(String::new, |key| key.label());
            let text = format!("{key} {}", row.hint);
            if text.width() + 2 > room {
                break;
            }
            room -= text.width() + 2;
            let off = off::why(model, row).is_some();
            spans.push(Span::styled(key, if off { theme.dim() } else { theme.strong() }));
            spans.push(Span::styled(
                format!(" {}  ", row.hint),
                if off { theme.dim() } else { ratatui::style::Style::new() },
            ));
        }
    }
    put(buf, area, 0, &Line::from(spans));
    if !closes {
        put_right(buf, area, 0, &Line::styled(last, theme.strong()));
    }
}

/// Paints a record's heading: where it is, its name, and at the right how it stands. The name gives way.
pub(crate) fn record_heading(model: &Model, place: &str, name: &str, right: &Line<'_>, area: Rect, buf: &mut Buffer) {
    let theme = model.theme;
    let lead = format!(" {place} > ");
    let mark = read_only_mark(model);
    let taken = lead.width() + right.width() + 1 + mark.as_ref().map_or(0, Span::width);
    let name = cut_start(name, usize::from(area.width).saturating_sub(taken).max(8), theme.cut());
    let mut spans = vec![Span::styled(lead, theme.dim()), Span::styled(name, theme.strong())];
    spans.extend(mark);
    put(buf, area, 0, &Line::from(spans));
    put_right(buf, area, 0, right);
}

/// Returns the tab after `at`, or before it, around the ends.
pub(crate) fn next_tab<T: Copy + PartialEq>(tabs: &[T], at: T, forward: bool) -> T {
    let count = tabs.len().max(1);
    let index = tabs.iter().position(|tab| *tab == at).unwrap_or(0);
    let to = if forward { index + 1 } else { index + count - 1 } % count;
    tabs.get(to).copied().unwrap_or(at)
}

/// Returns the tabs of a record, the chosen one in brackets.
pub(crate) fn tabs_line<T: PartialEq>(
    tabs: impl Iterator<Item = (T, String)>,
    chosen: T,
    theme: Theme,
) -> Line<'static> {
    let mut spans = vec![Span::raw(" ")];
    for (tab, label) in tabs {
        if tab == chosen {
            spans.push(Span::styled(format!("[{label}]"), theme.strong()));
        } else {
            spans.push(Span::raw(format!(" {label} ")));
        }
        spans.push(Span::raw(" "));
    }
    Line::from(spans)
}

/// Returns what stands in a place of which nothing was read yet: that it is read, or why it cannot be.
pub(crate) fn nothing_yet(model: &Model) -> Vec<Line<'static>> {
    let theme = model.theme;
    let Link::Offline { why, hint, .. } = &model.link else {
        return vec![Line::styled("  reading …", theme.dim())];
    };
    let width = usize::from(model.size.0).saturating_sub(6);
    let glyph = theme.glyph(State::Bad);
    let mut lines = vec![Line::default()];
    lines.extend(wrap(why, width).into_iter().enumerate().map(|(index, part)| {
        let lead = if index == 0 { glyph } else { " " };
        Line::styled(format!("  {lead} {part}"), theme.state(State::Bad))
    }));
    lines.push(Line::default());
    lines.extend(wrap(hint, width).into_iter().map(|part| Line::from(format!("    {part}"))));
    lines.push(Line::default());
    lines.push(Line::styled("    It is tried again by itself; R tries now, Q leaves.", theme.dim()));
    lines
}

/// Returns what a heading says while nothing can be changed.
pub(crate) fn read_only_mark(model: &Model) -> Option<Span<'static>> {
    match &model.link {
        Link::Offline { heard_at: Some(at), .. } => {
            let text = format!("  READ ONLY: the copy from {}Z", clock(at.as_millisecond()));
            Some(Span::styled(text, model.theme.state(State::Warn)))
        }
        Link::Offline { heard_at: None, .. } => Some(Span::styled("  not connected", model.theme.state(State::Warn))),
        Link::Connecting | Link::Live { .. } => None,
    }
}
