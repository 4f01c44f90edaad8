//! The list of certificates; with room enough the one under the cursor beside it.
//!
//! ```text
//!  Certificates  filter: …                      sort: urgency
//!   S NAME            STATUS       EXPIRES RENEWS   TGT ISSUER
//! > ✓ api.example.com active           67d 30d      2/2 le
//! ```

use proto::operator::v1::Certificate;
use ratatui::buffer::Buffer;
use ratatui::layout::{Position, Rect};
use ratatui::text::{Line, Span};

use crate::app::Model;
use crate::app::list::{ROWS_MAX, Record as _};
use crate::client::{custody, key_type};
use crate::screens::certificate::phase_lines;
use crate::screens::words::{
    certificate_state, certificate_word, pair, problem_lines, renews, target_state, target_word, targets_ok,
};
use crate::theme::State;
use crate::view;
use crate::widgets::panel::{panel, put, put_all, put_right, rows as part, split_right};
use crate::widgets::table::{Column, Row, fixed, names, number, table};
use crate::widgets::text::{instant, safe, until};

/// Orders, by the key after `s`.
pub(crate) const SORTS: [(char, &str); 3] = [('u', "urgency"), ('n', "name"), ('e', "expires")];
/// From this width on there is room for the preview.
const PREVIEW_MIN: u16 = 120;
const PREVIEW_WIDTH: u16 = 46;

const COLUMNS: [Column; 9] = [
    names("NAME", 24),
    fixed("STATUS", 14, 0),
    number("EXPIRES", 7, 1),
    fixed("RENEWS", 10, 3),
    number("TGT", 5, 2),
    fixed("ISSUER", 10, 4),
    number("SANS", 4, 5),
    fixed("KEY", 7, 6),
    fixed("CUSTODY", 10, 7),
];
const COLUMNS_COMPACT: [Column; 2] = [names("NAME", 14), fixed("STATUS", 14, 0)];

/// Returns how many rows show.
pub(crate) fn rows(model: &Model) -> usize {
    usize::from(view::body_height(model)).saturating_sub(2)
}

/// Paints the list.
pub(crate) fn paint(model: &Model, area: Rect, buf: &mut Buffer) -> Option<Position> {
    heading(model, part(area, 0, 1), buf);
    let body = part(area, 1, u16::MAX);
    let list = &model.certificates;
    if list.rows.is_empty() {
        empty(model, body, buf);
        return None;
    }
    let (left, right) = if model.preview && area.width >= PREVIEW_MIN {
        split_right(body, PREVIEW_WIDTH)
    } else {
        (body, Rect { width: 0, ..body })
    };
    let columns: &[Column] = if view::is_compact(model) { &COLUMNS_COMPACT } else { &COLUMNS };
    let shown: Vec<Row> = list.window(rows(model)).map(|record| row(model, record)).collect();
    let cursor = table(buf, left, model.theme, columns, &shown, list.cursor_in_window());
    if right.width > 0
        && let Some(record) = list.index().and_then(|at| list.rows.get(at))
    {
        preview(model, record, right, buf);
    }
    cursor
}

fn heading(model: &Model, area: Rect, buf: &mut Buffer) {
    let list = &model.certificates;
    let mut spans = vec![Span::styled(" Certificates", model.theme.strong())];
    if !list.filter.is_empty() {
        spans.push(Span::raw(format!("  filter: {}", safe(&list.filter))));
    }
    spans.extend(view::read_only_mark(model));
    put(buf, area, 0, &Line::from(spans));
    let newer = if list.newer > 0 { format!(" ({} newer, R re-sorts)", list.newer) } else { String::new() };
    put_right(buf, area, 0, &Line::styled(format!("sort: {}{newer} ", model.sort), model.theme.dim()));
}

fn row(model: &Model, record: &Certificate) -> Row {
    let expires = record.current.as_ref().map_or(0, |version| version.not_after);
    let cells = vec![
        record.name.clone(),
        certificate_word(record),
        until(model.now, expires),
        renews(record, model.now),
        targets_ok(record),
        record.issuer.clone(),
        record.identifiers.len().to_string(),
        key_type(record.key_type).to_owned(),
        custody(record.custody).to_owned(),
    ];
    Row {
        changed: model.certificates.is_changed(record.id(), model.now),
        gone: model.certificates.is_gone(record.id()),
        marked: model.marks.has(&record.name),
        ..Row::new(certificate_state(record), cells)
    }
}

