//! Paints what floats above a place: prompts, questions, help, messages, the strip after `g` and `s`. They stay inside the
//! body, never over the title or the status line.

use proto::operator::v1::{CheckChallengesResponse, Seen, TargetTest};
use proto::types::v1::Problem;
use ratatui::buffer::Buffer;
use ratatui::layout::{Position, Rect};
use ratatui::text::{Line, Span};
use tui_input::Input;

use crate::app::call::Call;
use crate::app::layer::{Choice, Confirm, Found, Layer, Palette, Tests, entries};
use crate::app::{Model, Prefix, off};
use crate::client::{seen_word, test_result, test_verdict};
use crate::keys::{GO, TABLE};
use crate::screens::Place;
use crate::screens::certificates::SORTS;
use crate::screens::words::problem_lines;
use crate::theme::{State, Theme};
use crate::widgets::panel::{centered, layer as floating, put, put_all, rows as part};
use crate::widgets::text::{clock, cut, safe, wrap};

const DIALOG_WIDTH: u16 = 64;
const PALETTE_HEIGHT: u16 = 16;

/// Paints the layers and the strip; returns where the cursor belongs.
pub(crate) fn paint(model: &Model, area: Rect, buf: &mut Buffer) -> Option<Position> {
    let mut cursor = None;
    for layer in &model.layers {
        cursor = match layer {
            Layer::Help(scroll) => text(buf, area, model.theme, &help_title(model), help_lines(model), *scroll),
            Layer::Messages(scroll) => {
                text(buf, area, model.theme, "Messages of this session", message_lines(model, area), *scroll)
            }
            Layer::Tests(tests) => {
                text(buf, area, model.theme, &found_title(tests), found_lines(model, tests, area), tests.scroll)
            }
            Layer::Palette(palette) => paint_palette(model, palette, area, buf),
            Layer::Filter(filter) => {
                let line = part(area, area.height.saturating_sub(3), 3);
                let inner = floating(buf, line, model.theme, filter_title(model), "Enter keeps, Esc restores");
                input(buf, inner, 0, "/ ", &filter.input)
            }
            Layer::Confirm(confirm) => paint_confirm(model, confirm, area, buf),
        };
    }
    if let Some(prefix) = model.prefix {
        strip(prefix, area, buf, model.theme);
    }
    cursor
}

fn filter_title(model: &Model) -> &'static str {
    match model.place {
        Place::Audit => "Filter: NAME since:2026-11-21 until:…",
        _ => "Filter: name  !not  status:failed  expires<7d",
    }
}

/// Returns how many lines the top layer has, for scrolling.
pub(crate) fn lines(model: &Model) -> usize {
    let area = Rect { x: 0, y: 0, width: model.size.0, height: model.size.1 };
    match model.layers.last() {
        Some(Layer::Help(_)) => help_lines(model).len(),
        Some(Layer::Messages(_)) => message_lines(model, area).len(),
        Some(Layer::Tests(tests)) => found_lines(model, tests, area).len(),
        Some(Layer::Palette(_) | Layer::Filter(_) | Layer::Confirm(_)) | None => 0,
    }
}

fn text(
    buf: &mut Buffer,
    area: Rect,
    theme: Theme,
    title: &str,
    lines: Vec<Line<'static>>,
    scroll: usize,
) -> Option<Position> {
    let count = lines.len();
    let room = usize::from(area.height).saturating_sub(2);
    let remark = if count > room { "j k scroll, q closes" } else { "q closes" };
    let inner = floating(buf, area, theme, title, remark);
    let scroll = scroll.min(count.saturating_sub(room));
    put_all(buf, inner, lines.into_iter().skip(scroll));
    None
}

fn help_title(model: &Model) -> String {
    format!("Keys here: {}", model.place_context().title())
}

