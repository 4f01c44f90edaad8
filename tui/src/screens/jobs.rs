//! Running and last jobs; `Enter` opens the certificate, whose phases are the job's progress, or of an act on many each
//! certificate.

use proto::operator::v1::Job;
use ratatui::buffer::Buffer;
use ratatui::layout::{Position, Rect};
use ratatui::text::{Line, Span};

use crate::app::Model;
use crate::app::list::Record as _;
use crate::client::batch_words;
use crate::screens::job::{explained, subject};
use crate::screens::words::{job_state, title};
use crate::view;
use crate::widgets::panel::{put, put_all, rows as part};
use crate::widgets::table::{Column, Row, fixed, growing, names, number, table};
use crate::widgets::text::{ago, safe, span, until};

const COLUMNS: [Column; 8] = [
    fixed("KIND", 8, 0),
    names("CERTIFICATE", 14),
    fixed("STATE", 10, 0),
    fixed("PHASE", 11, 1),
    number("STARTED", 10, 2),
    number("TOOK", 6, 3),
    number("RETRY", 7, 4),
    growing("WHY", 16),
];
const COLUMNS_COMPACT: [Column; 2] = [names("CERTIFICATE", 14), fixed("STATE", 10, 0)];

/// Returns how many rows show.
pub(crate) fn rows(model: &Model) -> usize {
    usize::from(view::body_height(model)).saturating_sub(2)
}

/// Paints the list.
pub(crate) fn paint(model: &Model, area: Rect, buf: &mut Buffer) -> Option<Position> {
    let theme = model.theme;
    let list = &model.jobs;
    let mut spans = vec![Span::styled(" Jobs", theme.strong())];
    spans.extend(view::read_only_mark(model));
    put(buf, area, 0, &Line::from(spans));
    let body = part(area, 1, u16::MAX);
    if list.rows.is_empty() {
        let next = model.overview.counts.as_ref().filter(|counts| counts.next_renewal_at > 0);
        let next = next.map_or_else(String::new, |counts| {
            format!(" Next: renew {} in {}.", safe(&counts.next_renewal_name), until(model.now, counts.next_renewal_at))
        });
        let text = vec![Line::styled(format!("  Nothing runs and nothing ran.{next}"), theme.dim())];
        put_all(buf, part(body, 1, u16::MAX), if list.loaded { text } else { view::nothing_yet(model) });
        return None;
    }
    let compact = view::is_compact(model);
    let columns: &[Column] = if compact { &COLUMNS_COMPACT } else { &COLUMNS };
    let shown: Vec<Row> = list.window(rows(model)).map(|job| row(model, job, compact)).collect();
    table(buf, body, theme, columns, &shown, list.cursor_in_window())
}

fn row(model: &Model, job: &Job, compact: bool) -> Row {
    let took = if job.finished_at > 0 { span((job.finished_at - job.created_at) / 1_000) } else { String::new() };
    let retry = if job.retry_at > 0 { until(model.now, job.retry_at) } else { String::new() };
    let why = match &job.batch {
        Some(batch) => batch_words(batch),
        None => job.problem.as_ref().map_or_else(String::new, |problem| problem.message.clone()),
    };
    let cells = if compact {
        vec![subject(job), job.state.clone()]
    } else {
        let started = ago(model.now, job.created_at);
        vec![title(&job.kind), subject(job), job.state.clone(), job.phase.clone(), started, took, retry, why]
    };
    Row {
        changed: model.jobs.is_changed(job.id(), model.now),
        gone: model.jobs.is_gone(job.id()),
        ..Row::new(job_state(&job.state), cells)
    }
}

/// Returns the status line: what the job under the cursor waits for, or how it went wrong.
pub(crate) fn status(model: &Model) -> String {
    let list = &model.jobs;
    let told = list.index().and_then(|at| list.rows.get(at)).map(|job| explained(model, job));
    told.filter(|told| !told.is_empty()).unwrap_or_else(|| "running and last jobs".to_owned())
}