fn empty(model: &Model, area: Rect, buf: &mut Buffer) {
    let theme = model.theme;
    let list = &model.certificates;
    let lines: Vec<Line<'_>> = if !list.loaded {
        view::nothing_yet(model)
    } else if !list.filter.is_empty() {
        vec![Line::from(format!("  0 match `{}`. Esc clears the filter.", safe(&list.filter)))]
    } else {
        vec![
            Line::styled("  No certificates yet.", theme.strong()),
            Line::default(),
            Line::from(vec![
                Span::styled("  n", theme.strong()),
                Span::raw("  add the first one: names, challenge, key, target, review"),
            ]),
            Line::from(vec![
                Span::styled("  3", theme.strong()),
                Span::raw("  first enrol an agent on the server that needs it"),
            ]),
            Line::default(),
            Line::styled("  The same on the command line: certwright certs create --help", theme.dim()),
        ]
    };
    put_all(buf, part(area, 1, u16::MAX), lines);
}

/// The record beside the list.
fn preview(model: &Model, record: &Certificate, area: Rect, buf: &mut Buffer) {
    let theme = model.theme;
    let inner = panel(buf, area, theme, &record.name, "preview");
    let width = usize::from(inner.width);
    let state = certificate_state(record);
    let mut lines = vec![Line::from(vec![
        Span::styled(format!("{:<10}", "Status"), theme.dim()),
        Span::styled(format!("{} {}", theme.glyph(state), certificate_word(record)), theme.state(state)),
    ])];
    if let Some(version) = &record.current {
        lines.push(pair(
            "Expires",
            &format!("{} ({})", instant(version.not_after), until(model.now, version.not_after)),
            theme,
        ));
        lines.push(pair("Issuer", &format!("{} ({})", version.issuer_cn, record.issuer), theme));
    }
    lines.push(pair("Renews", &renews(record, model.now), theme));
    if let Some(order) = &record.order {
        lines.push(Line::default());
        lines.push(Line::styled(format!("Issuance, attempt {}", order.attempt), theme.strong()));
        lines.extend(phase_lines(order, model, width));
        if let Some(problem) = &order.error {
            lines.push(Line::styled(safe(&problem.message), theme.state(State::Bad)));
            lines.extend(problem_lines(problem, theme, width, 0));
        }
    }
    lines.push(Line::default());
    lines.push(Line::styled(format!("Names ({})", record.identifiers.len()), theme.strong()));
    lines.extend(record.identifiers.iter().take(5).map(|name| Line::from(format!("  {}", safe(name)))));
    lines.push(Line::default());
    lines.push(Line::styled(format!("Targets ({})", record.targets.len()), theme.strong()));
    for target in &record.targets {
        let state = target_state(target.status);
        let agent = target.spec.as_ref().map_or("", |spec| spec.agent.as_str());
        lines.push(Line::from(vec![
            Span::raw("  "),
            Span::styled(theme.glyph(state), theme.state(state)),
            Span::raw(format!(" {:<16} {}", safe(agent), target_word(target))),
        ]));
    }
    for issue in &record.issues {
        lines.push(Line::default());
        lines.push(Line::styled(format!("! {}", safe(&issue.cause)), theme.state(State::Warn)));
        lines.push(Line::from(format!("  {}", safe(&issue.action))));
    }
    put_all(buf, inner, lines);
}

/// Returns the status line.
pub(crate) fn status(model: &Model) -> String {
    let list = &model.certificates;
    let shown: Vec<&str> = list.rows.iter().map(|record| record.name.as_str()).collect();
    if let Some(marked) = model.marks.words(&shown) {
        return format!("{marked}: r renews, K gives new keys, V revokes, q clears");
    }
    if list.more && list.rows.len() >= ROWS_MAX {
        return format!("the first {ROWS_MAX} are held; / narrows the list");
    }
    match list.index().and_then(|at| list.rows.get(at)) {
        Some(record) if list.is_gone(record.id()) => format!("{} was deleted", safe(&record.name)),
        Some(record) => {
            let trouble =
                record.order.as_ref().and_then(|order| order.error.as_ref()).map(|problem| safe(&problem.message));
            trouble.unwrap_or_else(|| safe(&record.identifiers.join(" ")))
        }
        None => String::new(),
    }
}