fn help_lines(model: &Model) -> Vec<Line<'static>> {
    let theme = model.theme;
    let mut lines = Vec::new();
    let place = model.place_context();
    for row in TABLE.iter().filter(|row| row.contexts.contains(&place)) {
        let keys = row.keys.iter().map(|key| key.label()).collect::<Vec<_>>().join(" ");
        let text = row.help;
        let off = off::why(model, row);
        let remark = off.as_ref().map_or_else(String::new, |why| format!("  ({why})"));
        let style = if off.is_some() { theme.dim() } else { ratatui::style::Style::new() };
        lines.push(Line::from(vec![
            Span::styled(format!(" {keys:<22} "), theme.strong()),
            Span::styled(format!("{text}{remark}"), style),
        ]));
    }
    lines.push(Line::default());
    let go = GO.iter().map(|(ch, _, what)| format!("g{ch} {what}")).collect::<Vec<_>>().join("   ");
    let width = usize::from(model.size.0).saturating_sub(4).max(1);
    lines.extend(wrap(&go, width).into_iter().map(|part| Line::from(format!(" {part}"))));
    let elsewhere = TABLE.iter().filter(|row| row.palette && !row.contexts.contains(&place));
    let others = elsewhere.map(|row| row.hint).filter(|hint| !hint.is_empty()).collect::<Vec<_>>().join(", ");
    if !others.is_empty() {
        lines.push(Line::styled(format!(" elsewhere: {others}"), theme.dim()));
    }
    lines
}

fn message_lines(model: &Model, area: Rect) -> Vec<Line<'static>> {
    let theme = model.theme;
    let width = usize::from(area.width).saturating_sub(14);
    let mut lines = Vec::new();
    for notice in model.notices.kept.iter().rev() {
        let at = clock(notice.at.as_millisecond());
        for (index, part) in wrap(&notice.text, width).into_iter().enumerate() {
            let lead = if index == 0 { format!("{at} ") } else { " ".repeat(9) };
            let glyph = if index == 0 { theme.glyph(notice.state) } else { " " };
            lines.push(Line::from(vec![
                Span::styled(lead, theme.dim()),
                Span::styled(glyph, theme.state(notice.state)),
                Span::raw(format!(" {part}")),
            ]));
        }
        for (word, text) in [("why", &notice.cause), ("do", &notice.hint)] {
            for part in wrap(text, width.saturating_sub(5)).into_iter().filter(|part| !part.is_empty()) {
                lines.push(Line::from(vec![
                    Span::styled(format!("           {word:<4} "), theme.dim()),
                    Span::raw(part),
                ]));
            }
        }
    }
    if lines.is_empty() {
        lines.push(Line::styled(" Nothing was said so far.", theme.dim()));
    }
    lines
}

fn found_title(tests: &Tests) -> String {
    let name = safe(&tests.certificate);
    match &tests.found {
        Found::Targets(_) => format!("Test of {name}: nothing was changed"),
        Found::Challenges(_) => format!("Challenges of {name}, as a CA would see them"),
    }
}

fn found_lines(model: &Model, tests: &Tests, area: Rect) -> Vec<Line<'static>> {
    let width = usize::from(area.width).saturating_sub(4).max(1);
    match &tests.found {
        Found::Targets(items) => test_lines(model.theme, items, width),
        Found::Challenges(checked) => challenge_lines(model.theme, checked, width),
    }
}

/// Each agent that does not serve, then each name with its ways; of what is not well also why, and what to do.
fn challenge_lines(theme: Theme, checked: &CheckChallengesResponse, width: usize) -> Vec<Line<'static>> {
    let title = |state: State, text: String| {
        Line::from(vec![
            Span::styled(theme.glyph(state), theme.state(state)),
            Span::styled(format!(" {text}"), theme.strong()),
        ])
    };
    let mut lines = Vec::new();
    for responder in &checked.responders {
        let (state, word) = match &responder.problem {
            None => (State::Ok, "serves them"),
            Some(_) => (State::Bad, "does not serve them"),
        };
        lines.push(title(state, format!("agent {} {word}", safe(&responder.agent))));
        if let Some(problem) = &responder.problem {
            lines.extend(wrap(&problem.message, width).into_iter().map(|part| Line::from(format!("  {part}"))));
            lines.extend(problem_lines(problem, theme, width, 2));
        }
    }
    for name in &checked.names {
        lines.push(Line::default());
        lines.push(title(seen_state(name.seen()), format!("{}  {}", safe(&name.identifier), seen_word(name.seen))));
        let whole = name.problem.iter().filter(|_| name.trails.is_empty());
        let problems = |problem: &Problem| {
            let message = wrap(&problem.message, width).into_iter().map(|part| Line::from(format!("    {part}")));
            message.chain(problem_lines(problem, theme, width, 4)).collect::<Vec<_>>()
        };
        lines.extend(whole.flat_map(problems));
        for trail in &name.trails {
            let state = seen_state(trail.seen());
            let glyph = Span::styled(format!("  {} ", theme.glyph(state)), theme.state(state));
            lines.push(Line::from(vec![glyph, Span::raw(safe(&trail.address))]));
            for hop in &trail.hops {
                let text = format!("{} at {}: {}", safe(&hop.url), safe(&hop.address), safe(&hop.outcome));
                let parts = wrap(&text, width.saturating_sub(4)).into_iter();
                lines.extend(parts.map(|part| Line::from(format!("    {part}"))));
            }
            lines.extend(trail.problem.iter().flat_map(problems));
        }
    }
    lines
}

