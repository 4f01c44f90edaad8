//! One act on many certificates: how far it is, who was passed over, and each certificate with what it waits for; what
//! needs someone stands first. `Enter` opens the certificate.
//!
//! ```text
//!  Jobs > renew 35 certificates                                   running
//!  31/35 ok, 2 to go, 2 failed   by local:root, 3m ago: issuer:le
//!  1 passed over: shop (locked until …)
//!
//!   S CERTIFICATE          STATE    PHASE      RETRY WHY
//! ```

use proto::operator::v1::{Batch, Job};
use ratatui::buffer::Buffer;
use ratatui::layout::{Position, Rect};
use ratatui::text::Line;

use crate::app::Model;
use crate::app::call::Page;
use crate::app::list::{List, Record as _};
use crate::client::batch_words;
use crate::screens::words::{badge, job_state};
use crate::theme::State;
use crate::view;
use crate::widgets::panel::{put, put_all, rows as part};
use crate::widgets::table::{Column, Row, fixed, growing, names, number, table};
use crate::widgets::text::{ago, safe, until, wrap};

const COLUMNS: [Column; 5] =
    [names("CERTIFICATE", 14), fixed("STATE", 10, 0), fixed("PHASE", 11, 1), number("RETRY", 7, 2), growing("WHY", 16)];
const COLUMNS_COMPACT: [Column; 2] = [names("CERTIFICATE", 14), fixed("STATE", 10, 0)];
/// Lines above the table.
const HEAD: u16 = 5;
/// Names of those passed over that fit a line.
const SKIPPED_SHOWN: usize = 3;

/// The open job.
#[derive(Debug, Default)]
pub(crate) struct JobScreen {
    /// Its id.
    pub(crate) id: String,
    /// The record, once it was read.
    pub(crate) record: Option<Job>,
    /// Its sub-jobs, the first of them.
    pub(crate) subs: List<Job>,
    /// The controller no longer has it.
    pub(crate) missing: bool,
}

impl JobScreen {
    /// Prepares for a job.
    pub(crate) fn open(&mut self, id: &str) {
        if self.id != id || self.missing {
            *self = Self { id: id.to_owned(), ..Self::default() };
        }
        self.subs.refresh();
    }

    /// Takes the record, if it is the open one's.
    pub(crate) fn take(&mut self, record: Job) {
        if record.id == self.id {
            self.missing = false;
            self.record = Some(record);
        }
    }

    /// Takes its sub-jobs.
    pub(crate) fn take_subs(&mut self, id: &str, page: Page<Job>, now: jiff::Timestamp) {
        if self.id == id {
            self.subs.take(page, now);
        }
    }

    /// The controller has no such job.
    pub(crate) fn vanished(&mut self, id: &str) {
        if self.id == id {
            self.missing = true;
        }
    }
}

/// Returns how many rows show.
pub(crate) fn rows(model: &Model) -> usize {
    usize::from(view::body_height(model)).saturating_sub(usize::from(HEAD) + 1)
}

/// Paints the job.
pub(crate) fn paint(model: &Model, area: Rect, buf: &mut Buffer) -> Option<Position> {
    let (screen, theme) = (&model.job, model.theme);
    let right = screen.record.as_ref().map_or_else(Line::default, |record| {
        badge(job_state(&record.state), &format!("{}  {} ", record.state, record.phase), theme)
    });
    let title =
        screen.record.as_ref().map_or_else(|| screen.id.clone(), |job| format!("{} {}", job.kind, subject(job)));
    view::record_heading(model, "Jobs", &title, &right, area, buf);
    let Some(record) = &screen.record else {
        let gone = vec![Line::from("  This job is no longer kept.")];
        put_all(buf, part(area, 2, u16::MAX), if screen.missing { gone } else { view::nothing_yet(model) });
        return None;
    };
    let width = usize::from(area.width).saturating_sub(2);
    for (row, line) in (1..HEAD).zip(head(model, record)) {
        let first = wrap(&line, width).into_iter().next().unwrap_or_default();
        let bad = line.starts_with('!');
        let style = if bad { theme.state(State::Bad) } else { ratatui::style::Style::new() };
        put(buf, area, row, &Line::styled(format!(" {first}"), style));
    }
    let body = part(area, HEAD, u16::MAX);
    let list = &screen.subs;
    if list.rows.is_empty() {
        let none = vec![Line::styled("  No certificate was asked for yet.", theme.dim())];
        put_all(buf, body, if list.loaded { none } else { view::nothing_yet(model) });
        return None;
    }
    let compact = view::is_compact(model);
    let columns: &[Column] = if compact { &COLUMNS_COMPACT } else { &COLUMNS };
    let shown: Vec<Row> = list.window(rows(model)).map(|job| row(model, job, compact)).collect();
    table(buf, body, theme, columns, &shown, list.cursor_in_window())
}

