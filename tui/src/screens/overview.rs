//! The overview: what needs someone, how many of what, what runs, what happened. Empty, it teaches the first steps.
//!
//! ```text
//! ┌ Needs attention ──────────────┐
//! └───────────────────────────────┘
//! ┌ Certificates ┐┌ Deployments ┐┌ Agents ┐
//! └──────────────┘└─────────────┘└────────┘
//! ┌ Expiring per week ──────┐┌ Jobs now ───┐
//! └─────────────────────────┘└─────────────┘
//! ┌ Activity (40 rows and more) ──┐
//! ```

use proto::operator::v1::{Attention, Count, GetOverviewResponse};
use ratatui::buffer::Buffer;
use ratatui::layout::{Position, Rect};
use ratatui::text::{Line, Span};

use crate::app::Model;
use crate::app::list::{List, Record};
use crate::screens::Place;
use crate::screens::words::{event_lines, job_state, title};
use crate::theme::{State, Theme};
use crate::view;
use crate::widgets::panel::{panel, put, put_all, rows as part, split_right};
use crate::widgets::table::{Row, fixed, growing, names, table};
use crate::widgets::text::{ago, count, safe, until, wrap};

/// Rows of the boxes below the attention list.
const COUNTS_HEIGHT: u16 = 7;
const WEEKS_HEIGHT: u16 = 5;
/// From this height on there is room for the activity.
const ACTIVITY_MIN: u16 = 34;
const ACTIVITY_HEIGHT: u16 = 9;
const JOBS_WIDTH: u16 = 28;

/// What the overview knows.
#[derive(Debug, Default)]
pub(crate) struct OverviewScreen {
    /// The last answer.
    pub(crate) counts: Option<GetOverviewResponse>,
    /// What needs someone.
    pub(crate) attention: List<AttentionRow>,
}

/// One line of what needs someone, with something to follow it by.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct AttentionRow {
    id: String,
    item: Attention,
}

impl From<&Attention> for AttentionRow {
    fn from(item: &Attention) -> Self {
        Self { id: format!("{} {} {}", item.kind, item.name, item.what), item: item.clone() }
    }
}

impl AttentionRow {
    /// Returns the record that explains it.
    pub(crate) fn place(&self) -> Option<Place> {
        match self.item.kind.as_str() {
            "certificate" => Some(Place::Certificate(self.item.name.clone())),
            "agent" => Some(Place::Agent(self.item.name.clone())),
            "issuer" => Some(Place::Issuer(self.item.name.clone())),
            "controller" if self.item.what == "RESTORED" => Some(Place::Restore),
            _ => None,
        }
    }
}

impl Record for AttentionRow {
    fn id(&self) -> &str {
        &self.id
    }

    fn state(&self) -> State {
        match self.item.what.as_str() {
            "FAILED" | "EXPIRED" | "NOT LIVE" | "AGENT DOWN" | "KEY LOST" | "RESTORED" => State::Bad,
            _ => State::Warn,
        }
    }
}

fn attention_height(model: &Model) -> u16 {
    let body = view::body_height(model);
    let activity = if body >= ACTIVITY_MIN { ACTIVITY_HEIGHT } else { 0 };
    body.saturating_sub(COUNTS_HEIGHT + WEEKS_HEIGHT + activity)
}

/// Returns how many attention rows show.
pub(crate) fn rows(model: &Model) -> usize {
    let height = if view::is_compact(model) { view::body_height(model) } else { attention_height(model) };
    usize::from(height).saturating_sub(if view::is_compact(model) { 2 } else { 3 })
}

