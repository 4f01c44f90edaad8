//! One issuer: its account, what its directory offers, and what of its limits is used; or a private CA, its roots and list.
//!
//! ```text
//!  Issuers > le                                              ✓ valid  limits free
//!  [Account]  Directory  Limits
//!  the tab
//! ```

use proto::operator::v1::{Issuer, LimitLine, ListLimitsResponse, PrivateCa};
use ratatui::buffer::Buffer;
use ratatui::layout::{Position, Rect};
use ratatui::text::Line;

use crate::app::Model;
use crate::client::{key_type, limit_subject, limit_used, period};
use crate::screens::words::{account_word, badge, issuer_state, pair, problem_lines};
use crate::theme::{State, Theme};
use crate::view;
use crate::widgets::panel::{put, put_all, rows as part};
use crate::widgets::table::{Row, fixed, growing, number, table};
use crate::widgets::text::{count, instant, safe, until, wrap};

/// Lines below the table of limits for what the line under the cursor means.
const REMARK_HEIGHT: u16 = 5;

/// The tabs, in their order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Tab {
    /// The account at the CA.
    #[default]
    Account,
    /// What the CA's directory offers, and what is taken of it.
    Directory,
    /// Rate limits.
    Limits,
}

const TABS: [Tab; 3] = [Tab::Account, Tab::Directory, Tab::Limits];

/// The open issuer.
#[derive(Debug, Default)]
pub(crate) struct IssuerScreen {
    /// Its name.
    pub(crate) name: String,
    /// The record, once it was read.
    pub(crate) record: Option<Issuer>,
    /// Its limits, once they were read.
    pub(crate) limits: Option<ListLimitsResponse>,
    /// The controller no longer has it.
    pub(crate) missing: bool,
    /// Row or line of the tab.
    pub(crate) cursor: usize,
    /// What shows.
    pub(crate) tab: Tab,
}

impl IssuerScreen {
    /// Prepares for the issuer `name`.
    pub(crate) fn open(&mut self, name: &str) {
        if self.name != name || self.missing {
            *self = Self { name: name.to_owned(), ..Self::default() };
        }
    }

    /// Takes the record, if it is the open one's.
    pub(crate) fn take(&mut self, record: Issuer) {
        if record.name == self.name {
            self.missing = false;
            self.record = Some(record);
        }
    }

    /// The controller has no such issuer.
    pub(crate) fn vanished(&mut self, name: &str) {
        if self.name == name {
            self.missing = true;
        }
    }

    /// Whether its limits show.
    pub(crate) fn shows_limits(&self) -> bool {
        self.tab == Tab::Limits
    }

    /// Turns to the next or previous tab.
    pub(crate) fn turn(&mut self, forward: bool) {
        self.tab = view::next_tab(&TABS, self.tab, forward);
        self.cursor = 0;
    }
}

/// Returns the largest cursor of the tab that shows.
pub(crate) fn cursor_max(model: &Model) -> usize {
    let screen = &model.issuer;
    let width = usize::from(model.size.0);
    let lines = match (screen.tab, &screen.record) {
        (_, None) => 0,
        (Tab::Account, Some(record)) => account_lines(record, model.theme, width).len(),
        (Tab::Directory, Some(record)) => directory_lines(record, model.theme, width).len(),
        (Tab::Limits, Some(_)) => screen.limits.as_ref().map_or(0, |limits| limits.items.len()),
    };
    lines.saturating_sub(1)
}

/// Paints the record.
pub(crate) fn paint(model: &Model, area: Rect, buf: &mut Buffer) -> Option<Position> {
    let (screen, theme) = (&model.issuer, model.theme);
    let right = screen.record.as_ref().map_or_else(Line::default, |record| {
        let account = if record.checking { "being tried" } else { record.account_status.as_str() };
        badge(issuer_state(record), &format!("{account}  limits {} ", record.limits), theme)
    });
    view::record_heading(model, "Issuers", &screen.name, &right, area, buf);
    let Some(record) = &screen.record else {
        let gone = vec![Line::styled("  There is no such issuer; q goes back.", theme.dim())];
        put_all(buf, part(area, 2, u16::MAX), if screen.missing { gone } else { view::nothing_yet(model) });
        return None;
    };
    let labels = match record.private_ca {
        Some(_) => ["Authority", "Roots", "Limits"],
        None => ["Account", "Directory", "Limits"],
    };
    let labels = labels.map(str::to_owned);
    put(buf, area, 1, &view::tabs_line(TABS.into_iter().zip(labels), screen.tab, theme));
    let body = part(area, 3, u16::MAX);
    let width = usize::from(body.width);
    let lines = match screen.tab {
        Tab::Account => account_lines(record, theme, width),
        Tab::Directory => directory_lines(record, theme, width),
        Tab::Limits => return paint_limits(model, body, buf),
    };
    put_all(buf, body, lines.into_iter().skip(screen.cursor));
    None
}