/// Returns what a job is about.
pub(crate) fn subject(job: &Job) -> String {
    job.batch.as_ref().map_or_else(|| job.certificate.clone(), |batch| format!("{} certificates", batch.total))
}

fn head(model: &Model, job: &Job) -> Vec<String> {
    let Some(batch) = &job.batch else { return Vec::new() };
    let by = format!("by {}, {}: {}", safe(&job.actor), ago(model.now, job.created_at), safe(&batch.selection));
    let mut lines = vec![format!("{}   {by}", batch_words(batch))];
    if batch.skipped_total > 0 {
        lines.push(skipped(batch));
    }
    if batch.cancelled_at > 0 {
        lines.push(format!("cancelled by {} {}", safe(&batch.cancelled_by), ago(model.now, batch.cancelled_at)));
    }
    if let Some(problem) = &job.problem {
        lines.push(format!("! {}: {}", safe(&problem.message), safe(&problem.cause)));
    }
    lines
}

fn skipped(batch: &Batch) -> String {
    let named = batch.skipped.iter().take(SKIPPED_SHOWN);
    let named = named.map(|one| format!("{} ({})", safe(&one.name), safe(&one.why))).collect::<Vec<_>>().join(", ");
    let shown = u64::try_from(batch.skipped.len().min(SKIPPED_SHOWN)).unwrap_or(u64::MAX);
    let more = if batch.skipped_total > shown { ", …" } else { "" };
    format!("{} passed over: {named}{more}", batch.skipped_total)
}

fn row(model: &Model, job: &Job, compact: bool) -> Row {
    let retry = if job.retry_at > 0 { until(model.now, job.retry_at) } else { String::new() };
    let why = job.problem.as_ref().map_or_else(String::new, |problem| problem.message.clone());
    let cells = if compact {
        vec![job.certificate.clone(), job.state.clone()]
    } else {
        vec![job.certificate.clone(), job.state.clone(), job.phase.clone(), retry, why]
    };
    Row {
        changed: model.job.subs.is_changed(job.id(), model.now),
        gone: model.job.subs.is_gone(job.id()),
        ..Row::new(job_state(&job.state), cells)
    }
}

/// Returns why a job waits or how it went wrong, in words: `attempt 3 failed; next in 34m, r tries now: …`.
pub(crate) fn explained(model: &Model, job: &Job) -> String {
    let Some(problem) = &job.problem else { return String::new() };
    let message = safe(&problem.message);
    if job.state != "waiting" {
        return format!("{message}. {}", safe(&problem.hint));
    }
    let attempt = if job.failures > 0 { format!("attempt {} failed; ", job.failures) } else { String::new() };
    let next = if job.retry_at > 0 {
        format!("next in {}, r tries now: ", until(model.now, job.retry_at))
    } else {
        String::new()
    };
    format!("{attempt}{next}{message}")
}

/// Returns the status line.
pub(crate) fn status(model: &Model) -> (String, String) {
    let list = &model.job.subs;
    let left = list.index().and_then(|at| list.rows.get(at)).map(|job| explained(model, job)).unwrap_or_default();
    (left, list.position())
}