/// Paints the overview.
pub(crate) fn paint(model: &Model, area: Rect, buf: &mut Buffer) -> Option<Position> {
    let Some(counts) = &model.overview.counts else {
        put_all(buf, part(area, 1, u16::MAX), view::nothing_yet(model));
        return None;
    };
    if total(&counts.certificates) == 0 && counts.attention.is_empty() {
        teach(model, counts, area, buf);
        return None;
    }
    if view::is_compact(model) {
        put(buf, area, 0, &Line::styled(headline(model), model.theme.strong()));
        return attention(model, part(area, 1, u16::MAX), buf);
    }
    let height = attention_height(model);
    let shown = format!("Needs attention ({})", counts.attention_total);
    let mark = view::read_only_mark(model).map_or_else(|| "most urgent first".into(), |mark| mark.content);
    let inner = panel(buf, part(area, 0, height), model.theme, &shown, mark.trim());
    let cursor = attention(model, inner, buf);
    boxes(model, counts, part(area, height, COUNTS_HEIGHT), buf);
    weeks(model, counts, part(area, height + COUNTS_HEIGHT, WEEKS_HEIGHT), buf);
    let rest = part(area, height + COUNTS_HEIGHT + WEEKS_HEIGHT, u16::MAX);
    if rest.height > 2 {
        activity(model, counts, rest, buf);
    }
    cursor
}

fn headline(model: &Model) -> String {
    match &model.overview.counts {
        Some(counts) => format!(" {} need attention", count(counts.attention_total)),
        None => String::new(),
    }
}

fn attention(model: &Model, area: Rect, buf: &mut Buffer) -> Option<Position> {
    let list = &model.overview.attention;
    if list.rows.is_empty() {
        let next = model.overview.counts.as_ref().filter(|counts| counts.next_renewal_at > 0).map_or_else(
            String::new,
            |counts| {
                let name = safe(&counts.next_renewal_name);
                format!(" Next renewal: {name} in {}.", until(model.now, counts.next_renewal_at))
            },
        );
        // Without a connection it is only what was true when it ended.
        let mark = view::read_only_mark(model);
        let (state, words) = match mark {
            Some(_) => (State::Warn, "Nothing needed you then; what is now is not known."),
            None => (State::Ok, "Nothing needs you."),
        };
        let glyph = Span::styled(model.theme.glyph(state), model.theme.state(state));
        put(buf, area, 1, &Line::from(vec![Span::raw("  "), glyph, Span::raw(format!(" {words}{next}"))]));
        return None;
    }
    let columns =
        [fixed("WHAT", 12, 0), names("WHERE", 18), fixed("SINCE", 8, 2), growing("WHY", 24), fixed("DO THIS", 40, 3)];
    let height = usize::from(area.height).saturating_sub(1);
    let rows: Vec<Row> = list
        .window(height)
        .map(|row| {
            let item = &row.item;
            let cells = vec![
                item.what.clone(),
                item.name.clone(),
                ago(model.now, item.since_at),
                item.why.clone(),
                item.action.clone(),
            ];
            Row { gone: list.is_gone(row.id()), ..Row::new(row.state(), cells) }
        })
        .collect();
    table(buf, area, model.theme, &columns, &rows, list.cursor_in_window())
}

fn total(counts: &[Count]) -> u64 {
    counts.iter().map(|one| one.count).sum()
}

fn boxes(model: &Model, counts: &GetOverviewResponse, area: Rect, buf: &mut Buffer) {
    let third = area.width / 3;
    let (left, right) = split_right(area, third);
    let (left, middle) = split_right(left, left.width / 2);
    for (area, name, states) in [
        (left, "Certificates", &counts.certificates),
        (middle, "Deployments", &counts.deployments),
        (right, "Agents", &counts.agents),
    ] {
        let inner = panel(buf, area, model.theme, &format!("{name} {}", count(total(states))), "");
        let width = usize::from(inner.width);
        put_all(buf, inner, states.iter().map(|one| count_line(one, width, model.theme)));
    }
}

fn count_line(one: &Count, width: usize, theme: Theme) -> Line<'static> {
    let state = match one.state.as_str() {
        "active" | "ok" | "connected" => State::Ok,
        "failed" | "expired" | "offline" => State::Bad,
        "partial" => State::Warn,
        "revoked" => State::Off,
        _ => State::Idle,
    };
    let shown = if one.count == 0 { State::Idle } else { state };
    let number = count(one.count);
    let gap = width.saturating_sub(number.len() + 5);
    let word = crate::widgets::text::cut(&one.state, gap, theme.cut());
    Line::from(vec![
        Span::raw(" "),
        Span::styled(theme.glyph(state), theme.state(shown)),
        Span::raw(format!(" {word:<gap$} {number}")),
    ])
}