fn account_lines(record: &Issuer, theme: Theme, width: usize) -> Vec<Line<'static>> {
    let mut lines = trouble_lines(record, theme, width);
    let users = users(record);
    if let Some(ca) = &record.private_ca {
        lines.extend(authority_lines(ca, &users, theme));
        return lines;
    }
    let or = |text: &str, none: &str| if text.is_empty() { none.to_owned() } else { text.to_owned() };
    let status = format!("{}: {}", record.account_status, account_word(&record.account_status));
    let external = match (record.external_kid.as_str(), record.external_account_required) {
        ("", true) => "wanted by the CA, none given".to_owned(),
        ("", false) => "none; the CA wants none".to_owned(),
        (kid, _) => format!("{kid}  (its key is kept sealed)"),
    };
    let terms = if record.terms_accepted { "accepted" } else { "not accepted" };
    lines.extend([
        pair(" Account", &status, theme),
        pair(" URL", &or(&record.account_url, "-"), theme),
        pair(" Contacts", &or(&record.contacts.join(", "), "none"), theme),
        pair(" Terms", format!("{terms}  {}", record.terms_url).trim_end(), theme),
        pair(" External", &external, theme),
        pair(" Used by", &users, theme),
    ]);
    lines
}

/// What does not work, and what to do.
fn trouble_lines(record: &Issuer, theme: Theme, width: usize) -> Vec<Line<'static>> {
    let Some(problem) = &record.problem else { return Vec::new() };
    let text = format!("{} {}", theme.glyph(State::Bad), problem.message);
    let text = wrap(&text, width.saturating_sub(1));
    let mut lines: Vec<Line<'static>> =
        text.into_iter().map(|part| Line::styled(format!(" {part}"), theme.state(State::Bad))).collect();
    lines.extend(problem_lines(problem, theme, width, 3));
    lines.push(Line::default());
    lines
}

fn users(record: &Issuer) -> String {
    match record.certificates {
        0 => "no certificate uses it".to_owned(),
        1 => "1 certificate uses it".to_owned(),
        number => format!("{} certificates use it", count(number)),
    }
}

/// A private CA: what it certifies, and when root and list are made again.
fn authority_lines(ca: &PrivateCa, users: &str, theme: Theme) -> Vec<Line<'static>> {
    let life = period(u32::try_from(ca.leaf_life_seconds).unwrap_or(u32::MAX));
    let list = match ca.list_number {
        0 => "none yet".to_owned(),
        number => format!("number {number}, {} revoked, made {}", ca.revoked, instant(ca.list_made_at)),
    };
    let url = if ca.list_url.is_empty() { "certificates do not say where the list is" } else { &ca.list_url };
    let root = if ca.roots.is_empty() { "none yet".to_owned() } else { instant(ca.next_root_at) };
    vec![
        pair(" Certifies", &ca.names.join(", "), theme),
        pair(" Lifetime", &life, theme),
        pair(" Key", key_type(ca.key_type), theme),
        pair(" Next root", &root, theme),
        pair(" List", &list, theme),
        pair(" Next list", &instant(ca.list_next_at), theme),
        pair(" List at", url, theme),
        pair(" Used by", users, theme),
    ]
}

/// The root certificates of a private CA, and how clients get them.
fn root_lines(record: &Issuer, ca: &PrivateCa, theme: Theme, width: usize) -> Vec<Line<'static>> {
    let mut lines = vec![pair(" Name", &ca.common_name, theme), Line::default()];
    for (index, root) in ca.roots.iter().enumerate() {
        let state = if index == 0 { "signs" } else { "earlier, of the same key" };
        let valid = format!("{} to {}", instant(root.not_before), instant(root.not_after));
        lines.push(Line::styled(format!(" {valid}  {state}"), theme.strong()));
        lines.push(pair("   SHA-256", &root.fingerprint_sha256, theme));
    }
    lines.push(Line::default());
    let text = format!("Clients trust it once they have the root: certwright issuers root {}", safe(&record.name));
    lines.extend(wrap(&text, width.saturating_sub(1)).into_iter().map(|part| Line::from(format!(" {part}"))));
    lines
}