fn seen_state(seen: Seen) -> State {
    match seen {
        Seen::Ok => State::Ok,
        Seen::Blocked => State::Bad,
        Seen::Unknown | Seen::Unspecified => State::Warn,
    }
}

/// Each target with its steps; of what is not well also why, and what to do.
fn test_lines(theme: Theme, items: &[TargetTest], width: usize) -> Vec<Line<'static>> {
    let mut lines = Vec::new();
    for test in items {
        let verdict = test_verdict(test);
        let state = test_state(verdict);
        lines.push(Line::from(vec![
            Span::styled(theme.glyph(state), theme.state(state)),
            Span::styled(format!(" {}  {}  {verdict}", safe(&test.agent), safe(&test.dir)), theme.strong()),
        ]));
        if let Some(problem) = &test.problem {
            lines.extend(wrap(&problem.message, width).into_iter().map(|part| Line::from(format!("  {part}"))));
            lines.extend(problem_lines(problem, theme, width, 2));
        }
        for step in &test.steps {
            let state = test_state(test_result(step.result));
            let said = step.problem.as_ref().map_or(&step.found, |problem| &problem.message);
            let text = format!("{:<9} {}  {said}", safe(&step.name), safe(&step.subject));
            for (index, part) in wrap(&text, width.saturating_sub(4)).into_iter().enumerate() {
                let glyph = if index == 0 { theme.glyph(state) } else { " " };
                let glyph = Span::styled(format!("  {glyph} "), theme.state(state));
                lines.push(Line::from(vec![glyph, Span::raw(part)]));
            }
            if let Some(problem) = &step.problem {
                lines.extend(problem_lines(problem, theme, width, 4));
            }
        }
        lines.push(Line::default());
    }
    lines
}

fn test_state(word: &str) -> State {
    match word {
        "ok" => State::Ok,
        "warning" => State::Warn,
        "skipped" => State::Idle,
        _ => State::Bad,
    }
}

fn input(buf: &mut Buffer, area: Rect, row: u16, lead: &str, input: &Input) -> Option<Position> {
    let room = usize::from(area.width).saturating_sub(lead.len() + 2);
    let scroll = input.visual_scroll(room);
    let shown: String = safe(input.value()).chars().skip(scroll).take(room).collect();
    put(buf, area, row, &Line::from(format!(" {lead}{shown}")));
    if row >= area.height {
        return None;
    }
    let column = 1 + lead.len() + input.visual_cursor().saturating_sub(scroll);
    let x = area.x.saturating_add(u16::try_from(column).unwrap_or(u16::MAX)).min(area.right().saturating_sub(1));
    Some(Position { x, y: area.y.saturating_add(row) })
}

fn paint_palette(model: &Model, palette: &Palette, area: Rect, buf: &mut Buffer) -> Option<Position> {
    let theme = model.theme;
    let inner = floating(buf, centered(area, 72, PALETTE_HEIGHT), theme, "Command", "Up Down choose, Enter runs");
    let cursor = input(buf, inner, 0, ": ", &palette.input);
    let room = usize::from(inner.height).saturating_sub(2);
    let found = entries(model, palette.input.value());
    if found.is_empty() {
        put(buf, inner, 2, &Line::styled("   nothing is called that", theme.dim()));
    }
    let first = (palette.at + 1).saturating_sub(room.max(1));
    for (row, (index, entry)) in (2_u16..).zip(found.iter().enumerate().skip(first)) {
        let lead = if index == palette.at { ">" } else { " " };
        let text = match &entry.off {
            Some(why) => format!(" {lead} {}  ({why})", safe(&entry.label)),
            None => format!(" {lead} {:<44} {:<8}", safe(&entry.label), entry.key),
        };
        let line = cut(&text, usize::from(inner.width), theme.cut());
        let style = match (&entry.off, index == palette.at) {
            (_, true) => theme.reverse(),
            (Some(_), false) => theme.dim(),
            (None, false) => ratatui::style::Style::new(),
        };
        put(buf, inner, row, &Line::styled(line, style));
    }
    cursor
}

