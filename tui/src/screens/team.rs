//! Who may do what: operators, and the invitations that are not used yet. Root is built-in and stays. `n` adds or invites.

use proto::operator::v1::{ListOperatorsResponse, Operator, PendingInvitation};
use ratatui::buffer::Buffer;
use ratatui::layout::{Position, Rect};
use ratatui::text::{Line, Span};

use crate::app::Model;
use crate::app::call::Page;
use crate::app::list::Record;
use crate::theme::State;
use crate::view;
use crate::widgets::panel::{put, put_all, rows as part};
use crate::widgets::table::{Column, Row, fixed, growing, names, table};
use crate::widgets::text::{ago, safe, until};

/// The roles, the least first: the word of the wire, and what it may do.
pub(crate) const ROLES: [(&str, &str); 4] = [
    ("viewer", "sees everything but the audit"),
    ("auditor", "sees everything, the audit too"),
    ("maintainer", "a viewer who runs certificates and agents"),
    ("owner", "everything: issuers, operators, the audit"),
];
/// What the wire calls root, and the account that the controller runs as.
pub(crate) const BUILT_IN: &str = "built-in";

const COLUMNS: [Column; 7] = [
    names("NAME", 18),
    fixed("ROLE", 10, 0),
    fixed("TYPE", 9, 0),
    fixed("LAST SEEN", 10, 1),
    fixed("EXPIRES", 8, 2),
    fixed("ADDED", 9, 3),
    growing("BY", 10),
];
const COLUMNS_COMPACT: [Column; 2] = [names("NAME", 14), fixed("ROLE", 10, 0)];

/// One row of the team.
#[derive(Clone, Debug)]
pub(crate) enum Member {
    /// Someone with a role.
    Operator(Operator),
    /// Someone who was invited and has not come yet.
    Invited(PendingInvitation),
}

impl Member {
    /// Returns the name: at any time one operator or one invitation has it.
    pub(crate) fn name(&self) -> &str {
        match self {
            Self::Operator(operator) => &operator.name,
            Self::Invited(pending) => &pending.name,
        }
    }

    /// Returns the word of the role.
    pub(crate) fn role(&self) -> &str {
        match self {
            Self::Operator(operator) => &operator.role,
            Self::Invited(pending) => &pending.role,
        }
    }

    fn kind(&self) -> &str {
        match self {
            Self::Operator(operator) => &operator.kind,
            Self::Invited(_) => "invited",
        }
    }
}

/// What changes with every message and every login renewed is no change of the member: it is not marked.
impl PartialEq for Member {
    fn eq(&self, other: &Self) -> bool {
        (self.name(), self.role(), self.kind()) == (other.name(), other.role(), other.kind())
    }
}

impl Record for Member {
    fn id(&self) -> &str {
        self.name()
    }

    fn state(&self) -> State {
        match self {
            Self::Operator(_) => State::Ok,
            Self::Invited(_) => State::Idle,
        }
    }
}

/// Returns the rows: operators, then open invitations.
pub(crate) fn page(found: ListOperatorsResponse) -> Page<Member> {
    let operators = found.items.into_iter().map(Member::Operator);
    let items: Vec<Member> = operators.chain(found.pending.into_iter().map(Member::Invited)).collect();
    Page { total: items.len().try_into().unwrap_or(u64::MAX), items, more: false }
}

/// Returns the member under the cursor.
pub(crate) fn member_here(model: &Model) -> Option<&Member> {
    model.team.current()
}

/// Returns how many rows show.
pub(crate) fn rows(model: &Model) -> usize {
    usize::from(view::body_height(model)).saturating_sub(2)
}

/// Paints the list.
pub(crate) fn paint(model: &Model, area: Rect, buf: &mut Buffer) -> Option<Position> {
    let (theme, list) = (model.theme, &model.team);
    let mut spans = vec![Span::styled(" Team", theme.strong())];
    spans.extend(view::read_only_mark(model));
    put(buf, area, 0, &Line::from(spans));
    let body = part(area, 1, u16::MAX);
    if list.rows.is_empty() {
        put_all(buf, part(body, 1, u16::MAX), view::nothing_yet(model));
        return None;
    }
    let compact = view::is_compact(model);
    let columns: &[Column] = if compact { &COLUMNS_COMPACT } else { &COLUMNS };
    let shown: Vec<Row> = list.window(rows(model)).map(|member| row(model, member, compact)).collect();
    let cursor = table(buf, body, theme, columns, &shown, list.cursor_in_window());
    let below = u16::try_from(shown.len() + 2).unwrap_or(u16::MAX);
    if let ([Member::Operator(_)], true) = (list.rows.as_slice(), list.loaded) {
        let text = Line::from(vec![
            Span::raw("  Only you. "),
            Span::styled("n", theme.strong()),
            Span::raw(" adds a user of this host, or invites: one command the person runs."),
        ]);
        put(buf, body, below, &text);
    }
    cursor
}

fn row(model: &Model, member: &Member, compact: bool) -> Row {
    let mut cells = vec![member.name().to_owned(), member.role().to_owned()];
    if !compact {
        let (seen, expires, added, by) = match member {
            Member::Operator(one) => (one.seen_at, one.identity_not_after, one.created_at, &one.created_by),
            Member::Invited(one) => (0, one.expires_at, 0, &one.created_by),
        };
        let now = model.now;
        // 0 is not never: only what happened since the controller started is known.
        let since = |at: i64| if at == 0 { "-".to_owned() } else { ago(now, at) };
        cells.extend([member.kind().to_owned(), since(seen), until(now, expires), since(added), by.clone()]);
    }
    Row {
        changed: model.team.is_changed(member.id(), model.now),
        gone: model.team.is_gone(member.id()),
        ..Row::new(member.state(), cells)
    }
}

/// Returns the status line.
pub(crate) fn status(model: &Model) -> String {
    let list = &model.team;
    let now = model.now;
    match list.index().and_then(|at| list.rows.get(at)) {
        Some(member) if list.is_gone(member.id()) => format!("{} was removed", safe(member.name())),
        Some(Member::Invited(one)) => {
            let valid = until(now, one.expires_at);
            format!("{} was invited by {}; valid for {valid}", safe(&one.name), safe(&one.created_by))
        }
        Some(Member::Operator(one)) if one.kind == BUILT_IN => {
            format!("{} is always an owner: it can read the database and its key anyway", safe(&one.name))
        }
        Some(Member::Operator(one)) if one.kind == "local" => {
            format!("uid {} of the controller's host; may reach the socket with its group", one.uid)
        }
        Some(Member::Operator(one)) => {
            format!("logs in with a key; the login lasts {} more, renewed on use", until(now, one.identity_not_after))
        }
        None => String::new(),
    }
}
