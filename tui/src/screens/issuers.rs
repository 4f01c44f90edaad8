//! The list of issuers: who signs, how the account and the limits stand. `Enter` opens one.

use proto::operator::v1::Issuer;
use ratatui::buffer::Buffer;
use ratatui::layout::{Position, Rect};
use ratatui::text::{Line, Span};

use crate::app::Model;
use crate::app::list::Record as _;
use crate::screens::words::issuer_state;
use crate::view;
use crate::widgets::panel::{put, put_all, rows as part};
use crate::widgets::table::{Column, Row, fixed, growing, names, number, table};
use crate::widgets::text::{count, safe};

const COLUMNS: [Column; 6] = [
    names("NAME", 12),
    fixed("ACCOUNT", 8, 0),
    fixed("LIMITS", 7, 0),
    number("CERTS", 7, 2),
    names("DIRECTORY", 20),
    growing("PROBLEM", 14),
];
const COLUMNS_COMPACT: [Column; 3] = [names("NAME", 14), fixed("ACCOUNT", 8, 0), fixed("LIMITS", 7, 0)];

/// Returns how many rows show.
pub(crate) fn rows(model: &Model) -> usize {
    usize::from(view::body_height(model)).saturating_sub(2)
}

/// Returns the host of a directory's URL.
pub(crate) fn host(directory: &str) -> &str {
    let rest = directory.split_once("://").map_or(directory, |(_, rest)| rest);
    rest.split('/').next().unwrap_or(rest)
}

/// Paints the list.
pub(crate) fn paint(model: &Model, area: Rect, buf: &mut Buffer) -> Option<Position> {
    let (theme, list) = (model.theme, &model.issuers);
    let mut spans = vec![Span::styled(" Issuers", theme.strong())];
    spans.extend(view::read_only_mark(model));
    put(buf, area, 0, &Line::from(spans));
    let body = part(area, 1, u16::MAX);
    if list.rows.is_empty() {
        let none = vec![
            Line::styled("  No issuer yet: nothing can be ordered.", theme.strong()),
            Line::default(),
            Line::from(vec![
                Span::styled("  n", theme.strong()),
                Span::raw("  adds one: Let's Encrypt, any ACME server, or a private CA"),
            ]),
        ];
        put_all(buf, part(body, 1, u16::MAX), if list.loaded { none } else { view::nothing_yet(model) });
        return None;
    }
    let compact = view::is_compact(model);
    let columns: &[Column] = if compact { &COLUMNS_COMPACT } else { &COLUMNS };
    let shown: Vec<Row> = list.window(rows(model)).map(|issuer| row(model, issuer, compact)).collect();
    table(buf, body, theme, columns, &shown, list.cursor_in_window())
}

fn row(model: &Model, issuer: &Issuer, compact: bool) -> Row {
    let account = if issuer.checking { "trying" } else { issuer.account_status.as_str() };
    let mut cells = vec![issuer.name.clone(), account.to_owned(), issuer.limits.clone()];
    if !compact {
        let problem = issuer.problem.as_ref().map_or_else(String::new, |problem| problem.message.clone());
        let place = issuer.private_ca.as_ref().map_or_else(|| host(&issuer.directory), |_| "here");
        cells.extend([count(issuer.certificates), place.to_owned(), problem]);
    }
    Row {
        changed: model.issuers.is_changed(issuer.id(), model.now),
        gone: model.issuers.is_gone(issuer.id()),
        ..Row::new(issuer_state(issuer), cells)
    }
}

/// Returns the status line.
pub(crate) fn status(model: &Model) -> String {
    let list = &model.issuers;
    match list.index().and_then(|at| list.rows.get(at)) {
        Some(issuer) if list.is_gone(issuer.id()) => format!("{} was removed", safe(&issuer.name)),
        Some(issuer) => match &issuer.problem {
            Some(problem) => format!("{}. {}", safe(&problem.message), safe(&problem.hint)),
            None => format!("{} at {}", safe(&issuer.name), safe(&issuer.directory)),
        },
        None => String::new(),
    }
}