fn directory_lines(record: &Issuer, theme: Theme, width: usize) -> Vec<Line<'static>> {
    if let Some(ca) = &record.private_ca {
        return root_lines(record, ca, theme, width);
    }
    let or = |text: &str, none: &str| if text.is_empty() { none.to_owned() } else { text.to_owned() };
    let roots = if record.own_root { "its own, given with the issuer" } else { "the system's" };
    let chain = if record.preferred_chain.is_empty() {
        "the CA's choice".to_owned()
    } else {
        format!("the one under \"{}\", where it is offered", record.preferred_chain)
    };
    let mut lines = vec![
        pair(" URL", &record.directory, theme),
        pair(" Roots", roots, theme),
        pair(" Staging", &or(&record.staging_directory, "none: failures are not rehearsed"), theme),
        pair(" Chain", &chain, theme),
        pair(" Profile", &or(&record.profile, "the CA's choice"), theme),
        Line::default(),
    ];
    if record.profiles.is_empty() {
        lines.push(Line::styled(" Its directory lists no profiles.", theme.dim()));
        return lines;
    }
    lines.push(Line::styled(" Profiles that its directory lists", theme.strong()));
    for profile in &record.profiles {
        let lead = format!("   {:<14} ", safe(&profile.name));
        let room = width.saturating_sub(lead.chars().count()).max(20);
        for (index, text) in wrap(&profile.description, room).into_iter().enumerate() {
            let lead = if index == 0 { lead.clone() } else { " ".repeat(lead.chars().count()) };
            lines.push(Line::from(format!("{lead}{text}")));
        }
    }
    lines
}

fn paint_limits(model: &Model, area: Rect, buf: &mut Buffer) -> Option<Position> {
    let (screen, theme) = (&model.issuer, model.theme);
    let Some(limits) = &screen.limits else {
        put_all(buf, area, view::nothing_yet(model));
        return None;
    };
    if limits.items.is_empty() {
        put_all(buf, area, vec![Line::styled(" Nothing limits its orders.", theme.dim())]);
        return None;
    }
    let columns = [
        fixed("LIMIT", 21, 0),
        growing("FOR", 14),
        number("ALLOWED", 10, 1),
        number("USED", 6, 0),
        number("LEFT", 6, 0),
        number("REFILLS", 8, 0),
        number("WAITING", 7, 0),
    ];
    let below = REMARK_HEIGHT.min(area.height / 3);
    let room = usize::from(area.height.saturating_sub(below)).saturating_sub(1).max(1);
    let first = (screen.cursor + 1).saturating_sub(room);
    let rows: Vec<Row> = limits.items.iter().skip(first).take(room).map(|line| limit_row(model, line)).collect();
    let upper = part(area, 0, area.height.saturating_sub(below));
    let cursor = table(buf, upper, theme, &columns, &rows, screen.cursor.checked_sub(first));
    let remarks = limits.items.get(screen.cursor).map(|line| remarks(limits, line)).unwrap_or_default();
    let width = usize::from(area.width).saturating_sub(2);
    let remarks = remarks.into_iter().flat_map(|text| wrap(&text, width));
    let lines = remarks.map(|text| Line::styled(format!(" {text}"), theme.dim()));
    put_all(buf, part(area, area.height.saturating_sub(below), below), lines);
    cursor
}

fn limit_row(model: &Model, line: &LimitLine) -> Row {
    let counted = line.kind != "requests";
    let limited = line.count > 0;
    let number = |number: u32, shown: bool| if shown { count(u64::from(number)) } else { "-".to_owned() };
    let state = match () {
        () if line.closed_until != 0 || line.waiting > 0 => State::Warn,
        () if line.used > 0 => State::Ok,
        () => State::Idle,
    };
    let allowed = if limited {
        format!("{} in {}", count(u64::from(line.count)), period(line.period_seconds))
    } else {
        "any".to_owned()
    };
    let refills = if line.closed_until != 0 { line.closed_until } else { line.refills_at };
    Row::new(
        state,
        vec![
            line.kind.replace('-', " "),
            line.name.clone(),
            allowed,
            number(line.used, counted),
            number(line.left, counted && limited),
            until(model.now, refills),
            number(line.waiting, line.waiting > 0),
        ],
    )
}

/// What the numbers of a line do not say.
fn remarks(limits: &ListLimitsResponse, line: &LimitLine) -> Vec<String> {
    let mut said = vec![format!("{}: {}", limit_subject(line), limit_used(line)).trim_end_matches(": ").to_owned()];
    if line.closed_until != 0 {
        said.push(format!("Closed by the CA until {}: {}", instant(line.closed_until), safe(&line.cause)));
    } else if line.refills_at != 0 {
        said.push(format!("One more place is free at {}.", instant(line.refills_at)));
    }
    if line.waiting > 0 {
        said.push(format!("{} order(s) wait for a place; each has its time, nothing is sent before.", line.waiting));
    }
    said.push(match line.source.as_str() {
        "set" => "An operator set this number.".to_owned(),
        "published" => format!("The number that {} publishes.", safe(&limits.host)),
        _ if limits.published => "Not published by the CA; this is our own measure.".to_owned(),
        _ => format!("{} publishes no limits that are known here.", safe(&limits.host)),
    });
    said
}

/// Returns the status line.
pub(crate) fn status(model: &Model) -> (String, String) {
    let Some(record) = &model.issuer.record else { return (String::new(), String::new()) };
    let left = match &record.problem {
        Some(problem) => safe(&problem.hint),
        None => account_word(&record.account_status).to_owned(),
    };
    (left, format!("revision {}", record.revision))
}