fn paint_confirm(model: &Model, confirm: &Confirm, area: Rect, buf: &mut Buffer) -> Option<Position> {
    let theme = model.theme;
    let width = DIALOG_WIDTH.min(area.width);
    let room = usize::from(width).saturating_sub(4).max(1);
    let mut lines: Vec<Line<'_>> = Vec::new();
    for line in &confirm.lines {
        lines.extend(wrap(line, room).into_iter().map(|part| Line::from(format!(" {part}"))));
    }
    if let Some(choice) = &confirm.choice {
        lines.extend(choice_lines(choice));
    }
    lines.push(Line::default());
    let asked = u16::try_from(lines.len()).unwrap_or(u16::MAX);
    let verb = confirm.verb;
    let height = asked.saturating_add(if confirm.takes_text() { 5 } else { 3 });
    let inner = floating(buf, centered(area, width, height), theme, &confirm.title, "Esc cancels");
    put_all(buf, inner, lines);
    if !confirm.takes_text() {
        let cancel = Span::styled("[ Cancel ]", theme.reverse());
        put(buf, inner, asked, &Line::from(vec![Span::raw(" "), cancel, Span::raw(format!("   y  {verb}"))]));
        return None;
    }
    // In a low window the question itself must show; what it explains may be cut.
    let row = asked.min(inner.height.saturating_sub(3));
    let asked_for = asked_for(confirm);
    put(buf, inner, row, &Line::styled(asked_for, theme.strong()));
    let line = part(inner, row.saturating_add(1), 1);
    let cursor = input(buf, line, 0, "> ", &confirm.input);
    let (word, style) = match (confirm.is_named(), confirm.opens_in(model.now)) {
        (false, _) => (format!(" {verb}: keep typing"), theme.dim()),
        (true, 0) => (format!(" Enter: {verb}"), theme.state(State::Bad)),
        (true, seconds) => (format!(" {verb}: Enter counts in {seconds}s"), theme.dim()),
    };
    put(buf, inner, row.saturating_add(2), &Line::styled(word, style));
    cursor
}

/// What is to be typed; a name that stands nowhere above is said.
fn asked_for(confirm: &Confirm) -> String {
    let name = confirm.name.as_deref().unwrap_or_default();
    match confirm.note {
        Some(note) if note.needed => " Why? It is told to everybody:".to_owned(),
        Some(_) => " Why? (may stay empty):".to_owned(),
        None if matches!(confirm.call, Call::Act(_)) => " Type the number to confirm:".to_owned(),
        None if confirm.title.contains(name) => " Type the name to confirm:".to_owned(),
        None => format!(" Type the name ({}) to confirm:", safe(name)),
    }
}

/// One line per option: its word, and what it means.
fn choice_lines(choice: &Choice) -> Vec<Line<'static>> {
    let width = choice.options.iter().map(|(word, _)| word.len()).max().unwrap_or(0);
    let line = |(index, (word, means)): (usize, &(&'static str, &'static str))| {
        let mark = if index == choice.at { "(*)" } else { "( )" };
        Line::from(format!(" {mark} {word:<width$}  {means}"))
    };
    choice.options.iter().enumerate().map(line).collect()
}

fn strip(prefix: Prefix, area: Rect, buf: &mut Buffer, theme: Theme) {
    let (title, text) = match prefix {
        Prefix::Go => ("g …", GO.iter().map(|(ch, _, what)| format!("{ch} {what}")).collect::<Vec<_>>()),
        Prefix::Sort => ("sort by …", SORTS.iter().map(|(ch, what)| format!("{ch} {what}")).collect()),
    };
    let room = usize::from(area.width).saturating_sub(4);
    let mut lines: Vec<String> = Vec::new();
    for word in text {
        match lines.last_mut() {
            Some(line) if line.len() + 2 + word.len() <= room => line.extend(["  ", word.as_str()]),
            _ => lines.push(word),
        }
    }
    let height = u16::try_from(lines.len()).unwrap_or(1).saturating_add(2);
    let place = part(area, area.height.saturating_sub(height), height);
    let inner = floating(buf, place, theme, title, "any other key closes");
    put_all(buf, inner, lines.into_iter().map(|line| Line::from(format!(" {line}"))));
}