fn weeks(model: &Model, counts: &GetOverviewResponse, area: Rect, buf: &mut Buffer) {
    let (left, right) = split_right(area, JOBS_WIDTH.max(area.width / 3));
    let inner = panel(buf, left, model.theme, "Expiring per week", "next 12 weeks");
    let most = counts.expiring_by_week.iter().copied().max().unwrap_or(0).max(1);
    let numbers: String = counts.expiring_by_week.iter().map(|week| format!("{week:>4}")).collect();
    let bars = counts.expiring_by_week.iter().map(|week| {
        let eighths = usize::try_from((week * 8).div_ceil(most)).unwrap_or(0);
        format!("   {}", model.theme.bar(eighths))
    });
    let weeks = (1..=counts.expiring_by_week.len()).map(|week| format!("{:>4}", format!("+{week}")));
    put(buf, inner, 0, &Line::from(numbers));
    put(buf, inner, 1, &Line::styled(bars.collect::<String>(), model.theme.accent()));
    put(buf, inner, 2, &Line::styled(weeks.collect::<String>(), model.theme.dim()));
    let inner = panel(buf, right, model.theme, &format!("Jobs now {}", counts.jobs.len()), "");
    if counts.jobs.is_empty() {
        put(buf, inner, 0, &Line::styled(" Nothing runs.", model.theme.dim()));
    }
    let lines = counts.jobs.iter().map(|job| {
        let state = job_state(&job.state);
        Line::from(vec![
            Span::raw(" "),
            Span::styled(model.theme.glyph(state), model.theme.state(state)),
            Span::raw(format!(" {} {}", title(&job.kind), safe(&job.certificate))),
            Span::styled(format!("  {}", safe(&job.phase)), model.theme.dim()),
        ])
    });
    put_all(buf, inner, lines);
}

fn activity(model: &Model, counts: &GetOverviewResponse, area: Rect, buf: &mut Buffer) {
    let inner = panel(buf, area, model.theme, "Activity", "newest first");
    let width = usize::from(inner.width);
    let lines = counts.activity.iter().filter_map(|event| event_lines(event, model.theme, width).into_iter().next());
    put_all(buf, inner, lines.take(usize::from(inner.height)));
}

/// The first steps, each with its state, so that it is clear what is still to do.
fn teach(model: &Model, counts: &GetOverviewResponse, area: Rect, buf: &mut Buffer) {
    let theme = model.theme;
    let agents = total(&counts.agents);
    let steps: [(bool, &str, String); 3] = [
        (
            counts.issuers > 0,
            "An issuer: who signs.",
            "press 0, then n: which CA, your mail address, its terms".to_owned(),
        ),
        (
            agents > 0,
            "An agent: the server that needs the certificate.",
            "press 3, then n: one command to run on that server".to_owned(),
        ),
        (false, "A certificate.", "press n: names, challenge, key, target, review".to_owned()),
    ];
    put(buf, area, 1, &Line::styled("  No certificates yet. Three steps to the first one:", theme.strong()));
    let mut row = 3;
    for (number, (done, what, how)) in (1..).zip(steps) {
        let state = if done { State::Ok } else { State::Idle };
        let line = vec![
            Span::raw(format!("  {number} ")),
            Span::styled(theme.glyph(state), theme.state(state)),
            Span::raw(format!(" {what}")),
        ];
        put(buf, area, row, &Line::from(line));
        row += 1;
        let style = if done { theme.dim() } else { theme.accent() };
        let room = usize::from(area.width).saturating_sub(8);
        for part in wrap(&how, room) {
            put(buf, area, row, &Line::styled(format!("      {part}"), style));
            row += 1;
        }
        row += 1;
    }
}

/// Returns the status line.
pub(crate) fn status(model: &Model) -> (String, String) {
    let Some(counts) = &model.overview.counts else { return (String::new(), String::new()) };
    let all = total(&counts.certificates);
    let backup = match counts.backup_at {
        0 => "no backup yet".to_owned(),
        at => format!("backup {}", ago(model.now, at)),
    };
    let agents = count(total(&counts.agents));
    (headline(model).trim().to_owned(), format!("{} certificates, {agents} agents, {backup}", count(all)))
}
